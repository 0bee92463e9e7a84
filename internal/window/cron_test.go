package window

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func at(t testing.TB, text string) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func TestCronRuleIsOpenFromItsStartToItsEnd(t *testing.T) {
	tests := map[string]struct {
		start, end, zone string
		now              string
		until            string // empty: closed
	}{
		"W1 the start is inclusive":                       {"0 * * * *", "10 * * * *", "UTC", "2024-05-01T00:00:00Z", "2024-05-01T00:10:00Z"},
		"W2 open until the last second":                   {"0 * * * *", "10 * * * *", "UTC", "2024-05-01T00:09:59Z", "2024-05-01T00:10:00Z"},
		"W3 the end is exclusive":                         {"0 * * * *", "10 * * * *", "UTC", "2024-05-01T00:10:00Z", ""},
		"W4 overnight, before midnight":                   {"0 22 * * *", "0 6 * * *", "UTC", "2024-05-01T23:00:00Z", "2024-05-02T06:00:00Z"},
		"W5 overnight, after midnight":                    {"0 22 * * *", "0 6 * * *", "UTC", "2024-05-01T05:00:00Z", "2024-05-01T06:00:00Z"},
		"W6 overnight, in the day":                        {"0 22 * * *", "0 6 * * *", "UTC", "2024-05-01T07:00:00Z", ""},
		"W7 in its own zone":                              {"0 9 * * *", "0 17 * * *", "Asia/Shanghai", "2024-05-01T02:00:00Z", "2024-05-01T09:00:00Z"},
		"W8 in its own zone, closed":                      {"0 9 * * *", "0 17 * * *", "Asia/Shanghai", "2024-05-01T10:00:00Z", ""},
		"W9 start equal to end, at any other time":        {"0 9 * * *", "0 9 * * *", "UTC", "2024-05-01T15:30:00Z", ""},
		"W9 start equal to end":                           {"0 9 * * *", "0 9 * * *", "UTC", "2024-05-01T09:00:00Z", ""},
		"W10 the next start always comes sooner":          {"* * * * *", "0 0 * * *", "UTC", "2024-05-01T10:00:00Z", ""},
		"W11 starts on many days, ends on one":            {"0 9 * * 1-5", "0 17 * * 5", "UTC", "2024-05-01T03:00:00Z", ""},
		"W11 open on that one day":                        {"0 9 * * 1-5", "0 17 * * 5", "UTC", "2024-05-03T09:00:00Z", "2024-05-03T17:00:00Z"},
		"W12 over days":                                   {"0 9 * * 1", "0 17 * * 5", "UTC", "2024-05-01T03:00:00Z", "2024-05-03T17:00:00Z"},
		"W13 the start that has an end":                   {"*/30 * * * *", "10 * * * *", "UTC", "2024-05-01T00:05:00Z", "2024-05-01T00:10:00Z"},
		"W14 the start that has none":                     {"*/30 * * * *", "10 * * * *", "UTC", "2024-05-01T00:35:00Z", ""},
		"of several starts the last one before the end":   {"*/20 * * * *", "50 * * * *", "UTC", "2024-05-01T00:40:00Z", "2024-05-01T00:50:00Z"},
		"and none before it":                              {"*/20 * * * *", "50 * * * *", "UTC", "2024-05-01T00:39:59Z", ""},
		"a start at each end, before one":                 {"*/5 * * * *", "0 * * * *", "UTC", "2024-05-01T00:59:59Z", ""},
		"a start at each end, at one":                     {"*/5 * * * *", "0 * * * *", "UTC", "2024-05-01T01:00:00Z", ""},
		"W15 a start in the spring gap":                   {"30 2 * * *", "0 4 * * *", "America/New_York", "2024-03-10T07:30:00Z", "2024-03-10T08:00:00Z"},
		"W15 but not before it":                           {"30 2 * * *", "0 4 * * *", "America/New_York", "2024-03-10T07:29:59Z", ""},
		"W15 nor since the day before":                    {"30 2 * * *", "0 4 * * *", "America/New_York", "2024-03-09T20:00:00Z", ""},
		"W16 first pass of a repeated hour":               {"30 1 * * *", "45 1 * * *", "America/New_York", "2024-11-03T05:35:00Z", "2024-11-03T05:45:00Z"},
		"W17 second pass of a repeated hour":              {"30 1 * * *", "45 1 * * *", "America/New_York", "2024-11-03T06:35:00Z", "2024-11-03T06:45:00Z"},
		"W16 closed between the passes":                   {"30 1 * * *", "45 1 * * *", "America/New_York", "2024-11-03T05:45:00Z", ""},
		"W20 mixed zones":                                 {"CRON_TZ=Asia/Tokyo 0 9 * * *", "0 17 * * *", "UTC", "2024-05-01T02:00:00Z", "2024-05-01T17:00:00Z"},
		"row 1: a start each day, an end each minute":     {"0 0 * * ?", "* * * * ?", "UTC", "2024-05-01T10:00:30Z", "2024-05-01T10:01:00Z"},
		"row 1: also in the first second of the day":      {"0 0 * * ?", "* * * * ?", "UTC", "2024-05-02T00:00:00Z", "2024-05-02T00:01:00Z"},
		"row 1: but not when the next start is as near":   {"0 0 * * ?", "* * * * ?", "UTC", "2024-05-01T23:59:30Z", ""},
		"row 2: the same start and end":                   {"0 0 * * ?", "0 0 * * ?", "UTC", "2024-05-01T10:00:30Z", ""},
		"an empty zone is UTC":                            {"0 9 * * *", "0 17 * * *", "", "2024-05-01T09:00:00Z", "2024-05-01T17:00:00Z"},
		"an end in the gap is moved forward":              {"0 1 * * *", "30 2 * * *", "Europe/Berlin", "2021-03-28T01:29:00Z", "2021-03-28T01:30:00Z"},
		"a midnight that does not exist":                  {"0 0 * * *", "0 2 * * *", "America/Sao_Paulo", "2018-11-04T03:00:00Z", "2018-11-04T04:00:00Z"},
		"a half-hour change does not swallow the day":     {"0 5 * * *", "0 6 * * *", "Australia/Lord_Howe", "2024-10-05T18:00:00Z", "2024-10-05T19:00:00Z"},
		"a leap day, over a century without one":          {"0 0 29 2 *", "0 0 1 3 *", "UTC", "2104-02-29T12:00:00Z", "2104-03-01T00:00:00Z"},
		"ends that outnumber starts leave it open":        {"0 9 * * 1", "0 17 * * *", "UTC", "2024-05-01T03:00:00Z", "2024-05-01T17:00:00Z"},
		"periods count from the epoch":                    {"@every 2h", "@every 1h", "UTC", "2024-05-01T00:30:00Z", "2024-05-01T01:00:00Z"},
		"periods, before the epoch":                       {"@every 2h", "@every 1h", "UTC", "1969-12-31T22:30:00Z", "1969-12-31T23:00:00Z"},
		"periods count from the epoch, second half":       {"@every 2h", "@every 1h", "UTC", "2024-05-01T01:00:00Z", ""},
		"descriptors and question marks":                  {"@daily", "0 6 ? * *", "UTC", "2024-05-01T05:00:00Z", "2024-05-01T06:00:00Z"},
		"names of months and days":                        {"0 9 * jan MON", "0 17 * JAN mon", "UTC", "2024-01-01T10:00:00Z", "2024-01-01T17:00:00Z"},
		"weekday or impossible date, as cron has it":      {"0 9 31 2 1", "0 17 * * *", "UTC", "2024-02-05T10:00:00Z", "2024-02-05T17:00:00Z"},
		"a window from the first pass to the second pass": {"0 1 * * *", "30 2 * * *", "Europe/Berlin", "2021-10-31T00:45:00Z", "2021-10-31T01:30:00Z"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r, err := ParseRule(tt.start, tt.end, tt.zone)
			if err != nil {
				t.Fatal(err)
			}
			open, until := r.Active(at(t, tt.now))
			if open != (tt.until != "") {
				t.Fatalf("open = %v until %v, want until %q", open, until, tt.until)
			}
			if open && !until.Equal(at(t, tt.until)) {
				t.Errorf("until = %v, want %v", until.UTC(), tt.until)
			}
			if next := r.Next(at(t, tt.now)); open && !next.Equal(until) {
				t.Errorf("Next = %v, want the end %v", next, until)
			}
		})
	}
}

func TestNextWakesAtStartsAndEnds(t *testing.T) {
	r, err := ParseRule("0 22 * * *", "0 6 * * *", "Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	now := at(t, "2026-10-24T12:00:00Z")
	for _, want := range []string{"2026-10-24T20:00:00Z", "2026-10-25T05:00:00Z", "2026-10-25T21:00:00Z"} {
		now = r.Next(now)
		if !now.Equal(at(t, want)) {
			t.Fatalf("next = %v, want %s", now.UTC(), want)
		}
	}
}

func TestALeapDayIsFoundOverACenturyWithoutOne(t *testing.T) {
	r, err := ParseRule("0 0 29 2 *", "0 0 29 2 *", "UTC")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := r.Next(at(t, "2096-02-29T00:00:00Z")), at(t, "2104-02-29T00:00:00Z"); !got.Equal(want) {
		t.Errorf("next = %v, want %v", got, want)
	}
}

func TestCronRuleErrorsNameTheFieldAndTheCause(t *testing.T) {
	tests := map[string]struct {
		start, end, zone string
		kind             error
		text             string
	}{
		"W18 impossible start":        {"0 0 31 2 *", "0 6 * * *", "UTC", ErrNeverFires, `start: cron expression never fires: "0 0 31 2 *"`},
		"W19 impossible end":          {"0 5 * * *", "0 0 31 2 *", "UTC", ErrNeverFires, `end: cron expression never fires`},
		"the 31st of short months":    {"0 0 31 2,4,6,9,11 *", "0 6 * * *", "UTC", ErrNeverFires, "start: "},
		"W21 six fields":              {"0 0 * * * *", "0 6 * * *", "UTC", ErrInvalidCron, "expected exactly 5 fields, found 6"},
		"W22 unknown zone":            {"0 5 * * *", "0 6 * * *", "Mars/Base", ErrInvalidZone, "timeZone: invalid time zone: unknown time zone Mars/Base"},
		"the machine's zone":          {"0 5 * * *", "0 6 * * *", "Local", ErrInvalidZone, "timeZone: "},
		"the machine's zone, inside":  {"TZ=Local 0 5 * * *", "0 6 * * *", "UTC", ErrInvalidZone, "start: "},
		"an unknown zone inside":      {"0 5 * * *", "TZ=Mars/Base 0 6 * * *", "UTC", ErrInvalidZone, "end: "},
		"a zone and nothing else":     {"TZ=UTC", "0 6 * * *", "UTC", ErrInvalidCron, "start: "},
		"two zones":                   {"TZ=UTC TZ=UTC 0 6 * * *", "0 6 * * *", "UTC", ErrInvalidCron, "two zones"},
		"an empty expression":         {"", "0 6 * * *", "UTC", ErrInvalidCron, "start: "},
		"an empty field":              {", 5 * * *", "0 6 * * *", "UTC", ErrInvalidCron, "a field is empty"},
		"a number out of range":       {"60 5 * * *", "0 6 * * *", "UTC", ErrInvalidCron, "above maximum"},
		"a period of a second":        {"@every 1s", "0 6 * * *", "UTC", ErrInvalidCron, "shorter than 1m0s"},
		"a negative period":           {"@every -1h", "0 6 * * *", "UTC", ErrInvalidCron, "shorter than"},
		"an expression without bound": {strings.Repeat("1,", 1000) + "1 5 * * *", "0 6 * * *", "UTC", ErrInvalidCron, "longer than"},
		"reboot has no time":          {"@reboot", "0 6 * * *", "UTC", ErrInvalidCron, "unrecognized descriptor"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := ParseRule(tt.start, tt.end, tt.zone)
			if !errors.Is(err, tt.kind) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("error = %v, want %v with %q", err, tt.kind, tt.text)
			}
		})
	}
}

// zones are west and east of UTC, with changes of an hour, half an hour and a day, at midnight, and none.
var zones = []string{
	"UTC", "Europe/Berlin", "America/New_York", "America/Los_Angeles", "Asia/Tokyo", "Asia/Kolkata", "Australia/Lord_Howe",
	"America/Sao_Paulo", "America/St_Johns", "Africa/Cairo", "Africa/Casablanca", "America/Havana", "Pacific/Apia", "Pacific/Chatham",
	"America/Nuuk", "Europe/Dublin", "Asia/Beirut", "America/Santiago",
}

// TestNextFireIsTheFirst compares with a search that looks at every minute: a minute fires if the wall clock shows a time
// that matches, or if it is as far behind a gap as a matching time lies in it.
func TestNextFireIsTheFirst(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		zone := rapid.SampledFrom(zones).Draw(t, "zone")
		loc, err := LoadZone(zone)
		if err != nil {
			t.Fatal(err)
		}
		now := time.Unix(rapid.Int64Range(1262304000, 1893456000).Draw(t, "now"), 0).In(loc)
		if _, change := now.ZoneBounds(); !change.IsZero() && rapid.Bool().Draw(t, "near a change") {
			now = change.Add(time.Duration(rapid.IntRange(-40, 40).Draw(t, "quarters")) * 15 * time.Minute)
		}
		field := func(name string, texts ...string) string { return rapid.SampledFrom(texts).Draw(t, name) }
		expr := field("minute", "0", "30", "15", "*/10", "59", "*") + " " + field("hour", "0", "1", "2", "3", "23", "*/5", "*", "1-3") +
			" " + field("dom", "*", "*", "1", "15", "29-31") + " " + field("month", "*", "*", "3", "10,11") + " " + field("dow", "*", "*", "0", "6")
		g, err := parseTrigger(expr, loc)
		if err != nil {
			t.Fatal(err)
		}
		got := g.next(now)
		if !got.After(now) {
			t.Fatalf("next of %q after %v is %v", expr, now, got)
		}
		matches := func(wall time.Time) bool { return g.fields.Next(wall.Add(-time.Second)).Equal(wall) }
		fires := func(at time.Time) bool {
			at = at.In(loc)
			if matches(time.Unix(at.Unix()+offset(at), 0).UTC()) {
				return true
			}
			start, _ := at.ZoneBounds()
			if start.IsZero() {
				return false
			}
			before := offset(start.Add(-time.Second))
			return at.Unix()-start.Unix() < offset(start)-before && matches(time.Unix(at.Unix()+before, 0).UTC())
		}
		limit := now.Add(4 * 24 * time.Hour)
		for m := now.Truncate(time.Minute).Add(time.Minute); m.Before(limit); m = m.Add(time.Minute) {
			if fires(m) {
				if !got.Equal(m) {
					t.Fatalf("next of %q in %s after %v is %v, want %v", expr, zone, now, got, m.In(loc))
				}
				return
			}
		}
		if got.Before(limit) {
			t.Fatalf("next of %q in %s after %v is %v, where it does not match", expr, zone, now, got)
		}
	})
}

func TestRuleDoesNotChangeBeforeNext(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := func(name string) string {
			return rapid.SampledFrom([]string{"0 2 * * *", "30 2 * * *", "*/20 * * * *", "0 9 * * 1-5", "@every 90m", "45 1 * * 0", "0 0 1 * *"}).Draw(t, name)
		}
		r, err := ParseRule(text("start"), text("end"), rapid.SampledFrom(zones).Draw(t, "zone"))
		if err != nil {
			t.Fatal(err)
		}
		now := time.Unix(rapid.Int64Range(1262304000, 1893456000).Draw(t, "now"), 0)
		open, until := r.Active(now)
		next := r.Next(now)
		if !next.After(now) || open && !next.Equal(until) {
			t.Fatalf("at %v open=%v until %v, next %v", now, open, until, next)
		}
		between := now.Add(time.Duration(rapid.Int64Range(0, int64(next.Sub(now))-1).Draw(t, "between")))
		if o, u := r.Active(between); o != open || !u.Equal(until) {
			t.Fatalf("at %v open=%v until %v, but at %v before %v open=%v until %v", now, open, until, between, next, o, u)
		}
	})
}

func FuzzParseRule(f *testing.F) {
	for _, seed := range []string{"0 9 * * 1-5", "TZ=UTC", "TZ=", "CRON_TZ=Asia/Tokyo 0 9 * * *", "@every 1h", "@hourly", ", , , , ,", "0 0 29 2 *", "*/7 1-5/2 L * ?", "@every 9999999h"} {
		f.Add(seed, "0 17 * * *", "Europe/Berlin", int64(1714521600))
		f.Add("0 0 * * *", seed, "", int64(-62135596800))
	}
	f.Fuzz(func(t *testing.T, start, end, zone string, seconds int64) {
		r, err := ParseRule(start, end, zone)
		if err != nil {
			return
		}
		now := time.Unix(seconds%253402300799, 0)
		if next := r.Next(now); !next.After(now) {
			t.Errorf("rule %q to %q in %q: next after %v is %v", start, end, zone, now, next)
		}
		if open, until := r.Active(now); open && !until.After(now) {
			t.Errorf("rule %q to %q in %q is open at %v until %v", start, end, zone, now, until)
		}
	})
}

func BenchmarkRuleActive(b *testing.B) {
	for name, r := range map[string][3]string{
		"daily":    {"0 9 * * 1-5", "0 17 * * 1-5", "Europe/Berlin"},
		"leap day": {"0 0 29 2 *", "0 0 1 3 *", "Europe/Berlin"},
	} {
		b.Run(name, func(b *testing.B) {
			rule, err := ParseRule(r[0], r[1], r[2])
			if err != nil {
				b.Fatal(err)
			}
			now := time.Unix(1714521600+rand.Int64N(1000), 0)
			for b.Loop() {
				rule.Active(now)
			}
		})
	}
}
