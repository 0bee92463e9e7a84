// Command lab keeps a lab running in the background for people and for `make demo`: a real Kubernetes control plane on this
// machine, in a network namespace of its own, with a kubeconfig that works outside it.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/kubetide/kubetide/test/lab"
	"github.com/kubetide/kubetide/test/lab/build"
)

func main() {
	// The lab's own process passes here three times: outside, as process 1 inside, and as the program inside.
	if len(os.Args) > 1 && os.Args[1] == "run" {
		lab.Enter(os.Stderr) // up has built what it needs
	} else {
		lab.EnterStage()
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := command().ExecuteContext(ctx)
	stop()
	if err != nil {
		var exit exitError
		if errors.As(err, &exit) {
			os.Exit(int(exit))
		}
		fmt.Fprintln(os.Stderr, "lab: "+err.Error())
		os.Exit(1)
	}
}

// exitError passes on the exit code of a command that lab exec ran.
type exitError int

func (e exitError) Error() string { return "exit code " + strconv.Itoa(int(e)) }

func command() *cobra.Command {
	var name string
	root := &cobra.Command{
		Use:   "lab",
		Short: "Run a real Kubernetes control plane on this machine",
		Long: `Run a real Kubernetes control plane on this machine: etcd, kube-apiserver, kube-controller-manager, kube-scheduler, and kwok for
nodes and pods, in a network namespace of its own. No root and no container engine are needed; the first start builds the
binaries from Go modules, which takes some minutes.

Pods are played by kwok; those whose image is given with --image run as real processes bound to their pod's address.`,
		Example: `  lab up --metrics-server
  export KUBECONFIG=$(lab kubeconfig)
  kubectl get nodes
  lab exec -- bash                           # a shell inside, where pod addresses answer
  lab down`,
		SilenceUsage: true, SilenceErrors: true,
	}
	root.PersistentFlags().StringVar(&name, "name", "default", "which lab; several can be up at once")
	root.AddCommand(upCommand(&name), runCommand(&name), downCommand(&name), statusCommand(&name), kubeconfigCommand(&name),
		execCommand(&name), buildCommand())
	return root
}

// options are the flags of lab up; lab run gets the same ones.
type options struct {
	lab    lab.Options
	images []string
}

func (o *options) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.IntVar(&o.lab.Nodes, "nodes", 2, "number of simulated nodes")
	flags.BoolVar(&o.lab.MetricsServer, "metrics-server", false, "install metrics-server")
	flags.DurationVar(&o.lab.HPASyncPeriod, "hpa-sync-period", 2*time.Second, "how often kube-controller-manager looks at HPAs")
	flags.StringArrayVar(&o.images, "image", nil, "IMAGE=BINARY: run pods of this image as processes of this binary (may be repeated)")
	flags.StringArrayVar(&o.lab.ControllerManagerArgs, "controller-manager-arg", nil, "argument for kube-controller-manager (may be repeated)")
	flags.StringArrayVar(&o.lab.APIServerArgs, "apiserver-arg", nil, "argument for kube-apiserver (may be repeated)")
}

func (o *options) parse() error {
	o.lab.Images = map[string]string{}
	for _, pair := range o.images {
		image, binary, ok := strings.Cut(pair, "=")
		if !ok || image == "" || binary == "" {
			return fmt.Errorf("--image %q: write IMAGE=BINARY", pair)
		}
		path, err := filepath.Abs(binary)
		if err != nil {
			return err
		}
		if _, err := os.Stat(path); err != nil {
			return fmt.Errorf("--image %q: %w", pair, err)
		}
		o.lab.Images[image] = path
	}
	return nil
}

func upCommand(name *string) *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use: "up", Short: "Start a lab in the background and print its kubeconfig's path", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.parse(); err != nil {
				return err
			}
			return up(cmd.Context(), state{*name}, o.lab.MetricsServer, os.Args[slices.Index(os.Args, "up")+1:])
		},
	}
	o.register(cmd)
	return cmd
}

// up starts this command again as `lab run`, detached, and waits until the lab is ready. If it is interrupted or fails,
// nothing stays.
func up(ctx context.Context, s state, metricsServer bool, args []string) error {
	if s.running() != 0 {
		return fmt.Errorf("the lab %q is up already: use it (KUBECONFIG=%s) or end it with: lab down --name %s", s.name, s.kubeconfig(), s.name)
	}
	if err := os.RemoveAll(s.dir()); err != nil {
		return err
	}
	if err := os.MkdirAll(s.dir(), 0o700); err != nil {
		return err
	}
	want := build.ControlPlane
	if metricsServer {
		want = append([]string{"metrics-server"}, want...)
	}
	if _, err := build.Binaries(ctx, os.Stderr, want...); err != nil {
		return err
	}
	log, err := os.Create(s.log())
	if err != nil {
		return err
	}
	defer log.Close()
	run := exec.Command("/proc/self/exe", append([]string{"run", "--name", s.name}, args...)...)
	run.Stdout, run.Stderr = log, log
	run.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := run.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() { _ = run.Wait(); close(ended) }()
	abandon := func() {
		end(run.Process.Pid, func() bool {
			select {
			case <-ended:
				return true
			default:
				return false
			}
		})
		_ = os.RemoveAll(s.dir())
	}
	if err := s.writePID(run.Process.Pid); err != nil {
		abandon()
		return err
	}
	shown := 0
	show := func() []byte {
		text, _ := os.ReadFile(s.log())
		os.Stderr.Write(text[shown:])
		shown = len(text)
		return text
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			abandon()
			return errors.New("interrupted; nothing is left running")
		case <-ended:
			show()
			_ = os.RemoveAll(s.dir())
			return errors.New("the lab did not start; see above")
		case <-tick.C:
			show()
			if _, err := os.Stat(s.kubeconfig()); err == nil {
				fmt.Fprintf(os.Stderr, "\nThe lab %q is up. Logs: %s\nEnd it with: lab down --name %s\n\n", s.name, filepath.Join(s.dir(), "logs"), s.name)
				fmt.Printf("export KUBECONFIG=%s\n", s.kubeconfig())
				return nil
			}
		}
	}
}

func runCommand(name *string) *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use: "run", Short: "Be the lab's own process", Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.parse(); err != nil {
				return err
			}
			return run(cmd.Context(), state{*name}, o.lab)
		},
	}
	o.register(cmd)
	return cmd
}

func run(ctx context.Context, s state, options lab.Options) error {
	options.Dir, options.Progress = s.dir(), os.Stderr
	l, err := lab.Start(ctx, options)
	if err != nil {
		return err
	}
	defer l.Stop()
	listener, err := listen(s.socket())
	if err != nil {
		return err
	}
	defer listener.Close()
	go serveExec(listener, l)
	file, err := l.OutsideKubeconfig()
	if err != nil {
		return err
	}
	// Its existence says that the lab is ready, so it appears whole.
	if err := os.Rename(file, s.kubeconfig()); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

func downCommand(name *string) *cobra.Command {
	return &cobra.Command{
		Use: "down", Short: "End a lab and remove all that it left", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			s := state{*name}
			if pid := s.running(); pid != 0 {
				end(pid, func() bool { return s.running() == 0 })
				fmt.Fprintf(os.Stderr, "the lab %q is down\n", s.name)
			} else {
				fmt.Fprintf(os.Stderr, "the lab %q is not up\n", s.name)
			}
			return os.RemoveAll(s.dir())
		},
	}
}

// end asks the lab's outer process to end, and after ten seconds kills it: the kernel then ends everything inside.
func end(pid int, ended func() bool) {
	_ = unix.Kill(pid, unix.SIGTERM)
	for deadline := time.Now().Add(10 * time.Second); !ended(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
}

func statusCommand(name *string) *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Tell whether a lab is up; the exit code is 1 if not", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			s := state{*name}
			pid := s.running()
			if pid == 0 {
				return fmt.Errorf("the lab %q is not up", s.name)
			}
			if _, err := os.Stat(s.kubeconfig()); err != nil {
				return fmt.Errorf("the lab %q is starting", s.name)
			}
			fmt.Printf("the lab %q is up: process %d, KUBECONFIG=%s, logs in %s\n", s.name, pid, s.kubeconfig(), filepath.Join(s.dir(), "logs"))
			return nil
		},
	}
}

func kubeconfigCommand(name *string) *cobra.Command {
	return &cobra.Command{
		Use: "kubeconfig", Short: "Print the path of the kubeconfig that works outside", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			s := state{*name}
			if s.running() == 0 {
				return fmt.Errorf("the lab %q is not up", s.name)
			}
			fmt.Println(s.kubeconfig())
			return nil
		},
	}
}

func buildCommand() *cobra.Command {
	return &cobra.Command{
		Use: "build [BINARY...]", Short: "Build the lab's binaries into the cache and print their paths",
		ValidArgs: build.All(),
		RunE: func(cmd *cobra.Command, names []string) error {
			if len(names) == 0 {
				names = build.All()
			}
			paths, err := build.Binaries(cmd.Context(), os.Stderr, names...)
			for _, name := range names {
				if err == nil {
					fmt.Println(paths[name])
				}
			}
			return err
		},
	}
}
