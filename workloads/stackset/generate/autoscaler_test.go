package generate

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/api/resource"
	"sigs.k8s.io/yaml"

	zalando "github.com/kubetide/kubetide/api/zalando/v1"
	"github.com/kubetide/kubetide/scaler/prescale"
)

func autoscaled(t *testing.T, metrics string) Source {
	t.Helper()
	return source(t, "", "autoscaler: {maxReplicas: 3, metrics: ["+metrics+"]}", Options{})
}

// The blocks of reference/stackset.md, section 14.2, one for each type.
func TestEachTypeOfMetric(t *testing.T) {
	for name, row := range map[string]struct {
		metric      string
		weight      int
		want        string
		annotations map[string]string
	}{
		"CPU": {metric: "{type: CPU, averageUtilization: 80}",
			want: "{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 80}}}"},
		"Memory": {metric: "{type: Memory, averageUtilization: 80}",
			want: "{type: Resource, resource: {name: memory, target: {type: Utilization, averageUtilization: 80}}}"},
		"CPU of a container": {metric: "{type: CPU, averageUtilization: 80, container: app}",
			want: "{type: ContainerResource, containerResource: {name: cpu, container: app, target: {type: Utilization, averageUtilization: 80}}}"},
		"Memory of a container": {metric: "{type: Memory, averageUtilization: 80, container: app}",
			want: "{type: ContainerResource, containerResource: {name: memory, container: app, target: {type: Utilization, averageUtilization: 80}}}"},
		"AmazonSQS": {metric: "{type: AmazonSQS, average: 30, queue: {name: foo, region: eu-west-1}}",
			want: `{type: External, external: {metric: {name: sqs-queue-len-0, selector: {matchLabels: {type: sqs-queue-length, queue-name: foo, region: eu-west-1}}},
				target: {type: AverageValue, averageValue: "30"}}}`},
		"PodJSON": {metric: "{type: PodJSON, average: 1k, endpoint: {name: current-load, port: 8080, path: /metrics, key: $.rps}}",
			want: "{type: Pods, pods: {metric: {name: current-load}, target: {type: AverageValue, averageValue: 1k}}}",
			annotations: map[string]string{"metric-config.pods.current-load.json-path/json-key": "$.rps", "metric-config.pods.current-load.json-path/path": "/metrics",
				"metric-config.pods.current-load.json-path/port": "8080"}},
		"PodJson, as documented": {metric: "{type: PodJson, average: 1k, endpoint: {port: 8080, path: /metrics, key: $.http_server.rps}}",
			want: "{type: Pods, pods: {metric: {name: http-server-rps}, target: {type: AverageValue, averageValue: 1k}}}",
			annotations: map[string]string{"metric-config.pods.http-server-rps.json-path/json-key": "$.http_server.rps", "metric-config.pods.http-server-rps.json-path/path": "/metrics",
				"metric-config.pods.http-server-rps.json-path/port": "8080"}},
		"Ingress": {metric: "{type: Ingress, average: 30}",
			want: `{type: Object, object: {describedObject: {apiVersion: networking.k8s.io/v1, kind: Ingress, name: my-app-v1-traffic-segment},
				metric: {name: "requests-per-second,my-app-v1"}, target: {type: AverageValue, averageValue: "30"}}}`},
		"RouteGroup": {metric: "{type: RouteGroup, average: 30}",
			want: `{type: Object, object: {describedObject: {apiVersion: zalando.org/v1, kind: RouteGroup, name: my-app-v1-traffic-segment},
				metric: {name: requests-per-second, selector: {matchLabels: {backend: my-app-v1}}}, target: {type: AverageValue, averageValue: "30"}}}`},
		"RequestsPerSecond at 50 %": {weight: 50, metric: "{type: RequestsPerSecond, average: 30, requestsPerSecond: {hostnames: [example.com, foo.bar.baz]}}",
			want: `{type: External, external: {metric: {name: my-app-v1-rps, selector: {matchLabels: {type: requests-per-second}}}, target: {type: AverageValue, averageValue: "30"}}}`,
			annotations: map[string]string{"metric-config.external.my-app-v1-rps.requests-per-second/hostnames": "example.com,foo.bar.baz",
				"metric-config.external.my-app-v1-rps.requests-per-second/weight": "50"}},
		"RequestsPerSecond without traffic": {metric: "{type: RequestsPerSecond, average: 30, requestsPerSecond: {hostnames: [example.com]}}",
			want: `{type: External, external: {metric: {name: my-app-v1-rps, selector: {matchLabels: {type: requests-per-second}}}, target: {type: AverageValue, averageValue: "30"}}}`,
			annotations: map[string]string{"metric-config.external.my-app-v1-rps.requests-per-second/hostnames": "example.com",
				"metric-config.external.my-app-v1-rps.requests-per-second/weight": "0"}},
		"ZMON": {metric: "{type: ZMON, average: 30, zmon: {checkID: '1234', key: custom.value, duration: 5m, aggregators: [avg], tags: {application: my-app}}}",
			want: `{type: External, external: {metric: {name: zmon-check-0, selector: {matchLabels: {type: zmon, check-id: "1234", duration: 5m, aggregators: avg, stack: 4efa0951fd000df298558a5ee117f5b09be00c78}}},
				target: {type: AverageValue, averageValue: "30"}}}`,
			annotations: map[string]string{"metric-config.external.zmon-check-0.zmon/key": "custom.value", "metric-config.external.zmon-check-0.zmon/tag-application": "my-app"}},
		"ZMON with several aggregators and without": {metric: "{type: ZMON, average: 30, zmon: {checkID: '1', key: k, aggregators: [avg, max]}}",
			want: `{type: External, external: {metric: {name: zmon-check-0, selector: {matchLabels: {type: zmon, check-id: "1", duration: 5m, aggregators: "avg,max", stack: 4efa0951fd000df298558a5ee117f5b09be00c78}}},
				target: {type: AverageValue, averageValue: "30"}}}`,
			annotations: map[string]string{"metric-config.external.zmon-check-0.zmon/key": "k"}},
		"ScalingSchedule": {metric: "{type: ScalingSchedule, average: 10, scalingSchedule: {name: namespaced-scheduling-event}}",
			want: `{type: Object, object: {describedObject: {apiVersion: zalando.org/v1, kind: ScalingSchedule, name: namespaced-scheduling-event},
				metric: {name: namespaced-scheduling-event}, target: {type: AverageValue, averageValue: "10"}}}`},
		"ClusterScalingSchedule": {metric: "{type: ClusterScalingSchedule, average: 10, clusterScalingSchedule: {name: event}}",
			want: `{type: Object, object: {describedObject: {apiVersion: zalando.org/v1, kind: ClusterScalingSchedule, name: event}, metric: {name: event}, target: {type: AverageValue, averageValue: "10"}}}`},
	} {
		t.Run(name, func(t *testing.T) {
			hpa, err := autoscaled(t, row.metric).Autoscaler(row.weight, prescale.State{}, false)
			if err != nil {
				t.Fatal(err)
			}
			var want autoscalingv2.MetricSpec
			if err := yaml.UnmarshalStrict([]byte(row.want), &want); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]autoscalingv2.MetricSpec{want}, hpa.Spec.Metrics); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			annotations := map[string]string{StackGenerationAnnotation: "1"}
			for key, value := range row.annotations {
				annotations[key] = value
			}
			if diff := cmp.Diff(annotations, hpa.Annotations); diff != "" {
				t.Errorf("annotations (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAMistakeInAMetricIsNamed(t *testing.T) {
	for metric, want := range map[string]string{
		"{type: CPU}":                 "utilization is not specified",
		"{type: Memory, average: 30}": "utilization is not specified",
		"{type: AmazonSQS, queue: {name: foo, region: eu-west-1}}":             "average not specified",
		"{type: AmazonSQS, average: 30}":                                       "queue not specified correctly",
		"{type: AmazonSQS, average: 30, queue: {name: foo, region: ''}}":       "queue not specified correctly",
		"{type: PodJSON, endpoint: {port: 1, path: /, key: k}}":                "average not specified",
		"{type: PodJSON, average: 30}":                                         "the metrics endpoint is not specified correctly",
		"{type: PodJSON, average: 30, endpoint: {port: 0, path: /, key: k}}":   "the metrics endpoint is not specified correctly",
		"{type: PodJSON, average: 30, endpoint: {port: 1, path: '', key: k}}":  "the metrics endpoint is not specified correctly",
		"{type: PodJSON, average: 30, endpoint: {port: 1, path: /, key: ''}}":  "the metrics endpoint is not specified correctly",
		"{type: PodJSON, average: 30, endpoint: {port: 1, path: /, key: '$'}}": "the metrics endpoint is not specified correctly",
		"{type: Ingress}":    "average value not specified for metric",
		"{type: RouteGroup}": "average value not specified for metric",
		"{type: RequestsPerSecond, requestsPerSecond: {hostnames: [a.org]}}":         "RequestsPerSecond value not specified for metric",
		"{type: RequestsPerSecond, average: 30}":                                     "RequestsPerSecond.hostnames value not specified for metric",
		"{type: RequestsPerSecond, average: 30, requestsPerSecond: {hostnames: []}}": "RequestsPerSecond.hostnames value not specified for metric",
		"{type: ZMON, average: 30}":                                                  "missing ZMON metric definition",
		"{type: ZMON, zmon: {checkID: '1', key: k}}":                                 "average not specified",
		"{type: ScalingSchedule, average: 30}":                                       "missing (Cluster)ScalingSchedule metric definition",
		"{type: ClusterScalingSchedule, average: 30, scalingSchedule: {name: a}}":    "missing (Cluster)ScalingSchedule metric definition",
		"{type: ScalingSchedule, average: 30, scalingSchedule: {name: ''}}":          "missing (Cluster)ScalingSchedule object name",
		"{type: ScalingSchedule, scalingSchedule: {name: a}}":                        "average not specified",
		"{type: Disk}": "metric type Disk not supported",
	} {
		hpa, err := autoscaled(t, "{type: CPU, averageUtilization: 80}, "+metric).Autoscaler(0, prescale.State{}, false)
		if hpa != nil || err == nil || !strings.HasSuffix(err.Error(), ": "+want) {
			t.Errorf("%s: %v, %v, want %q", metric, hpa, err, want)
		}
	}
}

func TestWhenThereIsNoAutoscaler(t *testing.T) {
	s := autoscaled(t, "{type: CPU, averageUtilization: 80}")
	if hpa, err := s.Autoscaler(0, prescale.State{}, true); hpa != nil || err != nil {
		t.Errorf("scaled down: %v, %v", hpa, err)
	}
	s.Stack.Annotations[ForwardBackendAnnotation] = ""
	if hpa, err := s.Autoscaler(0, prescale.State{}, false); hpa != nil || err != nil {
		t.Errorf("forwarded: %v, %v", hpa, err)
	}
	if hpa, err := source(t, "", "", Options{}).Autoscaler(0, prescale.State{}, false); hpa != nil || err != nil {
		t.Errorf("none asked for: %v, %v", hpa, err)
	}
}

func TestTheMinimumOfTheAutoscaler(t *testing.T) {
	s := autoscaled(t, "")
	hpa, err := s.Autoscaler(0, prescale.State{}, false)
	if err != nil || hpa.Spec.MinReplicas != nil || hpa.Spec.MaxReplicas != 3 {
		t.Errorf("%v, %v: want no minimum", hpa.Spec, err)
	}
	if hpa, _ = s.Autoscaler(0, prescale.State{Active: true, Replicas: 9}, false); *hpa.Spec.MinReplicas != 3 {
		t.Errorf("prescaled: %d, want the maximum, 3", *hpa.Spec.MinReplicas)
	}
}

func TestMetricsThatWouldShareANameDoNot(t *testing.T) {
	s := autoscaled(t, `{type: RequestsPerSecond, average: 30, requestsPerSecond: {hostnames: [b.org]}}, {type: RequestsPerSecond, average: 30, requestsPerSecond: {hostnames: [a.org]}},
		{type: PodJSON, average: 30, endpoint: {port: 1, path: /a, key: $.rps}}, {type: PodJSON, average: 31, endpoint: {port: 1, path: /b, key: .rps}},
		{type: PodJSON, average: 32, endpoint: {port: 1, path: /c, key: x, name: rps-2}}`)
	hpa, err := s.Autoscaler(40, prescale.State{}, false)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		StackGenerationAnnotation:                                                                        "1",
		"metric-config.pods.rps.json-path/json-key":                                                      "$.rps",
		"metric-config.pods.rps.json-path/path":                                                          "/a",
		"metric-config.pods.rps.json-path/port":                                                          "1",
		"metric-config.pods.rps-3.json-path/json-key":                                                    ".rps",
		"metric-config.pods.rps-3.json-path/path":                                                        "/b",
		"metric-config.pods.rps-3.json-path/port":                                                        "1",
		"metric-config.pods.rps-2.json-path/json-key":                                                    "x",
		"metric-config.pods.rps-2.json-path/path":                                                        "/c",
		"metric-config.pods.rps-2.json-path/port":                                                        "1",
		"metric-config.external.my-app-v1-rps.requests-per-second/hostnames":                             "a.org",
		"metric-config.external.my-app-v1-rps.requests-per-second/weight":                                "40",
		"metric-config.external.my-app-v1-rps-" + digest("b.org")[:8] + ".requests-per-second/hostnames": "b.org",
		"metric-config.external.my-app-v1-rps-" + digest("b.org")[:8] + ".requests-per-second/weight":    "40",
	}
	if diff := cmp.Diff(want, hpa.Annotations); diff != "" {
		t.Errorf("annotations (-want +got):\n%s", diff)
	}
	names := map[string]bool{}
	for _, m := range hpa.Spec.Metrics {
		if m.External != nil {
			names[m.External.Metric.Name] = true
		} else {
			names[m.Pods.Metric.Name] = true
		}
	}
	if len(names) != 5 {
		t.Errorf("names %v, want 5", names)
	}
}

func TestMetricsAreSorted(t *testing.T) {
	quantity := func(text string) *resource.Quantity { q := resource.MustParse(text); return &q }
	number := func(n int32) *int32 { return &n }
	m := func(typ zalando.AutoscalerMetricType, change func(*zalando.AutoscalerMetrics)) zalando.AutoscalerMetrics {
		out := zalando.AutoscalerMetrics{Type: typ}
		if change != nil {
			change(&out)
		}
		return out
	}
	average := func(text string) func(*zalando.AutoscalerMetrics) {
		return func(m *zalando.AutoscalerMetrics) { m.Average = quantity(text) }
	}
	type metrics = zalando.AutoscalerMetrics
	want := []metrics{
		m("AmazonSQS", average("20")),
		m("AmazonSQS", func(m *metrics) { m.Average, m.Queue = quantity("30"), &zalando.MetricsQueue{Name: "a", Region: "z"} }),
		m("AmazonSQS", func(m *metrics) { m.Average, m.Queue = quantity("30"), &zalando.MetricsQueue{Name: "b", Region: "a"} }),
		m("CPU", nil),
		m("CPU", func(m *metrics) { m.AverageUtilization = number(5) }),
		m("CPU", func(m *metrics) { m.AverageUtilization = number(50) }),
		m("CPU", func(m *metrics) { m.AverageUtilization, m.Container = number(50), "a" }),
		m("CPU", func(m *metrics) { m.AverageUtilization, m.Container = number(50), "b" }),
		m("ClusterScalingSchedule", func(m *metrics) { m.ClusterScalingSchedule = &zalando.MetricsScalingSchedule{Name: "a"} }),
		m("ClusterScalingSchedule", func(m *metrics) { m.ClusterScalingSchedule = &zalando.MetricsScalingSchedule{Name: "b"} }),
		m("Ingress", average("20000m")), // by value: upstream puts it after 30
		m("Ingress", average("30")),
		m("Ingress", average("1k")),
		m("Memory", func(m *metrics) { m.AverageUtilization = number(80) }),
		m("PodJSON", func(m *metrics) { m.Endpoint = &zalando.MetricsEndpoint{Name: "a", Key: "z"} }),
		m("PodJSON", func(m *metrics) { m.Endpoint = &zalando.MetricsEndpoint{Name: "b", Key: "a"} }),
		m("RequestsPerSecond", func(m *metrics) {
			m.RequestsPerSecond = &zalando.MetricsRequestsPerSecond{Hostnames: []string{"a", "b"}}
		}),
		m("RequestsPerSecond", func(m *metrics) {
			m.RequestsPerSecond = &zalando.MetricsRequestsPerSecond{Hostnames: []string{"a", "c"}}
		}),
		m("RouteGroup", average("1")),
		m("RouteGroup", average("2")),
		m("ScalingSchedule", func(m *metrics) { m.ScalingSchedule = &zalando.MetricsScalingSchedule{Name: "a"} }),
		m("ScalingSchedule", func(m *metrics) { m.ScalingSchedule = &zalando.MetricsScalingSchedule{Name: "b"} }),
		m("ZMON", func(m *metrics) { m.Average, m.ZMON = quantity("1"), &zalando.MetricsZMON{CheckID: "9"} }),
		m("ZMON", func(m *metrics) { m.Average, m.ZMON = quantity("2"), &zalando.MetricsZMON{CheckID: "1"} }),
		m("ZMON", func(m *metrics) { m.Average, m.ZMON = quantity("2"), &zalando.MetricsZMON{CheckID: "10"} }),
		m("ZMON", func(m *metrics) { m.Average, m.ZMON = quantity("2"), &zalando.MetricsZMON{CheckID: "2"} }),
	}
	if len(want) != 26 {
		t.Fatalf("%d metrics", len(want))
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 100 {
		shuffled := make([]metrics, len(want))
		copy(shuffled, want)
		random.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		before := fmt.Sprint(shuffled)
		if diff := cmp.Diff(want, Sorted(shuffled)); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
		if fmt.Sprint(shuffled) != before {
			t.Fatal("what was given is changed")
		}
	}
}

// zmon-check-<i> and sqs-queue-len-<i> hold the place in the sorted list.
func TestNamesHoldThePlaceInTheSortedList(t *testing.T) {
	s := autoscaled(t, "{type: ZMON, average: 30, zmon: {checkID: '1', key: k}}, {type: CPU, averageUtilization: 80}, {type: AmazonSQS, average: 30, queue: {name: b, region: r}}, {type: AmazonSQS, average: 30, queue: {name: a, region: r}}")
	hpa, err := s.Autoscaler(0, prescale.State{}, false)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range hpa.Spec.Metrics {
		if m.External != nil {
			got = append(got, m.External.Metric.Name+" "+m.External.Metric.Selector.MatchLabels["queue-name"])
		}
	}
	if diff := cmp.Diff([]string{"sqs-queue-len-0 a", "sqs-queue-len-1 b", "zmon-check-3 "}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if s.Stack.Spec.Autoscaler.Metrics[0].Type != zalando.ZMONMetric {
		t.Error("the Stack's metrics are sorted in place")
	}
}
