package v1alpha1

import (
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ModelRuntime is what models of some formats are served with, by Steps of any namespace.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Namespaced
// +kubebuilder:subresource:status
type ModelRuntime struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// The containers, and what they can serve.
	Spec ModelRuntimeSpec `json:"spec,omitempty"`
	// Empty.
	Status ModelRuntimeStatus `json:"status,omitzero"`
}

// ModelRuntimeList is a list of ModelRuntimes.
//
// +kubebuilder:object:root=true
type ModelRuntimeList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ModelRuntime `json:"items"`
}

// ModelRuntimeSpec is the containers that serve models, with defaults for the Steps that use them.
type ModelRuntimeSpec struct {
	// The formats of models that it can serve.
	// +kubebuilder:validation:MaxItems=1000
	SupportedModelFormats []string `json:"supportedModelFormats"`

	// The containers of the pods. The one that is named kai-container finds the model in /mnt/models.
	// +kubebuilder:validation:MaxItems=1000
	Containers []corev1.Container `json:"containers"`

	// The minReplicas of Steps that set none.
	// +optional
	MinReplicas *int32 `json:"minReplicas,omitempty"`

	// The maxReplicas of Steps that set none.
	// +optional
	MaxReplicas int32 `json:"maxReplicas"`

	// The metrics of Steps that set none.
	// +kubebuilder:validation:MaxItems=100
	// +listType=atomic
	// +optional
	Metrics []autoscalingv2.MetricSpec `json:"metrics,omitempty"`

	// The behavior of Steps that set none.
	// +optional
	Behavior *autoscalingv2.HorizontalPodAutoscalerBehavior `json:"behavior,omitempty"`
}

// ModelRuntimeStatus is empty.
type ModelRuntimeStatus struct{}
