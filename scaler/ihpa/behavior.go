package ihpa

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	"github.com/kubetide/kubetide/scaler/behavior"
)

// rulesOf reads the limits of both directions. Where neither has any there are none, as in Kapacity; else what is not set is as
// in an HPA with spec.behavior.
func rulesOf(b kapacity.IHPABehavior) (up, down *behavior.Rules) {
	return behavior.Defaulted(rules(b.ScaleUp), rules(b.ScaleDown))
}

func rules(b kapacity.ScalingBehavior) *behavior.Rules {
	if b.StabilizationWindowSeconds == nil && b.SelectPolicy == nil && len(b.Policies) == 0 {
		return nil
	}
	r := &behavior.Rules{}
	if b.StabilizationWindowSeconds != nil {
		r.StabilizationWindow = new(time.Duration(*b.StabilizationWindowSeconds) * time.Second)
	}
	if b.SelectPolicy != nil {
		r.SelectPolicy = behavior.SelectPolicy(*b.SelectPolicy)
	}
	for _, p := range b.Policies {
		// What was stored before there was a rule against it must not divide by it.
		r.Policies = append(r.Policies, behavior.Policy{Type: behavior.PolicyType(p.Type), Value: max(1, p.Value), Period: time.Duration(max(1, p.PeriodSeconds)) * time.Second})
	}
	return r
}

// behaviorOf reads what the limits remember.
func behaviorOf(s *kapacity.BehaviorStatus) behavior.State {
	var out behavior.State
	if s == nil {
		return out
	}
	recommended := func(list []kapacity.Recommendation) (out []behavior.Recommendation) {
		for _, r := range list {
			out = append(out, behavior.Recommendation{Replicas: r.Replicas, Until: timeOf(r.Until)})
		}
		return out
	}
	changed := func(list []kapacity.ReplicaChange) (out []behavior.Change) {
		for _, c := range list {
			out = append(out, behavior.Change{Replicas: c.Replicas, Time: c.Time.Time, First: timeOf(c.First)})
		}
		return out
	}
	out.Highest, out.Lowest, out.Ups, out.Downs = recommended(s.Highest), recommended(s.Lowest), changed(s.Ups), changed(s.Downs)
	if s.Order != nil {
		out.Order = &behavior.Order{From: s.Order.From, To: s.Order.To, Since: s.Order.Since.Time}
	}
	return out
}

// behaviorStatus writes it down; nil where there is nothing to remember.
func behaviorStatus(s behavior.State) *kapacity.BehaviorStatus {
	if s.Equal(behavior.State{}) {
		return nil
	}
	recommended := func(list []behavior.Recommendation) (out []kapacity.Recommendation) {
		for _, r := range list {
			out = append(out, kapacity.Recommendation{Replicas: r.Replicas, Until: microTime(r.Until)})
		}
		return out
	}
	changed := func(list []behavior.Change) (out []kapacity.ReplicaChange) {
		for _, c := range list {
			out = append(out, kapacity.ReplicaChange{Replicas: c.Replicas, Time: metav1.NewMicroTime(c.Time), First: microTime(c.First)})
		}
		return out
	}
	out := &kapacity.BehaviorStatus{Highest: recommended(s.Highest), Lowest: recommended(s.Lowest), Ups: changed(s.Ups), Downs: changed(s.Downs)}
	if s.Order != nil {
		out.Order = &kapacity.ReplicaOrder{From: s.Order.From, To: s.Order.To, Since: metav1.NewMicroTime(s.Order.Since)}
	}
	return out
}
