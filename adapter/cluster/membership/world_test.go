package membership

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/kubetide/kubetide/adapter/cluster/clustertest"
)

// The defaults of the flags. Tests run in synctest bubbles with the library's real settings, so nothing has to be scaled down.
const (
	rejoin       = 15 * time.Second
	suspectAfter = 3 * time.Second
)

// world is a network with nodes on it, and a name that resolves to what the test says.
type world struct {
	*testing.T
	network *clustertest.Network
	names   names
	nodes   map[netip.Addr]*node // those that run
	all     []*node
}

type node struct {
	*Gossip
	ip      netip.Addr
	metrics *prometheus.Registry
	cancel  context.CancelFunc
	ended   chan error
}

// in runs the test in a bubble.
func in(t *testing.T, test func(*world)) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &world{T: t, network: clustertest.New(rand.Uint64()), nodes: map[netip.Addr]*node{}}
		defer func() {
			for _, n := range w.all {
				n.cancel()
			}
			for _, n := range w.all {
				for range n.ended {
				}
			}
			// What the library still waits for ends by itself. The bubble fails the test if anything is left then.
			time.Sleep(time.Minute)
		}()
		test(w)
	})
}

// ip is the address of the i-th node.
func ip(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}) }

func ips(from, to int) []netip.Addr {
	var out []netip.Addr
	for i := from; i <= to; i++ {
		out = append(out, ip(i))
	}
	return out
}

func (w *world) options(at netip.Addr) Options {
	return Options{
		Node:    Node{ID: NewID("kubetide-"), State: Active, Collects: true, Stream: ":8004", Admin: ":8002", Version: "1.0.0"},
		Cluster: "blue", Join: []string{"kubetide"}, RejoinInterval: rejoin, SuspectAfter: suspectAfter,
		Resolver: &w.names, Transport: w.network.Transport(netip.AddrPortFrom(at, 8003)), Registerer: prometheus.NewRegistry(), Log: logr.Discard(),
	}
}

// start starts a node with a new ID.
func (w *world) start(at netip.Addr, change ...func(*Options)) *node {
	w.Helper()
	o := w.options(at)
	for _, f := range change {
		f(&o)
	}
	g, err := New(o)
	if err != nil {
		w.Fatal(err)
	}
	ctx, cancel := context.WithCancel(w.Context())
	n := &node{Gossip: g, ip: at, metrics: o.Registerer.(*prometheus.Registry), cancel: cancel, ended: make(chan error, 1)}
	go func() {
		defer close(n.ended)
		n.ended <- g.Run(ctx)
	}()
	w.nodes[at], w.all = n, append(w.all, n)
	return n
}

// cluster starts n nodes that find each other.
func (w *world) cluster(n int) []*node {
	w.Helper()
	w.names.resolve("kubetide", ips(1, n)...)
	var nodes []*node
	for _, at := range ips(1, n) {
		nodes = append(nodes, w.start(at))
	}
	w.within(rejoin+5*time.Second, "one view", w.oneView)
	return nodes
}

// kill ends a node as kill -9 does.
func (w *world) kill(n *node) {
	w.network.Kill(n.ip)
	n.cancel()
	delete(w.nodes, n.ip)
}

// within waits until the condition holds, and returns how long that took. It fails if that is too long.
func (w *world) within(bound time.Duration, what string, holds func() bool) time.Duration {
	w.Helper()
	start := time.Now()
	for {
		synctest.Wait()
		if holds() {
			return time.Since(start)
		}
		if time.Since(start) > bound {
			w.Fatalf("no %s within %s:\n%s", what, bound, w.views())
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// always fails if the condition does not hold at some time before the end.
func (w *world) always(during time.Duration, what string, holds func() bool) {
	w.Helper()
	for end := time.Now().Add(during); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		synctest.Wait()
		if !holds() {
			w.Fatalf("no longer %s:\n%s", what, w.views())
		}
	}
}

// oneView holds if all nodes know just each other.
func (w *world) oneView() bool {
	for _, n := range w.nodes {
		if !slices.Equal(ids(n.Nodes()), w.ids()) {
			return false
		}
	}
	return true
}

func (w *world) ids() []string {
	var out []string
	for _, n := range w.nodes {
		out = append(out, n.Local().ID)
	}
	slices.Sort(out)
	return out
}

func ids(nodes []Node) []string {
	var out []string
	for _, n := range nodes {
		out = append(out, n.ID)
	}
	return out
}

func (n *node) knows(other *node) bool { return slices.Contains(ids(n.Nodes()), other.Local().ID) }

func (w *world) anybodyKnows(other *node) bool {
	for _, n := range w.nodes {
		if n.knows(other) {
			return true
		}
	}
	return false
}

func (w *world) views() string {
	var out []string
	for _, n := range w.nodes {
		out = append(out, fmt.Sprintf("%s %s knows %s", n.ip, n.Local().ID, strings.Join(ids(n.Nodes()), " ")))
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

// count is the sum of a metric's values with the label value, or of all.
func (n *node) count(t *testing.T, name, label string) float64 {
	t.Helper()
	families, err := n.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, family := range families {
		for _, m := range family.Metric {
			if family.GetName() == name && (label == "" || m.Label[0].GetValue() == label) {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

// names are what names resolve to.
type names struct {
	mu   sync.Mutex
	ips  map[string][]netip.Addr // under mu; a name that is not there does not exist
	hang map[string]bool         // under mu
}

func (n *names) resolve(name string, ips ...netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ips == nil {
		n.ips = map[string][]netip.Addr{}
	}
	n.ips[name] = ips
	if ips == nil {
		delete(n.ips, name)
	}
}

func (n *names) LookupNetIP(ctx context.Context, _, host string) ([]netip.Addr, error) {
	n.mu.Lock()
	ips, ok := n.ips[host]
	hang := n.hang[host]
	n.mu.Unlock()
	if hang {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if !ok {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return slices.Clone(ips), nil
}

// percentile of durations, p from 0 to 100.
func percentile(all []time.Duration, p int) time.Duration {
	slices.Sort(all)
	return all[min(len(all)-1, len(all)*p/100)]
}
