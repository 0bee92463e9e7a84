package store

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"github.com/kubetide/kubetide/internal/sample"
)

// filled returns a store with n external series (one metric name in every namespace of 100 series), and with 100 apps of
// 100 pods in the namespace "shop".
func filled(n int) (*Store, []sample.Query) {
	s := New(clock.RealClock{}, 0)
	queries := make([]sample.Query, 0, n)
	for i := range n {
		q := sample.Query{Kind: sample.External, Namespace: fmt.Sprintf("ns-%d", i/100), Metric: "queue-length",
			Selector: fmt.Sprintf("queue-name=q%d,type=sqs-queue-length", i), Collector: "sqs-queue-length",
			Settings: fmt.Sprintf(`{"queue-name":"q%d","region":"eu-central-1"}`, i), Interval: time.Hour}
		s.Add(q, true)
		s.Insert(sample.Result{Query: q, Taken: time.Now(), Points: []sample.Point{{Milli: int64(i)}}})
		queries = append(queries, q)
	}
	for app := range 100 {
		q := appQuery(app)
		s.Add(q, true)
		s.Insert(sample.Result{Query: q, Taken: time.Now(), Points: appPoints(app)})
	}
	return s, queries
}

func appQuery(app int) sample.Query {
	return sample.Query{Kind: sample.Pods, Namespace: "shop", Metric: "requests-per-second", Collector: "json-path",
		Settings: `{"json-key":"$.rps","path":"/metrics","port":"9090"}`, Interval: time.Hour,
		Target: sample.ObjectRef{Group: "apps", Kind: "Deployment", Name: fmt.Sprintf("app-%d", app)}}
}

func appPoints(app int) []sample.Point {
	points := make([]sample.Point, 100)
	for i := range points {
		name := fmt.Sprintf("app-%d-6d4f9c8b7-%05d", app, i)
		points[i] = sample.Point{Pod: name, UID: types.UID("b6f0a1de-0000-4000-8000-" + name), Milli: int64(i),
			Labels: labels.Set{"app": fmt.Sprintf("app-%d", app), "pod-template-hash": "6d4f9c8b7", "half": fmt.Sprint(i % 2)}}
	}
	return points
}

// threadTime returns the CPU time of the calling thread in nanoseconds, which does not depend on what else the machine does.
func threadTime(b *testing.B) int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		b.Fatal(err)
	}
	return ts.Nano()
}

// cpu reports the CPU time of the benchmark's thread.
func cpu(b *testing.B) (stop func()) {
	runtime.LockOSThread()
	begin := threadTime(b)
	return func() {
		b.ReportMetric(float64(threadTime(b)-begin)/float64(b.N), "cpu-ns/op")
		runtime.UnlockOSThread()
	}
}

// wide returns a store with n external series: each of the 100 queries in each of the namespaces. What requests and results
// are made of lies close together, because in life it has just been read: it is in the cache, and the store is not.
func wide(n int) (s *Store, namespaces []string, queries []sample.Query) {
	s = New(clock.RealClock{}, 0)
	var text strings.Builder
	for i := range n / 100 {
		fmt.Fprintf(&text, "ns-%d ", i)
	}
	namespaces = strings.Fields(text.String())
	for i := range 100 {
		queries = append(queries, sample.Query{Kind: sample.External, Metric: "queue-length", Collector: "sqs-queue-length", Interval: time.Hour,
			Selector: fmt.Sprintf("queue-name=q%d,type=sqs-queue-length", i), Settings: fmt.Sprintf(`{"queue-name":"q%d","region":"eu-central-1"}`, i)})
	}
	for _, namespace := range namespaces {
		for _, q := range queries {
			q.Namespace = namespace
			s.Add(q, true)
			s.Insert(sample.Result{Query: q, Taken: time.Now(), Points: []sample.Point{{Milli: 1}}})
		}
	}
	return s, namespaces, queries
}

// The series are asked for in turn, so they are in main memory.
func BenchmarkExternalExact(b *testing.B) {
	for _, n := range []int{1_000, 10_000, 100_000} {
		b.Run(fmt.Sprintf("series=%d", n), func(b *testing.B) {
			s, namespaces, queries := wide(n)
			selectors := make([]labels.Selector, len(queries))
			for i := range queries {
				selectors[i], _ = labels.Parse(queries[i].Selector)
			}
			b.ReportAllocs()
			i := 0
			defer cpu(b)()
			for b.Loop() {
				got, err := s.External(namespaces[i%len(namespaces)], "queue-length", selectors[i/len(namespaces)])
				if err != nil || got[0].Answer.State != sample.Fresh {
					b.Fatal(err)
				}
				i = (i + 7919) % n
			}
		})
	}
}

func BenchmarkAnswer(b *testing.B) {
	s, queries := filled(100_000)
	b.ReportAllocs()
	i := 0
	defer cpu(b)()
	for b.Loop() {
		if s.Answer(queries[i]).State != sample.Fresh {
			b.Fatal("no value")
		}
		i = (i + 7919) % len(queries)
	}
}

func BenchmarkExternalSubset(b *testing.B) {
	s, _ := filled(100_000)
	selector, _ := labels.Parse("type=sqs-queue-length")
	b.ReportAllocs()
	defer cpu(b)()
	for b.Loop() {
		if got, err := s.External("ns-7", "queue-length", selector); err != nil || len(got) != 100 {
			b.Fatal(len(got), err)
		}
	}
}

func BenchmarkPodsBySelector(b *testing.B) {
	s, _ := filled(100_000)
	target, _ := labels.Parse("app=app-7")
	byLabels, _ := labels.Parse("app=app-7,pod-template-hash!=other,version!=2")
	half, _ := labels.Parse("app=app-7,half=1,version!=2")
	for name, selector := range map[string]labels.Selector{"target": target, "labels": byLabels, "half of the target": half} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			defer cpu(b)()
			for b.Loop() {
				if got, err := s.Pods("shop", "requests-per-second", selector, nil); err != nil || len(got[0].Answer.Points) < 50 {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("target, first time", func(b *testing.B) {
		m := s.served.metric(sample.Pods, "shop", "requests-per-second")
		defer cpu(b)()
		for b.Loop() {
			m.shape.Add(1)
			if _, err := s.Pods("shop", "requests-per-second", target, nil); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkPodByName(b *testing.B) {
	s, _ := filled(100_000)
	defer cpu(b)()
	for b.Loop() {
		if _, err := s.Pod("shop", "requests-per-second", "app-7-6d4f9c8b7-00042", nil); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkInsert(b *testing.B) {
	b.Run("external", func(b *testing.B) {
		const n = 100_000
		s, namespaces, queries := wide(n)
		b.ReportAllocs()
		i := 0
		defer cpu(b)()
		for b.Loop() {
			q := queries[i/len(namespaces)]
			q.Namespace = namespaces[i%len(namespaces)]
			if !s.Insert(sample.Result{Query: q, Taken: time.Now(), Points: []sample.Point{{Milli: 5}}}) {
				b.Fatal("refused")
			}
			i = (i + 7919) % n
		}
	})
	s, queries := filled(100_000)
	b.Run("external, its query in main memory too", func(b *testing.B) {
		b.ReportAllocs()
		i := 0
		defer cpu(b)()
		for b.Loop() {
			s.Insert(sample.Result{Query: queries[i], Taken: time.Now(), Points: []sample.Point{{Milli: 5}}})
			i = (i + 7919) % len(queries)
		}
	})
	b.Run("one pod", func(b *testing.B) {
		b.ReportAllocs()
		q := appQuery(7)
		points := appPoints(7)[:1]
		defer cpu(b)()
		for b.Loop() {
			s.Insert(sample.Result{Query: q, Taken: time.Now(), Points: points})
		}
	})
	b.Run("100 pods", func(b *testing.B) {
		b.ReportAllocs()
		q := appQuery(7)
		points := appPoints(7)
		defer cpu(b)()
		for b.Loop() {
			s.Insert(sample.Result{Query: q, Taken: time.Now(), Points: points})
		}
	})
}

func BenchmarkForgetPod(b *testing.B) {
	s, _ := filled(100_000)
	i := 0
	defer cpu(b)()
	for b.Loop() {
		s.ForgetPod("shop", types.UID(fmt.Sprint(i)))
		i++
	}
}

// How long a reader waits while every kind of write goes on: inserts, series that come and go, pods that go, scans.
func BenchmarkReadersUnderWriters(b *testing.B) {
	const n = 100_000
	s, queries := filled(n)
	selectors := make([]labels.Selector, n)
	for i := range selectors {
		selectors[i], _ = labels.Parse(queries[i].Selector)
	}
	stop := make(chan struct{})
	var writers sync.WaitGroup
	pace := func(every time.Duration, f func(i int)) {
		writers.Go(func() {
			ticker := time.NewTicker(every)
			defer ticker.Stop()
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				case <-ticker.C:
					f(i)
				}
			}
		})
	}
	pace(time.Millisecond, func(i int) { // every series once in 15 s
		for j := range n / 15_000 {
			q := queries[(i*7+j)%n]
			s.Insert(sample.Result{Query: q, Taken: time.Now(), Points: []sample.Point{{Milli: 5}}})
		}
	})
	pace(10*time.Millisecond, func(i int) {
		q := queries[i*7919%n]
		s.Forget(q)
		s.Add(q, true)
		s.Insert(sample.Result{Query: q, Taken: time.Now(), Points: []sample.Point{{Milli: 5}}})
	})
	pace(10*time.Millisecond, func(i int) { s.ForgetPod("shop", types.UID(fmt.Sprint(i))) })
	pace(50*time.Millisecond, func(int) { s.Each(func(sample.Query, sample.Answer) {}) })
	took := make([]time.Duration, 0, b.N)
	i := 0
	for b.Loop() {
		begin := time.Now()
		_, _ = s.External(queries[i].Namespace, "queue-length", selectors[i])
		took = append(took, time.Since(begin))
		i = (i + 7919) % n
	}
	close(stop)
	writers.Wait()
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Nanoseconds()), "p50-ns")
	b.ReportMetric(float64(took[len(took)*99/100].Nanoseconds()), "p99-ns")
	b.ReportMetric(float64(took[len(took)*9999/10000].Nanoseconds()), "p99.99-ns")
}
