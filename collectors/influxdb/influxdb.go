// Package influxdb collects the results of Flux queries from InfluxDB 2 as External metrics. It asks the server that the
// operator named, or one that the asker did, through clients that the caller made for either, and never sends the operator's
// token to the latter.
package influxdb

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/kubetide/kubetide/collectors"
	"github.com/kubetide/kubetide/internal/bearer"
	"github.com/kubetide/kubetide/internal/outbound"
	"github.com/kubetide/kubetide/internal/sample"
)

// Name is the `type` label that asks for this source; LegacyName is the name of metrics without that label.
const (
	Name       = "influxdb"
	LegacyName = "flux-query"
)

const (
	keyQuery     = "query"
	keyQueryName = "query-name"
	keyAddress   = "address"
	keyOrg       = "org"
	keySecret    = "secret"
	keyToken     = "token"

	maxQuery   = 10 << 10
	maxAddress = 2048
	maxOrg     = 256
	maxToken   = 4096
)

// Config is what a Source needs.
type Config struct {
	// Address is the URL of the operator's server; empty if there is none.
	Address string
	// Org is the name or ID of the organization where an asker names none.
	Org string
	// Token is sent to Address only.
	Token bearer.Token
	// Operator is the client for Address, Tenant the one for addresses that askers choose.
	Operator, Tenant *outbound.Client
	// Secrets are the askers'; nil refuses the setting `secret`.
	Secrets collectors.Secrets
}

// Source serves External metrics.
type Source struct {
	config  Config
	address *url.URL // nil without one
}

// New returns the source. It asks nobody.
func New(o Config) (*Source, error) {
	s := &Source{config: o}
	if o.Address != "" {
		var err error
		if s.address, err = parseAddress(o.Address); err == nil {
			err = o.Operator.Check(s.address)
		}
		if err != nil {
			return nil, fmt.Errorf("influxdb: the address: %w", err)
		}
	}
	return s, nil
}

// Keys implements collectors.Source.
func (s *Source) Keys() []string {
	return []string{keyQuery, keyQueryName, keyAddress, keyOrg, keySecret, keyToken}
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
	if r.Kind != sample.External {
		return sample.Query{}, fmt.Errorf("the collector %s serves External metrics, not %s", Name, r.Kind)
	}
	key, name := keyQuery, r.Settings[keyQueryName]
	if r.Settings[keyQuery] == "" && name != "" {
		key = name
	}
	query := strings.TrimSpace(r.Settings[key])
	switch {
	case query == "" && key == name:
		return sample.Query{}, collectors.BadKey(key, "is missing, and %s says that it holds the query", keyQueryName)
	case query == "":
		return sample.Query{}, collectors.BadKey(key, "is missing")
	case len(query) > maxQuery:
		return sample.Query{}, collectors.BadKey(key, "the query has %d bytes, more than %d", len(query), maxQuery)
	}
	settings := sample.Settings{keyQuery: query}

	if address := strings.TrimSpace(r.Settings[keyAddress]); address != "" {
		u, err := parseAddress(address)
		if err != nil {
			return sample.Query{}, &collectors.KeyError{Key: keyAddress, Err: err}
		}
		if s.address == nil || u.String() != s.address.String() { // else it is the operator's all the same
			if err := s.config.Tenant.Check(u); err != nil {
				return sample.Query{}, &collectors.KeyError{Key: keyAddress, Err: err}
			}
			settings[keyAddress] = u.String()
		}
	} else if s.address == nil {
		return sample.Query{}, collectors.BadKey(keyAddress, "is missing, and Kubetide has no InfluxDB of its own (--influxdb-address)")
	}

	switch secret, token := r.Settings[keySecret], r.Settings[keyToken]; {
	case secret != "" && token != "":
		return sample.Query{}, collectors.BadKey(keyToken, "it cannot be used together with %s", keySecret)
	case secret != "":
		if err := collectors.CheckSecretName(secret); err != nil {
			return sample.Query{}, err
		}
		if s.config.Secrets == nil {
			return sample.Query{}, collectors.BadKey(keySecret, "Kubetide reads no Secrets here")
		}
		settings[keySecret] = secret
	case token != "":
		if len(token) > maxToken || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
			return sample.Query{}, collectors.BadKey(keyToken, "it is not one word of at most %d bytes", maxToken)
		}
		settings[keyToken] = token
	}

	if org := r.Settings[keyOrg]; len(org) > maxOrg {
		return sample.Query{}, collectors.BadKey(keyOrg, "it is longer than %d bytes", maxOrg)
	} else if org != "" {
		settings[keyOrg] = org
	}
	return r.Query(Name, settings), nil
}

// parseAddress reads the URL of a server, perhaps below a path.
func parseAddress(text string) (*url.URL, error) {
	if len(text) > maxAddress {
		return nil, fmt.Errorf("the URL is longer than %d bytes", maxAddress)
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("it is no URL such as http://influxdb.monitoring:8086")
	}
	return u, nil
}

// Open implements collectors.Source.
func (s *Source) Open(q sample.Query) (collectors.Collector, error) {
	settings, err := sample.DecodeSettings(q.Settings)
	if err != nil {
		return nil, err
	}
	c := &collector{
		config: &s.config, namespace: q.Namespace, address: s.address, client: s.config.Operator,
		org: cmp.Or(settings[keyOrg], s.config.Org), secret: settings[keySecret], token: settings[keyToken],
	}
	if address := settings[keyAddress]; address != "" {
		if c.address, err = parseAddress(address); err != nil {
			return nil, err
		}
		c.client, c.foreign = s.config.Tenant, true
	}
	if c.address == nil {
		return nil, errors.New("there is no InfluxDB to ask (--influxdb-address)")
	}
	c.body, err = json.Marshal(request{Query: settings[keyQuery], Type: "flux", Dialect: dialect{
		Header: true, Delimiter: ",", CommentPrefix: "#", Annotations: []string{"datatype", "group", "default"}}})
	return c, err
}

// request is the body of a query, as the API of InfluxDB 2 has it.
type request struct {
	Query   string  `json:"query"`
	Type    string  `json:"type"`
	Dialect dialect `json:"dialect"`
}

type dialect struct {
	Header        bool     `json:"header"`
	Delimiter     string   `json:"delimiter"`
	CommentPrefix string   `json:"commentPrefix"`
	Annotations   []string `json:"annotations"`
}

type collector struct {
	config    *Config
	namespace string
	address   *url.URL
	foreign   bool // the asker chose the address
	client    *outbound.Client
	org       string
	secret    string
	token     string
	body      []byte
}

// Collect returns the value of the result's first row. Further rows, and a token in an annotation, are a warning.
func (c *collector) Collect(ctx context.Context) ([]sample.Point, error) {
	milli, rows, err := c.ask(ctx)
	if err != nil {
		return nil, fmt.Errorf("influxdb %s: %w", c.address.Host, err)
	}
	var warning warnings
	if c.token != "" {
		warning = append(warning, fmt.Sprintf("the annotation %q can be read by all who can read the HPA; put the token into a Secret and name that by %q", keyToken, keySecret))
	}
	if rows > 1 {
		warning = append(warning, "the query gives several rows, and the value of the first is served; make it one, with group() |> sum() for example")
	}
	points := []sample.Point{{Milli: milli}}
	if len(warning) > 0 {
		return points, &collectors.Warning{Err: warning}
	}
	return points, nil
}

type warnings []string

func (w warnings) Error() string { return strings.Join(w, "; ") }

func (c *collector) ask(ctx context.Context) (milli int64, rows int, err error) {
	client, credentials, err := c.login(ctx)
	if err != nil {
		return 0, 0, err
	}
	u := c.address.JoinPath("api", "v2", "query")
	u.Path = "/" + strings.TrimPrefix(u.Path, "/") // JoinPath begins a path without it where there was none
	if c.org != "" {
		u.RawQuery = url.Values{"org": {c.org}}.Encode()
	}
	response, err := client.Do(ctx, outbound.Request{
		Namespace: c.namespace, Collector: Name, Method: http.MethodPost, URL: u, Body: c.body, Credentials: credentials,
		Header: http.Header{"Content-Type": {"application/json"}, "Accept": {"application/csv"}},
	})
	if err != nil {
		return 0, 0, err
	}
	if response.Status != http.StatusOK {
		return 0, 0, c.refusal(response)
	}
	milli, rows, err = value(response.Body)
	if query := (*queryError)(nil); c.foreign && errors.As(err, &query) {
		err = errors.New("the query failed")
	}
	return milli, rows, err
}

// login returns the client and what it is to send: the asker's credentials, or for the operator's server those of the operator.
func (c *collector) login(ctx context.Context) (*outbound.Client, *outbound.Credentials, error) {
	client, credentials := c.client, (*outbound.Credentials)(nil)
	switch {
	case c.secret != "":
		var err error
		if client, credentials, err = collectors.Login(ctx, c.config.Secrets, client, c.namespace, c.secret); err != nil {
			return nil, nil, err
		}
	case c.token != "":
		credentials = &outbound.Credentials{Host: c.address.Host, Token: c.token}
	case !c.foreign:
		var err error
		if credentials, err = c.config.Token.For(c.address.Host); err != nil {
			return nil, nil, err
		}
	}
	if credentials != nil {
		credentials.Scheme = "Token"
	}
	return client, credentials, nil
}

// refusal is what the operator's server says of a query that it does not run. Of a server that an asker chose it tells the
// status alone: it may be no InfluxDB, and nobody should read there through Kubetide's errors.
func (c *collector) refusal(r *outbound.Response) error {
	status := &outbound.StatusError{Status: r.Status}
	var said struct{ Code, Message string }
	if c.foreign || json.Unmarshal(r.Body, &said) != nil || said.Message == "" {
		return status
	}
	return fmt.Errorf("%w: %.300q", status, said.Message)
}
