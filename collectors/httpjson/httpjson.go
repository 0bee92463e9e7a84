// Package httpjson collects one number from any HTTP endpoint that a tenant names: a JSON document, with a path or an
// expression that finds the number, or metrics in Prometheus' text format, with a selector. It asks through the bounded
// client, on the tenant's budget, and reads no Secret but the one that the tenant names.
package httpjson

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"k8s.io/utils/clock"

	"github.com/kubetide/kubetide/collectors"
	"github.com/kubetide/kubetide/internal/jsonvalue"
	"github.com/kubetide/kubetide/internal/outbound"
	"github.com/kubetide/kubetide/internal/promtext"
	"github.com/kubetide/kubetide/internal/sample"
)

// Name is the `type` label that asks for this source, LegacyName the metric name that does so without a label.
const (
	Name       = "json-path"
	LegacyName = "http"
)

const (
	defaultTimeout = 15 * time.Second
	// maxTimeout is the most that request-timeout and connect-timeout may be.
	maxTimeout  = time.Minute
	maxEndpoint = 2048

	formatJSON       = "json"
	formatPrometheus = "prometheus"
)

// Config is what the source may use.
type Config struct {
	// Client is the one for addresses that tenants choose.
	Client  *outbound.Client
	Secrets collectors.Secrets
	Clock   clock.PassiveClock
}

// Source is the source of `json-path` for External metrics.
type Source struct{ Config }

// New returns the source.
func New(c Config) *Source { return &Source{c} }

// Keys are kube-metrics-adapter's, and request-timeout, connect-timeout, secret, format and metric.
func (s *Source) Keys() []string {
	return []string{"endpoint", "json-key", "json-eval", "aggregator", "request-timeout", "connect-timeout", "secret", "format", "metric"}
}

// AnnotationKeys implements collectors.AnnotationKeys.
func (s *Source) AnnotationKeys() []string {
	return []string{"request-timeout", "connect-timeout", "secret", "format", "metric"}
}

// Parse implements collectors.Source.
func (s *Source) Parse(r collectors.Request) (sample.Query, error) {
	if r.Kind != sample.External {
		return sample.Query{}, fmt.Errorf("the collector %s with an endpoint serves External metrics, not %s", Name, r.Kind)
	}
	_, canonical, err := s.parse(r.Settings)
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
	c, _, err := s.parse(settings)
	if err != nil {
		return nil, err
	}
	return &collector{source: s, namespace: q.Namespace, config: c}, nil
}

// config is what the settings mean. One of json and text is set.
type config struct {
	endpoint       *url.URL
	json           *jsonvalue.Expression
	text           *promtext.Expression
	secret         string
	requestTimeout time.Duration
	connectTimeout time.Duration
}

// parse returns the settings' meaning and their canonical form.
func (s *Source) parse(in sample.Settings) (c config, canonical sample.Settings, err error) {
	canonical = sample.Settings{}
	if c.endpoint, err = s.parseEndpoint(in["endpoint"]); err != nil {
		return c, nil, &collectors.KeyError{Key: "endpoint", Err: err}
	}
	canonical["endpoint"] = c.endpoint.String()
	if err := c.parseValue(in, canonical); err != nil {
		return c, nil, err
	}
	if c.secret = in["secret"]; c.secret != "" {
		if err := collectors.CheckSecretName(c.secret); err != nil {
			return c, nil, err
		}
		canonical["secret"] = c.secret
	}
	for key, to := range map[string]*time.Duration{"request-timeout": &c.requestTimeout, "connect-timeout": &c.connectTimeout} {
		*to = defaultTimeout
		if text := in[key]; text != "" {
			if *to, err = time.ParseDuration(text); err != nil {
				return c, nil, collectors.BadKey(key, "%.40q is not a duration such as 15s", text)
			}
			if *to < time.Millisecond || *to > maxTimeout {
				return c, nil, collectors.BadKey(key, "%s is not between 1ms and %s", *to, maxTimeout)
			}
		}
		canonical[key] = to.String()
	}
	return c, canonical, nil
}

// parseEndpoint refuses what the client would refuse later, where no name has to be resolved for that. Errors do not repeat
// the URL, which may hold a secret.
func (s *Source) parseEndpoint(text string) (*url.URL, error) {
	if text == "" {
		return nil, errors.New("it is required: the URL of the document")
	}
	if len(text) > maxEndpoint {
		return nil, fmt.Errorf("it is longer than %d bytes", maxEndpoint)
	}
	u, err := url.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("it is not a URL: %w", outbound.WithoutURL(err))
	}
	u.Fragment, u.RawFragment = "", "" // it is not sent
	return u, s.Client.Check(u)
}

// parseValue reads the settings that say what the number is.
func (c *config) parseValue(in, canonical sample.Settings) error {
	aggregator, err := jsonvalue.ParseAggregator(in["aggregator"])
	if err != nil {
		return collectors.BadKey("aggregator", "%w", err)
	}
	if aggregator != "" {
		canonical["aggregator"] = string(aggregator)
	}
	wanted := map[string][]string{"": {"json-key", "json-eval"}, formatJSON: {"json-key", "json-eval"}, formatPrometheus: {"metric"}}[in["format"]]
	if wanted == nil {
		return collectors.BadKey("format", "%.40q is neither %s nor %s", in["format"], formatJSON, formatPrometheus)
	}
	var key string
	for _, k := range []string{"json-key", "json-eval", "metric"} {
		switch {
		case in[k] == "":
		case k == "metric" && wanted[0] != k:
			return collectors.BadKey(k, "it needs format: %s", formatPrometheus)
		case k != "metric" && wanted[0] == "metric":
			return collectors.BadKey(k, "it cannot be used with format: %s", formatPrometheus)
		case key != "":
			return collectors.BadKey(k, "it cannot be used together with %s", key)
		default:
			key = k
		}
	}
	switch key {
	case "json-key":
		c.json, err = jsonvalue.Path(in[key], aggregator)
	case "json-eval":
		c.json, err = jsonvalue.Script(in[key], aggregator)
	case "metric":
		c.text, err = promtext.Parse(in[key], aggregator)
		canonical["format"] = formatPrometheus
	default:
		if wanted[0] == "metric" {
			return collectors.BadKey("metric", "it is required with format: %s", formatPrometheus)
		}
		return collectors.BadKey("json-key", "it or json-eval is required")
	}
	if err != nil {
		return collectors.BadKey(key, "%w", err)
	}
	canonical[key] = in[key]
	return nil
}

type collector struct {
	source    *Source
	namespace string
	config    config
}

// Collect returns one point. Unlike that of a pod its value may be below zero: the HPA then goes to its minimum.
func (c *collector) Collect(ctx context.Context) ([]sample.Point, error) {
	point, err := c.collect(ctx)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.config.endpoint.Host, err)
	}
	return []sample.Point{point}, nil
}

func (c *collector) collect(ctx context.Context) (point sample.Point, err error) {
	s := c.source
	client := s.Client
	request := outbound.Request{
		Namespace: c.namespace, Collector: Name, URL: c.config.endpoint,
		Timeout: c.config.requestTimeout, ConnectTimeout: c.config.connectTimeout,
	}
	if c.config.secret != "" {
		if client, request.Credentials, err = collectors.Login(ctx, s.Secrets, client, c.namespace, c.config.secret); err != nil {
			return point, err
		}
	}
	if c.config.text != nil {
		request.Header = http.Header{"Accept": {promtext.Accept}}
		now := s.Clock.Now()
		err = client.Stream(ctx, request, func(body io.Reader) (err error) {
			point.Milli, point.Age, err = c.config.text.EvaluateAt(ctx, body, now)
			return err
		})
		return point, err
	}
	err = client.Read(ctx, request, func(document []byte) error {
		done, err := jsonvalue.Turn(ctx, c.namespace)
		if err != nil {
			return err
		}
		defer done()
		point.Milli, err = c.config.json.Evaluate(ctx, document)
		return err
	})
	return point, err
}
