package tideapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	certutil "k8s.io/client-go/util/cert"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/kubetide/kubetide/adapter/metricsapi"
	tide "github.com/kubetide/kubetide/api/tide/v1alpha1"
	"github.com/kubetide/kubetide/internal/decision"
	"github.com/kubetide/kubetide/internal/sample"
)

const (
	root      = "/apis/tide.kubetide.io/v1alpha1"
	ihpa      = "IntelligentHorizontalPodAutoscaler"
	asTable   = "application/json;as=Table;v=v1;g=meta.k8s.io"
	asObjects = "application/json"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

type answers []known

func (k answers) Each(f func(sample.Query, sample.Answer)) {
	for _, k := range k {
		f(k.query, k.answer)
	}
}

// certificate is one for all tests: its key takes seconds.
var certificate = sync.OnceValue(func() [2][]byte {
	cert, key, err := certutil.GenerateSelfSignedCertKey("localhost", []net.IP{net.IPv4(127, 0, 0, 1)}, nil)
	if err != nil {
		panic(err)
	}
	return [2][]byte{cert, key}
})

// world is the group on a real server, with an API server that knows the tokens reader, of namespace shop only, and admin.
type world struct {
	leads     bool
	leader    string
	leaderErr error
	log       *decision.Log
	portraits *decision.Portraits
	config    *rest.Config
	client    *http.Client
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{leads: true, log: decision.NewLog(0, 0), portraits: &decision.Portraits{}}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	pair := certificate()
	cert := pair[0]
	serving, err := dynamiccertificates.NewStaticCertKeyContent("test", cert, pair[1])
	if err != nil {
		t.Fatal(err)
	}
	source := answers{
		{sample.Query{Kind: sample.External, Namespace: "shop", Metric: "queue", Collector: "sqs", Settings: "secret", Interval: time.Minute},
			sample.Answer{State: sample.Fresh, Taken: noon.Add(-30 * time.Second), MaxAge: 130 * time.Second, Points: []sample.Point{{Milli: 1500, Age: 5 * time.Second}}}},
		{sample.Query{Kind: sample.Pods, Namespace: "shop", Metric: "rps", Target: sample.ObjectRef{Group: "apps", Kind: "Deployment", Name: "web"}, Collector: "json-path", Interval: time.Minute},
			sample.Answer{State: sample.Fresh, Taken: noon, Points: []sample.Point{{Pod: "a", Milli: 1000}, {Pod: "b", Milli: 2000}}, Cause: errors.New("pod c: refused")}},
		{sample.Query{Kind: sample.External, Namespace: "bank", Metric: "queue", Collector: "sqs", Interval: time.Minute},
			sample.Answer{State: sample.Missing, Cause: errors.New(strings.Repeat("x", 5000)), Instead: &sample.Instead{Stage: sample.Waiting}}},
	}
	group := Group(Options{Samples: source, Clock: clocktesting.NewFakePassiveClock(noon), Decisions: &Decisions{Log: w.log, Portraits: w.portraits,
		Leads: func() bool { return w.leads }, Leader: func(context.Context) (string, error) { return w.leader, w.leaderErr }}})
	server, err := metricsapi.NewServer(metricsapi.ServerOptions{Certificate: serving, Listener: listener, Version: "v0", Kubeconfig: kubernetes(t),
		Groups: []metricsapi.Group{{Info: group, Definitions: Definitions}}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	w.config = &rest.Config{Host: "https://" + listener.Addr().String(), BearerToken: "admin", TLSClientConfig: rest.TLSClientConfig{CAData: cert}, QPS: -1}
	anonymous := rest.AnonymousClientConfig(w.config)
	transport, err := rest.TransportFor(anonymous)
	if err != nil {
		t.Fatal(err)
	}
	w.client = &http.Client{Transport: transport}
	return w
}

// kubernetes answers who a token is and what they may, and returns its kubeconfig.
func kubernetes(t *testing.T) string {
	t.Helper()
	mux := http.NewServeMux()
	answer := func(w http.ResponseWriter, code int, object any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		if err := json.NewEncoder(w).Encode(object); err != nil {
			t.Error(err)
		}
	}
	configMap := corev1.ConfigMap{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "extension-apiserver-authentication", ResourceVersion: "1"}}
	mux.HandleFunc("GET /api/v1/namespaces/kube-system/configmaps/{name}", func(w http.ResponseWriter, _ *http.Request) { answer(w, 200, &configMap) })
	mux.HandleFunc("GET /api/v1/namespaces/kube-system/configmaps", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("watch") == "true" {
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
			return
		}
		answer(w, 200, &corev1.ConfigMapList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMapList"}, ListMeta: metav1.ListMeta{ResourceVersion: "1"}, Items: []corev1.ConfigMap{configMap}})
	})
	mux.HandleFunc("POST /apis/authentication.k8s.io/v1/tokenreviews", func(w http.ResponseWriter, r *http.Request) {
		var review authenticationv1.TokenReview
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
			t.Error(err)
		}
		if token := review.Spec.Token; token == "reader" || token == "admin" {
			review.Status = authenticationv1.TokenReviewStatus{Authenticated: true, User: authenticationv1.UserInfo{Username: token}}
		}
		answer(w, 201, &review)
	})
	mux.HandleFunc("POST /apis/authorization.k8s.io/v1/subjectaccessreviews", func(w http.ResponseWriter, r *http.Request) {
		var review authorizationv1.SubjectAccessReview
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
			t.Error(err)
		}
		a := review.Spec.ResourceAttributes
		review.Status.Allowed = review.Spec.User == "admin" ||
			review.Spec.User == "reader" && a != nil && a.Namespace == "shop" && a.Group == "tide.kubetide.io" && (a.Verb == "get" || a.Verb == "list")
		answer(w, 201, &review)
	})
	web := httptest.NewServer(mux)
	t.Cleanup(func() {
		web.CloseClientConnections()
		web.Close()
	})
	config := clientcmdapi.NewConfig()
	config.Clusters["k"] = &clientcmdapi.Cluster{Server: web.URL}
	config.Contexts["k"] = &clientcmdapi.Context{Cluster: "k"}
	config.CurrentContext = "k"
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		t.Fatal(err)
	}
	return path
}

func (w *world) do(t *testing.T, method, path, token, accept string, into any) (code int, retryAfter string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, w.config.Host+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	request.Header.Set("Accept", accept)
	response, err := w.client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	if err := json.NewDecoder(response.Body).Decode(into); err != nil {
		t.Errorf("%s %s: %v", method, path, err)
	}
	return response.StatusCode, response.Header.Get("Retry-After")
}

// decide fills the log with three decisions about shop/cart and one about each of some others.
func (w *world) decide() {
	add := func(namespace, name, result string, at time.Time) {
		replicas := int32(3)
		w.log.Add(decision.Record{Object: decision.Object{Kind: ihpa, Namespace: namespace, Name: name}, Time: at, Trigger: "change seen", Result: result,
			Candidates: []decision.Candidate{{Provider: "Dynamic-Reactive", Priority: 1, Replicas: &replicas, Chosen: true}},
			Steps:      []decision.Step{{Stage: "merge", Replicas: 3, Reason: "Dynamic-Reactive wins"}, {Stage: "clamp", Replicas: 2, Reason: "TooManyReplicas: 3 was wanted"}}})
	}
	for i := range 3 {
		add("shop", "cart", fmt.Sprint("result ", i), noon.Add(time.Duration(i-2)*time.Minute))
	}
	add("shop", "web", "result", noon)
	add("bank", "vault", "result", noon)
	w.log.Add(decision.Record{Object: decision.Object{Kind: "Other", Namespace: "shop", Name: "other"}, Time: noon})
	w.portraits.Set("shop", "cart-reactive", decision.Portrait{Name: "cart-reactive", Time: noon, Details: []decision.Detail{{Metric: "rps", Value: "412", Age: 4 * time.Second}}})
}

func TestWhoMayRead(t *testing.T) {
	w := newWorld(t)
	w.decide()
	const inShop, inBank = root + "/namespaces/shop/decisions/cart", root + "/namespaces/bank/decisions/vault"
	for name, test := range map[string]struct {
		method, path, token string
		code                int
	}{
		"nobody":                               {"GET", inShop, "", 403},
		"a token of nobody":                    {"GET", inShop, "forged", 401},
		"a reader in the own namespace":        {"GET", inShop, "reader", 200},
		"a reader's history":                   {"GET", inShop + "/history", "reader", 200},
		"a reader in another namespace":        {"GET", inBank, "reader", 403},
		"a reader's list of all":               {"GET", root + "/decisions", "reader", 403},
		"a reader's list of the namespace":     {"GET", root + "/namespaces/shop/decisions", "reader", 200},
		"a reader's samples":                   {"GET", root + "/namespaces/shop/samples", "reader", 200},
		"a reader's samples of another":        {"GET", root + "/namespaces/bank/samples", "reader", 403},
		"an administrator":                     {"GET", root + "/decisions", "admin", 200},
		"nothing is written":                   {"DELETE", inShop, "admin", 405},
		"nothing is created":                   {"POST", root + "/namespaces/shop/decisions", "admin", 405},
		"an object that was never decided":     {"GET", root + "/namespaces/shop/decisions/none", "admin", 404},
		"a kind that is no IHPA":               {"GET", root + "/namespaces/shop/decisions/other", "admin", 404},
		"the history of an unknown object":     {"GET", root + "/namespaces/shop/decisions/none/history", "admin", 404},
		"a sample that nobody asks for":        {"GET", root + "/namespaces/shop/samples/none", "admin", 404},
		"a limit that is none":                 {"GET", inShop + "/history?limit=many", "admin", 400},
		"a continue token of somebody else":    {"GET", root + "/decisions?continue=%21", "admin", 400},
		"a field that can't be selected by":    {"GET", root + "/decisions?fieldSelector=decision.result%3Dx", "admin", 400},
		"watching, which there is nothing for": {"GET", root + "/decisions?watch=true", "admin", 405},
	} {
		t.Run(name, func(t *testing.T) {
			var body map[string]any
			if got, _ := w.do(t, test.method, test.path, test.token, asObjects, &body); got != test.code {
				t.Errorf("%d, want %d: %v", got, test.code, body)
			}
		})
	}
}

func TestADecisionAndItsHistory(t *testing.T) {
	w := newWorld(t)
	w.decide()
	three := int32(3)
	record := func(i int) tide.Record {
		return tide.Record{Time: metav1.NewMicroTime(noon.Add(time.Duration(i-2) * time.Minute)), Trigger: "change seen", Result: fmt.Sprint("result ", i),
			Candidates: []tide.Candidate{{Provider: "Dynamic-Reactive", Priority: 1, Replicas: &three, Chosen: true}},
			Steps:      []tide.Step{{Stage: "merge", Replicas: 3, Reason: "Dynamic-Reactive wins"}, {Stage: "clamp", Replicas: 2, Reason: "TooManyReplicas: 3 was wanted"}}}
	}
	kind := func(k string) metav1.TypeMeta {
		return metav1.TypeMeta{APIVersion: "tide.kubetide.io/v1alpha1", Kind: k}
	}
	var got tide.Decision
	w.do(t, "GET", root+"/namespaces/shop/decisions/cart", "admin", asObjects, &got)
	want := tide.Decision{TypeMeta: kind("Decision"), ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "cart", CreationTimestamp: metav1.NewTime(noon)},
		ObjectKind: ihpa, Decision: record(2), Portraits: []tide.Portrait{{Name: "cart-reactive", Time: metav1.NewMicroTime(noon),
			Metrics: []tide.PortraitMetric{{Metric: "rps", Value: "412", Age: &metav1.Duration{Duration: 4 * time.Second}}}}}}
	want.Decision.Candidates[0].Source = "HorizontalPortrait cart-reactive"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("decision (-want +got):\n%s", diff)
	}
	for query, first := range map[string]int{"": 0, "?limit=2": 1, "?limit=0": 0, "?limit=9": 0} {
		var got tide.DecisionHistory
		w.do(t, "GET", root+"/namespaces/shop/decisions/cart/history"+query, "admin", asObjects, &got)
		want := tide.DecisionHistory{TypeMeta: kind("DecisionHistory"), ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "cart"}, ObjectKind: ihpa}
		for i := first; i < 3; i++ {
			want.Decisions = append(want.Decisions, record(i))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("history%s (-want +got):\n%s", query, diff)
		}
	}
}

func TestListsAreSortedSelectedAndPaged(t *testing.T) {
	w := newWorld(t)
	w.decide()
	for path, want := range map[string][]string{
		"/decisions":                                        {"bank/vault", "shop/cart", "shop/web"},
		"/namespaces/shop/decisions":                        {"shop/cart", "shop/web"},
		"/namespaces/none/decisions":                        nil,
		"/decisions?fieldSelector=metadata.name%3Dweb":      {"shop/web"},
		"/decisions?fieldSelector=metadata.namespace!=shop": {"bank/vault"},
		"/decisions?labelSelector=app%3Dweb":                nil,
		"/decisions?labelSelector=!app":                     {"bank/vault", "shop/cart", "shop/web"},
	} {
		var got tide.DecisionList
		w.do(t, "GET", root+path, "admin", asObjects, &got)
		if diff := cmp.Diff(want, names(got.Items)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", path, diff)
		}
	}
	var pages []string
	for token, n := "", 0; ; n++ {
		var got tide.DecisionList
		w.do(t, "GET", root+"/decisions?limit=2&continue="+url.QueryEscape(token), "admin", asObjects, &got)
		pages = append(pages, strings.Join(names(got.Items), " "))
		if token = got.Continue; token == "" || n > 3 {
			break
		}
	}
	if diff := cmp.Diff([]string{"bank/vault shop/cart", "shop/web"}, pages); diff != "" {
		t.Errorf("pages (-want +got):\n%s", diff)
	}
}

func names(items []tide.Decision) (out []string) {
	for _, d := range items {
		out = append(out, d.Namespace+"/"+d.Name)
	}
	return out
}

func TestOnlyTheLeaderHasDecisions(t *testing.T) {
	w := newWorld(t)
	w.decide()
	w.leads = false
	for name, test := range map[string]struct {
		leader string
		err    error
		want   string
	}{
		"another replica leads":      {"kubetide-1_uid", nil, "the one that leads is kubetide-1_uid"},
		"nobody leads":               {"", nil, "nobody holds the Lease"},
		"the Lease can't be read":    {"", errors.New("it is away"), "can't be read: it is away"},
		"the leader's name is shown": {"x", nil, "leads is x"},
	} {
		t.Run(name, func(t *testing.T) {
			w.leader, w.leaderErr = test.leader, test.err
			for _, path := range []string{"/decisions", "/namespaces/shop/decisions/cart", "/namespaces/shop/decisions/cart/history"} {
				var status metav1.Status
				code, retryAfter := w.do(t, "GET", root+path, "admin", asObjects, &status)
				if code != http.StatusServiceUnavailable || retryAfter != "1" || !strings.Contains(status.Message, test.want) {
					t.Errorf("%s: %d, Retry-After %q, %q", path, code, retryAfter, status.Message)
				}
			}
			var list tide.SampleList
			if code, _ := w.do(t, "GET", root+"/samples", "admin", asObjects, &list); code != http.StatusOK || len(list.Items) != 3 {
				t.Errorf("samples, which every replica has: %d, %d items", code, len(list.Items))
			}
		})
	}
}

func TestSamplesSayWhatIsKnown(t *testing.T) {
	w := newWorld(t)
	var got tide.SampleList
	w.do(t, "GET", root+"/samples", "admin", asObjects, &got)
	two := int32(2)
	want := []tide.Sample{
		{Query: tide.SampleQuery{Type: "External", Metric: "queue", Collector: "sqs", Interval: metav1.Duration{Duration: time.Minute}},
			State: "Missing", Cause: strings.Repeat("x", 1024) + "...", Fallback: "Waiting"},
		{Query: tide.SampleQuery{Type: "External", Metric: "queue", Collector: "sqs", Interval: metav1.Duration{Duration: time.Minute}},
			State: "Fresh", Value: "1500m", Age: &metav1.Duration{Duration: 35 * time.Second}, MaxAge: metav1.Duration{Duration: 130 * time.Second}},
		{Query: tide.SampleQuery{Type: "Pods", Metric: "rps", Target: "Deployment.apps/web", Collector: "json-path", Interval: metav1.Duration{Duration: time.Minute}},
			State: "Fresh", Value: "1500m", Age: &metav1.Duration{}, Pods: &two, Cause: "pod c: refused"},
	}
	slices.SortFunc(got.Items, func(a, b tide.Sample) int {
		return strings.Compare(a.Namespace+a.Query.Metric, b.Namespace+b.Query.Metric)
	})
	var one tide.Sample
	w.do(t, "GET", root+"/namespaces/shop/samples/"+got.Items[1].Name, "admin", asObjects, &one)
	one.TypeMeta = metav1.TypeMeta{}
	if diff := cmp.Diff(got.Items[1], one); diff != "" {
		t.Errorf("one by its name (-listed +got):\n%s", diff)
	}
	for i := range got.Items {
		got.Items[i].ObjectMeta = metav1.ObjectMeta{}
	}
	if diff := cmp.Diff(want, got.Items); diff != "" {
		t.Errorf("samples (-want +got):\n%s", diff)
	}
}

func TestTablesForKubectl(t *testing.T) {
	w := newWorld(t)
	w.decide()
	for path, want := range map[string]struct {
		columns string
		rows    []string
	}{
		"/namespaces/shop/decisions": {"Object Result Age Reason Trigger Next", []string{
			"cart|result 2|0s|clamp: TooManyReplicas: 3 was wanted|change seen|-", "web|result|0s|clamp: TooManyReplicas: 3 was wanted|change seen|-"}},
		"/namespaces/shop/decisions/web": {"Object Result Age Reason Trigger Next", []string{"web|result|0s|clamp: TooManyReplicas: 3 was wanted|change seen|-"}},
		"/namespaces/shop/decisions/cart/history?limit=2": {"Time Age Result Trigger Reason", []string{
			"2026-01-01T11:59:00Z|60s|result 1|change seen|clamp: TooManyReplicas: 3 was wanted", "2026-01-01T12:00:00Z|0s|result 2|change seen|clamp: TooManyReplicas: 3 was wanted"}},
	} {
		t.Run(path, func(t *testing.T) {
			var got metav1.Table
			if code, _ := w.do(t, "GET", root+path, "admin", asTable, &got); code != http.StatusOK {
				t.Error(code)
			}
			var columns, rows []string
			for _, c := range got.ColumnDefinitions {
				columns = append(columns, c.Name)
			}
			for _, r := range got.Rows {
				var cells []string
				for _, c := range r.Cells {
					cells = append(cells, fmt.Sprint(c))
				}
				rows = append(rows, strings.Join(cells, "|"))
			}
			if diff := cmp.Diff(want.rows, rows); diff != "" || strings.Join(columns, " ") != want.columns {
				t.Errorf("columns %v (-want +got):\n%s", columns, diff)
			}
		})
	}
	var got metav1.Table
	w.do(t, "GET", root+"/namespaces/bank/samples", "admin", asTable, &got)
	if len(got.Rows) != 1 || fmt.Sprint(got.Rows[0].Cells[:6]) != "[queue External sqs - Missing -]" {
		t.Errorf("samples: %v", got.Rows)
	}
}

func TestDiscoveryAndOpenAPI(t *testing.T) {
	w := newWorld(t)
	client, err := discovery.NewDiscoveryClientForConfig(w.config)
	if err != nil {
		t.Fatal(err)
	}
	list, err := client.ServerResourcesForGroupVersion("tide.kubetide.io/v1alpha1")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range list.APIResources {
		got = append(got, fmt.Sprintf("%s %q %s %t %v", r.Name, r.SingularName, r.Kind, r.Namespaced, r.Verbs))
	}
	if diff := cmp.Diff([]string{`decisions "decision" Decision true [get list]`, `decisions/history "" DecisionHistory true [get]`, `samples "sample" Sample true [get list]`}, got); diff != "" {
		t.Errorf("resources (-want +got):\n%s", diff)
	}
	groups, resources, err := client.ServerGroupsAndResources() // as kubectl asks, in the aggregated form
	if err != nil || len(groups) != 1 || len(resources) != 1 || groups[0].Name != "tide.kubetide.io" {
		t.Errorf("aggregated discovery: %v, %v, %v", groups, resources, err)
	}
	document, err := client.OpenAPISchema()
	if err != nil {
		t.Fatal(err)
	}
	var models []string
	for _, d := range document.GetDefinitions().GetAdditionalProperties() {
		if name, ok := strings.CutPrefix(d.Name, "io.kubetide.tide.v1alpha1."); ok {
			models = append(models, name)
		}
	}
	slices.Sort(models)
	if diff := cmp.Diff([]string{"Candidate", "Decision", "DecisionHistory", "DecisionList", "Portrait", "PortraitMetric", "Record", "Sample", "SampleList", "SampleQuery", "Step"}, models); diff != "" {
		t.Errorf("models (-want +got):\n%s", diff)
	}
	var v3 struct {
		Paths      map[string]any
		Components struct{ Schemas map[string]any }
	}
	w.do(t, "GET", "/openapi/v3/apis/tide.kubetide.io/v1alpha1", "admin", asObjects, &v3)
	if _, ok := v3.Paths[root+"/namespaces/{namespace}/decisions/{name}/history"]; !ok || v3.Components.Schemas["io.kubetide.tide.v1alpha1.Decision"] == nil {
		t.Errorf("OpenAPI v3 has %d paths and %d schemas, and not those of decisions", len(v3.Paths), len(v3.Components.Schemas))
	}
}

func TestWhatIsNotThereIsNotServed(t *testing.T) {
	for want, o := range map[string]Options{"[samples]": {Samples: answers{}}, "[decisions decisions/history]": {Decisions: &Decisions{}}} {
		var got []string
		for name := range Group(o).VersionedResourcesStorageMap["v1alpha1"] {
			got = append(got, name)
		}
		slices.Sort(got)
		if fmt.Sprint(got) != want {
			t.Errorf("%v, want %s", got, want)
		}
	}
}
