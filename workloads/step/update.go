package step

import (
	"maps"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"sigs.k8s.io/controller-runtime/pkg/client"

	kai "github.com/kubetide/kubetide/api/kai/v1alpha1"
)

// update returns what the live object has to become, and whether its spec differs from what is wanted. The spec is returned as it is where it is right, defaults included, or where it is settled.
func update(live, want client.Object, settled bool) (next client.Object, drifted bool) {
	next = live.DeepCopyObject().(client.Object)
	switch w := want.(type) {
	case *appsv1.Deployment:
		l := next.(*appsv1.Deployment)
		template := w.Spec.Template.DeepCopy()
		if l.Spec.Selector != nil {
			maps.Copy(template.Labels, l.Spec.Selector.MatchLabels)
		}
		inheritTemplate(l, template)
		metadata := l.Spec.Template.ObjectMeta
		spec := w.Spec.DeepCopy()
		spec.Template.ObjectMeta = metadata
		keep(spec, &l.Spec)
		if drifted = !covers(&l.Spec, spec); drifted && !settled {
			l.Spec = *spec
		}
		inherit(&l.ObjectMeta, &w.ObjectMeta)
	case *corev1.Service:
		l := next.(*corev1.Service)
		if drifted = !serviceCovers(&l.Spec, &w.Spec); drifted && !settled {
			l.Spec.Type, l.Spec.Selector, l.Spec.Ports, l.Spec.SessionAffinity = w.Spec.Type, w.Spec.Selector, w.Spec.Ports, ""
			l.Spec.ExternalName, l.Spec.PublishNotReadyAddresses = "", false
		}
		inherit(&l.ObjectMeta, &w.ObjectMeta)
	case *autoscalingv2.HorizontalPodAutoscaler:
		l := next.(*autoscalingv2.HorizontalPodAutoscaler)
		if drifted = !covers(&l.Spec, stored(&w.Spec)); drifted && !settled {
			l.Spec = *w.Spec.DeepCopy()
		}
		inherit(&l.ObjectMeta, &w.ObjectMeta)
	case *kai.Step:
		l := next.(*kai.Step)
		if drifted = !equality.Semantic.DeepEqual(l.Spec, w.Spec); drifted && !settled {
			w.Spec.DeepCopyInto(&l.Spec)
		}
		inherit(&l.ObjectMeta, &w.ObjectMeta)
	}
	return next, drifted
}

// keep leaves to a Deployment what is not its Step's. The HPA owns the replicas, and who paused a rollout ends the pause. A selector
// cannot change: that of a Deployment which an earlier Step of the name has left holds the UID of that one.
func keep(spec, live *appsv1.DeploymentSpec) {
	spec.Replicas, spec.Paused = live.Replicas, live.Paused
	if live.Selector != nil {
		spec.Selector = live.Selector.DeepCopy()
	}
}

// serviceCovers looks at what a Step decides of its Service; addresses and families are the cluster's.
func serviceCovers(live, want *corev1.ServiceSpec) bool {
	decided := func(s *corev1.ServiceSpec) *corev1.ServiceSpec {
		out := &corev1.ServiceSpec{Type: s.Type, Selector: s.Selector, Ports: s.Ports, ExternalName: s.ExternalName, PublishNotReadyAddresses: s.PublishNotReadyAddresses}
		if s.SessionAffinity != corev1.ServiceAffinityNone {
			out.SessionAffinity = s.SessionAffinity
		}
		return out
	}
	if live.PublishNotReadyAddresses || live.ExternalName != "" || len(live.Selector) != len(want.Selector) {
		return false
	}
	return covers(withTargets(decided(live)), withTargets(decided(want)))
}

// withTargets says what is meant where nothing is said.
func withTargets(s *corev1.ServiceSpec) *corev1.ServiceSpec {
	ports := make([]corev1.ServicePort, len(s.Ports))
	for i, p := range s.Ports {
		if p.TargetPort.IntVal == 0 && p.TargetPort.StrVal == "" {
			p.TargetPort.IntVal = p.Port
		}
		ports[i] = p
	}
	s.Ports = ports
	return s
}
