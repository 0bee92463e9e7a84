package v1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// StackSet describes one application whose versions, its Stacks, live side by side and share its traffic by weights.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:categories=all
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Stacks",type=integer,JSONPath=`.status.stacks`,description="Number of Stacks belonging to the StackSet"
// +kubebuilder:printcolumn:name="Ready",type=integer,JSONPath=`.status.readyStacks`,description="Number of Stacks that are ready"
// +kubebuilder:printcolumn:name="Traffic",type=integer,JSONPath=`.status.stacksWithTraffic`,description="Number of Stacks that get traffic"
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule=`oldSelf.hasValue() && oldSelf.value().spec.stackTemplate.spec.version == self.spec.stackTemplate.spec.version || size(self.metadata.name) + size(self.spec.stackTemplate.spec.version) < 63 && (self.metadata.name + '-' + self.spec.stackTemplate.spec.version).matches('^[a-z0-9-]+$')`,message="the name of the StackSet, a dash and the version name the Stack and its Service: together they must be at most 63 lower case letters, digits and dashes, and hold no dot",fieldPath=".spec.stackTemplate.spec.version",optionalOldSelf=true
type StackSet struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// What should be.
	Spec StackSetSpec `json:"spec"`
	// What is. Written by the controller.
	// +optional
	Status StackSetStatus `json:"status,omitzero"`
}

// StackSetList is a list of StackSets.
//
// +kubebuilder:object:root=true
type StackSetList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []StackSet `json:"items"`
}

// StackSetSpec is how traffic comes in, how it is shared out, and what the next Stack is made from.
type StackSetSpec struct {
	// Where traffic comes in through Ingresses. Each Stack keeps the copy of the time at which it was created.
	// +optional
	Ingress *StackSetIngressSpec `json:"ingress,omitempty"`

	// Where another controller makes traffic come in, as status.traffic says.
	// +optional
	ExternalIngress *StackSetExternalIngressSpec `json:"externalIngress,omitempty"`

	// Where traffic comes in through RouteGroups. Each Stack keeps the copy of the time at which it was created.
	// +optional
	RouteGroup *StackSetRouteGroupSpec `json:"routegroup,omitempty"`

	// When Stacks without traffic are scaled down and removed.
	StackLifecycle StackLifecycle `json:"stackLifecycle"`

	// What a Stack is made from. A new version makes a new Stack; the Stacks that there are keep what they have.
	StackTemplate StackTemplate `json:"stackTemplate"`

	// The share of the traffic that each Stack should get. Weights count in proportion to their sum; a Stack that is not named gets
	// none. Traffic only moves when all Stacks that would get more of it are ready.
	// +kubebuilder:validation:MaxItems=100
	// +kubebuilder:validation:XValidation:rule=`self.all(t, self.exists_one(u, u.stackName == t.stackName))`,message="each Stack must be named once"
	// +listType=atomic
	// +optional
	Traffic []*DesiredTraffic `json:"traffic,omitempty"`

	// The share of a Stack's pods, in percent, that must be ready for it to get more traffic. The default is 100; so count 0 and values
	// above 100.
	// +optional
	MinReadyPercent int `json:"minReadyPercent,omitempty"`
}

// EmbeddedObjectMetaWithAnnotations is the metadata of an object that is made from a spec.
type EmbeddedObjectMetaWithAnnotations struct {
	// Annotations of the object.
	// +optional
	Annotations map[string]string `json:"annotations,omitempty"`
}

// StackSetIngressSpec is what Ingresses are made from.
type StackSetIngressSpec struct {
	// Metadata of the Ingresses.
	// +optional
	EmbeddedObjectMetaWithAnnotations `json:"metadata,omitzero"`

	// The host names whose traffic is shared out.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=1000
	// +listType=set
	Hosts []string `json:"hosts"`

	// The port of the Stacks' Services: its number, or its name.
	BackendPort intstr.IntOrString `json:"backendPort"`

	// The path of the requests. Without it all paths count.
	// +optional
	Path string `json:"path,omitempty"`
}

// StackSetExternalIngressSpec says that another controller routes the traffic.
type StackSetExternalIngressSpec struct {
	// The port of the Stacks' Services: its number, or its name.
	BackendPort intstr.IntOrString `json:"backendPort"`
}

// StackSetRouteGroupSpec is what RouteGroups are made from.
type StackSetRouteGroupSpec struct {
	// Metadata of the RouteGroups.
	// +optional
	EmbeddedObjectMetaWithAnnotations `json:"metadata,omitzero"`

	// The host names whose traffic is shared out.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=1000
	// +listType=set
	Hosts []string `json:"hosts"`

	// Backends besides the Stack's own, to which routes may refer.
	// +kubebuilder:validation:MaxItems=1000
	// +listType=atomic
	// +optional
	AdditionalBackends []RouteGroupBackend `json:"additionalBackends,omitempty"`

	// The routes.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=1000
	// +listType=atomic
	Routes []RouteGroupRoute `json:"routes"`

	// How requests are shared out among the pods of a Stack.
	// +optional
	LBAlgorithm string `json:"lbAlgorithm,omitempty"`

	// The number of the port of the Stacks' Services.
	BackendPort int `json:"backendPort"`
}

// StackLifecycle is when Stacks without traffic are scaled down and removed.
type StackLifecycle struct {
	// How long a Stack keeps its pods after it lost its traffic, in seconds. The default is 300.
	// +optional
	ScaledownTTLSeconds *int64 `json:"scaledownTTLSeconds,omitempty"`

	// How many Stacks without traffic are kept; the ones that lost it first are removed. The default is 10.
	// +kubebuilder:validation:Minimum=1
	// +optional
	Limit *int32 `json:"limit,omitempty"`
}

// DesiredTraffic is the share of the traffic that a Stack should get.
type DesiredTraffic struct {
	// The name of the Stack: the StackSet's, a dash and the version.
	// +kubebuilder:validation:MaxLength=253
	StackName string `json:"stackName"`

	// The weight, 0 to 100.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	Weight float64 `json:"weight"`
}

// StackTemplate is what a Stack is made from.
type StackTemplate struct {
	// Metadata of the Stack.
	// +optional
	EmbeddedObjectMetaWithAnnotations `json:"metadata,omitzero"`

	// The Stack.
	Spec StackSpecTemplate `json:"spec"`
}

// StackSpecTemplate is a Stack's spec with its version.
type StackSpecTemplate struct {
	StackSpec `json:",inline"`

	// The version of the application; part of the Stack's name. It may hold no dot, since the Stack names a Service.
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`
	// +kubebuilder:validation:MaxLength=253
	Version string `json:"version"`
}

// StackSetStatus is what is.
type StackSetStatus struct {
	// How many Stacks there are.
	// +optional
	Stacks int32 `json:"stacks,omitempty"`
	// How many of them are ready: all that belongs to them is there and current, and enough of their pods are ready.
	// +optional
	ReadyStacks int32 `json:"readyStacks,omitempty"`
	// How many of them get traffic.
	// +optional
	StacksWithTraffic int32 `json:"stacksWithTraffic,omitempty"`
	// The version for which a Stack was made last.
	// +optional
	ObservedStackVersion string `json:"observedStackVersion,omitempty"`
	// The share of the traffic that each Stack gets. Controllers that route themselves follow it.
	// +kubebuilder:validation:MaxItems=10000
	// +listType=atomic
	// +optional
	Traffic []*ActualTraffic `json:"traffic,omitempty"`
	// The generation of the spec that the status is about.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// Ready, Progressing, TrafficSwitched and Degraded.
	// +kubebuilder:validation:MaxItems=32
	// +listType=map
	// +listMapKey=type
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// ActualTraffic is the share of the traffic that a Stack gets.
type ActualTraffic struct {
	// The name of the Stack.
	StackName string `json:"stackName"`
	// The name of its Service.
	ServiceName string `json:"serviceName"`
	// The Service's port for the traffic.
	ServicePort intstr.IntOrString `json:"servicePort"`
	// The weight, 0 to 100; all of them together are 100.
	Weight float64 `json:"weight"`
}
