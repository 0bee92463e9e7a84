package step

import (
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	kai "github.com/kubetide/kubetide/api/kai/v1alpha1"
)

// Each entry is the errors, then the warnings, or what they begin with.
func TestWhatIsWrongIsSaidBeforeItIsStored(t *testing.T) {
	const containers = "containers: [{name: a, image: a}], "
	for name, c := range map[string]struct {
		object         string
		errs, warnings []string
	}{
		"a Step": {object: "{metadata: {name: a}, spec: {" + containers + "maxReplicas: 3}}"},
		"a Step whose Service would have no name": {object: "{metadata: {name: 1a}, spec: {" + containers + "maxReplicas: 3}}",
			errs: []string{`metadata.name: Forbidden: "1a" gives no valid name of a Service`}},
		"a Step whose name is too long": {object: "{metadata: {name: " + strings.Repeat("a", 56) + "}, spec: {" + containers + "maxReplicas: 3}}",
			errs: []string{"metadata.name: Forbidden: the name has 56 characters; with more than 55"}},
		"a Step of nothing": {object: "{metadata: {name: a}, spec: {maxReplicas: 3}}", errs: []string{"spec.containers: Forbidden: there is none, and no spec.model"}},
		"a maximum below the minimum": {object: "{metadata: {name: a}, spec: {" + containers + "minReplicas: 3, maxReplicas: 2}}",
			warnings: []string{"spec.maxReplicas: 2 is below minReplicas; 3 is used"}},
		"a minimum of 0": {object: "{metadata: {name: a}, spec: {" + containers + "minReplicas: 0, maxReplicas: 2}}", warnings: []string{"spec.minReplicas: 0 counts as 1"}},
		"a deadline that is none": {object: "{metadata: {name: a, annotations: {kubetide.io/progress-deadline-seconds: soon}}, spec: {" + containers + "maxReplicas: 2}}",
			warnings: []string{`metadata.annotations[kubetide.io/progress-deadline-seconds]: "soon" is no number`}},
		"a model": {object: "{metadata: {name: a}, spec: {model: {modelFormat: sklearn, uri: s3://a}, maxReplicas: 2}}"},
		"a model with a name that is none": {object: "{metadata: {name: 1a, annotations: {kubetide.io/progress-deadline-seconds: soon}}, spec: {" + containers + "model: {modelFormat: sklearn}}}",
			errs:     []string{`metadata.name: Forbidden: "1a" gives no valid name of a Service`},
			warnings: []string{"spec.containers: the containers are those of the ModelRuntime", "metadata.annotations[kubetide.io/progress-deadline-seconds]: "}},

		"a Pipeline": {object: "{kind: Pipeline, metadata: {name: p}, spec: {steps: [{spec: {" + containers + "maxReplicas: 1}}]}}"},
		"two templates of one name": {object: "{kind: Pipeline, metadata: {name: p}, spec: {steps: [{metadata: {name: x}, spec: {" + containers + "}}, {metadata: {name: x}, spec: {" + containers + "}}]}}",
			errs: []string{`spec.steps[1].metadata.name: Forbidden: "x" is that of spec.steps[0] too`}},
		"a Pipeline whose Steps have no name": {object: "{kind: Pipeline, metadata: {name: 1p}, spec: {steps: [{spec: {" + containers + "}}]}}",
			errs: []string{`metadata.name: Forbidden: "1p-step-0" gives no valid name of a Service`}},
		"a template of nothing, and one that is raised": {object: "{kind: Pipeline, metadata: {name: p}, spec: {steps: [{spec: {}}, {spec: {" + containers + "minReplicas: 0}}]}}",
			errs: []string{"spec.steps[0].spec.containers: Forbidden: there is none"}, warnings: []string{"spec.steps[1].spec.minReplicas: 0 counts as 1"}},
	} {
		t.Run(name, func(t *testing.T) {
			var errs []string
			var warnings []string
			if strings.Contains(c.object, "kind: Pipeline") {
				p := &kai.Pipeline{}
				if err := yaml.UnmarshalStrict([]byte(c.object), p); err != nil {
					t.Fatal(err)
				}
				e, w := ValidatePipeline(p, Options{})
				for _, err := range e {
					errs = append(errs, err.Error())
				}
				warnings = w
			} else {
				s := &kai.Step{}
				if err := yaml.UnmarshalStrict([]byte(c.object), s); err != nil {
					t.Fatal(err)
				}
				e, w := Validate(s, Options{})
				for _, err := range e {
					errs = append(errs, err.Error())
				}
				warnings = w
			}
			for what, both := range map[string][2][]string{"errors": {errs, c.errs}, "warnings": {warnings, c.warnings}} {
				got, want := both[0], both[1]
				if len(got) != len(want) {
					t.Fatalf("%s %q, want %q", what, got, want)
				}
				for i := range got {
					if !strings.HasPrefix(got[i], want[i]) {
						t.Errorf("%s: %s, want %s", what, got[i], want[i])
					}
				}
			}
		})
	}
}
