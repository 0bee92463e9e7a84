// Package bounds says which bounds of the replica count hold now: those of the spec, or those of the windows that are open. It is pure:
// it sees windows and a time, and internal/window knows when they are open.
package bounds

import (
	"errors"
	"fmt"
	"time"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	"github.com/kubetide/kubetide/internal/decision"
	"github.com/kubetide/kubetide/internal/window"
	"github.com/kubetide/kubetide/scaler/merge"
)

// Decision is the bounds that hold.
type Decision struct {
	// Min and Max are the bounds. Where Min is above Max, Max holds, which protects the cluster.
	Min, Max int32
	// MinBy and MaxBy are the names of the windows that they come from; empty for the spec's own.
	MinBy, MaxBy string
	// Next is the first instant after now at which a window opens or closes; zero means never.
	Next time.Time
	// Warnings name what the user should mend though the bounds hold.
	Warnings []string
	// Err names each window that cannot be used. The others hold all the same, and where none does, the spec's own bounds.
	Err error
}

// Decide returns the bounds at now. lowest and highest are the spec's own, in whose place those of open windows stand: of several lower
// bounds the highest, of several upper ones the lowest, of equal ones the first.
func Decide(lowest, highest int32, windows []kapacity.ScheduledBounds, now time.Time) Decision {
	d := Decision{Min: lowest, Max: highest}
	var errs []error
	seen := map[string]bool{}
	for i, w := range windows {
		rule, err := usable(w, seen)
		if err != nil {
			errs = append(errs, fmt.Errorf("scheduledBounds[%d] %.253q: %w", i, w.Name, err))
			continue
		}
		seen[w.Name] = true
		if next := rule.Next(now); d.Next.IsZero() || next.Before(d.Next) {
			d.Next = next
		}
		if open, _ := rule.Active(now); !open {
			continue
		}
		if w.MinReplicas != nil && (d.MinBy == "" || *w.MinReplicas > d.Min) {
			d.Min, d.MinBy = *w.MinReplicas, w.Name
		}
		if w.MaxReplicas != nil && (d.MaxBy == "" || *w.MaxReplicas < d.Max) {
			d.Max, d.MaxBy = *w.MaxReplicas, w.Name
		}
	}
	d.Err = errors.Join(errs...)
	if d.Min > d.Max && (d.MinBy != "" || d.MaxBy != "") {
		d.Warnings = []string{fmt.Sprintf("at least %d replicas (%s) are more than at most %d (%s): %d holds",
			d.Min, origin(d.MinBy, "minReplicas"), d.Max, origin(d.MaxBy, "maxReplicas"), d.Max)}
	}
	return d
}

func usable(w kapacity.ScheduledBounds, seen map[string]bool) (window.Rule, error) {
	switch {
	case w.Name == "":
		return window.Rule{}, errors.New("name: it is empty")
	case seen[w.Name]:
		return window.Rule{}, errors.New("name: another window has it")
	case w.MinReplicas == nil && w.MaxReplicas == nil:
		return window.Rule{}, errors.New("neither minReplicas nor maxReplicas is set")
	case w.MinReplicas != nil && *w.MinReplicas < 0:
		return window.Rule{}, fmt.Errorf("minReplicas: %d is negative", *w.MinReplicas)
	case w.MaxReplicas != nil && *w.MaxReplicas < 0:
		return window.Rule{}, fmt.Errorf("maxReplicas: %d is negative", *w.MaxReplicas)
	}
	return window.ParseRule(string(w.Start), string(w.End), w.TimeZone)
}

func origin(name, field string) string {
	if name == "" {
		return "spec." + field
	}
	return fmt.Sprintf("window %q", name)
}

// Note names the window whose bound a limit of this reason is, as an addition to its message; empty for the spec's own bounds.
func (d Decision) Note(l merge.Limit) string {
	by := ""
	switch l.Reason {
	case kapacity.ReasonTooFewReplicas:
		by = d.MinBy
	case kapacity.ReasonTooManyReplicas:
		by = d.MaxBy
	}
	if by == "" {
		return ""
	}
	return fmt.Sprintf(", %d in window %q", l.Replicas, by)
}

// Clamp limits value to the bounds, and says so with the window's name.
func (d Decision) Clamp(value int32) (merge.Limit, decision.Step) {
	l := merge.Clamp(value, d.Min, d.Max)
	step := l.Step(value)
	note := d.Note(l)
	l.Message += note
	step.Reason += note
	return l, step
}
