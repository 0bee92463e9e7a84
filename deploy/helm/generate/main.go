// Command generate writes what follows from others' files: the chart's copies of the CRDs, the dashboards and the alerts, the table of its README from the comments
// of its values, the kustomize base, which is what the chart renders with its defaults, and the examples that stand in the documentation.
// `make generate` runs it.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/kubetide/kubetide/test/lab/build"
)

const (
	chart   = "deploy/helm/kubetide"
	base    = "deploy/kustomize/base"
	heading = "# Rendered from " + chart + " by make generate.\n"
)

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "generate: "+err.Error())
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	if err := copyFiles(); err != nil {
		return err
	}
	if err := writeReadme(); err != nil {
		return err
	}
	if err := writeExamples(); err != nil {
		return err
	}
	rendered, err := render(ctx)
	if err != nil {
		return err
	}
	return writeBase(rendered)
}

// copied are what the chart needs of others' files, which Helm finds below the chart only: by folder of its files.
var copied = map[string]string{
	"crds": "deploy/crds/*.yaml", "dashboards": "deploy/grafana/*.json", "prometheus": "deploy/prometheus/rules.yaml",
}

func copyFiles() error {
	for name, pattern := range copied {
		dir := filepath.Join(chart, "files", name)
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			return errors.Join(err, fmt.Errorf("there is no %s: run it in the repository's root", pattern))
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(dir, filepath.Base(file)), text, 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}

func writeReadme() error {
	values, err := os.ReadFile(filepath.Join(chart, "values.yaml"))
	if err != nil {
		return err
	}
	file := filepath.Join(chart, "README.md")
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	const begin, end = "<!-- values: by make generate -->\n", "<!-- end -->"
	before, rest, found := bytes.Cut(text, []byte(begin))
	_, after, ended := bytes.Cut(rest, []byte(end))
	if !found || !ended {
		return fmt.Errorf("%s has no place for the values", file)
	}
	table, err := describe(values)
	if err != nil {
		return err
	}
	return os.WriteFile(file, fmt.Appendf(nil, "%s%s%s%s%s", before, begin, table, end, after), 0o644)
}

// describe returns the table of all values: the path, the default, the comment.
func describe(values []byte) (string, error) {
	var document yaml.Node
	if err := yaml.Unmarshal(values, &document); err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString("| value | default | |\n|---|---|---|\n")
	var walk func(prefix string, node *yaml.Node) error
	walk = func(prefix string, node *yaml.Node) error {
		for i := 0; i+1 < len(node.Content); i += 2 {
			key, value := node.Content[i], node.Content[i+1]
			path, comment := prefix+key.Value, strings.ReplaceAll(strings.ReplaceAll(key.HeadComment, "\n# ", " "), "|", "\\|")
			if comment == "" && value.Kind == yaml.MappingNode && len(value.Content) > 0 {
				if err := walk(path+".", value); err != nil {
					return err
				}
				continue
			}
			if comment == "" {
				return fmt.Errorf("the value %s has no comment", path)
			}
			text, err := inline(value)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, "| `%s` | `%s` | %s |\n", path, text, strings.TrimPrefix(comment, "# "))
		}
		return nil
	}
	err := walk("", document.Content[0])
	return b.String(), err
}

func inline(value *yaml.Node) (string, error) {
	flow := *value
	flow.Style, flow.HeadComment = yaml.FlowStyle, ""
	if value.Kind == yaml.ScalarNode {
		flow.Style = value.Style
	}
	text, err := yaml.Marshal(&flow)
	return strings.Join(strings.Fields(string(text)), " "), err
}

// render returns the chart's objects by the file of their template. The base has CRDs and a tag of its own, and no hooks.
func render(ctx context.Context) (map[string]string, error) {
	binaries, err := build.Binaries(ctx, os.Stderr, "helm")
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, binaries["helm"], "template", "kubetide", chart, "--namespace=kubetide-system", "--no-hooks",
		"--set=crds.install=false,image.tag=latest")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("helm template: %w: %s", err, stderr.Bytes())
	}
	rendered := map[string]string{}
	for document := range strings.SplitSeq("\n"+string(out), "\n---\n") {
		source, text, _ := strings.Cut(document, "\n")
		name := filepath.Base(strings.TrimPrefix(source, "# Source: "))
		if strings.TrimSpace(text) == "" {
			continue
		}
		if rendered[name] != "" {
			rendered[name] += "---\n"
		}
		rendered[name] += strings.TrimSpace(text) + "\n"
	}
	return rendered, nil
}

// ofReleases are labels, annotations and lines that mean nothing without Helm.
var ofReleases = regexp.MustCompile(`(?m)^ +(?:app\.kubernetes\.io/(?:instance|version|managed-by)|helm\.sh/chart|checksum/config): .*\n|^ +annotations:\n +checksum/config: .*\n`)

func writeBase(rendered map[string]string) error {
	old, err := filepath.Glob(base + "/*.yaml")
	if err != nil {
		return err
	}
	for _, file := range old {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if bytes.HasPrefix(text, []byte(heading)) {
			if err := os.Remove(file); err != nil {
				return err
			}
		}
	}
	for name, text := range rendered {
		if name == "configmap.yaml" { // kustomize makes it, so that a change rolls the pods
			var object struct{ Data map[string]string }
			if err := yaml.Unmarshal([]byte(text), &object); err != nil {
				return err
			}
			name, text = "server.yaml", object.Data["server.yaml"]
		}
		text = ofReleases.ReplaceAllString(text, "")
		if err := os.WriteFile(filepath.Join(base, name), []byte(heading+text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

var (
	yamlBlock = regexp.MustCompile("(?ms)^```yaml\n(.*?)^```$")
	exampleOf = regexp.MustCompile(`\]\(\.\./\.\./deploy/examples/`)
)

// pages have an example that stands in the documentation, by its file.
var pages = map[string]string{
	"fallback.md": "hpa-fallback", "reactive.md": "ihpa-reactive", "scheduled-bounds.md": "ihpa-scheduled-bounds", "stability.md": "ihpa-stability",
	"workloads-step.md": "step", "workloads-stackset.md": "stackset",
}

// writeExamples copies the first whole manifest of each page, collectors' pages that lead to an example of their own excepted.
func writeExamples() error {
	files, err := filepath.Glob("docs/collectors/*.md")
	if err != nil {
		return err
	}
	for _, file := range files {
		page, example := strings.TrimPrefix(file, "docs/"), "hpa-"+strings.TrimSuffix(filepath.Base(file), ".md")
		pages[page] = example
	}
	for page, example := range pages {
		text, err := os.ReadFile(filepath.Join("docs", page))
		if err != nil {
			return err
		}
		if exampleOf.Match(text) {
			continue
		}
		var whole []byte
		for _, block := range yamlBlock.FindAllSubmatch(text, -1) {
			if bytes.HasPrefix(block[1], []byte("apiVersion: ")) && bytes.Contains(block[1], []byte("\nkind: ")) {
				whole = block[1]
				break
			}
		}
		if whole == nil {
			return fmt.Errorf("docs/%s has no whole manifest", page)
		}
		if err := os.WriteFile(filepath.Join("deploy", "examples", example+".yaml"), fmt.Appendf(nil, "# From docs/%s, which explains it; copied by make generate.\n%s", page, whole), 0o644); err != nil {
			return err
		}
	}
	return nil
}
