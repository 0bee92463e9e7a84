package e2e

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	zalando "github.com/kubetide/kubetide/api/zalando/v1"
)

var rewrite = flag.Bool("update", false, "write the golden files anew")

const goldens = "testdata/plugin"

// asked is one call of the plugin, and the golden file of its output.
type asked struct {
	file, args string
	// code is the exit code that is documented.
	code int
	// admin asks as the administrator, not as somebody with the role view in the namespace.
	admin bool
	// until ends what would go on, by Ctrl-C: once a line with this text was printed.
	until string
	// once is for what changes something.
	once bool
}

// The scene's namespace has one name in all runs, since the order of samples depends on it.
var calls = []asked{
	{file: "top", args: "top -n shop"},
	{file: "top-json", args: "top -n shop -o json"},
	{file: "top-yaml", args: "top -n shop -o yaml"},
	{file: "top-one", args: "top ihpa/cart -n shop"},
	{file: "top-one-json", args: "top hpa web -n shop -o json"},
	{file: "top-watch", args: "top -n shop --watch", until: "queue"},
	{file: "top-without-rights", args: "top -A", code: 1},
	{file: "top-absent", args: "top ihpa/none -n shop", code: 1},
	{file: "top-watch-json", args: "top -n shop --watch -o json", code: 2},

	{file: "explain", args: "explain ihpa/cart -n shop"},
	{file: "explain-json", args: "explain ihpa/cart -n shop -o json"},
	{file: "explain-yaml", args: "explain ihpa/cart -n shop -o yaml"},
	{file: "explain-metrics", args: "explain ihpa queue -n shop"},
	{file: "explain-absent", args: "explain ihpa/none -n shop", code: 1},
	{file: "explain-without-rights", args: "explain ihpa/cart -n kube-system", code: 1},
	{file: "explain-hpa", args: "explain hpa/web -n shop", code: 2},
	{file: "explain-nothing", args: "explain", code: 2},
	{file: "explain-format", args: "explain ihpa/cart -o markdown", code: 2},

	{file: "history", args: "history ihpa/cart -n shop --limit 1"},
	{file: "history-json", args: "history ihpa/cart -n shop --limit 1 -o json"},
	{file: "history-yaml", args: "history ihpa/cart -n shop --limit 1 -o yaml"},
	{file: "history-absent", args: "history ihpa/none -n shop", code: 1},
	{file: "history-limit", args: "history ihpa/cart --limit=few", code: 2},

	{file: "metrics-list", args: "metrics list -n shop"},
	{file: "metrics-list-json", args: "metrics list -n shop -o json"},
	{file: "metrics-list-yaml", args: "metrics list -n shop -o yaml"},
	{file: "metrics-list-hpa", args: "metrics list hpa/web -n shop"},
	{file: "metrics-list-absent", args: "metrics list hpa/none -n shop", code: 1},
	{file: "metrics-watch", args: "metrics watch hpa/web -n shop", until: "lost"},
	{file: "metrics-watch-interval", args: "metrics watch --interval 1ms", code: 2},
	{file: "metrics-query", args: "metrics query hpa/api -n shop", admin: true},
	{file: "metrics-query-json", args: "metrics query hpa/api -n shop -o json", admin: true},
	{file: "metrics-query-yaml", args: "metrics query hpa/api -n shop -o yaml", admin: true},
	{file: "metrics-query-failed", args: "metrics query hpa/web -n shop", admin: true, code: 1},
	{file: "metrics-query-ihpa", args: "metrics query ihpa/queue -n shop", admin: true, code: 2},
	{file: "metrics-query-without-rights", args: "metrics query hpa/web -n shop", code: 1},
	{file: "metrics-query-nothing", args: "metrics query", code: 2},

	{file: "doctor", args: "doctor -n shop", admin: true, code: 1},
	{file: "doctor-json", args: "doctor -n shop -o json", admin: true, code: 1},
	{file: "doctor-yaml", args: "doctor -n shop -o yaml", admin: true, code: 1},
	{file: "doctor-view", args: "doctor -n shop", code: 1},
	{file: "doctor-without-rights", args: "doctor -A", code: 1},
	{file: "doctor-well", args: "doctor -n kube-node-lease", admin: true},
	{file: "doctor-arguments", args: "doctor web", code: 2},

	{file: "get-stackset", args: "get stackset front -n shop"},
	{file: "get-stackset-json", args: "get stackset/front -n shop -o json"},
	{file: "get-stackset-yaml", args: "get stackset/front -n shop -o yaml"},
	{file: "get-stackset-watch", args: "get stackset front -n shop --watch", until: "front-v2"},
	{file: "get-absent", args: "get stackset none -n shop", code: 1},
	{file: "get-ihpa", args: "get ihpa/cart -n shop", code: 2},

	{file: "traffic", args: "traffic front -n shop"},
	{file: "traffic-json", args: "traffic front -n shop -o json"},
	{file: "traffic-yaml", args: "traffic front -n shop -o yaml"},
	{file: "traffic-refused", args: "traffic front v2 25 -n shop", code: 1},
	{file: "traffic-weight", args: "traffic front v2 many -n shop", code: 2},
	{file: "traffic-set", args: "traffic front v2 25 -n shop", admin: true, once: true},
	{file: "traffic-set-again", args: "traffic front v2 25 -n shop", admin: true},
	{file: "traffic-after", args: "traffic front -n shop"},
	{file: "get-stackset-after", args: "get stackset front -n shop"},

	{file: "completion", args: "completion"},
	{file: "complete-commands", args: "__complete "},
	{file: "complete-types", args: "__complete -n shop metrics list "},
	{file: "complete-names", args: "__complete -n shop top ihpa/"},
	{file: "complete-stacksets", args: "__complete -n shop traffic "},
	{file: "complete-flags", args: "__complete top --"},
	{file: "version", args: "version"},
	{file: "help", args: "help version"},
	{file: "no-such-command", args: "scale", code: 2},
	{file: "no-such-metrics-command", args: "metrics delete", code: 2},
}

// The output of each command, whole, on a scene that is always the same. -update writes it anew.
func TestThePluginsOutputIsGolden(t *testing.T) {
	t.Parallel()
	viewer := goldenScene(t)
	p := goldenPlugin{plugin(t), viewer}
	for _, c := range calls {
		t.Run(c.file, func(t *testing.T) {
			check := func() error { return p.compare(t.Context(), c) }
			if c.once {
				must(t, check())
				eventually(t, 60*time.Second, trafficMoved)
				return
			}
			eventually(t, 60*time.Second, check)
		})
	}
}

// trafficMoved is what a call that gives front-v2 25 % comes to.
func trafficMoved() error {
	stack := &zalando.Stack{}
	if err := api.Get(context.Background(), client.ObjectKey{Namespace: "shop", Name: "front-v2"}, stack); err != nil {
		return err
	}
	if got := stack.Status.ActualTrafficWeight; got != 25 {
		return fmt.Errorf("%s has %v %%", stack.Name, got)
	}
	return nil
}

// Each command that the help lists has its help in a golden file, and some output if it does anything; and no file is left over.
func TestThePluginsCommandsAllHaveGoldens(t *testing.T) {
	t.Parallel()
	p := goldenPlugin{binary: plugin(t)}
	files := map[string]bool{}
	for _, c := range calls {
		if files[c.file] {
			t.Errorf("%s is the file of two calls", c.file)
		}
		files[c.file] = true
	}
	paths := p.commands(t, nil)
	if len(paths) < 12 {
		t.Errorf("the help lists %q only", paths)
	}
	for _, path := range append(paths, nil) {
		command := strings.Join(path, " ")
		help := asked{file: strings.Join(append([]string{"help"}, path...), "-"), args: strings.TrimSpace(command + " --help")}
		if path == nil {
			help.file = "help-all"
		}
		files[help.file] = true
		if err := p.compare(t.Context(), help); err != nil {
			t.Error(err)
		}
		does := len(path) > 0 && len(p.listed(t, path)) == 0
		if does && !slices.ContainsFunc(calls, func(c asked) bool { return c.code == 0 && strings.HasPrefix(c.args+" ", command+" ") }) {
			t.Errorf("no call of %q that works has a golden file", command)
		}
	}
	found, err := filepath.Glob(goldens + "/*")
	must(t, err)
	for _, file := range found {
		if !files[strings.TrimSuffix(filepath.Base(file), ".txt")] {
			t.Errorf("%s is the output of nothing", file)
		}
	}
}

// goldenPlugin is the plugin as somebody uses it.
type goldenPlugin struct{ binary, viewer string }

// compare calls the plugin, and tells how that differs from the golden file.
func (p goldenPlugin) compare(ctx context.Context, c asked) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, p.binary, strings.Split(c.args, " ")...)
	kubeconfig := p.viewer
	if c.admin {
		kubeconfig = cluster.KubeconfigPath()
	}
	cmd.Env = append(os.Environ(), "KUBECONFIG="+kubeconfig, "TZ=UTC")
	var errs bytes.Buffer
	out := &printed{until: c.until, seen: func() { _ = cmd.Process.Signal(os.Interrupt) }}
	cmd.Stdout, cmd.Stderr = out, &errs
	if exit := (*exec.ExitError)(nil); !errors.As(cmd.Run(), &exit) && cmd.ProcessState == nil {
		return fmt.Errorf("%s does not run", c.args)
	}
	got := fmt.Sprintf("$ kubectl tide %s\n%s", c.args, out)
	if errs.Len() > 0 {
		got += "--- standard error\n" + errs.String()
	}
	got = normal(got)
	if code := cmd.ProcessState.ExitCode(); code != c.code {
		return fmt.Errorf("exit code %d, want %d\n%s", code, c.code, got)
	}
	file := filepath.Join(goldens, c.file+".txt")
	if *rewrite {
		return os.WriteFile(file, []byte(got), 0o644)
	}
	want, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		return fmt.Errorf("%s (-want +got):\n%s", file, diff)
	}
	return nil
}

// commands are those that the help lists, each as a path.
func (p goldenPlugin) commands(t *testing.T, of []string) (paths [][]string) {
	t.Helper()
	for _, name := range p.listed(t, of) {
		path := append(slices.Clone(of), name)
		paths = append(append(paths, path), p.commands(t, path)...)
	}
	return paths
}

var available = regexp.MustCompile(`(?s)\nAvailable Commands:\n(.*?)\n\n`)

func (p goldenPlugin) listed(t *testing.T, of []string) (names []string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), p.binary, append(slices.Clone(of), "--help")...).Output()
	must(t, err)
	if list := available.FindSubmatch(out); list != nil {
		for line := range strings.Lines(string(list[1])) {
			names = append(names, strings.Fields(line)[0])
		}
	}
	return names
}

// printed is what a program printed. It tells when the last whole line first has the text.
type printed struct {
	mu    sync.Mutex
	text  bytes.Buffer
	until string
	seen  func()
}

var _ io.Writer = (*printed)(nil)

// Write implements io.Writer.
func (p *printed) Write(text []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.text.Write(text)
	if lines := p.text.Bytes(); p.until != "" && bytes.HasSuffix(lines, []byte("\n")) {
		last := lines[bytes.LastIndexByte(lines[:len(lines)-1], '\n')+1:]
		if bytes.Contains(last, []byte(p.until)) {
			p.until = ""
			p.seen()
		}
	}
	return len(text), nil
}

func (p *printed) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.String()
}

// goldenScene makes what the plugin is asked about, waits until nothing changes any more, and returns the kubeconfig of somebody who may view
// it.
func goldenScene(t *testing.T) string {
	t.Helper()
	const ns = "shop"
	space := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}}
	eventually(t, 60*time.Second, func() error { // that of the run before may still be going
		return api.Create(t.Context(), space.DeepCopy())
	})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if t.Failed() {
			t.Logf("namespace %s at the end:\n%s", ns, describe(ctx, ns))
		}
		if err := api.Delete(ctx, space); err != nil {
			t.Errorf("delete namespace %s: %v", ns, err)
		}
	})
	create(t, ns, `
apiVersion: v1
kind: ServiceAccount
metadata: {name: oncall}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: oncall-views}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}
subjects: [{kind: ServiceAccount, name: oncall, namespace: shop}]
`)
	for _, name := range []string{"web", "mail", "api", "cart", "queue"} {
		workload(t, ns, "Deployment", name, 1, "")
	}
	create(t, ns, `
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: web
  annotations:
    metric-config.external.tasks.static/value: "20"
    metric-config.external.lost.json-path/endpoint: http://%[1]s:1/lost
    metric-config.external.lost.json-path/json-key: $.n
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  maxReplicas: 5
  metrics:
  - {type: External, external: {metric: {name: tasks, selector: {matchLabels: {type: static}}}, target: {type: AverageValue, averageValue: "10"}}}
  - {type: External, external: {metric: {name: lost, selector: {matchLabels: {type: json-path}}}, target: {type: Value, value: "1"}}}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: mail
  annotations:
    metric-config.external.lost.json-path/endpoint: http://%[1]s:1/lost
    metric-config.external.lost.json-path/json-key: $.n
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: mail}
  maxReplicas: 4
  metrics:
  - {type: External, external: {metric: {name: lost, selector: {matchLabels: {type: json-path}}}, target: {type: Value, value: "1"}}}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: api
  annotations: {metric-config.external.calls.static/value: "7"}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: api}
  maxReplicas: 8
  metrics:
  - {type: External, external: {metric: {name: calls, selector: {matchLabels: {type: static}}}, target: {type: AverageValue, averageValue: "10"}}}
---
apiVersion: autoscaling.kapacitystack.io/v1alpha1
kind: IntelligentHorizontalPodAutoscaler
metadata: {name: cart}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: cart}
  minReplicas: 1
  maxReplicas: 10
  portraitProviders: [{type: Static, priority: 1, static: {replicas: 3}}]
---
apiVersion: core.kai.io/v1alpha1
kind: Step
metadata: {name: echo}
spec:
  maxReplicas: 4
  containers: [{name: echo, image: simulated, ports: [{containerPort: 9001}]}]
`, tenantHost)
	reactiveIHPA(t, ns, "queue", `metric-config.external.jobs.static/value: "20"`, "{}",
		`[{type: External, external: {metric: {name: jobs, selector: {matchLabels: {type: static}}}, target: {type: Value, value: "20"}}}]`)
	for _, version := range []string{"v1", "v2"} {
		kubectl(t, ns, stackSetManifest("front", routed, version, ""), "apply", "--server-side", "--field-manager=e2e", "-f", "-")
		eventually(t, 60*time.Second, func() error {
			stack := &zalando.Stack{}
			if err := api.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: "front-" + version}, stack); err != nil {
				return err
			}
			if !apimeta.IsStatusConditionTrue(stack.Status.Conditions, "Ready") {
				return fmt.Errorf("%+v", stack.Status.Conditions)
			}
			return nil
		})
	}
	stepReady(t, ns, "echo")
	for name, online := range map[string]int32{"cart": 3, "queue": 1} {
		eventually(t, 60*time.Second, func() error {
			o := &kapacity.IntelligentHorizontalPodAutoscaler{}
			must(t, api.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: name}, o))
			if got := ptr.Deref(o.Status.OnlineReplicas, 0); got != online {
				return fmt.Errorf("ihpa %s has %d online, want %d", name, got, online)
			}
			return nil
		})
	}
	for name, reason := range map[string]string{"web": "ValidMetricFound", "api": "ValidMetricFound", "mail": "FailedGetExternalMetric", "echo-hpa": "FailedGetResourceMetric"} {
		eventually(t, 90*time.Second, func() error {
			s := getHPA(t, ns, name).Status
			if !slices.ContainsFunc(s.Conditions, func(c autoscalingv2.HorizontalPodAutoscalerCondition) bool {
				return c.Type == autoscalingv2.ScalingActive && c.Reason == reason && (name != "echo-hpa" || strings.Contains(c.Message, "missing request"))
			}) {
				return fmt.Errorf("hpa %s: %+v", name, s.Conditions)
			}
			return nil
		})
	}
	eventually(t, 60*time.Second, wantReplicas(t, ns, "Deployment", "web", 2))
	viewer, err := cluster.KubeconfigFor(t.Context(), ns, "oncall")
	must(t, err)
	return viewer
}

// What of the plugin's output differs from run to run, and what stands for it.
var differs = []struct {
	pattern *regexp.Regexp
	by      string
}{
	{regexp.MustCompile(`\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`), "INSTANT"},
	{regexp.MustCompile(`(\b\d{4}-\d\d-\d\d )?\b\d\d:\d\d:\d\d\b`), "HH:MM:SS"},
	{regexp.MustCompile(`\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b`), "UID"},
	{regexp.MustCompile(`-[b-df-hj-np-tv-xz2456789]{6,10}-[b-df-hj-np-tv-xz2456789]{5}\b`), "-POD"},
	{regexp.MustCompile(`\b(age"?: "?)[\d.]+[a-zµ][\da-zµ.]*`), "${1}AGE"},
	{regexp.MustCompile(`(?m)^kubectl-tide \S+ go\S+ (X:\S+ )?\w+/\w+$`), "kubectl-tide VERSION GO OS/ARCH"},
}

var (
	distances = regexp.MustCompile(`(\(|\(in |\bfor )(?:\d+[a-z]+)+( ago\)|\)|  )`)
	age       = regexp.MustCompile(`^(\d+[dhmsy]+)+$`)
	gap       = regexp.MustCompile(` {2,}`)
)

// normal is the text without what differs from run to run.
func normal(text string) string {
	for _, d := range differs {
		text = d.pattern.ReplaceAllString(text, d.by)
	}
	paragraphs := strings.Split(text, "\n\n")
	for i := range paragraphs {
		paragraphs[i] = ageless(paragraphs[i])
	}
	return strings.Join(paragraphs, "\n\n")
}

// ageless is a paragraph without ages. Their widths move what stands beside them, so where there are some the columns are not aligned any more.
func ageless(paragraph string) string {
	text := distances.ReplaceAllString(paragraph, "${1}AGE${2}")
	aged, column := text != paragraph, -1
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		cells := cellsOf(line)
		switch at := slices.Index(cells, "AGE"); {
		case column < 0:
			column = at
		case column < len(cells) && age.MatchString(cells[column]):
			cells[column] = "AGE"
		}
		lines[i] = line[:len(line)-len(strings.TrimLeft(line, " "))] + strings.Join(cells, "  ")
	}
	if !aged && column < 0 {
		return paragraph
	}
	return strings.Join(lines, "\n")
}

func cellsOf(line string) []string { return gap.Split(strings.TrimLeft(line, " "), -1) }

func TestWhatDiffersFromRunToRunIsLeftOut(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"an instant":                       {`"time": "2026-11-23T20:25:13.123456Z"`, `"time": "INSTANT"`},
		"a time of day":                    {"until 20:25:13 UTC", "until HH:MM:SS UTC"},
		"a time of another day":            {"until 2026-11-24 00:00:01", "until HH:MM:SS"},
		"a distance":                       {"  Next     20:25:13 (in 2m3s): more\n  Result  x", "  Next  HH:MM:SS (in AGE): more\n  Result  x"},
		"since when":                       {"  Ready   True   for 12s    AsExpected", "  Ready  True  for AGE  AsExpected"},
		"an age in a table":                {"METRIC  AGE  MAX AGE\ntasks   12s  45s", "METRIC  AGE  MAX AGE\ntasks  AGE  45s"},
		"no age in a table":                {"METRIC  AGE  MAX AGE\ntasks   -    45s", "METRIC  AGE  MAX AGE\ntasks  -  45s"},
		"a table below its title":          {"Steps\n  STAGE   AGE\n* merge   3m4s", "Steps\n  STAGE  AGE\n* merge  AGE"},
		"an age in JSON":                   {`"age": "3.214s", "maxAge": "45s"`, `"age": "AGE", "maxAge": "45s"`},
		"an age in YAML":                   {"  age: 1m3.2s\n  maxAge: 45s", "  age: AGE\n  maxAge: 45s"},
		"an object's UID":                  {"uid d8f6ed0a-44dd-4353-8243-e5a199e190da", "uid UID"},
		"a pod of a Deployment":            {"Pod echo-deployment-6d4cf56db-x7zpq", "Pod echo-deployment-POD"},
		"the version":                      {"kubectl-tide v1.2.3 go1.26.8 linux/amd64\n", "kubectl-tide VERSION GO OS/ARCH\n"},
		"a table without ages is as it is": {"NAME      MAX\nhpa/web   5\n\nA   AGE\nb   1s", "NAME      MAX\nhpa/web   5\n\nA  AGE\nb  AGE"},
		"quantities and names":             {"value 1500m of front-v2 is 30 a pod, http://10.244.77.1:1/lost", "value 1500m of front-v2 is 30 a pod, http://10.244.77.1:1/lost"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := normal(c.text); got != c.want {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
			if got := normal(c.want); got != c.want {
				t.Errorf("twice it is %q", got)
			}
		})
	}
}
