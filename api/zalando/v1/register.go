package v1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

var (
	// SchemeGroupVersion is the group and version of the types in this package.
	SchemeGroupVersion = schema.GroupVersion{Group: "zalando.org", Version: "v1"}

	schemeBuilder = runtime.NewSchemeBuilder(addKnownTypes)

	// AddToScheme registers the types of this package in a scheme.
	AddToScheme = schemeBuilder.AddToScheme
)

// The kinds of this package.
const (
	ScalingScheduleKind        = "ScalingSchedule"
	ClusterScalingScheduleKind = "ClusterScalingSchedule"
	StackSetKind               = "StackSet"
	StackKind                  = "Stack"
	RouteGroupKind             = "RouteGroup"
	PlatformCredentialsSetKind = "PlatformCredentialsSet"
)

func addKnownTypes(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(SchemeGroupVersion,
		&ScalingSchedule{}, &ScalingScheduleList{},
		&ClusterScalingSchedule{}, &ClusterScalingScheduleList{},
		&StackSet{}, &StackSetList{},
		&Stack{}, &StackList{},
		&RouteGroup{}, &RouteGroupList{},
		&PlatformCredentialsSet{}, &PlatformCredentialsSetList{},
	)
	metav1.AddToGroupVersion(scheme, SchemeGroupVersion)
	return nil
}
