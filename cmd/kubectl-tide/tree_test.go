package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"

	zalando "github.com/kubetide/kubetide/api/zalando/v1"
)

var noon = time.Date(2026, 11, 22, 12, 2, 20, 0, time.UTC)

// objectsOf reads a file of testdata/stacksets: the StackSet, and what is around it.
func objectsOf(t *testing.T, file string) (*zalando.StackSet, []runtime.Object) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var set *zalando.StackSet
	var around []runtime.Object
	scheme, err := newScheme()
	if err != nil {
		t.Fatal(err)
	}
	for d := utilyaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096); ; {
		var raw runtime.RawExtension
		if err := d.Decode(&raw); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		var kind metav1.TypeMeta
		if err := json.Unmarshal(raw.Raw, &kind); err != nil {
			t.Fatal(err)
		}
		o, err := scheme.New(kind.GroupVersionKind())
		if err != nil {
			t.Fatal(err)
		}
		strict := json.NewDecoder(bytes.NewReader(raw.Raw))
		strict.DisallowUnknownFields()
		if err := strict.Decode(o); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if s, ok := o.(*zalando.StackSet); ok {
			set = s
		} else {
			around = append(around, o)
		}
	}
	return set, around
}

func TestTheTreeOfAStackSet(t *testing.T) {
	files, err := filepath.Glob("testdata/stacksets/*.yaml")
	if err != nil || len(files) < 5 {
		t.Fatalf("%d situations: %v", len(files), err)
	}
	for _, file := range files {
		stem := strings.TrimSuffix(file, ".yaml")
		t.Run(filepath.Base(stem), func(t *testing.T) {
			set, around := objectsOf(t, file)
			// Lists come in any order.
			rand.Shuffle(len(around), func(i, j int) { around[i], around[j] = around[j], around[i] })
			var text, asJSON bytes.Buffer
			if err := printJSON(&asJSON, grow(set, around)); err != nil {
				t.Fatal(err)
			}
			golden(t, stem+".json", asJSON.Bytes())
			if err := (printer{&text, noon, time.UTC}).tree(grow(set, around)); err != nil {
				t.Fatal(err)
			}
			golden(t, stem+".txt", text.Bytes())
		})
	}
}

func TestTextsInATreeDoNotSteerTheTerminal(t *testing.T) {
	evil := "a\x1b[2Jb\tc\nd\u009b1;31m\u202e"
	conditions := []metav1.Condition{{Type: "Degraded", Status: metav1.ConditionTrue, Reason: evil, Message: evil}}
	tree := &tree{Kind: "StackSet", Namespace: evil, Name: evil, Version: evil, Conditions: conditions, Notes: []string{evil},
		Stacks: []branch{{Name: evil, Conditions: conditions, Autoscaler: &autoscaler{Kind: "HPA", Trouble: evil}}}}
	var text bytes.Buffer
	if err := (printer{&text, noon, time.UTC}).tree(tree); err != nil {
		t.Fatal(err)
	}
	if err := (printer{&text, noon, time.UTC}).sharing(&sharing{Kind: "StackSet", Namespace: evil, Name: evil, Stacks: []part{{Name: evil}}}); err != nil {
		t.Fatal(err)
	}
	if i := strings.IndexAny(text.String(), "\x1b\t\u009b\u202e"); i >= 0 {
		t.Errorf("%q", text.String()[i:])
	}
	if strings.Contains(text.String(), "\nd") {
		t.Errorf("a text made a line of its own: %q", text.String())
	}
}
