package ihpa

import (
	"fmt"
	"strings"
	"time"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	"github.com/kubetide/kubetide/internal/decision"
)

// held is what a hold makes of a decision.
type held struct {
	// Replicas is the count that is kept; nil while nothing is held.
	Replicas *int32
	// Until is when the hold lifts itself; zero for never, or while nothing is held.
	Until time.Time
	// Message says who holds what, until when and why; or that nobody does.
	Message string
}

// decideHold says what the hold keeps at now. kept is the count that it has kept so far, desired the one that the workload was
// going to before; nil where there is none. A hold without a number and without anything to keep waits for the first decision.
func decideHold(h *kapacity.Hold, kept, desired *int32, now time.Time) held {
	switch {
	case h == nil:
		return held{Message: "nothing is held"}
	case h.Until != nil && !now.Before(h.Until.Time):
		return held{Message: fmt.Sprintf("the hold%s lifted itself at %s", by(h), h.Until.UTC().Format(time.RFC3339))}
	}
	out := held{Replicas: h.Replicas}
	if out.Replicas == nil {
		out.Replicas = kept
	}
	if out.Replicas == nil {
		out.Replicas = desired
	}
	if h.Until != nil {
		out.Until = h.Until.Time
	}
	if out.Replicas == nil {
		out.Message = "the hold" + by(h) + " waits for a first decision"
		return out
	}
	var b strings.Builder
	fmt.Fprintf(&b, "held at %d%s", *out.Replicas, by(h))
	if !out.Until.IsZero() {
		fmt.Fprintf(&b, " until %s", out.Until.UTC().Format(time.RFC3339))
	}
	if h.Reason != "" {
		fmt.Fprintf(&b, ": %s", h.Reason)
	}
	out.Message = b.String()
	return out
}

func by(h *kapacity.Hold) string {
	if h.Actor == "" {
		return ""
	}
	return " by " + h.Actor
}

// step is the hold's line in the decision record; nil while nothing is held.
func (h held) step() *decision.Step {
	if h.Replicas == nil {
		return nil
	}
	return &decision.Step{Stage: "hold", Replicas: *h.Replicas, Reason: h.Message}
}
