package v1alpha1

import (
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ReplicaProfile says how many replicas of a workload are in which state, and makes it so. The IHPA of the same name
// writes it.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:shortName=rp,scope=Namespaced
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Target",type=string,JSONPath=`.spec.scaleTargetRef.name`,description="Name of the workload"
// +kubebuilder:printcolumn:name="Online",type=integer,JSONPath=`.spec.onlineReplicas`,description="Wanted replicas that serve"
// +kubebuilder:printcolumn:name="Cutoff",type=integer,JSONPath=`.spec.cutoffReplicas`,description="Wanted replicas without traffic"
// +kubebuilder:printcolumn:name="Standby",type=integer,JSONPath=`.spec.standbyReplicas`,description="Wanted replicas without resources"
// +kubebuilder:printcolumn:name="Applied",type=string,JSONPath=`.status.conditions[?(@.type=="Applied")].status`,description="Whether all operations are carried out"
// +kubebuilder:printcolumn:name="Ensured",type=string,JSONPath=`.status.conditions[?(@.type=="Ensured")].status`,description="Whether the pods are as wanted"
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Applied")].reason`,priority=1,description="Why it is applied or not"
// +kubebuilder:printcolumn:name="Running",type=integer,JSONPath=`.status.onlineReplicas`,priority=1,description="Running pods in the state Online"
// +kubebuilder:printcolumn:name="Paused",type=boolean,JSONPath=`.spec.paused`,priority=1,description="Whether the profile is paused"
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type ReplicaProfile struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// The wanted counts.
	Spec ReplicaProfileSpec `json:"spec,omitempty"`
	// The counts found. Written by the controller.
	Status ReplicaProfileStatus `json:"status,omitzero"`
}

// ReplicaProfileList is a list of ReplicaProfiles.
//
// +kubebuilder:object:root=true
type ReplicaProfileList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ReplicaProfile `json:"items"`
}

// ReplicaProfileSpec is the wanted counts of replicas. Their sum is what the workload's scale subresource is set to.
type ReplicaProfileSpec struct {
	// The workload whose pods are meant.
	// +kubebuilder:validation:XValidation:rule=`self.kind != ""`,message="kind must not be empty",fieldPath=".kind"
	// +kubebuilder:validation:XValidation:rule=`self.name != ""`,message="name must not be empty",fieldPath=".name"
	ScaleTargetRef autoscalingv2.CrossVersionObjectReference `json:"scaleTargetRef"`

	// The number of replicas that run and serve.
	// +kubebuilder:validation:Minimum=0
	OnlineReplicas int32 `json:"onlineReplicas"`

	// The number of replicas that run but get no traffic.
	// +kubebuilder:validation:Minimum=0
	CutoffReplicas int32 `json:"cutoffReplicas"`

	// The number of replicas that run but have given their resources back.
	// +kubebuilder:validation:Minimum=0
	StandbyReplicas int32 `json:"standbyReplicas"`

	// Stops all operations while true. The default is false.
	// +optional
	Paused bool `json:"paused,omitempty"`

	// Whether the number of online replicas may rise, fall, or both. The default is Both. Cutoff and standby replicas
	// are not affected.
	// +kubebuilder:default=Both
	// +optional
	AllowedScalingDirection ScalingDirection `json:"allowedScalingDirection,omitempty"`

	// How pods are chosen and how their traffic is switched.
	// +kubebuilder:default={podSorter: {type: WorkloadDefault}, podTrafficController: {type: ReadinessGate}}
	// +optional
	Behavior ReplicaProfileBehavior `json:"behavior,omitzero"`
}

// ScalingDirection says in which directions the online replicas may change.
//
// +kubebuilder:validation:Enum=Both;Neither;Up;Down
type ScalingDirection string

const (
	// ScalingDirectionBoth allows to scale up and down. It is the default.
	ScalingDirectionBoth ScalingDirection = "Both"
	// ScalingDirectionNeither allows neither.
	ScalingDirectionNeither ScalingDirection = "Neither"
	// ScalingDirectionUp allows to scale up only.
	ScalingDirectionUp ScalingDirection = "Up"
	// ScalingDirectionDown allows to scale down only.
	ScalingDirectionDown ScalingDirection = "Down"
)

// PodState is the state of a pod of a scaled workload.
//
// +kubebuilder:validation:Enum=Online;Cutoff;Standby;Deleted
type PodState string

const (
	// PodStateOnline is a pod that runs and should handle full traffic.
	PodStateOnline PodState = "Online"
	// PodStateCutoff is a pod that runs but handles no traffic.
	PodStateCutoff PodState = "Cutoff"
	// PodStateStandby is a pod that runs but whose resources are reclaimed.
	PodStateStandby PodState = "Standby"
	// PodStateDeleted is a pod that is removed.
	PodStateDeleted PodState = "Deleted"
)

// ReplicaProfileBehavior says how pods are chosen and how their traffic is switched.
type ReplicaProfileBehavior struct {
	// How pods are chosen that change their state.
	// +optional
	PodSorter PodSorter `json:"podSorter,omitzero"`

	// How traffic is taken from a pod and given back.
	// +optional
	PodTrafficController PodTrafficController `json:"podTrafficController,omitzero"`
}

// PodSorterType is the type of a pod sorter.
//
// +kubebuilder:validation:Enum=WorkloadDefault;External
type PodSorterType string

const (
	// WorkloadDefaultPodSorter takes the order in which the workload itself would delete its pods. It is the default.
	WorkloadDefaultPodSorter PodSorterType = "WorkloadDefault"
	// ExternalPodSorter asks an external sorter.
	ExternalPodSorter PodSorterType = "External"
)

// PodSorter chooses the pods that change their state.
//
// +kubebuilder:validation:XValidation:rule=`has(self.external) == (self.type == 'External')`,message="external must be set if the type is External, and only then",fieldPath=".external"
type PodSorter struct {
	// WorkloadDefault (the default) takes the order in which the workload itself would delete its pods; External asks
	// an external sorter.
	// +kubebuilder:default=WorkloadDefault
	// +optional
	Type PodSorterType `json:"type,omitempty"`

	// The settings of an External sorter.
	// +optional
	External *ExternalPodSorterConfig `json:"external,omitempty"`
}

// ExternalPodSorterConfig names an external sorter.
type ExternalPodSorterConfig struct {
	// The name of the sorter.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`

	// Settings that are handed to the sorter.
	// +kubebuilder:validation:MaxProperties=256
	// +optional
	Config map[string]string `json:"config,omitempty"`
}

// PodTrafficControllerType is the type of a pod traffic controller.
//
// +kubebuilder:validation:Enum=ReadinessGate;External
type PodTrafficControllerType string

const (
	// ReadinessGatePodTrafficController switches the readiness gate kapacitystack.io/online. It is the default.
	ReadinessGatePodTrafficController PodTrafficControllerType = "ReadinessGate"
	// ExternalPodTrafficController asks an external controller.
	ExternalPodTrafficController PodTrafficControllerType = "External"
)

// PodTrafficController switches the traffic of pods.
//
// +kubebuilder:validation:XValidation:rule=`has(self.external) == (self.type == 'External')`,message="external must be set if the type is External, and only then",fieldPath=".external"
type PodTrafficController struct {
	// ReadinessGate (the default) switches the readiness gate kapacitystack.io/online of the pods; External asks an
	// external controller.
	// +kubebuilder:default=ReadinessGate
	// +optional
	Type PodTrafficControllerType `json:"type,omitempty"`

	// The settings of an External controller.
	// +optional
	External *ExternalPodTrafficControllerConfig `json:"external,omitempty"`
}

// ExternalPodTrafficControllerConfig names an external traffic controller.
type ExternalPodTrafficControllerConfig struct {
	// The name of the controller.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`

	// Settings that are handed to the controller.
	// +kubebuilder:validation:MaxProperties=256
	// +optional
	Config map[string]string `json:"config,omitempty"`
}

// ReplicaProfileStatus is the counts of replicas that were found.
type ReplicaProfileStatus struct {
	// The number of running pods in the state Online.
	// +kubebuilder:validation:Minimum=0
	// +optional
	OnlineReplicas int32 `json:"onlineReplicas"`

	// The number of running pods in the state Cutoff.
	// +kubebuilder:validation:Minimum=0
	// +optional
	CutoffReplicas int32 `json:"cutoffReplicas"`

	// The number of running pods in the state Standby.
	// +kubebuilder:validation:Minimum=0
	// +optional
	StandbyReplicas int32 `json:"standbyReplicas"`

	// The state of the profile: Applied and Ensured.
	// +kubebuilder:validation:MaxItems=32
	// +listType=map
	// +listMapKey=type
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty" patchStrategy:"merge" patchMergeKey:"type"`

	// The generation of the spec that this status is about. A Kubetide addition.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// The replica count that the workload has been asked to have, as its scale subresource says. A Kubetide addition.
	// +kubebuilder:validation:Minimum=0
	// +optional
	Replicas int32 `json:"replicas,omitempty"`

	// The number of pods in the state Cutoff or Standby that are still ready, so may still get traffic. A Kubetide
	// addition.
	// +kubebuilder:validation:Minimum=0
	// +optional
	ReadyHeldReplicas int32 `json:"readyHeldReplicas,omitempty"`

	// The number of pods that should be cut off but lack the readiness gate, so keep their traffic. They count as
	// Online. A Kubetide addition.
	// +kubebuilder:validation:Minimum=0
	// +optional
	UngatedReplicas int32 `json:"ungatedReplicas,omitempty"`

	// The last generation of the spec that was applied. A Kubetide addition.
	// +optional
	AppliedGeneration int64 `json:"appliedGeneration,omitempty"`

	// When that generation was first found applied. A Kubetide addition.
	// +optional
	AppliedTime *metav1.MicroTime `json:"appliedTime,omitempty"`
}
