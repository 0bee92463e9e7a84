package collection

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/kubetide/kubetide/collectors"
	"github.com/kubetide/kubetide/internal/sample"
)

var start = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// source collects by a function and can name the instants of change.
type source struct {
	collect func(ctx context.Context, q sample.Query) ([]sample.Point, error)
	change  func(now time.Time) time.Time
}

func (s *source) Keys() []string { return nil }

func (s *source) Parse(r collectors.Request) (sample.Query, error) { return r.Query("fake", nil), nil }

func (s *source) Open(q sample.Query) (collectors.Collector, error) {
	if q.Metric == "cannot-open" {
		return nil, errors.New("unknown region")
	}
	c := collector{source: s, query: q}
	if s.change != nil {
		return timed{c}, nil
	}
	return c, nil
}

type collector struct {
	source *source
	query  sample.Query
}

func (c collector) Collect(ctx context.Context) ([]sample.Point, error) {
	return c.source.collect(ctx, c.query)
}

type timed struct{ collector }

func (c timed) NextChange(now time.Time) time.Time { return c.source.change(now) }

// bench is a running Scheduler that notes what it does.
type bench struct {
	*Scheduler
	clock  *clocktesting.FakeClock
	source *source

	mu      sync.Mutex
	wanted  map[sample.Query]bool
	results []sample.Result
	reports []string
}

func newBench(t testing.TB, s *source, change func(*Options)) *bench {
	t.Helper()
	b := &bench{clock: clocktesting.NewFakeClock(start), source: s, wanted: map[sample.Query]bool{}}
	registry := collectors.NewRegistry()
	registry.Register(sample.External, s, "fake")
	registry.Register(sample.Pods, s, "fake")
	o := Options{Registry: registry, Clock: b.clock, Log: logr.Discard(), Random: func() float64 { return 1 },
		Insert: func(r sample.Result) bool {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.results = append(b.results, r)
			return b.wanted[r.Query]
		},
		Report: func(r sample.Result) {
			b.mu.Lock()
			defer b.mu.Unlock()
			err := r.Err
			if r.Warning != nil {
				err = r.Warning
			}
			b.reports = append(b.reports, fmt.Sprintf("%s %d %v", r.Query.Metric, len(r.Points), err))
		}}
	if change != nil {
		change(&o)
	}
	b.Scheduler = New(o)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		goleak.VerifyNone(t)
	})
	return b
}

func (b *bench) want(q sample.Query) {
	b.mu.Lock()
	b.wanted[q] = true
	b.mu.Unlock()
	b.Add(q)
}

func (b *bench) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.results)
}

// idle says that nothing is running or waiting to run at this instant of the clock.
func (b *bench) idle() bool {
	b.Scheduler.mu.Lock()
	defer b.Scheduler.mu.Unlock()
	for _, j := range b.jobs {
		if j.busy || !j.at.After(b.clock.Now()) {
			return false
		}
	}
	return true
}

func until(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !condition(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// run lets the clock go on in steps and returns the instants of collections of the metric, in seconds since the start.
func (b *bench) run(t testing.TB, metric string, total, step time.Duration) []float64 {
	t.Helper()
	for passed := time.Duration(0); ; passed += step {
		until(t, "the scheduler to be idle", b.idle)
		if passed >= total {
			break
		}
		b.clock.Step(step)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	var at []float64
	for _, r := range b.results {
		if r.Query.Metric == metric {
			at = append(at, r.Taken.Sub(start).Seconds())
		}
	}
	return at
}

func query(metric string, interval time.Duration) sample.Query {
	return sample.Query{Kind: sample.External, Namespace: "shop", Metric: metric, Collector: "fake", Interval: interval}
}

func value(context.Context, sample.Query) ([]sample.Point, error) {
	return []sample.Point{{Milli: 1000}}, nil
}

func TestInstantsOfCollection(t *testing.T) {
	boom := errors.New("boom")
	calls := 0
	tests := map[string]struct {
		source   source
		random   float64
		interval time.Duration
		total    time.Duration
		want     []float64
	}{
		"at once, then every interval":              {source{collect: value}, 1, 15 * time.Second, 46 * time.Second, []float64{0, 15, 30, 45}},
		"the first interval is shortened to spread": {source{collect: value}, 0.2, 10 * time.Second, 30 * time.Second, []float64{0, 6, 16, 26}},
		"a source that never had a value is asked again soon, then less and less": {source{collect: func(context.Context, sample.Query) ([]sample.Point, error) { return nil, boom }},
			0, 15 * time.Second, 200 * time.Second, []float64{0, 0.1, 0.3, 0.7, 1.5, 3.1, 6.3, 12.7, 25.5, 51.1, 102.3, 162.3}},
		"a source that worked and fails backs off from its interval to a minute": {source{collect: func(context.Context, sample.Query) ([]sample.Point, error) {
			if calls++; calls == 1 {
				return value(t.Context(), sample.Query{})
			}
			return nil, boom
		}}, 0, 20 * time.Second, 200 * time.Second, []float64{0, 10, 30, 70, 130, 190}},
		"no data after a value is an answer, not a failure": {source{collect: func(context.Context, sample.Query) ([]sample.Point, error) {
			if calls++; calls == 1 {
				return value(t.Context(), sample.Query{})
			}
			return nil, sample.ErrNoData
		}}, 1, 15 * time.Second, 46 * time.Second, []float64{0, 15, 30, 45}},
		"no data before the first value is asked for again soon, then every interval": {source{collect: func(context.Context, sample.Query) ([]sample.Point, error) { return nil, sample.ErrNoData }},
			0, 3 * time.Second, 10 * time.Second, []float64{0, 0.1, 0.3, 0.7, 1.5, 3.1, 6.1, 9.1}},
		"no data of a source that knows when it changes is asked for then": {source{collect: func(context.Context, sample.Query) ([]sample.Point, error) { return nil, sample.ErrNoData },
			change: func(now time.Time) time.Time { return start.Add(8 * time.Second) }}, 1, 5 * time.Second, 15 * time.Second, []float64{0, 5, 8, 13}},
		"a long interval is not shortened by failures after the first minute": {source{collect: func(context.Context, sample.Query) ([]sample.Point, error) { return nil, boom }},
			0, 5 * time.Minute, 220 * time.Second, []float64{0, 0.1, 0.3, 0.7, 1.5, 3.1, 6.3, 12.7, 25.5, 51.1, 102.3, 204.7}},
		"a source that knows when it changes is asked then": {source{collect: value, change: func(now time.Time) time.Time {
			return start.Add(now.Sub(start).Truncate(7*time.Second) + 7*time.Second)
		}}, 1, time.Minute, 21 * time.Second, []float64{0, 7, 14, 21}},
		"an instant in the past is no instant": {source{collect: value, change: func(now time.Time) time.Time { return now }}, 1, 10 * time.Second, 20 * time.Second, []float64{0, 10, 20}},
		"instants that are too near make no hot loop": {source{collect: value, change: func(now time.Time) time.Time { return now.Add(time.Nanosecond) }},
			1, time.Minute, 300 * time.Millisecond, []float64{0, 0.1, 0.2, 0.3}},
		"a source that panics when asked for its next instant keeps its interval": {source{collect: value, change: func(time.Time) time.Time { panic("x") }}, 1, 10 * time.Second, 20 * time.Second, []float64{0, 10, 20}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			calls = 0
			b := newBench(t, &tt.source, func(o *Options) { o.Random = func() float64 { return tt.random } })
			b.want(query("m", tt.interval))
			step := 100 * time.Millisecond
			if tt.total < time.Second {
				step = 10 * time.Millisecond
			}
			if diff := cmp.Diff(tt.want, b.run(t, "m", tt.total, step)); diff != "" {
				t.Errorf("collected at (-want +got):\n%s", diff)
			}
		})
	}
}

func TestOutcomesAreReportedAndCounted(t *testing.T) {
	boom := errors.New("connection refused")
	registry := prometheus.NewRegistry()
	b := newBench(t, &source{collect: func(ctx context.Context, q sample.Query) ([]sample.Point, error) {
		switch q.Metric {
		case "bad":
			return nil, boom
		case "none":
			return nil, sample.ErrNoData
		case "panics":
			panic("nil map")
		case "some":
			return []sample.Point{{Pod: "a"}}, boom
		case "hangs":
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return value(ctx, q)
	}}, func(o *Options) { o.Registerer, o.Deadline = registry, 10*time.Millisecond })
	some := query("some", time.Hour)
	some.Kind = sample.Pods
	for _, q := range []sample.Query{query("good", time.Hour), query("bad", time.Hour), query("none", time.Hour), query("panics", time.Hour),
		query("hangs", time.Hour), query("cannot-open", time.Hour), some} {
		b.want(q)
	}
	if err := b.Warm(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	slices.Sort(b.reports)
	want := []string{
		"bad 0 connection refused",
		`cannot-open 0 collector "fake": unknown region`,
		"good 1 <nil>",
		"hangs 0 no answer within 10ms: context deadline exceeded",
		"none 0 the source has no value now",
		`panics 0 collector "fake" failed unexpectedly: nil map`,
		"some 1 connection refused",
	}
	if diff := cmp.Diff(want, b.reports); diff != "" {
		t.Errorf("reports (-want +got):\n%s", diff)
	}
	err := testutil.GatherAndCompare(registry, strings.NewReader(`
# HELP kubetide_collections_total Collections that have ended. Labeled by collector, namespace and result: success, partial, no_data, or the kind of the failure.
# TYPE kubetide_collections_total counter
kubetide_collections_total{collector="fake",namespace="shop",result="error"} 2
kubetide_collections_total{collector="fake",namespace="shop",result="no_data"} 1
kubetide_collections_total{collector="fake",namespace="shop",result="panic"} 1
kubetide_collections_total{collector="fake",namespace="shop",result="partial"} 1
kubetide_collections_total{collector="fake",namespace="shop",result="success"} 1
kubetide_collections_total{collector="fake",namespace="shop",result="timeout"} 1
# HELP kubetide_queries Distinct queries that are collected. Labeled by collector.
# TYPE kubetide_queries gauge
kubetide_queries{collector="fake"} 7
`), "kubetide_collections_total", "kubetide_queries")
	if err != nil {
		t.Error(err)
	}
}

func TestHangingSourcesDoNotHoldUpOthers(t *testing.T) {
	release := make(chan struct{})
	var hanging, most atomic.Int64
	b := newBench(t, &source{collect: func(ctx context.Context, q sample.Query) ([]sample.Point, error) {
		if q.Namespace == "slow" {
			n := hanging.Add(1)
			defer hanging.Add(-1)
			for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
			}
			select {
			case <-release:
			case <-ctx.Done():
			}
			return nil, errors.New("late")
		}
		return value(ctx, q)
	}}, nil)
	for i := range 1000 {
		q := query(fmt.Sprint(i), time.Minute)
		q.Namespace = "slow"
		b.want(q)
	}
	until(t, "the slow namespace to fill its share", func() bool { return hanging.Load() == fastPerNamespace })
	for i := range 100 {
		b.want(query(fmt.Sprint(i), time.Minute))
	}
	until(t, "the others to be collected", func() bool { return b.count() == 100 })
	until(t, "the others to be warm", func() bool {
		b.Scheduler.mu.Lock()
		defer b.Scheduler.mu.Unlock()
		return b.cold == 1000
	})
	if err := b.Warm(expired(t)); err == nil || !strings.Contains(err.Error(), "1000 metrics are still waiting") {
		t.Errorf("Warm said %v while 1000 metrics wait", err)
	}
	close(release)
	until(t, "the slow ones to end", func() bool { return b.count() == 1100 })
	if most.Load() > fastPerNamespace {
		t.Errorf("%d collections of one namespace ran at once, more than %d", most.Load(), fastPerNamespace)
	}
}

// Nobody knows at a start which sources hang.
func TestManyNamespacesThatHangAtFirstDoNotHoldUpOthers(t *testing.T) {
	var hanging atomic.Int64
	b := newBench(t, &source{collect: func(ctx context.Context, q sample.Query) ([]sample.Point, error) {
		if q.Namespace == "shop" {
			return value(ctx, q)
		}
		hanging.Add(1)
		defer hanging.Add(-1)
		<-ctx.Done()
		return nil, ctx.Err()
	}}, nil)
	const all = hangingLimit + fastLimit
	for i := range 2 * all {
		q := query(fmt.Sprint(i), time.Minute)
		q.Namespace = fmt.Sprint("slow-", i%(2*hangingLimit/hangingPerNamespace))
		b.want(q)
	}
	until(t, "the pool to be full", func() bool { return hanging.Load() == fastLimit })
	b.want(query("mine", time.Minute))
	for n := int64(fastLimit); n < all; {
		b.clock.Step(slowAfter)
		n += fastLimit
		until(t, "those that hang to make room for the next", func() bool { return hanging.Load() == n })
	}
	until(t, "the neighbor to be collected", func() bool { return b.count() == 1 })
	b.clock.Step(slowAfter)
	until(t, "the loop to turn", func() bool { return b.beat.Load().Equal(b.clock.Now()) })
	if n := hanging.Load(); n > all {
		t.Errorf("%d collections hang at once", n)
	}
}

func TestOneNamespaceThatHangsTakesItsShareOnly(t *testing.T) {
	hanging := newPool(hangingLimit, hangingPerNamespace)
	in := func(namespace string) *job { return &job{query: sample.Query{Namespace: namespace}} }
	for range hangingPerNamespace {
		if !hanging.adopt(in("greedy")) {
			t.Fatal("there is no room for its share")
		}
	}
	if hanging.adopt(in("greedy")) || !hanging.adopt(in("modest")) {
		t.Error("it takes more than its share")
	}
}

func expired(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

func TestSlowQueriesMoveToTheirOwnPool(t *testing.T) {
	var b *bench
	b = newBench(t, &source{collect: func(ctx context.Context, q sample.Query) ([]sample.Point, error) {
		if q.Metric == "slow" && b.clock.Now().Equal(start) {
			b.clock.Step(10 * time.Second)
		}
		return value(ctx, q)
	}}, nil)
	b.want(query("slow", 15*time.Second))
	isSlow := func() bool {
		b.Scheduler.mu.Lock()
		defer b.Scheduler.mu.Unlock()
		return b.jobs[query("slow", 15*time.Second)].slow
	}
	until(t, "the first collection", func() bool { return b.count() == 1 && b.idle() })
	if !isSlow() {
		t.Error("a collection of 10 s out of 15 s is not slow")
	}
	b.clock.Step(5 * time.Second)
	until(t, "the second collection", func() bool { return b.count() == 2 && b.idle() })
	if isSlow() {
		t.Error("a collection of no time is slow")
	}
}

// Who stood still may have asked the source at the end of that time, after others did whose samples are there already.
func TestWhatComesLongAfterTheDeadlineIsNotTaken(t *testing.T) {
	for _, tt := range []struct {
		took  time.Duration
		taken bool
	}{{10 * time.Second, true}, {10*time.Second + stoodStill, true}, {11*time.Second + stoodStill, false}} {
		var b *bench
		b = newBench(t, &source{collect: func(ctx context.Context, q sample.Query) ([]sample.Point, error) {
			b.clock.Step(tt.took)
			return value(ctx, q)
		}}, nil)
		b.want(query("m", 10*time.Second))
		until(t, "the first collection", func() bool { return b.count() > 0 })
		b.mu.Lock()
		r := b.results[0]
		b.mu.Unlock()
		if taken := r.Err == nil && len(r.Points) == 1; taken != tt.taken || !tt.taken && len(r.Points) > 0 {
			t.Errorf("after %s: %v, %v", tt.took, r.Points, r.Err)
		}
	}
}

func TestRemovedQueriesStopAtOnce(t *testing.T) {
	running := make(chan struct{})
	b := newBench(t, &source{collect: func(ctx context.Context, q sample.Query) ([]sample.Point, error) {
		close(running)
		<-ctx.Done()
		return nil, ctx.Err()
	}}, nil)
	q := query("m", time.Minute)
	b.want(q)
	<-running
	b.Remove(q)
	b.Remove(q)
	if err := b.Warm(t.Context()); err != nil {
		t.Error("a removed query holds up Warm")
	}
	until(t, "the collection to end", func() bool {
		b.Scheduler.mu.Lock()
		defer b.Scheduler.mu.Unlock()
		return b.pools[0].running == 0
	})
	if n := b.count(); n != 0 {
		t.Errorf("%d results of a removed query", n)
	}
}

func TestRecollect(t *testing.T) {
	b := newBench(t, &source{collect: value}, nil)
	b.want(query("a", time.Minute))
	b.want(query("b", time.Minute))
	b.run(t, "a", time.Second, time.Second)
	b.Recollect(func(q sample.Query) bool { return q.Metric == "b" })
	if diff := cmp.Diff([]float64{0, 1, 61}, b.run(t, "b", 60*time.Second, time.Second)); diff != "" {
		t.Errorf("b collected at (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]float64{0, 60}, b.run(t, "a", 0, time.Second)); diff != "" {
		t.Errorf("a collected at (-want +got):\n%s", diff)
	}
}

func TestOneQueryCanBeCollectedNow(t *testing.T) {
	b := newBench(t, &source{collect: value}, nil)
	b.want(query("a", time.Minute))
	b.want(query("b", time.Minute))
	b.run(t, "a", 2*time.Second, time.Second)
	b.Collect(query("a", time.Minute))
	b.Collect(query("unknown", time.Minute))
	if diff := cmp.Diff([]float64{0, 2}, b.run(t, "a", time.Second, time.Second)); diff != "" {
		t.Errorf("collected at (-want +got):\n%s", diff)
	}
	if n := len(b.run(t, "b", 0, time.Second)); n != 1 {
		t.Errorf("the other query was collected %d times", n)
	}
}

func TestPoolsForgetNamespaces(t *testing.T) {
	p := newPool(1, 1)
	in := func(namespace string) *job { return &job{query: sample.Query{Namespace: namespace}} }
	runs, waits := in("a"), in("b")
	p.enqueue(runs)
	if p.next() != runs {
		t.Fatal("the job does not run")
	}
	p.enqueue(waits)
	waits.removed = true
	p.done(runs)
	if p.next() != nil {
		t.Error("a removed job runs")
	}
	if len(p.lanes) != 0 {
		t.Errorf("%d namespaces are kept", len(p.lanes))
	}
}

func TestRecollectWhileRunningCollectsOnceMore(t *testing.T) {
	running, release := make(chan struct{}), make(chan struct{})
	var calls atomic.Int64
	b := newBench(t, &source{collect: func(ctx context.Context, q sample.Query) ([]sample.Point, error) {
		if calls.Add(1) == 1 {
			close(running)
			<-release
		}
		return value(ctx, q)
	}}, nil)
	b.want(query("m", time.Minute))
	<-running
	for range 5 {
		b.Recollect(func(sample.Query) bool { return true })
	}
	close(release)
	until(t, "the first collection", func() bool { return b.count() == 1 })
	if diff := cmp.Diff([]float64{0, 0.1}, b.run(t, "m", time.Second, 50*time.Millisecond)); diff != "" {
		t.Errorf("collected at (-want +got):\n%s", diff)
	}
}

type fixedScale struct {
	replicas int32
	err      error
}

func (f fixedScale) Scale(context.Context, string, sample.ObjectRef) (collectors.Scale, error) {
	return collectors.Scale{StatusReplicas: f.replicas}, f.err
}

func TestPerReplica(t *testing.T) {
	tests := map[string]struct {
		scale fixedScale
		want  int64
		err   string
	}{
		"the value is divided by the replicas":  {fixedScale{replicas: 5}, 200_000, ""},
		"no replicas make no value, and say so": {fixedScale{replicas: 0}, 0, "Deployment.apps/cart has no replicas to divide by"},
		"a warning stays beside the quotient":   {fixedScale{replicas: 10}, 100_000, ""},
		"an unknown target makes no value":      {fixedScale{err: errors.New("not found")}, 0, "per-replica: not found"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var warning error
			if strings.Contains(name, "warning") {
				warning = &collectors.Warning{Err: errors.New("several series")}
			}
			b := newBench(t, &source{collect: func(context.Context, sample.Query) ([]sample.Point, error) {
				return []sample.Point{{Milli: 1_000_000}}, warning
			}}, func(o *Options) { o.Scales = tt.scale })
			q := query("m", time.Minute)
			q.PerReplica, q.Target = true, sample.ObjectRef{Group: "apps", Kind: "Deployment", Name: "cart"}
			b.want(q)
			until(t, "a result", func() bool { return b.count() == 1 })
			until(t, "the report", func() bool {
				b.mu.Lock()
				defer b.mu.Unlock()
				return len(b.reports) == 1
			})
			b.mu.Lock()
			defer b.mu.Unlock()
			r := b.results[0]
			if warning != nil && b.reports[0] != "m 1 several series" {
				t.Errorf("reported: %s", b.reports[0])
			}
			if tt.err != "" {
				if r.Err == nil || !strings.Contains(r.Err.Error(), tt.err) || len(r.Points) > 0 {
					t.Errorf("%v, %v; want %q", r.Points, r.Err, tt.err)
				}
			} else if r.Err != nil || r.Points[0].Milli != tt.want {
				t.Errorf("%v, %v; want %d", r.Points, r.Err, tt.want)
			}
		})
	}
}

func TestHealthTellsWhenTheLoopStands(t *testing.T) {
	s := New(Options{Clock: clocktesting.NewFakeClock(start)})
	if err := s.Healthy(); err != nil {
		t.Errorf("before Run: %v", err)
	}
	beat := start.Add(-time.Minute)
	s.beat.Store(&beat)
	if err := s.Healthy(); err == nil || !strings.Contains(err.Error(), "has not turned for 1m0s") {
		t.Errorf("a minute after the last turn: %v", err)
	}
}

// What one collection costs beside the source's own work, at 10,000 queries.
func BenchmarkCollection(b *testing.B) {
	const n = 10_000
	var collected sync.WaitGroup
	registry := collectors.NewRegistry()
	registry.Register(sample.External, &source{collect: value}, "fake")
	fake := clocktesting.NewFakeClock(start)
	s := New(Options{Registry: registry, Clock: fake, Log: logr.Discard(), Random: func() float64 { return 1 },
		Insert: func(sample.Result) bool { collected.Done(); return true }})
	ctx, cancel := context.WithCancel(b.Context())
	collected.Add(n)
	for i := range n {
		q := query(fmt.Sprint(i), 15*time.Second)
		q.Namespace = fmt.Sprint("ns-", i%100)
		s.Add(q)
	}
	done := make(chan struct{})
	go func() { defer close(done); s.Run(ctx) }()
	collected.Wait()
	var before, after syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &before)
	for b.Loop() {
		until(b, "all to be scheduled again", func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			return len(s.due) == n
		})
		collected.Add(n)
		fake.Step(15 * time.Second)
		collected.Wait()
	}
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &after)
	used := (after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano())
	b.ReportMetric(float64(used)/float64(b.N)/n, "cpu-ns/collection")
	b.ReportMetric(float64(used)/float64(b.N)/15e9*100, "%core@15s")
	cancel()
	<-done
}

// How old values get with many queries, slow answers and failures: real time, 1,000 queries each second.
func BenchmarkAge(b *testing.B) {
	const n = 1_000
	var mu sync.Mutex
	last := map[sample.Query]time.Time{}
	var ages []time.Duration
	registry := collectors.NewRegistry()
	registry.Register(sample.External, &source{collect: func(ctx context.Context, q sample.Query) ([]sample.Point, error) {
		timer := time.NewTimer(50 * time.Millisecond)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		return value(ctx, q)
	}}, "fake")
	s := New(Options{Registry: registry, Clock: clock.RealClock{}, Log: logr.Discard(), Random: rand.Float64, Insert: func(r sample.Result) bool {
		mu.Lock()
		defer mu.Unlock()
		if before, ok := last[r.Query]; ok {
			ages = append(ages, time.Since(before))
		}
		last[r.Query] = r.Taken
		return true
	}})
	ctx, cancel := context.WithCancel(b.Context())
	for i := range n {
		q := query(fmt.Sprint(i), time.Second)
		q.Namespace = fmt.Sprint("ns-", i%20)
		s.Add(q)
	}
	done := make(chan struct{})
	go func() { defer close(done); s.Run(ctx) }()
	for b.Loop() {
		mu.Lock()
		from := len(ages)
		mu.Unlock()
		until(b, "two rounds", func() bool {
			time.Sleep(time.Millisecond)
			mu.Lock()
			defer mu.Unlock()
			return len(ages) >= from+2*n
		})
	}
	cancel()
	<-done
	slices.Sort(ages)
	b.ReportMetric(float64(ages[len(ages)/2].Milliseconds()), "p50-age-ms")
	b.ReportMetric(float64(ages[len(ages)*99/100].Milliseconds()), "p99-age-ms")
}
