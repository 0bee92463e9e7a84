package validation

import (
	"slices"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/util/validation/field"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	"github.com/kubetide/kubetide/scaler/stability"
	"github.com/kubetide/kubetide/scaler/target"
)

func (f *findings) behavior(path *field.Path, o *kapacity.IntelligentHorizontalPodAutoscaler) {
	b := o.Spec.Behavior
	for _, d := range []struct {
		name   string
		is     kapacity.ScalingBehavior
		states []kapacity.PodState
	}{{"scaleUp", b.ScaleUp, []kapacity.PodState{kapacity.PodStateOnline}},
		{"scaleDown", b.ScaleDown, []kapacity.PodState{kapacity.PodStateCutoff, kapacity.PodStateStandby, kapacity.PodStateDeleted}}} {
		at := path.Child(d.name)
		f.tolerance(at.Child("tolerance"), d.is.Tolerance)
		if s := d.is.StabilizationWindowSeconds; s != nil && (*s < 0 || *s > 3600) {
			f.invalid(at.Child("stabilizationWindowSeconds"), *s, "must be within 0 and 3600")
		}
		for i, p := range d.is.Policies {
			f.policy(at.Child("policies").Index(i), p)
		}
		if s := d.is.SelectPolicy; s != nil && !slices.Contains([]autoscalingv2.ScalingPolicySelect{autoscalingv2.MaxChangePolicySelect, autoscalingv2.MinChangePolicySelect, autoscalingv2.DisabledPolicySelect}, *s) {
			f.add(field.NotSupported(at.Child("selectPolicy"), cut(string(*s), maxShown), []autoscalingv2.ScalingPolicySelect{autoscalingv2.MaxChangePolicySelect, autoscalingv2.MinChangePolicySelect, autoscalingv2.DisabledPolicySelect}))
		}
		if g := d.is.GrayStrategy; g != nil {
			f.gray(at.Child("grayStrategy"), *g, d.states, d.is.Disabled)
		}
	}
	g := b.ScaleDown.GrayStrategy
	if g == nil || g.GrayState != kapacity.PodStateCutoff && g.GrayState != kapacity.PodStateStandby {
		return
	}
	f.replicaProfile(path.Child("replicaProfile"), b.ReplicaProfile)
	if ref := o.Spec.ScaleTargetRef; ref.Kind != "" && !target.Watched(ref) {
		f.warn(path.Child("scaleDown", "grayStrategy", "grayState"), "%s needs pods that lead to %s %s by their owners: without such pods it fails, and Deleted does not",
			g.GrayState, cut(ref.Kind, 63), cut(ref.Name, 63))
	}
}

func (f *findings) policy(path *field.Path, p kapacity.ScalingPolicy) {
	if p.Type != kapacity.PodsScalingPolicy && p.Type != kapacity.PercentScalingPolicy {
		f.add(field.NotSupported(path.Child("type"), cut(string(p.Type), maxShown), []kapacity.ScalingPolicyType{kapacity.PodsScalingPolicy, kapacity.PercentScalingPolicy}))
	}
	if p.Value <= 0 {
		f.invalid(path.Child("value"), p.Value, "must be above 0; to forbid a direction write selectPolicy: Disabled")
	}
	if p.PeriodSeconds <= 0 || p.PeriodSeconds > 1800 {
		f.invalid(path.Child("periodSeconds"), p.PeriodSeconds, "must be within 1 and 1800")
	}
}

func (f *findings) gray(path *field.Path, g kapacity.GrayStrategy, states []kapacity.PodState, disabled bool) {
	if !slices.Contains(states, g.GrayState) {
		f.add(field.NotSupported(path.Child("grayState"), kapacity.PodState(cut(string(g.GrayState), maxShown)), states))
	}
	if g.ChangeIntervalSeconds <= 0 {
		f.invalid(path.Child("changeIntervalSeconds"), g.ChangeIntervalSeconds, "must be above 0")
	}
	if g.ChangePercent <= 0 || g.ChangePercent > 100 {
		f.invalid(path.Child("changePercent"), g.ChangePercent, "must be within 1 and 100")
	}
	if g.ObservationSeconds < 0 {
		f.invalid(path.Child("observationSeconds"), g.ObservationSeconds, "must not be below 0")
	}
	holds := g.GrayState == kapacity.PodStateCutoff || g.GrayState == kapacity.PodStateStandby
	switch {
	case disabled:
		f.warn(path, "has no effect: this direction is disabled")
	case g.ChangePercent == 100 && !holds:
		f.warn(path.Child("changePercent"), "100 makes the whole change in one step: the strategy has no effect")
	case g.ObservationSeconds > 0 && !holds:
		f.warn(path.Child("observationSeconds"), "has no effect: only pods in the state Cutoff or Standby are observed")
	case g.ObservationSeconds == 0 && g.ChangePercent == 100 && holds:
		f.warn(path.Child("observationSeconds"), "all pods are cut in one step and, without an observation, deleted as soon as none is ready: set observationSeconds, or changePercent below 100")
	}
}

// replicaProfile warns of what is declared and not built: pods could not be cut.
func (f *findings) replicaProfile(path *field.Path, b kapacity.ReplicaProfileBehavior) {
	if b.PodSorter.Type == kapacity.ExternalPodSorter {
		f.warn(path.Child("podSorter", "type"), "External is not supported, and no pod is cut with it: write WorkloadDefault")
	}
	if b.PodTrafficController.Type == kapacity.ExternalPodTrafficController {
		f.warn(path.Child("podTrafficController", "type"), "External is not supported, and no pod is cut with it: write ReadinessGate")
	}
}

func (f *findings) stabilityCheckers(path *field.Path, o *kapacity.IntelligentHorizontalPodAutoscaler) {
	list := o.Spec.StabilityCheckers
	if len(list) > 0 && o.Spec.Behavior.ScaleDown.GrayStrategy == nil {
		f.warn(path, "have no effect: they watch gray runs downwards, and behavior.scaleDown has no grayStrategy")
	}
	for i, c := range list {
		at := path.Index(i)
		if c.StabilizationAction != kapacity.PauseAction && c.StabilizationAction != kapacity.RollbackAction {
			f.add(field.NotSupported(at.Child("stabilizationAction"), kapacity.StabilizationAction(cut(string(c.StabilizationAction), maxShown)), []kapacity.StabilizationAction{kapacity.PauseAction, kapacity.RollbackAction}))
		}
		if c.CoolDownSeconds < 0 {
			f.invalid(at.Child("coolDownSeconds"), c.CoolDownSeconds, "must not be below 0")
		}
		switch {
		case c.Type == kapacity.ExternalStabilityChecker:
			f.warn(at.Child("type"), "External is not supported: the checker finds nothing; write Metrics")
		case c.Type != kapacity.MetricsStabilityChecker:
			f.add(field.NotSupported(at.Child("type"), kapacity.StabilityCheckerType(cut(string(c.Type), maxShown)), []kapacity.StabilityCheckerType{kapacity.MetricsStabilityChecker}))
		case c.Metrics == nil || len(c.Metrics.Metrics) == 0:
			f.required(at.Child("metrics", "metrics"), "write at least one metric to compare")
		default:
			f.comparisons(at.Child("metrics", "metrics"), o, c)
		}
	}
}

func (f *findings) comparisons(path *field.Path, o *kapacity.IntelligentHorizontalPodAutoscaler, c kapacity.StabilityChecker) {
	checks := stability.Checks([]kapacity.StabilityChecker{c}, make([]stability.Reading, len(c.Metrics.Metrics)))
	for i, m := range c.Metrics.Metrics {
		at := path.Index(i)
		if !slices.Contains(operators, m.Operator) {
			f.add(field.NotSupported(at.Child("operator"), kapacity.MetricOperator(cut(string(m.Operator), maxShown)), operators))
		}
		t, here, ok := f.metric(at, m.MetricSpec)
		switch {
		case !ok:
		case t.AverageUtilization != nil:
			f.warn(here.Child("averageUtilization"), "is not supported in a stability checker, and the metric compares nothing: write averageValue")
		case checks[0].Metrics[i].Err != nil:
			f.invalid(here, "", "%v", checks[0].Metrics[i].Err)
		}
	}
	f.settings(path, o.Spec.ScaleTargetRef, c.Metrics.Metrics)
}

var operators = []kapacity.MetricOperator{kapacity.MetricOperatorEqual, kapacity.MetricOperatorGreater, kapacity.MetricOperatorLess, kapacity.MetricOperatorGreaterOrEqual, kapacity.MetricOperatorLessOrEqual}
