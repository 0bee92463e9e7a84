package stackset

import (
	"context"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/kubetide/kubetide/scaler/prescale"
	"github.com/kubetide/kubetide/workloads/stackset/generate"
)

// The metrics of stackset-controller, by its names, and how often traffic has moved.
var (
	faults = prometheus.NewCounter(prometheus.CounterOpts{Name: "stackset_errors_count",
		Help: "Looks at StackSets that failed, or found something wrong that does not mend itself."})
	panics = prometheus.NewCounter(prometheus.CounterOpts{Name: "stackset_errors_panic_count",
		Help: "Panics while StackSets were looked at."})
	switches = prometheus.NewCounter(prometheus.CounterOpts{Namespace: "kubetide", Subsystem: "stackset", Name: "switches_total",
		Help: "Changes of weights that have come into force."})
	told = &gauges{}
)

func init() { metrics.Registry.MustRegister(faults, panics, switches, told) }

var (
	stacksDesc = prometheus.NewDesc("stackset_stackset_stacks",
		"Stacks of the StackSet. Labeled by namespace, stackset and application.", []string{"namespace", "stackset", "application"}, nil)
	desiredDesc            = ofStack("desired_traffic_weight", "Percent of the traffic that the Stack is to have.")
	actualDesc             = ofStack("actual_traffic_weight", "Percent of the traffic that the Stack has.")
	readyDesc              = ofStack("ready", "1 if the Stack could take traffic.")
	prescalingDesc         = ofStack("prescaling_active", "1 while pods are held for the Stack's traffic.")
	prescalingReplicasDesc = ofStack("prescaling_replicas", "Pods that are held for the Stack's traffic.")
)

func ofStack(name, help string) *prometheus.Desc {
	return prometheus.NewDesc("stackset_stack_"+name, help+" Labeled by namespace, stack and application.", []string{"namespace", "stack", "application"}, nil)
}

// gauges tell of StackSets and Stacks as they were when they were last looked at.
type gauges struct {
	mu   sync.Mutex
	sets map[types.NamespacedName]figures
}

// figures are those of a StackSet and its Stacks, each with its application.
type figures struct {
	application string
	stacks      []stackFigures
}

type stackFigures struct {
	name, application string
	ready             bool
	desired, actual   int
	held              prescale.State
}

// set takes over what the round has found.
func (g *gauges) set(r *round) {
	f := figures{application: r.set.Labels[generate.ApplicationLabel]}
	for _, v := range r.versions {
		o := v.outcome
		f.stacks = append(f.stacks, stackFigures{v.Stack.Name, v.Stack.Labels[generate.ApplicationLabel], o.Ready, o.Desired, o.Actual, o.Prescaling.State})
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.sets == nil {
		g.sets = map[types.NamespacedName]figures{}
	}
	g.sets[client.ObjectKeyFromObject(r.set)] = f
}

func (g *gauges) forget(set types.NamespacedName) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.sets, set)
}

// Start implements manager.Runnable: who leads no more knows nothing.
func (g *gauges) Start(ctx context.Context) error {
	<-ctx.Done()
	g.reset()
	return nil
}

func (g *gauges) reset() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.sets = nil
}

// Describe implements prometheus.Collector.
func (g *gauges) Describe(to chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{stacksDesc, desiredDesc, actualDesc, readyDesc, prescalingDesc, prescalingReplicasDesc} {
		to <- desc
	}
}

// Collect implements prometheus.Collector.
func (g *gauges) Collect(to chan<- prometheus.Metric) {
	g.mu.Lock()
	defer g.mu.Unlock()
	seen := map[types.NamespacedName]bool{} // a Stack may have two owners, and a series that is there twice would spoil all
	for set, f := range g.sets {
		put := func(desc *prometheus.Desc, value float64, name, application string) {
			to <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, set.Namespace, name, application)
		}
		put(stacksDesc, float64(len(f.stacks)), set.Name, f.application)
		for _, s := range f.stacks {
			name := types.NamespacedName{Namespace: set.Namespace, Name: s.name}
			if seen[name] {
				continue
			}
			seen[name] = true
			put(desiredDesc, float64(s.desired), s.name, s.application)
			put(actualDesc, float64(s.actual), s.name, s.application)
			put(readyDesc, number(s.ready), s.name, s.application)
			put(prescalingDesc, number(s.held.Active), s.name, s.application)
			put(prescalingReplicasDesc, float64(s.held.Replicas), s.name, s.application)
		}
	}
}

func number(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
