package replicaprofile

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	"github.com/kubetide/kubetide/scaler/podstate"
	"github.com/kubetide/kubetide/scaler/target"
)

// each calls do with the pods of t that are meant and returns the names of those for which it succeeded, in their order. A
// pod that is gone meanwhile needs nothing more. do leaves the pod as the API server answered.
func (r *Reconciler) each(ctx context.Context, t *target.Target, pods []podstate.Pod, do func(context.Context, *corev1.Pod) error) ([]string, error) {
	index := make(map[string]int, len(t.Pods))
	for i := range t.Pods {
		index[string(t.Pods[i].UID)] = i
	}
	errs := make([]error, len(pods))
	gone := make([]bool, len(pods))
	var group errgroup.Group
	group.SetLimit(cmp.Or(r.Parallel, 8))
	for i, p := range pods {
		group.Go(func() error {
			pod := &t.Pods[index[p.UID]]
			err := do(ctx, pod)
			if apierrors.IsNotFound(err) {
				pod.DeletionTimestamp = &metav1.Time{Time: r.Clock.Now()}
				gone[i], err = true, nil
			}
			if err != nil {
				errs[i] = fmt.Errorf("%s/%s: %w", pod.Namespace, pod.Name, err)
			}
			return nil
		})
	}
	_ = group.Wait() // the errors are in errs
	var done []string
	for i, p := range pods {
		if errs[i] == nil && !gone[i] {
			done = append(done, p.Name)
		}
	}
	return done, firstErrors(errs)
}

// firstErrors keeps the message short: a thousand pods may fail for one reason.
func firstErrors(errs []error) error {
	var some []error
	n := 0
	for _, err := range errs {
		if err == nil {
			continue
		}
		if n++; n <= 3 {
			some = append(some, err)
		}
	}
	if n > len(some) {
		some = append(some, fmt.Errorf("and %d more", n-len(some)))
	}
	return errors.Join(some...)
}

// turnOn gives the pod its traffic back, then takes the marks away, so that a crash in between leaves it marked.
func (r *Reconciler) turnOn(ctx context.Context, pod *corev1.Pod) error {
	if hasGate(pod) {
		if err := r.setGate(ctx, pod, corev1.ConditionTrue, "Online", "the pod is Online"); err != nil {
			return err
		}
	}
	return r.mark(ctx, pod, "", nil)
}

// hold marks the pod, then takes its traffic away, so that a crash in between leaves it marked.
func (r *Reconciler) hold(state kapacity.PodState) func(context.Context, *corev1.Pod) error {
	return func(ctx context.Context, pod *corev1.Pod) error {
		if err := r.mark(ctx, pod, state, nil); err != nil {
			return err
		}
		return r.setGate(ctx, pod, corev1.ConditionFalse, string(state), "the pod is "+string(state))
	}
}

func (r *Reconciler) setCost(ctx context.Context, pod *corev1.Pod) error {
	return r.mark(ctx, pod, kapacity.PodState(podstate.FromPod(pod).State), new(fmt.Sprint(podstate.DeletionCost)))
}

func (r *Reconciler) clearCost(ctx context.Context, pod *corev1.Pod) error {
	return r.mark(ctx, pod, kapacity.PodState(podstate.FromPod(pod).State), nil)
}

func (r *Reconciler) delete(ctx context.Context, pod *corev1.Pod) error {
	err := r.Client.Delete(ctx, pod, client.Preconditions{UID: &pod.UID})
	if err == nil {
		pod.DeletionTimestamp = &metav1.Time{Time: r.Clock.Now()}
	}
	return err
}

// mark sets the state label (none for Online) and our deletion cost (none for nil) in one patch, if they differ. A cost that
// is not ours stays.
func (r *Reconciler) mark(ctx context.Context, pod *corev1.Pod, state kapacity.PodState, cost *string) error {
	labels, annotations := map[string]any{}, map[string]any{}
	current, labeled := pod.Labels[kapacity.PodStateLabel]
	switch held := state == kapacity.PodStateCutoff || state == kapacity.PodStateStandby; {
	case held && current != string(state):
		labels[kapacity.PodStateLabel] = state
	case !held && labeled:
		labels[kapacity.PodStateLabel] = nil
	}
	found, costed := pod.Annotations[corev1.PodDeletionCost]
	switch {
	case cost != nil && found != *cost:
		annotations[corev1.PodDeletionCost] = *cost
	case cost == nil && costed && found == fmt.Sprint(podstate.DeletionCost):
		annotations[corev1.PodDeletionCost] = nil
	}
	if len(labels) == 0 && len(annotations) == 0 {
		return nil
	}
	meta := map[string]any{"uid": pod.UID} // another pod of this name is a conflict
	if len(labels) > 0 {
		meta["labels"] = labels
	}
	if len(annotations) > 0 {
		meta["annotations"] = annotations
	}
	return r.patch(ctx, pod, types.MergePatchType, map[string]any{"metadata": meta}, r.Client.Patch)
}

func (r *Reconciler) setGate(ctx context.Context, pod *corev1.Pod, status corev1.ConditionStatus, reason, message string) error {
	for _, c := range pod.Status.Conditions {
		if c.Type == kapacity.OnlineConditionType && c.Status == status {
			return nil
		}
	}
	return r.patch(ctx, pod, types.StrategicMergePatchType, map[string]any{
		"metadata": map[string]any{"uid": pod.UID},
		"status": map[string]any{"conditions": []any{map[string]any{"type": kapacity.OnlineConditionType, "status": status,
			"reason": reason, "message": message, "lastTransitionTime": r.now()}}},
	}, func(ctx context.Context, o client.Object, p client.Patch, opts ...client.PatchOption) error {
		return r.Client.Status().Patch(ctx, o, p, subResource(opts)...)
	})
}

func subResource(opts []client.PatchOption) []client.SubResourcePatchOption {
	return []client.SubResourcePatchOption{&client.SubResourcePatchOptions{PatchOptions: *(&client.PatchOptions{}).ApplyOptions(opts)}}
}

func (r *Reconciler) patch(ctx context.Context, pod *corev1.Pod, kind types.PatchType, body any,
	send func(context.Context, client.Object, client.Patch, ...client.PatchOption) error) error {
	data, err := json.Marshal(body)
	if err != nil {
		return err
	}
	return send(ctx, pod, client.RawPatch(kind, data), client.FieldOwner(target.FieldManager))
}

func hasGate(pod *corev1.Pod) bool {
	for _, g := range pod.Spec.ReadinessGates {
		if g.ConditionType == kapacity.OnlineConditionType {
			return true
		}
	}
	return false
}
