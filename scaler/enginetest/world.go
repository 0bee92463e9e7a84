// Package enginetest is a small simulated cluster for the tests of the engine's controllers: an API server in memory that
// counts generations and writes, the workload controllers as far as they matter for scaling, and a kubelet that honors
// readiness gates. It is imported by tests only.
package enginetest

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	zalando "github.com/kubetide/kubetide/api/zalando/v1"
	"github.com/kubetide/kubetide/scaler/target"
)

// Namespace of all objects, and the name of the one workload and its autoscaler.
const (
	Namespace = "shop"
	Name      = "nginx"
)

// Start is the time at which every world begins.
var Start = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// World is the cluster.
type World struct {
	T      testing.TB
	Client client.WithWatch
	Clock  *clocktesting.FakeClock
	Events *Events
	// Writes are the writes of the controllers so far, as "patch ReplicaProfile/status nginx".
	Writes []string
	// Fail, if set, may refuse a write; verb and kind are as in Writes.
	Fail func(what string) error
	// Lose, if set, may lose the answer to a write that was carried out, and FailRead refuse a read that goes past the cache.
	Lose     func(what string) error
	FailRead func() error
	// Ungated makes new pods without the readiness gate, Pending leaves new pods without a node.
	Ungated, Pending bool
	// Full lets nobody create pods, as an exhausted quota does.
	Full bool
	// Stuck stops the kubelet: readiness is not computed any more.
	Stuck bool

	store       *store
	controllers []reconcile.Reconciler
	mu          sync.Mutex // protects Writes, Fail and version: pods are written in parallel
	simulating  bool
	serial      int
	version     int // counts the writes of everybody
}

// Events keeps what recorders are told, as "component Type Reason message".
type Events struct {
	All []string
}

type recorder struct {
	component string
	events    *Events
}

// Recorder returns a recorder for one component.
func (e *Events) Recorder(component string) interface {
	Event(object runtime.Object, eventtype, reason, message string)
	Eventf(object runtime.Object, eventtype, reason, messageFmt string, args ...any)
	AnnotatedEventf(object runtime.Object, annotations map[string]string, eventtype, reason, messageFmt string, args ...any)
} {
	return recorder{component, e}
}

func (r recorder) Event(_ runtime.Object, eventtype, reason, message string) {
	r.events.All = append(r.events.All, strings.Join([]string{r.component, eventtype, reason, message}, " "))
}

func (r recorder) Eventf(o runtime.Object, eventtype, reason, format string, args ...any) {
	r.Event(o, eventtype, reason, fmt.Sprintf(format, args...))
}

func (r recorder) AnnotatedEventf(o runtime.Object, _ map[string]string, eventtype, reason, format string, args ...any) {
	r.Eventf(o, eventtype, reason, format, args...)
}

// Take returns the events since the last Take.
func (e *Events) Take() []string {
	out := e.All
	e.All = nil
	return out
}

// Index is a field index that the controllers rely on.
type Index struct {
	Kind client.Object
	Name string
	Of   client.IndexerFunc
}

// New returns a world with the objects in it.
func New(t testing.TB, indexes []Index, objects ...client.Object) *World {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, appsv1.AddToScheme, autoscalingv1.AddToScheme, autoscalingv2.AddToScheme, kapacity.AddToScheme, zalando.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	w := &World{T: t, Clock: clocktesting.NewFakeClock(Start), Events: &Events{}}
	mapper := meta.NewDefaultRESTMapper(nil) // for the one kind that is not known beforehand
	mapper.Add(corev1.SchemeGroupVersion.WithKind("ReplicationController"), meta.RESTScopeNamespace)
	w.store = newStore(scheme, mapper, w.Clock)
	indexes = append([]Index{{&corev1.Pod{}, target.ControllerUID, target.IndexControllerUID}, {&appsv1.ReplicaSet{}, target.ControllerUID, target.IndexControllerUID}}, indexes...)
	for _, i := range indexes {
		w.store.kindOf(reflect.TypeOf(i.Kind).Elem()).indexes[i.Name] = i.Of
	}
	w.Client = &api{w: w}
	w.Simulate(func() {
		for _, o := range objects {
			w.Must(w.Client.Create(w.Context(), o))
		}
	})
	return w
}

// Context is the test's.
func (w *World) Context() context.Context { return context.Background() }

// Must fails the test on an error.
func (w *World) Must(err error) {
	w.T.Helper()
	if err != nil {
		w.T.Fatal(err)
	}
}

// Simulate runs do as somebody who is not Kubetide: its writes are not counted and do not fail.
func (w *World) Simulate(do func()) {
	before := w.simulating
	w.simulating = true
	do()
	w.simulating = before
}

// counts notes a write of Kubetide's and returns what it is; empty for everybody else's.
func (w *World) counts(verb string, o client.Object, sub string) (string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.simulating {
		w.version++
		return "", nil
	}
	kind := fmt.Sprintf("%T", o)
	what := fmt.Sprintf("%s %s%s %s", verb, kind[strings.LastIndexByte(kind, '.')+1:], sub, o.GetName())
	if w.Fail != nil {
		if err := w.Fail(what); err != nil {
			return "", err
		}
	}
	w.version++
	w.Writes = append(w.Writes, what)
	return what, nil
}

// Watch has every change told, with whether it is Kubetide's. before or after is nil for a creation or a removal; neither may be changed,
// and the world must not be called.
func (w *World) Watch(changed func(ours bool, before, after client.Object)) {
	w.store.changed = func(before, after client.Object) { changed(!w.simulating, before, after) }
}

// Play takes one turn of everybody who is not Kubetide.
func (w *World) Play() { w.Simulate(w.play) }

// Run adds a controller that Settle calls with the one name of this world.
func (w *World) Run(c reconcile.Reconciler) { w.controllers = append(w.controllers, c) }

// Restart replaces all controllers, as a new leader does.
func (w *World) Restart(cs ...reconcile.Reconciler) { w.controllers = cs }

// Request is the request that Settle makes.
var Request = reconcile.Request{NamespacedName: types.NamespacedName{Namespace: Namespace, Name: Name}}

// Settle calls everybody until nobody changes anything, and returns when a controller wants to be called again; zero for never.
func (w *World) Settle() (next time.Time) {
	w.T.Helper()
	for range 100 {
		before := w.version
		w.Simulate(w.play)
		next = time.Time{}
		for _, c := range w.controllers {
			refusing := w.Fail != nil
			result, err := c.Reconcile(w.Context(), Request)
			if err != nil && !refusing {
				w.T.Fatal(err)
			}
			if at := w.Clock.Now().Add(result.RequeueAfter); result.RequeueAfter > 0 && (next.IsZero() || at.Before(next)) {
				next = at
			}
		}
		if w.version == before {
			return next
		}
	}
	w.T.Fatalf("never settles; last writes: %v", w.Writes[max(0, len(w.Writes)-10):])
	return next
}

// Advance moves the time on, waking the controllers whenever they asked for it.
func (w *World) Advance(d time.Duration) {
	w.T.Helper()
	end := w.Clock.Now().Add(d)
	for {
		next := w.Settle()
		if next.IsZero() || next.After(end) {
			break
		}
		w.Clock.SetTime(next)
	}
	w.Clock.SetTime(end)
	w.Settle()
}

// Pods returns the workload's pods, by name.
func (w *World) Pods() []corev1.Pod {
	list := &corev1.PodList{}
	w.Must(w.Client.List(w.Context(), list, client.InNamespace(Namespace)))
	slices.SortFunc(list.Items, func(a, b corev1.Pod) int { return strings.Compare(a.Name, b.Name) })
	return list.Items
}

// States prints each pod with its state and readiness: "nginx-0 Online ready, nginx-1 Cutoff unready".
func (w *World) States() string {
	var out []string
	for _, p := range w.Pods() {
		state := p.Labels[kapacity.PodStateLabel]
		if state == "" {
			state = "Online"
		}
		ready := "unready"
		if Ready(&p) {
			ready = "ready"
		}
		out = append(out, fmt.Sprintf("%s %s %s", p.Name, state, ready))
	}
	return strings.Join(out, ", ")
}

// Ready says whether the pod would be in an endpoint.
func Ready(p *corev1.Pod) bool { return status(p, corev1.PodReady) == corev1.ConditionTrue }

func status(p *corev1.Pod, kind corev1.PodConditionType) corev1.ConditionStatus {
	for _, c := range p.Status.Conditions {
		if c.Type == kind {
			return c.Status
		}
	}
	return ""
}

// Endpoints is the number of ready pods.
func (w *World) Endpoints() int {
	n := 0
	for _, p := range w.Pods() {
		if Ready(&p) {
			n++
		}
	}
	return n
}

// Profile returns the ReplicaProfile, nil if there is none.
func (w *World) Profile() *kapacity.ReplicaProfile {
	rp := &kapacity.ReplicaProfile{}
	if err := w.Client.Get(w.Context(), Request.NamespacedName, rp); err != nil {
		w.Must(client.IgnoreNotFound(err))
		return nil
	}
	return rp
}

// IHPA returns the IHPA, nil if there is none.
func (w *World) IHPA() *kapacity.IntelligentHorizontalPodAutoscaler {
	o := &kapacity.IntelligentHorizontalPodAutoscaler{}
	if err := w.Client.Get(w.Context(), Request.NamespacedName, o); err != nil {
		w.Must(client.IgnoreNotFound(err))
		return nil
	}
	return o
}

// Edit changes the IHPA as its user does.
func (w *World) Edit(change func(*kapacity.IntelligentHorizontalPodAutoscaler)) {
	w.T.Helper()
	o := w.IHPA()
	change(o)
	w.Simulate(func() { w.Must(w.Client.Update(w.Context(), o)) })
}

// Labels of the workload's pods. They opt in to the readiness gate.
func Labels() map[string]string {
	return map[string]string{"app": Name, kapacity.InjectReadinessGateLabel: kapacity.InjectReadinessGateValue}
}

// StatefulSet returns the workload as a StatefulSet.
func StatefulSet(replicas int32, policy appsv1.PodManagementPolicyType) *appsv1.StatefulSet {
	return &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: Namespace, Name: Name},
		Spec: appsv1.StatefulSetSpec{Replicas: &replicas, PodManagementPolicy: policy, Selector: &metav1.LabelSelector{MatchLabels: Labels()}}}
}

// Deployment returns the workload as a Deployment.
func Deployment(replicas int32) *appsv1.Deployment {
	return &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: Namespace, Name: Name},
		Spec: appsv1.DeploymentSpec{Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: Labels()}}}
}

// IHPAOf returns an IHPA for the workload, with bounds 0 and 20.
func IHPAOf(kind string, down *kapacity.GrayStrategy, providers ...kapacity.HorizontalPortraitProvider) *kapacity.IntelligentHorizontalPodAutoscaler {
	return &kapacity.IntelligentHorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Namespace: Namespace, Name: Name},
		Spec: kapacity.IntelligentHorizontalPodAutoscalerSpec{MaxReplicas: 20, ScaleMode: kapacity.ScaleModeAuto,
			ScaleTargetRef:    autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: kind, Name: Name},
			PortraitProviders: providers, Behavior: kapacity.IHPABehavior{ScaleDown: kapacity.ScalingBehavior{GrayStrategy: down}}}}
}

// Static returns a static provider.
func Static(priority, replicas int32) kapacity.HorizontalPortraitProvider {
	return kapacity.HorizontalPortraitProvider{Type: kapacity.StaticProvider, Priority: priority, Static: &kapacity.StaticHorizontalPortraitProvider{Replicas: replicas}}
}

// Cron returns a cron provider with one window.
func Cron(priority, replicas int32, start, end string) kapacity.HorizontalPortraitProvider {
	return kapacity.HorizontalPortraitProvider{Type: kapacity.CronProvider, Priority: priority, Cron: &kapacity.CronHorizontalPortraitProvider{
		Crons: []kapacity.ReplicaCron{{Name: "window", Start: kapacity.CronExpression(start), End: kapacity.CronExpression(end), Replicas: replicas}}}}
}

// Cutoff is the strategy of the documented run unless other numbers are given.
func Cutoff(percent, interval, observation int32) *kapacity.GrayStrategy {
	return &kapacity.GrayStrategy{GrayState: kapacity.PodStateCutoff, ChangePercent: percent, ChangeIntervalSeconds: interval, ObservationSeconds: observation}
}
