package horizontalportrait

import (
	"context"
	"fmt"
	"maps"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	"github.com/kubetide/kubetide/internal/decision"
	"github.com/kubetide/kubetide/internal/sample"
	engineevent "github.com/kubetide/kubetide/scaler/event"
	"github.com/kubetide/kubetide/scaler/target"
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
	if opts.Clock == nil {
		opts.Clock = clock.RealClock{}
	}
	wants := NewWants(opts.Demand, opts.Clock)
	// A manager that has lost the lead ends, and its successor in this process asks for itself.
	if err := mgr.Add(manager.RunnableFunc(func(ctx context.Context) error {
		<-ctx.Done()
		wants.Close()
		return nil
	})); err != nil {
		return fmt.Errorf("end of the HorizontalPortrait controller: %w", err)
	}
	r := &Reconciler{Client: c, Recorder: recorder, Clock: opts.Clock, Metrics: wants, Details: opts.Details, Jobs: opts.Jobs}
	coming := builder.WithPredicates(predicate.Funcs{UpdateFunc: func(event.UpdateEvent) bool { return false }, DeleteFunc: func(event.DeleteEvent) bool { return false }})
	b := ctrl.NewControllerManagedBy(mgr).Named("horizontalportrait").
		For(&kapacity.HorizontalPortrait{}, builder.WithPredicates(predicate.Funcs{UpdateFunc: changed})).
		Watches(&appsv1.Deployment{}, handler.EnqueueRequestsFromMapFunc(r.portraitsOf), coming).
		Watches(&appsv1.StatefulSet{}, handler.EnqueueRequestsFromMapFunc(r.portraitsOf), coming).
		Watches(&appsv1.ReplicaSet{}, handler.EnqueueRequestsFromMapFunc(r.portraitsOf), coming).
		WatchesRawSource(wants.source()).
		WithOptions(target.ControllerOptions(opts.Concurrency))
	if opts.Watch != nil {
		opts.Watch(b)
	}
	return b.Complete(r)
}

// source wakes the controller by answers, at once. A queue holds each portrait once.
func (w *Wants) source() source.Source {
	return source.Func(func(_ context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
		w.Wake(queue.Add)
		return nil
	})
}

// changed passes what the portrait is made from, and its deletion. Its status is ours, or an external generator's.
func changed(e event.UpdateEvent) bool {
	return e.ObjectOld.GetGeneration() != e.ObjectNew.GetGeneration() ||
		e.ObjectOld.GetDeletionTimestamp().IsZero() != e.ObjectNew.GetDeletionTimestamp().IsZero() ||
		!maps.Equal(settings(e.ObjectOld), settings(e.ObjectNew))
}

// settings are the annotations that say how metrics are collected.
func settings(o client.Object) map[string]string {
	out := maps.Clone(o.GetAnnotations())
	maps.DeleteFunc(out, func(key, _ string) bool { return !strings.HasPrefix(key, metricAnnotations) })
	return out
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
