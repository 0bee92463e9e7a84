package main

import (
	"strings"
	"testing"
	"time"
)

func testScreen(terminal bool, columns int) (*screen, *strings.Builder) {
	out := &strings.Builder{}
	return &screen{out: out, terminal: terminal, columns: func() int { return columns }, spoken: time.Now()}, out
}

func TestATerminalHasALineThatIsRedrawn(t *testing.T) {
	s, out := testScreen(true, 20)
	s.doing("waiting for a long time\nfor pods")
	s.print("a pod is ready\n")
	s.doing("")
	const live = "      0s  ... waitin" // no line is broken
	if want := live[:19] + "\r\x1b[K" + "a pod is ready\n" + live[:19] + "\r\x1b[K"; out.String() != want {
		t.Errorf("got  %q\nwant %q", out, want)
	}
}

func TestAPipeIsNeverSilentForLong(t *testing.T) {
	s, out := testScreen(false, 80)
	s.tick(s.spoken.Add(2 * quiet))
	if out.String() != "" {
		t.Errorf("nothing goes on, and it prints %q", out)
	}
	s.doing("1 of 4 pods\nready")
	s.tick(s.spoken.Add(quiet - time.Second))
	if out.String() != "" {
		t.Errorf("it prints too early: %q", out)
	}
	s.tick(s.spoken.Add(quiet))
	if got := out.String(); !strings.HasSuffix(got, "  ... 1 of 4 pods ready\n") || strings.Count(got, "\n") != 1 {
		t.Errorf("got %q", got)
	}
	s.tick(s.spoken.Add(time.Second))
	if strings.Count(out.String(), "\n") != 1 {
		t.Errorf("it repeats itself: %q", out)
	}
}

func TestLongLinesAreCutByCharacters(t *testing.T) {
	for name, test := range map[string]struct {
		text    string
		columns int
		want    string
	}{
		"fits":      {"1 → 4", 5, "1 → 4"},
		"too long":  {"1 → 4 pods", 3, "1 →"},
		"no screen": {"text", -1, ""},
	} {
		if got := cut(test.text, test.columns); got != test.want {
			t.Errorf("%s: got %q, want %q", name, got, test.want)
		}
	}
}
