// Package generate makes the objects of a StackSet: the Stack of its version, and a Stack's Deployment, Service, autoscaler, Ingresses,
// RouteGroups and configuration. Names, labels, annotations and owner references are those of Zalando's stackset-controller, to the
// letter: routers, metrics adapters and dashboards know them. It is pure: objects and decisions go in, objects come out; whoever calls
// it compares them with what lives and writes the difference.
package generate

import (
	"fmt"
	"maps"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	zalando "github.com/kubetide/kubetide/api/zalando/v1"
)

// Labels and annotations that are written, and the annotations that are read.
const (
	StackSetLabel     = "stackset"
	StackVersionLabel = "stack-version"
	ApplicationLabel  = "application"

	// StackGenerationAnnotation holds the generation of the Stack that an object was made from.
	StackGenerationAnnotation = "stackset-controller.zalando.org/stack-generation"
	// ForwardBackendAnnotation marks a Stack whose pods run in another cluster.
	ForwardBackendAnnotation = "zalando.org/forward-backend"
	// PredicateAnnotation holds skipper's predicates of an Ingress.
	PredicateAnnotation = "zalando.org/skipper-predicate"
	// BackendAnnotation says what skipper does with an Ingress' requests.
	BackendAnnotation = "zalando.org/skipper-backend"

	forwardBackendName = "fwd"
	forwardBackend     = "forward"

	// SegmentSuffix ends the names of the Ingress and the RouteGroup that carry a Stack's share of the traffic.
	SegmentSuffix = "-traffic-segment"
)

// Options are the operator's settings, the same for all StackSets.
type Options struct {
	// ClusterDomains are the domains below which each Stack has a host name of its own.
	ClusterDomains []string
	// SyncAnnotations are the keys of annotations that all Stacks' segments take from the StackSet as it is now.
	SyncAnnotations []string
	// Forward lets new Stacks of a StackSet that has ForwardBackendAnnotation run in another cluster.
	Forward bool
}

// Source is what a Stack's objects are made from. Nothing of it is changed, and nothing that comes out shares memory with it.
type Source struct {
	Options
	StackSet *zalando.StackSet
	Stack    *zalando.Stack
}

// StackName is the name of the Stack of the StackSet's version.
func StackName(set *zalando.StackSet) string {
	return set.Name + "-" + set.Spec.StackTemplate.Spec.Version
}

// Stack returns the Stack of the StackSet's version as it is to be created. It is never updated.
func Stack(set *zalando.StackSet, o Options) (*zalando.Stack, error) {
	name := StackName(set)
	if len(name) > 63 || strings.Contains(name, ".") {
		return nil, fmt.Errorf("spec.stackTemplate.spec.version: %q would name the stack's Service: it must be at most 63 letters, digits and dashes", name)
	}
	labels := map[string]string{StackSetLabel: set.Name}
	maps.Copy(labels, set.Labels)
	labels[StackVersionLabel] = set.Spec.StackTemplate.Spec.Version
	template := set.Spec.DeepCopy()
	annotations := template.StackTemplate.Annotations
	if _, found := set.Annotations[ForwardBackendAnnotation]; found && o.Forward {
		if annotations == nil {
			annotations = map[string]string{}
		}
		annotations[ForwardBackendAnnotation] = forwardBackendName
	}
	spec := template.StackTemplate.Spec.StackSpec
	if spec.Service != nil {
		for i := range spec.Service.Ports {
			if spec.Service.Ports[i].Protocol == "" {
				spec.Service.Ports[i].Protocol = corev1.ProtocolTCP
			}
		}
	}
	return &zalando.Stack{
		TypeMeta: metav1.TypeMeta{APIVersion: zalando.SchemeGroupVersion.String(), Kind: zalando.StackKind},
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Namespace: set.Namespace, Labels: labels, Annotations: annotations,
			OwnerReferences: []metav1.OwnerReference{ownedBy(zalando.StackSetKind, set)},
		},
		Spec: zalando.StackSpecInternal{StackSpec: spec, ExternalIngress: template.ExternalIngress, Ingress: template.Ingress, RouteGroup: template.RouteGroup},
	}, nil
}

// Forwarded tells that the Stack's pods run in another cluster: it has neither Deployment nor autoscaler.
func (s Source) Forwarded() bool {
	_, found := s.Stack.Annotations[ForwardBackendAnnotation]
	return found
}

// Selector selects the Stack's pods.
func (s Source) Selector() map[string]string {
	selector := map[string]string{}
	for _, key := range []string{StackSetLabel, StackVersionLabel} {
		if value, found := s.Stack.Labels[key]; found {
			selector[key] = value
		}
	}
	return selector
}

// Deployment returns the Deployment with so many replicas; nil if there should be none. A Deployment that lives keeps its selector.
func (s Source) Deployment(replicas int32) *appsv1.Deployment {
	if s.Forwarded() {
		return nil
	}
	spec := s.Stack.Spec.DeepCopy()
	template := corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Annotations: spec.PodTemplate.Annotations, Labels: maps.Clone(s.Stack.Labels)},
		Spec:       spec.PodTemplate.Spec,
	}
	if template.Labels == nil {
		template.Labels = map[string]string{}
	}
	maps.Copy(template.Labels, spec.PodTemplate.Labels)
	d := &appsv1.Deployment{
		TypeMeta:   metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"},
		ObjectMeta: s.meta(s.Stack.Name, nil),
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas, MinReadySeconds: spec.MinReadySeconds,
			Selector: &metav1.LabelSelector{MatchLabels: s.Selector()}, Template: template,
		},
	}
	if spec.Strategy != nil {
		d.Spec.Strategy = *spec.Strategy
	}
	return d
}

// meta is what all objects of the Stack have, and annotations of the user, which win.
func (s Source) meta(name string, annotations map[string]string) metav1.ObjectMeta {
	all := map[string]string{StackGenerationAnnotation: strconv.FormatInt(s.Stack.Generation, 10)}
	maps.Copy(all, annotations)
	return metav1.ObjectMeta{
		Name: name, Namespace: s.Stack.Namespace, Labels: maps.Clone(s.Stack.Labels), Annotations: all,
		OwnerReferences: []metav1.OwnerReference{ownedBy(zalando.StackKind, s.Stack)},
	}
}

// ownedBy returns the reference to an owner. Upstream sets neither controller nor blockOwnerDeletion, and looks for it so.
func ownedBy(kind string, owner metav1.Object) metav1.OwnerReference {
	return metav1.OwnerReference{APIVersion: zalando.SchemeGroupVersion.String(), Kind: kind, Name: owner.GetName(), UID: owner.GetUID()}
}
