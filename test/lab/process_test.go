package lab_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubetide/kubetide/test/lab"
)

// server is a pod of the test server with everything that a spec can give to a process.
const server = `
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: NAMESPACE}
data: {color: blue, config.yaml: "a: 1"}
---
apiVersion: v1
kind: Secret
metadata: {name: password, namespace: NAMESPACE}
stringData: {word: hush}
---
apiVersion: v1
kind: Pod
metadata: {name: server, namespace: NAMESPACE, labels: {app: server, tier: "1"}}
spec:
  terminationGracePeriodSeconds: 60
  containers:
  - name: server
    image: example.org/lab/testserver:v1
    command: [/opt/testserver]
    args: ["--name=$(POD_NAME)", "--literal=$$(POD_NAME)", "--unknown=$(NOBODY)"]
    env:
    - {name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
    - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
    - {name: TIER, valueFrom: {fieldRef: {fieldPath: "metadata.labels['tier']"}}}
    - {name: COLOR, valueFrom: {configMapKeyRef: {name: settings, key: color}}}
    - {name: WORD, valueFrom: {secretKeyRef: {name: password, key: word}}}
    - {name: MEMORY, valueFrom: {resourceFieldRef: {resource: limits.memory, divisor: 1Mi}}}
    resources: {limits: {memory: 64Mi}}
    ports: [{name: http, containerPort: 8080}]
    readinessProbe: {httpGet: {path: /healthz, port: http}, periodSeconds: 1, failureThreshold: 1}
    securityContext: {readOnlyRootFilesystem: true}
    volumeMounts:
    - {name: settings, mountPath: /etc/settings}
    - {name: one, mountPath: /etc/one.yaml, subPath: config.yaml}
    - {name: scratch, mountPath: /scratch}
    - {name: all, mountPath: /all}
  volumes:
  - {name: settings, configMap: {name: settings}}
  - {name: one, configMap: {name: settings}}
  - {name: scratch, emptyDir: {}}
  - name: all
    projected:
      sources:
      - {secret: {name: password, items: [{key: word, path: deep/word}]}}
      - {downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}
      - {serviceAccountToken: {path: token, audience: somebody}}
`

func TestAProcessPodGetsWhatItsSpecSays(t *testing.T) {
	t.Parallel()
	l := start(t)
	namespace := inNamespace(t, l)
	apply(t, l, namespace, server)
	pod := readyPod(t, l.Client(), namespace, "server", true)
	at := "http://" + pod.Status.PodIP + ":8080"
	if !strings.HasPrefix(pod.Status.PodIP, "10.245.") || !strings.HasPrefix(pod.Spec.NodeName, "process-") {
		t.Errorf("address %s, node %s", pod.Status.PodIP, pod.Spec.NodeName)
	}
	for path, want := range map[string]string{
		"/args":                                `["--name=server","--literal=$(POD_NAME)","--unknown=$(NOBODY)"]` + "\n",
		"/env?name=POD_IP":                     pod.Status.PodIP,
		"/env?name=NODE":                       pod.Spec.NodeName,
		"/env?name=TIER":                       "1",
		"/env?name=COLOR":                      "blue",
		"/env?name=WORD":                       "hush",
		"/env?name=MEMORY":                     "64",
		"/env?name=HOME":                       "",
		"/hostname":                            "server",
		"/file?path=/etc/settings/config.yaml": "a: 1",
		"/file?path=/etc/one.yaml":             "a: 1",
		"/file?path=/all/deep/word":            "hush",
		"/write?path=/scratch/x":               "",
		"/whoami":                              "system:serviceaccount:" + namespace + ":default",
		"/file?path=/var/run/secrets/kubernetes.io/serviceaccount/namespace": namespace,
	} {
		if got, err := get(at + path); err != nil || got != want {
			t.Errorf("%s: got %q, %v, want %q", path, got, err, want)
		}
	}
	// Kubernetes adds the node's topology to a pod's labels.
	if labels, err := get(at + "/file?path=/all/labels"); err != nil || !strings.HasPrefix(labels, "app=\"server\"\ntier=\"1\"\n") {
		t.Errorf("labels %q, %v", labels, err)
	}
	for _, path := range []string{"/tmp/x", "/etc/settings/x", "/usr/x"} {
		if _, err := get(at + "/write?path=" + path); err == nil {
			t.Errorf("the process may write %s", path)
		}
	}
	if token, err := get(at + "/file?path=/all/token"); err != nil || strings.Count(token, ".") != 2 {
		t.Errorf("token for another audience: %q, %v", token, err)
	}
	if body, err := get(at + "/file?path=" + folder); err == nil {
		t.Errorf("the process sees the machine's files: %q", body)
	}

	changed := strings.Replace(server, "a: 1", "a: 2", 1)
	settings, _, _ := strings.Cut(changed, "---")
	apply(t, l, namespace, settings)
	eventually(t, "the file follows the ConfigMap", func() error {
		got, err := get(at + "/file?path=/etc/settings/config.yaml")
		if err == nil && got != "a: 2" {
			err = fmt.Errorf("got %q", got)
		}
		return err
	})
	if out, err := l.Kubectl(t.Context(), "logs", "-n", namespace, "server", "--tail=1"); err != nil || !strings.Contains(out, "started with [--name=server") {
		t.Errorf("kubectl logs: %q, %v", out, err)
	}
}

func TestAProcessPodLivesAsUnderAKubelet(t *testing.T) {
	t.Parallel()
	l := start(t)
	namespace := inNamespace(t, l)
	apply(t, l, namespace, server)
	pods := l.Client().CoreV1().Pods(namespace)
	pod := readyPod(t, l.Client(), namespace, "server", true)
	at := "http://" + pod.Status.PodIP + ":8080"

	// The readiness probe decides both ways.
	if _, err := get(at + "/sick"); err != nil {
		t.Fatal(err)
	}
	readyPod(t, l.Client(), namespace, "server", false)
	if _, err := get(at + "/well"); err != nil {
		t.Fatal(err)
	}
	readyPod(t, l.Client(), namespace, "server", true)

	// A crash: restarted at the same address, and counted.
	before, err := l.PodPID(namespace, "server")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.KillPod(namespace, "server", syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the process is back", func() error {
		got, err := pods.Get(t.Context(), "server", metav1.GetOptions{})
		if err != nil {
			return err
		}
		status := got.Status.ContainerStatuses[0]
		last := status.LastTerminationState.Terminated
		if status.RestartCount != 1 || last == nil || last.ExitCode != 137 || !isReady(got) || got.Status.PodIP != pod.Status.PodIP {
			return fmt.Errorf("status %+v", got.Status)
		}
		return nil
	})
	if after, err := l.PodPID(namespace, "server"); err != nil || after == before {
		t.Errorf("process %d before, %d after, %v", before, after, err)
	}

	// Deletion: SIGTERM, time to drain, and gone.
	asked := time.Now()
	if err := pods.Delete(t.Context(), "server", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the pod is gone", func() error {
		if _, err := pods.Get(t.Context(), "server", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			return errors.Join(errors.New("still there"), err)
		}
		return nil
	})
	if took := time.Since(asked); took > 45*time.Second {
		t.Errorf("deletion took %s: the process was not asked to end", took)
	}
	if logs, err := l.Logs(namespace, "server"); err != nil || !strings.Contains(logs, "stopped gracefully") {
		t.Errorf("logs %q, %v", logs, err)
	}
}

func TestAProcessPodSaysWhatItLacks(t *testing.T) {
	t.Parallel()
	l := start(t)
	namespace := inNamespace(t, l)
	apply(t, l, namespace, `
apiVersion: v1
kind: Pod
metadata: {name: a, namespace: NAMESPACE}
spec:
  containers:
  - {name: c, image: example.org/lab/testserver, env: [{name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}], volumeMounts: [{name: v, mountPath: /v}]}
  volumes: [{name: v, configMap: {name: missing}}]`)
	pods := l.Client().CoreV1().Pods(namespace)
	eventually(t, "the pod waits and says why", func() error {
		pod, err := pods.Get(t.Context(), "a", metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, s := range pod.Status.ContainerStatuses {
			if w := s.State.Waiting; w != nil && w.Reason == "CreateContainerConfigError" && strings.Contains(w.Message, `configmaps "missing" not found`) {
				return nil
			}
		}
		return fmt.Errorf("status %+v", pod.Status)
	})
	apply(t, l, namespace, `{apiVersion: v1, kind: ConfigMap, metadata: {name: missing, namespace: NAMESPACE}}`)
	readyPod(t, l.Client(), namespace, "a", true)
}

func TestALivenessProbeRestartsAndACrashLoopBacksOff(t *testing.T) {
	t.Parallel()
	l := start(t)
	namespace := inNamespace(t, l)
	apply(t, l, namespace, `
apiVersion: v1
kind: Pod
metadata: {name: sick, namespace: NAMESPACE}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: example.org/lab/testserver
    env: [{name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}]
    livenessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1, failureThreshold: 2}
    volumeMounts: [{name: scratch, mountPath: /scratch}]
  volumes: [{name: scratch, emptyDir: {}}]
---
apiVersion: v1
kind: Pod
metadata: {name: crash, namespace: NAMESPACE}
spec:
  containers: [{name: c, image: example.org/lab/testserver, command: [sh, -c, exit 5]}]`)
	pods := l.Client().CoreV1().Pods(namespace)
	sick := readyPod(t, l.Client(), namespace, "sick", true)
	eventually(t, "the process listens and falls sick", func() error {
		_, err := get("http://" + sick.Status.PodIP + ":8080/sick")
		return err
	})
	eventually(t, "the sick process is restarted", func() error {
		pod, err := pods.Get(t.Context(), "sick", metav1.GetOptions{})
		if err != nil {
			return err
		}
		s := pod.Status.ContainerStatuses[0]
		if s.RestartCount == 0 || s.LastTerminationState.Terminated == nil || !strings.Contains(s.LastTerminationState.Terminated.Message, "liveness probe failed") {
			return fmt.Errorf("status %+v", s)
		}
		return nil
	})
	eventually(t, "the crashing process backs off", func() error {
		pod, err := pods.Get(t.Context(), "crash", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if len(pod.Status.ContainerStatuses) == 0 {
			return errors.New("no status yet")
		}
		s := pod.Status.ContainerStatuses[0]
		if s.State.Waiting == nil || s.State.Waiting.Reason != "CrashLoopBackOff" || s.LastTerminationState.Terminated == nil || s.LastTerminationState.Terminated.ExitCode != 5 {
			return fmt.Errorf("status %+v", s)
		}
		return nil
	})
}

func TestADynamicallyLinkedBinaryRunsToo(t *testing.T) {
	t.Parallel()
	l := start(t)
	binary := filepath.Join(t.TempDir(), "dynamic")
	build := exec.Command("go", "build", "-race", "-o", binary, "./internal/testserver")
	build.Env = append(os.Environ(), "CGO_ENABLED=1")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := l.RegisterImage(t.Context(), "example.org/lab/dynamic", binary); err != nil {
		t.Fatal(err)
	}
	namespace := inNamespace(t, l)
	apply(t, l, namespace, strings.ReplaceAll(strings.ReplaceAll(server, "example.org/lab/testserver:v1", "example.org/lab/dynamic:v2"), "[/opt/testserver]", "[/opt/dynamic]"))
	readyPod(t, l.Client(), namespace, "server", true)
}

func TestServicesLeadAPIServicesAndWebhooksToProcessPods(t *testing.T) {
	t.Parallel()
	l := start(t)
	namespace := inNamespace(t, l)
	key, cert, err := lab.SelfSigned("server." + namespace + ".svc")
	if err != nil {
		t.Fatal(err)
	}
	encode := base64.StdEncoding.EncodeToString
	apply(t, l, namespace, strings.NewReplacer("CERT", encode(cert), "KEY", encode(key)).Replace(`
apiVersion: v1
kind: Secret
metadata: {name: certificate, namespace: NAMESPACE}
type: kubernetes.io/tls
data: {tls.crt: CERT, tls.key: KEY}
---
apiVersion: v1
kind: Service
metadata: {name: server, namespace: NAMESPACE}
spec: {selector: {app: server}, ports: [{port: 443, targetPort: https}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: server, namespace: NAMESPACE}
spec:
  replicas: 2
  selector: {matchLabels: {app: server}}
  template:
    metadata: {labels: {app: server}}
    spec:
      affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: kubernetes.io/hostname, labelSelector: {matchLabels: {app: server}}}]}}
      containers:
      - name: server
        image: example.org/lab/testserver
        env: [{name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}]
        ports: [{name: https, containerPort: 8443}]
        readinessProbe: {httpGet: {path: /healthz, port: https, scheme: HTTPS}, periodSeconds: 1}
        volumeMounts: [{name: certificate, mountPath: /certificate}]
      volumes: [{name: certificate, secret: {secretName: certificate}}]
---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: v1.test.lab}
spec:
  group: test.lab
  version: v1
  service: {name: server, namespace: NAMESPACE}
  caBundle: CERT
  groupPriorityMinimum: 100
  versionPriority: 100
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingWebhookConfiguration
metadata: {name: test.lab}
webhooks:
- name: a.test.lab
  clientConfig: {service: {name: server, namespace: NAMESPACE, path: /admit}, caBundle: CERT}
  rules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [configmaps]}]
  namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: NAMESPACE}}
  failurePolicy: Ignore
  sideEffects: None
  admissionReviewVersions: [v1]
`))
	t.Cleanup(func() {
		_, _ = l.Kubectl(context.Background(), "delete", "apiservice/v1.test.lab", "mutatingwebhookconfiguration/test.lab")
	})
	eventually(t, "the aggregated API answers", func() error {
		body, err := l.Client().Discovery().RESTClient().Get().AbsPath("/apis/test.lab/v1").DoRaw(t.Context())
		if err == nil && !bytes.Contains(body, []byte("test.lab/v1")) {
			err = fmt.Errorf("got %s", body)
		}
		return err
	})
	eventually(t, "the webhook is asked", func() error {
		made, err := l.Client().CoreV1().ConfigMaps(namespace).Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: "a-"}}, metav1.CreateOptions{})
		if err == nil && made.Data["webhook"] != "was here" {
			err = fmt.Errorf("data %v", made.Data)
		}
		return err
	})
}
