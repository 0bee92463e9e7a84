package step

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	kai "github.com/kubetide/kubetide/api/kai/v1alpha1"
	"github.com/kubetide/kubetide/scaler/event"
	"github.com/kubetide/kubetide/scaler/target"
	"github.com/kubetide/kubetide/workloads/drift"
)

// The reasons of failures with objects.
const (
	ReasonNameTaken = "NameTaken"
	ReasonWaiting   = "WaitingForDeletion"
	ReasonRefused   = "RefusedByAPIServer"
	ReasonFailed    = "WriteFailed"
)

// failure is why an object is not as it should be. Those of the spec's making are not tried again before something changes.
type failure struct {
	Problem
	err   error
	retry bool
}

// children brings objects to what is wanted of them, for both controllers.
type children struct {
	client client.Client
	// direct sees what the cache leaves out: objects without the label of a Step.
	direct   client.Reader
	recorder record.EventRecorder
	// owners are of one kind, and each child has their label.
	owners  owners
	settled drift.Settled
}

// ensure creates or patches the child. live is nil if there is none. It returns what is there then.
func (c *children) ensure(ctx context.Context, owner, live, want client.Object) (client.Object, *failure) {
	what := kindOf(want) + " " + want.GetName()
	if isNil(live) {
		made := want.DeepCopyObject().(client.Object)
		err := c.client.Create(ctx, made, client.FieldOwner(target.FieldManager))
		if err == nil {
			wrote(kindOf(want), created)
			c.recorder.Eventf(owner, corev1.EventTypeNormal, "Created", "Created %s", what)
			c.settle(made, want)
			return made, nil
		}
		if !apierrors.IsAlreadyExists(err) {
			return nil, refusal("create "+what, err)
		}
		// It lacks the label, or the cache has not seen it yet.
		live = want.DeepCopyObject().(client.Object)
		if err := c.direct.Get(ctx, client.ObjectKeyFromObject(want), live); err != nil {
			return nil, refusal("read "+what, err)
		}
	}
	if f := c.claim(owner, live, what); f != nil {
		return nil, f
	}
	if metav1.GetControllerOfNoCopy(live) == nil {
		if f := c.stays(ctx, owner, what); f != nil {
			return live, f
		}
	}
	next, drifted := update(live, want, c.settled.Is(specOf(live), specOf(want)))
	if equality.Semantic.DeepEqual(live, next) {
		return live, nil
	}
	before := live.GetResourceVersion()
	if err := c.client.Patch(ctx, next, client.MergeFromWithOptions(live, client.MergeFromWithOptimisticLock{}), client.FieldOwner(target.FieldManager)); err != nil {
		return live, refusal("update "+what, err)
	}
	wrote(kindOf(want), patched)
	if drifted {
		c.settle(next, want)
	}
	if next.GetResourceVersion() != before {
		c.recorder.Eventf(owner, corev1.EventTypeNormal, "Updated", "Updated %s", what)
	}
	return next, nil
}

// claim says why the live object is not the owner's to write.
func (c *children) claim(owner, live client.Object, what string) *failure {
	controller := metav1.GetControllerOfNoCopy(live)
	if controller != nil && controller.UID == owner.GetUID() && live.GetDeletionTimestamp() == nil {
		return nil
	}
	predecessor := controller != nil && controller.Kind == c.owners.kind && controller.Name == owner.GetName() && strings.HasPrefix(controller.APIVersion, kai.SchemeGroupVersion.Group+"/")
	switch {
	case live.GetDeletionTimestamp() != nil || predecessor:
		// The garbage collector takes what an earlier owner of this name has left; that is seen when it is gone.
		return &failure{Problem: Problem{ReasonWaiting, what + " is being deleted; it is made anew when it is gone"}}
	case controller == nil && live.GetLabels()[c.owners.label] == owner.GetName():
		return nil // left behind by --cascade=orphan
	case controller == nil:
		return &failure{Problem: Problem{ReasonNameTaken, what + " is there already, and was not made for this " + c.owners.kind}}
	}
	return &failure{Problem: Problem{ReasonNameTaken, fmt.Sprintf("%s is there already, and belongs to %s %s", what, controller.Kind, controller.Name)}}
}

// stays says why nothing more can be given to the owner: it may be leaving its objects behind, and the cache has not seen that yet. What
// were given to it then would go with it.
func (c *children) stays(ctx context.Context, owner client.Object, what string) *failure {
	now := owner.DeepCopyObject().(client.Object)
	err := c.direct.Get(ctx, client.ObjectKeyFromObject(owner), now)
	switch {
	case apierrors.IsNotFound(err) || err == nil && (now.GetUID() != owner.GetUID() || now.GetDeletionTimestamp() != nil):
		return &failure{Problem: Problem{ReasonWaiting, what + " is left as it is: the " + c.owners.kind + " is being deleted"}}
	case err != nil:
		return refusal("read "+c.owners.kind+" "+owner.GetName(), err)
	}
	return nil
}

func refusal(doing string, err error) *failure {
	f := &failure{Problem: Problem{ReasonFailed, event.Bounded(fmt.Sprintf("%s: %v", doing, err))}, err: fmt.Errorf("%s: %w", doing, err), retry: true}
	switch {
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		f.retry = false
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err), apierrors.IsRequestEntityTooLargeError(err):
		f.Reason, f.retry = ReasonRefused, false
	}
	return f
}

func (c *children) settle(live, want client.Object) {
	_, drifted := update(live, want, true)
	c.settled.Note(specOf(live), specOf(want), drifted)
}

// specOf leaves out the metadata of a Deployment's pods, which is kept whether the spec is settled or not.
func specOf(o client.Object) client.Object {
	if d, ok := o.(*appsv1.Deployment); ok {
		d = d.DeepCopy()
		d.Spec.Template.ObjectMeta = metav1.ObjectMeta{}
		return d
	}
	return o
}

func kindOf(o client.Object) string { return reflect.TypeOf(o).Elem().Name() }

func isNil(o client.Object) bool { return o == nil || reflect.ValueOf(o).IsNil() }

// lookAgain is how often it is looked whether a name is free that somebody else has: that object is not watched.
const lookAgain = time.Minute

func after(failures []*failure) reconcile.Result {
	if slices.ContainsFunc(failures, func(f *failure) bool { return f.Reason == ReasonNameTaken }) {
		return reconcile.Result{RequeueAfter: lookAgain}
	}
	return reconcile.Result{}
}

// retries joins what is worth another try. A conflict is: somebody was faster.
func retries(failures []*failure) error {
	var all []error
	for _, f := range failures {
		if f.retry {
			all = append(all, f.err)
		}
	}
	return errors.Join(all...)
}
