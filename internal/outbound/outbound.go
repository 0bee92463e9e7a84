// Package outbound is the HTTP client for everything that tenants point Kubetide at. It gets small documents within a
// deadline and bounds whatever the other side may do: it follows no redirect, accepts no compression, reads no more than a
// limit, and connects only to addresses that its policy allows, checked after the name was resolved. It sends no
// credentials and knows nothing of proxies.
package outbound

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"time"
)

// Options bound a Client. The zero value of a field is its default.
type Options struct {
	// MaxBody is the size of an answer in bytes; default 1 MiB.
	MaxBody int64
	// Timeout bounds each whole request, whatever the request itself says; default 1 m.
	Timeout time.Duration
	// MaxConnsPerHost bounds the connections to one address and port, further requests wait for one; default 4.
	MaxConnsPerHost int
	// Policy says which addresses may be connected to; default DenyInternal.
	Policy Policy
	// TLS is used for https; the default verifies with the system's authorities.
	TLS *tls.Config
}

// Client may be used by several goroutines at once. One is enough for a process: connections are shared.
type Client struct {
	http    http.Client
	maxBody int64
	timeout time.Duration
}

const (
	maxHeader    = 64 << 10
	maxIdle      = 512
	idleTimeout  = 90 * time.Second
	tlsHandshake = 10 * time.Second
)

// New returns a client.
func New(o Options) *Client {
	if o.MaxBody == 0 {
		o.MaxBody = 1 << 20
	}
	if o.Timeout == 0 {
		o.Timeout = time.Minute
	}
	if o.MaxConnsPerHost == 0 {
		o.MaxConnsPerHost = 4
	}
	if o.Policy == nil {
		o.Policy = DenyInternal
	}
	dialer := &net.Dialer{
		// The address here is the resolved one that the connection goes to, so that a name which resolves differently the
		// second time changes nothing.
		ControlContext: func(_ context.Context, _, address string, _ syscall.RawConn) error {
			a, err := netip.ParseAddrPort(address)
			if err != nil {
				return err
			}
			return o.Policy(a)
		},
	}
	return &Client{
		maxBody: o.MaxBody,
		timeout: o.Timeout,
		http: http.Client{
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			Transport: &http.Transport{
				DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
					ctx, cancel := context.WithTimeout(ctx, connectTimeout(ctx, o.Timeout))
					defer cancel()
					return dialer.DialContext(ctx, network, address)
				},
				MaxResponseHeaderBytes: maxHeader,
				MaxConnsPerHost:        o.MaxConnsPerHost,
				MaxIdleConns:           maxIdle,
				MaxIdleConnsPerHost:    1,
				IdleConnTimeout:        idleTimeout,
				ResponseHeaderTimeout:  o.Timeout,
				TLSHandshakeTimeout:    tlsHandshake,
				TLSClientConfig:        o.TLS,
			},
		},
	}
}

// Request is one GET.
type Request struct {
	URL *url.URL
	// Timeout bounds the whole request, the answer's body included. 0, or more than the client's: the client's.
	Timeout time.Duration
	// ConnectTimeout bounds making the connection, if one has to be made. 0, or more than the client's: the client's.
	ConnectTimeout time.Duration
}

type connectTimeoutKey struct{}

func connectTimeout(ctx context.Context, limit time.Duration) time.Duration {
	if d, ok := ctx.Value(connectTimeoutKey{}).(time.Duration); ok && d > 0 {
		return min(d, limit)
	}
	return limit
}

// Get returns the body of the answer, which has status 200. Errors do not contain the URL's query, which may hold a secret,
// nor anything of the body.
func (c *Client) Get(ctx context.Context, r Request) ([]byte, error) {
	if r.URL.Scheme != "http" && r.URL.Scheme != "https" {
		return nil, fmt.Errorf("the scheme %.20q is not http or https", r.URL.Scheme)
	}
	timeout := c.timeout
	if r.Timeout > 0 {
		timeout = min(timeout, r.Timeout)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, timeoutError(timeout))
	defer cancel()
	request, err := http.NewRequestWithContext(context.WithValue(ctx, connectTimeoutKey{}, r.ConnectTimeout), http.MethodGet, r.URL.String(), nil)
	if err != nil {
		return nil, withoutURL(err)
	}
	request.Header.Set("Accept", "application/json")
	request.Header.Set("Accept-Encoding", "identity") // said by us, it also keeps the transport from inflating what comes
	request.Header.Set("User-Agent", "kubetide")
	response, err := c.http.Do(request)
	if err != nil {
		return nil, cause(ctx, withoutURL(err))
	}
	defer func() { _ = response.Body.Close() }() // closing before the end drops the connection, with all that is still to come
	if response.StatusCode >= 300 && response.StatusCode < 400 {
		return nil, fmt.Errorf("status %d redirects to %s, and redirects are not followed", response.StatusCode, locationHost(response))
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status %d, not 200", response.StatusCode)
	}
	if e := response.Header.Get("Content-Encoding"); e != "" && !strings.EqualFold(e, "identity") {
		return nil, fmt.Errorf("the answer has the content encoding %.20q, but only identity was accepted", e)
	}
	body, err := read(response, c.maxBody)
	return body, cause(ctx, err)
}

// read takes at most limit bytes. It grows its memory with what arrives, never beyond the limit.
func read(response *http.Response, limit int64) ([]byte, error) {
	tooLarge := fmt.Errorf("the answer is larger than %d bytes", limit)
	if response.ContentLength > limit {
		return nil, tooLarge
	}
	for body := make([]byte, 0, min(4096, limit+1)); ; {
		if len(body) == cap(body) {
			body = append(make([]byte, 0, min(2*int64(cap(body)), limit+1)), body...)
		}
		n, err := response.Body.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		switch {
		case int64(len(body)) > limit:
			return nil, tooLarge
		case err == io.EOF:
			return body, nil
		case err != nil:
			return nil, fmt.Errorf("reading the answer: %w", err)
		}
	}
}

// Close closes the connections that are not in use.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// withoutURL takes away what net/http puts before an error.
func withoutURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// cause names the timeout where it was the request's own.
func cause(ctx context.Context, err error) error {
	if c := context.Cause(ctx); errors.Is(err, context.DeadlineExceeded) && c != nil {
		return c
	}
	return err
}

// timeoutError says that the request's own time was over.
type timeoutError time.Duration

func (e timeoutError) Error() string { return "no complete answer within " + time.Duration(e).String() }

// Timeout tells it apart as net.Error does.
func (e timeoutError) Timeout() bool { return true }

func locationHost(r *http.Response) string {
	location, err := r.Location()
	if err != nil {
		return "an unreadable location"
	}
	return fmt.Sprintf("host %.100q", location.Host)
}
