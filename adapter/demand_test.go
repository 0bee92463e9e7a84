package adapter

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/kubetide/kubetide/adapter/annotations"
	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	"github.com/kubetide/kubetide/collectors/resource"
	"github.com/kubetide/kubetide/internal/sample"
)

func external(name string, labels map[string]string) autoscalingv2.MetricSpec {
	return autoscalingv2.MetricSpec{Type: autoscalingv2.ExternalMetricSourceType, External: &autoscalingv2.ExternalMetricSource{
		Metric: autoscalingv2.MetricIdentifier{Name: name, Selector: &metav1.LabelSelector{MatchLabels: labels}}}}
}

func cpu(name, container string) autoscalingv2.MetricSpec {
	if container == "" {
		return autoscalingv2.MetricSpec{Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{Name: corev1.ResourceName(name)}}
	}
	return autoscalingv2.MetricSpec{Type: autoscalingv2.ContainerResourceMetricSourceType,
		ContainerResource: &autoscalingv2.ContainerResourceMetricSource{Name: corev1.ResourceName(name), Container: container}}
}

func TestWhatAnObjectOfTheEngineAsksFor(t *testing.T) {
	web := sample.ObjectRef{Group: "apps", Kind: "Deployment", Name: "web"}
	numbers := webHPA().Spec.Metrics[0]
	tests := map[string]struct {
		annotations map[string]string
		metrics     []autoscalingv2.MetricSpec
		want        []sample.Query
		errs        []string
		warnings    []string
	}{
		"cpu of pods, and of one container, are asked of the source of resources": {
			metrics: []autoscalingv2.MetricSpec{cpu("cpu", ""), cpu("memory", "main")},
			want: []sample.Query{
				{Kind: sample.Resource, Namespace: "shop", Metric: "cpu", Target: web, Collector: "resource", Interval: 15 * time.Second},
				{Kind: sample.Resource, Namespace: "shop", Metric: "memory", Target: web, Collector: "resource", Settings: `{"container":"main"}`, Interval: 15 * time.Second},
			},
		},
		"the settings are those of an HPA": {
			annotations: map[string]string{"metric-config.pods.n.numbers/interval": "2s", "metric-config.external.n.twelve/fallback-hold": "1m"},
			metrics:     []autoscalingv2.MetricSpec{external("n", map[string]string{"type": "twelve"}), numbers},
			want: []sample.Query{
				{Kind: sample.External, Namespace: "shop", Metric: "n", Selector: "type=twelve", Collector: "twelve", Interval: time.Minute, Fallback: sample.Fallback{Hold: time.Minute}},
				{Kind: sample.Pods, Namespace: "shop", Metric: "n", Target: web, Collector: "numbers", Interval: 2 * time.Second},
			},
		},
		"a bad metric leaves the others alone, and says what is wrong": {
			annotations: map[string]string{"metric-config.pods.n.numbers/interval": "soon"},
			metrics:     []autoscalingv2.MetricSpec{numbers, cpu("storage", ""), {Type: "Oracle"}, external("x", nil), external("n", map[string]string{"type": "twelve"})},
			want:        []sample.Query{{}, {}, {}, {}, {Kind: sample.External, Namespace: "shop", Metric: "n", Selector: "type=twelve", Collector: "twelve", Interval: time.Minute}},
			errs: []string{`metric "n": metric-config.pods.n.numbers/interval: "soon" is not a duration such as 30s or 1m`,
				`resource "storage": there are metrics of the resources cpu and memory, not of "storage"`, `a metric of type "Oracle" without its settings`, `its selector has no label "type"`, ""},
		},
		"what has no effect is a warning, but not what is said of metrics of other objects": {
			annotations: map[string]string{"metric-config.pods.n.numbers/typo": "1", "metric-config.external.other.twelve/interval": "2s", "metric-config.bad/interval": "2s"},
			metrics:     []autoscalingv2.MetricSpec{numbers},
			want:        []sample.Query{{Kind: sample.Pods, Namespace: "shop", Metric: "n", Target: web, Collector: "numbers", Interval: time.Minute}},
			warnings:    []string{`metric "n": metric-config.pods.n.numbers/typo: collector "numbers" has no setting "typo"`},
		},
	}
	a := start(t, fake.NewClientset(), nil, nil)
	a.Registry().Register(sample.Resource, resource.New(a.Pods(), a.Scales(), nil, clocktesting.NewFakePassiveClock(time.Now())), resource.Name)
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			hp := &kapacity.HorizontalPortrait{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web-reactive", Annotations: tt.annotations}}
			asked := a.Queries(hp, webHPA().Spec.ScaleTargetRef, tt.metrics)
			var got []sample.Query
			var warnings []string
			for i, one := range asked {
				got = append(got, one.Query)
				warnings = append(warnings, one.Warnings...)
				switch want := ""; {
				case i < len(tt.errs) && tt.errs[i] != want:
					if want = tt.errs[i]; one.Err == nil || !strings.Contains(one.Err.Error(), want) {
						t.Errorf("metric %d: error %v, want %q", i, one.Err, want)
					}
				case one.Err != nil:
					t.Errorf("metric %d: %v", i, one.Err)
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("queries (-want +got):\n%s", diff)
			}
			if len(warnings) != len(tt.warnings) {
				t.Fatalf("warnings %q, want %q", warnings, tt.warnings)
			}
			for i, want := range tt.warnings {
				if !strings.Contains(warnings[i], want) {
					t.Errorf("warning %q, want %q", warnings[i], want)
				}
			}
		})
	}
}

func TestAnAnswerIsPushedToWhoWantsIt(t *testing.T) {
	a := start(t, fake.NewClientset(), nil, nil)
	q := a.Queries(&kapacity.HorizontalPortrait{ObjectMeta: metav1.ObjectMeta{Namespace: "shop"}}, webHPA().Spec.ScaleTargetRef,
		[]autoscalingv2.MetricSpec{external("n", map[string]string{"type": "twelve"})})[0].Query
	var pushed atomic.Int32
	cancel := a.Subscribe(q, func() { pushed.Add(1) })
	defer cancel()
	release := a.Want(q)
	until(t, "the answer", func() bool { return pushed.Load() > 0 && a.Answer(q).State == sample.Fresh })
	if got := a.Answer(q).Points[0].Milli; got != 12_000 {
		t.Errorf("%d thousandths", got)
	}
	release()
	if a.Answer(q).State != sample.Missing {
		t.Error("it is still collected")
	}
}

// B19: the selector counts beside the name, and an object of the core group is found as such.
func TestB19AMetricIsItsNameAndItsSelector(t *testing.T) {
	a := start(t, fake.NewClientset(), nil, nil)
	web := autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "web"}
	o := &metav1.ObjectMeta{Namespace: "shop", Name: "web"}
	asked := a.Queries(o, web, []autoscalingv2.MetricSpec{
		external("n", map[string]string{"type": "twelve", "queue": "a"}), external("n", map[string]string{"type": "twelve", "queue": "b"}),
	})
	for i, want := range []string{"queue=a,type=twelve", "queue=b,type=twelve"} {
		if asked[i].Err != nil || asked[i].Query.Metric != "n" || asked[i].Query.Selector != want {
			t.Errorf("query %d is %+v (%v), want the selector %s", i, asked[i].Query, asked[i].Err, want)
		}
	}
	service := annotations.ObjectRef(autoscalingv2.CrossVersionObjectReference{APIVersion: "v1", Kind: "Service", Name: "web"})
	if diff := cmp.Diff(sample.ObjectRef{Kind: "Service", Name: "web"}, service); diff != "" {
		t.Error(diff)
	}
}
