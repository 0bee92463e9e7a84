package store

import "sync"

// table finds entries by a long key. Its users hash the key once; it keeps the hashes beside each other, and asks whether an
// entry has the key only where the hashes are equal. So a look-up touches one cache line beside the entry itself, where a map
// with such keys touches several and hashes them again. Functions are passed down only, which keeps keys off the heap.
type table struct {
	shards [shards]shard
	// same is set by tests: all hashes are as one.
	same bool
}

// shard is open-addressed with linear probing: an entry stands in the slot that its hash names, or in the next free one. At
// most half of the slots are used. Its methods need the lock.
type shard struct {
	mu    sync.RWMutex
	slots []slot // a power of two
	used  int
}

type slot struct {
	hash uint64
	e    *entry // nil in a free slot
}

func (t *table) init() {
	for i := range t.shards {
		t.shards[i].slots = make([]slot, 8)
	}
}

// shard returns where entries of the hash are, and the hash to ask it with.
func (t *table) shard(hash uint64) (*shard, uint64) {
	if t.same {
		hash = 1
	}
	return &t.shards[hash%shards], hash
}

// find returns the slot of the entry that has the key, or the free one where it belongs.
func (s *shard) find(hash uint64, has func(*entry) bool) *slot {
	for i := home(hash, s.slots); ; i = next(i, s.slots) {
		if at := &s.slots[i]; at.e == nil || at.hash == hash && has(at.e) {
			return at
		}
	}
}

func (s *shard) get(hash uint64, has func(*entry) bool) *entry { return s.find(hash, has).e }

// put sets the entry of the key and returns the one before. There is room since lockForOneMore.
func (s *shard) put(hash uint64, has func(*entry) bool, e *entry) (before *entry) {
	at := s.find(hash, has)
	if before = at.e; before == nil {
		s.used++
	}
	*at = slot{hash: hash, e: e}
	return before
}

func (s *shard) remove(hash uint64, has func(*entry) bool) {
	for i := home(hash, s.slots); s.slots[i].e != nil; i = next(i, s.slots) {
		if s.slots[i].hash == hash && has(s.slots[i].e) {
			s.used--
			free(s.slots, i)
			return
		}
	}
}

// lockForOneMore locks, with room for one more entry. Who asks for much memory may have to help the garbage collection first, so
// the new slots are made without the lock.
func (s *shard) lockForOneMore() {
	s.mu.Lock()
	for s.used >= len(s.slots)/2 {
		size := 2 * len(s.slots)
		s.mu.Unlock()
		slots := make([]slot, size)
		s.mu.Lock()
		if len(s.slots) < size {
			s.move(slots)
		}
	}
}

func (s *shard) move(slots []slot) {
	for _, old := range s.slots {
		if old.e == nil {
			continue
		}
		i := home(old.hash, slots)
		for slots[i].e != nil {
			i = next(i, slots)
		}
		slots[i] = old
	}
	s.slots = slots
}

func (s *shard) all(yield func(*entry) bool) {
	for i := range s.slots {
		if e := s.slots[i].e; e != nil && !yield(e) {
			return
		}
	}
}

// home returns the slot that the hash names. Its low bits, which chose the shard, are equal for all in the shard.
func home(hash uint64, slots []slot) int { return int(hash/shards) & (len(slots) - 1) }

func next(i int, slots []slot) int { return (i + 1) & (len(slots) - 1) }

// free empties slot i and moves the later ones of its run up, so that no search stops before its entry.
func free(slots []slot, i int) {
	mask := len(slots) - 1
	for j := next(i, slots); slots[j].e != nil; j = next(j, slots) {
		if (j-home(slots[j].hash, slots))&mask >= (j-i)&mask { // slot i is on its way from home
			slots[i], i = slots[j], j
		}
	}
	slots[i] = slot{}
}
