package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	zalando "github.com/kubetide/kubetide/api/zalando/v1"
	"github.com/kubetide/kubetide/internal/traffic"
	"github.com/kubetide/kubetide/workloads/stackset/generate"
	"github.com/kubetide/kubetide/workloads/stackset/segment"
)

// stacks is the StackSet shop of a test.
type stacks struct {
	t        *testing.T
	ns, host string
	// head is what its metadata and its spec have besides traffic and template. An Ingress leads to it, if not a RouteGroup of the spec.
	metadata, spec string
}

// apply asks for a version. template are fields of its spec, in flow style.
func (s stacks) apply(version string, port int, template string) {
	s.t.Helper()
	if !strings.Contains(s.spec, "routegroup:") {
		s.spec = fmt.Sprintf("ingress: {hosts: [%q], backendPort: 80}\n  ", s.host) + s.spec
	}
	text := fmt.Sprintf(`
apiVersion: zalando.org/v1
kind: StackSet
metadata: {name: shop, labels: {application: shop}%s}
spec:
  %s
  stackTemplate:
    spec:
      version: %s
      service: {ports: [{name: http, port: 80, targetPort: %[4]d}]}
      %[5]s
      podTemplate:
        metadata: {labels: {app: shop-%[3]s}}
        spec:
          terminationGracePeriodSeconds: 1
          containers: [{name: main, image: simulated, ports: [{containerPort: %[4]d}], resources: {requests: {cpu: 100m, memory: 64Mi}}}]
`, s.metadata, s.spec, version, port, template)
	kubectl(s.t, s.ns, text, "apply", "--server-side", "--field-manager=e2e", "-f", "-")
	eventually(s.t, 60*time.Second, s.ready("shop-"+version))
}

func (s stacks) get() *zalando.StackSet {
	s.t.Helper()
	set := &zalando.StackSet{}
	must(s.t, api.Get(s.t.Context(), client.ObjectKey{Namespace: s.ns, Name: "shop"}, set))
	return set
}

func (s stacks) ready(stack string) func() error {
	return func() error {
		o := &zalando.Stack{}
		if err := api.Get(s.t.Context(), client.ObjectKey{Namespace: s.ns, Name: stack}, o); err != nil {
			return err
		}
		if !apimeta.IsStatusConditionTrue(o.Status.Conditions, "Ready") {
			return fmt.Errorf("Stack %s: %+v", stack, o.Status)
		}
		return nil
	}
}

// ask asks for weights.
func (s stacks) ask(weights map[string]int) {
	s.t.Helper()
	var list []string
	for _, stack := range slices.Sorted(maps.Keys(weights)) {
		list = append(list, fmt.Sprintf(`{"stackName":%q,"weight":%d}`, stack, weights[stack]))
	}
	set := &zalando.StackSet{ObjectMeta: metav1.ObjectMeta{Namespace: s.ns, Name: "shop"}}
	must(s.t, api.Patch(s.t.Context(), set, client.RawPatch("application/merge-patch+json", []byte(`{"spec":{"traffic":[`+strings.Join(list, ",")+`]}}`))))
}

// has checks that these weights, and no others above 0, are in force and said to be.
func (s stacks) has(weights map[string]int) func() error {
	return func() error {
		set := s.get()
		got := map[string]int{}
		for _, a := range set.Status.Traffic {
			if a.Weight > 0 {
				got[a.StackName] = int(a.Weight)
			}
		}
		want := maps.Clone(weights)
		maps.DeleteFunc(want, func(_ string, w int) bool { return w == 0 })
		switched := apimeta.FindStatusCondition(set.Status.Conditions, "TrafficSwitched")
		if !maps.Equal(got, want) || switched == nil || switched.Status != metav1.ConditionTrue || set.Status.ObservedGeneration != set.Generation {
			return fmt.Errorf("traffic %v, want %v; %+v", got, want, set.Status.Conditions)
		}
		return nil
	}
}

// watched is what a watch has shown of a kind of objects, in the order of their changes.
type watched struct {
	mu     sync.Mutex
	events []watch.Event
}

func watching(t *testing.T, ns string, list client.ObjectList) *watched {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	w, err := api.Watch(ctx, list, client.InNamespace(ns))
	must(t, err)
	t.Cleanup(cancel)
	seen := &watched{}
	go func() {
		for e := range w.ResultChan() {
			seen.mu.Lock()
			seen.events = append(seen.events, e)
			seen.mu.Unlock()
		}
	}()
	return seen
}

func (w *watched) all() []watch.Event {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.events)
}

// revision orders changes of all kinds: the API server's store counts all of them.
func revision(t *testing.T, o client.Object) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(o.GetResourceVersion(), 10, 64)
	must(t, err)
	return n
}

// segments replays the changes of segments, and calls each with what lives after each.
func (w *watched) segments(t *testing.T, each func(at uint64, live segment.Live)) {
	t.Helper()
	live := segment.Live{}
	for _, e := range w.all() {
		o, ok := e.Object.(client.Object)
		if !ok {
			continue
		}
		stack, isSegment := strings.CutSuffix(o.GetName(), generate.SegmentSuffix)
		if !isSegment {
			continue
		}
		if delete(live, stack); e.Type != watch.Deleted {
			var s traffic.Segment
			var err error
			switch o := o.(type) {
			case *networkingv1.Ingress:
				s, _, err = generate.LiveIngress(o)
			case *zalando.RouteGroup:
				s, _, err = generate.LiveRouteGroup(o)
			}
			must(t, err)
			live[stack] = s
		}
		each(revision(t, o), maps.Clone(live))
	}
}

// The documentation's example of prescaling, with real autoscalers and real Deployments.
func TestTheDocumentedPrescaling(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	s := stacks{t, ns, ns + ".example", ", annotations: {alpha.stackset-controller.zalando.org/prescale-stacks: '', alpha.stackset-controller.zalando.org/reset-hpa-min-replicas-delay: 20s}",
		"stackLifecycle: {limit: 5}"}
	const autoscaler = "autoscaler: {minReplicas: 20, maxReplicas: 40, metrics: [{type: CPU, averageUtilization: 80}]}"
	s.apply("v1", 8080, autoscaler)
	eventually(t, 60*time.Second, s.has(map[string]int{"shop-v1": 100}))
	s.apply("v2", 8080, autoscaler)
	eventually(t, 90*time.Second, func() error {
		for _, app := range []string{"shop-v1", "shop-v2"} {
			if n := len(readyPods(t, ns, app)); n != 20 {
				return fmt.Errorf("%s has %d pods", app, n)
			}
		}
		return nil
	})
	deployments, ingresses := watching(t, ns, &appsv1.DeploymentList{}), watching(t, ns, &networkingv1.IngressList{})
	least := func(want int32) func() error {
		return func() error {
			if got := *getHPA(t, ns, "shop-v2").Spec.MinReplicas; got != want {
				return fmt.Errorf("the autoscaler's minimum is %d, want %d", got, want)
			}
			return nil
		}
	}
	floors := map[float64]int32{}
	for _, step := range []struct {
		weight int
		floor  int32
	}{{1, 20}, {25, 30}, {50, 40}, {100, 40}} {
		floors[float64(step.weight)] = step.floor
		weights := map[string]int{"shop-v1": 100 - step.weight, "shop-v2": step.weight}
		s.ask(weights)
		eventually(t, 90*time.Second, s.has(weights))
		must(t, least(step.floor)())
	}
	checked := 0
	ingresses.segments(t, func(at uint64, live segment.Live) {
		if width := live["shop-v2"].Width(); width > 0 {
			ready := int32(0)
			for _, e := range deployments.all() {
				if d, ok := e.Object.(*appsv1.Deployment); ok && d.Name == "shop-v2" && revision(t, d) < at {
					ready = d.Status.ReadyReplicas
				}
			}
			want, known := floors[float64(int(width*100+0.5))]
			if !known || ready < want {
				t.Errorf("at %.0f %% it had %d pods ready, want %d", 100*width, ready, want)
			}
			checked++
		}
	})
	if checked < 4 {
		t.Errorf("only %d changes of the traffic were seen", checked)
	}
	eventually(t, 60*time.Second, least(20))
	eventually(t, 10*time.Second, func() error {
		o := &zalando.Stack{}
		must(t, api.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: "shop-v2"}, o))
		if o.Status.Prescaling.Active {
			return fmt.Errorf("%+v", o.Status.Prescaling)
		}
		return nil
	})
}

// A Stack with traffic is deleted by hand: others have it within a second. Measured, so it runs alone.
func TestAStackWithTrafficIsDeleted(t *testing.T) {
	ns := newNamespace(t)
	s := stacks{t, ns, ns + ".example", "", "stackLifecycle: {limit: 5}"}
	s.apply("v1", 8080, "replicas: 1")
	s.apply("v2", 8080, "replicas: 1")
	weights := map[string]int{"shop-v1": 40, "shop-v2": 60}
	s.ask(weights)
	eventually(t, 30*time.Second, s.has(weights))
	w, err := api.Watch(t.Context(), &networkingv1.IngressList{}, client.InNamespace(ns))
	must(t, err)
	defer w.Stop()
	deleted := time.Now()
	kubectl(t, ns, "", "delete", "stack", "shop-v2", "--wait=false")
	for deadline := time.After(10 * time.Second); ; {
		select {
		case e := <-w.ResultChan():
			o, ok := e.Object.(*networkingv1.Ingress)
			if !ok || o.Name != "shop-v1"+generate.SegmentSuffix {
				continue
			}
			if got, _, err := generate.LiveIngress(o); err != nil || got != traffic.All {
				continue
			}
		case <-deadline:
			t.Fatal("nobody has its traffic")
		}
		break
	}
	took := time.Since(deleted)
	t.Logf("its traffic was taken over %v after kubectl was called", took.Round(time.Millisecond))
	if took > time.Second {
		t.Errorf("its traffic was taken over after %v", took)
	}
	eventually(t, 30*time.Second, s.has(map[string]int{"shop-v1": 100}))
	eventually(t, 60*time.Second, func() error {
		out := kubectl(t, ns, "", "get", "deployments,services,ingresses,hpa", "-l", "stack-version=v2", "-o", "name")
		if out != "" && !strings.Contains(out, "No resources found") {
			return fmt.Errorf("there are still %s", out)
		}
		return nil
	})
	kubectl(t, ns, "", "delete", "stackset", "shop")
	eventually(t, 60*time.Second, gone(t, ns, "stacks", "deployments", "services", "ingresses", "hpa"))
}

// What upstream's controller has made is taken over when it is Kubetide's turn, and nothing but status is written.
func TestStacksOfUpstreamAreAdopted(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	const meta = "labels: {stackset: shop, application: shop, stack-version: v1}, annotations: {stackset-controller.zalando.org/stack-generation: '1'%s}, ownerReferences: [{apiVersion: zalando.org/v1, kind: %s, name: %s, uid: %s}]"
	create(t, ns, `
apiVersion: zalando.org/v1
kind: StackSet
metadata: {name: shop, labels: {application: shop}, annotations: {stackset-controller.zalando.org/controller: upstream}}
spec:
  ingress: {hosts: [%[1]s.example], backendPort: 80}
  stackLifecycle: {limit: 5}
  traffic: [{stackName: shop-v1, weight: 100}]
  stackTemplate:
    spec:
      version: v1
      replicas: 2
      autoscaler: {minReplicas: 2, maxReplicas: 4, metrics: [{type: CPU, averageUtilization: 80}]}
      podTemplate: {spec: {containers: [{name: main, image: simulated, ports: [{containerPort: 80}]}]}}
`, ns)
	s := stacks{t: t, ns: ns}
	create(t, ns, `
apiVersion: zalando.org/v1
kind: Stack
metadata: {name: shop-v1, labels: {stackset: shop, application: shop, stack-version: v1}, ownerReferences: [{apiVersion: zalando.org/v1, kind: StackSet, name: shop, uid: %[2]s}]}
spec:
  ingress: {hosts: [%[1]s.example], backendPort: 80}
  replicas: 2
  autoscaler: {minReplicas: 2, maxReplicas: 4, metrics: [{type: CPU, averageUtilization: 80}]}
  podTemplate: {spec: {containers: [{name: main, image: simulated, ports: [{containerPort: 80}]}]}}
`, ns, s.get().UID)
	stack := &zalando.Stack{}
	must(t, api.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: "shop-v1"}, stack))
	of := func(annotation string) string { return fmt.Sprintf(meta, annotation, "Stack", "shop-v1", stack.UID) }
	create(t, ns, `
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop-v1, %[2]s}
spec:
  replicas: 2
  selector: {matchLabels: {stackset: shop, stack-version: v1}}
  template:
    metadata: {labels: {stackset: shop, application: shop, stack-version: v1}}
    spec: {containers: [{name: main, image: simulated, ports: [{containerPort: 80}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: shop-v1, %[2]s}
spec: {type: ClusterIP, selector: {stackset: shop, stack-version: v1}, ports: [{name: port-0-0, protocol: TCP, port: 80, targetPort: 80}]}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: shop-v1, %[2]s}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: shop-v1}
  minReplicas: 2
  maxReplicas: 4
  metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 80}}}]
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: shop-v1-traffic-segment, %[3]s}
spec: {rules: [{host: %[1]s.example, http: {paths: [{pathType: ImplementationSpecific, backend: {service: {name: shop-v1, port: {number: 80}}}}]}}]}
`, ns, of(""), of(", zalando.org/skipper-predicate: 'TrafficSegment(0.00, 1.00)'"))
	set := s.get()
	set.Status = zalando.StackSetStatus{Stacks: 1, ObservedStackVersion: "v1", Traffic: []*zalando.ActualTraffic{{StackName: "shop-v1", ServiceName: "shop-v1", Weight: 100}}}
	set.Status.Traffic[0].ServicePort.IntVal = 80
	must(t, api.Status().Update(t.Context(), set))
	eventually(t, 60*time.Second, func() error {
		if d := deployment(t, ns, "shop-v1"); d.Status.ReadyReplicas != 2 {
			return errors.New("its pods are not ready")
		}
		return nil
	})
	before, generation := podUIDs(t, ns), deployment(t, ns, "shop-v1").Generation
	since := time.Now()
	kubectl(t, ns, "", "annotate", "stackset", "shop", "stackset-controller.zalando.org/controller-")
	eventually(t, 30*time.Second, s.has(map[string]int{"shop-v1": 100}))
	eventually(t, 30*time.Second, s.ready("shop-v1"))
	if diff := cmp.Diff(before, podUIDs(t, ns)); diff != "" || deployment(t, ns, "shop-v1").Generation != generation {
		t.Errorf("adoption changed the pods:\n%s", diff)
	}
	for r, err := range cluster.Audit(since) {
		must(t, err)
		// Where its cache is behind, it may try to create what is there.
		if r.User == kubetideUser && r.Writes() && r.Code != http.StatusConflict && r.Namespace == ns && r.Resource != "events" && r.Subresource != "status" {
			t.Errorf("it wrote %s %s/%s %s", r.Verb, r.Resource, r.Name, r.Subresource)
		}
	}
}
