package adapter

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/utils/clock"

	"github.com/kubetide/kubetide/adapter/store"
	"github.com/kubetide/kubetide/internal/sample"
)

var (
	seriesDesc = prometheus.NewDesc("kubetide_series",
		"Queries by what is known of them. Labeled by collector and state (Fresh, Fallback, Stale, Missing).", []string{"collector", "state"}, nil)
	ageDesc = prometheus.NewDesc("kubetide_sample_age_seconds",
		"Age of the oldest value that is served. Labeled by collector.", []string{"collector"}, nil)
)

// sampleMetrics looks through the store when it is scraped, so that the store itself counts nothing.
type sampleMetrics struct {
	store *store.Store
	clock clock.PassiveClock
}

func (m *sampleMetrics) Describe(out chan<- *prometheus.Desc) { out <- seriesDesc; out <- ageDesc }

func (m *sampleMetrics) Collect(out chan<- prometheus.Metric) {
	now := m.clock.Now()
	type key struct {
		collector string
		state     string
	}
	series, oldest := map[key]int{}, map[string]time.Duration{}
	m.store.Each(func(q sample.Query, a sample.Answer) {
		state := a.State.String()
		if a.Instead.Serves() {
			state = "Fallback"
		}
		series[key{q.Collector, state}]++
		if a.State == sample.Fresh {
			oldest[q.Collector] = max(oldest[q.Collector], now.Sub(a.Taken))
		}
	})
	for k, n := range series {
		out <- prometheus.MustNewConstMetric(seriesDesc, prometheus.GaugeValue, float64(n), k.collector, k.state)
	}
	for collector, age := range oldest {
		out <- prometheus.MustNewConstMetric(ageDesc, prometheus.GaugeValue, age.Seconds(), collector)
	}
}
