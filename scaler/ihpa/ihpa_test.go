package ihpa

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	"github.com/kubetide/kubetide/internal/decision"
	"github.com/kubetide/kubetide/scaler/enginetest"
	"github.com/kubetide/kubetide/scaler/replicaprofile"
)

func controllers(w *enginetest.World) []reconcile.Reconciler {
	return []reconcile.Reconciler{
		&Reconciler{Client: w.Client, Clock: w.Clock, Recorder: w.Events.Recorder(kapacity.IHPAEventComponent), Decisions: decision.NewLog(0, 0)},
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
	_ = corev1.Pod{}
}
