package behavior

import (
	"fmt"
	"math"
	"slices"
	"time"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	"github.com/kubetide/kubetide/internal/decision"
	"github.com/kubetide/kubetide/scaler/merge"
)

// Decide returns the count to go to now: what is wanted, held by the windows, then limited by the policies, then by the bounds. A
// count beyond a bound goes straight to the bound, as the HPA does. Calling earlier, later or twice does no harm.
func Decide(s State, in Inputs, now time.Time) Decision {
	now = micro(now)
	p := in.plan()
	next := p.note(s, in, now)
	o := p.evaluate(next, in, now)
	d := Decision{Replicas: o.Replicas, State: next, Changed: !next.Equal(s), Limited: o.Limited, Reason: o.Reason, Message: o.Message}
	if o.stable != in.Wanted {
		d.Stabilized, d.StabilizedMessage = ReasonScaleDownStabilized, MessageScaleDownStabilized
		if !p.compatible && in.Wanted >= in.Current {
			d.Stabilized, d.StabilizedMessage = ReasonScaleUpStabilized, MessageScaleUpStabilized
		}
	}
	count, limit := p.next(next, in, o, now)
	d.NextLimit = limit
	if d.Replicas != merge.Clamp(in.Wanted, in.Min, in.Max).Replicas {
		d.Next = count
		if d.Replicas == in.Current {
			d.BlockedUntil = d.Next
		}
	}
	d.Steps = p.steps(next, in, o, d, now)
	return d
}

// rules is one direction, with nothing left open.
type rules struct {
	window   time.Duration
	selected SelectPolicy
	policies []Policy
}

// plan is what Inputs ask for. Without limits only the bounds hold.
type plan struct {
	up, down           rules
	limits, compatible bool
}

func (in Inputs) plan() plan {
	if in.Up == nil && in.Down == nil {
		if !in.Compatible {
			return plan{}
		}
		// An HPA without behavior at most doubles at each look, or goes to 4. It looks every 15 seconds, and we at each sample.
		return plan{limits: true, compatible: true, down: rules{window: defaultWindow},
			up: rules{policies: []Policy{{inAll, 4, syncPeriod}, {Percent, 100, syncPeriod}}}}
	}
	return plan{limits: true, up: resolved(in.Up), down: resolved(in.Down)}
}

func resolved(r *Rules) rules {
	if r == nil {
		return rules{}
	}
	out := rules{selected: r.SelectPolicy, policies: r.Policies}
	if r.StabilizationWindow != nil {
		out.window = *r.StabilizationWindow
	}
	return out
}

// longest is the longest time for which a change counts.
func (p plan) longest() time.Duration {
	var longest time.Duration
	for _, r := range []rules{p.up, p.down} {
		for _, policy := range r.policies {
			longest = max(longest, policy.Period)
		}
	}
	return longest
}

// note returns the state with the recommendation in it. Where that changes something, changes that no longer count go as well.
func (p plan) note(s State, in Inputs, now time.Time) State {
	out := s.until(now)
	out.Highest = noted(out.Highest, in, p.down.window, now, func(a, b int32) bool { return a > b })
	out.Lowest = noted(out.Lowest, in, p.up.window, now, func(a, b int32) bool { return a < b })
	if longest := p.longest(); longest == 0 || !out.Equal(s) {
		out.Ups, out.Downs = recent(out.Ups, longest, now), recent(out.Downs, longest, now)
	}
	return out
}

// outcome is where the stages lead at some time.
type outcome struct {
	merge.Limit
	// straight tells that the current count is beyond a bound, so that nothing but the bound is of account.
	straight bool
	// stable is what the windows hand on, rated what the policies make of it; bound is the policy that limits it, if any does.
	stable, rated int32
	bound         *Policy
}

func (p plan) evaluate(s State, in Inputs, t time.Time) outcome {
	lowest := min(in.Min, in.Max)
	switch {
	case !p.limits:
		return outcome{Limit: merge.Clamp(in.Wanted, in.Min, in.Max), stable: in.Wanted, rated: in.Wanted}
	case in.Current > in.Max:
		return outcome{straight: true, stable: in.Wanted, Limit: merge.Limit{Replicas: in.Max, Limited: true, Reason: kapacity.ReasonTooManyReplicas,
			Message: "the current replica count is more than the maximum replica count"}}
	case in.Current < lowest && in.Current > 0: // from zero the first step goes as far as it may, as in the HPA
		return outcome{straight: true, stable: in.Wanted, Limit: merge.Limit{Replicas: lowest, Limited: true, Reason: kapacity.ReasonTooFewReplicas,
			Message: "the current replica count is less than the minimum replica count"}}
	}
	up, down := in.Wanted, in.Wanted
	for _, r := range s.Lowest {
		if r.within(p.up.window, t) {
			up = min(up, r.Replicas)
		}
	}
	for _, r := range s.Highest {
		if r.within(p.down.window, t) {
			down = max(down, r.Replicas)
		}
	}
	o := outcome{stable: min(max(in.Current, up), down)}
	if p.compatible {
		o.stable = down
	}
	o.rated, o.Limit = o.stable, merge.Clamp(o.stable, in.Min, in.Max)
	switch {
	case o.stable > in.Current:
		limit, policy := p.up.allowed(s.Ups, s.Downs, in.Current, 1, t)
		if limit < o.stable {
			o.rated, o.bound = limit, policy
		}
		if limit < o.Replicas {
			o.Limit = merge.Limit{Replicas: max(limit, lowest), Limited: true, Reason: ReasonScaleUpLimit, Message: MessageScaleUpLimit}
		}
	case o.stable < in.Current:
		limit, policy := p.down.allowed(s.Downs, s.Ups, in.Current, -1, t)
		if limit > o.stable {
			o.rated, o.bound = limit, policy
		}
		if limit > o.Replicas {
			o.Limit = merge.Limit{Replicas: limit, Limited: true, Reason: ReasonScaleDownLimit, Message: MessageScaleDownLimit}
		}
	}
	return o
}

// allowed returns how far the policies let the count go, never back beyond current, and which of them decides. same are the changes
// in the direction (1 or -1), counter those against it: the former use up what is allowed, the latter give it back.
func (r rules) allowed(same, counter []Change, current, direction int32, t time.Time) (int32, *Policy) {
	if r.selected == Disabled {
		return current, &Policy{}
	}
	var limit int64
	var decides *Policy
	sign := int64(direction)
	for i, policy := range r.policies {
		from := t.Add(-policy.Period)
		start := int64(current)
		for _, c := range same {
			if c.Time.After(from) {
				start -= sign * int64(c.Replicas)
			}
		}
		for _, c := range counter {
			if c.oldest().After(from) {
				start += sign * int64(c.Replicas)
			}
		}
		to := policy.apply(start, direction)
		if decides == nil || (r.selected == Min) == (sign*to < sign*limit) {
			limit, decides = to, &r.policies[i]
		}
	}
	if decides == nil {
		return saturated(sign * math.MaxInt64), nil
	}
	if sign*limit < sign*int64(current) {
		limit = int64(current)
	}
	return saturated(limit), decides
}

// apply returns how far the policy lets a count go that was start when its period began. The arithmetic is the HPA's to the bit;
// only that a percentage of nothing allows one pod, since otherwise there would be no way up from zero.
func (p Policy) apply(start int64, direction int32) int64 {
	switch {
	case p.Type == inAll:
		return int64(p.Value)
	case p.Type == Pods:
		return start + int64(direction)*int64(p.Value)
	case direction > 0:
		return max(1, int64(math.Ceil(float64(start)*(1+float64(p.Value)/100))))
	}
	return int64(float64(start) * (1 - float64(p.Value)/100))
}

func saturated(n int64) int32 { return int32(min(max(n, math.MinInt32), math.MaxInt32)) }

// next returns the first times after now at which the outcome is another count, and at which it is limited by something else; zero for never.
func (p plan) next(s State, in Inputs, o outcome, now time.Time) (count, limit time.Time) {
	var times []time.Time
	add := func(t time.Time, d time.Duration) {
		if t = t.Add(d); t.After(now) {
			times = append(times, t)
		}
	}
	for _, r := range s.Highest {
		add(r.Until, p.down.window)
	}
	for _, r := range s.Lowest {
		add(r.Until, p.up.window)
	}
	for _, r := range []rules{p.up, p.down} {
		for _, policy := range r.policies {
			for _, list := range [][]Change{s.Ups, s.Downs} {
				for _, c := range list {
					add(c.Time, policy.Period)
					add(c.oldest(), policy.Period)
				}
			}
		}
	}
	slices.SortFunc(times, time.Time.Compare)
	for _, t := range slices.CompactFunc(times, time.Time.Equal) {
		then := p.evaluate(s, in, t)
		if limit.IsZero() && (then.Limited != o.Limited || then.Reason != o.Reason) {
			limit = t
		}
		if then.Replicas != o.Replicas {
			return t, limit
		}
	}
	return time.Time{}, limit
}

// steps says in words what the stages did.
func (p plan) steps(s State, in Inputs, o outcome, d Decision, now time.Time) []decision.Step {
	if !p.limits {
		return []decision.Step{o.Step(in.Wanted)}
	}
	if o.straight {
		return []decision.Step{{Stage: "clamp", Replicas: o.Replicas, Reason: fmt.Sprintf("%s: the count is %d, and goes straight to the bound", o.Reason, in.Current)}}
	}
	var out []decision.Step
	if p.up.window > 0 || p.down.window > 0 {
		out = append(out, decision.Step{Stage: "stabilization", Replicas: o.stable, Reason: p.stabilized(s, in, o, now)})
	}
	direction, r := "scale-up", p.up
	if o.stable < in.Current {
		direction, r = "scale-down", p.down
	}
	if o.stable != in.Current && (len(r.policies) > 0 || r.selected == Disabled) {
		reason := "within the policies"
		switch {
		case o.bound == nil:
		case r.selected == Disabled:
			reason = direction + " is disabled"
		default:
			reason = fmt.Sprintf("at most %s in %s: %d", o.bound, o.bound.Period, o.rated)
			if !d.BlockedUntil.IsZero() {
				reason = fmt.Sprintf("%s blocked until %s, %s", direction, clock(d.BlockedUntil), reason)
			}
		}
		out = append(out, decision.Step{Stage: "policies", Replicas: o.rated, Reason: reason})
	}
	return append(out, merge.Clamp(o.rated, in.Min, in.Max).Step(o.rated))
}

// stabilized names the recommendation that holds the count longest, and until when.
func (p plan) stabilized(s State, in Inputs, o outcome, now time.Time) string {
	direction, list, window, holds := "scale-down", s.Highest, p.down.window, func(n int32) bool { return n >= o.stable }
	if o.stable < in.Wanted {
		direction, list, window, holds = "scale-up", s.Lowest, p.up.window, func(n int32) bool { return n <= o.stable }
	}
	var by Recommendation
	for _, r := range list {
		if !r.Until.IsZero() && r.within(window, now) && holds(r.Replicas) {
			by = r
		}
	}
	switch o.stable {
	case in.Wanted:
		return "no recent recommendation stands against it"
	case in.Current:
		return fmt.Sprintf("%s blocked until %s by the recommendation of %d at %s", direction, clock(by.Until.Add(window)), by.Replicas, clock(by.Until))
	}
	return fmt.Sprintf("no further than %d until %s by the recommendation of %d at %s", o.stable, clock(by.Until.Add(window)), by.Replicas, clock(by.Until))
}

// String names what the policy allows.
func (p *Policy) String() string {
	switch p.Type {
	case Percent:
		return fmt.Sprintf("%d%%", p.Value)
	case inAll:
		return fmt.Sprintf("to %d pods", p.Value)
	}
	return fmt.Sprintf("%d pods", p.Value)
}

func clock(t time.Time) string { return t.UTC().Format(time.TimeOnly) }
