// Package v1alpha1 holds the Go types of the API group autoscaling.kapacitystack.io/v1alpha1: the
// IntelligentHorizontalPodAutoscaler, the HorizontalPortrait and the ReplicaProfile, with the names of
// labels, conditions and finalizers that clients of the group rely on. It is data only: it may import the API
// types of Kubernetes, and nothing that acts. The CRDs in deploy/crds are generated from it, so a comment here is
// what `kubectl explain` prints.
//
// Rules (XValidation) follow two laws. Objects that were stored before a rule existed must stay writable, their status
// and finalizers above all: the API server sees to that where a rule says false, but not where it fails, so a rule that
// may fail (an unknown time zone) stands at a place where it can be skipped for an unchanged value. And no rule may ask
// for more than what the parsers behind it ask for.
//
// Fields marked "Kubetide addition" do not exist in Kapacity's own CRDs; all others are its wire contract.
//
// +kubebuilder:object:generate=true
// +groupName=autoscaling.kapacitystack.io
package v1alpha1

//go:generate go run -C ../../../tools ./apigen
