// Package metricsapi serves the store through custom.metrics.k8s.io and external.metrics.k8s.io. A request is answered from
// memory and never waits for a source; at most it asks, once, another server of the cluster for what that has. A value that is missing or stale is an error that says why, never an empty list
// and never a number.
package metricsapi

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/metrics/pkg/apis/custom_metrics"
	"k8s.io/metrics/pkg/apis/external_metrics"
	"k8s.io/utils/clock"
	"sigs.k8s.io/custom-metrics-apiserver/pkg/provider"
	"sigs.k8s.io/custom-metrics-apiserver/pkg/provider/defaults"

	"github.com/kubetide/kubetide/adapter/store"
	"github.com/kubetide/kubetide/internal/sample"
)

// Store is what the APIs read.
type Store interface {
	External(namespace, metric string, selector labels.Selector) ([]store.Served, error)
	Object(namespace, metric string, object sample.ObjectRef, selector labels.Selector) (store.Served, error)
	Objects(namespace, metric string, kind schema.GroupKind, selector labels.Selector) ([]store.Served, error)
	Pods(namespace, metric string, pods, selector labels.Selector) ([]store.Served, error)
	Pod(namespace, metric, pod string, selector labels.Selector) (store.Served, error)
}

// Provider implements provider.MetricsProvider. Its discovery is constant: a list of all metrics would make every kubectl
// slow, and no client needs it.
type Provider struct {
	defaults.DefaultCustomMetricsProvider
	defaults.DefaultExternalMetricsProvider
	store   Store
	mapper  meta.RESTMapper
	metrics *answerMetrics
	// Fetch asks other servers for the values of a metric that this one has not, and tells whether something came. It is set before the
	// first request; nil where there are no others. It obeys ctx, and is quick where there is nobody to ask.
	Fetch func(ctx context.Context, kind sample.Kind, namespace, metric string) bool
}

var _ provider.MetricsProvider = (*Provider)(nil)

// NewProvider returns a Provider. The mapper must learn of new kinds by itself. registerer takes the metrics; none if nil.
func NewProvider(store Store, mapper meta.RESTMapper, clock clock.PassiveClock, registerer prometheus.Registerer) *Provider {
	return &Provider{store: store, mapper: mapper, metrics: newAnswerMetrics(clock, registerer)}
}

// fetched tells whether it is worth to look into the store again after an error.
func (p *Provider) fetched(ctx context.Context, err error, kind sample.Kind, namespace, metric string) bool {
	return err != nil && p.Fetch != nil && p.Fetch(ctx, kind, namespace, metric)
}

// notFound is the one status for no value, whatever the cause: an HPA treats all errors alike, and a 5xx would count
// against the cluster's own API servers for what one tenant's source does.
func notFound(err error) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusNotFound, Reason: metav1.StatusReasonNotFound, Message: err.Error()}}
}

// GetExternalMetric returns the series with exactly the selector, else all that it matches.
func (p *Provider) GetExternalMetric(ctx context.Context, namespace string, selector labels.Selector, info provider.ExternalMetricInfo) (*external_metrics.ExternalMetricValueList, error) {
	series, err := p.store.External(namespace, info.Metric, selector)
	if p.fetched(ctx, err, sample.External, namespace, info.Metric) {
		series, err = p.store.External(namespace, info.Metric, selector)
	}
	p.metrics.observe("external", series, err)
	if err != nil {
		return nil, notFound(err)
	}
	list := &external_metrics.ExternalMetricValueList{Items: make([]external_metrics.ExternalMetricValue, 0, len(series))}
	for _, s := range series {
		for _, point := range s.Answer.Points {
			list.Items = append(list.Items, external_metrics.ExternalMetricValue{
				MetricName: info.Metric, MetricLabels: s.Labels, Timestamp: timestamp(s, point),
				WindowSeconds: window(point), Value: *resource.NewMilliQuantity(point.Milli, resource.DecimalSI),
			})
		}
	}
	return list, nil
}

// GetMetricByName returns the value of one object or pod.
func (p *Provider) GetMetricByName(ctx context.Context, name types.NamespacedName, info provider.CustomMetricInfo, selector labels.Selector) (*custom_metrics.MetricValue, error) {
	kind, version, err := p.kind(info.GroupResource)
	if err != nil {
		return nil, err
	}
	// Metrics of a namespace arrive as those of a root-scoped object with the namespace's name. Otherwise the namespace is
	// the HPA's, also for a cluster-scoped object.
	namespace, object := name.Namespace, sample.ObjectRef{Group: kind.Group, Kind: kind.Kind, Name: name.Name}
	if namespace == "" && kind == namespaceKind {
		namespace = name.Name
	}
	if namespace == "" {
		return nil, errRootScoped(info)
	}
	served, err := p.store.Object(namespace, info.Metric, object, selector)
	if p.fetched(ctx, err, sample.Object, namespace, info.Metric) {
		served, err = p.store.Object(namespace, info.Metric, object, selector)
	}
	if err != nil && kind == podKind {
		if pod, podErr := p.store.Pod(namespace, info.Metric, name.Name, selector); podErr == nil {
			served, err = pod, nil
		}
	}
	p.metrics.observe("custom", []store.Served{served}, err)
	if err != nil {
		return nil, notFound(err)
	}
	value := customValue(served, served.Answer.Points[0], kind, version, name.Name)
	return &value, nil
}

// GetMetricBySelector returns the values of pods, or those of all described objects of a kind.
func (p *Provider) GetMetricBySelector(ctx context.Context, namespace string, selector labels.Selector, info provider.CustomMetricInfo, metricSelector labels.Selector) (*custom_metrics.MetricValueList, error) {
	kind, version, err := p.kind(info.GroupResource)
	if err != nil {
		return nil, err
	}
	if namespace == "" {
		return nil, errRootScoped(info)
	}
	var series []store.Served
	switch {
	case kind == podKind:
		series, err = p.store.Pods(namespace, info.Metric, selector, metricSelector)
		if p.fetched(ctx, err, sample.Pods, namespace, info.Metric) {
			series, err = p.store.Pods(namespace, info.Metric, selector, metricSelector)
		}
	case selector != nil && !selector.Empty():
		return nil, apierrors.NewBadRequest(fmt.Sprintf("labels select pods only: ask for the metrics of %s by name, or for all", info.GroupResource))
	default:
		series, err = p.store.Objects(namespace, info.Metric, kind, metricSelector)
		if p.fetched(ctx, err, sample.Object, namespace, info.Metric) {
			series, err = p.store.Objects(namespace, info.Metric, kind, metricSelector)
		}
	}
	p.metrics.observe("custom", series, err)
	if err != nil {
		return nil, notFound(err)
	}
	n := 0
	for i := range series {
		n += len(series[i].Answer.Points)
	}
	list := &custom_metrics.MetricValueList{Items: make([]custom_metrics.MetricValue, 0, n)}
	for _, s := range series {
		for _, point := range s.Answer.Points {
			name := point.Pod
			if kind != podKind {
				name = s.Query.Object.Name
			}
			list.Items = append(list.Items, customValue(s, point, kind, version, name))
		}
	}
	return list, nil
}

var (
	podKind       = schema.GroupKind{Kind: "Pod"}
	namespaceKind = schema.GroupKind{Kind: "Namespace"}
)

// kind maps a resource as it stands in a URL: singular or plural, with or without its group.
func (p *Provider) kind(resource schema.GroupResource) (schema.GroupKind, string, error) {
	switch resource {
	case schema.GroupResource{Resource: "pods"}, schema.GroupResource{Resource: "pod"}:
		return podKind, "v1", nil
	case schema.GroupResource{Resource: "namespaces"}:
		return namespaceKind, "v1", nil
	}
	gvk, err := p.mapper.KindFor(resource.WithVersion(""))
	switch {
	case meta.IsNoMatchError(err):
		return schema.GroupKind{}, "", notFound(fmt.Errorf("the cluster has no resource %q", resource))
	case err != nil:
		return schema.GroupKind{}, "", apierrors.NewServiceUnavailable(fmt.Sprintf("resource %q cannot be looked up: %v", resource, err))
	}
	// The library would write "/v1" for the core group.
	return gvk.GroupKind(), gvk.GroupVersion().String(), nil
}

func errRootScoped(info provider.CustomMetricInfo) error {
	return notFound(fmt.Errorf("metric %q of %s is kept for each namespace that has an HPA which asks for it; ask with a namespace", info.Metric, info.GroupResource))
}

func customValue(s store.Served, point sample.Point, kind schema.GroupKind, apiVersion, name string) custom_metrics.MetricValue {
	value := custom_metrics.MetricValue{
		DescribedObject: custom_metrics.ObjectReference{APIVersion: apiVersion, Kind: kind.Kind, Name: name, Namespace: s.Query.Namespace},
		Metric:          custom_metrics.MetricIdentifier{Name: s.Query.Metric},
		Timestamp:       timestamp(s, point),
		WindowSeconds:   window(point),
		Value:           *resource.NewMilliQuantity(point.Milli, resource.DecimalSI),
	}
	if s.Query.Selector != "" {
		// It was printed from a selector, so it can be read.
		value.Metric.Selector, _ = metav1.ParseToLabelSelector(s.Query.Selector)
	}
	return value
}

// timestamp is when the value was true, not when it is read.
func timestamp(s store.Served, point sample.Point) metav1.Time {
	return metav1.NewTime(s.Answer.Taken.Add(-point.Age))
}

func window(point sample.Point) *int64 {
	if point.Window <= 0 {
		return nil
	}
	seconds := int64(point.Window / time.Second)
	return &seconds
}
