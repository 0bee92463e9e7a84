package validation

import (
	"maps"
	"slices"
	"strings"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	zalando "github.com/kubetide/kubetide/api/zalando/v1"
	"github.com/kubetide/kubetide/scaler/prescale"
	scalervalidation "github.com/kubetide/kubetide/scaler/validation"
	"github.com/kubetide/kubetide/workloads/stackset/generate"
)

// write says what a metric of the type needs.
var write = map[zalando.AutoscalerMetricType]string{
	zalando.CPUMetric:                    "write averageUtilization, in percent of the requests, for example 80",
	zalando.MemoryMetric:                 "write averageUtilization, in percent of the requests, for example 80",
	zalando.AmazonSQSMetric:              "write average, and queue with name and region",
	zalando.PodJSONMetric:                "write average, and endpoint with port, path and key",
	zalando.PodJsonMetric:                "write average, and endpoint with port, path and key",
	zalando.IngressMetric:                "write average, the requests per second for each pod",
	zalando.RouteGroupMetric:             "write average, the requests per second for each pod",
	zalando.RequestsPerSecondMetric:      "write average, and requestsPerSecond with hostnames",
	zalando.ZMONMetric:                   "write average, and zmon with checkID and key",
	zalando.ScalingScheduleMetric:        "write average, and scalingSchedule with name",
	zalando.ClusterScalingScheduleMetric: "write average, and clusterScalingSchedule with name",
}

func (f *findings) autoscaler(now time.Time) {
	a := f.set.Spec.StackTemplate.Spec.Autoscaler
	annotation := spec.Child("stackTemplate", "metadata", "annotations").Key(generate.IHPAAnnotation)
	_, chosen := f.source.Stack.Annotations[generate.IHPAAnnotation]
	if a == nil {
		if chosen {
			f.warn(annotation, "has no effect: there is no autoscaler that an IHPA could be made of")
		}
		return
	}
	before := len(f.errs)
	f.hpa(template.Child("autoscaler"), a)
	if chosen && len(f.errs) == before {
		f.ihpa(annotation, now)
	}
}

func (f *findings) hpa(path *field.Path, a *zalando.Autoscaler) {
	if a.MaxReplicas < 1 {
		f.invalid(path.Child("maxReplicas"), a.MaxReplicas, "must be at least 1")
	}
	if least := a.MinReplicas; least != nil {
		switch {
		case *least < 0:
			f.invalid(path.Child("minReplicas"), *least, "must not be below 0")
		case *least > a.MaxReplicas && a.MaxReplicas > 0:
			f.invalid(path.Child("maxReplicas"), a.MaxReplicas, "must not be less than minReplicas, which is %d", *least)
		case *least == 0:
			f.warn(path.Child("minReplicas"), "0 is refused by clusters without the feature gate HPAScaleToZero, and then there is no autoscaler: write 1")
		}
	}
	for i, m := range a.Metrics {
		f.metric(path.Child("metrics").Index(i), m)
	}
	if b := a.Behavior; b != nil {
		f.rules(path.Child("behavior", "scaleUp"), b.ScaleUp)
		f.rules(path.Child("behavior", "scaleDown"), b.ScaleDown)
	}
}

// ihpa looks at what the annotation makes of an autoscaler in which nothing is wrong.
func (f *findings) ihpa(path *field.Path, now time.Time) {
	ihpa, err := f.source.IHPA(0, prescale.State{}, false, nil)
	if err != nil {
		f.invalid(path, field.OmitValueType{}, "%v", err)
		return
	}
	if ihpa == nil { // the pods run elsewhere
		return
	}
	errs, warnings := scalervalidation.IHPA(ihpa, scalervalidation.Around{Now: now})
	for _, e := range errs {
		f.invalid(path, field.OmitValueType{}, "the IHPA's %v", e)
	}
	for _, w := range warnings {
		f.warn(path, "the IHPA's %s", w)
	}
}

// metric generates the autoscaler with this one only.
func (f *findings) metric(path *field.Path, m zalando.AutoscalerMetrics) {
	one := generate.Source{StackSet: f.set, Stack: f.source.Stack.DeepCopy()}
	one.Stack.Annotations = nil
	one.Stack.Spec.Autoscaler.Metrics = []zalando.AutoscalerMetrics{m}
	hpa, err := one.Autoscaler(0, prescale.State{}, false)
	if err != nil {
		text := err.Error()
		if remedy := write[m.Type]; remedy != "" {
			text += ": " + remedy
		}
		f.invalid(path, string(m.Type), "%s", text)
		return
	}
	for _, key := range slices.Sorted(maps.Keys(hpa.Annotations)) {
		if problems := validation.IsQualifiedName(strings.ToLower(key)); len(problems) > 0 || key != strings.ToLower(key) && m.Type == zalando.PodJSONMetric {
			f.invalid(path, string(m.Type), "the autoscaler would have the annotation %s, which is none: names take lower case letters, digits and dashes", key)
			return
		}
	}
	if m.Average != nil && m.Average.Sign() <= 0 {
		f.invalid(path.Child("average"), m.Average.String(), "must be above 0: it is the value for each pod")
	}
	if u := m.AverageUtilization; u != nil && *u < 1 {
		f.invalid(path.Child("averageUtilization"), *u, "must be above 0: it is a percentage of the requests")
	}
	switch m.Type {
	case zalando.CPUMetric:
		f.requests(path, m, corev1.ResourceCPU)
	case zalando.MemoryMetric:
		f.requests(path, m, corev1.ResourceMemory)
	case zalando.IngressMetric:
		if f.set.Spec.Ingress == nil {
			f.warn(path, "there is no spec.ingress whose requests could count")
		}
	case zalando.RouteGroupMetric:
		if f.set.Spec.RouteGroup == nil {
			f.warn(path, "there is no spec.routegroup whose requests could count")
		}
	case zalando.RequestsPerSecondMetric:
		for i, host := range m.RequestsPerSecond.Hostnames {
			if host == "" || strings.Trim(strings.ToLower(host), "abcdefghijklmnopqrstuvwxyz0123456789.-") != "" {
				f.invalid(path.Child("requestsPerSecond", "hostnames").Index(i), host, "is no host name: letters, digits, dots and dashes only")
			}
		}
	}
}

// requests warns of containers whose use is a percentage of nothing.
func (f *findings) requests(path *field.Path, m zalando.AutoscalerMetrics, resource corev1.ResourceName) {
	found := false
	for i, c := range f.set.Spec.StackTemplate.Spec.PodTemplate.Spec.Containers {
		if m.Container != "" && c.Name != m.Container {
			continue
		}
		found = true
		_, requested := c.Resources.Requests[resource]
		if _, limited := c.Resources.Limits[resource]; !requested && !limited {
			f.warn(path, "needs podTemplate.spec.containers[%d].resources.requests.%s, unless a LimitRange sets it: the metric is a percentage of that", i, resource)
		}
	}
	if !found && m.Container != "" {
		f.warn(path.Child("container"), "the podTemplate has no container %q", m.Container)
	}
}

// rules are what the API server asks of an HPA's.
func (f *findings) rules(path *field.Path, r *autoscalingv2.HPAScalingRules) {
	if r == nil {
		return
	}
	if s := r.StabilizationWindowSeconds; s != nil && (*s < 0 || *s > 3600) {
		f.invalid(path.Child("stabilizationWindowSeconds"), *s, "must be within 0 and 3600")
	}
	selects := []autoscalingv2.ScalingPolicySelect{autoscalingv2.MaxChangePolicySelect, autoscalingv2.MinChangePolicySelect, autoscalingv2.DisabledPolicySelect}
	if s := r.SelectPolicy; s != nil && !slices.Contains(selects, *s) {
		f.errs = append(f.errs, field.NotSupported(path.Child("selectPolicy"), *s, selects))
	}
	if t := r.Tolerance; t != nil && t.Sign() < 0 {
		f.invalid(path.Child("tolerance"), t.String(), "must not be below 0")
	}
	for i, p := range r.Policies {
		at := path.Child("policies").Index(i)
		types := []autoscalingv2.HPAScalingPolicyType{autoscalingv2.PodsScalingPolicy, autoscalingv2.PercentScalingPolicy}
		if !slices.Contains(types, p.Type) {
			f.errs = append(f.errs, field.NotSupported(at.Child("type"), p.Type, types))
		}
		if p.Value <= 0 {
			f.invalid(at.Child("value"), p.Value, "must be above 0; to forbid a direction write selectPolicy: Disabled")
		}
		if p.PeriodSeconds <= 0 || p.PeriodSeconds > 1800 {
			f.invalid(at.Child("periodSeconds"), p.PeriodSeconds, "must be within 1 and 1800")
		}
	}
}
