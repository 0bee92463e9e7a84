package certs

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync"

	"k8s.io/apiserver/pkg/server/dynamiccertificates"
)

// CA gives the certificates, in PEM, that those of others are verified against; empty while there are none.
type CA interface {
	CurrentCABundleContent() []byte
}

// Peers is TLS between servers that share a CA and a name: each side shows its serving certificate and verifies the other's.
// All of it may change while connections are open; Verify says whether one would still come about.
type Peers struct {
	ca      CA
	name    string
	current func() (*tls.Certificate, error)

	// mu protects the pool, which holds what bundle says.
	mu     sync.Mutex
	bundle []byte
	pool   *x509.CertPool
}

// NewPeers trusts certificates of the CA that are made out to the DNS name.
func NewPeers(certificate dynamiccertificates.CertKeyContentProvider, ca CA, name string) *Peers {
	return &Peers{ca: ca, name: name, current: currentCertificate(certificate)}
}

// Client returns the configuration for one connection to a peer.
func (p *Peers) Client() (*tls.Config, error) {
	roots, err := p.roots()
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, ServerName: p.name, RootCAs: roots,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return p.current() },
	}, nil
}

// Server returns the configuration for connections from peers.
func (p *Peers) Server() *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		GetCertificate:         func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return p.current() },
		ClientAuth:             tls.RequireAnyClientCert,
		VerifyConnection:       func(s tls.ConnectionState) error { return p.Verify(s, x509.ExtKeyUsageClientAuth) },
		SessionTicketsDisabled: true,
	}
}

// Verify says what is wrong now with the certificate that the other side of a connection has shown. usage is the other side's part.
func (p *Peers) Verify(s tls.ConnectionState, usage x509.ExtKeyUsage) error {
	roots, err := p.roots()
	if err != nil {
		return err
	}
	if len(s.PeerCertificates) == 0 {
		return errors.New("no certificate was shown")
	}
	options := x509.VerifyOptions{DNSName: p.name, Roots: roots, Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{usage}}
	for _, cert := range s.PeerCertificates[1:] {
		options.Intermediates.AddCert(cert)
	}
	_, err = s.PeerCertificates[0].Verify(options)
	return err
}

func (p *Peers) roots() (*x509.CertPool, error) {
	bundle := p.ca.CurrentCABundleContent()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pool == nil || !bytes.Equal(bundle, p.bundle) {
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(bundle) {
			return nil, errors.New("there is no CA to verify peers against")
		}
		p.bundle, p.pool = bundle, pool
	}
	return p.pool, nil
}

// CAFile is a CA bundle that somebody else keeps in a file. It is read again when that changes.
type CAFile struct {
	CA
	run func(ctx context.Context, workers int)
}

// NewCAFile reads the file.
func NewCAFile(file string) (*CAFile, error) {
	bundle, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("CA of peers: %w", err)
	}
	if !x509.NewCertPool().AppendCertsFromPEM(bundle) {
		return nil, fmt.Errorf("CA of peers: %s has no certificates in PEM", file)
	}
	content, err := dynamiccertificates.NewDynamicCAContentFromFile("peers", file)
	if err != nil {
		return nil, fmt.Errorf("CA of peers: %w", err)
	}
	return &CAFile{CA: content, run: content.Run}, nil
}

// Run follows the file until ctx ends.
func (f *CAFile) Run(ctx context.Context) error {
	f.run(ctx, 1)
	return nil
}
