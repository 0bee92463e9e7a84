package metricsapi

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/endpoints/request"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/metrics/pkg/apis/custom_metrics"
	"k8s.io/metrics/pkg/apis/external_metrics"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	"pgregory.net/rapid"
	"sigs.k8s.io/custom-metrics-apiserver/pkg/apiserver"

	"github.com/kubetide/kubetide/internal/sample"
)

// authority is what issues certificates.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func newAuthority(t testing.TB, name string) authority {
	t.Helper()
	return authority{}.issue(t, &x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
}

// issue returns the template as a certificate; without an authority it signs itself.
func (a authority) issue(t testing.TB, template *x509.Certificate) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	if template.NotAfter.IsZero() {
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return authority{cert, key}
}

func (a authority) client(t testing.TB, name string) authority {
	return a.issue(t, &x509.Certificate{Subject: pkix.Name{CommonName: name}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
}

func (a authority) pem() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}))
}

// kubernetes is as much of an API server as delegated authentication and authorization ask for. The token and the user
// "reader" are good for everything, "stranger" for nothing.
type kubernetes struct {
	kubeconfig string
	proxies    authority

	mu    sync.Mutex
	asked []string // who was asked about
}

func newKubernetes(t testing.TB) *kubernetes {
	t.Helper()
	k := &kubernetes{proxies: newAuthority(t, "front-proxy-ca"), kubeconfig: filepath.Join(t.TempDir(), "kubeconfig")}
	configMap := &corev1.ConfigMap{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "extension-apiserver-authentication", ResourceVersion: "1"},
		Data: map[string]string{
			"client-ca-file": newAuthority(t, "client-ca").pem(), "requestheader-client-ca-file": k.proxies.pem(),
			"requestheader-allowed-names": `["front-proxy-client"]`, "requestheader-username-headers": `["X-Remote-User"]`,
			"requestheader-group-headers": `["X-Remote-Group"]`, "requestheader-extra-headers-prefix": `["X-Remote-Extra-"]`,
		},
	}
	mux := http.NewServeMux()
	answer := func(w http.ResponseWriter, code int, object any) {
		w.Header().Set("Content-Type", asJSON)
		w.WriteHeader(code)
		if err := json.NewEncoder(w).Encode(object); err != nil {
			t.Error(err)
		}
	}
	mux.HandleFunc("GET /api/v1/namespaces/kube-system/configmaps/{name}", func(w http.ResponseWriter, _ *http.Request) { answer(w, 200, configMap) })
	mux.HandleFunc("GET /api/v1/namespaces/kube-system/configmaps", func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Query().Get("sendInitialEvents") == "true":
			answer(w, 422, &metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusFailure, Reason: metav1.StatusReasonInvalid, Code: 422})
		case r.URL.Query().Get("watch") == "true":
			w.Header().Set("Content-Type", asJSON)
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		default:
			answer(w, 200, &corev1.ConfigMapList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMapList"}, ListMeta: metav1.ListMeta{ResourceVersion: "1"}, Items: []corev1.ConfigMap{*configMap}})
		}
	})
	mux.HandleFunc("POST /apis/authentication.k8s.io/v1/tokenreviews", func(w http.ResponseWriter, r *http.Request) {
		var review authenticationv1.TokenReview
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
			t.Error(err)
		}
		switch token := review.Spec.Token; token {
		case "reader", "stranger":
			review.Status = authenticationv1.TokenReviewStatus{Authenticated: true, User: authenticationv1.UserInfo{Username: token, UID: "1", Groups: []string{"system:serviceaccounts"}}}
		}
		answer(w, 201, &review)
	})
	mux.HandleFunc("POST /apis/authorization.k8s.io/v1/subjectaccessreviews", func(w http.ResponseWriter, r *http.Request) {
		var review authorizationv1.SubjectAccessReview
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
			t.Error(err)
		}
		k.mu.Lock()
		defer k.mu.Unlock()
		k.asked = append(k.asked, review.Spec.User)
		review.Status.Allowed = review.Spec.User == "reader"
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
	if err := clientcmd.WriteToFile(*config, k.kubeconfig); err != nil {
		t.Fatal(err)
	}
	return k
}

// guarded runs the server as the adapter does, with delegated authentication and authorization, and returns its URL and the
// roots of its certificate.
func guarded(t testing.TB, k *kubernetes) (*Server, string, *x509.CertPool) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cert := certificate(t)
	server, err := NewServer(ServerOptions{Provider: NewProvider(filled(), mapper(), clock.RealClock{}, nil), Custom: true, External: true,
		Certificate: cert, Listener: listener, Version: "v0", Kubeconfig: k.kubeconfig})
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
	roots := x509.NewCertPool()
	ca, _ := cert.CurrentCertKeyContent()
	roots.AppendCertsFromPEM(ca)
	url := "https://" + listener.Addr().String()
	// The server asks for clients' certificates soon after it has begun to serve.
	proxy := k.proxies.client(t, "front-proxy-client")
	if err := wait.PollUntilContextTimeout(t.Context(), 10*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
		transport := &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12,
			Certificates: []tls.Certificate{{Certificate: [][]byte{proxy.cert.Raw}, PrivateKey: proxy.key}}}}
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, url+podsRead, nil)
		if err != nil {
			return false, err
		}
		r.Header.Set("X-Remote-User", "reader")
		response, err := transport.RoundTrip(r)
		if err != nil {
			return false, err
		}
		return response.StatusCode == http.StatusOK, response.Body.Close()
	}); err != nil {
		t.Fatal(err)
	}
	return server, url, roots
}

const (
	externalRead = "/apis/external.metrics.k8s.io/v1beta1/namespaces/shop/queue?labelSelector=queue%3Da%2Ctype%3Dsqs"
	podsRead     = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/shop/pods/*/rps?labelSelector=app%3Dweb"
)

// A whole read: who is calling, whether he may, and the answer. "handler" is without the network and a client, "HTTPS" with
// both. On a machine that is busy with something else, cpu-ns/op is what can be compared.
func BenchmarkRead(b *testing.B) {
	k := newKubernetes(b)
	server, url, roots := guarded(b, k)
	proxy := k.proxies.client(b, "front-proxy-client")
	ways := map[string]func(*http.Request){
		"direct": func(r *http.Request) { r.Header["Authorization"] = []string{"Bearer reader"} },
		"aggregator": func(r *http.Request) {
			r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{proxy.cert}}
			r.Header["X-Remote-User"], r.Header["X-Remote-Group"] = []string{"reader"}, []string{"system:serviceaccounts", "system:authenticated"}
		},
	}
	for _, way := range []string{"direct", "aggregator"} {
		client := &http.Client{Transport: &http2.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}}
		if way == "aggregator" {
			client.Transport.(*http2.Transport).TLSClientConfig.Certificates = []tls.Certificate{{Certificate: [][]byte{proxy.cert.Raw}, PrivateKey: proxy.key}}
		}
		for _, kind := range []struct{ name, path string }{{"external", externalRead}, {"pods", podsRead}} {
			for _, accept := range []string{asJSON, asProtobuf} {
				base := httptest.NewRequest(http.MethodGet, kind.path, nil)
				base.Header["Accept"] = []string{accept}
				ways[way](base)
				request := func() *http.Request { // authentication takes headers away
					r := *base
					r.Header = maps.Clone(base.Header)
					return &r
				}
				name := way + "/" + kind.name + "/" + strings.TrimPrefix(accept, "application/vnd.kubernetes.")
				b.Run("handler/"+name, func(b *testing.B) {
					b.ReportAllocs()
					defer reportCPU(b)()
					for b.Loop() {
						w := answerWriter{header: http.Header{}}
						server.server.Handler.ServeHTTP(&w, request())
						if w.code != 200 {
							b.Fatalf("status %d: %s", w.code, w.body.String())
						}
					}
				})
				b.Run("HTTPS/"+name, func(b *testing.B) {
					b.ReportAllocs()
					defer reportCPU(b)()
					for b.Loop() {
						r := request()
						out, err := http.NewRequest(http.MethodGet, url+kind.path, nil)
						if err != nil {
							b.Fatal(err)
						}
						out.Header = r.Header
						response, err := client.Do(out)
						if err != nil {
							b.Fatal(err)
						}
						if _, err := io.Copy(io.Discard, response.Body); err != nil || response.StatusCode != http.StatusOK {
							b.Fatalf("status %d, %v", response.StatusCode, err)
						}
						_ = response.Body.Close()
					}
				})
			}
		}
		client.CloseIdleConnections()
	}
}

// reportCPU adds the process's processor time.
func reportCPU(b *testing.B) (end func()) {
	used := func() int64 {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Error(err)
		}
		return u.Utime.Nano() + u.Stime.Nano()
	}
	before := used()
	return func() { b.ReportMetric(float64(used()-before)/float64(b.N), "cpu-ns/op") }
}

// twins returns two handlers over the same values: Kubetide's, and the library's with its own chain. heard counts what
// Kubetide's leaves to the library.
func twins(t testing.TB) (ours, library http.Handler, heard *atomic.Int64) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	values := filled()
	put := func(q sample.Query, points ...sample.Point) {
		q.Namespace, q.Interval = "shop", time.Hour
		values.Add(q, true)
		values.Insert(sample.Result{Query: q, Taken: taken, Points: points})
	}
	put(sample.Query{Kind: sample.External, Metric: `<&>"\\é`, Selector: "a=b"}, sample.Point{Milli: -1})
	put(sample.Query{Kind: sample.External, Metric: "sets", Selector: "a in (b,c),d"}, sample.Point{Milli: 1e15, Window: time.Second})
	put(sample.Query{Kind: sample.Object, Metric: "sets", Selector: "a in (b,c),d!=e,f", Object: sample.ObjectRef{Kind: "Service", Name: "web"}}, sample.Point{Milli: 123456789, Window: time.Hour})
	var many []sample.Point
	for i := range 1000 {
		many = append(many, sample.Point{Pod: fmt.Sprintf("pod-%d", i), UID: types.UID(fmt.Sprint(i)), Labels: labels.Set{"many": "yes"}, Milli: int64(i)})
	}
	put(sample.Query{Kind: sample.Pods, Metric: "many", Target: sample.ObjectRef{Group: "apps", Kind: "Deployment", Name: "many"}}, many...)
	o := ServerOptions{Provider: NewProvider(values, mapper(), clock.RealClock{}, nil), Custom: true, External: true, Certificate: certificate(t), Listener: listener, Version: "v0"}
	config, err := o.config()
	if err != nil {
		t.Fatal(err)
	}
	server, err := o.build(config)
	if err != nil {
		t.Fatal(err)
	}
	server.server.PrepareRun()
	heard = &atomic.Int64{}
	director := server.server.Handler.Director
	counted := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		heard.Add(1)
		director.ServeHTTP(w, r)
	})
	return o.Provider.chain(counted, &config.Config, true, true), genericapiserver.DefaultBuildHandlerChain(director, &config.Config), heard
}

// same compares the answers to a request.
func same(t *testing.T, ours, library http.Handler, request func() *http.Request) {
	t.Helper()
	answer := func(h http.Handler) (int, http.Header, string) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, request())
		w.Header().Del("Audit-Id") // one for each request; Kubetide audits nothing
		return w.Code, w.Header(), w.Body.String()
	}
	code, header, body := answer(ours)
	wantCode, wantHeader, wantBody := answer(library)
	r := request()
	if code != wantCode || body != wantBody {
		t.Errorf("%s %q: status %d, %q; the library's %d, %q", r.Method, r.URL, code, body, wantCode, wantBody)
	}
	if diff := cmp.Diff(wantHeader, header); diff != "" {
		t.Errorf("%s %q %q: headers (-library +ours):\n%s", r.Method, r.URL, r.Header, diff)
	}
}

// Both are compared for each path, version, format and client.
func TestAnswersAreTheLibrarysByteForByte(t *testing.T) {
	ours, library, heard := twins(t)
	const v1, v2, external = "/apis/custom.metrics.k8s.io/v1beta1/namespaces/", "/apis/custom.metrics.k8s.io/v1beta2/namespaces/", "/apis/external.metrics.k8s.io/v1beta1/namespaces/"
	read, other := []string{}, []string{"/version", "/apis", "/apis/", "/apis/external.metrics.k8s.io", "/apis/external.metrics.k8s.io/v1beta1", "/openapi/v2", "/nonsense", "/apis/external.metrics.k8s.io/v1/namespaces/shop/queue",
		"/apis/custom.metrics.k8s.io/v1beta2/nodes/node-1/load", "/apis/custom.metrics.k8s.io/v1beta2/pods/*/rps"}
	for _, custom := range []string{v1, v2} {
		for _, path := range []string{"shop/pods/*/rps", "shop/pods/%2A/rps", "shop/pods/*/rps?labelSelector=app%3Dweb", "shop/pods/*/rps?labelSelector=n+in+(1,2)", "shop/pods/*/rps?labelSelector=app=web,n!=1", "shop/pods/*/rps?labelSelector=n%3D2&metricLabelSelector=a%3Db",
			"shop/pods/web-2/rps", "shop/pod/web-2/rps", "shop/pods/web-1/temperature", "shop/pods/web-9/rps", "bank/pods/*/rps", "shop/nodes/node-1/load", "shop/nodes/*/load", "shop/nodes/*/load?labelSelector=a%3Db", "shop/ingresses.networking.k8s.io/web/rps",
			"shop/ingresses.networking.k8s.io/web/rps?metricLabelSelector=backend%3Dblue", "shop/ingresses.networking.k8s.io/web/rps?metricLabelSelector=backend%21%3Dblue", "shop/gizmos/web/rps", "shop/services/web/sets", "shop/services/*/sets?metricLabelSelector=a%20in%20(b,c),d!=e,f", "shop/services/web/hits",
			"shop/pods/*/many?labelSelector=many%3Dyes"} {
			read = append(read, custom+path)
		}
		for _, path := range []string{"shop", "shop/", "shop/pods", "shop/pods/*", "shop/pods/*/rps/", "shop/pods/*/rps/more", "shop//pods/*/rps", "shop/pods//rps", "shop/metrics/load", "shop/metrics/load/more", "bank/metrics/load", "shop/pods/*/rps?pretty=true", "shop/pods/*/rps?timeout=1s",
			"shop/pods/*/rps?fieldSelector=metadata.name%3Dweb-1", "shop/pods/*/rps?labelSelector=a&labelSelector=b", "shop/pods/*/rps?labelSelector", "shop/pods/*/rps?labelSelector=%zz", "shop/pods/*/rps?labelSelector=a;b", "shop/pods/*/rps?watch=true", "shop/status/x/y", "shop/finalize/x/y"} {
			other = append(other, custom+path)
		}
	}
	for _, path := range []string{"shop/queue", "shop/queue?labelSelector=queue%3Da%2Ctype%3Dsqs", "shop/queue?labelSelector=queue=a,type=sqs", "shop/queue?labelSelector=type%3Dsqs", "shop/queue?labelSelector=queue+in+(a,b)", "shop/queue?labelSelector=queue%3Dc", "shop/idle", "shop/waiting", "shop/nonexistent", "bank/queue", "shop/sets?labelSelector=a%20in%20(b,c),d", "shop/metrics", "shop/" + url.PathEscape(`<&>"\\é`)} {
		read = append(read, external+path)
	}
	for _, path := range []string{"shop", "shop/queue/a", "shop/queue/", "shop/status", "shop/finalize", "shop/queue?labelSelector=", "shop/queue?limit=1", "shop/queue?limit=x", "shop/queue?metricLabelSelector=a", "shop/queue?watch=true", "shop/queue?x"} {
		other = append(other, external+path)
	}
	mistakes := []string{external + "shop/queue?timeout=never", external + "shop/queue?labelSelector=%3D%3D", v2 + "shop/pods/*/rps?labelSelector=%3D", v2 + "shop/pods/*/rps?metricLabelSelector=%3D"}
	agents := []string{"kube-controller-manager/v1.37", "curl/8"}
	for _, path := range slices.Concat(read, other, mistakes) {
		for _, accept := range []string{"", "*/*", asJSON, asJSON + ", */*", asProtobuf, asProtobuf + ", */*", asProtobuf + "," + asJSON, asJSON + ";pretty=1", asJSON + ";as=Table;v=v1;g=meta.k8s.io," + asJSON, "application/yaml", "application/xml"} {
			for _, agent := range agents {
				before := heard.Load()
				request := func() *http.Request {
					r := httptest.NewRequest(http.MethodGet, path, nil)
					r.Header.Set("User-Agent", agent)
					if accept != "" {
						r.Header.Set("Accept", accept)
					}
					r.Header.Set("Accept-Encoding", "gzip")
					return r
				}
				same(t, ours, library, request)
				_, plain := accepts[accept]
				if want := plain && agent == agents[0] && slices.Contains(read, path); !slices.Contains(mistakes, path) && (heard.Load() == before) != want {
					t.Errorf("%s as %q for %s: answered without the library's handlers: %t, want %t", path, accept, agent, !want, want)
				}
			}
		}
		for _, method := range []string{http.MethodHead, http.MethodPost, http.MethodDelete, http.MethodOptions} {
			same(t, ours, library, func() *http.Request { return httptest.NewRequest(method, path, nil) })
		}
	}
}

func FuzzAnswersAreTheLibrarys(f *testing.F) {
	ours, library, _ := twins(f)
	resolver := &request.RequestInfoFactory{APIPrefixes: sets.NewString("apis", "api"), GrouplessAPIPrefixes: sets.NewString("api")}
	for _, path := range []string{externalRead, podsRead, "/apis/custom.metrics.k8s.io/v1beta1/namespaces/shop/services/*/sets?metricLabelSelector=a%20in%20(b,c)&labelSelector=in=b"} {
		f.Add(path, asJSON)
		f.Add(path, asProtobuf)
	}
	f.Fuzz(func(t *testing.T, path, accept string) {
		u, err := url.ParseRequestURI(path)
		if err != nil || !strings.HasPrefix(path, "/") || strings.HasPrefix(path, "//") {
			return
		}
		request := func() *http.Request {
			copied := *u
			return (&http.Request{Method: http.MethodGet, URL: &copied, RequestURI: path, Header: http.Header{"Accept": {accept}}}).WithContext(t.Context())
		}
		same(t, ours, library, request)
		if read := parseRead(request()); read != nil {
			want, err := resolver.NewRequestInfo(request())
			if err != nil {
				t.Fatal(err)
			}
			got := read.info
			if !read.custom {
				got.LabelSelector = read.labels
			}
			if diff := cmp.Diff(want, &got); diff != "" {
				t.Errorf("what %q asks for (-library +ours):\n%s", path, diff)
			}
		}
	})
}

func FuzzSelectorsAreTheLibrarys(f *testing.F) {
	for _, text := range []string{"a=b", "b=c,a=b", "a=b,", "a=b,a=c", "a", "in=b", "notin=in", "a in (b)", "a==b", "a=b=c", "a.b-c_d=e", "-a=b", "a=", "x/y=z"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := parseSelector(text)
		want, wantErr := labels.Parse(text)
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("%q: %v, the library says %v", text, err, wantErr)
		}
		if err == nil && !reflect.DeepEqual(requirements(got), requirements(want)) {
			t.Errorf("%q: %v, the library says %v", text, got, want)
		}
	})
}

func requirements(s labels.Selector) []string {
	var out []string
	all, selectable := s.Requirements()
	for i := range all {
		out = append(out, fmt.Sprintf("%q %q %q", all[i].Key(), all[i].Operator(), all[i].ValuesUnsorted()))
	}
	return append(out, fmt.Sprint(selectable, s.Empty()))
}

func TestJSONIsTheLibrarys(t *testing.T) {
	info, _ := runtime.SerializerInfoForMediaType(apiserver.Codecs.SupportedMediaTypes(), asJSON)
	text := rapid.OneOf(rapid.String(), rapid.StringMatching(`[a-z0-9.-]{0,20}`))
	times := rapid.Custom(func(t *rapid.T) metav1.Time {
		if rapid.Bool().Draw(t, "zero") {
			return metav1.Time{}
		}
		return metav1.NewTime(time.Unix(rapid.Int64Range(0, 1<<35).Draw(t, "seconds"), 1))
	})
	selectors := rapid.Custom(func(t *rapid.T) *metav1.LabelSelector {
		return &metav1.LabelSelector{MatchLabels: rapid.MapOfN(text, text, 0, 2).Draw(t, "matchLabels")}
	})
	quantity := func(t *rapid.T) resource.Quantity {
		return *resource.NewMilliQuantity(rapid.Int64().Draw(t, "milli"), resource.DecimalSI)
	}
	equal := func(t *rapid.T, list runtime.Object, gv schema.GroupVersion) {
		var want bytes.Buffer
		if err := apiserver.Codecs.EncoderForVersion(info.Serializer, gv).Encode(list, &want); err != nil {
			t.Fatal(err)
		}
		got, err := appendJSON(nil, list, gv)
		if err != nil || string(got) != want.String() {
			t.Errorf("%v\n%s\nthe library's:\n%s", err, got, want.String())
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		external := &external_metrics.ExternalMetricValueList{Items: []external_metrics.ExternalMetricValue{}}
		custom := &custom_metrics.MetricValueList{Items: []custom_metrics.MetricValue{}}
		for range rapid.IntRange(0, 3).Draw(t, "items") {
			window := rapid.Ptr(rapid.Int64(), true).Draw(t, "window")
			at, value := times.Draw(t, "timestamp"), quantity(t)
			item := external_metrics.ExternalMetricValue{MetricName: text.Draw(t, "name"), Timestamp: at, WindowSeconds: window, Value: value}
			if rapid.Bool().Draw(t, "labels") {
				item.MetricLabels = rapid.MapOfN(text, text, 0, 10).Draw(t, "metricLabels")
			}
			external.Items = append(external.Items, item)
			custom.Items = append(custom.Items, custom_metrics.MetricValue{
				DescribedObject: custom_metrics.ObjectReference{Kind: text.Draw(t, "kind"), Namespace: text.Draw(t, "namespace"), Name: text.Draw(t, "object"), APIVersion: text.Draw(t, "apiVersion")},
				Metric:          custom_metrics.MetricIdentifier{Name: item.MetricName, Selector: rapid.OneOf(rapid.Just[*metav1.LabelSelector](nil), selectors).Draw(t, "selector")},
				Timestamp:       at, WindowSeconds: window, Value: value,
			})
		}
		equal(t, external, schema.GroupVersion{Group: external_metrics.GroupName, Version: "v1beta1"})
		equal(t, custom, schema.GroupVersion{Group: custom_metrics.GroupName, Version: "v1beta1"})
		equal(t, custom, schema.GroupVersion{Group: custom_metrics.GroupName, Version: "v1beta2"})
	})
}

// Whatever the way of a read, its caller is asked about. Nothing is answered to one who is nobody or may not.
func TestNoWayAroundAuthentication(t *testing.T) {
	k := newKubernetes(t)
	_, base, roots := guarded(t, k)
	stranger := newAuthority(t, "front-proxy-ca")
	bearer := func(token string) http.Header { return http.Header{"Authorization": {"Bearer " + token}} }
	remote := func(name string) http.Header {
		return http.Header{"X-Remote-User": {name}, "X-Remote-Group": {"system:masters"}}
	}
	tests := map[string]struct {
		header      http.Header
		certificate *authority
		code        int
	}{
		"nobody":                      {nil, nil, 403},
		"a made-up token":             {bearer("nonsense"), nil, 401},
		"who may not":                 {bearer("stranger"), nil, 403},
		"who may":                     {bearer("reader"), nil, 200},
		"who may, as one who may":     {http.Header{"Authorization": {"Bearer reader"}, "Impersonate-User": {"reader"}}, nil, 200},
		"who may, as one who may not": {http.Header{"Authorization": {"Bearer reader"}, "Impersonate-User": {"stranger"}}, nil, 403},
		"who may not, as one who may": {http.Header{"Authorization": {"Bearer stranger"}, "Impersonate-User": {"reader"}}, nil, 403},
		"a proxy's headers without its certificate": {remote("reader"), nil, 403},
		"a proxy's headers with another CA's":       {remote("reader"), ptr.To(stranger.client(t, "front-proxy-client")), 401},
		"a proxy's headers with another name":       {remote("reader"), ptr.To(k.proxies.client(t, "somebody")), 401},
		"a proxy for one who may":                   {remote("reader"), ptr.To(k.proxies.client(t, "front-proxy-client")), 200},
		"a proxy for one who may not":               {http.Header{"X-Remote-User": {"stranger"}}, ptr.To(k.proxies.client(t, "front-proxy-client")), 403},
		"a proxy for nobody":                        {nil, ptr.To(k.proxies.client(t, "front-proxy-client")), 401},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			config := &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
			if c := tt.certificate; c != nil {
				config.Certificates = []tls.Certificate{{Certificate: [][]byte{c.cert.Raw}, PrivateKey: c.key}}
			}
			transport := &http2.Transport{TLSClientConfig: config}
			defer transport.CloseIdleConnections()
			for _, path := range []string{externalRead, podsRead, externalRead + "&limit=5", podsRead + "&pretty=1", "/apis/external.metrics.k8s.io/v1beta1"} {
				for range 2 { // the second time from what is remembered
					r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+path, nil)
					if err != nil {
						t.Fatal(err)
					}
					r.Header = tt.header.Clone()
					if r.Header == nil {
						r.Header = http.Header{}
					}
					response, err := transport.RoundTrip(r)
					if err != nil {
						t.Fatal(err)
					}
					body, err := io.ReadAll(response.Body)
					_ = response.Body.Close()
					if response.StatusCode != tt.code || err != nil {
						t.Errorf("%s: status %d, want %d, %v: %.200s", path, response.StatusCode, tt.code, err, body)
					}
				}
			}
		})
	}
}

// answerWriter is a ResponseWriter that costs little.
type answerWriter struct {
	header http.Header
	code   int
	body   bytes.Buffer
}

func (w *answerWriter) Header() http.Header         { return w.header }
func (w *answerWriter) WriteHeader(code int)        { w.code = code }
func (w *answerWriter) Write(p []byte) (int, error) { return w.body.Write(p) }
func (w *answerWriter) String() string              { return fmt.Sprint(w.code, w.header, w.body.String()) }

// A client that asks for much and reads nothing must not keep its place for ever.
func TestAClientThatDoesNotReadIsLeft(t *testing.T) {
	for name, both := range map[string]bool{"HTTP/1": false, "HTTP/2": true} {
		t.Run(name, func(t *testing.T) {
			left := make(chan struct{})
			handler := withWriteDeadline(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				defer close(left)
				for {
					if _, err := w.Write(make([]byte, 1<<20)); err != nil {
						return
					}
				}
			}), 100*time.Millisecond, func(*http.Request, *request.RequestInfo) bool { return false })
			resolver := &request.RequestInfoFactory{}
			web := httptest.NewUnstartedServer(withRequestInfo(handler, resolver, true, true))
			web.EnableHTTP2 = both
			web.StartTLS()
			defer web.Close()
			response, err := web.Client().Get(web.URL)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = response.Body.Close() }()
			select {
			case <-left:
			case <-time.After(time.Minute):
				t.Error("the handler still writes")
			}
		})
	}
}

// deadlineWriter remembers whether writing has an end.
type deadlineWriter struct {
	answerWriter
	ends bool
}

func (w *deadlineWriter) SetWriteDeadline(at time.Time) error {
	w.ends = !at.IsZero()
	return nil
}

func TestWhatMayHaveToWaitForItsClientHasADeadline(t *testing.T) {
	ours, _, _ := twins(t)
	const custom = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/shop/"
	for name, tt := range map[string]struct {
		path string
		ends bool
	}{
		"a small answer is sent as a whole": {podsRead, false},
		"a large answer":                    {custom + "pods/*/many", true},
		"what the library answers":          {podsRead + "&pretty=1", true},
	} {
		t.Run(name, func(t *testing.T) {
			w := &deadlineWriter{answerWriter: answerWriter{header: http.Header{}}}
			ours.ServeHTTP(w, httptest.NewRequest(http.MethodGet, tt.path, nil))
			if w.code != 200 || w.ends != tt.ends {
				t.Errorf("status %d, a deadline: %t, want %t", w.code, w.ends, tt.ends)
			}
		})
	}
}
