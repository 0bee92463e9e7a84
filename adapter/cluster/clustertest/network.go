// Package clustertest is a network in memory for tests of the cluster: packets and streams between IP addresses that can be lost, late, or
// cut off, in one direction or both. It uses package time only, so that it runs in a testing/synctest bubble, where hours take seconds.
package clustertest

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// Link is how one direction between two IP addresses behaves.
type Link struct {
	// Loss is the share of packets that get lost, 0 to 1. Streams send again what is lost, as TCP does.
	Loss  float64
	Delay time.Duration
	// Cut lets nothing through.
	Cut bool
}

// Network is where transports reach each other.
type Network struct {
	mu    sync.Mutex
	rand  *rand.Rand                    // under mu
	all   Link                          // under mu; where links has none
	links map[[2]netip.Addr]Link        // under mu; from, to
	hosts map[netip.AddrPort]*Transport // under mu
	open  map[*stream]bool              // under mu; both ends
}

// New returns a network without faults. The seed decides what gets lost.
func New(seed uint64) *Network {
	return &Network{
		rand: rand.New(rand.NewPCG(seed, 0)), links: map[[2]netip.Addr]Link{}, hosts: map[netip.AddrPort]*Transport{}, open: map[*stream]bool{},
	}
}

// SetAll is for all directions that have no Link of their own.
func (n *Network) SetAll(link Link) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.all = link
}

// Set is for one direction.
func (n *Network) Set(from, to netip.Addr, link Link) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.links[[2]netip.Addr{from, to}] = link
}

// Partition cuts both directions between each of some and each of others.
func (n *Network) Partition(some, others []netip.Addr) {
	for _, a := range some {
		for _, b := range others {
			n.Set(a, b, Link{Cut: true})
			n.Set(b, a, Link{Cut: true})
		}
	}
}

// Heal forgets what Set and Partition have said.
func (n *Network) Heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.links)
}

// Kill takes everything off the network that is at the IP address, as the end of a process does: streams break, dialing is refused.
func (n *Network) Kill(ip netip.Addr) {
	n.mu.Lock()
	maps.DeleteFunc(n.hosts, func(at netip.AddrPort, _ *Transport) bool { return at.Addr() == ip })
	var broken []*stream
	for s := range n.open {
		if s.from.Addr() == ip {
			broken = append(broken, s)
		}
	}
	n.mu.Unlock()
	for _, s := range broken {
		s.reset()
	}
}

// travel takes a packet from one address to the other: after how long it arrives, or false.
func (n *Network) travel(from, to netip.Addr) (time.Duration, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	link, ok := n.links[[2]netip.Addr{from, to}]
	if !ok {
		link = n.all
	}
	return link.Delay, !link.Cut && n.rand.Float64() >= link.Loss
}

func (n *Network) host(at netip.AddrPort) *Transport {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.hosts[at]
}

// Transport is what memberlist sends and receives with.
type Transport struct {
	network *Network
	at      netip.AddrPort
	packets chan *memberlist.Packet
	streams chan net.Conn
	closed  chan struct{}
	close   func()
}

var _ memberlist.Transport = (*Transport)(nil)

// queued is how many packets, and streams, wait to be received. More are lost.
const queued = 1024

// Transport brings an address onto the network, in place of what was there.
func (n *Network) Transport(at netip.AddrPort) *Transport {
	t := &Transport{network: n, at: at, packets: make(chan *memberlist.Packet, queued), streams: make(chan net.Conn, queued), closed: make(chan struct{})}
	t.close = sync.OnceFunc(func() { close(t.closed) })
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hosts[at] = t
	return t
}

// FinalAdvertiseAddr is the address of the transport.
func (t *Transport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return t.at.Addr().AsSlice(), int(t.at.Port()), nil
}

func (t *Transport) attached() bool { return t.network.host(t.at) == t }

// WriteTo sends a packet.
func (t *Transport) WriteTo(b []byte, to string) (time.Time, error) {
	address, err := netip.ParseAddrPort(to)
	if err != nil {
		return time.Time{}, err
	}
	now := time.Now()
	if delay, arrives := t.network.travel(t.at.Addr(), address.Addr()); arrives && t.attached() {
		packet := &memberlist.Packet{Buf: slices.Clone(b), From: net.UDPAddrFromAddrPort(t.at)}
		after(delay, func() {
			if there := t.network.host(address); there != nil {
				packet.Timestamp = time.Now()
				select {
				case there.packets <- packet:
				default:
				}
			}
		})
	}
	return now, nil
}

// after runs f at once if there is no delay: under the race detector Go 1.26 crashes in timers of a bubble that are due when they are made.
func after(delay time.Duration, f func()) {
	if delay > 0 {
		time.AfterFunc(delay, f)
	} else {
		f()
	}
}

// PacketCh is where packets arrive.
func (t *Transport) PacketCh() <-chan *memberlist.Packet { return t.packets }

// StreamCh is where streams arrive.
func (t *Transport) StreamCh() <-chan net.Conn { return t.streams }

// Shutdown takes the transport off the network, and fails what is dialled.
func (t *Transport) Shutdown() error {
	t.close()
	t.network.mu.Lock()
	defer t.network.mu.Unlock()
	if t.network.hosts[t.at] == t {
		delete(t.network.hosts, t.at)
	}
	return nil
}

// What TCP waits before it sends again, twice as long each time, and how often it does.
const (
	resendHandshake = time.Second
	resendData      = 200 * time.Millisecond
	resends         = 8
)

// DialTimeout opens a stream.
func (t *Transport) DialTimeout(to string, timeout time.Duration) (net.Conn, error) {
	address, err := netip.ParseAddrPort(to)
	if err != nil {
		return nil, err
	}
	fail := func(err error) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: net.TCPAddrFromAddrPort(address), Err: err}
	}
	deadline := time.Now().Add(timeout)
	if !t.attached() {
		return fail(net.ErrClosed)
	}
	if !t.handshake(t.at.Addr(), address.Addr(), deadline) {
		return fail(os.ErrDeadlineExceeded)
	}
	there := t.network.host(address)
	if !t.handshake(address.Addr(), t.at.Addr(), deadline) {
		return fail(os.ErrDeadlineExceeded)
	}
	if there == nil {
		return fail(errors.New("connection refused"))
	}
	near, far := newStream(t.network, t.at, address), newStream(t.network, address, t.at)
	near.peer, far.peer = far, near
	t.network.mu.Lock()
	t.network.open[near], t.network.open[far] = true, true
	t.network.mu.Unlock()
	select {
	case there.streams <- far:
		return near, nil
	default:
		near.reset()
		return fail(fmt.Errorf("%d connections wait already", queued))
	}
}

// handshake waits until one packet has arrived that is sent again until it does, but not longer than the deadline, or until Shutdown.
func (t *Transport) handshake(from, to netip.Addr, deadline time.Time) bool {
	for resend := resendHandshake; ; resend *= 2 {
		delay, arrives := t.network.travel(from, to)
		if !arrives {
			delay = resend
		}
		timer := time.NewTimer(min(delay, time.Until(deadline)))
		select {
		case <-timer.C:
		case <-t.closed:
			timer.Stop()
			return false
		}
		if !time.Now().Before(deadline) {
			return false
		}
		if arrives {
			return true
		}
	}
}

// stream is one end. Writes do not block; what is written arrives in order.
type stream struct {
	network  *Network
	from, to netip.AddrPort
	peer     *stream

	mu       sync.Mutex
	sent     int            // under mu; chunks
	received int            // under mu; chunks that could be put into buffer
	early    map[int][]byte // under mu; chunks that came before earlier ones; nil: the end
	buffer   []byte         // under mu; to be read
	failure  error          // under mu; of reads, once buffer is empty
	closed   bool           // under mu
	deadline time.Time      // under mu; of reads
	changed  chan struct{}  // under mu; closed when something changes
}

var _ net.Conn = (*stream)(nil)

func newStream(n *Network, from, to netip.AddrPort) *stream {
	return &stream{network: n, from: from, to: to, early: map[int][]byte{}, changed: make(chan struct{})}
}

func (s *stream) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, net.ErrClosed
	}
	if s.failure != nil && !errors.Is(s.failure, io.EOF) {
		return 0, s.failure
	}
	go s.send(s.sent, append([]byte{}, b...), resendData, resends)
	s.sent++
	return len(b), nil
}

// send has a chunk arrive, after more attempts if it gets lost.
func (s *stream) send(number int, chunk []byte, resend time.Duration, left int) {
	delay, arrives := s.network.travel(s.from.Addr(), s.to.Addr())
	switch {
	case arrives:
		after(delay, func() { s.peer.receive(number, chunk) })
	case left > 0:
		time.AfterFunc(resend, func() { s.send(number, chunk, 2*resend, left-1) })
	}
}

func (s *stream) receive(number int, chunk []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.early[number] = chunk
	for {
		chunk, ok := s.early[s.received]
		if !ok {
			break
		}
		delete(s.early, s.received)
		s.received++
		s.buffer = append(s.buffer, chunk...)
		if chunk == nil && s.failure == nil {
			s.failure = io.EOF
		}
	}
	s.change()
}

// change wakes who reads. The caller holds mu.
func (s *stream) change() {
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *stream) Read(b []byte) (int, error) {
	for {
		s.mu.Lock()
		deadline, changed := s.deadline, s.changed
		switch {
		case s.closed:
			s.mu.Unlock()
			return 0, net.ErrClosed
		case len(s.buffer) > 0:
			n := copy(b, s.buffer)
			s.buffer = s.buffer[n:]
			s.mu.Unlock()
			return n, nil
		case s.failure != nil:
			err := s.failure
			s.mu.Unlock()
			return 0, err
		}
		s.mu.Unlock()
		var late <-chan time.Time
		if !deadline.IsZero() {
			if !time.Now().Before(deadline) {
				return 0, os.ErrDeadlineExceeded
			}
			timer := time.NewTimer(time.Until(deadline))
			defer timer.Stop()
			late = timer.C
		}
		select {
		case <-changed:
		case <-late:
		}
	}
}

func (s *stream) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	go s.send(s.sent, nil, resendData, resends)
	s.change()
	s.network.mu.Lock()
	delete(s.network.open, s)
	s.network.mu.Unlock()
	return nil
}

// reset breaks both ends.
func (s *stream) reset() {
	for _, end := range []*stream{s, s.peer} {
		end.mu.Lock()
		end.failure = errors.New("connection reset by peer")
		end.change()
		end.mu.Unlock()
		end.network.mu.Lock()
		delete(end.network.open, end)
		end.network.mu.Unlock()
	}
}

func (s *stream) LocalAddr() net.Addr  { return net.TCPAddrFromAddrPort(s.from) }
func (s *stream) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(s.to) }

func (s *stream) SetDeadline(at time.Time) error { return s.SetReadDeadline(at) }

func (s *stream) SetReadDeadline(at time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deadline = at
	s.change()
	return nil
}

func (s *stream) SetWriteDeadline(time.Time) error { return nil }
