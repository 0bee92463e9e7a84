package metricsapi

import (
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/utils/clock"

	"github.com/kubetide/kubetide/adapter/store"
)

// answerMetrics are about answers. Their labels are the names of registered collectors and a few words.
type answerMetrics struct {
	clock   clock.PassiveClock
	answers *prometheus.CounterVec
	age     *prometheus.HistogramVec
}

func newAnswerMetrics(clock clock.PassiveClock, registerer prometheus.Registerer) *answerMetrics {
	m := &answerMetrics{
		clock: clock,
		answers: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kubetide_answers_total",
			Help: "Answers of the metrics APIs. Labeled by api (custom, external) and result (value, fallback, none).",
		}, []string{"api", "result"}),
		age: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "kubetide_answer_age_seconds",
			Help:    "Age of a value when it was served, from the start of its collection. Labeled by collector.",
			Buckets: []float64{.5, 1, 2.5, 5, 10, 15, 30, 60, 90, 130, 300, 900, 3600},
		}, []string{"collector"}),
	}
	if registerer != nil {
		registerer.MustRegister(m.answers, m.age)
	}
	return m
}

func (m *answerMetrics) observe(api string, series []store.Served, err error) {
	result := "value"
	if err != nil {
		result = "none"
	} else {
		now := m.clock.Now()
		for i := range series {
			if series[i].Answer.Instead.Serves() {
				result = "fallback"
			}
			m.age.WithLabelValues(series[i].Query.Collector).Observe(now.Sub(series[i].Answer.Taken).Seconds())
		}
	}
	m.answers.WithLabelValues(api, result).Inc()
}
