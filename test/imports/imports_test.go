// Package imports holds the project to the direction of its imports: cmd → workloads → scaler → portraits, and
// cmd → adapter → collectors; internal/* below both; api below all. Tests may import what they need.
package imports

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/kubetide/kubetide/"

// mayImport lists, for each room of the house, the other rooms that its code may use. A package may always use others of
// its own room. The first entry whose prefix matches a package decides.
var mayImport = []struct {
	room    string
	allowed []string
}{
	{"cmd", []string{"workloads", "scaler", "portraits", "adapter", "collectors", "internal", "api"}},
	{"workloads", []string{"scaler", "portraits", "internal", "api"}},
	{"scaler", []string{"portraits", "internal", "api"}},
	{"portraits", []string{"internal", "api"}},
	{"adapter", []string{"collectors", "internal", "api"}},
	{"collectors", []string{"internal", "api"}},
	{"internal", []string{"api"}},
	{"api", nil},
	{"deploy", []string{"test"}},   // what renders the manifests has helm built as the lab has its parts
	{"docs", []string{"internal"}}, // the reference is made from the server's own flags
	{"test", []string{"api", "test", "internal", "adapter", "collectors", "scaler", "portraits", "workloads"}},
}

func room(pkg string) string {
	first, _, _ := strings.Cut(strings.TrimPrefix(pkg, module), "/")
	return first
}

// violation returns what is wrong with pkg importing imported, or "".
func violation(pkg, imported string) string {
	from, to := room(pkg), room(imported)
	if from == to {
		return ""
	}
	for _, rule := range mayImport {
		if rule.room == from {
			if slices.Contains(rule.allowed, to) {
				return ""
			}
			return pkg + " imports " + imported + ": " + from + " may import only " + strings.Join(rule.allowed, ", ")
		}
	}
	return pkg + " stands in the room " + from + ", which the layout does not know"
}

func TestImportsPointOneWay(t *testing.T) {
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports", module+"...")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	packages := 0
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		packages++
		for _, imported := range p.Imports {
			if !strings.HasPrefix(imported, module) {
				continue
			}
			if v := violation(p.ImportPath, imported); v != "" {
				t.Error(v)
			}
		}
	}
	if packages < 10 {
		t.Errorf("go list named only %d packages: the check looked at nothing", packages)
	}
}

func TestViolationsAreSeen(t *testing.T) {
	for name, tc := range map[string]struct {
		pkg, imported string
		wrong         bool
	}{
		"a portrait must not reach the adapter":          {module + "portraits/cron", module + "adapter/store", true},
		"a collector must not reach the store":           {module + "collectors/podjson", module + "adapter/store", true},
		"the engine must not reach the adapter":          {module + "scaler/ihpa", module + "adapter", true},
		"api must not import anything of ours":           {module + "api/zalando/v1", module + "internal/window", true},
		"the command wires everything":                   {module + "cmd/kubetide", module + "scaler/ihpa", false},
		"a portrait reads samples through internal":      {module + "portraits/cron", module + "internal/sample", false},
		"a package in an unknown room is a violation":    {module + "util/strings", module + "internal/sample", true},
		"packages of one room may use each other freely": {module + "adapter/discovery", module + "adapter/store", false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := violation(tc.pkg, tc.imported); (got != "") != tc.wrong {
				t.Errorf("violation = %q, wrong = %v", got, tc.wrong)
			}
		})
	}
}
