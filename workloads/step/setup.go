package step

import (
	"context"
	"fmt"
	"net/http"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/cluster"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	kai "github.com/kubetide/kubetide/api/kai/v1alpha1"
	engineevent "github.com/kubetide/kubetide/scaler/event"
	"github.com/kubetide/kubetide/scaler/target"
)

// SetupOptions are those of Setup.
type SetupOptions struct {
	Options
	// Concurrency is how many objects of a kind are worked on at once; 0 means 16.
	Concurrency int
}

// lookForCRDs is how often it is looked for CRDs that are not there.
const lookForCRDs = time.Minute

// Setup adds the controllers of Steps and Pipelines to the manager, to run on the leader. Where their CRDs are not installed, it does so
// once they are: without them, the controllers would end the manager, and the engine with it.
func Setup(mgr ctrl.Manager, opts SetupOptions) error {
	there, err := installed(mgr.GetRESTMapper())
	if there {
		return start(mgr, opts)
	}
	return mgr.Add(manager.RunnableFunc(func(ctx context.Context) error {
		log := mgr.GetLogger().WithName("step")
		for ; !there; there, err = installed(mgr.GetRESTMapper()) {
			again := time.Second // an API server that is away says nothing of CRDs
			if err == nil {
				log.Info("The CRDs of core.kai.io are not installed; Steps are carried out once they are")
				again = lookForCRDs
			}
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(again):
			}
		}
		return start(mgr, opts)
	}))
}

func installed(mapper apimeta.RESTMapper) (bool, error) {
	for _, kind := range []string{kai.StepKind, kai.PipelineKind, kai.ModelRuntimeKind} {
		gvk := kai.SchemeGroupVersion.WithKind(kind)
		if _, err := mapper.RESTMapping(gvk.GroupKind(), gvk.Version); apimeta.IsNoMatchError(err) {
			return false, nil
		} else if err != nil {
			return false, fmt.Errorf("look for the CRD of %s: %w", kind, err)
		}
	}
	return true, nil
}

// start adds the controllers. They have a cache of their own, which holds only objects that carry the label of a Step: the engine's
// holds others, and of some of them less.
func start(mgr ctrl.Manager, opts SetupOptions) error {
	conditionsTold.reset()
	own, err := newCluster(mgr)
	if err != nil {
		return fmt.Errorf("cache of Steps: %w", err)
	}
	if err := mgr.Add(own); err != nil {
		return fmt.Errorf("cache of Steps: %w", err)
	}
	c, err := client.New(mgr.GetConfig(), client.Options{HTTPClient: mgr.GetHTTPClient(), Scheme: mgr.GetScheme(), Mapper: mgr.GetRESTMapper(),
		Cache: &client.CacheOptions{Reader: own.GetCache(), EnableReadYourWritesConsistency: ptr.To(true)}})
	if err != nil {
		return fmt.Errorf("client of Steps: %w", err)
	}
	recorder, err := engineevent.NewRecorder(mgr, kai.StepEventComponent)
	if err != nil {
		return err
	}
	r := &steps{children: children{client: c, direct: mgr.GetAPIReader(), recorder: recorder, owners: stepOwners}, options: opts.Options}
	err = ctrl.NewControllerManagedBy(mgr).Named("step").
		WatchesRawSource(source.Kind(own.GetCache(), &kai.Step{}, &handler.TypedEnqueueRequestForObject[*kai.Step]{}, spoken[*kai.Step]())).
		WatchesRawSource(source.Kind(own.GetCache(), &appsv1.Deployment{}, enqueue[*appsv1.Deployment](stepOwners), predicate.TypedFuncs[*appsv1.Deployment]{UpdateFunc: deploymentChanged})).
		WatchesRawSource(source.Kind(own.GetCache(), &corev1.Service{}, enqueue[*corev1.Service](stepOwners))).
		WatchesRawSource(source.Kind(own.GetCache(), &autoscalingv2.HorizontalPodAutoscaler{}, enqueue[*autoscalingv2.HorizontalPodAutoscaler](stepOwners), predicate.TypedFuncs[*autoscalingv2.HorizontalPodAutoscaler]{UpdateFunc: hpaChanged})).
		WatchesRawSource(source.Kind(own.GetCache(), &kai.ModelRuntime{}, handler.TypedEnqueueRequestsFromMapFunc(r.withModels), predicate.TypedGenerationChangedPredicate[*kai.ModelRuntime]{})).
		WithOptions(target.ControllerOptions(opts.Concurrency)).
		Complete(r)
	if err != nil {
		return err
	}
	if recorder, err = engineevent.NewRecorder(mgr, kai.PipelineEventComponent); err != nil {
		return err
	}
	p := &pipelines{children{client: c, direct: mgr.GetAPIReader(), recorder: recorder, owners: pipelineOwners}}
	return ctrl.NewControllerManagedBy(mgr).Named("pipeline").
		WatchesRawSource(source.Kind(own.GetCache(), &kai.Pipeline{}, &handler.TypedEnqueueRequestForObject[*kai.Pipeline]{}, spoken[*kai.Pipeline]())).
		WatchesRawSource(source.Kind(own.GetCache(), &kai.Step{}, enqueue[*kai.Step](pipelineOwners))).
		WithOptions(target.ControllerOptions(opts.Concurrency)).
		Complete(p)
}

func newCluster(mgr ctrl.Manager) (cluster.Cluster, error) {
	step, err := labels.NewRequirement(kai.StepLabel, selection.Exists, nil)
	if err != nil {
		return nil, err
	}
	ours := cache.ByObject{Label: labels.NewSelector().Add(*step)}
	return cluster.New(mgr.GetConfig(), func(o *cluster.Options) {
		o.Scheme, o.HTTPClient, o.Logger = mgr.GetScheme(), mgr.GetHTTPClient(), mgr.GetLogger()
		o.MapperProvider = func(*rest.Config, *http.Client) (apimeta.RESTMapper, error) { return mgr.GetRESTMapper(), nil }
		o.Cache = cache.Options{DefaultTransform: cache.TransformStripManagedFields(), ByObject: map[client.Object]cache.ByObject{
			&appsv1.Deployment{}: ours, &corev1.Service{}: ours, &autoscalingv2.HorizontalPodAutoscaler{}: ours}}
	})
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

// spoken passes what people say of an object, and not what we say of it in its status.
func spoken[T client.Object]() predicate.TypedPredicate[T] {
	return predicate.TypedFuncs[T]{UpdateFunc: func(e event.TypedUpdateEvent[T]) bool {
		return e.ObjectOld.GetGeneration() != e.ObjectNew.GetGeneration() || described(e.ObjectOld, e.ObjectNew)
	}}
}

func described(old, now client.Object) bool {
	return !equality.Semantic.DeepEqual(old.GetLabels(), now.GetLabels()) || !equality.Semantic.DeepEqual(old.GetAnnotations(), now.GetAnnotations()) ||
		!equality.Semantic.DeepEqual(old.GetOwnerReferences(), now.GetOwnerReferences()) || old.GetDeletionTimestamp().IsZero() != now.GetDeletionTimestamp().IsZero()
}

// deploymentChanged drops the counts of pods, and passes what they come to.
func deploymentChanged(e event.TypedUpdateEvent[*appsv1.Deployment]) bool {
	return e.ObjectOld.Generation != e.ObjectNew.Generation || described(e.ObjectOld, e.ObjectNew) ||
		!equality.Semantic.DeepEqual(e.ObjectOld.Status.Conditions, e.ObjectNew.Status.Conditions)
}

// hpaChanged drops the metrics that an HPA looks at every 15 seconds. HPAs may have no generation.
func hpaChanged(e event.TypedUpdateEvent[*autoscalingv2.HorizontalPodAutoscaler]) bool {
	return !equality.Semantic.DeepEqual(e.ObjectOld.Spec, e.ObjectNew.Spec) || described(e.ObjectOld, e.ObjectNew) ||
		!equality.Semantic.DeepEqual(e.ObjectOld.Status.Conditions, e.ObjectNew.Status.Conditions)
}
