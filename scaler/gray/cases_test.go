package gray

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// zero is second 0 of every case.
var zero = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func at(seconds float64) time.Time { return zero.Add(time.Duration(seconds * float64(time.Second))) }

func seconds(t time.Time) float64 { return t.Sub(zero).Seconds() }

// world carries out decisions: a ReplicaProfile, a workload that applies it after a delay, and a status that holds the run as JSON.
type world struct {
	t   rapid.TB
	now time.Time
	in  Inputs
	run []byte

	// delay is how long a profile takes to be applied, readyLag how long cut pods stay ready after that; negative means for ever.
	delay, readyLag  time.Duration
	applyAt, unready time.Time
	actual           Profile
	last             Decision
	// log has the written profiles, calls what every call decided.
	log []string
}

func newWorld(t rapid.TB, live int32) *world {
	w := &world{t: t, now: zero, actual: Profile{Online: live}}
	w.store(Run{})
	return w
}

// settled makes a world whose profile was applied long ago.
func settled(t rapid.TB, online int32) *world {
	w := newWorld(t, online)
	w.in.Profile = &Profile{Online: online}
	w.in.Observed.Applied, w.in.Observed.AppliedAt = true, at(-3600)
	w.store(Run{From: online, To: online, Percent: 100, Started: at(-3600)})
	return w
}

func (w *world) store(r Run) {
	raw, err := json.Marshal(r)
	if err != nil {
		w.t.Fatal(err)
	}
	w.run = raw
}

func (w *world) load() Run {
	var r Run
	if err := json.Unmarshal(w.run, &r); err != nil {
		w.t.Fatal(err)
	}
	return r
}

// call decides once at w.now and writes what was decided.
func (w *world) call() Decision {
	w.in.Observed.Online, w.in.Observed.Cutoff, w.in.Observed.Standby = w.actual.Online, w.actual.Cutoff, w.actual.Standby
	w.in.Observed.Scale = w.actual.Total()
	w.in.Observed.CutReady = 0
	if w.actual.Cutoff > 0 && w.now.Before(w.unready) {
		w.in.Observed.CutReady = 1
	}
	d := Decide(w.load(), w.in, w.now)
	w.last = d
	w.store(d.Run)
	if d.Write {
		w.in.Profile = d.Profile
		w.in.Observed.Applied = false
		w.applyAt = w.now.Add(w.delay)
		if w.delay < 0 {
			w.applyAt = time.Time{}
		}
		w.log = append(w.log, fmt.Sprintf("%g: %d/%d/%d", seconds(w.now), d.Profile.Online, d.Profile.Cutoff, d.Profile.Standby))
	}
	return d
}

// apply lets the workload take over a profile that is due.
func (w *world) apply() bool {
	if w.in.Profile == nil || w.in.Observed.Applied || w.in.Paused || w.applyAt.IsZero() || w.now.Before(w.applyAt) {
		return false
	}
	if w.in.Profile.Cutoff > w.actual.Cutoff && w.readyLag > 0 {
		w.unready = w.now.Add(w.readyLag)
	}
	w.actual = *w.in.Profile
	w.in.Observed.Applied, w.in.Observed.AppliedAt = true, w.now
	return true
}

// settle calls until nothing changes at this instant.
func (w *world) settle() {
	for i := 0; ; i++ {
		if i > 300 {
			w.t.Fatalf("at %g: decisions never come to rest: %+v", seconds(w.now), w.last)
		}
		d := w.call()
		if !w.apply() && !d.Write && !d.Changed {
			if !d.Next.IsZero() && !d.Next.After(w.now) {
				w.t.Fatalf("at %g: Next %g is not in the future: %+v", seconds(w.now), seconds(d.Next), d)
			}
			return
		}
	}
}

// until lets time pass to t, waking where decisions and the workload ask for it.
func (w *world) until(t time.Time) {
	for {
		next := t
		for _, wake := range []time.Time{w.last.Next, w.applyAt, w.unready} {
			if wake.After(w.now) && wake.Before(next) {
				next = wake
			}
		}
		w.now = next
		w.settle()
		if !next.Before(t) {
			return
		}
	}
}

func (w *world) want(n int32) { w.in.Target = &n }

func strategy(state State, percent int32, interval, observation float64) *Strategy {
	return &Strategy{State: state, ChangePercent: percent,
		Interval: time.Duration(interval * float64(time.Second)), Observation: time.Duration(observation * float64(time.Second))}
}

// event is a change of the world at a second.
type event struct {
	second float64
	do     func(w *world)
}

func want(second float64, n int32) event { return event{second, func(w *world) { w.want(n) }} }

func unstable(second float64, rollback bool) event {
	return event{second, func(w *world) { w.in.Unstable, w.in.Rollback = "errors", rollback }}
}

func stable(second float64) event {
	return event{second, func(w *world) { w.in.Unstable, w.in.Rollback = "", false }}
}

func look(second float64) event { return event{second, func(*world) {}} }

func TestGrayCases(t *testing.T) {
	cutoff := strategy(Cutoff, 50, 30, 60)
	cases := map[string]struct {
		live     int32
		up, down *Strategy
		first    bool // no ReplicaProfile yet
		events   []event
		log      string
	}{
		"A: 5 to 1 Cutoff 50/30/60": {live: 5, down: cutoff, events: []event{want(10, 1)}, log: "10: 3/2/0, 40: 1/4/0, 100: 1/0/0"},
		"B: 6 to 2 Cutoff 30/10/20": {live: 6, down: strategy(Cutoff, 30, 10, 20), events: []event{want(10, 2)},
			log: "10: 5/1/0, 20: 4/2/0, 30: 3/3/0, 40: 2/4/0, 60: 2/0/0"},
		"C: 3 to 2, the second step moves nobody and takes its interval": {live: 3, down: strategy(Cutoff, 50, 10, 20),
			events: []event{want(10, 2)}, log: "10: 2/1/0, 40: 2/0/0"},
		"D: 4 to 2, steps that move nobody": {live: 4, down: strategy(Cutoff, 30, 10, 20),
			events: []event{want(10, 2)}, log: "10: 3/1/0, 40: 2/2/0, 60: 2/0/0"},
		"E: 1 to 10 up 25/10": {live: 1, up: strategy(Online, 25, 10, 0), events: []event{want(10, 10)},
			log: "10: 3/0/0, 20: 5/0/0, 30: 7/0/0, 40: 10/0/0"},
		"F: 1 to 20 with max 10 is E, however often it is looked at": {live: 1, up: strategy(Online, 25, 10, 0),
			events: []event{want(10, 10), look(11), want(12, 10), want(25, 10)}, log: "10: 3/0/0, 20: 5/0/0, 30: 7/0/0, 40: 10/0/0"},
		"G: 6 to 1 with min 3 is 6 to 3": {live: 6, down: cutoff, events: []event{want(10, 3), want(11, 3), look(12)},
			log: "10: 5/1/0, 40: 3/3/0, 100: 3/0/0"},
		"H: up again without an up strategy is at once": {live: 10, down: cutoff, events: []event{want(10, 2), want(25, 8)},
			log: "10: 6/4/0, 25: 8/0/0"},
		"I: up again with an up strategy": {live: 10, up: strategy(Online, 50, 30, 0), down: cutoff,
			events: []event{want(10, 2), want(25, 8)}, log: "10: 6/4/0, 25: 7/1/0, 55: 8/0/0"},
		"J: further down": {live: 10, down: cutoff, events: []event{want(10, 6), want(25, 4)},
			log: "10: 8/2/0, 40: 6/4/0, 70: 4/6/0, 130: 4/0/0"},
		"K: the same number from another provider": {live: 10, down: cutoff, events: []event{want(10, 4), want(25, 4)},
			log: "10: 7/3/0, 40: 4/6/0, 100: 4/0/0"},
		"L: 10 to 4 Deleted": {live: 10, down: strategy(Deleted, 50, 30, 60), events: []event{want(10, 4)}, log: "10: 7/0/0, 40: 4/0/0"},
		"M: 10 to 4 Standby without observation, two profiles at 40": {live: 10, down: strategy(Standby, 50, 30, 0),
			events: []event{want(10, 4)}, log: "10: 7/0/3, 40: 4/0/6, 40: 4/0/0"},
		"N: 4 to 2 Cutoff 100/30/0, two profiles at 10": {live: 4, down: strategy(Cutoff, 100, 30, 0),
			events: []event{want(10, 2)}, log: "10: 2/2/0, 10: 2/0/0"},
		"O: the first value is applied at once upwards": {live: 3, first: true, up: strategy(Online, 25, 10, 0),
			events: []event{want(10, 10)}, log: "10: 10/0/0"},
		"the first value below the live count is a run from the live count": {live: 10, first: true, down: cutoff,
			events: []event{want(10, 4)}, log: "10: 7/3/0, 40: 4/6/0, 100: 4/0/0"},
		"the first value at the live count makes the profile": {live: 4, first: true, down: cutoff, events: []event{want(10, 4)}, log: "10: 4/0/0"},
		"P: 10 to 2 and back to 10":                           {live: 10, down: cutoff, events: []event{want(10, 2), want(25, 10)}, log: "10: 6/4/0, 25: 10/0/0"},
		"Q: the clamped ends without gray":                    {live: 5, events: []event{want(10, 1), want(20, 10)}, log: "10: 1/0/0, 20: 10/0/0"},
		"R: 10 to 2 with looks in between": {live: 10, down: cutoff, events: []event{want(10, 2), look(30)},
			log: "10: 6/4/0, 40: 2/8/0, 100: 2/0/0"},
		"S: a value refreshed every second": {live: 10, down: cutoff, events: func() (all []event) {
			for s := 10.0; s < 120; s++ {
				all = append(all, want(s, 4))
			}
			return all
		}(), log: "10: 7/3/0, 40: 4/6/0, 100: 4/0/0"},
		"T: bounds that contradict each other leave the maximum": {live: 1, events: []event{want(10, 3)}, log: "10: 3/0/0"},
		"U: 5 to 1 Cutoff 100/30/60":                             {live: 5, down: strategy(Cutoff, 100, 30, 60), events: []event{want(10, 1)}, log: "10: 1/4/0, 70: 1/0/0"},
		"V: 20 to 1 Cutoff 10/5/30": {live: 20, down: strategy(Cutoff, 10, 5, 30), events: []event{want(10, 1)},
			log: "10: 19/1/0, 15: 17/3/0, 20: 15/5/0, 25: 13/7/0, 30: 11/9/0, 35: 9/11/0, 40: 7/13/0, 45: 5/15/0, 50: 3/17/0, 55: 1/19/0, 85: 1/0/0"},
		"W: 3 to 0 Cutoff 33/10/10": {live: 3, down: strategy(Cutoff, 33, 10, 10), events: []event{want(10, 0)},
			log: "10: 2/1/0, 30: 1/2/0, 40: 0/3/0, 50: 0/0/0"},
		"rows 29 to 32: the documented run": {live: 1, first: true, down: cutoff, events: []event{want(0, 5), want(600, 1)},
			log: "0: 5/0/0, 600: 3/2/0, 630: 1/4/0, 690: 1/0/0"},
		"row 34: down in a gray run after going up at once": {live: 1, down: strategy(Cutoff, 50, 30, 0), events: []event{want(10, 6), want(100, 4), want(131, 1)},
			log: "10: 6/0/0, 100: 5/1/0, 130: 4/2/0, 130: 4/0/0, 160: 3/1/0, 190: 1/3/0, 190: 1/0/0"},
		"up beyond what is held: cut pods first, then new ones": {live: 10, up: strategy(Online, 50, 30, 0), down: cutoff,
			events: []event{want(10, 2), want(25, 12)}, log: "10: 6/4/0, 25: 9/1/0, 55: 12/0/0"},
		"a new target between online and the old one": {live: 10, down: cutoff, events: []event{want(10, 2), want(25, 4)},
			log: "10: 6/4/0, 40: 5/5/0, 70: 4/6/0, 130: 4/0/0"},
		"a new target at the online count ends the run there, after the observation": {live: 10, down: cutoff,
			events: []event{want(10, 2), want(25, 6)}, log: "10: 6/4/0, 85: 6/0/0"},
		"down during an up run waits one interval after its last step": {live: 2, up: strategy(Online, 50, 20, 0), down: cutoff,
			events: []event{want(10, 10), want(15, 2)}, log: "10: 6/0/0, 40: 4/2/0, 70: 2/4/0, 130: 2/0/0"},
		"a new target during an up run steps at once, from what is online": {live: 1, up: strategy(Online, 25, 10, 0),
			events: []event{want(10, 10), want(15, 12)}, log: "10: 3/0/0, 15: 5/0/0, 25: 7/0/0, 35: 9/0/0, 45: 12/0/0"},
		"no valid value ends a run where it is": {live: 10, down: cutoff,
			events: []event{want(10, 2), {25, func(w *world) { w.in.Target = nil }}}, log: "10: 6/4/0, 85: 6/0/0"},
		"no valid value ever does nothing": {live: 3, first: true, down: cutoff, events: []event{look(10)}, log: ""},
		"up disabled: a run down ends where it is": {live: 10, down: cutoff,
			events: []event{want(10, 2), {25, func(w *world) { w.want(8); w.in.UpDisabled = true }}}, log: "10: 6/4/0, 85: 6/0/0"},
		"down disabled: held pods stay until it is enabled": {live: 10, down: cutoff,
			events: []event{want(10, 2), {25, func(w *world) { w.in.DownDisabled = true }}, {600, func(w *world) { w.in.DownDisabled = false; w.want(6) }}},
			log:    "10: 6/4/0, 600: 6/0/0"},
		"down disabled: going up wakes, and lets nobody go": {live: 10, down: cutoff,
			events: []event{want(10, 2), {25, func(w *world) { w.in.DownDisabled = true; w.want(8) }}}, log: "10: 6/4/0, 25: 8/2/0"},
		"down disabled from the start does nothing": {live: 10, down: cutoff,
			events: []event{{10, func(w *world) { w.in.DownDisabled = true; w.want(2) }}}, log: ""},
		"paused for long is worth one step": {live: 20, down: strategy(Cutoff, 25, 10, 5),
			events: []event{want(10, 0), {12, func(w *world) { w.in.Paused = true }}, {300, func(w *world) { w.in.Paused = false }}},
			log:    "10: 15/5/0, 300: 10/10/0, 310: 5/15/0, 320: 0/20/0, 325: 0/0/0"},
		"frozen restores held pods: the step and the observation begin anew": {live: 10, down: cutoff, events: []event{want(10, 2),
			{50, func(w *world) { w.in.Frozen = "rolling update"; w.in.Observed.Applied = false; w.applyAt = time.Time{} }},
			{400, func(w *world) { w.in.Frozen = ""; w.applyAt = w.now }}},
			log: "10: 6/4/0, 40: 2/8/0, 460: 2/0/0"},
		"frozen: no more than there are waits, more is gone to from all of them": {live: 10, up: strategy(Online, 50, 30, 0), down: cutoff, events: []event{want(10, 2),
			{50, func(w *world) { w.in.Frozen = "rolling update"; w.in.Observed.Applied = false; w.applyAt = time.Time{} }},
			want(60, 10), want(70, 14), {300, func(w *world) { w.in.Frozen = "" }}, want(310, 13)},
			log: "10: 6/4/0, 40: 2/8/0, 70: 12/0/0, 100: 14/0/0, 330: 13/1/0, 420: 13/0/0"},
		"unstable: no step follows, and the next one is not lost": {live: 10, down: cutoff,
			events: []event{want(10, 2), unstable(25, false), look(100), stable(200)}, log: "10: 6/4/0, 200: 2/8/0, 260: 2/0/0"},
		"unstable under observation: it begins anew": {live: 10, down: cutoff,
			events: []event{want(10, 2), unstable(50, false), look(200), stable(300)}, log: "10: 6/4/0, 40: 2/8/0, 360: 2/0/0"},
		"unstable before it begins: it begins when that is over": {live: 10, down: cutoff,
			events: []event{unstable(5, false), want(10, 2), stable(100)}, log: "100: 6/4/0, 130: 2/8/0, 190: 2/0/0"},
		"unstable, with a new target further down: the new run waits": {live: 10, down: cutoff,
			events: []event{want(10, 6), unstable(20, false), want(25, 4), stable(200)}, log: "10: 8/2/0, 200: 6/4/0, 230: 4/6/0, 290: 4/0/0"},
		"unstable: up is at once all the same, and lets nobody go": {live: 10, down: cutoff,
			events: []event{want(10, 2), unstable(25, false), want(30, 8), stable(200)}, log: "10: 6/4/0, 30: 8/2/0, 260: 8/0/0"},
		"unstable: up by steps all the same, and lets nobody go": {live: 10, up: strategy(Online, 50, 30, 0), down: cutoff,
			events: []event{want(10, 2), unstable(25, false), want(30, 8), stable(200)}, log: "10: 6/4/0, 30: 7/3/0, 60: 8/2/0, 260: 8/0/0"},
		"unstable: a run upwards is not stopped": {live: 1, up: strategy(Online, 25, 10, 0), down: cutoff,
			events: []event{unstable(5, true), want(10, 10)}, log: "10: 3/0/0, 20: 5/0/0, 30: 7/0/0, 40: 10/0/0"},
		"unstable without a valid value: nobody is let go": {live: 10, down: cutoff,
			events: []event{want(10, 2), unstable(20, false), {25, func(w *world) { w.in.Target = nil }}, stable(200)}, log: "10: 6/4/0, 260: 6/0/0"},
		"unstable, and the strategy becomes Deleted: nobody is let go": {live: 10, down: cutoff,
			events: []event{want(10, 2), unstable(20, false), {25, func(w *world) { w.in.Down = strategy(Deleted, 50, 30, 60) }}, stable(200)},
			log:    "10: 6/4/0, 200: 2/0/0"},
		"unstable, and the strategy is taken away: the rest is at once": {live: 10, down: cutoff,
			events: []event{want(10, 2), unstable(20, false), {30, func(w *world) { w.in.Down = nil }}}, log: "10: 6/4/0, 30: 2/0/0"},
		"unstable, with a new target late: the time before it does not count either": {live: 10, down: cutoff,
			events: []event{want(10, 6), unstable(20, false), want(195, 4), stable(200)}, log: "10: 8/2/0, 200: 6/4/0, 230: 4/6/0, 290: 4/0/0"},
		"unstable without a strategy downwards means nothing": {live: 5, events: []event{unstable(5, true), want(10, 1)}, log: "10: 1/0/0"},
		"rolled back: all are online, and the run begins anew from there": {live: 10, down: cutoff,
			events: []event{want(10, 2), unstable(50, true), look(100), stable(300)}, log: "10: 6/4/0, 40: 2/8/0, 50: 10/0/0, 300: 6/4/0, 330: 2/8/0, 390: 2/0/0"},
		"rolled back and stable at once: the next step keeps its distance": {live: 10, down: cutoff,
			events: []event{want(10, 2), unstable(50, true), stable(51)}, log: "10: 6/4/0, 40: 2/8/0, 50: 10/0/0, 80: 6/4/0, 110: 2/8/0, 170: 2/0/0"},
		"rolled back, and the target comes up to between": {live: 10, down: cutoff,
			events: []event{want(10, 2), unstable(50, true), want(60, 6), stable(300)}, log: "10: 6/4/0, 40: 2/8/0, 50: 10/0/0, 300: 8/2/0, 330: 6/4/0, 390: 6/0/0"},
		"rolled back, and more than all are wanted": {live: 10, down: cutoff,
			events: []event{want(10, 2), {50, func(w *world) { w.want(12); w.in.Unstable, w.in.Rollback = "errors", true }}}, log: "10: 6/4/0, 40: 2/8/0, 50: 12/0/0"},
		"rolled back on the way up again": {live: 10, up: strategy(Online, 50, 30, 0), down: cutoff,
			events: []event{want(10, 2), want(25, 8), unstable(26, true), stable(100)}, log: "10: 6/4/0, 25: 7/1/0, 26: 8/0/0"},
		"rolled back with scaling up disabled": {live: 10, down: cutoff,
			events: []event{want(10, 2), {50, func(w *world) { w.in.UpDisabled, w.in.Unstable, w.in.Rollback = true, "errors", true }}, stable(300)},
			log:    "10: 6/4/0, 40: 2/8/0, 50: 10/0/0, 300: 6/4/0, 330: 2/8/0, 390: 2/0/0"},
		"rolled back with Standby": {live: 10, down: strategy(Standby, 50, 30, 60),
			events: []event{want(10, 2), unstable(20, true), stable(300)}, log: "10: 6/0/4, 20: 10/0/0, 300: 6/0/4, 330: 2/0/8, 390: 2/0/0"},
		"rolled back with Deleted: there is nobody to turn on": {live: 10, down: strategy(Deleted, 50, 30, 0),
			events: []event{want(10, 4), unstable(20, true), stable(200)}, log: "10: 7/0/0, 200: 4/0/0"},
		"unstable while paused: the pause holds": {live: 10, down: cutoff,
			events: []event{want(10, 2), {20, func(w *world) { w.in.Paused, w.in.Unstable, w.in.Rollback = true, "errors", true }},
				{100, func(w *world) { w.in.Paused = false }}, stable(300)},
			log: "10: 6/4/0, 100: 10/0/0, 300: 6/4/0, 330: 2/8/0, 390: 2/0/0"},
		"unstable while frozen: what the freeze restored is not cut again": {live: 10, down: cutoff, events: []event{want(10, 2),
			{50, func(w *world) { w.in.Frozen = "rolling update"; w.in.Observed.Applied = false; w.applyAt = time.Time{} }},
			unstable(60, false), {1000, func(w *world) { w.in.Frozen = "" }}, stable(2000)},
			log: "10: 6/4/0, 40: 2/8/0, 60: 10/0/0, 2000: 6/4/0, 2030: 2/8/0, 2090: 2/0/0"},
		"the strategy is taken away in the middle": {live: 10, down: cutoff,
			events: []event{want(10, 2), {25, func(w *world) { w.in.Down = nil }}}, log: "10: 6/4/0, 25: 2/0/0"},
		"Cutoff becomes Standby in the middle": {live: 10, down: cutoff,
			events: []event{want(10, 2), {25, func(w *world) { w.in.Down = strategy(Standby, 50, 30, 60) }}}, log: "10: 6/4/0, 25: 6/0/4, 40: 2/0/8, 100: 2/0/0"},
		"somebody else's edit of the profile is put right": {live: 10, down: cutoff,
			events: []event{want(10, 2), {25, func(w *world) { w.in.Profile = &Profile{Online: 1} }}}, log: "10: 6/4/0, 25: 6/4/0, 40: 2/8/0, 100: 2/0/0"},
		"a profile deleted in the middle is made again": {live: 10, down: cutoff,
			events: []event{want(10, 2), {25, func(w *world) { w.in.Profile = nil }}}, log: "10: 6/4/0, 25: 6/4/0, 40: 2/8/0, 100: 2/0/0"},
		"a run that another manager began goes on from its profile": {live: 5, down: cutoff, events: []event{
			{10, func(w *world) {
				w.in.Profile, w.actual = &Profile{Online: 3, Cutoff: 2}, Profile{Online: 3, Cutoff: 2}
				w.store(Run{Percent: 50, LastStep: at(0)})
				w.want(1)
			}}}, log: "30: 2/3/0, 60: 1/4/0, 120: 1/0/0"},
		"cut pods that nobody manages are held and let go": {live: 10, first: true, down: cutoff, events: []event{
			{10, func(w *world) { w.actual = Profile{Online: 6, Cutoff: 4}; w.want(6) }}}, log: "10: 6/4/0, 70: 6/0/0"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			w := settled(t, c.live)
			if c.first {
				w = newWorld(t, c.live)
			} else {
				w.want(c.live)
			}
			w.in.Up, w.in.Down = c.up, c.down
			for _, e := range c.events {
				if at(e.second).After(w.now) {
					w.until(at(e.second).Add(-time.Nanosecond))
				}
				w.now = at(e.second)
				e.do(w)
				w.settle()
			}
			w.until(at(3000))
			if diff := cmp.Diff(c.log, strings.Join(w.log, ", ")); diff != "" {
				t.Errorf("profiles written (-want +got):\n%s\nlast: %+v", diff, w.last)
			}
			if w.last.Stalled {
				t.Errorf("stalled: %s", w.last.StalledReason)
			}
		})
	}
}
