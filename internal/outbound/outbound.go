// Package outbound is the HTTP client for everything outside of the cluster's API that Kubetide asks. It bounds whatever
// the other side may do: it follows no redirect, accepts no compression, reads no more than a limit within a deadline, and
// connects only to addresses that its policy allows, checked after the name was resolved. It bounds what is asked on behalf
// of one namespace, and sends credentials only to the host that they are for. It knows nothing of proxies, of HTTP/2, and of
// where settings and credentials come from.
package outbound

import (
	"bytes"
	"cmp"
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
	"sync"
	"syscall"
	"time"

	"k8s.io/utils/lru"
)

// Options bound a Client. The zero value of a field is its default.
type Options struct {
	// Policy says which addresses may be connected to; default DenyInternal.
	Policy Policy
	// Hosts and Ports are those that requests may name; default all. Requests to pods need not keep to them.
	Hosts Hosts
	Ports Ports
	// Budget is what each namespace has.
	Budget Budget
	// MaxBody is the size of an answer in bytes; default 1 MiB, and 16 MiB for Stream.
	MaxBody int64
	// Timeout bounds each whole request, whatever the request itself says; default 1 m.
	Timeout time.Duration
	// TLS is used for https; the default verifies with the system's authorities.
	TLS *tls.Config
	// Metrics count the requests; default none.
	Metrics *Metrics
	// Resolver finds names' addresses; default the system's.
	Resolver *net.Resolver
}

// Client may be used by several goroutines at once. One is enough for a process: connections are shared.
type Client struct {
	shared *shared
	http   *http.Transport
	host   string // the only one that may be asked; empty: all
}

// shared is what a client and those made from it have in common.
type shared struct {
	Options
	budgets *budgets
	dialer  *net.Dialer

	mu       sync.Mutex // so that one variant is made once
	variants *lru.Cache
}

const (
	defaultMaxBody   = 1 << 20
	defaultMaxStream = 16 << 20
	maxHeader        = 64 << 10
	maxIdle          = 512
	idleTimeout      = 90 * time.Second
	tlsHandshake     = 10 * time.Second
)

// New returns a client.
func New(o Options) *Client {
	if o.Timeout == 0 {
		o.Timeout = time.Minute
	}
	if o.Policy == nil {
		o.Policy = DenyInternal
	}
	s := &shared{Options: o, budgets: newBudgets(o.Budget), variants: newVariants()}
	s.dialer = &net.Dialer{
		Resolver: o.Resolver,
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
	return s.client(o.TLS)
}

func (s *shared) client(config *tls.Config) *Client {
	return &Client{shared: s, http: &http.Transport{
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, ctx.Value(connectTimeoutKey{}).(time.Duration))
			defer cancel()
			return s.dialer.DialContext(ctx, network, address)
		},
		MaxResponseHeaderBytes: maxHeader,
		MaxIdleConns:           maxIdle,
		MaxIdleConnsPerHost:    maxIdle, // many namespaces ask one host, such as Prometheus
		IdleConnTimeout:        idleTimeout,
		TLSHandshakeTimeout:    tlsHandshake,
		TLSClientConfig:        config,
	}}
}

// Close closes the connections that are not in use, also those of clients that WithSecret made.
func (c *Client) Close() {
	c.http.CloseIdleConnections()
	c.shared.variants.Clear()
}

// Request is one question.
type Request struct {
	// Namespace is that of the tenant on whose behalf is asked, and whose budget pays.
	Namespace string
	// Collector is for the client's metrics.
	Collector string
	// Pod says that the URL leads to a pod of the namespace itself, so that Hosts and Ports do not matter.
	Pod bool
	// Method is GET if empty.
	Method string
	URL    *url.URL
	// Header is added to the client's own.
	Header http.Header
	Body   []byte
	// Credentials are nil where there are none.
	Credentials *Credentials
	// Timeout bounds the whole request, the answer's body included. 0, or more than the client's: the client's.
	Timeout time.Duration
	// ConnectTimeout bounds making the connection, if one has to be made. 0, or more than Timeout: that.
	ConnectTimeout time.Duration
	// MaxBody is the size of the answer in bytes. 0: the client's.
	MaxBody int64
}

// Response is an answer of any status but a redirect's.
type Response struct {
	Status int
	Header http.Header
	Body   []byte
}

// Get returns the body of the answer, which has status 200. Errors do not contain the URL's query, which may hold a secret,
// nor anything of the body.
func (c *Client) Get(ctx context.Context, r Request) ([]byte, error) {
	response, err := c.ask(ctx, r, true, defaultMaxBody)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.answer.Close() }()
	return response.answer.all(true)
}

// Do is Get for answers of any status.
func (c *Client) Do(ctx context.Context, r Request) (*Response, error) {
	response, err := c.ask(ctx, r, false, defaultMaxBody)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.answer.Close() }()
	body, err := response.answer.all(true)
	if err != nil {
		return nil, err
	}
	return &Response{Status: response.StatusCode, Header: response.Header, Body: body}, nil
}

// Read is Get for an answer that nobody keeps: its memory counts against the bounds for answers until use returns, and is use's
// only until then.
func (c *Client) Read(ctx context.Context, r Request, use func(body []byte) error) error {
	response, err := c.ask(ctx, r, true, defaultMaxBody)
	if err != nil {
		return err
	}
	defer response.answer.room.end()
	defer response.answer.room.recycle()
	body, err := response.answer.all(false)
	response.answer.end() // others may use the connection
	if err != nil {
		return err
	}
	return use(body)
}

// Stream is Get for an answer of up to 16 MiB that read takes as it comes. read need not take all. Where the answer breaks
// off, the error is the reason for that, whatever read makes of it.
func (c *Client) Stream(ctx context.Context, r Request, read func(io.Reader) error) error {
	response, err := c.ask(ctx, r, true, defaultMaxStream)
	if err != nil {
		return err
	}
	response.answer.room.bytes = response.answer.limit + 1 // it is not held
	defer func() { _ = response.answer.Close() }()
	err = read(response.answer)
	return cmp.Or(response.answer.failure(), err)
}

// RoundTripper is the client for libraries. Answers of any status but a redirect's are returned; their bodies are bounded and
// must be closed.
func (c *Client) RoundTripper(namespace, collector string, credentials *Credentials) http.RoundTripper {
	return roundTripper{c, exchange{namespace: namespace, collector: collector, credentials: credentials, limit: defaultMaxBody}}
}

type roundTripper struct {
	client   *Client
	exchange exchange
}

func (t roundTripper) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := t.client.send(r.Context(), r, t.exchange)
	if err != nil {
		if r.Body != nil {
			_ = r.Body.Close() // a RoundTripper has to, and what is refused never reached the one below
		}
		return nil, err
	}
	response.Body = response.answer
	return response.Response, nil
}

func (c *Client) ask(ctx context.Context, r Request, only200 bool, limit int64) (*response, error) {
	method := r.Method
	if method == "" {
		method = http.MethodGet
	}
	request, err := http.NewRequest(method, "", bytes.NewReader(r.Body))
	if err != nil {
		return nil, err
	}
	request.URL = r.URL
	request.Header.Set("Accept", "application/json")
	for name, values := range r.Header {
		request.Header[http.CanonicalHeaderKey(name)] = values
	}
	if r.MaxBody > 0 {
		limit = r.MaxBody
	} else if c.shared.MaxBody > 0 {
		limit = c.shared.MaxBody
	}
	return c.send(ctx, request, exchange{
		namespace: r.Namespace, collector: r.Collector, pod: r.Pod, credentials: r.Credentials,
		timeout: r.Timeout, connectTimeout: r.ConnectTimeout, limit: limit, only200: only200,
	})
}

// exchange is what send needs to know besides the request.
type exchange struct {
	namespace, collector    string
	pod                     bool
	credentials             *Credentials
	timeout, connectTimeout time.Duration
	limit                   int64
	only200                 bool
}

// Check says whether a request to the URL would be refused for what it is, without asking anybody. Where its name leads
// shows only when it is resolved.
func (c *Client) Check(u *url.URL) error {
	_, err := c.check(u, exchange{})
	return err
}

func (c *Client) check(u *url.URL, x exchange) (endpoint, error) {
	e, err := endpointOf(u)
	if err != nil {
		return e, err
	}
	if !x.pod && !c.shared.Hosts.allow(e.host) {
		return e, &DeniedError{What: fmt.Sprintf("the host %.253q", e.host), Why: "it is not among the hosts that may be asked", Allow: "--outbound-hosts names them"}
	}
	if !x.pod && !c.shared.Ports.allow(e.port) {
		return e, &DeniedError{What: fmt.Sprintf("the port %d", e.port), Why: "it is not among the ports that may be asked", Allow: "--outbound-ports names them"}
	}
	if e.address.IsValid() {
		if err := c.shared.Policy(netip.AddrPortFrom(e.address, e.port)); err != nil {
			return e, err
		}
	}
	if c.host != "" {
		if err := boundTo(c.host, e); err != nil {
			return e, err
		}
	}
	if x.credentials != nil {
		if err := boundTo(x.credentials.Host, e); err != nil {
			return e, err
		}
	}
	return e, nil
}

type connectTimeoutKey struct{}

// send does everything but read the answer. The response must be closed: that ends the request's time and gives back its
// place.
func (c *Client) send(ctx context.Context, r *http.Request, x exchange) (*response, error) {
	s := c.shared
	e, err := c.check(r.URL, x)
	if err != nil {
		s.Metrics.refused(x.collector, err)
		return nil, err
	}
	timeout := s.Timeout
	if x.timeout > 0 {
		timeout = min(timeout, x.timeout)
	}
	ctx, timely := context.WithTimeoutCause(ctx, timeout, timeoutError(timeout))
	ctx, fail := context.WithCancelCause(ctx)
	cancel := func() { fail(nil); timely() }
	leave, err := s.budgets.enter(ctx, x.namespace, e.String())
	if err != nil {
		cancel()
		s.Metrics.refused(x.collector, err)
		return nil, err
	}
	began := time.Now()
	s.Metrics.sent()
	end := func(result string) {
		cancel()
		leave()
		s.Metrics.ended(x.collector, result, time.Since(began))
	}
	connect := timeout // a connection may be made on after its request has ended, but not for much longer
	if x.connectTimeout > 0 {
		connect = min(connect, x.connectTimeout)
	}
	r = r.Clone(context.WithValue(ctx, connectTimeoutKey{}, connect))
	r.Host = ""
	if r.Header == nil {
		r.Header = http.Header{}
	}
	r.Header.Set("Accept-Encoding", "identity") // said by us, it also keeps the transport from inflating what comes
	r.Header.Set("User-Agent", "kubetide")
	if x.credentials != nil {
		x.credentials.set(r.Header)
	}
	raw, err := c.http.RoundTrip(r)
	if err != nil {
		err = plain(ctx, err)
		end(Kind(err))
		return nil, err
	}
	switch encoding := raw.Header.Get("Content-Encoding"); {
	case redirects(raw.StatusCode), x.only200 && raw.StatusCode != http.StatusOK:
		err = statusError(raw)
	case encoding != "" && !strings.EqualFold(encoding, "identity"):
		err = &BrokenError{fmt.Errorf("the answer has the content encoding %.20q, but only identity was accepted", encoding)}
	case raw.ContentLength > x.limit && r.Method != http.MethodHead:
		err = &TooLargeError{x.limit}
	}
	if err != nil {
		_ = raw.Body.Close() // closing before the end drops the connection, with all that is still to come
		end(Kind(err))
		return nil, err
	}
	return &response{Response: raw, answer: &answer{
		ctx: ctx, body: raw.Body, status: raw.StatusCode, limit: x.limit, left: x.limit, ended: end,
		room: &room{budgets: s.budgets, namespace: x.namespace, announced: raw.ContentLength, late: func(err lateError) { fail(err) }, bytes: freeRoom},
	}}, nil
}

type response struct {
	*http.Response
	answer *answer
}

// all reads to the end. Its memory grows with what arrives, never much beyond the limit. What it returns is the caller's if he
// keeps it, else the room's.
func (a *answer) all(keep bool) ([]byte, error) {
	for body := make([]byte, 0, min(freeRoom, a.limit+1)); ; {
		if len(body) == cap(body) {
			if err := a.makeRoom(); err != nil {
				return nil, err
			}
			body = a.room.larger(body, a.limit, keep)
		}
		n, err := a.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		switch {
		case errors.Is(err, io.EOF):
			return body, nil
		case err != nil:
			return nil, err
		}
	}
}

// makeRoom waits until there is room for what comes next.
func (a *answer) makeRoom() error {
	if a.limit-a.left < a.room.bytes {
		return nil
	}
	err := a.room.grow(a.ctx, a.limit)
	if err != nil {
		a.fail(err)
	}
	return err
}

// answer is the bounded body of a response.
type answer struct {
	ctx    context.Context
	body   io.ReadCloser
	status int
	limit  int64
	left   int64 // how much may still come
	room   *room
	ended  func(result string)
	once   sync.Once

	mu  sync.Mutex // protects err: libraries close while they read
	err error      // why no more can be read
}

func (a *answer) failure() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.err
}

// Read implements io.Reader.
func (a *answer) Read(p []byte) (int, error) {
	if err := a.failure(); err != nil {
		return 0, err
	}
	if err := a.makeRoom(); err != nil {
		return 0, err
	}
	p = p[:min(int64(len(p)), a.room.bytes-(a.limit-a.left))]
	if int64(len(p)) > a.left+1 { // one more, to see that there is more
		p = p[:a.left+1]
	}
	n, err := a.body.Read(p)
	switch {
	case int64(n) > a.left:
		n, err = int(a.left), &TooLargeError{a.limit}
	case err != nil && !errors.Is(err, io.EOF):
		err = plain(a.ctx, fmt.Errorf("reading the answer: %w", err))
	}
	a.left -= int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		a.fail(err)
	}
	return n, err
}

func (a *answer) fail(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.err = err
}

// Close implements io.Closer.
func (a *answer) Close() error {
	a.end()
	a.room.end()
	return nil
}

// end ends the request, and keeps the room.
func (a *answer) end() {
	a.once.Do(func() {
		_ = a.body.Close()
		result := Kind(a.failure())
		if result == "ok" && a.status >= http.StatusBadRequest {
			result = "status"
		}
		a.ended(result)
	})
}
