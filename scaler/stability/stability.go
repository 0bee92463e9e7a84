// Package stability decides whether a gray run downwards may go on, by what the stability checkers see. It is pure: readings and a time
// go in, a decision and the state to keep come out. Where readings come from, and what stops a run, is not its business.
//
// Runs upwards are never stopped: overload is the usual cause of instability, and more pods are what helps against it.
package stability

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/api/resource"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	"github.com/kubetide/kubetide/internal/decision"
	"github.com/kubetide/kubetide/internal/sample"
)

// Check is one checker with what its metrics say now. Its place in the list is its identity.
type Check struct {
	// Action is what a breach does: Pause or Rollback.
	Action kapacity.StabilizationAction
	// CoolDown is how long the run waits after the breach is over.
	CoolDown time.Duration
	// Metrics are compared one by one; one that holds is a breach.
	Metrics []Metric
}

// Metric is one comparison: the workload is unstable while "value operator target" holds.
type Metric struct {
	Name     string
	Operator kapacity.MetricOperator
	// Target and Value are in thousandths; for a utilization, of a percent.
	Target, Value int64
	// Err is why there is no value to compare.
	Err error
}

// Breach is a checker that found the workload unstable and whose cool-down is not over. Times are whole microseconds in UTC.
type Breach struct {
	// Checker is its place in spec.stabilityCheckers.
	Checker int32 `json:"checker"`
	// Since is when the breach was first seen, Message what was seen then, at most MaxMessage bytes.
	Since   time.Time `json:"since"`
	Message string    `json:"message,omitempty"`
	// Clear is since when all metrics are known to be well again; zero while they are not.
	Clear time.Time `json:"clear,omitzero"`
}

// MaxMessage bounds Breach.Message.
const MaxMessage = 256

// State is what has to outlive a restart: at most one breach for each checker, in their order. It changes when a breach begins or ends
// and when its cool-down is over, not with each value.
type State struct {
	Breaches []Breach `json:"breaches,omitempty"`
}

// Decision says whether the run may go on.
type Decision struct {
	// Action is Pause, Rollback, or empty: the run may go on. Where several checkers object, Rollback goes before Pause.
	Action kapacity.StabilizationAction
	// By says who objects and why, and stays the same while that lasts: for scaler/gray's Inputs.Unstable and the condition Stable.
	By string
	// State is what to keep; Changed tells whether it differs from the one given.
	State   State
	Changed bool
	// Next is when to ask again though no reading changes; zero if time alone can change nothing.
	Next time.Time
	// Warnings name the metrics without a value, and what that means for the run; only while one is watched.
	Warnings []string
}

// Decide returns what the checks make of a run. running tells that a run downwards goes on, is observed, or is about to begin
// (gray.Descends); without one no breach begins, and those that were found only cool down.
//
// A metric without a value neither begins a breach, since a source that fails must not stop all runs for ever, nor ends one: then
// nobody knows that the workload is well.
func Decide(state State, checks []Check, running bool, now time.Time) Decision {
	now = stamp(now)
	given := state.mended(now)
	var d Decision
	var by []string
	for i, check := range checks {
		b, found := given.of(i)
		breach, unknown := check.judge()
		switch {
		case !running:
			if found && b.Clear.IsZero() {
				b.Clear = now
			}
		case breach != "" && !found:
			b, found = Breach{Checker: int32(i), Since: now, Message: cut(breach)}, true
		case breach != "":
			b.Clear = time.Time{}
		case found && len(unknown) == 0 && b.Clear.IsZero():
			b.Clear = now
		}
		due := b.Clear.Add(max(0, check.CoolDown))
		waiting := found && !b.Clear.IsZero() && now.Before(due)
		if found && !b.Clear.IsZero() && !waiting && (!running || len(unknown) == 0) {
			found = false
		}
		if waiting && (d.Next.IsZero() || due.Before(d.Next)) {
			d.Next = due
		}
		if found {
			d.State.Breaches = append(d.State.Breaches, b)
		}
		if !running {
			continue
		}
		if found {
			if d.Action != kapacity.RollbackAction {
				d.Action = check.Action
			}
			by = append(by, fmt.Sprintf("stabilityCheckers[%d]: %s", i, b.describe(due)))
		}
		for _, err := range unknown {
			then := "goes on without it"
			if found {
				then = "waits for it"
			}
			d.Warnings = append(d.Warnings, fmt.Sprintf("stabilityCheckers[%d]: %v; the gray run %s", i, err, then))
		}
	}
	d.By = strings.Join(by, "; ")
	d.Changed = !d.State.equal(state)
	return d
}

// Step is stability's line in the decision record; online is the count that stays.
func (d Decision) Step(online int32) decision.Step {
	if d.Action == "" {
		return decision.Step{Stage: "stability", Replicas: online, Reason: "stable"}
	}
	return decision.Step{Stage: "stability", Replicas: online, Reason: fmt.Sprintf("%s by %s", d.Action, d.By)}
}

// judge returns the first metric that holds, in words, and what is wrong with those that cannot be compared.
func (c Check) judge() (breach string, unknown []error) {
	for _, m := range c.Metrics {
		holds := false
		if m.Err == nil {
			holds, m.Err = compare(m.Value, m.Operator, m.Target)
		}
		switch {
		case m.Err != nil:
			unknown = append(unknown, fmt.Errorf("metric %q: %w", m.Name, m.Err))
		case holds && breach == "":
			breach = fmt.Sprintf("metric %q is %s, %s %s", m.Name, milli(m.Value), m.Operator, milli(m.Target))
		}
	}
	if c.Action != kapacity.PauseAction && c.Action != kapacity.RollbackAction {
		return "", []error{fmt.Errorf("unknown stabilizationAction %q", c.Action)}
	}
	return breach, unknown
}

func compare(value int64, operator kapacity.MetricOperator, target int64) (bool, error) {
	switch operator {
	case kapacity.MetricOperatorEqual:
		return value == target, nil
	case kapacity.MetricOperatorGreater:
		return value > target, nil
	case kapacity.MetricOperatorLess:
		return value < target, nil
	case kapacity.MetricOperatorGreaterOrEqual:
		return value >= target, nil
	case kapacity.MetricOperatorLessOrEqual:
		return value <= target, nil
	}
	return false, fmt.Errorf("unknown operator %q", operator)
}

func (b Breach) describe(due time.Time) string {
	switch {
	case b.Clear.IsZero():
		return fmt.Sprintf("%s (since %s)", b.Message, b.Since.Format(time.RFC3339))
	default:
		return fmt.Sprintf("%s (from %s to %s, cooling down until %s)", b.Message, b.Since.Format(time.RFC3339), b.Clear.Format(time.RFC3339), due.Format(time.RFC3339))
	}
}

func (s State) of(checker int) (Breach, bool) {
	for _, b := range s.Breaches {
		if int(b.Checker) == checker {
			return b, true
		}
	}
	return Breach{}, false
}

// mended returns the state without what cannot be: status can be edited, and clocks differ between leaders. Checkers that are gone drop
// out by themselves.
func (s State) mended(now time.Time) State {
	s.Breaches = slices.Clone(s.Breaches)
	for i := range s.Breaches {
		b := &s.Breaches[i]
		b.Since, b.Clear, b.Message = earliest(stamp(b.Since), now), earliest(stamp(b.Clear), now), cut(b.Message)
	}
	return s
}

func (s State) equal(o State) bool {
	return slices.EqualFunc(s.Breaches, o.Breaches, func(a, b Breach) bool {
		return a.Checker == b.Checker && a.Message == b.Message && a.Since.Equal(b.Since) && a.Clear.Equal(b.Clear)
	})
}

func cut(text string) string {
	if len(text) <= MaxMessage {
		return text
	}
	end := MaxMessage
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end]
}

func milli(n int64) string { return strconv.FormatFloat(float64(n)/1000, 'f', -1, 64) }

func stamp(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC().Truncate(time.Microsecond)
}

func earliest(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// Reading is what one metric says now.
type Reading struct {
	// Milli is the value in thousandths, in the unit of the metric's target.
	Milli int64
	// Err is why there is none.
	Err error
}

// Metrics are the metrics of all checkers, in their order.
func Metrics(checkers []kapacity.StabilityChecker) []autoscalingv2.MetricSpec {
	var out []autoscalingv2.MetricSpec
	for _, c := range checkers {
		if c.Metrics != nil {
			for _, m := range c.Metrics.Metrics {
				out = append(out, m.MetricSpec)
			}
		}
	}
	return out
}

// Checks puts the checkers and the readings of their Metrics together. What is wrong with a checker is the error of its metrics.
func Checks(checkers []kapacity.StabilityChecker, readings []Reading) []Check {
	var out []Check
	for _, c := range checkers {
		check := Check{Action: c.StabilizationAction, CoolDown: time.Duration(c.CoolDownSeconds) * time.Second}
		if c.Metrics == nil {
			check.Metrics = []Metric{{Name: string(c.Type), Err: errors.New("there is nothing to compare; checkers of type Metrics are supported")}}
		} else {
			for _, m := range c.Metrics.Metrics {
				var r Reading
				if len(readings) == 0 {
					r.Err = errors.New("it was not read")
				} else {
					r, readings = readings[0], readings[1:]
				}
				check.Metrics = append(check.Metrics, metric(m, r))
			}
		}
		out = append(out, check)
	}
	return out
}

func metric(spec kapacity.MetricSpec, r Reading) Metric {
	name, target := describe(spec.MetricSpec)
	m := Metric{Name: name, Operator: spec.Operator, Value: r.Milli, Err: r.Err}
	if spec.Name != "" {
		m.Name = spec.Name
	}
	var err error
	if m.Target, err = target.milli(); err != nil {
		m.Err = err
	}
	return m
}

type target struct{ *autoscalingv2.MetricTarget }

// describe returns the metric's own name and its target; the target is nil where the spec lacks what its type says.
func describe(m autoscalingv2.MetricSpec) (string, target) {
	switch {
	case m.Type == autoscalingv2.ResourceMetricSourceType && m.Resource != nil:
		return string(m.Resource.Name), target{&m.Resource.Target}
	case m.Type == autoscalingv2.ContainerResourceMetricSourceType && m.ContainerResource != nil:
		return string(m.ContainerResource.Name), target{&m.ContainerResource.Target}
	case m.Type == autoscalingv2.PodsMetricSourceType && m.Pods != nil:
		return m.Pods.Metric.Name, target{&m.Pods.Target}
	case m.Type == autoscalingv2.ObjectMetricSourceType && m.Object != nil:
		return m.Object.Metric.Name, target{&m.Object.Target}
	case m.Type == autoscalingv2.ExternalMetricSourceType && m.External != nil:
		return m.External.Metric.Name, target{&m.External.Target}
	}
	return string(m.Type), target{}
}

// milli is the number to compare with, in thousandths. What is finer cannot be told apart in a sample.
func (t target) milli() (int64, error) {
	if t.MetricTarget == nil {
		return 0, errors.New("the metric lacks the settings of its type")
	}
	q := t.Value
	switch {
	case t.AverageUtilization != nil:
		return int64(*t.AverageUtilization) * 1000, nil
	case q == nil:
		q = t.AverageValue
	}
	if q == nil {
		return 0, errors.New("the metric has no target")
	}
	n := q.MilliValue()
	if resource.NewMilliQuantity(n, q.Format).Cmp(*q) != 0 {
		return 0, fmt.Errorf("the target %s is not a whole number of thousandths: ask for a thousand times the value", q)
	}
	return n, nil
}

// Read reduces an answer to the number that the metric's target is meant for: the one value, or with averageValue that divided by
// replicas; of pods the mean of those that are not held, since what gets no traffic says nothing about it. A utilization is refused.
func Read(m autoscalingv2.MetricSpec, a sample.Answer, replicas int32) Reading {
	_, t := describe(m)
	switch {
	case t.MetricTarget == nil:
		return Reading{Err: errors.New("the metric lacks the settings of its type")}
	case t.AverageUtilization != nil:
		return Reading{Err: errors.New("averageUtilization is not supported in a stability checker: use averageValue")}
	case a.State != sample.Fresh:
		if a.Cause != nil {
			return Reading{Err: fmt.Errorf("there is no fresh value: %w", a.Cause)}
		}
		return Reading{Err: errors.New("there is no fresh value yet")}
	case a.Instead.Serves():
		return Reading{Err: errors.New("what is served in its place is not a fresh value")}
	case len(a.Points) == 0:
		return Reading{Err: errors.New("there is no value")}
	}
	var sum, count int64
	for _, p := range a.Points {
		switch kapacity.PodState(p.Labels[kapacity.PodStateLabel]) {
		case kapacity.PodStateCutoff, kapacity.PodStateStandby:
			continue
		}
		count++
		if p.Milli > 0 && sum > math.MaxInt64-p.Milli || p.Milli < 0 && sum < math.MinInt64-p.Milli {
			return Reading{Err: sample.ErrNotFinite}
		}
		sum += p.Milli
	}
	switch m.Type {
	case autoscalingv2.ObjectMetricSourceType, autoscalingv2.ExternalMetricSourceType:
		if t.Value != nil {
			return Reading{Milli: sum}
		}
		if replicas <= 0 {
			return Reading{Err: errors.New("there are no replicas to share the value")}
		}
		return Reading{Milli: sum / int64(replicas)}
	}
	if count == 0 {
		return Reading{Err: errors.New("no pod that serves has a value")}
	}
	return Reading{Milli: sum / count}
}
