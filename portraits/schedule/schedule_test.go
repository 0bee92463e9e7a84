package schedule

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/resource"
	"pgregory.net/rapid"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	zalando "github.com/kubetide/kubetide/api/zalando/v1"
	"github.com/kubetide/kubetide/internal/window"
	"github.com/kubetide/kubetide/portraits"
)

func at(text string) time.Time {
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		panic(err)
	}
	return at
}

func defaults(t testing.TB) window.Defaults {
	berlin, err := window.LoadZone("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	return window.Defaults{Window: 10 * time.Minute, Steps: 10, Zone: berlin}
}

func provider(average string) kapacity.ScheduleHorizontalPortraitProvider {
	p := kapacity.ScheduleHorizontalPortraitProvider{Name: "sale"}
	if average != "" {
		q := resource.MustParse(average)
		p.AverageValue = &q
	}
	return p
}

// once is worth value from 23:00 to 23:45 on 2026-11-10.
func once(value int64) zalando.Schedule {
	date := zalando.ScheduleDate("2026-11-10T23:00:00Z")
	return zalando.Schedule{Type: zalando.OneTimeSchedule, Date: &date, DurationMinutes: 45, Value: value}
}

func daily(value int64, zone, start, end string) zalando.Schedule {
	return zalando.Schedule{Type: zalando.RepeatingSchedule, Value: value, Period: &zalando.SchedulePeriod{StartTime: start, EndTime: end, Timezone: zone,
		Days: []zalando.ScheduleDay{zalando.MondaySchedule, zalando.TuesdaySchedule, zalando.WednesdaySchedule, zalando.ThursdaySchedule, zalando.FridaySchedule,
			zalando.SaturdaySchedule, zalando.SundaySchedule}}}
}

func spec(schedules ...zalando.Schedule) *zalando.ScalingScheduleSpec {
	return &zalando.ScalingScheduleSpec{Schedules: schedules}
}

func TestReplicasAreTheValueDividedByTheAverageRoundedUp(t *testing.T) {
	sharp := func(schedules ...zalando.Schedule) *zalando.ScalingScheduleSpec {
		s := spec(schedules...)
		s.ScalingWindowDurationMinutes = new(int64(0))
		return s
	}
	opinion := func(replicas int32, expires, worth string) portraits.Opinion {
		return portraits.Opinion{HasValue: true, Replicas: replicas, Expires: at(expires), Next: at(expires), Reason: `ScalingSchedule "sale" is worth ` + worth + " until " + expires}
	}
	nothing := func(next, until string) portraits.Opinion {
		o := portraits.Opinion{Reason: `ScalingSchedule "sale" is worth nothing` + until}
		if next != "" {
			o.Next = at(next)
		}
		return o
	}
	tests := map[string]struct {
		average string
		spec    *zalando.ScalingScheduleSpec
		now     string
		want    portraits.Opinion
	}{
		"without averageValue the value is the count":    {"", sharp(once(12)), "2026-11-10T23:00:00Z", opinion(12, "2026-11-10T23:45:00Z", "12")},
		"row 39: 10000 at 333 each":                      {"333", sharp(once(10000)), "2026-11-10T23:10:00Z", opinion(31, "2026-11-10T23:45:00Z", "10000")},
		"row 40: 1000 at 10 each":                        {"10", sharp(once(1000)), "2026-11-10T23:10:00Z", opinion(100, "2026-11-10T23:45:00Z", "1000")},
		"row 43: 1000 at 10500m each":                    {"10500m", sharp(once(1000)), "2026-11-10T23:10:00Z", opinion(96, "2026-11-10T23:45:00Z", "1000")},
		"a part of a replica is a replica":               {"1000", sharp(once(1)), "2026-11-10T23:10:00Z", opinion(1, "2026-11-10T23:45:00Z", "1")},
		"no more than there can be":                      {"", sharp(once(math.MaxInt64)), "2026-11-10T23:10:00Z", opinion(math.MaxInt32, "2026-11-10T23:45:00Z", "9223372036854775807")},
		"no more than there can be, with a tiny average": {"1m", sharp(once(math.MaxInt64)), "2026-11-10T23:10:00Z", opinion(math.MaxInt32, "2026-11-10T23:45:00Z", "9223372036854775807")},
		"before it there is no opinion":                  {"", sharp(once(12)), "2026-11-10T22:59:59Z", nothing("2026-11-10T23:00:00Z", " until 2026-11-10T23:00:00Z")},
		"nor after its end":                              {"", sharp(once(12)), "2026-11-10T23:45:00Z", nothing("", "")},
		"E1: a ramp that has just begun is no opinion":   {"10", spec(once(100)), "2026-11-10T22:50:59Z", nothing("2026-11-10T22:51:00Z", " until 2026-11-10T22:51:00Z")},
		"E1: the first step of the ramp":                 {"10", spec(once(100)), "2026-11-10T22:51:00Z", opinion(1, "2026-11-10T22:52:00Z", "10")},
		"E1: the last step of the ramp":                  {"10", spec(once(100)), "2026-11-10T22:59:59Z", opinion(9, "2026-11-10T23:00:00Z", "90")},
		"E2: half way down": {"10", spec(once(100)), "2026-11-10T23:50:00Z", portraits.Opinion{HasValue: true, Replicas: 5, Next: at("2026-11-10T23:50:00.000000001Z"),
			Expires: at("2026-11-10T23:50:01Z"), Reason: `ScalingSchedule "sale" is worth 50 until 2026-11-10T23:50:00Z`}},
		"E2: a ramp that is nearly over is no opinion": {"10", spec(once(100)), "2026-11-10T23:54:00.5Z", nothing("", "")},
		"the highest of the schedules counts":          {"", sharp(once(12), once(30), once(20)), "2026-11-10T23:10:00Z", opinion(30, "2026-11-10T23:45:00Z", "30")},
		"E12: over midnight":                           {"", sharp(daily(5, "UTC", "22:00", "02:00")), "2026-11-11T01:00:00Z", opinion(5, "2026-11-11T02:00:00Z", "5")},
		"E21: a start in the spring gap is moved":      {"", sharp(daily(5, "Europe/Berlin", "02:30", "05:00")), "2021-03-28T01:30:00Z", opinion(5, "2021-03-28T03:00:00Z", "5")},
		"E21: not before that":                         {"", sharp(daily(5, "Europe/Berlin", "02:30", "05:00")), "2021-03-28T01:29:59Z", nothing("2021-03-28T01:30:00Z", " until 2021-03-28T01:30:00Z")},
		"E22: in the autumn the second pass counts":    {"", sharp(daily(5, "Europe/Berlin", "02:30", "05:00")), "2021-10-31T00:35:00Z", nothing("2021-10-31T01:30:00Z", " until 2021-10-31T01:30:00Z")},
		"E23: the second pass":                         {"", sharp(daily(5, "Europe/Berlin", "02:30", "05:00")), "2021-10-31T01:35:00Z", opinion(5, "2021-10-31T04:00:00Z", "5")},
		"an empty zone is the default one":             {"", sharp(daily(5, "", "22:00", "23:00")), "2026-11-10T21:30:00Z", opinion(5, "2026-11-10T22:00:00Z", "5")},
		"a schedule of 0 is no opinion":                {"", sharp(once(0)), "2026-11-10T23:10:00Z", nothing("", "")},
		"a negative one neither":                       {"", sharp(once(-5)), "2026-11-10T23:10:00Z", nothing("", "")},
		"no schedules at all":                          {"", spec(), "2026-11-10T23:10:00Z", nothing("", "")},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := New(provider(tt.average), tt.spec, defaults(t)).Evaluate(at(tt.now))
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestAValueThatLastsDoesNotExpire(t *testing.T) {
	p := New(provider(""), spec(daily(5, "UTC", "00:00", "12:00"), daily(5, "UTC", "12:00", "00:00")), defaults(t))
	now := at("2026-11-10T10:00:00Z")
	first, second := p.Evaluate(now), p.Evaluate(now.Add(time.Minute))
	if first.Replicas != 5 || !first.Expires.IsZero() || first.Next.IsZero() || first.Reason != `ScalingSchedule "sale" is worth 5` {
		t.Errorf("first %+v", first)
	}
	if first.Reason != second.Reason || first.Expires != second.Expires {
		t.Errorf("what is written changes by itself: %+v, then %+v", first, second)
	}
}

func TestAScheduleThatCannotBeUsedIsAFailure(t *testing.T) {
	cluster, odd := provider(""), provider("")
	cluster.Kind, odd.Kind = zalando.ClusterScalingScheduleKind, "Deployment"
	bad := zalando.ScheduleDate("next friday")
	negative, tiny := provider(""), provider("")
	negative.AverageValue, tiny.AverageValue = resource.NewQuantity(-1, resource.DecimalSI), resource.NewQuantity(0, resource.DecimalSI)
	tests := map[string]struct {
		provider kapacity.ScheduleHorizontalPortraitProvider
		spec     *zalando.ScalingScheduleSpec
		is       error
		text     string
	}{
		"it does not exist":             {provider(""), nil, nil, `ScalingSchedule "sale": it does not exist`},
		"the cluster's does not exist":  {cluster, nil, nil, `ClusterScalingSchedule "sale": it does not exist`},
		"another kind":                  {odd, spec(), nil, `Deployment "sale": kind is neither ScalingSchedule nor ClusterScalingSchedule`},
		"a date that is none":           {provider(""), spec(zalando.Schedule{Type: zalando.OneTimeSchedule, Date: &bad}), window.ErrInvalidScheduleDate, `ScalingSchedule "sale": spec.schedules[0].date: `},
		"S5: no period":                 {provider(""), spec(once(5), zalando.Schedule{Type: zalando.RepeatingSchedule}), window.ErrInvalidSchedulePeriod, `spec.schedules[1].period: `},
		"S6: an unknown zone":           {provider(""), spec(daily(1, "Mars/Base", "10:00", "11:00")), window.ErrInvalidScheduleTimezone, "Mars/Base"},
		"an averageValue below nothing": {negative, spec(), nil, "averageValue: -1 is not above 0"},
		"an averageValue of nothing":    {tiny, spec(), nil, "averageValue: 0 is not above 0"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			o := New(tt.provider, tt.spec, defaults(t)).Evaluate(at("2026-11-10T23:00:00Z"))
			if o.HasValue || o.Err == nil || !strings.Contains(o.Err.Error(), tt.text) || tt.is != nil && !errors.Is(o.Err, tt.is) {
				t.Errorf("%+v, want %q", o, tt.text)
			}
		})
	}
}

func TestTheOpinionHoldsUntilNext(t *testing.T) {
	d := defaults(t)
	rapid.Check(t, func(t *rapid.T) {
		clock := rapid.SampledFrom([]string{"00:00", "01:30", "02:30", "12:00", "23:59"})
		var schedules []zalando.Schedule
		for range rapid.IntRange(0, 4).Draw(t, "schedules") {
			s := daily(rapid.Int64Range(-3, 50).Draw(t, "value"), rapid.SampledFrom([]string{"", "UTC", "America/New_York", "Australia/Lord_Howe"}).Draw(t, "zone"),
				clock.Draw(t, "start"), clock.Draw(t, "end"))
			s.DurationMinutes = rapid.IntRange(0, 2000).Draw(t, "duration")
			schedules = append(schedules, s)
		}
		p := New(kapacity.ScheduleHorizontalPortraitProvider{Name: "sale", AverageValue: resource.NewMilliQuantity(rapid.Int64Range(1, 9000).Draw(t, "average"), resource.DecimalSI)}, spec(schedules...), d)
		now := time.Unix(rapid.Int64Range(1600000000, 1900000000).Draw(t, "now"), 0)
		o := p.Evaluate(now)
		if value, share := p.schedules.Value(now), int64(p.share); o.HasValue != (value > 0) ||
			o.HasValue && (int64(o.Replicas)*share < value*1000 || (int64(o.Replicas)-1)*share >= value*1000) {
			t.Fatalf("a value of %d at %d m each is %+v", value, share, o)
		}
		if !o.Expires.IsZero() && (o.Expires.Before(o.Next) || o.Expires.Sub(o.Next) >= time.Second || o.Expires.Nanosecond() > 0) || o.HasValue && o.Replicas < 1 {
			t.Fatalf("%+v", o)
		}
		if o.Next.IsZero() {
			return
		}
		if !o.Next.After(now) {
			t.Fatalf("Next %v is not after %v", o.Next, now)
		}
		between := now.Add(time.Duration(rapid.Int64Range(0, int64(o.Next.Sub(now))-1).Draw(t, "between")))
		if again := p.Evaluate(between); again.HasValue != o.HasValue || again.Replicas != o.Replicas || !again.Expires.Equal(o.Expires) {
			t.Fatalf("at %v %+v, but at %v %+v", now, o, between, again)
		}
	})
}
