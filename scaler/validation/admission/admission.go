// Package admission answers the API server's reviews of IntelligentHorizontalPodAutoscalers, HorizontalPortraits and ReplicaProfiles with
// what scaler/validation finds, and those of workloads with what it is given for them. It looks up the facts around an object, in caches,
// and writes nothing. What was stored before stays editable: only mistakes that an update brings along are refused, and nothing is where
// the spec stays the same.
package admission

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	"github.com/kubetide/kubetide/internal/sample"
	"github.com/kubetide/kubetide/scaler/ihpa"
	"github.com/kubetide/kubetide/scaler/replicaprofile"
	"github.com/kubetide/kubetide/scaler/target"
	"github.com/kubetide/kubetide/scaler/validation"
	"github.com/kubetide/kubetide/scaler/wants"
)

// lookUp bounds how long an answer waits for what is around the object. What is not known by then is not said.
const lookUp = 500 * time.Millisecond

// Options say how objects are judged.
type Options struct {
	// Enforce refuses objects with errors; otherwise they are warnings.
	Enforce bool
	// Objects reads from a cache that has the field indexes of the engine's controllers; it may return nil while there is none.
	Objects func() client.Reader
	// Mapper knows the kinds of the cluster; it may return nil.
	Mapper func() meta.RESTMapper
	// Queries reads the settings of metrics.
	Queries func(o metav1.Object, target autoscalingv2.CrossVersionObjectReference, metrics []autoscalingv2.MetricSpec) []sample.Asked
	// NoJobs says that there is no namespace for the jobs of external algorithms.
	NoJobs bool
	// Workloads are further kinds that are judged.
	Workloads map[schema.GroupKind]Workload
	// Clock is the real one if nil.
	Clock clock.PassiveClock
}

// Handler answers admission reviews, which the API server sends to kapacity.ValidationWebhookPath.
func Handler(o Options) (http.Handler, error) {
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	hook := &admission.Webhook{Handler: &judge{o}}
	return admission.StandaloneWebhook(hook, admission.StandaloneOptions{MetricsPath: kapacity.ValidationWebhookPath})
}

type judge struct{ Options }

// Handle implements admission.Handler. A mistake of ours never keeps anybody from writing.
func (j *judge) Handle(ctx context.Context, request admission.Request) (response admission.Response) {
	defer func() {
		if p := recover(); p != nil {
			log.FromContext(ctx).Error(fmt.Errorf("panic: %v", p), "an object could not be validated", "kind", request.Kind.Kind, "namespace", request.Namespace, "name", request.Name)
			response = admission.Allowed("").WithWarnings("Kubetide could not validate this object; its log says why")
		}
	}()
	if request.SubResource != "" || request.Operation != admissionv1.Create && request.Operation != admissionv1.Update {
		return admission.Allowed("")
	}
	of := schema.GroupKind{Group: request.Kind.Group, Kind: request.Kind.Kind}
	if w, ok := j.Workloads[of]; ok {
		return j.workload(ctx, request, w)
	}
	k, ok := kinds[of.Kind]
	if !ok || of.Group != kapacity.SchemeGroupVersion.Group {
		return admission.Allowed("")
	}
	object, old, err := read(request, k.empty)
	if err != nil {
		return admission.Allowed("").WithWarnings("Kubetide cannot read this object: " + cut(err.Error()))
	}
	if !object.GetDeletionTimestamp().IsZero() {
		return admission.Allowed("")
	}
	respecified := old == nil || !equality.Semantic.DeepEqual(k.spec(old), k.spec(object))
	if !respecified && equal(wants.Settings(old), wants.Settings(object)) {
		return admission.Allowed("")
	}
	around := validation.Around{Now: j.Clock.Now(), Queries: j.Queries, NoJobs: j.NoJobs}
	ctx, cancel := context.WithTimeout(ctx, lookUp)
	defer cancel()
	ref := k.target(object)
	around.Unknown = j.unknown(ctx, ref)
	if j.Objects != nil {
		if reader := j.Objects(); reader != nil && k.others != nil {
			around.Others = k.others(ctx, reader, object, old == nil)
		}
	}
	errs, warnings := k.validate(object, around)
	if old != nil {
		var had field.ErrorList
		around.Queries = nil
		had, _ = k.validate(old, around)
		errs, warnings = onlyNew(errs, had, warnings)
	}
	return j.answer(request, object, errs, warnings, respecified)
}

// read returns the object as it is to be, and as it was; nil if it is new, or cannot be read.
func read(request admission.Request, empty func() client.Object) (object, old client.Object, err error) {
	object = empty()
	if err := json.Unmarshal(request.Object.Raw, object); err != nil {
		return nil, nil, err
	}
	if request.Operation == admissionv1.Update && len(request.OldObject.Raw) > 0 {
		old = empty()
		if json.Unmarshal(request.OldObject.Raw, old) != nil {
			old = nil
		}
	}
	return object, old, nil
}

// answer refuses what may be refused, and warns of the rest.
func (j *judge) answer(request admission.Request, object client.Object, errs field.ErrorList, warnings []string, may bool) admission.Response {
	// What Kubetide itself makes of an IHPA was judged with that; refused here, nobody would learn why there is no portrait.
	owned := metav1.GetControllerOfNoCopy(object) != nil
	if len(errs) > 0 && j.Enforce && !owned && may {
		status := apierrors.NewInvalid(schema.GroupKind{Group: request.Kind.Group, Kind: request.Kind.Kind}, object.GetName(), errs).Status()
		return admission.Response{AdmissionResponse: admissionv1.AdmissionResponse{Allowed: false, Result: &status, Warnings: validation.Warnings(nil, warnings)}}
	}
	return admission.Allowed("").WithWarnings(validation.Warnings(errs, warnings)...)
}

// Workload is a kind of object that workloads are made of.
type Workload struct {
	Empty    func() client.Object
	Validate func(ctx context.Context, o client.Object) (field.ErrorList, []string)
}

// workload judges the object by what people say in it: its spec, labels and annotations.
func (j *judge) workload(ctx context.Context, request admission.Request, w Workload) admission.Response {
	object, old, err := read(request, w.Empty)
	if err != nil {
		return admission.Allowed("").WithWarnings("Kubetide cannot read this object: " + cut(err.Error()))
	}
	if !object.GetDeletionTimestamp().IsZero() || old != nil && equality.Semantic.DeepEqual(said(request.OldObject.Raw), said(request.Object.Raw)) {
		return admission.Allowed("")
	}
	ctx, cancel := context.WithTimeout(ctx, lookUp)
	defer cancel()
	errs, warnings := w.Validate(ctx, object)
	if old != nil && len(errs) > 0 {
		had, _ := w.Validate(ctx, old)
		errs, warnings = onlyNew(errs, had, warnings)
	}
	return j.answer(request, object, errs, warnings, true)
}

// said is what people say in an object.
func said(raw []byte) any {
	var o struct {
		Metadata struct {
			Labels, Annotations map[string]string
		}
		Spec any
	}
	_ = json.Unmarshal(raw, &o) // it was read before
	return o
}

// onlyNew makes warnings of the errors that the stored object has, too: who mends one field, or stops a workload in a hurry, must not
// have to mend all others first.
func onlyNew(errs, had field.ErrorList, warnings []string) (field.ErrorList, []string) {
	var fresh, known field.ErrorList
	for _, e := range errs {
		if slices.ContainsFunc(had, func(h *field.Error) bool { return h.Error() == e.Error() }) {
			known = append(known, e)
		} else {
			fresh = append(fresh, e)
		}
	}
	return fresh, validation.Warnings(known, warnings)
}

func equal(a, b map[string]string) bool {
	return len(a) == len(b) && equality.Semantic.DeepEqual(a, b)
}

func cut(text string) string { return validation.Warnings(nil, []string{text})[0] }

// kind is what there is to know of one kind of object.
type kind struct {
	empty    func() client.Object
	spec     func(client.Object) any
	target   func(client.Object) autoscalingv2.CrossVersionObjectReference
	validate func(client.Object, validation.Around) (field.ErrorList, []string)
	// others names those that have the same target and go first.
	others func(ctx context.Context, reader client.Reader, o client.Object, created bool) []string
}

var kinds = map[string]kind{
	kapacity.IHPAKind: {
		empty: func() client.Object { return &kapacity.IntelligentHorizontalPodAutoscaler{} },
		spec:  func(o client.Object) any { return o.(*kapacity.IntelligentHorizontalPodAutoscaler).Spec },
		target: func(o client.Object) autoscalingv2.CrossVersionObjectReference {
			return o.(*kapacity.IntelligentHorizontalPodAutoscaler).Spec.ScaleTargetRef
		},
		validate: func(o client.Object, a validation.Around) (field.ErrorList, []string) {
			return validation.IHPA(o.(*kapacity.IntelligentHorizontalPodAutoscaler), a)
		},
		others: rivals,
	},
	"HorizontalPortrait": {
		empty: func() client.Object { return &kapacity.HorizontalPortrait{} },
		spec:  func(o client.Object) any { return o.(*kapacity.HorizontalPortrait).Spec },
		target: func(o client.Object) autoscalingv2.CrossVersionObjectReference {
			return o.(*kapacity.HorizontalPortrait).Spec.ScaleTargetRef
		},
		validate: func(o client.Object, a validation.Around) (field.ErrorList, []string) {
			return validation.HorizontalPortrait(o.(*kapacity.HorizontalPortrait), a)
		},
	},
	"ReplicaProfile": {
		empty: func() client.Object { return &kapacity.ReplicaProfile{} },
		spec:  func(o client.Object) any { return o.(*kapacity.ReplicaProfile).Spec },
		target: func(o client.Object) autoscalingv2.CrossVersionObjectReference {
			return o.(*kapacity.ReplicaProfile).Spec.ScaleTargetRef
		},
		validate: func(o client.Object, a validation.Around) (field.ErrorList, []string) {
			return validation.ReplicaProfile(o.(*kapacity.ReplicaProfile), a)
		},
		others: profiles,
	},
}

// rivals are the HorizontalPodAutoscalers and the older IHPAs of the same target, as the IHPA controller sees them.
func rivals(ctx context.Context, reader client.Reader, o client.Object, created bool) (names []string) {
	key := client.MatchingFields{ihpa.TargetIndex: target.Key(o.(*kapacity.IntelligentHorizontalPodAutoscaler).Spec.ScaleTargetRef)}
	hpas := &autoscalingv2.HorizontalPodAutoscalerList{}
	if reader.List(ctx, hpas, client.InNamespace(o.GetNamespace()), key) == nil {
		for _, h := range hpas.Items {
			if h.DeletionTimestamp.IsZero() {
				names = append(names, "HorizontalPodAutoscaler "+h.Name)
			}
		}
	}
	same := &kapacity.IntelligentHorizontalPodAutoscalerList{}
	if reader.List(ctx, same, client.InNamespace(o.GetNamespace()), key) == nil {
		for _, i := range same.Items {
			if i.Name != o.GetName() && i.Spec.ScaleMode != kapacity.ScaleModePreview && (created || target.Older(&i, o)) {
				names = append(names, kapacity.IHPAKind+" "+i.Name)
			}
		}
	}
	slices.Sort(names)
	return names
}

func profiles(ctx context.Context, reader client.Reader, o client.Object, created bool) (names []string) {
	same := &kapacity.ReplicaProfileList{}
	key := client.MatchingFields{replicaprofile.TargetIndex: target.Key(o.(*kapacity.ReplicaProfile).Spec.ScaleTargetRef)}
	if reader.List(ctx, same, client.InNamespace(o.GetNamespace()), key) == nil {
		for _, p := range same.Items {
			if p.Name != o.GetName() && (created || target.Older(&p, o)) {
				names = append(names, "ReplicaProfile "+p.Name)
			}
		}
	}
	slices.Sort(names)
	return names
}

// whole are well-known kinds of pods that nobody scales.
var whole = []schema.GroupKind{{Group: "apps", Kind: "DaemonSet"}, {Group: "batch", Kind: "Job"}, {Group: "batch", Kind: "CronJob"}, {Kind: "Pod"}}

// unknown says why the target's kind cannot be scaled. The mapper may have to ask the API server.
func (j *judge) unknown(ctx context.Context, ref autoscalingv2.CrossVersionObjectReference) string {
	gk := target.GroupKind(ref)
	if target.Watched(ref) || ref.Kind == "" {
		return ""
	}
	if slices.Contains(whole, gk) {
		return fmt.Sprintf("a %s has no replicas that could be scaled: name a Deployment, a StatefulSet, or another kind with /scale", gk.Kind)
	}
	if j.Mapper == nil {
		return ""
	}
	mapper := j.Mapper()
	if mapper == nil {
		return ""
	}
	answer := make(chan error, 1)
	go func() {
		defer func() {
			if p := recover(); p != nil {
				answer <- nil
			}
		}()
		var versions []string
		if gv, err := schema.ParseGroupVersion(ref.APIVersion); err == nil && gv.Version != "" {
			versions = []string{gv.Version}
		}
		_, err := mapper.RESTMapping(gk, versions...)
		answer <- err
	}()
	select {
	case <-ctx.Done():
		return ""
	case err := <-answer:
		if !meta.IsNoMatchError(err) {
			return ""
		}
	}
	then := "check apiVersion and kind, or install it"
	if ref.APIVersion == "" {
		then = "write its apiVersion"
	}
	return strings.TrimSpace(fmt.Sprintf("this cluster knows no kind %q in %q: %s", ref.Kind, ref.APIVersion, then))
}
