package cluster

import (
	"errors"
	"slices"
	"time"

	"github.com/kubetide/kubetide/adapter/cluster/membership"
	"github.com/kubetide/kubetide/internal/sample"
)

// outlook is what a node knows of the world around it.
type outlook struct {
	// lost says that no other node is there, though the last ones did not say that they were leaving.
	lost bool
	// answers are those of the sources of what is wanted here.
	answers []answer
}

// answer is when a source last answered, or its query was first wanted, and how long that counts.
type answer struct {
	at     time.Time
	maxAge time.Duration
}

// cutOff says whether nobody is heard any more, neither a node nor a source. While others are heard the fault is the sources', and being unready
// would take the APIs away on all nodes.
func (o outlook) cutOff(now time.Time) bool {
	return o.lost && len(o.answers) > 0 && !slices.ContainsFunc(o.answers, func(a answer) bool { return now.Sub(a.at) <= a.maxAge })
}

// lost says whether the others vanished, seeing them as they last were. Who has left, or never was there, is not missed.
func lost(alone bool, others []membership.Node) bool {
	return alone && slices.ContainsFunc(others, func(n membership.Node) bool { return n.State != membership.Leaving })
}

var (
	errNotSynced = errors.New("the samples of the other nodes are not here yet")
	errCutOff    = errors.New("this node is cut off: the other nodes have vanished, and no source has answered for longer than a value is served; " +
		"check the node's network, and that it reaches the ports for gossip and samples (8003 and 8004) of the others")
)

// Ready says whether the node has what the others know, and hears anybody. One that was cut off gets the others' samples first, as one
// that joins does. One that does not collect serves no metrics, and stays.
func (c *Cluster) Ready() error {
	if !c.synced.Load() {
		return errNotSynced
	}
	if !c.local.Collects {
		return nil
	}
	now, cut := c.options.Clock.Now(), c.outlook()
	synced := c.replication.Synced()
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case cut.cutOff(now):
		c.cutOff = now
		return errCutOff
	case (cut.lost || !synced) && now.Sub(c.cutOff) < c.options.SyncTimeout: // what a source answers first is not all that is asked for
		return errNotSynced
	}
	return nil
}

func (c *Cluster) outlook() outlook {
	c.mu.Lock()
	if !lost(c.alone, c.others) {
		c.mu.Unlock()
		return outlook{}
	}
	last := make(map[sample.Query]time.Time, len(c.queries))
	for q, known := range c.queries {
		last[q] = known.known
		if len(known.samples) > 0 {
			last[q] = known.samples[0].Taken
		}
	}
	c.mu.Unlock()
	o := outlook{lost: true}
	for q, at := range last {
		o.answers = append(o.answers, answer{at, c.adapter.Answer(q).MaxAge})
	}
	return o
}
