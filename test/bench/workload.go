package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"

	"github.com/kubetide/kubetide/test/lab"
)

const (
	namespaces  = 100
	apps        = 10
	podsPerApp  = 10
	appsSpace   = "bench-apps"
	metricName  = "queue"
	maxInFlight = 32 // requests to the API server while the objects are made
	poll        = 100 * time.Millisecond
)

// workload is what the load is made of.
type workload struct {
	options
	cluster *lab.Lab
	source  *source
	client  kubernetes.Interface
	made    int // HPAs
}

func namespaceOf(i int) string { return fmt.Sprintf("bench-%d", i%namespaces) }
func nameOf(i int) string      { return fmt.Sprintf("hpa-%d", i) }

// hpa is the i-th HPA with an External metric of its own. tag becomes part of its URL.
func (w *workload) hpa(i int, tag string) *autoscalingv2.HorizontalPodAutoscaler {
	const prefix = "metric-config.external." + metricName + ".json-path/"
	return &autoscalingv2.HorizontalPodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespaceOf(i), Name: nameOf(i), Annotations: map[string]string{
			prefix + "endpoint": fmt.Sprintf("http://%s:%s/?i=%d&tag=%s", sourceHost, sourcePort, i, tag),
			prefix + "json-key": "$.now", prefix + "interval": w.interval.String(),
		}},
		Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: nameOf(i)},
			MinReplicas:    ptr.To[int32](1), MaxReplicas: 10,
			Metrics: []autoscalingv2.MetricSpec{{Type: autoscalingv2.ExternalMetricSourceType, External: &autoscalingv2.ExternalMetricSource{
				Metric: autoscalingv2.MetricIdentifier{Name: metricName, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"type": "json-path", "hpa": nameOf(i)}}},
				Target: autoscalingv2.MetricTarget{Type: autoscalingv2.AverageValueMetricType, AverageValue: resource.NewQuantity(10, resource.DecimalSI)},
			}}},
		},
	}
}

// create makes all objects but the HPAs with External metrics.
func (w *workload) create(ctx context.Context) error {
	say("creating %d namespaces and %d pods", namespaces, apps*podsPerApp)
	if err := w.createNamespaces(ctx, appsSpace); err != nil {
		return err
	}
	for i := range apps {
		if err := w.cluster.Apply(ctx, app(i, w.interval)); err != nil {
			return err
		}
	}
	return nil
}

// createNamespaces makes those of the HPAs, and more.
func (w *workload) createNamespaces(ctx context.Context, more ...string) error {
	for i := range namespaces {
		more = append(more, namespaceOf(i))
	}
	for _, name := range more {
		if _, err := w.client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
			return err
		}
	}
	return nil
}

// grow makes HPAs until there are so many.
func (w *workload) grow(ctx context.Context, hpas int) error {
	began := time.Now()
	say("creating %d HPAs, to have %d", hpas-w.made, hpas)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(maxInFlight)
	for ; w.made < hpas; w.made++ {
		i := w.made
		group.Go(func() error {
			hpa := w.hpa(i, "0")
			_, err := w.client.AutoscalingV2().HorizontalPodAutoscalers(hpa.Namespace).Create(ctx, hpa, metav1.CreateOptions{})
			return err
		})
		if i%2000 == 1999 {
			say("%d HPAs after %s", i+1, time.Since(began).Round(time.Second))
		}
	}
	return group.Wait()
}

func app(i int, interval time.Duration) string {
	return fmt.Sprintf(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: app-%[1]d, namespace: %[2]s}
spec:
  replicas: %[3]d
  selector: {matchLabels: {app: app-%[1]d}}
  template:
    metadata: {labels: {app: app-%[1]d}}
    spec: {containers: [{name: main, image: simulated}]}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: app-%[1]d
  namespace: %[2]s
  annotations:
    metric-config.pods.busy.json-path/json-key: "$.now"
    metric-config.pods.busy.json-path/port: "%[4]s"
    metric-config.pods.busy.json-path/interval: %[5]s
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: app-%[1]d}
  minReplicas: 1
  maxReplicas: 20
  metrics:
    - type: Pods
      pods: {metric: {name: busy}, target: {type: AverageValue, averageValue: "10"}}
`, i, appsSpace, podsPerApp, sourcePort, interval)
}

// awaitValues waits until the reader's server has a value of each External metric that is looked at.
func (w *workload) awaitValues(ctx context.Context, reads *reader) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	for i := 0; i < w.made; {
		if _, err := reads.external(ctx, i); err != nil {
			if pause(ctx, poll) != nil {
				return fmt.Errorf("not all metrics have a value: %w", err)
			}
			continue
		}
		i += 97
	}
	return nil
}

// warm waits until all metrics have a value.
func (w *workload) warm(ctx context.Context, reads *reader) error {
	if err := w.awaitValues(ctx, reads); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	for i := 0; i < apps; {
		if values, err := reads.pods(ctx, i); err != nil || len(values) != podsPerApp {
			if pause(ctx, poll) != nil {
				return fmt.Errorf("app-%d has %d values: %w", i, len(values), err)
			}
			continue
		}
		i++
	}
	return nil
}

// ages reads values at random until ctx ends, of the readers in turn, and returns how old they were.
func (w *workload) ages(ctx context.Context, reads ...*reader) (ages []time.Duration, failed int) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			slices.Sort(ages)
			return ages, failed
		case <-tick.C:
			milli, err := reads[n%len(reads)].external(ctx, rand.IntN(w.hpas))
			if err != nil {
				if ctx.Err() == nil {
					failed++
				}
				continue
			}
			ages = append(ages, time.Since(time.UnixMilli(milli)))
		}
	}
}

// collection is the load of HPAs that do not change.
func (w *workload) collection(ctx context.Context, r *report, reads *reader) error {
	say("collecting for %s", w.duration)
	return w.observe(ctx, r, reads, "collection", fmt.Sprintf("Collection: %d HPAs with a query each every %s, from a source that takes %s", w.hpas, w.interval, w.latency), nil)
}

// churn is the same load while HPAs change.
func (w *workload) churn(ctx context.Context, r *report, reads *reader) error {
	say("changing %d HPAs a second for %s", w.changes, w.duration)
	var mu sync.Mutex
	var took []time.Duration
	lost := 0
	return w.observe(ctx, r, reads, "churn", fmt.Sprintf("The same, with %d HPAs changed each second", w.changes), func(ctx context.Context) ([]row, error) {
		var group errgroup.Group
		tick := time.NewTicker(time.Second / time.Duration(w.changes))
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-ctx.Done():
				err := group.Wait()
				slices.Sort(took)
				return []row{
					{"HPAs changed", fmt.Sprintf("%.1f a second", float64(len(took)+lost)/w.duration.Seconds()), fmt.Sprintf("%d a second", w.changes)},
					{"from the change to the first request with the new settings", percentiles(took)},
					{"changes not seen within 10 s", fmt.Sprint(lost), "0"},
				}, err
			case <-tick.C:
				group.Go(func() error {
					seen, elapsed, err := w.change(context.WithoutCancel(ctx), (n*7919)%w.hpas, fmt.Sprintf("c%d", n))
					mu.Lock()
					defer mu.Unlock()
					if seen {
						took = append(took, elapsed)
					} else {
						lost++
					}
					return err
				})
			}
		}
	})
}

// change patches one HPA's settings and waits for the first request that has them.
func (w *workload) change(ctx context.Context, i int, tag string) (seen bool, took time.Duration, err error) {
	arrived := w.source.await(tag)
	hpa := w.hpa(i, tag)
	const key = "metric-config.external." + metricName + ".json-path/endpoint"
	patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}}}`, key, hpa.Annotations[key])
	began := time.Now()
	if _, err := w.client.AutoscalingV2().HorizontalPodAutoscalers(hpa.Namespace).Patch(ctx, hpa.Name, types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		return false, 0, err
	}
	select {
	case <-arrived:
		return true, time.Since(began), nil
	case <-time.After(10 * time.Second):
		return false, 0, nil
	}
}

// observe runs the load beside the reading of ages, and reports both with what the processes took.
func (w *workload) observe(ctx context.Context, r *report, reads *reader, name, title string, load func(context.Context) ([]row, error)) error {
	use, err := w.measure(ctx, name)
	if err != nil {
		return err
	}
	requests := w.source.requests.Load()
	running, cancel := context.WithTimeout(ctx, w.duration)
	defer cancel()
	var more []row
	var group errgroup.Group
	if load != nil {
		group.Go(func() (err error) { more, err = load(running); return err })
	}
	ages, failed := w.ages(running, reads)
	asked := w.source.requests.Load() - requests
	rows, _, err := use.rows(ctx)
	if err != nil {
		return err
	}
	if err := group.Wait(); err != nil {
		return err
	}
	expected := float64(w.hpas+apps*podsPerApp) / w.interval.Seconds()
	r.table(title, slices.Concat([]row{
		{"requests to the source", fmt.Sprintf("%.0f a second", float64(asked)/w.duration.Seconds()), fmt.Sprintf("%.0f a second", expected)},
		{"age of a value when it is read", percentiles(ages), fmt.Sprintf("p99 ≤ %s", w.interval+time.Second)},
		{"values read, of which missing", fmt.Sprintf("%d, %d", len(ages)+failed, failed), "0 missing"},
	}, more, rows)...)
	return ctx.Err()
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
