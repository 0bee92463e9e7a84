// Package externalrps serves the requests per second to host names as an External metric: what Prometheus counts for them,
// times a weight. Prometheus is asked one question that Kubetide itself wrote; a tenant chooses hosts and weight only.
package externalrps

import (
	"context"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/kubetide/kubetide/collectors"
	"github.com/kubetide/kubetide/internal/sample"
	"github.com/kubetide/kubetide/internal/traffic"
)

const (
	// Name is the name of the source.
	Name = "requests-per-second"

	keyHostnames = "hostnames"
	keyWeight    = "weight"

	maxWeight = 1e6         // in percent
	window    = time.Minute // of the query
)

var hostname = regexp.MustCompile(`^[a-zA-Z0-9.-]+$`)

// Prometheus answers queries of Kubetide's own.
type Prometheus interface {
	// Instant returns the one value of the query and how old it is. A result without one finite value is a sample.ErrNoData.
	Instant(ctx context.Context, namespace, query string) (value float64, age time.Duration, err error)
}

// Config is what a Source needs.
type Config struct {
	Prometheus Prometheus
	// MetricName is the counter of requests; skipper's if empty.
	MetricName string
	// HostLabel is its label that holds the host, with _ for each dot; "host" if empty.
	HostLabel string
}

// Source serves External metrics.
type Source struct{ Config }

// New returns a Source.
func New(c Config) *Source {
	if c.MetricName == "" {
		c.MetricName = traffic.SkipperMetric
	}
	if c.HostLabel == "" {
		c.HostLabel = traffic.SkipperHostLabel
	}
	return &Source{c}
}

// Keys implements collectors.Source.
func (*Source) Keys() []string { return []string{keyHostnames, keyWeight} }

// Parse implements collectors.Source. Settings of the query are the hosts as they were written, and the weight as a fraction.
func (s *Source) Parse(r collectors.Request) (sample.Query, error) {
	hosts, err := hostnames(r.Settings[keyHostnames])
	if err != nil {
		return sample.Query{}, err
	}
	percent := 100.0
	if text, set := r.Settings[keyWeight]; set {
		percent, err = strconv.ParseFloat(strings.TrimSpace(text), 64)
		if err != nil || !(percent >= 0 && percent <= maxWeight) {
			return sample.Query{}, collectors.BadKey(keyWeight, "%q is not a number of percent from 0 to %.0f", text, maxWeight)
		}
	}
	weight := strconv.FormatFloat(percent/100, 'f', -1, 64)
	q := r.Query(Name, sample.Settings{keyHostnames: strings.Join(hosts, ","), keyWeight: weight})
	if _, err := s.Open(q); err != nil {
		return sample.Query{}, &collectors.KeyError{Key: keyHostnames, Err: err}
	}
	return q, nil
}

func hostnames(text string) ([]string, error) {
	if strings.TrimSpace(text) == "" {
		return nil, collectors.BadKey(keyHostnames, "it is required: host names, separated by commas")
	}
	hosts := strings.Split(text, ",")
	for i := range hosts {
		hosts[i] = strings.TrimSpace(hosts[i])
		if !hostname.MatchString(hosts[i]) {
			return nil, collectors.BadKey(keyHostnames, "%q is not a host name: it may have letters, digits, dots and dashes", hosts[i])
		}
	}
	return hosts, nil
}

// Open implements collectors.Source.
func (s *Source) Open(q sample.Query) (collectors.Collector, error) {
	settings, err := sample.DecodeSettings(q.Settings)
	if err != nil {
		return nil, err
	}
	c := &collector{prometheus: s.Prometheus, namespace: q.Namespace}
	if c.weight, err = strconv.ParseFloat(settings[keyWeight], 64); err != nil {
		return nil, collectors.BadKey(keyWeight, "%w", err)
	}
	c.promql, err = traffic.RateQuery(s.MetricName, s.HostLabel, strings.Split(settings[keyHostnames], ","), c.weight)
	return c, err
}

type collector struct {
	prometheus Prometheus
	namespace  string
	weight     float64
	promql     string
}

// Collect implements collectors.Collector.
func (c *collector) Collect(ctx context.Context) ([]sample.Point, error) {
	if c.weight == 0 { // StackSets give it to a stack without traffic, whose hosts may have no request yet
		return []sample.Point{{Window: window}}, nil
	}
	value, age, err := c.prometheus.Instant(ctx, c.namespace, c.promql)
	if err != nil {
		return nil, err
	}
	milli, err := sample.Milli(value)
	if err != nil {
		return nil, err
	}
	return []sample.Point{{Milli: milli, Window: window, Age: age}}, nil
}
