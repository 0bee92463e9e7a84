package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	"github.com/kubetide/kubetide/test/lab"
)

const (
	system       = "kubetide-system"
	kubetideUser = "system:serviceaccount:kubetide-system:kubetide"
)

// kubetidePods are Kubetide's own.
func kubetidePods(t *testing.T) []corev1.Pod {
	t.Helper()
	var list corev1.PodList
	must(t, api.List(t.Context(), &list, client.InNamespace(system), client.MatchingLabels{"app.kubernetes.io/name": "kubetide"}))
	return list.Items
}

// kubetideAddress is where Kubetide serves the metrics APIs itself. A pod that a rollout replaced is ready until it is gone, but
// gets no requests any more.
func kubetideAddress(t *testing.T) string {
	t.Helper()
	for _, p := range kubetidePods(t) {
		if isReady(&p) && p.DeletionTimestamp == nil {
			return net.JoinHostPort(p.Status.PodIP, "6443")
		}
	}
	t.Fatal("no pod of Kubetide is ready")
	return ""
}

// killKubetide ends all of Kubetide as kill -9 does, and returns when the processes are seen to be gone.
func killKubetide(t *testing.T) {
	t.Helper()
	for _, p := range kubetidePods(t) {
		must(t, cluster.KillPod(system, p.Name, syscall.SIGKILL))
	}
	eventually(t, 10*time.Second, func() error {
		for _, p := range kubetidePods(t) {
			if isReady(&p) {
				return fmt.Errorf("pod %s is still ready", p.Name)
			}
		}
		return nil
	})
}

// waitForKubetide waits until all of Kubetide is ready, and the API server has seen it.
func waitForKubetide(t *testing.T) {
	t.Helper()
	eventually(t, 60*time.Second, func() error {
		for _, p := range kubetidePods(t) {
			if !isReady(&p) {
				return fmt.Errorf("pod %s is not ready: %+v", p.Name, p.Status.ContainerStatuses)
			}
		}
		// The aggregator takes a moment longer to see it.
		_, err := raw(t.Context(), externalV1beta1)
		return err
	})
}

// At rest nothing is written: a hundred IHPAs, one minute, no create, update, patch or delete by Kubetide's user.
func TestAtRestNothingIsWritten(t *testing.T) {
	ns := newNamespace(t)
	const count = 100
	for i := range count {
		name := fmt.Sprintf("app-%03d", i)
		create(t, ns, `
apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s}
spec:
  replicas: 1
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec: {containers: [{name: main, image: simulated}]}
---
apiVersion: autoscaling.kapacitystack.io/v1alpha1
kind: IntelligentHorizontalPodAutoscaler
metadata: {name: %[1]s}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: %[1]s}
  minReplicas: 1
  maxReplicas: 5
  portraitProviders:
  - {type: Static, priority: 1, static: {replicas: 1}}
  - {type: Cron, priority: 2, cron: {crons: [{name: night, start: "0 0 29 2 *", end: "1 0 29 2 *", replicas: 2}]}}
  behavior: {scaleDown: {grayStrategy: {grayState: Cutoff, changePercent: 50, changeIntervalSeconds: 5, observationSeconds: 5}}}
`, name)
	}
	eventually(t, 120*time.Second, func() error {
		var list kapacity.IntelligentHorizontalPodAutoscalerList
		if err := api.List(t.Context(), &list, client.InNamespace(ns)); err != nil {
			return err
		}
		active := 0
		for _, i := range list.Items {
			if apimeta.IsStatusConditionTrue(i.Status.Conditions, kapacity.ConditionScalingActive) {
				active++
			}
		}
		if active != count {
			return fmt.Errorf("%d of %d IHPAs are active", active, count)
		}
		return nil
	})
	// What Kubetide still owes from before (events, last statuses) is written by the time ten seconds pass without a write.
	isWrite := func(r lab.Request) bool { return r.User == kubetideUser && r.Writes() }
	isExempt := func(r lab.Request) bool {
		return slices.Contains([]string{"leases", "tokenreviews", "subjectaccessreviews"}, r.Resource)
	}
	eventually(t, 60*time.Second, func() error {
		for r, err := range cluster.Audit(time.Now().Add(-10 * time.Second)) {
			if err != nil {
				return err
			}
			if isWrite(r) && !isExempt(r) {
				return fmt.Errorf("still writing: %+v", r)
			}
		}
		return nil
	})
	began := time.Now()
	select {
	case <-time.After(time.Minute): // the measured span, not a wait for something
	case <-t.Context().Done():
	}
	exempt := map[string]int{}
	for r, err := range cluster.Audit(began) {
		must(t, err)
		switch {
		case isWrite(r) && isExempt(r):
			exempt[r.Resource]++
		case isWrite(r):
			t.Errorf("at rest, Kubetide wrote: %+v", r)
		}
	}
	cpu, err := cluster.CPU()
	must(t, err)
	t.Logf("in one minute at rest with %d IHPAs; leases and reviews, which are exempt: %v; CPU so far: %v", count, exempt, cpu)
	if exempt["leases"] == 0 {
		t.Error("not even a Lease was renewed: the audit log was not read")
	}
}

// A pod that opted in to the gate becomes ready under Kubetide, with and without an IHPA, and waits when no leader runs.
func TestGatedPodsBecomeReady(t *testing.T) {
	ns := newNamespace(t)
	gated := func(name string) {
		create(t, ns, `
apiVersion: v1
kind: Pod
metadata:
  name: %[1]s
  labels: {app: %[1]s, kapacitystack.io/inject-pod-readiness-gate: "true"}
spec: {containers: [{name: main, image: simulated}]}
`, name)
	}
	ready := func(name string) func() error {
		return func() error {
			if len(readyPods(t, ns, name)) != 1 {
				return fmt.Errorf("pod %s is not ready", name)
			}
			return nil
		}
	}
	began := time.Now()
	gated("alone")
	eventually(t, 20*time.Second, ready("alone"))
	t.Logf("a gated pod without an IHPA was ready after %v", time.Since(began).Round(10*time.Millisecond))
	var p corev1.Pod
	must(t, api.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: "alone"}, &p))
	if !slices.Contains(p.Spec.ReadinessGates, corev1.PodReadinessGate{ConditionType: kapacity.OnlineConditionType}) {
		t.Errorf("the webhook did not add the gate: %+v", p.Spec.ReadinessGates)
	}

	workload(t, ns, "Deployment", "shop", 1, "")
	staticIHPA(t, ns, "Deployment", "shop", 3, "grayState: Cutoff, changePercent: 50, changeIntervalSeconds: 5")
	began = time.Now()
	eventually(t, 30*time.Second, func() error {
		if n := len(readyPods(t, ns, "shop")); n != 3 {
			return fmt.Errorf("%d of 3 pods are ready", n)
		}
		return nil
	})
	t.Logf("pods of an IHPA were ready after %v", time.Since(began).Round(10*time.Millisecond))

	create(t, ns, `
apiVersion: v1
kind: Pod
metadata: {name: plain, labels: {app: plain}}
spec: {containers: [{name: main, image: simulated}]}
`)
	eventually(t, 20*time.Second, ready("plain"))
	must(t, api.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: "plain"}, &p))
	if len(p.Spec.ReadinessGates) != 0 {
		t.Errorf("a pod that did not opt in was given gates: %+v", p.Spec.ReadinessGates)
	}

	// Without a leader: the gate comes from the spec, since the webhook is gone as well, and waits for the next leader.
	killKubetide(t)
	began = time.Now()
	create(t, ns, `
apiVersion: v1
kind: Pod
metadata:
  name: orphan
  labels: {app: orphan, kapacitystack.io/inject-pod-readiness-gate: "true"}
spec:
  readinessGates: [{conditionType: kapacitystack.io/online}]
  containers: [{name: main, image: simulated}]
`)
	eventually(t, 90*time.Second, ready("orphan"))
	t.Logf("a gated pod created just after all of Kubetide was killed was ready after %v", time.Since(began).Round(100*time.Millisecond))
	waitForKubetide(t)
}

// Another autoscaler on the same target: Kubetide stands down and names it.
func TestAnotherAutoscalerIsGivenWay(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	workload(t, ns, "Deployment", "shop", 2, "")
	create(t, ns, `
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: other}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: shop}
  minReplicas: 2
  maxReplicas: 2
  metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}}]
`)
	staticIHPA(t, ns, "Deployment", "shop", 5, "grayState: Cutoff, changePercent: 50, changeIntervalSeconds: 5")
	eventually(t, 15*time.Second, conditionIs(t, ns, "shop", kapacity.ConditionConflict, metav1.ConditionTrue))
	c := apimeta.FindStatusCondition(getIHPA(t, ns, "shop").Status.Conditions, kapacity.ConditionConflict)
	if !strings.Contains(c.Message, "other") {
		t.Errorf("the condition does not name the other autoscaler: %s", c.Message)
	}
	if got := replicas(t, ns, "Deployment", "shop"); got != 2 {
		t.Errorf("Kubetide scaled to %d against an HPA", got)
	}
	must(t, kube.AutoscalingV2().HorizontalPodAutoscalers(ns).Delete(t.Context(), "other", metav1.DeleteOptions{}))
	eventually(t, 15*time.Second, wantReplicas(t, ns, "Deployment", "shop", 5))
}

// The manifests and the conversion of bad objects: each is refused or reported with object, field and cause.
func TestBadObjectsAreRefused(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	for name, tc := range badObjects {
		t.Run(name, func(t *testing.T) {
			err := tryCreate(t.Context(), ns, tc.yaml)
			if err == nil {
				t.Fatal("it was accepted")
			}
			for _, fragment := range tc.want {
				if !strings.Contains(err.Error(), fragment) {
					t.Errorf("the refusal lacks %q: %v", fragment, err)
				}
			}
		})
	}
}

func TestBadAnnotationsAreReported(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	workload(t, ns, "Deployment", "shop", 1, "")
	for name, tc := range badAnnotations {
		t.Run(name, func(t *testing.T) {
			hpa := strings.NewReplacer(" ", "-", ",", "").Replace(strings.ToLower(name))
			create(t, ns, "%s", tc.yaml(hpa))
			eventually(t, 90*time.Second, func() error {
				var errs []error
				for _, reason := range []string{"CreateNewMetricsCollector", "MetricCollectionFailed", "MetricConfigIgnored"} {
					err := wantEvent(t, ns, "HorizontalPodAutoscaler", hpa, reason, tc.want...)()
					if err == nil {
						return nil
					}
					errs = append(errs, err)
				}
				return errors.Join(errs...)
			})
		})
	}
}

// Who removes a CA bundle, by a new apply for example, finds it back.
func TestCABundlesAreKeptCurrent(t *testing.T) {
	for name, tc := range map[string]struct{ resource, path string }{
		"an APIService": {"apiservice/v1beta2.custom.metrics.k8s.io", "{.spec.caBundle}"},
		"the webhook":   {"mutatingwebhookconfiguration/kubetide", "{.webhooks[0].clientConfig.caBundle}"},
	} {
		t.Run(name, func(t *testing.T) {
			bundle := func() string {
				t.Helper()
				out, err := cluster.Kubectl(t.Context(), "get", tc.resource, "-o", "jsonpath="+tc.path)
				must(t, err)
				return strings.TrimSpace(out)
			}
			before := bundle()
			if before == "" {
				t.Fatal("there is no CA bundle")
			}
			patch := `[{"op":"remove","path":"/spec/caBundle"}]`
			if strings.HasPrefix(tc.resource, "mutating") {
				patch = `[{"op":"remove","path":"/webhooks/0/clientConfig/caBundle"}]`
			}
			_, err := cluster.Kubectl(t.Context(), "patch", tc.resource, "--type=json", "-p", patch)
			must(t, err)
			eventually(t, 10*time.Second, func() error {
				if bundle() != before {
					return errors.New("the CA bundle is not back")
				}
				return nil
			})
		})
	}
	waitForKubetide(t)
}

// The admin port tells the truth, and the own metrics are there.
func TestTheAdminPort(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	workload(t, ns, "Deployment", "shop", 1, "")
	staticIHPA(t, ns, "Deployment", "shop", 1, "grayState: Cutoff, changePercent: 50, changeIntervalSeconds: 5")
	host, _, _ := net.SplitHostPort(kubetideAddress(t))
	get := func(path string) (int, string) {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+net.JoinHostPort(host, "8002")+path, nil)
		must(t, err)
		response, err := http.DefaultClient.Do(request)
		must(t, err)
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		must(t, err)
		return response.StatusCode, string(body)
	}
	for path, want := range map[string]int{"/health": 200, "/ready": 200, "/metrics": 200, "/debug/pprof/": 404, "/nothing": 404} {
		if got, body := get(path); got != want {
			t.Errorf("%s answers %d, want %d: %.200s", path, got, want, body)
		}
	}
	eventually(t, 10*time.Second, func() error {
		_, metrics := get("/metrics")
		for _, name := range []string{"kubetide_collections_total", "kubetide_queries", "kubetide_gate_wait_seconds", "go_goroutines",
			fmt.Sprintf("kubetide_ihpa_online_replicas{ihpa=%q,namespace=%q} 1", "shop", ns)} {
			if !strings.Contains(metrics, "\n"+name) {
				return fmt.Errorf("/metrics lacks %s", name)
			}
		}
		return nil
	})
}

// A new version rolls out over two pods, one after the other, and no read of the metrics APIs fails.
func TestARolloutLosesNoRead(t *testing.T) {
	ns := newNamespace(t)
	scale := func(n int) {
		_, err := cluster.Kubectl(t.Context(), "-n", system, "scale", "statefulset/kubetide", fmt.Sprintf("--replicas=%d", n))
		must(t, err)
		eventually(t, 60*time.Second, func() error {
			if got := kubetidePods(t); len(got) != n {
				return fmt.Errorf("%d pods of Kubetide", len(got))
			}
			return nil
		})
		waitForKubetide(t)
	}
	scale(2)
	workload(t, ns, "Deployment", "shop", 1, "")
	create(t, ns, "%s", badAnnotation{`metric-config.external.floor.static/value: "1"`, staticMetric, nil}.yaml("shop"))
	path := externalV1beta1 + "/namespaces/" + ns + "/floor?labelSelector=type%3Dstatic"
	eventually(t, 30*time.Second, func() error {
		for range 30 { // by both servers, of which the aggregator takes any
			if _, err := raw(t.Context(), path); err != nil {
				return err
			}
		}
		return nil
	})

	ctx, stop := context.WithCancel(t.Context())
	var reads, failed int
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if _, err := raw(ctx, path); err != nil && ctx.Err() == nil {
				failed++
				t.Errorf("read %d at %s: %v", reads, time.Now().Format(time.TimeOnly), err)
			}
			reads++
		}
	}()
	_, err := cluster.Kubectl(t.Context(), "-n", system, "rollout", "restart", "statefulset/kubetide")
	must(t, err)
	_, err = cluster.Kubectl(t.Context(), "-n", system, "rollout", "status", "statefulset/kubetide", "--timeout=120s")
	must(t, err)
	stop()
	<-done
	t.Logf("%d reads during a rollout, %d failed", reads, failed)
	scale(1)
}
