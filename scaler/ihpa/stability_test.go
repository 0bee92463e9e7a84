package ihpa

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	"github.com/kubetide/kubetide/internal/sample"
	"github.com/kubetide/kubetide/scaler/enginetest"
)

// answers are what metrics say in these tests, by their names.
var answers demand

type demand struct {
	mu    sync.Mutex
	milli map[string]int64
	wants map[string]int
}

func (d *demand) say(metric string, milli int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.milli == nil {
		d.milli = map[string]int64{}
	}
	d.milli[metric] = milli
}

func (d *demand) silence() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.milli = nil
}

func (d *demand) Answer(q sample.Query) sample.Answer {
	d.mu.Lock()
	defer d.mu.Unlock()
	if milli, ok := d.milli[q.Metric]; ok {
		return sample.Answer{State: sample.Fresh, Points: []sample.Point{{Milli: milli}}}
	}
	return sample.Answer{Cause: errors.New("nobody knows")}
}

func (d *demand) Subscribe(sample.Query, func()) (cancel func()) { return func() {} }

func (d *demand) Queries(o metav1.Object, _ autoscalingv2.CrossVersionObjectReference, metrics []autoscalingv2.MetricSpec) []sample.Asked {
	out := make([]sample.Asked, len(metrics))
	for i, m := range metrics {
		out[i].Query = sample.Query{Kind: sample.External, Namespace: o.GetNamespace(), Metric: m.External.Metric.Name}
	}
	return out
}

func (d *demand) Want(q sample.Query) (release func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.wants == nil {
		d.wants = map[string]int{}
	}
	d.wants[q.Metric]++
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.wants[q.Metric]--
	}
}

func (d *demand) wanted(metric string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.wants[metric]
}

// checked returns the documented run of Cutoff with a checker: unstable while errors are above 5.
func checked(action kapacity.StabilizationAction, coolDown int32) *kapacity.IntelligentHorizontalPodAutoscaler {
	o := enginetest.IHPAOf("Deployment", enginetest.Cutoff(50, 30, 60), enginetest.Static(1, 5))
	o.Spec.StabilityCheckers = []kapacity.StabilityChecker{{Type: kapacity.MetricsStabilityChecker, StabilizationAction: action, CoolDownSeconds: coolDown,
		Metrics: &kapacity.MetricsStabilityCheckerConfig{Metrics: []kapacity.MetricSpec{{Operator: kapacity.MetricOperatorGreater, MetricSpec: autoscalingv2.MetricSpec{
			Type: autoscalingv2.ExternalMetricSourceType, External: &autoscalingv2.ExternalMetricSource{Metric: autoscalingv2.MetricIdentifier{Name: "errors"},
				Target: autoscalingv2.MetricTarget{Type: autoscalingv2.ValueMetricType, Value: ptr.To(resource.MustParse("5"))}}}}}}}}
	return o
}

// N8: a breach in the middle of a run stops it, and it goes on by itself after the cool-down.
func TestAPausingCheckerStopsTheRunAndItResumes(t *testing.T) {
	answers.say("errors", 0)
	defer answers.silence()
	w := world(t, enginetest.Deployment(5), checked(kapacity.PauseAction, 20))
	w.Advance(0)
	to(w, 1)
	w.Advance(20 * time.Second)
	if got := numbers(w); got != "3/2" {
		t.Fatalf("the first step: %s", got)
	}
	answers.say("errors", 9_000)
	if got, want := timeline(w, 120), "0:3/2"; got != want {
		t.Errorf("paused: got %s, want %s", got, want)
	}
	expect(w, kapacity.ConditionStable, metav1.ConditionFalse, kapacity.ReasonGrayPaused, `stabilityCheckers[0]: metric "errors" is 9, > 5`)
	answers.say("errors", 1_000)
	if got, want := timeline(w, 200), "0:3/2 20:1/4 80:1/0"; got != want {
		t.Errorf("resumed: got %s, want %s", got, want)
	}
	expect(w, kapacity.ConditionStable, metav1.ConditionTrue, kapacity.ReasonStable, "")
	n := 0
	for _, e := range w.Events.Take() {
		if strings.Contains(e, "Warning "+kapacity.ReasonGrayPaused) {
			n++
		}
	}
	if n != 1 {
		t.Errorf("%d Warnings for one breach", n)
	}
}

// N8: or it brings the cut pods back, the very same ones, and begins anew after the cool-down, also under another leader.
func TestARollingBackCheckerBringsTheCutPodsBack(t *testing.T) {
	answers.say("errors", 0)
	defer answers.silence()
	w := world(t, enginetest.Deployment(5), checked(kapacity.RollbackAction, 20))
	w.Advance(0)
	before := uids(w.Pods())
	to(w, 1)
	w.Advance(20 * time.Second)
	answers.say("errors", 9_000)
	w.Advance(0)
	if got := numbers(w); got != "5/0" || w.Endpoints() != 5 {
		t.Errorf("rolled back: %s, %d endpoints", got, w.Endpoints())
	}
	for i, uid := range uids(w.Pods()) {
		if uid != before[i] {
			t.Errorf("pod %d is another one", i)
		}
	}
	expect(w, kapacity.ConditionStable, metav1.ConditionFalse, kapacity.ReasonGrayRolledBack, `metric "errors" is 9, > 5`)
	w.Advance(10 * time.Second)
	answers.say("errors", 1_000)
	w.Restart(controllers(w)...)
	if got, want := timeline(w, 200), "0:5/0 20:3/2 50:1/4 110:1/0"; got != want {
		t.Errorf("begun anew: got %s, want %s", got, want)
	}
}

// A checker without data lets the run go on, and says so; it is asked no longer when it is gone.
func TestACheckerWithoutDataStopsNothing(t *testing.T) {
	w := world(t, enginetest.Deployment(5), checked(kapacity.RollbackAction, 20))
	w.Advance(0)
	if n := answers.wanted("errors"); n == 0 {
		t.Error("the checker's metric is not collected")
	}
	to(w, 1)
	w.Advance(20 * time.Second)
	if got := numbers(w); got != "3/2" {
		t.Errorf("the first step: %s", got)
	}
	expect(w, kapacity.ConditionStable, metav1.ConditionTrue, kapacity.ReasonStable, "nobody knows; the gray run goes on without it")
	before := answers.wanted("errors")
	w.Edit(func(o *kapacity.IntelligentHorizontalPodAutoscaler) { o.Spec.StabilityCheckers = nil })
	w.Advance(0)
	if n := answers.wanted("errors"); n != before-1 {
		t.Errorf("%d want the metric, %d did", n, before)
	}
	for _, c := range w.IHPA().Status.Conditions {
		if c.Type == kapacity.ConditionStable {
			t.Errorf("condition %+v", c)
		}
	}
}

// A breach belongs to the run that it was seen in: what is not scaled any more remembers none.
func TestAPreviewForgetsBreaches(t *testing.T) {
	answers.say("errors", 0)
	defer answers.silence()
	w := world(t, enginetest.Deployment(5), checked(kapacity.PauseAction, 600))
	w.Advance(0)
	to(w, 1)
	w.Advance(20 * time.Second)
	answers.say("errors", 9_000)
	w.Advance(0)
	if n := len(w.IHPA().Status.Breaches); n != 1 {
		t.Fatalf("%d breaches during the run", n)
	}
	w.Edit(func(o *kapacity.IntelligentHorizontalPodAutoscaler) { o.Spec.ScaleMode = kapacity.ScaleModePreview })
	w.Advance(0)
	if b := w.IHPA().Status.Breaches; b != nil {
		t.Errorf("breaches in a preview: %+v", b)
	}
}
