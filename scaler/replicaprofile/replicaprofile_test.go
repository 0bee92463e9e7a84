package replicaprofile

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/event"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	"github.com/kubetide/kubetide/scaler/enginetest"
)

func world(t *testing.T, objects ...client.Object) *enginetest.World {
	t.Helper()
	w := enginetest.New(t, []enginetest.Index{{Kind: &kapacity.ReplicaProfile{}, Name: TargetIndex, Of: IndexTarget}}, objects...)
	w.Run(&Reconciler{Client: w.Client, Clock: w.Clock, Live: w.Client, Recorder: w.Events.Recorder(kapacity.ReplicaProfileEventComponent)})
	return w
}

func profile(kind string, online, cutoff int32) *kapacity.ReplicaProfile {
	return &kapacity.ReplicaProfile{ObjectMeta: metav1.ObjectMeta{Namespace: enginetest.Namespace, Name: enginetest.Name},
		Spec: kapacity.ReplicaProfileSpec{OnlineReplicas: online, CutoffReplicas: cutoff, AllowedScalingDirection: kapacity.ScalingDirectionBoth,
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: kind, Name: enginetest.Name}}}
}

func edit(w *enginetest.World, change func(*kapacity.ReplicaProfile)) {
	w.T.Helper()
	rp := w.Profile()
	change(rp)
	w.Simulate(func() { w.Must(w.Client.Update(w.Context(), rp)) })
}

func conditionOf(w *enginetest.World, kind string) string {
	c := meta.FindStatusCondition(w.Profile().Status.Conditions, kind)
	if c == nil {
		return "none"
	}
	if c.ObservedGeneration != w.Profile().Generation {
		w.T.Errorf("condition %s is about generation %d, not %d", kind, c.ObservedGeneration, w.Profile().Generation)
	}
	return string(c.Status) + " " + c.Reason + " " + c.Message
}

func TestConditions(t *testing.T) {
	const applied, ensured = "True ReplicaProfileApplied " + kapacity.MessageReplicaProfileApplied, "True ReplicaProfileEnsured " + kapacity.MessageReplicaProfileEnsured
	for name, c := range map[string]struct {
		objects          []client.Object
		change           func(*kapacity.ReplicaProfile)
		pending          bool
		applied, ensured string // prefixes
		warning          string
	}{
		"all is well": {objects: []client.Object{enginetest.Deployment(3)}, applied: applied, ensured: ensured},
		"paused": {objects: []client.Object{enginetest.Deployment(1)}, change: func(rp *kapacity.ReplicaProfile) { rp.Spec.Paused = true },
			applied: "False ReplicaProfilePaused " + kapacity.MessageReplicaProfilePaused, ensured: "False ReplicaProfilePaused " + kapacity.MessageReplicaProfilePaused},
		"pods are not there yet": {objects: []client.Object{enginetest.Deployment(1)}, pending: true,
			applied: applied, ensured: "False ReplicaNumberNotSatisfied " + kapacity.MessageReplicaNumberNotSatisfied},
		"no workload": {applied: "False FailedGetWorkload Deployment shop/nginx: ", ensured: "False FailedGetWorkload", warning: "FailedGetWorkload"},
		"pods to cut are not there yet": {objects: []client.Object{enginetest.Deployment(1)}, pending: true,
			change:  func(rp *kapacity.ReplicaProfile) { rp.Spec.OnlineReplicas, rp.Spec.CutoffReplicas = 1, 2 },
			applied: "", ensured: "False ReplicaNumberNotSatisfied"},
		"an external sorter": {objects: []client.Object{enginetest.Deployment(3)},
			change: func(rp *kapacity.ReplicaProfile) {
				rp.Spec.CutoffReplicas, rp.Spec.OnlineReplicas, rp.Spec.Behavior.PodSorter.Type = 1, 2, kapacity.ExternalPodSorter
			},
			applied: "False PodSorterNotSupportedByWorkload podSorter of type External", ensured: "False ReplicaNumberNotSatisfied", warning: "PodSorterNotSupportedByWorkload"},
		"an external traffic controller": {objects: []client.Object{enginetest.Deployment(3)},
			change: func(rp *kapacity.ReplicaProfile) {
				rp.Spec.CutoffReplicas, rp.Spec.OnlineReplicas, rp.Spec.Behavior.PodTrafficController.Type = 1, 2, kapacity.ExternalPodTrafficController
			},
			applied: "False FailedGetPodTrafficController", ensured: "False ReplicaNumberNotSatisfied", warning: "FailedGetPodTrafficController"},
		"an external sorter does not matter where nothing is held": {objects: []client.Object{enginetest.Deployment(1)},
			change: func(rp *kapacity.ReplicaProfile) { rp.Spec.Behavior.PodSorter.Type = kapacity.ExternalPodSorter }, applied: applied, ensured: ensured},
		"a broken selector": {objects: []client.Object{&appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: enginetest.Namespace, Name: enginetest.Name},
			Spec: appsv1.ReplicaSetSpec{Selector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Near"}}}}}},
			change:  func(rp *kapacity.ReplicaProfile) { rp.Spec.ScaleTargetRef.Kind = "ReplicaSet" },
			applied: "False InvalidSelector", ensured: "False InvalidSelector", warning: "InvalidSelector"},
	} {
		t.Run(name, func(t *testing.T) {
			rp := profile("Deployment", 3, 0)
			if c.change != nil {
				c.change(rp)
			}
			w := world(t, append(c.objects, rp)...)
			w.Pending = c.pending
			w.Fail = func(string) error { return nil } // errors of Reconcile are expected
			w.Settle()
			w.Settle()
			if got := conditionOf(w, kapacity.ConditionApplied); !strings.HasPrefix(got, c.applied) {
				t.Errorf("Applied: %s, want %s", got, c.applied)
			}
			if got := conditionOf(w, kapacity.ConditionEnsured); !strings.HasPrefix(got, c.ensured) {
				t.Errorf("Ensured: %s, want %s", got, c.ensured)
			}
			var warnings []string
			for _, e := range w.Events.Take() {
				if kind, rest, ok := strings.Cut(e, " Warning "); ok {
					warnings = append(warnings, kind+" "+strings.Fields(rest)[0])
				}
			}
			var want []string
			if c.warning != "" {
				want = []string{"replica_profile_controller " + c.warning}
			}
			if diff := cmp.Diff(want, warnings); diff != "" {
				t.Errorf("each Warning once (-want +got):\n%s", diff)
			}
		})
	}
}

// B23: also where there is nothing left to do the conditions are about the newest spec.
func TestB23ConditionsAreRefreshedWhereNothingIsLeftToDo(t *testing.T) {
	w := world(t, enginetest.Deployment(3), profile("Deployment", 3, 0))
	w.Settle()
	first := w.Profile().Status
	w.Clock.Step(time.Minute)
	edit(w, func(rp *kapacity.ReplicaProfile) { rp.Spec.AllowedScalingDirection = kapacity.ScalingDirectionUp })
	w.Settle()
	conditionOf(w, kapacity.ConditionApplied)
	conditionOf(w, kapacity.ConditionEnsured)
	s := w.Profile().Status
	if s.AppliedGeneration != 2 || !s.AppliedTime.Time.Equal(first.AppliedTime.Add(time.Minute)) || s.ObservedGeneration != 2 {
		t.Errorf("%+v", s)
	}
}

func TestAFailureToCutOnePodIsToldAndTriedAgain(t *testing.T) {
	w := world(t, enginetest.StatefulSet(4, appsv1.ParallelPodManagement), profile("StatefulSet", 4, 0))
	w.Settle()
	w.Events.Take()
	w.Fail = func(what string) error {
		if what == "patch Pod/status nginx-2" {
			return errors.New("forbidden")
		}
		return nil
	}
	edit(w, func(rp *kapacity.ReplicaProfile) { rp.Spec.OnlineReplicas, rp.Spec.CutoffReplicas = 1, 3 })
	for range 3 {
		w.Settle()
	}
	want := []string{"replica_profile_controller Normal CutoffPods cutoff pods: [nginx-3 nginx-1]",
		"replica_profile_controller Warning FailedCutoffPods cut off pods: shop/nginx-2: forbidden"}
	if diff := cmp.Diff(want, w.Events.Take()); diff != "" {
		t.Error(diff)
	}
	if got := conditionOf(w, kapacity.ConditionApplied); got != "False FailedCutoffPods cut off pods: shop/nginx-2: forbidden" {
		t.Error(got)
	}
	w.Fail = nil
	w.Settle()
	if got := conditionOf(w, kapacity.ConditionApplied); !strings.HasPrefix(got, "True") || w.Endpoints() != 1 {
		t.Errorf("%s, %s", got, w.States())
	}
}

// The observation begins when no cut pod is ready; the status tells how many still are.
func TestReadyHeldPodsAreCounted(t *testing.T) {
	w := world(t, enginetest.StatefulSet(4, appsv1.ParallelPodManagement), profile("StatefulSet", 4, 0))
	w.Settle()
	w.Stuck = true
	edit(w, func(rp *kapacity.ReplicaProfile) { rp.Spec.OnlineReplicas, rp.Spec.CutoffReplicas = 2, 2 })
	w.Settle()
	if s := w.Profile().Status; s.ReadyHeldReplicas != 2 || s.CutoffReplicas != 2 || s.OnlineReplicas != 2 || s.Replicas != 4 {
		t.Errorf("%+v", s)
	}
	w.Stuck = false
	w.Settle()
	if s := w.Profile().Status; s.ReadyHeldReplicas != 0 {
		t.Errorf("%+v", s)
	}
}

func TestOrderedPodsAreDeletedByHandHighestFirst(t *testing.T) {
	w := world(t, enginetest.StatefulSet(4, appsv1.OrderedReadyPodManagement), profile("StatefulSet", 4, 0))
	w.Settle()
	edit(w, func(rp *kapacity.ReplicaProfile) { rp.Spec.OnlineReplicas, rp.Spec.CutoffReplicas = 1, 3 })
	w.Settle()
	w.Events.Take()
	edit(w, func(rp *kapacity.ReplicaProfile) { rp.Spec.CutoffReplicas = 0 })
	w.Settle()
	if got := w.States(); got != "nginx-0 Online ready" {
		t.Error(got)
	}
	events := w.Events.Take()
	if len(events) < 2 || events[0] != "replica_profile_controller Normal UpdateScale rescale target workload from 4 to 1 replicas" ||
		events[1] != "replica_profile_controller Normal SelectPodsToDelete select pods to delete: [nginx-3]" {
		t.Errorf("events %q", events)
	}
}

func TestADeletionCostThatIsNotOursStays(t *testing.T) {
	w := world(t, enginetest.Deployment(3), profile("Deployment", 3, 0))
	w.Settle()
	w.Simulate(func() {
		for _, p := range w.Pods() {
			p.Annotations = map[string]string{corev1.PodDeletionCost: "7"}
			w.Must(w.Client.Update(w.Context(), &p))
		}
	})
	edit(w, func(rp *kapacity.ReplicaProfile) { rp.Spec.OnlineReplicas, rp.Spec.CutoffReplicas = 1, 2 })
	w.Settle()
	edit(w, func(rp *kapacity.ReplicaProfile) { rp.Spec.OnlineReplicas, rp.Spec.CutoffReplicas = 3, 0 })
	w.Settle()
	for _, p := range w.Pods() {
		if got := p.Annotations[corev1.PodDeletionCost]; got != "7" {
			t.Errorf("pod %s: cost %q", p.Name, got)
		}
	}
}

func TestReleaseIsTriedUntilAllPodsAreOnline(t *testing.T) {
	w := world(t, enginetest.Deployment(4), profile("Deployment", 4, 0))
	w.Settle()
	edit(w, func(rp *kapacity.ReplicaProfile) { rp.Spec.OnlineReplicas, rp.Spec.CutoffReplicas = 2, 2 })
	w.Settle()
	w.Simulate(func() { w.Must(w.Client.Delete(w.Context(), w.Profile())) })
	w.Fail = func(what string) error {
		if strings.HasPrefix(what, "patch Pod/status") {
			return errors.New("forbidden")
		}
		return nil
	}
	w.Settle()
	if w.Profile() == nil {
		t.Fatal("the profile must stay while its pods are cut")
	}
	w.Fail = nil
	w.Settle()
	if w.Profile() != nil || w.Endpoints() != 4 {
		t.Errorf("profile %v, %s", w.Profile(), w.States())
	}
}

func TestOnlyWhatMattersOfAPodWakes(t *testing.T) {
	base := func() *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"a": "b"}}, Spec: corev1.PodSpec{NodeName: "n"},
			Status: corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}}}
	}
	for name, c := range map[string]struct {
		change func(*corev1.Pod)
		want   bool
	}{
		"a heartbeat":       {func(p *corev1.Pod) { p.Status.Conditions[0].LastProbeTime = metav1.Now() }, false},
		"an address":        {func(p *corev1.Pod) { p.Status.PodIP = "10.0.0.1" }, false},
		"some annotation":   {func(p *corev1.Pod) { p.Annotations = map[string]string{"x": "y"} }, false},
		"readiness":         {func(p *corev1.Pod) { p.Status.Conditions[0].Status = corev1.ConditionFalse }, true},
		"the phase":         {func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }, true},
		"the state label":   {func(p *corev1.Pod) { p.Labels[kapacity.PodStateLabel] = "Cutoff" }, true},
		"deletion":          {func(p *corev1.Pod) { p.DeletionTimestamp = new(metav1.Now()) }, true},
		"the deletion cost": {func(p *corev1.Pod) { p.Annotations = map[string]string{corev1.PodDeletionCost: "1"} }, true},
		"the gate's condition": {func(p *corev1.Pod) {
			p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: kapacity.OnlineConditionType, Status: corev1.ConditionTrue})
		}, true},
		"an orphan's new owner": {func(p *corev1.Pod) { p.OwnerReferences = []metav1.OwnerReference{{UID: "x"}} }, true},
	} {
		t.Run(name, func(t *testing.T) {
			pod := base()
			c.change(pod)
			if got := podChanged(event.UpdateEvent{ObjectOld: base(), ObjectNew: pod}); got != c.want {
				t.Errorf("wakes: %v, want %v", got, c.want)
			}
		})
	}
}

// A scale-down may wait until the ReplicaSet has seen that the cut pods are unready.
func TestAReplicaSetThatSeesFewerReadyPodsWakes(t *testing.T) {
	counts := func(ready int32) *appsv1.ReplicaSet {
		return &appsv1.ReplicaSet{Status: appsv1.ReplicaSetStatus{Replicas: 5, ReadyReplicas: ready}}
	}
	for after, want := range map[int32]bool{2: true, 3: false, 4: false} {
		if got := workloadChanged(event.UpdateEvent{ObjectOld: counts(3), ObjectNew: counts(after)}); got != want {
			t.Errorf("from 3 ready pods to %d: wakes: %v, want %v", after, got, want)
		}
	}
}

func TestAPodLeadsToItsProfile(t *testing.T) {
	w := world(t, enginetest.Deployment(1), profile("Deployment", 1, 0))
	w.Settle()
	r := &Reconciler{Client: w.Client}
	pod := w.Pods()[0]
	if got := r.profilesOfPod(w.Context(), &pod); len(got) != 1 || got[0] != enginetest.Request {
		t.Errorf("%v", got)
	}
	rs := &appsv1.ReplicaSet{}
	w.Must(w.Client.Get(w.Context(), client.ObjectKey{Namespace: enginetest.Namespace, Name: enginetest.Name + "-a"}, rs))
	if got := r.profilesOfWorkload(w.Context(), rs); len(got) != 1 || got[0] != enginetest.Request {
		t.Errorf("%v", got)
	}
	pod.OwnerReferences = nil
	if got := r.profilesOfPod(w.Context(), &pod); len(got) != 0 {
		t.Errorf("%v", got)
	}
}

func TestAConflictIsNobodysBusiness(t *testing.T) {
	w := world(t, enginetest.Deployment(1), profile("Deployment", 3, 0))
	conflicts := 0
	w.Fail = func(what string) error {
		if what == "update Deployment/scale nginx" && conflicts < 7 {
			conflicts++
			return apierrors.NewConflict(schema.GroupResource{}, "nginx", errors.New("modified"))
		}
		return nil
	}
	for w.Endpoints() < 3 && w.Clock.Since(enginetest.Start) < time.Minute {
		w.Advance(time.Second)
	}
	want := []string{"replica_profile_controller Normal UpdateScale rescale target workload from 1 to 3 replicas"}
	if diff := cmp.Diff(want, w.Events.Take()); diff != "" || conflicts != 7 {
		t.Errorf("%d conflicts, %s", conflicts, diff)
	}
}

// A cache that has not seen our own write to /scale yet is neither somebody else's write nor a reason to write again.
func TestAnOldCacheIsNotAnotherWriter(t *testing.T) {
	w := world(t, enginetest.Deployment(5), profile("Deployment", 2, 0))
	w.Settle()
	old := interceptor.NewClient(w.Client, interceptor.Funcs{Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
		err := c.Get(ctx, key, o, opts...)
		if d, ok := o.(*appsv1.Deployment); ok && err == nil {
			d.Spec.Replicas = new(int32(5))
		}
		return err
	}})
	w.Writes = nil
	w.Events.Take()
	r := &Reconciler{Client: old, Clock: w.Clock, Live: w.Client, Recorder: w.Events.Recorder(kapacity.ReplicaProfileEventComponent)}
	if _, err := r.Reconcile(w.Context(), enginetest.Request); err != nil {
		t.Fatal(err)
	}
	if events := w.Events.Take(); len(w.Writes)+len(events) != 0 {
		t.Errorf("wrote %v, said %v", w.Writes, events)
	}
}

// Any kind with /scale is scaled; only what deletes the pods it is told to can have pods cut.
func TestAnyKindWithScaleIsScaledButNotCut(t *testing.T) {
	rc := &corev1.ReplicationController{ObjectMeta: metav1.ObjectMeta{Namespace: enginetest.Namespace, Name: enginetest.Name},
		Spec: corev1.ReplicationControllerSpec{Replicas: new(int32(1)), Selector: enginetest.Labels()}}
	rp := profile("ReplicationController", 3, 0)
	rp.Spec.ScaleTargetRef.APIVersion = "v1"
	w := world(t, rc, rp)
	w.Settle()
	replicas := func() int32 {
		w.Must(w.Client.Get(w.Context(), enginetest.Request.NamespacedName, rc))
		return *rc.Spec.Replicas
	}
	if got := replicas(); got != 3 {
		t.Errorf("%d replicas", got)
	}
	edit(w, func(rp *kapacity.ReplicaProfile) { rp.Spec.OnlineReplicas, rp.Spec.CutoffReplicas = 1, 1 })
	w.Settle()
	if got := conditionOf(w, kapacity.ConditionApplied); !strings.HasPrefix(got, "False FailedGetWorkload unknown workload with gvk /v1, Kind=ReplicationController") || replicas() != 3 {
		t.Errorf("%s, %d replicas", got, replicas())
	}
}

func TestAnotherWriterThatDoesNotGiveWayIsAnsweredAtAPace(t *testing.T) {
	w := world(t, enginetest.Deployment(5), profile("Deployment", 5, 0))
	w.Settle()
	w.Writes = nil
	w.Events.Take()
	var answers []float64
	start := w.Clock.Now()
	other := func() {
		d := &appsv1.Deployment{}
		w.Must(w.Client.Get(w.Context(), enginetest.Request.NamespacedName, d))
		if *d.Spec.Replicas == 8 {
			return
		}
		d.Spec.Replicas = new(int32(8))
		w.Simulate(func() { w.Must(w.Client.Update(w.Context(), d)) })
	}
	for range 8 * 60 {
		other()
		before := len(w.Writes)
		w.Settle()
		for _, what := range w.Writes[before:] {
			if what == "update Deployment/scale nginx" {
				answers = append(answers, w.Clock.Since(start).Seconds())
			}
		}
		w.Clock.Step(time.Second)
	}
	if diff := cmp.Diff([]float64{0, 1, 2, 4, 8, 16, 32, 64, 124, 184, 244, 304, 364, 424}, answers); diff != "" {
		t.Errorf("answered at (-want +got):\n%s", diff)
	}
	if events := w.Events.Take(); len(w.Writes) > 60 || len(events) > 20 {
		t.Errorf("in 8 minutes %d writes and %d events", len(w.Writes), len(events))
	}
	if got := conditionOf(w, kapacity.ConditionApplied); !strings.HasPrefix(got, "False StateChangeSkipped somebody else keeps writing the replicas of Deployment shop/nginx") {
		t.Error(got)
	}
	edit(w, func(rp *kapacity.ReplicaProfile) { rp.Spec.OnlineReplicas = 6 })
	w.Settle()
	if len(w.Pods()) != 6 {
		t.Errorf("a change of the profile waits: %s", w.States())
	}
}

func TestOfTwoProfilesForOneTargetTheOlderIsApplied(t *testing.T) {
	other := profile("Deployment", 5, 0)
	other.Name, other.CreationTimestamp, other.Finalizers = "a-backup", metav1.NewTime(enginetest.Start.Add(-time.Hour)), []string{kapacity.Finalizer}
	w := world(t, enginetest.Deployment(5), profile("Deployment", 1, 4), other)
	w.Settle()
	if got := conditionOf(w, kapacity.ConditionApplied); got != "False AnotherAutoscaler ReplicaProfile shop/a-backup has Deployment shop/nginx, too; this one waits until it is gone" {
		t.Error(got)
	}
	w.Simulate(func() { w.Must(w.Client.Delete(w.Context(), other)) })
	w.Settle()
	if w.Endpoints() != 5 {
		t.Errorf("the older one has not restored its pods yet, but %s", w.States())
	}
	w.Simulate(func() {
		w.Must(w.Client.Get(w.Context(), client.ObjectKeyFromObject(other), other))
		other.Finalizers = nil
		w.Must(w.Client.Update(w.Context(), other))
	})
	w.Settle()
	if w.Endpoints() != 1 {
		t.Errorf("the older one is gone, but %s", w.States())
	}
	r := &Reconciler{Client: w.Client}
	if got := r.profilesOfProfile(w.Context(), other); len(got) != 1 || got[0].Name != enginetest.Name {
		t.Errorf("its going wakes %v", got)
	}
}
