package replay_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	"github.com/kubetide/kubetide/internal/decision"
	"github.com/kubetide/kubetide/internal/sample"
	windows "github.com/kubetide/kubetide/internal/window"
	"github.com/kubetide/kubetide/scaler/enginetest"
	"github.com/kubetide/kubetide/scaler/ihpa"
	"github.com/kubetide/kubetide/scaler/replay"
	"github.com/kubetide/kubetide/scaler/replicaprofile"
	"github.com/kubetide/kubetide/scaler/target"
	"github.com/kubetide/kubetide/scaler/wants"
)

// errorRate is the one metric of the stability checkers.
type errorRate struct {
	mu    sync.Mutex
	milli int64 // negative: nobody knows
}

func (e *errorRate) set(milli int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.milli = milli
}

func (e *errorRate) Answer(sample.Query) sample.Answer {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.milli < 0 {
		return sample.Answer{Cause: errors.New("nobody knows")}
	}
	return sample.Answer{State: sample.Fresh, Points: []sample.Point{{Milli: e.milli}}}
}

func (e *errorRate) Subscribe(sample.Query, func()) (cancel func()) { return func() {} }
func (e *errorRate) Want(sample.Query) (release func())             { return func() {} }
func (e *errorRate) Queries(o metav1.Object, _ autoscalingv2.CrossVersionObjectReference, metrics []autoscalingv2.MetricSpec) []sample.Asked {
	out := make([]sample.Asked, len(metrics))
	for i, m := range metrics {
		out[i].Query = sample.Query{Kind: sample.External, Namespace: o.GetNamespace(), Metric: m.External.Metric.Name}
	}
	return out
}

// life is one object's, from its first decision to its last, with the real controllers at work on it.
type life struct {
	*enginetest.World
	r    *rand.Rand
	rate *errorRate
	log  *decision.Log
}

func newLife(t *testing.T, seed uint64) *life {
	l := &life{r: rand.New(rand.NewPCG(seed, 0)), rate: &errorRate{milli: -1}, log: decision.NewLog(1<<20, 1<<30)}
	kind, workload := "Deployment", client.Object(enginetest.Deployment(4))
	if l.maybe(3) {
		kind, workload = "StatefulSet", enginetest.StatefulSet(4, appsv1.ParallelPodManagement)
	}
	o := enginetest.IHPAOf(kind, nil, enginetest.Static(1, 4), enginetest.Cron(int32(l.r.IntN(3)), 6, "*/20 * * * *", "10-59/20 * * * *"),
		kapacity.HorizontalPortraitProvider{Type: kapacity.DynamicProvider, Priority: int32(l.r.IntN(3)), Dynamic: &kapacity.DynamicHorizontalPortraitProvider{
			PortraitSpec: kapacity.PortraitSpec{PortraitType: kapacity.ReactivePortrait, Algorithm: kapacity.PortraitAlgorithm{Type: kapacity.KubeHPAAlgorithm}}}})
	o.Spec.MinReplicas, o.Spec.MaxReplicas = 1, 12
	if !l.maybe(4) {
		o.Spec.Behavior.ScaleDown.GrayStrategy = enginetest.Cutoff(int32(20+l.r.IntN(80)), int32(5+l.r.IntN(40)), int32(l.r.IntN(60)))
		o.Spec.StabilityCheckers = []kapacity.StabilityChecker{checker(kapacity.PauseAction, 5), checker(kapacity.RollbackAction, 20)}
	}
	l.World = enginetest.New(t, []enginetest.Index{
		{Kind: &kapacity.ReplicaProfile{}, Name: replicaprofile.TargetIndex, Of: replicaprofile.IndexTarget},
		{Kind: &kapacity.IntelligentHorizontalPodAutoscaler{}, Name: ihpa.TargetIndex, Of: ihpa.IndexTarget},
		{Kind: &kapacity.IntelligentHorizontalPodAutoscaler{}, Name: ihpa.PortraitIndex, Of: ihpa.IndexPortraits},
		{Kind: &autoscalingv2.HorizontalPodAutoscaler{}, Name: ihpa.TargetIndex, Of: ihpa.IndexTarget},
		{Kind: &kapacity.HorizontalPortrait{}, Name: target.ControllerUID, Of: target.IndexControllerUID},
	}, workload, o)
	l.restart()
	return l
}

func checker(action kapacity.StabilizationAction, threshold int64) kapacity.StabilityChecker {
	return kapacity.StabilityChecker{Type: kapacity.MetricsStabilityChecker, StabilizationAction: action, CoolDownSeconds: 30,
		Metrics: &kapacity.MetricsStabilityCheckerConfig{Metrics: []kapacity.MetricSpec{{Operator: kapacity.MetricOperatorGreater, MetricSpec: autoscalingv2.MetricSpec{
			Type: autoscalingv2.ExternalMetricSourceType, External: &autoscalingv2.ExternalMetricSource{Metric: autoscalingv2.MetricIdentifier{Name: "errors"},
				Target: autoscalingv2.MetricTarget{Type: autoscalingv2.ValueMetricType, Value: resource.NewQuantity(threshold, resource.DecimalSI)}}}}}}}
}

func (l *life) maybe(of int) bool { return l.r.IntN(of) == 0 }

func (l *life) restart() {
	l.Restart([]reconcile.Reconciler{
		&ihpa.Reconciler{Client: l.Client, Clock: l.Clock, Recorder: l.Events.Recorder(kapacity.IHPAEventComponent), Decisions: l.log, Metrics: wants.New[struct{}](l.rate, l.Clock),
			Schedules: windows.Defaults{Window: 10 * time.Minute, Steps: 10, Zone: time.UTC}},
		&replicaprofile.Reconciler{Client: l.Client, Clock: l.Clock, Recorder: l.Events.Recorder(kapacity.ReplicaProfileEventComponent), Live: l.Client},
	}...)
}

// act does something that may change the next decision.
func (l *life) act() {
	rules := func() kapacity.ScalingBehavior {
		return kapacity.ScalingBehavior{StabilizationWindowSeconds: ptr.To(int32(l.r.IntN(3) * 60)),
			Policies: []kapacity.ScalingPolicy{{Type: kapacity.PodsScalingPolicy, Value: int32(1 + l.r.IntN(4)), PeriodSeconds: 60}}}
	}
	switch l.r.IntN(14) {
	case 0, 1, 2, 3:
		l.Edit(func(o *kapacity.IntelligentHorizontalPodAutoscaler) {
			o.Spec.PortraitProviders[0].Static.Replicas = int32(l.r.IntN(14))
		})
	case 4, 5:
		l.Simulate(func() {
			hp := &kapacity.HorizontalPortrait{}
			l.Must(l.Client.Get(l.Context(), client.ObjectKey{Namespace: enginetest.Namespace, Name: "nginx-reactive"}, hp))
			hp.Status.PortraitData = &kapacity.PortraitData{Type: kapacity.StaticPortraitData, Static: &kapacity.StaticPortrait{Replicas: int32(l.r.IntN(14))}}
			if l.maybe(3) {
				hp.Status.PortraitData.ExpireTime = ptr.To(metav1.NewTime(l.Clock.Now().Add(time.Minute)))
			}
			status := metav1.ConditionTrue
			if l.maybe(3) {
				status = metav1.ConditionFalse
			}
			meta.SetStatusCondition(&hp.Status.Conditions, metav1.Condition{Type: kapacity.ConditionPortraitGenerated, Status: status, Reason: "Some", Message: `"no" <metrics>`})
			l.Must(l.Client.Status().Update(l.Context(), hp))
		})
	case 6:
		l.Edit(func(o *kapacity.IntelligentHorizontalPodAutoscaler) {
			up, down := rules(), rules()
			down.GrayStrategy = o.Spec.Behavior.ScaleDown.GrayStrategy
			o.Spec.Behavior.ScaleUp, o.Spec.Behavior.ScaleDown = up, down
		})
	case 7:
		l.Edit(func(o *kapacity.IntelligentHorizontalPodAutoscaler) {
			o.Spec.ScheduledBounds = nil
			if l.maybe(2) {
				o.Spec.ScheduledBounds = []kapacity.ScheduledBounds{{Name: "busy", TimeZone: "Asia/Kolkata", Start: "*/15 * * * *", End: "7-59/15 * * * *", MinReplicas: ptr.To(int32(l.r.IntN(6)))}}
			}
		})
	case 8:
		l.Edit(func(o *kapacity.IntelligentHorizontalPodAutoscaler) {
			o.Spec.Hold = nil
			if l.maybe(2) {
				o.Spec.Hold = &kapacity.Hold{Until: ptr.To(metav1.NewTime(l.Clock.Now().Add(time.Minute))), Reason: "a sale"}
			}
		})
	case 9:
		l.Edit(func(o *kapacity.IntelligentHorizontalPodAutoscaler) { o.Spec.Paused = !o.Spec.Paused })
	case 10, 11:
		l.rate.set(int64(l.r.IntN(40)-5) * 1000)
	case 12:
		l.restart()
	default:
		l.Edit(func(o *kapacity.IntelligentHorizontalPodAutoscaler) {
			o.Spec.ScaleMode = kapacity.ScaleModeAuto
			if l.maybe(3) {
				o.Spec.ScaleMode = kapacity.ScaleModePreview
			}
		})
	}
}

// What the real controllers keep of their decisions is enough to take each of them again, and says what came out. A record rests
// on up to five decisions.
func TestTenThousandDecisionsOfTheEngineComeOutTheSame(t *testing.T) {
	const decisions = 10_000
	total, kept, largest, functions := 0, 0, 0, map[string]int{}
	for seed := uint64(1); total < decisions; seed++ {
		l := newLife(t, seed)
		l.Advance(0)
		for range 100 {
			l.act()
			l.Advance(time.Duration(l.r.IntN(60_000)) * time.Millisecond)
		}
		records := l.log.Of(decision.Object{Kind: kapacity.IHPAKind, Namespace: enginetest.Namespace, Name: enginetest.Name})
		if len(records) < 50 {
			t.Fatalf("seed %d: %d records only", seed, len(records))
		}
		for i, rec := range records {
			size := 0
			for _, c := range rec.Calls {
				functions[c.Function]++
				total++
				size += len(c.Inputs) + len(c.Outcome)
				if err := replay.Rerun(c); err != nil {
					t.Fatalf("seed %d, record %d: %v", seed, i, err)
				}
			}
			if size == 0 {
				t.Fatalf("seed %d, record %d has nothing to take again: %s", seed, i, rec)
			}
			largest = max(largest, size)
			agree(t, fmt.Sprintf("seed %d, record %d", seed, i), rec)
		}
		kept += len(records)
	}
	t.Logf("%d decisions in %d records, of %v; the largest takes %d bytes", total, kept, functions, largest)
	if largest > decision.MaxCallBytes/2 {
		t.Errorf("the largest takes %d bytes of the %d that there are", largest, decision.MaxCallBytes)
	}
	for _, f := range []string{"merge", "bounds", "behavior", "stability", "gray"} {
		if functions[f] < decisions/20 {
			t.Errorf("only %d decisions of %s", functions[f], f)
		}
	}
}

// agree checks that the record says what its calls came to.
func agree(t *testing.T, where string, rec decision.Record) {
	t.Helper()
	if rec.Truncated {
		return
	}
	steps := map[string]decision.Step{}
	for _, s := range rec.Steps {
		steps[s.Stage] = s
	}
	for _, c := range rec.Calls {
		var out struct {
			Candidates []decision.Candidate
			Step       decision.Step
		}
		if c.Function != "merge" && c.Function != "gray" {
			continue
		}
		if err := json.Unmarshal(c.Outcome, &out); err != nil {
			t.Fatalf("%s: %v", where, err)
		}
		if got, ok := steps[c.Function]; !ok || got != out.Step {
			t.Fatalf("%s: the record says %+v, what was decided is %+v", where, got, out.Step)
		}
		if diff := cmp.Diff(out.Candidates, rec.Candidates); c.Function == "merge" && diff != "" {
			t.Fatalf("%s: candidates (-decided +record):\n%s", where, diff)
		}
	}
}
