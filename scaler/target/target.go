// Package target resolves what a scaleTargetRef names: the workload, its replica count, and the pods that belong to it by
// selector and by ownership. It reads from the manager's cache and writes nothing but /scale.
package target

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// FieldManager signs every write of the engine.
const FieldManager = "kubetide"

// ControllerUID is the field index by which pods and ReplicaSets are found below their controller.
const ControllerUID = "metadata.controllerUID"

// Index registers the field indexes that a Resolver needs.
func Index(ctx context.Context, indexer client.FieldIndexer) error {
	for _, kind := range []client.Object{&corev1.Pod{}, &appsv1.ReplicaSet{}} {
		if err := indexer.IndexField(ctx, kind, ControllerUID, IndexControllerUID); err != nil {
			return fmt.Errorf("index %T by controller: %w", kind, err)
		}
	}
	return nil
}

// IndexControllerUID is the function of the index ControllerUID.
func IndexControllerUID(o client.Object) []string {
	if c := metav1.GetControllerOfNoCopy(o); c != nil {
		return []string{string(c.UID)}
	}
	return nil
}

// NewClient returns a client whose cached reads wait for its own writes, so that no decision is taken twice on an old
// picture. It takes a typed Scale as /scale of an object of any kind.
func NewClient(mgr manager.Manager) (client.Client, error) {
	c, err := client.New(mgr.GetConfig(), client.Options{
		HTTPClient: mgr.GetHTTPClient(),
		Scheme:     mgr.GetScheme(),
		Mapper:     mgr.GetRESTMapper(),
		Cache:      &client.CacheOptions{Reader: mgr.GetCache(), EnableReadYourWritesConsistency: ptr.To(true)},
	})
	if err != nil {
		return nil, err
	}
	return anyScale{c}, nil
}

// ControllerOptions are those of the engine's controllers; a concurrency of 0 means 16.
func ControllerOptions(concurrency int) controller.Options {
	return controller.Options{
		MaxConcurrentReconciles: cmp.Or(concurrency, 16),
		NeedLeaderElection:      ptr.To(true),
		// Reads wait for the cache to see our writes: a cache that never does must not hold a worker for ever.
		ReconciliationTimeout: 30 * time.Second,
		// The default waits up to 17 minutes, long after an API server is back.
		RateLimiter: workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](50*time.Millisecond, 30*time.Second),
	}
}

// The parts of a target that can fail to be read, for errors.Is. Any other error means the workload itself.
var (
	ErrScale    = errors.New("read /scale")
	ErrSelector = errors.New("read the selector")
	ErrListPods = errors.New("list pods")
)

// Kind tells the workloads whose pods can be cut from those that can only be scaled.
type Kind string

// The kinds whose pods can be cut are those of the group apps, and Owned.
const (
	StatefulSet Kind = "StatefulSet"
	Deployment  Kind = "Deployment"
	ReplicaSet  Kind = "ReplicaSet"
	// Owned is any other kind with /scale that has pods which lead to it by their owners. Which pods it deletes is its own business.
	Owned Kind = "Owned"
	// Other is any kind with /scale. Its pods are known by the selector alone, and cannot be cut.
	Other Kind = "Other"
)

// Target is a workload as it stands in the cache.
type Target struct {
	Kind Kind
	GVK  schema.GroupVersionKind
	// Object is the typed workload, or an unstructured one with its name and UID only for Kinds Owned and Other. It must not be changed.
	Object client.Object
	// Replicas is spec.replicas of /scale.
	Replicas int32
	Selector labels.Selector
	// Pods are those that the selector matches and the workload owns, directly or through others, in no order. For Kind Other the
	// selector alone decides.
	Pods []corev1.Pod
	// Rollout says why the workload is in the midst of a change of its pods; empty if it is not.
	Rollout string
	// CountedReady is how many ready pods the controller that removes them counted last; 0 if that is not known.
	CountedReady int32
	// Ordered is true for a StatefulSet that handles its pods one after the other (OrderedReady).
	Ordered bool
	// Ordinals is true for Kind Owned if the pods are those of something called StatefulSet, which removes the highest ordinals.
	Ordinals bool
}

// Name is the workload's name as messages print it: `StatefulSet shop/cart`.
func (t *Target) Name() string {
	return fmt.Sprintf("%s %s/%s", t.GVK.Kind, t.Object.GetNamespace(), t.Object.GetName())
}

// FirstOrdinal is the ordinal at which a StatefulSet counts its pods; 0 for the other kinds.
func (t *Target) FirstOrdinal() int32 {
	if o, ok := t.Object.(*appsv1.StatefulSet); ok && o.Spec.Ordinals != nil {
		return o.Spec.Ordinals.Start
	}
	return 0
}

// Resolver finds targets. The Client's reads should come from a cache that is indexed by Index.
type Resolver struct {
	Client client.Client
}

// GroupKind returns what ref names. The kinds of apps are understood without apiVersion, which the API leaves optional.
func GroupKind(ref autoscalingv2.CrossVersionObjectReference) schema.GroupKind {
	if ref.APIVersion == "" {
		switch Kind(ref.Kind) {
		case StatefulSet, Deployment, ReplicaSet:
			return schema.GroupKind{Group: appsv1.GroupName, Kind: ref.Kind}
		}
	}
	return schema.FromAPIVersionAndKind(ref.APIVersion, ref.Kind).GroupKind()
}

// Key is equal for two references exactly if they name the same object in one namespace; the version does not matter.
func Key(ref autoscalingv2.CrossVersionObjectReference) string {
	return GroupKind(ref).String() + "/" + ref.Name
}

// ObjectKey is the Key of a reference to the object itself.
func ObjectKey(o client.Object) string {
	switch o.(type) {
	case *appsv1.StatefulSet:
		return Key(autoscalingv2.CrossVersionObjectReference{Kind: string(StatefulSet), Name: o.GetName()})
	case *appsv1.Deployment:
		return Key(autoscalingv2.CrossVersionObjectReference{Kind: string(Deployment), Name: o.GetName()})
	case *appsv1.ReplicaSet:
		return Key(autoscalingv2.CrossVersionObjectReference{Kind: string(ReplicaSet), Name: o.GetName()})
	}
	return o.GetObjectKind().GroupVersionKind().GroupKind().String() + "/" + o.GetName()
}

// Older tells which of two objects that want the same target goes first: the one created earlier, then by name.
func Older(a, b client.Object) bool {
	ta, tb := a.GetCreationTimestamp(), b.GetCreationTimestamp()
	if ta.Equal(&tb) {
		return a.GetName() < b.GetName()
	}
	return ta.Before(&tb)
}

// between is how many owners may stand between a pod and its workload: a ReplicaSet and a Deployment, for example.
const between = 2

// OwnerKeys returns the Keys of the controllers above the object, nearest first. open says that there may be more above the last one,
// whose kind is in no cache.
func OwnerKeys(ctx context.Context, reader client.Reader, o client.Object) (keys []string, open bool) {
	for range between + 1 {
		owner := metav1.GetControllerOfNoCopy(o)
		if owner == nil {
			break
		}
		keys = append(keys, Key(reference(owner)))
		next := cached(owner)
		if next == nil {
			return keys, mayBeOwned(owner)
		}
		if reader.Get(ctx, types.NamespacedName{Namespace: o.GetNamespace(), Name: owner.Name}, next) != nil {
			break
		}
		o = next
	}
	return keys, false
}

func reference(owner *metav1.OwnerReference) autoscalingv2.CrossVersionObjectReference {
	return autoscalingv2.CrossVersionObjectReference{APIVersion: owner.APIVersion, Kind: owner.Kind, Name: owner.Name}
}

// cached returns an empty object of the owner's kind, nil if that is in no cache.
func cached(owner *metav1.OwnerReference) client.Object {
	if !Watched(reference(owner)) {
		return nil
	}
	switch Kind(owner.Kind) {
	case StatefulSet:
		return &appsv1.StatefulSet{}
	case Deployment:
		return &appsv1.Deployment{}
	}
	return &appsv1.ReplicaSet{}
}

// mayBeOwned tells the kinds that others make workloads of from Jobs, DaemonSets and Nodes, of which a cluster has many.
func mayBeOwned(owner *metav1.OwnerReference) bool {
	gk := GroupKind(reference(owner))
	return strings.Contains(gk.Group, ".") || gk == schema.GroupKind{Kind: "ReplicationController"}
}

// Get resolves ref. The error says which object could not be read.
func (r Resolver) Get(ctx context.Context, namespace string, ref autoscalingv2.CrossVersionObjectReference) (*Target, error) {
	t, err := r.get(ctx, namespace, ref)
	if err != nil {
		return nil, fmt.Errorf("%s %s/%s: %w", ref.Kind, namespace, ref.Name, err)
	}
	return t, nil
}

func (r Resolver) get(ctx context.Context, namespace string, ref autoscalingv2.CrossVersionObjectReference) (*Target, error) {
	gk := GroupKind(ref)
	key := types.NamespacedName{Namespace: namespace, Name: ref.Name}
	if gk.Group != appsv1.GroupName {
		return r.getOther(ctx, key, ref, gk)
	}
	t := &Target{Kind: Kind(ref.Kind), GVK: appsv1.SchemeGroupVersion.WithKind(ref.Kind)}
	switch t.Kind {
	case StatefulSet:
		o := &appsv1.StatefulSet{}
		if err := r.Client.Get(ctx, key, o); err != nil {
			return nil, err
		}
		t.Object, t.Replicas = o, ptr.Deref(o.Spec.Replicas, 1)
		t.Ordered = o.Spec.PodManagementPolicy != appsv1.ParallelPodManagement
		if err := r.ownedPods(ctx, t, o.Spec.Selector, o); err != nil {
			return nil, err
		}
		t.Rollout = statefulSetRollout(o, t.Pods)
	case Deployment:
		o := &appsv1.Deployment{}
		if err := r.Client.Get(ctx, key, o); err != nil {
			return nil, err
		}
		t.Object, t.Replicas = o, ptr.Deref(o.Spec.Replicas, 1)
		sets := &appsv1.ReplicaSetList{}
		if err := r.Client.List(ctx, sets, client.InNamespace(namespace), client.MatchingFields{ControllerUID: string(o.UID)}); err != nil {
			return nil, fmt.Errorf("%w: its ReplicaSets: %w", ErrListPods, err)
		}
		var active []client.Object
		var names []string
		for i := range sets.Items {
			rs := &sets.Items[i]
			if ptr.Deref(rs.Spec.Replicas, 1) > 0 || rs.Status.Replicas > 0 {
				active = append(active, rs)
				t.CountedReady += rs.Status.ReadyReplicas
				names = append(names, rs.Name)
			}
		}
		if err := r.ownedPods(ctx, t, o.Spec.Selector, active...); err != nil {
			return nil, err
		}
		if len(active) > 1 {
			slices.Sort(names)
			t.Rollout = fmt.Sprintf("%s has %d active ReplicaSets (%s)", t.Name(), len(active), strings.Join(names, ", "))
		}
	case ReplicaSet:
		o := &appsv1.ReplicaSet{}
		if err := r.Client.Get(ctx, key, o); err != nil {
			return nil, err
		}
		t.Object, t.Replicas, t.CountedReady = o, ptr.Deref(o.Spec.Replicas, 1), o.Status.ReadyReplicas
		if err := r.ownedPods(ctx, t, o.Spec.Selector, o); err != nil {
			return nil, err
		}
	default:
		return r.getOther(ctx, key, ref, gk)
	}
	return t, nil
}

// getOther reads /scale itself, since there is no informer for the kind.
func (r Resolver) getOther(ctx context.Context, key types.NamespacedName, ref autoscalingv2.CrossVersionObjectReference, gk schema.GroupKind) (*Target, error) {
	var versions []string
	if gv, err := schema.ParseGroupVersion(ref.APIVersion); err == nil && gv.Version != "" {
		versions = []string{gv.Version}
	}
	mapping, err := r.Client.RESTMapper().RESTMapping(gk, versions...)
	if err != nil {
		return nil, err
	}
	o := &unstructured.Unstructured{}
	o.SetGroupVersionKind(mapping.GroupVersionKind)
	o.SetNamespace(key.Namespace)
	o.SetName(key.Name)
	scale := &autoscalingv1.Scale{}
	if err := r.Client.SubResource("scale").Get(ctx, o, scale); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrScale, err)
	}
	o.SetUID(scale.UID)
	t := &Target{Kind: Other, GVK: mapping.GroupVersionKind, Object: o, Replicas: scale.Spec.Replicas, Selector: labels.Nothing()}
	if scale.Status.Selector == "" {
		return t, nil
	}
	if t.Selector, err = labels.Parse(scale.Status.Selector); err != nil {
		return nil, fmt.Errorf("%w: /scale status.selector %q: %w", ErrSelector, scale.Status.Selector, err)
	}
	pods := &corev1.PodList{}
	if err := r.Client.List(ctx, pods, client.InNamespace(key.Namespace), client.MatchingLabelsSelector{Selector: t.Selector}); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrListPods, err)
	}
	t.Pods = pods.Items
	return t, r.own(ctx, t)
}

// own leaves the target those pods that lead to it by their owners, if there are any, and makes it Owned.
func (r Resolver) own(ctx context.Context, t *Target) error {
	var own []corev1.Pod
	leads, near := map[types.UID]bool{}, map[types.UID]*metav1.OwnerReference{}
	for _, pod := range t.Pods {
		owner := metav1.GetControllerOf(&pod)
		if owner == nil || t.Object.GetUID() == "" {
			continue
		}
		is, known := leads[owner.UID]
		if !known {
			var err error
			if is, err = r.leads(ctx, t, owner, between); err != nil {
				return fmt.Errorf("%w: owner %s %s of pod %s: %w", ErrListPods, owner.Kind, owner.Name, pod.Name, err)
			}
			leads[owner.UID] = is
		}
		if !is {
			continue
		}
		own = append(own, pod)
		if pod.DeletionTimestamp == nil && pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed {
			near[owner.UID] = owner
		}
	}
	if len(own) == 0 {
		return nil
	}
	t.Kind, t.Pods, t.Ordinals = Owned, own, len(near) > 0
	var names []string
	for _, owner := range near {
		t.Ordinals = t.Ordinals && Kind(owner.Kind) == StatefulSet
		names = append(names, owner.Kind+" "+owner.Name)
	}
	if len(near) > 1 { // each of them removes pods for itself
		slices.Sort(names)
		t.Ordinals, t.Rollout = false, fmt.Sprintf("%s has pods of %d owners (%s)", t.Name(), len(near), strings.Join(names, ", "))
	}
	return nil
}

// leads tells whether owner is the target, or is owned by it through so many others. What may not be read leads nowhere.
func (r Resolver) leads(ctx context.Context, t *Target, owner *metav1.OwnerReference, others int) (bool, error) {
	if owner.UID == t.Object.GetUID() {
		return true, nil
	}
	o := cached(owner)
	if o == nil {
		unknown := &unstructured.Unstructured{} // the client reads these past the cache
		unknown.SetGroupVersionKind(schema.FromAPIVersionAndKind(owner.APIVersion, owner.Kind))
		o = unknown
		if !mayBeOwned(owner) {
			return false, nil
		}
	}
	if others == 0 {
		return false, nil
	}
	err := r.Client.Get(ctx, types.NamespacedName{Namespace: t.Object.GetNamespace(), Name: owner.Name}, o)
	if apierrors.IsNotFound(err) || apierrors.IsForbidden(err) || apimeta.IsNoMatchError(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	above := metav1.GetControllerOf(o)
	if above == nil || o.GetUID() != owner.UID {
		return false, nil
	}
	return r.leads(ctx, t, above, others-1)
}

func (r Resolver) ownedPods(ctx context.Context, t *Target, selector *metav1.LabelSelector, owners ...client.Object) (err error) {
	if t.Selector, err = metav1.LabelSelectorAsSelector(selector); err != nil {
		return fmt.Errorf("%w: %w", ErrSelector, err)
	}
	for _, owner := range owners {
		pods := &corev1.PodList{}
		if err := r.Client.List(ctx, pods, client.InNamespace(owner.GetNamespace()),
			client.MatchingFields{ControllerUID: string(owner.GetUID())}, client.MatchingLabelsSelector{Selector: t.Selector}); err != nil {
			return fmt.Errorf("%w: %w", ErrListPods, err)
		}
		t.Pods = append(t.Pods, pods.Items...)
	}
	return nil
}

// statefulSetRollout is why the StatefulSet replaces pods. Above a partition its revisions differ for ever, so there the pods
// tell; without one the revisions do, up to the moment at which the last new pod is ready. OnDelete replaces nothing by itself.
func statefulSetRollout(o *appsv1.StatefulSet, pods []corev1.Pod) string {
	update := o.Status.UpdateRevision
	if update == "" || update == o.Status.CurrentRevision || o.Spec.UpdateStrategy.Type == appsv1.OnDeleteStatefulSetStrategyType {
		return ""
	}
	updating := fmt.Sprintf("StatefulSet %s/%s is being updated from revision %s to %s", o.Namespace, o.Name, o.Status.CurrentRevision, update)
	partition := int32(0)
	if ru := o.Spec.UpdateStrategy.RollingUpdate; ru != nil {
		partition = ptr.Deref(ru.Partition, 0)
	}
	if partition == 0 {
		return updating
	}
	for i := range pods {
		if n, ok := Ordinal(pods[i].Name); ok && n >= partition && pods[i].Labels[appsv1.ControllerRevisionHashLabelKey] != update {
			return updating
		}
	}
	return ""
}

// Ordinal is the number at the end of a StatefulSet pod's name.
func Ordinal(pod string) (int32, bool) {
	i := strings.LastIndexByte(pod, '-')
	if i < 0 {
		return 0, false
	}
	n, err := strconv.ParseInt(pod[i+1:], 10, 32)
	return int32(n), err == nil && n >= 0
}

// Refresh reads t.Replicas past the cache.
func (r Resolver) Refresh(ctx context.Context, t *Target) error {
	scale := &autoscalingv1.Scale{}
	if err := r.Client.SubResource("scale").Get(ctx, t.Object.DeepCopyObject().(client.Object), scale); err != nil {
		return fmt.Errorf("%s: %w: %w", t.Name(), ErrScale, err)
	}
	t.Replicas = scale.Spec.Replicas
	return nil
}

var errOldPicture = errors.New("decided on an old picture")

// SetReplicas writes /scale if it differs, and says whether it did. It refuses with a conflict if /scale is no longer what t
// saw, because the decision was then taken on an old picture.
func (r Resolver) SetReplicas(ctx context.Context, t *Target, replicas int32) (changed bool, err error) {
	// The lock is on the whole workload, whose status changes often: that is no reason to decide again.
	again := func(err error) bool { return apierrors.IsConflict(err) && !errors.Is(err, errOldPicture) }
	err = retry.OnError(retry.DefaultRetry, again, func() error {
		changed, err = r.setReplicas(ctx, t, replicas)
		return err
	})
	return changed, err
}

func (r Resolver) setReplicas(ctx context.Context, t *Target, replicas int32) (changed bool, err error) {
	o := t.Object.DeepCopyObject().(client.Object)
	scale := &autoscalingv1.Scale{}
	if err := r.Client.SubResource("scale").Get(ctx, o, scale); err != nil {
		return false, fmt.Errorf("%s: %w: %w", t.Name(), ErrScale, err)
	}
	switch {
	case scale.Spec.Replicas == replicas:
		t.Replicas = replicas
		return false, nil
	case scale.UID != "" && t.Object.GetUID() != "" && scale.UID != t.Object.GetUID(), scale.Spec.Replicas != t.Replicas:
		conflict := apierrors.NewConflict(schema.GroupResource{Group: t.GVK.Group, Resource: t.GVK.Kind}, o.GetName(),
			fmt.Errorf("/scale has %d replicas, the decision was taken for %d", scale.Spec.Replicas, t.Replicas))
		return false, errors.Join(errOldPicture, conflict)
	}
	scale.Spec.Replicas = replicas
	// The answer is a Scale: the client cannot learn the workload's resourceVersion from it.
	if err := r.Client.SubResource("scale").Update(ctx, o, client.WithSubResourceBody(scale),
		client.FieldOwner(FieldManager), client.DisableReadYourWritesConsistency); err != nil {
		return false, fmt.Errorf("%s: write %d replicas to /scale: %w", t.Name(), replicas, err)
	}
	t.Replicas = replicas
	return true, nil
}

// Writer is who besides us wrote spec.replicas of the workload last, by its managed fields: `"helm" at 2026-11-22T12:00:05Z`,
// or without a time, which writes through /scale leave out. It asks the API server, and is empty where that does not tell.
func (r Resolver) Writer(ctx context.Context, t *Target, live client.Reader) string {
	o := &unstructured.Unstructured{}
	o.SetGroupVersionKind(t.GVK)
	if err := live.Get(ctx, client.ObjectKeyFromObject(t.Object), o); err != nil {
		return ""
	}
	who, when := "", time.Time{}
	for _, entry := range o.GetManagedFields() {
		var owned struct {
			Spec map[string]json.RawMessage `json:"f:spec"`
		}
		if entry.FieldsV1 == nil || entry.Manager == FieldManager || json.Unmarshal(entry.FieldsV1.GetRawBytes(), &owned) != nil {
			continue
		}
		if _, ok := owned.Spec["f:replicas"]; !ok {
			continue
		}
		if entry.Time == nil {
			return strconv.Quote(entry.Manager)
		}
		if entry.Time.After(when) {
			who, when = entry.Manager, entry.Time.Time
		}
	}
	if who == "" {
		return ""
	}
	return fmt.Sprintf("%q at %s", who, when.UTC().Format(time.RFC3339))
}

// Watched tells whether the kind of ref is one whose coming and going is seen, so that its absence needs no second try.
func Watched(ref autoscalingv2.CrossVersionObjectReference) bool {
	if GroupKind(ref).Group != appsv1.GroupName {
		return false
	}
	switch Kind(ref.Kind) {
	case StatefulSet, Deployment, ReplicaSet:
		return true
	}
	return false
}
