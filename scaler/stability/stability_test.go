package stability

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/labels"
	"pgregory.net/rapid"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	"github.com/kubetide/kubetide/internal/decision"
	"github.com/kubetide/kubetide/internal/sample"
)

var zero = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func at(seconds int) time.Time { return zero.Add(time.Duration(seconds) * time.Second) }

const (
	pause    = kapacity.PauseAction
	rollback = kapacity.RollbackAction
	lost     = math.MinInt64 // a metric without a value
)

var errLost = errors.New("there is no fresh value")

// check compares values with "above 50 m".
func check(action kapacity.StabilizationAction, coolDown int, values ...int64) Check {
	c := Check{Action: action, CoolDown: time.Duration(coolDown) * time.Second}
	for i, v := range values {
		m := Metric{Name: "errors", Operator: kapacity.MetricOperatorGreater, Target: 50, Value: v}
		if i > 0 {
			m.Name = fmt.Sprint("errors", i)
		}
		if v == lost {
			m.Err = errLost
		}
		c.Metrics = append(c.Metrics, m)
	}
	return c
}

func TestABreachStopsTheRunUntilItsCoolDownIsOver(t *testing.T) {
	// Each step is one look: when, what the metrics say, and the action with the second of Next (0: none) that follows.
	type look struct {
		at     int
		checks []Check
		idle   bool // no run downwards
		want   string
	}
	one := func(at int, c Check, want string) look { return look{at: at, checks: []Check{c}, want: want} }
	tests := map[string][]look{
		"without a breach the run goes on": {one(0, check(pause, 60, 50), "go 0"), one(5, check(pause, 60, 49), "go 0")},
		"Pause, then the cool-down from when it was seen to be over": {one(0, check(pause, 60, 51), "Pause 0"), one(5, check(pause, 60, 90), "Pause 0"),
			one(10, check(pause, 60, 50), "Pause 70"), one(69, check(pause, 60, 50), "Pause 70"), one(70, check(pause, 60, 50), "go 0")},
		"Rollback the same":            {one(0, check(rollback, 60, 51), "Rollback 0"), one(10, check(rollback, 60, 50), "Rollback 70"), one(70, check(rollback, 60, 50), "go 0")},
		"without a cool-down, at once": {one(0, check(pause, 0, 51), "Pause 0"), one(10, check(pause, 0, 50), "go 0")},
		"another breach during the cool-down begins it anew": {one(0, check(pause, 60, 51), "Pause 0"), one(10, check(pause, 60, 50), "Pause 70"),
			one(50, check(pause, 60, 51), "Pause 0"), one(55, check(pause, 60, 50), "Pause 115"), one(115, check(pause, 60, 50), "go 0")},
		"nobody looks for a while: what matters is what is seen then": {one(0, check(pause, 60, 51), "Pause 0"), one(900, check(pause, 60, 50), "Pause 960"), one(2000, check(pause, 60, 50), "go 0")},
		"one of several metrics is enough":                            {one(0, check(pause, 0, 10, 51, 10), "Pause 0"), one(1, check(pause, 0, 10, 50, 10), "go 0")},

		"no value, nothing found before: the run goes on":       {one(0, check(rollback, 60, lost), "go 0 !")},
		"no value of one metric, another one is in breach":      {one(0, check(rollback, 60, lost, 51), "Rollback 0 !")},
		"no value during a breach: it is not over":              {one(0, check(pause, 0, 51), "Pause 0"), one(500, check(pause, 0, lost), "Pause 0 !"), one(510, check(pause, 0, 50), "go 0")},
		"no value during a breach does not begin the cool-down": {one(0, check(pause, 60, 51), "Pause 0"), one(10, check(pause, 60, lost), "Pause 0 !"), one(20, check(pause, 60, 50), "Pause 80"), one(80, check(pause, 60, 50), "go 0")},
		"no value of one of two: it is not known to be over":    {one(0, check(pause, 0, 51, 10), "Pause 0"), one(5, check(pause, 0, 10, lost), "Pause 0 !"), one(10, check(pause, 0, 10, 10), "go 0")},
		"no value when the cool-down ends: it waits for one":    {one(0, check(pause, 60, 51), "Pause 0"), one(10, check(pause, 60, 50), "Pause 70"), one(70, check(pause, 60, lost), "Pause 0 !"), one(75, check(pause, 60, 50), "go 0")},
		"no value in the middle of the cool-down: no new start": {one(0, check(pause, 60, 51), "Pause 0"), one(10, check(pause, 60, 50), "Pause 70"), one(20, check(pause, 60, lost), "Pause 70 !"), one(70, check(pause, 60, 50), "go 0")},

		"Rollback goes before Pause, in any order": {{at: 0, checks: []Check{check(pause, 0, 51), check(rollback, 0, 51), check(pause, 0, 51)}, want: "Rollback 0"}},
		"each checker has its own cool-down": {{at: 0, checks: []Check{check(pause, 100, 51), check(rollback, 10, 51)}, want: "Rollback 0"},
			{at: 5, checks: []Check{check(pause, 100, 50), check(rollback, 10, 50)}, want: "Rollback 15"}, {at: 15, checks: []Check{check(pause, 100, 50), check(rollback, 10, 50)}, want: "Pause 105"},
			{at: 105, checks: []Check{check(pause, 100, 50), check(rollback, 10, 50)}, want: "go 0"}},
		"a checker that is taken away objects no more": {{at: 0, checks: []Check{check(pause, 0, 10), check(pause, 0, 51)}, want: "Pause 0"}, {at: 1, checks: []Check{check(pause, 0, 10)}, want: "go 0"}},
		"a cool-down that is shortened counts at once": {one(0, check(pause, 600, 51), "Pause 0"), one(10, check(pause, 600, 50), "Pause 610"), one(20, check(pause, 10, 50), "go 0")},

		"without a run no breach begins":                           {{at: 0, checks: []Check{check(pause, 60, 51)}, idle: true, want: "go 0"}},
		"a run that is about to begin waits":                       {{at: 0, checks: []Check{check(pause, 60, 51)}, idle: true, want: "go 0"}, one(1, check(pause, 60, 51), "Pause 0")},
		"the run is given up: what was found cools down":           {one(0, check(pause, 60, 51), "Pause 0"), {at: 10, checks: []Check{check(pause, 60, 51)}, idle: true, want: "go 70"}, {at: 70, checks: []Check{check(pause, 60, lost)}, idle: true, want: "go 0"}, one(71, check(pause, 60, 50), "go 0")},
		"a new run within the cool-down waits for its end":         {one(0, check(pause, 60, 51), "Pause 0"), {at: 10, checks: []Check{check(pause, 60, 51)}, idle: true, want: "go 70"}, one(20, check(pause, 60, 50), "Pause 70"), one(70, check(pause, 60, 50), "go 0")},
		"a clock that was set back holds longer, but not for ever": {one(100, check(pause, 60, 51), "Pause 0"), one(110, check(pause, 60, 50), "Pause 170"), one(20, check(pause, 60, 50), "Pause 80"), one(80, check(pause, 60, 50), "go 0")},
	}
	for name, looks := range tests {
		t.Run(name, func(t *testing.T) {
			var raw []byte
			state := State{}
			for _, l := range looks {
				d := Decide(state, l.checks, !l.idle, at(l.at))
				got := "go"
				if d.Action != "" {
					got = string(d.Action)
				}
				next := 0
				if !d.Next.IsZero() {
					next = int(d.Next.Sub(zero) / time.Second)
				}
				got += fmt.Sprint(" ", next)
				if len(d.Warnings) > 0 {
					got += " !"
				}
				if got != l.want {
					t.Fatalf("at %d: %s, want %s: %+v", l.at, got, l.want, d)
				}
				if (d.Action == "") != (d.By == "") {
					t.Errorf("at %d: action %q by %q", l.at, d.Action, d.By)
				}
				var err error
				if raw, err = json.Marshal(d.State); err != nil { // as after a restart
					t.Fatal(err)
				}
				state = State{}
				if err := json.Unmarshal(raw, &state); err != nil {
					t.Fatal(err)
				}
			}
			if last := looks[len(looks)-1]; strings.HasPrefix(last.want, "go 0") && string(raw) != "{}" {
				t.Errorf("something is kept: %s", raw)
			}
		})
	}
}

func TestTheOperatorSaysWhatIsUnstable(t *testing.T) {
	for operator, want := range map[kapacity.MetricOperator]string{">": "--x", "<": "x--", ">=": "-xx", "<=": "xx-", "==": "-x-"} {
		t.Run(string(operator), func(t *testing.T) {
			got := ""
			for _, value := range []int64{49, 50, 51} {
				c := Check{Action: pause, Metrics: []Metric{{Operator: operator, Value: value, Target: 50}}}
				if Decide(State{}, []Check{c}, true, zero).Action == pause {
					got += "x"
				} else {
					got += "-"
				}
			}
			if got != want {
				t.Errorf("below, at and above: %s, want %s", got, want)
			}
		})
	}
}

func TestTheWordsOfADecision(t *testing.T) {
	first := Decide(State{}, []Check{check(pause, 60, 10), check(rollback, 300, 120, lost)}, true, at(0))
	second := Decide(first.State, []Check{check(pause, 60, 10), check(rollback, 300, 900, lost)}, true, at(30))
	third := Decide(second.State, []Check{check(pause, 60, 10), check(rollback, 300, 10, 10)}, true, at(60))
	breach := `stabilityCheckers[1]: metric "errors" is 0.12, > 0.05 (since 2026-11-22T12:00:00Z)`
	want := Decision{Action: rollback, By: breach, Changed: true,
		State:    State{Breaches: []Breach{{Checker: 1, Since: at(0), Message: `metric "errors" is 0.12, > 0.05`}}},
		Warnings: []string{`stabilityCheckers[1]: metric "errors1": there is no fresh value; the gray run waits for it`}}
	if diff := cmp.Diff(want, first); diff != "" {
		t.Errorf("found (-want +got):\n%s", diff)
	}
	want.Changed = false
	if diff := cmp.Diff(want, second); diff != "" {
		t.Errorf("another value in breach changes something (-want +got):\n%s", diff)
	}
	if want := `stabilityCheckers[1]: metric "errors" is 0.12, > 0.05 (from 2026-11-22T12:00:00Z to 2026-11-22T12:01:00Z, cooling down until 2026-11-22T12:06:00Z)`; third.By != want || !third.Changed {
		t.Errorf("cooling down: %q, want %q", third.By, want)
	}
	if diff := cmp.Diff(decision.Step{Stage: "stability", Replicas: 7, Reason: "Rollback by " + breach}, first.Step(7)); diff != "" {
		t.Errorf("step (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(decision.Step{Stage: "stability", Replicas: 7, Reason: "stable"}, (Decision{}).Step(7)); diff != "" {
		t.Errorf("step (-want +got):\n%s", diff)
	}
	goes := Decide(State{}, []Check{check(pause, 60, lost)}, true, at(0))
	if diff := cmp.Diff([]string{`stabilityCheckers[0]: metric "errors": there is no fresh value; the gray run goes on without it`}, goes.Warnings); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
}

func TestAStateThatCannotBeIsMended(t *testing.T) {
	long := strings.Repeat("ä", MaxMessage)
	state := State{Breaches: []Breach{{Checker: 7, Since: at(0)}, {Checker: -1}, {Checker: 0, Since: at(9999), Clear: at(9999), Message: long}, {Checker: 0, Since: at(1)}}}
	d := Decide(state, []Check{check(pause, 60, 10)}, true, at(100))
	want := State{Breaches: []Breach{{Checker: 0, Since: at(100), Clear: at(100), Message: long[:MaxMessage]}}}
	if diff := cmp.Diff(want, d.State); diff != "" || !d.Changed || !d.Next.Equal(at(160)) {
		t.Errorf("next %v (-want +got):\n%s", d.Next, diff)
	}
	odd := []Check{{Action: "Explode", Metrics: []Metric{{Operator: ">", Value: 1}}}, {Action: pause, Metrics: []Metric{{Operator: "~", Value: 1}}}}
	if d := Decide(State{}, odd, true, zero); d.Action != "" || len(d.Warnings) != 2 {
		t.Errorf("an unknown action and operator: %+v", d)
	}
}

func TestRunsAreStoppedAsLongAsNeededAndNeverForEver(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var coolDowns []int
		var actions []kapacity.StabilizationAction
		for range rapid.IntRange(1, 4).Draw(t, "checkers") {
			coolDowns = append(coolDowns, rapid.SampledFrom([]int{0, 1, 30, 300}).Draw(t, "cool-down"))
			actions = append(actions, rapid.SampledFrom([]kapacity.StabilizationAction{pause, rollback}).Draw(t, "action"))
		}
		last := make([]time.Time, len(actions)) // when a run was last seen in breach
		now, state := zero, State{}
		look := func(values [][]int64, running bool) Decision {
			var checks []Check
			for i, v := range values {
				checks = append(checks, check(actions[i], coolDowns[i], v...))
			}
			d := Decide(state, checks, running, now)
			if !d.Next.IsZero() && !d.Next.After(now) {
				t.Fatalf("at %v: Next is not in the future: %+v", now, d)
			}
			if !running && d.Action != "" {
				t.Fatalf("at %v: %s without a run", now, d.Action)
			}
			for i, v := range values {
				if slices.Max(v) > 50 && running {
					last[i] = now
				}
				if running && !last[i].IsZero() && (now.Equal(last[i]) || now.Before(last[i].Add(time.Duration(coolDowns[i])*time.Second))) &&
					(d.Action == "" || actions[i] == rollback && d.Action != rollback) {
					t.Fatalf("at %v: %q although checker %d saw a breach at %v", now, d.Action, i, last[i])
				}
			}
			raw, err := json.Marshal(d.State)
			if err != nil {
				t.Fatal(err)
			}
			var kept State
			if err := json.Unmarshal(raw, &kept); err != nil {
				t.Fatal(err)
			}
			again := Decide(kept, checks, running, now)
			if again.Changed {
				t.Fatalf("at %v: not at rest: %+v, then %+v", now, d, again)
			}
			if again.Changed = d.Changed; !cmp.Equal(d, again) {
				t.Fatalf("at %v: the same twice differs: %s", now, cmp.Diff(d, again))
			}
			if !d.Next.IsZero() {
				between := now.Add(time.Duration(rapid.Int64Range(0, int64(d.Next.Sub(now))-1).Draw(t, "between")))
				if b := Decide(kept, checks, running, between); b.Action != d.Action || b.By != d.By || b.Changed {
					t.Fatalf("between %v and Next it changes by itself: %+v, then %+v", now, d, b)
				}
			}
			state = kept
			return d
		}
		for range rapid.IntRange(1, 30).Draw(t, "looks") {
			values := make([][]int64, len(actions))
			for i := range values {
				values[i] = rapid.SliceOfN(rapid.SampledFrom([]int64{10, 10, 50, 51, 1000, lost}), 1, 3).Draw(t, "values")
			}
			look(values, rapid.IntRange(0, 3).Draw(t, "running") > 0)
			now = now.Add(time.Duration(rapid.IntRange(1, 200_000).Draw(t, "ms")) * time.Millisecond)
		}
		// Now all is well: following Next alone, the run goes on after the longest cool-down at the latest.
		well := make([][]int64, len(actions))
		for i := range well {
			well[i] = []int64{10, 10}
		}
		calm := now
		for d := look(well, true); d.Action != ""; d = look(well, true) {
			if d.Next.IsZero() {
				t.Fatalf("stopped for ever: %+v", d)
			}
			now = d.Next
		}
		if stood := now.Sub(calm); stood > time.Duration(slices.Max(coolDowns))*time.Second {
			t.Fatalf("stood for %s after all was well", stood)
		}
		if len(state.Breaches) > 0 {
			t.Fatalf("something is kept: %+v", state)
		}
	})
}

// spec is a metric with a target; the target's type is value or averageValue.
func spec(kind autoscalingv2.MetricSourceType, name, value, average string) autoscalingv2.MetricSpec {
	var target autoscalingv2.MetricTarget
	if value != "" {
		target.Value = new(resource.MustParse(value))
	}
	if average != "" {
		target.AverageValue = new(resource.MustParse(average))
	}
	m := autoscalingv2.MetricSpec{Type: kind}
	switch kind {
	case autoscalingv2.ExternalMetricSourceType:
		m.External = &autoscalingv2.ExternalMetricSource{Metric: autoscalingv2.MetricIdentifier{Name: name}, Target: target}
	case autoscalingv2.ObjectMetricSourceType:
		m.Object = &autoscalingv2.ObjectMetricSource{Metric: autoscalingv2.MetricIdentifier{Name: name}, Target: target}
	case autoscalingv2.PodsMetricSourceType:
		m.Pods = &autoscalingv2.PodsMetricSource{Metric: autoscalingv2.MetricIdentifier{Name: name}, Target: target}
	case autoscalingv2.ResourceMetricSourceType:
		m.Resource = &autoscalingv2.ResourceMetricSource{Name: "cpu", Target: target}
	case autoscalingv2.ContainerResourceMetricSourceType:
		m.ContainerResource = &autoscalingv2.ContainerResourceMetricSource{Name: "cpu", Container: "app", Target: target}
	}
	return m
}

func TestReadingsAreInTheUnitOfTheTarget(t *testing.T) {
	fresh := func(points ...int64) sample.Answer {
		a := sample.Answer{State: sample.Fresh}
		for _, p := range points {
			a.Points = append(a.Points, sample.Point{Milli: p})
		}
		return a
	}
	held := fresh(100, 300, 0, 0)
	held.Points[2].Labels, held.Points[3].Labels = labels.Set{kapacity.PodStateLabel: "Cutoff"}, labels.Set{kapacity.PodStateLabel: "Standby"}
	gone := held
	gone.Points = held.Points[2:]
	utilization := spec("Resource", "", "", "1")
	utilization.Resource.Target = autoscalingv2.MetricTarget{AverageUtilization: new(int32(80))}
	tests := map[string]struct {
		metric   autoscalingv2.MetricSpec
		answer   sample.Answer
		replicas int32
		want     int64
		err      string
	}{
		"External, value":                      {spec("External", "errors", "1", ""), fresh(120), 4, 120, ""},
		"External, averageValue":               {spec("External", "errors", "", "1"), fresh(120), 4, 30, ""},
		"Object, value":                        {spec("Object", "errors", "1", ""), fresh(-120), 4, -120, ""},
		"Object, averageValue":                 {spec("Object", "errors", "", "1"), fresh(120), 4, 30, ""},
		"an average over nobody":               {spec("Object", "errors", "", "1"), fresh(120), 0, 0, "there are no replicas"},
		"Pods, the mean of those that serve":   {spec("Pods", "errors", "", "1"), held, 4, 200, ""},
		"Pods, of which none serves":           {spec("Pods", "errors", "", "1"), gone, 4, 0, "no pod that serves has a value"},
		"Resource":                             {spec("Resource", "", "", "1"), fresh(100, 301), 9, 200, ""},
		"ContainerResource":                    {spec("ContainerResource", "", "", "1"), fresh(100, 301), 9, 200, ""},
		"a utilization":                        {utilization, fresh(1), 1, 0, "averageUtilization is not supported"},
		"no value yet":                         {spec("External", "errors", "1", ""), sample.Answer{}, 4, 0, "there is no fresh value yet"},
		"no value, with the cause":             {spec("External", "errors", "1", ""), sample.Answer{State: sample.Stale, Cause: errLost}, 4, 0, "there is no fresh value: " + errLost.Error()},
		"a fresh answer without points":        {spec("External", "errors", "1", ""), fresh(), 4, 0, "there is no value"},
		"a sum that is too big":                {spec("Pods", "errors", "", "1"), fresh(math.MaxInt64, 1), 4, 0, sample.ErrNotFinite.Error()},
		"a sum that is too small":              {spec("Pods", "errors", "", "1"), fresh(math.MinInt64, -1), 4, 0, sample.ErrNotFinite.Error()},
		"a metric without its type's settings": {autoscalingv2.MetricSpec{Type: "Pods"}, fresh(1), 1, 0, "lacks the settings of its type"},
		"a value that is served in its place":  {spec("External", "errors", "1", ""), sample.Answer{State: sample.Fresh, Points: []sample.Point{{Milli: 7}}, Instead: &sample.Instead{Stage: sample.Held}}, 1, 0, "not a fresh value"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := Read(tt.metric, tt.answer, tt.replicas)
			if tt.err == "" && got != (Reading{Milli: tt.want}) || tt.err != "" && (got.Err == nil || !strings.Contains(got.Err.Error(), tt.err)) {
				t.Errorf("%+v, want %d %q", got, tt.want, tt.err)
			}
		})
	}
}

func TestChecksTakeTheirReadingsInOrder(t *testing.T) {
	metric := func(m autoscalingv2.MetricSpec, operator kapacity.MetricOperator, name string) kapacity.MetricSpec {
		return kapacity.MetricSpec{MetricSpec: m, Operator: operator, Name: name}
	}
	checkers := []kapacity.StabilityChecker{
		{Type: "Metrics", StabilizationAction: pause, CoolDownSeconds: 30, Metrics: &kapacity.MetricsStabilityCheckerConfig{Metrics: []kapacity.MetricSpec{
			metric(spec("External", "errors", "50m", ""), ">", ""), metric(spec("Pods", "rps", "", "2"), "<", "traffic")}}},
		{Type: "External", StabilizationAction: rollback, External: &kapacity.ExternalStabilityCheckerConfig{Name: "x"}},
		{Type: "Metrics", StabilizationAction: rollback, Metrics: &kapacity.MetricsStabilityCheckerConfig{Metrics: []kapacity.MetricSpec{
			metric(spec("Object", "tiny", "500u", ""), ">", ""), metric(spec("Object", "none", "", ""), ">", ""), metric(spec("External", "lost", "1", ""), ">=", ""), metric(autoscalingv2.MetricSpec{Type: "Pods"}, "==", "")}}},
	}
	if n := len(Metrics(checkers)); n != 6 {
		t.Fatalf("%d metrics", n)
	}
	got := Checks(checkers, []Reading{{Milli: 1}, {Err: errLost}, {Milli: 3}, {Milli: 4}, {Milli: 5}})
	type plain struct {
		Name, Operator string
		Target, Value  int64
		Err            string
	}
	var flat [][]plain
	for _, c := range got {
		var ms []plain
		for _, m := range c.Metrics {
			p := plain{m.Name, string(m.Operator), m.Target, m.Value, ""}
			if m.Err != nil {
				p.Err = m.Err.Error()
			}
			ms = append(ms, p)
		}
		flat = append(flat, ms)
	}
	want := [][]plain{
		{{"errors", ">", 50, 1, ""}, {"traffic", "<", 2000, 0, errLost.Error()}},
		{{"External", "", 0, 0, "there is nothing to compare; checkers of type Metrics are supported"}},
		{{"tiny", ">", 0, 3, "the target 500u is not a whole number of thousandths: ask for a thousand times the value"}, {"none", ">", 0, 4, "the metric has no target"},
			{"lost", ">=", 1000, 5, ""}, {"Pods", "==", 0, 0, "the metric lacks the settings of its type"}},
	}
	if diff := cmp.Diff(want, flat); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if c := got[0]; c.Action != pause || c.CoolDown != 30*time.Second || got[2].Action != rollback {
		t.Errorf("%+v", got)
	}
	if got := Checks(checkers[:1], nil); got[0].Metrics[0].Err == nil {
		t.Error("a metric that was not read has a value")
	}
}
