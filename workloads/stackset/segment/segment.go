// Package segment plans how the traffic segments of a StackSet's Stacks change: which range each Stack gets, and in which order the
// ranges are written, so that no request finds a hole in between. It is pure: it sees names, ranges and weights, and nothing of
// Kubernetes; whoever calls it reads what lives and writes what comes out, one after another, up to the first failure.
package segment

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/kubetide/kubetide/internal/traffic"
)

// Live holds the segments of one kind of object (Ingresses, or RouteGroups) as they are read, by the Stack's name. A Stack without
// an entry, or whose segment cannot be read, holds nothing.
type Live map[string]traffic.Segment

// Place is the segment of one Stack.
type Place struct {
	Stack   string
	Segment traffic.Segment
}

// Layout returns the segment that each Stack should have, from left to right, for weights in percent that sum up to 100. Stacks keep
// the order in which they lie; those that held nothing come after them, ordered by name. A Stack of weight 0 gets (0, 0), and
// stands where it would be if it had some. Where kinds disagree, the order is the first one's by which each of them can be
// changed without a hole, so that one layout mends all.
func Layout(weights map[string]int, kinds ...Live) ([]Place, error) {
	sum := 0
	for stack, weight := range weights {
		if weight < 0 {
			return nil, fmt.Errorf("the weight of stack %q is %d, below 0", stack, weight)
		}
		sum += weight
	}
	if sum != 100 {
		return nil, fmt.Errorf("the weights of the stacks sum up to %d, not to 100", sum)
	}
	order := common(weights, kinds)
	places := make([]Place, len(order))
	at := 0
	for i, stack := range order {
		places[i].Stack = stack
		if weight := weights[stack]; weight > 0 {
			// Divided, not added up: these are the very numbers that two decimals are read as.
			places[i].Segment = traffic.Segment{Lo: float64(at) / 100, Hi: float64(at+weight) / 100}
			at += weight
		}
	}
	return places, nil
}

// Writes returns the writes that lead one kind of object from what lives to the layout, in the order in which they keep [0, 1)
// covered after each of them. A Stack that has its place already is not written. If what lives covers [0, 1) in the layout's order,
// each Stack is written once and so never wider than it was or will be. Otherwise coverage never shrinks, and a Stack may be
// written twice: first as wide as both of its ranges.
func Writes(live Live, layout []Place) []Place {
	if chain := chainIn(live, layout); chain != nil {
		return ordered(live, layout, chain)
	}
	return mended(live, layout)
}

// common returns an order of the stacks that each kind can be changed by, or else the first one's.
func common(weights map[string]int, kinds []Live) []string {
	if len(kinds) == 0 {
		kinds = []Live{{}}
	}
	var orders [][]string
	for _, live := range kinds {
		order := orderOf(weights, live)
		orders = append(orders, order)
		fits := func(l Live) bool { return chainIn(l, places(order)) != nil }
		if !slices.ContainsFunc(kinds, func(l Live) bool { return !fits(l) }) {
			return order
		}
	}
	for i, live := range kinds {
		if chainIn(live, places(orders[i])) != nil {
			return orders[i]
		}
	}
	return orders[0]
}

func places(order []string) []Place {
	out := make([]Place, len(order))
	for i, stack := range order {
		out[i].Stack = stack
	}
	return out
}

// orderOf returns the stacks from left to right. Of segments that overlap, as they do in the middle of a switch, those that are
// needed to cover everything give the order.
func orderOf(weights map[string]int, live Live) []string {
	var wide, empty []string
	for _, stack := range slices.Sorted(maps.Keys(weights)) {
		if live[stack].Width() > 0 {
			wide = append(wide, stack)
		} else {
			empty = append(empty, stack)
		}
	}
	slices.SortStableFunc(wide, func(a, b string) int {
		return cmp.Or(cmp.Compare(live[a].Lo, live[b].Lo), cmp.Compare(live[a].Hi, live[b].Hi))
	})
	var order, rest []string
	used := map[string]bool{}
	for at := 0.0; ; {
		best := ""
		for _, stack := range wide { // the widest reach of those that close up
			if s := live[stack]; s.Lo <= at && s.Hi > at && (best == "" || s.Hi > live[best].Hi) {
				best = stack
			}
		}
		if best == "" { // a hole: go on behind it
			i := slices.IndexFunc(wide, func(stack string) bool { return live[stack].Lo > at })
			if i < 0 {
				break
			}
			at = live[wide[i]].Lo
			continue
		}
		order, used[best], at = append(order, best), true, live[best].Hi
	}
	for _, stack := range wide {
		if !used[stack] {
			rest = append(rest, stack)
		}
	}
	for _, stack := range rest {
		i := slices.IndexFunc(order, func(other string) bool { return live[other].Lo > live[stack].Lo })
		if i < 0 {
			i = len(order)
		}
		order = slices.Insert(order, i, stack)
	}
	return append(order, empty...)
}

// chainIn returns the indexes of stacks of the layout that, from left to right, cover [0, 1) as they live, each closing up to the one
// before; nil if there are none.
func chainIn(live Live, layout []Place) []int {
	const none = -2
	before := make([]int, len(layout)) // the one before in a chain from 0, -1 for the first of a chain
	for i, p := range layout {
		before[i] = none
		s := live[p.Stack]
		if s.Width() <= 0 {
			continue
		}
		if s.Lo <= 0 {
			before[i] = -1
		}
		for j := 0; j < i && before[i] == none; j++ {
			if before[j] != none && live[layout[j].Stack].Hi >= s.Lo {
				before[i] = j
			}
		}
		if before[i] != none && s.Hi >= 1 {
			var chain []int
			for at := i; at >= 0; at = before[at] {
				chain = append(chain, at)
			}
			slices.Reverse(chain)
			return chain
		}
	}
	return nil
}

// ordered plans one write for each changed stack. Where the boundary between two neighbors moves to the right, the left one takes
// over before the right one lets go; where it moves to the left, the other way round. That binds neighbors only, and each pair at most
// one way, so there is always a stack that is free; the leftmost is written first. Stacks that the chain does not need count as
// points: what they hold besides is not relied on.
func ordered(live Live, layout []Place, chain []int) []Place {
	now := make([]traffic.Segment, len(layout))
	goal := make([]traffic.Segment, len(layout))
	at, end := 0.0, 0.0
	for i, p := range layout {
		now[i] = traffic.Segment{Lo: at, Hi: at}
		if slices.Contains(chain, i) {
			now[i] = live[p.Stack]
			at = now[i].Hi
		}
		goal[i] = traffic.Segment{Lo: end, Hi: end}
		if p.Segment.Width() > 0 {
			goal[i], end = p.Segment, p.Segment.Hi
		}
	}
	written := make([]bool, len(layout))
	// Nobody needs to be held back for the one to the left: it would wait for this one, or be free and so written before.
	waits := func(i int) bool {
		return i+1 < len(layout) && !written[i+1] && goal[i].Hi < now[i+1].Lo
	}
	var writes []Place
	for range layout {
		for i, p := range layout {
			if written[i] || waits(i) {
				continue
			}
			written[i], now[i] = true, goal[i]
			if !same(live[p.Stack], p.Segment) {
				writes = append(writes, p)
			}
			break
		}
	}
	return writes
}

// mended plans from a state that is no layout, or one of another order: any write after which coverage has not shrunk; when there is
// none, all that are left grow first.
func mended(live Live, layout []Place) []Place {
	now := maps.Clone(live)
	if now == nil {
		now = Live{}
	}
	// Only what the layout knows is relied on: the rest is going.
	maps.DeleteFunc(now, func(stack string, _ traffic.Segment) bool {
		return !slices.ContainsFunc(layout, func(p Place) bool { return p.Stack == stack })
	})
	pending := slices.DeleteFunc(slices.Clone(layout), func(p Place) bool { return same(now[p.Stack], p.Segment) })
	var writes []Place
	write := func(p Place) {
		now[p.Stack] = p.Segment
		writes = append(writes, p)
	}
	for len(pending) > 0 {
		i := slices.IndexFunc(pending, func(p Place) bool {
			after := maps.Clone(now)
			after[p.Stack] = p.Segment
			return covers(after, now)
		})
		if i >= 0 {
			write(pending[i])
			pending = slices.Delete(pending, i, i+1)
			continue
		}
		for _, p := range pending {
			both := p.Segment
			if s := now[p.Stack]; both.Width() <= 0 {
				both = s
			} else if s.Width() > 0 {
				both = traffic.Segment{Lo: min(s.Lo, both.Lo), Hi: max(s.Hi, both.Hi)}
			}
			if !same(now[p.Stack], both) {
				write(Place{Stack: p.Stack, Segment: both})
			}
		}
		for _, p := range pending {
			if !same(now[p.Stack], p.Segment) {
				write(p)
			}
		}
		break
	}
	return writes
}

// Complete reports whether every request falls into some segment.
func Complete(live Live) bool { return covers(live, Live{"": traffic.All}) }

// covers reports whether whatever is in a segment of what is also in one of live.
func covers(live, what Live) bool {
	ends := []float64{0, 1}
	for _, kind := range []Live{live, what} {
		for _, s := range kind {
			ends = append(ends, s.Lo, s.Hi)
		}
	}
	slices.Sort(ends)
	in := func(l Live, at float64) bool {
		for _, s := range l {
			if s.Lo <= at && at < s.Hi {
				return true
			}
		}
		return false
	}
	for _, at := range ends { // coverage changes at ends only, and holds from one to the next
		if in(what, at) && !in(live, at) {
			return false
		}
	}
	return true
}

// same reports whether two segments get the same requests.
func same(a, b traffic.Segment) bool { return a == b || a.Width() <= 0 && b.Width() <= 0 }
