// Package traffic decides which share of a StackSet's traffic each Stack gets, whether a Stack may be scaled down, and which Stacks go.
// It is pure: it sees weights, counts and a time, and nothing of Kubernetes; whoever calls it reads what lives, writes the segments for
// the weights that come out, and persists the rest in the Stacks' status.
package traffic

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/kubetide/kubetide/scaler/prescale"
)

// What counts where a StackSet says nothing.
const (
	DefaultScaledownTTL = 300 * time.Second
	DefaultLimit        = 10
	// pollMargin is the least time from the loss of the traffic to the loss of the pods: routers poll.
	pollMargin = 10 * time.Second
)

// Weight is the share of the traffic that somebody wants for a Stack.
type Weight struct {
	Stack  string
	Weight float64
}

// StackSet is all that a decision depends on.
type StackSet struct {
	// Weights are what the spec asks for, in its order.
	Weights []Weight
	// HasIngress tells that there is a way in: Ingress, RouteGroup, or an external one. Without one there is no traffic to share out.
	HasIngress bool
	// MinReadyPercent is the share of a Stack's pods that must be ready for it to get more traffic; 0 and below, and 100 and above, are all.
	MinReadyPercent int
	// ScaledownTTL and Limit are the life cycle; 0 means the default.
	ScaledownTTL time.Duration
	Limit        int
	Prescale     prescale.Settings
	Stacks       []Stack
}

// Stack is one version as it lives.
type Stack struct {
	Name    string
	Created time.Time
	// Actual is the weight that it has now, as the StackSet's status says. Desired is the one that was decided last, as its own does.
	Actual, Desired float64
	// NoTrafficSince is since when it has none and should have none; zero while it has, or when that was never seen.
	NoTrafficSince time.Time
	// Routed tells that routers may still send it requests: a live segment of it has some width.
	Routed bool
	// HasIngress tells that there is a way in to this Stack.
	HasIngress bool
	// Forwarded Stacks run in another cluster, and are always ready.
	Forwarded bool
	// Lacks says what that belongs to the Stack is missing or not current; empty if nothing is.
	Lacks string
	// Current is the Deployment's spec.replicas, Updated and Ready the pods of its status.
	Current, Updated, Ready int32
	// Replicas is the Stack's spec.replicas (1 if unset), Autoscaler its bounds, nil without one.
	Replicas   int32
	Autoscaler *prescale.Bounds
	Prescaling prescale.State
}

// Outcome is what was decided for one Stack.
type Outcome struct {
	Stack string
	// Desired and Actual are whole percents; those of all Stacks sum up to 100, or to 0 without a way in.
	Desired, Actual int
	NoTrafficSince  time.Time
	// Ready tells that the Stack could get more traffic as far as it alone is concerned; NotReady says why it could not.
	Ready    bool
	NotReady string
	// Prescaling is what to hold, and how that came about.
	Prescaling prescale.Decision
	// ScaledDown tells that it has been without traffic for long enough to lose its pods and its autoscaler. A Stack without a way in keeps them.
	ScaledDown bool
	// Remove tells that it is to be deleted: more Stacks without traffic are there than should be kept.
	Remove bool
}

// Decision is what was decided for a StackSet.
type Decision struct {
	// Stacks are in the order given.
	Stacks []Outcome
	// Switched tells that actual weights differ from those given.
	Switched bool
	// Err says why the traffic was not switched as desired; the actual weights are then as they were.
	Err error
	// Problems are mistakes in the weights that were passed over, each with the Stack's name.
	Problems []string
	// Expired are the Stacks whose pods were not ready in time, found just now.
	Expired []string
	// Next is when to decide again; zero if time alone changes nothing.
	Next time.Time
}

// NotReadyError is why traffic stays where it is.
type NotReadyError struct {
	// Stacks are those that should get more traffic and are not ready for it, by name; Reasons say why, in the same order.
	Stacks, Reasons []string
}

// Error is upstream's text.
func (e *NotReadyError) Error() string { return "stacks not ready: " + strings.Join(e.Stacks, ", ") }

// Decide returns what each Stack gets at now.
func Decide(set StackSet, now time.Time) Decision {
	d := Decision{Stacks: make([]Outcome, len(set.Stacks))}
	for i, s := range set.Stacks {
		o := Outcome{Stack: s.Name}
		o.NotReady = s.notReady(s.Current, set.MinReadyPercent)
		o.Ready = o.NotReady == ""
		d.Stacks[i] = o
	}
	if set.HasIngress && len(set.Stacks) > 0 {
		d.share(set, now)
	}
	d.scaleDown(set, now)
	d.limit(set)
	return d
}

// share moves the traffic: all that is asked for, or nothing.
func (d *Decision) share(set StackSet, now time.Time) {
	asked, problems := intake(set)
	d.Problems = problems
	actual := map[string]float64{}
	for _, s := range set.Stacks {
		actual[s.Name] = s.Actual
	}
	// Where nobody is asked for, it stays as decided before: a fallback loses what made it one as soon as it is chosen, and traffic
	// would go to and fro.
	chosen := fallback(set.Stacks)
	if i := slices.IndexFunc(set.Stacks, func(s Stack) bool { return s.Desired == 100 }); i >= 0 {
		chosen = set.Stacks[i].Name
	}
	desired, current := Normalize(asked, chosen), Normalize(actual, fallback(set.Stacks))
	floors := make([]prescale.Stack, len(set.Stacks))
	for i, s := range set.Stacks {
		o := &d.Stacks[i]
		o.Desired, o.Actual = desired[s.Name], current[s.Name]
		floors[i] = prescale.Stack{Name: s.Name, Desired: float64(o.Desired), Actual: float64(o.Actual), Current: s.Current, Replicas: s.Replicas,
			Autoscaler: s.Autoscaler, Forwarded: s.Forwarded, State: s.Prescaling,
			Ready: o.Ready && s.notReady(s.Prescaling.Floor(s.Current), set.MinReadyPercent) == ""}
	}
	late := map[string]string{}
	for i, p := range prescale.Decide(set.Prescale, floors, now) {
		s, o := set.Stacks[i], &d.Stacks[i]
		o.Prescaling = p
		if p.Expired {
			d.Expired = append(d.Expired, s.Name)
		}
		if o.Desired <= o.Actual {
			continue
		}
		why := cmp.Or(o.NotReady, s.notReady(p.State.Floor(s.Current), set.MinReadyPercent))
		if p.State.Failed {
			why = p.Reason
		}
		if why != "" {
			late[s.Name] = why
		}
	}
	slices.Sort(d.Expired)
	if len(late) > 0 {
		err := &NotReadyError{}
		for _, stack := range slices.Sorted(maps.Keys(late)) {
			err.Stacks, err.Reasons = append(err.Stacks, stack), append(err.Reasons, late[stack])
		}
		d.Err = err
	}
	for i, s := range set.Stacks {
		o := &d.Stacks[i]
		if d.Err == nil {
			o.Actual = o.Desired
			before := o.Prescaling.State
			o.Prescaling.State = before.Switched(now)
			if o.Prescaling.State != before {
				o.Prescaling.Changed = true
				o.Prescaling.Next = now.Add(set.Prescale.ResetDelay)
			}
		}
		d.Switched = d.Switched || float64(o.Actual) != s.Actual
		d.wake(o.Prescaling.Next)
	}
}

// intake drops what no Stack can be given.
func intake(set StackSet) (map[string]float64, []string) {
	asked := map[string]float64{}
	for _, s := range set.Stacks {
		asked[s.Name] = 0
	}
	var problems []string
	seen := map[string]bool{}
	for _, w := range set.Weights {
		_, known := asked[w.Stack]
		switch {
		case !known:
			problems = append(problems, fmt.Sprintf("stack %q does not exist: its weight does not count", w.Stack))
			continue
		case !(w.Weight >= 0) || math.IsInf(w.Weight, 0):
			problems = append(problems, fmt.Sprintf("the weight of stack %q is %v, not a number from 0 to 100: it counts as 0", w.Stack, w.Weight))
			w.Weight = 0
		case seen[w.Stack]:
			problems = append(problems, fmt.Sprintf("stack %q has more than one weight: the last one counts", w.Stack))
		}
		seen[w.Stack] = true
		asked[w.Stack] = w.Weight
	}
	return asked, problems
}

// fallback is the Stack that gets all traffic when nobody is asked to: of those with a way in the one that had some last, or else the oldest.
func fallback(stacks []Stack) string {
	return slices.MinFunc(stacks, func(a, b Stack) int {
		if a.HasIngress != b.HasIngress {
			if a.HasIngress {
				return -1
			}
			return 1
		}
		if byLoss := b.NoTrafficSince.Compare(a.NoTrafficSince); byLoss != 0 { // the zero time is the earliest
			return byLoss
		}
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.Name, b.Name))
	}).Name
}

// Normalize returns the weights as whole percents that sum up to 100. If all are 0, the fallback gets everything. Weights must not be
// negative.
func Normalize(weights map[string]float64, fallback string) map[string]int {
	return Share(100, weights, fallback)
}

// Share returns whole parts of the total in the proportion of the weights, rounded by largest remainder (of equal ones the bigger
// weight's, then by name). If all are 0, the fallback gets everything. Weights must not be negative.
func Share(total int, weights map[string]float64, fallback string) map[string]int {
	out := map[string]int{}
	// Scaled down first, so that the sum of the largest numbers there are is still a number.
	biggest := 0.0
	for _, w := range weights {
		biggest = max(biggest, w)
	}
	sum := 0.0
	for _, stack := range slices.Sorted(maps.Keys(weights)) {
		out[stack] = 0
		if biggest > 0 {
			sum += weights[stack] / biggest
		}
	}
	if !(sum > 0) {
		out[fallback] = total
		return out
	}
	remainder := map[string]float64{}
	left := total
	for stack, w := range weights {
		part := math.Round(w/biggest/sum*float64(total)*1e9) / 1e9 // takes off what binary fractions add
		out[stack] = int(math.Floor(part))
		remainder[stack] = math.Round((part-math.Floor(part))*1e6) / 1e6
		left -= out[stack]
	}
	order := slices.SortedFunc(maps.Keys(remainder), func(a, b string) int {
		return cmp.Or(cmp.Compare(remainder[b], remainder[a]), cmp.Compare(out[b], out[a]), cmp.Compare(a, b))
	})
	for i := range left {
		out[order[i%len(order)]]++
	}
	return out
}

// notReady says why a Stack could not take more traffic with so many pods; empty if it could.
func (s Stack) notReady(pods int32, minReadyPercent int) string {
	switch {
	case s.Forwarded:
		return ""
	case s.Lacks != "":
		return s.Lacks
	case s.Current <= 0:
		return "it has no pods"
	}
	if minReadyPercent <= 0 || minReadyPercent > 100 {
		minReadyPercent = 100
	}
	need := int32((int64(pods)*int64(minReadyPercent) + 99) / 100)
	switch {
	case s.Updated < need:
		return fmt.Sprintf("%d pods of the current template, %d needed", s.Updated, need)
	case s.Ready < need:
		return fmt.Sprintf("%d pods ready, %d needed", s.Ready, need)
	}
	return ""
}

// scaleDown finds out who has been without traffic, and for how long.
func (d *Decision) scaleDown(set StackSet, now time.Time) {
	if !set.HasIngress {
		return
	}
	ttl := max(cmp.Or(set.ScaledownTTL, DefaultScaledownTTL), pollMargin)
	for i, s := range set.Stacks {
		o := &d.Stacks[i]
		if o.Desired > 0 || o.Actual > 0 || s.Routed {
			continue
		}
		o.NoTrafficSince = s.NoTrafficSince
		if o.NoTrafficSince.IsZero() {
			o.NoTrafficSince = now
		}
		switch {
		case now.Sub(o.NoTrafficSince) <= ttl:
			d.wake(o.NoTrafficSince.Add(ttl + time.Millisecond))
		case s.HasIngress: // without a way in, it has its pods for something else
			o.ScaledDown = true
		}
	}
}

// limit finds the Stacks that are too many: of those that are scaled down, or have no way in, the ones that lost their traffic first.
func (d *Decision) limit(set StackSet) {
	var candidates []int
	for i, s := range set.Stacks {
		o := d.Stacks[i]
		if o.Actual > 0 || o.Desired > 0 || s.Routed {
			continue
		}
		if o.ScaledDown || !set.HasIngress || !s.HasIngress {
			candidates = append(candidates, i)
		}
	}
	excess := len(candidates) - cmp.Or(max(set.Limit, 0), DefaultLimit)
	if excess <= 0 {
		return
	}
	since := func(i int) time.Time {
		if at := d.Stacks[i].NoTrafficSince; !at.IsZero() {
			return at
		}
		return set.Stacks[i].Created
	}
	slices.SortFunc(candidates, func(a, b int) int {
		return cmp.Or(since(a).Compare(since(b)), set.Stacks[a].Created.Compare(set.Stacks[b].Created), cmp.Compare(set.Stacks[a].Name, set.Stacks[b].Name))
	})
	for _, i := range candidates[:excess] {
		d.Stacks[i].Remove = true
	}
}

// Replicas is the count for a Stack's Deployment that has so many replicas now. An autoscaler's count is kept, 0 excepted.
func (o Outcome) Replicas(s Stack) int32 {
	want := s.Replicas
	held := o.Prescaling.State
	if held.Active {
		want = held.Replicas
		if s.Autoscaler == nil { // which alone could bring it to what the spec says
			want = max(want, s.Replicas)
		}
	}
	switch {
	case want == 0 || o.ScaledDown:
		return 0
	case s.Current == 0:
		return want
	case s.Autoscaler != nil:
		return s.Current
	case held.Active:
		return max(s.Current, want)
	}
	return want
}

func (d *Decision) wake(at time.Time) {
	if !at.IsZero() && (d.Next.IsZero() || at.Before(d.Next)) {
		d.Next = at
	}
}
