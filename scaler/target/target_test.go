package target

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
)

var app = map[string]string{"app": "cart"}

func meta(name string, owner client.Object, kind string) metav1.ObjectMeta {
	m := metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID("uid-" + name), Labels: app}
	if owner != nil {
		m.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: kind, Name: owner.GetName(), UID: owner.GetUID(), Controller: ptr.To(true)}}
	}
	return m
}

func deployment() *appsv1.Deployment {
	return &appsv1.Deployment{ObjectMeta: meta("cart", nil, ""),
		Spec: appsv1.DeploymentSpec{Replicas: ptr.To(int32(2)), Selector: &metav1.LabelSelector{MatchLabels: app}}}
}

func replicaSet(name string, replicas int32, owner client.Object) *appsv1.ReplicaSet {
	return &appsv1.ReplicaSet{ObjectMeta: meta(name, owner, "Deployment"),
		Spec: appsv1.ReplicaSetSpec{Replicas: ptr.To(replicas), Selector: &metav1.LabelSelector{MatchLabels: app}}}
}

func pod(name string, owner client.Object, kind string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: meta(name, owner, kind)}
}

func resolver(objects ...client.Object) Resolver {
	return Resolver{Client: fake.NewClientBuilder().WithScheme(clientgoscheme.Scheme).WithObjects(objects...).
		WithIndex(&corev1.Pod{}, ControllerUID, IndexControllerUID).
		WithIndex(&appsv1.ReplicaSet{}, ControllerUID, IndexControllerUID).Build()}
}

func ref(kind string) autoscalingv2.CrossVersionObjectReference {
	return autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: kind, Name: "cart"}
}

func podNames(t *Target) []string {
	var names []string
	for _, p := range t.Pods {
		names = append(names, p.Name)
	}
	slices.Sort(names)
	return names
}

func TestPodsBelongByOwnershipAndSelector(t *testing.T) {
	d := deployment()
	rs := replicaSet("cart-a", 2, d)
	rs.Status.ReadyReplicas = 2
	foreign := replicaSet("other-a", 1, nil)
	foreign.Status.ReadyReplicas = 1
	relabeled := pod("cart-relabeled", rs, "ReplicaSet")
	relabeled.Labels = map[string]string{"app": "debug"}
	r := resolver(d, rs, foreign, pod("cart-a-1", rs, "ReplicaSet"), pod("cart-a-2", rs, "ReplicaSet"),
		pod("other-a-1", foreign, "ReplicaSet"), pod("orphan", nil, ""), relabeled)
	got, err := r.Get(context.Background(), "shop", ref("Deployment"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"cart-a-1", "cart-a-2"}, podNames(got)); diff != "" {
		t.Error(diff)
	}
	if got.Replicas != 2 || got.Rollout != "" || got.Kind != Deployment || got.CountedReady != 2 {
		t.Errorf("got %+v", got)
	}
}

// B20: a selector that changes is followed at once, nothing is remembered.
func TestB20AChangedSelectorIsFollowed(t *testing.T) {
	s := &appsv1.ReplicaSet{ObjectMeta: meta("cart", nil, ""), Spec: appsv1.ReplicaSetSpec{Selector: &metav1.LabelSelector{MatchLabels: app}}}
	p := pod("cart-1", s, "ReplicaSet")
	p.Labels = map[string]string{"app": "cart", "tier": "web"}
	r := resolver(s, p, pod("cart-2", s, "ReplicaSet"))
	if got, err := r.Get(context.Background(), "shop", ref("ReplicaSet")); err != nil || len(got.Pods) != 2 {
		t.Fatalf("%+v, %v", got, err)
	}
	s.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"tier": "web"}}
	s.ResourceVersion = ""
	if err := r.Client.Update(context.Background(), s); err != nil {
		t.Fatal(err)
	}
	got, err := r.Get(context.Background(), "shop", ref("ReplicaSet"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"cart-1"}, podNames(got)); diff != "" {
		t.Error(diff)
	}
}

func TestRollout(t *testing.T) {
	sts := func(strategy appsv1.StatefulSetUpdateStrategy) *appsv1.StatefulSet {
		return &appsv1.StatefulSet{ObjectMeta: meta("cart", nil, ""),
			Spec:   appsv1.StatefulSetSpec{Selector: &metav1.LabelSelector{MatchLabels: app}, UpdateStrategy: strategy},
			Status: appsv1.StatefulSetStatus{CurrentRevision: "one", UpdateRevision: "two"}}
	}
	at := func(p *corev1.Pod, revision string) *corev1.Pod {
		p.Labels = map[string]string{"app": "cart", appsv1.ControllerRevisionHashLabelKey: revision}
		return p
	}
	rolling := sts(appsv1.StatefulSetUpdateStrategy{Type: appsv1.RollingUpdateStatefulSetStrategyType})
	rolled := rolling.DeepCopy()
	rolled.Status.CurrentRevision = "two"
	partitioned := sts(appsv1.StatefulSetUpdateStrategy{RollingUpdate: &appsv1.RollingUpdateStatefulSetStrategy{Partition: ptr.To(int32(1))}})
	onDelete := sts(appsv1.StatefulSetUpdateStrategy{Type: appsv1.OnDeleteStatefulSetStrategyType})
	d := deployment()
	for name, c := range map[string]struct {
		kind    string
		objects []client.Object
		want    string
	}{
		"a rolling update of a StatefulSet has pods to replace":  {"StatefulSet", []client.Object{rolling, at(pod("cart-0", rolling, "StatefulSet"), "one")}, "from revision one to two"},
		"it goes on until the last new pod is ready":             {"StatefulSet", []client.Object{rolling, at(pod("cart-0", rolling, "StatefulSet"), "two")}, "from revision one to two"},
		"it is over when the revisions are equal":                {"StatefulSet", []client.Object{rolled, at(pod("cart-0", rolled, "StatefulSet"), "two")}, ""},
		"pods above the partition are waited for":                {"StatefulSet", []client.Object{partitioned, at(pod("cart-1", partitioned, "StatefulSet"), "one")}, "from revision one to two"},
		"pods below the partition are not waited for":            {"StatefulSet", []client.Object{partitioned, at(pod("cart-0", partitioned, "StatefulSet"), "one")}, ""},
		"OnDelete never rolls by itself":                         {"StatefulSet", []client.Object{onDelete, at(pod("cart-0", onDelete, "StatefulSet"), "one")}, ""},
		"two active ReplicaSets are a rollout":                   {"Deployment", []client.Object{d, replicaSet("cart-a", 1, d), replicaSet("cart-b", 1, d)}, "2 active ReplicaSets"},
		"old ReplicaSets without pods do not count as a rollout": {"Deployment", []client.Object{d, replicaSet("cart-a", 0, d), replicaSet("cart-b", 2, d)}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := resolver(c.objects...).Get(context.Background(), "shop", ref(c.kind))
			if err != nil {
				t.Fatal(err)
			}
			if c.want == "" != (got.Rollout == "") || !strings.Contains(got.Rollout, c.want) {
				t.Errorf("rollout %q, want %q", got.Rollout, c.want)
			}
		})
	}
}

func TestKeysNameTheSameObjectWhateverTheVersion(t *testing.T) {
	d := deployment()
	want := "Deployment.apps/cart"
	for _, version := range []string{"", "apps/v1", "apps/v1beta2"} {
		if got := Key(autoscalingv2.CrossVersionObjectReference{APIVersion: version, Kind: "Deployment", Name: "cart"}); got != want {
			t.Errorf("apiVersion %q: %s", version, got)
		}
	}
	if got := ObjectKey(d); got != want {
		t.Error(got)
	}
	rs := replicaSet("cart-a", 1, d)
	r := resolver(d, rs)
	keys, open := OwnerKeys(context.Background(), r.Client, pod("cart-a-1", rs, "ReplicaSet"))
	if diff := cmp.Diff([]string{"ReplicaSet.apps/cart-a", want}, keys); diff != "" || open {
		t.Error(diff, open)
	}
}

func TestSetReplicas(t *testing.T) {
	ctx := context.Background()
	r := resolver(deployment())
	seen, err := r.Get(ctx, "shop", ref("Deployment"))
	if err != nil {
		t.Fatal(err)
	}
	older := *seen
	if changed, err := r.SetReplicas(ctx, seen, 5); err != nil || !changed || seen.Replicas != 5 {
		t.Fatalf("changed %v, %v", changed, err)
	}
	if changed, err := r.SetReplicas(ctx, &older, 5); err != nil || changed {
		t.Errorf("the same number again is no change: %v, %v", changed, err)
	}
	older.Replicas = 2
	if _, err := r.SetReplicas(ctx, &older, 3); !apierrors.IsConflict(err) {
		t.Errorf("a decision taken for 2 replicas must not be written over 5: %v", err)
	}
	if _, err := r.Get(ctx, "shop", autoscalingv2.CrossVersionObjectReference{Kind: "Deployment", Name: "none"}); err == nil || !strings.Contains(err.Error(), "Deployment shop/none") {
		t.Errorf("the error must name the object: %v", err)
	}
}

// Row 26: the version that is named does not matter, since /scale is the same in all of them.
func TestRow26OldVersionsNameTheSameScale(t *testing.T) {
	foo := map[string]string{"foo": "bar"}
	named := func(apiVersion, kind string) autoscalingv2.CrossVersionObjectReference {
		return autoscalingv2.CrossVersionObjectReference{APIVersion: apiVersion, Kind: kind, Name: "foo"}
	}
	r := resolver(
		&appsv1.Deployment{ObjectMeta: meta("foo", nil, ""), Spec: appsv1.DeploymentSpec{Replicas: ptr.To(int32(10)), Selector: &metav1.LabelSelector{MatchLabels: foo}}},
		&appsv1.StatefulSet{ObjectMeta: meta("foo", nil, ""), Spec: appsv1.StatefulSetSpec{Replicas: ptr.To(int32(10)), Selector: &metav1.LabelSelector{MatchLabels: foo}}})
	for _, ref := range []autoscalingv2.CrossVersionObjectReference{named("apps/v1beta2", "Deployment"), named("apps/v1beta1", "StatefulSet")} {
		t.Run(ref.APIVersion+" "+ref.Kind, func(t *testing.T) {
			got, err := r.Get(t.Context(), "shop", ref)
			if err != nil {
				t.Fatal(err)
			}
			if got.Replicas != 10 || got.Selector.String() != "foo=bar" || got.GVK != appsv1.SchemeGroupVersion.WithKind(ref.Kind) || Key(ref) != Key(named("apps/v1", ref.Kind)) {
				t.Errorf("%d replicas, selector %q, %s, key %s", got.Replicas, got.Selector, got.GVK, Key(ref))
			}
			if changed, err := r.SetReplicas(t.Context(), got, 4); err != nil || !changed {
				t.Fatalf("changed %t, %v", changed, err)
			}
			if got, err := r.Get(t.Context(), "shop", ref); err != nil || got.Replicas != 4 {
				t.Errorf("after 4 were written: %+v, %v", got, err)
			}
		})
	}
}

func TestTheLastWriterOfReplicasIsNamed(t *testing.T) {
	entry := func(manager, subresource, fields string, at *metav1.Time) metav1.ManagedFieldsEntry {
		return metav1.ManagedFieldsEntry{Manager: manager, Subresource: subresource, Operation: metav1.ManagedFieldsOperationUpdate, Time: at,
			APIVersion: "apps/v1", FieldsType: "FieldsV1", FieldsV1: metav1.NewFieldsV1(fields)}
	}
	const replicas, other = `{"f:spec":{"f:replicas":{}}}`, `{"f:spec":{"f:paused":{}},"f:status":{"f:replicas":{}}}`
	early, late := ptr.To(metav1.Unix(1000, 0)), ptr.To(metav1.Unix(2000, 0))
	for name, c := range map[string]struct {
		fields []metav1.ManagedFieldsEntry
		want   string
	}{
		"nobody is known":                     {nil, ""},
		"a write through /scale has no time":  {[]metav1.ManagedFieldsEntry{entry("helm", "", replicas, early), entry("kubectl", "scale", replicas, nil)}, `"kubectl"`},
		"the latest of two":                   {[]metav1.ManagedFieldsEntry{entry("argocd", "", replicas, late), entry("helm", "", replicas, early)}, `"argocd" at 1970-01-01T00:33:20Z`},
		"who wrote other fields is not meant": {[]metav1.ManagedFieldsEntry{entry("kube-controller-manager", "status", other, late)}, ""},
		"nor are we":                          {[]metav1.ManagedFieldsEntry{entry(FieldManager, "scale", replicas, nil)}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			d := deployment()
			d.ManagedFields = c.fields
			r := Resolver{Client: fake.NewClientBuilder().WithScheme(clientgoscheme.Scheme).WithObjects(d).WithReturnManagedFields().Build()}
			seen := &Target{GVK: appsv1.SchemeGroupVersion.WithKind("Deployment"), Object: d}
			if got := r.Writer(context.Background(), seen, r.Client); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

// controlled puts o below the controller.
func controlled(o, controller client.Object) client.Object {
	gvk := controller.GetObjectKind().GroupVersionKind()
	o.SetOwnerReferences([]metav1.OwnerReference{{APIVersion: gvk.GroupVersion().String(), Kind: gvk.Kind, Name: controller.GetName(), UID: controller.GetUID(), Controller: ptr.To(true)}})
	return o
}

func other(apiVersion, kind, name string) *unstructured.Unstructured {
	o := &unstructured.Unstructured{}
	o.SetAPIVersion(apiVersion)
	o.SetKind(kind)
	o.SetNamespace("shop")
	o.SetName(name)
	o.SetUID(types.UID("uid-" + kind + "-" + name))
	return o
}

func TestPodsLeadToAWorkloadOfAnyKind(t *testing.T) {
	const rollouts = "argoproj.io/v1alpha1"
	rollout := other(rollouts, "Rollout", "cart")
	rs := func(name string, above client.Object) *appsv1.ReplicaSet {
		o := controlled(replicaSet(name, 2, nil), above).(*appsv1.ReplicaSet)
		o.SetGroupVersionKind(appsv1.SchemeGroupVersion.WithKind("ReplicaSet"))
		return o
	}
	below := func(above client.Object, names ...string) (out []client.Object) {
		for _, name := range names {
			out = append(out, controlled(pod(name, nil, ""), above))
		}
		return out
	}
	green, blue := rs("cart-green", rollout), rs("cart-blue", rollout)
	stranger, kruise := other("apps.kruise.io/v1alpha1", "CloneSet", "stranger"), other("apps.kruise.io/v1alpha1", "CloneSet", "cart-subset")
	set := &appsv1.StatefulSet{ObjectMeta: meta("cart-sts", nil, "")}
	set.SetGroupVersionKind(appsv1.SchemeGroupVersion.WithKind("StatefulSet"))
	d := deployment()
	d.Name, d.UID = "cart-dep", "uid-cart-dep"
	d.SetGroupVersionKind(appsv1.SchemeGroupVersion.WithKind("Deployment"))
	job := other("batch/v1", "Job", "cart-migration")
	leaving := controlled(pod("leaving", nil, ""), blue)
	leaving.SetDeletionTimestamp(&metav1.Time{Time: time.Unix(1000, 0)})
	leaving.SetFinalizers([]string{"x/y"})
	for name, c := range map[string]struct {
		objects  []client.Object
		unscaled bool // /scale has no UID
		fail     error
		kind     Kind
		pods     []string
		ordinals bool
		rollout  string
		err      string
	}{
		"no pods":                                {kind: Other},
		"pods without an owner":                  {objects: []client.Object{pod("a", nil, ""), pod("b", nil, "")}, kind: Other, pods: []string{"a", "b"}},
		"its own pods":                           {objects: below(rollout, "a", "b"), kind: Owned, pods: []string{"a", "b"}},
		"its own pods among others":              {objects: append(below(rollout, "a"), append(below(stranger, "s"), pod("o", nil, ""))...), kind: Owned, pods: []string{"a"}},
		"others' pods only":                      {objects: append(below(stranger, "s"), pod("o", nil, "")), kind: Other, pods: []string{"o", "s"}},
		"through a ReplicaSet":                   {objects: append(below(green, "a", "b"), green), kind: Owned, pods: []string{"a", "b"}},
		"through two ReplicaSets, in a rollout":  {objects: append(append(below(green, "a"), below(blue, "b")...), green, blue), kind: Owned, pods: []string{"a", "b"}, rollout: "Rollout shop/cart has pods of 2 owners (ReplicaSet cart-blue, ReplicaSet cart-green)"},
		"a pod that leaves is no rollout":        {objects: append(below(green, "a"), leaving, green, blue), kind: Owned, pods: []string{"a", "leaving"}},
		"through a Deployment and a ReplicaSet":  {objects: append(below(rs("cart-x", d), "a"), rs("cart-x", d), controlled(d.DeepCopy(), rollout)), kind: Owned, pods: []string{"a"}},
		"through a kind that nobody knows":       {objects: append(below(kruise, "a"), controlled(kruise.DeepCopy(), rollout)), kind: Owned, pods: []string{"a"}},
		"through one that may not be read":       {objects: append(below(kruise, "a"), controlled(kruise.DeepCopy(), rollout)), fail: apierrors.NewForbidden(schema.GroupResource{}, "cart-subset", nil), kind: Other, pods: []string{"a"}},
		"through one that cannot be read now":    {objects: append(below(kruise, "a"), controlled(kruise.DeepCopy(), rollout)), fail: errors.New("timeout"), err: "owner CloneSet cart-subset of pod a: timeout"},
		"through too many":                       {objects: append(below(rs("cart-x", d), "a"), rs("cart-x", d), controlled(d.DeepCopy(), kruise), controlled(kruise.DeepCopy(), rollout)), kind: Other, pods: []string{"a"}},
		"an owner that was made anew":            {objects: append(below(green, "a"), func() client.Object { o := green.DeepCopy(); o.UID = "new"; return o }()), kind: Other, pods: []string{"a"}},
		"a Job with the same labels is no step":  {objects: append(below(job, "j"), controlled(job.DeepCopy(), rollout)), kind: Other, pods: []string{"j"}},
		"/scale does not say whose it is":        {objects: below(rollout, "a"), unscaled: true, kind: Other, pods: []string{"a"}},
		"through a StatefulSet: ordinals count":  {objects: append(below(set, "cart-sts-0", "cart-sts-1"), controlled(set.DeepCopy(), rollout)), kind: Owned, pods: []string{"cart-sts-0", "cart-sts-1"}, ordinals: true},
		"pods with numbers alone do not make it": {objects: below(rollout, "cart-0"), kind: Owned, pods: []string{"cart-0"}},
	} {
		t.Run(name, func(t *testing.T) {
			mapper := apimeta.NewDefaultRESTMapper(nil)
			for _, o := range []client.Object{rollout, kruise, job} {
				mapper.Add(o.GetObjectKind().GroupVersionKind(), apimeta.RESTScopeNamespace)
			}
			scheme := runtime.NewScheme()
			for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, appsv1.AddToScheme} {
				if err := add(scheme); err != nil {
					t.Fatal(err)
				}
			}
			r := Resolver{Client: fake.NewClientBuilder().WithScheme(scheme).WithRESTMapper(mapper).WithObjects(c.objects...).WithInterceptorFuncs(interceptor.Funcs{
				Get: func(ctx context.Context, cl client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
					if _, unknown := o.(*unstructured.Unstructured); unknown && c.fail != nil {
						return c.fail
					}
					return cl.Get(ctx, key, o, opts...)
				},
				SubResourceGet: func(_ context.Context, _ client.Client, _ string, o, body client.Object, _ ...client.SubResourceGetOption) error {
					*body.(*autoscalingv1.Scale) = autoscalingv1.Scale{ObjectMeta: metav1.ObjectMeta{Name: o.GetName(), UID: rollout.GetUID()},
						Spec: autoscalingv1.ScaleSpec{Replicas: 2}, Status: autoscalingv1.ScaleStatus{Selector: "app=cart"}}
					if c.unscaled {
						body.SetUID("")
					}
					return nil
				},
			}).Build()}
			got, err := r.Get(t.Context(), "shop", autoscalingv2.CrossVersionObjectReference{APIVersion: rollouts, Kind: "Rollout", Name: "cart"})
			if c.err != "" {
				if err == nil || !strings.HasSuffix(err.Error(), c.err) || !errors.Is(err, ErrListPods) {
					t.Errorf("got %v, want %s", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.pods, podNames(got)); diff != "" || got.Kind != c.kind || got.Ordinals != c.ordinals || got.Rollout != c.rollout || got.Replicas != 2 {
				t.Errorf("%s, ordinals %v, rollout %q, %d replicas, pods %s", got.Kind, got.Ordinals, got.Rollout, got.Replicas, diff)
			}
		})
	}
}

// What is above a pod, as far as the cache knows; open where it does not.
func TestWhatIsAboveAPod(t *testing.T) {
	rollout := other("argoproj.io/v1alpha1", "Rollout", "cart")
	rs := controlled(replicaSet("cart-a", 2, nil), rollout)
	rs.GetObjectKind().SetGroupVersionKind(appsv1.SchemeGroupVersion.WithKind("ReplicaSet"))
	for name, c := range map[string]struct {
		above client.Object
		want  []string
		open  bool
	}{
		"a kind that is not in the cache":        {rollout, []string{"Rollout.argoproj.io/cart"}, true},
		"such a kind above a ReplicaSet":         {rs, []string{"ReplicaSet.apps/cart-a", "Rollout.argoproj.io/cart"}, true},
		"a ReplicaSet that is gone":              {other("apps/v1", "ReplicaSet", "gone"), []string{"ReplicaSet.apps/gone"}, false},
		"a Job, which belongs to nothing scaled": {other("batch/v1", "Job", "j"), []string{"Job.batch/j"}, false},
		"a DaemonSet":                            {other("apps/v1", "DaemonSet", "d"), []string{"DaemonSet.apps/d"}, false},
		"a ReplicationController":                {other("v1", "ReplicationController", "rc"), []string{"ReplicationController/rc"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			keys, open := OwnerKeys(t.Context(), resolver(rs).Client, controlled(pod("p", nil, ""), c.above))
			if diff := cmp.Diff(c.want, keys); diff != "" || open != c.open {
				t.Errorf("open %v, %s", open, diff)
			}
		})
	}
}

// The real client takes an unstructured Scale for an unstructured object, and a typed one for a typed object.
func TestAnyKindsScaleIsReadAndWritten(t *testing.T) {
	stored := autoscalingv1.Scale{TypeMeta: metav1.TypeMeta{APIVersion: "autoscaling/v1", Kind: "Scale"}, ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "cart", UID: "u", ResourceVersion: "7"},
		Spec: autoscalingv1.ScaleSpec{Replicas: 3}, Status: autoscalingv1.ScaleStatus{Replicas: 2, Selector: "app=cart"}}
	same := func(o, body client.Object) error {
		_, a := o.(*unstructured.Unstructured)
		if u, b := body.(*unstructured.Unstructured); a != b || b && u.GroupVersionKind() != autoscalingv1.SchemeGroupVersion.WithKind("Scale") {
			return fmt.Errorf("%T of %T", body, o)
		}
		return nil
	}
	strict := anyScale{fake.NewClientBuilder().WithInterceptorFuncs(interceptor.Funcs{
		SubResourceGet: func(_ context.Context, _ client.Client, _ string, o, body client.Object, _ ...client.SubResourceGetOption) error {
			text, err := json.Marshal(stored)
			return errors.Join(same(o, body), err, json.Unmarshal(text, body))
		},
		SubResourceUpdate: func(_ context.Context, _ client.Client, _ string, o client.Object, opts ...client.SubResourceUpdateOption) error {
			body := (&client.SubResourceUpdateOptions{}).ApplyOptions(opts).SubResourceBody
			text, err := json.Marshal(body)
			return errors.Join(same(o, body), err, json.Unmarshal(text, &stored))
		},
	}).Build()}
	for i, o := range []client.Object{other("argoproj.io/v1alpha1", "Rollout", "cart"), deployment()} {
		scale := &autoscalingv1.Scale{}
		if err := strict.SubResource("scale").Get(t.Context(), o, scale); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(stored, *scale); diff != "" {
			t.Error(diff)
		}
		scale.Spec.Replicas = int32(i + 8)
		if err := strict.SubResource("scale").Update(t.Context(), o, client.WithSubResourceBody(scale), client.FieldOwner("x")); err != nil {
			t.Fatal(err)
		}
		if stored.Spec.Replicas != int32(i+8) || stored.ResourceVersion != "7" {
			t.Errorf("%+v", stored)
		}
	}
}
