package ihpa

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	zalando "github.com/kubetide/kubetide/api/zalando/v1"
	"github.com/kubetide/kubetide/scaler/bounds"
	"github.com/kubetide/kubetide/scaler/enginetest"
	"github.com/kubetide/kubetide/scaler/merge"
)

// limited returns an IHPA whose static provider wants replicas, with the behavior.
func limited(replicas int32, up, down kapacity.ScalingBehavior) *kapacity.IntelligentHorizontalPodAutoscaler {
	o := enginetest.IHPAOf("Deployment", nil, enginetest.Static(1, replicas))
	o.Spec.Behavior.ScaleUp, o.Spec.Behavior.ScaleDown = up, down
	return o
}

func TestAStabilizationWindowHoldsAScaleDownAlsoAfterARestart(t *testing.T) {
	w := world(t, enginetest.Deployment(8), limited(8, kapacity.ScalingBehavior{}, kapacity.ScalingBehavior{StabilizationWindowSeconds: ptr.To[int32](60)}))
	w.Advance(10 * time.Second)
	to(w, 2)
	w.Advance(20 * time.Second)
	w.Writes = nil
	w.Restart(controllers(w)...)
	w.Advance(20 * time.Second)
	if got := numbers(w); got != "8/0" || len(w.Writes) > 0 {
		t.Errorf("50 s into the window: %s, writes %v", got, w.Writes)
	}
	// The HPA's default policy of 100 percent lets the rest go at once.
	if got, want := timeline(w, 60), "20:2/0"; !strings.HasSuffix(got, want) {
		t.Errorf("got %s, want it to end in %s", got, want)
	}
}

func TestAPolicyLimitsEachPeriodAlsoAfterARestart(t *testing.T) {
	policy := kapacity.ScalingBehavior{StabilizationWindowSeconds: ptr.To[int32](0), Policies: []kapacity.ScalingPolicy{{Type: kapacity.PodsScalingPolicy, Value: 3, PeriodSeconds: 60}}}
	w := world(t, enginetest.Deployment(2), limited(2, policy, policy))
	w.Advance(0)
	to(w, 10)
	w.Advance(0)
	if got := numbers(w); got != "5/0" {
		t.Errorf("the first period: %s", got)
	}
	w.Restart(controllers(w)...)
	if got, want := timeline(w, 200), "0:5/0 60:8/0 120:10/0"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	to(w, 1)
	if got, want := timeline(w, 200), "0:7/0 60:4/0 120:1/0"; got != want {
		t.Errorf("down: got %s, want %s", got, want)
	}
}

// A write that fails must not use up what a policy allows.
func TestAFailedWriteUsesUpNothing(t *testing.T) {
	policy := kapacity.ScalingBehavior{Policies: []kapacity.ScalingPolicy{{Type: kapacity.PodsScalingPolicy, Value: 3, PeriodSeconds: 60}}}
	w := world(t, enginetest.Deployment(2), limited(2, policy, kapacity.ScalingBehavior{}))
	w.Advance(0)
	w.Edit(func(o *kapacity.IntelligentHorizontalPodAutoscaler) { o.Spec.PortraitProviders[0].Static.Replicas = 10 })
	failures := 3
	w.Fail = func(what string) error {
		if strings.HasPrefix(what, "patch ReplicaProfile") && failures > 0 {
			failures--
			return errors.New("unavailable")
		}
		return nil
	}
	for range 5 {
		w.Settle()
	}
	w.Fail = nil
	w.Settle()
	if got := numbers(w); got != "5/0" {
		t.Errorf("after the failures: %s, want the first period's 3 more", got)
	}
}

// What is decided and not carried out, is no base for the next step: both would land together.
func TestTwoStepsOfAPolicyNeverLandTogether(t *testing.T) {
	policy := kapacity.ScalingBehavior{Policies: []kapacity.ScalingPolicy{{Type: kapacity.PodsScalingPolicy, Value: 3, PeriodSeconds: 60}}}
	for name, obstacle := range map[string]func(*enginetest.World) (lift func()){
		"the profile cannot be written": func(w *enginetest.World) func() { return refuse(w, "patch ReplicaProfile") },
		"/scale cannot be written":      func(w *enginetest.World) func() { return refuse(w, "scale") },
		"it is paused": func(w *enginetest.World) func() {
			pause := func(paused bool) {
				w.Edit(func(o *kapacity.IntelligentHorizontalPodAutoscaler) { o.Spec.Paused = paused })
			}
			pause(true)
			return func() { pause(false) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := world(t, enginetest.Deployment(2), limited(2, policy, kapacity.ScalingBehavior{}))
			w.Advance(0)
			lift := obstacle(w)
			w.Edit(func(o *kapacity.IntelligentHorizontalPodAutoscaler) { o.Spec.PortraitProviders[0].Static.Replicas = 20 })
			for range 5 {
				w.Settle()
				w.Advance(40 * time.Second)
			}
			if got := numbers(w); got != "2/0" {
				t.Fatalf("before: %s", got)
			}
			lift()
			w.Restart(controllers(w)...)
			for range 5 {
				w.Settle()
			}
			if got, want := timeline(w, 130), "0:5/0 60:8/0 120:11/0"; got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		})
	}
}

// What a stability checker brings back counts as well: it was there when the period began.
func TestARollbackAddsNothingToWhatAPolicyAllows(t *testing.T) {
	answers.say("errors", 0)
	defer answers.silence()
	o := checked(kapacity.RollbackAction, 0)
	o.Spec.Behavior.ScaleDown = kapacity.ScalingBehavior{StabilizationWindowSeconds: ptr.To[int32](0), GrayStrategy: enginetest.Cutoff(100, 1, 60)}
	o.Spec.Behavior.ScaleUp.Policies = []kapacity.ScalingPolicy{{Type: kapacity.PodsScalingPolicy, Value: 3, PeriodSeconds: 600}}
	w := world(t, enginetest.Deployment(5), o)
	w.Advance(0)
	to(w, 2)
	w.Advance(20 * time.Second)
	if got := numbers(w); got != "2/3" {
		t.Fatalf("cut: %s", got)
	}
	answers.say("errors", 9_000)
	w.Advance(20 * time.Second)
	if got := numbers(w); got != "5/0" {
		t.Fatalf("rolled back: %s", got)
	}
	answers.say("errors", 0)
	to(w, 20)
	if got, want := timeline(w, 500), "0:8/0"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// The answer to an order is lost, and it is taken back before anybody has seen that it was carried out.
func TestAnOrderThatIsTakenBackUnseenCounts(t *testing.T) {
	policy := kapacity.ScalingBehavior{StabilizationWindowSeconds: ptr.To[int32](0), Policies: []kapacity.ScalingPolicy{{Type: kapacity.PodsScalingPolicy, Value: 3, PeriodSeconds: 60}}}
	w := world(t, enginetest.Deployment(2), limited(2, policy, policy))
	w.Advance(0)
	s := &simulation{w: w, sources: &sources{}}
	s.lead()
	see := func(kinds ...string) {
		for _, kind := range kinds {
			for slices.Contains(s.cache.Behind(), kind) {
				s.cache.See(kind)
			}
		}
	}
	look := func(actor int) error {
		_, err := s.actors[actor].Reconcile(w.Context(), enginetest.Request)
		return err
	}
	to(w, 20)
	see(s.cache.Behind()...)
	w.Lose = func(what string) error {
		if what == "patch ReplicaProfile nginx" {
			return someError["timeout"]()
		}
		return nil
	}
	if err := look(theIHPA); err == nil || w.Profile().Spec.OnlineReplicas != 5 {
		t.Fatalf("%v, profile %+v", err, w.Profile().Spec)
	}
	w.Lose = nil
	to(w, 2)
	see("IntelligentHorizontalPodAutoscaler")
	w.Must(look(theIHPA))
	w.Must(look(theProfile))
	w.Play()
	to(w, 20)
	for range 5 {
		see(s.cache.Behind()...)
		w.Must(look(theIHPA))
		w.Must(look(theProfile))
		w.Play()
	}
	if got := numbers(w); got != "5/0" {
		t.Errorf("at once: %s, want 5/0", got)
	}
}

func TestNothingIsWrittenWhenAChangeNoLongerCounts(t *testing.T) {
	policy := kapacity.ScalingBehavior{Policies: []kapacity.ScalingPolicy{{Type: kapacity.PodsScalingPolicy, Value: 3, PeriodSeconds: 60}}}
	w := world(t, enginetest.Deployment(2), limited(4, policy, policy))
	w.Advance(10 * time.Second)
	w.Writes = nil
	w.Advance(10 * time.Minute)
	if got := numbers(w); got != "4/0" || len(w.Writes) > 0 {
		t.Errorf("%s, writes %v", got, w.Writes)
	}
}

// refuse has all writes fail whose description contains what.
func refuse(w *enginetest.World, what string) (lift func()) {
	w.Fail = func(write string) error {
		if strings.Contains(write, what) {
			return errors.New("unavailable")
		}
		return nil
	}
	return func() { w.Fail = nil }
}

func TestAHoldKeepsTheCountAndLiftsItself(t *testing.T) {
	w := world(t, enginetest.Deployment(4), enginetest.IHPAOf("Deployment", nil, enginetest.Static(1, 4)))
	w.Advance(0)
	w.Events.Take()
	hold := func(h *kapacity.Hold) {
		t.Helper()
		w.Edit(func(o *kapacity.IntelligentHorizontalPodAutoscaler) { o.Spec.Hold = h })
		w.Advance(0)
	}
	until := metav1.NewTime(w.Clock.Now().Add(30 * time.Second))
	hold(&kapacity.Hold{Until: &until, Reason: "sale", Actor: "alice"})
	to(w, 9)
	w.Advance(0)
	if got := numbers(w); got != "4/0" {
		t.Errorf("held at what it was going to: %s", got)
	}
	expect(w, kapacity.ConditionHeld, metav1.ConditionTrue, kapacity.ReasonHoldBegan, "held at 4 by alice until")
	if got, want := timeline(w, 60), "0:4/0 30:9/0"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	var holds []string
	for _, e := range w.Events.Take() {
		if strings.Contains(e, "Hold") {
			holds = append(holds, e)
		}
	}
	at := until.UTC().Format(time.RFC3339)
	if diff := cmp.Diff([]string{"ihpa_controller Normal HoldBegan held at 4 by alice until " + at + ": sale",
		"ihpa_controller Normal HoldEnded the hold by alice lifted itself at " + at}, holds); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}

	hold(&kapacity.Hold{Replicas: ptr.To[int32](99)})
	if got := numbers(w); got != "20/0" {
		t.Errorf("a hold beyond the bounds: %s", got)
	}
	hold(nil)
	if got := numbers(w); got != "9/0" || w.IHPA().Status.HeldReplicas != nil {
		t.Errorf("after the hold was taken away: %s, status %v", got, w.IHPA().Status.HeldReplicas)
	}
	expect(w, kapacity.ConditionHeld, metav1.ConditionFalse, kapacity.ReasonNotHeld, "nothing is held")
}

// What limits the count is told in time, also where the count stays as it is.
func TestScalingLimitedFollowsTheTime(t *testing.T) {
	o := limited(5, kapacity.ScalingBehavior{}, kapacity.ScalingBehavior{StabilizationWindowSeconds: ptr.To[int32](60)})
	o.Spec.MinReplicas = 5
	w := world(t, enginetest.Deployment(5), o)
	w.Advance(10 * time.Second)
	to(w, 2)
	ends := w.Clock.Now().Add(60 * time.Second)
	w.Advance(50 * time.Second)
	expect(w, kapacity.ConditionScalingLimited, metav1.ConditionFalse, kapacity.ReasonDesiredWithinRange, "")
	w.Advance(10 * time.Minute)
	expect(w, kapacity.ConditionScalingLimited, metav1.ConditionTrue, kapacity.ReasonTooFewReplicas, "")
	told := meta.FindStatusCondition(w.IHPA().Status.Conditions, kapacity.ConditionScalingLimited).LastTransitionTime
	if got := numbers(w); got != "5/0" || !told.Time.Equal(ends) {
		t.Errorf("the count is %s; told at %s, while the window ends at %s", got, told, ends)
	}
}

// What the bounds would say without the hold is not written and taken back with each look.
func TestNothingIsWrittenWhileAHoldIsWithinTheBounds(t *testing.T) {
	o := limited(99, kapacity.ScalingBehavior{}, kapacity.ScalingBehavior{})
	o.Spec.Hold = &kapacity.Hold{Replicas: ptr.To[int32](3)}
	w := world(t, enginetest.Deployment(3), o)
	w.Advance(10 * time.Second)
	w.Writes = nil
	w.Restart(controllers(w)...)
	w.Advance(10 * time.Second)
	if len(w.Writes) > 0 {
		t.Errorf("writes %v", w.Writes)
	}
	expect(w, kapacity.ConditionScalingLimited, metav1.ConditionFalse, kapacity.ReasonDesiredWithinRange, "")
}

func TestWantedIsDecidedFromItsInputsAlone(t *testing.T) {
	now, window := enginetest.Start, kapacity.ScalingBehavior{StabilizationWindowSeconds: ptr.To[int32](60)}
	between := bounds.Decision{Min: 2, Max: 10}
	for name, c := range map[string]struct {
		in       wish
		replicas *int32
		reason   string
		next     time.Time
		would    []string
	}{
		"nobody wants anything":        {in: wish{online: 4, bounds: between}},
		"what the portraits ask for":   {in: wish{online: 4, bounds: between, merged: merge.Outcome{Valid: true, Replicas: 6}}, replicas: new(int32(6)), reason: kapacity.ReasonDesiredWithinRange},
		"no more than the bound":       {in: wish{online: 4, bounds: between, merged: merge.Outcome{Valid: true, Replicas: 60}}, replicas: new(int32(10)), reason: kapacity.ReasonTooManyReplicas},
		"not yet less, by the window":  {in: wish{online: 4, bounds: between, merged: merge.Outcome{Valid: true, Replicas: 3}, behavior: kapacity.IHPABehavior{ScaleDown: window}}, replicas: new(int32(4)), reason: kapacity.ReasonDesiredWithinRange, next: now.Add(time.Minute), would: []string{"scale-down blocked until " + clockOf(now.Add(time.Minute))}},
		"a hold before the window":     {in: wish{online: 4, bounds: between, merged: merge.Outcome{Valid: true, Replicas: 3}, behavior: kapacity.IHPABehavior{ScaleDown: window}, hold: &kapacity.Hold{Replicas: new(int32(8))}}, replicas: new(int32(8)), reason: kapacity.ReasonDesiredWithinRange, would: []string{"4 replicas when the hold is lifted"}},
		"a hold of what is kept":       {in: wish{online: 4, bounds: between, hold: &kapacity.Hold{Until: &metav1.Time{Time: now.Add(time.Hour)}}, held: new(int32(5)), desired: new(int32(7))}, replicas: new(int32(5)), reason: kapacity.ReasonDesiredWithinRange, next: now.Add(time.Hour)},
		"a hold of what was wanted":    {in: wish{online: 4, bounds: between, hold: &kapacity.Hold{}, desired: new(int32(7))}, replicas: new(int32(7)), reason: kapacity.ReasonDesiredWithinRange},
		"a hold within the bounds yet": {in: wish{online: 4, bounds: between, hold: &kapacity.Hold{Replicas: new(int32(1))}}, replicas: new(int32(2)), reason: kapacity.ReasonTooFewReplicas},
	} {
		t.Run(name, func(t *testing.T) {
			w := want(c.in, now)
			reason := ""
			if w.limit != nil {
				reason = w.limit.Reason
			}
			if diff := cmp.Diff(c.replicas, w.replicas); diff != "" || reason != c.reason || !w.next.Equal(c.next) || !slices.Equal(w.counterfactuals, c.would) {
				t.Errorf("%s, next %s, %q; replicas (-want +got):\n%s", reason, w.next, w.counterfactuals, diff)
			}
		})
	}
}

func TestScheduledBoundsHoldWhileTheirWindowIsOpen(t *testing.T) {
	o := enginetest.IHPAOf("Deployment", nil, enginetest.Static(1, 3))
	o.Spec.ScheduledBounds = []kapacity.ScheduledBounds{
		{Name: "lunch", Start: "5 12 * * *", End: "10 12 * * *", MinReplicas: ptr.To[int32](6)},
		{Name: "night", Start: "20 12 * * *", End: "30 12 * * *", MaxReplicas: ptr.To[int32](1)},
		{Name: "never", Start: "0 0 31 2 *", End: "30 12 * * *", MaxReplicas: ptr.To[int32](1)},
	}
	w := world(t, enginetest.Deployment(3), o)
	if got, want := timeline(w, 7*60), "0:3/0 300:6/0"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	expect(w, kapacity.ConditionScalingLimited, metav1.ConditionTrue, kapacity.ReasonTooFewReplicas, `6 in window "lunch"`)
	expect(w, kapacity.ConditionPortraitsHealthy, metav1.ConditionTrue, kapacity.ReasonProvidersHealthy, `scheduledBounds[2] "never"`)
	if got, want := timeline(w, 60*60), "0:6/0 180:3/0 780:1/0 1380:3/0"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// A ScalingSchedule as a portrait: 100 of its value are one replica.
func TestASchedulePortrait(t *testing.T) {
	date := zalando.ScheduleDate(enginetest.Start.Add(20 * time.Minute).Format(time.RFC3339))
	s := &zalando.ScalingSchedule{ObjectMeta: metav1.ObjectMeta{Namespace: enginetest.Namespace, Name: "sale"}, Spec: zalando.ScalingScheduleSpec{
		ScalingWindowDurationMinutes: ptr.To[int64](0), Schedules: []zalando.Schedule{{Type: zalando.OneTimeSchedule, Date: &date, DurationMinutes: 5, Value: 450}}}}
	provider := kapacity.HorizontalPortraitProvider{Type: kapacity.ScheduleProvider, Priority: 2,
		Schedule: &kapacity.ScheduleHorizontalPortraitProvider{Name: "sale", AverageValue: ptr.To(resource.MustParse("100"))}}
	missing := provider
	missing.Schedule = &kapacity.ScheduleHorizontalPortraitProvider{Kind: zalando.ClusterScalingScheduleKind, Name: "gone"}
	missing.Priority = 0
	w := world(t, enginetest.Deployment(1), s, enginetest.IHPAOf("Deployment", nil, enginetest.Static(1, 2), provider, missing))
	if got, want := timeline(w, 22*60), "0:2/0 1200:5/0"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if v := w.IHPA().Status.CurrentPortraitValue; v.Provider != "Schedule-sale" || v.ExpireTime == nil {
		t.Errorf("current value %+v", v)
	}
	expect(w, kapacity.ConditionPortraitsHealthy, metav1.ConditionFalse, kapacity.ReasonProviderFailed, `Schedule-gone failed: ClusterScalingSchedule "gone": it does not exist`)
	if got, want := timeline(w, 10*60), "0:5/0 180:2/0"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
