// Package behavior limits how fast a replica count may follow what is wanted: stabilization windows and policies with the meaning
// that an HPA's spec.behavior has, then the bounds. All that it remembers is in State, which the object's status keeps, so that a
// restart forgets nothing. The package is pure: it sees counts and a time, knows nothing of Kubernetes, and writes nothing.
package behavior

import (
	"slices"
	"time"

	"github.com/kubetide/kubetide/internal/decision"
)

// SelectPolicy says which of several policies holds.
type SelectPolicy string

// The ways to select. Empty is Max.
const (
	// Max takes the policy that allows the biggest change, Min the one that allows the smallest.
	Max SelectPolicy = "Max"
	Min SelectPolicy = "Min"
	// Disabled forbids the direction.
	Disabled SelectPolicy = "Disabled"
)

// PolicyType is the unit of a policy.
type PolicyType string

// The units.
const (
	Pods    PolicyType = "Pods"
	Percent PolicyType = "Percent"
	// inAll lets the count go up to Value, whatever it was: the floor of 4 that HPAs without behavior have.
	inAll PolicyType = "inAll"
)

// Policy allows a change of Value within any Period, counted from the replicas at the Period's start.
type Policy struct {
	Type PolicyType
	// Value is in pods or percent, at least 1.
	Value int32
	// Period is in whole seconds, at least one.
	Period time.Duration
}

// Rules limit one direction.
type Rules struct {
	// StabilizationWindow is how long a recommendation that speaks against a change is remembered; nil and 0 are not at all.
	StabilizationWindow *time.Duration
	SelectPolicy        SelectPolicy
	// Policies limit the rate; without any there is no limit.
	Policies []Policy
}

// Inputs is everything that a decision depends on, besides the State and the time.
type Inputs struct {
	// Wanted is the count that the portraits ask for, before any limit: the recommendation.
	Wanted int32
	// Current is the count that is ordered now: the online count, or that of /scale.
	Current int32
	// Min and Max are the bounds; if they contradict each other, Max holds.
	Min, Max int32
	// Up and Down limit the directions; nil means no limit. For what an HPA would take for what is not set, see Defaulted.
	Up, Down *Rules
	// Compatible asks for the rules of an HPA without spec.behavior. It is of no account where Up or Down is given.
	Compatible bool
}

// Recommendation is a count that was wanted, and until when.
type Recommendation struct {
	Replicas int32 `json:"replicas"`
	// Until is when another count began to be wanted, or none; zero while it is still wanted. So nothing need be written while
	// the recommendation stays, and after a restart the newest one counts as wanted to this moment.
	Until time.Time `json:"until,omitzero"`
}

// Change is a number of replicas that were added or taken away.
type Change struct {
	Replicas int32     `json:"replicas"`
	Time     time.Time `json:"time"`
	// First is the time of the oldest of several changes that were put together, of which Time is the newest; else zero.
	First time.Time `json:"first,omitzero"`
}

// State is what the limits need to know of the past; it is persisted as it is in the object's status. Times are whole microseconds
// in UTC. The zero State means that nothing was ever decided: then Current counts as recommended until now, as in the HPA.
type State struct {
	// Highest are the recommendations that can hold a scale-down, Lowest those that can hold a scale-up; oldest first, each
	// stricter than all that follow. The last is the newest recommendation. Empty where the direction has no window.
	Highest []Recommendation `json:"highest,omitempty"`
	Lowest  []Recommendation `json:"lowest,omitempty"`
	// Ups and Downs are the changes that policies still count, oldest first.
	Ups   []Change `json:"ups,omitempty"`
	Downs []Change `json:"downs,omitempty"`
	// Order is what was decided and is not carried out as far as Ups and Downs tell; nil if there is nothing, or no policy.
	Order *Order `json:"order,omitempty"`
}

// Order is a count on its way. Until it is carried out it counts as if it were just now, however long that takes: else a policy
// would allow the next step meanwhile, and both would land together.
type Order struct {
	// From is the count that Ups and Downs lead to, To the one that was decided.
	From int32 `json:"from"`
	To   int32 `json:"to"`
	// Since is when that was decided; what is seen to be carried out happened between then and now.
	Since time.Time `json:"since"`
}

// MaxEntries bounds each list of a State. Where there would be more, the two closest in time are put together, so that they limit
// at least as much, and for as long, as the two did.
const MaxEntries = 32

// Decision is what to do. Write State before the count: a crash between the two then only makes windows hold longer.
type Decision struct {
	// Replicas is the count to go to now, within the bounds.
	Replicas int32
	// State is the new state; Changed tells whether it differs from the one given.
	State   State
	Changed bool
	// Limited is the status of ScalingLimited; Reason is one of DesiredWithinRange, TooFewReplicas, TooManyReplicas, ScaleUpLimit
	// and ScaleDownLimit.
	Limited bool
	Reason  string
	Message string
	// Stabilized is ScaleUpStabilized or ScaleDownStabilized while a window holds the count, else empty.
	Stabilized        string
	StabilizedMessage string
	// Next is when time alone changes Replicas; zero if Replicas is what is wanted within the bounds, or time changes nothing.
	Next time.Time
	// NextLimit is when time alone changes Limited or Reason; zero if it does not before Next.
	NextLimit time.Time
	// BlockedUntil is Next where the count has to stay although another one is wanted.
	BlockedUntil time.Time
	// Steps are the lines in the decision record.
	Steps []decision.Step
}

// The reasons that an HPA has beyond those of the bounds, and their messages.
const (
	ReasonScaleUpLimit         = "ScaleUpLimit"
	ReasonScaleDownLimit       = "ScaleDownLimit"
	ReasonScaleUpStabilized    = "ScaleUpStabilized"
	ReasonScaleDownStabilized  = "ScaleDownStabilized"
	MessageScaleUpLimit        = "the desired replica count is increasing faster than the maximum scale rate"
	MessageScaleDownLimit      = "the desired replica count is decreasing faster than the maximum scale rate"
	MessageScaleUpStabilized   = "recent recommendations were lower than current one, applying the lowest recent recommendation"
	MessageScaleDownStabilized = "recent recommendations were higher than current one, applying the highest recent recommendation"
)

const (
	defaultWindow = 5 * time.Minute
	// syncPeriod is how often an HPA looks, and the period of its default policies.
	syncPeriod = 15 * time.Second
)

// Defaulted fills in what an HPA with spec.behavior takes for what is not set, also for a direction without any rules. Where
// neither direction has rules there is no behavior, and it stays so.
func Defaulted(up, down *Rules) (*Rules, *Rules) {
	if up == nil && down == nil {
		return nil, nil
	}
	none, window := time.Duration(0), defaultWindow
	return filled(up, Rules{&none, Max, []Policy{{Pods, 4, syncPeriod}, {Percent, 100, syncPeriod}}}),
		filled(down, Rules{&window, Max, []Policy{{Percent, 100, syncPeriod}}})
}

func filled(given *Rules, r Rules) *Rules {
	if given != nil {
		if given.StabilizationWindow != nil {
			r.StabilizationWindow = given.StabilizationWindow
		}
		if given.SelectPolicy != "" {
			r.SelectPolicy = given.SelectPolicy
		}
		if len(given.Policies) > 0 {
			r.Policies = given.Policies
		}
	}
	return &r
}

// Equal tells whether nothing needs to be written.
func (s State) Equal(o State) bool {
	wanted := func(a, b Recommendation) bool { return a.Replicas == b.Replicas && a.Until.Equal(b.Until) }
	change := func(a, b Change) bool {
		return a.Replicas == b.Replicas && a.Time.Equal(b.Time) && a.First.Equal(b.First)
	}
	same := s.Order == o.Order || s.Order != nil && o.Order != nil && s.Order.From == o.Order.From && s.Order.To == o.Order.To && s.Order.Since.Equal(o.Order.Since)
	return same && slices.EqualFunc(s.Highest, o.Highest, wanted) && slices.EqualFunc(s.Lowest, o.Lowest, wanted) &&
		slices.EqualFunc(s.Ups, o.Ups, change) && slices.EqualFunc(s.Downs, o.Downs, change)
}

// Lapsed notes that from now on nobody recommends anything, so that the newest recommendation ages like the others. Without it,
// a recommendation counts as wanted until the next one.
func (s State) Lapsed(now time.Time) State {
	now = micro(now)
	s = s.until(now)
	for _, list := range [][]Recommendation{s.Highest, s.Lowest} {
		for i := range list {
			if list[i].Until.IsZero() {
				list[i].Until = now
			}
		}
	}
	return s
}

// Counted counts what was ordered and is there by now: in.Current is the count that is ordered as far as anybody can see. Where that
// is not carried out yet, decide on the result, but keep what Uncounted makes of it.
func Counted(s State, in Inputs, now time.Time) State {
	now = micro(now)
	s = s.until(now)
	longest := in.plan().longest()
	if longest == 0 {
		s.Ups, s.Downs, s.Order = nil, nil, nil
	}
	if s.Order == nil {
		return s
	}
	s.Ups, s.Downs = recent(s.Ups, longest, now), recent(s.Downs, longest, now)
	change := Change{Time: now}
	if s.Order.Since.Before(now) {
		change.First = s.Order.Since
	}
	switch from := s.Order.From; {
	case in.Current > from:
		change.Replicas = in.Current - from
		s.Ups = added(s.Ups, change)
	case in.Current < from:
		change.Replicas = from - in.Current
		s.Downs = added(s.Downs, change)
	}
	if s.Order.From = in.Current; s.Order.To == in.Current {
		s.Order = nil
	}
	return s
}

// Uncounted takes back what Counted made of before.
func (s State) Uncounted(before State) State {
	s.Ups, s.Downs, s.Order = before.Ups, before.Downs, before.Order
	return s
}

// Ordered notes that the count is to go to another one by our doing, or, with to at in.Current, that it stays. Write it before the
// count: what was written after it, and lost, would be one step too many.
func Ordered(s State, in Inputs, to int32, now time.Time) State {
	now = micro(now)
	longest := in.plan().longest()
	switch o := s.Order; {
	case longest == 0:
		s.Order = nil
	case o != nil && (o.From != in.Current || o.From != to): // what was ordered may be carried out any time, and may have been since then
		s.Order = &Order{From: o.From, To: to, Since: o.Since}
	case to == in.Current:
		s.Order = nil
	default:
		s.Ups, s.Downs = recent(slices.Clone(s.Ups), longest, now), recent(slices.Clone(s.Downs), longest, now)
		s.Order = &Order{From: in.Current, To: to, Since: now}
	}
	return s
}

// micro is the resolution in which times survive the API.
func micro(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }

// until copies the state without times after now: a clock that was set back must not prolong a window by as much.
func (s State) until(now time.Time) State {
	bounded := func(t time.Time) time.Time {
		if t.After(now) {
			return now
		}
		return t.UTC()
	}
	s.Highest, s.Lowest, s.Ups, s.Downs = slices.Clone(s.Highest), slices.Clone(s.Lowest), slices.Clone(s.Ups), slices.Clone(s.Downs)
	for _, list := range [][]Recommendation{s.Highest, s.Lowest} {
		for i := range list {
			list[i].Until = bounded(list[i].Until)
		}
	}
	for _, list := range [][]Change{s.Ups, s.Downs} {
		for i := range list {
			list[i].Time, list[i].First = bounded(list[i].Time), bounded(list[i].First)
		}
	}
	if s.Order != nil {
		s.Order = &Order{From: s.Order.From, To: s.Order.To, Since: bounded(s.Order.Since)}
	}
	return s
}

// oldest is when the first of the changes was.
func (c Change) oldest() time.Time {
	if c.First.IsZero() {
		return c.Time
	}
	return c.First
}

// recent returns the changes that a period can still count.
func recent(list []Change, period time.Duration, now time.Time) []Change {
	return slices.DeleteFunc(list, func(c Change) bool { return !c.Time.After(now.Add(-period)) })
}

func added(list []Change, c Change) []Change {
	list = append(list, c)
	if len(list) <= MaxEntries {
		return list
	}
	i := closest(len(list), func(i int) time.Duration { return list[i+1].Time.Sub(list[i].oldest()) })
	list[i] = Change{Replicas: saturated(int64(list[i].Replicas) + int64(list[i+1].Replicas)), Time: list[i+1].Time, First: list[i].oldest()}
	return slices.Delete(list, i+1, i+2)
}

// noted returns the recommendations with the newest one, and without those that can limit nothing any more. It returns the list as
// it is while the recommendation stays: time alone gives no reason to write.
func noted(list []Recommendation, in Inputs, window time.Duration, now time.Time, stricter func(a, b int32) bool) []Recommendation {
	if window <= 0 {
		return nil
	}
	n := len(list)
	if n > 0 && list[n-1].Until.IsZero() && list[n-1].Replicas == in.Wanted {
		return list
	}
	if n == 0 {
		list = []Recommendation{{Replicas: in.Current, Until: now}}
	}
	var out []Recommendation
	for _, r := range list {
		if r.Until.IsZero() {
			r.Until = now
		}
		if r.within(window, now) && stricter(r.Replicas, in.Wanted) {
			out = append(out, r)
		}
	}
	for len(out) >= MaxEntries {
		i := closest(len(out), func(i int) time.Duration { return out[i+1].Until.Sub(out[i].Until) })
		out[i].Until = out[i+1].Until
		out = slices.Delete(out, i+1, i+2)
	}
	return append(out, Recommendation{Replicas: in.Wanted})
}

// within tells whether the recommendation was wanted in the window before t.
func (r Recommendation) within(window time.Duration, t time.Time) bool {
	return r.Until.IsZero() || r.Until.After(t.Add(-window))
}

// closest returns the i below n-1 with the smallest gap to i+1.
func closest(n int, gap func(i int) time.Duration) int {
	best := 0
	for i := range n - 1 {
		if gap(i) < gap(best) {
			best = i
		}
	}
	return best
}
