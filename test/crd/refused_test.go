package crd_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/robfig/cron/v3"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"pgregory.net/rapid"
	"sigs.k8s.io/yaml"

	kapacityv1alpha1 "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
)

// minimal holds, for each kind, a manifest that is accepted; the rows below replace fields of its spec or status.
var minimal = map[string]string{
	"IntelligentHorizontalPodAutoscaler": `
apiVersion: autoscaling.kapacitystack.io/v1alpha1
kind: IntelligentHorizontalPodAutoscaler
metadata: {name: cart}
spec: {scaleTargetRef: {kind: Deployment, name: cart}, minReplicas: 1, maxReplicas: 10, portraitProviders: []}
`,
	"HorizontalPortrait": `
apiVersion: autoscaling.kapacitystack.io/v1alpha1
kind: HorizontalPortrait
metadata: {name: cart-predictive}
spec: {scaleTargetRef: {kind: Deployment, name: cart}, portraitType: Predictive, algorithm: {type: Own}}
`,
	"ReplicaProfile": `
apiVersion: autoscaling.kapacitystack.io/v1alpha1
kind: ReplicaProfile
metadata: {name: cart}
spec: {scaleTargetRef: {kind: Deployment, name: cart}, onlineReplicas: 1, cutoffReplicas: 0, standbyReplicas: 0}
`,
	"ScalingSchedule": `
apiVersion: zalando.org/v1
kind: ScalingSchedule
metadata: {name: sale}
spec: {schedules: []}
`,
	"ClusterScalingSchedule": `
apiVersion: zalando.org/v1
kind: ClusterScalingSchedule
metadata: {name: sale}
spec: {schedules: []}
`,
	"StackSet": `
apiVersion: zalando.org/v1
kind: StackSet
metadata: {name: my-app}
spec: {stackLifecycle: {}, stackTemplate: {spec: {version: v1, podTemplate: {spec: {containers: [{name: app}]}}}}}
`,
	"Stack": `
apiVersion: zalando.org/v1
kind: Stack
metadata: {name: my-app-v1}
spec: {podTemplate: {spec: {containers: [{name: app}]}}}
`,
}

// manifest returns the minimal manifest of a kind with the fields of a part (spec or status) replaced; null removes one.
func manifest(t *testing.T, kind, part, fields string) string {
	t.Helper()
	var content, replaced map[string]any
	for text, into := range map[string]*map[string]any{minimal[kind]: &content, fields: &replaced} {
		asJSON, err := yaml.YAMLToJSON([]byte(text))
		if err != nil {
			t.Fatalf("not YAML: %v\n%s", err, text)
		}
		if err := utiljson.Unmarshal(asJSON, into); err != nil {
			t.Fatal(err)
		}
	}
	target, _ := content[part].(map[string]any)
	if target == nil {
		target = map[string]any{}
		content[part] = target
	}
	for name, value := range replaced {
		if value == nil {
			delete(target, name)
			continue
		}
		target[name] = value
	}
	out, err := yaml.Marshal(content)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// Pieces of rows.
func providers(list string) string { return "portraitProviders: [" + list + "]" }

func crons(list string) string {
	return providers("{type: Cron, priority: 1, cron: {crons: [" + list + "]}}")
}

func cronStart(start string) string {
	return crons(fmt.Sprintf("{name: a, start: %q, end: '0 6 * * *', replicas: 1}", start))
}

func stackTemplate(rest string) string {
	return "stackTemplate: {spec: {podTemplate: {spec: {containers: [{name: app}]}}, " + rest + "}}"
}

func dynamic(rest string) string {
	return "{type: Dynamic, priority: 1, dynamic: {" + rest + "}}"
}

const (
	cronPath  = "spec.portraitProviders[0].cron.crons[0]"
	startPath = cronPath + ".start"
	dynPath   = "spec.portraitProviders[0].dynamic"
	cpu       = "{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}}"
)

func TestWhatIsWrongIsRefusedByANameOfTheField(t *testing.T) {
	rows := map[string]struct {
		kind   string // an IHPA if empty
		status string // else the row is about the spec
		spec   string
		path   string
		says   string
		// newborn: the schema of the upstreams refuses it too, so that none can be stored.
		newborn bool
	}{
		// IntelligentHorizontalPodAutoscaler
		"an IHPA without a target": {
			spec: "scaleTargetRef: null", path: "spec.scaleTargetRef", says: "Required value"},
		"a target without a name": {
			spec: "scaleTargetRef: {kind: Deployment, name: ''}", path: "spec.scaleTargetRef.name", says: "name must not be empty"},
		"a target without a kind": {
			spec: "scaleTargetRef: {kind: '', name: cart}", path: "spec.scaleTargetRef.kind", says: "kind must not be empty"},
		"minReplicas missing": {
			spec: "minReplicas: null", path: "spec.minReplicas", says: "Required value", newborn: true},
		"maxReplicas missing": {
			spec: "maxReplicas: null", path: "spec.maxReplicas", says: "Required value", newborn: true},
		"minReplicas below 0": {
			spec: "minReplicas: -1", path: "spec.minReplicas", says: "greater than or equal to 0"},
		"maxReplicas below minReplicas": {
			spec: "{minReplicas: 5, maxReplicas: 3}", path: "spec.maxReplicas", says: "maxReplicas must not be less than minReplicas"},
		"portraitProviders missing": {
			spec: "portraitProviders: null", path: "spec.portraitProviders", says: "Required value"},
		"an unknown scale mode": {
			spec: "scaleMode: DryRun", path: "spec.scaleMode", says: `Unsupported value: "DryRun"`},
		"more providers than the bound": {
			spec: providers(strings.Repeat("{type: Static, priority: 1, static: {replicas: 1}},", 17)), path: "spec.portraitProviders", says: "at most 16"},
		"an unknown type of provider": {
			spec: providers("{type: Magic, priority: 1}"), path: "spec.portraitProviders[0].type", says: `Unsupported value: "Magic"`},
		"a provider without priority": {
			spec: providers("{type: Static, static: {replicas: 1}}"), path: "spec.portraitProviders[0].priority", says: "Required value"},
		"a Static provider without settings": {
			spec: providers("{type: Static, priority: 1}"), path: "spec.portraitProviders[0].static", says: "static must be set if the type is Static"},
		"a Cron provider without settings": {
			spec: providers("{type: Cron, priority: 1}"), path: "spec.portraitProviders[0].cron", says: "cron must be set if the type is Cron"},
		"a Dynamic provider without settings": {
			spec: providers("{type: Dynamic, priority: 1}"), path: "spec.portraitProviders[0].dynamic", says: "dynamic must be set if the type is Dynamic"},
		"a Cron provider with the settings of a Static one": {
			spec: providers("{type: Cron, priority: 1, static: {replicas: 1}, cron: {crons: [{name: a, start: '@daily', end: '@hourly', replicas: 1}]}}"),
			path: "spec.portraitProviders[0].static", says: "only then"},
		"static replicas below 0": {
			spec: providers("{type: Static, priority: 1, static: {replicas: -1}}"), path: "spec.portraitProviders[0].static.replicas", says: "greater than or equal to 0"},
		"no windows": {
			spec: crons(""), path: "spec.portraitProviders[0].cron.crons", says: "at least 1 items"},
		"two windows of one name": {
			spec: crons("{name: a, start: '@daily', end: '@hourly', replicas: 1}, {name: a, start: '@daily', end: '@hourly', replicas: 2}"),
			path: "spec.portraitProviders[0].cron.crons[1]", says: `Duplicate value: {"name":"a"}`},
		"a window without an end": {
			spec: crons("{name: a, start: '@daily', replicas: 1}"), path: cronPath + ".end", says: "Required value"},
		"an end of six fields": {
			spec: crons("{name: a, start: '@daily', end: '0 0 6 * * *', replicas: 1}"), path: cronPath + ".end", says: "exactly five fields"},
		"an unknown time zone": {
			spec: crons("{name: a, timeZone: Mars/Base, start: '@daily', end: '@hourly', replicas: 1}"),
			path: "spec.portraitProviders", says: "unknown time zone Mars/Base evaluating rule: timeZone and CRON_TZ must be IANA names"},
		"an offset in place of a time zone": {
			spec: crons("{name: a, timeZone: '+01:00', start: '@daily', end: '@hourly', replicas: 1}"), path: cronPath + ".timeZone", says: "timeZone must be the IANA name"},
		"the time zone of whatever machine it is": {
			spec: crons("{name: a, timeZone: Local, start: '@daily', end: '@hourly', replicas: 1}"), path: cronPath + ".timeZone", says: "timeZone must be the IANA name"},
		"a start of six fields":              {spec: cronStart("0 0 * * * *"), path: startPath, says: "exactly five fields"},
		"a start of four fields":             {spec: cronStart("0 * * *"), path: startPath, says: "exactly five fields"},
		"an empty start":                     {spec: cronStart(""), path: startPath, says: "exactly five fields"},
		"words for a start":                  {spec: cronStart("every day"), path: startPath, says: "exactly five fields"},
		"an unknown descriptor":              {spec: cronStart("@reboot"), path: startPath, says: "exactly five fields"},
		"@every without a duration":          {spec: cronStart("@every day"), path: startPath, says: "exactly five fields"},
		"a minute of 60":                     {spec: cronStart("60 * * * *"), path: startPath, says: "field 1 (minute) must be within 0-59"},
		"an hour of 24":                      {spec: cronStart("0 24 * * *"), path: startPath, says: "field 2 (hour) must be within 0-23"},
		"the 32nd of the month":              {spec: cronStart("0 0 32 * *"), path: startPath, says: "field 3 (day of the month) must be within 1-31"},
		"the day 0 of the month":             {spec: cronStart("0 0 0 * *"), path: startPath, says: "field 3 (day of the month) must be within 1-31"},
		"the month 13":                       {spec: cronStart("0 0 * 13 *"), path: startPath, says: "field 4 (month) must be within 1-12 or JAN-DEC"},
		"a misspelt month":                   {spec: cronStart("0 0 * JUNE *"), path: startPath, says: "field 4 (month)"},
		"the weekday 7":                      {spec: cronStart("0 0 * * 7"), path: startPath, says: "field 5 (day of the week) must be within 0-6 or SUN-SAT"},
		"a step of 0":                        {spec: cronStart("*/0 * * * *"), path: startPath, says: "field 1 (minute)"},
		"a list with a hole":                 {spec: cronStart("0 1,,2 * * *"), path: startPath, says: "field 2 (hour)"},
		"a bad hour behind CRON_TZ":          {spec: cronStart("CRON_TZ=Asia/Tokyo 5 77 * * *"), path: startPath, says: "field 2 (hour)"},
		"a range of hours that goes back":    {spec: cronStart("0 22-6 * * *"), path: startPath, says: "a range must not begin after its end"},
		"a range of weekdays that goes back": {spec: cronStart("0 0 * * Fri-Mon"), path: startPath, says: "a range must not begin after its end"},
		"a range of months that goes back":   {spec: cronStart("0 0 * nov-02 *"), path: startPath, says: "write two, NOV-DEC,JAN-FEB"},
		"an unknown zone behind CRON_TZ":     {spec: cronStart("CRON_TZ=Mars/Base 0 9 * * *"), path: "spec.portraitProviders", says: "unknown time zone Mars/Base evaluating rule: timeZone and CRON_TZ must be IANA names"},
		"an offset behind CRON_TZ":           {spec: cronStart("CRON_TZ=+01:00 0 9 * * *"), path: startPath, says: "CRON_TZ must be the IANA name of a time zone"},
		"a start longer than any needs":      {spec: cronStart("0 " + strings.Repeat("1,", 60) + "1 * * *"), path: startPath, says: "Too long"},
		"two Dynamic providers of one portrait type, but for the case": {
			spec: providers(dynamic("portraitType: Burst, algorithm: {type: Own}") + "," + dynamic("portraitType: burst, algorithm: {type: Own}")),
			path: "spec.portraitProviders", says: "portraitType must be unique"},
		"a portrait type that cannot be part of a name": {
			spec: providers(dynamic("portraitType: my_type, algorithm: {type: Own}")), path: dynPath + ".portraitType", says: "letters, digits and -"},
		"a KubeHPA without metrics": {
			spec: providers(dynamic("portraitType: Reactive, algorithm: {type: KubeHPA}")), path: dynPath + ".metrics", says: "metrics must not be empty"},
		"a Pods metric without an average for KubeHPA": {
			spec: providers(dynamic("portraitType: Reactive, algorithm: {type: KubeHPA}, metrics: [{type: Pods, pods: {metric: {name: rps}, target: {type: Value, value: 5}}}]")),
			path: dynPath + ".metrics", says: "needs target.averageValue"},
		"a metric whose settings are of another type": {
			spec: providers(dynamic("portraitType: Reactive, algorithm: {type: KubeHPA}, metrics: [{type: External, resource: {name: cpu, target: {type: Utilization}}}]")),
			path: dynPath + ".metrics[0].external", says: "external must be set if the type is External"},
		"a Pods, an Object and a ContainerResource metric without settings": {
			spec: providers(dynamic("portraitType: Reactive, algorithm: {type: Own}, metrics: [{type: Pods}, {type: Object}, {type: ContainerResource}]")),
			path: dynPath + ".metrics[1].object", says: "object must be set if the type is Object"},
		"a metric of an unknown type": {
			spec: providers(dynamic("portraitType: Reactive, algorithm: {type: KubeHPA}, metrics: [{type: Cpu}]")), path: dynPath + ".metrics[0].type", says: "type must be Resource"},
		"an ExternalJob without a job": {
			spec: providers(dynamic("portraitType: Predictive, algorithm: {type: ExternalJob}")), path: dynPath + ".algorithm.externalJob", says: "externalJob must be set"},
		"a job without its CronJob": {
			spec: providers(dynamic("portraitType: Predictive, algorithm: {type: ExternalJob, externalJob: {job: {type: CronJob}, resultSource: {type: ConfigMap}}}")),
			path: dynPath + ".algorithm.externalJob.job.cronJob", says: "cronJob must be set"},
		"a sync period of 0": {
			spec: providers(dynamic("portraitType: Reactive, metrics: [" + cpu + "], algorithm: {type: KubeHPA, kubeHPA: {syncPeriod: 0s}}")),
			path: dynPath + ".algorithm.kubeHPA.syncPeriod", says: "above 0"},
		"a sync period that is no duration": {
			spec: providers(dynamic("portraitType: Reactive, metrics: [" + cpu + "], algorithm: {type: KubeHPA, kubeHPA: {syncPeriod: 15}}")),
			path: dynPath + ".algorithm.kubeHPA.syncPeriod", says: "must be of type string", newborn: true},
		"a delay in a unit that Go lacks": {
			spec: providers(dynamic("portraitType: Reactive, metrics: [" + cpu + "], algorithm: {type: KubeHPA, kubeHPA: {initialReadinessDelay: 1d}}")),
			path: dynPath + ".algorithm.kubeHPA.initialReadinessDelay", says: "initialReadinessDelay must be a duration such as 15s"},
		"a period below 0": {
			spec: providers(dynamic("portraitType: Reactive, metrics: [" + cpu + "], algorithm: {type: KubeHPA, kubeHPA: {cpuInitializationPeriod: -5m}}")),
			path: dynPath + ".algorithm.kubeHPA.cpuInitializationPeriod", says: "not below 0"},
		"a tolerance below 0": {
			spec: providers(dynamic("portraitType: Reactive, metrics: [" + cpu + "], algorithm: {type: KubeHPA, kubeHPA: {tolerance: '-0.1'}}")),
			path: dynPath + ".algorithm.kubeHPA.tolerance", says: "tolerance must be a number not below 0"},
		"scaling up through Cutoff": {
			spec: "behavior: {scaleUp: {grayStrategy: {grayState: Cutoff, changeIntervalSeconds: 1, changePercent: 1}}}",
			path: "spec.behavior.scaleUp.grayStrategy.grayState", says: "grayState must be Online for scaleUp"},
		"scaling down through Online": {
			spec: "behavior: {scaleDown: {grayStrategy: {grayState: Online, changeIntervalSeconds: 1, changePercent: 1}}}",
			path: "spec.behavior.scaleDown.grayStrategy.grayState", says: "grayState must be Cutoff, Standby or Deleted for scaleDown"},
		"a gray state that does not exist": {
			spec: "behavior: {scaleDown: {grayStrategy: {grayState: Frozen, changeIntervalSeconds: 1, changePercent: 1}}}",
			path: "spec.behavior.scaleDown.grayStrategy.grayState", says: "Unsupported value"},
		"steps of 0 percent": {
			spec: "behavior: {scaleDown: {grayStrategy: {grayState: Cutoff, changeIntervalSeconds: 1, changePercent: 0}}}",
			path: "spec.behavior.scaleDown.grayStrategy.changePercent", says: "greater than or equal to 1"},
		"steps of 101 percent": {
			spec: "behavior: {scaleDown: {grayStrategy: {grayState: Cutoff, changeIntervalSeconds: 1, changePercent: 101}}}",
			path: "spec.behavior.scaleDown.grayStrategy.changePercent", says: "less than or equal to 100"},
		"no time between steps": {
			spec: "behavior: {scaleDown: {grayStrategy: {grayState: Cutoff, changeIntervalSeconds: 0, changePercent: 5}}}",
			path: "spec.behavior.scaleDown.grayStrategy.changeIntervalSeconds", says: "greater than or equal to 1"},
		"an observation below 0": {
			spec: "behavior: {scaleDown: {grayStrategy: {grayState: Cutoff, changeIntervalSeconds: 1, changePercent: 5, observationSeconds: -1}}}",
			path: "spec.behavior.scaleDown.grayStrategy.observationSeconds", says: "greater than or equal to 0"},
		"an External sorter without settings": {
			spec: "behavior: {replicaProfile: {podSorter: {type: External}}}", path: "spec.behavior.replicaProfile.podSorter.external", says: "external must be set"},
		"settings of a traffic controller that is not used": {
			spec: "behavior: {replicaProfile: {podTrafficController: {external: {name: mesh}}}}", path: "spec.behavior.replicaProfile.podTrafficController.external", says: "only then"},
		"a Metrics checker without metrics": {
			spec: "stabilityCheckers: [{type: Metrics, stabilizationAction: Pause}]", path: "spec.stabilityCheckers[0].metrics", says: "metrics must be set"},
		"a checker's metric without an operator": {
			spec: "stabilityCheckers: [{type: Metrics, stabilizationAction: Pause, metrics: {metrics: [" + cpu + "]}}]", path: "spec.stabilityCheckers[0].metrics.metrics", says: "operator"},
		"an External checker without settings": {
			spec: "stabilityCheckers: [{type: External, stabilizationAction: Pause}]", path: "spec.stabilityCheckers[0].external", says: "external must be set"},
		"a checker without an action": {
			spec: "stabilityCheckers: [{type: External, external: {name: a}}]", path: "spec.stabilityCheckers[0].stabilizationAction", says: "Required value"},
		"a Schedule provider without settings": {
			spec: providers("{type: Schedule, priority: 1}"), path: "spec.portraitProviders[0].schedule", says: "schedule must be set if the type is Schedule"},
		"a schedule of which a replica takes nothing": {
			spec: providers("{type: Schedule, priority: 1, schedule: {name: sale, averageValue: 0}}"),
			path: "spec.portraitProviders[0].schedule.averageValue", says: "averageValue must be above 0"},
		"a tolerance below 0 for scaling up": {
			spec: providers(dynamic("portraitType: Reactive, metrics: [" + cpu + "], algorithm: {type: KubeHPA, kubeHPA: {scaleUpTolerance: '-0.1'}}")),
			path: dynPath + ".algorithm.kubeHPA.scaleUpTolerance", says: "scaleUpTolerance must be a number not below 0"},
		"a tolerance below 0 for scaling down": {
			spec: providers(dynamic("portraitType: Reactive, metrics: [" + cpu + "], algorithm: {type: KubeHPA, kubeHPA: {scaleDownTolerance: '-0.1'}}")),
			path: dynPath + ".algorithm.kubeHPA.scaleDownTolerance", says: "scaleDownTolerance must be a number not below 0"},
		"a panic at less than what there is": {
			spec: providers(dynamic("portraitType: Reactive, metrics: [" + cpu + "], algorithm: {type: KubeHPA, kubeHPA: {panicWindow: {thresholdPercent: 100}}}")),
			path: dynPath + ".algorithm.kubeHPA.panicWindow.thresholdPercent", says: "greater than or equal to 110"},
		"a policy of an unknown type": {
			spec: "behavior: {scaleUp: {policies: [{type: Nodes, value: 1, periodSeconds: 15}]}}",
			path: "spec.behavior.scaleUp.policies[0].type", says: "Unsupported value"},
		"a policy over more than half an hour": {
			spec: "behavior: {scaleDown: {policies: [{type: Pods, value: 1, periodSeconds: 1801}]}}",
			path: "spec.behavior.scaleDown.policies[0].periodSeconds", says: "less than or equal to 1800"},
		"a policy that allows nothing": {
			spec: "behavior: {scaleDown: {policies: [{type: Percent, value: 0, periodSeconds: 15}]}}",
			path: "spec.behavior.scaleDown.policies[0].value", says: "greater than or equal to 1"},
		"a stabilization window of more than an hour": {
			spec: "behavior: {scaleDown: {stabilizationWindowSeconds: 3601}}",
			path: "spec.behavior.scaleDown.stabilizationWindowSeconds", says: "less than or equal to 3600"},
		"a tolerance of a direction below 0": {
			spec: "behavior: {scaleUp: {tolerance: '-1'}}", path: "spec.behavior.scaleUp.tolerance", says: "tolerance must be a number not below 0"},
		"scheduled bounds without a bound": {
			spec: "scheduledBounds: [{name: a, start: '@daily', end: '@hourly'}]", path: "spec.scheduledBounds[0]", says: "minReplicas or maxReplicas must be set"},
		"scheduled bounds that contradict each other": {
			spec: "scheduledBounds: [{name: a, start: '@daily', end: '@hourly', minReplicas: 3, maxReplicas: 2}]",
			path: "spec.scheduledBounds[0].maxReplicas", says: "maxReplicas must not be less than minReplicas"},
		"scheduled bounds in an unknown time zone": {
			spec: "scheduledBounds: [{name: a, timeZone: Mars/Base, start: '@daily', end: '@hourly', minReplicas: 3}]",
			path: "spec.scheduledBounds", says: "unknown time zone Mars/Base evaluating rule: timeZone and CRON_TZ must be IANA names"},
		"scheduled bounds with a start of six fields": {
			spec: "scheduledBounds: [{name: a, start: '0 0 * * * *', end: '@hourly', minReplicas: 3}]",
			path: "spec.scheduledBounds[0].start", says: "exactly five fields"},
		"a hold at less than none": {
			spec: "hold: {replicas: -1}", path: "spec.hold.replicas", says: "greater than or equal to 0"},
		"a time in status that Go cannot read": {
			status: "currentPortraitValue: {provider: Cron, replicas: 1, expireTime: 2026-11-22t13:00:00z}", path: "status.currentPortraitValue.expireTime", says: "should match"},
		"a precise time in status without its fraction": {
			status: "gray: {grayPercent: 1, lastUpdateTime: '2026-11-22T13:00:00Z', startedAt: '2026-11-22T13:00:00Z'}", path: "status.gray.startedAt", says: "should match"},

		// HorizontalPortrait and ReplicaProfile
		"a portrait without an algorithm": {
			kind: "HorizontalPortrait", spec: "algorithm: null", path: "spec.algorithm", says: "Required value", newborn: true},
		"a portrait of KubeHPA without metrics": {
			kind: "HorizontalPortrait", spec: "algorithm: {type: KubeHPA}", path: "spec.metrics", says: "metrics must not be empty"},
		"points of time out of order": {
			kind: "HorizontalPortrait", status: "portraitData: {type: TimeSeries, timeSeries: {timeSeries: [{timestamp: 20, replicas: 1}, {timestamp: 10, replicas: 1}]}}",
			path: "status.portraitData.timeSeries.timeSeries", says: "the points must be ordered by timestamp"},
		"a TimeSeries portrait without its data": {
			kind: "HorizontalPortrait", status: "portraitData: {type: TimeSeries}", path: "status.portraitData.timeSeries", says: "timeSeries must be set if the type is TimeSeries"},
		"a time series without points": {
			kind: "HorizontalPortrait", status: "portraitData: {type: TimeSeries, timeSeries: {timeSeries: []}}", path: "status.portraitData.timeSeries.timeSeries", says: "at least 1 items"},
		"a portrait whose data is of another type": {
			kind: "HorizontalPortrait", status: "portraitData: {type: Static, cron: {crons: [{name: a, start: '@daily', end: '@hourly', replicas: 1}]}}",
			path: "status.portraitData.static", says: "static must be set if the type is Static"},
		"a portrait with a bad window": {
			kind: "HorizontalPortrait", status: "portraitData: {type: Cron, cron: {crons: [{name: a, start: '0 25 * * *', end: '@hourly', replicas: 1}]}}",
			path: "status.portraitData.cron.crons[0].start", says: "field 2 (hour)"},
		"a portrait with a window in an unknown zone": {
			kind: "HorizontalPortrait", status: "portraitData: {type: Cron, cron: {crons: [{name: a, timeZone: Mars/Base, start: '@daily', end: '@hourly', replicas: 1}]}}",
			path: "status.portraitData.cron.crons", says: "unknown time zone Mars/Base"},
		"a profile with a number below 0": {
			kind: "ReplicaProfile", spec: "cutoffReplicas: -1", path: "spec.cutoffReplicas", says: "greater than or equal to 0"},
		"a profile with an unknown direction": {
			kind: "ReplicaProfile", spec: "allowedScalingDirection: Sideways", path: "spec.allowedScalingDirection", says: "Unsupported value"},

		// Schedules
		"a OneTime schedule without a date": {
			kind: "ScalingSchedule", spec: "schedules: [{type: OneTime, value: 1}]", path: "spec.schedules[0].date", says: "date must be set if the type is OneTime"},
		"a Repeating schedule without a period": {
			kind: "ClusterScalingSchedule", spec: "schedules: [{type: Repeating, value: 1}]", path: "spec.schedules[0].period", says: "period must be set if the type is Repeating"},
		"a schedule of an unknown type": {
			kind: "ScalingSchedule", spec: "schedules: [{type: Sometimes, value: 1}]", path: "spec.schedules[0].type", says: "Unsupported value"},
		"a schedule without a value": {
			kind: "ScalingSchedule", spec: "schedules: [{type: OneTime, date: '2026-12-24T18:00:00Z'}]", path: "spec.schedules[0].value", says: "Required value"},
		"a date in the form of RFC 822": {
			kind: "ScalingSchedule", spec: "schedules: [{type: OneTime, date: 10 Nov 09 23:00 CET, value: 1}]", path: "spec.schedules[0].date", says: "date-time", newborn: true},
		"an end date without a zone": {
			kind: "ScalingSchedule", spec: "schedules: [{type: OneTime, date: '2026-12-24T18:00:00Z', endDate: '2026-12-24T19:00:00', value: 1}]", path: "spec.schedules[0].endDate", says: "date-time"},
		"a duration below 0": {
			kind: "ScalingSchedule", spec: "schedules: [{type: OneTime, date: '2026-12-24T18:00:00Z', durationMinutes: -5, value: 1}]", path: "spec.schedules[0].durationMinutes", says: "greater than or equal to 0"},
		"a fade below 0": {
			kind: "ScalingSchedule", spec: "scalingWindowDurationMinutes: -1", path: "spec.scalingWindowDurationMinutes", says: "greater than or equal to 0"},
		"a duration of more than a hundred years": {
			kind: "ScalingSchedule", spec: "schedules: [{type: OneTime, date: '2026-12-24T18:00:00Z', durationMinutes: 52560001, value: 1}]", path: "spec.schedules[0].durationMinutes", says: "less than or equal to 52560000"},
		"a time of day with something before it": {
			kind: "ScalingSchedule", spec: "schedules: [{type: Repeating, value: 1, period: {startTime: x23:59, timezone: UTC, days: [Mon]}}]", path: "spec.schedules[0].period.startTime", says: "should match"},
		"a time of day of 24:00": {
			kind: "ScalingSchedule", spec: "schedules: [{type: Repeating, value: 1, period: {startTime: '10:00', endTime: '24:00', timezone: UTC, days: [Mon]}}]", path: "spec.schedules[0].period.endTime", says: "should match"},
		"a schedule in an unknown zone": {
			kind: "ClusterScalingSchedule", spec: "schedules: [{type: Repeating, value: 1, period: {startTime: '10:00', timezone: Mars/Base, days: [Mon]}}]",
			path: "spec.schedules", says: "unknown time zone Mars/Base evaluating rule: timezone must be the IANA name"},
		"a schedule in the zone of whatever machine it is": {
			kind: "ClusterScalingSchedule", spec: "schedules: [{type: Repeating, value: 1, period: {startTime: '10:00', timezone: Local, days: [Mon]}}]",
			path: "spec.schedules[0].period.timezone", says: "timezone must be the IANA name"},
		"a period without a zone": {
			kind: "ScalingSchedule", spec: "schedules: [{type: Repeating, value: 1, period: {startTime: '10:00', days: [Mon]}}]", path: "spec.schedules[0].period.timezone", says: "Required value"},
		"a day that does not exist": {
			kind: "ScalingSchedule", spec: "schedules: [{type: Repeating, value: 1, period: {startTime: '10:00', timezone: UTC, days: [Monday]}}]", path: "spec.schedules[0].period.days[0]", says: "Unsupported value"},

		// StackSets and Stacks
		"a StackSet without a life cycle": {
			kind: "StackSet", spec: "stackLifecycle: null", path: "spec.stackLifecycle", says: "Required value", newborn: true},
		"a StackSet without a template": {
			kind: "StackSet", spec: "stackTemplate: null", path: "spec.stackTemplate", says: "Required value", newborn: true},
		"a version with a dot": {
			kind: "StackSet", spec: stackTemplate("version: 1.2.3"), path: "spec.stackTemplate.spec.version", says: "and hold no dot"},
		"a version that makes the Stack's name too long": {
			kind: "StackSet", spec: stackTemplate("version: " + strings.Repeat("a", 57)), path: "spec.stackTemplate.spec.version", says: "at most 63"},
		"a version in upper case": {
			kind: "StackSet", spec: stackTemplate("version: V1"), path: "spec.stackTemplate.spec.version", says: "should match"},
		"a template without pods": {
			kind: "StackSet", spec: "stackTemplate: {spec: {version: v1}}", path: "spec.stackTemplate.spec.podTemplate", says: "Required value", newborn: true},
		"a limit of no Stack": {
			kind: "StackSet", spec: "stackLifecycle: {limit: 0}", path: "spec.stackLifecycle.limit", says: "greater than or equal to 1"},
		"a weight below 0": {
			kind: "StackSet", spec: "traffic: [{stackName: my-app-v1, weight: -1}]", path: "spec.traffic[0].weight", says: "greater than or equal to 0"},
		"a weight above 100": {
			kind: "StackSet", spec: "traffic: [{stackName: my-app-v1, weight: 100.5}]", path: "spec.traffic[0].weight", says: "less than or equal to 100"},
		"a Stack that is named twice": {
			kind: "StackSet", spec: "traffic: [{stackName: my-app-v1, weight: 1}, {stackName: my-app-v1, weight: 2}]", path: "spec.traffic", says: "each Stack must be named once"},
		"an Ingress without hosts": {
			kind: "StackSet", spec: "ingress: {hosts: [], backendPort: 80}", path: "spec.ingress.hosts", says: "at least 1 items"},
		"an Ingress with a host twice": {
			kind: "StackSet", spec: "ingress: {hosts: [a.org, a.org], backendPort: 80}", path: "spec.ingress.hosts[1]", says: "Duplicate value"},
		"an Ingress without a port": {
			kind: "StackSet", spec: "ingress: {hosts: [a.org]}", path: "spec.ingress.backendPort", says: "Required value", newborn: true},
		"an external Ingress without a port": {
			kind: "StackSet", spec: "externalIngress: {}", path: "spec.externalIngress.backendPort", says: "Required value", newborn: true},
		"a RouteGroup without routes": {
			kind: "StackSet", spec: "routegroup: {hosts: [a.org], backendPort: 80, routes: []}", path: "spec.routegroup.routes", says: "at least 1 items"},
		"a RouteGroup whose port is a name": {
			kind: "StackSet", spec: "routegroup: {hosts: [a.org], backendPort: http, routes: [{path: /}]}", path: "spec.routegroup.backendPort", says: "must be of type integer", newborn: true},
		"a route with an unknown method": {
			kind: "StackSet", spec: "routegroup: {hosts: [a.org], backendPort: 80, routes: [{methods: [get]}]}", path: "spec.routegroup.routes[0].methods[0]", says: "Unsupported value"},
		"a route to a backend below 0": {
			kind: "StackSet", spec: "routegroup: {hosts: [a.org], backendPort: 80, routes: [{backends: [{backendName: a, weight: -1}]}]}", path: "spec.routegroup.routes[0].backends[0].weight", says: "greater than or equal to 0"},
		"a backend of an unknown type": {
			kind: "StackSet", spec: "routegroup: {hosts: [a.org], backendPort: 80, routes: [{path: /}], additionalBackends: [{name: a, type: magic}]}", path: "spec.routegroup.additionalBackends[0].type", says: "Unsupported value"},
		"a backend with an unknown algorithm": {
			kind: "StackSet", spec: "routegroup: {hosts: [a.org], backendPort: 80, routes: [{path: /}], additionalBackends: [{name: a, type: lb, algorithm: best}]}", path: "spec.routegroup.additionalBackends[0].algorithm", says: "Unsupported value"},
		"an autoscaler without metrics": {
			kind: "StackSet", spec: stackTemplate("version: v1, autoscaler: {maxReplicas: 3}"), path: "spec.stackTemplate.spec.autoscaler.metrics", says: "Required value", newborn: true},
		"an autoscaler whose bounds contradict each other": {
			kind: "StackSet", spec: stackTemplate("version: v1, autoscaler: {minReplicas: 5, maxReplicas: 3, metrics: []}"), path: "spec.stackTemplate.spec.autoscaler.maxReplicas", says: "maxReplicas must not be less than minReplicas"},
		"a metric that does not exist": {
			kind: "Stack", spec: "autoscaler: {maxReplicas: 3, metrics: [{type: Disk}]}", path: "spec.autoscaler.metrics[0].type", says: "Unsupported value"},
		"an endpoint without a key": {
			kind: "Stack", spec: "autoscaler: {maxReplicas: 3, metrics: [{type: PodJSON, endpoint: {port: 1, path: /, name: a}}]}", path: "spec.autoscaler.metrics[0].endpoint.key", says: "Required value", newborn: true},
		"a queue without a region": {
			kind: "Stack", spec: "autoscaler: {maxReplicas: 3, metrics: [{type: AmazonSQS, queue: {name: a}}]}", path: "spec.autoscaler.metrics[0].queue.region", says: "Required value", newborn: true},
		"a check without a number": {
			kind: "Stack", spec: "autoscaler: {maxReplicas: 3, metrics: [{type: ZMON, zmon: {checkID: a1, key: k}}]}", path: "spec.autoscaler.metrics[0].zmon.checkID", says: "should match"},
		"an aggregator that does not exist": {
			kind: "Stack", spec: "autoscaler: {maxReplicas: 3, metrics: [{type: ZMON, zmon: {checkID: '1', key: k, aggregators: [median]}}]}", path: "spec.autoscaler.metrics[0].zmon.aggregators[0]", says: "Unsupported value"},
		"a schedule whose name no object can have": {
			kind: "Stack", spec: "autoscaler: {maxReplicas: 3, metrics: [{type: ScalingSchedule, scalingSchedule: {name: A_b}}]}", path: "spec.autoscaler.metrics[0].scalingSchedule.name", says: "should match"},
		"a token without privileges": {
			kind: "Stack", spec: "configurationResources: [{platformCredentialsSet: {name: my-app-v1-a, tokens: {a: {}}}}]", path: "spec.configurationResources[0].platformCredentialsSet.tokens.a.privileges", says: "Required value", newborn: true},
	}
	if len(rows) < 40 {
		t.Fatalf("%d rows, want at least 40", len(rows))
	}
	unseen := ruleMessages()
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			if row.kind == "" {
				row.kind = "IntelligentHorizontalPodAutoscaler"
			}
			part, fields := "spec", row.spec
			if row.status != "" {
				part, fields = "status", row.status
			}
			if _, errs := create(t, manifest(t, row.kind, part, "{}")); len(errs) > 0 {
				t.Fatalf("the minimal %s is refused: %v", row.kind, errs.ToAggregate())
			}
			obj, errs := create(t, manifest(t, row.kind, part, fields))
			var at []string
			for _, err := range errs {
				for message := range unseen {
					if strings.Contains(err.Error(), message) {
						delete(unseen, message)
					}
				}
			}
			// One that was stored before the rule must still get its finalizer off.
			freed := obj.DeepCopy()
			freed.SetFinalizers(nil)
			obj.SetFinalizers([]string{kapacityv1alpha1.Finalizer})
			for _, err := range update(obj, freed) {
				if !row.newborn {
					t.Errorf("a stored one can no longer be updated: %v", err)
				}
			}
			for _, err := range errs {
				if err.Field == row.path && strings.Contains(err.Error(), row.says) {
					return
				}
				at = append(at, err.Error())
			}
			t.Errorf("want %s refused with %q, got:\n%s", row.path, row.says, strings.Join(at, "\n"))
		})
	}
	for message := range unseen {
		t.Errorf("no row breaks the rule %q", message)
	}
}

// ruleMessages returns the messages of all rules of all CRDs.
func ruleMessages() map[string]bool {
	messages := map[string]bool{}
	var walk func(s apiextensions.JSONSchemaProps)
	walk = func(s apiextensions.JSONSchemaProps) {
		for _, rule := range s.XValidations {
			messages[rule.Message] = true
		}
		for _, property := range s.Properties {
			walk(property)
		}
		if s.Items != nil && s.Items.Schema != nil {
			walk(*s.Items.Schema)
		}
	}
	for _, s := range servers() {
		walk(*s.crd.Spec.Validation.OpenAPIV3Schema)
	}
	return messages
}

func TestWhatOnlyLooksOddIsAccepted(t *testing.T) {
	rows := map[string]struct{ kind, spec string }{
		"a window whose start is its end":          {spec: cronStart("0 6 * * *")},
		"an empty time zone":                       {spec: crons("{name: a, timeZone: '', start: '@daily', end: '@hourly', replicas: 0}")},
		"a range of one":                           {spec: cronStart("5-5 09-9 * Jan-JAN sun-sun")},
		"more than one space":                      {spec: cronStart("  0   22\t* * *  ")},
		"several Static and Cron providers":        {spec: providers("{type: Static, priority: 1, static: {replicas: 0}}, {type: Static, priority: 1, static: {replicas: 1}}")},
		"minReplicas equal to maxReplicas, at 0":   {spec: "{minReplicas: 0, maxReplicas: 0}"},
		"a target of any kind":                     {spec: "scaleTargetRef: {apiVersion: example.com/v1, kind: Queue, name: a.b}"},
		"a tolerance given as a number":            {spec: providers(dynamic("portraitType: Reactive, metrics: [" + cpu + "], algorithm: {type: KubeHPA, kubeHPA: {tolerance: 0}}"))},
		"an unknown algorithm":                     {spec: providers(dynamic("portraitType: Reactive, algorithm: {type: Mine}"))},
		"no schedules":                             {kind: "ScalingSchedule", spec: "schedules: []"},
		"a schedule that has both date and period": {kind: "ScalingSchedule", spec: "schedules: [{type: OneTime, value: 1, date: '2026-12-24T18:00:00Z', period: {startTime: '10:00', timezone: '', days: []}}]"},
		"weights that are shares of their sum":     {kind: "StackSet", spec: "traffic: [{stackName: a, weight: 1}, {stackName: b, weight: 0.5}]"},
		"a Stack's name of 63 letters":             {kind: "StackSet", spec: stackTemplate("version: " + strings.Repeat("a", 56))},
		"minReadyPercent out of bounds":            {kind: "StackSet", spec: "minReadyPercent: 120"},
		"an autoscaler without a minimum":          {kind: "Stack", spec: "autoscaler: {maxReplicas: 3, metrics: []}"},
		"PodJson as documented, without a name":    {kind: "Stack", spec: "autoscaler: {maxReplicas: 3, metrics: [{type: PodJson, average: 1k, endpoint: {port: 1, path: /, key: $.a}}]}"},
		"a behavior with a tolerance":              {kind: "Stack", spec: "autoscaler: {maxReplicas: 3, metrics: [], behavior: {scaleUp: {tolerance: 50m}}}"},
		"an Ingress beside an external one":        {kind: "StackSet", spec: "{ingress: {hosts: [a.org], backendPort: http}, externalIngress: {backendPort: 80}}"},
		"an end before the start":                  {kind: "ScalingSchedule", spec: "schedules: [{type: OneTime, value: 1, date: '2026-12-24T18:00:00Z', endDate: '2026-12-24T17:00:00Z'}]"},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			if row.kind == "" {
				row.kind = "IntelligentHorizontalPodAutoscaler"
			}
			if _, errs := create(t, manifest(t, row.kind, "spec", row.spec)); len(errs) > 0 {
				t.Errorf("refused: %v", errs.ToAggregate())
			}
		})
	}
}

// The API server bounds what the rules of one object may cost when they run; an object as large as the lists allow must
// stay below it.
func TestTheLargestObjectsAreWithinTheBudgetOfTheRules(t *testing.T) {
	var windows, points, schedules strings.Builder
	for i := range 100 {
		fmt.Fprintf(&windows, "{name: w%d, timeZone: America/Argentina/Buenos_Aires, start: 'CRON_TZ=Europe/Berlin 0,30 8-18/2 1-15 JAN-MAR MON-FRI', end: '0 6 * * 1-5', replicas: 1},", i)
	}
	for i := range 10080 {
		fmt.Fprintf(&points, "{timestamp: %d, replicas: 1},", i*60)
	}
	for range 1000 {
		schedules.WriteString("{type: Repeating, value: 1, period: {startTime: '10:00', endTime: '11:00', timezone: America/Argentina/Buenos_Aires, days: [Mon, Tue, Wed, Thu, Fri]}},")
	}
	provider := "{type: Cron, priority: 1, cron: {crons: [" + windows.String() + "]}},"
	var weights strings.Builder
	for i := range 100 {
		fmt.Fprintf(&weights, "{stackName: %s%d, weight: 1},", strings.Repeat("a", 240), i)
	}
	rows := map[string]struct{ kind, part, fields string }{
		"weights":   {"StackSet", "spec", "traffic: [" + weights.String() + "]"},
		"windows":   {"IntelligentHorizontalPodAutoscaler", "spec", providers(strings.Repeat(provider, 16))},
		"points":    {"HorizontalPortrait", "status", "portraitData: {type: TimeSeries, timeSeries: {timeSeries: [" + points.String() + "]}}"},
		"schedules": {"ScalingSchedule", "spec", "schedules: [" + schedules.String() + "]"},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			if _, errs := create(t, manifest(t, row.kind, row.part, row.fields)); len(errs) > 0 {
				t.Errorf("refused: %v", errs[0])
			}
		})
	}
}

func TestDefaultsAreThoseOfTheReference(t *testing.T) {
	rows := map[string]struct {
		kind, spec string
		path       []string
		want       any
	}{
		"a service port is of TCP": {kind: "Stack", spec: "service: {ports: [{port: 80}]}", path: []string{"spec", "service", "ports"},
			want: []any{map[string]any{"port": int64(80), "protocol": "TCP"}}},
		"a check's results of 5 minutes count": {kind: "Stack", spec: "autoscaler: {maxReplicas: 3, metrics: [{type: ZMON, zmon: {checkID: '1', key: k}}]}", path: []string{"spec", "autoscaler", "metrics"},
			want: []any{map[string]any{"type": "ZMON", "zmon": map[string]any{"checkID": "1", "key": "k", "duration": "5m"}}}},
		"an IHPA scales":             {path: []string{"spec", "scaleMode"}, want: "Auto"},
		"a profile may go both ways": {kind: "ReplicaProfile", path: []string{"spec", "allowedScalingDirection"}, want: "Both"},
		"a profile has a behavior": {kind: "ReplicaProfile", path: []string{"spec", "behavior"},
			want: map[string]any{"podSorter": map[string]any{"type": "WorkloadDefault"}, "podTrafficController": map[string]any{"type": "ReadinessGate"}}},
		"a sorter is the workload's": {spec: "behavior: {replicaProfile: {podSorter: {}, podTrafficController: {}}}", path: []string{"spec", "behavior", "replicaProfile"},
			want: map[string]any{"podSorter": map[string]any{"type": "WorkloadDefault"}, "podTrafficController": map[string]any{"type": "ReadinessGate"}}},
		"a window is in UTC": {spec: crons("{name: a, start: '@daily', end: '@hourly', replicas: 1}"), path: []string{"spec", "portraitProviders"},
			want: []any{map[string]any{"type": "Cron", "priority": int64(1), "cron": map[string]any{"crons": []any{
				map[string]any{"name": "a", "start": "@daily", "end": "@hourly", "replicas": int64(1), "timeZone": "UTC"}}}}}},
		"KubeHPA is the HPA's": {kind: "HorizontalPortrait", spec: "{metrics: [" + cpu + "], algorithm: {type: KubeHPA, kubeHPA: {}}}", path: []string{"spec", "algorithm", "kubeHPA"},
			want: map[string]any{"syncPeriod": "15s", "tolerance": "0.1", "cpuInitializationPeriod": "5m", "initialReadinessDelay": "30s"}},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			if row.kind == "" {
				row.kind = "IntelligentHorizontalPodAutoscaler"
			}
			if row.spec == "" {
				row.spec = "{}"
			}
			obj, errs := create(t, manifest(t, row.kind, "spec", row.spec))
			if len(errs) > 0 {
				t.Fatalf("refused: %v", errs.ToAggregate())
			}
			got, _, err := unstructured.NestedFieldNoCopy(obj.Object, row.path...)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(row.want, got); diff != "" {
				t.Errorf("%v (-want +got):\n%s", row.path, diff)
			}
		})
	}
}

// Whatever the CRD lets pass must be readable for the parser behind it, and the other way round: a rule of a grammar
// that is not the parser's would refuse manifests that work, or store some that do not.
func TestTheCRDAcceptsACronExpressionIfAndOnlyIfTheParserDoes(t *testing.T) {
	accepted := 0
	rapid.Check(t, func(rt *rapid.T) {
		names := [][]string{3: strings.Fields("JAN feb Mar APR MAY JUN JUL AUG SEP OCT NOV DEC"), 4: strings.Fields("SUN mon Tue WED THU FRI SAT")}
		highest := []int{62, 26, 34, 14, 8}
		field := func(n int) string {
			value := rapid.Custom(func(rt *rapid.T) string {
				if names[n] != nil && rapid.IntRange(0, 3).Draw(rt, "by name") == 0 {
					return rapid.SampledFrom(names[n]).Draw(rt, "name")
				}
				return fmt.Sprintf(rapid.SampledFrom([]string{"%d", "%02d"}).Draw(rt, "width"), rapid.IntRange(0, highest[n]-1).Draw(rt, "number"))
			})
			item := rapid.Custom(func(rt *rapid.T) string {
				out := rapid.SampledFrom([]string{"*", "?", "value", "value", "range"}).Draw(rt, "form")
				switch out {
				case "value":
					out = value.Draw(rt, "value")
				case "range":
					out = value.Draw(rt, "from") + "-" + value.Draw(rt, "to")
				}
				if rapid.IntRange(0, 4).Draw(rt, "stepped") == 0 {
					out += fmt.Sprintf("/%d", rapid.IntRange(0, 90).Draw(rt, "step"))
				}
				return out
			})
			return strings.Join(rapid.SliceOfN(item, 1, 2).Draw(rt, "items"), ",")
		}
		var fields []string
		for n := range 5 {
			if rapid.IntRange(0, 2).Draw(rt, "simple") > 0 {
				fields = append(fields, "*")
				continue
			}
			fields = append(fields, field(n))
		}
		expr := strings.Join(fields, " ")
		if rapid.IntRange(0, 9).Draw(rt, "descriptor") == 0 {
			expr = rapid.SampledFrom(strings.Fields("@yearly @annually @monthly @weekly @daily @midnight @hourly @Hourly @every")).Draw(rt, "descriptor")
			if expr == "@every" {
				expr += " " + rapid.SampledFrom([]string{"1h", "1.5h3m", "90s", "1d", "1", "h", "1us"}).Draw(rt, "period")
			}
		}
		if rapid.IntRange(0, 3).Draw(rt, "in a zone") == 0 {
			expr = rapid.SampledFrom([]string{"TZ=", "CRON_TZ=", "ZONE="}).Draw(rt, "prefix") +
				rapid.SampledFrom([]string{"UTC", "Asia/Tokyo", "America/Port-au-Prince", "Africa/Porto-Novo", "Etc/GMT+5", "Mars/Base"}).Draw(rt, "zone") + " " + expr
		}
		if len(expr) > 100 {
			return
		}
		_, parseErr := cron.ParseStandard(expr)
		_, errs := create(t, manifest(t, "IntelligentHorizontalPodAutoscaler", "spec", cronStart(expr)))
		if parseErr == nil {
			accepted++
		}
		if (parseErr == nil) != (len(errs) == 0) {
			rt.Fatalf("%q: the parser says %v, the CRD says %v", expr, parseErr, errs.ToAggregate())
		}
	})
	if accepted < 10 {
		t.Errorf("only %d of the expressions were right: the test says little", accepted)
	}
}
