package step

import (
	"maps"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"sigs.k8s.io/controller-runtime/pkg/client"

	kai "github.com/kubetide/kubetide/api/kai/v1alpha1"
	"github.com/kubetide/kubetide/workloads/drift"
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
		if drifted = !drift.Covers(&l.Spec, spec); drifted && !settled {
			l.Spec = *spec
		}
		inherit(&l.ObjectMeta, &w.ObjectMeta)
	case *corev1.Service:
		l := next.(*corev1.Service)
		if drifted = !drift.CoversService(&l.Spec, &w.Spec); drifted && !settled {
			l.Spec.Type, l.Spec.Selector, l.Spec.Ports, l.Spec.SessionAffinity = w.Spec.Type, w.Spec.Selector, w.Spec.Ports, ""
			l.Spec.ExternalName, l.Spec.PublishNotReadyAddresses = "", false
		}
		inherit(&l.ObjectMeta, &w.ObjectMeta)
	case *autoscalingv2.HorizontalPodAutoscaler:
		l := next.(*autoscalingv2.HorizontalPodAutoscaler)
		if drifted = !drift.Covers(&l.Spec, drift.StoredHPA(&w.Spec)); drifted && !settled {
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
