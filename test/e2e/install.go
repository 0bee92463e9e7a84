package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/kubetide/kubetide/test/lab"
)

// Image is what deploy/kustomize/base runs; Install lets the lab run the binary built from this tree in its place.
const Image = "kubetide/kubetide"

// InstallOptions say what is installed. The zero value is deploy/kustomize/base with one replica, and a binary as users get it.
type InstallOptions struct {
	// BuildFlags are for `go build`.
	BuildFlags []string
	// Replicas above 1 find each other as deploy/kustomize/base has it; one is alone.
	Replicas int
	// Settings (YAML) are added to the configuration file of deploy/kustomize/base, and Env to the container's environment.
	Settings string
	Env      map[string]string
	Progress io.Writer
}

// Install builds the server, applies the manifests as a user would, and returns when its pods are ready, its APIServices are
// available and its webhook can be reached.
func Install(ctx context.Context, cluster *lab.Lab, o InstallOptions) error {
	_, file, _, _ := runtime.Caller(0)
	root := filepath.Dir(filepath.Dir(filepath.Dir(file)))
	binary := filepath.Join(cluster.Dir(), "kubetide")
	fmt.Fprintln(o.Progress, "e2e: building kubetide", strings.Join(o.BuildFlags, " "))
	build := exec.CommandContext(ctx, "go", append(append([]string{"build"}, o.BuildFlags...), "-o", binary, "./cmd/kubetide")...)
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build kubetide: %w\n%s", err, bytes.TrimSpace(out))
	}
	if err := cluster.RegisterImage(ctx, Image, binary); err != nil {
		return err
	}
	manifests, err := overlay(cluster, filepath.Join(root, "deploy", "kustomize", "base"), o)
	if err != nil {
		return err
	}
	fmt.Fprintln(o.Progress, "e2e: installing deploy/kustomize/base")
	for _, args := range [][]string{
		{"apply", "--server-side", "-k", manifests},
		{"-n", "kubetide-system", "rollout", "status", "statefulset/kubetide", "--timeout=180s"},
		{"wait", "apiservice", "-l", "app.kubernetes.io/name=kubetide", "--for=condition=Available", "--timeout=60s"},
	} {
		if out, err := cluster.Kubectl(ctx, args...); err != nil {
			state, _ := cluster.Kubectl(ctx, "-n", "kubetide-system", "get", "pods,events", "-o", "wide")
			logs, _ := cluster.Kubectl(ctx, "-n", "kubetide-system", "logs", "statefulset/kubetide", "--tail=40")
			return fmt.Errorf("kubectl %s: %w\n%s\n%s\n%s", strings.Join(args, " "), err, out, state, logs)
		}
	}
	for _, answers := range []func(context.Context, *lab.Lab) error{webhookAnswers, groupsAnswer} {
		if err := soon(ctx, func() error { return answers(ctx, cluster) }); err != nil {
			return err
		}
	}
	return nil
}

// soon asks until there is no error, for a minute.
func soon(ctx context.Context, ask func() error) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		err := ask()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// overlay returns a folder that adds the settings to base, with one replica, alone, unless there are to be more.
func overlay(cluster *lab.Lab, base string, o InstallOptions) (string, error) {
	dir := filepath.Join(cluster.Dir(), "overlay")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	relative, err := filepath.Rel(dir, base)
	if err != nil {
		return "", err
	}
	replicas, added := max(o.Replicas, 1), []string{o.Settings}
	if replicas == 1 {
		added = []string{"cluster: {join: []}", o.Settings}
	}
	config, err := settings(filepath.Join(base, "server.yaml"), added...)
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(dir, "server.yaml"), config, 0o644); err != nil {
		return "", err
	}
	var patch strings.Builder
	for _, name := range slices.Sorted(maps.Keys(o.Env)) {
		fmt.Fprintf(&patch, "\n      - {op: add, path: /spec/template/spec/containers/0/env/-, value: {name: %s, value: %q}}", name, o.Env[name])
	}
	kustomization := fmt.Sprintf(`apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [%s]
configMapGenerator:
  - {name: kubetide-config, namespace: kubetide-system, behavior: replace, files: [server.yaml]}
patches:
  - target: {kind: StatefulSet, name: kubetide}
    patch: |-
      - {op: replace, path: /spec/replicas, value: %d}%s
`, relative, replicas, patch.String())
	return dir, os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(kustomization), 0o644)
}

// settings returns the configuration file with more in it, of which the last wins.
func settings(file string, more ...string) ([]byte, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	all := map[string]any{}
	for _, text := range append([]string{string(text)}, more...) {
		var added map[string]any
		if err := yaml.Unmarshal([]byte(text), &added); err != nil {
			return nil, err
		}
		merge(all, added)
	}
	return yaml.Marshal(all)
}

func merge(into, from map[string]any) {
	for key, value := range from {
		section, isSection := value.(map[string]any)
		old, was := into[key].(map[string]any)
		if isSection && was {
			merge(old, section)
			continue
		}
		into[key] = value
	}
}

// webhookAnswers says whether a pod that opts in gets its gate. The API server takes a moment to see a CA bundle.
func webhookAnswers(ctx context.Context, cluster *lab.Lab) error {
	const pod = `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"probe","namespace":"default",
		"labels":{"kapacitystack.io/inject-pod-readiness-gate":"true"}},"spec":{"containers":[{"name":"a","image":"a"}]}}`
	out, err := cluster.KubectlInput(ctx, pod, "create", "--dry-run=server", "-o", "jsonpath={.spec.readinessGates[*].conditionType}", "-f", "-")
	if err != nil || !strings.Contains(out, "kapacitystack.io/online") {
		return errors.Join(fmt.Errorf("the webhook adds no gate: %q", out), err)
	}
	return nil
}

// groupsAnswer says whether the API server passes questions on. It does so a moment after it has written that a group is available.
func groupsAnswer(ctx context.Context, cluster *lab.Lab) error {
	for _, group := range []string{"custom.metrics.k8s.io/v1beta1", "custom.metrics.k8s.io/v1beta2", "external.metrics.k8s.io/v1beta1", "tide.kubetide.io/v1alpha1"} {
		if out, err := cluster.Kubectl(ctx, "get", "--raw", "/apis/"+group); err != nil {
			return fmt.Errorf("%s does not answer: %w\n%s", group, err, out)
		}
	}
	return nil
}

// tenantsAllow tells whether a RoleBinding of tenants to one of the shipped ClusterRoles lets Kubetide read this. It may be missing, and it
// may be gone before what it is for, as in a namespace that ends. Nothing is written on a guess, and nothing of theirs read in the whole cluster.
func tenantsAllow(request lab.Request) bool {
	if request.Namespace == "" || request.Namespace == "kubetide-system" {
		return false
	}
	switch request.Group + "/" + request.Resource {
	case "/configmaps": // the results of algorithms are watched
		return slices.Contains([]string{"get", "list", "watch"}, request.Verb)
	case "/secrets", "zalando.org/platformcredentialssets":
		return request.Verb == "get"
	}
	return false
}

// Complaints returns what went wrong in the server until now without a test having looked there: data races and panics in the
// logs of all its pods, and requests that its rights did not cover, except for what it may read only where tenants allow it. Nil if nothing did.
func Complaints(cluster *lab.Lab) error {
	logs, err := filepath.Glob(filepath.Join(cluster.Dir(), "logs", "pods", "kubetide-system_*.log"))
	if err != nil {
		return err
	}
	if len(logs) == 0 {
		return fmt.Errorf("no logs of kubetide below %s", cluster.Dir())
	}
	for _, file := range logs {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		for _, sign := range []string{"WARNING: DATA RACE", "panic:", "Observed a panic"} {
			if at := bytes.Index(text, []byte(sign)); at >= 0 {
				return fmt.Errorf("%s:\n%s", file, text[at:min(len(text), at+8000)])
			}
		}
	}
	for request, err := range cluster.Audit(time.Time{}) {
		if err != nil {
			return err
		}
		if strings.HasPrefix(request.User, "system:serviceaccount:kubetide-system:") && request.Denied && !tenantsAllow(request) &&
			cluster.APIServerWasReady(request.Time) {
			return fmt.Errorf("the shipped rights do not cover %+v", request)
		}
	}
	return nil
}
