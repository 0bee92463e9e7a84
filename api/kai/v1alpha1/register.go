package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

var (
	// SchemeGroupVersion is the group and version of the types in this package.
	SchemeGroupVersion = schema.GroupVersion{Group: "core.kai.io", Version: "v1alpha1"}

	schemeBuilder = runtime.NewSchemeBuilder(addKnownTypes)

	// AddToScheme registers the types of this package in a scheme.
	AddToScheme = schemeBuilder.AddToScheme
)

// The kinds of this package.
const (
	StepKind         = "Step"
	PipelineKind     = "Pipeline"
	ModelRuntimeKind = "ModelRuntime"
)

func addKnownTypes(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(SchemeGroupVersion, &Step{}, &StepList{}, &Pipeline{}, &PipelineList{}, &ModelRuntime{}, &ModelRuntimeList{})
	metav1.AddToGroupVersion(scheme, SchemeGroupVersion)
	return nil
}
