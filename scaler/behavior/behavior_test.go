package behavior

import (
	"encoding/json"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/kubetide/kubetide/internal/decision"
)

var now = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func ago(d time.Duration) time.Time { return now.Add(-d) }

// rule is the HPA's rules as its tables write them: so many pods and percent per seconds, and a window in seconds.
func rule(pods int32, podsPeriod time.Duration, percent int32, percentPeriod time.Duration, window time.Duration) *Rules {
	r := &Rules{StabilizationWindow: new(window * time.Second), SelectPolicy: Max}
	if pods != 0 {
		r.Policies = append(r.Policies, Policy{Pods, pods, podsPeriod * time.Second})
	}
	if percent != 0 {
		r.Policies = append(r.Policies, Policy{Percent, percent, percentPeriod * time.Second})
	}
	return r
}

func selecting(s SelectPolicy, r *Rules) *Rules { r.SelectPolicy = s; return r }

// spread puts changes into the middle of equal parts of the last seconds, as the HPA's tables do.
func spread(seconds int, replicas ...int32) (out []Change) {
	part := time.Duration(seconds) * time.Second / time.Duration(len(replicas))
	for i, n := range replicas {
		out = append(out, Change{Replicas: n, Time: ago(part*time.Duration(len(replicas)-i-1) + part/2)})
	}
	return out
}

// logged is a state with recommendations that were seen once, as in the HPA's log; its first sight is long ago.
func logged(seen ...Recommendation) State {
	seen = append([]Recommendation{{0, ago(24 * time.Hour)}}, seen...)
	return State{Highest: seen, Lowest: seen}
}

func changed(ups, downs []Change) State { s := logged(); s.Ups, s.Downs = ups, downs; return s }

// restarted is the state after it went through the object's status.
func restarted(t rapid.TB, s State) (out State) {
	t.Helper()
	b, err := json.Marshal(s)
	if err == nil {
		err = json.Unmarshal(b, &out)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, list := range [][]Recommendation{out.Highest, out.Lowest} {
		for i := range list {
			list[i].Until = list[i].Until.Truncate(time.Microsecond).Local() // as metav1.MicroTime does
		}
	}
	if out.Order != nil {
		out.Order.Since = out.Order.Since.Local()
	}
	if !s.Equal(out) {
		t.Fatalf("the state changes on its way: %s", cmp.Diff(s, out))
	}
	return out
}

func TestTheHPAsFacts(t *testing.T) {
	const (
		within                        = "DesiredWithinRange"
		few, many, upLimit, downLimit = "TooFewReplicas", "TooManyReplicas", "ScaleUpLimit", "ScaleDownLimit"
		stableUp, stableDown, ready   = "ScaleUpStabilized", "ScaleDownStabilized", ""
		minute                        = time.Minute
		compatible                    = true
		behaves                       = false
	)
	calm := rule(0, 0, 0, 0, 0)
	cases := map[string]struct {
		compatible             bool
		current, wanted        int32
		lowest, highest        int32
		up, down               *Rules
		state                  State
		want                   int32
		reason, stabilized     string
		andOnce, andOnceReason string
	}{
		"26a: fewer than the minimum":                         {compatible: compatible, current: 3, wanted: 1, lowest: 2, highest: 5, state: logged(), want: 2, reason: few},
		"26b: zero with a minimum of zero":                    {compatible: compatible, current: 3, wanted: 0, lowest: 0, highest: 6, state: logged(), want: 0, reason: within},
		"26c: the count is below the minimum":                 {compatible: compatible, current: 2, wanted: 9, lowest: 3, highest: 10, state: logged(), want: 3, reason: few},
		"26d: the count is above the maximum":                 {compatible: compatible, current: 10, wanted: 3, lowest: 2, highest: 5, state: logged(), want: 5, reason: many},
		"26c with behavior: no policy slows it":               {current: 2, wanted: 9, lowest: 30, highest: 50, up: rule(1, 60, 0, 0, 300), state: logged(), want: 30, reason: few},
		"26d with behavior: no policy slows it":               {current: 100, wanted: 3, lowest: 2, highest: 5, down: rule(1, 60, 0, 0, 300), state: logged(), want: 5, reason: many},
		"27b: from zero":                                      {compatible: compatible, current: 0, wanted: 2, lowest: 0, highest: 10, state: logged(), want: 2, reason: within},
		"27c: one from zero":                                  {compatible: compatible, current: 0, wanted: 1, lowest: 0, highest: 10, state: logged(), want: 1, reason: within},
		"27d: from zero with the minimum raised":              {compatible: compatible, current: 0, wanted: 1, lowest: 2, highest: 10, state: logged(), want: 2, reason: few},
		"from zero far: four at first":                        {compatible: compatible, current: 0, wanted: 9, lowest: 1, highest: 10, state: logged(), want: 4, reason: upLimit},
		"from zero with the minimum above what policies give": {current: 0, wanted: 9, lowest: 6, highest: 10, up: rule(2, 60, 0, 0, 0), state: logged(), want: 6, reason: upLimit},
		"28a: 700 percent":                                    {current: 3, wanted: 100, lowest: 2, highest: 100, up: rule(0, 0, 700, 60, 0), state: logged(), want: 24, reason: upLimit},
		"28b: 700 percent above the maximum":                  {current: 3, wanted: 100, lowest: 2, highest: 20, up: rule(0, 0, 700, 60, 0), state: logged(), want: 20, reason: many},
		"a limit equal to the maximum is the maximum's":       {current: 3, wanted: 100, lowest: 2, highest: 24, up: rule(0, 0, 700, 60, 0), state: logged(), want: 24, reason: many},
		"30: within":              {compatible: compatible, current: 5, wanted: 7, lowest: 3, highest: 8, state: logged(), want: 7, reason: within},
		"30: below":               {compatible: compatible, current: 3, wanted: 1, lowest: 2, highest: 8, state: logged(), want: 2, reason: few},
		"30a: at most the double": {compatible: compatible, current: 3, wanted: 1000, lowest: 1, highest: 2000, state: logged(), want: 6, reason: upLimit},
		"30a: or four":            {compatible: compatible, current: 1, wanted: 1000, lowest: 1, highest: 2000, state: logged(), want: 4, reason: upLimit},
		"30b: the maximum":        {compatible: compatible, current: 10, wanted: 1000, lowest: 1, highest: 10, state: logged(), want: 10, reason: many},
		"31: the empty log":       {compatible: compatible, current: 5, wanted: 5, lowest: 1, highest: 100, state: logged(), want: 5, reason: within},
		"31a: the highest of five minutes": {compatible: compatible, current: 5, wanted: 3, lowest: 1, highest: 100,
			state: logged(Recommendation{4, ago(2 * minute)}, Recommendation{5, ago(minute)}), want: 5, reason: within, stabilized: stableDown},
		"31a: also above the current count": {compatible: compatible, current: 3, wanted: 3, lowest: 1, highest: 100,
			state: logged(Recommendation{4, ago(2 * minute)}, Recommendation{5, ago(minute)}), want: 5, reason: within, stabilized: stableDown},
		"31: lower ones do not hold": {compatible: compatible, current: 2, wanted: 3, lowest: 1, highest: 100,
			state: logged(Recommendation{1, ago(2 * minute)}, Recommendation{2, ago(minute)}), want: 3, reason: within},
		"31b: old ones do not hold": {compatible: compatible, current: 9, wanted: 3, lowest: 1, highest: 100,
			state: logged(Recommendation{10, ago(10 * minute)}, Recommendation{9, ago(9 * minute)}), want: 3, reason: within},
		"31b: old ones among new ones do not hold": {compatible: compatible, current: 9, wanted: 3, lowest: 1, highest: 100,
			state: logged(Recommendation{10, ago(10 * minute)}, Recommendation{4, ago(minute)}, Recommendation{5, ago(2 * minute)}, Recommendation{9, ago(9 * minute)}),
			want:  5, reason: within, stabilized: stableDown},
		"31 with behavior": {current: 100, wanted: 3, lowest: 1, highest: 100, up: calm, down: rule(0, 0, 0, 0, 180),
			state: logged(Recommendation{4, ago(2 * minute)}, Recommendation{5, ago(minute)}), want: 5, reason: within, stabilized: stableDown},
		"31b with behavior": {current: 100, wanted: 3, lowest: 1, highest: 100, up: calm, down: rule(0, 0, 0, 0, 180),
			state: logged(Recommendation{10, ago(10 * minute)}, Recommendation{4, ago(minute)}, Recommendation{5, ago(2 * minute)}, Recommendation{9, ago(9 * minute)}),
			want:  5, reason: within, stabilized: stableDown},
		"31 with behavior: no window": {current: 100, wanted: 3, lowest: 1, highest: 100, up: rule(0, 0, 0, 0, 300), down: calm,
			state: logged(Recommendation{1, ago(2 * minute)}, Recommendation{2, ago(minute)}), want: 3, reason: within},
		"32a: two windows, down": {current: 2, wanted: 1, lowest: 1, highest: 100, up: rule(0, 0, 0, 0, 300), down: rule(0, 0, 0, 0, 300),
			state: logged(Recommendation{2, ago(100 * minute)}, Recommendation{3, ago(3 * minute)}), want: 2, reason: within, stabilized: stableDown},
		"32b: two windows, up": {current: 2, wanted: 3, lowest: 1, highest: 100, up: rule(0, 0, 0, 0, 300), down: rule(0, 0, 0, 0, 300),
			state: logged(Recommendation{2, ago(100 * minute)}, Recommendation{1, ago(3 * minute)}), want: 2, reason: within, stabilized: stableUp},
		"33: the lowest of the up window": {current: 1, wanted: 7, lowest: 1, highest: 100, up: rule(0, 0, 0, 0, 300), down: calm,
			state: logged(Recommendation{4, ago(2 * minute)}, Recommendation{5, ago(minute)}), want: 4, reason: within, stabilized: stableUp},
		"33: old ones do not count": {current: 1, wanted: 100, lowest: 1, highest: 100, up: rule(0, 0, 0, 0, 300), down: calm,
			state: logged(Recommendation{6, ago(minute)}, Recommendation{5, ago(2 * minute)}, Recommendation{9, ago(3 * minute)}), want: 5, reason: within, stabilized: stableUp},
		"33: no up window": {current: 1, wanted: 3, lowest: 1, highest: 100, up: calm, down: rule(0, 0, 0, 0, 300),
			state: logged(Recommendation{4, ago(2 * minute)}, Recommendation{5, ago(minute)}), want: 3, reason: within},

		"34: one pod":               {current: 3, wanted: 1000, up: rule(0, 0, 1, 60, 0), want: 4, reason: upLimit},
		"34: an HPA's default":      {current: 10, wanted: 50, down: rule(0, 0, 0, 0, 300), up: &Rules{}, want: 20, reason: upLimit},
		"34a: pods beat percent":    {current: 10, wanted: 500, up: rule(100, 60, 100, 60, 0), want: 110, reason: upLimit},
		"34b: percent beat pods":    {current: 10, wanted: 500, up: rule(2, 60, 100, 60, 0), want: 20, reason: upLimit},
		"34c: pods alone":           {current: 10, wanted: 50, up: rule(30, 60, 0, 0, 0), want: 40, reason: upLimit},
		"34d: percent alone":        {current: 10, wanted: 50, up: rule(0, 0, 200, 60, 0), want: 30, reason: upLimit},
		"34: more than enough":      {current: 10, wanted: 50, up: rule(100, 60, 0, 0, 0), want: 50, reason: within},
		"trap 3: 1000 to 3 by 20":   {current: 1000, wanted: 3, lowest: 3, highest: 2000, down: rule(20, 60, 0, 0, 0), want: 980, reason: downLimit},
		"35a: pods beat percent":    {current: 100, wanted: 2, down: rule(20, 60, 1, 60, 300), want: 80, reason: downLimit},
		"35b: still pods":           {current: 100, wanted: 2, down: rule(2, 60, 1, 60, 300), want: 98, reason: downLimit},
		"35c: half":                 {current: 10, wanted: 2, down: rule(5, 60, 0, 0, 300), want: 5, reason: downLimit},
		"35: to the minimum":        {current: 10, wanted: 0, down: rule(100, 60, 0, 0, 300), want: 1, reason: few},
		"35: to a minimum of 5":     {current: 10, wanted: 2, lowest: 5, highest: 1000, down: rule(0, 0, 100, 60, 300), want: 5, reason: few},
		"35: percent, just enough":  {current: 10, wanted: 5, down: rule(0, 0, 50, 60, 300), want: 5, reason: within},
		"36a: the smaller way up":   {current: 1, wanted: 100, up: selecting(Min, rule(2, 60, 50, 60, 0)), want: 2, reason: upLimit},
		"36b: the smaller way down": {current: 5, wanted: 1, down: selecting(Min, rule(2, 60, 50, 60, 0)), want: 3, reason: downLimit},
		"up is disabled":            {current: 5, wanted: 9, up: selecting(Disabled, rule(2, 60, 50, 60, 0)), want: 5, reason: upLimit},
		"down is disabled":          {current: 5, wanted: 1, down: selecting(Disabled, rule(2, 60, 50, 60, 0)), want: 5, reason: downLimit},

		"37: events and the maximum": {current: 100, wanted: 500, lowest: 1, highest: 200, up: rule(300, 60, 0, 0, 0), state: changed(spread(120, 1, 5, 9), nil), want: 200, reason: many},
		"37: percent, the maximum":   {current: 100, wanted: 500, lowest: 1, highest: 200, up: rule(0, 0, 10000, 60, 0), state: changed(spread(120, 1, 5, 9), nil), want: 200, reason: many},
		"37a: used up":               {current: 100, wanted: 500, up: rule(5, 120, 0, 0, 0), state: changed(spread(120, 1, 5, 9), nil), want: 100, reason: upLimit},
		"37b: pods":                  {current: 100, wanted: 500, up: rule(150, 120, 0, 0, 0), state: changed(spread(120, 1, 5, 9), nil), want: 235, reason: upLimit},
		"37c: percent":               {current: 100, wanted: 500, up: rule(0, 0, 200, 120, 0), state: changed(spread(120, 1, 5, 9), nil), want: 255, reason: upLimit},
		"37: two periods, both": {current: 100, wanted: 200, up: rule(1000, 120, 100, 60, 0), state: changed(spread(120, 8, 12, 9, 11), nil),
			want: 200, reason: within},
		"37: half the events count in half the period": {current: 100, wanted: 500, up: rule(0, 0, 100, 60, 0), state: changed(spread(120, 8, 12, 9, 11), nil),
			want: 160, reason: upLimit},
		"38: the default": {current: 10, wanted: 5, up: calm, down: &Rules{StabilizationWindow: new(time.Duration(0))}, state: changed(nil, spread(120, 1, 5, 9)),
			want: 5, reason: within},
		"38: enough for the minimum": {current: 100, wanted: 0, down: rule(115, 120, 0, 0, 300), state: changed(nil, spread(120, 1, 5, 9)), want: 1, reason: few},
		"38: a minimum of 5":         {current: 100, wanted: 0, lowest: 5, highest: 1000, down: rule(130, 120, 0, 0, 300), state: changed(nil, spread(120, 1, 5, 9)), want: 5, reason: few},
		"38: all of it":              {current: 100, wanted: 2, lowest: 5, highest: 1000, down: rule(0, 0, 100, 120, 300), state: changed(nil, spread(120, 1, 5, 9)), want: 5, reason: few},
		"38a: used up":               {current: 100, wanted: 2, down: rule(5, 120, 0, 0, 300), state: changed(nil, spread(120, 1, 5, 9)), want: 100, reason: downLimit},
		"38b: percent":               {current: 100, wanted: 0, down: rule(0, 0, 50, 120, 300), state: changed(nil, spread(120, 2, 4, 6)), want: 56, reason: downLimit},
		"38c: more than used up":     {current: 100, wanted: 0, down: rule(0, 0, 10, 120, 300), state: changed(nil, spread(120, 10, 10, 10)), want: 100, reason: downLimit},
		"38: below zero":             {current: 10, wanted: 5, down: rule(0, 0, 1000, 120, 300), state: changed(nil, spread(120, 10, 10, 10)), want: 5, reason: within},
		"38d: mixed, down":           {current: 10, wanted: 1, down: rule(0, 0, 50, 180, 0), state: changed(spread(120, 2), spread(120, 4)), want: 6, reason: downLimit},
		"38e: mixed, up":             {current: 6, wanted: 24, up: rule(0, 0, 300, 300, 0), state: changed(spread(120, 4), spread(120, 2)), want: 16, reason: upLimit},

		"no rules: only the bounds":              {current: 3, wanted: 1000, lowest: 1, highest: 50, state: State{}, want: 50, reason: many},
		"no rules: down at once":                 {current: 100, wanted: 3, lowest: 1, highest: 50, state: State{}, want: 3, reason: within},
		"contradicting bounds: the maximum":      {current: 4, wanted: 1, lowest: 5, highest: 3, up: calm, state: logged(), want: 3, reason: many},
		"contradicting bounds: there it rests":   {current: 3, wanted: 1, lowest: 5, highest: 3, up: calm, state: logged(), want: 3, reason: many},
		"a percentage of nothing allows one pod": {current: 0, wanted: 9, lowest: 0, highest: 10, up: rule(0, 0, 100, 60, 0), state: logged(), want: 1, reason: upLimit},
		"huge numbers do not wrap":               {current: math.MaxInt32 - 1, wanted: math.MaxInt32, lowest: 1, highest: math.MaxInt32, up: rule(0, 0, 1000000, 60, 0), state: logged(), want: math.MaxInt32, reason: within},
		"a compatible doubling is counted per 15 s": {compatible: compatible, current: 6, wanted: 1000, lowest: 1, highest: 2000,
			state: changed([]Change{{Replicas: 3, Time: ago(14 * time.Second)}}, nil), want: 6, reason: upLimit},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if c.highest == 0 {
				c.lowest, c.highest = 1, 1000
			}
			if c.state.Highest == nil {
				c.state.Highest, c.state.Lowest = logged().Highest, logged().Lowest
			}
			// The HPA's table of policies goes past the windows, so the rows that do not speak of windows have none that holds.
			up, down := Defaulted(c.up, c.down)
			in := Inputs{Wanted: c.wanted, Current: c.current, Min: c.lowest, Max: c.highest, Up: up, Down: down, Compatible: c.compatible}
			for restart, state := range map[string]State{"at once": c.state, "after a restart": restarted(t, c.state)} {
				d := Decide(state, in, now)
				got := []string{d.Reason, d.Stabilized}
				if diff := cmp.Diff([]string{c.reason, c.stabilized}, got); diff != "" || d.Replicas != c.want {
					t.Errorf("%s %d, want %d; reasons (-want +got):\n%s%v", restart, d.Replicas, c.want, diff, d.Steps)
				}
				if again := Decide(restarted(t, d.State), in, now); again.Changed || again.Replicas != d.Replicas {
					t.Errorf("asked again %s: %d, changed %t", restart, again.Replicas, again.Changed)
				}
				if limited := d.Reason != within; d.Limited != limited || d.Message == "" {
					t.Errorf("limited is %t, message %q", d.Limited, d.Message)
				}
			}
		})
	}
}

func TestWhatIsNotSetIsTheHPAs(t *testing.T) {
	upDefault := &Rules{new(time.Duration(0)), Max, []Policy{{Pods, 4, 15 * time.Second}, {Percent, 100, 15 * time.Second}}}
	downDefault := &Rules{new(300 * time.Second), Max, []Policy{{Percent, 100, 15 * time.Second}}}
	one := []Policy{{Pods, 1, time.Minute}}
	cases := map[string]struct{ up, down, wantUp, wantDown *Rules }{
		"nothing is set: no behavior":       {nil, nil, nil, nil},
		"an empty direction is all default": {&Rules{}, nil, upDefault, downDefault},
		"the other direction is default":    {nil, &Rules{Policies: one}, upDefault, &Rules{downDefault.StabilizationWindow, Max, one}},
		"a window alone":                    {&Rules{StabilizationWindow: new(time.Minute)}, nil, &Rules{new(time.Minute), Max, upDefault.Policies}, downDefault},
		"no window is a window of its own":  {nil, &Rules{StabilizationWindow: new(time.Duration(0))}, upDefault, &Rules{new(time.Duration(0)), Max, downDefault.Policies}},
		"select alone":                      {&Rules{SelectPolicy: Disabled}, nil, &Rules{upDefault.StabilizationWindow, Disabled, upDefault.Policies}, downDefault},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			up, down := Defaulted(c.up, c.down)
			if diff := cmp.Diff([]*Rules{c.wantUp, c.wantDown}, []*Rules{up, down}); diff != "" {
				t.Errorf("rules (-want +got):\n%s", diff)
			}
		})
	}
}

// world carries decisions out at once.
type world struct {
	t     rapid.TB
	in    Inputs
	state State
	at    time.Time
	last  Decision
	// writes counts the changes of the state.
	writes int
}

func (w *world) decide() int32 {
	w.last = Decide(restarted(w.t, w.state), w.in, w.at)
	if w.last.Changed {
		w.writes++
	}
	w.state = w.last.State
	if w.last.Replicas != w.in.Current {
		w.state = carryOut(w.t, w.state, &w.in, w.last.Replicas, w.at)
	}
	return w.in.Current
}

// carryOut has the count follow at once.
func carryOut(t rapid.TB, s State, in *Inputs, to int32, at time.Time) State {
	t.Helper()
	s = restarted(t, Ordered(s, *in, to, at))
	in.Current = to
	return restarted(t, Counted(s, *in, at))
}

func (w *world) want(n int32, at time.Duration) int32 {
	w.in.Wanted, w.at = n, now.Add(at)
	return w.decide()
}

func TestStagesInWords(t *testing.T) {
	w := &world{t: t, in: Inputs{Current: 9, Min: 1, Max: 100}}
	w.in.Up, w.in.Down = Defaulted(&Rules{Policies: []Policy{{Pods, 4, 15 * time.Second}}}, &Rules{})
	check := func(at time.Duration, wanted, replicas int32, next time.Duration, steps ...decision.Step) {
		t.Helper()
		w.want(wanted, at)
		var wantNext time.Time
		if next != 0 {
			wantNext = now.Add(next)
		}
		if diff := cmp.Diff(steps, w.last.Steps); diff != "" || w.last.Replicas != replicas || !w.last.Next.Equal(wantNext) {
			t.Errorf("after %s: %d, next %s, want %d and %s; steps (-want +got):\n%s", at, w.last.Replicas, w.last.Next, replicas, wantNext, diff)
		}
	}
	const s, m = time.Second, time.Minute
	check(-m, 9, 9, 0, decision.Step{Stage: "stabilization", Replicas: 9, Reason: "no recent recommendation stands against it"},
		decision.Step{Stage: "clamp", Replicas: 9, Reason: "within the bounds"})
	check(-30*s, 3, 9, 4*m+30*s, decision.Step{Stage: "stabilization", Replicas: 9, Reason: "scale-down blocked until 12:04:30 by the recommendation of 9 at 11:59:30"},
		decision.Step{Stage: "clamp", Replicas: 9, Reason: "within the bounds"})
	if !w.last.BlockedUntil.Equal(now.Add(4*m + 30*s)) {
		t.Errorf("blocked until %s", w.last.BlockedUntil)
	}
	check(0, 50, 13, 0, decision.Step{Stage: "stabilization", Replicas: 50, Reason: "no recent recommendation stands against it"},
		decision.Step{Stage: "policies", Replicas: 13, Reason: "at most 4 pods in 15s: 13"}, decision.Step{Stage: "clamp", Replicas: 13, Reason: "within the bounds"})
	check(s, 50, 13, 15*s, decision.Step{Stage: "stabilization", Replicas: 50, Reason: "no recent recommendation stands against it"},
		decision.Step{Stage: "policies", Replicas: 13, Reason: "scale-up blocked until 12:00:15, at most 4 pods in 15s: 13"},
		decision.Step{Stage: "clamp", Replicas: 13, Reason: "within the bounds"})
	check(15*s, 14, 14, 0, decision.Step{Stage: "stabilization", Replicas: 14, Reason: "no recent recommendation stands against it"},
		decision.Step{Stage: "policies", Replicas: 14, Reason: "within the policies"}, decision.Step{Stage: "clamp", Replicas: 14, Reason: "within the bounds"})
	w.in.Max = 10
	check(16*s, 14, 10, 0, decision.Step{Stage: "clamp", Replicas: 10, Reason: "TooManyReplicas: the count is 14, and goes straight to the bound"})
	w.in.Down.SelectPolicy, w.in.Down.StabilizationWindow = Disabled, nil
	check(17*s, 3, 10, 0, decision.Step{Stage: "policies", Replicas: 10, Reason: "scale-down is disabled"}, decision.Step{Stage: "clamp", Replicas: 10, Reason: "within the bounds"})
	w.in.Down.SelectPolicy, w.in.Down.StabilizationWindow, w.in.Down.Policies = Min, new(m), []Policy{{Percent, 10, m}, {Percent, 20, m}}
	w.state = logged(Recommendation{8, now})
	check(20*s, 3, 9, 0, decision.Step{Stage: "stabilization", Replicas: 8, Reason: "no further than 8 until 12:01:00 by the recommendation of 8 at 12:00:00"},
		decision.Step{Stage: "policies", Replicas: 9, Reason: "at most 10% in 1m0s: 9"}, decision.Step{Stage: "clamp", Replicas: 9, Reason: "within the bounds"})
	w.in.Up, w.in.Down, w.in.Max = nil, nil, 8
	check(21*s, 30, 8, 0, decision.Step{Stage: "clamp", Replicas: 8, Reason: "TooManyReplicas: 30 was wanted"})
	if !w.state.Equal(State{}) {
		t.Errorf("without rules the state is %+v", w.state)
	}
}

func TestWindows(t *testing.T) {
	const s, m = time.Second, time.Minute
	down := func() *world {
		return &world{t: t, in: Inputs{Current: 9, Min: 0, Max: 100, Up: &Rules{}, Down: &Rules{StabilizationWindow: new(5 * m)}}}
	}
	type look struct {
		at     time.Duration
		wanted int32
		want   int32
	}
	cases := map[string]struct {
		world *world
		looks []look
	}{
		"the first sight counts the current count as wanted until now":    {down(), []look{{0, 3, 9}, {5*m - 1000, 3, 9}, {5 * m, 3, 3}}},
		"a recommendation counts until the next one, not when it came":    {down(), []look{{-60 * m, 9, 9}, {0, 3, 9}, {5*m - 1000, 3, 9}, {5 * m, 3, 3}}},
		"time without a controller does not shorten a window":             {down(), []look{{-60 * m, 9, 9}, {60 * m, 3, 9}, {65*m - 1000, 3, 9}, {65 * m, 3, 3}}},
		"the way down follows each recommendation's end":                  {down(), []look{{0, 9, 9}, {m, 7, 9}, {2 * m, 5, 9}, {3 * m, 1, 9}, {6 * m, 1, 7}, {7 * m, 1, 5}, {8 * m, 1, 1}}},
		"a dip is forgotten upwards at once":                              {down(), []look{{0, 9, 9}, {m, 1, 9}, {2 * m, 12, 12}, {3 * m, 1, 12}, {8*m - 1000, 1, 12}, {8 * m, 1, 1}}},
		"a clock set back holds for one window and no longer":             {down(), []look{{60 * m, 9, 9}, {61 * m, 3, 9}, {0, 3, 9}, {5*m - 1000, 3, 9}, {5 * m, 3, 3}}},
		"what was wanted below the microsecond does not matter":           {down(), []look{{0, 9, 9}, {m + 1, 3, 9}, {6*m - 1, 3, 9}, {6*m + 1, 3, 3}}},
		"an up window waits for the lowest":                               {&world{t: t, in: Inputs{Current: 1, Max: 100, Up: &Rules{StabilizationWindow: new(m)}}}, []look{{0, 1, 1}, {10 * s, 9, 1}, {20 * s, 7, 1}, {70*s - 1000, 9, 1}, {70 * s, 9, 7}, {130*s - 2000, 9, 7}, {130*s - 1000, 9, 9}}},
		"compatible: the highest of five minutes holds, but bounded":      {&world{t: t, in: Inputs{Current: 9, Max: 8, Compatible: true}}, []look{{0, 3, 8}, {5*m - 1000, 3, 8}, {5 * m, 3, 3}}},
		"compatible: doubles every 15 s and no sooner":                    {&world{t: t, in: Inputs{Current: 3, Max: 100, Compatible: true}}, []look{{0, 50, 6}, {s, 50, 6}, {15 * s, 50, 12}, {29 * s, 50, 12}, {30 * s, 50, 24}, {45 * s, 50, 48}, {60 * s, 50, 50}}},
		"from nothing, by percent alone":                                  {&world{t: t, in: Inputs{Max: 100, Up: rule(0, 0, 100, 15, 0)}}, []look{{0, 4, 1}, {s, 4, 1}, {15 * s, 4, 2}, {30 * s, 4, 4}}},
		"what went down may come up again within the policy":              {&world{t: t, in: Inputs{Current: 10, Max: 100, Up: rule(2, 60, 0, 0, 0), Down: rule(5, 60, 0, 0, 0)}}, []look{{0, 0, 5}, {s, 50, 12}, {2 * s, 50, 12}, {60 * s, 50, 12}, {61 * s, 50, 14}}},
		"a steady wish below the limit is not counted as a change of any": {&world{t: t, in: Inputs{Current: 10, Max: 100, Up: rule(2, 60, 0, 0, 0)}}, []look{{0, 10, 10}, {s, 10, 10}, {2 * s, 12, 12}}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var got []look
			for _, l := range c.looks {
				got = append(got, look{l.at, l.wanted, c.world.want(l.wanted, l.at)})
			}
			if diff := cmp.Diff(c.looks, got, cmp.AllowUnexported(look{})); diff != "" {
				t.Errorf("looks (-want +got):\n%s\n%+v", diff, c.world.last)
			}
		})
	}
}

func TestNothingIsWrittenWhileTheRecommendationStays(t *testing.T) {
	w := &world{t: t, in: Inputs{Current: 9, Max: 100}}
	w.in.Up, w.in.Down = Defaulted(&Rules{StabilizationWindow: new(time.Minute)}, &Rules{})
	w.want(3, 0)
	for at := time.Duration(0); at < time.Hour; at += 7 * time.Second {
		w.want(3, at)
	}
	if w.writes != 1 || w.in.Current != 3 {
		t.Errorf("%d writes on the way to %d, want 1 and 3: %+v", w.writes, w.in.Current, w.state)
	}
}

func TestWhatNoLongerCountsGoesWithTheNextWrite(t *testing.T) {
	const m = time.Minute
	old := Change{Replicas: 3, Time: now.Add(-m)}
	state := State{Highest: []Recommendation{{9, now.Add(-m)}, {8, now.Add(-m + 1000)}, {7, time.Time{}}}, Ups: []Change{old, {Replicas: 2, Time: now}}, Downs: []Change{old}}
	in := Inputs{Current: 9, Wanted: 7, Max: 100, Up: rule(1, 60, 1, 30, 0), Down: rule(1, 15, 0, 0, 60)}
	if d := Decide(state, in, now); d.Changed {
		t.Errorf("changed by time alone: %s", cmp.Diff(state, d.State))
	}
	in.Wanted = 6
	want := State{Highest: []Recommendation{{8, now.Add(-m + 1000)}, {7, now}, {6, time.Time{}}}, Ups: state.Ups[1:]}
	if diff := cmp.Diff(want, Decide(state, in, now).State, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("state (-want +got):\n%s", diff)
	}
	want = State{Highest: state.Highest, Ups: state.Ups[1:], Downs: []Change{{Replicas: 5, Time: now}}}
	carried := in
	if diff := cmp.Diff(want, carryOut(t, state, &carried, 4, now.Add(1)), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("counted (-want +got):\n%s", diff)
	}
	in.Up, in.Down = nil, nil
	if d := Decide(state, in, now); !d.Changed || !d.State.Equal(State{}) {
		t.Errorf("without limits: %+v", d.State)
	}
	if s := Ordered(State{}, in, 4, now); !s.Equal(State{}) {
		t.Errorf("ordered without limits: %+v", s)
	}
	if s := Counted(State{Ups: state.Ups, Order: &Order{From: 9, To: 4, Since: now}}, in, now); !s.Equal(State{}) {
		t.Errorf("counted without limits: %+v", s)
	}
}

func TestNextKnowsChangesThatWerePutTogether(t *testing.T) {
	const s = time.Second
	both := []Change{{Replicas: 2, First: now.Add(-10 * s), Time: now}}
	in := Inputs{Current: 10, Wanted: 50, Max: 100, Up: rule(2, 60, 0, 0, 0)}
	used := Decide(State{Ups: both}, in, now)
	if want := now.Add(60 * s); used.Replicas != 10 || !used.Next.Equal(want) || !used.BlockedUntil.Equal(want) {
		t.Errorf("used up: %d, next %s, blocked until %s", used.Replicas, used.Next, used.BlockedUntil)
	}
	given := Decide(State{Downs: both}, in, now)
	if want := now.Add(50 * s); given.Replicas != 14 || !given.Next.Equal(want) || !given.BlockedUntil.IsZero() {
		t.Errorf("given back: %d, next %s, blocked until %s", given.Replicas, given.Next, given.BlockedUntil)
	}
}

func TestALapsedRecommendationAges(t *testing.T) {
	w := &world{t: t, in: Inputs{Current: 9, Max: 100}}
	w.in.Up, w.in.Down = Defaulted(nil, &Rules{})
	w.want(9, 0)
	w.state = w.state.Lapsed(now.Add(time.Minute))
	if later := w.state.Lapsed(now.Add(2 * time.Minute)); !later.Equal(w.state) {
		t.Errorf("lapses twice: %+v, then %+v", w.state, later)
	}
	if got := w.want(3, 4*time.Minute); got != 9 {
		t.Errorf("%d within the window", got)
	}
	if got := w.want(3, 6*time.Minute); got != 3 {
		t.Errorf("%d after the window", got)
	}
}

func TestPutTogetherChangesLimitBothWaysAtLeastAsMuch(t *testing.T) {
	var list []Change
	for i := range MaxEntries + 1 {
		at := time.Duration(i) * time.Minute
		if i == 7 {
			at -= 50 * time.Second
		}
		list = added(list, Change{Replicas: 1, Time: now.Add(at)})
	}
	want := Change{Replicas: 2, First: now.Add(6 * time.Minute), Time: now.Add(6*time.Minute + 10*time.Second)}
	if len(list) != MaxEntries || !slices.Contains(list, want) {
		t.Fatalf("%d changes, none is %+v: %+v", len(list), want, list)
	}
	policies := []Policy{{Pods, 3, time.Minute}}
	r := rules{policies: policies}
	at := now.Add(7*time.Minute + 5*time.Second) // a minute before lies within
	if got, _ := r.allowed([]Change{want}, nil, 10, 1, at); got != 11 {
		t.Errorf("in their own direction: up to %d, want 11, as if both still counted", got)
	}
	if got, _ := r.allowed(nil, []Change{want}, 10, -1, at); got != 7 {
		t.Errorf("against their direction: down to %d, want 7, as if none did", got)
	}
}

func TestAnOrderCountsWhenItIsCarriedOut(t *testing.T) {
	const s = time.Second
	at := now.Add
	in := Inputs{Current: 2, Wanted: 20, Max: 100, Up: rule(3, 60, 0, 0, 0), Down: rule(3, 60, 0, 0, 0)}
	look := func(state State, current int32, pending bool, after time.Duration) (int32, State) {
		t.Helper()
		in.Current = current
		d := Decide(Counted(restarted(t, state), in, at(after)), in, at(after))
		if pending {
			d.State = d.State.Uncounted(state)
		}
		return d.Replicas, Ordered(d.State, in, d.Replicas, at(after))
	}
	want := func(what string, got, want int32, state State, ups []Change, order *Order) {
		t.Helper()
		if diff := cmp.Diff(State{Ups: ups, Order: order}, state, cmpopts.EquateEmpty()); got != want || diff != "" {
			t.Errorf("%s: %d, want %d; state (-want +got):\n%s", what, got, want, diff)
		}
	}
	n, state := look(State{}, 2, false, 0)
	want("decided", n, 5, state, nil, &Order{2, 5, at(0)})
	n, state = look(state, 2, false, 300*s)
	want("not even ordered, long after", n, 5, state, nil, &Order{2, 5, at(0)})
	n, state = look(state, 5, true, 310*s)
	want("ordered, not carried out", n, 5, state, nil, &Order{2, 5, at(0)})
	n, state = look(state, 5, true, 600*s)
	want("not carried out, long after", n, 5, state, nil, &Order{2, 5, at(0)})
	n, state = look(state, 5, false, 601*s)
	one := Change{Replicas: 3, First: at(0), Time: at(601 * s)}
	want("carried out", n, 5, state, []Change{one}, nil)
	n, state = look(state, 5, false, 661*s)
	want("a period later", n, 8, state, nil, &Order{5, 8, at(661 * s)})
	in.Wanted = 1
	n, _ = look(State{Order: &Order{5, 8, at(661 * s)}}, 8, false, 700*s)
	if n != 2 { // 5 when the period began, which allows 2
		t.Errorf("down again at once: %d, want 2", n)
	}
	n, _ = look(State{Order: &Order{5, 8, at(0)}}, 8, false, 700*s)
	if n != 5 { // the 8 may be there for minutes
		t.Errorf("down from what may be old: %d, want 5", n)
	}
	in.Wanted = 20
	if _, state = look(State{Order: &Order{2, 5, at(0)}}, 4, false, 10*s); !state.Order.Since.Equal(at(0)) || state.Order.From != 4 || state.Ups[0].Replicas != 2 {
		t.Errorf("half of the way: %+v", state)
	}
	if _, state = look(State{Order: &Order{2, 4, at(0)}}, 2, false, 50*s); !cmp.Equal(state.Order, &Order{2, 5, at(0)}) {
		t.Errorf("another one, and the first may have been carried out since: %+v", state.Order)
	}
	in.Wanted = 5
	if _, state = look(State{Order: &Order{5, 8, at(0)}}, 5, false, 10*s); state.Order != nil {
		t.Errorf("taken back: %+v", state.Order)
	}
}
