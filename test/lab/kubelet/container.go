package kubelet

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// container keeps one container running.
type container struct {
	worker *worker
	spec   *corev1.Container

	mu       sync.Mutex
	state    corev1.ContainerState
	last     corev1.ContainerState
	ready    bool
	started  bool
	restarts int32
	pid      int
	done     bool
	used     time.Duration // processor time of runs that have ended
}

func newContainer(w *worker, spec *corev1.Container) *container {
	c := &container{worker: w, spec: spec}
	c.state.Waiting = &corev1.ContainerStateWaiting{Reason: "ContainerCreating"}
	return c
}

func (c *container) processID() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pid
}

// finished tells whether the container will not run again.
func (c *container) finished() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.done
}

func (c *container) status() corev1.ContainerStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	return corev1.ContainerStatus{
		Name: c.spec.Name, Image: c.spec.Image, ImageID: c.spec.Image, ContainerID: "",
		State: *c.state.DeepCopy(), LastTerminationState: *c.last.DeepCopy(),
		Ready: c.ready, Started: ptr.To(c.started), RestartCount: c.restarts,
	}
}

// change changes the container's state under its lock and has the pod's status looked at.
func (c *container) change(f func()) {
	c.mu.Lock()
	f()
	c.mu.Unlock()
	c.worker.touch()
}

// The pause before a restart: none, then one second, doubling, forgotten after a minute of running. A real kubelet's are ten times
// as long.
const (
	firstPause, longestPause = time.Second, 30 * time.Second
	forgetPause              = time.Minute
)

// run starts the process again and again, as the pod's restart policy says, until the context ends: then gracefully.
func (c *container) run(ctx context.Context) {
	defer c.change(func() { c.done, c.ready, c.pid = true, false, 0 })
	var pause time.Duration
	for {
		began := time.Now()
		end := c.runOnce(ctx)
		c.change(func() {
			c.state, c.ready, c.started, c.pid = corev1.ContainerState{Terminated: end}, false, false, 0
		})
		policy := c.worker.latest().Spec.RestartPolicy
		if ctx.Err() != nil || policy == corev1.RestartPolicyNever || policy == corev1.RestartPolicyOnFailure && end.ExitCode == 0 {
			return
		}
		if time.Since(began) > forgetPause {
			pause = 0
		}
		if pause > 0 {
			c.change(func() {
				c.last = corev1.ContainerState{Terminated: end}
				c.state = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{
					Reason: "CrashLoopBackOff", Message: fmt.Sprintf("back-off %s restarting failed container=%s", pause, c.spec.Name),
				}}
			})
			if !wait(ctx, pause) {
				return
			}
		}
		pause = min(max(2*pause, firstPause), longestPause)
		c.change(func() {
			c.last = corev1.ContainerState{Terminated: end}
			c.restarts++
		})
	}
}

// runOnce runs the process until it ends, or ends it when the context does or the liveness probe fails.
func (c *container) runOnce(ctx context.Context) *corev1.ContainerStateTerminated {
	began := metav1.Now()
	end := func(code int32, reason, message string) *corev1.ContainerStateTerminated {
		return &corev1.ContainerStateTerminated{
			ExitCode: code, Reason: reason, Message: message, StartedAt: began, FinishedAt: metav1.Now(),
		}
	}
	cmd, err := c.start(ctx)
	if err != nil {
		return end(128, "StartError", err.Error())
	}
	pid := cmd.Process.Pid
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		_ = unix.Kill(-pid, unix.SIGKILL) // what it may have left
		close(ended)
	}()
	c.change(func() {
		c.state = corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: began}}
		c.pid, c.started = pid, c.spec.StartupProbe == nil
		c.ready = c.started && c.spec.ReadinessProbe == nil
	})
	probing, stopProbes := context.WithCancel(ctx)
	dead := make(chan string, 1)
	var probes sync.WaitGroup
	probes.Go(func() { c.probe(probing, dead) })
	defer probes.Wait()
	defer stopProbes()

	pod := c.worker.latest()
	grace := ptr.Deref(pod.Spec.TerminationGracePeriodSeconds, 30)
	why := ""
	select {
	case <-ended:
	case why = <-dead:
		c.end(pid, ended, time.Duration(grace)*time.Second)
	case <-ctx.Done():
		if pod = c.worker.latest(); pod.DeletionGracePeriodSeconds != nil {
			grace = *pod.DeletionGracePeriodSeconds
		}
		// A pod that is still wanted means that the whole lab ends.
		if pod.DeletionTimestamp == nil {
			grace = 0
		}
		c.end(pid, ended, time.Duration(grace)*time.Second)
	}
	c.change(func() { c.used += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime() })
	status := cmd.ProcessState.Sys().(syscall.WaitStatus)
	switch {
	case status.Signaled():
		e := end(128+int32(status.Signal()), "Error", why)
		e.Signal = int32(status.Signal())
		return e
	case status.ExitStatus() != 0:
		return end(int32(status.ExitStatus()), "Error", why)
	}
	return end(0, "Completed", why)
}

// end ends a process: the preStop pause, SIGTERM, and SIGKILL when the grace period is over.
func (c *container) end(pid int, ended <-chan struct{}, grace time.Duration) {
	if grace > 0 {
		over := time.NewTimer(grace)
		defer over.Stop()
		if c.spec.Lifecycle != nil && c.spec.Lifecycle.PreStop != nil {
			select {
			case <-time.After(time.Duration(c.spec.Lifecycle.PreStop.Sleep.Seconds) * time.Second):
			case <-ended:
				return
			case <-over.C:
			case <-c.worker.gone:
			}
		}
		_ = unix.Kill(pid, unix.SIGTERM)
		select {
		case <-ended:
			return
		case <-over.C:
		case <-c.worker.gone: // deleted by force
		}
	}
	_ = unix.Kill(-pid, unix.SIGKILL)
	<-ended
}

// start starts the process in a root of its own.
func (c *container) start(ctx context.Context) (*exec.Cmd, error) {
	w := c.worker
	pod := w.latest()
	binary, ok := w.kubelet.Binary(c.spec.Image)
	if !ok {
		return nil, fmt.Errorf("image %s is not registered with the lab", c.spec.Image)
	}
	env, err := w.environment(ctx, c.spec)
	if err != nil {
		return nil, err
	}
	s := sandbox{
		Root: filepath.Join(w.dir, "root", c.spec.Name), Hostname: hostname(pod), Dir: "/", Env: env.list(),
		Files: map[string]string{
			"/etc/hostname":    hostname(pod) + "\n",
			"/etc/hosts":       hosts(pod, w.kubelet.ClusterDomain, w.address),
			"/etc/resolv.conf": resolvConf(pod, w.kubelet.ClusterDomain, w.kubelet.Nameserver),
			"/etc/passwd":      "root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/:/sbin/nologin\n",
			"/etc/group":       "root:x:0:\nnonroot:x:65532:\n",
		},
	}
	if network := w.ownNetwork(); network != nil {
		s.Network = network.File()
	}
	if c.spec.WorkingDir != "" {
		s.Dir = c.spec.WorkingDir
	}
	if c.spec.SecurityContext != nil {
		s.ReadOnly = ptr.Deref(c.spec.SecurityContext.ReadOnlyRootFilesystem, false)
	}
	for _, word := range append(append([]string{}, c.spec.Command...), c.spec.Args...) {
		s.Args = append(s.Args, env.expand(word))
	}
	// The binary stands where the command says, or in the root folder; a command of the machine, such as /bin/sh, is that.
	place := "/" + filepath.Base(binary)
	if len(c.spec.Command) == 0 {
		s.Args = append([]string{place}, s.Args...)
	} else if _, err := os.Stat(s.Args[0]); err != nil && path.IsAbs(s.Args[0]) {
		place = s.Args[0]
	} else if !path.IsAbs(s.Args[0]) && path.Base(s.Args[0]) == filepath.Base(binary) {
		s.Args[0] = place
	}
	s.Mounts = append(s.Mounts, mount{Source: binary, Target: place, ReadOnly: true})
	for _, m := range c.spec.VolumeMounts {
		source, readOnly, err := w.volumes.source(m, env)
		if err != nil {
			return nil, err
		}
		s.Mounts = append(s.Mounts, mount{Source: source, Target: m.MountPath, ReadOnly: readOnly || m.ReadOnly})
	}
	log, err := os.OpenFile(w.kubelet.logFile(pod.Namespace, pod.Name, c.spec.Name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	return s.start(log)
}
