package membership

import "github.com/prometheus/client_golang/prometheus"

// Why something is refused.
const (
	refusedID    = "same_id"
	refusedLabel = "label"
	refusedKey   = "key"
	refusedMeta  = "metadata"
	refusedGone  = "gone"
)

var refusals = []string{refusedID, refusedLabel, refusedKey, refusedMeta, refusedGone}

// How a node goes.
const (
	wentLeft   = "left"
	wentFailed = "failed"
)

type metrics struct {
	joins   prometheus.Counter
	leaves  *prometheus.CounterVec
	refused *prometheus.CounterVec
}

func newMetrics() *metrics {
	out := &metrics{
		joins: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "kubetide_cluster_joins_total",
			Help: "Other nodes that have come, those that were lost before included.",
		}),
		leaves: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kubetide_cluster_leaves_total",
			Help: "Other nodes that have gone. Labeled by reason: left, failed.",
		}, []string{"reason"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kubetide_cluster_refused_total",
			Help: "Messages and nodes that were refused. Labeled by reason: same_id, label, key, metadata, gone.",
		}, []string{"reason"}),
	}
	for _, reason := range []string{wentLeft, wentFailed} {
		out.leaves.WithLabelValues(reason)
	}
	for _, reason := range refusals {
		out.refused.WithLabelValues(reason)
	}
	return out
}

var nodesDesc = prometheus.NewDesc("kubetide_cluster_nodes",
	"Nodes that this one knows, itself included. Labeled by status: joining, active, leaving.", []string{"status"}, nil)

// nodesCollector counts the list when it is scraped, so that the two cannot differ.
type nodesCollector struct{ Membership }

func (nodesCollector) Describe(out chan<- *prometheus.Desc) { out <- nodesDesc }

func (c nodesCollector) Collect(out chan<- prometheus.Metric) {
	count := map[State]int{}
	for _, node := range c.Nodes() {
		count[node.State]++
	}
	for _, state := range []State{Joining, Active, Leaving} {
		out <- prometheus.MustNewConstMetric(nodesDesc, prometheus.GaugeValue, float64(count[state]), string(state))
	}
}
