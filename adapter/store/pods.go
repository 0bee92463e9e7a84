package store

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kubetide/kubetide/internal/sample"
)

// graveTime is how long a pod that is gone is remembered, so that a collection which began before cannot bring it back.
// It is longer than any collection may take.
const graveTime = time.Minute

// podIndex knows which series of a namespace have pods, and which pods went lately.
type podIndex struct {
	mu      sync.RWMutex
	entries map[string]map[*entry]struct{}
	gone    map[types.UID]time.Time
	order   []grave
	graves  atomic.Int64
}

type grave struct {
	uid types.UID
	at  time.Time
}

func (p *podIndex) add(e *entry) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.entries[e.query.Namespace] == nil {
		p.entries[e.query.Namespace] = map[*entry]struct{}{}
	}
	p.entries[e.query.Namespace][e] = struct{}{}
}

func (p *podIndex) remove(e *entry) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.entries[e.query.Namespace], e)
	if len(p.entries[e.query.Namespace]) == 0 {
		delete(p.entries, e.query.Namespace)
	}
}

// bury remembers that the pod is gone and returns the series that may have it.
func (p *podIndex) bury(namespace string, uid types.UID, now time.Time) []*entry {
	p.mu.Lock()
	defer p.mu.Unlock()
	for range 100 { // not all in one go if many went together
		if len(p.order) == 0 || now.Sub(p.order[0].at) <= graveTime {
			break
		}
		delete(p.gone, p.order[0].uid)
		p.order = p.order[1:]
	}
	entries := p.entries[namespace]
	if len(entries) > 0 {
		p.gone[uid] = now
		p.order = append(p.order, grave{uid: uid, at: now})
	}
	p.graves.Store(int64(len(p.gone)))
	out := make([]*entry, 0, len(entries))
	for e := range entries {
		out = append(out, e)
	}
	return out
}

// alive returns the points without those of pods that are gone. The points that were given stay as they are: the caller sends them on.
func (p *podIndex) alive(points []sample.Point) []sample.Point {
	if p.graves.Load() == 0 {
		return points
	}
	p.mu.RLock()
	defer p.mu.RUnlock()
	gone := func(point sample.Point) bool {
		_, gone := p.gone[point.UID]
		return gone
	}
	if !slices.ContainsFunc(points, gone) {
		return points
	}
	return slices.DeleteFunc(slices.Clone(points), gone)
}

// Waiting returns the namespace's queries about pods that have no value.
func (s *Store) Waiting(namespace string) []sample.Query {
	s.pods.mu.RLock()
	defer s.pods.mu.RUnlock()
	var out []sample.Query
	for e := range s.pods.entries[namespace] {
		if e.last.Load().points() == nil {
			out = append(out, e.query)
		}
	}
	return out
}
