package outbound

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve starts a server and returns its address. Handlers may block until done is closed.
func serve(t *testing.T, handler func(w http.ResponseWriter, r *http.Request, done <-chan struct{})) *url.URL {
	t.Helper()
	done := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handler(w, r, done) }))
	t.Cleanup(func() {
		close(done)
		s.CloseClientConnections()
		s.Close()
	})
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func client(t *testing.T, o Options) *Client {
	c := New(o)
	t.Cleanup(c.Close)
	return c
}

func TestGet(t *testing.T) {
	u := serve(t, func(w http.ResponseWriter, r *http.Request, _ <-chan struct{}) {
		if r.Header.Get("Accept-Encoding") != "identity" || r.URL.RawQuery != "q=1" || r.URL.Path != "/metrics" {
			w.WriteHeader(http.StatusTeapot)
		}
		fmt.Fprint(w, `{"value":1}`)
	})
	u.Path, u.RawQuery = "/metrics", "q=1"
	body, err := client(t, Options{Policy: Anywhere}).Get(context.Background(), Request{URL: u})
	if err != nil || string(body) != `{"value":1}` {
		t.Errorf("got %q, %v", body, err)
	}
}

// bad are the answers that must be refused.
var bad = map[string]struct {
	answer func(w http.ResponseWriter, r *http.Request, done <-chan struct{})
	kind   string
	want   string
}{
	"a body without end": {func(w http.ResponseWriter, _ *http.Request, _ <-chan struct{}) {
		chunk := make([]byte, 32<<10)
		for sent := 0; sent < 1<<30; sent += len(chunk) {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	}, "too_large", "larger than 1048576 bytes"},
	"a length beyond the limit": {func(w http.ResponseWriter, _ *http.Request, _ <-chan struct{}) {
		w.Header().Set("Content-Length", "1048577")
		w.WriteHeader(http.StatusOK)
	}, "too_large", "larger than 1048576 bytes"},
	"headers without end": {func(w http.ResponseWriter, _ *http.Request, _ <-chan struct{}) {
		for i := range 1000 {
			w.Header().Set(fmt.Sprint("X-", i), strings.Repeat("x", 1000))
		}
	}, "broken", "server response headers exceeded"},
	"a gzip bomb": {func(w http.ResponseWriter, _ *http.Request, _ <-chan struct{}) {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		_, _ = io.CopyN(z, zeros{}, 64<<20)
		_ = z.Close()
	}, "broken", `content encoding "gzip"`},
	"a redirect": {func(w http.ResponseWriter, r *http.Request, _ <-chan struct{}) {
		http.Redirect(w, r, "http://169.254.169.254/latest/meta-data?secret", http.StatusFound)
	}, "status", `status 302 redirects to host "169.254.169.254", and redirects are not followed`},
	"a redirect to nowhere": {func(w http.ResponseWriter, r *http.Request, _ <-chan struct{}) {
		w.WriteHeader(http.StatusSeeOther)
	}, "status", `status 303 redirects to an unreadable location`},
	"an error": {func(w http.ResponseWriter, _ *http.Request, _ <-chan struct{}) {
		http.Error(w, "tenant's secret", http.StatusInternalServerError)
	}, "status", "status 500, not 200"},
	"no content": {func(w http.ResponseWriter, _ *http.Request, _ <-chan struct{}) {
		w.WriteHeader(http.StatusNoContent)
	}, "status", "status 204, not 200"},
	"no answer": {func(_ http.ResponseWriter, _ *http.Request, done <-chan struct{}) { <-done },
		"timeout", "no complete answer within 200ms"},
	"a body that drips": {func(w http.ResponseWriter, _ *http.Request, done <-chan struct{}) {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				if _, err := w.Write([]byte(" ")); err != nil {
					return
				}
				w.(http.Flusher).Flush()
			}
		}
	}, "timeout", "no complete answer within 200ms"},
	"a connection cut off": {func(w http.ResponseWriter, _ *http.Request, _ <-chan struct{}) {
		w.Header().Set("Content-Length", "100")
		fmt.Fprint(w, "{")
	}, "broken", "reading the answer: unexpected EOF"},
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestBadAnswersAreErrors(t *testing.T) {
	for name, c := range bad {
		t.Run(name, func(t *testing.T) {
			u := serve(t, c.answer)
			u.RawQuery = "token=secret"
			timeout := 30 * time.Second
			if strings.Contains(c.want, "within") {
				timeout = 200 * time.Millisecond
			}
			body, err := client(t, Options{Policy: Anywhere}).Get(context.Background(), Request{URL: u, Timeout: timeout})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %d bytes, %v; want an error with %q", len(body), err, c.want)
			} else if strings.Contains(err.Error(), "secret") {
				t.Errorf("the error %v tells a secret", err)
			} else if got := Kind(err); got != c.kind {
				t.Errorf("%v is of the kind %s, want %s", err, got, c.kind)
			}
		})
	}
}

func TestMemoryIsBounded(t *testing.T) {
	for _, name := range []string{"a body without end", "a gzip bomb", "headers without end"} {
		t.Run(name, func(t *testing.T) {
			u := serve(t, bad[name].answer)
			c := client(t, Options{Policy: Anywhere})
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			if _, err := c.Get(context.Background(), Request{URL: u}); err == nil {
				t.Error("it was accepted")
			}
			runtime.ReadMemStats(&after)
			// All that was allocated, the server included, freed or not.
			if grown := after.TotalAlloc - before.TotalAlloc; grown > 8<<20 {
				t.Errorf("%d bytes were allocated", grown)
			} else {
				t.Logf("%d KiB were allocated", grown>>10)
			}
		})
	}
}

func TestTheDefaultPolicyIsAskedForTheResolvedAddress(t *testing.T) {
	var asked atomic.Int32
	u := serve(t, func(http.ResponseWriter, *http.Request, <-chan struct{}) { asked.Add(1) })
	u.Host = "localhost:" + u.Port() // a name, as a tenant would hide an address in
	for _, o := range []Options{{}, {Policy: func(netip.AddrPort) error { return errors.New("is refused") }}} {
		_, err := client(t, o).Get(context.Background(), Request{URL: u})
		if err == nil || !strings.Contains(err.Error(), "is refused") || o.Policy == nil && !strings.HasPrefix(err.Error(), "the address ") {
			t.Errorf("got %v", err)
		}
	}
	if asked.Load() != 0 {
		t.Error("the server was asked")
	}
}

func TestTheCallersContextEndsARequest(t *testing.T) {
	arrived := make(chan struct{})
	u := serve(t, func(_ http.ResponseWriter, _ *http.Request, done <-chan struct{}) {
		close(arrived)
		<-done
	})
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		<-arrived
		cancel()
	}()
	if _, err := client(t, Options{Policy: Anywhere}).Get(ctx, Request{URL: u}); !errors.Is(err, context.Canceled) || Kind(err) != "canceled" {
		t.Errorf("got %v, want context.Canceled", err)
	}
}

func TestConnectingHasItsOwnTimeout(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	slow := make(chan struct{}) // connecting takes until it is closed, long after the timeout
	var looks atomic.Int32
	c := client(t, Options{Policy: func(netip.AddrPort) error {
		if looks.Add(1) > 1 { // the first is before the request's time begins
			<-slow
		}
		return nil
	}})
	u := &url.URL{Scheme: "http", Host: l.Addr().String()}
	time.AfterFunc(100*time.Millisecond, func() { close(slow) })
	_, err = c.Get(context.Background(), Request{URL: u, Timeout: 30 * time.Second, ConnectTimeout: time.Millisecond})
	if err == nil || !strings.Contains(err.Error(), "timeout") || Kind(err) != "connect" {
		t.Errorf("got %v, want a timeout", err)
	}
}

func TestKindsAreAllKnown(t *testing.T) {
	plain := serve(t, func(http.ResponseWriter, *http.Request, <-chan struct{}) {})
	plain.Scheme = "https"
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	_, noTLS := client(t, Options{Policy: Anywhere}).Get(context.Background(), Request{URL: plain})
	_, noListener := client(t, Options{Policy: Anywhere}).Get(context.Background(), Request{URL: &url.URL{Scheme: "http", Host: l.Addr().String()}})
	for want, err := range map[string]error{
		"ok": nil, "denied": &DeniedError{}, "budget": &BudgetError{}, "resolve": &net.DNSError{}, "connect": noListener, "tls": noTLS,
		"timeout": context.DeadlineExceeded, "canceled": context.Canceled, "status": &StatusError{}, "too_large": &TooLargeError{},
		"broken": &BrokenError{io.ErrUnexpectedEOF}, "other": io.EOF,
	} {
		if err != nil {
			err = fmt.Errorf("somewhere: %w", err)
		}
		if got := Kind(err); got != want || !slices.Contains(Kinds, got) {
			t.Errorf("%v is of the kind %s, want %s", err, got, want)
		}
	}
}

func TestHTTPSVerifiesTheCertificate(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "1") }))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	defer s.Close()
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client(t, Options{Policy: Anywhere}).Get(context.Background(), Request{URL: u}); err == nil || !strings.Contains(err.Error(), "certificate") || Kind(err) != "tls" {
		t.Errorf("got %v of the kind %s, want an error about the certificate", err, Kind(err))
	}
	trusting := s.Client().Transport.(*http.Transport).TLSClientConfig
	if _, err := client(t, Options{Policy: Anywhere, TLS: trusting}).Get(context.Background(), Request{URL: u}); err != nil {
		t.Error(err)
	}
}

// raw answers the request of each connection with the text, byte by byte if slowly is set, and keeps it open.
func raw(t *testing.T, answer string, slowly bool) *url.URL {
	t.Helper()
	text := []byte(answer)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer func() { _ = conn.Close() }()
				if _, err := http.ReadRequest(bufio.NewReader(conn)); err != nil {
					return
				}
				piece := len(text)
				if slowly {
					piece = 1
				}
				for i := 0; i < len(text); i += piece {
					if _, err := conn.Write(text[i : i+piece]); err != nil {
						return
					}
					if slowly {
						select {
						case <-done:
							return
						case <-time.After(time.Millisecond):
						}
					}
				}
				<-done
			})
		}
	})
	t.Cleanup(func() {
		close(done)
		_ = l.Close()
		all.Wait()
	})
	return &url.URL{Scheme: "http", Host: l.Addr().String()}
}

func TestWhatIsHardlyHTTPIsAnError(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\n"
	for name, c := range map[string]struct {
		text   string
		slowly bool
		kind   string
	}{
		"headers that drip":            {ok + strings.Repeat("X-A: b\r\n", 10000), true, "timeout"},
		"10 MiB of headers":            {ok + strings.Repeat("X-A: "+strings.Repeat("b", 1000)+"\r\n", 10<<10), false, "broken"},
		"a header line without end":    {ok + "X-A: " + strings.Repeat("b", 10<<20), false, "broken"},
		"interim answers without end":  {strings.Repeat("HTTP/1.1 103 Early Hints\r\nX-A: b\r\n\r\n", 10000), false, "broken"},
		"chunk extensions without end": {ok + "Transfer-Encoding: chunked\r\n\r\n1;" + strings.Repeat("x", 1<<20), false, "broken"},
		"small chunks without end":     {ok + "Transfer-Encoding: chunked\r\n\r\n" + strings.Repeat("1\r\na\r\n", 1<<16+10), false, "too_large"},
		"trailers without end": {ok + "Transfer-Encoding: chunked\r\nTrailer: X\r\n\r\n1\r\na\r\n0\r\n" +
			strings.Repeat("X: a\r\n", 100000), false, "broken"},
		"two lengths":      {ok + "Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", false, "broken"},
		"another protocol": {"SSH-2.0-OpenSSH_9.9\r\n", false, "broken"},
		"a switch of protocols": {"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n" +
			strings.Repeat("x", 1<<20), false, "status"},
	} {
		t.Run(name, func(t *testing.T) {
			u := raw(t, c.text, c.slowly)
			timeout := 30 * time.Second
			if c.kind == "timeout" {
				timeout = 300 * time.Millisecond
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := client(t, Options{Policy: Anywhere}).Get(context.Background(), Request{URL: u, Timeout: timeout, MaxBody: 64 << 10})
			runtime.ReadMemStats(&after)
			if Kind(err) != c.kind {
				t.Errorf("got %v of the kind %s, want %s", err, Kind(err), c.kind)
			}
			if grown := after.TotalAlloc - before.TotalAlloc; grown > 8<<20 {
				t.Errorf("%d bytes were allocated", grown)
			}
		})
	}
}

func TestAServerThatSpeaksOutOfTurnCannotFloodTheLog(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n"+strings.Repeat("X-A: b\r\n", 1000)+"\r\n")
			_, _ = io.Copy(io.Discard, conn)
			_ = conn.Close()
		}
	}()
	before := log.Writer()
	defer log.SetOutput(before)
	var lines []string
	log.SetOutput(StandardLog(func(line string) { lines = append(lines, line) })) // the logger calls it under its lock
	c := client(t, Options{Policy: Anywhere})
	for range 50 {
		_, err := c.Get(context.Background(), Request{URL: &url.URL{Scheme: "http", Host: l.Addr().String()}})
		if kind := Kind(err); kind != "broken" && kind != "ok" { // a fast request is there before the answer
			t.Fatalf("got %v of the kind %s", err, kind)
		}
	}
	for range 50 { // in case that few of them were early
		log.Print(strings.Repeat("x", 1000), "\n")
	}
	log.SetOutput(before)
	if len(lines) < 5 || len(lines) > 10 {
		t.Errorf("%d lines were logged", len(lines))
	}
	for _, line := range lines {
		if len(line) > 250 || strings.HasSuffix(line, "\n") {
			t.Errorf("the line has %d bytes: %.20q", len(line), line)
		}
	}
}

func TestDoReturnsAnyStatus(t *testing.T) {
	u := serve(t, func(w http.ResponseWriter, r *http.Request, _ <-chan struct{}) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(http.StatusTooManyRequests)
		fmt.Fprint(w, r.Method, " ", r.Header.Get("Content-Type"), " ", r.Header.Get("Accept"), " ", string(body))
	})
	r, err := client(t, Options{Policy: Anywhere}).Do(context.Background(), Request{
		URL: u, Method: http.MethodPost, Header: http.Header{"Content-Type": {"a/b"}, "accept": {"text/csv"}, "Accept-Encoding": {"gzip"}}, Body: []byte("x"),
	})
	if err != nil {
		t.Fatal(err)
	}
	if r.Status != http.StatusTooManyRequests || r.Header.Get("Retry-After") != "7" || string(r.Body) != "POST a/b text/csv x" {
		t.Errorf("got %d %v %q", r.Status, r.Header, r.Body)
	}
	redirect := serve(t, bad["a redirect"].answer)
	if _, err := client(t, Options{Policy: Anywhere}).Do(context.Background(), Request{URL: redirect}); Kind(err) != "status" {
		t.Errorf("a redirect: %v", err)
	}
}

func TestStream(t *testing.T) {
	long := strings.Repeat("0123456789abcdef", 1<<16) // 1 MiB
	send := func(n int) *url.URL {
		return serve(t, func(w http.ResponseWriter, _ *http.Request, _ <-chan struct{}) {
			for range n {
				fmt.Fprint(w, long)
			}
		})
	}
	c := client(t, Options{Policy: Anywhere})
	count := 0
	drain := func(r io.Reader) error {
		n, _ := io.Copy(io.Discard, r) // a reader that takes no notice of errors
		count = int(n)
		return nil
	}
	if err := c.Stream(context.Background(), Request{URL: send(16)}, drain); err != nil || count != 16<<20 {
		t.Errorf("16 MiB: read %d, %v", count, err)
	}
	if err := c.Stream(context.Background(), Request{URL: send(17)}, drain); Kind(err) != "too_large" || count != 16<<20 {
		t.Errorf("17 MiB: read %d, %v", count, err)
	}
	first := errors.New("no such series")
	if err := c.Stream(context.Background(), Request{URL: send(17)}, func(r io.Reader) error { return first }); !errors.Is(err, first) {
		t.Errorf("a reader that stops early: %v", err)
	}
	if err := c.Stream(context.Background(), Request{URL: serve(t, bad["a connection cut off"].answer)}, drain); Kind(err) != "broken" {
		t.Errorf("an answer that breaks off: %v", err)
	}
	if err := c.Stream(context.Background(), Request{URL: serve(t, bad["an error"].answer)}, drain); Kind(err) != "status" {
		t.Errorf("an error: %v", err)
	}
}

func TestRoundTripperHoldsTheSameBounds(t *testing.T) {
	for name, bad := range bad {
		if bad.kind == "status" && !strings.Contains(bad.want, "redirects") {
			continue // it hands them on
		}
		t.Run(name, func(t *testing.T) {
			u := serve(t, bad.answer)
			o := Options{Policy: Anywhere, Budget: Budget{PerHost: 1}}
			if bad.kind == "timeout" {
				o.Timeout = 200 * time.Millisecond
			}
			c := client(t, o)
			h := http.Client{Transport: c.RoundTripper("shop", "test", nil)}
			for range 2 { // the second needs the place of the first
				r, err := h.Get(u.String())
				if err == nil {
					_, err = io.Copy(io.Discard, r.Body)
					_ = r.Body.Close()
				}
				if Kind(err) != bad.kind {
					t.Errorf("got %v of the kind %s, want %s", err, Kind(err), bad.kind)
				}
			}
		})
	}
	t.Run("what is refused is not sent", func(t *testing.T) {
		h := http.Client{Transport: client(t, Options{}).RoundTripper("shop", "test", nil)}
		_, err := h.Post("http://127.0.0.1:1/?secret", "a/b", strings.NewReader("x")) //nolint:bodyclose // there is none
		if Kind(err) != "denied" || strings.Contains(WithoutURL(err).Error(), "secret") {
			t.Errorf("got %v", WithoutURL(err))
		}
	})
}

func BenchmarkGet(b *testing.B) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"value":1}`) }))
	defer s.Close()
	u, err := url.Parse(s.URL)
	if err != nil {
		b.Fatal(err)
	}
	c := New(Options{Policy: Anywhere, Budget: Budget{PerSecond: -1}, Metrics: NewMetrics(prometheus.NewRegistry())})
	defer c.Close()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Get(context.Background(), Request{Namespace: "shop", Collector: "bench", URL: u}); err != nil {
			b.Fatal(err)
		}
	}
}
