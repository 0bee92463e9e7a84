package reactive

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var knative = Panic{StableWindow: time.Minute, WindowPercent: 10, ThresholdPercent: 200}

func TestPanic(t *testing.T) {
	// moment is one decision, so many seconds after the first.
	type moment struct {
		second            float64
		proposal, current int32
		want              int32
		panicking         bool
		next              float64 // 0: never
	}
	for name, moments := range map[string][]moment{
		"what stays the same is wanted, and nothing has to be looked at": {{0, 3, 3, 3, false, 0}, {30, 3, 3, 3, false, 0}, {300, 3, 3, 3, false, 0}},
		"a rise is followed by its mean": {
			{0, 4, 4, 4, false, 0}, {60, 7, 4, 4, false, 60.001}, {60.001, 7, 4, 5, false, 80.001}, {80.001, 7, 5, 6, false, 100.001},
			{100.001, 7, 6, 7, false, 0}, {120, 7, 7, 7, false, 0},
		},
		"a burst begins a panic as soon as the short mean is twice what there is": {
			// The mean of 6 s passes 7 of 8 after (7-4)/(40-4)·6 s = 0.5 s.
			{0, 4, 4, 4, false, 0}, {60, 40, 4, 4, false, 60.001}, {60.501, 40, 4, 8, true, 60.667}, {66, 40, 8, 40, true, 0},
			// The pods are there: the sign ends, and the panic a window later.
			{70, 40, 40, 40, true, 130}, {100, 2, 40, 40, true, 130}, {130, 2, 40, 21, false, 131.579},
		},
		"a fall in a panic lowers nothing until a window has passed without the sign": {
			{0, 2, 2, 2, false, 0}, {60, 20, 2, 2, false, 60.001}, {66, 20, 2, 20, true, 0}, {67, 1, 20, 20, true, 127}, {127, 1, 20, 1, false, 0},
		},
		"a late look ends it as well": {
			{0, 2, 2, 2, false, 0}, {60, 20, 2, 2, false, 60.001}, {66, 20, 2, 20, true, 0}, {67, 1, 20, 20, true, 127}, {140, 1, 20, 1, false, 0},
		},
		"a second burst in a panic lengthens it": {
			{0, 2, 2, 2, false, 0}, {60, 20, 2, 2, false, 60.001}, {66, 20, 2, 20, true, 0}, {70, 20, 20, 20, true, 130},
			{100, 60, 20, 20, true, 100.001}, {106, 60, 20, 60, true, 0}, {107, 60, 60, 60, true, 167}, {167, 60, 60, 60, false, 0},
		},
		"from zero the first pod comes at once": {{0, 0, 0, 0, false, 0}, {60, 3, 0, 0, false, 60.001}, {60.001, 3, 0, 1, false, 62.001}},
		"the first proposal counts by itself":   {{0, 10, 2, 10, true, 0}, {1, 10, 10, 10, true, 61}},
		"a clock that goes back forgets":        {{0, 4, 4, 4, false, 0}, {60, 8, 4, 4, false, 60.001}, {-600, 8, 4, 8, true, 0}},
		"a clock that goes ahead lets the last proposal stand": {
			{0, 4, 4, 4, false, 0}, {60, 7, 4, 4, false, 60.001}, {4000, 7, 4, 7, false, 0},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var state PanicState
			for i, m := range moments {
				at := func(s float64) time.Time {
					return now.Add(time.Duration(s * float64(time.Second)).Round(time.Millisecond))
				}
				var want int32
				var next time.Time
				state, want, _, next = knative.Decide(state, m.proposal, m.current, at(m.second))
				if want != m.want || state.Panicking != m.panicking {
					t.Errorf("at %d: %d, panicking %t; want %d, %t", i, want, state.Panicking, m.want, m.panicking)
				}
				if m.next == 0 && !next.IsZero() || m.next != 0 && !next.Equal(at(m.next)) {
					t.Errorf("at %d: next after %s, want %gs", i, next.Sub(now), m.next)
				}
			}
		})
	}
}

func TestAProposalThatNeverRestsIsRememberedInPart(t *testing.T) {
	var state PanicState
	want, at := int32(0), now
	for i := range int32(600) {
		at = at.Add(100 * time.Millisecond)
		state, want, _, _ = knative.Decide(state, 100+i%2*10, 100, at)
		if len(state.Steps) > maxSteps {
			t.Fatalf("%d steps", len(state.Steps))
		}
	}
	// What is merged counts as the larger: the mean is 105 to those who remember all.
	if want < 105 || want > 110 || state.Steps[len(state.Steps)-1].Replicas != 110 {
		t.Errorf("%d wanted after %+v", want, state.Steps)
	}
}

func TestAPanicGivesItsReason(t *testing.T) {
	state, _, reason, _ := knative.Decide(PanicState{}, 10, 2, now)
	if want := "panic: the mean of the last 6s is 10, at least 200% of 2 pods"; reason != want {
		t.Errorf("%q, want %q", reason, want)
	}
	if _, _, reason, _ = knative.Decide(state, 10, 10, now.Add(time.Second)); reason != "panic until 2026-11-22T12:01:01Z: nothing is lowered" {
		t.Error(reason)
	}
	if _, _, reason, _ = knative.Decide(PanicState{}, 2, 2, now); !strings.HasPrefix(reason, "the mean of the last 1m0s") {
		t.Error(reason)
	}
}

func TestPropertyPanic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := Panic{
			StableWindow:     time.Duration(rapid.IntRange(6, 120).Draw(t, "window")) * time.Second,
			WindowPercent:    rapid.Int32Range(1, 100).Draw(t, "percent"),
			ThresholdPercent: rapid.Int32Range(110, 1000).Draw(t, "threshold"),
		}
		var state PanicState
		at, current, before := now, rapid.Int32Range(0, 20).Draw(t, "current"), int32(0)
		least, most := int32(1<<30), current
		for range rapid.IntRange(1, 60).Draw(t, "decisions") {
			at = at.Add(time.Duration(rapid.IntRange(0, 20_000).Draw(t, "ms")) * time.Millisecond)
			proposal := rapid.Int32Range(0, 100).Draw(t, "proposal")
			least, most = min(least, proposal), max(most, proposal)
			panicked := state.Panicking
			was, _ := json.Marshal(state)
			next, want, _, wake := p.Decide(state, proposal, current, at)
			if is, _ := json.Marshal(state); string(is) != string(was) {
				t.Fatalf("the state it was given changed: %s, was %s", is, was)
			}
			data, _ := json.Marshal(next)
			var kept PanicState
			if err := json.Unmarshal(data, &kept); err != nil || cmp.Diff(next, kept) != "" {
				t.Fatalf("%v, %s", err, cmp.Diff(next, kept))
			}
			state = kept
			switch {
			case len(state.Steps) > maxSteps:
				t.Fatalf("%d steps", len(state.Steps))
			case panicked && state.Panicking && want < before:
				t.Fatalf("lowered in a panic from %d to %d", before, want)
			case want > most || want < least:
				t.Fatalf("%d is outside %d to %d", want, least, most)
			}
			again, same, _, _ := p.Decide(state, proposal, current, at)
			if same != want || cmp.Diff(state, again) != "" {
				t.Fatalf("asked twice: %d, then %d\n%s", want, same, cmp.Diff(state, again))
			}
			// Nothing happens before the instant it names, and something does then.
			if until := wake.Sub(at).Milliseconds(); !wake.IsZero() {
				for _, ms := range []int64{until / 3, until / 2, until - 1} {
					if idle, same, _, _ := p.Decide(state, proposal, current, at.Add(time.Duration(ms)*time.Millisecond)); same != want || cmp.Diff(state, idle) != "" {
						t.Fatalf("after %d of %d ms: %d, was %d\n%s", ms, until, same, want, cmp.Diff(state, idle))
					}
				}
				if other, differs, _, _ := p.Decide(state, proposal, current, wake); differs == want && cmp.Diff(state, other) == "" {
					t.Fatalf("nothing happened at %s", wake.Sub(now))
				}
			} else if idle, same, _, _ := p.Decide(state, proposal, current, at.Add(time.Hour)); same != want || idle.Panicking != state.Panicking {
				t.Fatalf("no next instant, but an hour later %d, %t; was %d, %t", same, idle.Panicking, want, state.Panicking)
			}
			before = want
			if rapid.Bool().Draw(t, "followed") {
				current = want
			}
			most = max(most, current)
		}
		// What stays the same is reached in the end, at the instants that are named.
		proposal := rapid.Int32Range(0, 100).Draw(t, "last")
		var wake time.Time
		for range 1000 {
			var want int32
			state, want, _, wake = p.Decide(state, proposal, current, at)
			if wake.IsZero() && current == want {
				break
			}
			if current = want; !wake.IsZero() {
				at = wake
			}
		}
		if _, want, _, _ := p.Decide(state, proposal, current, at); want != proposal || state.Panicking {
			t.Fatalf("%d in the end, panicking %t; want %d", want, state.Panicking, proposal)
		}
	})
}
