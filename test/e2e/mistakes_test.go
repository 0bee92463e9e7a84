package e2e

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	zalando "github.com/kubetide/kubetide/api/zalando/v1"
	"github.com/kubetide/kubetide/internal/traffic"
	"github.com/kubetide/kubetide/workloads/stackset/generate"
)

// stackSetManifest is that of one with a version; more are fields of its template's spec, in flow style.
func stackSetManifest(name, spec, version, more string) string {
	return fmt.Sprintf(`
apiVersion: zalando.org/v1
kind: StackSet
metadata: {name: %[1]s}
spec:
  stackLifecycle: {}
  %[2]s
  stackTemplate:
    spec: {version: %[3]s, podTemplate: {spec: {containers: [{name: main, image: simulated, ports: [{containerPort: 8080, name: http}]}]}}%[4]s}
`, name, spec, version, more)
}

const (
	routed = "ingress: {hosts: [a.example.org], backendPort: http}"
	taken  = "is there already, and was not made for this Stack"
	long   = "a-version-that-makes-of-it-more-than-a-service-can-be-called-by"
)

// Row by row, who says it: the API server by the CRD's rules, or Kubetide's webhook.
func TestMistakesInStackSetsAreRefusedByTheirField(t *testing.T) {
	ns := newNamespace(t)
	for name, c := range map[string]struct {
		manifest string
		rule     bool
		want     []string
	}{
		"a negative weight":        {stackSetManifest("a", routed+"\n  traffic: [{stackName: a-v1, weight: -1}]", "v1", ""), true, []string{"spec.traffic[0].weight", "greater than or equal to 0"}},
		"a Stack named twice":      {stackSetManifest("a", routed+"\n  traffic: [{stackName: a-v1, weight: 1}, {stackName: a-v1, weight: 2}]", "v1", ""), true, []string{"spec.traffic", "each Stack must be named once"}},
		"a dotted version":         {stackSetManifest("a", routed, "1.2.3", ""), true, []string{"spec.stackTemplate.spec.version", "hold no dot"}},
		"a name that is too long":  {stackSetManifest("a", routed, long, ""), true, []string{"spec.stackTemplate.spec.version", "at most 63"}},
		"a minimum above its most": {stackSetManifest("a", routed, "v1", ", autoscaler: {minReplicas: 3, maxReplicas: 2, metrics: []}"), true, []string{"maxReplicas must not be less than minReplicas"}},
		"ports that do not match":  {stackSetManifest("a", strings.Replace(routed, "http", "80", 1), "v1", ""), false, []string{"spec.ingress.backendPort", "no port of the Stack's Service has that number; there is http (8080)"}},
		"a bad metric":             {stackSetManifest("a", routed, "v1", ", autoscaler: {maxReplicas: 2, metrics: [{type: CPU}]}"), false, []string{"spec.stackTemplate.spec.autoscaler.metrics[0]", "write averageUtilization"}},
		"a shared ConfigMap":       {stackSetManifest("a", routed, "v1", ", configurationResources: [{configMapRef: {name: config}}]"), false, []string{"configurationResources[0].configMapRef.name", "must begin with the Stack's name, a-v1"}},
		"a Step without a Service": {"{apiVersion: core.kai.io/v1alpha1, kind: Step, metadata: {name: 1a}, spec: {containers: [{name: a, image: simulated}], maxReplicas: 1}}", false, []string{"metadata.name", "no valid name of a Service"}},
		"a Pipeline of nothing":    {"{apiVersion: core.kai.io/v1alpha1, kind: Pipeline, metadata: {name: p}, spec: {steps: [{spec: {maxReplicas: 1}}]}}", false, []string{"spec.steps[0].spec.containers"}},
	} {
		t.Run(name, func(t *testing.T) {
			eventually(t, 30*time.Second, func() error {
				err := wouldCreate(t, ns, c.manifest)
				if !c.rule {
					return refusedFor(err, c.want...)
				}
				if !apierrors.IsInvalid(err) {
					return fmt.Errorf("it was not refused: %w", err)
				}
				for _, want := range c.want {
					if !strings.Contains(err.Error(), want) {
						return fmt.Errorf("the refusal lacks %q: %w", want, err)
					}
				}
				return nil
			})
		})
	}
	if said := warnings(t, ns, stackSetManifest("a", routed+"\n  traffic: [{stackName: a-v1, weight: 50}, {stackName: a-v9, weight: 50}]", "v1", ""), "--dry-run=server"); !strings.Contains(said, "spec.traffic[1].stackName: there is no Stack a-v9: its weight does not count; there is a-v1") {
		t.Errorf("an unknown Stack: %s", said)
	}
}

// What gets past admission, or only the cluster knows, is told by conditions and Events; the traffic stays where it is, and neighbours get
// theirs.
func TestAStackWithAMistakeGetsNoTrafficWhileAnotherServes(t *testing.T) {
	ns := newNamespace(t)
	// What a controller has made is not refused.
	bypass := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "controller"}}
	must(t, api.Create(t.Context(), bypass))
	allowConfiguration(t, ns)
	foreign := func(name string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Namespace: ns, Name: name, OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: bypass.Name, UID: bypass.UID}}}
	}
	rows := map[string]struct {
		spec, more string                           // of the second version, as a merge patch
		foreign    func(stack string) client.Object // is there before, and stays as it is
		event      string
		want       string
	}{
		"ports": {spec: `"ingress":{"backendPort":81},`, event: "FailedManageService", want: "no service ports matching backendPort '81'"},
		"metric": {more: `"autoscaler":{"maxReplicas":2,"metrics":[{"type":"CPU"}]},`, event: "FailedManageHPA",
			want: "autoscaler metric of type CPU: utilization is not specified"},
		"pods": {more: `"podTemplate":{"spec":{"containers":[{"name":"Main","image":"simulated","ports":[{"containerPort":8080,"name":"http"}]}]}},`,
			event: "FailedManageDeployment", want: "spec.template.spec.containers[0].name"},
		"missing": {more: `"configurationResources":[{"configMapRef":{"name":"missing-v2-config"}}],`, event: "FailedManageConfigMapRefs", want: "missing-v2-config"},
		"owned": {more: `"configurationResources":[{"configMapRef":{"name":"owned-v2-config"}}],`, event: "FailedManageConfigMapRefs", want: "already owned by other resource",
			foreign: func(stack string) client.Object {
				return &corev1.ConfigMap{ObjectMeta: foreign(stack + "-config")}
			}},
		"inline": {more: `"configurationResources":[{"configMap":{"name":"inline-v2-config","data":{"a":"1"}}}],`, event: "FailedManageConfigMap", want: taken,
			foreign: func(stack string) client.Object { return &corev1.ConfigMap{ObjectMeta: foreign(stack + "-config")} }},
		"deployment": {event: "FailedManageDeployment", want: taken, foreign: func(stack string) client.Object {
			labels := map[string]string{"app": "foreign"}
			pod := corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "simulated"}}}
			return &appsv1.Deployment{ObjectMeta: foreign(stack), Spec: appsv1.DeploymentSpec{Selector: &metav1.LabelSelector{MatchLabels: labels},
				Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: pod}}}
		}},
		"service": {event: "FailedManageService", want: taken, foreign: func(stack string) client.Object {
			return &corev1.Service{ObjectMeta: foreign(stack), Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}}
		}},
		"segment": {event: "FailedManageIngressSegment", want: taken, foreign: func(stack string) client.Object {
			backend := &networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: "other", Port: networkingv1.ServiceBackendPort{Number: 80}}}
			return &networkingv1.Ingress{ObjectMeta: foreign(stack + generate.SegmentSuffix), Spec: networkingv1.IngressSpec{DefaultBackend: backend}}
		}},
	}
	others := map[string]client.Object{}
	for name := range rows {
		manifest := strings.Replace(stackSetManifest(name, routed, "v1", ""), "metadata: {name: "+name+"}",
			fmt.Sprintf("metadata: {name: %s, ownerReferences: [{apiVersion: v1, kind: ConfigMap, name: %s, uid: %s, controller: true}]}", name, bypass.Name, bypass.UID), 1)
		create(t, ns, "%s", manifest)
	}
	serves := func(name, stack string) func() error {
		return func() error {
			set := &zalando.StackSet{}
			if err := api.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: name}, set); err != nil {
				return err
			}
			for _, s := range set.Status.Traffic {
				if (s.Weight > 0) != (s.StackName == stack) {
					return fmt.Errorf("StackSet %s: %s has %v", name, s.StackName, s.Weight)
				}
			}
			if !apimeta.IsStatusConditionTrue(set.Status.Conditions, "TrafficSwitched") || len(set.Status.Traffic) == 0 {
				return fmt.Errorf("StackSet %s: %+v", name, set.Status)
			}
			return nil
		}
	}
	for name := range rows {
		eventually(t, 60*time.Second, serves(name, name+"-v1"))
	}
	for name, c := range rows {
		if c.foreign != nil {
			others[name] = c.foreign(name + "-v2")
			must(t, api.Create(t.Context(), others[name]))
		}
		patch := fmt.Sprintf(`{"spec":{%s"traffic":[{"stackName":"%s-v2","weight":100}],"stackTemplate":{"spec":{%s"version":"v2"}}}}`, c.spec, name, c.more)
		must(t, api.Patch(t.Context(), &zalando.StackSet{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}}, client.RawPatch(types.MergePatchType, []byte(patch))))
	}
	create(t, ns, "%s", stackSetManifest("neighbour", routed, "v1", ""))
	for name, c := range rows {
		eventually(t, 60*time.Second, func() error {
			set, stack := &zalando.StackSet{}, &zalando.Stack{}
			if err := api.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: name}, set); err != nil {
				return err
			}
			if err := api.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: name + "-v2"}, stack); err != nil {
				return err
			}
			for _, conditions := range [][]metav1.Condition{set.Status.Conditions, stack.Status.Conditions} {
				d := apimeta.FindStatusCondition(conditions, "Degraded")
				if d == nil || d.Status != metav1.ConditionTrue || !strings.Contains(d.Message, c.want) {
					return fmt.Errorf("%s: no condition says %q: %+v", name, c.want, conditions)
				}
			}
			if !apimeta.IsStatusConditionFalse(set.Status.Conditions, "TrafficSwitched") {
				return fmt.Errorf("%s: %+v", name, set.Status.Conditions)
			}
			return nil
		})
		eventually(t, 20*time.Second, wantEvent(t, ns, "Stack", name+"-v2", c.event, c.want))
		eventually(t, 20*time.Second, wantEvent(t, ns, "StackSet", name, "TrafficNotSwitched", name+"-v2"))
		if got := segmentOf(t.Context(), ns, name+"-v1"); got != traffic.All {
			t.Errorf("%s: the Stack that serves has %v", name, got)
		}
		if got := segmentOf(t.Context(), ns, name+"-v2"); got.Width() > 0 {
			t.Errorf("%s: the Stack with the mistake has %v", name, got)
		}
	}
	eventually(t, 60*time.Second, serves("neighbour", "neighbour-v1"))
	for name, o := range others {
		must(t, api.Get(t.Context(), client.ObjectKeyFromObject(o), o))
		if slices.ContainsFunc(o.GetManagedFields(), func(f metav1.ManagedFieldsEntry) bool { return f.Manager == "kubetide" }) || len(o.GetOwnerReferences()) != 1 {
			t.Errorf("%s: somebody else's %s was touched: %+v", name, o.GetName(), o.GetManagedFields())
		}
	}
	// Mended, it gets it.
	must(t, api.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "missing-v2-config"}}))
	eventually(t, 90*time.Second, serves("missing", "missing-v2"))
}

// segmentOf is what routers may send to the Stack; none if there is no segment.
func segmentOf(ctx context.Context, ns, stack string) traffic.Segment {
	ingress := &networkingv1.Ingress{}
	if api.Get(ctx, client.ObjectKey{Namespace: ns, Name: stack + generate.SegmentSuffix}, ingress) != nil {
		return traffic.Segment{}
	}
	segment, _, err := generate.LiveIngress(ingress)
	if err != nil {
		return traffic.Segment{}
	}
	return segment
}

var builtPlugin = sync.OnceValues(func() (string, error) {
	binary := filepath.Join(cluster.Dir(), "kubectl-tide")
	build := exec.CommandContext(context.Background(), "go", "build", "-o", binary, "../../cmd/kubectl-tide")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // as make build does
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the plugin: %w\n%s", err, out)
	}
	return binary, nil
})

// plugin is the path of kubectl-tide.
func plugin(t *testing.T) string {
	t.Helper()
	binary, err := builtPlugin()
	must(t, err)
	return binary
}

// The plugin on a real API server: a tree that follows what happens, and weights that are written.
func TestTrafficIsSharedOutAtTheTerminal(t *testing.T) {
	ns := newNamespace(t)
	for _, version := range []string{"v1", "v2"} {
		kubectl(t, ns, stackSetManifest("cart", routed, version, ""), "apply", "--server-side", "--field-manager=e2e", "-f", "-")
		eventually(t, 60*time.Second, func() error {
			stack := &zalando.Stack{}
			if err := api.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: "cart-" + version}, stack); err != nil {
				return err
			}
			if !apimeta.IsStatusConditionTrue(stack.Status.Conditions, "Ready") {
				return fmt.Errorf("%+v", stack.Status.Conditions)
			}
			return nil
		})
	}
	binary := plugin(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	tide := func(args ...string) *exec.Cmd {
		return exec.CommandContext(ctx, binary, append(args, "-n", ns, "--kubeconfig="+cluster.KubeconfigPath())...)
	}
	follower := tide("get", "stackset", "cart", "--watch")
	shown, err := follower.StdoutPipe()
	must(t, err)
	must(t, follower.Start())
	lines := bufio.NewScanner(shown)
	shows := func(text string) {
		t.Helper()
		for lines.Scan() {
			if strings.Contains(lines.Text(), text) {
				return
			}
		}
		t.Fatalf("the watch ended and never showed %q", text)
	}
	shows("├─ cart-v1  100 %    100 %")
	if out, err := tide("traffic", "cart", "v2", "25").CombinedOutput(); err != nil || !strings.Contains(string(out), "spec.traffic was changed") {
		t.Errorf("%v: %s", err, out)
	}
	shows("└─ cart-v2  25 %     25 %")
	must(t, follower.Process.Signal(os.Interrupt))
	if err := follower.Wait(); err != nil {
		t.Errorf("after Ctrl-C: %v", err)
	}
	eventually(t, 30*time.Second, func() error {
		text, err := tide("get", "stackset", "cart").CombinedOutput()
		must(t, err)
		out := string(text)
		for _, want := range []string{"├─ cart-v1  75 %     75 %    1/1 ready", "└─ cart-v2  25 %     25 %    1/1 ready", "TrafficSwitched  True"} {
			if !strings.Contains(out, want) {
				return fmt.Errorf("no %q in\n%s", want, out)
			}
		}
		return nil
	})
	if out, err := tide("traffic", "cart", "v3", "25").CombinedOutput(); err == nil || !strings.Contains(string(out), "has no Stack v3; there is cart-v1, cart-v2") {
		t.Errorf("%v: %s", err, out)
	}
}
