package sqs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"k8s.io/apimachinery/pkg/labels"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/kubetide/kubetide/collectors"
	"github.com/kubetide/kubetide/internal/outbound"
	"github.com/kubetide/kubetide/internal/sample"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// request makes a request with the settings as they come from an HPA.
func request(namespace string, settings sample.Settings) collectors.Request {
	return collectors.Request{Kind: sample.External, Namespace: namespace, Metric: "queue-length", Settings: settings, Interval: time.Minute,
		Selector: labels.SelectorFromSet(labels.Set{"type": Name}), Target: sample.ObjectRef{Group: "apps", Kind: "Deployment", Name: namespace}}
}

func TestSettings(t *testing.T) {
	known := Config{AssumableRoles: []string{"arn:aws:iam::123456789012:role/kubetide/{namespace}/*", "arn:aws:iam::999999999999:role/shared"}}
	endpoint := Config{Endpoint: "http://sqs.example.org:4566"}
	for name, c := range map[string]struct {
		config   Config
		settings sample.Settings
		want     sample.Settings
		err      string
	}{
		"kube-metrics-adapter's labels are enough": {known,
			sample.Settings{"type": Name, "queue-name": "orders", "region": "eu-central-1"},
			sample.Settings{"queue-name": "orders", "region": "eu-central-1"}, ""},
		"a queue of another account": {known,
			sample.Settings{"queue-name": "orders", "region": "eu-central-1", "owner-account": "123456789012"},
			sample.Settings{"queue-name": "orders", "region": "eu-central-1", "owner-account": "123456789012"}, ""},
		"a URL says account and region": {known,
			sample.Settings{"queue-name": "https://sqs.eu-central-1.amazonaws.com/123456789012/orders"},
			sample.Settings{"queue-name": "orders", "region": "eu-central-1", "owner-account": "123456789012"}, ""},
		"an ARN does": {known,
			sample.Settings{"queue-name": "arn:aws:sqs:eu-central-1:123456789012:orders.fifo"},
			sample.Settings{"queue-name": "orders.fifo", "region": "eu-central-1", "owner-account": "123456789012"}, ""},
		"both may be said once more": {known,
			sample.Settings{"queue-name": "arn:aws:sqs:eu-central-1:123456789012:orders", "region": "eu-central-1", "owner-account": "123456789012"},
			sample.Settings{"queue-name": "orders", "region": "eu-central-1", "owner-account": "123456789012"}, ""},
		"a URL of China": {known,
			sample.Settings{"queue-name": "https://sqs.cn-north-1.amazonaws.com.cn/123456789012/q"},
			sample.Settings{"queue-name": "q", "region": "cn-north-1", "owner-account": "123456789012"}, ""},
		"a URL for FIPS": {known,
			sample.Settings{"queue-name": "https://sqs-fips.us-east-2.amazonaws.com/123456789012/q"},
			sample.Settings{"queue-name": "q", "region": "us-east-2", "owner-account": "123456789012"}, ""},
		"a URL for IPv6": {known,
			sample.Settings{"queue-name": "https://sqs.eu-west-1.api.aws/123456789012/q"},
			sample.Settings{"queue-name": "q", "region": "eu-west-1", "owner-account": "123456789012"}, ""},
		"an old URL": {known,
			sample.Settings{"queue-name": "https://eu-west-1.queue.amazonaws.com/123456789012/q"},
			sample.Settings{"queue-name": "q", "region": "eu-west-1", "owner-account": "123456789012"}, ""},
		"the oldest URL": {known,
			sample.Settings{"queue-name": "https://queue.amazonaws.com/123456789012/q"},
			sample.Settings{"queue-name": "q", "region": "us-east-1", "owner-account": "123456789012"}, ""},
		"a URL of the configured endpoint says no region": {endpoint,
			sample.Settings{"queue-name": "http://sqs.example.org:4566/queue/123456789012/q", "region": "eu-west-1"},
			sample.Settings{"queue-name": "q", "region": "eu-west-1", "owner-account": "123456789012"}, ""},
		"with an endpoint, AWS' own URLs are good as well": {endpoint,
			sample.Settings{"queue-name": "https://sqs.eu-west-1.amazonaws.com/123456789012/q"},
			sample.Settings{"queue-name": "q", "region": "eu-west-1", "owner-account": "123456789012"}, ""},
		"the order of what is included does not matter": {known,
			sample.Settings{"queue-name": "orders", "region": "eu-central-1", "include": " inflight, delayed,inflight,"},
			sample.Settings{"queue-name": "orders", "region": "eu-central-1", "include": "delayed,inflight"}, ""},
		"a role of the namespace": {known,
			sample.Settings{"queue-name": "orders", "region": "eu-central-1", "role-arn": "arn:aws:iam::123456789012:role/kubetide/shop/reader"},
			sample.Settings{"queue-name": "orders", "region": "eu-central-1", "role-arn": "arn:aws:iam::123456789012:role/kubetide/shop/reader"}, ""},
		"a role for all": {known,
			sample.Settings{"queue-name": "orders", "region": "eu-central-1", "role-arn": "arn:aws:iam::999999999999:role/shared"},
			sample.Settings{"queue-name": "orders", "region": "eu-central-1", "role-arn": "arn:aws:iam::999999999999:role/shared"}, ""},
		"a new region that the operator names": {Config{Regions: []string{"eu-west-1", "eu-west-9"}},
			sample.Settings{"queue-name": "orders", "region": "eu-west-9"},
			sample.Settings{"queue-name": "orders", "region": "eu-west-9"}, ""},

		"no queue":                {known, sample.Settings{"region": "eu-central-1"}, nil, `key "queue-name": it is required: the queue's name, URL or ARN`},
		"no region":               {known, sample.Settings{"queue-name": "orders"}, nil, `key "region": it is required, such as eu-central-1`},
		"an unknown region":       {known, sample.Settings{"queue-name": "orders", "region": "eu-west-9"}, nil, `key "region": region "eu-west-9" is unknown`},
		"an unknown region's ARN": {known, sample.Settings{"queue-name": "arn:aws:sqs:eu-west-9:123456789012:orders"}, nil, `key "region": region "eu-west-9" is unknown`},
		"an unknown region's URL": {known, sample.Settings{"queue-name": "https://sqs.eu-west-9.amazonaws.com/123456789012/q"}, nil, `key "region": region "eu-west-9" is unknown`},
		"a region that the operator does not name": {Config{Regions: []string{"eu-west-1", "eu-west-2"}},
			sample.Settings{"queue-name": "orders", "region": "eu-central-1"}, nil, `key "region": region "eu-central-1" is not configured; --aws-region has eu-west-1, eu-west-2`},
		"a region besides the URL's":            {known, sample.Settings{"queue-name": "https://sqs.eu-central-1.amazonaws.com/123456789012/q", "region": "eu-west-1"}, nil, `key "region": "eu-west-1" is not that of the queue, which is eu-central-1`},
		"an account besides the ARN's":          {known, sample.Settings{"queue-name": "arn:aws:sqs:eu-central-1:123456789012:q", "owner-account": "999999999999"}, nil, `key "owner-account": "999999999999" is not that of the queue, which is 123456789012`},
		"an account that is none":               {known, sample.Settings{"queue-name": "q", "region": "eu-central-1", "owner-account": "acme"}, nil, `key "owner-account": "acme" is not an account id`},
		"a name that is none":                   {known, sample.Settings{"queue-name": "../orders", "region": "eu-central-1"}, nil, `key "queue-name": "../orders" is neither a queue's name`},
		"a name that is too long":               {known, sample.Settings{"queue-name": strings.Repeat("q", 81), "region": "eu-central-1"}, nil, `is neither a queue's name`},
		"another service's ARN":                 {known, sample.Settings{"queue-name": "arn:aws:sns:eu-central-1:123456789012:orders"}, nil, `is neither a queue's name`},
		"a stranger's URL":                      {known, sample.Settings{"queue-name": "https://sqs.evil.example/123456789012/q", "region": "eu-central-1"}, nil, `the host of "https://sqs.evil.example/123456789012/q" is not that of SQS`},
		"a stranger below the name":             {known, sample.Settings{"queue-name": "https://sqs.eu-central-1.amazonaws.com.evil.example/123456789012/q"}, nil, `is not that of SQS`},
		"another service's host":                {known, sample.Settings{"queue-name": "https://sns.eu-central-1.amazonaws.com/123456789012/q"}, nil, `is not that of SQS`},
		"another region's suffix":               {known, sample.Settings{"queue-name": "https://sqs.cn-north-1.amazonaws.com/123456789012/q"}, nil, `is not that of SQS`},
		"a URL without TLS":                     {known, sample.Settings{"queue-name": "http://sqs.eu-central-1.amazonaws.com/123456789012/q"}, nil, `is not that of SQS`},
		"a URL with another port":               {known, sample.Settings{"queue-name": "https://sqs.eu-central-1.amazonaws.com:8443/123456789012/q"}, nil, `is not that of SQS`},
		"a URL with a user":                     {known, sample.Settings{"queue-name": "https://a:b@sqs.eu-central-1.amazonaws.com/123456789012/q"}, nil, `is not a queue's URL`},
		"a URL with a query":                    {known, sample.Settings{"queue-name": "https://sqs.eu-central-1.amazonaws.com/123456789012/q?x"}, nil, `is not a queue's URL`},
		"a URL without a queue":                 {known, sample.Settings{"queue-name": "https://sqs.eu-central-1.amazonaws.com/123456789012"}, nil, `does not end in an account id`},
		"another port of the endpoint":          {endpoint, sample.Settings{"queue-name": "http://sqs.example.org/123456789012/q", "region": "eu-west-1"}, nil, `is not that of SQS`},
		"a word that is not included":           {known, sample.Settings{"queue-name": "q", "region": "eu-central-1", "include": "visible"}, nil, `key "include": "visible" is neither inflight nor delayed`},
		"another namespace's role":              {known, sample.Settings{"queue-name": "q", "region": "eu-central-1", "role-arn": "arn:aws:iam::123456789012:role/kubetide/shop2/reader"}, nil, `key "role-arn": arn:aws:iam::123456789012:role/kubetide/shop2/reader may not be assumed for the namespace "shop"`},
		"a role that goes on after the pattern": {known, sample.Settings{"queue-name": "q", "region": "eu-central-1", "role-arn": "arn:aws:iam::999999999999:role/shared2"}, nil, `may not be assumed`},
		"a role that is none":                   {known, sample.Settings{"queue-name": "q", "region": "eu-central-1", "role-arn": "arn:aws:iam::123456789012:user/kubetide/shop/reader"}, nil, `is not the ARN of a role`},
		"a role without any allowed":            {Config{}, sample.Settings{"queue-name": "q", "region": "eu-central-1", "role-arn": "arn:aws:iam::123456789012:role/x"}, nil, `--aws-assumable-roles says which roles may`},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := New(c.config, nil, clocktesting.NewFakePassiveClock(now))
			if err != nil {
				t.Fatal(err)
			}
			q, err := s.Parse(request("shop", c.settings))
			if c.err != "" {
				var bad *collectors.KeyError
				if !errors.As(err, &bad) || !strings.Contains(err.Error(), c.err) {
					t.Fatalf("got %v, want a KeyError with %q", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got, _ := sample.DecodeSettings(q.Settings)
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
			if q.Target != (sample.ObjectRef{}) {
				t.Errorf("the query depends on the target %s", q.Target)
			}
			if _, err := s.Open(q); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAllSpellingsOfAQueueAreOneQuery(t *testing.T) {
	s, _ := New(Config{}, nil, clocktesting.NewFakePassiveClock(now))
	queries := map[sample.Query]bool{}
	for _, settings := range []sample.Settings{
		{"queue-name": "orders", "region": "eu-central-1", "owner-account": "123456789012", "include": "delayed,inflight"},
		{"queue-name": "arn:aws:sqs:eu-central-1:123456789012:orders", "include": "inflight,delayed"},
		{"queue-name": "https://sqs.eu-central-1.amazonaws.com/123456789012/orders", "region": "eu-central-1", "include": "inflight, delayed", "type": Name},
	} {
		q, err := s.Parse(request("shop", settings))
		if err != nil {
			t.Fatal(err)
		}
		queries[q] = true
	}
	if len(queries) != 1 {
		t.Errorf("%d queries: %v", len(queries), queries)
	}
}

func TestAQueryThatAnotherNodeAllowsIsCheckedAgain(t *testing.T) {
	role := "arn:aws:iam::123456789012:role/x"
	generous, _ := New(Config{AssumableRoles: []string{role}}, nil, clocktesting.NewFakePassiveClock(now))
	strict, _ := New(Config{}, nil, clocktesting.NewFakePassiveClock(now))
	q, err := generous.Parse(request("shop", sample.Settings{"queue-name": "q", "region": "eu-central-1", "role-arn": role}))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := strict.Open(q); err == nil {
		t.Error("the role was accepted")
	}
}

func TestConfigurationsThatAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		config Config
		want   string
	}{
		"a region that is none":         {Config{Regions: []string{"eu-central-1,x"}}, `"eu-central-1,x" is not a region`},
		"an endpoint without a scheme":  {Config{Endpoint: "sqs.example.org"}, `the endpoint "sqs.example.org" of SQS is not a URL`},
		"a pattern that allows all":     {Config{AssumableRoles: []string{"*"}}, `the pattern "*" of assumable roles`},
		"a pattern that is only a name": {Config{AssumableRoles: []string{"role/x"}}, `the pattern "role/x"`},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := New(c.config, nil, nil); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func FuzzSettings(f *testing.F) {
	f.Add("orders", "eu-central-1", "", "inflight", "")
	f.Add("https://sqs.eu-central-1.amazonaws.com/123456789012/orders", "", "", "", "arn:aws:iam::123456789012:role/shop/x")
	f.Add("http://sqs.example.org/x/123456789012/orders.fifo", "us-east-1", "123456789012", "delayed,inflight", "")
	f.Add("arn:aws:sqs:us-east-1:123456789012:q", "", "", ",", "")
	s, err := New(Config{Endpoint: "http://sqs.example.org", AssumableRoles: []string{"arn:*:role/{namespace}/*"}}, nil, clocktesting.NewFakePassiveClock(now))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, queue, region, account, include, role string) {
		_, canonical, err := s.parse("shop", sample.Settings{"queue-name": queue, "region": region, "owner-account": account, "include": include, "role-arn": role})
		if err != nil {
			return
		}
		_, again, err := s.parse("shop", canonical)
		if err != nil {
			t.Fatalf("the canonical form %v is refused: %v", canonical, err)
		}
		if diff := cmp.Diff(canonical, again); diff != "" {
			t.Errorf("the canonical form has another: %s", diff)
		}
		if role != "" && !strings.Contains(role, "role/shop/") {
			t.Errorf("the role %q was accepted", role)
		}
	})
}

// server plays SQS and STS, as their protocols are documented.
type server struct {
	*httptest.Server
	mu    sync.Mutex
	calls []string                             // action, what for, and who signed it for which region
	queue map[string]string                    // the attributes
	url   string                               // the queue's
	fault func(action string) http.HandlerFunc // nil, or what happens instead
}

func start(t testing.TB) *server {
	s := &server{queue: map[string]string{
		"ApproximateNumberOfMessages": "7", "ApproximateNumberOfMessagesNotVisible": "20", "ApproximateNumberOfMessagesDelayed": "100",
	}, url: "https://169.254.169.254/123456789012/orders"} // nothing may ever be sent there
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": "KUBETIDE", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_SESSION_TOKEN": "", "AWS_PROFILE": "", "AWS_REGION": "", "AWS_DEFAULT_REGION": "",
		"AWS_CONFIG_FILE": t.TempDir() + "/none", "AWS_SHARED_CREDENTIALS_FILE": t.TempDir() + "/none", "AWS_EC2_METADATA_DISABLED": "true",
		"AWS_ENDPOINT_URL_STS": s.URL, "AWS_ROLE_ARN": "", "AWS_WEB_IDENTITY_TOKEN_FILE": "", "AWS_CONTAINER_CREDENTIALS_FULL_URI": "",
		"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "", "AWS_DEFAULTS_MODE": "auto", "AWS_MAX_ATTEMPTS": "",
	} {
		t.Setenv(name, value)
	}
	return s
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	scope := strings.Split(strings.TrimPrefix(strings.Split(r.Header.Get("Authorization"), ",")[0], "AWS4-HMAC-SHA256 Credential="), "/")
	signer := "nobody"
	if len(scope) > 3 {
		signer = scope[0] + "@" + scope[2]
	}
	var in struct {
		QueueName, QueueOwnerAWSAccountID, QueueURL string
		AttributeNames                              []string
	}
	_, action, sqs := strings.Cut(r.Header.Get("X-Amz-Target"), "AmazonSQS.")
	var what string
	form, _ := url.ParseQuery(string(body))
	switch {
	case !sqs:
		action = form.Get("Action")
		what = form.Get("RoleArn") + " " + form.Get("RoleSessionName") + " " + form.Get("ExternalId")
	case json.Unmarshal(body, &in) != nil:
		http.Error(w, "no JSON", http.StatusBadRequest)
		return
	case action == "GetQueueUrl":
		what = strings.TrimPrefix(in.QueueOwnerAWSAccountID+"/"+in.QueueName, "/")
	default:
		what = in.QueueURL + " " + strings.ReplaceAll(strings.Join(in.AttributeNames, ","), "ApproximateNumberOf", "")
	}
	s.mu.Lock()
	s.calls = append(s.calls, action+" "+what+" by "+signer)
	fault, address := s.fault, s.url
	s.mu.Unlock()
	if fault != nil {
		if h := fault(action); h != nil {
			h(w, r)
			return
		}
	}
	switch action {
	case "GetQueueUrl":
		_ = json.NewEncoder(w).Encode(map[string]string{"QueueUrl": address})
	case "GetQueueAttributes":
		out := map[string]string{}
		s.mu.Lock()
		for _, name := range in.AttributeNames {
			if value, ok := s.queue[name]; ok {
				out[name] = value
			}
		}
		s.mu.Unlock()
		_ = json.NewEncoder(w).Encode(map[string]any{"Attributes": out})
	case "AssumeRole":
		fmt.Fprintf(w, `<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials>
			<AccessKeyId>ROLE-%s</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken><Expiration>%s</Expiration>
			</Credentials></AssumeRoleResult></AssumeRoleResponse>`, form.Get("RoleSessionName"), time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
	}
}

func (s *server) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

// took returns the calls since the last time.
func (s *server) took() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	calls := s.calls
	s.calls = nil
	return calls
}

// failing makes one action fail as SQS does: the code of its old protocol goes into a header.
func failing(action, kind, old, message string) func(string) http.HandlerFunc {
	return only(action, func(w http.ResponseWriter, _ *http.Request) {
		if old != "" {
			w.Header().Set("X-Amzn-Query-Error", old+";Sender")
		}
		w.WriteHeader(http.StatusBadRequest)
		_ = json.NewEncoder(w).Encode(map[string]string{"__type": "com.amazonaws.sqs#" + kind, "message": message})
	})
}

func only(action string, h http.HandlerFunc) func(string) http.HandlerFunc {
	return func(a string) http.HandlerFunc {
		if a == action {
			return h
		}
		return nil
	}
}

type fixture struct {
	*server
	source *Source
	clock  *clocktesting.FakePassiveClock
}

func (s *server) source(t testing.TB, c Config, o outbound.Options) fixture {
	o.Policy = outbound.Anywhere
	client := outbound.New(o)
	t.Cleanup(client.Close)
	clock := clocktesting.NewFakePassiveClock(now)
	c.Endpoint = s.URL
	source, err := New(c, client, clock)
	if err != nil {
		t.Fatal(err)
	}
	return fixture{s, source, clock}
}

func (f fixture) open(t testing.TB, namespace string, settings sample.Settings) collectors.Collector {
	t.Helper()
	q, err := f.source.Parse(request(namespace, settings))
	if err != nil {
		t.Fatal(err)
	}
	c, err := f.source.Open(q)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func orders(more ...string) sample.Settings {
	s := sample.Settings{"queue-name": "orders", "region": "eu-central-1"}
	for i := 0; i < len(more); i += 2 {
		s[more[i]] = more[i+1]
	}
	return s
}

func collect(t testing.TB, c collectors.Collector) (int64, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	points, err := c.Collect(ctx)
	if ctx.Err() != nil {
		t.Fatalf("it took all the time there was: %v", err)
	}
	if err != nil {
		if len(points) > 0 {
			t.Errorf("there are points besides the error %v", err)
		}
		return 0, err
	}
	if len(points) != 1 {
		t.Fatalf("%d points", len(points))
	}
	return points[0].Milli, nil
}

func TestVisibleMessagesCountAndOthersOnRequest(t *testing.T) {
	f := start(t).source(t, Config{}, outbound.Options{})
	for include, want := range map[string]struct {
		milli      int64
		attributes string
	}{
		"":                 {7000, "Messages"},
		"inflight":         {27000, "Messages,MessagesNotVisible"},
		"delayed":          {107000, "Messages,MessagesDelayed"},
		"inflight,delayed": {127000, "Messages,MessagesDelayed,MessagesNotVisible"},
	} {
		t.Run("include "+include, func(t *testing.T) {
			got, err := collect(t, f.open(t, "shop", orders("include", include)))
			if err != nil || got != want.milli {
				t.Errorf("got %d, %v; want %d", got, err, want.milli)
			}
			if diff := cmp.Diff([]string{
				"GetQueueUrl orders by KUBETIDE@eu-central-1",
				"GetQueueAttributes https://169.254.169.254/123456789012/orders " + want.attributes + " by KUBETIDE@eu-central-1",
			}, f.took()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestTheURLIsAskedForOnceAndAgainWhenTheQueueIsGone(t *testing.T) {
	f := start(t).source(t, Config{}, outbound.Options{})
	c := f.open(t, "shop", orders("owner-account", "123456789012"))
	actions := func() (out []string) {
		for _, call := range f.took() {
			action, rest, _ := strings.Cut(call, " ")
			out = append(out, action+" "+strings.Fields(rest)[0])
		}
		return out
	}
	for range 3 {
		if _, err := collect(t, c); err != nil {
			t.Fatal(err)
		}
	}
	old, fresh := f.url, "https://sqs.eu-central-1.amazonaws.com/123456789012/orders"
	if diff := cmp.Diff([]string{"GetQueueUrl 123456789012/orders", "GetQueueAttributes " + old, "GetQueueAttributes " + old, "GetQueueAttributes " + old}, actions()); diff != "" {
		t.Error(diff)
	}
	gone := failing("GetQueueAttributes", "QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue", "The specified queue does not exist.")
	f.set(func() { f.fault = gone })
	if _, err := collect(t, c); !errors.Is(err, sample.ErrNoData) {
		t.Errorf("got %v, want no data: the last length is not that of a queue that is gone", err)
	}
	f.set(func() { f.fault, f.url = nil, fresh })
	if got, err := collect(t, c); err != nil || got != 7000 {
		t.Errorf("made again, it gives %d, %v", got, err)
	}
	if diff := cmp.Diff([]string{"GetQueueAttributes " + old, "GetQueueUrl 123456789012/orders", "GetQueueAttributes " + fresh}, actions()); diff != "" {
		t.Error(diff)
	}
}

func TestErrorsSayWhatToDo(t *testing.T) {
	raw := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}
	}
	for name, c := range map[string]struct {
		fault    func(string) http.HandlerFunc
		noData   bool
		attempts int
		want     []string
	}{
		"no such queue": {failing("GetQueueUrl", "QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue", "The specified queue does not exist."), true, 1,
			[]string{`queue "orders" in eu-central-1 does not exist, or Kubetide's AWS identity has no access to it`, "mend queue-name, region or owner-account", "The specified queue does not exist."}},
		"no access to the queue's name": {failing("GetQueueUrl", "AccessDeniedException", "AccessDenied", "User: x is not authorized"), false, 1,
			[]string{`queue "orders" in eu-central-1: access is denied; Kubetide's AWS identity needs sqs:GetQueueUrl and sqs:GetQueueAttributes on it: `, "(status 400): User: x is not authorized"}},
		"no access to the queue": {failing("GetQueueAttributes", "AccessDenied", "", "no"), false, 2,
			[]string{`queue "orders" in eu-central-1: access is denied`}},
		"throttling": {failing("GetQueueAttributes", "RequestThrottled", "RequestThrottled", "Rate exceeded"), false, 3,
			[]string{`queue "orders" in eu-central-1: SQS has too many requests and throttles; a longer interval makes fewer: RequestThrottled (status 400): Rate exceeded`}},
		"a key that is not valid": {failing("GetQueueUrl", "InvalidClientTokenId", "InvalidClientTokenId", "The security token included in the request is invalid."), false, 1,
			[]string{`queue "orders" in eu-central-1: the credentials of Kubetide's AWS identity are not accepted: InvalidClientTokenId`}},
		"another fault": {failing("GetQueueAttributes", "InvalidAddress", "InvalidAddress", "The address is wrong"), false, 2,
			[]string{`queue "orders" in eu-central-1: sqs:GetQueueAttributes failed: InvalidAddress (status 400): The address is wrong`}},
		"a fault of SQS": {only("GetQueueAttributes", raw(503, "<html>")), false, 3,
			[]string{`queue "orders" in eu-central-1: sqs:GetQueueAttributes: the answer of status 503 cannot be read: `}},
		"no JSON": {only("GetQueueAttributes", raw(200, "<html>")), false, 2,
			[]string{`queue "orders" in eu-central-1: sqs:GetQueueAttributes: the answer of status 200 cannot be read: `}},
		"no URL": {only("GetQueueUrl", raw(200, "{}")), false, 1,
			[]string{`queue "orders" in eu-central-1: the answer to sqs:GetQueueUrl has no URL`}},
		"a redirect": {only("GetQueueAttributes", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "https://evil.example/")
			w.WriteHeader(http.StatusTemporaryRedirect)
		}), false, 3, []string{`sqs:GetQueueAttributes: status 307 redirects to host "evil.example", and redirects are not followed`}},
		"an answer without end": {only("GetQueueAttributes", raw(200, `{"Attributes":{"ApproximateNumberOfMessages":"`+strings.Repeat("1", 2<<20)+`"}}`)), false, 2,
			[]string{"the answer is larger than 1048576 bytes"}},
		"no attribute": {only("GetQueueAttributes", raw(200, "{}")), false, 2,
			[]string{`queue "orders" in eu-central-1: the answer of SQS has no ApproximateNumberOfMessages`}},
		"a negative count": {only("GetQueueAttributes", raw(200, `{"Attributes":{"ApproximateNumberOfMessages":"-1"}}`)), false, 2,
			[]string{`ApproximateNumberOfMessages is "-1" in the answer of SQS, not a number of messages`}},
		"a count that is none": {only("GetQueueAttributes", raw(200, `{"Attributes":{"ApproximateNumberOfMessages":""}}`)), false, 2,
			[]string{`ApproximateNumberOfMessages is "" in the answer of SQS`}},
		"a count beyond all queues": {only("GetQueueAttributes", raw(200, `{"Attributes":{"ApproximateNumberOfMessages":"9000000000000000000"}}`)), false, 2,
			[]string{`ApproximateNumberOfMessages is "9000000000000000000" in the answer of SQS`}},
		"a long text of a foreign server": {failing("GetQueueUrl", "X", "", strings.Repeat("é", 4000)), false, 1,
			[]string{`éé...`}},
	} {
		t.Run(name, func(t *testing.T) {
			f := start(t).source(t, Config{}, outbound.Options{})
			f.fault = c.fault
			_, err := collect(t, f.open(t, "shop", orders()))
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got  %s\nwant %s", err, want)
				}
			}
			if errors.Is(err, sample.ErrNoData) != c.noData {
				t.Errorf("no data: got %v, want %v", !c.noData, c.noData)
			}
			if len(err.Error()) > 1000 {
				t.Errorf("the text has %d bytes", len(err.Error()))
			}
			if calls := f.took(); len(calls) != c.attempts {
				t.Errorf("got %d requests, want %d: %v", len(calls), c.attempts, calls)
			}
		})
	}
}

func TestAServerThatHangsHoldsNothingBack(t *testing.T) {
	f := start(t).source(t, Config{}, outbound.Options{})
	asked, over := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() { close(over) })
	f.fault = only("GetQueueUrl", func(http.ResponseWriter, *http.Request) {
		close(asked)
		<-over
	})
	c := f.open(t, "shop", orders())
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		<-asked
		cancel()
	}()
	if _, err := c.Collect(ctx); err == nil || !strings.Contains(err.Error(), `queue "orders" in eu-central-1: sqs:GetQueueUrl: `) {
		t.Errorf("got %v", err)
	}
}

func TestRolesAreAssumedOncePerNamespace(t *testing.T) {
	role := "arn:aws:iam::123456789012:role/queues"
	f := start(t).source(t, Config{AssumableRoles: []string{role}}, outbound.Options{})
	var all sync.WaitGroup
	for i := range 40 {
		c := f.open(t, []string{"shop", "s"}[i%2], orders("role-arn", role, "queue-name", fmt.Sprintf("q%d", i)))
		all.Go(func() {
			if _, err := collect(t, c); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	signers := map[string]int{}
	for _, call := range f.took() {
		if strings.HasPrefix(call, "AssumeRole") {
			signers[call]++
		} else {
			signers[call[strings.LastIndex(call, " ")+1:]]++
		}
	}
	if diff := cmp.Diff(map[string]int{
		"AssumeRole " + role + " shop shop by KUBETIDE@eu-central-1":               1,
		"AssumeRole " + role + " namespace-s namespace-s by KUBETIDE@eu-central-1": 1,
		"ROLE-shop@eu-central-1":        40,
		"ROLE-namespace-s@eu-central-1": 40,
	}, signers); diff != "" {
		t.Error(diff)
	}
}

func TestARoleThatCannotBeAssumedIsNotAskedForByEachQueue(t *testing.T) {
	role := "arn:aws:iam::123456789012:role/queues"
	f := start(t).source(t, Config{AssumableRoles: []string{role}}, outbound.Options{})
	f.fault = only("AssumeRole", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, `<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>not authorized to perform: sts:AssumeRole</Message></Error></ErrorResponse>`)
	})
	for range 3 {
		_, err := collect(t, f.open(t, "shop", orders("role-arn", role)))
		if want := `queue "orders" in eu-central-1: the role ` + role + ` cannot be assumed; its trust policy must allow sts:AssumeRole to Kubetide's identity, ` +
			`with the session name and external id "shop": AccessDenied (status 403): not authorized to perform: sts:AssumeRole`; err == nil || err.Error() != want {
			t.Fatalf("got  %v\nwant %s", err, want)
		}
	}
	if calls := f.took(); len(calls) != 1 {
		t.Errorf("got %d requests, want one: %v", len(calls), calls)
	}
	if _, err := collect(t, f.open(t, "shop", orders())); err != nil {
		t.Errorf("Kubetide's own identity suffers: %v", err)
	}
	f.set(func() { f.fault = nil })
	f.clock.SetTime(now.Add(failureKept))
	if got, err := collect(t, f.open(t, "shop", orders("role-arn", role))); err != nil || got != 7000 {
		t.Errorf("when the role can be assumed, it gives %d, %v", got, err)
	}
}

func TestARoleWithoutAnIdentityToAssumeItBlamesTheIdentity(t *testing.T) {
	role := "arn:aws:iam::123456789012:role/queues"
	f := start(t).source(t, Config{AssumableRoles: []string{role}}, outbound.Options{})
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	_, err := collect(t, f.open(t, "shop", orders("role-arn", role)))
	if want := `queue "orders" in eu-central-1: Kubetide has no AWS credentials; `; err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func TestAMetadataServiceThatHangsIsNotWaitedForByEachQueue(t *testing.T) {
	s := start(t)
	var mu sync.Mutex
	asked := 0
	hanging, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var open []net.Conn
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := hanging.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			asked++
			open = append(open, c)
			mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		_ = hanging.Close()
		<-done
		for _, c := range open {
			_ = c.Close()
		}
	})
	for name, value := range map[string]string{"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_EC2_METADATA_DISABLED": "",
		"AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://" + hanging.Addr().String()} {
		t.Setenv(name, value)
	}
	f := s.source(t, Config{}, outbound.Options{})
	before := 0
	for i := range 3 {
		_, err := collect(t, f.open(t, "shop", orders()))
		if want := `queue "orders" in eu-central-1: Kubetide has no AWS credentials; give its pods a role, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY: `; err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Fatalf("got  %v\nwant %s", err, want)
		}
		mu.Lock()
		if i == 0 {
			before = asked
			t.Logf("%d connections: %v", asked, err)
		} else if asked != before {
			t.Errorf("the metadata service was asked again: %d connections after %d", asked, before)
		}
		mu.Unlock()
	}
	if before == 0 {
		t.Error("the metadata service was not asked at all")
	}
	if calls := f.took(); len(calls) != 0 {
		t.Errorf("requests were sent without credentials: %v", calls)
	}
}

func TestEachNamespacePaysForItself(t *testing.T) {
	f := start(t).source(t, Config{}, outbound.Options{Budget: outbound.Budget{PerSecond: 0.001}})
	for _, namespace := range []string{"shop", "depot"} {
		_, err := collect(t, f.open(t, namespace, orders()))
		var spent *outbound.BudgetError
		if !errors.As(err, &spent) || spent.Namespace != namespace {
			t.Errorf("got %v, want that %s has used up its budget", err, namespace)
		}
		if calls := f.took(); len(calls) != 1 {
			t.Errorf("got %v, want one request of %s", calls, namespace)
		}
	}
}

// closed is a body as the library leaves it once the answer has begun.
type closed struct{ io.Reader }

func (closed) Close() error                     { return nil }
func (closed) WriteTo(io.Writer) (int64, error) { return 0, io.EOF }

func TestABodyThatTheLibraryClosesEarlyBreaksNoConnection(t *testing.T) {
	f := start(t).source(t, Config{}, outbound.Options{})
	r, err := http.NewRequest(http.MethodPost, f.URL, closed{strings.NewReader("{}")})
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Amz-Target", "AmazonSQS.GetQueueUrl")
	response, err := f.source.http.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	if text, err := io.ReadAll(response.Body); err != nil || !strings.Contains(string(text), "QueueUrl") {
		t.Errorf("got %q, %v", text, err)
	}
}

// BenchmarkThousandQueues collects 1,000 queues of 100 namespaces, 64 at once, each with a role.
func BenchmarkThousandQueues(b *testing.B) {
	role := "arn:aws:iam::123456789012:role/queues"
	f := start(b).source(b, Config{AssumableRoles: []string{role}}, outbound.Options{})
	heap := func() float64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc)
	}
	before, most := heap(), 0
	var queues []collectors.Collector
	for i := range 1000 {
		queues = append(queues, f.open(b, fmt.Sprintf("namespace-%d", i%100), orders("role-arn", role, "queue-name", fmt.Sprintf("q%d", i))))
	}
	for b.Loop() {
		var all sync.WaitGroup
		places := make(chan struct{}, 64)
		for _, c := range queues {
			places <- struct{}{}
			all.Go(func() {
				defer func() { <-places }()
				if _, err := collect(b, c); err != nil {
					b.Error(err)
				}
			})
			most = max(most, runtime.NumGoroutine())
		}
		all.Wait()
		f.took()
	}
	b.ReportMetric((heap()-before)/1000, "heap-B/queue")
	b.ReportMetric(float64(most), "goroutines-with-server")
	runtime.KeepAlive(queues)
}
