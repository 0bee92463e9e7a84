package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/watch"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	zalando "github.com/kubetide/kubetide/api/zalando/v1"
	"github.com/kubetide/kubetide/test/lab"
	"github.com/kubetide/kubetide/workloads/stackset"
	"github.com/kubetide/kubetide/workloads/stackset/generate"
)

// stacksEach is how many Stacks each StackSet has.
const stacksEach = 5

// stackSets is the load of many StackSets. Each is watched from outside, so times include what a watch takes.
type stackSets struct {
	engine

	// Of each StackSet by its number: the version that has a Stack, whether it is ready, and the segments of its Stacks by their names,
	// with the time at which each was first seen; the Deployments likewise. The engine's lock guards them.
	versions map[int]string
	ready    map[int]bool
	segments map[string]sighted
	deployed map[string]time.Time
}

type sighted struct {
	predicate string
	at        time.Time
}

func versionOf(n int) string { return "v" + strconv.Itoa(n) }

func stackOf(i, version int) string { return appOf(i) + "-" + versionOf(version) }

func (s *stackSets) stackSet(i, version int) *zalando.StackSet {
	requests := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m")}
	return &zalando.StackSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespaceOf(i), Name: appOf(i)},
		Spec: zalando.StackSetSpec{
			Ingress: &zalando.StackSetIngressSpec{Hosts: []string{appOf(i) + ".example.org"}, BackendPort: intstr.FromInt32(8080)},
			// Nothing is scaled down while it is measured.
			StackLifecycle: zalando.StackLifecycle{ScaledownTTLSeconds: ptr.To[int64](86400)},
			StackTemplate: zalando.StackTemplate{Spec: zalando.StackSpecTemplate{Version: versionOf(version), StackSpec: zalando.StackSpec{
				PodTemplate: corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "simulated",
					Ports: []corev1.ContainerPort{{ContainerPort: 8080}}, Resources: corev1.ResourceRequirements{Requests: requests}}}}},
				Autoscaler: &zalando.Autoscaler{MinReplicas: ptr.To[int32](1), MaxReplicas: 3, Metrics: []zalando.AutoscalerMetrics{{Type: zalando.CPUMetric, AverageUtilization: ptr.To[int32](80)}}},
			}}},
		},
	}
}

// runStackSets is `make performance-stacksets`.
func runStackSets(ctx context.Context, o options, cluster *lab.Lab) (string, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, zalando.AddToScheme} {
		if err := add(scheme); err != nil {
			return "", err
		}
	}
	api, err := client.NewWithWatch(cluster.Config(), client.Options{Scheme: scheme})
	if err != nil {
		return "", err
	}
	o.ihpas = o.stackSets // as many of what the engine's load has
	s := &stackSets{engine: engine{options: o, cluster: cluster, api: api},
		versions: map[int]string{}, ready: map[int]bool{}, segments: map[string]sighted{}, deployed: map[string]time.Time{}}
	if err := s.observe(ctx); err != nil {
		return "", err
	}
	figures, costs, err := s.stages(ctx, "stacksets-", []stage{
		{"creation", s.creation}, {"rest", s.rest}, {"traffic", s.traffic}, {"versions", s.newVersions},
	})
	if err != nil {
		return "", err
	}
	var r report
	r.table(fmt.Sprintf("%d StackSets with %d Stacks each", o.stackSets, stacksEach), figures...)
	costs.print(&r)
	return r.String(), nil
}

// observe follows the StackSets, the segments and the Deployments until ctx ends.
func (s *stackSets) observe(ctx context.Context) error {
	for list, see := range map[client.ObjectList]func(watch.Event){
		&zalando.StackSetList{}: func(event watch.Event) {
			if set, ok := event.Object.(*zalando.StackSet); ok {
				s.versions[numberOf(set.Name)] = set.Status.ObservedStackVersion
				s.ready[numberOf(set.Name)] = set.Status.ObservedGeneration == set.Generation && set.Status.ReadyStacks == set.Status.Stacks &&
					apimeta.IsStatusConditionTrue(set.Status.Conditions, stackset.ConditionReady)
			}
		},
		&networkingv1.IngressList{}: func(event watch.Event) {
			ingress, ok := event.Object.(*networkingv1.Ingress)
			if !ok {
				return
			}
			predicate := ingress.Annotations[generate.PredicateAnnotation]
			if stack, segment := strings.CutSuffix(ingress.Name, generate.SegmentSuffix); segment && s.segments[stack].predicate != predicate {
				s.segments[stack] = sighted{predicate, time.Now()}
			}
		},
		&appsv1.DeploymentList{}: func(event watch.Event) {
			if d, ok := event.Object.(*appsv1.Deployment); ok && s.deployed[d.Name].IsZero() {
				s.deployed[d.Name] = time.Now()
			}
		},
	} {
		if err := s.follow(ctx, list, see); err != nil {
			return err
		}
	}
	return nil
}

// creation makes the StackSets, one version after the other.
func (s *stackSets) creation(ctx context.Context) ([]row, error) {
	for i := range namespaces {
		if err := s.api.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespaceOf(i)}}); err != nil {
			return nil, err
		}
	}
	began := time.Now()
	for n := 1; n <= stacksEach; n++ {
		say("version %d of %d StackSets", n, s.stackSets)
		err := s.each(ctx, all, func(ctx context.Context, i int) error {
			if n == 1 {
				return s.api.Create(ctx, s.stackSet(i, 1))
			}
			return s.api.Patch(ctx, s.stackSet(i, n), client.MergeFrom(s.stackSet(i, n-1)))
		})
		if err != nil {
			return nil, err
		}
		if err := s.await(ctx, "Stacks of version "+versionOf(n), 20*time.Minute, func() (missing int) {
			for i := range s.stackSets {
				if s.versions[i] != versionOf(n) {
					missing++
				}
			}
			return missing
		}); err != nil {
			return nil, err
		}
	}
	if err := s.await(ctx, "ready StackSets", 20*time.Minute, func() (missing int) {
		for i := range s.stackSets {
			if !s.ready[i] {
				missing++
			}
		}
		return missing
	}); err != nil {
		return nil, err
	}
	return []row{{"from the first creation until all Stacks are ready", time.Since(began).Round(100 * time.Millisecond).String()}}, nil
}

// changed does something to StackSets, some a second, and returns how long it took until it is seen.
func (s *stackSets) changed(ctx context.Context, what string, do func(context.Context, int) error, seen func(i int) (time.Time, bool)) ([]row, error) {
	say("%s: %d a second for %s", what, s.options.changes, s.duration)
	since, writes, err := s.write(ctx, s.stackSets, all, do)
	if err != nil {
		return nil, err
	}
	err = s.await(ctx, what, 5*time.Minute, func() (missing int) {
		for i := range since {
			if _, ok := seen(i); !ok {
				missing++
			}
		}
		return missing
	})
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var took []time.Duration
	for i, from := range since {
		at, _ := seen(i)
		took = append(took, at.Sub(from))
	}
	slices.Sort(took)
	return []row{
		{fmt.Sprintf("%s, %d of them, %d a second", what, len(since), s.options.changes), percentiles(took), "p99 ≤ 1s"},
		{"of these times: the user's write", percentiles(writes)},
	}, nil
}

// traffic gives half of it to the second Stack; routers know when both segments are written.
func (s *stackSets) traffic(ctx context.Context) ([]row, error) {
	halves := map[int]string{1: "TrafficSegment(0.00, 0.50)", 2: "TrafficSegment(0.50, 1.00)"}
	return s.changed(ctx, "half of the traffic moves: from the user's write to the last segment", func(ctx context.Context, i int) error {
		patch := fmt.Sprintf(`{"spec":{"traffic":[{"stackName":%q,"weight":50},{"stackName":%q,"weight":50}]}}`, stackOf(i, 1), stackOf(i, 2))
		return s.api.Patch(ctx, s.stackSet(i, stacksEach), client.RawPatch("application/merge-patch+json", []byte(patch)))
	}, func(i int) (last time.Time, ok bool) {
		for version, want := range halves {
			got := s.segments[stackOf(i, version)]
			if got.predicate != want {
				return last, false
			}
			if got.at.After(last) {
				last = got.at
			}
		}
		return last, true
	})
}

// newVersions makes one Stack more.
func (s *stackSets) newVersions(ctx context.Context) ([]row, error) {
	return s.changed(ctx, "a new version: from the user's write to its Deployment", func(ctx context.Context, i int) error {
		return s.api.Patch(ctx, s.stackSet(i, stacksEach+1), client.MergeFrom(s.stackSet(i, stacksEach)))
	}, func(i int) (time.Time, bool) {
		at := s.deployed[stackOf(i, stacksEach+1)]
		return at, !at.IsZero()
	})
}
