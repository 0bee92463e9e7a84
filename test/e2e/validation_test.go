package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
)

// impossible is an IHPA with mistakes that the CRD's rules cannot find, and whose workload is none.
func impossible(name string) string {
	return fmt.Sprintf(`
apiVersion: autoscaling.kapacitystack.io/v1alpha1
kind: IntelligentHorizontalPodAutoscaler
metadata: {name: %s}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: shop}
  minReplicas: 1
  maxReplicas: 10
  portraitProviders:
  - {type: Cron, priority: 2, cron: {crons: [{name: night, start: "0 0 30 2 *", end: "0 6 * * *", replicas: 5}]}}
  - {type: Dynamic, priority: 3, dynamic: {portraitType: Reactive, algorithm: {type: Oracle}}}
`, name)
}

// refusedFor says whether err is a refusal of the webhook with all fragments.
func refusedFor(err error, fragments ...string) error {
	if err == nil {
		return errors.New("it was accepted")
	}
	if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), kapacity.ValidationWebhookName) {
		return fmt.Errorf("no refusal of the webhook: %w", err)
	}
	for _, f := range fragments {
		if !strings.Contains(err.Error(), f) {
			return fmt.Errorf("the refusal lacks %q: %w", f, err)
		}
	}
	return nil
}

// wouldCreate asks what became of the manifest, and leaves nothing behind.
func wouldCreate(t *testing.T, ns, manifest string) error {
	t.Helper()
	var u unstructured.Unstructured
	must(t, yaml.Unmarshal([]byte(manifest), &u.Object))
	u.SetNamespace(ns)
	return api.Create(t.Context(), &u, client.DryRunAll)
}

// warnings creates the manifest with kubectl and returns what it prints beside.
func warnings(t *testing.T, ns, manifest string, flags ...string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "manifest.yaml")
	must(t, os.WriteFile(file, []byte(manifest), 0o600))
	// The lab returns standard error only where kubectl fails, which these warnings make it do after all is done.
	_, err := cluster.Kubectl(t.Context(), append([]string{"create", "-n", ns, "-f", file, "--warnings-as-errors"}, flags...)...)
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestMistakesAreRefusedOrWarnedOfAndWhatIsStoredStaysEditable(t *testing.T) {
	ns := newNamespace(t)
	all := []string{`spec.portraitProviders[0].cron.crons[0].start: Invalid value: "0 0 30 2 *": cron expression never fires`, "name a day that the month has",
		`spec.portraitProviders[1].dynamic.algorithm.type: Unsupported value: "Oracle"`}
	eventually(t, 30*time.Second, func() error { return refusedFor(wouldCreate(t, ns, impossible("bad")), all...) })

	workload(t, ns, "Deployment", "shop", 2, "")
	create(t, ns, `
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: stock}
spec: {scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: shop}, minReplicas: 2, maxReplicas: 3, metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 60}}}]}`)
	const fine = `
apiVersion: autoscaling.kapacitystack.io/v1alpha1
kind: IntelligentHorizontalPodAutoscaler
metadata: {name: fine, annotations: {metric-config.external.load.json-path/jsonkey: "$.x"}}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: %s, name: shop}
  minReplicas: 1
  maxReplicas: 3
  portraitProviders:
  - {type: Dynamic, priority: 3, dynamic: {portraitType: Reactive, algorithm: {type: KubeHPA}, metrics: [{type: External, external: {metric: {name: load, selector: {matchLabels: {type: json-path}}}, target: {type: Value, value: "5"}}}]}}
  behavior: {scaleUp: {grayStrategy: {grayState: Online, changePercent: 100, changeIntervalSeconds: 5}}}
`
	eventually(t, 10*time.Second, func() error {
		said := warnings(t, ns, fmt.Sprintf(fine, "Deployment"), "--dry-run=server")
		for _, f := range []string{"HorizontalPodAutoscaler stock scales Deployment shop, too", "spec.behavior.scaleUp.grayStrategy.changePercent: 100 makes the whole change in one step",
			"spec.portraitProviders[0].dynamic.metrics[0]: "} {
			if !strings.Contains(said, f) {
				return fmt.Errorf("no warning %q in %s", f, said)
			}
		}
		return nil
	})
	if said := warnings(t, ns, fmt.Sprintf(fine, "Fleet"), "--dry-run=server"); !strings.Contains(said, `this cluster knows no kind "Fleet" in "apps/v1"`) {
		t.Errorf("an unknown kind: %s", said)
	}
	must(t, kube.AutoscalingV2().HorizontalPodAutoscalers(ns).Delete(t.Context(), "stock", metav1.DeleteOptions{}))

	// Without Kubetide nothing waits: neither a mistake nor a deletion.
	kubetide := kube.AppsV1().StatefulSets(system)
	scale := func(n int) {
		_, err := kubetide.Patch(t.Context(), "kubetide", types.MergePatchType, []byte(fmt.Sprintf(`{"spec":{"replicas":%d}}`, n)), metav1.PatchOptions{})
		must(t, err)
	}
	set := func(what string) {
		out, err := cluster.Kubectl(t.Context(), "-n", system, "set", "env", "statefulset/kubetide", what)
		must(t, err)
		t.Log(strings.TrimSpace(out))
	}
	rolledOut := func() {
		_, err := cluster.Kubectl(t.Context(), "-n", system, "rollout", "status", "statefulset/kubetide", "--timeout=120s")
		must(t, err)
		waitForKubetide(t)
	}
	restore := func() {
		set("KUBETIDE_VALIDATION-")
		scale(1)
		rolledOut()
	}
	restored := false
	t.Cleanup(func() {
		if !restored {
			t.Log("Kubetide may be left with another validation")
		}
	})
	scale(0)
	eventually(t, 60*time.Second, func() error {
		if n := len(kubetidePods(t)); n > 0 {
			return fmt.Errorf("%d pods of Kubetide are left", n)
		}
		return nil
	})
	for _, name := range []string{"stored", "doomed"} {
		began := time.Now()
		create(t, ns, "%s", impossible(name))
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("a write without Kubetide took %s", took)
		}
	}
	must(t, api.Delete(t.Context(), &kapacity.IntelligentHorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "doomed"}}))

	// Warnings only.
	set("KUBETIDE_VALIDATION=warn")
	scale(1)
	rolledOut()
	eventually(t, 30*time.Second, func() error {
		said := warnings(t, ns, impossible("warned"), "--dry-run=server")
		for _, f := range all {
			if !strings.Contains(said, f) {
				return fmt.Errorf("no warning %q in %s", f, said)
			}
		}
		return nil
	})
	if said := warnings(t, ns, impossible("warned")); said == "" {
		t.Error("no warning")
	}
	must(t, api.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: "warned"}, &kapacity.IntelligentHorizontalPodAutoscaler{}))

	// Refused again; what is stored is told, can be edited, mended and deleted, but gets no further mistakes.
	restore()
	restored = true
	// The pod that warned answers for a moment more.
	eventually(t, 30*time.Second, func() error { return refusedFor(wouldCreate(t, ns, impossible("bad")), all...) })
	if err := refusedFor(tryCreate(t.Context(), ns, impossible("bad")), all...); err != nil {
		t.Error(err)
	}
	eventually(t, 20*time.Second, conditionIs(t, ns, "stored", "PortraitsHealthy", "False")) // its status, written with the mistakes in the spec
	patch := func(text string) error {
		return api.Patch(t.Context(), &kapacity.IntelligentHorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "stored"}},
			client.RawPatch(types.MergePatchType, []byte(text)))
	}
	must(t, patch(`{"metadata":{"labels":{"a":"b"}}}`))
	must(t, patch(`{"spec":{"paused":true,"maxReplicas":12}}`))
	if err := refusedFor(patch(`{"spec":{"scheduledBounds":[{"name":"never","start":"0 0 31 4 *","end":"0 1 * * *","minReplicas":2}]}}`), "spec.scheduledBounds[0].start"); err != nil {
		t.Error(err)
	}
	must(t, patch(`{"spec":{"portraitProviders":[{"type":"Static","priority":1,"static":{"replicas":2}}]}}`))
	for _, name := range []string{"stored", "warned"} {
		must(t, api.Delete(t.Context(), &kapacity.IntelligentHorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}}))
	}
	eventually(t, 20*time.Second, func() error {
		list := &kapacity.IntelligentHorizontalPodAutoscalerList{}
		must(t, api.List(t.Context(), list, client.InNamespace(ns)))
		if len(list.Items) > 0 {
			return fmt.Errorf("%s is not gone", list.Items[0].Name)
		}
		return nil
	})
}
