// Package gate gives pods that opt in the readiness gate kapacitystack.io/online, and opens it where nobody has: a webhook
// adds the gate to the spec of new pods, and a controller on the leader sets the condition on pods that lack it. It never
// closes a gate, never changes a condition that is there, and touches no pod without the label.
package gate

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"gomodules.xyz/jsonpatch/v2"
	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
)

// Handler answers admission reviews of pods, which the API server sends to kapacity.PodWebhookPath. It decodes no more of a pod than it needs, so that a field it has never heard
// of survives.
func Handler() (http.Handler, error) {
	hook := &admission.Webhook{Handler: admission.HandlerFunc(admit)}
	return admission.StandaloneWebhook(hook, admission.StandaloneOptions{MetricsPath: kapacity.PodWebhookPath})
}

func admit(_ context.Context, request admission.Request) admission.Response {
	if request.Operation != admissionv1.Create || request.Kind.Group != "" || request.Kind.Kind != "Pod" || request.SubResource != "" {
		return admission.Allowed("")
	}
	patch, err := inject(request.Object)
	if err != nil {
		return admission.Errored(http.StatusBadRequest, err)
	}
	return admission.Patched("", patch...)
}

// inject returns what to change in a new pod.
func inject(object runtime.RawExtension) ([]jsonpatch.JsonPatchOperation, error) {
	var pod struct {
		Metadata struct {
			Labels map[string]string `json:"labels"`
		} `json:"metadata"`
		Spec struct {
			ReadinessGates []struct {
				ConditionType string `json:"conditionType"`
			} `json:"readinessGates"`
		} `json:"spec"`
	}
	if err := json.Unmarshal(object.Raw, &pod); err != nil {
		return nil, fmt.Errorf("the pod can't be read: %w", err)
	}
	if pod.Metadata.Labels[kapacity.InjectReadinessGateLabel] != kapacity.InjectReadinessGateValue {
		return nil, nil
	}
	for _, g := range pod.Spec.ReadinessGates {
		if g.ConditionType == kapacity.OnlineConditionType {
			return nil, nil
		}
	}
	own := map[string]string{"conditionType": kapacity.OnlineConditionType}
	if len(pod.Spec.ReadinessGates) == 0 { // absent, null or empty: the list may not be there to append to
		return []jsonpatch.JsonPatchOperation{jsonpatch.NewOperation("add", "/spec/readinessGates", []any{own})}, nil
	}
	return []jsonpatch.JsonPatchOperation{jsonpatch.NewOperation("add", "/spec/readinessGates/-", own)}, nil
}
