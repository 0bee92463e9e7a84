package segment

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/kubetide/kubetide/internal/traffic"
)

// read turns "v1 0 .4, v2 .4 1" into segments.
func read(t *testing.T, text string) Live {
	t.Helper()
	out := Live{}
	for part := range strings.SplitSeq(text, ",") {
		if strings.TrimSpace(part) == "" {
			continue
		}
		var stack string
		var s traffic.Segment
		if _, err := fmt.Sscanf(strings.TrimSpace(part), "%s %g %g", &stack, &s.Lo, &s.Hi); err != nil {
			t.Fatalf("%q: %v", part, err)
		}
		out[stack] = s
	}
	return out
}

func show(places []Place) string {
	var out []string
	for _, p := range places {
		out = append(out, fmt.Sprintf("%s %.2f %.2f", p.Stack, p.Segment.Lo, p.Segment.Hi))
	}
	return strings.Join(out, ", ")
}

func TestALayoutAndTheOrderOfItsWrites(t *testing.T) {
	for name, row := range map[string]struct {
		live    string
		weights map[string]int
		layout  string
		writes  string
	}{
		"the documented limits 40/20/40 to 30/40/30: the middle takes over on both sides before the others let go": {
			live: "v1 0 .4, v2 .4 .6, v3 .6 1", weights: map[string]int{"v1": 30, "v2": 40, "v3": 30},
			layout: "v1 0.00 0.30, v2 0.30 0.70, v3 0.70 1.00",
			writes: "v2 0.30 0.70, v1 0.00 0.30, v3 0.70 1.00"},
		"20/20/60 to 25/30/45: widest change first would open [.20, .25)": {
			live: "v1 0 .2, v2 .2 .4, v3 .4 1", weights: map[string]int{"v1": 25, "v2": 30, "v3": 45},
			layout: "v1 0.00 0.25, v2 0.25 0.55, v3 0.55 1.00",
			writes: "v1 0.00 0.25, v2 0.25 0.55, v3 0.55 1.00"},
		"a on the right of b, both to 50: the one that grows is first": {
			live: "a .2 1, b 0 .2", weights: map[string]int{"a": 50, "b": 50},
			layout: "b 0.00 0.50, a 0.50 1.00",
			writes: "b 0.00 0.50, a 0.50 1.00"},
		"the first stack ever": {
			weights: map[string]int{"v1": 100}, layout: "v1 0.00 1.00", writes: "v1 0.00 1.00"},
		"two first stacks at once are ordered by name": {
			weights: map[string]int{"v2": 60, "v1": 40}, layout: "v1 0.00 0.40, v2 0.40 1.00", writes: "v1 0.00 0.40, v2 0.40 1.00"},
		"a new stack comes last and is there before the old one lets go": {
			live: "v1 0 1", weights: map[string]int{"v1": 90, "v0": 10},
			layout: "v1 0.00 0.90, v0 0.90 1.00", writes: "v0 0.90 1.00, v1 0.00 0.90"},
		"all to the new one": {
			live: "v1 0 1, v2 0 0", weights: map[string]int{"v1": 0, "v2": 100},
			layout: "v1 0.00 0.00, v2 0.00 1.00", writes: "v2 0.00 1.00, v1 0.00 0.00"},
		"a stack in the middle goes": {
			live: "v1 0 .3, v2 .3 .6, v3 .6 1", weights: map[string]int{"v1": 50, "v2": 0, "v3": 50},
			layout: "v1 0.00 0.50, v2 0.00 0.00, v3 0.50 1.00", writes: "v1 0.00 0.50, v3 0.50 1.00, v2 0.00 0.00"},
		"a segment that moves as a whole to the right": {
			live: "v1 0 .1, v2 .1 .2, v3 .2 1", weights: map[string]int{"v1": 60, "v2": 10, "v3": 30},
			layout: "v1 0.00 0.60, v2 0.60 0.70, v3 0.70 1.00", writes: "v1 0.00 0.60, v2 0.60 0.70, v3 0.70 1.00"},
		"a segment that moves as a whole to the left": {
			live: "v1 0 .7, v2 .7 .8, v3 .8 1", weights: map[string]int{"v1": 10, "v2": 10, "v3": 80},
			layout: "v1 0.00 0.10, v2 0.10 0.20, v3 0.20 1.00", writes: "v3 0.20 1.00, v2 0.10 0.20, v1 0.00 0.10"},
		"nothing changes": {
			live: "v1 0 .5, v2 .5 1", weights: map[string]int{"v1": 50, "v2": 50, "v3": 0}, layout: "v1 0.00 0.50, v2 0.50 1.00, v3 0.00 0.00"},
		"a point elsewhere than at 0 is a point": {
			live: "v1 0 1, v2 1 1", weights: map[string]int{"v1": 100, "v2": 0}, layout: "v1 0.00 1.00, v2 0.00 0.00"},
		"a stack with traffic was deleted by hand: its range is closed": {
			live: "v1 0 .3, v3 .6 1", weights: map[string]int{"v1": 30, "v3": 70},
			layout: "v1 0.00 0.30, v3 0.30 1.00", writes: "v3 0.30 1.00"},
		"what an outage of upstream left: all at (0, 0)": {
			live: "v1 0 0, v2 0 0", weights: map[string]int{"v1": 50, "v2": 50},
			layout: "v1 0.00 0.50, v2 0.50 1.00", writes: "v1 0.00 0.50, v2 0.50 1.00"},
		"in the middle of a switch the mind is changed back": {
			live: "v1 0 1, v2 .5 1", weights: map[string]int{"v1": 100, "v2": 0},
			layout: "v1 0.00 1.00, v2 0.00 0.00", writes: "v2 0.00 0.00"},
		"in the middle of a switch a third way is taken": {
			live: "v1 0 .8, v2 .8 .85, v3 .2 .3, v4 .3 1", weights: map[string]int{"v1": 10, "v2": 20, "v3": 30, "v4": 40},
			layout: "v1 0.00 0.10, v3 0.10 0.40, v4 0.40 0.80, v2 0.80 1.00",
			writes: "v3 0.10 0.40, v1 0.00 0.10, v2 0.80 1.00, v4 0.40 0.80"},
	} {
		t.Run(name, func(t *testing.T) {
			live := read(t, row.live)
			layout, err := Layout(row.weights, live)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(row.layout, show(layout)); diff != "" {
				t.Errorf("layout (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(row.writes, show(Writes(live, layout))); diff != "" {
				t.Errorf("writes (-want +got):\n%s", diff)
			}
		})
	}
}

func TestWeightsThatAreNoWholeAreRefused(t *testing.T) {
	for name, weights := range map[string]map[string]int{
		"below 100": {"v1": 99}, "above 100": {"v1": 99, "v2": 2}, "none": {}, "all 0": {"v1": 0}, "negative": {"v1": 150, "v2": -50},
	} {
		if layout, err := Layout(weights); err == nil {
			t.Errorf("%s: %v", name, layout)
		}
	}
}

func TestKindsThatDisagreeAreLedToOneLayout(t *testing.T) {
	ingresses, groups := read(t, "v1 0 .5, v2 .5 1"), read(t, "v2 0 .5, v1 .5 1")
	layout, err := Layout(map[string]int{"v1": 50, "v2": 50}, ingresses, groups)
	if err != nil {
		t.Fatal(err)
	}
	if writes := Writes(ingresses, layout); len(writes) > 0 {
		t.Errorf("the first kind is written: %s", show(writes))
	}
	// Nothing but growing first can swap two ranges without a hole.
	want := "v1 0.00 1.00, v2 0.00 1.00, v1 0.00 0.50, v2 0.50 1.00"
	if diff := cmp.Diff(want, show(Writes(groups, layout))); diff != "" {
		t.Errorf("the second kind (-want +got):\n%s", diff)
	}
}

// weightsOf draws weights that sum up to 100.
func weightsOf(t *rapid.T, stacks []string) map[string]int {
	cuts := []int{0, 100}
	for range len(stacks) - 1 {
		cuts = append(cuts, rapid.OneOf(rapid.IntRange(0, 100), rapid.SampledFrom([]int{0, 100})).Draw(t, "cut"))
	}
	slices.Sort(cuts)
	out := map[string]int{}
	for i, stack := range rapid.Permutation(stacks).Draw(t, "order of weights") {
		out[stack] = cuts[i+1] - cuts[i]
	}
	return out
}

// completeLive draws segments that cover everything, in any order, overlapping or not.
func completeLive(t *rapid.T, stacks []string) Live {
	live := Live{}
	at := 0
	weights := weightsOf(t, stacks)
	overlapping := rapid.Bool().Draw(t, "overlapping")
	for _, stack := range rapid.Permutation(stacks).Draw(t, "order") {
		lo, hi := at, at+weights[stack]
		at = hi
		if overlapping {
			lo = rapid.IntRange(0, lo).Draw(t, "earlier")
			hi = rapid.IntRange(hi, 100).Draw(t, "later")
		}
		live[stack] = traffic.Segment{Lo: float64(lo) / 100, Hi: float64(hi) / 100}
	}
	return live
}

func within(s, in traffic.Segment) bool {
	return s.Width() <= 0 || in.Lo <= s.Lo && s.Hi <= in.Hi
}

// apply carries out a prefix of the writes and checks each.
func apply(t *rapid.T, live Live, writes []Place, narrow bool) {
	seen := map[string]bool{}
	before, goal := maps.Clone(live), map[string]traffic.Segment{}
	for _, w := range writes {
		goal[w.Stack] = w.Segment
	}
	for _, w := range writes[:rapid.IntRange(0, len(writes)).Draw(t, "writes before the failure")] {
		live[w.Stack] = w.Segment
		if !Complete(live) {
			t.Fatalf("a hole after the write of %v, from %v by %s", w, before, show(writes))
		}
		if narrow && seen[w.Stack] {
			t.Fatalf("%s is written twice, from %v by %s", w.Stack, before, show(writes))
		}
		if narrow && !within(w.Segment, before[w.Stack]) && !within(w.Segment, goal[w.Stack]) {
			t.Fatalf("%v is wider than what it was and will be, from %v by %s", w, before, show(writes))
		}
		seen[w.Stack] = true
	}
}

// The whole of the promise: from any complete layout, through any changes of mind, crashes and failing writes, there is no hole after
// any write, each stack is written at most once, and so is never wider than it was or will be.
func TestThereIsNeverAHole(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		stacks := []string{"v1", "v2", "v3", "v4", "v5", "v6"}[:rapid.IntRange(1, 6).Draw(t, "stacks")]
		live := completeLive(t, stacks)
		for range rapid.IntRange(1, 6).Draw(t, "changes of mind") {
			weights := weightsOf(t, stacks)
			layout, err := Layout(weights, live)
			if err != nil {
				t.Fatal(err)
			}
			writes := Writes(live, layout)
			whole := maps.Clone(live)
			for _, w := range writes {
				whole[w.Stack] = w.Segment
			}
			for _, p := range layout {
				if !same(whole[p.Stack], p.Segment) {
					t.Fatalf("the writes %s do not lead to %s from %v", show(writes), show(layout), live)
				}
			}
			apply(t, live, writes, true)
		}
	})
}

// Two kinds are written one after the other and may be left at different points; one layout leads both on.
func TestThereIsNeverAHoleInEitherOfTwoKinds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		stacks := []string{"v1", "v2", "v3", "v4"}[:rapid.IntRange(1, 4).Draw(t, "stacks")]
		ingresses := completeLive(t, stacks)
		groups := maps.Clone(ingresses)
		if rapid.Bool().Draw(t, "disagreeing") {
			groups = completeLive(t, stacks)
		}
		for range rapid.IntRange(1, 5).Draw(t, "changes of mind") {
			layout, err := Layout(weightsOf(t, stacks), ingresses, groups)
			if err != nil {
				t.Fatal(err)
			}
			apply(t, ingresses, Writes(ingresses, layout), false)
			apply(t, groups, Writes(groups, layout), false)
		}
	})
}

// From a state with holes no write takes coverage away, and the end is the layout.
func TestHolesOnlyEverClose(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		stacks := []string{"v1", "v2", "v3", "v4"}
		live := Live{}
		for _, stack := range stacks {
			lo := rapid.IntRange(0, 100).Draw(t, "lo")
			live[stack] = traffic.Segment{Lo: float64(lo) / 100, Hi: float64(rapid.IntRange(lo, 100).Draw(t, "hi")) / 100}
		}
		layout, err := Layout(weightsOf(t, stacks), live)
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range Writes(live, layout) {
			before := maps.Clone(live)
			live[w.Stack] = w.Segment
			if !covers(live, before) {
				t.Fatalf("the write of %v opens a hole: %v, before %v", w, live, before)
			}
		}
		for _, p := range layout {
			if !same(live[p.Stack], p.Segment) {
				t.Fatalf("%s is at %v, not at %v", p.Stack, live[p.Stack], p.Segment)
			}
		}
	})
}
