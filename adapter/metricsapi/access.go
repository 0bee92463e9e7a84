package metricsapi

import (
	"context"
	"crypto/x509"
	"net/http"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/authenticatorfactory"
	"k8s.io/apiserver/pkg/authentication/group"
	"k8s.io/apiserver/pkg/authentication/request/headerrequest"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/utils/clock"
)

// access asks for wider rights than a request needs before it asks for those: a yes to them covers the request, and is
// remembered for all others. Without that each selector, so nearly each read of an external metric, would be a question of
// its own to the API server, of which its client sends 200 a second.
type access struct{ authorizer.Authorizer }

// Authorize implements authorizer.Authorizer.
func (a access) Authorize(ctx context.Context, attributes authorizer.Attributes) (authorizer.Decision, string, error) {
	attributes = withSelector(ctx, attributes)
	for _, wider := range wider(attributes) {
		if decision, reason, err := a.Authorizer.Authorize(ctx, wider); decision == authorizer.DecisionAllow || err != nil {
			return decision, reason, err
		}
	}
	return a.Authorizer.Authorize(ctx, attributes)
}

// ConditionsAwareAuthorize implements authorizer.Authorizer.
func (a access) ConditionsAwareAuthorize(ctx context.Context, attributes authorizer.Attributes) authorizer.ConditionsAwareDecision {
	return authorizer.ConditionsAwareDecisionFromParts(a.Authorize(ctx, attributes))
}

// wider returns the questions whose yes covers the request. An authorizer may let fewer selectors through than it is asked
// about, never more. One that denies single metrics would not be asked about them in the question for the whole group, so
// that is asked only where kube-apiserver has passed the request on, and so asked it before.
func wider(a authorizer.Attributes) []authorizer.Attributes {
	if !a.IsResourceRequest() || !a.IsReadOnly() {
		return nil
	}
	var questions []authorizer.Attributes
	if _, ok := a.GetUser().(proxied); ok {
		questions = append(questions, authorizer.AttributesRecord{
			User: a.GetUser(), Verb: a.GetVerb(), APIGroup: a.GetAPIGroup(), APIVersion: "*", Resource: "*", ResourceRequest: true, Path: a.GetPath(),
		})
	}
	if hasSelector(a) {
		questions = append(questions, withoutSelectors{a})
	}
	return questions
}

// withSelector adds a plain read's selector. Parsing it costs as much as all else here, and is not needed if the caller may
// read without one. A question that lacks it is for wider rights, so to forget it would let nobody in.
func withSelector(ctx context.Context, a authorizer.Attributes) authorizer.Attributes {
	read, _ := ctx.Value(readKey{}).(*plainRead)
	if read == nil || read.custom || read.labels == "" || a.GetVerb() != read.info.Verb || a.GetResource() != read.info.Resource || a.GetAPIGroup() != read.info.APIGroup {
		return a
	}
	return selecting{a, read.labels}
}

// selecting has a label selector that is parsed when it is looked at.
type selecting struct {
	authorizer.Attributes
	selector string
}

// GetLabelSelector implements authorizer.Attributes as its record does.
func (s selecting) GetLabelSelector() (labels.Requirements, error) {
	selector, err := parseSelector(s.selector)
	if err != nil {
		return nil, err
	}
	requirements, _ := selector.Requirements()
	return requirements, nil
}

func hasSelector(a authorizer.Attributes) bool {
	if _, ok := a.(selecting); ok {
		return true
	}
	byLabels, labelsErr := a.GetLabelSelector()
	byFields, fieldsErr := a.GetFieldSelector()
	return len(byLabels)+len(byFields) > 0 || labelsErr != nil || fieldsErr != nil
}

type withoutSelectors struct{ authorizer.Attributes }

func (withoutSelectors) GetLabelSelector() (labels.Requirements, error) { return nil, nil }
func (withoutSelectors) GetFieldSelector() (fields.Requirements, error) { return nil, nil }

// proxied is a caller that kube-apiserver names.
type proxied struct{ user.Info }

// callers tells the requests that kube-apiserver passes on from the others.
type callers struct{ proxy, other authenticator.Request }

func newCallers(proxies *authenticatorfactory.RequestHeaderConfig, other authenticator.Request) authenticator.Request {
	if proxies == nil {
		return other
	}
	return callers{other: other, proxy: group.NewAuthenticatedGroupAdder(newVouched(proxies, clock.RealClock{}))}
}

// AuthenticateRequest implements authenticator.Request. A certificate that is not the proxy's may still be a client's own.
func (c callers) AuthenticateRequest(r *http.Request) (*authenticator.Response, bool, error) {
	if response, ok, err := c.proxy.AuthenticateRequest(r); ok && err == nil {
		response.User = proxied{response.User}
		return response, true, nil
	}
	return c.other.AuthenticateRequest(r)
}

// vouched believes what a proxy says about its caller, as the library does, but verifies each of the proxy's certificates
// once and not for each request. TLS has shown for each connection that the key is the proxy's.
type vouched struct {
	proxies *authenticatorfactory.RequestHeaderConfig
	clock   clock.PassiveClock
	// verify judges the certificate and reads the headers; headers only reads them.
	verify, headers authenticator.Request

	mu sync.RWMutex
	// verified has the certificates of verified chains, by their bytes, at most maxVerified.
	verified map[string]verdict
}

// verdict holds until the chain ends, and for these roots: a change of the CA is another pool.
type verdict struct {
	roots *x509.CertPool
	until time.Time
}

// maxVerified is enough for the API servers of a cluster while their certificates change.
const maxVerified = 32

func newVouched(proxies *authenticatorfactory.RequestHeaderConfig, clock clock.PassiveClock) *vouched {
	return &vouched{
		proxies: proxies, clock: clock, verified: map[string]verdict{},
		verify: headerrequest.NewDynamicVerifyOptionsSecure(proxies.CAContentProvider.VerifyOptions, proxies.AllowedClientNames,
			proxies.UsernameHeaders, proxies.UIDHeaders, proxies.GroupHeaders, proxies.ExtraHeaderPrefixes),
		headers: headerrequest.NewDynamic(proxies.UsernameHeaders, proxies.UIDHeaders, proxies.GroupHeaders, proxies.ExtraHeaderPrefixes),
	}
}

// AuthenticateRequest implements authenticator.Request.
func (v *vouched) AuthenticateRequest(r *http.Request) (*authenticator.Response, bool, error) {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return nil, false, nil
	}
	options, ok := v.proxies.CAContentProvider.VerifyOptions()
	if !ok {
		return nil, false, nil
	}
	certificate := r.TLS.PeerCertificates[0]
	v.mu.RLock()
	known, ok := v.verified[string(certificate.Raw)]
	v.mu.RUnlock()
	names := v.proxies.AllowedClientNames.Value()
	if ok && known.roots == options.Roots && v.clock.Now().Before(known.until) && (len(names) == 0 || slices.Contains(names, certificate.Subject.CommonName)) {
		return v.headers.AuthenticateRequest(r)
	}
	response, ok, err := v.verify.AuthenticateRequest(r)
	if ok && err == nil {
		v.remember(r.TLS.PeerCertificates, options)
	}
	return response, ok, err
}

// remember verifies the chain again, for when it ends.
func (v *vouched) remember(chain []*x509.Certificate, options x509.VerifyOptions) {
	if options.Intermediates == nil {
		options.Intermediates = x509.NewCertPool()
		for _, c := range chain[1:] {
			options.Intermediates.AddCert(c)
		}
	}
	chains, err := chain[0].Verify(options)
	if err != nil {
		return // the CA has just changed
	}
	until := chains[0][0].NotAfter
	for _, c := range chains[0] {
		if c.NotAfter.Before(until) {
			until = c.NotAfter
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.verified) >= maxVerified {
		clear(v.verified)
	}
	v.verified[string(chain[0].Raw)] = verdict{options.Roots, until}
}
