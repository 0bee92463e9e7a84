// Package v1 holds the Go types of the API group zalando.org/v1 that Kubetide works with: its own ScalingSchedule and
// ClusterScalingSchedule, StackSet and Stack, and what it reads and writes of skipper's RouteGroup and of PlatformCredentialsSet. It is data only: it may import the API types of
// Kubernetes, and nothing that acts. The CRDs in deploy/crds are generated from it, so a comment here is what
// `kubectl explain` prints.
//
// +kubebuilder:object:generate=true
// +groupName=zalando.org
package v1
