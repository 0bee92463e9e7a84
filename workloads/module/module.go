// Package module is how a kind of workload gets into the engine: its controllers start once its CRDs are installed, with a cache of their
// own that holds only what was made for the kind, and are woken by what somebody says rather than by what is counted.
package module

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/api/equality"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/cluster"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
)

const (
	// lookForCRDs is how often it is looked for CRDs that are not there.
	lookForCRDs = time.Minute
	// lookForServer is how soon it is looked again after an API server that was away, which says nothing of CRDs.
	lookForServer = time.Second
)

// Setup has the module start on the leader once the API server has the kinds, or now if it has. Without them, controllers would end the
// manager, and all else that is in it.
func Setup(mgr ctrl.Manager, name string, kinds []schema.GroupVersionKind, start func() error) error {
	if served, _ := Served(mgr.GetRESTMapper(), kinds...); served {
		return start()
	}
	return mgr.Add(&starter{mgr.GetRESTMapper(), kinds, clock.RealClock{}, mgr.GetLogger().WithName(name), start})
}

// Served tells whether the API server has all of the kinds.
func Served(mapper apimeta.RESTMapper, kinds ...schema.GroupVersionKind) (bool, error) {
	for _, kind := range kinds {
		if _, err := mapper.RESTMapping(kind.GroupKind(), kind.Version); apimeta.IsNoMatchError(err) {
			return false, nil
		} else if err != nil {
			return false, fmt.Errorf("look for the CRD of %s: %w", kind.Kind, err)
		}
	}
	return true, nil
}

type starter struct {
	mapper apimeta.RESTMapper
	kinds  []schema.GroupVersionKind
	clock  clock.Clock
	log    logr.Logger
	start  func() error
}

// Start implements manager.Runnable.
func (s *starter) Start(ctx context.Context) error {
	for {
		served, err := Served(s.mapper, s.kinds...)
		again := lookForServer
		switch {
		case served:
			return s.start()
		case err == nil:
			s.log.Info("Not all of the CRDs are installed; what they are for is carried out once they are", "kinds", s.kinds)
			again = lookForCRDs
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.clock.After(again):
		}
	}
}

// NewCluster returns a cache, and a client that reads from it and sees what it wrote itself. Of the kinds of the examples only objects
// that carry the label are held: the engine's cache holds others, and of some of them less. It is for the caller to add it to the manager.
func NewCluster(mgr ctrl.Manager, label string, examples ...client.Object) (cluster.Cluster, error) {
	carried, err := labels.NewRequirement(label, selection.Exists, nil)
	if err != nil {
		return nil, err
	}
	held := map[client.Object]cache.ByObject{}
	for _, example := range examples {
		held[example] = cache.ByObject{Label: labels.NewSelector().Add(*carried)}
	}
	return cluster.New(mgr.GetConfig(), func(o *cluster.Options) {
		o.Scheme, o.HTTPClient, o.Logger = mgr.GetScheme(), mgr.GetHTTPClient(), mgr.GetLogger()
		o.MapperProvider = func(*rest.Config, *http.Client) (apimeta.RESTMapper, error) { return mgr.GetRESTMapper(), nil }
		o.Cache = cache.Options{DefaultTransform: cache.TransformStripManagedFields(), ByObject: held}
		o.Client.Cache = &client.CacheOptions{EnableReadYourWritesConsistency: ptr.To(true)}
	})
}

// Changed passes what people say of an object, and of what it says itself only what counts. A nil counts is for nothing of it.
func Changed[T client.Object](counts func(old, now T) bool) predicate.TypedPredicate[T] {
	return predicate.TypedFuncs[T]{UpdateFunc: func(e event.TypedUpdateEvent[T]) bool {
		old, now := e.ObjectOld, e.ObjectNew
		return old.GetGeneration() != now.GetGeneration() || !equality.Semantic.DeepEqual(old.GetLabels(), now.GetLabels()) ||
			!equality.Semantic.DeepEqual(old.GetAnnotations(), now.GetAnnotations()) || !equality.Semantic.DeepEqual(old.GetOwnerReferences(), now.GetOwnerReferences()) ||
			old.GetDeletionTimestamp().IsZero() != now.GetDeletionTimestamp().IsZero() || counts != nil && counts(old, now)
	}}
}
