package ihpa

import (
	"context"
	"maps"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	"github.com/kubetide/kubetide/scaler/bounds"
	"github.com/kubetide/kubetide/scaler/merge"
)

var (
	desiredDesc = gauge("desired_replicas", "Replicas that the workload is going to, within the bounds. Labeled by namespace and ihpa.")
	wantedDesc  = gauge("wanted_replicas", "Replicas that the portraits ask for, merged, before behavior, bounds and hold. Labeled by namespace and ihpa.")
	minDesc     = gauge("min_replicas", "The lower bound that holds now. Labeled by namespace and ihpa.")
	maxDesc     = gauge("max_replicas", "The upper bound that holds now. Labeled by namespace and ihpa.")
	onlineDesc  = gauge("online_replicas", "Running pods in the state Online. Labeled by namespace and ihpa.")
	cutoffDesc  = gauge("cutoff_replicas", "Running pods in the state Cutoff. Labeled by namespace and ihpa.")
	standbyDesc = gauge("standby_replicas", "Running pods in the state Standby. Labeled by namespace and ihpa.")
	grayDesc    = gauge("gray_percent", "How much of the gray run is done, 0 to 100. Labeled by namespace and ihpa.")
	// portraitDesc and conditionDesc have one series for each portrait and each condition.
	portraitDesc = gauge("portrait_replicas", "Replicas that a portrait asks for; absent while it has no opinion. Labeled by namespace, ihpa and portrait.",
		"portrait")
	conditionDesc = gauge("condition", "1 for a condition of the status that is True, else 0. Labeled by namespace, ihpa and condition.", "condition")

	descs = []*prometheus.Desc{desiredDesc, wantedDesc, minDesc, maxDesc, onlineDesc, cutoffDesc, standbyDesc, grayDesc, portraitDesc, conditionDesc}
	told  = &gauges{}
)

func init() { metrics.Registry.MustRegister(told) }

func gauge(name, help string, more ...string) *prometheus.Desc {
	return prometheus.NewDesc("kubetide_ihpa_"+name, help, append([]string{"namespace", "ihpa"}, more...), nil)
}

// gauges tell of IHPAs as they were when they were last looked at.
type gauges struct {
	mu    sync.Mutex
	ihpas map[types.NamespacedName]figures
}

// figures are those of one IHPA: of its last decision, and of its status, which also tells of decisions that could not be taken.
// Either list is replaced, and never changed.
type figures struct{ decision, conditions []figure }

// figure is one series: the label is the portrait or the condition.
type figure struct {
	desc  *prometheus.Desc
	label string
	value float64
}

// decided takes over what has been decided.
func (g *gauges) decided(o *kapacity.IntelligentHorizontalPodAutoscaler, m merge.Outcome, b bounds.Decision) {
	s := o.Status
	percent := int32(100)
	if s.Gray != nil {
		percent = s.Gray.GrayPercent
	}
	out := []figure{{minDesc, "", float64(b.Min)}, {maxDesc, "", float64(b.Max)}, {grayDesc, "", float64(percent)}}
	if m.Valid {
		out = append(out, figure{wantedDesc, "", float64(m.Replicas)})
	}
	for desc, replicas := range map[*prometheus.Desc]*int32{
		desiredDesc: s.DesiredReplicas, onlineDesc: s.OnlineReplicas, cutoffDesc: s.CutoffReplicas, standbyDesc: s.StandbyReplicas,
	} {
		if replicas != nil {
			out = append(out, figure{desc, "", float64(*replicas)})
		}
	}
	portraits := map[string]int32{} // several may have one name
	for _, c := range m.Candidates {
		if c.Replicas != nil {
			portraits[c.Provider] = max(portraits[c.Provider], *c.Replicas)
		}
	}
	for name, replicas := range portraits {
		out = append(out, figure{portraitDesc, name, float64(replicas)})
	}
	g.change(o, func(f *figures) { f.decision = out })
}

// stands takes over the conditions.
func (g *gauges) stands(o *kapacity.IntelligentHorizontalPodAutoscaler) {
	out := make([]figure, len(o.Status.Conditions))
	for i, c := range o.Status.Conditions {
		out[i] = figure{conditionDesc, c.Type, 0}
		if c.Status == metav1.ConditionTrue {
			out[i].value = 1
		}
	}
	g.change(o, func(f *figures) { f.conditions = out })
}

func (g *gauges) change(o *kapacity.IntelligentHorizontalPodAutoscaler, change func(*figures)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ihpas == nil {
		g.ihpas = map[types.NamespacedName]figures{}
	}
	key := client.ObjectKeyFromObject(o)
	f := g.ihpas[key]
	change(&f)
	g.ihpas[key] = f
}

func (g *gauges) forget(ihpa types.NamespacedName) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.ihpas, ihpa)
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
	g.ihpas = nil
}

// Describe implements prometheus.Collector.
func (g *gauges) Describe(to chan<- *prometheus.Desc) {
	for _, desc := range descs {
		to <- desc
	}
}

// Collect implements prometheus.Collector.
func (g *gauges) Collect(to chan<- prometheus.Metric) {
	g.mu.Lock()
	ihpas := maps.Clone(g.ihpas) // no decision waits for a scrape
	g.mu.Unlock()
	for ihpa, f := range ihpas {
		for _, all := range [][]figure{f.decision, f.conditions} {
			for _, one := range all {
				labels := []string{ihpa.Namespace, ihpa.Name}
				if one.label != "" {
					labels = append(labels, one.label)
				}
				to <- prometheus.MustNewConstMetric(one.desc, prometheus.GaugeValue, one.value, labels...)
			}
		}
	}
}
