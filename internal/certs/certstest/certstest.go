// Package certstest makes certificate authorities and the certificates of servers that trust each other, for tests.
package certstest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"sync"
	"testing"
	"time"

	"k8s.io/apiserver/pkg/server/dynamiccertificates"

	"github.com/kubetide/kubetide/internal/certs"
)

// Authority signs certificates.
type Authority struct {
	// PEM is its own certificate.
	PEM  []byte
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

// NewAuthority makes an authority that is valid for an hour, as all that it signs is.
func NewAuthority(t testing.TB) *Authority {
	t.Helper()
	a := &Authority{}
	a.cert, a.key = a.sign(t, &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	a.PEM = certificatePEM(a.cert)
	return a
}

// Trusted is a bundle of its certificate.
func (a *Authority) Trusted() *Bundle { return &Bundle{pem: a.PEM} }

// Peers trusts what trusted has, and shows a certificate of the authority for the DNS name.
func (a *Authority) Peers(t testing.TB, name string, trusted certs.CA) *certs.Peers {
	t.Helper()
	cert, key := a.sign(t, &x509.Certificate{
		DNSNames: []string{name}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
	private, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	content, err := dynamiccertificates.NewStaticCertKeyContent("test", certificatePEM(cert), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
	must(t, err)
	return certs.NewPeers(content, trusted, name)
}

// sign completes the template. The first certificate, which is the authority's own, signs itself.
func (a *Authority) sign(t testing.TB, template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template.SerialNumber, template.Subject = big.NewInt(time.Now().UnixNano()), pkix.Name{CommonName: "test"}
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	return cert, key
}

func certificatePEM(cert *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Bundle is a CA bundle that a test can change. Without a value it trusts nobody.
type Bundle struct {
	mu  sync.Mutex
	pem []byte // under mu
}

var _ certs.CA = (*Bundle)(nil)

// CurrentCABundleContent is what Set has set last.
func (b *Bundle) CurrentCABundleContent() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.pem
}

// Set replaces the bundle by certificates in PEM.
func (b *Bundle) Set(pem []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pem = pem
}
