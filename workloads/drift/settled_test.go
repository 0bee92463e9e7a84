package drift

import (
	"fmt"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

func deployment(image string) *appsv1.Deployment {
	d := &appsv1.Deployment{}
	d.UID = "1"
	d.Spec.Template.Spec.Containers = []corev1.Container{{Name: "main", Image: image}}
	return d
}

func TestWhatCameOfAWriteIsRemembered(t *testing.T) {
	for name, change := range map[string]struct {
		do      func(live, want *appsv1.Deployment)
		settled bool
	}{
		"nothing":                       {func(_, _ *appsv1.Deployment) {}, true},
		"metadata and status":           {func(live, _ *appsv1.Deployment) { live.ResourceVersion, live.Status.Replicas = "2", 3 }, true},
		"replicas":                      {func(live, _ *appsv1.Deployment) { live.Spec.Replicas = ptr.To[int32](7) }, true},
		"a rollout that is paused":      {func(live, _ *appsv1.Deployment) { live.Spec.Paused = true }, true},
		"what is there":                 {func(live, _ *appsv1.Deployment) { live.Spec.MinReadySeconds = 3 }, false},
		"what is wanted":                {func(_, want *appsv1.Deployment) { want.Spec.MinReadySeconds = 3 }, false},
		"what pods are labelled with":   {func(_, want *appsv1.Deployment) { want.Spec.Template.Labels = map[string]string{"a": "b"} }, false},
		"another object under the name": {func(live, _ *appsv1.Deployment) { live.UID = "2" }, false},
	} {
		t.Run(name, func(t *testing.T) {
			var s Settled
			live, want := deployment("mirror/app"), deployment("app")
			if s.Is(live, want) {
				t.Error("settled before anything was written")
			}
			s.Note(live, want, true)
			change.do(live, want)
			if s.Is(live, want) != change.settled {
				t.Errorf("settled: %v, want %v", !change.settled, change.settled)
			}
		})
	}
}

func TestWhatIsAsWantedIsForgotten(t *testing.T) {
	var s Settled
	live, want := deployment("mirror/app"), deployment("app")
	s.Note(live, want, true)
	s.Note(live, want, false)
	if s.Is(live, want) {
		t.Error("still settled")
	}
}

func TestMemoryOfObjectsIsBounded(t *testing.T) {
	var s Settled
	live, want := deployment("mirror/app"), deployment("app")
	for i := range maxSettled + 1 {
		live.UID = types.UID(fmt.Sprint(i))
		s.Note(live, want, true)
	}
	if n := len(s.known); n > maxSettled {
		t.Errorf("%d objects are remembered", n)
	}
	if !s.Is(live, want) {
		t.Error("the last one is not")
	}
}
