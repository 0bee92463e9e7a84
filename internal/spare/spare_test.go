package spare

import (
	"runtime"
	"testing"
)

func TestBuffersAreUsedAgainUntilGarbageIsCollected(t *testing.T) {
	b := New[byte](1<<20, 1)
	first, second := b.Get(), b.Get()
	if first == second || len(*first) != 1<<20 {
		t.Fatalf("got %p and %p of %d bytes", first, second, len(*first))
	}
	b.Put(first)
	b.Put(second) // one too many
	if again := b.Get(); again != first {
		t.Errorf("got %p, want %p again", again, first)
	}
	if other := b.Get(); other == first || other == second {
		t.Errorf("got %p, want one that nobody had", other)
	}
	b.Put(first)
	runtime.KeepAlive(first) // nobody has it from here on
	runtime.GC()
	if kept := <-b.idle; kept.Value() != nil {
		t.Error("an idle buffer outlives a collection")
	}
}
