package e2e

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// failing is an External metric "errors" from a source that answers at a tenant's address, as lines of annotations.
func failing(t *testing.T, source *switched) string {
	t.Helper()
	port := answering(t, func(w http.ResponseWriter, _ *http.Request, _ string) { source.answer(w) })
	return fmt.Sprintf(strings.Join([]string{
		`metric-config.external.errors.json-path/json-key: "$.load"`,
		`metric-config.external.errors.json-path/endpoint: "http://%s:%d/"`,
		`metric-config.external.errors.json-path/interval: 1s`}, "\n    "), tenantHost, port)
}

// A breach of a real metric in the middle of a gray run: the run stops, or the very pods that were cut come back; after the breach
// and its cool-down the run ends by itself.
func TestAStabilityCheckerGuardsAGrayRun(t *testing.T) {
	for action, during := range map[string]state{
		"Pause":    {online: 4, cutoff: 2, endpoints: 4},
		"Rollback": {online: 6, endpoints: 6},
	} {
		t.Run(action, func(t *testing.T) {
			t.Parallel()
			ns := newNamespace(t)
			source := &switched{}
			source.set(0)
			workload(t, ns, "Deployment", "shop", 6, "")
			create(t, ns, `
apiVersion: autoscaling.kapacitystack.io/v1alpha1
kind: IntelligentHorizontalPodAutoscaler
metadata:
  name: shop
  annotations:
    %s
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: shop}
  minReplicas: 0
  maxReplicas: 20
  portraitProviders: [{type: Static, priority: 1, static: {replicas: 6}}]
  behavior: {scaleDown: {grayStrategy: {grayState: Cutoff, changePercent: 50, changeIntervalSeconds: 8, observationSeconds: 4}}}
  stabilityCheckers:
  - type: Metrics
    stabilizationAction: %s
    coolDownSeconds: 3
    metrics:
      metrics:
      - type: External
        operator: ">"
        external: {metric: {name: errors, selector: {matchLabels: {type: json-path}}}, target: {type: Value, value: "5"}}
`, failing(t, source), action)
			eventually(t, 10*time.Second, conditionIs(t, ns, "shop", "ScalingActive", "True"))
			eventually(t, 10*time.Second, conditionIs(t, ns, "shop", "Stable", "True"))
			all := uids(pods(t, ns, "shop"))
			setStatic(t, ns, "shop", 2)
			reach(t, ns, "shop", state{online: 4, cutoff: 2, endpoints: 4}, 10*time.Second)
			source.set(9)
			eventually(t, 10*time.Second, conditionIs(t, ns, "shop", "Stable", "False"))
			at := reach(t, ns, "shop", during, 5*time.Second)
			source.mu.Lock()
			seen := source.seen
			source.mu.Unlock()
			t.Logf("%s: %v after the sample", action, at.Sub(seen).Round(10*time.Millisecond))
			if action == "Rollback" && at.Sub(seen) > 2*time.Second { // one for the decision, one for endpoints of a busy machine
				t.Errorf("the cut pods were back %v after the sample of the breach", at.Sub(seen))
			}
			eventually(t, 5*time.Second, wantEvent(t, ns, "IntelligentHorizontalPodAutoscaler", "shop", map[string]string{"Pause": "GrayPaused", "Rollback": "GrayRolledBack"}[action],
				`metric "errors" is 9, > 5`))
			// Two more steps would have been due.
			tick := time.NewTicker(50 * time.Millisecond)
			defer tick.Stop()
			for stays := time.Now().Add(18 * time.Second); time.Now().Before(stays); <-tick.C {
				if got := stateOf(t, ns, "shop"); got != during {
					t.Fatalf("during the breach: %+v, want %+v", got, during)
				}
			}
			if !slices.Equal(uids(pods(t, ns, "shop")), all) {
				t.Error("a pod was lost")
			}
			source.set(1)
			reach(t, ns, "shop", state{online: 2, endpoints: 2}, 60*time.Second)
			eventually(t, 10*time.Second, wantReplicas(t, ns, "Deployment", "shop", 2))
			eventually(t, 10*time.Second, conditionIs(t, ns, "shop", "Stable", "True"))
		})
	}
}

// From zero by an external metric, and back: the first pod is asked for within a second of the sample. As all tests that hold a
// reaction to a second it runs alone: beside a dozen others it would measure the machine.
func TestAnIHPAScalesToZeroAndBack(t *testing.T) {
	ns := newNamespace(t)
	source := &switched{}
	source.set(40)
	workload(t, ns, "Deployment", "worker", 4, "")
	reactiveIHPA(t, ns, "worker", failing(t, source), "{}",
		`[{type: External, external: {metric: {name: errors, selector: {matchLabels: {type: json-path}}}, target: {type: AverageValue, averageValue: "10"}}}]`)
	eventually(t, 20*time.Second, conditionIs(t, ns, "worker", "ScalingActive", "True"))
	patchIHPA(t, ns, "worker", `{"spec":{"minReplicas":0}}`)
	for range 3 {
		source.set(0)
		eventually(t, 10*time.Second, wantReplicas(t, ns, "Deployment", "worker", 0))
		eventually(t, 20*time.Second, func() error {
			if n := len(pods(t, ns, "worker")); n > 0 {
				return fmt.Errorf("%d pods are left", n)
			}
			return nil
		})
		asked := replicasAt(t, ns, "Deployment", "worker", 3)
		source.set(25)
		at := <-asked
		source.mu.Lock()
		seen := source.seen
		source.mu.Unlock()
		t.Logf("the first pods were asked for %v after the sample", at.Sub(seen).Round(time.Millisecond))
		if at.Sub(seen) > time.Second {
			t.Errorf("the first pods were asked for %v after the sample", at.Sub(seen))
		}
	}
}

// A person holds the count; the hold lifts itself. Not beside other tests, as it looks at the clock.
func TestAHoldLiftsItself(t *testing.T) {
	ns := newNamespace(t)
	workload(t, ns, "Deployment", "shop", 2, "")
	staticIHPA(t, ns, "Deployment", "shop", 2, "grayState: Deleted, changePercent: 100, changeIntervalSeconds: 1")
	eventually(t, 10*time.Second, conditionIs(t, ns, "shop", "ScalingActive", "True"))
	until := time.Now().Add(15 * time.Second).Truncate(time.Second)
	patchIHPA(t, ns, "shop", fmt.Sprintf(`{"spec":{"hold":{"until":%q,"reason":"sale","actor":"oncall"}}}`, until.Format(time.RFC3339)))
	eventually(t, 5*time.Second, conditionIs(t, ns, "shop", "Held", "True"))
	lifted := replicasAt(t, ns, "Deployment", "shop", 5)
	setStatic(t, ns, "shop", 5)
	near(t, "the first scaling after the hold", <-lifted, until, 2*time.Second)
	eventually(t, 5*time.Second, wantEvent(t, ns, "IntelligentHorizontalPodAutoscaler", "shop", "HoldBegan", "held at 2 by oncall until", "sale"))
	eventually(t, 5*time.Second, wantEvent(t, ns, "IntelligentHorizontalPodAutoscaler", "shop", "HoldEnded", "the hold by oncall lifted itself"))
}
