package collection

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	clocktesting "k8s.io/utils/clock/testing"

	"github.com/kubetide/kubetide/adapter/cluster/ownership"
	"github.com/kubetide/kubetide/internal/sample"
)

// cluster is some Schedulers that share the collecting: on one clock, with samples that reach all at once.
type cluster struct {
	clock *clocktesting.FakeClock
	fails func(member string, q sample.Query) bool

	// mu guards what follows, and the members'.
	mu      sync.Mutex
	members map[string]*member
	asked   map[sample.Query][]string // by whom each source was asked
}

type member struct {
	*bench
	id      string
	dead    bool
	view    []string
	samples map[sample.Query]ownership.Samples
	known   time.Time
	tried   map[sample.Query]time.Time
}

func newCluster() *cluster {
	return &cluster{clock: clocktesting.NewFakeClock(start), members: map[string]*member{}, asked: map[sample.Query][]string{}}
}

// join adds a member that has the living others' samples and owns nothing before it is seen.
func (c *cluster) join(t *testing.T, id string, queries []sample.Query) {
	m := &member{id: id, known: c.clock.Now(), samples: map[sample.Query]ownership.Samples{}, tried: map[sample.Query]time.Time{}}
	c.mu.Lock()
	for _, other := range c.members {
		if other.dead {
			continue
		}
		m.view = slices.Clone(other.view)
		for q, samples := range other.samples {
			m.samples[q] = slices.Clone(samples)
		}
	}
	c.members[id] = m
	c.mu.Unlock()
	collect := func(ctx context.Context, q sample.Query) ([]sample.Point, error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.asked[q] = append(c.asked[q], id)
		if c.fails != nil && c.fails(id, q) {
			return nil, errors.New("unreachable")
		}
		return value(ctx, q)
	}
	b := newBench(t, &source{collect: collect}, func(o *Options) {
		o.Clock, o.Turn = c.clock, func(q sample.Query) (bool, time.Time) { return c.turn(m, q) }
		o.Insert = func(r sample.Result) bool { c.insert(m, r); return true }
	})
	b.clock = c.clock
	c.mu.Lock()
	m.bench = b
	c.mu.Unlock()
	for _, q := range queries {
		m.want(q)
	}
}

func (c *cluster) turn(m *member, q sample.Query) (bool, time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.clock.Now()
	if m.dead {
		return false, now.Add(time.Hour)
	}
	d := ownership.Decide(ownership.Inputs{Key: q.ID(), Node: m.id, Nodes: m.view, Interval: q.Interval, Samples: m.samples[q],
		Known: m.known, Tried: m.tried[q]}, now)
	if d.Collect {
		m.tried[q] = now
	}
	return d.Collect, d.Next
}

func (c *cluster) insert(from *member, r sample.Result) {
	if r.Err != nil {
		return
	}
	var told []*Scheduler
	c.mu.Lock()
	for _, to := range c.members {
		if !from.dead && !to.dead {
			to.samples[r.Query] = to.samples[r.Query].With(ownership.Sample{Node: from.id, Taken: r.Taken})
			if to != from && to.bench != nil {
				told = append(told, to.Scheduler)
			}
		}
	}
	c.mu.Unlock()
	for _, s := range told {
		s.Works(r.Query)
	}
}

func (c *cluster) see(view ...string) {
	for _, m := range c.members {
		c.mu.Lock()
		m.view = view
		c.mu.Unlock()
		m.Reconsider()
	}
}

// run lets time go on, and returns the largest age that an answer had beyond its interval, and how often the sources were asked,
// against once an interval.
func (c *cluster) run(t *testing.T, queries []sample.Query, total time.Duration) (late time.Duration, load float64) {
	t.Helper()
	const step = 250 * time.Millisecond
	c.mu.Lock()
	clear(c.asked)
	c.mu.Unlock()
	for passed := time.Duration(0); passed < total; passed += step {
		c.clock.Step(step)
		for _, m := range c.members {
			until(t, "the schedulers to be idle", m.idle)
		}
		c.mu.Lock()
		for _, m := range c.members {
			for _, q := range queries {
				if len(m.samples[q]) > 0 && !m.dead {
					late = max(late, c.clock.Since(m.samples[q][0].Taken)-q.Interval)
				}
			}
		}
		c.mu.Unlock()
	}
	ideal, asked := 0.0, 0
	for _, q := range queries {
		ideal += float64(total) / float64(q.Interval)
		asked += len(c.asked[q])
	}
	return late, float64(asked) / ideal
}

func TestSchedulersShareTheCollecting(t *testing.T) {
	var queries []sample.Query
	for i := range 30 {
		queries = append(queries, query(fmt.Sprint(i), []time.Duration{5 * time.Second, 10 * time.Second, 20 * time.Second}[i%3]))
	}
	c := newCluster()
	ids := []string{"a", "b", "c"}
	for _, id := range ids {
		c.join(t, id, queries)
	}
	settled := func(when string) {
		t.Helper()
		late, load := c.run(t, queries, time.Minute)
		if late > time.Second || load < 0.99 || load > 1.01 {
			t.Errorf("%s: answers are up to %s late, the sources are asked %.2f times an interval", when, late, load)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		for q, by := range c.asked {
			if owner := ownership.Owner(q.ID(), c.members["b"].view); slices.ContainsFunc(by, func(id string) bool { return id != owner }) {
				t.Errorf("%s: %s, owned by %s, was collected by %v", when, q.Metric, owner, by)
			}
		}
	}
	c.see(ids...)
	c.run(t, queries, 30*time.Second)
	settled("at first")

	c.mu.Lock()
	c.members["a"].dead = true
	c.mu.Unlock()
	late, _ := c.run(t, queries, 4*time.Second)
	c.see("b", "c")
	after, load := c.run(t, queries, 30*time.Second)
	if late = max(late, after); late > 7*time.Second || load > 1.1 {
		t.Errorf("one was killed: answers were up to %s late, the sources were asked %.2f times an interval", late, load)
	}
	settled("after one was killed")

	c.join(t, "d", queries)
	late, _ = c.run(t, queries, 2*time.Second)
	c.see("b", "c", "d")
	after, load = c.run(t, queries, 30*time.Second)
	if late = max(late, after); late > time.Second || load > 1.1 {
		t.Errorf("one joined: answers were up to %s late, the sources were asked %.2f times an interval", late, load)
	}
	settled("after one joined")

	c.mu.Lock()
	c.fails = func(id string, _ sample.Query) bool { return id == "d" }
	c.mu.Unlock()
	late, load = c.run(t, queries, 90*time.Second)
	if late > 10*time.Second+time.Second || load > 1.5 {
		t.Errorf("one reaches no source: answers were up to %s late, the sources were asked %.2f times an interval", late, load)
	}
	c.mu.Lock()
	c.fails = nil
	c.mu.Unlock()
	c.run(t, queries, 20*time.Second) // the longest interval
	settled("after it reaches them again")
}
