package cluster

import (
	"github.com/prometheus/client_golang/prometheus"
)

// Why a node takes over a query.
const (
	ownerSilent  = "silent"
	ownerFailed  = "failed"
	ownerLeaving = "leaving"
	selfJoined   = "joined"
)

type metrics struct {
	takeovers  *prometheus.CounterVec
	duplicates prometheus.Counter
	handover   prometheus.Histogram
}

func newMetrics(registerer prometheus.Registerer, c *Cluster) *metrics {
	m := &metrics{
		takeovers: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kubetide_cluster_takeovers_total",
			Help: "Queries of other nodes that this one took over. Labeled by reason: silent, failed, leaving, joined.",
		}, []string{"reason"}),
		duplicates: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "kubetide_cluster_duplicate_collections_total",
			Help: "Samples of a query that another node had collected less than half an interval before.",
		}),
		handover: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "kubetide_cluster_handover_seconds",
			Help:    "Time from the change of a query's owner until the first sample of the new one was here.",
			Buckets: []float64{0.1, 0.5, 1, 2.5, 5, 10, 15, 20, 30, 60, 120},
		}),
	}
	for _, reason := range []string{ownerSilent, ownerFailed, ownerLeaving, selfJoined} {
		m.takeovers.WithLabelValues(reason)
	}
	if registerer != nil {
		registerer.MustRegister(m.takeovers, m.duplicates, m.handover, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "kubetide_cluster_owned_queries",
			Help: "Queries that are this node's to collect, as it sees the cluster.",
		}, c.owned))
	}
	return m
}

func (c *Cluster) owned() float64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, known := range c.queries {
		if known.owner == c.local.ID {
			n++
		}
	}
	return float64(n)
}
