package store

import (
	"bytes"
	"hash/maphash"
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

// exact returns the series with exactly this address, nil if there is none, and its state. That is read before the lock is
// given back, so that the processor fetches it while it still compares the address.
func (x *index) exact(address []byte) (*entry, *state) {
	shard, hash := x.series.shard(maphash.Bytes(x.seed, address))
	shard.mu.RLock()
	defer shard.mu.RUnlock()
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

// list is a set of entries in no order. It grows by pieces, so that no addition has to copy all that is there.
type list struct {
	mu     sync.RWMutex
	pieces [][]*entry // all but the last have pieceSize entries
	n      int
	// snapshot is a copy for scans; nil after a change.
	snapshot atomic.Pointer[[]*entry]
}

const pieceSize = 1024

func (l *list) add(e *entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.n%pieceSize == 0 {
		l.pieces = append(l.pieces, nil)
	}
	last := &l.pieces[l.n/pieceSize]
	*last = append(*last, e)
	e.position = l.n
	l.n++
	l.snapshot.Store(nil)
}

// remove fills the place of e with the last one. It reports whether e was there.
func (l *list) remove(e *entry) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.position < 0 {
		return false
	}
	l.n--
	at, i := &l.pieces[l.n/pieceSize], l.n%pieceSize
	last := (*at)[i]
	l.pieces[e.position/pieceSize][e.position%pieceSize], last.position = last, e.position
	(*at)[i] = nil
	if *at = (*at)[:i]; i == 0 {
		*at, l.pieces = nil, l.pieces[:l.n/pieceSize]
	}
	e.position = -1
	l.snapshot.Store(nil)
	return true
}

// all returns the entries; the result must not be changed. Memory for it is made without the lock, as in lockForOneMore.
func (l *list) all() []*entry {
	if all := l.snapshot.Load(); all != nil {
		return *all
	}
	l.mu.RLock()
	n := l.n
	l.mu.RUnlock()
	return l.copyTo(make([]*entry, 0, n+n/16))
}

func (l *list) copyTo(all []*entry) []*entry {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for _, piece := range l.pieces {
		all = append(all, piece...)
	}
	l.snapshot.Store(&all)
	return all
}
