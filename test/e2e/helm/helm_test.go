// Package helm_test installs the chart as people do, three nodes under their own rights, and takes it away again.
package helm_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kubetide/kubetide/adapter/cluster"
	"github.com/kubetide/kubetide/adapter/cluster/membership"
	"github.com/kubetide/kubetide/test/e2e"
	"github.com/kubetide/kubetide/test/lab"
	"github.com/kubetide/kubetide/test/lab/build"
)

const (
	root   = "../../.."
	chart  = root + "/deploy/helm/kubetide"
	system = "kubetide-system"
)

func TestMain(m *testing.M) { lab.Main(m, "helm") }

const shop = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop}
spec:
  replicas: 4
  selector: {matchLabels: {app: shop}}
  template:
    metadata:
      labels: {app: shop, kapacitystack.io/inject-pod-readiness-gate: "true"}
    spec:
      containers: [{name: main, image: simulated, resources: {requests: {cpu: 100m}}}]
---
apiVersion: autoscaling.kapacitystack.io/v1alpha1
kind: IntelligentHorizontalPodAutoscaler
metadata: {name: shop}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: shop}
  minReplicas: 1
  maxReplicas: 10
  portraitProviders: [{type: Static, priority: 1, static: {replicas: 2}}]
  behavior: {scaleDown: {grayStrategy: {grayState: Cutoff, changePercent: 50, changeIntervalSeconds: 600, observationSeconds: 600}}}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: floor
  annotations: {metric-config.external.floor.static/value: "3"}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: other}
  maxReplicas: 5
  metrics:
    - type: External
      external:
        metric: {name: floor, selector: {matchLabels: {type: static}}}
        target: {type: AverageValue, averageValue: "1"}
`

// An IHPA and an HPA want the same of a source, which says 3.
const followed = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: followed}
spec:
  selector: {matchLabels: {app: followed}}
  template:
    metadata: {labels: {app: followed}}
    spec:
      containers: [{name: main, image: simulated, resources: {requests: {cpu: 100m}}}]
---
apiVersion: autoscaling.kapacitystack.io/v1alpha1
kind: IntelligentHorizontalPodAutoscaler
metadata: {name: followed, annotations: {metric-config.external.queue.json-path/endpoint: %[1]s, metric-config.external.queue.json-path/json-key: $.length, metric-config.external.queue.json-path/interval: %[2]s}}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: followed}
  minReplicas: 1
  maxReplicas: 10
  portraitProviders:
    - type: Dynamic
      priority: 1
      dynamic:
        portraitType: Reactive
        algorithm: {type: KubeHPA}
        metrics: [{type: External, external: {metric: {name: queue, selector: {matchLabels: {type: json-path}}}, target: {type: AverageValue, averageValue: "1"}}}]
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: also, annotations: {metric-config.external.queue.json-path/endpoint: %[1]s, metric-config.external.queue.json-path/json-key: $.length, metric-config.external.queue.json-path/interval: %[2]s}}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: other}
  maxReplicas: 5
  metrics: [{type: External, external: {metric: {name: queue, selector: {matchLabels: {type: json-path}}}, target: {type: AverageValue, averageValue: "1"}}}]
`

type world struct {
	*testing.T
	cluster  *lab.Lab
	kubetide string // the server's binary
	helmBin  string
}

func (w world) kubectl(args ...string) string {
	w.Helper()
	out, err := w.cluster.Kubectl(w.Context(), args...)
	if err != nil {
		w.Fatalf("%v\n%s\n%s", err, out, w.state())
	}
	return out
}

func (w world) helm(args ...string) string {
	w.Helper()
	cmd := exec.CommandContext(w.Context(), w.helmBin, args...)
	cmd.Env = append(w.cluster.Env(os.Getenv("PATH")), "HELM_CACHE_HOME="+w.cluster.Dir(), "HELM_CONFIG_HOME="+w.cluster.Dir(), "HELM_DATA_HOME="+w.cluster.Dir())
	out, err := cmd.CombinedOutput()
	if err != nil {
		w.Fatalf("helm %s: %v\n%s\n%s", strings.Join(args, " "), err, out, w.state())
	}
	return string(out)
}

func (w world) state() string {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(w.Context()), 10*time.Second)
	defer cancel()
	out, _ := w.cluster.Kubectl(ctx, "-n", system, "get", "pods,jobs,events", "-o", "wide")
	logs, _ := w.cluster.Kubectl(ctx, "-n", system, "logs", "kubetide-0", "--tail=20")
	return out + logs
}

func (w world) eventually(within time.Duration, check func() error) {
	w.Helper()
	deadline := time.After(within)
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-deadline:
			w.Fatalf("after %s: %v\n%s", within, err, w.state())
		case <-tick.C:
		}
	}
}

// serves says that the metrics API answers the HPA's question through the API server.
func (w world) serves() {
	w.Helper()
	w.eventually(30*time.Second, func() error {
		out, err := w.cluster.Kubectl(w.Context(), "get", "--raw", "/apis/external.metrics.k8s.io/v1beta1/namespaces/default/floor?labelSelector=type%3Dstatic")
		if err == nil && !strings.Contains(out, `"value":"3"`) {
			err = fmt.Errorf("no 3 in %s", out)
		}
		return err
	})
}

// seeEachOther waits until each pod sees as many nodes, all active, of which so many collect.
func (w world) seeEachOther(count, collect int) {
	w.Helper()
	w.eventually(60*time.Second, func() error {
		pods := strings.Fields(w.kubectl("-n", system, "get", "pods", "-l", "app.kubernetes.io/name=kubetide", "-o", `jsonpath={range .items[*]}{.metadata.name}/{.status.podIP} {end}`))
		if len(pods) != count {
			return fmt.Errorf("pods %v, want %d", pods, count)
		}
		for _, pod := range pods {
			name, ip, _ := strings.Cut(pod, "/")
			out, err := exec.CommandContext(w.Context(), w.kubetide, "server", "status", "cluster", "nodes", "--server.url=http://"+net.JoinHostPort(ip, "8002"), "--output=json").CombinedOutput()
			if err != nil {
				return fmt.Errorf("%s: %w\n%s", name, err, out)
			}
			var nodes []cluster.Node
			if err := json.Unmarshal(out, &nodes); err != nil {
				return fmt.Errorf("%s: %w\n%s", name, err, out)
			}
			active, collecting := 0, 0
			for _, n := range nodes {
				if n.State == membership.Active {
					active++
				}
				if n.Collects {
					collecting++
				}
			}
			if len(nodes) != count || active != count || collecting != collect {
				return fmt.Errorf("%s sees %+v, want %d active, of which %d collect", name, nodes, count, collect)
			}
		}
		return nil
	})
}

// source is a tenant's server, and how often it was asked.
func (w world) source() (url string, asked *atomic.Int64) {
	lab.MustBeInside(w)
	listener, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		w.Fatal(err)
	}
	asked = &atomic.Int64{}
	server := &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(response http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		fmt.Fprint(response, `{"length": 3}`)
	})}
	go func() { _ = server.Serve(listener) }()
	w.Cleanup(func() { _ = server.Close() })
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	return "http://10.244.77.1:" + port, asked
}

// sharesSamples says that what an IHPA and an HPA want is collected once, whichever pods decide and answer.
func (w world) sharesSamples() {
	w.Helper()
	const interval, times = 2 * time.Second, 8
	url, asked := w.source()
	w.eventually(30*time.Second, func() error {
		_, err := w.cluster.KubectlInput(w.Context(), fmt.Sprintf(followed, url, interval), "apply", "-f", "-")
		return err
	})
	w.eventually(60*time.Second, func() error {
		replicas, err := w.cluster.Kubectl(w.Context(), "get", "deployment", "followed", "-o", "jsonpath={.spec.replicas}")
		if err == nil && replicas != "3" {
			err = fmt.Errorf("%s replicas by the IHPA, want 3", replicas)
		}
		return err
	})
	w.eventually(30*time.Second, func() error {
		out, err := w.cluster.Kubectl(w.Context(), "get", "--raw", "/apis/external.metrics.k8s.io/v1beta1/namespaces/default/queue?labelSelector=type%3Djson-path")
		if err == nil && !strings.Contains(out, `"value":"3"`) {
			err = fmt.Errorf("no 3 in %s", out)
		}
		return err
	})
	began, before := time.Now(), asked.Load()
	w.eventually(2*times*interval, func() error {
		if n := asked.Load() - before; n < times {
			return fmt.Errorf("the source was asked %d times", n)
		}
		return nil
	})
	if took := time.Since(began); took < (times-2)*interval {
		w.Errorf("the source was asked %d times in %s, want once in %s", times, took, interval)
	}
}

// start makes a lab in which Kubetide's image, and the one of the chart's hooks, are programs of this tree.
func start(t *testing.T) world {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cluster, err := lab.Start(ctx, lab.Options{Progress: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Stop)
	binary := filepath.Join(cluster.Dir(), "kubetide")
	compile := exec.CommandContext(ctx, "go", "build", "-o", binary, "./cmd/kubetide")
	compile.Dir, compile.Env = root, append(os.Environ(), "CGO_ENABLED=0") // as the image has it
	if out, err := compile.CombinedOutput(); err != nil {
		t.Fatalf("build kubetide: %v\n%s", err, out)
	}
	for image, path := range map[string]string{e2e.Image: binary, "registry.k8s.io/kubectl": cluster.KubectlPath()} {
		if err := cluster.RegisterImage(ctx, image, path); err != nil {
			t.Fatal(err)
		}
	}
	return world{T: t, cluster: cluster, kubetide: binary}
}

func TestTheChartIsInstalledAndLeavesNothingBehind(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	w := start(t)
	cluster := w.cluster
	binaries, err := build.Binaries(ctx, os.Stderr, "helm")
	if err != nil {
		t.Fatal(err)
	}
	w.helmBin = binaries["helm"]
	w.kubectl("create", "namespace", system)
	w.kubectl("label", "namespace", system, "pod-security.kubernetes.io/enforce=restricted")

	// The API server takes all objects, and knows all of their fields.
	for _, set := range []string{"replicas=3", "engine.separate=true", "networkPolicy.enabled=true,autoscaling.enabled=true,cluster.gossipSecret=keys"} {
		rendered := w.helm("template", "kubetide", chart, "--namespace="+system, "--set="+set)
		if out, err := cluster.KubectlInput(ctx, rendered, "apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-"); err != nil {
			t.Errorf("%s: %v\n%s", set, err, out)
		}
	}

	w.helm("install", "kubetide", chart, "--namespace="+system)
	w.kubectl("-n", system, "rollout", "status", "statefulset/kubetide", "--timeout=180s")
	w.kubectl("wait", "apiservice", "-l", "app.kubernetes.io/name=kubetide", "--for=condition=Available", "--timeout=60s")
	if pods := strings.Fields(w.kubectl("-n", system, "get", "pods", "-o", "name")); len(pods) != 3 {
		t.Errorf("pods %v, want 3", pods)
	}
	w.helm("test", "kubetide", "--namespace="+system, "--logs")
	apply := func() {
		w.eventually(30*time.Second, func() error { // the webhook is there once its CA bundle is
			_, err := cluster.KubectlInput(ctx, shop, "apply", "-f", "-")
			if err != nil {
				return err
			}
			gates, err := cluster.Kubectl(ctx, "get", "pods", "-l", "app=shop", "-o", "jsonpath={.items[*].spec.readinessGates[*].conditionType}")
			if n := strings.Count(gates, "kapacitystack.io/online"); err == nil && n != 4 {
				_, _ = cluster.Kubectl(ctx, "delete", "deployment", "shop", "--wait=true")
				err = fmt.Errorf("%d pods have the gate", n)
			}
			return err
		})
	}
	apply()
	cut := func() []string {
		return strings.Fields(w.kubectl("get", "pods", "-l", "app=shop,kapacitystack.io/pod-state=Cutoff", "-o", "name"))
	}
	one := func() error {
		if pods := cut(); len(pods) != 1 {
			return fmt.Errorf("%v are cut, want one", pods)
		}
		return nil
	}
	w.eventually(60*time.Second, one)
	w.serves()

	if err := e2e.Complaints(cluster); err != nil {
		t.Error(err)
	}

	// The engine goes into a Deployment of its own, and the run goes on where it was.
	w.helm("upgrade", "kubetide", chart, "--namespace="+system, "--set=engine.separate=true,engine.replicas=1,replicas=2")
	w.kubectl("-n", system, "rollout", "status", "deployment/kubetide-engine", "--timeout=180s")
	w.kubectl("-n", system, "rollout", "status", "statefulset/kubetide", "--timeout=180s")
	w.eventually(60*time.Second, func() error {
		holder := w.kubectl("-n", system, "get", "lease", "kapacity-manager.kapacitystack.io", "-o", "jsonpath={.spec.holderIdentity}")
		if !strings.HasPrefix(holder, "kubetide-engine-") {
			return fmt.Errorf("%q leads", holder)
		}
		return one()
	})
	w.helm("test", "kubetide", "--namespace="+system)
	w.serves()
	w.seeEachOther(3, 2)
	w.sharesSamples()
	for request, err := range cluster.Audit(time.Time{}) {
		if err != nil {
			t.Fatal(err)
		}
		if request.Denied && request.User == "system:serviceaccount:"+system+":kubetide-engine" {
			t.Errorf("the engine's own rights do not cover %+v", request)
		}
	}

	w.helm("uninstall", "kubetide", "--namespace="+system, "--timeout=3m")
	if pods := cut(); len(pods) != 0 {
		t.Errorf("%v have no traffic", pods)
	}
	w.kubectl("delete", "ihpa", "--all", "--timeout=20s")
	w.kubectl("delete", "replicaprofiles,horizontalportraits", "--all", "--timeout=20s")
	w.kubectl("wait", "pods", "-l", "app=shop", "--for=condition=Ready", "--timeout=20s")
	w.eventually(60*time.Second, func() error {
		var left []string
		for _, label := range []string{"app.kubernetes.io/instance=kubetide", "app.kubernetes.io/part-of=kubetide", "app.kubernetes.io/name=kubetide"} {
			left = append(left, strings.Fields(w.kubectl("get", "-A", "-l", label, "-o", "name",
				"clusterroles,clusterrolebindings,apiservices,mutatingwebhookconfigurations,validatingwebhookconfigurations,"+
					"statefulsets,deployments,pods,jobs,services,serviceaccounts,configmaps,roles,rolebindings,poddisruptionbudgets"))...)
		}
		if len(left) > 0 {
			return fmt.Errorf("left behind: %v", left)
		}
		return nil
	})
	if crds := w.kubectl("get", "crds", "-o", "name"); !strings.Contains(crds, "intelligenthorizontalpodautoscalers") {
		t.Error("the CRDs went, and all objects with them")
	}
}

// What people apply is what is applied here: no overlay, no value changed.
func TestTheKustomizeBaseRunsThreeNodes(t *testing.T) {
	const base = root + "/deploy/kustomize/base"
	w := start(t)
	w.kubectl("apply", "--server-side", "-k", base)
	w.kubectl("-n", system, "rollout", "status", "statefulset/kubetide", "--timeout=180s")
	w.kubectl("wait", "apiservice", "-l", "app.kubernetes.io/name=kubetide", "--for=condition=Available", "--timeout=60s")

	w.seeEachOther(3, 3)
	w.eventually(30*time.Second, func() error { // the webhook is there once its CA bundle is
		_, err := w.cluster.KubectlInput(w.Context(), shop, "apply", "-f", "-")
		return err
	})
	w.serves()
	if err := e2e.Complaints(w.cluster); err != nil {
		t.Error(err)
	}

	w.kubectl("delete", "ihpa", "shop", "--timeout=30s") // while somebody is there who takes its finalizer off
	w.kubectl("delete", "-k", base, "--timeout=120s")
	if left := w.kubectl("get", "namespaces,clusterroles,clusterrolebindings,apiservices,crds,mutatingwebhookconfigurations,validatingwebhookconfigurations",
		"-l", "app.kubernetes.io/name=kubetide", "-o", "name"); left != "" {
		t.Errorf("left behind: %s", left)
	}
}
