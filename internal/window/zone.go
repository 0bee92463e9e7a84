// Package window answers, for any instant, whether a time window is open, what it is worth, and when that changes
// next. It knows cron windows (Rule) and scaling schedules with ramps (Schedules), time zones and daylight saving.
// It is pure: it gets the time as an argument, reads no clock, knows of the API types only, and touches nothing but the time
// zone database, which is linked in so that answers do not depend on the image Kubetide runs in.
package window

import (
	"errors"
	"fmt"
	"strings"
	"time"
	_ "time/tzdata" // zones must not depend on the machine
)

// ErrInvalidZone says that a text is not an IANA time zone name.
var ErrInvalidZone = errors.New("invalid time zone")

const maxZoneLength = 64

// LoadZone returns the zone of an IANA name. "Local" and the empty string are refused with ErrInvalidZone: what they mean
// would depend on the machine.
func LoadZone(name string) (*time.Location, error) {
	if name == "" || name == "Local" || len(name) > maxZoneLength || strings.ContainsRune(name, 0) {
		return nil, fmt.Errorf("%w: %.*q is not an IANA name", ErrInvalidZone, maxZoneLength, name)
	}
	loc, err := time.LoadLocation(name)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalidZone, err)
	}
	return loc, nil
}

// offset returns the seconds east of UTC that are in force at t in t's zone.
func offset(t time.Time) int64 {
	_, seconds := t.Zone()
	return int64(seconds)
}

// latest returns the instant at which the clocks of loc show wall, whose fields are read as if they were UTC. A wall
// time that the clocks skip is moved forward by the length of the gap; of one that they show twice, the second counts.
// time.Date leaves both cases open.
func latest(wall time.Time, loc *time.Location) time.Time {
	t := time.Date(wall.Year(), wall.Month(), wall.Day(), wall.Hour(), wall.Minute(), 0, 0, loc)
	at := func(offset int64) time.Time { return time.Unix(wall.Unix()-offset, 0).In(loc) }
	if shown := t.Unix() + offset(t); shown != wall.Unix() {
		if shown < wall.Unix() { // t was placed before the gap with the offset after it
			return at(offset(t))
		}
		return t
	}
	if _, end := t.ZoneBounds(); !end.IsZero() {
		if again := at(offset(end)); !again.Before(end) {
			return again
		}
	}
	return t
}
