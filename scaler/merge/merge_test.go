package merge

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/kubetide/kubetide/internal/decision"
	"github.com/kubetide/kubetide/portraits"
)

var now = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func wants(provider string, priority, replicas int32) Candidate {
	return Candidate{Provider: provider, Priority: priority, Opinion: portraits.Opinion{HasValue: true, Replicas: replicas}}
}

func until(c Candidate, t time.Time) Candidate { c.Expires = t; return c }

func none(provider string, priority int32) Candidate {
	return Candidate{Provider: provider, Priority: priority, Opinion: portraits.Opinion{Reason: "no active window"}}
}

func fails(c Candidate) Candidate { c.Err = errors.New("source down"); return c }

func TestDecide(t *testing.T) {
	type result struct {
		Valid    bool
		Replicas int32
		Winner   string
		HeldBy   []string
	}
	cases := map[string]struct {
		candidates []Candidate
		current    int32
		want       result
	}{
		"the highest priority wins, also with fewer replicas": {[]Candidate{wants("Static", 1, 9), wants("Cron", 2, 3)}, 5, result{true, 3, "Cron", nil}},
		"of equal priority more replicas win":                 {[]Candidate{wants("Static", 1, 3), wants("Cron", 1, 9)}, 5, result{true, 9, "Cron", nil}},
		"a full tie goes to the first":                        {[]Candidate{wants("Static", 1, 3), wants("Cron", 1, 3)}, 5, result{true, 3, "Static", nil}},
		"a later tie does not pass the first by way of another": {[]Candidate{wants("a", 1, 3), wants("b", 0, 9), wants("c", 1, 3)}, 5,
			result{true, 3, "a", nil}},
		"negative priorities work":       {[]Candidate{wants("Static", -2, 9), wants("Cron", -1, 3)}, 5, result{true, 3, "Cron", nil}},
		"no opinion is skipped":          {[]Candidate{none("Cron", 2), wants("Static", 1, 1)}, 5, result{true, 1, "Static", nil}},
		"an expired value is skipped":    {[]Candidate{until(wants("Cron", 2, 9), now), wants("Static", 1, 1)}, 5, result{true, 1, "Static", nil}},
		"a value holds until its expiry": {[]Candidate{until(wants("Cron", 2, 9), now.Add(1)), wants("Static", 1, 1)}, 5, result{true, 9, "Cron", nil}},
		"zero replicas are an opinion":   {[]Candidate{wants("Dynamic-Reactive", 2, 0), wants("Static", 1, 1)}, 5, result{true, 0, "Dynamic-Reactive", nil}},
		"nobody has an opinion":          {[]Candidate{none("Cron", 2), until(wants("Static", 1, 1), now)}, 5, result{false, 0, "", nil}},
		"there is nobody":                {nil, 5, result{false, 0, "", nil}},
		"a failure above the winner forbids lowering": {[]Candidate{fails(none("Cron", 2)), wants("Static", 1, 1)}, 5,
			result{true, 5, "Static", []string{"Cron"}}},
		"a failure beside the winner forbids lowering": {[]Candidate{fails(none("Cron", 1)), wants("Static", 1, 1)}, 5,
			result{true, 5, "Static", []string{"Cron"}}},
		"a failure below the winner is of no account": {[]Candidate{fails(none("Cron", 0)), wants("Static", 1, 1)}, 5, result{true, 1, "Static", nil}},
		"a failure blocks nobody upwards":             {[]Candidate{fails(none("Cron", 2)), wants("Static", 1, 9)}, 5, result{true, 9, "Static", nil}},
		"several failures are all named": {[]Candidate{fails(none("Cron", 2)), wants("Static", 1, 1), fails(none("Dynamic-Reactive", 3))}, 5,
			result{true, 5, "Static", []string{"Cron", "Dynamic-Reactive"}}},
		"only failures: replicas stay": {[]Candidate{fails(none("Cron", 2))}, 5, result{false, 0, "", nil}},
		"a value beside a failure stands, and does not lower": {[]Candidate{fails(wants("Cron", 2, 3)), wants("Static", 1, 1)}, 5,
			result{true, 5, "Cron", []string{"Cron"}}},
		"a value beside a failure may raise": {[]Candidate{fails(wants("Cron", 2, 7)), wants("Static", 1, 1)}, 5, result{true, 7, "Cron", nil}},
		"less than none is a failure":        {[]Candidate{wants("Cron", 2, -1), wants("Static", 1, 1)}, 5, result{true, 5, "Static", []string{"Cron"}}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			out := Decide(c.candidates, c.current, now)
			if diff := cmp.Diff(c.want, result{out.Valid, out.Replicas, out.Winner, out.HeldBy}); diff != "" {
				t.Errorf("outcome (-want +got):\n%s", diff)
			}
		})
	}
}

func TestEveryCandidateIsAccountedFor(t *testing.T) {
	seven := int32(7)
	expiry := now.Add(time.Hour)
	window := until(wants("Cron", 2, 7), expiry)
	window.Reason, window.Warnings = `window "day"`, []string{`windows "day" and "noon" overlap`}
	later := none("Dynamic-Predictive", 2)
	later.Next = now.Add(time.Minute)
	out := Decide([]Candidate{window, wants("Static", 1, 7), fails(none("Dynamic-Reactive", 2)), later, until(wants("old", 3, 7), now.Add(-time.Minute)),
		wants("twin", 2, 7), until(wants("small", 2, 7), now)}, 9, now)
	want := Outcome{
		Valid: true, Replicas: 9, Winner: "Cron", Expires: expiry, HeldBy: []string{"Dynamic-Reactive"}, Next: later.Next,
		Failed:   []Failure{{Provider: "Dynamic-Reactive"}},
		Warnings: []string{`Cron: windows "day" and "noon" overlap`},
		Candidates: []decision.Candidate{
			{Provider: "Cron", Priority: 2, Replicas: &seven, Expires: &expiry, Chosen: true, Reason: `wins: window "day"`},
			{Provider: "Static", Priority: 1, Replicas: &seven, Reason: "lower priority than Cron"},
			{Provider: "Dynamic-Reactive", Priority: 2, Failed: true, Reason: "skipped: no active window; failed: source down; forbids lowering"},
			{Provider: "Dynamic-Predictive", Priority: 2, Reason: "no opinion: no active window"},
			{Provider: "old", Priority: 3, Reason: "expired at 2026-01-01T11:59:00Z"},
			{Provider: "twin", Priority: 2, Replicas: &seven, Reason: "equal to Cron, which comes first"},
			{Provider: "small", Priority: 2, Reason: "expired at 2026-01-01T12:00:00Z"},
		},
		Step: decision.Step{Stage: "merge", Replicas: 9, Reason: "Cron wants 7, not lowered while there are failures: Dynamic-Reactive"},
	}
	if diff := cmp.Diff(want, out, cmpopts.IgnoreFields(Failure{}, "Err")); diff != "" {
		t.Errorf("outcome (-want +got):\n%s", diff)
	}
	if err := out.Failed[0].Err; err == nil || err.Error() != "source down" {
		t.Errorf("the failure's cause is %v", err)
	}
}

func TestClamp(t *testing.T) {
	const desired = "the desired replica count of current portrait value is "
	cases := map[string]struct {
		value, lowest, highest int32
		want                   Limit
	}{
		"within":               {3, 1, 10, Limit{3, false, "DesiredWithinRange", desired + "within the acceptable range"}},
		"at the bounds":        {1, 1, 1, Limit{1, false, "DesiredWithinRange", desired + "within the acceptable range"}},
		"Q: 0 with min 1":      {0, 1, 10, Limit{1, true, "TooFewReplicas", desired + "less than the minimum replica count"}},
		"Q: 99 with max 10":    {99, 1, 10, Limit{10, true, "TooManyReplicas", desired + "more than the maximum replica count"}},
		"T: min 5, max 3":      {1, 5, 3, Limit{3, true, "TooManyReplicas", desired + "more than the maximum replica count"}},
		"T: above both bounds": {9, 5, 3, Limit{3, true, "TooManyReplicas", desired + "more than the maximum replica count"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, Clamp(c.value, c.lowest, c.highest)); diff != "" {
				t.Errorf("limit (-want +got):\n%s", diff)
			}
		})
	}
	if got := Clamp(99, 1, 10).Step(99); got != (decision.Step{Stage: "clamp", Replicas: 10, Reason: "TooManyReplicas: 99 was wanted"}) {
		t.Errorf("step: %+v", got)
	}
}

func TestMergeProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		candidates := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Candidate {
			c := wants(rapid.SampledFrom([]string{"Static", "Cron", "Dynamic-Reactive", "Dynamic-Predictive"}).Draw(t, "provider"),
				rapid.Int32Range(-2, 2).Draw(t, "priority"), rapid.Int32Range(-1, 5).Draw(t, "replicas"))
			c.HasValue = rapid.Bool().Draw(t, "value")
			if rapid.Bool().Draw(t, "expires") {
				c.Expires = now.Add(time.Duration(rapid.IntRange(-2, 2).Draw(t, "in")))
			}
			if rapid.IntRange(0, 3).Draw(t, "health") == 0 {
				c = fails(c)
			}
			return c
		}), 0, 8).Draw(t, "candidates")
		current := rapid.Int32Range(0, 6).Draw(t, "current")
		out := Decide(candidates, current, now)
		if !out.Next.IsZero() && !out.Next.After(now) {
			t.Fatalf("Next %v is not after now", out.Next)
		}
		if len(out.Candidates) != len(candidates) {
			t.Fatalf("%d of %d candidates are accounted for", len(out.Candidates), len(candidates))
		}
		chosen := slices.IndexFunc(out.Candidates, func(c decision.Candidate) bool { return c.Chosen })
		if out.Valid != (chosen >= 0) {
			t.Fatalf("valid is %v with winner %d", out.Valid, chosen)
		}
		if !out.Valid {
			return
		}
		winner := candidates[chosen]
		for i, c := range candidates {
			if hasOpinion(c, now) && (c.Priority > winner.Priority || c.Priority == winner.Priority &&
				(c.Replicas > winner.Replicas || c.Replicas == winner.Replicas && i < chosen)) {
				t.Fatalf("candidate %d outranks the winner %d", i, chosen)
			}
			if failure(c) != nil && c.Priority >= winner.Priority && out.Replicas < current {
				t.Fatalf("lowered from %d to %d although candidate %d fails", current, out.Replicas, i)
			}
		}
		if out.Replicas != winner.Replicas && (len(out.HeldBy) == 0 || out.Replicas != current || current < winner.Replicas) {
			t.Fatalf("replicas %d, winner %d, current %d, held by %v", out.Replicas, winner.Replicas, current, out.HeldBy)
		}
	})
}
