package membership

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/hashicorp/go-sockaddr"
	"github.com/hashicorp/memberlist"
	"github.com/prometheus/client_golang/prometheus"
)

// Options of New. What has no default is required.
type Options struct {
	// Node is this node. Where an address has no IP address, as in :8004, it gets that of AdvertiseAddr.
	Node Node
	// Cluster keeps clusters apart: all nodes of one have the same name, 255 bytes at most. It may be empty.
	Cluster string
	// BindAddr is an IP address and a port for TCP and UDP, as in :8003. Port 0 is any free one.
	BindAddr string
	// AdvertiseAddr is where others reach the node. Default: the private IP address of the host, and the port of BindAddr.
	AdvertiseAddr string
	// Join are addresses of nodes, or names that resolve to such, with or without a port. Default port: the node's own.
	Join []string
	// JoinWithin bounds the time until another node is found; Run fails if there is none. 0 does not.
	JoinWithin time.Duration
	// RejoinInterval is how often the names are resolved again.
	RejoinInterval time.Duration
	// SuspectAfter is about how long a node that does not answer counts as there.
	SuspectAfter time.Duration
	// SecretKeyFile has base64 keys of 16, 24 or 32 bytes, one a line, and is read again each RejoinInterval: the first encrypts, all can
	// read. Default: gossip is not encrypted.
	SecretKeyFile string
	// Resolver is net.DefaultResolver if nil.
	Resolver Resolver
	// Transport takes the place of TCP and UDP on BindAddr in tests.
	Transport  memberlist.Transport
	Registerer prometheus.Registerer
	Log        logr.Logger
}

// Resolver finds the addresses of a name. *net.Resolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// ErrNotJoined is what Run returns if no other node was found within Options.JoinWithin.
var ErrNotJoined = errors.New("no other node was found in time")

// Gossip is the membership of a cluster. Nodes find each other by the names of Options.Join and gossip, and watch each other.
type Gossip struct {
	subscribers
	o         Options
	bindPort  uint16
	padding   int // see meta
	advertise netip.AddrPort
	keyring   *memberlist.Keyring // nil: no encryption
	list      *memberlist.Memberlist
	metrics   *metrics
	refusals  refusalLog
	changed   chan struct{} // has an item while subscribers are to be called
	tried     chan struct{} // closed after the first attempt to join
	doubtful  chan member   // nodes that came back from long ago, by hearsay

	mu     sync.Mutex
	local  Node              // under mu
	others map[string]member // under mu; those that are there
	gone   records           // under mu
}

// member is another node, and where its gossip is.
type member struct {
	Node
	address netip.AddrPort
}

var _ Membership = (*Gossip)(nil)

// New opens the listeners. Others can join from now on; Run must be called, it closes them.
func New(o Options) (*Gossip, error) {
	g := &Gossip{
		o: o, padding: rand.IntN(maxPadding), local: o.Node, others: map[string]member{},
		metrics: newMetrics(), changed: make(chan struct{}, 1), tried: make(chan struct{}), doubtful: make(chan member, maxDoubtful),
	}
	if len(o.Cluster) > memberlist.LabelMaxSize {
		return nil, fmt.Errorf("the cluster's name is longer than %d bytes", memberlist.LabelMaxSize)
	}
	if o.SecretKeyFile != "" {
		keys, err := readKeys(o.SecretKeyFile)
		if err != nil {
			return nil, fmt.Errorf("keys of the gossip: %w", err)
		}
		if g.keyring, err = memberlist.NewKeyring(keys, keys[0]); err != nil {
			return nil, fmt.Errorf("keys of the gossip: %w", err)
		}
	}
	if g.o.Resolver == nil {
		g.o.Resolver = net.DefaultResolver
	}

	transport, err := g.listen()
	if err != nil {
		return nil, err
	}
	fail := func(err error) (*Gossip, error) {
		_ = transport.Shutdown()
		return nil, err
	}
	for _, address := range []*string{&g.local.Stream, &g.local.Admin} {
		if *address, err = reachable(*address, g.advertise.Addr()); err != nil {
			return fail(err)
		}
	}
	if meta := encodeMeta(g.local, maxPadding); len(meta)+len(Leaving) > memberlist.MetaMaxSize {
		return fail(fmt.Errorf("what the node tells of itself is longer than %d bytes: %s", memberlist.MetaMaxSize, meta))
	}
	for _, entry := range o.Join {
		if _, _, err := splitEntry(entry, g.bindPort); err != nil {
			return fail(err)
		}
	}
	if g.list, err = memberlist.Create(g.settings(transport)); err != nil {
		return fail(fmt.Errorf("gossip: %w", err))
	}
	if o.Registerer != nil {
		o.Registerer.MustRegister(g.metrics.joins, g.metrics.leaves, g.metrics.refused, nodesCollector{g})
	}
	return g, nil
}

// listen opens the transport and finds out where others reach it.
func (g *Gossip) listen() (memberlist.Transport, error) {
	if transport := g.o.Transport; transport != nil {
		ip, port, err := transport.FinalAdvertiseAddr("", 0)
		if err != nil {
			return nil, err
		}
		g.advertise = addrPort(ip, uint16(port))
		g.bindPort = uint16(port)
		return transport, nil
	}
	host, portText, err := net.SplitHostPort(g.o.BindAddr)
	if err != nil {
		return nil, fmt.Errorf("gossip's address to listen on: %w", err)
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("gossip's address to listen on: %w", err)
	}
	// A port that is free for TCP may not be so for UDP.
	var transport *memberlist.NetTransport
	for range 10 {
		transport, err = memberlist.NewNetTransport(&memberlist.NetTransportConfig{BindAddrs: []string{host}, BindPort: int(port), Logger: g.logger()})
		if err == nil || port != 0 {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("gossip: %w", err)
	}
	g.bindPort = uint16(transport.GetAutoBindPort())
	if g.advertise, err = advertised(g.o.AdvertiseAddr, host, g.bindPort); err != nil {
		_ = transport.Shutdown()
		return nil, err
	}
	return transport, nil
}

// advertised is the address that was given, or the one that is bound, or else a private or a public one of the host.
func advertised(given, bound string, port uint16) (netip.AddrPort, error) {
	if given != "" {
		host, text, err := net.SplitHostPort(given) // it takes [10.0.0.1]:8003, too, as templates write it for both kinds of address
		if err != nil {
			return netip.AddrPort{}, fmt.Errorf("gossip's address for others: %w", err)
		}
		ip, err := netip.ParseAddr(host)
		if err != nil {
			return netip.AddrPort{}, fmt.Errorf("gossip's address for others: %w", err)
		}
		number, err := strconv.ParseUint(text, 10, 16)
		if err != nil {
			return netip.AddrPort{}, fmt.Errorf("gossip's address for others: %w", err)
		}
		return netip.AddrPortFrom(ip.Unmap(), cmp.Or(uint16(number), port)), nil
	}
	if ip, err := netip.ParseAddr(bound); err == nil && !ip.IsUnspecified() {
		return netip.AddrPortFrom(ip.Unmap(), port), nil
	}
	for _, find := range []func() (string, error){sockaddr.GetPrivateIP, sockaddr.GetPublicIP} {
		if text, err := find(); err == nil {
			if ip, err := netip.ParseAddr(text); err == nil {
				return netip.AddrPortFrom(ip.Unmap(), port), nil
			}
		}
	}
	return netip.AddrPort{}, errors.New("gossip's address for others: the host has none that could be inferred, it must be given")
}

// reachable puts the IP address where the address has none.
func reachable(address string, ip netip.Addr) (string, error) {
	if address == "" {
		return "", nil
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", err
	}
	if own, err := netip.ParseAddr(host); host == "" || err == nil && own.IsUnspecified() {
		host = ip.String()
	}
	address = net.JoinHostPort(host, port)
	_, err = netip.ParseAddrPort(address)
	return address, err
}

// settings map SuspectAfter to the library's. Somebody probes a dead node within about an interval, the probe fails one interval later, and
// the suspicion lasts six: at 3 s about 2.5 s together, and less than 4 s if the probe comes late.
func (g *Gossip) settings(transport memberlist.Transport) *memberlist.Config {
	after := g.o.SuspectAfter
	c := memberlist.DefaultLANConfig()
	c.Name = g.local.ID
	c.Label = g.o.Cluster
	c.Transport = transport
	c.BindPort = int(g.bindPort)
	c.AdvertiseAddr, c.AdvertisePort = g.advertise.Addr().String(), int(g.advertise.Port())
	c.Keyring = g.keyring
	c.Logger = g.logger()

	c.ProbeInterval = after / 10
	// Others ask for the node when the direct probe is over, and have as long themselves to say that they get no answer either.
	c.ProbeTimeout = c.ProbeInterval * 2 / 5
	// Suspicion does not wait for confirmations that may never come, so its bound holds at any size up to ten nodes, and grows with the
	// logarithm beyond.
	c.SuspicionMult, c.SuspicionMaxTimeoutMult = 6, 1
	// A node that finds itself slow waits longer for answers, but not much.
	c.AwarenessMaxMultiplier = 4
	// A suspicion must reach the suspect, and its answer everybody, though packets are lost: the few bytes are sent often.
	c.GossipInterval = after / 60
	c.RetransmitMult = 16
	c.PushPullInterval = after / 3
	c.TCPTimeout = after
	// How long the library remembers the dead, and tells them so. It counts them as nodes, so that is not long; records do the rest.
	c.GossipToTheDeadTime = g.remembers()
	c.EnableCompression = false

	d := delegate{g}
	c.Delegate, c.Events, c.Alive, c.Merge, c.Conflict = d, d, d, d, d
	return c
}

// remembers is how long the library knows a node that is gone, with its last incarnation.
func (g *Gossip) remembers() time.Duration { return 10 * g.o.SuspectAfter }

func (g *Gossip) logger() *log.Logger { return log.New(memberlistLog{g}, "", 0) }

// Local is this node.
func (g *Gossip) Local() Node {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.local
}

// Nodes are this node and those that answer, by ID.
func (g *Gossip) Nodes() []Node {
	g.mu.Lock()
	defer g.mu.Unlock()
	nodes := []Node{g.local}
	for _, m := range g.others {
		nodes = append(nodes, m.Node)
	}
	slices.SortFunc(nodes, func(a, b Node) int { return cmp.Compare(a.ID, b.ID) })
	return nodes
}

// Tried is closed once the node has looked for others.
func (g *Gossip) Tried() <-chan struct{} { return g.tried }

// Address is where others reach this node's gossip.
func (g *Gossip) Address() netip.AddrPort { return g.advertise }

// SetState tells the others.
func (g *Gossip) SetState(state State) { g.setState(state, time.Nanosecond) }

// setState waits until the state is sent, but not longer than that.
func (g *Gossip) setState(state State, wait time.Duration) {
	g.mu.Lock()
	same := g.local.State == state
	g.local.State = state
	g.mu.Unlock()
	if same {
		return
	}
	// An error says that it was not sent yet; it is in the queue, and in each exchange of states.
	_ = g.list.UpdateNode(wait)
	g.touch()
}

// touch has the subscribers called. The library calls its delegates under its own lock, so they do not do it themselves.
func (g *Gossip) touch() {
	select {
	case g.changed <- struct{}{}:
	default:
	}
}

// Run finds the others for ever, and leaves the cluster when ctx ends. It may be called once.
func (g *Gossip) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-g.changed:
				g.notify()
			}
		}
	})
	wg.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case m := <-g.doubtful:
				wg.Go(func() { g.verify(ctx, m) })
			}
		}
	})
	err := g.keepJoined(ctx, &wg)
	g.leave() // at once, though an attempt to join or to verify may still run
	cancel()
	wg.Wait()
	return err
}

// A leave takes 1 s at most.
const (
	leavingWait = 400 * time.Millisecond
	leaveWait   = 500 * time.Millisecond
)

// leave says that the node is leaving, so that nobody takes it for failed, and then that it has left.
func (g *Gossip) leave() {
	g.setState(Leaving, leavingWait)
	// An error says that not all were told in time: they will find out.
	_ = g.list.Leave(leaveWait)
	_ = g.list.Shutdown()
}

// meta is what travels with a node. Names are short: the library allows 512 bytes.
type meta struct {
	State    State  `json:"s"`
	Collects bool   `json:"c,omitempty"`
	Stream   string `json:"st,omitempty"`
	Admin    string `json:"ad,omitempty"`
	Version  string `json:"v,omitempty"`
	// Padding is of random length. The library's queue can give two messages the same number, and loses one of them if they are equally long:
	// so were a node's answer to a suspicion and the news of another node.
	Padding string `json:"p,omitempty"`
}

// maxPadding leaves enough of the 512 bytes.
const maxPadding = 128

func encodeMeta(n Node, padding int) []byte {
	// Strings and a bool can always be encoded.
	text, _ := json.Marshal(meta{n.State, n.Collects, n.Stream, n.Admin, n.Version, strings.Repeat("-", padding)})
	return text
}

func decodeMember(n *memberlist.Node) (member, error) {
	var m meta
	if err := json.Unmarshal(n.Meta, &m); err != nil {
		return member{}, fmt.Errorf("metadata: %w", err)
	}
	if !slices.Contains([]State{Joining, Active, Leaving}, m.State) {
		return member{}, fmt.Errorf("metadata: state %q is unknown", m.State)
	}
	for _, address := range []string{m.Stream, m.Admin} {
		if address == "" {
			continue
		}
		if _, err := netip.ParseAddrPort(address); err != nil {
			return member{}, fmt.Errorf("metadata: %w", err)
		}
	}
	return member{Node{ID: n.Name, State: m.State, Collects: m.Collects, Stream: m.Stream, Admin: m.Admin, Version: m.Version}, addrPort(n.Addr, n.Port)}, nil
}

func addrPort(ip net.IP, port uint16) netip.AddrPort {
	addr, _ := netip.AddrFromSlice(ip)
	return netip.AddrPortFrom(addr.Unmap(), port)
}

// delegate is what the library calls, mostly under its lock.
type delegate struct{ *Gossip }

func (d delegate) NodeMeta(int) []byte { return encodeMeta(d.Local(), d.padding) }

// NotifyAlive decides whether a node is taken, each time that somebody says that it is alive.
func (d delegate) NotifyAlive(n *memberlist.Node) error {
	if n.Name == d.o.Node.ID {
		return nil
	}
	m, err := decodeMember(n)
	if err != nil {
		d.refuse(refusedMeta, n.Name+": "+err.Error())
		return err
	}
	d.mu.Lock()
	since, gone := d.gone.since(n.Name)
	d.mu.Unlock()
	// While the library remembers the node, only its own word with a higher incarnation brings it back. After that it is asked itself.
	if !gone || since < d.remembers() {
		return nil
	}
	d.refuse(refusedGone, n.Name)
	select {
	case d.doubtful <- m:
	default:
	}
	return errors.New("it was gone, and is asked itself")
}

func (d delegate) NotifyJoin(n *memberlist.Node) {
	if d.set(n) {
		d.metrics.joins.Inc()
		d.o.Log.Info("Node joined", "node", n.Name, "address", n.Address())
	}
}

func (d delegate) NotifyUpdate(n *memberlist.Node) { d.set(n) }

func (d delegate) set(n *memberlist.Node) bool {
	m, err := decodeMember(n)
	if err != nil || n.Name == d.o.Node.ID {
		return false
	}
	d.mu.Lock()
	d.others[n.Name] = m
	delete(d.gone, n.Name)
	d.mu.Unlock()
	d.touch()
	return true
}

func (d delegate) NotifyLeave(n *memberlist.Node) {
	d.mu.Lock()
	m, known := d.others[n.Name]
	if known {
		delete(d.others, n.Name)
		d.gone = d.gone.add(n.Name)
	}
	d.mu.Unlock()
	if !known {
		return
	}
	reason := wentFailed
	if m.State == Leaving {
		reason = wentLeft
	}
	d.metrics.leaves.WithLabelValues(reason).Inc()
	d.o.Log.Info("Node is gone", "node", n.Name, "address", n.Address(), "reason", reason)
	d.touch()
}

// NotifyMerge refuses a whole exchange with somebody who has an ID that another node has, or that knows another node by this one's.
func (d delegate) NotifyMerge(peers []*memberlist.Node) error {
	all := map[string]netip.AddrPort{d.o.Node.ID: d.advertise}
	d.mu.Lock()
	for id, m := range d.others {
		all[id] = m.address
	}
	d.mu.Unlock()
	for _, peer := range peers {
		known, ok := all[peer.Name]
		if theirs := addrPort(peer.Addr, peer.Port); ok && known != theirs && (peer.State == memberlist.StateAlive || peer.State == memberlist.StateSuspect) {
			detail := fmt.Sprintf("the ID %s is that of %s and of %s", peer.Name, known, theirs)
			d.refuse(refusedID, detail)
			return errors.New(detail)
		}
	}
	return nil
}

// NotifyConflict is called when the library has refused a node for its ID.
func (d delegate) NotifyConflict(existing, other *memberlist.Node) {
	d.refuse(refusedID, fmt.Sprintf("the ID %s is that of %s and of %s", existing.Name, existing.Address(), other.Address()))
}

func (delegate) NotifyMsg([]byte)                {}
func (delegate) GetBroadcasts(int, int) [][]byte { return nil }
func (delegate) LocalState(bool) []byte          { return nil }
func (delegate) MergeRemoteState([]byte, bool)   {}

// records are when nodes went: what is heard of them by hearsay does not bring them back.
type records map[string]time.Time

const (
	recordsKept = 10 * time.Minute
	maxRecords  = 1024
)

func (r records) since(id string) (time.Duration, bool) {
	at, ok := r[id]
	since := time.Since(at)
	return since, ok && since < recordsKept
}

// add forgets what is too old, and the oldest where there are too many.
func (r records) add(id string) records {
	if r == nil {
		r = records{}
	}
	maps.DeleteFunc(r, func(id string, _ time.Time) bool { _, ok := r.since(id); return !ok })
	if len(r) >= maxRecords {
		oldest := ""
		for id, at := range r {
			if oldest == "" || at.Before(r[oldest]) {
				oldest = id
			}
		}
		delete(r, oldest)
	}
	r[id] = time.Now()
	return r
}
