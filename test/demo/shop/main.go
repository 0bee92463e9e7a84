// Command shop is the application of the demo: it takes orders and tells, as JSON, how many it takes a second, and what time it is.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// window is the span over which orders are averaged; short, so that the demo moves.
const window = 5

// grace is how long orders that have come may take when the shop is told to end.
const grace = 3 * time.Second

// orders counts by second, in a ring.
type orders struct {
	mu     sync.Mutex
	counts [window + 1]int
	second [window + 1]int64
}

func (o *orders) add(now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := now.Unix()
	i := s % int64(len(o.counts))
	if o.second[i] != s {
		o.second[i], o.counts[i] = s, 0
	}
	o.counts[i]++
}

// perSecond is the average over the last full seconds.
func (o *orders) perSecond(now time.Time) float64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	sum := 0
	for i, s := range o.second {
		if age := now.Unix() - s; age >= 1 && age <= window {
			sum += o.counts[i]
		}
	}
	return float64(sum) / window
}

func main() {
	var o orders
	version := os.Getenv("VERSION")
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		o.add(time.Now())
		_, _ = io.WriteString(w, version)
	})
	mux.HandleFunc("/healthz", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/metrics.json", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"orders": map[string]float64{"per_second": o.perSecond(time.Now())}})
	})
	mux.HandleFunc("/clock.json", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]int64{"now": time.Now().UnixMilli()})
	})
	server := &http.Server{Addr: net.JoinHostPort(os.Getenv("POD_IP"), "8080"), Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		<-ctx.Done()
		bounded, cancel := context.WithTimeout(context.Background(), grace)
		defer cancel()
		_ = server.Shutdown(bounded) // what has come is answered
	}()
	err := server.ListenAndServe()
	if !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
	<-ended
	stop()
}
