package metricsapi

import (
	"context"
	"net/http"

	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/authenticatorfactory"
	"k8s.io/apiserver/pkg/authentication/group"
	"k8s.io/apiserver/pkg/authentication/request/headerrequest"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// access asks for wider rights than a request needs before it asks for those: a yes to them covers the request, and is
// remembered for all others. Without that each selector, so nearly each read of an external metric, would be a question of
// its own to the API server, of which its client sends 200 a second.
type access struct{ authorizer.Authorizer }

// Authorize implements authorizer.Authorizer.
func (a access) Authorize(ctx context.Context, attributes authorizer.Attributes) (authorizer.Decision, string, error) {
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

func hasSelector(a authorizer.Attributes) bool {
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
	return callers{other: other, proxy: group.NewAuthenticatedGroupAdder(headerrequest.NewDynamicVerifyOptionsSecure(
		proxies.CAContentProvider.VerifyOptions, proxies.AllowedClientNames,
		proxies.UsernameHeaders, proxies.UIDHeaders, proxies.GroupHeaders, proxies.ExtraHeaderPrefixes))}
}

// AuthenticateRequest implements authenticator.Request. A certificate that is not the proxy's may still be a client's own.
func (c callers) AuthenticateRequest(r *http.Request) (*authenticator.Response, bool, error) {
	if response, ok, err := c.proxy.AuthenticateRequest(r); ok && err == nil {
		response.User = proxied{response.User}
		return response, true, nil
	}
	return c.other.AuthenticateRequest(r)
}
