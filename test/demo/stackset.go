package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	zalando "github.com/kubetide/kubetide/api/zalando/v1"
	"github.com/kubetide/kubetide/workloads/stackset/generate"
)

// stackset shows a switch of traffic between two Stacks, with prescaling, under requests through a real router.
type stackset struct{}

const (
	stacksetHost  = "shop.example.org"
	stacksetRate  = 100 // requests a second
	stacksetPods  = 4   // of the old Stack; manifests/stackset-v1.yaml has the same
	oldStack      = "shop-v1"
	newStack      = "shop-v2"
	routerAddress = "192.0.2.20" // among the lab's own servers
)

func (*stackset) about() about {
	return about{
		name: "stackset", title: "a StackSet switches traffic, under requests", bound: 2 * time.Minute,
		look:  "the new Stack has the pods for the traffic before it gets any; no request is lost",
		parts: []string{"skipper"},
		after: []string{"-n", "stackset", "get", "stackset,stack,hpa,ingress"},
	}
}

func (*stackset) setUp(ctx context.Context, l *lab) error {
	if err := l.apply(ctx, "stackset", "stackset-v1.yaml"); err != nil {
		return err
	}
	if err := l.waitReady(ctx, "stackset", oldStack, stacksetPods); err != nil {
		return err
	}
	if err := l.apply(ctx, "stackset", "stackset-v2.yaml"); err != nil {
		return err
	}
	if err := l.waitReady(ctx, "stackset", newStack, 1); err != nil {
		return err
	}
	skipper, err := l.parts["skipper"].wait(ctx)
	if err != nil {
		return err
	}
	return l.startSkipper(ctx, skipper, routerAddress)
}

func (*stackset) run(ctx context.Context, l *lab, s *screen) (string, error) {
	watching, stopWatching := context.WithCancel(ctx)
	defer stopWatching()
	h := &history{}
	if err := h.followStacks(watching, l, "stackset"); err != nil {
		return "", err
	}
	requests, err := l.startCustomers(ctx, "http://"+routerAddress, stacksetHost, stacksetRate)
	if err != nil {
		return "", err
	}
	defer requests.stop()
	if err := until(ctx, time.Minute, func(context.Context) error { return requests.atLeast(2*stacksetRate, oldStack) }); err != nil {
		return "", err
	}
	s.say("%d requests/s through skipper: %s", stacksetRate, requests.counts())
	stack, err := l.stack(ctx, newStack)
	if err != nil {
		return "", err
	}
	s.say("%s has %d pods and all traffic, %s has %d; now all is asked for %s", oldStack, stacksetPods, newStack, stack.Status.ReadyReplicas, newStack)
	asked := time.Now()
	set := &zalando.StackSet{}
	set.Namespace, set.Name = "stackset", "shop"
	patch := fmt.Sprintf(`{"spec":{"traffic":[{"stackName":%q,"weight":0},{"stackName":%q,"weight":100}]}}`, oldStack, newStack)
	if err := l.client.Patch(ctx, set, client.RawPatch("application/merge-patch+json", []byte(patch))); err != nil {
		return "", err
	}
	var seen string
	var took time.Duration
	err = until(ctx, 75*time.Second, func(ctx context.Context) error {
		stack, err := l.stack(ctx, newStack)
		if err != nil {
			return err
		}
		now := fmt.Sprintf("%s: ready pods: %d, %.0f %% of the traffic", newStack, stack.Status.ReadyReplicas, stack.Status.ActualTrafficWeight)
		if p := stack.Status.Prescaling; p.Active {
			now += fmt.Sprintf(", prescaled to %d", p.Replicas)
		}
		if now != seen {
			s.say("%s", now)
			seen = now
		}
		counts := requests.counts()
		s.doing("%s; %s", now, counts)
		if stack.Status.ActualTrafficWeight < 100 {
			return errors.New(now)
		}
		took = time.Since(asked)
		return nil
	})
	if err != nil {
		return "", err
	}
	s.say("the traffic has moved")
	if err := until(ctx, 30*time.Second, func(context.Context) error {
		s.doing("%s", requests.counts())
		return requests.atLeast(5*stacksetRate, newStack)
	}); err != nil {
		return "", err
	}
	requests.stop()
	counts := requests.counts()
	s.say("%s", counts)
	ready, err := h.readyAtSwitch(newStack)
	switch {
	case err != nil:
		return "", err
	case ready < stacksetPods:
		return "", fmt.Errorf("%s had %d pods ready when it got its first traffic, want %d", newStack, ready, stacksetPods)
	}
	if err := counts.check(oldStack, newStack); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d pods ready before the first traffic; moved in %s; %s", ready, seconds(took), counts), nil
}

func (l *lab) stack(ctx context.Context, name string) (*zalando.Stack, error) {
	stack := &zalando.Stack{}
	return stack, l.client.Get(ctx, client.ObjectKey{Namespace: "stackset", Name: name}, stack)
}

// followStacks puts into the history how many pods of Stacks are ready, and which share of the traffic their routes have.
func (h *history) followStacks(ctx context.Context, l *lab, namespace string) error {
	err := l.follow(ctx, namespace, &appsv1.DeploymentList{}, func(_ watch.EventType, o client.Object) {
		h.add(change{revision: revision(o), stack: o.GetName(), ready: o.(*appsv1.Deployment).Status.ReadyReplicas})
	})
	if err != nil {
		return err
	}
	return l.follow(ctx, namespace, &networkingv1.IngressList{}, func(e watch.EventType, o client.Object) {
		stack, isSegment := strings.CutSuffix(o.GetName(), generate.SegmentSuffix)
		segment, _, err := generate.LiveIngress(o.(*networkingv1.Ingress))
		if isSegment && err == nil && e != watch.Deleted {
			h.add(change{revision: revision(o), stack: stack, share: true, width: segment.Width()})
		}
	})
}

// readyAtSwitch is how many pods of the Stack were ready when its routes first had a share of the traffic.
func (h *history) readyAtSwitch(stack string) (ready int32, err error) {
	for _, c := range h.ordered() {
		switch {
		case c.stack != stack:
		case !c.share:
			ready = c.ready
		case c.width > 0:
			return ready, nil
		}
	}
	return 0, fmt.Errorf("no route of %s had a share of the traffic", stack)
}

// startSkipper starts skipper as a router of all Ingresses, with its own rights, until the story ends.
func (l *lab) startSkipper(ctx context.Context, binary, address string) error {
	for _, file := range []string{filepath.Join(filepath.Dir(binary), "routegroups_crd.yaml"), filepath.Join("test", "lab", "skipper.yaml")} {
		if _, err := l.kubectl(ctx, "apply", "--server-side", "-f", file); err != nil {
			return err
		}
	}
	token, err := l.kubectl(ctx, "create", "token", "skipper", "-n", "kube-system", "--duration=24h")
	if err != nil {
		return err
	}
	dir := filepath.Dir(l.kubeconfig) // the lab's own, which goes with it
	tokenFile, caFile := filepath.Join(dir, "skipper-token"), filepath.Join(dir, "skipper-ca.crt")
	if err := os.WriteFile(tokenFile, []byte(strings.TrimSpace(token)), 0o600); err != nil {
		return err
	}
	if err := os.WriteFile(caFile, l.config.CAData, 0o600); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(dir, "logs", "skipper.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	skipper := l.inside(ctx, binary, "-address="+address+":80", "-support-listener="+address+":9911", "-wait-first-route-load",
		"-kubernetes", "-kubernetes-url=https://192.0.2.10:6443", "-kubernetes-token-file="+tokenFile,
		"-enable-kubernetes-endpointslices", "-kubernetes-https-redirect=false", "-source-poll-timeout=200",
		"-access-log-disabled", "-suppress-route-update-logs", "-wait-for-healthcheck-interval=0")
	skipper.Env = append(os.Environ(), "SSL_CERT_FILE="+caFile, "SSL_CERT_DIR="+dir) // instead of the system's authorities
	skipper.Stdout, skipper.Stderr = log, log
	if err := skipper.Start(); err != nil {
		return fmt.Errorf("start skipper: %w", err)
	}
	l.children.Go(func() { _ = skipper.Wait() })
	return nil
}

// counts are requests to a host, as customers print them.
type counts struct {
	Sent int            `json:"sent"`
	By   map[string]int `json:"by"` // by the Stack that answered
	Lost int            `json:"lost"`
	// Error is what came of the first lost one.
	Error string `json:"error,omitempty"`
}

func (c counts) String() string {
	var by []string
	for stack, n := range c.By {
		by = append(by, stack+" "+strconv.Itoa(n))
	}
	slices.Sort(by)
	return fmt.Sprintf("%d requests: %s; lost: %d", c.Sent, strings.Join(by, ", "), c.Lost)
}

// check tells whether all requests were answered, by both Stacks and nobody else.
func (c counts) check(stacks ...string) error {
	answered := 0
	for _, stack := range stacks {
		if c.By[stack] == 0 {
			return fmt.Errorf("%s answered no request: %s", stack, c)
		}
		answered += c.By[stack]
	}
	if c.Lost > 0 || answered != c.Sent {
		return fmt.Errorf("%s; the first lost one: %s", c, c.Error)
	}
	return nil
}

// customers send requests from inside the lab.
type customers struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when they have printed their last counts

	mu   sync.Mutex
	last counts
}

func (l *lab) startCustomers(ctx context.Context, url, host string, perSecond int) (*customers, error) {
	c := &customers{done: make(chan struct{})}
	c.cmd = l.inside(ctx, filepath.Join(l.bin, "demo"), customersCommand, url, host, strconv.Itoa(perSecond))
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c.cmd.Stderr = os.Stderr
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("send requests: %w", err)
	}
	go func() {
		defer close(c.done)
		lines := json.NewDecoder(out)
		for {
			var now counts
			if lines.Decode(&now) != nil {
				_ = c.cmd.Wait()
				return
			}
			c.mu.Lock()
			c.last = now
			c.mu.Unlock()
		}
	}()
	return c, nil
}

// stop has them end, and returns when the last request is answered. It may be called more than once.
func (c *customers) stop() {
	_ = c.cmd.Process.Signal(os.Interrupt)
	<-c.done
}

func (c *customers) counts() counts {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last
}

// atLeast tells whether that many requests were answered by the Stack.
func (c *customers) atLeast(n int, stack string) error {
	select {
	case <-c.done:
		return fmt.Errorf("the requests have ended: %s", c.counts())
	default:
	}
	if now := c.counts(); now.By[stack] < n {
		return fmt.Errorf("%s; want %d of %s", now, n, stack)
	}
	return nil
}
