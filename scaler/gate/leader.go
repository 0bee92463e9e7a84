package gate

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
)

const fieldManager = "kubetide"

var waited = prometheus.NewHistogram(prometheus.HistogramOpts{
	Name:    "kubetide_gate_wait_seconds",
	Help:    "How long pods whose containers were ready waited for the gate kapacitystack.io/online to be opened for the first time.",
	Buckets: []float64{1, 2, 5, 10, 30, 60, 300, 1800},
})

func init() { metrics.Registry.MustRegister(waited) }

// Options say how gates are opened.
type Options struct {
	// Clock tells the time; nil is the real one.
	Clock clock.PassiveClock
	// Concurrency is how many pods are patched at once; 0 is 4.
	Concurrency int
}

// Setup adds the controller that opens gates. It runs on the leader.
func Setup(mgr ctrl.Manager, o Options) error {
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	if o.Concurrency == 0 {
		o.Concurrency = 4
	}
	waits := predicate.NewPredicateFuncs(func(obj client.Object) bool {
		pod, ok := obj.(*corev1.Pod)
		return ok && waiting(pod)
	})
	return ctrl.NewControllerManagedBy(mgr).
		Named("gate").
		For(&corev1.Pod{}).
		WithEventFilter(waits).
		WithOptions(controller.Options{
			MaxConcurrentReconciles: o.Concurrency, NeedLeaderElection: ptr.To(true),
		}).
		Complete(&opener{client: mgr.GetClient(), clock: o.Clock})
}

// waiting tells whether the pod's readiness hangs on a condition that nobody has set. A pod that is marked as cut but has
// no condition is about to be closed, and must not open in between.
func waiting(pod *corev1.Pod) bool {
	state := kapacity.PodState(pod.Labels[kapacity.PodStateLabel])
	if pod.Labels[kapacity.InjectReadinessGateLabel] != kapacity.InjectReadinessGateValue || state == kapacity.PodStateCutoff || state == kapacity.PodStateStandby ||
		pod.DeletionTimestamp != nil || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		return false
	}
	gated := false
	for _, g := range pod.Spec.ReadinessGates {
		gated = gated || g.ConditionType == kapacity.OnlineConditionType
	}
	return gated && condition(pod, kapacity.OnlineConditionType) == nil
}

func condition(pod *corev1.Pod, kind corev1.PodConditionType) *corev1.PodCondition {
	for i := range pod.Status.Conditions {
		if pod.Status.Conditions[i].Type == kind {
			return &pod.Status.Conditions[i]
		}
	}
	return nil
}

type opener struct {
	client client.Client
	clock  clock.PassiveClock
}

// Reconcile opens one pod's gate.
func (o *opener) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	var pod corev1.Pod
	if err := o.client.Get(ctx, request.NamespacedName, &pod); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if !waiting(&pod) {
		return reconcile.Result{}, nil
	}
	now := o.clock.Now()
	open := pod.DeepCopy()
	open.Status.Conditions = append(open.Status.Conditions, corev1.PodCondition{
		Type: kapacity.OnlineConditionType, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(now),
	})
	// Conditions are merged by type, so that the kubelet's stay. The lock is for a pod that was cut, or replaced by one of
	// the same name, since the cache saw it.
	patch := client.StrategicMergeFrom(&pod, client.MergeFromWithOptimisticLock{})
	err := o.client.Status().Patch(ctx, open, patch, client.FieldOwner(fieldManager))
	switch {
	case apierrors.IsNotFound(err):
		return reconcile.Result{}, nil
	case apierrors.IsConflict(err):
		// The newer pod is on its way to the cache.
		return reconcile.Result{RequeueAfter: 50 * time.Millisecond}, nil
	case err != nil:
		return reconcile.Result{}, fmt.Errorf("pod %s: condition %s: %w", request.NamespacedName, kapacity.OnlineConditionType, err)
	}
	wait := 0.0
	if ready := condition(&pod, corev1.ContainersReady); ready != nil && ready.Status == corev1.ConditionTrue {
		wait = max(0, now.Sub(ready.LastTransitionTime.Time).Seconds())
	}
	waited.Observe(wait)
	return reconcile.Result{}, nil
}
