package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	tide "github.com/kubetide/kubetide/api/tide/v1alpha1"
	"github.com/kubetide/kubetide/internal/decision"
)

var update = flag.Bool("update", false, "write the golden files anew")

// situation is what the engine remembers of an object: the record, and the portraits that it read.
type situation struct {
	Record    decision.Record
	Portraits []decision.Portrait
}

// situations reads testdata: one folder each, with record.json and what becomes of it.
func situations(t *testing.T) map[string]situation {
	t.Helper()
	files, err := filepath.Glob("testdata/*/record.json")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d situations: %v", len(files), err)
	}
	out := map[string]situation{}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var s situation
		d := json.NewDecoder(bytes.NewReader(raw))
		d.DisallowUnknownFields()
		if err := d.Decode(&s); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		out[filepath.Base(filepath.Dir(file))] = s
	}
	return out
}

func (s situation) explain() tide.Decision {
	var portraits decision.Portraits
	for _, p := range s.Portraits {
		portraits.Set(s.Record.Object.Namespace, p.Name, p)
	}
	return decision.Explain(s.Record, &portraits)
}

func golden(t *testing.T, file string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}

func TestTypicalSituationsAreExplained(t *testing.T) {
	for name, s := range situations(t) {
		t.Run(name, func(t *testing.T) {
			d := s.explain()
			var text, asJSON bytes.Buffer
			if err := printJSON(&asJSON, d); err != nil {
				t.Fatal(err)
			}
			golden(t, filepath.Join("testdata", name, "explain.json"), asJSON.Bytes())
			// What a reader gets is what was sent.
			var back tide.Decision
			if err := json.Unmarshal(asJSON.Bytes(), &back); err != nil {
				t.Fatal(err)
			}
			if err := (printer{&text, s.Record.Time.Add(10 * time.Second), time.UTC}).explain(&back); err != nil {
				t.Fatal(err)
			}
			golden(t, filepath.Join("testdata", name, "explain.txt"), text.Bytes())
			if lines := strings.Count(text.String(), "\n"); lines > 40 {
				t.Errorf("%d lines are more than a screen", lines)
			}
		})
	}
}

func TestTimesHaveTheirDistance(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 11, 22, 12, 2, 20, 0, time.UTC)
	for want, at := range map[string]time.Duration{
		"13:04:30 (in 2m10s)":           130 * time.Second,
		"13:02:20 (0s ago)":             0,
		"13:01:20 (60s ago)":            -time.Minute,
		"2026-11-23 00:02:20 (in 11h)":  11 * time.Hour,
		"2026-11-21 23:02:20 (14h ago)": -14 * time.Hour,
		"13:02:21 (in 1s)":              time.Second,
	} {
		got := printer{now: now, zone: berlin}.at(&metav1.MicroTime{Time: now.Add(at)})
		if got != want {
			t.Errorf("%s from now: %q, want %q", at, got, want)
		}
	}
}

func TestAHistory(t *testing.T) {
	all := situations(t)
	h := tide.DecisionHistory{ObjectKind: "IntelligentHorizontalPodAutoscaler", Decisions: []tide.Record{all["steady"].Record.API(), all["held"].Record.API()}}
	h.Namespace, h.Name = "shop", "cart"
	h.Decisions[0].Time.Time = h.Decisions[0].Time.Add(-time.Hour)
	var text bytes.Buffer
	if err := (printer{&text, all["held"].Record.Time, time.UTC}).history(&h); err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/history.txt", text.Bytes())
}

func TestTextsOfOthersDoNotSteerTheTerminal(t *testing.T) {
	evil := "a\x1b[2Jb\tc\nd\u009b1;31m\u202e"
	d := tide.Decision{ObjectKind: evil, Decision: tide.Record{Result: evil, Trigger: evil, NextCause: evil, Counterfactuals: []string{evil},
		Candidates: []tide.Candidate{{Provider: evil, Reason: evil, Source: evil}}, Steps: []tide.Step{{Stage: evil, Reason: evil}}},
		Portraits: []tide.Portrait{{Name: evil, Note: evil, Metrics: []tide.PortraitMetric{{Metric: evil, Value: evil, ScaleUpAbove: evil}}}}}
	var text bytes.Buffer
	if err := (printer{&text, time.Now(), time.UTC}).explain(&d); err != nil {
		t.Fatal(err)
	}
	if i := strings.IndexAny(text.String(), "\x1b\t\u009b\u202e"); i >= 0 {
		t.Errorf("%q", text.String()[i:])
	}
	if strings.Contains(text.String(), "\nd") {
		t.Errorf("a text made a line of its own: %q", text.String())
	}
}
