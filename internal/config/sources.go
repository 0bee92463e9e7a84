package config

import (
	"net/url"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/kubetide/kubetide/internal/outbound"
)

// Prometheus is where PromQL is asked, and what tenants' PromQL may see.
type Prometheus struct {
	Server          string
	ServerTokenFile string
	// Additional and AdditionalTokenFiles are name=value.
	Additional           []string
	AdditionalTokenFiles []string
	// CredentialsDirs are dir for the default server, name=dir for an additional one.
	CredentialsDirs []string
	ConfineQueries  bool
	NamespaceLabel  string
}

// PrometheusServer is one server that the operator named; the default one has the name "".
type PrometheusServer struct {
	Name, URL, TokenFile, CredentialsDir string
}

// Servers joins what the flags say about each server, the default one first.
func (c *Prometheus) Servers() []PrometheusServer {
	var servers []PrometheusServer
	if c.Server != "" {
		servers = append(servers, PrometheusServer{URL: c.Server, TokenFile: c.ServerTokenFile})
	}
	for _, pair := range c.Additional {
		name, address, _ := strings.Cut(pair, "=")
		servers = append(servers, PrometheusServer{Name: name, URL: address})
	}
	for i := range servers {
		for _, pair := range c.AdditionalTokenFiles {
			if name, file, _ := strings.Cut(pair, "="); name == servers[i].Name {
				servers[i].TokenFile = file
			}
		}
		for _, pair := range c.CredentialsDirs {
			name, dir, named := strings.Cut(pair, "=")
			if !named {
				name, dir = "", pair
			}
			if name == servers[i].Name {
				servers[i].CredentialsDir = dir
			}
		}
	}
	return servers
}

// RegisterFlags binds the settings to flags; most names are kube-metrics-adapter's.
func (c *Prometheus) RegisterFlags(fs *pflag.FlagSet, _ string) {
	fs.StringVar(&c.Server, "prometheus-server", c.Server, "The `URL` of the Prometheus that queries go to which name no other. Empty: there is none.")
	fs.StringVar(&c.ServerTokenFile, "prometheus-server-token-file", c.ServerTokenFile, "The `file` with the bearer token for --prometheus-server; read again when it changes.")
	fs.StringSliceVar(&c.Additional, "additional-prometheus-server", c.Additional, "Further servers as `name=URL`, for the annotation prometheus-server-alias. May be repeated.")
	fs.StringSliceVar(&c.AdditionalTokenFiles, "additional-prometheus-server-token-file", c.AdditionalTokenFiles, "Their bearer tokens' files as `name=file`. May be repeated.")
	fs.StringSliceVar(&c.CredentialsDirs, "prometheus-server-credentials-dir", c.CredentialsDirs,
		"Credentials as `[name=]folder` with the files token, or username and password, and ca.crt, tls.crt and tls.key as far as they are needed. May be repeated.")
	fs.BoolVar(&c.ConfineQueries, "prometheus-confine-queries", c.ConfineQueries,
		"Let the PromQL of an HPA see the series of its own namespace only: each selector gets a matcher for it.")
	fs.StringVar(&c.NamespaceLabel, "prometheus-namespace-label", c.NamespaceLabel, "The label of series that holds their namespace, for --prometheus-confine-queries.")
}

// Validate returns all mistakes at once.
func (c *Prometheus) Validate() error {
	var bad mistakes
	bad.url("prometheus-server", c.Server)
	if c.ServerTokenFile != "" && c.Server == "" {
		bad.add("prometheus-server-token-file", "has no --prometheus-server to be for")
	}
	names := map[string]bool{}
	for _, pair := range c.Additional {
		name, address, ok := strings.Cut(pair, "=")
		switch {
		case !ok || name == "" || address == "":
			bad.add("additional-prometheus-server", "must be name=URL, is %q", pair)
		case names[name]:
			bad.add("additional-prometheus-server", "names %q twice", name)
		default:
			bad.url("additional-prometheus-server", address)
		}
		names[name] = true
	}
	for _, pair := range c.AdditionalTokenFiles {
		if name, file, ok := strings.Cut(pair, "="); !ok || name == "" || file == "" {
			bad.add("additional-prometheus-server-token-file", "must be name=file, is %q", pair)
		} else if !names[name] {
			bad.add("additional-prometheus-server-token-file", "there is no --additional-prometheus-server %q", name)
		}
	}
	for _, pair := range c.CredentialsDirs {
		name, dir, named := strings.Cut(pair, "=")
		switch {
		case named && !names[name]:
			bad.add("prometheus-server-credentials-dir", "there is no --additional-prometheus-server %q", name)
		case named && dir == "" || pair == "":
			bad.add("prometheus-server-credentials-dir", "names no folder")
		case !named && c.Server == "":
			bad.add("prometheus-server-credentials-dir", "has no --prometheus-server to be for")
		}
	}
	if c.NamespaceLabel == "" {
		bad.add("prometheus-namespace-label", "must not be empty")
	}
	return bad.err()
}

// Ingress is how requests per second are found.
type Ingress struct {
	SkipperIngressMetrics      bool
	SkipperRouteGroupMetrics   bool
	SkipperBackendsAnnotations []string
	RouteGroupWeightSum        bool
	ExternalRPSMetrics         bool
	ExternalRPSMetricName      string
	ExternalRPSHostLabel       string
}

// RegisterFlags binds the settings to flags; most names are kube-metrics-adapter's.
func (c *Ingress) RegisterFlags(fs *pflag.FlagSet, _ string) {
	fs.BoolVar(&c.SkipperIngressMetrics, "skipper-ingress-metrics", c.SkipperIngressMetrics, "Serve requests-per-second of Ingresses behind skipper.")
	fs.BoolVar(&c.SkipperRouteGroupMetrics, "skipper-routegroup-metrics", c.SkipperRouteGroupMetrics, "Serve requests-per-second of RouteGroups.")
	fs.StringSliceVar(&c.SkipperBackendsAnnotations, "skipper-backends-annotation", c.SkipperBackendsAnnotations,
		"An `annotation` of Ingresses that holds the backends' weights. May be repeated; the greatest weight counts.")
	fs.BoolVar(&c.RouteGroupWeightSum, "skipper-routegroup-weight-sum", c.RouteGroupWeightSum,
		"Divide a RouteGroup's backend weight by the sum of the weights, as skipper does, not by 100 as kube-metrics-adapter does.")
	fs.BoolVar(&c.ExternalRPSMetrics, "external-rps-metrics", c.ExternalRPSMetrics, "Serve requests per second of host names as External metrics.")
	fs.StringVar(&c.ExternalRPSMetricName, "external-rps-metric-name", c.ExternalRPSMetricName, "The counter of requests that they are made of.")
	fs.StringVar(&c.ExternalRPSHostLabel, "external-rps-host-label", c.ExternalRPSHostLabel, "Its label that holds the host, with _ for each dot.")
}

// Validate returns all mistakes at once.
func (c *Ingress) Validate() error {
	var bad mistakes
	if c.ExternalRPSMetricName == "" {
		bad.add("external-rps-metric-name", "must not be empty")
	}
	if c.ExternalRPSHostLabel == "" {
		bad.add("external-rps-host-label", "must not be empty")
	}
	if slices.Contains(c.SkipperBackendsAnnotations, "") {
		bad.add("skipper-backends-annotation", "must not be empty")
	}
	return bad.err()
}

// AWS is which queues may be asked.
type AWS struct {
	ExternalMetrics bool
	Regions         []string
	SQSEndpoint     string
	AssumableRoles  []string
}

// RegisterFlags binds the settings to flags below the prefix.
func (c *AWS) RegisterFlags(fs *pflag.FlagSet, prefix string) {
	fs.BoolVar(&c.ExternalMetrics, prefix+"external-metrics", c.ExternalMetrics, "Serve the lengths of SQS queues.")
	fs.StringSliceVar(&c.Regions, prefix+"region", c.Regions, "A `region` that may be asked, also one that this version does not know. May be repeated. None: all that it knows.")
	fs.StringVar(&c.SQSEndpoint, prefix+"sqs-endpoint", c.SQSEndpoint, "The `URL` of SQS in all regions, a VPC endpoint for example. Empty: that of the region.")
	fs.StringSliceVar(&c.AssumableRoles, prefix+"assumable-roles", c.AssumableRoles,
		"Patterns of role `ARNs` that HPAs may name; * stands for any text, {namespace} for the HPA's namespace. May be repeated. None: no role can be assumed.")
}

// Validate returns all mistakes at once.
func (c *AWS) Validate() error {
	var bad mistakes
	bad.url("aws-sqs-endpoint", c.SQSEndpoint)
	for _, pattern := range c.AssumableRoles {
		if !strings.HasPrefix(pattern, "arn:") {
			bad.add("aws-assumable-roles", "%q is no role's ARN", pattern)
		}
	}
	return bad.err()
}

// Sources are the addresses and credentials of the other systems that are asked.
type Sources struct {
	InfluxDBAddress, InfluxDBToken, InfluxDBTokenFile, InfluxDBOrg string
	ZMONEndpoint, ZMONTokenName                                    string
	NakadiEndpoint, NakadiTokenName                                string
	// Token is used for ZMON and Nakadi instead of the files in CredentialsDir.
	Token, CredentialsDir string
}

// RegisterFlags binds the settings to flags without a prefix, under kube-metrics-adapter's names.
func (c *Sources) RegisterFlags(fs *pflag.FlagSet, _ string) {
	fs.StringVar(&c.InfluxDBAddress, "influxdb-address", c.InfluxDBAddress, "The `URL` of an InfluxDB 2. Empty: only metrics that name one themselves.")
	fs.StringVar(&c.InfluxDBToken, "influxdb-token", c.InfluxDBToken, "Its token. A process's arguments can be read by others on its machine: prefer --influxdb-token-file.")
	fs.StringVar(&c.InfluxDBTokenFile, "influxdb-token-file", c.InfluxDBTokenFile, "The `file` with its token; read again when it changes.")
	fs.StringVar(&c.InfluxDBOrg, "influxdb-org", c.InfluxDBOrg, "Its organization.")
	fs.StringVar(&c.ZMONEndpoint, "zmon-kariosdb-endpoint", c.ZMONEndpoint, "The `URL` of ZMON's KairosDB. Empty: no ZMON metrics.")
	fs.StringVar(&c.ZMONTokenName, "zmon-token-name", c.ZMONTokenName, "The `name` of its token in --credentials-dir.")
	fs.StringVar(&c.NakadiEndpoint, "nakadi-endpoint", c.NakadiEndpoint, "The `URL` of Nakadi. Empty: no Nakadi metrics.")
	fs.StringVar(&c.NakadiTokenName, "nakadi-token-name", c.NakadiTokenName, "The `name` of its token in --credentials-dir.")
	fs.StringVar(&c.Token, "token", c.Token, "The token for ZMON and Nakadi, instead of one in --credentials-dir.")
	fs.StringVar(&c.CredentialsDir, "credentials-dir", c.CredentialsDir, "The `folder` with the tokens of ZMON and Nakadi.")
}

// Validate returns all mistakes at once.
func (c *Sources) Validate() error {
	var bad mistakes
	bad.url("influxdb-address", c.InfluxDBAddress)
	bad.url("zmon-kariosdb-endpoint", c.ZMONEndpoint)
	bad.url("nakadi-endpoint", c.NakadiEndpoint)
	if c.InfluxDBToken != "" && c.InfluxDBTokenFile != "" {
		bad.add("influxdb-token", "cannot be used together with --influxdb-token-file")
	}
	return bad.err()
}

// Outbound is what may be reached for tenants.
type Outbound struct {
	Allow             []string
	Hosts             []string
	Ports             []string
	RequestsPerSecond float64
}

// RegisterFlags binds the settings to flags below the prefix.
func (c *Outbound) RegisterFlags(fs *pflag.FlagSet, prefix string) {
	fs.StringSliceVar(&c.Allow, prefix+"allow", c.Allow,
		"Networks (`CIDRs`) that HPAs' addresses may lead to although they are refused by default: loopback, link-local, metadata, the API server.")
	fs.StringSliceVar(&c.Hosts, prefix+"hosts", c.Hosts, "The only `hosts` that HPAs' addresses may name, exactly or as *.example.org. None: every host.")
	fs.StringSliceVar(&c.Ports, prefix+"ports", c.Ports, "The only `ports`, as 443 or 8000-8999, that HPAs' addresses may name; those of their own pods are not meant. None: every port.")
	fs.Float64Var(&c.RequestsPerSecond, prefix+"requests-per-second", c.RequestsPerSecond, "How many requests a second are made for one namespace, on average.")
}

// Validate returns all mistakes at once.
func (c *Outbound) Validate() error {
	var bad mistakes
	if _, err := outbound.ParsePrefixes(c.Allow); err != nil {
		bad.add("outbound-allow", "%v", err)
	}
	if _, err := outbound.ParseHosts(c.Hosts); err != nil {
		bad.add("outbound-hosts", "%v", err)
	}
	if _, err := outbound.ParsePorts(c.Ports); err != nil {
		bad.add("outbound-ports", "%v", err)
	}
	if !(c.RequestsPerSecond > 0) {
		bad.add("outbound-requests-per-second", "must be above 0, is %v", c.RequestsPerSecond)
	}
	return bad.err()
}

func (m *mistakes) url(flag, text string) {
	if text == "" {
		return
	}
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		m.add(flag, "%q is no URL such as http://prometheus:9090", redacted(text))
	case u.User != nil:
		m.add(flag, "must not hold a user or a password; use a credentials file")
	}
}

func redacted(text string) string {
	if u, err := url.Parse(text); err == nil && !strings.Contains(u.Opaque, "@") {
		return u.Redacted()
	}
	return "..."
}
