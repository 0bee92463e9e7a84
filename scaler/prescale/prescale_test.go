package prescale

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var (
	now       = time.Date(2026, 11, 22, 13, 0, 0, 0, time.UTC)
	minuteAgo = now.Add(-time.Minute)
	on        = Settings{Enabled: true, ResetDelay: DefaultResetDelay, Deadline: DefaultDeadline}
)

// The documented example: minimum 20, maximum 40, the old stack has 20 pods, the new one 20 by the HPA's minimum.
func TestTheDocumentedExample(t *testing.T) {
	old := Stack{Name: "v1", Actual: 100, Desired: 100, Current: 20, Autoscaler: &Bounds{20, 40}}
	young := Stack{Name: "v2", Current: 20, Autoscaler: &Bounds{20, 40}}
	at := now
	for _, step := range []struct {
		weight float64
		sum    int32
		want   int32
	}{{1, 20, 20}, {25, 40, 30}, {50, 50, 40}, {100, 60, 40}} {
		young.Desired, old.Desired = step.weight, 100-step.weight
		d := Decide(on, []Stack{old, young}, at)
		if d[1].Sum != step.sum || d[1].State.Replicas != step.want || !d[1].State.Active {
			t.Errorf("at %v %%: S is %d and the floor %d, want %d and %d (%s)", step.weight, d[1].Sum, d[1].State.Replicas, step.sum, step.want, d[1].Reason)
		}
		if d[0].State != (State{}) {
			t.Errorf("at %v %%: the old stack holds %+v", step.weight, d[0].State)
		}
		at = at.Add(time.Minute)
		young.State = d[1].State.Switched(at)
		young.Current, young.Actual, old.Actual = d[1].State.Replicas, step.weight, 100-step.weight
	}
	d := Decide(on, []Stack{old, young}, at)
	if want := at.Add(DefaultResetDelay); d[1].State.Replicas != 40 || !d[1].Next.Equal(want) {
		t.Errorf("after the switch %+v, want 40 until %v", d[1], want)
	}
	if d := Decide(on, []Stack{old, young}, at.Add(DefaultResetDelay)); d[1].State != (State{}) || !d[1].Changed || !d[1].Next.IsZero() {
		t.Errorf("after the delay %+v, want nothing held", d[1])
	}
}

func TestWhatIsHeld(t *testing.T) {
	ps := func(replicas int32, weight float64, last time.Time) State {
		return State{Active: true, Replicas: replicas, Weight: weight, LastIncrease: last}
	}
	pending := func(replicas int32, weight float64, since time.Time) State {
		return State{Active: true, Replicas: replicas, Weight: weight, LastIncrease: now, PendingSince: since}
	}
	failed := func(weight float64) State { return State{Weight: weight, Failed: true} }
	off := on
	off.Enabled = false
	fiveMinutes := on
	fiveMinutes.ResetDelay = 5 * time.Minute
	patient := on
	patient.Deadline = 0
	type stack = Stack
	for name, row := range map[string]struct {
		settings Settings
		stacks   []Stack
		want     []State
	}{
		"13.4/1 stacks are prescaled first": {stacks: []stack{
			{Desired: 25, Actual: 50, Current: 2}, {Desired: 25, Actual: 40, Current: 3}, {Desired: 40, Actual: 10, Current: 1}, {Desired: 10, Replicas: 1}},
			want: []State{{}, {}, pending(4, 40, now), pending(1, 10, now)}},
		"13.4/2 what is held already is not computed again while the weight is the same": {stacks: []stack{
			{Desired: 25, Actual: 50, Current: 2}, {Desired: 25, Actual: 40, Current: 3}, {Desired: 40, Actual: 9, Current: 1},
			{Desired: 10, Actual: 1, Current: 3, State: ps(3, 10, minuteAgo)}},
			want: []State{{}, {}, pending(5, 40, now), pending(3, 10, now)}},
		"13.4/3 pods beyond the floor count": {stacks: []stack{
			{Desired: 25, Actual: 50, Current: 2}, {Desired: 25, Actual: 40, Current: 3}, {Desired: 40, Actual: 9, Current: 1},
			{Desired: 10, Actual: 1, Current: 10, State: ps(3, 10, minuteAgo)}},
			want: []State{{}, {}, pending(8, 40, now), pending(3, 10, now)}},
		"13.4/4 computed again when the weight rises": {stacks: []stack{
			{Desired: 25, Actual: 50, Current: 5}, {Desired: 25, Actual: 40, Current: 4}, {Desired: 10, Actual: 10, Current: 2},
			{Desired: 40, Current: 1, State: ps(1, 10, minuteAgo)}},
			want: []State{{}, {}, {}, pending(5, 40, now)}},
		"13.4/5 held while the pods are not there": {stacks: []stack{
			{Desired: 25, Actual: 50, Current: 2}, {Desired: 25, Actual: 40, Current: 4}, {Desired: 50, Actual: 10, Current: 1, State: ps(4, 50, minuteAgo)}},
			want: []State{{}, {}, pending(4, 50, now)}},
		"13.4/6 never above the autoscaler's maximum": {stacks: []stack{
			{Desired: 25, Actual: 50, Current: 20}, {Desired: 25, Actual: 40, Current: 30}, {Desired: 50, Actual: 10, Current: 1, Autoscaler: &Bounds{1, 4}}},
			want: []State{{}, {}, pending(4, 50, now)}},
		"13.4/8 the time stands still after the switch": {stacks: []stack{
			{Desired: 25, Actual: 25, Current: 2}, {Desired: 25, Actual: 25, Current: 4}, {Desired: 50, Actual: 50, Current: 4, State: ps(4, 50, minuteAgo)}},
			want: []State{{}, {}, ps(4, 50, minuteAgo)}},
		"13.4/9 let go when the delay has passed": {settings: fiveMinutes, stacks: []stack{
			{Desired: 50, Actual: 50, Current: 2}, {Desired: 50, Actual: 50, Current: 4, State: ps(4, 50, now.Add(-5*time.Minute))}},
			want: []State{{}, {}}},
		"13.4/10 a stack without autoscaler gets no more than have traffic": {stacks: []stack{
			{Desired: 25, Actual: 70}, {Desired: 50, Actual: 30, Current: 1}, {Desired: 25, Current: 1}},
			want: []State{{}, pending(1, 50, now), pending(1, 25, now)}},
		"13.4/28 an additive rule would give 4": {stacks: []stack{
			{Desired: 25, Actual: 50, Current: 3}, {Desired: 25, Actual: 50, Current: 3}, {Desired: 50, Current: 1, Autoscaler: &Bounds{1, 3}}},
			want: []State{{}, {}, pending(3, 50, now)}},
		"two stacks of 10 pods stepped on: no sum of sums (upstream issue 134)": {stacks: []stack{
			{Desired: 0, Actual: 10, Current: 10}, {Desired: 100, Actual: 90, Current: 20, State: ps(20, 90, minuteAgo)}},
			want: []State{{}, pending(30, 100, now)}},
		"above the maximum already: the floor is the maximum (upstream issue 110)": {stacks: []stack{
			{Desired: 0, Actual: 50, Current: 50}, {Desired: 100, Actual: 50, Current: 50, Autoscaler: &Bounds{1, 40}}},
			want: []State{{}, pending(40, 100, now)}},
		"1 % of 20 pods does not take a stack without autoscaler down from 3": {stacks: []stack{
			{Desired: 99, Actual: 100, Current: 20}, {Desired: 1, Current: 3, Replicas: 3}},
			want: []State{{}, pending(3, 1, now)}},
		"nobody has traffic: the replicas of the spec": {stacks: []stack{{Desired: 100, Replicas: 3}}, want: []State{pending(3, 100, now)}},
		"nobody has traffic: the autoscaler's minimum": {stacks: []stack{{Desired: 100, Replicas: 3, Autoscaler: &Bounds{5, 9}}}, want: []State{pending(5, 100, now)}},
		"a rising weight keeps what is held": {stacks: []stack{
			{Desired: 40, Actual: 50, Current: 2, Autoscaler: &Bounds{1, 99}}, {Desired: 60, Actual: 50, Current: 2, Autoscaler: &Bounds{1, 99}, State: ps(50, 50, minuteAgo)}},
			want: []State{{}, pending(50, 60, now)}},
		"a lower weight to come keeps what is held": {stacks: []stack{
			{Desired: 70, Actual: 80, Current: 8}, {Desired: 30, Actual: 20, Current: 5, State: ps(5, 50, minuteAgo)}},
			want: []State{{}, pending(5, 50, now)}},
		"7 % of 100 pods are 7": {stacks: []stack{{Desired: 93, Actual: 100, Current: 100}, {Desired: 7, Autoscaler: &Bounds{1, 99}}}, want: []State{{}, pending(7, 7, now)}},
		"the annotation is taken away while pods are held": {settings: off, stacks: []stack{
			{Desired: 50, Actual: 50}, {Desired: 50, Actual: 20, State: ps(4, 50, minuteAgo)}},
			want: []State{{}, {}}},
		"a forwarded stack needs no pods, and its own do not count": {stacks: []stack{
			{Desired: 0, Actual: 50, Current: 9, Forwarded: true}, {Desired: 40, Actual: 50, Current: 4}, {Desired: 60, Forwarded: true, State: ps(4, 50, minuteAgo)}},
			want: []State{{}, {}, {}}},
		"the deadline passes: the switch fails as a whole": {stacks: []stack{
			{Name: "v1", Desired: 20, Actual: 100, Current: 2}, {Name: "v2", Desired: 50, State: pending(4, 50, now.Add(-DefaultDeadline))},
			{Name: "v3", Desired: 30, Ready: true, State: pending(2, 30, now.Add(-DefaultDeadline))}},
			want: []State{{}, failed(50), {}}},
		"the deadline passed while nobody looked, and the pods are there": {stacks: []stack{
			{Desired: 50, Actual: 100, Current: 2}, {Desired: 50, Ready: true, State: pending(4, 50, now.Add(-time.Hour))}},
			want: []State{{}, pending(4, 50, now.Add(-time.Hour))}},
		"without a deadline it waits for ever": {settings: patient, stacks: []stack{
			{Desired: 50, Actual: 100, Current: 2}, {Desired: 50, State: pending(4, 50, now.Add(-time.Hour))}},
			want: []State{{}, pending(4, 50, now.Add(-time.Hour))}},
		"what failed is not tried again": {stacks: []stack{
			{Desired: 50, Actual: 100, Current: 2}, {Desired: 50, State: failed(50)}},
			want: []State{{}, failed(50)}},
		"another weight is a new try": {stacks: []stack{
			{Desired: 60, Actual: 100, Current: 10}, {Desired: 40, State: failed(50)}},
			want: []State{{}, pending(4, 40, now)}},
		"what failed is forgotten when no traffic is asked for": {stacks: []stack{
			{Desired: 100, Actual: 100, Current: 2}, {State: failed(50)}},
			want: []State{{}, {}}},
	} {
		t.Run(name, func(t *testing.T) {
			if !row.settings.Enabled && row.settings.ResetDelay == 0 {
				row.settings = on
			}
			got := make([]State, len(row.stacks))
			for i, d := range Decide(row.settings, row.stacks, now) {
				got[i] = d.State
				t.Log(d.Reason)
			}
			if diff := cmp.Diff(row.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestAnAnnotationTurnsItOn(t *testing.T) {
	for name, row := range map[string]struct {
		annotations map[string]string
		want        Settings
		says        string
	}{
		"without any":       {want: Settings{ResetDelay: 10 * time.Minute, Deadline: DefaultDeadline}},
		"13.4/25 empty":     {annotations: map[string]string{Annotation: ""}, want: on},
		"with another word": {annotations: map[string]string{Annotation: "no"}, want: on},
		"with a delay": {annotations: map[string]string{Annotation: "", ResetDelayAnnotation: "30s"},
			want: Settings{Enabled: true, ResetDelay: 30 * time.Second, Deadline: DefaultDeadline}},
		"with a delay that is none": {annotations: map[string]string{Annotation: "", ResetDelayAnnotation: "30"}, want: on,
			says: `annotation alpha.stackset-controller.zalando.org/reset-hpa-min-replicas-delay: "30" is not a duration such as 10m; 10m0s counts`},
	} {
		got, err := FromAnnotations(row.annotations)
		says := ""
		if err != nil {
			says = err.Error()
		}
		if got != row.want || says != row.says {
			t.Errorf("%s: %+v, %q, want %+v, %q", name, got, says, row.want, row.says)
		}
	}
}

func TestTheStateSurvivesTheStatus(t *testing.T) {
	for _, s := range []State{{}, {Active: true, Replicas: 11, Weight: 23.5, LastIncrease: now.Add(-time.Hour), PendingSince: now}, {Weight: 50, Failed: true}} {
		if got := FromStatus(s.Status()); got != s {
			t.Errorf("%+v comes back as %+v", s, got)
		}
	}
}

func TestTheAutoscalersMinimumIsRaisedWhileAFloorIsHeld(t *testing.T) {
	three, seven := int32(3), int32(7)
	held := State{Active: true, Replicas: 7}
	for name, row := range map[string]struct {
		state   State
		own     *int32
		maximum int32
		want    *int32
	}{
		"nothing held, none given": {maximum: 9},
		"nothing held":             {own: &three, maximum: 9, want: &three},
		"held, none given":         {state: held, maximum: 9, want: &seven},
		"held above its own":       {state: held, own: &three, maximum: 9, want: &seven},
		"held below its own":       {state: State{Active: true, Replicas: 2}, own: &three, maximum: 9, want: &three},
		"maximum was lowered":      {state: held, own: &three, maximum: 3, want: &three},
	} {
		if diff := cmp.Diff(row.want, row.state.MinReplicas(row.own, row.maximum)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// Random switches: a floor never falls while it is held, is within its bounds, and every state ends.
func TestAFloorNeverFallsAndAlwaysEnds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		at := now
		stacks := make([]Stack, rapid.IntRange(1, 4).Draw(t, "stacks"))
		for i := range stacks {
			stacks[i] = Stack{Name: string(rune('a' + i)), Replicas: 1, Current: int32(rapid.IntRange(0, 50).Draw(t, "current"))}
			if rapid.Bool().Draw(t, "autoscaled") {
				least := int32(rapid.IntRange(0, 20).Draw(t, "min"))
				stacks[i].Autoscaler = &Bounds{least, least + int32(rapid.IntRange(1, 40).Draw(t, "more"))}
			}
		}
		for range rapid.IntRange(1, 8).Draw(t, "looks") {
			for i := range stacks {
				if rapid.IntRange(0, 2).Draw(t, "asked") == 0 {
					stacks[i].Desired = float64(rapid.IntRange(0, 100).Draw(t, "desired"))
				}
				stacks[i].Ready = rapid.Bool().Draw(t, "ready")
			}
			decisions := Decide(on, stacks, at)
			for i, d := range decisions {
				s := stacks[i]
				if d.State.Active {
					if s.State.Active && d.State.Replicas < s.State.Replicas && s.Waiting() {
						t.Fatalf("the floor of %s fell from %d to %d", s.Name, s.State.Replicas, d.State.Replicas)
					}
					if a := s.Autoscaler; a != nil && (d.State.Replicas > a.Max || d.State.Replicas < a.Min) {
						t.Fatalf("the floor %d is not within %v", d.State.Replicas, *a)
					}
					if s.Autoscaler == nil && !s.State.Active && d.State.Replicas < s.Current {
						t.Fatalf("the floor %d is below the %d pods that there are", d.State.Replicas, s.Current)
					}
					if d.Next.IsZero() && !s.Ready {
						t.Fatalf("%+v is held and nobody looks again", d.State)
					}
				}
				stacks[i].State = d.State
				if rapid.Bool().Draw(t, "switched") && s.Ready {
					stacks[i].Actual = s.Desired
					stacks[i].State = d.State.Switched(at)
				}
			}
			at = at.Add(time.Duration(rapid.IntRange(0, 900).Draw(t, "seconds")) * time.Second)
		}
		// Nothing is asked for and nobody is ready: all ends.
		for range 4 {
			next := time.Time{}
			for i := range stacks {
				stacks[i].Ready = false
			}
			for i, d := range Decide(on, stacks, at) {
				stacks[i].State = d.State
				if !d.Next.IsZero() && (next.IsZero() || d.Next.Before(next)) {
					next = d.Next
				}
			}
			if !next.IsZero() {
				at = next
			}
			at = at.Add(DefaultResetDelay)
		}
		for _, s := range stacks {
			if s.State.Active {
				t.Fatalf("%s holds %+v for ever", s.Name, s.State)
			}
		}
	})
}
