package step

import (
	"context"
	"errors"
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	kai "github.com/kubetide/kubetide/api/kai/v1alpha1"
	"github.com/kubetide/kubetide/scaler/target"
)

// steps is the controller of Steps.
type steps struct {
	children
	options Options
}

// Reconcile makes what is there of the Step what should be. The three objects are brought there each for itself: a Service that the
// API server refuses is no reason to have no autoscaler.
func (r *steps) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	step := &kai.Step{}
	if err := r.client.Get(ctx, request.NamespacedName, step); err != nil {
		conditionsTold.forget(kai.StepKind, request.NamespacedName)
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	live, err := r.read(ctx, step)
	if err != nil {
		return reconcile.Result{}, err
	}
	if step.DeletionTimestamp != nil {
		return reconcile.Result{}, nil // what was made of it goes with it
	}
	s := state{live: live}
	model, retry, err := r.model(ctx, step, &s)
	if err != nil {
		return reconcile.Result{}, err
	}
	if s.runtimeErr == nil && s.credentials == nil {
		// What somebody else has counts for nothing.
		known := live
		if live.Deployment != nil && r.claim(step, live.Deployment, "") != nil {
			known.Deployment = nil
		}
		var want Objects
		want, s.problems = Generate(step, model, known, r.options)
		if s.nothing = want.Deployment == nil; !s.nothing {
			ensure := func(live, want client.Object) client.Object {
				now, f := r.ensure(ctx, step, live, want)
				if f != nil {
					s.failures = append(s.failures, f)
				}
				return now
			}
			s.live = Objects{}
			if d, ok := ensure(live.Deployment, want.Deployment).(*appsv1.Deployment); ok {
				s.live.Deployment = d
			}
			ensure(live.Service, want.Service)
			// Before the HPA knows: whether it sleeps can only be told by the minimum that it has.
			if f := r.wake(ctx, step, s.live.Deployment, live.HPA, *want.HPA.Spec.MinReplicas); f != nil {
				s.failures, s.live.HPA = append(s.failures, f), live.HPA
			} else if h, ok := ensure(live.HPA, want.HPA).(*autoscalingv2.HorizontalPodAutoscaler); ok {
				s.live.HPA = h
			}
		}
	}
	if err := r.report(ctx, step, conditions(step, s)); err != nil {
		return reconcile.Result{}, err
	}
	return after(s.failures), errors.Join(retry, retries(s.failures))
}

// wake brings a Deployment to the minimum that its HPA has scaled to zero and may not any more: HPAs take 0 replicas with a minimum above
// for a person's word that nothing is to be scaled.
func (r *steps) wake(ctx context.Context, step *kai.Step, d *appsv1.Deployment, hpa *autoscalingv2.HorizontalPodAutoscaler, least int32) *failure {
	if d == nil || !asleep(d, hpa) || least == 0 || r.claim(step, hpa, "") != nil {
		return nil
	}
	scale := &autoscalingv1.Scale{ObjectMeta: metav1.ObjectMeta{Name: d.Name, Namespace: d.Namespace, ResourceVersion: d.ResourceVersion}, Spec: autoscalingv1.ScaleSpec{Replicas: least}}
	if err := r.client.SubResource("scale").Update(ctx, d.DeepCopy(), client.WithSubResourceBody(scale), client.FieldOwner(target.FieldManager)); err != nil {
		return refusal("scale Deployment "+d.Name, err)
	}
	wrote(kindOf(d), scaled)
	r.recorder.Eventf(step, corev1.EventTypeNormal, "Woken", "Scaled Deployment %s from 0 to %d: minReplicas does not allow 0 any more", d.Name, least)
	return nil
}

// asleep tells that the HPA has scaled the Deployment to zero. Since Kubernetes 1.36 a condition says who has.
func asleep(d *appsv1.Deployment, hpa *autoscalingv2.HorizontalPodAutoscaler) bool {
	return ptr.Deref(d.Spec.Replicas, 1) == 0 && hpa != nil && ptr.Deref(hpa.Spec.MinReplicas, 1) == 0 &&
		!slices.ContainsFunc(hpa.Status.Conditions, func(c autoscalingv2.HorizontalPodAutoscalerCondition) bool {
			return c.Type == autoscalingv2.ScaledToZero && c.Status == corev1.ConditionFalse
		})
}

// read gets what is there under the names of the Step's objects and has the label of a Step.
func (r *steps) read(ctx context.Context, step *kai.Step) (Objects, error) {
	d, s, h := &appsv1.Deployment{}, &corev1.Service{}, &autoscalingv2.HorizontalPodAutoscaler{}
	get := func(name string, o client.Object) (bool, error) {
		err := r.client.Get(ctx, client.ObjectKey{Namespace: step.Namespace, Name: name}, o)
		return err == nil, client.IgnoreNotFound(err)
	}
	var out Objects
	for name, child := range map[string]struct {
		object client.Object
		keep   func()
	}{
		deploymentName(step.Name): {d, func() { out.Deployment = d }},
		serviceName(step.Name):    {s, func() { out.Service = s }},
		hpaName(step.Name):        {h, func() { out.HPA = h }},
	} {
		there, err := get(name, child.object)
		if err != nil {
			return out, fmt.Errorf("read %s: %w", name, err)
		}
		if there {
			child.keep()
		}
	}
	return out, nil
}

// model finds what the Step's model needs. What is missing is told by the state; retry is what may come without being seen.
func (r *steps) model(ctx context.Context, step *kai.Step, s *state) (model *Model, retry, err error) {
	if step.Spec.Model == nil {
		return nil, nil, nil
	}
	runtimes := &kai.ModelRuntimeList{}
	if err := r.client.List(ctx, runtimes); err != nil {
		return nil, nil, fmt.Errorf("list ModelRuntimes: %w", err)
	}
	runtime, missing := Choose(step, runtimes.Items)
	if s.runtimeErr = missing; runtime == nil {
		return nil, nil, nil
	}
	model = &Model{Runtime: runtime}
	if account := step.Spec.Model.ServiceAccountRef; account != "" {
		secrets, err := r.secrets(ctx, step.Namespace, account)
		if err != nil {
			s.credentials = fmt.Errorf("spec.model.servicecAccountRef: %w", err)
			return nil, s.credentials, nil
		}
		model.Credentials = ReadCredentials(secrets)
	}
	return model, nil, nil
}

// secrets are read from the API server, not watched: they are needed when a Step changes, and nobody else's are to be in memory.
func (r *steps) secrets(ctx context.Context, namespace, account string) ([]corev1.Secret, error) {
	sa := &corev1.ServiceAccount{}
	if err := r.direct.Get(ctx, client.ObjectKey{Namespace: namespace, Name: account}, sa); err != nil {
		return nil, err
	}
	var out []corev1.Secret
	for _, ref := range sa.Secrets {
		secret := &corev1.Secret{}
		if err := r.direct.Get(ctx, client.ObjectKey{Namespace: namespace, Name: ref.Name}, secret); apierrors.IsForbidden(err) {
			return nil, fmt.Errorf("%w: bind ClusterRole kubetide-secrets to Kubetide's ServiceAccount in the namespace", err)
		} else if err != nil {
			return nil, err
		}
		out = append(out, *secret)
	}
	return out, nil
}

// report writes the status if it differs, and says what is new.
func (r *steps) report(ctx context.Context, step *kai.Step, now []metav1.Condition) error {
	conditionsTold.set(kai.StepKind, client.ObjectKeyFromObject(step), now)
	if equality.Semantic.DeepEqual(step.Status.Conditions, now) {
		return nil
	}
	next := step.DeepCopy()
	next.Status.Conditions = now
	// Another's write in between would be one of a spec that this is not about; the next look is about it.
	if err := r.client.Status().Patch(ctx, next, client.MergeFromWithOptions(step, client.MergeFromWithOptimisticLock{}), client.FieldOwner(target.FieldManager)); err != nil {
		return client.IgnoreNotFound(fmt.Errorf("status of Step %s/%s: %w", step.Namespace, step.Name, err))
	}
	wrote(kai.StepKind, patchedStatus)
	said(step.Status.Conditions, now, func(kind, reason, message string) { r.recorder.Event(step, kind, reason, message) })
	return nil
}
