package ihpa

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/kubetide/kubetide/scaler/enginetest"
)

// What is measured is the last decision and the conditions; a decision that cannot be taken changes the conditions alone.
func TestIHPAsAreMeasured(t *testing.T) {
	told.reset()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(told)
	compare := func(when string, want string) {
		t.Helper()
		const help = `
# HELP kubetide_ihpa_condition 1 for a condition of the status that is True, else 0. Labeled by namespace, ihpa and condition.
# TYPE kubetide_ihpa_condition gauge
# HELP kubetide_ihpa_cutoff_replicas Running pods in the state Cutoff. Labeled by namespace and ihpa.
# TYPE kubetide_ihpa_cutoff_replicas gauge
# HELP kubetide_ihpa_desired_replicas Replicas that the workload is going to, within the bounds. Labeled by namespace and ihpa.
# TYPE kubetide_ihpa_desired_replicas gauge
# HELP kubetide_ihpa_gray_percent How much of the gray run is done, 0 to 100. Labeled by namespace and ihpa.
# TYPE kubetide_ihpa_gray_percent gauge
# HELP kubetide_ihpa_max_replicas The upper bound that holds now. Labeled by namespace and ihpa.
# TYPE kubetide_ihpa_max_replicas gauge
# HELP kubetide_ihpa_min_replicas The lower bound that holds now. Labeled by namespace and ihpa.
# TYPE kubetide_ihpa_min_replicas gauge
# HELP kubetide_ihpa_online_replicas Running pods in the state Online. Labeled by namespace and ihpa.
# TYPE kubetide_ihpa_online_replicas gauge
# HELP kubetide_ihpa_portrait_replicas Replicas that a portrait asks for; absent while it has no opinion. Labeled by namespace, ihpa and portrait.
# TYPE kubetide_ihpa_portrait_replicas gauge
# HELP kubetide_ihpa_standby_replicas Running pods in the state Standby. Labeled by namespace and ihpa.
# TYPE kubetide_ihpa_standby_replicas gauge
# HELP kubetide_ihpa_wanted_replicas Replicas that the portraits ask for, merged, before behavior, bounds and hold. Labeled by namespace and ihpa.
# TYPE kubetide_ihpa_wanted_replicas gauge
`
		if err := testutil.GatherAndCompare(registry, strings.NewReader(help+strings.ReplaceAll(want, "OF", `ihpa="nginx",namespace="shop"`)+"\n")); err != nil {
			t.Errorf("%s: %v", when, err)
		}
	}
	ihpa := enginetest.IHPAOf("Deployment", enginetest.Cutoff(50, 30, 60), enginetest.Static(1, 1), enginetest.Cron(2, 12, "0 * * * *", "10 * * * *"))
	ihpa.Spec.MinReplicas, ihpa.Spec.MaxReplicas = 1, 8
	w := world(t, enginetest.Deployment(1), ihpa)
	w.Advance(0)
	compare("beyond its upper bound", `
kubetide_ihpa_condition{condition="Conflict",OF} 0
kubetide_ihpa_condition{condition="GrayProgressing",OF} 0
kubetide_ihpa_condition{condition="GrayStalled",OF} 0
kubetide_ihpa_condition{condition="PortraitsHealthy",OF} 1
kubetide_ihpa_condition{condition="ScalingActive",OF} 1
kubetide_ihpa_condition{condition="ScalingLimited",OF} 1
kubetide_ihpa_cutoff_replicas{OF} 0
kubetide_ihpa_desired_replicas{OF} 8
kubetide_ihpa_gray_percent{OF} 100
kubetide_ihpa_max_replicas{OF} 8
kubetide_ihpa_min_replicas{OF} 1
kubetide_ihpa_online_replicas{OF} 8
kubetide_ihpa_portrait_replicas{OF,portrait="Cron"} 12
kubetide_ihpa_portrait_replicas{OF,portrait="Static"} 1
kubetide_ihpa_standby_replicas{OF} 0
kubetide_ihpa_wanted_replicas{OF} 12`)
	w.Advance(10 * time.Minute)
	compare("in a gray run, when a portrait has no opinion any more", `
kubetide_ihpa_condition{condition="Conflict",OF} 0
kubetide_ihpa_condition{condition="GrayProgressing",OF} 1
kubetide_ihpa_condition{condition="GrayStalled",OF} 0
kubetide_ihpa_condition{condition="PortraitsHealthy",OF} 1
kubetide_ihpa_condition{condition="ScalingActive",OF} 1
kubetide_ihpa_condition{condition="ScalingLimited",OF} 0
kubetide_ihpa_cutoff_replicas{OF} 3
kubetide_ihpa_desired_replicas{OF} 1
kubetide_ihpa_gray_percent{OF} 50
kubetide_ihpa_max_replicas{OF} 8
kubetide_ihpa_min_replicas{OF} 1
kubetide_ihpa_online_replicas{OF} 5
kubetide_ihpa_portrait_replicas{OF,portrait="Static"} 1
kubetide_ihpa_standby_replicas{OF} 0
kubetide_ihpa_wanted_replicas{OF} 1`)
	ended, end := context.WithCancel(t.Context())
	end()
	if err := told.Start(ended); err != nil {
		t.Fatal(err)
	}
	compare("by one who leads no more", "")

	w = world(t, enginetest.IHPAOf("Deployment", nil, enginetest.Static(1, 1)))
	w.Advance(0)
	compare("without its workload", `
kubetide_ihpa_condition{condition="Conflict",OF} 0
kubetide_ihpa_condition{condition="ScalingActive",OF} 0`)
}
