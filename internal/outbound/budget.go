package outbound

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"
)

// Budget bounds what is sent on behalf of one namespace. A zero field is its default.
type Budget struct {
	// PerSecond is the number of requests a second, with bursts of twice as many; default 500, below 0 no bound.
	PerSecond float64
	// InFlight is the number of requests that run at once; default 128.
	InFlight int
	// PerHost is the number of those that may go to one host and port; default 32. A host that hangs takes no more.
	PerHost int
}

// budgets holds what namespaces have left. Requests beyond it wait, in their order, for as long as they have time.
type budgets struct {
	Budget
	rooms   rooms
	mu      sync.Mutex // protects all below, and tenants' counters
	tenants map[string]*tenant
	swept   time.Time
}

type tenant struct {
	rate   *rate.Limiter
	places *semaphore.Weighted
	hosts  map[string]*hostPlaces
	rooms  rooms
	users  int
}

type hostPlaces struct {
	places *semaphore.Weighted
	users  int
}

// sweepEach is the least time between two looks for namespaces that can be forgotten.
const sweepEach = 10 * time.Second

func newBudgets(b Budget) *budgets {
	if b.PerSecond == 0 {
		b.PerSecond = 500
	}
	if b.InFlight == 0 {
		b.InFlight = 128
	}
	if b.PerHost == 0 {
		b.PerHost = 32
	}
	return &budgets{Budget: b, tenants: map[string]*tenant{}, rooms: newRooms(func(c class) int64 { return c.process })}
}

// enter waits for places and for a request's share of the rate. leave gives the places back.
func (b *budgets) enter(ctx context.Context, namespace, host string) (leave func(), err error) {
	t, h := b.use(namespace, host)
	// The host's place first: who waits for it takes nothing from requests to others.
	if err := h.places.Acquire(ctx, 1); err != nil {
		b.unuse(namespace, host)
		return nil, b.exceeded(ctx, namespace, "%v requests at once to one host", b.PerHost)
	}
	if err := t.places.Acquire(ctx, 1); err != nil {
		h.places.Release(1)
		b.unuse(namespace, host)
		return nil, b.exceeded(ctx, namespace, "%v requests at once", b.InFlight)
	}
	leave = func() {
		t.places.Release(1)
		h.places.Release(1)
		b.unuse(namespace, host)
	}
	if t.rate != nil {
		if err := t.rate.Wait(ctx); err != nil {
			leave()
			return nil, b.exceeded(ctx, namespace, "%v requests a second (--outbound-requests-per-second)", b.PerSecond)
		}
	}
	return leave, nil
}

func (b *budgets) exceeded(ctx context.Context, namespace, format string, limit any) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return context.Cause(ctx)
	}
	return &BudgetError{Namespace: namespace, Limit: fmt.Sprintf(format, limit)}
}

func (b *budgets) use(namespace, host string) (*tenant, *hostPlaces) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.tenant(namespace)
	h := t.hosts[host]
	if h == nil {
		h = &hostPlaces{places: semaphore.NewWeighted(int64(b.PerHost))}
		t.hosts[host] = h
	}
	t.users++
	h.users++
	return t, h
}

// tenant returns what the namespace has left. The caller holds mu.
func (b *budgets) tenant(namespace string) *tenant {
	t := b.tenants[namespace]
	if t == nil {
		b.sweep(time.Now())
		t = &tenant{
			places: semaphore.NewWeighted(int64(b.InFlight)), hosts: map[string]*hostPlaces{},
			rooms: newRooms(func(c class) int64 { return c.namespace }),
		}
		if b.PerSecond > 0 {
			t.rate = rate.NewLimiter(rate.Limit(b.PerSecond), max(1, int(2*b.PerSecond)))
		}
		b.tenants[namespace] = t
	}
	return t
}

func (b *budgets) unuse(namespace, host string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.tenants[namespace]
	t.users--
	if t.hosts[host].users--; t.hosts[host].users == 0 {
		delete(t.hosts, host)
	}
}

// sweep forgets the namespaces that nobody uses and whose rate has recovered: they are as good as new.
func (b *budgets) sweep(now time.Time) {
	if now.Sub(b.swept) < sweepEach {
		return
	}
	b.swept = now
	for namespace, t := range b.tenants {
		if t.users == 0 && (t.rate == nil || t.rate.TokensAt(now) >= float64(t.rate.Burst())) {
			delete(b.tenants, namespace)
		}
	}
}
