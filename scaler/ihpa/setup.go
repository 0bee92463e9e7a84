package ihpa

import (
	"context"
	"fmt"
	"maps"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	zalando "github.com/kubetide/kubetide/api/zalando/v1"
	"github.com/kubetide/kubetide/internal/decision"
	"github.com/kubetide/kubetide/internal/sample"
	"github.com/kubetide/kubetide/internal/window"
	"github.com/kubetide/kubetide/portraits/schedule"
	engineevent "github.com/kubetide/kubetide/scaler/event"
	"github.com/kubetide/kubetide/scaler/target"
	"github.com/kubetide/kubetide/scaler/wants"
)

// Field indexes of the controller.
const (
	// TargetIndex finds IHPAs and HorizontalPodAutoscalers by the Key of their target.
	TargetIndex = "spec.scaleTargetRef"
	// PortraitIndex finds IHPAs by the names of the HorizontalPortraits that they read.
	PortraitIndex = "spec.portraitProviders.horizontalPortrait"
	// ScheduleIndex finds IHPAs by the kind and name of the schedules that they follow.
	ScheduleIndex = "spec.portraitProviders.schedule"
)

// Options of Setup.
type Options struct {
	// Clock is the real one if nil.
	Clock clock.PassiveClock
	// Concurrency is how many IHPAs are worked on at once; 0 means 16.
	Concurrency int
	// Demand has the metrics of stability checkers collected.
	Demand sample.Demand
	// Schedules are the defaults of ScalingSchedules.
	Schedules window.Defaults
	// Decisions keeps the records, for whoever serves them; nil makes one of default size.
	Decisions *decision.Log
}

// IndexTarget is the function of TargetIndex.
func IndexTarget(o client.Object) []string {
	switch o := o.(type) {
	case *kapacity.IntelligentHorizontalPodAutoscaler:
		return []string{target.Key(o.Spec.ScaleTargetRef)}
	case *autoscalingv2.HorizontalPodAutoscaler:
		return []string{target.Key(o.Spec.ScaleTargetRef)}
	}
	return nil
}

// IndexPortraits is the function of PortraitIndex.
func IndexPortraits(o client.Object) []string {
	var out []string
	for _, p := range o.(*kapacity.IntelligentHorizontalPodAutoscaler).Spec.PortraitProviders {
		if p.Dynamic != nil {
			out = append(out, portraitName(o.GetName(), p.Dynamic.PortraitType))
		}
	}
	return out
}

// IndexSchedules is the function of ScheduleIndex.
func IndexSchedules(o client.Object) []string {
	var out []string
	for _, p := range o.(*kapacity.IntelligentHorizontalPodAutoscaler).Spec.PortraitProviders {
		if p.Schedule != nil {
			out = append(out, schedule.Kind(*p.Schedule)+"/"+p.Schedule.Name)
		}
	}
	return out
}

// Setup adds the controller to the manager, to run on the leader. It needs replicaprofile.Setup in the same manager, whose
// field indexes it shares.
func Setup(mgr ctrl.Manager, opts Options) error {
	told.reset() // of what the manager before may have noted while it ended
	if err := mgr.Add(told); err != nil {
		return fmt.Errorf("metrics of the IHPA controller: %w", err)
	}
	for _, index := range []struct {
		kind client.Object
		name string
		of   client.IndexerFunc
	}{
		{&kapacity.IntelligentHorizontalPodAutoscaler{}, TargetIndex, IndexTarget},
		{&kapacity.IntelligentHorizontalPodAutoscaler{}, PortraitIndex, IndexPortraits},
		{&kapacity.IntelligentHorizontalPodAutoscaler{}, ScheduleIndex, IndexSchedules},
		{&autoscalingv2.HorizontalPodAutoscaler{}, TargetIndex, IndexTarget},
		{&kapacity.HorizontalPortrait{}, target.ControllerUID, target.IndexControllerUID},
	} {
		if err := mgr.GetFieldIndexer().IndexField(context.Background(), index.kind, index.name, index.of); err != nil {
			return fmt.Errorf("index %T by %s: %w", index.kind, index.name, err)
		}
	}
	c, err := target.NewClient(mgr)
	if err != nil {
		return fmt.Errorf("client of the IHPA controller: %w", err)
	}
	recorder, err := engineevent.NewRecorder(mgr, kapacity.IHPAEventComponent)
	if err != nil {
		return err
	}
	if opts.Clock == nil {
		opts.Clock = clock.RealClock{}
	}
	if opts.Decisions == nil {
		opts.Decisions = decision.NewLog(0, 0)
	}
	metrics := wants.New[struct{}](opts.Demand, opts.Clock)
	if err := metrics.Run(mgr); err != nil {
		return fmt.Errorf("end of the IHPA controller: %w", err)
	}
	r := &Reconciler{Client: c, Live: mgr.GetAPIReader(), Metrics: metrics, Recorder: recorder, Clock: opts.Clock, Decisions: opts.Decisions, Schedules: opts.Schedules}
	byTarget := func(key func(client.Object) []string) handler.EventHandler {
		return handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, o client.Object) []reconcile.Request {
			var out []reconcile.Request
			for _, k := range key(o) {
				out = append(out, r.having(ctx, o.GetNamespace(), TargetIndex, k)...)
			}
			return out
		})
	}
	// A workload is looked at only while there is no ReplicaProfile: its coming is what may be waited for.
	coming := builder.WithPredicates(predicate.Funcs{UpdateFunc: func(event.UpdateEvent) bool { return false }})
	workload := byTarget(func(o client.Object) []string { return []string{target.ObjectKey(o)} })
	// A cluster's schedule has no namespace, and is followed from any.
	following := func(kind string) handler.EventHandler {
		return handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, o client.Object) []reconcile.Request {
			return r.having(ctx, o.GetNamespace(), ScheduleIndex, kind+"/"+o.GetName())
		})
	}
	respecified := builder.WithPredicates(predicate.GenerationChangedPredicate{})
	retargeted := func(e event.UpdateEvent) bool {
		return !equality.Semantic.DeepEqual(IndexTarget(e.ObjectOld), IndexTarget(e.ObjectNew)) || leaving(e) || mode(e.ObjectOld) != mode(e.ObjectNew)
	}
	return ctrl.NewControllerManagedBy(mgr).Named("ihpa").
		For(&kapacity.IntelligentHorizontalPodAutoscaler{}, builder.WithPredicates(predicate.Or[client.Object](
			predicate.GenerationChangedPredicate{}, predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
				return leaving(e) || !maps.Equal(wants.Settings(e.ObjectOld), wants.Settings(e.ObjectNew))
			}}))).
		Owns(&kapacity.ReplicaProfile{}, builder.WithPredicates(predicate.Funcs{UpdateFunc: profileChanged})).
		// Rivals: whoever scales the same target, when they come, go or turn to another.
		Watches(&autoscalingv2.HorizontalPodAutoscaler{}, byTarget(IndexTarget), builder.WithPredicates(predicate.Funcs{UpdateFunc: retargeted})).
		Watches(&kapacity.IntelligentHorizontalPodAutoscaler{}, byTarget(IndexTarget), builder.WithPredicates(predicate.Funcs{UpdateFunc: retargeted})).
		Watches(&kapacity.HorizontalPortrait{}, handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, o client.Object) []reconcile.Request {
			return r.having(ctx, o.GetNamespace(), PortraitIndex, o.GetName())
		}), builder.WithPredicates(predicate.Funcs{UpdateFunc: portraitChanged})).
		Watches(&zalando.ScalingSchedule{}, following(zalando.ScalingScheduleKind), respecified).
		Watches(&zalando.ClusterScalingSchedule{}, following(zalando.ClusterScalingScheduleKind), respecified).
		Watches(&appsv1.Deployment{}, workload, coming).
		Watches(&appsv1.StatefulSet{}, workload, coming).
		Watches(&appsv1.ReplicaSet{}, workload, coming).
		WatchesRawSource(metrics.Source()).
		WithOptions(target.ControllerOptions(opts.Concurrency)).
		Complete(r)
}

// having lists the IHPAs with this value in an index.
func (r *Reconciler) having(ctx context.Context, namespace, index, value string) []reconcile.Request {
	list := &kapacity.IntelligentHorizontalPodAutoscalerList{}
	// An error is a cache that is not there yet; it lists everything once it is.
	if r.Client.List(ctx, list, client.InNamespace(namespace), client.MatchingFields{index: value}, client.UnsafeDisableDeepCopy,
		client.DisableReadYourWritesConsistency) != nil {
		return nil
	}
	out := make([]reconcile.Request, len(list.Items))
	for i := range list.Items {
		out[i].NamespacedName = client.ObjectKeyFromObject(&list.Items[i])
	}
	return out
}

func leaving(e event.UpdateEvent) bool {
	return e.ObjectOld.GetDeletionTimestamp().IsZero() != e.ObjectNew.GetDeletionTimestamp().IsZero()
}

func mode(o client.Object) kapacity.ScaleMode {
	if i, ok := o.(*kapacity.IntelligentHorizontalPodAutoscaler); ok {
		return i.Spec.ScaleMode
	}
	return ""
}

func profileChanged(e event.UpdateEvent) bool {
	old, ok1 := e.ObjectOld.(*kapacity.ReplicaProfile)
	rp, ok2 := e.ObjectNew.(*kapacity.ReplicaProfile)
	return !ok1 || !ok2 || old.Generation != rp.Generation || leaving(e) || !equality.Semantic.DeepEqual(old.Status, rp.Status)
}

func portraitChanged(e event.UpdateEvent) bool {
	old, ok1 := e.ObjectOld.(*kapacity.HorizontalPortrait)
	hp, ok2 := e.ObjectNew.(*kapacity.HorizontalPortrait)
	return !ok1 || !ok2 || !equality.Semantic.DeepEqual(old.Status, hp.Status) || leaving(e)
}
