package replication

import (
	"sync"
)

// item is something to send to one node.
type item struct {
	kind    byte
	content []byte
	// For a sample: its query, and the sample itself; nil if it is to be looked up when it is sent.
	query  *query
	sample *shared
}

// shared is a sample that waits for several nodes. Whoever sends it first encodes it for all.
type shared struct {
	Sample
	once    sync.Once
	content []byte
}

func (s *shared) encoded(id queryID) []byte {
	s.once.Do(func() { s.content = appendSample(nil, id, &s.Sample) })
	return s.content
}

// itemKey says what an item is about. The later one of two about the same takes the earlier one's place.
type itemKey struct {
	kind byte
	id   queryID
}

// queue is what waits for one node, in the order in which it came. Nothing waits while there is no stream: a stream begins with all.
type queue struct {
	metrics *metrics
	wake    chan struct{}

	// mu protects what follows.
	mu    sync.Mutex
	open  bool
	order []itemKey // those before head are gone
	head  int
	items map[itemKey]item
}

// put is false if there is no stream.
func (q *queue) put(key itemKey, it item) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.open {
		return false
	}
	if before, waits := q.items[key]; !waits {
		q.order = append(q.order, key)
	} else if before.sample != nil {
		q.metrics.dropped.WithLabelValues(droppedReplaced).Inc()
	}
	q.items[key] = it
	select {
	case q.wake <- struct{}{}:
	default:
	}
	return true
}

// take appends up to n items to the given ones, which leave the queue.
func (q *queue) take(to []item, n int) []item {
	q.mu.Lock()
	defer q.mu.Unlock()
	for ; n > 0 && q.head < len(q.order); n-- {
		key := q.order[q.head]
		q.head++
		to = append(to, q.items[key])
		delete(q.items, key)
	}
	if q.head == len(q.order) {
		q.order, q.head = q.order[:0], 0
	} else if q.head > 1024 && q.head > len(q.order)/2 {
		q.order, q.head = q.order[:copy(q.order, q.order[q.head:])], 0
	}
	return to
}

func (q *queue) setOpen(open bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.open, q.order, q.head, q.items = open, nil, 0, map[itemKey]item{}
}
