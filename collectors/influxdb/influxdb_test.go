package influxdb

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/kubetide/kubetide/collectors"
	"github.com/kubetide/kubetide/internal/bearer"
	"github.com/kubetide/kubetide/internal/outbound"
	"github.com/kubetide/kubetide/internal/sample"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const flux = `from(bucket: "apps") |> range(start: -30s) |> max() |> rename(columns: {_value: "metricvalue"})`

// asked is what the server was sent.
type asked struct {
	method, uri, authorization, contentType string
	body                                    map[string]any
}

// database plays InfluxDB 2: it takes a query as its API does, and gives the answers by Flux text.
type database struct {
	*httptest.Server
	answers map[string]string
	status  int
	asked   []asked
}

func serve(t *testing.T, answers map[string]string) *database {
	t.Helper()
	d := &database{answers: answers, status: http.StatusOK}
	d.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a := asked{r.Method, r.URL.RequestURI(), r.Header.Get("Authorization"), r.Header.Get("Content-Type"), nil}
		text, _ := io.ReadAll(r.Body)
		if err := json.Unmarshal(text, &a.body); err != nil {
			t.Errorf("the request %q: %v", text, err)
		}
		d.asked = append(d.asked, a)
		query, _ := a.body["query"].(string)
		w.WriteHeader(d.status)
		fmt.Fprint(w, strings.ReplaceAll(d.answers[query], "\n", "\r\n"))
	}))
	t.Cleanup(d.Close)
	return d
}

func client(t *testing.T) *outbound.Client {
	t.Helper()
	c := outbound.New(outbound.Options{Policy: func(netip.AddrPort) error { return nil }})
	t.Cleanup(c.Close)
	return c
}

func source(t *testing.T, o Config) *Source {
	t.Helper()
	if o.Operator == nil {
		o.Operator = client(t)
	}
	if o.Tenant == nil {
		o.Tenant = client(t)
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func ask(settings sample.Settings) collectors.Request {
	return collectors.Request{Kind: sample.External, Namespace: "shop", Metric: "queue-depth", Settings: settings, Interval: time.Minute}
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
		all := sample.Settings{"query": flux}
		for k, v := range s {
			all[k] = v
		}
		return all
	}
	own := Config{Address: "http://influxdb:8086", Secrets: secrets{}}
	for name, c := range map[string]struct {
		config   Config
		settings sample.Settings
		want     sample.Settings
		err      string
	}{
		"a query for the operator's server":       {own, sample.Settings{"query": " " + flux + "\n", "type": "influxdb"}, with(nil), ""},
		"a query that has a name":                 {own, sample.Settings{"query-name": "depth", "depth": flux}, with(nil), ""},
		"a query goes before one that has a name": {own, sample.Settings{"query": flux, "query-name": "depth", "depth": "x"}, with(nil), ""},
		"everything":                  {own, with(sample.Settings{"address": "https://other:8086/influx", "org": "o", "secret": "s"}), with(sample.Settings{"address": "https://other:8086/influx", "org": "o", "secret": "s"}), ""},
		"a token":                     {own, with(sample.Settings{"token": "t"}), with(sample.Settings{"token": "t"}), ""},
		"the operator's address":      {own, with(sample.Settings{"address": "http://influxdb:8086"}), with(nil), ""},
		"an address alone":            {Config{}, with(sample.Settings{"address": "http://other:8086"}), with(sample.Settings{"address": "http://other:8086"}), ""},
		"no query":                    {own, sample.Settings{}, nil, `key "query": is missing`},
		"a name without a query":      {own, sample.Settings{"query-name": "depth"}, nil, `key "depth": is missing, and query-name says that it holds the query`},
		"a query too long":            {own, sample.Settings{"query": strings.Repeat("x", maxQuery+1)}, nil, `key "query": the query has 10241 bytes, more than 10240`},
		"no address at all":           {Config{}, with(nil), nil, `key "address": is missing, and Kubetide has no InfluxDB of its own (--influxdb-address)`},
		"an address without a host":   {own, with(sample.Settings{"address": "influxdb"}), nil, `key "address": it is no URL`},
		"an address with a query":     {own, with(sample.Settings{"address": "http://x/?org=a"}), nil, `key "address": it is no URL`},
		"an address too long":         {own, with(sample.Settings{"address": "http://" + strings.Repeat("x", maxAddress)}), nil, `key "address": the URL is longer than 2048 bytes`},
		"another scheme":              {own, with(sample.Settings{"address": "ftp://x"}), nil, `key "address": the scheme "ftp" is refused`},
		"a password in the address":   {own, with(sample.Settings{"address": "http://a:b@x"}), nil, `key "address": a user name or password in a URL is refused`},
		"a Secret and a token":        {own, with(sample.Settings{"secret": "s", "token": "t"}), nil, `key "token": it cannot be used together with secret`},
		"a Secret of a bad name":      {own, with(sample.Settings{"secret": "../s"}), nil, `key "secret": "../s" is not the name of a Secret`},
		"a Secret where none is read": {Config{Address: "http://x"}, with(sample.Settings{"secret": "s"}), nil, `key "secret": Kubetide reads no Secrets here`},
		"a token with a line end":     {own, with(sample.Settings{"token": "a\r\nX: y"}), nil, `key "token": it is not one word`},
		"an organization too long":    {own, with(sample.Settings{"org": strings.Repeat("x", maxOrg+1)}), nil, `key "org": it is longer than 256 bytes`},
	} {
		t.Run(name, func(t *testing.T) {
			s := source(t, c.config)
			q, err := s.Parse(ask(c.settings))
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
			want := sample.Query{Kind: sample.External, Namespace: "shop", Metric: "queue-depth", Collector: Name, Settings: c.want.Encode(), Interval: time.Minute}
			if diff := cmp.Diff(want, q); diff != "" {
				t.Error(diff)
			}
			settings, _ := sample.DecodeSettings(q.Settings)
			if again, err := s.Parse(ask(settings)); err != nil || again != q {
				t.Errorf("parsed again: %+v, %v", again, err)
			}
		})
	}
	if _, err := source(t, own).Parse(collectors.Request{Kind: sample.Pods, Settings: with(nil)}); err == nil {
		t.Error("a Pods metric is accepted")
	}
	if diff := cmp.Diff([]string{"depth"}, (&Source{}).FreeKeys(sample.Settings{"query-name": "depth"})); diff != "" {
		t.Error(diff)
	}
	if _, err := New(Config{Address: "http://a:b@x", Operator: client(t)}); err == nil || !strings.Contains(err.Error(), "influxdb: the address: ") {
		t.Errorf("an operator's address with a password: %v", err)
	}
	for _, settings := range []string{"{", `{"query":"x"}`, `{"query":"x","address":"x"}`} {
		if _, err := source(t, Config{}).Open(sample.Query{Settings: settings}); err == nil {
			t.Errorf("the settings %s are opened", settings)
		}
	}
}

const (
	doubles = "#datatype,string,long,double\n#group,false,false,false\n#default,_result,,\n"
	one     = doubles + ",result,table,metricvalue\n,,0,12.5\n\n"
)

// TestResults has the answers that the API's documentation shows, and what can go wrong with them.
func TestResults(t *testing.T) {
	typed := func(kind, value string) string {
		return "#datatype,string,long," + kind + "\n#group,false,false,false\n#default,_result,,\n,result,table,_value\n,,0," + value + "\n\n"
	}
	for name, c := range map[string]struct {
		answer  string
		want    int64
		err     string
		noData  bool
		several bool
	}{
		"the documented column":                 {answer: one, want: 12_500},
		"Flux's own column":                     {answer: doubles + ",result,table,_value\n,,0,3\n\n", want: 3000},
		"the documented column goes first":      {answer: "#datatype,string,long,double,double\n#group,false,false,false,false\n#default,_result,,,\n,result,table,_value,metricvalue\n,,0,1,2\n\n", want: 2000},
		"a long":                                {answer: typed("long", "9007199254740993"), want: 9007199254740993000},
		"an unsigned long":                      {answer: typed("unsignedLong", "7"), want: 7000},
		"thousandths are cut":                   {answer: typed("double", "1.9999"), want: 1999},
		"a negative value":                      {answer: typed("double", "-1.5"), want: -1500},
		"a default for what is left out":        {answer: "#datatype,string,long,double\n#group,false,false,false\n#default,_result,,4\n,result,table,_value\n,,0,\n\n", want: 4000},
		"no annotations":                        {answer: ",result,table,_value\n,_result,0,8\n", want: 8000},
		"several rows: the first":               {answer: doubles + ",result,table,_value\n,,0,1\n,,0,2\n\n", want: 1000, several: true},
		"several tables: the first":             {answer: one + "#datatype,string,long,string\n#group,false,false,false\n#default,_result,,\n,result,table,name\n,,1,x\n\n", want: 12_500, several: true},
		"other columns with commas and quotes":  {answer: "#datatype,string,long,string,double\n#group,false,false,true,false\n#default,_result,,,\n,result,table,name,_value\n,,0,\"a, \"\"b\"\"\",5\n\n", want: 5000},
		"nothing":                               {answer: "\n", noData: true, err: "the query gives no rows"},
		"a table without rows":                  {answer: doubles + ",result,table,_value\n\n", noData: true, err: "the query gives no rows"},
		"null":                                  {answer: typed("double", ""), noData: true, err: "the column _value of the first row is null"},
		"NaN":                                   {answer: typed("double", "NaN"), noData: true, err: "not a finite number"},
		"an infinity":                           {answer: typed("double", "+Inf"), noData: true, err: "not a finite number"},
		"a number too large":                    {answer: typed("double", "1e999"), noData: true, err: "not a finite number"},
		"a text":                                {answer: typed("string", "5"), err: `the column _value is of type "string", not a number`},
		"a truth":                               {answer: typed("boolean", "true"), err: `of type "boolean"`},
		"a time":                                {answer: typed("dateTime:RFC3339", "2026-11-22T12:00:00Z"), err: `of type "dateTime:RFC3339"`},
		"a double that is none":                 {answer: typed("double", "x"), err: "the column _value of the first row is not a number"},
		"neither column":                        {answer: doubles + ",result,table,value\n,,0,1\n\n", err: "the result has neither a column metricvalue nor _value"},
		"an error":                              {answer: "#datatype,string,string\n#group,true,true\n#default,,\n,error,reference\n,Failed to parse query,897\n", err: `the query failed: "Failed to parse query"`},
		"an error after rows":                   {answer: one + "error,reference\ndisk is full,\n", err: `the query failed: "disk is full"`},
		"an error after rows, with annotations": {answer: one + "#datatype,string,string\n#group,true,true\n#default,,\n,error,reference\n,disk is full,\n", err: `the query failed: "disk is full"`},
		"a row that is cut off":                 {answer: doubles + ",result,table,_value\n,,0\n", noData: true, err: "null"},
		"quotes that are not closed":            {answer: doubles + ",result,table,_value\n,,0,\"1\n", err: "the answer is not the annotated CSV of InfluxDB 2"},
		"HTML":                                  {answer: "<html>\n<body>\n", err: "neither a column"},
	} {
		t.Run(name, func(t *testing.T) {
			d := serve(t, map[string]string{flux: c.answer})
			points, err := collect(t, source(t, Config{Address: d.URL}), sample.Settings{"query": flux})
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) || !strings.HasPrefix(err.Error(), "influxdb 127.0.0.1:") ||
					errors.Is(err, sample.ErrNoData) != c.noData || collectors.IsWarning(err) || len(points) > 0 {
					t.Errorf("got %+v, %v; want the error %q, no data: %t", points, err, c.err, c.noData)
				}
				return
			}
			if diff := cmp.Diff([]sample.Point{{Milli: c.want}}, points); diff != "" {
				t.Error(diff)
			}
			if collectors.IsWarning(err) != c.several || (err != nil) != c.several {
				t.Errorf("got the error %v, several rows: %t", err, c.several)
			}
		})
	}
}

type secrets map[string]collectors.Secret

func (s secrets) Secret(_ context.Context, namespace, name string) (collectors.Secret, error) {
	if secret, ok := s[namespace+"/"+name]; ok {
		return secret, nil
	}
	return collectors.Secret{}, fmt.Errorf("no Secret %s/%s", namespace, name)
}

func TestWhoIsAskedForWhatWithWhichToken(t *testing.T) {
	own, other := serve(t, map[string]string{flux: one}), serve(t, map[string]string{flux: one})
	host := func(d *database) string { return strings.TrimPrefix(d.URL, "http://") }
	config := Config{
		Address: own.URL, Org: "operators", Token: bearer.Token{Text: "operators-token"},
		Secrets: secrets{
			"shop/own":   {Host: host(own), Data: map[string][]byte{"token": []byte("shops-own\n")}},
			"shop/other": {Host: host(other), Data: map[string][]byte{"token": []byte("shops")}},
			"shop/empty": {Host: host(other)},
			"bank/other": {Host: host(other), Data: map[string][]byte{"token": []byte("banks")}},
		},
	}
	for name, c := range map[string]struct {
		settings sample.Settings
		to       *database
		token    string
		org      string
		err      string
		warning  bool
		below    string
	}{
		"the operator's server":                       {settings: nil, to: own, token: "Token operators-token", org: "operators"},
		"the operator's server, another organization": {settings: sample.Settings{"org": "a b"}, to: own, token: "Token operators-token", org: "a+b"},
		"the operator's server by its address":        {settings: sample.Settings{"address": own.URL}, to: own, token: "Token operators-token", org: "operators"},
		"the operator's server, the asker's Secret":   {settings: sample.Settings{"secret": "own"}, to: own, token: "Token shops-own", org: "operators"},
		"the operator's server, the asker's token":    {settings: sample.Settings{"token": "t"}, to: own, token: "Token t", org: "operators", warning: true},
		"another server gets no token":                {settings: sample.Settings{"address": other.URL}, to: other, org: "operators"},
		"another server below a path":                 {settings: sample.Settings{"address": other.URL + "/influx/"}, to: other, org: "operators", below: "/influx"},
		"another server, a Secret":                    {settings: sample.Settings{"address": other.URL, "secret": "other"}, to: other, token: "Token shops", org: "operators"},
		"another server, a token":                     {settings: sample.Settings{"address": other.URL, "token": "t", "org": "o"}, to: other, token: "Token t", org: "o", warning: true},
		"a Secret for another host":                   {settings: sample.Settings{"secret": "other"}, err: "sending credentials to"},
		"a Secret for another host than the address":  {settings: sample.Settings{"address": other.URL, "secret": "own"}, err: "sending credentials to"},
		"a Secret that is not there":                  {settings: sample.Settings{"secret": "none"}, err: "no Secret shop/none"},
		"a Secret with nothing in it":                 {settings: sample.Settings{"address": other.URL, "secret": "empty"}, err: "Secret shop/empty: it holds none of the keys"},
	} {
		t.Run(name, func(t *testing.T) {
			own.asked, other.asked = nil, nil
			settings := sample.Settings{"query": flux}
			for k, v := range c.settings {
				settings[k] = v
			}
			points, err := collect(t, source(t, config), settings)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) || len(own.asked)+len(other.asked) > 0 {
					t.Errorf("got %v, asked %v %v; want %q and nobody asked", err, own.asked, other.asked, c.err)
				}
				return
			}
			if len(points) != 1 || points[0].Milli != 12_500 || collectors.IsWarning(err) != c.warning || (err != nil) != c.warning {
				t.Fatalf("got %+v, %v", points, err)
			}
			if c.warning && !strings.Contains(err.Error(), `the annotation "token" can be read by all`) {
				t.Errorf("the warning: %v", err)
			}
			want := []asked{{"POST", c.below + "/api/v2/query?org=" + c.org, c.token, "application/json", map[string]any{"query": flux, "type": "flux", "dialect": map[string]any{
				"header": true, "delimiter": ",", "commentPrefix": "#", "annotations": []any{"datatype", "group", "default"}}}}}
			if diff := cmp.Diff(want, c.to.asked, cmp.AllowUnexported(asked{})); diff != "" {
				t.Error(diff)
			}
			if len(own.asked)+len(other.asked) != 1 {
				t.Error("both were asked")
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	said := `{"code": "invalid", "message": "compilation failed:\n error @1:1"}`
	for name, c := range map[string]struct {
		status  int
		body    string
		foreign bool
		want    string
	}{
		"the operator's server says why":         {400, said, false, `status 400, not 200: "compilation failed:\n error @1:1"`},
		"of another the status is told alone":    {400, said, true, "status 400, not 200"},
		"what is no JSON is not told":            {502, "<html>secret", false, "status 502, not 200"},
		"a long message is cut":                  {400, `{"message": "` + strings.Repeat("x", 1000) + `"}`, false, `"` + strings.Repeat("x", 300) + `"`},
		"another's error in a table is not told": {200, "error,reference\nsecret,\n", true, "the query failed"},
		"a redirect is not followed":             {302, "", false, "status 302 redirects"},
	} {
		t.Run(name, func(t *testing.T) {
			d := serve(t, map[string]string{flux: c.body})
			d.status = c.status
			o, settings := Config{Address: d.URL}, sample.Settings{"query": flux}
			if c.foreign {
				o, settings = Config{}, sample.Settings{"query": flux, "address": d.URL}
			}
			_, err := collect(t, source(t, o), settings)
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "secret") || c.foreign && !strings.HasSuffix(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestATenantsAddressObeysThePolicy(t *testing.T) {
	d := serve(t, map[string]string{flux: one})
	strict := outbound.New(outbound.Options{})
	t.Cleanup(strict.Close)
	s := source(t, Config{Tenant: strict})
	if _, err := s.Parse(ask(sample.Settings{"query": flux, "address": d.URL})); err == nil || !strings.Contains(err.Error(), "is refused") {
		t.Errorf("got %v", err)
	}
	_, err := collect(t, s, sample.Settings{"query": flux, "address": strings.Replace(d.URL, "127.0.0.1", "localhost", 1)})
	if err == nil || !strings.Contains(err.Error(), "is refused") || len(d.asked) > 0 {
		t.Errorf("got %v", err)
	}
}

// FuzzValue holds that no answer panics, and that there is no value without rows.
func FuzzValue(f *testing.F) {
	f.Add([]byte(one))
	f.Add([]byte("error,reference\nx,1\n"))
	f.Add([]byte("#default,,4\n,_value\n,\n"))
	f.Fuzz(func(t *testing.T, answer []byte) {
		if milli, rows, err := value(answer); err == nil && rows == 0 || err != nil && milli != 0 {
			t.Errorf("%d, %d, %v", milli, rows, err)
		}
	})
}
