package stackset

import (
	"context"
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	zalando "github.com/kubetide/kubetide/api/zalando/v1"
	"github.com/kubetide/kubetide/scaler/event"
	"github.com/kubetide/kubetide/scaler/prescale"
	"github.com/kubetide/kubetide/scaler/target"
	stacktraffic "github.com/kubetide/kubetide/workloads/stackset/traffic"
)

// The conditions of StackSets and Stacks.
const (
	// ConditionReady is true while all Stacks that should have traffic could take it; of a Stack, while it could.
	ConditionReady = "Ready"
	// ConditionProgressing is true while there is something to wait for: pods, or traffic that waits for them.
	ConditionProgressing = "Progressing"
	// ConditionTrafficSwitched is true while the traffic is shared out as it should be.
	ConditionTrafficSwitched = "TrafficSwitched"
	// ConditionDegraded is true while something is wrong that does not mend itself; the message names field and cause.
	ConditionDegraded = "Degraded"
)

// The reasons of conditions, beside those of Events.
const (
	ReasonReady          = "Ready"
	ReasonNoStacks       = "NoStacks"
	ReasonStacksNotReady = "StacksNotReady"
	ReasonNotReady       = "NotReady"
	ReasonSwitched       = "Switched"
	ReasonNoIngress      = "NoIngress"
	ReasonWaiting        = "Waiting"
	ReasonSettled        = "Settled"
	ReasonHealthy        = "Healthy"
	ReasonDeadline       = "PrescalingDeadlineExceeded"
	ReasonNoSegments     = "FailedManageSegments"
)

func bounded(message string) string { return event.Bounded(message) }

// report writes the status of all Stacks and of the StackSet, and says what is new.
func (r *round) report(ctx context.Context) error {
	var errs []error
	for _, v := range r.versions {
		errs = append(errs, r.reportStack(ctx, v))
	}
	status := r.set.Status
	status.Stacks, status.ReadyStacks, status.StacksWithTraffic, status.Traffic = int32(len(r.versions)), 0, 0, nil
	for _, v := range r.versions {
		if v.outcome.Ready {
			status.ReadyStacks++
		}
		if v.outcome.Actual > 0 {
			status.StacksWithTraffic++
		}
		if t := r.published(v); t != nil {
			status.Traffic = append(status.Traffic, t)
		}
	}
	told.set(r)
	if r.decision.Switched {
		switches.Inc()
		r.recorder.Event(r.set, corev1.EventTypeNormal, "TrafficSwitched", bounded(r.moves()))
	}
	return errors.Join(append(errs, r.reportSet(ctx, status, r.switched()))...)
}

// reportFailure writes the StackSet's conditions after its segments could not be written: the weights in force are not known to have
// changed.
func (r *round) reportFailure(ctx context.Context) error {
	c := metav1.Condition{Status: metav1.ConditionFalse, Reason: ReasonNoSegments}
	for _, p := range r.problems {
		if p.reason == ReasonNoSegments {
			c.Message = p.message
		}
	}
	if c.Message == "" {
		return nil
	}
	return r.reportSet(ctx, r.set.Status, c)
}

// published is what others who route read of a Stack; nil if there is no way in to it.
func (r *round) published(v *version) *zalando.ActualTraffic {
	if !v.HasIngress() || v.outcome.Remove {
		return nil
	}
	t := &zalando.ActualTraffic{StackName: v.Stack.Name, ServiceName: v.Stack.Name, Weight: float64(v.outcome.Actual)}
	port, err := v.BackendPort()
	switch {
	case err == nil && port != nil:
		t.ServicePort = *port
	case t.Weight == 0:
		return nil
	default: // the weight counts, whatever became of the port
		t.ServicePort = intstr.FromInt32(0)
		for _, was := range r.set.Status.Traffic {
			if was.StackName == t.StackName {
				t.ServicePort = was.ServicePort
			}
		}
	}
	return t
}

// moves is upstream's text.
func (r *round) moves() string {
	var all []string
	for _, v := range r.versions {
		if before := v.facts.Actual; before != float64(v.outcome.Actual) {
			all = append(all, fmt.Sprintf("%s: %.1f%% to %.1f%%", v.Stack.Name, before, float64(v.outcome.Actual)))
		}
	}
	return "Switched traffic: " + strings.Join(all, ", ")
}

func (r *round) switched() metav1.Condition {
	yes := metav1.Condition{Status: metav1.ConditionTrue, Reason: ReasonSwitched}
	var late *stacktraffic.NotReadyError
	switch err := r.decision.Err; {
	case errors.As(err, &late):
		var why []string
		for i, stack := range late.Stacks {
			why = append(why, stack+": "+late.Reasons[i])
		}
		return metav1.Condition{Status: metav1.ConditionFalse, Reason: ReasonStacksNotReady, Message: late.Error() + " (" + strings.Join(why, "; ") + ")"}
	case err != nil:
		return metav1.Condition{Status: metav1.ConditionFalse, Reason: ReasonStacksNotReady, Message: err.Error()}
	case !r.routed():
		yes.Reason = ReasonNoIngress
	}
	return yes
}

func (r *round) routed() bool {
	for _, v := range r.versions {
		if v.HasIngress() {
			return true
		}
	}
	return false
}

func (r *round) reportStack(ctx context.Context, v *version) error {
	o := v.outcome
	status := *v.Stack.Status.DeepCopy()
	status.ActualTrafficWeight, status.DesiredTrafficWeight = float64(o.Actual), float64(o.Desired)
	status.Replicas, status.ReadyReplicas, status.UpdatedReplicas, status.DesiredReplicas = 0, 0, 0, 0
	if d := own(v.Stack, v.live.deployment); d != nil {
		status.Replicas, status.ReadyReplicas, status.UpdatedReplicas = d.Status.Replicas, d.Status.ReadyReplicas, d.Status.UpdatedReplicas
		if d.Spec.Replicas != nil {
			status.DesiredReplicas = *d.Spec.Replicas
		}
	}
	if o.Prescaling.State == (prescale.State{}) {
		status.Prescaling = zalando.PrescalingStatus{} // without a way in nothing is decided about it, and nothing held
	}
	status.NoTrafficSince = nil
	if !o.NoTrafficSince.IsZero() {
		status.NoTrafficSince = &metav1.Time{Time: o.NoTrafficSince}
	}
	status.LabelSelector = labels.SelectorFromSet(v.Selector()).String()
	status.ObservedGeneration = v.Stack.Generation

	ready := metav1.Condition{Type: ConditionReady, Status: metav1.ConditionTrue, Reason: ReasonReady}
	if !o.Ready {
		ready.Status, ready.Reason, ready.Message = metav1.ConditionFalse, ReasonNotReady, o.NotReady
	}
	moved := metav1.Condition{Type: ConditionTrafficSwitched, Status: metav1.ConditionTrue, Reason: ReasonSwitched}
	if o.Desired != o.Actual {
		moved.Status, moved.Reason, moved.Message = metav1.ConditionFalse, ReasonStacksNotReady, fmt.Sprintf("it has %d %%, and is to have %d %%", o.Actual, o.Desired)
	}
	degraded := metav1.Condition{Type: ConditionDegraded, Status: metav1.ConditionFalse, Reason: ReasonHealthy}
	var messages []string
	for _, f := range v.failures {
		if f.message == "" {
			continue
		}
		if len(messages) == 0 {
			degraded.Status, degraded.Reason = metav1.ConditionTrue, f.reason
		}
		messages = append(messages, f.message)
	}
	if o.Prescaling.State.Failed {
		if len(messages) == 0 {
			degraded.Status, degraded.Reason = metav1.ConditionTrue, ReasonDeadline
		}
		messages = append(messages, o.Prescaling.Reason)
	}
	degraded.Message = strings.Join(messages, "; ")
	progressing := metav1.Condition{Type: ConditionProgressing, Status: metav1.ConditionFalse, Reason: ReasonSettled}
	if degraded.Status == metav1.ConditionFalse && !o.ScaledDown && (!o.Ready || o.Desired > o.Actual) {
		progressing.Status, progressing.Reason = metav1.ConditionTrue, ReasonWaiting
	}
	was := apimeta.FindStatusCondition(v.Stack.Status.Conditions, ConditionDegraded)
	status.Conditions = renewed(v.Stack.Status.Conditions, v.Stack.Generation, ready, progressing, moved, degraded)
	news := unsaid(was, v.failures)
	stack := v.Stack
	if err := r.writeStackStatus(ctx, v, status); err != nil {
		r.recorder.Eventf(stack, corev1.EventTypeWarning, "FailedUpdateStackStatus", "%v", err)
		return err
	}
	for _, f := range news {
		r.recorder.Event(stack, corev1.EventTypeWarning, f.reason, bounded(f.message))
	}
	return nil
}

// unsaid are the failures that the condition did not hold yet.
func unsaid(was *metav1.Condition, all []failure) (out []failure) {
	for _, f := range all {
		if f.message != "" && (was == nil || was.Status != metav1.ConditionTrue || !strings.Contains(was.Message, bounded(f.message))) {
			out = append(out, f)
		}
	}
	return out
}

// writeStackStatus writes the status if it differs. Nobody else does: it needs no condition.
func (r *round) writeStackStatus(ctx context.Context, v *version, status zalando.StackStatus) error {
	if equality.Semantic.DeepEqual(v.Stack.Status, status) {
		return nil
	}
	next := v.Stack.DeepCopy()
	next.Status = status
	if err := r.client.Status().Patch(ctx, next, client.MergeFrom(v.Stack), client.FieldOwner(target.FieldManager)); err != nil {
		return client.IgnoreNotFound(fmt.Errorf("status of Stack %s: %w", v.Stack.Name, err))
	}
	v.Stack = next
	return nil
}

func (r *round) reportSet(ctx context.Context, status zalando.StackSetStatus, moved metav1.Condition) error {
	set := r.set
	status.ObservedStackVersion, status.ObservedGeneration = r.version, set.Generation
	moved.Type = ConditionTrafficSwitched
	all := r.problems
	var waiting []string
	ready := metav1.Condition{Type: ConditionReady, Status: metav1.ConditionTrue, Reason: ReasonReady}
	progressing := metav1.Condition{Type: ConditionProgressing, Status: metav1.ConditionFalse, Reason: ReasonSettled}
	for _, v := range r.versions {
		name := v.Stack.Name
		for _, f := range v.failures {
			if f.message != "" {
				all = append(all, failure{reason: f.reason, message: "stack " + name + ": " + f.message})
			}
		}
		if p := v.outcome.Prescaling; p.State.Failed {
			all = append(all, failure{reason: ReasonDeadline, message: "stack " + name + ": " + p.Reason})
		}
		if !v.outcome.Ready && (v.outcome.Desired > 0 || v.outcome.Actual > 0 || !r.routed()) {
			waiting = append(waiting, name+": "+v.outcome.NotReady)
		}
	}
	switch {
	case len(waiting) > 0:
		ready.Status, ready.Reason, ready.Message = metav1.ConditionFalse, ReasonStacksNotReady, strings.Join(waiting, "; ")
	case moved.Status != metav1.ConditionTrue:
		ready.Status, ready.Reason, ready.Message = metav1.ConditionFalse, moved.Reason, moved.Message
	case len(r.versions) == 0:
		ready.Status, ready.Reason, ready.Message = metav1.ConditionFalse, ReasonNoStacks, "there is no Stack"
	}
	degraded := metav1.Condition{Type: ConditionDegraded, Status: metav1.ConditionFalse, Reason: ReasonHealthy}
	if len(all) > 0 {
		var messages []string
		for _, f := range all {
			messages = append(messages, f.message)
		}
		degraded.Status, degraded.Reason, degraded.Message = metav1.ConditionTrue, all[0].reason, strings.Join(messages, "; ")
	} else if ready.Status != metav1.ConditionTrue && len(r.versions) > 0 {
		progressing.Status, progressing.Reason, progressing.Message = metav1.ConditionTrue, ReasonWaiting, ready.Message
	}
	old := set.Status.Conditions
	status.Conditions = renewed(old, set.Generation, ready, progressing, moved, degraded)
	if !equality.Semantic.DeepEqual(set.Status, status) {
		next := set.DeepCopy()
		next.Status = status
		// Nobody else writes it: what has been written of the spec meanwhile is for the next round.
		if err := r.client.Status().Patch(ctx, next, client.MergeFrom(set), client.FieldOwner(target.FieldManager)); err != nil {
			return client.IgnoreNotFound(fmt.Errorf("status: %w", err))
		}
		r.set = next
	}
	for _, f := range unsaid(apimeta.FindStatusCondition(old, ConditionDegraded), all) {
		if f.reason != ReasonDeadline { // said when it passed
			r.recorder.Event(set, corev1.EventTypeWarning, f.reason, bounded(f.message))
		}
	}
	if was := apimeta.FindStatusCondition(old, ConditionTrafficSwitched); moved.Reason == ReasonStacksNotReady &&
		(was == nil || was.Reason != moved.Reason || was.ObservedGeneration != set.Generation) {
		r.recorder.Event(set, corev1.EventTypeWarning, "TrafficNotSwitched", bounded("Failed to switch traffic: "+r.decision.Err.Error()))
	}
	return nil
}

// renewed keeps the times of conditions whose status is as it was.
func renewed(old []metav1.Condition, generation int64, all ...metav1.Condition) []metav1.Condition {
	var out []metav1.Condition
	for _, c := range all {
		if was := apimeta.FindStatusCondition(old, c.Type); was != nil {
			out = append(out, *was)
		}
	}
	for _, c := range all {
		c.ObservedGeneration, c.Message = generation, bounded(c.Message)
		apimeta.SetStatusCondition(&out, c)
	}
	return out
}
