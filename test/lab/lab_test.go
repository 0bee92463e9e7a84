package lab_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/kubetide/kubetide/test/lab"
)

// One lab serves the tests that do not need one of their own; each works in a namespace of its own.
var (
	folder string // holds the programs that the tests run
	used   atomic.Bool
	only   = sync.OnceValues(func() (*lab.Lab, error) {
		return lab.Start(context.Background(), lab.Options{
			MetricsServer: true,
			Images:        map[string]string{image: filepath.Join(folder, "testserver")},
			Progress:      os.Stderr,
		})
	})
)

const image = "example.org/lab/testserver"

func TestMain(m *testing.M) {
	lab.Enter(os.Stderr, "metrics-server", "prometheus", "skipper", "sqs")
	os.Exit(func() int {
		var err error
		if folder, err = os.MkdirTemp("", "lab-test-"); err != nil {
			panic(err)
		}
		defer os.RemoveAll(folder)
		for _, program := range []string{"internal/testserver", "cmd/lab"} {
			if out, err := exec.Command("go", "build", "-o", folder+"/", "./"+program).CombinedOutput(); err != nil {
				panic(fmt.Sprintf("build %s: %v\n%s", program, err, out))
			}
		}
		defer func() {
			if used.Load() {
				if l, err := only(); err == nil {
					l.Stop()
				}
			}
		}()
		return m.Run()
	}())
}

func start(t *testing.T) *lab.Lab {
	t.Helper()
	lab.MustBeInside(t)
	used.Store(true)
	l, err := only()
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// inNamespace makes a namespace that goes with the test.
func inNamespace(t *testing.T, l *lab.Lab) string {
	t.Helper()
	namespaces := l.Client().CoreV1().Namespaces()
	made, err := namespaces.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "t-"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = namespaces.Delete(context.Background(), made.Name, metav1.DeleteOptions{}) })
	eventually(t, "the namespace has its ServiceAccount", func() error {
		_, err := l.Client().CoreV1().ServiceAccounts(made.Name).Get(t.Context(), "default", metav1.GetOptions{})
		return err
	})
	return made.Name
}

// eventually waits until check succeeds; one minute is far more than anything here takes.
func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("never: %s: %v", what, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func apply(t *testing.T, l *lab.Lab, namespace, yaml string) {
	t.Helper()
	if err := l.Apply(t.Context(), strings.ReplaceAll(yaml, "NAMESPACE", namespace)); err != nil {
		t.Fatal(err)
	}
}

func get(url string) (string, error) {
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", response.Status, body)
	}
	return string(body), err
}

func isReady(pod *corev1.Pod) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// readyPod waits until the pod is ready, or unready.
func readyPod(t *testing.T, client kubernetes.Interface, namespace, name string, want bool) *corev1.Pod {
	t.Helper()
	var pod *corev1.Pod
	eventually(t, fmt.Sprintf("pod %s has Ready=%t", name, want), func() (err error) {
		if pod, err = client.CoreV1().Pods(namespace).Get(t.Context(), name, metav1.GetOptions{}); err != nil {
			return err
		}
		if isReady(pod) != want || pod.Status.PodIP == "" {
			return fmt.Errorf("status %+v", pod.Status)
		}
		return nil
	})
	return pod
}

// endpoints returns the addresses of a Service's ready endpoints.
func endpoints(t *testing.T, client kubernetes.Interface, namespace, service string) []string {
	t.Helper()
	slices, err := client.DiscoveryV1().EndpointSlices(namespace).List(t.Context(), metav1.ListOptions{LabelSelector: "kubernetes.io/service-name=" + service})
	if err != nil {
		t.Fatal(err)
	}
	var ready []string
	for _, slice := range slices.Items {
		for _, e := range slice.Endpoints {
			if e.Conditions.Ready != nil && *e.Conditions.Ready {
				ready = append(ready, e.Addresses...)
			}
		}
	}
	return ready
}

func TestSimulatedPodsAnswerAtTheirOwnAddress(t *testing.T) {
	t.Parallel()
	l := start(t)
	namespace := inNamespace(t, l)
	apply(t, l, namespace, `
apiVersion: v1
kind: Pod
metadata: {name: a, namespace: NAMESPACE}
spec: {containers: [{name: c, image: nginx}]}`)
	pod := readyPod(t, l.Client(), namespace, "a", true)
	listener, err := net.Listen("tcp", pod.Status.PodIP+":8080")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		_ = http.Serve(listener, http.HandlerFunc(func(out http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(out, "played") }))
	}()
	if body, err := get("http://" + pod.Status.PodIP + ":8080/"); err != nil || body != "played" {
		t.Fatalf("got %q, %v", body, err)
	}
}

func TestReadyFollowsTheGateBothWaysAndNobodySetsTheGate(t *testing.T) {
	t.Parallel()
	l := start(t)
	namespace := inNamespace(t, l)
	apply(t, l, namespace, `
apiVersion: v1
kind: Service
metadata: {name: a, namespace: NAMESPACE}
spec: {selector: {app: a}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: a, namespace: NAMESPACE, labels: {app: a}}
spec:
  readinessGates: [{conditionType: example.org/online}]
  containers: [{name: c, image: nginx}]`)
	pods := l.Client().CoreV1().Pods(namespace)
	eventually(t, "the containers are ready and the pod is not", func() error {
		pod, err := pods.Get(t.Context(), "a", metav1.GetOptions{})
		if err != nil {
			return err
		}
		is := map[corev1.PodConditionType]corev1.PodCondition{}
		for _, c := range pod.Status.Conditions {
			is[c.Type] = c
		}
		if is[corev1.ContainersReady].Status != corev1.ConditionTrue || is[corev1.PodReady].Reason != "ReadinessGatesNotReady" {
			return fmt.Errorf("conditions %v", pod.Status.Conditions)
		}
		if gate, ok := is["example.org/online"]; ok {
			t.Fatalf("somebody set the gate: %v", gate)
		}
		return nil
	})
	for _, status := range []string{"True", "False", "True"} {
		patch := fmt.Sprintf(`{"status":{"conditions":[{"type":"example.org/online","status":%q}]}}`, status)
		if _, err := pods.Patch(t.Context(), "a", types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{}, "status"); err != nil {
			t.Fatal(err)
		}
		readyPod(t, l.Client(), namespace, "a", status == "True")
		eventually(t, "the Service follows", func() error {
			if got := endpoints(t, l.Client(), namespace, "a"); (len(got) == 1) != (status == "True") {
				return fmt.Errorf("gate %s, ready endpoints %v", status, got)
			}
			return nil
		})
	}
}

func TestSimulatedPodsTakeTheirTime(t *testing.T) {
	t.Parallel()
	l := start(t)
	namespace := inNamespace(t, l)
	apply(t, l, namespace, `
apiVersion: v1
kind: Pod
metadata: {name: slow, namespace: NAMESPACE, annotations: {lab.kubetide.io/ready-after: 3s}}
spec: {containers: [{name: c, image: nginx}]}
---
apiVersion: v1
kind: Pod
metadata: {name: never, namespace: NAMESPACE, annotations: {lab.kubetide.io/start: never}}
spec: {containers: [{name: c, image: nginx}]}
---
apiVersion: v1
kind: Pod
metadata: {name: dies-slowly, namespace: NAMESPACE, annotations: {lab.kubetide.io/terminate-after: 2s}}
spec: {containers: [{name: c, image: nginx}]}
---
apiVersion: v1
kind: Pod
metadata: {name: sick, namespace: NAMESPACE}
spec: {containers: [{name: c, image: nginx}]}`)
	pods := l.Client().CoreV1().Pods(namespace)

	slow := readyPod(t, l.Client(), namespace, "slow", true)
	for _, c := range slow.Status.Conditions {
		if took := c.LastTransitionTime.Sub(slow.Status.StartTime.Time); c.Type == corev1.PodReady && took < 3*time.Second {
			t.Errorf("ready-after 3s took %s", took)
		}
	}

	readyPod(t, l.Client(), namespace, "dies-slowly", true)
	asked := time.Now()
	if err := pods.Delete(t.Context(), "dies-slowly", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the pod is gone", func() error {
		if _, err := pods.Get(t.Context(), "dies-slowly", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			return errors.Join(errors.New("still there"), err)
		}
		return nil
	})
	if took := time.Since(asked); took < 2*time.Second {
		t.Errorf("terminate-after 2s took %s", took)
	}

	for _, ready := range []bool{true, false, true} {
		value := `null`
		if !ready {
			value = `"false"`
		}
		patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:%s}}}`, lab.AnnotationReady, value)
		if _, err := pods.Patch(t.Context(), "sick", types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		readyPod(t, l.Client(), namespace, "sick", ready)
	}

	never, err := pods.Get(t.Context(), "never", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if never.Status.Phase != corev1.PodPending || never.Spec.NodeName == "" || never.Status.PodIP != "" {
		t.Errorf("a pod told never to start: phase %s, node %q, address %q", never.Status.Phase, never.Spec.NodeName, never.Status.PodIP)
	}
}

func TestMetricsServerServesTheAnnotatedUsage(t *testing.T) {
	t.Parallel()
	l := start(t)
	namespace := inNamespace(t, l)
	apply(t, l, namespace, `
apiVersion: v1
kind: Pod
metadata:
  name: busy
  namespace: NAMESPACE
  annotations: {kwok.x-k8s.io/usage-cpu: 700m, kwok.x-k8s.io/usage-memory: 300Mi}
spec: {containers: [{name: c, image: nginx}]}`)
	eventually(t, "kubectl top shows the usage", func() error {
		out, err := l.Kubectl(t.Context(), "top", "pods", "-n", namespace, "--no-headers")
		if err != nil {
			return err
		}
		if got := strings.Fields(out); len(got) != 3 || got[0] != "busy" || !strings.HasPrefix(got[1], "7") && !strings.HasPrefix(got[1], "69") || got[2] != "300Mi" {
			return fmt.Errorf("kubectl top: %q", out)
		}
		return nil
	})
}

func TestAServiceAccountHasItsOwnRightsOnlyAndTheAuditLogKnowsIt(t *testing.T) {
	t.Parallel()
	l := start(t)
	namespace := inNamespace(t, l)
	since := time.Now()
	config, err := l.ConfigFor(t.Context(), namespace, "default")
	if err != nil {
		t.Fatal(err)
	}
	client := kubernetes.NewForConfigOrDie(config)
	file, err := l.KubeconfigFor(t.Context(), namespace, "default")
	if err != nil {
		t.Fatal(err)
	}
	who, err := l.Kubectl(t.Context(), "--kubeconfig", file, "auth", "whoami", "-o", "jsonpath={.status.userInfo.username}")
	if err != nil || who != "system:serviceaccount:"+namespace+":default" {
		t.Errorf("its kubeconfig makes it %q, %v", who, err)
	}
	_, err = client.CoreV1().ConfigMaps(namespace).Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "a"}}, metav1.CreateOptions{})
	if !apierrors.IsForbidden(err) {
		t.Errorf("without rights: %v", err)
	}
	_, err = kubernetes.NewForConfigOrDie(l.AnonymousConfig()).CoreV1().Pods(namespace).List(t.Context(), metav1.ListOptions{})
	if !apierrors.IsForbidden(err) {
		t.Errorf("anonymous: %v", err)
	}
	eventually(t, "the audit log has the refused write", func() error {
		refused := 0
		for request, err := range l.Audit(since) {
			if err != nil {
				return err
			}
			if request.User == "system:serviceaccount:"+namespace+":default" && request.Writes() && request.Resource == "configmaps" && request.Code == 403 {
				refused++
			}
		}
		if refused != 1 {
			return fmt.Errorf("found %d", refused)
		}
		return nil
	})
	used, err := l.CPU()
	if err != nil || used["kube-apiserver"] == 0 {
		t.Errorf("processor times %v, %v", used, err)
	}
}

// command runs the lab command, with a state folder of the test.
func command(t *testing.T, state string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), filepath.Join(folder, "lab"), args...)
	// As outside: the nested lab makes namespaces of its own.
	cmd.Env = append(os.Environ(), "XDG_STATE_HOME="+state, "KUBETIDE_LAB_INSIDE=")
	return cmd
}

// processesOf returns the command lines of processes that name the folder.
func processesOf(state string) (lines []string) {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		data, _ := os.ReadFile(file)
		if line := strings.ReplaceAll(string(data), "\x00", " "); strings.Contains(line, state) {
			lines = append(lines, line)
		}
	}
	return lines
}

func awaitNothingLeft(t *testing.T, state string) {
	t.Helper()
	eventually(t, "no process is left", func() error {
		if lines := processesOf(state); len(lines) > 0 {
			return errors.New(strings.Join(lines, "\n"))
		}
		return nil
	})
}

func TestTheCommandRunsASecondLabAndLeavesNothing(t *testing.T) {
	t.Parallel()
	start(t) // the first
	state := t.TempDir()
	t.Cleanup(func() { _ = command(t, state, "down").Run() })
	if out, err := command(t, state, "up", "--nodes", "1").Output(); err != nil {
		t.Fatalf("lab up: %v\n%s", err, out)
	}
	if err := command(t, state, "up").Run(); err == nil {
		t.Error("a second lab of the same name came up")
	}
	out, err := command(t, state, "kubeconfig").Output()
	if err != nil {
		t.Fatal(err)
	}
	kubeconfig := strings.TrimSpace(string(out))
	l := start(t)
	outside, err := l.Kubectl(t.Context(), "--kubeconfig", kubeconfig, "get", "nodes", "-o", "name")
	if err != nil || !strings.Contains(outside, "node/node-1") || strings.Contains(outside, "node-2") {
		t.Errorf("kubectl outside the second lab: %q, %v", outside, err)
	}
	inside, err := command(t, state, "exec", "--", "sh", "-c", "kubectl get nodes -o name; exit 7").Output()
	var exit *exec.ExitError
	if string(inside) != outside || !errors.As(err, &exit) || exit.ExitCode() != 7 {
		t.Errorf("kubectl inside the second lab: %q, %v", inside, err)
	}
	plugins := t.TempDir()
	if err := os.WriteFile(filepath.Join(plugins, "kubectl-hello"), []byte("#!/bin/sh\necho hello\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	hello := command(t, state, "exec", "--", "kubectl", "hello")
	hello.Env = append(hello.Env, "PATH="+plugins+":"+os.Getenv("PATH"))
	if out, err := hello.Output(); string(out) != "hello\n" || err != nil {
		t.Errorf("a kubectl plugin in the caller's PATH: %q, %v", out, err)
	}

	// A crash: the kernel ends everything inside with the outer process.
	data, err := os.ReadFile(filepath.Join(filepath.Dir(kubeconfig), "pid"))
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Sscan(string(data), &pid); err != nil {
		t.Fatal(err)
	}
	if len(processesOf(state)) < 5 {
		t.Errorf("the lab's processes are not recognized: %q", processesOf(state))
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	awaitNothingLeft(t, state)
	if command(t, state, "status").Run() == nil {
		t.Error("lab status after a crash succeeded")
	}
	if err := command(t, state, "down").Run(); err != nil {
		t.Errorf("lab down after a crash: %v", err)
	}
	if _, err := os.Stat(kubeconfig); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("lab down left its folder: %v", err)
	}
}

func TestAnInterruptedStartLeavesNothing(t *testing.T) {
	t.Parallel()
	start(t)
	state := t.TempDir()
	up := command(t, state, "up")
	stderr, err := up.StderrPipe()
	if err == nil {
		err = up.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	said := ""
	for buffer := make([]byte, 1<<10); !strings.Contains(said, "starting kube-controller-manager"); {
		n, err := stderr.Read(buffer)
		if said += string(buffer[:n]); err != nil {
			t.Fatalf("lab up ended early: %s", said)
		}
	}
	if err := up.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, stderr)
	if err := up.Wait(); err == nil {
		t.Error("an interrupted start succeeded")
	}
	awaitNothingLeft(t, state)
	if left, _ := filepath.Glob(filepath.Join(state, "kubetide", "lab", "*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
