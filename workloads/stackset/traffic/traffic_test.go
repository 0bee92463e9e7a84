package traffic

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/kubetide/kubetide/scaler/prescale"
)

var now = time.Date(2026, 11, 22, 13, 0, 0, 0, time.UTC)

func ago(d time.Duration) time.Time { return now.Add(-d) }

// pods is a Stack of n pods, all current and ready.
func pods(actual float64, n int32) Stack {
	return Stack{Actual: actual, Current: n, Updated: n, Ready: n, Replicas: 1, HasIngress: true}
}

// none is a Stack of which nothing is there.
func none(actual float64) Stack { return Stack{Actual: actual, Replicas: 1, HasIngress: true} }

// partly is a Stack of n pods of which some are ready.
func partly(actual float64, n, ready int32) Stack {
	s := pods(actual, n)
	s.Ready = ready
	return s
}

func noWayIn(s Stack) Stack { s.HasIngress = false; return s }

func idle(s Stack, d time.Duration) Stack { s.NoTrafficSince = ago(d); return s }

func aged(s Stack, d time.Duration) Stack { s.Created = ago(d); return s }

func held(s Stack, n int32, weight float64) Stack {
	s.Prescaling = prescale.State{Active: true, Replicas: n, Weight: weight, LastIncrease: ago(time.Minute)}
	return s
}

// stackSet names the stacks foo-v1, foo-v2, ... and asks for the weights in their order.
func stackSet(stacks []Stack, weights ...float64) StackSet {
	set := StackSet{HasIngress: true, Stacks: stacks}
	for i := range stacks {
		stacks[i].Name = fmt.Sprintf("foo-v%d", i+1)
		if i < len(weights) {
			set.Weights = append(set.Weights, Weight{stacks[i].Name, weights[i]})
		}
	}
	return set
}

func columns(d Decision) (desired, actual []int) {
	for _, o := range d.Stacks {
		desired, actual = append(desired, o.Desired), append(actual, o.Actual)
	}
	return desired, actual
}

func says(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestTrafficIsSwitchedAsAWholeOrNotAtAll(t *testing.T) {
	for name, row := range map[string]struct {
		stacks   []Stack
		weights  []float64
		percent  int
		prescale bool
		desired  []int
		actual   []int
		err      string
	}{
		"all ready": {
			stacks: []Stack{pods(70, 3), pods(30, 3), pods(0, 3)}, weights: []float64{25, 50, 25}, desired: []int{25, 50, 25}, actual: []int{25, 50, 25}},
		"85 of 100 ready, 85 % needed": {percent: 85,
			stacks: []Stack{pods(70, 3), pods(30, 3), partly(0, 100, 85)}, weights: []float64{25, 50, 25}, desired: []int{25, 50, 25}, actual: []int{25, 50, 25}},
		"84 of 100 ready, 85 % needed": {percent: 85,
			stacks: []Stack{pods(70, 3), pods(30, 3), partly(0, 100, 84)}, weights: []float64{25, 50, 25}, desired: []int{25, 50, 25}, actual: []int{70, 30, 0}, err: "stacks not ready: foo-v3"},
		"2 of 3 ready, 85 % needed: 2.55 are 3": {percent: 85,
			stacks: []Stack{pods(70, 3), pods(30, 3), partly(0, 3, 2)}, weights: []float64{25, 50, 25}, desired: []int{25, 50, 25}, actual: []int{70, 30, 0}, err: "stacks not ready: foo-v3"},
		"2 of 3 ready, 50 % needed: 1.5 are 2": {percent: 50,
			stacks: []Stack{pods(70, 3), pods(30, 3), partly(0, 3, 2)}, weights: []float64{25, 50, 25}, desired: []int{25, 50, 25}, actual: []int{25, 50, 25}},
		"all needed where the percentage is 0": {
			stacks: []Stack{pods(70, 3), pods(30, 3), partly(0, 3, 2)}, weights: []float64{25, 50, 25}, desired: []int{25, 50, 25}, actual: []int{70, 30, 0}, err: "stacks not ready: foo-v3"},
		"all needed where the percentage is above 100": {percent: 150,
			stacks: []Stack{pods(70, 3), pods(30, 3), pods(0, 3)}, weights: []float64{25, 50, 25}, desired: []int{25, 50, 25}, actual: []int{25, 50, 25}},
		"a stack that is not ready only loses": {
			stacks: []Stack{none(70), pods(30, 3), pods(0, 3)}, weights: []float64{25, 50, 25}, desired: []int{25, 50, 25}, actual: []int{25, 50, 25}},
		"pods of an old template": {
			stacks: []Stack{pods(100, 3), {Current: 3, Updated: 2, Ready: 3}}, weights: []float64{50, 50}, desired: []int{50, 50}, actual: []int{100, 0}, err: "stacks not ready: foo-v2"},
		"something that belongs to it lacks": {
			stacks: []Stack{pods(100, 3), {Current: 3, Updated: 3, Ready: 3, Lacks: "Service foo-v2"}}, weights: []float64{50, 50}, desired: []int{50, 50}, actual: []int{100, 0}, err: "stacks not ready: foo-v2"},
		"a forwarded stack needs nothing": {
			stacks: []Stack{pods(100, 3), {Forwarded: true, Lacks: "all"}}, weights: []float64{50, 50}, desired: []int{50, 50}, actual: []int{50, 50}},
		"the only stack gets all, ready or not": {
			stacks: []Stack{none(0)}, desired: []int{100}, actual: []int{100}},
		"13.4/14 nobody has traffic: the one that had some last has all": {
			stacks: []Stack{none(0), idle(none(0), 5*time.Minute), idle(none(0), time.Hour)}, weights: []float64{25, 50, 25}, desired: []int{25, 50, 25}, actual: []int{0, 100, 0}, err: "stacks not ready: foo-v1, foo-v3"},
		"13.4/15 nobody ever had traffic: the oldest has all": {
			stacks: []Stack{aged(none(0), 5*time.Minute), aged(none(0), time.Hour), aged(none(0), 5*time.Minute)}, weights: []float64{25, 50, 25}, desired: []int{25, 50, 25}, actual: []int{0, 100, 0}, err: "stacks not ready: foo-v1, foo-v3"},
		"13.4/11 weights are shares of their sum": {
			stacks: []Stack{none(7), none(3), none(0)}, weights: []float64{1, 2, 1}, desired: []int{25, 50, 25}, actual: []int{70, 30, 0}, err: "stacks not ready: foo-v2, foo-v3"},
		"13.4/12 all 0: the one that lost its traffic last": {
			stacks: []Stack{none(10), idle(none(30), 5*time.Minute), idle(none(60), time.Hour)}, weights: []float64{0, 0, 0}, desired: []int{0, 100, 0}, actual: []int{10, 30, 60}, err: "stacks not ready: foo-v2"},
		"13.4/13 all 0: the oldest": {
			stacks: []Stack{aged(none(10), 5*time.Minute), aged(none(30), time.Hour), aged(none(60), 5*time.Minute)}, weights: []float64{0, 0, 0}, desired: []int{0, 100, 0}, actual: []int{10, 30, 60}, err: "stacks not ready: foo-v2"},
		"no weights at all: the fallback": {
			stacks: []Stack{aged(pods(100, 1), time.Hour), aged(pods(0, 1), time.Minute)}, desired: []int{100, 0}, actual: []int{100, 0}},
		"nobody has traffic, and the one that had some last has no way in": {
			stacks: []Stack{idle(none(0), time.Hour), noWayIn(idle(none(0), time.Minute)), idle(none(0), 2*time.Hour)}, weights: []float64{0, 0, 0},
			desired: []int{100, 0, 0}, actual: []int{100, 0, 0}},
		"negative weights count as 0": {
			stacks: []Stack{pods(100, 1), pods(0, 1)}, weights: []float64{50, -50}, desired: []int{100, 0}, actual: []int{100, 0}},
		"weights that are no numbers count as 0": {
			stacks: []Stack{pods(100, 1), pods(0, 1)}, weights: []float64{math.NaN(), math.Inf(1)}, desired: []int{100, 0}, actual: []int{100, 0}},
		"13.4/1 prescaled first": {prescale: true,
			stacks:  []Stack{pods(50, 2), partly(40, 3, 2), pods(10, 1), none(0)},
			weights: []float64{25, 25, 40, 10}, desired: []int{25, 25, 40, 10}, actual: []int{50, 40, 10, 0}, err: "stacks not ready: foo-v3, foo-v4"},
		"13.4/5 not before the pods are there": {prescale: true,
			stacks: []Stack{pods(50, 2), pods(40, 4), held(pods(10, 1), 4, 50)}, weights: []float64{25, 25, 50}, desired: []int{25, 25, 50}, actual: []int{50, 40, 10}, err: "stacks not ready: foo-v3"},
		"13.4/7 when the pods are there": {prescale: true,
			stacks: []Stack{pods(50, 2), pods(40, 4), held(pods(10, 4), 4, 50)}, weights: []float64{25, 25, 50}, desired: []int{25, 25, 50}, actual: []int{25, 25, 50}},
		"13.5 prescaled pods count by minReadyPercent too": {prescale: true, percent: 75,
			stacks: []Stack{pods(50, 2), pods(40, 4), held(partly(10, 4, 3), 4, 50)}, weights: []float64{25, 25, 50}, desired: []int{25, 25, 50}, actual: []int{25, 25, 50}},
		"13.4/10 a stack that only loses is never waited for": {prescale: true,
			stacks: []Stack{none(70), pods(30, 1), pods(0, 1)}, weights: []float64{25, 50, 25}, desired: []int{25, 50, 25}, actual: []int{25, 50, 25}},
		"the minimum of the autoscaler is waited for": {prescale: true,
			stacks: []Stack{pods(100, 2), {Current: 2, Updated: 2, Ready: 2, Autoscaler: &prescale.Bounds{Min: 5, Max: 9}}}, weights: []float64{99, 1}, desired: []int{99, 1}, actual: []int{100, 0}, err: "stacks not ready: foo-v2"},
		"upstream 755: forwarded and prescaled": {prescale: true,
			stacks: []Stack{pods(100, 2), {Forwarded: true}}, weights: []float64{0, 100}, desired: []int{0, 100}, actual: []int{0, 100}},
		"what failed stays, ready or not": {prescale: true,
			stacks:  []Stack{pods(100, 2), {Current: 3, Updated: 3, Ready: 3, Prescaling: prescale.State{Weight: 50, Failed: true}}},
			weights: []float64{50, 50}, desired: []int{50, 50}, actual: []int{100, 0}, err: "stacks not ready: foo-v2"},
	} {
		t.Run(name, func(t *testing.T) {
			set := stackSet(row.stacks, row.weights...)
			set.MinReadyPercent = row.percent
			set.Prescale = prescale.Settings{Enabled: row.prescale, ResetDelay: 10 * time.Minute, Deadline: 10 * time.Minute}
			d := Decide(set, now)
			desired, actual := columns(d)
			if diff := cmp.Diff([]any{row.desired, row.actual, row.err}, []any{desired, actual, says(d.Err)}); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestWhereNobodyIsAskedForTrafficStaysAsDecided(t *testing.T) {
	set := stackSet([]Stack{pods(100, 1), idle(pods(0, 1), time.Minute)}, 0, 0)
	set.Stacks[0].Desired = 100
	if desired, _ := columns(Decide(set, now)); !cmp.Equal(desired, []int{100, 0}) {
		t.Errorf("desired %v", desired)
	}
}

func TestPrescalingFollowsTheSwitch(t *testing.T) {
	set := stackSet([]Stack{pods(50, 2), pods(40, 4), held(pods(10, 4), 4, 50)}, 25, 25, 50)
	set.Prescale = prescale.Settings{Enabled: true, ResetDelay: time.Minute, Deadline: time.Minute}
	d := Decide(set, now)
	want := prescale.State{Active: true, Replicas: 4, Weight: 50, LastIncrease: now}
	if got := d.Stacks[2].Prescaling; got.State != want || !got.Changed || !d.Next.Equal(now.Add(time.Minute)) {
		t.Errorf("after the switch %+v, next %v, want %+v", got, d.Next, want)
	}
	set.Stacks[0].Actual, set.Stacks[1].Actual, set.Stacks[2].Actual = 25, 25, 50
	set.Stacks[2].Prescaling = want
	if d := Decide(set, now.Add(time.Minute)); d.Stacks[2].Prescaling.State != (prescale.State{}) || d.Switched {
		t.Errorf("after the delay %+v", d.Stacks[2])
	}
	late := stackSet([]Stack{pods(100, 2), none(0)}, 50, 50)
	late.Prescale = set.Prescale
	late.Stacks[1].Prescaling = prescale.State{Active: true, Replicas: 1, Weight: 50, PendingSince: ago(time.Minute)}
	d = Decide(late, now)
	if _, actual := columns(d); !cmp.Equal(actual, []int{100, 0}) || !cmp.Equal(d.Expired, []string{"foo-v2"}) || !d.Stacks[1].Prescaling.State.Failed {
		t.Errorf("at the deadline %+v", d)
	}
}

func TestWithoutAWayInThereIsNoTraffic(t *testing.T) {
	set := stackSet([]Stack{held(idle(pods(50, 3), time.Hour), 3, 10), pods(50, 3)}, 50, 50) // 13.4/16
	set.HasIngress = false
	for _, o := range Decide(set, now).Stacks {
		if o.Desired != 0 || o.Actual != 0 || !o.NoTrafficSince.IsZero() || o.Prescaling.State != (prescale.State{}) || o.ScaledDown {
			t.Errorf("%+v, want nothing", o)
		}
	}
}

func TestMistakesInWeightsAreNamed(t *testing.T) {
	set := stackSet([]Stack{pods(100, 1)}, 1)
	set.Weights = append(set.Weights, Weight{"foo-v9", 5}, Weight{"foo-v1", -1})
	want := []string{`stack "foo-v9" does not exist: its weight does not count`, `the weight of stack "foo-v1" is -1, not a number from 0 to 100: it counts as 0`}
	if diff := cmp.Diff(want, Decide(set, now).Problems); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	set.Weights = []Weight{{"foo-v1", 1}, {"foo-v1", 2}}
	if got := Decide(set, now).Problems; len(got) != 1 || !strings.Contains(got[0], "more than one weight") {
		t.Errorf("%q", got)
	}
}

func TestWeightsAreRoundedByLargestRemainder(t *testing.T) {
	for name, row := range map[string]struct {
		weights []float64
		want    []int
	}{
		"49.5 and 50.5: of equal remainders the bigger weight's": {[]float64{49.5, 50.5}, []int{49, 51}},
		"72.3 and 27.7":                      {[]float64{72.3, 27.7}, []int{72, 28}},
		"thirds: of equal weights the first": {[]float64{33.3, 33.3, 33.3}, []int{34, 33, 33}},
		"less than half a percent":           {[]float64{0.4, 99.6}, []int{0, 100}},
		"sevenths":                           {[]float64{1, 1, 1, 1, 1, 1, 1}, []int{15, 15, 14, 14, 14, 14, 14}},
		"of any size":                        {[]float64{math.MaxFloat64, math.MaxFloat64}, []int{50, 50}},
		"as small as can be":                 {[]float64{math.SmallestNonzeroFloat64, 0}, []int{100, 0}},
		"none":                               {[]float64{0, 0}, []int{100, 0}},
	} {
		in := map[string]float64{}
		for i, w := range row.weights {
			in[fmt.Sprintf("v%d", i)] = w
		}
		got := make([]int, len(row.weights))
		for stack, w := range Normalize(in, "v0") {
			got[stack[1]-'0'] = w
		}
		if diff := cmp.Diff(row.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestRoundedWeightsAreAWholeAndNearWhatWasAsked(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		weights := map[string]float64{}
		sum := 0.0
		for i := range rapid.IntRange(1, 12).Draw(t, "stacks") {
			w := rapid.OneOf(rapid.Float64Range(0, 100), rapid.Just(0.0)).Draw(t, "weight")
			weights[fmt.Sprintf("v%d", i)] = w
			sum += w
		}
		total := 0
		for stack, percent := range Normalize(weights, "v0") {
			total += percent
			if exact := weights[stack] / sum * 100; sum > 0 && math.Abs(float64(percent)-exact) > 1.0001 {
				t.Fatalf("%s gets %d, %v was asked of %v", stack, percent, weights[stack], weights)
			}
		}
		if total != 100 {
			t.Fatalf("the weights of %v sum up to %d", weights, total)
		}
	})
}

func TestTheTimeWithoutTrafficBeginsWhenNobodySendsAny(t *testing.T) {
	routed := idle(pods(0, 1), time.Hour)
	routed.Routed = true
	set := stackSet([]Stack{none(0), pods(90, 1), pods(10, 1), pods(0, 1), idle(pods(0, 1), 5*time.Minute), routed}, 90, 0, 10) // 13.4/27
	want := []time.Time{{}, {}, {}, now, ago(5 * time.Minute), {}}
	for i, o := range Decide(set, now).Stacks {
		if !o.NoTrafficSince.Equal(want[i]) {
			t.Errorf("%s: %v, want %v", o.Stack, o.NoTrafficSince, want[i])
		}
	}
}

func TestAStackIsScaledDownAfterItsTime(t *testing.T) {
	for name, row := range map[string]struct {
		ttl, idle time.Duration
		want      bool
	}{
		"300 s are the default": {idle: 301 * time.Second, want: true},
		"strictly more":         {idle: 300 * time.Second},
		"an own time":           {ttl: time.Minute, idle: 61 * time.Second, want: true},
		"a time so short that routers have not seen": {ttl: time.Second, idle: 10 * time.Second},
		"a short time, and routers have":             {ttl: time.Second, idle: 11 * time.Second, want: true},
	} {
		set := stackSet([]Stack{pods(100, 1), idle(pods(0, 1), row.idle)}, 100, 0)
		set.ScaledownTTL = row.ttl
		d := Decide(set, now)
		if d.Stacks[1].ScaledDown != row.want {
			t.Errorf("%s: %v", name, d.Stacks[1].ScaledDown)
		}
		if !row.want && !Decide(set, d.Next).Stacks[1].ScaledDown {
			t.Errorf("%s: looked at again at %v, too early", name, d.Next)
		}
	}
}

// A Stack that was made while its StackSet had no way in works for something else, and goes on doing so beside older ones that have one.
func TestAStackWithoutAWayInKeepsItsPods(t *testing.T) {
	set := stackSet([]Stack{pods(100, 1), noWayIn(idle(pods(0, 1), time.Hour)), idle(pods(0, 1), time.Hour)}, 100)
	d := Decide(set, now)
	if d.Stacks[1].ScaledDown || !d.Stacks[2].ScaledDown {
		t.Errorf("scaled down without a way in: %t, with one: %t", d.Stacks[1].ScaledDown, d.Stacks[2].ScaledDown)
	}
	if !d.Next.IsZero() {
		t.Errorf("looked at again at %v", d.Next)
	}
}

func TestTheStacksThatLostTheirTrafficFirstAreRemoved(t *testing.T) {
	for name, row := range map[string]struct {
		stacks  []Stack
		limit   int
		bare    bool
		removed string
	}{
		"one too many: idle for 2 h goes, for 1 h stays": {limit: 1, stacks: []Stack{pods(100, 1), idle(pods(0, 1), time.Hour), idle(pods(0, 1), 2*time.Hour)}, removed: "foo-v3"},
		"as many as may be":                                {limit: 2, stacks: []Stack{pods(100, 1), idle(pods(0, 1), time.Hour), idle(pods(0, 1), 2*time.Hour)}},
		"two too many":                                     {limit: 1, stacks: []Stack{pods(100, 1), idle(pods(0, 1), 3*time.Hour), idle(pods(0, 1), time.Hour), idle(pods(0, 1), 2*time.Hour)}, removed: "foo-v2 foo-v4"},
		"not yet scaled down ones do not count":            {limit: 1, stacks: []Stack{pods(100, 1), idle(pods(0, 1), 200*time.Second), idle(pods(0, 1), 250*time.Second)}},
		"one scaled down, one not yet":                     {limit: 1, stacks: []Stack{pods(100, 1), idle(pods(0, 1), time.Hour), idle(pods(0, 1), 250*time.Second)}},
		"stacks with traffic do not count":                 {limit: 1, stacks: []Stack{pods(50, 1), pods(50, 1), idle(pods(0, 1), time.Hour)}},
		"without a way in all count, by age":               {limit: 1, bare: true, stacks: []Stack{aged(pods(0, 1), time.Hour), aged(pods(0, 1), 3*time.Hour), aged(pods(0, 1), time.Minute)}, removed: "foo-v2 foo-v1"},
		"without a way in, as many as may be":              {limit: 3, bare: true, stacks: []Stack{aged(pods(0, 1), time.Hour), aged(pods(0, 1), 3*time.Hour), aged(pods(0, 1), time.Minute)}},
		"a stack that was made before there was a way in":  {limit: 1, stacks: []Stack{pods(100, 1), noWayIn(idle(pods(0, 1), time.Second)), idle(pods(0, 1), time.Hour)}, removed: "foo-v3"},
		"such a stack that has traffic all the same stays": {limit: 1, stacks: []Stack{noWayIn(pods(100, 1)), idle(pods(0, 1), time.Hour)}},
		"of equal times the older one":                     {limit: 1, stacks: []Stack{pods(100, 1), aged(idle(pods(0, 1), time.Hour), 2*time.Hour), aged(idle(pods(0, 1), time.Hour), 3*time.Hour)}, removed: "foo-v3"},
		"10 is the default": {stacks: []Stack{pods(100, 1), idle(pods(0, 1), 1*time.Hour), idle(pods(0, 1), 2*time.Hour), idle(pods(0, 1), 3*time.Hour), idle(pods(0, 1), 4*time.Hour),
			idle(pods(0, 1), 5*time.Hour), idle(pods(0, 1), 6*time.Hour), idle(pods(0, 1), 7*time.Hour), idle(pods(0, 1), 8*time.Hour), idle(pods(0, 1), 9*time.Hour),
			idle(pods(0, 1), 10*time.Hour), idle(pods(0, 1), 11*time.Hour)}, removed: "foo-v12"},
	} {
		t.Run(name, func(t *testing.T) {
			set := stackSet(row.stacks, 100)
			for i, s := range row.stacks { // ask for what is
				if i < len(set.Weights) {
					set.Weights[i].Weight = s.Actual
				} else {
					set.Weights = append(set.Weights, Weight{s.Name, s.Actual})
				}
			}
			set.HasIngress, set.Limit = !row.bare, row.limit
			removed := map[string]bool{}
			for _, o := range Decide(set, now).Stacks {
				if o.Remove {
					removed[o.Stack] = true
				}
			}
			want := map[string]bool{}
			for _, stack := range strings.Fields(row.removed) {
				want[stack] = true
			}
			if diff := cmp.Diff(want, removed); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestTheReplicasOfADeployment(t *testing.T) {
	auto := &prescale.Bounds{Min: 1, Max: 9}
	ps := prescale.State{Active: true, Replicas: 7}
	for name, row := range map[string]struct {
		stack Stack
		held  prescale.State
		down  bool
		want  int32
	}{
		"13.4/17 prescaled from none":                     {stack: Stack{Replicas: 3}, held: ps, want: 7},
		"13.4/18 prescaled from none, with an autoscaler": {stack: Stack{Autoscaler: auto}, held: ps, want: 7},
		"13.4/19 prescaled":                               {stack: Stack{Current: 5}, held: ps, want: 7},
		"13.4/20 the autoscaler's minimum does it":        {stack: Stack{Current: 5, Autoscaler: auto}, held: ps, want: 5},
		"13.4/21 the autoscaler's count is kept":          {stack: Stack{Replicas: 3, Current: 5, Autoscaler: auto}, want: 5},
		"13.4/22 without an autoscaler the spec's":        {stack: Stack{Replicas: 3, Current: 5}, want: 3},
		"13.4/23 scaled down":                             {stack: Stack{Replicas: 3, Current: 3}, down: true, want: 0},
		"13.4/24 not scaled down":                         {stack: Stack{Replicas: 3}, want: 3},
		"prescaling never lowers":                         {stack: Stack{Replicas: 3, Current: 9}, held: ps, want: 9},
		"prescaling never asks for less than the spec":    {stack: Stack{Replicas: 9}, held: ps, want: 9},
		"the spec's 0 holds against the autoscaler":       {stack: Stack{Current: 5, Autoscaler: auto}, want: 0},
	} {
		o := Outcome{ScaledDown: row.down, Prescaling: prescale.Decision{State: row.held}}
		if got := o.Replicas(row.stack); got != row.want {
			t.Errorf("%s: %d, want %d", name, got, row.want)
		}
	}
}

// Whatever is read and asked for: weights are a whole, a switch is all or nothing, nobody loses pods or goes while traffic may come.
func TestTrafficIsNeverLost(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		stacks := make([]Stack, rapid.IntRange(1, 5).Draw(t, "stacks"))
		weights := make([]float64, len(stacks))
		for i := range stacks {
			n := int32(rapid.IntRange(0, 10).Draw(t, "pods"))
			s := partly(rapid.Float64Range(0, 100).Draw(t, "actual"), n, int32(rapid.IntRange(0, int(n)).Draw(t, "ready")))
			s.Routed, s.HasIngress, s.Forwarded = rapid.Bool().Draw(t, "routed"), rapid.Bool().Draw(t, "way in"), rapid.IntRange(0, 5).Draw(t, "forwarded") == 0
			if rapid.Bool().Draw(t, "idle") {
				s.NoTrafficSince = ago(time.Duration(rapid.IntRange(0, 1000).Draw(t, "idle for")) * time.Second)
			}
			if rapid.Bool().Draw(t, "without traffic") {
				s.Actual = 0
			}
			stacks[i] = s
			weights[i] = rapid.SampledFrom([]float64{0, 0, 1, 50, 100, -3, math.NaN(), math.Inf(1)}).Draw(t, "weight")
		}
		set := stackSet(stacks, weights...)
		set.Prescale = prescale.Settings{Enabled: rapid.Bool().Draw(t, "prescaled"), ResetDelay: time.Minute, Deadline: time.Minute}
		set.Limit = rapid.IntRange(0, 3).Draw(t, "limit")
		d := Decide(set, now)
		desired, actual := columns(d)
		sumDesired, sumActual := 0, 0
		for i, o := range d.Stacks {
			sumDesired, sumActual = sumDesired+desired[i], sumActual+actual[i]
			if (o.ScaledDown || o.Remove) && (o.Actual > 0 || o.Desired > 0 || stacks[i].Routed) {
				t.Fatalf("%+v goes, with traffic", o)
			}
			if d.Err == nil && o.Actual != o.Desired {
				t.Fatalf("switched, but %+v", o)
			}
		}
		if sumDesired != 100 || sumActual != 100 {
			t.Fatalf("desired %v, actual %v", desired, actual)
		}
	})
}
