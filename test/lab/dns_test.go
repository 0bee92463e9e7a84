package lab_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// carts is a StatefulSet with a headless Service of its ready pods and one of all, and a Service with a cluster IP.
const carts = `
apiVersion: v1
kind: Service
metadata: {name: carts, namespace: NAMESPACE}
spec: {clusterIP: None, selector: {app: cart}, ports: [{port: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: everyone, namespace: NAMESPACE}
spec: {clusterIP: None, publishNotReadyAddresses: true, selector: {app: cart}, ports: [{port: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: NAMESPACE}
spec: {selector: {app: cart}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: cart, namespace: NAMESPACE}
spec:
  serviceName: carts
  replicas: 2
  podManagementPolicy: Parallel
  selector: {matchLabels: {app: cart}}
  template:
    metadata: {labels: {app: cart}}
    spec:
      containers:
      - name: server
        image: example.org/lab/testserver
        env: [{name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}]
        readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1, failureThreshold: 1}
        volumeMounts: [{name: scratch, mountPath: /scratch}]
      volumes: [{name: scratch, emptyDir: {}}]
`

func TestNamesOfServicesLeadToProcessPods(t *testing.T) {
	t.Parallel()
	l := start(t)
	namespace := inNamespace(t, l)
	apply(t, l, namespace, carts)
	first := readyPod(t, l.Client(), namespace, "cart-0", true).Status.PodIP
	second := readyPod(t, l.Client(), namespace, "cart-1", true).Status.PodIP
	asker := "http://" + first + ":8080"
	both := []string{first, second}
	// resolves compares what the first pod finds under a name; no address: the name does not exist.
	resolves := func(name string, want ...string) error {
		got, err := get(asker + "/resolve?name=" + name)
		slices.Sort(want)
		switch {
		case len(want) == 0 && err != nil && strings.HasPrefix(err.Error(), "404"):
			return nil
		case err != nil:
			return fmt.Errorf("%s: %w, want %q", name, err, want)
		case len(want) == 0 || got != strings.Join(want, " "):
			return fmt.Errorf("%s: got %q, want %q", name, got, want)
		}
		return nil
	}
	for name, want := range map[string][]string{
		"carts": both, "carts." + namespace: both, "carts." + namespace + ".svc": both,
		"carts." + namespace + ".svc.cluster.local": both, "carts." + namespace + ".svc.cluster.local.": both,
		"everyone": both, "web": both,
		"cart-1.carts": {second}, "cart-1.carts." + namespace + ".svc": {second},
		"kubernetes.default": {"192.0.2.10"},
		"nobody":             nil, "cart-2.carts": nil, "carts.default": nil, "example.org": nil,
	} {
		eventually(t, name+" resolves", func() error { return resolves(name, want...) })
	}
	if got, err := get(asker + "/resolve?name=cart-0.carts." + namespace + ".svc.cluster.local"); err != nil || got != first {
		t.Errorf("a pod's own name: %q, %v, want %q", got, err, first)
	}

	within := func(since time.Time, name string, want ...string) {
		t.Helper()
		eventually(t, name+" follows", func() error { return resolves(name, want...) })
		if took := time.Since(since); took > 3*time.Second {
			t.Errorf("%s followed after %s", name, took)
		}
	}
	if _, err := get("http://" + second + ":8080/sick"); err != nil {
		t.Fatal(err)
	}
	readyPod(t, l.Client(), namespace, "cart-1", false)
	unready := time.Now()
	within(unready, "carts", first)
	within(unready, "cart-1.carts")
	if err := resolves("everyone", both...); err != nil {
		t.Errorf("publishNotReadyAddresses: %v", err)
	}
	if _, err := get("http://" + second + ":8080/well"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the pod is back", func() error { return resolves("carts", both...) })

	old, err := l.Client().CoreV1().Pods(namespace).Get(t.Context(), "cart-1", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	killed := time.Now()
	if err := l.Client().CoreV1().Pods(namespace).Delete(t.Context(), "cart-1", metav1.DeleteOptions{GracePeriodSeconds: new(int64)}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"carts", "everyone"} {
		eventually(t, name+" forgets the killed pod", func() error {
			got, err := get(asker + "/resolve?name=" + name)
			if err == nil && slices.Contains(strings.Fields(got), second) {
				err = fmt.Errorf("got %q", got)
			}
			return err
		})
	}
	if took := time.Since(killed); took > 3*time.Second {
		t.Errorf("names kept the killed pod for %s", took)
	}
	eventually(t, "the name is the new pod's", func() error {
		pod, err := l.Client().CoreV1().Pods(namespace).Get(t.Context(), "cart-1", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if pod.UID == old.UID || pod.Status.PodIP == "" || pod.Status.PodIP == second {
			return fmt.Errorf("status %+v", pod.Status)
		}
		return resolves("cart-1.carts", pod.Status.PodIP)
	})
}
