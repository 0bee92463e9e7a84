package main

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestFrameShowsCutPodsAndTheNewestEvents(t *testing.T) {
	at := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	v := view{now: at, step: "waiting"}
	v.ihpa.pods = []podView{{"nginx-0", "Online", true, true}, {"nginx-4", "Cutoff", false, false}}
	for i := range maxEvents + 3 {
		v.events = append(v.events, eventView{at.Add(time.Duration(-i) * time.Second), "IHPA/nginx", "R", "text" + string(rune('a'+i))})
	}
	got := frame(v, 100)
	for _, want := range []string{"nginx-0    Online   yes    yes", "nginx-4    Cutoff   no     no", "texta", "textn"} {
		if !strings.Contains(got, want) {
			t.Errorf("frame lacks %q:\n%s", want, got)
		}
	}
	for _, line := range strings.Split(frame(v, 30), "\n") {
		if len(line) > 30 {
			t.Errorf("a line is too long for the screen: %q", line)
		}
	}
	if strings.Contains(got, "textq") {
		t.Errorf("frame shows an event older than the newest %d", maxEvents)
	}
}

func TestChangesAreOnlyWhatIsNew(t *testing.T) {
	at := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	prev := view{now: at, step: "a", events: []eventView{{at, "o", "R", "old"}}}
	next := prev
	if diff := cmp.Diff([]string(nil), changes(prev, next)); diff != "" {
		t.Errorf("an unchanged view prints lines: %s", diff)
	}
	next.ihpa.cutoff = 2
	next.events = append(next.events, eventView{at, "o", "R", "new"})
	want := []string{
		"12:00:00  IHPA nginx: provider -, desired 0, online 0, cutoff 2; ",
		"12:00:00  event o R: new",
	}
	if diff := cmp.Diff(want, changes(prev, next)); diff != "" {
		t.Error(diff)
	}
}
