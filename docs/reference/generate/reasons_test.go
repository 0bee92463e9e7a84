package main

import (
	"maps"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// passedOn are reasons that are read of other objects, and said again as they are.
var passedOn = map[string][]string{
	"workloads/step": {
		"k8s.io/api/apps/v1.DeploymentCondition.Reason",
		"k8s.io/api/autoscaling/v2.HorizontalPodAutoscalerCondition.Reason",
	},
}

// relayed are reasons of conditions that a package has from the conditions that another one wrote.
var relayed = map[string][]string{
	"scaler/ihpa": {"ReplicasWrittenByOther"},
}

// told is what the lists say of a package.
type told struct {
	conditions map[string]map[string]bool // reasons by condition
	events     map[string]string          // types by reason
}

func tellings() map[string]told {
	out := map[string]told{}
	for _, s := range subjects {
		for _, p := range s.packages {
			if _, ok := out[p]; !ok {
				out[p] = told{map[string]map[string]bool{}, map[string]string{}}
			}
			for _, c := range s.conditions {
				if out[p].conditions[c.name] == nil {
					out[p].conditions[c.name] = map[string]bool{}
				}
				for _, r := range c.reasons {
					out[p].conditions[c.name][r.name] = true
				}
			}
			// What only another package sends is not known from this one.
			for _, e := range s.told() {
				out[p].events[e.name] = e.types
			}
		}
	}
	return out
}

func (t told) reasons() map[string]bool {
	out := map[string]bool{}
	for _, all := range t.conditions {
		maps.Copy(out, all)
	}
	return out
}

// means tells that the reason in a list is the one in the code, which has a star for what cannot be followed.
func means(listed, found string) bool {
	pattern := strings.Replace(listed, "<Kind>", "*", 1)
	ok, _ := path.Match(pattern, found)
	return ok || pattern == found
}

// missing are the texts that are in none of the lists.
func missing(found, listed map[string]bool) (out []string) {
	for f := range found {
		if !slices.ContainsFunc(slices.Collect(maps.Keys(listed)), func(l string) bool { return means(l, f) }) {
			out = append(out, f)
		}
	}
	slices.Sort(out)
	return out
}

// surplus are the texts of a list that are nowhere in the code.
func surplus(found, listed map[string]bool) (out []string) {
	for l := range listed {
		if !slices.ContainsFunc(slices.Collect(maps.Keys(found)), func(f string) bool { return means(l, f) }) {
			out = append(out, l)
		}
	}
	slices.Sort(out)
	return out
}

func set[V any](of map[string]V) map[string]bool {
	out := map[string]bool{}
	for key := range of {
		out[key] = true
	}
	return out
}

func TestEachReasonInTheCodeIsListedAndEachListedOneIsInTheCode(t *testing.T) {
	f := theFlow(t)
	all := tellings()
	type seen struct {
		events, reasons, conditions, open map[string]bool
		from                              []text
	}
	found := map[string]*seen{}
	of := func(path string) *seen {
		if found[path] == nil {
			found[path] = &seen{map[string]bool{}, map[string]bool{}, map[string]bool{}, map[string]bool{}, nil}
		}
		return found[path]
	}
	for _, s := range f.sinks {
		here := of(s.path)
		direct := f.resolve(s.reason, false)
		maps.Copy(here.open, direct.open)
		for _, name := range missing(direct.constants, set(all[s.path].events)) {
			t.Errorf("%s: the Event %s is not listed for package %s", s.at, name, s.path)
		}
		for name := range direct.constants {
			here.events[name] = true
		}
		for name := range f.resolve(s.reason, true).constants {
			here.events[name] = true
		}
		kinds := f.resolve(s.kind, true)
		for kind := range kinds.constants {
			if kind != normal && kind != warning {
				t.Errorf("%s: an Event of type %q", s.at, kind)
			}
		}
		if len(kinds.constants) == 0 || len(kinds.open) > 0 {
			t.Errorf("%s: the type of the Event cannot be followed: %v", s.at, kinds.open)
		}
	}
	for place := range f.into {
		c, ok := place.(conditionField)
		if !ok || strings.HasPrefix(c.path, "cmd/kubectl-tide") { // the plugin shows conditions, and writes none
			continue
		}
		reached := f.resolve([]text{{from: c}}, true)
		maps.Copy(of(c.path).open, reached.open)
		if c.field == "Type" {
			maps.Copy(of(c.path).conditions, reached.constants)
		} else {
			maps.Copy(of(c.path).reasons, reached.constants)
		}
	}
	for path, here := range found {
		listed, ok := all[path]
		if !ok {
			t.Errorf("package %s has conditions or sends Events, and no subject names it", path)
			continue
		}
		for _, r := range relayed[path] {
			here.reasons[r], here.events[r] = true, true
		}
		for _, name := range missing(here.conditions, set(listed.conditions)) {
			t.Errorf("package %s writes the condition %s, which is not listed", path, name)
		}
		for _, name := range missing(here.reasons, listed.reasons()) {
			t.Errorf("package %s writes conditions with the reason %s, which is not listed", path, name)
		}
		if diff := cmp.Diff(passedOn[path], slices.Sorted(maps.Keys(here.open))); diff != "" {
			t.Errorf("package %s has reasons that cannot be followed (-known +found):\n%s", path, diff)
		}
	}
	for _, s := range subjects {
		events, conditions, reasons := map[string]bool{}, map[string]bool{}, map[string]bool{}
		for _, p := range s.packages {
			maps.Copy(events, of(p).events)
			maps.Copy(conditions, of(p).conditions)
			maps.Copy(reasons, of(p).reasons)
		}
		for _, e := range s.told() {
			if len(surplus(events, map[string]bool{e.name: true})) > 0 {
				t.Errorf("%s: no code sends the Event %s", s.title(), e.name)
			}
		}
		for _, c := range s.conditions {
			if !conditions[c.name] {
				t.Errorf("%s: no code writes the condition %s", s.title(), c.name)
			}
			for _, r := range c.reasons {
				if !reasons[r.name] {
					t.Errorf("%s: no code writes the condition %s with the reason %s", s.title(), c.name, r.name)
				}
			}
		}
	}
	if len(f.sinks) < 30 {
		t.Errorf("only %d calls of event recorders were found", len(f.sinks))
	}
}

// What stands in one call or literal belongs together: a type of Event and its reason, a condition and its reason.
func TestReasonsHaveTheTypeAndTheConditionThatTheCodeGivesThem(t *testing.T) {
	f := theFlow(t)
	pairs, all := 0, tellings()
	for _, r := range f.rows {
		listed, ok := all[r.path]
		if !ok {
			continue
		}
		check := func(first, second string) {
			if types, ok := listed.events[second]; ok && (first == normal || first == warning) {
				if pairs++; !strings.Contains(types, first) {
					t.Errorf("%s: the Event %s has the type %s, and is listed as %s", r.at, second, first, types)
				}
			}
			if reasons, ok := listed.conditions[first]; ok && listed.reasons()[second] {
				if pairs++; !reasons[second] {
					t.Errorf("%s: the condition %s has the reason %s, which is not listed for it", r.at, first, second)
				}
			}
		}
		for i, first := range r.values {
			for _, second := range r.values[i+1:] {
				check(first, second)
			}
		}
		if kind, ok := r.keyed["Type"]; ok {
			check(kind, r.keyed["Reason"])
		}
	}
	if pairs < 40 {
		t.Errorf("only %d pairs were found", pairs)
	}
}

func TestEachReasonIsExplained(t *testing.T) {
	for _, s := range subjects {
		for _, e := range s.told() {
			if e.means == "" || e.todo == "" || s.source == "" {
				t.Errorf("%s: the Event %s says nothing, or not of what to do, or not who sends it", s.title(), e.name)
			}
		}
		for _, c := range s.conditions {
			if c.about == "" {
				t.Errorf("%s: the condition %s is not explained", s.title(), c.name)
			}
			for _, r := range c.reasons {
				if r.means == "" || r.todo == "" || r.status == "" {
					t.Errorf("%s: the reason %s of %s says nothing, or not of what to do, or has no status", s.title(), r.name, c.name)
				}
			}
		}
	}
}
