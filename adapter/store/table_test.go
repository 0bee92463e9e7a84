package store

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	clocktesting "k8s.io/utils/clock/testing"
	"pgregory.net/rapid"

	"github.com/kubetide/kubetide/internal/sample"
)

// A table answers as a map does, also where many keys or all of them have one hash, or runs of slots go over the end.
func TestTableEqualsAMap(t *testing.T) {
	hashes := map[string]func(k int) uint64{
		"every key has a hash of its own":    func(k int) uint64 { return uint64(k) * shards },
		"all keys have one hash":             func(int) uint64 { return 7 },
		"all keys start in the last slot":    func(k int) uint64 { return uint64(k)<<32 | 1023*shards },
		"five hashes beside each other":      func(k int) uint64 { return uint64(1021+k%5) * shards },
		"the keys are spread over the table": func(k int) uint64 { return uint64(k) * 0x9e3779b97f4a7c15 },
	}
	has := func(k int) func(*entry) bool { return func(e *entry) bool { return e.position == k } }
	for name, hash := range hashes {
		t.Run(name, rapid.MakeCheck(func(t *rapid.T) {
			var tab table
			tab.init()
			model := map[int]*entry{}
			for range rapid.IntRange(1, 300).Draw(t, "steps") {
				k := rapid.IntRange(0, 60).Draw(t, "key")
				shard, hash := tab.shard(hash(k))
				if rapid.IntRange(0, 2).Draw(t, "remove") == 0 {
					shard.remove(hash, has(k))
					delete(model, k)
				} else {
					e := &entry{rest: &rest{position: k}}
					shard.lockForOneMore()
					if before := shard.put(hash, has(k), e); before != model[k] {
						t.Fatalf("key %d: put returned %p, want %p", k, before, model[k])
					}
					shard.mu.Unlock()
					model[k] = e
				}
			}
			used := 0
			for k := range 61 {
				shard, hash := tab.shard(hash(k))
				if e := shard.get(hash, has(k)); e != model[k] {
					t.Fatalf("key %d: %p, want %p", k, e, model[k])
				}
			}
			got := map[int]*entry{}
			for i := range tab.shards {
				used += tab.shards[i].n
				for e := range tab.shards[i].all {
					got[e.position] = e
				}
			}
			if used != len(model) || !maps.Equal(got, model) {
				t.Fatalf("%d used, %d found, want %d", used, len(got), len(model))
			}
		}))
	}
}

// Look-ups take no lock. A key that stays is found at any moment, whatever comes and goes around it, and one that is not there
// never is.
func TestLookupsDoNotWaitForWriters(t *testing.T) {
	const stay, come = 20, 40
	var tab table
	tab.init()
	hash := func(k int) uint64 { return uint64(k%7) * shards } // long runs of slots
	has := func(k int) func(*entry) bool { return func(e *entry) bool { return e.position == k } }
	put := func(k int) {
		shard, hash := tab.shard(hash(k))
		shard.lockForOneMore()
		shard.put(hash, has(k), &entry{rest: &rest{position: k}})
		shard.mu.Unlock()
	}
	for k := range stay + come {
		put((k + stay) % (stay + come)) // those that stay stand behind the others
	}
	done := make(chan struct{})
	var writers sync.WaitGroup
	for w := range 2 {
		writers.Go(func() {
			for i := range 5_000 {
				k := stay + i%(come/2)*2 + w
				if i/(come/2)%2 == 1 {
					put(k)
				} else {
					shard, hash := tab.shard(hash(k))
					shard.mu.Lock()
					shard.remove(hash, has(k))
					shard.mu.Unlock()
				}
			}
		})
	}
	go func() {
		writers.Wait()
		close(done)
	}()
	for i := 0; ; i++ {
		k := i % stay
		shard, h := tab.shard(hash(k))
		if e := shard.get(h, has(k)); e == nil || e.position != k {
			t.Fatalf("key %d, which stays, was not found", k)
		}
		if e := shard.get(h, has(-k-1)); e != nil {
			t.Fatalf("a key was found that was never there: %d", e.position)
		}
		select {
		case <-done:
			return
		default:
		}
	}
}

// What a look-up and an insert cost hangs on it: BenchmarkExternalExact, BenchmarkInsert.
func TestWhatALookUpTouchesIsAligned(t *testing.T) {
	if e, s := unsafe.Sizeof(entry{}), unsafe.Sizeof(state{}); e != 128 || s != 128 {
		t.Errorf("an entry has %d bytes, a state %d, want 128 each", e, s)
	}
	if r, q := unsafe.Sizeof(rest{}), unsafe.Offsetof(rest{}.query); r != 384 || q > 144 {
		t.Errorf("the rest of an entry has %d bytes, want 384; an insert needs the first %d, want 144", r, q)
	}
}

func TestQueriesWithOneHashStayApart(t *testing.T) {
	s := New(clocktesting.NewFakePassiveClock(start), 0)
	s.queries.same, s.served.series.same = true, true
	insert := func(i int, milli int64) {
		s.Insert(sample.Result{Query: external("queue", fmt.Sprintf("n=%d", i)), Taken: start, Points: []sample.Point{{Milli: milli}}})
	}
	for i := range 30 {
		s.Add(external("queue", fmt.Sprintf("n=%d", i)), true)
		insert(i, int64(i))
	}
	for i := 0; i < 30; i += 3 {
		s.Forget(external("queue", fmt.Sprintf("n=%d", i)))
	}
	insert(1, 100)
	for i := range 30 {
		got, err := s.External("shop", "queue", parse(t, fmt.Sprintf("n=%d", i)))
		want := []int64{int64(i)}
		if i == 1 {
			want = []int64{100}
		}
		if i%3 == 0 {
			wantError(t, err, "no HPA of namespace shop")
		} else if !slices.Equal(values(got), want) {
			t.Errorf("n=%d (-want +got):\n%s", i, cmp.Diff(want, values(got)))
		}
	}
}
