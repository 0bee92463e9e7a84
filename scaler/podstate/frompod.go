package podstate

import (
	"math"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
)

// FromPod reads what matters of a pod. Whatever cannot be read counts as Kubernetes counts it: a bad deletion cost is 0.
func FromPod(pod *corev1.Pod) Pod {
	p := Pod{Name: pod.Name, UID: string(pod.UID), State: Online, Node: pod.Spec.NodeName, Phase: string(pod.Status.Phase),
		Ordinal: ordinal(pod.Name), Created: pod.CreationTimestamp.Time, Terminating: pod.DeletionTimestamp != nil}
	p.Gone = p.Terminating || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
	if s := State(pod.Labels[kapacity.PodStateLabel]); s == Cutoff || s == Standby {
		p.State = s
	}
	if slices.ContainsFunc(pod.Spec.ReadinessGates, func(g corev1.PodReadinessGate) bool { return g.ConditionType == kapacity.OnlineConditionType }) {
		p.Gate = GateUnset
	}
	for _, c := range pod.Status.Conditions {
		switch {
		case c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue:
			p.Ready, p.ReadySince = true, c.LastTransitionTime.Time
		case c.Type == kapacity.OnlineConditionType && p.Gate != GateMissing:
			if p.Gate = GateOff; c.Status == corev1.ConditionTrue {
				p.Gate = GateOn
			}
		}
	}
	if owner := metav1.GetControllerOfNoCopy(pod); owner != nil {
		p.Owner = string(owner.UID)
	}
	for _, c := range pod.Status.ContainerStatuses {
		p.Restarts = max(p.Restarts, c.RestartCount)
	}
	if cost, err := strconv.ParseInt(pod.Annotations[corev1.PodDeletionCost], 10, 32); err == nil {
		p.DeletionCost = int32(cost)
	}
	return p
}

// ordinal is the number after the last dash, -1 if there is none.
func ordinal(name string) int32 {
	i := strings.LastIndexByte(name, '-')
	n, err := strconv.ParseInt(name[i+1:], 10, 32)
	if i < 0 || err != nil || n < 0 || n > math.MaxInt32 {
		return -1
	}
	return int32(n)
}
