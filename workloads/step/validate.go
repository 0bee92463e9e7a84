package step

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"

	kai "github.com/kubetide/kubetide/api/kai/v1alpha1"
)

// fatal are the problems with which nothing can be made.
var fatal = []string{ReasonNameInvalid, ReasonNoContainers, ReasonDuplicateName}

// Validate says what is wrong with a Step before it is stored, and warns of what works otherwise than it is written. What depends on
// ModelRuntimes is left to the controller.
func Validate(step *kai.Step, opts Options) (field.ErrorList, []string) {
	if step.Spec.Model == nil {
		_, problems := Generate(step, nil, Objects{}, opts)
		return sorted(problems)
	}
	var problems []Problem
	if len(step.Spec.Containers) > 0 {
		problems = append(problems, Problem{ReasonContainersIgnored, "spec.containers: the containers are those of the ModelRuntime, because spec.model is set"})
	}
	if p := nameProblem(step.Name); p != nil {
		problems = append(problems, *p)
	}
	if _, p := progressDeadline(step); p != nil {
		problems = append(problems, *p)
	}
	return sorted(problems)
}

// ValidatePipeline says what is wrong with a Pipeline and with the Steps that would be made of it.
func ValidatePipeline(pipeline *kai.Pipeline, opts Options) (field.ErrorList, []string) {
	steps, problems := Plan(pipeline, nil)
	errs, warnings := sorted(problems)
	for i, s := range steps {
		e, w := Validate(s, opts)
		at := fmt.Sprintf("spec.steps[%d].", i)
		for _, err := range e {
			if strings.HasPrefix(err.Field, "spec") {
				err.Field = at + err.Field
			}
			if !slices.ContainsFunc(errs, func(other *field.Error) bool { return other.Error() == err.Error() }) {
				errs = append(errs, err)
			}
		}
		for _, text := range w {
			warnings = append(warnings, at+text)
		}
	}
	return errs, warnings
}

// sorted makes errors of what is fatal and warnings of the others. Messages begin with the field.
func sorted(problems []Problem) (errs field.ErrorList, warnings []string) {
	for _, p := range problems {
		if !slices.Contains(fatal, p.Reason) {
			warnings = append(warnings, p.Message)
			continue
		}
		path, text, _ := strings.Cut(p.Message, ": ")
		errs = append(errs, field.Forbidden(field.NewPath(path), text))
	}
	return errs, warnings
}
