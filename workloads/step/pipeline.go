package step

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	kai "github.com/kubetide/kubetide/api/kai/v1alpha1"
	"github.com/kubetide/kubetide/scaler/target"
)

// pipelines is the controller of Pipelines.
type pipelines struct{ children }

// Reconcile makes the Pipeline's Steps what they should be. Those that it no longer has are deleted when all that it has are there.
func (r *pipelines) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	pipeline := &kai.Pipeline{}
	if err := r.client.Get(ctx, request.NamespacedName, pipeline); err != nil {
		conditionsTold.forget(kai.PipelineKind, request.NamespacedName)
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if pipeline.DeletionTimestamp != nil {
		return reconcile.Result{}, nil // the Steps go with it
	}
	named := &kai.StepList{}
	if err := r.client.List(ctx, named, client.InNamespace(pipeline.Namespace), client.MatchingLabels{kai.PipelineLabel: pipeline.Name}); err != nil {
		return reconcile.Result{}, fmt.Errorf("list Steps of Pipeline %s: %w", request, err)
	}
	live := slices.DeleteFunc(named.Items, func(s kai.Step) bool { return r.claim(pipeline, &s, "") != nil })
	slices.SortFunc(live, func(a, b kai.Step) int { return strings.Compare(a.Name, b.Name) })

	planned, problems := Plan(pipeline, live)
	var failures []*failure
	var now []*kai.Step
	for _, want := range planned {
		var there *kai.Step
		if i := slices.IndexFunc(live, func(s kai.Step) bool { return s.Name == want.Name }); i >= 0 {
			there = &live[i]
		} else {
			// One without the label, or somebody else's.
			other := &kai.Step{}
			if err := r.client.Get(ctx, client.ObjectKeyFromObject(want), other); err == nil {
				there = other
			} else if client.IgnoreNotFound(err) != nil {
				return reconcile.Result{}, fmt.Errorf("read Step %s: %w", want.Name, err)
			}
		}
		step, f := r.ensure(ctx, pipeline, there, want)
		if f != nil {
			failures = append(failures, f)
		} else if s, ok := step.(*kai.Step); ok {
			now = append(now, s)
		}
	}
	if len(problems) == 0 && len(failures) == 0 {
		for _, s := range surplus(live, planned) {
			if err := r.client.Delete(ctx, &s, client.Preconditions{UID: ptr.To(s.UID)}); client.IgnoreNotFound(err) != nil {
				failures = append(failures, refusal("delete Step "+s.Name, err))
				continue
			}
			wrote(kai.StepKind, deleted)
			r.recorder.Eventf(pipeline, corev1.EventTypeNormal, "Deleted", "Deleted Step %s: it has no template any more", s.Name)
		}
	}
	if err := r.report(ctx, pipeline, renewed(pipeline.Status.Conditions, []metav1.Condition{
		pipelineReady(problems, failures, now), invalid(problems, failures)}, pipeline.Generation)); err != nil {
		return reconcile.Result{}, err
	}
	return after(failures), retries(failures)
}

func pipelineReady(problems []Problem, failures []*failure, now []*kai.Step) metav1.Condition {
	out := metav1.Condition{Type: kai.ConditionReady, Status: metav1.ConditionFalse}
	switch {
	case len(problems) > 0:
		out.Reason, out.Message = problems[0].Reason, problems[0].Message
		return out
	case len(failures) > 0:
		out.Reason, out.Message = failures[0].Reason, failures[0].Message
		return out
	}
	var waiting []string
	for _, s := range now {
		c := apimeta.FindStatusCondition(s.Status.Conditions, kai.ConditionReady)
		switch {
		case c == nil || c.ObservedGeneration != s.Generation:
			waiting = append(waiting, s.Name+" has not been looked at yet")
		case c.Status != metav1.ConditionTrue:
			waiting = append(waiting, fmt.Sprintf("%s: %s: %s", s.Name, c.Reason, c.Message))
		}
	}
	if len(waiting) > 0 {
		out.Reason, out.Message = ReasonStepsNotReady, fmt.Sprintf("%d of %d Steps are not ready: %s", len(waiting), len(now), strings.Join(waiting, "; "))
		return out
	}
	out.Status, out.Reason = metav1.ConditionTrue, ReasonReady
	return out
}

func (r *pipelines) report(ctx context.Context, pipeline *kai.Pipeline, now []metav1.Condition) error {
	conditionsTold.set(kai.PipelineKind, client.ObjectKeyFromObject(pipeline), now)
	if equality.Semantic.DeepEqual(pipeline.Status.Conditions, now) {
		return nil
	}
	next := pipeline.DeepCopy()
	next.Status.Conditions = now
	if err := r.client.Status().Patch(ctx, next, client.MergeFromWithOptions(pipeline, client.MergeFromWithOptimisticLock{}), client.FieldOwner(target.FieldManager)); err != nil {
		return client.IgnoreNotFound(fmt.Errorf("status of Pipeline %s/%s: %w", pipeline.Namespace, pipeline.Name, err))
	}
	wrote(kai.PipelineKind, patchedStatus)
	said(pipeline.Status.Conditions, now, func(kind, reason, message string) { r.recorder.Event(pipeline, kind, reason, message) })
	return nil
}
