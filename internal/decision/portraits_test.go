package decision

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTheLastEvaluationOfAPortraitIsKept(t *testing.T) {
	var s Portraits
	three := int32(3)
	details := []Detail{{Metric: "rps", Value: "412", Replicas: &three}}
	s.Set("shop", "cart-reactive", Portrait{Name: "cart-reactive", Note: "first"})
	s.Set("shop", "cart-reactive", Portrait{Name: "cart-reactive", Time: noon, Replicas: &three, Details: details})
	s.Set("bank", "cart-reactive", Portrait{Name: "other"})
	details[0].Value = "changed by the caller"
	want := Portrait{Name: "cart-reactive", Time: noon, Replicas: &three, Details: []Detail{{Metric: "rps", Value: "412", Replicas: &three}}}
	got, ok := s.Get("shop", "cart-reactive")
	if diff := cmp.Diff(want, got); !ok || diff != "" {
		t.Errorf("known: %t (-want +got):\n%s", ok, diff)
	}
	s.Forget("shop", "cart-reactive")
	if _, ok := s.Get("shop", "cart-reactive"); ok {
		t.Error("still known after being forgotten")
	}
	if _, ok := s.Get("bank", "cart-reactive"); !ok {
		t.Error("forgetting one namespace's portrait took another's")
	}
}

func TestAPortraitIsBounded(t *testing.T) {
	var s Portraits
	long := strings.Repeat("x", 5000)
	p := Portrait{Name: long, Note: long}
	for range 500 {
		p.Details = append(p.Details, Detail{Metric: long, Source: long, Value: long, Target: long, State: long, Reason: long, ScaleUpAbove: long, ScaleDownBelow: long, AtMaxAbove: long})
	}
	s.Set("shop", "cart", p)
	got, _ := s.Get("shop", "cart")
	if len(got.Details) != MaxDetails {
		t.Errorf("%d details", len(got.Details))
	}
	d := got.Details[0]
	for _, text := range []string{got.Name, got.Note, d.Metric, d.Source, d.Value, d.Target, d.State, d.Reason, d.ScaleUpAbove, d.ScaleDownBelow, d.AtMaxAbove} {
		if len(text) != maxDetailText {
			t.Errorf("a text of %d bytes", len(text))
		}
	}
}
