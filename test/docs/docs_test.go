// Package docs holds pages of the documentation to the code: what they name must exist, and what exists must be named.
package docs

import (
	"context"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
	runtimemetrics "sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/kubetide/kubetide/adapter"
	"github.com/kubetide/kubetide/adapter/cluster"
	"github.com/kubetide/kubetide/adapter/cluster/clustertest"
	"github.com/kubetide/kubetide/adapter/cluster/membership"
	"github.com/kubetide/kubetide/adapter/metricsapi"
	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	"github.com/kubetide/kubetide/internal/outbound"
	_ "github.com/kubetide/kubetide/scaler/gate"
	_ "github.com/kubetide/kubetide/scaler/ihpa"
	_ "github.com/kubetide/kubetide/workloads/stackset"
	_ "github.com/kubetide/kubetide/workloads/step"
)

const root = "../.."

func page(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "docs", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// rows returns the cells of a page's table rows that begin with the prefix.
func rows(text, prefix string) [][]string {
	var out [][]string
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "| "+prefix) {
			continue
		}
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		out = append(out, cells)
	}
	return out
}

// metric is what a page or the registry says of one.
type metric struct {
	labels string
	help   string
	kind   string
}

var description = regexp.MustCompile(`^Desc\{fqName: "([^"]*)", help: ("(?:[^"\\]|\\.)*"),.* constLabels: \{\}, variableLabels: \{([^}]*)\}\}$`)

// own are Kubetide's metrics, those by stackset-controller's names among them.
var own = regexp.MustCompile(`fqName: "(kubetide|stackset)_`)

// registered are Kubetide's own metrics by name.
func registered(t *testing.T) map[string]metric {
	t.Helper()
	registry := prometheus.NewRegistry()
	outbound.NewMetrics(registry)
	metricsapi.NewProvider(nil, nil, clock.RealClock{}, registry)
	if _, err := adapter.New(adapter.Options{Config: &rest.Config{Host: "https://127.0.0.1:1"}, Registerer: registry, Log: logr.Discard()}); err != nil {
		t.Fatal(err)
	}
	node, err := membership.New(membership.Options{
		Transport: clustertest.New(1).Transport(netip.MustParseAddrPort("10.0.0.1:8003")), RejoinInterval: time.Minute, SuspectAfter: time.Minute,
		Registerer: registry, Log: logr.Discard(),
	})
	if err != nil {
		t.Fatal(err)
	}
	cluster.New(cluster.Options{Membership: node, Registerer: registry, Log: logr.Discard()})
	ended, end := context.WithCancel(t.Context())
	end()
	if err := node.Run(ended); err != nil {
		t.Fatal(err)
	}
	out := map[string]metric{}
	for _, r := range []prometheus.Collector{registry, runtimemetrics.Registry.(prometheus.Collector)} {
		descs := make(chan *prometheus.Desc)
		go func() { defer close(descs); r.Describe(descs) }()
		for d := range descs {
			if !own.MatchString(d.String()) {
				continue
			}
			parts := description.FindStringSubmatch(d.String())
			if parts == nil {
				t.Fatalf("%s cannot be read", d)
			}
			help, err := strconv.Unquote(parts[2])
			if err != nil {
				t.Fatal(err)
			}
			labels := strings.Split(parts[3], ",")
			slices.Sort(labels)
			out[parts[1]] = metric{labels: strings.Join(labels, ","), help: help}
		}
	}
	return out
}

func TestThePageOfMetricsIsTrue(t *testing.T) {
	names := regexp.MustCompile("`([^`]*)`")
	documented := map[string]metric{}
	text := page(t, "metrics.md")
	for _, cells := range append(rows(text, "`kubetide_"), rows(text, "`stackset_")...) {
		var labels []string
		for _, l := range names.FindAllStringSubmatch(cells[2], -1) {
			labels = append(labels, l[1])
		}
		slices.Sort(labels)
		documented[strings.Trim(cells[0], "`")] = metric{labels: strings.Join(labels, ","), kind: cells[1]}
	}
	found := registered(t)
	labels := func(all map[string]metric) map[string]string {
		out := map[string]string{}
		for name, m := range all {
			out[name] = m.labels
		}
		return out
	}
	if diff := cmp.Diff(labels(found), labels(documented)); diff != "" {
		t.Errorf("labels by metric (-registered +documented):\n%s", diff)
	}
	if len(found) < 15 {
		t.Errorf("only %d metrics were found", len(found))
	}

	// The rules of Prometheus for names and help texts.
	var families []*dto.MetricFamily
	for _, name := range slices.Sorted(maps.Keys(found)) {
		help, kind := found[name].help, dto.MetricType(dto.MetricType_value[strings.ToUpper(documented[name].kind)])
		families = append(families, &dto.MetricFamily{Name: &name, Help: &help, Type: &kind})
		for _, l := range strings.Split(found[name].labels, ",") {
			if l != "" && !strings.Contains(help[strings.LastIndex(help, "Labeled by")+1:], l) {
				t.Errorf("%s: its help does not say that it is labeled by %s", name, l)
			}
		}
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if !strings.HasPrefix(p.Metric, "stackset_errors_") { // these names are upstream's
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
}

// tests are the test functions of a directory, and the strings in its test files.
type tests struct {
	functions map[string]bool
	literals  map[string]bool
}

func testsIn(t *testing.T, dir string) tests {
	t.Helper()
	out := tests{functions: map[string]bool{}, literals: map[string]bool{}}
	files, err := filepath.Glob(filepath.Join(root, dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range parsed.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil {
				out.functions[f.Name.Name] = true
			}
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING {
				if text, err := strconv.Unquote(l.Value); err == nil {
					out.literals[text] = true
				}
			}
			return true
		})
	}
	return out
}

var (
	namedTest = regexp.MustCompile("`([a-z0-9/]+)\\.((?:Test|Fuzz)[A-Za-z0-9]+)`((?: \"[^\"]+\")*)")
	quoted    = regexp.MustCompile(`"([^"]+)"`)
)

// testsAreThere checks the tests that a page's table names in the column: in each of its rows, which count the prefix up from 1.
func testsAreThere(t *testing.T, name, prefix string, column, count int) {
	t.Helper()
	known := map[string]tests{}
	all := rows(page(t, name), prefix)
	for i, cells := range all {
		if want := fmt.Sprint(prefix, i+1); cells[0] != want {
			t.Errorf("row %s stands where %s belongs", cells[0], want)
		}
		testsOfRow(t, known, cells, column)
	}
	if len(all) != count {
		t.Errorf("%d rows, want %d", len(all), count)
	}
}

// testsOfRow checks the tests that the row names in the column. known is what has been read so far.
func testsOfRow(t *testing.T, known map[string]tests, cells []string, column int) {
	t.Helper()
	if len(cells) <= column {
		t.Errorf("row %s has %d cells only", cells[0], len(cells))
		return
	}
	found := namedTest.FindAllStringSubmatch(cells[column], -1)
	if len(found) == 0 || len(found) != strings.Count(cells[column], ".Test")+strings.Count(cells[column], ".Fuzz") {
		t.Errorf("%s has no test, or one that cannot be read: %s", cells[0], cells[column])
	}
	for _, f := range found {
		dir, function := f[1], f[2]
		in, ok := known[dir]
		if !ok {
			in = testsIn(t, dir)
			known[dir] = in
		}
		if !in.functions[function] {
			t.Errorf("%s: there is no test %s in %s", cells[0], function, dir)
		}
		for _, r := range quoted.FindAllStringSubmatch(f[3], -1) {
			if !in.literals[r[1]] {
				t.Errorf("%s: the tests of %s have no row %q", cells[0], dir, r[1])
			}
		}
	}
}

func TestEachDefectHasATestThatExists(t *testing.T) { testsAreThere(t, "defects.md", "D", 3, 39) }

func TestEachDefectOfKapacityHasATestThatExists(t *testing.T) {
	testsAreThere(t, "defects-of-kapacity.md", "B", 3, 23)
}

func TestEachThreatHasATestThatExists(t *testing.T) { testsAreThere(t, "security.md", "S", 3, 37) }

// casesOfKapacity are the first cells of that page's rows, in their order: each case of Kapacity's has one.
func casesOfKapacity() (out []string) {
	count := func(prefix string, from, to int) {
		for i := from; i <= to; i++ {
			out = append(out, fmt.Sprint(prefix, i))
		}
	}
	count("", 1, 35)
	for c := 'A'; c <= 'W'; c++ {
		out = append(out, string(c))
	}
	count("W", 1, 22)
	count("merge ", 1, 9)
	count("interruption ", 1, 7)
	return append(out, "Both", "Up", "Down", "Neither", "StatefulSet", "ReplicaSet", "External",
		kapacity.ReasonSucceededAutoscaling, kapacity.ReasonScalingPaused, kapacity.ReasonNoValidPortraitValue, kapacity.ReasonFailedUpdateAndFetchPortraitValue,
		kapacity.ReasonFailedGetReplicaProfile, kapacity.ReasonFailedCreateReplicaProfile, kapacity.ReasonFailedUpdateReplicaProfile, kapacity.ReasonFailedDeleteReplicaProfile,
		kapacity.ReasonDesiredWithinRange, kapacity.ReasonTooFewReplicas, kapacity.ReasonTooManyReplicas,
		kapacity.ReasonReplicasMatchPortrait, kapacity.ReasonReplicasNotMatchPortrait,
		kapacity.ReasonReplicaProfileApplied, kapacity.ReasonStateChangeSkipped, kapacity.ReasonReplicaProfilePaused, kapacity.ReasonFailedGetWorkload,
		kapacity.ReasonPodSorterNotSupportedByWorkload, kapacity.ReasonFailedGetPodSorter, kapacity.ReasonFailedGetPodTrafficController, kapacity.ReasonFailedCalculateStateChange,
		kapacity.ReasonFailedOnlinePods, kapacity.ReasonFailedCutoffPods, kapacity.ReasonFailedSetPodState, kapacity.ReasonFailedSelectPodsToDelete, kapacity.ReasonFailedUpdateScale,
		kapacity.ReasonReplicaProfileEnsured, kapacity.ReasonReplicaNumberNotSatisfied, kapacity.ReasonFailedGetScale, kapacity.ReasonInvalidSelector, kapacity.ReasonFailedListPods,
		kapacity.ReasonSucceededGeneratePortrait, kapacity.ReasonFailedGeneratePortrait, kapacity.ReasonFailedGetPortraitGenerator,
		kapacity.ReasonFailedReconcileExternalAlgorithmJob, kapacity.ReasonFailedFetchExternalAlgorithmJobResult, kapacity.ReasonFailedCleanupExternalAlgorithmJob,
		kapacity.EventCreateReplicaProfile, kapacity.EventUpdateReplicaProfile, kapacity.EventOnlinePods, kapacity.EventCutoffPods, kapacity.EventStandbyPods,
		kapacity.EventSelectPodsToDelete, kapacity.EventUpdateScale, "before the write")
}

// What a gray run orders when, as `10: 3/2/0, 40: 1/4/0`.
var timeline = regexp.MustCompile("^`([0-9:/, ]+)`$")

func TestEachCaseOfKapacityHasATestThatExists(t *testing.T) {
	known := map[string]tests{}
	var got []string
	for _, cells := range rows(page(t, "cases-of-kapacity.md"), "") {
		if cells[0] == "" { // the head of a table
			continue
		}
		got = append(got, cells[0])
		testsOfRow(t, known, cells, 3)
		if run := timeline.FindStringSubmatch(cells[2]); run != nil && !known["scaler/gray"].literals[run[1]] {
			t.Errorf("%s: no test of scaler/gray expects %s", cells[0], run[1])
		} else if id := cells[0]; run == nil && len(id) == 1 && id >= "A" {
			t.Errorf("%s: what is ordered cannot be read: %s", id, cells[2])
		}
	}
	if diff := cmp.Diff(casesOfKapacity(), got); diff != "" {
		t.Errorf("rows (-want +documented):\n%s", diff)
	}
}

// factsOfTheHPA are the numbers of the facts, each of which has a row on that page.
const factsOfTheHPA = "1 2 3 4a 4b 5 6 7 8a 8b 9 10a 10b 10c 10d 10e 11 12 13 14 15 16 17 18a 18b 19a 19b 19c 20a 20b 21a 21b 21c 22a 22b 22c 23a 23b 24 25a 25b " +
	"26a 26b 26c 26d 27a 27b 27c 27d 28a 28b 29a 29b 30a 30b 31a 31b 32a 32b 33 34a 34b 34c 34d 35a 35b 35c 36a 36b 37a 37b 37c 38a 38b 38c 38d 38e 39a 39b 40"

func TestEachFactOfTheHPAHasATestThatExists(t *testing.T) {
	known := map[string]tests{}
	var got []string
	for _, cells := range rows(page(t, "facts-of-the-hpa.md"), "") {
		if cells[0] != "" {
			got = append(got, cells[0])
			testsOfRow(t, known, cells, 1)
		}
	}
	if diff := cmp.Diff(strings.Fields(factsOfTheHPA), got); diff != "" {
		t.Errorf("rows (-want +documented):\n%s", diff)
	}
}
