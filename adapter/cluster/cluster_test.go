package cluster

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	"go.uber.org/goleak"
	"k8s.io/utils/clock"

	"github.com/kubetide/kubetide/adapter/cluster/clustertest"
	"github.com/kubetide/kubetide/adapter/cluster/membership"
	"github.com/kubetide/kubetide/adapter/collection"
	"github.com/kubetide/kubetide/adapter/store"
	"github.com/kubetide/kubetide/collectors"
	"github.com/kubetide/kubetide/internal/certs"
	"github.com/kubetide/kubetide/internal/certs/certstest"
	"github.com/kubetide/kubetide/internal/sample"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The nodes run in real time: their streams are real ones. A shorter time would have a busy machine's nodes taken for dead.
const (
	interval     = time.Second
	suspectAfter = 3 * time.Second
	syncTimeout  = 5 * time.Second
)

// lab is a cluster whose gossip goes through memory, and whose streams go through loopback addresses.
type lab struct {
	*testing.T
	network *clustertest.Network
	names   names
	tls     *certs.Peers
	nodes   []*node
	maxAge  time.Duration // of values; 0 for the usual one

	mu    sync.Mutex
	asked map[string][]time.Time // by metric: when the source was
	value atomic.Int64
}

type node struct {
	*Cluster
	id        string
	at        netip.Addr
	store     *store.Store
	scheduler *collection.Scheduler
	remote    map[sample.Query]bool // under lab.mu
	reports   map[string]string     // what was told of a metric last; under lab.mu
	sourceOut atomic.Bool           // for this node
	warns     atomic.Bool           // the source, when this node asks
	cancel    context.CancelFunc
	ended     chan struct{}
}

type names struct {
	mu  sync.Mutex
	ips []netip.Addr
}

func (n *names) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.ips), nil
}

func newLab(t *testing.T) *lab {
	ca := certstest.NewAuthority(t)
	l := &lab{T: t, network: clustertest.New(1), asked: map[string][]time.Time{}, tls: ca.Peers(t, "kubetide.test.svc", ca.Trusted())}
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() {
		for _, n := range l.nodes {
			n.cancel()
		}
		for _, n := range l.nodes {
			<-n.ended
		}
		// A probe of a node that does not answer outlives the library by about a second.
		l.eventually(5*time.Second, func() error { return goleak.Find(before) })
	})
	return l
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually waits for a condition.
func (l *lab) eventually(within time.Duration, condition func() error) {
	l.Helper()
	deadline := time.NewTimer(within)
	defer deadline.Stop()
	often := time.NewTicker(5 * time.Millisecond)
	defer often.Stop()
	for {
		err := condition()
		if err == nil {
			return
		}
		select {
		case <-deadline.C:
			l.Fatalf("not within %s: %v", within, err)
		case <-often.C:
		}
	}
}

// source is what a node asks. It counts who asks, and returns a number that grows.
type source struct {
	lab  *lab
	node *node
}

func (s source) Keys() []string { return nil }

func (s source) Parse(r collectors.Request) (sample.Query, error) { return r.Query("count", nil), nil }

func (s source) Open(q sample.Query) (collectors.Collector, error) {
	return collector{s, q.Metric}, nil
}

type collector struct {
	source
	metric string
}

func (c collector) Collect(context.Context) ([]sample.Point, error) {
	if c.node.sourceOut.Load() {
		return nil, errors.New("the source does not answer")
	}
	c.lab.mu.Lock()
	defer c.lab.mu.Unlock()
	c.lab.asked[c.metric] = append(c.lab.asked[c.metric], time.Now())
	points := []sample.Point{{Milli: c.lab.value.Add(1)}}
	if c.node.warns.Load() {
		return points, &collectors.Warning{Err: errors.New("it may not be what was meant")}
	}
	return points, nil
}

func queryOf(i int) sample.Query {
	return sample.Query{Kind: sample.External, Namespace: "shop", Metric: fmt.Sprintf("m%d", i), Collector: "count", Interval: interval}
}

// start starts a node that wants the queries.
func (l *lab) start(queries int) *node {
	l.Helper()
	return l.startNode(queries, true)
}

func (l *lab) startNode(queries int, collects bool) *node {
	l.Helper()
	i := len(l.nodes) + 1
	n := &node{at: netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), id: membership.NewID("node-"), remote: map[sample.Query]bool{}, reports: map[string]string{}, ended: make(chan struct{})}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(l.T, err)
	metrics := prometheus.NewRegistry()
	l.names.mu.Lock()
	l.names.ips = append(l.names.ips, n.at)
	l.names.mu.Unlock()
	gossip, err := membership.New(membership.Options{
		Node:    membership.Node{ID: n.id, State: membership.Joining, Collects: collects, Stream: listener.Addr().String()},
		Cluster: "test", Join: []string{"kubetide"}, RejoinInterval: 2 * time.Second, SuspectAfter: suspectAfter, Resolver: &l.names,
		Transport: l.network.Transport(netip.AddrPortFrom(n.at, 8003)), Registerer: metrics, Log: logr.Discard(),
	})
	must(l.T, err)
	n.Cluster = New(Options{Membership: gossip, Name: "test", Listener: listener, TLS: l.tls, SyncTimeout: syncTimeout,
		Registerer: metrics, Log: logr.Discard()})
	n.store = store.New(clock.RealClock{}, l.maxAge)
	registry := collectors.NewRegistry()
	registry.Register(sample.External, source{l, n}, "count")
	report := func(r sample.Result) {
		l.mu.Lock()
		defer l.mu.Unlock()
		n.reports[r.Query.Metric] = fmt.Sprint(len(r.Points), " ", r.Err, " ", r.Warning)
	}
	n.scheduler = collection.New(collection.Options{Registry: registry, Insert: n.Insert, Report: report, Turn: n.Turn, Log: logr.Discard()})
	n.Attach(Adapter{Insert: n.store.Insert, Report: report, Answer: n.store.Answer, Reconsider: n.scheduler.Reconsider, Works: n.scheduler.Works, Want: func(q sample.Query) func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		n.remote[q] = true
		n.want(q)
		return func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			delete(n.remote, q)
			n.unwant(q)
		}
	}})
	for i := range queries {
		n.want(queryOf(i))
	}
	ctx, cancel := context.WithCancel(l.Context())
	n.cancel = cancel
	go func() {
		defer close(n.ended)
		var wg sync.WaitGroup
		wg.Go(func() { n.scheduler.Run(ctx) })
		if err := n.Run(ctx); err != nil {
			l.Errorf("%s: %v", n.id, err)
		}
		wg.Wait()
	}()
	l.nodes = append(l.nodes, n)
	return n
}

func (n *node) want(q sample.Query) {
	n.store.Add(q, true)
	n.Wanted(q, true)
	n.scheduler.Add(q)
}

func (n *node) unwant(q sample.Query) {
	n.store.Forget(q)
	n.Wanted(q, false)
	n.scheduler.Remove(q)
}

// settled waits until all of the nodes are active in the view of each, and in its metrics.
func (l *lab) settled(nodes ...*node) {
	l.Helper()
	l.eventually(10*time.Second, func() error {
		for _, n := range nodes {
			view := n.Nodes()
			active := slices.DeleteFunc(view, func(v Node) bool { return v.State != membership.Active })
			if len(view) != len(nodes) || len(active) != len(nodes) {
				return fmt.Errorf("%s sees %d active nodes", n.id, len(active))
			}
			want := fmt.Sprintf("# HELP kubetide_cluster_nodes Nodes that this one knows, itself included. Labeled by status: joining, active, leaving.\n"+
				"# TYPE kubetide_cluster_nodes gauge\n"+
				"kubetide_cluster_nodes{status=\"active\"} %d\nkubetide_cluster_nodes{status=\"joining\"} 0\nkubetide_cluster_nodes{status=\"leaving\"} 0\n", len(nodes))
			if err := testutil.GatherAndCompare(n.options.Registerer.(*prometheus.Registry), strings.NewReader(want), "kubetide_cluster_nodes"); err != nil {
				return fmt.Errorf("%s: %w", n.id, err)
			}
		}
		return nil
	})
}

// during returns how often the source was asked for each metric in the time that f takes.
func (l *lab) during(f func()) map[string]int {
	l.mu.Lock()
	clear(l.asked)
	l.mu.Unlock()
	f()
	l.mu.Lock()
	defer l.mu.Unlock()
	counts := map[string]int{}
	for metric, times := range l.asked {
		counts[metric] = len(times)
	}
	return counts
}

// watch reads all queries of the nodes for a while, and returns the greatest age of a value, and how many reads had none.
func (l *lab) watch(length time.Duration, queries int, nodes ...*node) (oldest time.Duration, none int) {
	end := time.NewTimer(length)
	defer end.Stop()
	often := time.NewTicker(20 * time.Millisecond)
	defer often.Stop()
	for {
		for _, n := range nodes {
			for i := range queries {
				switch a := n.store.Answer(queryOf(i)); a.State {
				case sample.Fresh:
					oldest = max(oldest, time.Since(a.Taken))
				default:
					none++
				}
			}
		}
		select {
		case <-end.C:
			return oldest, none
		case <-often.C:
		}
	}
}

func TestNodesShareTheCollecting(t *testing.T) {
	const queries = 120
	l := newLab(t)
	nodes := []*node{l.start(queries), l.start(queries), l.start(queries)}
	l.settled(nodes...)
	l.watch(2*interval, queries, nodes...) // until hand-overs are over
	counts := l.during(func() {
		if oldest, none := l.watch(5*interval, queries, nodes...); none > 0 || oldest > interval+time.Second {
			t.Errorf("%d reads had no value, the oldest was %s old", none, oldest)
		}
	})
	total := 0
	for i := range queries {
		n := counts[queryOf(i).Metric]
		if total += n; n < 4 || n > 7 {
			t.Errorf("%s was collected %d times in 5 intervals", queryOf(i).Metric, n)
		}
	}
	owned := 0.0
	for _, n := range nodes {
		owned += n.owned()
		if share := n.owned() / queries; share < 0.15 || share > 0.55 {
			t.Errorf("%s owns %.2f of the queries", n.id, share)
		}
	}
	t.Logf("%d collections of %d queries in 5 intervals", total, queries)
	if owned != queries {
		t.Errorf("%v queries are owned", owned)
	}
	// Any node answers the same.
	l.eventually(5*time.Second, func() error {
		for i := range queries {
			q := queryOf(i)
			first := nodes[0].store.Answer(q)
			for _, n := range nodes[1:] {
				if a := n.store.Answer(q); a.State != sample.Fresh || a.Points[0].Milli != first.Points[0].Milli {
					return fmt.Errorf("%s: %v and %v", q.Metric, first, a)
				}
			}
		}
		return nil
	})
}

// tookOver says whether the nodes took over as many queries for the reasons, and each of them saw as many handed over.
func tookOver(queries float64, nodes []*node, reasons ...string) error {
	total := 0.0
	for _, n := range nodes {
		for _, reason := range reasons {
			total += testutil.ToFloat64(n.metrics.takeovers.WithLabelValues(reason))
		}
		n.mu.Lock()
		for _, known := range n.queries {
			if !known.moved.IsZero() {
				n.mu.Unlock()
				return fmt.Errorf("%s waits for %s", n.id, known.owner)
			}
		}
		n.mu.Unlock()
		var handovers dto.Metric
		if err := n.metrics.handover.Write(&handovers); err != nil {
			return err
		}
		if seen := handovers.GetHistogram().GetSampleCount(); float64(seen) < queries {
			return fmt.Errorf("%s saw %d queries handed over, not %v", n.id, seen, queries)
		}
	}
	// On a slow machine two may find the owner silent.
	if total < queries || total > queries*3/2 {
		return fmt.Errorf("%v queries were taken over (%v), not %v", total, reasons, queries)
	}
	return nil
}

func TestSurvivorsTakeOver(t *testing.T) {
	const queries = 60
	l := newLab(t)
	nodes := []*node{l.start(queries), l.start(queries), l.start(queries)}
	l.settled(nodes...)
	l.watch(2*interval, queries, nodes...)
	owned := nodes[0].owned()
	// As kill -9 does: nobody is told.
	l.network.Kill(nodes[0].at)
	for i := range queries {
		nodes[0].scheduler.Remove(queryOf(i))
	}
	if oldest, none := l.watch(6*interval, queries, nodes[1:]...); none > 0 || oldest > interval+7*time.Second {
		t.Errorf("%d reads had no value, the oldest was %s old", none, oldest)
	} else {
		t.Logf("the oldest value was %s old", oldest)
	}
	l.settled(nodes[1:]...)
	// Each of its queries was taken over once, be it before the others knew.
	l.eventually(5*time.Second, func() error { return tookOver(owned, nodes[1:], ownerSilent, ownerFailed) })
}

func TestALeavingNodeHandsOver(t *testing.T) {
	const queries = 60
	l := newLab(t)
	nodes := []*node{l.start(queries), l.start(queries), l.start(queries)}
	l.settled(nodes...)
	l.watch(2*interval, queries, nodes...)
	leaving, owned := nodes[0], nodes[0].owned()
	leaving.Leave()
	var gone sync.WaitGroup
	gone.Go(func() {
		oldest, none := l.watch(3*interval, queries, nodes...) // it still answers
		if none > 0 || oldest > interval+time.Second {
			t.Errorf("%d reads had no value, the oldest was %s old", none, oldest)
		}
		leaving.cancel()
		<-leaving.ended
	})
	gone.Wait()
	if oldest, none := l.watch(3*interval, queries, nodes[1:]...); none > 0 || oldest > interval+time.Second {
		t.Errorf("%d reads had no value, the oldest was %s old", none, oldest)
	}
	l.settled(nodes[1:]...)
	l.eventually(5*time.Second, func() error { return tookOver(owned, nodes[1:], ownerLeaving) })
}

func TestANodeThatJoinsIsReadyOnceItKnowsWhatTheOthersDo(t *testing.T) {
	const queries = 60
	l := newLab(t)
	first := l.start(queries)
	l.eventually(5*time.Second, first.Ready)
	l.watch(interval, queries, first)
	second := l.start(queries)
	l.eventually(5*time.Second, second.Ready)
	for i := range queries {
		if a := second.store.Answer(queryOf(i)); a.State != sample.Fresh {
			t.Errorf("%s: %v", queryOf(i).Metric, a)
		}
	}
}

// What an engine on one node asks for is collected by all, and no longer when it does not ask any more.
func TestWhatANodeAsksForIsCollectedByAll(t *testing.T) {
	l := newLab(t)
	nodes := []*node{l.start(0), l.start(0), l.start(0)}
	l.settled(nodes...)
	for i := range 10 {
		nodes[0].want(queryOf(i))
		nodes[0].Ask(queryOf(i), true)
	}
	l.eventually(5*time.Second, func() error {
		for i := range 10 {
			for _, n := range nodes {
				if a := n.store.Answer(queryOf(i)); a.State != sample.Fresh {
					return fmt.Errorf("%s on %s: %v", queryOf(i).Metric, n.id, a)
				}
			}
		}
		return nil
	})
	for i := range 10 {
		nodes[0].unwant(queryOf(i))
		nodes[0].Ask(queryOf(i), false)
	}
	l.eventually(5*time.Second, func() error {
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, n := range nodes[1:] {
			if len(n.remote) > 0 {
				return fmt.Errorf("%s still collects %d queries for another", n.id, len(n.remote))
			}
		}
		return nil
	})
}

// An engine that is apart reads what others collect, and stays ready without them.
func TestANodeThatDoesNotCollectReadsWhatOthersDo(t *testing.T) {
	const queries, shared = 10, 5
	l := newLab(t)
	l.maxAge = 5 * interval
	engine := l.startNode(0, false)
	l.eventually(5*time.Second, engine.Ready)
	adapters := []*node{l.start(shared), l.start(shared)}
	l.settled(engine, adapters[0], adapters[1])
	for i := range queries {
		engine.want(queryOf(i))
		engine.Ask(queryOf(i), true)
	}
	l.eventually(5*time.Second, func() error {
		for i := range queries {
			if a := engine.store.Answer(queryOf(i)); a.State != sample.Fresh {
				return fmt.Errorf("%s: %v", queryOf(i).Metric, a)
			}
		}
		return nil
	})
	l.watch(2*interval, queries, engine)
	counts := l.during(func() {
		if oldest, none := l.watch(5*interval, queries, engine); none > 0 || oldest > interval+time.Second {
			t.Errorf("%d reads had no value, the oldest was %s old", none, oldest)
		}
	})
	for i := range queries {
		if n := counts[queryOf(i).Metric]; n < 4 || n > 7 {
			t.Errorf("%s was collected %d times in 5 intervals", queryOf(i).Metric, n)
		}
	}
	if owned := engine.owned(); owned > 0 {
		t.Errorf("it owns %v queries", owned)
	}

	for _, n := range adapters {
		l.network.Kill(n.at)
		for i := range queries {
			n.scheduler.Remove(queryOf(i))
		}
	}
	l.eventually(suspectAfter+time.Second+l.maxAge+2*interval, func() error {
		if !engine.outlook().cutOff(time.Now()) {
			return errors.New("it hears somebody")
		}
		return nil
	})
	if err := engine.Ready(); err != nil {
		t.Errorf("without adapters it is unready: %v", err)
	}
}

// Whoever leads tells people how the collections of all nodes end.
func TestEachNodeIsToldOfEachOutcome(t *testing.T) {
	const queries = 10
	l := newLab(t)
	nodes := []*node{l.start(queries), l.start(queries), l.start(queries)}
	l.settled(nodes...)
	all := func(want string) func() error {
		return func() error {
			l.mu.Lock()
			defer l.mu.Unlock()
			for _, n := range nodes {
				for i := range queries {
					if got := n.reports[queryOf(i).Metric]; got != want {
						return fmt.Errorf("%s was told %q of %s, want %q", n.id, got, queryOf(i).Metric, want)
					}
				}
			}
			return nil
		}
	}
	each := func(do func(n *node)) {
		for _, n := range nodes {
			do(n)
		}
	}
	l.eventually(5*interval, all("1 <nil> <nil>"))
	each(func(n *node) { n.warns.Store(true) })
	l.eventually(5*interval, all("1 <nil> it may not be what was meant"))
	each(func(n *node) { n.sourceOut.Store(true) })
	l.eventually(5*interval, all("0 the source does not answer <nil>"))
	each(func(n *node) { n.warns.Store(false); n.sourceOut.Store(false) })
	l.eventually(20*interval, all("1 <nil> <nil>"))
}

// While a source is out, its last value is served until it is too old: also by a node that joins meanwhile.
func TestANodeThatJoinsInAnOutageHasTheLastValues(t *testing.T) {
	const queries = 10
	l := newLab(t)
	nodes := []*node{l.start(queries), l.start(queries)}
	l.settled(nodes...)
	l.watch(2*interval, queries, nodes...) // until hand-overs are over
	for _, n := range nodes {
		n.sourceOut.Store(true)
	}
	const failure = "0 the source does not answer <nil>"
	told := func(n *node, metric string) string {
		l.mu.Lock()
		defer l.mu.Unlock()
		return n.reports[metric]
	}
	l.eventually(5*interval, func() error {
		for i := range queries {
			for _, n := range nodes {
				if got := told(n, queryOf(i).Metric); got != failure {
					return fmt.Errorf("%s was told %q of query %d", n.id, got, i)
				}
			}
		}
		return nil
	})
	joined := l.startNode(queries, false)
	l.eventually(5*time.Second, func() error {
		for i := range queries {
			want, got := nodes[0].store.Answer(queryOf(i)), joined.store.Answer(queryOf(i))
			if got.State != sample.Fresh || want.State != sample.Fresh || got.Points[0].Milli != want.Points[0].Milli || got.Cause == nil {
				return fmt.Errorf("query %d: %v, want %v", i, got, want)
			}
			if outcome := told(joined, queryOf(i).Metric); outcome != failure {
				return fmt.Errorf("it was told %q of query %d", outcome, i)
			}
		}
		return nil
	})
}

// A node that has lost a value asks the owner for it when it is read, and not more than once a second.
func TestAMissingValueIsFetchedFromItsOwner(t *testing.T) {
	const queries = 30
	l := newLab(t)
	nodes := []*node{l.start(queries), l.start(queries)}
	l.settled(nodes...)
	l.watch(2*interval, queries, nodes...)
	reader := nodes[0]
	var q sample.Query
	l.eventually(5*time.Second, func() error {
		for _, shown := range reader.Queries() {
			if shown.Owner == nodes[1].id {
				for i := range queries {
					if queryOf(i).Metric == shown.Metric {
						q = queryOf(i)
					}
				}
				return nil
			}
		}
		return fmt.Errorf("%s owns nothing", nodes[1].id)
	})
	reader.store.Forget(q)
	reader.store.Add(q, true)
	if a := reader.store.Answer(q); a.State != sample.Missing {
		t.Fatalf("it is there: %v", a)
	}
	began := time.Now()
	if !reader.Fetch(t.Context(), q.Kind, q.Namespace, q.Metric) {
		t.Error("nothing came")
	}
	if a := reader.store.Answer(q); a.State != sample.Fresh {
		t.Errorf("%v", a)
	}
	reader.store.Forget(q)
	reader.store.Add(q, true)
	if again := reader.Fetch(t.Context(), q.Kind, q.Namespace, q.Metric); again && time.Since(began) < fetchAgain {
		t.Error("it was asked for again at once")
	}
	// Those that are fresh are none of the few that one read may ask for.
	var last sample.Query
	owned := 0
	for i := 0; owned <= maxFetched; i++ {
		same := sample.Query{Kind: q.Kind, Namespace: q.Namespace, Metric: "many", Selector: fmt.Sprint("label=", i), Collector: q.Collector, Interval: time.Hour}
		for _, n := range nodes {
			n.want(same)
		}
		reader.mu.Lock()
		if reader.queries[same].owner == nodes[1].id {
			last = same
			owned++
		}
		reader.mu.Unlock()
	}
	l.eventually(10*time.Second, func() (err error) {
		reader.store.Each(func(q sample.Query, a sample.Answer) {
			if q.Metric == last.Metric && a.State != sample.Fresh {
				err = fmt.Errorf("%s: %v", q.Selector, a)
			}
		})
		return err
	})
	reader.store.Forget(last)
	reader.store.Add(last, true)
	if !reader.Fetch(t.Context(), last.Kind, last.Namespace, last.Metric) || reader.store.Answer(last).State != sample.Fresh {
		t.Errorf("among %d that are fresh it is not fetched: %v", owned-1, reader.store.Answer(last))
	}
	if reader.Fetch(t.Context(), q.Kind, q.Namespace, "unknown") {
		t.Error("something came that nobody asks for")
	}
}

func TestStatus(t *testing.T) {
	const queries = 3
	l := newLab(t)
	nodes := []*node{l.start(queries), l.start(queries)}
	l.settled(nodes...)
	server := httptest.NewServer(nodes[0].Handler())
	defer server.Close()
	get := func(path string, into any) int {
		response, err := http.Get(server.URL + path) //nolint:noctx // the test's own server
		must(t, err)
		defer response.Body.Close()
		if into != nil {
			must(t, json.NewDecoder(response.Body).Decode(into))
		}
		return response.StatusCode
	}
	var all []Node
	get("/status/cluster/nodes", &all)
	if len(all) != 2 || !slices.IsSortedFunc(all, func(a, b Node) int { return cmp.Compare(a.ID, b.ID) }) {
		t.Errorf("%+v", all)
	}
	var leaving []Node
	if get("/status/cluster/nodes?status=leaving", &leaving); len(leaving) != 0 {
		t.Errorf("%+v", leaving)
	}
	var local, other Node
	get("/status/cluster/nodes/local", &local)
	get("/status/cluster/nodes/"+nodes[1].id, &other)
	if local.ID != nodes[0].id || !local.Local || other.ID != nodes[1].id || other.Local {
		t.Errorf("%+v, %+v", local, other)
	}
	l.eventually(5*time.Second, func() error {
		var shown []Query
		get("/status/cluster/queries", &shown)
		for _, q := range shown {
			if q.Collected == "" || q.Collected != q.Owner {
				return fmt.Errorf("%+v", q)
			}
		}
		if len(shown) != queries {
			return fmt.Errorf("%d queries", len(shown))
		}
		return nil
	})
	for path, want := range map[string]int{"/status/cluster/nodes/none": http.StatusNotFound, "/status/cluster/nodes?forward=none": http.StatusNotFound,
		"/status/cluster/nodes?forward=" + nodes[1].id: http.StatusBadGateway} { // it has no admin port
		if code := get(path, nil); code != want {
			t.Errorf("%s answers %d", path, code)
		}
	}
	if problems, err := testutil.GatherAndLint(nodes[0].options.Registerer.(*prometheus.Registry)); err != nil || len(problems) > 0 {
		t.Error(err, problems)
	}
}
