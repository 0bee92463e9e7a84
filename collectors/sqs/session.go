package sqs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go/logging"
	"k8s.io/utils/clock"
	"k8s.io/utils/lru"

	"github.com/kubetide/kubetide/internal/outbound"
)

const (
	// attemptTimeout bounds one request; there are at most maxAttempts. The collection comes again anyway.
	attemptTimeout = 5 * time.Second
	maxAttempts    = 2
	maxBackoff     = time.Second
	// credentialsTimeout is how long a collection waits for credentials. The metadata service may never answer.
	credentialsTimeout = 5 * time.Second
	// failureKept is how long credentials that could not be had are not asked for again, by all queues together.
	failureKept = 10 * time.Second
	// expiryWindow is how long before their end credentials are renewed, half of it at random.
	expiryWindow = 2 * time.Minute
	maxRoles     = 4096
)

// session is what comes of the one look at the environment: the library's configuration, and credentials that all share.
type session struct {
	source *Source
	config aws.Config
	own    *identity // Kubetide's, by the default chain

	mu      sync.Mutex             // protects clients and tokens, and makes each role once
	clients map[string]*sqs.Client // by region, as tokens
	tokens  map[string]*sts.Client
	roles   *lru.Cache // roleID → *identity
}

type roleID struct{ namespace, region, role string }

// session makes it the first time. The region is for the chain's own requests where the environment has none.
// The chain asks metadata services, which have bounds of their own in the library, so it does not go through the client.
func (s *Source) session(ctx context.Context, region string) (*session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current != nil {
		return s.current, nil
	}
	if len(s.Regions) > 0 {
		region = s.Regions[0]
	}
	config, err := awsconfig.LoadDefaultConfig(ctx,
		awsconfig.WithDefaultRegion(region),
		awsconfig.WithDefaultsMode(aws.DefaultsModeStandard), // to find out the mode by itself, it would ask a metadata service
		awsconfig.WithLogger(logging.Nop{}),
		awsconfig.WithCredentialsCacheOptions(expiry),
		awsconfig.WithRetryer(func() aws.Retryer {
			return retry.NewStandard(func(o *retry.StandardOptions) { o.MaxAttempts, o.MaxBackoff = maxAttempts, maxBackoff })
		}))
	if err != nil {
		return nil, fmt.Errorf("the AWS configuration of Kubetide cannot be read: %s", clip(err.Error()))
	}
	own := &identity{from: config.Credentials, clock: s.clock, failed: func(err error) string {
		return "Kubetide has no AWS credentials; give its pods a role, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY: " + reason(err)
	}}
	config.HTTPClient, config.Credentials = s.http, own
	s.current = &session{
		source: s, config: config, own: own,
		clients: map[string]*sqs.Client{}, tokens: map[string]*sts.Client{}, roles: lru.New(maxRoles),
	}
	return s.current, nil
}

func expiry(o *aws.CredentialsCacheOptions) {
	o.ExpiryWindow, o.ExpiryWindowJitterFrac = expiryWindow, 0.5
}

// queues returns the region's client.
func (s *session) queues(region string) *sqs.Client {
	s.mu.Lock()
	defer s.mu.Unlock()
	client := s.clients[region]
	if client == nil {
		client = sqs.NewFromConfig(s.config, func(o *sqs.Options) {
			o.Region = region
			if s.source.endpoint != nil {
				o.BaseEndpoint = aws.String(s.source.Endpoint)
			}
		})
		s.clients[region] = client
	}
	return client
}

// identity returns the credentials of the role, or Kubetide's own. A role's are never shared between namespaces, whose name
// the role's trust policy can ask for.
func (s *session) identity(region, role, namespace string) *identity {
	if role == "" {
		return s.own
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	id := roleID{namespace, region, role}
	if known, ok := s.roles.Get(id); ok {
		return known.(*identity)
	}
	client := s.tokens[region]
	if client == nil {
		client = sts.NewFromConfig(s.config, func(o *sts.Options) { o.Region = region })
		s.tokens[region] = client
	}
	name := sessionName(namespace)
	made := &identity{clock: s.source.clock, failed: func(err error) string {
		return fmt.Sprintf("the role %s cannot be assumed; its trust policy must allow sts:AssumeRole to Kubetide's identity, with the session name and external id %q: %s",
			role, name, reason(err))
	}}
	made.from = aws.NewCredentialsCache(stscreds.NewAssumeRoleProvider(client, role, func(o *stscreds.AssumeRoleOptions) {
		o.RoleSessionName, o.ExternalID = name, aws.String(name)
	}), expiry)
	s.roles.Add(id, made)
	return made
}

// sessionName is the namespace. STS takes no name of a single letter.
func sessionName(namespace string) string {
	if len(namespace) < 2 {
		return "namespace-" + namespace
	}
	return namespace
}

// identity is credentials that are waited for with a bound, and not asked for again at once where they could not be had.
type identity struct {
	from   aws.CredentialsProvider // caches
	clock  clock.PassiveClock
	failed func(error) string // puts a failure into words

	mu   sync.Mutex // protects the rest
	err  error
	when time.Time // of err
}

// identityError is deliberately no wrapper: the library would try again for what is in it.
type identityError string

func (e identityError) Error() string { return string(e) }

// Retrieve implements aws.CredentialsProvider.
func (i *identity) Retrieve(ctx context.Context) (aws.Credentials, error) {
	i.mu.Lock()
	err := i.err
	if i.clock.Since(i.when) >= failureKept {
		err = nil
	}
	i.mu.Unlock()
	if err != nil {
		return aws.Credentials{}, err
	}
	limited, cancel := context.WithTimeoutCause(ctx, credentialsTimeout, fmt.Errorf("no answer within %s", credentialsTimeout))
	defer cancel()
	credentials, err := i.from.Retrieve(limited)
	if err == nil || ctx.Err() != nil { // of whose time is over says nothing about the credentials
		return credentials, err
	}
	if limited.Err() != nil {
		err = context.Cause(limited)
	}
	if below := identityError(""); errors.As(err, &below) { // a role's failure may be that of Kubetide's own identity
		err = below
	} else {
		err = identityError(i.failed(err))
	}
	i.mu.Lock()
	i.err, i.when = err, i.clock.Now()
	i.mu.Unlock()
	return aws.Credentials{}, err
}

// tenant is the context's key of the namespace on whose behalf a request is made. The library hands it on.
type tenant struct{}

// tenantHTTP makes the namespace of each request pay, so that all namespaces can share the library's clients.
type tenantHTTP struct{ client *outbound.Client }

// Do implements aws.HTTPClient.
func (h tenantHTTP) Do(r *http.Request) (*http.Response, error) {
	namespace, _ := r.Context().Value(tenant{}).(string)
	ctx, cancel := context.WithTimeoutCause(r.Context(), attemptTimeout, fmt.Errorf("no complete answer within %s", attemptTimeout))
	r = r.WithContext(ctx)
	if r.Body != nil {
		// The library closes a body as soon as the answer begins, and then its WriteTo reports io.EOF as a failure, for which the
		// transport would break the connection. Its Read ends as it should.
		r.Body = struct{ io.ReadCloser }{r.Body}
	}
	response, err := h.client.RoundTripper(namespace, Name, nil).RoundTrip(r)
	if err != nil {
		cancel()
		return nil, err
	}
	response.Body = body{response.Body, cancel}
	return response, nil
}

// body ends its request's time when it is closed.
type body struct {
	io.ReadCloser
	cancel context.CancelFunc
}

// Close implements io.Closer.
func (b body) Close() error {
	defer b.cancel()
	return b.ReadCloser.Close()
}
