package horizontalportrait

import (
	"context"
	"fmt"
	"maps"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	"github.com/kubetide/kubetide/internal/decision"
	"github.com/kubetide/kubetide/internal/sample"
	engineevent "github.com/kubetide/kubetide/scaler/event"
	"github.com/kubetide/kubetide/scaler/target"
	"github.com/kubetide/kubetide/scaler/wants"
)

// TargetIndex is the field index of HorizontalPortraits by the Key of their target.
const TargetIndex = "spec.scaleTargetRef"

// IndexTarget is the function of TargetIndex.
func IndexTarget(o client.Object) []string {
	return []string{target.Key(o.(*kapacity.HorizontalPortrait).Spec.ScaleTargetRef)}
}

// Options of Setup.
type Options struct {
	// Demand has metrics collected.
	Demand sample.Demand
	// Clock is the real one if nil.
	Clock clock.PassiveClock
	// Concurrency is how many portraits are worked on at once; 0 means 16.
	Concurrency int
	// Details keeps what each metric said last, for whoever explains; nil keeps nothing.
	Details *decision.Portraits
	// Jobs is nil where there is no place for jobs.
	Jobs Jobs
	// Watch adds what the Jobs are to be woken by; it may be nil.
	Watch func(*builder.Builder)
}

// New returns the Reconciler that Setup adds. Its client should be one of target.NewClient.
func New(c client.Client, recorder record.EventRecorder, opts Options) *Reconciler {
	if opts.Clock == nil {
		opts.Clock = clock.RealClock{}
	}
	return &Reconciler{Client: c, Recorder: recorder, Clock: opts.Clock, Metrics: wants.New[memory](opts.Demand, opts.Clock), Details: opts.Details, Jobs: opts.Jobs}
}

// Setup adds the controller to the manager, to run on the leader; metrics are collected while it leads. It needs
// replicaprofile.Setup in the same manager, whose field indexes it shares.
func Setup(mgr ctrl.Manager, opts Options) error {
	if err := mgr.GetFieldIndexer().IndexField(context.Background(), &kapacity.HorizontalPortrait{}, TargetIndex, IndexTarget); err != nil {
		return fmt.Errorf("index HorizontalPortraits by target: %w", err)
	}
	c, err := target.NewClient(mgr)
	if err != nil {
		return fmt.Errorf("client of the HorizontalPortrait controller: %w", err)
	}
	recorder, err := engineevent.NewRecorder(mgr, kapacity.HorizontalPortraitEventComponent)
	if err != nil {
		return err
	}
	r := New(c, recorder, opts)
	if err := r.Metrics.Run(mgr); err != nil {
		return fmt.Errorf("end of the HorizontalPortrait controller: %w", err)
	}
	respecified := builder.WithPredicates(predicate.Funcs{UpdateFunc: predicate.GenerationChangedPredicate{}.Update, DeleteFunc: func(event.DeleteEvent) bool { return false }})
	b := ctrl.NewControllerManagedBy(mgr).Named("horizontalportrait").
		For(&kapacity.HorizontalPortrait{}, builder.WithPredicates(predicate.Funcs{UpdateFunc: changed})).
		Watches(&appsv1.Deployment{}, handler.EnqueueRequestsFromMapFunc(r.portraitsOf), respecified).
		Watches(&appsv1.StatefulSet{}, handler.EnqueueRequestsFromMapFunc(r.portraitsOf), respecified).
		Watches(&appsv1.ReplicaSet{}, handler.EnqueueRequestsFromMapFunc(r.portraitsOf), respecified).
		WatchesRawSource(r.Metrics.Source()).
		WithOptions(target.ControllerOptions(opts.Concurrency))
	if opts.Watch != nil {
		opts.Watch(b)
	}
	return b.Complete(r)
}

// changed passes what the portrait is made from, and its deletion. Its status is ours, or an external generator's.
func changed(e event.UpdateEvent) bool {
	return e.ObjectOld.GetGeneration() != e.ObjectNew.GetGeneration() ||
		e.ObjectOld.GetDeletionTimestamp().IsZero() != e.ObjectNew.GetDeletionTimestamp().IsZero() ||
		!maps.Equal(wants.Settings(e.ObjectOld), wants.Settings(e.ObjectNew))
}

// portraitsOf are those that are about the workload.
func (r *Reconciler) portraitsOf(ctx context.Context, o client.Object) []reconcile.Request {
	found := &kapacity.HorizontalPortraitList{}
	// An error is a cache that is not there yet; it lists everything once it is.
	if r.Client.List(ctx, found, client.InNamespace(o.GetNamespace()), client.MatchingFields{TargetIndex: target.ObjectKey(o)},
		client.UnsafeDisableDeepCopy, client.DisableReadYourWritesConsistency) != nil {
		return nil
	}
	out := make([]reconcile.Request, len(found.Items))
	for i := range found.Items {
		out[i].NamespacedName = types.NamespacedName{Namespace: o.GetNamespace(), Name: found.Items[i].Name}
	}
	return out
}
