package adapter

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"github.com/kubetide/kubetide/adapter/collection"
	"github.com/kubetide/kubetide/adapter/store"
	"github.com/kubetide/kubetide/collectors"
	"github.com/kubetide/kubetide/collectors/podjson"
	"github.com/kubetide/kubetide/internal/outbound"
	"github.com/kubetide/kubetide/internal/sample"
)

const servePods = "KUBETIDE_BENCH_SERVE_PODS"

// TestMain is also the pods of the benchmark below: they run in a process of their own, so that they cost the adapter nothing.
func TestMain(m *testing.M) {
	if os.Getenv(servePods) == "" {
		os.Exit(m.Run())
	}
	listener, err := net.Listen("tcp", "0.0.0.0:0") // the pods have addresses 127.x.y.z
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	_ = http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"http_server": {"rps": 12.5, "name": "shop"}, "queue": [1, 2, 3]}`)
	}))
}

// onePodEach has a workload with one pod for every number below size, at an address of its own.
type onePodEach int

func (onePodEach) Scale(_ context.Context, _ string, target sample.ObjectRef) (collectors.Scale, error) {
	return collectors.Scale{Selector: labels.SelectorFromSet(labels.Set{"app": target.Name}), SpecReplicas: 1, StatusReplicas: 1}, nil
}

func (onePodEach) Pods(namespace string, selector labels.Selector) ([]*corev1.Pod, error) {
	app, _ := selector.RequiresExactMatch("app")
	var i int
	if _, err := fmt.Sscanf(app, "app-%d", &i); err != nil {
		return nil, err
	}
	return []*corev1.Pod{{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: app + "-x", UID: types.UID(app), Labels: map[string]string{"app": app}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIP: fmt.Sprintf("127.1.%d.%d", i/250, i%250+1),
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}},
	}}, nil
}

// BenchmarkTenThousandQueriesEvery15s asks 10,000 pods for JSON over HTTP, in real time. An operation is a round of 15 s.
// Promised: at most 100 %core, 512 RSS-MiB, and a p99 of the age at replacement of 16,000 ms.
func BenchmarkTenThousandQueriesEvery15s(b *testing.B) {
	const n, interval = 10_000, 15 * time.Second
	pods := exec.Command(os.Args[0])
	pods.Env, pods.Stderr = append(os.Environ(), servePods+"=1"), os.Stderr
	out, err := pods.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := pods.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() {
		_ = pods.Process.Kill()
		_ = pods.Wait()
	}()
	port, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}

	var mu sync.Mutex
	var ages []time.Duration
	failed := 0
	world, values := onePodEach(n), store.New(clock.RealClock{}, 0)
	registry := collectors.NewRegistry()
	source := podjson.New(world, world, outbound.New(outbound.Options{Policy: func(netip.AddrPort) error { return nil }}), clock.RealClock{})
	registry.Register(sample.Pods, source, podjson.Name)
	scheduler := collection.New(collection.Options{Registry: registry, Scales: world, Clock: clock.RealClock{}, Log: logr.Discard(),
		Insert: func(r sample.Result) bool {
			age := time.Since(values.Answer(r.Query).Taken)
			ok := values.Insert(r)
			mu.Lock()
			defer mu.Unlock()
			if ages = append(ages, age); r.Err != nil {
				failed++
			}
			return ok
		}})
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan struct{})
	go func() { defer close(done); scheduler.Run(ctx) }()
	for i := range n {
		q, err := source.Parse(collectors.Request{Kind: sample.Pods, Namespace: fmt.Sprint("ns-", i%200), Metric: "rps", Interval: interval,
			Target:   sample.ObjectRef{Group: "apps", Kind: "Deployment", Name: fmt.Sprint("app-", i)},
			Settings: sample.Settings{"json-key": "$.http_server.rps", "port": strings.TrimSpace(port)}})
		if err != nil {
			b.Fatal(err)
		}
		values.Add(q, true)
		scheduler.Add(q)
	}
	if err := scheduler.Warm(ctx); err != nil {
		b.Fatal(err)
	}
	time.Sleep(interval) // the phases have spread then
	debug.FreeOSMemory() // of the packages of the tests
	mu.Lock()
	ages, failed = nil, 0
	mu.Unlock()
	var before, after syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &before)
	began := time.Now()
	for b.Loop() {
		time.Sleep(interval)
	}
	took := time.Since(began)
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &after)
	resident := rss(b)
	cancel()
	<-done
	slices.Sort(ages)
	b.ReportMetric(float64(after.Utime.Nano()+after.Stime.Nano()-before.Utime.Nano()-before.Stime.Nano())/float64(took)*100, "%core")
	b.ReportMetric(resident, "RSS-MiB")
	b.ReportMetric(float64(len(ages))/float64(b.N), "collections/op")
	b.ReportMetric(float64(failed)/float64(b.N), "failures/op")
	b.ReportMetric(float64(ages[len(ages)*99/100].Milliseconds()), "p99-age-ms")
}

func rss(b *testing.B) float64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	var kib float64
	if _, err := fmt.Sscanf(rest, "%f kB", &kib); err != nil {
		b.Fatal(err)
	}
	return kib / 1024
}
