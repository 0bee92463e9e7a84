package outbound

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestAHangingTenantKeepsNobodyElseWaiting(t *testing.T) {
	const perHost, inFlight = 2, 3
	var mu sync.Mutex
	running, most := map[string]int{}, map[string]int{}
	arrived := make(chan struct{}, 100)
	hang := func(w http.ResponseWriter, r *http.Request, done <-chan struct{}) {
		if r.URL.Path == "/quick" {
			return
		}
		mu.Lock()
		running[r.Host]++
		most[r.Host] = max(most[r.Host], running[r.Host])
		mu.Unlock()
		arrived <- struct{}{}
		select {
		case <-done:
		case <-r.Context().Done():
		}
		mu.Lock()
		running[r.Host]--
		mu.Unlock()
	}
	first, second := serve(t, hang), serve(t, hang)
	c := client(t, Options{Policy: Anywhere, Budget: Budget{PerHost: perHost, InFlight: inFlight}})
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	for range 10 {
		all.Go(func() {
			if _, err := c.Get(ctx, Request{Namespace: "greedy", URL: first}); !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
		})
	}
	for range perHost {
		<-arrived
	}
	quick := *first
	quick.Path = "/quick"
	if _, err := c.Get(context.Background(), Request{Namespace: "other", URL: &quick}); err != nil {
		t.Errorf("another namespace: %v", err)
	}
	quick.Host = second.Host
	if _, err := c.Get(context.Background(), Request{Namespace: "greedy", URL: &quick}); err != nil {
		t.Errorf("another host: %v", err)
	}
	all.Go(func() { _, _ = c.Get(ctx, Request{Namespace: "greedy", URL: second}) })
	<-arrived
	for _, test := range []struct {
		host string
		want string
	}{
		{first.Host, `it was not sent in time: the namespace "greedy" has used up its 2 requests at once to one host`},
		{second.Host, `it was not sent in time: the namespace "greedy" has used up its 3 requests at once`},
	} {
		quick.Host = test.host
		_, err := c.Get(context.Background(), Request{Namespace: "greedy", URL: &quick, Timeout: 50 * time.Millisecond})
		if err == nil || err.Error() != test.want || Kind(err) != "budget" {
			t.Errorf("got %v, want %s", err, test.want)
		}
	}
	cancel()
	all.Wait()
	if most[first.Host] > perHost {
		t.Errorf("%d requests ran at once", most[first.Host])
	}
	for _, tenant := range c.shared.budgets.tenants {
		if tenant.users != 0 || len(tenant.hosts) != 0 {
			t.Errorf("%d users and %d hosts are kept", tenant.users, len(tenant.hosts))
		}
	}
}

func TestTheRateIsBounded(t *testing.T) {
	b := newBudgets(Budget{PerSecond: 0.001}) // a burst of one, and the next in a quarter of an hour
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	leave, err := b.enter(ctx, "shop", "a:80")
	if err != nil {
		t.Fatal(err)
	}
	leave()
	if _, err := b.enter(ctx, "shop", "a:80"); err == nil || !strings.HasSuffix(err.Error(), `"shop" has used up its 0.001 requests a second (--outbound-requests-per-second)`) {
		t.Errorf("got %v", err)
	}
	if leave, err = b.enter(ctx, "other", "a:80"); err != nil {
		t.Errorf("another namespace: %v", err)
	} else {
		leave()
	}
	if t0, _ := newBudgets(Budget{}).use("shop", "a:80"); t0.rate.Limit() != 500 || t0.rate.Burst() != 1000 {
		t.Errorf("the default is %v a second with a burst of %d", t0.rate.Limit(), t0.rate.Burst())
	}
	unbounded := newBudgets(Budget{PerSecond: -1})
	for range 10000 {
		leave, err := unbounded.enter(ctx, "shop", "a:80")
		if err != nil {
			t.Fatal(err)
		}
		leave()
	}
}

func TestNamespacesAreForgotten(t *testing.T) {
	b := newBudgets(Budget{PerSecond: 1000})
	now := time.Now()
	for i := range 1000 {
		leave, err := b.enter(context.Background(), fmt.Sprint("ns-", i), "a:80")
		if err != nil {
			t.Fatal(err)
		}
		leave()
	}
	used, _ := b.use("in-use", "a:80")
	b.mu.Lock()
	b.sweep(now.Add(time.Hour))
	left := len(b.tenants)
	b.mu.Unlock()
	if left != 1 || b.tenants["in-use"] != used {
		t.Errorf("%d namespaces are kept", left)
	}
	b.unuse("in-use", "a:80")

	slow := newBudgets(Budget{PerSecond: 0.001})
	if _, err := slow.enter(context.Background(), "shop", "a:80"); err != nil {
		t.Fatal(err)
	}
	slow.unuse("shop", "a:80")
	slow.sweep(time.Now().Add(time.Minute))
	if len(slow.tenants) != 1 {
		t.Error("a namespace got its rate back by being forgotten")
	}
}

func TestMetrics(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	metrics := NewMetrics(registry)
	ok := serve(t, func(w http.ResponseWriter, r *http.Request, _ <-chan struct{}) {
		if r.URL.Path == "/missing" {
			w.WriteHeader(http.StatusNotFound)
		}
	})
	missing := *ok
	missing.Path = "/missing"
	c := client(t, Options{Policy: Anywhere, Metrics: metrics})
	ask := func(c *Client, collector string, r Request) {
		r.Collector = collector
		_, _ = c.Get(context.Background(), r)
	}
	ask(c, "a", Request{URL: ok})
	ask(c, "a", Request{URL: &missing})
	_, _ = c.Do(context.Background(), Request{Collector: "b", URL: &missing})
	ask(client(t, Options{Metrics: metrics}), "b", Request{URL: ok})
	ask(c, "b", Request{URL: serve(t, bad["a length beyond the limit"].answer)})
	ask(c, "b", Request{URL: serve(t, bad["no answer"].answer), Timeout: 50 * time.Millisecond})
	want := `
# HELP kubetide_outbound_requests_total Requests to sources. Labeled by collector and result: ok, or the kind of the failure.
# TYPE kubetide_outbound_requests_total counter
kubetide_outbound_requests_total{collector="a",result="ok"} 1
kubetide_outbound_requests_total{collector="a",result="status"} 1
kubetide_outbound_requests_total{collector="b",result="denied"} 1
kubetide_outbound_requests_total{collector="b",result="status"} 1
kubetide_outbound_requests_total{collector="b",result="timeout"} 1
kubetide_outbound_requests_total{collector="b",result="too_large"} 1
# HELP kubetide_outbound_requests_in_flight Requests to sources that have been sent and whose answer is not complete.
# TYPE kubetide_outbound_requests_in_flight gauge
kubetide_outbound_requests_in_flight 0
`
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want), "kubetide_outbound_requests_total", "kubetide_outbound_requests_in_flight"); err != nil {
		t.Error(err)
	}
	problems, err := testutil.GatherAndLint(registry)
	if err != nil || len(problems) > 0 {
		t.Error(problems, err)
	}
}
