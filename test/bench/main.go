// Command bench is `make performance`: it runs Kubetide as a pod of the lab, from the manifests that it ships with and built as
// users get it, puts the load of a large cluster on it, and prints what it took. The HPA controller is switched off; it would
// only be load. With -write the figures go into docs/performance.md.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/kubetide/kubetide/test/e2e"
	"github.com/kubetide/kubetide/test/lab"
)

type options struct {
	hpas       int
	interval   time.Duration
	latency    time.Duration
	duration   time.Duration
	changes    int
	direct     int
	aggregated int
	write      string
}

func main() {
	var o options
	flag.IntVar(&o.hpas, "hpas", 10_000, "HPAs, each with a query of its own")
	flag.DurationVar(&o.interval, "interval", 15*time.Second, "their interval")
	flag.DurationVar(&o.latency, "latency", 5*time.Millisecond, "how long the source takes for each answer")
	flag.DurationVar(&o.duration, "duration", time.Minute, "how long each load lasts")
	flag.IntVar(&o.changes, "changes", 10, "HPAs changed each second in the second load")
	flag.IntVar(&o.direct, "direct", 1000, "reads a second, at Kubetide's own port")
	flag.IntVar(&o.aggregated, "aggregated", 300, "reads a second, through the API server")
	flag.StringVar(&o.write, "write", "", "the `file` that takes the figures, between its two markers")
	flag.Parse()
	lab.Enter(os.Stderr)
	ctrl.SetLogger(logr.Discard())
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench: "+err.Error())
		os.Exit(1)
	}
}

func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...)
}

func run(ctx context.Context, o options) error {
	cluster, err := lab.Start(ctx, lab.Options{
		Progress: os.Stderr, ControllerManagerArgs: []string{"--controllers=*,-horizontal-pod-autoscaler-controller"},
	})
	if err != nil {
		return err
	}
	defer cluster.Stop()
	if err := e2e.Install(ctx, cluster, e2e.InstallOptions{Progress: os.Stderr}); err != nil {
		return err
	}
	source, err := startSource(o.latency)
	if err != nil {
		return err
	}
	defer source.stop()
	w := &workload{options: o, cluster: cluster, source: source, client: cluster.Client()}
	if err := w.create(ctx); err != nil {
		return err
	}
	reads, err := newReader(ctx, cluster)
	if err != nil {
		return err
	}

	var report report
	if err := w.collection(ctx, &report, reads); err != nil {
		return err
	}
	if err := w.churn(ctx, &report, reads); err != nil {
		return err
	}
	if err := w.reads(ctx, &report, reads); err != nil {
		return err
	}
	text := report.String()
	fmt.Print(text)
	if o.write != "" {
		return writeBetweenMarkers(o.write, text)
	}
	return nil
}

// report is a list of tables.
type report struct{ text strings.Builder }

func (r *report) table(title string, rows ...[2]string) {
	fmt.Fprintf(&r.text, "### %s\n\n| | |\n|---|---|\n", title)
	for _, row := range rows {
		fmt.Fprintf(&r.text, "| %s | %s |\n", row[0], row[1])
	}
	r.text.WriteByte('\n')
}

func (r *report) String() string {
	return fmt.Sprintf("Measured on %s, %d cores of %s, which the load generator, the source, the control plane and Kubetide shared.\n\n%s",
		time.Now().UTC().Format(time.DateOnly), runtime.NumCPU(), processor(), r.text.String())
}

func processor() string {
	info, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(info)) {
		if name, ok := strings.CutPrefix(line, "model name"); ok {
			return strings.TrimSpace(strings.TrimLeft(name, "\t :"))
		}
	}
	return runtime.GOARCH
}

const beginMarker, endMarker = "<!-- begin: make performance -->\n", "<!-- end: make performance -->\n"

func writeBetweenMarkers(file, text string) error {
	content, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	before, rest, ok := bytes.Cut(content, []byte(beginMarker))
	_, after, ok2 := bytes.Cut(rest, []byte(endMarker))
	if !ok || !ok2 {
		return fmt.Errorf("%s lacks the markers %q and %q", file, beginMarker, endMarker)
	}
	return os.WriteFile(file, slices.Concat(before, []byte(beginMarker+text+endMarker), after), 0o644)
}

// usage is what the processes took during a load.
type usage struct {
	cluster *lab.Lab
	began   time.Time
	before  map[string]time.Duration
}

func (w *workload) measure() (*usage, error) {
	before, err := w.cluster.CPU()
	return &usage{cluster: w.cluster, began: time.Now(), before: before}, err
}

// rows are the processor use by program, in percent of one core, and Kubetide's memory.
func (u *usage) rows(ctx context.Context) ([][2]string, error) {
	after, err := u.cluster.CPU()
	if err != nil {
		return nil, err
	}
	took := time.Since(u.began)
	var rows [][2]string
	for _, name := range []string{"kubetide", "kube-apiserver", "etcd", "kube-controller-manager", "bench"} {
		rows = append(rows, [2]string{"processor, " + name, fmt.Sprintf("%.0f %% of a core", 100*(after[name]-u.before[name]).Seconds()/took.Seconds())})
	}
	memory, err := memoryOf(ctx, u.cluster)
	if err != nil {
		return nil, err
	}
	return append(rows, [2]string{"memory of kubetide", memory}), nil
}

func memoryOf(ctx context.Context, cluster *lab.Lab) (string, error) {
	pod, err := kubetidePod(ctx, cluster)
	if err != nil {
		return "", err
	}
	pid, err := cluster.PodPID("kubetide-system", pod.Name)
	if err != nil {
		return "", err
	}
	status, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		return "", err
	}
	var rss, peak string
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		kib, _ := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(value), " kB"))
		switch name {
		case "VmRSS":
			rss = fmt.Sprintf("%d MiB", kib>>10)
		case "VmHWM":
			peak = fmt.Sprintf("%d MiB", kib>>10)
		}
	}
	return fmt.Sprintf("%s resident, %s at its peak", rss, peak), nil
}

func kubetidePod(ctx context.Context, cluster *lab.Lab) (*podAddress, error) {
	pods, err := cluster.Client().CoreV1().Pods("kubetide-system").List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=kubetide"})
	if err != nil {
		return nil, err
	}
	for i := range pods.Items {
		if p := &pods.Items[i]; p.DeletionTimestamp == nil && p.Status.PodIP != "" {
			return &podAddress{Name: p.Name, IP: p.Status.PodIP}, nil
		}
	}
	return nil, fmt.Errorf("no pod of kubetide has an address")
}

type podAddress struct{ Name, IP string }
