package ihpa

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	"github.com/kubetide/kubetide/scaler/enginetest"
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
