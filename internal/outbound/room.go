package outbound

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/kubetide/kubetide/internal/spare"
)

// Answers up to freeRoom need no room. Larger ones need as much as they announce, or as much as the larger ones of their class may
// have: first of the medium, then of the large ones. Whoever waits holds nothing of the class he waits for, and nobody waits
// for a class below his own, so that all get their turn.
const freeRoom = 4 << 10

// class bounds the memory of the answers of one size. A namespace has only a part of it.
type class struct {
	most               int64 // bytes of one answer
	process, namespace int64 // bytes of all answers at once
	// arrival is how long an answer may take to arrive that has room. Who sends it drop by drop keeps others waiting.
	arrival time.Duration
	buffers *spare.Buffers[byte] // of most bytes and one
}

var classes = [...]class{
	{most: 64 << 10, process: 256 << 10, namespace: 128 << 10, arrival: 3 * time.Second, buffers: spare.New[byte](64<<10+1, 4)},
	{most: defaultMaxBody, process: defaultMaxBody, namespace: defaultMaxBody, arrival: 2 * time.Second, buffers: spare.New[byte](defaultMaxBody+1, 1)},
}

// worthABuffer says whether so many bytes may be put where there is room for more.
func (c class) worthABuffer(bytes int64) bool { return bytes > c.most/4 && bytes <= c.most }

// RoomError says that an answer was not read, because too many others of its size were being read all the time.
type RoomError struct{ Size int64 }

func (e *RoomError) Error() string {
	return fmt.Sprintf("there was no room in time for an answer of more than %d bytes: too many of them come at once", e.Size)
}

// lateError says that an answer took too long once there was room for it.
type lateError struct {
	size    int64
	arrival time.Duration
}

func (e lateError) Error() string {
	return fmt.Sprintf("no complete answer within %s after its first %d bytes", e.arrival, e.size)
}

// Timeout tells it apart as net.Error does.
func (e lateError) Timeout() bool { return true }

type rooms [len(classes)]*semaphore.Weighted

func newRooms(of func(class) int64) (r rooms) {
	for i, c := range classes {
		r[i] = semaphore.NewWeighted(of(c))
	}
	return r
}

// hold waits for room in a class. release gives it back.
func (b *budgets) hold(ctx context.Context, namespace string, class int, bytes int64) (release func(), err error) {
	b.mu.Lock()
	t := b.tenant(namespace)
	t.users++
	b.mu.Unlock()
	leave := func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		t.users--
	}
	if classes[class].worthABuffer(bytes) {
		bytes = classes[class].most
	}
	bytes = min(bytes, classes[class].namespace)
	if err := t.rooms[class].Acquire(ctx, bytes); err != nil {
		leave()
		return nil, err
	}
	if err := b.rooms[class].Acquire(ctx, bytes); err != nil {
		t.rooms[class].Release(bytes)
		leave()
		return nil, err
	}
	return func() {
		b.rooms[class].Release(bytes)
		t.rooms[class].Release(bytes)
		leave()
	}, nil
}

// room is what one answer holds.
type room struct {
	budgets   *budgets
	namespace string
	announced int64           // the answer's length, or -1
	late      func(lateError) // ends the request
	bytes     int64           // that may be read before there has to be more room
	class     int             // the next one

	timer  *time.Timer // ends at the time for arrival; nil: holds nothing
	buffer *[]byte     // where the answer is, if it is one of a class's
	of     *spare.Buffers[byte]

	mu    sync.Mutex // protects all below: libraries close while they read
	free  func()     // nil: nothing is held
	ended bool
}

// grow waits for more room.
func (r *room) grow(ctx context.Context, limit int64) error {
	want := r.announced
	for r.class < len(classes)-1 && classes[r.class].most < want {
		r.class++
	}
	if want < 0 {
		want = min(limit, classes[r.class].most)
	}
	if r.timer != nil {
		r.timer.Stop() // waiting is not the sender's fault
	}
	size := r.bytes
	release, err := r.budgets.hold(ctx, r.namespace, r.class, want)
	if err != nil {
		if errors.Is(ctx.Err(), context.Canceled) {
			return context.Cause(ctx)
		}
		return &RoomError{size}
	}
	arrival := classes[r.class].arrival
	timer := time.AfterFunc(arrival, func() { r.late(lateError{size, arrival}) })
	r.replace(func() { timer.Stop(); release() })
	r.timer, r.bytes = timer, want
	if r.class++; r.announced >= 0 || r.class == len(classes) {
		r.bytes = limit + 1
	}
	return nil
}

// larger returns a copy of body with more space, in a buffer that is used again unless the caller keeps it.
func (r *room) larger(body []byte, limit int64, keep bool) []byte {
	if r.class > 0 && !keep {
		c := classes[r.class-1]
		if int64(cap(body)) <= c.most && (r.announced < 0 || c.worthABuffer(r.announced)) {
			buffer := c.buffers.Get()
			body = append((*buffer)[:0], body...)
			r.recycle()
			r.buffer, r.of = buffer, c.buffers
			return body
		}
	}
	more := min(2*int64(cap(body)), limit+1)
	if r.announced >= 0 {
		more = r.announced + 1
	}
	return append(make([]byte, 0, more), body...)
}

// recycle gives the buffer back.
func (r *room) recycle() {
	if r.buffer != nil {
		r.of.Put(r.buffer)
		r.buffer = nil
	}
}

// replace gives back what is held, and holds something else unless the answer has ended.
func (r *room) replace(free func()) {
	r.mu.Lock()
	before, now := r.free, free
	if r.free = free; r.ended {
		r.free = nil
	} else {
		now = nil
	}
	r.mu.Unlock()
	for _, free := range []func(){before, now} {
		if free != nil {
			free()
		}
	}
}

// end gives back all that is and will be held.
func (r *room) end() {
	r.mu.Lock()
	r.ended = true
	r.mu.Unlock()
	r.replace(nil)
}
