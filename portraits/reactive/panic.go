package reactive

import (
	"fmt"
	"slices"
	"sort"
	"time"
)

// Panic answers bursts as Knative's autoscaler does. Wanted counts are averaged over a stable window, and over a short one at its
// end. When the short mean reaches a share of what there is, a panic begins: then the larger mean counts, and nothing is
// lowered. It ends when a whole stable window has passed without that sign.
type Panic struct {
	// StableWindow is at least a millisecond; Knative has 60 s.
	StableWindow time.Duration
	// WindowPercent is the short window's share of the stable one; Knative has 10.
	WindowPercent int32
	// ThresholdPercent is the short mean's share of the current replicas at which a panic begins; Knative has 200.
	ThresholdPercent int32
}

// PanicState is what Panic remembers. It fits a status, and stays the same as long as the same is proposed.
type PanicState struct {
	// Steps are the changes of the proposal in the stable window, and the last one before it, oldest first; at most maxSteps.
	Steps []PanicStep `json:"steps,omitempty"`
	// Panicking is true in a panic.
	Panicking bool `json:"panicking,omitempty"`
	// Until is when the panic ends; zero while its sign still stands.
	Until time.Time `json:"until,omitzero"`
	// Most is the most that was wanted in the panic.
	Most int32 `json:"most,omitempty"`
}

// PanicStep is a proposal and the instant from which it stood.
type PanicStep struct {
	At       time.Time `json:"at"`
	Replicas int32     `json:"replicas"`
}

// maxSteps bounds the state. Where a window saw more changes, the two that lie closest become the larger one.
const maxSteps = 32

// Decide returns what is wanted at now, with the state to keep, the reason, and the next instant at which the same proposal and the same
// current count would lead to something else; zero for never. Instants are cut to milliseconds. A clock that jumps
// back forgets what has not happened yet; one that jumps forward takes the last proposal to have stood meanwhile.
func (p Panic) Decide(state PanicState, proposal, current int32, now time.Time) (_ PanicState, replicas int32, reason string, next time.Time) {
	now = now.Truncate(time.Millisecond)
	state.Steps = p.record(state.Steps, max(0, proposal), now)
	if latest := now.Add(p.StableWindow); state.Until.After(latest) {
		state.Until = latest
	}
	stable, short, over := p.look(state.Steps, current, now)
	switch {
	case over && !state.Panicking:
		state.Panicking, state.Most = true, current
	case over:
		state.Until = time.Time{}
	case state.Panicking && state.Until.IsZero():
		state.Until = now.Add(p.StableWindow)
	case state.Panicking && !now.Before(state.Until):
		state.Panicking, state.Until, state.Most = false, time.Time{}, 0
	}
	if !state.Panicking {
		return state, stable, fmt.Sprintf("the mean of the last %s", p.StableWindow), p.next(state, current, now)
	}
	state.Most = max(state.Most, stable, short)
	next = p.next(state, current, now)
	reason = fmt.Sprintf("panic: the mean of the last %s is %d, at least %d%% of %d pods", p.short(), short, p.ThresholdPercent, current)
	if !over {
		reason = fmt.Sprintf("panic until %s: nothing is lowered", state.Until.UTC().Format(time.RFC3339))
	}
	return state, state.Most, reason, next
}

func (p Panic) short() time.Duration {
	return max(time.Millisecond, (p.StableWindow * time.Duration(p.WindowPercent) / 100).Truncate(time.Millisecond))
}

// record returns the steps with the proposal, or the same steps if it stood already.
func (p Panic) record(steps []PanicStep, proposal int32, now time.Time) []PanicStep {
	last := len(steps) - 1
	if last >= 0 && steps[last].Replicas == proposal && !steps[last].At.After(now) {
		return steps
	}
	kept := slices.DeleteFunc(slices.Clone(steps), func(s PanicStep) bool { return !s.At.Before(now) })
	for len(kept) > 1 && !kept[1].At.After(now.Add(-p.StableWindow)) {
		kept = kept[1:]
	}
	if len(kept) == 0 || kept[len(kept)-1].Replicas != proposal {
		kept = append(kept, PanicStep{At: now, Replicas: proposal})
	}
	for len(kept) > maxSteps {
		closest := 0
		for i := range kept[:len(kept)-2] {
			if kept[i+1].At.Sub(kept[i].At) < kept[closest+1].At.Sub(kept[closest].At) {
				closest = i
			}
		}
		kept[closest].Replicas = max(kept[closest].Replicas, kept[closest+1].Replicas)
		kept = slices.Delete(kept, closest+1, closest+2)
	}
	return kept
}

// look returns both means, rounded up, and whether the short one is the sign of a panic.
func (p Panic) look(steps []PanicStep, current int32, now time.Time) (stable, short int32, over bool) {
	stable, short = mean(steps, now, p.StableWindow), mean(steps, now, p.short())
	return stable, short, int64(short)*100 >= int64(p.ThresholdPercent)*int64(max(1, current))
}

// mean is the time-weighted mean over the window, or over what is known of it, rounded up.
func mean(steps []PanicStep, now time.Time, window time.Duration) int32 {
	begin, total, width := now.Add(-window), int64(0), int64(0)
	for i, s := range steps {
		from, to := s.At, now
		if i+1 < len(steps) {
			to = steps[i+1].At
		}
		if from.Before(begin) {
			from = begin
		}
		if ms := to.Sub(from).Milliseconds(); ms > 0 {
			total += ms * int64(s.Replicas) // an hour of MaxInt32 fits 53 bits
			width += ms
		}
	}
	if width == 0 {
		return steps[len(steps)-1].Replicas
	}
	return int32((total + width - 1) / width)
}

// next finds when time alone leads to another decision. Between two instants at which a step leaves a window both means move one
// way only, so a piece at whose end nothing is different holds nothing different.
func (p Panic) next(state PanicState, current int32, now time.Time) time.Time {
	type outcome struct {
		replicas    int32
		over, ended bool
	}
	at := func(t time.Time) outcome {
		stable, short, over := p.look(state.Steps, current, t)
		if !state.Panicking {
			return outcome{replicas: stable, over: over}
		}
		return outcome{replicas: max(state.Most, stable, short), over: over, ended: !state.Until.IsZero() && !t.Before(state.Until)}
	}
	var ends []time.Time
	for _, s := range state.Steps {
		ends = append(ends, s.At.Add(p.StableWindow), s.At.Add(p.short()))
	}
	ends = append(ends, state.Until)
	slices.SortFunc(ends, time.Time.Compare)
	begin, is := now, at(now)
	for _, end := range ends {
		if !end.After(begin) {
			continue
		}
		if at(end) != is {
			i := sort.Search(int(end.Sub(begin).Milliseconds()), func(i int) bool { return at(begin.Add(time.Duration(i)*time.Millisecond)) != is })
			return begin.Add(time.Duration(i) * time.Millisecond)
		}
		begin = end
	}
	return time.Time{}
}
