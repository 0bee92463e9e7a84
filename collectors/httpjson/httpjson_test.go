package httpjson

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"k8s.io/apimachinery/pkg/labels"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/kubetide/kubetide/collectors"
	"github.com/kubetide/kubetide/internal/outbound"
	"github.com/kubetide/kubetide/internal/sample"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// vault holds Secrets by namespace/name.
type vault map[string]collectors.Secret

func (v vault) Secret(_ context.Context, namespace, name string) (collectors.Secret, error) {
	if s, ok := v[namespace+"/"+name]; ok {
		return s, nil
	}
	return collectors.Secret{}, fmt.Errorf("there is no Secret %s/%s", namespace, name)
}

func source(t *testing.T, policy outbound.Policy, v vault) *Source {
	t.Helper()
	client := outbound.New(outbound.Options{Policy: policy})
	t.Cleanup(client.Close)
	return New(Config{Client: client, Secrets: v, Clock: clocktesting.NewFakePassiveClock(now)})
}

func request(settings sample.Settings) collectors.Request {
	return collectors.Request{Kind: sample.External, Namespace: "shop", Metric: "jobs", Settings: settings, Interval: time.Minute}
}

// collect goes the way of a metric: Parse, Open, Collect.
func collect(s *Source, settings sample.Settings) ([]sample.Point, error) {
	q, err := s.Parse(request(settings))
	if err != nil {
		return nil, err
	}
	c, err := s.Open(q)
	if err != nil {
		return nil, err
	}
	return c.Collect(context.Background())
}

func TestKeys(t *testing.T) {
	s := source(t, nil, nil)
	for name, test := range map[string]struct {
		settings sample.Settings
		want     sample.Settings
		err      string
	}{
		"the keys of kube-metrics-adapter": {
			sample.Settings{"endpoint": "http://metric-source.app-namespace/metrics", "json-key": "$.some-metric.value", "aggregator": "max", "type": "json-path"},
			sample.Settings{"endpoint": "http://metric-source.app-namespace/metrics", "json-key": "$.some-metric.value", "aggregator": "max", "request-timeout": "15s", "connect-timeout": "15s"}, ""},
		"all keys": {
			sample.Settings{"endpoint": "https://a.org:8443/x?y=1#z", "json-eval": "ceil($.a)", "format": "json", "secret": "a", "request-timeout": "1000ms", "connect-timeout": "1s"},
			sample.Settings{"endpoint": "https://a.org:8443/x?y=1", "json-eval": "ceil($.a)", "secret": "a", "request-timeout": "1s", "connect-timeout": "1s"}, ""},
		"Prometheus' text format": {
			sample.Settings{"endpoint": "http://a.org", "format": "prometheus", "metric": `jobs{queue="mail"}`, "aggregator": "sum"},
			sample.Settings{"endpoint": "http://a.org", "format": "prometheus", "metric": `jobs{queue="mail"}`, "aggregator": "sum", "request-timeout": "15s", "connect-timeout": "15s"}, ""},
		"no endpoint":                {sample.Settings{"json-key": "$"}, nil, `key "endpoint": it is required: the URL of the document`},
		"no URL":                     {sample.Settings{"endpoint": "http://a b/?secret", "json-key": "$"}, nil, `key "endpoint": it is not a URL: invalid character " " in host name`},
		"another scheme":             {sample.Settings{"endpoint": "file:///etc/passwd", "json-key": "$"}, nil, `key "endpoint": the scheme "file" is refused`},
		"a path only":                {sample.Settings{"endpoint": "/metrics", "json-key": "$"}, nil, `key "endpoint": the scheme "" is refused`},
		"a user":                     {sample.Settings{"endpoint": "http://u:secret@a.org", "json-key": "$"}, nil, `key "endpoint": a user name or password in a URL is refused: everybody can read it there; a Secret or a file may hold it`},
		"a loopback address":         {sample.Settings{"endpoint": "http://127.0.0.1/", "json-key": "$"}, nil, `key "endpoint": the address 127.0.0.1 is refused: it is a loopback address; --outbound-allow=127.0.0.1/32 allows it`},
		"the metadata service":       {sample.Settings{"endpoint": "http://169.254.169.254/latest", "json-key": "$"}, nil, `key "endpoint": the address 169.254.169.254 is refused: it is a link-local address`},
		"an address in disguise":     {sample.Settings{"endpoint": "http://2130706433/", "json-key": "$"}, nil, `key "endpoint": the host "2130706433" is refused: it ends in a number`},
		"an endless URL":             {sample.Settings{"endpoint": "http://a.org/" + strings.Repeat("a", 3000), "json-key": "$"}, nil, `key "endpoint": it is longer than 2048 bytes`},
		"no path":                    {sample.Settings{"endpoint": "http://a.org"}, nil, `key "json-key": it or json-eval is required`},
		"a path and an expression":   {sample.Settings{"endpoint": "http://a.org", "json-key": "$", "json-eval": "$"}, nil, `key "json-eval": it cannot be used together with json-key`},
		"an invalid path":            {sample.Settings{"endpoint": "http://a.org", "json-key": "$["}, nil, `key "json-key": `},
		"an invalid expression":      {sample.Settings{"endpoint": "http://a.org", "json-eval": "ceil)"}, nil, `key "json-eval": `},
		"an unknown aggregator":      {sample.Settings{"endpoint": "http://a.org", "json-key": "$", "aggregator": "median"}, nil, `key "aggregator": `},
		"no timeout":                 {sample.Settings{"endpoint": "http://a.org", "json-key": "$", "request-timeout": "0s"}, nil, `key "request-timeout": 0s is not between 1ms and 1m0s`},
		"a timeout without unit":     {sample.Settings{"endpoint": "http://a.org", "json-key": "$", "connect-timeout": "5"}, nil, `key "connect-timeout": "5" is not a duration such as 15s`},
		"a Secret's impossible name": {sample.Settings{"endpoint": "http://a.org", "json-key": "$", "secret": "../other"}, nil, `key "secret": "../other" is not the name of a Secret`},
		"an unknown format":          {sample.Settings{"endpoint": "http://a.org", "json-key": "$", "format": "xml"}, nil, `key "format": "xml" is neither json nor prometheus`},
		"a path into text":           {sample.Settings{"endpoint": "http://a.org", "json-key": "$", "format": "prometheus"}, nil, `key "json-key": it cannot be used with format: prometheus`},
		"a metric in JSON":           {sample.Settings{"endpoint": "http://a.org", "metric": "a"}, nil, `key "metric": it needs format: prometheus`},
		"no metric":                  {sample.Settings{"endpoint": "http://a.org", "format": "prometheus"}, nil, `key "metric": it is required with format: prometheus`},
		"an invalid selector":        {sample.Settings{"endpoint": "http://a.org", "format": "prometheus", "metric": "a{"}, nil, `key "metric": `},
	} {
		t.Run(name, func(t *testing.T) {
			q, err := s.Parse(request(test.settings))
			if test.err != "" {
				if err == nil || !strings.HasPrefix(err.Error(), test.err) || strings.Contains(err.Error(), "secret@") || strings.Contains(err.Error(), "?secret") {
					t.Errorf("got %v, want %s", err, test.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got, _ := sample.DecodeSettings(q.Settings)
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
			if _, err := s.Open(q); err != nil {
				t.Error(err)
			}
			if again, err := s.Parse(request(got)); err != nil || again != q {
				t.Errorf("the canonical settings mean %v, %v", again, err)
			}
		})
	}
	if _, err := s.Parse(collectors.Request{Kind: sample.Object}); err == nil {
		t.Error("an Object metric is accepted")
	}
	withSelector := request(sample.Settings{"endpoint": "http://a.org", "json-key": "$"})
	withSelector.Selector = labels.SelectorFromSet(labels.Set{"type": "json-path"})
	if q, err := s.Parse(withSelector); err != nil || q.Selector != "type=json-path" {
		t.Errorf("with a selector: %v, %v", q, err)
	}
}

func TestCollect(t *testing.T) {
	bodies := map[string]string{
		"/value":  `{"value":3}`,
		"/array":  `{"value":[3,4,5], "below": -1.5, "text": "5"}`,
		"/dots":   `{"metric.value": 5}`,
		"/work":   `{"worker_status": [{"last_status": {"backlog": 3}}, {"last_status": {"backlog": 7}}]}`,
		"/pools":  `{"active processes": 1, "total processes": 10}`,
		"/broken": `{`,
		"/text":   "# TYPE jobs gauge\njobs{queue=\"mail\"} 4\njobs{queue=\"push\"} 2 1795348795000\njobs{queue=\"none\"} NaN\n",
		"/large":  `{"value": 3, "padding": "` + strings.Repeat("x", 1<<20) + `"}`,
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if body, ok := bodies[r.URL.Path]; ok {
			_, _ = io.WriteString(w, body)
			return
		}
		w.WriteHeader(http.StatusNotFound)
	}))
	defer server.Close()
	s := source(t, outbound.Anywhere, nil)
	for name, test := range map[string]struct {
		path     string
		settings sample.Settings
		want     sample.Point
		err      string
	}{
		"a number":          {"/value", sample.Settings{"json-key": "$.value"}, sample.Point{Milli: 3000}, ""},
		"an array's mean":   {"/array", sample.Settings{"json-key": "$.value", "aggregator": "avg"}, sample.Point{Milli: 4000}, ""},
		"a key with a dot":  {"/dots", sample.Settings{"json-key": "$['metric.value']"}, sample.Point{Milli: 5000}, ""},
		"several matches":   {"/work", sample.Settings{"json-key": "$.worker_status.[*].last_status.backlog", "aggregator": "avg"}, sample.Point{Milli: 5000}, ""},
		"an expression":     {"/pools", sample.Settings{"json-eval": "ceil($['active processes'] / $['total processes'] * 100)"}, sample.Point{Milli: 10000}, ""},
		"below zero":        {"/array", sample.Settings{"json-key": "$.below"}, sample.Point{Milli: -1500}, ""},
		"a series":          {"/text", sample.Settings{"format": "prometheus", "metric": `jobs{queue="mail"}`}, sample.Point{Milli: 4000}, ""},
		"several series":    {"/text", sample.Settings{"format": "prometheus", "metric": `jobs{queue!="none"}`, "aggregator": "sum"}, sample.Point{Milli: 6000, Age: 5 * time.Second}, ""},
		"a series of NaN":   {"/text", sample.Settings{"format": "prometheus", "metric": `jobs{queue="none"}`}, sample.Point{}, "no data"},
		"no such series":    {"/text", sample.Settings{"format": "prometheus", "metric": "users"}, sample.Point{}, "no data"},
		"text as JSON":      {"/text", sample.Settings{"json-key": "$"}, sample.Point{}, "the document is not JSON"},
		"no match":          {"/value", sample.Settings{"json-key": "$.values"}, sample.Point{}, "unexpected json: expected single numeric or array value"},
		"a string":          {"/array", sample.Settings{"json-key": "$.text"}, sample.Point{}, "unsupported type"},
		"no aggregator":     {"/array", sample.Settings{"json-key": "$.value"}, sample.Point{}, "no aggregator function has been specified"},
		"a broken document": {"/broken", sample.Settings{"json-key": "$.value"}, sample.Point{}, "the document is not JSON"},
		"a missing page":    {"/missing", sample.Settings{"json-key": "$.value"}, sample.Point{}, "status 404, not 200"},
		"a large document":  {"/large", sample.Settings{"json-key": "$.value"}, sample.Point{}, "the answer is larger than 1048576 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			test.settings["endpoint"] = server.URL + test.path
			points, err := collect(s, test.settings)
			switch {
			case test.err == "no data":
				if !errors.Is(err, sample.ErrNoData) {
					t.Errorf("got %v, %v", points, err)
				}
			case test.err != "":
				if err == nil || !strings.HasPrefix(err.Error(), strings.TrimPrefix(server.URL, "http://")+": "+test.err) {
					t.Errorf("got %v, want an error that names the host and %q", err, test.err)
				}
			default:
				if diff := cmp.Diff([]sample.Point{test.want}, points); diff != "" || err != nil {
					t.Error(diff, err)
				}
			}
		})
	}
}

func TestTheAddressBehindANameIsChecked(t *testing.T) {
	asked := false
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked = true }))
	defer server.Close()
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	u.Host = "localhost:" + u.Port()
	_, err = collect(source(t, nil, nil), sample.Settings{"endpoint": u.String(), "json-key": "$"})
	if outbound.Kind(err) != "denied" || asked || !strings.Contains(err.Error(), "it is a loopback address; --outbound-allow=") {
		t.Errorf("got %v", err)
	}
}

func TestSecrets(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer t" {
			w.WriteHeader(http.StatusUnauthorized)
		}
		_, _ = io.WriteString(w, "7")
	}))
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	s := source(t, outbound.Anywhere, vault{
		"shop/good":  {Host: host, Data: map[string][]byte{"token": []byte("t\n")}},
		"shop/other": {Host: "example.org", Data: map[string][]byte{"token": []byte("t")}},
		"shop/empty": {Host: host},
		"bank/bank":  {Host: host, Data: map[string][]byte{"token": []byte("t")}},
	})
	for secret, want := range map[string]string{
		"good":  "",
		"":      "status 401, not 200",
		"other": "sending credentials to " + host + ` is refused: they are for "example.org" only`,
		"empty": "the Secret shop/empty: it holds none of the keys token,",
		"bank":  "there is no Secret shop/bank",
	} {
		points, err := collect(s, sample.Settings{"endpoint": server.URL, "json-key": "$", "secret": secret})
		if want == "" && (err != nil || points[0].Milli != 7000) || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("secret %q: got %v, %v; want %q", secret, points, err, want)
		}
	}
}

// FuzzParse holds that no settings panic, and that what is accepted is a question of its own canonical form.
func FuzzParse(f *testing.F) {
	f.Add("http://a.org/x?y#z", "$.a", "", "", "", "")
	f.Add("http://127.1", "", "ceil($.a)", "json", "", "a")
	f.Add("https://[::1]", "", "", "prometheus", `a{b=~"c"}`, "A")
	client := outbound.New(outbound.Options{})
	s := New(Config{Client: client})
	f.Fuzz(func(t *testing.T, endpoint, path, script, format, metric, secret string) {
		q, err := s.Parse(request(sample.Settings{"endpoint": endpoint, "json-key": path, "json-eval": script, "format": format, "metric": metric, "secret": secret}))
		if err != nil {
			return
		}
		canonical, err := sample.DecodeSettings(q.Settings)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := s.Parse(request(canonical)); err != nil || again != q {
			t.Errorf("%s: %v, %v", q.Settings, again, err)
		}
	})
}
