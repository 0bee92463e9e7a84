package resource

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
	metricsclient "k8s.io/metrics/pkg/client/clientset/versioned/typed/metrics/v1beta1"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/kubetide/kubetide/collectors"
	"github.com/kubetide/kubetide/internal/sample"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	now    = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	target = sample.ObjectRef{Group: "apps", Kind: "StatefulSet", Name: "db"}
)

// cluster plays the informer, /scale and metrics-server.
type cluster struct {
	metricsclient.PodMetricsInterface
	pods    []*corev1.Pod
	metrics []metricsv1beta1.PodMetrics
	err     error

	mu    sync.Mutex
	asked []string
	block chan struct{}
}

func (c *cluster) Pods(string, labels.Selector) ([]*corev1.Pod, error) { return c.pods, nil }

func (c *cluster) Scale(context.Context, string, sample.ObjectRef) (collectors.Scale, error) {
	return collectors.Scale{Selector: labels.SelectorFromSet(labels.Set{"app": "db"})}, nil
}

func (c *cluster) PodMetricses(namespace string) metricsclient.PodMetricsInterface {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked = append(c.asked, namespace)
	return c
}

func (c *cluster) List(ctx context.Context, o metav1.ListOptions) (*metricsv1beta1.PodMetricsList, error) {
	c.mu.Lock()
	c.asked[len(c.asked)-1] += "/" + o.LabelSelector
	c.mu.Unlock()
	if c.block != nil {
		select {
		case <-c.block:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return &metricsv1beta1.PodMetricsList{Items: c.metrics}, c.err
}

// pod adds a pod an hour old, with the cpu and memory of its containers app and sidecar, 20 s ago.
func (c *cluster) pod(name, cpu, memory, sidecarCPU, sidecarMemory string) (*corev1.Pod, *metricsv1beta1.PodMetrics) {
	list := func(cpu, memory string) corev1.ResourceList {
		l := corev1.ResourceList{}
		if cpu != "" {
			l[corev1.ResourceCPU] = apiresource.MustParse(cpu)
		}
		if memory != "" {
			l[corev1.ResourceMemory] = apiresource.MustParse(memory)
		}
		return l
	}
	meta := metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID("uid-" + name), Labels: map[string]string{"app": "db"},
		CreationTimestamp: metav1.NewTime(now.Add(-time.Hour))}
	c.pods = append(c.pods, &corev1.Pod{ObjectMeta: meta, Status: corev1.PodStatus{Phase: corev1.PodRunning}})
	c.metrics = append(c.metrics, metricsv1beta1.PodMetrics{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}, Timestamp: metav1.NewTime(now.Add(-20 * time.Second)),
		Window: metav1.Duration{Duration: 15 * time.Second},
		Containers: []metricsv1beta1.ContainerMetrics{
			{Name: "app", Usage: list(cpu, memory)}, {Name: "sidecar", Usage: list(sidecarCPU, sidecarMemory)}},
	})
	return c.pods[len(c.pods)-1], &c.metrics[len(c.metrics)-1]
}

func open(t *testing.T, s *Source, metric, container string) collectors.Collector {
	t.Helper()
	q, err := s.Parse(collectors.Request{Kind: sample.Resource, Namespace: "shop", Metric: metric, Target: target,
		Settings: sample.Settings{"container": container}, Interval: 15 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if q.Target != target || q.Collector != Name {
		t.Fatalf("the query is %+v", q)
	}
	c, err := s.Open(q)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestCollect(t *testing.T) {
	point := func(pod, container string, milli int64) sample.Point {
		return sample.Point{Pod: pod, UID: types.UID("uid-" + pod), Labels: labels.Set{"app": "db"}, Container: container, Milli: milli,
			Window: 15 * time.Second, Age: 20 * time.Second}
	}
	for name, c := range map[string]struct {
		metric, container string
		change            func(c *cluster)
		want              []sample.Point
		err               string
	}{
		"the cpu of all containers, in cores, rounded up for each": {metric: "cpu",
			want: []sample.Point{point("db-0", "", 251+1), point("db-1", "", 1100)}},
		"the memory of all containers, in bytes": {metric: "memory",
			want: []sample.Point{point("db-0", "", (100<<20+1000)*1000), point("db-1", "", (200<<20+1<<10)*1000)}},
		"the cpu of one container": {metric: "cpu", container: "sidecar",
			want: []sample.Point{point("db-0", "sidecar", 1), point("db-1", "sidecar", 100)}},
		"a container that no pod has": {metric: "cpu", container: "nope",
			err: `unable to get metrics for resource cpu: no metrics returned from resource metrics API for the container "nope" of any of the 2 pods of StatefulSet.apps/db`},
		"a pod without metrics is absent": {metric: "cpu", change: func(c *cluster) { c.metrics = c.metrics[:1] },
			want: []sample.Point{point("db-1", "", 1100)}},
		"a pod with a container without metrics is absent": {metric: "cpu",
			change: func(c *cluster) { delete(c.metrics[0].Containers[1].Usage, corev1.ResourceCPU) },
			want:   []sample.Point{point("db-0", "", 252)}},
		"a pod without containers is absent": {metric: "cpu", change: func(c *cluster) { c.metrics[0].Containers = nil },
			want: []sample.Point{point("db-0", "", 252)}},
		"a negative usage is none": {metric: "cpu",
			change: func(c *cluster) { c.metrics[0].Containers[0].Usage[corev1.ResourceCPU] = apiresource.MustParse("-1") },
			want:   []sample.Point{point("db-0", "", 252)}},
		"metrics of a pod that is gone": {metric: "cpu", change: func(c *cluster) { c.pods = c.pods[1:] },
			want: []sample.Point{point("db-0", "", 252)}},
		"metrics of a predecessor of the same name": {metric: "cpu",
			change: func(c *cluster) { c.pods[0].CreationTimestamp = metav1.NewTime(now.Add(-10 * time.Second)) },
			want:   []sample.Point{point("db-0", "", 252)}},
		"a terminating pod": {metric: "cpu", change: func(c *cluster) { c.pods[0].DeletionTimestamp = &metav1.Time{Time: now} },
			want: []sample.Point{point("db-0", "", 252)}},
		"a failed pod": {metric: "cpu", change: func(c *cluster) { c.pods[0].Status.Phase = corev1.PodFailed },
			want: []sample.Point{point("db-0", "", 252)}},
		"no metrics at all": {metric: "memory", change: func(c *cluster) { c.metrics = nil },
			err: "unable to get metrics for resource memory: no metrics returned from resource metrics API for any of the 2 pods of StatefulSet.apps/db"},
		"no pods": {metric: "cpu", change: func(c *cluster) { c.pods = nil },
			err: "unable to get metrics for resource cpu: StatefulSet.apps/db has no pods"},
		"an error of the API": {metric: "cpu", change: func(c *cluster) { c.err = errors.New("the server is currently unable to handle the request") },
			err: "unable to get metrics for resource cpu: the server is currently unable to handle the request"},
	} {
		t.Run(name, func(t *testing.T) {
			cluster := &cluster{}
			cluster.pod("db-1", "1", "200Mi", "100m", "1Ki")
			cluster.pod("db-0", "250000001n", "100Mi", "1n", "1k")
			if c.change != nil {
				c.change(cluster)
			}
			s := New(cluster, cluster, cluster, clocktesting.NewFakePassiveClock(now))
			got, err := open(t, s, c.metric, c.container).Collect(context.Background())
			if c.err != "" {
				if err == nil || err.Error() != c.err {
					t.Errorf("got %v, want %q", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestATimeAheadOfOursIsNoAge(t *testing.T) {
	c := &cluster{}
	_, m := c.pod("db-0", "1", "1", "1", "1")
	m.Timestamp = metav1.NewTime(now.Add(time.Minute))
	got, err := open(t, New(c, c, c, clocktesting.NewFakePassiveClock(now)), "cpu", "").Collect(context.Background())
	if err != nil || got[0].Age != 0 {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestOneListAnswersAllQuestionsOfAWorkload(t *testing.T) {
	c := &cluster{block: make(chan struct{})}
	c.pod("db-0", "1", "1Mi", "1", "1Mi")
	clock := clocktesting.NewFakePassiveClock(now)
	s := New(c, c, c, clock)
	var all sync.WaitGroup
	collect := func(metric, container string) {
		collector := open(t, s, metric, container)
		all.Go(func() {
			if _, err := collector.Collect(context.Background()); err != nil {
				t.Error(err)
			}
		})
	}
	collect("cpu", "")
	collect("memory", "")
	collect("cpu", "app")
	close(c.block)
	all.Wait()
	want := []string{"shop/app=db"}
	if diff := cmp.Diff(want, c.asked); diff != "" {
		t.Error(diff)
	}
	clock.SetTime(now.Add(shared)) // then it is asked again, and what nobody used is forgotten
	s.lists["shop/old"] = &list{used: now}
	collect("cpu", "")
	all.Wait()
	if diff := cmp.Diff(append(want, want...), c.asked); diff != "" {
		t.Error(diff)
	}
	if len(s.lists) != 1 {
		t.Errorf("%d lists are kept", len(s.lists))
	}
}

func TestWaitingForAnothersListEndsWithTheContext(t *testing.T) {
	c := &cluster{block: make(chan struct{})}
	c.pod("db-0", "1", "1Mi", "1", "1Mi")
	s := New(c, c, c, clocktesting.NewFakePassiveClock(now))
	s.entry("shop/app=db").turn <- struct{}{}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := open(t, s, "cpu", "").Collect(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestParseRefuses(t *testing.T) {
	for name, r := range map[string]collectors.Request{
		"another kind":        {Kind: sample.Pods, Metric: "cpu"},
		"another resource":    {Kind: sample.Resource, Metric: "ephemeral-storage"},
		"no container's name": {Kind: sample.Resource, Metric: "cpu", Settings: sample.Settings{"container": "a/b"}},
	} {
		if q, err := (&Source{}).Parse(r); err == nil || strings.Contains(err.Error(), "%!") {
			t.Errorf("%s: %+v, %v", name, q, err)
		}
	}
	if _, err := (&Source{}).Open(sample.Query{Settings: "{"}); err == nil {
		t.Error("broken settings are opened")
	}
}
