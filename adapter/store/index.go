package store

import (
	"bytes"
	"hash/maphash"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/kubetide/kubetide/internal/sample"
)

// index finds series by their address, and all of one name in one namespace.
type index struct {
	seed    maphash.Seed
	series  table
	metrics [shards]metricShard
}

type metricKey struct {
	kind              sample.Kind
	namespace, metric string
}

type metricShard struct {
	mu      sync.RWMutex
	metrics map[metricKey]*metric
}

// metric holds the series of one name in one namespace.
type metric struct {
	list list
	// shape counts the changes of which labels a series' pods have. A memo holds for one shape.
	shape atomic.Uint64
	memo  atomic.Pointer[memo]
}

func (x *index) init() {
	x.seed = maphash.MakeSeed()
	x.series.init()
	for i := range x.metrics {
		x.metrics[i].metrics = map[metricKey]*metric{}
	}
}

func (x *index) shard(kind sample.Kind, namespace, name string) (*metricShard, metricKey) {
	key := metricKey{kind: kind, namespace: namespace, metric: name}
	return &x.metrics[maphash.Comparable(x.seed, key)%shards], key
}

func (x *index) metric(kind sample.Kind, namespace, name string) *metric {
	shard, key := x.shard(kind, namespace, name)
	shard.mu.RLock()
	defer shard.mu.RUnlock()
	return shard.metrics[key]
}

// exact returns the series with exactly this address, nil if there is none, and its state. It takes no lock: the processor
// would wait at it for the address to be compared, before it fetches the state.
func (x *index) exact(address []byte) (*entry, *state) {
	shard, hash := x.series.shard(maphash.Bytes(x.seed, address))
	e := shard.get(hash, func(e *entry) bool { return bytes.Equal(e.address, address) })
	if e == nil {
		return nil, nil
	}
	return e, e.last.Load()
}

// place returns where the series with e's address is or belongs, for the methods of the shard.
func (x *index) place(e *entry) (where *shard, hash uint64, has func(*entry) bool) {
	where, hash = x.series.shard(maphash.Bytes(x.seed, e.address))
	return where, hash, func(other *entry) bool { return bytes.Equal(other.address, e.address) }
}

// add makes e the series at its address.
func (x *index) add(e *entry) {
	series, hash, has := x.place(e)
	series.lockForOneMore() // makes room before the other lock is held
	series.mu.Unlock()
	shard, key := x.shard(e.query.Kind, e.query.Namespace, e.query.Metric)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	m := shard.metrics[key]
	if m == nil {
		m = &metric{}
		shard.metrics[key] = m
	}
	series.lockForOneMore()
	before := series.put(hash, has, e)
	series.mu.Unlock()
	if before == e {
		return
	}
	if before != nil {
		m.list.remove(before)
	}
	m.list.add(e)
	m.shape.Add(1)
}

// remove does nothing if e is not the series at its address.
func (x *index) remove(e *entry) {
	shard, key := x.shard(e.query.Kind, e.query.Namespace, e.query.Metric)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	m := shard.metrics[key]
	if m == nil || !m.list.remove(e) {
		return
	}
	m.shape.Add(1)
	if m.list.n == 0 {
		delete(shard.metrics, key)
	}
	series, hash, has := x.place(e)
	series.mu.Lock()
	defer series.mu.Unlock()
	series.remove(hash, has)
}

// list is a set of entries in no order. It is kept in pieces, of which those that readers have are never changed: a reader takes
// little of the lock's time, and a writer copies no more than two pieces.
type list struct {
	mu     sync.RWMutex
	pieces [][]*entry // all but the last have pieceSize entries
	n      int
}

const pieceSize = 128

func (l *list) add(e *entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.n%pieceSize == 0 {
		l.pieces = append(l.pieces, nil)
	}
	last := &l.pieces[l.n/pieceSize]
	*last = append(*last, e) // behind what readers have of it
	e.position = l.n
	l.n++
}

// remove fills the place of e with the last one. It reports whether e was there.
func (l *list) remove(e *entry) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.position < 0 {
		return false
	}
	l.n--
	k, i := l.n/pieceSize, l.n%pieceSize
	last := l.pieces[k][i]
	changed := slices.Clone(l.pieces[e.position/pieceSize])
	changed[e.position%pieceSize] = last
	l.pieces[e.position/pieceSize], last.position = changed, e.position
	if i == 0 {
		l.pieces = slices.Delete(l.pieces, k, k+1)
	} else {
		l.pieces[k] = slices.Clone(l.pieces[k][:i])
	}
	e.position = -1
	return true
}

// all yields the entries that there were when it was called, without holding the lock.
func (l *list) all(yield func(*entry) bool) {
	l.mu.RLock()
	n := len(l.pieces)
	l.mu.RUnlock()
	for _, piece := range l.appendTo(make([][]*entry, 0, n+1)) { // made without the lock, as in lockForOneMore
		for _, e := range piece {
			if !yield(e) {
				return
			}
		}
	}
}

func (l *list) appendTo(pieces [][]*entry) [][]*entry {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return append(pieces, l.pieces...)
}
