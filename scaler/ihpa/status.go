package ihpa

import (
	"fmt"
	"strings"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	"github.com/kubetide/kubetide/internal/decision"
	"github.com/kubetide/kubetide/scaler/event"
	"github.com/kubetide/kubetide/scaler/gray"
	"github.com/kubetide/kubetide/scaler/merge"
)

// runOf reads the run that the status holds. A run that Kapacity began has no start, so gray begins anew from the ReplicaProfile
// as it is: no pod that has been moved is moved again, and the next step keeps its distance from Kapacity's last.
func runOf(s *kapacity.GrayStatus) gray.Run {
	if s == nil {
		return gray.Run{}
	}
	if s.StartedAt == nil {
		return gray.Run{LastStep: s.LastUpdateTime.Time}
	}
	r := gray.Run{From: s.From, To: s.To, State: gray.State(s.GrayState), Percent: s.GrayPercent, Steps: s.Steps,
		Started: timeOf(s.StartedAt), LastStep: timeOf(s.LastStepTime), PendingSince: timeOf(s.PendingSince),
		FrozenSince: timeOf(s.FrozenSince), ObservedSince: timeOf(s.ObservedSince)}
	for _, b := range s.Held {
		r.Held = append(r.Held, gray.Batch{Replicas: b.Replicas, Since: b.Since.Time})
	}
	return r
}

// grayStatus writes the run down; before is the status so far.
func grayStatus(r gray.Run, before *kapacity.GrayStatus, now time.Time) *kapacity.GrayStatus {
	if r.Started.IsZero() {
		return nil
	}
	s := &kapacity.GrayStatus{GrayPercent: r.Percent, From: r.From, To: r.To, GrayState: kapacity.PodState(r.State), Steps: r.Steps,
		StartedAt: microTime(r.Started), LastStepTime: microTime(r.LastStep), PendingSince: microTime(r.PendingSince),
		FrozenSince: microTime(r.FrozenSince), ObservedSince: microTime(r.ObservedSince), LastUpdateTime: metav1.NewTime(now.Truncate(time.Second))}
	if before != nil && before.GrayPercent == s.GrayPercent && before.Steps == s.Steps && timeOf(before.StartedAt).Equal(r.Started) {
		s.LastUpdateTime = before.LastUpdateTime
	}
	for _, b := range r.Held {
		s.Held = append(s.Held, kapacity.HeldBatch{Replicas: b.Replicas, Since: metav1.NewMicroTime(b.Since)})
	}
	return s
}

func timeOf(t *metav1.MicroTime) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.Time
}

func microTime(t time.Time) *metav1.MicroTime {
	if t.IsZero() {
		return nil
	}
	return new(metav1.NewMicroTime(t))
}

func strategy(b kapacity.ScalingBehavior) *gray.Strategy {
	if b.GrayStrategy == nil {
		return nil
	}
	g := b.GrayStrategy
	return &gray.Strategy{State: gray.State(g.GrayState), ChangePercent: g.ChangePercent,
		Interval: time.Duration(g.ChangeIntervalSeconds) * time.Second, Observation: time.Duration(g.ObservationSeconds) * time.Second}
}

func direction(b kapacity.IHPABehavior) kapacity.ScalingDirection {
	switch up, down := !b.ScaleUp.Disabled, !b.ScaleDown.Disabled; {
	case up && down:
		return kapacity.ScalingDirectionBoth
	case up:
		return kapacity.ScalingDirectionUp
	case down:
		return kapacity.ScalingDirectionDown
	}
	return kapacity.ScalingDirectionNeither
}

// setValue notes what the winner asks for. The previous value changes with the provider or the number only: another expiry is
// the same value for longer.
func setValue(s *kapacity.IntelligentHorizontalPodAutoscalerStatus, m merge.Outcome) {
	value := &kapacity.PortraitValue{Provider: m.Winner, Replicas: m.Replicas}
	if !m.Expires.IsZero() {
		value.ExpireTime = new(metav1.NewTime(m.Expires))
	}
	if c := s.CurrentPortraitValue; c != nil && (c.Provider != value.Provider || c.Replicas != value.Replicas) {
		s.PreviousPortraitValue = c
	}
	s.CurrentPortraitValue = value
}

// setCondition keeps the transition time unless the status changes.
func (r *Reconciler) setCondition(o *kapacity.IntelligentHorizontalPodAutoscaler, kind string, status bool, reason, message string) {
	c := metav1.Condition{Type: kind, Status: metav1.ConditionFalse, Reason: reason, Message: event.Bounded(message),
		ObservedGeneration: o.Generation, LastTransitionTime: metav1.NewTime(r.Clock.Now().Truncate(time.Second))}
	if status {
		c.Status = metav1.ConditionTrue
	}
	meta.SetStatusCondition(&o.Status.Conditions, c)
}

func (r *Reconciler) setHealth(o *kapacity.IntelligentHorizontalPodAutoscaler, m merge.Outcome) {
	if len(m.Failed) == 0 {
		message := messageHealthy
		if len(m.Warnings) > 0 {
			message += warningMark + strings.Join(m.Warnings, "; ")
		}
		r.setCondition(o, kapacity.ConditionPortraitsHealthy, true, kapacity.ReasonProvidersHealthy, message)
		return
	}
	var parts []string
	for _, f := range m.Failed {
		parts = append(parts, fmt.Sprintf("provider %s failed: %v", f.Provider, strings.ReplaceAll(f.Err.Error(), "\n", "; ")))
	}
	if len(m.HeldBy) > 0 {
		parts = append(parts, fmt.Sprintf("replicas are not lowered while %s fails", strings.Join(m.HeldBy, ", ")))
	}
	r.setCondition(o, kapacity.ConditionPortraitsHealthy, false, kapacity.ReasonProviderFailed, strings.Join(append(parts, m.Warnings...), "; "))
}

const (
	messageHealthy = "all portrait providers answer"
	warningMark    = ", with warnings: "
	// ReasonPortraitWarning is the reason of the Warning event for what the user should mend though it works.
	ReasonPortraitWarning = "PortraitWarning"
)

// warn sends a Warning for each condition that has newly become bad, or bad for another cause. What stays as it is was said
// before, also by an earlier leader, since the conditions are kept.
func (r *Reconciler) warn(o *kapacity.IntelligentHorizontalPodAutoscaler, before []metav1.Condition) {
	for _, c := range o.Status.Conditions {
		old := meta.FindStatusCondition(before, c.Type)
		if old != nil && old.Status == c.Status && old.Reason == c.Reason && old.Message == c.Message {
			continue
		}
		switch c.Type {
		case kapacity.ConditionScalingActive:
			// Conflict and the ReplicaProfile controller speak for themselves.
			if c.Status == metav1.ConditionTrue || c.Reason == kapacity.ReasonScalingPaused || c.Reason == kapacity.ReasonAnotherAutoscaler || c.Reason == reasonProfileFailed {
				continue
			}
		case kapacity.ConditionPortraitsHealthy:
			if c.Status == metav1.ConditionTrue {
				if _, warnings, ok := strings.Cut(c.Message, warningMark); ok {
					r.Recorder.Event(o, corev1.EventTypeWarning, ReasonPortraitWarning, warnings)
				}
				continue
			}
		case kapacity.ConditionHeld:
			if c.Reason != kapacity.ReasonNotHeld || old != nil && old.Status == metav1.ConditionTrue {
				r.Recorder.Event(o, corev1.EventTypeNormal, heldEvent(c), c.Message)
			}
			continue
		case kapacity.ConditionStable:
			if c.Status == metav1.ConditionTrue {
				continue
			}
			// Its message names when the breach was over, too, which is no new breach.
			if old != nil && old.Status == c.Status && old.Reason == c.Reason {
				continue
			}
		case kapacity.ConditionGrayStalled, kapacity.ConditionConflict:
			if c.Status != metav1.ConditionTrue {
				continue
			}
		default:
			continue
		}
		r.Recorder.Event(o, corev1.EventTypeWarning, c.Reason, c.Message)
	}
}

// heldEvent is the reason of the event for the condition Held: a hold that is taken away has ended as one that lifted itself.
func heldEvent(c metav1.Condition) string {
	if c.Status == metav1.ConditionTrue {
		return kapacity.ReasonHoldBegan
	}
	return kapacity.ReasonHoldEnded
}

// recordOf puts the decision together; result says what came out.
func recordOf(o *kapacity.IntelligentHorizontalPodAutoscaler, now time.Time, trigger, result string, candidates []decision.Candidate, steps []decision.Step, ahead outlook) decision.Record {
	rec := decision.Record{Object: logKey(o.Namespace, o.Name), Time: now.UTC(), Trigger: trigger, Candidates: candidates, Steps: steps, Result: result,
		NextCause: ahead.cause, Counterfactuals: ahead.counterfactuals}
	if !ahead.next.IsZero() {
		rec.Next = new(ahead.next.UTC())
	}
	return rec
}

func logKey(namespace, name string) decision.Object {
	return decision.Object{Kind: kapacity.IHPAKind, Namespace: namespace, Name: name}
}

// maxCounterfactuals is the API's bound.
const maxCounterfactuals = 16

// lastDecision is the record in the API's form.
func lastDecision(rec decision.Record) *kapacity.DecisionRecord {
	rec = rec.Bounded()
	out := &kapacity.DecisionRecord{Time: metav1.NewMicroTime(rec.Time.Truncate(time.Microsecond)), Trigger: rec.Trigger, Result: rec.Result,
		NextCause: rec.NextCause, Counterfactuals: rec.Counterfactuals[:min(len(rec.Counterfactuals), maxCounterfactuals)], Truncated: rec.Truncated}
	if rec.Next != nil {
		out.Next = new(metav1.NewMicroTime(rec.Next.Truncate(time.Microsecond)))
	}
	for _, c := range rec.Candidates {
		one := kapacity.DecisionCandidate{Provider: c.Provider, Priority: c.Priority, Replicas: c.Replicas, Chosen: c.Chosen, Failed: c.Failed, Reason: c.Reason}
		if c.Expires != nil {
			one.Expires = new(metav1.NewMicroTime(c.Expires.Truncate(time.Microsecond)))
		}
		out.Candidates = append(out.Candidates, one)
	}
	for _, s := range rec.Steps {
		out.Steps = append(out.Steps, kapacity.DecisionStep{Stage: s.Stage, Replicas: s.Replicas, Reason: s.Reason})
	}
	return out
}

func targetName(o *kapacity.IntelligentHorizontalPodAutoscaler, ref autoscalingv2.CrossVersionObjectReference) string {
	return fmt.Sprintf("%s %s/%s", ref.Kind, o.Namespace, ref.Name)
}
