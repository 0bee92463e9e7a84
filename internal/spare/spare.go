// Package spare keeps large buffers that are not in use for whoever needs one next, until garbage is collected. A sync.Pool keeps some
// for each processor and through two collections, which is several times the memory. It does nothing else.
package spare

import "weak"

// Buffers are slices of one length. They may be used by several goroutines at once.
type Buffers[T any] struct {
	length int
	idle   chan weak.Pointer[[]T]
}

// New returns buffers of the length, of which most are kept.
func New[T any](length, most int) *Buffers[T] {
	return &Buffers[T]{length: length, idle: make(chan weak.Pointer[[]T], most)}
}

// Get returns a buffer with anything in it.
func (b *Buffers[T]) Get() *[]T {
	for {
		select {
		case kept := <-b.idle:
			if buffer := kept.Value(); buffer != nil {
				return buffer
			}
		default:
			return new(make([]T, b.length))
		}
	}
}

// Put gives a buffer back, which the caller no longer uses.
func (b *Buffers[T]) Put(buffer *[]T) {
	select {
	case b.idle <- weak.Make(buffer):
	default:
	}
}
