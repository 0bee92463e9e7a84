package collection

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kubetide/kubetide/internal/sample"
)

// metrics about collections. Their labels are the names of registered collectors, never what a tenant writes.
type metrics struct {
	collections *prometheus.CounterVec
	duration    *prometheus.HistogramVec
	queries     *prometheus.GaugeVec
	lag         prometheus.Histogram
}

func newMetrics(registerer prometheus.Registerer, s *Scheduler) *metrics {
	m := &metrics{
		collections: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kubetide_collections_total",
			Help: "Collections that have ended. Labeled by collector and result (success, partial, no_data, timeout, panic, error).",
		}, []string{"collector", "result"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "kubetide_collection_duration_seconds",
			Help:    "Time that a collection took. Labeled by collector.",
			Buckets: []float64{.001, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 15},
		}, []string{"collector"}),
		queries: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "kubetide_queries",
			Help: "Distinct queries that are collected. Labeled by collector.",
		}, []string{"collector"}),
		lag: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "kubetide_collection_lag_seconds",
			Help:    "Time from the instant at which a collection was due until the loop took it up.",
			Buckets: []float64{.001, .005, .01, .05, .1, .5, 1, 5, 15},
		}),
	}
	if registerer != nil {
		running := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "kubetide_collections_running",
			Help: "Collections that are running now.",
		}, func() float64 {
			s.mu.Lock()
			defer s.mu.Unlock()
			return float64(s.pools[0].running + s.pools[1].running)
		})
		registerer.MustRegister(m.collections, m.duration, m.queries, m.lag, running)
	}
	return m
}

func (m *metrics) observe(collector string, took time.Duration, points int, err error, late bool) {
	result := "success"
	var panicked *panicError
	switch {
	case err == nil:
	case points > 0:
		result = "partial"
	case errors.Is(err, sample.ErrNoData):
		result = "no_data"
	case errors.As(err, &panicked):
		result = "panic"
	case late:
		result = "timeout"
	default:
		result = "error"
	}
	m.collections.WithLabelValues(collector, result).Inc()
	m.duration.WithLabelValues(collector).Observe(took.Seconds())
}
