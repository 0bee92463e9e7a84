package lab

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// component is one of the lab's own processes.
type component struct {
	name string
	log  string
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
}

// run starts a component of the control plane.
func (l *Lab) run(name string, args ...string) (*component, error) {
	return l.launch(name, l.binaries[name], nil, args...)
}

// launch starts a component, with env besides its own environment; its output goes to its log file.
func (l *Lab) launch(name, binary string, env []string, args ...string) (*component, error) {
	c := &component{name: name, log: filepath.Join(l.logDir(), name+".log"), done: make(chan struct{})}
	log, err := os.Create(c.log)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	c.cmd = exec.Command(binary, args...)
	c.cmd.Dir = l.dir
	c.cmd.Env = append(os.Environ(), env...)
	c.cmd.Stdout, c.cmd.Stderr = log, log
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		_ = c.cmd.Wait()
		close(c.done)
	}()
	l.mu.Lock()
	l.components = append(l.components, c)
	l.mu.Unlock()
	return c, nil
}

func (c *component) kill() {
	_ = c.cmd.Process.Kill()
	<-c.done
}

// await calls check until it succeeds, the component ends, or a minute has passed.
func (c *component) await(ctx context.Context, what string, check func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		err := check(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-c.done:
			return fmt.Errorf("%s ended (%s) before %s; the end of %s:\n%s", c.name, c.cmd.ProcessState, what, c.log, tail(c.log))
		case <-ctx.Done():
			return fmt.Errorf("%s: waiting until %s: %w (last: %w); the end of %s:\n%s", c.name, what, context.Cause(ctx), err, c.log, tail(c.log))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// tail returns the last lines of a log, or why it cannot be read.
func tail(file string) string {
	data, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	lines := bytes.Split(bytes.TrimSpace(data), []byte("\n"))
	var b strings.Builder
	for _, line := range lines[max(0, len(lines)-20):] {
		b.WriteString("  | ")
		b.Write(line[:min(len(line), 500)])
		b.WriteByte('\n')
	}
	return b.String()
}
