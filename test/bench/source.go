package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// sourceAddress is where the HPAs' endpoints lead: an address of the lab's simulated pods that no pod gets.
const (
	sourceHost = "10.244.250.1"
	sourcePort = "8080"
)

// source answers each request with the time of day in milliseconds, so that whoever reads the metric knows how old it is. It
// plays the endpoints of the External metrics and every pod of the Pods metrics.
type source struct {
	server   *http.Server
	requests atomic.Int64

	mu sync.Mutex
	// awaited are the tags that a change of an HPA has put into its URL, until the first request with them.
	awaited map[string]chan struct{}
	// asked are, while it is not nil, the instants at which each of the HPAs' endpoints was asked, by number.
	asked map[string][]time.Time
}

func startSource(latency time.Duration) (*source, error) {
	s := &source{awaited: map[string]chan struct{}{}}
	s.server = &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.requests.Add(1)
		if tag := r.URL.Query().Get("tag"); tag != "" {
			s.arrived(tag)
		}
		s.note(r.URL.Query().Get("i"))
		time.Sleep(latency)
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"now":%d}`, time.Now().UnixMilli())
	})}
	listener, err := net.Listen("tcp", ":"+sourcePort)
	if err != nil {
		return nil, err
	}
	go func() {
		if err := s.server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			say("the source ended: %v", err)
		}
	}()
	return s, nil
}

func (s *source) await(tag string) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := make(chan struct{})
	s.awaited[tag] = c
	return c
}

func (s *source) arrived(tag string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c, ok := s.awaited[tag]; ok {
		delete(s.awaited, tag)
		close(c)
	}
}

func (s *source) note(number string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asked != nil {
		s.asked[number] = append(s.asked[number], time.Now())
	}
}

// record begins to note who is asked, and returns what ends that.
func (s *source) record() (end func() map[string][]time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = map[string][]time.Time{}
	return func() map[string][]time.Time {
		s.mu.Lock()
		defer s.mu.Unlock()
		asked := s.asked
		s.asked = nil
		return asked
	}
}

func (s *source) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = s.server.Shutdown(ctx)
}
