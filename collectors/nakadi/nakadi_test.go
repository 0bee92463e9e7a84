package nakadi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/kubetide/kubetide/collectors"
	"github.com/kubetide/kubetide/internal/bearer"
	"github.com/kubetide/kubetide/internal/outbound"
	"github.com/kubetide/kubetide/internal/sample"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// now is true, since the client looks at deadlines by the real clock.
var now = time.Now().UTC().Truncate(time.Second)

// answer is what Nakadi says once.
type answer struct {
	status     int // 0: 200; -1: the connection is cut
	body       string
	retryAfter string
}

// broker plays Nakadi: for each URI, its answers in turn, and the last one again and again.
type broker struct {
	*httptest.Server
	mu      sync.Mutex // protects all below
	answers map[string][]answer
	asked   []string
	tokens  map[string]bool
}

func serve(t *testing.T, answers map[string][]answer) *broker {
	t.Helper()
	b := &broker{answers: answers, tokens: map[string]bool{}}
	b.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.mu.Lock()
		defer b.mu.Unlock()
		uri := r.URL.RequestURI()
		b.asked = append(b.asked, uri)
		b.tokens[r.Method+" "+r.Header.Get("Authorization")] = true
		all := b.answers[uri]
		if len(all) == 0 {
			http.Error(w, `{"title":"Not Found","detail":"nothing is here"}`, http.StatusNotFound)
			return
		}
		if len(all) > 1 {
			b.answers[uri] = all[1:]
		}
		switch a := all[0]; {
		case a.status < 0:
			panic(http.ErrAbortHandler)
		default:
			if a.retryAfter != "" {
				w.Header().Set("Retry-After", a.retryAfter)
			}
			w.WriteHeader(max(a.status, 200))
			fmt.Fprint(w, strings.ReplaceAll(a.body, "HOST", r.Host))
		}
	}))
	t.Cleanup(b.Close)
	return b
}

func (b *broker) requests() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string(nil), b.asked...)
}

func ask(settings sample.Settings) collectors.Request {
	return collectors.Request{Kind: sample.External, Namespace: "shop", Metric: "lag", Settings: settings, Interval: time.Minute}
}

func open(t *testing.T, endpoint string, clock *clocktesting.FakeClock, settings sample.Settings) collectors.Collector {
	t.Helper()
	client := outbound.New(outbound.Options{Policy: func(netip.AddrPort) error { return nil }})
	t.Cleanup(client.Close)
	s, err := New(Config{Endpoint: endpoint, Token: bearer.Token{Text: "t"}, Client: client, Clock: clock})
	if err != nil {
		t.Fatal(err)
	}
	q, err := s.Parse(ask(settings))
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.Open(q)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestParse(t *testing.T) {
	filter := func(s sample.Settings) sample.Settings {
		all := sample.Settings{"metric-type": "unconsumed-events", "owning-application": "cart", "event-types": "a,b", "consumer-group": "g"}
		for k, v := range s {
			if all[k] = v; v == "" {
				delete(all, k)
			}
		}
		return all
	}
	id := sample.Settings{"metric-type": "consumer-lag-seconds", "subscription-id": "708b67c9-1f2b"}
	types := make([]string, maxEventTypes+1)
	for i := range types {
		types[i] = fmt.Sprint("t", i)
	}
	for name, c := range map[string]struct {
		settings, want sample.Settings
		err            string
	}{
		"a subscription's ID":          {sample.Settings{"type": "nakadi", "metric-type": "consumer-lag-seconds", "subscription-id": "708b67c9-1f2b"}, id, ""},
		"a filter":                     {filter(nil), filter(nil), ""},
		"event types are trimmed":      {filter(sample.Settings{"event-types": " b ,a , b"}), filter(nil), ""},
		"no metric":                    {sample.Settings{"subscription-id": "x"}, nil, `key "metric-type": is missing: consumer-lag-seconds or unconsumed-events`},
		"another metric":               {sample.Settings{"metric-type": "lag", "subscription-id": "x"}, nil, `key "metric-type": "lag" is neither`},
		"neither an ID nor a filter":   {sample.Settings{"metric-type": "unconsumed-events"}, nil, `key "subscription-id": it, or owning-application and event-types and consumer-group, is required`},
		"no owning application":        {filter(sample.Settings{"owning-application": ""}), nil, `key "owning-application": is missing`},
		"no event types":               {filter(sample.Settings{"event-types": ""}), nil, `key "event-types": is missing`},
		"no consumer group":            {filter(sample.Settings{"consumer-group": ""}), nil, `key "consumer-group": is missing`},
		"an ID and a filter":           {filter(sample.Settings{"subscription-id": "x"}), nil, `key "owning-application": it cannot be used together with subscription-id`},
		"an ID that leads elsewhere":   {sample.Settings{"metric-type": "unconsumed-events", "subscription-id": "../x"}, nil, `key "subscription-id": "../x" is no subscription's ID`},
		"an event type without a name": {filter(sample.Settings{"event-types": "a,,b"}), nil, `key "event-types": each event type has 1 to 256 bytes`},
		"too many event types":         {filter(sample.Settings{"event-types": strings.Join(types, ",")}), nil, `key "event-types": there are more than 50`},
		"a group too long":             {filter(sample.Settings{"consumer-group": strings.Repeat("x", maxText+1)}), nil, `key "consumer-group": it is longer than 256 bytes`},
	} {
		t.Run(name, func(t *testing.T) {
			q, err := (&Source{}).Parse(ask(c.settings))
			if c.err != "" {
				var key *collectors.KeyError
				if err == nil || !errors.As(err, &key) || !strings.Contains(err.Error(), c.err) {
					t.Fatalf("got %v, want a KeyError with %q", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			want := sample.Query{Kind: sample.External, Namespace: "shop", Metric: "lag", Collector: Name, Settings: c.want.Encode(), Interval: time.Minute}
			if diff := cmp.Diff(want, q); diff != "" {
				t.Error(diff)
			}
			settings, _ := sample.DecodeSettings(q.Settings)
			if again, err := (&Source{}).Parse(ask(settings)); err != nil || again != q {
				t.Errorf("parsed again: %+v, %v", again, err)
			}
		})
	}
	if _, err := (&Source{}).Parse(collectors.Request{Kind: sample.Pods, Settings: id}); err == nil {
		t.Error("a Pods metric is accepted")
	}
	if _, err := New(Config{Endpoint: "nakadi", Client: outbound.New(outbound.Options{})}); err == nil || !strings.HasPrefix(err.Error(), "nakadi: the endpoint: ") {
		t.Errorf("an endpoint that is no URL: %v", err)
	}
}

const (
	first  = "/subscriptions?consumer_group=g&event_type=a&event_type=b&owning_application=cart"
	statsA = "/subscriptions/id-a/stats?show_time_lag=true"
	statsB = "/subscriptions/id-b/stats?show_time_lag=true"
)

func TestCollect(t *testing.T) {
	said := func(body string) []answer { return []answer{{body: body}} }
	two := `{"items":[{"event_type":"a","partitions":[{"partition":"0","state":"assigned","unconsumed_events":4,"consumer_lag_seconds":2},
		{"partition":"1","state":"assigned","unconsumed_events":10,"consumer_lag_seconds":31}]},{"event_type":"b","partitions":[{"unconsumed_events":100,"consumer_lag_seconds":3}]}]}`
	one := `{"items":[{"event_type":"a","partitions":[{"unconsumed_events":7,"consumer_lag_seconds":40}]}]}`
	none := `{"items":[]}`
	both := map[string][]answer{
		first:                   said(`{"items":[{"id":"id-a","consumer_group":"g"},{"id":"id-x","consumer_group":"other"}],"_links":{"next":{"href":"/subscriptions?page=2"}}}`),
		"/subscriptions?page=2": said(`{"items":[{"id":"id-b"}],"_links":{"next":{"href":"http://HOST/subscriptions?page=3"}}}`),
		"/subscriptions?page=3": said(`{"items":[]}`),
		statsA:                  said(two), statsB: said(one),
	}
	filter := func(a string, b string) map[string][]answer {
		return map[string][]answer{first: said(`{"items":[{"id":"id-a"},{"id":"id-b"}]}`), statsA: said(a), statsB: said(b)}
	}
	single := func(a string) map[string][]answer { return map[string][]answer{statsA: said(a)} }
	endless := `{"items":[],"_links":{"next":{"href":"` + first + `"}}}`
	for name, c := range map[string]struct {
		answers     map[string][]answer
		byID        bool
		lag, events int64
		err         string
		noData      bool
	}{
		"of one subscription, all partitions and event types": {answers: single(two), byID: true, lag: 31_000, events: 114_000},
		"of those that match, over all pages":                 {answers: both, lag: 40_000, events: 121_000},
		"one that is on two pages counts once": {answers: map[string][]answer{first: said(`{"items":[{"id":"id-a"},{"id":"id-b"}],"_links":{"next":{"href":"/subscriptions?page=2"}}}`),
			"/subscriptions?page=2": said(`{"items":[{"id":"id-a"}]}`), statsA: said(two), statsB: said(one)}, lag: 40_000, events: 121_000},
		"one of them without data":             {answers: filter(none, one), lag: 40_000, events: 7_000},
		"a partition without numbers":          {answers: single(`{"items":[{"partitions":[{"state":"unassigned"},{"unconsumed_events":1,"consumer_lag_seconds":0}]}]}`), byID: true, lag: 0, events: 1000},
		"no partition with numbers is no data": {answers: single(`{"items":[{"partitions":[{"state":"unassigned"}]}]}`), byID: true, noData: true, err: "no partition says its "},
		"no event types":                       {answers: single(none), byID: true, err: "expected at least 1 event-type, 0 returned"},
		"none of them with data":               {answers: filter(none, none), err: "expected at least 1 event-type, 0 returned"},
		"no subscription matches":              {answers: map[string][]answer{first: said(none)}, err: "no subscription has this owning application"},
		"an unknown subscription":              {answers: nil, byID: true, err: `status 404, not 200: "nothing is here"`},
		"one of them fails":                    {answers: map[string][]answer{first: said(`{"items":[{"id":"id-a"},{"id":"id-b"}]}`), statsA: said(one)}, err: "status 404"},
		"another document":                     {answers: single(`[]`), byID: true, err: "the answer is not that of Nakadi"},
		"a number too large":                   {answers: single(`{"items":[{"partitions":[{"unconsumed_events":1e300,"consumer_lag_seconds":1e300}]}]}`), byID: true, err: "not a finite number"},
		"an ID that leads elsewhere":           {answers: map[string][]answer{first: said(`{"items":[{"id":"../x"}]}`)}, err: "the answer is not that of Nakadi"},
		"a next page on another host":          {answers: map[string][]answer{first: said(`{"_links":{"next":{"href":"http://other/subscriptions"}}}`)}, err: "the next page of subscriptions is on another host"},
		"pages without end":                    {answers: map[string][]answer{first: said(endless)}, err: "more than 20 pages"},
		"too many subscriptions":               {answers: map[string][]answer{first: said(`{"items":[` + strings.Repeat(`{"id":"x"},`, maxSubscriptions) + `{"id":"x"}]}`)}, err: "more than 100 subscriptions match"},
	} {
		for metric, want := range map[string]int64{"consumer-lag-seconds": c.lag, "unconsumed-events": c.events} {
			t.Run(name+"/"+metric, func(t *testing.T) {
				b := serve(t, c.answers)
				settings := sample.Settings{"metric-type": metric, "owning-application": "cart", "event-types": "b, a", "consumer-group": "g"}
				if c.byID {
					settings = sample.Settings{"metric-type": metric, "subscription-id": "id-a"}
				}
				ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
				defer cancel()
				points, err := open(t, b.URL+"/", clocktesting.NewFakeClock(now), settings).Collect(ctx)
				if ctx.Err() != nil {
					t.Fatal("it waits, though another try is in vain")
				}
				if diff := cmp.Diff(map[string]bool{"GET Bearer t": true}, b.tokens); diff != "" {
					t.Error(diff)
				}
				if c.err != "" {
					if err == nil || !strings.Contains(err.Error(), c.err) || !strings.HasPrefix(err.Error(), "nakadi 127.0.0.1:") || errors.Is(err, sample.ErrNoData) != c.noData || len(points) > 0 {
						t.Errorf("got %+v, %v; want the error %q, no data: %t", points, err, c.err, c.noData)
					}
					return
				}
				if diff := cmp.Diff([]sample.Point{{Milli: want}}, points); err != nil || diff != "" {
					t.Errorf("%v %s", err, diff)
				}
			})
		}
	}
}

func TestTries(t *testing.T) {
	good := answer{body: `{"items":[{"partitions":[{"unconsumed_events":7}]}]}`}
	for name, c := range map[string]struct {
		answers []answer
		waits   []time.Duration // between the tries
		left    time.Duration   // until the deadline; 0: there is none
		err     string
	}{
		"a failure of the server":             {[]answer{{status: 503}, good}, []time.Duration{100 * time.Millisecond}, 0, ""},
		"two failures, and a longer pause":    {[]answer{{status: 500}, {status: 502}, good}, []time.Duration{100 * time.Millisecond, 200 * time.Millisecond}, 0, ""},
		"a third failure is the last":         {[]answer{{status: 500}, {status: 500}, {status: 500, body: `{"title":"broken"}`}, good}, []time.Duration{100 * time.Millisecond, 200 * time.Millisecond}, 0, `status 500, not 200: "broken"`},
		"a connection that is cut":            {[]answer{{status: -1}, {status: -1}, good}, []time.Duration{100 * time.Millisecond, 200 * time.Millisecond}, 0, ""},
		"a pause in seconds":                  {[]answer{{status: 429, retryAfter: "7"}, good}, []time.Duration{7 * time.Second}, 0, ""},
		"a pause until a time":                {[]answer{{status: 429, retryAfter: now.Add(9 * time.Second).Format(http.TimeFormat)}, good}, []time.Duration{9 * time.Second}, 0, ""},
		"a pause that is none":                {[]answer{{status: 429, retryAfter: "soon"}, good}, []time.Duration{100 * time.Millisecond}, 0, ""},
		"a pause shorter than ours":           {[]answer{{status: 429, retryAfter: "0"}, good}, []time.Duration{100 * time.Millisecond}, 0, ""},
		"a pause too long":                    {[]answer{{status: 429, retryAfter: "31"}, good}, nil, 0, "status 429"},
		"a pause that ends with the deadline": {[]answer{{status: 429, retryAfter: "30"}, good}, nil, 30 * time.Second, "status 429"},
		"a pause before the deadline":         {[]answer{{status: 429, retryAfter: "30"}, good}, []time.Duration{30 * time.Second}, time.Hour, ""},
		"a refusal is final":                  {[]answer{{status: 403}, good}, nil, 0, "status 403"},
		"a redirect is final":                 {[]answer{{status: 307}, good}, nil, 0, "status 307 redirects"},
		"another document is final":           {[]answer{{body: "<html>"}, good}, nil, 0, "not that of Nakadi"},
	} {
		t.Run(name, func(t *testing.T) {
			b := serve(t, map[string][]answer{statsA: c.answers})
			clock := clocktesting.NewFakeClock(now)
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			if c.left > 0 {
				ctx = deadline{ctx, now.Add(c.left)}
			}
			collector := open(t, b.URL, clock, sample.Settings{"metric-type": "unconsumed-events", "subscription-id": "id-a"})
			done := make(chan error, 1)
			go func() {
				_, err := collector.Collect(ctx)
				done <- err
			}()
			for i, wait := range c.waits {
				until(t, clock.HasWaiters)
				if n := len(b.requests()); n != i+1 {
					t.Errorf("%d requests before pause %d", n, i+1)
				}
				clock.Step(wait - 1)
				if !clock.HasWaiters() {
					t.Fatalf("pause %d is shorter than %s", i+1, wait)
				}
				clock.Step(1)
			}
			err := outcome(t, done)
			if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
				t.Errorf("got %v, want %q", err, c.err)
			}
			if n := len(b.requests()); n != len(c.waits)+1 {
				t.Errorf("%d requests, want %d", n, len(c.waits)+1)
			}
		})
	}
}

// deadline is a deadline by the fake clock.
type deadline struct {
	context.Context
	at time.Time
}

func (d deadline) Deadline() (time.Time, bool) { return d.at, true }

func TestTheContextEndsAPause(t *testing.T) {
	b := serve(t, map[string][]answer{statsA: {{status: 503}}})
	clock := clocktesting.NewFakeClock(now)
	ctx, cancel := context.WithCancel(context.Background())
	collector := open(t, b.URL, clock, sample.Settings{"metric-type": "unconsumed-events", "subscription-id": "id-a"})
	done := make(chan error, 1)
	go func() {
		_, err := collector.Collect(ctx)
		done <- err
	}()
	until(t, clock.HasWaiters)
	cancel()
	if err := outcome(t, done); err == nil || !strings.Contains(err.Error(), "status 503") {
		t.Errorf("got %v, want the error of the last try", err)
	}
}

func outcome(t *testing.T, done <-chan error) error {
	t.Helper()
	select {
	case err := <-done:
		return err
	case <-time.After(30 * time.Second):
		t.Fatal("the collection does not end")
		return nil
	}
}

func until(t *testing.T, true func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !true(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatal("it does not happen")
		}
	}
}
