package decision

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func sample() Record {
	one, next := int32(1), noon.Add(30*time.Second)
	return Record{
		Object: Object{Kind: "IntelligentHorizontalPodAutoscaler", Namespace: "shop", Name: "cart"}, Time: noon, Trigger: "cron boundary",
		Candidates: []Candidate{{Provider: "Cron", Priority: 2, Reason: "no opinion: no\nactive window"}, {Provider: "Static", Priority: 1, Replicas: &one, Chosen: true, Reason: "wins"}},
		Steps:      []Step{{Stage: "merge", Replicas: 1, Reason: "Static wins"}, {Stage: "clamp", Replicas: 1}},
		Result:     "update ReplicaProfile", Next: &next, NextCause: "gray step due", Counterfactuals: []string{"scale-down blocked until 12:04:30"},
	}
}

func TestARecordOnOneLine(t *testing.T) {
	want := "IntelligentHorizontalPodAutoscaler shop/cart: update ReplicaProfile (cron boundary); Cron@2=- no opinion: no active window; " +
		"*Static@1=1 wins; merge=1 Static wins; clamp=1; next 2026-01-01T12:00:30Z gray step due"
	if diff := cmp.Diff(want, sample().String()); diff != "" {
		t.Errorf("line (-want +got):\n%s", diff)
	}
}

func TestASmallRecordIsKeptWhole(t *testing.T) {
	r := sample()
	if diff := cmp.Diff(r, r.Bounded()); diff != "" {
		t.Errorf("bounded (-want +got):\n%s", diff)
	}
	var back Record
	if err := json.Unmarshal(r.JSON(), &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(r, back); diff != "" {
		t.Errorf("read back (-want +got):\n%s", diff)
	}
}

func TestAnyRecordFits(t *testing.T) {
	text := rapid.OneOf(rapid.String(), rapid.StringN(0, 2000, 9000), rapid.Just(strings.Repeat("\xff", 3000)), rapid.Just(strings.Repeat("<\x00>", 900)))
	rapid.Check(t, func(t *rapid.T) {
		r := Record{Object: Object{Kind: text.Draw(t, "kind"), Namespace: text.Draw(t, "namespace"), Name: text.Draw(t, "name")}, Time: noon,
			Trigger: text.Draw(t, "trigger"), Result: text.Draw(t, "result"), NextCause: text.Draw(t, "cause")}
		for i := range rapid.IntRange(0, 60).Draw(t, "candidates") {
			r.Candidates = append(r.Candidates, Candidate{Provider: text.Draw(t, "provider"), Source: text.Draw(t, "source"), Reason: text.Draw(t, "reason"), Chosen: i == 40})
		}
		for range rapid.IntRange(0, 60).Draw(t, "steps") {
			r.Steps = append(r.Steps, Step{Stage: text.Draw(t, "stage"), Reason: text.Draw(t, "why")})
		}
		for range rapid.IntRange(0, 30).Draw(t, "counterfactuals") {
			r.Counterfactuals = append(r.Counterfactuals, text.Draw(t, "counterfactual"))
		}
		b := r.Bounded()
		raw, err := json.Marshal(b)
		if err != nil {
			t.Fatal(err)
		}
		if len(raw) > MaxBytes {
			t.Fatalf("%d bytes", len(raw))
		}
		if !utf8.ValidString(b.Result) {
			t.Fatalf("result is not UTF-8: %q", b.Result)
		}
		if !cmp.Equal(b, r) && !b.Truncated && utf8.ValidString(r.String()) {
			t.Fatalf("changed and not marked: %s", raw)
		}
		if again := b.Bounded(); !cmp.Equal(again, b) {
			t.Fatalf("bounding twice differs: %s", cmp.Diff(b, again))
		}
	})
}

func TestTheChosenCandidateAndTheLastStepsStay(t *testing.T) {
	r := sample()
	for i := range 500 {
		r.Candidates = append([]Candidate{{Provider: fmt.Sprint("p", i), Reason: strings.Repeat("x", 200)}}, r.Candidates...)
		r.Steps = append([]Step{{Stage: fmt.Sprint("s", i), Reason: strings.Repeat("y", 200)}}, r.Steps...)
		r.Counterfactuals = append(r.Counterfactuals, strings.Repeat("z", 200))
	}
	b := r.Bounded()
	if last := b.Candidates[len(b.Candidates)-1]; !last.Chosen || last.Provider != "Static" {
		t.Errorf("the chosen candidate is lost: %+v", last)
	}
	if last := b.Steps[len(b.Steps)-1]; last.Stage != "clamp" {
		t.Errorf("the last step is lost: %+v", last)
	}
	if len(b.Counterfactuals) == 0 || b.Counterfactuals[0] != "scale-down blocked until 12:04:30" {
		t.Errorf("the first counterfactual is lost: %q", b.Counterfactuals)
	}
	if !b.Truncated {
		t.Error("not marked as truncated")
	}
}

func results(records []Record) (out []string) {
	for _, r := range records {
		out = append(out, r.Result)
	}
	return out
}

func TestALogKeepsTheLastOfEachObject(t *testing.T) {
	l := NewLog(3, 0)
	a, b := Object{Kind: "A", Name: "a"}, Object{Kind: "A", Name: "b"}
	for i := range 5 {
		l.Add(Record{Object: a, Result: fmt.Sprint("a", i)})
	}
	l.Add(Record{Object: b, Result: "b0"})
	if diff := cmp.Diff([]string{"a2", "a3", "a4"}, results(l.Of(a))); diff != "" {
		t.Errorf("of a (-want +got):\n%s", diff)
	}
	l.Forget(a)
	if len(l.Of(a)) != 0 || len(l.Objects()) != 1 || l.Objects()[0] != b {
		t.Errorf("after forgetting a: %v, objects %v", l.Of(a), l.Objects())
	}
	l.Forget(b)
	if l.bytes != 0 || l.all.Len() != 0 {
		t.Errorf("an empty log counts %d bytes in %d records", l.bytes, l.all.Len())
	}
}

func TestALogForgetsTheOldestOfAllWhenItIsFull(t *testing.T) {
	one := Record{Object: Object{Kind: "A", Name: "x0"}, Time: noon, Result: "r"}
	l := NewLog(100, 10*one.size())
	for i := range 50 {
		l.Add(Record{Object: Object{Kind: "A", Name: fmt.Sprint("x", i%10)}, Time: noon, Result: "r"})
		l.Add(Record{Object: Object{Kind: "A", Name: "xy"}, Time: noon, Result: "r"})
	}
	total := 0
	for _, o := range l.Objects() {
		for _, r := range l.Of(o) {
			total += r.size()
		}
	}
	if total != l.bytes || total > 10*one.size() || total < 9*one.size() {
		t.Errorf("%d bytes kept, %d counted, bound %d", total, l.bytes, 10*one.size())
	}
	if len(l.objects) > 10 {
		t.Errorf("%d objects are remembered", len(l.objects))
	}
}

func TestALogUnderConcurrentUse(t *testing.T) {
	l := NewLog(5, 2000)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			o := Object{Kind: "A", Name: fmt.Sprint(g % 3)}
			for range 200 {
				l.Add(Record{Object: o, Result: "r"})
				l.Of(o)
				if g == 0 {
					l.Forget(o)
				}
				l.Objects()
			}
		})
	}
	wg.Wait()
	if l.bytes > 2000 {
		t.Errorf("%d bytes", l.bytes)
	}
}

// What a record rests on is kept whole or not at all, beside the record's own bound, and counts for the log's.
func TestCallsAreKeptTogetherOrNotAtAll(t *testing.T) {
	calls := func(bytes int) (out []Call) {
		for _, f := range []string{"merge", "gray"} {
			out = append(out, Call{Function: f, Inputs: json.RawMessage(`"` + strings.Repeat("x", bytes/2) + `"`), Outcome: json.RawMessage("1")})
		}
		return out
	}
	for name, c := range map[string]struct {
		bytes, kept int
	}{
		"small":                  {100, 2},
		"as large as any record": {2 * MaxBytes, 2},
		"too large":              {MaxCallBytes, 0},
	} {
		t.Run(name, func(t *testing.T) {
			r := Record{Object: Object{Kind: "Kind", Name: "x"}, Result: "stays", Calls: calls(c.bytes)}
			bounded := r.Bounded()
			if len(bounded.Calls) != c.kept || bounded.Truncated || bounded.callSize() > MaxCallBytes {
				t.Errorf("%d calls of %d bytes, truncated %t", len(bounded.Calls), bounded.callSize(), bounded.Truncated)
			}
			if text := string(r.JSON()); strings.Contains(text, "xxx") || len(text) > MaxBytes {
				t.Errorf("what goes to status has %d bytes", len(text))
			}
			log := NewLog(0, 0)
			log.Add(r)
			if kept, _ := log.Last(r.Object); len(kept.Calls) != c.kept || c.kept > 0 && log.bytes < c.bytes {
				t.Errorf("%d calls in the log, which counts %d bytes", len(kept.Calls), log.bytes)
			}
		})
	}
}
