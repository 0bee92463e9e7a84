package kubelet

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"

	"github.com/kubetide/kubetide/test/lab/namespace"
)

// A pod asks for a network namespace of its own by this annotation with this value, when it is made.
const networkAnnotation, networkOwn = "lab.kubetide.io/network", "own"

// worker looks after one pod, from its placement to its end.
type worker struct {
	kubelet    *Kubelet
	address    netip.Addr
	dir        string
	containers []*container
	volumes    *volumes
	changed    chan struct{} // holds one item when the status has to be looked at
	terminate  chan struct{} // closed when the pod is being deleted
	gone       chan struct{} // closed when the pod is no longer in the API

	mu       sync.Mutex
	pod      *corev1.Pod
	trouble  error              // why the containers cannot be started
	network  *namespace.Network // nil for the lab's
	started  metav1.Time
	closing  sync.Once
	vanished sync.Once
}

func newWorker(k *Kubelet, pod *corev1.Pod, address netip.Addr) *worker {
	w := &worker{
		kubelet: k, address: address, pod: pod, dir: filepath.Join(k.Dir, string(pod.UID)), started: metav1.Now(),
		changed: make(chan struct{}, 1), terminate: make(chan struct{}), gone: make(chan struct{}),
	}
	w.volumes = newVolumes(w)
	for i := range pod.Spec.Containers {
		w.containers = append(w.containers, newContainer(w, &pod.Spec.Containers[i]))
	}
	return w
}

func (w *worker) latest() *corev1.Pod {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.pod
}

func (w *worker) update(pod *corev1.Pod) {
	w.mu.Lock()
	w.pod = pod
	w.mu.Unlock()
	if pod.DeletionTimestamp != nil {
		w.closing.Do(func() { close(w.terminate) })
	}
	w.touch()
}

func (w *worker) vanish() {
	w.closing.Do(func() { close(w.terminate) })
	w.vanished.Do(func() { close(w.gone) })
}

func (w *worker) touch() {
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

func (w *worker) run(ctx context.Context) {
	defer os.RemoveAll(w.dir)
	defer w.disconnect()
	running, stop := context.WithCancel(ctx)
	defer stop()
	var containers sync.WaitGroup
	if w.prepare(ctx) {
		for _, c := range w.containers {
			containers.Go(func() { c.run(running) })
		}
	}
	ended := make(chan struct{})
	refresh := time.NewTicker(2 * time.Second)
	defer refresh.Stop()
	terminate := w.terminate
	for {
		select {
		case <-ctx.Done():
			containers.Wait()
			return
		case <-refresh.C:
			_ = w.volumes.write(ctx) // what was written stays; the next try comes soon
		case <-terminate:
			terminate = nil
			go func() {
				stop()
				containers.Wait()
				close(ended)
			}()
		case <-w.changed:
			w.publish(ctx)
		case <-ended:
			w.publish(ctx)
			w.remove(ctx)
			return
		}
	}
}

// prepare makes the network and writes the volumes; until that succeeds the pod waits and says why. It tells whether the containers may start.
func (w *worker) prepare(ctx context.Context) bool {
	for {
		err := w.unsupported()
		if err == nil {
			err = w.connect()
		}
		if err == nil {
			err = w.volumes.write(ctx)
		}
		w.mu.Lock()
		w.trouble = err
		w.mu.Unlock()
		w.publish(ctx)
		if err == nil {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-w.terminate:
			return false
		case <-time.After(time.Second):
		}
	}
}

// connect gives the pod a network of its own, if it asks for that and has none yet.
func (w *worker) connect() error {
	if w.latest().Annotations[networkAnnotation] != networkOwn || w.ownNetwork() != nil {
		return nil
	}
	network, err := namespace.NewNetwork(w.address)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.network = network
	return nil
}

func (w *worker) disconnect() {
	if network := w.ownNetwork(); network != nil {
		_ = network.Close() // what is left ends with the lab
	}
}

func (w *worker) ownNetwork() *namespace.Network {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.network
}

// unsupported says what the pod needs and this kubelet lacks.
func (w *worker) unsupported() error {
	spec := w.latest().Spec
	if len(spec.InitContainers) > 0 {
		return fmt.Errorf("init container %s: the lab runs none in process pods", spec.InitContainers[0].Name)
	}
	for _, c := range spec.Containers {
		if _, ok := w.kubelet.Binary(c.Image); !ok {
			return fmt.Errorf("container %s: image %s is not registered with the lab", c.Name, c.Image)
		}
		for kind, probe := range map[string]*corev1.Probe{"startup": c.StartupProbe, "liveness": c.LivenessProbe, "readiness": c.ReadinessProbe} {
			if probe != nil && probe.HTTPGet == nil && probe.TCPSocket == nil {
				return fmt.Errorf("container %s: %s probe: the lab knows httpGet and tcpSocket only", c.Name, kind)
			}
		}
		if c.Lifecycle != nil && (c.Lifecycle.PostStart != nil || c.Lifecycle.PreStop != nil && c.Lifecycle.PreStop.Sleep == nil) {
			return fmt.Errorf("container %s: lifecycle: the lab knows preStop.sleep only", c.Name)
		}
	}
	return nil
}

// remove deletes the pod from the API, as a kubelet does when its containers have ended.
func (w *worker) remove(ctx context.Context) {
	pod := w.latest()
	for {
		err := w.kubelet.client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{
			GracePeriodSeconds: new(int64), Preconditions: metav1.NewUIDPreconditions(string(pod.UID)),
		})
		if err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err) || !wait(ctx, time.Second) {
			return
		}
	}
}

// publish writes the pod's status if it differs from what the API has. Conditions of others, such as readiness gates, stay.
func (w *worker) publish(ctx context.Context) {
	select {
	case <-w.gone:
		return
	default:
	}
	pod := w.latest()
	if status := w.status(pod); equality.Semantic.DeepEqual(status, pod.Status) {
		return
	}
	err := retry.OnError(retry.DefaultBackoff, apierrors.IsConflict, func() error {
		current, err := w.kubelet.client.CoreV1().Pods(pod.Namespace).Get(ctx, pod.Name, metav1.GetOptions{})
		if err != nil || current.UID != pod.UID {
			return err
		}
		status := w.status(current)
		if equality.Semantic.DeepEqual(status, current.Status) {
			return nil
		}
		current.Status = status
		_, err = w.kubelet.client.CoreV1().Pods(pod.Namespace).UpdateStatus(ctx, current, metav1.UpdateOptions{})
		return err
	})
	if err != nil && !apierrors.IsNotFound(err) && ctx.Err() == nil {
		time.AfterFunc(time.Second, w.touch)
	}
}

// status computes the pod's status from that of its containers and from the gates' conditions.
func (w *worker) status(pod *corev1.Pod) corev1.PodStatus {
	w.mu.Lock()
	trouble := w.trouble
	w.mu.Unlock()
	status := *pod.Status.DeepCopy()
	status.StartTime = &w.started
	if pod.Status.StartTime != nil {
		status.StartTime = pod.Status.StartTime
	}
	status.HostIP, status.HostIPs = "127.0.0.1", []corev1.HostIP{{IP: "127.0.0.1"}}
	status.PodIP, status.PodIPs = w.address.String(), []corev1.PodIP{{IP: w.address.String()}}
	status.ContainerStatuses = nil
	var unready []string
	alive, failed := 0, 0
	for _, c := range w.containers {
		s := c.status()
		if trouble != nil {
			s.State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CreateContainerConfigError", Message: trouble.Error()}}
		}
		status.ContainerStatuses = append(status.ContainerStatuses, s)
		if !s.Ready {
			unready = append(unready, s.Name)
		}
		switch {
		case !c.finished():
			alive++
		case s.State.Terminated != nil && s.State.Terminated.ExitCode != 0:
			failed++
		}
	}
	everRan := slices.ContainsFunc(status.ContainerStatuses, func(s corev1.ContainerStatus) bool {
		return s.State.Running != nil || s.State.Terminated != nil || s.LastTerminationState.Terminated != nil
	})
	switch {
	case alive > 0 && everRan:
		status.Phase = corev1.PodRunning
	case alive > 0:
		status.Phase = corev1.PodPending
	case failed > 0:
		status.Phase = corev1.PodFailed
	default:
		status.Phase = corev1.PodSucceeded
	}

	condition := func(kind corev1.PodConditionType, reason, message string) {
		want := corev1.PodCondition{Type: kind, Status: corev1.ConditionTrue, Reason: reason, Message: message, LastTransitionTime: metav1.Now()}
		if reason != "" {
			want.Status = corev1.ConditionFalse
		}
		i := slices.IndexFunc(status.Conditions, func(c corev1.PodCondition) bool { return c.Type == kind })
		if i < 0 {
			status.Conditions = append(status.Conditions, want)
			return
		}
		old := status.Conditions[i]
		if old.Status == want.Status {
			want.LastTransitionTime = old.LastTransitionTime
		}
		want.LastProbeTime, want.ObservedGeneration = old.LastProbeTime, old.ObservedGeneration
		status.Conditions[i] = want
	}
	condition(corev1.PodInitialized, "", "")
	if len(unready) > 0 {
		message := fmt.Sprintf("containers with unready status: [%s]", strings.Join(unready, " "))
		condition(corev1.ContainersReady, "ContainersNotReady", message)
		condition(corev1.PodReady, "ContainersNotReady", message)
		return status
	}
	condition(corev1.ContainersReady, "", "")
	var missing []string
	for _, gate := range pod.Spec.ReadinessGates {
		i := slices.IndexFunc(status.Conditions, func(c corev1.PodCondition) bool { return c.Type == gate.ConditionType })
		switch {
		case i < 0:
			missing = append(missing, fmt.Sprintf("corresponding condition of pod readiness gate %q does not exist.", gate.ConditionType))
		case status.Conditions[i].Status != corev1.ConditionTrue:
			missing = append(missing, fmt.Sprintf("the status of pod readiness gate %q is not \"True\", but %s", gate.ConditionType, status.Conditions[i].Status))
		}
	}
	if len(missing) > 0 {
		condition(corev1.PodReady, "ReadinessGatesNotReady", strings.Join(missing, ", "))
	} else {
		condition(corev1.PodReady, "", "")
	}
	return status
}
