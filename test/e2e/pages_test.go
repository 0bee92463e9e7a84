package e2e

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"

	"github.com/kubetide/kubetide/test/docs/blocks"
	"github.com/kubetide/kubetide/test/lab/build"
)

const (
	repository = "../.."
	forBlock   = time.Minute // how long one block of a page may take; how long a page may, its blocks say
)

// documentation are the pages for users with the blocks that do something, by their paths from the repository's root.
func documentation(t *testing.T) map[string][]blocks.Block {
	t.Helper()
	out := map[string][]blocks.Block{}
	read := func(path string) error {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(repository, path)
		if err != nil {
			return err
		}
		all, err := blocks.Parse(name, string(text))
		var doing []blocks.Block
		for _, b := range all {
			if slices.Contains([]string{blocks.Manifest, blocks.Part, blocks.Values, blocks.Commands}, b.Is) {
				doing = append(doing, b)
			}
		}
		// TestTheExamplesOfThePagesGiveANumber applies the manifests of these, and waits for what comes of them.
		if _, applied := pages[strings.TrimPrefix(name, "docs/")]; applied && !slices.ContainsFunc(doing, func(b blocks.Block) bool { return b.Is == blocks.Commands }) {
			doing = slices.DeleteFunc(doing, func(b blocks.Block) bool { return b.Is == blocks.Manifest })
		}
		if len(doing) > 0 {
			out[name] = doing
		}
		return err
	}
	must(t, filepath.WalkDir(repository+"/docs", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(path) != ".md" {
			return err
		}
		return read(path)
	}))
	must(t, read(repository+"/README.md"))
	return out
}

// Every manifest of the pages is taken by the API server, and every command does what it says: all blocks of a page, one after the other,
// as its reader would.
func TestThePagesRun(t *testing.T) {
	t.Parallel()
	all := documentation(t)
	if len(all) < 15 {
		t.Errorf("only %d pages have something to do", len(all))
	}
	for name, does := range all {
		if !touchesKubetide(does) {
			t.Run(name, func(t *testing.T) { t.Parallel(); runPage(t, name, does) })
		}
	}
}

// The same of the pages that change Kubetide's own installation, while no other test needs it. It is mended after each.
func TestThePagesThatChangeKubetideRun(t *testing.T) {
	for name, does := range documentation(t) {
		if touchesKubetide(does) {
			t.Run(name, func(t *testing.T) {
				t.Cleanup(func() { mendKubetide(t) })
				runPage(t, name, does)
			})
		}
	}
}

var (
	changes   = regexp.MustCompile(`\b(apply|create|delete|patch|replace|edit|scale|autoscale|set|label|annotate|rollout|run|expose|drain|cordon|uncordon|taint|traffic)\b`)
	touching  = regexp.MustCompile(`(?m)^.*((-n|--namespace)[ =](kubetide-system|kube-system)|apiservice).*$`)
	reading   = regexp.MustCompile(`\brollout (status|history)\b`)
	clusterly = regexp.MustCompile(`kubectl create (namespace|ns|clusterrole|clusterrolebinding|priorityclass) ([a-z0-9.-]+)`)
)

// touchesKubetide says whether commands change objects of Kubetide's installation.
func touchesKubetide(does []blocks.Block) bool {
	return slices.ContainsFunc(does, func(b blocks.Block) bool {
		return b.Is == blocks.Commands && slices.ContainsFunc(touching.FindAllString(b.Text, -1), func(line string) bool {
			return changes.MatchString(reading.ReplaceAllString(line, ""))
		})
	})
}

// mendKubetide installs Kubetide as the other tests have it. Each step has a time-out; they and half a minute to apply make up the whole one.
func mendKubetide(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), (30+90+60+60)*time.Second)
	defer cancel()
	for _, args := range [][]string{
		{"apply", "--server-side", "--force-conflicts", "-k", filepath.Join(cluster.Dir(), "overlay")},
		{"-n", system, "rollout", "status", "statefulset/kubetide", "--timeout=90s"},
		{"wait", "apiservice", "-l", "app.kubernetes.io/name=kubetide", "--for=condition=Available", "--timeout=60s"},
	} {
		if out, err := cluster.Kubectl(ctx, args...); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	must(t, soon(ctx, func() error { return errors.Join(webhookAnswers(ctx, cluster), groupsAnswer(ctx, cluster)) }))
}

// reader is somebody who does what a page says.
type reader struct {
	t         *testing.T
	page      string
	namespace string
	dir       string
	env       []string
}

// oneForTheCluster lets one page after the other make objects of the cluster, since these have names of their own.
var oneForTheCluster sync.Mutex

func runPage(t *testing.T, name string, does []blocks.Block) {
	t.Helper()
	ofCluster := objectsOfTheCluster(t, does)
	if len(ofCluster) > 0 {
		oneForTheCluster.Lock()
		t.Cleanup(oneForTheCluster.Unlock)
		t.Cleanup(func() {
			for _, object := range ofCluster {
				if out, err := cluster.Kubectl(context.Background(), "delete", object, "--ignore-not-found", "--timeout=60s"); err != nil {
					t.Errorf("%v\n%s", err, out)
				}
			}
		})
	}
	r := newReader(t, name)
	for _, b := range does {
		r.do(b)
	}
}

// objectsOfTheCluster are those that belong to no namespace and that the blocks make, as kind/name.
func objectsOfTheCluster(t *testing.T, does []blocks.Block) (out []string) {
	t.Helper()
	for _, b := range does {
		switch b.Is {
		case blocks.Commands:
			for _, m := range clusterly.FindAllStringSubmatch(b.Text, -1) {
				out = append(out, m[1]+"/"+m[2])
			}
		case blocks.Manifest:
			for _, o := range documentsOf(t, b) {
				if strings.HasPrefix(o.Kind, "Cluster") || slices.Contains([]string{"Namespace", "PriorityClass", "StorageClass", "CustomResourceDefinition"}, o.Kind) {
					out = append(out, o.Kind+"/"+o.Metadata.Name)
				}
			}
		}
	}
	slices.Reverse(out) // what was made last goes first
	return out
}

// document is one of a manifest.
type document struct {
	Kind     string
	Metadata struct{ Name, Namespace string }
	text     string
}

var separator = regexp.MustCompile(`(?m)^---.*$`)

func documentsOf(t *testing.T, b blocks.Block) (out []document) {
	t.Helper()
	for _, text := range separator.Split(b.Text, -1) {
		d := document{text: text}
		must(t, yaml.Unmarshal([]byte(text), &d))
		if d.Kind != "" {
			out = append(out, d)
		}
	}
	return out
}

// commands is a folder with what readers have in their PATH beside the system's: kubectl, its plugin, and kubetide.
var commands = sync.OnceValues(func() (string, error) {
	dir := filepath.Join(cluster.Dir(), "reader")
	tide, err := builtPlugin()
	if err != nil {
		return "", err
	}
	// A page's installation of Kubetide is tried, and not carried out: there is one, with the settings of these tests, some of which scale it.
	kubectl := fmt.Sprintf(`#!/bin/bash
for arg; do
  case $arg in
  apply | create | delete) changes=1 ;;
  -k | -k=* | --kustomize | --kustomize=*) folder=1 ;;
  --server-side) force=--force-conflicts ;;
  esac
done
[ "$changes$folder" != 11 ] || set -- "$@" --dry-run=server $force
exec %q "$@"
`, cluster.KubectlPath())
	return dir, errors.Join(
		os.MkdirAll(dir, 0o755),
		os.WriteFile(filepath.Join(dir, "kubectl"), []byte(kubectl), 0o755), //nolint:gosec // it is run
		os.Symlink(tide, filepath.Join(dir, "kubectl-tide")),
		os.Symlink(filepath.Join(cluster.Dir(), "kubetide"), filepath.Join(dir, "kubetide")))
})

// newReader has a namespace, and a folder that looks like the repository's root; what commands write into it goes with the test.
func newReader(t *testing.T, page string) reader {
	t.Helper()
	bin, err := commands()
	must(t, err)
	r := reader{t: t, page: page, namespace: newNamespace(t), dir: t.TempDir()}
	root, err := filepath.Abs(repository)
	must(t, err)
	entries, err := os.ReadDir(root)
	must(t, err)
	for _, e := range entries {
		must(t, os.Symlink(filepath.Join(root, e.Name()), filepath.Join(r.dir, e.Name())))
	}
	config, err := clientcmd.LoadFromFile(cluster.KubeconfigPath())
	must(t, err)
	config.Contexts[config.CurrentContext].Namespace = r.namespace
	file := filepath.Join(t.TempDir(), "kubeconfig")
	must(t, clientcmd.WriteToFile(*config, file))
	r.env = []string{"KUBECONFIG=" + file, "PATH=" + bin + ":/usr/local/bin:/usr/bin:/bin", "HOME=" + t.TempDir(), "LANG=C.UTF-8"}
	return r
}

// do does what the block says, and ends the test if it cannot be done.
func (r reader) do(b blocks.Block) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), forBlock)
	defer cancel()
	try := func(err error) {
		r.t.Helper()
		if err != nil {
			r.t.Fatalf("%s:%d: %v\n%s", r.page, b.Line, err, b.Text)
		}
	}
	switch b.Is {
	case blocks.Manifest:
		for _, d := range documentsOf(r.t, b) {
			apply := "kubectl apply -f -"
			if d.Metadata.Namespace == system {
				apply += " --dry-run=server"
			}
			out, err := r.bash(ctx, apply, d.text)
			try(errors.Join(err, warned(out)))
		}
	case blocks.Part:
		whole, err := b.Whole()
		try(err)
		_, err = r.bash(ctx, "kubectl apply --dry-run=server --validate=strict -f -", whole)
		try(err)
	case blocks.Values:
		rendered, err := r.render(ctx, b.Text)
		try(err)
		_, err = r.bash(ctx, "kubectl apply --server-side --force-conflicts --dry-run=server --validate=strict -f -", rendered)
		try(err)
	case blocks.Commands:
		once := func() error { _, err := r.bash(ctx, b.Text, ""); return err }
		if changes.MatchString(b.Text) {
			try(once())
			return
		}
		try(soon(ctx, once)) // readers are slower than Kubetide; this one may look again
	}
}

// render has the chart with the values, without what the lab has no kinds for.
func (r reader) render(ctx context.Context, values string) (string, error) {
	binaries, err := build.Binaries(ctx, nil, "helm")
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, binaries["helm"], "template", "kubetide", repository+"/deploy/helm/kubetide", "--namespace="+r.namespace, "--set=crds.install=false", "--values=-")
	cmd.Stdin, cmd.Env = strings.NewReader(values), r.env
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("helm template: %w\n%s", err, out)
	}
	objects := slices.DeleteFunc(separator.Split(string(out), -1), func(text string) bool {
		return strings.Contains(text, "apiVersion: monitoring.coreos.com/") || strings.Contains(text, "apiVersion: cert-manager.io/")
	})
	return strings.Join(objects, "---\n"), nil
}

// warned says what an answer to kubectl apply warns of. A page shows nothing that works otherwise than written.
func warned(answer string) error {
	for line := range strings.Lines(answer) {
		// The lab's Kubetide runs with --prometheus-confine-queries, and the pages' namespaces have other names there.
		if strings.HasPrefix(line, "Warning: ") && !strings.Contains(line, "it may read its own namespace") {
			return errors.New(strings.TrimSpace(line))
		}
	}
	return nil
}

// bash runs commands, which must end by themselves and well, and returns what they printed. The error has it too.
func (r reader) bash(ctx context.Context, commands, input string) (string, error) {
	cmd := exec.CommandContext(ctx, "bash", "-e", "-c", commands)
	cmd.Dir, cmd.Env, cmd.Stdin = r.dir, r.env, strings.NewReader(input)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		err = errors.Join(ctx.Err(), err)
	}
	if err != nil {
		return string(out), fmt.Errorf("%w\n%s", err, out)
	}
	r.t.Logf("%s\n%s", strings.TrimSpace(commands), out)
	return string(out), nil
}
