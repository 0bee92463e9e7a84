package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	zalando "github.com/kubetide/kubetide/api/zalando/v1"
	"github.com/kubetide/kubetide/internal/traffic"
	"github.com/kubetide/kubetide/workloads/stackset/generate"
	"github.com/kubetide/kubetide/workloads/stackset/segment"
)

// RouteGroups in place of Ingresses: each Stack has one for a host name of its own and one for its segment, and each of the real requests
// finds a backend while the traffic moves.
func TestTrafficMovesByRouteGroups(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	host := ns + "." + clusterDomain
	s := stacks{t, ns, host, "", fmt.Sprintf("stackLifecycle: {limit: 5}\n  routegroup: {hosts: [%s], backendPort: 80, routes: [{pathSubtree: /}, {path: /health, filters: ['status(200)']}]}", host)}
	counts := map[string]*atomic.Int64{}
	for _, version := range []string{"v1", "v2"} {
		n := &atomic.Int64{}
		counts["shop-"+version] = n
		s.apply(version, answering(t, func(http.ResponseWriter, *http.Request, string) { n.Add(1) }), "replicas: 2")
	}
	eventually(t, 30*time.Second, s.has(map[string]int{"shop-v1": 100}))
	got := map[string]zalando.RouteGroupSpec{}
	var groups zalando.RouteGroupList
	must(t, api.List(t.Context(), &groups, client.InNamespace(ns)))
	for _, g := range groups.Items {
		got[g.Name] = g.Spec
	}
	want := map[string]zalando.RouteGroupSpec{}
	for stack, predicates := range map[string][]string{"shop-v1": {traffic.All.String()}, "shop-v2": {traffic.Segment{}.String()}} {
		group := func(host string, predicates []string) zalando.RouteGroupSpec {
			return zalando.RouteGroupSpec{Hosts: []string{host},
				Backends:        []zalando.RouteGroupBackend{{Name: stack, Type: zalando.ServiceBackend, ServiceName: stack, ServicePort: 80}},
				DefaultBackends: []zalando.RouteGroupBackendReference{{BackendName: stack, Weight: 100}},
				Routes:          []zalando.RouteGroupRoute{{PathSubtree: "/", Predicates: predicates}, {Path: "/health", Filters: []string{"status(200)"}, Predicates: predicates}}}
		}
		want[stack], want[stack+generate.SegmentSuffix] = group(stack+"."+clusterDomain, nil), group(host, predicates)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("RouteGroups (-want +got):\n%s", diff)
	}
	var ingresses networkingv1.IngressList
	if must(t, api.List(t.Context(), &ingresses, client.InNamespace(ns))); len(ingresses.Items) > 0 {
		t.Errorf("there are Ingresses: %v", ingresses.Items)
	}

	own := request(t, router, "shop-v2."+clusterDomain, 50, counts)
	own.stop()
	own.done.Wait()
	if counts["shop-v2"].Load() == 0 {
		t.Error("its own host name does not lead to shop-v2")
	}
	changes := watching(t, ns, &zalando.RouteGroupList{})
	l := request(t, router, host, 200, counts)
	for _, v2 := range []int{10, 60, 100} {
		weights := map[string]int{"shop-v1": 100 - v2, "shop-v2": v2}
		s.ask(weights)
		eventually(t, 30*time.Second, s.has(weights))
		l.more(t, 300)
	}
	eventually(t, 30*time.Second, func() error {
		last := counts["shop-v1"].Load()
		l.more(t, 100)
		if n := counts["shop-v1"].Load() - last; n > 0 {
			return fmt.Errorf("the router has not read the last routes: shop-v1 had %d of 100 requests", n)
		}
		return nil
	})
	before := counts["shop-v1"].Load()
	l.more(t, 300)
	l.stop()
	l.done.Wait()
	if len(l.mistakes) > 0 || counts["shop-v1"].Load() != before {
		t.Errorf("%d of %d requests were not answered, and %d by the one without traffic; %s", len(l.mistakes), l.sent.Load(), counts["shop-v1"].Load()-before, strings.Join(l.mistakes, "; "))
	}
	complete, written := false, 0
	changes.segments(t, func(_ uint64, live segment.Live) {
		if written++; complete && !segment.Complete(live) {
			t.Errorf("a hole: %v", live)
		}
		complete = complete || segment.Complete(live)
	})
	if !complete || written < 6 {
		t.Errorf("%d changes of segments were seen", written)
	}
}

// The StackSet has moved to another cluster: what is new has no pods here, and the routers are told to pass its requests on. skipper's CRD of
// RouteGroups does not know such a backend: the traffic stays where it is then, and why is said.
func TestANewStackRunsInAnotherCluster(t *testing.T) {
	t.Parallel()
	const autoscaler = "autoscaler: {minReplicas: 1, maxReplicas: 2, metrics: [{type: CPU, averageUtilization: 80}]}"
	moving := func(t *testing.T, way string) stacks {
		t.Helper()
		ns := newNamespace(t)
		s := stacks{t, ns, ns + ".example", "", "stackLifecycle: {limit: 5}" + strings.ReplaceAll(way, "HOST", ns+".example")}
		s.apply("v1", 8080, autoscaler)
		s.metadata = ", annotations: {zalando.org/forward-backend: ''}"
		s.apply("v2", 8080, autoscaler)
		eventually(t, 30*time.Second, s.has(map[string]int{"shop-v1": 100}))
		s.ask(map[string]int{"shop-v1": 50, "shop-v2": 50})
		return s
	}
	t.Run("Ingresses", func(t *testing.T) {
		t.Parallel()
		s := moving(t, "")
		eventually(t, 30*time.Second, s.has(map[string]int{"shop-v1": 50, "shop-v2": 50}))
		for version, forwarded := range map[string]bool{"v1": false, "v2": true} {
			stack, ingress := &zalando.Stack{}, &networkingv1.Ingress{}
			must(t, api.Get(t.Context(), client.ObjectKey{Namespace: s.ns, Name: "shop-" + version}, stack))
			must(t, api.Get(t.Context(), client.ObjectKey{Namespace: s.ns, Name: "shop-" + version + generate.SegmentSuffix}, ingress))
			if got := stack.Annotations["zalando.org/forward-backend"] == "fwd"; got != forwarded {
				t.Errorf("annotations of Stack %s: %v", version, stack.Annotations)
			}
			if got := ingress.Annotations["zalando.org/skipper-backend"] == "forward"; got != forwarded {
				t.Errorf("annotations of the segment of %s: %v", version, ingress.Annotations)
			}
			for _, o := range []client.Object{&appsv1.Deployment{}, &autoscalingv2.HorizontalPodAutoscaler{}} {
				if got := api.Get(t.Context(), client.ObjectKeyFromObject(stack), o) != nil; got != forwarded {
					t.Errorf("%T of %s: %v", o, version, o)
				}
			}
			must(t, api.Get(t.Context(), client.ObjectKeyFromObject(stack), &corev1.Service{}))
		}
	})
	t.Run("RouteGroups", func(t *testing.T) {
		t.Parallel()
		s := moving(t, "\n  routegroup: {hosts: [HOST], backendPort: 80, routes: [{pathSubtree: /}]}")
		const says = `spec.backends[0].type: Unsupported value: "forward"`
		eventually(t, 20*time.Second, wantEvent(t, s.ns, "Stack", "shop-v2", "FailedManageRouteGroupSegment", says))
		eventually(t, 20*time.Second, func() error {
			set := s.get()
			c := apimeta.FindStatusCondition(set.Status.Conditions, "TrafficSwitched")
			if c == nil || c.Reason != "FailedManageSegments" || !strings.Contains(c.Message, says) {
				return fmt.Errorf("%+v", set.Status.Conditions)
			}
			return nil
		})
		group := &zalando.RouteGroup{}
		must(t, api.Get(t.Context(), client.ObjectKey{Namespace: s.ns, Name: "shop-v1" + generate.SegmentSuffix}, group))
		if got, _, err := generate.LiveRouteGroup(group); err != nil || got != traffic.All {
			t.Errorf("the one that serves has %v, %v", got, err)
		}
	})
}
