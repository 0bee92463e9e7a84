package lab

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"

	"github.com/kubetide/kubetide/test/lab/build"
	"github.com/kubetide/kubetide/test/lab/namespace"
)

// Part is a server beside the control plane: a real Prometheus, skipper, SQS server. It ends with the lab, or when it is stopped.
type Part struct{ component *component }

// Stop kills the server. It may be called more than once.
func (p *Part) Stop() { p.component.kill() }

// newPart is what a part needs before it starts: its binary, a name for its log and its files, and an address of its own that no
// policy takes for loopback. Each call gives another, so that a lab can have several of one kind.
func (l *Lab) newPart(ctx context.Context, kind string) (name, binary, address string, err error) {
	binaries, err := build.Binaries(ctx, l.options.Progress, kind)
	if err != nil {
		return "", "", "", fmt.Errorf("start %s: %w\n(nothing can be downloaded inside: name %q in lab.Main, or run make lab-build)", kind, err, kind)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.parts++
	name = kind + "-" + strconv.Itoa(l.parts)
	return name, binaries[kind], namespace.PartAddress(l.parts), nil
}

// partDir is where a part keeps its files.
func (l *Lab) partDir(name string) string { return filepath.Join(l.dir, name) }
