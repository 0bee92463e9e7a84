package step

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	kai "github.com/kubetide/kubetide/api/kai/v1alpha1"
)

// newPipeline has a template for each name; "-" is one without.
func newPipeline(names string) *kai.Pipeline {
	p := &kai.Pipeline{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p", UID: uid}}
	for _, name := range strings.Fields(names) {
		t := kai.StepTemplate{Spec: kai.StepSpec{PodSpec: kai.PodSpec{Containers: []corev1.Container{{Name: "main", Image: name}}}}}
		if name != "-" {
			t.Metadata.Name = name
		}
		p.Spec.Steps = append(p.Spec.Steps, t)
	}
	return p
}

func stepsOf(planned []*kai.Step) []kai.Step {
	var out []kai.Step
	for _, s := range planned {
		out = append(out, *s)
	}
	slices.SortFunc(out, func(a, b kai.Step) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func TestWhereTheStepsOfAPipelineGo(t *testing.T) {
	for name, tc := range map[string]struct {
		before, now string
		// want are the indexes of the Steps in the order of the templates, and gone those that are deleted.
		want, gone string
	}{
		"K16: two without names":                {"", "- -", "0 1", ""},
		"two with names":                        {"", "a b", "0 1", ""},
		"K17: it shrinks":                       {"- -", "-", "0", "1"},
		"it grows":                              {"-", "- -", "0 1", ""},
		"named ones keep their Steps":           {"a b c", "c a b", "2 0 1", ""},
		"the first of three goes":               {"a b c", "b c", "1 2", "0"},
		"one comes between":                     {"a b", "a x b", "0 2 1", ""},
		"one is renamed":                        {"a b", "x b", "0 1", ""},
		"a place is free again":                 {"a b c", "b c d", "1 2 0", ""},
		"names are given later":                 {"- -", "a b", "0 1", ""},
		"names are taken away":                  {"a b", "- -", "0 1", ""},
		"all go":                                {"a -", "", "", "0 1"},
		"a named one moves before a nameless":   {"a -", "- a", "1 0", ""},
		"the same again":                        {"a - b", "a - b", "0 1 2", ""},
		"a nameless one before those that stay": {"a b", "- a b", "2 0 1", ""},
	} {
		t.Run(name, func(t *testing.T) {
			before, _ := Plan(newPipeline(tc.before), nil)
			live := stepsOf(before)
			planned, problems := Plan(newPipeline(tc.now), live)
			if len(problems) > 0 {
				t.Fatal(problems)
			}
			var got, gone []string
			for _, s := range planned {
				got = append(got, strings.TrimPrefix(s.Name, "p-step-"))
			}
			for _, s := range surplus(live, planned) {
				gone = append(gone, strings.TrimPrefix(s.Name, "p-step-"))
			}
			if diff := cmp.Diff([]string{tc.want, tc.gone}, []string{strings.Join(got, " "), strings.Join(gone, " ")}); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestWhatAStepOfAPipelineIsMadeOf(t *testing.T) {
	p := newPipeline("a -")
	p.Labels, p.Annotations = map[string]string{"team": "x", "tier": "p"}, map[string]string{"note": "p"}
	p.Spec.Steps[0].Metadata.Labels = map[string]string{"tier": "a", kai.PipelineLabel: "forged"}
	planned, _ := Plan(p, nil)
	want := map[string]string{"team": "x", "tier": "a", kai.PipelineLabel: "p", kai.PipelineUIDLabel: string(uid), kai.TemplateLabel: "a"}
	if diff := cmp.Diff(want, planned[0].Labels); diff != "" {
		t.Errorf("labels:\n%s", diff)
	}
	for _, s := range planned {
		if o := s.OwnerReferences; len(o) != 1 || o[0].APIVersion != "core.kai.io/v1alpha1" || o[0].Kind != "Pipeline" || o[0].UID != uid || !*o[0].Controller {
			t.Errorf("owners %+v", o)
		}
		if s.Annotations["note"] != "p" {
			t.Errorf("annotations %v", s.Annotations)
		}
	}
	// The labels flow on to what is made of the Step, all but the one that is of Steps only.
	planned[0].UID = "u"
	out, _ := Generate(planned[0], nil, Objects{}, Options{})
	delete(want, kai.TemplateLabel)
	want[kai.StepLabel], want[kai.StepUIDLabel] = "p-step-0", "u"
	if diff := cmp.Diff(want, out.Deployment.Spec.Template.Labels); diff != "" {
		t.Errorf("labels of the pods:\n%s", diff)
	}
}

func TestPipelinesThatCannotBe(t *testing.T) {
	for name, tc := range map[string]struct {
		pipeline *kai.Pipeline
		says     string
	}{
		"one name twice":      {newPipeline("a b a"), `spec.steps[2].metadata.name: "a" is that of spec.steps[0] too`},
		"a name that is none": {newPipeline("a/b"), `spec.steps[0].metadata.name: "a/b": `},
		"a long name": {func() *kai.Pipeline {
			p := newPipeline("-")
			p.Name = strings.Repeat("a", 64)
			return p
		}(), "metadata.name: must be no more than 63"},
	} {
		t.Run(name, func(t *testing.T) {
			planned, problems := Plan(tc.pipeline, nil)
			if planned != nil || len(problems) != 1 || !strings.Contains(problems[0].Message, tc.says) {
				t.Errorf("%v", problems)
			}
		})
	}
}

// However a pipeline changes: each template has one Step of its own, named ones keep theirs, and a plan that was carried out is one
// with nothing to do.
func TestPlansAreStable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var live []kai.Step
		for range rapid.IntRange(1, 6).Draw(t, "changes") {
			names := rapid.SliceOfNDistinct(rapid.SampledFrom(strings.Fields("a b c d e -1 -2 -3")), 0, 6, rapid.ID[string]).Draw(t, "names")
			for i := range names {
				names[i], _, _ = strings.Cut(names[i], "1")
				if strings.HasPrefix(names[i], "-") {
					names[i] = "-"
				}
			}
			p := newPipeline(strings.Join(names, " "))
			planned, problems := Plan(p, live)
			if len(problems) > 0 || len(planned) != len(names) {
				t.Fatalf("%d planned, problems %v", len(planned), problems)
			}
			seen := map[string]bool{}
			for i, s := range planned {
				if seen[s.Name] || s.Spec.Containers[0].Image != names[i] {
					t.Fatalf("%s twice, or made of another template", s.Name)
				}
				seen[s.Name] = true
				for _, l := range live {
					if names[i] != "-" && l.Labels[kai.TemplateLabel] == names[i] && l.Name != s.Name {
						t.Fatalf("%s moves from %s to %s", names[i], l.Name, s.Name)
					}
				}
			}
			live = stepsOf(planned)
			again, _ := Plan(p, live)
			if diff := cmp.Diff(planned, again); diff != "" {
				t.Fatalf("a second plan differs:\n%s", diff)
			}
		}
	})
}
