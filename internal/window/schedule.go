package window

import (
	"errors"
	"fmt"
	"math/bits"
	"regexp"
	"slices"
	"time"

	zalando "github.com/kubetide/kubetide/api/zalando/v1"
)

// What is wrong with a spec. The errors that NewSchedules returns wrap one of them and name the field.
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

// Defaults are what schedules leave open.
type Defaults struct {
	Window time.Duration  // length of the ramp before and after each window where a spec names none; 0 means no ramp
	Steps  int            // equal steps of each ramp, at least 1
	Zone   *time.Location // of periods that name none
}

// Validate says what is wrong with the defaults.
func (d Defaults) Validate() error {
	switch {
	case d.Window < 0:
		return fmt.Errorf("the default scaling window %v is negative", d.Window)
	case d.Steps < 1:
		return fmt.Errorf("%d ramp steps are fewer than 1", d.Steps)
	case d.Zone == nil:
		return errors.New("there is no default time zone")
	}
	return nil
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
	// Of the windows of one schedule, only the last to begin and the next to begin matter at an instant: the last one is
	// open, or was the last to close. Both are within a week, and a day for daylight saving, however long they and their
	// ramps are.
	within = 8
)

var hhmm = regexp.MustCompile(`^(?:[01][0-9]|2[0-3]):[0-5][0-9]$`)

// NewSchedules validates the spec. The first mistake fails all of it, with an error that names the field. Durations beyond
// 100 years count as 100 years. Defaults that are not valid are a mistake of the caller and panic.
func NewSchedules(spec zalando.ScalingScheduleSpec, d Defaults) (Schedules, error) {
	if err := d.Validate(); err != nil {
		panic("window: " + err.Error())
	}
	s := Schedules{ramp: min(d.Window, minutes(maxMinutes)), steps: uint64(d.Steps)}
	if w := spec.ScalingWindowDurationMinutes; w != nil {
		if *w < 0 {
			return Schedules{}, fmt.Errorf("spec.scalingWindowDurationMinutes: %w: %d is negative", ErrInvalidScheduleWindow, *w)
		}
		s.ramp = minutes(*w)
	}
	for i, entry := range spec.Schedules {
		item, field, err := newSchedule(entry, d.Zone)
		if err != nil {
			return Schedules{}, fmt.Errorf("spec.schedules[%d].%s: %w", i, field, err)
		}
		s.items = append(s.items, item)
	}
	return s, nil
}

func newSchedule(in zalando.Schedule, zone *time.Location) (out schedule, field string, err error) {
	out.value = in.Value
	if in.DurationMinutes < 0 {
		return out, "durationMinutes", fmt.Errorf("%w: %d is negative", ErrInvalidScheduleDuration, in.DurationMinutes)
	}
	out.duration = minutes(int64(in.DurationMinutes))
	switch in.Type {
	case zalando.OneTimeSchedule:
		if in.Date == nil {
			return out, "date", fmt.Errorf("%w: a %s schedule needs one", ErrInvalidScheduleDate, in.Type)
		}
		if out.once.start, err = parseDate(*in.Date); err != nil {
			return out, "date", err
		}
		end := out.once.start
		if in.EndDate != nil {
			if end, err = parseDate(*in.EndDate); err != nil {
				return out, "endDate", err
			}
		}
		out.once.end = later(end, out.once.start.Add(out.duration))
		return out, "", nil
	case zalando.RepeatingSchedule:
		if in.Period == nil {
			return out, "period", fmt.Errorf("%w: a %s schedule needs one", ErrInvalidSchedulePeriod, in.Type)
		}
		field, err = out.setPeriod(*in.Period, zone)
		return out, "period." + field, err
	default:
		return out, "type", fmt.Errorf("%w: %.32q is neither %s nor %s", ErrInvalidScheduleType, in.Type, zalando.OneTimeSchedule, zalando.RepeatingSchedule)
	}
}

func (s *schedule) setPeriod(p zalando.SchedulePeriod, zone *time.Location) (field string, err error) {
	if s.start, err = parseClock(p.StartTime, ErrInvalidScheduleStartTime); err != nil {
		return "startTime", err
	}
	s.end = s.start
	if p.EndTime != "" {
		if s.end, err = parseClock(p.EndTime, ErrInvalidScheduleEndTime); err != nil {
			return "endTime", err
		}
		if s.end < s.start {
			s.end += day
		}
	}
	for i, name := range p.Days {
		weekday := slices.Index(weekdays, name)
		if weekday < 0 {
			return fmt.Sprintf("days[%d]", i), fmt.Errorf("%w: %.32q is none of %v", ErrInvalidScheduleDays, name, weekdays)
		}
		s.days[weekday] = true
	}
	s.zone = zone
	if p.Timezone != "" {
		if s.zone, err = LoadZone(p.Timezone); err != nil {
			return "timezone", fmt.Errorf("%w: %w", ErrInvalidScheduleTimezone, err)
		}
	}
	return "", nil
}

var weekdays = []zalando.ScheduleDay{
	time.Sunday: zalando.SundaySchedule, time.Monday: zalando.MondaySchedule, time.Tuesday: zalando.TuesdaySchedule,
	time.Wednesday: zalando.WednesdaySchedule, time.Thursday: zalando.ThursdaySchedule, time.Friday: zalando.FridaySchedule,
	time.Saturday: zalando.SaturdaySchedule,
}

func parseDate(text zalando.ScheduleDate) (time.Time, error) {
	t, err := time.Parse(time.RFC3339, string(text))
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
func (s Schedules) Value(t time.Time) int64 { return s.layout(t, 0).value(t) }

// Active tells whether t lies in any window or one of its ramps.
func (s Schedules) Active(t time.Time) bool {
	active, _ := s.layout(t, 0).open(t)
	return active
}

// Full returns the highest value of the schedules that are active at t as it is without ramps, and never less than 0.
func (s Schedules) Full(t time.Time) int64 {
	_, full := s.layout(t, 0).open(t)
	return full
}

// Next returns the first instant after t at which Value differs from Value(t). The zero time means never. Where nothing
// changes for a week, the answer is an earlier instant at which to ask again.
func (s Schedules) Next(t time.Time) time.Time {
	l := s.layout(t, horizon)
	value := l.value(t)
	return l.search(t, func(w valued, t time.Time) time.Time { return l.nextStep(w, t, value) },
		func(at time.Time) bool { return l.value(at) != value })
}

// NextEdge returns the first instant after t at which Active or Full differ from what they are at t, like Next.
func (s Schedules) NextEdge(t time.Time) time.Time {
	l := s.layout(t, horizon)
	active, full := l.open(t)
	return l.search(t, func(w valued, t time.Time) time.Time { return l.nextEdge(w, t, active, full) },
		func(at time.Time) bool {
			a, f := l.open(at)
			return a != active || f != full
		})
}

// layout is the windows of all schedules that touch a stretch of time.
type layout struct {
	windows []valued
	ramp    time.Duration
	steps   uint64
	until   time.Time // up to here the windows are complete; zero: for ever
}

type valued struct {
	span
	worth int64
}

// layout lays out the windows that, with their ramps, touch the time from t to t + stretch.
func (s Schedules) layout(t time.Time, stretch time.Duration) layout {
	l := layout{ramp: s.ramp, steps: s.steps}
	last := t.Add(stretch)
	for _, item := range s.items {
		if item.zone == nil {
			l.windows = append(l.windows, valued{item.once, item.value})
			continue
		}
		if item.days == [7]bool{} {
			continue
		}
		l.until = last
		year, month, today := t.In(item.zone).Date()
		midnight := time.Date(year, month, today, 0, 0, 0, 0, time.UTC)
		back := min(within, int(item.duration/day)+int(s.ramp/day)+3)
		ahead := min(within, int(s.ramp/day)+2) + int(stretch/day)
		for i := -back; i <= ahead; i++ {
			date := midnight.AddDate(0, 0, i)
			if !item.days[date.Weekday()] {
				continue
			}
			start := latest(date.Add(item.start), item.zone)
			end := later(latest(date.Add(item.end), item.zone), start.Add(item.duration))
			if end.Add(s.ramp).After(t) && !start.Add(-s.ramp).After(last) {
				l.windows = append(l.windows, valued{span{start, end}, item.value})
			}
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

// search tries the candidates that next yields after t, in order, until one passes. Several windows that are worth the same
// hide each other; after many of them the answer is early.
func (l layout) search(t time.Time, next func(valued, time.Time) time.Time, passes func(time.Time) bool) time.Time {
	const tries = 32
	at := t
	for range tries {
		var first time.Time
		for _, w := range l.windows {
			if c := next(w, at); !c.IsZero() && (first.IsZero() || c.Before(first)) {
				first = c
			}
		}
		if !l.until.IsZero() && (first.IsZero() || first.After(l.until)) {
			return l.until
		}
		at = first
		if at.IsZero() || passes(at) {
			break
		}
	}
	return at
}

// nextEdge returns when the window, by opening or closing after t, may change the state of all.
func (l layout) nextEdge(w valued, t time.Time, active bool, full int64) time.Time {
	from, to := w.start.Add(-l.ramp), w.end.Add(l.ramp)
	switch {
	case t.Before(from) && (!active || w.worth > full):
		return from
	case !t.Before(from) && t.Before(to) && max(w.worth, 0) == full:
		return to
	default:
		return time.Time{}
	}
}

// nextStep returns when the window may change the value of all after t: by rising above it, or by falling from it. Upwards,
// step k begins k/steps of the ramp after the ramp began; downwards, it ends just after k/steps of the ramp are left.
func (l layout) nextStep(w valued, t time.Time, value int64) time.Time {
	part := func(worth int64) time.Duration { // of the ramp, until the window is worth so much
		return time.Duration(mulDivUp(mulDivUp(uint64(worth), l.steps, uint64(w.worth)), uint64(l.ramp), l.steps))
	}
	switch {
	case t.Before(w.start) && w.worth > value:
		return w.start.Add(part(value+1) - l.ramp)
	case t.Before(w.start) || value == 0 || l.worth(w, t) != value:
		return time.Time{}
	case l.ramp == 0:
		return w.end
	default:
		return w.end.Add(l.ramp - part(value) + 1)
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
