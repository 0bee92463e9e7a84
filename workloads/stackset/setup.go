package stackset

import (
	"context"
	"fmt"
	"net/http"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
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

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	zalando "github.com/kubetide/kubetide/api/zalando/v1"
	engineevent "github.com/kubetide/kubetide/scaler/event"
	"github.com/kubetide/kubetide/scaler/target"
	"github.com/kubetide/kubetide/workloads/stackset/generate"
)

// EventComponent is the source of the Events, and LeaderElectionID the Lease of a server that runs StackSets only.
const (
	EventComponent   = "stackset-controller"
	LeaderElectionID = "kubetide-stackset"
)

// SetupOptions are those of Setup.
type SetupOptions struct {
	Options
	// Concurrency is how many StackSets are worked on at once; 0 means 16.
	Concurrency int
}

const (
	// lookForCRDs is how often it is looked for CRDs that are not there.
	lookForCRDs = time.Minute
	// ownerIndex finds Stacks by the UIDs of their owners.
	ownerIndex = "metadata.ownerReferences.uid"
	// serviceIndex finds EndpointSlices by their Service.
	serviceIndex = "service"
)

// Setup adds the controller of StackSets to the manager, to run on the leader. Where the CRDs are not installed, it does so once they are:
// without them, the controller would end the manager, and the engine with it.
func Setup(mgr ctrl.Manager, opts SetupOptions) error {
	there, err := installed(mgr.GetRESTMapper(), opts.Options)
	if there {
		return start(mgr, opts)
	}
	return mgr.Add(manager.RunnableFunc(func(ctx context.Context) error {
		log := mgr.GetLogger().WithName("stackset")
		for ; !there; there, err = installed(mgr.GetRESTMapper(), opts.Options) {
			again := time.Second // an API server that is away says nothing of CRDs
			if err == nil {
				log.Info("The CRDs of StackSets are not installed, or skipper's of RouteGroups; StackSets are carried out once they are")
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

func installed(mapper apimeta.RESTMapper, o Options) (bool, error) {
	needed := []string{zalando.StackSetKind, zalando.StackKind}
	if o.RouteGroups {
		needed = append(needed, zalando.RouteGroupKind)
	}
	for _, kind := range needed {
		if there, err := known(mapper, zalando.SchemeGroupVersion.WithKind(kind)); !there {
			return false, err
		}
	}
	return true, nil
}

func known(mapper apimeta.RESTMapper, gvk schema.GroupVersionKind) (bool, error) {
	if _, err := mapper.RESTMapping(gvk.GroupKind(), gvk.Version); apimeta.IsNoMatchError(err) {
		return false, nil
	} else if err != nil {
		return false, fmt.Errorf("look for the CRD of %s: %w", gvk.Kind, err)
	}
	return true, nil
}

// start adds the controller. It has a cache of its own, which holds only objects that carry the label of a StackSet: the engine's holds
// others, and of some of them less.
func start(mgr ctrl.Manager, opts SetupOptions) error {
	told.reset()
	ihpas, err := known(mgr.GetRESTMapper(), kapacity.SchemeGroupVersion.WithKind(kapacity.IHPAKind))
	if err != nil {
		return err
	}
	own, err := newCluster(mgr, opts.RouteGroups, ihpas)
	if err != nil {
		return fmt.Errorf("cache of StackSets: %w", err)
	}
	if err := own.GetCache().IndexField(context.Background(), &zalando.Stack{}, ownerIndex, ownerUIDs); err != nil {
		return fmt.Errorf("cache of StackSets: %w", err)
	}
	if err := own.GetCache().IndexField(context.Background(), &discoveryv1.EndpointSlice{}, serviceIndex, services); err != nil {
		return fmt.Errorf("cache of StackSets: %w", err)
	}
	if err := mgr.Add(own); err != nil {
		return fmt.Errorf("cache of StackSets: %w", err)
	}
	cached, err := client.New(mgr.GetConfig(), client.Options{HTTPClient: mgr.GetHTTPClient(), Scheme: mgr.GetScheme(), Mapper: mgr.GetRESTMapper(),
		Cache: &client.CacheOptions{Reader: own.GetCache(), EnableReadYourWritesConsistency: ptr.To(true)}})
	if err != nil {
		return fmt.Errorf("client of StackSets: %w", err)
	}
	recorder, err := engineevent.NewRecorder(mgr, EventComponent)
	if err != nil {
		return err
	}
	c := &controller{client: cached, direct: mgr.GetAPIReader(), recorder: recorder, clock: clock.RealClock{}, options: opts.Options, ihpas: ihpas}
	w := watcher{own.GetCache()}
	b := ctrl.NewControllerManagedBy(mgr).Named("stackset").
		WatchesRawSource(source.Kind(w.cache, &zalando.StackSet{}, &handler.TypedEnqueueRequestForObject[*zalando.StackSet]{}, changed[*zalando.StackSet](nil))).
		WatchesRawSource(source.Kind(w.cache, &zalando.Stack{}, handler.TypedEnqueueRequestsFromMapFunc(ownersOfStack), changed[*zalando.Stack](nil))).
		WatchesRawSource(source.Kind(w.cache, &appsv1.Deployment{}, owners[*appsv1.Deployment](w), changed(func(old, now *appsv1.Deployment) bool {
			a, b := old.Status, now.Status
			return a.Replicas != b.Replicas || a.ReadyReplicas != b.ReadyReplicas || a.UpdatedReplicas != b.UpdatedReplicas || a.ObservedGeneration != b.ObservedGeneration
		}))).
		WatchesRawSource(source.Kind(w.cache, &corev1.Service{}, owners[*corev1.Service](w), changed(func(old, now *corev1.Service) bool {
			return !equality.Semantic.DeepEqual(old.Spec, now.Spec)
		}))).
		WatchesRawSource(source.Kind(w.cache, &autoscalingv2.HorizontalPodAutoscaler{}, owners[*autoscalingv2.HorizontalPodAutoscaler](w), changed(func(old, now *autoscalingv2.HorizontalPodAutoscaler) bool {
			return !equality.Semantic.DeepEqual(old.Spec, now.Spec) // it may have no generation
		}))).
		WatchesRawSource(source.Kind(w.cache, &networkingv1.Ingress{}, owners[*networkingv1.Ingress](w), changed[*networkingv1.Ingress](nil)))
	b = b.WatchesRawSource(source.Kind(w.cache, &discoveryv1.EndpointSlice{}, owners[*discoveryv1.EndpointSlice](w), changed(func(old, now *discoveryv1.EndpointSlice) bool {
		return !equality.Semantic.DeepEqual(old.Endpoints, now.Endpoints)
	})))
	if opts.RouteGroups {
		b = b.WatchesRawSource(source.Kind(w.cache, &zalando.RouteGroup{}, owners[*zalando.RouteGroup](w), changed[*zalando.RouteGroup](nil)))
	}
	if ihpas {
		b = b.WatchesRawSource(source.Kind(w.cache, &kapacity.IntelligentHorizontalPodAutoscaler{}, owners[*kapacity.IntelligentHorizontalPodAutoscaler](w), changed[*kapacity.IntelligentHorizontalPodAutoscaler](nil)))
	}
	return b.WithOptions(target.ControllerOptions(opts.Concurrency)).Complete(c)
}

func newCluster(mgr ctrl.Manager, routeGroups, ihpas bool) (cluster.Cluster, error) {
	labelled, err := labels.NewRequirement(generate.StackSetLabel, selection.Exists, nil)
	if err != nil {
		return nil, err
	}
	ours := cache.ByObject{Label: labels.NewSelector().Add(*labelled)}
	by := map[client.Object]cache.ByObject{
		&appsv1.Deployment{}: ours, &corev1.Service{}: ours, &autoscalingv2.HorizontalPodAutoscaler{}: ours, &networkingv1.Ingress{}: ours,
		&discoveryv1.EndpointSlice{}: ours} // they have the labels of their Service
	if routeGroups {
		by[&zalando.RouteGroup{}] = ours
	}
	if ihpas {
		by[&kapacity.IntelligentHorizontalPodAutoscaler{}] = ours
	}
	return cluster.New(mgr.GetConfig(), func(o *cluster.Options) {
		o.Scheme, o.HTTPClient, o.Logger = mgr.GetScheme(), mgr.GetHTTPClient(), mgr.GetLogger()
		o.MapperProvider = func(*rest.Config, *http.Client) (apimeta.RESTMapper, error) { return mgr.GetRESTMapper(), nil }
		o.Cache = cache.Options{DefaultTransform: cache.TransformStripManagedFields(), ByObject: by}
	})
}

func ownerUIDs(o client.Object) []string {
	var out []string
	for _, owner := range o.GetOwnerReferences() {
		out = append(out, string(owner.UID))
	}
	return out
}

func services(o client.Object) []string { return []string{o.GetLabels()[discoveryv1.LabelServiceName]} }

// ownersOfStack are the StackSets that a Stack belongs to. None of them is its controller, as upstream has it.
func ownersOfStack(_ context.Context, stack *zalando.Stack) []reconcile.Request {
	return requests(stack)
}

func requests(stack *zalando.Stack) (out []reconcile.Request) {
	for _, owner := range stack.OwnerReferences {
		if owner.Kind == zalando.StackSetKind {
			out = append(out, reconcile.Request{NamespacedName: types.NamespacedName{Namespace: stack.Namespace, Name: owner.Name}})
		}
	}
	return out
}

type watcher struct{ cache cache.Cache }

// owners finds the StackSets of what belongs to a Stack: by the Stack that owns it, or by the label once that is gone.
func owners[T client.Object](w watcher) handler.TypedEventHandler[T, reconcile.Request] {
	return handler.TypedEnqueueRequestsFromMapFunc(func(ctx context.Context, o T) []reconcile.Request {
		for _, owner := range o.GetOwnerReferences() {
			stack := &zalando.Stack{}
			// A Service has the name of its Stack.
			if (owner.Kind == zalando.StackKind || owner.Kind == "Service") && w.cache.Get(ctx, types.NamespacedName{Namespace: o.GetNamespace(), Name: owner.Name}, stack) == nil {
				return requests(stack)
			}
		}
		return []reconcile.Request{{NamespacedName: types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetLabels()[generate.StackSetLabel]}}}
	})
}

// changed passes what people say of an object, and of what it says itself only what counts here.
func changed[T client.Object](counts func(old, now T) bool) predicate.TypedPredicate[T] {
	return predicate.TypedFuncs[T]{UpdateFunc: func(e event.TypedUpdateEvent[T]) bool {
		old, now := e.ObjectOld, e.ObjectNew
		return old.GetGeneration() != now.GetGeneration() || !equality.Semantic.DeepEqual(old.GetLabels(), now.GetLabels()) ||
			!equality.Semantic.DeepEqual(old.GetAnnotations(), now.GetAnnotations()) || !equality.Semantic.DeepEqual(old.GetOwnerReferences(), now.GetOwnerReferences()) ||
			old.GetDeletionTimestamp().IsZero() != now.GetDeletionTimestamp().IsZero() || counts != nil && counts(old, now)
	}}
}
