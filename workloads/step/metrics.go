package step

import (
	"context"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
)

var (
	writes = prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "kubetide", Subsystem: "step", Name: "writes_total",
		Help: "Writes for Steps and Pipelines that the API server took. Labeled by kind of the object that was written, and verb."}, []string{"kind", "verb"})
	conditionsTold = &tally{desc: prometheus.NewDesc("kubetide_step_conditions",
		"Steps and Pipelines by what their status says. Labeled by kind, condition and status.", []string{"kind", "condition", "status"}, nil)}
)

func init() { metrics.Registry.MustRegister(writes, conditionsTold) }

// The verbs of writes.
const (
	created       = "create"
	patched       = "patch"
	patchedStatus = "patch_status"
	scaled        = "scale"
	deleted       = "delete"
)

func wrote(kind, verb string) { writes.WithLabelValues(kind, verb).Inc() }

// tally counts objects by their conditions.
type tally struct {
	desc *prometheus.Desc

	mu sync.Mutex
	// objects are what each says of itself.
	objects map[named][]metav1.Condition
}

type named struct {
	kind string
	types.NamespacedName
}

func (t *tally) set(kind string, name types.NamespacedName, conditions []metav1.Condition) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.objects == nil {
		t.objects = map[named][]metav1.Condition{}
	}
	t.objects[named{kind, name}] = conditions
}

func (t *tally) forget(kind string, name types.NamespacedName) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.objects, named{kind, name})
}

// Start implements manager.Runnable: who leads no more knows nothing.
func (t *tally) Start(ctx context.Context) error {
	<-ctx.Done()
	t.reset()
	return nil
}

func (t *tally) reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.objects = nil
}

// Describe implements prometheus.Collector.
func (t *tally) Describe(to chan<- *prometheus.Desc) { to <- t.desc }

// Collect implements prometheus.Collector.
func (t *tally) Collect(to chan<- prometheus.Metric) {
	counts := map[[3]string]int{}
	t.mu.Lock()
	for o, conditions := range t.objects {
		for _, c := range conditions {
			counts[[3]string{o.kind, c.Type, string(c.Status)}]++
		}
	}
	t.mu.Unlock()
	for of, n := range counts {
		to <- prometheus.MustNewConstMetric(t.desc, prometheus.GaugeValue, float64(n), of[:]...)
	}
}
