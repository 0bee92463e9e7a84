package store

import (
	"fmt"
	"time"

	"github.com/kubetide/kubetide/internal/sample"
)

// spare is what the fallback of a query needs to know beside its state. It is never changed after it was published.
type spare struct {
	// points and taken are the last value where the state has none any more.
	points []sample.Point
	taken  time.Time
	// since is when the value was lost, or the first failure of a query that never had one; zero while the state has a value
	// and before the first collection.
	since time.Time
}

// spareAfter returns the spare of next, which follows s by a collection that began at taken.
func (s *state) spareAfter(next *state, taken time.Time) *spare {
	switch before := s.spare; {
	case next.points() != nil:
		return &spare{} // that is lost when it is stale
	case s.points() != nil:
		lost := taken
		if end := s.end(); end.Before(lost) {
			lost = end
		}
		return &spare{points: s.points(), taken: s.taken(), since: lost}
	case before == nil || before.since.IsZero():
		return &spare{since: taken}
	default:
		return before
	}
}

// fallBack makes what the fallback of the query serves at now of an answer without a value.
func (s *state) fallBack(a *sample.Answer, now time.Time) {
	fallback, last := s.served[0].Query.Fallback, *s.spare
	if s.points() != nil {
		last = spare{points: s.points(), taken: s.taken(), since: s.end()}
	}
	if last.since.IsZero() {
		return
	}
	instead := fallback.At(now, last.since, last.points != nil)
	a.Instead = &instead
	switch {
	case instead.Stage == sample.Over:
		a.Cause = &overError{hold: fallback.Hold, cause: a.Cause}
	case instead.Stage == sample.Waiting:
		a.Cause = &waitingError{instead: instead, now: now, cause: a.Cause}
	case instead.Stage == sample.Fixed && (last.points == nil || last.points[0].Milli < fallback.Milli):
		a.State, a.Points, a.Taken = sample.Fresh, []sample.Point{{Milli: fallback.Milli}}, now
	default:
		a.State, a.Points, a.Taken = sample.Fresh, last.points, last.taken
	}
}

// overError and waitingError are made on each read, so they are printed only when somebody looks.
type overError struct {
	hold  time.Duration
	cause error
}

func (e *overError) Error() string {
	return fmt.Sprintf("%v; its fallback-hold of %s is over, and it has no fallback-value", e.cause, e.hold)
}

func (e *overError) Unwrap() error { return e.cause }

type waitingError struct {
	instead sample.Instead
	now     time.Time
	cause   error
}

func (e *waitingError) Error() string {
	return fmt.Sprintf("%v; its fallback-value is served in %s", e.cause, e.instead.Until.Sub(e.now).Round(time.Second))
}

func (e *waitingError) Unwrap() error { return e.cause }
