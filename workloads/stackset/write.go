package stackset

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	zalando "github.com/kubetide/kubetide/api/zalando/v1"
	"github.com/kubetide/kubetide/scaler/target"
	"github.com/kubetide/kubetide/workloads/drift"
	"github.com/kubetide/kubetide/workloads/stackset/generate"
)

// errTaken is that of names that somebody else has.
var errTaken = errors.New("is there already, and was not made for this Stack")

// errNoRouteGroups is what a Stack lacks whose traffic comes in through RouteGroups only.
var errNoRouteGroups = errors.New("its traffic comes in through RouteGroups, which --enable-routegroup-support switches on")

// carryOut brings all that belongs to a Stack to what it should be. Each object is looked after for itself.
func (r *round) carryOut(ctx context.Context, v *version) {
	v.failures = slices.Clone(v.missing)
	for _, k := range kinds {
		r.note(v, k.reason, k.write(ctx, r, v, v.segment))
	}
	var err error
	v.live.ingress, err = keep(ctx, r, v, v.live.ingress, v.Ingress())
	r.note(v, "FailedManageIngress", err)
	if r.options.RouteGroups {
		group, err := v.RouteGroup()
		if err == nil {
			v.live.routeGroup, err = keep(ctx, r, v, v.live.routeGroup, group)
		}
		r.note(v, "FailedManageRouteGroup", err)
	}
	if groups, err := v.RouteGroupSegment(v.segment); groups != nil && err == nil && !r.options.RouteGroups {
		r.note(v, "FailedManageRouteGroup", errNoRouteGroups)
	}
	if v.outcome.ScaledDown { // or the autoscaler would look on
		r.autoscale(ctx, v)
		r.deploy(ctx, v)
	} else {
		r.deploy(ctx, v)
		r.autoscale(ctx, v)
	}
	r.note(v, "FailedManageService", r.serve(ctx, v))
}

// serve sees to the Service.
func (r *round) serve(ctx context.Context, v *version) (err error) {
	if v.live.service, err = seen(ctx, r, v, v.live.service, &corev1.Service{}); err != nil {
		return err
	}
	service, err := v.Service(own(v.Stack, v.live.service))
	if err != nil {
		return err
	}
	v.live.service, err = keep(ctx, r, v, v.live.service, service)
	return err
}

// seen returns what is there of the Stack's name, whether or not the cache has seen it yet: what is wanted depends on it.
func seen[T client.Object](ctx context.Context, r *round, v *version, live, empty T) (T, error) {
	if !isNil(live) {
		return live, nil
	}
	return find(ctx, r.direct, client.ObjectKeyFromObject(v.Stack), empty)
}

// deploy sees to the Deployment. A Stack that lacks something it refers to gets none.
func (r *round) deploy(ctx context.Context, v *version) {
	const reason = "FailedManageDeployment"
	replicas := v.outcome.Replicas(v.facts)
	want := v.Deployment(replicas)
	if want != nil && v.live.deployment == nil && len(v.missing) > 0 {
		return
	}
	d, err := keep(ctx, r, v, v.live.deployment, want)
	r.note(v, reason, err)
	if v.live.deployment = d; err != nil || d == nil || d.Spec.Replicas != nil && *d.Spec.Replicas == replicas {
		return
	}
	// On condition that nobody has changed them meanwhile.
	scale := &autoscalingv1.Scale{ObjectMeta: metav1.ObjectMeta{Name: d.Name, Namespace: d.Namespace, ResourceVersion: d.ResourceVersion}, Spec: autoscalingv1.ScaleSpec{Replicas: replicas}}
	err = r.client.SubResource("scale").Update(ctx, d.DeepCopy(), client.WithSubResourceBody(scale), client.FieldOwner(target.FieldManager), client.DisableReadYourWritesConsistency)
	if err != nil {
		r.note(v, reason, fmt.Errorf("scale Deployment %s to %d: %w", d.Name, replicas, err))
		return
	}
	d = d.DeepCopy()
	d.Spec.Replicas = &replicas
	v.live.deployment = d
}

func (r *round) autoscale(ctx context.Context, v *version) {
	const reason = "FailedManageHPA"
	hpa, err := v.Autoscaler(v.outcome.Actual, v.outcome.Prescaling.State, v.outcome.ScaledDown)
	if err == nil {
		v.live.hpa, err = keep(ctx, r, v, v.live.hpa, hpa)
	}
	r.note(v, reason, err)
	if r.ihpas {
		r.note(v, reason, r.autoscaleIHPA(ctx, v))
	}
}

func (r *round) autoscaleIHPA(ctx context.Context, v *version) (err error) {
	if _, chosen := v.Stack.Annotations[generate.IHPAAnnotation]; chosen {
		if v.live.ihpa, err = seen(ctx, r, v, v.live.ihpa, &kapacity.IntelligentHorizontalPodAutoscaler{}); err != nil {
			return err
		}
	}
	ihpa, err := v.IHPA(v.outcome.Actual, v.outcome.Prescaling.State, v.outcome.ScaledDown, own(v.Stack, v.live.ihpa))
	if err != nil {
		return err
	}
	v.live.ihpa, err = keep(ctx, r, v, v.live.ihpa, ihpa)
	return err
}

// note keeps a failure for the status.
func (r *round) note(v *version, reason string, err error) {
	if err == nil {
		return
	}
	f := failure{reason: reason, message: err.Error()}
	switch {
	case apierrors.IsConflict(err): // somebody was faster, and that says nothing to anybody
		f.message, f.err = "", fmt.Errorf("stack %s: %w", v.Stack.Name, err)
	case errors.Is(err, errTaken):
		r.wake(r.now.Add(lookAgain))
	case (apierrors.ReasonForError(err) != metav1.StatusReasonUnknown || unanswered(err)) && !refused(err):
		f.err = fmt.Errorf("stack %s: %w", v.Stack.Name, err)
	}
	v.failures = append(v.failures, f)
}

// unanswered tells that the request may not have come to the API server, or its answer not to here.
func unanswered(err error) bool {
	var network net.Error
	return errors.As(err, &network) || errors.Is(err, io.ErrUnexpectedEOF)
}

// refused tells that the API server will not take it, however often it is sent.
func refused(err error) bool {
	return apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) || apierrors.IsRequestEntityTooLargeError(err) || apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause)
}

// keep creates or patches what is wanted, or removes what is not, and returns what is there then.
func keep[T client.Object](ctx context.Context, r *round, v *version, live, want T) (T, error) {
	if isNil(want) {
		var none T
		if isNil(own(v.Stack, live)) {
			return none, nil
		}
		if err := r.remove(ctx, live); err != nil {
			return live, err
		}
		r.recorder.Eventf(v.Stack, corev1.EventTypeNormal, "Deleted"+eventKind(live), "Deleted %s %s", eventKind(live), live.GetName())
		return none, nil
	}
	o, err := r.ensure(ctx, v, live, want)
	if isNil(o) {
		var none T
		return none, err
	}
	return o.(T), err
}

// ensure creates or patches the object, and returns what is there then.
func (r *round) ensure(ctx context.Context, v *version, live, want client.Object) (client.Object, error) {
	what := kindOf(want) + " " + want.GetName()
	if isNil(live) {
		created := want.DeepCopyObject().(client.Object)
		options := []client.CreateOption{client.FieldOwner(target.FieldManager)}
		if !cached(want) {
			options = append(options, client.DisableReadYourWritesConsistency)
		}
		err := r.client.Create(ctx, created, options...)
		if err == nil {
			r.settle(created, want)
			r.recorder.Eventf(v.Stack, corev1.EventTypeNormal, "Created"+eventKind(want), "Created %s %s", eventKind(want), want.GetName())
			return created, nil
		}
		if !apierrors.IsAlreadyExists(err) {
			return nil, fmt.Errorf("create %s: %w", what, err)
		}
		live = want.DeepCopyObject().(client.Object) // it lacks the label, or the cache has not seen it yet
		if err := r.direct.Get(ctx, client.ObjectKeyFromObject(want), live); err != nil {
			return nil, fmt.Errorf("read %s: %w", what, err)
		}
	}
	if !r.may(v, live) {
		return nil, fmt.Errorf("%s %w", what, errTaken)
	}
	if live.GetDeletionTimestamp() != nil {
		return nil, fmt.Errorf("%s is being deleted; it is made anew when it is gone", what)
	}
	next, drifted := r.update(live, want)
	if equality.Semantic.DeepEqual(live, next) {
		return live, nil
	}
	before := live.GetResourceVersion()
	if err := r.patch(ctx, live, next); err != nil {
		return live, fmt.Errorf("update %s: %w", what, err)
	}
	if drifted {
		r.settle(next, want)
	}
	if next.GetResourceVersion() != before {
		r.recorder.Eventf(v.Stack, corev1.EventTypeNormal, "Updated"+eventKind(want), "Updated %s %s", eventKind(want), want.GetName())
	}
	return next, nil
}

// may tells that the object is the Stack's: by its owner, by the Deployment's, as very old ones are, or because it was left behind by a
// Stack of the name.
func (r *round) may(v *version, live client.Object) bool {
	owners := live.GetOwnerReferences()
	if len(owners) == 0 {
		selector := v.Selector()
		return len(selector) > 0 && maps.Equal(selector, intersect(live.GetLabels(), selector))
	}
	if ownedBy(live, v.Stack.UID) {
		return true
	}
	d := own(v.Stack, v.live.deployment)
	return d != nil && ownedBy(live, d.UID)
}

func intersect(labels, keys map[string]string) map[string]string {
	out := map[string]string{}
	for key := range keys {
		if value, found := labels[key]; found {
			out[key] = value
		}
	}
	return out
}

// update returns what the live object has to become, and whether more than its metadata differs from what is wanted.
func (r *round) update(live, want client.Object) (next client.Object, drifted bool) {
	next = live.DeepCopyObject().(client.Object)
	settled := r.settled.Is(live, want)
	current := live.GetAnnotations()[generate.StackGenerationAnnotation] == want.GetAnnotations()[generate.StackGenerationAnnotation]
	switch w := want.(type) {
	case *appsv1.Deployment:
		l := next.(*appsv1.Deployment)
		spec := w.Spec.DeepCopy()
		spec.Replicas, spec.Paused = l.Spec.Replicas, l.Spec.Paused // written through /scale; who paused a rollout ends the pause
		if l.Spec.Selector != nil {
			spec.Selector = l.Spec.Selector.DeepCopy() // cannot change
			maps.Copy(spec.Template.Labels, spec.Selector.MatchLabels)
		}
		spec.Template.Labels = merged(l.Spec.Template.Labels, spec.Template.Labels, current, nil)
		spec.Template.Annotations = merged(l.Spec.Template.Annotations, spec.Template.Annotations, current, nil)
		withDefaults(spec)
		if drifted = !drift.Covers(&l.Spec, spec); drifted && !settled {
			l.Spec = *spec
		}
	case *corev1.Service:
		l := next.(*corev1.Service)
		if drifted = !drift.CoversService(&l.Spec, &w.Spec); drifted && !settled {
			l.Spec.Type, l.Spec.Selector, l.Spec.Ports, l.Spec.SessionAffinity = w.Spec.Type, w.Spec.Selector, w.Spec.Ports, ""
			l.Spec.ExternalName, l.Spec.PublishNotReadyAddresses = "", false
		}
	case *autoscalingv2.HorizontalPodAutoscaler:
		l := next.(*autoscalingv2.HorizontalPodAutoscaler)
		spec := drift.StoredHPA(&w.Spec)
		if spec.MinReplicas == nil {
			spec.MinReplicas = ptr.To[int32](1)
		}
		if drifted = !drift.Covers(&l.Spec, spec); drifted && !settled {
			l.Spec = *spec
		}
	case *networkingv1.Ingress:
		l := next.(*networkingv1.Ingress)
		// A class and TLS are others' to add.
		if drifted = !equality.Semantic.DeepEqual(l.Spec.Rules, w.Spec.Rules); drifted && !settled {
			l.Spec.Rules = w.Spec.DeepCopy().Rules
		}
	case *zalando.RouteGroup:
		l := next.(*zalando.RouteGroup)
		if drifted = !equality.Semantic.DeepEqual(l.Spec, w.Spec); drifted && !settled {
			l.Spec = *w.Spec.DeepCopy()
		}
	case *kapacity.IntelligentHorizontalPodAutoscaler:
		l := next.(*kapacity.IntelligentHorizontalPodAutoscaler)
		if drifted = !drift.Covers(&l.Spec, &w.Spec); drifted && !settled {
			l.Spec = *w.Spec.DeepCopy()
		}
	case *corev1.ConfigMap:
		l := next.(*corev1.ConfigMap)
		if drifted = !equality.Semantic.DeepEqual(l.Data, w.Data) || len(l.BinaryData) > 0; drifted {
			l.Data, l.BinaryData = maps.Clone(w.Data), nil
		}
	case *zalando.PlatformCredentialsSet:
		l := next.(*zalando.PlatformCredentialsSet)
		if drifted = !equality.Semantic.DeepEqual(l.Spec, w.Spec); drifted && !settled {
			l.Spec = *w.Spec.DeepCopy()
		}
	}
	next.SetLabels(merged(live.GetLabels(), want.GetLabels(), current, nil))
	next.SetAnnotations(merged(live.GetAnnotations(), want.GetAnnotations(), current, r.options.SyncAnnotations))
	if !equality.Semantic.DeepEqual(next.GetOwnerReferences(), want.GetOwnerReferences()) && !ownedBy(next, want.GetOwnerReferences()[0].UID) {
		next.SetOwnerReferences(want.GetOwnerReferences())
	}
	return next, drifted
}

// merged returns the labels or annotations of an object. Others may add their own, and these stay until the Stack itself is changed, when
// all but Kubernetes' own go, as upstream has it: what was the Stack's is then not known. Keys that are ours wherever they stand go
// as soon as they are not wanted.
func merged(live, want map[string]string, current bool, synced []string) map[string]string {
	out := maps.Clone(want)
	for key, value := range live {
		_, wanted := want[key]
		ours := slices.Contains(synced, key) || strings.HasPrefix(key, "metric-config.") || key == generate.BackendAnnotation
		if !wanted && !ours && (current || strings.HasPrefix(key, "kubectl.kubernetes.io/") || strings.HasPrefix(key, "deployment.kubernetes.io/") || strings.HasPrefix(key, "autoscaling.alpha.kubernetes.io/")) {
			if out == nil {
				out = map[string]string{}
			}
			out[key] = value
		}
	}
	return out
}

// withDefaults fills in what the API server does of a Deployment itself; drift knows the defaults of pods.
func withDefaults(spec *appsv1.DeploymentSpec) {
	if spec.Strategy.Type == "" {
		spec.Strategy.Type = appsv1.RollingUpdateDeploymentStrategyType
	}
	if spec.Strategy.Type == appsv1.RollingUpdateDeploymentStrategyType {
		if spec.Strategy.RollingUpdate == nil {
			spec.Strategy.RollingUpdate = &appsv1.RollingUpdateDeployment{}
		}
		quarter := intstr.FromString("25%")
		if spec.Strategy.RollingUpdate.MaxUnavailable == nil {
			spec.Strategy.RollingUpdate.MaxUnavailable = &quarter
		}
		if spec.Strategy.RollingUpdate.MaxSurge == nil {
			spec.Strategy.RollingUpdate.MaxSurge = &quarter
		}
	}
	if spec.RevisionHistoryLimit == nil {
		spec.RevisionHistoryLimit = ptr.To[int32](10)
	}
	if spec.ProgressDeadlineSeconds == nil {
		spec.ProgressDeadlineSeconds = ptr.To[int32](600)
	}
}

// patch writes what differs. Others' writes in between, of status for example, are no reason to begin anew as long as they leave alone
// what this is about.
func (r *round) patch(ctx context.Context, before, next client.Object) error {
	return target.Patch(ctx, r.direct, before, next,
		func(o client.Object, p client.Patch) error {
			options := []client.PatchOption{client.FieldOwner(target.FieldManager)}
			if !cached(o) {
				options = append(options, client.DisableReadYourWritesConsistency)
			}
			return r.client.Patch(ctx, o, p, options...)
		},
		func(before, is client.Object) bool {
			return equality.Semantic.DeepEqual(drift.Content(before), drift.Content(is)) && equality.Semantic.DeepEqual(before.GetOwnerReferences(), is.GetOwnerReferences()) &&
				before.GetAnnotations()[generate.PredicateAnnotation] == is.GetAnnotations()[generate.PredicateAnnotation]
		})
}

// cached tells whether the cache holds objects of the kind: it must not begin to because one was written.
func cached(o client.Object) bool {
	switch o.(type) {
	case *corev1.ConfigMap, *corev1.Secret, *zalando.PlatformCredentialsSet:
		return false
	}
	return true
}

// remove deletes the object, and nothing else of its name. It is not waited for the cache to see it: that would hold up everybody for
// as long as somebody's finalizer keeps it.
func (r *round) remove(ctx context.Context, o client.Object) error {
	err := r.client.Delete(ctx, o, client.Preconditions{UID: ptr.To(o.GetUID())}, client.PropagationPolicy(metav1.DeletePropagationBackground), client.DisableReadYourWritesConsistency)
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("delete %s %s: %w", kindOf(o), o.GetName(), err)
	}
	return nil
}

// settle remembers what the API server has made of an object if that is not what was wanted.
func (r *round) settle(live, want client.Object) {
	_, drifted := r.update(live, want)
	r.settled.Note(live, want, drifted)
}

// eventKind is the kind as upstream's Events have it.
func eventKind(o client.Object) string {
	switch o.(type) {
	case *autoscalingv2.HorizontalPodAutoscaler:
		return "HPA"
	case *kapacity.IntelligentHorizontalPodAutoscaler:
		return "IHPA"
	}
	return kindOf(o)
}
