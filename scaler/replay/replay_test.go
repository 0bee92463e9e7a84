package replay

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	"github.com/kubetide/kubetide/internal/decision"
	"github.com/kubetide/kubetide/portraits"
	"github.com/kubetide/kubetide/scaler/behavior"
	"github.com/kubetide/kubetide/scaler/gray"
	"github.com/kubetide/kubetide/scaler/merge"
	"github.com/kubetide/kubetide/scaler/stability"
)

// engine takes the decisions of one object as its controller does, with inputs that change at random, and keeps their records.
type engine struct {
	t        *testing.T
	r        *rand.Rand
	now      time.Time
	behavior behavior.State
	stable   stability.State
	run      gray.Run
	profile  *gray.Profile
	log      bytes.Buffer
	calls    int
}

func (e *engine) keep(taken Taken) {
	c, err := taken()
	if err != nil {
		e.t.Fatal(err)
	}
	if err := json.NewEncoder(&e.log).Encode(c); err != nil {
		e.t.Fatal(err)
	}
	e.calls++
}

func (e *engine) maybe(of int) bool { return e.r.IntN(of) == 0 }

func (e *engine) decide() {
	e.now = e.now.Add(time.Duration(e.r.Int64N(int64(90 * time.Second))))
	if e.maybe(10) { // nobody decided for a while
		e.now = e.now.Add(time.Duration(e.r.Int64N(int64(12 * time.Hour))))
	}
	var candidates []merge.Candidate
	for i := range e.r.IntN(5) {
		o := portraits.Opinion{HasValue: !e.maybe(4), Replicas: int32(e.r.IntN(30) - 1), Reason: fmt.Sprint("reason ", i)}
		if e.maybe(3) {
			o.Expires = e.now.Add(time.Duration(e.r.IntN(120)-30) * time.Second).In(time.FixedZone("", 3600))
		}
		if e.maybe(3) {
			o.Next = e.now.Add(time.Duration(e.r.IntN(120)) * time.Second)
		}
		if e.maybe(4) {
			o.Err = fmt.Errorf("source %d: %w", i, errors.New("is \"away\" <now>"))
		}
		if e.maybe(5) {
			o.Warnings = []string{"windows overlap"}
		}
		candidates = append(candidates, merge.Candidate{Provider: fmt.Sprint("p", i), Priority: int32(e.r.IntN(3)), Opinion: o})
	}
	current := int32(5)
	if e.profile != nil {
		current = e.profile.Online
	}
	merged, c := Merge(candidates, current, e.now)
	e.keep(c)

	windows := []kapacity.ScheduledBounds{{Name: "day", TimeZone: "Europe/Berlin", Start: "0 8 * * *", End: "0 20 * * *", MinReplicas: new(int32(e.r.IntN(9)))}}
	if e.maybe(5) {
		windows = append(windows, kapacity.ScheduledBounds{Name: "broken", TimeZone: "Mars/Base", Start: "* * * * *", End: "* * * * *", MaxReplicas: new(int32(3))})
	}
	limits, c := Bounds(1, 20, windows, e.now)
	e.keep(c)

	window := time.Duration(e.r.IntN(3)) * time.Minute
	rules := &behavior.Rules{StabilizationWindow: &window, Policies: []behavior.Policy{{Type: behavior.Pods, Value: 1 + int32(e.r.IntN(4)), Period: time.Minute}}}
	in := behavior.Inputs{Wanted: merged.Replicas, Current: current, Min: limits.Min, Max: limits.Max, Compatible: e.maybe(2)}
	if !e.maybe(4) {
		in.Up, in.Down = rules, rules
	}
	limited, c := Behavior(e.behavior, in, e.now)
	e.keep(c)
	e.behavior = limited.State

	metric := stability.Metric{Name: "errors", Operator: kapacity.MetricOperatorGreater, Target: 1000, Value: int64(e.r.IntN(2000))}
	if e.maybe(6) {
		metric.Err = errors.New("no value")
	}
	stable, c := Stability(e.stable, []stability.Check{{Action: kapacity.RollbackAction, CoolDown: time.Minute, Metrics: []stability.Metric{metric}}}, !e.maybe(4), e.now)
	e.keep(c)
	e.stable = stable.State

	strategy := &gray.Strategy{State: gray.Cutoff, ChangePercent: 30, Interval: 30 * time.Second, Observation: time.Minute}
	g := gray.Inputs{Down: strategy, Profile: e.profile, Paused: e.maybe(9), Rollback: stable.Action == kapacity.RollbackAction, Unstable: stable.By}
	if e.maybe(3) {
		g.Up = strategy
	}
	if merged.Valid {
		g.Target = &limited.Replicas
	}
	g.Observed = gray.Observed{Applied: !e.maybe(3), AppliedAt: e.now.Add(-time.Second), Online: current, CutReady: int32(e.r.IntN(2)), Scale: current}
	paced, c := Gray(e.run, g, e.now)
	e.keep(c)
	e.run, e.profile = paced.Run, paced.Profile
}

func TestTenThousandRecordedDecisionsComeOutTheSame(t *testing.T) {
	const seed, rounds = 20261122, 2000
	e := &engine{t: t, r: rand.New(rand.NewPCG(seed, 0)), now: time.Date(2026, 3, 28, 0, 0, 0, 0, time.UTC)}
	for range rounds {
		e.decide()
	}
	outcomes := map[string]map[string]bool{}
	reruns := 0
	for d := json.NewDecoder(&e.log); d.More(); reruns++ {
		var c decision.Call
		if err := d.Decode(&c); err != nil {
			t.Fatal(err)
		}
		if err := Rerun(c); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if outcomes[c.Function] == nil {
			outcomes[c.Function] = map[string]bool{}
		}
		outcomes[c.Function][string(c.Outcome)] = true
	}
	if reruns != e.calls || reruns != 5*rounds {
		t.Errorf("%d decisions were taken and %d again", e.calls, reruns)
	}
	for _, function := range []string{"merge", "bounds", "behavior", "stability", "gray"} {
		if n := len(outcomes[function]); n < 100 {
			t.Errorf("%s came to %d different outcomes only: the inputs do not vary", function, n)
		}
	}
}

func TestADecisionThatDiffersIsSeen(t *testing.T) {
	now := time.Date(2026, 3, 28, 0, 0, 0, 0, time.UTC)
	_, taken := Merge([]merge.Candidate{{Provider: "Static", Opinion: portraits.Opinion{HasValue: true, Replicas: 3}}}, 5, now)
	good, err := taken()
	if err != nil {
		t.Fatal(err)
	}
	if err := Rerun(good); err != nil {
		t.Fatal(err)
	}
	replace := func(in json.RawMessage, old, new string) json.RawMessage {
		out := bytes.ReplaceAll(in, []byte(old), []byte(new))
		if bytes.Equal(in, out) {
			t.Errorf("%s has no %s", in, old)
		}
		return out
	}
	for name, test := range map[string]struct {
		change  func(*decision.Call)
		differs bool
	}{
		"another outcome":                {func(c *decision.Call) { c.Outcome = replace(c.Outcome, `"Replicas":3`, `"Replicas":4`) }, true},
		"other inputs":                   {func(c *decision.Call) { c.Inputs = replace(c.Inputs, `"Replicas":3`, `"Replicas":4`) }, true},
		"an input that nobody knows":     {func(c *decision.Call) { c.Inputs = replace(c.Inputs, `"Current":5`, `"Current":5,"Load":1`) }, false},
		"a function that nobody knows":   {func(c *decision.Call) { c.Function = "guess" }, false},
		"inputs that are no JSON":        {func(c *decision.Call) { c.Inputs = json.RawMessage("{") }, false},
		"the inputs of another function": {func(c *decision.Call) { c.Function = "gray" }, false},
	} {
		t.Run(name, func(t *testing.T) {
			c := good
			test.change(&c)
			if err := Rerun(c); err == nil || errors.Is(err, ErrDiffers) != test.differs {
				t.Errorf("rerun: %v", err)
			}
		})
	}
}
