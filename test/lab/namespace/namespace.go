// Package namespace runs the current program again inside Linux namespaces of its own: network (addresses of pods are this
// machine's own and nothing outside can be reached), processes (whatever is started inside dies with it, also after kill -9)
// and mounts. Root is not needed where user namespaces are allowed. It knows nothing of Kubernetes.
package namespace

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"sync"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The addresses that are local inside.
const (
	// PodCIDR covers every pod: 10.244.0.0/16 for pods that kwok plays, 10.245.0.0/16 for pods that are real processes.
	PodCIDR = "10.244.0.0/15"
	// HostCIDR covers the lab's own servers.
	HostCIDR = "192.0.2.0/24"
	// HostAddress is where kube-apiserver is reached; it advertises no loopback address.
	HostAddress = "192.0.2.10"
	// DNSAddress is where pods find the names of Services.
	DNSAddress = "192.0.2.11"
)

const (
	stageEnv   = "KUBETIDE_LAB_STAGE"   // "init" for the first process inside, unset for the program
	insideEnv  = "KUBETIDE_LAB_INSIDE"  // the network namespace's identity, as the program inside sees it
	controlEnv = "KUBETIDE_LAB_CONTROL" // descriptor of the socket to the process outside
	controlFD  = 3
)

// control is the socket to the process outside, which opens listeners there.
var control struct {
	sync.Mutex
	file *os.File
}

// PartAddress is the address of the nth server beside the control plane, from 1 to 235.
func PartAddress(n int) string { return "192.0.2." + strconv.Itoa(19+n) }

// Enter returns at once inside the namespaces. Outside it runs the program again inside them, with the same arguments and
// standard streams, and exits with its exit code: it must be called first in main or TestMain. It exits with a sentence that
// says what to do where the kernel forbids it.
func Enter() {
	EnterStage()
	if !Inside() {
		fail(runOutside())
	}
	if fd, err := strconv.Atoi(os.Getenv(controlEnv)); err == nil {
		os.Unsetenv(controlEnv)
		unix.CloseOnExec(fd)
		control.file = os.NewFile(uintptr(fd), "control")
	}
}

// EnterStage becomes process 1 inside if Enter started this process as that, and else returns.
func EnterStage() {
	if os.Getenv(stageEnv) == "init" {
		fail(runInit())
	}
}

// Inside tells whether this process is in a lab's network namespace.
func Inside() bool {
	want := os.Getenv(insideEnv)
	return want != "" && want == identity()
}

func identity() string {
	var st unix.Stat_t
	if unix.Stat(ownNamespace, &st) != nil {
		return ""
	}
	return fmt.Sprintf("%d-%d", st.Dev, st.Ino)
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "lab: "+err.Error())
	os.Exit(1)
}

// errRefused says what to do where the kernel forbids namespaces; it is never treated as a pass.
func errRefused(err error) error {
	return fmt.Errorf("cannot make the namespaces that the lab runs in: %w; run as root, or let ordinary users make user namespaces "+
		"(sysctl user.max_user_namespaces above 0, kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0, "+
		"and in a container a seccomp profile that allows unshare)", err)
}

// runOutside starts the first process inside and serves it until it ends.
func runOutside() error {
	// PDEATHSIG fires when the thread that forked ends; the main goroutine keeps this one.
	runtime.LockOSThread()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socketpair: %w", err)
	}
	inside := os.NewFile(uintptr(pair[1]), "control")
	go serveListeners(pair[0])

	signals := make(chan os.Signal, 16)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2)

	start := func(user bool) (*exec.Cmd, error) {
		cmd := exec.Command("/proc/self/exe")
		cmd.Args = os.Args
		cmd.Env = append(os.Environ(), stageEnv+"=init")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		cmd.ExtraFiles = []*os.File{inside}
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWPID | unix.CLONE_NEWNS,
			Pdeathsig:  syscall.SIGKILL,
		}
		if user {
			cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
			cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
			cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
		}
		return cmd, cmd.Start()
	}
	root := os.Geteuid() == 0
	cmd, err := start(!root)
	if err != nil && root {
		cmd, err = start(true)
	}
	if err != nil {
		return errRefused(err)
	}
	inside.Close()
	go func() {
		for s := range signals {
			_ = cmd.Process.Signal(s)
		}
	}()
	err = cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return err
	}
	os.Exit(exitCode(cmd.ProcessState.Sys().(syscall.WaitStatus)))
	return nil
}

func exitCode(s syscall.WaitStatus) int {
	if s.Signaled() {
		return 128 + int(s.Signal())
	}
	return s.ExitStatus()
}

// runInit is process 1 inside: it sets up mounts and network, starts the program, forwards signals and reaps. When it ends the
// kernel ends everything else inside.
func runInit() error {
	if err := unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return errRefused(fmt.Errorf("make mounts private: %w", err))
	}
	// A container may hide parts of /proc, and then the kernel allows no new one: the old one serves, with the outer numbers.
	_ = unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	if err := setUpNetwork(); err != nil {
		return errRefused(err)
	}
	// Of two equal names the first would count; and no proxy can be reached from inside.
	for _, name := range []string{stageEnv, insideEnv, controlEnv, "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy"} {
		os.Unsetenv(name)
	}
	env := append(os.Environ(), insideEnv+"="+identity(), controlEnv+"="+strconv.Itoa(controlFD))

	signals := make(chan os.Signal, 16)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2)
	program, err := os.StartProcess("/proc/self/exe", os.Args, &os.ProcAttr{
		Env:   env,
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr, os.NewFile(controlFD, "control")},
	})
	if err != nil {
		return fmt.Errorf("start the program inside: %w", err)
	}
	pid := program.Pid
	go func() {
		for s := range signals {
			_ = unix.Kill(pid, s.(syscall.Signal))
		}
	}()
	for {
		var status syscall.WaitStatus
		got, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return fmt.Errorf("wait for the program inside: %w", err)
		case got == pid:
			os.Exit(exitCode(status))
		}
	}
}

func setUpNetwork() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find the loopback device: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("bring up the loopback device: %w", err)
	}
	addr, err := netlink.ParseAddr(HostAddress + "/32")
	if err != nil {
		return err
	}
	if err := netlink.AddrAdd(lo, addr); err != nil {
		return fmt.Errorf("add address %s: %w", HostAddress, err)
	}
	for _, cidr := range []string{PodCIDR, HostCIDR} {
		_, addresses, err := net.ParseCIDR(cidr)
		if err != nil {
			return err
		}
		route := &netlink.Route{
			LinkIndex: lo.Attrs().Index, Dst: addresses,
			Type: unix.RTN_LOCAL, Scope: netlink.SCOPE_HOST, Table: unix.RT_TABLE_LOCAL,
		}
		if err := netlink.RouteAdd(route); err != nil {
			return fmt.Errorf("route %s to loopback: %w", cidr, err)
		}
	}
	return nil
}

// ListenOutside opens a listener on a free port of 127.0.0.1 outside the namespaces, for a program inside to accept from. Only
// the program that called Enter can, not its children.
func ListenOutside() (net.Listener, error) {
	control.Lock()
	defer control.Unlock()
	if control.file == nil {
		return nil, errors.New("listen outside the lab: this program did not call Enter itself")
	}
	fd := int(control.file.Fd())
	if err := unix.Send(fd, []byte("listen"), 0); err != nil {
		return nil, fmt.Errorf("listen outside the lab: %w", err)
	}
	text, rights := make([]byte, 512), make([]byte, unix.CmsgSpace(4))
	n, rn, _, _, err := unix.Recvmsg(fd, text, rights, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("listen outside the lab: %w", err)
	}
	if n == 0 {
		return nil, errors.New("listen outside the lab: the process outside is gone")
	}
	if rn == 0 {
		return nil, fmt.Errorf("listen outside the lab: %s", text[:n])
	}
	msgs, err := unix.ParseSocketControlMessage(rights[:rn])
	if err != nil {
		return nil, fmt.Errorf("listen outside the lab: %w", err)
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil {
		return nil, fmt.Errorf("listen outside the lab: %w", err)
	}
	file := os.NewFile(uintptr(fds[0]), "listener")
	defer file.Close()
	return net.FileListener(file)
}

// serveListeners answers ListenOutside. A socket belongs to the network namespace in which it was made, wherever its
// descriptor goes.
func serveListeners(fd int) {
	request := make([]byte, 64)
	for {
		n, err := unix.Read(fd, request)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			return
		}
		if answerListen(fd) != nil {
			return
		}
	}
}

func answerListen(fd int) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return unix.Sendmsg(fd, []byte(err.Error()), nil, nil, 0)
	}
	defer listener.Close()
	file, err := listener.(*net.TCPListener).File()
	if err != nil {
		return unix.Sendmsg(fd, []byte(err.Error()), nil, nil, 0)
	}
	defer file.Close()
	return unix.Sendmsg(fd, []byte("ok"), unix.UnixRights(int(file.Fd())), nil, 0)
}
