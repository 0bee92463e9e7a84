package v1alpha1

import (
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Step is a part of an application that is scaled by itself. Its Deployment, Service and HorizontalPodAutoscaler are made of it.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Namespaced
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`,description="Whether it is there and serves"
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`,description="Why"
// +kubebuilder:printcolumn:name="Min",type=integer,JSONPath=`.spec.minReplicas`,priority=1,description="The smallest number of replicas"
// +kubebuilder:printcolumn:name="Max",type=integer,JSONPath=`.spec.maxReplicas`,priority=1,description="The largest number of replicas"
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type Step struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// The pods, and how many of them.
	Spec StepSpec `json:"spec,omitempty"`
	// How far it is. Written by the controller.
	Status StepStatus `json:"status,omitzero"`
}

// StepList is a list of Steps.
//
// +kubebuilder:object:root=true
type StepList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Step `json:"items"`
}

// StepSpec is the spec of the pods, with the model that they serve and how they are scaled.
type StepSpec struct {
	PodSpec `json:",inline"`

	// The model to serve. A ModelRuntime then brings the containers.
	// +optional
	Model *ModelSpec `json:"model,omitempty"`

	// The smallest number of replicas. The default is 1; below 1 counts as 1, unless the server allows 0 and a metric of the type
	// Object or External can wake the Step again.
	// +optional
	MinReplicas *int32 `json:"minReplicas,omitempty"`

	// The largest number of replicas. One below minReplicas is raised to it.
	// +optional
	MaxReplicas int32 `json:"maxReplicas"`

	// What the replicas are scaled by. The default is 80 % of the requested cpu.
	// +kubebuilder:validation:MaxItems=100
	// +listType=atomic
	// +optional
	Metrics []autoscalingv2.MetricSpec `json:"metrics,omitempty"`

	// How fast the replicas may follow.
	// +optional
	Behavior *autoscalingv2.HorizontalPodAutoscalerBehavior `json:"behavior,omitempty"`
}

// ModelSpec names a model and what it is served with.
type ModelSpec struct {
	// The format of the model, for example pytorch. Without modelRuntime, the first ModelRuntime that supports it is taken: those of the
	// Step's namespace come first, then the others, by name.
	// +optional
	ModelFormat string `json:"modelFormat,omitempty"`

	// Where the model is: it is fetched from there before the containers start.
	// +optional
	URI string `json:"uri,omitempty"`

	// The name of the ModelRuntime, in any namespace; one in the Step's own is preferred.
	// +optional
	ModelRuntime string `json:"modelRuntime,omitempty"`

	// The name of the ServiceAccount whose Secrets hold the credentials for the uri.
	// +optional
	ServiceAccountRef string `json:"servicecAccountRef,omitempty"`
}

// StepStatus says how far a Step is.
type StepStatus struct {
	// The state of the Step: Ready, DeploymentAvailable, AutoscalerActive, Invalid, and RuntimeFound and CredentialsFound for models.
	// +kubebuilder:validation:MaxItems=32
	// +listType=map
	// +listMapKey=type
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty" patchStrategy:"merge" patchMergeKey:"type"`
}
