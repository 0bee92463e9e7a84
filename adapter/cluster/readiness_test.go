package cluster

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/kubetide/kubetide/adapter/cluster/membership"
	"github.com/kubetide/kubetide/internal/sample"
)

func TestANodeIsCutOffIfItHearsNobody(t *testing.T) {
	now := time.Now()
	const maxAge = 40 * time.Second
	ago := func(ages ...time.Duration) (answers []answer) {
		for _, age := range ages {
			answers = append(answers, answer{now.Add(-age), maxAge})
		}
		return answers
	}
	others := func(states ...membership.State) (nodes []membership.Node) {
		for i, state := range states {
			nodes = append(nodes, membership.Node{ID: fmt.Sprint(i), State: state})
		}
		return nodes
	}
	const active, joining, leaving = membership.Active, membership.Joining, membership.Leaving
	tests := map[string]struct {
		alone   bool
		others  []membership.Node
		answers []answer
		want    bool
	}{
		"the others vanished, and no source answers":            {true, others(active, active), ago(41*time.Second, time.Hour), true},
		"one of the others vanished, the other left":            {true, others(leaving, active), ago(time.Hour), true},
		"the others vanished while they joined":                 {true, others(joining), ago(time.Hour), true},
		"the others vanished, and one source answered":          {true, others(active), ago(time.Hour, maxAge), false},
		"the others vanished, and nothing is wanted":            {true, others(active), nil, false},
		"another is there, and no source answers":               {false, others(active), ago(time.Hour), false},
		"the others have left, and no source answers":           {true, others(leaving, leaving), ago(time.Hour), false},
		"a server that never had others, and no source answers": {true, nil, ago(time.Hour), false},
		"all is well": {false, others(active, active), ago(time.Second), false},
		"one that is leaving is still there, no source answers":  {false, others(leaving), ago(time.Hour), false},
		"a source with a longer interval has its own time to be": {true, others(active), append(ago(time.Hour), answer{now.Add(-time.Hour), 2 * time.Hour}), false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			o := outlook{lost: lost(tt.alone, tt.others), answers: tt.answers}
			if got := o.cutOff(now); got != tt.want {
				t.Errorf("%v", got)
			}
		})
	}
}

func TestWhyAQueryMoved(t *testing.T) {
	node := func(id string, state membership.State) membership.Node { return membership.Node{ID: id, State: state} }
	before := []membership.Node{node("a", membership.Active), node("b", membership.Leaving)}
	tests := map[string]struct {
		owner string
		nodes []membership.Node
		want  string
	}{
		"the owner is there":                           {"a", []membership.Node{node("a", membership.Active)}, selfJoined},
		"the owner is leaving":                         {"b", before, ownerLeaving},
		"the owner has left":                           {"b", nil, ownerLeaving},
		"the owner vanished":                           {"a", []membership.Node{node("b", membership.Leaving)}, ownerFailed},
		"the owner began to leave since the last look": {"a", []membership.Node{node("a", membership.Leaving)}, ownerLeaving},
		"the owner was never seen":                     {"c", nil, ownerFailed},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := whyMoved(tt.owner, tt.nodes, before); got != tt.want {
				t.Errorf("%s instead of %s", got, tt.want)
			}
		})
	}
}

// answered counts the queries that the node has a value for. None may be older than allowed.
func (l *lab) answered(n *node, queries int) (count int) {
	l.Helper()
	for i := range queries {
		now := time.Now()
		if a := n.store.Answer(queryOf(i)); a.State == sample.Fresh {
			count++
			if age := now.Sub(a.Taken); age > l.maxAge {
				l.Errorf("%s answers a value that is %s old", n.id, age)
			}
		}
	}
	return count
}

// F6: of a node that reaches neither the others nor the source, values age out; then it is unready, until it hears somebody.
func TestF6ANodeThatIsCutOffTurnsUnready(t *testing.T) {
	const queries = 20
	l := newLab(t)
	l.maxAge = 5 * interval
	nodes := []*node{l.start(queries), l.start(queries), l.start(queries)}
	l.settled(nodes...)
	l.watch(2*interval, queries, nodes...)

	cut, others := nodes[0], nodes[1:]
	isolate := func() {
		l.network.Partition([]netip.Addr{cut.at}, []netip.Addr{others[0].at, others[1].at})
		cut.sourceOut.Store(true)
	}
	// unready returns how long after the isolation the node was without values, and unready.
	unready := func() (silent, unready time.Duration) {
		began := time.Now()
		// The streams of the test go on until the others have given the node up, which takes a second more than suspectAfter at most.
		l.eventually(suspectAfter+time.Second+l.maxAge+interval, func() error {
			for _, n := range others {
				if err := n.Ready(); err != nil {
					l.Errorf("%s is unready: %v", n.id, err)
				}
				if had := l.answered(n, queries); had < queries {
					l.Errorf("%s answers %d of %d queries", n.id, had, queries)
				}
			}
			ready := cut.Ready() == nil
			had := l.answered(cut, queries)
			if had == 0 && silent == 0 {
				silent = time.Since(began)
			}
			if ready {
				return fmt.Errorf("%s is ready, and answers %d queries", cut.id, had)
			}
			if had > 0 {
				l.Errorf("it is unready, but answers %d queries", had)
			}
			return nil
		})
		return silent, time.Since(began)
	}
	isolate()
	silent, until := unready()
	t.Logf("without values after %s, unready after %s, where a value is served for %s", silent, until, l.maxAge)
	if err := cut.Ready(); !errors.Is(err, errCutOff) {
		t.Errorf("it says %v", err)
	}

	began := time.Now()
	cut.sourceOut.Store(false)
	l.eventually(syncTimeout+5*interval, cut.Ready)
	t.Logf("ready %s after the source was back", time.Since(began))
	if had := l.answered(cut, queries); had < queries {
		t.Errorf("it is ready, and answers %d of %d queries", had, queries)
	}
	if alone := cut.Nodes(); len(alone) != 1 {
		t.Errorf("it sees %d nodes", len(alone))
	}

	isolate()
	unready()
	began = time.Now()
	l.network.Heal()
	l.eventually(10*time.Second, cut.Ready)
	t.Logf("ready %s after the network was whole", time.Since(began))
	if had := l.answered(cut, queries); had < queries {
		t.Errorf("it is ready, and answers %d of %d queries", had, queries)
	}
	l.eventually(10*time.Second, func() error { // a sample may be here before the gossip is
		if len(cut.Nodes()) == 1 {
			return errors.New("it is ready, but sees nobody")
		}
		return nil
	})
	l.settled(nodes...)
}

// F15: while nodes hear each other, a source that is out for all of them makes none unready.
func TestF15ASourceThatIsOutLeavesAllReady(t *testing.T) {
	const queries = 20
	l := newLab(t)
	l.maxAge = 3 * interval
	nodes := []*node{l.start(queries), l.start(queries), l.start(queries)}
	l.settled(nodes...)
	l.watch(2*interval, queries, nodes...)
	began := time.Now()
	for _, n := range nodes {
		n.sourceOut.Store(true)
	}
	silent := time.Duration(0)
	l.eventually(l.maxAge+4*interval, func() error {
		had := 0
		for _, n := range nodes {
			had += l.answered(n, queries)
			if err := n.Ready(); err != nil {
				l.Errorf("%s is unready after %s: %v", n.id, time.Since(began), err)
			}
		}
		if had > 0 {
			return fmt.Errorf("%d values are answered", had)
		}
		if silent == 0 {
			silent = time.Since(began)
		}
		if time.Since(began) < silent+2*interval {
			return errors.New("it is too early to tell")
		}
		return nil
	})
	t.Logf("without values after %s, all ready for %s", silent, time.Since(began))
}

// What gossip cannot tell any more, the stream does: the node hands over at once, and is not missed when it is gone.
func TestANodeThatLeavesUnheardIsNotMissed(t *testing.T) {
	const queries = 20
	l := newLab(t)
	nodes := []*node{l.start(queries), l.start(queries)}
	l.settled(nodes...)
	l.watch(2*interval, queries, nodes...)
	leaving, other := nodes[0], nodes[1]
	owned := leaving.owned()
	l.network.Partition([]netip.Addr{leaving.at}, []netip.Addr{other.at})
	leaving.Leave()
	l.eventually(suspectAfter/2, func() error {
		for _, n := range other.Nodes() {
			if n.ID == leaving.id && n.State == membership.Leaving {
				return nil
			}
		}
		return fmt.Errorf("%+v", other.Nodes())
	})
	l.eventually(3*interval, func() error { return tookOver(owned, nodes[1:], ownerLeaving) })
	l.eventually(2*suspectAfter, func() error {
		if seen := other.Nodes(); len(seen) > 1 {
			return fmt.Errorf("%+v", seen)
		}
		return nil
	})
	if other.outlook().lost {
		t.Error("it is missed")
	}
}
