// Package prometheus collects the results of PromQL queries, as External and as Object metrics. Parse checks the query and
// can confine it to the namespace of the asker, so that what is asked is in the query that is collected; Collect asks a
// server that the operator named, or one that the asker did, through clients that the caller made for either.
package prometheus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/prometheus/common/model"
	"k8s.io/utils/clock"

	"github.com/kubetide/kubetide/collectors"
	"github.com/kubetide/kubetide/internal/outbound"
	"github.com/kubetide/kubetide/internal/promql"
	"github.com/kubetide/kubetide/internal/sample"
)

// Name is the `type` label of External metrics and the collector of Object metrics that ask for this source; LegacyName is
// that of External metrics whose query has a name.
const (
	Name       = "prometheus"
	LegacyName = "prometheus-query"
)

const (
	keyQuery     = "query"
	keyQueryName = "query-name"
	keyServer    = "prometheus-server"
	keyAlias     = "prometheus-server-alias"
	keySecret    = "secret"
)

// Config is what a Source needs.
type Config struct {
	Servers *Servers
	// Tenant is the client for addresses that askers choose.
	Tenant *outbound.Client
	// Secrets are the askers'; nil refuses the setting `secret`.
	Secrets collectors.Secrets
	// NamespaceLabel confines queries: each sees only series whose label of this name is the asker's namespace. Empty: not.
	NamespaceLabel string
	Clock          clock.PassiveClock
}

// Source serves External and Object metrics.
type Source struct{ config Config }

// New returns the source.
func New(o Config) (*Source, error) {
	if l := o.NamespaceLabel; l != "" && (l == model.MetricNameLabel || !model.UTF8Validation.IsValidLabelName(l)) {
		return nil, fmt.Errorf("prometheus: %.100q is no label that can hold a namespace", l)
	}
	return &Source{o}, nil
}

// Keys implements collectors.Source.
func (s *Source) Keys() []string {
	return []string{keyQuery, keyQueryName, keyServer, keyAlias, keySecret}
}

// FreeKeys implements collectors.FreeKeys.
func (s *Source) FreeKeys(settings sample.Settings) []string {
	if name := settings[keyQueryName]; name != "" {
		return []string{name}
	}
	return nil
}

// AnnotationKeys implements collectors.AnnotationKeys.
func (s *Source) AnnotationKeys() []string { return []string{keySecret} }

// Parse implements collectors.Source.
func (s *Source) Parse(r collectors.Request) (sample.Query, error) {
	if r.Kind != sample.External && r.Kind != sample.Object {
		return sample.Query{}, fmt.Errorf("the collector %s serves External and Object metrics, not %s", Name, r.Kind)
	}
	settings := sample.Settings{}
	var err error
	if settings[keyQuery], err = s.query(r); err != nil {
		return sample.Query{}, err
	}
	server, alias := strings.TrimSpace(r.Settings[keyServer]), r.Settings[keyAlias]
	switch {
	case server != "" && alias != "":
		return sample.Query{}, collectors.BadKey(keyServer, "it cannot be used together with %s", keyAlias)
	case server != "":
		u, err := tenantURL(server)
		if err == nil {
			err = s.config.Tenant.Check(u)
		}
		if err != nil {
			return sample.Query{}, &collectors.KeyError{Key: keyServer, Err: err}
		}
		settings[keyServer] = u.String()
	default:
		if _, err := s.config.Servers.named(alias); err != nil {
			return sample.Query{}, &collectors.KeyError{Key: keyAlias, Err: err}
		}
		if alias != "" {
			settings[keyAlias] = alias
		}
	}
	if secret := r.Settings[keySecret]; secret != "" {
		if err := collectors.CheckSecretName(secret); err != nil {
			return sample.Query{}, err
		}
		if s.config.Secrets == nil {
			return sample.Query{}, collectors.BadKey(keySecret, "Kubetide reads no Secrets here")
		}
		settings[keySecret] = secret
	}
	return r.Query(Name, settings), nil
}

// query finds the query of the request: `query`, or the key that `query-name` names.
func (s *Source) query(r collectors.Request) (string, error) {
	key := keyQuery
	text, ok := r.Settings[keyQuery]
	if name := r.Settings[keyQueryName]; !ok && name != "" {
		key = name
		if text, ok = r.Settings[name]; !ok {
			return "", collectors.BadKey(name, "is missing, and %s says that it holds the query", keyQueryName)
		}
	}
	if !ok {
		return "", collectors.BadKey(keyQuery, "is missing")
	}
	query, err := promql.Parse(text)
	if err != nil {
		return "", &collectors.KeyError{Key: key, Err: fmt.Errorf("the query %w", err)}
	}
	if s.config.NamespaceLabel == "" {
		return query.String(), nil
	}
	confined, err := query.Confined(s.config.NamespaceLabel, r.Namespace)
	if err != nil {
		return "", &collectors.KeyError{Key: key, Err: fmt.Errorf("the query %w", err)}
	}
	return confined, nil
}

// tenantURL reads a server's URL. Its query may hold what proxies understand, but not what this package sets.
func tenantURL(text string) (*url.URL, error) {
	if len(text) > 2048 {
		return nil, errors.New("the URL is longer than 2048 bytes")
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" {
		return nil, errors.New("it is no URL such as http://prometheus.monitoring:9090")
	}
	values, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, errors.New("the query of the URL cannot be read")
	}
	for _, own := range []string{"query", "time", "timeout"} {
		if values.Has(own) {
			return nil, fmt.Errorf("the URL must not set %q", own)
		}
	}
	u.Fragment, u.RawFragment = "", ""
	return u, nil
}

// Open implements collectors.Source.
func (s *Source) Open(q sample.Query) (collectors.Collector, error) {
	settings, err := sample.DecodeSettings(q.Settings)
	if err != nil {
		return nil, err
	}
	c := &collector{config: &s.config, namespace: q.Namespace, query: settings[keyQuery], secret: settings[keySecret]}
	if address := settings[keyServer]; address != "" {
		if c.url, err = tenantURL(address); err != nil {
			return nil, err
		}
		return c, nil
	}
	if c.server, err = s.config.Servers.named(settings[keyAlias]); err != nil {
		return nil, err
	}
	c.url = c.server.url
	return c, nil
}

type collector struct {
	config    *Config
	namespace string
	query     string
	secret    string
	url       *url.URL
	server    *server // nil if the asker chose the address
}

// Collect implements collectors.Collector.
func (c *collector) Collect(ctx context.Context) ([]sample.Point, error) {
	at := c.config.Clock.Now()
	to, err := c.endpoint(ctx)
	if err != nil {
		return nil, err
	}
	value, age, err := to.ask(ctx, c.namespace, c.query, at)
	if err != nil && !collectors.IsWarning(err) {
		return nil, err
	}
	milli, milliErr := sample.Milli(value)
	return []sample.Point{{Milli: milli, Age: age}}, cmp.Or(milliErr, err)
}

// endpoint looks up the credentials of now. The asker's own replace the operator's.
func (c *collector) endpoint(ctx context.Context) (endpoint, error) {
	to := endpoint{url: c.url, client: c.config.Tenant}
	if c.server != nil {
		to.client = c.server.client
	}
	var err error
	switch {
	case c.secret != "":
		to.client, to.credentials, err = collectors.Login(ctx, c.config.Secrets, to.client, c.namespace, c.secret)
	case c.server != nil:
		to.client, to.credentials, err = c.server.login()
	}
	return to, err
}
