// Package replicaprofile makes ReplicaProfiles come true: it moves pods between Online, Cutoff and Standby by label and
// readiness gate, and writes the workload's /scale. What to do is decided by scaler/podstate; this package reads, carries
// out and reports. It writes pods, /scale and the profile's status and finalizer, nothing else.
package replicaprofile

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	"github.com/kubetide/kubetide/scaler/event"
	"github.com/kubetide/kubetide/scaler/podstate"
	"github.com/kubetide/kubetide/scaler/target"
)

// Reasons of the condition Applied beside Kapacity's.
const (
	// ReasonWorkloadUpdating: cut pods are restored and the profile waits while the workload replaces its pods.
	ReasonWorkloadUpdating = "WorkloadUpdating"
	// ReasonReadinessGateMissing: pods to cut have no readiness gate in their spec, so they keep their traffic.
	ReasonReadinessGateMissing = "ReadinessGateMissing"
)

// conflictRetry is how soon a decision on an old picture is taken again, if no event comes before.
const conflictRetry = 100 * time.Millisecond

// Reconciler carries out ReplicaProfiles. Its client should be one of target.NewClient.
type Reconciler struct {
	Client client.Client
	// Live reads past the cache, to find out who wrote /scale; nil leaves that unsaid.
	Live     client.Reader
	Recorder record.EventRecorder
	Clock    clock.PassiveClock
	// Parallel is how many pods are written at once; 0 means 8.
	Parallel int

	pace pace
}

// Reconcile brings one profile's pods and /scale to what its spec says.
func (r *Reconciler) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	rp := &kapacity.ReplicaProfile{}
	if err := r.Client.Get(ctx, req.NamespacedName, rp); err != nil {
		if apierrors.IsNotFound(err) {
			r.pace.forget(req.NamespacedName)
		}
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	result, err := r.reconcile(ctx, rp)
	if apierrors.IsConflict(err) {
		log.FromContext(ctx).V(1).Info("decided on an old picture, looking again", "cause", err.Error())
		return reconcile.Result{RequeueAfter: conflictRetry}, nil
	}
	return result, err
}

func (r *Reconciler) reconcile(ctx context.Context, rp *kapacity.ReplicaProfile) (reconcile.Result, error) {
	if !rp.DeletionTimestamp.IsZero() {
		return reconcile.Result{}, r.release(ctx, rp)
	}
	if !controllerutil.ContainsFinalizer(rp, kapacity.Finalizer) {
		before := rp.DeepCopy()
		controllerutil.AddFinalizer(rp, kapacity.Finalizer)
		if err := r.patchFinalizers(ctx, before, rp); err != nil {
			return reconcile.Result{}, fmt.Errorf("ReplicaProfile %s/%s: add finalizer: %w", rp.Namespace, rp.Name, err)
		}
	}
	before := rp.DeepCopy()
	out := r.apply(ctx, rp)
	if apierrors.IsConflict(out.err) {
		return reconcile.Result{}, out.err // nothing is wrong with the profile
	}
	r.setConditions(rp, out)
	if !equality.Semantic.DeepEqual(before.Status, rp.Status) {
		err := target.Patch(ctx, r.Live, before, rp, func(o client.Object, p client.Patch) error {
			return r.Client.Status().Patch(ctx, o, p, client.FieldOwner(target.FieldManager))
		}, func(before, is *kapacity.ReplicaProfile) bool {
			return before.Generation == is.Generation && equality.Semantic.DeepEqual(before.Status, is.Status)
		})
		if err != nil {
			return reconcile.Result{}, errors.Join(out.err, fmt.Errorf("ReplicaProfile %s/%s: write status: %w", rp.Namespace, rp.Name, err))
		}
		r.warn(rp, before.Status.Conditions)
	}
	if out.quiet {
		return reconcile.Result{}, nil
	}
	return reconcile.Result{RequeueAfter: out.after}, out.err
}

// outcome is what became of one attempt.
type outcome struct {
	// reason and message are those of Applied; err is set if an operation failed and has to be tried again. quiet errors
	// are not: an event will tell when there is something to try.
	applied         bool
	reason, message string
	err             error
	quiet           bool
	ensured         bool
	// after is when to look again, if that is only a matter of time.
	after time.Duration
	// unknown means that the counts could not be found out; Ensured then has the reason of Applied.
	unknown bool
}

func failed(reason string, err error) outcome {
	return outcome{reason: reason, message: err.Error(), err: err}
}

func (r *Reconciler) apply(ctx context.Context, rp *kapacity.ReplicaProfile) outcome {
	rp.Status.ObservedGeneration = rp.Generation
	resolver := target.Resolver{Client: r.Client}
	t, err := resolver.Get(ctx, rp.Namespace, rp.Spec.ScaleTargetRef)
	paused := outcome{reason: kapacity.ReasonReplicaProfilePaused, message: kapacity.MessageReplicaProfilePaused, unknown: true}
	if err != nil && rp.Spec.Paused {
		return paused
	}
	if err != nil {
		out := failed(kapacity.ReasonFailedGetWorkload, err)
		for reason, kind := range map[string]error{kapacity.ReasonFailedGetScale: target.ErrScale,
			kapacity.ReasonInvalidSelector: target.ErrSelector, kapacity.ReasonFailedListPods: target.ErrListPods} {
			if errors.Is(err, kind) {
				out.reason = reason
			}
		}
		out.unknown = true
		out.quiet = apierrors.IsNotFound(err) && target.Watched(rp.Spec.ScaleTargetRef)
		return out
	}
	if err := r.noteOtherWriter(ctx, rp, resolver, t); err != nil {
		return failed(kapacity.ReasonFailedGetScale, err)
	}
	if rp.Spec.Paused {
		report(rp, t, decide(rp, t))
		return paused
	}
	if other, err := r.rival(ctx, rp); err != nil {
		return failed(kapacity.ReasonFailedGetWorkload, err)
	} else if other != "" {
		report(rp, t, decide(rp, t))
		return outcome{reason: kapacity.ReasonAnotherAutoscaler, message: fmt.Sprintf("ReplicaProfile %s/%s has %s, too; this one waits until it is gone", rp.Namespace, other, t.Name())}
	}
	if out, ok := supported(rp, t); !ok {
		report(rp, t, decide(rp, t))
		return out
	}

	// Each pass carries the plan out and decides again on what the API server answered. A plan in stages needs a few; the
	// bound only keeps a contradiction between the two packages from looping here.
	var plan podstate.Plan
	for range 8 {
		plan = decide(rp, t)
		changed, out := r.carryOut(ctx, rp, resolver, t, plan)
		if out != nil {
			report(rp, t, decide(rp, t))
			return *out
		}
		if !changed {
			break
		}
	}
	report(rp, t, plan)

	out := outcome{applied: plan.Applied, ensured: plan.Ensured, reason: kapacity.ReasonStateChangeSkipped, message: plan.Reason}
	switch {
	case plan.Frozen != "":
		out.reason = ReasonWorkloadUpdating
	case len(plan.NoGate) > 0:
		out.reason = ReasonReadinessGateMissing
		out.message = fmt.Sprintf("pods without the readiness gate %s in their spec keep their traffic and cannot be cut off: %v; label the pod template %s: %q",
			kapacity.OnlineConditionType, names(plan.NoGate), kapacity.InjectReadinessGateLabel, kapacity.InjectReadinessGateValue)
	case plan.Applied:
		out.reason, out.message = kapacity.ReasonReplicaProfileApplied, kapacity.MessageReplicaProfileApplied
	}
	return out
}

// rival names another profile for the same target that goes first: an older one, or one that still has to restore its pods. Two at
// work would turn the same pods on and off for ever. Its going wakes us.
func (r *Reconciler) rival(ctx context.Context, rp *kapacity.ReplicaProfile) (string, error) {
	same := &kapacity.ReplicaProfileList{}
	if err := r.Client.List(ctx, same, client.InNamespace(rp.Namespace), client.MatchingFields{TargetIndex: target.Key(rp.Spec.ScaleTargetRef)}); err != nil {
		return "", fmt.Errorf("list ReplicaProfiles: %w", err)
	}
	for _, o := range same.Items {
		if o.Name != rp.Name && (!o.DeletionTimestamp.IsZero() || target.Older(&o, rp)) {
			return o.Name, nil
		}
	}
	return "", nil
}

// supported says whether the profile asks for what is there. Scaling alone works for every kind and every behavior.
func supported(rp *kapacity.ReplicaProfile, t *target.Target) (outcome, bool) {
	holds := rp.Spec.CutoffReplicas > 0 || rp.Spec.StandbyReplicas > 0
	if !holds {
		return outcome{}, true
	}
	fail := func(reason, format string, args ...any) (outcome, bool) {
		out := failed(reason, fmt.Errorf(format, args...))
		out.quiet = true
		return out, false
	}
	if t.Kind == target.Other {
		return fail(kapacity.ReasonFailedGetWorkload, "unknown workload with gvk %s: none of its pods leads to it by its owners, and only such pods can have the state Cutoff or Standby", t.GVK)
	}
	if rp.Spec.Behavior.PodSorter.Type == kapacity.ExternalPodSorter {
		return fail(kapacity.ReasonPodSorterNotSupportedByWorkload, "podSorter of type External is not supported by %s", t.Name())
	}
	if rp.Spec.Behavior.PodTrafficController.Type == kapacity.ExternalPodTrafficController {
		return fail(kapacity.ReasonFailedGetPodTrafficController, "podTrafficController of type External is not supported")
	}
	return outcome{}, true
}

func decide(rp *kapacity.ReplicaProfile, t *target.Target) podstate.Plan {
	w := podstate.Workload{Replicas: t.Replicas, FirstOrdinal: t.FirstOrdinal(), OrderedReady: t.Ordered, Updating: t.Rollout, CountedReady: t.CountedReady,
		Direction: podstate.Direction(rp.Spec.AllowedScalingDirection)}
	switch t.Kind {
	case target.StatefulSet:
		w.Kind = podstate.StatefulSet
	case target.Deployment, target.ReplicaSet:
		w.Kind = podstate.ReplicaSets
	case target.Owned:
		// Its controller chooses which pods go. Those that are worth having follow one of these two rules.
		if w.Kind = podstate.ReplicaSets; t.Ordinals {
			w.Kind = podstate.StatefulSet
		}
	}
	return podstate.Decide(w, podstate.Counts{Online: rp.Spec.OnlineReplicas, Cutoff: rp.Spec.CutoffReplicas, Standby: rp.Spec.StandbyReplicas}, pods(t))
}

func pods(t *target.Target) []podstate.Pod {
	out := make([]podstate.Pod, len(t.Pods))
	for i := range t.Pods {
		out[i] = podstate.FromPod(&t.Pods[i])
	}
	return out
}

// Found says what lives of the target: the running pods by state, and how many of those held are Ready.
func Found(t *target.Target) (counts podstate.Counts, heldReady int32) {
	plan := podstate.Decide(podstate.Workload{}, podstate.Counts{}, pods(t))
	return plan.Counts, plan.CutReady
}

// report writes the counts of the plan into the status.
func report(rp *kapacity.ReplicaProfile, t *target.Target, plan podstate.Plan) {
	s := &rp.Status
	s.OnlineReplicas, s.CutoffReplicas, s.StandbyReplicas = plan.Counts.Online, plan.Counts.Cutoff, plan.Counts.Standby
	s.ReadyHeldReplicas, s.UngatedReplicas, s.Replicas = plan.CutReady, int32(len(plan.NoGate)), t.Replicas
}

// carryOut does what the plan says, in its order, and keeps t as the API server answers. changed is false if there was
// nothing to do. Events are sent once the writes behind them have succeeded.
func (r *Reconciler) carryOut(ctx context.Context, rp *kapacity.ReplicaProfile, resolver target.Resolver, t *target.Target, plan podstate.Plan) (changed bool, _ *outcome) {
	for _, op := range []struct {
		pods          []podstate.Pod
		do            func(context.Context, *corev1.Pod) error
		event, text   string
		reason, doing string
	}{
		{plan.Online, r.turnOn, kapacity.EventOnlinePods, kapacity.EventMessageOnlinePods, kapacity.ReasonFailedOnlinePods, "turn on"},
		{plan.Cut, r.hold(kapacity.PodStateCutoff), kapacity.EventCutoffPods, kapacity.EventMessageCutoffPods, kapacity.ReasonFailedCutoffPods, "cut off"},
		{plan.Standby, r.hold(kapacity.PodStateStandby), kapacity.EventStandbyPods, kapacity.EventMessageStandbyPods, kapacity.ReasonFailedSetPodState, "set to standby"},
		{plan.ClearCosts, r.clearCost, "", "", kapacity.ReasonFailedSelectPodsToDelete, "clear the deletion cost of"},
		{plan.SetCosts, r.setCost, kapacity.EventSelectPodsToDelete, kapacity.EventMessageSelectPodsToDelete, kapacity.ReasonFailedSelectPodsToDelete, "set the deletion cost of"},
	} {
		if len(op.pods) == 0 {
			continue
		}
		done, err := r.each(ctx, t, op.pods, op.do)
		if len(done) > 0 {
			changed = true
			if op.event != "" {
				r.Recorder.Eventf(rp, corev1.EventTypeNormal, op.event, op.text, done)
			}
		}
		if err != nil {
			out := failed(op.reason, fmt.Errorf("%s pods: %w", op.doing, err))
			return changed, &out
		}
	}
	if plan.Scale != nil && *plan.Scale != t.Replicas {
		from, key, now := t.Replicas, client.ObjectKeyFromObject(rp), r.Clock.Now()
		if due := r.pace.due(key, rp.Generation, now); now.Before(due) {
			return changed, &outcome{reason: kapacity.ReasonStateChangeSkipped, after: due.Sub(now),
				message: fmt.Sprintf("somebody else keeps writing the replicas of %s: they are written again at %s", t.Name(), due.UTC().Format(time.RFC3339))}
		}
		written, err := resolver.SetReplicas(ctx, t, *plan.Scale)
		if err != nil {
			out := failed(kapacity.ReasonFailedUpdateScale, err)
			return changed, &out
		}
		changed = true
		if written {
			r.pace.wrote(key, rp.Generation, now)
			r.Recorder.Eventf(rp, corev1.EventTypeNormal, kapacity.EventUpdateScale, kapacity.EventMessageUpdateScale, from, *plan.Scale)
			log.FromContext(ctx).Info("rescaled", "target", t.Name(), "from", from, "to", *plan.Scale)
		}
	}
	if plan.Delete != nil {
		done, err := r.each(ctx, t, []podstate.Pod{*plan.Delete}, r.delete)
		if err != nil {
			out := failed(kapacity.ReasonFailedSelectPodsToDelete, fmt.Errorf("delete pods: %w", err))
			return changed, &out
		}
		changed = true
		if len(done) > 0 {
			r.Recorder.Eventf(rp, corev1.EventTypeNormal, kapacity.EventSelectPodsToDelete, kapacity.EventMessageSelectPodsToDelete, done)
		}
	}
	return changed, nil
}

// noteOtherWriter sets the condition Conflict if /scale is not what an applied profile left there, until the profile's next
// change. The profile goes on either way.
func (r *Reconciler) noteOtherWriter(ctx context.Context, rp *kapacity.ReplicaProfile, resolver target.Resolver, t *target.Target) error {
	s := &rp.Status
	if s.AppliedGeneration != rp.Generation {
		meta.RemoveStatusCondition(&s.Conditions, kapacity.ConditionConflict)
		return nil
	}
	if !meta.IsStatusConditionTrue(s.Conditions, kapacity.ConditionApplied) || rp.Spec.Paused || s.Replicas == t.Replicas {
		return nil
	}
	// The cache may not have seen our own write yet.
	if err := resolver.Refresh(ctx, t); err != nil || s.Replicas == t.Replicas {
		return err
	}
	who := "somebody else"
	if r.Live != nil {
		if w := resolver.Writer(ctx, t, r.Live); w != "" {
			who = w
		}
	}
	meta.SetStatusCondition(&s.Conditions, metav1.Condition{Type: kapacity.ConditionConflict, Status: metav1.ConditionTrue,
		Reason: kapacity.ReasonReplicasWritten, ObservedGeneration: rp.Generation, LastTransitionTime: r.now(),
		Message: fmt.Sprintf("%s changed the replicas of %s from %d to %d; scaling goes on", who, t.Name(), s.Replicas, t.Replicas)})
	return nil
}

func (r *Reconciler) now() metav1.Time { return metav1.NewTime(r.Clock.Now()) }

func (r *Reconciler) setConditions(rp *kapacity.ReplicaProfile, out outcome) {
	s := &rp.Status
	applied := metav1.Condition{Type: kapacity.ConditionApplied, Status: metav1.ConditionFalse, Reason: out.reason, Message: event.Bounded(out.message)}
	if out.applied {
		applied.Status = metav1.ConditionTrue
		if s.AppliedGeneration != rp.Generation || s.AppliedTime == nil {
			now := metav1.NewMicroTime(r.Clock.Now().Truncate(time.Microsecond))
			s.AppliedGeneration, s.AppliedTime = rp.Generation, &now
		}
	}
	ensured := metav1.Condition{Type: kapacity.ConditionEnsured, Status: metav1.ConditionFalse,
		Reason: kapacity.ReasonReplicaNumberNotSatisfied, Message: kapacity.MessageReplicaNumberNotSatisfied}
	switch {
	case out.unknown:
		ensured.Reason, ensured.Message = applied.Reason, applied.Message
	case out.ensured:
		ensured.Status, ensured.Reason, ensured.Message = metav1.ConditionTrue, kapacity.ReasonReplicaProfileEnsured, kapacity.MessageReplicaProfileEnsured
	}
	for _, c := range []metav1.Condition{applied, ensured} {
		c.ObservedGeneration, c.LastTransitionTime = rp.Generation, r.now()
		meta.SetStatusCondition(&s.Conditions, c)
	}
}

// warn sends a Warning for what is newly wrong; what stays wrong was said before.
func (r *Reconciler) warn(rp *kapacity.ReplicaProfile, before []metav1.Condition) {
	c := meta.FindStatusCondition(rp.Status.Conditions, kapacity.ConditionApplied)
	old := meta.FindStatusCondition(before, kapacity.ConditionApplied)
	if c.Status == metav1.ConditionTrue || (old != nil && old.Reason == c.Reason && old.Message == c.Message) {
		return
	}
	switch c.Reason {
	case kapacity.ReasonReplicaProfilePaused, kapacity.ReasonStateChangeSkipped:
	case ReasonWorkloadUpdating:
		r.Recorder.Event(rp, corev1.EventTypeNormal, c.Reason, c.Message)
	default:
		r.Recorder.Event(rp, corev1.EventTypeWarning, c.Reason, c.Message)
	}
}

func names(pods []podstate.Pod) []string {
	out := make([]string, len(pods))
	for i, p := range pods {
		out[i] = p.Name
	}
	return out
}

// release turns every held pod Online again before the profile goes. A workload that is gone takes its pods along.
func (r *Reconciler) release(ctx context.Context, rp *kapacity.ReplicaProfile) error {
	if !controllerutil.ContainsFinalizer(rp, kapacity.Finalizer) {
		return nil
	}
	t, err := target.Resolver{Client: r.Client}.Get(ctx, rp.Namespace, rp.Spec.ScaleTargetRef)
	s := rp.Status
	holds := rp.Spec.CutoffReplicas+rp.Spec.StandbyReplicas+s.CutoffReplicas+s.StandbyReplicas+s.ReadyHeldReplicas > 0
	switch {
	case apierrors.IsNotFound(err), meta.IsNoMatchError(err):
	case err == nil && t.Kind == target.Other: // none of its pods was ever held
	case err != nil && !holds && !target.Watched(rp.Spec.ScaleTargetRef): // a kind that we may not read, perhaps not any more
	case err != nil:
		r.Recorder.Event(rp, corev1.EventTypeWarning, kapacity.ReasonFailedGetWorkload, event.Bounded(err.Error()))
		return fmt.Errorf("ReplicaProfile %s/%s: restore pods: %w", rp.Namespace, rp.Name, err)
	default:
		plan := podstate.Restore(pods(t))
		slices.SortFunc(plan.Online, func(a, b podstate.Pod) int { return strings.Compare(a.Name, b.Name) })
		done, err := r.each(ctx, t, plan.Online, r.turnOn)
		if len(done) > 0 {
			r.Recorder.Eventf(rp, corev1.EventTypeNormal, kapacity.EventOnlinePods, kapacity.EventMessageOnlinePods, done)
		}
		if err == nil {
			_, err = r.each(ctx, t, plan.ClearCosts, r.clearCost)
		}
		if err != nil {
			if !apierrors.IsConflict(err) {
				r.Recorder.Event(rp, corev1.EventTypeWarning, kapacity.ReasonFailedOnlinePods, event.Bounded(err.Error()))
			}
			return fmt.Errorf("ReplicaProfile %s/%s: restore pods: %w", rp.Namespace, rp.Name, err)
		}
	}
	before := rp.DeepCopy()
	controllerutil.RemoveFinalizer(rp, kapacity.Finalizer)
	if err := r.patchFinalizers(ctx, before, rp); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("ReplicaProfile %s/%s: remove finalizer: %w", rp.Namespace, rp.Name, err)
	}
	return nil
}

func (r *Reconciler) patchFinalizers(ctx context.Context, before, rp *kapacity.ReplicaProfile) error {
	return target.Patch(ctx, r.Live, before, rp, func(o client.Object, p client.Patch) error {
		return r.Client.Patch(ctx, o, p, client.FieldOwner(target.FieldManager))
	}, func(before, is *kapacity.ReplicaProfile) bool { return slices.Equal(before.Finalizers, is.Finalizers) })
}
