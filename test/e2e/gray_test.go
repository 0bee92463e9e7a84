package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
)

// state is what can be seen of a workload in a gray run.
type state struct{ online, cutoff, endpoints int }

// stateOf reads a workload's state; a pod that is Cutoff counts as cut only when it is not Ready.
func stateOf(t *testing.T, ns, app string) state {
	t.Helper()
	s := state{endpoints: len(endpoints(t, ns, app))}
	for _, p := range pods(t, ns, app) {
		switch {
		case p.Labels[kapacity.PodStateLabel] != string(kapacity.PodStateCutoff):
			s.online++
		case !isReady(&p):
			s.cutoff++
		}
	}
	return s
}

// reach waits for the state and returns when it was first seen.
func reach(t *testing.T, ns, app string, want state, within time.Duration) time.Time {
	t.Helper()
	eventually(t, within, func() error {
		if got := stateOf(t, ns, app); got != want {
			return fmt.Errorf("%s is at %+v, want %+v", app, got, want)
		}
		return nil
	})
	return time.Now()
}

func uids(pods []corev1.Pod) []types.UID {
	out := make([]types.UID, 0, len(pods))
	for _, p := range pods {
		out = append(out, p.UID)
	}
	slices.Sort(out)
	return out
}

// near fails the test if got is not within [want, want+late].
func near(t *testing.T, what string, got, want time.Time, late time.Duration) {
	t.Helper()
	t.Logf("%s: %v after its instant", what, got.Sub(want).Round(10*time.Millisecond))
	if got.Before(want.Add(-50*time.Millisecond)) || got.After(want.Add(late)) {
		t.Errorf("%s happened %v after its instant, want at most %v and not before", what, got.Sub(want), late)
	}
}

// replicasAt returns when /scale of the workload first asks for want, by a watch.
func replicasAt(t *testing.T, ns, kind, name string, want int32) <-chan time.Time {
	t.Helper()
	list := &unstructured.UnstructuredList{}
	list.SetAPIVersion("apps/v1")
	list.SetKind(kind + "List")
	w, err := api.Watch(t.Context(), list, client.InNamespace(ns))
	must(t, err)
	t.Cleanup(w.Stop)
	seen := make(chan time.Time, 1)
	go func() {
		for e := range w.ResultChan() {
			u, ok := e.Object.(*unstructured.Unstructured)
			if !ok || u.GetName() != name {
				continue
			}
			if n, _, _ := unstructured.NestedInt64(u.Object, "spec", "replicas"); n == int64(want) {
				seen <- time.Now()
				return
			}
		}
	}()
	return seen
}

// The documented run: 5 pods in a cron window, 1 outside it; down by Cutoff, 50 % every 30 s, observed for 60 s. Its instants are
// held to seconds, so the three run beside each other and beside nothing else.
func TestTheDocumentedGrayRun(t *testing.T) {
	for kind, extra := range map[string]string{
		"StatefulSet": "serviceName: nginx\n  podManagementPolicy: Parallel",
		"Deployment":  "",
		"ReplicaSet":  "",
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			ns := newNamespace(t)
			workload(t, ns, kind, "nginx", 1, extra)
			// The window opens at a full minute that leaves time to create the IHPA, and closes a minute later.
			opens := time.Now().Add(5 * time.Second).Truncate(time.Minute).Add(time.Minute)
			closes := opens.Add(time.Minute)
			grown := replicasAt(t, ns, kind, "nginx", 5)
			create(t, ns, `
apiVersion: autoscaling.kapacitystack.io/v1alpha1
kind: IntelligentHorizontalPodAutoscaler
metadata: {name: nginx}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: %s, name: nginx}
  minReplicas: 1
  maxReplicas: 10
  portraitProviders:
  - {type: Static, priority: 1, static: {replicas: 1}}
  - type: Cron
    priority: 2
    cron: {crons: [{name: window, timeZone: UTC, start: "%d * * * *", end: "%d * * * *", replicas: 5}]}
  behavior:
    scaleDown:
      grayStrategy: {grayState: Cutoff, changePercent: 50, changeIntervalSeconds: 30, observationSeconds: 60}
`, kind, opens.UTC().Minute(), closes.UTC().Minute())

			near(t, "/scale at the cron boundary", arrival(t, grown, opens), opens, 3*time.Second)
			reach(t, ns, "nginx", state{online: 5, endpoints: 5}, 40*time.Second)
			all := pods(t, ns, "nginx")

			reach(t, ns, "nginx", state{online: 3, cutoff: 2, endpoints: 3}, time.Until(closes)+20*time.Second)
			first := stepAt(t, ns, 1, closes)
			if kind == "StatefulSet" {
				if got := podNames(cutPods(t, ns, "nginx")); !slices.Equal(got, []string{"nginx-3", "nginx-4"}) {
					t.Errorf("cut pods are %v, want the highest ordinals", got)
				}
			}
			reach(t, ns, "nginx", state{online: 1, cutoff: 4, endpoints: 1}, 45*time.Second)
			second := stepAt(t, ns, 2, first.Add(30*time.Second)) // an interval is one between steps
			cut := cutPods(t, ns, "nginx")
			if got := replicas(t, ns, kind, "nginx"); got != 5 {
				t.Errorf("/scale is %d while cut pods are held, want 5", got)
			}
			end := reach(t, ns, "nginx", state{online: 1, endpoints: 1}, 80*time.Second)
			if observed := second.Add(60 * time.Second); end.Before(observed) {
				t.Errorf("cut pods were deleted %v before the end of their observation", observed.Sub(end))
			}

			left := pods(t, ns, "nginx")
			var deleted []types.UID
			for _, p := range all {
				if !slices.Contains(uids(left), p.UID) {
					deleted = append(deleted, p.UID)
				}
			}
			slices.Sort(deleted)
			if want := uids(cut); !slices.Equal(deleted, want) {
				t.Errorf("deleted pods %v are not the cut pods %v", deleted, want)
			}
			eventually(t, 5*time.Second, wantReplicas(t, ns, kind, "nginx", 1))

			want := []string{
				"CreateReplicaProfile: create ReplicaProfile with onlineReplcas: 1, cutoffReplicas: 0, standbyReplicas: 0",
				"UpdateReplicaProfile: update ReplicaProfile with onlineReplcas: 1 -> 5, cutoffReplicas: 0 -> 0, standbyReplicas: 0 -> 0",
				"UpdateReplicaProfile: update ReplicaProfile with onlineReplcas: 5 -> 3, cutoffReplicas: 0 -> 2, standbyReplicas: 0 -> 0",
				"UpdateReplicaProfile: update ReplicaProfile with onlineReplcas: 3 -> 1, cutoffReplicas: 2 -> 4, standbyReplicas: 0 -> 0",
				"UpdateReplicaProfile: update ReplicaProfile with onlineReplcas: 1 -> 1, cutoffReplicas: 4 -> 0, standbyReplicas: 0 -> 0",
			}
			// Events are written beside the work, not before it goes on.
			eventually(t, 5*time.Second, func() error {
				var texts []string
				for _, e := range events(t, ns, "IntelligentHorizontalPodAutoscaler", "nginx", "ihpa_controller") {
					if e.Type == corev1.EventTypeNormal && strings.HasSuffix(e.Reason, "ReplicaProfile") {
						texts = append(texts, e.Reason+": "+e.Message)
					}
				}
				if !slices.Equal(texts, want) {
					return fmt.Errorf("events of the IHPA:\n%s\nwant:\n%s", strings.Join(texts, "\n"), strings.Join(want, "\n"))
				}
				return nil
			})
			eventually(t, 5*time.Second, wantEvent(t, ns, "ReplicaProfile", "nginx", "UpdateScale", "rescale target workload from 5 to 1 replicas"))
			eventually(t, 5*time.Second, wantEvent(t, ns, "ReplicaProfile", "nginx", "CutoffPods", "cutoff pods: "))
		})
	}
}

// arrival is when /scale was written, which must be soon after the instant.
func arrival(t *testing.T, written <-chan time.Time, instant time.Time) time.Time {
	t.Helper()
	select {
	case at := <-written:
		return at
	case <-time.After(time.Until(instant) + 10*time.Second):
		t.Fatalf("/scale was not written within 10 s of %s", instant.Format(time.TimeOnly))
		return time.Time{}
	}
}

// stepAt checks the run's own record of a step, and returns when that says it was: taken, and applied to the pods, just after its instant.
func stepAt(t *testing.T, ns string, step int32, instant time.Time) time.Time {
	t.Helper()
	var at time.Time
	eventually(t, 5*time.Second, func() error {
		gray := getIHPA(t, ns, "nginx").Status.Gray
		if gray == nil || gray.Steps != step || gray.LastStepTime == nil || gray.PendingSince != nil {
			return fmt.Errorf("status.gray is %+v, want step %d applied", gray, step)
		}
		at = gray.LastStepTime.Time
		return nil
	})
	near(t, fmt.Sprintf("step %d", step), at, instant, 2*time.Second)
	return at
}

// A cron boundary moves /scale within a second. Measured, so it runs alone.
func TestACronBoundaryMovesScaleWithinASecond(t *testing.T) {
	ns := newNamespace(t)
	workload(t, ns, "Deployment", "shop", 1, "")
	opens := time.Now().Add(5 * time.Second).Truncate(time.Minute).Add(time.Minute)
	grown := replicasAt(t, ns, "Deployment", "shop", 4)
	create(t, ns, `
apiVersion: autoscaling.kapacitystack.io/v1alpha1
kind: IntelligentHorizontalPodAutoscaler
metadata: {name: shop}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: shop}
  minReplicas: 1
  maxReplicas: 10
  portraitProviders:
  - {type: Static, priority: 1, static: {replicas: 1}}
  - {type: Cron, priority: 2, cron: {crons: [{name: window, start: "%d * * * *", end: "%d * * * *", replicas: 4}]}}
`, opens.UTC().Minute(), opens.Add(time.Minute).UTC().Minute())
	near(t, "/scale at the cron boundary", arrival(t, grown, opens), opens, time.Second)
}

func podNames(pods []corev1.Pod) []string {
	var out []string
	for _, p := range pods {
		out = append(out, p.Name)
	}
	return out
}

// A target that comes back mid-run turns the cut pods on again, at once and the same ones.
func TestARollbackMidRunWakesTheCutPods(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	workload(t, ns, "Deployment", "shop", 6, "")
	before := uids(pods(t, ns, "shop"))
	staticIHPA(t, ns, "Deployment", "shop", 6, "grayState: Cutoff, changePercent: 50, changeIntervalSeconds: 60, observationSeconds: 60")
	eventually(t, 10*time.Second, conditionIs(t, ns, "shop", kapacity.ConditionScalingActive, metav1.ConditionTrue))
	setStatic(t, ns, "shop", 2)
	reach(t, ns, "shop", state{online: 4, cutoff: 2, endpoints: 4}, 10*time.Second)
	began := time.Now()
	setStatic(t, ns, "shop", 6)
	at := reach(t, ns, "shop", state{online: 6, endpoints: 6}, 10*time.Second)
	t.Logf("cut pods served again %v after the target came back", at.Sub(began).Round(10*time.Millisecond))
	if after := uids(pods(t, ns, "shop")); !slices.Equal(before, after) {
		t.Errorf("pods were replaced: before %v, after %v", before, after)
	}
}

// Cut pods are restored when the IHPA is deleted, set to Preview, or pointed at another target.
func TestCutPodsAreRestored(t *testing.T) {
	t.Parallel()
	for name, letGo := range map[string]func(t *testing.T, ns string){
		"when the IHPA is deleted": func(t *testing.T, ns string) {
			must(t, api.Delete(t.Context(), getIHPA(t, ns, "shop")))
		},
		"in preview": func(t *testing.T, ns string) {
			patchIHPA(t, ns, "shop", `{"spec":{"scaleMode":"Preview"}}`)
		},
		"when the target changes": func(t *testing.T, ns string) {
			workload(t, ns, "Deployment", "other", 2, "")
			patchIHPA(t, ns, "shop", `{"spec":{"scaleTargetRef":{"name":"other"}}}`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ns := newNamespace(t)
			workload(t, ns, "Deployment", "shop", 4, "")
			staticIHPA(t, ns, "Deployment", "shop", 4, "grayState: Cutoff, changePercent: 50, changeIntervalSeconds: 60, observationSeconds: 60")
			eventually(t, 10*time.Second, conditionIs(t, ns, "shop", kapacity.ConditionScalingActive, metav1.ConditionTrue))
			setStatic(t, ns, "shop", 2)
			reach(t, ns, "shop", state{online: 3, cutoff: 1, endpoints: 3}, 10*time.Second)
			letGo(t, ns)
			reach(t, ns, "shop", state{online: 4, endpoints: 4}, 15*time.Second)
			if got := replicas(t, ns, "Deployment", "shop"); got != 4 {
				t.Errorf("letting go scaled the target to %d", got)
			}
			eventually(t, 10*time.Second, func() error {
				for _, p := range pods(t, ns, "shop") {
					if cost, ok := p.Annotations[corev1.PodDeletionCost]; ok {
						return fmt.Errorf("pod %s keeps the deletion cost %s", p.Name, cost)
					}
				}
				return nil
			})
		})
	}
}

// An OrderedReady StatefulSet does not delete below a pod that is not ready; Kubetide deletes the condemned pods itself.
func TestAnOrderedReadyStatefulSetShrinks(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	workload(t, ns, "StatefulSet", "db", 4, "serviceName: db\n  podManagementPolicy: OrderedReady")
	staticIHPA(t, ns, "StatefulSet", "db", 4, "grayState: Cutoff, changePercent: 100, changeIntervalSeconds: 1, observationSeconds: 2")
	eventually(t, 10*time.Second, conditionIs(t, ns, "db", kapacity.ConditionScalingActive, metav1.ConditionTrue))
	setStatic(t, ns, "db", 1)
	reach(t, ns, "db", state{online: 1, cutoff: 3, endpoints: 1}, 10*time.Second)
	reach(t, ns, "db", state{online: 1, endpoints: 1}, 30*time.Second)
	eventually(t, 10*time.Second, wantReplicas(t, ns, "StatefulSet", "db", 1))
	if got := podNames(pods(t, ns, "db")); !slices.Equal(got, []string{"db-0"}) {
		t.Errorf("pods left: %v, want db-0", got)
	}
}

// kill -9 in the middle of a run: the next step comes at its second, no pod changes its state in between, and the restart
// scales nothing.
func TestAKilledControllerContinuesTheRun(t *testing.T) {
	ns := newNamespace(t)
	workload(t, ns, "Deployment", "shop", 10, "")
	staticIHPA(t, ns, "Deployment", "shop", 10, "grayState: Cutoff, changePercent: 50, changeIntervalSeconds: 30, observationSeconds: 10")
	eventually(t, 10*time.Second, conditionIs(t, ns, "shop", kapacity.ConditionScalingActive, metav1.ConditionTrue))
	setStatic(t, ns, "shop", 2)
	reach(t, ns, "shop", state{online: 6, cutoff: 4, endpoints: 6}, 10*time.Second)
	var first time.Time // written once the step's profile is seen applied, which is after its pods are
	eventually(t, 10*time.Second, func() error {
		g := getIHPA(t, ns, "shop").Status.Gray
		if g == nil || g.LastStepTime == nil {
			return fmt.Errorf("status.gray is %+v: no step is applied yet", g)
		}
		first = g.LastStepTime.Time
		return nil
	})
	held := uids(cutPods(t, ns, "shop"))

	w, err := api.Watch(t.Context(), &corev1.PodList{}, client.InNamespace(ns))
	must(t, err)
	defer w.Stop()
	killKubetide(t)
	killed := time.Now()
	waitForKubetide(t)
	t.Logf("Kubetide was ready again %v after kill -9", time.Since(killed).Round(100*time.Millisecond))

	second := reach(t, ns, "shop", state{online: 2, cutoff: 8, endpoints: 2}, 40*time.Second)
	near(t, "second step", second, first.Add(30*time.Second), 2*time.Second)
	w.Stop()
	for e := range w.ResultChan() {
		p, ok := e.Object.(*corev1.Pod)
		if !ok {
			continue
		}
		isCut := p.Labels[kapacity.PodStateLabel] == string(kapacity.PodStateCutoff)
		if slices.Contains(held, p.UID) && (!isCut || isReady(p)) {
			t.Errorf("pod %s, cut before the kill, was seen with labels %v, ready %v", p.Name, p.Labels, isReady(p))
		}
		if e.Type == "DELETED" {
			t.Errorf("pod %s was deleted before the run ended", p.Name)
		}
	}
	reach(t, ns, "shop", state{online: 2, endpoints: 2}, 30*time.Second)
}

// staticIHPA is an IHPA with one static portrait and a gray strategy downwards.
func staticIHPA(t *testing.T, ns, kind, name string, replicas int, gray string) {
	t.Helper()
	create(t, ns, `
apiVersion: autoscaling.kapacitystack.io/v1alpha1
kind: IntelligentHorizontalPodAutoscaler
metadata: {name: %[2]s}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: %[1]s, name: %[2]s}
  minReplicas: 0
  maxReplicas: 20
  portraitProviders: [{type: Static, priority: 1, static: {replicas: %[3]d}}]
  behavior: {scaleDown: {grayStrategy: {%[4]s}}}
`, kind, name, replicas, gray)
}

func setStatic(t *testing.T, ns, name string, replicas int) {
	t.Helper()
	patchIHPA(t, ns, name, fmt.Sprintf(`{"spec":{"portraitProviders":[{"type":"Static","priority":1,"static":{"replicas":%d}}]}}`, replicas))
}

func patchIHPA(t *testing.T, ns, name, patch string) {
	t.Helper()
	ihpa := &kapacity.IntelligentHorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}}
	must(t, api.Patch(t.Context(), ihpa, client.RawPatch(types.MergePatchType, []byte(patch))))
}

func getIHPA(t *testing.T, ns, name string) *kapacity.IntelligentHorizontalPodAutoscaler {
	t.Helper()
	var ihpa kapacity.IntelligentHorizontalPodAutoscaler
	must(t, api.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: name}, &ihpa))
	return &ihpa
}

func conditionIs(t *testing.T, ns, name, kind string, want metav1.ConditionStatus) func() error {
	return func() error {
		ihpa := getIHPA(t, ns, name)
		if c := apimeta.FindStatusCondition(ihpa.Status.Conditions, kind); c == nil || c.Status != want {
			return fmt.Errorf("ihpa %s has %s %+v, want %s", name, kind, c, want)
		}
		return nil
	}
}
