package replicaprofile

import (
	"context"
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	engineevent "github.com/kubetide/kubetide/scaler/event"
	"github.com/kubetide/kubetide/scaler/target"
)

// TargetIndex is the field index of ReplicaProfiles by the Key of their target.
const TargetIndex = "spec.scaleTargetRef"

// Options of Setup.
type Options struct {
	// Clock is the real one if nil.
	Clock clock.PassiveClock
	// Concurrency is how many profiles are worked on at once; 0 means 16.
	Concurrency int
}

// IndexTarget is the function of TargetIndex.
func IndexTarget(o client.Object) []string {
	return []string{target.Key(o.(*kapacity.ReplicaProfile).Spec.ScaleTargetRef)}
}

// Setup adds the controller to the manager, to run on the leader. It registers the field indexes of package target.
func Setup(mgr ctrl.Manager, opts Options) error {
	ctx := context.Background()
	if err := target.Index(ctx, mgr.GetFieldIndexer()); err != nil {
		return err
	}
	if err := mgr.GetFieldIndexer().IndexField(ctx, &kapacity.ReplicaProfile{}, TargetIndex, IndexTarget); err != nil {
		return fmt.Errorf("index ReplicaProfiles by target: %w", err)
	}
	c, err := target.NewClient(mgr)
	if err != nil {
		return fmt.Errorf("client of the ReplicaProfile controller: %w", err)
	}
	recorder, err := engineevent.NewRecorder(mgr, kapacity.ReplicaProfileEventComponent)
	if err != nil {
		return err
	}
	if opts.Clock == nil {
		opts.Clock = clock.RealClock{}
	}
	r := &Reconciler{Client: c, Live: mgr.GetAPIReader(), Recorder: recorder, Clock: opts.Clock}
	return ctrl.NewControllerManagedBy(mgr).Named("replicaprofile").
		For(&kapacity.ReplicaProfile{}, builder.WithPredicates(predicate.Or[client.Object](predicate.GenerationChangedPredicate{}, deletion()))).
		Watches(&kapacity.ReplicaProfile{}, handler.EnqueueRequestsFromMapFunc(r.profilesOfProfile), builder.WithPredicates(predicate.Funcs{
			CreateFunc: func(event.CreateEvent) bool { return false }, UpdateFunc: func(event.UpdateEvent) bool { return false }})).
		Watches(&corev1.Pod{}, handler.EnqueueRequestsFromMapFunc(r.profilesOfPod), builder.WithPredicates(predicate.Funcs{UpdateFunc: podChanged})).
		Watches(&appsv1.Deployment{}, handler.EnqueueRequestsFromMapFunc(r.profilesOfWorkload), builder.WithPredicates(predicate.Funcs{UpdateFunc: workloadChanged})).
		Watches(&appsv1.StatefulSet{}, handler.EnqueueRequestsFromMapFunc(r.profilesOfWorkload), builder.WithPredicates(predicate.Funcs{UpdateFunc: workloadChanged})).
		Watches(&appsv1.ReplicaSet{}, handler.EnqueueRequestsFromMapFunc(r.profilesOfWorkload), builder.WithPredicates(predicate.Funcs{UpdateFunc: workloadChanged})).
		WithOptions(target.ControllerOptions(opts.Concurrency)).
		Complete(r)
}

func deletion() predicate.Predicate {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		return e.ObjectOld.GetDeletionTimestamp().IsZero() != e.ObjectNew.GetDeletionTimestamp().IsZero()
	}}
}

func (r *Reconciler) profilesOfPod(ctx context.Context, o client.Object) []reconcile.Request {
	keys, open := target.OwnerKeys(ctx, r.Client, o)
	return r.profilesAbove(ctx, o.GetNamespace(), keys, open)
}

// profilesOfProfile are those that may have waited for one that is gone.
func (r *Reconciler) profilesOfProfile(ctx context.Context, o client.Object) []reconcile.Request {
	return r.profiles(ctx, o.GetNamespace(), IndexTarget(o))
}

func (r *Reconciler) profilesOfWorkload(ctx context.Context, o client.Object) []reconcile.Request {
	keys, open := target.OwnerKeys(ctx, r.Client, o)
	return r.profilesAbove(ctx, o.GetNamespace(), append(keys, target.ObjectKey(o)), open)
}

// profilesAbove are those of the keys. If there is none, and what is above the last key is unknown, all profiles of the namespace may be
// meant whose targets are of kinds that are not watched.
func (r *Reconciler) profilesAbove(ctx context.Context, namespace string, keys []string, open bool) []reconcile.Request {
	out := r.profiles(ctx, namespace, keys)
	if len(out) > 0 || !open {
		return out
	}
	all := &kapacity.ReplicaProfileList{}
	if r.Client.List(ctx, all, client.InNamespace(namespace), client.UnsafeDisableDeepCopy, client.DisableReadYourWritesConsistency) != nil {
		return nil
	}
	for i := range all.Items {
		if !target.Watched(all.Items[i].Spec.ScaleTargetRef) {
			out = append(out, reconcile.Request{NamespacedName: types.NamespacedName{Namespace: namespace, Name: all.Items[i].Name}})
		}
	}
	return out
}

func (r *Reconciler) profiles(ctx context.Context, namespace string, keys []string) []reconcile.Request {
	var out []reconcile.Request
	for _, key := range keys {
		found := &kapacity.ReplicaProfileList{}
		// An error is a cache that is not there yet; it lists everything once it is.
		if r.Client.List(ctx, found, client.InNamespace(namespace), client.MatchingFields{TargetIndex: key}, client.UnsafeDisableDeepCopy,
			client.DisableReadYourWritesConsistency) != nil {
			continue
		}
		for i := range found.Items {
			out = append(out, reconcile.Request{NamespacedName: types.NamespacedName{Namespace: namespace, Name: found.Items[i].Name}})
		}
	}
	return out
}

// podChanged passes what podstate looks at, and drops the rest of a pod's noise.
func podChanged(e event.UpdateEvent) bool {
	old, ok1 := e.ObjectOld.(*corev1.Pod)
	pod, ok2 := e.ObjectNew.(*corev1.Pod)
	if !ok1 || !ok2 {
		return true
	}
	return old.Status.Phase != pod.Status.Phase ||
		old.DeletionTimestamp.IsZero() != pod.DeletionTimestamp.IsZero() ||
		old.Spec.NodeName != pod.Spec.NodeName ||
		!equality.Semantic.DeepEqual(old.Labels, pod.Labels) ||
		old.Annotations[corev1.PodDeletionCost] != pod.Annotations[corev1.PodDeletionCost] ||
		!equality.Semantic.DeepEqual(old.OwnerReferences, pod.OwnerReferences) ||
		condition(old, corev1.PodReady) != condition(pod, corev1.PodReady) ||
		condition(old, kapacity.OnlineConditionType) != condition(pod, kapacity.OnlineConditionType)
}

func condition(pod *corev1.Pod, kind corev1.PodConditionType) corev1.ConditionStatus {
	i := slices.IndexFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == kind })
	if i < 0 {
		return ""
	}
	return pod.Status.Conditions[i].Status
}

// workloadChanged passes changes of the spec, /scale's included, what tells a rollout's beginning and end, and
// that a ReplicaSet has seen pods become unready.
func workloadChanged(e event.UpdateEvent) bool {
	if e.ObjectOld.GetGeneration() != e.ObjectNew.GetGeneration() || !equality.Semantic.DeepEqual(e.ObjectOld.GetOwnerReferences(), e.ObjectNew.GetOwnerReferences()) {
		return true
	}
	switch o := e.ObjectNew.(type) {
	case *appsv1.StatefulSet:
		old := e.ObjectOld.(*appsv1.StatefulSet)
		return old.Status.CurrentRevision != o.Status.CurrentRevision || old.Status.UpdateRevision != o.Status.UpdateRevision
	case *appsv1.ReplicaSet:
		old := e.ObjectOld.(*appsv1.ReplicaSet)
		return (old.Status.Replicas > 0) != (o.Status.Replicas > 0) || old.Status.ReadyReplicas > o.Status.ReadyReplicas
	}
	return false
}
