package discovery

import (
	"cmp"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

var (
	failingDesc = prometheus.NewDesc("kubetide_metric_failing",
		"1 for a metric that cannot be read or collected; absent while all is well. Labeled by namespace, hpa and metric.", []string{"namespace", "hpa", "metric"}, nil)
	fallbackDesc = prometheus.NewDesc("kubetide_metric_fallback",
		"1 for a metric whose fallback is served; absent while all is well. Labeled by namespace, hpa and metric.", []string{"namespace", "hpa", "metric"}, nil)
	troubledDesc = prometheus.NewDesc("kubetide_hpa_metrics",
		"Metrics of HPAs that are not well, also those that are too many to be named. Labeled by state (failing, fallback).", []string{"state"}, nil)
	hpasDesc = prometheus.NewDesc("kubetide_hpas", "HPAs that are watched.", nil, nil)
)

const (
	// maxNamed is how many metrics of HPAs a family names; they are counted all the same.
	maxNamed = 1000
	// maxLabel bounds a label value that tenants choose, in bytes.
	maxLabel = 128
)

// Describe implements prometheus.Collector.
func (d *Discovery) Describe(out chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{failingDesc, fallbackDesc, troubledDesc, hpasDesc} {
		out <- desc
	}
}

// hpaMetric is one metric of an HPA by its labels.
type hpaMetric struct{ namespace, hpa, metric string }

// Collect implements prometheus.Collector.
func (d *Discovery) Collect(out chan<- prometheus.Metric) {
	failing, fallback := map[hpaMetric]bool{}, map[hpaMetric]bool{}
	d.mu.Lock()
	hpas := len(d.objects)
	for _, o := range d.objects {
		note := func(in map[hpaMetric]bool, metric string) {
			if len(metric) > maxLabel {
				metric = metric[:maxLabel]
			}
			in[hpaMetric{o.key.Namespace, o.key.Name, strings.ToValidUTF8(metric, "?")}] = true
		}
		for metric := range o.fatal {
			note(failing, metric)
		}
		for series, t := range o.topics {
			if t.failing {
				note(failing, series.Metric)
			}
		}
		for series, f := range o.falls {
			if f.serves {
				note(fallback, series.Metric)
			}
		}
	}
	d.mu.Unlock()
	out <- prometheus.MustNewConstMetric(hpasDesc, prometheus.GaugeValue, float64(hpas))
	name := func(all map[hpaMetric]bool, desc *prometheus.Desc, state string) {
		out <- prometheus.MustNewConstMetric(troubledDesc, prometheus.GaugeValue, float64(len(all)), state)
		sorted := make([]hpaMetric, 0, len(all))
		for m := range all {
			sorted = append(sorted, m)
		}
		if len(sorted) > maxNamed { // the same ones at each scrape
			slices.SortFunc(sorted, func(a, b hpaMetric) int {
				return cmp.Or(cmp.Compare(a.namespace, b.namespace), cmp.Compare(a.hpa, b.hpa), cmp.Compare(a.metric, b.metric))
			})
			sorted = sorted[:maxNamed]
		}
		for _, m := range sorted {
			out <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, 1, m.namespace, m.hpa, m.metric)
		}
	}
	name(failing, failingDesc, "failing")
	name(fallback, fallbackDesc, "fallback")
}
