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

// wanted is where the workload should go, gray steps apart.
type wanted struct {
	// replicas is nil where nobody wants anything: then they stay as they are.
	replicas *int32
	steps    []decision.Step
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

// want takes what the portraits ask for through the behavior, the bounds and the hold, and notes it in status. online is the
// count that is ordered now.
func (r *Reconciler) want(rd *round, m merge.Outcome, b bounds.Decision, online int32) wanted {
	o, now := rd.o, rd.now
	var out wanted
	var target *int32
	before := behaviorOf(o.Status.Behavior)
	up, down := rulesOf(o.Spec.Behavior)
	in := behavior.Inputs{Wanted: m.Replicas, Current: online, Min: b.Min, Max: b.Max, Up: up, Down: down}
	state := behavior.Counted(before, in, now)
	if m.Valid {
		setValue(&o.Status, m)
		d := took[behavior.Decision](rd)(replay.Behavior(state, in, now))
		state, target = d.State, new(d.Replicas)
		out.wake(d.Next, "a window or policy of the behavior lets the count go on")
		switch {
		case d.BlockedUntil.IsZero():
		case m.Replicas < in.Current:
			out.counterfactuals = append(out.counterfactuals, "scale-down blocked until "+clockOf(d.BlockedUntil))
		default:
			out.counterfactuals = append(out.counterfactuals, "scale-up blocked until "+clockOf(d.BlockedUntil))
		}
		out.steps = append(out.steps, d.Steps...)
		note := b.Note(merge.Limit{Replicas: d.Replicas, Reason: d.Reason})
		r.setCondition(o, kapacity.ConditionScalingLimited, d.Limited, d.Reason, d.Message+note)
	} else {
		state = state.Lapsed(now)
	}

	h := decideHold(o.Spec.Hold, o.Status.HeldReplicas, o.Status.DesiredReplicas, now)
	o.Status.HeldReplicas = h.Replicas
	r.setHeld(o, h)
	if h.Replicas != nil {
		limit, step := b.Clamp(*h.Replicas)
		if target != nil && *target != limit.Replicas {
			out.counterfactuals = []string{fmt.Sprintf("%d replicas when the hold is lifted", *target)}
		}
		target, out.next = new(limit.Replicas), time.Time{}
		out.wake(h.Until, "the hold lifts itself")
		out.steps = append(out.steps, *h.step(), step)
		r.setCondition(o, kapacity.ConditionScalingLimited, limit.Limited, limit.Reason, limit.Message)
	}
	if target != nil {
		o.Status.DesiredReplicas = target
	}
	if rd.pending {
		state = state.Uncounted(before)
	}
	out.replicas, out.limits, out.limited = target, state, in
	return out
}

// order notes in status that the count goes to another one; nil is nowhere, and to leave it to others.
func (r *Reconciler) order(ctx context.Context, rd *round, w wanted, to *int32) error {
	state, current := w.limits, w.limited.Current
	if to == nil {
		state.Order = nil
	} else {
		if o := state.Order; o != nil && rd.rp != nil && r.Live != nil && o.From == current && *to == current {
			// It is taken back. Where the answer to its write was lost it may yet be carried out, and would count for nothing then.
			is := &kapacity.ReplicaProfile{}
			if err := r.Live.Get(ctx, client.ObjectKeyFromObject(rd.rp), is); client.IgnoreNotFound(err) != nil {
				return fmt.Errorf("get ReplicaProfile: %w", err)
			} else if err == nil && is.Spec.OnlineReplicas != current {
				return apierrors.NewConflict(kapacity.SchemeGroupVersion.WithResource("replicaprofiles").GroupResource(), is.Name, errors.New("seen as it was before"))
			}
		}
		state = behavior.Ordered(state, w.limited, *to, rd.now)
	}
	rd.o.Status.Behavior = behaviorStatus(state)
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
