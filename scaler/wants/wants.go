// Package wants has collected what objects of the engine ask for, for as long as they do, and wakes the controller of an
// object when one of its answers changes. It knows no object's kind; what an answer means is its controller's business.
package wants

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/kubetide/kubetide/internal/sample"
)

// prefix begins the annotations that say how a metric is collected.
const prefix = "metric-config."

// ErrClosed is what See says after Close.
var ErrClosed = errors.New("the controller is stopping")

// Settings are the object's annotations that say how metrics are collected.
func Settings(o client.Object) map[string]string {
	out := maps.Clone(o.GetAnnotations())
	maps.DeleteFunc(out, func(key, _ string) bool { return !strings.HasPrefix(key, prefix) })
	return out
}

// Wants is what the objects of one controller ask for. M is what the controller remembers of an object from look to look.
type Wants[M any] struct {
	sample.Demand
	clock clock.PassiveClock

	// wake is called by the store, which may do so while somebody has the lock.
	wake atomic.Pointer[func(reconcile.Request)]

	mu     sync.Mutex // protects everything below
	closed bool
	of     map[reconcile.Request]*Want[M]
}

// Want is what one object asks for. Only its controller's work on the object, of which there is one at a time, reads or changes it.
type Want[M any] struct {
	// Asked has one entry for each metric.
	Asked []sample.Asked
	// Since is when the object was first looked at.
	Since time.Time
	// News are the warnings that Asked has now and had not before.
	News []string
	// Memory is the controller's; it goes with the object.
	Memory M

	uid        types.UID
	generation int64
	settings   map[string]string
	warnings   []string
	queries    map[sample.Query]wanted
}

type wanted struct {
	since           time.Time
	release, cancel func()
}

// SinceOf is when the query was first asked for; zero if it is not.
func (w *Want[M]) SinceOf(q sample.Query) time.Time { return w.queries[q].since }

// New returns one that asks demand.
func New[M any](demand sample.Demand, clock clock.PassiveClock) *Wants[M] {
	return &Wants[M]{Demand: demand, clock: clock, of: map[reconcile.Request]*Want[M]{}}
}

// Run has everything end with the manager: one that has lost the lead ends, and its successor in this process asks for itself.
func (w *Wants[M]) Run(mgr ctrl.Manager) error {
	return mgr.Add(manager.RunnableFunc(func(ctx context.Context) error {
		<-ctx.Done()
		w.Close()
		return nil
	}))
}

// Source has the controller look, without delay, at each object one of whose answers has changed. A queue without a priority
// is asked for by its plain interface.
func (w *Wants[M]) Source() source.Source {
	return source.Func(func(_ context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
		wake := queue.Add
		w.wake.Store(&wake)
		return nil
	})
}

// See makes what is collected for the object what it asks for now. metrics is asked only where the object has changed, of
// which changed tells.
func (w *Wants[M]) See(o client.Object, target autoscalingv2.CrossVersionObjectReference, metrics func() []autoscalingv2.MetricSpec) (_ *Want[M], changed bool, _ error) {
	req := reconcile.Request{NamespacedName: client.ObjectKeyFromObject(o)}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil, false, ErrClosed
	}
	one := w.of[req]
	settings := Settings(o)
	if one != nil && one.uid == o.GetUID() && one.generation == o.GetGeneration() && maps.Equal(one.settings, settings) {
		return one, false, nil
	}
	var before map[sample.Query]wanted
	if one != nil {
		before = one.queries
	}
	if one == nil || one.uid != o.GetUID() {
		one = &Want[M]{uid: o.GetUID(), Since: w.clock.Now()}
		w.of[req] = one
	}
	one.generation, one.settings = o.GetGeneration(), settings
	one.Asked = w.Queries(o, target, metrics())
	one.queries = map[sample.Query]wanted{}
	for _, a := range one.Asked {
		if _, twice := one.queries[a.Query]; a.Err != nil || twice {
			continue
		}
		known, ok := before[a.Query]
		if !ok {
			known = wanted{since: w.clock.Now(), cancel: w.Subscribe(a.Query, func() { w.Notify(req) }), release: w.Want(a.Query)}
		}
		delete(before, a.Query)
		one.queries[a.Query] = known
	}
	free(before)
	said := one.warnings
	one.warnings, one.News = nil, nil
	for _, a := range one.Asked {
		for _, warning := range a.Warnings {
			if !slices.Contains(said, warning) && !slices.Contains(one.warnings, warning) {
				one.News = append(one.News, warning)
			}
			one.warnings = append(one.warnings, warning)
		}
	}
	return one, true, nil
}

// Notify has the controller look at the object.
func (w *Wants[M]) Notify(req reconcile.Request) {
	if wake := w.wake.Load(); wake != nil {
		(*wake)(req)
	}
}

// Drop ends the collecting for an object.
func (w *Wants[M]) Drop(req reconcile.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if one := w.of[req]; one != nil {
		free(one.queries)
		delete(w.of, req)
	}
}

// Close ends all collecting, for good.
func (w *Wants[M]) Close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	for req, one := range w.of {
		free(one.queries)
		delete(w.of, req)
	}
}

func free(queries map[sample.Query]wanted) {
	for _, q := range queries {
		q.cancel()
		q.release()
	}
}
