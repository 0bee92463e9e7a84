package behavior

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/kubetide/kubetide/scaler/merge"
)

func drawRules(t *rapid.T, name string) *Rules {
	if rapid.IntRange(0, 4).Draw(t, name+" none") == 0 {
		return nil
	}
	r := &Rules{SelectPolicy: rapid.SampledFrom([]SelectPolicy{"", Max, Min, Max, Min, Disabled}).Draw(t, name+" select")}
	if w := rapid.SampledFrom([]int{-1, 0, 10, 60, 300}).Draw(t, name+" window"); w >= 0 {
		r.StabilizationWindow = new(time.Duration(w) * time.Second)
	}
	for range rapid.IntRange(0, 3).Draw(t, name+" policies") {
		r.Policies = append(r.Policies, Policy{rapid.SampledFrom([]PolicyType{Pods, Percent}).Draw(t, name+" type"),
			rapid.SampledFrom([]int32{1, 2, 5, 10, 50, 100, 900}).Draw(t, name+" value"),
			time.Duration(rapid.SampledFrom([]int{1, 15, 60, 180, 1800}).Draw(t, name+" period")) * time.Second})
	}
	return r
}

func drawInputs(t *rapid.T) Inputs {
	in := Inputs{Wanted: rapid.Int32Range(0, 60).Draw(t, "wanted"), Current: rapid.Int32Range(0, 60).Draw(t, "current"), Min: rapid.Int32Range(0, 10).Draw(t, "min"),
		Up: drawRules(t, "up"), Down: drawRules(t, "down"), Compatible: rapid.Bool().Draw(t, "compatible")}
	in.Max = in.Min + rapid.Int32Range(0, 50).Draw(t, "more")
	if rapid.Bool().Draw(t, "defaulted") {
		in.Up, in.Down = Defaulted(in.Up, in.Down)
	}
	return in
}

// history is all that ever happened, without any bound: what the State has to stand for.
type history struct {
	wanted []Recommendation // Until is zero for the last
	scaled []scaled
}

type scaled struct {
	at       time.Time
	from, to int32
}

func (h *history) wants(in Inputs, now time.Time) {
	if len(h.wanted) == 0 {
		h.wanted = []Recommendation{{in.Current, now}}
	} else if last := &h.wanted[len(h.wanted)-1]; last.Until.IsZero() {
		last.Until = now
	}
	h.wanted = append(h.wanted, Recommendation{Replicas: in.Wanted})
}

// stable is what the windows make of the whole history.
func (h *history) stable(in Inputs, now time.Time) int32 {
	p := in.plan()
	up, down := in.Wanted, in.Wanted
	for _, r := range h.wanted {
		if p.up.window > 0 && r.within(p.up.window, now) {
			up = min(up, r.Replicas)
		}
		if p.down.window > 0 && r.within(p.down.window, now) {
			down = max(down, r.Replicas)
		}
	}
	if p.compatible {
		return down
	}
	return min(max(in.Current, up), down)
}

// permitted tells whether the policies permit a count of to at now: by what the count was when each policy's period began.
func (h *history) permitted(in Inputs, to int32, now time.Time) bool {
	p := in.plan()
	r, sign := p.up, int64(1)
	if to < in.Current {
		r, sign = p.down, -1
	}
	if to == in.Current || len(r.policies) == 0 && r.selected != Disabled {
		return true
	}
	if r.selected == Disabled {
		return false
	}
	verdicts := make([]bool, 0, len(r.policies))
	for _, policy := range r.policies {
		start := int64(in.Current)
		for _, s := range h.scaled {
			if s.at.After(now.Add(-policy.Period)) {
				start -= int64(s.to) - int64(s.from)
			}
		}
		verdicts = append(verdicts, sign*int64(to) <= sign*policy.apply(start, int32(sign)))
	}
	if r.selected == Min {
		return !slices.Contains(verdicts, false)
	}
	return slices.Contains(verdicts, true)
}

func TestBoundsAndPoliciesHoldUnderAnyHistory(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := drawInputs(t)
		at, state, h := now, State{}, &history{}
		crowded := false
		pace := rapid.SampledFrom([]int{500, 5_000, 60_000, 400_000}).Draw(t, "pace")
		for range rapid.IntRange(1, 120).Draw(t, "looks") {
			at = at.Add(time.Duration(rapid.IntRange(0, pace).Draw(t, "ms")) * time.Millisecond)
			if rapid.IntRange(0, 2).Draw(t, "another") > 0 {
				in.Wanted = rapid.Int32Range(0, 60).Draw(t, "wanted")
			}
			switch rapid.IntRange(0, 30).Draw(t, "event") {
			case 0: // somebody else scales
				in.Current = rapid.Int32Range(0, 60).Draw(t, "written")
			case 1:
				state = state.Lapsed(at)
				if n := len(h.wanted); n > 0 && h.wanted[n-1].Until.IsZero() {
					h.wanted[n-1].Until = at
				}
				at = at.Add(time.Duration(rapid.IntRange(0, pace).Draw(t, "lapsed ms")) * time.Millisecond)
			}
			h.wants(in, at)
			d := Decide(Counted(restarted(t, state), in, at), in, at)
			again := Decide(d.State, in, at)
			if again.Changed || again.Replicas != d.Replicas || !again.Next.Equal(d.Next) || fmt.Sprint(again.Steps) != fmt.Sprint(d.Steps) {
				t.Fatalf("asked twice:\n%+v\n%+v", d, again)
			}
			// What limits the count changes at NextLimit, and not before.
			if !d.NextLimit.IsZero() {
				early, due := Decide(d.State, in, d.NextLimit.Add(-time.Microsecond)), Decide(d.State, in, d.NextLimit)
				if early.Reason != d.Reason || early.Limited != d.Limited || due.Reason == d.Reason && due.Limited == d.Limited {
					t.Fatalf("at %s, with a next limit at %s:\n%+v\njust before\n%+v\nthen\n%+v", at, d.NextLimit, d, early, due)
				}
			}
			for _, n := range []int{len(d.State.Highest), len(d.State.Lowest), len(d.State.Ups), len(d.State.Downs)} {
				if n > MaxEntries {
					t.Fatalf("%d entries", n)
				}
				crowded = crowded || n == MaxEntries
			}
			if d.Replicas < in.Min || d.Replicas > in.Max {
				t.Fatalf("%d is not within %d and %d", d.Replicas, in.Min, in.Max)
			}
			if !d.Next.IsZero() && !d.Next.After(at) {
				t.Fatalf("next is %s at %s", d.Next, at)
			}
			outside := in.Current < in.Min || in.Current > in.Max
			stable := h.stable(in, at)
			beyond := stable < in.Current && d.Replicas < max(stable, in.Min) || stable > in.Current && d.Replicas > min(stable, in.Max) || stable == in.Current && d.Replicas != stable
			if in.plan().limits && !outside && (beyond || !h.permitted(in, d.Replicas, at)) {
				t.Fatalf("from %d to %d, though the windows say %d and the policies permit it: %t\n%+v\n%+v", in.Current, d.Replicas, stable, h.permitted(in, d.Replicas, at), in, d)
			}
			// While no list is full, nothing is put together, so that the State says exactly what the history says.
			if in.plan().limits && !crowded && !outside && d.Replicas != merge.Clamp(stable, in.Min, in.Max).Replicas {
				further := d.Replicas + 1
				if stable < in.Current {
					further = d.Replicas - 1
				}
				if h.permitted(in, further, at) {
					t.Fatalf("from %d to %d only, though %d is permitted on the way to %d\n%+v\n%+v", in.Current, d.Replicas, further, stable, in, d)
				}
			}
			state = d.State
			if d.Replicas != in.Current && rapid.IntRange(0, 5).Draw(t, "carried out") > 0 {
				h.scaled = append(h.scaled, scaled{at, in.Current, d.Replicas})
				state = carryOut(t, state, &in, d.Replicas, at)
			}
		}
	})
}

func TestASteadyWishIsReachedAndNeverTurnedFrom(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := drawInputs(t)
		w := &world{in: in, at: now}
		step := func() Decision {
			d := Decide(restarted(t, w.state), w.in, w.at)
			if w.state = d.State; d.Replicas != w.in.Current {
				w.state = carryOut(t, w.state, &w.in, d.Replicas, w.at)
			}
			return d
		}
		for range rapid.IntRange(0, 60).Draw(t, "history") {
			w.at = w.at.Add(time.Duration(rapid.IntRange(0, 20_000).Draw(t, "ms")) * time.Millisecond)
			w.in.Wanted = rapid.Int32Range(0, 60).Draw(t, "wish")
			step()
		}
		if rapid.Bool().Draw(t, "clock set back") {
			w.at = w.at.Add(-time.Hour)
		}
		w.in.Wanted = rapid.Int32Range(0, 60).Draw(t, "last wish")
		target := merge.Clamp(w.in.Wanted, w.in.Min, w.in.Max).Replicas
		begin, p := w.at, w.in.plan()
		for hops := 0; ; hops++ {
			if hops > 300 {
				t.Fatalf("%d hops, and still at %d on the way to %d: %+v", hops, w.in.Current, target, w.state)
			}
			before := w.in.Current
			d := step()
			outside := before < w.in.Min || before > w.in.Max
			if !p.compatible && !outside && (before <= target && (d.Replicas < before || d.Replicas > target) || before >= target && (d.Replicas > before || d.Replicas < target)) {
				t.Fatalf("from %d to %d on the way to %d", before, d.Replicas, target)
			}
			if d.Replicas != before {
				continue
			}
			if d.Next.IsZero() {
				r := p.up
				if target < before {
					r = p.down
				}
				if before != target && r.selected != Disabled {
					t.Fatalf("waits for ever at %d on the way to %d: %+v", before, target, d)
				}
				break
			}
			// Just before Next nothing else comes out, and at Next something does.
			if early := Decide(w.state, w.in, d.Next.Add(-time.Microsecond)); early.Replicas != before || early.Changed {
				t.Fatalf("%d just before %s: %+v", early.Replicas, d.Next, early)
			}
			if !d.BlockedUntil.Equal(d.Next) {
				t.Fatalf("stays at %d until %s, but is blocked until %s", before, d.Next, d.BlockedUntil)
			}
			w.at = d.Next
			if due := Decide(w.state, w.in, w.at); due.Replicas == before {
				t.Fatalf("nothing comes at %s: %+v", w.at, due)
			}
		}
		// Each step takes at most the longest period, and windows and what is left of history once more.
		bound := p.up.window + p.down.window + p.longest()*time.Duration(2+60)
		if took := w.at.Sub(begin); took > bound {
			t.Fatalf("took %s to %d", took, target)
		}
	})
}

func TestAFullListOfRecommendationsHoldsAtLeastAsMuch(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := Inputs{Current: 1000, Max: math.MaxInt32, Up: rule(0, 0, 0, 0, 600), Down: rule(0, 0, 0, 0, 600)}
		up := rapid.Bool().Draw(t, "up")
		at, state, h := now, State{}, &history{}
		for i := range int32(MaxEntries * 3) {
			// Each recommendation is less strict than the last, so that all of them count.
			if in.Wanted = 1000 - 5*i; up {
				in.Wanted = 1000 + 5*i
			}
			at = at.Add(time.Duration(rapid.IntRange(1, 20_000).Draw(t, "ms")) * time.Millisecond)
			h.wants(in, at)
			d := Decide(state, in, at)
			if state = d.State; len(state.Highest) > MaxEntries || len(state.Lowest) > MaxEntries {
				t.Fatalf("%d and %d entries", len(state.Highest), len(state.Lowest))
			}
			if stable := h.stable(in, at); up && d.Replicas > stable || !up && d.Replicas < stable {
				t.Fatalf("%d, the whole history says %d", d.Replicas, stable)
			}
			if rapid.IntRange(0, 3).Draw(t, "follow") == 0 {
				in.Current = d.Replicas
			}
		}
		for _, r := range h.wanted[:len(h.wanted)-1] {
			last := r.Until.Add(600*time.Second - time.Microsecond)
			if d, stable := Decide(state, in, last), h.stable(in, last); last.After(at) && (up && d.Replicas > stable || !up && d.Replicas < stable) {
				t.Fatalf("%d before the recommendation of %d ages, the whole history says %d", d.Replicas, r.Replicas, stable)
			}
		}
	})
}
