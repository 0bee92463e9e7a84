// Package store keeps the last answer to every query in memory: the collection inserts, the metrics APIs and the
// engine read. Reads never wait for a collection and check the age each time, so a value that is too old is never
// returned as a number, unless its query has a fallback, and nothing has to be swept. It does no I/O and knows neither collectors nor the metrics APIs.
//
// An answer is immutable and swapped in whole, and so is what finds it: who reads takes no lock and waits for no writer. Writers wait
// for each other, for small changes only (BenchmarkLongestLock).
package store

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"github.com/kubetide/kubetide/internal/sample"
)

const shards = 64

// Store implements sample.Reader.
type Store struct {
	clock   clock.PassiveClock
	limit   time.Duration
	seed    maphash.Seed
	queries table
	served  index
	bars    index // one entry for each series that is barred; its state is not used
	pods    podIndex
}

// entry is what is known about one query. Among many series it is in main memory, where each cache line and page costs as much
// as the rest of a look-up's work. So a look-up goes from a slot to the entry and on to its state, and touches nothing else:
// entry and state have 128 bytes each, two lines that the allocator aligns. What only writers and slow paths need is apart, and
// begins with all that Insert needs, so that it need not look into the state before.
type entry struct {
	// last is swapped by writers under mu and read without it.
	last atomic.Pointer[state]
	// address is that of the query's series, in memory if it is not longer.
	address []byte
	memory  [88]byte
	*rest
}

type rest struct {
	// details are what the query says beside the address, in memory if they are not longer.
	details []byte
	memory  [88]byte
	mu      sync.Mutex
	taken   time.Duration // that of last, from the epoch; guarded by mu
	labels  labels.Set
	// subscriptions are replaced under the lock of the query's shard, never changed in place, and read without it.
	subscriptions atomic.Pointer[[]*subscription]

	query    sample.Query
	position int // in its list, -1 if it is in none; guarded by the index's lock
}

// state is never changed after it was published.
type state struct {
	// until is the last instant at which all points are fresh.
	until  time.Duration // from the epoch
	common labels.Set    // the labels that all points have
	// served is what a request gets up to then, made once for all of them.
	served [1]Served
	spare  *spare // nil without a fallback
}

type subscription struct{ notify func() }

// New returns an empty store. limit is the greatest age that is served whatever the interval; 0 for no such limit.
func New(clock clock.PassiveClock, limit time.Duration) *Store {
	s := &Store{clock: clock, limit: limit, seed: maphash.MakeSeed()}
	s.queries.init()
	s.served.init()
	s.bars.init()
	s.pods.entries = map[string]map[*entry]struct{}{}
	s.pods.gone = map[types.UID]time.Time{}
	return s
}

// epoch is what the instants of the fast path are counted from: a duration is a third of a Time, and the clock tells it in half
// the time.
var epoch = time.Now()

// unasked marks an entry that takes no results.
var unasked = (&entry{rest: &rest{}}).state(nil, time.Time{}, errors.New("nothing asks for this metric"), 0)

// Add makes the store accept results for the query. Served queries are found by the metrics APIs under their Series; of
// two queries with one Series only one may be served at a time. Adding again changes served only.
func (s *Store) Add(q sample.Query, served bool) {
	e, shard := s.open(&q)
	if !e.wanted() {
		e.mu.Lock()
		e.last.Store(e.state(nil, time.Time{}, errors.New("it has not been collected yet"), q.MaxAge(s.limit)))
		e.taken = math.MinInt64
		e.mu.Unlock()
	}
	shard.mu.Unlock()
	if q.Kind == sample.Pods || q.Kind == sample.Resource {
		s.pods.add(e)
	}
	if served {
		s.served.add(e)
	} else {
		s.served.remove(e)
	}
}

// Forget drops the query and its values at once. Results that are still on their way are refused.
func (s *Store) Forget(q sample.Query) {
	shard, hash, has := s.find(&q)
	shard.mu.Lock()
	e := shard.get(hash, has)
	if e == nil || !e.wanted() {
		shard.mu.Unlock()
		return
	}
	e.mu.Lock()
	e.last.Store(unasked)
	e.mu.Unlock()
	if len(e.subscribed()) == 0 {
		shard.remove(hash, has)
	}
	shard.mu.Unlock()
	s.pods.remove(e)
	s.served.remove(e)
	e.notify()
}

// Insert makes the result the answer to its query, and reports whether it was accepted: nobody may ask any more, or a
// newer result may be there. The store sorts r.Points, and nobody may change them from then on. After an error the last value stays until it is too
// old, unless the source said that there is none (sample.ErrNoData); what the query's Fallback makes of that is worked out
// when somebody reads.
func (s *Store) Insert(r sample.Result) bool {
	e := s.entry(&r.Query)
	if e == nil {
		return false
	}
	points, cause := s.check(&r)
	next := e.state(points, r.Taken, cause, r.Query.MaxAge(s.limit))
	taken := r.Taken.Sub(epoch)
	e.mu.Lock()
	last := e.last.Load()
	if last == unasked || e.taken > taken {
		e.mu.Unlock()
		return false
	}
	if points == nil && !errors.Is(cause, sample.ErrNoData) {
		kept := *last
		kept.served[0].Answer.Cause = cause
		next, taken = &kept, e.taken
	}
	if r.Query.Fallback != (sample.Fallback{}) {
		next.spare = last.spareAfter(next, r.Taken)
	}
	e.last.Store(next)
	e.taken = taken
	e.mu.Unlock()
	if r.Query.Kind == sample.Pods && ((last.points() == nil) != (next.points() == nil) || !maps.Equal(last.common, next.common)) {
		if m := s.served.metric(sample.Pods, r.Query.Namespace, r.Query.Metric); m != nil {
			m.shape.Add(1)
		}
	}
	e.notify()
	return true
}

// check returns the points that can be served, sorted by pod, and why there are none or fewer.
func (s *Store) check(r *sample.Result) ([]sample.Point, error) {
	points, cause := r.Points, r.Err
	switch r.Query.Kind {
	case sample.Pods, sample.Resource:
		points = s.pods.alive(points)
		byPod := func(a, b sample.Point) int {
			return cmp.Or(strings.Compare(a.Pod, b.Pod), strings.Compare(a.Container, b.Container))
		}
		if !slices.IsSortedFunc(points, byPod) {
			slices.SortFunc(points, byPod)
		}
		if len(points) == 0 && cause == nil {
			cause = fmt.Errorf("no pod has a value: %w", sample.ErrNoData)
		}
	default:
		if len(points) != 1 && cause == nil {
			points, cause = nil, fmt.Errorf("the source returned %d values instead of 1", len(points))
		}
		if cause != nil {
			points = nil
		}
	}
	if len(points) == 0 {
		points = nil
	}
	return points, cause
}

// Answer implements sample.Reader.
func (s *Store) Answer(q sample.Query) sample.Answer {
	e := s.entry(&q)
	if e == nil {
		return unasked.served[0].Answer
	}
	return e.answer(s.clock.Now())
}

// Subscribe implements sample.Reader. A value that becomes stale is no change: the reader knows the instant from the
// answer. The query need not be collected yet.
func (s *Store) Subscribe(q sample.Query, notify func()) (cancel func()) {
	own := &subscription{notify: notify}
	e, shard := s.open(&q)
	e.subscribe(append(slices.Clip(e.subscribed()), own))
	shard.mu.Unlock()
	return sync.OnceFunc(func() {
		shard.mu.Lock()
		defer shard.mu.Unlock()
		e.subscribe(slices.DeleteFunc(slices.Clone(e.subscribed()), func(s *subscription) bool { return s == own }))
		if _, hash, has := s.find(&q); len(e.subscribed()) == 0 && !e.wanted() && shard.get(hash, has) == e {
			shard.remove(hash, has)
		}
	})
}

// Each calls f for every query that is asked for, in no order, without holding a lock.
func (s *Store) Each(f func(sample.Query, sample.Answer)) {
	now := s.clock.Now()
	for i := range shards {
		for e := range s.queries.shards[i].all {
			if last := e.last.Load(); last != unasked {
				f(e.query, last.answer(now))
			}
		}
	}
}

// ForgetPod drops the values of a pod that is gone at once, also from collections that are still running.
func (s *Store) ForgetPod(namespace string, uid types.UID) {
	for _, e := range s.pods.bury(namespace, uid, s.clock.Now()) {
		if e.forgetPod(uid) {
			e.notify()
		}
	}
}

// forgetPod reports whether the pod was one of the query's.
func (e *entry) forgetPod(uid types.UID) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	last := e.last.Load()
	is := func(p sample.Point) bool { return p.UID == uid }
	if !slices.ContainsFunc(last.points(), is) {
		return false
	}
	next := *last
	a := &next.served[0].Answer
	a.Points = slices.DeleteFunc(slices.Clone(a.Points), is)
	if len(a.Points) == 0 {
		next = *e.state(nil, a.Taken, fmt.Errorf("its last pod is gone: %w", sample.ErrNoData), a.MaxAge)
	}
	e.last.Store(&next)
	return true
}

// wanted says that the entry takes results.
func (e *entry) wanted() bool { return e.last.Load() != unasked }

func (e *entry) subscribed() []*subscription {
	if all := e.subscriptions.Load(); all != nil {
		return *all
	}
	return nil
}

func (e *entry) subscribe(all []*subscription) { e.subscriptions.Store(&all) }

func (e *entry) notify() {
	for _, s := range e.subscribed() {
		s.notify()
	}
}

func (s *Store) newEntry(q sample.Query) *entry {
	e := &entry{rest: &rest{query: q, labels: labelsOf(q.Selector), position: -1}}
	e.address = appendSeries(e.memory[:0], q.Series())
	e.details = appendDetails(e.rest.memory[:0], &q)
	e.last.Store(unasked)
	return e
}

func labelsOf(text string) labels.Set {
	selector, err := labels.Parse(text)
	if err != nil {
		return nil
	}
	return sample.ExactLabels(selector)
}

// key is a query as bytes: the address of its series, and behind it its details. To encode a query and to hash and compare the bytes
// takes no longer than to hash and compare its strings, which lie each in a place of its own.
type key struct {
	bytes   []byte
	address int // its length
}

func appendKey(to []byte, q *sample.Query) key {
	to = appendSeries(to, q.Series())
	return key{address: len(to), bytes: appendDetails(to, q)}
}

// appendDetails appends all of the query that is not in the address of its series whatever its kind is.
func appendDetails(to []byte, q *sample.Query) []byte {
	for _, part := range []string{q.Collector, q.Settings, q.Object.Group, q.Object.Kind, q.Object.Name,
		q.Target.Group, q.Target.Kind, q.Target.Name} {
		to = appendPart(to, part)
	}
	to = append(to, flag(q.PerReplica), flag(q.Fallback.Fixed))
	for _, number := range []int64{int64(q.Interval), int64(q.Fallback.Hold), q.Fallback.Milli} {
		to = binary.AppendVarint(to, number)
	}
	return to
}

func flag(set bool) byte {
	if set {
		return 1
	}
	return 0
}

func (k key) is(e *entry) bool {
	return bytes.Equal(e.address, k.bytes[:k.address]) && bytes.Equal(e.details, k.bytes[k.address:])
}

// find returns where the query's entry is or belongs, for the methods of the shard.
func (s *Store) find(q *sample.Query) (where *shard, hash uint64, has func(*entry) bool) {
	k := appendKey(nil, q)
	where, hash = s.queries.shard(maphash.Bytes(s.seed, k.bytes))
	return where, hash, k.is
}

// open returns the query's entry, made if there is none, with its shard locked. It is made without the lock.
func (s *Store) open(q *sample.Query) (*entry, *shard) {
	where, hash, has := s.find(q)
	where.lockForOneMore()
	e := where.get(hash, has)
	if e == nil {
		where.mu.Unlock()
		made := s.newEntry(*q)
		where.lockForOneMore()
		if e = where.get(hash, has); e == nil {
			e = made
			where.put(hash, has, e)
		}
	}
	return e, where
}

// entry returns the query's entry, nil if there is none.
func (s *Store) entry(q *sample.Query) *entry {
	var memory [512]byte // on the stack
	k := appendKey(memory[:0], q)
	shard, hash := s.queries.shard(maphash.Bytes(s.seed, k.bytes))
	return shard.get(hash, k.is)
}

// state returns the one after a collection that began at taken. points is nil if there is no value, and cause says why.
func (e *entry) state(points []sample.Point, taken time.Time, cause error, maxAge time.Duration) *state {
	a := sample.Answer{State: sample.Missing, Points: points, Taken: taken, MaxAge: maxAge, Cause: cause}
	if points != nil {
		a.State = sample.Fresh
	}
	var oldest time.Duration
	for i := range points {
		oldest = max(oldest, points[i].Age)
	}
	return &state{until: taken.Add(maxAge - oldest).Sub(epoch), common: commonLabels(points),
		served: [1]Served{{Query: &e.query, Labels: e.labels, Answer: a}}}
}

func (e *entry) answer(now time.Time) sample.Answer { return e.last.Load().answer(now) }

func (s *state) points() []sample.Point { return s.served[0].Answer.Points }

func (s *state) taken() time.Time { return s.served[0].Answer.Taken }

// fresh says that what was made to be served is the answer at now.
func (s *state) fresh(now time.Duration) bool {
	return now <= s.until && s.served[0].Answer.State == sample.Fresh
}

// end is until as a time. It is counted from Taken, which has the wall clock's reading of that day.
func (s *state) end() time.Time { return s.taken().Add(s.until - s.taken().Sub(epoch)) }

func (s *state) answer(now time.Time) sample.Answer {
	a := s.served[0].Answer
	if s.fresh(now.Sub(epoch)) {
		return a
	}
	if a.State == sample.Fresh {
		s.age(&a, now)
	}
	if a.State != sample.Fresh && s.spare != nil {
		s.fallBack(&a, now)
	}
	return a
}

// age takes the points that are too old at now from the answer.
func (s *state) age(a *sample.Answer, now time.Time) {
	age, oldest := now.Sub(a.Taken), time.Duration(0)
	a.Points = nil
	for _, p := range s.points() {
		if oldest = max(oldest, p.Age); p.Age <= a.MaxAge-age {
			a.Points = append(a.Points, p)
		}
	}
	if len(a.Points) == 0 {
		a.State, a.Cause = sample.Stale, &staleError{age: age + oldest, maxAge: a.MaxAge, cause: a.Cause}
	}
}

// staleError is made on each read of a stale value, so it is printed only when somebody looks.
type staleError struct {
	age, maxAge time.Duration
	cause       error
}

func (e *staleError) Error() string {
	text := fmt.Sprintf("the last value is %s old, more than the %s allowed", e.age.Round(time.Second), e.maxAge)
	if e.cause != nil {
		text += ": " + e.cause.Error()
	}
	return text
}

func (e *staleError) Unwrap() error { return e.cause }

func commonLabels(points []sample.Point) labels.Set {
	if len(points) == 0 || points[0].Labels == nil {
		return nil
	}
	common := points[0].Labels
	for i := 1; i < len(points); i++ {
		differs := false
		for k, v := range common {
			if other, ok := points[i].Labels[k]; !ok || other != v {
				differs = true
				break
			}
		}
		if differs {
			kept := make(labels.Set, len(common))
			for k, v := range common {
				if other, ok := points[i].Labels[k]; ok && other == v {
					kept[k] = v
				}
			}
			common = kept
		}
	}
	return common
}
