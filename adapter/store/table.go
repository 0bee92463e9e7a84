package store

import "sync"

// table finds entries by a long key. It hashes the key once, keeps the hashes beside each other, and compares a key with
// the entry's own only where the hashes are equal. So a look-up touches one cache line beside the entry itself, where a map
// with such keys touches several and hashes them again.
type table[K any] struct {
	hash   func(K) uint64
	has    func(*entry, K) bool
	shards [shards]shard[K]
}

// shard is open-addressed with linear probing: an entry stands in the slot that its hash names, or in the next free one. At
// most half of the slots are used.
type shard[K any] struct {
	mu    sync.RWMutex
	slots []slot // a power of two
	used  int
}

type slot struct {
	hash uint64
	e    *entry // nil in a free slot
}

// place is where a key's entry stands, if there is one. Its methods need the shard's lock.
type place[K any] struct {
	table *table[K]
	shard *shard[K]
	hash  uint64
	key   K
}

func (t *table[K]) init(hash func(K) uint64, has func(*entry, K) bool) {
	t.hash, t.has = hash, has
	for i := range t.shards {
		t.shards[i].slots = make([]slot, 8)
	}
}

func (t *table[K]) at(key K) place[K] {
	hash := t.hash(key)
	return place[K]{table: t, shard: &t.shards[hash%shards], hash: hash, key: key}
}

// find returns the slot of the key, or the free one where it belongs.
func (p *place[K]) find() *slot {
	slots := p.shard.slots
	for i := home(p.hash, slots); ; i = next(i, slots) {
		if s := &slots[i]; s.e == nil || s.hash == p.hash && p.table.has(s.e, p.key) {
			return s
		}
	}
}

func (p *place[K]) get() *entry { return p.find().e }

func (p *place[K]) put(e *entry) {
	s := p.find()
	if s.e == nil {
		if p.shard.used++; p.shard.used > len(p.shard.slots)/2 {
			p.shard.grow()
			s = p.find()
		}
	}
	*s = slot{hash: p.hash, e: e}
}

func (p *place[K]) remove() {
	slots := p.shard.slots
	for i := home(p.hash, slots); slots[i].e != nil; i = next(i, slots) {
		if slots[i].hash == p.hash && p.table.has(slots[i].e, p.key) {
			p.shard.used--
			free(slots, i)
			return
		}
	}
}

func (s *shard[K]) grow() {
	slots := make([]slot, 2*len(s.slots))
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

func (s *shard[K]) all(yield func(*entry) bool) {
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
