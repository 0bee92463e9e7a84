package reactive

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"pgregory.net/rapid"
)

func TestWaysOut(t *testing.T) {
	lost := func(f fact) Inputs {
		in := f.inputs()
		in.Pods[0].Ready = corev1.ConditionUnknown
		return in
	}
	for name, test := range map[string]struct {
		in       Inputs
		options  Options
		hpa, out int32 // what the HPA proposes, and the way out
		usage    int64
	}{
		"every pod is unready in an overload": {
			in:      fact{metric: external(valueOf(1000)), spec: 4, pods: []int{unready, unready, pending, hotUnready}, values: []int64{2500}}.inputs(),
			options: Options{UnreadyOverload: true}, hpa: 0, out: 10, usage: 2500,
		},
		"every pod is unready below the target": {
			in:      fact{metric: object(valueOf(1000)), spec: 4, pods: []int{unready, unready, unready, unready}, values: []int64{500}}.inputs(),
			options: Options{UnreadyOverload: true}, hpa: 0, out: 2, usage: 500,
		},
		"some pod is ready: the HPA's rule stays": {
			in:      fact{metric: external(valueOf(1000)), spec: 4, pods: []int{unready, unready, pending, ready}, values: []int64{2500}}.inputs(),
			options: Options{UnreadyOverload: true}, hpa: 3, out: 3, usage: 2500,
		},
		"a missing pod does not let the count fall": {
			in: facts["12: missing pods count as 100 % on the way down"].inputs(), options: Options{HoldOnMissing: true}, hpa: 3, out: 4, usage: 495,
		},
		"nor does one whose node is lost": {
			in: lost(facts["7: usage below the target scales down"]), options: Options{HoldOnMissing: true}, hpa: 3, out: 5, usage: 560,
		},
		"nor one that is not ready for that reason": {
			in: lost(facts["22b: and scales down"]), options: Options{HoldOnMissing: true}, hpa: 3, out: 5, usage: 8600,
		},
		"it may rise": {
			in: facts["14: missing and unready pods count as 0 on the way up"].inputs(), options: Options{HoldOnMissing: true}, hpa: 4, out: 4, usage: 4000,
		},
		"pending pods are no missing data": {
			in: facts["8b: pending pods are left out on the way down"].inputs(), options: Options{HoldOnMissing: true}, hpa: 1, out: 1, usage: 200,
		},
		"per pod of no pods: the sum is published": {
			in: facts["trap 4: per pod of no pods, in an HPA on amd64"].inputs(), options: Options{Saturate: true}, hpa: 3, out: 3, usage: 2500,
		},
		"nothing per pod of no pods": {
			in:      fact{metric: external(averageOf(1000)), spec: 2, pods: []int{}, values: []int64{0}}.inputs(),
			options: Options{Saturate: true}, hpa: 0, out: 0, usage: 0,
		},
		"a ratio that is not a number keeps": {
			in:      fact{metric: external(valueOf(0)), spec: 3, values: []int64{0}}.inputs(),
			options: Options{Saturate: true}, hpa: math.MinInt32, out: 3, usage: 0,
		},
		"a flood is not taken for nothing": {
			in:      fact{metric: perPodQPS(1), spec: 3, samples: []int64{math.MaxInt64 / 4, math.MaxInt64 / 4, math.MaxInt64 / 4}}.inputs(),
			options: Options{Saturate: true}, hpa: math.MinInt32, out: math.MaxInt32, usage: math.MaxInt64 / 4,
		},
		"a flood of an object from zero": {
			in:      fact{metric: object(valueOf(1)), spec: 0, pods: []int{}, values: []int64{math.MaxInt64}}.inputs(),
			options: Options{Saturate: true}, hpa: math.MinInt32, out: math.MaxInt32, usage: math.MaxInt64,
		},
		"a sum of samples beyond 64 bits": {
			in:      fact{metric: perPodQPS(math.MaxInt64 / 4), spec: 2, samples: []int64{math.MaxInt64, math.MaxInt64}}.inputs(),
			options: Options{Saturate: true}, hpa: 0, out: 4, usage: math.MaxInt64 / 2,
		},
		"a utilization beyond 32 bits": {
			in:      fact{metric: cpu(100), spec: 2, requests: []int64{1, 1}, samples: []int64{1 << 50, 1 << 50}}.inputs(),
			options: Options{Saturate: true}, hpa: 0, out: 42949673, usage: 1 << 51,
		},
		"a negative sum is not the largest there is": {
			in:      fact{metric: external(averageOf(1000)), spec: 3, values: []int64{-500}}.inputs(),
			options: Options{Saturate: true}, hpa: math.MaxInt32, out: 0, usage: -166,
		},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Propose(test.in); got.Err != nil || got.Replicas != test.hpa {
				t.Errorf("without: %d (%s), %v; want %d", got.Replicas, got.Reason, got.Err, test.hpa)
			}
			test.in.Options = test.options
			got := Propose(test.in)
			if got.Err != nil || got.Replicas != test.out || got.Usage != test.usage || got.Overflow {
				t.Errorf("with: %d, usage %d (%s), overflow %t, %v; want %d, %d", got.Replicas, got.Usage, got.Reason, got.Overflow, got.Err, test.out, test.usage)
			}
		})
	}
}

func TestMetricsWithoutATargetAreErrors(t *testing.T) {
	for want, metric := range map[string]autoscalingv2.MetricSpec{
		"invalid resource metric source: neither an average utilization target nor an average value (usage) target was set": {
			Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{Name: corev1.ResourceCPU},
		},
		"invalid pods metric source: no average value target was set": {
			Type: autoscalingv2.PodsMetricSourceType, Pods: &autoscalingv2.PodsMetricSource{},
		},
		"invalid object metric source: neither a value target nor an average value target was set": {
			Type: autoscalingv2.ObjectMetricSourceType, Object: &autoscalingv2.ObjectMetricSource{},
		},
		"invalid external metric source: neither a value target nor an average value target was set": {
			Type: autoscalingv2.ExternalMetricSourceType, External: &autoscalingv2.ExternalMetricSource{},
		},
		`unknown metric source type "Resource"`: {Type: autoscalingv2.ResourceMetricSourceType},
		`unknown metric source type "Magic"`:    {Type: "Magic"},
	} {
		if got := Propose(Inputs{Metric: metric}); got.Err == nil || got.Err.Error() != want {
			t.Errorf("error %v, want %s", got.Err, want)
		}
	}
}

func TestTheUsageIsShownAsAnHPAShowsIt(t *testing.T) {
	percent := int32(50)
	for name, test := range map[string]struct {
		in   Inputs
		want autoscalingv2.MetricValueStatus
	}{
		"a utilization":    {facts["1: usage above the target scales up"].inputs(), autoscalingv2.MetricValueStatus{AverageUtilization: &percent, AverageValue: resource.NewMilliQuantity(1000, resource.DecimalSI)}},
		"memory in binary": {facts["memory does not look at readiness"].inputs(), autoscalingv2.MetricValueStatus{AverageValue: resource.NewMilliQuantity(2000, resource.BinarySI)}},
		"a value":          {facts["22b: and scales down"].inputs(), autoscalingv2.MetricValueStatus{Value: resource.NewMilliQuantity(8600, resource.DecimalSI)}},
		"a value per pod":  {facts["23a: an external metric per pod"].inputs(), autoscalingv2.MetricValueStatus{AverageValue: resource.NewMilliQuantity(2867, resource.DecimalSI)}},
	} {
		if diff := cmp.Diff(test.want, Propose(test.in).Current(test.in.Metric)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestReasons(t *testing.T) {
	for name, want := range map[string]string{
		"1: usage above the target scales up":             "50% of the target 30% is a ratio of 1.667, × 3 pods: 5",
		"9: within the tolerance the count is kept":       "102% of the target 100% is a ratio of 1.02, but that is within the tolerance 0.9 to 1.1: 3 is kept",
		"12: missing pods count as 100 % on the way down": "24% of the target 100% is a ratio of 0.24 (0.62 with 2 missing and 0 unready pods), × 4 pods: 3",
		"13: nor if it would turn the direction":          "190% of the target 100% is a ratio of 1.9 (0.95 with 1 missing and 0 unready pods), but that is within the tolerance 0.9 to 1.1: 2 is kept",
		"23a: an external metric per pod":                 "8.600 in all, divided by the target 2.150: 4 pods",
		"25b: a sum is capped":                            "9223372036854775.807 of the target 9223372036854775.807 is a ratio of 1, but that is within the tolerance 0.9 to 1.1: 3 is kept",
	} {
		if got := Propose(facts[name].inputs()).Reason; got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

func TestThresholdsOfFacts(t *testing.T) {
	at := func(v int64) *int64 { return &v }
	for name, test := range map[string]struct {
		in   Inputs
		want Levels
	}{
		"cpu":                                  {facts["1: usage above the target scales up"].inputs(), Levels{Up: at(34), Down: at(20), Max: at(91)}},
		"cpu that jumps past some percentages": {fact{metric: cpu(100), spec: 1, requests: []int64{7}, samples: []int64{1}}.inputs(), Levels{Up: at(108), Down: at(0), Max: at(901)}},
		"an average":                           {facts["19a: the average of the pods' own metric"].inputs(), Levels{Up: at(16501), Down: at(10000), Max: at(45001)}},
		"a value":                              {facts["22b: and scales down"].inputs(), Levels{Up: at(15768), Down: at(11467), Max: at(25802)}},
		"a sum per pod":                        {facts["23a: an external metric per pod"].inputs(), Levels{Up: at(7096), Down: at(4300), Max: at(19351)}},
		"from zero":                            {fromZero(0, 1000), Levels{Up: at(1), Max: at(9001)}},
		"from zero, per pod":                   {fact{metric: external(averageOf(1000)), values: []int64{0}}.inputs(), Levels{Up: at(1), Max: at(9001)}},
		"no pod is ready":                      {fact{metric: external(valueOf(1000)), spec: 1, pods: []int{pending}, values: []int64{1000}}.inputs(), Levels{Down: at(899)}},
		"missing pods, as the HPA":             {facts["12: missing pods count as 100 % on the way down"].inputs(), Levels{Up: at(222), Down: at(51), Max: at(452)}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Thresholds(test.in, 10)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	if _, err := Thresholds(facts["18a: no samples at all"].inputs(), 10); err == nil {
		t.Error("thresholds without samples")
	}
}

// anyInputs draws what the oracle is asked, too.
func anyInputs(t *rapid.T) Inputs {
	q := ask(rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0)))
	in := q.inputs()
	q.variant(&in, rapid.IntRange(0, variants-1).Draw(t, "variant"))
	return in
}

func TestPropertyTheOrderOfPodsDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := anyInputs(t)
		first := Propose(in)
		slices.Reverse(in.Pods)
		second := Propose(in)
		if fmt.Sprint(first.Err != nil, first.Replicas, first.Percent, first.Usage) != fmt.Sprint(second.Err != nil, second.Replicas, second.Percent, second.Usage) {
			t.Fatalf("%+v, in reverse %+v", first, second)
		}
	})
}

func TestPropertyHoldOnMissingNeverLowersWithoutKnowing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := anyInputs(t)
		without := Propose(in)
		in.Options.HoldOnMissing = true
		with := Propose(in)
		switch {
		case (with.Err != nil) != (without.Err != nil):
			t.Fatalf("%v, without %v", with.Err, without.Err)
		case with.Err == nil && with.Missing+with.Unknown > 0 && with.Replicas < in.SpecReplicas && !perPodKind(in):
			t.Fatalf("%+v below %d", with, in.SpecReplicas)
		case with.Replicas < without.Replicas || with.Replicas > without.Replicas && with.Replicas != in.SpecReplicas:
			t.Fatalf("%+v, without %+v", with, without)
		}
	})
}

func perPodKind(in Inputs) bool { g, _ := goalOf(in.Metric); return g.kind == perPod }

func TestPropertySaturateChangesOnlyWhatDoesNotFit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := anyInputs(t)
		without := Propose(in)
		in.Options.Saturate = true
		with := Propose(in)
		if with.Overflow || with.Err == nil && with.Replicas < 0 {
			t.Fatalf("%+v", with)
		}
		for _, v := range in.Values {
			if v < 0 || v > 1<<40 {
				return
			}
		}
		for _, s := range in.Samples {
			if s.Milli < 0 || s.Milli > 1<<40 {
				return
			}
		}
		for _, p := range in.Pods {
			if p.RequestMilli < 0 || p.RequestMilli > 1<<40 {
				return
			}
		}
		if g, _ := goalOf(in.Metric); !without.Overflow && g.target > 0 && g.target < 1<<40 && without.Percent < 1<<20 && with.Percent < 1<<20 &&
			(with.Replicas != without.Replicas || with.Usage != without.Usage || with.Percent != without.Percent) {
			t.Fatalf("%+v, without %+v, for %+v", with, without, in)
		}
	})
}

func TestPropertyMoreUsageNeverAsksForFewer(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		spec := rapid.Int32Range(1, 20).Draw(t, "pods")
		target := rapid.Int64Range(1, 100_000).Draw(t, "target")
		propose := func(v int64) int32 {
			samples := make([]int64, spec)
			for i := range samples {
				samples[i] = v
			}
			return Propose(fact{metric: perPodQPS(target), spec: spec, samples: samples}.inputs()).Replicas
		}
		v := rapid.Int64Range(0, 300_000).Draw(t, "usage")
		if less, more := propose(v), propose(v+rapid.Int64Range(0, 10_000).Draw(t, "more")); more < less {
			t.Fatalf("%d, with more usage %d", less, more)
		}
	})
}

func TestPropertyThresholdsAreWhereTheProposalTurns(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		spec, target := rapid.Int32Range(1, 30).Draw(t, "replicas"), rapid.Int64Range(1, 1_000_000).Draw(t, "target")
		most := spec + rapid.Int32Range(1, 50).Draw(t, "room")
		metric := rapid.SampledFrom([]autoscalingv2.MetricSpec{external(valueOf(target)), external(averageOf(target)), object(averageOf(target))}).Draw(t, "metric")
		wants := func(v int64) int32 {
			return Propose(fact{metric: metric, spec: spec, values: []int64{v}}.inputs()).Replicas
		}
		levels, err := Thresholds(fact{metric: metric, spec: spec, values: []int64{0}}.inputs(), most)
		switch {
		case err != nil || levels.Up == nil || levels.Down == nil || levels.Max == nil:
			t.Fatalf("%+v, %v", levels, err)
		case wants(*levels.Up) <= spec || wants(*levels.Up-1) > spec:
			t.Fatalf("up at %d: %d, before %d", *levels.Up, wants(*levels.Up), wants(*levels.Up-1))
		case wants(*levels.Down) >= spec || wants(*levels.Down+1) < spec:
			t.Fatalf("down at %d: %d, above %d", *levels.Down, wants(*levels.Down), wants(*levels.Down+1))
		case wants(*levels.Max) < most || wants(*levels.Max-1) >= most:
			t.Fatalf("max at %d: %d, before %d", *levels.Max, wants(*levels.Max), wants(*levels.Max-1))
		}
	})
}

func BenchmarkPropose(b *testing.B) {
	samples := make([]int64, 100)
	for i := range samples {
		samples[i] = int64(300 + i)
	}
	in := fact{metric: cpu(30), spec: 100, samples: samples}.inputs()
	b.ReportAllocs()
	for b.Loop() {
		Propose(in)
	}
}

func BenchmarkThresholds(b *testing.B) {
	in := facts["1: usage above the target scales up"].inputs()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Thresholds(in, 100); err != nil {
			b.Fatal(err)
		}
	}
}
