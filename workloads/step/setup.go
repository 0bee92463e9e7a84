package step

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	kai "github.com/kubetide/kubetide/api/kai/v1alpha1"
	engineevent "github.com/kubetide/kubetide/scaler/event"
	"github.com/kubetide/kubetide/scaler/target"
	"github.com/kubetide/kubetide/workloads/module"
)

// SetupOptions are those of Setup.
type SetupOptions struct {
	Options
	// Concurrency is how many objects of a kind are worked on at once; 0 means 16.
	Concurrency int
}

// Setup adds the controllers of Steps and Pipelines to the manager, to run on the leader once their CRDs are installed.
func Setup(mgr ctrl.Manager, opts SetupOptions) error {
	var kinds []schema.GroupVersionKind
	for _, kind := range []string{kai.StepKind, kai.PipelineKind, kai.ModelRuntimeKind} {
		kinds = append(kinds, kai.SchemeGroupVersion.WithKind(kind))
	}
	return module.Setup(mgr, "step", kinds, func() error { return start(mgr, opts) })
}

func start(mgr ctrl.Manager, opts SetupOptions) error {
	conditionsTold.reset() // of what the manager before may have noted while it ended
	if err := mgr.Add(conditionsTold); err != nil {
		return fmt.Errorf("metrics of Steps: %w", err)
	}
	own, err := module.NewCluster(mgr, kai.StepLabel, &appsv1.Deployment{}, &corev1.Service{}, &autoscalingv2.HorizontalPodAutoscaler{})
	if err != nil {
		return fmt.Errorf("cache of Steps: %w", err)
	}
	if err := mgr.Add(own); err != nil {
		return fmt.Errorf("cache of Steps: %w", err)
	}
	recorder, err := engineevent.NewRecorder(mgr, kai.StepEventComponent)
	if err != nil {
		return err
	}
	r := &steps{children: children{client: own.GetClient(), direct: mgr.GetAPIReader(), recorder: recorder, owners: stepOwners}, options: opts.Options}
	err = ctrl.NewControllerManagedBy(mgr).Named("step").
		WatchesRawSource(source.Kind(own.GetCache(), &kai.Step{}, &handler.TypedEnqueueRequestForObject[*kai.Step]{}, module.Changed[*kai.Step](nil))).
		WatchesRawSource(source.Kind(own.GetCache(), &appsv1.Deployment{}, enqueue[*appsv1.Deployment](stepOwners), module.Changed(otherConditions))).
		WatchesRawSource(source.Kind(own.GetCache(), &corev1.Service{}, enqueue[*corev1.Service](stepOwners))).
		WatchesRawSource(source.Kind(own.GetCache(), &autoscalingv2.HorizontalPodAutoscaler{}, enqueue[*autoscalingv2.HorizontalPodAutoscaler](stepOwners), module.Changed(otherSpecOrConditions))).
		WatchesRawSource(source.Kind(own.GetCache(), &kai.ModelRuntime{}, handler.TypedEnqueueRequestsFromMapFunc(r.withModels), predicate.TypedGenerationChangedPredicate[*kai.ModelRuntime]{})).
		WithOptions(target.ControllerOptions(opts.Concurrency)).
		Complete(r)
	if err != nil {
		return err
	}
	if recorder, err = engineevent.NewRecorder(mgr, kai.PipelineEventComponent); err != nil {
		return err
	}
	p := &pipelines{children{client: own.GetClient(), direct: mgr.GetAPIReader(), recorder: recorder, owners: pipelineOwners}}
	return ctrl.NewControllerManagedBy(mgr).Named("pipeline").
		WatchesRawSource(source.Kind(own.GetCache(), &kai.Pipeline{}, &handler.TypedEnqueueRequestForObject[*kai.Pipeline]{}, module.Changed[*kai.Pipeline](nil))).
		WatchesRawSource(source.Kind(own.GetCache(), &kai.Step{}, enqueue[*kai.Step](pipelineOwners))).
		WithOptions(target.ControllerOptions(opts.Concurrency)).
		Complete(p)
}

// owners finds whose an object is, or was before its owner reference or its label went.
type owners struct{ kind, label string }

var (
	stepOwners     = owners{kai.StepKind, kai.StepLabel}
	pipelineOwners = owners{kai.PipelineKind, kai.PipelineLabel}
)

func (o owners) requests(object client.Object) []reconcile.Request {
	names := map[string]bool{}
	if name := object.GetLabels()[o.label]; name != "" {
		names[name] = true
	}
	if c := metav1.GetControllerOfNoCopy(object); c != nil && c.Kind == o.kind {
		names[c.Name] = true
	}
	var out []reconcile.Request
	for name := range names {
		out = append(out, reconcile.Request{NamespacedName: types.NamespacedName{Namespace: object.GetNamespace(), Name: name}})
	}
	return out
}

func enqueue[T client.Object](o owners) handler.TypedEventHandler[T, reconcile.Request] {
	return handler.TypedEnqueueRequestsFromMapFunc(func(_ context.Context, object T) []reconcile.Request { return o.requests(object) })
}

// withModels are the Steps that may take another runtime, or what it brings.
func (r *steps) withModels(ctx context.Context, _ *kai.ModelRuntime) []reconcile.Request {
	all := &kai.StepList{}
	// An error is a cache that is not there yet; it lists everything once it is.
	if r.client.List(ctx, all, client.UnsafeDisableDeepCopy, client.DisableReadYourWritesConsistency) != nil {
		return nil
	}
	var out []reconcile.Request
	for i := range all.Items {
		if all.Items[i].Spec.Model != nil {
			out = append(out, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&all.Items[i])})
		}
	}
	return out
}

// otherConditions drops the counts of pods, and passes what they come to.
func otherConditions(old, now *appsv1.Deployment) bool {
	return !equality.Semantic.DeepEqual(old.Status.Conditions, now.Status.Conditions)
}

// otherSpecOrConditions drops the metrics that an HPA looks at every 15 seconds. HPAs may have no generation.
func otherSpecOrConditions(old, now *autoscalingv2.HorizontalPodAutoscaler) bool {
	return !equality.Semantic.DeepEqual(old.Spec, now.Spec) || !equality.Semantic.DeepEqual(old.Status.Conditions, now.Status.Conditions)
}
