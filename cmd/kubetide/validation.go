package main

import (
	"context"
	"net/http"
	"slices"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrladmission "sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	kai "github.com/kubetide/kubetide/api/kai/v1alpha1"
	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	zalando "github.com/kubetide/kubetide/api/zalando/v1"
	"github.com/kubetide/kubetide/internal/config"
	"github.com/kubetide/kubetide/scaler/validation/admission"
	"github.com/kubetide/kubetide/workloads/stackset"
	stacksetvalidation "github.com/kubetide/kubetide/workloads/stackset/validation"
	"github.com/kubetide/kubetide/workloads/step"
)

// validation answers reviews on each replica, from the caches of its engine, which are filled whether it leads or not.
func (w *writer) validation() (http.Handler, error) {
	engine := w.config.Engine
	if engine.Validation == config.ValidationOff {
		allow := ctrladmission.HandlerFunc(func(context.Context, ctrladmission.Request) ctrladmission.Response { return ctrladmission.Allowed("") })
		return ctrladmission.StandaloneWebhook(&ctrladmission.Webhook{Handler: allow}, ctrladmission.StandaloneOptions{MetricsPath: kapacity.ValidationWebhookPath})
	}
	return admission.Handler(admission.Options{
		Workloads: w.workloads(),
		Enforce:   engine.Validation == config.ValidationEnforce,
		Queries:   w.adapter.Queries,
		NoJobs:    engine.AlgorithmJobNamespace == "",
		Objects: func() client.Reader {
			if mgr := w.current.Load(); mgr != nil {
				return (*mgr).GetCache()
			}
			return nil
		},
		Mapper: func() meta.RESTMapper {
			if mgr := w.current.Load(); mgr != nil {
				return (*mgr).GetRESTMapper()
			}
			return nil
		},
	})
}

// workloads are the kinds of the modules that carry out workloads.
func (w *writer) workloads() map[schema.GroupKind]admission.Workload {
	out := map[schema.GroupKind]admission.Workload{}
	if w.config.Enabled(config.ModuleStep) {
		options := step.Options{ScaleToZero: w.config.Step.ScaleToZero}
		out[schema.GroupKind{Group: kai.SchemeGroupVersion.Group, Kind: kai.StepKind}] = admission.Workload{
			Empty: func() client.Object { return &kai.Step{} },
			Validate: func(_ context.Context, o client.Object) (field.ErrorList, []string) {
				return step.Validate(o.(*kai.Step), options)
			},
		}
		out[schema.GroupKind{Group: kai.SchemeGroupVersion.Group, Kind: kai.PipelineKind}] = admission.Workload{
			Empty: func() client.Object { return &kai.Pipeline{} },
			Validate: func(_ context.Context, o client.Object) (field.ErrorList, []string) {
				return step.ValidatePipeline(o.(*kai.Pipeline), options)
			},
		}
	}
	if w.config.Enabled(config.ModuleStackSet) {
		out[schema.GroupKind{Group: zalando.SchemeGroupVersion.Group, Kind: zalando.StackSetKind}] = admission.Workload{
			Empty: func() client.Object { return &zalando.StackSet{} },
			Validate: func(ctx context.Context, o client.Object) (field.ErrorList, []string) {
				set := o.(*zalando.StackSet)
				if !stackset.Manages(w.config.StackSet.ControllerID, set) {
					return nil, nil
				}
				return stacksetvalidation.StackSet(set, stacksetvalidation.Around{Now: clock.RealClock{}.Now(), Stacks: w.stacks(ctx, set)})
			},
		}
	}
	return out
}

// stacks are the names of the StackSet's Stacks; nil if nobody knows. They are asked for only when somebody writes weights: the caches of
// Stacks are the leader's.
func (w *writer) stacks(ctx context.Context, set *zalando.StackSet) []string {
	mgr := w.current.Load()
	if mgr == nil || len(set.Spec.Traffic) == 0 {
		return nil
	}
	list := &metav1.PartialObjectMetadataList{}
	list.SetGroupVersionKind(zalando.SchemeGroupVersion.WithKind(zalando.StackKind + "List"))
	if (*mgr).GetAPIReader().List(ctx, list, client.InNamespace(set.Namespace)) != nil {
		return nil
	}
	names := []string{}
	for _, stack := range list.Items {
		if slices.ContainsFunc(stack.OwnerReferences, func(r metav1.OwnerReference) bool { return r.Kind == zalando.StackSetKind && r.Name == set.Name }) {
			names = append(names, stack.Name)
		}
	}
	return names
}
