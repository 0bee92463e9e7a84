package replication

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr/testr"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
	"k8s.io/utils/clock"

	"github.com/kubetide/kubetide/adapter/cluster/membership"
	"github.com/kubetide/kubetide/internal/certs"
	"github.com/kubetide/kubetide/internal/certs/certstest"
	"github.com/kubetide/kubetide/internal/sample"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const serverName = "kubetide.kubetide-system.svc"

// view is a membership that a test dictates.
type view struct {
	id     string
	mu     sync.Mutex
	nodes  []membership.Node
	notify func()
}

func (v *view) Local() membership.Node {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, n := range v.nodes {
		if n.ID == v.id {
			return n
		}
	}
	return membership.Node{ID: v.id}
}

func (v *view) Nodes() []membership.Node {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.nodes)
}

func (v *view) Subscribe(notify func()) func() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.notify = notify
	return func() {}
}

func (v *view) SetState(state membership.State) {
	nodes := v.Nodes()
	for i := range nodes {
		if nodes[i].ID == v.id {
			nodes[i].State = state
		}
	}
	v.set(nodes)
}

func (v *view) set(nodes []membership.Node) {
	v.mu.Lock()
	v.nodes = nodes
	notify := v.notify
	v.mu.Unlock()
	if notify != nil {
		notify()
	}
}

// shifted is a clock that is wrong.
type shifted struct {
	clock.RealClock
	by time.Duration
}

func (s shifted) Now() time.Time                  { return time.Now().Add(s.by) }
func (s shifted) Since(t time.Time) time.Duration { return s.Now().Sub(t) }

// node is a Replication with what it was told.
type node struct {
	*Replication
	id       string
	view     *view
	registry *prometheus.Registry
	stop     func()

	mu       sync.Mutex
	samples  map[sample.Query]Sample // the last of each query, as the store keeps it
	delivers int
	waited   map[sample.Query]bool   // whether the last one was held
	own      map[sample.Query]Sample // what Lookup finds
	wants    map[string][]sample.Query
	states   map[string]membership.State
}

func (n *node) last(q sample.Query) (Sample, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	s, ok := n.samples[q]
	return s, ok
}

// collect does what the glue does with a result.
func (n *node) collect(q sample.Query, age time.Duration, milli int64) {
	s := Sample{Collector: n.id, Result: sample.Result{Query: q, Taken: n.Clock.Now().Add(-age), Points: []sample.Point{{Milli: milli}}}}
	n.mu.Lock()
	n.own[q] = s
	n.mu.Unlock()
	n.Publish(s)
}

func (n *node) wantedBy(from string) []sample.Query {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.SortedFunc(slices.Values(n.wants[from]), sample.Compare)
}

var quick = timing{
	greeting: 5 * time.Second, write: 5 * time.Second, heartbeat: 20 * time.Millisecond, dead: 5 * time.Second, pace: time.Millisecond,
	firstRetry: 10 * time.Millisecond, lastRetry: 50 * time.Millisecond, verify: time.Hour,
}

// newNode makes a node that nobody knows. change may be nil.
func newNode(t testing.TB, id string, tls *certs.Peers, change func(*Options)) *node {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &node{
		id: id, view: &view{id: id}, registry: prometheus.NewRegistry(), samples: map[sample.Query]Sample{}, waited: map[sample.Query]bool{}, own: map[sample.Query]Sample{},
		wants: map[string][]sample.Query{}, states: map[string]membership.State{},
	}
	n.view.nodes = []membership.Node{{ID: id, State: membership.Active, Collects: true, Stream: listener.Addr().String()}}
	o := Options{
		Membership: n.view, Cluster: "test", Listener: listener, TLS: tls, Registerer: n.registry, Log: testr.NewWithInterface(t, testr.Options{}),
		Deliver: func(s Sample, held bool) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.delivers++
			n.waited[s.Query] = held
			if before, ok := n.samples[s.Query]; !ok || !before.Taken.After(s.Taken) {
				n.samples[s.Query] = s
			}
		},
		WantsChanged: func(from string, added, withdrawn []sample.Query) {
			n.mu.Lock()
			defer n.mu.Unlock()
			for _, q := range added {
				if slices.Contains(n.wants[from], q) {
					t.Errorf("%s: %s wants %s twice", id, from, q.Metric)
				}
			}
			n.wants[from] = append(n.wants[from], added...)
			for _, q := range withdrawn {
				if !slices.Contains(n.wants[from], q) {
					t.Errorf("%s: %s withdraws %s and never wanted it", id, from, q.Metric)
				}
			}
			n.wants[from] = slices.DeleteFunc(n.wants[from], func(q sample.Query) bool { return slices.Contains(withdrawn, q) })
		},
		StateChanged: func(from string, state membership.State) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.states[from] = state
		},
		Lookup: func(q sample.Query) (Sample, bool) {
			n.mu.Lock()
			defer n.mu.Unlock()
			if s, ok := n.own[q]; ok {
				return s, true
			}
			s, ok := n.samples[q]
			return s, ok
		},
	}
	if change != nil {
		change(&o)
	}
	n.Replication = New(o)
	n.timing = quick
	return n
}

func (n *node) start(t testing.TB) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := n.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	n.stop = sync.OnceFunc(func() {
		cancel()
		<-done
	})
	t.Cleanup(n.stop)
}

// introduce shows the nodes to each other, with the states that they have.
func introduce(nodes ...*node) {
	var all []membership.Node
	for _, n := range nodes {
		all = append(all, n.view.Local())
	}
	for _, n := range nodes {
		n.view.set(slices.Clone(all))
	}
}

// cluster starts nodes that know each other.
func cluster(t testing.TB, size int, change func(i int, o *Options)) []*node {
	t.Helper()
	return clusterWith(t, quick, size, change)
}

func clusterWith(t testing.TB, timing timing, size int, change func(i int, o *Options)) []*node {
	t.Helper()
	ca := certstest.NewAuthority(t)
	trusted := ca.Trusted()
	nodes := make([]*node, size)
	for i := range nodes {
		nodes[i] = newNode(t, fmt.Sprintf("node-%d", i), ca.Peers(t, serverName, trusted), func(o *Options) {
			if change != nil {
				change(i, o)
			}
		})
		nodes[i].timing = timing
	}
	introduce(nodes...)
	for _, n := range nodes {
		n.start(t)
	}
	return nodes
}

func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !condition(); {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func connected(nodes ...*node) bool {
	for _, n := range nodes {
		n.Replication.mu.RLock()
		streams, peers := len(n.streams), slices.Collect(maps.Values(n.peers))
		n.Replication.mu.RUnlock()
		// A stream is there at the one that accepts it a little earlier.
		peers = slices.DeleteFunc(peers, func(p *peer) bool { return !p.streaming() })
		if streams != len(nodes)-1 || len(peers) != len(nodes)-1 {
			return false
		}
	}
	return true
}

func (p *peer) streaming() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lost.IsZero()
}

func ask(i int) sample.Query {
	return sample.Query{Kind: sample.External, Namespace: "shop", Metric: fmt.Sprintf("queue-%d", i), Collector: "sqs", Interval: 15 * time.Second}
}

func counter(t testing.TB, n *node, name string) float64 {
	t.Helper()
	families, err := n.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			full := f.GetName()
			for _, l := range m.GetLabel() {
				full += "/" + l.GetValue()
			}
			if full == name {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}

func TestEachNodeGetsEachSample(t *testing.T) {
	nodes := cluster(t, 3, nil)
	for _, n := range nodes {
		for i := range 30 {
			n.Add(ask(i))
		}
	}
	eventually(t, "all are connected", func() bool { return connected(nodes...) })
	for i := range 30 {
		nodes[i%3].collect(ask(i), 0, int64(i))
	}
	for _, n := range nodes {
		for i := range 30 {
			if i%3 == slices.Index(nodes, n) {
				continue
			}
			eventually(t, "the sample is everywhere", func() bool { _, ok := n.last(ask(i)); return ok })
			got, _ := n.last(ask(i))
			if got.Points[0].Milli != int64(i) || got.Collector != nodes[i%3].id || got.Query != ask(i) {
				t.Errorf("%s has %+v", n.id, got)
			}
		}
	}
	for _, n := range nodes {
		if !n.Synced() {
			t.Errorf("%s is not synced", n.id)
		}
		for i := range 30 {
			if _, ok := n.last(ask(i)); ok && i%3 == slices.Index(nodes, n) {
				t.Errorf("%s got its own sample %d back", n.id, i)
			}
		}
	}
}

func TestWhatASampleSaysArrives(t *testing.T) {
	nodes := cluster(t, 2, nil)
	pods := ask(0)
	pods.Kind, pods.Target = sample.Pods, sample.ObjectRef{Group: "apps", Kind: "Deployment", Name: "cart"}
	shared := map[string]string{"app": "cart", "hash": "1"}
	tests := map[string]sample.Result{
		"pods with and without labels, and an error besides": {Points: []sample.Point{
			{Pod: "a", UID: "1", Labels: shared, Milli: 1}, {Pod: "b", UID: "2", Labels: shared, Milli: -2, Window: time.Minute},
			{Pod: "c", UID: "3", Milli: 3, Age: time.Second}, {Pod: "d", UID: "4", Labels: map[string]string{"app": "other"}, Container: "main"},
		}, Err: errors.New("e did not answer")},
		"no data":           {Err: sample.NoData("the queue is 100%% empty")},
		"an error":          {Err: errors.New("connection refused")},
		"a very long error": {Err: errors.New(strings.Repeat("x", maxText+1))},
		"one number":        {Points: []sample.Point{{Milli: 9_200_000_000_000_000_000}}},
	}
	i := 0
	for name, result := range tests {
		t.Run(name, func(t *testing.T) {
			result.Query, result.Taken = pods, time.Now()
			result.Query.Metric = fmt.Sprint("m", i)
			i++
			for _, n := range nodes {
				n.Add(result.Query)
			}
			eventually(t, "they are connected", func() bool { return connected(nodes...) })
			nodes[0].mu.Lock()
			nodes[0].own[result.Query] = Sample{Result: result, Collector: "node-0"}
			nodes[0].mu.Unlock()
			nodes[0].Publish(Sample{Result: result, Collector: "node-0"})
			eventually(t, "it arrives", func() bool { _, ok := nodes[1].last(result.Query); return ok })
			got, _ := nodes[1].last(result.Query)
			if diff := cmp.Diff(result.Points, got.Points); diff != "" {
				t.Error(diff)
			}
			if (got.Err == nil) != (result.Err == nil) || errors.Is(got.Err, sample.ErrNoData) != errors.Is(result.Err, sample.ErrNoData) {
				t.Errorf("error %v, want %v", got.Err, result.Err)
			}
			if result.Err != nil && got.Err.Error() != cut(result.Err.Error()) {
				t.Errorf("error %v, want %v", got.Err, result.Err)
			}
		})
	}
}

// F10: a clock that is wrong has no effect on ages.
func TestF10AgesDoNotDependOnClocks(t *testing.T) {
	shifts := []time.Duration{0, time.Hour, -time.Hour, 8 * 365 * 24 * time.Hour}
	nodes := cluster(t, len(shifts), func(i int, o *Options) { o.Clock = shifted{by: shifts[i]} })
	for _, n := range nodes {
		for i := range nodes {
			n.Add(ask(i))
		}
	}
	eventually(t, "all are connected", func() bool { return connected(nodes...) })
	start := time.Now()
	for i, n := range nodes {
		n.collect(ask(i), 10*time.Second, 1)
	}
	for i := range nodes {
		for j, n := range nodes {
			if i == j {
				continue
			}
			eventually(t, "the sample is everywhere", func() bool { _, ok := n.last(ask(i)); return ok })
			got, _ := n.last(ask(i))
			age, least := n.Clock.Since(got.Taken), 10*time.Second
			if most := least + time.Since(start); age < least-time.Second || age > most+10*time.Millisecond {
				t.Errorf("%s has a sample of %s that is %s old, and it is from %s to %s", n.id, got.Collector, age, least, most)
			}
		}
	}
}

func TestANodeThatJoinsGetsWhatIsThere(t *testing.T) {
	ca := certstest.NewAuthority(t)
	trusted := ca.Trusted()
	synced := make(chan struct{}, 10)
	old, young := newNode(t, "old", ca.Peers(t, serverName, trusted), nil), newNode(t, "young", ca.Peers(t, serverName, trusted), func(o *Options) {
		o.SnapshotReceived = func() { synced <- struct{}{} }
	})
	old.start(t)
	for i := range 100 {
		old.Add(ask(i))
		young.Add(ask(i))
		old.collect(ask(i), time.Second, int64(i))
	}
	old.Want(ask(200))
	if !old.Synced() {
		t.Error("a node that is alone is not synced")
	}
	young.view.SetState(membership.Joining)
	introduce(old, young)
	if young.Synced() {
		t.Error("a node without samples is synced")
	}
	young.start(t)
	<-synced
	if !young.Synced() {
		t.Error("not synced after the snapshot")
	}
	for i := range 100 {
		if got, ok := young.last(ask(i)); !ok || got.Points[0].Milli != int64(i) {
			t.Fatalf("after the snapshot sample %d is %+v", i, got)
		}
	}
	if got := young.wantedBy("old"); !slices.Equal(got, []sample.Query{ask(200)}) {
		t.Errorf("after the snapshot it wants %v", got)
	}
	eventually(t, "the state arrives", func() bool {
		old.mu.Lock()
		defer old.mu.Unlock()
		return old.states["young"] == membership.Joining
	})
	young.view.SetState(membership.Leaving)
	eventually(t, "the change of state arrives", func() bool {
		old.mu.Lock()
		defer old.mu.Unlock()
		return old.states["young"] == membership.Leaving
	})
}

// One that does not collect has only what it asks for.
func TestANodeThatDoesNotCollectSyncsNobody(t *testing.T) {
	ca := certstest.NewAuthority(t)
	trusted := ca.Trusted()
	var nodes []*node
	for _, id := range []string{"young", "engine", "old"} {
		nodes = append(nodes, newNode(t, id, ca.Peers(t, serverName, trusted), nil))
	}
	young, engine, old := nodes[0], nodes[1], nodes[2]
	engine.view.nodes[0].Collects = false
	young.view.SetState(membership.Joining)
	introduce(young, engine)
	if !young.Synced() {
		t.Error("a node that collects alone is not synced")
	}
	introduce(young, engine, old)
	young.start(t)
	engine.start(t)
	eventually(t, "the engine's snapshot is here", func() bool {
		young.Replication.mu.RLock()
		defer young.Replication.mu.RUnlock()
		return young.whole["engine"]
	})
	if young.Synced() {
		t.Error("synced by the engine")
	}
	old.start(t)
	eventually(t, "synced", young.Synced)
}

// F11: where all join at once, none waits for an active one.
func TestF11NodesThatStartTogetherAreSynced(t *testing.T) {
	ca := certstest.NewAuthority(t)
	trusted := ca.Trusted()
	nodes := make([]*node, 3)
	for i := range nodes {
		nodes[i] = newNode(t, fmt.Sprint(i), ca.Peers(t, serverName, trusted), nil)
		nodes[i].view.SetState(membership.Joining)
	}
	introduce(nodes...)
	nodes[0].start(t)
	nodes[1].start(t)
	eventually(t, "two are connected", func() bool {
		nodes[0].Replication.mu.RLock()
		defer nodes[0].Replication.mu.RUnlock()
		return nodes[0].whole["1"]
	})
	if nodes[0].Synced() {
		t.Error("synced before the third was heard")
	}
	nodes[2].start(t)
	for _, n := range nodes {
		eventually(t, "synced", n.Synced)
	}
}

func TestWantsAreOthersDemandWhileTheNodeIsThere(t *testing.T) {
	nodes := cluster(t, 3, nil)
	a, b := nodes[0], nodes[1]
	a.Want(ask(1))
	a.Want(ask(2))
	for _, n := range nodes[1:] {
		eventually(t, "the wants arrive", func() bool { return len(n.wantedBy(a.id)) == 2 })
	}
	a.Unwant(ask(1))
	for _, n := range nodes[1:] {
		eventually(t, "the withdrawal arrives", func() bool { return slices.Equal(n.wantedBy(a.id), []sample.Query{ask(2)}) })
	}

	// A stream that is lost and comes back tells the difference only.
	a.Replication.mu.RLock()
	stream := a.peers[b.id]
	a.Replication.mu.RUnlock()
	b.Replication.mu.RLock()
	incoming := b.streams[a.id]
	b.Replication.mu.RUnlock()
	_ = incoming.conn.NetConn().Close()
	eventually(t, "the stream is lost", func() bool {
		b.Replication.mu.RLock()
		defer b.Replication.mu.RUnlock()
		return b.streams[a.id] != incoming
	})
	a.Want(ask(3))
	a.Unwant(ask(2))
	eventually(t, "the difference arrives", func() bool { return slices.Equal(b.wantedBy(a.id), []sample.Query{ask(3)}) })
	if stream.node.ID != b.id {
		t.Error("another node")
	}

	a.stop()
	eventually(t, "the stream has ended", func() bool {
		b.Replication.mu.RLock()
		defer b.Replication.mu.RUnlock()
		return b.streams[a.id] == nil && b.demands[a.id].lostSince() != (time.Time{})
	})
	b.demands[a.id].expire(b.Clock.Now().Add(wantsGrace - 2*time.Second))
	if got := b.wantedBy(a.id); len(got) != 1 {
		t.Errorf("before the grace is over it wants %v", got)
	}
	b.demands[a.id].expire(b.Clock.Now().Add(wantsGrace))
	if got := b.wantedBy(a.id); len(got) != 0 {
		t.Errorf("after the grace it wants %v", got)
	}
}

func (d *demand) lostSince() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stream != nil {
		return time.Time{}
	}
	return d.lost
}

func TestASampleMayComeBeforeItsQuery(t *testing.T) {
	nodes := cluster(t, 2, nil)
	a, b := nodes[0], nodes[1]
	a.Add(ask(1))
	eventually(t, "they are connected", func() bool { return connected(nodes...) })
	a.collect(ask(1), 0, 7)
	eventually(t, "it is held", func() bool {
		b.Replication.mu.RLock()
		defer b.Replication.mu.RUnlock()
		return len(b.held) == 1
	})
	b.Add(ask(1))
	if got, ok := b.last(ask(1)); !ok || got.Points[0].Milli != 7 {
		t.Errorf("%+v", got)
	}
	b.Remove(ask(1))
	a.collect(ask(1), 0, 8)
	eventually(t, "it is held again", func() bool {
		b.Replication.mu.RLock()
		defer b.Replication.mu.RUnlock()
		return len(b.held) == 1
	})
	if b.heldSize <= 0 {
		t.Errorf("%d bytes are held", b.heldSize)
	}
}

// A node that begins may hear the collector's next sample before another node's snapshot, which has the last one.
func TestTheYoungestSampleThatComesBeforeItsQueryCounts(t *testing.T) {
	nodes := cluster(t, 3, nil)
	collector, other, b := nodes[0], nodes[1], nodes[2]
	collector.Add(ask(1))
	other.Add(ask(1))
	other.Add(ask(2))
	eventually(t, "they are connected", func() bool { return connected(nodes...) })
	held := func(n int) {
		t.Helper()
		eventually(t, "samples are held", func() bool {
			b.Replication.mu.RLock()
			defer b.Replication.mu.RUnlock()
			return len(b.held) == n
		})
	}
	collector.collect(ask(1), 0, 7)
	held(1)
	other.collect(ask(1), 5*time.Second, 6)
	other.collect(ask(2), 0, 8) // comes after it
	held(2)
	b.Add(ask(1))
	eventually(t, "it is delivered", func() bool { _, ok := b.last(ask(1)); return ok })
	if got, _ := b.last(ask(1)); got.Points[0].Milli != 7 {
		t.Errorf("%+v", got)
	}
	waited := func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.waited[ask(1)]
	}
	if !waited() {
		t.Error("it does not say that it was held")
	}
	collector.collect(ask(1), 0, 9)
	eventually(t, "the next one is delivered", func() bool { got, _ := b.last(ask(1)); return got.Points[0].Milli == 9 })
	if waited() {
		t.Error("it says that it was held")
	}
}

func TestWhatIsHeldIsBounded(t *testing.T) {
	n := newNode(t, "a", certstest.NewAuthority(t).Peers(t, serverName, &certstest.Bundle{}), nil)
	defer n.Listener.Close()
	hold := func(i int, content string, came time.Time) {
		n.Replication.mu.Lock()
		defer n.Replication.mu.Unlock()
		n.hold(queryID{byte(i), byte(i >> 8), byte(i >> 16)}, heldSample{content: content, came: came})
	}
	for i := range maxHeld + 10 {
		hold(i, "x", n.Clock.Now())
	}
	if len(n.held) != maxHeld || n.heldSize != maxHeld {
		t.Errorf("%d are held with %d bytes", len(n.held), n.heldSize)
	}
	if got := counter(t, n, "kubetide_replication_dropped_total/unknown"); got != 10 {
		t.Errorf("%v are counted", got)
	}
	hold(0, strings.Repeat("x", maxHeldBytes), n.Clock.Now())
	if n.heldSize > maxHeldBytes {
		t.Errorf("%d bytes are held", n.heldSize)
	}
	for i := range maxHeld {
		hold(i, "x", n.Clock.Now().Add(-holdFor-time.Second))
	}
	n.expire()
	if len(n.held) != 0 || n.heldSize != 0 {
		t.Errorf("%d are held with %d bytes after their time", len(n.held), n.heldSize)
	}
}

func TestFetchIsOneHop(t *testing.T) {
	nodes := cluster(t, 2, func(i int, o *Options) { o.Clock = shifted{by: time.Duration(i) * time.Hour} })
	a, b := nodes[0], nodes[1]
	a.Add(ask(1))
	eventually(t, "they are connected", func() bool { return connected(nodes...) })
	b.Add(ask(1))
	b.Add(ask(2))
	b.mu.Lock()
	b.own[ask(1)] = Sample{Collector: b.id, Result: sample.Result{Query: ask(1), Taken: b.Clock.Now().Add(-5 * time.Second), Points: []sample.Point{{Milli: 5}}}}
	b.mu.Unlock()
	got, err := a.Fetch(t.Context(), b.id, ask(1))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]sample.Point{{Milli: 5}}, got.Points, cmpopts.EquateEmpty()); diff != "" || got.Query != ask(1) || got.Collector != b.id {
		t.Errorf("%+v", got)
	}
	if age := a.Clock.Since(got.Taken); age < 5*time.Second-time.Millisecond || age > 7*time.Second {
		t.Errorf("it is %s old", age)
	}
	for what, q := range map[string]sample.Query{"a query without a sample": ask(2), "a query that nobody asks for": ask(3)} {
		if _, err := a.Fetch(t.Context(), b.id, q); !errors.Is(err, errNoSample) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := a.Fetch(t.Context(), "nobody", ask(1)); err == nil {
		t.Error("a node that is not there answers")
	}
	a.Replication.mu.RLock()
	peer := a.peers[b.id]
	a.Replication.mu.RUnlock()
	b.stop()
	eventually(t, "the stream has ended", func() bool { return !peer.streaming() })
	if _, err := a.Fetch(t.Context(), b.id, ask(1)); !errors.Is(err, errNoStream) {
		t.Errorf("a node that is gone: %v", err)
	}
	if len(peer.fetches) != 0 {
		t.Errorf("%d requests are left", len(peer.fetches))
	}
}

func TestANodeThatIsGoneHasNoSeries(t *testing.T) {
	nodes := cluster(t, 3, nil)
	eventually(t, "all are connected", func() bool { return connected(nodes...) })
	if n := testutil.CollectAndCount(lagCollector{nodes[0].Replication}); n != 2 {
		t.Errorf("%d series", n)
	}
	introduce(nodes[0], nodes[1])
	eventually(t, "its series goes", func() bool { return testutil.CollectAndCount(lagCollector{nodes[0].Replication}) == 1 })
}
