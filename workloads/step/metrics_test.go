package step

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	kai "github.com/kubetide/kubetide/api/kai/v1alpha1"
)

// A minimum that is raised from 0 wakes a Deployment that its HPA has put to sleep, and no other.
func TestARaisedMinimumWakesTheDeployment(t *testing.T) {
	const sleepy = "minReplicas: 0\nmaxReplicas: 5\nmetrics: [{type: External, external: {metric: {name: queue}, target: {type: AverageValue, averageValue: 5}}}]"
	for name, c := range map[string]struct {
		replicas, live, least int32
		said                  corev1.ConditionStatus
		refused               error
		want                  int32
		hpa                   int32
	}{
		"the HPA scaled it to zero":              {live: 0, least: 2, want: 2, hpa: 2},
		"the HPA says that it has":               {live: 0, least: 2, said: corev1.ConditionTrue, want: 2, hpa: 2},
		"the HPA says that somebody else has":    {live: 0, least: 2, said: corev1.ConditionFalse, want: 0, hpa: 2},
		"somebody stopped it at another minimum": {live: 1, least: 2, want: 0, hpa: 2},
		"it runs":                                {replicas: 1, live: 0, least: 2, want: 1, hpa: 2},
		"0 is still allowed":                     {live: 0, least: 0, want: 0, hpa: 0},
		"a write is refused":                     {live: 0, least: 2, refused: errors.New("no"), want: 0, hpa: 0},
	} {
		t.Run(name, func(t *testing.T) {
			step := newStep(t, sleepy)
			w := newWorld(t, step)
			r := w.steps()
			r.options.ScaleToZero = true
			w.reconcile(t, r, "http-echo")
			d, hpa := &appsv1.Deployment{}, &autoscalingv2.HorizontalPodAutoscaler{}
			w.get(t, "http-echo-deployment", d)
			w.get(t, "http-echo-hpa", hpa)
			d.Spec.Replicas, hpa.Spec.MinReplicas = &c.replicas, &c.live
			if c.said != "" {
				hpa.Status.Conditions = []autoscalingv2.HorizontalPodAutoscalerCondition{{Type: autoscalingv2.ScaledToZero, Status: c.said}}
			}
			w.get(t, "http-echo", step)
			step.Spec.MinReplicas = ptr.To(c.least)
			for _, o := range []client.Object{d, hpa, step} {
				if err := w.Update(t.Context(), o); err != nil {
					t.Fatal(err)
				}
			}
			r.client = interceptor.NewClient(r.client.(client.WithWatch), interceptor.Funcs{
				SubResourceUpdate: func(ctx context.Context, _ client.Client, _ string, o client.Object, opts ...client.SubResourceUpdateOption) error {
					scale := (&client.SubResourceUpdateOptions{}).ApplyOptions(opts).SubResourceBody.(*autoscalingv1.Scale)
					if c.refused != nil {
						return c.refused
					}
					w.get(t, o.GetName(), d)
					if scale.ResourceVersion != d.ResourceVersion {
						t.Errorf("scaled on condition of %s, it is at %s", scale.ResourceVersion, d.ResourceVersion)
					}
					d.Spec.Replicas = &scale.Spec.Replicas
					return w.Update(ctx, d)
				},
			})
			_, err := r.Reconcile(t.Context(), request("http-echo"))
			if (err != nil) != (c.refused != nil) {
				t.Error(err)
			}
			w.get(t, "http-echo-deployment", d)
			w.get(t, "http-echo-hpa", hpa)
			if *d.Spec.Replicas != c.want || *hpa.Spec.MinReplicas != c.hpa {
				t.Errorf("%d replicas and a minimum of %d, want %d and %d", *d.Spec.Replicas, *hpa.Spec.MinReplicas, c.want, c.hpa)
			}
			if c.refused == nil {
				if got := w.reconcile(t, r, "http-echo"); len(got) > 0 {
					t.Errorf("at rest: %v", got)
				}
			}
		})
	}
}

func TestStepsAreCounted(t *testing.T) {
	conditionsTold.reset()
	writes.Reset()
	w := newWorld(t, newStep(t, ""))
	r := w.steps()
	w.reconcile(t, r, "http-echo")
	w.reconcile(t, r, "http-echo") // at rest
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(conditionsTold, writes)
	compare := func(want string, names ...string) {
		t.Helper()
		if err := testutil.GatherAndCompare(registry, strings.NewReader(want), names...); err != nil {
			t.Error(err)
		}
	}
	compare(`
# HELP kubetide_step_conditions Steps and Pipelines by what their status says. Labeled by kind, condition and status.
# TYPE kubetide_step_conditions gauge
kubetide_step_conditions{condition="AutoscalerActive",kind="Step",status="Unknown"} 1
kubetide_step_conditions{condition="DeploymentAvailable",kind="Step",status="Unknown"} 1
kubetide_step_conditions{condition="Invalid",kind="Step",status="False"} 1
kubetide_step_conditions{condition="Ready",kind="Step",status="False"} 1
`, "kubetide_step_conditions")
	compare(`
# HELP kubetide_step_writes_total Writes for Steps and Pipelines that the API server took. Labeled by kind of the object that was written, and verb.
# TYPE kubetide_step_writes_total counter
kubetide_step_writes_total{kind="Deployment",verb="create"} 1
kubetide_step_writes_total{kind="HorizontalPodAutoscaler",verb="create"} 1
kubetide_step_writes_total{kind="Service",verb="create"} 1
kubetide_step_writes_total{kind="Step",verb="patch_status"} 1
`, "kubetide_step_writes_total")
	ended, end := context.WithCancel(t.Context())
	end()
	if err := conditionsTold.Start(ended); err != nil {
		t.Fatal(err)
	}
	compare("", "kubetide_step_conditions") // who leads no more
	w.reconcile(t, r, "http-echo")
	if n := testutil.CollectAndCount(conditionsTold); n == 0 {
		t.Error("nothing is told by the next who leads")
	}
	step := &kai.Step{}
	w.get(t, "http-echo", step)
	if err := w.Delete(t.Context(), step); err != nil {
		t.Fatal(err)
	}
	w.reconcile(t, r, "http-echo")
	compare("", "kubetide_step_conditions")
}
