// Package admin serves the port for operators: /health, /ready, /metrics and, on request, profiles. It answers from checks
// that others register and holds no state of its own but that the server is stopping.
package admin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
)

// Check returns nil if all is well, else what is not. It is quick and does no I/O.
type Check func() error

// Server is the admin port.
type Server struct {
	listener net.Listener
	mux      *http.ServeMux
	http     http.Server
	stopping atomic.Bool

	// mu protects what follows.
	mu    sync.Mutex
	live  []named
	ready []named
}

type named struct {
	name  string
	check Check
}

// Options of New.
type Options struct {
	// Address is host:port. Port 0 is any free port.
	Address string
	Pprof   bool
	// Metrics are gathered in order; of two families with one name the first is served.
	Metrics []prometheus.Gatherer
}

// New opens the port. It answers once Run is called.
func New(o Options) (*Server, error) {
	listener, err := net.Listen("tcp", o.Address)
	if err != nil {
		return nil, fmt.Errorf("admin port: %w", err)
	}
	mux := http.NewServeMux()
	s := &Server{listener: listener, mux: mux}
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) { s.answer(w, &s.live) })
	mux.HandleFunc("GET /ready", func(w http.ResponseWriter, _ *http.Request) { s.answer(w, &s.ready) })
	mux.Handle("GET /metrics", promhttp.HandlerFor(firstWins(o.Metrics), promhttp.HandlerOpts{
		ErrorHandling: promhttp.ContinueOnError, MaxRequestsInFlight: 4, Timeout: 30 * time.Second,
	}))
	if o.Pprof {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	s.http = http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 1 << 14}
	return s, nil
}

// Addr is where the port is open.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Handle serves a pattern of http.ServeMux that is not served yet.
func (s *Server) Handle(pattern string, handler http.Handler) { s.mux.Handle(pattern, handler) }

// AddLive adds a check that only a restart can mend.
func (s *Server) AddLive(name string, check Check) { s.add(&s.live, name, check) }

// AddReady adds a check without which no requests should come.
func (s *Server) AddReady(name string, check Check) { s.add(&s.ready, name, check) }

func (s *Server) add(to *[]named, name string, check Check) {
	s.mu.Lock()
	defer s.mu.Unlock()
	*to = append(*to, named{name, check})
}

// Stopping makes the server not ready, for good.
func (s *Server) Stopping() { s.stopping.Store(true) }

// Run answers until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = s.http.Close() })
	defer stop()
	if err := s.http.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("admin port: %w", err)
	}
	return nil
}

func (s *Server) answer(w http.ResponseWriter, checks *[]named) {
	s.mu.Lock()
	list := slices.Clone(*checks)
	s.mu.Unlock()
	var failed []string
	if checks == &s.ready && s.stopping.Load() {
		failed = append(failed, "the server is stopping")
	}
	for _, c := range list {
		if err := c.check(); err != nil {
			failed = append(failed, c.name+": "+err.Error())
		}
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if len(failed) > 0 {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintln(w, strings.Join(failed, "\n"))
		return
	}
	fmt.Fprintln(w, "ok")
}

// firstWins joins registries that know some metrics in common, such as those of the Go runtime.
type firstWins []prometheus.Gatherer

func (g firstWins) Gather() ([]*dto.MetricFamily, error) {
	var all []*dto.MetricFamily
	var errs []error
	seen := map[string]bool{}
	for _, gatherer := range g {
		families, err := gatherer.Gather()
		errs = append(errs, err)
		for _, family := range families {
			if !seen[family.GetName()] {
				seen[family.GetName()] = true
				all = append(all, family)
			}
		}
	}
	slices.SortFunc(all, func(a, b *dto.MetricFamily) int { return strings.Compare(a.GetName(), b.GetName()) })
	return all, errors.Join(errs...)
}
