package e2e

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/kubetide/kubetide/test/lab"
	"github.com/kubetide/kubetide/workloads/stackset/segment"
)

// load are requests to a host through a router.
type load struct {
	counts   map[string]*atomic.Int64
	sent     atomic.Int64
	mu       sync.Mutex
	mistakes []string
	stop     context.CancelFunc
	done     sync.WaitGroup
}

// request sends requests to the host, so many a second, evenly, once the first is answered. What a slow machine can't send in time is left out.
func request(t *testing.T, via *lab.Skipper, host string, perSecond int, counts map[string]*atomic.Int64) *load {
	t.Helper()
	const workers = 12
	transport := &http.Transport{MaxIdleConnsPerHost: workers}
	caller := &http.Client{Transport: transport, Timeout: 10 * time.Second}
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{counts: counts, stop: cancel}
	t.Cleanup(func() { cancel(); transport.CloseIdleConnections() })
	ask := func() error {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, via.URL, nil)
		if err != nil {
			return err
		}
		r.Host = host
		answer, err := caller.Do(r)
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		if err == nil && answer.StatusCode != http.StatusOK {
			err = fmt.Errorf("%s: %s", answer.Status, body)
		}
		return err
	}
	eventually(t, 30*time.Second, ask)
	began := time.Now()
	gap := time.Second * workers / time.Duration(perSecond)
	for i := range workers {
		l.done.Go(func() {
			next := began.Add(gap * time.Duration(i) / workers)
			timer := time.NewTimer(time.Until(next))
			defer timer.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-timer.C:
				}
				if err := ask(); err != nil && ctx.Err() == nil {
					l.mu.Lock()
					l.mistakes = append(l.mistakes, fmt.Sprintf("after %v: %v", time.Since(began).Round(time.Millisecond), err))
					l.mu.Unlock()
				}
				l.sent.Add(1)
				if next = next.Add(gap); next.Before(time.Now()) {
					next = time.Now()
				}
				timer.Reset(time.Until(next))
			}
		})
	}
	return l
}

// more waits for so many requests.
func (l *load) more(t *testing.T, n int64) {
	t.Helper()
	from := l.sent.Load()
	eventually(t, 2*time.Minute, func() error {
		if got := l.sent.Load() - from; got < n {
			return fmt.Errorf("only %d requests of %d", got, n)
		}
		return nil
	})
}

// shares checks whom the next requests reach.
func (l *load) shares(t *testing.T, weights map[string]int) {
	t.Helper()
	const enough, tolerance = 5000, 0.03
	l.more(t, 1000) // the router has read what there is
	before, all := map[string]int64{}, int64(0)
	for stack, n := range l.counts {
		before[stack] = n.Load()
	}
	l.more(t, enough)
	got := map[string]int64{}
	for stack, n := range l.counts {
		got[stack] = n.Load() - before[stack]
		all += got[stack]
	}
	for stack, n := range got {
		share, want := float64(n)/float64(all), float64(weights[stack])/100
		if share < want-tolerance || share > want+tolerance || want == 0 && n > 0 {
			t.Errorf("%s gets %.1f %% of %d requests, want %d %%", stack, 100*share, all, weights[stack])
		}
	}
}

// Random switches under steady requests, with Kubetide killed at random moments, changes of mind, and Stacks that are scaled down
// and come back: each request finds a backend. It kills Kubetide, so it runs alone.
func TestTrafficIsNeverLost(t *testing.T) {
	switches := 30
	if text := os.Getenv("KUBETIDE_TRAFFIC_SWITCHES"); text != "" {
		n, err := strconv.Atoi(text)
		must(t, err)
		switches = n
	}
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("KUBETIDE_TRAFFIC_SEED"); text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		must(t, err)
		seed = n
	}
	t.Logf("KUBETIDE_TRAFFIC_SEED=%d", seed)
	random := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // a test's
	ns := newNamespace(t)
	via, err := cluster.StartSkipper(t.Context(), lab.SkipperConfig{PollInterval: 250 * time.Millisecond})
	must(t, err)
	t.Cleanup(via.Stop)
	s := stacks{t, ns, ns + ".example", "", "stackLifecycle: {scaledownTTLSeconds: 10, limit: 10}"}
	counts := map[string]*atomic.Int64{}
	var names []string
	for _, version := range []string{"v1", "v2", "v3", "v4"} {
		n := &atomic.Int64{}
		names = append(names, "shop-"+version)
		counts["shop-"+version] = n
		s.apply(version, answering(t, func(http.ResponseWriter, *http.Request, string) { n.Add(1) }), "replicas: 2")
	}
	first := map[string]int{"shop-v1": 100}
	eventually(t, 60*time.Second, s.has(first))
	l := request(t, via, s.host, 600, counts)
	ingresses := watching(t, ns, &networkingv1.IngressList{})
	kills, minds := 0, 0
	var weights map[string]int
	for i := range switches {
		weights = map[string]int{}
		left := 100
		for _, at := range random.Perm(len(names))[:len(names)-1] {
			if random.IntN(3) > 0 {
				weights[names[at]] = random.IntN(left + 1)
				left -= weights[names[at]]
			}
		}
		rest := names[random.IntN(len(names))]
		weights[rest] += left
		s.ask(weights)
		switch last := (i+1)%max(1, switches/10) == 0; {
		case i%4 == 1:
			<-time.After(time.Duration(random.IntN(600)) * time.Millisecond) // the moment of the fault, not a wait for something
			for _, p := range kubetidePods(t) {
				if cluster.KillPod(system, p.Name, syscall.SIGKILL) == nil { // else it does not run again yet
					kills++
				}
			}
			if !last {
				break
			}
			fallthrough
		case last:
			eventually(t, 2*time.Minute, s.has(weights))
			l.shares(t, weights)
		case random.IntN(3) == 0:
			minds++
		default:
			eventually(t, 2*time.Minute, s.has(weights))
		}
	}
	eventually(t, 2*time.Minute, s.has(weights))
	l.stop()
	l.done.Wait()
	t.Logf("%d requests, %d switches, %d kills, %d changes of mind", l.sent.Load(), switches, kills, minds)
	if len(l.mistakes) > 0 {
		t.Errorf("%d requests were not answered, the first: %s", len(l.mistakes), strings.Join(l.mistakes[:min(5, len(l.mistakes))], "; "))
	}
	changes := 0
	complete := false
	ingresses.segments(t, func(_ uint64, live segment.Live) {
		if changes++; complete && !segment.Complete(live) {
			t.Errorf("a hole: %v", live)
		}
		complete = complete || segment.Complete(live)
	})
	if !complete || changes < switches || kills == 0 {
		t.Errorf("%d changes of segments were seen, and %d kills", changes, kills)
	}
	waitForKubetide(t)
}
