package build

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// npmFiles are what an npm component consists of; a change of any of them is another version.
var npmFiles = []string{".npmrc", "package.json", "package-lock.json", "server.mjs"}

// oldestNode is the oldest major version of Node.js that the SQS server runs on.
const oldestNode = 20

// hash names the content of a component's files.
func hash(source string) (string, error) {
	sum := sha256.New()
	for _, name := range npmFiles {
		data, err := os.ReadFile(filepath.Join(source, name))
		if err != nil {
			return "", err
		}
		fmt.Fprintf(sum, "%s %d\n%s", name, len(data), data)
	}
	return fmt.Sprintf("%x", sum.Sum(nil)[:8]), nil
}

// install has npm install what the lock file names, without running any package's scripts.
func (c component) install(ctx context.Context, report *reporter, source, dir string) error {
	if err := findNode(ctx); err != nil {
		return err
	}
	temp, err := os.MkdirTemp(filepath.Dir(dir), ".building-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	for _, name := range npmFiles {
		data, err := os.ReadFile(filepath.Join(source, name))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(temp, name), data, 0o755); err != nil {
			return err
		}
	}
	start := time.Now()
	say := func() {
		report.update(fmt.Sprintf("installing %s with npm, %s", c.name, time.Since(start).Round(time.Second)))
	}
	npm := command(ctx, temp, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
	if err := stream(ctx, npm, say, func(string) {}); err != nil {
		return err
	}
	// The binary's name appears last: its existence says that all is there.
	for _, name := range append([]string{"node_modules"}, npmFiles...) {
		target := filepath.Join(dir, name)
		if err := os.RemoveAll(target); err != nil {
			return err
		}
		if err := os.Rename(filepath.Join(temp, name), target); err != nil {
			return err
		}
	}
	for name, program := range c.packages {
		_ = os.Remove(filepath.Join(dir, name))
		if err := os.Symlink(program, filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	report.line(fmt.Sprintf("installed %s in %s", c.name, time.Since(start).Round(time.Second)))
	return nil
}

// findNode says what to install where Node.js or npm is missing or too old.
func findNode(ctx context.Context) error {
	advice := fmt.Sprintf("install Node.js %d or newer with npm, so that node and npm are in PATH (it is needed by the SQS server alone)", oldestNode)
	for _, name := range []string{"node", "npm"} {
		if _, err := exec.LookPath(name); errors.Is(err, exec.ErrNotFound) {
			return fmt.Errorf("%s is not found: %s", name, advice)
		} else if err != nil {
			return fmt.Errorf("find %s: %w: %s", name, err, advice)
		}
	}
	out, err := exec.CommandContext(ctx, "node", "--version").Output()
	if err != nil {
		return fmt.Errorf("ask node for its version: %w: %s", err, advice)
	}
	version := strings.TrimSpace(string(out))
	major, _, _ := strings.Cut(strings.TrimPrefix(version, "v"), ".")
	if n, err := strconv.Atoi(major); err != nil || n < oldestNode {
		return fmt.Errorf("node is %s: %s", version, advice)
	}
	return nil
}
