// Package ihpa carries out IntelligentHorizontalPodAutoscalers: it asks the portraits, lets scaler/merge and scaler/gray
// decide, and writes the ReplicaProfile and the status. It never touches pods or /scale; the ReplicaProfile controller does.
package ihpa

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
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
	"github.com/kubetide/kubetide/internal/decision"
	"github.com/kubetide/kubetide/internal/window"
	"github.com/kubetide/kubetide/scaler/bounds"
	"github.com/kubetide/kubetide/scaler/gray"
	"github.com/kubetide/kubetide/scaler/merge"
	"github.com/kubetide/kubetide/scaler/replay"
	"github.com/kubetide/kubetide/scaler/replicaprofile"
	"github.com/kubetide/kubetide/scaler/target"
	"github.com/kubetide/kubetide/scaler/wants"
)

// reasonProfileFailed is the reason of ScalingActive=False while the ReplicaProfile cannot be applied; its message is the
// ReplicaProfile's, which has sent the event.
const reasonProfileFailed = "ReplicaProfileNotApplied"

// conflictRetry is how soon a decision on an old picture is taken again, if no event comes before.
const conflictRetry = 100 * time.Millisecond

// Reconciler carries out IHPAs. Its client should be one of target.NewClient.
type Reconciler struct {
	Client client.Client
	// Live reads past the cache where somebody else has changed what is being written; nil leaves it at the conflict.
	Live     client.Reader
	Recorder record.EventRecorder
	Clock    clock.PassiveClock
	// Decisions keeps the records.
	Decisions *decision.Log
	// Metrics collects what stability checkers compare.
	Metrics *wants.Wants[struct{}]
	// Schedules are the defaults of ScalingSchedules.
	Schedules window.Defaults
}

// Reconcile takes one decision.
func (r *Reconciler) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	o := &kapacity.IntelligentHorizontalPodAutoscaler{}
	if err := r.Client.Get(ctx, req.NamespacedName, o); err != nil {
		if apierrors.IsNotFound(err) {
			r.forget(req.Namespace, req.Name)
		}
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	next, err := r.reconcile(ctx, o)
	switch {
	case apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err):
		log.FromContext(ctx).V(1).Info("decided on an old picture, looking again", "cause", err.Error())
		return reconcile.Result{RequeueAfter: conflictRetry}, nil
	case err != nil:
		return reconcile.Result{}, fmt.Errorf("IHPA %s: %w", req, err)
	case next.IsZero():
		return reconcile.Result{}, nil
	}
	return reconcile.Result{RequeueAfter: max(time.Nanosecond, next.Sub(r.Clock.Now()))}, nil
}

// round is one reconciliation on its way.
type round struct {
	o      *kapacity.IntelligentHorizontalPodAutoscaler
	before *kapacity.IntelligentHorizontalPodAutoscaler
	// rp is nil if there is none.
	rp  *kapacity.ReplicaProfile
	now time.Time
	// trigger is found out when the first status is written.
	trigger string
	// unseen means that more pods get traffic than the ReplicaProfile's status says, so it may not change when they are cut again.
	unseen bool
	// pending means that the workload is not as the ReplicaProfile says yet.
	pending bool
	// taken are the decisions so far.
	taken []replay.Taken
}

// took notes a decision for the record.
func took[D any](rd *round) func(D, replay.Taken) D {
	return func(d D, taken replay.Taken) D {
		rd.taken = append(rd.taken, taken)
		return d
	}
}

func (r *Reconciler) reconcile(ctx context.Context, o *kapacity.IntelligentHorizontalPodAutoscaler) (next time.Time, err error) {
	rp, err := r.profile(ctx, o)
	if !o.DeletionTimestamp.IsZero() {
		return time.Time{}, r.finish(ctx, o, rp, err)
	}
	if controllerutil.AddFinalizer(o, kapacity.Finalizer) {
		before := o.DeepCopy()
		controllerutil.RemoveFinalizer(before, kapacity.Finalizer)
		if err := r.patchFinalizers(ctx, before, o); err != nil {
			return time.Time{}, fmt.Errorf("add finalizer: %w", err)
		}
	}
	rd := &round{o: o, before: o.DeepCopy(), rp: rp, now: r.Clock.Now()}
	if err != nil {
		return time.Time{}, r.fail(ctx, rd, kapacity.ReasonFailedGetReplicaProfile, kapacity.MessageFailedGetReplicaProfile, err)
	}
	return r.decide(ctx, rd)
}

// profile reads the ReplicaProfile of the IHPA; nil if there is none.
func (r *Reconciler) profile(ctx context.Context, o *kapacity.IntelligentHorizontalPodAutoscaler) (*kapacity.ReplicaProfile, error) {
	rp := &kapacity.ReplicaProfile{}
	if err := r.Client.Get(ctx, client.ObjectKeyFromObject(o), rp); err != nil {
		if apierrors.IsNotFound(err) || meta.IsNoMatchError(err) {
			return nil, nil
		}
		return nil, err
	}
	if c := metav1.GetControllerOf(rp); c != nil && c.UID != o.UID {
		return nil, fmt.Errorf("ReplicaProfile %s/%s is controlled by %s %s (uid %s)", rp.Namespace, rp.Name, c.Kind, c.Name, c.UID)
	}
	return rp, nil
}

// finish lets a deleted IHPA go once its ReplicaProfile has restored the held pods and is gone.
func (r *Reconciler) finish(ctx context.Context, o *kapacity.IntelligentHorizontalPodAutoscaler, rp *kapacity.ReplicaProfile, err error) error {
	if !controllerutil.ContainsFinalizer(o, kapacity.Finalizer) {
		return nil
	}
	if rp != nil && err == nil {
		return r.remove(ctx, rp) // its going wakes us
	}
	before := o.DeepCopy()
	controllerutil.RemoveFinalizer(o, kapacity.Finalizer)
	if err := r.patchFinalizers(ctx, before, o); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("remove finalizer: %w", err)
	}
	return nil
}

func (r *Reconciler) patchFinalizers(ctx context.Context, before, o *kapacity.IntelligentHorizontalPodAutoscaler) error {
	return target.Patch(ctx, r.Live, before, o, func(o client.Object, p client.Patch) error {
		return r.Client.Patch(ctx, o, p, client.FieldOwner(target.FieldManager))
	}, func(before, is *kapacity.IntelligentHorizontalPodAutoscaler) bool {
		return slices.Equal(before.Finalizers, is.Finalizers)
	})
}

func (r *Reconciler) remove(ctx context.Context, rp *kapacity.ReplicaProfile) error {
	if !rp.DeletionTimestamp.IsZero() {
		return nil
	}
	err := r.Client.Delete(ctx, rp, client.Preconditions{UID: &rp.UID})
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("delete ReplicaProfile: %w", err)
	}
	return nil
}

func (r *Reconciler) forget(namespace, name string) {
	key := client.ObjectKey{Namespace: namespace, Name: name}
	r.Metrics.Drop(reconcile.Request{NamespacedName: key})
	r.Decisions.Forget(logKey(namespace, name))
	told.forget(key)
}

// decide reads the inputs, decides, and writes what has changed: first the state, then the profile, so that a crash in between
// is repaired by the next call.
func (r *Reconciler) decide(ctx context.Context, rd *round) (time.Time, error) {
	o, now := rd.o, rd.now
	o.Status.ObservedGeneration = o.Generation
	standDown, err := r.conflict(ctx, rd)
	if err != nil {
		return time.Time{}, err
	}
	// A profile for another workload goes first: it restores the pods that it holds there.
	moved := rd.rp != nil && target.Key(rd.rp.Spec.ScaleTargetRef) != target.Key(o.Spec.ScaleTargetRef)
	apart := o.Spec.ScaleMode == kapacity.ScaleModePreview || standDown
	other := o.Status.ScaleTarget != nil && target.Key(*o.Status.ScaleTarget) != target.Key(o.Spec.ScaleTargetRef)
	if moved || apart || other {
		o.Status.Gray, o.Status.Breaches = nil, nil
	}
	if moved || other {
		o.Status.DesiredReplicas, o.Status.HeldReplicas, o.Status.Behavior = nil, nil, nil // they were of the other workload
	}
	o.Status.ScaleTarget = o.Spec.ScaleTargetRef.DeepCopy()
	if rd.rp != nil && (moved || apart) {
		if err := r.remove(ctx, rd.rp); err != nil {
			return time.Time{}, r.fail(ctx, rd, kapacity.ReasonFailedDeleteReplicaProfile, kapacity.MessageFailedDeleteReplicaProfile, err)
		}
	}
	leaving := rd.rp != nil && (moved || apart || !rd.rp.DeletionTimestamp.IsZero())
	if leaving && !apart {
		// Its going wakes us; until then its pods are not ours to count.
		return time.Time{}, r.writeStatus(ctx, rd)
	}

	current, observed, err := r.observe(ctx, rd, leaving)
	if err != nil {
		reason := kapacity.ReasonFailedGetWorkload
		if errors.Is(err, target.ErrScale) {
			reason = kapacity.ReasonFailedGetScale
		}
		failure := r.fail(ctx, rd, reason, "%v", err)
		if apierrors.IsNotFound(err) && target.Watched(o.Spec.ScaleTargetRef) && errors.Is(failure, err) {
			return time.Time{}, nil // its coming wakes us
		}
		return time.Time{}, failure
	}

	kept, err := r.keepPortraits(ctx, o)
	if err != nil {
		return time.Time{}, err
	}
	m := took[merge.Outcome](rd)(replay.Merge(r.candidates(ctx, o, kept, now), current, now))
	b := took[bounds.Decision](rd)(replay.Bounds(o.Spec.MinReplicas, o.Spec.MaxReplicas, o.Spec.ScheduledBounds, now))
	m.Warnings = append(m.Warnings, b.Warnings...)
	if b.Err != nil {
		m.Warnings = append(m.Warnings, b.Err.Error()+": the other bounds hold")
	}
	r.setHealth(o, m)
	steps := []decision.Step{m.Step}
	w := r.setWanted(rd, m, b, current)
	steps, ahead := append(steps, w.steps...), w.outlook
	ahead.wake(m.Next, "a portrait changes with time")
	ahead.wake(b.Next, "a window of scheduledBounds opens or closes")
	in := gray.Inputs{Target: w.replicas,
		Up: strategy(o.Spec.Behavior.ScaleUp), Down: strategy(o.Spec.Behavior.ScaleDown),
		UpDisabled: o.Spec.Behavior.ScaleUp.Disabled, DownDisabled: o.Spec.Behavior.ScaleDown.Disabled,
		Observed: observed, Paused: o.Spec.Paused}
	r.setReplicas(rd, leaving, observed)

	var profile *gray.Profile
	var order *int32
	if apart {
		for _, kind := range []string{kapacity.ConditionGrayProgressing, kapacity.ConditionGrayStalled, kapacity.ConditionStable} {
			meta.RemoveStatusCondition(&o.Status.Conditions, kind)
		}
	} else {
		if rd.rp != nil {
			in.Profile = &gray.Profile{Online: rd.rp.Spec.OnlineReplicas, Cutoff: rd.rp.Spec.CutoffReplicas, Standby: rd.rp.Spec.StandbyReplicas}
			in.Frozen = frozen(rd.rp)
		}
		steady, err := r.steady(rd, in)
		if err != nil {
			return time.Time{}, err
		}
		if steady.Action != "" {
			in.Unstable, in.Rollback = steady.By, steady.Action == kapacity.RollbackAction
			steps = append(steps, steady.Step(current))
		}
		ahead.wake(steady.Next, "a stability checker has cooled down")
		d := took[gray.Decision](rd)(replay.Gray(runOf(o.Status.Gray), in, now))
		o.Status.Gray = grayStatus(d.Run, o.Status.Gray, now)
		profile = d.Profile
		ahead.wake(d.Next, "the gray run goes on")
		if rd.unseen {
			ahead.wake(now.Add(time.Second), "cut pods have traffic again")
		}
		steps = append(steps, d.Step)
		r.setGray(o, d)
		if order = &current; profile != nil {
			order = &profile.Online // a rollback counts as well
		}
	}
	if err := r.confirm(ctx, rd, w, order); err != nil {
		return time.Time{}, err
	}
	o.Status.Behavior = behaviorStatus(w.ordered(order, now))

	// ScalingActive waits for the write: were it set before, it would flap with each failed attempt. Where it is true already, that
	// would be a write of its own for nothing but its generation.
	if c := meta.FindStatusCondition(o.Status.Conditions, kapacity.ConditionScalingActive); c != nil && c.Status == metav1.ConditionTrue {
		c.ObservedGeneration = o.Generation
	}
	result := describe(rd, profile, apart, standDown)
	if err := r.keep(ctx, rd, result, m, steps, ahead); err != nil {
		return time.Time{}, err
	}
	if profile != nil {
		if reason, message, err := r.writeProfile(ctx, rd, *profile); err != nil {
			return time.Time{}, r.fail(ctx, rd, reason, message, err)
		}
	}
	r.setActive(rd, w.replicas != nil, standDown)
	if err := r.keep(ctx, rd, result, m, steps, ahead); err != nil {
		return time.Time{}, err
	}
	told.decided(o, m, b)
	return ahead.next, nil
}

// observe says what is there: the online count that is ordered now, and what gray wants to know.
func (r *Reconciler) observe(ctx context.Context, rd *round, leaving bool) (current int32, _ gray.Observed, _ error) {
	resolver := target.Resolver{Client: r.Client}
	if rp := rd.rp; rp != nil && !leaving {
		s := rp.Status
		out := gray.Observed{Online: s.OnlineReplicas, Cutoff: s.CutoffReplicas, Standby: s.StandbyReplicas, CutReady: s.ReadyHeldReplicas, Scale: s.Replicas}
		applied := meta.FindStatusCondition(s.Conditions, kapacity.ConditionApplied)
		out.Applied = applied != nil && applied.Status == metav1.ConditionTrue && applied.ObservedGeneration == rp.Generation
		rd.pending = !out.Applied && (s.ObservedGeneration != rp.Generation ||
			s.Replicas != rp.Spec.OnlineReplicas+rp.Spec.CutoffReplicas+rp.Spec.StandbyReplicas)
		if out.Applied && s.AppliedGeneration == rp.Generation && s.AppliedTime != nil {
			out.AppliedAt = s.AppliedTime.Time
		}
		if held := rp.Spec.CutoffReplicas + rp.Spec.StandbyReplicas; held > 0 {
			// The status is from before: pods may have got their traffic back since, or be others, and must not be let go then.
			out.CutReady = held
			if t, err := resolver.Get(ctx, rp.Namespace, rp.Spec.ScaleTargetRef); err == nil {
				counts, ready := replicaprofile.Found(t)
				out.CutReady = ready + max(0, counts.Online-rp.Spec.OnlineReplicas)
			}
			rd.unseen = out.Applied && out.CutReady > s.ReadyHeldReplicas
		}
		return rp.Spec.OnlineReplicas, out, nil
	}
	t, err := resolver.Get(ctx, rd.o.Namespace, rd.o.Spec.ScaleTargetRef)
	if err != nil {
		return 0, gray.Observed{}, err
	}
	counts, _ := replicaprofile.Found(t)
	out := gray.Observed{Online: counts.Online, Cutoff: counts.Cutoff, Standby: counts.Standby, Scale: t.Replicas}
	if g := rd.o.Status.Gray; g != nil {
		for _, b := range g.Held { // restored when their profile went
			out.CutReady += b.Replicas
		}
	}
	return max(0, t.Replicas-out.Cutoff-out.Standby), out, nil
}

// frozen is why the profile's held pods are restored for now.
func frozen(rp *kapacity.ReplicaProfile) string {
	c := meta.FindStatusCondition(rp.Status.Conditions, kapacity.ConditionApplied)
	if c == nil || c.Status == metav1.ConditionTrue || c.Reason != replicaprofile.ReasonWorkloadUpdating {
		return ""
	}
	return c.Message
}

// conflict sets the condition Conflict, and says whether somebody else scales the target, so that we stand down.
func (r *Reconciler) conflict(ctx context.Context, rd *round) (bool, error) {
	o := rd.o
	if o.Spec.ScaleMode == kapacity.ScaleModePreview {
		r.setCondition(o, kapacity.ConditionConflict, false, kapacity.ReasonNoConflict, "a preview disturbs nobody")
		return false, nil
	}
	key := target.Key(o.Spec.ScaleTargetRef)
	others := &autoscalingv2.HorizontalPodAutoscalerList{}
	if err := r.Client.List(ctx, others, client.InNamespace(o.Namespace), client.MatchingFields{TargetIndex: key}); err != nil {
		return false, fmt.Errorf("list HorizontalPodAutoscalers: %w", err)
	}
	var names []string
	for _, h := range others.Items {
		if h.DeletionTimestamp.IsZero() {
			names = append(names, "HorizontalPodAutoscaler "+h.Namespace+"/"+h.Name)
		}
	}
	same := &kapacity.IntelligentHorizontalPodAutoscalerList{}
	if err := r.Client.List(ctx, same, client.InNamespace(o.Namespace), client.MatchingFields{TargetIndex: key}); err != nil {
		return false, fmt.Errorf("list IntelligentHorizontalPodAutoscalers: %w", err)
	}
	for _, i := range same.Items {
		// Of two IHPAs the older scales; a preview disturbs nobody.
		if i.UID != o.UID && i.Spec.ScaleMode != kapacity.ScaleModePreview && target.Older(&i, o) {
			names = append(names, kapacity.IHPAKind+" "+i.Namespace+"/"+i.Name)
		}
	}
	if len(names) > 0 {
		slices.Sort(names)
		r.setCondition(o, kapacity.ConditionConflict, true, kapacity.ReasonAnotherAutoscaler,
			fmt.Sprintf("%s scales %s, too; this one stands down", strings.Join(names, ", "), targetName(o, o.Spec.ScaleTargetRef)))
		return true, nil
	}
	if rd.rp != nil {
		if c := meta.FindStatusCondition(rd.rp.Status.Conditions, kapacity.ConditionConflict); c != nil && c.Status == metav1.ConditionTrue {
			r.setCondition(o, kapacity.ConditionConflict, true, c.Reason, c.Message)
			return false, nil
		}
	}
	r.setCondition(o, kapacity.ConditionConflict, false, kapacity.ReasonNoConflict, "nobody else scales the target")
	return false, nil
}

func (r *Reconciler) setReplicas(rd *round, leaving bool, observed gray.Observed) {
	s := &rd.o.Status
	s.Replicas = new(observed.Scale)
	s.OnlineReplicas, s.CutoffReplicas, s.StandbyReplicas = new(observed.Online), new(observed.Cutoff), new(observed.Standby)
	if rd.rp != nil && !leaving && rd.rp.Status.ObservedGeneration == 0 {
		// The profile was only just written: nobody has counted yet.
		b := rd.before.Status
		s.Replicas, s.OnlineReplicas, s.CutoffReplicas, s.StandbyReplicas = b.Replicas, b.OnlineReplicas, b.CutoffReplicas, b.StandbyReplicas
	}
}

func (r *Reconciler) setGray(o *kapacity.IntelligentHorizontalPodAutoscaler, d gray.Decision) {
	if d.Profile != nil {
		reason, message := kapacity.ReasonReplicasMatchPortrait, kapacity.MessageReplicasMatchPortrait
		if d.Progressing {
			reason, message = kapacity.ReasonReplicasNotMatchPortrait, kapacity.MessageReplicasNotMatchPortrait
		}
		r.setCondition(o, kapacity.ConditionGrayProgressing, d.Progressing, reason, message)
	}
	switch {
	case d.Stalled:
		r.setCondition(o, kapacity.ConditionGrayStalled, true, kapacity.ReasonStepNotApplied, d.StalledReason)
	case d.Active:
		r.setCondition(o, kapacity.ConditionGrayStalled, false, kapacity.ReasonGrayRunning, "the gray run goes on")
	default:
		r.setCondition(o, kapacity.ConditionGrayStalled, false, kapacity.ReasonGrayNotRunning, "no gray run is going on")
	}
}

func (r *Reconciler) setActive(rd *round, valid, standDown bool) {
	o := rd.o
	set := func(status bool, reason, message string) {
		r.setCondition(o, kapacity.ConditionScalingActive, status, reason, message)
	}
	applied := &metav1.Condition{}
	if rd.rp != nil && rd.rp.Generation == rd.rp.Status.ObservedGeneration {
		if c := meta.FindStatusCondition(rd.rp.Status.Conditions, kapacity.ConditionApplied); c != nil {
			applied = c
		}
	}
	switch {
	case standDown:
		set(false, kapacity.ReasonAnotherAutoscaler, meta.FindStatusCondition(o.Status.Conditions, kapacity.ConditionConflict).Message)
	case o.Spec.Paused:
		set(false, kapacity.ReasonScalingPaused, kapacity.MessageScalingPaused)
	case !valid:
		set(false, kapacity.ReasonNoValidPortraitValue, kapacity.MessageNoValidPortraitValue)
	case applied.Status == metav1.ConditionFalse && applied.Reason != kapacity.ReasonStateChangeSkipped &&
		applied.Reason != replicaprofile.ReasonWorkloadUpdating && applied.Reason != kapacity.ReasonReplicaProfilePaused:
		set(false, reasonProfileFailed, applied.Reason+": "+applied.Message)
	default:
		set(true, kapacity.ReasonSucceededAutoscaling, kapacity.MessageSucceededAutoscaling)
	}
}

// fail notes why nothing could be done, and returns the error for the back-off.
func (r *Reconciler) fail(ctx context.Context, rd *round, reason, message string, err error) error {
	if apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) {
		return err
	}
	r.setCondition(rd.o, kapacity.ConditionScalingActive, false, reason, fmt.Sprintf(message, err))
	if werr := r.keep(ctx, rd, fmt.Sprintf(message, err), merge.Outcome{}, nil, outlook{}); werr != nil {
		return werr
	}
	return err
}

// describe says in a sentence what comes out.
func describe(rd *round, p *gray.Profile, apart, standDown bool) string {
	show := func(online, cutoff, standby int32) string {
		s := fmt.Sprintf("%d online, %d cut off", online, cutoff)
		if standby > 0 {
			s += fmt.Sprintf(", %d standby", standby)
		}
		return s
	}
	switch {
	case standDown:
		return "stand down: another autoscaler scales the target"
	case apart:
		return "preview: nothing is scaled"
	case p == nil:
		return "no profile yet"
	case rd.rp == nil:
		return "first profile: " + show(p.Online, p.Cutoff, p.Standby)
	}
	s := rd.rp.Spec
	if was, is := show(s.OnlineReplicas, s.CutoffReplicas, s.StandbyReplicas), show(p.Online, p.Cutoff, p.Standby); was != is {
		return fmt.Sprintf("%s (was %s)", is, was)
	}
	return "stays at " + show(p.Online, p.Cutoff, p.Standby)
}

// keep writes the status if it has changed, and the record of the decision with it if replicas, the profile or a condition
// changed.
func (r *Reconciler) keep(ctx context.Context, rd *round, result string, m merge.Outcome, steps []decision.Step, ahead outlook) error {
	o := rd.o
	if rd.trigger == "" {
		rd.trigger = trigger(rd)
	}
	rec := recordOf(o, rd.now, rd.trigger, result, m.Candidates, steps, ahead)
	switch d := o.Status.LastDecision; {
	case changed(rd):
		o.Status.LastDecision = lastDecision(rec)
	case d != nil && !equality.Semantic.DeepEqual(rd.before.Status, o.Status):
		last := lastDecision(rec) // where the status is written anyway, it says what it waits for
		d.Next, d.NextCause, d.Counterfactuals = last.Next, last.NextCause, last.Counterfactuals
	}
	if records := r.Decisions.Of(rec.Object); len(records) == 0 || differs(records[len(records)-1], rec.Bounded()) {
		rec.Calls = calls(ctx, rd)
		r.Decisions.Add(rec)
		log.FromContext(ctx).Info("decided", "decision", rec.Bounded().String())
	}
	return r.writeStatus(ctx, rd)
}

// calls are the decisions so far as the record keeps them.
func calls(ctx context.Context, rd *round) (out []decision.Call) {
	for _, taken := range rd.taken {
		c, err := taken()
		if err != nil { // a number that JSON does not know; the record says the rest
			log.FromContext(ctx).Error(err, "the decision cannot be taken again")
			return nil
		}
		out = append(out, c)
	}
	return out
}

// changed says whether the decision is worth keeping in status.
func changed(rd *round) bool {
	was, is := rd.before.Status, rd.o.Status
	if len(was.Conditions) != len(is.Conditions) || !equality.Semantic.DeepEqual(was.DesiredReplicas, is.DesiredReplicas) {
		return true
	}
	for _, c := range is.Conditions {
		if old := meta.FindStatusCondition(was.Conditions, c.Type); old == nil || old.Status != c.Status || old.Reason != c.Reason || old.Message != c.Message {
			return true
		}
	}
	profile := func(g *kapacity.GrayStatus) [5]int32 {
		if g == nil {
			return [5]int32{-1}
		}
		held := int32(0)
		for _, b := range g.Held {
			held += b.Replicas
		}
		return [5]int32{g.From, g.To, g.GrayPercent, g.Steps, held}
	}
	return profile(was.Gray) != profile(is.Gray)
}

// differs says whether b is another decision than a, and not the same one taken again.
func differs(a, b decision.Record) bool {
	a.Trigger, b.Trigger = "", ""
	return a.String() != b.String() // which leaves the time out
}

// trigger says what made this decision differ from the last one, as far as that can be seen.
func trigger(rd *round) string {
	was, is := rd.before.Status, rd.o.Status
	steps := func(g *kapacity.GrayStatus) (n, held int32, pending bool) {
		if g != nil {
			for _, b := range g.Held {
				held += b.Replicas
			}
			n, pending = g.Steps, g.PendingSince != nil
		}
		return n, held, pending
	}
	n1, held1, pending1 := steps(was.Gray)
	n2, held2, pending2 := steps(is.Gray)
	switch {
	case was.ObservedGeneration != is.ObservedGeneration:
		return "spec changed"
	case !equality.Semantic.DeepEqual(was.DesiredReplicas, is.DesiredReplicas), !equality.Semantic.DeepEqual(was.CurrentPortraitValue, is.CurrentPortraitValue):
		return "portrait value changed"
	case n2 > n1:
		return "gray step due"
	case held2 < held1:
		return "observation over"
	case pending1 && !pending2:
		return "gray step applied"
	}
	return "change seen"
}

// writeStatus patches the status if it differs from what was read, then says what is newly wrong.
func (r *Reconciler) writeStatus(ctx context.Context, rd *round) error {
	told.stands(rd.o)
	if equality.Semantic.DeepEqual(rd.before.Status, rd.o.Status) {
		return nil
	}
	status := rd.o.Status.DeepCopy()
	err := target.Patch(ctx, r.Live, rd.before, rd.o, func(o client.Object, p client.Patch) error {
		return r.Client.Status().Patch(ctx, o, p, client.FieldOwner(target.FieldManager))
	}, func(before, is *kapacity.IntelligentHorizontalPodAutoscaler) bool {
		return before.Generation == is.Generation && equality.Semantic.DeepEqual(before.Status, is.Status)
	})
	if err != nil {
		return fmt.Errorf("write status: %w", err)
	}
	rd.o.Status = *status // nothing that the server prunes may look like a change
	r.warn(rd.o, rd.before.Status.Conditions)
	rd.before = rd.o.DeepCopy()
	return nil
}

// writeProfile creates or patches the ReplicaProfile if it is not as it should be, and sends the event once it is.
func (r *Reconciler) writeProfile(ctx context.Context, rd *round, p gray.Profile) (reason, message string, _ error) {
	o := rd.o
	spec := kapacity.ReplicaProfileSpec{ScaleTargetRef: o.Spec.ScaleTargetRef, OnlineReplicas: p.Online, CutoffReplicas: p.Cutoff, StandbyReplicas: p.Standby,
		Paused: o.Spec.Paused, AllowedScalingDirection: direction(o.Spec.Behavior), Behavior: *o.Spec.Behavior.ReplicaProfile.DeepCopy()}
	if spec.Behavior.PodSorter.Type == "" {
		spec.Behavior.PodSorter.Type = kapacity.WorkloadDefaultPodSorter
	}
	if spec.Behavior.PodTrafficController.Type == "" {
		spec.Behavior.PodTrafficController.Type = kapacity.ReadinessGatePodTrafficController
	}
	if rd.rp == nil {
		rp := &kapacity.ReplicaProfile{ObjectMeta: metav1.ObjectMeta{Namespace: o.Namespace, Name: o.Name, Finalizers: []string{kapacity.Finalizer}}, Spec: spec}
		err := controllerutil.SetControllerReference(o, rp, r.Client.Scheme())
		if err == nil {
			err = r.Client.Create(ctx, rp, client.FieldOwner(target.FieldManager))
		}
		if err != nil {
			return kapacity.ReasonFailedCreateReplicaProfile, kapacity.MessageFailedCreateReplicaProfile, err
		}
		rd.rp = rp
		r.Recorder.Eventf(o, corev1.EventTypeNormal, kapacity.EventCreateReplicaProfile, kapacity.EventMessageCreateReplicaProfile, p.Online, p.Cutoff, p.Standby)
		return "", "", nil
	}
	before := rd.rp.DeepCopy()
	rp := rd.rp.DeepCopy()
	rp.Spec = spec
	err := controllerutil.SetControllerReference(o, rp, r.Client.Scheme())
	if err == nil && !equality.Semantic.DeepEqual(before, rp) {
		err = r.Client.Patch(ctx, rp, optimistic(before), client.FieldOwner(target.FieldManager))
	}
	if err != nil {
		return kapacity.ReasonFailedUpdateReplicaProfile, kapacity.MessageFailedUpdateReplicaProfile, err
	}
	rd.rp = rp
	if was := before.Spec; was.OnlineReplicas != p.Online || was.CutoffReplicas != p.Cutoff || was.StandbyReplicas != p.Standby {
		r.Recorder.Eventf(o, corev1.EventTypeNormal, kapacity.EventUpdateReplicaProfile, kapacity.EventMessageUpdateReplicaProfile,
			was.OnlineReplicas, p.Online, was.CutoffReplicas, p.Cutoff, was.StandbyReplicas, p.Standby)
	}
	return "", "", nil
}

func optimistic(before client.Object) client.Patch {
	return client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
}
