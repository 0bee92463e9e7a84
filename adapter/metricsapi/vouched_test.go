package metricsapi

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net/http"
	"testing"
	"time"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/authenticatorfactory"
	"k8s.io/apiserver/pkg/authentication/request/headerrequest"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	clocktesting "k8s.io/utils/clock/testing"
)

// anyCA is a CA that can be changed.
type anyCA struct {
	dynamiccertificates.CAContentProvider
	options x509.VerifyOptions
	gone    bool
}

func (c *anyCA) VerifyOptions() (x509.VerifyOptions, bool) { return c.options, !c.gone }

func (c *anyCA) set(authorities ...authority) {
	c.options = x509.VerifyOptions{Roots: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	for _, a := range authorities {
		c.options.Roots.AddCert(a.cert)
	}
}

type anyNames struct{ names []string }

func (n *anyNames) Value() []string { return n.names }

// counting counts how often it is asked.
type counting struct {
	authenticator.Request
	n int
}

func (c *counting) AuthenticateRequest(r *http.Request) (*authenticator.Response, bool, error) {
	c.n++
	return c.Request.AuthenticateRequest(r)
}

// TestAProxysCertificateIsVerifiedOnce goes through the life of a verdict: each step is a request at which it counts or not.
func TestAProxysCertificateIsVerifiedOnce(t *testing.T) {
	ca, other := newAuthority(t, "ca"), newAuthority(t, "other")
	issue := func(a authority, name string, lasts time.Duration) *x509.Certificate {
		return a.issue(t, &x509.Certificate{Subject: pkix.Name{CommonName: name}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
			NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(lasts)}).cert
	}
	between := ca.issue(t, &x509.Certificate{Subject: pkix.Name{CommonName: "between"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(10 * time.Minute)})
	proxy, renewed, foreign, nameless := issue(ca, "proxy", 30*time.Minute), issue(ca, "proxy", 40*time.Minute), issue(other, "proxy", time.Hour), issue(ca, "somebody", time.Hour)
	below := issue(between, "proxy", time.Hour)
	forServers := ca.issue(t, &x509.Certificate{Subject: pkix.Name{CommonName: "proxy"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}).cert

	type step struct {
		what     string
		before   func(*anyCA, *anyNames, *clocktesting.FakePassiveClock)
		chain    []*x509.Certificate
		verified bool // by the library, for this request
		ok       bool
	}
	one := func(c ...*x509.Certificate) []*x509.Certificate { return c }
	later := func(d time.Duration) func(*anyCA, *anyNames, *clocktesting.FakePassiveClock) {
		return func(_ *anyCA, _ *anyNames, c *clocktesting.FakePassiveClock) { c.SetTime(c.Now().Add(d)) }
	}
	tests := map[string][]step{
		"once for all requests": {{"first", nil, one(proxy), true, true}, {"second", nil, one(proxy), false, true}, {"third", later(29 * time.Minute), one(proxy), false, true}},
		"until it ends":         {{"first", nil, one(proxy), true, true}, {"after", later(31 * time.Minute), one(proxy), true, true}}, // the library has a clock of its own
		"until what it stands on ends": {{"first", nil, one(below, between.cert), true, true}, {"second", nil, one(below, between.cert), false, true},
			{"after", later(11 * time.Minute), one(below, between.cert), true, true}},
		"each by itself":                  {{"first", nil, one(proxy), true, true}, {"renewed", nil, one(renewed), true, true}, {"first again", nil, one(proxy), false, true}},
		"another CA's never":              {{"first", nil, one(foreign), true, false}, {"second", nil, one(foreign), true, false}},
		"another name never":              {{"first", nil, one(nameless), true, false}, {"second", nil, one(nameless), true, false}},
		"one for servers never":           {{"first", nil, one(forServers), true, false}, {"second", nil, one(forServers), true, false}},
		"what it stands on must be shown": {{"first", nil, one(below), true, false}},
		"none without a certificate":      {{"first", nil, nil, false, false}},
		"until the CA changes": {{"first", nil, one(proxy), true, true},
			{"with another CA", func(ca *anyCA, _ *anyNames, _ *clocktesting.FakePassiveClock) { ca.set(other) }, one(proxy), true, false},
			{"with both", func(c *anyCA, _ *anyNames, _ *clocktesting.FakePassiveClock) { c.set(ca, other) }, one(proxy), true, true},
			{"with both again", nil, one(proxy), false, true}},
		"until the CA is gone": {{"first", nil, one(proxy), true, true},
			{"without", func(ca *anyCA, _ *anyNames, _ *clocktesting.FakePassiveClock) { ca.gone = true }, one(proxy), false, false}},
		"until the name is no proxy's any more": {{"first", nil, one(proxy), true, true},
			{"with another name", func(_ *anyCA, n *anyNames, _ *clocktesting.FakePassiveClock) { n.names = []string{"another"} }, one(proxy), true, false}},
		"any name, if all are allowed": {{"first", func(_ *anyCA, n *anyNames, _ *clocktesting.FakePassiveClock) { n.names = nil }, one(nameless), true, true}, {"second", nil, one(nameless), false, true},
			{"with names", func(_ *anyCA, n *anyNames, _ *clocktesting.FakePassiveClock) { n.names = []string{"proxy"} }, one(nameless), true, false}},
	}
	for name, steps := range tests {
		t.Run(name, func(t *testing.T) {
			roots, names, clock := &anyCA{}, &anyNames{[]string{"proxy"}}, clocktesting.NewFakePassiveClock(time.Now())
			roots.set(ca)
			v := newVouched(&authenticatorfactory.RequestHeaderConfig{
				CAContentProvider: roots, AllowedClientNames: names, UsernameHeaders: headerrequest.StaticStringSlice{"X-Remote-User"}, UIDHeaders: headerrequest.StaticStringSlice{},
				GroupHeaders: headerrequest.StaticStringSlice{"X-Remote-Group"}, ExtraHeaderPrefixes: headerrequest.StaticStringSlice{},
			}, clock)
			verify := &counting{Request: v.verify}
			v.verify = verify
			for i, s := range steps {
				if s.before != nil {
					s.before(roots, names, clock)
				}
				// Each caller is named anew, whatever is remembered of the proxy.
				caller := fmt.Sprintf("caller-%d", i)
				r := &http.Request{Header: http.Header{"X-Remote-User": {caller}, "X-Remote-Group": {"group"}}, TLS: &tls.ConnectionState{PeerCertificates: s.chain}}
				before := verify.n
				response, ok, err := v.AuthenticateRequest(r)
				if (ok && err == nil) != s.ok {
					t.Fatalf("%s: %t, %v", s.what, ok, err)
				}
				if s.ok && (response.User.GetName() != caller || len(r.Header) != 0) {
					t.Errorf("%s: the caller is %v, the headers that are left %v", s.what, response.User, r.Header)
				}
				if (verify.n > before) != s.verified {
					t.Errorf("%s: verified %t, want %t", s.what, !s.verified, s.verified)
				}
			}
		})
	}
}

func TestWhatIsRememberedOfProxiesIsBounded(t *testing.T) {
	v := &vouched{verified: map[string]verdict{}}
	ca := newAuthority(t, "ca")
	roots := &anyCA{}
	roots.set(ca)
	for i := range 2 * maxVerified {
		v.remember([]*x509.Certificate{ca.client(t, fmt.Sprint(i)).cert}, roots.options)
	}
	if n := len(v.verified); n == 0 || n > maxVerified {
		t.Errorf("%d certificates are remembered", n)
	}
	before := len(v.verified)
	v.remember([]*x509.Certificate{newAuthority(t, "other").client(t, "proxy").cert}, roots.options)
	if len(v.verified) != before {
		t.Error("a chain that is not valid is remembered")
	}
}
