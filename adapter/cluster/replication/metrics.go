package replication

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Why a sample does not arrive.
const (
	droppedReplaced = "replaced"
	droppedTooLarge = "too_large"
	droppedUnknown  = "unknown"
	droppedOld      = "old"
)

// Why a node, or what it says, is refused.
const (
	refusedTLS      = "tls"
	refusedProtocol = "protocol"
	refusedCluster  = "cluster"
	refusedSelf     = "self"
	refusedFrame    = "frame"
	refusedWant     = "want"
	refusedTooMany  = "too_many"
)

// logEvery bounds how often one reason to refuse is logged.
const logEvery = time.Minute

type metrics struct {
	sent, received   prometheus.Counter
	samples          prometheus.Counter
	dropped, refused *prometheus.CounterVec

	mu     sync.Mutex
	logged map[string]time.Time // under mu
}

func newMetrics(registerer prometheus.Registerer, r *Replication) *metrics {
	bytes := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "kubetide_replication_bytes_total",
		Help: "Bytes between this node and the others, before encryption. Labeled by direction: sent, received.",
	}, []string{"direction"})
	m := &metrics{
		sent: bytes.WithLabelValues("sent"), received: bytes.WithLabelValues("received"),
		samples: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "kubetide_replication_samples_total",
			Help: "Samples that came from other nodes.",
		}),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kubetide_replication_dropped_total",
			Help: "Samples that were not sent or not used. Labeled by reason: replaced, too_large, unknown, old.",
		}, []string{"reason"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kubetide_replication_refused_total",
			Help: "Streams and wants of other nodes that were refused. Labeled by reason: tls, protocol, cluster, self, frame, want, too_many.",
		}, []string{"reason"}),
		logged: map[string]time.Time{},
	}
	for _, reason := range []string{droppedReplaced, droppedTooLarge, droppedUnknown, droppedOld} {
		m.dropped.WithLabelValues(reason)
	}
	for _, reason := range []string{refusedTLS, refusedProtocol, refusedCluster, refusedSelf, refusedFrame, refusedWant, refusedTooMany} {
		m.refused.WithLabelValues(reason)
	}
	if registerer != nil {
		registerer.MustRegister(bytes, m.samples, m.dropped, m.refused, lagCollector{r})
	}
	return m
}

func (m *metrics) mayLog(reason string, now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if last, ok := m.logged[reason]; ok && now.Sub(last) < logEvery {
		return false
	}
	m.logged[reason] = now
	return true
}

var lagDesc = prometheus.NewDesc("kubetide_replication_lag_seconds",
	"Time that what is sent to a node takes to be taken there, or since there is no stream to it. Labeled by peer, the ID of a node that is there now.",
	[]string{"peer"}, nil)

// lagCollector looks at the nodes when it is scraped, so that those that are gone have no series.
type lagCollector struct{ r *Replication }

func (c lagCollector) Describe(out chan<- *prometheus.Desc) { out <- lagDesc }

func (c lagCollector) Collect(out chan<- prometheus.Metric) {
	c.r.mu.RLock()
	defer c.r.mu.RUnlock()
	for id, p := range c.r.peers {
		out <- prometheus.MustNewConstMetric(lagDesc, prometheus.GaugeValue, p.behind().Seconds(), id)
	}
}
