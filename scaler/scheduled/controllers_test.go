package scheduled

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/record"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	zalando "github.com/kubetide/kubetide/api/zalando/v1"
	"github.com/kubetide/kubetide/internal/window"
)

var t0 = time.Date(2009, 11, 10, 22, 0, 0, 0, time.UTC)

// world is what the controllers see, and a count of what they write.
type world struct {
	client.Client
	writes   int
	conflict error // returned by the next write of /scale
	events   *record.FakeRecorder
	clock    *clocktesting.FakePassiveClock
	opts     Options
}

func newWorld(t *testing.T, ramp time.Duration, objects ...client.Object) *world {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, zalando.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	w := &world{events: record.NewFakeRecorder(100), clock: clocktesting.NewFakePassiveClock(t0)}
	w.opts = Options{Defaults: window.Defaults{Window: ramp, Steps: 10, Zone: time.UTC}, Tolerance: 0.1, Clock: w.clock}
	w.Client = fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).
		WithStatusSubresource(&zalando.ScalingSchedule{}, &zalando.ClusterScalingSchedule{}).
		WithIndex(&autoscalingv2.HorizontalPodAutoscaler{}, followed, indexFollowed).
		WithInterceptorFuncs(interceptor.Funcs{
			SubResourceUpdate: func(ctx context.Context, c client.Client, sub string, o client.Object, opts ...client.SubResourceUpdateOption) error {
				w.writes++
				if err := w.conflict; err != nil {
					w.conflict = nil
					return err
				}
				return c.SubResource(sub).Update(ctx, o, opts...)
			},
			SubResourcePatch: func(ctx context.Context, c client.Client, sub string, o client.Object, p client.Patch, opts ...client.SubResourcePatchOption) error {
				w.writes++
				return c.SubResource(sub).Patch(ctx, o, p, opts...)
			},
		}).Build()
	return w
}

func (w *world) said() []string {
	var said []string
	for len(w.events.Events) > 0 {
		said = append(said, <-w.events.Events)
	}
	return said
}

func window15(start time.Time, value int64) zalando.ScalingScheduleSpec {
	date := zalando.ScheduleDate(start.Format(time.RFC3339))
	return zalando.ScalingScheduleSpec{Schedules: []zalando.Schedule{{Type: zalando.OneTimeSchedule, Date: &date, DurationMinutes: 15, Value: value}}}
}

func namespaced(spec zalando.ScalingScheduleSpec) *zalando.ScalingSchedule {
	return &zalando.ScalingSchedule{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "sale"}, Spec: spec}
}

func clusterWide(spec zalando.ScalingScheduleSpec) *zalando.ClusterScalingSchedule {
	return &zalando.ClusterScalingSchedule{ObjectMeta: metav1.ObjectMeta{Name: "sale"}, Spec: spec}
}

func deployment(replicas int32) *appsv1.Deployment {
	return &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "cart"}, Spec: appsv1.DeploymentSpec{Replicas: &replicas}}
}

func hpa(kind string, current int32, average string) *autoscalingv2.HorizontalPodAutoscaler {
	h := &autoscalingv2.HorizontalPodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "cart"},
		Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			MaxReplicas:    1000,
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "cart"},
			Metrics: []autoscalingv2.MetricSpec{{Type: autoscalingv2.ObjectMetricSourceType, Object: &autoscalingv2.ObjectMetricSource{
				DescribedObject: autoscalingv2.CrossVersionObjectReference{APIVersion: "zalando.org/v1", Kind: kind, Name: "sale"},
				Metric:          autoscalingv2.MetricIdentifier{Name: "sale"},
			}}},
		},
		Status: autoscalingv2.HorizontalPodAutoscalerStatus{CurrentReplicas: current},
	}
	if average != "" {
		h.Spec.Metrics[0].Object.Target.AverageValue = ptr.To(resource.MustParse(average))
	}
	return h
}

var shopCart = ctrl.Request{NamespacedName: client.ObjectKey{Namespace: "shop", Name: "cart"}}

func (w *world) adjuster() *adjuster {
	return &adjuster{client: w.Client, events: w.events, Options: w.opts}
}

func (w *world) replicas(t *testing.T) int32 {
	t.Helper()
	d := &appsv1.Deployment{}
	if err := w.Get(t.Context(), shopCart.NamespacedName, d); err != nil {
		t.Fatal(err)
	}
	return *d.Spec.Replicas
}

func TestAdjusterWritesScaleAndSaysSo(t *testing.T) {
	const sched, cluster = "ScalingSchedule", "ClusterScalingSchedule"
	with := func(h *autoscalingv2.HorizontalPodAutoscaler, change func(*autoscalingv2.HorizontalPodAutoscaler)) *autoscalingv2.HorizontalPodAutoscaler {
		change(h)
		return h
	}
	event := func(text string) []string { return []string{"Normal ScalingAdjusted " + text} }
	tests := map[string]struct {
		hpa   *autoscalingv2.HorizontalPodAutoscaler
		value int64
		live  int32 // 0: as in the HPA's status
		want  int32
		said  []string
	}{
		"39 rounded up": {hpa(sched, 28, "333"), 10000, 0, 31,
			event("Scaling schedule 'ScalingSchedule' adjusted replicas 28 -> 31 based on metric: sale")},
		"40 within the tolerance, cluster-wide": {hpa(cluster, 95, "10"), 1000, 0, 100,
			event("Scaling schedule 'ClusterScalingSchedule' adjusted replicas 95 -> 100 based on metric: sale")},
		"41 beyond it":            {hpa(sched, 90, "10"), 1000, 0, 90, nil},
		"42 no average":           {hpa(sched, 95, ""), 1000, 0, 95, nil},
		"43 thousandths":          {hpa(sched, 90, "10500m"), 1000, 0, 96, event("Scaling schedule 'ScalingSchedule' adjusted replicas 90 -> 96 based on metric: sale")},
		"the status lags, done":   {hpa(sched, 95, "10"), 1000, 100, 100, nil},
		"the status lags, fewer":  {hpa(sched, 95, "10"), 1000, 50, 50, nil},
		"the status lags, to one": {hpa(sched, 95, "10"), 1000, 92, 100, event("Scaling schedule 'ScalingSchedule' adjusted replicas 92 -> 100 based on metric: sale")},
		"its own tolerance is narrower": {with(hpa(sched, 95, "10"), func(h *autoscalingv2.HorizontalPodAutoscaler) {
			h.Spec.Behavior = &autoscalingv2.HorizontalPodAutoscalerBehavior{ScaleUp: &autoscalingv2.HPAScalingRules{Tolerance: ptr.To(resource.MustParse("0.01"))}}
		}), 1000, 0, 95, nil},
		"scaling up is disabled": {with(hpa(sched, 95, "10"), func(h *autoscalingv2.HorizontalPodAutoscaler) {
			h.Spec.Behavior = &autoscalingv2.HorizontalPodAutoscalerBehavior{ScaleUp: &autoscalingv2.HPAScalingRules{SelectPolicy: ptr.To(autoscalingv2.DisabledPolicySelect)}}
		}), 1000, 0, 95, nil},
		"a schedule that does not exist": {with(hpa(sched, 95, "10"), func(h *autoscalingv2.HorizontalPodAutoscaler) {
			h.Spec.Metrics[0].Object.DescribedObject.Name = "gone"
		}), 1000, 0, 95, nil},
		"a kind of another group": {with(hpa(sched, 95, "10"), func(h *autoscalingv2.HorizontalPodAutoscaler) {
			h.Spec.Metrics[0].Object.DescribedObject.APIVersion = "example.org/v1"
		}), 1000, 0, 95, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if tt.live == 0 {
				tt.live = tt.hpa.Status.CurrentReplicas
			}
			spec := window15(t0.Add(-10*time.Minute), tt.value)
			w := newWorld(t, time.Hour, tt.hpa, deployment(tt.live), namespaced(spec), clusterWide(spec))
			if _, err := w.adjuster().Reconcile(t.Context(), shopCart); err != nil {
				t.Fatal(err)
			}
			if got := w.replicas(t); got != tt.want {
				t.Errorf("replicas = %d, want %d", got, tt.want)
			}
			if diff := cmp.Diff(tt.said, w.said()); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
			if changed := tt.want != tt.live; w.writes > 0 != changed {
				t.Errorf("%d writes", w.writes)
			}
		})
	}
}

func TestAdjusterWakesWhenTheScheduleChanges(t *testing.T) {
	w := newWorld(t, 10*time.Minute, hpa("ScalingSchedule", 95, "10"), deployment(95), namespaced(window15(t0.Add(30*time.Minute), 1000)))
	for _, step := range []struct{ at, wake time.Duration }{
		{0, 20 * time.Minute},                  // the ramp begins
		{20 * time.Minute, time.Minute},        // its first step
		{31 * time.Minute, 14*time.Minute + 1}, // the first step down
		{60 * time.Minute, 0},
	} {
		w.clock.SetTime(t0.Add(step.at))
		result, err := w.adjuster().Reconcile(t.Context(), shopCart)
		if err != nil || result.RequeueAfter != step.wake {
			t.Errorf("at %v: wakes after %v (%v), want %v", step.at, result.RequeueAfter, err, step.wake)
		}
	}
}

func TestAdjusterTriesAgain(t *testing.T) {
	w := newWorld(t, time.Hour, hpa("ScalingSchedule", 95, "10"), deployment(95), namespaced(window15(t0.Add(-10*time.Minute), 1000)))
	w.conflict = conflict()
	result, err := w.adjuster().Reconcile(t.Context(), shopCart)
	if err != nil || result.RequeueAfter != time.Second || len(w.said()) > 0 {
		t.Errorf("after a conflict: %+v, %v", result, err)
	}
	w.conflict = errors.New("no")
	if _, err = w.adjuster().Reconcile(t.Context(), shopCart); err == nil || !strings.Contains(err.Error(), `HPA shop/cart: write /scale of Deployment "cart": no`) {
		t.Errorf("after a failure: %v", err)
	}
	if _, err = w.adjuster().Reconcile(t.Context(), shopCart); err != nil || w.replicas(t) != 100 {
		t.Errorf("at last: %d replicas, %v", w.replicas(t), err)
	}
	missing := newWorld(t, time.Hour, hpa("ScalingSchedule", 95, "10"), namespaced(window15(t0, 1000)))
	if _, err = missing.adjuster().Reconcile(t.Context(), shopCart); err == nil || !strings.Contains(err.Error(), `HPA shop/cart: read /scale of Deployment "cart"`) {
		t.Errorf("without a target: %v", err)
	}
	if _, err := missing.adjuster().Reconcile(t.Context(), ctrl.Request{NamespacedName: client.ObjectKey{Namespace: "shop", Name: "gone"}}); err != nil {
		t.Errorf("without an HPA: %v", err)
	}
}

func TestAScheduleBringsBackItsFollowersOnly(t *testing.T) {
	follower, other, plain := hpa("ScalingSchedule", 1, "10"), hpa("ClusterScalingSchedule", 1, "10"), hpa("ScalingSchedule", 1, "")
	other.Name, plain.Name = "other", "plain"
	elsewhere := hpa("ScalingSchedule", 1, "10")
	elsewhere.Namespace = "elsewhere"
	everywhere := hpa("ClusterScalingSchedule", 1, "10")
	everywhere.Namespace, everywhere.Name = "elsewhere", "other"
	w := newWorld(t, 0, follower, other, plain, elsewhere, everywhere)
	names := func(o client.Object) (names []string) {
		for _, r := range w.adjuster().followers(t.Context(), o) {
			names = append(names, r.String())
		}
		return names
	}
	if diff := cmp.Diff([]string{"shop/cart"}, names(namespaced(zalando.ScalingScheduleSpec{}))); diff != "" {
		t.Errorf("followers of the ScalingSchedule (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"elsewhere/other", "shop/other"}, names(clusterWide(zalando.ScalingScheduleSpec{}))); diff != "" {
		t.Errorf("followers of the ClusterScalingSchedule (-want +got):\n%s", diff)
	}
}

func TestStatusFollowsTheScheduleAndIsWrittenOnChangeOnly(t *testing.T) {
	for _, kind := range []client.Object{&zalando.ScalingSchedule{}, &zalando.ClusterScalingSchedule{}} {
		spec := window15(t0.Add(time.Hour), 100)
		w := newWorld(t, 10*time.Minute, namespaced(spec), clusterWide(spec))
		s := newStatus(w.Client, w.events, w.opts, kind)
		req := ctrl.Request{NamespacedName: client.ObjectKey{Name: "sale"}}
		if _, ok := kind.(*zalando.ScalingSchedule); ok {
			req.Namespace = "shop"
		}
		for _, step := range []struct {
			at     time.Duration
			active bool
			writes int
			wake   time.Duration
		}{
			{-10 * time.Hour, false, 0, time.Hour}, // never asleep for longer
			{0, false, 0, 50 * time.Minute},
			{50 * time.Minute, true, 1, 35 * time.Minute},
			{60 * time.Minute, true, 1, 25 * time.Minute},
			{85*time.Minute - 1, true, 1, 1},
			{85 * time.Minute, false, 2, 0},
		} {
			w.clock.SetTime(t0.Add(step.at))
			result, err := s.Reconcile(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			o := kind.DeepCopyObject().(client.Object)
			if err := w.Get(t.Context(), req.NamespacedName, o); err != nil {
				t.Fatal(err)
			}
			if _, active := fields(o); *active != step.active || w.writes != step.writes || result.RequeueAfter != step.wake {
				t.Errorf("%T at %v: active %v, %d writes, wakes after %v; want %+v", kind, step.at, *active, w.writes, result.RequeueAfter, step)
			}
		}
	}
}

func TestAnInvalidScheduleIsToldOnceAndNotActive(t *testing.T) {
	o := namespaced(zalando.ScalingScheduleSpec{Schedules: []zalando.Schedule{{Type: zalando.RepeatingSchedule}}})
	o.Status.Active = true
	w := newWorld(t, 0, o)
	s := newStatus(w.Client, w.events, w.opts, &zalando.ScalingSchedule{})
	req := ctrl.Request{NamespacedName: client.ObjectKeyFromObject(o)}
	reconcile := func() {
		t.Helper()
		if result, err := s.Reconcile(t.Context(), req); err != nil || result.RequeueAfter != 0 {
			t.Fatalf("%+v, %v", result, err)
		}
	}
	for range 3 {
		reconcile()
	}
	want := []string{"Warning InvalidSchedule the schedule cannot be used: spec.schedules[0].period: invalid schedule period: a Repeating schedule needs one"}
	if diff := cmp.Diff(want, w.said()); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if err := w.Get(t.Context(), req.NamespacedName, o); err != nil || o.Status.Active || w.writes != 1 {
		t.Errorf("active %v after %d writes (%v), want false after 1", o.Status.Active, w.writes, err)
	}

	o.Spec.Schedules[0].Type = "Sometimes"
	if err := w.Update(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	reconcile()
	if said := w.said(); len(said) != 1 || !strings.Contains(said[0], "spec.schedules[0].type") {
		t.Errorf("another mistake is told as %q", said)
	}
	if err := w.Delete(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	reconcile()
	if len(s.told) != 0 {
		t.Errorf("a deleted schedule is remembered: %v", s.told)
	}
}

func conflict() error {
	return apierrors.NewConflict(appsv1.Resource("deployments"), "cart", errors.New("changed"))
}
