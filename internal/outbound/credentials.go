package outbound

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"k8s.io/utils/lru"
)

// Credentials are sent to one host only. For any other a request fails before anything is sent.
type Credentials struct {
	// Host is a host, for all its ports, or host:port.
	Host string
	// Token is sent as a bearer token. If it is empty, Username and Password are sent.
	Token string
	// Scheme is sent before Token; Bearer if empty.
	Scheme             string
	Username, Password string
}

func (c *Credentials) set(header http.Header) {
	r := http.Request{Header: header}
	if c.Token != "" {
		header.Set("Authorization", cmp.Or(c.Scheme, "Bearer")+" "+c.Token)
	} else {
		r.SetBasicAuth(c.Username, c.Password)
	}
}

// boundTo refuses an endpoint that is not the host.
func boundTo(host string, e endpoint) error {
	u := url.URL{Scheme: "http", Host: host}
	only, err := endpointOf(&u)
	if err != nil {
		return fmt.Errorf("the host %.100q of the credentials: %w", host, err)
	}
	if only.host != e.host || u.Port() != "" && only.port != e.port {
		return &DeniedError{What: "sending credentials to " + e.String(), Why: fmt.Sprintf("they are for %.100q only", host)}
	}
	return nil
}

// The keys of a Secret, and the names of the files in a directory of credentials.
const (
	KeyToken    = "token"
	KeyUsername = "username"
	KeyPassword = "password"
	KeyCA       = "ca.crt"
	KeyCert     = "tls.crt"
	KeyKey      = "tls.key"
)

const (
	maxSecretValue = 64 << 10
	maxToken       = 16 << 10 // servers take no longer headers
	maxVariants    = 128
)

// WithSecret returns what is needed to speak to the host with what a Secret holds: token, or username and password; ca.crt;
// tls.crt and tls.key. Other keys are ignored. The client has its own connections, is shared by all who bring the same, and
// speaks to no other host. Credentials are nil where there are none to send.
func (c *Client) WithSecret(host string, data map[string][]byte) (*Client, *Credentials, error) {
	text := func(key string, limit int) (string, error) {
		value := string(bytes.TrimRight(data[key], "\r\n")) // as editors and echo end a file
		if len(value) > limit {
			return "", fmt.Errorf("%s is longer than %d bytes", key, limit)
		}
		if strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return "", fmt.Errorf("%s holds a character that cannot be sent", key)
		}
		return value, nil
	}
	credentials := &Credentials{Host: host}
	for key, to := range map[string]*string{KeyToken: &credentials.Token, KeyUsername: &credentials.Username, KeyPassword: &credentials.Password} {
		var err error
		if *to, err = text(key, maxToken); err != nil {
			return nil, nil, err
		}
	}
	ca, cert, key := data[KeyCA], data[KeyCert], data[KeyKey]
	switch {
	case credentials.Token != "" && credentials.Username != "":
		return nil, nil, fmt.Errorf("it holds both %s and %s", KeyToken, KeyUsername)
	case (credentials.Username == "") != (credentials.Password == ""):
		return nil, nil, fmt.Errorf("it holds one of %s and %s without the other", KeyUsername, KeyPassword)
	case (len(cert) == 0) != (len(key) == 0):
		return nil, nil, fmt.Errorf("it holds one of %s and %s without the other", KeyCert, KeyKey)
	case strings.Contains(credentials.Username, ":"):
		return nil, nil, fmt.Errorf("%s holds a colon, which cannot be sent", KeyUsername)
	case credentials.Token == "" && credentials.Username == "" && len(ca)+len(cert) == 0:
		return nil, nil, fmt.Errorf("it holds none of the keys %s, %s and %s, %s, %s and %s", KeyToken, KeyUsername, KeyPassword, KeyCA, KeyCert, KeyKey)
	}
	if credentials.Token == "" && credentials.Username == "" {
		credentials = nil
	}
	if len(ca)+len(cert) == 0 {
		return c, credentials, nil
	}
	variant, err := c.shared.variant(host, ca, cert, key)
	return variant, credentials, err
}

// variant returns the client of these certificates and this host, which it makes if there is none.
func (s *shared) variant(host string, ca, cert, key []byte) (*Client, error) {
	hash := sha256.New()
	for _, part := range [][]byte{[]byte(host), ca, cert, key} {
		fmt.Fprintf(hash, "%d ", len(part))
		hash.Write(part)
	}
	id := hex.EncodeToString(hash.Sum(nil))
	s.mu.Lock()
	defer s.mu.Unlock()
	if known, ok := s.variants.Get(id); ok {
		return known.(*Client), nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	for name, part := range map[string][]byte{KeyCA: ca, KeyCert: cert, KeyKey: key} {
		if len(part) > maxSecretValue {
			return nil, fmt.Errorf("%s is longer than %d bytes", name, maxSecretValue)
		}
	}
	if len(ca) > 0 {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(ca) {
			return nil, fmt.Errorf("%s holds no certificate in PEM form", KeyCA)
		}
	}
	if len(cert) > 0 {
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("%s and %s: %w", KeyCert, KeyKey, err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	v := s.client(config)
	v.host = host
	s.variants.Add(id, v)
	return v, nil
}

// newVariants forgets what was not used for the longest time. Who still holds such a client may use it on.
func newVariants() *lru.Cache {
	return lru.NewWithEvictionFunc(maxVariants, func(_ lru.Key, v any) { v.(*Client).http.CloseIdleConnections() })
}
