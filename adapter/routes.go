package adapter

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	networkinginformers "k8s.io/client-go/informers/networking/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"

	zalandov1 "github.com/kubetide/kubetide/api/zalando/v1"
	"github.com/kubetide/kubetide/internal/sample"
)

// recollectGap is the least time between two rounds of collecting what depends on changed routes. Whoever writes an Ingress
// in a loop causes no more than that.
const recollectGap = 200 * time.Millisecond

var (
	routeGroups = zalandov1.SchemeGroupVersion.WithResource("routegroups")

	errNotWatched = errors.New("objects of this kind are not watched")
	errNotListed  = errors.New("objects of this kind have not been listed yet")
)

// routes implements collectors.Routes on informers of its own, which run only if they are asked for.
type routes struct {
	ingresses cache.SharedIndexInformer // of *networkingv1.Ingress; nil if not watched
	groups    cache.SharedIndexInformer // of *routeGroup; nil if not watched
	failure   atomic.Pointer[groupsFailure]

	recollect func(match func(sample.Query) bool)
	clock     clock.Clock
	log       logr.Logger

	mu      sync.Mutex
	changed map[target]bool
	wake    chan struct{}
}

// routeGroup is a RouteGroup, or why it can't be read.
type routeGroup struct {
	zalandov1.RouteGroup
	err error
}

// groupsFailure is why RouteGroups could not be listed, and what was there before: the failure holds until that changes.
type groupsFailure struct {
	err      error
	synced   bool
	revision string
}

func newRoutes(o Options, recollect func(func(sample.Query) bool)) *routes {
	return &routes{recollect: recollect, clock: o.Clock, log: o.Log.WithName("routes"), changed: map[target]bool{}, wake: make(chan struct{}, 1)}
}

// watchIngresses must be called before run, like watchRouteGroups.
func (r *routes) watchIngresses(client kubernetes.Interface) error {
	r.ingresses = networkinginformers.NewIngressInformer(client, metav1.NamespaceAll, 0, cache.Indexers{})
	return r.prepare(r.ingresses, sample.ObjectRef{Group: networkingv1.GroupName, Kind: "Ingress"}, func(obj any) (any, error) {
		if o, ok := obj.(*networkingv1.Ingress); ok {
			slimMeta(&o.ObjectMeta)
			rules := make([]networkingv1.IngressRule, len(o.Spec.Rules))
			for i := range rules {
				rules[i].Host = o.Spec.Rules[i].Host
			}
			o.Spec, o.Status = networkingv1.IngressSpec{Rules: rules}, networkingv1.IngressStatus{}
		}
		return obj, nil
	})
}

// watchRouteGroups works also where skipper's CRD comes later, or not at all.
func (r *routes) watchRouteGroups(client dynamic.Interface) error {
	r.groups = dynamicinformer.NewFilteredDynamicInformer(client, routeGroups, metav1.NamespaceAll, 0, cache.Indexers{}, nil).Informer()
	err := r.groups.SetWatchErrorHandlerWithContext(func(ctx context.Context, reflector *cache.Reflector, err error) {
		first := r.failure.Swap(&groupsFailure{err: err, synced: r.groups.HasSynced(), revision: r.groups.LastSyncResourceVersion()}) == nil
		switch {
		case !apierrors.IsNotFound(err):
			cache.DefaultWatchErrorHandler(ctx, reflector, err)
		case first:
			r.log.Info("The cluster has no RouteGroups; their CRD is looked for again and again", "resource", routeGroups.GroupResource().String())
		}
	})
	if err != nil {
		return err
	}
	return r.prepare(r.groups, sample.ObjectRef{Group: routeGroups.Group, Kind: "RouteGroup"}, func(obj any) (any, error) {
		u, ok := obj.(*unstructured.Unstructured)
		if !ok {
			return obj, nil
		}
		slimRoutes(u)
		g := &routeGroup{}
		if g.err = runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &g.RouteGroup); g.err != nil {
			// An error from here would keep all the others from being listed.
			g.RouteGroup = zalandov1.RouteGroup{ObjectMeta: metav1.ObjectMeta{Namespace: u.GetNamespace(), Name: u.GetName(), ResourceVersion: u.GetResourceVersion()}}
		}
		slimMeta(&g.ObjectMeta)
		g.Annotations = nil
		return g, nil
	})
}

// slimRoutes leaves of a RouteGroup's spec what says how traffic is shared out. The rest is neither held, nor can a mistake in it matter.
func slimRoutes(u *unstructured.Unstructured) {
	spec, _ := u.Object["spec"].(map[string]any)
	delete(spec, "backends")
	routes, _ := spec["routes"].([]any)
	for _, route := range routes {
		if fields, ok := route.(map[string]any); ok {
			maps.DeleteFunc(fields, func(name string, _ any) bool { return name != "predicates" && name != "backends" })
		}
	}
}

func slimMeta(o *metav1.ObjectMeta) {
	delete(o.Annotations, "kubectl.kubernetes.io/last-applied-configuration")
	o.ManagedFields, o.Labels, o.OwnerReferences, o.Finalizers = nil, nil, nil, nil
}

func (r *routes) prepare(informer cache.SharedIndexInformer, kind sample.ObjectRef, transform cache.TransformFunc) error {
	if err := informer.SetTransform(transform); err != nil {
		return err
	}
	changed := func(obj any) {
		key, err := cache.DeletionHandlingObjectToName(obj)
		if err != nil {
			return
		}
		kind.Name = key.Name
		r.mu.Lock()
		r.changed[target{namespace: key.Namespace, object: kind}] = true
		r.mu.Unlock()
		select {
		case r.wake <- struct{}{}:
		default:
		}
	}
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: changed, DeleteFunc: changed, UpdateFunc: func(before, after any) {
		if !sameRoute(before, after) {
			changed(after)
		}
	}})
	return err
}

// sameRoute says that nothing has changed that anybody reads: controllers write an Ingress's status at any time.
func sameRoute(before, after any) bool {
	switch a := after.(type) {
	case *networkingv1.Ingress:
		b, ok := before.(*networkingv1.Ingress)
		return ok && slices.EqualFunc(a.Spec.Rules, b.Spec.Rules, func(a, b networkingv1.IngressRule) bool { return a.Host == b.Host }) &&
			reflect.DeepEqual(a.Annotations, b.Annotations)
	case *routeGroup:
		b, ok := before.(*routeGroup)
		return ok && (a.err == nil) == (b.err == nil) && reflect.DeepEqual(a.Spec, b.Spec)
	}
	return false
}

func (r *routes) informers() (out []cache.SharedIndexInformer) {
	for _, informer := range []cache.SharedIndexInformer{r.ingresses, r.groups} {
		if informer != nil {
			out = append(out, informer)
		}
	}
	return out
}

// run watches, and has the queries collected that depend on what changes, until ctx ends.
func (r *routes) run(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	for _, informer := range r.informers() {
		running.Go(func() { informer.RunWithContext(ctx) })
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.wake:
		}
		r.mu.Lock()
		changed := r.changed
		r.changed = map[target]bool{}
		r.mu.Unlock()
		r.recollect(func(q sample.Query) bool {
			return q.Kind == sample.Object && changed[target{namespace: q.Namespace, object: q.Object}]
		})
		select {
		case <-ctx.Done():
			return
		case <-r.clock.After(recollectGap):
		}
	}
}

// wait returns when everything is listed, RouteGroups are known not to be there, or ctx ends. First collections fail that need
// not if it is not waited for; they succeed once the lists are there.
func (r *routes) wait(ctx context.Context) {
	cache.WaitForCacheSync(ctx.Done(), func() bool {
		return (r.ingresses == nil || r.ingresses.HasSynced()) && (r.groups == nil || r.groups.HasSynced() || r.failure.Load() != nil)
	})
}

// Ingress implements collectors.Routes.
func (r *routes) Ingress(namespace, name string) (*networkingv1.Ingress, error) {
	obj, err := find(r.ingresses, "Ingress", namespace, name)
	if err != nil {
		return nil, err
	}
	return obj.(*networkingv1.Ingress), nil
}

// RouteGroup implements collectors.Routes.
func (r *routes) RouteGroup(namespace, name string) (*zalandov1.RouteGroup, error) {
	if f := r.failure.Load(); f != nil && f.synced == r.groups.HasSynced() && f.revision == r.groups.LastSyncResourceVersion() {
		switch {
		case apierrors.IsNotFound(f.err):
			return nil, sample.NoData("RouteGroup %s/%s: the cluster has no resource %s; is skipper's CRD installed?", namespace, name, routeGroups.GroupResource())
		case !f.synced:
			return nil, fmt.Errorf("RouteGroup %s/%s: %w: %w", namespace, name, errNotListed, f.err)
		}
	}
	obj, err := find(r.groups, "RouteGroup", namespace, name)
	if err != nil {
		return nil, err
	}
	g := obj.(*routeGroup)
	if g.err != nil {
		return nil, fmt.Errorf("RouteGroup %s/%s cannot be read: %w", namespace, name, g.err)
	}
	return &g.RouteGroup, nil
}

func find(informer cache.SharedIndexInformer, kind, namespace, name string) (any, error) {
	if informer == nil {
		return nil, fmt.Errorf("%s %s/%s: %w", kind, namespace, name, errNotWatched)
	}
	obj, exists, err := informer.GetStore().GetByKey(namespace + "/" + name)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s %s/%s: %w", kind, namespace, name, err)
	case !exists && !informer.HasSynced():
		return nil, fmt.Errorf("%s %s/%s: %w", kind, namespace, name, errNotListed)
	case !exists:
		return nil, sample.NoData("%s %s/%s does not exist", kind, namespace, name)
	}
	return obj, nil
}
