package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	externalmetrics "k8s.io/metrics/pkg/apis/external_metrics/v1beta1"
)

// three is a cluster of three servers, and what they collect: External metrics whose value is when their source was asked.
type three struct {
	*testing.T
	ns      string
	metrics int
	direct  http.RoundTripper // past the aggregator

	mu    sync.Mutex
	asked map[string]int // by path of the source
}

const threeInterval = 5 * time.Second

// startThree makes a cluster of the Kubetide that is installed, until stop.
func startThree(t *testing.T, metrics int) (c *three, stop func()) {
	c = &three{T: t, ns: newNamespace(t), metrics: metrics, asked: map[string]int{}}
	port := answering(t, func(w http.ResponseWriter, r *http.Request, _ string) {
		c.mu.Lock()
		c.asked[r.URL.Path]++
		c.mu.Unlock()
		fmt.Fprintf(w, `{"now": %d}`, time.Now().UnixMilli())
	})
	var hpas strings.Builder
	for i := range metrics {
		fmt.Fprintf(&hpas, `---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: shop-%[1]d
  annotations:
    metric-config.external.m%[1]d.json-path/endpoint: http://%[2]s:%[3]d/%[1]d
    metric-config.external.m%[1]d.json-path/json-key: $.now
    metric-config.external.m%[1]d.json-path/interval: %[4]s
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: shop-%[1]d}
  maxReplicas: 2
  metrics:
    - {type: External, external: {metric: {name: m%[1]d, selector: {matchLabels: {type: json-path}}}, target: {type: Value, value: "1"}}}
`, i, tenantHost, port, threeInterval)
	}
	create(t, c.ns, "%s", hpas.String())

	_, err := kube.CoreV1().ServiceAccounts(c.ns).Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "reader"}}, metav1.CreateOptions{})
	must(t, err)
	_, err = kube.RbacV1().Roles(c.ns).Create(t.Context(), &rbacv1.Role{
		ObjectMeta: metav1.ObjectMeta{Name: "metrics"},
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{"external.metrics.k8s.io"}, Resources: []string{"*"}, Verbs: []string{"get", "list"}}},
	}, metav1.CreateOptions{})
	must(t, err)
	_, err = kube.RbacV1().RoleBindings(c.ns).Create(t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "metrics"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "metrics"},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: c.ns, Name: "reader"}},
	}, metav1.CreateOptions{})
	must(t, err)
	token, err := kube.CoreV1().ServiceAccounts(c.ns).CreateToken(t.Context(), "reader", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	must(t, err)
	c.direct, err = rest.TransportFor(&rest.Config{TLSClientConfig: rest.TLSClientConfig{Insecure: true}, BearerToken: token.Status.Token})
	must(t, err)

	c.scale(3, "KUBETIDE_CLUSTER_JOIN=kubetide-headless")
	return c, func() { c.scale(1, "KUBETIDE_CLUSTER_JOIN-") }
}

// scale changes environment and replicas, and waits until nothing is left of before.
func (c *three) scale(replicas int, env ...string) {
	c.Helper()
	c.kubectl(append([]string{"set", "env", "statefulset/kubetide"}, env...)...)
	c.kubectl("scale", "statefulset/kubetide", fmt.Sprintf("--replicas=%d", replicas))
	c.rolledOut(replicas)
}

func (c *three) kubectl(args ...string) {
	c.Helper()
	_, err := cluster.Kubectl(c.Context(), append([]string{"-n", system}, args...)...)
	must(c.T, err)
}

func (c *three) rolledOut(replicas int) {
	c.Helper()
	c.kubectl("rollout", "status", "statefulset/kubetide", "--timeout=180s")
	eventually(c.T, 90*time.Second, func() error {
		if n := len(kubetidePods(c.T)); n != replicas {
			return fmt.Errorf("%d pods of Kubetide", n)
		}
		return nil
	})
	waitForKubetide(c.T)
}

func (c *three) path(i int) string {
	return fmt.Sprintf("%s/namespaces/%s/m%d?labelSelector=type%%3Djson-path", externalV1beta1, c.ns, i)
}

// readDirect returns how old the i-th metric is that the pod answers with.
func (c *three) readDirect(ctx context.Context, podIP string, i int) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+net.JoinHostPort(podIP, "6443")+c.path(i), nil)
	if err != nil {
		return 0, err
	}
	response, err := c.direct.RoundTrip(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err
	}
	if response.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("%s: %s", response.Status, body)
	}
	return ageOf(body)
}

// ageOf is how long ago the source was asked whose answer this is.
func ageOf(body []byte) (time.Duration, error) {
	var list externalmetrics.ExternalMetricValueList
	if err := json.Unmarshal(body, &list); err != nil {
		return 0, err
	}
	if len(list.Items) != 1 {
		return 0, fmt.Errorf("%d values", len(list.Items))
	}
	return time.Since(time.UnixMilli(list.Items[0].Value.Value())), nil
}

// reads is what came of many reads.
type reads struct {
	count, failed int
	oldest        time.Duration
	last          error
}

// reading reads all metrics in turn, a hundred a second, until stop.
func (c *three) reading(read func(ctx context.Context, i int) (time.Duration, error)) (stop func() reads) {
	ctx, cancel := context.WithCancel(c.Context())
	var r reads
	done := make(chan struct{})
	go func() {
		defer close(done)
		often := time.NewTicker(10 * time.Millisecond)
		defer often.Stop()
		for i := 0; ; i++ {
			select {
			case <-ctx.Done():
				return
			case <-often.C:
			}
			age, err := read(ctx, i%c.metrics)
			if ctx.Err() != nil {
				return
			}
			r.count++
			r.oldest = max(r.oldest, age)
			if err != nil {
				r.failed++
				r.last = fmt.Errorf("at %s: %w", time.Now().Format(time.TimeOnly), err)
			}
		}
	}()
	return func() reads {
		cancel()
		<-done
		return r
	}
}

func (c *three) check(what string, r reads, bound time.Duration) {
	c.Helper()
	c.Logf("%s: %d reads, %d failed, the oldest value was %s old", what, r.count, r.failed, r.oldest)
	if r.failed > 0 || r.oldest > bound || r.count == 0 {
		c.Errorf("%s: want no failure (the last: %v), and no value older than %s", what, r.last, bound)
	}
}

// nodes are those that a server sees.
func (c *three) nodes(podIP string) (nodes []struct{ ID, State string }, err error) {
	request, err := http.NewRequestWithContext(c.Context(), http.MethodGet, "http://"+net.JoinHostPort(podIP, "8002")+"/status/cluster/nodes", nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s", response.Status)
	}
	return nodes, json.NewDecoder(response.Body).Decode(&nodes)
}

// oneView waits until each server sees just these pods, active, and answers all metrics.
func (c *three) oneView() []corev1.Pod {
	c.Helper()
	var pods []corev1.Pod
	eventually(c.T, 60*time.Second, func() error {
		pods = kubetidePods(c.T)
		for _, p := range pods {
			nodes, err := c.nodes(p.Status.PodIP)
			if err != nil {
				return err
			}
			for _, n := range nodes {
				if n.State != "active" {
					return fmt.Errorf("%s sees %v", p.Name, nodes)
				}
			}
			if len(nodes) != 3 {
				return fmt.Errorf("%s sees %v", p.Name, nodes)
			}
			for i := range c.metrics {
				if _, err := c.readDirect(c.Context(), p.Status.PodIP, i); err != nil {
					return fmt.Errorf("%s: %w", p.Name, err)
				}
			}
		}
		return nil
	})
	return pods
}

// Three servers find each other by the name of a Service, and share the collecting: each source is asked once an interval, each
// server answers for all. One that is killed, or leaves, or is replaced, costs no read and no more age than it must.
func TestThreeServersShareTheCollecting(t *testing.T) {
	const metrics = 40
	c, stop := startThree(t, metrics)
	defer stop()
	pods := c.oneView()

	// Hand-overs are over after an interval.
	settled := time.Now().Add(2 * threeInterval)
	eventually(t, time.Minute, func() error {
		if time.Now().Before(settled) {
			return fmt.Errorf("waiting")
		}
		return nil
	})
	c.mu.Lock()
	clear(c.asked)
	c.mu.Unlock()
	stopReading := c.reading(func(ctx context.Context, i int) (time.Duration, error) {
		return c.readDirect(ctx, pods[i%len(pods)].Status.PodIP, i)
	})
	end := time.Now().Add(4 * threeInterval)
	eventually(t, time.Minute, func() error {
		if time.Now().Before(end) {
			return fmt.Errorf("reading")
		}
		return nil
	})
	c.check("at rest", stopReading(), threeInterval+2*time.Second)
	total := 0
	c.mu.Lock()
	for path, n := range c.asked {
		if total += n; n < 3 || n > 6 {
			t.Errorf("%s was asked %d times in 4 intervals", path, n)
		}
	}
	c.mu.Unlock()
	t.Logf("%d sources were asked %d times in 4 intervals", metrics, total)
	if total < 4*metrics*9/10 || total > 4*metrics*11/10 {
		t.Errorf("the sources were asked %d times, want %d", total, 4*metrics)
	}

	// kill -9, while the others are read.
	killed, others := pods[0], pods[1:]
	stopReading = c.reading(func(ctx context.Context, i int) (time.Duration, error) {
		return c.readDirect(ctx, others[i%len(others)].Status.PodIP, i)
	})
	must(t, cluster.KillPod(system, killed.Name, syscall.SIGKILL))
	end = time.Now().Add(3 * threeInterval)
	eventually(t, time.Minute, func() error {
		if time.Now().Before(end) {
			return fmt.Errorf("reading")
		}
		return nil
	})
	c.check("one was killed", stopReading(), threeInterval+7*time.Second)
	c.oneView()

	// A rolling update, read as the HPA controller does.
	stopReading = c.reading(func(ctx context.Context, i int) (time.Duration, error) {
		body, err := raw(ctx, c.path(i))
		if err != nil {
			return 0, err
		}
		return ageOf(body)
	})
	c.kubectl("rollout", "restart", "statefulset/kubetide")
	c.rolledOut(3)
	c.check("a rolling update", stopReading(), threeInterval+2*time.Second)
	c.oneView()
}
