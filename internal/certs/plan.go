// Package certs keeps the server's own certificates: an own CA and a serving certificate in a Secret that all replicas share,
// renewed long before they expire, and the CA bundles of the APIServices and webhook configurations that lead to the server.
// It may write that Secret and those bundles, nothing else in these objects and no other objects.
package certs

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"slices"
	"time"

	"k8s.io/client-go/util/keyutil"
)

// How long things last. The old CA outlives everything it signed, and a new CA is known to all clients before it signs.
const (
	caLife      = 730 * 24 * time.Hour
	servingLife = 90 * 24 * time.Hour
	// servingRenew is what a serving certificate has left when it is replaced.
	servingRenew = 30 * 24 * time.Hour
	// caRenew is what the newest CA has left when its successor joins the bundle.
	caRenew = servingLife + servingRenew
	// publishDelay is how long a CA is in the bundle before it signs.
	publishDelay = 24 * time.Hour
	// backdate allows for clocks that run behind this one.
	backdate = time.Hour
)

// The keys of the Secret.
const (
	keyCACerts = "ca.crt"
	keyCAKeys  = "ca.key"
	keyCert    = "tls.crt"
	keyKey     = "tls.key"
)

type pair struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// state is the Secret's content, read. CAs are sorted, oldest first.
type state struct {
	cas     []pair
	serving pair
}

// plan returns the state that should hold at now for a certificate made out to the names, why it differs from the given one
// (nothing if it does not), and when to look again. What can't be read is replaced.
func plan(s state, names []string, now time.Time) (state, []string, time.Time, error) {
	var reasons []string
	next := state{serving: s.serving}
	for _, ca := range s.cas {
		if now.After(ca.cert.NotAfter) || now.Before(ca.cert.NotBefore) {
			reasons = append(reasons, "the CA "+ca.cert.Subject.CommonName+" has expired or is not valid yet")
			continue
		}
		next.cas = append(next.cas, ca)
	}
	if len(next.cas) == 0 || newest(next.cas).cert.NotAfter.Sub(now) <= caRenew {
		ca, err := newCA(now)
		if err != nil {
			return s, nil, now, err
		}
		reasons = append(reasons, "a new CA is due")
		next.cas = append(next.cas, ca)
	}
	signer := next.cas[0]
	for _, ca := range next.cas[1:] {
		if !now.Before(published(ca)) {
			signer = ca
		}
	}
	if why := unfit(next.serving, signer, names, now); why != "" {
		serving, err := newServing(signer, names, now)
		if err != nil {
			return s, nil, now, err
		}
		reasons = append(reasons, "the serving certificate "+why)
		next.serving = serving
	}
	look := next.serving.cert.NotAfter.Add(-servingRenew)
	for _, ca := range next.cas {
		for _, at := range []time.Time{published(ca), ca.cert.NotAfter.Add(time.Second), ca.cert.NotAfter.Add(-caRenew)} {
			if at.After(now) && at.Before(look) {
				look = at
			}
		}
	}
	return next, reasons, look, nil
}

func newest(cas []pair) pair { return cas[len(cas)-1] }

// published is when the CA may sign.
func published(ca pair) time.Time { return ca.cert.NotBefore.Add(backdate + publishDelay) }

// unfit says why the serving certificate must be replaced; empty if it need not.
func unfit(serving, signer pair, names []string, now time.Time) string {
	switch {
	case serving.cert == nil:
		return "is missing or can't be read"
	case serving.cert.CheckSignatureFrom(signer.cert) != nil:
		return "is not signed by the current CA"
	case serving.cert.NotBefore.After(now):
		return "is not valid yet"
	case serving.cert.NotAfter.Sub(now) <= servingRenew:
		return "expires at " + serving.cert.NotAfter.UTC().Format(time.RFC3339)
	}
	for _, usage := range usages {
		if !slices.Contains(serving.cert.ExtKeyUsage, usage) {
			return "is not made for both sides of a connection"
		}
	}
	for _, name := range names {
		if !slices.Contains(serving.cert.DNSNames, name) {
			return "is not made out to " + name
		}
	}
	return ""
}

// usages are both sides of a connection between two replicas.
var usages = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}

func newCA(now time.Time) (pair, error) {
	template := &x509.Certificate{
		Subject:   pkix.Name{CommonName: fmt.Sprintf("kubetide-ca@%d", now.Unix())},
		NotBefore: now.Add(-backdate), NotAfter: now.Add(caLife),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
	}
	return sign(template, nil)
}

func newServing(ca pair, names []string, now time.Time) (pair, error) {
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: names[0]}, DNSNames: names,
		NotBefore: now.Add(-backdate), NotAfter: now.Add(servingLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: usages, BasicConstraintsValid: true,
	}
	return sign(template, &ca)
}

// sign makes a key and a certificate for it; without a CA the certificate signs itself.
func sign(template *x509.Certificate, ca *pair) (pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return pair{}, err
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127)); err != nil {
		return pair{}, err
	}
	if ca == nil {
		ca = &pair{cert: template, key: key}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, key.Public(), ca.key)
	if err != nil {
		return pair{}, err
	}
	cert, err := x509.ParseCertificate(der)
	return pair{cert: cert, key: key}, err
}

// decode reads the Secret's data, without what is broken.
func decode(data map[string][]byte) state {
	var s state
	keys := pemBlocks(data[keyCAKeys])
	for i, block := range pemBlocks(data[keyCACerts]) {
		if i < len(keys) {
			if ca, ok := decodePair(block, keys[i]); ok && ca.cert.IsCA {
				s.cas = append(s.cas, ca)
			}
		}
	}
	slices.SortStableFunc(s.cas, func(a, b pair) int { return a.cert.NotBefore.Compare(b.cert.NotBefore) })
	if serving, ok := decodePair(data[keyCert], data[keyKey]); ok {
		s.serving = serving
	}
	return s
}

func decodePair(certPEM, keyPEM []byte) (pair, bool) {
	block, _ := pem.Decode(certPEM)
	if block == nil {
		return pair{}, false
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return pair{}, false
	}
	parsed, err := keyutil.ParsePrivateKeyPEM(keyPEM)
	if err != nil {
		return pair{}, false
	}
	key, ok := parsed.(crypto.Signer)
	if !ok {
		return pair{}, false
	}
	public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	return pair{cert: cert, key: key}, ok && public.Equal(cert.PublicKey)
}

func pemBlocks(content []byte) [][]byte {
	var blocks [][]byte
	for {
		block, rest := pem.Decode(content)
		if block == nil {
			return blocks
		}
		blocks = append(blocks, pem.EncodeToMemory(block))
		content = rest
	}
}

func (s state) encode() (map[string][]byte, error) {
	var certs, keys bytes.Buffer
	for _, ca := range s.cas {
		key, err := encodeKey(ca.key)
		if err != nil {
			return nil, err
		}
		certs.Write(encodeCert(ca.cert))
		keys.Write(key)
	}
	key, err := encodeKey(s.serving.key)
	if err != nil {
		return nil, err
	}
	return map[string][]byte{
		keyCACerts: certs.Bytes(), keyCAKeys: keys.Bytes(), keyCert: encodeCert(s.serving.cert), keyKey: key,
	}, nil
}

func encodeCert(cert *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
}

func encodeKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}
