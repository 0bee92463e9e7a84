// Package cluster lets several servers share the collecting: each query is collected by one node (ownership), which sends its
// samples to all others (replication), so that any node answers any read from memory. Who is there, membership says. It joins
// these parts and decides nothing itself; it knows neither HPAs nor the metrics APIs.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"k8s.io/utils/clock"

	"github.com/kubetide/kubetide/adapter/cluster/membership"
	"github.com/kubetide/kubetide/adapter/cluster/ownership"
	"github.com/kubetide/kubetide/adapter/cluster/replication"
	"github.com/kubetide/kubetide/internal/certs"
	"github.com/kubetide/kubetide/internal/sample"
)

// Options are what a Cluster needs.
type Options struct {
	Membership Membership
	// Name is the cluster's. Nodes of another one are refused.
	Name string
	// Listener takes the streams of other nodes, under TLS. Run closes it.
	Listener net.Listener
	TLS      *certs.Peers
	// SyncTimeout is how long a node waits for the others' samples before it takes part without them.
	SyncTimeout time.Duration
	// Clock is the real one if nil.
	Clock clock.WithTicker
	// Registerer takes the metrics; none if nil.
	Registerer prometheus.Registerer
	Log        logr.Logger
}

// Membership is one that has to be run.
type Membership interface {
	membership.Membership
	// Run finds the others, and leaves when ctx ends.
	Run(ctx context.Context) error
	// Tried is closed once the node has looked for others.
	Tried() <-chan struct{}
}

// Adapter is what a Cluster needs of the adapter on its node.
type Adapter struct {
	// Insert stores a result; it is false if nobody asks for it, or a newer one is there.
	Insert func(sample.Result) bool
	// Report is told the outcome of another node's collection that Insert has taken, so that whoever leads can tell people.
	Report func(sample.Result)
	// Answer is what is stored.
	Answer func(sample.Query) sample.Answer
	// Reconsider has the adapter ask again whose turn each query is.
	Reconsider func()
	// Works tells the adapter that another node had an answer from the query's source.
	Works func(sample.Query)
	// Want collects a query that another node asks for, until release is called.
	Want func(sample.Query) (release func())
}

// Cluster is this node's part.
type Cluster struct {
	options     Options
	adapter     Adapter
	replication *replication.Replication
	local       membership.Node // but for its state
	synced      atomic.Bool
	progress    chan struct{} // has an item when the others' samples may be here
	metrics     *metrics

	mu      sync.Mutex
	queries map[sample.Query]*query // those that are wanted here
	named   map[name][]sample.Query // the same
	nodes   []string                // those who share the collecting
	alone   bool                    // no other node is there
	others  []membership.Node       // as they were when one was last there
	leaving map[string]bool         // those who say so on their streams, which gossip may tell later
	cutOff  time.Time               // when Ready last found that nobody is heard

	remoteMu sync.Mutex
	remote   map[string]map[sample.Query]func() // by node: what it asks for, and how to release it
}

// name is how a read names queries.
type name struct {
	kind              sample.Kind
	namespace, metric string
}

func nameOf(q sample.Query) name { return name{q.Kind, q.Namespace, q.Metric} }

// query is one that is wanted here.
type query struct {
	id           string
	owner        string
	samples      ownership.Samples
	known, tried time.Time
	reason       ownership.Reason // of the last decision
	moved        time.Time        // when the owner changed, until there is a sample of the new one
	fetched      time.Time        // when another node was last asked for its sample
}

// New opens nothing and does nothing until Run.
func New(o Options) *Cluster {
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	c := &Cluster{
		options: o, local: o.Membership.Local(), progress: make(chan struct{}, 1), queries: map[sample.Query]*query{}, named: map[name][]sample.Query{},
		leaving: map[string]bool{}, remote: map[string]map[sample.Query]func(){},
	}
	c.replication = replication.New(replication.Options{
		Membership: o.Membership, Cluster: o.Name, Listener: o.Listener, TLS: o.TLS,
		Deliver: c.received, WantsChanged: c.wantsChanged, StateChanged: c.stateChanged, SnapshotReceived: c.proceed, Lookup: c.lookup,
		Clock: o.Clock, Registerer: o.Registerer, Log: o.Log.WithName("replication"),
	})
	c.metrics = newMetrics(o.Registerer, c)
	return c
}

// Attach must be called before anything else.
func (c *Cluster) Attach(a Adapter) { c.adapter = a }

// Run takes part until ctx ends.
func (c *Cluster) Run(ctx context.Context) error {
	cancel := c.options.Membership.Subscribe(c.look)
	defer cancel()
	c.look()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		if err := c.options.Membership.Run(ctx); err != nil {
			return fmt.Errorf("cluster: %w", err)
		}
		return nil
	})
	group.Go(func() error { return c.replication.Run(ctx) })
	group.Go(func() error { c.synchronize(ctx); return nil })
	return group.Wait()
}

// synchronize takes part once the others' samples are here, or have been waited for.
func (c *Cluster) synchronize(ctx context.Context) {
	enough := c.options.Clock.After(c.options.SyncTimeout)
	tried := c.options.Membership.Tried()
	for !c.synced.Load() {
		select {
		case <-ctx.Done():
			return
		case <-enough:
			c.options.Log.Info("Taking part without the samples of other nodes: they did not come in time", "after", c.options.SyncTimeout.String())
			c.synced.Store(true)
			continue
		case <-tried:
			tried = nil
		case <-c.progress:
		}
		c.synced.Store(tried == nil && c.replication.Synced())
	}
	if c.options.Membership.Local().State == membership.Joining {
		c.options.Membership.SetState(membership.Active)
	}
}

// proceed has synchronize look again.
func (c *Cluster) proceed() {
	select {
	case c.progress <- struct{}{}:
	default:
	}
}

// Leave has the others take over what this node collects. It goes on until they do.
func (c *Cluster) Leave() { c.options.Membership.SetState(membership.Leaving) }

// stateChanged takes what a node says on its stream. That it is leaving it never takes back.
func (c *Cluster) stateChanged(from string, state membership.State) {
	if state != membership.Leaving {
		return
	}
	c.mu.Lock()
	c.leaving[from] = true
	c.mu.Unlock()
	c.look()
}

// members are the nodes that are there. c.mu is held.
func (c *Cluster) members() []membership.Node {
	nodes := c.options.Membership.Nodes()
	for i := range nodes {
		if c.leaving[nodes[i].ID] {
			nodes[i].State = membership.Leaving
		}
	}
	return nodes
}

// look reads the membership again.
func (c *Cluster) look() {
	c.mu.Lock()
	nodes := c.members()
	maps.DeleteFunc(c.leaving, func(id string, _ bool) bool { return !slices.ContainsFunc(nodes, hasID(id)) })
	sharing := share(nodes)
	same := slices.Equal(c.nodes, sharing)
	if !same {
		c.assign(nodes, sharing)
	}
	others := slices.DeleteFunc(nodes, hasID(c.local.ID))
	if c.alone = len(others) == 0; !c.alone {
		c.others = others
	}
	c.mu.Unlock()
	c.proceed()
	if !same {
		c.options.Log.Info("Nodes share the collecting", "nodes", sharing)
		c.adapter.Reconsider()
	}
}

func hasID(id string) func(membership.Node) bool {
	return func(n membership.Node) bool { return n.ID == id }
}

// share returns those who share the collecting: the active nodes, and where there are none, whoever is there.
func share(nodes []membership.Node) (sharing []string) {
	for _, state := range []membership.State{membership.Active, membership.Joining, membership.Leaving} {
		for _, n := range nodes {
			if n.Collects && n.State == state {
				sharing = append(sharing, n.ID)
			}
		}
		if len(sharing) > 0 {
			break
		}
	}
	return sharing
}

// assign gives the queries to those who share the collecting from now on. c.mu is held.
func (c *Cluster) assign(nodes []membership.Node, sharing []string) {
	now, takesPart := c.options.Clock.Now(), c.synced.Load()
	c.nodes = sharing
	for _, known := range c.queries {
		before := known.owner
		known.owner = ownership.Owner(known.id, sharing)
		if before == known.owner || before == "" || !takesPart {
			continue
		}
		if known.moved.IsZero() && len(known.samples) > 0 {
			known.moved = now
		}
		// What it collects already it has taken over before, or never given up.
		if known.owner == c.local.ID && known.reason != ownership.TakeOver && known.reason != ownership.Continue {
			c.metrics.takeovers.WithLabelValues(whyMoved(before, nodes, c.others)).Inc()
		}
	}
}

// whyMoved returns why a query is no longer the owner's it was, as a reason of takeovers.
func whyMoved(owner string, nodes, before []membership.Node) string {
	i := slices.IndexFunc(nodes, hasID(owner))
	there := i >= 0
	if !there {
		nodes = before
		i = slices.IndexFunc(nodes, hasID(owner))
	}
	switch {
	case i >= 0 && nodes[i].State == membership.Leaving:
		return ownerLeaving
	case there:
		return selfJoined
	}
	return ownerFailed
}

// Wanted says whether the node wants answers to the query.
func (c *Cluster) Wanted(q sample.Query, wanted bool) {
	c.mu.Lock()
	_, known := c.queries[q]
	switch {
	case wanted && !known:
		id := q.ID()
		c.queries[q] = &query{id: id, owner: ownership.Owner(id, c.nodes), known: c.options.Clock.Now()}
		c.named[nameOf(q)] = append(c.named[nameOf(q)], q)
	case !wanted && known:
		delete(c.queries, q)
		others := slices.DeleteFunc(c.named[nameOf(q)], func(other sample.Query) bool { return other == q })
		if c.named[nameOf(q)] = others; len(others) == 0 {
			delete(c.named, nameOf(q))
		}
	}
	c.mu.Unlock()
	switch {
	case wanted && !known:
		c.replication.Add(q)
	case !wanted && known:
		c.replication.Remove(q)
	}
}

// Ask says whether this node asks for the query by something that the others do not see by themselves.
func (c *Cluster) Ask(q sample.Query, asks bool) {
	if asks {
		c.replication.Want(q)
	} else {
		c.replication.Unwant(q)
	}
}

// wantsChanged takes over what another node asks for.
func (c *Cluster) wantsChanged(from string, added, withdrawn []sample.Query) {
	c.remoteMu.Lock()
	defer c.remoteMu.Unlock()
	wants := c.remote[from]
	if wants == nil {
		wants = map[sample.Query]func(){}
		c.remote[from] = wants
	}
	for _, q := range added {
		if wants[q] == nil {
			wants[q] = c.adapter.Want(q)
		}
	}
	for _, q := range withdrawn {
		if release := wants[q]; release != nil {
			release()
			delete(wants, q)
		}
	}
	if len(wants) == 0 {
		delete(c.remote, from)
	}
}

// Turn says whether this node is to collect the query now, and if not, when to ask again.
func (c *Cluster) Turn(q sample.Query) (collect bool, next time.Time) {
	now := c.options.Clock.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	known := c.queries[q]
	switch {
	case !c.local.Collects, known == nil: // its withdrawal is on the way to the scheduler
		return false, now.Add(q.Interval)
	}
	d := ownership.Decide(ownership.Inputs{
		Key: known.id, Node: c.local.ID, Nodes: c.nodes, Interval: q.Interval, Samples: known.samples, Known: known.known, Tried: known.tried,
	}, now)
	if d.Reason == ownership.TakeOver && known.reason != ownership.TakeOver {
		c.metrics.takeovers.WithLabelValues(ownerSilent).Inc()
	}
	known.reason = d.Reason
	if d.Collect {
		known.tried = now
	}
	return d.Collect, d.Next
}

// Insert stores what this node has collected, and sends it to the others.
func (c *Cluster) Insert(r sample.Result) bool {
	if !c.adapter.Insert(r) {
		return false
	}
	c.note(r, c.local.ID)
	c.replication.Publish(replication.Sample{Result: r, Collector: c.local.ID})
	return true
}

// received stores what another node has collected. Who adds a query holds what Report needs; the next sample is reported.
func (c *Cluster) received(s replication.Sample, held bool) {
	outcome := s.Result
	if whole := outcome.Query.Kind == sample.Object || outcome.Query.Kind == sample.External; whole && outcome.Err != nil && len(outcome.Points) > 0 {
		// Lookup's, of the last value, and why there is no newer one.
		value := outcome
		value.Err, outcome.Points = nil, nil
		c.adapter.Insert(value)
	}
	if c.adapter.Insert(outcome) && !held {
		c.adapter.Report(outcome)
	}
	if c.note(s.Result, s.Collector) {
		c.adapter.Works(s.Query)
	}
}

// note remembers that a node has asked the source, and tells whether it has answered.
func (c *Cluster) note(r sample.Result, node string) (answered bool) {
	if r.Err != nil && len(r.Points) == 0 && !errors.Is(r.Err, sample.ErrNoData) {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	known := c.queries[r.Query]
	if known == nil {
		return false
	}
	for _, s := range known.samples {
		// Two nodes asked within half an interval.
		if s.Node != node && r.Taken.Sub(s.Taken).Abs() < r.Query.Interval/2 {
			c.metrics.duplicates.Inc()
			break
		}
	}
	now := c.options.Clock.Now()
	if node == known.owner && !known.moved.IsZero() {
		c.metrics.handover.Observe(now.Sub(known.moved).Seconds())
		known.moved = time.Time{}
	}
	known.samples = known.samples.With(ownership.Sample{Node: node, Taken: r.Taken, Came: now})
	return true
}

// lookup is the last sample, for a node that begins.
func (c *Cluster) lookup(q sample.Query) (replication.Sample, bool) {
	c.mu.Lock()
	known := c.queries[q]
	var collector string
	if known != nil && len(known.samples) > 0 {
		collector = known.samples[0].Node
	}
	c.mu.Unlock()
	if collector == "" {
		return replication.Sample{}, false
	}
	a := c.adapter.Answer(q)
	switch {
	case a.Instead == nil && a.State == sample.Fresh:
		return replication.Sample{Result: sample.Result{Query: q, Taken: a.Taken, Points: a.Points, Err: a.Cause}, Collector: collector}, true
	case errors.Is(a.Cause, sample.ErrNoData):
		return replication.Sample{Result: sample.Result{Query: q, Taken: a.Taken, Err: a.Cause}, Collector: collector}, true
	}
	return replication.Sample{}, false
}

const (
	// maxFetched bounds the queries that one read may ask another node for.
	maxFetched = 16
	// fetchAgain is how long no read asks for a query again.
	fetchAgain = time.Second
)

// Fetch asks the owners of queries for their samples, where this node has none that is fresh: it may have joined a moment ago, or hear
// an owner no more that others still hear. It takes a second at most, and tells whether something came.
func (c *Cluster) Fetch(ctx context.Context, kind sample.Kind, namespace, metric string) bool {
	type ask struct {
		query sample.Query
		node  string
	}
	var asks []ask
	now := c.options.Clock.Now()
	c.mu.Lock()
	for _, q := range c.named[name{kind, namespace, metric}] {
		if len(asks) == maxFetched {
			break
		}
		known := c.queries[q]
		if known.owner == "" || known.owner == c.local.ID || now.Sub(known.fetched) < fetchAgain || c.adapter.Answer(q).State == sample.Fresh {
			continue
		}
		known.fetched = now
		asks = append(asks, ask{q, known.owner})
	}
	c.mu.Unlock()
	var came atomic.Bool
	var wg sync.WaitGroup
	for _, a := range asks {
		wg.Go(func() {
			if s, err := c.replication.Fetch(ctx, a.node, a.query); err == nil {
				c.received(s, false)
				came.Store(true)
			}
		})
	}
	wg.Wait()
	return came.Load()
}
