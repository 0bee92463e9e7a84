package e2e

import (
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// reactiveIHPA is an IHPA of the Deployment of its name that follows metrics as an HPA does. settings are lines of annotations,
// behavior and metrics are in flow style.
func reactiveIHPA(t *testing.T, ns, name, settings, behavior, metrics string) {
	t.Helper()
	create(t, ns, `
apiVersion: autoscaling.kapacitystack.io/v1alpha1
kind: IntelligentHorizontalPodAutoscaler
metadata:
  name: %[1]s
  annotations:
    %[2]s
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: %[1]s}
  minReplicas: 1
  maxReplicas: 10
  behavior: %[3]s
  portraitProviders:
  - type: Dynamic
    priority: 1
    dynamic:
      portraitType: Reactive
      algorithm: {type: KubeHPA}
      metrics: %[4]s
`, name, settings, behavior, metrics)
}

func podSettings(port int) string {
	return fmt.Sprintf(strings.Join([]string{
		`metric-config.pods.load.json-path/json-key: "$.load"`,
		`metric-config.pods.load.json-path/path: /metrics`,
		`metric-config.pods.load.json-path/port: "%d"`,
		`metric-config.pods.load.json-path/interval: 1s`}, "\n    "), port)
}

const loadOfTen = `[{type: Pods, pods: {metric: {name: load}, target: {type: AverageValue, averageValue: "10"}}}]`

// shared is a load that the ready pods of an app share.
type shared struct {
	demand, pods atomic.Int64

	mu    sync.Mutex
	asked map[string]bool // the pods, since the load was raised
	all   time.Time       // when the last one was, of those that there were: from then on the sample exists
	want  int
}

func (s *shared) answering(t *testing.T) int {
	return answering(t, func(w http.ResponseWriter, _ *http.Request, pod string) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.asked[pod] = true; len(s.asked) >= s.want && s.all.IsZero() {
			s.all = time.Now()
		}
		fmt.Fprintf(w, `{"load": %g}`, float64(s.demand.Load())/float64(max(1, s.pods.Load())))
	})
}

// raise changes the load, of which that many pods tell.
func (s *shared) raise(demand int64, pods int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.demand.Store(demand)
	s.asked, s.all, s.want = map[string]bool{}, time.Time{}, pods
}

// sampled is when the load was known.
func (s *shared) sampled() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all
}

// The same trace for a stock HPA and for an IHPA with the same behavior: the same replicas after each step, ours not later. Of a single
// step, the stock HPA's delay tells where in its period of 2 s the sample came; so all steps together are compared.
func TestAReactivePortraitDoesAsTheStockHPA(t *testing.T) {
	ns := newNamespace(t)
	const behavior = `{scaleDown: {stabilizationWindowSeconds: 0}}`
	apps := []string{"stock", "ours"}
	loads := map[string]*shared{}
	for _, app := range apps {
		s := &shared{}
		s.raise(20, 2)
		s.pods.Store(2)
		loads[app] = s
		workload(t, ns, "Deployment", app, 2, "")
	}
	podJSON(t, ns, "stock", loads["stock"].answering(t), "10", "")
	reactiveIHPA(t, ns, "ours", podSettings(loads["ours"].answering(t)), behavior, loadOfTen)

	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	sum := map[string]time.Duration{}
	for _, step := range []struct{ demand, want int64 }{{20, 2}, {55, 6}, {58, 6}, {31, 4}, {95, 10}, {240, 10}, {7, 1}} {
		began := time.Now()
		after := map[string]time.Duration{}
		for _, app := range apps {
			loads[app].raise(step.demand, len(readyPods(t, ns, app)))
		}
		// Six sync periods of the stock HPA, within which everybody has got there and nobody goes on, and a quarter of one: of the four
		// steps that change something, each begins in another quarter, and no phase of it is measured four times.
		for time.Since(began) < 12500*time.Millisecond {
			for _, app := range apps {
				loads[app].pods.Store(int64(len(readyPods(t, ns, app))))
				if n := int64(replicas(t, ns, "Deployment", app)); n != step.want {
					delete(after, app)
				} else if _, there := after[app]; !there {
					after[app] = time.Since(began)
				}
			}
			<-tick.C
		}
		// Both sources are asked each second, but not at the same time of it: what counts begins with the sample.
		for app := range after {
			sampled := loads[app].sampled()
			if sampled.IsZero() {
				t.Fatalf("not every pod of %s was asked", app)
			}
			after[app] = max(0, after[app]-sampled.Sub(began))
		}
		stock, there := after["stock"]
		ours, here := after["ours"]
		t.Logf("load %3d → %2d replicas: the stock HPA %v after its sample, ours %v", step.demand, step.want, stock.Round(100*time.Millisecond), ours.Round(100*time.Millisecond))
		if !there || !here {
			t.Errorf("load %d: want %d replicas of both; stock %d, ours %d", step.demand, step.want, replicas(t, ns, "Deployment", "stock"), replicas(t, ns, "Deployment", "ours"))
		} else if ours > 2500*time.Millisecond {
			t.Errorf("load %d: ours was there after %v, more than half a second later than the stock HPA is at worst", step.demand, ours)
		}
		for app := range after {
			sum[app] += after[app]
		}
	}
	t.Logf("all steps together: the stock HPA %v, ours %v", sum["stock"].Round(100*time.Millisecond), sum["ours"].Round(100*time.Millisecond))
	if sum["ours"] > sum["stock"] {
		t.Errorf("over all steps, ours took %v from the sample, the stock HPA %v", sum["ours"], sum["stock"])
	}
}

// switched is a number that a source answers; it notes when it was first asked after each change: from then on the sample exists.
type switched struct {
	mu    sync.Mutex
	value int
	seen  time.Time
}

func (s *switched) set(v int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.value, s.seen = v, time.Time{}
}

func (s *switched) answer(w http.ResponseWriter) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seen.IsZero() {
		s.seen = time.Now()
	}
	fmt.Fprintf(w, `{"load": %d}`, s.value)
}

// From the sample to the write of /scale: an event carries it all the way, and nobody polls.
func TestAReactivePortraitReactsWithinASecond(t *testing.T) {
	for name, c := range map[string]struct {
		// setup makes the IHPA of the Deployment shop, whose metric is the source's number.
		setup func(t *testing.T, ns string, source *switched)
		// load is the number at which want replicas are wanted while there are before of them.
		load func(want, before int) int
	}{
		"a pod JSON metric": {
			setup: func(t *testing.T, ns string, source *switched) {
				port := answering(t, func(w http.ResponseWriter, _ *http.Request, _ string) { source.answer(w) })
				reactiveIHPA(t, ns, "shop", podSettings(port), "{}", loadOfTen)
			},
			load: func(want, before int) int { return int(math.Floor(10 * float64(want) / float64(before))) },
		},
		"an external metric": {
			setup: func(t *testing.T, ns string, source *switched) {
				port := answering(t, func(w http.ResponseWriter, _ *http.Request, _ string) { source.answer(w) })
				reactiveIHPA(t, ns, "shop", fmt.Sprintf(strings.Join([]string{
					`metric-config.external.load.json-path/json-key: "$.load"`,
					`metric-config.external.load.json-path/endpoint: "http://%s:%d/"`,
					`metric-config.external.load.json-path/interval: 1s`}, "\n    "), tenantHost, port),
					"{}", `[{type: External, external: {metric: {name: load, selector: {matchLabels: {type: json-path}}}, target: {type: AverageValue, averageValue: "10"}}}]`)
			},
			load: func(want, _ int) int { return 10 * want },
		},
	} {
		t.Run(name, func(t *testing.T) {
			ns := newNamespace(t)
			workload(t, ns, "Deployment", "shop", 2, "")
			source := &switched{}
			source.set(c.load(2, 2))
			c.setup(t, ns, source)
			eventually(t, 20*time.Second, conditionIs(t, ns, "shop", "ScalingActive", "True"))

			watch, err := api.Watch(t.Context(), &appsv1.DeploymentList{}, client.InNamespace(ns))
			must(t, err)
			defer watch.Stop()
			var latencies []time.Duration
			before := 2
			for i := range 50 {
				want := []int{4, 2}[i%2]
				source.set(c.load(want, before))
				deadline := time.After(20 * time.Second)
				for at := int32(0); at != int32(want); {
					select {
					case e := <-watch.ResultChan():
						if d, ok := e.Object.(*appsv1.Deployment); ok {
							at = *d.Spec.Replicas
						}
					case <-deadline:
						t.Fatalf("step %d: not at %d replicas within 20 s:\n%s", i, want, describe(t.Context(), ns))
					}
				}
				written := time.Now()
				source.mu.Lock()
				latencies = append(latencies, written.Sub(source.seen))
				source.mu.Unlock()
				source.set(c.load(want, want)) // stay
				eventually(t, 20*time.Second, func() error {
					if n := len(readyPods(t, ns, "shop")); n != want {
						return fmt.Errorf("%d of %d pods are ready", n, want)
					}
					return nil
				})
				before = want
			}
			slices.Sort(latencies)
			p50, worst := latencies[len(latencies)/2], latencies[len(latencies)-1]
			t.Logf("from the sample to the watched write of /scale, 50 steps: p50 %v, max %v", p50.Round(time.Millisecond), worst.Round(time.Millisecond))
			if worst > time.Second {
				t.Errorf("p99 of 50 steps is the worst: %v, want at most 1 s", worst)
			}
		})
	}
}
