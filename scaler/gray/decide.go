package gray

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// leastStall is how long a step may stay unapplied whatever the interval.
const leastStall = 5 * time.Minute

// Decide returns where the run stands at now, and the profile that should be. It never skips a step: time without anybody
// calling is worth one step at most. A step that rounding leaves unchanged takes its interval like any other.
func Decide(run Run, in Inputs, now time.Time) Decision {
	now = stamp(now)
	d := decider{in: in, now: now, run: run.mended(now)}
	d.in.Up, d.in.Down = d.in.Up.mended(), d.in.Down.mended()
	d.decide()
	return d.decision(run)
}

// decider carries one call of Decide.
type decider struct {
	in     Inputs
	now    time.Time
	run    Run
	frozen bool
	next   time.Time
	stall  string
	reason string
}

// Descends tells whether a gray run downwards is going on, its pods are observed, or it is about to begin: what stability checkers are
// asked about. It does not depend on what they say.
func Descends(run Run, in Inputs) bool {
	if in.Down == nil {
		return false
	}
	d := decider{in: in, run: run}
	base, _ := d.base()
	return base.Held() > 0 || d.target(base) < base.Online
}

func (d *decider) decide() {
	base, known := d.base()
	rollback := d.unstable() && base.Held() > 0 && (d.in.Rollback || d.in.Frozen != "")
	if d.in.Paused || d.in.Frozen != "" && !d.outgrown() && !rollback {
		d.freeze()
		return
	}
	if !d.unstable() || !d.run.PendingSince.IsZero() {
		d.thaw()
	}
	if !known && d.in.Target == nil {
		d.reason = "no valid value yet: replicas stay"
		return
	}
	if rollback || d.in.Frozen != "" && base.Held() > 0 {
		base = Profile{Online: base.Total()} // they were restored, or are now
		d.run.Held, d.run.PendingSince, d.run.FrozenSince = nil, time.Time{}, time.Time{}
		d.start(base, d.target(base), false)
		if rollback && d.run.To <= d.run.From {
			d.run.PendingSince = d.now // the next step keeps its distance from the time at which they are back
		}
	} else if target := d.target(base); d.run.Started.IsZero() || target != d.run.To {
		d.start(base, target, !known)
	}
	d.advance()
}

// outgrown tells whether more pods are wanted than there are, which a freeze must not stand in the way of.
func (d *decider) outgrown() bool {
	return d.in.Profile != nil && d.in.Target != nil && !d.in.UpDisabled && *d.in.Target > d.in.Profile.Total()
}

// unstable tells that a run downwards must not go on, and that nobody may be let go.
func (d *decider) unstable() bool { return d.in.Unstable != "" && d.in.Down != nil }

// keeps tells that held pods must not be let go.
func (d *decider) keeps() bool { return d.in.DownDisabled || d.unstable() }

// freeze leaves everything as it is. Under In.Frozen somebody else restored the held pods, so they have to be cut again.
func (d *decider) freeze() {
	d.frozen, d.reason = true, "paused"
	if d.in.Frozen != "" {
		d.reason = "frozen: " + d.in.Frozen
		d.run.ObservedSince = time.Time{}
		if d.run.held() > 0 && d.run.PendingSince.IsZero() {
			d.run.PendingSince = d.now
		}
	}
	if !d.run.PendingSince.IsZero() && d.run.FrozenSince.IsZero() {
		d.run.FrozenSince = d.now
	}
}

// thaw ends what began with FrozenSince: that time counts neither for a pending step nor for held pods.
func (d *decider) thaw() {
	since := d.run.FrozenSince
	if since.IsZero() {
		return
	}
	later := func(t time.Time) time.Time { return t.Add(d.now.Sub(latest(t, since))) }
	if !d.run.PendingSince.IsZero() {
		d.run.PendingSince = later(d.run.PendingSince)
	}
	d.run.Held = slices.Clone(d.run.Held)
	for i := range d.run.Held {
		d.run.Held[i].Since = later(d.run.Held[i].Since)
	}
	d.run.FrozenSince = time.Time{}
}

// base is the profile that a new run would begin from, and whether it was ordered by anybody.
func (d *decider) base() (Profile, bool) {
	switch o := d.in.Observed; {
	case d.in.Profile != nil:
		p := *d.in.Profile
		return Profile{Online: count(p.Online), Cutoff: count(p.Cutoff), Standby: count(p.Standby)}, true
	case !d.run.Started.IsZero():
		return d.run.profile(), true
	default:
		scale := count(o.Scale)
		cutoff := min(count(o.Cutoff), scale)
		standby := min(count(o.Standby), scale-cutoff)
		return Profile{Online: scale - cutoff - standby, Cutoff: cutoff, Standby: standby}, false
	}
}

// target is the online count to go to. Without a valid value, or in a direction that is disabled, it is what is online now, so that
// a run ends where it is instead of holding pods for as long as that lasts.
func (d *decider) target(base Profile) int32 {
	switch {
	case d.in.Target == nil,
		d.in.UpDisabled && *d.in.Target > base.Online,
		d.in.DownDisabled && *d.in.Target < base.Online:
		return base.Online
	}
	return count(*d.in.Target)
}

// start begins a new run from what is online now.
func (d *decider) start(base Profile, target int32, first bool) {
	old := d.run
	pending := !old.PendingSince.IsZero() && d.in.Profile != nil && *d.in.Profile == old.profile()
	if pending && target > base.Online && base.Held() > 0 {
		// The step that was to cut these pods is not applied: those that still serve are online and must not be let go uncut.
		online := min(max(base.Online, d.in.Observed.Online), base.Total())
		base = Profile{Online: online, Cutoff: base.Total() - online}
	}
	// A mixture of held states is nothing that a run orders; it is made one.
	state := Cutoff
	if old.State == Standby || base.Standby > 0 && base.Cutoff == 0 {
		state = Standby
	}
	run := Run{From: base.Online, To: target, Started: d.now, LastStep: old.LastStep, FrozenSince: old.FrozenSince, Held: old.carry(base, d.now)}
	if run.held() > 0 {
		run.State = state
	}
	strategy := d.in.Down
	if target > run.From {
		strategy = d.in.Up
		if run.held() == 0 {
			run.State = Online
		}
		if !d.keeps() {
			run.letGo(run.held() - (target - run.From))
		}
	}
	if pending {
		if target <= run.From && old.profile().Online == run.From && old.To <= old.From {
			run.PendingSince = old.PendingSince
		} else {
			// Given up before it was applied: the next step keeps its distance from the time at which it was ordered.
			run.LastStep = latest(run.LastStep, old.PendingSince)
		}
	}
	if target == run.From {
		run.Percent = 100
	}
	d.run = run
	if first && target > run.From || strategy == nil {
		d.jump()
	}
}

// jump goes to the end at once. Held pods are turned on as far as they are needed and let go otherwise.
func (d *decider) jump() {
	d.run.wake(d.run.To - d.run.online())
	if !d.keeps() {
		d.run.Held = nil
	}
	d.run.Percent, d.run.PendingSince, d.run.ObservedSince = 100, time.Time{}, time.Time{}
}

// advance takes what is due at now. It ends at the first profile that has to be applied before anything else can follow.
func (d *decider) advance() {
	for {
		up := d.run.To > d.run.From
		strategy := d.in.Down
		if up {
			strategy = d.in.Up
		}
		if strategy == nil && d.run.Percent < 100 || d.in.Down == nil && !up {
			d.jump()
		}
		if down := d.in.Down; down != nil && down.State.holds() && d.run.held() > 0 {
			d.run.State = down.State
		} else if down != nil && !down.State.holds() && !up && !d.keeps() {
			d.run.State, d.run.Held = down.State, nil
		}
		if !d.run.PendingSince.IsZero() && !d.applied(strategy) {
			return
		}
		if d.unstable() && (!up && d.run.Percent < 100 || d.run.Percent >= 100 && d.run.held() > 0) {
			d.run.ObservedSince = time.Time{}
			if d.run.FrozenSince.IsZero() {
				d.run.FrozenSince = d.now
			}
			d.reason = fmt.Sprintf("%s: stopped, %s", d.run, d.in.Unstable)
			return
		}
		if d.run.Percent >= 100 {
			d.observe()
			return
		}
		due := d.run.LastStep.Add(strategy.Interval)
		if up && d.run.Steps == 0 || d.run.LastStep.IsZero() {
			due = d.now
		}
		if d.now.Before(due) {
			d.wake(due)
			d.reason = fmt.Sprintf("%s: next step at %s", d.run, due.Format(time.RFC3339))
			d.expire()
			return
		}
		if d.step(strategy) {
			return
		}
	}
}

// applied tells whether the pending step is applied, and says until when to wait otherwise.
func (d *decider) applied(strategy *Strategy) bool {
	o := d.in.Observed
	if d.in.Profile != nil && *d.in.Profile == d.run.profile() && o.Applied {
		at := d.now
		if !o.AppliedAt.IsZero() {
			// The condition's time may be older: it has whole seconds, and does not move while the condition stays True.
			at = earliest(d.now, latest(stamp(o.AppliedAt), d.run.PendingSince))
		}
		for i := range d.run.Held {
			if d.run.Held[i].Since.Equal(d.run.PendingSince) {
				d.run.Held[i].Since = at
			}
		}
		d.run.LastStep, d.run.PendingSince = at, time.Time{}
		return true
	}
	d.reason = fmt.Sprintf("%s: waiting for the step to be applied", d.run)
	d.stalls(strategy, d.run.PendingSince, fmt.Sprintf("the gray step to %s is not applied", d.run.profile()))
	return false
}

// stalls waits for what does not depend on time; after too long it says so and goes on waiting.
func (d *decider) stalls(strategy *Strategy, since time.Time, what string) {
	after := leastStall
	if strategy != nil {
		after = max(after, times(5, strategy.Interval))
	}
	deadline := since.Add(after)
	if d.now.Before(deadline) {
		d.wake(deadline)
		return
	}
	d.stall = fmt.Sprintf("%s since %s; nothing is scaled down until it is", what, since.Format(time.RFC3339))
	d.wake(d.now.Add(after))
}

// step takes the next step and tells whether its profile must be applied first.
func (d *decider) step(strategy *Strategy) bool {
	before := d.run.profile()
	d.run.Percent = min(100, d.run.Percent+strategy.ChangePercent)
	d.run.Steps++
	moved := d.run.online() - before.Online
	switch {
	case moved > 0:
		d.run.wake(moved)
	case moved < 0 && strategy.State.holds():
		d.run.State = strategy.State
		d.run.hold(-moved, d.now)
	}
	d.expire()
	if d.run.profile() == before {
		d.run.LastStep = d.now
		return false
	}
	d.run.PendingSince = d.now
	d.reason = fmt.Sprintf("%s: step %d", d.run, d.run.Steps)
	d.stalls(strategy, d.now, "")
	return true
}

// observe holds the pods until they were seen to be without traffic for the whole observation, then lets them go.
func (d *decider) observe() {
	if d.run.held() == 0 {
		d.run.ObservedSince = time.Time{}
		d.reason = fmt.Sprintf("at %d", d.run.To)
		return
	}
	var strategy Strategy
	if d.in.Down != nil {
		strategy = *d.in.Down
	}
	if n := d.in.Observed.CutReady; n > 0 {
		d.run.ObservedSince = time.Time{}
		d.reason = fmt.Sprintf("%s: waiting for %d cut pods to become unready", d.run, n)
		d.stalls(&strategy, latest(d.run.LastStep, d.run.Started), fmt.Sprintf("the last gray step is not finished, %d cut pods are Ready,", n))
		return
	}
	if d.run.ObservedSince.IsZero() {
		d.run.ObservedSince = d.now
	}
	due := d.run.ObservedSince.Add(strategy.Observation)
	switch {
	case d.in.DownDisabled:
		d.reason = fmt.Sprintf("%s: held until scaling down is enabled", d.run)
	case d.now.Before(due):
		d.wake(due)
		d.reason = fmt.Sprintf("%s: observed until %s", d.run, due.Format(time.RFC3339))
		d.expire()
	default:
		n := d.run.held()
		d.run.Held, d.run.ObservedSince = nil, time.Time{}
		d.reason = fmt.Sprintf("%s: %d held pods are let go", d.run, n)
	}
}

// expire lets go of pods that earlier runs left, once they were held as long as two undisturbed runs take.
func (d *decider) expire() {
	down := d.in.Down
	if down == nil || d.run.To > d.run.From || d.in.DownDisabled || d.in.Observed.CutReady > 0 {
		return
	}
	steps := int64(100+down.ChangePercent-1) / int64(down.ChangePercent)
	runs := times(2*steps, down.Interval)
	for carried := d.run.carried(); carried > 0 && len(d.run.Held) > 0; {
		due := d.run.Held[0].Since.Add(runs).Add(down.Observation)
		if d.now.Before(due) {
			d.wake(due)
			return
		}
		n := min(carried, d.run.Held[0].Replicas)
		d.run.letGo(n)
		carried -= n
	}
}

// wake asks to be called again at t at the latest.
func (d *decider) wake(t time.Time) {
	if d.next.IsZero() || t.Before(d.next) {
		d.next = t
	}
}

func (d *decider) decision(given Run) Decision {
	out := Decision{Run: d.run, Changed: !d.run.equal(given), GrayPercent: d.run.Percent, Next: d.next, Stalled: d.stall != "", StalledReason: d.stall}
	profile := d.in.Profile
	if !d.run.Started.IsZero() && (!d.frozen || profile != nil) {
		p := d.run.profile()
		if d.frozen {
			p = *profile
		}
		out.Write = profile == nil || *profile != p
		profile = &p
	}
	if profile != nil {
		p := *profile
		out.Profile, out.Step.Replicas = &p, p.Online
		out.Progressing = d.in.Target != nil && *d.in.Target != p.Online
		out.Active = d.run.Percent < 100 && !d.run.Started.IsZero() || p.Held() > 0 || !d.run.PendingSince.IsZero()
	}
	out.Step.Stage, out.Step.Reason = "gray", d.reason
	return out
}

// stamp gives a time the form that it has when it comes back from status, so that nothing differs after a restart.
func stamp(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC().Truncate(time.Microsecond)
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earliest(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// count keeps n within what can be added up: a count that is edited by hand must not overflow a total.
func count(n int32) int32 { return min(1<<29, max(0, n)) }

// times is n · d, or the longest duration if that is too long.
func times(n int64, d time.Duration) time.Duration {
	if n > 0 && d > time.Duration(math.MaxInt64/n) {
		return math.MaxInt64
	}
	return time.Duration(n) * d
}

// holds tells whether pods that leave are held in this state for a while.
func (s State) holds() bool { return s == Cutoff || s == Standby }

// mended returns the strategy within its bounds.
func (s *Strategy) mended() *Strategy {
	if s == nil {
		return nil
	}
	return &Strategy{State: s.State, ChangePercent: min(100, max(1, s.ChangePercent)), Interval: max(0, s.Interval), Observation: max(0, s.Observation)}
}

// mended returns the run without what cannot be: status can be edited, and clocks differ between leaders. A time in the future would
// hold up a run for as long, so it is taken as now.
func (r Run) mended(now time.Time) Run {
	past := func(t time.Time) time.Time { return earliest(stamp(t), now) }
	r.From, r.To, r.Steps = count(r.From), count(r.To), count(r.Steps)
	r.Percent = min(100, count(r.Percent))
	for _, t := range []*time.Time{&r.Started, &r.LastStep, &r.PendingSince, &r.FrozenSince, &r.ObservedSince} {
		*t = past(*t)
	}
	var held []Batch
	var sum int32
	for _, b := range r.Held {
		if n := min(count(b.Replicas), count(math.MaxInt32)-sum); n > 0 {
			held = append(held, Batch{Replicas: n, Since: past(b.Since)})
			sum += n
		}
	}
	r.Held = held
	slices.SortStableFunc(r.Held, func(a, b Batch) int { return a.Since.Compare(b.Since) })
	r.bound()
	return r
}

func (r Run) equal(o Run) bool {
	sameTime := func(a, b time.Time) bool { return a.Equal(b) }
	return r.From == o.From && r.To == o.To && r.State == o.State && r.Percent == o.Percent && r.Steps == o.Steps &&
		sameTime(r.Started, o.Started) && sameTime(r.LastStep, o.LastStep) && sameTime(r.PendingSince, o.PendingSince) &&
		sameTime(r.FrozenSince, o.FrozenSince) && sameTime(r.ObservedSince, o.ObservedSince) &&
		slices.EqualFunc(r.Held, o.Held, func(a, b Batch) bool { return a.Replicas == b.Replicas && a.Since.Equal(b.Since) })
}

// moved is how many pods the run has moved after its steps so far.
func (r Run) moved() int32 {
	if r.Percent == 0 || r.From == r.To {
		return 0
	}
	way := int64(max(r.From, r.To) - min(r.From, r.To))
	return int32(max(1, way*int64(r.Percent)/100))
}

func (r Run) online() int32 {
	if r.To > r.From {
		return r.From + r.moved()
	}
	return r.From - r.moved()
}

func (r Run) held() int32 {
	var n int32
	for _, b := range r.Held {
		n += b.Replicas
	}
	return n
}

// carried is how many of the held pods an earlier run has cut.
func (r Run) carried() int32 {
	if r.To > r.From {
		return r.held()
	}
	return max(0, r.held()-r.moved())
}

func (r Run) profile() Profile {
	if r.State == Standby {
		return Profile{Online: r.online(), Standby: r.held()}
	}
	return Profile{Online: r.online(), Cutoff: r.held()}
}

// carry returns the batches for as many held pods as base has: the newest are dropped, and those nobody knows of count from now.
func (r Run) carry(base Profile, now time.Time) []Batch {
	r.Held = slices.Clone(r.Held)
	if n := r.held() - base.Held(); n > 0 {
		r.wake(n)
	} else if n < 0 {
		r.hold(-n, now)
	}
	return r.Held
}

// hold adds n pods that were cut at now.
func (r *Run) hold(n int32, now time.Time) {
	if n <= 0 {
		return
	}
	r.Held = append(slices.Clone(r.Held), Batch{Replicas: n, Since: now})
	r.bound()
}

// wake takes n pods out of the held ones, those first that were cut last.
func (r *Run) wake(n int32) {
	r.Held = slices.Clone(r.Held)
	for i := len(r.Held) - 1; i >= 0 && n > 0; i-- {
		k := min(n, r.Held[i].Replicas)
		r.Held[i].Replicas -= k
		n -= k
	}
	r.Held = slices.DeleteFunc(r.Held, func(b Batch) bool { return b.Replicas == 0 })
}

// letGo takes n pods out of the held ones, those first that were cut first.
func (r *Run) letGo(n int32) {
	slices.Reverse(r.Held)
	r.wake(n)
	slices.Reverse(r.Held)
}

// bound puts the batches together that are closest in time while there are too many. The older time holds: never held longer.
func (r *Run) bound() {
	for len(r.Held) > MaxBatches {
		best := 1
		for i := 2; i < len(r.Held); i++ {
			if r.Held[i].Since.Sub(r.Held[i-1].Since) < r.Held[best].Since.Sub(r.Held[best-1].Since) {
				best = i
			}
		}
		r.Held[best-1].Replicas += r.Held[best].Replicas
		r.Held = slices.Delete(r.Held, best, best+1)
	}
}

// String says what the run does, for reasons in records.
func (r Run) String() string {
	held := ""
	if n := r.held(); n > 0 {
		held = fmt.Sprintf(", %d held as %s", n, r.State)
	}
	return fmt.Sprintf("%d -> %d at %d %%, %d online%s", r.From, r.To, r.Percent, r.online(), held)
}
