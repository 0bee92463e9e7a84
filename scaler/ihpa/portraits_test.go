package ihpa

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	"github.com/kubetide/kubetide/scaler/enginetest"
)

func reactive(priority int32) kapacity.HorizontalPortraitProvider {
	return kapacity.HorizontalPortraitProvider{Type: kapacity.DynamicProvider, Priority: priority, Dynamic: &kapacity.DynamicHorizontalPortraitProvider{
		PortraitSpec: kapacity.PortraitSpec{PortraitType: kapacity.ReactivePortrait, Algorithm: kapacity.PortraitAlgorithm{Type: kapacity.KubeHPAAlgorithm}}}}
}

func portraitOf(w *enginetest.World) *kapacity.HorizontalPortrait {
	w.T.Helper()
	hp := &kapacity.HorizontalPortrait{}
	if err := w.Client.Get(w.Context(), client.ObjectKey{Namespace: enginetest.Namespace, Name: "nginx-reactive"}, hp); err != nil {
		if apierrors.IsNotFound(err) {
			return nil
		}
		w.T.Fatal(err)
	}
	return hp
}

// C18, rows 6 and 10.
func TestADynamicProviderHasItsPortraitKept(t *testing.T) {
	o := enginetest.IHPAOf("Deployment", nil, reactive(1))
	o.Annotations = map[string]string{"metric-config.pods.rps.json-path/port": "8080", "team": "shop"}
	o.Spec.Behavior.ScaleUp.Tolerance = ptr.To(resource.MustParse("0.02"))
	w := world(t, enginetest.Deployment(3), o)
	w.Advance(0)
	hp := portraitOf(w)
	if hp == nil {
		t.Fatal("there is no HorizontalPortrait nginx-reactive")
	}
	if !metav1.IsControlledBy(hp, w.IHPA()) || hp.Spec.ScaleTargetRef != o.Spec.ScaleTargetRef || hp.Spec.PortraitType != kapacity.ReactivePortrait {
		t.Errorf("owners %v, spec %+v", hp.OwnerReferences, hp.Spec)
	}
	if diff := cmp.Diff(map[string]string{"metric-config.pods.rps.json-path/port": "8080"}, hp.Annotations); diff != "" {
		t.Errorf("annotations (-want +got):\n%s", diff)
	}
	k := hp.Spec.Algorithm.KubeHPA
	if k == nil || k.ScaleUpTolerance == nil || k.ScaleUpTolerance.String() != "20m" || k.ScaleDownTolerance != nil || k.SyncPeriod.Duration != 15*time.Second {
		t.Errorf("kubeHPA %+v", k)
	}

	w.Edit(func(o *kapacity.IntelligentHorizontalPodAutoscaler) {
		o.Annotations = map[string]string{"metric-config.pods.rps.json-path/path": "/metrics"}
	})
	w.Advance(0)
	if diff := cmp.Diff(map[string]string{"metric-config.pods.rps.json-path/path": "/metrics"}, portraitOf(w).Annotations); diff != "" {
		t.Errorf("annotations (-want +got):\n%s", diff)
	}
	w.Writes = nil
	w.Advance(time.Hour)
	if len(w.Writes) > 0 {
		t.Errorf("at rest: %v", w.Writes)
	}

	// The provider goes while no controller is there to see it.
	w.Edit(func(o *kapacity.IntelligentHorizontalPodAutoscaler) {
		o.Spec.PortraitProviders = []kapacity.HorizontalPortraitProvider{enginetest.Static(1, 2)}
	})
	w.Restart(controllers(w)...)
	w.Advance(0)
	if portraitOf(w) != nil {
		t.Error("the HorizontalPortrait of a provider that is gone stays")
	}
}

func TestAPortraitWithoutAnOwnerIsAdopted(t *testing.T) {
	w := world(t, enginetest.Deployment(3), enginetest.IHPAOf("Deployment", nil, reactive(1)),
		&kapacity.HorizontalPortrait{ObjectMeta: metav1.ObjectMeta{Namespace: enginetest.Namespace, Name: "nginx-reactive"}})
	w.Advance(0)
	if hp := portraitOf(w); !metav1.IsControlledBy(hp, w.IHPA()) || hp.Spec.PortraitType != kapacity.ReactivePortrait {
		t.Errorf("owners %v, spec %+v", hp.OwnerReferences, hp.Spec)
	}
}

// What a portrait said last stands while it cannot be made anew, but is no reason to lower.
func TestAPortraitThatFailsForbidsLowering(t *testing.T) {
	w := world(t, enginetest.Deployment(6), enginetest.IHPAOf("Deployment", nil, reactive(1)))
	say := func(replicas int32, generated metav1.ConditionStatus, message string) {
		t.Helper()
		w.Simulate(func() {
			hp := portraitOf(w)
			hp.Status.PortraitData = &kapacity.PortraitData{Type: kapacity.StaticPortraitData, Static: &kapacity.StaticPortrait{Replicas: replicas}}
			meta.SetStatusCondition(&hp.Status.Conditions, metav1.Condition{Type: kapacity.ConditionPortraitGenerated, Status: generated,
				Reason: kapacity.ReasonFailedGeneratePortrait, Message: message})
			w.Must(w.Client.Status().Update(w.Context(), hp))
		})
		w.Advance(0)
	}
	w.Advance(0)
	say(4, metav1.ConditionFalse, "no metrics")
	if got := numbers(w); got != "6/0" {
		t.Errorf("lowered on missing data: %s", got)
	}
	expect(w, kapacity.ConditionPortraitsHealthy, metav1.ConditionFalse, kapacity.ReasonProviderFailed, "FailedGeneratePortrait: no metrics")
	say(8, metav1.ConditionFalse, "no metrics")
	if got := numbers(w); got != "8/0" {
		t.Errorf("not raised: %s", got)
	}
	say(4, metav1.ConditionTrue, "")
	if got := numbers(w); got != "4/0" {
		t.Errorf("not lowered once it is well: %s", got)
	}
}

func TestASharedSelectorIsToldWithTheIHPA(t *testing.T) {
	w := world(t, enginetest.Deployment(3), enginetest.IHPAOf("Deployment", nil, reactive(1)))
	w.Advance(0)
	hp := portraitOf(w)
	hp.Status.PortraitData = &kapacity.PortraitData{Type: kapacity.StaticPortraitData, Static: &kapacity.StaticPortrait{Replicas: 3}}
	hp.Status.Conditions = []metav1.Condition{{Type: kapacity.ConditionSelectorShared, Status: metav1.ConditionTrue, Reason: kapacity.ReasonPodsOfOthers, Message: "pods of Job load"}}
	w.Simulate(func() { w.Must(w.Client.Status().Update(w.Context(), hp)) })
	w.Advance(0)
	c := meta.FindStatusCondition(w.IHPA().Status.Conditions, kapacity.ConditionPortraitsHealthy)
	if c == nil || c.Status != metav1.ConditionTrue || c.Message != messageHealthy+warningMark+"Dynamic-Reactive: pods of Job load" {
		t.Errorf("%+v", c)
	}
}
