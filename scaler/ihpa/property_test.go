package ihpa

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"pgregory.net/rapid"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	"github.com/kubetide/kubetide/scaler/enginetest"
)

// Whatever happens on the way, serving pods never fall below the lowest target asked for, and the workload ends at the last
// target with nobody held, then nothing is written any more.
func TestRandomHistoriesEndWellAndNeverServeTooFew(t *testing.T) {
	kinds := []string{"a parallel StatefulSet", "an ordered StatefulSet", "a Deployment", "a ReplicaSet"}
	rapid.Check(t, func(rt *rapid.T) {
		count := rapid.Int32Range(0, 7)
		now := count.Draw(rt, "first")
		lowest := now
		workload := workloads(now)[rapid.SampledFrom(kinds).Draw(rt, "kind")]
		o := enginetest.IHPAOf(kindOf(workload), enginetest.Cutoff(rapid.Int32Range(20, 100).Draw(rt, "percent"),
			rapid.Int32Range(1, 20).Draw(rt, "interval"), rapid.Int32Range(0, 30).Draw(rt, "observation")), enginetest.Static(1, now))
		if rapid.Bool().Draw(rt, "up gray") {
			o.Spec.Behavior.ScaleUp.GrayStrategy = &kapacity.GrayStrategy{GrayState: kapacity.PodStateOnline, ChangePercent: 50, ChangeIntervalSeconds: 5}
		}
		w := world(t, workload, o)
		w.Advance(0)
		for i := range rapid.IntRange(1, 6).Draw(rt, "actions") {
			switch rapid.IntRange(0, 4).Draw(rt, fmt.Sprint("action ", i)) {
			case 0:
				w.Restart(controllers(w)...)
			case 1:
				paused := rapid.Bool().Draw(rt, "paused")
				w.Edit(func(o *kapacity.IntelligentHorizontalPodAutoscaler) { o.Spec.Paused = paused })
			case 2:
				if pods := w.Pods(); len(pods) > 0 {
					victim := pods[rapid.IntRange(0, len(pods)-1).Draw(rt, "victim")]
					w.Simulate(func() { w.Must(w.Client.Delete(w.Context(), &victim)) })
				}
			case 3:
				refused := 0
				w.Fail = func(what string) error {
					if refused++; refused > 3 {
						w.Fail = nil
						return nil
					}
					if strings.HasPrefix(what, "patch Pod") {
						return errors.New("refused")
					}
					return apierrors.NewConflict(schema.GroupResource{}, "x", errors.New("modified"))
				}
			default:
				now = count.Draw(rt, "target")
				lowest = min(lowest, now)
				to(w, now)
			}
			for range rapid.IntRange(0, 4).Draw(rt, "looks") {
				w.Advance(time.Duration(rapid.IntRange(0, 12).Draw(rt, "seconds")) * time.Second)
				if n := w.Endpoints(); n < int(lowest) {
					rt.Fatalf("%d endpoints, never less than %d was asked for: %s", n, lowest, w.States())
				}
			}
		}
		w.Fail = nil
		w.Edit(func(o *kapacity.IntelligentHorizontalPodAutoscaler) { o.Spec.Paused = false })
		w.Advance(10 * time.Minute)
		if got, want := numbers(w), fmt.Sprintf("%d/0", now); got != want || w.Endpoints() != int(now) {
			rt.Fatalf("ends at %s, want %s: %s; gray %+v", got, want, w.States(), w.IHPA().Status.Gray)
		}
		for _, kind := range []string{kapacity.ConditionApplied, kapacity.ConditionEnsured} {
			if c := meta.FindStatusCondition(w.Profile().Status.Conditions, kind); c == nil || c.Status != "True" {
				rt.Fatalf("%s: %+v", kind, c)
			}
		}
		w.Writes = nil
		w.Advance(time.Hour)
		if len(w.Writes) > 0 {
			rt.Fatalf("written at rest: %v", w.Writes)
		}
	})
}
