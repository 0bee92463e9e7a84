package tideapi

import (
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/validation/spec"

	tide "github.com/kubetide/kubetide/api/tide/v1alpha1"
)

// Definitions are the OpenAPI definitions of the group. The generator calls the types of other packages by their Go names, and
// the library's definitions have them under their model names.
func Definitions(ref common.ReferenceCallback) map[string]common.OpenAPIDefinition {
	const goPackage = "k8s.io/apimachinery/pkg/apis/meta/v1."
	modelPackage := strings.TrimSuffix(metav1.Time{}.OpenAPIModelName(), "Time")
	model := func(name string) string {
		if short, ok := strings.CutPrefix(name, goPackage); ok {
			return modelPackage + short
		}
		return name
	}
	all := tide.GetOpenAPIDefinitions(func(path string) spec.Ref { return ref(model(path)) })
	for _, d := range all {
		for i := range d.Dependencies {
			d.Dependencies[i] = model(d.Dependencies[i])
		}
	}
	return all
}
