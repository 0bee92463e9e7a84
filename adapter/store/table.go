package store

import (
	"math/bits"
	"sync"
	"sync/atomic"
)

// table finds entries by a long key. Its users hash the key once; it keeps the hashes beside each other, and asks whether an
// entry has the key only where the hashes are equal. So a look-up touches one cache line beside the entry itself, where a map
// with such keys touches several and hashes them again. Functions are passed down only, which keeps keys off the heap.
type table struct {
	shards [shards]shard
	// same is set by tests: all hashes are as one.
	same bool
}

// shard is open-addressed with linear probing: an entry stands in the slot that its hash names, or in a free one behind. At
// most half of the slots are used. Who looks up takes no lock, since a slot has one life: free, then taken by one key, then
// dead. Dead ones go when the slots are made anew.
type shard struct {
	mu    sync.Mutex // for writers
	slots atomic.Pointer[[]slot]
	used  int // slots that are not free
	n     int // entries
}

type slot struct {
	hash atomic.Uint64 // set before e
	e    atomic.Pointer[entry]
}

// dead stands in the slot of an entry that was removed, so that no search stops before those behind it.
var dead = new(entry)

func (t *table) init() {
	for i := range t.shards {
		t.shards[i].slots.Store(new(make([]slot, 8)))
	}
}

// shard returns where entries of the hash are, and the hash to ask it with.
func (t *table) shard(hash uint64) (*shard, uint64) {
	if t.same {
		hash = 1
	}
	return &t.shards[hash%shards], hash
}

// find returns the slot of the entry that has the key, and the entry; else the free one where it belongs, and nil.
func (s *shard) find(hash uint64, has func(*entry) bool) (*slot, *entry) {
	slots := *s.slots.Load()
	for i := home(hash, slots); ; i = next(i, slots) {
		at := &slots[i]
		e := at.e.Load()
		if e == nil || at.hash.Load() == hash && e != dead && has(e) {
			return at, e
		}
	}
}

// get needs no lock.
func (s *shard) get(hash uint64, has func(*entry) bool) *entry {
	_, e := s.find(hash, has)
	return e
}

// put sets the entry of the key and returns the one before. There is room since lockForOneMore.
func (s *shard) put(hash uint64, has func(*entry) bool, e *entry) (before *entry) {
	at, before := s.find(hash, has)
	if before == nil {
		s.used++
		s.n++
		at.hash.Store(hash)
	}
	at.e.Store(e)
	return before
}

// remove needs the lock.
func (s *shard) remove(hash uint64, has func(*entry) bool) {
	if at, e := s.find(hash, has); e != nil {
		at.e.Store(dead)
		s.n--
	}
}

// lockForOneMore locks, with room for one more entry. Who asks for much memory may have to help the garbage collection first, so
// the new slots are made without the lock.
func (s *shard) lockForOneMore() {
	s.mu.Lock()
	for old := s.slots.Load(); s.used >= len(*old)/2; old = s.slots.Load() {
		size := 1 << bits.Len(uint(max(8, 4*s.n)-1)) // a power of two: a quarter will be used
		s.mu.Unlock()
		slots := make([]slot, size)
		s.mu.Lock()
		if s.slots.Load() == old {
			s.move(slots)
		}
	}
}

func (s *shard) move(slots []slot) {
	old := *s.slots.Load()
	for k := range old {
		e, hash := old[k].e.Load(), old[k].hash.Load()
		if e == nil || e == dead {
			continue
		}
		i := home(hash, slots)
		for slots[i].e.Load() != nil {
			i = next(i, slots)
		}
		slots[i].hash.Store(hash)
		slots[i].e.Store(e)
	}
	s.used = s.n
	s.slots.Store(&slots)
}

// all yields the entries, without a lock. Those that come or go meanwhile may be among them or not.
func (s *shard) all(yield func(*entry) bool) {
	slots := *s.slots.Load()
	for i := range slots {
		if e := slots[i].e.Load(); e != nil && e != dead && !yield(e) {
			return
		}
	}
}

// home returns the slot that the hash names. Its low bits, which chose the shard, are equal for all in the shard.
func home(hash uint64, slots []slot) int { return int(hash/shards) & (len(slots) - 1) }

func next(i int, slots []slot) int { return (i + 1) & (len(slots) - 1) }
