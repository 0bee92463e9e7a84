package scheduled

import (
	"context"
	"fmt"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/record"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	zalando "github.com/kubetide/kubetide/api/zalando/v1"
	"github.com/kubetide/kubetide/internal/window"
	"github.com/kubetide/kubetide/scaler/target"
)

// reasonAdjusted and the text below are kube-metrics-adapter's.
const reasonAdjusted = "ScalingAdjusted"

// adjuster carries out Adjust for one HPA at a time.
type adjuster struct {
	client client.Client
	events record.EventRecorder
	Options
}

// Reconcile implements reconcile.Reconciler. What is wrong with a schedule is not said here: the metric's collector and the
// schedule's own controller do so.
func (a *adjuster) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	hpa := &autoscalingv2.HorizontalPodAutoscaler{}
	if err := a.client.Get(ctx, req.NamespacedName, hpa); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if !hpa.DeletionTimestamp.IsZero() || scaleUpDisabled(hpa) {
		return ctrl.Result{}, nil
	}
	now := a.Clock.Now()
	metrics, next, err := a.metrics(ctx, hpa, now)
	if err != nil {
		return ctrl.Result{}, err
	}
	limits := a.limits(hpa)
	if _, ok := Adjust(hpa.Status.CurrentReplicas, metrics, limits); ok {
		if err := a.apply(ctx, hpa, metrics, limits); apierrors.IsConflict(err) {
			return ctrl.Result{RequeueAfter: time.Second}, nil
		} else if err != nil {
			return ctrl.Result{}, err
		}
	}
	return wakeAt(next, now), nil
}

// metrics returns the metrics of the HPA on schedules that can be read, and when one of them changes.
func (a *adjuster) metrics(ctx context.Context, hpa *autoscalingv2.HorizontalPodAutoscaler, now time.Time) (metrics []Metric, next time.Time, err error) {
	for _, m := range hpa.Spec.Metrics {
		object, targetMilli, ok := scheduleMetric(m)
		if !ok {
			continue
		}
		spec, err := a.spec(ctx, hpa.Namespace, object)
		if apierrors.IsNotFound(err) {
			continue
		} else if err != nil {
			return nil, time.Time{}, fmt.Errorf("%s %q of HPA %s/%s: %w", object.Kind, object.Name, hpa.Namespace, hpa.Name, err)
		}
		s, err := window.NewSchedules(spec, a.Defaults)
		if err != nil {
			continue
		}
		metrics = append(metrics, Metric{Object: object, Full: s.Full(now), Value: s.Value(now), TargetMilli: targetMilli})
		next = earliest(next, earliest(s.Next(now), s.NextEdge(now)))
	}
	return metrics, next, nil
}

func (a *adjuster) spec(ctx context.Context, namespace string, ref autoscalingv2.CrossVersionObjectReference) (zalando.ScalingScheduleSpec, error) {
	if ref.Kind == zalando.ClusterScalingScheduleKind {
		o := &zalando.ClusterScalingSchedule{}
		err := a.client.Get(ctx, client.ObjectKey{Name: ref.Name}, o)
		return o.Spec, err
	}
	o := &zalando.ScalingSchedule{}
	err := a.client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: ref.Name}, o)
	return o.Spec, err
}

func (a *adjuster) limits(hpa *autoscalingv2.HorizontalPodAutoscaler) Limits {
	l := Limits{MaxReplicas: hpa.Spec.MaxReplicas, Up: a.Tolerance, Down: a.Tolerance}
	if b := hpa.Spec.Behavior; b != nil {
		if b.ScaleUp != nil && b.ScaleUp.Tolerance != nil {
			l.Up = b.ScaleUp.Tolerance.AsApproximateFloat64()
		}
		if b.ScaleDown != nil && b.ScaleDown.Tolerance != nil {
			l.Down = b.ScaleDown.Tolerance.AsApproximateFloat64()
		}
	}
	return l
}

func scaleUpDisabled(hpa *autoscalingv2.HorizontalPodAutoscaler) bool {
	b := hpa.Spec.Behavior
	return b != nil && b.ScaleUp != nil && b.ScaleUp.SelectPolicy != nil && *b.ScaleUp.SelectPolicy == autoscalingv2.DisabledPolicySelect
}

// apply decides again on the count that /scale has now, because an HPA's status is old until its next round, and writes it.
func (a *adjuster) apply(ctx context.Context, hpa *autoscalingv2.HorizontalPodAutoscaler, metrics []Metric, limits Limits) error {
	workload, err := a.workload(hpa)
	if err != nil {
		return err
	}
	ref := hpa.Spec.ScaleTargetRef
	describe := func(verb string, err error) error {
		return fmt.Errorf("HPA %s/%s: %s /scale of %s %q: %w", hpa.Namespace, hpa.Name, verb, ref.Kind, ref.Name, err)
	}
	scale := &autoscalingv1.Scale{}
	if err := a.client.SubResource("scale").Get(ctx, workload, scale); err != nil {
		return describe("read", err)
	}
	change, ok := Adjust(scale.Spec.Replicas, metrics, limits)
	if !ok {
		return nil
	}
	scale.Spec.Replicas = change.To
	if err := a.client.SubResource("scale").Update(ctx, workload, client.WithSubResourceBody(scale),
		client.FieldOwner(target.FieldManager), client.DisableReadYourWritesConsistency); err != nil {
		return describe("write", err)
	}
	a.events.Eventf(hpa, corev1.EventTypeNormal, reasonAdjusted, "Scaling schedule '%s' adjusted replicas %d -> %d based on metric: %s",
		change.Object.Kind, change.From, change.To, change.Object.Name)
	return nil
}

// workload names the HPA's target to the client: any kind that has /scale.
func (a *adjuster) workload(hpa *autoscalingv2.HorizontalPodAutoscaler) (client.Object, error) {
	ref := hpa.Spec.ScaleTargetRef
	gv, err := schema.ParseGroupVersion(ref.APIVersion)
	if err != nil {
		return nil, fmt.Errorf("HPA %s/%s: scaleTargetRef.apiVersion: %w", hpa.Namespace, hpa.Name, err)
	}
	var o client.Object
	if known, err := a.client.Scheme().New(gv.WithKind(ref.Kind)); err == nil {
		o, _ = known.(client.Object)
	}
	if o == nil {
		u := &unstructured.Unstructured{}
		u.SetGroupVersionKind(gv.WithKind(ref.Kind))
		o = u
	}
	o.SetNamespace(hpa.Namespace)
	o.SetName(ref.Name)
	return o, nil
}

// scheduleMetric picks the metrics that can be adjusted to: on a schedule, with an average value above 0.
func scheduleMetric(m autoscalingv2.MetricSpec) (object autoscalingv2.CrossVersionObjectReference, targetMilli int64, ok bool) {
	if m.Object == nil || m.Object.Target.AverageValue == nil {
		return object, 0, false
	}
	object, targetMilli = m.Object.DescribedObject, m.Object.Target.AverageValue.MilliValue()
	gv, err := schema.ParseGroupVersion(object.APIVersion)
	isSchedule := object.Kind == zalando.ScalingScheduleKind || object.Kind == zalando.ClusterScalingScheduleKind
	return object, targetMilli, err == nil && gv.Group == zalando.SchemeGroupVersion.Group && isSchedule && targetMilli > 0
}
