package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	zalando "github.com/kubetide/kubetide/api/zalando/v1"
	"github.com/kubetide/kubetide/workloads/stackset/generate"
)

const resourceStackSet = "stacksets"

func (p plugin) getCommand(config clientcmd.ClientConfig) *cobra.Command {
	cmd := &cobra.Command{
		Use: "get stackset NAME", Short: "Show a StackSet with its Stacks, their traffic and their pods",
		Long: `Show a StackSet with its Stacks: the weights that are desired and those that routers have, pods, autoscalers, what prescaling holds, and
what is wrong. It reads StackSets, Stacks, Deployments and autoscalers with the caller's rights; what may not be read is left out, and said so.`,
		Example: `  kubectl tide get stackset cart -n shop
  kubectl tide get stackset cart -n shop --watch
  kubectl tide get stackset/cart -o json | jq '.stacks[] | select(.actualWeight > 0)'`,
	}
	follow := cmd.Flags().BoolP("watch", "w", false, "Show it again whenever something changes, until Ctrl-C")
	return p.asks(completes(cmd, config, stackSets), config, func(args []string) (question, error) {
		name, err := name(cmd, args, stackSets)
		return func(ctx context.Context, r *reader, as format) error {
			if !*follow {
				f, err := r.family(ctx, name)
				if err != nil {
					return err
				}
				return show(p, as, f.tree(), printer.tree)
			}
			first := true
			return r.follow(ctx, name, func(t *tree) error {
				p.separate(as, first)
				first = false
				return show(p, as, t, printer.tree)
			}, p.say)
		}, err
	})
}

// source is one kind of object around a StackSet.
type source struct {
	resource string
	empty    runtime.Object
	lists    *cache.ListWatch
	// apart kinds need not be there, nor be readable.
	apart bool
}

// around are the kinds that a StackSet's tree is made of, beside itself.
func (r *reader) around(set *zalando.StackSet) []source {
	ours := stackSetSelector(set)
	labelled := func(o *metav1.ListOptions) { o.LabelSelector = ours }
	list := func(c rest.Interface, resource string, empty runtime.Object) source {
		return source{resource, empty, cache.NewFilteredListWatchFromClient(c, resource, r.namespace, labelled), resource != "stacks"}
	}
	return []source{
		list(r.stackSets, "stacks", &zalando.Stack{}),
		list(r.apps, "deployments", &appsv1.Deployment{}),
		list(r.autoscaling, "horizontalpodautoscalers", &autoscalingv2.HorizontalPodAutoscaler{}),
		list(r.ihpas, "intelligenthorizontalpodautoscalers", &kapacity.IntelligentHorizontalPodAutoscaler{}),
	}
}

// stackSetSelector selects what belongs to the StackSet. A label of its own of the same key goes before its name.
func stackSetSelector(set *zalando.StackSet) string {
	if own, found := set.Labels[generate.StackSetLabel]; found && own != set.Name {
		return fmt.Sprintf("%s in (%s,%s)", generate.StackSetLabel, set.Name, own)
	}
	return generate.StackSetLabel + "=" + set.Name
}

func (r *reader) stackSet(ctx context.Context, name string) (*zalando.StackSet, error) {
	set := &zalando.StackSet{}
	err := r.stackSets.Get().Namespace(r.namespace).Resource(resourceStackSet).Name(name).Do(ctx).Into(set)
	switch {
	case apierrors.IsNotFound(err) && apierrors.HasStatusCause(err, metav1.CauseTypeUnexpectedServerResponse): // no Kubernetes object's absence
		return nil, fmt.Errorf("the cluster does not serve %s: its CRDs are not installed", zalando.SchemeGroupVersion)
	case apierrors.IsNotFound(err):
		return nil, fmt.Errorf("there is no StackSet %s/%s", r.namespace, name)
	case err != nil:
		return nil, fmt.Errorf("StackSet %s/%s can't be read: %w", r.namespace, name, err)
	}
	return set, nil
}

// family is a StackSet with what is around it.
type family struct {
	set     *zalando.StackSet
	around  []runtime.Object
	sources []source
	// unread says which kinds may not be read.
	unread []string
}

func (f family) tree() *tree {
	t := grow(f.set, f.around)
	t.Notes = append(t.Notes, f.unread...)
	return t
}

func (r *reader) family(ctx context.Context, name string) (f family, err error) {
	if f.set, err = r.stackSet(ctx, name); err != nil {
		return f, err
	}
	for _, s := range r.around(f.set) {
		list, err := s.lists.ListWithContext(ctx, metav1.ListOptions{})
		switch {
		case err == nil:
		case s.apart && apierrors.IsNotFound(err): // the cluster has no such kind
			continue
		case s.apart && apierrors.IsForbidden(err):
			f.unread = append(f.unread, "you may not list "+s.resource+" here: nothing of them is shown")
			continue
		default:
			return f, fmt.Errorf("%s can't be listed: %w", s.resource, err)
		}
		objects, err := apimeta.ExtractList(list)
		if err != nil {
			return f, fmt.Errorf("%s can't be listed: %w", s.resource, err)
		}
		f.around, f.sources = append(f.around, objects...), append(f.sources, s)
	}
	return f, nil
}

// follow shows the tree, and again whenever it has changed, until the context ends. say is told what breaks on the way.
func (r *reader) follow(ctx context.Context, name string, show func(*tree) error, say func(string)) error {
	f, err := r.family(ctx, name)
	if err != nil {
		return err
	}
	last := f.tree()
	if err := show(last); err != nil {
		return err
	}

	ctx, cancel := context.WithCancel(klog.NewContext(ctx, logr.Discard()))
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	changed := make(chan struct{}, 1)
	var stores []*store
	self := cache.NewListWatchFromClient(r.stackSets, resourceStackSet, r.namespace, fields.OneTermEqualSelector(metav1.ObjectNameField, name))
	for _, s := range append(f.sources, source{resource: resourceStackSet, empty: &zalando.StackSet{}, lists: self}) {
		store := &store{Store: cache.NewStore(cache.MetaNamespaceKeyFunc), changed: changed}
		stores = append(stores, store)
		reflector := cache.NewReflectorWithOptions(s.told(say), s.empty, store, cache.ReflectorOptions{Logger: ptr.To(logr.Discard())})
		running.Go(func() { reflector.RunWithContext(ctx) })
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
		if slices.ContainsFunc(stores, func(s *store) bool { return !s.listed.Load() }) {
			continue
		}
		f.set, f.around = nil, nil
		for _, s := range stores {
			for _, o := range s.List() {
				if set, ok := o.(*zalando.StackSet); ok {
					f.set = set
				} else if o, ok := o.(runtime.Object); ok {
					f.around = append(f.around, o)
				}
			}
		}
		if f.set == nil {
			return fmt.Errorf("StackSet %s/%s is gone", r.namespace, name)
		}
		now := f.tree()
		if equality.Semantic.DeepEqual(last, now) {
			continue
		}
		last = now
		if err := show(last); err != nil {
			return err
		}
	}
}

// told is the source's list and watch; what fails is said once until it works again.
func (s source) told(say func(string)) *cache.ListWatch {
	var broken atomic.Bool
	tell := func(ctx context.Context, o metav1.ListOptions, err error) {
		switch {
		case err == nil:
			broken.Store(false)
		case o.SendInitialEvents != nil && apierrors.IsInvalid(err): // an API server that cannot; it is asked otherwise then
		case ctx.Err() == nil && !apierrors.IsResourceExpired(err) && !broken.Swap(true):
			say(fmt.Sprintf("%s can't be watched: %v; trying again", s.resource, err))
		}
	}
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			list, err := s.lists.ListWithContext(ctx, o)
			tell(ctx, o, err)
			return list, err
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			w, err := s.lists.WatchWithContext(ctx, o)
			tell(ctx, o, err)
			return w, err
		},
	}
}

// store tells of each change.
type store struct {
	cache.Store
	listed  atomic.Bool
	changed chan<- struct{}
}

func (s *store) tell(err error) error {
	select {
	case s.changed <- struct{}{}:
	default: // somebody was told already and has not looked yet
	}
	return err
}

// Add implements cache.ReflectorStore.
func (s *store) Add(o any) error { return s.tell(s.Store.Add(o)) }

// Update implements cache.ReflectorStore.
func (s *store) Update(o any) error { return s.tell(s.Store.Update(o)) }

// Delete implements cache.ReflectorStore.
func (s *store) Delete(o any) error { return s.tell(s.Store.Delete(o)) }

// Replace implements cache.ReflectorStore.
func (s *store) Replace(all []any, version string) error {
	err := s.Store.Replace(all, version)
	s.listed.Store(true)
	return s.tell(err)
}
