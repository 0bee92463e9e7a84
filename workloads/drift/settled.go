package drift

import (
	"encoding/json"
	"hash/fnv"
	"sync"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// maxSettled bounds what is remembered of objects, those among them that are gone.
const maxSettled = 10_000

// Settled remembers, for an object that the API server turned into something that is not known to follow from what was wanted (an admission
// webhook, a default of a newer version), what was wanted and what came of it. There is nothing to write while both are so.
// The replicas of a Deployment, and whether it is paused, are others' and do not count. The zero Settled is ready to use, at the same
// time by many.
type Settled struct {
	mu    sync.Mutex
	known map[types.UID]string
}

// Is tells whether the live object is what came of the wanted one.
func (s *Settled) Is(live, want client.Object) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	was, there := s.known[live.GetUID()]
	return there && was == fingerprint(live, want)
}

// Note takes down what has come of a write. drifted tells that it is not what was wanted; else there is nothing to remember.
func (s *Settled) Note(live, want client.Object, drifted bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !drifted {
		delete(s.known, live.GetUID())
		return
	}
	if s.known == nil || len(s.known) >= maxSettled {
		s.known = map[types.UID]string{} // at worst each costs a write again
	}
	s.known[live.GetUID()] = fingerprint(live, want)
}

func fingerprint(objects ...client.Object) string {
	h := fnv.New128a()
	for _, o := range objects {
		if d, ok := o.(*appsv1.Deployment); ok {
			d = d.DeepCopy()
			d.Spec.Replicas, d.Spec.Paused = nil, false
			o = d
		}
		_ = json.NewEncoder(h).Encode(Content(o))
	}
	return string(h.Sum(nil))
}

// Content is what of an object is neither metadata nor status.
func Content(o client.Object) map[string]any {
	all, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
	if err != nil {
		return map[string]any{"unreadable": err.Error()}
	}
	delete(all, "metadata")
	delete(all, "status")
	return all
}
