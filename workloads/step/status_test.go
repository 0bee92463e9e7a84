package step

import (
	"testing"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"

	kai "github.com/kubetide/kubetide/api/kai/v1alpha1"
)

// Of pods without a request, the HPA controller names another each time that it looks. Law 6: that alone is not worth a write.
func TestAnHPAThatNamesAnotherPodEachTimeIsSaidOnce(t *testing.T) {
	failing := func(reason, message string) state {
		return state{live: Objects{HPA: &autoscalingv2.HorizontalPodAutoscaler{Status: autoscalingv2.HorizontalPodAutoscalerStatus{
			Conditions: []autoscalingv2.HorizontalPodAutoscalerCondition{{Type: autoscalingv2.ScalingActive, Status: corev1.ConditionFalse, Reason: reason, Message: message}}}}}}
	}
	step := &kai.Step{}
	step.Generation = 1
	said := func(s state) string {
		step.Status.Conditions = conditions(step, s)
		return apimeta.FindStatusCondition(step.Status.Conditions, kai.ConditionAutoscalerActive).Message
	}
	for i, c := range []struct {
		reason, message, want string
		generation            int64
	}{
		{"FailedGetResourceMetric", "missing request for cpu in Pod a", "missing request for cpu in Pod a", 1},
		{"FailedGetResourceMetric", "missing request for cpu in Pod b", "missing request for cpu in Pod a", 1},
		{"FailedGetScale", "no scale", "no scale", 1},
		{"FailedGetScale", "no such scale", "no such scale", 2},
	} {
		step.Generation = c.generation
		if got := said(failing(c.reason, c.message)); got != c.want {
			t.Errorf("look %d says %q, want %q", i, got, c.want)
		}
	}
}
