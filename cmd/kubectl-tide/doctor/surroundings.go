package doctor

import (
	"fmt"
	"math"
	"slices"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
)

// metricsGroup is an API group that HPAs read.
type metricsGroup struct {
	name string
	// services are the versions' APIServices; one of them is enough.
	services []string
	types    []autoscalingv2.MetricSourceType
	// ours tells that Kubetide serves it.
	ours bool
}

var metricsGroups = []metricsGroup{
	{"metrics.k8s.io", []string{"v1beta1.metrics.k8s.io"}, []autoscalingv2.MetricSourceType{autoscalingv2.ResourceMetricSourceType, autoscalingv2.ContainerResourceMetricSourceType}, false},
	{"custom.metrics.k8s.io", []string{"v1beta1.custom.metrics.k8s.io", "v1beta2.custom.metrics.k8s.io"}, []autoscalingv2.MetricSourceType{autoscalingv2.PodsMetricSourceType, autoscalingv2.ObjectMetricSourceType}, true},
	{"external.metrics.k8s.io", []string{"v1beta1.external.metrics.k8s.io"}, []autoscalingv2.MetricSourceType{autoscalingv2.ExternalMetricSourceType}, true},
}

// APIServices are the names of those that are looked at.
func APIServices() (names []string) {
	for _, g := range metricsGroups {
		names = append(names, g.services...)
	}
	return names
}

// metricsAPIs finds APIs of metrics that HPAs need and nobody serves, that do not answer, or that another adapter serves.
func metricsAPIs(c *cluster) (found []Finding) {
	for _, g := range metricsGroups {
		absent := 0
		for _, name := range g.services {
			service, read := c.APIServices[name]
			if !read {
				continue
			}
			if service == nil {
				absent++
				continue
			}
			o := Object{Kind: "APIService", Name: name}
			if condition := meta.FindStatusCondition(service.Status.Conditions, "Available"); condition == nil || condition.Status != metav1.ConditionTrue {
				why := "nobody has looked at it yet"
				if condition != nil {
					why = condition.Reason + ": " + condition.Message
				}
				found = append(found, Finding{Severity: Error, Object: o, Problem: "it is not available, " + why,
					Remedy: "look at the Service and the pods that it names; while they do not answer, HPAs have no metrics of " + g.name})
			}
			if g.ours && service.Labels["app.kubernetes.io/name"] != "kubetide" {
				found = append(found, Finding{Severity: Warning, Object: o, Problem: "somebody else than Kubetide serves it: its label app.kubernetes.io/name is not kubetide",
					Remedy: "take the other adapter away, or leave this group out of Kubetide's installation"})
			}
		}
		if users := c.users(g); absent == len(g.services) && len(users) > 0 {
			found = append(found, Finding{Severity: Error, Object: Object{Kind: "APIService", Name: g.services[0]},
				Problem: fmt.Sprintf("nobody serves %s, which %s needs", g.name, shortened(users)), Remedy: installed(g)})
		}
	}
	return found
}

func installed(g metricsGroup) string {
	if g.ours {
		return "install Kubetide with this group (metricsAPIs in the chart's values)"
	}
	return "install metrics-server"
}

// users are the HPAs with metrics of the group. IHPAs have theirs from Kubetide itself.
func (c *cluster) users(g metricsGroup) (names []string) {
	for i := range c.HPAs {
		o := &c.HPAs[i]
		if slices.ContainsFunc(o.Spec.Metrics, func(m autoscalingv2.MetricSpec) bool { return slices.Contains(g.types, m.Type) }) {
			names = append(names, Object{hpaKind, o.Namespace, o.Name}.String())
		}
	}
	return names
}

// disruptionBudgets finds budgets that let no pod go while a workload has its fewest.
func disruptionBudgets(c *cluster) (found []Finding) {
	for i := range c.autoscalers {
		a := &c.autoscalers[i]
		if a.target == nil {
			continue
		}
		fewest := max(int(a.min), 1)
		for j := range c.Budgets {
			b := &c.Budgets[j]
			if b.Namespace != a.Namespace || !matches(b.Spec.Selector, a.target) {
				continue
			}
			if rule, blocks := blocking(b.Spec, fewest); blocks {
				found = append(found, Finding{Severity: Warning, Object: Object{"PodDisruptionBudget", b.Namespace, b.Name},
					Problem: fmt.Sprintf("with %s no pod of %s may be evicted while it has %d, as %s allows: drains of nodes wait for ever", rule, a.targetObject(), fewest, a.String()),
					Remedy:  "use maxUnavailable: 1, or raise minReplicas"})
			}
		}
	}
	return found
}

// blocking tells whether the budget allows no disruption of so many pods, and by which rule. Both its fields round up.
func blocking(b policyv1.PodDisruptionBudgetSpec, pods int) (rule string, blocks bool) {
	name, value := "minAvailable", b.MinAvailable
	if b.MaxUnavailable != nil {
		name, value = "maxUnavailable", b.MaxUnavailable
	}
	if value == nil {
		return "", false
	}
	n, err := intstr.GetScaledValueFromIntOrPercent(value, pods, true)
	if b.MaxUnavailable == nil {
		n = pods - n
	}
	return name + " " + value.String(), err == nil && n <= 0
}

// quotas finds workloads that a ResourceQuota ends before maxReplicas does.
func quotas(c *cluster) (found []Finding) {
	for i := range c.autoscalers {
		a := &c.autoscalers[i]
		if a.target == nil || a.preview || a.max <= a.target.Status.Replicas {
			continue
		}
		pod := c.pod(a.target)
		for j := range c.Quotas {
			q := &c.Quotas[j]
			if q.Namespace != a.Namespace || len(q.Spec.Scopes) > 0 || q.Spec.ScopeSelector != nil { // whether a scope has these pods is not looked at
				continue
			}
			if fits, by := room(q, pod, a.target.Status.Replicas); fits < int64(a.max) {
				found = append(found, a.found(Warning, fmt.Sprintf("only %d of its maxReplicas %d fit into ResourceQuota %s, by its %s", fits, a.max, q.Name, by),
					fmt.Sprintf("raise the quota, or set maxReplicas to %d", fits)))
			}
		}
	}
	return found
}

// room is how many such pods fit into the quota beside all else that is there now, and which of its resources ends first.
func room(q *corev1.ResourceQuota, pod *corev1.Pod, current int32) (fits int64, by corev1.ResourceName) {
	fits = math.MaxInt64
	for _, counted := range []struct {
		name corev1.ResourceName
		each resource.Quantity
	}{
		{corev1.ResourcePods, resource.MustParse("1")},
		{corev1.ResourceRequestsCPU, requests(pod, corev1.ResourceCPU)}, {corev1.ResourceCPU, requests(pod, corev1.ResourceCPU)},
		{corev1.ResourceRequestsMemory, requests(pod, corev1.ResourceMemory)}, {corev1.ResourceMemory, requests(pod, corev1.ResourceMemory)},
	} {
		hard, limited := q.Status.Hard[counted.name]
		if !limited || counted.each.Sign() <= 0 {
			continue
		}
		left := hard.DeepCopy()
		left.Sub(q.Status.Used[counted.name])
		if n := int64(current) + max(left.MilliValue(), 0)/counted.each.MilliValue(); n < fits {
			fits, by = n, counted.name
		}
	}
	return fits, by
}

// requests is what a quota charges a pod with: the pod's own request, or that of its containers together or of what runs before them, and
// the overhead.
func requests(pod *corev1.Pod, name corev1.ResourceName) resource.Quantity {
	var together, before, most resource.Quantity
	for _, c := range pod.Spec.InitContainers {
		during := before.DeepCopy()
		during.Add(c.Resources.Requests[name])
		if ptr.Deref(c.RestartPolicy, "") == corev1.ContainerRestartPolicyAlways {
			before = during
		}
		if during.Cmp(most) > 0 {
			most = during
		}
	}
	together = before.DeepCopy()
	for _, c := range pod.Spec.Containers {
		together.Add(c.Resources.Requests[name])
	}
	if most.Cmp(together) > 0 {
		together = most
	}
	if r := pod.Spec.Resources; r != nil {
		if own, set := r.Requests[name]; set {
			together = own.DeepCopy()
		}
	}
	together.Add(pod.Spec.Overhead[name])
	return together
}
