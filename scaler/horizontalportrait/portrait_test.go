package horizontalportrait

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	"github.com/kubetide/kubetide/internal/decision"
	"github.com/kubetide/kubetide/internal/sample"
	"github.com/kubetide/kubetide/portraits/reactive"
	"github.com/kubetide/kubetide/scaler/enginetest"
	"github.com/kubetide/kubetide/scaler/wants"
)

// demand is a source that says what the test sets, by the metrics' names.
type demand struct {
	mu      sync.Mutex
	answers map[string]sample.Answer
	wanted  map[sample.Query]int
	told    map[sample.Query]map[int]func()
	serial  int
}

func (d *demand) Queries(o metav1.Object, target autoscalingv2.CrossVersionObjectReference, metrics []autoscalingv2.MetricSpec) []sample.Asked {
	out := make([]sample.Asked, len(metrics))
	for i, m := range metrics {
		q := sample.Query{Namespace: o.GetNamespace(), Collector: "fake", Target: sample.ObjectRef{Name: target.Name}, Settings: o.GetAnnotations()["metric-config.x/setting"]}
		switch {
		case m.Resource != nil:
			q.Kind, q.Metric = sample.Resource, string(m.Resource.Name)
		case m.Pods != nil:
			q.Kind, q.Metric = sample.Pods, m.Pods.Metric.Name
		case m.External != nil:
			q.Kind, q.Metric = sample.External, m.External.Metric.Name
		case m.Object != nil:
			q.Kind, q.Metric = sample.Object, m.Object.Metric.Name
		}
		switch q.Metric {
		case "storage":
			out[i].Err = errors.New("unsupported resource: storage")
		case "":
			out[i].Err = fmt.Errorf("a metric of type %q without its settings", m.Type)
		default:
			out[i].Query = q
		}
		if q.Settings == "typo" {
			out[i].Warnings = []string{"typo has no effect"}
		}
	}
	return out
}

func (d *demand) Want(q sample.Query) func() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.wanted[q]++
	return sync.OnceFunc(func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.wanted[q]--; d.wanted[q] == 0 {
			delete(d.wanted, q)
		}
	})
}

func (d *demand) Subscribe(q sample.Query, notify func()) func() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.serial++
	id := d.serial
	if d.told[q] == nil {
		d.told[q] = map[int]func(){}
	}
	d.told[q][id] = notify
	return sync.OnceFunc(func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if delete(d.told[q], id); len(d.told[q]) == 0 {
			delete(d.told, q)
		}
	})
}

func (d *demand) Answer(q sample.Query) sample.Answer {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.wanted[q] == 0 {
		return sample.Answer{Cause: errors.New("nothing asks for this metric")}
	}
	if a, ok := d.answers[q.Metric]; ok {
		return a
	}
	return sample.Answer{Cause: errors.New("it has not been collected yet")}
}

// rig is a world with the controller at work on one portrait.
type rig struct {
	*enginetest.World
	*Reconciler
	demand *demand
	jobs   *jobs
}

type jobs struct {
	data            *kapacity.PortraitData
	err             error
	cleaned, failed int
}

func (j *jobs) Reconcile(context.Context, *kapacity.HorizontalPortrait) (*kapacity.PortraitData, string, time.Time, error) {
	return j.data, kapacity.ReasonFailedFetchExternalAlgorithmJobResult, time.Time{}, j.err
}

func (j *jobs) Cleanup(context.Context, *kapacity.HorizontalPortrait) (string, error) {
	if j.failed > 0 {
		j.failed--
		return kapacity.ReasonFailedCleanupExternalAlgorithmJob, errors.New("the CronJob cannot be deleted")
	}
	j.cleaned++
	return "", nil
}

func newRig(t *testing.T, hp *kapacity.HorizontalPortrait, objects ...client.Object) *rig {
	t.Helper()
	ignore := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, ignore) })
	w := enginetest.New(t, []enginetest.Index{{Kind: &kapacity.HorizontalPortrait{}, Name: TargetIndex, Of: IndexTarget}}, objects...)
	status := hp.Status
	g := &rig{World: w, demand: &demand{answers: map[string]sample.Answer{}, wanted: map[sample.Query]int{}, told: map[sample.Query]map[int]func(){}}, jobs: &jobs{}}
	w.Simulate(func() {
		w.Must(w.Client.Create(w.Context(), hp))
		hp.Status = status
		w.Must(w.Client.Status().Update(w.Context(), hp))
	})
	g.restart()
	t.Cleanup(g.Metrics.Close)
	return g
}

// restart is a new leader: nothing is left in memory.
func (g *rig) restart() {
	g.Reconciler = &Reconciler{Client: g.World.Client, Clock: g.World.Clock, Recorder: g.Events.Recorder(kapacity.HorizontalPortraitEventComponent),
		Metrics: wants.New[memory](g.demand, g.World.Clock), Details: &decision.Portraits{}, Jobs: g.jobs}
}

func (g *rig) sync() reconcile.Result {
	g.T.Helper()
	result, err := g.Reconcile(g.Context(), enginetest.Request)
	g.Must(err)
	return result
}

func (g *rig) hp() *kapacity.HorizontalPortrait {
	hp := &kapacity.HorizontalPortrait{}
	if err := g.World.Client.Get(g.Context(), enginetest.Request.NamespacedName, hp); err != nil {
		g.Must(client.IgnoreNotFound(err))
		return nil
	}
	return hp
}

func (g *rig) edit(change func(*kapacity.HorizontalPortrait)) {
	g.T.Helper()
	hp := g.hp()
	change(hp)
	hp.Generation++
	g.Simulate(func() { g.Must(g.World.Client.Update(g.Context(), hp)) })
}

// replicas of the portrait, -1 if there is none.
func (g *rig) replicas() int32 {
	if d := g.hp().Status.PortraitData; d != nil && d.Type == kapacity.StaticPortraitData && d.ExpireTime == nil {
		return d.Static.Replicas
	}
	return -1
}

func (g *rig) condition() string {
	c := meta.FindStatusCondition(g.hp().Status.Conditions, kapacity.ConditionPortraitGenerated)
	if c == nil {
		return "none"
	}
	return fmt.Sprintf("%s %s: %s", c.Status, c.Reason, c.Message)
}

const generated = "True SucceededGeneratePortrait: portrait has been successfully generated"

// expect compares the portrait, and whether its condition contains the text.
func (g *rig) expect(when string, replicas int32, condition string) {
	g.T.Helper()
	if got := g.replicas(); got != replicas {
		g.T.Errorf("%s: %d replicas, want %d", when, got, replicas)
	}
	if got := g.condition(); !strings.Contains(got, condition) {
		g.T.Errorf("%s: condition %q, want %q", when, got, condition)
	}
}

func (g *rig) says(metric string, milli ...int64) {
	g.demand.mu.Lock()
	defer g.demand.mu.Unlock()
	a := sample.Answer{State: sample.Fresh, Taken: g.World.Clock.Now()}
	for i, m := range milli {
		p := sample.Point{Milli: m}
		if metric == "cpu" || metric == "rps" {
			p.Pod, p.Window = fmt.Sprintf("nginx-%d", i), 15*time.Second
		}
		a.Points = append(a.Points, p)
	}
	g.demand.answers[metric] = a
}

func (g *rig) fails(metric, format string, args ...any) {
	g.demand.mu.Lock()
	defer g.demand.mu.Unlock()
	g.demand.answers[metric] = sample.Answer{State: sample.Stale, Taken: g.World.Clock.Now(), Cause: fmt.Errorf(format, args...)}
}

func portrait(metrics ...autoscalingv2.MetricSpec) *kapacity.HorizontalPortrait {
	hp := &kapacity.HorizontalPortrait{ObjectMeta: metav1.ObjectMeta{Namespace: enginetest.Namespace, Name: enginetest.Name},
		Spec: kapacity.HorizontalPortraitSpec{ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "StatefulSet", Name: enginetest.Name},
			PortraitSpec: kapacity.PortraitSpec{PortraitType: kapacity.ReactivePortrait, Algorithm: kapacity.PortraitAlgorithm{Type: kapacity.KubeHPAAlgorithm}}}}
	for _, m := range metrics {
		hp.Spec.Metrics = append(hp.Spec.Metrics, kapacity.MetricSpec{MetricSpec: m})
	}
	return hp
}

func cpu(utilization int32) autoscalingv2.MetricSpec {
	return autoscalingv2.MetricSpec{Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{Name: corev1.ResourceCPU,
		Target: autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: &utilization}}}
}

func average(value string) autoscalingv2.MetricTarget {
	return autoscalingv2.MetricTarget{Type: autoscalingv2.AverageValueMetricType, AverageValue: ptr.To(resource.MustParse(value))}
}

func rps(value string) autoscalingv2.MetricSpec {
	return autoscalingv2.MetricSpec{Type: autoscalingv2.PodsMetricSourceType, Pods: &autoscalingv2.PodsMetricSource{Metric: autoscalingv2.MetricIdentifier{Name: "rps"}, Target: average(value)}}
}

func queue(value string) autoscalingv2.MetricSpec {
	return autoscalingv2.MetricSpec{Type: autoscalingv2.ExternalMetricSourceType, External: &autoscalingv2.ExternalMetricSource{
		Metric: autoscalingv2.MetricIdentifier{Name: "queue"}, Target: average(value)}}
}

// workload is a StatefulSet with ready pods of one container that requests 1 cpu; it is left alone by the simulation.
func workload(replicas, pods int32, change ...func(*corev1.Pod)) []client.Object {
	s := enginetest.StatefulSet(replicas, appsv1.ParallelPodManagement)
	s.UID = "workload"
	s.Status.Replicas = pods
	out := []client.Object{s}
	for i := range pods {
		p := pod(fmt.Sprintf("nginx-%d", i), s)
		for _, c := range change {
			c(p)
		}
		out = append(out, p)
	}
	return out
}

func pod(name string, owner client.Object) *corev1.Pod {
	started := metav1.NewTime(enginetest.Start.Add(-time.Hour))
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: enginetest.Namespace, Name: name, UID: types.UID(name), Labels: enginetest.Labels()},
		Spec: corev1.PodSpec{NodeName: "node", Containers: []corev1.Container{{Name: "main",
			Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1")}}}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, StartTime: &started,
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: started}}}}
	if owner != nil {
		p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "StatefulSet", Name: owner.GetName(), UID: owner.GetUID(), Controller: ptr.To(true)}}
	}
	return p
}

func cut(names ...string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		if slices.Contains(names, p.Name) {
			p.Labels[kapacity.PodStateLabel] = string(kapacity.PodStateCutoff)
		}
	}
}

func TestCase23TheCPUOfOneReadyPod(t *testing.T) {
	g := newRig(t, portrait(cpu(30)), workload(10, 1)...)
	g.says("cpu", 1500)
	g.sync()
	g.says("cpu", 1500) // as it was asked for only just now
	result := g.sync()
	g.expect("150 % of 30 %", 5, generated)
	if result.RequeueAfter != 15*time.Second {
		t.Errorf("looked at again after %s, want the sync period", result.RequeueAfter)
	}
	if got := g.hp().Status.ObservedGeneration; got != 1 {
		t.Errorf("observed generation %d", got)
	}
	want := []decision.Detail{{Metric: "cpu", Source: "fake", Value: "150%", Target: "30%", State: "Fresh", Replicas: ptr.To[int32](5),
		ScaleUpAbove: "300%", ScaleDownBelow: "27%"}}
	p, _ := g.Details.Get(enginetest.Namespace, enginetest.Name)
	p.Details[0].Reason = ""
	if diff := cmp.Diff(want, p.Details); diff != "" || *p.Replicas != 5 || p.Name != enginetest.Name {
		t.Errorf("portrait %+v, details (-want +got):\n%s", p, diff)
	}
}

func TestCase24AnUnsupportedResourceIsAFailureThatIsToldOnce(t *testing.T) {
	storage := cpu(30)
	storage.Resource.Name = corev1.ResourceStorage
	g := newRig(t, portrait(storage), workload(1, 1)...)
	for range 5 {
		g.sync()
	}
	g.expect("storage", -1, "False FailedGeneratePortrait: invalid metrics (1 invalid out of 1), first error is: unsupported resource: storage")
	if diff := cmp.Diff([]string{"horizontal_portrait_controller Warning FailedGeneratePortrait invalid metrics (1 invalid out of 1), first error is: unsupported resource: storage"},
		g.Events.Take()); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"patch HorizontalPortrait/status nginx"}, g.Writes); diff != "" {
		t.Errorf("writes (-want +got):\n%s", diff)
	}
}

func TestB5AnUnchangedValueIsNotWrittenAgain(t *testing.T) {
	hp := portrait(rps("10"))
	hp.Status.PortraitData = &kapacity.PortraitData{Type: kapacity.StaticPortraitData, Static: &kapacity.StaticPortrait{Replicas: 4}, ExpireTime: &metav1.Time{}}
	g := newRig(t, hp, workload(2, 2)...)
	for i := range 50 {
		g.says("rps", 20_000, 19_000+int64(i)) // 39..39.05 of 10 for each
		g.sync()
		g.World.Clock.Step(15 * time.Second)
	}
	g.expect("after all", 4, generated)
	if len(g.Writes) != 1 { // the condition
		t.Errorf("%d writes: %v", len(g.Writes), g.Writes)
	}
	if !sameData(&kapacity.PortraitData{Type: "Static", ExpireTime: &metav1.Time{}}, &kapacity.PortraitData{Type: "Static"}) {
		t.Error("an expiry of the zero time is taken for one")
	}
}

func TestB13NothingIsCollectedForAPortraitThatNeedsNothing(t *testing.T) {
	for name, end := range map[string]func(*rig){
		"a deleted one": func(g *rig) {
			g.Simulate(func() { g.Must(g.World.Client.Delete(g.Context(), g.hp())) })
		},
		"one that waits for its finalizer": func(g *rig) {
			g.edit(func(hp *kapacity.HorizontalPortrait) { hp.Finalizers = []string{"example.com/other"} })
			g.Simulate(func() { g.Must(g.World.Client.Delete(g.Context(), g.hp())) })
		},
		"one that somebody else makes now": func(g *rig) {
			g.edit(func(hp *kapacity.HorizontalPortrait) { hp.Spec.ExternalGeneratorName = "oracle" })
		},
		"one that a job makes now": func(g *rig) {
			g.edit(func(hp *kapacity.HorizontalPortrait) { hp.Spec.Algorithm.Type = kapacity.ExternalJobAlgorithm })
		},
		"one that nobody knows how to make": func(g *rig) {
			g.edit(func(hp *kapacity.HorizontalPortrait) { hp.Spec.Algorithm.Type = "Guess" })
		},
		"any, when the lead is lost": func(g *rig) { g.Metrics.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t, portrait(cpu(30), queue("5")), workload(1, 1)...)
			g.sync()
			if len(g.demand.wanted) != 2 || len(g.demand.told) != 2 {
				t.Fatalf("wanted: %v, told: %v", g.demand.wanted, g.demand.told)
			}
			end(g)
			if _, err := g.Reconcile(g.Context(), enginetest.Request); err != nil && !errors.Is(err, wants.ErrClosed) {
				t.Fatal(err)
			}
			if len(g.demand.wanted)+len(g.demand.told) != 0 {
				t.Errorf("left: %v, %v", g.demand.wanted, g.demand.told)
			}
			if _, known := g.Details.Get(enginetest.Namespace, enginetest.Name); known != strings.Contains(name, "lead") {
				t.Errorf("details are known: %t", known)
			}
		})
	}
}

func TestWhatIsCollectedFollowsTheSpecAndTheAnnotations(t *testing.T) {
	g := newRig(t, portrait(cpu(30), queue("5"), queue("7")), workload(1, 1)...)
	queue := workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[reconcile.Request]())
	defer queue.ShutDown()
	g.Must(g.Metrics.Source().Start(g.Context(), queue))
	wanted := func() (out []string) {
		for q, n := range g.demand.wanted {
			if n != 1 || len(g.demand.told[q]) != 1 {
				t.Errorf("%s is wanted %d times, %d are told", q.Metric, n, len(g.demand.told[q]))
			}
			out = append(out, q.Metric+q.Settings)
		}
		slices.Sort(out)
		return out
	}
	check := func(when string, want ...string) {
		t.Helper()
		for range 2 {
			g.sync()
		}
		if diff := cmp.Diff(want, wanted()); diff != "" {
			t.Errorf("%s: wanted (-want +got):\n%s", when, diff)
		}
	}
	check("two metrics of one question", "cpu", "queue")
	g.World.Clock.Step(time.Second)
	g.edit(func(hp *kapacity.HorizontalPortrait) { hp.Spec.Metrics = hp.Spec.Metrics[1:] })
	check("one metric is gone", "queue")
	one, changed, err := g.Metrics.See(g.hp(), g.hp().Spec.ScaleTargetRef, nil)
	if err != nil || changed {
		t.Fatal(err, changed)
	}
	if since := one.SinceOf(one.Asked[0].Query); since != enginetest.Start {
		t.Errorf("%s was asked for anew at %v", one.Asked[0].Query.Metric, since)
	}
	g.edit(func(hp *kapacity.HorizontalPortrait) {
		metav1.SetMetaDataAnnotation(&hp.ObjectMeta, "metric-config.x/setting", "typo")
	})
	check("another setting", "queuetypo")
	g.edit(func(hp *kapacity.HorizontalPortrait) { metav1.SetMetaDataAnnotation(&hp.ObjectMeta, "note", "x") })
	check("another annotation", "queuetypo")
	if diff := cmp.Diff([]string{"horizontal_portrait_controller Warning MetricConfigIgnored typo has no effect"}, g.Events.Take()); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	for _, told := range g.demand.told {
		for _, notify := range told {
			notify()
		}
	}
	if n := queue.Len(); n != 1 {
		t.Fatalf("%d are woken by an answer", n)
	}
	if woken, _ := queue.Get(); woken != enginetest.Request {
		t.Errorf("%v is woken by an answer", woken)
	}
}

func TestAPortraitMadeAnewUnderItsNameIsAnother(t *testing.T) {
	g := newRig(t, portrait(queue("5")), workload(1, 1)...)
	g.sync()
	g.World.Clock.Step(time.Minute)
	g.Simulate(func() {
		g.Must(g.World.Client.Delete(g.Context(), g.hp()))
		g.Must(g.World.Client.Create(g.Context(), portrait(rps("10")))) // of generation 1 as well
	})
	g.sync()
	for q := range g.demand.wanted {
		if q.Metric != "rps" {
			t.Errorf("%s is still collected", q.Metric)
		}
	}
	if got := g.condition(); got != "none" || len(g.demand.wanted) != 1 {
		t.Errorf("condition %q, wanted %v", got, g.demand.wanted)
	}
}

func TestB14WhateverIsStoredIsAFailureAndNoPanic(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*kapacity.HorizontalPortrait)
		want   string
	}{
		"no metrics":                    {func(hp *kapacity.HorizontalPortrait) { hp.Spec.Metrics = nil }, "False FailedGeneratePortrait: spec.metrics is empty"},
		"a metric without its settings": {func(hp *kapacity.HorizontalPortrait) { hp.Spec.Metrics[0].External = nil }, `a metric of type "External" without its settings`},
		"a metric of no type":           {func(hp *kapacity.HorizontalPortrait) { hp.Spec.Metrics[0].MetricSpec = autoscalingv2.MetricSpec{} }, `a metric of type "" without its settings`},
		"a Pods metric without a target": {func(hp *kapacity.HorizontalPortrait) {
			hp.Spec.Metrics[0].MetricSpec = rps("1")
			hp.Spec.Metrics[0].Pods.Target = autoscalingv2.MetricTarget{}
		}, "no average value target was set"},
		"another metric without a target": {func(hp *kapacity.HorizontalPortrait) {
			hp.Spec.Metrics[0].External.Target = autoscalingv2.MetricTarget{}
		}, "neither a value target nor an average value target was set"},
		"a target of 0":              {func(hp *kapacity.HorizontalPortrait) { hp.Spec.Metrics[0].External.Target = average("0") }, generated},
		"a job without its settings": {func(hp *kapacity.HorizontalPortrait) { hp.Spec.Algorithm.Type = kapacity.ExternalJobAlgorithm }, generated},
		"no kind of target": {func(hp *kapacity.HorizontalPortrait) {
			hp.Spec.ScaleTargetRef = autoscalingv2.CrossVersionObjectReference{}
		}, "False FailedGeneratePortrait: "},
		"an unknown portrait type":    {func(hp *kapacity.HorizontalPortrait) { hp.Spec.PortraitType, hp.Spec.Algorithm.Type = "Tarot", "Cards" }, `False FailedGetPortraitGenerator: unknown portrait type "Tarot"`},
		"an unknown algorithm":        {func(hp *kapacity.HorizontalPortrait) { hp.Spec.Algorithm.Type = "Cards" }, `False FailedGetPortraitGenerator: unknown algorithm "Cards" of portrait type "Reactive"`},
		"any type with the algorithm": {func(hp *kapacity.HorizontalPortrait) { hp.Spec.PortraitType = "Tarot" }, generated},
	} {
		t.Run(name, func(t *testing.T) {
			hp := portrait(queue("5"))
			c.change(hp)
			g := newRig(t, hp, workload(1, 1)...)
			g.says("queue", 5_000)
			g.says("rps", 5_000)
			result := g.sync()
			if got := g.condition(); !strings.Contains(got, c.want) {
				t.Errorf("condition %q, want %q", got, c.want)
			}
			if strings.Contains(c.want, "Generator") && result.RequeueAfter != 0 {
				t.Error("it is looked at again, and nothing can change")
			}
		})
	}
}

func TestB15APartialFailureIsFollowedUpwardsOnly(t *testing.T) {
	g := newRig(t, portrait(rps("10"), queue("5")), workload(2, 2)...)
	g.World.Clock.Step(-time.Minute)
	g.sync() // asked for long enough
	g.World.Clock.Step(time.Minute)
	at := func(when string, replicas int32, condition string, events int) {
		t.Helper()
		g.sync()
		g.expect(when, replicas, condition)
		if got := g.Events.Take(); len(got) != events {
			t.Errorf("%s: events %q, want %d", when, got, events)
		}
	}
	g.says("rps", 10_000, 20_000)
	g.says("queue", 20_000)
	at("both answer", 4, generated, 0)
	g.fails("queue", "connection refused after 3s")
	at("the rest asks for more than there is", 3, generated+`; invalid metrics (1 invalid out of 2), first error is: External metric "queue": connection refused after 3s`, 1)
	g.fails("queue", "connection refused after 4s")
	at("the same again, with other numbers", 3, "after 3s", 0)
	g.says("rps", 20_000, 20_000)
	at("the rest asks for yet more", 4, "after 3s", 0)
	g.says("rps", 1_000, 2_000)
	at("the rest would lower", 4, `False FailedGeneratePortrait: invalid metrics (1 invalid out of 2), first error is: External metric "queue": connection refused after 4s`, 1)
	g.fails("rps", "no pod answers")
	at("nothing answers", 4, `(2 invalid out of 2), first error is: Pods metric "rps": no pod answers`, 1)
	g.says("rps", 1_000, 2_000)
	g.says("queue", 1_000)
	at("all is well again", 1, generated, 0)
}

func TestFailuresThatDifferInNumbersOnlyAreOne(t *testing.T) {
	g := newRig(t, portrait(rps("10")), workload(2, 2)...)
	for i := range 20 {
		g.fails("rps", "the last value is %s old, more than the 40s allowed: pod nginx-%d does not answer", time.Duration(41+i)*time.Second, i%3)
		g.sync()
		g.World.Clock.Step(15 * time.Second)
	}
	if events := g.Events.Take(); len(events) != 1 || len(g.Writes) != 1 {
		t.Errorf("events %q, writes %v", events, g.Writes)
	}
}

func TestAFirstAnswerThatIsOnlyAboutToComeIsNoFailure(t *testing.T) {
	hp := portrait(rps("10"), queue("5"))
	hp.Status.PortraitData = &kapacity.PortraitData{Type: kapacity.StaticPortraitData, Static: &kapacity.StaticPortrait{Replicas: 7}}
	g := newRig(t, hp, workload(2, 2)...)
	if after := g.sync().RequeueAfter; after != patience {
		t.Errorf("looked at again after %s", after)
	}
	g.World.Clock.Step(patience - time.Nanosecond)
	g.says("rps", 1_000, 1_000)
	g.sync()
	if len(g.Writes) != 0 || len(g.Events.Take()) != 0 {
		t.Errorf("while waiting: %v", g.Writes)
	}
	g.says("rps", 20_000, 21_000)
	g.sync()
	g.expect("the rest asks for more than there is", 5, generated)
	if got := g.condition(); got != generated {
		t.Errorf("what is still waited for is told: %q", got)
	}
	g.World.Clock.Step(time.Nanosecond)
	g.says("rps", 1_000, 1_000)
	g.sync()
	g.expect("the wait is over", 5, `False FailedGeneratePortrait: invalid metrics (1 invalid out of 2), first error is: External metric "queue": it has not been collected yet`)

	g = newRig(t, portrait(rps("10")), workload(2, 2)...)
	g.demand.answers["rps"] = sample.Answer{Cause: sample.NoData("no pod has a value")}
	g.sync()
	g.World.Clock.Step(podPatience - time.Nanosecond)
	g.sync()
	if len(g.Writes) != 0 {
		t.Errorf("while pods start: %v", g.Writes)
	}
	g.World.Clock.Step(time.Nanosecond)
	g.sync()
	g.expect("pods do not start", -1, "no pod has a value")
}

func TestAWorkloadThatComesLaterIsWaitedFor(t *testing.T) {
	g := newRig(t, portrait(queue("5")))
	g.says("queue", 20_000)
	g.sync()
	if len(g.Writes) != 0 {
		t.Errorf("at once: %v", g.Writes)
	}
	g.World.Clock.Step(patience)
	g.sync()
	g.expect("after a while", -1, `StatefulSet shop/nginx: statefulsets.apps "nginx" not found`)
	g.Simulate(func() {
		for _, o := range workload(1, 1) {
			g.Must(g.World.Client.Create(g.Context(), o))
		}
	})
	got := g.portraitsOf(g.Context(), enginetest.StatefulSet(1, ""))
	if diff := cmp.Diff([]reconcile.Request{enginetest.Request}, got); diff != "" {
		t.Errorf("its coming wakes (-want +got):\n%s", diff)
	}
	g.sync()
	g.expect("it has come", 4, generated)
}

func TestB16B17AFinalizerIsAlwaysSeenTo(t *testing.T) {
	job := func(change func(*kapacity.HorizontalPortrait)) *rig {
		hp := portrait(queue("5"))
		hp.Spec.PortraitType, hp.Spec.Algorithm.Type = kapacity.PredictivePortrait, kapacity.ExternalJobAlgorithm
		g := newRig(t, hp, workload(1, 1)...)
		g.jobs.data = &kapacity.PortraitData{Type: kapacity.TimeSeriesPortraitData, TimeSeries: &kapacity.TimeSeriesPortrait{TimeSeries: []kapacity.ReplicaTimeSeriesPoint{{Timestamp: 1, Replicas: 3}}}}
		g.says("queue", 5_000)
		g.sync()
		if hp := g.hp(); !controllerutil.ContainsFinalizer(hp, kapacity.Finalizer) || hp.Status.PortraitData.Type != kapacity.TimeSeriesPortraitData {
			t.Errorf("a job's portrait: %+v", hp)
		}
		g.edit(change)
		g.restart() // nothing is remembered
		return g
	}
	remove := func(g *rig) { g.Simulate(func() { g.Must(g.World.Client.Delete(g.Context(), g.hp())) }) }

	g := job(func(hp *kapacity.HorizontalPortrait) { hp.Spec.ExternalGeneratorName = "oracle" })
	remove(g)
	g.sync()
	if g.hp() != nil || g.jobs.cleaned != 1 {
		t.Errorf("a deleted one of a foreign generator is still there, cleaned up %d times", g.jobs.cleaned)
	}

	g = job(func(hp *kapacity.HorizontalPortrait) { hp.Spec.ExternalGeneratorName = "oracle" })
	status := g.hp().Status
	g.sync()
	if controllerutil.ContainsFinalizer(g.hp(), kapacity.Finalizer) || g.jobs.cleaned != 1 || !cmp.Equal(status, g.hp().Status) {
		t.Errorf("a foreign generator's still has a job: cleaned up %d times", g.jobs.cleaned)
	}

	g = job(func(hp *kapacity.HorizontalPortrait) { hp.Spec.Algorithm.Type = kapacity.KubeHPAAlgorithm })
	g.sync()
	if controllerutil.ContainsFinalizer(g.hp(), kapacity.Finalizer) || g.jobs.cleaned != 1 {
		t.Errorf("one that needs no job any more still has one: cleaned up %d times", g.jobs.cleaned)
	}
	g.expect("it is made by KubeHPA now", 1, generated)

	g = job(func(*kapacity.HorizontalPortrait) {})
	remove(g)
	g.jobs.failed = 1
	if _, err := g.Reconcile(g.Context(), enginetest.Request); err == nil {
		t.Error("a job that cannot be removed is no error")
	}
	if got := g.condition(); got != "False FailedCleanupExternalAlgorithmJob: the CronJob cannot be deleted" {
		t.Errorf("condition %q", got)
	}
	g.sync()
	if g.hp() != nil {
		t.Error("it is still there")
	}

	hp := portrait(queue("5")) // as Kapacity leaves them
	hp.Finalizers = []string{kapacity.Finalizer}
	g = newRig(t, hp)
	g.Jobs = nil
	remove(g)
	g.sync()
	if g.hp() != nil {
		t.Error("a deleted one without a job is still there")
	}
}

func TestAJobThatFailsIsAFailureOfItsReason(t *testing.T) {
	hp := portrait()
	hp.Spec.PortraitType, hp.Spec.Algorithm.Type = kapacity.PredictivePortrait, kapacity.ExternalJobAlgorithm
	g := newRig(t, hp)
	g.jobs.err = errors.New("no result yet")
	for range 2 {
		if _, err := g.Reconcile(g.Context(), enginetest.Request); !errors.Is(err, g.jobs.err) {
			t.Errorf("error %v", err)
		}
	}
	if got := g.condition(); got != "False FailedFetchExternalAlgorithmJobResult: no result yet" || len(g.Events.Take()) != 1 {
		t.Errorf("condition %q", got)
	}
	g.Jobs = nil
	g.sync()
	if got := g.condition(); !strings.HasPrefix(got, "False FailedGetPortraitGenerator: external algorithm jobs are switched off") {
		t.Errorf("condition %q", got)
	}
}

func TestTheStatusOfAForeignGeneratorIsLeftAlone(t *testing.T) {
	hp := portrait(queue("5"))
	hp.Spec.ExternalGeneratorName = "oracle"
	g := newRig(t, hp, workload(1, 1)...)
	for range 3 {
		if result := g.sync(); result != (reconcile.Result{}) {
			t.Errorf("looked at again: %+v", result)
		}
	}
	if len(g.Writes) != 0 || len(g.demand.wanted) != 0 {
		t.Errorf("writes %v, wanted %v", g.Writes, g.demand.wanted)
	}
}

func TestB18ToZeroAndBack(t *testing.T) {
	for name, c := range map[string]struct {
		metrics        []autoscalingv2.MetricSpec
		replicas, pods int32
		before         int32
		queue, rps     []int64
		want           int32
		note           string
	}{
		"nothing to do means 0":                                        {[]autoscalingv2.MetricSpec{queue("5")}, 3, 3, 3, []int64{0}, nil, 0, ""},
		"at 0 with nothing to do it stays":                             {[]autoscalingv2.MetricSpec{queue("5")}, 0, 0, 0, []int64{0}, nil, 0, ""},
		"from 0 the demand itself counts, without tolerance":           {[]autoscalingv2.MetricSpec{queue("5")}, 0, 0, 0, []int64{5_100}, nil, 2, ""},
		"at 0 the pods' metrics are passed over":                       {[]autoscalingv2.MetricSpec{rps("10"), queue("5")}, 0, 0, 0, []int64{1}, nil, 1, ""},
		"pods' metrics alone never ask for 0":                          {[]autoscalingv2.MetricSpec{rps("10")}, 2, 2, 2, nil, []int64{0, 0}, 1, ""},
		"at 0 they have nothing to say, and the last portrait stands":  {[]autoscalingv2.MetricSpec{rps("10")}, 0, 0, 4, nil, nil, 4, "only Object and External metrics can see demand"},
		"at 0 without a portrait they ask for one pod to be measured":  {[]autoscalingv2.MetricSpec{rps("10")}, 0, 0, -1, nil, nil, 1, "only Object and External metrics can see demand"},
		"at 0 a portrait of 0 that they have had ends":                 {[]autoscalingv2.MetricSpec{rps("10")}, 0, 0, 0, nil, nil, 1, "only Object and External metrics can see demand"},
		"beside demand that is nothing, pods without load may go to 0": {[]autoscalingv2.MetricSpec{rps("10"), queue("5")}, 2, 2, 2, []int64{0}, []int64{0, 0}, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			hp := portrait(c.metrics...)
			if c.before >= 0 {
				hp.Status.PortraitData = &kapacity.PortraitData{Type: kapacity.StaticPortraitData, Static: &kapacity.StaticPortrait{Replicas: c.before}}
			}
			g := newRig(t, hp, workload(c.replicas, c.pods)...)
			if c.queue != nil {
				g.says("queue", c.queue...)
			}
			if c.rps != nil {
				g.says("rps", c.rps...)
			}
			g.sync()
			g.expect("once", c.want, "True SucceededGeneratePortrait")
			if got := g.condition(); (c.note == "") != (got == generated) || !strings.Contains(got, c.note) {
				t.Errorf("condition %q", got)
			}
			if events := g.Events.Take(); len(events) > 0 {
				t.Errorf("events %q", events)
			}
		})
	}
}

func TestHeldPodsAreLeftOut(t *testing.T) {
	g := newRig(t, portrait(rps("10")), workload(5, 5, cut("nginx-2", "nginx-3", "nginx-4"))...)
	g.says("rps", 15_000, 15_000, 0, 0, 0)
	g.sync()
	g.expect("two pods carry it all", 3, generated) // with the held ones: 30 of 5 pods, which is far below the target

	g = newRig(t, portrait(queue("10")), workload(5, 5, cut("nginx-3", "nginx-4"))...)
	g.says("queue", 32_000)
	g.sync()
	g.expect("32 among 3 pods is within the tolerance", 3, generated)

	for name, c := range map[string]struct{ replicas, alive, held, want int32 }{
		"no run":                                {5, 5, 0, 5},
		"pods are held":                         {5, 5, 4, 1},
		"all are held":                          {3, 3, 3, 0},
		"the held ones are about to go":         {1, 5, 4, 1},
		"some of the held ones are about to go": {3, 5, 4, 1},
		"pods are missing":                      {5, 3, 2, 3},
		"none is there yet":                     {5, 0, 0, 5},
		"a surge":                               {5, 7, 0, 5},
		"at 0":                                  {0, 0, 0, 0},
	} {
		if got := online(c.replicas, c.alive, c.held); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

func TestAPodOfAnotherOwnerCountsBySelectorOnly(t *testing.T) {
	for selection, want := range map[kapacity.PodSelection]int32{"": 6, kapacity.SelectorPodSelection: 6, kapacity.OwnerPodSelection: 2} {
		hp := portrait(rps("10"))
		hp.Spec.Algorithm.KubeHPA = &kapacity.KubeHPAPortraitAlgorithm{PodSelection: selection}
		g := newRig(t, hp, append(workload(2, 2), pod("nginx-2", nil))...)
		g.says("rps", 10_000, 10_000, 40_000) // the last one is a Job's
		g.sync()
		if got := g.replicas(); got != want {
			t.Errorf("by %q: %d, want %d", selection, got, want)
		}
	}
}

func TestTheSettingsReachTheAlgorithm(t *testing.T) {
	tenth := kapacity.KubeHPAPortraitAlgorithm{Tolerance: resource.MustParse("0.1")}
	with := func(change func(*kapacity.KubeHPAPortraitAlgorithm)) *kapacity.KubeHPAPortraitAlgorithm {
		s := tenth
		change(&s)
		return &s
	}
	unready := func(p *corev1.Pod) { p.Status.Conditions[0].Status = corev1.ConditionFalse }
	for name, c := range map[string]struct {
		settings *kapacity.KubeHPAPortraitAlgorithm
		metric   autoscalingv2.MetricSpec
		change   func(*corev1.Pod)
		milli    []int64
		want     int32
	}{
		"defaults tolerate a tenth":           {nil, rps("10"), nil, []int64{11_000, 11_000}, 2},
		"defaults tolerate no more":           {nil, rps("10"), nil, []int64{11_001, 11_001}, 3},
		"no tolerance":                        {with(func(s *kapacity.KubeHPAPortraitAlgorithm) { s.Tolerance = resource.MustParse("0") }), rps("10"), nil, []int64{10_001, 10_001}, 3},
		"tolerance upwards":                   {with(func(s *kapacity.KubeHPAPortraitAlgorithm) { s.ScaleUpTolerance = ptr.To(resource.MustParse("0.5")) }), rps("10"), nil, []int64{15_000, 15_000}, 2},
		"tolerance downwards":                 {with(func(s *kapacity.KubeHPAPortraitAlgorithm) { s.ScaleDownTolerance = ptr.To(resource.MustParse("0.9")) }), rps("10"), nil, []int64{1_000, 1_000}, 2},
		"a missing pod, as the HPA":           {&tenth, rps("10"), nil, []int64{1_000}, 2},
		"no load, as the HPA":                 {&tenth, rps("100"), nil, []int64{1_000}, 2},
		"a value while all are unready":       {with(func(s *kapacity.KubeHPAPortraitAlgorithm) { s.ScaleOutWhenAllUnready = true }), valued("10"), unready, []int64{30_000}, 6},
		"a value while all are unready, HPA":  {&tenth, valued("10"), unready, []int64{30_000}, 0},
		"a pod is missing, and that is held":  {with(func(s *kapacity.KubeHPAPortraitAlgorithm) { s.HoldOnMissingMetrics = true }), rps("100"), nil, []int64{1_000}, 3},
		"a starting pod's cpu is not trusted": {with(func(s *kapacity.KubeHPAPortraitAlgorithm) { s.CPUInitializationPeriod.Duration = 2 * time.Hour }), cpu(30), unready, []int64{900, 900}, -1},
	} {
		t.Run(name, func(t *testing.T) {
			hp := portrait(c.metric)
			hp.Spec.Algorithm.KubeHPA = c.settings
			replicas := int32(2)
			if strings.Contains(name, "held") {
				replicas = 3
			}
			objects := workload(replicas, replicas)
			if c.change != nil {
				objects = workload(replicas, replicas, c.change)
			}
			g := newRig(t, hp, objects...)
			name := label(c.metric)
			switch {
			case c.metric.Pods != nil:
				name = "rps"
			case c.metric.External != nil:
				name = "queue"
			}
			g.says(name, c.milli...)
			g.sync()
			if got := g.replicas(); got != c.want {
				t.Errorf("%d replicas, want %d; condition %s", got, c.want, g.condition())
			}
		})
	}
}

func TestASampleThatBeganJustAsThePodBecameReadyCounts(t *testing.T) {
	fresh := func(p *corev1.Pod) {
		started, ready := metav1.NewTime(enginetest.Start.Add(-time.Minute)), metav1.NewTime(enginetest.Start.Add(-20*time.Second))
		p.Status.StartTime, p.Status.Conditions[0].LastTransitionTime = &started, ready
	}
	for age, want := range map[time.Duration]int32{5 * time.Second: 3, 6 * time.Second: -1} {
		g := newRig(t, portrait(cpu(50)), workload(1, 1, fresh)...)
		g.demand.answers["cpu"] = sample.Answer{State: sample.Fresh, Taken: enginetest.Start.Add(-3 * time.Microsecond),
			Points: []sample.Point{{Pod: "nginx-0", Milli: 1_500, Window: 15 * time.Second, Age: age}}}
		g.sync()
		if got := g.replicas(); got != want {
			t.Errorf("%s old: %d replicas, want %d; %s", age, got, want, g.condition())
		}
	}
}

func valued(value string) autoscalingv2.MetricSpec {
	m := queue(value)
	m.External.Target = autoscalingv2.MetricTarget{Type: autoscalingv2.ValueMetricType, Value: ptr.To(resource.MustParse(value))}
	return m
}

func TestDetailsSayWhereTheCountTurns(t *testing.T) {
	hp := portrait(rps("10"), queue("5"))
	owner := enginetest.IHPAOf("StatefulSet", nil)
	owner.UID = "ihpa"
	hp.OwnerReferences = []metav1.OwnerReference{{APIVersion: kapacity.SchemeGroupVersion.String(), Kind: kapacity.IHPAKind, Name: owner.Name, UID: owner.UID, Controller: ptr.To(true)}}
	g := newRig(t, hp, append(workload(4, 4), owner)...)
	g.says("rps", 10_000, 10_000, 10_000, 10_500)
	g.demand.answers["queue"] = sample.Answer{State: sample.Fresh, Taken: g.World.Clock.Now(), Points: []sample.Point{{Milli: 12_500}}, Instead: &sample.Instead{Stage: sample.Held}}
	g.World.Clock.Step(3 * time.Second)
	g.sync()
	p, _ := g.Details.Get(enginetest.Namespace, enginetest.Name)
	for i := range p.Details {
		p.Details[i].Reason = ""
	}
	want := decision.Portrait{Name: enginetest.Name, Time: enginetest.Start.Add(3 * time.Second), Replicas: ptr.To[int32](4), Details: []decision.Detail{
		{Metric: `Pods metric "rps"`, Source: "fake", Value: "10125m", Target: "10", Age: 3 * time.Second, State: "Fresh", Replicas: ptr.To[int32](4),
			ScaleUpAbove: "11", ScaleDownBelow: "7501m", AtMaxAbove: "47500m"},
		{Metric: `External metric "queue"`, Source: "fake", Value: "3125m", Target: "5", Age: 3 * time.Second, State: "Fresh (fallback)", Replicas: ptr.To[int32](3),
			ScaleUpAbove: "22", ScaleDownBelow: "15001m", AtMaxAbove: "95"},
	}}
	if diff := cmp.Diff(want, p); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	g.Simulate(func() {
		o := enginetest.StatefulSet(4, appsv1.ParallelPodManagement)
		g.Must(g.World.Client.Get(g.Context(), enginetest.Request.NamespacedName, o))
		o.Spec.Replicas = ptr.To[int32](6)
		g.Must(g.World.Client.Update(g.Context(), o))
	})
	g.sync()
	if p, _ := g.Details.Get(enginetest.Namespace, enginetest.Name); p.Details[1].ScaleUpAbove != "30" {
		t.Errorf("with more replicas ordered the queue's count turns above %s", p.Details[1].ScaleUpAbove)
	}
}

func TestABurstIsAnsweredAtOnceAndForgottenSlowly(t *testing.T) {
	hp := portrait(queue("10"))
	hp.Spec.Algorithm.KubeHPA = &kapacity.KubeHPAPortraitAlgorithm{PanicWindow: &kapacity.PanicWindow{StableSeconds: 60, WindowPercent: 10, ThresholdPercent: 200}}
	hp.Status.PortraitData = &kapacity.PortraitData{Type: kapacity.StaticPortraitData, Static: &kapacity.StaticPortrait{Replicas: 2}}
	g := newRig(t, hp, workload(2, 2)...)
	run := func(d time.Duration, milli int64) (seen []int32) {
		for end := g.World.Clock.Now().Add(d); g.World.Clock.Now().Before(end); {
			g.says("queue", milli)
			after := g.sync().RequeueAfter
			if after <= 0 || after > 15*time.Second {
				t.Fatalf("looked at again after %s", after)
			}
			if n := g.replicas(); len(seen) == 0 || seen[len(seen)-1] != n {
				seen = append(seen, n)
			}
			g.World.Clock.Step(min(after, end.Sub(g.World.Clock.Now())))
		}
		return seen
	}
	if got := run(2*time.Minute, 20_000); !slices.Equal(got, []int32{2}) {
		t.Errorf("at rest: %v", got)
	}
	if got := run(6*time.Second, 100_000); got[0] != 2 || got[len(got)-1] < 9 || !slices.IsSorted(got) {
		t.Errorf("a burst: %v", got)
	}
	high := g.replicas()
	if got := run(55*time.Second, 20_000); slices.Min(got) < high {
		t.Errorf("lowered within the stable window: %v", got)
	}
	if p := g.hp().Status.Panic; p == nil || !p.Panicking || p.Until == nil || p.Replicas != high {
		t.Errorf("the status does not show the panic: %+v", p)
	}
	g.restart()
	if got := run(4*time.Second, 20_000); slices.Min(got) < high {
		t.Errorf("the panic ended with the process: %v", got)
	}
	if got := run(2*time.Minute, 20_000); got[len(got)-1] != 2 {
		t.Errorf("in the end: %v", got)
	}
	p, _ := g.Details.Get(enginetest.Namespace, enginetest.Name)
	if p.Note != "2 now, 2 by the mean of the last 1m0s" {
		t.Errorf("note %q", p.Note)
	}
	if p := g.hp().Status.Panic; p == nil || p.Panicking || p.Until != nil {
		t.Errorf("the status still shows a panic: %+v", p)
	}
	g.Writes = nil
	if run(5*time.Minute, 20_000); len(g.Writes) > 0 {
		t.Errorf("written at rest: %v", g.Writes)
	}
	g.edit(func(hp *kapacity.HorizontalPortrait) { hp.Spec.Algorithm.KubeHPA.PanicWindow = nil })
	g.sync()
	if p := g.hp().Status.Panic; p != nil {
		t.Errorf("the window is gone, its status is not: %+v", p)
	}
}

// A process that ends in the middle of a panic, and one that ends in the middle of what leads to it, make no difference.
func TestAPanicIsTheSameAcrossRestarts(t *testing.T) {
	play := func(restart bool) (seen []int32) {
		hp := portrait(queue("10"))
		hp.Spec.Algorithm.KubeHPA = &kapacity.KubeHPAPortraitAlgorithm{PanicWindow: &kapacity.PanicWindow{StableSeconds: 60, WindowPercent: 10, ThresholdPercent: 200}}
		g := newRig(t, hp, workload(2, 2)...)
		for second := range 240 {
			load := int64(20_000)
			switch {
			case second >= 70 && second < 90:
				load = 90_000
			case second >= 100 && second < 103:
				load = 150_000
			}
			g.says("queue", load)
			g.sync()
			seen = append(seen, g.replicas())
			if n := len(g.hp().Status.Panic.Wanted); n > 32 {
				t.Fatalf("%d steps in the status", n)
			}
			if restart && second%7 == 3 {
				g.restart()
			}
			g.World.Clock.Step(time.Second)
		}
		return seen
	}
	want, got := play(false), play(true)
	if slices.Max(want) < 9 || want[len(want)-1] != 2 {
		t.Fatalf("no panic, or no end of it: %v", want)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("with restarts (-without +with):\n%s", diff)
	}
}

func TestAPanicOfTheStatusIsPutInOrder(t *testing.T) {
	at := func(s int) metav1.MicroTime {
		return metav1.NewMicroTime(enginetest.Start.Add(time.Duration(s) * time.Second))
	}
	until := at(30)
	for name, s := range map[string]*kapacity.PanicStatus{
		"nothing":           nil,
		"an empty one":      {},
		"without steps":     {Panicking: true, Until: &until, Replicas: 7},
		"out of order":      {Panicking: true, Replicas: -3, Wanted: []kapacity.PanicStep{{Since: at(5), Replicas: -1}, {Since: at(-5), Replicas: 3}, {Since: at(0), Replicas: 4}}},
		"from the future":   {Wanted: []kapacity.PanicStep{{Since: at(1000), Replicas: 9}}},
		"what is not panic": {Until: &until, Replicas: 8, Wanted: []kapacity.PanicStep{{Since: at(-5), Replicas: 3}}},
	} {
		t.Run(name, func(t *testing.T) {
			state := panicOf(s)
			if !slices.IsSortedFunc(state.Steps, func(a, b reactive.PanicStep) int { return a.At.Compare(b.At) }) || state.Most < 0 || !state.Panicking && !state.Until.IsZero() {
				t.Errorf("%+v", state)
			}
			p := reactive.Panic{StableWindow: time.Minute, WindowPercent: 10, ThresholdPercent: 200}
			if _, n, _, _ := p.Decide(state, 4, 4, enginetest.Start); n < 3 || n > 4 {
				t.Errorf("%d wanted of %+v", n, state)
			}
		})
	}
}

func TestTheSyncPeriodIsTheSpecs(t *testing.T) {
	for period, want := range map[time.Duration]time.Duration{0: 15 * time.Second, time.Millisecond: time.Second, time.Minute: time.Minute} {
		hp := portrait(queue("5"))
		hp.Spec.Algorithm.KubeHPA = &kapacity.KubeHPAPortraitAlgorithm{SyncPeriod: metav1.Duration{Duration: period}}
		g := newRig(t, hp, workload(1, 1)...)
		g.says("queue", 5_000)
		if got := g.sync().RequeueAfter; got != want {
			t.Errorf("%s: looked at again after %s", period, got)
		}
	}
}

func TestAConflictIsNoFailure(t *testing.T) {
	g := newRig(t, portrait(queue("5")), workload(1, 1)...)
	g.says("queue", 5_000)
	g.Fail = func(string) error {
		return apierrors.NewConflict(schema.GroupResource{}, enginetest.Name, errors.New("changed meanwhile"))
	}
	if got := g.sync().RequeueAfter; got != conflictRetry {
		t.Errorf("looked at again after %s", got)
	}
	g.Fail = func(string) error { return errors.New("no route to host") }
	if _, err := g.Reconcile(g.Context(), enginetest.Request); err == nil || !strings.Contains(err.Error(), "HorizontalPortrait shop/nginx: write status: no route to host") {
		t.Errorf("error %v", err)
	}
	if events := g.Events.Take(); len(events) > 0 {
		t.Errorf("events %q", events)
	}
}

func TestAKindWithoutAnInformerIsReadThroughItsScale(t *testing.T) {
	hp := portrait(queue("10"))
	hp.Spec.ScaleTargetRef = autoscalingv2.CrossVersionObjectReference{APIVersion: "v1", Kind: "ReplicationController", Name: enginetest.Name}
	rc := &corev1.ReplicationController{ObjectMeta: metav1.ObjectMeta{Namespace: enginetest.Namespace, Name: enginetest.Name},
		Spec: corev1.ReplicationControllerSpec{Replicas: ptr.To[int32](4), Selector: enginetest.Labels()}, Status: corev1.ReplicationControllerStatus{Replicas: 3}}
	g := newRig(t, hp, rc)
	g.says("queue", 32_000)
	g.sync()
	g.expect("32 among the 3 of status.replicas is within the tolerance", 3, generated)
}

func TestOnlyWhatMattersWakes(t *testing.T) {
	old := portrait(queue("5"))
	for name, c := range map[string]struct {
		change func(*kapacity.HorizontalPortrait)
		want   bool
	}{
		"its own status":        {func(hp *kapacity.HorizontalPortrait) { hp.Status.ObservedGeneration = 3 }, false},
		"a label":               {func(hp *kapacity.HorizontalPortrait) { hp.Labels = map[string]string{"a": "b"} }, false},
		"some annotation":       {func(hp *kapacity.HorizontalPortrait) { hp.Annotations = map[string]string{"a": "b"} }, false},
		"a metric's annotation": {func(hp *kapacity.HorizontalPortrait) { hp.Annotations = map[string]string{"metric-config.a": "b"} }, true},
		"the spec":              {func(hp *kapacity.HorizontalPortrait) { hp.Generation++ }, true},
		"its deletion":          {func(hp *kapacity.HorizontalPortrait) { hp.DeletionTimestamp = &metav1.Time{Time: enginetest.Start} }, true},
	} {
		hp := old.DeepCopy()
		c.change(hp)
		if got := changed(event.UpdateEvent{ObjectOld: old, ObjectNew: hp}); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// What one evaluation costs beside the reads: the figure to look at is that of details, since nobody may ever read them.
func BenchmarkEvaluate(b *testing.B) {
	for _, n := range []int32{10, 200} {
		var pods []*corev1.Pod
		for i := range n {
			pods = append(pods, pod(fmt.Sprintf("nginx-%d", i), nil))
		}
		for _, m := range []autoscalingv2.MetricSpec{cpu(50), queue("5")} {
			a := sample.Answer{State: sample.Fresh, Taken: enginetest.Start}
			for i := range n {
				a.Points = append(a.Points, sample.Point{Pod: fmt.Sprintf("nginx-%d", i), Milli: 510, Window: 15 * time.Second})
			}
			l := look{hp: portrait(m), want: &wants.Want[memory]{Asked: []sample.Asked{{}}}, settings: settingsOf(nil), answers: []sample.Answer{a}, max: 1000, now: enginetest.Start,
				crowd: crowd{spec: n, status: n, pods: pods, left: func(string) bool { return false }}}
			b.Run(fmt.Sprintf("%s/pods=%d", label(m), n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if v := l.evaluate(); v.err != nil {
						b.Fatal(v.err)
					}
				}
			})
		}
	}
}

func latency(value string) autoscalingv2.MetricSpec {
	return autoscalingv2.MetricSpec{Type: autoscalingv2.ExternalMetricSourceType, External: &autoscalingv2.ExternalMetricSource{
		Metric: autoscalingv2.MetricIdentifier{Name: "latency"}, Target: autoscalingv2.MetricTarget{Type: autoscalingv2.ValueMetricType, Value: ptr.To(resource.MustParse(value))}}}
}

// The load of six, once the workload has become another size: samples from before must not change it further that way.
func TestSamplesFromBeforeAChangeOfTheReplicasLeadNoFurther(t *testing.T) {
	for name, c := range map[string]struct {
		metric autoscalingv2.MetricSpec
		says   []int64
		// from and to are the replicas before and after.
		from, to int32
		// old is what is wanted while there are only old samples, and fresh with the same numbers from afterwards.
		old, fresh int32
	}{
		"pods' averages lead no further down":            {rps("10"), []int64{5_000, 5_000, 5_000, 5_000}, 6, 4, 4, 2},
		"but up at once":                                 {rps("10"), []int64{20_000, 20_000, 20_000, 20_000}, 6, 4, 8, 8},
		"nor a value that has had no time to fall, up":   {latency("10"), []int64{20_000}, 2, 4, 4, 8},
		"nor one that has had no time to rise, down":     {latency("10"), []int64{5_000}, 6, 4, 4, 2},
		"more pods do not keep an average from going up": {rps("10"), []int64{20_000, 20_000}, 2, 2, 4, 4},
		"the share of a whole knows no replicas":         {queue("5"), []int64{10_000}, 6, 4, 2, 2},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t, portrait(c.metric), workload(c.from, max(c.from, c.to))...)
			label := map[bool]string{true: "rps", false: "queue"}[c.metric.Pods != nil]
			if c.metric.External != nil {
				label = c.metric.External.Metric.Name
			}
			g.says(label, c.says...)
			g.sync()
			g.Simulate(func() {
				s := enginetest.StatefulSet(c.to, appsv1.ParallelPodManagement)
				g.Must(g.World.Client.Get(g.Context(), client.ObjectKeyFromObject(s), s))
				s.Spec.Replicas = &c.to
				g.Must(g.World.Client.Update(g.Context(), s))
				for i := c.to; i < c.from; i++ {
					g.Must(g.World.Client.Delete(g.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: enginetest.Namespace, Name: fmt.Sprintf("nginx-%d", i)}}))
				}
			})
			g.World.Clock.Step(500 * time.Millisecond)
			g.sync()
			g.expect("old samples", c.old, generated)
			g.World.Clock.Step(20 * time.Second) // the window of the samples is 15 s
			g.says(label, c.says...)
			g.sync()
			g.expect("fresh samples", c.fresh, generated)
		})
	}
}
