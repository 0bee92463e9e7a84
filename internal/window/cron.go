package window

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
)

var (
	// ErrInvalidCron says that a text is not a cron expression of five fields or a descriptor such as @hourly.
	ErrInvalidCron = errors.New("invalid cron expression")
	// ErrNeverFires says that a cron expression names no date that exists, such as February 31.
	ErrNeverFires = errors.New("cron expression never fires")
)

const (
	maxCronLength = 256
	minEvery      = time.Minute
)

// Rule is a window between two cron expressions. It is open at an instant whose next start is later than its next end:
// the start is inclusive, the end exclusive. So of several starts before an end the last one opens it, and an end with which a start
// coincides has no window before it.
//
// Clocks that skip an hour move what falls into the gap forward by its length. An hour that the clocks show twice fires
// twice, so a window begins at the first pass and ends at the second, unless both its ends lie in that hour.
type Rule struct{ start, end trigger }

// RuleError says which part of a rule is at fault: start, end or timeZone.
type RuleError struct {
	Field string
	Err   error // wraps ErrInvalidCron, ErrInvalidZone or ErrNeverFires
}

func (e *RuleError) Error() string { return e.Field + ": " + e.Err.Error() }
func (e *RuleError) Unwrap() error { return e.Err }

// ParseRule reads a rule. The expressions have robfig/cron's standard grammar; zone is an IANA name, empty means UTC, and
// a CRON_TZ= or TZ= prefix of an expression overrides it. Errors are RuleErrors.
func ParseRule(start, end, zone string) (Rule, error) {
	if zone == "" {
		zone = "UTC"
	}
	loc, err := LoadZone(zone)
	if err != nil {
		return Rule{}, &RuleError{"timeZone", err}
	}
	var r Rule
	if r.start, err = parseTrigger(start, loc); err != nil {
		return Rule{}, &RuleError{"start", err}
	}
	if r.end, err = parseTrigger(end, loc); err != nil {
		return Rule{}, &RuleError{"end", err}
	}
	return r, nil
}

// Active tells whether the window is open at now, and if so, when it closes.
func (r Rule) Active(now time.Time) (bool, time.Time) {
	end := r.end.next(now)
	if !r.start.next(now).After(end) {
		return false, time.Time{}
	}
	return true, end
}

// Next returns the first start or end after now. Active gives the same answer at all instants before it.
func (r Rule) Next(now time.Time) time.Time {
	start, end := r.start.next(now), r.end.next(now)
	if start.Before(end) {
		return start
	}
	return end
}

// trigger is one parsed cron expression: fields in a zone, or a period.
type trigger struct {
	fields *cron.SpecSchedule // evaluated on wall-clock times that are written as UTC
	zone   *time.Location
	every  time.Duration // counted from the Unix epoch, so that restarts do not move it
}

func parseTrigger(text string, zone *time.Location) (trigger, error) {
	if len(text) > maxCronLength {
		return trigger{}, fmt.Errorf("%w: longer than %d characters", ErrInvalidCron, maxCronLength)
	}
	expr := text
	if name, ok := cutAnyPrefix(expr, "CRON_TZ=", "TZ="); ok { // the library panics on a zone without an expression
		name, rest, _ := strings.Cut(name, " ")
		loc, err := LoadZone(name)
		if err != nil {
			return trigger{}, fmt.Errorf("%q: %w", text, err)
		}
		zone, expr = loc, strings.TrimSpace(rest)
		if _, again := cutAnyPrefix(expr, "CRON_TZ=", "TZ="); again {
			return trigger{}, fmt.Errorf("%w %q: two zones", ErrInvalidCron, text)
		}
	}
	parsed, err := cron.ParseStandard(expr)
	if err != nil {
		return trigger{}, fmt.Errorf("%w %q: %w", ErrInvalidCron, text, err)
	}
	switch s := parsed.(type) {
	case cron.ConstantDelaySchedule:
		if s.Delay < minEvery {
			return trigger{}, fmt.Errorf("%w %q: the period is shorter than %v", ErrInvalidCron, text, minEvery)
		}
		return trigger{every: s.Delay}, nil
	case *cron.SpecSchedule:
		if s.Minute == 0 || s.Hour == 0 || s.Dom == 0 || s.Month == 0 || s.Dow == 0 {
			return trigger{}, fmt.Errorf("%w %q: a field is empty", ErrInvalidCron, text)
		}
		if !dateExists(s) {
			return trigger{}, fmt.Errorf("%w: %q names no date that exists", ErrNeverFires, text)
		}
		s.Location = time.UTC
		return trigger{fields: s, zone: zone}, nil
	default:
		return trigger{}, fmt.Errorf("%w %q: unknown form", ErrInvalidCron, text)
	}
}

func cutAnyPrefix(s string, prefixes ...string) (string, bool) {
	for _, p := range prefixes {
		if rest, ok := strings.CutPrefix(s, p); ok {
			return rest, true
		}
	}
	return s, false
}

// dateExists tells whether any month of s has a day of s. A weekday comes in every month, but where the weekday field is
// a star, the day of the month decides alone.
func dateExists(s *cron.SpecSchedule) bool {
	const star = 1 << 63
	if s.Dow&star == 0 {
		return true
	}
	for month, days := range [...]uint{1: 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31} {
		if s.Month&(1<<month) != 0 && s.Dom&(1<<(days+1)-2) != 0 {
			return true
		}
	}
	return false
}

// next returns the first instant after now at which the trigger fires.
//
// The library steps through local times and stumbles where they jump (midnights that do not exist, half-hour changes). So
// it is asked about plain wall-clock times, one stretch of constant offset after the other.
func (g trigger) next(now time.Time) time.Time {
	if g.fields == nil {
		period := int64(g.every / time.Second)
		n := now.Unix() / period
		if now.Unix() < n*period {
			n--
		}
		return time.Unix((n+1)*period, 0).In(now.Location())
	}
	for stretch, t := now.In(g.zone), now; ; {
		start, end := stretch.ZoneBounds()
		at := g.nextWall(t, offset(stretch))
		if !start.IsZero() {
			before := offset(start.Add(-time.Nanosecond))
			gapEnd := start.Add(time.Duration(offset(start)-before) * time.Second)
			if t.Before(gapEnd) {
				if moved := g.nextWall(t, before); moved.Before(at) && moved.Before(gapEnd) {
					at = moved
				}
			}
		}
		if end.IsZero() || at.Before(end) {
			return at.In(now.Location())
		}
		stretch, t = end, end.Add(-time.Nanosecond)
	}
}

// nextWall returns the first fire after t on clocks that run at a constant offset.
func (g trigger) nextWall(t time.Time, offset int64) time.Time {
	shift := time.Duration(offset) * time.Second
	for wall := t.UTC().Add(shift); ; wall = wall.AddDate(4, 0, 0) { // the library looks five years ahead
		if at := g.fields.Next(wall); !at.IsZero() {
			return at.Add(-shift)
		}
	}
}
