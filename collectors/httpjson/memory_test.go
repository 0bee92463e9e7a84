package httpjson

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kubetide/kubetide/collectors"
	"github.com/kubetide/kubetide/internal/outbound"
	"github.com/kubetide/kubetide/internal/sample"
)

// mostHeld returns what the heap holds at most, garbage included, while f runs.
func mostHeld(f func()) (most uint64) {
	values := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	done := make(chan struct{})
	var sampler sync.WaitGroup
	sampler.Go(func() {
		tick := time.NewTicker(500 * time.Microsecond)
		defer tick.Stop()
		for {
			metrics.Read(values)
			most = max(most, values[0].Value.Uint64())
			select {
			case <-done:
				return
			case <-tick.C:
			}
		}
	})
	f()
	close(done)
	sampler.Wait()
	return most
}

// Many namespaces ask for the worst documents all at once. That takes hardly more than as many small ones.
func TestMemoryForHostileDocumentsOfManyTenants(t *testing.T) {
	const namespaces, each = 4, 12
	documents := map[string][]byte{
		"/objects": []byte("[" + strings.Repeat(`{"a":1},`, 49_998) + `{"a":1}]`),
		"/numbers": []byte("[" + strings.Repeat("0, ", 99_997) + strings.Repeat(" ", 700_000) + "0]"),
		"/members": []byte("{" + strings.Repeat(`"a":0, `, 99_997) + strings.Repeat(" ", 300_000) + `"a":0}`),
		"/deep":    []byte(strings.Repeat("[", 1<<20)),
		"/digits":  []byte(strings.Repeat("1", 1<<20)),
		"/medium":  []byte("[" + strings.Repeat("0,", 32_000) + "0]"),
	}
	var hostile atomic.Bool
	var small sync.WaitGroup // all small ones are answered at once
	var measured sync.Once
	var before uint64 // what the heap may hold then
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		document := documents[r.URL.Path]
		if !hostile.Load() {
			small.Done()
			small.Wait()
			measured.Do(func() {
				runtime.GC()
				sample := []metrics.Sample{{Name: "/gc/heap/goal:bytes"}}
				metrics.Read(sample)
				before = sample[0].Value.Uint64()
			})
			document = []byte("[1]")
		}
		if r.URL.RawQuery == "known" {
			w.Header().Set("Content-Length", strconv.Itoa(len(document)))
		}
		_, _ = w.Write(document)
	}))
	t.Cleanup(server.Close)
	s := source(t, outbound.Anywhere, nil)
	var all []collectors.Collector
	for i := range namespaces {
		for j := range each {
			path := [...]string{"/objects", "/numbers", "/members", "/deep", "/digits", "/medium"}[j%6] + [...]string{"", "?known"}[j/6]
			r := request(sample.Settings{"endpoint": server.URL + path, "json-eval": "length($..*) + sum($[?(@ >= 0)])", "request-timeout": "1m"})
			r.Namespace = fmt.Sprint("shop-", i)
			q, err := s.Parse(r)
			if err != nil {
				t.Fatal(err)
			}
			c, err := s.Open(q)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, c)
		}
	}
	var values atomic.Int64
	collect := func() {
		var collecting sync.WaitGroup
		for _, c := range all {
			collecting.Go(func() {
				_, err := c.Collect(context.Background())
				switch {
				case err == nil:
					values.Add(1)
				case !hostile.Load(): // on a slow machine some of the hostile ones wait too long for room
					t.Error(err)
				}
			})
		}
		collecting.Wait()
	}
	defer debug.SetGCPercent(debug.SetGCPercent(100))
	small.Add(len(all))
	collect()
	hostile.Store(true)
	values.Store(0)
	most := mostHeld(collect)
	if values.Load() == 0 {
		t.Error("no hostile document was read")
	}
	const bound = 8 << 20
	t.Logf("%d small documents: the heap may hold %.1f MiB; hostile ones: it held %.1f MiB at most", len(all), float64(before)/(1<<20), float64(most)/(1<<20))
	if most > before+bound {
		t.Errorf("the heap grew by %d bytes, more than %d", most-before, bound)
	}
}
