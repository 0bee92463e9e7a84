package main

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTheDashboardsAreGenerated(t *testing.T) {
	want := map[string]string{}
	for _, b := range boards {
		data, err := b.json()
		if err != nil {
			t.Fatal(err)
		}
		want[b.name+".json"] = string(data)
	}
	got := map[string]string{}
	files, err := filepath.Glob("../*.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		got[filepath.Base(file)] = string(data)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("run make generate (-want +got):\n%s", diff)
	}
}

func TestPanelsStandBesideEachOtherWhereTheyFit(t *testing.T) {
	b := board{panels: []panel{{kind: number}, {kind: number}, {kind: lines}, {kind: lines}, {kind: bands}}}
	var got []string
	for _, p := range b.layout() {
		at := p["gridPos"].(object)
		got = append(got, fmt.Sprint(at["x"], at["y"], at["w"], at["h"]))
	}
	want := []string{"0 0 6 4", "6 0 6 4", "0 4 12 8", "12 4 12 8", "0 12 12 8"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("x y w h (-want +got):\n%s", diff)
	}
}
