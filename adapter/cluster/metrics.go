package cluster

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/kubetide/kubetide/adapter/cluster/ownership"
)

type metrics struct {
	takeovers, duplicates prometheus.Counter
}

func newMetrics(registerer prometheus.Registerer, c *Cluster) *metrics {
	m := &metrics{
		takeovers: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "kubetide_cluster_takeovers_total",
			Help: "Queries that this node took over because the samples of their owner stayed away.",
		}),
		duplicates: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "kubetide_cluster_duplicate_collections_total",
			Help: "Samples of a query that another node had collected less than half an interval before.",
		}),
	}
	if registerer != nil {
		registerer.MustRegister(m.takeovers, m.duplicates, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
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
		if ownership.Owner(known.id, c.nodes) == c.local.ID {
			n++
		}
	}
	return float64(n)
}
