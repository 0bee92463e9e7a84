package metricsapi

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
	"k8s.io/component-base/metrics/legacyregistry"
	customv1beta1 "k8s.io/metrics/pkg/apis/custom_metrics/v1beta1"
	customv1beta2 "k8s.io/metrics/pkg/apis/custom_metrics/v1beta2"
	customclient "k8s.io/metrics/pkg/client/custom_metrics"
	externalclient "k8s.io/metrics/pkg/client/external_metrics"
	"k8s.io/utils/clock"
	"sigs.k8s.io/custom-metrics-apiserver/pkg/apiserver"
)

const (
	asJSON     = "application/json"
	asProtobuf = "application/vnd.kubernetes.protobuf"
)

// live runs the server as the adapter does, on HTTPS, but without delegated authentication, which needs an API server. It
// returns what a client needs.
func live(t testing.TB, registerer prometheus.Registerer) *rest.Config {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cert := certificate(t)
	o := ServerOptions{Provider: NewProvider(filled(), mapper(), clock.RealClock{}, registerer), Custom: true, External: true, Certificate: cert, Listener: listener, Version: "v0"}
	config, err := o.config()
	if err != nil {
		t.Fatal(err)
	}
	server, err := o.build(config)
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
	ca, _ := cert.CurrentCertKeyContent()
	return &rest.Config{Host: "https://" + listener.Addr().String(), TLSClientConfig: rest.TLSClientConfig{CAData: ca}, QPS: -1}
}

// The rows are those of custom-metrics-apiserver's own tests that apply to an adapter which keeps values by namespace.
func TestPathsAndCounts(t *testing.T) {
	config := live(t, nil)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(config.CAData)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true}}
	defer client.CloseIdleConnections()
	const custom, external = "/apis/custom.metrics.k8s.io/", "/apis/external.metrics.k8s.io/v1beta1/"
	tests := map[string]struct {
		path  string // VERSION stands for both
		code  int
		items int
	}{
		"a version that is not served":            {custom + "v1/namespaces/shop/pods/*/rps", 404, 0},
		"missing storage at the root":             {custom + "VERSION/blah", 404, 0},
		"a root resource's leaf":                  {custom + "VERSION/nodes/node-1", 404, 0},
		"a namespaced resource's leaf":            {custom + "VERSION/namespaces/shop/pods/web-1", 404, 0},
		"all nodes, at the root":                  {custom + "VERSION/nodes/*/load", 404, 0},
		"one node, at the root":                   {custom + "VERSION/nodes/node-1/load", 404, 0},
		"one node, for the HPA's namespace":       {custom + "VERSION/namespaces/shop/nodes/node-1/load", 200, 1},
		"all nodes, for the HPA's namespace":      {custom + "VERSION/namespaces/shop/nodes/*/load", 200, 1},
		"all pods":                                {custom + "VERSION/namespaces/shop/pods/*/rps", 200, 2},
		"pods by a label":                         {custom + "VERSION/namespaces/shop/pods/*/rps?labelSelector=n%3D2", 200, 1},
		"pods by a set of values":                 {custom + "VERSION/namespaces/shop/pods/*/rps?labelSelector=n%20in%20(1,2)", 200, 2},
		"pods by a label and a metric selector":   {custom + "VERSION/namespaces/shop/pods/*/rps?labelSelector=n%3D2&metricLabelSelector=a%3Db", 404, 0},
		"pods of another namespace":               {custom + "VERSION/namespaces/bank/pods/*/rps", 404, 0},
		"one pod":                                 {custom + "VERSION/namespaces/shop/pods/web-1/rps", 200, 1},
		"a namespace":                             {custom + "VERSION/namespaces/shop/metrics/load", 200, 1},
		"a namespace without the metric":          {custom + "VERSION/namespaces/bank/metrics/load", 404, 0},
		"an object by a metric selector":          {custom + "VERSION/namespaces/shop/ingresses.networking.k8s.io/web/rps?metricLabelSelector=backend%3Dblue", 200, 1},
		"an object by a set in a metric selector": {custom + "VERSION/namespaces/shop/ingresses.networking.k8s.io/web/rps?metricLabelSelector=backend%20in%20(red,blue)", 200, 1},
		"an object whose metric is another's":     {custom + "VERSION/namespaces/shop/ingresses.networking.k8s.io/web/rps?metricLabelSelector=backend%21%3Dblue", 404, 0},
		"an external metric at the root":          {external + "queue", 404, 0},
		"an external metric without a name":       {external + "namespaces/shop", 404, 0},
		"an external metric with a slash":         {external + "namespaces/shop/group/queue", 404, 0},
		"an external metric":                      {external + "namespaces/shop/queue", 200, 2},
		"an external metric by a selector":        {external + "namespaces/shop/queue?labelSelector=queue%3Da", 200, 1},
		"an external metric by a set":             {external + "namespaces/shop/queue?labelSelector=queue%20in%20(a,b)", 200, 2},
		"an external metric by what is not":       {external + "namespaces/shop/queue?labelSelector=queue%21%3Da", 200, 1},
		"an external metric that nobody asks for": {external + "namespaces/shop/nonexistent", 404, 0}, // kube-metrics-adapter: 200 and empty
		"an external metric of no such selector":  {external + "namespaces/shop/queue?labelSelector=queue%3Dc", 404, 0},
		"a selector that cannot be read":          {external + "namespaces/shop/queue?labelSelector=%3D%3D", 400, 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			versions := []string{"v1beta1", "v1beta2"}
			if !strings.Contains(tt.path, "VERSION") {
				versions = []string{""}
			}
			for _, version := range versions {
				for _, accept := range []string{asJSON, asProtobuf} {
					code, contentType, object := read(t, client, config.Host+strings.Replace(tt.path, "VERSION", version, 1), accept)
					if code != tt.code {
						t.Fatalf("%s %s: status %d, want %d", version, accept, code, tt.code)
					}
					if code >= 404 {
						continue
					}
					if contentType != accept {
						t.Errorf("%s: answered as %q", accept, contentType)
					}
					if code != 200 {
						continue
					}
					if n := meta.LenList(object); n != tt.items {
						t.Errorf("%s %s: %d items, want %d", version, accept, n, tt.items)
					}
					if got := object.GetObjectKind().GroupVersionKind().Version; version != "" && got != version {
						t.Errorf("asked for %s, got %s", version, got)
					}
				}
			}
		})
	}
	t.Run("a content type that nobody has is refused", func(t *testing.T) {
		if code, _, _ := read(t, client, config.Host+external+"namespaces/shop/queue", "application/xml"); code != http.StatusNotAcceptable {
			t.Errorf("status %d", code)
		}
	})
	t.Run("nothing can be written", func(t *testing.T) {
		for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete} {
			request, err := http.NewRequest(method, config.Host+external+"namespaces/shop/queue", strings.NewReader("{}"))
			if err != nil {
				t.Fatal(err)
			}
			response, err := client.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			_ = response.Body.Close()
			if response.StatusCode != http.StatusMethodNotAllowed {
				t.Errorf("%s: status %d", method, response.StatusCode)
			}
		}
	})
}

// read returns the object of an answer with status 200.
func read(t *testing.T, client *http.Client, url, accept string) (int, string, runtime.Object) {
	t.Helper()
	request, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Accept", accept)
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.ProtoMajor != 2 {
		t.Errorf("answered by %s", response.Proto)
	}
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if response.StatusCode != http.StatusOK {
		return response.StatusCode, response.Header.Get("Content-Type"), nil
	}
	info, _ := runtime.SerializerInfoForMediaType(apiserver.Codecs.SupportedMediaTypes(), accept)
	object, _, err := info.Serializer.Decode(body, nil, nil)
	if err != nil {
		t.Fatalf("%s: %v", accept, err)
	}
	return response.StatusCode, response.Header.Get("Content-Type"), object
}

// hpaClient reads as the HPA controller's metrics client does.
type hpaClient struct {
	custom   customclient.CustomMetricsClient
	external externalclient.ExternalMetricsClient
}

// pods is what a Pods metric needs: the values by pod.
func (c hpaClient) pods(metric, selector, metricSelector string) (map[string]int64, error) {
	list, err := c.custom.NamespacedMetrics("shop").GetForObjects(schema.GroupKind{Kind: "Pod"}, parse(selector), metric, parse(metricSelector))
	if err != nil {
		return nil, err
	}
	if len(list.Items) == 0 {
		return nil, errors.New("no metrics returned from custom metrics API")
	}
	out := map[string]int64{}
	for _, item := range list.Items {
		out[item.DescribedObject.Name] = item.Value.MilliValue()
	}
	return out, nil
}

// object is what an Object metric needs.
func (c hpaClient) object(metric string, ref autoscalingv2.CrossVersionObjectReference, metricSelector string) (int64, error) {
	kind := schema.FromAPIVersionAndKind(ref.APIVersion, ref.Kind).GroupKind()
	get := c.custom.NamespacedMetrics("shop").GetForObject
	if kind.Kind == "Namespace" && kind.Group == "" {
		get = c.custom.RootScopedMetrics().GetForObject
	}
	value, err := get(kind, ref.Name, metric, parse(metricSelector))
	if err != nil {
		return 0, err
	}
	return value.Value.MilliValue(), nil
}

// sum is what an External metric needs.
func (c hpaClient) sum(metric, selector string) (int64, error) {
	list, err := c.external.NamespacedMetrics("shop").List(metric, parse(selector))
	if err != nil {
		return 0, err
	}
	if len(list.Items) == 0 {
		return 0, errors.New("no metrics returned from external metrics API")
	}
	sum := int64(0)
	for _, item := range list.Items {
		sum += item.Value.MilliValue()
	}
	return sum, nil
}

func parse(text string) labels.Selector {
	selector, err := labels.Parse(text)
	if err != nil {
		panic(err)
	}
	return selector
}

func TestTheClientsOfTheHPA(t *testing.T) {
	base := live(t, nil)
	for _, contentType := range []string{asJSON, asProtobuf} {
		config := rest.CopyConfig(base)
		config.ContentType, config.AcceptContentTypes = contentType, contentType
		external, err := externalclient.NewForConfig(config)
		if err != nil {
			t.Fatal(err)
		}
		versions := map[string]func() (customclient.CustomMetricsClient, error){
			"the version that discovery prefers": func() (customclient.CustomMetricsClient, error) {
				return customclient.NewForConfig(config, mapper(), customclient.NewAvailableAPIsGetter(discovery.NewDiscoveryClientForConfigOrDie(config))), nil
			},
			"v1beta1": func() (customclient.CustomMetricsClient, error) {
				return customclient.NewForVersionForConfig(config, mapper(), customv1beta1.SchemeGroupVersion)
			},
			"v1beta2": func() (customclient.CustomMetricsClient, error) {
				return customclient.NewForVersionForConfig(config, mapper(), customv1beta2.SchemeGroupVersion)
			},
		}
		for version, connect := range versions {
			t.Run(contentType+", "+version, func(t *testing.T) {
				custom, err := connect()
				if err != nil {
					t.Fatal(err)
				}
				readAsTheHPADoes(t, hpaClient{custom: custom, external: external})
			})
		}
	}
}

func readAsTheHPADoes(t *testing.T, c hpaClient) {
	pods := map[string]struct {
		metric, selector, metricSelector string
		want                             map[string]int64
		err                              string
	}{
		"the values of pods":              {"rps", "app=web", "", map[string]int64{"web-1": 1000, "web-2": 3000}, ""},
		"pods whose sum is zero":          {"idle", "app=web", "", map[string]int64{"web-1": 0, "web-2": 0}, ""},
		"a part of the pods":              {"rps", "app=web,n!=1", "", map[string]int64{"web-2": 3000}, ""},
		"pods that no value has":          {"rps", "app=x", "", nil, `no pod that "app=x" matches has a value of metric "rps"`},
		"pods by another metric selector": {"rps", "app=web", "a=b", nil, `has a value of metric "rps"`},
	}
	for name, tt := range pods {
		got, err := c.pods(tt.metric, tt.selector, tt.metricSelector)
		check(t, name, err, tt.err)
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	objects := map[string]struct {
		metric, selector string
		ref              autoscalingv2.CrossVersionObjectReference
		want             int64
		err              string
	}{
		"an object":                {"rps", "backend=blue", autoscalingv2.CrossVersionObjectReference{APIVersion: "networking.k8s.io/v1", Kind: "Ingress", Name: "web"}, 7000, ""},
		"a core object":            {"hits", "", autoscalingv2.CrossVersionObjectReference{APIVersion: "v1", Kind: "Service", Name: "web"}, -2000, ""},
		"a cluster-scoped object":  {"sale", "", autoscalingv2.CrossVersionObjectReference{APIVersion: "zalando.org/v1", Kind: "ClusterScalingSchedule", Name: "sale"}, 100_000, ""},
		"a node":                   {"load", "", autoscalingv2.CrossVersionObjectReference{APIVersion: "v1", Kind: "Node", Name: "node-1"}, 500, ""},
		"a namespace, at the root": {"load", "", autoscalingv2.CrossVersionObjectReference{APIVersion: "v1", Kind: "Namespace", Name: "shop"}, 9000, ""},
		"an object that has none":  {"rps", "", autoscalingv2.CrossVersionObjectReference{APIVersion: "v1", Kind: "Service", Name: "web"}, 0, `no HPA of namespace shop asks for metric "rps" of Service/web`},
	}
	for name, tt := range objects {
		got, err := c.object(tt.metric, tt.ref, tt.selector)
		check(t, name, err, tt.err)
		if got != tt.want {
			t.Errorf("%s: %d, want %d", name, got, tt.want)
		}
	}
	sums := map[string]struct {
		metric, selector string
		want             int64
		err              string
	}{
		"one queue":                 {"queue", "queue=a,type=sqs", 42_500, ""},
		"the sum of two queues":     {"queue", "type=sqs", 43_500, ""},
		"queues whose sum is zero":  {"idle", "", 0, ""},
		"a metric without a value":  {"waiting", "", 0, `external metric "waiting" has no value: it has not been collected yet`},
		"a metric that nobody has":  {"nonexistent", "", 0, `no HPA of namespace shop asks for external metric "nonexistent"`},
		"a queue that nobody meant": {"queue", "queue=c", 0, `with labels that match "queue=c"`},
	}
	for name, tt := range sums {
		got, err := c.sum(tt.metric, tt.selector)
		check(t, name, err, tt.err)
		if got != tt.want {
			t.Errorf("%s: %d, want %d", name, got, tt.want)
		}
	}
}

func check(t *testing.T, name string, err error, want string) {
	t.Helper()
	if (err != nil) != (want != "") || err != nil && !strings.Contains(err.Error(), want) {
		t.Errorf("%s: error %v, want %q", name, err, want)
	}
}

// freshness returns how many values of the group were observed by the library's histogram, and their ages in all.
func freshness(t *testing.T, group string) (count uint64, seconds float64) {
	t.Helper()
	families, err := legacyregistry.DefaultGatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "metrics_apiserver_metric_freshness_seconds" {
			continue
		}
		if f.GetType() != dto.MetricType_HISTOGRAM {
			t.Errorf("freshness is a %s", f.GetType())
		}
		for _, m := range f.Metric {
			if m.Label[0].GetName() == "group" && m.Label[0].GetValue() == group {
				return m.GetHistogram().GetSampleCount(), m.GetHistogram().GetSampleSum()
			}
		}
	}
	return 0, 0
}

func TestAnswersAndTheirAgesAreMeasured(t *testing.T) {
	registry := prometheus.NewRegistry()
	config := live(t, registry)
	external, err := externalclient.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	custom, err := customclient.NewForVersionForConfig(config, mapper(), customv1beta2.SchemeGroupVersion)
	if err != nil {
		t.Fatal(err)
	}
	c := hpaClient{custom: custom, external: external}
	const group = "external.metrics.k8s.io"
	count, seconds := freshness(t, group)
	customCount, _ := freshness(t, "custom.metrics.k8s.io")
	if _, err := c.sum("queue", "type=sqs"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.sum("waiting", ""); err == nil {
		t.Error("a metric without a value was served")
	}
	if _, err := c.pods("rps", "app=web", ""); err != nil {
		t.Fatal(err)
	}
	after, afterSeconds := freshness(t, group)
	if after-count != 2 || afterSeconds-seconds < 10 { // two values, taken five seconds before the test began
		t.Errorf("freshness has %d values of %v seconds, want 2 of at least 10", after-count, afterSeconds-seconds)
	}
	if n, _ := freshness(t, "custom.metrics.k8s.io"); n-customCount != 2 {
		t.Errorf("freshness has %d custom values, want 2", n-customCount)
	}
	if err := testutil.GatherAndCompare(registry, strings.NewReader(`# HELP kubetide_answers_total Answers of the metrics APIs. Labeled by api (custom, external) and result (value, fallback, none).
# TYPE kubetide_answers_total counter
kubetide_answers_total{api="custom",result="value"} 1
kubetide_answers_total{api="external",result="none"} 1
kubetide_answers_total{api="external",result="value"} 1
`), "kubetide_answers_total"); err != nil {
		t.Error(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "kubetide_answer_age_seconds" {
			if h := f.Metric[0].GetHistogram(); h.GetSampleCount() != 3 || h.GetSampleSum() < 15 {
				t.Errorf("ages: %v", h)
			}
		}
	}
}

// Reads through HTTPS by the HPA's client, without the API server in front.
func BenchmarkExternalHTTPS(b *testing.B) {
	client, err := externalclient.NewForConfig(live(b, nil))
	if err != nil {
		b.Fatal(err)
	}
	selector := parse("queue=a,type=sqs")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := client.NamespacedMetrics("shop").List("queue", selector); err != nil {
			b.Fatal(err)
		}
	}
}
