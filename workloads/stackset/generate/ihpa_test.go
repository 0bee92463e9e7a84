package generate

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"sigs.k8s.io/yaml"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	"github.com/kubetide/kubetide/scaler/behavior"
	"github.com/kubetide/kubetide/scaler/bounds"
	"github.com/kubetide/kubetide/scaler/prescale"
	"github.com/kubetide/kubetide/scaler/validation"
)

// One metric of each type.
const everyMetric = `{type: CPU, averageUtilization: 80}, {type: Memory, averageUtilization: 70, container: app},
  {type: AmazonSQS, average: 30, queue: {name: foo, region: eu-west-1}},
  {type: PodJSON, average: 1k, endpoint: {name: current-load, port: 8080, path: /metrics, key: $.rps}},
  {type: Ingress, average: 30}, {type: RouteGroup, average: 30},
  {type: RequestsPerSecond, average: 30, requestsPerSecond: {hostnames: [example.com, foo.bar.baz]}},
  {type: ZMON, average: 30, zmon: {checkID: '1234', key: custom.value, aggregators: [avg], tags: {application: my-app}}},
  {type: ScalingSchedule, average: 10, scalingSchedule: {name: evening}}, {type: ClusterScalingSchedule, average: 10, clusterScalingSchedule: {name: sale}}`

// engineScaled is a Source whose Stack has the annotation.
func engineScaled(t *testing.T, autoscaler, annotation string) Source {
	t.Helper()
	s := source(t, "", "autoscaler: {"+autoscaler+"}", Options{})
	s.Stack.Annotations[IHPAAnnotation] = annotation
	return s
}

func TestTheIHPAOfAStack(t *testing.T) {
	for name, row := range map[string]struct {
		autoscaler, annotation string
		weight                 int
		held                   prescale.State
	}{
		"ihpa":                    {autoscaler: "maxReplicas: 3, metrics: [{type: CPU, averageUtilization: 80}]"},
		"ihpa-of-every-metric":    {autoscaler: "minReplicas: 2, maxReplicas: 10, metrics: [" + everyMetric + "]", weight: 40},
		"ihpa-without-any-metric": {autoscaler: "maxReplicas: 3, metrics: []"},
		"ihpa-with-additions-while-prescaled": {
			autoscaler: `minReplicas: 2, maxReplicas: 40, metrics: [],
      behavior: {scaleUp: {tolerance: 50m, policies: [{type: Pods, value: 1, periodSeconds: 60}]}, scaleDown: {selectPolicy: Disabled, tolerance: "0.2"}}`,
			annotation: `
portraitProviders:
- type: Cron
  priority: 1
  cron: {crons: [{name: sale, start: 0 8 * * *, end: 0 20 * * *, replicas: 5}]}
behavior:
  scaleUp: {grayStrategy: {grayState: Online, changeIntervalSeconds: 10, changePercent: 50}}
  scaleDown: {grayStrategy: {grayState: Cutoff, changeIntervalSeconds: 30, changePercent: 50, observationSeconds: 60}}
  replicaProfile: {podSorter: {type: WorkloadDefault}}
stabilityCheckers:
- type: Metrics
  stabilizationAction: Rollback
  metrics: {metrics: [{operator: ">", type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 95}}}]}
scheduledBounds:
- {name: night, start: 0 22 * * *, end: 0 6 * * *, minReplicas: 1, maxReplicas: 10}
- {name: day, start: 0 6 * * *, end: 0 22 * * *, minReplicas: 35}
`,
			held: prescale.State{Active: true, Replicas: 30}},
	} {
		t.Run(name, func(t *testing.T) {
			s := engineScaled(t, row.autoscaler, row.annotation)
			before := s.Stack.DeepCopy()
			ihpa, err := s.IHPA(row.weight, row.held, false, nil)
			if err != nil {
				t.Fatal(err)
			}
			if hpa, err := s.Autoscaler(row.weight, row.held, false); hpa != nil || err != nil {
				t.Errorf("there is a HorizontalPodAutoscaler, too: %v, %v", hpa, err)
			}
			if errs, _ := validation.IHPA(ihpa, validation.Around{}); len(errs) > 0 {
				t.Errorf("it is invalid: %v", errs)
			}
			if diff := cmp.Diff(before, s.Stack); diff != "" {
				t.Errorf("the Stack was changed:\n%s", diff)
			}
			got, err := yaml.Marshal(ihpa)
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join("testdata", name+".yaml")
			if *update {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestAnIHPAMeasuresWhatTheHPAWould(t *testing.T) {
	s := engineScaled(t, "maxReplicas: 3, metrics: ["+everyMetric+"]", "")
	ihpa, err := s.IHPA(40, prescale.State{}, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	delete(s.Stack.Annotations, IHPAAnnotation)
	hpa, err := s.Autoscaler(40, prescale.State{}, false)
	if err != nil {
		t.Fatal(err)
	}
	var metrics []autoscalingv2.MetricSpec
	for _, m := range ihpa.Spec.PortraitProviders[0].Dynamic.Metrics {
		metrics = append(metrics, m.MetricSpec)
	}
	if diff := cmp.Diff(hpa.Spec.Metrics, metrics); diff != "" {
		t.Errorf("metrics (-HPA +IHPA):\n%s", diff)
	}
	if diff := cmp.Diff(hpa.ObjectMeta, ihpa.ObjectMeta); diff != "" {
		t.Errorf("metadata (-HPA +IHPA):\n%s", diff)
	}
}

// Providers of one name would be one in status; the metrics count all the same.
func TestSchedulesOfOneNameAreOneProvider(t *testing.T) {
	s := engineScaled(t, `maxReplicas: 3, metrics: [{type: ScalingSchedule, average: 10, scalingSchedule: {name: sale}}, {type: ScalingSchedule, average: 20, scalingSchedule: {name: sale}},
    {type: ClusterScalingSchedule, average: 30, clusterScalingSchedule: {name: sale}}]`, "")
	ihpa, err := s.IHPA(0, prescale.State{}, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	if p := ihpa.Spec.PortraitProviders; len(p) != 2 || len(p[0].Dynamic.Metrics) != 3 || p[1].Schedule.Kind != "ClusterScalingSchedule" {
		t.Errorf("providers %+v", p)
	}
}

func TestAMistakeInTheAnnotationIsNamed(t *testing.T) {
	for text, want := range map[string]string{
		"true":                                             "cannot unmarshal bool",
		"minReplicas: 3":                                   `unknown field "minReplicas"`,
		"behavior: {scaleDown: {policies: []}}":            `unknown field "policies"`,
		"scheduledBounds: [{label: night}]":                `unknown field "label"`,
		"scheduledBounds: []\nscheduledBounds: []":         "scheduledBounds",
		"portraitProviders: [{type: Static, static: many}": "yaml",
	} {
		ihpa, err := engineScaled(t, "maxReplicas: 3, metrics: [{type: CPU, averageUtilization: 80}]", text).IHPA(0, prescale.State{}, false, nil)
		if ihpa != nil || err == nil || !strings.HasPrefix(err.Error(), "annotation kubetide.io/ihpa: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, %v, want %q", text, ihpa, err, want)
		}
	}
	ihpa, err := engineScaled(t, "maxReplicas: 3, metrics: [{type: CPU}]", "").IHPA(0, prescale.State{}, false, nil)
	if want := "autoscaler metric of type CPU: utilization is not specified"; ihpa != nil || err == nil || err.Error() != want {
		t.Errorf("a bad metric: %v, %v, want %q", ihpa, err, want)
	}
}

func TestWhenThereIsNoIHPA(t *testing.T) {
	const cpu = "maxReplicas: 3, metrics: [{type: CPU, averageUtilization: 80}]"
	for name, row := range map[string]struct {
		mutate     func(*Source)
		scaledDown bool
	}{
		"not asked for": {mutate: func(s *Source) { delete(s.Stack.Annotations, IHPAAnnotation) }},
		"no autoscaler": {mutate: func(s *Source) { s.Stack.Spec.Autoscaler = nil }},
		"forwarded":     {mutate: func(s *Source) { s.Stack.Annotations[ForwardBackendAnnotation] = "" }},
		"scaled down":   {mutate: func(*Source) {}, scaledDown: true},
	} {
		s := engineScaled(t, cpu, "")
		row.mutate(&s)
		if ihpa, err := s.IHPA(0, prescale.State{}, row.scaledDown, nil); ihpa != nil || err != nil {
			t.Errorf("%s: %v, %v", name, ihpa, err)
		}
	}
}

func TestWhatPeopleDoWithAnIHPAStays(t *testing.T) {
	s := engineScaled(t, "maxReplicas: 3, metrics: [{type: CPU, averageUtilization: 80}]", "")
	want, err := s.IHPA(0, prescale.State{}, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	live := want.DeepCopy()
	live.Spec.MaxReplicas, live.Spec.ScaleMode = 9, kapacity.ScaleModePreview
	live.Spec.Paused, live.Spec.Hold = true, &kapacity.Hold{Replicas: new(int32(2)), Reason: "a sale"}
	want.Spec.Paused, want.Spec.Hold = true, live.Spec.Hold.DeepCopy()
	got, err := s.IHPA(0, prescale.State{}, false, live)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if *got.Spec.Hold.Replicas = 1; *live.Spec.Hold.Replicas != 2 {
		t.Error("the hold is shared with the live object")
	}
}

// The floors of the documented example, and how the engine's own decisions take them: at once, though the behavior allows one pod a minute.
func TestTheEngineGoesStraightToTheFloor(t *testing.T) {
	const window = `scheduledBounds: [{name: day, start: 0 6 * * *, end: 0 22 * * *, %s}]`
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for name, row := range map[string]struct {
		held   int32 // 0 for none
		window string
		want   int32
	}{
		"none":                                 {0, "", 20},
		"1 %":                                  {20, "", 20},
		"25 %":                                 {30, "", 30},
		"50 %, above the maximum":              {55, "", 40},
		"a window's lower bound is raised":     {30, "minReplicas: 1", 30},
		"a window's higher bound stays":        {30, "minReplicas: 33", 33},
		"a window's upper bound holds":         {30, "maxReplicas: 25", 25},
		"no floor, a window's lower bound":     {0, "minReplicas: 1", 20}, // the behavior lets nothing go
		"no floor, a window's upper bound":     {0, "minReplicas: 1, maxReplicas: 5", 5},
		"between a window's own bounds":        {30, "minReplicas: 1, maxReplicas: 35", 30},
		"above a window's own bounds together": {30, "minReplicas: 1, maxReplicas: 8", 8},
	} {
		t.Run(name, func(t *testing.T) {
			annotation := ""
			if row.window != "" {
				annotation = strings.Replace(window, "%s", row.window, 1)
			}
			s := engineScaled(t, `minReplicas: 20, maxReplicas: 40, metrics: [{type: CPU, averageUtilization: 80}],
      behavior: {scaleUp: {policies: [{type: Pods, value: 1, periodSeconds: 60}]}}`, annotation)
			ihpa, err := s.IHPA(0, prescale.State{Active: row.held > 0, Replicas: row.held}, false, nil)
			if err != nil {
				t.Fatal(err)
			}
			if errs, _ := validation.IHPA(ihpa, validation.Around{}); len(errs) > 0 {
				t.Errorf("it is invalid: %v", errs)
			}
			limits := bounds.Decide(ihpa.Spec.MinReplicas, ihpa.Spec.MaxReplicas, ihpa.Spec.ScheduledBounds, now)
			if len(limits.Warnings) > 0 || limits.Err != nil {
				t.Errorf("bounds: %v, %v", limits.Warnings, limits.Err)
			}
			up := behavior.Rules{Policies: []behavior.Policy{{Type: behavior.Pods, Value: 1, Period: time.Minute}}}
			d := behavior.Decide(behavior.State{}, behavior.Inputs{Wanted: 2, Current: 20, Min: limits.Min, Max: limits.Max, Up: &up, Down: &behavior.Rules{SelectPolicy: behavior.Disabled}}, now)
			if d.Replicas != row.want {
				t.Errorf("%d replicas within %d..%d, want %d: %s", d.Replicas, limits.Min, limits.Max, row.want, d.Message)
			}
		})
	}
}
