package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	scrapeInterval = time.Second      // of the lab's Prometheus
	rateWindow     = 60 * time.Second // over which Kubetide asks for the rate
	tolerance      = 0.05             // of a value, as a part of it
)

// routing is a way to share out a host's requests between the Services shop-v1 and shop-v2.
type routing struct {
	group, version, resource, kind string
	// object is what an HPA describes; empty where each version has one of its own name.
	object string
	// routes are the objects for a host of which shop-v1 gets so many percent, in an order that leaves no request without a route
	// when shop-v1's part shrinks.
	routes func(host string, v1 int) string
}

var routings = map[string]routing{
	"weights in an annotation": {"networking.k8s.io", "v1", "ingresses", "Ingress", "shop", func(host string, v1 int) string {
		return fmt.Sprintf(`
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: shop
  annotations: {zalando.org/backend-weights: '{"shop-v1": %[2]d, "shop-v2": %[3]d}'}
spec:
  rules:
  - host: %[1]s
    http:
      paths:
      - {pathType: Prefix, path: /, backend: {service: {name: shop-v1, port: {number: 80}}}}
      - {pathType: Prefix, path: /, backend: {service: {name: shop-v2, port: {number: 80}}}}
`, host, v1, 100-v1)
	}},
	"weights of a RouteGroup's backends": {"zalando.org", "v1", "routegroups", "RouteGroup", "shop", func(host string, v1 int) string {
		return fmt.Sprintf(`
apiVersion: zalando.org/v1
kind: RouteGroup
metadata: {name: shop}
spec:
  hosts: [%[1]s]
  backends:
  - {name: shop-v1, type: service, serviceName: shop-v1, servicePort: 80}
  - {name: shop-v2, type: service, serviceName: shop-v2, servicePort: 80}
  defaultBackends: [{backendName: shop-v1, weight: %[2]d}, {backendName: shop-v2, weight: %[3]d}]
  routes: [{pathSubtree: /}]
`, host, v1, 100-v1)
	}},
	"traffic segments of Ingresses": {"networking.k8s.io", "v1", "ingresses", "Ingress", "", func(host string, v1 int) string {
		const one = `
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: %[2]s
  annotations: {zalando.org/skipper-predicate: 'TrafficSegment(%.2[3]f, %.2[4]f)'}
spec:
  rules:
  - host: %[1]s
    http: {paths: [{pathType: Prefix, path: /, backend: {service: {name: %[2]s, port: {number: 80}}}}]}
`
		at := float64(v1) / 100
		return fmt.Sprintf(one, host, "shop-v2", at, 1.0) + fmt.Sprintf(one, host, "shop-v1", 0.0, at)
	}},
	"traffic segments of RouteGroups": {"zalando.org", "v1", "routegroups", "RouteGroup", "", func(host string, v1 int) string {
		const one = `
---
apiVersion: zalando.org/v1
kind: RouteGroup
metadata: {name: %[2]s}
spec:
  hosts: [%[1]s]
  backends: [{name: %[2]s, type: service, serviceName: %[2]s, servicePort: 80}]
  defaultBackends: [{backendName: %[2]s}]
  routes: [{pathSubtree: /, predicates: ['TrafficSegment(%.2[3]f, %.2[4]f)']}]
`
		at := float64(v1) / 100
		return fmt.Sprintf(one, host, "shop-v2", at, 1.0) + fmt.Sprintf(one, host, "shop-v1", 0.0, at)
	}},
}

// Real requests go through skipper to real backends, and skipper is counted by Prometheus: each HPA sees the part that its
// backend really gets, and a change of the weights at once. Measured, so it runs alone.
func TestEachHPASeesTheRequestsThatItsBackendGets(t *testing.T) {
	const rate = 250 // of each routing: 1,000 requests a second together
	before, err := cluster.CPU()
	must(t, err)
	began := time.Now()
	t.Run("routings", func(t *testing.T) {
		for name, r := range routings {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				splitAndShift(t, r, rate, name == "weights in an annotation")
			})
		}
	})
	after, err := cluster.CPU()
	must(t, err)
	for program, used := range after {
		if cores := (used - before[program]).Seconds() / time.Since(began).Seconds(); cores >= 0.01 {
			t.Logf("%s used %.2f cores", program, cores)
		}
	}
}

// splitAndShift puts the load on a host split 90/10, and then 30/70. external adds a metric on the host's name.
func splitAndShift(t *testing.T, r routing, rate int, external bool) {
	ns := newNamespace(t)
	host := ns + ".example"
	shops := map[string]*shop{"shop-v1": openShop(t, ns, "shop-v1"), "shop-v2": openShop(t, ns, "shop-v2")}
	apply(t, ns, r.routes(host, 90))
	sent := send(t, host, rate, shops)
	// Until the load has filled the window, the rate rises.
	eventually(t, 2*rateWindow, func() error {
		if elapsed := time.Since(sent.began); elapsed < rateWindow+2*scrapeInterval {
			return fmt.Errorf("the load is on for %v only", elapsed)
		}
		return nil
	})
	for name := range shops {
		annotation, metric := "", ""
		if external && name == "shop-v1" {
			annotation = `
    metric-config.external.half.requests-per-second/hostnames: ` + host + `
    metric-config.external.half.requests-per-second/weight: "50"
    metric-config.external.half.requests-per-second/interval: 10s`
			metric = `
  - type: External
    external: {metric: {name: half, selector: {matchLabels: {type: requests-per-second}}}, target: {type: AverageValue, averageValue: "10"}}`
		}
		// One replica, so that the average in the HPA's status is the whole. The interval is longer than a change may take to be
		// seen.
		create(t, ns, `
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: %[1]s
  annotations:
    metric-config.object.requests-per-second.skipper/interval: 10s%[2]s
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: %[1]s}
  minReplicas: 1
  maxReplicas: 1
  metrics:
  - type: Object
    object:
      describedObject: {apiVersion: %[3]s/%[4]s, kind: %[5]s, name: %[6]s}
      metric: {name: requests-per-second, selector: {matchLabels: {backend: %[1]s}}}
      target: {type: AverageValue, averageValue: "10"}%[7]s
`, name, annotation, r.group, r.version, r.kind, r.of(name), metric)
	}

	total := func() (perSecond float64) {
		for _, s := range shops {
			perSecond += s.perSecond(rateWindow)
		}
		return perSecond
	}
	served := func(name string) (float64, error) { return value(t.Context(), r.path(ns, name)) }
	seen := func(name string) (float64, error) { return seenByHPA(t, ns, name, 0) }
	// On a machine that can't hold the load evenly, the rate moves while it is compared.
	all := func(parts map[string]float64) {
		t.Helper()
		for name, part := range parts {
			for _, number := range []func(string) (float64, error){served, seen} {
				eventually(t, rateWindow, func() error {
					got, err := number(name)
					return about(got, part*total(), err)
				})
			}
			got, err := served(name)
			must(t, err)
			t.Logf("the host gets %.1f requests/s (%d wanted), which makes %.1f for %s; its metric is %.1f", total(), rate, part*total(), name, got)
		}
	}
	parts := map[string]float64{"shop-v1": 0.9, "shop-v2": 0.1}
	all(parts)
	sharesFit(t, shops, parts, map[string]int64{})
	if external {
		half := fmt.Sprintf("%s/namespaces/%s/half?labelSelector=%s", externalV1beta1, ns, url.QueryEscape("type=requests-per-second"))
		eventually(t, rateWindow, func() error {
			got, err := value(t.Context(), half)
			return about(got, total()/2, err)
		})
		eventually(t, rateWindow, func() error {
			got, err := seenByHPA(t, ns, "shop-v1", 1)
			return about(got, total()/2, err)
		})
	}

	parts = map[string]float64{"shop-v1": 0.3, "shop-v2": 0.7}
	// That of both numbers together, so that only the weights count.
	shared := func(number func(string) (float64, error)) func() error {
		return func() error {
			v1, err1 := number("shop-v1")
			v2, err2 := number("shop-v2")
			return about(v1/(v1+v2), parts["shop-v1"], errors.Join(err1, err2))
		}
	}
	began := time.Now()
	apply(t, ns, r.routes(host, 30))
	eventually(t, 20*time.Second, shared(served))
	took := time.Since(began)
	t.Logf("the new values are served %v after the change was begun", took.Round(time.Millisecond))
	if took > 2*scrapeInterval {
		t.Errorf("the new values are served %v after the change, want at most %v", took, 2*scrapeInterval)
	}
	eventually(t, 20*time.Second, shared(seen))
	t.Logf("both HPAs see them %v after it", time.Since(began).Round(time.Millisecond))
	since := map[string]int64{"shop-v1": shops["shop-v1"].total.Load(), "shop-v2": shops["shop-v2"].total.Load()}
	eventually(t, time.Minute, func() error {
		if more := shops["shop-v1"].total.Load() + shops["shop-v2"].total.Load() - since["shop-v1"] - since["shop-v2"]; more < 2000 {
			return fmt.Errorf("only %d requests came in", more)
		}
		return nil
	})
	sharesFit(t, shops, parts, since)
	all(parts)
	sent.stop(t)
}

// of is the object that the HPA of a version describes.
func (r routing) of(version string) string {
	if r.object != "" {
		return r.object
	}
	return version
}

// path is where the custom metrics API serves the version's metric.
func (r routing) path(ns, version string) string {
	return fmt.Sprintf("%s/namespaces/%s/%s.%s/%s/requests-per-second?metricLabelSelector=%s",
		customV1beta2, ns, r.resource, r.group, r.of(version), url.QueryEscape("backend="+version))
}

// value reads the one value of an answer of the metrics APIs.
func value(ctx context.Context, path string) (float64, error) {
	body, err := raw(ctx, path)
	if err != nil {
		return 0, err
	}
	var list struct {
		Items []struct{ Value resource.Quantity }
	}
	if err := json.Unmarshal(body, &list); err != nil {
		return 0, err
	}
	if len(list.Items) != 1 {
		return 0, fmt.Errorf("%s has %d items, want 1: %s", path, len(list.Items), body)
	}
	return list.Items[0].Value.AsApproximateFloat64(), nil
}

// seenByHPA reads what the HPA's status says of its metric.
func seenByHPA(t *testing.T, ns, name string, metric int) (float64, error) {
	t.Helper()
	hpa := getHPA(t, ns, name)
	if metric < len(hpa.Status.CurrentMetrics) {
		switch m := hpa.Status.CurrentMetrics[metric]; {
		case m.Object != nil && m.Object.Current.AverageValue != nil:
			return m.Object.Current.AverageValue.AsApproximateFloat64(), nil
		case m.External != nil && m.External.Current.AverageValue != nil:
			return m.External.Current.AverageValue.AsApproximateFloat64(), nil
		}
	}
	return 0, fmt.Errorf("the status of HPA %s has no metric %d: %+v", name, metric, hpa.Status)
}

// about checks a number that came with the error.
func about(got, want float64, err error) error {
	if err == nil && !(math.Abs(got-want) <= tolerance*want) {
		err = fmt.Errorf("the value is %.2f, want %.2f ± %.0f %%", got, want, 100*tolerance)
	}
	return err
}

// sharesFit checks that skipper shares out the requests by the parts. It draws lots, so five standard deviations are allowed.
func sharesFit(t *testing.T, shops map[string]*shop, parts map[string]float64, since map[string]int64) {
	t.Helper()
	all := 0.0
	for name, s := range shops {
		all += float64(s.total.Load() - since[name])
	}
	for name, part := range parts {
		got, spread := float64(shops[name].total.Load()-since[name])/all, math.Sqrt(part*(1-part)/all)
		t.Logf("skipper gave %s %.2f %% of %.0f requests", name, 100*got, all)
		if math.Abs(got-part) > 5*spread {
			t.Errorf("skipper gave %s %.4f of %.0f requests, want %.2f ± %.4f", name, got, all, part, 5*spread)
		}
	}
}

// The examples of the documentation's pages give the stock HPA a number. They stay as they are but for the host, which needs a name of the
// test's own: the router serves all namespaces, and other pages route shop.example.org too.
func TestTheExamplesOfRequestsPerSecondGiveANumber(t *testing.T) {
	t.Parallel()
	ofIngress := example(t, "skipper.md")
	const ingress, group = "describedObject: {apiVersion: networking.k8s.io/v1, kind: Ingress, name: shop}",
		"describedObject: {apiVersion: zalando.org/v1, kind: RouteGroup, name: shop}"
	for name, tc := range map[string]struct {
		routing, hpa string
		part         float64
	}{
		"an Ingress":   {"weights in an annotation", ofIngress, 0.8},
		"a RouteGroup": {"weights of a RouteGroup's backends", strings.Replace(ofIngress, ingress, group, 1), 0.8},
		"a host name":  {"weights in an annotation", example(t, "external-rps.md"), 0.5},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ns := newNamespace(t)
			host := ns + ".example"
			workload(t, ns, "Deployment", "shop", 1, "")
			shops := map[string]*shop{"shop-v1": openShop(t, ns, "shop-v1"), "shop-v2": openShop(t, ns, "shop-v2")}
			apply(t, ns, routings[tc.routing].routes(host, 80))
			sent := send(t, host, 20, shops)
			// The examples are collected once a minute, so there must be a rate before they come.
			query := fmt.Sprintf(`sum(rate(skipper_serve_host_duration_seconds_count{host=%q}[1m])) > 0`, strings.ReplaceAll(host, ".", "_"))
			eventually(t, 20*time.Second, func() error {
				rate, err := metrics.Query(t.Context(), query)
				if err == nil && rate.String() == "" {
					err = errors.New("Prometheus has no rate yet")
				}
				return err
			})
			create(t, ns, "%s", strings.ReplaceAll(tc.hpa, "shop.example.org", host))
			eventually(t, 30*time.Second, func() error {
				got, err := seenByHPA(t, ns, "shop", 0)
				if err == nil && !(got > 0 && got <= 1.2*tc.part*20) {
					err = fmt.Errorf("the HPA sees %v", got)
				}
				return err
			})
			sent.stop(t)
		})
	}
	if !strings.Contains(ofIngress, ingress) {
		t.Errorf("the example of skipper.md describes no Ingress shop:\n%s", ofIngress)
	}
	page, err := os.ReadFile("../../docs/collectors/skipper.md")
	must(t, err)
	if !strings.Contains(string(page), "`"+group+"`") {
		t.Errorf("skipper.md does not say how a RouteGroup is described: no %s", group)
	}
}

// example is the first YAML of a collector's page.
func example(t *testing.T, page string) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/collectors/" + page)
	must(t, err)
	_, rest, found := strings.Cut(string(text), "\n```yaml\n")
	manifest, _, ended := strings.Cut(rest, "\n```\n")
	if !found || !ended {
		t.Fatalf("%s has no example", page)
	}
	return manifest
}

// apply writes the objects of a YAML text one after the other, whether they exist or not.
func apply(t *testing.T, ns, text string) {
	t.Helper()
	decoder := utilyaml.NewYAMLOrJSONDecoder(strings.NewReader(text), 4096)
	for {
		u := &unstructured.Unstructured{}
		if err := decoder.Decode(u); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
		if len(u.Object) == 0 {
			continue
		}
		u.SetNamespace(ns)
		must(t, api.Apply(t.Context(), client.ApplyConfigurationFromUnstructured(u), client.FieldOwner("e2e"), client.ForceOwnership))
	}
}

// shop is a Deployment of one pod that answers everything at its own address, and counts.
type shop struct {
	began   time.Time
	total   atomic.Int64
	seconds [1800]atomic.Int64 // by second since began
}

func openShop(t *testing.T, ns, name string) *shop {
	t.Helper()
	workload(t, ns, "Deployment", name, 1, "")
	listener, err := net.Listen("tcp", net.JoinHostPort(readyPods(t, ns, name)[0].Status.PodIP, "80"))
	must(t, err)
	s := &shop{began: time.Now()}
	server := &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		s.total.Add(1)
		s.seconds[min(int(time.Since(s.began).Seconds()), len(s.seconds)-1)].Add(1)
	})}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	return s
}

// perSecond is the rate of the requests in the last whole seconds.
func (s *shop) perSecond(window time.Duration) float64 {
	sum, now, count := int64(0), int(time.Since(s.began).Seconds()), int(window.Seconds())
	for i := max(0, now-count); i < now; i++ {
		sum += s.seconds[i].Load()
	}
	return float64(sum) / float64(count)
}

// sender sends requests to a host through the router until it is stopped.
type sender struct {
	began    time.Time
	cancel   context.CancelFunc
	finished chan string // each worker's first mistake
}

const workers = 8

// send begins, once the host leads to all of the shops, to send so many requests a second, evenly. What a slow machine can't send in
// time is left out.
func send(t *testing.T, host string, perSecond int, shops map[string]*shop) *sender {
	t.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: workers}
	caller := &http.Client{Transport: transport, Timeout: 10 * time.Second}
	ask := func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, router.URL, nil)
		if err != nil {
			return err
		}
		request.Host = host
		response, err := caller.Do(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		if _, err := io.Copy(io.Discard, response.Body); err != nil {
			return err
		}
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("%s answers %s", host, response.Status)
		}
		return nil
	}
	eventually(t, 60*time.Second, func() error {
		err := ask(t.Context())
		for name, s := range shops {
			if err == nil && s.total.Load() == 0 {
				err = fmt.Errorf("%s gets nothing", name)
			}
		}
		return err
	})
	ctx, cancel := context.WithCancel(context.Background())
	s := &sender{began: time.Now(), cancel: cancel, finished: make(chan string, workers)}
	gap := time.Second * workers / time.Duration(perSecond)
	for i := range workers {
		go func() {
			mistakes, first := 0, error(nil)
			next := s.began.Add(gap * time.Duration(i) / workers)
			timer := time.NewTimer(time.Until(next))
			for {
				select {
				case <-ctx.Done():
					if first == nil {
						s.finished <- ""
					} else {
						s.finished <- fmt.Sprintf("%d mistakes, the first: %v", mistakes, first)
					}
					return
				case <-timer.C:
				}
				if err := ask(ctx); err != nil && ctx.Err() == nil {
					mistakes++
					if first == nil {
						first = fmt.Errorf("%w, after %v", err, time.Since(s.began))
					}
				}
				next = next.Add(gap)
				if late := time.Now().Add(-gap); next.Before(late) {
					next = late
				}
				timer.Reset(time.Until(next))
			}
		}()
	}
	t.Cleanup(func() {
		cancel()
		transport.CloseIdleConnections()
	})
	return s
}

// stop ends the load, and fails the test if a request was not answered.
func (s *sender) stop(t *testing.T) {
	t.Helper()
	s.cancel()
	for range workers {
		if mistakes := <-s.finished; mistakes != "" {
			t.Errorf("requests were not answered: %s", mistakes)
		}
	}
}
