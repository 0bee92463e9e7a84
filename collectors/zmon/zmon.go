// Package zmon collects the data points of ZMON checks from KairosDB as External metrics. It asks the one server that the
// operator named, with the operator's token.
package zmon

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/utils/clock"

	"github.com/kubetide/kubetide/collectors"
	"github.com/kubetide/kubetide/internal/bearer"
	"github.com/kubetide/kubetide/internal/outbound"
	"github.com/kubetide/kubetide/internal/sample"
)

// Name is the `type` label that asks for this source; LegacyName is the name of metrics without that label.
const (
	Name       = "zmon"
	LegacyName = "zmon-check"
)

const (
	keyCheckID     = "check-id"
	keyKey         = "key"
	keyDuration    = "duration"
	keyAggregators = "aggregators"
	tagPrefix      = "tag-"

	defaultDuration   = 10 * time.Minute
	maxDuration       = 7 * 24 * time.Hour
	defaultAggregator = "last"

	// limit is how many data points the server may use, as kube-metrics-adapter has it.
	limit          = 10_000
	maxTags        = 20
	maxTag         = 256
	maxAggregators = 8
)

var known = []string{"avg", "count", "last", "max", "min", "sum", "diff"}

// Config is what a Source needs.
type Config struct {
	// Endpoint is the URL of KairosDB.
	Endpoint string
	Token    bearer.Token
	// Client is the one for addresses that the operator chose.
	Client *outbound.Client
	Clock  clock.PassiveClock
}

// Source serves External metrics.
type Source struct {
	config   Config
	endpoint *url.URL
}

// New returns the source. It asks nobody.
func New(o Config) (*Source, error) {
	u, err := url.Parse(o.Endpoint)
	if err == nil {
		err = o.Client.Check(u)
	}
	if err != nil {
		return nil, fmt.Errorf("zmon: the endpoint: %w", err)
	}
	u = u.JoinPath("api", "v1", "datapoints", "query")
	u.Path = "/" + strings.TrimPrefix(u.Path, "/") // JoinPath begins a path without it where there was none
	return &Source{o, u}, nil
}

// Keys implements collectors.Source.
func (s *Source) Keys() []string {
	return []string{keyCheckID, keyKey, keyDuration, keyAggregators, tagPrefix + "*"}
}

// Parse implements collectors.Source.
func (s *Source) Parse(r collectors.Request) (sample.Query, error) {
	if r.Kind != sample.External {
		return sample.Query{}, fmt.Errorf("the collector %s serves External metrics, not %s", Name, r.Kind)
	}
	_, canonical, err := parse(r.Settings)
	if err != nil {
		return sample.Query{}, err
	}
	return r.Query(Name, canonical), nil
}

// Open implements collectors.Source.
func (s *Source) Open(q sample.Query) (collectors.Collector, error) {
	settings, err := sample.DecodeSettings(q.Settings)
	if err != nil {
		return nil, err
	}
	c := &collector{source: s, namespace: q.Namespace}
	var asked question
	if asked, _, err = parse(settings); err != nil {
		return nil, err
	}
	c.duration = asked.duration
	c.body, err = json.Marshal(asked.request())
	return c, err
}

// question is what the settings mean.
type question struct {
	check       uint64
	duration    time.Duration
	aggregators []string
	tags        map[string]string
}

func parse(s sample.Settings) (q question, canonical sample.Settings, err error) {
	q = question{duration: defaultDuration, tags: map[string]string{}}
	if s[keyCheckID] == "" {
		return q, nil, collectors.BadKey(keyCheckID, "is missing")
	}
	if q.check, err = strconv.ParseUint(s[keyCheckID], 10, 63); err != nil {
		return q, nil, collectors.BadKey(keyCheckID, "%.40q is not the number of a check", s[keyCheckID])
	}
	canonical = sample.Settings{keyCheckID: strconv.FormatUint(q.check, 10)}

	if text := s[keyDuration]; text != "" {
		if q.duration, err = time.ParseDuration(text); err != nil {
			return q, nil, collectors.BadKey(keyDuration, "%.40q is not a duration such as 10m", text)
		}
		if q.duration < time.Second || q.duration > maxDuration {
			return q, nil, collectors.BadKey(keyDuration, "%s is not between 1s and %s", q.duration, maxDuration)
		}
	}
	canonical[keyDuration] = q.duration.String()

	for name := range strings.SplitSeq(cmp.Or(s[keyAggregators], defaultAggregator), ",") {
		name = strings.TrimSpace(name)
		if !slices.Contains(known, name) {
			return q, nil, collectors.BadKey(keyAggregators, "%.40q is none; use %s", name, strings.Join(known, ", "))
		}
		if q.aggregators = append(q.aggregators, name); len(q.aggregators) > maxAggregators {
			return q, nil, collectors.BadKey(keyAggregators, "there are more than %d", maxAggregators)
		}
	}
	canonical[keyAggregators] = strings.Join(q.aggregators, ",")

	for _, setting := range slices.Sorted(maps.Keys(s)) {
		tag, ok := strings.CutPrefix(setting, tagPrefix)
		if setting == keyKey {
			tag, ok = keyKey, s[keyKey] != ""
		}
		if !ok {
			continue
		}
		switch value := s[setting]; {
		case tag == "" || value == "" || len(tag)+len(value) > maxTag:
			return q, nil, collectors.BadKey(setting, "a tag needs a name and a value, of %d bytes at most", maxTag)
		case q.tags[tag] != "":
			return q, nil, collectors.BadKey(setting, "it cannot be used together with %s", keyKey)
		}
		q.tags[tag], canonical[setting] = s[setting], s[setting]
		if len(q.tags) > maxTags {
			return q, nil, collectors.BadKey(setting, "there are more than %d tags", maxTags)
		}
	}
	return q, canonical, nil
}

// The request of KairosDB's API.
type (
	request struct {
		StartRelative span     `json:"start_relative"`
		Metrics       []metric `json:"metrics"`
	}
	metric struct {
		Name        string              `json:"name"`
		Limit       int                 `json:"limit"`
		Tags        map[string][]string `json:"tags"`
		Aggregators []aggregator        `json:"aggregators"`
	}
	aggregator struct {
		Name     string `json:"name"`
		Sampling *span  `json:"sampling,omitempty"`
	}
	span struct {
		Value int64  `json:"value"`
		Unit  string `json:"unit"`
	}
)

func (q question) request() request {
	all := span{q.duration.Milliseconds(), "milliseconds"}
	m := metric{Name: fmt.Sprintf("zmon.check.%d", q.check), Limit: limit, Tags: map[string][]string{}}
	for tag, value := range q.tags {
		m.Tags[tag] = []string{value}
	}
	for _, name := range q.aggregators {
		a := aggregator{Name: name, Sampling: &all}
		if name == "diff" {
			a.Sampling = nil // it works from point to point, and KairosDB refuses settings that an aggregator does not have
		}
		m.Aggregators = append(m.Aggregators, a)
	}
	return request{StartRelative: all, Metrics: []metric{m}}
}

type collector struct {
	source    *Source
	namespace string
	duration  time.Duration
	body      []byte
}

// Collect returns the last data point of the first result.
func (c *collector) Collect(ctx context.Context) ([]sample.Point, error) {
	point, err := c.ask(ctx)
	if err != nil {
		return nil, fmt.Errorf("zmon %s: %w", c.source.endpoint.Host, err)
	}
	return []sample.Point{point}, nil
}

func (c *collector) ask(ctx context.Context) (p sample.Point, err error) {
	o := c.source.config
	now := o.Clock.Now()
	credentials, err := o.Token.For(c.source.endpoint.Host)
	if err != nil {
		return p, err
	}
	response, err := o.Client.Do(ctx, outbound.Request{
		Namespace: c.namespace, Collector: Name, Method: http.MethodPost, URL: c.source.endpoint, Body: c.body, Credentials: credentials,
		Header: http.Header{"Content-Type": {"application/json"}},
	})
	if err != nil {
		return p, err
	}
	if response.Status != http.StatusOK {
		err = &outbound.StatusError{Status: response.Status}
		var said struct{ Errors []string }
		if json.Unmarshal(response.Body, &said) == nil && len(said.Errors) > 0 {
			err = fmt.Errorf("%w: %.300q", err, said.Errors[0])
		}
		return p, err
	}
	at, milli, err := last(response.Body)
	if err != nil {
		return p, err
	}
	// The asker says by the duration how old a point may be: an aggregator's has the time of the first one that went into it.
	return sample.Point{Milli: milli, Age: max(0, now.Sub(at)-c.duration)}, nil
}

var errForeign = errors.New("the answer is not that of KairosDB")

// last finds the last data point of the first result.
func last(answer []byte) (at time.Time, milli int64, err error) {
	var said struct {
		Queries []struct {
			Results []struct {
				Values []json.RawMessage
			}
		}
	}
	if json.Unmarshal(answer, &said) != nil || len(said.Queries) == 0 {
		return at, 0, errForeign
	}
	if results := said.Queries[0].Results; len(results) == 0 || len(results[0].Values) == 0 {
		return at, 0, sample.NoData("the check has no data points of this duration with these tags")
	}
	values := said.Queries[0].Results[0].Values
	var point []*float64
	if err := json.Unmarshal(values[len(values)-1], &point); err != nil || len(point) != 2 || point[0] == nil {
		return at, 0, errForeign
	}
	if point[1] == nil {
		return at, 0, sample.NoData("the last data point is null")
	}
	if milli, err = sample.Milli(*point[1]); err != nil {
		return at, 0, sample.NoData("the last data point: %v", err)
	}
	return time.UnixMilli(int64(*point[0])), milli, nil
}
