package outbound

import (
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
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func anywhere(netip.AddrPort) error { return nil }

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
	body, err := client(t, Options{Policy: anywhere}).Get(context.Background(), Request{URL: u})
	if err != nil || string(body) != `{"value":1}` {
		t.Errorf("got %q, %v", body, err)
	}
}

// bad are the answers that must be refused.
var bad = map[string]struct {
	answer func(w http.ResponseWriter, r *http.Request, done <-chan struct{})
	want   string
}{
	"a body without end": {func(w http.ResponseWriter, _ *http.Request, _ <-chan struct{}) {
		chunk := make([]byte, 32<<10)
		for sent := 0; sent < 1<<30; sent += len(chunk) {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	}, "larger than 1048576 bytes"},
	"a length beyond the limit": {func(w http.ResponseWriter, _ *http.Request, _ <-chan struct{}) {
		w.Header().Set("Content-Length", "1048577")
		w.WriteHeader(http.StatusOK)
	}, "larger than 1048576 bytes"},
	"headers without end": {func(w http.ResponseWriter, _ *http.Request, _ <-chan struct{}) {
		for i := range 1000 {
			w.Header().Set(fmt.Sprint("X-", i), strings.Repeat("x", 1000))
		}
	}, "server response headers exceeded"},
	"a gzip bomb": {func(w http.ResponseWriter, _ *http.Request, _ <-chan struct{}) {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		_, _ = io.CopyN(z, zeros{}, 64<<20)
		_ = z.Close()
	}, `content encoding "gzip"`},
	"a redirect": {func(w http.ResponseWriter, r *http.Request, _ <-chan struct{}) {
		http.Redirect(w, r, "http://169.254.169.254/latest/meta-data?secret", http.StatusFound)
	}, `status 302 redirects to host "169.254.169.254", and redirects are not followed`},
	"a redirect to nowhere": {func(w http.ResponseWriter, r *http.Request, _ <-chan struct{}) {
		w.WriteHeader(http.StatusSeeOther)
	}, `status 303 redirects to an unreadable location`},
	"an error": {func(w http.ResponseWriter, _ *http.Request, _ <-chan struct{}) {
		http.Error(w, "tenant's secret", http.StatusInternalServerError)
	}, "status 500, not 200"},
	"no content": {func(w http.ResponseWriter, _ *http.Request, _ <-chan struct{}) {
		w.WriteHeader(http.StatusNoContent)
	}, "status 204, not 200"},
	"no answer": {func(_ http.ResponseWriter, _ *http.Request, done <-chan struct{}) { <-done },
		"no complete answer within 200ms"},
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
	}, "no complete answer within 200ms"},
	"a connection cut off": {func(w http.ResponseWriter, _ *http.Request, _ <-chan struct{}) {
		w.Header().Set("Content-Length", "100")
		fmt.Fprint(w, "{")
	}, "reading the answer: unexpected EOF"},
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
			body, err := client(t, Options{Policy: anywhere}).Get(context.Background(), Request{URL: u, Timeout: timeout})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %d bytes, %v; want an error with %q", len(body), err, c.want)
			} else if strings.Contains(err.Error(), "secret") {
				t.Errorf("the error %v tells a secret", err)
			}
		})
	}
}

func TestMemoryIsBounded(t *testing.T) {
	for _, name := range []string{"a body without end", "a gzip bomb", "headers without end"} {
		t.Run(name, func(t *testing.T) {
			u := serve(t, bad[name].answer)
			c := client(t, Options{Policy: anywhere})
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
		if err == nil || !strings.Contains(err.Error(), "is refused") {
			t.Errorf("got %v", err)
		}
	}
	if asked.Load() != 0 {
		t.Error("the server was asked")
	}
}

func TestDenyInternal(t *testing.T) {
	for address, allowed := range map[string]bool{
		"10.244.0.7": true, "192.168.1.1": true, "172.16.0.1": true, "93.184.216.34": true, "2001:db8::1": true, "fd12::7": true,
		"64:ff9b::5db8:d822": true,
		"127.0.0.1":          false, "127.8.8.8": false, "::1": false, "::ffff:127.0.0.1": false, "169.254.169.254": false,
		"::ffff:169.254.169.254": false, "64:ff9b::a9fe:a9fe": false, "2002:a9fe:a9fe::1": false, "fe80::1%eth0": false, "0.0.0.0": false, "0.1.2.3": false,
		"::": false, "::7f00:1": false, "224.0.0.1": false, "ff02::1": false, "255.255.255.255": false, "100.100.100.200": false,
		"168.63.129.16": false, "fd00:ec2::254": false,
	} {
		if err := DenyInternal(netip.AddrPortFrom(netip.MustParseAddr(address), 80)); (err == nil) != allowed {
			t.Errorf("%s: %v", address, err)
		}
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
	if _, err := client(t, Options{Policy: anywhere}).Get(ctx, Request{URL: u}); !errors.Is(err, context.Canceled) {
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
	c := client(t, Options{Policy: func(netip.AddrPort) error { <-slow; return nil }})
	_, port, _ := net.SplitHostPort(l.Addr().String())
	u := &url.URL{Scheme: "http", Host: net.JoinHostPort("localhost", port)} // a name: an address is looked at before
	time.AfterFunc(100*time.Millisecond, func() { close(slow) })
	_, err = c.Get(context.Background(), Request{URL: u, Timeout: 30 * time.Second, ConnectTimeout: time.Millisecond})
	if err == nil || !strings.Contains(err.Error(), "timeout") {
		t.Errorf("got %v, want a timeout", err)
	}
}

func TestConnectionsToOneHostAreBounded(t *testing.T) {
	const limit = 2
	arrived := make(chan struct{}, 10)
	u := serve(t, func(_ http.ResponseWriter, _ *http.Request, done <-chan struct{}) {
		arrived <- struct{}{}
		<-done
	})
	c := client(t, Options{Policy: anywhere, Budget: Budget{PerHost: limit}})
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	for range limit {
		all.Go(func() { _, _ = c.Get(ctx, Request{URL: u}) })
	}
	for range limit {
		<-arrived
	}
	if _, err := c.Get(context.Background(), Request{URL: u, Timeout: 100 * time.Millisecond}); err == nil {
		t.Error("a further request was answered")
	}
	if len(arrived) != 0 {
		t.Error("a further request got a connection")
	}
	cancel()
	all.Wait()
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
	if _, err := client(t, Options{Policy: anywhere}).Get(context.Background(), Request{URL: u}); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("got %v, want an error about the certificate", err)
	}
	trusting := s.Client().Transport.(*http.Transport).TLSClientConfig
	if _, err := client(t, Options{Policy: anywhere, TLS: trusting}).Get(context.Background(), Request{URL: u}); err != nil {
		t.Error(err)
	}
}

func TestOtherSchemesAreRefused(t *testing.T) {
	if _, err := client(t, Options{}).Get(context.Background(), Request{URL: &url.URL{Scheme: "file", Path: "/etc/passwd"}}); err == nil {
		t.Error("file is accepted")
	}
}
