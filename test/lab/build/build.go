// Package build makes the lab's binaries (etcd, the Kubernetes control plane, kwok, metrics-server, Prometheus and promtool, skipper, helm)
// from the Go modules that the folders beside it pin, and caches them by module version and Go version; the SQS server comes from npm,
// cached by its lock file. The modules stand apart so that their dependencies never meet the product's. Binaries found in the folder that
// KUBEBUILDER_ASSETS names are used as they are.
package build

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// component is one module and the binaries that come from it.
type component struct {
	name     string            // its folder beside this file
	module   string            // empty: an npm package, which npm.go installs
	packages map[string]string // by binary
	files    map[string]string // of the module, wanted beside the binaries
	omit     []string          // files of the module, left out of the build
	ldflags  func(version string) string
}

// RouteGroupCRD is the file beside skipper's binary that defines RouteGroups.
const RouteGroupCRD = "routegroups_crd.yaml"

var components = []component{
	{name: "etcd", module: "go.etcd.io/etcd/server/v3", packages: map[string]string{"etcd": "go.etcd.io/etcd/server/v3"}},
	{
		name: "kubernetes", module: "k8s.io/kubernetes",
		packages: map[string]string{
			"kube-apiserver":          "k8s.io/kubernetes/cmd/kube-apiserver",
			"kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
			"kube-scheduler":          "k8s.io/kubernetes/cmd/kube-scheduler",
			"kubectl":                 "k8s.io/kubernetes/cmd/kubectl",
		},
		// Without these the server reports a version that kubectl cannot parse.
		ldflags: func(version string) string {
			const pkg = "k8s.io/component-base/version"
			parts := strings.SplitN(strings.TrimPrefix(version, "v"), ".", 3)
			return fmt.Sprintf("-X %[1]s.gitVersion=%[2]s -X %[1]s.gitMajor=%[3]s -X %[1]s.gitMinor=%[4]s -X %[1]s.gitTreeState=clean",
				pkg, version, parts[0], parts[1])
		},
	},
	{name: "kwok", module: "sigs.k8s.io/kwok", packages: map[string]string{"kwok": "sigs.k8s.io/kwok/cmd/kwok"}},
	{
		name: "metrics-server", module: "sigs.k8s.io/metrics-server",
		packages: map[string]string{"metrics-server": "sigs.k8s.io/metrics-server/cmd/metrics-server"},
	},
	{
		name: "prometheus", module: "github.com/prometheus/prometheus",
		packages: map[string]string{
			"prometheus": "github.com/prometheus/prometheus/cmd/prometheus",
			"promtool":   "github.com/prometheus/prometheus/cmd/promtool",
		},
		// It registers every cloud's service discovery, which are most of the build; files and http stay.
		omit: []string{"plugins/plugins.go"},
	},
	{
		name: "skipper", module: "github.com/zalando/skipper",
		packages: map[string]string{"skipper": "github.com/zalando/skipper/cmd/skipper"},
		files:    map[string]string{RouteGroupCRD: "dataclients/kubernetes/deploy/apply/routegroups_crd.yaml"},
	},
	{name: "helm", module: "helm.sh/helm/v4", packages: map[string]string{"helm": "helm.sh/helm/v4/cmd/helm"}},
	{name: "sqs", packages: map[string]string{"sqs": "server.mjs"}},
}

// ControlPlane names the binaries that every lab needs.
var ControlPlane = []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl", "kwok"}

// All names every binary that can be built.
func All() []string {
	var names []string
	for _, c := range components {
		for name := range c.packages {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Binaries returns the path of each wanted binary, building what the cache lacks. A cold build of everything takes some fifteen
// minutes on two cores; progress (nil: none) says what is being built and how far it is, on a terminal in one line that is
// redrawn. Two callers at once do the work once.
func Binaries(ctx context.Context, progress io.Writer, want ...string) (map[string]string, error) {
	found, report := map[string]string{}, newReporter(progress)
	for _, c := range components {
		var missing []string
		for name := range c.packages {
			if !slices.Contains(want, name) {
				continue
			}
			if assets := os.Getenv("KUBEBUILDER_ASSETS"); assets != "" && len(c.lacking(assets, []string{name})) == 0 {
				found[name] = filepath.Join(assets, name)
				continue
			}
			missing = append(missing, name)
		}
		if len(missing) == 0 {
			continue
		}
		slices.Sort(missing)
		dir, err := c.ensure(ctx, report, missing)
		if err != nil {
			return nil, fmt.Errorf("build %s: %w", strings.Join(missing, ", "), err)
		}
		for _, name := range missing {
			found[name] = filepath.Join(dir, name)
		}
	}
	for _, name := range want {
		if found[name] == "" {
			return nil, fmt.Errorf("build %s: there is no such binary (known: %s)", name, strings.Join(All(), ", "))
		}
	}
	return found, nil
}

// ensure returns the cache folder that holds the named binaries.
func (c component) ensure(ctx context.Context, report *reporter, names []string) (string, error) {
	source, err := sourceDir(c.name)
	if err != nil {
		return "", err
	}
	version, err := c.version(source)
	if err != nil {
		return "", err
	}
	key := c.name + "-" + version
	if c.module != "" {
		goVersion, err := c.command(ctx, source, "env", "GOVERSION").Output()
		if err != nil {
			return "", fmt.Errorf("ask go for its version: %w", err)
		}
		key += "-" + strings.TrimSpace(string(goVersion))
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the cache folder: %w", err)
	}
	dir := filepath.Join(cache, "kubetide", "lab", key)
	if len(c.lacking(dir, names)) == 0 {
		return dir, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	unlock, err := lock(ctx, dir+".lock", func() { report.line("waiting for another build of " + c.name) })
	if err != nil {
		return "", err
	}
	defer unlock()
	if names = c.lacking(dir, names); len(names) == 0 {
		return dir, nil
	}
	if c.module == "" {
		return dir, c.install(ctx, report, source, dir)
	}
	return dir, c.build(ctx, report, source, dir, version, names)
}

// lacking returns those of the named binaries that the folder has not, or not with the files that belong beside them.
func (c component) lacking(dir string, names []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		for file := range c.files {
			if _, err := os.Stat(filepath.Join(dir, file)); err != nil {
				return false
			}
		}
		return executable(filepath.Join(dir, name))
	})
}

func (c component) build(ctx context.Context, report *reporter, source, dir, version string, names []string) error {
	what := fmt.Sprintf("%s %s", strings.Join(names, ", "), version)
	var packages []string
	for _, name := range names {
		packages = append(packages, c.packages[name])
	}
	temp, err := os.MkdirTemp(filepath.Dir(dir), ".building-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	if len(c.omit) > 0 {
		report.update("downloading " + c.module)
		if source, err = c.trim(ctx, source, filepath.Join(temp, "source")); err != nil {
			return err
		}
	}
	total, err := c.outdated(ctx, report, what, source, packages)
	if err != nil {
		return err
	}
	ldflags := "-s -w"
	if c.ldflags != nil {
		ldflags += " " + c.ldflags(version)
	}
	start, done := time.Now(), 0
	say := func() {
		text := fmt.Sprintf("building %s: %d of %d packages", what, min(done, total), total)
		if done >= total {
			text = fmt.Sprintf("building %s: linking", what)
		}
		report.update(fmt.Sprintf("%s, %s", text, time.Since(start).Round(time.Second)))
	}
	err = stream(ctx, c.command(ctx, source, append([]string{"build", "-v", "-ldflags", ldflags, "-o", temp + "/"}, packages...)...),
		say, func(string) { done++ })
	if err != nil {
		return err
	}
	if err := c.copyFiles(ctx, source, dir); err != nil {
		return err
	}
	for _, name := range names {
		if err := os.Rename(filepath.Join(temp, path.Base(strings.TrimSuffix(c.packages[name], "/v3"))), filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	report.line(fmt.Sprintf("built %s in %s", what, time.Since(start).Round(time.Second)))
	return nil
}

// trim makes a folder that builds as source does, but from a copy of the module without the files to omit. Go refuses to overlay
// files of the module cache.
func (c component) trim(ctx context.Context, source, dir string) (string, error) {
	out, err := c.command(ctx, source, "mod", "download", "-json", c.module).Output()
	if err != nil {
		return "", fmt.Errorf("download %s: %w\n%s", c.module, err, out)
	}
	var module struct{ Dir string }
	if err := json.Unmarshal(out, &module); err != nil {
		return "", fmt.Errorf("download %s: %w", c.module, err)
	}
	trimmed := filepath.Join(dir, "module")
	if err := os.CopyFS(trimmed, os.DirFS(module.Dir)); err != nil {
		return "", err
	}
	for _, file := range c.omit {
		if err := os.Remove(filepath.Join(trimmed, file)); err != nil {
			return "", err
		}
	}
	for name, more := range map[string]string{"go.mod": "\nreplace " + c.module + " => ./module\n", "go.sum": ""} {
		data, err := os.ReadFile(filepath.Join(source, name))
		if err != nil {
			return "", err
		}
		if err := os.WriteFile(filepath.Join(dir, name), append(data, more...), 0o644); err != nil {
			return "", err
		}
	}
	return dir, nil
}

// copyFiles puts the module's files into dir.
func (c component) copyFiles(ctx context.Context, source, dir string) error {
	if len(c.files) == 0 {
		return nil
	}
	module, err := c.command(ctx, source, "list", "-m", "-f", "{{.Dir}}", c.module).Output()
	if err != nil {
		return fmt.Errorf("find the folder of %s: %w", c.module, err)
	}
	for name, file := range c.files {
		data, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(module)), file))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// outdated counts the packages that have to be compiled; it downloads the modules first.
func (c component) outdated(ctx context.Context, report *reporter, what, source string, packages []string) (int, error) {
	count, downloads := 0, 0
	say := func() {
		text := fmt.Sprintf("counting what has to be compiled for %s", what)
		if downloads > 0 {
			text = fmt.Sprintf("downloading modules for %s: %d so far", what, downloads)
		}
		report.update(text)
	}
	list := c.command(ctx, source, append([]string{"list", "-deps", "-f", "{{.Stale}}"}, packages...)...)
	err := stream(ctx, list, say, func(line string) {
		switch {
		case strings.HasPrefix(line, "go: downloading"):
			downloads++
		case line == "true":
			count++
		}
	})
	return count, err
}

// stream runs a command, hands over each line that it prints, and calls say now and then. Its error carries the last lines.
func stream(ctx context.Context, cmd *exec.Cmd, say func(), each func(line string)) error {
	pipe, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	cmd.Stdout = cmd.Stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	lines := make(chan string)
	go func() {
		defer close(lines)
		for scanner := bufio.NewScanner(pipe); scanner.Scan(); {
			lines <- scanner.Text()
		}
	}()
	var last []string
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for open := true; open; {
		select {
		case line, more := <-lines:
			if open = more; more {
				each(line)
				last = append(last, line)
				last = last[max(0, len(last)-20):]
			}
		case <-tick.C:
			say()
		}
	}
	if err := cmd.Wait(); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args[:2], " "), err, strings.Join(last, "\n"))
	}
	return nil
}

func (c component) command(ctx context.Context, source string, args ...string) *exec.Cmd {
	cmd := command(ctx, source, "go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	return cmd
}

// command is one that is interrupted, not killed, when the context ends.
func command(ctx context.Context, dir, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// version reads the pinned version from the component's go.mod.
func (c component) version(source string) (string, error) {
	if c.module == "" {
		return hash(source)
	}
	data, err := os.ReadFile(filepath.Join(source, "go.mod"))
	if err != nil {
		return "", err
	}
	match := regexp.MustCompile(`(?m)^(?:require)?\s*` + regexp.QuoteMeta(c.module) + ` (v\S+)`).FindSubmatch(data)
	if match == nil {
		return "", fmt.Errorf("%s/go.mod requires no %s", source, c.module)
	}
	return string(match[1]), nil
}

// sourceDir finds the component's folder: beside this file, or below the module that the working folder is in.
func sourceDir(name string) (string, error) {
	_, file, _, _ := runtime.Caller(0)
	candidates := []string{filepath.Join(filepath.Dir(file), name)}
	if wd, err := os.Getwd(); err == nil {
		for dir := wd; ; dir = filepath.Dir(dir) {
			candidates = append(candidates, filepath.Join(dir, "test", "lab", "build", name))
			if dir == filepath.Dir(dir) {
				break
			}
		}
	}
	for _, dir := range candidates {
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			return dir, nil
		}
	}
	return "", fmt.Errorf("the folder test/lab/build/%s is not found: run from within a checkout", name)
}

func executable(file string) bool {
	info, err := os.Stat(file)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// lock takes an exclusive lock that the kernel releases when the process ends, and calls waiting once if it has to wait.
func lock(ctx context.Context, file string, waiting func()) (unlock func(), err error) {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for said := false; ; {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return func() { f.Close() }, nil
		case !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR):
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", file, err)
		}
		if !said {
			waiting()
			said = true
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// reporter shows progress: on a terminal one line that is redrawn, elsewhere a line every few seconds.
type reporter struct {
	out      io.Writer
	terminal bool
	drawn    bool
	last     time.Time
}

func newReporter(out io.Writer) *reporter {
	r := &reporter{out: out, last: time.Now()}
	if f, ok := out.(*os.File); ok {
		r.terminal = term.IsTerminal(int(f.Fd()))
	}
	return r
}

func (r *reporter) update(text string) {
	if r.out == nil {
		return
	}
	if r.terminal {
		fmt.Fprintf(r.out, "\r\x1b[K%s", text)
		r.drawn = true
		return
	}
	if time.Since(r.last) >= 5*time.Second {
		r.last = time.Now()
		fmt.Fprintln(r.out, text)
	}
}

func (r *reporter) line(text string) {
	if r.out == nil {
		return
	}
	var b bytes.Buffer
	if r.drawn {
		b.WriteString("\r\x1b[K")
		r.drawn = false
	}
	fmt.Fprintln(&b, text)
	_, _ = r.out.Write(b.Bytes())
}
