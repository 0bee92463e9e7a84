package replication

import (
	"encoding/json"
	"fmt"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubetide/kubetide/internal/sample"
)

// pods is an answer with a thousand points.
func pods() Sample {
	s := Sample{Collector: "kubetide-0-abcdefg"}
	for i := range 1000 {
		s.Points = append(s.Points, sample.Point{
			Pod: fmt.Sprintf("cart-7d4b9c6f5-%05d", i), UID: types.UID(fmt.Sprintf("0f8fad5b-d9cb-469f-a165-7086772%05d", i)), Milli: int64(i) * 1000,
			Labels: labels.Set{"app": "cart", "pod-template-hash": "7d4b9c6f5", "team": "checkout", "application": "shop"},
		})
	}
	return s
}

func BenchmarkEncode(b *testing.B) {
	one := Sample{Collector: "kubetide-0-abcdefg", Result: sample.Result{Points: []sample.Point{{Milli: 5000}}}}
	for name, s := range map[string]Sample{"1 value": one, "1000 pods": pods()} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			var size int
			for b.Loop() {
				size = len(appendSample(nil, queryID{}, &s))
			}
			b.ReportMetric(float64(size), "B")
		})
		b.Run(name+" as JSON", func(b *testing.B) {
			b.ReportAllocs()
			var size int
			for b.Loop() {
				text, _ := json.Marshal(s.Points)
				size = len(text)
			}
			b.ReportMetric(float64(size), "B")
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	one := Sample{Collector: "kubetide-0-abcdefg", Result: sample.Result{Points: []sample.Point{{Milli: 5000}}}}
	for name, s := range map[string]Sample{"1 value": one, "1000 pods": pods()} {
		text := string(appendSample(nil, queryID{}, &s)[10:])
		asJSON, _ := json.Marshal(s.Points)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := decodeSample(text); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+" as JSON", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				var points []sample.Point
				if err := json.Unmarshal(asJSON, &points); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkPublish sends 10,000 samples to 4 nodes, as evenly as they come in 15 s, and measures the CPU time of all five nodes together:
// what one of them spends on sending, and four on receiving.
func BenchmarkPublish(b *testing.B) {
	const queries, over = 10_000, 15 * time.Second
	var came atomic.Int64
	nodes := clusterWith(b, usual, 5, func(i int, o *Options) {
		o.Deliver = func(Sample, bool) { came.Add(1) }
		o.Lookup = func(sample.Query) (Sample, bool) { return Sample{}, false }
	})
	for _, n := range nodes {
		for i := range queries {
			n.Add(ask(i))
		}
	}
	eventually(b, "all are connected", func() bool { return connected(nodes...) })
	for b.Loop() {
		before, began := used(b), time.Now()
		for i := range queries {
			if behind := time.Duration(i)*over/queries - time.Since(began); behind > 5*time.Millisecond {
				time.Sleep(behind)
			}
			nodes[0].Publish(Sample{Collector: "node-0", Result: sample.Result{Query: ask(i), Taken: time.Now(), Points: []sample.Point{{Milli: int64(i)}}}})
		}
		eventually(b, "all have come", func() bool { return came.Load() >= 4*queries })
		b.ReportMetric(100*(used(b)-before).Seconds()/time.Since(began).Seconds(), "%core")
		came.Store(0)
	}
}

// used is the CPU time of this process.
func used(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
