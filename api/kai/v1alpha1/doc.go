// Package v1alpha1 holds the Go types of the API group core.kai.io/v1alpha1: the Step, the Pipeline and the ModelRuntime of Kai,
// with the names of labels and conditions. It is data only: it may import the API types of Kubernetes, and nothing that acts.
// The CRDs in deploy/crds are generated from it, so a comment here is what `kubectl explain` prints.
//
// The wire contract is Kai's, misspellings included. The CRDs ask for no more than Kai's: what cannot work is said in the
// conditions of the object, so that manifests that Kai took are taken here.
//
// +kubebuilder:object:generate=true
// +groupName=core.kai.io
package v1alpha1

//go:generate go run -C ../../../tools ./apigen
