// Package collection asks each wanted query's source again and again and hands the results to the store. It decides when
// (interval, jitter, back-off, a source's own instants) and how many at a time; it knows neither HPAs nor the metrics APIs.
// In a cluster it asks whose turn it is.
//
// One loop holds the instants in a heap and starts a goroutine for each collection that is due. Sources that hang cannot
// starve the others: a query whose last collection was slow waits in a pool of its own, and in each pool a namespace has
// a limited share.
package collection

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/utils/clock"

	"github.com/kubetide/kubetide/collectors"
	"github.com/kubetide/kubetide/internal/sample"
)

const (
	// DefaultDeadline is how long one collection may take, if its interval is not shorter.
	DefaultDeadline = 15 * time.Second
	// stoodStill is how far beyond its deadline a collection ends only where the process stood still meanwhile, or a collector heeds no context.
	stoodStill = time.Second

	// Collections that run at once. Each is a goroutine that waits, so the limits guard memory and sockets, not CPU.
	fastLimit, fastPerNamespace = 512, 128
	slowLimit, slowPerNamespace = 128, 16

	// maxBackOff is the longest time between two collections of a failing source whose interval is shorter.
	maxBackOff = time.Minute
	// firstRetry is the time until a source that never had a value is asked again; it doubles each time. It is short because
	// an HPA is often seen before its workload is.
	firstRetry = 100 * time.Millisecond
	// slowAfter is how long a collection has a place in the first pool. At a start, and when a source that many ask begins to
	// hang, nobody could tell before which ones are slow. Then it has one of the places of those that hang, as far as there are.
	slowAfter                         = time.Second
	hangingLimit, hangingPerNamespace = 2048, 128
	// minGap keeps a source's own instants and requests from outside from making a hot loop.
	minGap = 100 * time.Millisecond
	// heartbeat is how often the loop turns when nothing is due.
	heartbeat = 5 * time.Second
)

// Options are what a Scheduler needs.
type Options struct {
	Registry *collectors.Registry
	Scales   collectors.Scales
	// Insert stores a result; it is false if nobody asks for it any more.
	Insert func(sample.Result) bool
	// Report is told the outcome of each collection that Insert has taken. It must not block. May be nil.
	Report func(sample.Result)
	// Turn is asked when a query is due: whether to collect it now, and if not, when to ask again. It is called from one goroutine
	// that holds no lock, and must not block. Nil always collects.
	Turn func(q sample.Query) (collect bool, next time.Time)
	// Clock is the real one if nil.
	Clock clock.Clock
	// Deadline is DefaultDeadline if 0.
	Deadline time.Duration
	// Random gives numbers from 0 to 1 for jitter; math/rand's if nil.
	Random func() float64
	// Registerer takes the metrics; none if nil.
	Registerer prometheus.Registerer
	Log        logr.Logger
}

// Scheduler collects.
type Scheduler struct {
	Options
	metrics *metrics
	wake    chan struct{}
	beat    atomic.Pointer[time.Time]
	running sync.WaitGroup

	mu      sync.Mutex
	ctx     context.Context // of Run; nil before and after it
	jobs    map[sample.Query]*job
	due     dueHeap
	asked   uint64 // how often Reconsider was called
	pools   [2]*pool
	hanging *pool         // nothing starts in it
	fast    []run         // those that began in the first pool up to slowAfter ago, the oldest first; some have ended
	cold    int           // jobs that are not warm
	allWarm chan struct{} // closed when cold becomes 0
}

// job is one query. All fields but query and collector are guarded by the scheduler's lock.
type job struct {
	query     sample.Query
	collector collectors.Collector

	at       time.Time // when it is due; position >= 0 while it is in the heap
	position int
	busy     bool // its turn is being asked for, it waits for a pool, or it runs
	again    bool // asked for while busy
	declined bool // it was not its turn, and it has not been since
	removed  bool
	cancel   context.CancelFunc

	started  time.Time
	pool     *pool // that the running collection counts in; nil if none runs
	warm     bool  // its first collection has ended, or it was not its turn
	worked   bool  // it had a value once
	spread   bool  // its phase has been set
	slow     bool  // its last collection took more than half of its time
	failures int   // in a row; before the first value, having none counts as one
	noData   bool  // the last failure was sample.ErrNoData
}

// run is one collection.
type run struct {
	job     *job
	started time.Time
}

// New returns a Scheduler that does nothing until Run.
func New(o Options) *Scheduler {
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	if o.Deadline == 0 {
		o.Deadline = DefaultDeadline
	}
	if o.Random == nil {
		o.Random = rand.Float64
	}
	s := &Scheduler{Options: o, wake: make(chan struct{}, 1), jobs: map[sample.Query]*job{}, allWarm: make(chan struct{}),
		pools: [2]*pool{newPool(fastLimit, fastPerNamespace), newPool(slowLimit, slowPerNamespace)}, hanging: newPool(hangingLimit, hangingPerNamespace)}
	s.metrics = newMetrics(o.Registerer)
	return s
}

// Add begins to collect the query, at once. The store must accept its results already. A query that cannot be opened is
// collected like one whose source fails.
func (s *Scheduler) Add(q sample.Query) {
	collector, err := s.open(q)
	if err != nil {
		collector = broken{err}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.jobs[q] != nil {
		return
	}
	j := &job{query: q, collector: collector, position: -1}
	s.jobs[q] = j
	s.metrics.added(q)
	s.cold++
	s.schedule(j, s.Clock.Now())
}

// Remove stops collecting the query, also a collection that is running.
func (s *Scheduler) Remove(q sample.Query) {
	s.mu.Lock()
	defer s.mu.Unlock()
	j := s.jobs[q]
	if j == nil {
		return
	}
	delete(s.jobs, q)
	s.metrics.removed(q)
	j.removed = true
	if j.position >= 0 {
		heap.Remove(&s.due, j.position)
	}
	if j.cancel != nil {
		j.cancel()
	}
	s.warmed(j)
}

// Recollect collects the queries that match now, because something that they depend on has changed.
func (s *Scheduler) Recollect(match func(sample.Query) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, j := range s.jobs {
		if match(j.query) {
			s.hasten(j)
		}
	}
}

// Reconsider asks Turn again for the queries whose turn it was not, because who has which turn may have changed.
func (s *Scheduler) Reconsider() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	now := s.Clock.Now()
	for _, j := range s.jobs {
		if j.declined && !j.busy {
			s.schedule(j, now)
		}
	}
}

// Works tells that another server had an answer from the query's source. What this one failed at may have been its own fault, so its
// back-off ends: while it is off, nobody has the query's first place, and who comes next waits out its patience when another server goes.
func (s *Scheduler) Works(q sample.Query) {
	s.mu.Lock()
	defer s.mu.Unlock()
	j := s.jobs[q]
	if j == nil || j.failures == 0 {
		return
	}
	j.failures, j.worked = 0, true
	if at := latest(s.soonest(j), j.started.Add(q.Interval)); !j.busy && at.Before(j.at) {
		s.schedule(j, at)
	}
}

// Collect collects one query now.
func (s *Scheduler) Collect(q sample.Query) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if j := s.jobs[q]; j != nil {
		s.hasten(j)
	}
}

// hasten makes the job due now, or once more when it ends. s.mu is held.
func (s *Scheduler) hasten(j *job) {
	if j.busy {
		j.again = true
	} else {
		s.schedule(j, s.soonest(j))
	}
}

// Warm waits until every query that has been added was collected once, with or without success, or was not to be collected here.
func (s *Scheduler) Warm(ctx context.Context) error {
	for {
		s.mu.Lock()
		if s.cold == 0 {
			s.mu.Unlock()
			return nil
		}
		allWarm, left := s.allWarm, s.cold
		s.mu.Unlock()
		select {
		case <-allWarm:
		case <-ctx.Done():
			return fmt.Errorf("%d metrics are still waiting for their first collection: %w", left, ctx.Err())
		}
	}
}

// Healthy says whether the loop turns.
func (s *Scheduler) Healthy() error {
	if beat := s.beat.Load(); beat != nil {
		if age := s.Clock.Since(*beat); age > 6*heartbeat {
			return fmt.Errorf("the collection loop has not turned for %s", age.Round(time.Second))
		}
	}
	return nil
}

// Run collects until ctx ends, and returns when no collection is running any more.
func (s *Scheduler) Run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer s.running.Wait()
	defer cancel()
	timer := s.Clock.NewTimer(0)
	defer timer.Stop()
	s.mu.Lock()
	s.ctx = ctx
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.ctx = nil
		s.mu.Unlock()
	}()
	for ctx.Err() == nil {
		now := s.Clock.Now()
		s.beat.Store(&now)
		s.mu.Lock()
		var due []*job
		for len(s.due) > 0 && !s.due[0].at.After(now) {
			j := heap.Pop(&s.due).(*job)
			j.busy = true
			due = append(due, j)
		}
		if s.Turn != nil {
			due = s.turns(due)
		}
		for _, j := range due {
			s.metrics.lag.Observe(now.Sub(j.at).Seconds())
			s.pool(j).enqueue(j)
		}
		s.moveHanging(now)
		s.start()
		wait := heartbeat
		if len(s.fast) > 0 {
			wait = min(wait, s.fast[0].started.Add(slowAfter).Sub(now))
		}
		if len(s.due) > 0 {
			wait = min(wait, s.due[0].at.Sub(now))
		}
		s.mu.Unlock()
		timer.Stop()
		select {
		case <-timer.C(): // a clock of the tests would wait for ever to fire again
		default:
		}
		timer.Reset(wait)
		if s.Clock.Since(now) > time.Millisecond {
			continue // this turn took its time, so the timer would be late
		}
		select {
		case <-ctx.Done():
			return
		case <-timer.C():
		case <-s.wake:
		}
	}
}

// turns returns the jobs whose turn it is, and makes the others wait. s.mu is held, but not while Turn is asked.
func (s *Scheduler) turns(due []*job) []*job {
	asked := s.asked
	next := make([]time.Time, len(due)) // zero for those whose turn it is
	s.mu.Unlock()
	for i, j := range due {
		if collect, at := s.Turn(j.query); !collect {
			next[i] = latest(at, s.Clock.Now().Add(minGap))
		}
	}
	s.mu.Lock()
	mine := due[:0]
	for i, j := range due {
		switch {
		case next[i].IsZero():
			j.declined = false
			mine = append(mine, j)
		case j.removed:
		default:
			if asked != s.asked {
				next[i] = s.Clock.Now()
			}
			// Whoever collects it gives it its phase, and its answer will come from there.
			j.busy, j.again, j.declined, j.spread = false, false, true, true
			s.warmed(j)
			s.schedule(j, next[i])
		}
	}
	return mine
}

// start starts what the pools have room for. s.mu is held.
func (s *Scheduler) start() {
	if s.ctx == nil {
		return
	}
	for _, p := range s.pools {
		for j := p.next(); j != nil; j = p.next() {
			ctx, cancel := context.WithTimeout(s.ctx, min(s.Deadline, j.query.Interval))
			j.cancel, j.started, j.pool = cancel, s.Clock.Now(), p
			if p == s.pools[0] {
				s.fast = append(s.fast, run{j, j.started})
			}
			started, running := j.started, s.metrics.running.WithLabelValues(j.query.Collector)
			running.Inc()
			s.running.Go(func() {
				defer running.Dec()
				defer cancel()
				s.collect(ctx, j, started)
			})
		}
	}
}

// moveHanging takes the collections that have been running for slowAfter out of the first pool. s.mu is held.
func (s *Scheduler) moveHanging(now time.Time) {
	for len(s.fast) > 0 {
		r := s.fast[0]
		if r.job.pool == s.pools[0] && r.job.started.Equal(r.started) { // it is still running
			if now.Sub(r.started) < slowAfter {
				return
			}
			if s.hanging.adopt(r.job) {
				s.pools[0].done(r.job)
				r.job.pool = s.hanging
			}
		}
		s.fast[0] = run{}
		s.fast = s.fast[1:]
	}
}

func (s *Scheduler) collect(ctx context.Context, j *job, started time.Time) {
	points, err := s.ask(ctx, j)
	took, deadline := s.Clock.Since(started), min(s.Deadline, j.query.Interval)
	late := err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded)
	switch {
	case took > deadline+stoodStill:
		// The source may have been asked at the end of that, or its answer is as old.
		points, err, late = nil, fmt.Errorf("no answer within %s, and what came after %s is not taken", deadline, took.Round(time.Millisecond)), true
	case late:
		err = fmt.Errorf("no answer within %s: %w", deadline, err)
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		s.finish(j, started, took, nil, false)
		return
	}
	var warning error
	if len(points) > 0 && collectors.IsWarning(err) {
		warning, err = err, nil
	}
	s.metrics.observe(j.query, took, len(points), err, late)
	if r := (sample.Result{Query: j.query, Taken: started, Points: points, Err: err, Warning: warning}); s.Insert(r) && s.Report != nil {
		s.Report(r)
	}
	if len(points) > 0 && (j.query.Kind == sample.Pods || j.query.Kind == sample.Resource) {
		err = nil // some pods answered; the source works
	}
	s.finish(j, started, took, err, true)
}

// ask keeps a panic in one collector from stopping the others.
func (s *Scheduler) ask(ctx context.Context, j *job) (points []sample.Point, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			s.Log.Error(fmt.Errorf("%v", cause), "A collector panicked", "collector", j.query.Collector, "namespace", j.query.Namespace,
				"metric", j.query.Metric, "stack", string(debug.Stack()))
			points, err = nil, &panicError{collector: j.query.Collector, cause: cause}
		}
	}()
	return j.collector.Collect(ctx)
}

type panicError struct {
	collector string
	cause     any
}

func (e *panicError) Error() string {
	return fmt.Sprintf("collector %q failed unexpectedly: %v", e.collector, e.cause)
}

// finish notes the outcome and sets the next instant.
func (s *Scheduler) finish(j *job, started time.Time, took time.Duration, err error, counts bool) {
	change := s.nextChange(j, started)
	s.mu.Lock()
	defer s.mu.Unlock()
	j.pool.done(j)
	j.busy, j.cancel, j.pool = false, nil, nil
	if counts {
		s.warmed(j)
		j.noData = errors.Is(err, sample.ErrNoData)
		_, timed := j.collector.(collectors.Timed)
		switch {
		case err == nil:
			j.failures, j.worked = 0, true
		case j.noData && (j.worked || timed):
			j.failures = 0
		default:
			j.failures++
		}
		j.slow = took > min(s.Deadline, j.query.Interval)/2
	}
	if !j.removed {
		at := started.Add(s.delay(j))
		if !change.IsZero() && change.Before(at) {
			at = change
		}
		if soonest := s.soonest(j); j.again || at.Before(soonest) {
			at = soonest
		}
		j.again = false
		s.schedule(j, at)
	}
	s.start()
}

// nextChange is the instant that the source itself names, on the monotonic clock. It is asked outside the lock.
func (s *Scheduler) nextChange(j *job, started time.Time) (at time.Time) {
	timed, ok := j.collector.(collectors.Timed)
	if !ok {
		return time.Time{}
	}
	defer func() {
		if recover() != nil {
			at = time.Time{} // Collect's own panic has been reported
		}
	}()
	if change := timed.NextChange(started); change.After(started) {
		return started.Add(change.Sub(started))
	}
	return time.Time{}
}

// soonest is the earliest instant at which the job may start again.
func (s *Scheduler) soonest(j *job) time.Time { return latest(s.Clock.Now(), j.started.Add(minGap)) }

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// delay is the time from the start of the last collection to that of the next.
func (s *Scheduler) delay(j *job) time.Duration {
	interval := j.query.Interval
	if j.failures == 0 {
		if !j.spread {
			j.spread = true
			// Queries that were added together spread out; a value never gets older than the interval.
			return time.Duration(float64(interval) * (1 + s.Random()) / 2)
		}
		return interval
	}
	doubled := func(d time.Duration) time.Duration { return d << min(j.failures-1, 10) }
	longest := max(interval, maxBackOff)
	if j.noData {
		longest = interval // it is an answer
	}
	var d time.Duration
	if j.worked {
		d = max(interval, min(doubled(interval), longest))
	} else {
		d = min(doubled(firstRetry), longest)
	}
	if j.failures > 1 {
		d -= time.Duration(float64(d) * s.Random() / 10)
	}
	return d
}

// schedule makes the job due at the instant. s.mu is held.
func (s *Scheduler) schedule(j *job, at time.Time) {
	j.at = at
	if j.position >= 0 {
		heap.Fix(&s.due, j.position)
	} else {
		heap.Push(&s.due, j)
	}
	if s.due[0] == j {
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}

// warmed notes that the job does not hold up Warm any more. s.mu is held.
func (s *Scheduler) warmed(j *job) {
	if j.warm {
		return
	}
	j.warm = true
	if s.cold--; s.cold == 0 {
		close(s.allWarm)
		s.allWarm = make(chan struct{})
	}
}

func (s *Scheduler) pool(j *job) *pool {
	if j.slow {
		return s.pools[1]
	}
	return s.pools[0]
}

func (s *Scheduler) open(q sample.Query) (collectors.Collector, error) {
	source, err := s.Registry.Named(q.Kind, q.Collector)
	if err != nil {
		return nil, err
	}
	collector, err := source.Open(q)
	if err != nil {
		return nil, fmt.Errorf("collector %q: %w", q.Collector, err)
	}
	if q.PerReplica {
		return perReplica(collector, q, s.Scales), nil
	}
	return collector, nil
}

// broken stands for a collector that could not be opened.
type broken struct{ err error }

func (b broken) Collect(context.Context) ([]sample.Point, error) { return nil, b.err }

// dueHeap orders jobs by their instants.
type dueHeap []*job

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].position, h[j].position = i, j
}

func (h *dueHeap) Push(x any) {
	j := x.(*job)
	j.position = len(*h)
	*h = append(*h, j)
}

func (h *dueHeap) Pop() any {
	last := len(*h) - 1
	j := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	j.position = -1
	return j
}
