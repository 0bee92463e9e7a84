// Package skipper serves the requests per second of an Ingress or a RouteGroup behind skipper as an Object metric: what
// Prometheus counts for its hosts, times the share of it that a backend gets. The objects are read from memory each time, so
// the share is that of now; Prometheus is asked one question that Kubetide itself wrote.
package skipper

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	zalandov1 "github.com/kubetide/kubetide/api/zalando/v1"
	"github.com/kubetide/kubetide/collectors"
	"github.com/kubetide/kubetide/internal/sample"
	"github.com/kubetide/kubetide/internal/traffic"
)

const (
	// Name is the name of the source.
	Name = "skipper"
	// Metric is what the names of its metrics begin with. One kind of the older ones goes on with a comma and the backend.
	Metric = "requests-per-second"

	keyBackend = "backend"
	window     = time.Minute // of the query
)

var (
	ingressKind    = schema.GroupKind{Group: networkingv1.GroupName, Kind: "Ingress"}
	routeGroupKind = schema.GroupKind{Group: zalandov1.SchemeGroupVersion.Group, Kind: "RouteGroup"}
)

// Prometheus answers queries of Kubetide's own.
type Prometheus interface {
	// Instant returns the one value of the query and how old it is. A result without one finite value is a sample.ErrNoData.
	Instant(ctx context.Context, namespace, query string) (value float64, age time.Duration, err error)
}

// Config is what a Source needs.
type Config struct {
	Routes     collectors.Routes
	Prometheus Prometheus
	// Ingresses and RouteGroups say which of the kinds are served.
	Ingresses, RouteGroups bool
	// BackendsAnnotations name the annotations of Ingresses that hold the weights of backends in percent: {"web-v1": 80}.
	BackendsAnnotations []string
	// RouteGroupWeightSum divides the weight of a RouteGroup's backend by the sum of the weights, as skipper does; otherwise by
	// 100, as kube-metrics-adapter does.
	RouteGroupWeightSum bool
}

// Source serves Object metrics on Ingresses and RouteGroups.
type Source struct{ Config }

// New returns a Source.
func New(c Config) *Source { return &Source{c} }

// Register makes the source the one for metrics on the kinds that it serves, where an HPA names no other.
func (s *Source) Register(r *collectors.Registry) {
	r.Register(sample.Object, s, Name)
	for kind, served := range map[schema.GroupKind]bool{ingressKind: s.Ingresses, routeGroupKind: s.RouteGroups} {
		if served {
			r.RegisterObjectKind(kind, Name)
		}
	}
}

// Keys implements collectors.Source.
func (*Source) Keys() []string { return []string{keyBackend} }

// Parse implements collectors.Source.
func (s *Source) Parse(r collectors.Request) (sample.Query, error) {
	switch kind := (schema.GroupKind{Group: r.Object.Group, Kind: r.Object.Kind}); {
	case kind == ingressKind && !s.Ingresses:
		return sample.Query{}, errors.New("the operator has not switched on metrics of Ingresses (--skipper-ingress-metrics)")
	case kind == routeGroupKind && !s.RouteGroups:
		return sample.Query{}, errors.New("the operator has not switched on metrics of RouteGroups (--skipper-routegroup-metrics)")
	case kind != ingressKind && kind != routeGroupKind:
		return sample.Query{}, fmt.Errorf("described object %s is neither an Ingress of group %s nor a RouteGroup of group %s", r.Object, ingressKind.Group, routeGroupKind.Group)
	}
	if !strings.HasPrefix(r.Metric, Metric) {
		return sample.Query{}, fmt.Errorf("collector %q serves metrics whose name begins with %q only; to ask another, name it in an annotation", Name, Metric)
	}
	backend, set := r.Settings[keyBackend]
	if !set {
		_, backend, _ = strings.Cut(r.Metric, ",")
	}
	settings := sample.Settings{}
	if backend != "" {
		settings[keyBackend] = backend
	}
	q := r.Query(Name, settings)
	// The HPA compares a Value with the whole and an AverageValue with the part of each replica. For a whole,
	// kube-metrics-adapter serves that part all the same, and manifests count on it.
	if r.TargetType != autoscalingv2.AverageValueMetricType {
		q.PerReplica, q.Target = true, r.Target
	}
	return q, nil
}

// Open implements collectors.Source.
func (s *Source) Open(q sample.Query) (collectors.Collector, error) {
	settings, err := sample.DecodeSettings(q.Settings)
	if err != nil {
		return nil, err
	}
	c := &collector{source: s, query: q, backend: settings[keyBackend]}
	switch q.Object.Kind {
	case ingressKind.Kind:
		c.read = c.ingress
	case routeGroupKind.Kind:
		c.read = c.routeGroup
	default:
		return nil, fmt.Errorf("described object %s is neither an Ingress nor a RouteGroup", q.Object)
	}
	return c, nil
}

type collector struct {
	source  *Source
	query   sample.Query
	backend string
	read    func() (hosts []string, weight float64, err error)
}

func (c *collector) ingress() (hosts []string, weight float64, err error) {
	ingress, err := c.source.Routes.Ingress(c.query.Namespace, c.query.Object.Name)
	if err != nil {
		return nil, 0, err
	}
	for _, rule := range ingress.Spec.Rules {
		if rule.Host != "" {
			hosts = append(hosts, rule.Host)
		}
	}
	weight, err = ingressWeight(ingress, c.backend, c.source.BackendsAnnotations)
	return hosts, weight, c.mistake(err)
}

func (c *collector) routeGroup() (hosts []string, weight float64, err error) {
	group, err := c.source.Routes.RouteGroup(c.query.Namespace, c.query.Object.Name)
	if err != nil {
		return nil, 0, err
	}
	weight, err = routeGroupWeight(&group.Spec, c.backend, c.source.RouteGroupWeightSum)
	return group.Spec.Hosts, weight, c.mistake(err)
}

// mistake says in which object one is.
func (c *collector) mistake(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %s/%s: %w", c.query.Object.Kind, c.query.Namespace, c.query.Object.Name, err)
}

// Collect implements collectors.Collector.
func (c *collector) Collect(ctx context.Context) ([]sample.Point, error) {
	hosts, weight, err := c.read()
	if err != nil {
		return nil, err
	}
	promql, err := traffic.RateQuery(traffic.SkipperMetric, traffic.SkipperHostLabel, hosts, weight)
	if err != nil {
		return nil, c.mistake(err)
	}
	if weight == 0 {
		// Whatever the hosts get, this backend gets nothing of it; hosts without any request yet would be no data.
		return []sample.Point{{Window: window}}, nil
	}
	value, age, err := c.source.Prometheus.Instant(ctx, c.query.Namespace, promql)
	if err != nil {
		return nil, err
	}
	milli, err := sample.Milli(value)
	if err != nil {
		return nil, err
	}
	return []sample.Point{{Milli: milli, Window: window, Age: age}}, nil
}
