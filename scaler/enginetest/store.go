package enginetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
)

// store keeps typed objects as an API server does: one resourceVersion counts all writes, generations count changes of the spec, and
// every version that ever was stays in the log of its kind, for caches that are behind. What is stored is never changed.
type store struct {
	scheme *runtime.Scheme
	mapper meta.RESTMapper
	clock  clock.PassiveClock
	// changed, if set, is told of every change; before or after is nil for a creation or a removal.
	changed func(before, after client.Object)

	mu      sync.Mutex // protects what follows
	version int
	uids    int
	kinds   map[reflect.Type]*kind
}

type kind struct {
	gvk     schema.GroupVersionKind
	objects map[client.ObjectKey]client.Object
	log     []change
	indexes map[string]client.IndexerFunc
}

// change is one entry of a log; after is nil for a removal.
type change struct {
	version       int
	key           client.ObjectKey
	before, after client.Object
}

func newStore(scheme *runtime.Scheme, mapper meta.RESTMapper, clock clock.PassiveClock) *store {
	return &store{scheme: scheme, mapper: mapper, clock: clock, kinds: map[reflect.Type]*kind{}}
}

// typeOf is the Go type under which objects like o are kept.
func (s *store) typeOf(o runtime.Object) (reflect.Type, error) {
	u, ok := o.(runtime.Unstructured)
	if !ok {
		return reflect.TypeOf(o).Elem(), nil
	}
	gvk := u.GetObjectKind().GroupVersionKind()
	gvk.Kind = strings.TrimSuffix(gvk.Kind, "List")
	if t, ok := s.scheme.AllKnownTypes()[gvk]; ok {
		return t, nil
	}
	return nil, &meta.NoKindMatchError{GroupKind: gvk.GroupKind(), SearchedVersions: []string{gvk.Version}}
}

// kindOf must be called with the lock.
func (s *store) kindOf(t reflect.Type) *kind {
	k := s.kinds[t]
	if k == nil {
		gvks, _, err := s.scheme.ObjectKinds(reflect.New(t).Interface().(runtime.Object))
		if err != nil {
			panic(err) // a test that uses a kind without registering it
		}
		k = &kind{gvk: gvks[0], objects: map[client.ObjectKey]client.Object{}, indexes: map[string]client.IndexerFunc{}}
		s.kinds[t] = k
	}
	return k
}

func (k *kind) resource() schema.GroupResource {
	r, _ := meta.UnsafeGuessKindToResource(k.gvk)
	return r.GroupResource()
}

// put stores o as the new version and must be called with the lock. o is kept: callers hand in what nobody else has.
func (s *store) put(k *kind, key client.ObjectKey, before, o client.Object) {
	s.version++
	if o != nil {
		o.SetResourceVersion(strconv.Itoa(s.version))
		o.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
		k.objects[key] = o
	} else {
		delete(k.objects, key)
	}
	k.log = append(k.log, change{s.version, key, before, o})
	if s.changed != nil {
		s.changed(before, o)
	}
}

func copyOf[T runtime.Object](o T) T { return o.DeepCopyObject().(T) }

// into copies a stored object to where the caller wants it.
func into(stored, out client.Object, gvk schema.GroupVersionKind) error {
	if u, ok := out.(*unstructured.Unstructured); ok {
		content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(stored)
		if err != nil {
			return err
		}
		u.Object = content
		u.SetGroupVersionKind(gvk)
		return nil
	}
	reflect.ValueOf(out).Elem().Set(reflect.ValueOf(copyOf(stored)).Elem())
	return nil
}

// part returns the named field of the object; the zero Value if it has none.
func part(o client.Object, name string) reflect.Value {
	return reflect.ValueOf(o).Elem().FieldByName(name)
}

// commit stores o in place of old, as far as the subresource may change it.
func (s *store) commit(k *kind, old, o client.Object, sub string) error {
	key := client.ObjectKeyFromObject(old)
	if rv := o.GetResourceVersion(); rv != "" && rv != old.GetResourceVersion() {
		return apierrors.NewConflict(k.resource(), key.Name, errors.New("the object has been modified; please apply your changes to the latest version and try again"))
	}
	if uid := o.GetUID(); uid != "" && uid != old.GetUID() {
		return apierrors.NewConflict(k.resource(), key.Name, fmt.Errorf("precondition failed: UID in precondition: %v, UID in object meta: %v", uid, old.GetUID()))
	}
	switch status := part(o, "Status"); {
	case sub == "status":
		whole := copyOf(old)
		part(whole, "Status").Set(status)
		o = whole
	case status.IsValid():
		status.Set(part(copyOf(old), "Status"))
	}
	o.SetUID(old.GetUID())
	o.SetResourceVersion(old.GetResourceVersion())
	o.SetCreationTimestamp(old.GetCreationTimestamp())
	o.SetDeletionTimestamp(old.GetDeletionTimestamp())
	o.SetGeneration(old.GetGeneration())
	o.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
	if a, b := part(old, "Spec"), part(o, "Spec"); a.IsValid() && !equality.Semantic.DeepEqual(a.Interface(), b.Interface()) {
		o.SetGeneration(old.GetGeneration() + 1)
	}
	if equality.Semantic.DeepEqual(old, o) {
		return nil // nothing is written
	}
	if o.GetDeletionTimestamp() != nil && len(o.GetFinalizers()) == 0 {
		o = nil
	}
	s.put(k, key, old, o)
	return nil
}

func (s *store) create(o client.Object) error {
	t, err := s.typeOf(o)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	k, key := s.kindOf(t), client.ObjectKeyFromObject(o)
	if k.objects[key] != nil {
		return apierrors.NewAlreadyExists(k.resource(), key.Name)
	}
	if o.GetResourceVersion() != "" {
		return apierrors.NewBadRequest("resourceVersion should not be set on objects to be created")
	}
	if o, err = normal(o); err != nil {
		return err
	}
	if o.GetUID() == "" {
		s.uids++
		o.SetUID(types.UID(fmt.Sprintf("uid-%d", s.uids)))
	}
	if at := o.GetCreationTimestamp(); at.IsZero() {
		o.SetCreationTimestamp(metav1.NewTime(s.clock.Now()).Rfc3339Copy())
	}
	o.SetGeneration(1)
	s.put(k, key, nil, o)
	return nil
}

// normal is a copy of the object after a way through JSON, which is how it comes back.
func normal(o client.Object) (client.Object, error) {
	data, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	out := reflect.New(reflect.TypeOf(o).Elem()).Interface().(client.Object)
	return out, json.Unmarshal(data, out)
}

// change calls do with the stored object of o's kind and name and puts what became of it into o.
func (s *store) change(o client.Object, do func(k *kind, old client.Object) error) error {
	t, err := s.typeOf(o)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	k, key := s.kindOf(t), client.ObjectKeyFromObject(o)
	old := k.objects[key]
	if old == nil {
		return apierrors.NewNotFound(k.resource(), key.Name)
	}
	return do(k, old)
}

func (s *store) update(o client.Object, sub string) error {
	return s.change(o, func(k *kind, old client.Object) error {
		wanted, err := normal(o)
		if err != nil {
			return err
		}
		if err := s.commit(k, old, wanted, sub); err != nil {
			return err
		}
		return s.answer(k, o, wanted)
	})
}

// answer gives the caller what is stored now; of what is gone by now, its last picture.
func (s *store) answer(k *kind, o, last client.Object) error {
	if now := k.objects[client.ObjectKeyFromObject(o)]; now != nil {
		last = now
	}
	return into(last, o, k.gvk)
}

func (s *store) patch(o client.Object, p client.Patch, sub string) error {
	data, err := p.Data(o)
	if err != nil {
		return err
	}
	return s.change(o, func(k *kind, old client.Object) error {
		before, err := json.Marshal(old)
		if err != nil {
			return err
		}
		after := reflect.New(reflect.TypeOf(old).Elem()).Interface().(client.Object)
		switch p.Type() {
		case types.MergePatchType:
			var a, b map[string]any
			if err := errors.Join(json.Unmarshal(before, &a), json.Unmarshal(data, &b)); err != nil {
				return err
			}
			before, err = json.Marshal(merged(a, b))
		case types.StrategicMergePatchType:
			before, err = strategicpatch.StrategicMergePatch(before, data, after)
		default:
			err = apierrors.NewBadRequest("enginetest knows no patch of type " + string(p.Type()))
		}
		if err != nil {
			return err
		}
		if err := json.Unmarshal(before, after); err != nil {
			return err
		}
		if err := s.commit(k, old, after, sub); err != nil {
			return err
		}
		return s.answer(k, o, after)
	})
}

// merged is RFC 7396.
func merged(a, b map[string]any) map[string]any {
	if a == nil {
		a = map[string]any{}
	}
	for key, v := range b {
		switch v := v.(type) {
		case nil:
			delete(a, key)
		case map[string]any:
			old, _ := a[key].(map[string]any)
			a[key] = merged(old, v)
		default:
			a[key] = v
		}
	}
	return a
}

func (s *store) delete(o client.Object, preconditions *metav1.Preconditions) error {
	return s.change(o, func(k *kind, old client.Object) error {
		if p := preconditions; p != nil && (p.UID != nil && *p.UID != old.GetUID() || p.ResourceVersion != nil && *p.ResourceVersion != old.GetResourceVersion()) {
			return apierrors.NewConflict(k.resource(), o.GetName(), errors.New("a precondition failed"))
		}
		switch {
		case len(old.GetFinalizers()) == 0:
			s.put(k, client.ObjectKeyFromObject(old), old, nil)
		case old.GetDeletionTimestamp() == nil:
			marked := copyOf(old)
			marked.SetDeletionTimestamp(&metav1.Time{Time: metav1.NewTime(s.clock.Now()).Rfc3339Copy().Time})
			marked.SetGeneration(old.GetGeneration() + 1)
			s.put(k, client.ObjectKeyFromObject(old), old, marked)
		}
		return nil
	})
}

// scaled are the kinds with /scale.
func scaled(o client.Object) (replicas **int32, scale *autoscalingv1.Scale) {
	scale = &autoscalingv1.Scale{}
	var selector *metav1.LabelSelector
	switch o := o.(type) {
	case *appsv1.Deployment:
		replicas, selector, scale.Status.Replicas = &o.Spec.Replicas, o.Spec.Selector, o.Status.Replicas
	case *appsv1.StatefulSet:
		replicas, selector, scale.Status.Replicas = &o.Spec.Replicas, o.Spec.Selector, o.Status.Replicas
	case *appsv1.ReplicaSet:
		replicas, selector, scale.Status.Replicas = &o.Spec.Replicas, o.Spec.Selector, o.Status.Replicas
	case *corev1.ReplicationController:
		replicas, selector, scale.Status.Replicas = &o.Spec.Replicas, &metav1.LabelSelector{MatchLabels: o.Spec.Selector}, o.Status.Replicas
	default:
		return nil, nil
	}
	scale.Name, scale.Namespace, scale.UID, scale.ResourceVersion, scale.CreationTimestamp = o.GetName(), o.GetNamespace(), o.GetUID(), o.GetResourceVersion(), o.GetCreationTimestamp()
	scale.Spec.Replicas = ptr.Deref(*replicas, 1)
	if sel, err := metav1.LabelSelectorAsSelector(selector); err == nil && selector != nil {
		scale.Status.Selector = sel.String()
	}
	return replicas, scale
}

func (s *store) getScale(o client.Object, out *autoscalingv1.Scale) error {
	return s.change(o, func(k *kind, old client.Object) error {
		_, scale := scaled(old)
		if scale == nil {
			return apierrors.NewNotFound(k.resource(), o.GetName()+"/scale")
		}
		*out = *scale
		return nil
	})
}

func (s *store) updateScale(o client.Object, wanted *autoscalingv1.Scale) error {
	return s.change(o, func(k *kind, old client.Object) error {
		o := copyOf(old)
		replicas, _ := scaled(o)
		if replicas == nil {
			return apierrors.NewNotFound(k.resource(), o.GetName()+"/scale")
		}
		o.SetUID(wanted.UID)
		o.SetResourceVersion(wanted.ResourceVersion)
		*replicas = ptr.To(wanted.Spec.Replicas)
		if err := s.commit(k, old, o, ""); err != nil {
			return err
		}
		_, now := scaled(k.objects[client.ObjectKeyFromObject(o)])
		*wanted = *now
		return nil
	})
}

// get and list read from a set of objects: the store's own, or those of a cache.
func get(k *kind, objects map[client.ObjectKey]client.Object, key client.ObjectKey, o client.Object) error {
	stored := objects[key]
	if stored == nil {
		return apierrors.NewNotFound(k.resource(), key.Name)
	}
	return into(stored, o, k.gvk)
}

func list(k *kind, objects map[client.ObjectKey]client.Object, out client.ObjectList, opts []client.ListOption) error {
	o := (&client.ListOptions{}).ApplyOptions(opts)
	selector := o.LabelSelector
	if selector == nil {
		selector = labels.Everything()
	}
	keys := slices.Collect(maps.Keys(objects))
	slices.SortFunc(keys, func(a, b client.ObjectKey) int { return strings.Compare(a.String(), b.String()) })
	items := reflect.ValueOf(out).Elem().FieldByName("Items")
	items.SetZero()
	for _, key := range keys {
		stored := objects[key]
		if o.Namespace != "" && key.Namespace != o.Namespace || !selector.Matches(labels.Set(stored.GetLabels())) {
			continue
		}
		if o.FieldSelector != nil {
			matches := true
			for _, r := range o.FieldSelector.Requirements() {
				index := k.indexes[r.Field]
				if index == nil {
					return fmt.Errorf("%s has no index %s", k.gvk.Kind, r.Field)
				}
				matches = matches && slices.Contains(index(stored), r.Value)
			}
			if !matches {
				continue
			}
		}
		item := reflect.New(items.Type().Elem())
		if err := into(stored, item.Interface().(client.Object), k.gvk); err != nil {
			return err
		}
		items.Set(reflect.Append(items, item.Elem()))
	}
	return nil
}

// itemType is the type of what a list holds.
func (s *store) itemType(l client.ObjectList) (reflect.Type, error) {
	if _, ok := l.(runtime.Unstructured); ok {
		return s.typeOf(l)
	}
	items, ok := reflect.TypeOf(l).Elem().FieldByName("Items")
	if !ok {
		return nil, errNotHere
	}
	return items.Type.Elem(), nil
}

// Cache is what a controller's informers have seen: a picture that is some writes old, kind by kind.
type Cache struct {
	s     *store
	kinds map[reflect.Type]*cached
	// Stalled stops the watches: nothing more is seen, and reads that have to wait for an own write fail.
	Stalled bool
}

type cached struct {
	objects map[client.ObjectKey]client.Object
	seen    int // entries of the log
	// own is the version of the last own write, which reads wait for.
	own int
}

// Cache returns a cache that has seen everything up to now.
func (w *World) Cache() *Cache {
	c := &Cache{s: w.store, kinds: map[reflect.Type]*cached{}}
	w.store.mu.Lock()
	defer w.store.mu.Unlock()
	for t, k := range w.store.kinds {
		c.kinds[t] = &cached{objects: maps.Clone(k.objects), seen: len(k.log)}
	}
	return c
}

func (c *Cache) of(t reflect.Type) (*kind, *cached) {
	k, of := c.s.kindOf(t), c.kinds[t]
	if of == nil {
		of = &cached{objects: map[client.ObjectKey]client.Object{}}
		c.kinds[t] = of
	}
	return k, of
}

func (of *cached) step(k *kind) (before, after client.Object) {
	e := k.log[of.seen]
	of.seen++
	before = of.objects[e.key]
	if e.after == nil {
		delete(of.objects, e.key)
	} else {
		of.objects[e.key] = e.after
	}
	return before, e.after
}

// Behind are the kinds of which there is something to see, in a fixed order.
func (c *Cache) Behind() []string {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	var out []string
	for t, k := range c.s.kinds {
		if _, of := c.of(t); of.seen < len(k.log) {
			out = append(out, k.gvk.Kind)
		}
	}
	slices.Sort(out)
	return out
}

// See has the cache see the next change of the kind, and returns it.
func (c *Cache) See(name string) (before, after client.Object) {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	for t, k := range c.s.kinds {
		if k.gvk.Kind == name {
			if _, of := c.of(t); of.seen < len(k.log) {
				return of.step(k)
			}
		}
	}
	return nil, nil
}

// read calls do with what the cache shows; own says that own writes must be in it. seen is told what had to be caught up with.
func (c *Cache) read(t reflect.Type, own bool, seen func(before, after client.Object), do func(k *kind, objects map[client.ObjectKey]client.Object) error) error {
	c.s.mu.Lock()
	k, of := c.of(t)
	type event struct{ before, after client.Object }
	var events []event
	for own && of.seen < len(k.log) && k.log[of.seen].version <= of.own {
		if c.Stalled {
			c.s.mu.Unlock()
			return context.DeadlineExceeded
		}
		before, after := of.step(k)
		events = append(events, event{before, after})
	}
	err := do(k, of.objects)
	c.s.mu.Unlock()
	for _, e := range events {
		if seen != nil {
			seen(e.before, e.after)
		}
	}
	return err
}

// api is the client of the world. Without a cache it reads what is stored.
type api struct {
	w     *World
	cache *Cache
	// engine tells the engine's own clients from everybody's.
	engine bool
	seen   func(before, after client.Object)
}

// Cached returns a client that reads from the cache, its own writes included, and writes to the world. Changes that a read had to catch up
// with are told to seen, since they wake controllers as all others do.
func (w *World) Cached(c *Cache, seen func(before, after client.Object)) client.WithWatch {
	return &api{w: w, cache: c, engine: true, seen: seen}
}

// Live returns a client of the engine that reads past every cache.
func (w *World) Live() client.WithWatch { return &api{w: w, engine: true} }

func (a *api) Get(_ context.Context, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
	s := a.w.store
	t, err := s.typeOf(o)
	if err != nil {
		return err
	}
	if _, live := o.(*unstructured.Unstructured); a.cache != nil && !live {
		own := !(&client.GetOptions{}).ApplyOptions(opts).DisableReadYourWritesConsistency
		return a.cache.read(t, own, a.seen, func(k *kind, objects map[client.ObjectKey]client.Object) error { return get(k, objects, key, o) })
	}
	if err := a.live(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.kindOf(t)
	return get(k, k.objects, key, o)
}

// live fails where the API server cannot be read.
func (a *api) live() error {
	if !a.engine || a.w.FailRead == nil {
		return nil
	}
	return a.w.FailRead()
}

func (a *api) List(_ context.Context, l client.ObjectList, opts ...client.ListOption) error {
	s := a.w.store
	t, err := s.itemType(l)
	if err != nil {
		return err
	}
	if a.cache != nil {
		own := !(&client.ListOptions{}).ApplyOptions(opts).DisableReadYourWritesConsistency
		return a.cache.read(t, own, a.seen, func(k *kind, objects map[client.ObjectKey]client.Object) error { return list(k, objects, l, opts) })
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.kindOf(t)
	return list(k, k.objects, l, opts)
}

// write counts and carries out one write, unless it is refused; its answer may be lost.
func (a *api) write(verb string, o client.Object, sub string, do func() error) error {
	what, err := a.w.counts(verb, o, sub)
	if err != nil {
		return err
	}
	// A lost answer must not be seen: the object stays as it was sent.
	sent := copyOf(o)
	if err := do(); err != nil {
		return err
	}
	if a.w.Lose != nil && what != "" {
		if err := a.w.Lose(what); err != nil {
			reflect.ValueOf(o).Elem().Set(reflect.ValueOf(sent).Elem())
			return err
		}
	}
	if a.cache != nil && sub != "/scale" { // its answer does not tell the version of the workload
		if t, err := a.w.store.typeOf(o); err == nil {
			a.w.store.mu.Lock()
			if k, of := a.cache.of(t); len(k.log) > 0 {
				of.own = k.log[len(k.log)-1].version
			}
			a.w.store.mu.Unlock()
		}
	}
	return nil
}

func (a *api) Create(_ context.Context, o client.Object, _ ...client.CreateOption) error {
	return a.write("create", o, "", func() error {
		s := a.w.store
		if err := s.create(o); err != nil {
			return err
		}
		return s.change(o, func(k *kind, stored client.Object) error { return into(stored, o, k.gvk) })
	})
}

func (a *api) Update(_ context.Context, o client.Object, _ ...client.UpdateOption) error {
	return a.write("update", o, "", func() error { return a.w.store.update(o, "") })
}

func (a *api) Patch(_ context.Context, o client.Object, p client.Patch, _ ...client.PatchOption) error {
	return a.write("patch", o, "", func() error { return a.w.store.patch(o, p, "") })
}

func (a *api) Delete(_ context.Context, o client.Object, opts ...client.DeleteOption) error {
	return a.write("delete", o, "", func() error {
		return a.w.store.delete(o, (&client.DeleteOptions{}).ApplyOptions(opts).Preconditions)
	})
}

var errNotHere = errors.New("enginetest does not know this call")

func (a *api) DeleteAllOf(context.Context, client.Object, ...client.DeleteAllOfOption) error {
	return errNotHere
}

func (a *api) Apply(context.Context, runtime.ApplyConfiguration, ...client.ApplyOption) error {
	return errNotHere
}

func (a *api) Watch(context.Context, client.ObjectList, ...client.ListOption) (watch.Interface, error) {
	return nil, errNotHere
}

func (a *api) Scheme() *runtime.Scheme     { return a.w.store.scheme }
func (a *api) RESTMapper() meta.RESTMapper { return a.w.store.mapper }

func (a *api) GroupVersionKindFor(o runtime.Object) (schema.GroupVersionKind, error) {
	return apiutil.GVKForObject(o, a.w.store.scheme)
}

func (a *api) IsObjectNamespaced(o runtime.Object) (bool, error) {
	return apiutil.IsObjectNamespaced(o, a.w.store.scheme, a.w.store.mapper)
}

func (a *api) Status() client.SubResourceWriter { return a.SubResource("status") }

func (a *api) SubResource(name string) client.SubResourceClient { return subResource{a, name} }

type subResource struct {
	*api
	name string
}

func (r subResource) Get(_ context.Context, o, out client.Object, _ ...client.SubResourceGetOption) error {
	scale, ok := out.(*autoscalingv1.Scale)
	if r.name != "scale" || !ok {
		return errNotHere
	}
	if err := r.live(); err != nil {
		return err
	}
	return r.w.store.getScale(o, scale)
}

func (r subResource) Create(context.Context, client.Object, client.Object, ...client.SubResourceCreateOption) error {
	return errNotHere
}

func (r subResource) Update(_ context.Context, o client.Object, opts ...client.SubResourceUpdateOption) error {
	return r.write("update", o, "/"+r.name, func() error {
		if r.name == "status" {
			return r.w.store.update(o, r.name)
		}
		scale, ok := (&client.SubResourceUpdateOptions{}).ApplyOptions(opts).SubResourceBody.(*autoscalingv1.Scale)
		if r.name != "scale" || !ok {
			return errNotHere
		}
		return r.w.store.updateScale(o, scale)
	})
}

func (r subResource) Patch(_ context.Context, o client.Object, p client.Patch, _ ...client.SubResourcePatchOption) error {
	return r.write("patch", o, "/"+r.name, func() error {
		if r.name != "status" {
			return errNotHere
		}
		return r.w.store.patch(o, p, r.name)
	})
}

func (r subResource) Apply(context.Context, runtime.ApplyConfiguration, ...client.SubResourceApplyOption) error {
	return errNotHere
}
