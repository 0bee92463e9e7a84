package reactive

import (
	"fmt"
	"strings"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Pod is what the algorithm looks at in a pod.
type Pod struct {
	Name  string
	Phase corev1.PodPhase
	// Deleting is set once the pod was asked to end.
	Deleting bool
	// Ready is the condition of that name, empty where there is none; ReadySince its last transition.
	Ready      corev1.ConditionStatus
	ReadySince time.Time
	// Started is zero before the kubelet saw the pod.
	Started time.Time
	// RequestMilli is the request for the metric's resource, in thousandths; RequestError says why there is none. Both matter for
	// Utilization targets only.
	RequestMilli int64
	RequestError string
}

// PodsFor takes from the pods what the metric's proposal depends on.
func PodsFor(metric autoscalingv2.MetricSpec, pods []*corev1.Pod) []Pod {
	g, err := goalOf(metric)
	slim := make([]Pod, len(pods))
	for i, pod := range pods {
		p := Pod{Name: pod.Name, Phase: pod.Status.Phase, Deleting: pod.DeletionTimestamp != nil}
		if pod.Status.StartTime != nil {
			p.Started = pod.Status.StartTime.Time
		}
		for j := range pod.Status.Conditions {
			if c := &pod.Status.Conditions[j]; c.Type == corev1.PodReady {
				p.Ready, p.ReadySince = c.Status, c.LastTransitionTime.Time
				if p.Ready == "" {
					p.Ready = corev1.ConditionUnknown
				}
				break
			}
		}
		if err == nil && g.kind == utilization {
			if p.RequestMilli, err = requestOf(pod, g.resource, g.container); err != nil {
				p.RequestError, err = err.Error(), nil
			}
		}
		slim[i] = p
	}
	return slim
}

// unknown says that nobody can tell how the pod is: its node was lost.
func (p *Pod) unknown() bool {
	return !p.Deleting && (p.Phase == corev1.PodUnknown || p.Ready == corev1.ConditionUnknown)
}

type class int

const (
	isReady class = iota
	isUnready
	isMissing
	isIgnored
)

// sort says how the pod counts. Readiness matters for cpu only, which a starting pod uses for other things than demand.
func (in *Inputs) sort(p *Pod, sample Sample, sampled, cpu bool) class {
	switch {
	case p.Deleting || p.Phase == corev1.PodFailed:
		return isIgnored
	case p.Phase == corev1.PodPending:
		return isUnready
	case !sampled:
		return isMissing
	case !cpu:
		return isReady
	}
	var unready bool
	switch notReady := p.Ready == corev1.ConditionFalse; {
	case p.Ready == "" || p.Started.IsZero():
		unready = true
	case p.Started.Add(in.CPUInitializationPeriod).After(in.Now):
		// A sample that began before the pod became ready shows its start.
		unready = notReady || sample.Time.Before(p.ReadySince.Add(sample.Window))
	default:
		// A pod that was ready once and is not any more may well be overloaded: it counts.
		unready = notReady && p.Started.Add(in.InitialReadinessDelay).After(p.ReadySince)
	}
	if unready {
		return isUnready
	}
	return isReady
}

// requestOf is the pod's request, or its container's, in thousandths. The pod's own request (KEP-2837) precedes those of its containers.
func requestOf(pod *corev1.Pod, name corev1.ResourceName, container string) (int64, error) {
	if container == "" && hasPodRequests(pod) {
		request, found := podRequest(pod, name)
		if !found {
			return 0, fmt.Errorf("missing pod-level request for %s in Pod %s", name, pod.Name)
		}
		return request.MilliValue(), nil
	}
	sum := int64(0)
	for c := range lasting(pod) {
		if container != "" && container != c.Name {
			continue
		}
		request, found := c.Resources.Requests[name]
		if !found {
			return 0, fmt.Errorf("missing request for %s in container %s of Pod %s", name, c.Name, pod.Name)
		}
		if sum += request.MilliValue(); container != "" {
			return sum, nil
		}
	}
	if container != "" {
		return 0, fmt.Errorf("container %s not found in Pod %s", container, pod.Name)
	}
	return sum, nil
}

// lasting yields the containers that run as long as the pod: its own, and the init containers that restart.
func lasting(pod *corev1.Pod) func(yield func(*corev1.Container) bool) {
	return func(yield func(*corev1.Container) bool) {
		for i := range pod.Spec.Containers {
			if !yield(&pod.Spec.Containers[i]) {
				return
			}
		}
		for i := range pod.Spec.InitContainers {
			if c := &pod.Spec.InitContainers[i]; restarts(c) && !yield(c) {
				return
			}
		}
	}
}

func restarts(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

// ofPods says whether a pod may request the resource for itself.
func ofPods(name corev1.ResourceName) bool {
	return name == corev1.ResourceCPU || name == corev1.ResourceMemory || strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix)
}

func hasPodRequests(pod *corev1.Pod) bool {
	if pod.Spec.Resources == nil {
		return false
	}
	for name := range pod.Spec.Resources.Requests {
		if ofPods(name) {
			return true
		}
	}
	return false
}

// podRequest is what the scheduler reserves for a pod: its own request or, where it has none for this resource, that of its
// containers together or of the largest init container with those that restart before it; and the overhead.
func podRequest(pod *corev1.Pod, name corev1.ResourceName) (total resource.Quantity, found bool) {
	if own, has := pod.Spec.Resources.Requests[name]; has && ofPods(name) {
		total, found = own.DeepCopy(), true
	} else {
		for c := range lasting(pod) {
			if request, has := c.Resources.Requests[name]; has {
				total.Add(request)
				found = true
			}
		}
		var restarting resource.Quantity // the sum so far
		some := false
		for i := range pod.Spec.InitContainers {
			c := &pod.Spec.InitContainers[i]
			request, has := c.Resources.Requests[name]
			during := restarting.DeepCopy()
			during.Add(request)
			if restarts(c) {
				restarting, some = during, some || has
			}
			if (has || some) && (!found || during.Cmp(total) > 0) {
				total, found = during.DeepCopy(), true
			}
		}
	}
	if overhead, has := pod.Spec.Overhead[name]; has {
		total.Add(overhead)
		found = true
	}
	return total, found
}
