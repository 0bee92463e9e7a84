// Package lab starts a real Kubernetes control plane on this machine, for tests and for trying things out: etcd, kube-apiserver,
// kube-controller-manager, kube-scheduler and kwok (nodes and pods), built from pinned Go modules, with fresh data, in a network
// namespace of its own. Pods whose image is registered run as real processes bound to their pod's address; all other pods are
// played by kwok, and their addresses are this machine's own, so that a test can listen on them. It needs Linux, Go and nothing
// else; no root. It may start processes and write below its folder; it never touches the machine's network.
//
// A test package uses it so:
//
//	func TestMain(m *testing.M) { lab.Main(m) } // runs the test binary again inside the namespaces
//
//	func TestX(t *testing.T) {
//		l, err := lab.Start(t.Context(), lab.Options{MetricsServer: true})
//		if err != nil { t.Fatal(err) }
//		t.Cleanup(l.Stop)
//		client := kubernetes.NewForConfigOrDie(l.Config())
//		...
//	}
//
// Ports are fixed, so one process can have one lab at a time; several processes have one each.
package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/kubetide/kubetide/test/lab/build"
	"github.com/kubetide/kubetide/test/lab/dns"
	"github.com/kubetide/kubetide/test/lab/kubelet"
	"github.com/kubetide/kubetide/test/lab/namespace"
)

const (
	hostAddress    = namespace.HostAddress
	serviceAddress = "10.96.0.1" // the Service "kubernetes"
	serviceCIDR    = "10.96.0.0/16"
	// simulatedCIDR holds the addresses of pods that kwok plays; processes get theirs from processCIDR.
	simulatedCIDR = "10.244.0.1/16"
	processCIDR   = "10.245.0.0/16"
	apiPort       = "6443"
)

// Options say how a lab is started. The zero value is a control plane with two simulated nodes and three for processes.
type Options struct {
	// Dir takes logs, certificates, kubeconfig and data. Default: a temporary folder that Stop removes, unless the environment
	// has KUBETIDE_LAB_KEEP=1.
	Dir string
	// Nodes is the number of simulated nodes. Default 2.
	Nodes int
	// HPASyncPeriod is how often kube-controller-manager looks at HPAs. Default 2 s (Kubernetes' own default is 15 s).
	HPASyncPeriod time.Duration
	// MetricsServer installs metrics-server, which serves the annotated usage of simulated pods and the real usage of processes.
	MetricsServer bool
	// Images are registered before anything else runs; see Lab.RegisterImage. Image to path of its binary.
	Images map[string]string
	// Progress is told what is being done. Default: silence.
	Progress io.Writer
	// APIServerArgs and ControllerManagerArgs are added to the command lines; of a flag given twice the last one wins.
	APIServerArgs, ControllerManagerArgs []string
}

// Lab is a running control plane.
type Lab struct {
	options  Options
	dir      string
	keep     bool
	lockFile *os.File
	binaries map[string]string
	pki      *pki
	client   kubernetes.Interface
	kubelet  *kubelet.Kubelet
	dns      *dns.Server
	began    time.Time
	audited  audited

	mu         sync.Mutex
	components []*component
	apiServer  *component
	apiServers int // started so far
	outages    []outage
	parts      int // started so far
	forwards   []io.Closer
	images     map[string]string
	stopOnce   sync.Once
}

// Main is TestMain's body: it builds what is missing, runs the test binary inside the namespaces, and exits with its result. The
// parts that tests start besides the control plane are named, since nothing can be built or installed inside: "prometheus",
// "skipper", "metrics-server", "sqs".
func Main(m *testing.M, parts ...string) {
	Enter(os.Stderr, parts...)
	os.Exit(m.Run())
}

// Enter builds the binaries if need be, telling progress, and continues inside the namespaces: outside it never returns, but
// exits with the exit code of the same program run inside. Call it first in main; parts are as in Main.
func Enter(progress io.Writer, parts ...string) {
	EnterStage()
	if !namespace.Inside() {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		_, err := build.Binaries(ctx, progress, append(parts, build.ControlPlane...)...)
		stop()
		if err != nil {
			fmt.Fprintln(os.Stderr, "lab: "+err.Error())
			os.Exit(1)
		}
	}
	namespace.Enter()
}

// EnterStage does what Enter does where the lab itself has started this program on the way in, and else returns. A program that
// enters only sometimes must call it first in main all the same.
func EnterStage() {
	kubelet.Main() // a pod's process on its way to becoming one
	namespace.EnterStage()
}

// Inside tells whether this process is in a lab's network namespace.
func Inside() bool { return namespace.Inside() }

// MustBeInside fails the test outside the namespaces: what would dial a pod there could reach a stranger.
func MustBeInside(t testing.TB) {
	t.Helper()
	if !Inside() {
		t.Fatal("this test must run in the lab's network namespace: the package's TestMain must call lab.Main")
	}
}

// Start starts a control plane and returns when it is ready: API, controllers, scheduler, nodes, and metrics-server if asked for.
// A failure carries the last lines of the log of the part that failed, and leaves nothing running.
func Start(ctx context.Context, options Options) (_ *Lab, err error) {
	if !Inside() {
		return nil, errors.New("start lab: not in the lab's network namespace: call lab.Main in TestMain, or lab.Enter first in main")
	}
	if options.Nodes == 0 {
		options.Nodes = 2
	}
	if options.HPASyncPeriod == 0 {
		options.HPASyncPeriod = 2 * time.Second
	}
	if options.Progress == nil {
		options.Progress = io.Discard
	}
	l := &Lab{options: options, began: time.Now(), images: map[string]string{}}
	defer func() {
		if err != nil {
			l.Stop()
			err = fmt.Errorf("start lab: %w", err)
		}
	}()
	want := build.ControlPlane
	if options.MetricsServer {
		want = append([]string{"metrics-server"}, want...)
	}
	if l.binaries, err = build.Binaries(ctx, options.Progress, want...); err != nil {
		return nil, err
	}
	if err := l.makeDir(); err != nil {
		return nil, err
	}
	if l.pki, err = newPKI(filepath.Join(l.dir, "pki")); err != nil {
		return nil, err
	}
	if err := l.startControlPlane(ctx); err != nil {
		return nil, err
	}
	return l, nil
}

// makeDir makes the lab's folder, after sweeping those that killed labs left behind.
func (l *Lab) makeDir() (err error) {
	l.dir, l.keep = l.options.Dir, true
	if l.dir == "" {
		sweep()
		l.keep = os.Getenv("KUBETIDE_LAB_KEEP") == "1"
		if l.dir, err = os.MkdirTemp("", tempPrefix); err != nil {
			return err
		}
		if !l.keep {
			if l.lockFile, err = os.Create(filepath.Join(l.dir, "lock")); err != nil {
				return err
			}
			if err := unix.Flock(int(l.lockFile.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
				return fmt.Errorf("lock %s: %w", l.dir, err)
			}
		}
	}
	if l.dir, err = filepath.Abs(l.dir); err != nil {
		return err
	}
	return os.MkdirAll(l.logDir(), 0o755)
}

const tempPrefix = "kubetide-lab-"

// sweep removes temporary folders whose lab is gone: nobody holds their lock. Folders younger than a minute may not have one yet.
func sweep() {
	locks, _ := filepath.Glob(filepath.Join(os.TempDir(), tempPrefix+"*", "lock"))
	for _, name := range locks {
		info, err := os.Stat(name)
		if err != nil || time.Since(info.ModTime()) < time.Minute {
			continue
		}
		f, err := os.Open(name)
		if err != nil {
			continue
		}
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			_ = os.RemoveAll(filepath.Dir(name))
		}
		f.Close()
	}
}

func (l *Lab) logDir() string { return filepath.Join(l.dir, "logs") }

// Dir is the lab's folder; logs/ in it holds a log for each part and for each process pod.
func (l *Lab) Dir() string { return l.dir }

// say tells progress.
func (l *Lab) say(format string, args ...any) {
	fmt.Fprintf(l.options.Progress, "%5.1fs  %s\n", time.Since(l.began).Seconds(), fmt.Sprintf(format, args...))
}

// Stop ends every process of the lab and removes its folder if that was a temporary one. It may be called more than once.
func (l *Lab) Stop() {
	l.stopOnce.Do(func() {
		l.mu.Lock()
		components, forwards := l.components, l.forwards
		l.mu.Unlock()
		for _, f := range forwards {
			f.Close()
		}
		if l.kubelet != nil {
			l.kubelet.Stop()
		}
		if l.dns != nil {
			l.dns.Stop()
		}
		// Asked politely, kube-apiserver waits up to a minute for open watches.
		for _, c := range components {
			c.kill()
		}
		if l.dir != "" && !l.keep {
			_ = os.RemoveAll(l.dir)
		} else if l.dir != "" {
			l.say("stopped; its logs are in %s", l.logDir())
		}
		if l.lockFile != nil {
			l.lockFile.Close()
		}
	})
}

// Config returns the administrator's configuration, without client-side rate limits.
func (l *Lab) Config() *rest.Config { return l.configOf(userAdmin) }

func (l *Lab) configOf(user string) *rest.Config {
	pair := l.pki.users[user]
	return &rest.Config{
		Host:            "https://" + hostAddress + ":" + apiPort,
		TLSClientConfig: rest.TLSClientConfig{CAData: l.pki.ca.certPEM, CertData: pair.cert, KeyData: pair.key},
		QPS:             -1,
		UserAgent:       strings.ReplaceAll(user, ":", "-"),
	}
}

// Env is what a command inside needs in its environment to work with the lab: KUBECONFIG, and a PATH with kubectl before the given one.
func (l *Lab) Env(path string) []string {
	return []string{"KUBECONFIG=" + l.KubeconfigPath(), "PATH=" + filepath.Dir(l.binaries["kubectl"]) + ":" + path}
}

// Client returns an administrator's client.
func (l *Lab) Client() kubernetes.Interface { return l.client }
