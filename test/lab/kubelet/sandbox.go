package kubelet

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// sandbox is what a container's process gets: a root folder in memory with the machine's programs and libraries, a few files,
// and the mounts of its volumes; a host name; and nothing else of the machine's files.
type sandbox struct {
	Root     string
	ReadOnly bool
	Hostname string
	Dir      string
	Args     []string
	Env      []string
	Files    map[string]string
	Mounts   []mount
	// Network is the network namespace that the process enters, and HasNetwork whether there is one but the kubelet's.
	Network    *os.File `json:"-"`
	HasNetwork bool
}

type mount struct {
	Source, Target string
	ReadOnly       bool
}

const (
	stageEnv = "KUBETIDE_LAB_STAGE"
	// Descriptors of the process that becomes the container's.
	settingsFD, networkFD = 3, 4
)

// start runs this program again in mount and host name namespaces of its own; Main there becomes the container's process.
func (s sandbox) start(output *os.File) (*exec.Cmd, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer read.Close()
	defer write.Close()
	if err := os.MkdirAll(s.Root, 0o755); err != nil {
		return nil, err
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{"lab-pod"}
	cmd.Env = []string{stageEnv + "=pod"}
	cmd.Stdout, cmd.Stderr = output, output
	cmd.ExtraFiles = []*os.File{read}
	if s.HasNetwork = s.Network != nil; s.HasNetwork {
		cmd.ExtraFiles = append(cmd.ExtraFiles, s.Network)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWUTS, Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	read.Close()
	if _, err := write.Write(mustJSON(s)); err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return nil, fmt.Errorf("hand over the container's settings: %w", err)
	}
	return cmd, nil
}

// Main becomes a container's process if Start's kubelet started this process as one, and else returns. Call it first in main.
func Main() {
	if os.Getenv(stageEnv) != "pod" {
		return
	}
	var s sandbox
	err := json.NewDecoder(os.NewFile(settingsFD, "settings")).Decode(&s)
	if err == nil {
		err = s.enter()
	}
	fmt.Fprintf(os.Stderr, "lab: start %s: %v\n", strings.Join(s.Args, " "), err)
	os.Exit(128)
}

// enter does not return unless it fails.
func (s sandbox) enter() error {
	unix.CloseOnExec(settingsFD)
	if s.HasNetwork {
		runtime.LockOSThread() // the thread that executes the program takes its network along
		unix.CloseOnExec(networkFD)
		if err := unix.Setns(networkFD, unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter the pod's network: %w", err)
		}
	}
	if err := unix.Sethostname([]byte(s.Hostname)); err != nil {
		return fmt.Errorf("set the host name: %w", err)
	}
	if err := unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("lab-pod", s.Root, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return fmt.Errorf("mount the root folder: %w", err)
	}
	for _, dir := range []string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/ssl", "/etc/ca-certificates", "/etc/pki"} {
		if err := s.take(dir, true); err != nil {
			return err
		}
	}
	for _, dir := range []string{"/dev", "/proc"} {
		if err := s.take(dir, false); err != nil {
			return err
		}
	}
	for _, dir := range []string{"/tmp", "/var/tmp", "/run"} {
		if err := os.MkdirAll(s.Root+dir, 0o777); err != nil {
			return err
		}
		_ = os.Chmod(s.Root+dir, 0o777|fs.ModeSticky)
	}
	for name, content := range s.Files {
		if err := os.MkdirAll(filepath.Dir(s.Root+name), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(s.Root+name, []byte(content), 0o644); err != nil {
			return err
		}
	}
	for _, m := range s.Mounts {
		if err := bind(m.Source, s.Root+filepath.Clean("/"+m.Target), m.ReadOnly); err != nil {
			return err
		}
	}
	if s.ReadOnly {
		if err := readOnly(s.Root); err != nil {
			return err
		}
	}
	if err := unix.Chroot(s.Root); err != nil {
		return fmt.Errorf("change the root folder: %w", err)
	}
	if err := unix.Chdir(s.Dir); err != nil {
		return fmt.Errorf("working folder %s: %w", s.Dir, err)
	}
	path := s.Args[0]
	if !strings.Contains(path, "/") {
		for _, dir := range []string{"/usr/local/bin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/sbin", "/sbin"} {
			if _, err := os.Stat(filepath.Join(dir, path)); err == nil {
				path = filepath.Join(dir, path)
				break
			}
		}
	}
	return unix.Exec(path, s.Args, s.Env)
}

// take gives the container a folder of the machine, if it has it.
func (s sandbox) take(dir string, readOnly bool) error {
	info, err := os.Lstat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		target, err := os.Readlink(dir)
		if err != nil {
			return err
		}
		return os.Symlink(target, s.Root+dir)
	}
	return bind(dir, s.Root+dir, readOnly)
}

// bind mounts source, a folder or a file, at target, which it makes.
func bind(source, target string, ro bool) error {
	info, err := os.Stat(source)
	if err != nil {
		return err
	}
	if info.IsDir() {
		err = os.MkdirAll(target, 0o755)
	} else if err = os.MkdirAll(filepath.Dir(target), 0o755); err == nil {
		var f *os.File
		if f, err = os.OpenFile(target, os.O_CREATE|os.O_WRONLY, 0o755); err == nil {
			f.Close()
		}
	}
	if err != nil {
		return fmt.Errorf("make the mount point %s: %w", target, err)
	}
	if err := unix.Mount(source, target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("mount %s at %s: %w", source, target, err)
	}
	if ro {
		return readOnly(target)
	}
	return nil
}

// readOnly makes a mount read-only. What the kernel has locked for user namespaces has to be repeated, or it refuses.
func readOnly(target string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(target, &st); err != nil {
		return err
	}
	flags := uintptr(unix.MS_BIND | unix.MS_REMOUNT | unix.MS_RDONLY)
	for have, keep := range map[int64]uintptr{
		unix.ST_NOSUID: unix.MS_NOSUID, unix.ST_NODEV: unix.MS_NODEV, unix.ST_NOEXEC: unix.MS_NOEXEC,
		unix.ST_NOATIME: unix.MS_NOATIME, unix.ST_NODIRATIME: unix.MS_NODIRATIME, unix.ST_RELATIME: unix.MS_RELATIME,
	} {
		if st.Flags&have != 0 {
			flags |= keep
		}
	}
	if err := unix.Mount("", target, "", flags, ""); err != nil {
		return fmt.Errorf("make %s read-only: %w", target, err)
	}
	return nil
}
