package store

import (
	"bytes"
	"hash/maphash"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/kubetide/kubetide/internal/sample"
)

// index finds series by their address, and all of one name in one namespace. Who looks up takes no lock.
type index struct {
	seed    maphash.Seed
	series  table
	mu      sync.Mutex // for writers of what follows
	metrics sync.Map   // of metricKey to *metric
}

type metricKey struct {
	kind              sample.Kind
	namespace, metric string
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
}

func (x *index) metric(kind sample.Kind, namespace, name string) *metric {
	m, _ := x.metrics.Load(metricKey{kind: kind, namespace: namespace, metric: name})
	found, _ := m.(*metric)
	return found
}

// exact returns the series with exactly this address, nil if there is none, and its state.
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
	x.mu.Lock()
	defer x.mu.Unlock()
	series, hash, has := x.place(e)
	series.lockForOneMore()
	before := series.put(hash, has, e)
	series.mu.Unlock()
	if before == e {
		return
	}
	m := x.metric(e.query.Kind, e.query.Namespace, e.query.Metric)
	if m == nil {
		m = &metric{}
		x.metrics.Store(metricKey{kind: e.query.Kind, namespace: e.query.Namespace, metric: e.query.Metric}, m)
	}
	if before != nil {
		m.list.remove(before)
	}
	m.list.add(e)
	m.shape.Add(1)
}

// remove does nothing if e is not the series at its address.
func (x *index) remove(e *entry) {
	x.mu.Lock()
	defer x.mu.Unlock()
	m := x.metric(e.query.Kind, e.query.Namespace, e.query.Metric)
	if m == nil || !m.list.remove(e) {
		return
	}
	m.shape.Add(1)
	if m.list.n == 0 {
		x.metrics.Delete(metricKey{kind: e.query.Kind, namespace: e.query.Namespace, metric: e.query.Metric})
	}
	series, hash, has := x.place(e)
	series.mu.Lock()
	defer series.mu.Unlock()
	series.remove(hash, has)
}

// list is a set of entries in no order. It is kept in pieces that readers take without a lock: what they have is never changed.
// So a writer copies the list of pieces and up to two of them. It needs the index's lock.
type list struct {
	published atomic.Pointer[[][]*entry] // all pieces but the last have pieceSize entries
	n         int
}

const pieceSize = 128

func (l *list) pieces() [][]*entry {
	if pieces := l.published.Load(); pieces != nil {
		return *pieces
	}
	return nil
}

func (l *list) add(e *entry) {
	pieces := slices.Clone(l.pieces())
	if l.n%pieceSize == 0 {
		pieces = append(pieces, nil)
	}
	last := &pieces[l.n/pieceSize]
	*last = append(*last, e) // behind what readers have of it
	e.position = l.n
	l.n++
	l.published.Store(&pieces)
}

// remove fills the place of e with the last one. It reports whether e was there.
func (l *list) remove(e *entry) bool {
	if e.position < 0 {
		return false
	}
	pieces := slices.Clone(l.pieces())
	l.n--
	k, i := l.n/pieceSize, l.n%pieceSize
	last := pieces[k][i]
	changed := slices.Clone(pieces[e.position/pieceSize])
	changed[e.position%pieceSize] = last
	pieces[e.position/pieceSize], last.position = changed, e.position
	if i == 0 {
		pieces = pieces[:k]
	} else {
		pieces[k] = slices.Clone(pieces[k][:i])
	}
	e.position = -1
	l.published.Store(&pieces)
	return true
}

// all yields the entries that there were when it was called.
func (l *list) all(yield func(*entry) bool) {
	for _, piece := range l.pieces() {
		for _, e := range piece {
			if !yield(e) {
				return
			}
		}
	}
}
