package ihpa

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	"github.com/kubetide/kubetide/internal/decision"
	"github.com/kubetide/kubetide/scaler/behavior"
	"github.com/kubetide/kubetide/scaler/bounds"
	"github.com/kubetide/kubetide/scaler/merge"
	"github.com/kubetide/kubetide/scaler/replay"
)

// wish is what it depends on where the workload should go.
type wish struct {
	behavior kapacity.IHPABehavior
	hold     *kapacity.Hold
	merged   merge.Outcome
	bounds   bounds.Decision
	// limits is what the behavior's limits remember, held what the hold has kept so far, and desired where the workload was going.
	limits        behavior.State
	held, desired *int32
	// online is the count that is ordered now, and pending means that it is not carried out yet.
	online  int32
	pending bool
}

// wanted is where the workload should go, gray steps apart.
type wanted struct {
	// replicas is nil where nobody wants anything: then they stay as they are.
	replicas *int32
	// limit is what limits them; nil where nothing can be said of it.
	limit *merge.Limit
	hold  held
	steps []decision.Step
	// taken is nil if the behavior was not asked.
	taken replay.Taken
	// limits is what the behavior's limits remember, and limited what they saw.
	limits  behavior.State
	limited behavior.Inputs
	outlook
}

// outlook is when the decision is looked at again if nothing happens before, why then, and what would change it.
type outlook struct {
	next            time.Time
	cause           string
	counterfactuals []string
}

// wake has it looked at again at t, if nothing asks for that sooner; zero is never.
func (l *outlook) wake(t time.Time, cause string) {
	if !t.IsZero() && (l.next.IsZero() || t.Before(l.next)) {
		l.next, l.cause = t, cause
	}
}

func clockOf(t time.Time) string { return t.UTC().Format(time.TimeOnly) }

// want takes what the portraits ask for through the behavior, the bounds and the hold.
func want(in wish, now time.Time) wanted {
	up, down := rulesOf(in.behavior)
	out := wanted{limited: behavior.Inputs{Wanted: in.merged.Replicas, Current: in.online, Min: in.bounds.Min, Max: in.bounds.Max, Up: up, Down: down},
		hold: decideHold(in.hold, in.held, in.desired, now)}
	out.limits = behavior.Counted(in.limits, out.limited, now)
	if in.merged.Valid {
		d, taken := replay.Behavior(out.limits, out.limited, now)
		out.limits, out.taken, out.replicas = d.State, taken, new(d.Replicas)
		out.wake(d.Next, "a window or policy of the behavior lets the count go on")
		out.wake(d.NextLimit, "something else limits the count")
		switch {
		case d.BlockedUntil.IsZero():
		case in.merged.Replicas < in.online:
			out.counterfactuals = append(out.counterfactuals, "scale-down blocked until "+clockOf(d.BlockedUntil))
		default:
			out.counterfactuals = append(out.counterfactuals, "scale-up blocked until "+clockOf(d.BlockedUntil))
		}
		out.steps = append(out.steps, d.Steps...)
		out.limit = &merge.Limit{Replicas: d.Replicas, Limited: d.Limited, Reason: d.Reason, Message: d.Message}
		out.limit.Message += in.bounds.Note(*out.limit)
	} else {
		out.limits = out.limits.Lapsed(now)
	}
	if out.hold.Replicas != nil {
		limit, step := in.bounds.Clamp(*out.hold.Replicas)
		if out.replicas != nil && *out.replicas != limit.Replicas {
			out.counterfactuals = []string{fmt.Sprintf("%d replicas when the hold is lifted", *out.replicas)}
		}
		out.replicas, out.limit = new(limit.Replicas), &limit
		out.next, out.cause = time.Time{}, ""
		out.wake(out.hold.Until, "the hold lifts itself")
		out.steps = append(out.steps, *out.hold.step(), step)
	}
	if in.pending {
		out.limits = out.limits.Uncounted(in.limits)
	}
	return out
}

// ordered is what the limits remember once the count goes to another one; nil is nowhere, and to leave it to others.
func (w wanted) ordered(to *int32, now time.Time) behavior.State {
	if to == nil {
		w.limits.Order = nil
		return w.limits
	}
	return behavior.Ordered(w.limits, w.limited, *to, now)
}

// setWanted notes in status what is wanted. online is the count that is ordered now.
func (r *Reconciler) setWanted(rd *round, m merge.Outcome, b bounds.Decision, online int32) wanted {
	o := rd.o
	w := want(wish{behavior: o.Spec.Behavior, hold: o.Spec.Hold, merged: m, bounds: b, limits: behaviorOf(o.Status.Behavior), held: o.Status.HeldReplicas,
		desired: o.Status.DesiredReplicas, online: online, pending: rd.pending}, rd.now)
	if m.Valid {
		setValue(&o.Status, m)
	}
	if w.taken != nil {
		rd.taken = append(rd.taken, w.taken)
	}
	if l := w.limit; l != nil {
		r.setCondition(o, kapacity.ConditionScalingLimited, l.Limited, l.Reason, l.Message)
	}
	o.Status.HeldReplicas = w.hold.Replicas
	r.setHeld(o, w.hold)
	if w.replicas != nil {
		o.Status.DesiredReplicas = w.replicas
	}
	return w
}

// confirm makes sure of an order that is taken back: where the answer to its write was lost it may yet be carried out, and would count for
// nothing then.
func (r *Reconciler) confirm(ctx context.Context, rd *round, w wanted, to *int32) error {
	current := w.limited.Current
	if o := w.limits.Order; o == nil || to == nil || o.From != current || *to != current || rd.rp == nil || r.Live == nil {
		return nil
	}
	is := &kapacity.ReplicaProfile{}
	if err := r.Live.Get(ctx, client.ObjectKeyFromObject(rd.rp), is); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("get ReplicaProfile: %w", err)
	} else if err == nil && is.Spec.OnlineReplicas != current {
		return apierrors.NewConflict(kapacity.SchemeGroupVersion.WithResource("replicaprofiles").GroupResource(), is.Name, errors.New("seen as it was before"))
	}
	return nil
}

// setHeld keeps the condition from those who never hold anything.
func (r *Reconciler) setHeld(o *kapacity.IntelligentHorizontalPodAutoscaler, h held) {
	switch {
	case h.Replicas != nil:
		r.setCondition(o, kapacity.ConditionHeld, true, kapacity.ReasonHoldBegan, h.Message)
	case o.Spec.Hold != nil:
		r.setCondition(o, kapacity.ConditionHeld, false, kapacity.ReasonHoldEnded, h.Message)
	case meta.FindStatusCondition(o.Status.Conditions, kapacity.ConditionHeld) != nil:
		r.setCondition(o, kapacity.ConditionHeld, false, kapacity.ReasonNotHeld, h.Message)
	}
}
