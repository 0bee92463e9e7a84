package main

import (
	"context"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	zalando "github.com/kubetide/kubetide/api/zalando/v1"
)

// schedule shows an HPA that follows a ScalingSchedule.
type schedule struct{}

const (
	scheduleValue = 40 // of which the HPA wants 10 a pod
	schedulePods  = 4
	scheduleOpen  = 25 * time.Second
	// scheduleLate is how long after an edge of the window the HPA may still ask for the pods of before.
	scheduleLate = 15 * time.Second
)

func (*schedule) about() about {
	return about{
		name: "schedule", title: "an HPA on a ScalingSchedule", bound: 2 * time.Minute,
		look:  "the pods are asked for when the window opens, not before, and given back when it closes",
		after: []string{"-n", "schedule", "get", "scalingschedule,hpa,pods"},
	}
}

func (*schedule) setUp(ctx context.Context, l *lab) error {
	if err := l.apply(ctx, "schedule", "schedule.yaml"); err != nil {
		return err
	}
	if err := l.waitReady(ctx, "schedule", "shop", 1); err != nil {
		return err
	}
	return l.hpaActive(ctx, "schedule")
}

func (c *schedule) run(ctx context.Context, l *lab, s *screen) (string, error) {
	opens := time.Now().Add(8 * time.Second).Truncate(time.Second)
	closes := opens.Add(scheduleOpen)
	var sale zalando.ScalingSchedule
	if err := l.client.Get(ctx, client.ObjectKey{Namespace: "schedule", Name: "sale"}, &sale); err != nil {
		return "", err
	}
	before := sale.DeepCopy()
	sale.Spec.Schedules = []zalando.Schedule{{Type: zalando.OneTimeSchedule, Date: date(opens), EndDate: date(closes), Value: scheduleValue}}
	if err := l.client.Patch(ctx, &sale, client.MergeFrom(before)); err != nil {
		return "", err
	}
	s.say("1 pod; the schedule sale has a window from %s to %s, with the value %d; the HPA wants 10 a pod",
		opens.Format(time.TimeOnly), closes.Format(time.TimeOnly), scheduleValue)

	up, err := c.reach(ctx, l, s, opens, schedulePods)
	if err != nil {
		return "", err
	}
	if err := until(ctx, time.Until(closes), func(ctx context.Context) error { return c.ready(ctx, l, s, schedulePods) }); err != nil {
		return "", err
	}
	s.say("all %d are ready; the window closes at %s", schedulePods, closes.Format(time.TimeOnly))
	down, err := c.reach(ctx, l, s, closes, 1)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("1 → %d pods %s after the window opened, → 1 %s after it closed", schedulePods, seconds(up), seconds(down)), nil
}

// reach waits until the HPA has set the number of pods, and returns how long after the edge of the window. Before it is an error.
func (c *schedule) reach(ctx context.Context, l *lab, s *screen, edge time.Time, want int32) (time.Duration, error) {
	var seen scaling
	var late time.Duration
	err := until(ctx, time.Until(edge)+scheduleLate, func(ctx context.Context) error {
		now, err := l.scalingOf(ctx, "schedule")
		if err != nil {
			return err
		}
		if late = time.Since(edge); late < 0 {
			s.doing("%s; %s until the window's edge", now, seconds(-late))
		} else {
			s.doing("%s; %s after the window's edge", now, seconds(late))
		}
		if now != seen {
			s.say("%s", now)
			seen = now
		}
		if now.asked != want {
			return fmt.Errorf("%s; want %d pods", now, want)
		}
		return nil
	})
	if err == nil && late < 0 {
		err = fmt.Errorf("the HPA asked for %d pods %s before the window's edge", want, seconds(-late))
	}
	return late, err
}

func (c *schedule) ready(ctx context.Context, l *lab, s *screen, want int) error {
	ready, _, err := l.readyPods(ctx, "schedule", "shop")
	if err == nil && ready != want {
		err = fmt.Errorf("%d of %d pods are ready", ready, want)
		s.doing("%v", err)
	}
	return err
}

func date(t time.Time) *zalando.ScheduleDate {
	return ptr.To(zalando.ScheduleDate(t.UTC().Format(time.RFC3339)))
}

// scaling is what an HPA sees and asks for.
type scaling struct {
	perPod string // the value of its metric for each pod
	asked  int32  // the Deployment's spec.replicas, which the HPA writes
}

func (s scaling) String() string {
	return fmt.Sprintf("%s a pod, pods asked for: %d", s.perPod, s.asked)
}

// scalingOf looks at the HPA shop, which has one metric, and at the Deployment of its name.
func (l *lab) scalingOf(ctx context.Context, namespace string) (scaling, error) {
	var hpa autoscalingv2.HorizontalPodAutoscaler
	var deployment appsv1.Deployment
	key := client.ObjectKey{Namespace: namespace, Name: "shop"}
	for _, o := range []client.Object{&hpa, &deployment} {
		if err := l.client.Get(ctx, key, o); err != nil {
			return scaling{}, err
		}
	}
	now := scaling{perPod: "nothing", asked: ptr.Deref(deployment.Spec.Replicas, 0)}
	for _, m := range hpa.Status.CurrentMetrics {
		for _, value := range []autoscalingv2.MetricValueStatus{
			ptr.Deref(m.Pods, autoscalingv2.PodsMetricStatus{}).Current, ptr.Deref(m.Object, autoscalingv2.ObjectMetricStatus{}).Current,
		} {
			if value.AverageValue != nil {
				now.perPod = fmt.Sprintf("%.1f", value.AverageValue.AsApproximateFloat64())
			}
		}
	}
	return now, nil
}

// hpaActive waits until the HPA shop has a value to scale on.
func (l *lab) hpaActive(ctx context.Context, namespace string) error {
	return until(ctx, time.Minute, func(ctx context.Context) error {
		var hpa autoscalingv2.HorizontalPodAutoscaler
		if err := l.client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: "shop"}, &hpa); err != nil {
			return err
		}
		for _, c := range hpa.Status.Conditions {
			if c.Type == autoscalingv2.ScalingActive && c.Status != "True" {
				return fmt.Errorf("hpa %s/shop: %s", namespace, c.Message)
			}
		}
		if len(hpa.Status.CurrentMetrics) == 0 {
			return fmt.Errorf("hpa %s/shop has no value yet", namespace)
		}
		return nil
	})
}
