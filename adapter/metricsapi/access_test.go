package metricsapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	genericapifilters "k8s.io/apiserver/pkg/endpoints/filters"
	"k8s.io/apiserver/pkg/endpoints/request"
	"sigs.k8s.io/custom-metrics-apiserver/pkg/apiserver"
)

// TestWiderRightsAreAskedForFirst keeps a read from being a question to the API server: what is remembered must not have the
// selector in it.
func TestWiderRightsAreAskedForFirst(t *testing.T) {
	const exact, all, any = "list shop/queue hpa=a", "list shop/queue", "list */*"
	const allow, deny, none = authorizer.DecisionAllow, authorizer.DecisionDeny, authorizer.DecisionNoOpinion
	alice := &user.DefaultInfo{Name: "alice"}
	failed := errors.New("the API server is away")
	read := authorizer.AttributesRecord{User: alice, Verb: "list", Namespace: "shop", APIGroup: "external.metrics.k8s.io", APIVersion: "v1beta1", Resource: "queue", ResourceRequest: true}
	read.LabelSelectorRequirements, _ = parse("hpa=a").Requirements()
	plain := read
	plain.LabelSelectorRequirements = nil
	passed := func(a authorizer.AttributesRecord) authorizer.AttributesRecord {
		a.User = proxied{alice}
		return a
	}
	tests := map[string]struct {
		request authorizer.AttributesRecord
		answers map[string]authorizer.Decision
		err     error
		asked   []string
		want    authorizer.Decision
	}{
		"who may read the metric may read it with any selector":       {read, map[string]authorizer.Decision{all: allow}, nil, []string{all}, allow},
		"who may read it with one selector only is asked for with it": {read, map[string]authorizer.Decision{all: none, exact: allow}, nil, []string{all, exact}, allow},
		"a denial of all is none of a part":                           {read, map[string]authorizer.Decision{all: deny, exact: allow}, nil, []string{all, exact}, allow},
		"who may not may not":                                         {read, map[string]authorizer.Decision{all: none, exact: none}, nil, []string{all, exact}, none},
		"a denial of the part is final":                               {read, map[string]authorizer.Decision{all: none, exact: deny}, nil, []string{all, exact}, deny},
		"a failure ends it":                                           {read, map[string]authorizer.Decision{all: none}, failed, []string{all}, none},
		"without a selector there is one question":                    {plain, map[string]authorizer.Decision{all: allow}, nil, []string{all}, allow},
		"through the API server the group is asked for":               {passed(read), map[string]authorizer.Decision{any: allow}, nil, []string{any}, allow},
		"through the API server the rest follows":                     {passed(read), map[string]authorizer.Decision{any: none, all: none, exact: allow}, nil, []string{any, all, exact}, allow},
		"impersonation is asked for as it is": {passed(authorizer.AttributesRecord{Verb: "impersonate", Resource: "users", Name: "bob", ResourceRequest: true}),
			map[string]authorizer.Decision{"impersonate */users": none}, nil, []string{"impersonate */users"}, none},
		"a document has no wider rights": {passed(authorizer.AttributesRecord{Verb: "get", Path: "/openapi/v2"}), map[string]authorizer.Decision{"get /openapi/v2": allow}, nil, []string{"get /openapi/v2"}, allow},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var asked []string
			a := access{authorizer.AuthorizerFunc(func(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
				question := question(a)
				asked = append(asked, question)
				decision, ok := test.answers[question]
				if !ok {
					t.Errorf("asked for %q", question)
				}
				if a.GetUser().GetName() != "alice" {
					t.Errorf("asked for another user: %v", a.GetUser())
				}
				return decision, "", test.err
			})}
			decision, _, err := a.Authorize(t.Context(), test.request)
			if decision != test.want || !errors.Is(err, test.err) {
				t.Errorf("decided %v, %v; want %v, %v", decision, err, test.want, test.err)
			}
			if diff := cmp.Diff(test.asked, asked); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A plain read's selector is not among the library's attributes; who may read with that selector only must be let in.
func TestAPlainReadIsAskedAboutWithItsSelector(t *testing.T) {
	for name, tt := range map[string]struct {
		path  string
		asked []string
	}{
		"by a selector":          {externalRead, []string{"list shop/queue", "list shop/queue queue in (a)"}},
		"by one that is no name": {"/apis/external.metrics.k8s.io/v1beta1/namespaces/shop/queue?labelSelector=queue+in+(a)", []string{"list shop/queue", "list shop/queue queue in (a)"}},
		"without":                {"/apis/external.metrics.k8s.io/v1beta1/namespaces/shop/queue", []string{"list shop/queue"}},
		"of pods":                {podsRead, []string{"get shop/pods"}},
	} {
		t.Run(name, func(t *testing.T) {
			var asked []string
			handler := http.NotFoundHandler()
			handler = genericapifilters.WithAuthorization(handler, access{authorizer.AuthorizerFunc(func(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
				if s, _ := a.GetLabelSelector(); len(s) > 0 {
					asked = append(asked, fmt.Sprintf("%s %s/%s %s in (%s)", a.GetVerb(), a.GetNamespace(), a.GetResource(), s[0].Key(), strings.Join(s[0].ValuesUnsorted(), ",")))
				} else {
					asked = append(asked, question(a))
				}
				return authorizer.DecisionNoOpinion, "", nil
			})}, apiserver.Codecs)
			handler = withRequestInfo(handler, &request.RequestInfoFactory{}, true, true)
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, tt.path, nil))
			if diff := cmp.Diff(tt.asked, asked); diff != "" || w.Code != http.StatusForbidden {
				t.Errorf("status %d (-want +got):\n%s", w.Code, diff)
			}
		})
	}
}

func question(a authorizer.Attributes) string {
	if !a.IsResourceRequest() {
		return a.GetVerb() + " " + a.GetPath()
	}
	namespace := a.GetNamespace()
	if namespace == "" {
		namespace = "*"
	}
	text := fmt.Sprintf("%s %s/%s", a.GetVerb(), namespace, a.GetResource())
	if selector, _ := a.GetLabelSelector(); len(selector) > 0 {
		text += " " + selector[0].String()
	}
	return text
}

func TestOnlyTheProxysCallersAreMarked(t *testing.T) {
	answer := func(name string, ok bool, err error) authenticator.Request {
		return authenticator.RequestFunc(func(*http.Request) (*authenticator.Response, bool, error) {
			return &authenticator.Response{User: &user.DefaultInfo{Name: name}}, ok, err
		})
	}
	tests := map[string]struct {
		proxy  authenticator.Request
		want   string
		marked bool
	}{
		"the proxy names the caller":         {answer("alice", true, nil), "alice", true},
		"there is no proxy":                  {answer("alice", false, nil), "bob", false},
		"the certificate is not the proxy's": {answer("alice", false, errors.New("unknown authority")), "bob", false},
		"an error is no name":                {answer("alice", true, errors.New("expired")), "bob", false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			response, ok, err := callers{proxy: test.proxy, other: answer("bob", true, nil)}.AuthenticateRequest(&http.Request{})
			if err != nil || !ok || response.User.GetName() != test.want {
				t.Fatalf("got %v, %v, %v", response, ok, err)
			}
			if _, marked := response.User.(proxied); marked != test.marked {
				t.Errorf("marked: %v", marked)
			}
		})
	}
}
