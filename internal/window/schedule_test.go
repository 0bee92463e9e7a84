package window

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	zalando "github.com/kubetide/kubetide/api/zalando/v1"
)

var (
	berlin = mustZone("Europe/Berlin")
	t0     = time.Date(2009, 11, 10, 23, 0, 0, 0, berlin) // a Tuesday
)

func mustZone(name string) *time.Location {
	loc, err := LoadZone(name)
	if err != nil {
		panic(err)
	}
	return loc
}

func once(offset time.Duration, minutes int, value int64) zalando.Schedule {
	return zalando.Schedule{Type: zalando.OneTimeSchedule, Date: date(t0.Add(offset).Format(time.RFC3339)), DurationMinutes: minutes, Value: value}
}

func until(offset time.Duration, s zalando.Schedule) zalando.Schedule {
	s.EndDate = date(t0.Add(offset).Format(time.RFC3339))
	return s
}

func date(text string) *zalando.ScheduleDate {
	d := zalando.ScheduleDate(text)
	return &d
}

// weekly is a Repeating schedule: days "Mon Tue", times "22:00" or "22:00-02:00".
func weekly(days, times, zone string, minutes int, value int64) zalando.Schedule {
	p := &zalando.SchedulePeriod{Timezone: zone}
	p.StartTime, p.EndTime, _ = strings.Cut(times, "-")
	for _, day := range strings.Fields(days) {
		p.Days = append(p.Days, zalando.ScheduleDay(day))
	}
	return zalando.Schedule{Type: zalando.RepeatingSchedule, DurationMinutes: minutes, Value: value, Period: p}
}

func spec(list ...zalando.Schedule) zalando.ScalingScheduleSpec {
	return zalando.ScalingScheduleSpec{Schedules: list}
}

const everyDay = "Mon Tue Wed Thu Fri Sat Sun"

func compile(t testing.TB, ramp time.Duration, steps int, list ...zalando.Schedule) Schedules {
	t.Helper()
	s, err := NewSchedules(spec(list...), Defaults{ramp, steps, berlin})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestScheduleValueAtT0(t *testing.T) {
	const h = time.Hour
	ten := int64(10)
	tests := map[string]struct {
		list   []zalando.Schedule
		window *int64 // minutes; nil: one minute by default
		steps  int    // 0: 10
		want   int64
	}{
		"1 starts now":                          {list: []zalando.Schedule{once(0, 15, 100)}, want: 100},
		"2 started":                             {list: []zalando.Schedule{once(-10*time.Minute, 15, 100)}, want: 100},
		"3 a later end wins over the duration":  {list: []zalando.Schedule{until(h, once(-2*h, 60, 100))}, want: 100},
		"4 a longer duration wins over the end": {list: []zalando.Schedule{until(-h, once(-2*h, 150, 100))}, want: 100},
		"5 no duration, an end":                 {list: []zalando.Schedule{until(h, once(-2*h, 0, 100))}, want: 100},
		"6 no duration, no end":                 {list: []zalando.Schedule{once(time.Minute, 0, 100)}, want: 0},
		"7 near the end":                        {list: []zalando.Schedule{once(-14*time.Minute-30*time.Second, 15, 100)}, want: 100},
		"8 on the up ramp":                      {list: []zalando.Schedule{once(20*time.Second, 45, 100)}, want: 60},
		"9 on the down ramp":                    {list: []zalando.Schedule{once(-45*time.Minute-20*time.Second, 45, 100)}, want: 60},
		"10 at the end of the up ramp":          {list: []zalando.Schedule{once(time.Second, 45, 100)}, want: 90},
		"11 with five steps":                    {list: []zalando.Schedule{once(time.Second, 45, 100)}, steps: 5, want: 80},
		"12 its own window, up":                 {list: []zalando.Schedule{once(30*time.Second, 45, 100)}, window: &ten, want: 90},
		"13 its own window, down":               {list: []zalando.Schedule{once(-45*time.Minute-30*time.Second, 45, 100)}, window: &ten, want: 90},
		"14 later":                              {list: []zalando.Schedule{once(20*time.Minute, 65, 100)}, want: 0},
		"15 over":                               {list: []zalando.Schedule{once(-20*time.Minute, 15, 100)}, want: 0},
		"18 one over, one active":               {list: []zalando.Schedule{once(-20*time.Minute, 15, 100), once(0, 15, 100)}, want: 100},
		"19 the highest wins":                   {list: []zalando.Schedule{once(0, 15, 100), once(0, 15, 120), once(0, 15, 110)}, want: 120},
		"20 repeating, starts now":              {list: []zalando.Schedule{weekly("Tue", "23:00", "", 15, 100)}, want: 100},
		"21 the end time wins":                  {list: []zalando.Schedule{weekly("Tue", "21:00-23:59", "", 60, 100)}, want: 100},
		"22 the duration wins":                  {list: []zalando.Schedule{weekly("Tue", "21:00-22:00", "", 150, 100)}, want: 100},
		"23 repeating, started":                 {list: []zalando.Schedule{weekly("Tue", "22:55", "", 15, 100)}, want: 100},
		"24 repeating, near its end":            {list: []zalando.Schedule{weekly("Tue", "22:50", "", 15, 100)}, want: 100},
		"25 another day":                        {list: []zalando.Schedule{weekly("Mon", "23:00", "", 15, 100)}, want: 0},
		"26 another zone":                       {list: []zalando.Schedule{weekly("Tue", "20:00", "America/Sao_Paulo", 15, 100)}, want: 100},
		"28 the weekday there":                  {list: []zalando.Schedule{weekly("Wed", "07:00", "Asia/Tokyo", 15, 100)}, want: 100},
		"29 the weekday here":                   {list: []zalando.Schedule{weekly("Tue", "07:00", "Asia/Tokyo", 15, 100)}, want: 0},
		"30 repeating, later":                   {list: []zalando.Schedule{weekly("Tue", "23:05", "", 15, 100)}, want: 0},
		"31 repeating, over":                    {list: []zalando.Schedule{weekly("Tue", "22:40", "", 15, 100)}, want: 0},
		"32 overlapping": {list: []zalando.Schedule{weekly("Tue", "22:30", "", 60, 110), weekly("Tue", "22:55", "", 6, 120),
			weekly("Tue", "22:50", "", 35, 100)}, want: 120},
		"33 overlapping, the highest is over": {list: []zalando.Schedule{weekly("Tue", "22:30", "", 60, 110), weekly("Tue", "22:55", "", 4, 120),
			weekly("Tue", "22:50", "", 35, 100)}, want: 110},
		"34 both types": {list: []zalando.Schedule{weekly("Tue", "22:30", "", 60, 110), weekly("Tue", "22:55", "", 4, 130),
			weekly("Tue", "22:50", "", 35, 100), once(0, 15, 90), once(24*h, 15, 140), once(0, 15, 110)}, want: 110},
		"a negative value never surfaces": {list: []zalando.Schedule{once(0, 15, -100)}, want: 0},
		"no schedule":                     {want: 0},
		"no day":                          {list: []zalando.Schedule{weekly("", "23:00", "", 15, 100)}, want: 0},
		"the largest value on a ramp":     {list: []zalando.Schedule{once(30*time.Second, 45, 1<<63-1)}, want: 1<<62 - 1},
		"an absurd duration":              {list: []zalando.Schedule{weekly("Thu", "12:00", "", 1<<63-1, 100)}, want: 100},
		"an absurd duration, once":        {list: []zalando.Schedule{once(-h, 1<<63-1, 100)}, want: 100},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if tt.steps == 0 {
				tt.steps = 10
			}
			s, err := NewSchedules(zalando.ScalingScheduleSpec{ScalingWindowDurationMinutes: tt.window, Schedules: tt.list}, Defaults{time.Minute, tt.steps, berlin})
			if err != nil {
				t.Fatal(err)
			}
			if got := s.Value(t0.UTC()); got != tt.want {
				t.Errorf("value = %d, want %d", got, tt.want)
			}
		})
	}
}

func TestScheduleValueOverTime(t *testing.T) {
	const tue, wed = "2009-11-10T", "2009-11-11T"
	tests := map[string]struct {
		schedule zalando.Schedule
		ramp     time.Duration
		steps    int // 0: 10
		values   map[string]int64
	}{
		"E1 up in steps": {once(0, 45, 100), 10 * time.Minute, 0, map[string]int64{
			tue + "22:50:00+01:00": 0, tue + "22:50:59+01:00": 0, tue + "22:51:00+01:00": 10, tue + "22:55:00+01:00": 50,
			tue + "22:59:00+01:00": 90, tue + "22:59:59+01:00": 90}},
		"E2 down in steps": {once(0, 45, 100), 10 * time.Minute, 0, map[string]int64{
			tue + "23:00:00+01:00": 100, tue + "23:44:59+01:00": 100, tue + "23:45:00+01:00": 100, tue + "23:45:01+01:00": 90,
			tue + "23:50:00+01:00": 50, tue + "23:54:00+01:00": 10, tue + "23:54:01+01:00": 0, tue + "23:55:00+01:00": 0}},
		"E3 no duration is a ramp up and down": {once(0, 0, 100), 10 * time.Minute, 0, map[string]int64{
			tue + "22:59:59+01:00": 90, tue + "23:00:00+01:00": 100}},
		"E4 no duration and no ramp": {once(0, 0, 100), 0, 0, map[string]int64{tue + "23:00:00+01:00": 0}},
		"E5 an end before the start": {until(-time.Hour, once(0, 0, 100)), 0, 0, map[string]int64{
			tue + "22:30:00+01:00": 0, tue + "23:00:00+01:00": 0}},
		"E6 steps are truncated": {once(0, 45, 7), 10 * time.Minute, 0, map[string]int64{
			tue + "22:55:00+01:00": 3, tue + "22:59:00+01:00": 6}},
		"E7 one step": {once(0, 45, 100), time.Minute, 1, map[string]int64{tue + "22:59:59+01:00": 0, tue + "23:00:00+01:00": 100}},
		"E8 three steps": {once(0, 45, 100), 10 * time.Minute, 3, map[string]int64{
			tue + "22:57:00+01:00": 66}},
		"E10 E11 runs over midnight": {weekly("Tue", "23:00", "", 120, 100), 0, 0, map[string]int64{
			tue + "23:30:00+01:00": 100, wed + "00:30:00+01:00": 100, wed + "01:00:00+01:00": 0, wed + "23:30:00+01:00": 0}},
		"E12 an end time on the next day": {weekly(everyDay, "22:00-02:00", "", 0, 100), 0, 0, map[string]int64{
			tue + "21:59:59+01:00": 0, tue + "23:00:00+01:00": 100, wed + "01:59:59+01:00": 100, wed + "02:00:00+01:00": 0}},
		"S2 equal times are a window without length": {weekly(everyDay, "22:00-22:00", "", 0, 100), 0, 0, map[string]int64{
			tue + "22:00:00+01:00": 0, tue + "23:00:00+01:00": 0}},
		"E13 E14 the up ramp crosses midnight": {weekly("Wed", "00:05", "", 60, 100), 10 * time.Minute, 0, map[string]int64{
			tue + "23:59:00+01:00": 40, wed + "00:01:00+01:00": 60}},
		"E15 E16 the down ramp crosses midnight": {weekly("Tue", "22:00-23:55", "", 0, 100), 10 * time.Minute, 0, map[string]int64{
			tue + "23:57:00+01:00": 80, wed + "00:01:00+01:00": 40}},
		"S4 days are those on which the window starts": {weekly("Tue", "22:00-02:00", "", 0, 100), 0, 0, map[string]int64{
			tue + "01:00:00+01:00": 0, wed + "01:00:00+01:00": 100}},
		"three days long": {weekly("Sun", "12:00", "", 3*24*60, 100), 0, 0, map[string]int64{
			"2009-11-08T11:59:59+01:00": 0, "2009-11-08T12:00:00+01:00": 100, wed + "11:59:59+01:00": 100, wed + "12:00:00+01:00": 0}},
		"a ramp of two weeks takes the nearer window": {weekly("Tue", "23:00", "", 60, 100), 14 * 24 * time.Hour, 14, map[string]int64{
			tue + "22:00:00+01:00": 92, "2009-11-14T11:00:00+01:00": 71, "2009-11-13T11:00:00+01:00": 78}},
		"a week and a day never closes": {weekly("Tue", "23:00", "", 8*24*60, 100), 0, 0, map[string]int64{
			tue + "22:59:59+01:00": 100, tue + "23:00:00+01:00": 100, "2009-11-16T00:00:00+01:00": 100}},
		"E21 a start in the skipped hour": {weekly(everyDay, "02:30", "", 15, 100), 0, 0, map[string]int64{
			"2021-03-28T01:59:59+01:00": 0, "2021-03-28T03:29:59+02:00": 0, "2021-03-28T03:35:00+02:00": 100}},
		"E22 E23 the second pass of the double hour": {weekly(everyDay, "02:30", "", 15, 100), 0, 0, map[string]int64{
			"2021-10-31T02:35:00+02:00": 0, "2021-10-31T02:35:00+01:00": 100, "2021-10-31T02:45:00+01:00": 0}},
		"west of UTC, skipped hour": {weekly(everyDay, "02:30", "America/New_York", 15, 100), 0, 0, map[string]int64{
			"2024-03-10T01:35:00-05:00": 0, "2024-03-10T03:29:59-04:00": 0, "2024-03-10T03:30:00-04:00": 100}},
		"west of UTC, double hour": {weekly(everyDay, "01:30", "America/New_York", 15, 100), 0, 0, map[string]int64{
			"2024-11-03T01:35:00-04:00": 0, "2024-11-03T01:35:00-05:00": 100}},
		"a skipped half hour": {weekly(everyDay, "02:15", "Australia/Lord_Howe", 10, 100), 0, 0, map[string]int64{
			"2024-10-06T02:44:59+11:00": 0, "2024-10-06T02:45:00+11:00": 100, "2024-10-06T02:55:00+11:00": 0}},
		"a double half hour": {weekly(everyDay, "01:45", "Australia/Lord_Howe", 10, 100), 0, 0, map[string]int64{
			"2024-04-07T01:50:00+11:00": 0, "2024-04-07T01:45:00+10:30": 100, "2024-04-07T01:55:00+10:30": 0}},
		"a midnight that does not exist": {weekly("Sun", "00:00", "America/Sao_Paulo", 30, 100), 0, 0, map[string]int64{
			"2018-11-03T23:59:59-03:00": 0, "2018-11-04T01:00:00-02:00": 100, "2018-11-04T01:30:00-02:00": 0}},
		"durations are elapsed time": {weekly("Sat", "23:00", "", 300, 100), 0, 0, map[string]int64{
			"2021-03-28T04:59:59+02:00": 100, "2021-03-28T05:00:00+02:00": 0}},
		"end times are wall-clock time, the second occurrence": {weekly("Sun", "01:00-02:30", "", 0, 100), 0, 0, map[string]int64{
			"2021-10-31T02:30:00+02:00": 100, "2021-10-31T02:29:59+01:00": 100, "2021-10-31T02:30:00+01:00": 0}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if tt.steps == 0 {
				tt.steps = 10
			}
			s := compile(t, tt.ramp, tt.steps, tt.schedule)
			for when, want := range tt.values {
				if got := s.Value(at(t, when).UTC()); got != want {
					t.Errorf("at %s: %d, want %d", when, got, want)
				}
			}
		})
	}
}

func TestScheduleErrorsNameTheFieldAndTheCause(t *testing.T) {
	minus := int64(-1)
	with := func(change func(*zalando.Schedule)) []zalando.Schedule {
		s := weekly("Tue", "22:00-23:00", "", 10, 100)
		change(&s)
		return []zalando.Schedule{once(0, 15, 1), s}
	}
	tests := map[string]struct {
		list   []zalando.Schedule
		window *int64
		kind   error
		text   string
	}{
		"16 a date in RFC 822": {with(func(s *zalando.Schedule) {
			*s = zalando.Schedule{Type: zalando.OneTimeSchedule, Date: date(t0.Format(time.RFC822))}
		}), nil, ErrInvalidScheduleDate, "spec.schedules[1].date: invalid schedule date: \"10 Nov 09 23:00 CET\""},
		"17 an end in RFC 822":     {with(func(s *zalando.Schedule) { *s = once(0, 1, 1); s.EndDate = date(t0.Format(time.RFC822)) }), nil, ErrInvalidScheduleDate, "spec.schedules[1].endDate: "},
		"27 a start in words":      {with(func(s *zalando.Schedule) { s.Period.StartTime = "15h25min" }), nil, ErrInvalidScheduleStartTime, "spec.schedules[1].period.startTime: "},
		"an end in words":          {with(func(s *zalando.Schedule) { s.Period.EndTime = "15h25min" }), nil, ErrInvalidScheduleEndTime, "spec.schedules[1].period.endTime: "},
		"no start":                 {with(func(s *zalando.Schedule) { s.Period.StartTime = "" }), nil, ErrInvalidScheduleStartTime, "spec.schedules[1].period.startTime: "},
		"E17 an unknown zone":      {with(func(s *zalando.Schedule) { s.Period.Timezone = "Mars/Base" }), nil, ErrInvalidScheduleTimezone, "spec.schedules[1].period.timezone: invalid schedule time zone: invalid time zone: unknown time zone Mars/Base"},
		"E18 no period":            {with(func(s *zalando.Schedule) { s.Period = nil }), nil, ErrInvalidSchedulePeriod, "spec.schedules[1].period: "},
		"E19 no date":              {with(func(s *zalando.Schedule) { *s = zalando.Schedule{Type: zalando.OneTimeSchedule} }), nil, ErrInvalidScheduleDate, "spec.schedules[1].date: "},
		"E20 a start in something": {with(func(s *zalando.Schedule) { s.Period.StartTime = "x23:59" }), nil, ErrInvalidScheduleStartTime, "HH:MM"},
		"S7 an hour too many":      {with(func(s *zalando.Schedule) { s.Period.StartTime = "24:00" }), nil, ErrInvalidScheduleStartTime, "from 00:00 to 23:59"},
		"S7 a line too many":       {with(func(s *zalando.Schedule) { s.Period.StartTime = "23:00\n" }), nil, ErrInvalidScheduleStartTime, "HH:MM"},
		"S10 a negative duration":  {with(func(s *zalando.Schedule) { s.DurationMinutes = -1 }), nil, ErrInvalidScheduleDuration, "spec.schedules[1].durationMinutes: "},
		"S10 a negative window":    {nil, &minus, ErrInvalidScheduleWindow, "spec.scalingWindowDurationMinutes: "},
		"an unknown day":           {with(func(s *zalando.Schedule) { s.Period.Days = []zalando.ScheduleDay{"Mon", "tue"} }), nil, ErrInvalidScheduleDays, "spec.schedules[1].period.days[1]: "},
		"an unknown type":          {with(func(s *zalando.Schedule) { s.Type = "Sometimes" }), nil, ErrInvalidScheduleType, "spec.schedules[1].type: "},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := NewSchedules(zalando.ScalingScheduleSpec{ScalingWindowDurationMinutes: tt.window, Schedules: tt.list}, Defaults{0, 10, berlin})
			if !errors.Is(err, tt.kind) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("error = %v, want %v with %q", err, tt.kind, tt.text)
			}
		})
	}
}

func TestActiveAndFullIncludeTheRamps(t *testing.T) {
	s := compile(t, 10*time.Minute, 10, once(0, 15, 100), once(time.Hour, 15, 70))
	for offset, want := range map[time.Duration]struct {
		active bool
		full   int64
		edge   time.Duration
	}{
		-10*time.Minute - 1: {false, 0, -10 * time.Minute},
		-10 * time.Minute:   {true, 100, 25 * time.Minute},
		25*time.Minute - 1:  {true, 100, 25 * time.Minute},
		25 * time.Minute:    {false, 0, 50 * time.Minute},
		50 * time.Minute:    {true, 70, 85 * time.Minute},
	} {
		now := t0.Add(offset)
		if active, full := s.Active(now), s.Full(now); active != want.active || full != want.full {
			t.Errorf("at T0%+v: active %v full %d, want %+v", offset, active, full, want)
		}
		if edge := s.NextEdge(now); !edge.Equal(t0.Add(want.edge)) {
			t.Errorf("at T0%+v: next edge %v, want T0%+v", offset, edge, want.edge)
		}
	}
	if edge := s.NextEdge(t0.Add(85 * time.Minute)); !edge.IsZero() {
		t.Errorf("after the last window the next edge is %v, want none", edge)
	}
}

func TestActiveWithoutRamp(t *testing.T) {
	for name, tt := range map[string]struct {
		list []zalando.Schedule
		want bool
	}{
		"37 one time, now":    {[]zalando.Schedule{once(0, 15, 100)}, true},
		"37 one time, later":  {[]zalando.Schedule{once(time.Hour, 15, 100)}, false},
		"38 repeating, now":   {[]zalando.Schedule{weekly("Tue", "23:00", "", 15, 100)}, true},
		"38 repeating, over":  {[]zalando.Schedule{weekly("Tue", "00:00", "", 15, 100)}, false},
		"E11 over midnight":   {[]zalando.Schedule{weekly("Mon", "23:30", "", 24*60, 100)}, true},
		"any of several":      {[]zalando.Schedule{once(time.Hour, 15, 100), once(0, 15, 100)}, true},
		"no schedule":         {nil, false},
		"worth less than one": {[]zalando.Schedule{once(0, 15, -1)}, true},
	} {
		t.Run(name, func(t *testing.T) {
			if got := compile(t, 0, 10, tt.list...).Active(t0); got != tt.want {
				t.Errorf("active = %v, want %v", got, tt.want)
			}
		})
	}
}

func TestNextFollowsEveryStep(t *testing.T) {
	s := compile(t, 10*time.Minute, 5, once(0, 45, 7))
	now := t0.Add(-time.Hour)
	for _, want := range []struct {
		at    time.Duration
		value int64
	}{
		{-8 * time.Minute, 1}, {-6 * time.Minute, 2}, {-4 * time.Minute, 4}, {-2 * time.Minute, 5}, {0, 7},
		{45*time.Minute + 1, 5}, {47*time.Minute + 1, 4}, {49*time.Minute + 1, 2}, {51*time.Minute + 1, 1}, {53*time.Minute + 1, 0},
	} {
		now = s.Next(now)
		if !now.Equal(t0.Add(want.at)) || s.Value(now) != want.value {
			t.Fatalf("next is T0%+v with %d, want T0%+v with %d", now.Sub(t0), s.Value(now), want.at, want.value)
		}
	}
	if next := s.Next(now); !next.IsZero() {
		t.Errorf("after the last step comes %v, want none", next)
	}
}

func drawSchedules(t *rapid.T, around time.Time) Schedules {
	var list []zalando.Schedule
	for i := range rapid.IntRange(0, 4).Draw(t, "schedules") {
		n := func(name string, lo, hi int) int { return rapid.IntRange(lo, hi).Draw(t, fmt.Sprint(name, i)) }
		minutes, value := n("minutes", 0, 200), int64(n("value", -3, 40))
		if n("long", 0, 9) == 0 {
			minutes = n("days", 1, 20) * 24 * 60
		}
		if n("once", 0, 1) == 1 {
			list = append(list, once(around.Sub(t0)+time.Duration(n("start", -3000, 3000))*time.Minute, minutes, value))
			continue
		}
		times := fmt.Sprintf("%02d:%02d", n("hour", 0, 23), n("minute", 0, 59))
		if n("ends", 0, 1) == 1 {
			times += fmt.Sprintf("-%02d:%02d", n("end hour", 0, 23), n("end minute", 0, 59))
		}
		days := rapid.SliceOfN(rapid.SampledFrom(strings.Fields(everyDay)), 0, 3).Draw(t, "days")
		list = append(list, weekly(strings.Join(days, " "), times, rapid.SampledFrom(zones).Draw(t, "zone"), minutes, value))
	}
	ramp := time.Duration(rapid.SampledFrom([]int{0, 0, 1, 7, 10, 60, 1440, 20000}).Draw(t, "ramp")) * time.Minute
	s, err := NewSchedules(spec(list...), Defaults{ramp, rapid.IntRange(1, 12).Draw(t, "steps"), berlin})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestValueMatchesTheWrittenRule compares with the definition, over more days and in floating point.
func TestValueMatchesTheWrittenRule(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := time.Unix(rapid.Int64Range(1262304000, 1893456000).Draw(t, "now"), 0)
		s := drawSchedules(t, now)
		var want, full int64
		var active bool
		for _, item := range s.items {
			spans := []span{item.once}
			if item.zone != nil {
				spans = nil
				y, m, d := now.In(item.zone).Date()
				for i := -60; i <= 60; i++ {
					day := time.Date(y, m, d+i, 0, 0, 0, 0, time.UTC)
					if item.days[day.Weekday()] {
						start := latest(day.Add(item.start), item.zone)
						spans = append(spans, span{start, later(latest(day.Add(item.end), item.zone), start.Add(item.duration))})
					}
				}
			}
			for _, w := range spans {
				from, to := w.start.Add(-s.ramp), w.end.Add(s.ramp)
				if now.Before(from) || !now.Before(to) {
					continue
				}
				active, full = true, max(full, item.value)
				elapsed := min(now.Sub(from), to.Sub(now), s.ramp)
				value := float64(item.value)
				if now.Before(w.start) || !now.Before(w.end) {
					value = float64(int64(float64(elapsed)*float64(s.steps)/float64(s.ramp))) * value / float64(s.steps)
				}
				want = max(want, int64(value+1e-9))
			}
		}
		if got := s.Value(now); got != want {
			t.Errorf("value at %v is %d, want %d", now, got, want)
		}
		if s.Active(now) != active || s.Full(now) != full {
			t.Errorf("at %v active %v full %d, want %v %d", now, s.Active(now), s.Full(now), active, full)
		}
	})
}

func TestNothingChangesBeforeNext(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := time.Unix(rapid.Int64Range(1262304000, 1893456000).Draw(t, "now"), 0)
		s := drawSchedules(t, now)
		check := func(what string, next time.Time, same func(time.Time) bool) {
			until := next
			if next.IsZero() {
				until = now.Add(40 * day)
			} else if !next.After(now) {
				t.Fatalf("next %s after %v is %v", what, now, next)
			}
			between := now.Add(time.Duration(rapid.Int64Range(0, int64(until.Sub(now))-1).Draw(t, what)))
			for _, at := range []time.Time{between, until.Add(-1)} {
				if !same(at) {
					t.Fatalf("%s changes between %v and %v", what, now, next)
				}
			}
			if !next.IsZero() && same(next) && next.Before(now.Add(horizon)) {
				t.Fatalf("%s does not change at %v", what, next)
			}
		}
		check("value", s.Next(now), func(at time.Time) bool { return s.Value(at) == s.Value(now) })
		check("edge", s.NextEdge(now), func(at time.Time) bool { return s.Active(at) == s.Active(now) && s.Full(at) == s.Full(now) })
	})
}

func TestLatestIsTheLastMinuteThatShowsTheTime(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		loc := mustZone(rapid.SampledFrom(zones).Draw(t, "zone"))
		near := time.Unix(rapid.Int64Range(1262304000, 1893456000).Draw(t, "near"), 0).In(loc)
		if _, change := near.ZoneBounds(); !change.IsZero() {
			near = change
		}
		wall := time.Unix(near.Unix()+offset(near), 0).UTC().Truncate(time.Minute).Add(time.Duration(rapid.IntRange(-200, 200).Draw(t, "minutes")) * time.Minute)
		got := latest(wall, loc)
		var last time.Time
		for m := time.Unix(wall.Unix(), 0).In(loc).Add(-26 * time.Hour); m.Before(wall.Add(26 * time.Hour)); m = m.Add(time.Minute) {
			if m.Unix()+offset(m) == wall.Unix() {
				last = m
			}
		}
		if last.IsZero() { // in a gap: where the clock would be had it not been put forward
			start, _ := got.ZoneBounds()
			last = time.Unix(wall.Unix()-offset(start.Add(-time.Second)), 0)
			if got.Unix()+offset(got) <= wall.Unix() {
				t.Fatalf("%v in %v moved backward to %v", wall, loc, got)
			}
		}
		if !got.Equal(last) {
			t.Fatalf("%v in %v is %v, want %v", wall, loc, got, last.In(loc))
		}
	})
}

func FuzzNewSchedules(f *testing.F) {
	f.Add("OneTime", int64(100), 15, "2009-11-10T23:00:00+01:00", "", "23:00", "02:00", "Tue", "Europe/Berlin", int64(10), int64(1257890400))
	f.Add("Repeating", int64(1<<63-1), 1<<63-1, "9999-12-31T23:59:59Z", "0000-01-01T00:00:00Z", "00:00", "", "Sun", "", int64(1<<62), int64(-62135596800))
	f.Fuzz(func(t *testing.T, kind string, value int64, minutes int, day, endDate, start, end, days, zone string, ramp, seconds int64) {
		in := weekly(days, start+"-"+end, zone, minutes, value)
		in.Type, in.Date, in.EndDate = zalando.ScheduleType(kind), date(day), date(endDate)
		if endDate == "" {
			in.EndDate = nil
		}
		s, err := NewSchedules(zalando.ScalingScheduleSpec{ScalingWindowDurationMinutes: &ramp, Schedules: []zalando.Schedule{in}}, Defaults{0, 10, berlin})
		if err != nil {
			return
		}
		now := time.Unix(seconds%253402300799, 0)
		if v := s.Value(now); v < 0 || v > max(0, value) {
			t.Errorf("value %d is outside 0 to %d", v, value)
		}
		if next := s.Next(now); !next.IsZero() && !next.After(now) {
			t.Errorf("next after %v is %v", now, next)
		}
	})
}

func BenchmarkSchedules(b *testing.B) {
	s := compile(b, 10*time.Minute, 10, weekly("Mon Tue Wed Thu Fri", "08:00-18:00", "", 0, 100), weekly("Sat", "10:00", "America/New_York", 120, 50))
	var many []zalando.Schedule
	for i := range 1000 { // the most that admission lets through, each hidden behind the first
		many = append(many, weekly(everyDay, fmt.Sprintf("%02d:%02d-%02d:%02d", i%24, i%60, (i+1)%24, i%60), "Europe/Berlin", 0, int64(max(1, 1000-i))))
	}
	for name, s := range map[string]Schedules{"two": s, "thousand": compile(b, 10*time.Minute, 10, many...)} {
		b.Run(name+"/Value", func(b *testing.B) {
			for b.Loop() {
				s.Value(t0)
			}
		})
		b.Run(name+"/Next", func(b *testing.B) {
			for b.Loop() {
				s.Next(t0)
			}
		})
	}
}
