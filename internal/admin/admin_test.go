package admin

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

func start(t *testing.T, o Options) (*Server, func(path string) (int, string)) {
	t.Helper()
	o.Address = "127.0.0.1:0"
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	client := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(func() {
		client.CloseIdleConnections()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s, func(path string) (int, string) {
		t.Helper()
		response, err := client.Get("http://" + s.Addr().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return response.StatusCode, string(body)
	}
}

func TestHealthAndReadinessTellTheTruth(t *testing.T) {
	s, get := start(t, Options{})
	var live, ready error
	s.AddLive("collection", func() error { return live })
	s.AddReady("metrics", func() error { return ready })
	for _, step := range []struct {
		what                    string
		change                  func()
		health, ready           int
		healthText, notReadyFor string
	}{
		{"all is well", func() {}, 200, 200, "ok", "ok"},
		{"no metrics yet: alive, not ready", func() { ready = errors.New("no HPA listed") }, 200, 503, "ok", "metrics: no HPA listed"},
		{"a loop stands still: not alive", func() { live = errors.New("no progress"); ready = nil }, 503, 200, "collection: no progress", "ok"},
		{"stopping: alive, not ready", func() { live = nil; s.Stopping() }, 200, 503, "ok", "the server is stopping"},
	} {
		step.change()
		if code, body := get("/health"); code != step.health || !strings.Contains(body, step.healthText) {
			t.Errorf("%s: health %d %q", step.what, code, body)
		}
		if code, body := get("/ready"); code != step.ready || !strings.Contains(body, step.notReadyFor) {
			t.Errorf("%s: ready %d %q", step.what, code, body)
		}
	}
	if code, _ := get("/debug/pprof/"); code != 404 {
		t.Errorf("profiles without being asked for: %d", code)
	}
	if code, _ := get("/"); code != 404 {
		t.Errorf("something at /: %d", code)
	}
}

func TestRegistriesThatShareMetricsAreServedAsOne(t *testing.T) {
	registry := func(value float64, names ...string) *prometheus.Registry {
		r := prometheus.NewRegistry()
		for _, name := range names {
			g := prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: "Help."})
			g.Set(value)
			r.MustRegister(g)
		}
		return r
	}
	_, get := start(t, Options{Pprof: true, Metrics: []prometheus.Gatherer{registry(1, "go_x", "b"), registry(2, "go_x", "a")}})
	code, body := get("/metrics")
	if code != 200 || !strings.Contains(body, "\ngo_x 1\n") || strings.Contains(body, "go_x 2") || !strings.Contains(body, "\na 2\n") || !strings.Contains(body, "\nb 1\n") {
		t.Errorf("%d\n%s", code, body)
	}
	if code, _ := get("/debug/pprof/"); code != 200 {
		t.Errorf("profiles that were asked for: %d", code)
	}
}

func TestATakenPortIsAnErrorAtOnce(t *testing.T) {
	s, _ := start(t, Options{})
	if _, err := New(Options{Address: s.Addr().String()}); err == nil || !strings.HasPrefix(err.Error(), "admin port: ") {
		t.Errorf("%v", err)
	}
}
