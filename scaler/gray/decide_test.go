package gray

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// down10 is a world at 10 with the strategy of case A, asked for 2 at second 10.
func down10(t *testing.T) *world {
	w := settled(t, 10)
	w.in.Down = strategy(Cutoff, 50, 30, 60)
	w.want(10)
	w.settle()
	w.now = at(10)
	w.want(2)
	return w
}

func (w *world) expect(log string) {
	w.t.Helper()
	if diff := cmp.Diff(log, strings.Join(w.log, ", ")); diff != "" {
		w.t.Errorf("profiles written (-want +got):\n%s\nlast: %+v", diff, w.last)
	}
}

func TestAStepCountsFromItsApplication(t *testing.T) {
	w := down10(t)
	w.delay = 7 * time.Second
	w.settle()
	w.until(at(20))
	if held := w.load().Held; len(held) != 1 || !held[0].Since.Equal(at(17)) {
		t.Errorf("held %v, want the four since 17", held)
	}
	w.until(at(1000))
	w.expect("10: 6/4/0, 47: 2/8/0, 114: 2/0/0")
}

func TestTheObservationBeginsWhenNoCutPodIsReady(t *testing.T) {
	w := down10(t)
	w.readyLag = 5 * time.Second
	w.settle()
	w.until(at(1000))
	w.expect("10: 6/4/0, 40: 2/8/0, 105: 2/0/0")
}

func TestACutPodThatIsReadyAgainBeginsTheObservationAnew(t *testing.T) {
	w := down10(t)
	w.settle()
	w.until(at(70))
	w.unready = at(90)
	w.settle()
	w.until(at(1000))
	w.expect("10: 6/4/0, 40: 2/8/0, 150: 2/0/0")
}

func TestARestartTakesTheTimeOfApplicationFromTheCondition(t *testing.T) {
	cases := map[string]struct {
		appliedAt time.Time
		next      float64
	}{
		"applied while nobody looked":                            {at(12), 42},
		"whole seconds are older than the order":                 {at(9), 40},
		"the condition stayed True all the time":                 {at(-100), 40},
		"the time is not known":                                  {time.Time{}, 60},
		"a clock that goes ahead":                                {at(99), 60},
		"the condition's time in another zone, with nanoseconds": {at(12).Add(999).In(time.FixedZone("", 3600)), 42},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			w := down10(t)
			w.call()
			w.actual, w.now = *w.in.Profile, at(30)
			w.in.Observed.Applied, w.in.Observed.AppliedAt = true, c.appliedAt
			if d := w.call(); !d.Next.Equal(at(c.next)) || d.Write {
				t.Errorf("next step at %g, want %g (write %v)", seconds(d.Next), c.next, d.Write)
			}
		})
	}
}

func TestAStepThatIsNotAppliedStalls(t *testing.T) {
	for name, c := range map[string]struct {
		interval float64
		after    time.Duration
	}{
		"five minutes at least":  {30, 5 * time.Minute},
		"five intervals":         {120, 10 * time.Minute},
		"an interval of decades": {math.MaxInt32, math.MaxInt64},
	} {
		t.Run(name, func(t *testing.T) {
			w := down10(t)
			w.in.Down.Interval = time.Duration(c.interval) * time.Second
			w.delay = -1
			w.settle()
			if w.last.Stalled || !w.last.Next.Equal(at(10).Add(c.after)) {
				t.Fatalf("at once: stalled %v, next %s", w.last.Stalled, w.last.Next)
			}
			if c.after == math.MaxInt64 {
				return
			}
			w.until(at(10).Add(c.after - time.Millisecond))
			if w.last.Stalled {
				t.Error("stalled too early")
			}
			w.until(at(10).Add(c.after))
			if want := "the gray step to online 6, cutoff 4, standby 0 is not applied since 2026-01-01T00:00:10Z; nothing is scaled down until it is"; w.last.StalledReason != want || !w.last.Stalled {
				t.Errorf("stalled %v: %q, want %q", w.last.Stalled, w.last.StalledReason, want)
			}
			w.until(at(10000))
			w.expect("10: 6/4/0")
			w.applyAt = w.now
			w.settle()
			if w.last.Stalled {
				t.Error("stalled after it was applied")
			}
			w.delay = 0
			w.until(at(20000))
			if got := *w.in.Profile; got != (Profile{Online: 2}) {
				t.Errorf("ends at %s", got)
			}
		})
	}
}

func TestCutPodsThatStayReadyStall(t *testing.T) {
	w := down10(t)
	w.readyLag = 1000 * time.Second
	w.settle()
	w.until(at(339))
	if w.last.Stalled {
		t.Error("stalled too early")
	}
	w.until(at(340))
	if !w.last.Stalled || !strings.HasPrefix(w.last.StalledReason, "the last gray step is not finished, 1 cut pods are Ready, since 2026-01-01T00:00:40Z") {
		t.Errorf("stalled %v: %s", w.last.Stalled, w.last.StalledReason)
	}
	w.until(at(1039))
	w.expect("10: 6/4/0, 40: 2/8/0")
}

func TestAnUnappliedStepIsNotTakenForDone(t *testing.T) {
	cases := map[string]struct {
		online, target int32
		up             *Strategy
		log            string
	}{
		"none was cut: down to 8 is a run from 10, spaced from the order":         {10, 8, nil, "10: 6/4/0, 20: 10/0/0, 40: 9/1/0, 70: 8/2/0, 130: 8/0/0"},
		"none was cut: up to 12 is a run from 10":                                 {10, 12, strategy(Online, 50, 30, 0), "10: 6/4/0, 20: 11/0/0, 50: 12/0/0"},
		"none was cut: up to 12 at once":                                          {10, 12, nil, "10: 6/4/0, 20: 12/0/0"},
		"two were cut: up to 9 with what is held":                                 {8, 9, nil, "10: 6/4/0, 20: 9/0/0"},
		"two were cut: 8 is what is online, the two are observed":                 {8, 8, nil, "10: 6/4/0, 20: 8/2/0, 80: 8/0/0"},
		"all were cut, only not yet said so":                                      {6, 8, nil, "10: 6/4/0, 20: 8/0/0"},
		"nobody knows who is online: what was ordered counts":                     {0, 8, nil, "10: 6/4/0, 20: 8/0/0"},
		"further down: the step stays pending and the next comes an interval on":  {10, 1, nil, "10: 6/4/0, 50: 4/6/0, 80: 1/9/0, 140: 1/0/0"},
		"to what was ordered: the step stays pending, the observation follows it": {10, 6, nil, "10: 6/4/0, 80: 6/0/0"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			w := down10(t)
			w.delay = -1
			w.settle()
			w.until(at(20))
			w.actual, w.in.Up = Profile{Online: c.online, Cutoff: 10 - c.online}, c.up
			w.want(c.target)
			w.delay, w.applyAt = 0, w.now
			w.settle()
			w.until(at(1000))
			w.expect(c.log)
		})
	}
}

func TestAPauseIsNoStall(t *testing.T) {
	w := down10(t)
	w.delay = -1
	w.settle()
	w.until(at(100))
	w.in.Paused = true
	w.settle()
	w.now = at(5000)
	w.settle()
	if w.last.Stalled || w.last.Write || !w.last.Next.IsZero() {
		t.Errorf("while paused: %+v", w.last)
	}
	w.in.Paused = false
	w.settle()
	if w.last.Stalled || !w.last.Next.Equal(at(5210)) {
		t.Errorf("resumed: stalled %v, would stall at %g, want 5210", w.last.Stalled, seconds(w.last.Next))
	}
}

func TestWhileUnstableNothingChangesByItself(t *testing.T) {
	w := down10(t)
	w.settle()
	w.now = at(20)
	w.in.Unstable = "errors"
	w.settle()
	if want := "10 -> 2 at 50 %, 6 online, 4 held as Cutoff: stopped, errors"; w.last.Step.Reason != want || !w.last.Progressing || !w.last.Active {
		t.Errorf("%+v, want %q", w.last, want)
	}
	w.now = at(5000)
	if d := w.call(); d.Changed || d.Write || d.Stalled || !d.Next.IsZero() {
		t.Errorf("at 5000: %+v", d)
	}
	if held := w.load().Held; !held[0].Since.Equal(at(10)) {
		t.Errorf("held %v", held)
	}
	w.in.Unstable = ""
	w.settle()
	if held := w.load().Held; len(held) != 2 || !held[0].Since.Equal(at(4990)) {
		t.Errorf("held %v: the time in which it stood still counts", held)
	}
}

func TestDescends(t *testing.T) {
	target := func(n int32) *int32 { return &n }
	down := strategy(Cutoff, 50, 30, 60)
	tests := map[string]struct {
		run  Run
		in   Inputs
		want bool
	}{
		"at rest":                                    {Run{}, Inputs{Down: down, Profile: &Profile{Online: 4}, Target: target(4)}, false},
		"about to begin":                             {Run{}, Inputs{Down: down, Profile: &Profile{Online: 4}, Target: target(3)}, true},
		"at once, without a strategy":                {Run{}, Inputs{Profile: &Profile{Online: 4, Cutoff: 2}, Target: target(3)}, false},
		"under observation":                          {Run{}, Inputs{Down: down, Profile: &Profile{Online: 4, Standby: 2}, Target: target(4)}, true},
		"on the way up, with held pods":              {Run{}, Inputs{Down: down, Profile: &Profile{Online: 4, Cutoff: 2}, Target: target(9)}, true},
		"on the way up":                              {Run{}, Inputs{Down: down, Profile: &Profile{Online: 4}, Target: target(9)}, false},
		"scaling down is disabled":                   {Run{}, Inputs{Down: down, DownDisabled: true, Profile: &Profile{Online: 4}, Target: target(3)}, false},
		"paused in the middle":                       {Run{}, Inputs{Down: down, Paused: true, Profile: &Profile{Online: 4, Cutoff: 2}, Target: target(3)}, true},
		"no valid value":                             {Run{}, Inputs{Down: down, Profile: &Profile{Online: 4}}, false},
		"a first value below what lives":             {Run{}, Inputs{Down: down, Observed: Observed{Scale: 5}, Target: target(3)}, true},
		"the profile is gone, the run is not":        {Run{From: 4, To: 4, Started: zero, Held: []Batch{{2, zero}}}, Inputs{Down: down, Target: target(4)}, true},
		"what a checker said before changes nothing": {Run{}, Inputs{Down: down, Unstable: "errors", Rollback: true, Profile: &Profile{Online: 4}, Target: target(4)}, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := Descends(tt.run, tt.in); got != tt.want {
				t.Errorf("got %v", got)
			}
		})
	}
}

func TestHeldPodsOfEarlierRunsAreLetGoAfterTwoRuns(t *testing.T) {
	w := settled(t, 100)
	w.in.Down = strategy(Cutoff, 50, 30, 60)
	w.want(100)
	w.settle()
	for i, target := range []int32{90, 80, 70, 60, 50, 40, 30, 20} {
		w.now = at(10 + 25*float64(i))
		w.want(target)
		w.settle()
		w.until(at(10 + 25*float64(i+1)))
	}
	w.until(at(2000))
	// Those cut at 10 leave at 190 = 10 + 2·2·30 + 60, the next at 220, and so on; the rest with the end of the run.
	w.expect("10: 95/5/0, 40: 88/12/0, 70: 79/21/0, 100: 70/30/0, 130: 60/40/0, 160: 50/50/0, 190: 35/60/0, 220: 20/68/0, 250: 20/59/0, 280: 20/0/0")
}

// overAge is a world at 3/1 on the way to 2, with two more pods that an earlier run cut: they are to go at 40, before the next step.
func overAge(t *testing.T) *world {
	w := settled(t, 3)
	w.in.Down = strategy(Cutoff, 50, 30, 0)
	w.in.Profile = &Profile{Online: 2, Cutoff: 3}
	w.actual = *w.in.Profile
	w.store(Run{From: 3, To: 2, State: Cutoff, Percent: 50, Steps: 1, Started: at(20), LastStep: at(20),
		Held: []Batch{{Replicas: 2, Since: at(-80)}, {Replicas: 1, Since: at(20)}}})
	w.want(2)
	w.now = at(30)
	return w
}

func TestWhatIsHeldForTooLongStaysWhileItMay(t *testing.T) {
	for name, c := range map[string]struct {
		change func(w *world)
		log    string
	}{
		"goes when its time has come":        {func(*world) {}, "40: 2/1/0, 50: 2/0/0"},
		"not while scaling down is disabled": {func(w *world) { w.in.DownDisabled = true }, ""},
		"not while a cut pod is still ready": {func(w *world) { w.unready = at(45) }, "45: 2/1/0, 50: 2/0/0"},
		"not while a step waits to be applied": {func(w *world) {
			w.in.Observed.Applied = false
			w.run = []byte(strings.Replace(string(w.run), `"lastStep"`, `"pendingSince":"2026-01-01T00:00:20Z","lastStep"`, 1))
		}, ""},
		"at once when nobody looked at that time": {func(w *world) { w.now = at(44) }, "44: 2/1/0, 50: 2/0/0"},
	} {
		t.Run(name, func(t *testing.T) {
			w := overAge(t)
			c.change(w)
			w.settle()
			w.until(at(290))
			w.expect(c.log)
		})
	}
}

func TestTheWordsOfADecision(t *testing.T) {
	w := settled(t, 5)
	w.in.Down = strategy(Cutoff, 50, 30, 60)
	w.want(1)
	type said struct {
		Percent             int32
		Progressing, Active bool
		Next                float64
		Reason              string
	}
	see := func() said {
		next := -1.0
		if !w.last.Next.IsZero() {
			next = seconds(w.last.Next)
		}
		return said{w.last.GrayPercent, w.last.Progressing, w.last.Active, next, w.last.Step.Reason}
	}
	w.call()
	if diff := cmp.Diff(said{50, true, true, 300, "5 -> 1 at 50 %, 3 online, 2 held as Cutoff: step 1"}, see()); diff != "" {
		t.Errorf("step written (-want +got):\n%s", diff)
	}
	w.apply()
	w.settle()
	if diff := cmp.Diff(said{50, true, true, 30, "5 -> 1 at 50 %, 3 online, 2 held as Cutoff: next step at 2026-01-01T00:00:30Z"}, see()); diff != "" {
		t.Errorf("between steps (-want +got):\n%s", diff)
	}
	w.until(at(30))
	if diff := cmp.Diff(said{100, false, true, 90, "5 -> 1 at 100 %, 1 online, 4 held as Cutoff: observed until 2026-01-01T00:01:30Z"}, see()); diff != "" {
		t.Errorf("under observation (-want +got):\n%s", diff)
	}
	w.until(at(90))
	if diff := cmp.Diff(said{100, false, false, -1, "at 1"}, see()); diff != "" {
		t.Errorf("at rest (-want +got):\n%s", diff)
	}
	w.in.Target = nil
	w.settle()
	if w.last.Progressing || w.last.Changed || w.last.Write {
		t.Errorf("without a value: %+v", w.last)
	}
}

func TestACrashBetweenStatusAndProfileIsRepaired(t *testing.T) {
	w := down10(t)
	before := w.in.Profile
	w.call()
	w.in.Profile, w.in.Observed.Applied, w.now = before, true, at(20) // the run was written, the profile was not
	w.settle()
	w.until(at(1000))
	w.expect("10: 6/4/0, 20: 6/4/0, 50: 2/8/0, 110: 2/0/0")
}

func TestStatusThatCannotBeIsMended(t *testing.T) {
	far := time.Date(3000, 1, 1, 0, 0, 0, 0, time.UTC)
	w := settled(t, 10)
	w.in.Down = strategy(Cutoff, 0, -5, -5)
	w.store(Run{From: -5, To: math.MaxInt32, Percent: 250, Steps: -1, Started: far, LastStep: far, PendingSince: far, FrozenSince: far, ObservedSince: far,
		Held: []Batch{{Replicas: math.MaxInt32, Since: far}, {Replicas: math.MaxInt32}, {Replicas: -4}}})
	w.in.Profile = &Profile{Online: math.MaxInt32, Cutoff: math.MaxInt32, Standby: math.MinInt32}
	w.want(3)
	w.settle()
	w.until(at(100_000))
	if got := *w.in.Profile; got != (Profile{Online: 3}) || w.last.Active {
		t.Errorf("ends at %s, %+v", got, w.last)
	}
}

func TestBatchesAreBounded(t *testing.T) {
	var r Run
	for i := range 200 {
		r.hold(1, at(float64(i)))
	}
	if len(r.Held) != MaxBatches || r.held() != 200 {
		t.Errorf("%d batches hold %d", len(r.Held), r.held())
	}
	for i := 1; i < len(r.Held); i++ {
		if !r.Held[i-1].Since.Before(r.Held[i].Since) {
			t.Errorf("batch %d is not older than the next", i-1)
		}
	}
	if !r.Held[0].Since.Equal(at(0)) {
		t.Errorf("the oldest batch lost its time: %s", r.Held[0].Since)
	}
}
