package scheduled

import (
	"math"
	"testing"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"pgregory.net/rapid"
)

func metric(value, targetMilli int64) Metric {
	return Metric{Full: value, Value: value, TargetMilli: targetMilli}
}

func TestAdjustClosesTheGapThatTheToleranceLeaves(t *testing.T) {
	ten := Limits{MaxReplicas: 1000, Up: 0.1, Down: 0.1}
	tests := map[string]struct {
		current int32
		metrics []Metric
		limits  Limits
		want    int32
	}{
		"39 rounded up":                             {28, []Metric{metric(10000, 333_000)}, ten, 31},
		"40 within the tolerance":                   {95, []Metric{metric(1000, 10_000)}, ten, 100},
		"41 beyond it, the HPA scales itself":       {90, []Metric{metric(1000, 10_000)}, ten, 90},
		"42 no metric with an average":              {95, nil, ten, 95},
		"43 a target in thousandths":                {90, []Metric{metric(1000, 10_500)}, ten, 96},
		"exactly at the tolerance the HPA is still": {100, []Metric{metric(1100, 10_000)}, ten, 110},
		"never down":                                {101, []Metric{metric(1000, 10_000)}, ten, 101},
		"never from zero":                           {0, []Metric{metric(1000, 10_000)}, ten, 0},
		"never from an impossible count":            {-1, []Metric{metric(1000, 10_000)}, ten, -1},
		"no schedule is active":                     {1, []Metric{metric(0, 10_000)}, ten, 1},
		"at most to the maximum":                    {95, []Metric{metric(1000, 10_000)}, Limits{MaxReplicas: 98, Up: 0.1, Down: 0.1}, 98},
		"already at the maximum":                    {98, []Metric{metric(1000, 10_000)}, Limits{MaxReplicas: 98, Up: 0.1, Down: 0.1}, 98},
		"the highest metric counts":                 {95, []Metric{metric(960, 10_000), metric(1000, 10_000), metric(500, 10_000)}, ten, 100},
		"its own tolerance, wider":                  {85, []Metric{metric(1000, 10_000)}, Limits{MaxReplicas: 1000, Up: 0.2, Down: 0.1}, 100},
		"its own tolerance, none":                   {95, []Metric{metric(1000, 10_000)}, Limits{MaxReplicas: 1000, Up: 0, Down: 0.1}, 95},
		"on a ramp that is near enough":             {91, []Metric{{Full: 1000, Value: 950, TargetMilli: 10_000}}, ten, 100},
		"on a ramp, where the HPA would go back":    {85, []Metric{{Full: 1000, Value: 850, TargetMilli: 10_000}}, Limits{MaxReplicas: 1000, Up: 0.2, Down: 0.1}, 85},
		"an absurd value":                           {95, []Metric{metric(math.MaxInt64, 1)}, ten, 95},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := tt.current
			if a, ok := Adjust(tt.current, tt.metrics, tt.limits); ok {
				got = a.To
				if a.From != tt.current || a.To == a.From {
					t.Errorf("adjustment %+v from %d", a, tt.current)
				}
			}
			if got != tt.want {
				t.Errorf("replicas = %d, want %d", got, tt.want)
			}
		})
	}
}

func TestAdjustNamesTheScheduleThatCounts(t *testing.T) {
	low, high := metric(960, 10_000), metric(1000, 10_000)
	low.Object, high.Object = autoscalingv2.CrossVersionObjectReference{Name: "low"}, autoscalingv2.CrossVersionObjectReference{Name: "high"}
	if a, ok := Adjust(95, []Metric{low, high}, Limits{MaxReplicas: 1000, Up: 0.1, Down: 0.1}); !ok || a.Object.Name != "high" {
		t.Errorf("adjustment %+v %v, want one by high", a, ok)
	}
}

// TestAdjustAndTheHPADoNotFight: an adjustment goes up, stays in bounds, is none that the HPA would make, and the HPA leaves
// the result alone.
func TestAdjustAndTheHPADoNotFight(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := Limits{MaxReplicas: rapid.Int32Range(1, 500).Draw(t, "max"), Up: rapid.Float64Range(0, 1).Draw(t, "up"), Down: rapid.Float64Range(0, 1).Draw(t, "down")}
		m := Metric{Full: rapid.Int64Range(0, 3000).Draw(t, "full"), TargetMilli: rapid.Int64Range(1, 20_000).Draw(t, "target")}
		m.Value = rapid.Int64Range(0, m.Full).Draw(t, "value")
		current := rapid.Int32Range(0, 500).Draw(t, "current")
		a, ok := Adjust(current, []Metric{m}, l)
		if !ok {
			return
		}
		if a.To <= current || a.To > l.MaxReplicas {
			t.Fatalf("adjusted to %d", a.To)
		}
		ratio := func(value int64, replicas int32) float64 {
			return float64(value*1000) / (float64(m.TargetMilli) * float64(replicas))
		}
		if r := ratio(m.Full, current); r > 1+l.Up {
			t.Fatalf("the HPA scales up itself at %v", r)
		}
		if r := ratio(m.Value, a.To); r < 1-l.Down {
			t.Fatalf("the HPA scales down again at %v", r)
		}
	})
}
