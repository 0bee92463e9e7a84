package decision

import (
	"slices"
	"sync"
	"time"
)

// Bounds of a Portrait; Portraits.Set cuts to them.
const (
	// MaxDetails is how many metrics of one portrait are kept.
	MaxDetails = 64
	// maxDetailText bounds each text of a Portrait, in bytes.
	maxDetailText = 512
)

// Detail is what one metric of a portrait said last.
type Detail struct {
	Metric string `json:"metric"`
	// Source is the collector that the value comes from, or resource.
	Source string `json:"source,omitempty"`
	// Value and Target are printed as quantities; empty where there is none.
	Value  string `json:"value,omitempty"`
	Target string `json:"target,omitempty"`
	// Age is how old the value was at Portrait.Time.
	Age time.Duration `json:"age,omitempty"`
	// State is Fresh, Stale or Missing.
	State string `json:"state,omitempty"`
	// Replicas is what this metric alone asks for; nil where it says nothing.
	Replicas *int32 `json:"replicas,omitempty"`
	Reason   string `json:"reason,omitempty"`
	// ScaleUpAbove, ScaleDownBelow and AtMaxAbove are the values of the metric at which its count would change; empty where
	// that is not known.
	ScaleUpAbove   string `json:"scaleUpAbove,omitempty"`
	ScaleDownBelow string `json:"scaleDownBelow,omitempty"`
	AtMaxAbove     string `json:"atMaxAbove,omitempty"`
}

// Portrait is one evaluation of a HorizontalPortrait.
type Portrait struct {
	// Name is the HorizontalPortrait's.
	Name string    `json:"name"`
	Time time.Time `json:"time"`
	// Replicas is nil while the portrait says nothing.
	Replicas *int32   `json:"replicas,omitempty"`
	Details  []Detail `json:"details,omitempty"`
	// Note is a sentence about the whole, for example why there is no value.
	Note string `json:"note,omitempty"`
}

// Portraits keeps the last evaluation of each HorizontalPortrait in memory, by namespace and name. It is safe for concurrent
// use; the zero value is empty. What is kept is lost with the process.
type Portraits struct {
	mu   sync.RWMutex
	last map[[2]string]Portrait
}

// Set keeps a bounded copy of p in the place of the one before.
func (s *Portraits) Set(namespace, name string, p Portrait) {
	p.Name, p.Note = cutText(p.Name, maxDetailText), cutText(p.Note, maxDetailText)
	p.Details = slices.Clone(p.Details[:min(len(p.Details), MaxDetails)])
	for i := range p.Details {
		d := &p.Details[i]
		for _, text := range []*string{&d.Metric, &d.Source, &d.Value, &d.Target, &d.State, &d.Reason, &d.ScaleUpAbove, &d.ScaleDownBelow, &d.AtMaxAbove} {
			*text = cutText(*text, maxDetailText)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last == nil {
		s.last = map[[2]string]Portrait{}
	}
	s.last[[2]string{namespace, name}] = p
}

// Get returns the last evaluation. Its slices and pointers are shared and must not be changed.
func (s *Portraits) Get(namespace, name string) (Portrait, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	p, ok := s.last[[2]string{namespace, name}]
	return p, ok
}

// Forget drops what is known of a portrait, when it was deleted.
func (s *Portraits) Forget(namespace, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.last, [2]string{namespace, name})
}
