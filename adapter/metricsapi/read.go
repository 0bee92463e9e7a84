package metricsapi

import (
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/endpoints/handlers/negotiation"
	"k8s.io/apiserver/pkg/endpoints/handlers/responsewriters"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/metrics/pkg/apis/custom_metrics"
	"k8s.io/metrics/pkg/apis/external_metrics"
	"sigs.k8s.io/custom-metrics-apiserver/pkg/apiserver"
	"sigs.k8s.io/custom-metrics-apiserver/pkg/apiserver/metrics"
	"sigs.k8s.io/custom-metrics-apiserver/pkg/provider"
)

// plainRead is a request as HPAs make them: for the values of a metric in a namespace, by selectors only, as plain JSON or
// protobuf. It is answered without the library's handlers, which take ten times as long, with the same bytes. All other
// requests, mistakes among them, are the library's.
type plainRead struct {
	// info is as the library would have it, but without the label selector, which access adds where it is needed.
	info     request.RequestInfo
	parts    [3]string
	custom   bool
	protobuf bool
	// labels and metricLabels are selectors as they were given; empty if not.
	labels, metricLabels string
}

type readKey struct{}

// readOf returns nil if the request is none.
func readOf(r *http.Request) *plainRead {
	read, _ := r.Context().Value(readKey{}).(*plainRead)
	return read
}

// accepts are the headers Accept of Kubernetes' clients, and whether they mean protobuf.
var accepts = map[string]bool{
	"": false, "*/*": false, "application/json": false, "application/json, */*": false,
	"application/vnd.kubernetes.protobuf": true, "application/vnd.kubernetes.protobuf, */*": true,
	"application/vnd.kubernetes.protobuf,application/json": true, "application/vnd.kubernetes.protobuf, application/json": true,
}

// parseRead returns nil if the request is none.
func parseRead(r *http.Request) *plainRead {
	path, isAPI := strings.CutPrefix(r.URL.Path, "/apis/")
	if !isAPI || r.Method != http.MethodGet || strings.Contains(r.URL.RawPath, "%") || humane(r.UserAgent()) {
		return nil
	}
	protobuf, known := accepts[r.Header.Get("Accept")]
	if !known {
		return nil
	}
	out := &plainRead{protobuf: protobuf}
	group, path, _ := strings.Cut(path, "/")
	version, path, _ := strings.Cut(path, "/")
	want := 1
	switch {
	case group == external_metrics.GroupName && version == "v1beta1":
	case group == custom_metrics.GroupName && (version == "v1beta1" || version == "v1beta2"):
		out.custom, want = true, 3
	default:
		return nil
	}
	path, namespaced := strings.CutPrefix(path, "namespaces/")
	namespace, path, _ := strings.Cut(path, "/")
	if !namespaced || namespace == "" {
		return nil
	}
	n := 0
	for rest := true; rest; n++ {
		if n == want {
			return nil
		}
		if out.parts[n], path, rest = strings.Cut(path, "/"); out.parts[n] == "" {
			return nil
		}
	}
	// These mean the namespace itself.
	if resource := out.parts[0]; n < want || resource == "status" || resource == "finalize" || out.custom && resource == "metrics" {
		return nil
	}
	out.info = request.RequestInfo{
		IsResourceRequest: true, Path: r.URL.Path, Verb: "list", APIPrefix: "apis", APIGroup: group, APIVersion: version, Namespace: namespace,
		Resource: out.parts[0], Name: out.parts[1], Subresource: out.parts[2], Parts: out.parts[:want],
	}
	if !out.parameters(r.URL.RawQuery) {
		return nil
	}
	if out.custom {
		out.info.Verb = "get" // for "*" too
	}
	return out
}

// parameters reports whether there are none but selectors, each once.
func (r *plainRead) parameters(query string) bool {
	for query != "" {
		var pair string
		pair, query, _ = strings.Cut(query, "&")
		key, value, _ := strings.Cut(pair, "=")
		selector := &r.labels
		if r.custom && key == "metricLabelSelector" {
			selector = &r.metricLabels
		} else if key != "labelSelector" {
			return false
		}
		text, err := url.QueryUnescape(value)
		if err != nil || text == "" || *selector != "" || strings.Contains(value, ";") {
			return false
		}
		*selector = text
	}
	return true
}

// humane clients get indented answers.
func humane(agent string) bool {
	return strings.HasPrefix(agent, "curl") || strings.HasPrefix(agent, "Wget") || strings.HasPrefix(agent, "Mozilla/5.0")
}

// answerer answers reads.
type answerer struct {
	provider *Provider
	other    http.Handler
	limit    time.Duration
	// The library's measure of the values' ages.
	customAge, externalAge metrics.FreshnessObserver
	// protobuf are the library's encoders.
	protobuf map[schema.GroupVersion]runtime.Encoder
	buffers  sync.Pool
}

func newAnswerer(p *Provider, other http.Handler, limit time.Duration) http.Handler {
	a := &answerer{
		provider: p, other: other, limit: limit, buffers: sync.Pool{New: func() any { return new(buffer) }},
		customAge: metrics.NewFreshnessObserver(custom_metrics.GroupName), externalAge: metrics.NewFreshnessObserver(external_metrics.GroupName),
		protobuf: map[schema.GroupVersion]runtime.Encoder{},
	}
	info, _ := runtime.SerializerInfoForMediaType(apiserver.Codecs.SupportedMediaTypes(), runtime.ContentTypeProtobuf)
	for _, gv := range apiserver.Scheme.PrioritizedVersionsAllGroups() {
		a.protobuf[gv] = apiserver.Codecs.EncoderForVersion(info.Serializer, gv)
	}
	return a
}

// buffer is a bytes.Buffer whose bytes can be appended to from outside.
type buffer struct{ bytes []byte }

func (b *buffer) Write(p []byte) (int, error) {
	b.bytes = append(b.bytes, p...)
	return len(p), nil
}

const (
	// inOne is how much HTTP/2 and HTTP/1 take without waiting for the client.
	inOne = 4 << 10
	// compressible is from where on the library compresses for clients that can read it. Larger buffers are not kept.
	compressible = 128 << 10
)

func (a *answerer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	read := readOf(r)
	if read == nil {
		a.other.ServeHTTP(w, r)
		return
	}
	selector, err := parseSelector(read.labels)
	metricSelector, metricErr := parseSelector(read.metricLabels)
	if err != nil || metricErr != nil {
		a.other.ServeHTTP(w, r)
		return
	}
	gv := schema.GroupVersion{Group: read.info.APIGroup, Version: read.info.APIVersion}
	list, err := a.list(r, read, selector, metricSelector)
	if err != nil {
		responsewriters.ErrorNegotiated(err, apiserver.Codecs, gv, w, r)
		return
	}
	out := a.buffers.Get().(*buffer)
	out.bytes = out.bytes[:0]
	defer func() {
		if cap(out.bytes) <= compressible {
			a.buffers.Put(out)
		}
	}()
	contentType := runtime.ContentTypeJSON
	if read.protobuf {
		contentType = runtime.ContentTypeProtobuf
		err = a.protobuf[gv].Encode(list, out)
	} else {
		out.bytes, err = appendJSON(out.bytes, list, gv)
	}
	if len(out.bytes) > inOne {
		setWriteDeadline(w, a.limit)
	}
	if err != nil || len(out.bytes) > compressible {
		responsewriters.WriteObjectNegotiated(apiserver.Codecs, negotiation.DefaultEndpointRestrictions, gv, w, r, http.StatusOK, list, false)
		return
	}
	w.Header()["Content-Type"] = []string{contentType}
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(out.bytes) // the client is gone
}

// parseSelector is labels.Parse; selectors as HPAs have them, key=value,..., cost it a fifth.
func parseSelector(text string) (labels.Selector, error) {
	if text == "" {
		return labels.Everything(), nil
	}
	set := labels.Set{}
	for rest, more := text, true; more; {
		var pair string
		pair, rest, more = strings.Cut(rest, ",")
		key, value, _ := strings.Cut(pair, "=")
		if _, twice := set[key]; twice || !isName(key) || !isName(value) {
			return labels.Parse(text)
		}
		set[key] = value
	}
	return labels.SelectorFromValidatedSet(set), nil
}

// isName says that the text is a label's value, and its key without a prefix.
func isName(text string) bool {
	for i := range len(text) {
		c := text[i]
		alphanumeric := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !alphanumeric && (i == 0 || i == len(text)-1 || c != '-' && c != '_' && c != '.') {
			return false
		}
	}
	return 0 < len(text) && len(text) <= 63
}

// list asks the provider, as the library's handlers do.
func (a *answerer) list(r *http.Request, read *plainRead, selector, metricSelector labels.Selector) (runtime.Object, error) {
	ctx, namespace := r.Context(), read.info.Namespace
	if !read.custom {
		list, err := a.provider.GetExternalMetric(ctx, namespace, selector, provider.ExternalMetricInfo{Metric: read.info.Resource})
		if err != nil {
			return nil, err
		}
		for i := range list.Items {
			a.externalAge.Observe(list.Items[i].Timestamp)
		}
		return list, nil
	}
	info := provider.CustomMetricInfo{GroupResource: schema.ParseGroupResource(read.info.Resource), Namespaced: true, Metric: read.info.Subresource}
	list := &custom_metrics.MetricValueList{}
	if read.info.Name == "*" {
		var err error
		if list, err = a.provider.GetMetricBySelector(ctx, namespace, selector, info, metricSelector); err != nil {
			return nil, err
		}
	} else {
		value, err := a.provider.GetMetricByName(ctx, types.NamespacedName{Namespace: namespace, Name: read.info.Name}, info, metricSelector)
		if err != nil {
			return nil, err
		}
		list.Items = []custom_metrics.MetricValue{*value}
	}
	for i := range list.Items {
		a.customAge.Observe(list.Items[i].Timestamp)
	}
	return list, nil
}
