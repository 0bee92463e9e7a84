package enginetest

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	"github.com/kubetide/kubetide/scaler/target"
)

// play takes one turn of the workload controllers, the kubelet, and the leader that sets the gate of new pods.
func (w *World) play() {
	sets := &appsv1.StatefulSetList{}
	w.Must(w.Client.List(w.Context(), sets))
	for i := range sets.Items {
		w.playStatefulSet(&sets.Items[i])
	}
	deployments := &appsv1.DeploymentList{}
	w.Must(w.Client.List(w.Context(), deployments))
	for i := range deployments.Items {
		w.playDeployment(&deployments.Items[i])
	}
	replicaSets := &appsv1.ReplicaSetList{}
	w.Must(w.Client.List(w.Context(), replicaSets))
	for i := range replicaSets.Items {
		w.playReplicaSet(&replicaSets.Items[i])
	}
	if w.Stuck {
		return
	}
	for _, p := range w.Pods() {
		w.kubelet(&p)
	}
}

func (w *World) owned(o client.Object) []corev1.Pod {
	return slices.DeleteFunc(w.Pods(), func(p corev1.Pod) bool { return !metav1.IsControlledBy(&p, o) })
}

func (w *World) newPod(name string, owner client.Object) {
	if w.Full {
		return
	}
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: owner.GetNamespace(), Name: name, Labels: Labels()}, Status: corev1.PodStatus{Phase: corev1.PodPending}}
	if s, ok := owner.(*appsv1.StatefulSet); ok && s.Status.UpdateRevision != "" {
		p.Labels[appsv1.ControllerRevisionHashLabelKey] = s.Status.UpdateRevision
	}
	if !w.Ungated {
		p.Spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: kapacity.OnlineConditionType}}
	}
	if !w.Pending {
		p.Spec.NodeName = "node"
	}
	w.Must(controllerutil.SetControllerReference(owner, p, w.Client.Scheme()))
	w.Must(w.Client.Create(w.Context(), p))
}

func ordinal(p *corev1.Pod) int {
	n, _ := target.Ordinal(p.Name)
	return int(n)
}

func (w *World) playStatefulSet(s *appsv1.StatefulSet) {
	pods := w.owned(s)
	slices.SortFunc(pods, func(a, b corev1.Pod) int { return cmp.Compare(ordinal(&a), ordinal(&b)) })
	parallel := s.Spec.PodManagementPolicy == appsv1.ParallelPodManagement
	replicas := int(ptr.Deref(s.Spec.Replicas, 1))
	there := map[int]*corev1.Pod{}
	var firstUnready *corev1.Pod
	for i := range pods {
		there[ordinal(&pods[i])] = &pods[i]
		if !Ready(&pods[i]) && firstUnready == nil {
			firstUnready = &pods[i]
		}
	}
	for n := range replicas {
		if p := there[n]; p == nil {
			w.newPod(fmt.Sprintf("%s-%d", s.Name, n), s)
			if !parallel {
				return
			}
		} else if !parallel && !Ready(p) {
			return
		}
	}
	for _, p := range slices.Backward(pods) {
		if ordinal(&p) < replicas {
			break
		}
		if !parallel && !Ready(&p) && p.Name != firstUnready.Name {
			return // the rule that leaves cut pods where they are
		}
		w.Must(w.Client.Delete(w.Context(), &p))
		if !parallel {
			return
		}
	}
}

func (w *World) playDeployment(d *appsv1.Deployment) {
	sets := &appsv1.ReplicaSetList{}
	w.Must(w.Client.List(w.Context(), sets))
	var own []appsv1.ReplicaSet
	for _, rs := range sets.Items {
		if metav1.IsControlledBy(&rs, d) {
			own = append(own, rs)
		}
	}
	switch len(own) {
	case 0:
		rs := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: d.Namespace, Name: d.Name + "-a", Labels: Labels()},
			Spec: appsv1.ReplicaSetSpec{Replicas: d.Spec.Replicas, Selector: d.Spec.Selector}}
		w.Must(controllerutil.SetControllerReference(d, rs, w.Client.Scheme()))
		w.Must(w.Client.Create(w.Context(), rs))
	case 1:
		if rs := own[0]; ptr.Deref(rs.Spec.Replicas, 1) != ptr.Deref(d.Spec.Replicas, 1) {
			rs.Spec.Replicas = d.Spec.Replicas
			w.Must(w.Client.Update(w.Context(), &rs))
		}
	}
}

// playReplicaSet removes unready pods first, then by deletion cost, then the newest: what kube-controller-manager looks at.
func (w *World) playReplicaSet(rs *appsv1.ReplicaSet) {
	pods := w.owned(rs)
	replicas := int(ptr.Deref(rs.Spec.Replicas, 1))
	for range replicas - len(pods) {
		w.serial++
		w.newPod(fmt.Sprintf("%s-%03d", rs.Name, w.serial), rs)
	}
	cost := func(p *corev1.Pod) int {
		n, _ := strconv.Atoi(p.Annotations[corev1.PodDeletionCost])
		return n
	}
	rank := func(b bool) int {
		if b {
			return 1
		}
		return 0
	}
	slices.SortFunc(pods, func(a, b corev1.Pod) int {
		return cmp.Or(rank(a.Spec.NodeName != "")-rank(b.Spec.NodeName != ""),
			rank(a.Status.Phase == corev1.PodRunning)-rank(b.Status.Phase == corev1.PodRunning),
			rank(Ready(&a))-rank(Ready(&b)), cmp.Compare(cost(&a), cost(&b)), cmp.Compare(b.Name, a.Name))
	})
	for i := range max(0, len(pods)-replicas) {
		w.Must(w.Client.Delete(w.Context(), &pods[i]))
	}
	if rs.Status.Replicas != int32(replicas) {
		rs.Status.Replicas = int32(replicas)
		w.Must(w.Client.Status().Update(w.Context(), rs))
	}
}

// kubelet starts the pod and computes Ready from its gates. It also sets the gate of a new pod, which is the gate leader's part.
func (w *World) kubelet(p *corev1.Pod) {
	changed := false
	if p.Spec.NodeName != "" && p.Status.Phase != corev1.PodRunning {
		p.Status.Phase, changed = corev1.PodRunning, true
	}
	set := func(kind corev1.PodConditionType, value corev1.ConditionStatus) {
		if status(p, kind) == value {
			return
		}
		changed = true
		p.Status.Conditions = slices.DeleteFunc(p.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == kind })
		p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: kind, Status: value, LastTransitionTime: metav1.NewTime(w.Clock.Now())})
	}
	ready := p.Status.Phase == corev1.PodRunning
	for _, g := range p.Spec.ReadinessGates {
		if status(p, g.ConditionType) == "" {
			set(g.ConditionType, corev1.ConditionTrue)
		}
		ready = ready && status(p, g.ConditionType) == corev1.ConditionTrue
	}
	if ready {
		set(corev1.PodReady, corev1.ConditionTrue)
	} else {
		set(corev1.PodReady, corev1.ConditionFalse)
	}
	if changed {
		w.Must(w.Client.Status().Update(w.Context(), p))
	}
}
