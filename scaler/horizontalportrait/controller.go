// Package horizontalportrait makes HorizontalPortraits: it reads what each of them asks for from the adapter's store, lets
// portraits/reactive compute, and writes the portrait into the object's status. It reads workloads and pods, and writes
// nothing else. What becomes of a portrait is scaler/ihpa's; what an external job does is the Jobs'.
package horizontalportrait

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	"github.com/kubetide/kubetide/internal/decision"
	"github.com/kubetide/kubetide/scaler/event"
	"github.com/kubetide/kubetide/scaler/target"
	"github.com/kubetide/kubetide/scaler/wants"
)

// conflictRetry is how soon an evaluation on an old picture is done again, if no event comes before.
const conflictRetry = 100 * time.Millisecond

// ReasonSettingIgnored is the reason of the Warning event for an annotation that has no effect.
const ReasonSettingIgnored = "MetricConfigIgnored"

// Jobs sees to the jobs of the algorithm ExternalJob.
type Jobs interface {
	// Reconcile makes the portrait's job what the spec says, and returns the portrait that its last run left. With an error come the reason of
	// the condition and, if the error is to be looked at again by itself, next. The portrait's status is the caller's.
	Reconcile(ctx context.Context, hp *kapacity.HorizontalPortrait) (data *kapacity.PortraitData, reason string, next time.Time, err error)
	// Cleanup removes what was made for the portrait; nothing to remove is no error.
	Cleanup(ctx context.Context, hp *kapacity.HorizontalPortrait) (reason string, err error)
}

// Reconciler makes HorizontalPortraits. Its client should be one of target.NewClient. The methods may be called in parallel for
// different objects only.
type Reconciler struct {
	Client   client.Client
	Recorder record.EventRecorder
	Clock    clock.PassiveClock
	// Metrics collects what the portraits ask for.
	Metrics *wants.Wants[memory]
	// Details keeps what each metric said last; nil keeps nothing.
	Details *decision.Portraits
	// Jobs is nil where there is no place for jobs.
	Jobs Jobs
}

// Reconcile makes one portrait.
func (r *Reconciler) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	hp := &kapacity.HorizontalPortrait{}
	if err := r.Client.Get(ctx, req.NamespacedName, hp); err != nil {
		if apierrors.IsNotFound(err) {
			r.forget(req)
		}
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	next, err := r.reconcile(ctx, req, hp)
	switch {
	case apierrors.IsConflict(err):
		log.FromContext(ctx).V(1).Info("decided on an old picture, looking again", "cause", err.Error())
		return reconcile.Result{RequeueAfter: conflictRetry}, nil
	case err != nil:
		return reconcile.Result{}, fmt.Errorf("HorizontalPortrait %s: %w", req, err)
	case next.IsZero():
		return reconcile.Result{}, nil
	}
	return reconcile.Result{RequeueAfter: max(time.Nanosecond, next.Sub(r.Clock.Now()))}, nil
}

// The finalizer stands for a job that was made. It is seen to whoever makes the portrait now.
func (r *Reconciler) reconcile(ctx context.Context, req reconcile.Request, hp *kapacity.HorizontalPortrait) (time.Time, error) {
	algorithm, foreign := hp.Spec.Algorithm.Type, hp.Spec.ExternalGeneratorName != ""
	leaving := !hp.DeletionTimestamp.IsZero()
	if leaving || foreign || algorithm != kapacity.KubeHPAAlgorithm {
		r.forget(req)
	}
	if leaving || foreign || algorithm != kapacity.ExternalJobAlgorithm {
		if err := r.cleanUp(ctx, hp, leaving || foreign); err != nil || leaving || foreign {
			return time.Time{}, err
		}
	}
	switch algorithm {
	case kapacity.KubeHPAAlgorithm:
		return r.reactive(ctx, hp)
	case kapacity.ExternalJobAlgorithm:
		return r.externalJob(ctx, hp)
	}
	message := fmt.Sprintf(kapacity.MessageUnknownPortraitType, hp.Spec.PortraitType)
	if t := hp.Spec.PortraitType; t == kapacity.ReactivePortrait || t == kapacity.PredictivePortrait {
		message = fmt.Sprintf("unknown algorithm %q of portrait type %q", algorithm, t)
	}
	return time.Time{}, r.write(ctx, hp, failed(kapacity.ReasonFailedGetPortraitGenerator, message))
}

func (r *Reconciler) forget(req reconcile.Request) {
	r.Metrics.Drop(req)
	if r.Details != nil {
		r.Details.Forget(req.Namespace, req.Name)
	}
}

// cleanUp removes the portrait's job, and then the finalizer. silent says that the status is not ours to write.
func (r *Reconciler) cleanUp(ctx context.Context, hp *kapacity.HorizontalPortrait, silent bool) error {
	if !controllerutil.ContainsFinalizer(hp, kapacity.Finalizer) {
		return nil
	}
	if r.Jobs != nil {
		if reason, err := r.Jobs.Cleanup(ctx, hp); err != nil {
			if silent && hp.DeletionTimestamp.IsZero() {
				r.Recorder.Event(hp, corev1.EventTypeWarning, reason, event.Bounded(err.Error()))
			} else if werr := r.write(ctx, hp, failed(reason, err.Error())); werr != nil {
				return werr
			}
			return err
		}
	}
	before := hp.DeepCopy()
	controllerutil.RemoveFinalizer(hp, kapacity.Finalizer)
	if err := r.Client.Patch(ctx, hp, optimistic(before), client.FieldOwner(target.FieldManager)); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("remove finalizer: %w", err)
	}
	return nil
}

func (r *Reconciler) externalJob(ctx context.Context, hp *kapacity.HorizontalPortrait) (time.Time, error) {
	if r.Jobs == nil {
		return time.Time{}, r.write(ctx, hp, failed(kapacity.ReasonFailedGetPortraitGenerator,
			"external algorithm jobs are switched off: no namespace for them is configured"))
	}
	if controllerutil.AddFinalizer(hp, kapacity.Finalizer) {
		before := hp.DeepCopy()
		controllerutil.RemoveFinalizer(before, kapacity.Finalizer)
		if err := r.Client.Patch(ctx, hp, optimistic(before), client.FieldOwner(target.FieldManager)); err != nil {
			return time.Time{}, fmt.Errorf("add finalizer: %w", err)
		}
	}
	data, reason, next, err := r.Jobs.Reconcile(ctx, hp)
	switch {
	case apierrors.IsConflict(err):
		return time.Time{}, err
	case err != nil:
		if werr := r.write(ctx, hp, outcome{data: data, warns: true, reason: reason, message: err.Error()}); werr != nil || !next.IsZero() {
			return next, werr
		}
		return time.Time{}, err
	}
	return next, r.write(ctx, hp, succeeded(data))
}

// outcome is what there is to say of an attempt.
type outcome struct {
	// data is nil where the portrait stays what it is.
	data *kapacity.PortraitData
	// panic is what the panic window remembers beside data; nil where there is none.
	panic *kapacity.PanicStatus
	// shared says whose pods the selector matches as well, beside data.
	shared    string
	generated bool
	// warns says that the message tells of something that is wrong.
	warns           bool
	reason, message string
}

// failed is an outcome that leaves the portrait what it is.
func failed(reason, message string) outcome {
	return outcome{warns: true, reason: reason, message: message}
}

func succeeded(data *kapacity.PortraitData) outcome {
	return outcome{data: data, generated: true, reason: kapacity.ReasonSucceededGeneratePortrait, message: kapacity.MessageSucceededGeneratePortrait}
}

// write patches the status if it differs, and sends an event for a failure, or a note, that is new. A merge patch replaces the
// whole list of conditions, hence the lock.
func (r *Reconciler) write(ctx context.Context, hp *kapacity.HorizontalPortrait, o outcome) error {
	before := hp.DeepCopy()
	if o.data != nil {
		if !sameData(hp.Status.PortraitData, o.data) {
			hp.Status.PortraitData = o.data
		}
		hp.Status.Panic = o.panic
	}
	told := r.setShared(hp, o)
	hp.Status.ObservedGeneration = hp.Generation
	c := metav1.Condition{Type: kapacity.ConditionPortraitGenerated, Status: metav1.ConditionFalse, Reason: o.reason, Message: event.Bounded(o.message),
		ObservedGeneration: hp.Generation, LastTransitionTime: metav1.NewTime(r.Clock.Now().Truncate(time.Second))}
	if o.generated {
		c.Status = metav1.ConditionTrue
	}
	old := meta.FindStatusCondition(hp.Status.Conditions, c.Type)
	known := old != nil && old.Status == c.Status && old.Reason == c.Reason && outline(old.Message) == outline(c.Message)
	if known { // its numbers change all the time, and that is no news
		c.Message = old.Message
	}
	meta.SetStatusCondition(&hp.Status.Conditions, c)
	if equality.Semantic.DeepEqual(before.Status, hp.Status) {
		return nil
	}
	if err := r.Client.Status().Patch(ctx, hp, optimistic(before), client.FieldOwner(target.FieldManager)); err != nil {
		return fmt.Errorf("write status: %w", err)
	}
	if told != "" {
		r.Recorder.Event(hp, corev1.EventTypeWarning, kapacity.ReasonPodsOfOthers, told)
	}
	if !known && o.warns {
		r.Recorder.Event(hp, corev1.EventTypeWarning, c.Reason, c.Message)
	}
	return nil
}

// sameData compares what is said. An expiry of the zero time is none: it is stored as null.
func sameData(a, b *kapacity.PortraitData) bool {
	if a == nil || b == nil {
		return a == b
	}
	x, y := *a, *b
	for _, d := range []*kapacity.PortraitData{&x, &y} {
		if d.ExpireTime.IsZero() {
			d.ExpireTime = nil
		}
	}
	return equality.Semantic.DeepEqual(x, y)
}

// outline makes texts equal that differ only in numbers, and in words that have a number in them such as durations and
// pods' names.
func outline(text string) string {
	words := strings.FieldsFunc(text, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) })
	for i, w := range words {
		if strings.ContainsFunc(w, unicode.IsDigit) {
			words[i] = "#"
		}
	}
	return strings.Join(slices.CompactFunc(words, func(a, b string) bool { return a == "#" && b == "#" }), " ")
}

func optimistic(before client.Object) client.Patch {
	return client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
}
