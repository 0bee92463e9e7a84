package ihpa

import (
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
)

func gauge(name, help string) *prometheus.GaugeVec {
	return prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "kubetide", Subsystem: "ihpa", Name: name,
		Help: help + " Labeled by namespace and ihpa."}, []string{"namespace", "ihpa"})
}

var (
	desiredReplicas = gauge("desired_replicas", "Replicas that the workload is going to, within the bounds.")
	onlineReplicas  = gauge("online_replicas", "Running pods in the state Online.")
	cutoffReplicas  = gauge("cutoff_replicas", "Running pods in the state Cutoff.")
	grayPercent     = gauge("gray_percent", "How much of the gray run is done, 0 to 100.")
	gauges          = []*prometheus.GaugeVec{desiredReplicas, onlineReplicas, cutoffReplicas, grayPercent}
)

func init() {
	for _, g := range gauges {
		metrics.Registry.MustRegister(g)
	}
}

func measure(o *kapacity.IntelligentHorizontalPodAutoscaler) {
	s := o.Status
	desiredReplicas.WithLabelValues(o.Namespace, o.Name).Set(float64(ptr.Deref(s.DesiredReplicas, 0)))
	onlineReplicas.WithLabelValues(o.Namespace, o.Name).Set(float64(ptr.Deref(s.OnlineReplicas, 0)))
	cutoffReplicas.WithLabelValues(o.Namespace, o.Name).Set(float64(ptr.Deref(s.CutoffReplicas, 0)))
	percent := int32(100)
	if s.Gray != nil {
		percent = s.Gray.GrayPercent
	}
	grayPercent.WithLabelValues(o.Namespace, o.Name).Set(float64(percent))
}

func forgetMetrics(namespace, name string) {
	for _, g := range gauges {
		g.DeleteLabelValues(namespace, name)
	}
}
