package main

import (
	"context"
	"net/http"

	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrladmission "sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	"github.com/kubetide/kubetide/internal/config"
	"github.com/kubetide/kubetide/scaler/validation/admission"
)

// validation answers reviews on each replica, from the caches of its engine, which are filled whether it leads or not.
func (w *writer) validation() (http.Handler, error) {
	engine := w.config.Engine
	if engine.Validation == config.ValidationOff {
		allow := ctrladmission.HandlerFunc(func(context.Context, ctrladmission.Request) ctrladmission.Response { return ctrladmission.Allowed("") })
		return ctrladmission.StandaloneWebhook(&ctrladmission.Webhook{Handler: allow}, ctrladmission.StandaloneOptions{MetricsPath: kapacity.ValidationWebhookPath})
	}
	return admission.Handler(admission.Options{
		Enforce: engine.Validation == config.ValidationEnforce,
		Queries: w.adapter.Queries,
		NoJobs:  engine.AlgorithmJobNamespace == "",
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
