package decision

import (
	"container/list"
	"sync"
)

// Bounds of a Log.
const (
	// DefaultPerObject is how many records a Log keeps for one object.
	DefaultPerObject = 100
	// DefaultTotalBytes bounds all records of a Log together, by their JSON size.
	DefaultTotalBytes = 64 << 20
)

// Log keeps the last records of each object in memory, oldest first, within a total size: when that is reached, the oldest
// record of all is dropped. It is safe for concurrent use. Records are lost with the process.
type Log struct {
	perObject  int
	totalBytes int

	mu      sync.Mutex // protects everything below
	bytes   int
	all     *list.List // of entry, oldest first
	objects map[Object][]*list.Element
}

type entry struct {
	record Record
	bytes  int
}

// NewLog returns an empty log. Bounds of zero or less mean the defaults.
func NewLog(perObject, totalBytes int) *Log {
	if perObject <= 0 {
		perObject = DefaultPerObject
	}
	if totalBytes <= 0 {
		totalBytes = DefaultTotalBytes
	}
	return &Log{perObject: perObject, totalBytes: totalBytes, all: list.New(), objects: map[Object][]*list.Element{}}
}

// Add keeps the bounded form of r under r.Object.
func (l *Log) Add(r Record) {
	key, bounded := r.Object, r.Bounded()
	// The JSON size stands for the memory size: Go's overhead per record is of the same order and bounded too.
	e := entry{record: bounded, bytes: bounded.size() + bounded.callSize()}
	e.record.Object = key
	l.mu.Lock()
	defer l.mu.Unlock()
	l.objects[key] = append(l.objects[key], l.all.PushBack(e))
	l.bytes += e.bytes
	if len(l.objects[key]) > l.perObject {
		l.dropOldest(key)
	}
	// The oldest of all is also the oldest of its object, since both lists are in order of arrival.
	for l.bytes > l.totalBytes && l.all.Len() > 1 {
		l.dropOldest(l.all.Front().Value.(entry).record.Object)
	}
}

func (l *Log) dropOldest(key Object) {
	elements := l.objects[key]
	l.bytes -= l.all.Remove(elements[0]).(entry).bytes
	elements[0] = nil
	if elements = elements[1:]; len(elements) == 0 {
		delete(l.objects, key)
		return
	}
	l.objects[key] = elements
}

// Of returns the records of an object, oldest first.
func (l *Log) Of(o Object) []Record {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]Record, 0, len(l.objects[o]))
	for _, e := range l.objects[o] {
		out = append(out, e.Value.(entry).record)
	}
	return out
}

// Last returns the newest record of an object.
func (l *Log) Last(o Object) (Record, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	elements := l.objects[o]
	if len(elements) == 0 {
		return Record{}, false
	}
	return elements[len(elements)-1].Value.(entry).record, true
}

// Objects returns every object that has records, in no order.
func (l *Log) Objects() []Object {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]Object, 0, len(l.objects))
	for o := range l.objects {
		out = append(out, o)
	}
	return out
}

// Forget drops the records of an object, for example when it was deleted.
func (l *Log) Forget(o Object) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.objects[o] {
		l.bytes -= l.all.Remove(e).(entry).bytes
	}
	delete(l.objects, o)
}
