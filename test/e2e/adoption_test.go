package e2e

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
)

// endKubetide takes Kubetide away as if it had never been installed, but for its objects.
func endKubetide(t *testing.T) {
	t.Helper()
	_, err := cluster.Kubectl(t.Context(), "-n", system, "scale", "statefulset/kubetide", "--replicas=0")
	must(t, err)
	for _, p := range kubetidePods(t) {
		must(t, cluster.KillPod(system, p.Name, syscall.SIGKILL)) // else it would answer for its lame-duck time
	}
	eventually(t, 60*time.Second, func() error {
		if n := len(kubetidePods(t)); n > 0 {
			return fmt.Errorf("%d pods of Kubetide are left", n)
		}
		return nil
	})
}

func beginKubetide(t *testing.T) {
	t.Helper()
	_, err := cluster.Kubectl(t.Context(), "-n", system, "scale", "statefulset/kubetide", "--replicas=1")
	must(t, err)
	eventually(t, 60*time.Second, func() error {
		if len(kubetidePods(t)) == 0 {
			return errors.New("no pod of Kubetide")
		}
		return nil
	})
}

// live writes an object's status and finalizer as Kapacity leaves them.
func live(t *testing.T, ns, resource, name, status string) {
	t.Helper()
	for _, args := range [][]string{
		{"--type=merge", "-p", `{"metadata":{"finalizers":["` + kapacity.Finalizer + `"]}}`},
		{"--type=merge", "--subresource=status", "-p", `{"status":` + status + `}`},
	} {
		_, err := cluster.Kubectl(t.Context(), append([]string{"-n", ns, "patch", resource, name}, args...)...)
		must(t, err)
	}
}

// kapacityPods makes a Deployment with pods as Kapacity's webhook and controller leave them: with the gate, cut of them off traffic.
func kapacityPods(t *testing.T, ns, app string, replicas, cut int) {
	t.Helper()
	create(t, ns, `
apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s}
spec:
  replicas: %[2]d
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata:
      labels: {app: %[1]s, kapacitystack.io/inject-pod-readiness-gate: "true"}
      annotations: {kwok.x-k8s.io/usage-cpu: 50m}
    spec:
      readinessGates: [{conditionType: kapacitystack.io/online}]
      terminationGracePeriodSeconds: 1
      containers: [{name: main, image: simulated, resources: {requests: {cpu: 100m, memory: 64Mi}}}]
---
apiVersion: v1
kind: Service
metadata: {name: %[1]s}
spec: {selector: {app: %[1]s}, ports: [{port: 80}]}
`, app, replicas)
	eventually(t, 30*time.Second, func() error {
		if n := len(pods(t, ns, app)); n != replicas {
			return fmt.Errorf("%d pods", n)
		}
		return nil
	})
	for i, p := range pods(t, ns, app) {
		status := "True"
		if i < cut {
			status = "False"
			must(t, api.Patch(t.Context(), &p, client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"labels":{"`+kapacity.PodStateLabel+`":"Cutoff"}}}`))))
		}
		must(t, api.Status().Patch(t.Context(), &p, client.RawPatch(types.StrategicMergePatchType, fmt.Appendf(nil,
			`{"status":{"conditions":[{"type":%q,"status":%q,"lastTransitionTime":%q}]}}`, kapacity.OnlineConditionType, status, time.Now().UTC().Format(time.RFC3339)))))
	}
	reach(t, ns, app, state{online: replicas - cut, cutoff: cut, endpoints: replicas - cut}, 30*time.Second)
}

// owned makes an object that the IHPA of the name owns as its controller.
func owned(t *testing.T, ns, kind, name, ihpa, spec string) {
	t.Helper()
	create(t, ns, `
apiVersion: autoscaling.kapacitystack.io/v1alpha1
kind: %s
metadata:
  name: %s
  ownerReferences:
  - {apiVersion: autoscaling.kapacitystack.io/v1alpha1, kind: IntelligentHorizontalPodAutoscaler, name: %[3]s, uid: %[4]s, controller: true, blockOwnerDeletion: true}
spec: %[5]s
`, kind, name, ihpa, getIHPA(t, ns, ihpa).UID, spec)
}

func kapacityProfile(t *testing.T, ns, name string, online, cutoff int) {
	t.Helper()
	owned(t, ns, "ReplicaProfile", name, name, fmt.Sprintf(`{scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: %s},
    onlineReplicas: %d, cutoffReplicas: %d, standbyReplicas: 0, paused: false, allowedScalingDirection: Both,
    behavior: {podSorter: {type: WorkloadDefault}, podTrafficController: {type: ReadinessGate}}}`, name, online, cutoff))
	live(t, ns, "rp", name, fmt.Sprintf(`{"onlineReplicas":%d,"cutoffReplicas":%d,"standbyReplicas":0,"conditions":[%s,%s]}`, online, cutoff,
		kapacityCondition("Applied", "True", "ReplicaProfileApplied", "all the operations for ensuring the replica profile are applied"),
		kapacityCondition("Ensured", "True", "ReplicaProfileEnsured", "current replica profile is ensured")))
}

func kapacityCondition(kind, status, reason, message string) string {
	return fmt.Sprintf(`{"type":%q,"status":%q,"reason":%q,"message":%q,"lastTransitionTime":%q}`, kind, status, reason, message, time.Now().UTC().Format(time.RFC3339))
}

var kapacityActive = kapacityCondition("ScalingActive", "True", "SucceededAutoscaling", "the autoscaling process is functional") + "," +
	kapacityCondition("ScalingLimited", "False", "DesiredWithinRange", "the desired replica count of current portrait value is within the acceptable range")

// Kapacity's live objects, with a gray run in progress, a predicted portrait of an external generator and a reactive one, are
// there before Kubetide is: it takes them over, no pod is replaced or gets its traffic back, the run goes
// on at its second, and all can be deleted.
func TestLiveObjectsOfKapacityAreAdopted(t *testing.T) {
	ns := newNamespace(t)
	endKubetide(t)
	t.Cleanup(func() { // also after a failure: others need it
		_, _ = cluster.Kubectl(t.Context(), "-n", system, "scale", "statefulset/kubetide", "--replicas=1")
	})
	const interval = 15 * time.Second
	for app, counts := range map[string][2]int{"shop": {10, 4}, "cart": {3, 0}, "web": {3, 0}} {
		kapacityPods(t, ns, app, counts[0], counts[1])
	}
	staticIHPA(t, ns, "Deployment", "shop", 2, halves(interval, 5*time.Second))
	stepped := time.Now().Truncate(time.Second)
	live(t, ns, "ihpa", "shop", fmt.Sprintf(`{"previousPortraitValue":{"provider":"Static","replicas":10},"currentPortraitValue":{"provider":"Static","replicas":2},
		"gray":{"grayPercent":50,"lastUpdateTime":%q},"conditions":[%s,%s]}`, stepped.UTC().Format(time.RFC3339), kapacityActive,
		kapacityCondition("GrayProgressing", "True", "ReplicasNotMatchPortrait", "online replica count does not match replica count of current portrait value")))
	kapacityProfile(t, ns, "shop", 6, 4)

	expires := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	for app, portrait := range map[string]struct{ kind, spec, data, value string }{
		"cart": {"Predictive", `{portraitType: Predictive, externalGeneratorName: forecaster, algorithm: {type: Forecast}}`,
			fmt.Sprintf(`{"type":"TimeSeries","timeSeries":{"timeSeries":[{"timestamp":%d,"replicas":3}]},"expireTime":%q}`, time.Now().Add(-time.Minute).Unix(), expires),
			fmt.Sprintf(`{"provider":"Dynamic-Predictive","replicas":3,"expireTime":%q}`, expires)},
		"web": {"Reactive", `{portraitType: Reactive, algorithm: {type: KubeHPA, kubeHPA: {syncPeriod: 15s, tolerance: "0.1"}}, metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}}]}`,
			`{"type":"Static","static":{"replicas":3}}`, `{"provider":"Dynamic-Reactive","replicas":3}`},
	} {
		create(t, ns, `
apiVersion: autoscaling.kapacitystack.io/v1alpha1
kind: IntelligentHorizontalPodAutoscaler
metadata: {name: %[1]s}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: %[1]s}
  minReplicas: 1
  maxReplicas: 10
  portraitProviders: [{type: Dynamic, priority: 1, dynamic: %[2]s}]
`, app, portrait.spec)
		live(t, ns, "ihpa", app, fmt.Sprintf(`{"currentPortraitValue":%s,"conditions":[%s,%s]}`, portrait.value, kapacityActive,
			kapacityCondition("GrayProgressing", "False", "ReplicasMatchPortrait", "online replica count matches replica count of current portrait value")))
		kapacityProfile(t, ns, app, 3, 0)
		name := app + "-" + strings.ToLower(portrait.kind)
		owned(t, ns, "HorizontalPortrait", name, app, "{scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: "+app+"}, "+strings.TrimPrefix(portrait.spec, "{"))
		live(t, ns, "hp", name, fmt.Sprintf(`{"portraitData":%s,"conditions":[%s]}`, portrait.data,
			kapacityCondition("PortraitGenerated", "True", "SucceededGeneratePortrait", "portrait has been successfully generated")))
	}
	run, cart, web := follow(t, ns, "shop"), follow(t, ns, "cart"), follow(t, ns, "web")

	began := time.Now()
	beginKubetide(t)
	run.mark("Kubetide begins")
	// Kubetide's run goes from where it found the pods, in halves of what was left.
	next := reach(t, ns, "shop", state{online: 4, cutoff: 6, endpoints: 4}, 60*time.Second)
	t.Logf("Kubetide was started %v after Kapacity's step and took the next one %v after it", began.Sub(stepped).Round(100*time.Millisecond), next.Sub(stepped).Round(100*time.Millisecond))
	if due := stepped.Add(interval); next.Before(due) || next.After(due.Add(20*time.Second)) {
		t.Errorf("the next step came %v after Kapacity's, want %v, or as soon as Kubetide leads", next.Sub(stepped), interval)
	}
	reach(t, ns, "shop", state{online: 2, cutoff: 8, endpoints: 2}, interval+10*time.Second)
	if got := replicas(t, ns, "Deployment", "shop"); got != 10 {
		t.Errorf("/scale is %d while pods are held, want 10", got)
	}
	reach(t, ns, "shop", state{online: 2, endpoints: 2}, 40*time.Second)
	for _, app := range []string{"shop", "cart", "web"} {
		eventually(t, 30*time.Second, conditionIs(t, ns, app, kapacity.ConditionScalingActive, metav1.ConditionTrue))
	}
	run.wantAsked(t, 10, 2)
	run.wantNoFlap(t)
	for _, c := range []*chronicle{cart, web} {
		c.wantAsked(t, 3)
		c.wantNoFlap(t)
	}
	for _, e := range events(t, ns, "IntelligentHorizontalPodAutoscaler", "cart", "") {
		if e.Type == corev1.EventTypeWarning {
			t.Errorf("a portrait that was taken over: %+v", e)
		}
	}
	waitForKubetide(t)

	for _, app := range []string{"shop", "cart", "web"} {
		must(t, api.Delete(t.Context(), getIHPA(t, ns, app)))
	}
	deleted := time.Now()
	eventually(t, 20*time.Second, func() error {
		out, err := cluster.Kubectl(t.Context(), "-n", ns, "get", "ihpa,rp,hp", "-o", "name")
		if err == nil && out != "" {
			err = fmt.Errorf("left are %s", strings.Join(slices.Sorted(strings.SplitSeq(strings.TrimSpace(out), "\n")), ", "))
		}
		if apierrors.IsNotFound(err) {
			err = nil
		}
		return err
	})
	t.Logf("IHPAs, profiles and portraits were gone %v after the deletion", time.Since(deleted).Round(100*time.Millisecond))
	for app, want := range map[string]int32{"shop": 2, "cart": 3, "web": 3} {
		must(t, wantReplicas(t, ns, "Deployment", app, want)())
	}
}
