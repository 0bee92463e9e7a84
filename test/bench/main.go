// Command bench is `make performance`: it runs Kubetide as a pod of the lab, from the manifests that it ships with and built as
// users get it, puts the load of a large cluster on it, and prints what it took. The HPA controller is switched off; it would
// only be load. With -engine it is `make performance-engine`: thousands of IHPAs instead of HPAs, and with -stacksets
// `make performance-stacksets`; with -cluster it is `make performance-cluster`: three servers. With -write the figures go into docs/performance.md.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
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
	sizes      string
	interval   time.Duration
	latency    time.Duration
	duration   time.Duration
	changes    int
	direct     int
	aggregated int
	write      string
	profiles   string
	env        string
	engine     bool
	ihpas      int
	running    int
	rest       time.Duration
	stackSets  int
	cluster    bool
}

func main() {
	var o options
	flag.IntVar(&o.hpas, "hpas", 10_000, "HPAs, each with a query of its own")
	flag.StringVar(&o.sizes, "sizes", "100,1000", "fewer HPAs, `N,...` in rising order, with which reads are measured as well")
	flag.DurationVar(&o.interval, "interval", 15*time.Second, "their interval")
	flag.DurationVar(&o.latency, "latency", 5*time.Millisecond, "how long the source takes for each answer")
	flag.DurationVar(&o.duration, "duration", 45*time.Second, "how long each load lasts")
	flag.IntVar(&o.changes, "changes", 10, "objects changed each second: HPAs in the second load, IHPAs with -engine, StackSets with -stacksets")
	flag.IntVar(&o.direct, "direct", 1000, "reads a second, at Kubetide's own port")
	flag.IntVar(&o.aggregated, "aggregated", 300, "reads a second, through the API server")
	flag.StringVar(&o.write, "write", "", "the `file` that takes the figures, between its two markers")
	flag.StringVar(&o.profiles, "profiles", "", "the `folder` for CPU and heap profiles of Kubetide, taken during each load")
	flag.StringVar(&o.env, "env", "", "a variable for Kubetide's environment, `NAME=VALUE`, to try what it changes")
	flag.BoolVar(&o.engine, "engine", false, "measure the engine with IHPAs instead of the adapter with HPAs")
	flag.IntVar(&o.ihpas, "ihpas", 5000, "with -engine: IHPAs, each with a Deployment")
	flag.IntVar(&o.running, "running", 5000, "with -engine: Deployments that have a pod to begin with; those that follow metrics always have")
	flag.IntVar(&o.stackSets, "stacksets", 0, fmt.Sprintf("measure so many StackSets, with %d Stacks each, instead", stacksEach))
	flag.BoolVar(&o.cluster, "cluster", false, fmt.Sprintf("measure %d servers that share the collection of the HPAs' queries, then without sharing", servers))
	flag.DurationVar(&o.rest, "rest", time.Minute, "with -engine or -stacksets: how long nothing changes while writes are counted")
	flag.Parse()
	if o.ihpas < 20 {
		fmt.Fprintln(os.Stderr, "bench: -ihpas: must be at least 20, to have some of each kind")
		os.Exit(2)
	}
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
	install := e2e.InstallOptions{Progress: os.Stderr}
	if o.profiles != "" {
		install.Settings = "admin: {pprof: true}\n"
	}
	if name, value, ok := strings.Cut(o.env, "="); ok {
		install.Env = map[string]string{name: value}
	}
	if o.cluster {
		install.Replicas = servers
	}
	if err := e2e.Install(ctx, cluster, install); err != nil {
		return err
	}
	if o.cluster {
		text, err := runCluster(ctx, o, cluster)
		if err != nil {
			return withState(ctx, cluster, err)
		}
		return o.print("performance-cluster", text)
	}
	if o.stackSets > 0 {
		text, err := runStackSets(ctx, o, cluster)
		if err != nil {
			return withState(ctx, cluster, err)
		}
		return o.print("performance-stacksets", text)
	}
	if o.engine {
		text, err := runEngine(ctx, o, cluster)
		if err != nil {
			return withState(ctx, cluster, err)
		}
		return o.print("performance-engine", text)
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
	var figures report
	if err := w.loads(ctx, &figures, reads); err != nil {
		return withState(ctx, cluster, err)
	}
	return o.print("performance", figures.String())
}

func withState(ctx context.Context, cluster *lab.Lab, err error) error {
	state, _ := cluster.Kubectl(ctx, "-n", "kubetide-system", "get", "pods,events", "-o", "wide")
	logs, _ := cluster.Kubectl(ctx, "-n", "kubetide-system", "logs", "statefulset/kubetide", "--tail=60")
	return fmt.Errorf("%w\n%s\n%s", err, state, logs)
}

// print puts the figures out, and into the file between the markers of the target.
func (o *options) print(target, text string) error {
	fmt.Print(text)
	if o.write == "" {
		return nil
	}
	return writeBetweenMarkers(o.write, target, text)
}

// loads grows the cluster to each size, and measures reads there; the collection at the last one.
func (w *workload) loads(ctx context.Context, r *report, reads *reader) error {
	var sizes []int
	for text := range strings.SplitSeq(w.sizes, ",") {
		if text == "" {
			continue
		}
		n, err := strconv.Atoi(text)
		if err != nil || n <= 0 {
			return fmt.Errorf("-sizes: %q is no number of HPAs", text)
		}
		if n < w.hpas {
			sizes = append(sizes, n)
		}
	}
	slices.Sort(sizes)
	tables := readTables{}
	for _, n := range append(sizes, w.hpas) {
		if err := w.grow(ctx, n); err != nil {
			return err
		}
		began := time.Now()
		if err := w.warm(ctx, reads); err != nil {
			return err
		}
		say("all metrics have a value %s after the last HPA was created", time.Since(began).Round(time.Millisecond))
		// One interval for the queries to spread out.
		if err := pause(ctx, w.interval); err != nil {
			return err
		}
		if err := w.reads(ctx, tables, reads); err != nil {
			return err
		}
	}
	if err := w.collection(ctx, r, reads); err != nil {
		return err
	}
	if err := w.churn(ctx, r, reads); err != nil {
		return err
	}
	tables.print(r)
	return nil
}

func writeBetweenMarkers(file, target, text string) error {
	beginMarker, endMarker := "<!-- begin: make "+target+" -->\n", "<!-- end: make "+target+" -->\n"
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

// kubetidePod is a pod of the server.
func kubetidePod(ctx context.Context, cluster *lab.Lab) (*podAddress, error) {
	pods, err := kubetidePods(ctx, cluster)
	if err != nil {
		return nil, err
	}
	if len(pods) == 0 {
		return nil, fmt.Errorf("no pod of kubetide has an address")
	}
	return &pods[0], nil
}

func kubetidePods(ctx context.Context, cluster *lab.Lab) (addresses []podAddress, err error) {
	pods, err := cluster.Client().CoreV1().Pods("kubetide-system").List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=kubetide"})
	if err != nil {
		return nil, err
	}
	for i := range pods.Items {
		if p := &pods.Items[i]; p.DeletionTimestamp == nil && p.Status.PodIP != "" {
			addresses = append(addresses, podAddress{Name: p.Name, IP: p.Status.PodIP})
		}
	}
	return addresses, nil
}

type podAddress struct{ Name, IP string }
