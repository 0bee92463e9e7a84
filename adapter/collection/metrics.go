package collection

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kubetide/kubetide/internal/outbound"
	"github.com/kubetide/kubetide/internal/sample"
)

// metrics about collections. Their labels are the names of registered collectors, kinds of results, and at most
// maxNamespaces namespaces, so that tenants cannot make them grow without bound.
type metrics struct {
	collections *prometheus.CounterVec
	duration    *prometheus.HistogramVec
	queries     *prometheus.GaugeVec
	running     *prometheus.GaugeVec
	lag         prometheus.Histogram

	// mu protects what follows.
	mu     sync.Mutex
	asking map[string]int  // queries of each namespace
	named  map[string]bool // the namespaces with a label value of their own
}

const (
	// maxNamespaces is how many namespaces have a label value of their own; a place is free again when a namespace asks for
	// nothing any more.
	maxNamespaces = 200
	// otherNamespace stands for the rest. No namespace can have this name.
	otherNamespace = "_other"
)

func newMetrics(registerer prometheus.Registerer) *metrics {
	m := &metrics{
		collections: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kubetide_collections_total",
			Help: "Collections that have ended. Labeled by collector, namespace and result: success, partial, no_data, or the kind of the failure.",
		}, []string{"collector", "namespace", "result"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "kubetide_collection_duration_seconds",
			Help:    "Time that a collection took. Labeled by collector.",
			Buckets: []float64{.001, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 15},
		}, []string{"collector"}),
		queries: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "kubetide_queries",
			Help: "Distinct queries that are collected. Labeled by collector.",
		}, []string{"collector"}),
		running: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "kubetide_collections_running",
			Help: "Collections that are running now. Labeled by collector.",
		}, []string{"collector"}),
		lag: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "kubetide_collection_lag_seconds",
			Help:    "Time from the instant at which a collection was due until the loop took it up.",
			Buckets: []float64{.001, .005, .01, .05, .1, .5, 1, 5, 15},
		}),
		asking: map[string]int{}, named: map[string]bool{},
	}
	if registerer != nil {
		registerer.MustRegister(m.collections, m.duration, m.queries, m.lag, m.running)
	}
	return m
}

// added notes a query.
func (m *metrics) added(q sample.Query) {
	m.queries.WithLabelValues(q.Collector).Inc()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asking[q.Namespace]++
	if len(m.named) < maxNamespaces {
		m.named[q.Namespace] = true
	}
}

// removed forgets a query, and with a namespace's last one what was counted for the namespace.
func (m *metrics) removed(q sample.Query) {
	m.queries.WithLabelValues(q.Collector).Dec()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.asking[q.Namespace]--; m.asking[q.Namespace] > 0 {
		return
	}
	delete(m.asking, q.Namespace)
	if m.named[q.Namespace] {
		delete(m.named, q.Namespace)
		m.collections.DeletePartialMatch(prometheus.Labels{"namespace": q.Namespace})
	}
}

func (m *metrics) observe(q sample.Query, took time.Duration, points int, err error, late bool) {
	m.duration.WithLabelValues(q.Collector).Observe(took.Seconds())
	m.mu.Lock()
	defer m.mu.Unlock()
	namespace := q.Namespace
	if !m.named[namespace] {
		namespace = otherNamespace
	}
	m.collections.WithLabelValues(q.Collector, namespace, result(points, err, late)).Inc()
}

// result puts the outcome of a collection into one of a few words: outbound's kinds where a request failed, and these.
func result(points int, err error, late bool) string {
	var (
		panicked *panicError
		syntax   *json.SyntaxError
		mistyped *json.UnmarshalTypeError
	)
	switch {
	case err == nil:
		return "success"
	case points > 0:
		return "partial"
	case errors.As(err, &panicked):
		return "panic"
	case errors.Is(err, sample.ErrNoData):
		return "no_data"
	case errors.As(err, &syntax), errors.As(err, &mistyped), errors.Is(err, sample.ErrNotFinite):
		return "decode"
	}
	kind := outbound.Kind(err)
	switch {
	case kind != "other" && kind != "ok" && kind != "canceled":
		return kind
	case late || errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	}
	return "error"
}
