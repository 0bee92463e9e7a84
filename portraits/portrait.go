// Package portraits holds the contract of a portrait: an opinion on what the replica count of a workload should be, over
// time. Each kind of portrait is a package below this one. Portraits are pure: they see a time and, where they need
// demand, an internal/sample.Reader; they never see the API server or the adapter.
package portraits

import "time"

// Portrait has an opinion at every instant.
type Portrait interface {
	// Evaluate never panics, whatever was stored, and answers the same for the same instant and samples.
	Evaluate(now time.Time) Opinion
}

// Opinion is what a portrait says at one instant.
type Opinion struct {
	// HasValue is false where the portrait has no opinion: no active window, expired, nothing known yet.
	HasValue bool
	// Replicas is valid if HasValue.
	Replicas int32
	// Expires is the instant at which the value ends; zero for never.
	Expires time.Time
	// Next is the next instant at which the opinion may change by the passing of time; zero for never.
	Next time.Time
	// Reason says in a few words where the value comes from, or why there is none: `window "evening" until 22:00`.
	Reason string
	// Warnings name what the user should mend though the opinion stands, such as overlapping windows.
	Warnings []string
	// Err is set if the portrait, or a part of it, failed: an unreadable rule, a source without fresh data. A value may
	// stand beside it, from the parts that are well. Either way a failed portrait that would rank at or above the winner
	// forbids lowering the replicas.
	Err error
}
