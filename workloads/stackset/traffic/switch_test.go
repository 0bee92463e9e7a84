package traffic_test

import (
	"maps"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/kubetide/kubetide/scaler/prescale"
	"github.com/kubetide/kubetide/workloads/stackset/segment"
	"github.com/kubetide/kubetide/workloads/stackset/traffic"
)

// world is a StackSet as a cluster has it: what is persisted, what lives, and nothing that a controller has in memory.
type world struct {
	at               time.Time
	set              traffic.StackSet
	ingresses, group segment.Live
	begun            bool // the first layout is complete
}

// reconcile is what a controller does in one round, up to a crash after some of the writes.
func (w *world) reconcile(t *rapid.T, crash func(writes int) int) (writes int) {
	for i := range w.set.Stacks {
		s := &w.set.Stacks[i]
		s.Routed = w.ingresses[s.Name].Width() > 0 || w.group[s.Name].Width() > 0
	}
	d := traffic.Decide(w.set, w.at)
	weights := map[string]int{}
	for i, o := range d.Stacks {
		s := w.set.Stacks[i]
		weights[o.Stack] = o.Actual
		if w.begun && float64(o.Actual) > s.Actual && (!o.Ready || o.Prescaling.State.Active && s.Ready < o.Prescaling.State.Replicas) {
			t.Fatalf("%s gets %d %%, more than %v, and has %d of %d pods ready: %+v", o.Stack, o.Actual, s.Actual, s.Ready, s.Current, o.Prescaling.State)
		}
		if o.ScaledDown && s.Routed {
			t.Fatalf("%s is scaled down, and routers still know it", o.Stack)
		}
	}
	layout, err := segment.Layout(weights, w.ingresses, w.group)
	if err != nil {
		t.Fatal(err)
	}
	for _, live := range []segment.Live{w.ingresses, w.group} {
		planned := segment.Writes(live, layout)
		n := crash(len(planned))
		for _, write := range planned[:n] {
			before := maps.Clone(live)
			live[write.Stack] = write.Segment
			if w.begun && !segment.Complete(live) {
				t.Fatalf("a hole after %v, before it was %v", write, before)
			}
			writes++
		}
		if n < len(planned) {
			return writes
		}
	}
	w.begun = true
	for i, o := range d.Stacks {
		s := &w.set.Stacks[i]
		replicas := o.Replicas(*s)
		if replicas != s.Current || float64(o.Actual) != s.Actual || float64(o.Desired) != s.Desired || o.Prescaling.Changed || !o.NoTrafficSince.Equal(s.NoTrafficSince) {
			writes++
		}
		s.Actual, s.Desired, s.NoTrafficSince, s.Current = float64(o.Actual), float64(o.Desired), o.NoTrafficSince, replicas
		if o.Prescaling.Changed { // a controller writes nothing else
			s.Prescaling = prescale.FromStatus(o.Prescaling.State.Status())
		}
		s.Updated, s.Ready = min(s.Updated, s.Current), min(s.Ready, s.Current)
	}
	return writes
}

// The three decisions together, through switches, crashes and pods that come late: no hole, no traffic for pods that are not there, and
// when all is well everything comes to rest where it was asked to be.
func TestASwitchIsSafeAndEnds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &world{at: time.Date(2026, 11, 22, 13, 0, 0, 0, time.UTC), ingresses: segment.Live{}, group: segment.Live{}}
		w.set = traffic.StackSet{HasIngress: true, Limit: 10, ScaledownTTL: 30 * time.Second,
			Prescale: prescale.Settings{Enabled: rapid.Bool().Draw(t, "prescaled"), ResetDelay: time.Minute, Deadline: 5 * time.Minute}}
		for i := range rapid.IntRange(1, 4).Draw(t, "stacks") {
			s := traffic.Stack{Name: string(rune('a' + i)), Replicas: int32(rapid.IntRange(1, 5).Draw(t, "replicas")), HasIngress: true, Created: w.at}
			if rapid.Bool().Draw(t, "autoscaled") {
				s.Autoscaler = &prescale.Bounds{Min: 1, Max: int32(rapid.IntRange(1, 20).Draw(t, "max"))}
				s.Replicas = min(s.Replicas, s.Autoscaler.Max)
			}
			w.set.Stacks = append(w.set.Stacks, s)
		}
		// The HPA follows its minimum at once here; pods come as they like.
		pods := func(ready func(missing int) int) {
			for i := range w.set.Stacks {
				s := &w.set.Stacks[i]
				if p := s.Prescaling; p.Active && s.Autoscaler != nil && s.Current > 0 {
					s.Current = max(s.Current, p.Replicas)
				}
				s.Ready += int32(ready(int(s.Current - s.Ready)))
				s.Updated = s.Ready
			}
		}
		for range rapid.IntRange(1, 12).Draw(t, "rounds") {
			if rapid.IntRange(0, 2).Draw(t, "asked") == 0 {
				w.set.Weights = nil
				for _, s := range w.set.Stacks {
					w.set.Weights = append(w.set.Weights, traffic.Weight{Stack: s.Name, Weight: float64(rapid.SampledFrom([]int{0, 0, 1, 10, 50, 100}).Draw(t, "weight"))})
				}
			}
			w.reconcile(t, func(writes int) int {
				if rapid.Bool().Draw(t, "no crash") {
					return writes
				}
				return rapid.IntRange(0, writes).Draw(t, "writes")
			})
			pods(func(missing int) int { return rapid.IntRange(0, missing).Draw(t, "more ready") })
			w.at = w.at.Add(time.Duration(rapid.IntRange(1, 120).Draw(t, "seconds")) * time.Second)
		}
		failed := false
		for range 40 {
			w.reconcile(t, func(writes int) int { return writes })
			pods(func(missing int) int { return missing })
			w.at = w.at.Add(20 * time.Second)
		}
		for _, s := range w.set.Stacks {
			failed = failed || s.Prescaling.Failed
			if s.Prescaling.Active {
				t.Fatalf("%s still holds %+v", s.Name, s.Prescaling)
			}
		}
		if d := traffic.Decide(w.set, w.at); !failed && d.Err != nil {
			t.Fatalf("not switched: %v", d.Err)
		}
		if writes := w.reconcile(t, func(writes int) int { return writes }); writes > 0 {
			t.Fatalf("%d writes at rest", writes)
		}
	})
}
