package replication

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/utils/clock"

	"github.com/kubetide/kubetide/adapter/cluster/membership"
	"github.com/kubetide/kubetide/internal/certs/certstest"
	"github.com/kubetide/kubetide/internal/sample"
)

// A node that comes back at another address under a new ID gets everything, and the others are not disturbed.
func TestANodeThatIsKilledComesBack(t *testing.T) {
	ca := certstest.NewAuthority(t)
	trusted := ca.Trusted()
	a, b, c := newNode(t, "a", ca.Peers(t, serverName, trusted), nil), newNode(t, "b", ca.Peers(t, serverName, trusted), nil), newNode(t, "c", ca.Peers(t, serverName, trusted), nil)
	introduce(a, b, c)
	for _, n := range []*node{a, b, c} {
		n.Add(ask(1))
		n.Add(ask(2))
		n.start(t)
	}
	eventually(t, "all are connected", func() bool { return connected(a, b, c) })
	c.stop()
	a.collect(ask(1), 0, 1)
	eventually(t, "the one that is left gets it", func() bool { _, ok := b.last(ask(1)); return ok })
	d := newNode(t, "d", ca.Peers(t, serverName, trusted), nil)
	d.Add(ask(1))
	d.Add(ask(2))
	d.start(t)
	introduce(a, b, d)
	eventually(t, "the new one has the old sample", func() bool { _, ok := d.last(ask(1)); return ok })
	b.collect(ask(2), 0, 2)
	eventually(t, "and gets the next", func() bool { _, ok := d.last(ask(2)); return ok })
}

// proxy forwards bytes to a node until it is told to stall.
type proxy struct {
	net.Listener
	mu      sync.Mutex
	stalled bool
	changed *sync.Cond
}

func newProxy(t *testing.T, to string) *proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{Listener: listener}
	p.changed = sync.NewCond(&p.mu)
	var running sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			target, err := net.Dial("tcp", to)
			if err != nil {
				_ = conn.Close()
				continue
			}
			context.AfterFunc(ctx, func() { _ = conn.Close(); _ = target.Close() })
			pipe := func(from, to net.Conn) {
				buffer := make([]byte, 32<<10)
				for {
					n, err := from.Read(buffer)
					p.wait()
					if _, writeErr := to.Write(buffer[:n]); err != nil || writeErr != nil {
						_ = from.Close()
						_ = to.Close()
						return
					}
				}
			}
			running.Go(func() { pipe(conn, target) })
			running.Go(func() { pipe(target, conn) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		p.stall(false)
		cancel()
		running.Wait()
	})
	return p
}

func (p *proxy) wait() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.stalled {
		p.changed.Wait()
	}
}

func (p *proxy) stall(stalled bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stalled = stalled
	p.changed.Broadcast()
}

// through makes a see b behind the proxy.
func through(p *proxy, a, b *node) {
	nodes := a.view.Nodes()
	for i := range nodes {
		if nodes[i].ID == b.id {
			nodes[i].Stream = p.Addr().String()
		}
	}
	a.view.set(nodes)
}

// F9: what waited on the way has aged by that time, and a node that hangs costs nobody else.
func TestF9AStalledStreamMakesNothingYoung(t *testing.T) {
	ca := certstest.NewAuthority(t)
	trusted := ca.Trusted()
	a, b, c := newNode(t, "a", ca.Peers(t, serverName, trusted), nil), newNode(t, "b", ca.Peers(t, serverName, trusted), nil), newNode(t, "c", ca.Peers(t, serverName, trusted), nil)
	introduce(a, b, c)
	p := newProxy(t, b.view.Local().Stream)
	through(p, a, b)
	for _, n := range []*node{a, b, c} {
		for i := range 3 {
			n.Add(ask(i))
		}
		n.start(t)
	}
	eventually(t, "all are connected", func() bool { return connected(a, b, c) })
	a.collect(ask(0), 0, 0)
	eventually(t, "a sample arrives", func() bool { _, ok := b.last(ask(0)); return ok })

	p.stall(true)
	collected := time.Now()
	a.collect(ask(1), 0, 1)
	eventually(t, "the other node gets it", func() bool { _, ok := c.last(ask(1)); return ok })
	eventually(t, "the lag shows", func() bool {
		a.Replication.mu.RLock()
		defer a.Replication.mu.RUnlock()
		return a.peers["b"].behind() > time.Second
	})
	p.stall(false)
	eventually(t, "the sample arrives late", func() bool { _, ok := b.last(ask(1)); return ok })
	got, _ := b.last(ask(1))
	if error := got.Taken.Sub(collected); error > 200*time.Millisecond || error < -200*time.Millisecond {
		t.Errorf("its age is wrong by %s", error)
	}
}

// The first samples on a stream may be those that come late: pings tell before how long it takes when nothing is in the way.
func TestTheFirstSampleOfAStreamIsAsOldAsItIs(t *testing.T) {
	ca := certstest.NewAuthority(t)
	trusted := ca.Trusted()
	a, b := newNode(t, "a", ca.Peers(t, serverName, trusted), nil), newNode(t, "b", ca.Peers(t, serverName, trusted), nil)
	introduce(a, b)
	p := newProxy(t, b.view.Local().Stream)
	through(p, a, b)
	for _, n := range []*node{a, b} {
		n.Add(ask(1))
		n.start(t)
	}
	eventually(t, "pings are answered", func() bool {
		a.Replication.mu.RLock()
		peer := a.peers["b"]
		a.Replication.mu.RUnlock()
		if peer == nil {
			return false
		}
		peer.mu.Lock()
		defer peer.mu.Unlock()
		return peer.ponged > 2
	})
	p.stall(true)
	taken := time.Now()
	a.collect(ask(1), 0, 7)
	const stall = 800 * time.Millisecond
	<-time.After(stall)
	p.stall(false)
	eventually(t, "the sample arrives", func() bool { _, ok := b.last(ask(1)); return ok })
	if got, _ := b.last(ask(1)); got.Taken.Sub(taken) > stall/2 {
		t.Errorf("it seems to be %s younger than it is", got.Taken.Sub(taken))
	}
}

// stepped is a clock that can be moved on.
type stepped struct {
	clock.RealClock
	by atomic.Int64
}

func (s *stepped) Now() time.Time                  { return time.Now().Add(time.Duration(s.by.Load())) }
func (s *stepped) Since(t time.Time) time.Duration { return s.Now().Sub(t) }

// Even the first frame of a stream may wait: the greeting tells how long it takes when nothing is in the way.
func TestASampleThatIsTheFirstFrameIsAsOldAsItIs(t *testing.T) {
	ca := certstest.NewAuthority(t)
	tls, now := ca.Peers(t, serverName, ca.Trusted()), &stepped{}
	n := newNode(t, "a", tls, func(o *Options) { o.Clock = now })
	n.Add(ask(1))
	n.start(t)
	config, err := tls.Client()
	if err != nil {
		t.Fatal(err)
	}
	taken := now.Now()
	conn, _, err := dial(t, n, config, hello{Protocol: protocol, Cluster: "test", Node: "b", State: "active"})
	if err != nil {
		t.Fatal(err)
	}
	const late = 10 * time.Second
	now.by.Add(int64(late))
	s := Sample{Collector: "b", Result: sample.Result{Query: ask(1), Points: []sample.Point{{Milli: 7}}}}
	content := appendSample(appendMilliseconds(appendMilliseconds(nil, time.Millisecond), 0), idOf(&s.Query), &s) // sent after 1 ms, and new
	if _, err := conn.Write(appendFrame(nil, kindSample, raw(content))); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the sample arrives", func() bool { _, ok := n.last(ask(1)); return ok })
	if got, _ := n.last(ask(1)); got.Taken.Sub(taken) > late/2 {
		t.Errorf("it seems to be %s younger than it is", got.Taken.Sub(taken))
	}
}

// Before a ping was answered quickly, nobody can tell how late a sample comes: none is sent.
func TestSamplesWaitForAQuickStream(t *testing.T) {
	ca := certstest.NewAuthority(t)
	trusted := ca.Trusted()
	now := &stepped{}
	n := newNode(t, "a", ca.Peers(t, serverName, trusted), func(o *Options) { o.Clock = now })
	n.Add(ask(1))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	n.view.set([]membership.Node{n.view.Local(), {ID: "b", State: membership.Active, Collects: true, Stream: listener.Addr().String()}})
	n.collect(ask(1), 0, 7)
	n.start(t)
	conn, err := tls.NewListener(listener, ca.Peers(t, serverName, trusted).Server()).Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	in := &frames{from: bufio.NewReader(conn), limit: maxFrame}
	if _, err := readHello(in, kindHello); err != nil {
		t.Fatal(err)
	}
	if err := sendHello(conn, kindWelcome, hello{Protocol: protocol, Cluster: "test", Node: "b", State: "active"}); err != nil {
		t.Fatal(err)
	}
	next := func() (kind byte, pong []byte) {
		kind, content, err := in.next()
		if err != nil {
			t.Fatal(err)
		}
		rest := input{rest: string(content)}
		return kind, appendFrame(nil, kindPong, number(rest.uvarint()))
	}
	for i, waits := range []time.Duration{time.Second, time.Second, 0} {
		kind, pong := next()
		if kind != kindPing {
			t.Fatalf("frame %d is of kind %d", i, kind)
		}
		now.by.Add(int64(waits))
		if _, err := conn.Write(pong); err != nil {
			t.Fatal(err)
		}
	}
	for {
		switch kind, _ := next(); kind {
		case kindSample:
			return
		case kindPing:
			t.Fatal("a ping was answered at once, and it still waits")
		}
	}
}

// What waits for a node that does not read is one sample of each query, and it is given up.
func TestASlowNodeGetsTheNewestSamples(t *testing.T) {
	ca := certstest.NewAuthority(t)
	trusted := ca.Trusted()
	a, b := newNode(t, "a", ca.Peers(t, serverName, trusted), nil), newNode(t, "b", ca.Peers(t, serverName, trusted), nil)
	a.timing.write, a.timing.dead = time.Second, time.Second
	introduce(a, b)
	p := newProxy(t, b.view.Local().Stream)
	through(p, a, b)
	for _, n := range []*node{a, b} {
		n.Add(ask(1))
		n.start(t)
	}
	eventually(t, "they are connected", func() bool { return connected(a, b) })
	a.Replication.mu.RLock()
	peer := a.peers["b"]
	a.Replication.mu.RUnlock()
	p.stall(true)
	for i := range 1000 {
		age := time.Second // collections are further apart than a frame is under way
		if i == 999 {
			age = 0
		}
		a.collect(ask(1), age, int64(i))
		if waiting := peer.queue.length(); waiting > 4 {
			t.Fatalf("%d wait", waiting)
		}
	}
	eventually(t, "it is given up", func() bool {
		peer.mu.Lock()
		defer peer.mu.Unlock()
		return !peer.lost.IsZero()
	})
	p.stall(false)
	eventually(t, "the newest arrives", func() bool { got, ok := b.last(ask(1)); return ok && got.Points[0].Milli == 999 })
}

func (q *queue) length() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.items)
}

func TestTheQueueKeepsTheNewestInItsPlace(t *testing.T) {
	q := &queue{metrics: newMetrics(nil, nil), wake: make(chan struct{}, 1)}
	at := func(i int) itemKey { return numbered(kindSample, uint64(i)) }
	put := func(i int, milli int64) bool {
		return q.put(at(i), item{kind: kindSample, sample: &shared{Sample: Sample{Result: sample.Result{Points: []sample.Point{{Milli: milli}}}}}})
	}
	if put(0, 1) {
		t.Error("it takes something while there is no stream")
	}
	q.setOpen(true)
	for round := range 3 {
		for i := range 5000 {
			put(i, int64(round))
		}
	}
	if q.length() != 5000 {
		t.Fatalf("%d wait", q.length())
	}
	for i := 0; i < 5000; {
		for _, it := range q.take(nil, 64) {
			if it.sample.Points[0].Milli != 2 {
				t.Fatalf("%d is of round %d", i, it.sample.Points[0].Milli)
			}
			i++
		}
		put(0, 2) // the order is compacted meanwhile
		q.take(nil, 0)
	}
}

// dial greets a node as whoever tls is.
func dial(t *testing.T, to *node, tlsConfig *tls.Config, h hello) (net.Conn, hello, error) {
	t.Helper()
	conn, err := tls.Dial("tcp", to.Listener.Addr().String(), tlsConfig)
	if err != nil {
		return nil, hello{}, err
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := sendHello(conn, kindHello, h); err != nil {
		return nil, hello{}, err
	}
	welcome, err := readHello(&frames{from: bufio.NewReader(conn), limit: maxHello}, kindWelcome)
	return conn, welcome, err
}

func TestStrangersAreRefused(t *testing.T) {
	ca, foreign := certstest.NewAuthority(t), certstest.NewAuthority(t)
	trusted := ca.Trusted()
	n := newNode(t, "a", ca.Peers(t, serverName, trusted), nil)
	n.start(t)
	right := hello{Protocol: protocol, Cluster: "test", Node: "b", State: "active"}
	config := func(a *certstest.Authority, name string) *tls.Config {
		c, err := a.Peers(t, name, trusted).Client()
		if err != nil {
			t.Fatal(err)
		}
		c.ServerName = serverName
		return c
	}
	nameless := config(ca, serverName)
	nameless.GetClientCertificate = nil
	old := config(ca, serverName)
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	tests := map[string]struct {
		tls    *tls.Config
		hello  hello
		reason string
	}{
		"a certificate of another CA":                  {config(foreign, serverName), right, refusedTLS},
		"a certificate for another name":               {config(ca, "other.svc"), right, refusedTLS},
		"no certificate":                               {nameless, right, refusedTLS},
		"TLS 1.2":                                      {old, right, refusedTLS},
		"another cluster":                              {config(ca, serverName), hello{Protocol: protocol, Cluster: "other", Node: "b"}, refusedCluster},
		"another version of the protocol":              {config(ca, serverName), hello{Protocol: protocol + 1, Cluster: "test", Node: "b"}, refusedProtocol},
		"the node's own ID":                            {config(ca, serverName), hello{Protocol: protocol, Cluster: "test", Node: "a"}, refusedSelf},
		"no ID":                                        {config(ca, serverName), hello{Protocol: protocol, Cluster: "test"}, refusedFrame},
		"a greeting that is larger than any may be":    {config(ca, serverName), hello{Cluster: string(make([]byte, maxHello))}, refusedFrame},
		"a greeting in which the cluster is not named": {config(ca, serverName), hello{Protocol: protocol, Node: "b"}, refusedCluster},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			before := counter(t, n, "kubetide_replication_refused_total/"+tt.reason)
			if _, welcome, err := dial(t, n, tt.tls, tt.hello); err == nil && welcome.Refused == "" {
				t.Errorf("it is welcome: %+v", welcome)
			}
			eventually(t, "it is counted", func() bool { return counter(t, n, "kubetide_replication_refused_total/"+tt.reason) == before+1 })
		})
	}
	if _, welcome, err := dial(t, n, config(ca, serverName), right); err != nil || welcome.Refused != "" || welcome.Node != "a" {
		t.Errorf("a node of the cluster is refused: %+v, %v", welcome, err)
	}
}

func TestGarbageEndsOnlyTheStreamThatItCameOn(t *testing.T) {
	nodes := cluster(t, 2, nil)
	a, b := nodes[0], nodes[1]
	for _, n := range nodes {
		n.Add(ask(1))
	}
	eventually(t, "they are connected", func() bool { return connected(nodes...) })
	frame := func(kind byte, content string) []byte { return appendFrame(nil, kind, raw([]byte(content))) }
	id := idOf(new(ask(1)))
	for name, bytes := range map[string][]byte{
		"random bytes":                  []byte("GET / HTTP/1.1\r\n\r\n"),
		"a frame of no kind":            frame(99, ""),
		"an empty frame":                {0, 0, 0, 0},
		"a frame that is too large":     binary.BigEndian.AppendUint32(nil, maxFrame+1),
		"a sample without anything":     frame(kindSample, ""),
		"a sample that ends too early":  frame(kindSample, "\x01\x01"+string(id[:])+"\x01x\x00\x05"),
		"a sample with something after": frame(kindSample, "\x01\x01"+string(id[:])+"\x01x\x00\x00more"),
		"a sample of more than it has":  frame(kindSample, "\x01\x01"+string(id[:])+"\x01x\x00\xff\xff\xff\xff\x7f"),
		"an age of 300 years":           frame(kindSample, "\x01\xff\xff\xff\xff\xff\xff\xff\xff\x7f"+string(id[:])+"\x01x\x00\x00"),
		"an ID that is too short":       frame(kindUnwant, "x"),
		"an answer":                     frame(kindPong, "\x01"),
		"a second greeting":             frame(kindHello, "{}"),
		"a ping without a number":       frame(kindPing, ""),
		"a request without an ID":       frame(kindFetch, "\x01"),
	} {
		t.Run(name, func(t *testing.T) {
			config, err := a.TLS.Client()
			if err != nil {
				t.Fatal(err)
			}
			conn, welcome, err := dial(t, a, config, hello{Protocol: protocol, Cluster: "test", Node: "stranger"})
			if err != nil || welcome.Refused != "" {
				t.Fatal(welcome, err)
			}
			before := counter(t, a, "kubetide_replication_refused_total/frame")
			if _, err := conn.Write(bytes); err != nil {
				t.Fatal(err)
			}
			_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
			if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("the stream stays")
			}
			eventually(t, "it is counted", func() bool { return counter(t, a, "kubetide_replication_refused_total/frame") == before+1 })
		})
	}
	b.collect(ask(1), 0, 1)
	eventually(t, "the other node is heard", func() bool { _, ok := a.last(ask(1)); return ok })
}

// A query with a field that this version does not know would be collected as something else.
func TestWantsThatMeanSomethingElseAreRefused(t *testing.T) {
	nodes := cluster(t, 1, nil)
	a := nodes[0]
	config, err := a.TLS.Client()
	if err != nil {
		t.Fatal(err)
	}
	conn, _, err := dial(t, a, config, hello{Protocol: protocol, Cluster: "test", Node: "b"})
	if err != nil {
		t.Fatal(err)
	}
	good := encodeWant(idOf(new(ask(1))), new(ask(1)))
	newer := encodeWant(idOf(new(ask(2))), new(ask(3)))
	var out []byte
	for _, content := range [][]byte{newer, []byte("short"), append(make([]byte, 10), "no JSON"...), good} {
		out = appendFrame(out, kindWant, raw(content))
	}
	if _, err := conn.Write(appendFrame(out, kindWantsDone, raw(nil))); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the good one is taken", func() bool { return len(a.wantedBy("b")) == 1 })
	if got := counter(t, a, "kubetide_replication_refused_total/want"); got != 3 {
		t.Errorf("%v are refused", got)
	}
}

func TestWhatANodeWantsIsBounded(t *testing.T) {
	n := newNode(t, "a", certstest.NewAuthority(t).Peers(t, serverName, &certstest.Bundle{}), nil)
	defer n.Listener.Close()
	s := &incoming{r: n.Replication, from: "b"}
	d := &demand{r: n.Replication, from: "b", queries: map[queryID]sample.Query{}}
	d.attach(s)
	var err error
	for i := range maxWants + 1 {
		if err = d.want(s, queryID{byte(i), byte(i >> 8), byte(i >> 16)}, sample.Query{}, 1); err != nil && i < maxWants {
			t.Fatal(i, err)
		}
	}
	if err == nil {
		t.Error("there is no bound on their number")
	}
	d.attach(s)
	if d.want(s, queryID{1}, sample.Query{}, maxWantsBytes+1) == nil {
		t.Error("there is no bound on their size")
	}
	d.attach(&incoming{})
	if err := d.want(s, queryID{1}, sample.Query{}, 1); err != nil || len(d.seen) != 0 {
		t.Error("a stream that was replaced is heard")
	}
}

// A node that is not who it should be at its address gets nothing.
func TestAnotherNodeAtAnAddressGetsNothing(t *testing.T) {
	nodes := cluster(t, 2, nil)
	a, b := nodes[0], nodes[1]
	eventually(t, "they are connected", func() bool { return connected(nodes...) })
	a.view.set([]membership.Node{a.view.Local(), {ID: "gone", State: membership.Active, Stream: b.view.Local().Stream}})
	a.Want(ask(1))
	if err := newPeer(a.Replication, a.view.Nodes()[1]).stream(t.Context()); err == nil {
		t.Error("it is taken for another")
	}
}

// A certificate that is not trusted any more ends streams that are there.
func TestTrustThatIsWithdrawnEndsStreams(t *testing.T) {
	ca, next := certstest.NewAuthority(t), certstest.NewAuthority(t)
	trusted := ca.Trusted()
	a, b := newNode(t, "a", ca.Peers(t, serverName, trusted), nil), newNode(t, "b", ca.Peers(t, serverName, trusted), nil)
	a.timing.verify, b.timing.verify = 10*time.Millisecond, 10*time.Millisecond
	introduce(a, b)
	a.start(t)
	b.start(t)
	eventually(t, "they are connected", func() bool { return connected(a, b) })
	trusted.Set(next.PEM)
	eventually(t, "the streams end", func() bool {
		for _, n := range []*node{a, b} {
			n.Replication.mu.RLock()
			streams := len(n.streams)
			n.Replication.mu.RUnlock()
			if streams != 0 {
				return false
			}
		}
		return true
	})
	trusted.Set(append(append([]byte{}, next.PEM...), ca.PEM...))
	eventually(t, "they are connected again", func() bool { return connected(a, b) })
}

func TestTransit(t *testing.T) {
	type frame struct{ sent, received, delay time.Duration }
	s, ms := time.Second, time.Millisecond
	for name, frames := range map[string][]frame{
		"the first counts as quick":           {{0, 5 * ms, 0}},
		"one that waits is late":              {{0, 5 * ms, 0}, {s, s + 5*ms, 0}, {2 * s, 5*s + 5*ms, 3 * s}, {6 * s, 6*s + 5*ms, 0}},
		"a quicker one shows the first's way": {{0, 2 * s, 0}, {3 * s, 3 * s, 0}, {4 * s, 6 * s, 2 * s}},
		"a stall longer than the span shows":  {{0, 0, 0}, {s, 100 * s, 99 * s}, {2 * s, 100 * s, 98 * s}},
		"a clock that is slow by 0.1 % is no delay": {{0, 0, 0}, {20 * s, 20*s + 20*ms, 20 * ms}, {40 * s, 40*s + 40*ms, 40 * ms},
			{80 * s, 80*s + 80*ms, 40 * ms}, {120 * s, 120*s + 120*ms, 40 * ms}},
	} {
		t.Run(name, func(t *testing.T) {
			var transit transit
			begin := time.Now()
			for _, f := range frames {
				if got := transit.delay(f.sent, begin.Add(f.received), begin); got != f.delay {
					t.Errorf("sent at %s, received at %s: %s late, want %s", f.sent, f.received, got, f.delay)
				}
			}
		})
	}
}

func TestWhatIsLoggedOfStrangersIsBounded(t *testing.T) {
	m := newMetrics(prometheus.NewRegistry(), nil)
	now := clock.RealClock{}.Now()
	for i, want := range []bool{true, false, false} {
		if got := m.mayLog("tls", now.Add(time.Duration(i)*time.Second)); got != want {
			t.Errorf("%d: %t", i, got)
		}
	}
	if !m.mayLog("tls", now.Add(logEvery)) || !m.mayLog("frame", now) {
		t.Error("the next minute, or another reason, is not logged")
	}
}

func TestTheGreetingIsWhatItSays(t *testing.T) {
	content, err := json.Marshal(hello{Protocol: 1, Cluster: "c", Node: "n", State: "active"})
	if err != nil || string(content) != `{"protocol":1,"cluster":"c","node":"n","state":"active"}` {
		t.Errorf("%s, %v", content, err)
	}
}
