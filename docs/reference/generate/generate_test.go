package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"github.com/kubetide/kubetide/internal/config"
)

const root = "../../.."

func TestThePagesAreGenerated(t *testing.T) {
	want, err := pages(root)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	files, err := filepath.Glob("../*.md")
	if err != nil {
		t.Fatal(err)
	}
	begin, _, _ := strings.Cut(generated, "%")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(string(text), begin) {
			got[filepath.Base(file)] = string(text)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("run make generate (-want +got):\n%s", diff)
	}
}

func TestEachFieldIsDescribed(t *testing.T) {
	kinds, err := readKinds(root)
	if err != nil {
		t.Fatal(err)
	}
	used := map[string]bool{}
	for _, k := range kinds {
		if k.about == "" {
			t.Errorf("%s has no description", k.names.Kind)
		}
		if len(k.fields) == 0 {
			t.Errorf("%s has no fields", k.names.Kind)
		}
		for _, f := range k.fields {
			used[f.foreign] = true
			if f.about == "" && f.foreign == "" {
				t.Errorf("%s: %s has no description", k.names.Kind, f.path)
			}
		}
	}
	for end := range foreign {
		if !used[end] {
			t.Errorf("no field ends with %s, a foreign type's", end)
		}
		for other := range foreign {
			if other != end && strings.HasSuffix(other, "."+end) {
				t.Errorf("%s ends with %s, and is another foreign type's", other, end)
			}
		}
	}
}

func TestAVariableSetsTheKeyBesideIt(t *testing.T) {
	groups, err := readFlags()
	if err != nil {
		t.Fatal(err)
	}
	var first []string
	for _, f := range groups[0].flags {
		first = append(first, f.name+" "+f.env+" "+f.key)
	}
	if diff := cmp.Diff([]string{"config.expand-env KUBETIDE_CONFIG_EXPAND_ENV ", "config.path KUBETIDE_CONFIG_PATH "}, first); diff != "" {
		t.Errorf("flags that say where the file is (-want +got):\n%s", diff)
	}
	for _, g := range groups[1:] {
		for _, f := range g.flags {
			_, settings, err := config.Load(config.Flags(), func(name string) (string, bool) {
				return strings.Trim(f.preset, "[]"), name == f.env
			})
			if err != nil {
				t.Errorf("%s as its default: %v", f.env, err)
				continue
			}
			var set []string
			for _, s := range settings {
				if s.Source == "env" {
					set = append(set, s.Key)
				}
			}
			if diff := cmp.Diff([]string{f.key}, set); diff != "" {
				t.Errorf("--%s: keys that %s sets (-documented +set):\n%s", f.name, f.env, diff)
			}
		}
	}
}

func TestFieldsAreReadOutOfASchema(t *testing.T) {
	const text = `
required: [modes]
properties:
  modes:
    description: The modes.
    type: array
    maxItems: 3
    items: {type: string, enum: [A, B]}
  limits:
    description: By name.
    type: object
    minProperties: 1
    additionalProperties:
      type: object
      properties:
        size: {description: "How | large.", type: integer, format: int32, minimum: 1, maximum: 5, default: 2}
    x-kubernetes-validations: [{rule: "true", message: must hold}]
  at: {type: string, format: date-time, pattern: "^.$"}
  status:
    type: object
    properties:
      conditions: {type: array, maxItems: 8, items: {type: object, properties: {type: {type: string}}}}
`
	var s schema
	if err := yaml.UnmarshalStrict([]byte(text), &s); err != nil {
		t.Fatal(err)
	}
	want := []field{
		{path: "at", typ: "time"},
		{path: "limits{}", typ: "map of object", bounds: "keys at least 1; must hold", about: "By name."},
		{path: "limits{}.size", typ: "int32", preset: "2", bounds: "1 to 5", about: "How | large."},
		{path: "modes[]", typ: "list of string", bounds: "items at most 3; each: `A`, `B`", about: "The modes.", required: true},
		{path: "status", typ: "object"},
		{path: "status.conditions[]", typ: "list of meta/v1 Condition", bounds: "items at most 8", foreign: "status.conditions[]"},
	}
	if diff := cmp.Diff(want, fields("Thing", "", &s), cmp.AllowUnexported(field{})); diff != "" {
		t.Errorf("fields (-want +got):\n%s", diff)
	}
}
