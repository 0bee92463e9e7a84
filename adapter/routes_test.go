package adapter

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	clocktesting "k8s.io/utils/clock/testing"

	zalandov1 "github.com/kubetide/kubetide/api/zalando/v1"
	"github.com/kubetide/kubetide/collectors/skipper"
	"github.com/kubetide/kubetide/internal/sample"
)

func webIngress(predicate string) *networkingv1.Ingress {
	return &networkingv1.Ingress{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", Annotations: map[string]string{"zalando.org/skipper-predicate": predicate,
			"kubectl.kubernetes.io/last-applied-configuration": "{}"}},
		Spec: networkingv1.IngressSpec{Rules: []networkingv1.IngressRule{{Host: "a.org",
			IngressRuleValue: networkingv1.IngressRuleValue{HTTP: &networkingv1.HTTPIngressRuleValue{}}}}},
	}
}

func webRouteGroup(weight any) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "zalando.org/v1", "kind": "RouteGroup", "metadata": map[string]any{"namespace": "shop", "name": "web", "labels": map[string]any{"a": "b"}},
		"spec": map[string]any{"hosts": []any{"a.org"}, "backends": []any{map[string]any{"name": "b1", "type": "service"}},
			"defaultBackends": []any{map[string]any{"backendName": "b1", "weight": weight}}},
	}}
}

func dynamicClient(objects ...runtime.Object) *dynamicfake.FakeDynamicClient {
	return dynamicfake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), map[schema.GroupVersionResource]string{routeGroups: "RouteGroupList"}, objects...)
}

// watched returns whether the resource's first watch is there: what a fake API server is told before is lost to watchers.
func watched(client interface {
	PrependWatchReactor(resource string, reaction clienttesting.WatchReactionFunc)
}, tracker clienttesting.ObjectTracker, resource string,
) func() bool {
	var there atomic.Bool
	client.PrependWatchReactor(resource, func(action clienttesting.Action) (bool, apiwatch.Interface, error) {
		w, err := tracker.Watch(action.GetResource(), action.GetNamespace())
		there.Store(err == nil)
		return true, w, err
	})
	return there.Load
}

// watch runs the routes, and returns them and how often each kind of object was asked to be collected again.
func watch(t *testing.T, prepare func(*routes) error) (r *routes, rounds func(kind string) int64) {
	t.Helper()
	ignore := goleak.IgnoreCurrent()
	var ingresses, groups atomic.Int64
	r = newRoutes(Options{Log: logr.Discard()}.withDefaults(), func(match func(sample.Query) bool) {
		q := sample.Query{Kind: sample.Object, Namespace: "shop", Object: sample.ObjectRef{Group: "networking.k8s.io", Kind: "Ingress", Name: "web"}}
		other, external := q, q
		other.Namespace, external.Kind = "other", sample.External
		if match(other) || match(external) {
			t.Error("a query is collected that does not depend on the object")
		}
		if match(q) {
			ingresses.Add(1)
		}
		if q.Object = (sample.ObjectRef{Group: "zalando.org", Kind: "RouteGroup", Name: "web"}); match(q) {
			groups.Add(1)
		}
	})
	if err := prepare(r); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); r.run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-done
		goleak.VerifyNone(t, ignore)
	})
	return r, func(kind string) int64 {
		if kind == "Ingress" {
			return ingresses.Load()
		}
		return groups.Load()
	}
}

func TestIngressesAreReadAndTheirChangesTold(t *testing.T) {
	client := fake.NewClientset(webIngress("TrafficSegment(0, 0.5)"))
	ingresses, watching := client.NetworkingV1().Ingresses("shop"), watched(client, client.Tracker(), "ingresses")
	r, rounds := watch(t, func(r *routes) error { return r.watchIngresses(client) })
	r.wait(t.Context())
	until(t, "the watch", watching)
	got, err := r.Ingress("shop", "web")
	if err != nil {
		t.Fatal(err)
	}
	want := webIngress("TrafficSegment(0, 0.5)")
	delete(want.Annotations, "kubectl.kubernetes.io/last-applied-configuration")
	want.Spec.Rules[0].HTTP = nil
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("what is kept (-want +got):\n%s", diff)
	}
	until(t, "the new Ingress to be told", func() bool { return rounds("Ingress") == 1 })

	status := webIngress("TrafficSegment(0, 0.5)")
	status.Status.LoadBalancer.Ingress = []networkingv1.IngressLoadBalancerIngress{{Hostname: "lb"}}
	status.Labels = map[string]string{"seen": "yes"}
	for _, o := range []*networkingv1.Ingress{status, webIngress("TrafficSegment(0, 0.9)")} {
		if _, err := ingresses.Update(t.Context(), o, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "the new segment", func() bool {
		got, err := r.Ingress("shop", "web")
		return err == nil && strings.Contains(got.Annotations["zalando.org/skipper-predicate"], "0.9")
	})
	until(t, "the change to be told", func() bool { return rounds("Ingress") == 2 })

	if err := ingresses.Delete(t.Context(), "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	until(t, "the deletion to be told", func() bool { return rounds("Ingress") == 3 })
	if _, err := r.Ingress("shop", "web"); !errors.Is(err, sample.ErrNoData) {
		t.Errorf("a deleted Ingress: %v", err)
	}
	if _, err := r.RouteGroup("shop", "web"); !errors.Is(err, errNotWatched) {
		t.Errorf("a kind that is not watched: %v", err)
	}
}

func TestOnlyWhatIsReadOfAnIngressCountsAsAChange(t *testing.T) {
	before := webIngress("TrafficSegment(0, 0.5)")
	status, host := before.DeepCopy(), before.DeepCopy()
	status.ResourceVersion, status.Status.LoadBalancer.Ingress = "2", []networkingv1.IngressLoadBalancerIngress{{Hostname: "lb"}}
	host.Spec.Rules[0].Host = "b.org"
	if !sameRoute(before, status) {
		t.Error("a new status counts")
	}
	if sameRoute(before, host) || sameRoute(before, webIngress("TrafficSegment(0, 0.6)")) {
		t.Error("a new host or segment does not count")
	}
}

func TestALoopOfWritesIsToldOnceInAWhile(t *testing.T) {
	clock := clocktesting.NewFakeClock(time.Now())
	rounds := make(chan int, 100)
	r := newRoutes(Options{Log: logr.Discard(), Clock: clock}, func(match func(sample.Query) bool) {
		found := 0
		for _, name := range []string{"x", "a", "b"} {
			if match(sample.Query{Kind: sample.Object, Namespace: "shop", Object: sample.ObjectRef{Group: "networking.k8s.io", Kind: "Ingress", Name: name}}) {
				found++
			}
		}
		rounds <- found
	})
	client := fake.NewClientset()
	watching := watched(client, client.Tracker(), "ingresses")
	if err := r.watchIngresses(client); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); r.run(ctx) }()
	defer func() { cancel(); <-done }()
	until(t, "the watch", watching)
	create := func(name string) {
		o := webIngress("")
		o.Name = name
		if _, err := client.NetworkingV1().Ingresses("shop").Create(ctx, o, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		until(t, name+" to be known", func() bool { _, err := r.Ingress("shop", name); return err == nil })
	}
	create("x")
	if found := <-rounds; found != 1 {
		t.Errorf("the first round finds %d of 1", found)
	}
	until(t, "the gap", clock.HasWaiters)
	written := webIngress("") // by an ingress controller; it counts for nothing
	written.Name, written.Status.LoadBalancer.Ingress = "x", []networkingv1.IngressLoadBalancerIngress{{Hostname: "lb"}}
	if _, err := client.NetworkingV1().Ingresses("shop").UpdateStatus(ctx, written, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	create("a")
	create("b")
	until(t, "both changes to wait", func() bool { r.mu.Lock(); defer r.mu.Unlock(); return len(r.changed) == 2 })
	if len(rounds) != 0 {
		t.Error("there is a round within the gap")
	}
	clock.Step(recollectGap)
	if found := <-rounds; found != 2 {
		t.Errorf("the second round finds %d of 2", found)
	}
}

func TestRouteGroupsAreReadAlsoIfTheirCRDComesLater(t *testing.T) {
	client := dynamicClient(webRouteGroup(int64(40)))
	watching := watched(client, client.Tracker(), "routegroups")
	var installed atomic.Bool
	client.PrependReactor("list", "routegroups", func(clienttesting.Action) (bool, runtime.Object, error) {
		return !installed.Load(), nil, apierrors.NewNotFound(routeGroups.GroupResource(), "")
	})
	r, rounds := watch(t, func(r *routes) error { return r.watchRouteGroups(client) })
	r.wait(t.Context()) // does not wait for the CRD
	if _, err := r.RouteGroup("shop", "web"); !errors.Is(err, sample.ErrNoData) || !strings.Contains(err.Error(), "has no resource routegroups.zalando.org") {
		t.Errorf("without the CRD: %v", err)
	}
	installed.Store(true)
	var got *zalandov1.RouteGroup
	until(t, "the RouteGroup", func() (found bool) {
		var err error
		got, err = r.RouteGroup("shop", "web")
		return err == nil
	})
	want := &zalandov1.RouteGroup{TypeMeta: metav1.TypeMeta{APIVersion: "zalando.org/v1", Kind: "RouteGroup"}, ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"},
		Spec: zalandov1.RouteGroupSpec{Hosts: []string{"a.org"}, DefaultBackends: []zalandov1.RouteGroupBackendReference{{BackendName: "b1", Weight: 40}}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("what is kept (-want +got):\n%s", diff)
	}
	until(t, "the RouteGroup to be told", func() bool { return rounds("RouteGroup") == 1 && watching() })
	if _, err := client.Resource(routeGroups).Namespace("shop").Update(t.Context(), webRouteGroup(int64(60)), metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	until(t, "the new weight", func() bool {
		got, err := r.RouteGroup("shop", "web")
		return err == nil && got.Spec.DefaultBackends[0].Weight == 60 && rounds("RouteGroup") == 2
	})
	if _, err := r.RouteGroup("shop", "other"); !errors.Is(err, sample.ErrNoData) {
		t.Errorf("a RouteGroup that is not there: %v", err)
	}
}

func TestARouteGroupThatCannotBeReadHurtsNoOther(t *testing.T) {
	bad := webRouteGroup("a lot")
	bad.SetName("bad")
	client := dynamicClient(webRouteGroup(int64(40)), bad)
	r, _ := watch(t, func(r *routes) error { return r.watchRouteGroups(client) })
	r.wait(t.Context())
	if _, err := r.RouteGroup("shop", "web"); err != nil {
		t.Error(err)
	}
	if _, err := r.RouteGroup("shop", "bad"); err == nil || errors.Is(err, sample.ErrNoData) || !strings.Contains(err.Error(), "RouteGroup shop/bad cannot be read") {
		t.Errorf("the bad one: %v", err)
	}
}

func TestRefusedListsAreNoMissingObjects(t *testing.T) {
	client := dynamicClient()
	client.PrependReactor("list", "routegroups", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewForbidden(routeGroups.GroupResource(), "", errors.New("no right to list"))
	})
	r, _ := watch(t, func(r *routes) error { return r.watchRouteGroups(client) })
	r.wait(t.Context())
	if _, err := r.RouteGroup("shop", "web"); !errors.Is(err, errNotListed) || !strings.Contains(err.Error(), "no right to list") {
		t.Errorf("error %v", err)
	}
}

// thousand is a Prometheus that has one answer.
type thousand struct{}

func (thousand) Instant(context.Context, string, string) (float64, time.Duration, error) {
	return 1000, 0, nil
}

func TestRequestsPerSecondAreDividedByTheReplicasUnlessAnAverageIsAskedFor(t *testing.T) {
	for name, c := range map[string]struct {
		target   autoscalingv2.MetricTargetType
		replicas int32
		want     int64
		err      string
	}{
		"a Value with 5 replicas":         {target: autoscalingv2.ValueMetricType, replicas: 5, want: 200_000},
		"a Value without replicas":        {target: autoscalingv2.ValueMetricType, replicas: 0, err: "Deployment.apps/web has no replicas to divide by"},
		"an AverageValue with 5 replicas": {target: autoscalingv2.AverageValueMetricType, replicas: 5, want: 1_000_000},
	} {
		t.Run(name, func(t *testing.T) {
			deployment, hpa := webDeployment(), webHPA()
			deployment.Status.Replicas = c.replicas
			object := autoscalingv2.CrossVersionObjectReference{APIVersion: "networking.k8s.io/v1", Kind: "Ingress", Name: "web"}
			hpa.Annotations = nil
			hpa.Spec.Metrics = []autoscalingv2.MetricSpec{{Type: autoscalingv2.ObjectMetricSourceType, Object: &autoscalingv2.ObjectMetricSource{
				DescribedObject: object, Metric: autoscalingv2.MetricIdentifier{Name: skipper.Metric}, Target: autoscalingv2.MetricTarget{Type: c.target}}}}
			client := fake.NewClientset(deployment, hpa, webIngress(""))
			o := Options{Log: logr.Discard(), Ingresses: true}.withDefaults()
			a, err := build(o, client, meta.NewDefaultRESTMapper(nil), nil)
			if err != nil {
				t.Fatal(err)
			}
			skipper.New(skipper.Config{Routes: a.Routes(), Prometheus: thousand{}, Ingresses: true}).Register(a.Registry())
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- a.Run(ctx) }()
			defer func() {
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
			}()
			until(t, "the adapter to be ready", func() bool { return a.Ready() == nil })
			q := sample.Query{Kind: sample.Object, Namespace: "shop", Metric: skipper.Metric, Collector: skipper.Name, Interval: DefaultInterval,
				Object: sample.ObjectRef{Group: "networking.k8s.io", Kind: "Ingress", Name: "web"}}
			if c.target != autoscalingv2.AverageValueMetricType {
				q.PerReplica, q.Target = true, sample.ObjectRef{Group: "apps", Kind: "Deployment", Name: "web"}
			}
			answer := a.Reader().Answer(q)
			if c.err != "" {
				if answer.State != sample.Missing || answer.Cause == nil || !strings.Contains(answer.Cause.Error(), c.err) {
					t.Errorf("%s, cause %v; want %q", answer.State, answer.Cause, c.err)
				}
				return
			}
			if answer.State != sample.Fresh || len(answer.Points) != 1 || answer.Points[0].Milli != c.want {
				t.Errorf("%s, points %v, cause %v; want %d", answer.State, answer.Points, answer.Cause, c.want)
			}
		})
	}
}
