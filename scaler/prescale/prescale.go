// Package prescale decides how many pods a Stack is given before traffic moves to it, so that they are there before the traffic is. It is
// pure: it sees weights, counts and a time, and of Kubernetes only the form in which its state is persisted; whoever calls it raises the autoscaler's minimum, or the
// Deployment, and lets the traffic wait for the pods.
package prescale

import (
	"fmt"
	"math"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	zalando "github.com/kubetide/kubetide/api/zalando/v1"
)

// The annotations of a StackSet, and what counts without them.
const (
	// Annotation turns prescaling on by being there, whatever its value.
	Annotation = "alpha.stackset-controller.zalando.org/prescale-stacks"
	// ResetDelayAnnotation is how long the pods are held after traffic was increased, as a Go duration.
	ResetDelayAnnotation = "alpha.stackset-controller.zalando.org/reset-hpa-min-replicas-delay"

	// DefaultResetDelay counts where the annotation is missing or no duration above 0, as upstream.
	DefaultResetDelay = 10 * time.Minute
	// DefaultDeadline is how long traffic waits for the pods, as long as a Deployment may stand still.
	DefaultDeadline = 10 * time.Minute
)

// Settings are what a StackSet says about prescaling.
type Settings struct {
	// Enabled turns prescaling on. While it is off all states are cleared.
	Enabled bool
	// ResetDelay is how long a floor is held after its traffic has been increased.
	ResetDelay time.Duration
	// Deadline is how long traffic waits for pods. 0 means for ever.
	Deadline time.Duration
}

// FromAnnotations reads the settings. A delay that cannot be read is an error, and the settings hold the default.
func FromAnnotations(annotations map[string]string) (Settings, error) {
	s := Settings{ResetDelay: DefaultResetDelay, Deadline: DefaultDeadline}
	_, s.Enabled = annotations[Annotation]
	text, found := annotations[ResetDelayAnnotation]
	if !found {
		return s, nil
	}
	delay, err := time.ParseDuration(text)
	if err != nil || delay < 0 {
		return s, fmt.Errorf("annotation %s: %q is not a duration such as 10m; %v counts", ResetDelayAnnotation, text, s.ResetDelay)
	}
	s.ResetDelay = delay
	return s, nil
}

// State is what is held for one Stack. It is persisted as it is in the Stack's status; the zero State holds nothing.
type State struct {
	// Active tells that Replicas is held.
	Active bool
	// Replicas is the floor, never above the autoscaler's maximum.
	Replicas int32
	// Weight is the one that the floor was computed for, in percent.
	Weight float64
	// LastIncrease is when traffic was last increased, or should have been.
	LastIncrease time.Time
	// PendingSince is since when traffic waits for the pods; zero while it does not.
	PendingSince time.Time
	// Failed tells that the pods were not ready by the deadline. It stays until another weight is asked for, and no traffic is
	// switched meanwhile: less than the floor was never what the weight was asked for.
	Failed bool
}

// FromStatus reads the state that a Stack's status holds.
func FromStatus(status zalando.PrescalingStatus) State {
	s := State{Active: status.Active, Replicas: status.Replicas, Weight: status.DesiredTrafficWeight, Failed: status.DeadlineExceeded}
	if status.LastTrafficIncrease != nil {
		s.LastIncrease = status.LastTrafficIncrease.Time
	}
	if status.PendingSince != nil {
		s.PendingSince = status.PendingSince.Time
	}
	return s
}

// Status is the state as a Stack's status holds it.
func (s State) Status() zalando.PrescalingStatus {
	status := zalando.PrescalingStatus{Active: s.Active, Replicas: s.Replicas, DesiredTrafficWeight: s.Weight, DeadlineExceeded: s.Failed}
	if !s.LastIncrease.IsZero() {
		status.LastTrafficIncrease = &metav1.Time{Time: s.LastIncrease}
	}
	if !s.PendingSince.IsZero() {
		status.PendingSince = &metav1.Time{Time: s.PendingSince}
	}
	return status
}

// Bounds are the limits of a Stack's autoscaler.
type Bounds struct{ Min, Max int32 }

// Stack is what a decision depends on.
type Stack struct {
	Name string
	// Desired and Actual are the weights in percent.
	Desired, Actual float64
	// Current is the Deployment's spec.replicas, 0 while there is none.
	Current int32
	// Replicas is the Stack's spec.replicas (1 if unset).
	Replicas int32
	// Autoscaler is nil for a Stack without one.
	Autoscaler *Bounds
	// Forwarded Stacks have no pods here and need none.
	Forwarded bool
	// Ready tells that all is there for the floor that State holds. Only then may its deadline pass unnoticed, for example while no
	// controller ran.
	Ready bool
	State State
}

// Decision is what to hold for one Stack.
type Decision struct {
	State State
	// Changed tells that the state differs by more than LastIncrease moving on while traffic waits, and is worth a write.
	Changed bool
	// Expired tells that the deadline passed just now: an Event is due.
	Expired bool
	// Sum is S, the pods of all stacks that get traffic; Reason says how the floor came about, empty while none is held.
	Sum    int32
	Reason string
	// Next is when to decide again; zero if time alone changes nothing.
	Next time.Time
}

// Waiting tells that the Stack should get more traffic than it gets.
func (s Stack) Waiting() bool { return s.Desired > s.Actual }

// Decide returns what to hold for each Stack, in the order given. Weights must be those before the switch that is being decided; after
// it has been carried out, Switched moves the state on.
func Decide(settings Settings, stacks []Stack, now time.Time) []Decision {
	var sum int32
	for _, s := range stacks {
		if s.Actual > 0 && !s.Forwarded {
			sum = saturated(int64(sum) + int64(s.Current))
		}
	}
	out := make([]Decision, len(stacks))
	failed := ""
	for i, s := range stacks {
		out[i] = decide(settings, s, sum, now)
		if out[i].State.Failed && failed == "" {
			failed = s.Name
		}
	}
	for i, s := range stacks {
		// A switch fails as a whole: nobody else's pods are held for it.
		if failed != "" && s.Waiting() && out[i].State.Active {
			out[i] = Decision{Reason: fmt.Sprintf("the switch has failed: the pods of %s were not ready in time", failed)}
		}
		out[i].Sum = sum
		out[i].Changed = differ(s.State, out[i].State)
	}
	return out
}

func decide(settings Settings, s Stack, sum int32, now time.Time) (d Decision) {
	if !settings.Enabled || s.Forwarded {
		return d
	}
	d.State = s.State
	if !s.Waiting() {
		return held(settings, d, now)
	}
	if d.State.Failed {
		if d.State.Weight == s.Desired {
			d.Reason = fmt.Sprintf("the pods for %.4g %% were not ready in time: traffic stays until another weight is asked for", s.Desired)
			return d
		}
		d.State = State{}
	}
	switch {
	case !d.State.Active || d.State.Weight < s.Desired:
		d.State = State{Active: true, Weight: s.Desired, Replicas: max(d.State.Replicas, 0), PendingSince: now}
		d.State.Replicas, d.Reason = floor(s, sum, d.State.Replicas)
	case d.State.PendingSince.IsZero(): // upstream's, or a second switch to no more than before
		d.State.PendingSince = now
	}
	if d.Reason == "" {
		d.Reason = fmt.Sprintf("%d held for %.4g %%", d.State.Replicas, d.State.Weight)
	}
	d.State.LastIncrease = now
	if settings.Deadline > 0 {
		d.Next = d.State.PendingSince.Add(settings.Deadline)
		if now.Before(d.Next) {
			return d
		}
		d.Next = time.Time{}
		if !s.Ready {
			d.State = State{Weight: s.Desired, Failed: true}
			d.Expired = true
			d.Reason = fmt.Sprintf("the pods for %.4g %% were not ready within %v", s.Desired, settings.Deadline)
		}
	}
	return d
}

// held keeps the floor of a Stack that waits for no traffic until the reset delay has passed.
func held(settings Settings, d Decision, now time.Time) Decision {
	if !d.State.Active {
		return Decision{}
	}
	d.State.PendingSince = time.Time{}
	end := d.State.LastIncrease.Add(settings.ResetDelay)
	if !now.Before(end) {
		return Decision{}
	}
	d.Next = end
	d.Reason = fmt.Sprintf("%d held until %s", d.State.Replicas, end.UTC().Format(time.RFC3339))
	return d
}

// floor is the documented rule. before is the floor that is held already, 0 for none.
func floor(s Stack, sum, before int32) (int32, string) {
	share := math.Ceil(round(s.Desired / 100 * float64(sum)))
	n, reason := share, fmt.Sprintf("%.4g %% of %d pods with traffic: %.0f", s.Desired, sum, share)
	if s.Actual > 0 {
		n += float64(s.Current)
		reason = fmt.Sprintf("%d pods and %s: %.0f", s.Current, reason, n)
	}
	raise := func(to int32, why string) {
		if n < float64(to) {
			n = float64(to)
			reason += fmt.Sprintf(", %s: %d", why, to)
		}
	}
	lower := func(to int32, why string) {
		if n > float64(to) {
			n = float64(to)
			reason += fmt.Sprintf(", %s: %d", why, to)
		}
	}
	if s.Autoscaler != nil {
		raise(s.Autoscaler.Min, "the autoscaler's minimum")
	}
	if n == 0 {
		raise(s.Replicas, "the replicas of the spec")
	}
	raise(before, "what is held already")
	if s.Autoscaler != nil {
		lower(s.Autoscaler.Max, "the autoscaler's maximum")
	} else if sum > 0 { // where nobody has traffic there is nothing to be a bound
		lower(max(sum, before), "no more than have traffic now, since no autoscaler bounds it")
	}
	if s.Autoscaler == nil {
		raise(s.Current, "never fewer than there are")
	}
	return int32(min(n, math.MaxInt32)), reason
}

// Switched returns the state of a Stack whose traffic has just been switched as desired: the delay runs from now.
func (s State) Switched(now time.Time) State {
	if s.Active && !s.PendingSince.IsZero() {
		s.LastIncrease, s.PendingSince = now, time.Time{}
	}
	return s
}

// Floor is the least number of pods that must be ready before traffic moves to the Stack: the floor that is held, or else what the
// Deployment has. The autoscaler's minimum is part of the floor.
func (s State) Floor(deployment int32) int32 {
	if s.Active {
		return s.Replicas
	}
	return deployment
}

// MinReplicas is the minimum for the Stack's autoscaler: its own, raised while a floor is held. nil stays nil while none is.
func (s State) MinReplicas(own *int32, maximum int32) *int32 {
	if !s.Active {
		return own
	}
	floor := min(s.Replicas, maximum)
	if own != nil && *own >= floor {
		return own
	}
	return &floor
}

// differ compares states, apart from LastIncrease while traffic waits.
func differ(a, b State) bool {
	if a.Active && b.Active && !a.PendingSince.IsZero() && !b.PendingSince.IsZero() {
		a.LastIncrease, b.LastIncrease = time.Time{}, time.Time{}
	}
	same := a.LastIncrease.Equal(b.LastIncrease) && a.PendingSince.Equal(b.PendingSince)
	a.LastIncrease, a.PendingSince, b.LastIncrease, b.PendingSince = time.Time{}, time.Time{}, time.Time{}, time.Time{}
	return !same || a != b
}

// round takes off what binary fractions add: 7 % of 100 is 7, not 7.000000000000001.
func round(x float64) float64 { return math.Round(x*1e6) / 1e6 }

func saturated(n int64) int32 { return int32(min(max(n, 0), math.MaxInt32)) }
