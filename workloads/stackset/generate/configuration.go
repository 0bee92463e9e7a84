package generate

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	zalando "github.com/kubetide/kubetide/api/zalando/v1"
)

// tokenVersion is the only one that there is.
const tokenVersion = "v2"

// References returns the names of the ConfigMaps and Secrets that must be there. Names that do not begin with the Stack's are errors:
// one that two versions share would go with the first of them.
func (s Source) References() (configMaps, secrets []string, err error) {
	var errs []error
	for i, r := range s.Stack.Spec.ConfigurationResources {
		check := func(field, name string) {
			if !strings.HasPrefix(name, s.Stack.Name) {
				errs = append(errs, fmt.Errorf("configurationResources[%d].%s: the name %q does not begin with the stack's, %q", i, field, name, s.Stack.Name))
			}
		}
		if r.ConfigMapRef != nil {
			check("configMapRef", r.ConfigMapRef.Name)
			configMaps = append(configMaps, r.ConfigMapRef.Name)
		}
		if r.SecretRef != nil {
			check("secretRef", r.SecretRef.Name)
			secrets = append(secrets, r.SecretRef.Name)
		}
		if r.PlatformCredentialsSet != nil {
			check("platformCredentialsSet", r.PlatformCredentialsSet.Name)
		}
	}
	return configMaps, secrets, errors.Join(errs...)
}

// ConfigMaps returns the ConfigMaps whose data the Stack's spec holds. A name that does not begin with the Stack's gets it as a prefix.
func (s Source) ConfigMaps() []*corev1.ConfigMap {
	var out []*corev1.ConfigMap
	for _, r := range s.Stack.Spec.ConfigurationResources {
		if r.ConfigMap == nil {
			continue
		}
		name := r.ConfigMap.Name
		if !strings.HasPrefix(name, s.Stack.Name) {
			name = strings.TrimSuffix(s.Stack.Name+"-"+name, "-")
		}
		out = append(out, &corev1.ConfigMap{
			TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
			ObjectMeta: s.meta(name, nil),
			Data:       maps.Clone(r.ConfigMap.Data),
		})
	}
	return out
}

// PlatformCredentialsSets returns what asks the platform for the Stack's credentials.
func (s Source) PlatformCredentialsSets() ([]*zalando.PlatformCredentialsSet, error) {
	var out []*zalando.PlatformCredentialsSet
	for _, r := range s.Stack.Spec.ConfigurationResources {
		pcs := r.PlatformCredentialsSet.DeepCopy()
		if pcs == nil {
			continue
		}
		application, found := s.Stack.Labels[ApplicationLabel]
		if !found {
			return nil, errors.New("stack has no label application")
		}
		if len(pcs.Tokens) == 0 {
			return nil, errors.New("platformCredentialsSet has no tokens")
		}
		out = append(out, &zalando.PlatformCredentialsSet{
			TypeMeta:   metav1.TypeMeta{APIVersion: zalando.SchemeGroupVersion.String(), Kind: zalando.PlatformCredentialsSetKind},
			ObjectMeta: s.meta(pcs.Name, nil),
			Spec:       zalando.PlatformCredentialsSpec{Application: application, Tokens: pcs.Tokens, TokenVersion: tokenVersion},
		})
	}
	return out, nil
}

// Adopt makes a ConfigMap or a Secret that is there the Stack's. adopted is false if it is already, and then nothing was changed. One
// that belongs to somebody else is an error. The object must be a copy.
func (s Source) Adopt(kind string, object metav1.Object) (adopted bool, err error) {
	owners := object.GetOwnerReferences()
	if slices.ContainsFunc(owners, func(r metav1.OwnerReference) bool { return r.UID == s.Stack.UID }) {
		return false, nil
	}
	if len(owners) > 0 {
		// upstream's texts
		if kind == "Secret" {
			return false, fmt.Errorf("secret already owned by other resource. Secret: %s, Stack: %s", object.GetName(), s.Stack.Name)
		}
		return false, fmt.Errorf("%s already owned by other resource. %s: %s, Stack: %s", kind, kind, object.GetName(), s.Stack.Name)
	}
	meta := s.meta("", nil)
	labels := meta.Labels
	if labels == nil {
		labels = map[string]string{}
	}
	maps.Copy(labels, object.GetLabels())
	object.SetLabels(labels)
	annotations := maps.Clone(object.GetAnnotations())
	if annotations == nil {
		annotations = map[string]string{}
	}
	maps.Copy(annotations, meta.Annotations)
	object.SetAnnotations(annotations)
	object.SetOwnerReferences(meta.OwnerReferences)
	return true, nil
}
