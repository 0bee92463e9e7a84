package window

import (
	"errors"
	"fmt"
	"math/bits"
	"regexp"
	"slices"
	"time"
)

// What is wrong with a schedule. The errors that NewSchedules returns wrap one of them and name the field.
var (
	ErrInvalidScheduleType      = errors.New("invalid schedule type")
	ErrInvalidScheduleDate      = errors.New("invalid schedule date")
	ErrInvalidSchedulePeriod    = errors.New("invalid schedule period")
	ErrInvalidScheduleStartTime = errors.New("invalid schedule start time")
	ErrInvalidScheduleEndTime   = errors.New("invalid schedule end time")
	ErrInvalidScheduleDays      = errors.New("invalid schedule days")
	ErrInvalidScheduleTimezone  = errors.New("invalid schedule time zone")
	ErrInvalidScheduleDuration  = errors.New("invalid schedule duration")
	ErrInvalidScheduleWindow    = errors.New("invalid scaling window duration")
)

// The types of a schedule.
const (
	OneTime   = "OneTime"
	Repeating = "Repeating"
)

// Schedule is one entry of a scaling schedule as it was written, before validation. It is worth Value from its start to
// its end, which is the later of the end given and the start plus Minutes.
type Schedule struct {
	Type    string // OneTime or Repeating
	Value   int64
	Minutes int64 // 0 or more; more than 100 years count as 100 years

	Date, EndDate string // RFC 3339; for OneTime, EndDate is optional

	Period *Period // for Repeating
}

// Period says when a Repeating schedule starts and ends.
type Period struct {
	Start, End string   // HH:MM; End is optional, an End before Start belongs to the next day
	Days       []string // Sun to Sat: the days on which the window starts; none means never
	Timezone   string   // IANA name; empty means the default zone
}

// Ramp says how values fade in before each window and fade out after it.
type Ramp struct {
	Window time.Duration // length of each ramp, elapsed time; 0 means none
	Steps  int           // number of equal steps, at least 1
}

// Schedules is a valid list of schedules: a number over time. The zero value is 0 at all times.
type Schedules struct {
	items []schedule
	ramp  time.Duration
	steps uint64
}

type schedule struct {
	value    int64
	duration time.Duration

	once span // if zone is nil

	zone       *time.Location
	days       [7]bool
	start, end time.Duration // wall-clock time since midnight; end may lie on the next day
}

// span is a window without its ramps: [start, end).
type span struct{ start, end time.Time }

const (
	maxMinutes = 100 * 365 * 24 * 60
	day        = 24 * time.Hour
	// horizon is how far ahead the windows of repeating schedules are complete: every enabled weekday comes up once.
	horizon = 7 * day
	// A window longer than eight days never closes, because it begins anew every week. So of the windows that matter, the
	// last to close began at most 8 + 8 days ago and the next to open begins within 8 days, however long the ramps are.
	maxBack  = 17
	maxAhead = 9
	maxOpen  = 10 * day
)

var hhmm = regexp.MustCompile(`^(?:[01][0-9]|2[0-3]):[0-5][0-9]$`)

// NewSchedules validates the list. windowMinutes, when it is set, overrides ramp.Window; zone is used by periods that name
// none. The first mistake fails the whole list, with an error that names the field below spec. A ramp with fewer than one
// step or a negative window, or no zone, is a mistake of the caller and panics.
func NewSchedules(list []Schedule, windowMinutes *int64, ramp Ramp, zone *time.Location) (Schedules, error) {
	if ramp.Steps < 1 || ramp.Window < 0 || zone == nil {
		panic(fmt.Sprintf("window: impossible ramp %+v or zone %v", ramp, zone))
	}
	s := Schedules{ramp: min(ramp.Window, minutes(maxMinutes)), steps: uint64(ramp.Steps)}
	if windowMinutes != nil {
		if *windowMinutes < 0 {
			return Schedules{}, fmt.Errorf("scalingWindowDurationMinutes: %w: %d is negative", ErrInvalidScheduleWindow, *windowMinutes)
		}
		s.ramp = minutes(*windowMinutes)
	}
	for i, entry := range list {
		item, field, err := newSchedule(entry, zone)
		if err != nil {
			return Schedules{}, fmt.Errorf("schedules[%d].%s: %w", i, field, err)
		}
		s.items = append(s.items, item)
	}
	return s, nil
}

func newSchedule(in Schedule, zone *time.Location) (out schedule, field string, err error) {
	out.value = in.Value
	if in.Minutes < 0 {
		return out, "durationMinutes", fmt.Errorf("%w: %d is negative", ErrInvalidScheduleDuration, in.Minutes)
	}
	out.duration = minutes(in.Minutes)
	switch in.Type {
	case OneTime:
		if out.once.start, err = parseDate(in.Date); err != nil {
			return out, "date", err
		}
		end := out.once.start
		if in.EndDate != "" {
			if end, err = parseDate(in.EndDate); err != nil {
				return out, "endDate", err
			}
		}
		out.once.end = later(end, out.once.start.Add(out.duration))
		return out, "", nil
	case Repeating:
		if in.Period == nil {
			return out, "period", fmt.Errorf("%w: a %s schedule needs one", ErrInvalidSchedulePeriod, Repeating)
		}
		field, err = out.setPeriod(*in.Period, zone)
		return out, "period." + field, err
	default:
		return out, "type", fmt.Errorf("%w: %.32q is neither %s nor %s", ErrInvalidScheduleType, in.Type, OneTime, Repeating)
	}
}

func (s *schedule) setPeriod(p Period, zone *time.Location) (field string, err error) {
	if s.start, err = parseClock(p.Start, ErrInvalidScheduleStartTime); err != nil {
		return "startTime", err
	}
	s.end = s.start
	if p.End != "" {
		if s.end, err = parseClock(p.End, ErrInvalidScheduleEndTime); err != nil {
			return "endTime", err
		}
		if s.end < s.start {
			s.end += day
		}
	}
	for i, name := range p.Days {
		weekday := slices.Index([]string{"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"}, name)
		if weekday < 0 {
			return fmt.Sprintf("days[%d]", i), fmt.Errorf("%w: %.32q is none of Sun, Mon, Tue, Wed, Thu, Fri, Sat", ErrInvalidScheduleDays, name)
		}
		s.days[weekday] = true
	}
	s.zone = zone
	if p.Timezone != "" {
		if s.zone, err = LoadZone(p.Timezone); err != nil {
			return "timezone", fmt.Errorf("%w: %w", ErrInvalidScheduleTimezone, err)
		}
	}
	s.duration = min(s.duration, maxOpen)
	return "", nil
}

func parseDate(text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, fmt.Errorf("%w: a %s schedule needs one", ErrInvalidScheduleDate, OneTime)
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, fmt.Errorf("%w: %.64q is not a date and time of RFC 3339 such as 2026-11-30T18:00:00+01:00", ErrInvalidScheduleDate, text)
	}
	return t, nil
}

func parseClock(text string, kind error) (time.Duration, error) {
	if !hhmm.MatchString(text) {
		return 0, fmt.Errorf("%w: %.32q is not HH:MM from 00:00 to 23:59", kind, text)
	}
	digit := func(i int) time.Duration { return time.Duration(text[i] - '0') }
	return (digit(0)*10+digit(1))*time.Hour + (digit(3)*10+digit(4))*time.Minute, nil
}

func minutes(n int64) time.Duration { return time.Duration(min(n, maxMinutes)) * time.Minute }

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// Value returns what the schedules are worth at t, ramps included: the highest of them, and never less than 0.
func (s Schedules) Value(t time.Time) int64 { return s.layout(t).value(t) }

// Active tells whether t lies in any window or one of its ramps.
func (s Schedules) Active(t time.Time) bool {
	active, _ := s.layout(t).open(t)
	return active
}

// Full returns the highest value of the schedules that are active at t as it is without ramps, and never less than 0.
func (s Schedules) Full(t time.Time) int64 {
	_, full := s.layout(t).open(t)
	return full
}

// Next returns the first instant after t at which Value differs from Value(t). The zero time means never. Where nothing
// changes for a week, or many changes in a row are hidden behind a higher schedule, the answer is an earlier instant at
// which to ask again.
func (s Schedules) Next(t time.Time) time.Time {
	l := s.layout(t)
	now := l.value(t)
	return l.search(t, l.nextStep, func(at time.Time) bool { return l.value(at) != now })
}

// NextEdge returns the first instant after t at which Active or Full differ from what they are at t, like Next.
func (s Schedules) NextEdge(t time.Time) time.Time {
	l := s.layout(t)
	active, full := l.open(t)
	return l.search(t, l.nextEdge, func(at time.Time) bool {
		a, f := l.open(at)
		return a != active || f != full
	})
}

// layout is the windows of all schedules around one instant.
type layout struct {
	windows []valued
	ramp    time.Duration
	steps   uint64
	horizon time.Time // up to here the windows are complete; zero: for ever
}

type valued struct {
	span
	worth int64
}

func (s Schedules) layout(t time.Time) layout {
	l := layout{ramp: s.ramp, steps: s.steps}
	for _, item := range s.items {
		if item.zone == nil {
			l.windows = append(l.windows, valued{item.once, item.value})
			continue
		}
		if item.days == [7]bool{} {
			continue
		}
		l.horizon = t.Add(horizon)
		year, month, today := t.In(item.zone).Date()
		midnight := time.Date(year, month, today, 0, 0, 0, 0, time.UTC)
		back := min(maxBack, int((item.duration+min(s.ramp, maxBack*day))/day)+3)
		ahead := int(horizon/day) + min(maxAhead, int(s.ramp/day)+2)
		for i := -back; i <= ahead; i++ {
			date := midnight.AddDate(0, 0, i)
			if !item.days[date.Weekday()] {
				continue
			}
			start := latest(date.Add(item.start), item.zone)
			end := later(latest(date.Add(item.end), item.zone), start.Add(item.duration))
			l.windows = append(l.windows, valued{span{start, end}, item.value})
		}
	}
	return l
}

func (l layout) value(t time.Time) int64 {
	var highest int64
	for _, w := range l.windows {
		highest = max(highest, l.worth(w, t))
	}
	return highest
}

func (l layout) worth(w valued, t time.Time) int64 {
	switch step := l.step(w.span, t); {
	case w.worth <= 0 || step == 0:
		return 0
	default:
		return int64(mulDiv(step, uint64(w.worth), l.steps))
	}
}

// step returns how many of the steps count at t: all inside the window, fewer on the ramps, none elsewhere. At its very
// end a window still counts in full if it has a ramp.
func (l layout) step(w span, t time.Time) uint64 {
	var left time.Duration
	switch {
	case t.Before(w.start.Add(-l.ramp)) || !t.Before(w.end.Add(l.ramp)):
		return 0
	case t.Before(w.start):
		left = t.Sub(w.start.Add(-l.ramp))
	case t.Before(w.end):
		return l.steps
	default:
		left = w.end.Add(l.ramp).Sub(t)
	}
	return mulDiv(uint64(left), l.steps, uint64(l.ramp))
}

func (l layout) open(t time.Time) (active bool, full int64) {
	for _, w := range l.windows {
		if !t.Before(w.start.Add(-l.ramp)) && t.Before(w.end.Add(l.ramp)) {
			active, full = true, max(full, w.worth)
		}
	}
	return active, full
}

// search tries the candidates that next yields after t, in order, until one passes.
func (l layout) search(t time.Time, next func(valued, time.Time) time.Time, passes func(time.Time) bool) time.Time {
	const tries = 64
	at := t
	for range tries {
		var first time.Time
		for _, w := range l.windows {
			if c := next(w, at); !c.IsZero() && (first.IsZero() || c.Before(first)) {
				first = c
			}
		}
		if !l.horizon.IsZero() && (first.IsZero() || first.After(l.horizon)) {
			return l.horizon
		}
		at = first
		if at.IsZero() || passes(at) {
			break
		}
	}
	return at
}

func (l layout) nextEdge(w valued, t time.Time) time.Time {
	if from := w.start.Add(-l.ramp); t.Before(from) {
		return from
	}
	if to := w.end.Add(l.ramp); t.Before(to) {
		return to
	}
	return time.Time{}
}

// nextStep returns when the worth of this one window changes after t. Upwards, step k begins k/steps of the ramp after the
// ramp began; downwards, it ends just after k/steps of the ramp are left.
func (l layout) nextStep(w valued, t time.Time) time.Time {
	if w.worth <= 0 {
		return time.Time{}
	}
	worth, value := uint64(w.worth), uint64(l.worth(w, t))
	part := func(step uint64) time.Duration { return time.Duration(mulDivUp(step, uint64(l.ramp), l.steps)) }
	switch {
	case t.Before(w.start):
		return w.start.Add(part(mulDivUp(value+1, l.steps, worth)) - l.ramp)
	case l.ramp == 0 && t.Before(w.end):
		return w.end
	case value > 0:
		return w.end.Add(l.ramp - part(mulDivUp(value, l.steps, worth)) + 1)
	default:
		return time.Time{}
	}
}

// mulDiv returns a * b / c. The quotient must fit, as it does wherever a <= c or b <= c.
func mulDiv(a, b, c uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	quotient, _ := bits.Div64(hi, lo, c)
	return quotient
}

func mulDivUp(a, b, c uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	quotient, rest := bits.Div64(hi, lo, c)
	if rest > 0 {
		quotient++
	}
	return quotient
}
