package metricsapi

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	certutil "k8s.io/client-go/util/cert"
	"k8s.io/utils/clock"
	"sigs.k8s.io/custom-metrics-apiserver/pkg/provider"

	"github.com/kubetide/kubetide/adapter/store"
	"github.com/kubetide/kubetide/internal/sample"
)

func mapper() meta.RESTMapper {
	m := meta.NewDefaultRESTMapper([]schema.GroupVersion{{Version: "v1"}, {Group: "networking.k8s.io", Version: "v1"}, {Group: "zalando.org", Version: "v1"}})
	m.Add(schema.GroupVersionKind{Version: "v1", Kind: "Pod"}, meta.RESTScopeNamespace)
	m.Add(schema.GroupVersionKind{Version: "v1", Kind: "Service"}, meta.RESTScopeNamespace)
	m.Add(schema.GroupVersionKind{Version: "v1", Kind: "Namespace"}, meta.RESTScopeRoot)
	m.Add(schema.GroupVersionKind{Version: "v1", Kind: "Node"}, meta.RESTScopeRoot)
	m.Add(schema.GroupVersionKind{Group: "networking.k8s.io", Version: "v1", Kind: "Ingress"}, meta.RESTScopeNamespace)
	m.Add(schema.GroupVersionKind{Group: "zalando.org", Version: "v1", Kind: "ClusterScalingSchedule"}, meta.RESTScopeRoot)
	return m
}

var taken = time.Now().Add(-5 * time.Second).Truncate(time.Second)

// filled has values of every kind, taken five seconds ago, and a query without one.
func filled() *store.Store {
	s := store.New(clock.RealClock{}, 0)
	put := func(q sample.Query, points ...sample.Point) {
		q.Namespace, q.Interval = "shop", time.Hour
		s.Add(q, true)
		if points != nil {
			s.Insert(sample.Result{Query: q, Taken: taken, Points: points})
		}
	}
	put(sample.Query{Kind: sample.External, Metric: "queue", Selector: "queue=a,type=sqs"}, sample.Point{Milli: 42500, Window: time.Minute})
	put(sample.Query{Kind: sample.External, Metric: "queue", Selector: "queue=b,type=sqs"}, sample.Point{Milli: 1000})
	put(sample.Query{Kind: sample.External, Metric: "waiting"})
	put(sample.Query{Kind: sample.External, Metric: "idle", Selector: "queue=a"}, sample.Point{})
	put(sample.Query{Kind: sample.External, Metric: "idle", Selector: "queue=b"}, sample.Point{})
	deployment := sample.ObjectRef{Group: "apps", Kind: "Deployment", Name: "web"}
	put(sample.Query{Kind: sample.Pods, Metric: "rps", Target: deployment},
		sample.Point{Pod: "web-1", UID: types.UID("1"), Labels: labels.Set{"app": "web", "n": "1"}, Milli: 1000},
		sample.Point{Pod: "web-2", UID: types.UID("2"), Labels: labels.Set{"app": "web", "n": "2"}, Milli: 3000, Age: time.Second})
	put(sample.Query{Kind: sample.Pods, Metric: "idle", Target: deployment},
		sample.Point{Pod: "web-1", UID: types.UID("1"), Labels: labels.Set{"app": "web"}}, sample.Point{Pod: "web-2", UID: types.UID("2"), Labels: labels.Set{"app": "web"}})
	put(sample.Query{Kind: sample.Object, Metric: "load", Object: sample.ObjectRef{Kind: "Node", Name: "node-1"}}, sample.Point{Milli: 500})
	put(sample.Query{Kind: sample.Object, Metric: "rps", Selector: "backend=blue", Object: sample.ObjectRef{Group: "networking.k8s.io", Kind: "Ingress", Name: "web"}}, sample.Point{Milli: 7000})
	put(sample.Query{Kind: sample.Object, Metric: "sale", Object: sample.ObjectRef{Group: "zalando.org", Kind: "ClusterScalingSchedule", Name: "sale"}}, sample.Point{Milli: 100000})
	put(sample.Query{Kind: sample.Object, Metric: "hits", Object: sample.ObjectRef{Kind: "Service", Name: "web"}}, sample.Point{Milli: -2000})
	put(sample.Query{Kind: sample.Object, Metric: "load", Object: sample.ObjectRef{Kind: "Namespace", Name: "shop"}}, sample.Point{Milli: 9000})
	put(sample.Query{Kind: sample.Object, Metric: "temperature", Object: sample.ObjectRef{Kind: "Pod", Name: "web-1"}}, sample.Point{Milli: 36600})
	return s
}

func certificate(t testing.TB) dynamiccertificates.CertKeyContentProvider {
	t.Helper()
	cert, key, err := certutil.GenerateSelfSignedCertKey("localhost", []net.IP{net.IPv4(127, 0, 0, 1)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	content, err := dynamiccertificates.NewStaticCertKeyContent("test", cert, key)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// serve runs the real server without delegated authentication, which needs an API server.
func serve(t testing.TB, custom, external bool) *httptest.Server {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	o := ServerOptions{Provider: NewProvider(filled(), mapper(), clock.RealClock{}, nil), Custom: custom, External: external, Certificate: certificate(t), Listener: listener, Version: "v0"}
	config, err := o.config()
	if err != nil {
		t.Fatal(err)
	}
	server, err := o.build(config)
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(server.server.PrepareRun().Handler)
	t.Cleanup(web.Close)
	return web
}

func get(t testing.TB, url string) (int, map[string]any) {
	t.Helper()
	response, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]any{}
	_ = json.Unmarshal(body, &out)
	return response.StatusCode, out
}

func TestWireFormat(t *testing.T) {
	web := serve(t, true, true)
	const (
		v1beta1  = "/apis/custom.metrics.k8s.io/v1beta1/"
		v1beta2  = "/apis/custom.metrics.k8s.io/v1beta2/"
		external = "/apis/external.metrics.k8s.io/v1beta1/"
	)
	at := taken.UTC().Format(time.RFC3339)
	tests := map[string]struct {
		path    string
		code    int
		items   []string // as JSON, in part
		message string
	}{
		"an external metric by its selector": {external + "namespaces/shop/queue?labelSelector=queue%3Da%2Ctype%3Dsqs", 200,
			[]string{`{"metricName":"queue","metricLabels":{"queue":"a","type":"sqs"},"timestamp":"` + at + `","window":60,"value":"42500m"}`}, ""},
		"an external metric by a subset of the labels": {external + "namespaces/shop/queue?labelSelector=type%3Dsqs", 200,
			[]string{`{"value":"42500m"}`, `{"value":"1"}`}, ""},
		"an external metric of another namespace": {external + "namespaces/bank/queue", 404, nil, `no HPA of namespace bank asks for external metric "queue"`},
		"an external metric without a value":      {external + "namespaces/shop/waiting", 404, nil, `external metric "waiting" has no value: it has not been collected yet`},
		"an external metric at the root":          {external + "queue", 404, nil, ""},
		"an external metric with a slash":         {external + "namespaces/shop/queue/a", 404, nil, ""},
		"an external request without a metric":    {external + "namespaces/shop", 404, nil, ""},
		"a bad selector":                          {external + "namespaces/shop/queue?labelSelector=%3D%3D", 400, nil, ""},
		"pods by a selector, v1beta1": {v1beta1 + "namespaces/shop/pods/*/rps?labelSelector=app%3Dweb", 200, []string{
			`{"describedObject":{"kind":"Pod","namespace":"shop","name":"web-1","apiVersion":"v1"},"metricName":"rps","timestamp":"` + at + `","value":"1"}`,
			`{"describedObject":{"name":"web-2"},"timestamp":"` + taken.Add(-time.Second).UTC().Format(time.RFC3339) + `","value":"3"}`}, ""},
		"pods by a selector, v1beta2": {v1beta2 + "namespaces/shop/pods/*/rps?labelSelector=n%3D2", 200, []string{
			`{"describedObject":{"kind":"Pod","name":"web-2","apiVersion":"v1"},"metric":{"name":"rps"},"value":"3"}`}, ""},
		"all pods":                    {v1beta2 + "namespaces/shop/pods/*/rps", 200, []string{`{"value":"1"}`, `{"value":"3"}`}, ""},
		"a pod by name":               {v1beta2 + "namespaces/shop/pods/web-2/rps", 200, []string{`{"value":"3"}`}, ""},
		"a pod as a described object": {v1beta2 + "namespaces/shop/pods/web-1/temperature", 200, []string{`{"value":"36600m"}`}, ""},
		"a pod in the singular":       {v1beta2 + "namespaces/shop/pod/web-2/rps", 200, []string{`{"value":"3"}`}, ""},
		"no such pod":                 {v1beta2 + "namespaces/shop/pods/web-9/rps", 404, nil, `no HPA of namespace shop asks for metric "rps" of Pod/web-9`},
		"pods that no value has":      {v1beta2 + "namespaces/shop/pods/*/rps?labelSelector=app%3Dx", 404, nil, `no pod that "app=x" matches has a value of metric "rps"`},
		"pods at the root":            {v1beta2 + "pods/*/rps", 404, nil, "ask with a namespace"},
		"an object with its group and metric selector": {v1beta2 + "namespaces/shop/ingresses.networking.k8s.io/web/rps?metricLabelSelector=backend%3Dblue", 200, []string{
			`{"describedObject":{"kind":"Ingress","namespace":"shop","name":"web","apiVersion":"networking.k8s.io/v1"},"metric":{"name":"rps","selector":{"matchLabels":{"backend":"blue"}}},"value":"7"}`}, ""},
		"an object in the singular":                       {v1beta2 + "namespaces/shop/ingress.networking.k8s.io/web/rps", 200, []string{`{"value":"7"}`}, ""},
		"an object with another metric selector":          {v1beta2 + "namespaces/shop/ingresses.networking.k8s.io/web/rps?metricLabelSelector=backend%3Dred", 404, nil, "no HPA"},
		"a cluster-scoped object, by the HPA's namespace": {v1beta2 + "namespaces/shop/clusterscalingschedules.zalando.org/sale/sale", 200, []string{`{"describedObject":{"apiVersion":"zalando.org/v1"},"value":"100"}`}, ""},
		"a cluster-scoped object at the root":             {v1beta2 + "clusterscalingschedules.zalando.org/sale/sale", 404, nil, "ask with a namespace"},
		"a negative value is served as it is":             {v1beta2 + "namespaces/shop/services/web/hits", 200, []string{`{"value":"-2"}`}, ""},
		"all objects of a kind":                           {v1beta2 + "namespaces/shop/services/*/hits", 200, []string{`{"describedObject":{"name":"web"}}`}, ""},
		"objects by their labels":                         {v1beta2 + "namespaces/shop/services/*/hits?labelSelector=a%3Db", 400, nil, "labels select pods only"},
		"a namespace":                                     {v1beta2 + "namespaces/shop/metrics/load", 200, []string{`{"describedObject":{"kind":"Namespace","name":"shop"},"value":"9"}`}, ""},
		"a resource that does not exist":                  {v1beta2 + "namespaces/shop/widgets.example.org/w/rps", 404, nil, `the cluster has no resource "widgets.example.org"`},
		"a long path":                                     {v1beta2 + "namespaces/shop/pods/web-1/rps/more", 404, nil, ""},
		"discovery of external metrics":                   {external, 200, nil, ""},
		"discovery of custom metrics":                     {v1beta1, 200, nil, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			code, body := get(t, web.URL+tt.path)
			if code != tt.code {
				t.Fatalf("status %d, want %d: %v", code, tt.code, body)
			}
			if message, _ := body["message"].(string); !strings.Contains(message, tt.message) {
				t.Errorf("message %q does not say %q", message, tt.message)
			}
			items, _ := body["items"].([]any)
			if len(items) != len(tt.items) {
				t.Fatalf("%d items, want %d: %v", len(items), len(tt.items), items)
			}
			for i, text := range tt.items {
				var want map[string]any
				if err := json.Unmarshal([]byte(text), &want); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(want, within(items[i].(map[string]any), want)); diff != "" {
					t.Errorf("item %d (-want +got):\n%s", i, diff)
				}
			}
		})
	}
}

// within returns what of got has a counterpart in want.
func within(got, want map[string]any) map[string]any {
	out := map[string]any{}
	for k, v := range want {
		inner, isMap := v.(map[string]any)
		gotInner, alsoMap := got[k].(map[string]any)
		if isMap && alsoMap {
			out[k] = within(gotInner, inner)
		} else {
			out[k] = got[k]
		}
	}
	return out
}

func TestAGroupThatIsOffIsNotThere(t *testing.T) {
	tests := map[string]struct{ custom, external bool }{
		"custom metrics only":   {true, false},
		"external metrics only": {false, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			web := serve(t, tt.custom, tt.external)
			code := map[bool]int{true: 200, false: 404}
			for path, on := range map[string]bool{
				"/apis/custom.metrics.k8s.io/v1beta1":                            tt.custom,
				"/apis/custom.metrics.k8s.io/v1beta2":                            tt.custom,
				"/apis/custom.metrics.k8s.io/v1beta2/namespaces/shop/pods/*/rps": tt.custom,
				"/apis/external.metrics.k8s.io/v1beta1":                          tt.external,
				"/apis/external.metrics.k8s.io/v1beta1/namespaces/shop/queue":    tt.external,
			} {
				if got, body := get(t, web.URL+path); got != code[on] {
					t.Errorf("%s: status %d, want %d %.500v", path, got, code[on], body)
				}
			}
			_, index := get(t, web.URL+"/openapi/v3")
			paths, _ := index["paths"].(map[string]any)
			for path, on := range map[string]bool{"apis/custom.metrics.k8s.io/v1beta1": tt.custom, "apis/external.metrics.k8s.io/v1beta1": tt.external} {
				if _, there := paths[path]; there != on {
					t.Errorf("OpenAPI v3 has %s: %t, want %t", path, there, on)
				}
			}
			if got, body := get(t, web.URL+"/openapi/v2"); got != 200 || body["swagger"] != "2.0" {
				t.Errorf("OpenAPI v2: status %d", got)
			}
		})
	}
}

func TestServingNeedsAnAPIServerThatAuthenticates(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	_, err = NewServer(ServerOptions{Provider: NewProvider(filled(), mapper(), clock.RealClock{}, nil), Custom: true, External: true, Certificate: certificate(t),
		Listener: listener, Kubeconfig: "/does/not/exist"})
	if err == nil || !strings.Contains(err.Error(), "delegated authentication") {
		t.Errorf("a server without authentication was made: %v", err)
	}
	if _, err := NewServer(ServerOptions{}); err == nil || !strings.Contains(err.Error(), "no serving certificate") {
		t.Errorf("a server without a certificate was made: %v", err)
	}
}

func TestDiscoveryIsConstant(t *testing.T) {
	text := func(provider *Provider) string {
		return fmt.Sprint(provider.ListAllMetrics(), provider.ListAllExternalMetrics())
	}
	full, empty := NewProvider(filled(), mapper(), clock.RealClock{}, nil), NewProvider(store.New(clock.RealClock{}, 0), mapper(), clock.RealClock{}, nil)
	if full, empty := text(full), text(empty); full != empty {
		t.Errorf("discovery says %s, and without any metric %s", full, empty)
	}
}

// What this server has not is asked of another one, once; what it has is not.
func TestAMissingValueIsAskedOfAnotherServer(t *testing.T) {
	s := filled()
	empty := map[sample.Kind]sample.Query{}
	for kind, q := range map[sample.Kind]sample.Query{
		sample.External: {Metric: "other"},
		sample.Pods:     {Metric: "other", Target: sample.ObjectRef{Group: "apps", Kind: "Deployment", Name: "web"}},
		sample.Object:   {Metric: "other", Object: sample.ObjectRef{Kind: "Service", Name: "web"}},
	} {
		q.Kind, q.Namespace, q.Interval = kind, "shop", time.Hour
		s.Add(q, true)
		empty[kind] = q
	}
	p := NewProvider(s, mapper(), clock.RealClock{}, nil)
	var asked []string
	has := false
	p.Fetch = func(_ context.Context, kind sample.Kind, namespace, metric string) bool {
		asked = append(asked, fmt.Sprint(kind, " ", namespace, "/", metric))
		if has {
			s.Insert(sample.Result{Query: empty[kind], Taken: time.Now(), Points: []sample.Point{{Pod: "web-1", Milli: 1000}}})
		}
		return has
	}
	info := func(resource string) provider.CustomMetricInfo {
		return provider.CustomMetricInfo{GroupResource: schema.GroupResource{Resource: resource}, Namespaced: true, Metric: "other"}
	}
	reads := map[string]func() error{
		"External shop/other": func() error {
			_, err := p.GetExternalMetric(t.Context(), "shop", labels.Everything(), provider.ExternalMetricInfo{Metric: "other"})
			return err
		},
		"Pods shop/other": func() error {
			_, err := p.GetMetricBySelector(t.Context(), "shop", labels.Everything(), info("pods"), nil)
			return err
		},
		"Object shop/other": func() error {
			_, err := p.GetMetricByName(t.Context(), types.NamespacedName{Namespace: "shop", Name: "web"}, info("services"), nil)
			return err
		},
	}
	for want, read := range reads {
		for _, has = range []bool{false, true, true} { // nobody has it; another one has it; it is here now
			before := len(asked)
			err := read()
			if (err == nil) != has {
				t.Errorf("%s: another server has it: %t, the error is %v", want, has, err)
			}
			for _, what := range asked[before:] {
				if what != want {
					t.Errorf("asked for %s, want %s", what, want)
				}
			}
		}
	}
	if len(asked) != 2*len(reads) {
		t.Errorf("asked %q", asked)
	}
}

// kube-metrics-adapter ends in a panic here.
func TestRequestsWithoutSelectorsAreAnswered(t *testing.T) {
	p := NewProvider(filled(), mapper(), clock.RealClock{}, nil)
	pods := provider.CustomMetricInfo{GroupResource: schema.GroupResource{Resource: "pods"}, Namespaced: true, Metric: "rps"}
	nodes := provider.CustomMetricInfo{GroupResource: schema.GroupResource{Resource: "nodes"}, Metric: "load"}
	if list, err := p.GetMetricBySelector(t.Context(), "shop", nil, pods, nil); err != nil || len(list.Items) != 2 {
		t.Errorf("pods: %v, %v", list, err)
	}
	if value, err := p.GetMetricByName(t.Context(), types.NamespacedName{Namespace: "shop", Name: "web-1"}, pods, nil); err != nil || value == nil {
		t.Errorf("a pod: %v, %v", value, err)
	}
	if list, err := p.GetExternalMetric(t.Context(), "shop", nil, provider.ExternalMetricInfo{Metric: "queue"}); err != nil || len(list.Items) != 2 {
		t.Errorf("queues: %v, %v", list, err)
	}
	_, bySelector := p.GetMetricBySelector(t.Context(), "", nil, nodes, nil)
	_, byName := p.GetMetricByName(t.Context(), types.NamespacedName{Name: "node-1"}, nodes, nil)
	for _, err := range []error{bySelector, byName} {
		if !apierrors.IsNotFound(err) || !strings.Contains(err.Error(), "ask with a namespace") {
			t.Errorf("nodes at the root: %v", err)
		}
	}
}
