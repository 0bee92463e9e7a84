// Package replay takes the engine's pure decisions, and takes them again from what is on record: the inputs, the instant, and
// what came out, in JSON. A decision that comes out differently depends on something that its inputs do not name, or its code has
// changed. The package calls the deciding functions and nothing else; it reads no clock and does no I/O.
package replay

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	"github.com/kubetide/kubetide/internal/decision"
	"github.com/kubetide/kubetide/portraits"
	"github.com/kubetide/kubetide/scaler/behavior"
	"github.com/kubetide/kubetide/scaler/bounds"
	"github.com/kubetide/kubetide/scaler/gray"
	"github.com/kubetide/kubetide/scaler/merge"
	"github.com/kubetide/kubetide/scaler/stability"
)

// Taken is a decision that was taken, and encodes it. Most decisions are those of before and need no record, so it is asked for when
// one is kept; what the decision was taken from must not change before.
type Taken func() (decision.Call, error)

// Merge takes a decision of scaler/merge.
func Merge(candidates []merge.Candidate, current int32, now time.Time) (merge.Outcome, Taken) {
	out := merge.Decide(candidates, current, now)
	return out, func() (decision.Call, error) {
		in := mergeInputs{Current: current}
		for _, c := range candidates {
			o := c.Opinion
			in.Candidates = append(in.Candidates, candidate{Provider: c.Provider, Priority: c.Priority, HasValue: o.HasValue, Replicas: o.Replicas,
				Expires: o.Expires, Next: o.Next, Reason: o.Reason, Warnings: o.Warnings, Err: textOf(o.Err)})
		}
		return record("merge", in, encodeMerge(out), now)
	}
}

// Bounds takes a decision of scaler/bounds.
func Bounds(lowest, highest int32, windows []kapacity.ScheduledBounds, now time.Time) (bounds.Decision, Taken) {
	out := bounds.Decide(lowest, highest, windows, now)
	return out, func() (decision.Call, error) {
		return record("bounds", boundsInputs{lowest, highest, windows}, encodeBounds(out), now)
	}
}

// Behavior takes a decision of scaler/behavior.
func Behavior(state behavior.State, in behavior.Inputs, now time.Time) (behavior.Decision, Taken) {
	out := behavior.Decide(state, in, now)
	return out, func() (decision.Call, error) { return record("behavior", behaviorInputs{state, in}, out, now) }
}

// Stability takes a decision of scaler/stability.
func Stability(state stability.State, checks []stability.Check, running bool, now time.Time) (stability.Decision, Taken) {
	out := stability.Decide(state, checks, running, now)
	return out, func() (decision.Call, error) {
		in := stabilityInputs{State: state, Running: running}
		for _, c := range checks {
			kept := check{Action: c.Action, CoolDown: c.CoolDown}
			for _, m := range c.Metrics {
				kept.Metrics = append(kept.Metrics, metric{m.Name, m.Operator, m.Target, m.Value, textOf(m.Err)})
			}
			in.Checks = append(in.Checks, kept)
		}
		return record("stability", in, out, now)
	}
}

// Gray takes a decision of scaler/gray.
func Gray(run gray.Run, in gray.Inputs, now time.Time) (gray.Decision, Taken) {
	out := gray.Decide(run, in, now)
	return out, func() (decision.Call, error) { return record("gray", grayInputs{run, in}, out, now) }
}

// ErrDiffers says that a decision came out differently this time.
var ErrDiffers = errors.New("the decision comes out differently")

// Rerun takes the decision again. It returns nil if the outcome is the one on record, byte for byte, and else ErrDiffers with both.
func Rerun(c decision.Call) error {
	again, err := again(c)
	if err != nil {
		return fmt.Errorf("%s at %s: %w", c.Function, c.Now.Format(time.RFC3339Nano), err)
	}
	if !bytes.Equal(again, c.Outcome) {
		return fmt.Errorf("%s at %s: %w: on record %s, now %s", c.Function, c.Now.Format(time.RFC3339Nano), ErrDiffers, c.Outcome, again)
	}
	return nil
}

func again(c decision.Call) (json.RawMessage, error) {
	switch c.Function {
	case "merge":
		in, err := decode[mergeInputs](c.Inputs)
		if err != nil {
			return nil, err
		}
		var candidates []merge.Candidate
		for _, c := range in.Candidates {
			candidates = append(candidates, merge.Candidate{Provider: c.Provider, Priority: c.Priority, Opinion: portraits.Opinion{HasValue: c.HasValue,
				Replicas: c.Replicas, Expires: c.Expires, Next: c.Next, Reason: c.Reason, Warnings: c.Warnings, Err: errorOf(c.Err)}})
		}
		return json.Marshal(encodeMerge(merge.Decide(candidates, in.Current, c.Now)))
	case "bounds":
		in, err := decode[boundsInputs](c.Inputs)
		if err != nil {
			return nil, err
		}
		return json.Marshal(encodeBounds(bounds.Decide(in.Min, in.Max, in.Windows, c.Now)))
	case "behavior":
		in, err := decode[behaviorInputs](c.Inputs)
		if err != nil {
			return nil, err
		}
		return json.Marshal(behavior.Decide(in.State, in.Inputs, c.Now))
	case "stability":
		in, err := decode[stabilityInputs](c.Inputs)
		if err != nil {
			return nil, err
		}
		var checks []stability.Check
		for _, c := range in.Checks {
			kept := stability.Check{Action: c.Action, CoolDown: c.CoolDown}
			for _, m := range c.Metrics {
				kept.Metrics = append(kept.Metrics, stability.Metric{Name: m.Name, Operator: m.Operator, Target: m.Target, Value: m.Value, Err: errorOf(m.Err)})
			}
			checks = append(checks, kept)
		}
		return json.Marshal(stability.Decide(in.State, checks, in.Running, c.Now))
	case "gray":
		in, err := decode[grayInputs](c.Inputs)
		if err != nil {
			return nil, err
		}
		return json.Marshal(gray.Decide(in.Run, in.Inputs, c.Now))
	}
	return nil, fmt.Errorf("there is no deciding function %q", c.Function)
}

func record(function string, inputs, outcome any, now time.Time) (decision.Call, error) {
	c := decision.Call{Function: function, Now: now}
	var err, err2 error
	c.Inputs, err = json.Marshal(inputs)
	c.Outcome, err2 = json.Marshal(outcome)
	if err = errors.Join(err, err2); err != nil {
		return decision.Call{}, fmt.Errorf("record a decision of %s: %w", function, err)
	}
	return c, nil
}

// decode refuses fields that it does not know: a record of another version would be taken again from a part of its inputs.
func decode[T any](raw json.RawMessage) (in T, err error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(&in); err != nil {
		return in, fmt.Errorf("inputs: %w", err)
	}
	return in, nil
}

type mergeInputs struct {
	Candidates []candidate
	Current    int32
}

// candidate is merge.Candidate with the error as its text, which is all that a decision reads of it.
type candidate struct {
	Provider      string
	Priority      int32
	HasValue      bool
	Replicas      int32
	Expires, Next time.Time
	Reason        string
	Warnings      []string
	Err           *string
}

type boundsInputs struct {
	Min, Max int32
	Windows  []kapacity.ScheduledBounds
}

type behaviorInputs struct {
	State  behavior.State
	Inputs behavior.Inputs
}

type stabilityInputs struct {
	State   stability.State
	Checks  []check
	Running bool
}

type check struct {
	Action   kapacity.StabilizationAction
	CoolDown time.Duration
	Metrics  []metric
}

type metric struct {
	Name          string
	Operator      kapacity.MetricOperator
	Target, Value int64
	Err           *string
}

type grayInputs struct {
	Run    gray.Run
	Inputs gray.Inputs
}

// encodeMerge and encodeBounds give errors as texts.
func encodeMerge(o merge.Outcome) any {
	var failed []string
	for _, f := range o.Failed {
		failed = append(failed, f.Provider+": "+f.Err.Error())
	}
	return struct {
		merge.Outcome
		Failed []string
	}{o, failed}
}

func encodeBounds(d bounds.Decision) any {
	return struct {
		bounds.Decision
		Err *string
	}{d, textOf(d.Err)}
}

func textOf(err error) *string {
	if err == nil {
		return nil
	}
	return new(err.Error())
}

func errorOf(text *string) error {
	if text == nil {
		return nil
	}
	return errors.New(*text)
}
