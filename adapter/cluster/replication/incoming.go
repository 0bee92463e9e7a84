package replication

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/kubetide/kubetide/adapter/cluster/membership"
	"github.com/kubetide/kubetide/internal/sample"
)

// incoming is the stream of another node.
type incoming struct {
	r       *Replication
	conn    *tls.Conn
	in      *frames
	from    string
	demand  *demand
	begin   time.Time
	transit transit
	state   membership.State
	// verified is when the node's certificate was last looked at.
	verified time.Time
	buffer   []byte
}

// accept takes streams until ctx ends.
func (r *Replication) accept(ctx context.Context) {
	config := r.TLS.Server()
	places := make(chan struct{}, maxIncoming)
	for {
		conn, err := r.Listener.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = conn.Close()
			}
			return
		case err != nil:
			r.Log.Error(err, "A stream could not be accepted")
			select {
			case <-ctx.Done():
			case <-time.After(r.timing.firstRetry):
			}
			continue
		}
		select {
		case places <- struct{}{}:
		default:
			_ = conn.Close()
			r.refuse(refusedTooMany, conn, errors.New("there are too many streams"))
			continue
		}
		r.running.Go(func() {
			defer func() { <-places }()
			defer func() { _ = conn.Close() }()
			stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
			defer stop()
			r.take(ctx, tls.Server(conn, config))
		})
	}
}

// refuse counts and logs why a node is not heard.
func (r *Replication) refuse(reason string, conn net.Conn, err error) {
	r.metrics.refused.WithLabelValues(reason).Inc()
	if r.metrics.mayLog(reason, r.Clock.Now()) {
		r.Log.Info("A stream is refused", "address", conn.RemoteAddr().String(), "reason", reason, "error", err.Error())
	}
}

// take greets, and then receives.
func (r *Replication) take(ctx context.Context, conn *tls.Conn) {
	handshake, cancel := context.WithTimeout(ctx, r.timing.greeting)
	err := conn.HandshakeContext(handshake)
	cancel()
	if err != nil {
		r.refuse(refusedTLS, conn, err)
		return
	}
	s := &incoming{
		r: r, conn: conn, in: &frames{from: bufio.NewReaderSize(conn, 32<<10), limit: maxHello}, begin: r.Clock.Now(), verified: time.Now(),
	}
	if reason, err := s.greet(); err != nil {
		r.refuse(reason, conn, err)
		return
	}
	s.register()
	defer s.unregister()
	if err := s.receive(); errors.Is(err, errFrame) {
		r.refuse(refusedFrame, conn, err)
	} else if ctx.Err() == nil {
		r.Log.V(1).Info("The stream of a node has ended", "node", s.from, "error", err.Error())
	}
}

func (s *incoming) greet() (reason string, err error) {
	if err := s.conn.SetDeadline(time.Now().Add(s.r.timing.greeting)); err != nil {
		return refusedFrame, err
	}
	h, err := readHello(s.in, kindHello)
	if err != nil {
		return refusedFrame, err
	}
	s.transit.delay(0, s.r.Clock.Now(), s.begin) // the instants of samples count from the greeting
	local := s.r.Membership.Local()
	switch {
	case h.Protocol != protocol:
		reason, err = refusedProtocol, fmt.Errorf("it speaks version %d of the protocol, and this node %d", h.Protocol, protocol)
	case h.Cluster != s.r.Cluster:
		reason, err = refusedCluster, fmt.Errorf("it is of the cluster %q, and this node of %q", h.Cluster, s.r.Cluster)
	case h.Node == local.ID:
		reason, err = refusedSelf, fmt.Errorf("it has the ID of this node, %s", local.ID)
	case h.Node == "" || len(h.Node) > 253:
		reason, err = refusedFrame, fmt.Errorf("%w of a greeting: the ID has %d bytes", errFrame, len(h.Node))
	}
	welcome := hello{Protocol: protocol, Cluster: s.r.Cluster, Node: local.ID, State: string(local.State)}
	if err != nil {
		welcome.Refused = err.Error()
	}
	if sendErr := sendHello(s.conn, kindWelcome, welcome); err == nil && sendErr != nil {
		return refusedFrame, sendErr
	}
	s.from, s.state, s.in.limit = h.Node, membership.State(h.State), maxFrame
	return reason, err
}

// register makes this the one stream of the node.
func (s *incoming) register() {
	r := s.r
	r.mu.Lock()
	before := r.streams[s.from]
	r.streams[s.from] = s
	r.mu.Unlock()
	if before != nil {
		_ = before.conn.NetConn().Close()
	}
	for s.demand == nil {
		r.mu.Lock()
		d := r.demands[s.from]
		if d == nil {
			d = &demand{r: r, from: s.from, queries: map[queryID]sample.Query{}}
			r.demands[s.from] = d
		}
		r.mu.Unlock()
		if d.attach(s) {
			s.demand = d
		}
	}
	s.stateIs(s.state)
}

func (s *incoming) unregister() {
	s.demand.detach(s)
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	if s.r.streams[s.from] == s {
		delete(s.r.streams, s.from)
	}
}

func (s *incoming) stateIs(state membership.State) {
	if s.r.StateChanged != nil {
		s.r.StateChanged(s.from, state)
	}
}

// receive takes what comes until something fails.
func (s *incoming) receive() error {
	for {
		if err := s.conn.SetDeadline(time.Now().Add(s.r.timing.dead)); err != nil {
			return err
		}
		kind, content, err := s.in.next()
		if err != nil {
			return err
		}
		s.r.metrics.received.Add(float64(frameHeader + 1 + len(content)))
		if err := s.frame(kind, content); err != nil {
			return err
		}
	}
}

func (s *incoming) frame(kind byte, content []byte) error {
	switch kind {
	case kindWant:
		id, q, err := decodeWant(content)
		if err == nil {
			err = s.demand.want(s, id, q, len(content))
		}
		if err != nil { // the others are still heard
			s.r.refuse(refusedWant, s.conn, err)
		}
	case kindUnwant:
		in := input{rest: string(content)}
		id := in.id()
		if in.broken {
			return errFrame
		}
		s.demand.unwant(s, id)
	case kindWantsDone:
		s.demand.settle(s)
	case kindSample:
		return s.sample(content)
	case kindSnapshotDone:
		s.r.mu.Lock()
		s.r.whole[s.from] = true
		s.r.mu.Unlock()
		if s.r.SnapshotReceived != nil {
			s.r.SnapshotReceived()
		}
	case kindState:
		if state := membership.State(content); state != s.state {
			s.state = state
			s.stateIs(state)
		}
	case kindPing:
		return s.ping(content)
	case kindFetch:
		return s.fetch(content)
	default:
		return fmt.Errorf("%w: there is no kind %d", errFrame, kind)
	}
	return nil
}

func (s *incoming) ping(content []byte) error {
	in := input{rest: string(content)}
	n := in.uvarint()
	if in.broken {
		return errFrame
	}
	if sent := in.milliseconds(); !in.broken { // older versions do not say it
		s.transit.delay(sent, s.r.Clock.Now(), s.begin) // or the first samples would seem to be as fast as the greeting, however slow that was
	}
	if time.Since(s.verified) >= s.r.timing.verify {
		if err := s.r.TLS.Verify(s.conn.ConnectionState(), x509.ExtKeyUsageClientAuth); err != nil {
			s.r.refuse(refusedTLS, s.conn, err)
			return err
		}
		s.verified = time.Now()
	}
	return s.answer(kindPong, number(n))
}

func (s *incoming) answer(kind byte, fill func([]byte) []byte) error {
	s.buffer = appendFrame(s.buffer[:0], kind, fill)
	_, err := paced{s.conn, s.r}.Write(s.buffer)
	return err
}

func (s *incoming) sample(content []byte) error {
	r, now := s.r, s.r.Clock.Now()
	in := input{rest: string(content)}
	sent, age, id := in.milliseconds(), in.milliseconds(), in.id()
	if in.broken {
		return errFrame
	}
	taken := now.Add(-age - s.transit.delay(sent, now, s.begin))
	r.metrics.samples.Inc()
	h := heldSample{from: s.from, content: in.rest, taken: taken, came: now}
	r.mu.RLock()
	q := r.byID[id]
	r.mu.RUnlock()
	if q == nil {
		r.mu.Lock()
		if q = r.byID[id]; q == nil { // it may have been added meanwhile
			r.hold(id, h)
		}
		r.mu.Unlock()
	}
	if q == nil {
		return nil
	}
	if err := r.deliver(q, h, false); !errors.Is(err, errOwn) {
		return err
	}
	return nil
}

func (s *incoming) fetch(content []byte) error {
	in := input{rest: string(content)}
	n, id := in.uvarint(), in.id()
	if in.broken {
		return errFrame
	}
	s.r.mu.RLock()
	q := s.r.byID[id]
	s.r.mu.RUnlock()
	var found Sample
	ok := false
	if q != nil {
		found, ok = s.r.Lookup(q.Query)
	}
	return s.answer(kindFetched, func(to []byte) []byte {
		to = binary.AppendUvarint(to, n)
		none := len(to)
		if ok {
			to = appendSample(appendMilliseconds(to, s.r.Clock.Since(found.Taken)), id, &found)
		}
		if len(to) > maxFrame {
			return to[:none]
		}
		return to
	})
}

// demand is what one node wants. It outlives the node's stream for a while.
type demand struct {
	r    *Replication
	from string

	// mu protects what follows, and keeps the calls of WantsChanged in order.
	mu      sync.Mutex
	stream  *incoming // nil while there is none
	lost    time.Time // since when
	over    bool      // it has expired, and is not to be used any more
	queries map[queryID]sample.Query
	size    int
	// seen are those of a stream that begins, nil afterwards.
	seen map[queryID]sample.Query
}

// attach is false if it came too late.
func (d *demand) attach(s *incoming) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.over {
		return false
	}
	d.stream, d.seen, d.size = s, map[queryID]sample.Query{}, 0
	return true
}

func (d *demand) detach(s *incoming) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stream == s {
		d.stream, d.lost = nil, d.r.Clock.Now()
	}
}

func (d *demand) want(s *incoming, id queryID, q sample.Query, size int) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stream != s {
		return nil
	}
	queries := d.queries
	if d.seen != nil {
		queries = d.seen
	}
	if _, known := queries[id]; known {
		return nil
	}
	if len(queries) >= maxWants || d.size+size > maxWantsBytes {
		return errors.New("it wants too much")
	}
	d.size += size
	queries[id] = q
	if d.seen == nil {
		d.r.WantsChanged(d.from, []sample.Query{q}, nil)
	}
	return nil
}

func (d *demand) unwant(s *incoming, id queryID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stream != s {
		return
	}
	queries := d.queries
	if d.seen != nil {
		queries = d.seen
	}
	q, known := queries[id]
	if !known {
		return
	}
	d.size -= len(encodeWant(id, &q))
	delete(queries, id)
	if d.seen == nil {
		d.r.WantsChanged(d.from, nil, []sample.Query{q})
	}
}

// settle compares what a new stream wants with what was wanted before.
func (d *demand) settle(s *incoming) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stream != s || d.seen == nil {
		return
	}
	d.change(d.seen)
	d.seen = nil
}

// expire withdraws everything when there has been no stream for long.
func (d *demand) expire(now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.over || d.stream != nil || now.Sub(d.lost) < wantsGrace {
		return d.over
	}
	d.over = true
	d.change(nil)
	return true
}

// change makes next what is wanted. d.mu is held.
func (d *demand) change(next map[queryID]sample.Query) {
	var added, withdrawn []sample.Query
	for id, q := range next {
		if _, known := d.queries[id]; !known {
			added = append(added, q)
		}
	}
	for id, q := range d.queries {
		if _, stays := next[id]; !stays {
			withdrawn = append(withdrawn, q)
		}
	}
	d.queries = next
	if len(added)+len(withdrawn) > 0 {
		d.r.WantsChanged(d.from, added, withdrawn)
	}
}
