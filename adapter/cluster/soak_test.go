package cluster

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/utils/clock"

	"github.com/kubetide/kubetide/adapter/cluster/clustertest"
	"github.com/kubetide/kubetide/adapter/cluster/membership"
	"github.com/kubetide/kubetide/adapter/collection"
	"github.com/kubetide/kubetide/adapter/store"
	"github.com/kubetide/kubetide/collectors"
	"github.com/kubetide/kubetide/internal/certs"
	"github.com/kubetide/kubetide/internal/sample"
)

const (
	soakQueries = 20
	// soakPlaces is how many nodes there may be, soakLeast how many there are when all is calm.
	soakPlaces, soakLeast = 6, 3
	soakFaults            = 7 // in a round
	soakMaxAge            = 6 * time.Second
	soakSuspect           = 2 * time.Second
	soakRejoin            = 2 * time.Second
	// soakOneView is how long after the faults all see each other.
	soakOneView = soakRejoin + 5*time.Second
	soakJoin    = 10 * time.Second
	// soakResumed is how long a node that stood still may be without a value: it gives up the streams that it has missed, and collects.
	soakResumed = 3 * time.Second
	// soakTransit is by how much the ages of two samples may be wrong, so that the later one seems to be the earlier.
	soakTransit = 250 * time.Millisecond
	// soakWants is how long the wants of a node may be kept that is gone.
	soakWants = 40 * time.Second
	// soakGoroutines and soakHeap are what may come and go in a cluster that rests.
	soakGoroutines, soakHeap = 20, 4 << 20
)

// TestSoak disturbs a cluster for KUBETIDE_SOAK (2 minutes), in rounds: some faults, which KUBETIDE_SOAK_SEED decides, then they end, and
// all must be as it was. All nodes are read all the time. Each node reaches the source, whatever else it does not; most of those that are
// there when a round begins neither end nor stand still in it.
func TestSoak(t *testing.T) {
	length, seed := 2*time.Minute, rand.Uint64()
	if text := os.Getenv("KUBETIDE_SOAK"); text != "" {
		var err error
		length, err = time.ParseDuration(text)
		must(t, err)
	}
	if text := os.Getenv("KUBETIDE_SOAK_SEED"); text != "" {
		var err error
		seed, err = strconv.ParseUint(text, 10, 64)
		must(t, err)
	}
	t.Logf("KUBETIDE_SOAK_SEED=%d", seed)
	s := newSoak(t, seed)
	for p := range soakLeast {
		s.join(p)
	}
	s.calm()
	s.forgotten()
	first := s.level()
	t.Logf("at first %s", first)
	for end := time.Now().Add(length); time.Now().Before(end) && !t.Failed(); {
		s.round()
	}
	s.restore()
	s.calm()
	s.forgotten()
	last := s.level()
	for deadline := time.Now().Add(30 * time.Second); !last.like(first) && time.Now().Before(deadline); last = s.level() {
		s.wait(time.Second)
	}
	t.Logf("at the end %s", last)
	if !last.like(first) {
		t.Errorf("the cluster is not as it was at first: %s, then %s", first, last)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t.Logf("%d faults: %v; %d values read, the oldest %s old; one view at most %s after the faults; sources asked at most %.2f times an interval",
		s.faults, s.kinds, s.reads, s.oldest.Round(time.Millisecond), s.slowest.Round(time.Millisecond), s.load)
	if s.reads == 0 || s.faults == 0 {
		t.Error("nothing was tried")
	}
}

// soak is a cluster at places, which nodes take and leave. Gossip goes through memory, and streams through links.
type soak struct {
	*testing.T
	rand    *rand.Rand
	network *clustertest.Network
	tls     *certs.Peers
	names   names
	links   map[[2]int]*link
	running sync.WaitGroup

	mu      sync.Mutex
	changed *sync.Cond // of cut, and of nodes' paused and ended
	nodes   [soakPlaces]*soakNode
	cut     map[[2]int]bool // from, to
	loss    float64
	said    map[string]*sequence
	asked   int
	gone    map[string]time.Time // by ID
	wrong   int
	reads   int
	oldest  time.Duration

	// What follows is the test's own.
	faults  int
	kinds   map[string]int
	load    float64
	slowest time.Duration
	owners  map[string]string // of queries, when all was calm
	members []string          // then
}

type soakNode struct {
	*Cluster
	soak      *soak
	id        string
	place     int
	address   string // of its streams
	store     *store.Store
	scheduler *collection.Scheduler
	metrics   *prometheus.Registry
	own       sample.Query // which it asks for by itself
	cancel    context.CancelFunc
	done      chan struct{}

	// What follows is under soak.mu.
	paused, ended bool
	resumed       time.Time
	complete      bool                  // it has had all values
	others        map[sample.Query]bool // what other nodes want of it
}

// sequence is what the source has said of a metric: one number after another, and when it was asked.
type sequence struct {
	last  int64
	times []time.Time // of the last ones
}

func newSoak(t *testing.T, seed uint64) *soak {
	l := newLab(t)
	s := &soak{
		T: t, rand: rand.New(rand.NewPCG(seed, 0)), network: clustertest.New(seed), tls: l.tls, links: map[[2]int]*link{},
		cut: map[[2]int]bool{}, said: map[string]*sequence{}, gone: map[string]time.Time{}, kinds: map[string]int{},
	}
	s.changed = sync.NewCond(&s.mu)
	for from := range soakPlaces {
		s.names.ips = append(s.names.ips, soakIP(from))
		for to := range soakPlaces {
			if from != to {
				s.links[[2]int{from, to}] = s.newLink(from, to)
			}
		}
	}
	t.Cleanup(func() {
		s.heal()
		for _, n := range s.there() {
			s.resume(n)
			s.kill(n)
		}
		for _, link := range s.links {
			_ = link.listener.Close()
		}
		s.running.Wait()
	})
	return s
}

func soakIP(place int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, byte(place + 1)}) }

// placeOf is the place that the ID tells.
func placeOf(id string) int {
	var place int
	if _, err := fmt.Sscanf(id, "node-%d-", &place); err != nil {
		panic(err)
	}
	return place
}

// link carries the streams from one place to another. What cannot pass waits, as in TCP; what waits longer than the nodes do is lost with its
// stream. Loss is not simulated: TCP hides it.
type link struct {
	soak     *soak
	from, to int
	listener net.Listener
	conns    map[net.Conn]bool // under soak.mu
}

func (s *soak) newLink(from, to int) *link {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(s.T, err)
	l := &link{soak: s, from: from, to: to, listener: listener, conns: map[net.Conn]bool{}}
	s.running.Go(func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			address := ""
			if n := s.nodes[to]; n != nil {
				address = n.address
			}
			s.mu.Unlock()
			far, err := net.Dial("tcp", address)
			if err != nil {
				_ = near.Close()
				continue
			}
			s.mu.Lock()
			l.conns[near], l.conns[far] = true, true
			s.mu.Unlock()
			s.running.Go(func() { l.pipe(near, far, from, to) })
			s.running.Go(func() { l.pipe(far, near, to, from) })
		}
	})
	return l
}

func (l *link) pipe(in, out net.Conn, from, to int) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := in.Read(buffer)
		l.soak.mu.Lock()
		for !l.soak.passes(from, to) {
			l.soak.changed.Wait()
		}
		l.soak.mu.Unlock()
		if err == nil {
			_, err = out.Write(buffer[:n])
		}
		if err != nil {
			_ = in.Close()
			_ = out.Close()
			l.soak.mu.Lock()
			delete(l.conns, in)
			delete(l.conns, out)
			l.soak.mu.Unlock()
			return
		}
	}
}

// passes says whether anything gets from one place to the other. s.mu is held.
func (s *soak) passes(from, to int) bool {
	stands := func(place int) bool { return s.nodes[place] != nil && s.nodes[place].paused }
	return !s.cut[[2]int{from, to}] && !stands(from) && !stands(to)
}

// apply has the gossip find what passes, and wakes what waits for it.
func (s *soak) apply() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for at := range s.links {
		s.network.Set(soakIP(at[0]), soakIP(at[1]), clustertest.Link{Cut: !s.passes(at[0], at[1]), Loss: s.loss})
	}
	s.changed.Broadcast()
}

// view is the membership as it is seen from a place: the others' streams are at the ends of links.
type view struct {
	*membership.Gossip
	soak  *soak
	place int
}

func (v view) Nodes() []membership.Node {
	nodes := v.Gossip.Nodes()
	for i := range nodes {
		if link := v.soak.links[[2]int{v.place, placeOf(nodes[i].ID)}]; link != nil {
			nodes[i].Stream = link.listener.Addr().String()
		}
	}
	return nodes
}

// The source of a node says one number after another.
func (n *soakNode) Keys() []string { return nil }

func (n *soakNode) Parse(r collectors.Request) (sample.Query, error) {
	return r.Query("count", nil), nil
}

func (n *soakNode) Open(q sample.Query) (collectors.Collector, error) {
	return soakCollector{n, q.Metric}, nil
}

type soakCollector struct {
	node   *soakNode
	metric string
}

func (c soakCollector) Collect(context.Context) ([]sample.Point, error) {
	const kept = 60
	asked := time.Now() // a sample is as old as the question
	c.node.stand()
	s := c.node.soak
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.node.ended {
		return nil, errors.New("the node has ended")
	}
	said := s.said[c.metric]
	if said == nil {
		said = &sequence{}
		s.said[c.metric] = said
	}
	said.last++
	said.times = append(said.times, asked)
	if len(said.times) > kept {
		said.times = slices.Delete(said.times, 0, 1)
	}
	if strings.HasPrefix(c.metric, "m") {
		s.asked++
	}
	return []sample.Point{{Milli: said.last}}, nil
}

// at is when the source was asked for the value.
func (q *sequence) at(value int64) (time.Time, bool) {
	i := len(q.times) - 1 - int(q.last-value)
	if i < 0 || i >= len(q.times) {
		return time.Time{}, false
	}
	return q.times[i], true
}

// stand returns when the node does not stand still. That is like SIGSTOP: the node asks no source, decides nothing, stores nothing that it has
// collected, and answers nobody; its streams carry nothing either way, and go on later with what waited. Unlike SIGSTOP, packets of the
// gossip to it are lost, which a socket keeps a few of, and its own gossip goes on with nobody to hear: it gives the others up meanwhile, not just after.
func (n *soakNode) stand() {
	n.soak.mu.Lock()
	defer n.soak.mu.Unlock()
	for n.paused && !n.ended {
		n.soak.changed.Wait()
	}
}

// join starts a node.
func (s *soak) join(place int) {
	s.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(s.T, err)
	n := &soakNode{
		soak: s, id: membership.NewID(fmt.Sprintf("node-%d-", place)), place: place, address: listener.Addr().String(), metrics: prometheus.NewRegistry(),
		done: make(chan struct{}), others: map[sample.Query]bool{},
	}
	gossip, err := membership.New(membership.Options{
		Node:    membership.Node{ID: n.id, State: membership.Joining, Collects: true, Stream: n.address},
		Cluster: "test", Join: []string{"kubetide"}, RejoinInterval: soakRejoin, SuspectAfter: soakSuspect, Resolver: &s.names,
		Transport: s.network.Transport(netip.AddrPortFrom(soakIP(place), 8003)), Registerer: n.metrics, Log: logr.Discard(),
	})
	must(s.T, err)
	n.Cluster = New(Options{
		Membership: view{gossip, s, place}, Name: "test", Listener: listener, TLS: s.tls, SyncTimeout: syncTimeout, Registerer: n.metrics, Log: logr.Discard(),
	})
	n.store = store.New(clock.RealClock{}, soakMaxAge)
	registry := collectors.NewRegistry()
	registry.Register(sample.External, n, "count")
	n.scheduler = collection.New(collection.Options{
		Registry: registry, Log: logr.Discard(),
		Insert: func(r sample.Result) bool { n.stand(); return n.Insert(r) },
		Turn:   func(q sample.Query) (bool, time.Time) { n.stand(); return n.Turn(q) },
	})
	n.Attach(Adapter{Insert: n.store.Insert, Report: func(sample.Result) {}, Answer: n.store.Answer, Reconsider: n.scheduler.Reconsider, Works: n.scheduler.Works, Want: func(q sample.Query) func() {
		s.mu.Lock()
		n.others[q] = true
		s.mu.Unlock()
		n.want(q)
		return func() {
			s.mu.Lock()
			delete(n.others, q)
			s.mu.Unlock()
			n.unwant(q)
		}
	}})
	for i := range soakQueries {
		n.want(queryOf(i))
	}
	n.own = sample.Query{Kind: sample.External, Namespace: "shop", Metric: "own-" + n.id, Collector: "count", Interval: interval}
	n.want(n.own)
	n.Ask(n.own, true)

	ctx, cancel := context.WithCancel(context.Background())
	n.cancel = cancel
	s.mu.Lock()
	s.nodes[place] = n
	s.mu.Unlock()
	s.apply()
	s.running.Go(func() {
		defer close(n.done)
		var wg sync.WaitGroup
		wg.Go(func() { n.scheduler.Run(ctx) })
		wg.Go(func() { n.read(ctx) })
		if err := n.Run(ctx); err != nil {
			s.failed("%s: %v", n.id, err)
		}
		wg.Wait()
	})
}

func (n *soakNode) want(q sample.Query) {
	n.store.Add(q, true)
	n.Wanted(q, true)
	n.scheduler.Add(q)
}

func (n *soakNode) unwant(q sample.Query) {
	n.store.Forget(q)
	n.Wanted(q, false)
	n.scheduler.Remove(q)
}

// kill ends a node as kill -9 does.
func (s *soak) kill(n *soakNode) {
	s.end(n)
	s.network.Kill(soakIP(n.place))
	n.cancel()
	s.hangUp(n.place)
}

// end has a node ask no source any more. Its place is free.
func (s *soak) end(n *soakNode) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n.ended, s.nodes[n.place], s.gone[n.id] = true, nil, time.Now()
	s.changed.Broadcast()
}

// hangUp breaks the streams of a place.
func (s *soak) hangUp(place int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for at, link := range s.links {
		if at[0] == place || at[1] == place {
			for conn := range link.conns {
				_ = conn.Close()
			}
		}
	}
}

// leave ends a node as SIGTERM does: it hands over, and goes a while later.
func (s *soak) leave(n *soakNode) {
	n.Leave()
	s.running.Go(func() {
		s.wait(2 * interval)
		n.cancel()
		<-n.done
		s.end(n)
		s.hangUp(n.place)
	})
}

func (s *soak) pause(n *soakNode) {
	s.mu.Lock()
	n.paused = true
	s.mu.Unlock()
	s.apply()
}

func (s *soak) resume(n *soakNode) {
	s.mu.Lock()
	n.paused, n.resumed = false, time.Now()
	s.mu.Unlock()
	s.apply()
}

func (s *soak) heal() {
	s.mu.Lock()
	clear(s.cut)
	s.loss = 0
	s.mu.Unlock()
	s.apply()
}

// wait lets the cluster go on.
func (*soak) wait(d time.Duration) { <-time.After(d) }

// failed reports what must not be, but not for ever.
func (s *soak) failed(format string, args ...any) {
	s.mu.Lock()
	s.wrong++
	few := s.wrong <= 20
	s.mu.Unlock()
	if few {
		s.Errorf(format, args...)
	}
}

// read reads all values of a node again and again, as the metrics APIs do.
func (n *soakNode) read(ctx context.Context) {
	const every = 50 * time.Millisecond
	s := n.soak
	often := time.NewTicker(every)
	defer often.Stop()
	var seen [soakQueries]int64
	for {
		select {
		case <-ctx.Done():
			return
		case <-often.C:
		}
		n.stand()
		ready, all := n.Ready() == nil, true
		for i := range seen {
			q, before := queryOf(i), time.Now()
			a := n.store.Answer(q)
			if a.State != sample.Fresh && n.Fetch(ctx, q.Kind, q.Namespace, q.Metric) {
				before = time.Now()
				a = n.store.Answer(q)
			}
			if a.State != sample.Fresh {
				all = false
			}
			if err := n.judge(q.Metric, a, before, &seen[i]); err != nil && ctx.Err() == nil {
				s.failed("%s, %s: %v", n.id, q.Metric, err)
			}
		}
		s.mu.Lock()
		n.complete = n.complete || ready && all
		s.mu.Unlock()
	}
}

// judge says what is wrong with an answer, which is not younger than an instant.
func (n *soakNode) judge(metric string, a sample.Answer, before time.Time, seen *int64) error {
	s := n.soak
	s.mu.Lock()
	defer s.mu.Unlock()
	if a.State != sample.Fresh {
		// The server is not ready before its first values are there.
		if n.complete && !n.ended && !n.paused && time.Since(n.resumed) > soakResumed {
			return fmt.Errorf("no value: %s, %w; it resumed %s ago", a.State, a.Cause, time.Since(n.resumed))
		}
		return nil
	}
	value := a.Points[0].Milli
	at, ok := s.said[metric].at(value)
	if !ok {
		return fmt.Errorf("the source did not say %d lately: it is at %d", value, s.said[metric].last)
	}
	age := before.Sub(at)
	if age > soakMaxAge+soakTransit {
		return fmt.Errorf("%d is %s old", value, age)
	}
	if last, ok := s.said[metric].at(*seen); ok && at.Before(last.Add(-soakTransit)) {
		return fmt.Errorf("%d, of %s earlier, came after %d", value, last.Sub(at), *seen)
	}
	*seen = value
	s.reads++
	s.oldest = max(s.oldest, age)
	return nil
}

// round disturbs, and sees all in order again.
func (s *soak) round() {
	s.Helper()
	began, asked := time.Now(), s.count()
	var log []string
	var pauses sync.WaitGroup
	sides := 1
	var live, free []int // as this round has them; those that leave are in neither
	for p, n := range s.nodes {
		if n != nil {
			live = append(live, p)
		} else {
			free = append(free, p)
		}
	}
	// Those that may go or stand still: what is left is the majority of those that are there now.
	spare := (len(live) - 1) / 2
	steady := slices.Clone(live)
	take := func(from *[]int) int {
		i := s.rand.IntN(len(*from))
		p := (*from)[i]
		*from = slices.Delete(*from, i, i+1)
		return p
	}
	drop := func(from *[]int, p int) { *from = slices.DeleteFunc(*from, func(other int) bool { return other == p }) }
	for range soakFaults {
		kinds := []string{"partition", "one way", "loss"}
		if spare > 0 {
			kinds = append(kinds, "kill", "leave", "pause")
		}
		if len(free) > 0 {
			kinds = append(kinds, "join", "join")
		}
		kind := kinds[s.rand.IntN(len(kinds))]
		s.kinds[kind]++
		s.faults++
		switch kind {
		case "join":
			p := take(&free)
			live = append(live, p)
			s.join(p)
			kind += fmt.Sprint(" ", p)
		case "kill":
			p := take(&steady)
			spare--
			drop(&live, p)
			free = append(free, p)
			s.kill(s.nodes[p])
			kind += fmt.Sprint(" ", p)
		case "leave":
			p := take(&steady)
			spare--
			drop(&live, p)
			s.leave(s.nodes[p])
			kind += fmt.Sprint(" ", p)
		case "pause":
			p := take(&steady)
			spare--
			x := s.rand.Float64()
			length := time.Second + time.Duration(9*x*x*float64(time.Second)).Round(time.Millisecond) // up to 10 s, most of them short
			n := s.nodes[p]
			s.pause(n)
			pauses.Go(func() { s.wait(length); s.resume(n) })
			kind += fmt.Sprintf(" %d for %s", p, length)
		case "partition":
			sides = 2
			order := s.rand.Perm(soakPlaces)
			some := order[:1+s.rand.IntN(soakPlaces-1)]
			s.mu.Lock()
			clear(s.cut)
			for at := range s.links {
				s.cut[at] = slices.Contains(some, at[0]) != slices.Contains(some, at[1])
			}
			s.mu.Unlock()
			kind += fmt.Sprint(" ", some)
		case "one way":
			pair := s.rand.Perm(len(live))
			if len(pair) < 2 {
				continue
			}
			s.mu.Lock()
			s.cut[[2]int{live[pair[0]], live[pair[1]]}] = true
			s.mu.Unlock()
			kind += fmt.Sprintf(" %d to %d", live[pair[0]], live[pair[1]])
		case "loss":
			loss := .1 + .2*s.rand.Float64()
			s.mu.Lock()
			s.loss = loss
			s.mu.Unlock()
			kind += fmt.Sprintf(" %.2f", loss)
		}
		s.apply()
		log = append(log, kind)
		s.wait(200*time.Millisecond + time.Duration(s.rand.Int64N(int64(800*time.Millisecond))))
	}
	s.wait(time.Duration(s.rand.Int64N(int64(3 * time.Second))))
	pauses.Wait()
	s.heal()
	// Each side asks once an interval; in one that changes, another node may ask as well.
	load := float64(s.count()-asked) / soakQueries / (float64(time.Since(began)) / float64(interval))
	if s.load = max(s.load, load); load > float64(sides+1) {
		s.Errorf("the sources were asked %.2f times an interval by %d sides: %s", load, sides, strings.Join(log, ", "))
	}
	for range soakLeast - len(live) {
		p := take(&free)
		live = append(live, p)
		s.join(p)
	}
	took := s.calm()
	s.Logf("%s; one view %s later, %.2f times asked; %s", strings.Join(log, ", "), took.Round(time.Millisecond), load, s.level())
}

// restore has as many nodes as there were at first.
func (s *soak) restore() {
	s.Helper()
	for i, n := range s.there() {
		if i >= soakLeast {
			s.leave(n)
		}
	}
	s.within(soakJoin, func() error {
		if left := len(s.there()); left != soakLeast {
			return fmt.Errorf("%d are left", left)
		}
		return nil
	})
}

func (s *soak) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

// there are the nodes that are there.
func (s *soak) there() (nodes []*soakNode) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.nodes {
		if n != nil {
			nodes = append(nodes, n)
		}
	}
	return nodes
}

// within waits for a condition, and returns how long that took.
func (s *soak) within(bound time.Duration, holds func() error) time.Duration {
	s.Helper()
	began := time.Now()
	often := time.NewTicker(20 * time.Millisecond)
	defer often.Stop()
	for {
		err := holds()
		took := time.Since(began)
		if err == nil {
			return took
		}
		if took > bound {
			s.Fatalf("not within %s: %v", bound, err)
		}
		<-often.C
	}
}

// calm sees that all is in order, and returns how long it took until all saw each other.
func (s *soak) calm() time.Duration {
	s.Helper()
	took := s.within(soakOneView, func() error {
		nodes := s.there()
		for _, n := range nodes {
			view := n.options.Membership.Nodes()
			if len(view) != len(nodes) {
				return fmt.Errorf("%s sees %v, and there are %d", n.id, view, len(nodes))
			}
			for _, other := range nodes {
				if !slices.ContainsFunc(view, hasNodeID(other.id)) {
					return fmt.Errorf("%s does not see %s", n.id, other.id)
				}
				if other.options.Membership.Local().State == membership.Leaving {
					return fmt.Errorf("%s is leaving", other.id)
				}
			}
		}
		return nil
	})
	s.slowest = max(s.slowest, took)
	s.within(soakJoin, func() error {
		for _, n := range s.there() {
			for _, other := range n.options.Membership.Nodes() {
				if other.State != membership.Active {
					return fmt.Errorf("%s sees %s %s", n.id, other.ID, other.State)
				}
			}
		}
		return nil
	})
	s.wait(2 * interval) // until hand-overs are over
	s.compare()
	const length = 3
	asked := s.count()
	began := time.Now()
	s.wait(length * interval)
	if load := float64(s.count()-asked) / soakQueries / (float64(time.Since(began)) / float64(interval)); load < .75 || load > 1.25 {
		s.Errorf("the sources were asked %.2f times an interval while all was calm", load)
	}
	return took
}

func hasNodeID(id string) func(membership.Node) bool {
	return func(n membership.Node) bool { return n.ID == id }
}

// compare looks at who owns what, and at what is kept of nodes.
func (s *soak) compare() {
	s.Helper()
	nodes := s.there()
	owners := map[string]string{}
	var members []string
	for i, n := range nodes {
		members = append(members, n.id)
		for _, q := range n.Queries() {
			if !strings.HasPrefix(q.Metric, "m") {
				continue
			}
			if i == 0 {
				owners[q.Metric] = q.Owner
			} else if owners[q.Metric] != q.Owner {
				s.Errorf("%s is %s's for %s, and %s's for %s", q.Metric, owners[q.Metric], nodes[0].id, q.Owner, n.id)
			}
		}
		if gauge := n.gauge(s.T, "kubetide_cluster_nodes"); gauge != float64(len(nodes)) {
			s.Errorf("the metric of %s counts %v nodes, and there are %d", n.id, gauge, len(nodes))
		}
		s.mu.Lock()
		complete := n.complete
		s.mu.Unlock()
		if !complete {
			s.Errorf("%s has not had all values", n.id)
		}
		if err := n.keeps(soakWants); err != nil {
			s.Error(err)
		}
	}
	for metric, owner := range owners {
		before := s.owners[metric]
		if before != "" && before != owner && slices.Contains(members, before) && slices.Contains(s.members, owner) {
			s.Errorf("%s moved from %s to %s, which were both there", metric, before, owner)
		}
	}
	s.owners, s.members = owners, members
	s.mu.Lock()
	for id, at := range s.gone {
		if time.Since(at) > 5*time.Minute {
			delete(s.gone, id)
			delete(s.said, "own-"+id)
		}
	}
	s.mu.Unlock()
}

// keeps says whether the node keeps what another wants that has been gone for long.
func (n *soakNode) keeps(long time.Duration) error {
	n.soak.mu.Lock()
	defer n.soak.mu.Unlock()
	for q := range n.others {
		id := strings.TrimPrefix(q.Metric, "own-")
		if at, gone := n.soak.gone[id]; gone && time.Since(at) > long {
			return fmt.Errorf("%s still collects for %s, which has been gone for %s", n.id, id, time.Since(at))
		}
	}
	return nil
}

func (n *soakNode) gauge(t *testing.T, name string) (sum float64) {
	t.Helper()
	families, err := n.metrics.Gather()
	must(t, err)
	for _, family := range families {
		for _, m := range family.Metric {
			if family.GetName() == name {
				sum += m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

// forgotten waits until nothing is collected for nodes that are gone.
func (s *soak) forgotten() {
	s.Helper()
	s.within(soakWants+5*time.Second, func() error {
		for _, n := range s.there() {
			if err := n.keeps(0); err != nil {
				return err
			}
		}
		return nil
	})
}

// level is what the process needs.
type level struct {
	heap       uint64
	goroutines int
}

func (s *soak) level() level {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return level{m.HeapAlloc, runtime.NumGoroutine()}
}

func (l level) String() string {
	return fmt.Sprintf("%.1f MiB, %d goroutines", float64(l.heap)/(1<<20), l.goroutines)
}

func (l level) like(first level) bool {
	return l.heap < first.heap+soakHeap && l.goroutines <= first.goroutines+soakGoroutines
}
