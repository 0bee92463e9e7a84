package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/kubetide/kubetide/adapter/cluster/membership"
	"github.com/kubetide/kubetide/adapter/cluster/ownership"
	"github.com/kubetide/kubetide/internal/sample"
)

// Node is how the admin port shows a node.
type Node struct {
	ID    string           `json:"id"`
	State membership.State `json:"state"`
	// Local is the one that answers.
	Local bool `json:"local,omitempty"`
	// Collects is false for one that only receives samples.
	Collects bool   `json:"collects"`
	Stream   string `json:"stream,omitempty"`
	Admin    string `json:"admin,omitempty"`
	Version  string `json:"version,omitempty"`
}

// Query is how the admin port shows a query: whose it is, and who collects it. Names and labels of tenants' metrics are in it,
// settings and values are not.
type Query struct {
	ID        string      `json:"id"`
	Kind      sample.Kind `json:"kind"`
	Namespace string      `json:"namespace"`
	Metric    string      `json:"metric"`
	Selector  string      `json:"selector,omitempty"`
	Collector string      `json:"collector"`
	Interval  string      `json:"interval"`
	// Owner is the node whose turn it is, as this node sees it.
	Owner string `json:"owner,omitempty"`
	// Collected is the node that the freshest sample is from, and Age how old that is.
	Collected string `json:"collected,omitempty"`
	Age       string `json:"age,omitempty"`
	// Reason is why this node collects it, or does not.
	Reason ownership.Reason `json:"reason,omitempty"`
}

// forwardTimeout is how long another node may take to answer for itself.
const forwardTimeout = 15 * time.Second

// Handler serves /status/cluster/...: nodes, nodes/{id} (or local), queries. With ?forward=ID another node answers.
func (c *Cluster) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status/cluster/nodes", func(w http.ResponseWriter, r *http.Request) {
		state := r.URL.Query().Get("status")
		write(w, slices.DeleteFunc(c.Nodes(), func(n Node) bool { return state != "" && string(n.State) != state }))
	})
	mux.HandleFunc("GET /status/cluster/nodes/{id}", func(w http.ResponseWriter, r *http.Request) {
		id := r.PathValue("id")
		for _, n := range c.Nodes() {
			if n.ID == id || n.Local && id == "local" {
				write(w, n)
				return
			}
		}
		http.Error(w, fmt.Sprintf("this node knows no node %q", id), http.StatusNotFound)
	})
	mux.HandleFunc("GET /status/cluster/queries", func(w http.ResponseWriter, _ *http.Request) { write(w, c.Queries()) })
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if to := r.URL.Query().Get("forward"); to != "" {
			c.forward(w, r, to)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// forward lets another node answer. It is asked without the parameter, so a request goes one hop only.
func (c *Cluster) forward(w http.ResponseWriter, r *http.Request, to string) {
	nodes := c.options.Membership.Nodes()
	i := slices.IndexFunc(nodes, hasID(to))
	if i < 0 {
		http.Error(w, fmt.Sprintf("this node knows no node %q", to), http.StatusNotFound)
		return
	}
	transport := &http.Transport{DialContext: (&net.Dialer{Timeout: forwardTimeout}).DialContext, ResponseHeaderTimeout: forwardTimeout, DisableKeepAlives: true}
	proxy := httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(p *httputil.ProxyRequest) {
			query := p.Out.URL.Query()
			query.Del("forward")
			p.SetURL(&url.URL{Scheme: "http", Host: nodes[i].Admin})
			p.Out.URL.RawQuery = query.Encode()
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			code := http.StatusBadGateway
			var timeout net.Error
			if errors.As(err, &timeout) && timeout.Timeout() {
				code = http.StatusGatewayTimeout
			}
			http.Error(w, fmt.Sprintf("node %s at %s: %v", to, nodes[i].Admin, err), code)
		},
	}
	proxy.ServeHTTP(w, r)
}

func write(w http.ResponseWriter, answer any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer)
}

// Nodes are all that this node sees, by ID.
func (c *Cluster) Nodes() []Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	nodes := []Node{}
	for _, n := range c.members() {
		nodes = append(nodes, Node{ID: n.ID, State: n.State, Local: n.ID == c.local.ID, Collects: n.Collects, Stream: n.Stream, Admin: n.Admin, Version: n.Version})
	}
	return nodes
}

// Queries are all that are wanted, by namespace, metric and ID.
func (c *Cluster) Queries() []Query {
	now := c.options.Clock.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	queries := make([]Query, 0, len(c.queries))
	for q, known := range c.queries {
		shown := Query{ID: known.id, Kind: q.Kind, Namespace: q.Namespace, Metric: q.Metric, Selector: q.Selector, Collector: q.Collector,
			Interval: q.Interval.String(), Owner: known.owner, Reason: known.reason}
		if len(known.samples) > 0 {
			shown.Collected, shown.Age = known.samples[0].Node, now.Sub(known.samples[0].Taken).Round(time.Millisecond).String()
		}
		queries = append(queries, shown)
	}
	slices.SortFunc(queries, func(a, b Query) int {
		return strings.Compare(a.Namespace+"\x00"+a.Metric+"\x00"+a.ID, b.Namespace+"\x00"+b.Metric+"\x00"+b.ID)
	})
	return queries
}
