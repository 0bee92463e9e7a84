package ownership

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// The faults and their bounds are those of hosting.md's table; T is a query's interval.

func clusters(t *testing.T, test func(t *testing.T, n int)) {
	for _, n := range []int{3, 5} {
		t.Run(fmt.Sprintf("%d nodes", n), func(t *testing.T) {
			t.Parallel()
			test(t, n)
		})
	}
}

func plus(d time.Duration) func(time.Duration) time.Duration {
	return func(interval time.Duration) time.Duration { return interval + d }
}

// steady returns a cluster that has been running for a while.
func steady(t *testing.T, seed uint64, n, queries int) *simulation {
	t.Helper()
	s := newSimulation(seed, n, queries, mixed...)
	s.run(3 * minute)
	s.mark()
	return s
}

func (s *simulation) owners() []string {
	active := s.active()
	owners := make([]string, len(s.keys))
	for k, key := range s.keys {
		owners[k] = Owner(key.id, active)
	}
	return owners
}

func TestEachSourceIsAskedOnceAnInterval(t *testing.T) {
	clusters(t, func(t *testing.T, n int) {
		s := newSimulation(1, n, many, 15*second)
		s.run(30 * second)
		s.mark()
		s.run(minute)
		s.agesWithin(t, plus(second))
		t.Log(s.figures())
		if load := s.load(); load < 0.99 || load > 1.01 {
			t.Errorf("the sources are asked %.3f times an interval", load)
		}
		byNode := make([]int, n)
		for _, c := range s.collections {
			byNode[c.node]++
		}
		t.Logf("collections by node: %v", byNode)
		mean := float64(len(s.collections)) / float64(n)
		for i, count := range byNode {
			if share := float64(count) / mean; share < 0.8 || share > 1.2 {
				t.Errorf("node %d does %.2f of the mean", i, share)
			}
		}
		for k, count := range s.collectors() {
			if count != 1 {
				t.Errorf("query %d is collected by %d nodes", k, count)
			}
		}
	})
}

func TestF1AnOwnerIsKilled(t *testing.T) {
	clusters(t, func(t *testing.T, n int) {
		s := steady(t, 2, n, few)
		before, killed, at := s.owners(), s.nodes[0], s.now
		killed.dead = true
		const detected = 5 * second
		s.all(s.active(), 2*second, detected)
		s.run(s.delay) // what it had sent before
		last := make([]time.Duration, len(s.keys))
		for k := range s.keys {
			last[k] = s.nodes[1].keys[k].latest
		}
		s.run(2 * minute)
		s.agesWithin(t, plus(7*second))
		t.Log(s.figures())
		first := make([]time.Duration, len(s.keys))
		for _, c := range s.collections {
			if first[c.key] == 0 {
				first[c.key] = c.at
			}
			if before[c.key] != killed.id && s.nodes[c.node].id != before[c.key] {
				t.Fatalf("query %d moved between survivors", c.key)
			}
		}
		for k, key := range s.keys {
			if due := max(last[k]+key.interval, at+detected) + 2*s.lag; before[k] == killed.id && first[k] > due {
				t.Errorf("query %d: first asked at %s, due at %s", k, first[k]-at, due-at)
			}
		}
		if load := s.load(); load > 1.02 {
			t.Errorf("the sources are asked %.3f times an interval", load)
		}
		s.settled(t)
	})
}

func TestF2OwnersAreKilledAndNobodyNotices(t *testing.T) {
	for killed, bound := range map[int]func(time.Duration) time.Duration{
		1: func(interval time.Duration) time.Duration { return interval*3/2 + 2*second },
		2: func(interval time.Duration) time.Duration { return interval*2 + 2*second },
	} {
		t.Run(fmt.Sprintf("%d killed", killed), func(t *testing.T) {
			clusters(t, func(t *testing.T, n int) {
				s := steady(t, 3, n, few)
				for _, n := range s.nodes[:killed] {
					n.dead = true
				}
				s.run(5 * minute)
				s.agesWithin(t, bound)
				t.Log(s.figures())
				if load := s.load(); load > 1.1 {
					t.Errorf("the sources are asked %.3f times an interval", load)
				}
				s.mark()
				s.run(5 * minute)
				s.agesWithin(t, plus(second)) // whoever took over goes on as an owner does
				for k, count := range s.collectors() {
					if count != 1 {
						t.Errorf("query %d is collected by %d nodes", k, count)
					}
				}
				s.all(s.active(), 0, second)
				s.run(2 * minute)
				s.settled(t)
			})
		})
	}
}

func TestF3AnOwnerLeaves(t *testing.T) {
	clusters(t, func(t *testing.T, n int) {
		s := steady(t, 4, n, few)
		leaving := s.nodes[0]
		var left []string
		for _, n := range s.nodes[1:] {
			left = append(left, n.id)
		}
		s.see(leaving, left)
		s.all(left, 0, second)
		s.after(10*second, func() { s.lookAround(); leaving.dead = true })
		s.run(3 * minute)
		s.agesWithin(t, plus(second))
		t.Log(s.figures())
		if load := s.load(); load > 1.02 {
			t.Errorf("the sources are asked %.3f times an interval", load)
		}
		s.settled(t)
	})
}

// Each in turn leaves, and comes back with a new name.
func TestF4ARollingUpdate(t *testing.T) {
	clusters(t, func(t *testing.T, n int) {
		s := steady(t, 5, n, few)
		owners, moves := s.owners(), make([]int, len(s.keys))
		view := func(without *node) (ids []string) {
			for _, n := range s.nodes {
				if !n.dead && n != without {
					ids = append(ids, n.id)
				}
			}
			return ids
		}
		moved := func(view []string) {
			for k := range owners {
				if owner := Owner(s.keys[k].id, view); owner != owners[k] {
					owners[k] = owner
					moves[k]++
				}
			}
		}
		for _, old := range slices.Clone(s.nodes) {
			moved(view(old))
			s.all(view(old), 0, second)
			s.run(12 * second)
			s.lookAround()
			old.dead = true
			s.run(5 * second)
			joined := s.joins(old.index, s.node(s.active()[0]), view(nil), 2*second)
			s.run(2 * second)
			joined.serves = true
			moved(view(nil))
			s.all(view(nil), 0, second)
			s.run(20 * second)
		}
		s.agesWithin(t, plus(2*second))
		t.Log(s.figures())
		if load := s.load(); load > 1.05 {
			t.Errorf("the sources are asked %.3f times an interval", load)
		}
		if most := slices.Max(moves); most > 3 {
			t.Errorf("a query moved %d times", most)
		} else {
			t.Logf("no query moved more than %d times", most)
		}
		s.run(minute)
		s.settled(t)
	})
}

// joins adds a node that owns nothing, knows all queries at once, and has the samples of a peer after a time.
func (s *simulation) joins(ordinal int, peer *node, view []string, synchronized time.Duration) *node {
	joined := s.join(ordinal)
	joined.view = slices.Clone(view)
	for k := range s.keys {
		s.schedule(s.now, joined, func() { s.know(joined, k) })
	}
	s.after(synchronized, func() { s.synchronize(joined, peer) })
	return joined
}

func TestF5APartition(t *testing.T) {
	clusters(t, func(t *testing.T, n int) {
		s := steady(t, 6, n, few)
		alone := s.nodes[0]
		s.cut = func(from, to *node) bool { return from == alone || to == alone }
		all := s.active()
		s.after(4*second, func() {
			s.see(alone, all[:1])
			for _, n := range s.nodes[1:] {
				s.see(n, all[1:])
			}
		})
		s.run(5 * minute)
		s.agesWithin(t, plus(7*second))
		t.Log(s.figures())
		if load := s.load(); load > 2 {
			t.Errorf("the sources are asked %.3f times an interval", load)
		}
		s.cut = nil
		s.synchronize(alone, s.nodes[1])
		for _, n := range s.nodes[1:] {
			s.synchronize(n, alone)
		}
		s.all(all, 0, second)
		s.run(2 * minute)
		s.settled(t)
	})
}

func TestF7ANodeDoesNotSeeOneThatSeesIt(t *testing.T) {
	clusters(t, func(t *testing.T, n int) {
		s := steady(t, 7, n, few)
		s.see(s.nodes[1], slices.Delete(s.active(), 0, 1))
		s.run(5 * minute)
		s.agesWithin(t, plus(second))
		t.Log(s.figures())
		if load := s.load(); load > 1.1 {
			t.Errorf("the sources are asked %.3f times an interval", load)
		}
	})
}

func TestF8ASlowJoiner(t *testing.T) {
	clusters(t, func(t *testing.T, n int) {
		s := steady(t, 8, n, few)
		joined := s.joins(n, s.nodes[0], s.active(), 8*second)
		s.run(8 * second)
		for _, c := range s.collections {
			if c.node == joined.index {
				t.Fatal("it collects while it joins")
			}
		}
		joined.serves = true
		s.see(joined, s.active())
		s.all(s.active(), 0, second)
		s.run(2 * minute)
		s.agesWithin(t, plus(second))
		t.Log(s.figures())
		if load := s.load(); load > 1.02 {
			t.Errorf("the sources are asked %.3f times an interval", load)
		}
		s.settled(t)
	})
}

func TestF9AnOwnerIsStalled(t *testing.T) {
	clusters(t, func(t *testing.T, n int) {
		s := steady(t, 9, n, few)
		stalled, all := s.nodes[0], s.active()
		stalled.stalled, stalled.serves = s.now+10*second, false
		for _, n := range s.nodes[1:] {
			s.after(s.between(2*second, 5*second), func() { s.see(n, all[1:]) })
			s.after(10*second+s.between(0, second), func() { s.see(n, all) })
		}
		s.run(10*second + s.delay)
		stalled.serves = true
		s.run(3 * minute)
		s.agesWithin(t, plus(7*second))
		t.Log(s.figures())
		if load := s.load(); load > 1.15 {
			t.Errorf("the sources are asked %.3f times an interval", load)
		}
		// What it had begun before came late. It does not count as younger than what others took meanwhile.
		for _, n := range s.nodes[1:] {
			if n.error < 0 || n.error > s.delay {
				t.Errorf("%s took a sample for %s younger than it was", n.id, n.error)
			}
		}
		s.settled(t)
	})
}

func TestF10ClocksAreWrong(t *testing.T) {
	clusters(t, func(t *testing.T, n int) {
		run := func(offsets ...time.Duration) *simulation {
			s := newSimulation(10, n, few, mixed...)
			for i, offset := range offsets {
				s.nodes[i].offset = offset
			}
			s.run(3 * minute)
			s.nodes[1].dead = true
			s.all(s.active(), 2*second, 5*second)
			s.run(3 * minute)
			return s
		}
		right, wrong := run(), run(time.Hour, -time.Hour, 8*365*24*time.Hour)
		if !slices.Equal(right.collections, wrong.collections) {
			t.Error("they collect otherwise than with right clocks")
		}
		if diff := cmp.Diff(right.ages, wrong.ages); diff != "" {
			t.Errorf("ages (-right +wrong):\n%s", diff)
		}
		for _, n := range wrong.nodes {
			if n.error < 0 || n.error > wrong.delay {
				t.Errorf("%s took a sample for %s younger than it was", n.id, n.error)
			}
		}
		t.Log(wrong.figures())
	})
}

// Each sees itself only, and has no samples, until they have found each other.
func TestF11AllStartAtOnce(t *testing.T) {
	clusters(t, func(t *testing.T, n int) {
		s := newSimulation(11, n, few, mixed...)
		all := s.active()
		for _, n := range s.nodes {
			n.view = []string{n.id}
		}
		s.cut = func(_, _ *node) bool { return s.now < 10*second }
		s.after(10*second, func() {
			for _, to := range s.nodes {
				for _, from := range s.nodes {
					s.synchronize(to, from)
				}
			}
			s.all(all, 0, second)
		})
		s.run(3 * minute)
		s.agesWithin(t, plus(second))
		t.Log(s.figures())
		if load, most := s.load(), 1.05+float64(n-1)*12/180; load > most { // for 12 seconds of three minutes each asks for itself
			t.Errorf("the sources are asked %.3f times an interval, more than %.2f", load, most)
		}
		s.settled(t)
	})
}

func TestF15SourcesAreDownForAll(t *testing.T) {
	clusters(t, func(t *testing.T, n int) {
		s := steady(t, 15, n, few)
		down := true
		s.reachable = func(_ *node, k int) bool { return !down || k >= few/2 }
		s.run(5 * minute)
		asked := 0
		ideal := 0.0
		for _, c := range s.collections {
			if c.key < few/2 {
				asked++
			} else if s.nodes[c.node].id != Owner(s.keys[c.key].id, s.active()) {
				t.Fatalf("query %d is collected by another", c.key)
			}
		}
		for _, k := range s.keys[:few/2] {
			ideal += float64(5*minute) / float64(k.interval)
		}
		t.Logf("sources that are down are asked %.3f times an interval", float64(asked)/ideal)
		if float64(asked) > 1.5*ideal {
			t.Errorf("sources that are down are asked %.3f times an interval", float64(asked)/ideal)
		}
		down = false
		s.run(maxBackOff + second)
		for _, n := range s.nodes {
			for k := range s.keys {
				if age := s.now - n.keys[k].latest; age > maxBackOff+2*second {
					t.Fatalf("query %d: the last value is %s old after the source is back", k, age)
				}
			}
		}
		s.run(5 * minute)
		s.settled(t)
	})
}

// An owner that does not reach a source is helped out, and takes it up again when it does.
func TestAnOwnerDoesNotReachItsSource(t *testing.T) {
	clusters(t, func(t *testing.T, n int) {
		s := steady(t, 16, n, few)
		s.reachable = func(n *node, _ int) bool { return n.index > 0 }
		s.run(5 * minute)
		s.agesWithin(t, func(interval time.Duration) time.Duration { return interval*3/2 + 2*second })
		t.Log(s.figures())
		if load := s.load(); load > 1.5 {
			t.Errorf("the sources are asked %.3f times an interval", load)
		}
		s.mark()
		s.run(3 * minute)
		s.agesWithin(t, plus(second))
		s.reachable = nil
		s.run(3 * minute)
		s.settled(t)
	})
}

// A source that takes almost as long as its interval is late every time. It must not be asked by more nodes for that.
func TestSlowSources(t *testing.T) {
	clusters(t, func(t *testing.T, n int) {
		s := newSimulation(18, n, few, 15*second)
		s.fetch = [2]time.Duration{12 * second, 14 * second}
		s.run(2 * minute)
		s.mark()
		s.settled(t)
		leaving, left := s.nodes[0], s.active()[1:]
		s.mark()
		s.see(leaving, left)
		s.all(left, 0, second)
		s.after(12*second, func() { leaving.dead = true })
		s.run(3 * minute)
		s.agesWithin(t, plus(14*second+second))
		t.Log(s.figures())
		if load := s.load(); load > 1.1 {
			t.Errorf("the sources are asked %.3f times an interval", load)
		}
		s.settled(t)
	})
}

func TestF16TwiceTheNodesAndBack(t *testing.T) {
	clusters(t, func(t *testing.T, n int) {
		s := steady(t, 17, n, few)
		before := s.owners()
		for i := range n {
			s.joins(n+i, s.nodes[0], s.active()[:n], 2*second)
		}
		s.run(2 * second)
		for _, joined := range s.nodes[n:] {
			joined.serves = true
		}
		s.all(s.active(), 0, second)
		for k, owner := range s.owners() {
			if owner != before[k] && s.node(owner).index < n {
				t.Fatalf("query %d moved between those that were there", k)
			}
		}
		moved := 0
		for i := range 10_000 {
			if key := fmt.Sprintf("%020x", i); Owner(key, s.active()) != Owner(key, s.active()[:n]) {
				moved++
			}
		}
		t.Logf("%d of 10,000 queries moved, half is ideal", moved)
		if moved < 4500 || moved > 5500 {
			t.Errorf("%d of 10,000 queries moved", moved)
		}
		s.run(3 * minute)
		s.agesWithin(t, plus(second))
		t.Log(s.figures())
		s.settled(t)

		between := s.owners()
		s.mark()
		old := s.active()[:n]
		s.all(old, 0, second)
		s.after(12*second, func() {
			s.lookAround()
			for _, leaving := range s.nodes[n:] {
				leaving.dead = true
			}
		})
		s.run(3 * minute)
		s.agesWithin(t, plus(second))
		t.Log(s.figures())
		for k, owner := range s.owners() {
			if owner != before[k] || s.node(between[k]).index < n && owner != between[k] {
				t.Fatalf("query %d moved between survivors", k)
			}
		}
		s.settled(t)
	})
}

// Nodes are killed, leave, join and stall as it happens, every 20 to 40 seconds.
func TestChurn(t *testing.T) {
	clusters(t, func(t *testing.T, n int) {
		s := steady(t, 37, n, few/3)
		members := s.active()
		without := func(n *node) {
			members = slices.DeleteFunc(slices.Clone(members), func(id string) bool { return id == n.id })
		}
		with := func(n *node) { members = append(slices.Clone(members), n.id) }
		events := map[string]int{}
		for range 60 {
			someone := s.node(members[s.random.IntN(len(members))])
			event := []string{"kill", "leave", "stall", "join", "join"}[s.random.IntN(5)]
			if len(members) < 3 {
				event = "join"
			} else if len(members) > n && event == "join" {
				event = "leave"
			}
			switch events[event]++; event {
			case "kill":
				someone.dead = true
				without(someone)
				s.all(members, 2*second, 5*second)
			case "leave":
				without(someone)
				s.all(members, 0, second)
				s.after(12*second, func() { s.lookAround(); someone.dead = true })
			case "stall":
				all := members
				someone.stalled, someone.serves = s.now+10*second, false
				without(someone)
				s.all(members, 2*second, 5*second)
				s.after(10*second, func() { members = all; s.all(all, 0, second) })
				s.after(10*second+s.delay, func() { someone.serves = true })
			case "join":
				joined := s.joins(someone.index, someone, members, 2*second)
				with(joined)
				s.after(2*second+s.delay, func() { joined.serves = true; s.all(members, 0, second) })
			}
			s.run(s.between(20*second, 40*second))
		}
		t.Log(events, s.figures())
		// Several may be killed within an interval, each just before it would have asked.
		s.agesWithin(t, func(interval time.Duration) time.Duration { return interval + 7*second*(1+interval/(20*second)) })
		if load := s.load(); load > 1.1 {
			t.Errorf("the sources are asked %.3f times an interval", load)
		}
		s.run(2 * minute)
		s.settled(t)
	})
}

// Whatever each node sees of the others, no query is without a collector, and few are collected more than they need be.
func TestNoQueryIsLeftWhateverNodesSee(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 5).Draw(t, "nodes")
		s := newSimulation(rapid.Uint64().Draw(t, "seed"), n, 20, mixed...)
		cut := map[[2]int]bool{}
		connected := rapid.Bool().Draw(t, "connected")
		for _, node := range s.nodes {
			node.view = rapid.SliceOfDistinct(rapid.SampledFrom(s.active()), rapid.ID[string]).Draw(t, "view")
			for to := range n {
				cut[[2]int{node.index, to}] = !connected && rapid.Bool().Draw(t, "cut")
			}
		}
		s.cut = func(from, to *node) bool { return cut[[2]int{from.index, to.index}] }
		s.run(5 * minute)
		s.mark()
		s.run(10 * minute)
		s.lookAround()
		for interval, age := range s.ages {
			if bound := interval + interval*time.Duration(n)/2 + 2*second; age > bound {
				t.Errorf("an answer was %s old with an interval of %s", age, interval)
			}
		}
		for _, node := range s.nodes {
			for k, key := range s.keys {
				if state := node.keys[k]; !state.answered || s.now-state.latest > key.interval+key.interval*time.Duration(n)/2+2*second {
					t.Errorf("%s has no fresh answer to query %d", node.id, k)
				}
			}
		}
		most := float64(n) // as often as without sharing
		if connected {
			most = 2.5
		}
		if load := s.load(); load > most+0.01 {
			t.Errorf("the sources are asked %.3f times an interval", load)
		}
	})
}
