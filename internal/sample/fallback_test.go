package sample

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestFallbackOverTime(t *testing.T) {
	since := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	end := since.Add(10 * time.Minute)
	held, waiting := Instead{Stage: Held, Since: since, Until: end}, Instead{Stage: Waiting, Since: since, Until: end}
	fixed, over := Instead{Stage: Fixed, Since: since}, Instead{Stage: Over, Since: since}
	both, hold, value := Fallback{Hold: 10 * time.Minute, Fixed: true, Milli: 1}, Fallback{Hold: 10 * time.Minute}, Fallback{Fixed: true}
	tests := map[string]struct {
		fallback Fallback
		after    time.Duration
		known    bool
		want     Instead
	}{
		"the last value is held from the moment it is lost":      {both, 0, true, held},
		"the last value is held until just before the hold ends": {both, 10*time.Minute - 1, true, held},
		"the fixed value follows when the hold ends":             {both, 10 * time.Minute, true, fixed},
		"the fixed value has no end":                             {both, 1000 * time.Hour, true, fixed},
		"without a last value the hold is waited for":            {both, 10*time.Minute - 1, false, waiting},
		"and then the fixed value is served":                     {both, 10 * time.Minute, false, fixed},
		"without a fixed value nothing follows the hold":         {hold, 10 * time.Minute, true, over},
		"without either there is nothing at all":                 {hold, 0, false, over},
		"without a hold the fixed value is served at once":       {value, 0, true, fixed},
		"and also where there was never a value":                 {value, 0, false, fixed},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := tt.fallback.At(since.Add(tt.after), since, tt.known)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if serves := got.Stage == Held || got.Stage == Fixed; got.Serves() != serves {
				t.Errorf("%s serves: %t", got.Stage, got.Serves())
			}
		})
	}
	if (*Instead)(nil).Serves() {
		t.Error("no fallback serves")
	}
}

func TestQueriesThatDifferInTheirFallbackHaveIDsOfTheirOwn(t *testing.T) {
	q := Query{Kind: External, Namespace: "shop", Metric: "queue", Collector: "fake", Interval: time.Minute}
	with := q
	with.Fallback.Hold = time.Minute
	if q.ID() == with.ID() {
		t.Error("they have one ID")
	}
}
