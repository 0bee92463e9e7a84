package e2e

import (
	"fmt"
	"math"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/api/resource"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"

	"github.com/kubetide/kubetide/test/docs/blocks"
)

// placeholders are what the pages' examples name and the lab has under another name. All else is applied as it stands.
var placeholders = strings.NewReplacer(
	"queue-stats.shop.svc", stubs, // the lab has no DNS
	`port: "8080"`, `port: "`+stubsPort()+`"`, // its pods share their ports
)

func stubsPort() string { return stubs[strings.Index(stubs, ":")+1:] }

// between are the bounds of a number.
type between [2]float64

func exactly(n float64) between { return between{n, n} }

// pages are what the examples of each page must give, by the metric's name, in the world of serveExamples.
var pages = map[string]map[string]between{
	"fallback.md":                   {"backlog": exactly(130)},
	"collectors/http-json.md":       {"waiting-jobs": exactly(35)},
	"collectors/influxdb.md":        {"queue-depth": exactly(42)},
	"collectors/nakadi.md":          {"orders-unconsumed": exactly(350)},
	"collectors/podjson.md":         {"orders-per-second": exactly(10)},
	"collectors/prometheus.md":      {"orders-per-second": {0.001, 30}},
	"collectors/schedules.md":       {"orders-per-second": exactly(10), "shop-sale": {0, 40}}, // on Friday evenings
	"collectors/sqs.md":             {"orders-waiting": exactly(60)},
	"collectors/static-and-cron.md": {"office-hours": {2, 6}, "floor": exactly(1)},
	"collectors/zmon.md":            {"checkout-errors": exactly(45)},
	// By TestTheExamplesOfRequestsPerSecondGiveANumber, which applies a page's first.
	"collectors/external-rps.md": nil,
	"collectors/skipper.md":      nil,
}

var exampleFile = regexp.MustCompile(`\]\(\.\./\.\./(deploy/examples/[^)]+\.yaml)\)`)

// examples are the whole manifests of a page, and the files of deploy/examples that it leads to.
func examples(t *testing.T, page string) (manifests []string) {
	t.Helper()
	text, err := os.ReadFile("../../docs/" + page)
	must(t, err)
	all, err := blocks.Parse(page, string(text))
	must(t, err)
	for _, b := range all {
		if b.Is == blocks.Manifest {
			manifests = append(manifests, b.Text)
		}
	}
	for _, link := range exampleFile.FindAllStringSubmatch(string(text), -1) {
		manifest, err := os.ReadFile("../../" + link[1])
		must(t, err)
		manifests = append(manifests, string(manifest))
	}
	return manifests
}

// The manifests of the collectors' pages, applied as they stand, give the stock HPA a number for each metric.
func TestTheExamplesOfThePagesGiveANumber(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../../docs/collectors/*.md")
	must(t, err)
	found := []string{"fallback.md"}
	for _, file := range files {
		found = append(found, "collectors/"+filepath.Base(file))
	}
	for page := range pages {
		if !slices.Contains(found, page) {
			t.Errorf("there is no page %s", page)
		}
	}
	var world exampleWorld
	world.serve(t)
	makeQueue(t, "orders").send(t, 60)
	for _, page := range found {
		want, known := pages[page]
		manifests := examples(t, page)
		switch {
		case len(manifests) == 0:
			t.Errorf("%s has no whole example", page)
		case !known:
			t.Errorf("%s: nothing is known about its examples", page)
		case want == nil && len(manifests) > 1:
			t.Errorf("%s has %d whole examples, and only the first is tested", page, len(manifests))
		case want != nil:
			t.Run(page, func(t *testing.T) {
				t.Parallel()
				ns := newNamespace(t)
				world.namespaces.Store(ns, true)
				applyExamples(t, ns, placeholders.Replace(strings.Join(manifests, "\n---\n")), want)
			})
		}
	}
}

// applyExamples creates the manifests and the Deployments that are to be scaled, and waits until the HPAs have the numbers.
func applyExamples(t *testing.T, ns, manifests string, want map[string]between) {
	t.Helper()
	var hpas []autoscalingv2.HorizontalPodAutoscaler
	there := map[string]bool{}
	for _, text := range strings.Split(manifests, "\n---\n") {
		var hpa autoscalingv2.HorizontalPodAutoscaler
		must(t, utilyaml.Unmarshal([]byte(text), &hpa))
		switch hpa.Kind {
		case "HorizontalPodAutoscaler":
			hpas = append(hpas, hpa)
		case "Deployment":
			there[hpa.Name] = true
		}
	}
	for _, hpa := range hpas {
		if name := hpa.Spec.ScaleTargetRef.Name; !there[name] {
			workload(t, ns, "Deployment", name, 1, "")
			there[name] = true
		}
	}
	create(t, ns, "%s", manifests)
	for _, hpa := range hpas {
		eventually(t, 2*time.Minute, func() error {
			got := numbers(getHPA(t, ns, hpa.Name))
			for _, m := range hpa.Spec.Metrics {
				name := metricName(m)
				bounds, known := want[name]
				number, seen := got[name]
				if !known || !seen || number < bounds[0]*0.99 || number > bounds[1]*1.01 {
					return fmt.Errorf("HPA %s has the numbers %v, want %v of %s (known: %t)", hpa.Name, got, bounds, name, known)
				}
			}
			return nil
		})
		t.Logf("HPA %s has %v", hpa.Name, numbers(getHPA(t, ns, hpa.Name)))
	}
	if len(hpas) == 0 {
		t.Error("no example has an HPA")
	}
}

func metricName(m autoscalingv2.MetricSpec) string {
	switch {
	case m.Pods != nil:
		return m.Pods.Metric.Name
	case m.Object != nil:
		return m.Object.Metric.Name
	case m.External != nil:
		return m.External.Metric.Name
	}
	return ""
}

// numbers are what the HPA says of its metrics: the average of a Pods metric, the whole of any other.
func numbers(hpa *autoscalingv2.HorizontalPodAutoscaler) map[string]float64 {
	out := map[string]float64{}
	whole := func(name string, current autoscalingv2.MetricValueStatus) {
		number := func(q *resource.Quantity) float64 { return math.Round(q.AsApproximateFloat64()*1000) / 1000 }
		if current.Value != nil {
			out[name] = number(current.Value)
		} else if current.AverageValue != nil {
			out[name] = number(current.AverageValue) * float64(hpa.Status.CurrentReplicas)
		}
	}
	for _, m := range hpa.Status.CurrentMetrics {
		switch {
		case m.Pods != nil && m.Pods.Current.AverageValue != nil:
			out[m.Pods.Metric.Name] = m.Pods.Current.AverageValue.AsApproximateFloat64()
		case m.Object != nil:
			whole(m.Object.Metric.Name, m.Object.Current)
		case m.External != nil:
			whole(m.External.Metric.Name, m.External.Current)
		}
	}
	return out
}

// exampleWorld plays what the examples ask and the lab has not: pods, an endpoint with JSON, an exporter for Prometheus, InfluxDB, Nakadi
// and ZMON. What the collectors send and take in detail is held by their own tests.
type exampleWorld struct {
	namespaces sync.Map // whose series the exporter has
}

func (w *exampleWorld) serve(t *testing.T) {
	t.Helper()
	began := time.Now()
	mux := http.NewServeMux()
	text := func(pattern, authorization, answer string) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if got := r.Header.Get("Authorization"); got != authorization {
				http.Error(w, "who is it?", http.StatusUnauthorized)
				return
			}
			fmt.Fprint(w, answer)
		})
	}
	text("GET /metrics.json", "", `{"orders": {"per_second": 10}}`)
	text("GET /stats.json", "", `{"jobs": {"waiting": 35}}`)
	text("POST /influxdb/api/v2/query", "Token hush", "#datatype,string,long,double\r\n#group,false,false,false\r\n#default,_result,,\r\n"+
		",result,table,metricvalue\r\n,,0,42\r\n\r\n")
	text("GET /nakadi/subscriptions/708095f6-cece-4d02-840e-ee488d710b29/stats", "Bearer hush",
		`{"items": [{"event_type": "orders", "partitions": [{"partition": "0", "unconsumed_events": 150}, {"partition": "1", "unconsumed_events": 200}]}]}`)
	text("POST /kairosdb/api/v1/datapoints/query", "Bearer hush",
		`{"queries": [{"results": [{"name": "zmon.check.1234", "values": [[`+strconv.FormatInt(began.UnixMilli(), 10)+`, 45]]}]}]}`)
	mux.HandleFunc("GET /metrics", func(out http.ResponseWriter, _ *http.Request) {
		for ns := range w.namespaces.Range {
			fmt.Fprintf(out, "http_requests_total{app=%q,namespace=%q} %f\n", "shop", ns, 25*time.Since(began).Seconds())
			fmt.Fprintf(out, "queue_backlog{queue=%q,namespace=%q} 130\n", "orders", ns)
		}
	})
	listener, err := net.Listen("tcp", "0.0.0.0:"+stubsPort())
	must(t, err)
	server := &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: mux}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
}
