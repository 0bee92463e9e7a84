package horizontalportrait

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	"github.com/kubetide/kubetide/scaler/event"
	"github.com/kubetide/kubetide/scaler/target"
)

// maxOwners bounds how many owners of foreign pods are looked at.
const maxOwners = 8

// shared names the other workloads that have pods among those that t's selector matches. Which pods t has is known by their owners, so
// none of the others is ever cut or deleted; but as with a HorizontalPodAutoscaler their numbers count. It costs nothing where there
// are none, since these pods are listed in any case.
func (r *Reconciler) shared(ctx context.Context, t *target.Target, selected []corev1.Pod) string {
	if len(selected) <= len(t.Pods) { // all of them are its own
		return ""
	}
	own := make(map[types.UID]bool, len(t.Pods))
	for i := range t.Pods {
		own[t.Pods[i].UID] = true
	}
	seen := map[types.UID]bool{}
	var names []string
	for i := range selected {
		pod := &selected[i]
		owner := metav1.GetControllerOfNoCopy(pod)
		if own[pod.UID] || owner == nil || seen[owner.UID] || pod.DeletionTimestamp != nil ||
			pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
			continue
		}
		seen[owner.UID] = true
		if name := r.workload(ctx, t, pod.Namespace, owner); name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
		if len(seen) == maxOwners {
			break
		}
	}
	if len(names) == 0 {
		return ""
	}
	slices.Sort(names)
	if n := len(names); n > 3 {
		names = append(names[:3], "and others")
	}
	return fmt.Sprintf("the selector of %s matches pods of %s as well, and their numbers count, as with a HorizontalPodAutoscaler: give the two selectors different labels, or set kubeHPA.podSelection: %s",
		t.Name(), strings.Join(names, ", "), kapacity.OwnerPodSelection)
}

// workload is what the owner of a pod belongs to; empty if that is t, or cannot be told yet.
func (r *Reconciler) workload(ctx context.Context, t *target.Target, namespace string, owner *metav1.OwnerReference) string {
	if owner.UID == t.Object.GetUID() {
		return ""
	}
	if owner.Kind != "ReplicaSet" || !strings.HasPrefix(owner.APIVersion, appsv1.GroupName+"/") {
		return owner.Kind + " " + owner.Name
	}
	rs := &appsv1.ReplicaSet{}
	if r.Client.Get(ctx, types.NamespacedName{Namespace: namespace, Name: owner.Name}, rs, client.UnsafeDisableDeepCopy, client.DisableReadYourWritesConsistency) != nil || rs.UID != owner.UID {
		return "" // a new one of t, perhaps
	}
	above := metav1.GetControllerOfNoCopy(rs)
	switch {
	case above == nil:
		return owner.Kind + " " + owner.Name
	case above.UID == t.Object.GetUID():
		return ""
	}
	return above.Kind + " " + above.Name
}

// setShared keeps the condition while there is something to say, and returns what is new.
func (r *Reconciler) setShared(hp *kapacity.HorizontalPortrait, o outcome) (told string) {
	old := meta.FindStatusCondition(hp.Status.Conditions, kapacity.ConditionSelectorShared)
	switch {
	case o.data == nil: // nobody has looked
		return ""
	case o.shared == "":
		if old != nil {
			meta.RemoveStatusCondition(&hp.Status.Conditions, kapacity.ConditionSelectorShared)
		}
		return ""
	}
	message := event.Bounded(o.shared)
	if old == nil || old.Message != message {
		told = message
	}
	meta.SetStatusCondition(&hp.Status.Conditions, metav1.Condition{Type: kapacity.ConditionSelectorShared, Status: metav1.ConditionTrue, Reason: kapacity.ReasonPodsOfOthers,
		Message: message, ObservedGeneration: hp.Generation, LastTransitionTime: metav1.NewTime(r.Clock.Now().Truncate(time.Second))})
	return told
}
