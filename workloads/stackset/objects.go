package stackset

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	zalando "github.com/kubetide/kubetide/api/zalando/v1"
	"github.com/kubetide/kubetide/scaler/prescale"
	"github.com/kubetide/kubetide/workloads/stackset/generate"
)

// objects are what is there under the names of a Stack's objects, whosever it is; nil where there is nothing.
type objects struct {
	deployment                    *appsv1.Deployment
	service                       *corev1.Service
	hpa                           *autoscalingv2.HorizontalPodAutoscaler
	ihpa                          *kapacity.IntelligentHorizontalPodAutoscaler
	ingress, ingressSegment       *networkingv1.Ingress
	routeGroup, routeGroupSegment *zalando.RouteGroup
	// endpoints are how many ready pods its Service leads to.
	endpoints int32
}

func (r *round) objects(ctx context.Context, stack *zalando.Stack) (o objects, err error) {
	name, segment := client.ObjectKeyFromObject(stack), types.NamespacedName{Namespace: stack.Namespace, Name: stack.Name + generate.SegmentSuffix}
	for _, read := range []func() error{
		func() (err error) { o.deployment, err = find(ctx, r.client, name, &appsv1.Deployment{}); return },
		func() (err error) { o.service, err = find(ctx, r.client, name, &corev1.Service{}); return },
		func() (err error) {
			o.hpa, err = find(ctx, r.client, name, &autoscalingv2.HorizontalPodAutoscaler{})
			return
		},
		func() (err error) { o.ingress, err = find(ctx, r.client, name, &networkingv1.Ingress{}); return },
		func() (err error) {
			o.ingressSegment, err = find(ctx, r.client, segment, &networkingv1.Ingress{})
			return
		},
		func() (err error) {
			if r.ihpas {
				o.ihpa, err = find(ctx, r.client, name, &kapacity.IntelligentHorizontalPodAutoscaler{})
			}
			return
		},
		func() (err error) {
			if r.options.RouteGroups {
				if o.routeGroup, err = find(ctx, r.client, name, &zalando.RouteGroup{}); err == nil {
					o.routeGroupSegment, err = find(ctx, r.client, segment, &zalando.RouteGroup{})
				}
			}
			return
		},
	} {
		if err := read(); err != nil {
			return o, fmt.Errorf("read what belongs to Stack %s: %w", stack.Name, err)
		}
	}
	slices := &discoveryv1.EndpointSliceList{}
	if err := r.client.List(ctx, slices, client.InNamespace(stack.Namespace), client.MatchingFields{serviceIndex: stack.Name}, client.DisableReadYourWritesConsistency); err != nil {
		return o, fmt.Errorf("list EndpointSlices of Stack %s: %w", stack.Name, err)
	}
	for _, slice := range slices.Items {
		for _, e := range slice.Endpoints {
			if e.Conditions.Ready == nil || *e.Conditions.Ready {
				o.endpoints++
			}
		}
	}
	return o, nil
}

// find reads into o, and returns nil if there is no such object.
func find[T client.Object](ctx context.Context, from client.Reader, key types.NamespacedName, o T) (T, error) {
	err := from.Get(ctx, key, o)
	if err != nil {
		var none T
		return none, client.IgnoreNotFound(err)
	}
	return o, nil
}

// own returns the object if it is the Stack's and stays, and else nil.
func own[T client.Object](stack *zalando.Stack, o T) T {
	if isNil(o) || !ownedBy(o, stack.UID) || o.GetDeletionTimestamp() != nil {
		var none T
		return none
	}
	return o
}

func ownedBy(o metav1.Object, owner types.UID) bool {
	return slices.ContainsFunc(o.GetOwnerReferences(), func(r metav1.OwnerReference) bool { return r.UID == owner })
}

func isNil(o client.Object) bool { return o == nil || reflect.ValueOf(o).IsNil() }

func kindOf(o client.Object) string { return reflect.TypeOf(o).Elem().Name() }

// lacks says what the Stack is not ready without; empty if nothing is missing.
func (r *round) lacks(v *version, routed bool) string {
	stack := v.Stack
	if len(v.missing) > 0 {
		return v.missing[0].message
	}
	if _, err := v.Service(nil); err != nil {
		return err.Error()
	}
	hpa, err := v.Autoscaler(0, prescale.State{}, false)
	if err != nil {
		return err.Error()
	}
	ihpa, err := v.IHPA(0, prescale.State{}, false, nil)
	if err != nil {
		return err.Error()
	}
	var group, groupSegment *zalando.RouteGroup
	if group, err = v.RouteGroup(); err == nil {
		groupSegment, err = v.RouteGroupSegment(v.segment)
	}
	if err != nil {
		return err.Error()
	}
	ingress, ingressSegment := v.Ingress(), v.IngressSegment(v.segment)
	if groupSegment != nil && !r.options.RouteGroups {
		if ingressSegment == nil {
			return errNoRouteGroups.Error()
		}
		group, groupSegment = nil, nil
	}
	if routed && !v.HasIngress() {
		return "it has no way in for traffic"
	}
	for _, o := range []struct {
		live, want client.Object
	}{
		{v.live.deployment, v.Deployment(0)}, {v.live.service, &corev1.Service{}},
		{v.live.ingress, ingress}, {v.live.ingressSegment, ingressSegment}, {v.live.routeGroup, group}, {v.live.routeGroupSegment, groupSegment},
		{v.live.hpa, hpa}, {v.live.ihpa, ihpa},
	} {
		if why := lack(stack, o.live, o.want); why != "" {
			return why
		}
	}
	if d := v.live.deployment; d != nil && d.Status.ObservedGeneration != d.Generation {
		return "its Deployment has not been seen to by its controller"
	}
	return ""
}

func lack(stack *zalando.Stack, live, want client.Object) string {
	switch {
	case isNil(want) && isNil(live):
		return ""
	case isNil(want):
		if ownedBy(live, stack.UID) {
			return fmt.Sprintf("%s %s is to go", kindOf(live), live.GetName())
		}
		return ""
	case isNil(live):
		return "there is no " + kindOf(want) + " for it"
	case !ownedBy(live, stack.UID):
		return fmt.Sprintf("%s %s belongs to somebody else", kindOf(live), live.GetName())
	case live.GetAnnotations()[generate.StackGenerationAnnotation] != strconv.FormatInt(stack.Generation, 10):
		return fmt.Sprintf("%s %s is not current", kindOf(live), live.GetName())
	}
	return ""
}

// references sees to what configurationResources names: what is there is adopted, what the Stack's spec holds is made.
func (r *round) references(ctx context.Context, v *version) (missing []failure, err error) {
	o := r.options
	if len(v.Stack.Spec.ConfigurationResources) == 0 || !o.ConfigMaps && !o.Secrets && !o.PlatformCredentialsSets {
		return nil, nil
	}
	// lacking keeps what is wrong, and returns what only another round can mend.
	lacking := func(reason string, err error) error {
		switch {
		case err == nil:
			return nil
		case apierrors.IsForbidden(err):
			err = fmt.Errorf("%w: bind ClusterRole kubetide-stackset-configuration to Kubetide's ServiceAccount", err)
		case apierrors.ReasonForError(err) != metav1.StatusReasonUnknown && !refused(err):
			return err
		}
		missing = append(missing, failure{reason: reason, message: err.Error()})
		r.wake(r.now.Add(lookAgain))
		return nil
	}
	configMaps, secrets, err := v.References()
	if err != nil {
		return []failure{{reason: "FailedManageConfigMapRefs", message: err.Error()}}, nil //nolint:nilerr // it is the Stack's mistake, and told as such
	}
	adopt := func(kind, name string, object client.Object) error {
		err := r.direct.Get(ctx, types.NamespacedName{Namespace: v.Stack.Namespace, Name: name}, object)
		if apierrors.IsNotFound(err) {
			err = fmt.Errorf("%s %s, which configurationResources names, does not exist", kind, name)
		} else if err == nil {
			err = r.adopt(ctx, v, kind, object)
		}
		return lacking("FailedManage"+kind+"Refs", err)
	}
	var errs []error
	if o.ConfigMaps {
		for _, name := range configMaps {
			errs = append(errs, adopt("ConfigMap", name, &corev1.ConfigMap{}))
		}
		for _, want := range v.ConfigMaps() {
			errs = append(errs, lacking("FailedManageConfigMap", r.configure(ctx, v, want, &corev1.ConfigMap{})))
		}
	}
	if o.Secrets {
		for _, name := range secrets {
			errs = append(errs, adopt("Secret", name, &corev1.Secret{}))
		}
	}
	if o.PlatformCredentialsSets {
		const reason = "FailedManagePlatformCredentialsSet"
		all, err := v.PlatformCredentialsSets()
		errs = append(errs, lacking(reason, err))
		for _, want := range all {
			errs = append(errs, lacking(reason, r.configure(ctx, v, want, &zalando.PlatformCredentialsSet{})))
		}
	}
	return missing, errors.Join(errs...)
}

// configure makes an object that the Stack's spec holds, or brings it to what that says. live is an empty one.
func (r *round) configure(ctx context.Context, v *version, want, live client.Object) error {
	live, err := find(ctx, r.direct, client.ObjectKeyFromObject(want), live)
	if err != nil {
		return fmt.Errorf("%s %s: %w", kindOf(want), want.GetName(), err)
	}
	_, err = r.ensure(ctx, v, live, want)
	return err
}

func (r *round) adopt(ctx context.Context, v *version, kind string, o client.Object) error {
	before := o.DeepCopyObject().(client.Object)
	adopted, err := v.Adopt(kind, o)
	if err != nil || !adopted {
		return err
	}
	if err := r.patch(ctx, before, o); err != nil {
		return err
	}
	r.recorder.Eventf(v.Stack, corev1.EventTypeNormal, "Updated"+kind, "Updated %s %s", kind, o.GetName())
	return nil
}
