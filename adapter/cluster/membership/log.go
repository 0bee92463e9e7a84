package membership

import (
	"strings"
	"sync"
	"time"
)

// memberlistLog takes the lines that the library logs, as details, and counts those of refused messages: there is no other way to learn of
// them.
type memberlistLog struct{ *Gossip }

func (l memberlistLog) Write(line []byte) (int, error) {
	text := strings.TrimSpace(string(line))
	switch {
	case strings.Contains(text, "unacceptable label"):
		l.refuse(refusedLabel, text)
	case strings.Contains(text, "Decrypt packet failed"), strings.Contains(text, "failed to receive: no installed keys could decrypt"),
		strings.Contains(text, "encryption is not configured"), strings.Contains(text, "remote state is not encrypted"):
		l.refuse(refusedKey, text)
	}
	l.o.Log.V(1).Info(text)
	return len(line), nil
}

// quietFor is how long a reason for a refusal is not logged again.
const quietFor = time.Minute

// refusalLog says when a reason is to be logged.
type refusalLog struct {
	mu   sync.Mutex
	last map[string]time.Time // under mu
}

func (r *refusalLog) due(reason string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if last, ok := r.last[reason]; ok && time.Since(last) < quietFor {
		return false
	}
	if r.last == nil {
		r.last = map[string]time.Time{}
	}
	r.last[reason] = time.Now()
	return true
}

func (g *Gossip) refuse(reason, detail string) {
	g.metrics.refused.WithLabelValues(reason).Inc()
	if g.refusals.due(reason) {
		g.o.Log.Info("Refused what came by gossip", "reason", reason, "detail", detail)
	}
}
