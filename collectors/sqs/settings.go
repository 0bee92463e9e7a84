package sqs

import (
	"context"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/kubetide/kubetide/collectors"
	"github.com/kubetide/kubetide/internal/sample"
)

const (
	keyQueue   = "queue-name"
	keyRegion  = "region"
	keyAccount = "owner-account"
	keyInclude = "include"
	keyRole    = "role-arn"
)

// Config is what the operator allows.
type Config struct {
	// Regions are those that may be asked, also ones that this version does not know. None: all that it knows.
	Regions []string
	// Endpoint is the URL of SQS in all regions. Empty: that of the region.
	Endpoint string
	// AssumableRoles are patterns of the ARNs of roles that HPAs may name: * stands for any text, {namespace} for the HPA's
	// namespace. None: HPAs may name no role.
	AssumableRoles []string
}

// known are the regions with SQS, of all partitions.
var known = strings.Fields(`
	af-south-1 ap-east-1 ap-east-2 ap-northeast-1 ap-northeast-2 ap-northeast-3 ap-south-1 ap-south-2 ap-southeast-1
	ap-southeast-2 ap-southeast-3 ap-southeast-4 ap-southeast-5 ap-southeast-6 ap-southeast-7 ca-central-1 ca-west-1
	eu-central-1 eu-central-2 eu-north-1 eu-south-1 eu-south-2 eu-west-1 eu-west-2 eu-west-3 il-central-1 me-central-1
	me-south-1 mx-central-1 sa-east-1 us-east-1 us-east-2 us-west-1 us-west-2
	cn-north-1 cn-northwest-1 eusc-de-east-1 us-gov-east-1 us-gov-west-1
	us-iso-east-1 us-iso-west-1 us-isob-east-1 us-isob-west-1 eu-isoe-west-1 us-isof-east-1 us-isof-south-1`)

var (
	regionForm  = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	accountForm = regexp.MustCompile(`^\d{12}$`)
	queueForm   = regexp.MustCompile(`^([A-Za-z0-9_-]{1,80}|[A-Za-z0-9_-]{1,75}\.fifo)$`)
	queueARN    = regexp.MustCompile(`^arn:[a-z0-9-]+:sqs:([a-z0-9-]+):(\d{12}):([^:]+)$`)
	roleForm    = regexp.MustCompile(`^arn:[a-z0-9-]+:iam::\d{12}:role/[\w+=,.@/-]{1,576}$`)
)

// included are the values of the key include.
var included = map[string]types.QueueAttributeName{
	"inflight": types.QueueAttributeNameApproximateNumberOfMessagesNotVisible,
	"delayed":  types.QueueAttributeNameApproximateNumberOfMessagesDelayed,
}

// config is what the settings mean.
type config struct {
	queue, region string
	account       string // empty: that of the credentials
	attributes    []types.QueueAttributeName
	role          string // empty: Kubetide's own identity
}

// String names the queue in errors.
func (c config) String() string {
	if c.account != "" {
		return fmt.Sprintf("queue %q of account %s in %s", c.queue, c.account, c.region)
	}
	return fmt.Sprintf("queue %q in %s", c.queue, c.region)
}

// parse returns the settings' meaning and their canonical form. A queue's name, URL and ARN become the same settings.
func (s *Source) parse(namespace string, settings sample.Settings) (c config, canonical sample.Settings, err error) {
	if err := s.parseQueue(settings[keyQueue], &c); err != nil {
		return c, nil, err
	}
	for _, other := range []struct {
		key string
		to  *string
	}{{keyRegion, &c.region}, {keyAccount, &c.account}} {
		switch value := settings[other.key]; {
		case value == "":
		case *other.to != "" && *other.to != value:
			return c, nil, collectors.BadKey(other.key, "%.40q is not that of the queue, which is %s", value, *other.to)
		default:
			*other.to = value
		}
	}
	if err := s.region(c.region); err != nil {
		return c, nil, &collectors.KeyError{Key: keyRegion, Err: err}
	}
	if c.account != "" && !accountForm.MatchString(c.account) {
		return c, nil, collectors.BadKey(keyAccount, "%.40q is not an account id of 12 digits", c.account)
	}
	canonical = sample.Settings{keyQueue: c.queue, keyRegion: c.region}
	if c.account != "" {
		canonical[keyAccount] = c.account
	}

	c.attributes = []types.QueueAttributeName{types.QueueAttributeNameApproximateNumberOfMessages}
	var include []string
	for word := range strings.SplitSeq(settings[keyInclude], ",") {
		word = strings.TrimSpace(word)
		if word == "" || slices.Contains(include, word) {
			continue
		}
		attribute, ok := included[word]
		if !ok {
			return c, nil, collectors.BadKey(keyInclude, "%.40q is neither inflight nor delayed; visible messages always count", word)
		}
		include = append(include, word)
		c.attributes = append(c.attributes, attribute)
	}
	if include != nil {
		slices.Sort(include)
		slices.Sort(c.attributes)
		canonical[keyInclude] = strings.Join(include, ",")
	}

	if c.role = settings[keyRole]; c.role != "" {
		if !roleForm.MatchString(c.role) {
			return c, nil, collectors.BadKey(keyRole, "%.200q is not the ARN of a role, such as arn:aws:iam::123456789012:role/queues", c.role)
		}
		if !s.assumable(namespace, c.role) {
			return c, nil, collectors.BadKey(keyRole, "%s may not be assumed for the namespace %q; --aws-assumable-roles says which roles may", c.role, namespace)
		}
		canonical[keyRole] = c.role
	}
	return c, canonical, nil
}

func (s *Source) parseQueue(text string, c *config) error {
	switch arn := queueARN.FindStringSubmatch(text); {
	case text == "":
		return collectors.BadKey(keyQueue, "it is required: the queue's name, URL or ARN")
	case arn != nil:
		c.region, c.account, c.queue = arn[1], arn[2], arn[3]
	case strings.Contains(text, "://"):
		if err := s.parseURL(text, c); err != nil {
			return &collectors.KeyError{Key: keyQueue, Err: err}
		}
	default:
		c.queue = text
	}
	if !queueForm.MatchString(c.queue) {
		return collectors.BadKey(keyQueue, "%.200q is neither a queue's name (1 to 80 letters, digits, - and _, .fifo at the end) nor its URL or ARN", text)
	}
	return nil
}

// parseURL reads a queue's URL. Nothing is ever sent to it: it says account, name and region, and must be one of SQS so that
// nobody takes it for more.
func (s *Source) parseURL(text string, c *config) error {
	u, err := url.Parse(text)
	if err != nil || u.User != nil || u.RawQuery != "" || u.Fragment != "" || len(text) > 1024 {
		return fmt.Errorf("%.200q is not a queue's URL", text)
	}
	path := strings.Split(strings.Trim(u.Path, "/"), "/")
	if s.endpoint != nil && u.Scheme == s.endpoint.Scheme && u.Host == s.endpoint.Host {
		path = path[max(0, len(path)-2):] // servers that stand for SQS have more before
	} else {
		if c.region = regionOf(u.Hostname()); c.region == "" || u.Scheme != "https" || u.Port() != "" && u.Port() != "443" {
			return fmt.Errorf("the host of %.200q is not that of SQS, such as https://sqs.eu-central-1.amazonaws.com/123456789012/orders", text)
		}
	}
	if len(path) != 2 || !accountForm.MatchString(path[0]) {
		return fmt.Errorf("%.200q does not end in an account id of 12 digits and the queue's name", text)
	}
	c.account, c.queue = path[0], path[1]
	return nil
}

// regionOf returns the region whose SQS has the host name; empty if there is none.
func regionOf(host string) string {
	labels := strings.Split(host, ".")
	region := ""
	switch {
	case host == "queue.amazonaws.com":
		return "us-east-1"
	case len(labels) < 3:
	case labels[0] == "sqs" || labels[0] == "sqs-fips":
		region = labels[1]
	case labels[1] == "queue":
		if region = labels[0]; host == region+".queue.amazonaws.com" || host == region+".queue.amazonaws.com.cn" {
			return region
		}
	}
	if regionForm.MatchString(region) {
		for _, p := range []sqs.EndpointParameters{{}, {UseFIPS: aws.Bool(true)}, {UseDualStack: aws.Bool(true)}, {UseFIPS: aws.Bool(true), UseDualStack: aws.Bool(true)}} {
			p.Region = aws.String(region)
			endpoint, err := sqs.NewDefaultEndpointResolverV2().ResolveEndpoint(context.Background(), p)
			if err == nil && endpoint.URI.Host == host {
				return region
			}
		}
	}
	return ""
}

func (s *Source) region(region string) error {
	switch {
	case region == "":
		return fmt.Errorf("it is required, such as eu-central-1")
	case len(s.Regions) > 0 && !slices.Contains(s.Regions, region):
		return fmt.Errorf("region %.40q is not configured; --aws-region has %s", region, strings.Join(s.Regions, ", "))
	case len(s.Regions) == 0 && !slices.Contains(known, region):
		return fmt.Errorf("region %.40q is unknown; if it is new, --aws-region can name it, with the others that are used", region)
	}
	return nil
}

// assumable says whether a pattern allows the role for the namespace.
func (s *Source) assumable(namespace, role string) bool {
	return slices.ContainsFunc(s.AssumableRoles, func(pattern string) bool {
		parts := strings.Split(strings.ReplaceAll(pattern, "{namespace}", namespace), "*")
		for i, part := range parts {
			parts[i] = regexp.QuoteMeta(part)
		}
		matched, err := regexp.MatchString("^"+strings.Join(parts, ".*")+"$", role)
		return err == nil && matched
	})
}
