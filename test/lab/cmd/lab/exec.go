package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/kubetide/kubetide/test/lab"
)

// A command from outside comes over a socket file, which crosses network namespaces, together with its standard streams.

// request asks for a command inside. Each message is one JSON document.
type request struct {
	Args   []string `json:",omitempty"`
	Dir    string   `json:",omitempty"`
	Env    []string `json:",omitempty"`
	Signal int      `json:",omitempty"` // for the command that runs already
}

type reply struct {
	Code  int
	Error string `json:",omitempty"`
}

const maxMessage = 128 << 10

// short gives access to a socket file whatever the length of its path, which the kernel bounds at 108 bytes.
func short(file string) (string, *os.File, error) {
	dir, err := os.Open(filepath.Dir(file))
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(file)), dir, nil
}

func listen(file string) (*net.UnixListener, error) {
	path, dir, err := short(file)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err == nil {
		l.SetUnlinkOnClose(false)
	}
	return l, err
}

func serveExec(listener *net.UnixListener, l *lab.Lab) {
	for {
		conn, err := listener.AcceptUnix()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			answer := reply{}
			code, err := serveOne(conn, l)
			answer.Code = code
			if err != nil {
				answer.Error = err.Error()
			}
			data, _ := json.Marshal(answer)
			_, _ = conn.Write(data)
		}()
	}
}

func serveOne(conn *net.UnixConn, l *lab.Lab) (int, error) {
	data, rights := make([]byte, maxMessage), make([]byte, unix.CmsgSpace(3*4))
	n, rn, _, _, err := conn.ReadMsgUnix(data, rights)
	if err != nil {
		return 0, err
	}
	var r request
	if err := json.Unmarshal(data[:n], &r); err != nil {
		return 0, fmt.Errorf("read the request: %w", err)
	}
	streams, err := receivedFiles(rights[:rn])
	defer func() {
		for _, f := range streams {
			f.Close()
		}
	}()
	if err != nil || len(streams) != 3 {
		return 0, fmt.Errorf("receive the standard streams: got %d: %w", len(streams), err)
	}
	cmd := &exec.Cmd{Args: r.Args, Dir: r.Dir, Env: append(r.Env, l.Env(pathIn(r.Env))...)}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = streams[0], streams[1], streams[2]
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if cmd.Path, err = lookPath(r.Args[0], cmd.Env); err != nil {
		return 127, err
	}
	if err := cmd.Start(); err != nil {
		return 126, err
	}
	go func() {
		for buffer := make([]byte, 1<<10); ; {
			n, err := conn.Read(buffer)
			var r request
			if err != nil || n == 0 || json.Unmarshal(buffer[:n], &r) != nil {
				_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL) // the caller is gone, or the command has ended
				return
			}
			_ = unix.Kill(-cmd.Process.Pid, syscall.Signal(r.Signal))
		}
	}()
	err = cmd.Wait()
	status := cmd.ProcessState.Sys().(syscall.WaitStatus)
	var exit *exec.ExitError
	switch {
	case status.Signaled():
		return 128 + int(status.Signal()), nil
	case errors.As(err, &exit):
		return status.ExitStatus(), nil
	}
	return 0, err
}

func receivedFiles(rights []byte) ([]*os.File, error) {
	messages, err := unix.ParseSocketControlMessage(rights)
	if err != nil || len(messages) == 0 {
		return nil, err
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return nil, err
	}
	var files []*os.File
	for _, fd := range fds {
		unix.CloseOnExec(fd)
		files = append(files, os.NewFile(uintptr(fd), "stream"))
	}
	return files, nil
}

// pathIn is the PATH of the environment.
func pathIn(env []string) (path string) {
	for _, pair := range env {
		if value, ok := strings.CutPrefix(pair, "PATH="); ok {
			path = value
		}
	}
	return path
}

// lookPath finds a command in the PATH of the environment that it will have.
func lookPath(name string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	for _, dir := range filepath.SplitList(pathIn(env)) {
		file := filepath.Join(dir, name)
		if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return file, nil
		}
	}
	return "", fmt.Errorf("%s: command not found", name)
}

func execCommand(name *string) *cobra.Command {
	return &cobra.Command{
		Use: "exec -- COMMAND [ARG...]", Short: "Run a command inside the lab's network namespace, with KUBECONFIG and kubectl at hand",
		Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			s := state{*name}
			if s.running() == 0 {
				return fmt.Errorf("the lab %q is not up", s.name)
			}
			return execInside(s, args)
		},
	}
}

func execInside(s state, args []string) error {
	path, dir, err := short(s.socket())
	if err != nil {
		return err
	}
	conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
	dir.Close()
	if err != nil {
		return fmt.Errorf("reach the lab %q: %w", s.name, err)
	}
	defer conn.Close()
	wd, err := os.Getwd()
	if err != nil {
		return err
	}
	data, err := json.Marshal(request{Args: args, Dir: wd, Env: os.Environ()})
	if err != nil {
		return err
	}
	if _, _, err := conn.WriteMsgUnix(data, unix.UnixRights(0, 1, 2), nil); err != nil {
		return fmt.Errorf("ask the lab %q: %w", s.name, err)
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT)
	go func() {
		for got := range signals {
			data, _ := json.Marshal(request{Signal: int(got.(syscall.Signal))})
			_, _ = conn.Write(data)
		}
	}()
	buffer := make([]byte, maxMessage)
	n, err := conn.Read(buffer)
	if err != nil {
		return fmt.Errorf("the lab %q ended: %w", s.name, err)
	}
	var answer reply
	if err := json.Unmarshal(buffer[:n], &answer); err != nil {
		return err
	}
	switch {
	case answer.Error != "":
		return errors.New(answer.Error)
	case answer.Code != 0:
		return exitError(answer.Code)
	}
	return nil
}
