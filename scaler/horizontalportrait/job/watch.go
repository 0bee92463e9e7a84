package job

import (
	"context"
	"strings"
	"sync"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
)

// watches wake portraits. Each result has a watch of its own, on its name alone: the right to that one object is enough, nothing else is
// sent or kept, and the API server serves such watches by the name, as it does for kubelets. All hold metadata only. They are no
// informers of the manager's: without the rights those would end the whole engine.
type watches struct {
	client    metadata.Interface
	namespace string

	mu      sync.Mutex // protects the rest
	ctx     context.Context
	wake    func(reconcile.Request)
	results map[types.NamespacedName]*resultWatch
}

type resultWatch struct {
	stop    context.CancelFunc
	mu      sync.Mutex // protects refused
	refused error
}

// run is called once, before any result is watched. All watches end with ctx.
func (w *watches) run(ctx context.Context, wake func(reconcile.Request)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ctx, w.wake = ctx, wake
	jobs := metadatainformer.NewFilteredMetadataInformer(w.client, batchv1.SchemeGroupVersion.WithResource("cronjobs"), w.namespace, 0, nil,
		func(o *metav1.ListOptions) { o.LabelSelector = Label }).Informer()
	// Ours are made by the portrait's own reconciliation, which knows that they are there.
	w.start(ctx, jobs, cache.ResourceEventHandlerFuncs{
		UpdateFunc: func(old, now any) {
			if a, b := metadataOf(old), metadataOf(now); a != nil && b != nil && a.Generation != b.Generation {
				w.wakeOf(b)
			}
		},
		DeleteFunc: func(o any) { w.wakeOf(metadataOf(o)) },
	}, func(error) {}) // the portraits' own requests say what is forbidden
}

func metadataOf(o any) *metav1.PartialObjectMetadata {
	if gone, ok := o.(cache.DeletedFinalStateUnknown); ok {
		o = gone.Obj
	}
	m, _ := o.(*metav1.PartialObjectMetadata)
	return m
}

func (w *watches) wakeOf(job *metav1.PartialObjectMetadata) {
	if job == nil {
		return
	}
	if namespace, name, ok := strings.Cut(job.Annotations[Label], "/"); ok {
		w.wake(reconcile.Request{NamespacedName: types.NamespacedName{Namespace: namespace, Name: name}})
	}
}

// result begins to watch the portrait's result if nobody does, and says why that is refused.
func (w *watches) result(hp *kapacity.HorizontalPortrait) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ctx == nil {
		return nil
	}
	key := types.NamespacedName{Namespace: hp.Namespace, Name: hp.Name}
	is := w.results[key]
	if is == nil {
		ctx, stop := context.WithCancel(w.ctx)
		is = &resultWatch{stop: stop}
		if w.results == nil {
			w.results = map[types.NamespacedName]*resultWatch{}
		}
		w.results[key] = is
		request, wake := reconcile.Request{NamespacedName: key}, w.wake
		informer := metadatainformer.NewFilteredMetadataInformer(w.client, corev1.SchemeGroupVersion.WithResource("configmaps"),
			hp.Namespace, 0, nil, func(o *metav1.ListOptions) {
				o.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, hp.Name+kapacity.ResultConfigMapSuffix).String()
			}).Informer()
		seen := func(any) {
			is.refuse(nil)
			wake(request)
		}
		w.start(ctx, informer, cache.ResourceEventHandlerFuncs{AddFunc: seen, UpdateFunc: func(_, o any) { seen(o) }, DeleteFunc: seen}, func(err error) {
			if is.refuse(err) {
				wake(request)
			}
		})
	}
	is.mu.Lock()
	defer is.mu.Unlock()
	return is.refused
}

// refuse keeps why the watch is refused, and says whether that is new.
func (w *resultWatch) refuse(err error) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	was := w.refused
	w.refused = err
	return was == nil && err != nil
}

func (w *watches) start(ctx context.Context, informer cache.SharedIndexInformer, handler cache.ResourceEventHandlerFuncs, forbidden func(error)) {
	// None of these fails before the informer runs.
	_ = informer.SetWatchErrorHandlerWithContext(func(ctx context.Context, r *cache.Reflector, err error) {
		if apierrors.IsForbidden(err) {
			forbidden(err)
			return
		}
		cache.DefaultWatchErrorHandler(ctx, r, err)
	})
	_, _ = informer.AddEventHandler(handler)
	go informer.RunWithContext(ctx)
}

// end stops the watch of the portrait's result.
func (w *watches) end(hp *kapacity.HorizontalPortrait) {
	w.mu.Lock()
	defer w.mu.Unlock()
	key := types.NamespacedName{Namespace: hp.Namespace, Name: hp.Name}
	if is := w.results[key]; is != nil {
		is.stop()
		delete(w.results, key)
	}
}
