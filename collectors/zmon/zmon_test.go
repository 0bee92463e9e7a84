package zmon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
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

var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// database plays KairosDB: it keeps what it was sent, and gives one answer.
type database struct {
	*httptest.Server
	status                     int
	answer                     string
	asked                      int
	method, uri, authorization string
	body                       map[string]any
}

func serve(t *testing.T, status int, answer string) *database {
	t.Helper()
	d := &database{status: status, answer: answer}
	d.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d.asked++
		d.method, d.uri, d.authorization, d.body = r.Method, r.URL.RequestURI(), r.Header.Get("Authorization"), nil
		if err := json.NewDecoder(r.Body).Decode(&d.body); err != nil {
			t.Errorf("the request: %v", err)
		}
		w.WriteHeader(d.status)
		fmt.Fprint(w, d.answer)
	}))
	t.Cleanup(d.Close)
	return d
}

func source(t *testing.T, endpoint string, token bearer.Token) *Source {
	t.Helper()
	client := outbound.New(outbound.Options{Policy: func(netip.AddrPort) error { return nil }})
	t.Cleanup(client.Close)
	s, err := New(Config{Endpoint: endpoint, Token: token, Client: client, Clock: clocktesting.NewFakePassiveClock(now)})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func ask(settings sample.Settings) collectors.Request {
	return collectors.Request{Kind: sample.External, Namespace: "shop", Metric: "checks", Settings: settings, Interval: time.Minute}
}

func collect(t *testing.T, s *Source, settings sample.Settings) ([]sample.Point, error) {
	t.Helper()
	q, err := s.Parse(ask(settings))
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.Open(q)
	if err != nil {
		t.Fatal(err)
	}
	return c.Collect(context.Background())
}

func TestParse(t *testing.T) {
	with := func(s sample.Settings) sample.Settings {
		all := sample.Settings{"check-id": "1234", "duration": "10m0s", "aggregators": "last"}
		for k, v := range s {
			all[k] = v
		}
		return all
	}
	many := with(nil)
	for i := range maxTags + 1 {
		many[fmt.Sprintf("tag-%02d", i)] = "x"
	}
	for name, c := range map[string]struct {
		settings, want sample.Settings
		err            string
	}{
		"the least, with all defaults": {sample.Settings{"check-id": "1234", "type": "zmon"}, with(nil), ""},
		"everything": {sample.Settings{"check-id": "01234", "key": "k.5", "duration": "90s", "aggregators": "avg, count,last,max,min,sum,diff", "tag-application": "cart", "tag-zone": "a"},
			with(sample.Settings{"key": "k.5", "duration": "1m30s", "aggregators": "avg,count,last,max,min,sum,diff", "tag-application": "cart", "tag-zone": "a"}), ""},
		"no check":               {sample.Settings{}, nil, `key "check-id": is missing`},
		"a check that is a text": {with(sample.Settings{"check-id": "x"}), nil, `key "check-id": "x" is not the number of a check`},
		"a check below 0":        {with(sample.Settings{"check-id": "-1"}), nil, `key "check-id"`},
		"no duration":            {with(sample.Settings{"duration": "10"}), nil, `key "duration": "10" is not a duration`},
		"a duration of 0":        {with(sample.Settings{"duration": "0s"}), nil, `key "duration": 0s is not between 1s and 168h0m0s`},
		"a duration too long":    {with(sample.Settings{"duration": "169h"}), nil, `key "duration"`},
		"another aggregator":     {with(sample.Settings{"aggregators": "last,p99"}), nil, `key "aggregators": "p99" is none; use avg, count, last, max, min, sum, diff`},
		"a comma too much":       {with(sample.Settings{"aggregators": "last,"}), nil, `key "aggregators": "" is none`},
		"too many aggregators":   {with(sample.Settings{"aggregators": strings.Repeat("last,", 8) + "last"}), nil, `key "aggregators": there are more than 8`},
		"a tag without a value":  {with(sample.Settings{"tag-a": ""}), nil, `key "tag-a": a tag needs a name and a value`},
		"a tag without a name":   {with(sample.Settings{"tag-": "x"}), nil, `key "tag-": a tag needs a name`},
		"a tag too long":         {with(sample.Settings{"tag-a": strings.Repeat("x", maxTag)}), nil, `key "tag-a"`},
		"too many tags":          {many, nil, `there are more than 20 tags`},
		"a key by two ways":      {with(sample.Settings{"key": "a", "tag-key": "b"}), nil, `key "tag-key": it cannot be used together with key`},
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
			want := sample.Query{Kind: sample.External, Namespace: "shop", Metric: "checks", Collector: Name, Settings: c.want.Encode(), Interval: time.Minute}
			if diff := cmp.Diff(want, q); diff != "" {
				t.Error(diff)
			}
			settings, _ := sample.DecodeSettings(q.Settings)
			if again, err := (&Source{}).Parse(ask(settings)); err != nil || again != q {
				t.Errorf("parsed again: %+v, %v", again, err)
			}
		})
	}
	if _, err := (&Source{}).Parse(collectors.Request{Kind: sample.Object, Settings: with(nil)}); err == nil {
		t.Error("an Object metric is accepted")
	}
	if _, err := New(Config{Endpoint: "kairosdb", Client: outbound.New(outbound.Options{})}); err == nil || !strings.HasPrefix(err.Error(), "zmon: the endpoint: ") {
		t.Errorf("an endpoint that is no URL: %v", err)
	}
}

func TestTheRequest(t *testing.T) {
	span := map[string]any{"value": 90_000.0, "unit": "milliseconds"}
	for name, c := range map[string]struct {
		below    string
		settings sample.Settings
		want     map[string]any // the metric, besides its name and limit
	}{
		"the least": {"", nil, map[string]any{"tags": map[string]any{}, "aggregators": []any{map[string]any{"name": "last", "sampling": span}}}},
		"everything, and an endpoint below a path": {"/kairosdb/", sample.Settings{"key": "k", "tag-application": "cart", "aggregators": "max,diff"}, map[string]any{
			"tags":        map[string]any{"key": []any{"k"}, "application": []any{"cart"}},
			"aggregators": []any{map[string]any{"name": "max", "sampling": span}, map[string]any{"name": "diff"}}}},
	} {
		t.Run(name, func(t *testing.T) {
			d := serve(t, 200, fmt.Sprintf(`{"queries":[{"results":[{"values":[[%d,4.5]]}]}]}`, now.UnixMilli()))
			settings := sample.Settings{"check-id": "1234", "duration": "90s"}
			for k, v := range c.settings {
				settings[k] = v
			}
			points, err := collect(t, source(t, d.URL+c.below, bearer.Token{Text: "t"}), settings)
			if diff := cmp.Diff([]sample.Point{{Milli: 4500}}, points); err != nil || diff != "" {
				t.Errorf("%v %s", err, diff)
			}
			c.want["name"], c.want["limit"] = "zmon.check.1234", 10_000.0
			if diff := cmp.Diff(map[string]any{"start_relative": span, "metrics": []any{c.want}}, d.body); diff != "" {
				t.Error(diff)
			}
			if want := strings.TrimSuffix(c.below, "/") + "/api/v1/datapoints/query"; d.method != "POST" || d.uri != want || d.authorization != "Bearer t" {
				t.Errorf("%s %s %s; want POST %s", d.method, d.uri, d.authorization, want)
			}
		})
	}
}

func TestAnswers(t *testing.T) {
	at := func(ago time.Duration) int64 { return now.Add(-ago).UnixMilli() }
	values := func(format string, args ...any) string {
		return fmt.Sprintf(`{"queries":[{"sample_size":3,"results":[{"name":"zmon.check.1","tags":{"key":["k"]},"values":[`+format+`]}]}]}`, args...)
	}
	for name, c := range map[string]struct {
		status int
		answer string
		want   sample.Point
		err    string
		noData bool
	}{
		"the last data point":                  {answer: values("[%d,1],[%d,2],[%d,3.25]", at(3e9), at(2e9), at(1e9)), want: sample.Point{Milli: 3250}},
		"of the first result":                  {answer: fmt.Sprintf(`{"queries":[{"results":[{"values":[[%d,1]]},{"values":[[%d,2]]}]}]}`, at(0), at(0)), want: sample.Point{Milli: 1000}},
		"as old as was asked for":              {answer: values("[%d,1]", at(10*time.Minute)), want: sample.Point{Milli: 1000}},
		"older than was asked for":             {answer: values("[%d,1]", at(11*time.Minute)), want: sample.Point{Milli: 1000, Age: time.Minute}},
		"from the future":                      {answer: values("[%d,1]", at(-time.Hour)), want: sample.Point{Milli: 1000}},
		"no data points":                       {answer: values(""), noData: true, err: "no data points of this duration"},
		"no results":                           {answer: `{"queries":[{"results":[]}]}`, noData: true, err: "no data points of this duration"},
		"null":                                 {answer: values("[%d,null]", at(0)), noData: true, err: "null"},
		"a number too large":                   {answer: values("[%d,1e300]", at(0)), noData: true, err: "not a finite number"},
		"a text":                               {answer: values(`[%d,"x"]`, at(0)), err: "the answer is not that of KairosDB"},
		"no time":                              {answer: values(`[null,1]`), err: "the answer is not that of KairosDB"},
		"a point too long":                     {answer: values(`[1,2,3]`), err: "the answer is not that of KairosDB"},
		"no queries":                           {answer: `{"queries":[]}`, err: "the answer is not that of KairosDB"},
		"another document":                     {answer: `[]`, err: "the answer is not that of KairosDB"},
		"HTML":                                 {answer: `<html>`, err: "the answer is not that of KairosDB"},
		"a refusal with its reason":            {status: 400, answer: `{"errors":["metrics[0].name may not be empty."]}`, err: `status 400, not 200: "metrics[0].name may not be empty."`},
		"a refusal without one":                {status: 401, answer: `secret`, err: "status 401, not 200"},
		"a document larger than what is taken": {answer: values(strings.Repeat("[1,1],", 200_000) + "[1,1]"), err: "larger than 1048576 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			d := serve(t, max(c.status, 200), c.answer)
			if c.status > 0 {
				d.status = c.status
			}
			points, err := collect(t, source(t, d.URL, bearer.Token{}), sample.Settings{"check-id": "1"})
			if d.authorization != "" {
				t.Errorf("Authorization: %s", d.authorization)
			}
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) || !strings.HasPrefix(err.Error(), "zmon 127.0.0.1:") || strings.Contains(err.Error(), "secret") ||
					errors.Is(err, sample.ErrNoData) != c.noData || len(points) > 0 {
					t.Errorf("got %+v, %v; want the error %q, no data: %t", points, err, c.err, c.noData)
				}
				return
			}
			if diff := cmp.Diff([]sample.Point{c.want}, points); err != nil || diff != "" {
				t.Errorf("%v %s", err, diff)
			}
		})
	}
}

func TestATokenThatCannotBeReadIsAnErrorBeforeAnythingIsSent(t *testing.T) {
	d := serve(t, 200, "")
	_, err := collect(t, source(t, d.URL, bearer.Named("", t.TempDir(), "zmon")), sample.Settings{"check-id": "1"})
	if err == nil || !strings.Contains(err.Error(), "zmon-token-secret") || d.asked > 0 {
		t.Errorf("got %v, asked %d times", err, d.asked)
	}
}

// FuzzLast holds that no answer panics, and that what is no data point is no value.
func FuzzLast(f *testing.F) {
	f.Add([]byte(`{"queries":[{"results":[{"values":[[1539710395000,4]]}]}]}`))
	f.Fuzz(func(t *testing.T, answer []byte) {
		if at, milli, err := last(answer); err != nil && (milli != 0 || !at.IsZero()) {
			t.Errorf("%s, %d, %v", at, milli, err)
		}
	})
}
