package store

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	clocktesting "k8s.io/utils/clock/testing"
	"pgregory.net/rapid"

	"github.com/kubetide/kubetide/internal/sample"
)

func TestFallback(t *testing.T) {
	// A value is fresh for 40 s.
	const stale = 40*time.Second + 1
	both := sample.Fallback{Hold: 10 * time.Minute, Fixed: true, Milli: 50_000}
	hold, fixed := sample.Fallback{Hold: 10 * time.Minute}, sample.Fallback{Fixed: true, Milli: 50_000}
	boom, none := errors.New("connection refused"), sample.NoData("the queue is gone")
	type result struct {
		at    time.Duration
		milli int64 // a value unless err is set
		err   error
	}
	type served struct {
		state sample.State
		milli int64
		stage string
		since time.Duration
		until time.Duration // 0: none
		taken time.Duration
	}
	tests := map[string]struct {
		fallback sample.Fallback
		results  []result
		after    time.Duration
		want     served
		cause    string
	}{
		"a fresh value is the source's own":                   {both, []result{{0, 12_000, nil}}, 40 * time.Second, served{state: sample.Fresh, milli: 12_000}, ""},
		"a failure changes nothing while the value is fresh":  {both, []result{{0, 12_000, nil}, {15 * time.Second, 0, boom}}, 40 * time.Second, served{state: sample.Fresh, milli: 12_000}, "connection refused"},
		"a stale value is held":                               {both, []result{{0, 12_000, nil}}, stale, served{sample.Fresh, 12_000, "Held", 40 * time.Second, 640 * time.Second, 0}, "the last value is 40s old"},
		"failures meanwhile do not lengthen the hold":         {both, []result{{0, 12_000, nil}, {5 * time.Minute, 0, boom}, {10 * time.Minute, 0, boom}}, 640*time.Second - 1, served{sample.Fresh, 12_000, "Held", 40 * time.Second, 640 * time.Second, 0}, "connection refused"},
		"then the fixed value follows, taken when it is read": {both, []result{{0, 12_000, nil}, {10 * time.Minute, 0, boom}}, 640 * time.Second, served{sample.Fresh, 50_000, "Fixed", 40 * time.Second, 0, 640 * time.Second}, "connection refused"},
		"but never less than what is known":                   {both, []result{{0, 60_000, nil}}, time.Hour, served{sample.Fresh, 60_000, "Fixed", 40 * time.Second, 0, 0}, "old"},
		"a value ends it":                                     {both, []result{{0, 60_000, nil}, {time.Hour, 5000, nil}}, time.Hour, served{state: sample.Fresh, milli: 5000, taken: time.Hour}, ""},
		"a value that is lost again begins anew":              {both, []result{{0, 60_000, nil}, {time.Hour, 5000, nil}}, time.Hour + stale, served{sample.Fresh, 5000, "Held", time.Hour + 40*time.Second, time.Hour + 640*time.Second, time.Hour}, "old"},
		"no data loses the value at once":                     {both, []result{{0, 12_000, nil}, {15 * time.Second, 0, none}}, 16 * time.Second, served{sample.Fresh, 12_000, "Held", 15 * time.Second, 615 * time.Second, 0}, "the queue is gone"},
		"no data again does not lengthen the hold":            {both, []result{{0, 12_000, nil}, {15 * time.Second, 0, none}, {5 * time.Minute, 0, none}}, 615 * time.Second, served{sample.Fresh, 50_000, "Fixed", 15 * time.Second, 0, 615 * time.Second}, "the queue is gone"},
		"nor does a failure after it":                         {both, []result{{0, 60_000, nil}, {15 * time.Second, 0, none}, {5 * time.Minute, 0, boom}}, 615 * time.Second, served{sample.Fresh, 60_000, "Fixed", 15 * time.Second, 0, 0}, "connection refused"},
		"no data of a stale value finds it lost already":      {both, []result{{0, 12_000, nil}, {5 * time.Minute, 0, none}}, 5 * time.Minute, served{sample.Fresh, 12_000, "Held", 40 * time.Second, 640 * time.Second, 0}, "the queue is gone"},
		"without a fixed value nothing follows the hold":      {hold, []result{{0, 12_000, nil}}, 640 * time.Second, served{state: sample.Stale, stage: "Over", since: 40 * time.Second}, "its fallback-hold of 10m0s is over, and it has no fallback-value"},
		"nor after no data":                                   {hold, []result{{0, 12_000, nil}, {0, 0, none}}, 600 * time.Second, served{state: sample.Missing, stage: "Over"}, "the queue is gone; its fallback-hold of 10m0s is over"},
		"without a hold the fixed value is served at once":    {fixed, []result{{0, 12_000, nil}}, stale, served{sample.Fresh, 50_000, "Fixed", 40 * time.Second, 0, stale}, "old"},
		"before the first collection there is nothing":        {fixed, nil, time.Hour, served{state: sample.Missing}, "not been collected yet"},
		"a hold without a value waits from the first failure": {both, []result{{time.Minute, 0, boom}, {5 * time.Minute, 0, none}}, 6 * time.Minute, served{state: sample.Missing, stage: "Waiting", since: time.Minute, until: 11 * time.Minute}, "the queue is gone; its fallback-value is served in 5m0s"},
		"and is followed by the fixed value":                  {both, []result{{time.Minute, 0, boom}, {5 * time.Minute, 0, boom}}, 11 * time.Minute, served{sample.Fresh, 50_000, "Fixed", time.Minute, 0, 11 * time.Minute}, "connection refused"},
		"a hold of nothing is over at once":                   {hold, []result{{0, 0, boom}}, 0, served{state: sample.Missing, stage: "Over"}, "connection refused; its fallback-hold"},
		"a query without a fallback is as ever":               {sample.Fallback{}, []result{{0, 12_000, nil}}, stale, served{state: sample.Stale}, "the last value is 40s old"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			clock := clocktesting.NewFakePassiveClock(start)
			s := New(clock, 0)
			q := external("queue", "")
			q.Fallback = tt.fallback
			s.Add(q, true)
			for _, r := range tt.results {
				clock.SetTime(start.Add(r.at))
				in := sample.Result{Query: q, Taken: start.Add(r.at), Err: r.err}
				if r.err == nil {
					in.Points = []sample.Point{{Milli: r.milli}}
				}
				if !s.Insert(in) {
					t.Fatal("a result was refused")
				}
			}
			clock.SetTime(start.Add(tt.after))
			a := s.Answer(q)
			got := served{state: a.State}
			if len(a.Points) > 0 {
				got.milli, got.taken = a.Points[0].Milli, a.Taken.Sub(start)
			}
			if a.Instead != nil {
				got.stage, got.since = a.Instead.Stage.String(), a.Instead.Since.Sub(start)
				if !a.Instead.Until.IsZero() {
					got.until = a.Instead.Until.Sub(start)
				}
			}
			if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(served{})); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if tt.cause == "" && a.Cause != nil {
				t.Errorf("cause %v", a.Cause)
			} else if tt.cause != "" {
				wantError(t, a.Cause, tt.cause)
			}

			// The metrics APIs serve the same, by each way that leads to the series.
			for _, selector := range []string{"", "a!=b"} {
				list, err := s.External("shop", "queue", parse(t, selector))
				if tt.want.state != sample.Fresh {
					wantError(t, err, tt.cause)
				} else if diff := cmp.Diff([]int64{tt.want.milli}, values(list)); err != nil || diff != "" {
					t.Errorf("served (-want +got): %v\n%s", err, diff)
				}
			}
		})
	}
}

func TestASumTakesFallbacks(t *testing.T) {
	clock := clocktesting.NewFakePassiveClock(start)
	s := New(clock, 0)
	silent, well := external("queue", "q=a"), external("queue", "q=b")
	silent.Fallback = sample.Fallback{Fixed: true, Milli: 50_000}
	for _, q := range []sample.Query{silent, well} {
		s.Add(q, true)
	}
	s.Insert(sample.Result{Query: silent, Taken: start, Err: errors.New("connection refused")})
	s.Insert(sample.Result{Query: well, Taken: start, Points: []sample.Point{{Milli: 1000}}})
	list, err := s.External("shop", "queue", parse(t, ""))
	if diff := cmp.Diff([]int64{50_000, 1000}, values(list)); err != nil || diff != "" {
		t.Errorf("(-want +got): %v\n%s", err, diff)
	}
}

func TestAnObjectHasAFallback(t *testing.T) {
	clock := clocktesting.NewFakePassiveClock(start)
	s := New(clock, 0)
	q := external("rps", "")
	q.Kind, q.Object, q.Fallback = sample.Object, sample.ObjectRef{Kind: "Service", Name: "web"}, sample.Fallback{Fixed: true, Milli: 7000}
	s.Add(q, true)
	s.Insert(sample.Result{Query: q, Taken: start, Err: errors.New("connection refused")})
	got, err := s.Object("shop", "rps", q.Object, nil)
	if err != nil || got.Answer.Points[0].Milli != 7000 || !got.Answer.Instead.Serves() {
		t.Errorf("%+v, %v", got, err)
	}
}

// While a fallback is served, nothing lower than the last value of the source is, nothing lower than its fixed value after the
// hold, and a query without one differs in nothing but that.
func TestAFallbackIsNeverLowerThanWhatIsKnown(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		clock := clocktesting.NewFakePassiveClock(start)
		s := New(clock, 0)
		plain, q := external("plain", ""), external("queue", "")
		q.Fallback = sample.Fallback{Hold: time.Duration(rapid.IntRange(0, 100).Draw(t, "hold")) * time.Second,
			Fixed: rapid.Bool().Draw(t, "fixed"), Milli: rapid.Int64Range(0, 10).Draw(t, "value")}
		s.Add(plain, true)
		s.Add(q, true)
		var known, lost *int64 // the last value, and since when there is none, in seconds
		tried := false
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			clock.SetTime(clock.Now().Add(time.Duration(rapid.IntRange(0, 60).Draw(t, "seconds")) * time.Second))
			now := clock.Now()
			r := sample.Result{Taken: now}
			outcome := rapid.SampledFrom([]string{"value", "failure", "no data", "nothing"}).Draw(t, "outcome")
			switch outcome {
			case "value":
				r.Points = []sample.Point{{Milli: rapid.Int64Range(0, 10).Draw(t, "milli")}}
				known = &r.Points[0].Milli
			case "failure":
				r.Err = errors.New("connection refused")
			case "no data":
				r.Err = sample.ErrNoData
			}
			if outcome != "nothing" {
				tried = true
				for _, to := range []sample.Query{plain, q} {
					r.Query = to
					s.Insert(r)
				}
			}
			without, with := s.Answer(plain), s.Answer(q)
			second := int64(now.Sub(start) / time.Second)
			if without.State == sample.Fresh {
				lost = nil
				if with.State != sample.Fresh || with.Instead != nil || with.Points[0].Milli != without.Points[0].Milli {
					t.Fatalf("a value of the source's own is served as %+v", with)
				}
				continue
			}
			if lost == nil && tried {
				lost = &second // or a little earlier
			}
			if with.State != sample.Fresh {
				if q.Fallback.Fixed && lost != nil && time.Duration(second-*lost)*time.Second >= q.Fallback.Hold {
					t.Fatalf("lost at second %d, nothing is served at %d: %v", *lost, second, with.Cause)
				}
				continue
			}
			got := with.Points[0].Milli
			if known != nil && got < *known || with.Instead.Stage == sample.Fixed && got < q.Fallback.Milli {
				t.Fatalf("%d is served: %+v", got, with.Instead)
			}
			if known == nil && with.Instead.Stage == sample.Held {
				t.Fatal("nothing is held")
			}
		}
	})
}

func BenchmarkAnswerOfAFallback(b *testing.B) {
	clock := clocktesting.NewFakePassiveClock(start)
	s := New(clock, 0)
	q := external("queue", "")
	q.Fallback = sample.Fallback{Fixed: true, Milli: 50_000}
	s.Add(q, true)
	s.Insert(sample.Result{Query: q, Taken: start, Err: errors.New("connection refused")})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.External("shop", "queue", nil); err != nil {
			b.Fatal(err)
		}
	}
}
