// Package membership knows which nodes the cluster has. Gossip finds them; it touches the network, and never the API server.
package membership

import (
	"math/rand/v2"
	"slices"
	"sync"
)

// State is what a node says of itself.
type State string

// The states of a node, in this order.
const (
	// Joining is a node that has not got the others' samples yet. It owns nothing.
	Joining State = "joining"
	// Active is a node that can own queries.
	Active State = "active"
	// Leaving is a node that hands over what it owns, and still answers.
	Leaving State = "leaving"
)

// Node is what a node tells the others of itself. Addresses are an IP address and a port, or empty.
type Node struct {
	// ID is a new one after each start: what is heard of an earlier one concerns another node.
	ID    string
	State State
	// Collects is false for a node that only receives samples.
	Collects bool
	// Stream is where it takes samples, Admin where it tells of itself.
	Stream, Admin string
	Version       string
}

// Membership tells which nodes there are. All methods can be called at once, also by subscribers.
type Membership interface {
	Local() Node
	// Nodes are the local one and all others that are not known to be gone, by ID.
	Nodes() []Node
	// Subscribe has notify called after changes of what Nodes returns, several changes once perhaps, until cancel is called.
	Subscribe(notify func()) (cancel func())
	// SetState is for the local node.
	SetState(State)
}

const (
	suffixLength  = 7
	suffixLetters = "abcdefghijklmnopqrstuvwxyz0123456789"
)

// NewID is the prefix and 7 random letters and digits.
func NewID(prefix string) string {
	id := []byte(prefix)
	for range suffixLength {
		id = append(id, suffixLetters[rand.IntN(len(suffixLetters))])
	}
	return string(id)
}

// Alone is the membership of a server that looks for no others.
func Alone(node Node) Membership { return &alone{node: node} }

type alone struct {
	subscribers
	mu   sync.Mutex
	node Node // under mu
}

func (a *alone) Local() Node {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.node
}

func (a *alone) Nodes() []Node { return []Node{a.Local()} }

func (a *alone) SetState(state State) {
	a.mu.Lock()
	same := a.node.State == state
	a.node.State = state
	a.mu.Unlock()
	if !same {
		a.notify()
	}
}

// subscribers are called in the order in which they came.
type subscribers struct {
	mu    sync.Mutex
	funcs []*func() // under mu
}

func (s *subscribers) Subscribe(notify func()) (cancel func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.funcs = append(s.funcs, &notify)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.funcs = slices.DeleteFunc(s.funcs, func(f *func()) bool { return f == &notify })
	}
}

func (s *subscribers) notify() {
	s.mu.Lock()
	funcs := slices.Clone(s.funcs)
	s.mu.Unlock()
	for _, f := range funcs {
		(*f)()
	}
}
