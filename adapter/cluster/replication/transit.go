package replication

import "time"

// transitSpan is for how long the fastest frame counts. Longer, and two clocks that do not quite keep pace would seem to be a delay.
const transitSpan = 30 * time.Second

// transit tells how long a frame was under way, beyond the fastest of those before it. A frame may wait long in a node that stalls, and
// what is in it has aged meanwhile. It compares how much time passes on both sides, never what their clocks say.
type transit struct {
	started           bool
	current, previous time.Duration // the least offset of this span and of the one before
	since             time.Time     // when this span began
}

// delay takes the instant at which a frame was sent, counted from any instant of the sender's, and that at which it was received.
func (t *transit) delay(sent time.Duration, received, begin time.Time) time.Duration {
	offset := received.Sub(begin) - sent
	switch {
	case !t.started:
		t.started, t.current, t.previous, t.since = true, offset, offset, received
	case received.Sub(t.since) > transitSpan:
		t.previous, t.current, t.since = t.current, offset, received
	default:
		t.current = min(t.current, offset)
	}
	return offset - min(t.current, t.previous)
}
