package outbound

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics count the requests of one client or several.
type Metrics struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	inFlight prometheus.Gauge
}

// NewMetrics registers the metrics.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kubetide_outbound_requests_total",
			Help: "Requests to sources. Labeled by collector and result: ok, or the kind of the failure.",
		}, []string{"collector", "result"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "kubetide_outbound_request_duration_seconds",
			Help:    "Time from the sending of a request to the end of its answer, waiting for the namespace's budget left out. Labeled by collector.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		}, []string{"collector"}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "kubetide_outbound_requests_in_flight",
			Help: "Requests to sources that have been sent and whose answer is not complete.",
		}),
	}
	r.MustRegister(m.requests, m.duration, m.inFlight)
	return m
}

func (m *Metrics) refused(collector string, err error) {
	if m != nil {
		m.requests.WithLabelValues(collector, Kind(err)).Inc()
	}
}

func (m *Metrics) sent() {
	if m != nil {
		m.inFlight.Inc()
	}
}

func (m *Metrics) ended(collector, result string, took time.Duration) {
	if m != nil {
		m.inFlight.Dec()
		m.requests.WithLabelValues(collector, result).Inc()
		m.duration.WithLabelValues(collector).Observe(took.Seconds())
	}
}
