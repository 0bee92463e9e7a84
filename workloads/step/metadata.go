package step

import (
	"encoding/json"
	"maps"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	kai "github.com/kubetide/kubetide/api/kai/v1alpha1"
)

// inherited are the labels and annotations that a Step's objects and pods are created with.
func inherited(step *kai.Step) (labels, annotations map[string]string) {
	labels = map[string]string{}
	maps.Copy(labels, step.Labels)
	delete(labels, kai.TemplateLabel)
	labels[kai.StepLabel], labels[kai.StepUIDLabel] = step.Name, string(step.UID)
	annotations = maps.Clone(step.Annotations)
	delete(annotations, kai.ProgressDeadlineAnnotation)
	delete(annotations, kai.CopiedAnnotation)
	if len(annotations) == 0 {
		annotations = nil
	}
	return labels, annotations
}

// fixed labels are on every object of their kind, so nobody needs to remember them.
var fixed = []string{kai.StepLabel, kai.StepUIDLabel, kai.PipelineLabel, kai.PipelineUIDLabel}

// once are annotations that are copied at creation and never again: a change of them alone must not restart the pods, and on an
// object that somebody applies to they are that one's.
var once = []string{corev1.LastAppliedConfigAnnotation}

// copied is the content of the annotation by which a key is known that went from the owner.
type copied struct {
	Labels      []string `json:"labels,omitempty"`
	Annotations []string `json:"annotations,omitempty"`
}

// recordCopied writes down which keys of the new object came from its owner.
func recordCopied(o *metav1.ObjectMeta) {
	delete(o.Annotations, kai.CopiedAnnotation)
	var c copied
	for _, key := range slices.Sorted(maps.Keys(o.Labels)) {
		if !slices.Contains(fixed, key) {
			c.Labels = append(c.Labels, key)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(o.Annotations)) {
		if !slices.Contains(once, key) {
			c.Annotations = append(c.Annotations, key)
		}
	}
	if len(c.Labels)+len(c.Annotations) == 0 {
		return
	}
	text, _ := json.Marshal(c) // strings
	if o.Annotations == nil {
		o.Annotations = map[string]string{}
	}
	o.Annotations[kai.CopiedAnnotation] = string(text)
}

// recorded reads what recordCopied has written. What somebody broke is as good as none: nothing is then removed.
func recorded(o *metav1.ObjectMeta) copied {
	var c copied
	if json.Unmarshal([]byte(o.Annotations[kai.CopiedAnnotation]), &c) != nil {
		return copied{}
	}
	return c
}

// inherit brings the metadata of a live object to what is wanted: keys of the owner have its values, keys that were the owner's and
// are no longer go, and all others stay.
func inherit(live, want *metav1.ObjectMeta) {
	was := recorded(live)
	live.Labels = merged(live.Labels, want.Labels, was.Labels, nil)
	live.Annotations = merged(live.Annotations, want.Annotations, append(was.Annotations, kai.CopiedAnnotation), once)
	live.OwnerReferences = want.OwnerReferences
}

// inheritTemplate does the same for the pods of a Deployment; what was copied is recorded on the Deployment itself.
func inheritTemplate(live *appsv1.Deployment, want *corev1.PodTemplateSpec) {
	was := recorded(&live.ObjectMeta)
	live.Spec.Template.Labels = merged(live.Spec.Template.Labels, want.Labels, was.Labels, nil)
	live.Spec.Template.Annotations = merged(live.Spec.Template.Annotations, want.Annotations, was.Annotations, once)
}

func merged(live, want map[string]string, was, untouched []string) map[string]string {
	out := maps.Clone(live)
	for _, key := range was {
		delete(out, key)
	}
	for key, value := range want {
		if slices.Contains(untouched, key) {
			continue
		}
		if out == nil {
			out = map[string]string{}
		}
		out[key] = value
	}
	if len(out) == 0 {
		return nil
	}
	return out
}
