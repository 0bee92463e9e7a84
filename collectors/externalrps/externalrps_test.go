package externalrps

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kubetide/kubetide/collectors"
	"github.com/kubetide/kubetide/internal/sample"
)

// prometheus answers every query with one value and keeps the queries.
type prometheus struct {
	value   float64
	err     error
	queries []string
}

func (p *prometheus) Instant(_ context.Context, namespace, query string) (float64, time.Duration, error) {
	p.queries = append(p.queries, namespace+": "+query)
	return p.value, 7 * time.Second, p.err
}

func parse(s *Source, settings sample.Settings) (sample.Query, error) {
	return s.Parse(collectors.Request{Kind: sample.External, Namespace: "shop", Metric: "rps", Interval: time.Minute, Settings: settings})
}

func collect(t *testing.T, s *Source, settings sample.Settings) ([]sample.Point, error) {
	t.Helper()
	q, err := parse(s, settings)
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.Open(q)
	if err != nil {
		t.Fatal(err)
	}
	return c.Collect(t.Context())
}

func TestHostsAreAskedForTimesTheWeight(t *testing.T) {
	for name, c := range map[string]struct {
		config   Config
		settings sample.Settings
		want     string // the query; none if the value is 0 without a question
	}{
		"a host": {Config{MetricName: "a_valid_one"}, sample.Settings{"hostnames": "foo.bar.baz"},
			`scalar(sum(rate(a_valid_one{host=~"foo_bar_baz"}[1m])) * 1.0000)`},
		"a weight": {Config{MetricName: "a_valid_one"}, sample.Settings{"hostnames": "foo.bar.baz", "weight": "42"},
			`scalar(sum(rate(a_valid_one{host=~"foo_bar_baz"}[1m])) * 0.4200)`},
		"two hosts": {Config{MetricName: "a_valid_one"}, sample.Settings{"hostnames": "foo.bar.baz,foz.bax.bas"},
			`scalar(sum(rate(a_valid_one{host=~"foo_bar_baz|foz_bax_bas"}[1m])) * 1.0000)`},
		"two hosts and a weight": {Config{MetricName: "a_valid_one"}, sample.Settings{"hostnames": "foo.bar.baz,foz.bax.bas", "weight": "42"},
			`scalar(sum(rate(a_valid_one{host=~"foo_bar_baz|foz_bax_bas"}[1m])) * 0.4200)`},
		"a user's query is nothing": {Config{MetricName: "a_valid_one"}, sample.Settings{"hostnames": "foo.bar.baz", "query": "up"},
			`scalar(sum(rate(a_valid_one{host=~"foo_bar_baz"}[1m])) * 1.0000)`},
		"spaces around": {Config{}, sample.Settings{"hostnames": " a.org , b.org ", "weight": " 50 "},
			`scalar(sum(rate(skipper_serve_host_duration_seconds_count{host=~"a_org|b_org"}[1m])) * 0.5000)`},
		"another label": {Config{MetricName: "requests_total", HostLabel: "authority"}, sample.Settings{"hostnames": "my-app.org", "weight": "12.5"},
			`scalar(sum(rate(requests_total{authority=~"my-app_org"}[1m])) * 0.1250)`},
		"a weight above all": {Config{}, sample.Settings{"hostnames": "a.org", "weight": "250"},
			`scalar(sum(rate(skipper_serve_host_duration_seconds_count{host=~"a_org"}[1m])) * 2.5000)`},
		"no weight": {Config{}, sample.Settings{"hostnames": "a.org", "weight": "0"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			p := &prometheus{value: 12.5}
			c.config.Prometheus = p
			points, err := collect(t, New(c.config), c.settings)
			if err != nil {
				t.Fatal(err)
			}
			var queries []string
			point := sample.Point{Window: time.Minute}
			if c.want != "" {
				queries = []string{"shop: " + c.want}
				point = sample.Point{Milli: 12_500, Window: time.Minute, Age: 7 * time.Second}
			}
			if diff := cmp.Diff(queries, p.queries); diff != "" {
				t.Errorf("queries (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff([]sample.Point{point}, points); diff != "" {
				t.Errorf("points (-want +got):\n%s", diff)
			}
		})
	}
}

func TestBadSettingsNameTheKey(t *testing.T) {
	many := make([]string, 501)
	for i := range many {
		many[i] = fmt.Sprintf("h%d.org", i)
	}
	for name, c := range map[string]struct {
		settings  sample.Settings
		key, want string
	}{
		"no hosts":            {sample.Settings{}, "hostnames", "it is required"},
		"empty hosts":         {sample.Settings{"hostnames": " "}, "hostnames", "it is required"},
		"one host is empty":   {sample.Settings{"hostnames": "a.org,,b.org"}, "hostnames", `"" is not a host name`},
		"a way out of PromQL": {sample.Settings{"hostnames": `a"}) or vector(1) #`}, "hostnames", "is not a host name"},
		"a wildcard":          {sample.Settings{"hostnames": "*.a.org"}, "hostnames", "is not a host name"},
		"a pattern":           {sample.Settings{"hostnames": "a|b"}, "hostnames", "is not a host name"},
		"too many hosts":      {sample.Settings{"hostnames": strings.Join(many, ",")}, "hostnames", "more than 500"},
		"a weight in words":   {sample.Settings{"hostnames": "a.org", "weight": "half"}, "weight", `"half" is not a number of percent`},
		"a negative weight":   {sample.Settings{"hostnames": "a.org", "weight": "-1"}, "weight", `"-1" is not a number of percent`},
		"a weight that is no": {sample.Settings{"hostnames": "a.org", "weight": "NaN"}, "weight", `"NaN" is not a number of percent`},
		"a weight without end": {sample.Settings{"hostnames": "a.org", "weight": "Inf"}, "weight",
			`"Inf" is not a number of percent`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse(New(Config{}), c.settings)
			var bad *collectors.KeyError
			if !errors.As(err, &bad) || bad.Key != c.key || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want key %q with %q", err, c.key, c.want)
			}
		})
	}
}

func TestWhatHasNoValueSaysWhy(t *testing.T) {
	for name, c := range map[string]struct {
		prometheus prometheus
		want       string
		noData     bool
	}{
		"too much":         {prometheus{value: 1e300}, sample.ErrNotFinite.Error(), false},
		"Prometheus fails": {prometheus{err: errors.New("connection refused")}, "connection refused", false},
	} {
		points, err := collect(t, New(Config{Prometheus: &c.prometheus}), sample.Settings{"hostnames": "a.org"})
		if err == nil || len(points) > 0 || !strings.Contains(err.Error(), c.want) || errors.Is(err, sample.ErrNoData) != c.noData {
			t.Errorf("%s: points %v, error %v; want %q", name, points, err, c.want)
		}
	}
}

func TestOneQuestionIsOneQuery(t *testing.T) {
	a, errA := parse(New(Config{}), sample.Settings{"hostnames": "a.org, b.org", "weight": "100", "type": "requests-per-second"})
	b, errB := parse(New(Config{}), sample.Settings{"hostnames": "a.org,b.org"})
	if errA != nil || errB != nil || a != b {
		t.Errorf("queries differ: %+v (%v) and %+v (%v)", a, errA, b, errB)
	}
}
