package stackset

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/ptr"
	"pgregory.net/rapid"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	zalando "github.com/kubetide/kubetide/api/zalando/v1"
	"github.com/kubetide/kubetide/workloads/stackset/generate"
	"github.com/kubetide/kubetide/workloads/stackset/segment"
)

func TestANewStackSetGetsAllThatBelongsToItAndThenRest(t *testing.T) {
	w := newWorld(t, stackSet(autoscaled(2, 5)))
	c := w.controller(options)
	want := []string{
		"create Stack shop-v1", "create Ingress shop-v1-traffic-segment", "create Ingress shop-v1", "create Deployment shop-v1",
		"create HorizontalPodAutoscaler shop-v1", "create Service shop-v1", "patch StackSet shop", "patch status of Stack shop-v1", "patch status of StackSet shop",
	}
	if diff := cmp.Diff(want, w.look(c)); diff != "" {
		t.Errorf("writes (-want +got):\n%s", diff)
	}
	w.settle(c)
	if wrote := w.look(w.controller(options)); len(wrote) > 0 {
		t.Errorf("a new process writes at rest: %v", wrote)
	}
	set := w.set()
	if s := set.Status; s.Stacks != 1 || s.ReadyStacks != 1 || s.StacksWithTraffic != 1 || s.ObservedStackVersion != "v1" || s.ObservedGeneration != set.Generation ||
		len(s.Traffic) != 1 || s.Traffic[0].Weight != 100 || s.Traffic[0].ServicePort.IntVal != 80 {
		t.Errorf("status %+v", s)
	}
	condition(t, set.Status.Conditions, ConditionReady, metav1.ConditionTrue, ReasonReady, "")
	condition(t, set.Status.Conditions, ConditionProgressing, metav1.ConditionFalse, ReasonSettled, "")
	condition(t, set.Status.Conditions, ConditionTrafficSwitched, metav1.ConditionTrue, ReasonSwitched, "")
	condition(t, set.Status.Conditions, ConditionDegraded, metav1.ConditionFalse, ReasonHealthy, "")
	stack := w.stack("shop-v1")
	if s := stack.Status; s.ActualTrafficWeight != 100 || s.DesiredTrafficWeight != 100 || s.ReadyReplicas != 2 || s.DesiredReplicas != 2 || s.LabelSelector != "stack-version=v1,stackset=shop" {
		t.Errorf("status of the Stack %+v", s)
	}
	said := w.said()
	for _, text := range []string{"Normal CreatedStack", "Normal CreatedDeployment Created Deployment shop-v1", "Normal CreatedHPA", "Normal CreatedIngress", "Normal CreatedService",
		"Normal TrafficSwitched Switched traffic: shop-v1: 0.0% to 100.0%", "Normal UpdatedStackSet"} {
		if !strings.Contains(said, text) {
			t.Errorf("no event %q in\n%s", text, said)
		}
	}
}

// two is a StackSet with two Stacks that share the traffic.
func two(t tester, v1, v2 float64, how ...func(*zalando.StackSet)) (*world, *controller) {
	t.Helper()
	w := newWorld(t, stackSet(how...))
	c := w.controller(options)
	w.settle(c)
	w.version("v2", nil)
	w.settle(c)
	w.weights(map[string]float64{"shop-v1": v1, "shop-v2": v2})
	w.settle(c)
	w.said()
	return w, c
}

func TestTrafficWaitsForThePodsAndThenMoves(t *testing.T) {
	w, c := two(t, 100, 0)
	w.weights(map[string]float64{"shop-v1": 1, "shop-v2": 1})
	w.settle(c, "shop-v2")
	if diff := cmp.Diff(map[string]int{"shop-v1": 100, "shop-v2": 0}, w.shares()); diff != "" {
		t.Error(diff)
	}
	condition(t, w.set().Status.Conditions, ConditionTrafficSwitched, metav1.ConditionFalse, ReasonStacksNotReady, "shop-v2: 0 pods ready, 2 needed")
	condition(t, w.set().Status.Conditions, ConditionProgressing, metav1.ConditionTrue, ReasonWaiting, "")
	if said := w.said(); strings.Count(said, "Warning TrafficNotSwitched Failed to switch traffic: stacks not ready: shop-v2") != 1 {
		t.Errorf("events:\n%s", said)
	}
	if weights := w.set().Spec.Traffic; len(weights) != 2 || weights[0].Weight != 50 || weights[1].Weight != 50 {
		t.Errorf("weights are written back as %v", weights)
	}
	w.settle(c)
	if diff := cmp.Diff(map[string]int{"shop-v1": 50, "shop-v2": 50}, w.shares()); diff != "" {
		t.Error(diff)
	}
	if said := w.said(); !strings.Contains(said, "Switched traffic: shop-v1: 100.0% to 50.0%, shop-v2: 0.0% to 50.0%") {
		t.Errorf("events:\n%s", said)
	}
}

// Else the router, which reads the segments now and the endpoints a moment later, sends requests to nobody.
func TestTrafficWaitsUntilRoutersAreToldOfThePods(t *testing.T) {
	w, c := two(t, 100, 0)
	w.endpoints("shop-v2", 0)
	w.late = true
	w.weights(map[string]float64{"shop-v1": 50, "shop-v2": 50})
	w.settle(c)
	if diff := cmp.Diff(map[string]int{"shop-v1": 100, "shop-v2": 0}, w.shares()); diff != "" {
		t.Error(diff)
	}
	w.late = false
	w.settle(c)
	if diff := cmp.Diff(map[string]int{"shop-v1": 50, "shop-v2": 50}, w.shares()); diff != "" {
		t.Error(diff)
	}
}

func TestASpecOfARepositoryIsLeftAlone(t *testing.T) {
	w, c := two(t, 1, 2, func(s *zalando.StackSet) { s.Annotations = map[string]string{WriteBackAnnotation: "false"} })
	if diff := cmp.Diff(map[string]int{"shop-v1": 33, "shop-v2": 67}, w.shares()); diff != "" {
		t.Error(diff)
	}
	if weights := w.set().Spec.Traffic; weights[0].Weight != 1 || weights[1].Weight != 2 {
		t.Errorf("the spec has %v and %v", weights[0], weights[1])
	}
	if wrote := w.look(c); len(wrote) > 0 {
		t.Errorf("writes at rest: %v", wrote)
	}
}

func TestTheDocumentedPrescalingExample(t *testing.T) {
	w, c := two(t, 100, 0, prescaled, autoscaled(20, 40))
	floor := func() int32 { return *get(w, "shop-v2", &autoscalingv2.HorizontalPodAutoscaler{}).Spec.MinReplicas }
	for _, step := range []struct {
		weight float64
		floor  int32
	}{{1, 20}, {25, 30}, {50, 40}, {100, 40}} {
		w.weights(map[string]float64{"shop-v1": 100 - step.weight, "shop-v2": step.weight})
		before := w.shares()
		w.look(c)
		if floor() != step.floor {
			t.Errorf("at %v %% the autoscaler's minimum is %d, want %d", step.weight, floor(), step.floor)
		}
		d := get(w, "shop-v2", &appsv1.Deployment{})
		if *d.Spec.Replicas < step.floor && !maps.Equal(before, w.shares()) {
			t.Errorf("at %v %% the traffic moved to %d pods of %d", step.weight, *d.Spec.Replicas, step.floor)
		}
		w.settle(c)
		if got := w.shares()["shop-v2"]; got != int(step.weight) {
			t.Errorf("shop-v2 gets %d %%, want %v", got, step.weight)
		}
	}
	w.clock.SetTime(w.clock.Now().Add(10 * time.Minute))
	w.settle(c)
	if floor() != 20 || w.stack("shop-v2").Status.Prescaling.Active {
		t.Errorf("after the delay the minimum is %d", floor())
	}
}

func TestPodsThatAreNeverReadyHaveADeadline(t *testing.T) {
	w, c := two(t, 100, 0, prescaled)
	w.weights(map[string]float64{"shop-v1": 0, "shop-v2": 100})
	w.settle(c, "shop-v2")
	w.clock.SetTime(w.clock.Now().Add(10*time.Minute + time.Second))
	w.settle(c, "shop-v2")
	condition(t, w.set().Status.Conditions, ConditionDegraded, metav1.ConditionTrue, ReasonDeadline, "shop-v2")
	if said := w.said(); strings.Count(said, "PrescalingDeadlineExceeded") != 2 { // of the Stack and of the StackSet
		t.Errorf("events:\n%s", said)
	}
	if diff := cmp.Diff(map[string]int{"shop-v1": 100, "shop-v2": 0}, w.shares()); diff != "" {
		t.Error(diff)
	}
}

func TestNothingIsHeldOfAStackWithoutAWayIn(t *testing.T) {
	w, c := two(t, 100, 0, prescaled, autoscaled(2, 9))
	w.weights(map[string]float64{"shop-v1": 0, "shop-v2": 100})
	w.settle(c, "shop-v2")
	if !w.stack("shop-v2").Status.Prescaling.Active {
		t.Fatal("nothing is held")
	}
	for _, stack := range []string{"shop-v1", "shop-v2"} {
		change(w, stack, &zalando.Stack{}, func(s *zalando.Stack) { s.Spec.Ingress = nil })
	}
	change(w, "shop", &zalando.StackSet{}, func(s *zalando.StackSet) { s.Spec.Ingress = nil })
	w.settle(c)
	if s := w.stack("shop-v2").Status; s.Prescaling.Active || s.NoTrafficSince != nil || s.DesiredTrafficWeight != 0 {
		t.Errorf("status %+v", s)
	}
	if least := *get(w, "shop-v2", &autoscalingv2.HorizontalPodAutoscaler{}).Spec.MinReplicas; least != 2 {
		t.Errorf("the autoscaler's minimum is %d", least)
	}
	if len(w.live()) > 0 {
		t.Errorf("segments are left: %v", w.live())
	}
	condition(t, w.set().Status.Conditions, ConditionTrafficSwitched, metav1.ConditionTrue, ReasonNoIngress, "")
	condition(t, w.set().Status.Conditions, ConditionReady, metav1.ConditionTrue, ReasonReady, "")
}

func TestTheTrafficOfAStackThatIsDeletedIsTakenOverAtOnce(t *testing.T) {
	w, c := two(t, 30, 70)
	w.drop("shop-v2", &zalando.Stack{})
	w.look(c)
	if !segment.Complete(w.live()) {
		t.Errorf("requests find nobody: %v", w.live())
	}
	w.settle(c)
	if diff := cmp.Diff(map[string]int{"shop-v1": 100}, w.shares()); diff != "" {
		t.Error(diff)
	}
	if w.has("shop-v2", &zalando.Stack{}) {
		t.Error("a Stack that was deleted is back")
	}
	w.version("v3", nil)
	w.settle(c)
	w.version("v2", nil)
	w.settle(c)
	if !w.has("shop-v2", &zalando.Stack{}) {
		t.Error("a version that was asked for again has no Stack")
	}
}

// Before the garbage collector has been there.
func TestTheSegmentOfAStackThatIsGoneIsDeletedWhenOthersHaveItsTraffic(t *testing.T) {
	w, c := two(t, 30, 70)
	w.inside = true
	if err := w.Delete(context.Background(), w.stack("shop-v2")); err != nil {
		t.Fatal(err)
	}
	w.inside = false
	w.stored = func() {
		if !segment.Complete(w.live()) {
			t.Errorf("requests find nobody: %v", w.live())
		}
	}
	w.look(c)
	if diff := cmp.Diff(map[string]int{"shop-v1": 100}, w.shares()); diff != "" {
		t.Error(diff)
	}
}

func TestATimeToLiveOfZeroIsNotTheDefault(t *testing.T) {
	w, c := two(t, 0, 100, autoscaled(2, 5), func(s *zalando.StackSet) {
		s.Spec.StackLifecycle = zalando.StackLifecycle{ScaledownTTLSeconds: ptr.To[int64](0)}
	})
	w.clock.SetTime(w.clock.Now().Add(20 * time.Second)) // routers have seen that it has no traffic
	w.settle(c)
	if d := get(w, "shop-v1", &appsv1.Deployment{}); *d.Spec.Replicas != 0 {
		t.Errorf("%d pods", *d.Spec.Replicas)
	}
}

// Nobody knows what came of a request whose connection broke, so it is sent again, though nothing that is watched has changed.
func TestAWriteWithoutAnAnswerIsSentAgain(t *testing.T) {
	for name, broken := range map[string]error{
		"the connection ended":     &url.Error{Op: "Post", URL: "https://10.96.0.1", Err: io.EOF},
		"within the answer":        fmt.Errorf("unexpected error when reading response body: %w", io.ErrUnexpectedEOF),
		"the API server is silent": &url.Error{Op: "Post", URL: "https://10.96.0.1", Err: context.DeadlineExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			w, c := two(t, 0, 100, autoscaled(2, 5))
			w.drop("shop-v2", &autoscalingv2.HorizontalPodAutoscaler{})
			w.admit = func(o client.Object) error {
				if _, is := o.(*autoscalingv2.HorizontalPodAutoscaler); is {
					return broken
				}
				return nil
			}
			request := reconcile.Request{NamespacedName: client.ObjectKey{Namespace: ns, Name: "shop"}}
			if _, err := c.Reconcile(t.Context(), request); !errors.Is(err, broken) {
				t.Errorf("it is not sent again: %v", err)
			}
			w.admit = func(client.Object) error { return nil }
			w.settle(c)
			if !w.has("shop-v2", &autoscalingv2.HorizontalPodAutoscaler{}) {
				t.Error("it is not there")
			}
		})
	}
}

func TestATimeToLiveMayBeLongerThanADurationHolds(t *testing.T) {
	w, c := two(t, 0, 100, autoscaled(2, 5), func(s *zalando.StackSet) {
		s.Spec.StackLifecycle = zalando.StackLifecycle{ScaledownTTLSeconds: ptr.To[int64](math.MaxInt64)}
	})
	w.clock.SetTime(w.clock.Now().Add(24 * time.Hour))
	w.settle(c)
	if d := get(w, "shop-v1", &appsv1.Deployment{}); *d.Spec.Replicas != 2 {
		t.Errorf("%d pods", *d.Spec.Replicas)
	}
}

func TestAnIdleStackIsScaledDownAndGoesWhenThereAreTooMany(t *testing.T) {
	w, c := two(t, 0, 100, autoscaled(2, 5), func(s *zalando.StackSet) {
		s.Spec.StackLifecycle = zalando.StackLifecycle{ScaledownTTLSeconds: ptr.To[int64](60), Limit: ptr.To[int32](1)}
	})
	if d := get(w, "shop-v1", &appsv1.Deployment{}); *d.Spec.Replicas != 2 {
		t.Errorf("%d pods at once", *d.Spec.Replicas)
	}
	result, err := c.Reconcile(t.Context(), reconcile.Request{NamespacedName: client.ObjectKey{Namespace: ns, Name: "shop"}})
	if err != nil || result.RequeueAfter < 59*time.Second || result.RequeueAfter > 61*time.Second {
		t.Errorf("it looks again after %v, %v", result.RequeueAfter, err)
	}
	w.clock.SetTime(w.clock.Now().Add(61 * time.Second))
	w.settle(c)
	if d := get(w, "shop-v1", &appsv1.Deployment{}); *d.Spec.Replicas != 0 || w.has("shop-v1", &autoscalingv2.HorizontalPodAutoscaler{}) {
		t.Errorf("%d pods after the time", *d.Spec.Replicas)
	}
	// It has to come back before it gets traffic.
	w.weights(map[string]float64{"shop-v1": 50, "shop-v2": 50})
	w.look(c)
	if got := w.shares(); got["shop-v1"] != 0 {
		t.Errorf("traffic without pods: %v", got)
	}
	w.settle(c)
	if diff := cmp.Diff(map[string]int{"shop-v1": 50, "shop-v2": 50}, w.shares()); diff != "" {
		t.Error(diff)
	}
	w.version("v3", nil)
	w.settle(c)
	w.weights(map[string]float64{"shop-v3": 100})
	w.settle(c)
	w.clock.SetTime(w.clock.Now().Add(61 * time.Second))
	w.settle(c)
	w.collect()
	w.settle(c)
	stacks := &zalando.StackList{}
	if err := w.List(t.Context(), stacks); err != nil || len(stacks.Items) != 2 {
		t.Errorf("%d Stacks, %v", len(stacks.Items), err)
	}
}

func TestAStackWithAMistakeGetsNoTrafficAndSaysWhy(t *testing.T) {
	for name, tc := range map[string]struct {
		mistake        func(*zalando.StackSpec)
		reason, says   string
		withoutOptions bool
		noDeployment   bool
		admit          func(client.Object) error
	}{
		"a metric without a target": {mistake: func(s *zalando.StackSpec) {
			s.Autoscaler = &zalando.Autoscaler{MaxReplicas: 3, Metrics: []zalando.AutoscalerMetrics{{Type: zalando.CPUMetric}}}
		}, reason: "FailedManageHPA", says: "metric of type CPU: utilization is not specified"},
		"a port that nobody has": {mistake: func(s *zalando.StackSpec) {
			s.Service = &zalando.StackServiceSpec{Ports: []corev1.ServicePort{{Name: "http", Port: 8080}}}
		}, reason: "FailedManageService", says: "no service ports matching backendPort '80'"},
		"a ConfigMap that is not there": {mistake: func(s *zalando.StackSpec) {
			s.ConfigurationResources = []zalando.ConfigurationResourcesSpec{{ConfigMapRef: &corev1.LocalObjectReference{Name: "shop-v2-settings"}}}
		}, reason: "FailedManageConfigMapRefs", says: "ConfigMap shop-v2-settings, which configurationResources names, does not exist", noDeployment: true},
		"a Secret that is not there": {mistake: func(s *zalando.StackSpec) {
			s.ConfigurationResources = []zalando.ConfigurationResourcesSpec{{SecretRef: &corev1.LocalObjectReference{Name: "shop-v2-keys"}}}
		}, reason: "FailedManageSecretRefs", says: "Secret shop-v2-keys, which configurationResources names, does not exist", noDeployment: true},
		"an inline ConfigMap whose name somebody has": {mistake: func(s *zalando.StackSpec) {
			s.ConfigurationResources = []zalando.ConfigurationResourcesSpec{{ConfigMap: &zalando.ConfigMapSpec{Name: "foreign", Data: map[string]string{"a": "1"}}}}
		}, reason: "FailedManageConfigMap", says: "ConfigMap shop-v2-foreign is there already, and was not made for this Stack", noDeployment: true},
		"credentials without tokens": {mistake: func(s *zalando.StackSpec) {
			s.ConfigurationResources = []zalando.ConfigurationResourcesSpec{{PlatformCredentialsSet: &zalando.PCS{Name: "shop-v2-credentials"}}}
		}, reason: "FailedManagePlatformCredentialsSet", says: "platformCredentialsSet has no tokens", noDeployment: true},
		"pods that the API server refuses": {mistake: func(s *zalando.StackSpec) { s.PodTemplate.Spec.Containers[0].Name = "Main" }, admit: func(o client.Object) error {
			if d, ok := o.(*appsv1.Deployment); ok && d.Spec.Template.Spec.Containers[0].Name == "Main" {
				return apierrors.NewInvalid(schema.GroupKind{Group: "apps", Kind: "Deployment"}, d.Name, nil)
			}
			return nil
		}, reason: "FailedManageDeployment", says: "is invalid", noDeployment: true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, stackSet())
			if tc.admit != nil {
				w.admit = tc.admit
			}
			o := options
			o.ConfigMaps, o.Secrets, o.PlatformCredentialsSets = true, true, true
			w.add(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "shop-v2-foreign"}})
			c := w.controller(o)
			w.settle(c)
			w.version("v2", tc.mistake)
			w.weights(map[string]float64{"shop-v1": 50, "shop-v2": 50})
			w.said()
			w.settle(c)
			if diff := cmp.Diff(100, w.shares()["shop-v1"]); diff != "" {
				t.Error(diff)
			}
			condition(t, w.set().Status.Conditions, ConditionDegraded, metav1.ConditionTrue, tc.reason, "stack shop-v2: ")
			condition(t, w.set().Status.Conditions, ConditionDegraded, metav1.ConditionTrue, tc.reason, tc.says)
			condition(t, w.stack("shop-v2").Status.Conditions, ConditionDegraded, metav1.ConditionTrue, tc.reason, tc.says)
			condition(t, w.set().Status.Conditions, ConditionTrafficSwitched, metav1.ConditionFalse, ReasonStacksNotReady, "shop-v2")
			if said := w.said(); strings.Count(said, "Warning "+tc.reason) != 2 {
				t.Errorf("events:\n%s", said)
			}
			if w.has("shop-v2", &appsv1.Deployment{}) == tc.noDeployment {
				t.Errorf("a Deployment is there: %v", !tc.noDeployment)
			}
			if tc.reason != "FailedManageService" && !w.has("shop-v2", &corev1.Service{}) {
				t.Error("there is no Service")
			}
		})
	}
}

func TestAReferenceThatComesLaterIsAdopted(t *testing.T) {
	w := newWorld(t, stackSet(func(s *zalando.StackSet) {
		s.Spec.StackTemplate.Spec.ConfigurationResources = []zalando.ConfigurationResourcesSpec{
			{ConfigMapRef: &corev1.LocalObjectReference{Name: "shop-v1-settings"}}, {ConfigMap: &zalando.ConfigMapSpec{Name: "inline", Data: map[string]string{"a": "1"}}}}
	}))
	o := options
	o.ConfigMaps = true
	c := w.controller(o)
	w.settle(c)
	if w.has("shop-v1", &appsv1.Deployment{}) {
		t.Fatal("pods without their configuration")
	}
	result, _ := c.Reconcile(t.Context(), reconcile.Request{NamespacedName: client.ObjectKey{Namespace: ns, Name: "shop"}})
	if result.RequeueAfter <= 0 || result.RequeueAfter > lookAgain {
		t.Errorf("it looks again after %v", result.RequeueAfter)
	}
	w.add(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "shop-v1-settings"}})
	w.settle(c)
	if m := get(w, "shop-v1-settings", &corev1.ConfigMap{}); !w.has("shop-v1", &appsv1.Deployment{}) || !ownedBy(m, w.stack("shop-v1").UID) {
		t.Errorf("%+v", m)
	}
	if m := get(w, "shop-v1-inline", &corev1.ConfigMap{}); m.Data["a"] != "1" {
		t.Errorf("%+v", m)
	}
}

func TestAStackSetOfAnotherControllerIsLeftAlone(t *testing.T) {
	for name, tc := range map[string]struct {
		id, annotation string
		ours           bool
	}{
		"neither has an id":       {"", "", true},
		"it has one, we have not": {"", "a", false},
		"we have one, it has not": {"a", "", false},
		"the same":                {"a", "a", true},
		"another":                 {"a", "b", false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, stackSet(func(s *zalando.StackSet) {
				if tc.annotation != "" {
					s.Annotations = map[string]string{ControllerAnnotation: tc.annotation}
				}
			}))
			o := options
			o.ControllerID = tc.id
			if wrote := w.look(w.controller(o)); len(wrote) > 0 != tc.ours {
				t.Errorf("wrote %v", wrote)
			}
		})
	}
}

func TestDriftIsRepairedAndWhatOthersAddStays(t *testing.T) {
	w, c := two(t, 50, 50, autoscaled(2, 5))
	change(w, "shop-v1-traffic-segment", &networkingv1.Ingress{}, func(o *networkingv1.Ingress) {
		o.Annotations["example.org/other"] = "1"
		o.Spec.Rules[0].Host = "wrong"
	})
	change(w, "shop-v1", &autoscalingv2.HorizontalPodAutoscaler{}, func(o *autoscalingv2.HorizontalPodAutoscaler) { o.Spec.MaxReplicas = 9 })
	change(w, "shop-v1", &appsv1.Deployment{}, func(o *appsv1.Deployment) {
		o.Spec.Template.Annotations = map[string]string{"kubectl.kubernetes.io/restartedAt": "now"}
		o.Spec.Template.Spec.Containers[0].Image = "wrong"
		o.Spec.Replicas = ptr.To[int32](4)
	})
	change(w, "shop-v1", &corev1.Service{}, func(o *corev1.Service) { o.Spec.Selector = nil })
	w.settle(c)
	if o := get(w, "shop-v1-traffic-segment", &networkingv1.Ingress{}); o.Annotations["example.org/other"] != "1" || o.Spec.Rules[0].Host != "shop.example.org" {
		t.Errorf("%+v", o)
	}
	d := get(w, "shop-v1", &appsv1.Deployment{})
	if get(w, "shop-v1", &autoscalingv2.HorizontalPodAutoscaler{}).Spec.MaxReplicas != 5 || len(get(w, "shop-v1", &corev1.Service{}).Spec.Selector) != 2 ||
		d.Spec.Template.Spec.Containers[0].Image != "shop:1" || *d.Spec.Replicas != 4 || d.Spec.Template.Annotations["kubectl.kubernetes.io/restartedAt"] != "now" {
		t.Errorf("%+v", d.Spec)
	}
}

func TestSyncedAnnotationsReachAllSegmentsAndGoAgain(t *testing.T) {
	w, _ := two(t, 50, 50)
	o := options
	o.SyncAnnotations = []string{"example.org/synced"}
	c := w.controller(o)
	synced := func(value string) {
		t.Helper()
		change(w, "shop", &zalando.StackSet{}, func(s *zalando.StackSet) {
			s.Spec.Ingress.Annotations = nil
			if value != "" {
				s.Spec.Ingress.Annotations = map[string]string{"example.org/synced": value}
			}
		})
		w.settle(c)
		for _, stack := range []string{"shop-v1", "shop-v2"} {
			if got := get(w, stack+generate.SegmentSuffix, &networkingv1.Ingress{}).Annotations["example.org/synced"]; got != value {
				t.Errorf("%s has %q, want %q", stack, got, value)
			}
		}
	}
	synced("a")
	synced("b")
	synced("")
}

func TestWhatSomebodyElseHasIsNotTaken(t *testing.T) {
	foreign := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "shop-v1", OwnerReferences: []metav1.OwnerReference{{Kind: "Other", Name: "x", UID: "x"}}},
		Spec: appsv1.DeploymentSpec{Replicas: ptr.To[int32](1)}}
	w := newWorld(t, stackSet(), foreign)
	c := w.controller(options)
	w.look(c)
	condition(t, w.set().Status.Conditions, ConditionDegraded, metav1.ConditionTrue, "FailedManageDeployment", "Deployment shop-v1 is there already, and was not made for this Stack")
	if wrote := w.look(c); slices.ContainsFunc(wrote, func(s string) bool { return strings.Contains(s, "Deployment") }) {
		t.Errorf("wrote %v", wrote)
	}

	w = newWorld(t, stackSet(), &zalando.Stack{ObjectMeta: metav1.ObjectMeta{Name: "shop-v1"}})
	w.look(w.controller(options))
	condition(t, w.set().Status.Conditions, ConditionDegraded, metav1.ConditionTrue, "FailedCreateStack", "stack shop-v1 is there already")
}

func TestAStackWhoseSegmentSomebodyElseHasGetsNoTrafficAndKeepsNobodyFromIt(t *testing.T) {
	w, c := two(t, 100, 0)
	name := "shop-v3" + generate.SegmentSuffix
	w.add(&networkingv1.Ingress{ObjectMeta: metav1.ObjectMeta{Name: name, OwnerReferences: []metav1.OwnerReference{{Kind: "Other", Name: "x", UID: "x"}}}})
	w.version("v3", nil)
	w.weights(map[string]float64{"shop-v1": 50, "shop-v2": 50})
	w.settle(c)
	if diff := cmp.Diff(map[string]int{"shop-v1": 50, "shop-v2": 50}, w.shares()); diff != "" {
		t.Error(diff)
	}
	const says = "Ingress shop-v3-traffic-segment is there already, and was not made for this Stack"
	condition(t, w.set().Status.Conditions, ConditionDegraded, metav1.ConditionTrue, "FailedManageIngressSegment", says)
	condition(t, w.stack("shop-v3").Status.Conditions, ConditionDegraded, metav1.ConditionTrue, "FailedManageIngressSegment", says)
	w.weights(map[string]float64{"shop-v3": 100})
	w.settle(c)
	if diff := cmp.Diff(map[string]int{"shop-v1": 50, "shop-v2": 50}, w.shares()); diff != "" {
		t.Error(diff)
	}
	condition(t, w.set().Status.Conditions, ConditionTrafficSwitched, metav1.ConditionFalse, ReasonStacksNotReady, "shop-v3")
	if o := get(w, name, &networkingv1.Ingress{}); len(o.Labels) > 0 || len(o.Annotations) > 0 || o.OwnerReferences[0].UID != "x" {
		t.Errorf("it was touched: %+v", o)
	}
}

func TestMistakesOfTheStackSetAreSaid(t *testing.T) {
	w, c := two(t, 50, 50)
	change(w, "shop", &zalando.StackSet{}, func(s *zalando.StackSet) {
		s.Annotations = map[string]string{"alpha.stackset-controller.zalando.org/reset-hpa-min-replicas-delay": "soon", WriteBackAnnotation: "false"}
		s.Spec.Traffic = append(s.Spec.Traffic, &zalando.DesiredTraffic{StackName: "shop-v3", Weight: 10}, &zalando.DesiredTraffic{StackName: "shop-v2", Weight: -1})
		s.Spec.StackTemplate.Spec.Version = "1.2"
	})
	w.settle(c)
	for _, says := range []string{`"soon" is not a duration`, `spec.traffic: stack "shop-v3" does not exist`, `the weight of stack "shop-v2" is -1`, "spec.stackTemplate.spec.version"} {
		condition(t, w.set().Status.Conditions, ConditionDegraded, metav1.ConditionTrue, "", says)
	}
	if diff := cmp.Diff(map[string]int{"shop-v1": 100, "shop-v2": 0}, w.shares()); diff != "" {
		t.Error(diff)
	}
}

// What upstream's controller has made is taken over as it is: no write beside the status, so no pod is touched.
func TestWhatUpstreamHasMadeIsTakenOver(t *testing.T) {
	w, _ := two(t, 30, 70, autoscaled(2, 5))
	w.inside = true
	for _, name := range []string{"shop-v1", "shop-v2"} {
		s := w.stack(name)
		s.Status.Conditions, s.Status.ObservedGeneration = nil, 0
		if err := w.Status().Update(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	set := w.set()
	set.Status.Conditions = nil
	if err := w.Status().Update(t.Context(), set); err != nil {
		t.Fatal(err)
	}
	w.inside = false
	w.pods()
	want := []string{"patch status of Stack shop-v1", "patch status of Stack shop-v2", "patch status of StackSet shop"}
	if diff := cmp.Diff(want, w.look(w.controller(options))); diff != "" {
		t.Errorf("writes (-want +got):\n%s", diff)
	}
}

// A cache that has not seen what upstream has made is no reason to change it: nothing is written but what the store refuses.
func TestWhatTheCacheHasNotSeenIsTakenOverAsWell(t *testing.T) {
	w, c := two(t, 30, 70, autoscaled(2, 5))
	change(w, "shop-v1", &corev1.Service{}, func(o *corev1.Service) { o.Spec.Ports[0].Name = "port-0-0" }) // as upstream names it
	w.settle(c)
	c = w.controller(options)
	c.client = interceptor.NewClient(w, interceptor.Funcs{
		Get: func(ctx context.Context, inner client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
			switch o.(type) {
			case *corev1.Service, *autoscalingv2.HorizontalPodAutoscaler, *networkingv1.Ingress:
				return apierrors.NewNotFound(schema.GroupResource{}, key.Name)
			}
			return inner.Get(ctx, key, o, opts...)
		},
	})
	before := get(w, "shop-v1", &corev1.Service{})
	w.look(c)
	if diff := cmp.Diff(before, get(w, "shop-v1", &corev1.Service{})); diff != "" {
		t.Errorf("the Service (-before +after):\n%s", diff)
	}
	for _, wrote := range w.writes {
		if !strings.HasPrefix(wrote, "create ") && !strings.Contains(wrote, " status of ") {
			t.Errorf("it wrote: %s", wrote)
		}
	}
}

func TestSegmentsOfBothKindsAreCovered(t *testing.T) {
	group := func(s *zalando.StackSet) {
		s.Spec.RouteGroup = &zalando.StackSetRouteGroupSpec{Hosts: []string{"shop.example.org"}, BackendPort: 80, Routes: []zalando.RouteGroupRoute{{PathSubtree: "/"}}}
	}
	o := options
	o.RouteGroups = true
	w := newWorld(t, stackSet(group))
	c := w.controller(o)
	w.settle(c)
	w.version("v2", nil)
	w.settle(c)
	w.stored = func() {
		if !segment.Complete(w.live()) || !segment.Complete(w.liveGroups()) {
			t.Errorf("requests find nobody: %v, %v", w.live(), w.liveGroups())
		}
	}
	for _, weight := range []float64{10, 90, 40, 100, 0} {
		w.weights(map[string]float64{"shop-v1": 100 - weight, "shop-v2": weight})
		w.settle(c)
		if got := int(math.Round(w.liveGroups()["shop-v2"].Width() * 100)); got != int(weight) || w.shares()["shop-v2"] != int(weight) {
			t.Errorf("%d %% and %d %%, want %v", got, w.shares()["shop-v2"], weight)
		}
	}
	// The next version comes in by RouteGroups alone: it takes both kinds to cover everything.
	w.stored = func() {
		all := segment.Live{}
		maps.Copy(all, w.live())
		for stack, s := range w.liveGroups() {
			if _, both := all[stack]; !both {
				all[stack] = s
			}
		}
		if !segment.Complete(all) {
			t.Errorf("requests find nobody: %v, %v", w.live(), w.liveGroups())
		}
	}
	change(w, "shop", &zalando.StackSet{}, func(s *zalando.StackSet) { s.Spec.Ingress, s.Spec.StackTemplate.Spec.Version = nil, "v3" })
	w.settle(c)
	for _, weight := range []float64{10, 60, 100} {
		w.weights(map[string]float64{"shop-v1": 100 - weight, "shop-v3": weight})
		w.settle(c)
		if got := int(math.Round(w.liveGroups()["shop-v3"].Width() * 100)); got != int(weight) {
			t.Errorf("shop-v3 gets %d %%, want %v", got, weight)
		}
	}
}

// Whatever is asked for, whenever the process dies, whatever write fails: once the segments were complete, they are so after each write
// that reaches the store. Left alone, it comes to what was asked for, and to rest.
func TestNoRequestFindsNobody(t *testing.T) {
	if checks := flag.Lookup("rapid.checks"); checks.Value.String() == checks.DefValue { // each is a hundred rounds
		if err := checks.Value.Set("25"); err != nil {
			t.Fatal(err)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		var how []func(*zalando.StackSet)
		if rapid.Bool().Draw(t, "prescaled") {
			how = append(how, prescaled)
		}
		if rapid.Bool().Draw(t, "autoscaled") {
			how = append(how, autoscaled(2, 8))
		}
		w := newWorld(t, stackSet(how...))
		c := w.controller(options)
		complete, before := false, segment.Live{}
		w.stored = func() {
			now := w.live()
			if complete && !segment.Complete(now) {
				t.Fatalf("requests find nobody: %v, then %v by %v", before, now, w.writes)
			}
			complete, before = segment.Complete(now), now
		}
		names := []string{"shop-v1"}
		for step := range rapid.IntRange(3, 12).Draw(t, "steps") {
			switch what := rapid.IntRange(0, 5).Draw(t, "what"); {
			case what == 0 && len(names) < 5:
				v := fmt.Sprintf("v%d", len(names)+1)
				w.version(v, nil)
				names = append(names, "shop-"+v)
			case what <= 3:
				asked := map[string]float64{}
				for _, name := range names {
					asked[name] = float64(rapid.IntRange(0, 5).Draw(t, name)) * 20
				}
				w.weights(asked)
			case what == 4:
				w.clock.SetTime(w.clock.Now().Add(rapid.SampledFrom([]time.Duration{time.Second, 6 * time.Minute, 11 * time.Minute}).Draw(t, "time")))
			default:
				if stacks := w.set().Status.Traffic; len(stacks) > 1 && step > 3 {
					name := rapid.SampledFrom(stacks).Draw(t, "deleted").StackName
					if w.has(name, &zalando.Stack{}) {
						w.drop(name, &zalando.Stack{})
						complete = segment.Complete(w.live())
					}
				}
			}
			if rapid.Bool().Draw(t, "pods") {
				w.pods()
			}
			if rapid.Bool().Draw(t, "dies") {
				w.left, w.lost = rapid.IntRange(0, 6).Draw(t, "after"), rapid.Bool().Draw(t, "lost")
			}
			_, _ = c.Reconcile(context.Background(), reconcile.Request{NamespacedName: client.ObjectKey{Namespace: ns, Name: "shop"}})
			if w.left >= 0 {
				w.left, c = -1, w.controller(options)
			}
		}
		w.settle(c)
		// A switch that had missed its deadline stays where it was; another one is asked for.
		w.weights(map[string]float64{})
		w.settle(c)
		stacks := &zalando.StackList{}
		if _ = w.List(context.Background(), stacks); len(stacks.Items) == 0 { // all were deleted
			w.version("new", nil)
			w.settle(c)
			_ = w.List(context.Background(), stacks)
		}
		last := stacks.Items[len(stacks.Items)-1].Name
		w.weights(map[string]float64{last: 100})
		w.settle(c)
		if got := w.shares()[last]; got != 100 {
			t.Fatalf("%s gets %d %%: %+v", last, got, w.set().Status)
		}
	})
}
