package main

import (
	"bytes"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/yaml"

	tide "github.com/kubetide/kubetide/api/tide/v1alpha1"
)

const (
	samplesPath  = "/apis/tide.kubetide.io/v1alpha1/namespaces/shop/samples"
	hpaPath      = "/apis/autoscaling/v2/namespaces/shop/horizontalpodautoscalers/cart"
	externalPath = "/apis/external.metrics.k8s.io/v1beta1/namespaces/shop/queue-length"
	podsPath     = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/shop/pods/*/requests"
	objectPath   = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/shop/ingresses.networking.k8s.io/cart/rps"
)

// document is what an API server sends.
func document(t *testing.T, text string) any {
	t.Helper()
	var out any
	if err := yaml.Unmarshal([]byte(text), &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// metricsOfCart are an HPA with a metric of each type, an IHPA with stability checkers, and what is collected for them and others.
func metricsOfCart(t *testing.T) map[string]answer {
	t.Helper()
	const discovered = `
kind: APIResourceList
apiVersion: v1
groupVersion: %s
resources:
- {name: %s, singularName: "", namespaced: true, kind: %s, verbs: [get]}
- {name: %[2]s/scale, singularName: "", namespaced: true, group: autoscaling, version: v1, kind: Scale, verbs: [get]}`
	return map[string]answer{
		"/api": {200, document(t, "{kind: APIVersions, versions: [v1]}")},
		"/apis": {200, document(t, `
kind: APIGroupList
apiVersion: v1
groups:
- {name: apps, versions: [{groupVersion: apps/v1, version: v1}], preferredVersion: {groupVersion: apps/v1, version: v1}}
- {name: networking.k8s.io, versions: [{groupVersion: networking.k8s.io/v1, version: v1}], preferredVersion: {groupVersion: networking.k8s.io/v1, version: v1}}`)},
		"/api/v1":                    {200, document(t, fmt.Sprintf(discovered, "v1", "services", "Service"))},
		"/apis/apps/v1":              {200, document(t, fmt.Sprintf(discovered, "apps/v1", "deployments", "Deployment"))},
		"/apis/networking.k8s.io/v1": {200, document(t, fmt.Sprintf(discovered, "networking.k8s.io/v1", "ingresses", "Ingress"))},
		"/apis/apps/v1/namespaces/shop/deployments/cart/scale": {200, document(t, `
{kind: Scale, apiVersion: autoscaling/v1, metadata: {name: cart, namespace: shop}, spec: {replicas: 2}, status: {replicas: 2, selector: app=cart}}`)},
		hpaPath: {200, document(t, `
kind: HorizontalPodAutoscaler
apiVersion: autoscaling/v2
metadata: {name: cart, namespace: shop}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: cart}
  maxReplicas: 9
  metrics:
  - {type: External, external: {metric: {name: queue-length, selector: {matchLabels: {type: sqs-queue-length}}}, target: {type: AverageValue, averageValue: "30"}}}
  - {type: Pods, pods: {metric: {name: requests}, target: {type: AverageValue, averageValue: "10"}}}
  - {type: Object, object: {metric: {name: rps}, describedObject: {apiVersion: networking.k8s.io/v1, kind: Ingress, name: cart}, target: {type: Value, value: "1k"}}}
  - {type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 80}}}`)},
		ihpaPath: {200, document(t, `
kind: IntelligentHorizontalPodAutoscaler
apiVersion: autoscaling.kapacitystack.io/v1alpha1
metadata: {name: cart, namespace: shop}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: cart}
  maxReplicas: 9
  portraitProviders:
  - type: Dynamic
    dynamic:
      portraitType: Reactive
      algorithm: {type: KubeHPA}
      metrics:
      - {type: External, external: {metric: {name: queue-length, selector: {matchLabels: {type: sqs-queue-length}}}, target: {type: AverageValue, averageValue: "30"}}}
  stabilityCheckers:
  - type: External
    stabilizationAction: Pause
  - type: Metrics
    stabilizationAction: Rollback
    metrics:
      metrics:
      - {operator: GreaterThan, type: External, external: {metric: {name: queue-length, selector: {matchLabels: {type: sqs-queue-length}}}, target: {type: Value, value: "900"}}}
      - {operator: GreaterThan, type: Object, object: {metric: {name: rps}, describedObject: {apiVersion: networking.k8s.io/v1, kind: Ingress, name: cart}, target: {type: Value, value: "1k"}}}
      - {operator: GreaterThan, type: External, external: {metric: {name: failures}, target: {type: Value, value: "5"}}}`)},
		samplesPath: {200, document(t, `
kind: SampleList
apiVersion: tide.kubetide.io/v1alpha1
metadata: {}
items:
- metadata: {name: a, namespace: shop}
  query: {type: External, metric: queue-length, selector: type=sqs-queue-length, collector: sqs, interval: 15s}
  state: Fresh
  value: "60"
  age: 4s
  maxAge: 30s
- metadata: {name: b, namespace: shop}
  query: {type: External, metric: queue-length, selector: type=other, collector: prometheus, interval: 15s}
  state: Fresh
  value: "7"
  age: 4s
  maxAge: 30s
- metadata: {name: c, namespace: shop}
  query: {type: Pods, metric: requests, target: Deployment.apps/cart, collector: json-path, interval: 15s}
  state: Fresh
  value: 1500m
  pods: 2
  age: 9s
  maxAge: 30s
- metadata: {name: d, namespace: shop}
  query: {type: Pods, metric: requests, target: Deployment.apps/other, collector: json-path, interval: 15s}
  state: Fresh
  value: "3"
  pods: 1
  age: 9s
  maxAge: 30s
- metadata: {name: e, namespace: shop}
  query: {type: Object, metric: rps, object: Ingress.networking.k8s.io/cart, collector: skipper, interval: 15s}
  state: Stale
  age: 5m
  maxAge: 30s
  cause: "Prometheus: connection refused\e[2J"
  fallback: Held`)},
		externalPath: {200, document(t, `
{kind: ExternalMetricValueList, apiVersion: external.metrics.k8s.io/v1beta1, items: [{metricName: queue-length, timestamp: "2026-11-22T12:02:16Z", value: "60"}]}`)},
		podsPath: {200, document(t, `
kind: MetricValueList
apiVersion: custom.metrics.k8s.io/v1beta2
items:
- {describedObject: {kind: Pod, name: cart-1}, metric: {name: requests}, timestamp: "2026-11-22T12:02:11Z", value: "1"}
- {describedObject: {kind: Pod, name: cart-2}, metric: {name: requests}, timestamp: "2026-11-22T12:02:11Z", value: "2"}`)},
		objectPath: status(404, metav1.StatusReasonNotFound, "", "rps of Ingress cart is stale: connection refused"),
	}
}

func TestMetricsOfAnAutoscaler(t *testing.T) {
	answers := metricsOfCart(t)
	for name, test := range map[string]struct {
		args string
		code int
		out  []string
		not  []string
		err  []string
	}{
		"all that is collected": {"metrics list", 0, []string{"METRIC", "sqs", "prometheus", "1500m", "Stale (fallback: Held)"}, []string{"\x1b"}, nil},
		"what an HPA asks for": {"metrics list hpa/cart", 0,
			[]string{"queue-length  External  sqs        60     -     Fresh                   4s   30s      -\n", "requests      Pods      json-path  1500m  2", "Prometheus: connection refused"},
			[]string{"prometheus  ", "     3  "}, []string{"metric cpu is not collected: metrics-server answers it for HPAs"}},
		"what an IHPA and its stability checkers ask for, each once": {"metrics list ihpa/cart", 0,
			[]string{"CAUSE\nqueue-length  External  sqs        60     -     Fresh                   4s   30s      -\nrps           Object    skipper    -      -     Stale (fallback: Held)  5m"},
			[]string{"requests", "prometheus  "}, []string{"metric failures of type External is not collected"}},
		"a type of which nothing is collected": {"metrics list deployment/cart", 2, nil, nil,
			[]string{"what it is about is hpa (HorizontalPodAutoscaler) and ihpa (IntelligentHorizontalPodAutoscaler)\n"}},
		"what is asked for as JSON": {"metrics list hpa cart -o json", 0, []string{`"kind": "SampleList"`, `"cause": "Prometheus: connection refused\u001b[2J"`}, []string{`"type=other"`}, []string{"metric cpu"}},
		"what the APIs answer": {"metrics query hpa/cart", 1,
			[]string{"queue-length  External  30 a pod  -           60     4s\n", "requests      Pods      10 a pod  Pod/cart-2  2      9s", "connection refused", "cpu           Resource  80%       -           -      -    metrics-server's"},
			nil, []string{"1 of 4 metrics have no answer"}},
		"what the APIs answer as YAML":    {"metrics query hpa/cart -o yaml", 1, []string{"kind: MetricAnswers\n", "path: " + podsPath + "?labelSelector=app%3Dcart\n", "path: " + externalPath + "?labelSelector=type%3Dsqs-queue-length\n"}, nil, []string{"1 of 4"}},
		"an HPA that is not there":        {"metrics list hpa/other", 1, nil, nil, []string{"could not find the requested resource"}},
		"a type that asks for no metrics": {"metrics query deployment/cart", 2, nil, nil, []string{"what it is about is hpa (HorizontalPodAutoscaler)\n"}},
		"the APIs about an IHPA":          {"metrics query ihpa/cart", 2, nil, nil, []string{"does not go through the metrics APIs: kubectl tide metrics list ihpa/cart shows it"}},
		"no autoscaler":                   {"metrics query", 2, nil, nil, []string{"name one object"}},
		"an unknown command":              {"metrics show", 2, nil, nil, []string{`there is no command "show"; see kubectl tide metrics --help`}},
		"a watch without a pause":         {"metrics watch --interval=1ms", 2, nil, nil, []string{"--interval must be 100ms at least, not 1ms"}},
		"help":                            {"metrics --help", 0, []string{"list", "query", "watch"}, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			code, out, errs := newCluster(t, answers).run(noon, strings.Fields(test.args)...)
			if code != test.code {
				t.Errorf("exit code %d, want %d", code, test.code)
			}
			for _, want := range test.out {
				if !strings.Contains(out, want) {
					t.Errorf("the output lacks %q:\n%s", want, out)
				}
			}
			for _, text := range test.not {
				if strings.Contains(out, text) {
					t.Errorf("the output has %q:\n%s", text, out)
				}
			}
			for _, want := range test.err {
				if !strings.Contains(errs, want) {
					t.Errorf("the error output lacks %q:\n%s", want, errs)
				}
			}
			if test.err == nil && errs != "" {
				t.Errorf("error output %q", errs)
			}
		})
	}
}

// fullDisk takes nothing.
type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

func TestMetricsThatCannotBeWrittenAreAnError(t *testing.T) {
	c := newCluster(t, metricsOfCart(t))
	for _, args := range []string{"metrics list", "metrics list hpa/cart -o json", "metrics query hpa/cart"} {
		var errs bytes.Buffer
		p := plugin{out: fullDisk{}, err: &errs, clock: clocktesting.NewFakePassiveClock(noon), zone: time.UTC}
		if code := p.run(append([]string{"--kubeconfig=" + c.kubeconfig}, strings.Fields(args)...)); code != exitFailed || !strings.Contains(errs.String(), "no space left on device") {
			t.Errorf("%s: exit code %d, %q", args, code, errs.String())
		}
	}
}

func TestMetricsAreListedAgainUntilCtrlC(t *testing.T) {
	c := newCluster(t, metricsOfCart(t))
	out, errs, code := watching(t, &shop{kubeconfig: c.kubeconfig}, "metrics watch hpa/cart --interval=100ms -o yaml")
	if text := out.next(t); !strings.HasPrefix(text, "apiVersion: tide.kubetide.io/v1alpha1\n") {
		t.Errorf("at first: %s", text)
	}
	if text := errs.next(t); !strings.Contains(text, "metric cpu is not collected") {
		t.Error(text)
	}
	if text := out.next(t) + out.next(t); !strings.HasPrefix(text, "---\napiVersion: tide.kubetide.io/v1alpha1\n") {
		t.Errorf("the second time: %s", text)
	}
	if err := syscall.Kill(syscall.Getpid(), syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if c := exit(t, code); c != 0 {
		t.Errorf("exit code %d", c)
	}
}

func TestSamplesThatMayNotBeRead(t *testing.T) {
	forbidden := status(403, metav1.StatusReasonForbidden, "samples", "samples.tide.kubetide.io is forbidden")
	for what, test := range map[string]struct {
		answer answer
		want   string
	}{
		"forbidden":   {forbidden, "you may not read samples in namespace shop: somebody has to bind the ClusterRole kubetide-decisions-viewer"},
		"not there":   {answer{404, "404 page not found"}, "the cluster does not serve tide.kubetide.io/v1alpha1"},
		"no backends": {answer{503, "service unavailable"}, "kubectl get apiservice v1alpha1.tide.kubetide.io"},
	} {
		if code, _, errs := newCluster(t, map[string]answer{samplesPath: test.answer}).run(noon, "metrics", "list"); code != 1 || !strings.Contains(errs, test.want) {
			t.Errorf("%s: exit code %d, %q", what, code, errs)
		}
	}
}

func TestWhatAMetricIdentifies(t *testing.T) {
	cpu := autoscalingv2.MetricSpec{Type: autoscalingv2.ContainerResourceMetricSourceType,
		ContainerResource: &autoscalingv2.ContainerResourceMetricSource{Name: "cpu", Container: "main", Target: autoscalingv2.MetricTarget{AverageUtilization: new(int32(70))}}}
	if got, want := identify(cpu), (metric{kind: "Resource", name: "cpu", target: "70%"}); got != want {
		t.Errorf("%+v", got)
	}
	broken := autoscalingv2.MetricSpec{Type: autoscalingv2.PodsMetricSourceType}
	if m := identify(broken); m.collects(tide.SampleQuery{Type: "Pods"}, autoscalingv2.CrossVersionObjectReference{}) {
		t.Error("a spec without its metric asks for something")
	}
}

func TestCompletion(t *testing.T) {
	const list = "/apis/autoscaling/v2/namespaces/shop/horizontalpodautoscalers"
	answers := map[string]answer{
		list: {200, document(t, "{kind: PartialObjectMetadataList, apiVersion: meta.k8s.io/v1, metadata: {}, items: [{metadata: {name: cart}}, {metadata: {name: till}}]}")},
		"/apis/zalando.org/v1/namespaces/shop/stacksets": {200, document(t, "{items: [{metadata: {name: front}}]}")},
	}
	for args, want := range map[string]string{
		"metrics query ":            "hpa/\n:6\n",
		"metrics list ":             "hpa/\nihpa/\n:6\n",
		"metrics list hpa/":         "hpa/cart\nhpa/till\n:4\n",
		"metrics list hpa ":         "cart\ntill\n:4\n",
		"explain ihpa/":             ":5\n", // may not be listed
		"get stackset/":             "stackset/front\n:4\n",
		"traffic ":                  "front\n:4\n",
		"explain ihpa/x and ":       ":4\n",
		"metrics list deployments/": ":4\n",
	} {
		c := newCluster(t, answers)
		code, out, _ := c.run(noon, append([]string{"__complete"}, strings.Split(args, " ")...)...)
		if code != 0 || out != want {
			t.Errorf("%q: exit code %d, %q, want %q (asked %v)", args, code, out, want, c.asked)
		}
	}
	if _, out, _ := newCluster(t, nil).run(noon, "completion"); !strings.HasPrefix(out, "#!/bin/sh\n") || !strings.Contains(out, `kubectl tide __complete "$@"`) {
		t.Errorf("%q", out)
	}
}
