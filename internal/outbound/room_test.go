package outbound

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// sized answers with as many bytes as the query says, and announces them if it says so.
func sized(w http.ResponseWriter, r *http.Request, _ <-chan struct{}) {
	size, _ := strconv.Atoi(r.URL.Query().Get("size"))
	if r.URL.Query().Has("known") {
		w.Header().Set("Content-Length", strconv.Itoa(size))
	}
	for piece := strings.Repeat("x", 50_000); size > 0; size -= len(piece) {
		_, _ = io.WriteString(w, piece[:min(size, len(piece))])
	}
}

func at(u *url.URL, query string) *url.URL {
	out := *u
	out.RawQuery = query
	return &out
}

func (b *budgets) assertEmpty(t *testing.T) {
	t.Helper()
	for i, c := range classes {
		if !b.rooms[i].TryAcquire(c.process) {
			t.Errorf("room for answers up to %d bytes is still held", c.most)
		} else {
			b.rooms[i].Release(c.process)
		}
		for namespace, tenant := range b.tenants {
			if tenant.users != 0 || !tenant.rooms[i].TryAcquire(c.namespace) {
				t.Errorf("the namespace %q still holds room for answers up to %d bytes, with %d users", namespace, c.most, tenant.users)
			} else {
				tenant.rooms[i].Release(c.namespace)
			}
		}
	}
}

func TestAnswersOfAllSizesAreReadWhole(t *testing.T) {
	u := serve(t, sized)
	c := client(t, Options{Policy: Anywhere})
	for _, size := range []int{0, 1, freeRoom - 1, freeRoom, freeRoom + 1, 16 << 10, 64<<10 - 1, 64 << 10, 64<<10 + 1, 100_000, 300_000, defaultMaxBody - 1, defaultMaxBody, defaultMaxBody + 1} {
		for _, known := range []string{"", "&known"} {
			r := Request{Namespace: "shop", URL: at(u, "size="+strconv.Itoa(size)+known)}
			want := bytes.Repeat([]byte("x"), size)
			check := func(how string, body []byte, err error) {
				t.Helper()
				var tooLarge *TooLargeError
				switch {
				case size > defaultMaxBody && !errors.As(err, &tooLarge):
					t.Errorf("%s of %d bytes%s: %v", how, size, known, err)
				case size <= defaultMaxBody && (err != nil || !bytes.Equal(body, want)):
					t.Errorf("%s of %d bytes%s: got %d, %v", how, size, known, len(body), err)
				}
			}
			read := false
			err := c.Read(context.Background(), r, func(body []byte) error { read = true; check("Read", body, nil); return nil })
			check("Read", want, err)
			if read != (size <= defaultMaxBody) {
				t.Errorf("%d bytes%s: use was called: %v", size, known, read)
			}
			body, err := c.Get(context.Background(), r)
			check("Get", body, err)
			response, err := c.RoundTripper("shop", "test", nil).RoundTrip(&http.Request{Method: http.MethodGet, URL: r.URL})
			if err == nil {
				body, err = io.ReadAll(response.Body)
				_ = response.Body.Close()
			}
			check("RoundTrip", body, err)
			c.shared.budgets.assertEmpty(t)
		}
	}
}

// A namespace whose large answers are in use leaves the others their turn; small answers never wait.
func TestLargeAnswersWaitForEachOther(t *testing.T) {
	u := serve(t, sized)
	c := client(t, Options{Policy: Anywhere})
	held, release := make(chan struct{}), make(chan struct{})
	var holding sync.WaitGroup
	for _, query := range []string{"size=100000", "size=60000", "size=60000"} {
		holding.Go(func() {
			if err := c.Read(context.Background(), Request{Namespace: "greedy", URL: at(u, query)}, func([]byte) error {
				held <- struct{}{}
				<-release
				return nil
			}); err != nil {
				t.Error(err)
			}
		})
		<-held
	}
	ask := func(namespace, query string) error {
		_, err := c.Get(context.Background(), Request{Namespace: namespace, URL: at(u, query), Timeout: 100 * time.Millisecond})
		return err
	}
	for _, test := range []struct{ namespace, query, want string }{
		{"greedy", "size=4000", ""},
		{"greedy", "size=60000", "there was no room in time for an answer of more than 4096 bytes"},
		{"greedy", "size=100000", "there was no room in time for an answer of more than 4096 bytes"},
		{"other", "size=60000", ""},
		{"other", "size=4000", ""},
		{"other", "size=100000", "there was no room in time for an answer of more than 65536 bytes"},
	} {
		var room *RoomError
		switch err := ask(test.namespace, test.query); {
		case test.want == "" && err != nil, test.want != "" && (!errors.As(err, &room) || !strings.HasPrefix(err.Error(), test.want) || Kind(err) != "budget"):
			t.Errorf("%s, %s: got %v, want %q", test.namespace, test.query, err, test.want)
		}
	}
	// Those who wait get their turn.
	var waiting sync.WaitGroup
	for _, namespace := range []string{"greedy", "other", "third"} {
		waiting.Go(func() {
			if _, err := c.Get(context.Background(), Request{Namespace: namespace, URL: at(u, "size=100000")}); err != nil {
				t.Errorf("%s: %v", namespace, err)
			}
		})
	}
	close(release)
	holding.Wait()
	waiting.Wait()
	c.shared.budgets.assertEmpty(t)
}

func TestWhoSendsDropByDropLosesTheRoom(t *testing.T) {
	defer func(before [len(classes)]class) { classes = before }(classes)
	for i := range classes {
		classes[i].arrival = 50 * time.Millisecond
	}
	u := serve(t, func(w http.ResponseWriter, r *http.Request, done <-chan struct{}) {
		_, _ = io.WriteString(w, strings.Repeat("x", 5000))
		_ = http.NewResponseController(w).Flush()
		select {
		case <-done:
		case <-r.Context().Done():
		}
	})
	c := client(t, Options{Policy: Anywhere})
	_, err := c.Get(context.Background(), Request{Namespace: "slow", URL: u})
	if err == nil || err.Error() != "no complete answer within 50ms after its first 4096 bytes" || Kind(err) != "timeout" {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	for i := range classes {
		classes[i].arrival = time.Minute
	}
	response, err := c.RoundTripper("slow", "test", nil).RoundTrip((&http.Request{Method: http.MethodGet, URL: u}).WithContext(ctx))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	read := make(chan error)
	go func() { _, err := io.ReadAll(response.Body); read <- err }()
	cancel()
	if err := <-read; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if err := response.Body.Close(); err != nil {
		t.Error(err)
	}
	c.shared.budgets.assertEmpty(t)
}
