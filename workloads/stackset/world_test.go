package stackset

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/tools/record"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	zalando "github.com/kubetide/kubetide/api/zalando/v1"
	"github.com/kubetide/kubetide/internal/traffic"
	"github.com/kubetide/kubetide/workloads/drift"
	"github.com/kubetide/kubetide/workloads/stackset/generate"
	"github.com/kubetide/kubetide/workloads/stackset/segment"
)

const ns = "shop"

// testing is what both testing.T and rapid.T can do.
type tester interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
	Errorf(format string, args ...any)
}

// world is an API server without defaults or validation, in which pods are there as soon as a test says so.
type world struct {
	client.WithWatch
	t      tester
	clock  *clocktesting.FakePassiveClock
	events *record.FakeRecorder
	// writes are those of the controller.
	writes []string
	// left is how many writes are taken before the process dies; below 0 there is no end. lost lets the one at which it dies reach the
	// store, and its answer get lost.
	left int
	lost bool
	// admit refuses what is written.
	admit func(client.Object) error
	// stored is called after each write that reached the store.
	stored func()
	uids   int
	inside bool
	// late keeps routers from hearing of pods.
	late bool
}

var errDied = errors.New("the process has died")

func newWorld(t tester, objects ...client.Object) *world {
	t.Helper()
	scheme := runtime.NewScheme()
	// Only what is used: the store goes through all of them with each write.
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, appsv1.AddToScheme, autoscalingv1.AddToScheme, autoscalingv2.AddToScheme, networkingv1.AddToScheme, discoveryv1.AddToScheme, zalando.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	w := &world{t: t, left: -1, admit: func(client.Object) error { return nil }, stored: func() {}, events: record.NewFakeRecorder(10_000),
		clock: clocktesting.NewFakePassiveClock(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))}
	store := fake.NewClientBuilder().WithScheme(scheme).WithStatusSubresource(&zalando.StackSet{}, &zalando.Stack{}, &appsv1.Deployment{}).
		WithIndex(&zalando.Stack{}, ownerIndex, ownerUIDs).WithIndex(&discoveryv1.EndpointSlice{}, serviceIndex, services).Build()
	write := func(verb string, o client.Object, do func() error) error {
		if w.inside { // the store's own
			return do()
		}
		if w.left == 0 {
			return errDied
		}
		if err := w.admit(o); err != nil {
			return err
		}
		w.left--
		w.writes = append(w.writes, verb+" "+kindOf(o)+" "+o.GetName())
		if w.left == 0 && !w.lost {
			return errDied
		}
		w.inside = true
		err := do()
		w.inside = false
		w.stored()
		if w.left == 0 {
			return errDied
		}
		return err
	}
	w.WithWatch = interceptor.NewClient(store, interceptor.Funcs{
		Create: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
			return write("create", o, func() error {
				w.uids++
				o.SetUID(types.UID(fmt.Sprintf("%s-%d", o.GetName(), w.uids)))
				o.SetGeneration(1)
				if d, ok := o.(*appsv1.Deployment); ok { // what the API server fills in
					quarter := intstr.FromString("25%")
					d.Spec.Strategy = appsv1.DeploymentStrategy{Type: "RollingUpdate", RollingUpdate: &appsv1.RollingUpdateDeployment{MaxSurge: &quarter, MaxUnavailable: &quarter}}
					d.Spec.RevisionHistoryLimit, d.Spec.ProgressDeadlineSeconds = ptr.To[int32](10), ptr.To[int32](600)
					d.Spec.Template.Spec.DNSPolicy, d.Spec.Template.Spec.RestartPolicy = corev1.DNSClusterFirst, corev1.RestartPolicyAlways
				}
				o.SetCreationTimestamp(metav1.NewTime(w.clock.Now().Truncate(time.Second)))
				return c.Create(ctx, o, opts...)
			})
		},
		Patch: func(ctx context.Context, c client.WithWatch, o client.Object, patch client.Patch, opts ...client.PatchOption) error {
			return write("patch", o, func() error { return c.Patch(ctx, o, patch, opts...) })
		},
		Delete: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.DeleteOption) error {
			return write("delete", o, func() error { return c.Delete(ctx, o, opts...) })
		},
		SubResourcePatch: func(ctx context.Context, c client.Client, sub string, o client.Object, patch client.Patch, opts ...client.SubResourcePatchOption) error {
			return write("patch "+sub+" of", o, func() error { return c.SubResource(sub).Patch(ctx, o, patch, opts...) })
		},
		SubResourceUpdate: func(ctx context.Context, c client.Client, sub string, o client.Object, opts ...client.SubResourceUpdateOption) error {
			return write("update "+sub+" of", o, func() error { return c.SubResource(sub).Update(ctx, o, opts...) })
		},
	})
	for _, o := range objects {
		w.add(o)
	}
	return w
}

// add puts an object there as others do.
func (w *world) add(o client.Object) {
	w.t.Helper()
	w.inside = true
	defer func() { w.inside = false }()
	w.uids++
	o.SetNamespace(ns)
	if o.GetUID() == "" {
		o.SetUID(types.UID(fmt.Sprintf("%s-%d", o.GetName(), w.uids)))
	}
	if o.GetGeneration() == 0 {
		o.SetGeneration(1)
	}
	status, ok := o.DeepCopyObject().(*zalando.StackSet)
	if err := w.Create(context.Background(), o); err != nil {
		w.t.Fatal(err)
	}
	if ok {
		set := o.(*zalando.StackSet)
		set.Status = status.Status
		if err := w.Status().Update(context.Background(), set); err != nil {
			w.t.Fatal(err)
		}
	}
}

// change lets others change an object.
func change[T client.Object](w *world, name string, o T, how func(T)) {
	w.t.Helper()
	w.inside = true
	defer func() { w.inside = false }()
	get(w, name, o)
	before := drift.Content(o)
	how(o)
	if !reflect.DeepEqual(before, drift.Content(o)) {
		o.SetGeneration(o.GetGeneration() + 1)
	}
	if err := w.Update(context.Background(), o); err != nil {
		w.t.Fatal(err)
	}
}

func get[T client.Object](w *world, name string, o T) T {
	w.t.Helper()
	if err := w.Get(context.Background(), client.ObjectKey{Namespace: ns, Name: name}, o); err != nil {
		w.t.Fatal(err)
	}
	return o
}

func (w *world) has(name string, o client.Object) bool {
	return w.Get(context.Background(), client.ObjectKey{Namespace: ns, Name: name}, o) == nil
}

// drop deletes an object by hand, and what it owns with it, as the garbage collector does.
func (w *world) drop(name string, o client.Object) {
	w.t.Helper()
	w.inside = true
	defer func() { w.inside = false }()
	get(w, name, o)
	if err := w.Delete(context.Background(), o); err != nil {
		w.t.Fatal(err)
	}
	w.collect()
}

// collect is the garbage collector.
func (w *world) collect() {
	w.inside = true
	defer func() { w.inside = false }()
	stacks := &zalando.StackList{}
	_ = w.List(context.Background(), stacks)
	alive := map[types.UID]bool{}
	for _, s := range stacks.Items {
		alive[s.UID] = true
	}
	for _, list := range []client.ObjectList{&networkingv1.IngressList{}, &zalando.RouteGroupList{}, &appsv1.DeploymentList{}, &corev1.ServiceList{}, &autoscalingv2.HorizontalPodAutoscalerList{}} {
		_ = w.List(context.Background(), list)
		items, _ := apimeta.ExtractList(list)
		for _, item := range items {
			o := item.(client.Object)
			if owners := o.GetOwnerReferences(); len(owners) == 1 && !alive[owners[0].UID] {
				_ = w.Delete(context.Background(), o)
			}
		}
	}
}

// pods lets all Deployments have the pods that they should have, and the autoscalers their say first. Those of unready have none ready.
func (w *world) pods(unready ...string) {
	w.t.Helper()
	w.inside = true
	defer func() { w.inside = false }()
	all := &appsv1.DeploymentList{}
	if err := w.List(context.Background(), all); err != nil {
		w.t.Fatal(err)
	}
	for i := range all.Items {
		d := &all.Items[i]
		hpa := &autoscalingv2.HorizontalPodAutoscaler{}
		if w.has(d.Name, hpa) && *d.Spec.Replicas > 0 {
			if n := min(max(*d.Spec.Replicas, ptr.Deref(hpa.Spec.MinReplicas, 1)), hpa.Spec.MaxReplicas); n != *d.Spec.Replicas {
				d.Spec.Replicas = &n
				if err := w.Update(context.Background(), d); err != nil {
					w.t.Fatal(err)
				}
			}
		}
		n := *d.Spec.Replicas
		d.Status = appsv1.DeploymentStatus{ObservedGeneration: d.Generation, Replicas: n, UpdatedReplicas: n, ReadyReplicas: n}
		if slices.Contains(unready, d.Name) {
			d.Status.ReadyReplicas = 0
		}
		if err := w.Status().Update(context.Background(), d); err != nil {
			w.t.Fatal(err)
		}
		if !w.late {
			w.endpoints(d.Name, int(d.Status.ReadyReplicas))
		}
	}
}

// endpoints tells routers of so many pods.
func (w *world) endpoints(name string, n int) {
	w.t.Helper()
	w.inside = true
	defer func() { w.inside = false }()
	slice := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: ns, Labels: map[string]string{discoveryv1.LabelServiceName: name}},
		Endpoints: make([]discoveryv1.Endpoint, n)}
	there := &discoveryv1.EndpointSlice{}
	write := w.Create(context.Background(), slice)
	if w.has(name, there) && write != nil {
		there.Endpoints = slice.Endpoints
		write = w.Update(context.Background(), there)
	}
	if write != nil {
		w.t.Fatal(write)
	}
}

// controller is a new process.
func (w *world) controller(o Options) *controller {
	return &controller{client: w, direct: w, recorder: w.events, clock: w.clock, options: o}
}

var options = Options{Options: generate.Options{ClusterDomains: []string{"example.org"}}}

// look lets the controller look at the StackSet once, and returns what it wrote.
func (w *world) look(c *controller) []string {
	w.t.Helper()
	w.writes = nil
	if _, err := c.Reconcile(context.Background(), reconcile.Request{NamespacedName: client.ObjectKey{Namespace: ns, Name: "shop"}}); err != nil {
		w.t.Fatal(err)
	}
	return w.writes
}

// settle lets pods start and the controller look until it has nothing more to write.
func (w *world) settle(c *controller, unready ...string) {
	w.t.Helper()
	for range 20 {
		w.pods(unready...)
		if len(w.look(c)) == 0 {
			return
		}
	}
	w.t.Fatalf("it never comes to rest: %v", w.writes)
}

func (w *world) set() *zalando.StackSet { return get(w, "shop", &zalando.StackSet{}) }

func (w *world) stack(name string) *zalando.Stack { return get(w, name, &zalando.Stack{}) }

// shares are the widths of the segments of all Ingresses, in percent.
func (w *world) shares() map[string]int {
	out := map[string]int{}
	for stack, s := range w.live() {
		out[stack] = int(s.Width()*100 + 0.5)
	}
	return out
}

func (w *world) live() segment.Live {
	all := &networkingv1.IngressList{}
	if err := w.List(context.Background(), all); err != nil {
		w.t.Fatal(err)
	}
	live := segment.Live{}
	for _, o := range all.Items {
		if s, found, err := traffic.Find(o.Annotations[generate.PredicateAnnotation]); err == nil && found {
			live[strings.TrimSuffix(o.Name, generate.SegmentSuffix)] = s
		}
	}
	return live
}

func (w *world) liveGroups() segment.Live {
	all := &zalando.RouteGroupList{}
	if err := w.List(context.Background(), all); err != nil {
		w.t.Fatal(err)
	}
	live := segment.Live{}
	for i := range all.Items {
		if s, found, err := generate.LiveRouteGroup(&all.Items[i]); err == nil && found {
			live[strings.TrimSuffix(all.Items[i].Name, generate.SegmentSuffix)] = s
		}
	}
	return live
}

// weights asks for another distribution.
func (w *world) weights(of map[string]float64) {
	w.t.Helper()
	change(w, "shop", &zalando.StackSet{}, func(s *zalando.StackSet) {
		s.Spec.Traffic = nil
		for _, stack := range slices.Sorted(func(yield func(string) bool) {
			for stack := range of {
				if !yield(stack) {
					return
				}
			}
		}) {
			s.Spec.Traffic = append(s.Spec.Traffic, &zalando.DesiredTraffic{StackName: stack, Weight: of[stack]})
		}
	})
}

// version asks for another version.
func (w *world) version(v string, how func(*zalando.StackSpec)) {
	w.t.Helper()
	change(w, "shop", &zalando.StackSet{}, func(s *zalando.StackSet) {
		s.Spec.StackTemplate.Spec.Version = v
		if how != nil {
			how(&s.Spec.StackTemplate.Spec.StackSpec)
		}
	})
}

func (w *world) said() string {
	var all []string
	for len(w.events.Events) > 0 {
		all = append(all, <-w.events.Events)
	}
	return strings.Join(all, "\n")
}

func stackSet(how ...func(*zalando.StackSet)) *zalando.StackSet {
	set := &zalando.StackSet{ObjectMeta: metav1.ObjectMeta{Name: "shop", Labels: map[string]string{"application": "shop"}}, Spec: zalando.StackSetSpec{
		Ingress: &zalando.StackSetIngressSpec{Hosts: []string{"shop.example.org"}, BackendPort: intstr.FromInt32(80)},
		StackTemplate: zalando.StackTemplate{Spec: zalando.StackSpecTemplate{Version: "v1", StackSpec: zalando.StackSpec{
			Replicas:    ptr.To[int32](2),
			PodTemplate: corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "shop:1", Ports: []corev1.ContainerPort{{ContainerPort: 80}}}}}},
		}}},
	}}
	for _, h := range how {
		h(set)
	}
	return set
}

func prescaled(set *zalando.StackSet) {
	set.Annotations = map[string]string{"alpha.stackset-controller.zalando.org/prescale-stacks": ""}
}

func autoscaled(least, most int32) func(*zalando.StackSet) {
	return func(set *zalando.StackSet) {
		set.Spec.StackTemplate.Spec.Autoscaler = &zalando.Autoscaler{MinReplicas: &least, MaxReplicas: most,
			Metrics: []zalando.AutoscalerMetrics{{Type: zalando.CPUMetric, AverageUtilization: ptr.To[int32](80)}}}
	}
}

func condition(t *testing.T, all []metav1.Condition, kind string, status metav1.ConditionStatus, reason, says string) {
	t.Helper()
	c := apimeta.FindStatusCondition(all, kind)
	if c == nil || c.Status != status || reason != "" && c.Reason != reason || !strings.Contains(c.Message, says) {
		t.Errorf("condition %s is %+v, want %s, %s, %q", kind, c, status, reason, says)
	}
}
