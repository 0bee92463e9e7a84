package ownership

import (
	"cmp"
	"container/heap"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	second = time.Second
	minute = time.Minute
	// maxBackOff is the longest time between two attempts at a failing source whose interval is shorter, as in adapter/collection.
	maxBackOff = minute
)

// epoch is what the clocks of nodes without an offset show when a simulation begins.
var epoch = time.Date(2026, 11, 23, 6, 0, 0, 0, time.UTC)

// simulation is a cluster on one invented clock: events in the order of time, nothing at random but by its seed. Each node sees
// what a test shows it of the others, collects as the scheduler does, and sends its samples to all others with a delay.
type simulation struct {
	now    time.Duration
	random *rand.Rand
	events events
	count  int // of events, so that those of one instant keep their order
	nodes  []*node
	keys   []key

	// fetch is how long the source takes, at least and at most; delay how long a sample is on its way, lag how late the scheduler is,
	// at most.
	fetch      [2]time.Duration
	delay, lag time.Duration
	// reachable says whether a node gets an answer from a source; nil means always.
	reachable func(n *node, k int) bool
	// cut says that messages do not arrive; nil means never.
	cut func(from, to *node) bool

	from        time.Duration // since when ages and collections count
	ages        map[time.Duration]time.Duration
	collections []collection
}

type key struct {
	id       string
	interval time.Duration
}

type collection struct {
	key, node int
	at        time.Duration
	worked    bool
}

type node struct {
	id      string
	index   int
	offset  time.Duration // of its clock
	view    []string      // the active nodes that it sees
	dead    bool
	stalled time.Duration // until when
	serves  bool          // its answers count
	error   time.Duration // how much younger than in truth its freshest samples seemed, at most; negative if one seemed older
	keys    []state
}

// state is what a node knows of a key.
type state struct {
	Inputs
	latest   time.Duration // true start of the freshest sample; what an answer's age is counted from
	answered bool
	turn     int // the number of the event that asks for its turn
	declined bool
	failures int
}

type event struct {
	at    time.Duration
	order int
	node  *node // whose event it is; nil for the test's own
	run   func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(e[i].at, e[j].at), cmp.Compare(e[i].order, e[j].order)) < 0
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

// newSimulation begins with n nodes that see each other, and queries with the intervals in turn.
func newSimulation(seed uint64, n, queries int, intervals ...time.Duration) *simulation {
	s := &simulation{random: rand.New(rand.NewPCG(seed, 0)), fetch: [2]time.Duration{50 * time.Millisecond, 500 * time.Millisecond}, delay: 50 * time.Millisecond,
		lag: 10 * time.Millisecond, ages: map[time.Duration]time.Duration{}}
	for k := range queries {
		s.keys = append(s.keys, key{fmt.Sprintf("%016x%04x", s.random.Uint64(), k), intervals[k%len(intervals)]})
	}
	for i := range n {
		s.join(i)
	}
	for _, n := range s.nodes {
		n.view, n.serves = s.active(), true
		for k := range s.keys {
			// As after a rolling start: discovery tells one query after the other, and the phases spread.
			known := s.between(0, s.keys[k].interval)
			s.schedule(known, n, func() { s.know(n, k) })
		}
	}
	return s
}

var mixed = []time.Duration{5 * second, 15 * second, 30 * second, 60 * second}

// join adds a node that sees nobody and is seen by nobody, as the pod of a StatefulSet.
func (s *simulation) join(ordinal int) *node {
	n := &node{id: fmt.Sprintf("kubetide-%d-%07x", ordinal, s.random.Uint32()>>4), index: len(s.nodes), keys: make([]state, len(s.keys))}
	s.nodes = append(s.nodes, n)
	return n
}

func (s *simulation) active() (ids []string) {
	for _, n := range s.nodes {
		if !n.dead {
			ids = append(ids, n.id)
		}
	}
	return ids
}

func (s *simulation) node(id string) *node {
	return s.nodes[slices.IndexFunc(s.nodes, func(n *node) bool { return n.id == id })]
}

func (s *simulation) between(from, to time.Duration) time.Duration {
	if to <= from {
		return from
	}
	return from + time.Duration(s.random.Int64N(int64(to-from)))
}

func (s *simulation) schedule(at time.Duration, n *node, run func()) int {
	s.count++
	heap.Push(&s.events, event{at, s.count, n, run})
	return s.count
}

// after does something of the test's own.
func (s *simulation) after(d time.Duration, do func()) { s.schedule(s.now+d, nil, do) }

// run lets time go on.
func (s *simulation) run(d time.Duration) {
	end := s.now + d
	for len(s.events) > 0 && s.events[0].at <= end {
		e := heap.Pop(&s.events).(event)
		s.now = e.at
		switch {
		case e.node == nil:
			e.run()
		case e.node.dead:
		case e.node.stalled > s.now:
			e.at = e.node.stalled // its order stays
			heap.Push(&s.events, e)
		default:
			e.run()
		}
	}
	s.now = end
}

// clock is what the node's clock shows at an instant.
func (n *node) clock(at time.Duration) time.Time { return epoch.Add(n.offset + at) }

func (s *simulation) know(n *node, k int) {
	state := &n.keys[k]
	state.Inputs = Inputs{Key: s.keys[k].id, Node: n.id, Interval: s.keys[k].interval, Known: n.clock(s.now), Samples: state.Samples}
	s.ask(n, k, s.now)
}

// ask asks for the turn of a query at an instant, and no more at the one that was meant before.
func (s *simulation) ask(n *node, k int, at time.Duration) {
	state := &n.keys[k]
	mine := 0
	mine = s.schedule(max(at, s.now)+s.between(0, s.lag), n, func() {
		if mine != state.turn {
			return
		}
		state.Nodes = n.view
		decision := Decide(state.Inputs, n.clock(s.now))
		if state.declined = !decision.Collect; state.declined {
			s.ask(n, k, decision.Next.Sub(n.clock(0)))
		} else {
			s.collect(n, k)
		}
	})
	state.turn = mine
}

func (s *simulation) collect(n *node, k int) {
	state, started, interval := &n.keys[k], s.now, s.keys[k].interval
	state.Tried, state.turn = n.clock(started), 0
	worked := s.reachable == nil || s.reachable(n, k)
	s.collections = append(s.collections, collection{k, n.index, started, worked})
	s.schedule(s.now+s.between(s.fetch[0], s.fetch[1]), n, func() {
		next := interval
		if worked {
			state.failures = 0
			s.send(n, k, started)
		} else {
			state.failures++
			next = max(interval, min(interval<<(state.failures-1), maxBackOff))
		}
		s.ask(n, k, started+next)
	})
}

// send stores a sample and sends it to all others: its age, not its time.
func (s *simulation) send(n *node, k int, taken time.Duration) {
	s.store(n, k, n.id, n.clock(taken), taken)
	for _, to := range s.nodes {
		if to == n || s.cut != nil && s.cut(n, to) {
			continue
		}
		age := n.clock(s.now).Sub(n.clock(taken))
		s.schedule(s.now+s.between(s.delay/10, s.delay), to, func() { s.store(to, k, n.id, to.clock(s.now).Add(-age), taken) })
	}
}

// store takes a sample if it is fresher than what is there. True is when it was taken in truth.
func (s *simulation) store(n *node, k int, from string, taken time.Time, truth time.Duration) {
	state := &n.keys[k]
	state.Samples = state.Samples.With(Sample{from, taken, n.clock(s.now)})
	s.look(n, k)
	if !state.answered || truth > state.latest {
		state.latest, state.answered = truth, true
	}
	if wrong := state.Samples[0].Taken.Sub(n.clock(state.latest)); n.error >= 0 && (wrong < 0 || wrong > n.error) {
		n.error = wrong
	}
}

// look notes how old an answer would be now.
func (s *simulation) look(n *node, k int) {
	if state := &n.keys[k]; n.serves && !n.dead && s.now >= s.from && n.stalled <= s.now && state.answered {
		interval := s.keys[k].interval
		s.ages[interval] = max(s.ages[interval], s.now-state.latest)
	}
}

// synchronize gives a node the samples of another, as a new stream does.
func (s *simulation) synchronize(to, from *node) {
	for k := range s.keys {
		state := &from.keys[k]
		if !state.answered {
			continue
		}
		for _, sample := range state.Samples {
			age := from.clock(s.now).Sub(sample.Taken)
			s.store(to, k, sample.Node, to.clock(s.now).Add(-age), state.latest)
		}
	}
}

// see changes what a node sees of the others.
func (s *simulation) see(n *node, nodes []string) {
	s.schedule(s.now, n, func() {
		n.view = slices.Clone(nodes)
		for k := range n.keys {
			if n.keys[k].declined {
				s.ask(n, k, s.now)
			}
		}
	})
}

// all see the nodes, each at its own moment.
func (s *simulation) all(nodes []string, from, to time.Duration) {
	for _, n := range s.nodes {
		s.after(s.between(from, to), func() { s.see(n, nodes) })
	}
}

// mark forgets what was counted.
func (s *simulation) mark() {
	s.from, s.ages, s.collections = s.now, map[time.Duration]time.Duration{}, nil
}

// look at all answers now, also at those for which nothing came.
func (s *simulation) lookAround() {
	for _, n := range s.nodes {
		for k := range s.keys {
			s.look(n, k)
		}
	}
}

// agesWithin fails the test if an answer was older than the bound for its interval.
func (s *simulation) agesWithin(t testing.TB, bound func(interval time.Duration) time.Duration) {
	t.Helper()
	s.lookAround()
	if len(s.ages) == 0 {
		t.Error("nobody answered")
	}
	for _, interval := range slices.Sorted(maps.Keys(s.ages)) {
		if age, most := s.ages[interval], bound(interval); age > most {
			t.Errorf("an answer was %s old with an interval of %s, the bound is %s", age.Round(time.Millisecond), interval, most)
		}
	}
}

// load is how often the sources were asked, against once an interval.
func (s *simulation) load() float64 {
	ideal := 0.0
	for _, k := range s.keys {
		ideal += float64(s.now-s.from) / float64(k.interval)
	}
	return float64(len(s.collections)) / ideal
}

// collectors returns how many nodes asked the source of each key.
func (s *simulation) collectors() []int {
	by := make([]map[int]bool, len(s.keys))
	for _, c := range s.collections {
		if by[c.key] == nil {
			by[c.key] = map[int]bool{}
		}
		by[c.key][c.node] = true
	}
	counts := make([]int, len(s.keys))
	for k := range by {
		counts[k] = len(by[k])
	}
	return counts
}

// settled fails the test if anything but its owner, as the nodes are now, asks for a query, or if one is not asked for once an interval.
func (s *simulation) settled(t testing.TB) {
	t.Helper()
	s.mark()
	s.run(5 * minute)
	active := s.active()
	last := make([]time.Duration, len(s.keys))
	wrong := 0
	for _, c := range s.collections {
		interval := s.keys[c.key].interval
		gap := c.at - last[c.key]
		if s.nodes[c.node].id != Owner(s.keys[c.key].id, active) || last[c.key] > 0 && (gap < interval*99/100 || gap > interval*101/100) {
			if wrong++; wrong < 5 {
				t.Errorf("at %s %s asked for query %d (every %s) after %s", c.at, s.nodes[c.node].id, c.key, interval, gap)
			}
		}
		last[c.key] = c.at
	}
	if load := s.load(); wrong > 0 || load < 0.99 || load > 1.01 {
		t.Errorf("it did not settle: %d collections out of turn, %.3f of once an interval", wrong, load)
	}
}

func (s *simulation) figures() string {
	s.lookAround()
	var b strings.Builder
	for _, interval := range slices.Sorted(maps.Keys(s.ages)) {
		fmt.Fprintf(&b, "%s: %.2f s; ", interval, s.ages[interval].Seconds())
	}
	return fmt.Sprintf("largest age by interval: %sload %.3fx", b.String(), s.load())
}
