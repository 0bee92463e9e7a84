package cron

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	"github.com/kubetide/kubetide/internal/window"
	"github.com/kubetide/kubetide/portraits"
)

func at(text string) time.Time {
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		panic(err)
	}
	return at
}

func rule(name, start, end string, replicas int32) kapacity.ReplicaCron {
	return kapacity.ReplicaCron{Name: name, Start: kapacity.CronExpression(start), End: kapacity.CronExpression(end), Replicas: replicas}
}

func TestOpinionFollowsTheWindows(t *testing.T) {
	day, noon := rule("day", "0 8 * * *", "0 20 * * *", 5), rule("noon", "0 12 * * *", "0 14 * * *", 3)
	tests := map[string]struct {
		crons []kapacity.ReplicaCron
		now   string
		want  portraits.Opinion
	}{
		"inside a window": {[]kapacity.ReplicaCron{day, noon}, "2026-11-20T08:00:00Z", portraits.Opinion{HasValue: true, Replicas: 5,
			Expires: at("2026-11-20T20:00:00Z"), Next: at("2026-11-20T12:00:00Z"), Reason: `window "day" until 2026-11-20T20:00:00Z`}},
		"row 3: a start each day, an end each minute": {[]kapacity.ReplicaCron{rule("", "0 0 * * ?", "* * * * ?", 1)}, "2026-11-20T08:00:30Z", portraits.Opinion{HasValue: true,
			Replicas: 1, Expires: at("2026-11-20T08:01:00Z"), Next: at("2026-11-20T08:01:00Z"), Reason: `window "" until 2026-11-20T08:01:00Z`}},
		"outside all windows": {[]kapacity.ReplicaCron{day, noon}, "2026-11-20T20:00:00Z", portraits.Opinion{
			Next: at("2026-11-21T08:00:00Z"), Reason: "no window is open until 2026-11-21T08:00:00Z"}},
		"two windows, more replicas count": {[]kapacity.ReplicaCron{noon, day}, "2026-11-20T13:00:00Z", portraits.Opinion{HasValue: true, Replicas: 5,
			Expires: at("2026-11-20T20:00:00Z"), Next: at("2026-11-20T14:00:00Z"), Reason: `window "day" until 2026-11-20T20:00:00Z`,
			Warnings: []string{`found overlapping cron windows "noon" (3) and "day" (5): the one with more replicas counts`}}},
		"two equal windows, the first counts": {[]kapacity.ReplicaCron{rule("a", "0 8 * * *", "0 20 * * *", 5), rule("b", "0 9 * * *", "0 10 * * *", 5)},
			"2026-11-20T09:30:00Z", portraits.Opinion{HasValue: true, Replicas: 5, Expires: at("2026-11-20T20:00:00Z"), Next: at("2026-11-20T10:00:00Z"),
				Reason:   `window "a" until 2026-11-20T20:00:00Z`,
				Warnings: []string{`found overlapping cron windows "a" (5) and "b" (5): the one with more replicas counts`}}},
		"a window of no replicas": {[]kapacity.ReplicaCron{rule("night", "0 22 * * *", "0 6 * * *", 0)}, "2026-11-20T05:00:00Z", portraits.Opinion{HasValue: true,
			Expires: at("2026-11-20T06:00:00Z"), Next: at("2026-11-20T06:00:00Z"), Reason: `window "night" until 2026-11-20T06:00:00Z`}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, New(tt.crons).Evaluate(at(tt.now))); diff != "" {
				t.Errorf("opinion (-want +got):\n%s", diff)
			}
		})
	}
}

func TestARuleThatCannotBeUsedFailsAlone(t *testing.T) {
	good := rule("good", "0 8 * * *", "0 20 * * *", 5)
	zoned := rule("bad", "0 8 * * *", "0 20 * * *", 9)
	zoned.TimeZone = "Mars/Base"
	tests := map[string]struct {
		bad  kapacity.ReplicaCron
		is   error
		text string
	}{
		"B21 an end that never comes": {rule("bad", "0 5 * * *", "0 0 31 2 *", 9), window.ErrNeverFires, `cron.crons[1] "bad": end: cron expression never fires`},
		"a start that never comes":    {rule("bad", "0 0 31 2 *", "0 5 * * *", 9), window.ErrNeverFires, `cron.crons[1] "bad": start: `},
		"six fields":                  {rule("bad", "0 0 8 * * *", "0 5 * * *", 9), window.ErrInvalidCron, "found 6"},
		"an unknown zone":             {zoned, window.ErrInvalidZone, `cron.crons[1] "bad": timeZone: invalid time zone: unknown time zone Mars/Base`},
		"a negative count":            {rule("bad", "0 8 * * *", "0 20 * * *", -9), nil, `cron.crons[1] "bad": replicas: -9 is negative`},
		"the same name again":         {rule("good", "0 8 * * *", "0 20 * * *", 9), nil, `cron.crons[1] "good": name: another window has it`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			o := New([]kapacity.ReplicaCron{good, tt.bad}).Evaluate(at("2026-11-20T09:00:00Z"))
			if !o.HasValue || o.Replicas != 5 {
				t.Errorf("the good rule has no say: %+v", o)
			}
			if o.Err == nil || tt.is != nil && !errors.Is(o.Err, tt.is) || !strings.Contains(o.Err.Error(), tt.text) {
				t.Errorf("error = %v, want %v with %q", o.Err, tt.is, tt.text)
			}
		})
	}
	for name, crons := range map[string][]kapacity.ReplicaCron{"no rule at all": nil, "no rule that can be used": {zoned}} {
		t.Run(name, func(t *testing.T) {
			if o := New(crons).Evaluate(at("2026-11-20T09:00:00Z")); o.HasValue || o.Err == nil || !o.Next.IsZero() || o.Reason != "no usable window" {
				t.Errorf("opinion %+v, want a failure without a value", o)
			}
		})
	}
}

// TestNextIsTheNextBoundaryOfAnyRule holds B11: nothing changes before Next, whichever rule it comes from.
func TestNextIsTheNextBoundaryOfAnyRule(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var crons []kapacity.ReplicaCron
		for i := range rapid.IntRange(1, 4).Draw(t, "rules") {
			expr := func(name string) string {
				return rapid.SampledFrom([]string{"0 2 * * *", "*/20 * * * *", "0 9 * * 1-5", "30 9 * * *", "@every 90m", "0 0 31 2 *"}).Draw(t, name)
			}
			crons = append(crons, rule(string(rune('a'+i)), expr("start"), expr("end"), rapid.Int32Range(0, 3).Draw(t, "replicas")))
		}
		p := New(crons)
		now := time.Unix(rapid.Int64Range(1262304000, 1893456000).Draw(t, "now"), 0)
		o := p.Evaluate(now)
		if o.Next.IsZero() {
			if o.HasValue || len(p.windows) > 0 {
				t.Fatalf("never looked at again: %+v", o)
			}
			return
		}
		if !o.Next.After(now) || o.HasValue && o.Expires.Before(o.Next) {
			t.Fatalf("at %v: %+v", now, o)
		}
		between := now.Add(time.Duration(rapid.Int64Range(0, int64(o.Next.Sub(now))-1).Draw(t, "between")))
		if diff := cmp.Diff(o, p.Evaluate(between), cmp.Comparer(errors.Is)); diff != "" {
			t.Fatalf("between %v and %v (-then +later):\n%s", now, o.Next, diff)
		}
	})
}
