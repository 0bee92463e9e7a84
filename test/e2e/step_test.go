package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"
)

// kubectl runs one for the namespace; manifest is its standard input.
func kubectl(t *testing.T, ns, manifest string, args ...string) string {
	t.Helper()
	out, err := cluster.KubectlInput(t.Context(), manifest, append([]string{"-n", ns}, args...)...)
	if err != nil {
		t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func kaiObject(t *testing.T, ns, kind, name string) *unstructured.Unstructured {
	t.Helper()
	u := &unstructured.Unstructured{}
	u.SetAPIVersion("core.kai.io/v1alpha1")
	u.SetKind(kind)
	must(t, api.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: name}, u))
	return u
}

// wantCondition checks a condition of a Step or Pipeline, and that it is about the latest spec.
func wantCondition(t *testing.T, ns, kind, name, condition, status, reason, says string) func() error {
	return func() error {
		u := kaiObject(t, ns, kind, name)
		all, _, _ := unstructured.NestedSlice(u.Object, "status", "conditions")
		for _, c := range all {
			c := c.(map[string]any)
			message, _ := c["message"].(string)
			if c["type"] == condition && c["status"] == status && (reason == "" || c["reason"] == reason) && strings.Contains(message, says) &&
				c["observedGeneration"] == u.GetGeneration() {
				return nil
			}
		}
		return fmt.Errorf("%s %s lacks %s=%s (%s, %q) for generation %d; it has %v", kind, name, condition, status, reason, says, u.GetGeneration(), all)
	}
}

func stepReady(t *testing.T, ns, name string) {
	t.Helper()
	eventually(t, 60*time.Second, wantCondition(t, ns, "Step", name, "Ready", "True", "Ready", ""))
}

func deployment(t *testing.T, ns, name string) *appsv1.Deployment {
	t.Helper()
	d, err := kube.AppsV1().Deployments(ns).Get(t.Context(), name, metav1.GetOptions{})
	must(t, err)
	return d
}

func replicaSets(t *testing.T, ns string) int {
	t.Helper()
	list, err := kube.AppsV1().ReplicaSets(ns).List(t.Context(), metav1.ListOptions{})
	must(t, err)
	return len(list.Items)
}

const httpEcho = `
apiVersion: core.kai.io/v1alpha1
kind: Step
metadata:
  name: http-echo
spec:
  containers:
  - name: http-echo
    image: "hashicorp/http-echo"
    args: ["-listen=:9001", "-text=hello from version 1"]
    ports:
    - containerPort: 9001
`

// The two blocks that Kai documents, with the UID and the namespace of the test.
const documentedDeployment = `
progressDeadlineSeconds: 60
replicas: 1
revisionHistoryLimit: 10
selector:
  matchLabels:
    core.kai.io/stepUID: d8f6ed0a-44dd-4353-8243-e5a199e190da
strategy:
  rollingUpdate:
    maxSurge: 25%
    maxUnavailable: 0
  type: RollingUpdate
template:
  metadata:
    annotations:
      kubectl.kubernetes.io/last-applied-configuration: |
        {"apiVersion":"core.kai.io/v1alpha1","kind":"Step","metadata":{"annotations":{},"name":"http-echo","namespace":"default"},"spec":{"containers":[{"args":["-listen=:9001","-text=hello from version 1"],"image":"hashicorp/http-echo","name":"http-echo","ports":[{"containerPort":9001}]}]}}
    labels:
      core.kai.io/step: http-echo
      core.kai.io/stepUID: d8f6ed0a-44dd-4353-8243-e5a199e190da
  spec:
    containers:
    - args:
      - -listen=:9001
      - -text=hello from version 1
      image: hashicorp/http-echo
      imagePullPolicy: Always
      name: http-echo
      ports:
      - containerPort: 9001
        protocol: TCP
      resources: {}
      terminationMessagePath: /dev/termination-log
      terminationMessagePolicy: File
    dnsPolicy: ClusterFirst
    restartPolicy: Always
    schedulerName: default-scheduler
    securityContext: {}
    terminationGracePeriodSeconds: 30
`

const documentedHPA = `
behavior:
  scaleDown:
    policies:
    - periodSeconds: 15
      type: Percent
      value: 100
    selectPolicy: Max
  scaleUp:
    policies:
    - periodSeconds: 15
      type: Pods
      value: 4
    - periodSeconds: 15
      type: Percent
      value: 100
    selectPolicy: Max
    stabilizationWindowSeconds: 0
maxReplicas: 1
metrics:
- resource:
    name: cpu
    target:
      averageUtilization: 80
      type: Utilization
  type: Resource
minReplicas: 1
scaleTargetRef:
  apiVersion: apps/v1
  kind: Deployment
  name: http-echo-deployment
`

// K2, K3, K5, K6, then K20, K21, K11 and K22 on the same Step.
func TestTheDocumentedStep(t *testing.T) {
	ns := newNamespace(t)
	kubectl(t, ns, httpEcho, "apply", "-f", "-")
	stepReady(t, ns, "http-echo")
	uid := string(kaiObject(t, ns, "Step", "http-echo").GetUID())
	compare := func(documented, kind, name string) {
		t.Helper()
		var want, got map[string]any
		documented = strings.NewReplacer("d8f6ed0a-44dd-4353-8243-e5a199e190da", uid, `"namespace":"default"`, `"namespace":"`+ns+`"`).Replace(documented)
		must(t, yaml.Unmarshal([]byte(documented), &want))
		must(t, json.Unmarshal([]byte(kubectl(t, ns, "", "get", kind, name, "-o", "jsonpath={.spec}")), &got))
		if template, ok := got["template"].(map[string]any); ok {
			delete(template["metadata"].(map[string]any), "creationTimestamp")
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-documented +stored):\n%s", kind, diff)
		}
	}
	compare(documentedDeployment, "deployment", "http-echo-deployment")
	compare(documentedHPA, "hpa", "http-echo-hpa")
	service, err := kube.CoreV1().Services(ns).Get(t.Context(), "http-echo-service", metav1.GetOptions{})
	must(t, err)
	want := []corev1.ServicePort{{Protocol: "TCP", Port: 9001, TargetPort: intstr.FromInt32(9001)}}
	if diff := cmp.Diff(want, service.Spec.Ports); diff != "" || service.Spec.Type != "ClusterIP" || service.Spec.Selector["core.kai.io/stepUID"] != uid || len(service.Spec.Selector) != 1 {
		t.Errorf("Service %+v\n%s", service.Spec, diff)
	}

	kubectl(t, ns, httpEcho+"  maxReplicas: 10\n", "apply", "-f", "-")
	eventually(t, 5*time.Second, func() error {
		if got := getHPA(t, ns, "http-echo-hpa").Spec.MaxReplicas; got != 10 {
			return fmt.Errorf("maxReplicas %d", got)
		}
		return nil
	})
	if n := replicaSets(t, ns); n != 1 {
		t.Errorf("K20: a new maximum made %d ReplicaSets", n)
	}

	kubectl(t, ns, "", "rollout", "restart", "deployment/http-echo-deployment")
	kubectl(t, ns, "", "rollout", "status", "deployment/http-echo-deployment", "--timeout=60s")
	if d := deployment(t, ns, "http-echo-deployment"); d.Spec.Template.Annotations["kubectl.kubernetes.io/restartedAt"] == "" || replicaSets(t, ns) != 2 {
		t.Errorf("K21: the restart was undone: %v", d.Spec.Template.Annotations)
	}

	kubectl(t, ns, "", "scale", "deployment/http-echo-deployment", "--replicas=7")
	kubectl(t, ns, "", "patch", "step", "http-echo", "--type=json", `-p=[{"op":"replace","path":"/spec/containers/0/image","value":"hashicorp/http-echo:2"}]`)
	eventually(t, 5*time.Second, func() error {
		if d := deployment(t, ns, "http-echo-deployment"); d.Spec.Template.Spec.Containers[0].Image != "hashicorp/http-echo:2" || *d.Spec.Replicas != 7 {
			return fmt.Errorf("K11: image %s, %d replicas", d.Spec.Template.Spec.Containers[0].Image, *d.Spec.Replicas)
		}
		return nil
	})
	kubectl(t, ns, "", "rollout", "status", "deployment/http-echo-deployment", "--timeout=60s")
	stepReady(t, ns, "http-echo")

	// What is owed is written by the time that three seconds pass without a write; from then on, looking again writes nothing.
	writes := func(since time.Time) (out []string) {
		for r, err := range cluster.Audit(since) {
			must(t, err)
			if r.User == kubetideUser && r.Writes() && r.Namespace == ns {
				out = append(out, r.Verb+" "+r.Resource+"/"+r.Name+" "+r.Subresource)
			}
		}
		return out
	}
	eventually(t, 60*time.Second, func() error {
		if w := writes(time.Now().Add(-3 * time.Second)); len(w) > 0 {
			return fmt.Errorf("still writing: %v", w)
		}
		return nil
	})
	since := time.Now()
	for i, object := range []string{"deployment/http-echo-deployment", "service/http-echo-service", "hpa/http-echo-hpa"} {
		kubectl(t, ns, "", "annotate", object, fmt.Sprintf("example.org/looked=%d", i))
	}
	// Events come in order: the repair shows that what was before it has been looked at.
	kubectl(t, ns, "", "label", "service/http-echo-service", "core.kai.io/stepUID=wrong", "--overwrite")
	eventually(t, 5*time.Second, func() error {
		s, err := kube.CoreV1().Services(ns).Get(t.Context(), "http-echo-service", metav1.GetOptions{})
		must(t, err)
		if s.Labels["core.kai.io/stepUID"] != uid || s.Annotations["example.org/looked"] != "1" {
			return fmt.Errorf("labels %v, annotations %v", s.Labels, s.Annotations)
		}
		return nil
	})
	w := slices.DeleteFunc(writes(since), func(s string) bool { return strings.Contains(s, "events") })
	if diff := cmp.Diff([]string{"patch services/http-echo-service "}, w); diff != "" {
		t.Errorf("K22: writes (-want +got):\n%s", diff)
	}
}

// K15, K18, K19, and D17 in between.
func TestWhatIsMadeOfAStepComesBackAndGoesWithIt(t *testing.T) {
	ns := newNamespace(t)
	const step = `
apiVersion: core.kai.io/v1alpha1
kind: Step
metadata: {name: dns}
spec:
  containers: [{name: main, image: simulated, ports: [{containerPort: 8080, name: http}, {containerPort: 53, name: dns, protocol: UDP}]}]
  maxReplicas: 3
  behavior: {scaleDown: {stabilizationWindowSeconds: 300}}
`
	kubectl(t, ns, step, "apply", "-f", "-")
	stepReady(t, ns, "dns")
	service, err := kube.CoreV1().Services(ns).Get(t.Context(), "dns-service", metav1.GetOptions{})
	must(t, err)
	want := []corev1.ServicePort{{Name: "http", Protocol: "TCP", Port: 8080, TargetPort: intstr.FromInt32(8080)}, {Name: "dns", Protocol: "UDP", Port: 53, TargetPort: intstr.FromInt32(53)}}
	if diff := cmp.Diff(want, service.Spec.Ports); diff != "" {
		t.Errorf("K15: ports (-want +got):\n%s", diff)
	}
	if down := getHPA(t, ns, "dns-hpa").Spec.Behavior.ScaleDown; *down.StabilizationWindowSeconds != 300 {
		t.Errorf("behavior %+v", down)
	}

	for _, object := range []string{"hpa/dns-hpa", "service/dns-service", "deployment/dns-deployment"} {
		kubectl(t, ns, "", "delete", object)
		eventually(t, 5*time.Second, func() error {
			out, err := cluster.Kubectl(t.Context(), "-n", ns, "get", object)
			if err != nil {
				return fmt.Errorf("%s: %w", out, err)
			}
			return nil
		})
	}
	kubectl(t, ns, "", "patch", "hpa/dns-hpa", "-p", `{"spec":{"maxReplicas":9}}`)
	kubectl(t, ns, "", "set", "env", "deployment/dns-deployment", "ADDED=1")
	eventually(t, 5*time.Second, func() error {
		if n, env := getHPA(t, ns, "dns-hpa").Spec.MaxReplicas, deployment(t, ns, "dns-deployment").Spec.Template.Spec.Containers[0].Env; n != 3 || len(env) > 0 {
			return fmt.Errorf("maxReplicas %d, env %v", n, env)
		}
		return nil
	})
	kubectl(t, ns, "", "rollout", "status", "deployment/dns-deployment", "--timeout=60s")
	stepReady(t, ns, "dns")

	before := podUIDs(t, ns)
	kubectl(t, ns, "", "delete", "step", "dns", "--cascade=orphan")
	kubectl(t, ns, step, "apply", "-f", "-")
	stepReady(t, ns, "dns")
	uid := kaiObject(t, ns, "Step", "dns").GetUID()
	if d := deployment(t, ns, "dns-deployment"); len(d.OwnerReferences) != 1 || d.OwnerReferences[0].UID != uid {
		t.Errorf("D17: owners %v", d.OwnerReferences)
	}
	if diff := cmp.Diff(before, podUIDs(t, ns)); diff != "" {
		t.Errorf("D17: adoption changed the pods:\n%s", diff)
	}
	eventually(t, 10*time.Second, func() error {
		if len(endpoints(t, ns, "dns-service")) == 0 {
			return fmt.Errorf("the Service leads nowhere")
		}
		return nil
	})

	kubectl(t, ns, "", "delete", "step", "dns")
	eventually(t, 60*time.Second, gone(t, ns, "deployments", "services", "hpa"))
}

func gone(t *testing.T, ns string, kinds ...string) func() error {
	return func() error {
		if out := kubectl(t, ns, "", "get", strings.Join(kinds, ","), "-o", "name"); out != "" && !strings.Contains(out, "No resources found") {
			return fmt.Errorf("there are still %s", out)
		}
		return nil
	}
}

func podUIDs(t *testing.T, ns string) []string {
	t.Helper()
	var out []string
	list, err := kube.CoreV1().Pods(ns).List(t.Context(), metav1.ListOptions{})
	must(t, err)
	for _, p := range list.Items {
		if p.DeletionTimestamp == nil {
			out = append(out, string(p.UID))
		}
	}
	slices.Sort(out)
	return out
}

// K17, D13.
func TestAPipelineChangesItsSteps(t *testing.T) {
	ns := newNamespace(t)
	template := func(name string) string {
		return fmt.Sprintf("  - {metadata: {name: %[1]q, labels: {of: x%[1]s}}, spec: {containers: [{name: main, image: simulated, args: [x%[1]s]}]}}\n", name)
	}
	pipeline := func(names ...string) {
		t.Helper()
		text := "apiVersion: core.kai.io/v1alpha1\nkind: Pipeline\nmetadata: {name: p}\nspec:\n  steps:\n"
		for _, name := range names {
			text += template(name)
		}
		kubectl(t, ns, text, "apply", "-f", "-")
		eventually(t, 90*time.Second, wantCondition(t, ns, "Pipeline", "p", "Ready", "True", "Ready", ""))
	}
	steps := func(want ...string) {
		t.Helper()
		eventually(t, 10*time.Second, func() error {
			out := strings.Fields(kubectl(t, ns, "", "get", "steps", "-o", `jsonpath={range .items[*]}{.metadata.name}={.spec.containers[0].args[0]} {end}`))
			if diff := cmp.Diff(want, out); diff != "" {
				return fmt.Errorf("(-want +got):\n%s", diff)
			}
			return nil
		})
	}
	pipeline("", "")
	steps("p-step-0=x", "p-step-1=x")
	pipeline("")
	steps("p-step-0=x")
	pipeline("a", "b")
	steps("p-step-0=xa", "p-step-1=xb")
	before := podUIDs(t, ns)
	pipeline("c", "b", "a")
	steps("p-step-0=xa", "p-step-1=xb", "p-step-2=xc")
	for _, uid := range before {
		if !slices.Contains(podUIDs(t, ns), uid) {
			t.Error("a new order restarted a pod")
		}
	}
	if d := deployment(t, ns, "p-step-2-deployment"); d.Spec.Template.Labels["of"] != "xc" || d.Spec.Template.Labels["core.kai.io/pipeline"] != "p" {
		t.Errorf("labels of the pods: %v", d.Spec.Template.Labels)
	}
	kubectl(t, ns, "", "delete", "pipeline", "p")
	eventually(t, 60*time.Second, gone(t, ns, "steps", "deployments", "services", "hpa"))
}

// Mistakes are said where people look, and nothing waits in a loop.
func TestMistakesInStepsAreSaid(t *testing.T) {
	ns := newNamespace(t)
	const manifest = "apiVersion: core.kai.io/v1alpha1\nkind: Step\nmetadata: {name: %s}\nspec: {%s}\n"
	step := func(name, spec string) {
		t.Helper()
		create(t, ns, manifest, name, spec)
	}
	// Mistakes with which nothing can be made are refused. Where the webhook was not there they are stored all the same.
	refused := func(name, spec, says string) {
		t.Helper()
		text := fmt.Sprintf(manifest, name, spec)
		if out, err := cluster.KubectlInput(t.Context(), text, "-n", ns, "create", "-f", "-"); err == nil || !strings.Contains(out+err.Error(), says) {
			t.Errorf("Step %s is not refused with %q: %s %v", name, says, out, err)
		}
		kubectl(t, ns, text, "create", "--as="+kubetideUser, "-f", "-")
	}
	const main = "containers: [{name: main, image: simulated}]"
	long := strings.Repeat("a", 64)
	kubectl(t, ns, "", "create", "deployment", "taken-deployment", "--image=simulated")
	refused(strings.Repeat("b", 60), main, "has 60 characters")
	refused(long, main, "has 64 characters")
	refused("a.b", main, "gives no valid name")
	refused("empty", "maxReplicas: 1", "spec.containers")
	step("bounds", main+", minReplicas: 5, maxReplicas: 2")
	step("refused", "containers: [{name: Main, image: simulated}]")
	step("taken", main)
	step("model", `model: {modelFormat: pytorch, uri: "s3://models/a", servicecAccountRef: models}`)
	for name, tc := range map[string]struct{ condition, status, reason, says string }{
		strings.Repeat("b", 60): {"Invalid", "True", "NameInvalid", "has 60 characters"},
		long:                    {"Invalid", "True", "NameInvalid", "has 64 characters"},
		"a.b":                   {"Invalid", "True", "NameInvalid", "gives no valid name"},
		"empty":                 {"Invalid", "True", "NoContainers", "spec.containers"},
		"bounds":                {"Invalid", "True", "MaxReplicasBelowMin", "spec.maxReplicas: 2 is below minReplicas"},
		"refused":               {"Invalid", "True", "RefusedByAPIServer", "spec.template.spec.containers[0].name"},
		"taken":                 {"Ready", "False", "NameTaken", "Deployment taken-deployment is there already"},
		"model":                 {"RuntimeFound", "False", "RuntimeNotFound", "no supporting modelruntime found"},
	} {
		eventually(t, 10*time.Second, wantCondition(t, ns, "Step", name, tc.condition, tc.status, tc.reason, tc.says))
		reason := tc.reason
		eventually(t, 10*time.Second, wantEvent(t, ns, "Step", name, reason, tc.says))
	}
	// What is wrong with one object keeps none of the others from being made.
	if getHPA(t, ns, "refused-hpa"); getHPA(t, ns, "bounds-hpa").Spec.MaxReplicas != 5 {
		t.Error("K10: the maximum was not raised")
	}

	// The runtime comes, then the account, then the right to read its Secret.
	create(t, ns, `
apiVersion: core.kai.io/v1alpha1
kind: ModelRuntime
metadata: {name: torch}
spec: {supportedModelFormats: [pytorch], containers: [{name: kai-container, image: simulated, ports: [{containerPort: 8085}]}]}
`)
	eventually(t, 10*time.Second, wantCondition(t, ns, "Step", "model", "CredentialsFound", "False", "CredentialsNotFound", `"models" not found`))
	create(t, ns, `
apiVersion: v1
kind: Secret
metadata: {name: s3}
stringData: {AWS_ACCESS_KEY_ID: a, AWS_SECRET_ACCESS_KEY: hush}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: kubetide-secrets}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: kubetide-secrets}
subjects: [{kind: ServiceAccount, name: kubetide, namespace: kubetide-system}]
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: models}
secrets: [{name: s3}]
`)
	eventually(t, 60*time.Second, wantCondition(t, ns, "Step", "model", "Ready", "True", "Ready", ""))
	pod := deployment(t, ns, "model-deployment").Spec.Template.Spec
	if c := pod.InitContainers[0]; c.Image != "kserve/storage-initializer:v0.10.1" || len(c.Env) != 2 || c.Env[1].ValueFrom.SecretKeyRef.Name != "s3" {
		t.Errorf("the initializer is %+v", c)
	}
	kubectl(t, ns, "", "patch", "modelruntime", "torch", "--type=json", `-p=[{"op":"replace","path":"/spec/containers/0/image","value":"simulated:2"}]`)
	eventually(t, 5*time.Second, func() error {
		if image := deployment(t, ns, "model-deployment").Spec.Template.Spec.Containers[0].Image; image != "simulated:2" {
			return fmt.Errorf("the image is %s", image)
		}
		return nil
	})
}

// An HPA leaves a Deployment without pods alone once its minimum is above 0: who raises that of a Step has it woken.
func TestARaisedMinimumWakesAStep(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	least := func(n int) {
		t.Helper()
		kubectl(t, ns, fmt.Sprintf(`
apiVersion: core.kai.io/v1alpha1
kind: Step
metadata: {name: sleepy, annotations: {metric-config.external.queue.static/value: "0"}}
spec:
  containers: [{name: main, image: simulated}]
  minReplicas: %d
  maxReplicas: 5
  metrics: [{type: External, external: {metric: {name: queue, selector: {matchLabels: {type: static}}}, target: {type: AverageValue, averageValue: "5"}}}]
  behavior: {scaleDown: {stabilizationWindowSeconds: 0}}
`, n), "apply", "--server-side", "--field-manager=e2e", "-f", "-")
	}
	least(0)
	stepReady(t, ns, "sleepy")
	eventually(t, 90*time.Second, wantReplicas(t, ns, "Deployment", "sleepy-deployment", 0))
	least(1)
	eventually(t, 10*time.Second, wantReplicas(t, ns, "Deployment", "sleepy-deployment", 1))
	stepReady(t, ns, "sleepy")
	if got := *getHPA(t, ns, "sleepy-hpa").Spec.MinReplicas; got != 1 {
		t.Errorf("the HPA's minimum is %d", got)
	}
}

// D1: all 39 fields of pods and the five of Kai's own survive the API server.
func TestAStepWithEachField(t *testing.T) {
	ns := newNamespace(t)
	text, err := os.ReadFile("../crd/testdata/step-all-fields.yaml")
	must(t, err)
	kubectl(t, ns, string(text), "create", "--validate=strict", "-f", "-")
	var want, got map[string]any
	must(t, yaml.Unmarshal(text, &want))
	must(t, json.Unmarshal([]byte(kubectl(t, ns, "", "get", "step", "whole", "-o", "json")), &got))
	if diff := cmp.Diff(want["spec"], got["spec"]); diff != "" {
		t.Errorf("(-given +stored):\n%s", diff)
	}
	if n := len(got["spec"].(map[string]any)); n != 44 {
		t.Errorf("%d fields, want 39 and 5", n)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := kube.AppsV1().Deployments(ns).Get(ctx, "whole-deployment", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("there is a Deployment without a ModelRuntime: %v", err)
	}
}

// Kai made a Step's objects, and is gone: Kubetide takes them over without a pod of its own, follows changes, and lets them go.
func TestStepsOfKaiAreAdopted(t *testing.T) {
	ns := newNamespace(t)
	endKubetide(t)
	t.Cleanup(func() { // also after a failure: others need it
		_, _ = cluster.Kubectl(context.Background(), "-n", system, "scale", "statefulset/kubetide", "--replicas=1")
	})
	kubectl(t, ns, httpEcho+"  maxReplicas: 5\n", "apply", "-f", "-")
	uid := string(kaiObject(t, ns, "Step", "http-echo").GetUID())
	indented := func(spec string) string {
		spec = strings.NewReplacer("d8f6ed0a-44dd-4353-8243-e5a199e190da", uid, `"namespace":"default"`, `"namespace":"`+ns+`"`).Replace(spec)
		return strings.ReplaceAll(strings.TrimSpace(spec), "\n", "\n  ")
	}
	for kind, object := range map[string][2]string{
		"apps/v1, kind: Deployment":                     {"http-echo-deployment", strings.Replace(documentedDeployment, "replicas: 1", "replicas: 3", 1)},
		"autoscaling/v2, kind: HorizontalPodAutoscaler": {"http-echo-hpa", strings.Replace(documentedHPA, "maxReplicas: 1", "maxReplicas: 5", 1)},
		"v1, kind: Service":                             {"http-echo-service", "type: ClusterIP\nports: [{port: 9001, targetPort: 9001}]\nselector: {core.kai.io/stepUID: " + uid + "}"},
	} {
		version, kind, _ := strings.Cut(kind, ", ")
		create(t, ns, `
apiVersion: %s
%s
metadata:
  name: %s
  labels: {core.kai.io/step: http-echo, core.kai.io/stepUID: %[4]s}
  ownerReferences: [{apiVersion: core.kai.io/v1alpha1, kind: Step, name: http-echo, uid: %[4]s, controller: true, blockOwnerDeletion: true}]
spec:
  %[5]s
`, version, kind, object[0], uid, indented(object[1]))
	}
	kubectl(t, ns, "", "rollout", "status", "deployment/http-echo-deployment", "--timeout=60s")
	pods, generation := podUIDs(t, ns), deployment(t, ns, "http-echo-deployment").Generation

	beginKubetide(t)
	stepReady(t, ns, "http-echo")
	waitForKubetide(t)
	same := func(when string) {
		t.Helper()
		if diff := cmp.Diff(pods, podUIDs(t, ns)); diff != "" || replicaSets(t, ns) != 1 {
			t.Errorf("%s: %d ReplicaSets; pods (-before +now):\n%s", when, replicaSets(t, ns), diff)
		}
	}
	same("adopted")
	if now := deployment(t, ns, "http-echo-deployment").Generation; now != generation {
		t.Errorf("the Deployment's spec was written: generation %d, was %d", now, generation)
	}
	kubectl(t, ns, httpEcho+"  maxReplicas: 10\n", "apply", "-f", "-")
	eventually(t, 10*time.Second, func() error {
		if got := getHPA(t, ns, "http-echo-hpa").Spec.MaxReplicas; got != 10 {
			return fmt.Errorf("maxReplicas %d", got)
		}
		return nil
	})
	stepReady(t, ns, "http-echo")
	same("with a new maximum")
	kubectl(t, ns, "", "delete", "step", "http-echo")
	eventually(t, 60*time.Second, gone(t, ns, "deployments", "services", "hpa", "pods"))
}
