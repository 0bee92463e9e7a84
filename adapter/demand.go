package adapter

import (
	"errors"
	"fmt"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubetide/kubetide/adapter/annotations"
	"github.com/kubetide/kubetide/collectors"
	"github.com/kubetide/kubetide/internal/sample"
)

// resourceInterval is how often cpu and memory are read for the engine: as often as the stock HPA looks.
const resourceInterval = 15 * time.Second

// resourceCollector is the name under which the caller registers the source of cpu and memory.
const resourceCollector = "resource"

var _ sample.Demand = (*Adapter)(nil)

// Answer implements sample.Reader.
func (a *Adapter) Answer(q sample.Query) sample.Answer { return a.store.Answer(q) }

// Subscribe implements sample.Reader.
func (a *Adapter) Subscribe(q sample.Query, notify func()) (cancel func()) {
	return a.store.Subscribe(q, notify)
}

// Queries implements sample.Demand. The annotations are those of an HPA; annotations of metrics that are not asked for are
// passed over, since they may be meant for another object that was made from the same one.
func (a *Adapter) Queries(o metav1.Object, target autoscalingv2.CrossVersionObjectReference, metrics []autoscalingv2.MetricSpec) []sample.Asked {
	hpa := &autoscalingv2.HorizontalPodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{Namespace: o.GetNamespace(), Name: o.GetName(), Annotations: o.GetAnnotations()},
		Spec:       autoscalingv2.HorizontalPodAutoscalerSpec{ScaleTargetRef: target, Metrics: metrics},
	}
	parsed := annotations.Parse(hpa, a.registry, annotations.Options{DefaultInterval: a.options.DefaultInterval, MaxAge: a.options.MaxAge})
	out := make([]sample.Asked, len(metrics))
	for i, m := range metrics {
		out[i].Query, out[i].Err = a.resource(hpa, m)
	}
	for _, m := range parsed.Metrics {
		out[m.Index].Query, out[m.Index].Err = m.Query, nil
	}
	for i, problems := range parsed.Of {
		for _, p := range problems {
			if !p.Fatal {
				out[i].Warnings = append(out[i].Warnings, p.String())
			} else if out[i].Query == (sample.Query{}) {
				out[i].Err = errors.New(p.String())
			}
		}
	}
	return out
}

// resource is the query of a Resource or ContainerResource metric, which has no settings.
func (a *Adapter) resource(hpa *autoscalingv2.HorizontalPodAutoscaler, m autoscalingv2.MetricSpec) (sample.Query, error) {
	r := collectors.Request{Kind: sample.Resource, Namespace: hpa.Namespace, Target: annotations.ObjectRef(hpa.Spec.ScaleTargetRef), Interval: resourceInterval}
	switch {
	case m.Type == autoscalingv2.ResourceMetricSourceType && m.Resource != nil:
		r.Metric = string(m.Resource.Name)
	case m.Type == autoscalingv2.ContainerResourceMetricSourceType && m.ContainerResource != nil:
		r.Metric, r.Settings = string(m.ContainerResource.Name), sample.Settings{"container": m.ContainerResource.Container}
	default:
		return sample.Query{}, fmt.Errorf("a metric of type %q without its settings, or of an unknown type", m.Type)
	}
	source, err := a.registry.Named(sample.Resource, resourceCollector)
	if err != nil {
		return sample.Query{}, err
	}
	q, err := source.Parse(r)
	if err != nil {
		return sample.Query{}, fmt.Errorf("resource %q: %w", r.Metric, err)
	}
	return q, nil
}
