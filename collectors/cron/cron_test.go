package cron

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/kubetide/kubetide/collectors"
	"github.com/kubetide/kubetide/internal/sample"
	"github.com/kubetide/kubetide/internal/window"
)

func query(settings sample.Settings) (sample.Query, error) {
	return Source{}.Parse(collectors.Request{Kind: sample.External, Namespace: "shop", Metric: "hours", Interval: time.Minute, Settings: settings})
}

// office is open on weekdays from 8 to 20 in Berlin with 6, and from 12 to 14 with 9.
func office() sample.Settings {
	return sample.Settings{
		"type": "cron", "timezone": "Europe/Berlin",
		"start": "0 8 * * 1-5", "end": "0 20 * * 1-5", "value": "6",
		"start.1": "0 12 * * 1-5", "end.1": "0 14 * * 1-5", "value.1": "9",
	}
}

func TestValueFollowsTheWindows(t *testing.T) {
	withDefault := office()
	withDefault["default"] = "2"
	tests := map[string]struct {
		settings sample.Settings
		now      string
		milli    int64
		noData   bool
		next     string
	}{
		"inside one window":                  {office(), "2026-11-20T07:00:00Z", 6000, false, "2026-11-20T11:00:00Z"},
		"inside two, the higher one counts":  {office(), "2026-11-20T11:00:00Z", 9000, false, "2026-11-20T13:00:00Z"},
		"after the higher one":               {office(), "2026-11-20T13:00:00Z", 6000, false, "2026-11-20T19:00:00Z"},
		"outside, there is no data":          {office(), "2026-11-20T19:00:00Z", 0, true, "2026-11-23T07:00:00Z"},
		"outside, the default":               {withDefault, "2026-11-20T19:00:00Z", 2000, false, "2026-11-23T07:00:00Z"},
		"inside, not the default":            {withDefault, "2026-11-20T07:00:00Z", 6000, false, "2026-11-20T11:00:00Z"},
		"inside two, the first is higher":    {sample.Settings{"start": "0 8 * * *", "end": "0 20 * * *", "value": "9", "start.1": "0 9 * * *", "end.1": "0 20 * * *", "value.1": "6"}, "2026-11-20T10:00:00Z", 9000, false, "2026-11-20T20:00:00Z"},
		"UTC if no zone is named":            {sample.Settings{"start": "0 8 * * *", "end": "0 20 * * *", "value": "0"}, "2026-11-20T08:00:00Z", 0, false, "2026-11-20T20:00:00Z"},
		"a suffixed window has its own zone": {sample.Settings{"start.7": "0 8 * * *", "end.7": "0 20 * * *", "value.7": "1", "timezone.7": "Asia/Tokyo"}, "2026-11-19T23:00:00Z", 1000, false, "2026-11-20T11:00:00Z"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			q, err := query(tt.settings)
			if err != nil {
				t.Fatal(err)
			}
			now, err := time.Parse(time.RFC3339, tt.now)
			if err != nil {
				t.Fatal(err)
			}
			c, err := Source{Clock: clocktesting.NewFakePassiveClock(now)}.Open(q)
			if err != nil {
				t.Fatal(err)
			}
			points, err := c.Collect(t.Context())
			if tt.noData {
				if !errors.Is(err, sample.ErrNoData) || points != nil || !strings.Contains(err.Error(), tt.next) {
					t.Errorf("points %v, error %v, want no data until %s", points, err, tt.next)
				}
			} else if diff := cmp.Diff([]sample.Point{{Milli: tt.milli}}, points); diff != "" || err != nil {
				t.Errorf("error %v, points (-want +got):\n%s", err, diff)
			}
			if next := c.(collectors.Timed).NextChange(now).UTC().Format(time.RFC3339); next != tt.next {
				t.Errorf("next change %s, want %s", next, tt.next)
			}
		})
	}
}

func TestOnePlanIsOneQuery(t *testing.T) {
	a, errA := query(office())
	b, errB := query(sample.Settings{
		"start.3": "0 8 * * 1-5", "end.3": "0 20 * * 1-5", "value.3": "6000m", "timezone.3": "Europe/Berlin",
		"start.20": "0 12 * * 1-5", "end.20": "0 14 * * 1-5", "value.20": "9", "timezone.20": "Europe/Berlin",
	})
	if errA != nil || errB != nil || a != b {
		t.Errorf("queries differ:\n%+v (%v)\n%+v (%v)", a, errA, b, errB)
	}
}

func TestBadSettingsNameTheKey(t *testing.T) {
	with := func(key, value string) sample.Settings {
		s := office()
		s[key] = value
		return s
	}
	without := func(key string) sample.Settings {
		s := office()
		delete(s, key)
		return s
	}
	tests := map[string]struct {
		settings sample.Settings
		key      string
		is       error
	}{
		"nothing":                            {sample.Settings{"type": "cron"}, "start", nil},
		"a zone alone":                       {sample.Settings{"timezone": "UTC"}, "start", nil},
		"no start":                           {without("start"), "start", nil},
		"no end":                             {without("end.1"), "end.1", nil},
		"no value":                           {without("value.1"), "value.1", nil},
		"a zone for a window that is absent": {with("timezone.4", "UTC"), "start.4", nil},
		"six fields":                         {with("start.1", "0 0 12 * * 1-5"), "start.1", window.ErrInvalidCron},
		"an end that never comes":            {with("end", "0 0 31 2 *"), "end", window.ErrNeverFires},
		"an unknown zone":                    {with("timezone.1", "Mars/Base"), "timezone.1", window.ErrInvalidZone},
		"a negative value":                   {with("value", "-1"), "value", nil},
		"a bad default":                      {with("default", "many"), "default", nil},
		"a word as suffix":                   {with("start.x", "0 8 * * *"), "start.x", nil},
		"a suffix with a leading zero":       {with("start.01", "0 8 * * *"), "start.01", nil},
		"too many windows":                   {with("start.101", "0 8 * * *"), "start.101", nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := query(tt.settings)
			var key *collectors.KeyError
			if !errors.As(err, &key) || key.Key != tt.key || tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("error = %v, want one of key %s, %v", err, tt.key, tt.is)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add("0 8 * * 1-5", "0 20 * * 1-5", "Europe/Berlin", "6", ".1", "2")
	f.Add("TZ=", "@every 1h", "", "1e400", "", "")
	f.Fuzz(func(t *testing.T, start, end, zone, value, suffix, fallback string) {
		s := sample.Settings{"start" + suffix: start, "end" + suffix: end, "timezone": zone, "value" + suffix: value}
		if fallback != "" {
			s["default"] = fallback
		}
		q, err := query(s)
		if err != nil {
			return
		}
		c, err := Source{Clock: clocktesting.NewFakePassiveClock(time.Unix(1714521600, 0))}.Open(q)
		if err != nil {
			t.Fatalf("what Parse accepted, Open refuses: %v", err)
		}
		if points, err := c.Collect(t.Context()); (err == nil) == (points == nil) || len(points) > 0 && points[0].Milli < 0 {
			t.Errorf("points %v, error %v", points, err)
		}
		settings, err := sample.DecodeSettings(q.Settings)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := query(settings); err != nil || again != q {
			t.Errorf("the canonical form changes: %+v, %+v, %v", q, again, err)
		}
	})
}
