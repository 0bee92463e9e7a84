package horizontalportrait

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	"github.com/kubetide/kubetide/internal/sample"
)

// metricAnnotations begin the keys that say how a metric is collected.
const metricAnnotations = "metric-config."

// Wants has collected what the portraits ask for, for as long as they do, and wakes each when one of its answers changes.
type Wants struct {
	demand sample.Demand
	clock  clock.PassiveClock

	// wake is called by the store, which may do so while somebody has the lock.
	wake atomic.Pointer[func(reconcile.Request)]

	mu     sync.Mutex // protects everything below
	closed bool
	of     map[reconcile.Request]*want
}

// NewWants returns one that asks demand.
func NewWants(demand sample.Demand, clock clock.PassiveClock) *Wants {
	return &Wants{demand: demand, clock: clock, of: map[reconcile.Request]*want{}}
}

// want is what one portrait asks for. asked and since are not changed by anybody but its portrait's evaluation.
type want struct {
	spec     kapacity.HorizontalPortraitSpec
	settings map[string]string
	// asked has one entry for each metric.
	asked []sample.Asked
	// since is when the portrait was first looked at.
	since   time.Time
	queries map[sample.Query]wanted
}

type wanted struct {
	since           time.Time
	release, cancel func()
}

// Wake sets what is called, without delay, with each portrait one of whose answers has changed.
func (w *Wants) Wake(wake func(reconcile.Request)) {
	w.wake.Store(&wake)
}

// see makes what is collected for the portrait what it asks for now. changed says that it asks for something else than before.
func (w *Wants) see(req reconcile.Request, hp *kapacity.HorizontalPortrait) (_ *want, changed bool, _ error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil, false, errStopping
	}
	one := w.of[req]
	settings := settings(hp)
	if one != nil && maps.Equal(one.settings, settings) && equality.Semantic.DeepEqual(one.spec, hp.Spec) {
		return one, false, nil
	}
	if one == nil {
		one = &want{since: w.clock.Now()}
		w.of[req] = one
	}
	one.spec, one.settings = *hp.Spec.DeepCopy(), settings
	metrics := make([]autoscalingv2.MetricSpec, len(one.spec.Metrics))
	for i := range metrics {
		metrics[i] = one.spec.Metrics[i].MetricSpec
	}
	one.asked = w.demand.Queries(hp, one.spec.ScaleTargetRef, metrics)
	before := one.queries
	one.queries = map[sample.Query]wanted{}
	for _, a := range one.asked {
		if _, twice := one.queries[a.Query]; a.Err != nil || twice {
			continue
		}
		known, ok := before[a.Query]
		if !ok {
			known = wanted{since: w.clock.Now(), cancel: w.demand.Subscribe(a.Query, func() { w.notify(req) }), release: w.demand.Want(a.Query)}
		}
		delete(before, a.Query)
		one.queries[a.Query] = known
	}
	free(before)
	return one, true, nil
}

func (w *Wants) notify(req reconcile.Request) {
	if wake := w.wake.Load(); wake != nil {
		(*wake)(req)
	}
}

// drop ends the collecting for a portrait.
func (w *Wants) drop(req reconcile.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if one := w.of[req]; one != nil {
		free(one.queries)
		delete(w.of, req)
	}
}

// Close ends all collecting, for good.
func (w *Wants) Close() {
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
