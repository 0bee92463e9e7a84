package e2e

import (
	"errors"
	"fmt"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	apiruntime "k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	zalando "github.com/kubetide/kubetide/api/zalando/v1"
	"github.com/kubetide/kubetide/scaler/prescale"
	"github.com/kubetide/kubetide/workloads/stackset/generate"
	"github.com/kubetide/kubetide/workloads/stackset/segment"
)

// stackOf is what the objects of a Stack are made from, of the StackSet shop. set and template are fields of the StackSet's spec and of
// its template's, in flow style.
func stackOf(t *testing.T, ns, version, set, template string) generate.Source {
	t.Helper()
	s := &zalando.StackSet{}
	must(t, yaml.UnmarshalStrict(fmt.Appendf(nil, `
metadata: {name: shop, namespace: %s, labels: {application: shop}}
spec:
  %s
  stackLifecycle: {}
  stackTemplate:
    spec:
      version: %s
      %s
`, ns, set, version, template), s))
	stack, err := generate.Stack(s, generate.Options{})
	must(t, err)
	return generate.Source{StackSet: s, Stack: stack}
}

// put applies an object that was generated for a Stack. Nobody owns it: the Stack is not in the cluster.
func put(t *testing.T, o client.Object) {
	t.Helper()
	fields, err := apiruntime.DefaultUnstructuredConverter.ToUnstructured(o)
	must(t, err)
	delete(fields, "status")
	u := &unstructured.Unstructured{Object: fields}
	u.SetOwnerReferences(nil)
	must(t, api.Apply(t.Context(), client.ApplyConfigurationFromUnstructured(u), client.FieldOwner("e2e"), client.ForceOwnership))
}

// sharing is the traffic of the StackSet shop between two versions, by segments of one kind of route.
type sharing struct {
	// set is the way in, a field of the StackSet's spec with a place for the host; metric is the type that counts what comes in there.
	set, metric string
	segment     func(generate.Source, segment.Place) (client.Object, error)
}

var sharings = map[string]sharing{
	"Ingresses": {"ingress: {hosts: [%s], backendPort: 80}", "Ingress", func(s generate.Source, p segment.Place) (client.Object, error) {
		return s.IngressSegment(p.Segment), nil
	}},
	"RouteGroups": {"routegroup: {hosts: [%s], backendPort: 80, routes: [{pathSubtree: /}]}", "RouteGroup", func(s generate.Source, p segment.Place) (client.Object, error) {
		return s.RouteGroupSegment(p.Segment)
	}},
}

// Real requests to one host are split by the segments of its Stacks: the stock HPA of each, as it is generated, sees the Stack's share in
// each of its metrics, and another share at once when the traffic is switched.
func TestTheHPAOfAStackSeesTheStacksShare(t *testing.T) {
	t.Parallel()
	for name, sharing := range sharings {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ns := newNamespace(t)
			host := ns + ".example"
			stacks, shops := map[string]generate.Source{}, map[string]*shop{}
			for _, version := range []string{"v1", "v2"} {
				// One replica, so that the average in the HPA's status is the whole.
				s := stackOf(t, ns, version, fmt.Sprintf(sharing.set, host), fmt.Sprintf(`podTemplate: {spec: {containers: []}}
      autoscaler: {minReplicas: 1, maxReplicas: 1, metrics: [{type: %s, average: 10}, {type: RequestsPerSecond, average: 10, requestsPerSecond: {hostnames: [%s]}}]}`,
					sharing.metric, host))
				stacks[s.Stack.Name], shops[s.Stack.Name] = s, openShop(t, ns, s.Stack.Name)
			}
			live := segment.Live{}
			route := func(weights map[string]int) {
				layout, err := segment.Layout(weights, live)
				must(t, err)
				for _, place := range segment.Writes(live, layout) {
					object, err := sharing.segment(stacks[place.Stack], place)
					must(t, err)
					put(t, object)
					live[place.Stack] = place.Segment
				}
			}
			scale := func(weights map[string]int) {
				for stack, weight := range weights {
					hpa, err := stacks[stack].Autoscaler(weight, prescale.State{}, false)
					must(t, err)
					put(t, hpa)
				}
			}
			// shares checks each of the metrics by the requests that the host gets.
			shares := func(weights map[string]int) error {
				total := shops["shop-v1"].perSecond(rateWindow) + shops["shop-v2"].perSecond(rateWindow)
				var errs []error
				for stack, weight := range weights {
					for i := range 2 {
						got, err := seenByHPA(t, ns, stack, i)
						if err := about(got, float64(weight)/100*total, err); err != nil {
							errs = append(errs, fmt.Errorf("metric %d of %s, which gets %d %% of %.1f requests/s: %w", i, stack, weight, total, err))
						}
					}
				}
				return errors.Join(errs...)
			}

			weights := map[string]int{"shop-v1": 90, "shop-v2": 10}
			route(weights)
			sent := send(t, host, 100, shops)
			eventually(t, 2*rateWindow, func() error { // until the load fills the window
				if elapsed := time.Since(sent.began); elapsed < rateWindow+2*scrapeInterval {
					return fmt.Errorf("the load is on for %v only", elapsed)
				}
				return nil
			})
			scale(weights)
			// What is measured is collected once a minute: a load that was uneven is right then.
			eventually(t, 150*time.Second, func() error { return shares(weights) })
			sharesFit(t, shops, map[string]float64{"shop-v1": 0.9, "shop-v2": 0.1}, map[string]int64{})

			weights = map[string]int{"shop-v1": 30, "shop-v2": 70}
			switched := time.Now()
			route(weights)
			scale(weights)
			eventually(t, 150*time.Second, func() error { return shares(weights) })
			t.Logf("both HPAs see the new shares %v after the switch", time.Since(switched).Round(time.Millisecond))
			sent.stop(t)
		})
	}
}

// A Stack with the annotation is scaled by the engine, from what its autoscaler says; the floor of prescaling passes the behavior.
func TestAStackUnderTheEngineGetsItsFloor(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	create(t, ns, `
apiVersion: zalando.org/v1
kind: ScalingSchedule
metadata: {name: sale}
spec:
  scalingWindowDurationMinutes: 0
  schedules: [{type: OneTime, date: %q, durationMinutes: 30, value: 48}]
`, time.Now().Add(-time.Minute).Format(time.RFC3339))
	s := stackOf(t, ns, "v1", "", `podTemplate: {spec: {containers: [{name: main, image: simulated}]}}
      autoscaler: {minReplicas: 2, maxReplicas: 8, metrics: [{type: ScalingSchedule, average: 10, scalingSchedule: {name: sale}}],
        behavior: {scaleUp: {policies: [{type: Pods, value: 1, periodSeconds: 600}]}, scaleDown: {stabilizationWindowSeconds: 0}}}`)
	s.Stack.Annotations = map[string]string{generate.IHPAAnnotation: ""}
	put(t, s.Deployment(5))
	for _, step := range []struct {
		held prescale.State
		want int32
	}{
		{prescale.State{}, 5},
		{prescale.State{Active: true, Replicas: 7}, 7},
		{prescale.State{Active: true, Replicas: 20}, 8}, // the maximum
		{prescale.State{}, 5},
	} {
		ihpa, err := s.IHPA(100, step.held, false, nil)
		must(t, err)
		put(t, ihpa)
		eventually(t, 60*time.Second, func() error {
			return errors.Join(wantReplicas(t, ns, "Deployment", "shop-v1", step.want)(), conditionIs(t, ns, "shop-v1", "ScalingActive", "True")())
		})
	}
}

// The same by the controller: traffic moves to a Stack of the engine when the pods are there that its IHPA was raised to.
func TestAStackSetUnderTheEngineIsPrescaled(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	const stackSet = `
apiVersion: zalando.org/v1
kind: StackSet
metadata: {name: shop, annotations: {alpha.stackset-controller.zalando.org/prescale-stacks: ""}}
spec:
  ingress: {hosts: [%s.example], backendPort: 80}
  stackLifecycle: {}
  traffic: [%s]
  stackTemplate:
    metadata: {annotations: {kubetide.io/ihpa: ""}}
    spec:
      version: %s
      service: {ports: [{port: 80}]}
      podTemplate: {spec: {containers: [{name: main, image: simulated}]}}
      autoscaler: {maxReplicas: 8, metrics: [{type: ScalingSchedule, average: 10, scalingSchedule: {name: %s}}],
        behavior: {scaleUp: {policies: [{type: Pods, value: %d, periodSeconds: 600}]}}}
`
	for name, value := range map[string]int{"busy": 48, "quiet": 8} {
		create(t, ns, `
apiVersion: zalando.org/v1
kind: ScalingSchedule
metadata: {name: %s}
spec:
  scalingWindowDurationMinutes: 0
  schedules: [{type: OneTime, date: %q, durationMinutes: 30, value: %d}]
`, name, time.Now().Add(-time.Minute).Format(time.RFC3339), value)
	}
	weights := func(stack string, want float64) error {
		s := &zalando.Stack{}
		if err := api.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: stack}, s); err != nil || s.Status.ActualTrafficWeight != want {
			return fmt.Errorf("%s gets %v %% of the traffic, want %v: %w", stack, s.Status.ActualTrafficWeight, want, err)
		}
		return nil
	}
	floor := func(stack string, want int32) error {
		o := getIHPA(t, ns, stack)
		if o.Spec.MinReplicas != want {
			return fmt.Errorf("the IHPA of %s has minReplicas %d, want %d", stack, o.Spec.MinReplicas, want)
		}
		return nil
	}
	apply(t, ns, fmt.Sprintf(stackSet, ns, "", "v1", "busy", 10))
	eventually(t, 60*time.Second, func() error { return weights("shop-v1", 100) })
	eventually(t, 60*time.Second, func() error { // it is made after the traffic is given
		return api.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: "shop-v1"}, &kapacity.IntelligentHorizontalPodAutoscaler{})
	})
	eventually(t, 60*time.Second, wantReplicas(t, ns, "Deployment", "shop-v1", 5))
	apply(t, ns, fmt.Sprintf(stackSet, ns, "{stackName: shop-v1, weight: 100}", "v2", "quiet", 1))
	eventually(t, 60*time.Second, func() error {
		return api.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: "shop-v2"}, &kapacity.IntelligentHorizontalPodAutoscaler{})
	})
	eventually(t, 60*time.Second, wantReplicas(t, ns, "Deployment", "shop-v2", 1))
	// Half of the 5 pods with traffic: from 1 to 3, although the behavior lets the metric have one pod more in ten minutes.
	apply(t, ns, fmt.Sprintf(stackSet, ns, "{stackName: shop-v1, weight: 50}, {stackName: shop-v2, weight: 50}", "v2", "quiet", 1))
	eventually(t, 60*time.Second, func() error { return weights("shop-v2", 50) })
	must(t, errors.Join(floor("shop-v2", 3), wantReplicas(t, ns, "Deployment", "shop-v2", 3)(), floor("shop-v1", 1)))
	hpas, err := kube.AutoscalingV2().HorizontalPodAutoscalers(ns).List(t.Context(), metav1.ListOptions{})
	must(t, err)
	if len(hpas.Items) > 0 {
		t.Errorf("there are HorizontalPodAutoscalers: %v", hpas.Items)
	}
}
