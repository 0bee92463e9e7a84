package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	authorizationv1 "k8s.io/api/authorization/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// Addresses of this machine where tests play servers of tenants: those of pods that kwok has not reached.
const (
	tenantHost  = "10.244.77.1"
	hangingHost = "10.244.77.2"
)

// keys are the settings of a collector.
type keys map[string]string

// ask is what an HPA asks of Kubetide in one metric, and what Kubetide must say about it.
type ask struct {
	kind      autoscalingv2.MetricSourceType // External if empty
	object    string                         // of kind Object: kind/name in zalando.org or networking.k8s.io
	collector string
	keys      keys
	// annotations are further ones.
	annotations map[string]string
	// want are fragments of one Event; of alternatives with || between them, one is enough.
	want []string
}

// hpa is the ask as an HPA. Its metric is called as itself, so that HPAs of a namespace do not meet. Its target has no pods, so
// that the HPA controller does not ask for the metric: these tests do.
func (a ask) hpa(name string) *autoscalingv2.HorizontalPodAutoscaler {
	annotations := maps.Clone(a.annotations)
	if annotations == nil {
		annotations = map[string]string{}
	}
	metric := autoscalingv2.MetricIdentifier{Name: name}
	target := autoscalingv2.MetricTarget{Type: autoscalingv2.AverageValueMetricType, AverageValue: ptr.To(resource.MustParse("1"))}
	spec, word, workload := autoscalingv2.MetricSpec{Type: a.kind}, strings.ToLower(string(a.kind)), "shop"
	switch a.kind {
	case autoscalingv2.PodsMetricSourceType:
		spec.Pods = &autoscalingv2.PodsMetricSource{Metric: metric, Target: target}
		workload = "missing"
	case autoscalingv2.ObjectMetricSourceType:
		kind, name, _ := strings.Cut(a.object, "/")
		version := map[string]string{"Ingress": "networking.k8s.io/v1"}[kind]
		if version == "" {
			version = "zalando.org/v1"
		} else {
			metric.Name = "requests-per-second"
		}
		spec.Object = &autoscalingv2.ObjectMetricSource{Metric: metric, Target: target,
			DescribedObject: autoscalingv2.CrossVersionObjectReference{APIVersion: version, Kind: kind, Name: name}}
	default:
		spec.Type, word = autoscalingv2.ExternalMetricSourceType, "external"
		metric.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"type": a.collector}}
		spec.External = &autoscalingv2.ExternalMetricSource{Metric: metric, Target: target}
	}
	for key, value := range a.keys {
		annotations[fmt.Sprintf("metric-config.%s.%s.%s/%s", word, metric.Name, a.collector, key)] = value
	}
	return &autoscalingv2.HorizontalPodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: annotations},
		Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: workload},
			MinReplicas:    ptr.To[int32](1), MaxReplicas: 2, Metrics: []autoscalingv2.MetricSpec{spec},
		},
	}
}

// createHPAs creates HPAs in the namespace, eight at a time.
func createHPAs(t *testing.T, ns string, asks map[string]ask) {
	t.Helper()
	var group errgroup.Group
	group.SetLimit(8)
	for name, a := range asks {
		group.Go(func() error {
			_, err := kube.AutoscalingV2().HorizontalPodAutoscalers(ns).Create(t.Context(), a.hpa(name), metav1.CreateOptions{})
			return err
		})
	}
	must(t, group.Wait())
}

// tenants makes namespaces with a Deployment of no pods, whose HPAs are gone before the next test.
func tenants(t *testing.T, count int) []string {
	t.Helper()
	var out []string
	for range count {
		ns := newNamespace(t)
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			if err := kube.AutoscalingV2().HorizontalPodAutoscalers(ns).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
				t.Errorf("delete the HPAs of %s: %v", ns, err)
			}
		})
		workload(t, ns, "Deployment", "shop", 0, "")
		out = append(out, ns)
	}
	return out
}

// kubetideEvents are the Events that Kubetide wrote on the namespace's HPAs, by their names.
func kubetideEvents(t *testing.T, ns string) map[string][]event {
	t.Helper()
	list, err := kube.CoreV1().Events(ns).List(t.Context(), metav1.ListOptions{})
	must(t, err)
	out := map[string][]event{}
	for _, e := range list.Items {
		if e.InvolvedObject.Kind == "HorizontalPodAutoscaler" && (e.Source.Component == "kubetide" || e.ReportingController == "kubetide") {
			out[e.InvolvedObject.Name] = append(out[e.InvolvedObject.Name], event{e.Type, e.Reason, e.Message})
		}
	}
	return out
}

// allAreTold checks that each of the asks has a Warning with all that it wants to be told.
func allAreTold(t *testing.T, ns string, asks map[string]ask) func() error {
	return func() error {
		told := kubetideEvents(t, ns)
		var missing []error
		for name, a := range asks {
			if !slices.ContainsFunc(told[name], func(e event) bool {
				return e.Type == corev1.EventTypeWarning && !slices.ContainsFunc(a.want, func(f string) bool {
					return !slices.ContainsFunc(strings.Split(f, "||"), func(f string) bool { return strings.Contains(e.Message, f) })
				})
			}) {
				missing = append(missing, fmt.Errorf("%s has no Event with %q; it has %q", name, a.want, told[name]))
			}
		}
		return errors.Join(missing...)
	}
}

// ownMetrics are those of Kubetide's metrics that have the names and no labels.
func ownMetrics(ctx context.Context, admin string, names ...string) (map[string]float64, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+admin+"/metrics?"+url.Values{"name[]": names}.Encode(), nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept-Encoding", "identity") // compression takes more memory than all else of the answer
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	out := map[string]float64{}
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		if name, value, ok := strings.Cut(lines.Text(), " "); ok && !strings.HasPrefix(name, "#") && !strings.Contains(name, "{") {
			out[name], _ = strconv.ParseFloat(value, 64)
		}
	}
	return out, lines.Err()
}

// memory is what Kubetide took over a time, in bytes.
type memory struct {
	// What each collection of garbage left (the runtime's /gc/heap/live:bytes: all that is reachable, and what came while it ran): the
	// least stays, the rest is of requests that were on their way.
	live, maxLive float64
	// peak is the most that the process held of the system at a sample, with garbage, without the shadow of the race detector.
	peak, resident float64
	// Of so many collections, so many were seen: the samples saw no other in between.
	collections, seen float64
	samples           int
}

func (m memory) String() string {
	const mib = 1 << 20
	return fmt.Sprintf("%.1f to %.1f MiB in use at %.0f of %.0f collections of garbage, at most %.1f MiB held (%d samples, resident %.0f MiB at most)",
		m.live/mib, m.maxLive/mib, m.seen, m.collections, m.peak/mib, m.samples, m.resident/mib)
}

// and is what Kubetide took over both times.
func (m memory) and(other memory) memory {
	return memory{min(m.live, other.live), max(m.maxLive, other.maxLive), max(m.peak, other.peak), max(m.resident, other.resident),
		m.collections + other.collections, m.seen + other.seen, m.samples + other.samples}
}

// memoryWatch samples Kubetide's memory until the test ends, without a gap.
type memoryWatch struct {
	mu   sync.Mutex // protects span
	span memory     // since the last call of until
}

func watchMemory(t *testing.T) *memoryWatch {
	t.Helper()
	host, _, err := net.SplitHostPort(kubetideAddress(t))
	must(t, err)
	w := &memoryWatch{}
	ctx, stop := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	t.Cleanup(func() { stop(); watching.Wait() })
	watching.Go(func() {
		last := -1.0
		tick := time.NewTicker(100 * time.Millisecond) // a sample makes half a megabyte of garbage itself
		defer tick.Stop()
		for ctx.Err() == nil {
			own, err := ownMetrics(ctx, net.JoinHostPort(host, "8002"), "go_gc_cycles_total_gc_cycles_total", "go_gc_heap_live_bytes",
				"go_memstats_sys_bytes", "go_memstats_heap_released_bytes", "process_resident_memory_bytes")
			if err == nil && own["go_gc_heap_live_bytes"] == 0 {
				err = errors.New("there is no go_gc_heap_live_bytes")
			}
			if err != nil {
				if ctx.Err() == nil {
					t.Errorf("read Kubetide's memory: %v", err)
				}
				return
			}
			w.sample(own, &last)
			select {
			case <-ctx.Done():
			case <-tick.C:
			}
		}
	})
	return w
}

func (w *memoryWatch) sample(own map[string]float64, last *float64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	m := &w.span
	if count := own["go_gc_cycles_total_gc_cycles_total"]; count != *last {
		if *last >= 0 {
			m.collections += count - *last
			m.seen++
			live := own["go_gc_heap_live_bytes"]
			if m.maxLive = max(m.maxLive, live); m.live == 0 || live < m.live {
				m.live = live
			}
		}
		*last = count
	}
	m.peak = max(m.peak, own["go_memstats_sys_bytes"]-own["go_memstats_heap_released_bytes"])
	m.resident = max(m.resident, own["process_resident_memory_bytes"])
	m.samples++
}

// until waits until done returns nil and garbage has been collected `least` times, and returns what was taken since it was last called.
func (w *memoryWatch) until(t *testing.T, within time.Duration, least float64, done func() error) memory {
	t.Helper()
	var asked time.Time
	eventually(t, within, func() error {
		w.mu.Lock()
		collections := w.span.seen
		w.mu.Unlock()
		if collections < least {
			return fmt.Errorf("garbage was seen to be collected %.0f of %.0f times", collections, least)
		}
		if time.Since(asked) < time.Second {
			return errors.New("it is asked for each second only")
		}
		asked = time.Now()
		return done()
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	m := w.span
	w.span = memory{}
	return m
}

func atOnce() error { return nil }

// hostile is a tenant's server that does by its path whatever a server should not. It fails the test when somebody is led to
// it by an address that is not a tenant's: its port is open on loopback, too.
func hostile(t *testing.T) (address string, port int) {
	t.Helper()
	var astray atomic.Pointer[string]
	port = answering(t, func(w http.ResponseWriter, r *http.Request, ip string) {
		if !strings.HasPrefix(ip, "10.244.") {
			text := fmt.Sprintf("%s was asked for %s with the headers %v", ip, r.URL, r.Header)
			astray.Store(&text)
		}
		misbehave(w, r)
	})
	t.Cleanup(func() {
		if text := astray.Load(); text != nil {
			t.Error(*text)
		}
	})
	return fmt.Sprintf("%s:%d", tenantHost, port), port
}

// objects is the worst JSON within the bounds.
var objects = []byte("[" + strings.Repeat(`{"a":1},`, 49_998) + `{"a":1}]`)

func misbehave(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	switch strings.Split(r.URL.Path, "/")[1] { // libraries append to the path
	case "redirect":
		http.Redirect(w, r, r.URL.Query().Get("to"), http.StatusFound)
	case "secret":
		fmt.Fprintf(w, `{"v": 1, "authorization": %q}`, r.Header.Get("Authorization"))
	case "endless":
		repeat(ctx, w, []byte(`{"v":`), bytes.Repeat([]byte(" "), 32<<10))
	case "announced":
		w.Header().Set("Content-Length", strconv.Itoa(1<<40))
		repeat(ctx, w, nil, []byte("1"))
	case "gzip":
		w.Header().Set("Content-Encoding", "gzip")
		repeat(ctx, w, nil, make([]byte, 32<<10))
	case "headers":
		connection, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer connection.Close()
		repeat(ctx, connection, []byte("HTTP/1.1 200 OK\r\n"), []byte("X-More: "+strings.Repeat("m", 8<<10)+"\r\n"))
	case "series":
		repeat(ctx, w, nil, []byte(strings.Repeat("jobs{queue=\""+strings.Repeat("q", 100)+"\"} 1\n", 200)))
	case "names":
		repeat(ctx, w, nil, []byte("jobs{queue=\""+strings.Repeat("x", 500)+"\"} 1\n"))
	case "line":
		repeat(ctx, w, []byte("jobs "), bytes.Repeat([]byte("1"), 32<<10))
	case "slow":
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			if _, err := w.Write([]byte(" ")); err != nil || http.NewResponseController(w).Flush() != nil {
				return
			}
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	case "silent":
		<-ctx.Done()
	case "deep":
		_, _ = w.Write(bytes.Repeat([]byte("["), 1<<20-1))
	case "digits":
		_, _ = w.Write(append([]byte(`{"v":1`), append(bytes.Repeat([]byte("0"), 1<<20-10), '}')...))
	case "nested":
		_, _ = io.WriteString(w, strings.Repeat("[", 99)+"1"+strings.Repeat("]", 99))
	case "objects":
		_, _ = w.Write(objects)
	case "error":
		w.WriteHeader(http.StatusInternalServerError)
		repeat(ctx, w, nil, bytes.Repeat([]byte("e"), 32<<10))
	case "answer": // with the body that the query holds
		_, _ = io.WriteString(w, r.URL.Query().Get("body"))
	default:
		http.NotFound(w, r)
	}
}

// repeat writes the head once and the rest until somebody is fed up.
func repeat(ctx context.Context, w io.Writer, head, rest []byte) {
	if _, err := w.Write(head); err != nil {
		return
	}
	for ctx.Err() == nil {
		if _, err := w.Write(rest); err != nil {
			return
		}
	}
}

// abuses are what the HPAs of a tenant may try, with the address of a server of his and the HPA's namespace.
func abuses(server string, port int, ns string) map[string]ask {
	get := func(url string, want ...string) ask {
		return ask{collector: "json-path", keys: keys{"endpoint": url, "json-key": "$.v", "interval": "15s"}, want: want}
	}
	from := func(path string, want ...string) ask { return get("http://"+server+path, want...) }
	with := func(a ask, more keys) ask { maps.Copy(a.keys, more); return a }
	text := func(path, metric string, want ...string) ask {
		a := with(from(path, want...), keys{"format": "prometheus", "metric": metric, "aggregator": "sum"})
		delete(a.keys, "json-key")
		return a
	}
	query := func(query string, want ...string) ask {
		return ask{collector: "prometheus", keys: keys{"query": query, "interval": "5s"}, want: want}
	}
	to := func(target string) string { return "/redirect?to=" + url.QueryEscape(target) }
	many, huge := map[string]string{}, map[string]string{}
	for i := range 10_000 {
		many[fmt.Sprintf("metric-config.a.b.c/%d", i)] = ""
	}
	huge["metric-config.external.huge.json-path/json-eval"] = strings.Repeat("1+", 60<<10) + "1"
	return map[string]ask{
		// Where requests must not lead.
		"cloud-metadata":            get("http://169.254.169.254/latest/meta-data/iam/", "169.254.169.254 is refused", "link-local"),
		"alibaba-metadata":          get("http://100.100.100.200/latest", "cloud metadata"),
		"ipv6-metadata":             get("http://[fd00:ec2::254]/latest", "cloud metadata"),
		"loopback":                  get(fmt.Sprintf("http://127.0.0.1:%d/secret", port), "127.0.0.1 is refused", "loopback"),
		"loopback-ipv6":             get(fmt.Sprintf("http://[::1]:%d/secret", port), "::1 is refused", "loopback"),
		"loopback-mapped":           get(fmt.Sprintf("http://[::ffff:127.0.0.1]:%d/secret", port), "loopback"),
		"loopback-by-name":          get(fmt.Sprintf("http://localhost:%d/secret", port), "localhost", "is refused", "loopback"),
		"loopback-as-a-number":      get(fmt.Sprintf("http://2130706433:%d/secret", port), "ends in a number"),
		"loopback-in-hex":           get(fmt.Sprintf("http://0x7f.1:%d/secret", port), "ends in a number"),
		"all-addresses":             get(fmt.Sprintf("http://0.0.0.0:%d/secret", port), "reaches this host"),
		"the-admin-port":            get("http://127.0.0.1:8002/metrics", "loopback"),
		"the-api-server":            get("https://192.0.2.10:6443/version", "192.0.2.10 is refused", "an address of the API server"),
		"the-api-server-elsewhere":  get(fmt.Sprintf("http://192.0.2.10:%d/secret", port), "an address of the API server"),
		"the-api-servers-service":   get("https://10.96.0.1/version", "10.96.0.1 is refused", "an address of the API server"),
		"the-api-server-translated": get("https://[64:ff9b::c000:20a]:6443/version", "an address of the API server"),
		"a-file":                    get("file:///var/run/secrets/kubernetes.io/serviceaccount/token", "scheme", "file"),
		"a-password-in-the-url":     get("http://me:hush@"+server+"/secret", "user name or password"),
		"a-redirect-to-metadata":    from(to("http://169.254.169.254/latest"), "redirects to host", "169.254.169.254"),
		"a-redirect-to-loopback":    from(to(fmt.Sprintf("http://127.0.0.1:%d/secret", port)), "redirects to host", "not followed"),
		"a-redirect-to-itself":      from(to("/answer?body=1"), "redirects to host", server),
		"a-prometheus-on-loopback":  with(query("vector(1)", "loopback"), keys{"prometheus-server": fmt.Sprintf("http://127.0.0.1:%d", port)}),
		"a-prometheus-at-metadata":  with(query("vector(1)", "link-local"), keys{"prometheus-server": "http://169.254.169.254/"}),
		"a-prometheus-elsewhere":    with(query("vector(1)", "redirects to host"), keys{"prometheus-server": "http://" + server + "/redirect?to=http://127.0.0.1:9/"}),
		"a-queue-at-metadata":       {collector: "sqs-queue-length", keys: keys{"queue-name": "https://169.254.169.254/123456789012/orders"}, want: []string{"not that of SQS"}},
		"a-role-of-somebody-else":   {collector: "sqs-queue-length", keys: keys{"queue-name": "orders", "region": "eu-central-1", "role-arn": "arn:aws:iam::123456789012:role/admin"}, want: []string{"may not be assumed", ns}},
		"a-host-that-is-a-pattern":  {collector: "requests-per-second", keys: keys{"hostnames": `x"}) or vector(1) #`}, want: []string{"is not a host name"}},
		"a-secret-for-another-host": with(from("/secret", `sending credentials to`, `they are for "10.244.99.99" only`), keys{"secret": "elsewhere"}),
		"a-secret-for-nobody":       with(from("/secret", "not meant for Kubetide"), keys{"secret": "private"}),

		// What answers must not do.
		"an-endless-answer":      from("/endless", "larger than 1048576 bytes"),
		"an-announced-terabyte":  from("/announced", "larger than 1048576 bytes"),
		"a-compressed-bomb":      from("/gzip", `content encoding "gzip"`),
		"endless-headers":        from("/headers", "header"),
		"endless-series":         text("/series", "jobs", "larger than 16777216 bytes||no answer within"),
		"an-endless-line":        text("/line", "jobs", "line 1 is longer than"),
		"an-answer-byte-by-byte": with(from("/slow", "no complete answer within 2s"), keys{"request-timeout": "2s"}),
		"no-answer":              with(from("/silent", "no complete answer within 2s"), keys{"request-timeout": "2s"}),
		"nested-without-end":     from("/deep", "nested deeper than 100"),
		"a-million-digits":       from("/digits", "characters is longer than the limit of 1024"),
		"an-endless-error":       from("/error", "status 500, not 200"),

		// What questions must not cost.
		"ten-thousand-annotations": {collector: "static", keys: keys{"value": "1"}, annotations: many, want: []string{"more than 512 metric-config annotations"}},
		"huge":                     {collector: "json-path", annotations: huge, want: []string{"bytes, more than 16384"}},
		"a-path-through-it-all":    with(from("/objects", "more values than the limit||no answer within"), keys{"json-key": "$[?($[?($[?(@.a > 0)])])]", "aggregator": "sum"}),
		"a-path-that-multiplies":   with(from("/nested", "matches more than||more values than the limit||no answer within"), keys{"json-key": "$" + strings.Repeat("[0,0,0,0]", 99), "aggregator": "sum"}),
		"a-path-without-end":       with(from("/objects", "is 4001 bytes long, the limit is 1024"), keys{"json-key": "$" + strings.Repeat(".a.b", 1000)}),
		"a-pattern-on-series":      text("/names", `jobs{queue=~"(x?){500}x{500}"}`, "patterns are too costly||no answer within"),
		"a-pattern-of-patterns":    text("/names", `jobs{queue=~"`+strings.Repeat("x{1000}", 25)+`"}`, "regular expressions"),
		"a-pattern-for-prometheus": query(`sum(up{job=~"`+strings.Repeat("x{1000}", 25)+`"})`, "regular expressions"),
		"ten-thousand-brackets":    query(strings.Repeat("(", 5000)+"1"+strings.Repeat(")", 5000), "words and signs"),
		"a-century":                query("sum_over_time(up[100y])", "looks back over more than"),
		"subqueries-of-subqueries": query("max_over_time(max_over_time(max_over_time(up[1d:1s])[1d:1s])[1d:1s])", "steps"),
		"a-query-without-end":      query("up"+strings.Repeat(" + up", 3000), "bytes, more than"),
		"each-millisecond":         with(query("vector(1)", "1ms is not between"), keys{"interval": "1ms"}),

		// What others have.
		"series-of-another":          query(`sum(up{namespace="kube-system"})`, "may read its own namespace"),
		"series-of-all-others":       query(fmt.Sprintf(`sum(up{namespace!=%q})`, ns), "may read its own namespace"),
		"series-by-info":             query("sum(info(up))", "cannot be kept to one namespace"),
		"series-without-a-namespace": query(`count({job="skipper"})`, "the result is empty"),
	}
}

// All that a tenant may try is refused or given up, each with an Event that says why; Kubetide keeps little of it in memory,
// and nothing reaches loopback.
func TestAbuseIsRefusedAndToldAndTakesNoMemory(t *testing.T) {
	ns := tenants(t, 1)[0]
	server, port := hostile(t)
	create(t, ns, `
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: kubetide-secrets}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: kubetide-secrets}
subjects: [{kind: ServiceAccount, name: kubetide, namespace: kubetide-system}]
---
apiVersion: v1
kind: Secret
metadata: {name: elsewhere, annotations: {kubetide.io/host: 10.244.99.99}}
stringData: {token: hush}
---
apiVersion: v1
kind: Secret
metadata: {name: private}
stringData: {token: hush}
`)
	allowed(t, kubetideUser, authorizationv1.ResourceAttributes{Namespace: ns, Verb: "get", Resource: "secrets", Name: "elsewhere"})
	watch := watchMemory(t)
	// As many collections as there are from the first HPA to the last: the most of many is more than the most of few.
	before := watch.until(t, 3*time.Minute, 24, atOnce)
	t.Logf("memory before: %v", before)
	all := abuses(server, port, ns)
	began := time.Now()
	createHPAs(t, ns, all)
	during := watch.until(t, 4*time.Minute, 3, allAreTold(t, ns, all))
	t.Logf("%d abuses were told within %v; memory: %v", len(all), time.Since(began).Round(time.Second), during)
	after := watch.until(t, 3*time.Minute, 8, atOnce)
	t.Logf("memory while they go on: %v", after)
	for name, told := range kubetideEvents(t, ns) {
		for _, e := range told {
			if strings.Contains(e.Message, "hush") || len(e.Message) > 1024 {
				t.Errorf("the Event on %s holds a secret, or is too long: %q", name, e)
			}
		}
		if len(told) > 4 {
			t.Errorf("%s has %d Events: %q", name, len(told), told)
		}
	}
	must(t, kube.AutoscalingV2().HorizontalPodAutoscalers(ns).DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{}))
	gone := watch.until(t, 3*time.Minute, 6, atOnce)
	t.Logf("memory when all is gone: %v", gone)
	const most = 8 << 20
	grown := func(what string, before, now float64) {
		t.Helper()
		t.Logf("%s: %+.1f MiB", what, (now-before)/(1<<20))
		if now-before > most {
			t.Errorf("%s: abuse takes %.0f bytes, more than %d", what, now-before, most)
		}
	}
	// From before the first HPA comes until the last is gone; at rest, too, a collection leaves more or less of what is on its way.
	whole := during.and(after).and(gone)
	grown("growth of the most that is in use, over the whole time", before.maxLive, whole.maxLive)
	grown("growth that stays", before.live, after.live)
	grown("growth that is left", before.live, gone.live)
	t.Logf("the most that was in use, above the least at rest: %+.1f MiB; held with garbage: %+.1f MiB; resident: %+.1f MiB",
		(whole.maxLive-before.live)/(1<<20), (whole.peak-before.peak)/(1<<20), (whole.resident-before.resident)/(1<<20))
}

// A tenant's query reads the tenant's series whatever it is, from a Prometheus that holds those of others.
func TestConfinedQueriesReadTheirNamespaceOnly(t *testing.T) {
	ns := tenants(t, 1)[0]
	port := answering(t, func(w http.ResponseWriter, _ *http.Request, _ string) {
		fmt.Fprintf(w, "hoard{namespace=%q} 5\nhoard{namespace=\"somebody-else\"} 7\nhoard 11\n", ns)
	})
	must(t, metrics.SetTargets("shop", fmt.Sprintf("%s:%d", tenantHost, port)))
	t.Cleanup(func() { _ = metrics.SetTargets("shop") })
	asks := map[string]ask{}
	for i, query := range []string{
		`sum(hoard)`, `sum({__name__=~"hoard"})`, `sum(hoard{namespace=~".+"})`, `sum(label_replace(hoard, "namespace", "somebody-else", "", ""))`,
		`sum(max_over_time(hoard[1m:1s]))`, `sum(hoard or on(instance, namespace) hoard)`, `sum(sum by (namespace) (hoard))`,
	} {
		asks[fmt.Sprintf("query-%d", i)] = ask{collector: "prometheus", keys: keys{"query": query, "interval": "1s"}}
	}
	createHPAs(t, ns, asks)
	for name, a := range asks {
		eventually(t, 30*time.Second, func() error {
			v, err := externalValue(t.Context(), ns, name, "prometheus")
			if err == nil && v.Value.MilliValue() != 5000 {
				err = fmt.Errorf("%s gives %v, want 5", a.keys["query"], &v.Value)
			}
			return err
		})
	}
}

// externalMetric is one value of the external metrics API.
type externalMetric struct {
	Value     resource.Quantity `json:"value"`
	Timestamp time.Time         `json:"timestamp"`
}

func externalValue(ctx context.Context, ns, metric, collector string) (externalMetric, error) {
	body, err := raw(ctx, fmt.Sprintf("%s/namespaces/%s/%s?labelSelector=type%%3D%s", externalV1beta1, ns, metric, collector))
	if err != nil {
		return externalMetric{}, err
	}
	var list struct{ Items []externalMetric }
	if err := json.Unmarshal(body, &list); err != nil {
		return externalMetric{}, err
	}
	if len(list.Items) != 1 {
		return externalMetric{}, fmt.Errorf("%s/%s has %d values: %s", ns, metric, len(list.Items), body)
	}
	return list.Items[0], nil
}

// arrivals are when each source was asked.
type arrivals struct {
	mu    sync.Mutex
	times map[string][]time.Time
}

func (a *arrivals) add(source string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.times[source] = append(a.times[source], time.Now())
}

// least is how often the source that was asked least has been.
func (a *arrivals) least(sources int) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.times) < sources {
		return 0
	}
	least := math.MaxInt
	for _, times := range a.times {
		least = min(least, len(times))
	}
	return least
}

// gaps are the times between a source's collections that ended in the span, sorted. A value is never older than the gap that
// follows it and its own collection.
func (a *arrivals) gaps(from, to time.Time) []time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []time.Duration
	for _, times := range a.times {
		for i := 1; i < len(times); i++ {
			if times[i].After(from) && times[i].Before(to) {
				out = append(out, times[i].Sub(times[i-1]))
			}
		}
	}
	slices.Sort(out)
	return out
}

func quantile(sorted []time.Duration, q float64) time.Duration {
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))].Round(time.Millisecond)
}

// A fifth of all sources hangs, in the same namespaces: those of the others are asked as often as before.
func TestHangingSourcesDelayTheirNeighborsHardly(t *testing.T) {
	const good, bad, interval, span = 100, 25, 5 * time.Second, 40 * time.Second
	ours := tenants(t, 2)
	asked := &arrivals{times: map[string][]time.Time{}}
	var hanging atomic.Int64
	port := answering(t, func(w http.ResponseWriter, r *http.Request, ip string) {
		if ip == hangingHost {
			hanging.Add(1)
			defer hanging.Add(-1)
			<-r.Context().Done()
			return
		}
		asked.add(r.URL.Path)
		select { // the source takes 5 ms
		case <-r.Context().Done():
		case <-time.After(5 * time.Millisecond):
		}
		_, _ = io.WriteString(w, `{"v": 1}`)
	})
	add := func(prefix, host, interval string, count int) {
		for i, ns := range ours {
			asks := map[string]ask{}
			for j := i; j < count; j += len(ours) {
				name := fmt.Sprintf("%s-%d", prefix, j)
				asks[name] = ask{collector: "json-path", keys: keys{
					"endpoint": fmt.Sprintf("http://%s:%d/%s", host, port, name), "json-key": "$.v", "interval": interval}}
			}
			createHPAs(t, ns, asks)
		}
	}
	// observe returns the gaps of a span that begins when each source has been asked twice more.
	observe := func() []time.Duration {
		t.Helper()
		enough := asked.least(good) + 2
		eventually(t, time.Minute, func() error {
			if n := asked.least(good); n < enough {
				return fmt.Errorf("a source was asked %d of %d times", n, enough)
			}
			return nil
		})
		from := time.Now()
		select {
		case <-time.After(span): // the measured span, not a wait for something
		case <-t.Context().Done():
		}
		return asked.gaps(from, time.Now())
	}
	add("good", tenantHost, interval.String(), good)
	before := observe()
	add("bad", hangingHost, "15s", bad)
	eventually(t, time.Minute, func() error {
		if n := hanging.Load(); n < bad {
			return fmt.Errorf("%d of %d sources hang", n, bad)
		}
		return nil
	})
	during := observe()
	for name, gaps := range map[string][]time.Duration{"before": before, "during": during} {
		t.Logf("between two collections of %d sources, %s: p50 %v, p99 %v, most %v (%d collections); %d sources hang",
			good, name, quantile(gaps, 0.5), quantile(gaps, 0.99), quantile(gaps, 1), len(gaps), map[string]int64{"during": hanging.Load()}[name])
	}
	if ratio := float64(quantile(during, 0.99)) / float64(quantile(before, 0.99)); ratio > 1.5 {
		t.Errorf("p99 grew by %.2f", ratio)
	} else {
		t.Logf("p99 during / before: %.2f", ratio)
	}
	// Nor do some starve that the gaps do not show.
	if want := len(before) * 9 / 10; len(during) < want {
		t.Errorf("%d collections while sources hang, %d before", len(during), len(before))
	}
}

// breakages are twenty ways in which an HPA's metric can be broken.
func breakages(server, ns string) map[string]ask {
	from := func(path string, want ...string) ask {
		return ask{collector: "json-path", keys: keys{"endpoint": "http://" + server + path, "json-key": "$.v", "interval": "15s"}, want: want}
	}
	with := func(a ask, more keys) ask { maps.Copy(a.keys, more); return a }
	query := func(query string, want ...string) ask {
		return ask{collector: "prometheus", keys: keys{"query": query, "interval": "15s"}, want: want}
	}
	queue := keys{"queue-name": "nobody-made-it", "region": "eu-central-1", "interval": "15s"}
	return map[string]ask{
		"a-missing-setting":    {collector: "json-path", keys: keys{"json-key": "$.v"}, want: []string{"endpoint", "it is required"}},
		"a-bad-interval":       with(from("/answer", `"soon" is not a duration`), keys{"interval": "soon"}),
		"a-bad-path":           with(from("/answer", "json-key", "cannot be parsed"), keys{"json-key": "$.["}),
		"an-unknown-collector": {collector: "telepathy", keys: keys{"mind": "open"}, want: []string{"telepathy"}},
		"a-missing-workload":   {kind: autoscalingv2.PodsMetricSourceType, collector: "json-path", keys: keys{"json-key": "$.v", "port": "80"}, want: []string{`deployment.apps "missing" not found`}},
		"a-missing-schedule":   {kind: autoscalingv2.ObjectMetricSourceType, object: "ScalingSchedule/sale", want: []string{"the ScalingSchedule does not exist"}},
		"a-missing-ingress":    {kind: autoscalingv2.ObjectMetricSourceType, object: "Ingress/web", want: []string{"Ingress " + ns + "/web does not exist"}},
		"status-500":           from("/error", "status 500, not 200"),
		"a-timeout":            with(from("/silent", "no complete answer within 1s"), keys{"request-timeout": "1s"}),
		"nobody-listens":       {collector: "json-path", keys: keys{"endpoint": "http://" + tenantHost + ":9/", "json-key": "$.v", "interval": "15s"}, want: []string{"connection refused"}},
		"a-redirect":           from("/redirect?to=http://elsewhere.example.org/", "redirects to host", "elsewhere.example.org"),
		"too-large":            from("/endless", "larger than 1048576 bytes"),
		"the-wrong-type":       from("/answer?body="+url.QueryEscape(`{"v":"5"}`), `the value is the string "5", not a number`),
		"no-json":              from("/answer?body=hello", "the document is not JSON"),
		"a-path-to-nothing":    from("/answer?body="+url.QueryEscape(`{"w":5}`), "the path matches nothing"),
		"nan":                  query("vector(0) / vector(0)", "NaN"),
		"bad-promql":           query("sum(rate(", "is no PromQL"),
		"an-unknown-server":    with(query("vector(1)", `there is no Prometheus named "nowhere"`), keys{"prometheus-server-alias": "nowhere"}),
		"an-unknown-queue":     {collector: "sqs-queue-length", keys: queue, want: []string{"nobody-made-it", "does not exist"}},
		"a-denied-address":     {collector: "json-path", keys: keys{"endpoint": "http://169.254.169.254/", "json-key": "$.v"}, want: []string{"169.254.169.254 is refused"}},
	}
}

// Of a thousand HPAs in ten namespaces, twenty are broken, each in its own way: each of these is told why, and the others have
// their own fresh values and no Event.
func TestTwentyBrokenHPAsOfAThousandDisturbNobody(t *testing.T) {
	const perNamespace, interval = 98, 20 * time.Second
	server, _ := hostile(t)
	good := answering(t, func(w http.ResponseWriter, r *http.Request, _ string) {
		fmt.Fprintf(w, `{"v": %s}`, r.URL.Query().Get("v"))
	})
	ours := tenants(t, 10)
	broken := make([]map[string]ask, len(ours))
	names := slices.Sorted(maps.Keys(breakages(server, "")))
	if len(names) != 20 {
		t.Fatalf("%d ways, want 20", len(names))
	}
	began := time.Now()
	for i, ns := range ours {
		all := map[string]ask{}
		for j := range perNamespace {
			// The same names in all namespaces, and each its own number.
			all[fmt.Sprintf("good-%d", j)] = ask{collector: "json-path", keys: keys{
				"endpoint": fmt.Sprintf("http://%s:%d/?v=%d", tenantHost, good, 1000*i+j), "json-eval": "$.v", "interval": interval.String()}}
		}
		broken[i] = map[string]ask{}
		for _, name := range names[2*i : 2*i+2] {
			broken[i][name] = breakages(server, ns)[name]
		}
		maps.Copy(all, broken[i])
		createHPAs(t, ns, all)
	}
	created := time.Now()
	t.Logf("%d HPAs were created in %v", len(ours)*(perNamespace+2), created.Sub(began).Round(time.Second))
	// allHaveValues checks all good ones, four at a time, and returns the oldest value's time.
	allHaveValues := func() (oldest time.Time, err error) {
		var mu sync.Mutex
		group, ctx := errgroup.WithContext(t.Context())
		group.SetLimit(4)
		oldest = time.Now()
		for i, ns := range ours {
			for j := range perNamespace {
				group.Go(func() error {
					v, err := externalValue(ctx, ns, fmt.Sprintf("good-%d", j), "json-path")
					if want := int64(1000*i + j); err == nil && v.Value.MilliValue() != 1000*want {
						err = fmt.Errorf("%s/good-%d is %v, want %d", ns, j, &v.Value, want)
					}
					mu.Lock()
					defer mu.Unlock()
					if v.Timestamp.Before(oldest) {
						oldest = v.Timestamp
					}
					return err
				})
			}
		}
		return oldest, group.Wait()
	}
	eventually(t, 2*time.Minute, func() error { _, err := allHaveValues(); return err })
	t.Logf("all good ones have values %v after the last was created", time.Since(created).Round(100*time.Millisecond))
	for i, ns := range ours {
		eventually(t, 90*time.Second, allAreTold(t, ns, broken[i]))
	}
	t.Logf("all broken ones were told why %v after the last was created", time.Since(created).Round(time.Second))
	// Now that all is as bad as it gets, the values are not older than their interval.
	checked := time.Now()
	oldest, err := allHaveValues()
	must(t, err)
	t.Logf("the oldest of %d values was taken %v before it was read, at an interval of %v", len(ours)*perNamespace, checked.Sub(oldest).Round(100*time.Millisecond), interval)
	if age := checked.Sub(oldest); age > interval*3/2 {
		t.Errorf("the oldest value is %v old", age)
	}
	for i, ns := range ours {
		for name, told := range kubetideEvents(t, ns) {
			if _, ok := broken[i][name]; !ok {
				t.Errorf("%s/%s has Events: %q", ns, name, told)
			}
		}
	}
}
