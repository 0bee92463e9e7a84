package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Pipeline is a row of Steps.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Namespaced
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`,description="Whether all Steps are ready"
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`,description="Why"
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type Pipeline struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// The Steps.
	Spec PipelineSpec `json:"spec,omitempty"`
	// How far it is. Written by the controller.
	Status PipelineStatus `json:"status,omitzero"`
}

// PipelineList is a list of Pipelines.
//
// +kubebuilder:object:root=true
type PipelineList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Pipeline `json:"items"`
}

// PipelineSpec is the Steps of a Pipeline.
type PipelineSpec struct {
	// What the Steps are made of, in their order. A Step is named after the Pipeline and the place where its template stood at first.
	// +kubebuilder:validation:MaxItems=1000
	Steps []StepTemplate `json:"steps"`
}

// StepTemplate is what one Step is made of.
type StepTemplate struct {
	// Labels and annotations of the Step. A name lets the Step keep its pods when the order changes.
	// +kubebuilder:pruning:PreserveUnknownFields
	// +optional
	Metadata StepMetadata `json:"metadata,omitzero"`

	// The spec of the Step.
	// +optional
	Spec StepSpec `json:"spec,omitempty"`
}

// StepMetadata is what is read of a template's metadata; the rest is kept and ignored.
type StepMetadata struct {
	// What the template is known by in its Pipeline. The Step's own name is another.
	// +optional
	Name string `json:"name,omitempty"`

	// Labels of the Step, beside those of the Pipeline. Where both have a key, these win.
	// +optional
	Labels map[string]string `json:"labels,omitempty"`

	// Annotations of the Step, beside those of the Pipeline. Where both have a key, these win.
	// +optional
	Annotations map[string]string `json:"annotations,omitempty"`
}

// PipelineStatus says how far a Pipeline is.
type PipelineStatus struct {
	// The state of the Pipeline: Ready and Invalid.
	// +kubebuilder:validation:MaxItems=32
	// +listType=map
	// +listMapKey=type
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty" patchStrategy:"merge" patchMergeKey:"type"`
}
