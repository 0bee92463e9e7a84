package replicaprofile

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// A profile needs one write of /scale. More come only because somebody else writes, too, and two controllers that answer each other
// would do so as fast as the API server lets them.
const (
	leastPace = time.Second
	mostPace  = time.Minute
	// calm is how long nobody must have interfered until it counts as new.
	calm = 10 * time.Minute
)

// pace spaces the writes of /scale for one generation of a profile: the first two at once, each later one after twice the time. The
// zero pace is ready for use.
type pace struct {
	mu sync.Mutex // protects of
	of map[types.NamespacedName]paced
}

type paced struct {
	generation int64
	last       time.Time
	gap        time.Duration
}

// due is when /scale may be written; not after now if it may be at once.
func (p *pace) due(key types.NamespacedName, generation int64, now time.Time) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	was, ok := p.of[key]
	if !ok || was.generation != generation || now.Sub(was.last) >= calm {
		return now
	}
	if was.last.After(now) { // a clock that was set back must not have us wait for as long
		was.last = now
		p.of[key] = was
	}
	return was.last.Add(was.gap)
}

func (p *pace) wrote(key types.NamespacedName, generation int64, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.of == nil {
		p.of = map[types.NamespacedName]paced{}
	}
	is := paced{generation: generation, last: now}
	if was, ok := p.of[key]; ok && was.generation == generation && now.Sub(was.last) < calm {
		is.gap = min(mostPace, max(leastPace, 2*was.gap))
	}
	p.of[key] = is
}

func (p *pace) forget(key types.NamespacedName) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.of, key)
}
