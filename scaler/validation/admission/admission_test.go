package admission

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	"github.com/kubetide/kubetide/internal/sample"
	"github.com/kubetide/kubetide/scaler/ihpa"
	"github.com/kubetide/kubetide/scaler/replicaprofile"
)

var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func good() *kapacity.IntelligentHorizontalPodAutoscaler {
	return &kapacity.IntelligentHorizontalPodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "cart", UID: "1", CreationTimestamp: metav1.NewTime(now)},
		Spec: kapacity.IntelligentHorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "cart"}, MaxReplicas: 10,
			PortraitProviders: []kapacity.HorizontalPortraitProvider{{Type: kapacity.CronProvider, Cron: &kapacity.CronHorizontalPortraitProvider{
				Crons: []kapacity.ReplicaCron{{Name: "day", Start: "0 9 * * *", End: "0 17 * * *", Replicas: 3}}}}},
		},
	}
}

func bad() *kapacity.IntelligentHorizontalPodAutoscaler {
	o := good()
	o.Spec.PortraitProviders[0].Cron.Crons[0].End = "0 0 31 2 *"
	return o
}

const impossible = `spec.portraitProviders[0].cron.crons[0].end: Invalid value: "0 0 31 2 *": cron expression never fires`

func ask(t *testing.T, o Options, operation admissionv1.Operation, old, object client.Object) admission.Response {
	t.Helper()
	o.Clock = clocktesting.NewFakePassiveClock(now)
	raw := func(o client.Object) runtime.RawExtension {
		if o == nil {
			return runtime.RawExtension{}
		}
		text, err := json.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		return runtime.RawExtension{Raw: text}
	}
	group, name := kapacity.SchemeGroupVersion.Group, kapacity.IHPAKind
	switch object.(type) {
	case *corev1.ConfigMap:
		group, name = fleet.Group, fleet.Kind
	case *kapacity.HorizontalPortrait:
		name = "HorizontalPortrait"
	case *kapacity.ReplicaProfile:
		name = "ReplicaProfile"
	}
	return (&judge{o}).Handle(t.Context(), admission.Request{AdmissionRequest: admissionv1.AdmissionRequest{Operation: operation,
		Kind: metav1.GroupVersionKind{Group: group, Version: "v1alpha1", Kind: name}, Object: raw(object), OldObject: raw(old)}})
}

func TestMistakesAreRefusedOrWarnedOf(t *testing.T) {
	r := ask(t, Options{Enforce: true}, admissionv1.Create, nil, bad())
	if r.Allowed || r.Result.Code != http.StatusUnprocessableEntity || !strings.Contains(r.Result.Message, impossible) || len(r.Result.Details.Causes) != 1 {
		t.Errorf("enforced: %+v", r.Result)
	}
	r = ask(t, Options{}, admissionv1.Create, nil, bad())
	if !r.Allowed || len(r.Warnings) != 1 || !strings.HasPrefix(r.Warnings[0], impossible) {
		t.Errorf("warned: %+v", r.AdmissionResponse)
	}
	if r = ask(t, Options{Enforce: true}, admissionv1.Create, nil, good()); !r.Allowed || len(r.Warnings) > 0 {
		t.Errorf("nothing is wrong: %+v", r.AdmissionResponse)
	}
	bare := &kapacity.HorizontalPortrait{Spec: kapacity.HorizontalPortraitSpec{PortraitSpec: kapacity.PortraitSpec{PortraitType: "Reactive"}}}
	if r = ask(t, Options{Enforce: true}, admissionv1.Create, nil, bare); r.Allowed {
		t.Error("a HorizontalPortrait without a target is not refused")
	}
	if r = ask(t, Options{Enforce: true}, admissionv1.Create, nil, &kapacity.ReplicaProfile{}); r.Allowed {
		t.Error("a ReplicaProfile without a target is not refused")
	}
	bare.OwnerReferences = []metav1.OwnerReference{{Kind: kapacity.IHPAKind, Name: "cart", Controller: new(true)}}
	if r = ask(t, Options{Enforce: true}, admissionv1.Create, nil, bare); !r.Allowed || len(r.Warnings) == 0 {
		t.Errorf("one that an IHPA has made: %+v", r.AdmissionResponse)
	}
}

// What was stored before somebody asked stays editable.
func TestOnlyNewMistakesOfTheSpecAreRefused(t *testing.T) {
	change := func(f func(*kapacity.IntelligentHorizontalPodAutoscaler)) *kapacity.IntelligentHorizontalPodAutoscaler {
		o := bad()
		f(o)
		return o
	}
	for name, c := range map[string]struct {
		old, object *kapacity.IntelligentHorizontalPodAutoscaler
		operation   admissionv1.Operation
		refused     bool
		warned      bool
	}{
		"a finalizer": {old: bad(), object: change(func(o *kapacity.IntelligentHorizontalPodAutoscaler) { o.Finalizers = []string{kapacity.Finalizer} })},
		"a label":     {old: bad(), object: change(func(o *kapacity.IntelligentHorizontalPodAutoscaler) { o.Labels = map[string]string{"a": "b"} })},
		"a status":    {old: bad(), object: change(func(o *kapacity.IntelligentHorizontalPodAutoscaler) { o.Status.ObservedGeneration = 7 })},
		"a metric's annotation": {old: bad(), object: change(func(o *kapacity.IntelligentHorizontalPodAutoscaler) {
			o.Annotations = map[string]string{"metric-config.a": "b"}
		}), warned: true},
		"a pause in a hurry":           {old: bad(), object: change(func(o *kapacity.IntelligentHorizontalPodAutoscaler) { o.Spec.Paused = true }), warned: true},
		"another mistake":              {old: bad(), object: change(func(o *kapacity.IntelligentHorizontalPodAutoscaler) { o.Spec.MinReplicas = 20 }), refused: true, warned: true},
		"the first mistake":            {old: good(), object: bad(), refused: true},
		"the mistake mended":           {old: bad(), object: good()},
		"on its way out":               {old: good(), object: change(func(o *kapacity.IntelligentHorizontalPodAutoscaler) { o.DeletionTimestamp = &metav1.Time{Time: now} })},
		"a deletion":                   {old: bad(), object: bad(), operation: admissionv1.Delete},
		"a connection, whatever it is": {old: bad(), object: bad(), operation: admissionv1.Connect},
	} {
		t.Run(name, func(t *testing.T) {
			operation := admissionv1.Update
			if c.operation != "" {
				operation = c.operation
			}
			r := ask(t, Options{Enforce: true}, operation, c.old, c.object)
			if r.Allowed == c.refused || (len(r.Warnings) > 0) != c.warned {
				t.Errorf("allowed %t, warnings %q", r.Allowed, r.Warnings)
			}
			if c.refused && c.warned && strings.Contains(r.Result.Message, "31 2") {
				t.Errorf("refused for what was there before: %s", r.Result.Message)
			}
		})
	}
}

func TestWhoScalesTheTargetIsNamed(t *testing.T) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, kapacity.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	older, younger, preview, elsewhere := good(), good(), good(), good()
	older.Name, older.CreationTimestamp = "older", metav1.NewTime(now.Add(-time.Hour))
	younger.Name, younger.CreationTimestamp = "younger", metav1.NewTime(now.Add(time.Hour))
	preview.Name, preview.Spec.ScaleMode = "a-preview", kapacity.ScaleModePreview
	preview.CreationTimestamp = older.CreationTimestamp
	elsewhere.Namespace, elsewhere.CreationTimestamp = "other", older.CreationTimestamp
	hpa := &autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "cart"}}
	hpa.Spec.ScaleTargetRef = autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "cart"}
	rp := &kapacity.ReplicaProfile{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "cart", CreationTimestamp: older.CreationTimestamp}, Spec: kapacity.ReplicaProfileSpec{ScaleTargetRef: hpa.Spec.ScaleTargetRef}}
	c := fake.NewClientBuilder().WithScheme(scheme).WithObjects(older, younger, preview, elsewhere, hpa, rp).
		WithIndex(&kapacity.IntelligentHorizontalPodAutoscaler{}, ihpa.TargetIndex, ihpa.IndexTarget).
		WithIndex(&autoscalingv2.HorizontalPodAutoscaler{}, ihpa.TargetIndex, ihpa.IndexTarget).
		WithIndex(&kapacity.ReplicaProfile{}, replicaprofile.TargetIndex, replicaprofile.IndexTarget).Build()
	o := Options{Enforce: true, Objects: func() client.Reader { return c }}
	said := func(operation admissionv1.Operation, old, object client.Object) string {
		r := ask(t, o, operation, old, object)
		if !r.Allowed {
			t.Errorf("refused: %+v", r.Result)
		}
		return strings.Join(r.Warnings, "\n")
	}
	if got, want := said(admissionv1.Create, nil, good()), "HorizontalPodAutoscaler cart, IntelligentHorizontalPodAutoscaler older, IntelligentHorizontalPodAutoscaler younger scales Deployment cart, too: this one stands down until it is gone"; got != want {
		t.Errorf("created: %q", got)
	}
	changed := good()
	changed.Spec.MaxReplicas = 11
	if got, want := said(admissionv1.Update, good(), changed), "HorizontalPodAutoscaler cart, IntelligentHorizontalPodAutoscaler older scales"; !strings.HasPrefix(got, want) {
		t.Errorf("changed: %q", got)
	}
	other := rp.DeepCopy()
	other.Name = "second"
	if got, want := said(admissionv1.Create, nil, other), "ReplicaProfile cart has Deployment cart, too: this one waits until it is gone"; got != want {
		t.Errorf("a profile: %q", got)
	}
	o.Objects = func() client.Reader { return nil }
	if got := said(admissionv1.Create, nil, good()); got != "" {
		t.Errorf("without a cache: %q", got)
	}
}

// mapper knows nothing, is slow, or breaks.
type mapper struct {
	meta.RESTMapper
	err  error
	hang chan struct{}
}

func (m mapper) RESTMapping(gk schema.GroupKind, _ ...string) (*meta.RESTMapping, error) {
	if m.hang != nil {
		<-m.hang
	}
	if m.err != nil {
		return nil, m.err
	}
	return &meta.RESTMapping{}, nil
}

func TestAKindThatCannotBeScaledIsNamed(t *testing.T) {
	hang := make(chan struct{})
	defer close(hang)
	for name, c := range map[string]struct {
		ref    autoscalingv2.CrossVersionObjectReference
		mapper meta.RESTMapper
		want   string
	}{
		"a Deployment needs no look":     {ref: autoscalingv2.CrossVersionObjectReference{Kind: "Deployment", Name: "a"}, mapper: mapper{err: &meta.NoKindMatchError{}}},
		"a DaemonSet":                    {ref: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "DaemonSet", Name: "a"}, want: "spec.scaleTargetRef: a DaemonSet has no replicas that could be scaled"},
		"a kind of nobody":               {ref: autoscalingv2.CrossVersionObjectReference{APIVersion: "x.y/v1", Kind: "Fleet", Name: "a"}, mapper: mapper{err: &meta.NoKindMatchError{}}, want: `spec.scaleTargetRef: this cluster knows no kind "Fleet" in "x.y/v1": check apiVersion and kind, or install it`},
		"a kind without its apiVersion":  {ref: autoscalingv2.CrossVersionObjectReference{Kind: "Fleet", Name: "a"}, mapper: mapper{err: &meta.NoKindMatchError{}}, want: `spec.scaleTargetRef: this cluster knows no kind "Fleet" in "": write its apiVersion`},
		"a kind of somebody":             {ref: autoscalingv2.CrossVersionObjectReference{APIVersion: "x.y/v1", Kind: "Fleet", Name: "a"}, mapper: mapper{}},
		"nobody knows in time":           {ref: autoscalingv2.CrossVersionObjectReference{APIVersion: "x.y/v1", Kind: "Fleet", Name: "a"}, mapper: mapper{hang: hang}},
		"nobody knows before the engine": {ref: autoscalingv2.CrossVersionObjectReference{APIVersion: "x.y/v1", Kind: "Fleet", Name: "a"}},
	} {
		t.Run(name, func(t *testing.T) {
			object := good()
			object.Spec.ScaleTargetRef = c.ref
			r := ask(t, Options{Enforce: true, Mapper: func() meta.RESTMapper { return c.mapper }}, admissionv1.Create, nil, object)
			if !r.Allowed || (c.want == "" && len(r.Warnings) > 0) || c.want != "" && !slices.ContainsFunc(r.Warnings, func(w string) bool { return strings.HasPrefix(w, c.want) }) {
				t.Errorf("%t %q", r.Allowed, r.Warnings)
			}
		})
	}
}

func TestOurOwnMistakesRefuseNothing(t *testing.T) {
	object := good()
	object.Spec.PortraitProviders = []kapacity.HorizontalPortraitProvider{{Type: kapacity.DynamicProvider, Dynamic: &kapacity.DynamicHorizontalPortraitProvider{PortraitSpec: kapacity.PortraitSpec{
		PortraitType: "Reactive", Algorithm: kapacity.PortraitAlgorithm{Type: kapacity.KubeHPAAlgorithm}, Metrics: make([]kapacity.MetricSpec, 1)}}}}
	explode := func(metav1.Object, autoscalingv2.CrossVersionObjectReference, []autoscalingv2.MetricSpec) []sample.Asked {
		panic("boom")
	}
	if r := ask(t, Options{Enforce: true, Queries: explode}, admissionv1.Create, nil, object); !r.Allowed || len(r.Warnings) != 1 {
		t.Errorf("a panic: %+v", r.AdmissionResponse)
	}
	r := (&judge{Options{Enforce: true, Clock: clocktesting.NewFakePassiveClock(now)}}).Handle(context.Background(), admission.Request{AdmissionRequest: admissionv1.AdmissionRequest{
		Operation: admissionv1.Create, Kind: metav1.GroupVersionKind{Group: kapacity.SchemeGroupVersion.Group, Kind: kapacity.IHPAKind}, Object: runtime.RawExtension{Raw: []byte(`{"spec":7}`)}}})
	if !r.Allowed || len(r.Warnings) != 1 {
		t.Errorf("an object of a later version: %+v", r.AdmissionResponse)
	}
}

// fleet is a kind that is judged beside the engine's; a ConfigMap stands for it, whose labels are its mistakes and whose annotations are
// doubtful.
var fleet = schema.GroupKind{Group: "x.y", Kind: "Fleet"}

func TestFurtherKindsAreJudged(t *testing.T) {
	judged := 0
	workloads := map[schema.GroupKind]Workload{fleet: {
		Empty: func() client.Object { return &corev1.ConfigMap{} },
		Validate: func(_ context.Context, o client.Object) (errs field.ErrorList, warnings []string) {
			judged++
			for _, key := range slices.Sorted(maps.Keys(o.GetLabels())) {
				errs = append(errs, field.Forbidden(field.NewPath("metadata", "labels").Key(key), "take it away"))
			}
			for key := range o.GetAnnotations() {
				warnings = append(warnings, "doubtful: "+key)
			}
			if o.GetName() == "boom" {
				panic("boom")
			}
			return errs, warnings
		},
	}}
	object := func(labels, annotations string) *corev1.ConfigMap {
		o := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "a", Labels: map[string]string{}, Annotations: map[string]string{}}}
		for _, key := range strings.Fields(labels) {
			o.Labels[key] = ""
		}
		for _, key := range strings.Fields(annotations) {
			o.Annotations[key] = ""
		}
		return o
	}
	leaving, made, breaks := object("bad", ""), object("bad", ""), object("", "")
	leaving.DeletionTimestamp = &metav1.Time{Time: now}
	made.OwnerReferences = []metav1.OwnerReference{{Kind: "Fleet", Name: "a", Controller: new(true)}}
	breaks.Name = "boom"
	for name, c := range map[string]struct {
		old, object *corev1.ConfigMap
		warn        bool
		want        string
		warnings    int
		judged      int
	}{
		"nothing is wrong":           {object: object("", ""), judged: 1},
		"a mistake":                  {object: object("bad", ""), want: "metadata.labels[bad]: Forbidden: take it away", judged: 1},
		"a mistake is warned of":     {object: object("bad", ""), warn: true, warnings: 1, judged: 1},
		"a doubt":                    {object: object("", "hm"), warnings: 1, judged: 1},
		"the same as before":         {old: object("bad", "hm"), object: object("bad", "hm")},
		"a mistake that was there":   {old: object("bad", ""), object: object("bad", "hm"), warnings: 2, judged: 2},
		"a mistake more":             {old: object("bad", ""), object: object("bad worse", ""), want: "metadata.labels[worse]", warnings: 1, judged: 2},
		"a mistake mended":           {old: object("bad", ""), object: object("", ""), judged: 1},
		"on its way out":             {object: leaving},
		"made by another controller": {object: made, warnings: 1, judged: 1},
		"a panic":                    {object: breaks, warnings: 1, judged: 1},
	} {
		t.Run(name, func(t *testing.T) {
			judged = 0
			operation, old := admissionv1.Create, client.Object(nil)
			if c.old != nil {
				operation, old = admissionv1.Update, c.old
			}
			r := ask(t, Options{Enforce: !c.warn, Workloads: workloads}, operation, old, c.object)
			if r.Allowed != (c.want == "") || len(r.Warnings) != c.warnings || judged != c.judged {
				t.Errorf("allowed %t, warnings %q, judged %d times", r.Allowed, r.Warnings, judged)
			}
			if !r.Allowed && (!strings.Contains(r.Result.Message, c.want) || len(r.Result.Details.Causes) != 1) {
				t.Errorf("refused: %s", r.Result.Message)
			}
		})
	}
	if r := ask(t, Options{Enforce: true}, admissionv1.Create, nil, object("bad", "")); !r.Allowed || len(r.Warnings) > 0 {
		t.Errorf("a kind of nobody: %+v", r.AdmissionResponse)
	}
}
