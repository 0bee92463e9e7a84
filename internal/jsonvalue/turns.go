package jsonvalue

import (
	"context"
	"runtime"
	"sync"

	"golang.org/x/sync/semaphore"
)

// process has the turns of this process, whose cores and memory all share.
var process = newTurns(runtime.GOMAXPROCS(0))

// Turn waits until an evaluation on behalf of the namespace may run, and done ends it. As many run at once as there are cores,
// and one of each namespace: a namespace whose expressions are dear keeps the others waiting for one of them, not for all.
func Turn(ctx context.Context, namespace string) (done func(), err error) {
	return process.take(ctx, namespace)
}

type turns struct {
	places *semaphore.Weighted

	mu    sync.Mutex // protects lanes and their users
	lanes map[string]*lane
}

type lane struct {
	place *semaphore.Weighted
	users int
}

func newTurns(places int) *turns {
	return &turns{places: semaphore.NewWeighted(int64(places)), lanes: map[string]*lane{}}
}

func (t *turns) take(ctx context.Context, namespace string) (done func(), err error) {
	t.mu.Lock()
	l := t.lanes[namespace]
	if l == nil {
		l = &lane{place: semaphore.NewWeighted(1)}
		t.lanes[namespace] = l
	}
	l.users++
	t.mu.Unlock()
	leave := func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if l.users--; l.users == 0 {
			delete(t.lanes, namespace)
		}
	}
	if err := l.place.Acquire(ctx, 1); err != nil {
		leave()
		return nil, err
	}
	if err := t.places.Acquire(ctx, 1); err != nil {
		l.place.Release(1)
		leave()
		return nil, err
	}
	return func() {
		t.places.Release(1)
		l.place.Release(1)
		leave()
	}, nil
}
