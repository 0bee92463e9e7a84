package main

import (
	"fmt"
	stdlog "log"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	metricsclient "k8s.io/metrics/pkg/client/clientset/versioned"
	"k8s.io/utils/clock"

	"github.com/kubetide/kubetide/adapter"
	"github.com/kubetide/kubetide/collectors/cron"
	"github.com/kubetide/kubetide/collectors/externalrps"
	"github.com/kubetide/kubetide/collectors/httpjson"
	"github.com/kubetide/kubetide/collectors/influxdb"
	"github.com/kubetide/kubetide/collectors/nakadi"
	"github.com/kubetide/kubetide/collectors/podjson"
	promsource "github.com/kubetide/kubetide/collectors/prometheus"
	"github.com/kubetide/kubetide/collectors/resource"
	"github.com/kubetide/kubetide/collectors/skipper"
	"github.com/kubetide/kubetide/collectors/sqs"
	"github.com/kubetide/kubetide/collectors/static"
	"github.com/kubetide/kubetide/collectors/zmon"
	"github.com/kubetide/kubetide/internal/bearer"
	"github.com/kubetide/kubetide/internal/config"
	"github.com/kubetide/kubetide/internal/outbound"
	"github.com/kubetide/kubetide/internal/sample"
)

// registerSources makes the configured sources known. A source that is not configured is not there, so that an HPA which asks
// for it is told.
func registerSources(a *adapter.Adapter, c *config.Config, clients clients, podMetrics metricsclient.Interface) error {
	registry, now := a.Registry(), clock.RealClock{}
	registry.Register(sample.Pods, podjson.New(a.Pods(), a.Scales(), clients.tenant, now), podjson.Name)
	registry.Register(sample.Resource, resource.New(a.Pods(), a.Scales(), podMetrics.MetricsV1beta1(), now), resource.Name)
	registry.Register(sample.External, static.Source{}, static.Name)
	registry.Register(sample.External, cron.Source{Clock: now}, cron.Name)
	registry.Register(sample.External, httpjson.New(httpjson.Config{Client: clients.tenant, Secrets: a.Secrets(), Clock: now}), httpjson.Name, httpjson.LegacyName)

	var named []promsource.Server
	for _, s := range c.Prometheus.Servers() {
		named = append(named, promsource.Server(s))
	}
	servers, err := promsource.NewServers(named, clients.operator, now)
	if err != nil {
		return err
	}
	confine := ""
	if c.Prometheus.ConfineQueries {
		confine = c.Prometheus.NamespaceLabel
	}
	queries, err := promsource.New(promsource.Config{Servers: servers, Tenant: clients.tenant, Secrets: a.Secrets(), NamespaceLabel: confine, Clock: now})
	if err != nil {
		return err
	}
	registry.Register(sample.External, queries, promsource.Name, promsource.LegacyName)
	registry.Register(sample.Object, queries, promsource.Name)

	if c.Ingress.SkipperIngressMetrics || c.Ingress.SkipperRouteGroupMetrics {
		skipper.New(skipper.Config{
			Routes: a.Routes(), Prometheus: servers,
			Ingresses: c.Ingress.SkipperIngressMetrics, RouteGroups: c.Ingress.SkipperRouteGroupMetrics,
			BackendsAnnotations: c.Ingress.SkipperBackendsAnnotations, RouteGroupWeightSum: c.Ingress.RouteGroupWeightSum,
		}).Register(registry)
	}
	if c.Ingress.ExternalRPSMetrics {
		registry.Register(sample.External, externalrps.New(externalrps.Config{
			Prometheus: servers, MetricName: c.Ingress.ExternalRPSMetricName, HostLabel: c.Ingress.ExternalRPSHostLabel,
		}), externalrps.Name)
	}
	if c.AWS.ExternalMetrics {
		queues, err := sqs.New(sqs.Config{Regions: c.AWS.Regions, Endpoint: c.AWS.SQSEndpoint, AssumableRoles: c.AWS.AssumableRoles}, clients.operator, now)
		if err != nil {
			return err
		}
		registry.Register(sample.External, queues, sqs.Name)
	}
	flux, err := influxdb.New(influxdb.Config{
		Address: c.Sources.InfluxDBAddress, Org: c.Sources.InfluxDBOrg,
		Token:    bearer.Token{Text: c.Sources.InfluxDBToken, File: c.Sources.InfluxDBTokenFile},
		Operator: clients.operator, Tenant: clients.tenant, Secrets: a.Secrets(),
	})
	if err != nil {
		return err
	}
	registry.Register(sample.External, flux, influxdb.Name, influxdb.LegacyName)
	if c.Sources.ZMONEndpoint != "" {
		checks, err := zmon.New(zmon.Config{
			Endpoint: c.Sources.ZMONEndpoint, Token: bearer.Named(c.Sources.Token, c.Sources.CredentialsDir, c.Sources.ZMONTokenName),
			Client: clients.operator, Clock: now,
		})
		if err != nil {
			return err
		}
		registry.Register(sample.External, checks, zmon.Name, zmon.LegacyName)
	}
	if c.Sources.NakadiEndpoint != "" {
		events, err := nakadi.New(nakadi.Config{
			Endpoint: c.Sources.NakadiEndpoint, Token: bearer.Named(c.Sources.Token, c.Sources.CredentialsDir, c.Sources.NakadiTokenName),
			Client: clients.operator, Clock: now,
		})
		if err != nil {
			return err
		}
		registry.Register(sample.External, events, nakadi.Name)
	}
	return nil
}

// clients are the two ways out: to addresses that tenants choose, and to those that the operator did.
type clients struct{ tenant, operator *outbound.Client }

func newClients(c *config.Config, apiServer *outbound.Addresses, registerer prometheus.Registerer, log logr.Logger) (clients, error) {
	allow, err := outbound.ParsePrefixes(c.Outbound.Allow)
	if err != nil {
		return clients{}, fmt.Errorf("--outbound-allow: %w", err)
	}
	hosts, err := outbound.ParseHosts(c.Outbound.Hosts)
	if err != nil {
		return clients{}, fmt.Errorf("--outbound-hosts: %w", err)
	}
	ports, err := outbound.ParsePorts(c.Outbound.Ports)
	if err != nil {
		return clients{}, fmt.Errorf("--outbound-ports: %w", err)
	}
	stdlog.SetOutput(outbound.StandardLog(func(line string) { log.Info("A server speaks out of turn", "said", line) }))
	count, budget := outbound.NewMetrics(registerer), outbound.Budget{PerSecond: c.Outbound.RequestsPerSecond}
	return clients{
		tenant:   outbound.New(outbound.Options{Policy: outbound.NewPolicy(allow, apiServer), Hosts: hosts, Ports: ports, Budget: budget, Metrics: count}),
		operator: outbound.New(outbound.Options{Policy: outbound.Anywhere, Budget: budget, Metrics: count}),
	}, nil
}
