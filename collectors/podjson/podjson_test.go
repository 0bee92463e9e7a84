package podjson

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"golang.org/x/sync/semaphore"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/kubetide/kubetide/collectors"
	"github.com/kubetide/kubetide/internal/outbound"
	"github.com/kubetide/kubetide/internal/sample"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	now    = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	target = sample.ObjectRef{Group: "apps", Kind: "Deployment", Name: "web"}
)

// cluster plays the informer and /scale.
type cluster struct {
	pods     []*corev1.Pod
	selector string
	err      error
}

func (c *cluster) Pods(namespace string, selector labels.Selector) ([]*corev1.Pod, error) {
	var out []*corev1.Pod
	for _, p := range c.pods {
		if p.Namespace == namespace && selector.Matches(labels.Set(p.Labels)) {
			out = append(out, p)
		}
	}
	return out, nil
}

func (c *cluster) Scale(context.Context, string, sample.ObjectRef) (collectors.Scale, error) {
	selector, err := labels.Parse(c.selector)
	if err != nil {
		panic(err)
	}
	return collectors.Scale{Selector: selector}, c.err
}

func (c *cluster) add(name, ip string) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID("uid-" + name), Labels: map[string]string{"app": "web", "pod": name}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIP: ip, Conditions: []corev1.PodCondition{
			{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(now.Add(-time.Hour))}}},
	}
	c.pods = append(c.pods, p)
	return p
}

type handler = func(w http.ResponseWriter, r *http.Request, done <-chan struct{})

func answer(body string) handler {
	return func(w http.ResponseWriter, _ *http.Request, _ <-chan struct{}) { fmt.Fprint(w, body) }
}

// serve lets each handler answer at the same port of a loopback address of its own, as pods do, and returns the port and
// the cluster with a pod for each, named by its key.
func serve(t *testing.T, handlers map[string]handler) (string, *cluster) {
	t.Helper()
	for range 20 { // until a port is free on all addresses
		c := &cluster{selector: "app=web"}
		var listeners []net.Listener
		port, ok := "0", true
		i := 1
		for name := range handlers {
			i++
			ip := fmt.Sprintf("127.0.77.%d", i)
			l, err := net.Listen("tcp", net.JoinHostPort(ip, port))
			if err != nil {
				ok = false
				break
			}
			listeners = append(listeners, l)
			_, port, _ = net.SplitHostPort(l.Addr().String())
			c.add(name, ip)
		}
		if !ok {
			for _, l := range listeners {
				_ = l.Close()
			}
			continue
		}
		for i, p := range c.pods {
			done := make(chan struct{})
			s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handlers[p.Name](w, r, done) }))
			_ = s.Listener.Close()
			s.Listener = listeners[i]
			s.Config.ErrorLog = log.New(io.Discard, "", 0)
			s.Start()
			t.Cleanup(func() {
				close(done)
				s.CloseClientConnections()
				s.Close()
			})
		}
		return port, c
	}
	t.Fatal("no port is free on all addresses")
	return "", nil
}

func open(t *testing.T, c *cluster, settings sample.Settings) collectors.Collector {
	t.Helper()
	return openWith(t, c, settings, func(netip.AddrPort) error { return nil })
}

func openWith(t *testing.T, c *cluster, settings sample.Settings, policy outbound.Policy) collectors.Collector {
	t.Helper()
	client := outbound.New(outbound.Options{Policy: policy})
	t.Cleanup(client.Close)
	s := New(c, c, client, clocktesting.NewFakePassiveClock(now))
	q, err := s.Parse(collectors.Request{Kind: sample.Pods, Namespace: "shop", Metric: "rps", Target: target, Settings: settings, Interval: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	opened, err := s.Open(q)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if len(s.namespaces) != 0 {
			t.Error("places of a namespace are kept")
		}
	})
	return opened
}

func TestParse(t *testing.T) {
	defaults := func(s sample.Settings) sample.Settings {
		all := sample.Settings{"json-key": "$.rps", "port": "8080", "scheme": "http", "path": "/", "request-timeout": "15s",
			"connect-timeout": "15s", "min-pod-ready-age": "0s"}
		for k, v := range s {
			all[k] = v
		}
		return all
	}
	long := strings.Repeat("x", maxURLPart+1)
	for name, c := range map[string]struct {
		settings sample.Settings
		want     sample.Settings
		err      string
	}{
		"the least, with all defaults": {sample.Settings{"json-key": "$.rps", "port": "8080"}, defaults(nil), ""},
		"everything": {
			sample.Settings{"json-eval": "$.a / 2", "port": "08443", "scheme": "https", "path": "metrics", "raw-query": "a=1&b=%20", "aggregator": "max",
				"request-timeout": "1500ms", "connect-timeout": "1s", "min-pod-ready-age": "60s", "other": "x"},
			sample.Settings{"json-eval": "$.a / 2", "port": "8443", "scheme": "https", "path": "/metrics", "raw-query": "a=1&b=%20", "aggregator": "max",
				"request-timeout": "1.5s", "connect-timeout": "1s", "min-pod-ready-age": "1m0s"}, ""},
		"the text format, with all defaults": {
			sample.Settings{"format": "prometheus", "metric": `jobs{queue="mail"}`, "port": "8080", "aggregator": "sum"},
			sample.Settings{"format": "prometheus", "metric": `jobs{queue="mail"}`, "port": "8080", "aggregator": "sum", "scheme": "http", "path": "/",
				"request-timeout": "15s", "connect-timeout": "15s", "min-pod-ready-age": "0s"}, ""},
		"the format that is the default": {sample.Settings{"format": "json", "json-key": "$.rps", "port": "8080"}, defaults(nil), ""},
		"another format":                 {sample.Settings{"format": "xml", "json-key": "$.a", "port": "1"}, nil, `key "format": "xml" is neither json nor prometheus`},
		"the text format with a path":    {sample.Settings{"format": "prometheus", "metric": "a", "json-key": "$.a", "port": "1"}, nil, `key "json-key": it cannot be used with format prometheus`},
		"the text format with a script":  {sample.Settings{"format": "prometheus", "metric": "a", "json-eval": "$.a", "port": "1"}, nil, `key "json-eval": it cannot be used with format prometheus`},
		"the text format, no metric":     {sample.Settings{"format": "prometheus", "port": "1"}, nil, `key "metric": it is empty`},
		"a broken selector":              {sample.Settings{"format": "prometheus", "metric": "a{", "port": "1"}, nil, `key "metric": it is no PromQL`},
		"a metric of JSON":               {sample.Settings{"metric": "a", "json-key": "$.a", "port": "1"}, nil, `key "metric": it can be used with format prometheus only`},
		"no expression":                  {sample.Settings{"port": "1"}, nil, `key "json-key": it or json-eval is required`},
		"both expressions":               {sample.Settings{"json-key": "$.a", "json-eval": "$.a", "port": "1"}, nil, `key "json-eval": it cannot be used together`},
		"a broken path":                  {sample.Settings{"json-key": "rps", "port": "1"}, nil, `key "json-key": "rps" cannot be parsed`},
		"a broken script":                {sample.Settings{"json-eval": "ceil)(", "port": "1"}, nil, `key "json-eval": "ceil)(" cannot be parsed`},
		"no port":                        {sample.Settings{"json-key": "$.a"}, nil, `key "port": it is required`},
		"port 0":                         {sample.Settings{"json-key": "$.a", "port": "0"}, nil, `key "port": "0" is not a port number`},
		"a port too large":               {sample.Settings{"json-key": "$.a", "port": "65536"}, nil, `key "port"`},
		"a port's name":                  {sample.Settings{"json-key": "$.a", "port": "http"}, nil, `key "port"`},
		"a port with another host":       {sample.Settings{"json-key": "$.a", "port": "80@evil:80"}, nil, `key "port"`},
		"another scheme":                 {sample.Settings{"json-key": "$.a", "port": "1", "scheme": "file"}, nil, `key "scheme": "file" is neither`},
		"another aggregator":             {sample.Settings{"json-key": "$.a", "port": "1", "aggregator": "p99"}, nil, `key "aggregator"`},
		"a path too long":                {sample.Settings{"json-key": "$.a", "port": "1", "path": long}, nil, `key "path": it is longer`},
		"a query too long":               {sample.Settings{"json-key": "$.a", "port": "1", "raw-query": long}, nil, `key "raw-query": it is longer`},
		"a query that ends the line":     {sample.Settings{"json-key": "$.a", "port": "1", "raw-query": "a HTTP/1.1\r\nX: y"}, nil, `key "raw-query": it must be percent-encoded`},
		"no duration":                    {sample.Settings{"json-key": "$.a", "port": "1", "request-timeout": "15"}, nil, `key "request-timeout": "15" is not a duration`},
		"a request timeout of 0":         {sample.Settings{"json-key": "$.a", "port": "1", "request-timeout": "0s"}, nil, `key "request-timeout": 0s is not between 1ms and 1m0s`},
		"a request timeout too long":     {sample.Settings{"json-key": "$.a", "port": "1", "request-timeout": "61s"}, nil, `key "request-timeout"`},
		"a connect timeout below 0":      {sample.Settings{"json-key": "$.a", "port": "1", "connect-timeout": "-1s"}, nil, `key "connect-timeout"`},
		"an age below 0":                 {sample.Settings{"json-key": "$.a", "port": "1", "min-pod-ready-age": "-1s"}, nil, `key "min-pod-ready-age"`},
	} {
		t.Run(name, func(t *testing.T) {
			r := collectors.Request{Kind: sample.Pods, Namespace: "shop", Metric: "rps", Target: target, Settings: c.settings, Interval: time.Minute}
			q, err := (&Source{}).Parse(r)
			if c.err != "" {
				var key *collectors.KeyError
				if err == nil || !errors.As(err, &key) || !strings.Contains(err.Error(), c.err) {
					t.Fatalf("got %v, want a KeyError with %q", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			want := sample.Query{Kind: sample.Pods, Namespace: "shop", Metric: "rps", Target: target, Collector: Name, Settings: c.want.Encode(), Interval: time.Minute}
			if diff := cmp.Diff(want, q); diff != "" {
				t.Error(diff)
			}
			// What Parse printed means the same when it is parsed again, here or on another node.
			r.Settings, _ = sample.DecodeSettings(q.Settings)
			if again, err := (&Source{}).Parse(r); err != nil || again != q {
				t.Errorf("parsed again: %+v, %v", again, err)
			}
		})
	}
	if _, err := (&Source{}).Parse(collectors.Request{Kind: sample.External, Settings: sample.Settings{"json-key": "$.a", "port": "1"}}); err == nil {
		t.Error("an External metric is accepted")
	}
	for _, settings := range []string{"{", `{"json-key":"$.a"}`} {
		if _, err := (&Source{}).Open(sample.Query{Settings: settings}); err == nil {
			t.Errorf("the settings %s are opened", settings)
		}
	}
}

func TestCollect(t *testing.T) {
	port, c := serve(t, map[string]handler{
		"b": func(w http.ResponseWriter, r *http.Request, _ <-chan struct{}) {
			fmt.Fprintf(w, `{"uri": {"%s": 7}}`, r.URL.RequestURI())
		},
		"a": answer(`{"uri": {"/m x?q=1": 2.5, "/m%20x?q=1": 2.5}}`),
	})
	got, err := open(t, c, sample.Settings{"json-key": "$.uri['/m%20x?q=1']", "port": port, "path": "m x", "raw-query": "q=1"}).Collect(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	want := []sample.Point{
		{Pod: "a", UID: "uid-a", Labels: labels.Set{"app": "web", "pod": "a"}, Milli: 2500},
		{Pod: "b", UID: "uid-b", Labels: labels.Set{"app": "web", "pod": "b"}, Milli: 7000},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestCollectTextFormat(t *testing.T) {
	accepts := make(chan string, 2)
	port, c := serve(t, map[string]handler{
		"a": func(w http.ResponseWriter, r *http.Request, _ <-chan struct{}) {
			accepts <- r.Header.Get("Accept")
			fmt.Fprint(w, "# TYPE jobs gauge\njobs{queue=\"mail\"} 2.5\njobs{queue=\"push\"} 1\njobs_total 9\n")
		},
		"b": func(w http.ResponseWriter, _ *http.Request, _ <-chan struct{}) {
			filler := strings.Repeat("jobs_total{x=\"y\"} 1\n", 2000)
			for range 2 << 20 / len(filler) { // more than a JSON document may have
				fmt.Fprint(w, filler)
			}
			fmt.Fprintf(w, "jobs 7 %d\n", now.Add(-20*time.Second).UnixMilli())
		},
	})
	got, err := open(t, c, sample.Settings{"format": "prometheus", "metric": "jobs", "aggregator": "sum", "port": port}).Collect(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	want := []sample.Point{
		{Pod: "a", UID: "uid-a", Labels: labels.Set{"app": "web", "pod": "a"}, Milli: 3500},
		{Pod: "b", UID: "uid-b", Labels: labels.Set{"app": "web", "pod": "b"}, Milli: 7000, Age: 20 * time.Second},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if accept := <-accepts; !strings.HasPrefix(accept, "text/plain;version=1.0.0") {
		t.Errorf("Accept: %s", accept)
	}
}

func TestABadTextIsReportedAndDisturbsNoOther(t *testing.T) {
	for name, c := range map[string]struct {
		answer handler
		want   string
	}{
		"json":      {answer(`{"rps": 1}`), "the last line has no end"},
		"html":      {answer("<html>\n"), "line 1 is not in Prometheus' text format"},
		"no-metric": {answer("rpm 1\n"), `no series of the metric "rps" matches`},
		"several":   {answer("rps{a=\"1\"} 1\nrps 2\n"), "no aggregator function has been specified"},
		"nan":       {answer("rps NaN\n"), "the value NaN"},
		"infinite":  {answer("rps -Inf\n"), "the value -Inf"},
		"negative":  {answer("rps -3\n"), "the value -3 is negative"},
		"cut-off":   {answer("rps 1"), "the last line has no end"},
		"status":    {func(w http.ResponseWriter, _ *http.Request, _ <-chan struct{}) { w.WriteHeader(http.StatusNotFound) }, "status 404, not 200"},
		"aborted": {func(w http.ResponseWriter, _ *http.Request, _ <-chan struct{}) {
			fmt.Fprint(w, "rps 1\n")
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}, "EOF"},
		"dripping": {func(w http.ResponseWriter, _ *http.Request, done <-chan struct{}) {
			fmt.Fprint(w, "rps 1\n")
			w.(http.Flusher).Flush()
			<-done
		}, "no complete answer within 1s"},
		"compressed": {func(w http.ResponseWriter, _ *http.Request, _ <-chan struct{}) {
			w.Header().Set("Content-Encoding", "gzip")
			fmt.Fprint(w, "rps 1\n")
		}, `content encoding "gzip"`},
		"endless": {func(w http.ResponseWriter, _ *http.Request, _ <-chan struct{}) {
			for line := []byte(strings.Repeat("rpm 1\n", 5000)); ; {
				if _, err := w.Write(line); err != nil {
					return
				}
			}
		}, "larger than 16777216 bytes"},
		"endless-line": {func(w http.ResponseWriter, _ *http.Request, _ <-chan struct{}) {
			chunk := []byte(strings.Repeat("x", 32<<10))
			for _, err := fmt.Fprint(w, "rps"); err == nil; {
				_, err = w.Write(chunk)
			}
		}, "larger than 16777216 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			port, pods := serve(t, map[string]handler{name: c.answer, "good": answer("rps 5\n")})
			timeout := "1m"
			if strings.Contains(c.want, "within") {
				timeout = "1s"
			}
			collector := open(t, pods, sample.Settings{"format": "prometheus", "metric": "rps", "port": port, "request-timeout": timeout})
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			points, err := collector.Collect(context.Background())
			runtime.ReadMemStats(&after)
			if err == nil || !strings.Contains(err.Error(), "1 of 2 pods gave no value: pod "+name+": ") || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got the error %v, want pod %s and %q", err, name, c.want)
			}
			if len(points) != 1 || points[0].Pod != "good" || points[0].Milli != 5000 {
				t.Errorf("got %+v, want the good pod's value", points)
			}
			// All that was allocated meanwhile, the pod's own part included, freed or not.
			if grown := after.TotalAlloc - before.TotalAlloc; grown > 8<<20 {
				t.Errorf("%d bytes were allocated", grown)
			}
		})
	}
}

// What a pod may answer that must never become a number.
var bad = map[string]struct {
	answer handler
	want   string
}{
	"huge": {answer(`{"rps": 1, "x": "` + strings.Repeat("x", 2<<20) + `"}`), "larger than 1048576 bytes"},
	"endless": {func(w http.ResponseWriter, _ *http.Request, _ <-chan struct{}) {
		fmt.Fprint(w, `{"rps": 1, "x": "`)
		chunk := []byte(strings.Repeat("x", 32<<10))
		for sent := 0; sent < 1<<30; sent += len(chunk) {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	}, "larger than 1048576 bytes"},
	"slow": {func(_ http.ResponseWriter, _ *http.Request, done <-chan struct{}) { <-done }, "no complete answer within"},
	"dripping": {func(w http.ResponseWriter, _ *http.Request, done <-chan struct{}) {
		fmt.Fprint(w, `{"rps": 1`)
		w.(http.Flusher).Flush()
		<-done
	}, "no complete answer within"},
	"redirecting": {func(w http.ResponseWriter, r *http.Request, _ <-chan struct{}) {
		http.Redirect(w, r, "http://metadata.internal/token", http.StatusTemporaryRedirect)
	}, `redirects to host "metadata.internal"`},
	"gzip-bomb": {func(w http.ResponseWriter, _ *http.Request, _ <-chan struct{}) {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		_, _ = io.CopyN(z, strings.NewReader(strings.Repeat(" ", 32<<20)), 32<<20)
		_ = z.Close()
	}, `content encoding "gzip"`},
	"nan":         {answer(`{"rps": NaN}`), "not JSON"},
	"nan-text":    {answer(`{"rps": "NaN"}`), "unsupported type"},
	"infinite":    {answer(`{"rps": 1e999}`), "not a finite number"},
	"negative":    {answer(`{"rps": -3}`), "the value -3 is negative"},
	"minus-a-bit": {answer(`{"rps": -0.001}`), "the value -0.001 is negative"},
	"not-json":    {answer(`rps 1`), "not JSON"},
	"html":        {answer(`<html>404</html>`), "not JSON"},
	"empty":       {answer(``), "unexpected end of file"},
	"cut-off":     {answer(`{"rps": 1`), "unexpected end of file"},
	"no-such-key": {answer(`{}`), "expected single numeric or array value"},
	"null":        {answer(`{"rps": null}`), "unsupported type"},
	"empty-array": {answer(`{"rps": []}`), "no aggregator"},
	"deep":        {answer(strings.Repeat("[", 1<<19)), "nested deeper"},
	"many":        {answer("[" + strings.Repeat("0,", 1<<18) + "0]"), "more than 100000 values"},
	"broken": {func(w http.ResponseWriter, _ *http.Request, _ <-chan struct{}) {
		w.WriteHeader(http.StatusInternalServerError)
		fmt.Fprint(w, `{"rps": 1}`)
	}, "status 500"},
	"closing": {func(http.ResponseWriter, *http.Request, <-chan struct{}) { panic(http.ErrAbortHandler) }, "EOF"},
}

func TestABadPodIsReportedAndDisturbsNoOther(t *testing.T) {
	for name, c := range bad {
		t.Run(name, func(t *testing.T) {
			port, pods := serve(t, map[string]handler{name: c.answer, "good": answer(`{"rps": 5}`)})
			settings := sample.Settings{"json-key": "$.rps", "port": port}
			if strings.Contains(c.want, "within") {
				settings["request-timeout"] = "1s"
			}
			collector := open(t, pods, settings)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			points, err := collector.Collect(context.Background())
			runtime.ReadMemStats(&after)
			if err == nil || !strings.Contains(err.Error(), "1 of 2 pods gave no value: pod "+name+": ") || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got the error %v, want pod %s and %q", err, name, c.want)
			}
			if len(points) != 1 || points[0].Pod != "good" || points[0].Milli != 5000 {
				t.Errorf("got %+v, want the good pod's value", points)
			}
			// All that was allocated meanwhile, the pod's own part included, freed or not. The bomb holds 32 MiB itself.
			if grown := after.TotalAlloc - before.TotalAlloc; grown > 16<<20 && name != "gzip-bomb" {
				t.Errorf("%d bytes were allocated", grown)
			}
		})
	}
}

func TestAllBadPodsTogetherStayBounded(t *testing.T) {
	handlers := map[string]handler{"good": answer(`{"rps": 5}`)}
	for name, c := range bad {
		handlers[name] = c.answer
	}
	port, pods := serve(t, handlers)
	points, err := open(t, pods, sample.Settings{"json-key": "$.rps", "port": port, "request-timeout": "2s"}).Collect(context.Background())
	if len(points) != 1 || points[0].Pod != "good" {
		t.Errorf("got %+v, want the good pod's value", points)
	}
	if want := fmt.Sprintf("%d of %d pods gave no value", len(bad), len(bad)+1); err == nil || !strings.Contains(err.Error(), want) ||
		!strings.Contains(err.Error(), fmt.Sprintf("and %d more", len(bad)-4)) || len(err.Error()) > 1024 {
		t.Errorf("got the error %v, want %q in at most 1024 bytes", err, want)
	}
}

func TestPodsThatCannotBeAsked(t *testing.T) {
	for name, c := range map[string]struct {
		change func(p *corev1.Pod)
		why    string
	}{
		"terminating":       {func(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{Time: now} }, "1 terminating"},
		"pending":           {func(p *corev1.Pod) { p.Status.Phase = corev1.PodPending }, "1 not running"},
		"succeeded":         {func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }, "1 not running"},
		"without address":   {func(p *corev1.Pod) { p.Status.PodIP = "" }, "1 without an address"},
		"unready":           {func(p *corev1.Pod) { p.Status.Conditions[0].Status = corev1.ConditionFalse }, "1 not Ready"},
		"without condition": {func(p *corev1.Pod) { p.Status.Conditions = nil }, "1 not Ready"},
		"too young": {func(p *corev1.Pod) {
			p.Status.Conditions[0].LastTransitionTime = metav1.NewTime(now.Add(-29 * time.Second))
		},
			"1 Ready for less than 30s"},
	} {
		t.Run(name, func(t *testing.T) {
			settings := sample.Settings{"json-key": "$", "min-pod-ready-age": "30s"}
			var asked atomic.Int32
			count := func(w http.ResponseWriter, _ *http.Request, _ <-chan struct{}) { asked.Add(1); fmt.Fprint(w, 1) }
			port, pods := serve(t, map[string]handler{"a": count, "b": count})
			settings["port"] = port
			c.change(pods.pods[0])
			points, err := open(t, pods, settings).Collect(context.Background())
			if err != nil || len(points) != 1 || points[0].Pod != pods.pods[1].Name || asked.Load() != 1 {
				t.Errorf("got %+v, %v, asked %d; want pod %s alone", points, err, asked.Load(), pods.pods[1].Name)
			}
			pods.pods = pods.pods[:1]
			points, err = open(t, pods, settings).Collect(context.Background())
			if !errors.Is(err, sample.ErrNoData) {
				t.Errorf("%v is not ErrNoData, so old values would go on", err)
			}
			want := "no ready pods: of the 1 of Deployment.apps/web, " + c.why
			if len(points) != 0 || err == nil || err.Error() != want {
				t.Errorf("got %+v, %v; want the error %q", points, err, want)
			}
		})
	}
}

func TestAPodJustOldEnoughIsAsked(t *testing.T) {
	port, pods := serve(t, map[string]handler{"a": answer("1")})
	pods.pods[0].Status.Conditions[0].LastTransitionTime = metav1.NewTime(now.Add(-30 * time.Second))
	points, err := open(t, pods, sample.Settings{"json-key": "$", "port": port, "min-pod-ready-age": "30s"}).Collect(context.Background())
	if err != nil || len(points) != 1 {
		t.Errorf("got %+v, %v", points, err)
	}
}

func TestTheSelectorIsFollowed(t *testing.T) {
	port, pods := serve(t, map[string]handler{"a": answer("1"), "b": answer("2"), "other": answer("3")})
	c := open(t, pods, sample.Settings{"json-key": "$", "port": port})
	for selector, want := range map[string]int64{"pod in (a, x)": 1000, "app=web,pod notin (a, other)": 2000, "pod=other": 3000} {
		pods.selector = selector
		points, err := c.Collect(context.Background())
		if err != nil || len(points) != 1 || points[0].Milli != want {
			t.Errorf("%s: %+v, %v; want %d", selector, points, err, want)
		}
	}
	pods.selector = "pod=gone"
	if _, err := c.Collect(context.Background()); err == nil || !strings.Contains(err.Error(), `no ready pods: none matches the selector "pod=gone" of Deployment.apps/web`) {
		t.Errorf("got %v", err)
	}
	pods.err = errors.New(`deployments.apps "web" not found`)
	if _, err := c.Collect(context.Background()); err == nil || !strings.Contains(err.Error(), `the pods of Deployment.apps/web: deployments.apps "web" not found`) {
		t.Errorf("got %v", err)
	}
}

func TestAnIPv6AddressIsConnectedTo(t *testing.T) {
	pods := &cluster{selector: "app=web"}
	pods.add("a", "fd00:10:244::7")
	var mu sync.Mutex
	var seen []string
	c := openWith(t, pods, sample.Settings{"json-key": "$", "port": "8080"}, func(a netip.AddrPort) error {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, a.String())
		return errors.New("is refused here")
	})
	if _, err := c.Collect(context.Background()); err == nil || !strings.Contains(err.Error(), "is refused here") {
		t.Errorf("got %v", err)
	}
	if diff := cmp.Diff([]string{"[fd00:10:244::7]:8080"}, seen); diff != "" {
		t.Error(diff)
	}
}

func TestPodsThatFailedAreAskedLast(t *testing.T) {
	var arrived, good atomic.Int32
	handlers := map[string]handler{"z-good": func(w http.ResponseWriter, _ *http.Request, _ <-chan struct{}) {
		good.Store(arrived.Add(1))
		fmt.Fprint(w, 1)
	}}
	for i := range 2 * perCollection {
		handlers[fmt.Sprintf("a-hangs-%02d", i)] = func(_ http.ResponseWriter, _ *http.Request, done <-chan struct{}) {
			arrived.Add(1)
			<-done
		}
	}
	port, pods := serve(t, handlers)
	c := open(t, pods, sample.Settings{"json-key": "$", "port": port, "request-timeout": "100ms"})
	for _, latest := range []int32{2*perCollection + 1, perCollection} {
		arrived.Store(0)
		good.Store(0)
		_, _ = c.Collect(context.Background())
		if n := good.Load(); n > latest {
			t.Errorf("the good pod was asked as number %d, want at most %d", n, latest)
		}
	}
	if good.Load() == 0 {
		t.Error("the good pod was not asked")
	}
}

// Pods of many tenants that hang keep the pods of another waiting once at most.
func TestPodsThatHungLeaveThePlacesToOthers(t *testing.T) {
	handlers := map[string]handler{}
	for i := range perCollection {
		handlers[fmt.Sprintf("hangs-%02d", i)] = func(_ http.ResponseWriter, _ *http.Request, done <-chan struct{}) { <-done }
	}
	port, pods := serve(t, handlers)
	c := open(t, pods, sample.Settings{"json-key": "$", "port": port, "request-timeout": "50ms"}).(*collector)
	_, _ = c.Collect(context.Background())
	for uid, o := range c.outcomes {
		if o != slow {
			t.Errorf("the outcome of pod %s is %d", uid, o)
		}
	}
	taken := c.source.process
	c.source.process = semaphore.NewWeighted(0) // whoever wants one of these places waits
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_, err := c.Collect(ctx)
	c.source.process = taken
	if err == nil || strings.Contains(err.Error(), "not asked") {
		t.Errorf("pods that hung want the places of the others: %v", err)
	}
	if len(c.outcomes) != perCollection {
		t.Errorf("%d outcomes are kept, want %d", len(c.outcomes), perCollection)
	}
}

func TestPodsWithOneCauseAreToldTogether(t *testing.T) {
	refused := func(address string) error {
		return &net.OpError{Op: "dial", Net: "tcp", Addr: &net.TCPAddr{IP: net.ParseIP(address), Port: 80}, Err: errors.New("connection refused")}
	}
	var pods []*corev1.Pod
	for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
		pods = append(pods, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}})
	}
	failures := []error{refused("10.0.0.1"), nil, refused("10.0.0.2"), errors.New("status 500, not 200"), refused("10.0.0.3"), refused("10.0.0.4")}
	err := join(pods, failures)
	want := "5 of 6 pods gave no value: pod a, c, e and 1 more: dial: connection refused; pod d: status 500, not 200"
	if err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	outline := func(err error) string {
		t.Helper()
		var outlined collectors.Outlined
		if !errors.As(err, &outlined) {
			t.Fatalf("%v has no outline", err)
		}
		return outlined.Outline()
	}
	fewer := join(pods[2:4], failures[2:4])
	if fewer.Error() == err.Error() || outline(fewer) != outline(err) {
		t.Errorf("the outlines differ though the causes do not: %q and %q", outline(fewer), outline(err))
	}
}

func TestTheContextEndsACollection(t *testing.T) {
	arrived := make(chan struct{})
	port, pods := serve(t, map[string]handler{"a": func(_ http.ResponseWriter, _ *http.Request, done <-chan struct{}) {
		close(arrived)
		<-done
	}})
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		<-arrived
		cancel()
	}()
	if _, err := open(t, pods, sample.Settings{"json-key": "$", "port": port}).Collect(ctx); err == nil || !strings.Contains(err.Error(), "context canceled") {
		t.Errorf("got %v", err)
	}
}

func TestPlacesAreBounded(t *testing.T) {
	s := New(nil, nil, nil, nil)
	var leave []func()
	enter := func(n int, namespace string) {
		for range n {
			done, err := s.enter(context.Background(), namespace, false)
			if err != nil {
				t.Fatal(err)
			}
			leave = append(leave, done)
		}
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	enter(perNamespace, "greedy")
	if _, err := s.enter(ended, "greedy", false); err == nil {
		t.Error("a namespace got more places than it may have")
	}
	for i := range perProcess/perNamespace - 1 {
		enter(perNamespace, fmt.Sprint("modest-", i))
	}
	if _, err := s.enter(ended, "late", false); err == nil {
		t.Error("the process gave more places than it has")
	}
	for range slowPerNamespace { // they have places of their own
		done, err := s.enter(context.Background(), "greedy", true)
		if err != nil {
			t.Fatal(err)
		}
		leave = append(leave, done)
	}
	if _, err := s.enter(ended, "greedy", true); err == nil {
		t.Error("a namespace got more places for slow pods than it may have")
	}
	for _, f := range leave {
		f()
	}
	if len(s.namespaces) != 0 {
		t.Errorf("%d namespaces are kept", len(s.namespaces))
	}
}

func BenchmarkCollect100Pods(b *testing.B) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"rps": 5}`) }))
	defer s.Close()
	_, port, _ := net.SplitHostPort(s.Listener.Addr().String())
	c := &cluster{selector: "app=web"}
	for i := range 100 {
		c.add(fmt.Sprint("web-", i), "127.0.0.1")
	}
	client := outbound.New(outbound.Options{Policy: func(netip.AddrPort) error { return nil }})
	defer client.Close()
	source := New(c, c, client, clocktesting.NewFakePassiveClock(now))
	q, err := source.Parse(collectors.Request{Kind: sample.Pods, Namespace: "shop", Target: target, Settings: sample.Settings{"json-key": "$.rps", "port": port}})
	if err != nil {
		b.Fatal(err)
	}
	collector, err := source.Open(q)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := collector.Collect(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
}
