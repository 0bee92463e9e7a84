// Package sqs collects the length of an Amazon SQS queue. It speaks to SQS, and to STS where a role has to be assumed, through
// the bounded client for addresses that the operator configured; AWS' own library finds Kubetide's credentials. A tenant names
// queues, regions and roles, but never an address that a request goes to.
package sqs

import (
	"context"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"k8s.io/utils/clock"

	"github.com/kubetide/kubetide/collectors"
	"github.com/kubetide/kubetide/internal/outbound"
	"github.com/kubetide/kubetide/internal/sample"
)

// Name is the `type` label of kube-metrics-adapter's collector.
const Name = "sqs-queue-length"

// Source serves External metrics.
type Source struct {
	Config
	endpoint *url.URL // nil: that of the region
	http     tenantHTTP
	clock    clock.PassiveClock

	mu      sync.Mutex // protects current
	current *session   // nil before the first collection
}

// New returns the source. The client is that for addresses which the operator configured. Errors name a bad setting.
func New(c Config, client *outbound.Client, clock clock.PassiveClock) (*Source, error) {
	s := &Source{Config: c, http: tenantHTTP{client}, clock: clock}
	for _, region := range c.Regions {
		if !regionForm.MatchString(region) {
			return nil, fmt.Errorf("%q is not a region such as eu-central-1", region)
		}
	}
	for _, pattern := range c.AssumableRoles {
		if !strings.HasPrefix(pattern, "arn:") {
			return nil, fmt.Errorf("the pattern %q of assumable roles does not begin as an ARN", pattern)
		}
	}
	if c.Endpoint != "" {
		u, err := url.Parse(c.Endpoint)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return nil, fmt.Errorf("the endpoint %q of SQS is not a URL such as https://sqs.example.org", c.Endpoint)
		}
		s.endpoint = u
	}
	return s, nil
}

// Keys implements collectors.Source.
func (s *Source) Keys() []string {
	return []string{keyQueue, keyRegion, keyAccount, keyInclude, keyRole}
}

// Parse implements collectors.Source.
func (s *Source) Parse(r collectors.Request) (sample.Query, error) {
	if r.Kind != sample.External {
		return sample.Query{}, fmt.Errorf("the collector %s serves External metrics, not %s", Name, r.Kind)
	}
	_, canonical, err := s.parse(r.Namespace, r.Settings)
	if err != nil {
		return sample.Query{}, err
	}
	return r.Query(Name, canonical), nil
}

// Open implements collectors.Source. It checks again what Parse did: another node may allow more than this one.
func (s *Source) Open(q sample.Query) (collectors.Collector, error) {
	settings, err := sample.DecodeSettings(q.Settings)
	if err != nil {
		return nil, err
	}
	c, _, err := s.parse(q.Namespace, settings)
	if err != nil {
		return nil, err
	}
	return &collector{source: s, namespace: q.Namespace, config: c}, nil
}

type collector struct {
	source    *Source
	namespace string
	config    config
	url       atomic.Pointer[string] // nil: not known, or the queue was gone when it was last used
}

// Collect asks for the queue's URL the first time, and for its attributes each time.
func (c *collector) Collect(ctx context.Context) ([]sample.Point, error) {
	ctx = context.WithValue(ctx, tenant{}, c.namespace)
	session, err := c.source.session(ctx, c.config.region)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.config, err)
	}
	client := session.queues(c.config.region)
	identity := session.identity(c.config.region, c.config.role, c.namespace)
	as := func(o *sqs.Options) { o.Credentials = identity }

	queue := c.url.Load()
	if queue == nil {
		in := &sqs.GetQueueUrlInput{QueueName: aws.String(c.config.queue)}
		if c.config.account != "" {
			in.QueueOwnerAWSAccountId = aws.String(c.config.account)
		}
		out, err := client.GetQueueUrl(ctx, in, as)
		if err != nil {
			return nil, c.explain("sqs:GetQueueUrl", err)
		}
		if aws.ToString(out.QueueUrl) == "" {
			return nil, fmt.Errorf("%s: the answer to sqs:GetQueueUrl has no URL", c.config)
		}
		queue = out.QueueUrl
		c.url.Store(queue)
	}
	out, err := client.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{QueueUrl: queue, AttributeNames: c.config.attributes}, as)
	if err != nil {
		err = c.explain("sqs:GetQueueAttributes", err)
		if isNoQueue(err) {
			c.url.Store(nil) // so that it is found if it is made again
		}
		return nil, err
	}
	milli, err := length(out.Attributes, c.config.attributes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.config, err)
	}
	return []sample.Point{{Milli: milli}}, nil
}

// length adds the attributes up. One that is missing or no count is an error: the rest would be a wrong number.
func length(attributes map[string]string, wanted []types.QueueAttributeName) (milli int64, err error) {
	for _, name := range wanted {
		text, ok := attributes[string(name)]
		if !ok {
			return 0, fmt.Errorf("the answer of SQS has no %s", name)
		}
		count, err := strconv.ParseUint(text, 10, 51) // so that the sum of three thousandfold fits
		if err != nil {
			return 0, fmt.Errorf("%s is %.40q in the answer of SQS, not a number of messages", name, text)
		}
		milli += 1000 * int64(count)
	}
	return milli, nil
}
