package doctor

import (
	"maps"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/ptr"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
)

const (
	hpaKind = "HorizontalPodAutoscaler"
	// defaultTolerance is kube-controller-manager's, and that of the algorithm KubeHPA.
	defaultTolerance = 0.1
)

// cluster is the facts, with autoscalers of both kinds in one form.
type cluster struct {
	Facts
	now         time.Time
	autoscalers []autoscaler
}

// autoscaler is an HPA or an IHPA.
type autoscaler struct {
	Object
	ref autoscalingv2.CrossVersionObjectReference
	// target is nil where it was not read, or is of another kind.
	target *Workload
	// min and max are the widest bounds that it ever has.
	min, max int32
	metrics  []metric
	// bySelector tells that it counts all pods that the target's selector matches.
	bySelector bool
	// preview tells that it writes nothing.
	preview    bool
	conditions []metav1.Condition
}

// metric is a metric that leads to replicas by the HPA's maths.
type metric struct {
	autoscalingv2.MetricSpec
	upTolerance float64
}

func newCluster(f Facts, now time.Time) *cluster {
	c := &cluster{Facts: f, now: now}
	for i := range f.HPAs {
		c.autoscalers = append(c.autoscalers, ofHPA(&f.HPAs[i]))
	}
	for i := range f.IHPAs {
		c.autoscalers = append(c.autoscalers, ofIHPA(&f.IHPAs[i]))
	}
	workloads := map[Object]*Workload{}
	for i := range f.Workloads {
		workloads[f.Workloads[i].object()] = &f.Workloads[i]
	}
	for i := range c.autoscalers {
		a := &c.autoscalers[i]
		if a.kind().Group == appsv1.GroupName {
			a.target = workloads[a.targetObject()]
		}
	}
	return c
}

func (w *Workload) object() Object { return Object{w.Kind, w.Namespace, w.Name} }

func ofHPA(o *autoscalingv2.HorizontalPodAutoscaler) autoscaler {
	a := autoscaler{Object: Object{hpaKind, o.Namespace, o.Name}, ref: o.Spec.ScaleTargetRef,
		min: ptr.Deref(o.Spec.MinReplicas, 1), max: o.Spec.MaxReplicas, bySelector: true}
	tolerance := defaultTolerance
	if b := o.Spec.Behavior; b != nil && b.ScaleUp != nil {
		tolerance = share(b.ScaleUp.Tolerance)
	}
	for _, m := range o.Spec.Metrics {
		a.metrics = append(a.metrics, metric{m, tolerance})
	}
	for _, c := range o.Status.Conditions {
		a.conditions = append(a.conditions, metav1.Condition{Type: string(c.Type), Status: metav1.ConditionStatus(c.Status), Reason: c.Reason, Message: c.Message})
	}
	return a
}

func ofIHPA(o *kapacity.IntelligentHorizontalPodAutoscaler) autoscaler {
	a := autoscaler{Object: Object{kapacity.IHPAKind, o.Namespace, o.Name}, ref: o.Spec.ScaleTargetRef, min: o.Spec.MinReplicas, max: o.Spec.MaxReplicas,
		preview: o.Spec.ScaleMode == kapacity.ScaleModePreview, conditions: o.Status.Conditions}
	for _, b := range o.Spec.ScheduledBounds {
		a.min, a.max = min(a.min, ptr.Deref(b.MinReplicas, a.min)), max(a.max, ptr.Deref(b.MaxReplicas, a.max))
	}
	for _, p := range o.Spec.PortraitProviders {
		if p.Dynamic == nil || p.Dynamic.Algorithm.Type != kapacity.KubeHPAAlgorithm {
			continue
		}
		k := ptr.Deref(p.Dynamic.Algorithm.KubeHPA, kapacity.KubeHPAPortraitAlgorithm{Tolerance: resource.MustParse(kapacity.DefaultTolerance)})
		tolerance := share(&k.Tolerance, o.Spec.Behavior.ScaleUp.Tolerance, k.ScaleUpTolerance)
		for _, m := range p.Dynamic.Metrics {
			a.metrics = append(a.metrics, metric{m.MetricSpec, tolerance})
		}
		a.bySelector = a.bySelector || k.PodSelection != kapacity.OwnerPodSelection
	}
	return a
}

// share is the last of the tolerances that is set.
func share(tolerances ...*resource.Quantity) float64 {
	out := defaultTolerance
	for _, t := range tolerances {
		if t != nil {
			out = t.AsApproximateFloat64()
		}
	}
	return out
}

// kind is the target's. Without apiVersion, which the API leaves optional, the kinds of apps are understood.
func (a *autoscaler) kind() schema.GroupKind {
	if a.ref.APIVersion == "" {
		return schema.GroupKind{Group: appsv1.GroupName, Kind: a.ref.Kind}
	}
	return schema.FromAPIVersionAndKind(a.ref.APIVersion, a.ref.Kind).GroupKind()
}

func (a *autoscaler) targetObject() Object { return Object{a.ref.Kind, a.Namespace, a.ref.Name} }

func (a *autoscaler) found(severity Severity, problem, remedy string) Finding {
	return Finding{Severity: severity, Object: a.Object, Problem: problem, Remedy: remedy}
}

// matches tells whether the selector selects pods of the workload.
func matches(selector *metav1.LabelSelector, w *Workload) bool {
	s, err := metav1.LabelSelectorAsSelector(selector)
	return err == nil && s.Matches(labels.Set(w.Spec.Template.Labels))
}

// pod is one of the workload's as admission makes it: limits stand in for requests, and LimitRanges for both.
func (c *cluster) pod(w *Workload) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: w.Name + "-*"}, Spec: *w.Spec.Template.Spec.DeepCopy()}
	for _, containers := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range containers {
			r := &containers[i].Resources
			r.Requests = filled(r.Requests, r.Limits)
			for _, l := range c.LimitRanges {
				if l.Namespace != w.Namespace {
					continue
				}
				for _, item := range l.Spec.Limits {
					if item.Type == corev1.LimitTypeContainer {
						r.Requests, r.Limits = filled(r.Requests, item.DefaultRequest), filled(r.Limits, item.Default)
					}
				}
			}
		}
	}
	if r := pod.Spec.Resources; r != nil {
		r.Requests = filled(r.Requests, lacking(r.Limits, pod.Spec.Containers))
	}
	return pod
}

// lacking is the part of the list that no container requests.
func lacking(list corev1.ResourceList, containers []corev1.Container) corev1.ResourceList {
	out := maps.Clone(list)
	for _, c := range containers {
		for name := range c.Resources.Requests {
			delete(out, name)
		}
	}
	return out
}

// filled is the list with what it lacks from another.
func filled(list, from corev1.ResourceList) corev1.ResourceList {
	out := corev1.ResourceList{}
	maps.Copy(out, from)
	maps.Copy(out, list)
	return out
}
