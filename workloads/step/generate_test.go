package step

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	kai "github.com/kubetide/kubetide/api/kai/v1alpha1"
	"github.com/kubetide/kubetide/workloads/drift"
)

var rewrite = flag.Bool("update", false, "write the golden files anew")

const uid = types.UID("d8f6ed0a-44dd-4353-8243-e5a199e190da")

func parse[T any](t *testing.T, text string) *T {
	t.Helper()
	out := new(T)
	if err := yaml.UnmarshalStrict([]byte(text), out); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return out
}

// newStep is http-echo as documented, with more of a spec or of metadata.
func newStep(t *testing.T, spec string) *kai.Step {
	t.Helper()
	step := parse[kai.Step](t, `
apiVersion: core.kai.io/v1alpha1
kind: Step
metadata: {name: http-echo, namespace: default}
spec:
  containers:
  - name: http-echo
    image: "hashicorp/http-echo"
    args: ["-listen=:9001", "-text=hello from version 1"]
    ports:
    - containerPort: 9001
`)
	if spec != "" {
		more := parse[kai.StepSpec](t, spec)
		if more.Containers == nil {
			more.Containers = step.Spec.Containers
		}
		step.Spec = *more
	}
	step.TypeMeta, step.UID = metav1.TypeMeta{}, uid // as a client without a cache returns it
	return step
}

func generate(t *testing.T, step *kai.Step) Objects {
	t.Helper()
	out, problems := Generate(step, nil, Objects{}, Options{})
	if len(problems) > 0 {
		t.Fatalf("problems: %v", problems)
	}
	return out
}

// The rows of Kai's acceptance table that show what is generated, as whole objects.
func TestWhatIsGeneratedIsAsDocumented(t *testing.T) {
	const lastApplied = `{"apiVersion":"core.kai.io/v1alpha1","kind":"Step","metadata":{"annotations":{},"name":"http-echo","namespace":"default"},"spec":{"containers":[{"args":["-listen=:9001","-text=hello from version 1"],"image":"hashicorp/http-echo","name":"http-echo","ports":[{"containerPort":9001}]}]}}` + "\n"
	runtime := parse[kai.ModelRuntime](t, `
metadata: {name: torchserve, namespace: models}
spec:
  supportedModelFormats: [pytorch]
  containers:
  - name: kai-container
    image: pytorch/torchserve-kfs:0.7.0
    args: [torchserve, --start, --model-store=/mnt/models/model-store]
    ports: [{containerPort: 8085}]
`)
	for name, make := range map[string]func() (*kai.Step, *Model){
		"k1-k4-k6-http-echo": func() (*kai.Step, *Model) { return newStep(t, ""), nil },
		"k3-applied": func() (*kai.Step, *Model) {
			s := newStep(t, "")
			s.Annotations = map[string]string{corev1.LastAppliedConfigAnnotation: lastApplied}
			return s, nil
		},
		"k12-label-and-annotation": func() (*kai.Step, *Model) {
			s := newStep(t, "")
			s.Labels, s.Annotations = map[string]string{"a": "b"}, map[string]string{"c": "d"}
			return s, nil
		},
		"k13-k14-metrics-and-behavior": func() (*kai.Step, *Model) {
			return newStep(t, `
metrics: [{type: Pods, pods: {metric: {name: http_rps}, target: {type: AverageValue, averageValue: "10"}}}]
behavior: {scaleDown: {stabilizationWindowSeconds: 300}}
minReplicas: 3
`), nil
		},
		"k15-two-ports": func() (*kai.Step, *Model) {
			return newStep(t, `containers: [{name: a, image: a, ports: [{containerPort: 8080, name: http}, {containerPort: 53, name: dns, protocol: UDP}]}]`), nil
		},
		"k23-model": func() (*kai.Step, *Model) {
			return newStep(t, `{containers: [], model: {modelFormat: pytorch, uri: "s3://models/a"}}`), &Model{Runtime: runtime}
		},
	} {
		t.Run(name, func(t *testing.T) {
			step, model := make()
			out, problems := Generate(step, model, Objects{}, Options{})
			if len(problems) > 0 {
				t.Fatalf("problems: %v", problems)
			}
			var text strings.Builder
			for _, o := range []any{out.Deployment, out.Service, out.HPA} {
				one, err := yaml.Marshal(o)
				if err != nil {
					t.Fatal(err)
				}
				fmt.Fprintf(&text, "---\n%s", one)
			}
			file := filepath.Join("testdata", name+".yaml")
			if *rewrite {
				if err := os.WriteFile(file, []byte(text.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), text.String()); diff != "" {
				t.Errorf("(-golden +generated):\n%s", diff)
			}
		})
	}
}

func TestReplicasOfTheAutoscaler(t *testing.T) {
	const external = `metrics: [{type: External, external: {metric: {name: queue}, target: {type: Value, value: "10"}}}]`
	for name, tc := range map[string]struct {
		spec               string
		opts               Options
		replicas, min, max int32
		problem            string
	}{
		"nothing said":                                 {`{}`, Options{}, 1, 1, 1, ""},
		"K8: a minimum alone":                          {`minReplicas: 3`, Options{}, 3, 3, 3, ""},
		"K9: 0 counts as 1":                            {`{minReplicas: 0, maxReplicas: 2}`, Options{}, 1, 1, 2, ReasonMinRaised},
		"K9: -1 counts as 1":                           {`{minReplicas: -1, maxReplicas: 2}`, Options{}, 1, 1, 2, ReasonMinRaised},
		"K10: a maximum below the minimum":             {`{minReplicas: 5, maxReplicas: 2}`, Options{}, 5, 5, 5, ReasonMaxBelowMin},
		"a negative maximum":                           {`{maxReplicas: -2}`, Options{}, 1, 1, 1, ReasonMaxBelowMin},
		"0 where it can wake up":                       {"minReplicas: 0\nmaxReplicas: 2\n" + external, Options{ScaleToZero: true}, 1, 0, 2, ""},
		"0 where it is not allowed":                    {"minReplicas: 0\nmaxReplicas: 2\n" + external, Options{}, 1, 1, 2, ReasonMinRaised},
		"0 with cpu only, which nobody has at 0":       {`{minReplicas: 0, maxReplicas: 2}`, Options{ScaleToZero: true}, 1, 1, 2, ReasonMinRaised},
		"0 as a maximum too, where it is allowed":      {"minReplicas: 0\n" + external, Options{ScaleToZero: true}, 1, 0, 1, ""},
		"a minimum and a maximum as they should stand": {`{minReplicas: 2, maxReplicas: 9}`, Options{}, 2, 2, 9, ""},
	} {
		t.Run(name, func(t *testing.T) {
			out, problems := Generate(newStep(t, tc.spec), nil, Objects{}, tc.opts)
			reason := ""
			for _, p := range problems {
				reason += p.Reason
			}
			if *out.Deployment.Spec.Replicas != tc.replicas || *out.HPA.Spec.MinReplicas != tc.min || out.HPA.Spec.MaxReplicas != tc.max || reason != tc.problem {
				t.Errorf("replicas %d, min %d, max %d, problems %v", *out.Deployment.Spec.Replicas, *out.HPA.Spec.MinReplicas, out.HPA.Spec.MaxReplicas, problems)
			}
		})
	}
}

func TestPortsOfTheService(t *testing.T) {
	container := func(ports ...corev1.ContainerPort) corev1.Container { return corev1.Container{Ports: ports} }
	port := func(name string, number int32, protocol corev1.Protocol) corev1.ServicePort {
		return corev1.ServicePort{Name: name, Protocol: protocol, Port: number, TargetPort: intstr.FromInt32(number)}
	}
	for name, tc := range map[string]struct {
		containers []corev1.Container
		want       []corev1.ServicePort
	}{
		"K7: none": {nil, []corev1.ServicePort{{Port: 80}}},
		"one stands alone": {[]corev1.Container{container(corev1.ContainerPort{Name: "http", ContainerPort: 80, Protocol: "TCP"})},
			[]corev1.ServicePort{port("", 80, "")}},
		"one that is not TCP": {[]corev1.Container{container(corev1.ContainerPort{ContainerPort: 53, Protocol: "UDP"})},
			[]corev1.ServicePort{port("", 53, "UDP")}},
		"K15: names are kept": {[]corev1.Container{container(corev1.ContainerPort{Name: "http", ContainerPort: 8080}, corev1.ContainerPort{Name: "dns", ContainerPort: 53, Protocol: "UDP"})},
			[]corev1.ServicePort{port("http", 8080, "TCP"), port("dns", 53, "UDP")}},
		"K15: names are made": {[]corev1.Container{container(corev1.ContainerPort{ContainerPort: 53}), container(corev1.ContainerPort{ContainerPort: 53, Protocol: "UDP"})},
			[]corev1.ServicePort{port("port-53-tcp", 53, "TCP"), port("port-53-udp", 53, "UDP")}},
		"one name in two containers": {[]corev1.Container{container(corev1.ContainerPort{Name: "http", ContainerPort: 80}), container(corev1.ContainerPort{Name: "http", ContainerPort: 81})},
			[]corev1.ServicePort{port("http", 80, "TCP"), port("port-81-tcp", 81, "TCP")}},
		"one port in two containers": {[]corev1.Container{container(corev1.ContainerPort{ContainerPort: 80}), container(corev1.ContainerPort{ContainerPort: 80, Protocol: "TCP"})},
			[]corev1.ServicePort{port("", 80, "")}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, servicePorts(tc.containers)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestNamesThatCannotWorkAreSaid(t *testing.T) {
	for name, tc := range map[string]struct{ step, says string }{
		"the longest that can":            {strings.Repeat("a", 55), ""},
		"one more":                        {strings.Repeat("a", 56), "has 56 characters; with more than 55 the Service"},
		"longer than a label":             {strings.Repeat("a", 64), "has 64 characters"},
		"the longest of Kubernetes":       {strings.Repeat("a", 253), "has 253 characters"},
		"a dot":                           {"a.b", `"a.b" gives no valid name of a Service`},
		"a digit before all":              {"1a", `"1a" gives no valid name of a Service`},
		"digits and dashes in the middle": {"a-1b", ""},
	} {
		t.Run(name, func(t *testing.T) {
			step := newStep(t, "")
			step.Name = tc.step
			out, problems := Generate(step, nil, Objects{}, Options{})
			if tc.says == "" {
				if out.Deployment == nil || len(problems) > 0 {
					t.Errorf("problems %v", problems)
				}
				return
			}
			if out.Deployment != nil || len(problems) != 1 || problems[0].Reason != ReasonNameInvalid || !strings.Contains(problems[0].Message, tc.says) {
				t.Errorf("problems %v", problems)
			}
		})
	}
}

func TestAStepWithoutContainersSaysSo(t *testing.T) {
	step := newStep(t, "")
	step.Spec.Containers = nil
	if out, problems := Generate(step, nil, Objects{}, Options{}); out.Deployment != nil || len(problems) != 1 || problems[0].Reason != ReasonNoContainers {
		t.Errorf("problems %v", problems)
	}
}

func TestTheDeadlineOfARolloutCanBeSet(t *testing.T) {
	for text, want := range map[string]int32{"300": 300, "0": 60, "soon": 60, "99999999999": 60} {
		step := newStep(t, "")
		step.Annotations = map[string]string{kai.ProgressDeadlineAnnotation: text}
		out, problems := Generate(step, nil, Objects{}, Options{})
		if got := *out.Deployment.Spec.ProgressDeadlineSeconds; got != want || (len(problems) > 0) != (text != "300") {
			t.Errorf("%q: %d, problems %v", text, got, problems)
		}
		if out.Deployment.Annotations != nil || out.Deployment.Spec.Template.Annotations != nil {
			t.Errorf("%q: the annotation is passed on: %v", text, out.Deployment.Annotations)
		}
	}
}

// served is what the API server makes of a generated object.
func served(t *testing.T, out Objects) Objects {
	t.Helper()
	d, s, h := out.Deployment.DeepCopy(), out.Service.DeepCopy(), out.HPA.DeepCopy()
	d.Spec.RevisionHistoryLimit, d.Spec.Strategy.RollingUpdate.MaxSurge = ptr.To[int32](10), ptr.To(intstr.FromString("25%"))
	p := &d.Spec.Template.Spec
	p.DNSPolicy, p.RestartPolicy, p.SchedulerName, p.SecurityContext = "ClusterFirst", "Always", "default-scheduler", &corev1.PodSecurityContext{}
	p.TerminationGracePeriodSeconds = ptr.To[int64](30)
	for i := range p.Containers {
		c := &p.Containers[i]
		c.ImagePullPolicy, c.TerminationMessagePath, c.TerminationMessagePolicy = "Always", "/dev/termination-log", "File"
		for j := range c.Ports {
			if c.Ports[j].Protocol == "" {
				c.Ports[j].Protocol = "TCP"
			}
		}
	}
	s.Spec.ClusterIP, s.Spec.ClusterIPs, s.Spec.SessionAffinity = "10.0.0.7", []string{"10.0.0.7"}, "None"
	s.Spec.IPFamilies, s.Spec.InternalTrafficPolicy = []corev1.IPFamily{"IPv4"}, ptr.To(corev1.ServiceInternalTrafficPolicyCluster)
	for i := range s.Spec.Ports {
		if s.Spec.Ports[i].Protocol == "" {
			s.Spec.Ports[i].Protocol = "TCP"
		}
		if s.Spec.Ports[i].TargetPort.IntVal == 0 {
			s.Spec.Ports[i].TargetPort = intstr.FromInt32(s.Spec.Ports[i].Port)
		}
	}
	h.Spec = *drift.StoredHPA(&h.Spec)
	return Objects{d, s, h}
}

func TestWhatIsThereAndRightIsLeftAlone(t *testing.T) {
	for name, spec := range map[string]string{
		"as documented":         ``,
		"no ports":              `containers: [{name: a, image: a}]`,
		"two ports":             `containers: [{name: a, image: a, ports: [{containerPort: 8080}, {containerPort: 53, protocol: UDP}]}]`,
		"behavior":              `behavior: {scaleDown: {stabilizationWindowSeconds: 300}}`,
		"metrics":               `metrics: [{type: Pods, pods: {metric: {name: http_rps}, target: {type: AverageValue, averageValue: "10"}}}]`,
		"the old account":       `serviceAccount: a`,
		"the defaults in words": `{terminationGracePeriodSeconds: 30, restartPolicy: Always, dnsPolicy: ClusterFirst}`,
	} {
		t.Run(name, func(t *testing.T) {
			step := newStep(t, spec)
			live := served(t, generate(t, step))
			live.Deployment.Spec.Template.Spec.ServiceAccountName = live.Deployment.Spec.Template.Spec.DeprecatedServiceAccount
			// What others own.
			live.Deployment.Spec.Replicas, live.Deployment.Spec.Paused = ptr.To[int32](7), true
			live.Deployment.Annotations = map[string]string{"deployment.kubernetes.io/revision": "3"}
			live.Deployment.Spec.Template.Annotations = map[string]string{"kubectl.kubernetes.io/restartedAt": "2026-11-22T20:00:00Z"}
			again, _ := Generate(step, nil, live, Options{})
			for what, drifted := range map[string]bool{
				"Deployment": written(live.Deployment, again.Deployment), "Service": written(live.Service, again.Service), "HPA": written(live.HPA, again.HPA)} {
				if drifted {
					t.Errorf("the %s would be written", what)
				}
			}
		})
	}
}

func written(live, want client.Object) bool {
	next, _ := update(live, want, false)
	return !equality.Semantic.DeepEqual(live, next)
}

func TestWhoOwnsWhatOfALiveDeployment(t *testing.T) {
	step := newStep(t, "")
	step.Labels = map[string]string{"team": "a", "gone": "soon"}
	step.Annotations = map[string]string{"note": "1", "gone": "soon", corev1.LastAppliedConfigAnnotation: "first"}
	live := served(t, generate(t, step)).Deployment
	live.Spec.Replicas = ptr.To[int32](7)
	live.Labels["foreign"], live.Annotations["foreign"] = "x", "x"
	live.Spec.Template.Annotations["kubectl.kubernetes.io/restartedAt"] = "now"

	step.Labels = map[string]string{"team": "b"}
	step.Annotations = map[string]string{"note": "2", corev1.LastAppliedConfigAnnotation: "second"}
	step.Spec.Containers[0].Image = "hashicorp/http-echo:2"
	want, _ := Generate(step, nil, Objects{Deployment: live}, Options{})
	next, drifted := update(live, want.Deployment, false)
	d := next.(*appsv1.Deployment)
	if !drifted || *d.Spec.Replicas != 7 || d.Spec.Template.Spec.Containers[0].Image != "hashicorp/http-echo:2" {
		t.Errorf("K11: drifted %v, replicas %d", drifted, *d.Spec.Replicas)
	}
	labels := map[string]string{"team": "b", kai.StepLabel: "http-echo", kai.StepUIDLabel: string(uid)}
	if diff := cmp.Diff(labels, d.Spec.Template.Labels); diff != "" {
		t.Errorf("labels of the pods:\n%s", diff)
	}
	labels["foreign"] = "x"
	if diff := cmp.Diff(labels, d.Labels); diff != "" {
		t.Errorf("labels:\n%s", diff)
	}
	annotations := map[string]string{"note": "2", corev1.LastAppliedConfigAnnotation: "first", "kubectl.kubernetes.io/restartedAt": "now"}
	if diff := cmp.Diff(annotations, d.Spec.Template.Annotations); diff != "" {
		t.Errorf("annotations of the pods:\n%s", diff)
	}
	if d.Annotations["foreign"] != "x" || d.Annotations["note"] != "2" || d.Annotations["gone"] != "" {
		t.Errorf("annotations: %v", d.Annotations)
	}
}

func TestDriftIsSeen(t *testing.T) {
	for name, change := range map[string]func(*Objects){
		"an image": func(o *Objects) { o.Deployment.Spec.Template.Spec.Containers[0].Image = "other" },
		"a variable": func(o *Objects) {
			o.Deployment.Spec.Template.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "A", Value: "b"}}
		},
		"a sidecar": func(o *Objects) {
			o.Deployment.Spec.Template.Spec.Containers = append(o.Deployment.Spec.Template.Spec.Containers, corev1.Container{Name: "x"})
		},
		"a grace period":     func(o *Objects) { o.Deployment.Spec.Template.Spec.TerminationGracePeriodSeconds = ptr.To[int64](5) },
		"a node selector":    func(o *Objects) { o.Deployment.Spec.Template.Spec.NodeSelector = map[string]string{"a": "b"} },
		"the host's network": func(o *Objects) { o.Deployment.Spec.Template.Spec.HostNetwork = true },
		"a strategy": func(o *Objects) {
			o.Deployment.Spec.Strategy = appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType}
		},
		"a history":                 func(o *Objects) { o.Deployment.Spec.RevisionHistoryLimit = ptr.To[int32](0) },
		"a type of Service":         func(o *Objects) { o.Service.Spec.Type = corev1.ServiceTypeNodePort },
		"a port":                    func(o *Objects) { o.Service.Spec.Ports[0].TargetPort = intstr.FromInt32(1) },
		"a selector":                func(o *Objects) { o.Service.Spec.Selector["a"] = "b" },
		"an affinity of sessions":   func(o *Objects) { o.Service.Spec.SessionAffinity = corev1.ServiceAffinityClientIP },
		"addresses of unready pods": func(o *Objects) { o.Service.Spec.PublishNotReadyAddresses = true },
		"a maximum":                 func(o *Objects) { o.HPA.Spec.MaxReplicas = 9 },
		"a minimum":                 func(o *Objects) { o.HPA.Spec.MinReplicas = ptr.To[int32](0) },
		"a target":                  func(o *Objects) { o.HPA.Spec.ScaleTargetRef.Name = "x" },
		"a metric":                  func(o *Objects) { o.HPA.Spec.Metrics[0].Resource.Target.AverageUtilization = ptr.To[int32](50) },
		"a window":                  func(o *Objects) { o.HPA.Spec.Behavior.ScaleDown.StabilizationWindowSeconds = ptr.To[int32](60) },
		"no behavior":               func(o *Objects) { o.HPA.Spec.Behavior = nil },
		"a label":                   func(o *Objects) { delete(o.Service.Labels, kai.StepUIDLabel) },
		"a label of the pods":       func(o *Objects) { delete(o.Deployment.Spec.Template.Labels, kai.StepLabel) },
		"an owner":                  func(o *Objects) { o.HPA.OwnerReferences = nil },
	} {
		t.Run(name, func(t *testing.T) {
			step := newStep(t, "")
			live := served(t, generate(t, step))
			change(&live)
			want, _ := Generate(step, nil, live, Options{})
			if !written(live.Deployment, want.Deployment) && !written(live.Service, want.Service) && !written(live.HPA, want.HPA) {
				t.Error("nothing would be written")
			}
		})
	}
}

// After --cascade=orphan the Deployment keeps its selector, and so its pods.
func TestADeploymentThatAnEarlierStepLeftKeepsItsPods(t *testing.T) {
	old := newStep(t, "")
	old.UID = "old"
	live := served(t, generate(t, old)).Deployment
	live.OwnerReferences = nil
	step := newStep(t, "")
	want, _ := Generate(step, nil, Objects{Deployment: live}, Options{})
	next, drifted := update(live, want.Deployment, false)
	d := next.(*appsv1.Deployment)
	if drifted || !cmp.Equal(d.Spec.Template, live.Spec.Template) {
		t.Errorf("the pods change: %s", cmp.Diff(live.Spec.Template, d.Spec.Template))
	}
	if d.Labels[kai.StepUIDLabel] != string(uid) || d.OwnerReferences[0].UID != uid {
		t.Errorf("it is not adopted: %v", d.ObjectMeta)
	}
	if want.Service.Spec.Selector[kai.StepUIDLabel] != "old" {
		t.Errorf("the Service selects %v", want.Service.Spec.Selector)
	}
}

func TestADeploymentThatIsMadeAnewHasWhatItsAutoscalerWanted(t *testing.T) {
	step := newStep(t, `{minReplicas: 2, maxReplicas: 8}`)
	for desired, want := range map[int32]int32{0: 2, 5: 5, 20: 8} {
		hpa := &autoscalingv2.HorizontalPodAutoscaler{Status: autoscalingv2.HorizontalPodAutoscalerStatus{DesiredReplicas: desired}}
		if out, _ := Generate(step, nil, Objects{HPA: hpa}, Options{}); *out.Deployment.Spec.Replicas != want {
			t.Errorf("desired %d: %d replicas, want %d", desired, *out.Deployment.Spec.Replicas, want)
		}
	}
}

func TestPullPolicies(t *testing.T) {
	for image, want := range map[string]corev1.PullPolicy{"a": "Always", "a:latest": "Always", "a:1": "IfNotPresent", "r:5000/a": "Always",
		"r:5000/a:1": "IfNotPresent", "a@sha256:0123": "IfNotPresent", "a:latest@sha256:0123": "IfNotPresent"} {
		if got := drift.PullPolicy(image); got != want {
			t.Errorf("%s: %s", image, got)
		}
	}
}

func TestTheRuntimeOfAModel(t *testing.T) {
	runtimes := []kai.ModelRuntime{}
	for _, r := range []string{"zoo/a pytorch", "default/z pytorch", "apes/a onnx", "default/m onnx", "apes/z sklearn"} {
		namespace, rest, _ := strings.Cut(r, "/")
		name, format, _ := strings.Cut(rest, " ")
		runtimes = append(runtimes, kai.ModelRuntime{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: kai.ModelRuntimeSpec{SupportedModelFormats: []string{format}}})
	}
	for name, tc := range map[string]struct {
		model      kai.ModelSpec
		want, says string
	}{
		"by format, that of the namespace first": {kai.ModelSpec{ModelFormat: "pytorch"}, "default/z", ""},
		"by format, of another namespace":        {kai.ModelSpec{ModelFormat: "sklearn"}, "apes/z", ""},
		"by name, whatever the format":           {kai.ModelSpec{ModelFormat: "pytorch", ModelRuntime: "m"}, "default/m", ""},
		"by name, in two other namespaces":       {kai.ModelSpec{ModelRuntime: "a"}, "apes/a", ""},
		"a name that is missing is no format":    {kai.ModelSpec{ModelFormat: "pytorch", ModelRuntime: "x"}, "", `no supporting modelruntime found: spec.model.modelRuntime: there is none with the name "x"`},
		"K24: no format that is supported":       {kai.ModelSpec{ModelFormat: "tf"}, "", `no supporting modelruntime found: spec.model.modelFormat: none supports "tf"`},
		"neither":                                {kai.ModelSpec{}, "", `no supporting modelruntime found`},
	} {
		t.Run(name, func(t *testing.T) {
			step := newStep(t, "")
			step.Spec.Model = &tc.model
			got, err := Choose(step, runtimes)
			if err != nil {
				if !errors.Is(err, ErrNoRuntime) || tc.says == "" || !strings.Contains(err.Error(), tc.says) {
					t.Error(err)
				}
				return
			}
			if got.Namespace+"/"+got.Name != tc.want {
				t.Errorf("%s/%s", got.Namespace, got.Name)
			}
		})
	}
}

func TestAModelJoinsWhatTheStepSays(t *testing.T) {
	runtime := &kai.ModelRuntime{Spec: kai.ModelRuntimeSpec{MinReplicas: ptr.To[int32](2), MaxReplicas: 6,
		Behavior:   &autoscalingv2.HorizontalPodAutoscalerBehavior{ScaleDown: &autoscalingv2.HPAScalingRules{StabilizationWindowSeconds: ptr.To[int32](9)}},
		Containers: []corev1.Container{{Name: "kai-container"}, {Name: "proxy"}}}}
	step := newStep(t, `{initContainers: [{name: mine, image: a}], volumes: [{name: mine, emptyDir: {}}], maxReplicas: 4, model: {uri: "gs://a"}}`)
	credentials := ReadCredentials([]corev1.Secret{
		{ObjectMeta: metav1.ObjectMeta{Name: "gcs"}, Data: map[string][]byte{gcsFile: []byte("{}")}}})
	out, problems := Generate(step, &Model{Runtime: runtime, Credentials: credentials}, Objects{}, Options{})
	pods := out.Deployment.Spec.Template.Spec
	if len(problems) != 1 || problems[0].Reason != ReasonContainersIgnored {
		t.Errorf("problems %v", problems)
	}
	if len(pods.InitContainers) != 2 || pods.InitContainers[0].Name != initializerName || pods.InitContainers[1].Name != "mine" || len(pods.Volumes) != 3 {
		t.Errorf("pods %+v", pods)
	}
	if len(pods.Containers) != 2 || len(pods.Containers[0].VolumeMounts) != 1 || len(pods.Containers[1].VolumeMounts) != 0 {
		t.Errorf("containers %+v", pods.Containers)
	}
	if *out.HPA.Spec.MinReplicas != 2 || out.HPA.Spec.MaxReplicas != 4 || *out.HPA.Spec.Behavior.ScaleDown.StabilizationWindowSeconds != 9 {
		t.Errorf("autoscaler %+v", out.HPA.Spec)
	}
	if len(runtime.Spec.Containers[0].VolumeMounts) != 0 {
		t.Error("the runtime was changed")
	}
}

func TestCredentialsOfEachCloud(t *testing.T) {
	secret := func(name string, annotations map[string]string, keys ...string) corev1.Secret {
		s := corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: annotations}, Data: map[string][]byte{"other": []byte("x")}}
		for _, k := range keys {
			s.Data[k] = []byte("hush")
		}
		return s
	}
	for name, tc := range map[string]struct {
		secrets []corev1.Secret
		want    string
	}{
		"S3": {[]corev1.Secret{secret("s3", map[string]string{"serving.kserve.io/s3-endpoint": "minio:9000", "serving.kserve.io/s3-usehttps": "0", "serving.kserve.io/s3-region": "eu"}, s3KeyID, s3Key)},
			"AWS_ACCESS_KEY_ID=s3/AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY=s3/AWS_SECRET_ACCESS_KEY S3_USE_HTTPS=0 S3_ENDPOINT=minio:9000 AWS_ENDPOINT_URL=http://minio:9000 AWS_DEFAULT_REGION=eu"},
		"GCS":                        {[]corev1.Secret{secret("gcs", nil, gcsFile)}, "GOOGLE_APPLICATION_CREDENTIALS=/var/secrets/gcloud-application-credentials.json"},
		"Azure":                      {[]corev1.Secret{secret("az", nil, "AZURE_CLIENT_ID", "AZURE_TENANT_ID")}, "AZURE_TENANT_ID=az/AZURE_TENANT_ID AZURE_CLIENT_ID=az/AZURE_CLIENT_ID"},
		"Azure by the old names":     {[]corev1.Secret{secret("az", nil, "AZ_CLIENT_ID")}, "AZURE_CLIENT_ID=az/AZ_CLIENT_ID"},
		"two of a kind: the first":   {[]corev1.Secret{secret("a", nil, s3KeyID), secret("b", nil, s3KeyID)}, "AWS_ACCESS_KEY_ID=a/AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY=a/AWS_SECRET_ACCESS_KEY"},
		"a Secret of something else": {[]corev1.Secret{secret("token", nil)}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, e := range ReadCredentials(tc.secrets).Env {
				if e.Name == "" || strings.Contains(e.Value, "hush") {
					t.Errorf("variable %+v", e)
				}
				if e.ValueFrom != nil {
					e.Value = e.ValueFrom.SecretKeyRef.Name + "/" + e.ValueFrom.SecretKeyRef.Key
				}
				got = append(got, e.Name+"="+e.Value)
			}
			if diff := cmp.Diff(tc.want, strings.Join(got, " ")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
