package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	"github.com/kubetide/kubetide/test/lab"
)

// chronicle is all that became of one app's Deployment and its pods, by watches: none of their states is missed,
// but for those during an outage of the API server.
type chronicle struct {
	began time.Time

	mu     sync.Mutex
	counts []int32 // what /scale asked for, one after another
	pods   map[types.UID]*life
	lines  []string
}

type life struct {
	name    string
	cut     bool
	ready   bool
	turns   []string // "cut", "online", "ready", "unready", "deleted"
	deleted bool
}

// follow writes the chronicle of an app until the test ends, and logs it in one line.
func follow(t *testing.T, ns, app string) *chronicle {
	t.Helper()
	c := &chronicle{began: time.Now(), pods: map[types.UID]*life{}}
	for _, from := range []source{
		{func(ctx context.Context) (apiruntime.Object, error) {
			return kube.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{LabelSelector: "app=" + app})
		}, func(ctx context.Context, version string) (watch.Interface, error) {
			return kube.CoreV1().Pods(ns).Watch(ctx, metav1.ListOptions{LabelSelector: "app=" + app, ResourceVersion: version})
		}},
		{func(ctx context.Context) (apiruntime.Object, error) {
			return kube.AppsV1().Deployments(ns).List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + app})
		}, func(ctx context.Context, version string) (watch.Interface, error) {
			return kube.AppsV1().Deployments(ns).Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + app, ResourceVersion: version})
		}},
	} {
		first := make(chan struct{})
		go c.read(t.Context(), from, sync.OnceFunc(func() { close(first) }))
		<-first
	}
	t.Cleanup(func() { t.Logf("%s: %s", app, c.line()) })
	return c
}

type source struct {
	list  func(context.Context) (apiruntime.Object, error)
	watch func(ctx context.Context, version string) (watch.Interface, error)
}

// read follows a source until ctx ends. A watch that ends begins anew with a list; listed is called after each.
func (c *chronicle) read(ctx context.Context, from source, listed func()) {
	wait.UntilWithContext(ctx, func(ctx context.Context) {
		list, err := from.list(ctx)
		if err != nil {
			return
		}
		if pods, ok := list.(*corev1.PodList); ok {
			c.only(pods.Items)
		}
		_ = apimeta.EachListItem(list, func(o apiruntime.Object) error {
			c.see(watch.Added, o)
			return nil
		})
		listed()
		meta, _ := apimeta.ListAccessor(list)
		events, err := from.watch(ctx, meta.GetResourceVersion())
		if err != nil {
			return
		}
		for e := range events.ResultChan() {
			c.see(e.Type, e.Object)
		}
	}, 100*time.Millisecond)
	listed()
}

func (c *chronicle) see(kind watch.EventType, o apiruntime.Object) {
	switch o := o.(type) {
	case *corev1.Pod:
		c.pod(kind, o)
	case *appsv1.Deployment:
		c.deployment(kind, o)
	}
}

func (c *chronicle) deployment(kind watch.EventType, d *appsv1.Deployment) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if kind == watch.Deleted {
		c.note("the Deployment is deleted")
		return
	}
	if n := *d.Spec.Replicas; len(c.counts) == 0 || c.counts[len(c.counts)-1] != n {
		c.counts = append(c.counts, n)
		c.note(fmt.Sprintf("/scale %d", n))
	}
}

func (c *chronicle) pod(kind watch.EventType, p *corev1.Pod) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.pods[p.UID]
	if l == nil {
		l = &life{name: p.Name}
		c.pods[p.UID] = l
	}
	turn := func(state *bool, now bool, on, off string) {
		if *state == now {
			return
		}
		*state = now
		if !now {
			on = off
		}
		l.turns = append(l.turns, on)
	}
	was := l.cut
	turn(&l.cut, p.Labels[kapacity.PodStateLabel] == string(kapacity.PodStateCutoff), "cut", "online")
	turn(&l.ready, isReady(p), "ready", "unready")
	turn(&l.deleted, kind == watch.Deleted || p.DeletionTimestamp != nil, "deleted", "")
	if was != l.cut {
		cut := 0
		for _, l := range c.pods {
			if l.cut && !l.deleted {
				cut++
			}
		}
		c.note(fmt.Sprintf("%d cut", cut))
	}
}

// only marks all other pods as deleted.
func (c *chronicle) only(pods []corev1.Pod) {
	there := uids(pods)
	c.mu.Lock()
	defer c.mu.Unlock()
	for uid, l := range c.pods {
		if !l.deleted && !slices.Contains(there, uid) {
			l.deleted = true
			l.turns = append(l.turns, "deleted")
		}
	}
}

// note adds to the line.
func (c *chronicle) note(what string) {
	c.lines = append(c.lines, fmt.Sprintf("%.1fs %s", time.Since(c.began).Seconds(), what))
}

// mark adds what the test did.
func (c *chronicle) mark(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.note("[" + what + "]")
}

func (c *chronicle) line() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.Join(c.lines, ", ")
}

// asked are the counts that /scale had, one after another.
func (c *chronicle) asked() []int32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.counts)
}

// wantAsked fails the test if /scale asked for anything but these counts, in this order.
func (c *chronicle) wantAsked(t *testing.T, want ...int32) {
	t.Helper()
	if got := c.asked(); !slices.Equal(got, want) {
		t.Errorf("/scale asked for %v one after another, want %v", got, want)
	}
}

// wantNoFlap fails the test if a pod that was cut came back, or one that stays stopped serving.
func (c *chronicle) wantNoFlap(t *testing.T) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range c.pods {
		cut := slices.Index(l.turns, "cut")
		if cut >= 0 && (slices.Contains(l.turns[cut:], "online") || slices.Contains(l.turns[cut:], "ready")) ||
			cut < 0 && (slices.Contains(l.turns, "unready") || l.deleted) {
			t.Errorf("pod %s: %s", l.name, strings.Join(l.turns, ", "))
		}
	}
}

// scaleWrites are Kubetide's writes of /scale in the namespace that the API server took.
func scaleWrites(t *testing.T, ns string, since time.Time) (out []lab.Request) {
	t.Helper()
	for r, err := range cluster.Audit(since) {
		must(t, err)
		if r.User == kubetideUser && r.Namespace == ns && r.Subresource == "scale" && r.Writes() && r.Code < 300 {
			out = append(out, r)
		}
	}
	return out
}
