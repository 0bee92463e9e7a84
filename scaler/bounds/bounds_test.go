package bounds

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	"github.com/kubetide/kubetide/internal/decision"
	"github.com/kubetide/kubetide/internal/window"
	"github.com/kubetide/kubetide/scaler/merge"
)

func at(text string) time.Time {
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		panic(err)
	}
	return at
}

// win is a window; a bound of -1 is not set.
func win(name, zone, start, end string, lowest, highest int32) kapacity.ScheduledBounds {
	w := kapacity.ScheduledBounds{Name: name, TimeZone: zone, Start: kapacity.CronExpression(start), End: kapacity.CronExpression(end)}
	if lowest != -1 {
		w.MinReplicas = &lowest
	}
	if highest != -1 {
		w.MaxReplicas = &highest
	}
	return w
}

func TestOpenWindowsStandInThePlaceOfTheSpecsBounds(t *testing.T) {
	day, noon := win("day", "", "0 8 * * *", "0 20 * * *", 5, 20), win("noon", "", "0 12 * * *", "0 14 * * *", 8, 15)
	none := func(min, max int32, next string) Decision { return Decision{Min: min, Max: max, Next: at(next)} }
	tests := map[string]struct {
		windows []kapacity.ScheduledBounds
		now     string
		want    Decision
	}{
		"without windows the spec's bounds hold":     {nil, "2026-11-20T08:00:00Z", Decision{Min: 2, Max: 10}},
		"outside all windows they hold as well":      {[]kapacity.ScheduledBounds{day, noon}, "2026-11-20T20:00:00Z", none(2, 10, "2026-11-21T08:00:00Z")},
		"a window may raise both":                    {[]kapacity.ScheduledBounds{day, noon}, "2026-11-20T08:00:00Z", Decision{5, 20, "day", "day", at("2026-11-20T12:00:00Z"), nil, nil}},
		"of two windows the tighter bounds hold":     {[]kapacity.ScheduledBounds{day, noon}, "2026-11-20T12:00:00Z", Decision{8, 15, "noon", "noon", at("2026-11-20T14:00:00Z"), nil, nil}},
		"their order does not matter":                {[]kapacity.ScheduledBounds{noon, day}, "2026-11-20T12:00:00Z", Decision{8, 15, "noon", "noon", at("2026-11-20T14:00:00Z"), nil, nil}},
		"the end is exclusive":                       {[]kapacity.ScheduledBounds{noon}, "2026-11-20T14:00:00Z", none(2, 10, "2026-11-21T12:00:00Z")},
		"a window may lower the lower bound, to 0":   {[]kapacity.ScheduledBounds{win("night", "", "0 22 * * *", "0 6 * * *", 0, -1)}, "2026-11-20T23:00:00Z", Decision{0, 10, "night", "", at("2026-11-21T06:00:00Z"), nil, nil}},
		"a window with one bound leaves the other":   {[]kapacity.ScheduledBounds{win("cap", "", "0 22 * * *", "0 6 * * *", -1, 4)}, "2026-11-20T23:00:00Z", Decision{2, 4, "", "cap", at("2026-11-21T06:00:00Z"), nil, nil}},
		"each bound may come from another window":    {[]kapacity.ScheduledBounds{win("a", "", "0 8 * * *", "0 20 * * *", 3, 9), win("b", "", "0 8 * * *", "0 20 * * *", 4, 10)}, "2026-11-20T09:00:00Z", Decision{4, 9, "b", "a", at("2026-11-20T20:00:00Z"), nil, nil}},
		"of equal bounds the first window's is told": {[]kapacity.ScheduledBounds{win("a", "", "0 8 * * *", "0 20 * * *", 3, -1), win("b", "", "0 8 * * *", "0 20 * * *", 3, -1)}, "2026-11-20T09:00:00Z", Decision{3, 10, "a", "", at("2026-11-20T20:00:00Z"), nil, nil}},
		"a floor above the spec's maximum: the maximum holds": {[]kapacity.ScheduledBounds{win("rush", "", "0 8 * * *", "0 20 * * *", 15, -1)}, "2026-11-20T09:00:00Z", Decision{15, 10, "rush", "", at("2026-11-20T20:00:00Z"),
			[]string{`at least 15 replicas (window "rush") are more than at most 10 (spec.maxReplicas): 10 holds`}, nil}},
		"bounds that meet are no mistake": {[]kapacity.ScheduledBounds{win("fix", "", "0 8 * * *", "0 20 * * *", 10, -1)}, "2026-11-20T09:00:00Z", Decision{10, 10, "fix", "", at("2026-11-20T20:00:00Z"), nil, nil}},
		"a ceiling below the spec's minimum: the ceiling holds": {[]kapacity.ScheduledBounds{win("night", "", "0 8 * * *", "0 20 * * *", -1, 1)}, "2026-11-20T09:00:00Z", Decision{2, 1, "", "night", at("2026-11-20T20:00:00Z"),
			[]string{`at least 2 replicas (spec.minReplicas) are more than at most 1 (window "night"): 1 holds`}, nil}},

		"spring: a start in the gap is moved to its end":  {[]kapacity.ScheduledBounds{win("w", "Europe/Berlin", "30 2 * * *", "0 5 * * *", 5, -1)}, "2021-03-28T01:30:00Z", Decision{5, 10, "w", "", at("2021-03-28T03:00:00Z"), nil, nil}},
		"spring: not before that":                         {[]kapacity.ScheduledBounds{win("w", "Europe/Berlin", "30 2 * * *", "0 5 * * *", 5, -1)}, "2021-03-28T01:29:59Z", none(2, 10, "2021-03-28T01:30:00Z")},
		"spring: an end in the gap is moved as well":      {[]kapacity.ScheduledBounds{win("w", "Europe/Berlin", "0 1 * * *", "30 2 * * *", 5, -1)}, "2021-03-28T01:29:59Z", Decision{5, 10, "w", "", at("2021-03-28T01:30:00Z"), nil, nil}},
		"autumn: a window lasts through the second pass":  {[]kapacity.ScheduledBounds{win("w", "Europe/Berlin", "0 1 * * *", "30 2 * * *", 5, -1)}, "2021-10-31T00:59:00Z", Decision{5, 10, "w", "", at("2021-10-31T01:30:00Z"), nil, nil}},
		"autumn: a window inside the hour opens twice":    {[]kapacity.ScheduledBounds{win("w", "America/New_York", "30 1 * * *", "45 1 * * *", 5, -1)}, "2024-11-03T06:35:00Z", Decision{5, 10, "w", "", at("2024-11-03T06:45:00Z"), nil, nil}},
		"a half-hour change, east of UTC":                 {[]kapacity.ScheduledBounds{win("w", "Australia/Lord_Howe", "0 5 * * *", "0 6 * * *", 5, -1)}, "2024-10-05T18:00:00Z", Decision{5, 10, "w", "", at("2024-10-05T19:00:00Z"), nil, nil}},
		"an overnight window over the change of the zone": {[]kapacity.ScheduledBounds{win("w", "Europe/Berlin", "0 22 * * *", "0 6 * * *", 5, -1)}, "2026-10-24T20:00:00Z", Decision{5, 10, "w", "", at("2026-10-25T05:00:00Z"), nil, nil}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, Decide(2, 10, tt.windows, at(tt.now))); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestAWindowThatCannotBeUsedIsNamedAndDisturbsNoOther(t *testing.T) {
	good := win("good", "", "0 8 * * *", "0 20 * * *", 5, 20)
	tests := map[string]struct {
		bad  kapacity.ScheduledBounds
		is   error
		text string
	}{
		"an unknown zone":       {win("bad", "Mars/Base", "0 8 * * *", "0 20 * * *", 9, 9), window.ErrInvalidZone, `scheduledBounds[1] "bad": timeZone: invalid time zone: unknown time zone Mars/Base`},
		"a start without dates": {win("bad", "", "0 0 31 2 *", "0 20 * * *", 9, 9), window.ErrNeverFires, `scheduledBounds[1] "bad": start: cron expression never fires`},
		"an end without dates":  {win("bad", "", "0 8 * * *", "0 0 31 2 *", 9, 9), window.ErrNeverFires, `scheduledBounds[1] "bad": end: `},
		"six fields":            {win("bad", "", "0 0 8 * * *", "0 20 * * *", 9, 9), window.ErrInvalidCron, "found 6"},
		"no bound at all":       {win("bad", "", "0 8 * * *", "0 20 * * *", -1, -1), nil, `scheduledBounds[1] "bad": neither minReplicas nor maxReplicas is set`},
		"a negative floor":      {win("bad", "", "0 8 * * *", "0 20 * * *", -2, 9), nil, `scheduledBounds[1] "bad": minReplicas: -2 is negative`},
		"a negative ceiling":    {win("bad", "", "0 8 * * *", "0 20 * * *", 9, -2), nil, `scheduledBounds[1] "bad": maxReplicas: -2 is negative`},
		"the same name again":   {win("good", "", "0 8 * * *", "0 20 * * *", 9, 9), nil, `scheduledBounds[1] "good": name: another window has it`},
		"no name":               {win("", "", "0 8 * * *", "0 20 * * *", 9, 9), nil, `scheduledBounds[1] "": name: it is empty`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			d := Decide(2, 10, []kapacity.ScheduledBounds{good, tt.bad}, at("2026-11-20T09:00:00Z"))
			if d.Min != 5 || d.Max != 20 || d.MinBy != "good" || !d.Next.Equal(at("2026-11-20T20:00:00Z")) {
				t.Errorf("the good window does not hold: %+v", d)
			}
			if d.Err == nil || !strings.Contains(d.Err.Error(), tt.text) || tt.is != nil && !errors.Is(d.Err, tt.is) {
				t.Errorf("error %v, want %v with %q", d.Err, tt.is, tt.text)
			}
			if alone := Decide(2, 10, []kapacity.ScheduledBounds{tt.bad}, at("2026-11-20T09:00:00Z")); name != "the same name again" && (alone.Min != 2 || alone.Max != 10 || alone.Err == nil || !alone.Next.IsZero()) {
				t.Errorf("alone: %+v, want the spec's bounds", alone)
			}
		})
	}
}

func TestTheClampNamesTheWindowThatHolds(t *testing.T) {
	desired := "the desired replica count of current portrait value is "
	both := Decision{Min: 5, Max: 20, MinBy: "day", MaxBy: "day"}
	tests := map[string]struct {
		bounds Decision
		value  int32
		want   merge.Limit
		reason string
	}{
		"below a window's floor":         {both, 3, merge.Limit{Replicas: 5, Limited: true, Reason: "TooFewReplicas", Message: desired + `less than the minimum replica count, 5 in window "day"`}, `TooFewReplicas: 3 was wanted, 5 in window "day"`},
		"above a window's ceiling":       {both, 30, merge.Limit{Replicas: 20, Limited: true, Reason: "TooManyReplicas", Message: desired + `more than the maximum replica count, 20 in window "day"`}, `TooManyReplicas: 30 was wanted, 20 in window "day"`},
		"within a window":                {both, 7, merge.Limit{Replicas: 7, Reason: "DesiredWithinRange", Message: desired + "within the acceptable range"}, "within the bounds"},
		"the spec's own are not named":   {Decision{Min: 5, Max: 20}, 3, merge.Limit{Replicas: 5, Limited: true, Reason: "TooFewReplicas", Message: desired + "less than the minimum replica count"}, "TooFewReplicas: 3 was wanted"},
		"the other bound's window":       {Decision{Min: 5, Max: 20, MaxBy: "cap"}, 3, merge.Limit{Replicas: 5, Limited: true, Reason: "TooFewReplicas", Message: desired + "less than the minimum replica count"}, "TooFewReplicas: 3 was wanted"},
		"contradicting: the maximum's":   {Decision{Min: 15, Max: 10, MinBy: "rush"}, 3, merge.Limit{Replicas: 10, Limited: true, Reason: "TooManyReplicas", Message: desired + "more than the maximum replica count"}, "TooManyReplicas: 3 was wanted"},
		"contradicting: by a window":     {Decision{Min: 5, Max: 1, MaxBy: "cap"}, 3, merge.Limit{Replicas: 1, Limited: true, Reason: "TooManyReplicas", Message: desired + `more than the maximum replica count, 1 in window "cap"`}, `TooManyReplicas: 3 was wanted, 1 in window "cap"`},
		"a value at the bound is within": {both, 5, merge.Limit{Replicas: 5, Reason: "DesiredWithinRange", Message: desired + "within the acceptable range"}, "within the bounds"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			limit, step := tt.bounds.Clamp(tt.value)
			if diff := cmp.Diff(tt.want, limit); diff != "" {
				t.Errorf("limit (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(decision.Step{Stage: "clamp", Replicas: tt.want.Replicas, Reason: tt.reason}, step); diff != "" {
				t.Errorf("step (-want +got):\n%s", diff)
			}
		})
	}
}

func TestBoundsChangeOnlyAtNextAndComeFromWhatIsOpen(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var windows []kapacity.ScheduledBounds
		for i := range rapid.IntRange(0, 6).Draw(t, "windows") {
			cron := func(name string) string {
				return rapid.SampledFrom([]string{"0 2 * * *", "30 2 * * *", "0 9 * * 1-5", "*/20 * * * *", "45 1 * * 0", "0 0 1 * *", "0 0 31 2 *"}).Draw(t, name)
			}
			windows = append(windows, win(fmt.Sprint("w", i), rapid.SampledFrom([]string{"", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Mars/Base"}).Draw(t, "zone"),
				cron("start"), cron("end"), rapid.Int32Range(-1, 20).Draw(t, "min"), rapid.Int32Range(-1, 20).Draw(t, "max")))
		}
		lowest, highest := rapid.Int32Range(0, 10).Draw(t, "lowest"), rapid.Int32Range(10, 20).Draw(t, "highest")
		now := time.Unix(rapid.Int64Range(1600000000, 1900000000).Draw(t, "now"), 0)
		d := Decide(lowest, highest, windows, now)
		min, max, minBy, maxBy := int32(-1), int32(99), "", ""
		for _, w := range windows {
			rule, err := window.ParseRule(string(w.Start), string(w.End), w.TimeZone)
			if err != nil || w.MinReplicas == nil && w.MaxReplicas == nil {
				continue
			}
			if open, _ := rule.Active(now); open {
				if w.MinReplicas != nil && *w.MinReplicas > min {
					min, minBy = *w.MinReplicas, w.Name
				}
				if w.MaxReplicas != nil && *w.MaxReplicas < max {
					max, maxBy = *w.MaxReplicas, w.Name
				}
			}
		}
		if minBy == "" {
			min = lowest
		}
		if maxBy == "" {
			max = highest
		}
		if d.Min != min || d.Max != max || d.MinBy != minBy || d.MaxBy != maxBy {
			t.Fatalf("at %v: %+v, want %d (%s) to %d (%s)", now, d, min, minBy, max, maxBy)
		}
		if limit, _ := d.Clamp(rapid.Int32Range(0, 30).Draw(t, "value")); limit.Replicas > max || limit.Replicas < min && min <= max {
			t.Fatalf("clamped to %d outside of %d to %d", limit.Replicas, min, max)
		}
		if d.Next.IsZero() {
			return
		}
		if !d.Next.After(now) {
			t.Fatalf("Next %v is not after %v", d.Next, now)
		}
		between := now.Add(time.Duration(rapid.Int64Range(0, int64(d.Next.Sub(now))-1).Draw(t, "between")))
		if diff := cmp.Diff(d, Decide(lowest, highest, windows, between), cmp.Comparer(func(a, b error) bool { return (a == nil) == (b == nil) })); diff != "" {
			t.Fatalf("changed before Next, at %v (-before +after):\n%s", between, diff)
		}
	})
}
