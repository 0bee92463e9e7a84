package docs

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"

	"gopkg.in/yaml.v3"

	"github.com/kubetide/kubetide/internal/promql"
	"github.com/kubetide/kubetide/test/docs/blocks"
)

// markdown are all pages of the repository with their text, by their paths from its root.
func markdown(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && slices.Contains([]string{".git", "bin", "dist", "node_modules", "testdata"}, entry.Name()):
			return fs.SkipDir
		case entry.IsDir() || filepath.Ext(path) != ".md":
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		out[filepath.ToSlash(name)] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(out) < 30 {
		t.Errorf("only %d pages were found", len(out))
	}
	return out
}

// forUsers are the pages whose blocks are applied and run.
func forUsers(page string) bool { return page == "README.md" || strings.HasPrefix(page, "docs/") }

// elsewhere are the reasons why blocks of commands are not run on the lab, by page, one for each.
var elsewhere = map[string][]string{
	"README.md": {
		"make demo starts a lab of its own, which test/demo tests",
		"make test would run itself",
		helmInstalls,
	},
	"docs/cluster.md": {"kubectl has no way to the servers' admin port in the lab"},
	"docs/explain.md": {"it builds the plugin, which is there already"},
	"docs/how-to/moving-from-kapacity.md": {
		helmInstalls,
		"Kapacity is not there",
		helmInstalls,
	},
	"docs/how-to/moving-from-keda.md": {
		"KEDA is not there",
		helmInstalls,
		"its metrics have no source in the lab, and without any there is no decision to explain",
		"KEDA is not there",
		helmInstalls,
	},
	"docs/how-to/moving-from-kube-metrics-adapter.md": {
		"kube-metrics-adapter is not there",
		"it applies the reader's own kustomization",
		"kube-metrics-adapter is not there, to which it hands the metrics APIs back",
	},
	"docs/how-to/moving-from-prometheus-adapter.md": {
		helmInstalls,
		"its metrics have no source in the lab, and then the command fails",
		helmInstalls,
	},
	"docs/how-to/moving-from-stackset-controller.md": {
		helmInstalls,
		"the lab's Kubetide has no controller ID, and lets go of a StackSet that names one",
		"doctor fails where it finds a mistake, as it does of a StackSet that nobody looks after",
		"it goes on until Ctrl-C",
	},
	"docs/how-to/operating-the-cluster.md": {
		"the lab's kubelet has no exec",
		"the lab's Kubetide has one server, and its nodes have all that other tests run",
	},
	"docs/how-to/upgrading.md":  {helmInstalls, helmInstalls},
	"docs/operations.md":        {helmInstalls, "it would take away the Kubetide that all other tests use"},
	"docs/stackset-terminal.md": {"it goes on until Ctrl-C"},
	"docs/start.md": {
		"make demo starts a lab of its own, which test/demo tests",
		"it builds and pushes an image",
		"it builds the plugin, which is there already",
		"each page has a namespace already, which kubectl takes",
	},
}

const helmInstalls = "the chart is installed by test/e2e/helm"

func TestBlocksSayWhatTheyAre(t *testing.T) {
	all := markdown(t)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if !forUsers(name) {
			continue
		}
		found, err := blocks.Parse(name, all[name])
		if err != nil {
			t.Error(err)
		}
		notRun := 0
		for _, b := range found {
			if err := reads(b); err != nil {
				t.Errorf("%s:%d: %v", name, b.Line, err)
			}
			if b.Is == blocks.CommandsElsewhere {
				notRun++
			}
		}
		if reasons := elsewhere[name]; notRun != len(reasons) {
			t.Errorf("%s has %d blocks of commands that are not run, and elsewhere has reasons for %d: %q", name, notRun, len(reasons), reasons)
		}
	}
	for name := range elsewhere {
		if _, ok := all[name]; !ok {
			t.Errorf("elsewhere: there is no page %s", name)
		}
	}
}

// reads says whether what is in a block can be read as what it says it is.
func reads(b blocks.Block) error {
	switch b.Is {
	case blocks.Manifest:
		return documents(b.Text, func(object map[string]any) error {
			if object["kind"] == nil || object["apiVersion"] == nil {
				return errors.New("a manifest has no kind or no apiVersion; what is none is yaml part of KIND, yaml values or yaml other")
			}
			return nil
		})
	case blocks.Part:
		_, err := b.Whole()
		return err
	case blocks.Values, blocks.OtherYAML:
		return documents(b.Text, func(map[string]any) error { return nil })
	case blocks.JSON:
		var any any
		return json.Unmarshal([]byte(b.Text), &any)
	case blocks.PromQL:
		_, err := promql.Parse(b.Text)
		return err
	case blocks.Commands, blocks.CommandsElsewhere:
		if strings.TrimSpace(b.Text) == "" {
			return errors.New("there is no command")
		}
		if b.Is == blocks.Commands && regexp.MustCompile(`<[a-z -]+>`).MatchString(b.Text) {
			return errors.New("a command with <something> to fill in cannot be run: use a name that the page has made")
		}
	}
	return nil
}

// documents calls check for each document of a YAML text; there must be one.
func documents(text string, check func(map[string]any) error) error {
	decoder := yaml.NewDecoder(strings.NewReader(text))
	for i := 0; ; i++ {
		var object map[string]any
		if err := decoder.Decode(&object); errors.Is(err, io.EOF) && i > 0 {
			return nil
		} else if err != nil {
			return err
		}
		if err := check(object); err != nil {
			return err
		}
	}
}

// link is one of a page, to a page or file of the repository.
type link struct {
	// Written is as it stands, To the path from the root that it leads to, Anchor what follows its #.
	Written, To, Anchor string
}

var (
	target = regexp.MustCompile(`\]\(([^()\s]+)\)`)
	title  = regexp.MustCompile(`^#{1,6}\s+(.*?)\s*#*$`)
	named  = regexp.MustCompile(`<a (?:id|name)="([^"]+)"`)
	linked = regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`)
)

// links of the page that lead into the repository.
func links(page, text string) (out []link) {
	for _, m := range target.FindAllStringSubmatch(blocks.WithoutCode(blocks.Prose(text)), -1) {
		if strings.Contains(m[1], "://") || strings.HasPrefix(m[1], "mailto:") {
			continue
		}
		path, anchor, _ := strings.Cut(m[1], "#")
		to := page
		if path != "" {
			to = filepath.ToSlash(filepath.Join(filepath.Dir(page), path))
		}
		out = append(out, link{m[1], to, anchor})
	}
	return out
}

// anchors of the page, as GitHub makes them of its titles.
func anchors(text string) map[string]bool {
	out := map[string]bool{}
	prose := blocks.Prose(text)
	for line := range strings.Lines(prose) {
		m := title.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil {
			continue
		}
		slug := slugOf(linked.ReplaceAllString(m[1], "$1"))
		name := slug
		for n := 1; out[name]; n++ {
			name = fmt.Sprintf("%s-%d", slug, n)
		}
		out[name] = true
	}
	for _, m := range named.FindAllStringSubmatch(prose, -1) {
		out[m[1]] = true
	}
	return out
}

func slugOf(title string) string {
	var out strings.Builder
	for _, r := range strings.ToLower(title) {
		switch {
		case r == ' ':
			out.WriteRune('-')
		case unicode.IsLetter(r), unicode.IsNumber(r), r == '-', r == '_':
			out.WriteRune(r)
		}
	}
	return out.String()
}

func TestAnchorsAreGitHubs(t *testing.T) {
	got := anchors("# A `code` title, with (signs)\n## Twice\n## Twice\n### A [link](x.md) in it: `spec.hold`\n```sh\n# no title\n```\n<a id=\"own\"></a>\n## Große_Wörter – 2 %\n")
	want := []string{"a-code-title-with-signs", "a-link-in-it-spechold", "große_wörter--2-", "own", "twice", "twice-1"}
	if found := slices.Sorted(maps.Keys(got)); !slices.Equal(found, want) {
		t.Errorf("anchors %q, want %q", found, want)
	}
}

func TestLinksLeadSomewhere(t *testing.T) {
	all := markdown(t)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		for _, l := range links(name, all[name]) {
			info, err := os.Stat(filepath.Join(root, l.To))
			text, isPage := all[l.To]
			switch {
			case err != nil || strings.HasPrefix(l.To, ".."):
				t.Errorf("%s: %s leads nowhere", name, l.Written)
			case l.Anchor == "":
			case info.IsDir() || !isPage:
				t.Errorf("%s: %s has an anchor, and leads to no page", name, l.Written)
			case !anchors(text)[l.Anchor]:
				t.Errorf("%s: %s: that page has no title for #%s", name, l.Written, l.Anchor)
			}
		}
	}
}

func TestEveryPageIsReachedFromTheREADME(t *testing.T) {
	all := markdown(t)
	reached, next := map[string]bool{}, []string{"README.md"}
	for len(next) > 0 {
		name := next[0]
		next = next[1:]
		if reached[name] {
			continue
		}
		reached[name] = true
		for _, l := range links(name, all[name]) {
			for other := range all {
				if other == l.To || filepath.ToSlash(filepath.Dir(other)) == l.To { // who follows a link to a folder sees what is in it
					next = append(next, other)
				}
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if !reached[name] {
			t.Errorf("no link leads from README.md to %s", name)
		}
	}
}

// spans are the pieces of code of a page for users: those in its prose, and the lines of its commands.
func spans(page, text string) []string {
	out := blocks.Code(blocks.Prose(text))
	found, _ := blocks.Parse(page, text) // TestBlocksSayWhatTheyAre tells of mistakes
	for _, b := range found {
		if b.Is == blocks.Commands || b.Is == blocks.CommandsElsewhere {
			for line := range strings.Lines(b.Text) {
				command, _, _ := strings.Cut(line, " #")
				out = append(out, strings.TrimSpace(command))
			}
		}
	}
	return out
}

// matches are the first groups of the pattern in the files that the glob, from the root, matches.
func matches(t *testing.T, glob, pattern string) map[string]bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, glob))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]bool{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(string(text), -1) {
			out[m[1]] = true
		}
	}
	if len(out) < 5 {
		t.Fatalf("%s: only %d of %s", glob, len(out), pattern)
	}
	return out
}

func TestCommandsThatPagesNameExist(t *testing.T) {
	targets := matches(t, "Makefile", `(?m)^([a-z-]+):`)
	plugin := matches(t, "cmd/kubectl-tide/*.go", `Use:\s+"([a-z]+)`)
	server := matches(t, "cmd/kubetide/*.go", `Use:\s+"([a-z]+)`)
	for _, c := range []struct {
		what    string
		known   map[string]bool
		pattern *regexp.Regexp
	}{
		{"make", targets, regexp.MustCompile(`^make ([a-z][a-z-]*)`)},
		{"kubectl tide", plugin, regexp.MustCompile(`^kubectl tide ([a-z]+)`)},
		{"kubetide", server, regexp.MustCompile(`^kubetide ([a-z]+)`)},
	} {
		seen := 0
		for name, text := range markdown(t) {
			if !forUsers(name) {
				continue
			}
			for _, span := range spans(name, text) {
				if m := c.pattern.FindStringSubmatch(span); m != nil {
					seen++
					if !c.known[m[1]] {
						t.Errorf("%s: `%s`: %s has no %s", name, span, c.what, m[1])
					}
				}
			}
		}
		if seen < 4 {
			t.Errorf("%s: only %d are named in pages", c.what, seen)
		}
	}
}

// othersFlags are flags that pages name and that are not those of kubetide server.
var othersFlags = map[string]string{
	"server.url": "kubetide server status", "forward": "kubetide server status",
	"watch": "kubectl tide", "limit": "kubectl tide", "context": "kubectl", "as": "kubectl",
	"cascade":                   "kubectl delete",
	"no-hooks":                  "helm uninstall",
	"warnings-as-errors":        "kubectl",
	"enable-aggregator-routing": "kube-apiserver",
	"algorithm-job-default-image-horizontal-predictive": "an older name",
	"cert-dir": "what Kubetide leaves out of a library's flags", "authentication-kubeconfig": "the same", "v": "the same",
}

func TestFlagsThatPagesNameExist(t *testing.T) {
	ours := matches(t, "docs/reference/flags.md", "`--([a-z0-9.-]+)")
	alone := regexp.MustCompile(`^--([a-z0-9.-]+)`)
	unknown := map[string]bool{}
	for name, text := range markdown(t) {
		// The guides for moving name the flags of what people come from.
		if !forUsers(name) || strings.Contains(name, "moving-from-") {
			continue
		}
		for _, span := range blocks.Code(blocks.Prose(text)) {
			m := alone.FindStringSubmatch(span)
			if m == nil || ours[m[1]] {
				continue
			}
			unknown[m[1]] = true
			if othersFlags[m[1]] == "" {
				t.Errorf("%s: `%s`: kubetide server has no flag --%s", name, span, m[1])
			}
		}
	}
	for flag := range othersFlags {
		if !unknown[flag] {
			t.Errorf("othersFlags: no page names --%s", flag)
		}
	}
}
