package build

import (
	"bytes"
	"context"
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
		if err != nil || !regexp.MustCompile(`^v\d+\.\d+\.\d+$`).MatchString(version) {
			t.Errorf("%s: version %q, %v", c.name, version, err)
		}
	}
}

func TestBinariesOfKUBEBUILDER_ASSETSAreUsedAsTheyAre(t *testing.T) {
	assets := t.TempDir()
	t.Setenv("KUBEBUILDER_ASSETS", assets)
	for _, name := range All() {
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
