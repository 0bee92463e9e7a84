package replicaprofile

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	"github.com/kubetide/kubetide/scaler/enginetest"
)

// rollout is a world with a workload of a kind that no cache knows, which makes its pods through a ReplicaSet: a
// ReplicationController stands for it.
func rollout(t *testing.T, replicas int32) (*enginetest.World, *corev1.ReplicationController) {
	t.Helper()
	rc := &corev1.ReplicationController{ObjectMeta: metav1.ObjectMeta{Namespace: enginetest.Namespace, Name: enginetest.Name},
		Spec: corev1.ReplicationControllerSpec{Replicas: &replicas, Selector: enginetest.Labels()}}
	rp := profile("ReplicationController", replicas, 0)
	rp.Spec.ScaleTargetRef.APIVersion = "v1"
	w := world(t, rc, rp)
	rs := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: enginetest.Namespace, Name: enginetest.Name + "-r", Labels: enginetest.Labels()},
		Spec: appsv1.ReplicaSetSpec{Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: enginetest.Labels()}}}
	w.Must(controllerutil.SetControllerReference(rc, rs, w.Client.Scheme()))
	w.Simulate(func() { w.Must(w.Client.Create(w.Context(), rs)) })
	w.Run(reconcile.Func(func(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) { // its controller
		w.Simulate(func() {
			if err := w.Client.Get(ctx, enginetest.Request.NamespacedName, rc); err != nil {
				return
			}
			if w.Client.Get(ctx, client.ObjectKeyFromObject(rs), rs) != nil {
				return
			}
			if *rs.Spec.Replicas != *rc.Spec.Replicas {
				rs.Spec.Replicas = ptr.To(*rc.Spec.Replicas)
				w.Must(w.Client.Update(ctx, rs))
			}
		})
		return reconcile.Result{}, nil
	}))
	w.Settle()
	w.Events.Take()
	return w, rc
}

func held(w *enginetest.World) (names []string) {
	for _, p := range w.Pods() {
		if p.Labels[kapacity.PodStateLabel] != "" && !enginetest.Ready(&p) {
			names = append(names, p.Name)
		}
	}
	return names
}

func TestPodsOfAnyWorkloadThatTheyLeadToAreCut(t *testing.T) {
	w, rc := rollout(t, 5)
	edit(w, func(rp *kapacity.ReplicaProfile) { rp.Spec.OnlineReplicas, rp.Spec.CutoffReplicas = 3, 2 })
	w.Settle()
	cut := held(w)
	if len(cut) != 2 || w.Endpoints() != 3 {
		t.Fatal(w.States())
	}
	if got := conditionOf(w, kapacity.ConditionApplied); !strings.HasPrefix(got, "True ReplicaProfileApplied") {
		t.Error(got)
	}
	edit(w, func(rp *kapacity.ReplicaProfile) { rp.Spec.CutoffReplicas = 0 })
	w.Settle()
	for _, p := range w.Pods() {
		if slices.Contains(cut, p.Name) || !enginetest.Ready(&p) {
			t.Errorf("%v were cut, and there is %s", cut, w.States())
		}
	}
	if len(w.Pods()) != 3 || *rc.Spec.Replicas != 3 {
		t.Error(w.States())
	}
}

func TestPodsOfAnyWorkloadAreRestored(t *testing.T) {
	for name, c := range map[string]struct {
		before func(w *enginetest.World, rc *corev1.ReplicationController)
		online int
	}{
		"the profile goes":                       {func(*enginetest.World, *corev1.ReplicationController) {}, 4},
		"the profile goes, the workload is gone": {func(w *enginetest.World, rc *corev1.ReplicationController) { w.Must(w.Client.Delete(w.Context(), rc)) }, 2},
		"only its selector knows the pods any more": {func(w *enginetest.World, _ *corev1.ReplicationController) {
			w.Must(w.Client.Delete(w.Context(), &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: enginetest.Namespace, Name: enginetest.Name + "-r"}}))
			for _, p := range w.Pods() {
				p.OwnerReferences = nil
				w.Must(w.Client.Update(w.Context(), &p))
			}
		}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			w, rc := rollout(t, 4)
			edit(w, func(rp *kapacity.ReplicaProfile) { rp.Spec.OnlineReplicas, rp.Spec.CutoffReplicas = 2, 2 })
			w.Settle()
			if len(held(w)) != 2 {
				t.Fatal(w.States())
			}
			w.Simulate(func() {
				c.before(w, rc)
				w.Must(w.Client.Delete(w.Context(), w.Profile()))
			})
			w.Settle()
			if w.Profile() != nil || w.Endpoints() != c.online {
				t.Errorf("profile %v, %s", w.Profile(), w.States())
			}
		})
	}
}

// A profile must be able to go when its workload's kind cannot be read, but not while pods are held.
func TestAKindThatCannotBeReadKeepsAProfileOnlyWhilePodsAreHeld(t *testing.T) {
	for _, cut := range []int32{0, 1} {
		w, _ := rollout(t, 3)
		edit(w, func(rp *kapacity.ReplicaProfile) { rp.Spec.OnlineReplicas, rp.Spec.CutoffReplicas = 3-cut, cut })
		w.Settle()
		w.Simulate(func() { w.Must(w.Client.Delete(w.Context(), w.Profile())) })
		blind := interceptor.NewClient(w.Client, interceptor.Funcs{SubResourceGet: func(context.Context, client.Client, string, client.Object, client.Object, ...client.SubResourceGetOption) error {
			return apierrors.NewForbidden(schema.GroupResource{Resource: "replicationcontrollers/scale"}, enginetest.Name, errors.New("no right"))
		}})
		r := &Reconciler{Client: blind, Clock: w.Clock, Recorder: w.Events.Recorder("c")}
		_, err := r.Reconcile(w.Context(), enginetest.Request)
		if kept := w.Profile() != nil; kept != (cut > 0) || kept != (err != nil) {
			t.Errorf("%d cut: kept %v, %v", cut, kept, err)
		}
	}
}

func TestPodsBelowUnknownKindsWakeTheProfilesOfSuch(t *testing.T) {
	w, rc := rollout(t, 1)
	plain := profile("Deployment", 1, 0)
	plain.Name = "plain"
	w.Simulate(func() { w.Must(w.Client.Create(w.Context(), plain)) })
	r := &Reconciler{Client: w.Client}
	owned := func(apiVersion, kind, name string) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: enginetest.Namespace, Name: "p",
			OwnerReferences: []metav1.OwnerReference{{APIVersion: apiVersion, Kind: kind, Name: name, Controller: ptr.To(true)}}}}
	}
	mine := []reconcile.Request{enginetest.Request}
	for name, c := range map[string]struct {
		pod  *corev1.Pod
		want []reconcile.Request
	}{
		"its own":                            {owned("v1", "ReplicationController", rc.Name), mine},
		"through its ReplicaSet":             {&w.Pods()[0], mine},
		"through something unknown, perhaps": {owned("apps.kruise.io/v1alpha1", "CloneSet", "subset"), mine},
		"of a Job":                           {owned("batch/v1", "Job", "j"), nil},
		"of nobody":                          {&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: enginetest.Namespace}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, r.profilesOfPod(w.Context(), c.pod)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// Case M, row 17 and row 18 at the pods: 10 to 4, half of the way each 30 seconds, Standby.
func TestStandbyPodsAreLabeledCountedAndWokenBeforeNewOnesAreMade(t *testing.T) {
	w := world(t, enginetest.StatefulSet(10, appsv1.ParallelPodManagement), profile("StatefulSet", 10, 0))
	w.Settle()
	w.Events.Take()
	set := func(online, cutoff, standby int32, events ...string) {
		t.Helper()
		edit(w, func(rp *kapacity.ReplicaProfile) {
			rp.Spec.OnlineReplicas, rp.Spec.CutoffReplicas, rp.Spec.StandbyReplicas = online, cutoff, standby
		})
		w.Settle()
		for i := range events {
			events[i] = "replica_profile_controller Normal " + events[i]
		}
		if diff := cmp.Diff(events, w.Events.Take()); diff != "" {
			t.Errorf("%d/%d/%d: events (-want +got):\n%s", online, cutoff, standby, diff)
		}
		if s := w.Profile().Status; s.OnlineReplicas != online || s.CutoffReplicas != cutoff || s.StandbyReplicas != standby || w.Endpoints() != int(online) {
			t.Errorf("%d/%d/%d: %+v, %s", online, cutoff, standby, s, w.States())
		}
		if got := conditionOf(w, kapacity.ConditionApplied); !strings.HasPrefix(got, "True") {
			t.Error(got)
		}
	}
	set(7, 0, 3, "StandbyPods standby pods: [nginx-9 nginx-8 nginx-7]")
	set(4, 0, 6, "StandbyPods standby pods: [nginx-6 nginx-5 nginx-4]")
	set(4, 0, 0, "UpdateScale rescale target workload from 10 to 4 replicas")

	set(2, 1, 1, "CutoffPods cutoff pods: [nginx-2]", "StandbyPods standby pods: [nginx-3]")
	uids := map[string]string{}
	for _, p := range w.Pods() {
		uids[p.Name] = string(p.UID)
	}
	set(3, 0, 1, "OnlinePods online pods: [nginx-2]")
	set(5, 0, 0, "OnlinePods online pods: [nginx-3]", "UpdateScale rescale target workload from 4 to 5 replicas")
	for _, p := range w.Pods() {
		if _, labeled := p.Labels[kapacity.PodStateLabel]; labeled || uids[p.Name] != "" && uids[p.Name] != string(p.UID) {
			t.Errorf("pod %s: labels %v, was %s, is %s", p.Name, p.Labels, uids[p.Name], p.UID)
		}
	}
	set(3, 2, 0, "CutoffPods cutoff pods: [nginx-4 nginx-3]")
	set(3, 0, 2, "StandbyPods standby pods: [nginx-4 nginx-3]") // row 19
}
