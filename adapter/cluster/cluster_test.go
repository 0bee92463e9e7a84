package cluster

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/utils/clock"

	"github.com/kubetide/kubetide/adapter/cluster/clustertest"
	"github.com/kubetide/kubetide/adapter/cluster/membership"
	"github.com/kubetide/kubetide/adapter/collection"
	"github.com/kubetide/kubetide/adapter/store"
	"github.com/kubetide/kubetide/collectors"
	"github.com/kubetide/kubetide/internal/certs"
	"github.com/kubetide/kubetide/internal/sample"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The nodes run in real time: their streams are real ones. A shorter time would have a busy machine's nodes taken for dead.
const (
	interval     = time.Second
	suspectAfter = 3 * time.Second
)

// lab is a cluster whose gossip goes through memory, and whose streams go through loopback addresses.
type lab struct {
	*testing.T
	network *clustertest.Network
	names   names
	tls     *certs.Peers
	nodes   []*node

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
	l := &lab{T: t, network: clustertest.New(1), asked: map[string][]time.Time{}, tls: peers(t)}
	t.Cleanup(func() {
		for _, n := range l.nodes {
			n.cancel()
		}
		for _, n := range l.nodes {
			<-n.ended
		}
	})
	return l
}

func peers(t *testing.T) *certs.Peers {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "kubetide"}, DNSNames: []string{"kubetide.test.svc"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	private, err := x509.MarshalECPrivateKey(key)
	must(t, err)
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})
	content, err := dynamiccertificates.NewStaticCertKeyContent("test", certPEM, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: private}))
	must(t, err)
	return certs.NewPeers(content, bundle(certPEM), "kubetide.test.svc")
}

type bundle []byte

func (b bundle) CurrentCABundleContent() []byte { return b }

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

// The source counts who asks, and returns a number that grows.
func (l *lab) Keys() []string { return nil }

func (l *lab) Parse(r collectors.Request) (sample.Query, error) { return r.Query("count", nil), nil }

func (l *lab) Open(q sample.Query) (collectors.Collector, error) { return collector{l, q.Metric}, nil }

type collector struct {
	lab    *lab
	metric string
}

func (c collector) Collect(context.Context) ([]sample.Point, error) {
	c.lab.mu.Lock()
	defer c.lab.mu.Unlock()
	c.lab.asked[c.metric] = append(c.lab.asked[c.metric], time.Now())
	return []sample.Point{{Milli: c.lab.value.Add(1)}}, nil
}

func queryOf(i int) sample.Query {
	return sample.Query{Kind: sample.External, Namespace: "shop", Metric: fmt.Sprintf("m%d", i), Collector: "count", Interval: interval}
}

// start starts a node that wants the queries.
func (l *lab) start(queries int) *node {
	l.Helper()
	i := len(l.nodes) + 1
	n := &node{at: netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), id: membership.NewID("node-"), remote: map[sample.Query]bool{}, ended: make(chan struct{})}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(l.T, err)
	l.names.mu.Lock()
	l.names.ips = append(l.names.ips, n.at)
	l.names.mu.Unlock()
	gossip, err := membership.New(membership.Options{
		Node:    membership.Node{ID: n.id, State: membership.Joining, Collects: true, Stream: listener.Addr().String()},
		Cluster: "test", Join: []string{"kubetide"}, RejoinInterval: 2 * time.Second, SuspectAfter: suspectAfter, Resolver: &l.names,
		Transport: l.network.Transport(netip.AddrPortFrom(n.at, 8003)), Log: logr.Discard(),
	})
	must(l.T, err)
	n.Cluster = New(Options{Membership: gossip, Name: "test", Listener: listener, TLS: l.tls, SyncTimeout: 5 * time.Second,
		Registerer: prometheus.NewRegistry(), Log: logr.Discard()})
	n.store = store.New(clock.RealClock{}, 0)
	registry := collectors.NewRegistry()
	registry.Register(sample.External, l, "count")
	n.scheduler = collection.New(collection.Options{Registry: registry, Insert: n.Insert, Turn: n.Turn, Log: logr.Discard()})
	n.Attach(Adapter{Insert: n.store.Insert, Answer: n.store.Answer, Reconsider: n.scheduler.Reconsider, Want: func(q sample.Query) func() {
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

// settled waits until all of the nodes are active in the view of each.
func (l *lab) settled(nodes ...*node) {
	l.Helper()
	l.eventually(10*time.Second, func() error {
		for _, n := range nodes {
			view := n.Nodes()
			active := slices.DeleteFunc(view, func(v Node) bool { return v.State != membership.Active })
			if len(view) != len(nodes) || len(active) != len(nodes) {
				return fmt.Errorf("%s sees %d active nodes", n.id, len(active))
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

func TestSurvivorsTakeOver(t *testing.T) {
	const queries = 60
	l := newLab(t)
	nodes := []*node{l.start(queries), l.start(queries), l.start(queries)}
	l.settled(nodes...)
	l.watch(2*interval, queries, nodes...)
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
}

func TestALeavingNodeHandsOver(t *testing.T) {
	const queries = 60
	l := newLab(t)
	nodes := []*node{l.start(queries), l.start(queries), l.start(queries)}
	l.settled(nodes...)
	l.watch(2*interval, queries, nodes...)
	leaving := nodes[0]
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
