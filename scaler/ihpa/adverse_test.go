package ihpa

import (
	"errors"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	"github.com/kubetide/kubetide/scaler/enginetest"
)

// observed is a world in which 4 of 5 pods are cut and wait for the end of the observation, 30 seconds from now.
func observed(t *testing.T, kind string) *enginetest.World {
	t.Helper()
	w := world(t, workloads(5)[kind], enginetest.IHPAOf(map[string]string{"a Deployment": "Deployment", "a parallel StatefulSet": "StatefulSet"}[kind],
		enginetest.Cutoff(50, 30, 60), enginetest.Static(1, 5)))
	w.Advance(time.Minute)
	to(w, 1)
	w.Advance(time.Minute)
	if got := numbers(w); got != "1/4" {
		t.Fatal(got)
	}
	return w
}

func TestPodsThatGotTheirTrafficBackAreCutAndObservedAgain(t *testing.T) {
	for name, befalls := range map[string]func(w *enginetest.World){
		"the ReplicaProfile is deleted as the observation ends": func(w *enginetest.World) {
			w.Clock.Step(30 * time.Second)
			w.Simulate(func() { w.Must(w.Client.Delete(w.Context(), w.Profile())) })
		},
		"the ReplicaProfile is deleted and comes back from a backup while nobody runs": func(w *enginetest.World) {
			w.Restart(controllers(w)[1])
			backup := w.Profile()
			w.Simulate(func() { w.Must(w.Client.Delete(w.Context(), w.Profile())) })
			w.Settle()
			backup.ResourceVersion, backup.UID, backup.Status = "", "", kapacity.ReplicaProfileStatus{}
			w.Simulate(func() { w.Must(w.Client.Create(w.Context(), backup)) })
			w.Clock.Step(time.Hour)
			w.Restart(controllers(w)...)
		},
		"the pods are replaced while nobody runs": func(w *enginetest.World) {
			w.Restart()
			w.Simulate(func() {
				for _, p := range w.Pods() {
					w.Must(w.Client.Delete(w.Context(), &p))
				}
			})
			w.Settle()
			w.Clock.Step(time.Hour)
			w.Restart(controllers(w)...)
		},
	} {
		for _, kind := range []string{"a Deployment", "a parallel StatefulSet"} {
			t.Run(name+", "+kind, func(t *testing.T) {
				w := observed(t, kind)
				befalls(w)
				w.Advance(55 * time.Second)
				if got := numbers(w); got != "1/4" {
					t.Errorf("at 55 s: %s, want 1/4 for 60 s once more", got)
				}
				w.Advance(15 * time.Second)
				if got := numbers(w); got != "1/0" {
					t.Errorf("at 70 s: %s, want 1/0", got)
				}
			})
		}
	}
}

func TestDemandBeyondWhatIsThereIsMetDuringARollout(t *testing.T) {
	w := observed(t, "a parallel StatefulSet")
	w.Simulate(func() {
		s := &appsv1.StatefulSet{}
		w.Must(w.Client.Get(w.Context(), enginetest.Request.NamespacedName, s))
		s.Status.CurrentRevision, s.Status.UpdateRevision = "one", "two"
		w.Must(w.Client.Status().Update(w.Context(), s))
	})
	w.Advance(time.Second)
	to(w, 4)
	w.Advance(time.Minute)
	if got := numbers(w); got != "5/0" {
		t.Errorf("wanted 4 of 5: got %s, want all restored", got)
	}
	to(w, 9)
	w.Advance(time.Second)
	if got := numbers(w); got != "9/0" {
		t.Errorf("wanted 9 of 5: got %s", got)
	}
	to(w, 1)
	w.Advance(time.Hour)
	if got := numbers(w); got != "9/0" {
		t.Errorf("down again: got %s, want the run to wait for the rollout's end", got)
	}
}

func TestARunOfKapacitysKeepsItsPace(t *testing.T) {
	o := enginetest.IHPAOf("StatefulSet", enginetest.Cutoff(50, 30, 60), enginetest.Static(1, 1))
	o.Status.Gray = &kapacity.GrayStatus{GrayPercent: 50, LastUpdateTime: metav1.NewTime(enginetest.Start.Add(-10 * time.Second))}
	rp := &kapacity.ReplicaProfile{Spec: kapacity.ReplicaProfileSpec{ScaleTargetRef: o.Spec.ScaleTargetRef, OnlineReplicas: 3, CutoffReplicas: 2}}
	rp.Namespace, rp.Name = o.Namespace, o.Name
	w := world(t, enginetest.StatefulSet(5, appsv1.ParallelPodManagement), o, rp)
	w.Advance(19 * time.Second)
	if got := numbers(w); got != "3/2" {
		t.Errorf("20 s before the next step: %s, want 3/2", got)
	}
	w.Advance(2 * time.Second)
	if got := numbers(w); got != "2/3" {
		t.Errorf("30 s after Kapacity's last step: %s, want 2/3", got)
	}
}

func TestASteadyFailureIsToldOnceAndWritesNothing(t *testing.T) {
	refuse := func(what string) func(w *enginetest.World) {
		return func(w *enginetest.World) {
			w.Fail = func(is string) error {
				if strings.HasPrefix(is, what) {
					return errors.New("refused by policy")
				}
				return nil
			}
			to(w, 1)
		}
	}
	for name, fails := range map[string]func(w *enginetest.World){
		"/scale cannot be written": func(w *enginetest.World) {
			refuse("update Deployment/scale")(w)
			to(w, 9)
		},
		"pods cannot be cut":                  refuse("patch Pod"),
		"pods cannot be closed":               refuse("patch Pod/status"),
		"the profile cannot be written":       refuse("patch ReplicaProfile nginx"),
		"the profile's status is not written": refuse("patch ReplicaProfile/status"),
		"the workload is gone": func(w *enginetest.World) {
			w.Simulate(func() { w.Must(w.Client.Delete(w.Context(), enginetest.Deployment(5))) })
		},
		"pods have no gate": func(w *enginetest.World) {
			w.Ungated = true
			w.Simulate(func() {
				for _, p := range w.Pods() {
					w.Must(w.Client.Delete(w.Context(), &p))
				}
			})
			to(w, 1)
		},
		"a provider fails and none is valid": func(w *enginetest.World) {
			w.Edit(func(o *kapacity.IntelligentHorizontalPodAutoscaler) { o.Spec.PortraitProviders[0].Static = nil })
		},
		"cut pods stay ready": func(w *enginetest.World) {
			w.Stuck = true
			to(w, 1)
		},
		"the kind cannot be cut": func(w *enginetest.World) {
			w.Edit(func(o *kapacity.IntelligentHorizontalPodAutoscaler) {
				o.Spec.Behavior.ReplicaProfile.PodSorter.Type = kapacity.ExternalPodSorter
				o.Spec.PortraitProviders[0].Static.Replicas = 1
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := world(t, enginetest.Deployment(5), enginetest.IHPAOf("Deployment", enginetest.Cutoff(50, 30, 60), enginetest.Static(1, 5)))
			w.Advance(time.Minute)
			fails(w)
			for range 30 { // until it is steady, the condition GrayStalled included
				w.Clock.Step(30 * time.Second)
				w.Settle()
			}
			w.Writes = nil
			w.Events.Take()
			for range 120 {
				w.Clock.Step(30 * time.Second)
				w.Settle()
			}
			if events := w.Events.Take(); len(w.Writes)+len(events) > 0 {
				t.Errorf("within an hour %d writes %v, events %v", len(w.Writes), w.Writes, events)
			}
		})
	}
}
