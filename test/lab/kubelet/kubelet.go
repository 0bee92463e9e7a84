// Package kubelet runs pods as real processes: started with the command, arguments, environment, ConfigMaps, Secrets and token of
// the pod's spec, in a root folder of their own, probed, restarted and ended as a kubelet would, with an address of their own. All
// share the lab's network namespace, so a program must bind its pod's address (status.podIP) and not 0.0.0.0; only a pod that asks
// for it has a network namespace of its own. Left out: init containers, exec and grpc probes and hooks, users, limits, and volumes
// other than ConfigMap, Secret, projected, downwardAPI and emptyDir; a pod that needs what is left out stays waiting and says so in
// its status.
package kubelet

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"

	"github.com/kubetide/kubetide/test/lab/namespace"
)

// Options say what a kubelet serves.
type Options struct {
	Config *rest.Config
	// Nodes are the nodes whose pods it runs.
	Nodes []string
	// PodCIDR holds the pods' addresses, which must be local.
	PodCIDR string
	// APIServer is the host and port that pods find in their environment.
	APIServer [2]string
	// Nameserver is the address of the cluster's DNS, ClusterDomain the domain that it knows.
	Nameserver, ClusterDomain string
	// Listen is the address of the kubelet's own API (logs, resource metrics), served with CertFile and KeyFile.
	Listen, CertFile, KeyFile string
	// Dir takes the pods' volumes, LogDir a log for each container.
	Dir, LogDir string
	// Binary returns the binary that stands for an image.
	Binary func(image string) (path string, ok bool)
}

// Kubelet runs the pods of its nodes.
type Kubelet struct {
	Options
	client kubernetes.Interface
	cancel context.CancelFunc
	work   sync.WaitGroup
	prefix netip.Prefix

	mu      sync.Mutex
	workers map[types.UID]*worker
	next    netip.Addr
	used    map[netip.Addr]bool
}

// Start begins to run the nodes' pods, and returns when their nodes are leased and their pods known.
func Start(ctx context.Context, options Options) (*Kubelet, error) {
	client, err := kubernetes.NewForConfig(options.Config)
	if err != nil {
		return nil, err
	}
	prefix, err := netip.ParsePrefix(options.PodCIDR)
	if err != nil {
		return nil, err
	}
	for _, dir := range []string{options.Dir, options.LogDir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
	}
	listener, err := net.Listen("tcp", options.Listen)
	if err != nil {
		return nil, err
	}
	k := &Kubelet{
		Options: options, client: client, prefix: prefix, next: prefix.Masked().Addr().Next(),
		workers: map[types.UID]*worker{}, used: map[netip.Addr]bool{},
	}
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	k.cancel = cancel
	k.serve(running, listener)
	for _, node := range options.Nodes {
		if err := k.lease(ctx, node); err != nil {
			k.Stop()
			return nil, err
		}
		k.work.Go(func() {
			for wait(running, 10*time.Second) {
				_ = k.lease(running, node) // the next try comes before the lease runs out
			}
		})
		factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTweakListOptions(func(o *metav1.ListOptions) {
			o.FieldSelector = fields.OneTermEqualSelector("spec.nodeName", node).String()
		}))
		pods := factory.Core().V1().Pods().Informer()
		_, err := pods.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc:    func(obj any) { k.observe(running, obj.(*corev1.Pod)) },
			UpdateFunc: func(_, obj any) { k.observe(running, obj.(*corev1.Pod)) },
			DeleteFunc: func(obj any) {
				if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
					obj = gone.Obj
				}
				k.vanished(obj.(*corev1.Pod).UID)
			},
		})
		if err != nil {
			k.Stop()
			return nil, err
		}
		factory.Start(running.Done())
		k.work.Go(func() { <-running.Done(); factory.Shutdown() })
		if !cache.WaitForCacheSync(ctx.Done(), pods.HasSynced) {
			k.Stop()
			return nil, fmt.Errorf("list the pods of node %s: %w", node, ctx.Err())
		}
	}
	return k, nil
}

// Stop kills every process and forgets the pods, which stay in the API.
func (k *Kubelet) Stop() {
	k.cancel()
	k.work.Wait()
}

// wait waits and tells whether the context still lives.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// lease renews the node's lease, without which its pods would be evicted.
func (k *Kubelet) lease(ctx context.Context, node string) error {
	leases, now := k.client.CoordinationV1().Leases(corev1.NamespaceNodeLease), ptr.To(metav1.NowMicro())
	lease, err := leases.Get(ctx, node, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		_, err = leases.Create(ctx, &coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{Name: node},
			Spec:       coordinationv1.LeaseSpec{HolderIdentity: &node, LeaseDurationSeconds: ptr.To[int32](40), RenewTime: now},
		}, metav1.CreateOptions{})
	} else if err == nil {
		lease.Spec.RenewTime = now
		_, err = leases.Update(ctx, lease, metav1.UpdateOptions{})
	}
	if err != nil {
		return fmt.Errorf("lease node %s: %w", node, err)
	}
	return nil
}

func (k *Kubelet) observe(ctx context.Context, pod *corev1.Pod) {
	k.mu.Lock()
	defer k.mu.Unlock()
	w := k.workers[pod.UID]
	if w == nil {
		if pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
			if pod.DeletionTimestamp == nil {
				return
			}
		}
		address, ok := k.allocate()
		if !ok || ctx.Err() != nil {
			return
		}
		w = newWorker(k, pod, address)
		k.workers[pod.UID] = w
		k.work.Go(func() {
			w.run(ctx)
			k.mu.Lock()
			defer k.mu.Unlock()
			delete(k.workers, pod.UID)
			delete(k.used, address)
		})
	}
	w.update(pod)
}

func (k *Kubelet) vanished(uid types.UID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if w := k.workers[uid]; w != nil {
		w.vanish()
	}
}

// allocate hands out the pods' addresses in turn, so that one is not used again soon.
func (k *Kubelet) allocate() (netip.Addr, bool) {
	for range 1 << 16 {
		address := k.next
		if k.next = address.Next(); !k.prefix.Contains(k.next) {
			k.next = k.prefix.Masked().Addr().Next()
		}
		if k.prefix.Contains(address) && !k.used[address] {
			k.used[address] = true
			return address, true
		}
	}
	return netip.Addr{}, false
}

func (k *Kubelet) find(namespace, name string) *worker {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, w := range k.workers {
		if pod := w.latest(); pod.Namespace == namespace && pod.Name == name {
			return w
		}
	}
	return nil
}

// PID returns the process id of the first container of a pod, inside the namespaces.
func (k *Kubelet) PID(namespace, name string) (int, error) {
	w := k.find(namespace, name)
	if w == nil {
		return 0, fmt.Errorf("pod %s/%s is not a process of the lab", namespace, name)
	}
	if pid := w.containers[0].processID(); pid != 0 {
		return pid, nil
	}
	return 0, fmt.Errorf("pod %s/%s: its first container does not run now", namespace, name)
}

// Network returns the network of a pod that has one of its own.
func (k *Kubelet) Network(namespace, name string) (*namespace.Network, error) {
	w := k.find(namespace, name)
	if w == nil || w.ownNetwork() == nil {
		return nil, fmt.Errorf("pod %s/%s has no network of its own: annotate it with %s: %s", namespace, name, networkAnnotation, networkOwn)
	}
	return w.ownNetwork(), nil
}

// Signal sends a signal to the process of the first container of a pod.
func (k *Kubelet) Signal(namespace, name string, signal syscall.Signal) error {
	pid, err := k.PID(namespace, name)
	if err != nil {
		return err
	}
	if err := syscall.Kill(pid, signal); err != nil {
		return fmt.Errorf("signal pod %s/%s: %w", namespace, name, err)
	}
	return nil
}

// Logs returns what all containers of a pod have printed, over all restarts; also after the pod is gone, the last one of its name.
func (k *Kubelet) Logs(namespace, name string) (string, error) {
	files, err := filepath.Glob(k.logFile(namespace, name, "*"))
	if err != nil {
		return "", err
	}
	if len(files) == 0 {
		return "", fmt.Errorf("pod %s/%s has no logs", namespace, name)
	}
	var all []byte
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		all = append(all, data...)
	}
	return string(all), nil
}

func (k *Kubelet) logFile(namespace, pod, container string) string {
	return filepath.Join(k.LogDir, namespace+"_"+pod+"_"+container+".log")
}

func mustJSON(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return data
}
