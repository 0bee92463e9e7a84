package gate

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

const (
	optIn   = "kapacitystack.io/inject-pod-readiness-gate"
	online  = "kapacitystack.io/online"
	optedIn = `"labels":{"kapacitystack.io/inject-pod-readiness-gate":"true"}`
)

// review sends the request to the handler as the API server does.
func review(t *testing.T, request *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
	t.Helper()
	handler, err := Handler()
	if err != nil {
		t.Fatal(err)
	}
	request.UID = "u"
	body, err := json.Marshal(admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"}, Request: request,
	})
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodPost, "/mutate-v1-pod", bytes.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	var answer admissionv1.AdmissionReview
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || answer.Response == nil {
		t.Fatalf("answer %q: %v", w.Body, err)
	}
	return answer.Response
}

func TestTheWebhookAddsTheGateOnce(t *testing.T) {
	gated := `{"metadata":{` + optedIn + `},"spec":{"readinessGates":[{"conditionType":"kapacitystack.io/online"}]}}`
	for name, tt := range map[string]struct {
		operation   admissionv1.Operation
		subResource string
		kind, pod   string
		want        string
	}{
		"a pod that opts in":              {pod: `{"metadata":{` + optedIn + `},"spec":{"x":1}}`, want: `{"metadata":{` + optedIn + `},"spec":{"x":1,"readinessGates":[{"conditionType":"kapacitystack.io/online"}]}}`},
		"the list is null":                {pod: `{"metadata":{` + optedIn + `},"spec":{"readinessGates":null}}`, want: gated},
		"the list is empty":               {pod: `{"metadata":{` + optedIn + `},"spec":{"readinessGates":[]}}`, want: gated},
		"another gate is there":           {pod: `{"metadata":{` + optedIn + `},"spec":{"readinessGates":[{"conditionType":"a"}]}}`, want: `{"metadata":{` + optedIn + `},"spec":{"readinessGates":[{"conditionType":"a"},{"conditionType":"kapacitystack.io/online"}]}}`},
		"the gate is there":               {pod: gated, want: gated},
		"a pod without labels":            {pod: `{"metadata":{},"spec":{}}`, want: `{"metadata":{},"spec":{}}`},
		"a pod that opts out":             {pod: `{"metadata":{"labels":{"` + optIn + `":"false"}},"spec":{}}`, want: `{"metadata":{"labels":{"` + optIn + `":"false"}},"spec":{}}`},
		"an update: gates can't change":   {operation: admissionv1.Update, pod: `{"metadata":{` + optedIn + `},"spec":{}}`, want: `{"metadata":{` + optedIn + `},"spec":{}}`},
		"a subresource":                   {subResource: "status", pod: `{"metadata":{` + optedIn + `},"spec":{}}`, want: `{"metadata":{` + optedIn + `},"spec":{}}`},
		"another kind":                    {kind: "Job", pod: `{"metadata":{` + optedIn + `},"spec":{}}`, want: `{"metadata":{` + optedIn + `},"spec":{}}`},
		"a field from a later Kubernetes": {pod: `{"metadata":{` + optedIn + `},"spec":{"new":{"a":1}}}`, want: `{"metadata":{` + optedIn + `},"spec":{"new":{"a":1},"readinessGates":[{"conditionType":"kapacitystack.io/online"}]}}`},
	} {
		t.Run(name, func(t *testing.T) {
			request := &admissionv1.AdmissionRequest{
				Operation: admissionv1.Create, Kind: metav1.GroupVersionKind{Version: "v1", Kind: "Pod"},
				SubResource: tt.subResource, Object: runtime.RawExtension{Raw: []byte(tt.pod)},
			}
			if tt.operation != "" {
				request.Operation = tt.operation
			}
			if tt.kind != "" {
				request.Kind.Kind = tt.kind
			}
			response := review(t, request)
			if !response.Allowed {
				t.Fatalf("refused: %v", response.Result)
			}
			got := []byte(tt.pod)
			if len(response.Patch) > 0 {
				patch, err := jsonpatch.DecodePatch(response.Patch)
				if err != nil {
					t.Fatal(err)
				}
				if got, err = patch.Apply(got); err != nil {
					t.Fatal(err)
				}
			}
			if !jsonpatch.Equal(got, []byte(tt.want)) {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func TestAPodThatCannotBeReadIsRefusedNotPanickedOver(t *testing.T) {
	response := review(t, &admissionv1.AdmissionRequest{
		Operation: admissionv1.Create, Kind: metav1.GroupVersionKind{Version: "v1", Kind: "Pod"},
		Object: runtime.RawExtension{Raw: []byte(`{"metadata":{"labels":7}}`)},
	})
	if response.Allowed || response.Result.Code != http.StatusBadRequest {
		t.Errorf("%+v", response)
	}
}

func pod(change func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "cart-0", UID: "1", Labels: map[string]string{optIn: "true"}},
		Spec:       corev1.PodSpec{ReadinessGates: []corev1.PodReadinessGate{{ConditionType: online}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{
			{Type: corev1.ContainersReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(now.Add(-40 * time.Second))},
		}},
	}
	if change != nil {
		change(p)
	}
	return p
}

func TestTheLeaderOpensTheGateOfPodsThatWait(t *testing.T) {
	set := func(status corev1.ConditionStatus) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: online, Status: status})
		}
	}
	for name, tt := range map[string]struct {
		pod  *corev1.Pod
		want corev1.ConditionStatus
	}{
		"a pod that lacks the condition": {pod(nil), corev1.ConditionTrue},
		"a pod without any condition":    {pod(func(p *corev1.Pod) { p.Status = corev1.PodStatus{Phase: corev1.PodPending} }), corev1.ConditionTrue},
		"a pod whose gate is closed":     {pod(set(corev1.ConditionFalse)), corev1.ConditionFalse},
		"a pod whose gate is open":       {pod(set(corev1.ConditionTrue)), corev1.ConditionTrue},
		"a pod that is marked as cut":    {pod(func(p *corev1.Pod) { p.Labels["kapacitystack.io/pod-state"] = "Cutoff" }), ""},
		"a pod that is to stand by":      {pod(func(p *corev1.Pod) { p.Labels["kapacitystack.io/pod-state"] = "Standby" }), ""},
		"a pod that is marked as online": {pod(func(p *corev1.Pod) { p.Labels["kapacitystack.io/pod-state"] = "Online" }), corev1.ConditionTrue},
		"a pod without the label":        {pod(func(p *corev1.Pod) { p.Labels = nil }), ""},
		"a pod without the gate":         {pod(func(p *corev1.Pod) { p.Spec.ReadinessGates = nil }), ""},
		"a pod with other gates only":    {pod(func(p *corev1.Pod) { p.Spec.ReadinessGates[0].ConditionType = "a" }), ""},
		"a pod that has done its work":   {pod(func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }), ""},
		"a pod that is on its way out":   {pod(func(p *corev1.Pod) { p.Finalizers = []string{"a/b"}; p.DeletionTimestamp = &metav1.Time{Time: now} }), ""},
		"a pod that somebody else's gate holds": {pod(func(p *corev1.Pod) {
			p.Spec.ReadinessGates = append(p.Spec.ReadinessGates, corev1.PodReadinessGate{ConditionType: "a"})
		}), corev1.ConditionTrue},
	} {
		t.Run(name, func(t *testing.T) {
			c := fake.NewClientBuilder().WithObjects(tt.pod).WithStatusSubresource(tt.pod).Build()
			key := types.NamespacedName{Namespace: "shop", Name: "cart-0"}
			o := &opener{client: c, clock: clocktesting.NewFakePassiveClock(now)}
			for range 2 {
				if result, err := o.Reconcile(t.Context(), reconcile.Request{NamespacedName: key}); err != nil || !result.IsZero() {
					t.Fatal(result, err)
				}
			}
			var got corev1.Pod
			if err := c.Get(t.Context(), key, &got); err != nil {
				t.Fatal(err)
			}
			var status corev1.ConditionStatus
			if is := condition(&got, online); is != nil {
				status = is.Status
			}
			if status != tt.want {
				t.Errorf("condition %q, want %q", status, tt.want)
			}
			for _, before := range tt.pod.Status.Conditions {
				if after := condition(&got, before.Type); after == nil || after.Status != before.Status {
					t.Errorf("condition %s is lost: %v", before.Type, got.Status.Conditions)
				}
			}
		})
	}
}

// The cache shows a pod that waits; in truth it has been cut, or replaced by another of its name.
func TestAStaleCacheNeverOpensAGate(t *testing.T) {
	stale := pod(nil)
	cut := pod(func(p *corev1.Pod) {
		p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: online, Status: corev1.ConditionFalse})
		p.ResourceVersion = "2000"
	})
	stale.ResourceVersion = "1000"
	c := interceptor.NewClient(fake.NewClientBuilder().WithObjects(cut).WithStatusSubresource(cut).Build(), interceptor.Funcs{
		Get: func(_ context.Context, _ client.WithWatch, _ client.ObjectKey, obj client.Object, _ ...client.GetOption) error {
			stale.DeepCopyInto(obj.(*corev1.Pod))
			return nil
		},
	})
	o := &opener{client: c, clock: clocktesting.NewFakePassiveClock(now)}
	result, err := o.Reconcile(t.Context(), reconcile.Request{NamespacedName: client.ObjectKeyFromObject(stale)})
	if err != nil || result.RequeueAfter == 0 {
		t.Errorf("a conflict gives %v, %v; want another try", result, err)
	}
	var list corev1.PodList
	if err := c.List(t.Context(), &list); err != nil {
		t.Fatal(err)
	}
	if got := condition(&list.Items[0], online); got.Status != corev1.ConditionFalse {
		t.Errorf("the gate of a cut pod was opened: %v", got)
	}
}

func TestAnErrorNamesThePodAndAGonePodIsNone(t *testing.T) {
	p := pod(nil)
	request := reconcile.Request{NamespacedName: client.ObjectKeyFromObject(p)}
	failing := func(err error) *opener {
		return &opener{clock: clocktesting.NewFakePassiveClock(now), client: interceptor.NewClient(
			fake.NewClientBuilder().WithObjects(p.DeepCopy()).WithStatusSubresource(p).Build(), interceptor.Funcs{
				SubResourcePatch: func(context.Context, client.Client, string, client.Object, client.Patch, ...client.SubResourcePatchOption) error {
					return err
				},
			})}
	}
	_, err := failing(apierrors.NewForbidden(corev1.Resource("pods"), "cart-0", nil)).Reconcile(t.Context(), request)
	if err == nil || !bytes.Contains([]byte(err.Error()), []byte("pod shop/cart-0: condition kapacitystack.io/online: ")) {
		t.Errorf("error %v", err)
	}
	if _, err := failing(apierrors.NewNotFound(corev1.Resource("pods"), "cart-0")).Reconcile(t.Context(), request); err != nil {
		t.Errorf("a pod that is gone: %v", err)
	}
	if _, err := failing(nil).Reconcile(t.Context(), reconcile.Request{NamespacedName: types.NamespacedName{Name: "none"}}); err != nil {
		t.Errorf("a pod that was never there: %v", err)
	}
}

func TestTheWaitIsMeasuredFromReadyContainers(t *testing.T) {
	read := func() (uint64, float64) {
		var m dto.Metric
		if err := waited.(prometheus.Metric).Write(&m); err != nil {
			t.Fatal(err)
		}
		return m.Histogram.GetSampleCount(), m.Histogram.GetSampleSum()
	}
	count, sum := read()
	for _, p := range []*corev1.Pod{pod(nil), pod(func(p *corev1.Pod) { p.Status.Conditions = nil })} {
		c := fake.NewClientBuilder().WithObjects(p).WithStatusSubresource(p).Build()
		o := &opener{client: c, clock: clocktesting.NewFakePassiveClock(now)}
		if _, err := o.Reconcile(t.Context(), reconcile.Request{NamespacedName: client.ObjectKeyFromObject(p)}); err != nil {
			t.Fatal(err)
		}
	}
	newCount, newSum := read()
	if diff := cmp.Diff([]float64{2, 40}, []float64{float64(newCount - count), newSum - sum}); diff != "" {
		t.Errorf("observations and their sum (-want +got):\n%s", diff)
	}
}
