// Package nakadi collects how far the consumers of Nakadi subscriptions are behind, as External metrics. It asks the one
// server that the operator named, with the operator's token, and tries again within the time of a collection.
package nakadi

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"k8s.io/utils/clock"

	"github.com/kubetide/kubetide/collectors"
	"github.com/kubetide/kubetide/internal/bearer"
	"github.com/kubetide/kubetide/internal/outbound"
	"github.com/kubetide/kubetide/internal/sample"
)

// Name is the `type` label that asks for this source.
const Name = "nakadi"

const (
	keyMetricType        = "metric-type"
	keySubscriptionID    = "subscription-id"
	keyOwningApplication = "owning-application"
	keyEventTypes        = "event-types"
	keyConsumerGroup     = "consumer-group"

	consumerLag = "consumer-lag-seconds"
	unconsumed  = "unconsumed-events"

	maxEventTypes = 50
	maxText       = 256
)

// Config is what a Source needs.
type Config struct {
	// Endpoint is the URL of Nakadi.
	Endpoint string
	Token    bearer.Token
	// Client is the one for addresses that the operator chose.
	Client *outbound.Client
	// Clock waits before another try.
	Clock clock.Clock
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
		return nil, fmt.Errorf("nakadi: the endpoint: %w", err)
	}
	u.Path = strings.TrimSuffix(u.Path, "/")
	return &Source{o, u}, nil
}

// Keys implements collectors.Source.
func (s *Source) Keys() []string {
	return []string{keyMetricType, keySubscriptionID, keyOwningApplication, keyEventTypes, keyConsumerGroup}
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
	asked, _, err := parse(settings)
	if err != nil {
		return nil, err
	}
	return &collector{server: server{s, q.Namespace}, question: asked}, nil
}

// question is what the settings mean.
type question struct {
	metric string
	// id is that of one subscription; empty: those that the rest describes.
	id            string
	application   string
	eventTypes    []string
	consumerGroup string
}

// identifier keeps what is put into a path from leading elsewhere.
var identifier = regexp.MustCompile(`^[A-Za-z0-9_-]{1,100}$`)

func parse(s sample.Settings) (q question, canonical sample.Settings, err error) {
	q.metric = s[keyMetricType]
	switch q.metric {
	case consumerLag, unconsumed:
	case "":
		return q, nil, collectors.BadKey(keyMetricType, "is missing: %s or %s", consumerLag, unconsumed)
	default:
		return q, nil, collectors.BadKey(keyMetricType, "%.40q is neither %s nor %s", q.metric, consumerLag, unconsumed)
	}
	canonical = sample.Settings{keyMetricType: q.metric}

	filter := []string{keyOwningApplication, keyEventTypes, keyConsumerGroup}
	if q.id = s[keySubscriptionID]; q.id != "" {
		for _, key := range filter {
			if s[key] != "" {
				return q, nil, collectors.BadKey(key, "it cannot be used together with %s", keySubscriptionID)
			}
		}
		if !identifier.MatchString(q.id) {
			return q, nil, collectors.BadKey(keySubscriptionID, "%.100q is no subscription's ID", q.id)
		}
		canonical[keySubscriptionID] = q.id
		return q, canonical, nil
	}
	if !slices.ContainsFunc(filter, func(key string) bool { return s[key] != "" }) {
		return q, nil, collectors.BadKey(keySubscriptionID, "it, or %s, is required", strings.Join(filter, " and "))
	}
	for _, key := range filter {
		switch {
		case s[key] == "":
			return q, nil, collectors.BadKey(key, "is missing: %s are required together", strings.Join(filter, ", "))
		case key != keyEventTypes && len(s[key]) > maxText:
			return q, nil, collectors.BadKey(key, "it is longer than %d bytes", maxText)
		}
		canonical[key] = s[key]
	}
	q.application, q.consumerGroup = s[keyOwningApplication], s[keyConsumerGroup]
	for name := range strings.SplitSeq(s[keyEventTypes], ",") {
		if name = strings.TrimSpace(name); name == "" || len(name) > maxText {
			return q, nil, collectors.BadKey(keyEventTypes, "each event type has 1 to %d bytes; there is one with %d", maxText, len(name))
		}
		q.eventTypes = append(q.eventTypes, name)
	}
	slices.Sort(q.eventTypes)
	q.eventTypes = slices.Compact(q.eventTypes)
	if len(q.eventTypes) > maxEventTypes {
		return q, nil, collectors.BadKey(keyEventTypes, "there are more than %d", maxEventTypes)
	}
	canonical[keyEventTypes] = strings.Join(q.eventTypes, ",")
	return q, canonical, nil
}

type collector struct {
	server   server
	question question
}

// Collect returns the greatest lag of all partitions in seconds, or the sum of their events that are not consumed.
func (c *collector) Collect(ctx context.Context) ([]sample.Point, error) {
	milli, err := c.value(ctx)
	if err != nil {
		return nil, fmt.Errorf("nakadi %s: %w", c.server.source.endpoint.Host, err)
	}
	return []sample.Point{{Milli: milli}}, nil
}

func (c *collector) value(ctx context.Context) (int64, error) {
	ids := []string{c.question.id}
	if c.question.id == "" {
		var err error
		if ids, err = c.server.subscriptions(ctx, c.question); err != nil {
			return 0, err
		}
		if len(ids) == 0 {
			return 0, errors.New("no subscription has this owning application, consumer group and these event types")
		}
	}
	var value float64
	eventTypes, partitions := 0, 0
	for _, id := range ids {
		stats, err := c.server.stats(ctx, id)
		if err != nil {
			return 0, err
		}
		eventTypes += len(stats)
		for _, eventType := range stats {
			for _, p := range eventType.Partitions {
				switch n := p.ConsumerLagSeconds; {
				case c.question.metric == consumerLag && n != nil:
					partitions++
					value = max(value, *n)
				case c.question.metric == unconsumed && p.UnconsumedEvents != nil:
					partitions++
					value += *p.UnconsumedEvents
				}
			}
		}
	}
	switch {
	case eventTypes == 0:
		return 0, errors.New("expected at least 1 event-type, 0 returned")
	case partitions == 0:
		return 0, sample.NoData("no partition says its %s, since nothing was consumed yet", c.question.metric)
	}
	return sample.Milli(value)
}
