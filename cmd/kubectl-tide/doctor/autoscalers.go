package doctor

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	"github.com/kubetide/kubetide/portraits/reactive"
)

// conditions says what the autoscalers say themselves.
func conditions(c *cluster) (found []Finding) {
	for i := range c.autoscalers {
		a := &c.autoscalers[i]
		for _, condition := range a.conditions {
			if severity, remedy := a.judge(condition); severity != "" {
				found = append(found, a.found(severity, fmt.Sprintf("%s is %s, %s: %s", condition.Type, condition.Status, condition.Reason, condition.Message), remedy))
			}
		}
	}
	return found
}

// judge returns how bad the condition is, empty if it is not, and what to do about it.
func (a *autoscaler) judge(c metav1.Condition) (severity Severity, remedy string) {
	ask := fmt.Sprintf("kubectl describe hpa %s -n %s shows its Events", a.Name, a.Namespace)
	if a.Kind == kapacity.IHPAKind {
		ask = fmt.Sprintf("kubectl tide explain ihpa/%s -n %s says how it came to that", a.Name, a.Namespace)
	}
	switch isTrue, isFalse := c.Status == metav1.ConditionTrue, c.Status == metav1.ConditionFalse; {
	case isFalse && c.Reason == "ScalingDisabled": // the HPA's, at 0 replicas
		return Warning, "scale the target to 1 or more: from then on it is scaled again"
	case isFalse && c.Reason == kapacity.ReasonScalingPaused:
		return Warning, "take spec.paused away when the pause is over"
	case isFalse && (c.Type == string(autoscalingv2.AbleToScale) || c.Type == kapacity.ConditionScalingActive || c.Type == kapacity.ConditionPortraitsHealthy):
		return Error, ask
	case isTrue && c.Type == kapacity.ConditionGrayStalled:
		return Error, ask
	case isFalse && c.Type == kapacity.ConditionStable:
		return Warning, ask
	case isTrue && c.Type == kapacity.ConditionConflict && c.Reason != kapacity.ReasonAnotherAutoscaler: // that one ScalingActive tells
		return Warning, ask
	case isTrue && c.Type == kapacity.ConditionScalingLimited && c.Reason == kapacity.ReasonTooManyReplicas && a.min != a.max:
		return Warning, fmt.Sprintf("raise maxReplicas above %d if the demand is real", a.max)
	}
	return "", ""
}

// missingRequests finds targets in percent of requests that pods do not have.
func missingRequests(c *cluster) (found []Finding) {
	for i := range c.autoscalers {
		a := &c.autoscalers[i]
		if a.target == nil {
			continue
		}
		for _, m := range a.metrics {
			if p := reactive.PodsFor(m.MetricSpec, []*corev1.Pod{c.pod(a.target)})[0]; p.RequestError != "" {
				found = append(found, a.found(Error, fmt.Sprintf("it cannot compute the utilization: %s", p.RequestError),
					fmt.Sprintf("set resources.requests in the pod template of %s, or use a ContainerResource metric of a container that has them", a.targetObject())))
			}
		}
	}
	return found
}

// unreachableTargets finds targets in percent of requests that limits keep usage from exceeding by more than the tolerance.
func unreachableTargets(c *cluster) (found []Finding) {
	for i := range c.autoscalers {
		a := &c.autoscalers[i]
		if a.target == nil || a.min == a.max {
			continue
		}
		pod := c.pod(a.target)
		for _, m := range a.metrics {
			resource, target := utilization(m.MetricSpec)
			all := reactive.PodsFor(m.MetricSpec, []*corev1.Pod{pod, limited(pod, resource)})
			request, limit := all[0], all[1]
			if target == nil || request.RequestError != "" || limit.RequestError != "" || request.RequestMilli <= 0 {
				continue
			}
			most := limit.RequestMilli * 100 / request.RequestMilli
			begin := float64(*target) * (1 + m.upTolerance)
			if float64(most) > begin {
				continue
			}
			found = append(found, a.found(Warning,
				fmt.Sprintf("its target of %d %% never adds a pod: usage ends at the limits, %d %% of the requests, and pods are added above %.4g %%", *target, most, begin),
				fmt.Sprintf("set averageUtilization to %.0f at most, or raise the limits", math.Ceil(float64(most)/(1+m.upTolerance))-1)))
		}
	}
	return found
}

// utilization is the metric's resource, and its target in percent of the requests; nil if it has another one.
func utilization(m autoscalingv2.MetricSpec) (corev1.ResourceName, *int32) {
	switch {
	case m.Resource != nil:
		return m.Resource.Name, m.Resource.Target.AverageUtilization
	case m.ContainerResource != nil:
		return m.ContainerResource.Name, m.ContainerResource.Target.AverageUtilization
	}
	return "", nil
}

// limited is the pod with its limits as requests.
func limited(pod *corev1.Pod, resource corev1.ResourceName) *corev1.Pod {
	pod = pod.DeepCopy()
	for _, containers := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range containers {
			containers[i].Resources.Requests = containers[i].Resources.Limits
		}
	}
	if r := pod.Spec.Resources; r != nil {
		r.Requests = r.Limits
		if _, set := r.Limits[resource]; !set { // then its containers' limits count
			pod.Spec.Resources = nil
		}
	}
	return pod
}

// twoAutoscalers finds targets of several.
func twoAutoscalers(c *cluster) (found []Finding) {
	type key struct{ group, kind, namespace, name string }
	of := map[key][]string{}
	for i := range c.autoscalers {
		a := &c.autoscalers[i]
		if a.preview {
			continue
		}
		k := key{a.kind().Group, a.ref.Kind, a.Namespace, a.ref.Name}
		of[k] = append(of[k], a.String())
	}
	for k, names := range of {
		if len(names) > 1 {
			slices.Sort(names)
			found = append(found, Finding{Severity: Error, Object: Object{k.kind, k.namespace, k.name},
				Problem: strings.Join(names, " and ") + " scale it, each for itself", Remedy: "delete all but one, and put their metrics together in that one"})
		}
	}
	return found
}

// sharedSelectors finds autoscaled workloads whose selectors match the pods of others: an HPA counts these as well.
func sharedSelectors(c *cluster) (found []Finding) {
	for i := range c.autoscalers {
		a := &c.autoscalers[i]
		if a.target == nil || !a.bySelector {
			continue
		}
		var others []string
		for j := range c.Workloads {
			o := &c.Workloads[j]
			if o.Namespace == a.Namespace && o.object() != a.target.object() && !owns(a.target, o) && !owns(o, a.target) && matches(a.target.Spec.Selector, o) {
				others = append(others, o.object().String())
			}
		}
		if len(others) > 0 {
			slices.Sort(others)
			found = append(found, a.found(Error, fmt.Sprintf("the selector of %s matches the pods of %s as well, and it counts them", a.targetObject(), shortened(others)),
				"give the pods of each workload a label of their own, and select by it; a selector cannot be changed, only made anew with its workload"))
		}
	}
	return found
}

func owns(owner, o *Workload) bool {
	return slices.ContainsFunc(o.OwnerReferences, func(r metav1.OwnerReference) bool { return r.UID == owner.UID })
}

// shortened names three at most.
func shortened(names []string) string {
	if n := len(names); n > 3 {
		names = append(slices.Clone(names[:3]), fmt.Sprintf("%d more", n-3))
	}
	return strings.Join(names, ", ")
}

// appliedReplicas finds targets whose replicas somebody else applies, too.
func appliedReplicas(c *cluster) (found []Finding) {
	for i := range c.autoscalers {
		a := &c.autoscalers[i]
		if a.target == nil || a.preview {
			continue
		}
		if who := applier(a.target); who != "" {
			found = append(found, Finding{Severity: Warning, Object: a.target.object(),
				Problem: fmt.Sprintf("%s writes spec.replicas, which %s scales: each time it does, scaling begins again from there", who, a.String()),
				Remedy:  "remove spec.replicas from the manifest that it applies"})
		}
	}
	return found
}

// applier is who sets spec.replicas with what it applies; empty if nobody is known to.
//
// Server-side apply tells. So does the annotation of a client-side one. Of other writers it is known only that they wrote the number last,
// and that one replica may be the API server's default.
func applier(w *Workload) string {
	last, annotated := w.Annotations[corev1.LastAppliedConfigAnnotation]
	if annotated && replicasIn([]byte(last), "spec", "replicas") {
		return "a client-side apply"
	}
	for _, e := range w.ManagedFields {
		if e.Subresource != "" || e.FieldsV1 == nil || !replicasIn(e.FieldsV1.GetRawBytes(), "f:spec", "f:replicas") {
			continue
		}
		switch {
		case e.Manager == "kubetide" || e.Manager == "kube-controller-manager":
		case e.Operation == metav1.ManagedFieldsOperationApply,
			!annotated && ptr.Deref(w.Spec.Replicas, 1) != 1 && !strings.HasPrefix(e.Manager, "kubectl"): // a person's edit is no fight
			return fmt.Sprintf("%q", e.Manager)
		}
	}
	return ""
}

func replicasIn(text []byte, spec, replicas string) bool {
	var o map[string]json.RawMessage
	var fields map[string]json.RawMessage
	if json.Unmarshal(text, &o) != nil || json.Unmarshal(o[spec], &fields) != nil {
		return false
	}
	_, found := fields[replicas]
	return found
}

// fixedBounds finds autoscalers that have no choice.
func fixedBounds(c *cluster) (found []Finding) {
	for i := range c.autoscalers {
		if a := &c.autoscalers[i]; a.min == a.max {
			found = append(found, a.found(Warning, fmt.Sprintf("minReplicas and maxReplicas are both %d: it never scales", a.min),
				"set them apart, or delete it"))
		}
	}
	return found
}
