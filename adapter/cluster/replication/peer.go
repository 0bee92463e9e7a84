package replication

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/kubetide/kubetide/adapter/cluster/membership"
	"github.com/kubetide/kubetide/internal/sample"
)

// peer is another node, as the one to send to.
type peer struct {
	r      *Replication
	node   membership.Node
	queue  queue
	cancel context.CancelFunc
	told   membership.State // under r.mu

	// mu protects what follows.
	mu      sync.Mutex
	pings   []time.Time // that wait for their answer, the oldest first
	ponged  uint64      // how many have been answered on this stream
	lag     time.Duration
	ponging chan struct{} // has an item when an answer has come
	lost    time.Time     // since when there is no stream; zero while there is one
	fetches map[uint64]chan []byte
	fetched uint64 // the number of the last one
}

func newPeer(r *Replication, node membership.Node) *peer {
	return &peer{
		r: r, node: node, lost: r.Clock.Now(), ponging: make(chan struct{}, 1), fetches: map[uint64]chan []byte{},
		queue: queue{metrics: r.metrics, wake: make(chan struct{}, 1)},
	}
}

// run keeps a stream to the node until ctx ends.
func (p *peer) run(ctx context.Context) {
	t := p.r.timing
	for failures := 0; ctx.Err() == nil; failures++ {
		began := time.Now()
		err := p.stream(ctx)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > t.lastRetry {
			failures = 0
		}
		log := p.r.Log.V(min(failures, 1)) // what repeats itself is for those who look
		log.Info("The stream to a node is lost, or does not come about", "node", p.node.ID, "address", p.node.Stream, "error", err.Error())
		wait := min(t.firstRetry<<min(failures, 16), t.lastRetry)
		select {
		case <-ctx.Done():
		case <-time.After(wait/2 + rand.N(wait/2)):
		}
	}
}

// stream dials, greets and sends until something fails, or ctx ends.
func (p *peer) stream(ctx context.Context) error {
	conn, err := p.dial(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.NetConn().Close() })
	defer stop()

	begin := p.r.Clock.Now()
	in := &frames{from: bufio.NewReader(conn), limit: maxHello}
	if err := p.greet(conn, in); err != nil {
		return err
	}
	in.limit = maxFrame
	p.begin()
	defer p.end()

	ctx, fail := context.WithCancelCause(ctx)
	var reading sync.WaitGroup
	reading.Go(func() {
		fail(p.read(conn, in))
		_ = conn.NetConn().Close() // a write may be waiting
	})
	w := &writer{p: p, conn: conn, out: bufio.NewWriterSize(paced{conn, p.r}, 32<<10), begin: begin, verified: time.Now()}
	fail(w.run(ctx))
	_ = conn.NetConn().Close()
	reading.Wait()
	return context.Cause(ctx)
}

func (p *peer) dial(ctx context.Context) (*tls.Conn, error) {
	config, err := p.r.TLS.Client()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, p.r.timing.greeting)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", p.node.Stream)
	if err != nil {
		return nil, err
	}
	secured := tls.Client(conn, config)
	if err := secured.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return secured, nil
}

func (p *peer) greet(conn net.Conn, in *frames) error {
	local := p.r.Membership.Local()
	if err := conn.SetDeadline(time.Now().Add(p.r.timing.greeting)); err != nil {
		return err
	}
	if err := sendHello(conn, kindHello, hello{Protocol: protocol, Cluster: p.r.Cluster, Node: local.ID, State: string(local.State)}); err != nil {
		return err
	}
	welcome, err := readHello(in, kindWelcome)
	switch {
	case err != nil:
		return err
	case welcome.Refused != "":
		return fmt.Errorf("refused: %s", welcome.Refused)
	case welcome.Node != p.node.ID || welcome.Cluster != p.r.Cluster:
		return fmt.Errorf("node %q of the cluster %q is at its address", welcome.Node, welcome.Cluster)
	}
	return conn.SetDeadline(time.Time{})
}

func sendHello(conn net.Conn, kind byte, h hello) error {
	content, err := json.Marshal(h)
	if err != nil {
		return err
	}
	_, err = conn.Write(appendFrame(nil, kind, raw(content)))
	return err
}

func readHello(in *frames, want byte) (h hello, err error) {
	kind, content, err := in.next()
	if err != nil {
		return h, err
	}
	if kind != want {
		return h, fmt.Errorf("%w of a greeting", errFrame)
	}
	if err := json.Unmarshal(content, &h); err != nil {
		return h, fmt.Errorf("%w of a greeting: %w", errFrame, err)
	}
	return h, nil
}

// begin queues all that the node must know.
func (p *peer) begin() {
	p.mu.Lock()
	p.pings, p.ponged, p.lost = nil, 0, time.Time{}
	select {
	case <-p.ponging: // of the stream before
	default:
	}
	p.mu.Unlock()
	state := []byte(p.r.Membership.Local().State)
	p.r.mu.RLock()
	defer p.r.mu.RUnlock()
	p.queue.setOpen(true)
	p.queue.put(itemKey{kind: kindState}, item{kind: kindState, content: state})
	for id, content := range p.r.wanted {
		p.queue.put(itemKey{kindWant, id}, item{kind: kindWant, content: content})
	}
	p.queue.put(itemKey{kind: kindWantsDone}, item{kind: kindWantsDone})
	for id, q := range p.r.byID {
		p.queue.put(itemKey{kindSample, id}, item{kind: kindSample, query: q})
	}
	p.queue.put(itemKey{kind: kindSnapshotDone}, item{kind: kindSnapshotDone})
}

// end forgets what waits, which the next stream begins with, and fails what the node was asked.
func (p *peer) end() {
	p.queue.setOpen(false)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lost = p.r.Clock.Now()
	for n, answer := range p.fetches {
		close(answer)
		delete(p.fetches, n)
	}
}

// read takes the answers.
func (p *peer) read(conn net.Conn, in *frames) error {
	for {
		if err := conn.SetReadDeadline(time.Now().Add(p.r.timing.dead)); err != nil {
			return err
		}
		kind, content, err := in.next()
		if err != nil {
			return err
		}
		p.r.metrics.received.Add(float64(frameHeader + 1 + len(content)))
		rest := input{rest: string(content)}
		n := rest.uvarint()
		switch {
		case rest.broken:
			return errFrame
		case kind == kindPong:
			p.pong(n)
		case kind == kindFetched:
			p.mu.Lock()
			if answer := p.fetches[n]; answer != nil {
				answer <- []byte(rest.rest)
				delete(p.fetches, n)
			}
			p.mu.Unlock()
		default:
			return fmt.Errorf("%w of an answer", errFrame)
		}
	}
}

func (p *peer) ping() (n uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pings = append(p.pings, p.r.Clock.Now())
	return p.ponged + uint64(len(p.pings))
}

func (p *peer) pong(n uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n <= p.ponged || n > p.ponged+uint64(len(p.pings)) {
		return
	}
	answered := n - p.ponged
	p.lag = p.r.Clock.Since(p.pings[answered-1])
	p.pings, p.ponged = p.pings[answered:], n
	select {
	case p.ponging <- struct{}{}:
	default:
	}
}

// behind is how long what is sent to the node takes to get there, or since when nothing does.
func (p *peer) behind() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case !p.lost.IsZero():
		return p.r.Clock.Since(p.lost)
	case len(p.pings) > 0:
		return max(p.lag, p.r.Clock.Since(p.pings[0]))
	}
	return p.lag
}

var (
	errNoStream = errors.New("there is no stream to it")
	errNoSample = errors.New("it has no fresh sample")
)

func (p *peer) fetch(ctx context.Context, q sample.Query) (Sample, error) {
	id, answer := idOf(&q), make(chan []byte, 1)
	p.mu.Lock()
	if len(p.fetches) >= maxFetches {
		p.mu.Unlock()
		return Sample{}, errors.New("too many requests wait for it")
	}
	p.fetched++
	n := p.fetched
	p.fetches[n] = answer
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.fetches, n)
	}()
	asked := p.r.Clock.Now()
	if !p.queue.put(numbered(kindFetch, n), item{kind: kindFetch, content: append(binary.AppendUvarint(nil, n), id[:]...)}) {
		return Sample{}, errNoStream
	}
	select {
	case <-ctx.Done():
		return Sample{}, ctx.Err()
	case content, ok := <-answer:
		if !ok {
			return Sample{}, errNoStream
		}
		if len(content) == 0 {
			return Sample{}, errNoSample
		}
		in := input{rest: string(content)}
		age, of := in.milliseconds(), in.id()
		s, err := decodeSample(in.rest)
		if err == nil && (in.broken || of != id) {
			err = errFrame
		}
		s.Query, s.Taken = q, asked.Add(-age)
		return s, err
	}
}

// paced is a connection whose writes have a deadline and are counted.
type paced struct {
	net.Conn
	r *Replication
}

func (c paced) Write(b []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(c.r.timing.write)); err != nil {
		return 0, err
	}
	n, err := c.Conn.Write(b)
	c.r.metrics.sent.Add(float64(n))
	return n, err
}

// writer sends what is in a peer's queue, and pings.
type writer struct {
	p        *peer
	conn     *tls.Conn
	out      *bufio.Writer
	begin    time.Time // of the stream; the instants of samples count from it
	pinged   time.Time
	verified time.Time
	items    []item
	buffer   []byte
}

// run returns nil when ctx has ended.
func (w *writer) run(ctx context.Context) error {
	t := w.p.r.timing
	if err := w.settle(ctx); err != nil {
		return err
	}
	heartbeat := time.NewTicker(t.heartbeat)
	defer heartbeat.Stop()
	pace := time.NewTimer(0)
	defer pace.Stop()
	for {
		if err := w.drain(); err != nil {
			return err
		}
		pace.Reset(t.pace)
		select {
		case <-ctx.Done():
			return nil
		case <-pace.C:
		}
		select {
		case <-ctx.Done():
			return nil
		case <-w.p.queue.wake:
		case <-heartbeat.C:
		}
	}
}

const (
	// quickly is how soon a ping is answered when nothing is in the way.
	quickly = 100 * time.Millisecond
	// maxSettling is how many pings may be slower.
	maxSettling = 5
)

// settle pings until an answer comes quickly: the other side learns how long frames take when nothing is in the way. Otherwise the first
// samples of a stream, if they wait somewhere, would seem to be as young as when they were sent.
func (w *writer) settle(ctx context.Context) error {
	for range maxSettling {
		if err := w.ping(); err != nil {
			return err
		}
		if err := w.out.Flush(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-w.p.ponging:
		}
		if w.p.behind() <= quickly {
			return nil
		}
	}
	return nil
}

// drain sends until nothing waits any more.
func (w *writer) drain() error {
	for {
		if time.Since(w.pinged) >= w.p.r.timing.heartbeat {
			if err := w.ping(); err != nil {
				return err
			}
		}
		w.items = w.p.queue.take(w.items[:0], 64)
		if len(w.items) == 0 {
			return w.out.Flush()
		}
		for _, it := range w.items {
			if err := w.send(it); err != nil {
				return err
			}
		}
		clear(w.items)
	}
}

// ping also looks whether the other side is still to be trusted.
func (w *writer) ping() error {
	w.pinged = time.Now()
	if time.Since(w.verified) >= w.p.r.timing.verify {
		if err := w.p.r.TLS.Verify(w.conn.ConnectionState(), x509.ExtKeyUsageServerAuth); err != nil {
			return err
		}
		w.verified = time.Now()
	}
	n := w.p.ping()
	return w.write(kindPing, func(to []byte) []byte {
		return appendMilliseconds(binary.AppendUvarint(to, n), w.p.r.Clock.Now().Sub(w.begin))
	})
}

func (w *writer) write(kind byte, fill func([]byte) []byte) error {
	w.buffer = appendFrame(w.buffer[:0], kind, fill)
	_, err := w.out.Write(w.buffer)
	return err
}

func (w *writer) send(it item) error {
	if it.kind != kindSample {
		return w.write(it.kind, raw(it.content))
	}
	var content []byte
	var taken time.Time
	if it.sample != nil {
		content, taken = it.sample.encoded(it.query.id), it.sample.Taken
	} else {
		s, ok := w.p.r.Lookup(it.query.Query)
		if !ok {
			return nil
		}
		content, taken = appendSample(nil, it.query.id, &s), s.Taken
	}
	now := w.p.r.Clock.Now()
	w.buffer = appendFrame(w.buffer[:0], kindSample, func(to []byte) []byte {
		return appendMilliseconds(appendMilliseconds(to, now.Sub(w.begin)), now.Sub(taken))
	})
	size := len(w.buffer) - frameHeader + len(content)
	if size > maxFrame {
		w.p.r.metrics.dropped.WithLabelValues(droppedTooLarge).Inc()
		return nil
	}
	binary.BigEndian.PutUint32(w.buffer, uint32(size))
	if _, err := w.out.Write(w.buffer); err != nil {
		return err
	}
	_, err := w.out.Write(content)
	return err
}
