package adapter

import (
	"context"
	"fmt"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	appsinformers "k8s.io/client-go/informers/apps/v1"
	"k8s.io/client-go/kubernetes"
	appslisters "k8s.io/client-go/listers/apps/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/rest"
	scaleclient "k8s.io/client-go/scale"
	"k8s.io/utils/clock"

	"github.com/kubetide/kubetide/adapter/annotations"
	"github.com/kubetide/kubetide/collectors"
	"github.com/kubetide/kubetide/internal/sample"
)

// slim drops what nobody here reads, before the informers keep it: tens of thousands of pods stay in memory.
func slim(obj any) (any, error) {
	if object, ok := obj.(metav1.Object); ok {
		object.SetManagedFields(nil)
	}
	switch o := obj.(type) {
	case *corev1.Pod:
		o.Annotations = nil
		containers := func(in []corev1.Container) []corev1.Container {
			out := make([]corev1.Container, len(in))
			for i := range in {
				out[i] = corev1.Container{Name: in[i].Name, Ports: in[i].Ports, Resources: in[i].Resources, RestartPolicy: in[i].RestartPolicy}
			}
			return out
		}
		o.Spec = corev1.PodSpec{NodeName: o.Spec.NodeName, HostNetwork: o.Spec.HostNetwork, Containers: containers(o.Spec.Containers),
			InitContainers: containers(o.Spec.InitContainers), ReadinessGates: o.Spec.ReadinessGates, Resources: o.Spec.Resources}
		o.Status = corev1.PodStatus{Phase: o.Status.Phase, Conditions: o.Status.Conditions, PodIP: o.Status.PodIP, PodIPs: o.Status.PodIPs, StartTime: o.Status.StartTime}
	case *autoscalingv2.HorizontalPodAutoscaler:
		o.Annotations = annotations.Slim(o.Annotations)
		// The engine, which reads this, too, wants to know the count.
		o.Status = autoscalingv2.HorizontalPodAutoscalerStatus{CurrentReplicas: o.Status.CurrentReplicas}
	case *appsv1.Deployment:
		o.Annotations, o.Labels = nil, nil
		o.Spec = appsv1.DeploymentSpec{Selector: o.Spec.Selector, Replicas: o.Spec.Replicas}
		o.Status = appsv1.DeploymentStatus{Replicas: o.Status.Replicas}
	case *appsv1.StatefulSet:
		o.Annotations, o.Labels = nil, nil
		o.Spec = appsv1.StatefulSetSpec{Selector: o.Spec.Selector, Replicas: o.Spec.Replicas}
		o.Status = appsv1.StatefulSetStatus{Replicas: o.Status.Replicas}
	}
	return obj, nil
}

// pods implements collectors.Pods.
type pods struct{ lister corelisters.PodLister }

func (p *pods) Pods(namespace string, selector labels.Selector) ([]*corev1.Pod, error) {
	return p.lister.Pods(namespace).List(selector)
}

// scaleAge is how long a /scale that was read from the API server is good for. Deployments and StatefulSets come from
// informers and are never read.
const scaleAge = 10 * time.Second

// failedScaleAge is the same for a /scale that could not be read: a new workload is to be seen soon.
const failedScaleAge = time.Second

// maxScales bounds what is remembered.
const maxScales = 10_000

type getScale func(ctx context.Context, namespace string, resource schema.GroupResource, name string) (*autoscalingv1.Scale, error)

// scales implements collectors.Scales.
type scales struct {
	deployments  appslisters.DeploymentLister
	statefulSets appslisters.StatefulSetLister
	mapper       meta.RESTMapper
	get          getScale
	clock        clock.PassiveClock

	mu    sync.Mutex
	known map[target]*knownScale
}

type target struct {
	namespace string
	object    sample.ObjectRef
}

// knownScale is read from the API server by whoever holds the turn, so that many askers cause one request.
type knownScale struct {
	turn  chan struct{}
	at    time.Time
	scale collectors.Scale
	err   error
}

func newScales(apps appsinformers.Interface, mapper meta.RESTMapper, get getScale, clock clock.PassiveClock) *scales {
	return &scales{deployments: apps.Deployments().Lister(), statefulSets: apps.StatefulSets().Lister(),
		mapper: mapper, get: get, clock: clock, known: map[target]*knownScale{}}
}

func scaleGetter(config *rest.Config, client kubernetes.Interface, mapper meta.RESTMapper) (getScale, error) {
	kinds := scaleclient.NewDiscoveryScaleKindResolver(client.Discovery())
	getter, err := scaleclient.NewForConfig(config, mapper, dynamic.LegacyAPIPathResolverFunc, kinds)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, namespace string, resource schema.GroupResource, name string) (*autoscalingv1.Scale, error) {
		return getter.Scales(namespace).Get(ctx, resource, name, metav1.GetOptions{})
	}, nil
}

// Scale implements collectors.Scales.
func (s *scales) Scale(ctx context.Context, namespace string, object sample.ObjectRef) (collectors.Scale, error) {
	scale, err := s.scale(ctx, namespace, object)
	if apierrors.IsNotFound(err) {
		return collectors.Scale{}, sample.NoData("scale of %s in namespace %s: %v", object, namespace, err)
	}
	if err != nil {
		return collectors.Scale{}, fmt.Errorf("scale of %s in namespace %s: %w", object, namespace, err)
	}
	return scale, nil
}

func (s *scales) scale(ctx context.Context, namespace string, object sample.ObjectRef) (collectors.Scale, error) {
	switch (schema.GroupKind{Group: object.Group, Kind: object.Kind}) {
	case schema.GroupKind{Group: appsv1.GroupName, Kind: "Deployment"}:
		d, err := s.deployments.Deployments(namespace).Get(object.Name)
		if err != nil {
			return collectors.Scale{}, err
		}
		return known(d.Spec.Selector, d.Spec.Replicas, d.Status.Replicas)
	case schema.GroupKind{Group: appsv1.GroupName, Kind: "StatefulSet"}:
		d, err := s.statefulSets.StatefulSets(namespace).Get(object.Name)
		if err != nil {
			return collectors.Scale{}, err
		}
		return known(d.Spec.Selector, d.Spec.Replicas, d.Status.Replicas)
	}
	k := s.entry(target{namespace: namespace, object: object})
	select {
	case k.turn <- struct{}{}:
	case <-ctx.Done():
		return collectors.Scale{}, ctx.Err()
	}
	defer func() { <-k.turn }()
	age := scaleAge
	if k.err != nil {
		age = failedScaleAge
	}
	if k.at.IsZero() || s.clock.Since(k.at) > age {
		k.scale, k.err = s.read(ctx, namespace, object)
		k.at = s.clock.Now()
		if ctx.Err() != nil {
			k.at = time.Time{} // the asker ran out of time; that says nothing about the object
		}
	}
	return k.scale, k.err
}

// maySelect says whether the object's pods are those with the labels. It asks nobody, and says yes where it can't know.
func (s *scales) maySelect(namespace string, object sample.ObjectRef, pod labels.Set) bool {
	if object.Group != appsv1.GroupName || object.Kind != "Deployment" && object.Kind != "StatefulSet" {
		return true
	}
	scale, err := s.scale(context.Background(), namespace, object)
	return err == nil && scale.Selector.Matches(pod)
}

func known(selector *metav1.LabelSelector, replicas *int32, status int32) (collectors.Scale, error) {
	parsed, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		return collectors.Scale{}, err
	}
	if parsed.Empty() {
		return collectors.Scale{}, errNoSelector
	}
	scale := collectors.Scale{Selector: parsed, SpecReplicas: 1, StatusReplicas: status}
	if replicas != nil {
		scale.SpecReplicas = *replicas
	}
	return scale, nil
}

var errNoSelector = fmt.Errorf("it has no selector, so its pods cannot be told")

func (s *scales) entry(t target) *knownScale {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := s.known[t]; k != nil {
		return k
	}
	if len(s.known) >= maxScales {
		clear(s.known)
	}
	k := &knownScale{turn: make(chan struct{}, 1)}
	s.known[t] = k
	return k
}

func (s *scales) read(ctx context.Context, namespace string, object sample.ObjectRef) (collectors.Scale, error) {
	mapping, err := s.mapper.RESTMapping(schema.GroupKind{Group: object.Group, Kind: object.Kind})
	if err != nil {
		return collectors.Scale{}, err
	}
	scale, err := s.get(ctx, namespace, mapping.Resource.GroupResource(), object.Name)
	if err != nil {
		return collectors.Scale{}, err
	}
	selector, err := labels.Parse(scale.Status.Selector)
	if err != nil {
		return collectors.Scale{}, fmt.Errorf("status.selector %q: %w", scale.Status.Selector, err)
	}
	if selector.Empty() {
		return collectors.Scale{}, errNoSelector
	}
	return collectors.Scale{Selector: selector, SpecReplicas: scale.Spec.Replicas, StatusReplicas: scale.Status.Replicas}, nil
}
