package build

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestEveryComponentIsPinned(t *testing.T) {
	for _, c := range components {
		source, err := sourceDir(c.name)
		if err != nil {
			t.Fatal(err)
		}
		version, err := c.version(source)
		if err != nil || !regexp.MustCompile(`^(v\d+\.\d+\.\d+|[0-9a-f]{16})$`).MatchString(version) {
			t.Errorf("%s: version %q, %v", c.name, version, err)
		}
	}
}

func TestBinariesOfKUBEBUILDER_ASSETSAreUsedAsTheyAre(t *testing.T) {
	assets := t.TempDir()
	t.Setenv("KUBEBUILDER_ASSETS", assets)
	for _, name := range append(All(), RouteGroupCRD) {
		if err := os.WriteFile(filepath.Join(assets, name), nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", "") // nothing can be built
	paths, err := Binaries(t.Context(), nil, All()...)
	if err != nil {
		t.Fatal(err)
	}
	for name, path := range paths {
		if path != filepath.Join(assets, name) {
			t.Errorf("%s: %s", name, path)
		}
	}
}

func TestAnUnknownBinaryIsAnErrorThatNamesTheKnownOnes(t *testing.T) {
	if _, err := Binaries(t.Context(), nil, "kubelet"); err == nil || !strings.Contains(err.Error(), "kube-scheduler") {
		t.Errorf("got %v", err)
	}
}

func TestASecondBuildWaitsForTheFirst(t *testing.T) {
	file := filepath.Join(t.TempDir(), "lock")
	unlock, err := lock(t.Context(), file, func() { t.Error("the first waited") })
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := lock(ctx, file, cancel); !errors.Is(err, context.Canceled) {
		t.Fatalf("the second got %v", err)
	}
	unlock()
	unlock, err = lock(t.Context(), file, func() { t.Error("waited for a lock that is free") })
	if err != nil {
		t.Fatal(err)
	}
	unlock()
}

func TestProgressIsOneLineOnATerminalAndFewLinesElsewhere(t *testing.T) {
	var out bytes.Buffer
	r := newReporter(&out)
	r.terminal = true
	r.update("1 of 2")
	r.update("2 of 2")
	r.line("built")
	if got, want := out.String(), "\r\x1b[K1 of 2\r\x1b[K2 of 2\r\x1b[Kbuilt\n"; got != want {
		t.Errorf("terminal: got %q, want %q", got, want)
	}
	out.Reset()
	r = newReporter(&out)
	r.update("too soon")
	r.last = r.last.Add(-5 * time.Second)
	r.update("1 of 2")
	r.update("too soon again")
	r.line("built")
	if got, want := out.String(), "1 of 2\nbuilt\n"; got != want {
		t.Errorf("elsewhere: got %q, want %q", got, want)
	}
}

func TestWithoutASuitableNodeTheErrorSaysWhatToInstall(t *testing.T) {
	for name, test := range map[string]struct {
		programs map[string]string
		want     string // "": no error
	}{
		"neither is there": {nil, "node is not found: install Node.js 20 or newer with npm"},
		"npm is not there": {map[string]string{"node": "echo v20.1.0"}, "npm is not found: install Node.js 20"},
		"node is too old":  {map[string]string{"node": "echo v18.19.0", "npm": ""}, "node is v18.19.0: install Node.js 20"},
		"node is broken":   {map[string]string{"node": "exit 1", "npm": ""}, "ask node for its version: exit status 1: install"},
		"node is strange":  {map[string]string{"node": "echo deno", "npm": ""}, "node is deno: install"},
		"the oldest node":  {map[string]string{"node": "echo v20.0.0", "npm": ""}, ""},
		"a newer node":     {map[string]string{"node": "echo v104.1.2", "npm": ""}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			t.Setenv("PATH", dir)
			for program, line := range test.programs {
				if err := os.WriteFile(filepath.Join(dir, program), []byte("#!/bin/sh\n"+line+"\n"), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			err := findNode(t.Context())
			if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

func TestTheLockFilePinsEveryPackageAndNamesNoRegistry(t *testing.T) {
	source, err := sourceDir("sqs")
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(source, "package-lock.json"))
	if err != nil {
		t.Fatal(err)
	}
	var lock struct {
		Packages map[string]struct{ Version, Resolved, Integrity string }
	}
	if err := json.Unmarshal(data, &lock); err != nil {
		t.Fatal(err)
	}
	for name, p := range lock.Packages {
		if name != "" && (p.Version == "" || p.Integrity == "" || p.Resolved != "") {
			t.Errorf("%s: version %q, integrity %q, resolved %q", name, p.Version, p.Integrity, p.Resolved)
		}
	}
	if len(lock.Packages) < 2 {
		t.Errorf("the lock file holds %d packages", len(lock.Packages))
	}
}
