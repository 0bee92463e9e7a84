// Package v1alpha1 holds the Go types of the read-only API group tide.kubetide.io/v1alpha1, which Kubetide serves from its
// memory: what was decided and why, and which samples it rests on. It is data only. There are no CRDs of it, and nothing of
// it is stored; a comment here is what `kubectl explain` prints.
//
// +kubebuilder:object:generate=true
// +groupName=tide.kubetide.io
// +k8s:openapi-gen=true
// +k8s:openapi-model-package=io.kubetide.tide.v1alpha1
package v1alpha1

//go:generate go tool -modfile=../../../tools/go.mod openapi-gen --output-dir . --output-pkg github.com/kubetide/kubetide/api/tide/v1alpha1 --output-file zz_generated.openapi.go --output-model-name-file zz_generated.model_name.go --go-header-file /dev/null --report-filename /dev/null .
