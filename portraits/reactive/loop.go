package reactive

import "fmt"

// Gate is what the HPA does before it asks any metric: a count outside its bounds goes to the bound, and 0 stays 0 unless the
// autoscaler itself went there and either has an Object or External metric, which alone can see demand without pods, or a
// minimum above 0 by now. If ask is false, replicas is the result.
func Gate(specReplicas, minReplicas, maxReplicas int32, scaledToZero, objectOrExternal bool) (replicas int32, ask bool) {
	switch {
	case specReplicas == 0:
		return 0, scaledToZero && (minReplicas != 0 || objectOrExternal)
	case specReplicas > maxReplicas:
		return maxReplicas, false
	case specReplicas < minReplicas:
		return minReplicas, false
	}
	return specReplicas, true
}

// Outcome is what all metrics together ask for.
type Outcome struct {
	// Replicas is the largest proposal, before behavior and bounds; spec.replicas if Held.
	Replicas int32
	// Winner is the index of the proposal that decided; -1 if none did.
	Winner int
	// Held says that failures forbid the change: nothing was proposed, or less than there is while a failed metric might have
	// asked for more.
	Held bool
	// Err tells of failed metrics in the HPA's words, also beside a valid result.
	Err error
}

// Desired combines the proposals: the largest wins, and a partial failure never scales down.
func Desired(proposals []Proposal, specReplicas int32) Outcome {
	out, failed := Outcome{Winner: -1}, 0
	for i, p := range proposals {
		if p.Err != nil {
			if failed == 0 {
				out.Err = p.Err
			}
			failed++
			continue
		}
		// An overflow below 0 is 0 to the HPA's loop as well.
		if out.Winner < 0 || p.Replicas > out.Replicas {
			out.Replicas, out.Winner = max(0, p.Replicas), i
		}
	}
	if out.Err != nil {
		out.Err = fmt.Errorf("invalid metrics (%d invalid out of %d), first error is: %w", failed, len(proposals), out.Err)
	}
	if failed == len(proposals) || failed > 0 && out.Replicas < specReplicas {
		out.Replicas, out.Winner, out.Held = specReplicas, -1, true
	}
	return out
}
