// Package gray paces the way to a replica count: in steps, with pods cut from traffic and held for a while before they go.
// A run is a small state machine whose whole state is the persisted Run, so a restart goes on at the right second. The package is
// pure: it sees counts and a time and knows nothing of Kubernetes; it never waits and never writes.
package gray

import (
	"fmt"
	"time"

	"github.com/kubetide/kubetide/internal/decision"
)

// State is what becomes of a pod on its way out, in the API's words.
type State string

// The states. For a run upwards the state is Online.
const (
	Online  State = "Online"
	Cutoff  State = "Cutoff"
	Standby State = "Standby"
	Deleted State = "Deleted"
)

// Strategy is how one direction is paced.
type Strategy struct {
	// State is where pods that leave are held. Cutoff and Standby hold; Deleted (and Online) hold nothing. Ignored upwards.
	State State
	// ChangePercent is the share of the run's whole way that each step goes, 1 to 100.
	ChangePercent int32
	// Interval is the least time between two steps.
	Interval time.Duration
	// Observation is how long held pods stay after the last step, before they are let go.
	Observation time.Duration
}

// Profile is what a ReplicaProfile asks for. The count for /scale is their sum.
type Profile struct {
	Online, Cutoff, Standby int32
}

// Total is the count for /scale.
func (p Profile) Total() int32 { return p.Online + p.Cutoff + p.Standby }

// Held is the number of pods that exist but should get no traffic.
func (p Profile) Held() int32 { return p.Cutoff + p.Standby }

// String names the numbers as events do.
func (p Profile) String() string {
	return fmt.Sprintf("online %d, cutoff %d, standby %d", p.Online, p.Cutoff, p.Standby)
}

// Batch is a number of pods that were taken out of traffic together. Since moves with the time in which the run stood still.
type Batch struct {
	Replicas int32     `json:"replicas"`
	Since    time.Time `json:"since"`
}

// Run is where a gray run stands; it is persisted as it is in the object's status. Times are whole microseconds in UTC. The zero Run
// means that nothing was ever decided; whoever stops to manage a target (Preview, another scaleTargetRef) goes back to it.
type Run struct {
	// From is the online count when the run began, To the one it goes to.
	From int32 `json:"from"`
	To   int32 `json:"to"`
	// State is what becomes of the pods that the run takes out of traffic, or of those still held on a run upwards.
	State State `json:"state,omitempty"`
	// Percent is how far the run has come, 0 to 100: the sum of the steps' ChangePercent. It stays at 100 after the end.
	Percent int32 `json:"percent"`
	// Steps is the number of steps taken.
	Steps int32 `json:"steps"`
	// Started is when the run began; zero while nothing was ever decided.
	Started time.Time `json:"started,omitzero"`
	// LastStep is when the last step was applied, also that of an earlier run.
	LastStep time.Time `json:"lastStep,omitzero"`
	// PendingSince is when the step was decided that is not yet applied; zero while none is pending.
	PendingSince time.Time `json:"pendingSince,omitzero"`
	// FrozenSince is since when a pending step waits for a pause or a freeze to end, or the run for stability; that time counts neither
	// as a stall nor as time in which pods were held.
	FrozenSince time.Time `json:"frozenSince,omitzero"`
	// ObservedSince is when the observation began: last step applied, no cut pod ready.
	ObservedSince time.Time `json:"observedSince,omitzero"`
	// Held are the held pods with the time they were cut, oldest first; at most MaxBatches.
	Held []Batch `json:"held,omitempty"`
}

// MaxBatches bounds Run.Held; batches closest in time are put together when there are more.
const MaxBatches = 32

// Observed is what lives now.
type Observed struct {
	// Applied tells that the ReplicaProfile as read (Inputs.Profile) is applied: condition Applied is True for its generation.
	// AppliedAt is since when; zero means just now.
	Applied   bool
	AppliedAt time.Time
	// Online is the number of running pods without a held state. It matters only where a step was decided and not applied.
	Online int32
	// Cutoff and Standby are the pods found in these states. They matter only while there is no ReplicaProfile.
	Cutoff, Standby int32
	// CutReady is the number of cut pods that are still Ready; the observation waits for it to be 0.
	CutReady int32
	// Scale is spec.replicas of /scale. It matters only while there is no ReplicaProfile.
	Scale int32
}

// Inputs is everything that a decision depends on, besides the Run and the time.
type Inputs struct {
	// Target is the clamped replica count; nil when no provider has a valid value.
	Target *int32
	// Up and Down are the strategies; nil means at once.
	Up, Down *Strategy
	// UpDisabled and DownDisabled forbid a direction. Held pods are not let go while down is disabled.
	UpDisabled, DownDisabled bool
	// Profile is the ReplicaProfile's spec as read; nil while there is none.
	Profile  *Profile
	Observed Observed
	// Paused stops everything where it stands.
	Paused bool
	// Frozen says why held pods had to be restored for now, for example a rolling update; empty means they were not. The run waits;
	// when the freeze ends its pods are cut again, and the step counts from then. A target above all the pods that there are is
	// gone to all the same, from their number.
	Frozen string
	// Unstable says why a run downwards must not go on: a stability checker found a breach, or its cool-down is not over. Empty means
	// it may. Until then no step follows, nobody is let go, and the observation begins anew afterwards; a step that was ordered is
	// still carried out. Upwards it stands in nobody's way. Without a strategy downwards it means nothing.
	Unstable string
	// Rollback turns the held pods on again while Unstable is set, and begins a new run from all of them afterwards. Pods that a freeze
	// has restored anyway are not cut again either.
	Rollback bool
}

// Decision is what to do. Write Run first, then Profile: a crash between the two is repaired by the next call.
type Decision struct {
	// Run is the new state; Changed tells whether it differs from the one given.
	Run     Run
	Changed bool
	// Profile is the ReplicaProfile's spec that should be; nil while there should be none. Write tells that it differs from the
	// one read. Where two profiles fall on one instant, the second comes from the call that sees the first one applied.
	Profile *Profile
	Write   bool
	// GrayPercent is status.gray.grayPercent.
	GrayPercent int32
	// Progressing is the condition GrayProgressing: the profile's online count is not the target. Active is also true while
	// pods are held under observation, or a step waits to be applied.
	Progressing, Active bool
	// Stalled is the condition GrayStalled, StalledReason its message.
	Stalled       bool
	StalledReason string
	// Next is when to call again; zero if time alone can change nothing. Calling earlier or later does no harm.
	Next time.Time
	// Step is gray's line in the decision record: the online count and why.
	Step decision.Step
}
