package adapter

import (
	"context"
	"errors"
	"maps"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/tools/cache"
)

// HPAs lends the informer of HPAs to a cache of somebody else, so that one watch serves both: each watch keeps a buffer as large as
// the largest object that it brought. The informer runs as long as the Adapter does, on its own terms; what the borrower adds to it is
// gone when the borrower's run of it ends, but for indexes, which later borrowers of the same name find there. With DisregardHPAs
// nobody runs it.
func (a *Adapter) HPAs() cache.SharedIndexInformer {
	return &lent{SharedIndexInformer: a.hpas.Autoscaling().V2().HorizontalPodAutoscalers().Informer()}
}

// lent is an informer that somebody else runs.
type lent struct {
	cache.SharedIndexInformer

	mu            sync.Mutex
	ended         bool
	registrations []cache.ResourceEventHandlerRegistration
}

var errEnded = errors.New("the borrower of the informer has ended")

// RunWithContext implements cache.SharedIndexInformer; it only waits.
func (l *lent) RunWithContext(ctx context.Context) {
	<-ctx.Done()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	for _, r := range l.registrations {
		_ = l.RemoveEventHandler(r) // an informer that has stopped calls nobody
	}
	l.registrations = nil
}

// Run implements cache.SharedIndexInformer.
func (l *lent) Run(stop <-chan struct{}) { l.RunWithContext(wait.ContextForChannel(stop)) }

// IsStopped implements cache.SharedIndexInformer.
func (l *lent) IsStopped() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ended || l.SharedIndexInformer.IsStopped()
}

// AddIndexers implements cache.SharedIndexInformer.
func (l *lent) AddIndexers(indexers cache.Indexers) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	indexers = maps.Clone(indexers)
	for name := range l.GetIndexer().GetIndexers() {
		delete(indexers, name)
	}
	return l.SharedIndexInformer.AddIndexers(indexers)
}

// SetTransform implements cache.SharedIndexInformer: what is kept is the owner's to say, as is what is logged.
func (l *lent) SetTransform(cache.TransformFunc) error { return nil }

// SetWatchErrorHandler implements cache.SharedIndexInformer.
func (l *lent) SetWatchErrorHandler(cache.WatchErrorHandler) error { return nil }

// SetWatchErrorHandlerWithContext implements cache.SharedIndexInformer.
func (l *lent) SetWatchErrorHandlerWithContext(cache.WatchErrorHandlerWithContext) error { return nil }

// AddEventHandler implements cache.SharedIndexInformer.
func (l *lent) AddEventHandler(handler cache.ResourceEventHandler) (cache.ResourceEventHandlerRegistration, error) {
	return l.AddEventHandlerWithOptions(handler, cache.HandlerOptions{})
}

// AddEventHandlerWithResyncPeriod implements cache.SharedIndexInformer; the informer never resyncs.
func (l *lent) AddEventHandlerWithResyncPeriod(handler cache.ResourceEventHandler, _ time.Duration) (cache.ResourceEventHandlerRegistration, error) {
	return l.AddEventHandlerWithOptions(handler, cache.HandlerOptions{})
}

// AddEventHandlerWithOptions implements cache.SharedIndexInformer.
func (l *lent) AddEventHandlerWithOptions(handler cache.ResourceEventHandler, o cache.HandlerOptions) (cache.ResourceEventHandlerRegistration, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return nil, errEnded
	}
	o.ResyncPeriod = nil
	r, err := l.SharedIndexInformer.AddEventHandlerWithOptions(handler, o)
	if err == nil {
		l.registrations = append(l.registrations, r)
	}
	return r, err
}
