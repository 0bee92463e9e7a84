package v1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// RouteGroup is the part of skipper's RouteGroup that says how traffic is shared out and that is generated for StackSets. Its CRD is
// skipper's; what is not here is left out when objects are read.
//
// +kubebuilder:object:root=true
type RouteGroup struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec RouteGroupSpec `json:"spec"`
}

// RouteGroupList is a list of RouteGroups.
//
// +kubebuilder:object:root=true
type RouteGroupList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []RouteGroup `json:"items"`
}

// RouteGroupSpec holds the hosts, and which backend gets which share of their requests.
type RouteGroupSpec struct {
	// Hosts are the host names of all routes.
	Hosts []string `json:"hosts,omitempty"`
	// Backends are what routes and DefaultBackends may refer to.
	Backends []RouteGroupBackend `json:"backends,omitempty"`
	// DefaultBackends serve the routes that name no backends of their own.
	DefaultBackends []RouteGroupBackendReference `json:"defaultBackends,omitempty"`
	Routes          []RouteGroupRoute            `json:"routes,omitempty"`
}

// RouteGroupBackendType is the kind of a backend.
//
// +kubebuilder:validation:Enum=service;shunt;loopback;dynamic;lb;network;forward
type RouteGroupBackendType string

// The kinds of backends that are generated.
const (
	ServiceBackend RouteGroupBackendType = "service"
	// ForwardBackend leads to the cluster that the application moved to. skipper's own CRD does not know it.
	ForwardBackend RouteGroupBackendType = "forward"
)

// RouteGroupBackend is something that answers requests.
type RouteGroupBackend struct {
	// The name by which routes refer to it.
	Name string `json:"name"`
	// The kind.
	Type RouteGroupBackendType `json:"type"`
	// The address. For the type network.
	// +optional
	Address string `json:"address,omitempty"`
	// How requests are shared out among endpoints.
	// +kubebuilder:validation:Enum=roundRobin;random;consistentHash;powerOfRandomNChoices
	// +optional
	Algorithm string `json:"algorithm,omitempty"`
	// The addresses. For the type lb.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=1000
	// +listType=atomic
	// +optional
	Endpoints []string `json:"endpoints,omitempty"`
	// The Service. For the type service.
	// +optional
	ServiceName string `json:"serviceName,omitempty"`
	// The number of its port.
	// +optional
	ServicePort int `json:"servicePort,omitempty"`
}

// RouteGroupBackendReference is one backend and its weight among its neighbors.
type RouteGroupBackendReference struct {
	// The name of the backend.
	BackendName string `json:"backendName"`
	// The weight, not below 0. Without any weight all backends of a list get the same.
	// +kubebuilder:validation:Minimum=0
	// +optional
	Weight int `json:"weight,omitempty"`
}

// HTTPMethod is a method of HTTP.
//
// +kubebuilder:validation:Enum=GET;HEAD;POST;PUT;PATCH;DELETE;CONNECT;OPTIONS;TRACE
type HTTPMethod string

// RouteGroupRoute is one route. Predicates may hold TrafficSegment(lo, hi), the route's share of the requests.
type RouteGroupRoute struct {
	// The path, exactly.
	// +optional
	Path string `json:"path,omitempty"`
	// The path and all below it.
	// +optional
	PathSubtree string `json:"pathSubtree,omitempty"`
	// A regular expression for the path.
	// +optional
	PathRegexp string `json:"pathRegexp,omitempty"`
	// The methods. Without any all count.
	// +kubebuilder:validation:MaxItems=100
	// +listType=atomic
	// +optional
	Methods []HTTPMethod `json:"methods,omitempty"`
	// Further conditions, in skipper's language.
	// +kubebuilder:validation:MaxItems=1000
	// +listType=atomic
	// +optional
	Predicates []string `json:"predicates,omitempty"`
	// What is done to requests and answers, in skipper's language.
	// +kubebuilder:validation:MaxItems=1000
	// +listType=atomic
	// +optional
	Filters []string `json:"filters,omitempty"`
	// The backends. Without any the Stack's own pods answer.
	// +kubebuilder:validation:MaxItems=1000
	// +listType=atomic
	// +optional
	Backends []RouteGroupBackendReference `json:"backends,omitempty"`
}
