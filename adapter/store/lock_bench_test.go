package store

import (
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/kubetide/kubetide/internal/sample"
)

// For how long writers can wait for a lock of another; readers take none (TestReadersWaitForNoWriter). Reported is the CPU time that operations of each kind took, their
// allocations and their share of the garbage collection included: what takes less in all cannot hold a lock for longer while it
// runs. CPU time leaves out when the kernel runs another thread in between; interrupts and a busy neighbor in the caches are in
// it, so the longest of a million wants a quiet machine. Operations that take long, because they first make room or lock a
// little at a time, are measured by the part that locks.
func BenchmarkLongestLock(b *testing.B) {
	const n = 100_000
	report := func(b *testing.B, took []int64) {
		slices.Sort(took)
		b.ReportMetric(float64(took[len(took)/2])/1000, "p50-cpu-µs")
		b.ReportMetric(float64(took[len(took)*999/1000])/1000, "p99.9-cpu-µs")
		b.ReportMetric(float64(took[len(took)-1])/1000, "longest-cpu-µs")
		b.ReportMetric(0, "ns/op")
	}
	run := func(name string, op, undo func(i int)) {
		b.Run(name, func(b *testing.B) {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			took := make([]int64, 0, 1<<20)
			for i := 0; b.Loop(); i++ {
				begin := threadTime(b)
				op(i)
				took = append(took, threadTime(b)-begin)
				undo(i)
			}
			report(b, took)
		})
	}
	nothing := func(int) {}

	// The worst shape for locks that are split by metric: all series have one name, in the namespace of the pods.
	clock := clocktesting.NewFakePassiveClock(time.Now())
	s := New(clock, 0)
	queries := make([]sample.Query, n)
	for i := range queries {
		queries[i] = sample.Query{Kind: sample.External, Namespace: "shop", Metric: "queue-length", Collector: "sqs-queue-length",
			Selector: fmt.Sprintf("queue-name=q%d,type=sqs-queue-length", i), Interval: time.Hour}
	}
	insert := func(q sample.Query, points []sample.Point) {
		if !s.Insert(sample.Result{Query: q, Taken: clock.Now(), Points: points}) {
			b.Fatal("refused")
		}
	}
	pods := make([][]sample.Point, 100)
	fill := func() {
		for app := range pods {
			pods[app] = appPoints(app)
			s.Add(appQuery(app), true)
			insert(appQuery(app), pods[app])
		}
	}
	for _, q := range queries {
		s.Add(q, true)
		insert(q, []sample.Point{{Milli: 1}})
	}
	fill()

	run("insert a value", func(i int) { insert(queries[i*7919%n], []sample.Point{{Milli: 5}}) }, nothing)
	run("insert 1 pod, of 100 before", func(i int) { insert(appQuery(i%100), pods[i%100][:1]) }, func(i int) { insert(appQuery(i%100), pods[i%100]) })
	run("insert 100 pods", func(i int) { insert(appQuery(i%100), pods[i%100]) }, nothing)
	entryOf := func(i int) *entry {
		e := s.entry(&queries[i*7919%n])
		return e
	}
	run("begin to serve a series", func(i int) { s.served.add(entryOf(i)) }, func(i int) { s.served.remove(entryOf(i + 1)) })
	run("cease to serve a series", func(i int) { s.served.remove(entryOf(i)) }, func(i int) { s.served.add(entryOf(i)) })
	run("subscribe", func(i int) { s.Subscribe(queries[i*7919%n], func() {})() }, nothing)
	shard := &s.served.series.shards[0]
	old := shard.slots.Load()
	slots := make([]slot, 2*len(*old))
	run("let a table of 100,000 series grow", func(int) { shard.move(slots) }, func(int) {
		shard.slots.Store(old)
		clear(slots)
	})
	run("remember that a pod is gone, a minute after 10,000", func(int) { s.pods.bury("shop", "last", clock.Now()) }, func(int) {
		for i := range 10_000 {
			s.pods.bury("shop", types.UID(fmt.Sprint(i)), clock.Now())
		}
		clock.SetTime(clock.Now().Add(2 * graveTime))
	})
	e := s.entry(new(appQuery(7)))
	run("drop a pod of 100 that is gone", func(i int) { e.forgetPod(pods[7][i%100].UID) }, func(int) { insert(e.query, pods[7]) })
	run("bar one of 10,000", func(i int) { s.Bar(queries[i%10_000].Series(), true) }, nothing)
}
