package validation

import (
	"fmt"
	"strings"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	"github.com/kubetide/kubetide/internal/window"
)

// portrait validates what a HorizontalPortrait and a Dynamic provider have in common. What an external generator makes of its
// settings, it knows itself.
func (f *findings) portrait(path *field.Path, target autoscalingv2.CrossVersionObjectReference, p kapacity.PortraitSpec) {
	if p.PortraitType == "" {
		f.required(path.Child("portraitType"), "write Reactive, Predictive, or a name of your own")
	}
	if p.ExternalGeneratorName != "" {
		return
	}
	at := path.Child("algorithm")
	switch p.Algorithm.Type {
	case kapacity.KubeHPAAlgorithm:
		if len(p.Metrics) == 0 {
			f.required(path.Child("metrics"), "the algorithm KubeHPA needs at least one")
		}
		f.kubeHPA(at.Child("kubeHPA"), p.Algorithm.KubeHPA)
		for i, m := range p.Metrics {
			if t, here, ok := f.metric(path.Child("metrics").Index(i), m.MetricSpec); ok {
				f.replicaTarget(here, m.MetricSpec, t)
			}
		}
		f.settings(path.Child("metrics"), target, p.Metrics)
	case kapacity.ExternalJobAlgorithm:
		f.externalJob(at.Child("externalJob"), p.Algorithm.ExternalJob)
	default:
		f.add(field.NotSupported(at.Child("type"), cut(string(p.Algorithm.Type), maxShown), []kapacity.PortraitAlgorithmType{kapacity.KubeHPAAlgorithm, kapacity.ExternalJobAlgorithm}))
		f.errs[len(f.errs)-1].Detail += "; or name who makes the portrait in externalGeneratorName"
	}
}

func (f *findings) kubeHPA(path *field.Path, k *kapacity.KubeHPAPortraitAlgorithm) {
	if k == nil {
		return
	}
	f.tolerance(path.Child("tolerance"), &k.Tolerance)
	f.tolerance(path.Child("scaleUpTolerance"), k.ScaleUpTolerance)
	f.tolerance(path.Child("scaleDownTolerance"), k.ScaleDownTolerance)
	for _, d := range []struct {
		name string
		is   time.Duration
	}{{"syncPeriod", k.SyncPeriod.Duration}, {"cpuInitializationPeriod", k.CPUInitializationPeriod.Duration}, {"initialReadinessDelay", k.InitialReadinessDelay.Duration}} {
		if d.is < 0 {
			f.invalid(path.Child(d.name), d.is.String(), "must not be below 0")
		}
	}
	if d := k.SyncPeriod.Duration; d > 0 && d < time.Second {
		f.warn(path.Child("syncPeriod"), "%s is less than a second, which is taken in its place: samples are followed as they come in any case", d)
	}
	w := k.PanicWindow
	if w == nil {
		return
	}
	for _, b := range []struct {
		name        string
		value       int32
		least, most int32
	}{{"stableSeconds", w.StableSeconds, 6, 3600}, {"windowPercent", w.WindowPercent, 1, 100}, {"thresholdPercent", w.ThresholdPercent, 110, 1000}} {
		if b.value != 0 && (b.value < b.least || b.value > b.most) {
			f.invalid(path.Child("panicWindow", b.name), b.value, "must be within %d and %d", b.least, b.most)
		}
	}
}

func (f *findings) tolerance(path *field.Path, q *resource.Quantity) {
	switch {
	case q == nil:
	case q.Sign() < 0:
		f.invalid(path, q.String(), "must not be below 0")
	case q.CmpInt64(1) >= 0:
		f.warn(path, "%s is a share of the target, and ten percent is 0.1: nothing is ever lowered with 1 or more", q)
	}
}

// metric returns the target of a metric, where that is, and whether there is one.
func (f *findings) metric(path *field.Path, m autoscalingv2.MetricSpec) (*autoscalingv2.MetricTarget, *field.Path, bool) {
	set := map[string]bool{"resource": m.Resource != nil, "containerResource": m.ContainerResource != nil, "pods": m.Pods != nil, "object": m.Object != nil, "external": m.External != nil}
	var own string
	switch m.Type {
	case autoscalingv2.ResourceMetricSourceType:
		own = "resource"
	case autoscalingv2.ContainerResourceMetricSourceType:
		own = "containerResource"
	case autoscalingv2.PodsMetricSourceType:
		own = "pods"
	case autoscalingv2.ObjectMetricSourceType:
		own = "object"
	case autoscalingv2.ExternalMetricSourceType:
		own = "external"
	default:
		f.add(field.NotSupported(path.Child("type"), cut(string(m.Type), maxShown), []autoscalingv2.MetricSourceType{autoscalingv2.ResourceMetricSourceType,
			autoscalingv2.ContainerResourceMetricSourceType, autoscalingv2.PodsMetricSourceType, autoscalingv2.ObjectMetricSourceType, autoscalingv2.ExternalMetricSourceType}))
		return nil, nil, false
	}
	for _, name := range []string{"resource", "containerResource", "pods", "object", "external"} {
		if set[name] && name != own {
			f.add(field.Forbidden(path.Child(name), fmt.Sprintf("the type is %s: take this away, or change the type", m.Type)))
		}
	}
	at := path.Child(own)
	if !set[own] {
		f.required(at, "the type is %s: write its settings here", m.Type)
		return nil, nil, false
	}
	identified := func(id autoscalingv2.MetricIdentifier) {
		if id.Name == "" {
			f.required(at.Child("metric", "name"), "name the metric")
		}
		if _, err := metav1.LabelSelectorAsSelector(id.Selector); err != nil {
			f.invalid(at.Child("metric", "selector"), "", "%s", cut(err.Error(), maxWarning))
		}
	}
	var t *autoscalingv2.MetricTarget
	switch own {
	case "resource":
		t = &m.Resource.Target
		f.resource(at, string(m.Resource.Name))
	case "containerResource":
		t = &m.ContainerResource.Target
		f.resource(at, string(m.ContainerResource.Name))
		if m.ContainerResource.Container == "" {
			f.required(at.Child("container"), "name the container")
		}
	case "pods":
		t = &m.Pods.Target
		identified(m.Pods.Metric)
	case "object":
		t = &m.Object.Target
		identified(m.Object.Metric)
		if ref := m.Object.DescribedObject; ref.Kind == "" || ref.Name == "" {
			f.required(at.Child("describedObject"), "name the kind and the name of the object")
		}
	case "external":
		t = &m.External.Target
		identified(m.External.Metric)
	}
	return t, at.Child("target"), true
}

func (f *findings) resource(path *field.Path, name string) {
	if name == "" {
		f.required(path.Child("name"), "name the resource: cpu or memory")
	}
}

// replicaTarget holds a target to what the HPA's arithmetic can divide by.
func (f *findings) replicaTarget(path *field.Path, m autoscalingv2.MetricSpec, t *autoscalingv2.MetricTarget) {
	f.above(path.Child("value"), t.Value)
	f.above(path.Child("averageValue"), t.AverageValue)
	if u := t.AverageUtilization; u != nil && *u <= 0 {
		f.invalid(path.Child("averageUtilization"), *u, "must be above 0")
	}
	switch m.Type {
	case autoscalingv2.ResourceMetricSourceType, autoscalingv2.ContainerResourceMetricSourceType:
		if t.AverageUtilization == nil && t.AverageValue == nil {
			f.required(path, "set averageUtilization (percent of the requests) or averageValue")
		}
	case autoscalingv2.PodsMetricSourceType:
		if t.AverageValue == nil {
			f.required(path.Child("averageValue"), "a metric of type Pods needs it")
		}
	default:
		if t.Value == nil && t.AverageValue == nil {
			f.required(path, "set value, or averageValue for the share of one replica")
		}
	}
}

// settings warns of what is wrong with the annotations of metrics: they can be mended after the spec.
func (f *findings) settings(path *field.Path, target autoscalingv2.CrossVersionObjectReference, list []kapacity.MetricSpec) {
	if f.Queries == nil || len(list) == 0 {
		return
	}
	specs := make([]autoscalingv2.MetricSpec, len(list))
	for i, m := range list {
		specs[i] = m.MetricSpec
	}
	for i, asked := range f.Queries(f.object, target, specs) {
		if asked.Err != nil {
			f.warn(path.Index(i), "%v", asked.Err)
		}
		for _, w := range asked.Warnings {
			f.warn(path.Index(i), "%s", w)
		}
	}
}

func (f *findings) externalJob(path *field.Path, j *kapacity.ExternalJobPortraitAlgorithm) {
	if j == nil {
		f.required(path, "the type is ExternalJob: write its settings here")
		return
	}
	if f.NoJobs {
		f.warn(path, "jobs of external algorithms are switched off here: the operator names a namespace for them with --algorithm-job-namespace")
	}
	switch {
	case j.Job.Type != kapacity.CronJobPortraitAlgorithmJob:
		f.add(field.NotSupported(path.Child("job", "type"), cut(string(j.Job.Type), maxShown), []kapacity.PortraitAlgorithmJobType{kapacity.CronJobPortraitAlgorithmJob}))
	case j.Job.CronJob == nil:
		f.required(path.Child("job", "cronJob"), "the type is CronJob: write its template here")
	default:
		f.cronJob(path.Child("job", "cronJob", "template", "spec"), j.Job.CronJob.Template.Spec.Schedule, j.Job.CronJob.Template.Spec.TimeZone)
	}
	if j.ResultSource.Type != kapacity.ConfigMapPortraitAlgorithmResultSource {
		f.add(field.NotSupported(path.Child("resultSource", "type"), cut(string(j.ResultSource.Type), maxShown),
			[]kapacity.PortraitAlgorithmResultSourceType{kapacity.ConfigMapPortraitAlgorithmResultSource}))
	}
}

// cronJob finds what the API server would refuse in the CronJob that is made of the template.
func (f *findings) cronJob(path *field.Path, schedule string, zone *string) {
	if strings.Contains(schedule, "TZ=") {
		f.invalid(path.Child("schedule"), schedule, "a CronJob's zone is its timeZone: write it there")
	} else if _, err := window.ParseRule(schedule, "@hourly", ""); err != nil {
		at := path.Child("schedule")
		f.invalid(at, schedule, "%s: write minute, hour, day of the month, month, day of the week", cut(strings.TrimPrefix(err.Error(), "start: "), 2*maxWarning))
	}
	if zone != nil {
		if _, err := window.LoadZone(*zone); err != nil {
			f.invalid(path.Child("timeZone"), *zone, "%s: write an IANA name such as Europe/Berlin", cut(err.Error(), 2*maxWarning))
		}
	}
}
