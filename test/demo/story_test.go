package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestChaptersAreChosenByName(t *testing.T) {
	for name, test := range map[string]struct {
		args, want []string
		err        string
	}{
		"none is all":             {nil, []string{"schedule", "load", "gray", "stackset", "cluster"}, ""},
		"one":                     {[]string{"gray"}, []string{"gray"}, ""},
		"some, in their order":    {[]string{"cluster", "gray"}, []string{"gray", "cluster"}, ""},
		"twice is once":           {[]string{"load", "load"}, []string{"load"}, ""},
		"an unknown one":          {[]string{"gray", "grey"}, nil, `there is no chapter "grey"; there are: schedule, load, gray, stackset, cluster`},
		"several in one argument": {[]string{"gray cluster"}, nil, `there is no chapter "gray cluster"`},
	} {
		t.Run(name, func(t *testing.T) {
			chapters, err := choose(story(), test.args)
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Errorf("the error is %v, want %q", err, test.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, c := range chapters {
				got = append(got, c.about().name)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestTheRouterIsBuiltOnlyForTheChapterThatNeedsIt(t *testing.T) {
	for _, c := range story() {
		want := []string(nil)
		if c.about().name == "stackset" {
			want = []string{"skipper"}
		}
		if diff := cmp.Diff(want, needs([]chapter{c})); diff != "" {
			t.Errorf("%s: %s", c.about().name, diff)
		}
	}
}

func TestHelpListsTheChapters(t *testing.T) {
	var out bytes.Buffer
	if _, err := parse(story(), []string{"-h"}, &out); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("the error is %v", err)
	}
	for _, c := range story() {
		if a := c.about(); !strings.Contains(out.String(), a.name) || !strings.Contains(out.String(), a.title) {
			t.Errorf("help lacks %s:\n%s", a.name, &out)
		}
	}
}

func TestTheLookAroundNamesEachChapterThatWasTold(t *testing.T) {
	chapters, err := choose(story(), []string{"gray", "schedule"})
	if err != nil {
		t.Fatal(err)
	}
	want := `
The lab stays up. Each chapter has a namespace of its name. Look around with

    export KUBECONFIG=/k
    kubectl -n schedule get scalingschedule,hpa,pods
    kubectl -n gray describe ihpa nginx

(no kubectl? bin/lab exec --name mine -- kubectl ...), and end it with

    make lab-down NAME=mine
`
	if diff := cmp.Diff(want, lookAround("/k", "mine", chapters)); diff != "" {
		t.Error(diff)
	}
}

func TestTheSummaryHasALineForEachChapter(t *testing.T) {
	got := summary([]result{
		{name: "gray", figures: "5 → 1", took: 42400 * time.Millisecond},
		{name: "stackset", took: time.Minute, err: errors.New("2 requests lost\nand a long story")},
	})
	want := `CHAPTER   RESULT  TIME  SEEN
gray      ok      42s   5 → 1
stackset  FAILED  1m0s  2 requests lost
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestUntilSaysWhatItLastSaw(t *testing.T) {
	calls := 0
	err := until(t.Context(), 20*time.Millisecond, func(ctx context.Context) error {
		if calls++; calls > 1 {
			return ctx.Err()
		}
		return errors.New("3 of 4 pods")
	})
	if err == nil || !strings.Contains(err.Error(), "not within 20ms: 3 of 4 pods") {
		t.Errorf("the error is %v", err)
	}
	if err := until(t.Context(), time.Second, func(context.Context) error { return nil }); err != nil {
		t.Error(err)
	}
}
