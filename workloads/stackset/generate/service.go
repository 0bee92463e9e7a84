package generate

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	zalando "github.com/kubetide/kubetide/api/zalando/v1"
)

// ways are the ways in to the Stack: its own, or where it has none the StackSet's.
func (s Source) ways() (*zalando.StackSetIngressSpec, *zalando.StackSetRouteGroupSpec, *zalando.StackSetExternalIngressSpec) {
	if own := s.Stack.Spec; own.Ingress != nil || own.RouteGroup != nil || own.ExternalIngress != nil {
		return own.Ingress, own.RouteGroup, own.ExternalIngress
	}
	if s.StackSet == nil {
		return nil, nil, nil
	}
	return s.StackSet.Spec.Ingress, s.StackSet.Spec.RouteGroup, s.StackSet.Spec.ExternalIngress
}

// HasIngress tells that there is a way in to the Stack.
func (s Source) HasIngress() bool {
	ingress, routeGroup, external := s.ways()
	return ingress != nil || routeGroup != nil || external != nil
}

// BackendPort returns the port for the traffic; nil if there is no way in. Ingress and RouteGroup must mean the same port; the name
// that an Ingress gives is looked up in the Service's ports.
func (s Source) BackendPort() (*intstr.IntOrString, error) {
	ingress, routeGroup, external := s.ways()
	switch {
	case ingress != nil && routeGroup != nil:
		number := ingress.BackendPort
		if number.Type == intstr.String {
			port, err := match(s.ports(nil), number)
			if err != nil {
				return nil, err
			}
			number = intstr.FromInt32(port.Port)
		}
		if number.IntValue() != routeGroup.BackendPort {
			return nil, fmt.Errorf("backendPort for Ingress and RouteGroup does not match %s!=%d", &ingress.BackendPort, routeGroup.BackendPort)
		}
		return &number, nil
	case ingress != nil:
		port := ingress.BackendPort
		return &port, nil
	case routeGroup != nil:
		port := intstr.FromInt32(int32(routeGroup.BackendPort))
		return &port, nil
	case external != nil:
		port := external.BackendPort
		return &port, nil
	}
	return nil, nil
}

// Service returns the Service. One that lives keeps the names of ports that were generated for it.
func (s Source) Service(live *corev1.Service) (*corev1.Service, error) {
	backend, err := s.BackendPort()
	if err != nil {
		return nil, err
	}
	ports := s.ports(live)
	if backend != nil {
		if _, err := match(ports, *backend); err != nil {
			return nil, err
		}
	}
	var annotations map[string]string
	if spec := s.Stack.Spec.Service; spec != nil {
		annotations = spec.Annotations
	}
	return &corev1.Service{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Service"},
		ObjectMeta: s.meta(s.Stack.Name, annotations),
		Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, Selector: s.Selector(), Ports: ports},
	}, nil
}

// match finds the port that a backendPort means: a number is a port's number, a text its name, whatever the text looks like.
func match(ports []corev1.ServicePort, backend intstr.IntOrString) (corev1.ServicePort, error) {
	for _, port := range ports {
		if backend.Type == intstr.Int && port.Port == backend.IntVal || backend.Type == intstr.String && port.Name == backend.StrVal {
			return port, nil
		}
	}
	return corev1.ServicePort{}, fmt.Errorf("no service ports matching backendPort '%s'", &backend)
}

// ports are those given, or one for each port of the containers.
func (s Source) ports(live *corev1.Service) []corev1.ServicePort {
	spec := s.Stack.Spec.DeepCopy()
	if spec.Service != nil && len(spec.Service.Ports) > 0 {
		return spec.Service.Ports
	}
	var ports []corev1.ServicePort
	n := 0
	for _, container := range spec.PodTemplate.Spec.Containers {
		for _, c := range container.Ports {
			port := corev1.ServicePort{Name: c.Name, Protocol: c.Protocol, Port: c.ContainerPort, TargetPort: intstr.FromInt32(c.ContainerPort)}
			if port.Protocol == "" {
				port.Protocol = corev1.ProtocolTCP
			}
			if port.Name == "" {
				port.Name = kept(live, port)
			}
			if port.Name == "" {
				port.Name = fmt.Sprintf("port-%d", n)
			}
			n++
			ports = append(ports, port)
		}
	}
	return ports
}

func kept(live *corev1.Service, port corev1.ServicePort) string {
	if live != nil {
		for _, p := range live.Spec.Ports {
			if p.Port == port.Port && p.Protocol == port.Protocol {
				return p.Name
			}
		}
	}
	return ""
}
