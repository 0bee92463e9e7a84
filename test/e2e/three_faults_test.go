package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubetide/kubetide/test/lab/namespace"
)

// threeMaxAge is how old a value may be that is answered.
const threeMaxAge = 2*threeInterval + 10*time.Second

// SIGTERM: the others take its queries over before it goes, and forget it as soon as it has gone.
func (c *three) oneIsToldToEnd() {
	pods := c.oneView()
	leaving, others := pods[0], pods[1:]
	pid, err := cluster.PodPID(system, leaving.Name)
	must(c.T, err)
	nodes, err := c.nodes(leaving.Status.PodIP)
	must(c.T, err)
	id := nodes[slices.IndexFunc(nodes, func(n node) bool { return n.Local })].ID

	stop := c.reading(c.of(others...))
	c.kubectl("delete", "pod", leaving.Name, "--wait=false")
	told := time.Now()
	var ended, forgotten time.Time
	eventually(c.T, 60*time.Second, func() error {
		if ended.IsZero() && syscall.Kill(pid, 0) != nil {
			ended = time.Now()
		}
		for _, p := range others {
			nodes, err := c.nodes(p.Status.PodIP)
			if err != nil {
				return err
			}
			if slices.ContainsFunc(nodes, func(n node) bool { return n.ID == id }) {
				return fmt.Errorf("%s still sees %v", p.Name, nodes)
			}
		}
		if forgotten.IsZero() {
			forgotten = time.Now()
		}
		if ended.IsZero() {
			return fmt.Errorf("process %d lives", pid)
		}
		return nil
	})
	c.spend(2 * threeInterval)
	c.checkAll("one was told to end", stop(), threeInterval+time.Second)
	c.Logf("it ended after %s, and the others forgot it %s later", ended.Sub(told).Round(10*time.Millisecond), forgotten.Sub(ended).Round(10*time.Millisecond))
	if late := forgotten.Sub(ended); late > time.Second {
		c.Errorf("the others saw it for %s after it had ended", late)
	}
	c.rolledOut(c.servers)
	c.oneView()
}

// SIGSTOP for ten seconds, long enough to be given up: its queries are taken over, and what it still holds when it goes on
// replaces nothing newer.
func (c *three) oneStalls() {
	pods := c.oneView()
	processes := runs(c.T)
	stopOthers, stopStalled := c.reading(c.of(pods[1:]...)), c.reading(c.of(pods[0]))
	must(c.T, cluster.KillPod(system, pods[0].Name, syscall.SIGSTOP))
	const stall = 10 * time.Second
	c.spend(stall)
	must(c.T, cluster.KillPod(system, pods[0].Name, syscall.SIGCONT))
	c.spend(2 * threeInterval)
	c.checkAll("one stalled, at the others", stopOthers(), threeInterval+7*time.Second)
	c.check("one stalled, there", stopStalled(), stall+threeInterval+time.Second)
	c.oneView()
	wantSameProcesses(c.T, processes)
}

// One is cut off from the others and the sources, not from the API server and its kubelet: it answers what it has until that is too
// old, and nothing from then on, and turns unready. A fault of the sources alone leaves it ready, since all would be unready at once.
func (c *three) oneIsCutOff() {
	pods := c.oneView()
	lonely, others := pods[0], pods[1:]
	from := []netip.Addr{netip.MustParseAddr(tenantHost)}
	for _, p := range others {
		from = append(from, netip.MustParseAddr(p.Status.PodIP))
	}
	processes := runs(c.T)
	stopOthers, stopLonely := c.reading(c.of(others...)), c.reading(c.of(lonely))
	must(c.T, cluster.CutOff(system, lonely.Name, from...))
	c.Cleanup(func() { _ = cluster.Heal(system, lonely.Name) })
	cut := time.Now()
	eventually(c.T, threeMaxAge+10*time.Second, func() error {
		if ready := endpoints(c.T, system, "kubetide"); slices.Contains(ready, lonely.Name) {
			return fmt.Errorf("the endpoints are %v", ready)
		}
		return nil
	})
	c.Logf("it was unready after %s", time.Since(cut).Round(10*time.Millisecond))
	c.check("one is cut off, there", stopLonely(), threeMaxAge+time.Second)
	c.checkAll("one is cut off, at the others", stopOthers(), threeInterval+7*time.Second)

	stopAggregated, stopLonely := c.reading(c.readAggregated), c.reading(c.of(lonely))
	c.spend(2 * threeInterval)
	c.checkAll("one is unready, by the API server", stopAggregated(), threeInterval+2*time.Second)
	if r := stopLonely(); r.failed < r.count {
		c.Errorf("one is unready, there: %d of %d reads were answered", r.count-r.failed, r.count)
	}

	stopAggregated, stopLonely = c.reading(c.readAggregated), c.reading(c.of(lonely))
	must(c.T, cluster.Heal(system, lonely.Name))
	healed := time.Now()
	c.oneView()
	waitForKubetide(c.T)
	took := time.Since(healed)
	c.checkAll("one is back, by the API server", stopAggregated(), threeInterval+2*time.Second)
	// Samples have the order in which their collections began. One that began in the cut reaches its source when that is over, and has a
	// newer value than one that began later elsewhere and was answered at once.
	there := stopLonely()
	if there.backBy > threeInterval { // which is how long a collection may take
		c.Errorf("one is back, there: a value went back by %s", there.backBy)
	}
	there.back = nil
	c.check("one is back, there", there, threeInterval+2*time.Second)
	c.Logf("it was ready, and all saw each other, %s after the cut was over", took.Round(10*time.Millisecond))
	if took > 20*time.Second {
		c.Errorf("want that within 20s")
	}
	wantSameProcesses(c.T, processes)
}

// apiServerGivesUp is how long the API server takes to find a connection dead on which nothing comes back.
const apiServerGivesUp = 45 * time.Second

// One hears nothing from the API server any more, and in this lab nothing from its kubelet. No server can do anything about that: a read that
// is led to it waits until the API server finds the connection dead, and no other is led there once it is out of the endpoints. Who is not
// led there gets what the others have, and the sources are asked as before.
func (c *three) oneIsCutOffFromTheAPIServer() {
	pods := c.oneView()
	stop := c.reading(c.readAggregated)
	must(c.T, cluster.CutOff(system, pods[0].Name, netip.MustParseAddr(namespace.HostAddress)))
	c.Cleanup(func() { _ = cluster.Heal(system, pods[0].Name) })
	cut := time.Now()
	eventually(c.T, apiServerGivesUp, func() error {
		if ready := endpoints(c.T, system, "kubetide"); slices.Contains(ready, pods[0].Name) {
			return fmt.Errorf("the endpoints are %v", ready)
		}
		return nil
	})
	c.Logf("it was out of the endpoints after %s", time.Since(cut).Round(10*time.Millisecond))
	c.spend(time.Until(cut.Add(apiServerGivesUp)))
	r := stop()
	c.check("one is cut off from the API server", r, threeInterval+2*time.Second)
	c.Logf("the last failed read: %v", r.last)

	stop = c.reading(c.readAggregated)
	c.spend(2 * threeInterval)
	c.checkAll("from then on", stop(), threeInterval+2*time.Second)

	must(c.T, cluster.Heal(system, pods[0].Name))
	waitForKubetide(c.T)
	c.rolledOut(c.servers)
	c.oneView()
}

// owners are the nodes that a server sees, and whose each query is.
func (c *three) owners(podIP string) (string, error) {
	nodes, err := c.nodes(podIP)
	if err != nil {
		return "", err
	}
	body, err := c.admin(podIP, "/status/cluster/queries")
	if err != nil {
		return "", err
	}
	var queries []struct{ ID, Namespace, Owner string }
	if err := json.Unmarshal(body, &queries); err != nil {
		return "", err
	}
	var text strings.Builder
	for _, n := range nodes {
		fmt.Fprintf(&text, "%s is %s\n", n.ID, n.State)
	}
	for _, q := range queries {
		if q.Namespace == c.ns {
			fmt.Fprintf(&text, "%s is of %s\n", q.ID, q.Owner)
		}
	}
	return text.String(), nil
}

// Two minutes without the API server: nodes and owners stay as they are, and sources are asked as before. Who reads a server past the
// aggregator is answered while it remembers who he is, and refused then, but is never given an old value.
// Other tests of an outage come before this one, not soon after: the controller manager's watches try again ever more slowly while the API
// server is away, up to a minute, and begin anew only after two minutes without an error.
func (c *three) apiServerIsAway() {
	pods := c.oneView()
	c.spend(2 * threeInterval)
	processes, before := runs(c.T), map[string]string{}
	for _, p := range pods {
		var err error
		before[p.Name], err = c.owners(p.Status.PodIP)
		must(c.T, err)
	}
	stop := c.reading(c.of(pods...))
	cluster.StopAPIServer()
	c.forget()
	const intervals = int(2 * time.Minute / threeInterval)
	for range intervals {
		c.spend(threeInterval)
		for _, p := range pods {
			if now, err := c.owners(p.Status.PodIP); err != nil || now != before[p.Name] {
				c.Errorf("%s saw\n%s, and without the API server sees\n%s (%v)", p.Name, before[p.Name], now, err)
			}
		}
	}
	c.wantAskedOnce(intervals)
	r := stop()
	c.check("without the API server", r, threeInterval+2*time.Second)
	c.Logf("without the API server the last failed read was answered: %v", r.last)

	must(c.T, cluster.StartAPIServer(context.WithoutCancel(c.Context())))
	back := time.Now()
	eventually(c.T, 30*time.Second, func() error {
		for i := range c.metrics {
			for _, p := range pods {
				if _, err := c.readDirect(c.Context(), p.Status.PodIP, i); err != nil {
					return fmt.Errorf("%s: %w", p.Name, err)
				}
			}
			if _, err := c.readAggregated(c.Context(), 0, i); err != nil {
				return err
			}
		}
		return nil
	})
	c.Logf("all was answered again %s after the API server", time.Since(back).Round(10*time.Millisecond))
	waitForKubetide(c.T)
	wantSameProcesses(c.T, processes)
}

// Who deletes the Secret gets another CA, and certificates of it, on all servers and in what leads to them, without a restart.
func (c *three) newCertificates() {
	pods := c.oneView()
	processes := runs(c.T)
	before, err := kube.CoreV1().Secrets(system).Get(c.Context(), "kubetide-certs", metav1.GetOptions{})
	must(c.T, err)
	stop := c.reading(c.readAggregated)
	c.spend(threeInterval)
	must(c.T, kube.CoreV1().Secrets(system).Delete(c.Context(), "kubetide-certs", metav1.DeleteOptions{}))
	deleted := time.Now()
	eventually(c.T, 60*time.Second, func() error {
		secret, err := kube.CoreV1().Secrets(system).Get(c.Context(), "kubetide-certs", metav1.GetOptions{})
		if err != nil {
			return err
		}
		ca := secret.Data["ca.crt"]
		if string(ca) == string(before.Data["ca.crt"]) {
			return fmt.Errorf("the CA is as before")
		}
		return c.trusted(pods, ca)
	})
	c.Logf("all servers, streams and bundles had the new CA after %s", time.Since(deleted).Round(10*time.Millisecond))
	c.spend(3 * threeInterval)
	c.checkAll("new certificates", stop(), threeInterval+2*time.Second)
	c.oneView()
	wantSameProcesses(c.T, processes)
}

// trusted says which server or bundle is not of the CA yet, or which streams between servers are not there.
func (c *three) trusted(pods []corev1.Pod, ca []byte) error {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	dialer := tls.Dialer{Config: &tls.Config{RootCAs: roots, ServerName: "kubetide." + system + ".svc"}}
	for _, p := range pods {
		for _, port := range []string{"6443", "8004"} {
			connection, err := dialer.DialContext(c.Context(), "tcp", net.JoinHostPort(p.Status.PodIP, port))
			if err != nil {
				return fmt.Errorf("%s port %s: %w", p.Name, port, err)
			}
			connection.Close()
		}
		metrics, err := c.admin(p.Status.PodIP, "/metrics")
		if err != nil {
			return err
		}
		if n := strings.Count(string(metrics), "\nkubetide_replication_lag_seconds{"); n != len(pods)-1 {
			return fmt.Errorf("%s has streams from %d others", p.Name, n)
		}
	}
	bundles, err := cluster.Kubectl(c.Context(), "get", "apiservices", "-l", "app.kubernetes.io/name=kubetide", "-o", "jsonpath={.items[*].spec.caBundle}")
	if err != nil {
		return err
	}
	for _, b := range strings.Fields(bundles) {
		if b != base64.StdEncoding.EncodeToString(ca) {
			return fmt.Errorf("an APIService has another CA")
		}
	}
	if bundles == "" {
		return fmt.Errorf("no APIService has a CA")
	}
	return nil
}
