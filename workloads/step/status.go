package step

import (
	"cmp"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	kai "github.com/kubetide/kubetide/api/kai/v1alpha1"
	"github.com/kubetide/kubetide/scaler/event"
)

// The reasons of conditions, beside those of problems and failures.
const (
	ReasonReady                 = "Ready"
	ReasonValid                 = "Valid"
	ReasonFound                 = "Found"
	ReasonRuntimeNotFound       = "RuntimeNotFound"
	ReasonCredentialsNotFound   = "CredentialsNotFound"
	ReasonMissing               = "Missing"
	ReasonPending               = "Pending"
	ReasonDeploymentUnavailable = "DeploymentUnavailable"
	ReasonStepsNotReady         = "StepsNotReady"
	ReasonRolloutStuck          = "ProgressDeadlineExceeded"
)

// state is what is known of a Step when its status is written.
type state struct {
	problems []Problem
	// nothing says that the first problem is one with which nothing can be made.
	nothing                 bool
	runtimeErr, credentials error
	failures                []*failure
	live                    Objects
}

// conditions returns those of the Step. What is no longer of its concern is left out.
func conditions(step *kai.Step, s state) []metav1.Condition {
	all := []metav1.Condition{
		ready(s), deploymentAvailable(s.live.Deployment), autoscalerActive(s.live.HPA), invalid(s.problems, s.failures),
	}
	found := func(kind, missing string, err error) {
		c := metav1.Condition{Type: kind, Status: metav1.ConditionTrue, Reason: ReasonFound}
		if err != nil {
			c.Status, c.Reason, c.Message = metav1.ConditionFalse, missing, err.Error()
		}
		all = append(all, c)
	}
	if step.Spec.Model != nil {
		found(kai.ConditionRuntimeFound, ReasonRuntimeNotFound, s.runtimeErr)
		if step.Spec.Model.ServiceAccountRef != "" && s.runtimeErr == nil {
			found(kai.ConditionCredentialsFound, ReasonCredentialsNotFound, s.credentials)
		}
	}
	return renewed(step.Status.Conditions, all, step.Generation)
}

// renewed keeps the times of conditions whose status is as it was, and the conditions of others out.
func renewed(old, all []metav1.Condition, generation int64) []metav1.Condition {
	var out []metav1.Condition
	for _, c := range all {
		if was := apimeta.FindStatusCondition(old, c.Type); was != nil {
			out = append(out, *was)
		}
	}
	for _, c := range all {
		c.ObservedGeneration, c.Message = generation, event.Bounded(c.Message)
		// The HPA controller names another pod each time that it looks: what it said first holds as long as the reason does.
		if was := apimeta.FindStatusCondition(old, c.Type); c.Type == kai.ConditionAutoscalerActive && was != nil && was.Reason == c.Reason && was.ObservedGeneration == generation {
			c.Message = was.Message
		}
		apimeta.SetStatusCondition(&out, c)
	}
	return out
}

func ready(s state) metav1.Condition {
	no := func(reason, message string) metav1.Condition {
		return metav1.Condition{Type: kai.ConditionReady, Status: metav1.ConditionFalse, Reason: reason, Message: message}
	}
	switch d := s.live.Deployment; {
	case s.runtimeErr != nil:
		return no(ReasonRuntimeNotFound, s.runtimeErr.Error())
	case s.credentials != nil:
		return no(ReasonCredentialsNotFound, s.credentials.Error())
	case s.nothing:
		return no(s.problems[len(s.problems)-1].Reason, s.problems[len(s.problems)-1].Message)
	case len(s.failures) > 0:
		var messages []string
		for _, f := range s.failures {
			messages = append(messages, f.Message)
		}
		return no(s.failures[0].Reason, strings.Join(messages, "; "))
	default:
		if c := deploymentCondition(d, appsv1.DeploymentProgressing); c != nil && c.Status == corev1.ConditionFalse {
			return no(cmp.Or(c.Reason, ReasonRolloutStuck), c.Message)
		}
		if c := deploymentAvailable(d); c.Status != metav1.ConditionTrue {
			return no(ReasonDeploymentUnavailable, c.Message)
		}
	}
	return metav1.Condition{Type: kai.ConditionReady, Status: metav1.ConditionTrue, Reason: ReasonReady}
}

func deploymentCondition(d *appsv1.Deployment, kind appsv1.DeploymentConditionType) *appsv1.DeploymentCondition {
	if d == nil {
		return nil
	}
	for i := range d.Status.Conditions {
		if d.Status.Conditions[i].Type == kind {
			return &d.Status.Conditions[i]
		}
	}
	return nil
}

func deploymentAvailable(d *appsv1.Deployment) metav1.Condition {
	out := metav1.Condition{Type: kai.ConditionDeploymentAvailable, Status: metav1.ConditionUnknown, Reason: ReasonPending, Message: "the Deployment has said nothing yet"}
	if d == nil {
		out.Status, out.Reason, out.Message = metav1.ConditionFalse, ReasonMissing, "there is no Deployment"
	} else if c := deploymentCondition(d, appsv1.DeploymentAvailable); c != nil {
		out.Status, out.Reason, out.Message = metav1.ConditionStatus(c.Status), cmp.Or(c.Reason, ReasonPending), c.Message
	}
	return out
}

func autoscalerActive(hpa *autoscalingv2.HorizontalPodAutoscaler) metav1.Condition {
	out := metav1.Condition{Type: kai.ConditionAutoscalerActive, Status: metav1.ConditionUnknown, Reason: ReasonPending, Message: "the HorizontalPodAutoscaler has said nothing yet"}
	if hpa == nil {
		out.Status, out.Reason, out.Message = metav1.ConditionFalse, ReasonMissing, "there is no HorizontalPodAutoscaler"
		return out
	}
	for _, kind := range []autoscalingv2.HorizontalPodAutoscalerConditionType{autoscalingv2.AbleToScale, autoscalingv2.ScalingActive} {
		for _, c := range hpa.Status.Conditions {
			if c.Type != kind {
				continue
			}
			if out.Status, out.Reason, out.Message = metav1.ConditionStatus(c.Status), cmp.Or(c.Reason, ReasonPending), c.Message; c.Status != corev1.ConditionTrue {
				return out
			}
			out.Message = "" // it changes with each metric that is looked at
		}
	}
	return out
}

func invalid(problems []Problem, failures []*failure) metav1.Condition {
	out := metav1.Condition{Type: kai.ConditionInvalid, Status: metav1.ConditionFalse, Reason: ReasonValid}
	all := problems
	for _, f := range failures {
		if f.Reason == ReasonRefused {
			all = append(all[:len(all):len(all)], f.Problem)
		}
	}
	if len(all) == 0 {
		return out
	}
	var messages []string
	for _, p := range all {
		messages = append(messages, p.Message)
	}
	out.Status, out.Reason, out.Message = metav1.ConditionTrue, all[0].Reason, strings.Join(messages, "; ")
	return out
}

// said are the events for what conditions have come to: what is newly wrong, and that all is well again.
func said(old, now []metav1.Condition, say func(kind, reason, message string)) {
	for _, c := range now {
		was := apimeta.FindStatusCondition(old, c.Type)
		changed := was == nil || was.Status != c.Status || was.Reason != c.Reason || was.Message != c.Message
		if !changed {
			continue
		}
		switch {
		case c.Type == kai.ConditionInvalid && c.Status == metav1.ConditionTrue:
			say(corev1.EventTypeWarning, c.Reason, c.Message)
		case c.Type == kai.ConditionReady && c.Status == metav1.ConditionTrue:
			if was == nil || was.Status != metav1.ConditionTrue {
				say(corev1.EventTypeNormal, c.Reason, "all is there and serves")
			}
		case c.Type == kai.ConditionReady && c.Reason != ReasonDeploymentUnavailable && c.Reason != ReasonStepsNotReady && c.Reason != ReasonWaiting &&
			!apimeta.IsStatusConditionPresentAndEqual(without(now, c.Reason, c.Message), kai.ConditionInvalid, metav1.ConditionTrue):
			say(corev1.EventTypeWarning, c.Reason, c.Message)
		case c.Type == kai.ConditionAutoscalerActive && c.Status == metav1.ConditionFalse && c.Reason != ReasonMissing && was != nil && was.Status == metav1.ConditionTrue:
			say(corev1.EventTypeWarning, c.Reason, c.Message)
		}
	}
}

// without leaves of the condition Invalid what says the same.
func without(all []metav1.Condition, reason, message string) []metav1.Condition {
	c := apimeta.FindStatusCondition(all, kai.ConditionInvalid)
	if c == nil || c.Reason != reason || !strings.Contains(c.Message, message) {
		return nil
	}
	return []metav1.Condition{*c}
}
