package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
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

// three is a cluster of three servers or more, and what they collect: External metrics whose value is when their source was asked.
type three struct {
	*testing.T
	ns      string
	servers int
	metrics int
	direct  http.RoundTripper // past the aggregator

	aggregated http.RoundTripper

	broken atomic.Bool // all sources

	mu    sync.Mutex
	asked map[string][]asking // by path of the source
}

// asking is one request that a source got.
type asking struct {
	at time.Time
	by string // the address of a pod
}

const threeInterval = 5 * time.Second

// startThree makes a cluster of the Kubetide that is installed, until stop.
func startThree(t *testing.T, metrics int) (c *three, stop func()) {
	return startServers(t, 3, metrics)
}

func startServers(t *testing.T, servers, metrics int) (c *three, stop func()) {
	c = &three{T: t, ns: newNamespace(t), servers: servers, metrics: metrics, asked: map[string][]asking{}}
	port := answering(t, func(w http.ResponseWriter, r *http.Request, _ string) {
		by, _, _ := net.SplitHostPort(r.RemoteAddr)
		now := time.Now()
		c.mu.Lock()
		c.asked[r.URL.Path] = append(c.asked[r.URL.Path], asking{now, by})
		c.mu.Unlock()
		if c.broken.Load() {
			http.Error(w, "closed", http.StatusInternalServerError)
			return
		}
		fmt.Fprintf(w, `{"now": %d}`, now.UnixMilli())
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
	c.aggregated, err = rest.TransportFor(cluster.Config())
	must(t, err)

	c.ownNetworks(`"own"`)
	c.scale(servers, "KUBETIDE_CLUSTER_JOIN=kubetide-headless")
	return c, func() {
		c.T = t
		c.ownNetworks("null")
		c.scale(1, "KUBETIDE_CLUSTER_JOIN-")
	}
}

// ownNetworks sets the annotation by which the lab can cut a pod off, for the pods to come.
func (c *three) ownNetworks(value string) {
	c.Helper()
	c.kubectl("patch", "statefulset/kubetide", "-p", `{"spec": {"template": {"metadata": {"annotations": {"lab.kubetide.io/network": `+value+`}}}}}`)
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

// answer is what a read came to: when the source was asked, and of whom that was read.
type answer struct {
	node  string // empty where the aggregator chose it
	taken time.Time
}

// readDirect reads the i-th metric of a pod.
func (c *three) readDirect(ctx context.Context, podIP string, i int) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+net.JoinHostPort(podIP, "6443")+c.path(i), nil)
	if err != nil {
		return answer{}, err
	}
	taken, err := takenOf(c.direct, request)
	return answer{podIP, taken}, err
}

// readAggregated reads the i-th metric as the HPA controller does.
func (c *three) readAggregated(ctx context.Context, _, i int) (answer, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, cluster.Config().Host+c.path(i), nil)
	if err != nil {
		return answer{}, err
	}
	taken, err := takenOf(c.aggregated, request)
	return answer{taken: taken}, err
}

// takenOf is when the source was asked whose value is answered.
func takenOf(by http.RoundTripper, request *http.Request) (time.Time, error) {
	response, err := by.RoundTrip(request)
	if err != nil {
		return time.Time{}, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return time.Time{}, err
	}
	if response.StatusCode != http.StatusOK {
		return time.Time{}, fmt.Errorf("%s: %s", response.Status, body)
	}
	var list externalmetrics.ExternalMetricValueList
	if err := json.Unmarshal(body, &list); err != nil {
		return time.Time{}, err
	}
	if len(list.Items) != 1 {
		return time.Time{}, fmt.Errorf("%d values", len(list.Items))
	}
	return time.UnixMilli(list.Items[0].Value.Value()), nil
}

// reads is what came of many reads.
type reads struct {
	count, failed int
	oldest        time.Duration
	oldestRead    time.Time
	oldestMetric  int
	took          []time.Duration
	back          []string      // where a value was older than the one before it of the same node
	backBy        time.Duration // the most of these
	last          error
}

const (
	readers       = 10
	readPerSecond = 200
)

// reading reads all metrics in turn, until stop. A metric is read by one reader alone, so that its answers have an order.
func (c *three) reading(read func(ctx context.Context, turn, i int) (answer, error)) (stop func() reads) {
	ctx, cancel := context.WithCancel(c.Context())
	results := make([]reads, readers)
	var running sync.WaitGroup
	for reader := range readers {
		running.Go(func() {
			r, seen := &results[reader], map[string]time.Time{}
			often := time.NewTicker(readers * time.Second / readPerSecond)
			defer often.Stop()
			for turn := 0; ; turn++ {
				select {
				case <-ctx.Done():
					return
				case <-often.C:
				}
				i := (reader + readers*turn) % c.metrics
				began := time.Now()
				got, err := read(ctx, turn/(c.metrics/readers), i)
				if ctx.Err() != nil {
					return
				}
				now := time.Now()
				r.count++
				r.took = append(r.took, now.Sub(began))
				if err != nil {
					r.failed++
					r.last = fmt.Errorf("at %s: %w", now.Format(time.TimeOnly), err)
					continue
				}
				if age := now.Sub(got.taken); age > r.oldest {
					r.oldest, r.oldestRead, r.oldestMetric = age, now, i
				}
				if got.node == "" {
					continue
				}
				key := fmt.Sprintf("m%d at %s", i, got.node)
				if before := seen[key]; got.taken.Before(before) {
					r.backBy = max(r.backBy, before.Sub(got.taken))
					r.back = append(r.back, fmt.Sprintf("%s went back by %s", key, before.Sub(got.taken)))
				}
				seen[key] = got.taken
			}
		})
	}
	return func() reads {
		cancel()
		running.Wait()
		var all reads
		for _, r := range results {
			all.count, all.failed = all.count+r.count, all.failed+r.failed
			if r.oldest > all.oldest {
				all.oldest, all.oldestRead, all.oldestMetric = r.oldest, r.oldestRead, r.oldestMetric
			}
			all.took, all.back = append(all.took, r.took...), append(all.back, r.back...)
			all.backBy = max(all.backBy, r.backBy)
			if r.last != nil {
				all.last = r.last
			}
		}
		slices.Sort(all.took)
		return all
	}
}

// of reads pods in turn.
func (c *three) of(pods ...corev1.Pod) func(ctx context.Context, turn, i int) (answer, error) {
	return func(ctx context.Context, turn, i int) (answer, error) {
		return c.readDirect(ctx, pods[turn%len(pods)].Status.PodIP, i)
	}
}

// check prints what came of reads, and fails the test where a value was older than bound or went back in time.
func (c *three) check(what string, r reads, bound time.Duration) {
	c.Helper()
	if r.count == 0 {
		c.Fatalf("%s: nothing was read", what)
	}
	c.Logf("%s: %d reads, %d failed, p99 %s, the oldest value was %s old", what, r.count, r.failed,
		r.took[len(r.took)*99/100].Round(time.Millisecond), r.oldest.Round(time.Millisecond))
	if r.oldest > bound {
		c.Errorf("%s: want no value older than %s; m%d was at %s, and its source was asked %s", what, bound,
			r.oldestMetric, r.oldestRead.Format(instant), c.askings(r.oldestMetric, r.oldestRead))
	}
	if len(r.back) > 0 {
		c.Errorf("%s: %q", what, r.back)
	}
}

const instant = "15:04:05.000"

// askings says who asked the source of the i-th metric in the intervals before and after then.
func (c *three) askings(i int, then time.Time) (all []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range c.asked[fmt.Sprintf("/%d", i)] {
		if then.Sub(a.at).Abs() <= 4*threeInterval {
			all = append(all, fmt.Sprintf("at %s by %s", a.at.Format(instant), a.by))
		}
	}
	return all
}

// checkAll is check where no read may fail.
func (c *three) checkAll(what string, r reads, bound time.Duration) {
	c.Helper()
	c.check(what, r, bound)
	if r.failed > 0 {
		c.Errorf("%s: want no failed read; the last: %v", what, r.last)
	}
}

// spend lets time pass: the length of a fault or of a measurement.
func (c *three) spend(d time.Duration) {
	select {
	case <-time.After(d):
	case <-c.Context().Done():
	}
}

// admin asks the admin port of a server.
func (c *three) admin(podIP, path string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(c.Context(), 5*time.Second)
	defer cancel()
	return get(ctx, http.DefaultClient, "http://"+net.JoinHostPort(podIP, "8002")+path)
}

type node struct {
	ID, State string
	Local     bool
}

// nodes are those that a server sees.
func (c *three) nodes(podIP string) (nodes []node, err error) {
	body, err := c.admin(podIP, "/status/cluster/nodes")
	if err != nil {
		return nil, err
	}
	return nodes, json.Unmarshal(body, &nodes)
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
			if len(nodes) != c.servers {
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
// server answers for all. One that is killed, stalls, leaves, is cut off or replaced, costs no read and no more age than it must; and new
// certificates, or a time without the API server, cost no sample.
func TestThreeServersShareTheCollecting(t *testing.T) {
	c, stop := startThree(t, 40)
	defer stop()
	c.runPhases([]phase{
		{"at rest", c.atRest},
		{"one is killed", c.oneIsKilled},
		{"one is told to end", c.oneIsToldToEnd},
		{"one stalls", c.oneStalls},
		{"one is cut off", c.oneIsCutOff},
		{"one is cut off from the API server", c.oneIsCutOffFromTheAPIServer},
		{"a rolling update", c.rollingUpdate},
		{"new certificates", c.newCertificates},
		{"the API server is away", c.apiServerIsAway},
		{"the sources fail", c.sourcesFail},
	})
}

// The same with five, for what the number of servers can change.
func TestFiveServersShareTheCollecting(t *testing.T) {
	c, stop := startServers(t, 5, 40)
	defer stop()
	c.runPhases([]phase{
		{"at rest", c.atRest},
		{"one is killed", c.oneIsKilled},
		{"one is told to end", c.oneIsToldToEnd},
		{"one is cut off", c.oneIsCutOff},
		{"a rolling update", c.rollingUpdate},
	})
}

type phase struct {
	name string
	run  func()
}

func (c *three) runPhases(phases []phase) {
	whole := c.T
	for _, p := range phases {
		whole.Run(p.name, func(t *testing.T) {
			c.T = t
			p.run()
		})
	}
}

func (c *three) atRest() {
	pods := c.oneView()
	c.spend(2 * threeInterval) // hand-overs are over after an interval
	c.forget()
	stop := c.reading(c.of(pods...))
	c.spend(4 * threeInterval)
	c.checkAll("at rest", stop(), threeInterval+2*time.Second)
	c.wantAskedOnce(4)
}

// Each HPA is told that its source fails, and that it works again, whoever collects its metric and whoever leads.
func (c *three) sourcesFail() {
	told := func(reason string) func() error {
		return func() error {
			list, err := kube.CoreV1().Events(c.ns).List(c.Context(), metav1.ListOptions{FieldSelector: "reason=" + reason})
			if err != nil {
				return err
			}
			hpas := map[string]bool{}
			for _, e := range list.Items {
				hpas[e.InvolvedObject.Name] = true
			}
			if len(hpas) != c.metrics {
				return fmt.Errorf("%d of %d HPAs have an Event %s", len(hpas), c.metrics, reason)
			}
			return nil
		}
	}
	c.broken.Store(true)
	eventually(c.T, time.Minute, told("MetricCollectionFailed"))
	c.broken.Store(false)
	eventually(c.T, 2*time.Minute, told("MetricCollectionRecovered"))
}

// forget forgets what sources were asked until now.
func (c *three) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.asked)
}

// wantAskedOnce checks that each source was asked once in each of the intervals since forget.
func (c *three) wantAskedOnce(intervals int) {
	c.Helper()
	total := 0
	c.mu.Lock()
	defer c.mu.Unlock()
	for path, askings := range c.asked {
		n := len(askings)
		if total += n; n < intervals-1 || n > intervals+2 {
			c.Errorf("%s was asked %d times in %d intervals", path, n, intervals)
		}
	}
	c.Logf("%d sources were asked %d times in %d intervals", c.metrics, total, intervals)
	if want := intervals * c.metrics; total < want*9/10 || total > want*11/10 {
		c.Errorf("the sources were asked %d times, want %d", total, want)
	}
}

// kill -9, while the others are read.
func (c *three) oneIsKilled() {
	pods := c.oneView()
	stop := c.reading(c.of(pods[1:]...))
	must(c.T, cluster.KillPod(system, pods[0].Name, syscall.SIGKILL))
	c.spend(3 * threeInterval)
	c.checkAll("one was killed", stop(), threeInterval+7*time.Second)
	c.oneView()
}

// A rolling update, read as the HPA controller does.
func (c *three) rollingUpdate() {
	c.oneView()
	stop := c.reading(c.readAggregated)
	c.kubectl("rollout", "restart", "statefulset/kubetide")
	c.rolledOut(c.servers)
	c.checkAll("a rolling update", stop(), threeInterval+2*time.Second)
	c.oneView()
}
