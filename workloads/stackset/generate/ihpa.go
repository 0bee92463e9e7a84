package generate

import (
	"fmt"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	zalando "github.com/kubetide/kubetide/api/zalando/v1"
	"github.com/kubetide/kubetide/scaler/prescale"
)

// IHPAAnnotation on a Stack turns its autoscaler into an IntelligentHorizontalPodAutoscaler, in place of a HorizontalPodAutoscaler. Its
// value is a YAML object of what an autoscaler has no field for (see additions); it may be empty.
const IHPAAnnotation = "kubetide.io/ihpa"

// additions are what IHPAAnnotation may say, with the meaning that the fields have in an IHPA's spec.
type additions struct {
	// PortraitProviders stand beside the autoscaler's metrics, whose priority is 0.
	PortraitProviders []kapacity.HorizontalPortraitProvider `json:"portraitProviders,omitempty"`
	Behavior          struct {
		ScaleUp        grayed                          `json:"scaleUp,omitzero"`
		ScaleDown      grayed                          `json:"scaleDown,omitzero"`
		ReplicaProfile kapacity.ReplicaProfileBehavior `json:"replicaProfile,omitzero"`
	} `json:"behavior,omitzero"`
	StabilityCheckers []kapacity.StabilityChecker `json:"stabilityCheckers,omitempty"`
	ScheduledBounds   []kapacity.ScheduledBounds  `json:"scheduledBounds,omitempty"`
}

type grayed struct {
	GrayStrategy *kapacity.GrayStrategy `json:"grayStrategy,omitempty"`
}

// IHPA returns the IntelligentHorizontalPodAutoscaler for a Stack that gets so many percent of the traffic; nil if there should be none,
// and then there may be the one of Autoscaler. live is the one that there is, or nil: what people do with it, a hold and a pause, stays.
// The metrics, their annotations and the limits of the behavior are those that the HorizontalPodAutoscaler would have, and so are the
// errors. The floor of prescaling is the lower bound, in scheduled bounds too: the engine goes straight to a bound, whatever its
// portraits say and its behavior allows. What the API server fills in where the annotation leaves a field open is not filled in here.
func (s Source) IHPA(weight int, held prescale.State, scaledDown bool, live *kapacity.IntelligentHorizontalPodAutoscaler) (*kapacity.IntelligentHorizontalPodAutoscaler, error) {
	text, chosen := s.Stack.Annotations[IHPAAnnotation]
	if !chosen {
		return nil, nil
	}
	hpa, err := s.hpa(weight, held, scaledDown)
	if hpa == nil {
		return nil, err
	}
	var more additions
	if err := yaml.UnmarshalStrict([]byte(text), &more); err != nil {
		return nil, fmt.Errorf("annotation %s: %w", IHPAAnnotation, err)
	}
	ihpa := &kapacity.IntelligentHorizontalPodAutoscaler{ObjectMeta: hpa.ObjectMeta, Spec: kapacity.IntelligentHorizontalPodAutoscalerSpec{
		ScaleTargetRef: hpa.Spec.ScaleTargetRef, MinReplicas: 1, MaxReplicas: hpa.Spec.MaxReplicas, ScaleMode: kapacity.ScaleModeAuto,
		PortraitProviders: providers(hpa.Spec.Metrics, more.PortraitProviders),
		Behavior:          limits(hpa.Spec.Behavior), StabilityCheckers: more.StabilityCheckers, ScheduledBounds: more.ScheduledBounds,
	}}
	ihpa.SetGroupVersionKind(kapacity.SchemeGroupVersion.WithKind(kapacity.IHPAKind))
	if least := hpa.Spec.MinReplicas; least != nil {
		ihpa.Spec.MinReplicas = *least
	}
	for i := range ihpa.Spec.ScheduledBounds {
		window := &ihpa.Spec.ScheduledBounds[i]
		most := ihpa.Spec.MaxReplicas
		if window.MaxReplicas != nil {
			most = *window.MaxReplicas
		}
		window.MinReplicas = held.MinReplicas(window.MinReplicas, most)
	}
	ihpa.Spec.Behavior.ScaleUp.GrayStrategy = more.Behavior.ScaleUp.GrayStrategy
	ihpa.Spec.Behavior.ScaleDown.GrayStrategy = more.Behavior.ScaleDown.GrayStrategy
	ihpa.Spec.Behavior.ReplicaProfile = more.Behavior.ReplicaProfile
	if live != nil {
		ihpa.Spec.Paused, ihpa.Spec.Hold = live.Spec.Paused, live.Spec.Hold.DeepCopy()
	}
	return ihpa, nil
}

// providers returns those of the autoscaler's metrics, and the others behind them. Without any metric and any other it is cpu that
// counts, as an API server has it for a HorizontalPodAutoscaler. A schedule stands for itself, too, since the tolerance would hide the last
// tenth of it; for HorizontalPodAutoscalers there is the adjuster.
func providers(metrics []autoscalingv2.MetricSpec, others []kapacity.HorizontalPortraitProvider) (out []kapacity.HorizontalPortraitProvider) {
	if len(metrics) == 0 {
		if len(others) > 0 {
			return others
		}
		metrics = []autoscalingv2.MetricSpec{{Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{
			Name: corev1.ResourceCPU, Target: autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: new(int32(80))}}}}
	}
	portrait := kapacity.PortraitSpec{PortraitType: kapacity.ReactivePortrait, Algorithm: kapacity.PortraitAlgorithm{Type: kapacity.KubeHPAAlgorithm}}
	out = append(out, kapacity.HorizontalPortraitProvider{Type: kapacity.DynamicProvider, Dynamic: &kapacity.DynamicHorizontalPortraitProvider{}})
	named := map[string]bool{} // providers of one name would be one in status
	for _, m := range metrics {
		portrait.Metrics = append(portrait.Metrics, kapacity.MetricSpec{MetricSpec: m})
		if m.Object == nil || named[m.Object.DescribedObject.Name] {
			continue
		}
		switch ref := m.Object.DescribedObject; ref.Kind {
		case zalando.ScalingScheduleKind, zalando.ClusterScalingScheduleKind:
			named[ref.Name] = true
			average := m.Object.Target.AverageValue.DeepCopy()
			out = append(out, kapacity.HorizontalPortraitProvider{Type: kapacity.ScheduleProvider, Schedule: &kapacity.ScheduleHorizontalPortraitProvider{
				Kind: ref.Kind, Name: ref.Name, AverageValue: &average}})
		}
	}
	out[0].Dynamic.PortraitSpec = portrait
	return append(out, others...)
}

// limits returns the limits of a HorizontalPodAutoscaler's behavior, its defaults among them: an IHPA without any limit has none.
func limits(b *autoscalingv2.HorizontalPodAutoscalerBehavior) (out kapacity.IHPABehavior) {
	limited := false
	one := func(rules *autoscalingv2.HPAScalingRules) (out kapacity.ScalingBehavior) {
		if rules == nil {
			return out
		}
		out.StabilizationWindowSeconds, out.SelectPolicy, out.Tolerance = rules.StabilizationWindowSeconds, rules.SelectPolicy, rules.Tolerance
		for _, p := range rules.Policies {
			out.Policies = append(out.Policies, kapacity.ScalingPolicy{Type: kapacity.ScalingPolicyType(p.Type), Value: p.Value, PeriodSeconds: p.PeriodSeconds})
		}
		limited = limited || out.StabilizationWindowSeconds != nil || out.SelectPolicy != nil || len(out.Policies) > 0
		return out
	}
	if b != nil {
		out.ScaleUp, out.ScaleDown = one(b.ScaleUp), one(b.ScaleDown)
	}
	if !limited { // what is not set is then as in a HorizontalPodAutoscaler
		out.ScaleDown.StabilizationWindowSeconds = new(int32(300))
	}
	return out
}
