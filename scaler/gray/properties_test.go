package gray

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// watcher checks the laws of every single call.
type watcher struct {
	*world
	rt       *rapid.T
	lastDown time.Time // when a lower online count was last written
	lastUp   time.Time // when a higher one was last written
	upRun    Run       // in which run
}

func share(way, percent int32) int32 { return max(1, (way*percent+99)/100) }

// check calls Decide beside the world and judges what it says against what is.
func (w *watcher) check() {
	before := w.load()
	var p Profile
	known := w.in.Profile != nil
	if known {
		p = *w.in.Profile
	}
	actual := w.actual
	if w.in.Frozen != "" {
		actual = Profile{Online: max(actual.Total(), p.Total())} // restored, or about to be made
	}
	pending := !before.PendingSince.IsZero() && !w.in.Observed.Applied
	d := w.call()
	unstable := w.in.Unstable != "" && w.in.Down != nil
	rollback := unstable && known && p.Held() > 0 && (w.in.Rollback || w.in.Frozen != "") && !w.in.Paused
	sameRun := func(a, b Run) bool {
		return !rollback && a.Started.Equal(b.Started) && a.From == b.From && a.To == b.To
	}
	fail := func(format string, args ...any) {
		w.rt.Helper()
		w.rt.Fatalf("at %g: %s\nbefore %+v\nprofile %+v, actual %+v\ndecision %+v\nlog %v", seconds(w.now), fmt.Sprintf(format, args...), before, p, actual, d, w.log)
	}
	if d.Active && d.Next.IsZero() && !w.in.Paused && w.in.Frozen == "" && !unstable && (!w.in.DownDisabled || d.Run.Percent != 100) {
		fail("stuck: active, and never looked at again")
	}
	if !d.Next.IsZero() && !d.Next.After(w.now) {
		fail("Next is not in the future")
	}
	if len(d.Run.Held) > MaxBatches {
		fail("%d batches", len(d.Run.Held))
	}
	outgrown := known && w.in.Frozen != "" && w.in.Target != nil && *w.in.Target > p.Total()
	if (w.in.Paused || w.in.Frozen != "" && !outgrown && !rollback) && d.Write {
		fail("written while paused or frozen")
	}
	if outgrown && !w.in.Paused && !w.in.UpDisabled && w.in.Up == nil && d.Profile.Online != *w.in.Target {
		fail("a freeze stands in the way of %d", *w.in.Target)
	}
	if d.Profile == nil || !known {
		return
	}
	n := *d.Profile
	if n.Online < 0 || n.Cutoff < 0 || n.Standby < 0 {
		fail("negative count")
	}
	if unstable && (n.Total() < p.Total() || n.Online < p.Online) {
		fail("fewer pods, or fewer online, while unstable")
	}
	if rollback && (n.Held() > 0 || n.Online < p.Total()) {
		fail("pods stay held after a rollback")
	}
	run := d.Run
	way := max(run.From, run.To) - min(run.From, run.To)
	if n.Total() < min(p.Total(), run.To) {
		fail("total falls below the target")
	}
	if w.in.Down != nil && w.in.Down.State.holds() && actual.Online > n.Total() && (!known || actual.Online <= p.Total()) {
		fail("pods that were never cut are let go")
	}
	if w.in.DownDisabled && n.Total() < p.Total() {
		fail("fewer pods although scaling down is disabled")
	}
	if pending && sameRun(run, before) && n.Total() < p.Total() {
		fail("fewer pods while a step is not applied")
	}
	if sameRun(run, before) {
		if run.To > run.From && n.Online < p.Online || run.To <= run.From && n.Online > p.Online {
			fail("online goes the wrong way within a run")
		}
		if run.To <= run.From && n.Total() > p.Total() {
			fail("pods are made within a run down")
		}
		if run.Percent < before.Percent || run.Steps > before.Steps+100 {
			fail("the run goes back")
		}
	}
	online := p.Online
	if !sameRun(run, before) {
		if online = run.From; online < p.Online || online > max(p.Online, actual.Online) && (!rollback || online != p.Total()) {
			fail("a run begins from a count that is neither ordered nor there")
		}
	}
	if n.Online < p.Online && w.in.Down != nil {
		if online-n.Online > share(way, w.in.Down.ChangePercent) {
			fail("%d pods leave in one step", online-n.Online)
		}
		if !w.lastDown.IsZero() && w.now.Sub(w.lastDown) < w.in.Down.Interval {
			fail("only %s since the last step", w.now.Sub(w.lastDown))
		}
		w.lastDown = w.now
	}
	if n.Online > p.Online && w.in.Up != nil && run.To > run.From {
		if n.Online-online > share(way, w.in.Up.ChangePercent) {
			fail("%d pods come in one step", n.Online-online)
		}
		if sameRun(w.upRun, run) && w.now.Sub(w.lastUp) < w.in.Up.Interval {
			fail("only %s since the last step", w.now.Sub(w.lastUp))
		}
		w.lastUp, w.upRun = w.now, run
	}
}

func (w *watcher) settleChecked() {
	for i := 0; ; i++ {
		if i > 300 {
			w.rt.Fatalf("decisions never come to rest: %+v", w.last)
		}
		w.check()
		if !w.apply() && !w.last.Write && !w.last.Changed {
			return
		}
	}
}

// pass lets time pass to t; while the controller is down nobody calls, but the workload goes on.
func (w *watcher) pass(t time.Time, down bool) {
	for w.now.Before(t) {
		next := t
		for _, wake := range []time.Time{w.last.Next, w.applyAt, w.unready} {
			if wake.After(w.now) && wake.Before(next) {
				next = wake
			}
		}
		w.now = next
		if down {
			w.apply()
		} else {
			w.settleChecked()
		}
	}
}

func drawStrategy(t *rapid.T, name string, states ...State) *Strategy {
	if rapid.IntRange(0, 3).Draw(t, name+" none") == 0 {
		return nil
	}
	return &Strategy{State: rapid.SampledFrom(states).Draw(t, name+" state"), ChangePercent: rapid.Int32Range(1, 100).Draw(t, name+" percent"),
		Interval:    time.Duration(rapid.IntRange(1, 60).Draw(t, name+" interval")) * time.Second,
		Observation: time.Duration(rapid.IntRange(0, 90).Draw(t, name+" observation")) * time.Second}
}

func TestRunsAreNeverStuckAndKeepTheirPace(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		live := rapid.Int32Range(0, 30).Draw(t, "live")
		var w *watcher
		if rapid.Bool().Draw(t, "managed") {
			w = &watcher{world: settled(t, live), rt: t}
		} else {
			w = &watcher{world: newWorld(t, live), rt: t}
		}
		w.in.Up = drawStrategy(t, "up", Online)
		w.in.Down = drawStrategy(t, "down", Cutoff, Cutoff, Standby, Deleted)
		frozen := func(reason string) {
			if w.in.Frozen = reason; reason != "" && w.in.Profile != nil && w.in.Profile.Held() > 0 {
				w.in.Observed.Applied, w.applyAt = false, time.Time{} // restored, so no longer as the profile says
			} else if !w.in.Observed.Applied {
				w.applyAt = w.now.Add(max(0, w.delay))
			}
		}
		for range rapid.IntRange(1, 25).Draw(t, "events") {
			switch rapid.IntRange(0, 13).Draw(t, "event") {
			case 0, 1, 2, 3:
				w.want(rapid.Int32Range(0, 30).Draw(t, "target"))
			case 4:
				w.in.Target = nil
			case 5:
				w.in.Paused = !w.in.Paused
			case 6:
				w.in.UpDisabled, w.in.DownDisabled = rapid.Bool().Draw(t, "up disabled"), rapid.Bool().Draw(t, "down disabled")
			case 7:
				w.delay = time.Duration(rapid.SampledFrom([]int{0, 0, 1, 20, 2000, -1}).Draw(t, "delay")) * time.Second
			case 8:
				w.readyLag = time.Duration(rapid.SampledFrom([]int{0, 1, 20, 1000}).Draw(t, "lag")) * time.Second
			case 9:
				if w.in.Frozen == "" {
					frozen("rolling update")
				} else {
					frozen("")
				}
			case 10:
				w.pass(w.now.Add(time.Duration(rapid.IntRange(1, 500).Draw(t, "down for"))*time.Second), true)
			case 11, 12:
				w.in.Unstable, w.in.Rollback = rapid.SampledFrom([]string{"", "errors"}).Draw(t, "unstable"), rapid.Bool().Draw(t, "rollback")
			}
			w.settleChecked()
			w.pass(w.now.Add(time.Duration(rapid.IntRange(0, 120_000).Draw(t, "ms"))*time.Millisecond), false)
		}
		// Now everything works, and the last target has to be reached in bounded time.
		w.in.Paused, w.in.UpDisabled, w.in.DownDisabled, w.in.Unstable, w.delay, w.readyLag = false, false, false, "", 2*time.Second, 3*time.Second
		frozen("")
		if !w.in.Observed.Applied {
			w.applyAt = w.now
		}
		w.want(rapid.Int32Range(0, 30).Draw(t, "last target"))
		w.settleChecked()
		bound := 2200 * time.Second // what a ready lag of before may still take
		for _, s := range []*Strategy{w.in.Up, w.in.Down} {
			if s != nil {
				steps := time.Duration((100+s.ChangePercent-1)/s.ChangePercent) + 1
				bound += steps*(s.Interval+w.delay) + s.Observation + w.readyLag
			}
		}
		w.pass(w.now.Add(bound), false)
		if *w.in.Profile != (Profile{Online: *w.in.Target}) || w.last.Active || w.last.Progressing || w.last.Stalled || !w.last.Next.IsZero() {
			t.Fatalf("not ended %s after the last event: profile %+v, target %d, %+v", bound, *w.in.Profile, *w.in.Target, w.last)
		}
	})
}

func TestHeldPodsAreLetGoInTimeWhateverTheTargetsDo(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &watcher{world: settled(t, 250), rt: t}
		w.want(250)
		w.in.Down = &Strategy{State: Cutoff, ChangePercent: rapid.Int32Range(5, 100).Draw(t, "percent"),
			Interval: time.Duration(rapid.IntRange(1, 60).Draw(t, "interval")) * time.Second, Observation: time.Duration(rapid.IntRange(0, 90).Draw(t, "observation")) * time.Second}
		steps := time.Duration((100 + w.in.Down.ChangePercent - 1) / w.in.Down.ChangePercent)
		bound := 2*steps*w.in.Down.Interval + w.in.Down.Observation
		for target := int32(250); target > 0; target -= rapid.Int32Range(1, 40).Draw(t, "less") {
			w.want(target)
			w.settleChecked()
			for _, b := range w.load().Held {
				if age := w.now.Sub(b.Since); age > bound {
					t.Fatalf("at %g: %d pods are held for %s, the bound is %s; log %v", seconds(w.now), b.Replicas, age, bound, w.log)
				}
			}
			w.pass(w.now.Add(time.Duration(rapid.IntRange(1, 100).Draw(t, "seconds"))*time.Second), false)
		}
	})
}

func TestLookingMoreOftenChangesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		live := rapid.Int32Range(0, 30).Draw(t, "live")
		up, down := drawStrategy(t, "up", Online), drawStrategy(t, "down", Cutoff, Standby, Deleted)
		type change struct{ at, target int32 }
		changes := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) change {
			return change{rapid.Int32Range(1, 600).Draw(t, "at"), rapid.Int32Range(0, 30).Draw(t, "target")}
		}), 1, 6).Draw(t, "changes")
		slices.SortStableFunc(changes, func(a, b change) int { return int(a.at - b.at) })
		looks := rapid.SliceOfN(rapid.Int64Range(1, int64(700*time.Second)), 0, 40).Draw(t, "looks")
		delay := time.Duration(rapid.IntRange(0, 5).Draw(t, "delay")) * time.Second
		run := func(looks []int64) []string {
			w := settled(t, live)
			w.want(live)
			w.in.Up, w.in.Down, w.delay = up, down, delay
			w.settle()
			looks = slices.Clone(looks)
			slices.Sort(looks)
			for _, c := range changes {
				for len(looks) > 0 && looks[0] < int64(c.at)*int64(time.Second) {
					w.until(zero.Add(time.Duration(looks[0])))
					looks = looks[1:]
				}
				w.until(at(float64(c.at)))
				w.want(c.target)
				w.settle()
			}
			for _, l := range looks {
				w.until(zero.Add(time.Duration(l)))
			}
			w.until(at(20000))
			return w.log
		}
		if diff := cmp.Diff(run(nil), run(looks)); diff != "" {
			t.Fatalf("with more looks (-without +with):\n%s", diff)
		}
	})
}
