package certs

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync"

	"k8s.io/apiserver/pkg/server/dynamiccertificates"
)

// TLSConfig serves the provider's current certificate, for servers that are not a Kubernetes API server.
func TLSConfig(provider dynamiccertificates.CertKeyContentProvider) *tls.Config {
	current := currentCertificate(provider)
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return current() },
	}
}

// currentCertificate parses the provider's certificate when it has changed.
func currentCertificate(provider dynamiccertificates.CertKeyContentProvider) func() (*tls.Certificate, error) {
	var mu sync.Mutex
	var cert, key []byte
	var parsed tls.Certificate
	return func() (*tls.Certificate, error) {
		mu.Lock()
		defer mu.Unlock()
		currentCert, currentKey := provider.CurrentCertKeyContent()
		if len(currentCert) == 0 {
			return nil, errors.New("there is no serving certificate yet")
		}
		if !bytes.Equal(cert, currentCert) || !bytes.Equal(key, currentKey) {
			pair, err := tls.X509KeyPair(currentCert, currentKey)
			if err != nil {
				return nil, err
			}
			cert, key, parsed = currentCert, currentKey, pair
		}
		// The caller gets a copy: the next change must not touch a handshake under way.
		current := parsed
		return &current, nil
	}
}

// Files is a serving certificate that somebody else keeps in two files. It is read again when they change.
type Files struct {
	dynamiccertificates.CertKeyContentProvider
	run func(ctx context.Context, workers int)
}

// NewFiles reads the files.
func NewFiles(certFile, keyFile string) (*Files, error) {
	if _, err := tls.LoadX509KeyPair(certFile, keyFile); err != nil {
		return nil, fmt.Errorf("serving certificate: %w", err)
	}
	content, err := dynamiccertificates.NewDynamicServingContentFromFiles("files", certFile, keyFile)
	if err != nil {
		return nil, err
	}
	return &Files{CertKeyContentProvider: content, run: content.Run}, nil
}

// Run follows the files until ctx ends.
func (f *Files) Run(ctx context.Context) error {
	f.run(ctx, 1)
	return nil
}
