package ihpa

import (
	"strings"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	"github.com/kubetide/kubetide/internal/sample"
	"github.com/kubetide/kubetide/scaler/gray"
	"github.com/kubetide/kubetide/scaler/replay"
	"github.com/kubetide/kubetide/scaler/stability"
)

// steady asks the stability checkers about the gray run that in is about, and notes in status what they say. Their metrics are
// collected for as long as there are checkers, so that a breach wakes us, and is known when a run begins.
func (r *Reconciler) steady(rd *round, in gray.Inputs) (stability.Decision, error) {
	o := rd.o
	req := reconcile.Request{NamespacedName: client.ObjectKeyFromObject(o)}
	if len(o.Spec.StabilityCheckers) == 0 {
		r.Metrics.Drop(req)
		o.Status.Breaches = nil
		meta.RemoveStatusCondition(&o.Status.Conditions, kapacity.ConditionStable)
		return stability.Decision{}, nil
	}
	specs := stability.Metrics(o.Spec.StabilityCheckers)
	want, _, err := r.Metrics.See(o, o.Spec.ScaleTargetRef, func() []autoscalingv2.MetricSpec { return specs })
	if err != nil {
		return stability.Decision{}, err
	}
	readings := make([]stability.Reading, len(specs))
	for i, asked := range want.Asked {
		answer := sample.Answer{Cause: asked.Err}
		if asked.Err == nil {
			answer = r.Metrics.Answer(asked.Query)
		}
		readings[i] = stability.Read(specs[i], answer, in.Observed.Online)
	}
	d := took[stability.Decision](rd)(replay.Stability(breaches(o.Status.Breaches), stability.Checks(o.Spec.StabilityCheckers, readings), gray.Descends(runOf(o.Status.Gray), in), rd.now))
	o.Status.Breaches = breachStatus(d.State)
	switch d.Action {
	case kapacity.RollbackAction:
		r.setCondition(o, kapacity.ConditionStable, false, kapacity.ReasonGrayRolledBack, d.By)
	case kapacity.PauseAction:
		r.setCondition(o, kapacity.ConditionStable, false, kapacity.ReasonGrayPaused, d.By)
	default:
		message := "no stability checker objects"
		if len(d.Warnings) > 0 {
			message += warningMark + strings.Join(d.Warnings, "; ")
		}
		r.setCondition(o, kapacity.ConditionStable, true, kapacity.ReasonStable, message)
	}
	return d, nil
}

func breaches(list []kapacity.StabilityBreach) (s stability.State) {
	for _, b := range list {
		s.Breaches = append(s.Breaches, stability.Breach{Checker: b.Checker, Since: b.Since.Time, Message: b.Message, Clear: timeOf(b.Clear)})
	}
	return s
}

func breachStatus(s stability.State) (list []kapacity.StabilityBreach) {
	for _, b := range s.Breaches {
		list = append(list, kapacity.StabilityBreach{Checker: b.Checker, Since: metav1.NewMicroTime(b.Since), Message: b.Message, Clear: microTime(b.Clear)})
	}
	return list
}
