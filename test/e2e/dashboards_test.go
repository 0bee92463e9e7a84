package e2e

import (
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/common/model"

	"github.com/kubetide/kubetide/test/dashboards"
	"github.com/kubetide/kubetide/test/lab"
	"github.com/kubetide/kubetide/test/lab/build"
)

const root = "../.."

// promtool finds nothing wrong with the alerts' file, and each alert fires and is silent in its unit tests.
func TestAlertsPassTheirUnitTests(t *testing.T) {
	t.Parallel()
	binaries, err := build.Binaries(t.Context(), nil, "promtool")
	must(t, err)
	for _, args := range [][]string{{"check", "rules", "--lint=all", "--lint-fatal", "rules.yaml"}, {"test", "rules", "rules_test.yaml"}} {
		promtool := exec.CommandContext(t.Context(), binaries["promtool"], args...)
		promtool.Dir = filepath.Join(root, "deploy", "prometheus")
		if out, err := promtool.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

// question is what a panel, a variable or an alert asks Prometheus for.
type question struct{ by, text string }

// questions are all of them, by the values of variables.
func questions(t *testing.T, values map[string]string) (out []question) {
	t.Helper()
	all, err := dashboards.Dashboards(root)
	must(t, err)
	for _, d := range all {
		for _, v := range d.Templating.List {
			if v.Type == "query" {
				text, err := v.Expression()
				must(t, err)
				out = append(out, question{fmt.Sprintf("%s, variable %s", d.UID, v.Name), dashboards.Fill(text, values)})
			}
		}
		for _, p := range d.Panels {
			for _, target := range p.Targets {
				out = append(out, question{fmt.Sprintf("%s, panel %q", d.UID, p.Title), dashboards.Fill(target.Expr, values)})
			}
		}
	}
	rules, err := dashboards.Rules(root)
	must(t, err)
	for _, r := range rules {
		signals, err := dashboards.Signals(r.Expr)
		must(t, err)
		for _, text := range signals {
			out = append(out, question{"alert " + r.Alert, text})
		}
	}
	return out
}

// inTrouble says whether the question is for names of metrics that are not well, which nobody has while all are.
func (q question) inTrouble() bool {
	return !strings.Contains(q.text, "vector(0)") &&
		(strings.Contains(q.text, "kubetide_metric_failing") || strings.Contains(q.text, "kubetide_metric_fallback"))
}

// A Prometheus that scrapes three servers has data for each expression of each dashboard and alert, while all is well, but for the
// names of metrics that are not well; these come when a source fails, and the alert with them.
func TestDashboardsAndAlertsShowData(t *testing.T) {
	c, stop := startThree(t, 4)
	defer stop()

	var down atomic.Bool
	port := answering(t, func(w http.ResponseWriter, r *http.Request, _ string) {
		if down.Load() && r.URL.Path != "/metrics" {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		fmt.Fprint(w, `{"load": 10}`)
	})
	for _, name := range []string{"shop", "cart", "orders", "letters"} {
		workload(t, c.ns, "Deployment", name, 1, "")
	}
	podJSON(t, c.ns, "shop", port, "10", "")
	for name, fallback := range map[string]string{"orders": "", "letters": "metric-config.external.letters.json-path/fallback-value: \"60\""} {
		create(t, c.ns, `
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: %[1]s
  annotations:
    metric-config.external.%[1]s.json-path/endpoint: http://%[2]s:%[3]d/%[1]s
    metric-config.external.%[1]s.json-path/json-key: $.load
    metric-config.external.%[1]s.json-path/interval: 1s
    %[4]s
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: %[1]s}
  maxReplicas: 2
  metrics:
    - {type: External, external: {metric: {name: %[1]s, selector: {matchLabels: {type: json-path}}}, target: {type: AverageValue, averageValue: "10"}}}
`, name, tenantHost, port, fallback)
	}
	staticIHPA(t, c.ns, "Deployment", "cart", 4, "grayState: Cutoff, changePercent: 50, changeIntervalSeconds: 600, observationSeconds: 600")
	reach(t, c.ns, "cart", state{online: 4, endpoints: 4}, time.Minute)
	setStatic(t, c.ns, "cart", 2)
	reach(t, c.ns, "cart", state{online: 3, cutoff: 1, endpoints: 3}, time.Minute)
	s := stacks{t, c.ns, c.ns + ".example", "", "stackLifecycle: {limit: 5}"}
	s.apply("v1", 8080, "replicas: 1")
	eventually(t, time.Minute, s.has(map[string]int{"shop-v1": 100}))

	prometheus := scraping(t)
	values := map[string]string{"job": ".+", "instance": ".+", "namespace": c.ns, "collector": ".*", "application": "shop", "ihpa": "cart",
		"__rate_interval": "20s"}
	answered := func(trouble bool) func() error {
		return func() error {
			var without []string
			for _, q := range questions(t, values) {
				if q.inTrouble() && !trouble {
					continue
				}
				if err := hasData(t, prometheus, q.text); err != nil {
					without = append(without, fmt.Sprintf("%s: %v", q.by, err))
				}
			}
			if len(without) > 0 {
				return fmt.Errorf("%d without data:\n%s", len(without), strings.Join(without, "\n"))
			}
			return nil
		}
	}
	eventually(t, 2*time.Minute, answered(false))
	// Alerts on the servers have no namespace.
	eventually(t, time.Minute, func() error {
		value, err := prometheus.Query(t.Context(), fmt.Sprintf(`ALERTS{alertname=~"Kubetide.+", namespace=~"(%s)?"}`, c.ns))
		if err != nil {
			return err
		}
		if alerts := value.(model.Vector); len(alerts) > 0 {
			return fmt.Errorf("while all is well: %v", alerts)
		}
		return nil
	})

	down.Store(true)
	eventually(t, 2*time.Minute, answered(true))
	for alert, hpa := range map[string]string{"KubetideMetricStale": "orders", "KubetideFallbackActive": "letters"} {
		eventually(t, 30*time.Second, func() error {
			return hasData(t, prometheus, fmt.Sprintf(`ALERTS{alertname=%q, alertstate="pending", namespace=%q, hpa=%q, metric=%[3]q}`, alert, c.ns, hpa))
		})
	}
	n := questions(t, values)
	t.Logf("%d expressions had data; %d of them name metrics that are not well", len(n), len(slices.DeleteFunc(n, func(q question) bool { return !q.inTrouble() })))
}

// scraping is a Prometheus that scrapes Kubetide's pods as one in the cluster would, and has the alerts.
func scraping(t *testing.T) *lab.Prometheus {
	t.Helper()
	rules, err := filepath.Abs(dashboards.RulesFile(root))
	must(t, err)
	var targets []string
	for _, p := range kubetidePods(t) {
		targets = append(targets, net.JoinHostPort(p.Status.PodIP, "8002"))
	}
	prometheus, err := cluster.StartPrometheus(t.Context(), lab.PrometheusConfig{Rules: []string{rules}, ScrapeInterval: 2 * time.Second, Jobs: []lab.PrometheusJob{
		{Name: "kubetide-headless", Targets: targets, Labels: map[string]string{"namespace": system}, HonorLabels: true},
	}})
	must(t, err)
	t.Cleanup(prometheus.Stop)
	return prometheus
}

func hasData(t *testing.T, prometheus *lab.Prometheus, text string) error {
	t.Helper()
	value, err := prometheus.Query(t.Context(), text)
	if err != nil {
		return fmt.Errorf("%s: %w", text, err)
	}
	if vector, ok := value.(model.Vector); !ok || len(vector) == 0 {
		return fmt.Errorf("%s has no data: %v", text, value)
	}
	return nil
}
