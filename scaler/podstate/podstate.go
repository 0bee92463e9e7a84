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
	// ReplicaSets is a ReplicaSet, or a Deployment with the pods of all its ReplicaSets.
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
	// GateOn and GateOff are the condition's status True and False.
	GateOn
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
	Ready             bool
	ReadySince        time.Time
	Restarts          int32
	Created           time.Time
	DeletionCost      int32
}

// Wanted is the ReplicaProfile's spec.
type Wanted struct {
	Online, Cutoff, Standby int32
}

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
	Updating  string
	Direction Direction
}

// Counts are running pods by state, for the ReplicaProfile's status.
type Counts struct {
	Online, Cutoff, Standby int32
}

// DeletionCost is the cost that condemned pods of ReplicaSets get: less than any that a user can give.
const DeletionCost int32 = -2147483647

// Plan is what to do, in this order: Online, Cut, Standby, ClearCosts, SetCosts, then Scale, then Delete.
type Plan struct {
	// Online pods get their readiness gate True, then lose the label. Cut pods get the label, then the gate False. Standby
	// pods get the label Standby (and the gate False). All in the order in which they should change.
	Online, Cut, Standby []Pod
	// SetCosts pods get the annotation controller.kubernetes.io/pod-deletion-cost with DeletionCost; ClearCosts pods lose it.
	SetCosts, ClearCosts []Pod
	// Scale is the count to write to /scale; nil leaves it. Wait says why it is not lowered yet; empty when it needs not wait.
	Scale *int32
	Wait  string
	// Delete is the condemned cut pod of an OrderedReady StatefulSet to delete by hand, with its UID as precondition.
	Delete []Pod
	// Condemned are the pods that go, or are expected to go, in the order of their going.
	Condemned []Pod
	// NoGate are pods that should be cut and cannot, because their spec lacks the readiness gate. They count as online.
	NoGate []Pod
	// Counts are the running pods by state as found; CutReady are cut pods that are still Ready.
	Counts   Counts
	CutReady int32
	// Frozen says why cut pods are restored instead of what is wanted; empty otherwise.
	Frozen string
	// Applied tells that nothing is left to do and the states are as wanted; Reason says what is missing otherwise.
	Applied bool
	Reason  string
}
