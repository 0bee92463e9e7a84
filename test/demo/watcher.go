package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	zalando "github.com/kubetide/kubetide/api/zalando/v1"
)

// watcher reads what the demo shows.
type watcher struct{ client client.Client }

func newWatcher(config *rest.Config) (*watcher, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, kapacity.AddToScheme, zalando.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	c, err := client.New(config, client.Options{Scheme: scheme})
	return &watcher{c}, err
}

// apply moves the examples' windows to the plan's times, so that nobody waits an hour.
func (w *watcher) apply(ctx context.Context, p plan) error {
	var ihpa kapacity.IntelligentHorizontalPodAutoscaler
	if err := w.client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: "nginx"}, &ihpa); err != nil {
		return err
	}
	before := ihpa.DeepCopy()
	for i, provider := range ihpa.Spec.PortraitProviders {
		if provider.Cron != nil {
			rule := &ihpa.Spec.PortraitProviders[i].Cron.Crons[0]
			rule.TimeZone = "UTC"
			rule.Start = everyHourAt(p.opens)
			rule.End = everyHourAt(p.closes)
		}
	}
	if err := w.client.Patch(ctx, &ihpa, client.MergeFrom(before)); err != nil {
		return err
	}
	var sale zalando.ScalingSchedule
	if err := w.client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: "shop-sale"}, &sale); err != nil {
		return err
	}
	saleBefore := sale.DeepCopy()
	date := zalando.ScheduleDate(p.saleBegins.UTC().Format(time.RFC3339))
	sale.Spec.Schedules = []zalando.Schedule{{
		Type: zalando.OneTimeSchedule, Date: &date, DurationMinutes: int(p.saleEnds.Sub(p.saleBegins).Minutes()), Value: 60,
	}}
	return w.client.Patch(ctx, &sale, client.MergeFrom(saleBefore))
}

// look reads the cluster once.
func (w *watcher) look(ctx context.Context, p plan, now time.Time) (view, error) {
	v := view{now: now, step: p.step(now)}
	inDemo := client.InNamespace(namespace)
	var hpa autoscalingv2.HorizontalPodAutoscaler
	var ihpa kapacity.IntelligentHorizontalPodAutoscaler
	var profile kapacity.ReplicaProfile
	var pods corev1.PodList
	var slicesOf discoveryv1.EndpointSliceList
	var events corev1.EventList
	for _, err := range []error{
		w.client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: "shop"}, &hpa),
		w.client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: "nginx"}, &ihpa),
		client.IgnoreNotFound(w.client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: "nginx"}, &profile)),
		w.client.List(ctx, &pods, inDemo),
		w.client.List(ctx, &slicesOf, inDemo, client.MatchingLabels{discoveryv1.LabelServiceName: "nginx"}),
		w.client.List(ctx, &events, inDemo),
	} {
		if err != nil {
			return v, err
		}
	}

	v.hpa = hpaView{
		ordersSent: p.orders(now), perPod: "-", schedule: "-",
		current: hpa.Status.CurrentReplicas, desired: hpa.Status.DesiredReplicas,
	}
	for _, m := range hpa.Status.CurrentMetrics {
		switch {
		case m.Pods != nil && m.Pods.Current.AverageValue != nil:
			v.hpa.perPod = decimal(m.Pods.Current.AverageValue) + " of 10"
		case m.Object != nil && m.Object.Current.AverageValue != nil:
			v.hpa.schedule = decimal(m.Object.Current.AverageValue) + " of 10 each"
		}
	}
	v.ihpa = ihpaView{
		window:  p.opens.UTC().Format("15:04") + "-" + p.closes.UTC().Format("15:04") + " UTC",
		desired: 0, online: profile.Spec.OnlineReplicas, cutoff: profile.Spec.CutoffReplicas,
	}
	if current := ihpa.Status.CurrentPortraitValue; current != nil {
		v.ihpa.provider, v.ihpa.desired = current.Provider, current.Replicas
	}
	if ihpa.Status.Gray != nil {
		v.ihpa.grayPercent = ihpa.Status.Gray.GrayPercent
	}
	serving := map[string]bool{}
	for _, s := range slicesOf.Items {
		for _, e := range s.Endpoints {
			if e.TargetRef != nil && e.Conditions.Ready != nil && *e.Conditions.Ready {
				serving[e.TargetRef.Name] = true
			}
		}
	}
	for _, pod := range pods.Items {
		ready := slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
			return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
		})
		switch pod.Labels["app"] {
		case "shop":
			if ready {
				v.hpa.ready++
			}
		case "nginx":
			state := pod.Labels[kapacity.PodStateLabel]
			switch {
			case pod.DeletionTimestamp != nil:
				state = "Deleted"
			case state == "":
				state = string(kapacity.PodStateOnline)
			}
			v.ihpa.pods = append(v.ihpa.pods, podView{pod.Name, state, ready, serving[pod.Name]})
		}
	}
	slices.SortFunc(v.ihpa.pods, func(a, b podView) int { return strings.Compare(a.name, b.name) })
	for _, e := range events.Items {
		switch e.InvolvedObject.Kind {
		case "IntelligentHorizontalPodAutoscaler", "ReplicaProfile", "HorizontalPodAutoscaler":
			at := e.LastTimestamp.Time
			if at.IsZero() {
				at = e.EventTime.Time
			}
			kind := strings.NewReplacer("IntelligentHorizontalPodAutoscaler", "IHPA", "HorizontalPodAutoscaler", "HPA").Replace(e.InvolvedObject.Kind)
			v.events = append(v.events, eventView{at, kind + "/" + e.InvolvedObject.Name, e.Reason, e.Message})
		}
	}
	return v, nil
}

// decimal prints 9600m as 9.6.
func decimal(q *resource.Quantity) string { return fmt.Sprintf("%.1f", q.AsApproximateFloat64()) }

func everyHourAt(t time.Time) kapacity.CronExpression {
	return kapacity.CronExpression(fmt.Sprintf("%d * * * *", t.UTC().Minute()))
}
