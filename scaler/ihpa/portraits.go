package ihpa

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	"github.com/kubetide/kubetide/scaler/target"
	"github.com/kubetide/kubetide/scaler/wants"
)

// keptPortrait is the HorizontalPortrait of a Dynamic provider as it is kept, or why it is not.
type keptPortrait struct {
	hp  *kapacity.HorizontalPortrait
	err error
}

// keepPortraits makes the HorizontalPortraits what the Dynamic providers say, by their names, and removes those of providers
// that are gone: what belongs to the IHPA is found by its owner, so nothing stays behind after a restart.
func (r *Reconciler) keepPortraits(ctx context.Context, o *kapacity.IntelligentHorizontalPodAutoscaler) (map[string]keptPortrait, error) {
	out := map[string]keptPortrait{}
	for _, p := range o.Spec.PortraitProviders {
		if p.Dynamic == nil {
			continue
		}
		name := portraitName(o.Name, p.Dynamic.PortraitType)
		if _, again := out[name]; again { // admission refuses two of one type
			continue
		}
		hp, err := r.keepPortrait(ctx, o, name, p.Dynamic.PortraitSpec)
		if apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) {
			return nil, err
		}
		out[name] = keptPortrait{hp, err}
	}
	owned := &kapacity.HorizontalPortraitList{}
	if err := r.Client.List(ctx, owned, client.InNamespace(o.Namespace), client.MatchingFields{target.ControllerUID: string(o.UID)}); err != nil {
		return nil, fmt.Errorf("list HorizontalPortraits: %w", err)
	}
	for i := range owned.Items {
		hp := &owned.Items[i]
		if _, wanted := out[hp.Name]; wanted || !hp.DeletionTimestamp.IsZero() {
			continue
		}
		if err := r.Client.Delete(ctx, hp, client.Preconditions{UID: &hp.UID}); client.IgnoreNotFound(err) != nil {
			return nil, fmt.Errorf("delete HorizontalPortrait %s/%s: %w", hp.Namespace, hp.Name, err)
		}
	}
	return out, nil
}

// keepPortrait creates or patches one. One without an owner is adopted; one of somebody else's is left alone. One that is about another
// workload is made anew: what it says, and what is remembered beside it, is about that one.
func (r *Reconciler) keepPortrait(ctx context.Context, o *kapacity.IntelligentHorizontalPodAutoscaler, name string, wanted kapacity.PortraitSpec) (*kapacity.HorizontalPortrait, error) {
	spec := kapacity.HorizontalPortraitSpec{ScaleTargetRef: o.Spec.ScaleTargetRef, PortraitSpec: withTolerances(wanted, o.Spec.Behavior)}
	hp := &kapacity.HorizontalPortrait{}
	err := r.Client.Get(ctx, client.ObjectKey{Namespace: o.Namespace, Name: name}, hp)
	switch {
	case apierrors.IsNotFound(err):
		hp = &kapacity.HorizontalPortrait{ObjectMeta: metav1.ObjectMeta{Namespace: o.Namespace, Name: name, Annotations: wants.Settings(o)}, Spec: spec}
		if err = controllerutil.SetControllerReference(o, hp, r.Client.Scheme()); err == nil {
			err = r.Client.Create(ctx, hp, client.FieldOwner(target.FieldManager))
		}
		if err != nil {
			return nil, fmt.Errorf("create HorizontalPortrait %s/%s: %w", o.Namespace, name, err)
		}
		return hp, nil
	case err != nil:
		return nil, fmt.Errorf("HorizontalPortrait %s/%s: %w", o.Namespace, name, err)
	}
	if c := metav1.GetControllerOf(hp); c != nil && c.UID != o.UID {
		return nil, fmt.Errorf("HorizontalPortrait %s/%s is controlled by %s %s (uid %s): rename one of the two", hp.Namespace, hp.Name, c.Kind, c.Name, c.UID)
	}
	if !hp.DeletionTimestamp.IsZero() {
		return nil, fmt.Errorf("HorizontalPortrait %s/%s is being deleted; it is made again once it is gone", hp.Namespace, hp.Name)
	}
	if metav1.IsControlledBy(hp, o) && target.Key(hp.Spec.ScaleTargetRef) != target.Key(o.Spec.ScaleTargetRef) {
		about := hp.Spec.ScaleTargetRef
		if err := r.Client.Delete(ctx, hp, client.Preconditions{UID: &hp.UID}); client.IgnoreNotFound(err) != nil {
			return nil, fmt.Errorf("delete HorizontalPortrait %s/%s: %w", hp.Namespace, hp.Name, err)
		}
		return nil, fmt.Errorf("HorizontalPortrait %s/%s is about %s %s; it is made anew for %s %s", hp.Namespace, hp.Name, about.Kind, about.Name,
			o.Spec.ScaleTargetRef.Kind, o.Spec.ScaleTargetRef.Name)
	}
	before := hp.DeepCopy()
	hp = hp.DeepCopy()
	hp.Spec = spec
	for key := range wants.Settings(hp) {
		delete(hp.Annotations, key)
	}
	for key, value := range wants.Settings(o) {
		metav1.SetMetaDataAnnotation(&hp.ObjectMeta, key, value)
	}
	if err := controllerutil.SetControllerReference(o, hp, r.Client.Scheme()); err != nil {
		return nil, fmt.Errorf("HorizontalPortrait %s/%s: %w", hp.Namespace, hp.Name, err)
	}
	if equality.Semantic.DeepEqual(before, hp) {
		return hp, nil
	}
	if err := r.Client.Patch(ctx, hp, optimistic(before), client.FieldOwner(target.FieldManager)); err != nil {
		return nil, fmt.Errorf("patch HorizontalPortrait %s/%s: %w", hp.Namespace, hp.Name, err)
	}
	return hp, nil
}

// withTolerances hands the behavior's tolerances to the algorithm that applies them. Settings that are made here get the
// defaults of the API, or they would differ from what is stored for ever.
func withTolerances(spec kapacity.PortraitSpec, b kapacity.IHPABehavior) kapacity.PortraitSpec {
	up, down := b.ScaleUp.Tolerance, b.ScaleDown.Tolerance
	if spec.Algorithm.Type != kapacity.KubeHPAAlgorithm || up == nil && down == nil {
		return spec
	}
	spec = *spec.DeepCopy()
	k := spec.Algorithm.KubeHPA
	if k == nil {
		k = &kapacity.KubeHPAPortraitAlgorithm{SyncPeriod: kapacity.DefaultSyncPeriod, Tolerance: resource.MustParse(kapacity.DefaultTolerance),
			CPUInitializationPeriod: kapacity.DefaultCPUInitializationPeriod, InitialReadinessDelay: kapacity.DefaultInitialReadinessDelay}
		spec.Algorithm.KubeHPA = k
	}
	if k.ScaleUpTolerance == nil {
		k.ScaleUpTolerance = up
	}
	if k.ScaleDownTolerance == nil {
		k.ScaleDownTolerance = down
	}
	return spec
}

// generated is why the portrait could not be made anew; its last value stands beside that.
func generated(hp *kapacity.HorizontalPortrait) error {
	c := meta.FindStatusCondition(hp.Status.Conditions, kapacity.ConditionPortraitGenerated)
	if c == nil || c.Status != metav1.ConditionFalse {
		return nil
	}
	return fmt.Errorf("%s: %s", c.Reason, c.Message)
}
