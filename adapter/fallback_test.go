package adapter

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/kubetide/kubetide/collectors"
	"github.com/kubetide/kubetide/internal/sample"
)

// twelve is an External source that fails while the other one is broken.
type twelve struct{ *podNumbers }

func (twelve) Parse(r collectors.Request) (sample.Query, error) { return r.Query("twelve", nil), nil }

func (s twelve) Open(sample.Query) (collectors.Collector, error) { return s, nil }

func (s twelve) Collect(context.Context) ([]sample.Point, error) {
	if s.broken.Load() {
		return nil, errors.New("connection refused")
	}
	return []sample.Point{{Milli: 12_000}}, nil
}

func TestFromAnHPAToItsFallbackAndBack(t *testing.T) {
	hpa := webHPA()
	hpa.Annotations = map[string]string{"metric-config.external.n.twelve/fallback-value": "50"}
	hpa.Spec.Metrics = []autoscalingv2.MetricSpec{{Type: autoscalingv2.ExternalMetricSourceType, External: &autoscalingv2.ExternalMetricSource{
		Metric: autoscalingv2.MetricIdentifier{Name: "n", Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"type": "twelve"}}}}}}
	client, registry := fake.NewClientset(hpa), prometheus.NewRegistry()
	var source *podNumbers
	a := start(t, client, func(o *Options) { o.Registerer = registry }, func(s *podNumbers) { source = s; s.broken.Store(true) })
	served := func() int64 {
		list, err := a.store.External("shop", "n", nil)
		if err != nil || len(list) != 1 {
			return -1
		}
		return list[0].Answer.Points[0].Milli
	}
	events := func() string {
		list, err := client.CoreV1().Events("shop").List(t.Context(), metav1.ListOptions{})
		if err != nil {
			return err.Error()
		}
		var out strings.Builder
		for _, e := range list.Items {
			fmt.Fprintln(&out, e.Type, e.Reason, e.Message)
		}
		return out.String()
	}
	const started = `Warning MetricFallbackStarted HPA shop/web: External metric "n" has had no value since `
	until(t, "the fallback", func() bool { return served() == 50_000 })
	until(t, "the Event", func() bool { return strings.Contains(events(), started) })
	if err := testutil.GatherAndCompare(registry, strings.NewReader(`# HELP kubetide_metric_fallback 1 for a metric whose fallback is served; absent while all is well. Labeled by namespace, hpa and metric.
# TYPE kubetide_metric_fallback gauge
kubetide_metric_fallback{hpa="web",metric="n",namespace="shop"} 1
# HELP kubetide_series Queries by what is known of them. Labeled by collector and state (Fresh, Fallback, Stale, Missing).
# TYPE kubetide_series gauge
kubetide_series{collector="twelve",state="Fallback"} 1
`), "kubetide_metric_fallback", "kubetide_series"); err != nil {
		t.Error(err)
	}
	if problems, err := testutil.GatherAndLint(registry); err != nil || len(problems) > 0 {
		t.Errorf("metrics: %v, %v", problems, err)
	}

	source.broken.Store(false)
	until(t, "the source's own value", func() bool { return served() == 12_000 })
	until(t, "the Event", func() bool {
		return strings.Contains(events(), `Normal MetricFallbackEnded HPA shop/web: External metric "n" has a value of its source again`)
	})
	if n := strings.Count(events(), started); n != 1 {
		t.Errorf("the beginning was told %d times:\n%s", n, events())
	}
}
