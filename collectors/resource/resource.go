// Package resource collects the cpu and memory that a workload's pods use, from metrics.k8s.io (metrics-server), for the
// engine. It reads pods from memory and asks the API server only for PodMetrics, one list for all that is wanted of a
// workload. What a pod may use at most, and what utilization means, is not its business.
package resource

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
	metricsclient "k8s.io/metrics/pkg/client/clientset/versioned/typed/metrics/v1beta1"
	"k8s.io/utils/clock"

	"github.com/kubetide/kubetide/collectors"
	"github.com/kubetide/kubetide/internal/sample"
)

// Name is the name under which the source is registered.
const Name = "resource"

// shared is how long one list answers further questions about the same pods. metrics-server has news every 15 s at most by
// default, and every point carries the age that it has for its source.
const shared = 5 * time.Second

// Source is the source of Resource metrics. The metric's name is cpu (in cores) or memory (in bytes, the working set); the
// setting `container` asks for one container instead of the pod's sum.
type Source struct {
	pods    collectors.Pods
	scales  collectors.Scales
	metrics metricsclient.PodMetricsesGetter
	clock   clock.PassiveClock

	mu     sync.Mutex // protects lists, and each list's used
	lists  map[string]*list
	pruned time.Time
}

// list is the last answer for a namespace and a selector.
type list struct {
	used time.Time

	turn  chan struct{} // holds one token while somebody reads or fills the rest
	taken time.Time
	items []metricsv1beta1.PodMetrics
}

// New returns the source.
func New(pods collectors.Pods, scales collectors.Scales, metrics metricsclient.PodMetricsesGetter, clock clock.PassiveClock) *Source {
	return &Source{pods: pods, scales: scales, metrics: metrics, clock: clock, lists: map[string]*list{}}
}

// Keys implements collectors.Source.
func (s *Source) Keys() []string { return []string{"container"} }

// Parse implements collectors.Source.
func (s *Source) Parse(r collectors.Request) (sample.Query, error) {
	if r.Kind != sample.Resource {
		return sample.Query{}, fmt.Errorf("the collector %s serves Resource metrics, not %s", Name, r.Kind)
	}
	if r.Metric != string(corev1.ResourceCPU) && r.Metric != string(corev1.ResourceMemory) {
		return sample.Query{}, fmt.Errorf("there are metrics of the resources cpu and memory, not of %.80q", r.Metric)
	}
	settings := sample.Settings{}
	if container := r.Settings["container"]; container != "" {
		if why := validation.IsDNS1123Label(container); len(why) > 0 {
			return sample.Query{}, collectors.BadKey("container", "%.80q is not a container's name: %s", container, why[0])
		}
		settings["container"] = container
	}
	q := r.Query(Name, settings)
	q.Target = r.Target
	return q, nil
}

// Open implements collectors.Source.
func (s *Source) Open(q sample.Query) (collectors.Collector, error) {
	settings, err := sample.DecodeSettings(q.Settings)
	if err != nil {
		return nil, err
	}
	return &collector{source: s, query: q, container: settings["container"]}, nil
}

type collector struct {
	source    *Source
	query     sample.Query
	container string
}

// Collect returns a point for each pod whose metrics are known. As in the HPA, pods without metrics are absent, and so are
// pods of which a container has none; finished and terminating pods do not count.
func (c *collector) Collect(ctx context.Context) ([]sample.Point, error) {
	target, now := c.query.Target, c.source.clock.Now()
	scale, err := c.source.scales.Scale(ctx, c.query.Namespace, target)
	if err != nil {
		return nil, fmt.Errorf("the pods of %s: %w", target, err)
	}
	pods, err := c.source.pods.Pods(c.query.Namespace, scale.Selector)
	if err != nil {
		return nil, fmt.Errorf("the pods of %s: %w", target, err)
	}
	living := map[string]*corev1.Pod{}
	for _, p := range pods {
		if p.DeletionTimestamp == nil && p.Status.Phase != corev1.PodFailed && p.Status.Phase != corev1.PodSucceeded {
			living[p.Name] = p
		}
	}
	if len(living) == 0 {
		return nil, sample.NoData("unable to get metrics for resource %s: %s has no pods", c.query.Metric, target)
	}
	items, err := c.source.list(ctx, c.query.Namespace, scale.Selector)
	if err != nil {
		return nil, fmt.Errorf("unable to get metrics for resource %s: %w", c.query.Metric, err)
	}
	var points []sample.Point
	for _, m := range items {
		pod := living[m.Name]
		if pod == nil || m.Timestamp.Time.Before(pod.CreationTimestamp.Time) { // a predecessor of the same name
			continue
		}
		milli, ok := usage(m, corev1.ResourceName(c.query.Metric), c.container)
		if !ok {
			continue
		}
		points = append(points, sample.Point{
			Pod: pod.Name, UID: pod.UID, Labels: labels.Set(pod.Labels), Container: c.container, Milli: milli,
			Window: m.Window.Duration, Age: max(0, now.Sub(m.Timestamp.Time)),
		})
	}
	if len(points) == 0 {
		of := "any"
		if c.container != "" {
			of = fmt.Sprintf("the container %q of any", c.container)
		}
		return nil, fmt.Errorf("unable to get metrics for resource %s: no metrics returned from resource metrics API for %s of the %d pods of %s",
			c.query.Metric, of, len(living), target)
	}
	slices.SortFunc(points, func(a, b sample.Point) int { return cmp.Compare(a.Pod, b.Pod) })
	return points, nil
}

// usage adds up what the containers use, in thousandths, rounded up for each as the HPA does; or that of one container.
func usage(m metricsv1beta1.PodMetrics, resource corev1.ResourceName, container string) (milli int64, ok bool) {
	for _, c := range m.Containers {
		if container != "" && c.Name != container {
			continue
		}
		quantity, known := c.Usage[resource]
		if !known || quantity.Sign() < 0 {
			return 0, false
		}
		milli += quantity.MilliValue()
		ok = milli >= 0 // it may overflow
		if !ok {
			return 0, false
		}
	}
	return milli, ok
}

// list returns the metrics of all pods that the selector matches. At most one request for the same pods is under way.
func (s *Source) list(ctx context.Context, namespace string, selector labels.Selector) ([]metricsv1beta1.PodMetrics, error) {
	l := s.entry(namespace + "/" + selector.String())
	select {
	case l.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-l.turn }()
	now := s.clock.Now()
	if !l.taken.IsZero() && now.Sub(l.taken) < shared {
		return l.items, nil
	}
	answer, err := s.metrics.PodMetricses(namespace).List(ctx, metav1.ListOptions{LabelSelector: selector.String()})
	if err != nil {
		return nil, err
	}
	l.taken, l.items = now, answer.Items
	return l.items, nil
}

// entry returns the list of the key, and forgets those that nobody has used for a while.
func (s *Source) entry(key string) *list {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.clock.Now()
	if now.Sub(s.pruned) >= shared {
		for k, l := range s.lists {
			if now.Sub(l.used) >= shared {
				delete(s.lists, k)
			}
		}
		s.pruned = now
	}
	l := s.lists[key]
	if l == nil {
		l = &list{turn: make(chan struct{}, 1)}
		s.lists[key] = l
	}
	l.used = now
	return l
}
