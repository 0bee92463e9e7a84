package ihpa

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	"github.com/kubetide/kubetide/internal/decision"
	"github.com/kubetide/kubetide/internal/window"
	"github.com/kubetide/kubetide/portraits"
	"github.com/kubetide/kubetide/scaler/enginetest"
	"github.com/kubetide/kubetide/scaler/replicaprofile"
	"github.com/kubetide/kubetide/scaler/target"
	"github.com/kubetide/kubetide/scaler/wants"
)

func controllers(w *enginetest.World) []reconcile.Reconciler {
	return []reconcile.Reconciler{
		&Reconciler{Client: w.Client, Clock: w.Clock, Recorder: w.Events.Recorder(kapacity.IHPAEventComponent), Decisions: decision.NewLog(0, 0),
			Metrics:   wants.New[struct{}](&answers, w.Clock),
			Schedules: window.Defaults{Window: 10 * time.Minute, Steps: 10, Zone: time.UTC}},
		&replicaprofile.Reconciler{Client: w.Client, Clock: w.Clock, Recorder: w.Events.Recorder(kapacity.ReplicaProfileEventComponent), Live: w.Client},
	}
}

// world has both controllers at work on the objects.
func world(t *testing.T, objects ...client.Object) *enginetest.World {
	t.Helper()
	w := enginetest.New(t, []enginetest.Index{
		{Kind: &kapacity.ReplicaProfile{}, Name: replicaprofile.TargetIndex, Of: replicaprofile.IndexTarget},
		{Kind: &kapacity.IntelligentHorizontalPodAutoscaler{}, Name: TargetIndex, Of: IndexTarget},
		{Kind: &kapacity.IntelligentHorizontalPodAutoscaler{}, Name: PortraitIndex, Of: IndexPortraits},
		{Kind: &autoscalingv2.HorizontalPodAutoscaler{}, Name: TargetIndex, Of: IndexTarget},
		{Kind: &kapacity.HorizontalPortrait{}, Name: target.ControllerUID, Of: target.IndexControllerUID},
	}, objects...)
	w.Restart(controllers(w)...)
	return w
}

// documented is the documented sample: static 1, cron 5 for the first ten minutes of each hour, Cutoff 50 % / 30 s / 60 s.
func documented(kind string) *kapacity.IntelligentHorizontalPodAutoscaler {
	o := enginetest.IHPAOf(kind, enginetest.Cutoff(50, 30, 60), enginetest.Static(1, 1), enginetest.Cron(2, 5, "0 * * * *", "10 * * * *"))
	o.Spec.MinReplicas, o.Spec.MaxReplicas = 1, 10
	return o
}

func numbers(w *enginetest.World) string {
	online, cutoff := 0, 0
	for _, p := range w.Pods() {
		if p.Labels[kapacity.PodStateLabel] == "Cutoff" {
			cutoff++
		} else {
			online++
		}
	}
	return fmt.Sprintf("%d/%d", online, cutoff)
}

func TestTheDocumentedRunWithItsEvents(t *testing.T) {
	w := world(t, enginetest.StatefulSet(1, appsv1.ParallelPodManagement), documented("StatefulSet"))
	at := func(when, states string, endpoints int, events ...string) {
		t.Helper()
		if got := w.States(); got != states {
			t.Errorf("%s: pods %s, want %s", when, got, states)
		}
		if got := w.Endpoints(); got != endpoints {
			t.Errorf("%s: %d endpoints, want %d", when, got, endpoints)
		}
		if diff := cmp.Diff(events, w.Events.Take()); diff != "" {
			t.Errorf("%s: events (-want +got):\n%s", when, diff)
		}
	}
	w.Advance(0)
	at("minute 0", "nginx-0 Online ready, nginx-1 Online ready, nginx-2 Online ready, nginx-3 Online ready, nginx-4 Online ready", 5,
		"ihpa_controller Normal CreateReplicaProfile create ReplicaProfile with onlineReplcas: 5, cutoffReplicas: 0, standbyReplicas: 0",
		"replica_profile_controller Normal UpdateScale rescale target workload from 1 to 5 replicas")
	w.Advance(10*time.Minute - time.Second)
	at("minute 10 - 1 s", w.States(), 5)
	w.Advance(time.Second)
	at("minute 10", "nginx-0 Online ready, nginx-1 Online ready, nginx-2 Online ready, nginx-3 Cutoff unready, nginx-4 Cutoff unready", 3,
		"ihpa_controller Normal UpdateReplicaProfile update ReplicaProfile with onlineReplcas: 5 -> 3, cutoffReplicas: 0 -> 2, standbyReplicas: 0 -> 0",
		"replica_profile_controller Normal CutoffPods cutoff pods: [nginx-4 nginx-3]")
	w.Advance(29 * time.Second)
	at("+ 29 s", w.States(), 3)
	w.Advance(time.Second)
	at("+ 30 s", "nginx-0 Online ready, nginx-1 Cutoff unready, nginx-2 Cutoff unready, nginx-3 Cutoff unready, nginx-4 Cutoff unready", 1,
		"ihpa_controller Normal UpdateReplicaProfile update ReplicaProfile with onlineReplcas: 3 -> 1, cutoffReplicas: 2 -> 4, standbyReplicas: 0 -> 0",
		"replica_profile_controller Normal CutoffPods cutoff pods: [nginx-2 nginx-1]")
	w.Advance(59 * time.Second)
	at("+ 89 s", w.States(), 1)
	w.Advance(time.Second)
	at("+ 90 s", "nginx-0 Online ready", 1,
		"ihpa_controller Normal UpdateReplicaProfile update ReplicaProfile with onlineReplcas: 1 -> 1, cutoffReplicas: 4 -> 0, standbyReplicas: 0 -> 0",
		"replica_profile_controller Normal UpdateScale rescale target workload from 5 to 1 replicas")
	if o := w.IHPA(); o.Status.Gray.GrayPercent != 100 || *o.Status.DesiredReplicas != 1 || o.Status.CurrentPortraitValue.Provider != "Static" {
		t.Errorf("status %+v", o.Status)
	}
}

// workloads are the kinds whose pods can be cut.
func workloads(replicas int32) map[string]client.Object {
	rs := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: enginetest.Namespace, Name: enginetest.Name},
		Spec: appsv1.ReplicaSetSpec{Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: enginetest.Labels()}}}
	return map[string]client.Object{
		"a parallel StatefulSet": enginetest.StatefulSet(replicas, appsv1.ParallelPodManagement),
		"an ordered StatefulSet": enginetest.StatefulSet(replicas, appsv1.OrderedReadyPodManagement),
		"a Deployment":           enginetest.Deployment(replicas),
		"a ReplicaSet":           rs,
	}
}

func kindOf(o client.Object) string { return strings.TrimPrefix(fmt.Sprintf("%T", o), "*v1.") }

// timeline advances up to end and prints online/cutoff whenever it changes, with the second.
func timeline(w *enginetest.World, seconds int) string {
	var out []string
	last := ""
	start := w.Clock.Now()
	for {
		next := w.Settle()
		if n := numbers(w); n != last {
			out = append(out, fmt.Sprintf("%v:%s", w.Clock.Since(start).Seconds(), n))
			last = n
		}
		if end := start.Add(time.Duration(seconds) * time.Second); next.IsZero() || next.After(end) {
			w.Clock.SetTime(end)
			return strings.Join(out, " ")
		}
		w.Clock.SetTime(next)
	}
}

// to sets the one static provider's number.
func to(w *enginetest.World, replicas int32) {
	w.Edit(func(o *kapacity.IntelligentHorizontalPodAutoscaler) {
		o.Spec.PortraitProviders[0].Static.Replicas = replicas
	})
}

func conditionOf(w *enginetest.World, kind string) metav1.Condition {
	w.T.Helper()
	c := meta.FindStatusCondition(w.IHPA().Status.Conditions, kind)
	if c == nil {
		w.T.Fatalf("no condition %s in %+v", kind, w.IHPA().Status.Conditions)
	}
	return *c
}

func expect(w *enginetest.World, kind string, status metav1.ConditionStatus, reason, message string) {
	w.T.Helper()
	c := conditionOf(w, kind)
	if c.Status != status || c.Reason != reason || !strings.Contains(c.Message, message) || c.ObservedGeneration != w.IHPA().Generation {
		w.T.Errorf("condition %+v, want %s %s %q", c, status, reason, message)
	}
}

func uids(pods []corev1.Pod) []string {
	var out []string
	for _, p := range pods {
		out = append(out, string(p.UID))
	}
	return out
}

// F4, B1: whatever the kind, the pods that go are the ones that were cut.
func TestB1TheCutPodsAreTheOnesThatGo(t *testing.T) {
	for name, workload := range workloads(5) {
		t.Run(name, func(t *testing.T) {
			w := world(t, workload, enginetest.IHPAOf(kindOf(workload), enginetest.Cutoff(50, 30, 60), enginetest.Static(1, 5)))
			w.Advance(0)
			to(w, 1)
			if got, want := timeline(w, 80), "0:3/2 30:1/4"; got != want {
				t.Fatalf("got %s, want %s", got, want)
			}
			kept := slices.DeleteFunc(w.Pods(), func(p corev1.Pod) bool { return p.Labels[kapacity.PodStateLabel] != "" })
			if w.Endpoints() != 1 {
				t.Errorf("%d endpoints: %s", w.Endpoints(), w.States())
			}
			w.Advance(10 * time.Second)
			if diff := cmp.Diff(uids(kept), uids(w.Pods())); diff != "" {
				t.Errorf("the pods that are left (-want +got):\n%s", diff)
			}
			if c := meta.FindStatusCondition(w.Profile().Status.Conditions, kapacity.ConditionEnsured); c == nil || c.Status != metav1.ConditionTrue {
				t.Errorf("ensured: %+v", c)
			}
		})
	}
}

func TestRuns(t *testing.T) {
	up := &kapacity.GrayStrategy{GrayState: kapacity.PodStateOnline, ChangePercent: 50, ChangeIntervalSeconds: 30}
	for name, c := range map[string]struct {
		from     int32
		down, up *kapacity.GrayStrategy
		change   func(w *enginetest.World)
		later    func(w *enginetest.World) // after 15 s
		seconds  int
		want     string
	}{
		"B2: a step that rounding leaves unchanged does not hang (C)": {from: 3, down: enginetest.Cutoff(50, 10, 20), seconds: 40,
			change: func(w *enginetest.World) { to(w, 2) }, want: "0:2/1 30:2/0"},
		"B2: nor does a whole interval without change (D)": {from: 4, down: enginetest.Cutoff(30, 10, 20), seconds: 60,
			change: func(w *enginetest.World) { to(w, 2) }, want: "0:3/1 30:2/2 50:2/0"},
		"B3: a target below min keeps the gray run (G)": {from: 6, down: enginetest.Cutoff(50, 30, 60), seconds: 100, want: "0:5/1 30:3/3 90:3/0",
			change: func(w *enginetest.World) {
				w.Edit(func(o *kapacity.IntelligentHorizontalPodAutoscaler) {
					o.Spec.MinReplicas, o.Spec.PortraitProviders[0].Static.Replicas = 3, 1
				})
			}},
		"B4: the same number from another provider does not disturb the run (K)": {from: 10, down: enginetest.Cutoff(50, 30, 60), seconds: 100, want: "0:7/3 30:4/6 90:4/0",
			change: func(w *enginetest.World) { to(w, 4) },
			later: func(w *enginetest.World) {
				w.Edit(func(o *kapacity.IntelligentHorizontalPodAutoscaler) {
					o.Spec.PortraitProviders = append(o.Spec.PortraitProviders, enginetest.Cron(9, 4, "0 * * * *", "59 * * * *"))
				})
			}},
		"without up strategy a rollback is immediate (H)": {from: 10, down: enginetest.Cutoff(50, 30, 60), seconds: 60, want: "0:6/4 15:8/0",
			change: func(w *enginetest.World) { to(w, 2) }, later: func(w *enginetest.World) { to(w, 8) }},
		"B6: with one it never loses an online pod (I)": {from: 10, down: enginetest.Cutoff(50, 30, 60), up: up, seconds: 60, want: "0:6/4 15:7/1 45:8/0",
			change: func(w *enginetest.World) { to(w, 2) }, later: func(w *enginetest.World) { to(w, 8) }},
		"B6: further down starts from what is online (J)": {from: 10, down: enginetest.Cutoff(50, 30, 60), seconds: 130, want: "0:8/2 30:6/4 60:4/6 120:4/0",
			change: func(w *enginetest.World) { to(w, 6) }, later: func(w *enginetest.World) { to(w, 4) }},
		"Deleted shrinks with each step (L)": {from: 10, seconds: 40, want: "0:7/0 30:4/0",
			down:   &kapacity.GrayStrategy{GrayState: kapacity.PodStateDeleted, ChangePercent: 50, ChangeIntervalSeconds: 30, ObservationSeconds: 60},
			change: func(w *enginetest.World) { to(w, 4) }},
		"two profiles on one instant are both applied (N)": {from: 4, down: enginetest.Cutoff(100, 30, 0), seconds: 10, want: "0:2/0",
			change: func(w *enginetest.World) { to(w, 2) }},
		"a restart goes on at the right second (R)": {from: 10, down: enginetest.Cutoff(50, 30, 60), seconds: 100, want: "0:6/4 30:2/8 90:2/0",
			change: func(w *enginetest.World) { to(w, 2) }, later: func(w *enginetest.World) { w.Restart(controllers(w)...) }},
	} {
		t.Run(name, func(t *testing.T) {
			o := enginetest.IHPAOf("Deployment", c.down, enginetest.Static(1, c.from))
			o.Spec.Behavior.ScaleUp.GrayStrategy = c.up
			w := world(t, enginetest.Deployment(c.from), o)
			w.Advance(0)
			c.change(w)
			var got string
			if c.later == nil {
				got = timeline(w, c.seconds)
			} else {
				got = timeline(w, 15)
				c.later(w)
				for _, entry := range strings.Fields(timeline(w, c.seconds-15)) {
					second, n, _ := strings.Cut(entry, ":")
					var s int
					if _, err := fmt.Sscan(second, &s); err != nil {
						t.Fatal(err)
					}
					if !strings.HasSuffix(got, ":"+n) {
						got += fmt.Sprintf(" %d:%s", s+15, n)
					}
				}
			}
			if got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func TestTwoProfilesOnOneInstantAreBothWritten(t *testing.T) {
	w := world(t, enginetest.Deployment(4), enginetest.IHPAOf("Deployment", enginetest.Cutoff(100, 30, 0), enginetest.Static(1, 4)))
	w.Advance(0)
	w.Events.Take()
	to(w, 2)
	w.Advance(0)
	var updates []string
	for _, e := range w.Events.Take() {
		if _, numbers, ok := strings.Cut(e, "onlineReplcas"); ok && strings.Contains(e, kapacity.EventUpdateReplicaProfile) {
			updates = append(updates, "onlineReplcas"+numbers)
		}
	}
	want := []string{"onlineReplcas: 4 -> 2, cutoffReplicas: 0 -> 2, standbyReplicas: 0 -> 0", "onlineReplcas: 2 -> 2, cutoffReplicas: 2 -> 0, standbyReplicas: 0 -> 0"}
	if diff := cmp.Diff(want, updates); diff != "" {
		t.Error(diff)
	}
}

// C13: the same pods come back.
func TestARollbackTurnsTheSamePodsOnAgain(t *testing.T) {
	for name, workload := range workloads(10) {
		t.Run(name, func(t *testing.T) {
			w := world(t, workload, enginetest.IHPAOf(kindOf(workload), enginetest.Cutoff(50, 30, 60), enginetest.Static(1, 10)))
			w.Advance(0)
			before := uids(w.Pods())
			to(w, 2)
			w.Advance(15 * time.Second)
			if got := numbers(w); got != "6/4" {
				t.Fatal(got)
			}
			to(w, 10)
			w.Advance(0)
			if diff := cmp.Diff(before, uids(w.Pods())); diff != "" || w.Endpoints() != 10 {
				t.Errorf("%d endpoints, pods (-want +got):\n%s", w.Endpoints(), diff)
			}
		})
	}
}

// B12, F8: nobody is left without traffic, however the engine is told to let go.
func TestB12HeldPodsAreTurnedOnBeforeLettingGo(t *testing.T) {
	for name, act := range map[string]func(w *enginetest.World){
		"the IHPA is deleted": func(w *enginetest.World) { w.Must(w.Client.Delete(w.Context(), w.IHPA())) },
		"the mode becomes Preview": func(w *enginetest.World) {
			w.Edit(func(o *kapacity.IntelligentHorizontalPodAutoscaler) { o.Spec.ScaleMode = kapacity.ScaleModePreview })
		},
		"another autoscaler begins": func(w *enginetest.World) {
			w.Must(w.Client.Create(w.Context(), hpa("web", w.IHPA().Spec.ScaleTargetRef.Kind, enginetest.Name)))
		},
		"the target is another": func(w *enginetest.World) {
			w.Edit(func(o *kapacity.IntelligentHorizontalPodAutoscaler) { o.Spec.ScaleTargetRef.Name = "other" })
		},
	} {
		for kind, workload := range workloads(5) {
			t.Run(name+", "+kind, func(t *testing.T) {
				w := world(t, workload, enginetest.IHPAOf(kindOf(workload), enginetest.Cutoff(50, 30, 60), enginetest.Static(1, 5)))
				w.Advance(0)
				to(w, 1)
				w.Advance(10 * time.Second)
				if numbers(w) != "3/2" || w.Endpoints() != 3 {
					t.Fatal(w.States())
				}
				w.Simulate(func() { act(w) })
				w.Advance(time.Hour)
				if numbers(w) != "5/0" || w.Endpoints() != 5 || w.Profile() != nil {
					t.Errorf("pods %s, profile %v", w.States(), w.Profile())
				}
				for _, p := range w.Pods() {
					if p.Annotations[corev1.PodDeletionCost] != "" {
						t.Errorf("pod %s keeps its deletion cost", p.Name)
					}
				}
				if o := w.IHPA(); name == "the IHPA is deleted" && o != nil {
					t.Errorf("the IHPA is still there: %+v", o)
				} else if o != nil && o.Status.Gray != nil {
					t.Errorf("the run is not forgotten: %+v", o.Status.Gray)
				}
			})
		}
	}
}

func hpa(name, kind, target string) *autoscalingv2.HorizontalPodAutoscaler {
	return &autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Namespace: enginetest.Namespace, Name: name},
		Spec: autoscalingv2.HorizontalPodAutoscalerSpec{MaxReplicas: 3, ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: kind, Name: target}}}
}

func TestDeletionDoesNotHang(t *testing.T) {
	w := world(t, enginetest.Deployment(5), enginetest.IHPAOf("Deployment", enginetest.Cutoff(50, 30, 60), enginetest.Static(1, 5)))
	w.Advance(0)
	to(w, 1)
	w.Advance(0)
	w.Simulate(func() {
		w.Must(w.Client.Delete(w.Context(), enginetest.Deployment(5)))
		w.Must(w.Client.Delete(w.Context(), w.IHPA()))
	})
	w.Advance(time.Minute)
	if w.IHPA() != nil || w.Profile() != nil {
		t.Errorf("IHPA %+v, profile %+v", w.IHPA(), w.Profile())
	}
}

// B8, F9.
func TestB8AnotherTargetIsFollowed(t *testing.T) {
	other := enginetest.StatefulSet(6, appsv1.ParallelPodManagement)
	other.Name = "other"
	other.Spec.Selector.MatchLabels = enginetest.Labels()
	w := world(t, enginetest.Deployment(5), other, enginetest.IHPAOf("Deployment", enginetest.Cutoff(50, 30, 60), enginetest.Static(1, 5)))
	w.Advance(0)
	to(w, 1)
	w.Advance(10 * time.Second)
	w.Edit(func(o *kapacity.IntelligentHorizontalPodAutoscaler) {
		o.Spec.ScaleTargetRef.Kind, o.Spec.ScaleTargetRef.Name = "StatefulSet", "other"
	})
	w.Advance(0)
	held := map[bool]int{}
	for _, p := range w.Pods() {
		if p.Labels[kapacity.PodStateLabel] != "" {
			held[strings.HasPrefix(p.Name, "other")]++
		}
	}
	if diff := cmp.Diff(map[bool]int{true: 2}, held); diff != "" {
		t.Errorf("held pods of the new target (-want +got):\n%s\n%s", diff, w.States())
	}
	if got := w.IHPA().Status.ScaleTarget.Name; got != "other" {
		t.Error(got)
	}
	w.Advance(2 * time.Minute)
	old := 0
	for _, p := range w.Pods() {
		if strings.HasPrefix(p.Name, enginetest.Name) && enginetest.Ready(&p) {
			old++
		}
	}
	if old != 5 || len(w.Pods()) != 6 {
		t.Errorf("the old target must keep its 5 pods, the new one have 1: %s", w.States())
	}
}

// B9: pods that are only pending count for /scale all the same.
func TestB9PendingPodsDoNotKeepTheScaleUp(t *testing.T) {
	w := world(t, enginetest.Deployment(5), enginetest.IHPAOf("Deployment", nil, enginetest.Static(1, 5)))
	w.Advance(0)
	w.Pending = true
	to(w, 10)
	w.Advance(0)
	if n := len(w.Pods()); n != 10 {
		t.Fatalf("%d pods", n)
	}
	to(w, 5)
	w.Advance(0)
	if n, ready := len(w.Pods()), w.Endpoints(); n != 5 || ready != 5 {
		t.Errorf("%d pods, %d ready", n, ready)
	}
}

// B10: with scaling down disabled /scale is never lowered, however few pods run.
func TestB10DisabledDownNeverLowers(t *testing.T) {
	o := enginetest.IHPAOf("Deployment", nil, enginetest.Static(1, 10))
	o.Spec.Behavior.ScaleDown.Disabled = true
	w := world(t, enginetest.Deployment(3), o)
	w.Pending = true
	w.Advance(0)
	to(w, 5)
	w.Advance(time.Hour)
	if n := len(w.Pods()); n != 10 {
		t.Errorf("%d pods", n)
	}
	if got := w.Profile().Spec.AllowedScalingDirection; got != kapacity.ScalingDirectionUp {
		t.Error(got)
	}
}

// B11, F10.
func TestB11EveryBoundaryOfEveryCronProviderWakes(t *testing.T) {
	w := world(t, enginetest.Deployment(1), enginetest.IHPAOf("Deployment", nil, enginetest.Static(0, 1),
		enginetest.Cron(1, 3, "10 12 * * *", "20 12 * * *"), enginetest.Cron(2, 5, "15 12 * * *", "17 12 * * *")))
	w.Advance(0)
	var got []string
	for range 25 {
		w.Advance(time.Minute - time.Nanosecond)
		before := numbers(w)
		w.Advance(time.Nanosecond)
		if after := numbers(w); after != before {
			got = append(got, w.Clock.Now().Format("15:04:05")+" "+after)
		}
	}
	want := []string{"12:10:00 3/0", "12:15:00 5/0", "12:17:00 3/0", "12:20:00 1/0"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// B13: nothing that is tied to a deleted object stays.
func TestB13ADeletedIHPAIsForgotten(t *testing.T) {
	w := world(t, enginetest.Deployment(1))
	log := decision.NewLog(0, 0)
	cs := controllers(w)
	cs[0].(*Reconciler).Decisions = log
	told.reset()
	w.Restart(cs...)
	w.Simulate(func() {
		w.Must(w.Client.Create(w.Context(), enginetest.IHPAOf("Deployment", nil, enginetest.Static(1, 2))))
	})
	w.Advance(0)
	if len(log.Objects()) != 1 || testutil.CollectAndCount(told) == 0 {
		t.Fatal("no record was kept, or nothing measured")
	}
	w.Simulate(func() { w.Must(w.Client.Delete(w.Context(), w.IHPA())) })
	if next := w.Settle(); len(log.Objects()) != 0 || !next.IsZero() {
		t.Errorf("records %v, next %v", log.Objects(), next)
	}
	if n := testutil.CollectAndCount(told); n != 0 {
		t.Errorf("%d series are still there", n)
	}
}

// B14, B15, F6: what is wrong with one provider is said, and is nobody else's business.
func TestB14B15AFailingProviderIsNamedAndBlocksNobodyUpwards(t *testing.T) {
	bad := enginetest.Cron(1, 3, "0 9 * * *", "0 17 * * *")
	bad.Cron.Crons[0].TimeZone = "Mars/Base"
	for name, c := range map[string]struct {
		provider kapacity.HorizontalPortraitProvider
		cause    string
	}{
		"an unknown time zone":         {bad, "Mars/Base"},
		"cron without its settings":    {kapacity.HorizontalPortraitProvider{Type: kapacity.CronProvider, Priority: 1}, "type is Cron, but cron is missing"},
		"static without its settings":  {kapacity.HorizontalPortraitProvider{Type: kapacity.StaticProvider, Priority: 1}, "type is Static, but static is missing"},
		"dynamic without its settings": {kapacity.HorizontalPortraitProvider{Type: kapacity.DynamicProvider, Priority: 1}, "type is Dynamic, but dynamic is missing"},
		"an unknown type":              {kapacity.HorizontalPortraitProvider{Type: "Oracle", Priority: 1}, `unknown type "Oracle"`},
		"a portrait of somebody else's": {kapacity.HorizontalPortraitProvider{Type: kapacity.DynamicProvider, Priority: 1,
			Dynamic: &kapacity.DynamicHorizontalPortraitProvider{PortraitSpec: kapacity.PortraitSpec{PortraitType: "Taken"}}}, "HorizontalPortrait shop/nginx-taken is controlled by Oracle delphi (uid 1)"},
	} {
		t.Run(name, func(t *testing.T) {
			taken := &kapacity.HorizontalPortrait{ObjectMeta: metav1.ObjectMeta{Namespace: enginetest.Namespace, Name: "nginx-taken",
				OwnerReferences: []metav1.OwnerReference{{APIVersion: "example.com/v1", Kind: "Oracle", Name: "delphi", UID: "1", Controller: ptr.To(true)}}}}
			w := world(t, enginetest.Deployment(2), taken, enginetest.IHPAOf("Deployment", nil, c.provider, enginetest.Static(2, 4)))
			w.Advance(0)
			if got := numbers(w); got != "4/0" {
				t.Errorf("the healthy provider wants 4: %s", got)
			}
			expect(w, kapacity.ConditionPortraitsHealthy, metav1.ConditionFalse, kapacity.ReasonProviderFailed, c.cause)
			expect(w, kapacity.ConditionScalingActive, metav1.ConditionTrue, kapacity.ReasonSucceededAutoscaling, kapacity.MessageSucceededAutoscaling)
			w.Advance(time.Hour)
			n := 0
			for _, e := range w.Events.Take() {
				if strings.Contains(e, "Warning "+kapacity.ReasonProviderFailed) {
					n++
				}
			}
			if n != 1 {
				t.Errorf("%d Warnings, want one for one cause", n)
			}
		})
	}
}

func TestAFailingProviderOfHigherRankForbidsLowering(t *testing.T) {
	w := world(t, enginetest.Deployment(6), enginetest.IHPAOf("Deployment", nil, enginetest.Static(1, 2), kapacity.HorizontalPortraitProvider{Type: kapacity.CronProvider, Priority: 2}))
	w.Advance(time.Minute)
	if got := numbers(w); got != "6/0" {
		t.Error(got)
	}
	w.Edit(func(o *kapacity.IntelligentHorizontalPodAutoscaler) {
		o.Spec.PortraitProviders = o.Spec.PortraitProviders[:1]
	})
	w.Advance(0)
	if got := numbers(w); got != "2/0" {
		t.Error(got)
	}
	expect(w, kapacity.ConditionPortraitsHealthy, metav1.ConditionTrue, kapacity.ReasonProvidersHealthy, messageHealthy)
}

func TestContradictingBoundsGiveMax(t *testing.T) {
	o := enginetest.IHPAOf("Deployment", nil, enginetest.Static(1, 1))
	o.Spec.MinReplicas, o.Spec.MaxReplicas = 5, 3
	w := world(t, enginetest.Deployment(1), o)
	w.Advance(0)
	if got := numbers(w); got != "3/0" {
		t.Error(got)
	}
	expect(w, kapacity.ConditionScalingLimited, metav1.ConditionTrue, kapacity.ReasonTooManyReplicas, kapacity.MessageTooManyReplicas)
}

// B5, B18, F11: a portrait that somebody else keeps.
func TestDynamicPortraits(t *testing.T) {
	o := enginetest.IHPAOf("Deployment", nil, kapacity.HorizontalPortraitProvider{Type: kapacity.DynamicProvider, Priority: 1,
		Dynamic: &kapacity.DynamicHorizontalPortraitProvider{PortraitSpec: kapacity.PortraitSpec{PortraitType: kapacity.PredictivePortrait}}})
	hp := &kapacity.HorizontalPortrait{ObjectMeta: metav1.ObjectMeta{Namespace: enginetest.Namespace, Name: "nginx-predictive"}}
	w := world(t, enginetest.Deployment(3), o, hp)
	say := func(d *kapacity.PortraitData) {
		t.Helper()
		w.Simulate(func() {
			w.Must(w.Client.Get(w.Context(), client.ObjectKeyFromObject(hp), hp))
			hp.Status.PortraitData = d
			w.Must(w.Client.Status().Update(w.Context(), hp))
		})
		w.Advance(0)
	}
	w.Advance(0)
	expect(w, kapacity.ConditionScalingActive, metav1.ConditionFalse, kapacity.ReasonNoValidPortraitValue, kapacity.MessageNoValidPortraitValue)

	static := func(n int32) *kapacity.PortraitData {
		return &kapacity.PortraitData{Type: kapacity.StaticPortraitData, Static: &kapacity.StaticPortrait{Replicas: n}}
	}
	say(static(0))
	if got := numbers(w); got != "0/0" {
		t.Errorf("B18: want 0, got %s", got)
	}
	say(static(1))
	if got := numbers(w); got != "1/0" {
		t.Errorf("from zero: %s", got)
	}
	if v := w.IHPA().Status.CurrentPortraitValue; v.Provider != "Dynamic-Predictive" || v.ExpireTime != nil {
		t.Errorf("%+v", v)
	}
	before := len(w.Writes)
	say(static(1))
	if w.Writes = w.Writes[before:]; len(w.Writes) != 0 {
		t.Errorf("B5: an unchanged value caused %v", w.Writes)
	}

	now := w.Clock.Now().Unix()
	say(&kapacity.PortraitData{Type: kapacity.TimeSeriesPortraitData, ExpireTime: ptr.To(metav1.Unix(now+1800, 0)), TimeSeries: &kapacity.TimeSeriesPortrait{
		TimeSeries: []kapacity.ReplicaTimeSeriesPoint{{Timestamp: now, Replicas: 4}, {Timestamp: now + 600, Replicas: 3}, {Timestamp: now + 1200, Replicas: 0}}}})
	if got, want := timeline(w, 1900), "0:4/0 600:3/0 1200:0/0"; got != want {
		t.Errorf("time series: got %s, want %s", got, want)
	}
	expect(w, kapacity.ConditionScalingActive, metav1.ConditionFalse, kapacity.ReasonNoValidPortraitValue, "")
	say(&kapacity.PortraitData{Type: kapacity.TimeSeriesPortraitData})
	expect(w, kapacity.ConditionPortraitsHealthy, metav1.ConditionFalse, kapacity.ReasonProviderFailed, "shop/nginx-predictive: status.portraitData")
}

// What a portrait said of one workload says nothing of another.
func TestAnotherTargetDoesNotInheritThePortrait(t *testing.T) {
	other := enginetest.StatefulSet(6, appsv1.ParallelPodManagement)
	other.Name = "other"
	other.Spec.Selector.MatchLabels = enginetest.Labels()
	o := enginetest.IHPAOf("Deployment", nil, kapacity.HorizontalPortraitProvider{Type: kapacity.DynamicProvider, Priority: 1,
		Dynamic: &kapacity.DynamicHorizontalPortraitProvider{PortraitSpec: kapacity.PortraitSpec{PortraitType: kapacity.PredictivePortrait}}})
	key := client.ObjectKey{Namespace: enginetest.Namespace, Name: "nginx-predictive"}
	w := world(t, enginetest.Deployment(3), other, o)
	w.Advance(0)
	say := func(replicas int32) {
		t.Helper()
		w.Simulate(func() {
			hp := &kapacity.HorizontalPortrait{}
			w.Must(w.Client.Get(w.Context(), key, hp))
			hp.Status.PortraitData = &kapacity.PortraitData{Type: kapacity.StaticPortraitData, Static: &kapacity.StaticPortrait{Replicas: replicas}}
			w.Must(w.Client.Status().Update(w.Context(), hp))
		})
		w.Advance(0)
	}
	pods := func() map[bool]int {
		count := map[bool]int{}
		for _, p := range w.Pods() {
			count[strings.HasPrefix(p.Name, "other")]++
		}
		return count
	}
	say(2)
	w.Edit(func(o *kapacity.IntelligentHorizontalPodAutoscaler) {
		o.Spec.ScaleTargetRef.Kind, o.Spec.ScaleTargetRef.Name = "StatefulSet", "other"
	})
	w.Advance(0)
	w.Advance(time.Minute)
	if diff := cmp.Diff(map[bool]int{false: 2, true: 6}, pods()); diff != "" {
		t.Errorf("pods (-want +got):\n%s\n%s", diff, w.States())
	}
	hp := &kapacity.HorizontalPortrait{}
	w.Must(w.Client.Get(w.Context(), key, hp))
	if hp.Spec.ScaleTargetRef.Name != "other" || hp.Status.PortraitData != nil {
		t.Errorf("the portrait is about %v and says %v", hp.Spec.ScaleTargetRef, hp.Status.PortraitData)
	}
	say(4)
	if diff := cmp.Diff(map[bool]int{false: 2, true: 4}, pods()); diff != "" {
		t.Errorf("pods by the new portrait (-want +got):\n%s\n%s", diff, w.States())
	}
}

// C8, law 6.
func TestNoValidValueKeepsTheReplicasAndSaysSoOnce(t *testing.T) {
	w := world(t, enginetest.Deployment(7), enginetest.IHPAOf("Deployment", nil, enginetest.Cron(1, 2, "30 12 * * *", "40 12 * * *")))
	w.Advance(29 * time.Minute)
	if got := numbers(w); got != "7/0" || w.Profile() != nil {
		t.Errorf("%s, profile %v", got, w.Profile())
	}
	want := []string{"ihpa_controller Warning NoValidPortraitValue no valid portrait value for now"}
	if diff := cmp.Diff(want, w.Events.Take()); diff != "" {
		t.Error(diff)
	}
	w.Advance(time.Minute)
	w.Advance(20 * time.Minute)
	if got := numbers(w); got != "2/0" {
		t.Error(got)
	}
	expect(w, kapacity.ConditionScalingActive, metav1.ConditionFalse, kapacity.ReasonNoValidPortraitValue, "")
}

func TestNothingIsWrittenAtRest(t *testing.T) {
	for name, workload := range workloads(5) {
		t.Run(name, func(t *testing.T) {
			w := world(t, workload, enginetest.IHPAOf(kindOf(workload), enginetest.Cutoff(50, 30, 60), enginetest.Static(1, 5)))
			w.Advance(0)
			to(w, 1)
			w.Advance(10 * time.Second)
			for _, when := range []string{"in the middle of a run", "at rest"} {
				w.Writes = nil
				w.Events.Take()
				w.Restart(controllers(w)...)
				for range 3 {
					w.Settle()
				}
				if len(w.Writes)+len(w.Events.Take()) > 0 {
					t.Errorf("%s: %v", when, w.Writes)
				}
				w.Advance(2 * time.Minute)
			}
		})
	}
}

func TestPausedStopsWhereItStands(t *testing.T) {
	w := world(t, enginetest.Deployment(5), enginetest.IHPAOf("Deployment", enginetest.Cutoff(50, 30, 60), enginetest.Static(1, 5)))
	w.Advance(0)
	to(w, 1)
	w.Advance(10 * time.Second)
	w.Edit(func(o *kapacity.IntelligentHorizontalPodAutoscaler) { o.Spec.Paused = true })
	w.Advance(time.Hour)
	if numbers(w) != "3/2" || !w.Profile().Spec.Paused {
		t.Errorf("%s, %+v", numbers(w), w.Profile().Spec)
	}
	expect(w, kapacity.ConditionScalingActive, metav1.ConditionFalse, kapacity.ReasonScalingPaused, kapacity.MessageScalingPaused)
	for _, kind := range []string{kapacity.ConditionApplied, kapacity.ConditionEnsured} {
		if c := meta.FindStatusCondition(w.Profile().Status.Conditions, kind); c == nil || c.Reason != kapacity.ReasonReplicaProfilePaused {
			t.Errorf("%s: %+v", kind, c)
		}
	}
	w.Edit(func(o *kapacity.IntelligentHorizontalPodAutoscaler) { o.Spec.Paused = false })
	if got, want := timeline(w, 70), "0:1/4 60:1/0"; got != want {
		t.Errorf("a pause is worth one step at most: %s, want %s", got, want)
	}
}

func TestPreviewDecidesAndTouchesNothing(t *testing.T) {
	o := documented("Deployment")
	o.Spec.ScaleMode = kapacity.ScaleModePreview
	// Beside the autoscaler that it may replace one day.
	w := world(t, enginetest.Deployment(2), hpa("web", "Deployment", enginetest.Name), o)
	w.Advance(time.Hour)
	for _, e := range w.Writes {
		if !strings.Contains(e, "IntelligentHorizontalPodAutoscaler") {
			t.Errorf("wrote %s", e)
		}
	}
	expect(w, kapacity.ConditionConflict, metav1.ConditionFalse, kapacity.ReasonNoConflict, "")
	if s := w.IHPA().Status; *s.DesiredReplicas != 5 || *s.OnlineReplicas != 2 || s.LastDecision == nil {
		t.Errorf("%+v", s)
	}
	expect(w, kapacity.ConditionScalingActive, metav1.ConditionTrue, kapacity.ReasonSucceededAutoscaling, "")
}

func TestStandDownBesideAnotherAutoscaler(t *testing.T) {
	w := world(t, enginetest.Deployment(2), hpa("web", "Deployment", enginetest.Name), hpa("elsewhere", "Deployment", "other"), enginetest.IHPAOf("Deployment", nil, enginetest.Static(1, 9)))
	w.Advance(time.Hour)
	if numbers(w) != "2/0" || w.Profile() != nil {
		t.Errorf("%s, %v", numbers(w), w.Profile())
	}
	expect(w, kapacity.ConditionConflict, metav1.ConditionTrue, kapacity.ReasonAnotherAutoscaler, "HorizontalPodAutoscaler shop/web scales Deployment shop/nginx, too")
	expect(w, kapacity.ConditionScalingActive, metav1.ConditionFalse, kapacity.ReasonAnotherAutoscaler, "")
	if events := w.Events.Take(); len(events) != 1 || !strings.Contains(events[0], "ihpa_controller Warning AnotherAutoscaler") {
		t.Errorf("events %v", events)
	}
	w.Simulate(func() { w.Must(w.Client.Delete(w.Context(), hpa("web", "Deployment", enginetest.Name))) })
	w.Advance(0)
	if got := numbers(w); got != "9/0" {
		t.Errorf("alone again: %s", got)
	}
	expect(w, kapacity.ConditionConflict, metav1.ConditionFalse, kapacity.ReasonNoConflict, "")
}

func TestOfTwoIHPAsTheOlderScales(t *testing.T) {
	older := enginetest.IHPAOf("Deployment", nil, enginetest.Static(1, 9))
	older.Name, older.CreationTimestamp = "older", metav1.NewTime(enginetest.Start.Add(-time.Hour))
	w := world(t, enginetest.Deployment(2), older, enginetest.IHPAOf("Deployment", nil, enginetest.Static(1, 5)))
	w.Advance(0)
	if got := numbers(w); got != "2/0" {
		t.Error(got)
	}
	expect(w, kapacity.ConditionConflict, metav1.ConditionTrue, kapacity.ReasonAnotherAutoscaler, "IntelligentHorizontalPodAutoscaler shop/older")
	w.Simulate(func() { w.Must(w.Client.Delete(w.Context(), older)) })
	w.Advance(0)
	if got := numbers(w); got != "5/0" {
		t.Error(got)
	}
}

func TestReplicasWrittenBySomebodyElseOnceAreNamedAndScaledBack(t *testing.T) {
	w := world(t, enginetest.Deployment(5), enginetest.IHPAOf("Deployment", nil, enginetest.Static(1, 5)))
	w.Advance(time.Minute)
	w.Events.Take()
	w.Simulate(func() {
		d := &appsv1.Deployment{}
		w.Must(w.Client.Get(w.Context(), enginetest.Request.NamespacedName, d))
		d.Spec.Replicas = ptr.To(int32(8))
		d.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "kubectl-scale", Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: "apps/v1",
			Time: ptr.To(metav1.NewTime(w.Clock.Now())), FieldsType: "FieldsV1", FieldsV1: metav1.NewFieldsV1(`{"f:spec":{"f:replicas":{}}}`)}}
		w.Must(w.Client.Update(w.Context(), d))
	})
	w.Advance(0)
	if got := numbers(w); got != "5/0" {
		t.Error(got)
	}
	expect(w, kapacity.ConditionConflict, metav1.ConditionTrue, kapacity.ReasonReplicasWritten, "changed the replicas of Deployment shop/nginx from 5 to 8; scaling goes on")
	if events := w.Events.Take(); !slices.ContainsFunc(events, func(e string) bool { return strings.Contains(e, "ihpa_controller Warning ReplicasWrittenByOther") }) {
		t.Errorf("events %v", events)
	}
	to(w, 6)
	w.Advance(0)
	expect(w, kapacity.ConditionConflict, metav1.ConditionFalse, kapacity.ReasonNoConflict, "")
}

func TestEventsFollowTheWriteTheyTellOf(t *testing.T) {
	w := world(t, enginetest.Deployment(2), enginetest.IHPAOf("Deployment", nil, enginetest.Static(1, 5)))
	w.Fail = func(what string) error {
		if strings.HasPrefix(what, "create ReplicaProfile") {
			return errors.New("quota")
		}
		return nil
	}
	for range 3 {
		w.Settle()
	}
	want := []string{"ihpa_controller Warning FailedCreateReplicaProfile failed to create ReplicaProfile: quota"}
	if diff := cmp.Diff(want, w.Events.Take()); diff != "" {
		t.Error(diff)
	}
	expect(w, kapacity.ConditionScalingActive, metav1.ConditionFalse, kapacity.ReasonFailedCreateReplicaProfile, "failed to create ReplicaProfile: quota")
	w.Fail = nil
	w.Advance(0)
	if got := numbers(w); got != "5/0" {
		t.Error(got)
	}
	expect(w, kapacity.ConditionScalingActive, metav1.ConditionTrue, kapacity.ReasonSucceededAutoscaling, "")
	w.Events.Take()
	conflicts := 0
	w.Fail = func(what string) error {
		if strings.HasPrefix(what, "patch ReplicaProfile nginx") && conflicts == 0 {
			conflicts++
			return apierrors.NewConflict(schema.GroupResource{}, "nginx", errors.New("modified"))
		}
		return nil
	}
	to(w, 3)
	w.Advance(time.Second)
	if got := numbers(w); got != "3/0" || conflicts != 1 {
		t.Errorf("%s after %d conflicts", got, conflicts)
	}
	for _, e := range w.Events.Take() {
		if strings.Contains(e, "Warning") {
			t.Errorf("a conflict is nobody's business: %s", e)
		}
	}
}

func TestTheTargetMayComeLater(t *testing.T) {
	w := world(t, enginetest.IHPAOf("Deployment", nil, enginetest.Static(1, 3)))
	w.Advance(time.Minute)
	expect(w, kapacity.ConditionScalingActive, metav1.ConditionFalse, kapacity.ReasonFailedGetWorkload, "Deployment shop/nginx")
	if events := w.Events.Take(); len(events) != 1 {
		t.Errorf("events %v", events)
	}
	w.Simulate(func() { w.Must(w.Client.Create(w.Context(), enginetest.Deployment(1))) })
	w.Advance(0)
	if got := numbers(w); got != "3/0" {
		t.Error(got)
	}
}

func TestAFirstValueBelowTheLiveCountIsAGrayRun(t *testing.T) {
	w := world(t, enginetest.Deployment(5), enginetest.IHPAOf("Deployment", enginetest.Cutoff(50, 30, 60), enginetest.Static(1, 1)))
	if got, want := timeline(w, 100), "0:3/2 30:1/4 90:1/0"; got != want {
		// The first settling creates the pods and takes the first step.
		t.Errorf("got %s, want %s", got, want)
	}
}

// The gate that nobody sets: such a pod keeps its traffic, so it is not counted as cut and nothing shrinks.
func TestAPodWithoutTheGateIsNotCut(t *testing.T) {
	w := world(t, enginetest.Deployment(4), enginetest.IHPAOf("Deployment", enginetest.Cutoff(100, 30, 60), enginetest.Static(1, 4)))
	w.Ungated = true
	w.Advance(0)
	to(w, 2)
	w.Advance(10 * time.Minute)
	if numbers(w) != "4/0" || w.Endpoints() != 4 {
		t.Errorf("%s", w.States())
	}
	c := meta.FindStatusCondition(w.Profile().Status.Conditions, kapacity.ConditionApplied)
	if c == nil || c.Reason != replicaprofile.ReasonReadinessGateMissing || w.Profile().Status.UngatedReplicas != 2 {
		t.Errorf("%+v, %+v", c, w.Profile().Status)
	}
	expect(w, kapacity.ConditionGrayStalled, metav1.ConditionTrue, kapacity.ReasonStepNotApplied, "is not applied")
	var warnings []string
	for _, e := range w.Events.Take() {
		if strings.Contains(e, "Warning") {
			warnings = append(warnings, strings.Join(strings.Fields(e)[:3], " "))
		}
	}
	want := []string{"replica_profile_controller Warning ReadinessGateMissing", "ihpa_controller Warning StepNotApplied"}
	slices.Sort(warnings)
	slices.Sort(want)
	if diff := cmp.Diff(want, warnings); diff != "" {
		t.Error(diff)
	}
}

func TestARollingUpdateRestoresCutPodsAndFreezesTheRun(t *testing.T) {
	w := world(t, enginetest.StatefulSet(5, appsv1.ParallelPodManagement), enginetest.IHPAOf("StatefulSet", enginetest.Cutoff(50, 30, 60), enginetest.Static(1, 5)))
	revision := func(current, update string, pods string) {
		w.Simulate(func() {
			s := &appsv1.StatefulSet{}
			w.Must(w.Client.Get(w.Context(), enginetest.Request.NamespacedName, s))
			s.Status.CurrentRevision, s.Status.UpdateRevision = current, update
			w.Must(w.Client.Status().Update(w.Context(), s))
			for _, p := range w.Pods() {
				p.Labels[appsv1.ControllerRevisionHashLabelKey] = pods
				w.Must(w.Client.Update(w.Context(), &p))
			}
		})
	}
	w.Advance(0)
	revision("one", "one", "one")
	to(w, 1)
	w.Advance(10 * time.Second)
	if got := numbers(w); got != "3/2" {
		t.Fatal(got)
	}
	revision("one", "two", "one")
	w.Advance(time.Hour)
	if numbers(w) != "5/0" || w.Endpoints() != 5 {
		t.Errorf("%s", w.States())
	}
	if c := meta.FindStatusCondition(w.Profile().Status.Conditions, kapacity.ConditionApplied); c == nil || c.Reason != replicaprofile.ReasonWorkloadUpdating || !strings.Contains(c.Message, "from revision one to two") {
		t.Errorf("%+v", c)
	}
	if s := conditionOf(w, kapacity.ConditionGrayStalled); s.Status == metav1.ConditionTrue {
		t.Errorf("a freeze is no stall: %+v", s)
	}
	revision("two", "two", "two")
	if got, want := timeline(w, 100), "0:3/2 30:1/4 90:1/0"; got != want {
		t.Errorf("after the update: got %s, want %s", got, want)
	}
}

// N17, design law 5: status says why, within bounds.
func TestTheLastDecisionSaysWhy(t *testing.T) {
	w := world(t, enginetest.Deployment(5), documented("Deployment"))
	w.Advance(10 * time.Minute)
	d := w.IHPA().Status.LastDecision
	var stages []string
	for _, s := range d.Steps {
		stages = append(stages, fmt.Sprintf("%s=%d", s.Stage, s.Replicas))
	}
	if diff := cmp.Diff([]string{"merge=1", "clamp=1", "gray=3"}, stages); diff != "" {
		t.Error(diff)
	}
	if d.Result != "3 online, 2 cut off (was 5 online, 0 cut off)" || d.Trigger != "portrait value changed" || len(d.Candidates) != 2 {
		t.Errorf("%+v", d)
	}
	if want := w.Clock.Now().Add(30 * time.Second); d.Next == nil || !d.Next.Time.Equal(want) {
		t.Errorf("next %v, want %v", d.Next, want)
	}
}

// Slow kubelets: the observation begins when the last cut pod has left the endpoints, not before.
func TestTheObservationWaitsForTheEndpoints(t *testing.T) {
	w := world(t, enginetest.Deployment(4), enginetest.IHPAOf("Deployment", enginetest.Cutoff(100, 30, 60), enginetest.Static(1, 4)))
	w.Advance(0)
	w.Stuck = true
	to(w, 2)
	w.Advance(2 * time.Minute)
	if got := numbers(w); got != "2/2" {
		t.Fatalf("nothing may be deleted that still serves: %s", got)
	}
	w.Stuck = false
	if got, want := timeline(w, 70), "0:2/2 60:2/0"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// F5: the cost is there before /scale is lowered, so that no ReplicaSet deletes another pod.
func TestTheDeletionCostComesBeforeTheScale(t *testing.T) {
	w := world(t, enginetest.Deployment(3), enginetest.IHPAOf("Deployment", enginetest.Cutoff(100, 30, 60), enginetest.Static(1, 3)))
	w.Advance(0)
	to(w, 2)
	w.Advance(50 * time.Second)
	var cut string
	for _, p := range w.Pods() {
		if p.Labels[kapacity.PodStateLabel] != "" {
			cut = p.Name
		}
	}
	w.Events.Take()
	w.Writes = nil
	w.Advance(10 * time.Second)
	var got []string
	for _, what := range w.Writes {
		if strings.HasPrefix(what, "patch Pod") || strings.Contains(what, "/scale") {
			got = append(got, what)
		}
	}
	if diff := cmp.Diff([]string{"patch Pod " + cut, "update Deployment/scale nginx"}, got); diff != "" {
		t.Error(diff)
	}
	if events := w.Events.Take(); !slices.Contains(events, fmt.Sprintf("replica_profile_controller Normal SelectPodsToDelete select pods to delete: [%s]", cut)) {
		t.Errorf("events %v", events)
	}
}

type exploding struct{}

func (exploding) Evaluate(time.Time) portraits.Opinion { panic("boom") }

func TestB14APortraitThatPanicsIsAFailure(t *testing.T) {
	o := evaluate(func() portraits.Portrait { return exploding{} }, time.Now())
	if o.Err == nil || !strings.Contains(o.Err.Error(), "boom") || o.HasValue {
		t.Errorf("%+v", o)
	}
}
