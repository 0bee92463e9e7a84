package generate

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	zalando "github.com/kubetide/kubetide/api/zalando/v1"
	"github.com/kubetide/kubetide/internal/traffic"
)

// Hosts returns the Stack's own host names for those of the StackSet: one below each cluster domain that some of them are in.
func (s Source) Hosts(hosts []string) []string {
	var own []string
	for _, domain := range s.ClusterDomains {
		domain = strings.Trim(domain, ".")
		for _, host := range hosts {
			// Whole labels: fooexample.org is not in example.org.
			if domain != "" && (host == domain || strings.HasSuffix(host, "."+domain)) {
				own = append(own, s.Stack.Name+"."+domain)
			}
		}
	}
	slices.Sort(own)
	return slices.Compact(own)
}

// Ingress returns the Ingress of the Stack's own host names; nil if it has none.
func (s Source) Ingress() *networkingv1.Ingress {
	spec, _, _ := s.ways()
	if spec == nil {
		return nil
	}
	hosts := s.Hosts(spec.Hosts)
	if len(hosts) == 0 {
		return nil
	}
	return s.ingress(s.Stack.Name, hosts, spec, maps.Clone(spec.Annotations))
}

// IngressSegment returns the Ingress of the Stack's share of the traffic to all hosts; nil if there should be none.
func (s Source) IngressSegment(segment traffic.Segment) *networkingv1.Ingress {
	spec, _, _ := s.ways()
	if spec == nil {
		return nil
	}
	var current map[string]string
	if s.StackSet != nil && s.StackSet.Spec.Ingress != nil {
		current = s.StackSet.Spec.Ingress.Annotations
	}
	annotations := s.synced(spec.Annotations, current)
	predicate := segment.String()
	if user := annotations[PredicateAnnotation]; user != "" {
		predicate += " && " + user
	}
	annotations[PredicateAnnotation] = predicate
	return s.ingress(s.Stack.Name+SegmentSuffix, slices.Sorted(slices.Values(spec.Hosts)), spec, annotations)
}

// synced overlays annotations with what the StackSet says now about the keys that are synced.
func (s Source) synced(own, current map[string]string) map[string]string {
	out := map[string]string{}
	maps.Copy(out, own)
	for _, key := range s.SyncAnnotations {
		if value, found := current[key]; found {
			out[key] = value
		} else {
			delete(out, key)
		}
	}
	return out
}

func (s Source) ingress(name string, hosts []string, spec *zalando.StackSetIngressSpec, annotations map[string]string) *networkingv1.Ingress {
	if s.Forwarded() {
		if annotations == nil {
			annotations = map[string]string{}
		}
		annotations[BackendAnnotation] = forwardBackend
	}
	port := networkingv1.ServiceBackendPort{Number: spec.BackendPort.IntVal}
	if spec.BackendPort.Type == intstr.String {
		port = networkingv1.ServiceBackendPort{Name: spec.BackendPort.StrVal}
	}
	ingress := &networkingv1.Ingress{
		TypeMeta:   metav1.TypeMeta{APIVersion: "networking.k8s.io/v1", Kind: "Ingress"},
		ObjectMeta: s.meta(name, annotations),
	}
	for _, host := range hosts {
		anyPath := networkingv1.PathTypeImplementationSpecific
		ingress.Spec.Rules = append(ingress.Spec.Rules, networkingv1.IngressRule{
			Host: host,
			IngressRuleValue: networkingv1.IngressRuleValue{HTTP: &networkingv1.HTTPIngressRuleValue{Paths: []networkingv1.HTTPIngressPath{{
				Path: spec.Path, PathType: &anyPath,
				Backend: networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: s.Stack.Name, Port: port}},
			}}}},
		})
	}
	return ingress
}

// RouteGroup returns the RouteGroup of the Stack's own host names; nil if it has none.
func (s Source) RouteGroup() (*zalando.RouteGroup, error) {
	_, spec, _ := s.ways()
	if spec == nil {
		return nil, nil
	}
	hosts := s.Hosts(spec.Hosts)
	if len(hosts) == 0 {
		return nil, nil
	}
	return s.routeGroup(s.Stack.Name, hosts, spec, spec.Annotations)
}

// RouteGroupSegment returns the RouteGroup of the Stack's share of the traffic to all hosts; nil if there should be none.
func (s Source) RouteGroupSegment(segment traffic.Segment) (*zalando.RouteGroup, error) {
	_, spec, _ := s.ways()
	if spec == nil {
		return nil, nil
	}
	var current map[string]string
	if s.StackSet != nil && s.StackSet.Spec.RouteGroup != nil {
		current = s.StackSet.Spec.RouteGroup.Annotations
	}
	group, err := s.routeGroup(s.Stack.Name+SegmentSuffix, slices.Clone(spec.Hosts), spec, s.synced(spec.Annotations, current))
	if err != nil {
		return nil, err
	}
	for i := range group.Spec.Routes {
		group.Spec.Routes[i].Predicates = append(group.Spec.Routes[i].Predicates, segment.String())
	}
	return group, nil
}

func (s Source) routeGroup(name string, hosts []string, spec *zalando.StackSetRouteGroupSpec, annotations map[string]string) (*zalando.RouteGroup, error) {
	spec = spec.DeepCopy()
	for _, backend := range spec.AdditionalBackends {
		if backend.Name == s.Stack.Name {
			return nil, fmt.Errorf("invalid additionalBackend '%s', overlaps with Stack name", backend.Name)
		}
		if backend.ServiceName == s.Stack.Name {
			return nil, fmt.Errorf("invalid additionalBackend '%s', serviceName '%s' overlaps with Stack name", backend.Name, backend.ServiceName)
		}
	}
	backends := append([]zalando.RouteGroupBackend{{
		Name: s.Stack.Name, Type: zalando.ServiceBackend, ServiceName: s.Stack.Name, ServicePort: spec.BackendPort, Algorithm: spec.LBAlgorithm,
	}}, spec.AdditionalBackends...)
	slices.SortStableFunc(backends, func(a, b zalando.RouteGroupBackend) int { return cmp.Compare(a.Name, b.Name) })
	group := &zalando.RouteGroup{
		TypeMeta:   metav1.TypeMeta{APIVersion: zalando.SchemeGroupVersion.String(), Kind: zalando.RouteGroupKind},
		ObjectMeta: s.meta(name, annotations),
		Spec: zalando.RouteGroupSpec{
			Hosts: hosts, Backends: backends, Routes: spec.Routes,
			DefaultBackends: []zalando.RouteGroupBackendReference{{BackendName: s.Stack.Name, Weight: 100}},
		},
	}
	if s.Forwarded() { // all of it is answered there
		group.Spec.Backends = []zalando.RouteGroupBackend{{Name: forwardBackendName, Type: zalando.ForwardBackend}}
		group.Spec.DefaultBackends[0].BackendName = forwardBackendName
		for i := range group.Spec.Routes {
			group.Spec.Routes[i].Backends = nil
		}
	}
	return group, nil
}

// LiveIngress reads the segment that an Ingress has; found is false if it has none.
func LiveIngress(ingress *networkingv1.Ingress) (segment traffic.Segment, found bool, err error) {
	segment, found, err = traffic.Find(ingress.Annotations[PredicateAnnotation])
	if err != nil {
		return traffic.Segment{}, false, fmt.Errorf("ingress %s/%s: annotation %s: %w", ingress.Namespace, ingress.Name, PredicateAnnotation, err)
	}
	return segment, found, nil
}

// LiveRouteGroup reads the segment that a RouteGroup's routes have; found is false if there is none. Where routes disagree, as no
// controller writes them, it is what all of them have in common.
func LiveRouteGroup(group *zalando.RouteGroup) (segment traffic.Segment, found bool, err error) {
	segment = traffic.All
	for i, route := range group.Spec.Routes {
		one, has, err := traffic.Find(route.Predicates...)
		if err != nil {
			return traffic.Segment{}, false, fmt.Errorf("routegroup %s/%s: route %d: %w", group.Namespace, group.Name, i, err)
		}
		if has {
			segment, found = segment.Intersect(one), true
		}
	}
	if !found {
		return traffic.Segment{}, false, nil
	}
	return segment, true, nil
}
