package outbound

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
)

// TestNamespacesShareAHostsConnections asks one host for many namespaces at once, twice: a connection that is made again for
// each request costs more than the request.
func TestNamespacesShareAHostsConnections(t *testing.T) {
	const namespaces = 40 // more than one namespace may have at one host
	var made atomic.Int32
	var arrived sync.WaitGroup
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		arrived.Done()
		arrived.Wait() // all are there at once
		_, _ = w.Write([]byte("{}"))
	}))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			made.Add(1)
		}
	}
	server.Start()
	t.Cleanup(server.Close)
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	c := New(Options{Policy: Anywhere})
	t.Cleanup(c.Close)
	for range 2 {
		arrived.Add(namespaces)
		var asking sync.WaitGroup
		for i := range namespaces {
			asking.Go(func() {
				if _, err := c.Get(t.Context(), Request{Namespace: fmt.Sprint(i), URL: u}); err != nil {
					t.Error(err)
				}
			})
		}
		asking.Wait()
	}
	if n := made.Load(); n != namespaces {
		t.Errorf("%d connections were made for %d requests at once", n, namespaces)
	}
}
