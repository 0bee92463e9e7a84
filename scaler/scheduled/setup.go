package scheduled

import (
	"context"
	"fmt"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	zalando "github.com/kubetide/kubetide/api/zalando/v1"
	"github.com/kubetide/kubetide/internal/window"
	"github.com/kubetide/kubetide/scaler/event"
	"github.com/kubetide/kubetide/scaler/target"
)

// Options configure the controllers.
type Options struct {
	// Defaults are those of the schedules' collector.
	Defaults window.Defaults
	// Tolerance is that of the cluster's HPA controller; an HPA's own goes before it.
	Tolerance float64
	// Clock is the real one unless it is set.
	Clock clock.PassiveClock
}

const (
	component = "scheduled-scaling"

	// maxSleep bounds how late a wake-up can be after the machine's clock was set forward.
	maxSleep = time.Hour

	adjusters = 4 // many HPAs may follow one schedule
)

// Setup adds the controllers to the manager, whose scheme must know autoscaling/v2, apps/v1 and zalando.org/v1.
func Setup(mgr ctrl.Manager, opts Options) error {
	if err := opts.Defaults.Validate(); err != nil {
		return fmt.Errorf("scheduled scaling: %w", err)
	}
	if opts.Tolerance < 0 {
		return fmt.Errorf("scheduled scaling: the tolerance %v is negative", opts.Tolerance)
	}
	if opts.Clock == nil {
		opts.Clock = clock.RealClock{}
	}
	events, err := event.NewRecorder(mgr, component)
	if err != nil {
		return fmt.Errorf("scheduled scaling: %w", err)
	}
	for name, kind := range map[string]client.Object{
		"scalingschedule":        &zalando.ScalingSchedule{},
		"clusterscalingschedule": &zalando.ClusterScalingSchedule{},
	} {
		err := ctrl.NewControllerManagedBy(mgr).Named(name).For(kind).
			WithOptions(controller.Options{NeedLeaderElection: ptr.To(true)}).
			Complete(newStatus(mgr.GetClient(), events, opts, kind))
		if err != nil {
			return fmt.Errorf("controller %s: %w", name, err)
		}
	}
	return setupAdjuster(mgr, events, opts)
}

func setupAdjuster(mgr ctrl.Manager, events record.EventRecorder, opts Options) error {
	if err := mgr.GetFieldIndexer().IndexField(context.Background(), &autoscalingv2.HorizontalPodAutoscaler{}, followed, indexFollowed); err != nil {
		return fmt.Errorf("index of HPAs by schedule: %w", err)
	}
	c, err := target.NewClient(mgr)
	if err != nil {
		return fmt.Errorf("client of the schedules' adjuster: %w", err)
	}
	a := &adjuster{client: c, events: events, Options: opts}
	changed := builder.WithPredicates(predicate.GenerationChangedPredicate{})
	err = ctrl.NewControllerManagedBy(mgr).Named("scheduled-scaling-adjuster").
		For(&autoscalingv2.HorizontalPodAutoscaler{}, builder.WithPredicates(predicate.NewPredicateFuncs(func(o client.Object) bool {
			return len(indexFollowed(o)) > 0
		}))).
		Watches(&zalando.ScalingSchedule{}, handler.EnqueueRequestsFromMapFunc(a.followers), changed).
		Watches(&zalando.ClusterScalingSchedule{}, handler.EnqueueRequestsFromMapFunc(a.followers), changed).
		WithOptions(controller.Options{NeedLeaderElection: ptr.To(true), MaxConcurrentReconciles: adjusters}).
		Complete(a)
	if err != nil {
		return fmt.Errorf("controller of scheduled scaling: %w", err)
	}
	return nil
}

// followed is the field index of HPAs by the schedules that their metrics describe.
const followed = "kubetide.followedSchedules"

func indexFollowed(o client.Object) []string {
	hpa, ok := o.(*autoscalingv2.HorizontalPodAutoscaler)
	if !ok {
		return nil
	}
	var keys []string
	for _, m := range hpa.Spec.Metrics {
		if o, _, ok := scheduleMetric(m); ok {
			keys = append(keys, followedKey(o.Kind, hpa.Namespace, o.Name))
		}
	}
	return keys
}

func followedKey(kind, namespace, name string) string {
	if kind == zalando.ClusterScalingScheduleKind {
		namespace = ""
	}
	return kind + "/" + namespace + "/" + name
}

// followers are the HPAs that follow a schedule.
func (a *adjuster) followers(ctx context.Context, o client.Object) []reconcile.Request {
	kind := zalando.ScalingScheduleKind
	if _, ok := o.(*zalando.ClusterScalingSchedule); ok {
		kind = zalando.ClusterScalingScheduleKind
	}
	var list autoscalingv2.HorizontalPodAutoscalerList
	if err := a.client.List(ctx, &list, client.MatchingFields{followed: followedKey(kind, o.GetNamespace(), o.GetName())}); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "list HPAs that follow a schedule", "kind", kind, "schedule", client.ObjectKeyFromObject(o))
		return nil
	}
	requests := make([]reconcile.Request, 0, len(list.Items))
	for i := range list.Items {
		requests = append(requests, reconcile.Request{NamespacedName: types.NamespacedName{Namespace: list.Items[i].Namespace, Name: list.Items[i].Name}})
	}
	return requests
}

// wakeAt is the result that brings an object back at next; the zero time brings it back on an event only.
func wakeAt(next, now time.Time) ctrl.Result {
	if next.IsZero() {
		return ctrl.Result{}
	}
	return ctrl.Result{RequeueAfter: min(max(next.Sub(now), time.Nanosecond), maxSleep)}
}

func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
