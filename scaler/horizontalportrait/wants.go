package horizontalportrait

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	"github.com/kubetide/kubetide/internal/sample"
	"github.com/kubetide/kubetide/portraits/reactive"
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

// want is what one portrait asks for. Only its own evaluation, of which there is one at a time, changes it.
type want struct {
	uid        types.UID
	generation int64
	settings   map[string]string
	// asked has one entry for each metric.
	asked    []sample.Asked
	warnings []string
	// since is when the portrait was first looked at.
	since   time.Time
	queries map[sample.Query]wanted
	// panic is what is remembered of what the portrait wanted before.
	panic reactive.PanicState
	// turns has one entry for each metric, or none.
	turns []turns
}

type wanted struct {
	since           time.Time
	release, cancel func()
}

// Wake sets what is called, without delay, with each portrait one of whose answers has changed.
func (w *Wants) Wake(wake func(reconcile.Request)) {
	w.wake.Store(&wake)
}

// see makes what is collected for the portrait what it asks for now. warnings are those that were not returned before.
func (w *Wants) see(req reconcile.Request, hp *kapacity.HorizontalPortrait) (_ *want, warnings []string, _ error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil, nil, errStopping
	}
	one := w.of[req]
	settings := settings(hp)
	if one != nil && one.uid == hp.UID && one.generation == hp.Generation && maps.Equal(one.settings, settings) {
		return one, nil, nil
	}
	var before map[sample.Query]wanted
	if one != nil {
		before = one.queries
	}
	if one == nil || one.uid != hp.UID {
		one = &want{uid: hp.UID, since: w.clock.Now()}
		w.of[req] = one
	}
	one.generation, one.settings, one.turns = hp.Generation, settings, nil
	metrics := make([]autoscalingv2.MetricSpec, len(hp.Spec.Metrics))
	for i := range metrics {
		metrics[i] = hp.Spec.Metrics[i].MetricSpec
	}
	one.asked = w.demand.Queries(hp, hp.Spec.ScaleTargetRef, metrics)
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
	said := one.warnings
	one.warnings = nil
	for _, a := range one.asked {
		for _, warning := range a.Warnings {
			if !slices.Contains(said, warning) && !slices.Contains(one.warnings, warning) {
				warnings = append(warnings, warning)
			}
			one.warnings = append(one.warnings, warning)
		}
	}
	return one, warnings, nil
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
