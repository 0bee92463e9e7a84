package lab_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// podWith is a pod of the test server with the value of an annotation for its network.
func podWith(name, network string) string {
	return fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: NAMESPACE, annotations: {lab.kubetide.io/network: %q}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: example.org/lab/testserver
    env: [{name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}]
    readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}
---`, name, network)
}

// playing answers with who asks, as a simulated pod would.
func playing(t *testing.T, address string) (url string) {
	t.Helper()
	listener, err := net.Listen("tcp", address+":0")
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(out http.ResponseWriter, in *http.Request) { _, _ = io.WriteString(out, in.RemoteAddr) }))
	server.Listener.Close()
	server.Listener = listener
	server.Start()
	t.Cleanup(server.Close)
	return server.URL
}

func TestAPodWithANetworkOfItsOwnIsCutOffFromSomeAndHealed(t *testing.T) {
	t.Parallel()
	l := start(t)
	namespace := inNamespace(t, l)
	apply(t, l, namespace, podWith("one", "own")+podWith("two", "own")+podWith("shared", ""))
	address, at := map[string]string{}, map[string]string{}
	for _, name := range []string{"one", "two", "shared"} {
		address[name] = readyPod(t, l.Client(), namespace, name, true).Status.PodIP
		at[name] = "http://" + address[name] + ":8080"
	}
	source, other := playing(t, "10.244.91.1"), playing(t, "10.244.91.2")
	fetch := func(from, url string) error { _, err := get(at[from] + "/fetch?url=" + url); return err }
	send := func(from, to, text string) error {
		_, err := get(fmt.Sprintf("%s/send?to=%s:8080&text=%s", at[from], address[to], text))
		return err
	}
	allAnswer := func() {
		t.Helper()
		for _, way := range [][2]string{
			{"one", at["two"] + "/hostname"}, {"two", at["one"] + "/hostname"}, {"one", at["shared"] + "/hostname"}, {"shared", at["one"] + "/hostname"},
			{"one", source}, {"one", other},
		} {
			if err := fetch(way[0], way[1]); err != nil {
				t.Errorf("%s fetches %s: %v", way[0], way[1], err)
			}
		}
	}
	allAnswer()
	if seen, err := get(at["one"] + "/fetch?url=" + source); err != nil || !strings.HasPrefix(seen, address["one"]+":") {
		t.Errorf("the source was asked by %q, %v, want %s", seen, err, address["one"])
	}

	if err := l.CutOff(namespace, "one", netip.MustParseAddr(address["two"]), netip.MustParseAddr("10.244.91.1")); err != nil {
		t.Fatal(err)
	}
	for _, way := range [][2]string{{"one", at["two"] + "/hostname"}, {"two", at["one"] + "/hostname"}, {"one", source}} {
		if err := fetch(way[0], way[1]); err == nil {
			t.Errorf("%s still fetches %s", way[0], way[1])
		}
	}
	for from, url := range map[string]string{"one": other, "shared": at["one"] + "/hostname", "two": at["shared"] + "/hostname"} {
		if err := fetch(from, url); err != nil {
			t.Errorf("%s fetches %s: %v", from, url, err)
		}
	}
	if who, err := get(at["one"] + "/whoami"); err != nil || !strings.HasPrefix(who, "system:serviceaccount:"+namespace) {
		t.Errorf("the API server says %q, %v", who, err)
	}
	// What comes later tells that what is missing was lost.
	for _, d := range [][3]string{{"two", "one", "lost"}, {"shared", "one", "a"}, {"one", "two", "lost"}, {"shared", "two", "a"}} {
		if err := send(d[0], d[1], d[2]); err != nil {
			t.Errorf("%s sends to %s: %v", d[0], d[1], err)
		}
	}
	received := func(want string) {
		t.Helper()
		for _, name := range []string{"one", "two"} {
			eventually(t, name+" receives the datagrams", func() error {
				got, err := get(at[name] + "/received")
				if err == nil && got != want {
					err = fmt.Errorf("got %q, want %q", got, want)
				}
				return err
			})
		}
	}
	received("a")

	if err := l.Heal(namespace, "one"); err != nil {
		t.Fatal(err)
	}
	allAnswer()
	for _, d := range [][3]string{{"two", "one", "b"}, {"one", "two", "b"}} {
		if err := send(d[0], d[1], d[2]); err != nil {
			t.Errorf("%s sends to %s: %v", d[0], d[1], err)
		}
	}
	received("a b")
}

func TestANetworkOfItsOwnOutlivesTheProcessAndEndsWithThePod(t *testing.T) {
	t.Parallel()
	l := start(t)
	namespace := inNamespace(t, l)
	apply(t, l, namespace, podWith("one", "own"))
	pod := readyPod(t, l.Client(), namespace, "one", true)
	at := "http://" + pod.Status.PodIP + ":8080"
	source := playing(t, "10.244.91.3")
	if err := l.CutOff(namespace, "one", netip.MustParseAddr("10.244.91.3")); err != nil {
		t.Fatal(err)
	}
	if err := l.KillPod(namespace, "one", syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the process is back", func() error {
		got, err := l.Client().CoreV1().Pods(namespace).Get(t.Context(), "one", metav1.GetOptions{})
		if err == nil && (got.Status.ContainerStatuses[0].RestartCount != 1 || !isReady(got)) {
			err = fmt.Errorf("status %+v", got.Status)
		}
		return err
	})
	if got, err := get(at + "/fetch?url=" + source); err == nil {
		t.Errorf("the new process fetches %q", got)
	}
	if err := l.CutOff(namespace, "nobody", netip.MustParseAddr("10.244.91.3")); err == nil || !strings.Contains(err.Error(), "lab.kubetide.io/network: own") {
		t.Errorf("a pod that is not there is cut off: %v", err)
	}

	if err := l.Client().CoreV1().Pods(namespace).Delete(t.Context(), "one", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the address is the lab's again", func() error {
		listener, err := net.Listen("tcp", pod.Status.PodIP+":8080")
		if err == nil {
			listener.Close()
		}
		return err
	})
}
