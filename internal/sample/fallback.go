package sample

import "time"

// Fallback says what is served for a query while its source gives no value. It is chosen by the asker; the zero value
// serves nothing.
type Fallback struct {
	// Hold is how long the last known value is served after it was lost.
	Hold time.Duration `json:"hold,omitempty"`
	// Fixed says that Milli is served after that until the source answers again, or the last known value if it is higher.
	Fixed bool  `json:"fixed,omitempty"`
	Milli int64 `json:"milli,omitempty"`
}

// Stage is how far a Fallback has come.
type Stage int

const (
	// Waiting means that there never was a value to hold, and that the fixed one is not due yet.
	Waiting Stage = iota + 1
	// Held means that the last known value is served.
	Held
	// Fixed means that the fixed value is served, or the last known one if that is higher.
	Fixed
	// Over means that nothing is served any more.
	Over
)

func (s Stage) String() string {
	return [...]string{"none", "Waiting", "Held", "Fixed", "Over"}[s]
}

// Instead says that the source has no value, and what the query's Fallback makes of that.
type Instead struct {
	Stage Stage
	// Since is when the value was lost, or for a metric that never had one, its first failure.
	Since time.Time
	// Until is when the next stage begins; zero if there is none.
	Until time.Time
}

// Serves says whether a value is served in place of the source's.
func (i *Instead) Serves() bool { return i != nil && (i.Stage == Held || i.Stage == Fixed) }

// At returns the stage at now of a fallback that began at since. known says whether there is a last known value.
func (f Fallback) At(now, since time.Time, known bool) Instead {
	end := since.Add(f.Hold)
	switch {
	case !now.Before(end) && f.Fixed:
		return Instead{Stage: Fixed, Since: since}
	case !now.Before(end), !known && !f.Fixed:
		return Instead{Stage: Over, Since: since}
	case known:
		return Instead{Stage: Held, Since: since, Until: end}
	}
	return Instead{Stage: Waiting, Since: since, Until: end}
}
