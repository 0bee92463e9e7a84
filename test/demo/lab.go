package main

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/apimachinery/pkg/watch"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	zalando "github.com/kubetide/kubetide/api/zalando/v1"
)

// system is Kubetide's namespace.
const system = "kubetide-system"

// manifests are what the chapters apply.
//
//go:embed manifests
var manifests embed.FS

// lab is the lab that bin/lab keeps, and Kubetide in it.
type lab struct {
	name, bin, kubeconfig string
	up                    bool
	config                *rest.Config
	http                  *http.Client
	client                client.WithWatch
	parts                 map[string]*part
	children              sync.WaitGroup // processes that end with the story
}

func newLab(name string) *lab { return &lab{name: name, bin: "bin", parts: map[string]*part{}} }

// start builds what is missing and starts the control plane. The parts are built meanwhile and after, at the lowest priority.
func (l *lab) start(ctx context.Context, s *screen, parts []string) (err error) {
	if l.bin, err = filepath.Abs("bin"); err != nil {
		return err
	}
	l.down() // one that an earlier demo left up
	s.print("==> a control plane; the first time it is built from source, which takes minutes\n")
	up := exec.CommandContext(ctx, l.lab(), "up", "--name", l.name,
		"--image", "kubetide/kubetide="+filepath.Join(l.bin, "kubetide"), "--image", "kubetide/demo-shop="+filepath.Join(l.bin, "demo-shop"))
	up.Stderr = s.out // its progress; the line on its standard output is for shells
	interruptible(up)
	if err := up.Run(); err != nil {
		return fmt.Errorf("lab up: %w", err)
	}
	l.up = true
	for _, name := range parts {
		l.parts[name] = l.build(ctx, name)
	}
	out, err := exec.CommandContext(ctx, l.lab(), "kubeconfig", "--name", l.name).Output()
	if err != nil {
		return fmt.Errorf("lab kubeconfig: %w", err)
	}
	l.kubeconfig = strings.TrimSpace(string(out))
	if l.config, err = clientcmd.BuildConfigFromFlags("", l.kubeconfig); err != nil {
		return err
	}
	l.config.QPS = -1
	// One connection for each request in flight: over HTTP/2 they would share one.
	plain := rest.CopyConfig(l.config)
	plain.NextProtos = []string{"http/1.1"}
	if l.http, err = rest.HTTPClientFor(plain); err != nil {
		return err
	}
	l.http.Timeout = 5 * time.Second
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, kapacity.AddToScheme, zalando.AddToScheme} {
		if err := add(scheme); err != nil {
			return err
		}
	}
	l.client, err = client.NewWithWatch(l.config, client.Options{Scheme: scheme})
	return err
}

func (l *lab) lab() string { return filepath.Join(l.bin, "lab") }

func (l *lab) down() {
	_ = exec.Command(l.lab(), "down", "--name", l.name).Run()
	l.up = false
}

// interruptible has a command interrupted, not killed, when its context ends.
func interruptible(cmd *exec.Cmd) {
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 30 * time.Second
}

// inside is a command that runs in the lab's network.
func (l *lab) inside(ctx context.Context, command ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, l.lab(), append([]string{"exec", "--name", l.name, "--"}, command...)...)
	interruptible(cmd)
	return cmd
}

// kubectl runs kubectl and returns what it printed; the error has it, too.
func (l *lab) kubectl(ctx context.Context, args ...string) (string, error) {
	cmd := l.inside(ctx, append([]string{"kubectl"}, args...)...)
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("kubectl %s: %w: %s%s", strings.Join(args, " "), err, &out, &stderr)
	}
	return out.String(), nil
}

// install applies deploy/kustomize/base. It returns when one of the servers answers: the others come up while the story begins.
func (l *lab) install(ctx context.Context, s *screen) error {
	s.print("==> Kubetide: kubectl apply --server-side -k deploy/kustomize/base\n")
	s.doing("it is installed")
	defer s.doing("")
	if _, err := l.kubectl(ctx, "apply", "--server-side", "-k", "deploy/kustomize/base"); err != nil {
		return err
	}
	err := until(ctx, 3*time.Minute, func(ctx context.Context) error {
		err := l.answers(ctx)
		if err != nil && ctx.Err() == nil {
			s.doing("%v", err)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("install Kubetide: %w", err)
	}
	s.say("Kubetide serves")
	return nil
}

// answers tells whether Kubetide's APIs and its webhook can be reached.
func (l *lab) answers(ctx context.Context) error {
	n, err := l.serversReady(ctx)
	if err != nil {
		return err
	}
	if n == 0 {
		return errors.New("no server of Kubetide is ready yet")
	}
	for _, group := range []string{"custom.metrics.k8s.io/v1beta2", "external.metrics.k8s.io/v1beta1"} {
		if _, err := l.get(ctx, "/apis/"+group); err != nil {
			return err
		}
	}
	probe := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "probe", Namespace: "default", Labels: map[string]string{kapacity.InjectReadinessGateLabel: "true"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "a", Image: "a"}}},
	}
	if err := l.client.Create(ctx, probe, client.DryRunAll); err != nil {
		return err
	}
	if len(probe.Spec.ReadinessGates) == 0 {
		return errors.New("the webhook does not answer yet")
	}
	return nil
}

// serversReady is how many servers of Kubetide are ready.
func (l *lab) serversReady(ctx context.Context) (int32, error) {
	var set appsv1.StatefulSet
	err := l.client.Get(ctx, client.ObjectKey{Namespace: system, Name: "kubetide"}, &set)
	return set.Status.ReadyReplicas, err
}

// get asks the API server.
func (l *lab) get(ctx context.Context, path string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, l.config.Host+path, nil)
	if err != nil {
		return nil, err
	}
	response, err := l.http.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", path, response.Status, bytes.TrimSpace(body))
	}
	return body, err
}

// apply applies a file of manifests in the namespace, which it makes.
func (l *lab) apply(ctx context.Context, namespace, file string) error {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}
	if err := l.client.Create(ctx, ns); err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	data, err := manifests.ReadFile("manifests/" + file)
	if err != nil {
		return err
	}
	objects, err := decode(data)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	for _, o := range objects {
		o.SetNamespace(namespace)
		if err := l.client.Apply(ctx, client.ApplyConfigurationFromUnstructured(o), client.FieldOwner("demo"), client.ForceOwnership); err != nil {
			return fmt.Errorf("%s: %s %s: %w", file, o.GetKind(), o.GetName(), err)
		}
	}
	return nil
}

func decode(data []byte) (objects []*unstructured.Unstructured, err error) {
	decoder := utilyaml.NewYAMLOrJSONDecoder(bytes.NewReader(data), 4096)
	for {
		o := &unstructured.Unstructured{}
		if err := decoder.Decode(o); errors.Is(err, io.EOF) {
			return objects, nil
		} else if err != nil {
			return nil, err
		}
		if len(o.Object) > 0 {
			objects = append(objects, o)
		}
	}
}

// readyPods counts the pods of an app that are not on their way out, and those of them that are ready.
func (l *lab) readyPods(ctx context.Context, namespace, app string) (ready, pods int, err error) {
	var list corev1.PodList
	if err := l.client.List(ctx, &list, client.InNamespace(namespace), client.MatchingLabels{"app": app}); err != nil {
		return 0, 0, err
	}
	for _, p := range list.Items {
		if p.DeletionTimestamp != nil {
			continue
		}
		pods++
		if isReady(&p) {
			ready++
		}
	}
	return ready, pods, nil
}

func isReady(p *corev1.Pod) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// waitReady waits until an app has that many ready pods.
func (l *lab) waitReady(ctx context.Context, namespace, app string, want int) error {
	return until(ctx, 2*time.Minute, func(ctx context.Context) error {
		ready, _, err := l.readyPods(ctx, namespace, app)
		if err == nil && ready != want {
			err = fmt.Errorf("%d of %d pods of %s are ready", ready, want, app)
		}
		return err
	})
}

// follow calls each for all changes of the namespace's objects of a kind until the context ends, one after another.
func (l *lab) follow(ctx context.Context, namespace string, list client.ObjectList, each func(watch.EventType, client.Object)) error {
	w, err := l.client.Watch(ctx, list, client.InNamespace(namespace))
	if err != nil {
		return err
	}
	go func() {
		defer w.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case e, more := <-w.ResultChan():
				if !more {
					return
				}
				if o, ok := e.Object.(client.Object); ok {
					each(e.Type, o)
				}
			}
		}
	}()
	return nil
}

// part is a binary of the lab that is built while the story goes on.
type part struct {
	done chan struct{} // closed when what follows is known
	path string
	err  error
}

func (l *lab) build(ctx context.Context, name string) *part {
	p := &part{done: make(chan struct{})}
	cmd := exec.CommandContext(ctx, "nice", "-n", "19", l.lab(), "build", name)
	interruptible(cmd)
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	l.children.Go(func() {
		defer close(p.done)
		if err := cmd.Run(); err != nil {
			p.err = fmt.Errorf("build %s: %w: %s", name, err, &stderr)
		}
		p.path = strings.TrimSpace(out.String())
	})
	return p
}

// wait returns the path of the binary.
func (p *part) wait(ctx context.Context) (string, error) {
	select {
	case <-p.done:
		return p.path, p.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// processOf finds the process of a pod that the lab runs as one, by what its environment says of the pod.
func processOf(podUID string) (pid int, err error) {
	files, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		return 0, err
	}
	for _, file := range files {
		environment, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended, or is somebody else's
		}
		if slices.Contains(strings.Split(string(environment), "\x00"), "POD_UID="+podUID) {
			_, err := fmt.Sscanf(file, "/proc/%d/environ", &pid)
			return pid, err
		}
	}
	return 0, fmt.Errorf("no process has POD_UID=%s", podUID)
}
