package step

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	kai "github.com/kubetide/kubetide/api/kai/v1alpha1"
)

// stepName is the name of the Step of a Pipeline that has the index, from 0.
func stepName(pipeline string, index int) string { return fmt.Sprintf("%s-step-%d", pipeline, index) }

// Plan returns the Steps that are to be there for the pipeline, in the order of its templates, and what is wrong with it. Without
// Steps although there are templates, nothing can be made of it. live are the Steps that are there.
//
// A template's Step is named after the place where the template stood at first. One with a name keeps its Step wherever it moves; one
// without is known by its place only. New ones get the index of their place, or the lowest that is free.
func Plan(pipeline *kai.Pipeline, live []kai.Step) ([]*kai.Step, []Problem) {
	if bad := validation.IsValidLabelValue(pipeline.Name); len(bad) > 0 {
		return nil, []Problem{{ReasonNameInvalid, "metadata.name: " + strings.Join(bad, "; ")}}
	}
	templates := pipeline.Spec.Steps
	place := map[string]int{}
	for i, t := range templates {
		name := t.Metadata.Name
		if name == "" {
			continue
		}
		if bad := validation.IsValidLabelValue(name); len(bad) > 0 {
			return nil, []Problem{{ReasonNameInvalid, fmt.Sprintf("spec.steps[%d].metadata.name: %q: %s", i, name, strings.Join(bad, "; "))}}
		}
		if first, taken := place[name]; taken {
			return nil, []Problem{{ReasonDuplicateName, fmt.Sprintf("spec.steps[%d].metadata.name: %q is that of spec.steps[%d] too", i, name, first)}}
		}
		place[name] = i
	}
	out := make([]*kai.Step, len(templates))
	taken := map[int]bool{}
	make := func(place, index int) {
		taken[index] = true
		out[place] = stepOf(pipeline, &templates[place], index)
	}
	for i := range live {
		index, ok := indexOf(pipeline.Name, live[i].Name)
		if at, named := place[live[i].Labels[kai.TemplateLabel]]; ok && named && out[at] == nil && !taken[index] {
			make(at, index)
		}
	}
	lowest := 0
	for i := range templates {
		if out[i] != nil {
			continue
		}
		if !taken[i] {
			make(i, i)
			continue
		}
		for taken[lowest] {
			lowest++
		}
		make(i, lowest)
	}
	return out, nil
}

func indexOf(pipeline, step string) (int, bool) {
	text, ok := strings.CutPrefix(step, pipeline+"-step-")
	n, err := strconv.Atoi(text)
	return n, ok && err == nil && n >= 0 && stepName(pipeline, n) == step
}

func stepOf(pipeline *kai.Pipeline, template *kai.StepTemplate, index int) *kai.Step {
	labels, annotations := map[string]string{}, map[string]string{}
	maps.Copy(labels, pipeline.Labels)
	maps.Copy(labels, template.Metadata.Labels)
	delete(labels, kai.TemplateLabel)
	labels[kai.PipelineLabel], labels[kai.PipelineUIDLabel] = pipeline.Name, string(pipeline.UID)
	if template.Metadata.Name != "" {
		labels[kai.TemplateLabel] = template.Metadata.Name
	}
	maps.Copy(annotations, pipeline.Annotations)
	maps.Copy(annotations, template.Metadata.Annotations)
	delete(annotations, kai.CopiedAnnotation)
	if len(annotations) == 0 {
		annotations = nil
	}
	step := &kai.Step{
		ObjectMeta: metav1.ObjectMeta{Namespace: pipeline.Namespace, Name: stepName(pipeline.Name, index), Labels: labels, Annotations: annotations,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(pipeline, kai.SchemeGroupVersion.WithKind(kai.PipelineKind))}},
		Spec: *template.Spec.DeepCopy(),
	}
	recordCopied(&step.ObjectMeta)
	return step
}

// surplus are the live Steps of the pipeline that are not among the planned ones.
func surplus(live []kai.Step, planned []*kai.Step) []kai.Step {
	return slices.DeleteFunc(slices.Clone(live), func(s kai.Step) bool {
		return slices.ContainsFunc(planned, func(p *kai.Step) bool { return p.Name == s.Name })
	})
}
