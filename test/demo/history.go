package main

import (
	"cmp"
	"slices"
	"strconv"
	"sync"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"
)

// change is something that watches have shown. Which fields are set says what it was.
type change struct {
	revision uint64
	at       time.Time // when it was seen

	source  string   // an EndpointSlice,
	serving []string // and the pods that are ready in it
	deleted string   // a pod that is told to end

	stack string  // a Stack,
	ready int32   // and how many of its pods are ready,
	share bool    // or that its routes have a share of the traffic,
	width float64 // this one
}

// history is what several watches have shown. Revisions order it: the API server's store counts the changes of all kinds.
type history struct {
	mu      sync.Mutex
	changes []change
}

func (h *history) add(c change) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.changes = append(h.changes, c)
}

func (h *history) ordered() []change {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := slices.Clone(h.changes)
	slices.SortStableFunc(all, func(a, b change) int { return cmp.Compare(a.revision, b.revision) })
	return all
}

func revision(o client.Object) uint64 {
	n, _ := strconv.ParseUint(o.GetResourceVersion(), 10, 64) // the API server sends nothing else
	return n
}
