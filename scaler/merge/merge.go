// Package merge decides which provider's replica count holds, and limits it to the object's bounds. It is pure: it sees
// opinions and a time, and nothing of Kubernetes; providers are asked by whoever calls it.
package merge

import (
	"fmt"
	"strings"
	"time"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	"github.com/kubetide/kubetide/internal/decision"
	"github.com/kubetide/kubetide/portraits"
)

// Candidate is one provider with its opinion.
type Candidate struct {
	// Provider is the id that status shows: Static, Cron, Dynamic-Reactive, ...
	Provider string
	// Priority ranks providers; the biggest wins. Of equal priorities the one with more replicas wins, then the first given.
	Priority int32
	// Opinion is what the provider says now. A value that is expired at now is no opinion, a negative one a failure.
	portraits.Opinion
}

// Outcome is the merged value and how it came about.
type Outcome struct {
	// Valid tells that at least one provider had an opinion. Otherwise the replica count stays as it is.
	Valid bool
	// Replicas is the raw value, before the clamp.
	Replicas int32
	// Winner is the provider whose opinion holds; Expires is the end of that opinion, zero for never.
	Winner  string
	Expires time.Time
	// HeldBy names the failed providers that kept Replicas above the winner's count; empty when nothing was held.
	HeldBy []string
	// Failed names all providers that failed, in the order given, and what failed.
	Failed []Failure
	// Warnings are the providers' warnings, each with its provider's name before it, in the order given.
	Warnings []string
	// Next is the first instant after now at which the outcome may change by the passing of time; zero means never.
	Next time.Time
	// Candidates has every candidate in the order given, with what became of it.
	Candidates []decision.Candidate
	// Step is the merge's line in the decision record.
	Step decision.Step
}

// Failure is a provider that failed.
type Failure struct {
	Provider string
	Err      error
}

// Decide merges the candidates. current is the count that must not be lowered while a provider that ranks at or above the
// winner fails: the online count ordered now (the ReplicaProfile's, or that of /scale while there is none).
func Decide(candidates []Candidate, current int32, now time.Time) Outcome {
	var out Outcome
	winner := -1
	failed, holds := map[int]error{}, map[int]bool{}
	for i, c := range candidates {
		if err := failure(c); err != nil {
			failed[i] = err
			out.Failed = append(out.Failed, Failure{Provider: c.Provider, Err: err})
		}
		for _, w := range c.Warnings {
			out.Warnings = append(out.Warnings, c.Provider+": "+w)
		}
		for _, t := range []time.Time{c.Next, c.Expires} {
			if t.After(now) && (out.Next.IsZero() || t.Before(out.Next)) {
				out.Next = t
			}
		}
		if hasOpinion(c, now) && (winner < 0 || outranks(c, candidates[winner])) {
			winner = i
		}
	}
	if winner >= 0 {
		w := candidates[winner]
		out.Valid, out.Winner, out.Replicas, out.Expires = true, w.Provider, w.Replicas, w.Expires
		for i, c := range candidates {
			if failed[i] != nil && c.Priority >= w.Priority && current > w.Replicas {
				out.HeldBy, holds[i] = append(out.HeldBy, c.Provider), true
				out.Replicas = current
			}
		}
	}
	for i := range candidates {
		out.Candidates = append(out.Candidates, account(candidates, i, winner, failed[i], now, holds[i]))
	}
	out.Step = decision.Step{Stage: "merge", Replicas: out.Replicas}
	switch {
	case !out.Valid:
		out.Step.Replicas, out.Step.Reason = current, "no provider has a valid value: replicas stay"
	case len(out.HeldBy) > 0:
		out.Step.Reason = fmt.Sprintf("%s wants %d, not lowered while there are failures: %s", out.Winner, candidates[winner].Replicas, strings.Join(out.HeldBy, ", "))
	default:
		out.Step.Reason = out.Winner + " wins"
	}
	return out
}

func failure(c Candidate) error {
	if c.Err == nil && c.HasValue && c.Replicas < 0 {
		return fmt.Errorf("asks for %d replicas, less than none", c.Replicas)
	}
	return c.Err
}

func hasOpinion(c Candidate, now time.Time) bool {
	return c.HasValue && c.Replicas >= 0 && !expired(c, now)
}

func expired(c Candidate, now time.Time) bool {
	return !c.Expires.IsZero() && !now.Before(c.Expires)
}

// outranks tells whether a, given later than b, takes b's place: a full tie leaves the first.
func outranks(a, b Candidate) bool {
	return a.Priority > b.Priority || a.Priority == b.Priority && a.Replicas > b.Replicas
}

// account says what became of candidate i.
func account(all []Candidate, i, winner int, failed error, now time.Time, holds bool) decision.Candidate {
	c := all[i]
	out := decision.Candidate{Provider: c.Provider, Priority: c.Priority, Chosen: i == winner, Failed: failed != nil}
	if hasOpinion(c, now) {
		out.Replicas = &c.Replicas
		if !c.Expires.IsZero() {
			out.Expires = &c.Expires
		}
	}
	switch {
	case i == winner:
		out.Reason = "wins"
	case !c.HasValue && failed == nil:
		out.Reason = "no opinion"
	case expired(c, now):
		out.Reason = "expired at " + c.Expires.UTC().Format(time.RFC3339)
	case !hasOpinion(c, now):
		out.Reason = "skipped"
	case c.Priority < all[winner].Priority:
		out.Reason = "lower priority than " + all[winner].Provider
	case c.Replicas < all[winner].Replicas:
		out.Reason = "equal priority, fewer replicas than " + all[winner].Provider
	default:
		out.Reason = "equal to " + all[winner].Provider + ", which comes first"
	}
	if c.Reason != "" {
		out.Reason += ": " + c.Reason
	}
	if failed != nil {
		out.Reason += "; failed: " + failed.Error()
	}
	if holds {
		out.Reason += "; forbids lowering"
	}
	return out
}

// Limit is the outcome of the clamp, in the words of the condition ScalingLimited.
type Limit struct {
	Replicas int32
	// Limited is the status of ScalingLimited; Reason is DesiredWithinRange, TooFewReplicas or TooManyReplicas.
	Limited bool
	Reason  string
	Message string
}

// Clamp limits value to [lowest, highest]. Bounds that contradict each other give the highest, which protects the cluster.
func Clamp(value, lowest, highest int32) Limit {
	l := Limit{Replicas: value, Reason: kapacity.ReasonDesiredWithinRange, Message: kapacity.MessageDesiredWithinRange}
	if l.Replicas < lowest {
		l = Limit{Replicas: lowest, Limited: true, Reason: kapacity.ReasonTooFewReplicas, Message: kapacity.MessageTooFewReplicas}
	}
	if l.Replicas > highest {
		l = Limit{Replicas: highest, Limited: true, Reason: kapacity.ReasonTooManyReplicas, Message: kapacity.MessageTooManyReplicas}
	}
	return l
}

// Step is the clamp's line in the decision record; raw is the value that was clamped.
func (l Limit) Step(raw int32) decision.Step {
	if !l.Limited {
		return decision.Step{Stage: "clamp", Replicas: l.Replicas, Reason: "within the bounds"}
	}
	return decision.Step{Stage: "clamp", Replicas: l.Replicas, Reason: fmt.Sprintf("%s: %d was wanted", l.Reason, raw)}
}
