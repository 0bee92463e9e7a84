package stackset

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	zalando "github.com/kubetide/kubetide/api/zalando/v1"
	engineevent "github.com/kubetide/kubetide/scaler/event"
	"github.com/kubetide/kubetide/scaler/target"
	"github.com/kubetide/kubetide/workloads/module"
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
	// ownerIndex finds Stacks by the UIDs of their owners.
	ownerIndex = "metadata.ownerReferences.uid"
	// serviceIndex finds EndpointSlices by their Service.
	serviceIndex = "service"
)

// Setup adds the controller of StackSets to the manager, to run on the leader once their CRDs are installed, and skipper's if RouteGroups are
// switched on.
func Setup(mgr ctrl.Manager, opts SetupOptions) error {
	kinds := []schema.GroupVersionKind{zalando.SchemeGroupVersion.WithKind(zalando.StackSetKind), zalando.SchemeGroupVersion.WithKind(zalando.StackKind)}
	if opts.RouteGroups {
		kinds = append(kinds, zalando.SchemeGroupVersion.WithKind(zalando.RouteGroupKind))
	}
	return module.Setup(mgr, "stackset", kinds, func() error { return start(mgr, opts) })
}

func start(mgr ctrl.Manager, opts SetupOptions) error {
	told.reset() // of what the manager before may have noted while it ended
	if err := mgr.Add(told); err != nil {
		return fmt.Errorf("metrics of StackSets: %w", err)
	}
	ihpas, err := module.Served(mgr.GetRESTMapper(), kapacity.SchemeGroupVersion.WithKind(kapacity.IHPAKind))
	if err != nil {
		return err
	}
	// The EndpointSlices have the labels of their Service.
	held := []client.Object{&appsv1.Deployment{}, &corev1.Service{}, &autoscalingv2.HorizontalPodAutoscaler{}, &networkingv1.Ingress{}, &discoveryv1.EndpointSlice{}}
	if opts.RouteGroups {
		held = append(held, &zalando.RouteGroup{})
	}
	if ihpas {
		held = append(held, &kapacity.IntelligentHorizontalPodAutoscaler{})
	}
	own, err := module.NewCluster(mgr, generate.StackSetLabel, held...)
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
	recorder, err := engineevent.NewRecorder(mgr, EventComponent)
	if err != nil {
		return err
	}
	c := &controller{client: own.GetClient(), direct: mgr.GetAPIReader(), recorder: recorder, clock: clock.RealClock{}, options: opts.Options, ihpas: ihpas}
	w := watcher{own.GetCache()}
	b := ctrl.NewControllerManagedBy(mgr).Named("stackset").
		WatchesRawSource(source.Kind(w.cache, &zalando.StackSet{}, &handler.TypedEnqueueRequestForObject[*zalando.StackSet]{}, module.Changed[*zalando.StackSet](nil))).
		WatchesRawSource(source.Kind(w.cache, &zalando.Stack{}, handler.TypedEnqueueRequestsFromMapFunc(ownersOfStack), module.Changed[*zalando.Stack](nil))).
		WatchesRawSource(source.Kind(w.cache, &appsv1.Deployment{}, owners[*appsv1.Deployment](w), module.Changed(func(old, now *appsv1.Deployment) bool {
			a, b := old.Status, now.Status
			return a.Replicas != b.Replicas || a.ReadyReplicas != b.ReadyReplicas || a.UpdatedReplicas != b.UpdatedReplicas || a.ObservedGeneration != b.ObservedGeneration
		}))).
		WatchesRawSource(source.Kind(w.cache, &corev1.Service{}, owners[*corev1.Service](w), module.Changed(func(old, now *corev1.Service) bool {
			return !equality.Semantic.DeepEqual(old.Spec, now.Spec)
		}))).
		WatchesRawSource(source.Kind(w.cache, &autoscalingv2.HorizontalPodAutoscaler{}, owners[*autoscalingv2.HorizontalPodAutoscaler](w), module.Changed(func(old, now *autoscalingv2.HorizontalPodAutoscaler) bool {
			return !equality.Semantic.DeepEqual(old.Spec, now.Spec) // it may have no generation
		}))).
		WatchesRawSource(source.Kind(w.cache, &networkingv1.Ingress{}, owners[*networkingv1.Ingress](w), module.Changed[*networkingv1.Ingress](nil)))
	b = b.WatchesRawSource(source.Kind(w.cache, &discoveryv1.EndpointSlice{}, owners[*discoveryv1.EndpointSlice](w), module.Changed(func(old, now *discoveryv1.EndpointSlice) bool {
		return !equality.Semantic.DeepEqual(old.Endpoints, now.Endpoints)
	})))
	if opts.RouteGroups {
		b = b.WatchesRawSource(source.Kind(w.cache, &zalando.RouteGroup{}, owners[*zalando.RouteGroup](w), module.Changed[*zalando.RouteGroup](nil)))
	}
	if ihpas {
		b = b.WatchesRawSource(source.Kind(w.cache, &kapacity.IntelligentHorizontalPodAutoscaler{}, owners[*kapacity.IntelligentHorizontalPodAutoscaler](w), module.Changed[*kapacity.IntelligentHorizontalPodAutoscaler](nil)))
	}
	return b.WithOptions(target.ControllerOptions(opts.Concurrency)).Complete(c)
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
