package scheduled

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/record"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	zalando "github.com/kubetide/kubetide/api/zalando/v1"
	"github.com/kubetide/kubetide/internal/window"
	"github.com/kubetide/kubetide/scaler/target"
)

const reasonInvalid = "InvalidSchedule"

// status keeps status.active of the schedules of one kind.
type status struct {
	client client.Client
	events record.EventRecorder
	kind   client.Object
	Options

	// told is what was said about objects that cannot be used, so that it is said once. Only the one worker touches it.
	told map[client.ObjectKey]string
}

func newStatus(c client.Client, events record.EventRecorder, opts Options, kind client.Object) *status {
	return &status{client: c, events: events, kind: kind, Options: opts, told: map[client.ObjectKey]string{}}
}

// Reconcile implements reconcile.Reconciler. A schedule that cannot be used is not active, and has an Event that says why.
func (s *status) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	o := s.kind.DeepCopyObject().(client.Object)
	if err := s.client.Get(ctx, req.NamespacedName, o); err != nil {
		if client.IgnoreNotFound(err) == nil {
			delete(s.told, req.NamespacedName)
		}
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if !o.GetDeletionTimestamp().IsZero() {
		return ctrl.Result{}, nil
	}
	before := o.DeepCopyObject().(client.Object)
	spec, active := fields(o)
	schedules, err := window.NewSchedules(*spec, s.Defaults)
	s.tell(o, err)
	now := s.Clock.Now()
	if is := schedules.Active(now); is != *active {
		*active = is
		if err := s.client.Status().Patch(ctx, o, client.MergeFrom(before), client.FieldOwner(target.FieldManager)); err != nil {
			return ctrl.Result{}, fmt.Errorf("%T %s: write status.active: %w", o, req, err)
		}
	}
	return wakeAt(schedules.NextEdge(now), now), nil
}

func (s *status) tell(o client.Object, mistake error) {
	key := client.ObjectKeyFromObject(o)
	if mistake == nil {
		delete(s.told, key)
		return
	}
	if text := mistake.Error(); s.told[key] != text {
		s.told[key] = text
		s.events.Event(o, corev1.EventTypeWarning, reasonInvalid, "the schedule cannot be used: "+text)
	}
}

func fields(o client.Object) (spec *zalando.ScalingScheduleSpec, active *bool) {
	switch o := o.(type) {
	case *zalando.ScalingSchedule:
		return &o.Spec, &o.Status.Active
	case *zalando.ClusterScalingSchedule:
		return &o.Spec, &o.Status.Active
	}
	panic(fmt.Sprintf("%T is not a schedule", o))
}
