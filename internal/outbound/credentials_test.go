package outbound

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

func TestCredentialsGoToTheirHostOnly(t *testing.T) {
	var sent []string
	u := serve(t, func(_ http.ResponseWriter, r *http.Request, _ <-chan struct{}) {
		sent = append(sent, r.Header.Get("Authorization"))
	})
	c := client(t, Options{Policy: Anywhere})
	for name, test := range map[string]struct {
		credentials Credentials
		want        string // what is sent, or the error
	}{
		"a token":                  {Credentials{Host: u.Host, Token: "t"}, "Bearer t"},
		"a password":               {Credentials{Host: u.Host, Username: "u", Password: "p"}, "Basic dTpw"},
		"another scheme":           {Credentials{Host: u.Host, Token: "t", Scheme: "Token"}, "Token t"},
		"a host for all its ports": {Credentials{Host: "127.0.0.1", Token: "t"}, "Bearer t"},
		"another port":             {Credentials{Host: "127.0.0.1:1", Token: "t"}, "sending credentials to " + u.Host + ` is refused: they are for "127.0.0.1:1" only`},
		"another host":             {Credentials{Host: "example.org", Token: "t"}, `they are for "example.org" only`},
		"a host below":             {Credentials{Host: "0.0.1", Token: "t"}, "the host 0.0.1 of the credentials"},
		"no host":                  {Credentials{Token: "t"}, "it is empty"},
		"a URL as host":            {Credentials{Host: u.String(), Token: "t"}, "of the credentials"},
	} {
		t.Run(name, func(t *testing.T) {
			sent = nil
			_, err := c.Get(context.Background(), Request{URL: u, Credentials: &test.credentials})
			viaLibrary := http.Client{Transport: c.RoundTripper("shop", "test", &test.credentials)}
			r, again := viaLibrary.Get(u.String())
			if again == nil {
				_ = r.Body.Close()
			}
			if err == nil {
				if len(sent) != 2 || sent[0] != test.want || sent[1] != test.want || again != nil {
					t.Errorf("%q was sent, %v", sent, again)
				}
				return
			}
			if len(sent) != 0 || !strings.Contains(strings.ReplaceAll(err.Error(), `"`, ""), strings.ReplaceAll(test.want, `"`, "")) || WithoutURL(again).Error() != err.Error() {
				t.Errorf("got %v, and %v by the library; %q was sent", err, again, sent)
			}
		})
	}
}

// certificate returns a certificate for a loopback address, or an authority's if by is nil.
func certificate(t *testing.T, by *tls.Certificate) (cert tls.Certificate, certPEM, keyPEM []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	parent, signer := template, any(key)
	if by == nil {
		template.IsCA, template.BasicConstraintsValid, template.ExtKeyUsage, template.IPAddresses = true, true, nil, nil
	} else {
		parent, signer = by.Leaf, by.PrivateKey
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
	if cert, err = tls.X509KeyPair(certPEM, keyPEM); err != nil {
		t.Fatal(err)
	}
	return cert, certPEM, keyPEM
}

func TestWithSecret(t *testing.T) {
	authority, ca, _ := certificate(t, nil)
	server, _, _ := certificate(t, &authority)
	_, cert, key := certificate(t, &authority)
	pool := x509.NewCertPool()
	pool.AddCert(authority.Leaf)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, len(r.TLS.PeerCertificates), " ", r.Header.Get("Authorization"))
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{server}, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: pool}
	s.StartTLS()
	defer s.Close()
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	c := client(t, Options{Policy: Anywhere})
	type data = map[string][]byte
	for name, test := range map[string]struct {
		data data
		want string // the answer, or the error
	}{
		"an authority":                      {data{KeyCA: ca, "other": ca}, "0 "},
		"an authority and a token":          {data{KeyCA: ca, KeyToken: []byte("t\n")}, "0 Bearer t"},
		"an authority and a password":       {data{KeyCA: ca, KeyUsername: []byte("u"), KeyPassword: []byte("p")}, "0 Basic dTpw"},
		"a certificate of its own":          {data{KeyCA: ca, KeyCert: cert, KeyKey: key}, "1 "},
		"no authority":                      {data{KeyToken: []byte("t")}, "certificate signed by unknown authority"},
		"a token and a password":            {data{KeyToken: []byte("t"), KeyUsername: []byte("u"), KeyPassword: []byte("p")}, "it holds both token and username"},
		"a user without password":           {data{KeyUsername: []byte("u")}, "it holds one of username and password without the other"},
		"a user with a colon":               {data{KeyUsername: []byte("u:v"), KeyPassword: []byte("p")}, "username holds a colon, which cannot be sent"},
		"a certificate without key":         {data{KeyCert: cert}, "it holds one of tls.crt and tls.key without the other"},
		"an authority that is none":         {data{KeyCA: []byte("x")}, "ca.crt holds no certificate in PEM form"},
		"a key that is none":                {data{KeyCert: cert, KeyKey: []byte("x")}, "tls.crt and tls.key: tls: failed to find any PEM data in key input"},
		"nothing":                           {data{"password.txt": []byte("x")}, "it holds none of the keys token,"},
		"a token of two lines":              {data{KeyToken: []byte("a\nX-B: c")}, "token holds a character that cannot be sent"},
		"a token of megabytes":              {data{KeyToken: make([]byte, 1<<20)}, "token is longer than 16384 bytes"},
		"an authority of several megabytes": {data{KeyCA: make([]byte, 1<<20)}, "ca.crt is longer than 65536 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			own, credentials, err := c.WithSecret(u.Host, test.data)
			var body []byte
			if err == nil {
				body, err = own.Get(context.Background(), Request{URL: u, Credentials: credentials})
			}
			if string(body) != test.want && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("got %q, %v; want %q", body, err, test.want)
			}
		})
	}

	own, _, err := c.WithSecret(u.Host, data{KeyCA: ca, KeyCert: cert, KeyKey: key})
	if err != nil {
		t.Fatal(err)
	}
	other := *u
	other.Host = "127.0.0.1:1"
	if _, err := own.Get(context.Background(), Request{URL: &other}); Kind(err) != "denied" {
		t.Errorf("a certificate for one host was offered to another: %v", err)
	}
	if own.shared.budgets != c.shared.budgets {
		t.Error("a client made from another has a budget of its own")
	}
	for i := range 3 * maxVariants {
		if _, _, err := c.WithSecret(fmt.Sprint("host-", i), data{KeyCA: ca}); err != nil {
			t.Fatal(err)
		}
	}
	if n := c.shared.variants.Len(); n != maxVariants {
		t.Errorf("%d clients are kept", n)
	}
	one, _, _ := c.WithSecret("a.org", data{KeyCA: ca})
	two, _, _ := c.WithSecret("a.org", data{KeyCA: ca, KeyToken: []byte("t")})
	if one != two {
		t.Error("equal certificates do not share connections")
	}
}
