package validation

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/api/apitesting/fuzzer"
	metafuzzer "k8s.io/apimachinery/pkg/apis/meta/fuzzer"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	"github.com/kubetide/kubetide/internal/sample"
)

var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// read makes an object of YAML; what is not said of the spec is fine.
func read(t testing.TB, spec string) *kapacity.IntelligentHorizontalPodAutoscaler {
	t.Helper()
	o := &kapacity.IntelligentHorizontalPodAutoscaler{}
	base := map[string]any{"scaleTargetRef": map[string]any{"apiVersion": "apps/v1", "kind": "Deployment", "name": "cart"}, "minReplicas": 1, "maxReplicas": 10,
		"portraitProviders": []any{map[string]any{"type": "Static", "priority": 1, "static": map[string]any{"replicas": 2}}}}
	said := map[string]any{}
	if err := yaml.Unmarshal([]byte(spec), &said); err != nil {
		t.Fatal(err)
	}
	for k, v := range said {
		base[k] = v
	}
	text, err := json.Marshal(map[string]any{"metadata": map[string]any{"namespace": "shop", "name": "cart"}, "spec": base})
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, o); err != nil {
		t.Fatalf("%s: %v", spec, err)
	}
	return o
}

func provider(rest string) string { return "portraitProviders: [{priority: 1, " + rest + "}]" }

func cron(rest string) string {
	return provider("type: Cron, cron: {crons: [{name: a, replicas: 3, " + rest + "}]}")
}

func dynamic(rest string) string {
	return provider("type: Dynamic, dynamic: {portraitType: Reactive, " + rest + "}")
}

func kubeHPA(metrics string) string {
	return dynamic("algorithm: {type: KubeHPA}, metrics: [" + metrics + "]")
}

func checker(metric string) string {
	return "behavior: {scaleDown: {grayStrategy: {grayState: Cutoff, changeIntervalSeconds: 30, changePercent: 50}}}\n" +
		"stabilityCheckers: [{type: Metrics, stabilizationAction: Pause, metrics: {metrics: [" + metric + "]}}]"
}

func gray(direction, rest string) string {
	return "behavior: {" + direction + ": {grayStrategy: {changeIntervalSeconds: 30, " + rest + "}}}"
}

func bound(rest string) string {
	return `scheduledBounds: [{name: rush, start: "0 9 * * *", end: "0 17 * * *", ` + rest + "}]"
}

const cpu = "{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 60}}}"

// Each entry is the beginnings of all errors, then of all warnings.
func TestAnIHPAsMistakesAreNamedByTheirField(t *testing.T) {
	type finding struct {
		spec     string
		errs     []string
		warnings []string
	}
	for name, c := range map[string]finding{
		"nothing is wrong": {spec: ""},
		"a cron provider, a reactive one and bounds": {spec: `
portraitProviders:
- {type: Cron, priority: 2, cron: {crons: [{name: a, start: "0 22 * * *", end: "0 6 * * *", timeZone: Europe/Berlin, replicas: 3}]}}
- {type: Dynamic, priority: 1, dynamic: {portraitType: Reactive, algorithm: {type: KubeHPA}, metrics: [` + cpu + `]}}
` + bound("minReplicas: 4")},
		"a day that no February has":       {spec: cron(`start: "0 0 30 2 *", end: "0 6 * * *"`), errs: []string{`spec.portraitProviders[0].cron.crons[0].start: Invalid value: "0 0 30 2 *": cron expression never fires: "0 0 30 2 *" names no date that exists: name a day that the month has`}},
		"an end that never comes":          {spec: cron(`start: "0 5 * * *", end: "0 0 31 2 *"`), errs: []string{`spec.portraitProviders[0].cron.crons[0].end: Invalid value: "0 0 31 2 *": cron expression never fires`}},
		"all mistakes of a window at once": {spec: cron(`start: "0 25 * * *", end: "0 0 31 2 *", timeZone: Mars/Base`), errs: []string{"spec.portraitProviders[0].cron.crons[0].timeZone: Invalid value: \"Mars/Base\": invalid time zone", "spec.portraitProviders[0].cron.crons[0].start: Invalid value: \"0 25 * * *\": invalid cron expression", "spec.portraitProviders[0].cron.crons[0].end: "}},
		"a zone in the expression":         {spec: cron(`start: "CRON_TZ=Mars/Base 0 9 * * *", end: "0 6 * * *"`), errs: []string{"spec.portraitProviders[0].cron.crons[0].start: Invalid value: \"CRON_TZ=Mars/Base 0 9 * * *\": "}},
		"a period of less than a minute":   {spec: cron(`start: "@every 1s", end: "0 6 * * *"`), errs: []string{"spec.portraitProviders[0].cron.crons[0].start: "}},
		"two windows of one name": {spec: provider(`type: Cron, cron: {crons: [{name: a, start: "0 1 * * *", end: "0 2 * * *", replicas: 1}, {name: a, start: "0 3 * * *", end: "0 4 * * *", replicas: -1}]}`),
			errs: []string{`spec.portraitProviders[0].cron.crons[1].name: Duplicate value: "a"`, "spec.portraitProviders[0].cron.crons[1].replicas: Invalid value: -1: must not be below 0"}},
		"a window that starts when it ends":   {spec: cron(`start: "0 9 * * *", end: "0 9 * * *"`), warnings: []string{"spec.portraitProviders[0].cron.crons[0]: never opens: start and end are the same"}},
		"a window that starts each minute":    {spec: cron(`start: "* * * * *", end: "0 0 * * *"`), warnings: []string{"spec.portraitProviders[0].cron.crons[0]: none of its next 64 boundaries opens it"}},
		"more at least than at most":          {spec: "minReplicas: 5\nmaxReplicas: 3\nportraitProviders: [{type: Static, priority: 1, static: {replicas: 4}}]", errs: []string{"spec.maxReplicas: Invalid value: 3: must not be less than minReplicas, which is 5"}, warnings: []string{"spec.portraitProviders[0].static.replicas: 4 is outside"}},
		"a target without kind and name":      {spec: "scaleTargetRef: {apiVersion: a/b/c}", errs: []string{"spec.scaleTargetRef.kind: Required value: name the kind", "spec.scaleTargetRef.name: Required value: name the workload", "spec.scaleTargetRef.apiVersion: Invalid value: \"a/b/c\": must be a group and a version"}},
		"no provider":                         {spec: "portraitProviders: []", warnings: []string{"spec.portraitProviders: is empty: nothing is scaled"}},
		"the settings of another type":        {spec: provider("type: Static, schedule: {name: x}"), errs: []string{"spec.portraitProviders[0].static: Required value: the type is Static", "spec.portraitProviders[0].schedule: Forbidden: the type is Static: take this away, or change the type to Schedule"}},
		"an unknown type":                     {spec: provider("type: Magic"), errs: []string{`spec.portraitProviders[0].type: Unsupported value: "Magic"`}},
		"an unknown algorithm":                {spec: dynamic("algorithm: {type: Oracle}"), errs: []string{`spec.portraitProviders[0].dynamic.algorithm.type: Unsupported value: "Oracle": supported values: "KubeHPA", "ExternalJob"; or name who makes the portrait in externalGeneratorName`}},
		"an unknown algorithm of a generator": {spec: dynamic("externalGeneratorName: tarot, algorithm: {type: Oracle}")},
		"one portrait type twice": {spec: "portraitProviders: [{type: Dynamic, priority: 2, dynamic: {portraitType: Reactive, algorithm: {type: KubeHPA}, metrics: [" + cpu + "]}}, {type: Dynamic, priority: 1, dynamic: {portraitType: reactive, externalGeneratorName: x, algorithm: {type: own}}}]",
			errs: []string{`spec.portraitProviders[1].dynamic.portraitType: Duplicate value: "reactive (of portraitProviders[0]`}},
		"a portrait type that is no name": {spec: provider("type: Dynamic, dynamic: {portraitType: a_b, externalGeneratorName: x, algorithm: {type: own}}"), errs: []string{"spec.portraitProviders[0].dynamic.portraitType: Invalid value: \"a_b\": the HorizontalPortrait would have the name"}},
		"a static one above another":      {spec: "portraitProviders: [{type: Static, priority: 5, static: {replicas: 2}}, {type: Schedule, priority: 1, schedule: {name: sale}}]", warnings: []string{"spec.portraitProviders[1]: never counts: portraitProviders[0] is Static, so it always asks for 2 replicas, with priority 5 against 1"}},
		"two static ones of one priority": {spec: "portraitProviders: [{type: Static, priority: 5, static: {replicas: 2}}, {type: Static, priority: 5, static: {replicas: 3}}]", warnings: []string{"spec.portraitProviders[0]: never counts: portraitProviders[1] is Static"}},
		"equal priorities are meant so":   {spec: `portraitProviders: [{type: Static, priority: 5, static: {replicas: 2}}, {type: Cron, priority: 5, cron: {crons: [{name: a, start: "0 9 * * *", end: "0 17 * * *", replicas: 6}]}}]`},
		"a schedule without a name":       {spec: provider(`type: Schedule, schedule: {kind: Calendar, averageValue: "0"}`), errs: []string{"spec.portraitProviders[0].schedule.name: Required", `spec.portraitProviders[0].schedule.kind: Unsupported value: "Calendar"`, `spec.portraitProviders[0].schedule.averageValue: Invalid value: "0": must be above 0`}},
		"KubeHPA without metrics":         {spec: dynamic("algorithm: {type: KubeHPA}"), errs: []string{"spec.portraitProviders[0].dynamic.metrics: Required"}},
		"a utilization of nothing":        {spec: kubeHPA("{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 0}}}"), errs: []string{"spec.portraitProviders[0].dynamic.metrics[0].resource.target.averageUtilization: Invalid value: 0: must be above 0"}},
		"a resource without a target":     {spec: kubeHPA("{type: Resource, resource: {name: cpu, target: {type: Utilization}}}"), errs: []string{"spec.portraitProviders[0].dynamic.metrics[0].resource.target: Required value: set averageUtilization"}},
		"pods by value":                   {spec: kubeHPA(`{type: Pods, pods: {metric: {name: rps}, target: {type: Value, value: "5"}}}`), errs: []string{"spec.portraitProviders[0].dynamic.metrics[0].pods.target.averageValue: Required"}},
		"less than a thousandth":          {spec: kubeHPA(`{type: External, external: {metric: {name: q}, target: {type: Value, value: 10u}}}`), errs: []string{`spec.portraitProviders[0].dynamic.metrics[0].external.target.value: Invalid value: "10u": is less than a thousandth`}},
		"beyond all numbers":              {spec: kubeHPA(`{type: External, external: {metric: {name: q}, target: {type: Value, value: 100P}}}`), errs: []string{`spec.portraitProviders[0].dynamic.metrics[0].external.target.value: Invalid value: "100P": must not be above`}},
		"a metric of another type":        {spec: kubeHPA(`{type: Pods, resource: {name: cpu, target: {type: Utilization, averageUtilization: 60}}}`), errs: []string{"spec.portraitProviders[0].dynamic.metrics[0].resource: Forbidden", "spec.portraitProviders[0].dynamic.metrics[0].pods: Required"}},
		"a metric of no type":             {spec: kubeHPA(`{type: Cpu}`), errs: []string{`spec.portraitProviders[0].dynamic.metrics[0].type: Unsupported value: "Cpu"`}},
		"an object without a name":        {spec: kubeHPA(`{type: Object, object: {describedObject: {kind: Service}, metric: {name: ""}, target: {type: Value}}}`), errs: []string{"spec.portraitProviders[0].dynamic.metrics[0].object.metric.name: Required", "spec.portraitProviders[0].dynamic.metrics[0].object.describedObject: Required", "spec.portraitProviders[0].dynamic.metrics[0].object.target: Required"}},
		"a selector that selects nothing": {spec: kubeHPA(`{type: External, external: {metric: {name: q, selector: {matchExpressions: [{key: a, operator: Near}]}}, target: {type: Value, value: "1"}}}`), errs: []string{"spec.portraitProviders[0].dynamic.metrics[0].external.metric.selector: Invalid value"}},
		"ten percent written as 10":       {spec: dynamic(`algorithm: {type: KubeHPA, kubeHPA: {tolerance: "10"}}, metrics: [` + cpu + "]"), warnings: []string{"spec.portraitProviders[0].dynamic.algorithm.kubeHPA.tolerance: 10 is a share of the target, and ten percent is 0.1"}},
		"a negative tolerance":            {spec: `behavior: {scaleUp: {tolerance: "-0.1"}}`, errs: []string{`spec.behavior.scaleUp.tolerance: Invalid value: "-100m": must not be below 0`}},
		"a short panic window":            {spec: dynamic(`algorithm: {type: KubeHPA, kubeHPA: {syncPeriod: 10ms, tolerance: "0.1", panicWindow: {stableSeconds: 3, thresholdPercent: 100}}}, metrics: [` + cpu + "]"), errs: []string{"spec.portraitProviders[0].dynamic.algorithm.kubeHPA.panicWindow.stableSeconds: Invalid value: 3: must be within 6 and 3600", "spec.portraitProviders[0].dynamic.algorithm.kubeHPA.panicWindow.thresholdPercent"}, warnings: []string{"spec.portraitProviders[0].dynamic.algorithm.kubeHPA.syncPeriod: 10ms is less than a second"}},
		"a job without a job":             {spec: dynamic(`algorithm: {type: ExternalJob}`), errs: []string{"spec.portraitProviders[0].dynamic.algorithm.externalJob: Required"}},
		"a job that never runs": {spec: dynamic(`algorithm: {type: ExternalJob, externalJob: {job: {type: CronJob, cronJob: {template: {spec: {schedule: "often", timeZone: Mars/Base}}}}, resultSource: {type: Secret}}}`),
			errs: []string{`spec.portraitProviders[0].dynamic.algorithm.externalJob.job.cronJob.template.spec.schedule: Invalid value: "often"`, "spec.portraitProviders[0].dynamic.algorithm.externalJob.job.cronJob.template.spec.timeZone: ", `spec.portraitProviders[0].dynamic.algorithm.externalJob.resultSource.type: Unsupported value: "Secret"`}},
		"a job with its zone in the schedule": {spec: dynamic(`algorithm: {type: ExternalJob, externalJob: {job: {type: CronJob, cronJob: {template: {spec: {schedule: "TZ=UTC 0 * * * *"}}}}, resultSource: {type: ConfigMap}}}`),
			errs: []string{"spec.portraitProviders[0].dynamic.algorithm.externalJob.job.cronJob.template.spec.schedule: Invalid value: \"TZ=UTC 0 * * * *\": a CronJob's zone is its timeZone"}},
		"a window without bounds":              {spec: bound(""), errs: []string{"spec.scheduledBounds[0].minReplicas: Required value: set minReplicas"}},
		"a window with more at least":          {spec: bound("minReplicas: 5, maxReplicas: 4"), errs: []string{"spec.scheduledBounds[0].maxReplicas: Invalid value: 4: must not be less than the window's minReplicas, which is 5"}},
		"a floor above the ceiling":            {spec: bound("minReplicas: 15"), warnings: []string{`spec.scheduledBounds: from 2026-11-22T12:00:00Z on at least 15 replicas (window "rush") are more than at most 10 (spec.maxReplicas): 10 holds: raise the one or lower the other`}},
		"a ceiling below the floor, later":     {spec: "minReplicas: 3\nmaxReplicas: 10\nportraitProviders: [{type: Static, priority: 1, static: {replicas: 4}}]\n" + `scheduledBounds: [{name: night, start: "0 22 * * *", end: "0 6 * * *", maxReplicas: 2}]`, warnings: []string{"spec.scheduledBounds: from 2026-11-22T22:00:00Z on at least 3 replicas"}},
		"a window of bounds that cannot be":    {spec: `scheduledBounds: [{name: "", start: "x", end: "0 0 31 4 *", minReplicas: -1}]`, errs: []string{"spec.scheduledBounds[0].name: Required", "spec.scheduledBounds[0].minReplicas: Invalid value: -1", "spec.scheduledBounds[0].start: ", "spec.scheduledBounds[0].end: "}},
		"a gray state of the other direction":  {spec: gray("scaleUp", "grayState: Cutoff, changePercent: 50"), errs: []string{`spec.behavior.scaleUp.grayStrategy.grayState: Unsupported value: "Cutoff": supported values: "Online"`}},
		"gray numbers out of range":            {spec: "behavior: {scaleDown: {grayStrategy: {grayState: Cutoff, changePercent: 101, observationSeconds: -1}}}", errs: []string{"spec.behavior.scaleDown.grayStrategy.changeIntervalSeconds: ", "spec.behavior.scaleDown.grayStrategy.changePercent: ", "spec.behavior.scaleDown.grayStrategy.observationSeconds: "}},
		"a gray strategy of one step":          {spec: gray("scaleUp", "grayState: Online, changePercent: 100"), warnings: []string{"spec.behavior.scaleUp.grayStrategy.changePercent: 100 makes the whole change in one step: the strategy has no effect"}},
		"deleting in one step":                 {spec: gray("scaleDown", "grayState: Deleted, changePercent: 100"), warnings: []string{"spec.behavior.scaleDown.grayStrategy.changePercent: 100"}},
		"cutting in one step with a look":      {spec: gray("scaleDown", "grayState: Cutoff, changePercent: 100, observationSeconds: 60")},
		"cutting in one step without a look":   {spec: gray("scaleDown", "grayState: Cutoff, changePercent: 100"), warnings: []string{"spec.behavior.scaleDown.grayStrategy.observationSeconds: all pods are cut in one step"}},
		"an observation of what is gone":       {spec: gray("scaleDown", "grayState: Deleted, changePercent: 50, observationSeconds: 60"), warnings: []string{"spec.behavior.scaleDown.grayStrategy.observationSeconds: has no effect"}},
		"a disabled direction":                 {spec: "behavior: {scaleDown: {disabled: true, grayStrategy: {grayState: Cutoff, changeIntervalSeconds: 30, changePercent: 50}}}", warnings: []string{"spec.behavior.scaleDown.grayStrategy: has no effect: this direction is disabled"}},
		"what is declared and not built":       {spec: "behavior: {scaleDown: {grayStrategy: {grayState: Cutoff, changeIntervalSeconds: 30, changePercent: 50}}, replicaProfile: {podSorter: {type: External, external: {name: x}}, podTrafficController: {type: External, external: {name: x}}}}", warnings: []string{"spec.behavior.replicaProfile.podSorter.type: External is not supported", "spec.behavior.replicaProfile.podTrafficController.type: External is not supported"}},
		"cutting pods of an unknown kind":      {spec: "scaleTargetRef: {apiVersion: x.y/v1, kind: Fleet, name: a}\n" + gray("scaleDown", "grayState: Cutoff, changePercent: 50"), warnings: []string{"spec.behavior.scaleDown.grayStrategy.grayState: Cutoff needs pods that lead to Fleet a by their owners"}},
		"policies out of range":                {spec: "behavior: {scaleUp: {selectPolicy: Most, stabilizationWindowSeconds: 4000, policies: [{type: Cores, value: 0, periodSeconds: 0}]}}", errs: []string{"spec.behavior.scaleUp.stabilizationWindowSeconds: ", `spec.behavior.scaleUp.policies[0].type: Unsupported value: "Cores"`, "spec.behavior.scaleUp.policies[0].value: Invalid value: 0: must be above 0; to forbid a direction write selectPolicy: Disabled", "spec.behavior.scaleUp.policies[0].periodSeconds: ", `spec.behavior.scaleUp.selectPolicy: Unsupported value: "Most"`}},
		"a checker":                            {spec: checker(`{type: External, operator: ">", external: {metric: {name: errors}, target: {type: Value, value: "0"}}}`)},
		"a checker without anything to watch":  {spec: "stabilityCheckers: [{type: Metrics, stabilizationAction: Pause, metrics: {metrics: [{type: External, operator: \">\", external: {metric: {name: errors}, target: {type: Value, value: \"5\"}}}]}}]", warnings: []string{"spec.stabilityCheckers: have no effect"}},
		"a checker without operator or target": {spec: checker(`{type: External, external: {metric: {name: errors}, target: {type: Value}}}`), errs: []string{`spec.stabilityCheckers[0].metrics.metrics[0].operator: Unsupported value: "": supported values: "=="`, "spec.stabilityCheckers[0].metrics.metrics[0].external.target: Invalid value: \"\": the metric has no target"}},
		"a checker finer than samples are":     {spec: checker(`{type: External, operator: "<", external: {metric: {name: errors}, target: {type: Value, value: 1500u}}}`), errs: []string{"spec.stabilityCheckers[0].metrics.metrics[0].external.target: Invalid value: \"\": the target 1500u is not a whole number of thousandths"}},
		"a checker of a utilization":           {spec: checker(`{type: Resource, operator: ">", resource: {name: cpu, target: {type: Utilization, averageUtilization: 90}}}`), warnings: []string{"spec.stabilityCheckers[0].metrics.metrics[0].resource.target.averageUtilization: is not supported"}},
		"a foreign checker":                    {spec: gray("scaleDown", "grayState: Cutoff, changePercent: 50") + "\nstabilityCheckers: [{type: External, stabilizationAction: Rollback, external: {name: x}}]", warnings: []string{"spec.stabilityCheckers[0].type: External is not supported"}},
		"a checker of no kind":                 {spec: gray("scaleDown", "grayState: Cutoff, changePercent: 50") + "\nstabilityCheckers: [{type: Stars, stabilizationAction: Panic, coolDownSeconds: -1}, {type: Metrics, stabilizationAction: Pause}]", errs: []string{`spec.stabilityCheckers[0].stabilizationAction: Unsupported value: "Panic"`, "spec.stabilityCheckers[0].coolDownSeconds", `spec.stabilityCheckers[0].type: Unsupported value: "Stars"`, "spec.stabilityCheckers[1].metrics.metrics: Required"}},
		"a hold that is over":                  {spec: `hold: {until: "2026-11-22T11:00:00Z", replicas: 40}`, warnings: []string{"spec.hold.until: 2026-11-22T11:00:00Z is over", "spec.hold.replicas: 40 is outside minReplicas 1 and maxReplicas 10"}},
	} {
		t.Run(name, func(t *testing.T) {
			errs, warnings := IHPA(read(t, c.spec), Around{Now: now})
			compare(t, "errors", texts(errs), c.errs)
			compare(t, "warnings", warnings, c.warnings)
		})
	}
}

func texts(errs field.ErrorList) (out []string) {
	for _, e := range errs {
		out = append(out, e.Error())
	}
	return out
}

// compare wants as many texts as beginnings, in order.
func compare(t *testing.T, what string, got, beginnings []string) {
	t.Helper()
	ok := len(got) == len(beginnings)
	for i := range min(len(got), len(beginnings)) {
		ok = ok && strings.HasPrefix(got[i], beginnings[i])
	}
	if !ok {
		t.Errorf("%s (-want +got):\n%s", what, cmp.Diff(beginnings, got))
	}
}

func TestWhatIsAroundIsToldAsWarnings(t *testing.T) {
	o := read(t, kubeHPA(cpu+", "+cpu))
	a := Around{Now: now, Others: []string{"HorizontalPodAutoscaler cart"}, Unknown: "no such kind", NoJobs: true,
		Queries: func(of metav1.Object, _ autoscalingv2.CrossVersionObjectReference, list []autoscalingv2.MetricSpec) []sample.Asked {
			if of.GetName() != "cart" || len(list) != 2 {
				t.Errorf("asked about %s with %d metrics", of.GetName(), len(list))
			}
			return []sample.Asked{{Err: errors.New("a/b: unknown")}, {Warnings: []string{"ignored"}}}
		}}
	errs, warnings := IHPA(o, a)
	compare(t, "errors", texts(errs), nil)
	compare(t, "warnings", warnings, []string{"spec.scaleTargetRef: no such kind", "HorizontalPodAutoscaler cart scales Deployment cart, too: this one stands down until it is gone",
		"spec.portraitProviders[0].dynamic.metrics[0]: a/b: unknown", "spec.portraitProviders[0].dynamic.metrics[1]: ignored"})
	o.Spec.ScaleMode = kapacity.ScaleModePreview
	if _, warnings = IHPA(o, a); slices.ContainsFunc(warnings, func(w string) bool { return strings.Contains(w, "stands down") }) {
		t.Errorf("a preview disturbs nobody: %q", warnings)
	}
	o = read(t, dynamic(`algorithm: {type: ExternalJob, externalJob: {job: {type: CronJob, cronJob: {template: {spec: {schedule: "0 * * * *"}}}}, resultSource: {type: ConfigMap}}}`))
	_, warnings = IHPA(o, Around{Now: now, NoJobs: true})
	compare(t, "warnings", warnings, []string{"spec.portraitProviders[0].dynamic.algorithm.externalJob: jobs of external algorithms are switched off here"})
}

func TestHorizontalPortraitsAndReplicaProfiles(t *testing.T) {
	hp := &kapacity.HorizontalPortrait{Spec: kapacity.HorizontalPortraitSpec{PortraitSpec: kapacity.PortraitSpec{Algorithm: kapacity.PortraitAlgorithm{Type: "Oracle"}}}}
	errs, warnings := HorizontalPortrait(hp, Around{Now: now})
	compare(t, "errors", texts(errs), []string{"spec.scaleTargetRef.kind: ", "spec.scaleTargetRef.name: ", "spec.portraitType: Required", `spec.algorithm.type: Unsupported value: "Oracle"`})
	compare(t, "warnings", warnings, nil)

	rp := &kapacity.ReplicaProfile{Spec: kapacity.ReplicaProfileSpec{ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{Kind: "Deployment", Name: "cart"}, OnlineReplicas: -1, CutoffReplicas: 2}}
	rp.Spec.Behavior.PodSorter.Type = kapacity.ExternalPodSorter
	errs, warnings = ReplicaProfile(rp, Around{Now: now, Others: []string{"ReplicaProfile old"}})
	compare(t, "errors", texts(errs), []string{"spec.onlineReplicas: Invalid value: -1"})
	compare(t, "warnings", warnings, []string{"ReplicaProfile old has Deployment cart, too: this one waits until it is gone", "spec.behavior.podSorter.type: External is not supported"})
}

// The API server shows 256 bytes of a warning, and 4 KiB of all.
func TestWhatIsSaidIsBounded(t *testing.T) {
	o := read(t, "")
	o.Spec.PortraitProviders = []kapacity.HorizontalPortraitProvider{{Type: kapacity.CronProvider, Cron: &kapacity.CronHorizontalPortraitProvider{}}}
	for i := range 1000 {
		o.Spec.PortraitProviders[0].Cron.Crons = append(o.Spec.PortraitProviders[0].Cron.Crons,
			kapacity.ReplicaCron{Name: fmt.Sprint(i), Start: kapacity.CronExpression(strings.Repeat("é\n", 1<<10)), End: "0 9 * * *"},
			kapacity.ReplicaCron{Name: fmt.Sprint("w", i), Start: "0 9 * * *", End: "0 9 * * *"})
	}
	errs, warnings := IHPA(o, Around{Now: now})
	if len(errs) != maxErrors+1 || errs[maxErrors].Type != field.ErrorTypeTooMany {
		t.Errorf("%d errors, the last is %v", len(errs), errs[len(errs)-1])
	}
	isBounded(t, errs, warnings)
	if warnings[len(warnings)-1] != "and 986 more" {
		t.Errorf("the last warning is %q", warnings[len(warnings)-1])
	}
	as := Warnings(errs, warnings)
	isBounded(t, nil, as)
	if as[0] != cut(errs[0].Error(), maxWarning) {
		t.Errorf("the first is %q", as[0])
	}
}

func isBounded(t testing.TB, errs field.ErrorList, warnings []string) {
	t.Helper()
	total := 0
	for _, w := range warnings {
		total += len(w)
		if len(w) > 256 || !utf8.ValidString(w) || strings.ContainsAny(w, "\n\r\x00") {
			t.Errorf("warning %q", w)
		}
	}
	if total > 4096 || len(warnings) > maxWarnings {
		t.Errorf("%d warnings with %d bytes", len(warnings), total)
	}
	for _, e := range errs {
		if len(e.Error()) > 1500 {
			t.Errorf("an error of %d bytes: %.200s", len(e.Error()), e.Error())
		}
	}
}

// Whatever the fields hold: no panic, bounded texts, and the same answer twice.
func TestRandomObjectsAreJudgedWithoutAPanic(t *testing.T) {
	scheme := runtime.NewScheme()
	if err := kapacity.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	seed := rand.Int63()
	t.Logf("seed %d", seed)
	f := fuzzer.FuzzerFor(metafuzzer.Funcs, rand.NewSource(seed), serializer.NewCodecFactory(scheme))
	for range 400 {
		var o kapacity.IntelligentHorizontalPodAutoscaler
		var hp kapacity.HorizontalPortrait
		var rp kapacity.ReplicaProfile
		f.Fill(&o)
		f.Fill(&hp)
		f.Fill(&rp)
		for range 2 { // kinds that are meant get further
			errs, warnings := IHPA(&o, Around{Now: now})
			again, warnedAgain := IHPA(&o, Around{Now: now})
			if diff := cmp.Diff(append(texts(errs), warnings...), append(texts(again), warnedAgain...)); diff != "" {
				t.Fatal(diff)
			}
			isBounded(t, errs, warnings)
			errs, warnings = HorizontalPortrait(&hp, Around{Now: now})
			isBounded(t, errs, warnings)
			errs, warnings = ReplicaProfile(&rp, Around{Now: now})
			isBounded(t, errs, warnings)
			for i := range o.Spec.PortraitProviders {
				o.Spec.PortraitProviders[i].Type = []kapacity.HorizontalPortraitProviderType{kapacity.StaticProvider, kapacity.CronProvider, kapacity.DynamicProvider, kapacity.ScheduleProvider}[i%4]
				if d := o.Spec.PortraitProviders[i].Dynamic; d != nil {
					d.ExternalGeneratorName, d.Algorithm.Type = "", kapacity.KubeHPAAlgorithm
				}
			}
			for i := range o.Spec.StabilityCheckers {
				o.Spec.StabilityCheckers[i].Type = kapacity.MetricsStabilityChecker
			}
			hp.Spec.ExternalGeneratorName, hp.Spec.Algorithm.Type = "", kapacity.ExternalJobAlgorithm
		}
	}
}

func FuzzIHPA(f *testing.F) {
	for _, spec := range []string{"", cron(`start: "0 0 30 2 *", end: "@every 1s"`), kubeHPA(cpu), bound("minReplicas: 15"), checker(cpu)} {
		text, err := json.Marshal(read(f, spec))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var o kapacity.IntelligentHorizontalPodAutoscaler
		if json.Unmarshal(text, &o) == nil {
			errs, warnings := IHPA(&o, Around{Now: now})
			isBounded(t, errs, warnings)
		}
	})
}

// The largest object that the CRD lets through, all of it dear.
func TestTheLargestObjectIsJudgedInTime(t *testing.T) {
	o := read(t, "")
	o.Spec.PortraitProviders = nil
	for i := range 16 {
		p := kapacity.HorizontalPortraitProvider{Type: kapacity.CronProvider, Priority: int32(i), Cron: &kapacity.CronHorizontalPortraitProvider{}}
		for j := range 100 {
			p.Cron.Crons = append(p.Cron.Crons, kapacity.ReplicaCron{Name: fmt.Sprint(j), Start: "0 0 29 2 *", End: "0 0 29 2 *", TimeZone: "America/New_York"},
				kapacity.ReplicaCron{Name: fmt.Sprint("x", j), Start: "* * * * *", End: "0 0 29 2 *", TimeZone: "Europe/Berlin"})
		}
		o.Spec.PortraitProviders = append(o.Spec.PortraitProviders, p)
	}
	for i := range 32 {
		o.Spec.ScheduledBounds = append(o.Spec.ScheduledBounds, kapacity.ScheduledBounds{Name: fmt.Sprint(i), Start: "0 0 29 2 *", End: "*/2 * * * *", TimeZone: "Asia/Kathmandu", MinReplicas: new(int32(20 + i))})
	}
	began := time.Now()
	_, warnings := IHPA(o, Around{Now: now})
	if took := time.Since(began); took > 20*time.Second { // 0.4 s on a machine that does little else; without its bounds it takes minutes
		t.Errorf("took %s", took)
	} else {
		t.Logf("took %s", took)
	}
	isBounded(t, nil, warnings)
}
