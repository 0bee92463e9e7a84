package prometheus

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/kubetide/kubetide/collectors"
	"github.com/kubetide/kubetide/internal/outbound"
	"github.com/kubetide/kubetide/internal/sample"
)

var now = time.Date(2026, 11, 22, 12, 0, 0, 123_456_789, time.UTC)

// stub is a Prometheus that answers all queries in one way and remembers the last one.
type stub struct {
	*httptest.Server
	mu     sync.Mutex
	answer http.HandlerFunc
	last   *http.Request
	count  int
}

func newStub(t *testing.T, answer http.HandlerFunc) *stub {
	s := &stub{answer: answer}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *stub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_ = r.ParseForm()
	s.mu.Lock()
	s.last, s.count = r, s.count+1
	answer := s.answer
	s.mu.Unlock()
	answer(w, r)
}

func (s *stub) request() *http.Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

func (s *stub) asked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count
}

func text(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}
}

// result answers with a result of the type; AT in it stands for the time of the query.
func result(kind, value string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		value := strings.ReplaceAll(value, "AT", r.Form.Get("time"))
		_, _ = fmt.Fprintf(w, `{"status":"success","data":{"resultType":%q,"result":%s}}`, kind, value)
	}
}

func anywhere(netip.AddrPort) error { return nil }

// secrets are those of the tests, by namespace/name.
type secrets map[string]collectors.Secret

func (s secrets) Secret(_ context.Context, namespace, name string) (collectors.Secret, error) {
	if secret, ok := s[namespace+"/"+name]; ok {
		return secret, nil
	}
	return collectors.Secret{}, fmt.Errorf("there is no Secret %s/%s", namespace, name)
}

// bench is a source whose default server is the URL.
type bench struct {
	*Source
	clock   *clocktesting.FakePassiveClock
	secrets secrets
}

func newBench(t *testing.T, label string, servers ...Server) *bench {
	t.Helper()
	b := &bench{clock: clocktesting.NewFakePassiveClock(now), secrets: secrets{}}
	operator := outbound.New(outbound.Options{Policy: anywhere})
	tenant := outbound.New(outbound.Options{Policy: anywhere})
	t.Cleanup(operator.Close)
	t.Cleanup(tenant.Close)
	known, err := NewServers(servers, operator, b.clock)
	if err != nil {
		t.Fatal(err)
	}
	if b.Source, err = New(Config{Servers: known, Tenant: tenant, Secrets: b.secrets, NamespaceLabel: label, Clock: b.clock}); err != nil {
		t.Fatal(err)
	}
	return b
}

func request(settings sample.Settings) collectors.Request {
	return collectors.Request{Kind: sample.External, Namespace: "shop", Metric: "orders", Settings: settings, Interval: time.Minute}
}

// collect parses, opens and collects.
func (b *bench) collect(ctx context.Context, settings sample.Settings) ([]sample.Point, error) {
	q, err := b.Parse(request(settings))
	if err != nil {
		return nil, err
	}
	c, err := b.Open(q)
	if err != nil {
		return nil, err
	}
	return c.Collect(ctx)
}

func wantError(t *testing.T, err error, want string) {
	t.Helper()
	if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
		t.Errorf("error %v, want %q", err, want)
	}
}

func TestSettings(t *testing.T) {
	servers := []Server{{URL: "http://default:9090"}, {Name: "mail", URL: "https://mail:9090"}, {Name: "logs", URL: "http://logs"}}
	tests := map[string]struct {
		settings sample.Settings
		label    string
		servers  []Server
		want     sample.Settings
		key, err string
	}{
		"a query":                                {settings: sample.Settings{"query": " sum(up)\n", "type": "prometheus"}, want: sample.Settings{"query": "sum(up)"}},
		"a query by its name":                    {settings: sample.Settings{"query-name": "rps", "rps": "sum(up)"}, want: sample.Settings{"query": "sum(up)"}},
		"of both, the query":                     {settings: sample.Settings{"query-name": "rps", "rps": "sum(up)", "query": "up"}, want: sample.Settings{"query": "up"}},
		"a named server":                         {settings: sample.Settings{"query": "up", "prometheus-server-alias": "mail"}, want: sample.Settings{"query": "up", "prometheus-server-alias": "mail"}},
		"any server":                             {settings: sample.Settings{"query": "up", "prometheus-server": " http://10.1.2.3:9090/prom?dedup=true#x"}, want: sample.Settings{"query": "up", "prometheus-server": "http://10.1.2.3:9090/prom?dedup=true"}},
		"any server, though there is no default": {settings: sample.Settings{"query": "up", "prometheus-server": "http://x"}, servers: []Server{}, want: sample.Settings{"query": "up", "prometheus-server": "http://x"}},
		"a Secret":                               {settings: sample.Settings{"query": "up", "secret": "prom"}, want: sample.Settings{"query": "up", "secret": "prom"}},
		"a confined query":                       {settings: sample.Settings{"query": "sum(up)"}, label: "ns", want: sample.Settings{"query": `sum(up{ns="shop"})`}},
		"a confined query to any server":         {settings: sample.Settings{"query": "up", "prometheus-server": "http://x"}, label: "ns", want: sample.Settings{"query": `up{ns="shop"}`, "prometheus-server": "http://x"}},
		"no query":                               {settings: sample.Settings{}, key: "query", err: "is missing"},
		"a name of no query":                     {settings: sample.Settings{"query-name": "rps"}, key: "rps", err: "is missing, and query-name says that it holds the query"},
		"a query with a mistake":                 {settings: sample.Settings{"query": "sum(up"}, key: "query", err: "the query is no PromQL: 1:7: parse error: unclosed left parenthesis"},
		"a named query with a mistake":           {settings: sample.Settings{"query-name": "rps", "rps": "up["}, key: "rps", err: "the query is no PromQL: 1:4"},
		"a query for a range":                    {settings: sample.Settings{"query": "up[5m]"}, key: "query", err: "the query gives a range of values"},
		"a query for a text":                     {settings: sample.Settings{"query": `"a"`}, key: "query", err: "the query gives a string"},
		"a query of another namespace":           {settings: sample.Settings{"query": `up{ns="mail"}`}, label: "ns", key: "query", err: `the query selects ns="mail", but it may read its own namespace "shop" only`},
		"an unknown server":                      {settings: sample.Settings{"query": "up", "prometheus-server-alias": "x"}, key: "prometheus-server-alias", err: `there is no Prometheus named "x" (--additional-prometheus-server); known: logs, mail`},
		"an unknown server of none":              {settings: sample.Settings{"query": "up", "prometheus-server-alias": "x"}, servers: []Server{}, key: "prometheus-server-alias", err: `there are none`},
		"no default server":                      {settings: sample.Settings{"query": "up"}, servers: servers[1:], key: "prometheus-server-alias", err: "there is no default Prometheus (--prometheus-server); name one by prometheus-server-alias (known: logs, mail) or prometheus-server"},
		"two servers":                            {settings: sample.Settings{"query": "up", "prometheus-server-alias": "mail", "prometheus-server": "http://x"}, key: "prometheus-server", err: "cannot be used together with prometheus-server-alias"},
		"no URL":                                 {settings: sample.Settings{"query": "up", "prometheus-server": "x:9090"}, key: "prometheus-server", err: "it is no URL such as"},
		"no web URL":                             {settings: sample.Settings{"query": "up", "prometheus-server": "file://x/etc"}, key: "prometheus-server", err: `the scheme "file" is refused`},
		"a password in the URL":                  {settings: sample.Settings{"query": "up", "prometheus-server": "http://u:hush@x"}, key: "prometheus-server", err: "a user name or password in a URL is refused"},
		"a query in the URL":                     {settings: sample.Settings{"query": "up", "prometheus-server": "http://x?query=secret_total"}, label: "ns", key: "prometheus-server", err: `the URL must not set "query"`},
		"no name of a Secret":                    {settings: sample.Settings{"query": "up", "secret": "../mail/prom"}, key: "secret", err: "is not the name of a Secret"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if tt.servers == nil {
				tt.servers = servers
			}
			b := newBench(t, tt.label, tt.servers...)
			q, err := b.Parse(request(tt.settings))
			wantError(t, err, tt.err)
			if err != nil {
				var bad *collectors.KeyError
				if !errors.As(err, &bad) || bad.Key != tt.key {
					t.Errorf("%v is not about the key %s", err, tt.key)
				}
				if strings.Contains(err.Error(), "hush") || strings.Contains(err.Error(), "secret_total") {
					t.Errorf("%v tells a secret", err)
				}
				return
			}
			if q.Collector != Name || q.Namespace != "shop" {
				t.Errorf("query %+v", q)
			}
			got, err := sample.DecodeSettings(q.Settings)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if _, err := b.Open(q); err != nil {
				t.Errorf("it cannot be opened: %v", err)
			}
		})
	}
	b := newBench(t, "")
	if diff := cmp.Diff([]string{"rps"}, b.FreeKeys(sample.Settings{"query-name": "rps"})); diff != "" {
		t.Error(diff)
	}
	if keys := b.FreeKeys(sample.Settings{"rps": "up"}); keys != nil {
		t.Errorf("keys %v without a name", keys)
	}
	pods := request(sample.Settings{"query": "up"})
	pods.Kind = sample.Pods
	_, err := b.Parse(pods)
	wantError(t, err, "serves External and Object metrics, not Pods")
}

// warned answers with a scalar and warnings.
func warned(scalar string, warnings ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintf(w, `{"status":"success","warnings":["%s"],"infos":["x"],"data":{"resultType":"scalar","result":`+scalar+`}}`, strings.Join(warnings, `","`), r.Form.Get("time"))
	}
}

func TestResults(t *testing.T) {
	tests := map[string]struct {
		answer  http.HandlerFunc
		milli   int64
		age     time.Duration
		warning string
		err     string
		noData  bool
	}{
		"a vector of one series":           {answer: result("vector", `[{"metric":{"a":"b"},"value":[AT,"12.3456"]}]`), milli: 12345},
		"a scalar":                         {answer: result("scalar", `[AT,"7"]`), milli: 7000},
		"a negative value":                 {answer: result("scalar", `[AT,"-1.5"]`), milli: -1500},
		"zero is a value":                  {answer: result("vector", `[{"metric":{},"value":[AT,"0"]}]`), milli: 0},
		"a value that is older":            {answer: result("vector", `[{"metric":{},"value":[1795348770.123,"1"]}]`), milli: 1000, age: 30 * time.Second},
		"a value from the future":          {answer: result("vector", `[{"metric":{},"value":[1795348900,"1"]}]`), milli: 1000},
		"a warning about the query":        {answer: warned(`[%s,"7"]`, "PromQL warning: quantile value should be between 0 and 1, got 3 (1:9)"), milli: 7000, warning: "the server warns: PromQL warning: quantile value should be between 0 and 1, got 3 (1:9)"},
		"an information about the query":   {answer: warned(`[%s,"7"]`, "PromQL info: metric might not be a counter"), milli: 7000},
		"a part of the data is missing":    {answer: warned(`[%s,"7"]`, "PromQL warning: x", "fetch series of store-1: deadline exceeded"), err: "the result is not complete: fetch series of store-1: deadline exceeded"},
		"what is missing leaves no number": {answer: warned(`[%s,"NaN"]`, "remote read: status 503"), err: "the result is not complete: remote read: status 503"},
		"of several series the one whose labels sort first, whatever their order": {
			answer:  result("vector", `[{"metric":{"pod":"c"},"value":[AT,"3"]},{"metric":{"pod":"a","b":"c"},"value":[AT,"1"]},{"metric":{"pod":"b"},"value":[AT,"2"]}]`),
			milli:   1000,
			warning: `the query gives 3 series, and the value of the one whose labels sort first is served, that of {b="c", pod="a"}; make it one, with sum() or max() for example`},
		"an empty vector":       {answer: result("vector", `[]`), err: "query 'sum(up)' did not result a valid response: the result is empty", noData: true},
		"NaN":                   {answer: result("vector", `[{"metric":{},"value":[AT,"NaN"]}]`), err: "query 'sum(up)' did not result a valid response: its value is NaN", noData: true},
		"a scalar that is NaN":  {answer: result("scalar", `[AT,"NaN"]`), err: "its value is NaN", noData: true},
		"infinity":              {answer: result("vector", `[{"metric":{},"value":[AT,"+Inf"]}]`), err: "its value is +Inf", noData: true},
		"minus infinity":        {answer: result("scalar", `[AT,"-Inf"]`), err: "its value is -Inf", noData: true},
		"more than can be told": {answer: result("scalar", `[AT,"1e17"]`), err: "its value is 1e+17, and a finite number between -9.2e15 and 9.2e15 is needed", noData: true},
		"the first of several is NaN": {answer: result("vector", `[{"metric":{"pod":"b"},"value":[AT,"2"]},{"metric":{"pod":"a"},"value":[AT,"NaN"]}]`),
			err: "its value is NaN", noData: true},
		"a matrix":         {answer: result("matrix", `[{"metric":{},"values":[[AT,"1"]]}]`), err: "the result is a matrix, not a number"},
		"a string":         {answer: result("string", `[AT,"x"]`), err: "the answer is not that of a Prometheus API"},
		"a histogram":      {answer: result("vector", `[{"metric":{},"histogram":[AT,{"count":"1","sum":"2","buckets":[]}]}]`), err: "the result is a native histogram, not a number"},
		"no value":         {answer: result("vector", `[{"metric":{}}]`), err: "the answer has no value"},
		"no series at all": {answer: result("vector", `[null]`), err: "the answer has no value"},
		"a value of text":  {answer: result("vector", `[{"metric":{},"value":[AT,"five"]}]`), err: "the answer is not that of a Prometheus API"},
		"an empty scalar":  {answer: result("scalar", `[]`), err: "the answer is not that of a Prometheus API"},
		"a null scalar":    {answer: result("scalar", `null`), err: "the answer is not that of a Prometheus API"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := newStub(t, tt.answer)
			b := newBench(t, "", Server{URL: s.URL})
			for _, kind := range []sample.Kind{sample.External, sample.Object} {
				r := request(sample.Settings{"query": "sum(up)"})
				r.Kind, r.Object = kind, sample.ObjectRef{Group: "example.org", Kind: "Shop", Name: "s"}
				q, err := b.Parse(r)
				if err != nil {
					t.Fatal(err)
				}
				c, err := b.Open(q)
				if err != nil {
					t.Fatal(err)
				}
				points, err := c.Collect(t.Context())
				if tt.err != "" {
					wantError(t, err, tt.err)
					if len(points) > 0 || errors.Is(err, sample.ErrNoData) != tt.noData || collectors.IsWarning(err) {
						t.Errorf("%v, %v; no data: %v", points, err, tt.noData)
					}
					continue
				}
				wantError(t, err, tt.warning)
				if (tt.warning != "") != collectors.IsWarning(err) {
					t.Errorf("%v is a warning: %v", err, collectors.IsWarning(err))
				}
				if diff := cmp.Diff([]sample.Point{{Milli: tt.milli, Age: tt.age}}, points); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			}
		})
	}
}

// The warning is told once, however many series there are and whatever they are called.
func TestTheOutlineOfTheWarningDoesNotChange(t *testing.T) {
	a, b := &severalError{2, `{pod="a"}`}, &severalError{3, `{pod="b"}`}
	outlined := collectors.Outlined(nil)
	if !errors.As(&collectors.Warning{Err: a}, &outlined) || outlined.Outline() != b.Outline() {
		t.Errorf("%v and %v differ", a.Outline(), b.Outline())
	}
}

func TestFaultsOfServers(t *testing.T) {
	const private = "the-tenant-must-not-read-this"
	long := strings.Repeat("x", 2000)
	tests := map[string]struct {
		answer http.HandlerFunc
		err    string
		kind   string
	}{
		"an error in the query":      {text(400, `{"status":"error","errorType":"bad_data","error":"invalid parameter"}`), "bad_data: invalid parameter", "other"},
		"an error while it runs":     {text(422, `{"status":"error","errorType":"execution","error":"found duplicate series"}`), "execution: found duplicate series", "other"},
		"an error of another server": {text(422, `{"status":"error","errorType":"422","error":"too many\nseries"}`), "422: too many series", "other"},
		"an error with status 200":   {text(200, `{"status":"error","errorType":"timeout","error":"query timed out"}`), "timeout: query timed out", "other"},
		"a long error":               {text(422, `{"status":"error","errorType":"execution","error":"`+long+`"}`), "execution: " + long[:200] + "...", "other"},
		"status 401":                 {text(401, private), "status 401, not 200", "status"},
		"status 403 for POST":        {text(403, private), "status 403, not 200", "status"},
		"status 503":                 {text(503, `{"status":"error","errorType":"unavailable","error":"`+private+`"}`), "status 503, not 200", "status"},
		"a page":                     {text(200, "<html>"+private), "the answer is not that of a Prometheus API; is the URL the server's root?", "broken"},
		"a page with status 400":     {text(400, "<html>"+private), "the answer is not that of a Prometheus API", "broken"},
		"other JSON":                 {text(200, `{"kind":"Secret","data":{"a":"`+private+`"}}`), "the answer is not that of a Prometheus API", "broken"},
		"a JSON list":                {text(200, `["`+private+`"]`), "the answer is not that of a Prometheus API", "broken"},
		"JSON that breaks off":       {text(200, `{"status":"success","data":{"resultType":"vector","result":[{"metric":{"a":"`+private), "the answer is not that of a Prometheus API", "broken"},
		"success without data":       {text(200, `{"status":"success"}`), "the answer is not that of a Prometheus API", "broken"},
		"nothing":                    {text(200, ``), "the answer is not that of a Prometheus API", "broken"},
		"no content":                 {text(204, ``), "the answer is not that of a Prometheus API", "broken"},
		"deep JSON":                  {text(200, strings.Repeat("[", 100_000)), "more than 5000 series or 50000 parts", "broken"},
		"many series":                {text(200, `{"status":"success","data":{"resultType":"vector","result":[`+strings.Repeat(`{"metric":{},"value":[1,"1"]},`, 6_000)+`{"metric":{},"value":[1,"1"]}]}}`), "more than 5000 series", "broken"},
		"an error with success":      {text(400, `{"status":"success","error":"`+private+`"}`), "the answer is not that of a Prometheus API", "broken"},
		"a redirect":                 {http.RedirectHandler("http://169.254.169.254/"+private, http.StatusFound).ServeHTTP, `status 302 redirects to host "169.254.169.254", and redirects are not followed`, "status"},
		"a large answer":             {text(200, strings.Repeat(" ", 1<<20+1)), "the answer is larger than 1048576 bytes", "too_large"},
		"a connection that breaks":   {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "EOF", "broken"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := newStub(t, tt.answer)
			b := newBench(t, "", Server{URL: s.URL})
			points, err := b.collect(t.Context(), sample.Settings{"query": "sum(up)", "prometheus-server": s.URL + "/?x=" + private})
			wantError(t, err, tt.err)
			if len(points) > 0 || errors.Is(err, sample.ErrNoData) {
				t.Errorf("points %v, %v", points, err)
			}
			if strings.Contains(err.Error(), private) || len(err.Error()) > 500 {
				t.Errorf("the error tells too much: %v", err)
			}
			if !strings.HasPrefix(err.Error(), "prometheus server "+strings.TrimPrefix(s.URL, "http://")+": ") {
				t.Errorf("the error does not name the server: %v", err)
			}
			if kind := outbound.Kind(err); kind != tt.kind {
				t.Errorf("%v is of the kind %s, not %s", err, kind, tt.kind)
			}
		})
	}
}

func TestAServerThatHangsIsGivenUp(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	for name, begin := range map[string]string{"before its answer": "", "in its answer": `{"status":"success"`} {
		t.Run(name, func(t *testing.T) {
			over := make(chan struct{})
			s := newStub(t, func(w http.ResponseWriter, r *http.Request) {
				if begin != "" {
					_, _ = w.Write([]byte(begin))
					w.(http.Flusher).Flush()
				}
				<-r.Context().Done()
				close(over)
			})
			b := newBench(t, "", Server{URL: s.URL})
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			_, err := b.collect(ctx, sample.Settings{"query": "up"})
			if !errors.Is(err, context.DeadlineExceeded) || outbound.Kind(err) != "timeout" {
				t.Errorf("error %v of the kind %s", err, outbound.Kind(err))
			}
			<-over // so that the server has stopped working on it
		})
	}
}

func TestWhatIsSent(t *testing.T) {
	s := newStub(t, result("scalar", `[AT,"1"]`))
	b := newBench(t, "ns", Server{URL: s.URL}, Server{Name: "sub", URL: s.URL + "/prom/"})
	tests := map[string]struct {
		settings sample.Settings
		path     string
		query    string
		dedup    string
	}{
		"the default server":                   {sample.Settings{"query": "sum(up)"}, "/api/v1/query", `sum(up{ns="shop"})`, ""},
		"one below a path":                     {sample.Settings{"query": "up", "prometheus-server-alias": "sub"}, "/prom/api/v1/query", `up{ns="shop"}`, ""},
		"what the asker's URL says to proxies": {sample.Settings{"query": "up", "prometheus-server": s.URL + "/x?dedup=false"}, "/x/api/v1/query", `up{ns="shop"}`, "false"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := b.collect(t.Context(), tt.settings); err != nil {
				t.Fatal(err)
			}
			r := s.request()
			if r.Method != http.MethodPost || r.URL.Path != tt.path {
				t.Errorf("%s %s", r.Method, r.URL.Path)
			}
			want := url.Values{"query": {tt.query}, "time": {"1795348800.123"}}
			if tt.dedup != "" {
				want["dedup"] = []string{tt.dedup}
			}
			if diff := cmp.Diff(want, r.PostForm); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if r.Form.Get("query") != tt.query {
				t.Errorf("another query is in the URL: %v", r.Form)
			}
		})
	}
}

func TestServersThatTakeNoPOSTAreAskedByGET(t *testing.T) {
	s := newStub(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			w.WriteHeader(http.StatusMethodNotAllowed)
			return
		}
		result("scalar", `[AT,"1"]`)(w, r)
	})
	b := newBench(t, "ns", Server{URL: s.URL})
	points, err := b.collect(t.Context(), sample.Settings{"query": "up"})
	if err != nil || points[0].Milli != 1000 || s.request().Form.Get("query") != `up{ns="shop"}` {
		t.Errorf("%v, %v, %v", points, err, s.request().Form)
	}
}

func write(t *testing.T, dir, name, content string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestCredentialsFromFilesAreReadAgain(t *testing.T) {
	s := newStub(t, result("scalar", `[AT,"1"]`))
	dir, other := t.TempDir(), t.TempDir()
	write(t, dir, "username", "u")
	write(t, dir, "password", "p\n")
	token := write(t, other, "any-name", "one\n")
	b := newBench(t, "", Server{URL: s.URL, TokenFile: token}, Server{Name: "basic", URL: s.URL, CredentialsDir: dir}, Server{Name: "open", URL: s.URL})
	want := func(alias, header, errText string) {
		t.Helper()
		_, err := b.collect(t.Context(), sample.Settings{"query": "up", "prometheus-server-alias": alias})
		wantError(t, err, errText)
		if err == nil && s.request().Header.Get("Authorization") != header {
			t.Errorf("%q sends %q, not %q", alias, s.request().Header.Get("Authorization"), header)
		}
	}
	want("", "Bearer one", "")
	want("basic", "Basic dTpw", "")
	want("open", "", "")
	write(t, other, "any-name", "two")
	write(t, dir, "password", "q")
	want("", "Bearer one", "")
	b.clock.SetTime(b.clock.Now().Add(reread))
	want("", "Bearer two", "")
	want("basic", "Basic dTpx", "")
	write(t, other, "any-name", " \n")
	write(t, dir, "token", "both")
	b.clock.SetTime(b.clock.Now().Add(reread))
	want("", "", "any-name is empty")
	want("basic", "", "it holds both token and username")
	if err := os.Remove(token); err != nil {
		t.Fatal(err)
	}
	write(t, dir, "token", strings.Repeat("x", maxFile+1))
	b.clock.SetTime(b.clock.Now().Add(reread))
	want("", "", "no such file or directory")
	want("basic", "", "is larger than 262144 bytes")
	write(t, other, "any-name", "three")
	b.clock.SetTime(b.clock.Now().Add(reread))
	want("", "Bearer three", "")
}

func TestCredentialsOfAskersGoToTheirHostOnly(t *testing.T) {
	s := newStub(t, result("scalar", `[AT,"1"]`))
	host := strings.TrimPrefix(s.URL, "http://")
	token := write(t, t.TempDir(), "token", "operator")
	b := newBench(t, "", Server{URL: s.URL, TokenFile: token})
	b.secrets["shop/token"] = collectors.Secret{Host: host, Data: map[string][]byte{"token": []byte("mine")}}
	b.secrets["shop/basic"] = collectors.Secret{Host: "127.0.0.1", Data: map[string][]byte{"username": []byte("u"), "password": []byte("p")}}
	b.secrets["shop/elsewhere"] = collectors.Secret{Host: "prom.example.org", Data: map[string][]byte{"token": []byte("mine")}}
	b.secrets["shop/empty"] = collectors.Secret{Host: host}
	b.secrets["mail/other"] = collectors.Secret{Host: host, Data: map[string][]byte{"token": []byte("theirs")}}
	tests := map[string]struct {
		settings    sample.Settings
		header, err string
	}{
		"to any server":                                  {sample.Settings{"prometheus-server": s.URL, "secret": "token"}, "Bearer mine", ""},
		"a user and a password":                          {sample.Settings{"prometheus-server": s.URL, "secret": "basic"}, "Basic dTpw", ""},
		"to the operator's server, instead of his":       {sample.Settings{"secret": "token"}, "Bearer mine", ""},
		"the operator's are not for addresses of others": {sample.Settings{"prometheus-server": s.URL}, "", ""},
		"not to another host":                            {sample.Settings{"prometheus-server": s.URL, "secret": "elsewhere"}, "", `sending credentials to ` + host + ` is refused: they are for "prom.example.org" only`},
		"an empty Secret":                                {sample.Settings{"secret": "empty"}, "", "Secret shop/empty: it holds none of the keys"},
		"not those of another namespace":                 {sample.Settings{"secret": "other"}, "", "there is no Secret shop/other"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			before := s.asked()
			tt.settings["query"] = "up"
			_, err := b.collect(t.Context(), tt.settings)
			wantError(t, err, tt.err)
			if err != nil {
				if s.asked() != before {
					t.Error("it was asked nevertheless")
				}
				return
			}
			if got := s.request().Header.Get("Authorization"); got != tt.header {
				t.Errorf("Authorization %q, want %q", got, tt.header)
			}
		})
	}
}

// The operator may name any address, an asker may not; and an asker's credentials do not widen what he may reach.
func TestAskersDoNotReachInside(t *testing.T) {
	s := newStub(t, result("scalar", `[AT,"1"]`))
	b := newBench(t, "", Server{URL: s.URL})
	b.config.Tenant = outbound.New(outbound.Options{})
	t.Cleanup(b.config.Tenant.Close)
	b.secrets["shop/token"] = collectors.Secret{Host: "127.0.0.1", Data: map[string][]byte{"token": []byte("mine")}}
	for _, secret := range []string{"", "token"} {
		if _, err := b.collect(t.Context(), sample.Settings{"query": "up", "secret": secret}); err != nil {
			t.Errorf("the operator's server: %v", err)
		}
		before := s.asked()
		for _, address := range []string{s.URL, "http://169.254.169.254", "http://localhost:" + s.URL[strings.LastIndex(s.URL, ":")+1:], "http://[::ffff:127.0.0.1]"} {
			_, err := b.collect(t.Context(), sample.Settings{"query": "up", "secret": secret, "prometheus-server": address})
			if outbound.Kind(err) != "denied" {
				t.Errorf("%s: %v", address, err)
			}
		}
		if s.asked() != before {
			t.Error("it was asked nevertheless")
		}
	}
}

func TestTLS(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		result("scalar", `[AT,"1"]`)(w, r)
	}))
	defer server.Close()
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	dir := t.TempDir()
	write(t, dir, "ca.crt", ca)
	b := newBench(t, "", Server{URL: server.URL, CredentialsDir: dir}, Server{Name: "plain", URL: server.URL})
	b.secrets["shop/ca"] = collectors.Secret{Host: "127.0.0.1", Data: map[string][]byte{"ca.crt": []byte(ca)}}
	for name, tt := range map[string]struct {
		settings sample.Settings
		err      string
	}{
		"an authority from the operator's folder": {sample.Settings{}, ""},
		"an authority from a Secret":              {sample.Settings{"prometheus-server": server.URL, "secret": "ca"}, ""},
		"an unknown authority":                    {sample.Settings{"prometheus-server-alias": "plain"}, "certificate signed by unknown authority"},
	} {
		t.Run(name, func(t *testing.T) {
			tt.settings["query"] = "up"
			_, err := b.collect(t.Context(), tt.settings)
			wantError(t, err, tt.err)
		})
	}
}

func TestInstantIsKubetidesOwnQuestion(t *testing.T) {
	s := newStub(t, result("vector", `[{"metric":{},"value":[1795348795.123,"2.5"]}]`))
	b := newBench(t, "ns", Server{URL: s.URL})
	value, age, err := b.config.Servers.Instant(t.Context(), "shop", "sum(up)")
	if value != 2.5 || age != 5*time.Second || err != nil {
		t.Errorf("%v, %v, %v", value, age, err)
	}
	if q := s.request().Form.Get("query"); q != "sum(up)" {
		t.Errorf("asked %s", q)
	}
	s.mu.Lock()
	s.answer = warned(`[%s,"7"]`, "PromQL warning: x")
	s.mu.Unlock()
	if value, _, err := b.config.Servers.Instant(t.Context(), "shop", "sum(up)"); value != 7 || err != nil {
		t.Errorf("beside a warning: %v, %v", value, err)
	}
	s.mu.Lock()
	s.answer = result("scalar", `[AT,"NaN"]`)
	s.mu.Unlock()
	if _, _, err := b.config.Servers.Instant(t.Context(), "shop", "sum(up)"); !errors.Is(err, sample.ErrNoData) {
		t.Errorf("error %v", err)
	}
	_, _, err = newBench(t, "").config.Servers.Instant(t.Context(), "shop", "up")
	wantError(t, err, "there is no default Prometheus")
}

func TestWrongServersAndLabelsAreRefused(t *testing.T) {
	client := outbound.New(outbound.Options{Policy: anywhere})
	defer client.Close()
	clock := clocktesting.NewFakePassiveClock(now)
	for name, servers := range map[string][]Server{
		"is no URL":   {{URL: "prom:9090"}},
		"has a user":  {{URL: "http://u:p@prom"}},
		"named twice": {{Name: "a", URL: "http://a"}, {Name: "a", URL: "http://b"}},
	} {
		if _, err := NewServers(servers, client, clock); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	for _, label := range []string{"__name__", "\xff"} {
		if _, err := New(Config{NamespaceLabel: label}); err == nil {
			t.Errorf("the label %q is no error", label)
		}
	}
}

// An answer of a tenant's server within 1 MiB must not take many times that.
func TestMemoryForHostileAnswers(t *testing.T) {
	const size = 1<<20 - 200
	fill := func(part string) string { return strings.Repeat(part, size/len(part)) }
	for name, body := range map[string]string{
		"many series":   `{"status":"success","data":{"resultType":"vector","result":[` + fill(`{},`) + `{}]}}`,
		"many labels":   `{"status":"success","data":{"resultType":"vector","result":[{"metric":{` + fill(`"":"",`) + `"":""}}]}}`,
		"many warnings": `{"status":"success","warnings":[` + fill(`"",`) + `""]}`,
		"many values":   `{"status":"success","data":{"resultType":"matrix","result":[{"values":[` + fill(`[],`) + `[]]}]}}`,
		"the most":      `{"status":"success","data":{"resultType":"vector","result":[` + strings.Repeat(`{"metric":{"a":"b"},"value":[1,"1"]},`, 4_999) + `{"metric":{"a":"b"},"value":[1,"1"]}]}}`,
	} {
		t.Run(name, func(t *testing.T) {
			s := newStub(t, text(200, body))
			b := newBench(t, "", Server{URL: s.URL})
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := b.collect(t.Context(), sample.Settings{"query": "up"})
			runtime.ReadMemStats(&after)
			mib := float64(after.TotalAlloc-before.TotalAlloc) / (1 << 20)
			t.Logf("%.1f MiB were allocated in all: %.100v", mib, err)
			if mib > 10 {
				t.Errorf("%.1f MiB were allocated", mib)
			}
		})
	}
}

// Identical questions of several HPAs are one query; those of two namespaces never are.
func TestOneQuestionIsOneQuery(t *testing.T) {
	b := newBench(t, "", Server{URL: "http://x"})
	parse := func(namespace string, settings sample.Settings) sample.Query {
		r := request(settings)
		r.Namespace = namespace
		q, err := b.Parse(r)
		if err != nil {
			t.Fatal(err)
		}
		return q
	}
	one := parse("shop", sample.Settings{"query": "up", "type": "prometheus"})
	if two := parse("shop", sample.Settings{"query-name": "a", "a": " up"}); one != two {
		t.Errorf("%+v and %+v", one, two)
	}
	if other := parse("mail", sample.Settings{"query": "up"}); other == one {
		t.Error("two namespaces share a query")
	}
}
