package v1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// RouteGroup is the part of skipper's RouteGroup that says how traffic is shared out. Its CRD is skipper's; objects are only
// read, and what is not here is left out when they are.
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
	// DefaultBackends serve the routes that name no backends of their own.
	DefaultBackends []RouteGroupBackendReference `json:"defaultBackends,omitempty"`
	Routes          []RouteGroupRoute            `json:"routes,omitempty"`
}

// RouteGroupBackendReference is one backend and its weight among its neighbors.
type RouteGroupBackendReference struct {
	BackendName string `json:"backendName"`
	// Weight is not below 0. Without any weight all backends of a list get the same.
	Weight int `json:"weight,omitempty"`
}

// RouteGroupRoute is one route. Predicates may hold TrafficSegment(lo, hi), the route's share of the requests.
type RouteGroupRoute struct {
	Predicates []string                     `json:"predicates,omitempty"`
	Backends   []RouteGroupBackendReference `json:"backends,omitempty"`
}
