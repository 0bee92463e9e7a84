// Package replication sends samples and wants to all nodes of the cluster, and takes theirs, so that each node answers from memory. It
// knows neither collectors nor the store, and decides nothing about who collects. It talks to nodes with a certificate of the same CA.
//
// Each node dials each other one and sends on that stream; what comes back on it are answers only. A stream begins with all that the
// other must know, so that a lost one costs nothing but another beginning. What waits for a slow node is at most one sample of each
// query, and a node that hangs is given up. Ages travel, never clock readings.
package replication

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/utils/clock"

	"github.com/kubetide/kubetide/adapter/cluster/membership"
	"github.com/kubetide/kubetide/internal/certs"
	"github.com/kubetide/kubetide/internal/sample"
)

const (
	// wantsGrace is how long the wants of a node hold after its stream was lost.
	wantsGrace = 30 * time.Second
	// holdFor is how long a sample of a query is kept that nobody here asks for yet.
	holdFor = time.Minute
	// maxHeld and maxHeldBytes bound these samples.
	maxHeld, maxHeldBytes = 10_000, 32 << 20
	// maxWants and maxWantsBytes bound what one node may want.
	maxWants, maxWantsBytes = 50_000, 32 << 20
	// maxIncoming bounds the streams of other nodes, those included that have not greeted yet.
	maxIncoming = 256
	// maxFetches bounds what one node is asked at once.
	maxFetches = 256
	// fetchTimeout is the longest that Fetch takes.
	fetchTimeout = time.Second
)

// timing is what tests shorten. It is real time, since the network's is.
type timing struct {
	// greeting is how long dialling and the greeting may take each, write how long a piece of a stream may.
	greeting, write time.Duration
	// A ping is sent each heartbeat; whoever hears nothing for dead gives the stream up.
	heartbeat, dead time.Duration
	// pace is the least time between two writes to a node, so that single samples share them.
	pace time.Duration
	// The time until a node is dialled again doubles from the first to the last.
	firstRetry, lastRetry time.Duration
	// verify is how often the certificate of the other side is looked at again.
	verify time.Duration
}

var usual = timing{
	greeting: 5 * time.Second, write: 5 * time.Second, heartbeat: time.Second, dead: 5 * time.Second, pace: 10 * time.Millisecond,
	firstRetry: 100 * time.Millisecond, lastRetry: 5 * time.Second, verify: 30 * time.Second,
}

// Sample is the result of a collection, and who collected. An error without points is a sample, too.
type Sample struct {
	sample.Result
	Collector string
}

// Options are what a Replication needs. Its functions are called without a lock, and must not block.
type Options struct {
	Membership membership.Membership
	// Cluster is the cluster's name; nodes of another one are refused.
	Cluster string
	// Listener takes the streams of other nodes. Run closes it.
	Listener net.Listener
	TLS      *certs.Peers
	// Deliver takes a sample of a query that was added. Samples may come twice, and older ones later. One that was held came before its query was
	// added; Add delivers it, so whoever adds may hold locks of its own.
	Deliver func(s Sample, held bool)
	// WantsChanged is told what a node wants from now on, and what no longer.
	WantsChanged func(from string, added, withdrawn []sample.Query)
	// StateChanged is told the state of a node when its stream begins, and when it changes. May be nil.
	StateChanged func(from string, state membership.State)
	// SnapshotReceived is called when all samples of another node are here; Synced may have changed. May be nil.
	SnapshotReceived func()
	// Lookup returns the last sample of a query that was added, whoever collected it, if it is fresh.
	Lookup func(q sample.Query) (Sample, bool)
	// Clock is the real one if nil.
	Clock clock.WithTicker
	// Registerer takes the metrics; none if nil.
	Registerer prometheus.Registerer
	Log        logr.Logger
}

// Replication is this node's part.
type Replication struct {
	Options
	timing  timing
	metrics *metrics
	running sync.WaitGroup
	wake    chan struct{} // the membership has changed

	// mu protects what follows. Whoever holds it may lock a peer, nothing else.
	mu sync.RWMutex
	// queries are those that were added; byID are the same.
	queries map[sample.Query]*query
	byID    map[queryID]*query
	wanted  map[queryID][]byte // own wants, encoded
	peers   map[string]*peer
	// streams are those of other nodes, demands what these want.
	streams  map[string]*incoming
	demands  map[string]*demand
	held     map[queryID]heldSample
	heldSize int
	// whole are the nodes whose snapshot is here.
	whole map[string]bool
}

// query is one that was added.
type query struct {
	sample.Query
	id queryID
}

// heldSample is one of a query that was not added yet.
type heldSample struct {
	from    string
	content string
	taken   time.Time
	came    time.Time
}

// New does nothing until Run.
func New(o Options) *Replication {
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	r := &Replication{
		Options: o, timing: usual, wake: make(chan struct{}, 1),
		queries: map[sample.Query]*query{}, byID: map[queryID]*query{}, wanted: map[queryID][]byte{}, peers: map[string]*peer{},
		streams: map[string]*incoming{}, demands: map[string]*demand{}, held: map[queryID]heldSample{}, whole: map[string]bool{},
	}
	r.metrics = newMetrics(o.Registerer, r)
	return r
}

// Add has samples of the query delivered from now on. One that came shortly before is delivered at once.
func (r *Replication) Add(q sample.Query) {
	added := &query{Query: q, id: idOf(&q)}
	r.mu.Lock()
	if r.queries[q] != nil {
		r.mu.Unlock()
		return
	}
	r.queries[q], r.byID[added.id] = added, added
	held, found := r.held[added.id]
	r.unhold(added.id)
	r.mu.Unlock()
	if found && r.Clock.Since(held.came) <= holdFor {
		if err := r.deliver(added, held, true); err != nil {
			r.Log.V(1).Info("A sample is dropped", "from", held.from, "error", err.Error())
		}
	}
}

// Remove ends what Add began.
func (r *Replication) Remove(q sample.Query) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if removed := r.queries[q]; removed != nil {
		delete(r.queries, q)
		delete(r.byID, removed.id)
	}
}

// Publish sends a sample to all other nodes, if its query was added. Lookup must know it already: a node whose stream is about to begin
// gets it from there. Its points must not be changed any more.
func (r *Replication) Publish(s Sample) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	q := r.queries[s.Query]
	if q == nil {
		return
	}
	all := item{kind: kindSample, query: q, sample: &shared{Sample: s}}
	for _, p := range r.peers {
		p.queue.put(itemKey{kindSample, q.id}, all)
	}
}

// Want tells all other nodes, now and later, that this one asks for the query, until Unwant.
func (r *Replication) Want(q sample.Query) {
	id := idOf(&q)
	content := encodeWant(id, &q)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wanted[id] = content
	for _, p := range r.peers {
		p.queue.put(itemKey{kindWant, id}, item{kind: kindWant, content: content})
	}
}

// Unwant ends what Want began.
func (r *Replication) Unwant(q sample.Query) {
	id := idOf(&q)
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.wanted, id)
	for _, p := range r.peers {
		p.queue.put(itemKey{kindWant, id}, item{kind: kindUnwant, content: id[:]})
	}
}

// Fetch asks a node for its last sample of a query, for a second at most. The sample's age may be too high by the time that it took.
func (r *Replication) Fetch(ctx context.Context, node string, q sample.Query) (Sample, error) {
	r.mu.RLock()
	p := r.peers[node]
	r.mu.RUnlock()
	if p == nil {
		return Sample{}, fmt.Errorf("node %s: there is no such node", node)
	}
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	s, err := p.fetch(ctx, q)
	if err != nil {
		return Sample{}, fmt.Errorf("node %s: %w", node, err)
	}
	return s, nil
}

// Synced tells whether all samples of an active node are here, or those of all nodes if none of them is active. Nodes that do not collect
// have only what they ask for, and do not count. A node that is alone has them.
func (r *Replication) Synced() bool {
	local, nodes := r.Membership.Local().ID, r.Membership.Nodes()
	r.mu.Lock()
	defer r.mu.Unlock()
	others, active, missing := 0, false, false
	for _, n := range nodes {
		switch {
		case n.ID == local, !n.Collects:
			continue
		case n.State == membership.Active && r.whole[n.ID]:
			return true
		case !r.whole[n.ID]:
			missing = true
		}
		others++
		active = active || n.State == membership.Active
	}
	return others == 0 || !active && !missing
}

// Run dials, accepts and sends until ctx ends.
func (r *Replication) Run(ctx context.Context) error {
	defer r.running.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	unsubscribe := r.Membership.Subscribe(func() {
		select {
		case r.wake <- struct{}{}:
		default:
		}
	})
	defer unsubscribe()
	defer func() { _ = r.Listener.Close() }()
	r.running.Go(func() { r.accept(ctx) })

	tick := r.Clock.NewTicker(time.Second)
	defer tick.Stop()
	for {
		r.reconcile(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-r.wake:
		case <-tick.C():
			r.expire()
		}
	}
}

// reconcile dials new nodes, lets go of those that are gone, and tells the others the local state.
func (r *Replication) reconcile(ctx context.Context) {
	local, nodes := r.Membership.Local(), r.Membership.Nodes()
	r.mu.Lock()
	defer r.mu.Unlock()
	there := map[string]bool{}
	for _, n := range nodes {
		if n.ID == local.ID || n.Stream == "" {
			continue
		}
		there[n.ID] = true
		p := r.peers[n.ID]
		if p != nil && p.node.Stream != n.Stream {
			p.cancel()
			p = nil
		}
		if p == nil {
			p = newPeer(r, n)
			run, cancel := context.WithCancel(ctx)
			p.cancel = cancel
			r.peers[n.ID] = p
			r.running.Go(func() { p.run(run) })
		}
		if p.told != local.State {
			p.told = local.State
			p.queue.put(itemKey{kind: kindState}, item{kind: kindState, content: []byte(local.State)})
		}
	}
	for id, p := range r.peers {
		if !there[id] {
			p.cancel()
			delete(r.peers, id)
		}
	}
	for id := range r.whole {
		if !there[id] && r.streams[id] == nil {
			delete(r.whole, id)
		}
	}
}

// expire ends what was kept for a time.
func (r *Replication) expire() {
	now := r.Clock.Now()
	var demands []*demand
	r.mu.Lock()
	for id, h := range r.held {
		if now.Sub(h.came) > holdFor {
			r.unhold(id)
			r.metrics.dropped.WithLabelValues(droppedUnknown).Inc()
		}
	}
	for _, d := range r.demands {
		demands = append(demands, d)
	}
	r.mu.Unlock()
	for _, d := range demands {
		if d.expire(now) {
			r.mu.Lock()
			if r.demands[d.from] == d {
				delete(r.demands, d.from)
			}
			r.mu.Unlock()
		}
	}
}

// hold keeps a sample of a query that may be added soon, unless a younger one is kept: a node that begins hears the collector's next sample
// and the other nodes' snapshots in any order. r.mu is held.
func (r *Replication) hold(id queryID, h heldSample) {
	if h.taken.Before(r.held[id].taken) {
		return
	}
	r.unhold(id)
	if len(r.held) >= maxHeld || r.heldSize+len(h.content) > maxHeldBytes {
		r.metrics.dropped.WithLabelValues(droppedUnknown).Inc()
		return
	}
	r.held[id] = h
	r.heldSize += len(h.content)
}

// unhold forgets it. r.mu is held.
func (r *Replication) unhold(id queryID) {
	r.heldSize -= len(r.held[id].content)
	delete(r.held, id)
}

var errOwn = errors.New("the sample is this node's own")

// deliver decodes a sample and hands it on.
func (r *Replication) deliver(q *query, h heldSample, held bool) error {
	s, err := decodeSample(h.content)
	if err != nil {
		return err
	}
	if s.Collector == r.Membership.Local().ID {
		return errOwn
	}
	if r.Clock.Since(h.taken) > q.MaxAge(0) {
		r.metrics.dropped.WithLabelValues(droppedOld).Inc()
		return nil
	}
	s.Query, s.Taken = q.Query, h.taken
	r.Deliver(s, held)
	return nil
}

// numbered is the key of what is never replaced.
func numbered(kind byte, n uint64) itemKey {
	key := itemKey{kind: kind}
	binary.BigEndian.PutUint64(key.id[:], n)
	return key
}
