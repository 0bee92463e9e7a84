package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/kubetide/kubetide/test/lab"
)

// reader reads metrics over HTTPS with the token of an account that may.
type reader struct {
	header   http.Header
	tls      *tls.Config // at Kubetide's own port
	direct   *http.Client
	base     string // of Kubetide's own port
	through  *http.Client
	throughs string // of the API server
}

func newReader(ctx context.Context, cluster *lab.Lab) (*reader, error) {
	const account = "bench-reader"
	client := cluster.Client()
	if _, err := client.CoreV1().ServiceAccounts("default").Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: account}}, metav1.CreateOptions{}); err != nil {
		return nil, err
	}
	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: account}, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{"custom.metrics.k8s.io", "external.metrics.k8s.io"}, Resources: []string{"*"}, Verbs: []string{"get", "list"}},
	}}
	if _, err := client.RbacV1().ClusterRoles().Create(ctx, role, metav1.CreateOptions{}); err != nil {
		return nil, err
	}
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: account}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: account},
		Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: "default", Name: account}},
	}
	if _, err := client.RbacV1().ClusterRoleBindings().Create(ctx, binding, metav1.CreateOptions{}); err != nil {
		return nil, err
	}
	config, err := cluster.ConfigFor(ctx, "default", account)
	if err != nil {
		return nil, err
	}
	pod, err := kubetidePod(ctx, cluster)
	if err != nil {
		return nil, err
	}
	ca, err := cluster.Kubectl(ctx, "get", "apiservice", "v1beta1.external.metrics.k8s.io", "-o", "jsonpath={.spec.caBundle}")
	if err != nil {
		return nil, err
	}
	var pem []byte
	if err := json.Unmarshal([]byte(`"`+ca+`"`), &pem); err != nil {
		return nil, fmt.Errorf("the CA bundle of the APIService: %w", err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	throughTLS, err := rest.TLSConfigFor(config)
	if err != nil {
		return nil, err
	}
	directTLS := &tls.Config{RootCAs: roots, ServerName: "kubetide.kubetide-system.svc"}
	return &reader{
		tls:    directTLS,
		header: http.Header{"Authorization": {"Bearer " + config.BearerToken}, "Accept": {"application/json"}}, base: "https://" + net.JoinHostPort(pod.IP, "6443"), throughs: config.Host,
		direct:  httpClient(directTLS),
		through: httpClient(throughTLS),
	}, nil
}

// at reads at another pod's own port, with connections of its own.
func (r *reader) at(pod podAddress) *reader {
	other := *r
	other.base = "https://" + net.JoinHostPort(pod.IP, "6443")
	other.direct = httpClient(r.tls)
	return &other
}

// httpClient has a few connections, as the API server's proxy has: one for each read that waits would measure handshakes.
func httpClient(config *tls.Config) *http.Client {
	return &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true, MaxConnsPerHost: 4}}
}

func externalPath(i int) string {
	return fmt.Sprintf("/apis/external.metrics.k8s.io/v1beta1/namespaces/%s/%s?labelSelector=%s",
		namespaceOf(i), metricName, url.QueryEscape("hpa="+nameOf(i)+",type=json-path"))
}

func podsPath(app int) string {
	return fmt.Sprintf("/apis/custom.metrics.k8s.io/v1beta2/namespaces/%s/pods/*/busy?labelSelector=%s", appsSpace, url.QueryEscape(fmt.Sprintf("app=app-%d", app)))
}

func (r *reader) get(ctx context.Context, client *http.Client, address string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	request.Header = r.header
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d: %.200s", response.StatusCode, body)
	}
	return body, err
}

// list is what both metrics APIs answer, as far as it is looked at.
type list struct {
	Items []struct {
		Value     resource.Quantity `json:"value"`
		Timestamp metav1.Time       `json:"timestamp"`
	} `json:"items"`
}

func (r *reader) values(ctx context.Context, client *http.Client, address string) ([]int64, error) {
	body, err := r.get(ctx, client, address)
	if err != nil {
		return nil, err
	}
	var l list
	if err := json.Unmarshal(body, &l); err != nil {
		return nil, err
	}
	var values []int64
	for _, item := range l.Items {
		values = append(values, item.Value.Value())
	}
	return values, nil
}

func (r *reader) external(ctx context.Context, i int) (int64, error) {
	values, err := r.values(ctx, r.direct, r.base+externalPath(i))
	if err == nil && len(values) != 1 {
		err = fmt.Errorf("%d values instead of 1", len(values))
	}
	if err != nil {
		return 0, err
	}
	return values[0], nil
}

func (r *reader) pods(ctx context.Context, app int) ([]int64, error) {
	return r.values(ctx, r.direct, r.base+podsPath(app))
}

// fetch reads an answer to its end and throws it away, so that the load generator takes as little as it can.
func (r *reader) fetch(client *http.Client, address string) error {
	request, err := http.NewRequest(http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	request.Header = r.header
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(io.LimitReader(response.Body, 500))
		return fmt.Errorf("status %d: %s", response.StatusCode, body)
	}
	_, err = io.Copy(io.Discard, response.Body)
	return err
}

// The kinds of reads. Those that ask for nothing show what the way takes by itself: TLS, HTTP/2, who is calling, and the
// machine's other work.
const (
	external = iota
	pods
	nothing
)

// outcome is what came of the reads of a kind.
type outcome struct {
	mu     sync.Mutex
	took   []time.Duration
	failed int
	first  error
}

func (o *outcome) add(took time.Duration, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err != nil {
		o.failed++
		if o.first == nil {
			o.first = err
		}
		return
	}
	o.took = append(o.took, took)
}

// settle is the time between two loads, for what the first one left behind to be done.
const settle = 5 * time.Second

// readTables are the figures of each way, by size.
type readTables map[string]*readTable

type readTable struct {
	title  string
	header []string
	rows   []string // their names
	goals  map[string]string
	cells  map[string][]string
}

func (t readTables) add(title string, hpas int, rows []row) {
	table := t[title]
	if table == nil {
		table = &readTable{title: title, goals: map[string]string{}, cells: map[string][]string{}}
		t[title] = table
	}
	table.header = append(table.header, fmt.Sprintf("%d HPAs", hpas))
	for _, r := range rows {
		if _, ok := table.cells[r[0]]; !ok {
			table.rows = append(table.rows, r[0])
		}
		table.goals[r[0]] = r[2]
		table.cells[r[0]] = append(table.cells[r[0]], r[1])
	}
}

func (t readTables) print(r *report) {
	for _, title := range slices.Sorted(maps.Keys(t)) {
		table := t[title]
		var rows [][]string
		for _, name := range table.rows {
			rows = append(rows, slices.Concat([]string{name}, table.cells[name], []string{table.goals[name]}))
		}
		r.columns(table.title, slices.Concat([]string{""}, table.header, []string{"goal"}), rows)
	}
}

// reads is the load of reads while the collection goes on.
func (w *workload) reads(ctx context.Context, tables readTables, reads *reader) error {
	for _, way := range []struct {
		name, title string
		rate        int
		client      *http.Client
		base        string
		goal        time.Duration
	}{
		{"direct", "at Kubetide's own port", w.direct, reads.direct, reads.base, 5 * time.Millisecond},
		{"aggregated", "through the API server", w.aggregated, reads.through, reads.throughs, 15 * time.Millisecond},
	} {
		if err := reads.fetch(way.client, way.base+"/version"); err != nil {
			return err // from here on there is a connection
		}
		if err := pause(ctx, settle); err != nil {
			return err
		}
		say("%d HPAs: reading %d times a second %s for %s", w.made, way.rate, way.title, w.duration)
		use, err := w.measure(ctx, fmt.Sprintf("%s-%d", way.name, w.made))
		if err != nil {
			return err
		}
		var outcomes [3]outcome
		late := make([]time.Duration, 0, way.rate*int(w.duration.Seconds()+1))
		running, cancel := context.WithTimeout(ctx, w.duration)
		var requests sync.WaitGroup
		start := time.Now()
		n := 0
		for ; running.Err() == nil; n++ {
			// Each read has its instant, whether the ones before are done or not, and its time counts from there.
			due := start.Add(time.Duration(n) * time.Second / time.Duration(way.rate))
			if wait := time.Until(due); wait > 0 && pause(running, wait) != nil {
				break
			}
			late = append(late, time.Since(due))
			kind, path := external, ""
			if n%2 == 1 {
				kind, path = pods, podsPath(n/2%apps)
			} else {
				path = externalPath(n / 2 * 7919 % w.made)
			}
			requests.Go(func() {
				err := reads.fetch(way.client, way.base+path)
				outcomes[kind].add(time.Since(due), err)
			})
			if n%20 == 10 {
				requests.Go(func() {
					err := reads.fetch(way.client, way.base+"/version")
					outcomes[nothing].add(time.Since(due), err)
				})
			}
		}
		sent := time.Since(start)
		cancel()
		requests.Wait()
		rows, busy, err := use.rows(ctx)
		if err != nil {
			return err
		}
		all := slices.Concat(outcomes[external].took, outcomes[pods].took)
		for _, sorted := range [][]time.Duration{outcomes[external].took, outcomes[pods].took, outcomes[nothing].took, all, late} {
			slices.Sort(sorted)
		}
		failed := 0
		for i := range outcomes {
			failed += outcomes[i].failed
			if err := outcomes[i].first; err != nil {
				say("the first of %d failed reads: %v", outcomes[i].failed, err)
			}
		}
		say("%s", percentiles(all))
		title := fmt.Sprintf("Reads %s: half External, half of %d pods by selector, beside the collection", way.title, podsPerApp)
		tables.add(title, w.made, slices.Concat([]row{
			{"reads", fmt.Sprintf("%.0f a second", float64(n)/sent.Seconds()), fmt.Sprintf("%d a second", way.rate)},
			{"all", percentiles(all), "p99 ≤ " + way.goal.String()},
			{"External", percentiles(outcomes[external].took)},
			{"pods by selector", percentiles(outcomes[pods].took)},
			{"failed", fmt.Sprint(failed), "0"},
			{"a request that asks for nothing (`/version`), the same way", percentiles(outcomes[nothing].took)},
			{"of these times: the load generator was late by", percentiles(late)},
			{"what limits the p99", limit(failed, at(all, 0.99), at(outcomes[nothing].took, 0.99), at(late, 0.99), way.goal, busy)},
		}, rows))
	}
	return ctx.Err()
}

// limit names what a read's p99 consists of, from what stands beside it.
func limit(failed int, reads, nothing, late, goal time.Duration, busy float64) string {
	switch {
	case failed > 0:
		return "requests fail"
	case reads <= goal:
		return "nothing: the goal is met"
	case busy >= 0.9:
		return fmt.Sprintf("the processors: %.0f %% busy", 100*busy)
	case 2*late >= reads:
		return "the load generator, which is late"
	case 4*nothing >= 3*reads:
		return "the way: what asks for nothing takes as long"
	default:
		return "answering"
	}
}
