// Package podstate decides which pods of a workload change their state so that a ReplicaProfile comes true, and whether and
// how /scale may follow so that the pods that go are the ones that were cut. It is pure: it sees pods as plain values and
// writes nothing; the ReplicaProfile controller carries out the Plan in the order that Plan documents.
package podstate

import (
	"time"
)

// Kind is the kind of workload; it decides in which order pods go.
type Kind int

const (
	// ScaleOnly is any other kind with /scale: pods cannot be cut.
	ScaleOnly Kind = iota
	// ReplicaSets is a ReplicaSet, or a Deployment with the pods of all its ReplicaSets, or a kind that is taken to choose as they do.
	ReplicaSets
	// StatefulSet goes by ordinals.
	StatefulSet
)

// State is the pod's state by its label kapacitystack.io/pod-state; an unknown or absent label is Online.
type State string

// The states that a label can have.
const (
	Online  State = "Online"
	Cutoff  State = "Cutoff"
	Standby State = "Standby"
)

// Gate is the pod's readiness gate kapacitystack.io/online.
type Gate int

const (
	// GateMissing means that the pod's spec has no such gate, so its traffic cannot be cut.
	GateMissing Gate = iota
	// GateUnset means that the condition is absent.
	GateUnset
	// GateOn is the condition's status True.
	GateOn
	// GateOff is the condition's status False.
	GateOff
)

// Pod is what matters of a pod. FromPod makes one.
type Pod struct {
	Name, UID string
	State     State
	Gate      Gate
	// Owner is the UID of the pod's controller.
	Owner string
	// Ordinal is the StatefulSet's ordinal, -1 if the name has none.
	Ordinal int32
	// Node is empty while the pod is unassigned.
	Node string
	// Phase is Pending, Unknown or Running; pods that have ended or are being deleted have Gone set.
	Phase string
	// Gone marks pods that count no more: Succeeded, Failed or being deleted. Terminating are those being deleted.
	Gone, Terminating bool
	// Ready is the condition Ready, ReadySince its transition. Restarts is the highest restart count of a container.
	Ready        bool
	ReadySince   time.Time
	Restarts     int32
	Created      time.Time
	DeletionCost int32
}

// Counts are numbers of pods by state: a ReplicaProfile's spec or its status.
type Counts struct {
	Online, Cutoff, Standby int32
}

// Total is the count for /scale.
func (c Counts) Total() int32 { return c.Online + c.Cutoff + c.Standby }

// Direction is the ReplicaProfile's allowedScalingDirection.
type Direction string

// The directions; empty means Both.
const (
	Both    Direction = "Both"
	Neither Direction = "Neither"
	Up      Direction = "Up"
	Down    Direction = "Down"
)

// Workload is the scale target.
type Workload struct {
	Kind Kind
	// Replicas is spec.replicas of /scale.
	Replicas int32
	// FirstOrdinal is a StatefulSet's spec.ordinals.start.
	FirstOrdinal int32
	// OrderedReady tells that a StatefulSet's pods come and go one by one.
	OrderedReady bool
	// Updating says why cut pods must be restored for now, for example "StatefulSet web is rolling out revision web-7"; empty
	// otherwise. A Deployment with pods of more than one ReplicaSet is found here without it.
	Updating string
	// CountedReady is how many ready pods the ReplicaSets counted last; 0 if that is not known.
	CountedReady int32
	Direction    Direction
}

// DeletionCost is the cost that condemned pods of ReplicaSets get: less than any that a user can give.
const DeletionCost int32 = -2147483647

// Plan is what to do, in this order: Online, Cut, Standby, ClearCosts, SetCosts, then Scale, then Delete.
type Plan struct {
	// Online pods get their readiness gate True, then lose the label. Cut and Standby pods get the label of that name, then the
	// gate False. All stand in the order in which they should change.
	Online, Cut, Standby []Pod
	// SetCosts pods get the annotation controller.kubernetes.io/pod-deletion-cost with DeletionCost; ClearCosts pods lose it.
	SetCosts, ClearCosts []Pod
	// Scale is the count to write to /scale; nil leaves it. Wait says why it is not lowered yet; empty when it needs not wait.
	Scale *int32
	Wait  string
	// Delete is the condemned pod of an OrderedReady StatefulSet that has to be deleted by hand, with its UID as precondition.
	Delete *Pod
	// Condemned are the pods that go with this or an earlier change of /scale, in the order of their going.
	Condemned []Pod
	// NoGate are pods that should be cut and cannot be, because their spec lacks the readiness gate. They count as online.
	NoGate []Pod
	// Wanted is the spec within the allowed direction. Counts are the running pods by state as found; CutReady is how many of the
	// cut ones are still Ready.
	Wanted, Counts Counts
	CutReady       int32
	// Frozen says why cut pods are restored instead of what is wanted; empty otherwise.
	Frozen string
	// Applied tells that nothing is left to write and the pods are in the states wanted; Reason says what is missing otherwise.
	// Ensured tells that Counts are as the spec says, as far as the direction allows.
	Applied, Ensured bool
	Reason           string
}
