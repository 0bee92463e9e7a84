package collection

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/kubetide/kubetide/collectors"
	"github.com/kubetide/kubetide/internal/sample"
)

func at(seconds float64) time.Time {
	return start.Add(time.Duration(seconds * float64(time.Second)))
}

// Turn's answers over time, in seconds since the start.
func TestTurns(t *testing.T) {
	type answer struct {
		collect bool
		next    time.Time
	}
	tests := map[string]struct {
		turn   func(now float64) answer
		change func(now time.Time) time.Time
		want   []float64 // collections
		asked  []float64
	}{
		"a query that is always ours is asked for on its interval": {
			turn: func(float64) answer { return answer{collect: true} },
			want: []float64{0, 5, 15, 25, 35}, asked: []float64{0, 5, 15, 25, 35},
		},
		"a query that is never ours is not collected": {
			turn:  func(now float64) answer { return answer{next: at(now + 15)} },
			asked: []float64{0, 15, 30},
		},
		"one that becomes ours keeps the phase that it was given": {
			turn: func(now float64) answer { return answer{now >= 7, at(7)} },
			want: []float64{7, 17, 27, 37}, asked: []float64{0, 7, 17, 27, 37},
		},
		"one that is lost and comes back goes on from there": {
			turn: func(now float64) answer { return answer{now < 12 || now >= 28, at(28)} },
			want: []float64{0, 5, 28, 38}, asked: []float64{0, 5, 15, 28, 38},
		},
		"a source's own instants are ours only if the query is": {
			turn:   func(now float64) answer { return answer{now >= 20, at(20)} },
			change: func(now time.Time) time.Time { return now.Add(4 * time.Second) },
			want:   []float64{20, 24, 28, 32, 36, 40}, asked: []float64{0, 20, 24, 28, 32, 36, 40},
		},
		"an answer of the past makes no hot loop": {
			turn: func(now float64) answer { return answer{now >= 1, at(0)} },
			want: []float64{1, 11, 21, 31}, asked: []float64{0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 11, 21, 31},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var b *bench
			var asked []float64 // guarded by b.mu
			b = newBench(t, &source{collect: value, change: tt.change}, func(o *Options) {
				fake := o.Clock.(*clocktesting.FakeClock)
				o.Random = func() float64 { return 0 }
				o.Turn = func(sample.Query) (bool, time.Time) {
					now := fake.Since(start).Seconds()
					b.mu.Lock()
					asked = append(asked, now)
					b.mu.Unlock()
					a := tt.turn(now)
					return a.collect, a.next
				}
			})
			b.want(query("m", 10*time.Second))
			if diff := cmp.Diff(tt.want, b.run(t, "m", 40*time.Second, 100*time.Millisecond)); diff != "" {
				t.Errorf("collected at (-want +got):\n%s", diff)
			}
			b.mu.Lock()
			defer b.mu.Unlock()
			if diff := cmp.Diff(tt.asked, asked); diff != "" {
				t.Errorf("asked at (-want +got):\n%s", diff)
			}
		})
	}
}

func TestReconsiderAsksAgainForWhatIsNotOurs(t *testing.T) {
	var mine atomic.Bool
	var asked atomic.Int64
	b := newBench(t, &source{collect: value}, func(o *Options) {
		o.Turn = func(q sample.Query) (bool, time.Time) {
			asked.Add(1)
			return q.Metric == "mine" || mine.Load(), at(3600)
		}
	})
	b.want(query("mine", time.Minute))
	b.want(query("others", time.Minute))
	if err := b.Warm(t.Context()); err != nil {
		t.Error("a query of somebody else holds up Warm")
	}
	b.run(t, "mine", 5*time.Second, time.Second)
	mine.Store(true)
	before := asked.Load()
	b.Reconsider()
	if diff := cmp.Diff([]float64{5}, b.run(t, "others", 0, time.Second)); diff != "" {
		t.Errorf("what became ours was collected at (-want +got):\n%s", diff)
	}
	if n := asked.Load() - before; n != 1 {
		t.Errorf("%d queries were asked for, one was not ours", n)
	}
	b.Reconsider()
	if diff := cmp.Diff([]float64{0, 60}, b.run(t, "mine", time.Minute, time.Second)); diff != "" {
		t.Errorf("what is ours was collected at (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]float64{5, 65}, b.run(t, "others", 0, time.Second)); diff != "" {
		t.Errorf("what became ours was collected at (-want +got):\n%s", diff)
	}
}

// What changes while an answer is on its way must not be lost, and Turn may call the Scheduler.
func TestReconsiderWhileATurnIsAskedFor(t *testing.T) {
	var b *bench
	asked := 0
	b = newBench(t, &source{collect: value}, func(o *Options) {
		o.Turn = func(q sample.Query) (bool, time.Time) {
			if asked++; asked == 1 {
				b.Collect(q)
				b.Reconsider()
				return false, at(3600)
			}
			return true, time.Time{}
		}
	})
	b.want(query("m", time.Minute))
	until(t, "the collection", func() bool { return b.count() == 1 })
}

func TestAQueryThatIsRemovedWhileItsTurnIsAskedForIsGone(t *testing.T) {
	for _, mine := range []bool{true, false} {
		var b *bench
		answered := make(chan struct{})
		b = newBench(t, &source{collect: value}, func(o *Options) {
			o.Turn = func(q sample.Query) (bool, time.Time) {
				b.Remove(q)
				defer close(answered)
				return mine, at(1)
			}
		})
		b.want(query("m", time.Minute))
		<-answered
		if got := b.run(t, "m", 2*time.Second, time.Second); got != nil {
			t.Errorf("its turn: %t; collected at %v", mine, got)
		}
	}
}

func TestACollectionThatIsAskedForFromOutsideNeedsATurnToo(t *testing.T) {
	var asked atomic.Int64
	b := newBench(t, &source{collect: value}, func(o *Options) {
		o.Turn = func(sample.Query) (bool, time.Time) { asked.Add(1); return false, at(3600) }
	})
	b.want(query("m", time.Minute))
	b.run(t, "m", time.Second, time.Second)
	b.Collect(query("m", time.Minute))
	if got := b.run(t, "m", time.Second, time.Second); got != nil || asked.Load() != 2 {
		t.Errorf("collected at %v, asked %d times", got, asked.Load())
	}
}

// What it costs when the nodes change: 10,000 queries of which none is ours.
func BenchmarkReconsider(b *testing.B) {
	const n = 10_000
	registry := collectors.NewRegistry()
	registry.Register(sample.External, &source{collect: value}, "fake")
	var asked atomic.Int64
	s := New(Options{Registry: registry, Log: logr.Discard(), Insert: func(sample.Result) bool { return true },
		Turn: func(sample.Query) (bool, time.Time) { asked.Add(1); return false, time.Now().Add(time.Hour) }})
	ctx, cancel := context.WithCancel(b.Context())
	for i := range n {
		s.Add(query(fmt.Sprint(i), time.Minute))
	}
	done := make(chan struct{})
	go func() { defer close(done); s.Run(ctx) }()
	until(b, "the first turns", func() bool { return asked.Load() == n })
	for b.Loop() {
		before := asked.Load()
		s.Reconsider()
		until(b, "all to be asked for", func() bool { return asked.Load() == before+n })
	}
	cancel()
	<-done
}
