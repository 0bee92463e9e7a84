// Package collectors holds the contract between the adapter and its sources. Each source is a package below this one: it
// turns an asker's settings into a sample.Query, and a Query into a Collector. Sources get what they may touch (pods,
// scales, an HTTP client, ...) through the interfaces here; they know neither the store nor the metrics APIs.
package collectors

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"strings"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	zalandov1 "github.com/kubetide/kubetide/api/zalando/v1"
	"github.com/kubetide/kubetide/internal/sample"
)

// Request is one metric as an HPA or an IHPA asks for it.
type Request struct {
	Kind      sample.Kind
	Namespace string
	Metric    string
	// Selector is the metric's label selector; nil where there is none.
	Selector labels.Selector
	Object   sample.ObjectRef
	Target   sample.ObjectRef
	// TargetType is Value, AverageValue or Utilization. Some sources divide by the replicas unless it is AverageValue.
	TargetType autoscalingv2.MetricTargetType
	// Settings are the annotation's keys without their prefix. For External and Object metrics the selector's matchLabels
	// are among them; an annotation wins over a label.
	Settings sample.Settings
	// Interval is always set; it is not among Settings.
	Interval time.Duration
}

// Query returns a query with everything of the request that does not depend on the source. Target is left out.
func (r Request) Query(collector string, settings sample.Settings) sample.Query {
	q := sample.Query{
		Kind: r.Kind, Namespace: r.Namespace, Metric: r.Metric, Object: r.Object,
		Collector: collector, Settings: settings.Encode(), Interval: r.Interval,
	}
	if r.Selector != nil {
		q.Selector = r.Selector.String()
	}
	return q
}

// Source is a kind of thing that can be asked.
type Source interface {
	// Keys are the settings that the source understands. One that ends in "*" stands for all keys with that prefix.
	Keys() []string
	// Parse checks the request and returns its canonical query: defaults filled in, what does not matter left out. It does
	// no I/O. Errors are KeyErrors where a setting is at fault.
	Parse(r Request) (sample.Query, error)
	// Open returns the collector of a query that Parse returned, here or on another node. It does no I/O.
	Open(q sample.Query) (Collector, error)
}

// FreeKeys is a Source some of whose keys are chosen by the asker: another setting names them, as kube-metrics-adapter's
// `query-name` does.
type FreeKeys interface {
	// FreeKeys returns the keys that these settings name.
	FreeKeys(settings sample.Settings) []string
}

// AnnotationKeys is a Source some of whose keys kube-metrics-adapter does not have. They are read from annotations only: who
// tells metrics apart by a label of such a name means nothing else by it.
type AnnotationKeys interface {
	AnnotationKeys() []string
}

// Collector asks one source one question.
type Collector interface {
	// Collect returns one point for Object and External, and one for each pod that answered for Pods and Resource. Where
	// some pods failed it returns both the other pods' points and the error. An error that is a *Warning leaves the points
	// as they are. It obeys ctx, which has a deadline.
	Collect(ctx context.Context) ([]sample.Point, error)
}

// Timed is a Collector that knows when its value will change, so that it can be collected just then and not only on the
// interval.
type Timed interface {
	// NextChange is the next instant after now at which the value may differ; zero if there is none.
	NextChange(now time.Time) time.Time
}

// Outlined is an error of Collect whose text has parts that change while its cause does not. People are told of a cause
// once, by its outline; without one, the text with its numbers left out stands for it.
type Outlined interface {
	error
	Outline() string
}

// Warning is an error of Collect beside points that are served all the same, because they follow a documented rule that the
// asker may not have meant. People are told of it once.
type Warning struct{ Err error }

func (w *Warning) Error() string { return w.Err.Error() }
func (w *Warning) Unwrap() error { return w.Err }

// IsWarning says whether the points beside the error are complete.
func IsWarning(err error) bool {
	w := (*Warning)(nil)
	return errors.As(err, &w)
}

// KeyError says which setting is at fault.
type KeyError struct {
	Key string
	Err error
}

func (e *KeyError) Error() string { return fmt.Sprintf("key %q: %v", e.Key, e.Err) }
func (e *KeyError) Unwrap() error { return e.Err }

// BadKey is a KeyError with a formatted cause.
func BadKey(key, format string, args ...any) error {
	return &KeyError{Key: key, Err: fmt.Errorf(format, args...)}
}

// Pods lists pods from memory.
type Pods interface {
	// Pods returns the pods of the namespace that the selector matches. They are shared and must not be changed.
	Pods(namespace string, selector labels.Selector) ([]*corev1.Pod, error)
}

// Scale is what a target's /scale says.
type Scale struct {
	Selector       labels.Selector
	SpecReplicas   int32
	StatusReplicas int32
}

// Scales reads the /scale of any workload that has one.
type Scales interface {
	// Scale may answer from a short-lived cache. An unknown kind, a missing object and an empty selector are errors.
	Scale(ctx context.Context, namespace string, target sample.ObjectRef) (Scale, error)
}

// Secret is what a tenant put aside for Kubetide: credentials, and the only host that they may be sent to.
type Secret struct {
	// Host is the value of the Secret's annotation kubetide.io/host, a host or host:port.
	Host string
	Data map[string][]byte
}

// Secrets reads tenants' Secrets.
type Secrets interface {
	// Secret may answer from a cache of at most half a minute. A Secret without the annotation kubetide.io/host, a missing
	// one, and one that Kubetide has no right to read are errors that say what to do.
	Secret(ctx context.Context, namespace, name string) (Secret, error)
}

// Routes reads Ingresses and RouteGroups from memory. They are shared and must not be changed. An object that does not
// exist, and a kind that the cluster does not have, are errors.
type Routes interface {
	Ingress(namespace, name string) (*networkingv1.Ingress, error)
	RouteGroup(namespace, name string) (*zalandov1.RouteGroup, error)
}

// Registry knows which source serves which request. It is filled once at start and only read afterwards.
type Registry struct {
	named map[sample.Kind]map[string]Source
	kinds map[schema.GroupKind]string
}

// NewRegistry returns an empty registry.
func NewRegistry() *Registry {
	return &Registry{named: map[sample.Kind]map[string]Source{}, kinds: map[schema.GroupKind]string{}}
}

// Register makes the source available to metrics of the kind under each of the names: the collector part of an
// annotation key for Pods and Object, the `type` label (or, as kube-metrics-adapter still allows, the metric name) for
// External. The first name is the one that queries carry.
func (r *Registry) Register(kind sample.Kind, source Source, names ...string) {
	if r.named[kind] == nil {
		r.named[kind] = map[string]Source{}
	}
	for _, name := range names {
		if _, taken := r.named[kind][name]; taken {
			panic(fmt.Sprintf("collector %q is registered twice for %s metrics", name, kind))
		}
		r.named[kind][name] = source
	}
}

// RegisterObjectKind makes a registered Object source the one for objects of the kind where an HPA names no collector.
func (r *Registry) RegisterObjectKind(kind schema.GroupKind, name string) { r.kinds[kind] = name }

// Named returns the source registered under the name.
func (r *Registry) Named(kind sample.Kind, name string) (Source, error) {
	if s, ok := r.named[kind][name]; ok {
		return s, nil
	}
	return nil, &UnknownCollectorError{Kind: kind, Name: name, Known: r.Names(kind)}
}

// ForObjectKind returns the name of the source that objects of the kind have where none is named.
func (r *Registry) ForObjectKind(kind schema.GroupKind) (string, bool) {
	name, ok := r.kinds[kind]
	return name, ok
}

// Names lists the names registered for metrics of the kind, sorted.
func (r *Registry) Names(kind sample.Kind) []string {
	names := make([]string, 0, len(r.named[kind]))
	for name := range r.named[kind] {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// UnknownCollectorError reports a metric that no source is registered for: another adapter's, or a mistake.
type UnknownCollectorError struct {
	Kind  sample.Kind
	Name  string
	Known []string
}

func (e *UnknownCollectorError) Error() string {
	if e.Name == "" {
		return fmt.Sprintf("no collector is named for this %s metric; known: %s", e.Kind, strings.Join(e.Known, ", "))
	}
	return fmt.Sprintf("no collector %q for %s metrics; known: %s", e.Name, e.Kind, strings.Join(e.Known, ", "))
}
