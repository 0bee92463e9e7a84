// Package stackset carries out StackSets: it makes a Stack for each version, what belongs to a Stack, and moves the traffic. What is to be
// is decided by the pure packages below it and by scaler/prescale; this one reads, asks them, and writes what differs, in an order in
// which every request finds a backend, whichever write is the last one.
package stackset

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	zalando "github.com/kubetide/kubetide/api/zalando/v1"
	"github.com/kubetide/kubetide/internal/traffic"
	"github.com/kubetide/kubetide/scaler/prescale"
	"github.com/kubetide/kubetide/scaler/target"
	"github.com/kubetide/kubetide/workloads/drift"
	"github.com/kubetide/kubetide/workloads/stackset/generate"
	stacktraffic "github.com/kubetide/kubetide/workloads/stackset/traffic"
)

// What is read of StackSets, beside the annotations of prescaling and of generate.
const (
	// ControllerAnnotation names the controller that a StackSet belongs to.
	ControllerAnnotation = "stackset-controller.zalando.org/controller"
	// WriteBackAnnotation with the value "false" leaves spec.traffic as it was written, for those who apply it from a repository.
	WriteBackAnnotation = "kubetide.io/traffic-write-back"
)

// lookAgain is how often it is looked for what is not watched: a ConfigMap or Secret that is missing, a name that somebody else has.
const lookAgain = 10 * time.Second

// Options are the operator's settings.
type Options struct {
	generate.Options
	// ControllerID is the one that a StackSet's ControllerAnnotation must have; with none only StackSets without the annotation count.
	ControllerID string
	// RouteGroups, ConfigMaps, Secrets and PlatformCredentialsSets tell which kinds Stacks may have.
	RouteGroups, ConfigMaps, Secrets, PlatformCredentialsSets bool
}

// controller is that of StackSets.
type controller struct {
	client client.Client
	// direct sees what the cache leaves out: objects without the label of a StackSet, and configuration.
	direct   client.Reader
	recorder record.EventRecorder
	clock    clock.PassiveClock
	options  Options
	// ihpas tells that there are IntelligentHorizontalPodAutoscalers.
	ihpas   bool
	settled drift.Settled
}

// round is one look at a StackSet.
type round struct {
	*controller
	set      *zalando.StackSet
	now      time.Time
	versions []*version
	decision stacktraffic.Decision
	// before are the weights that are in force as the round begins.
	before map[string]int
	// version is the one for which a Stack is known to have been made.
	version  string
	problems []failure
	// again is the time to look again at the latest; zero if there is none.
	again time.Time
}

// version is a Stack with what belongs to it.
type version struct {
	generate.Source
	live     objects
	facts    stacktraffic.Stack
	outcome  stacktraffic.Outcome
	segment  traffic.Segment
	missing  []failure // references
	failures []failure
}

// failure is something that is not as it should be, by the reason of its Event. err is set where trying again may help.
type failure struct {
	reason, message string
	err             error
}

// Reconcile brings one StackSet closer to what it should be.
func (c *controller) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	defer func() {
		if p := recover(); p != nil {
			panics.Inc()
			panic(p)
		}
	}()
	set := &zalando.StackSet{}
	err := c.client.Get(ctx, request.NamespacedName, set)
	if client.IgnoreNotFound(err) != nil {
		return reconcile.Result{}, err
	}
	if err != nil || !c.manages(set) || set.DeletionTimestamp != nil {
		told.forget(request.NamespacedName)
		return reconcile.Result{}, nil // what was made of it goes with it
	}
	r := &round{controller: c, set: set, now: c.clock.Now(), version: set.Status.ObservedStackVersion}
	err = r.run(ctx)
	if r.faulty(err) {
		faults.Inc()
	}
	if err != nil {
		return reconcile.Result{}, fmt.Errorf("stackset %s/%s: %w", set.Namespace, set.Name, err)
	}
	if r.again.IsZero() {
		return reconcile.Result{}, nil
	}
	return reconcile.Result{RequeueAfter: max(r.again.Sub(c.clock.Now()), time.Millisecond)}, nil
}

func (c *controller) manages(set *zalando.StackSet) bool { return Manages(c.options.ControllerID, set) }

// Manages tells whether the StackSet is that controller's.
func Manages(controllerID string, set *zalando.StackSet) bool {
	id, found := set.Annotations[ControllerAnnotation]
	return found == (controllerID != "") && id == controllerID
}

// run reads, decides and writes. What is held for traffic to come is persisted before anything follows from it, so that it is not
// computed again from what it has brought about; then the segments; then the rest of each Stack, in which an error keeps nobody else
// from being looked after.
func (r *round) run(ctx context.Context) error {
	if err := r.read(ctx); err != nil {
		return err
	}
	r.decide()
	if err := r.hold(ctx); err != nil {
		return err
	}
	if err := r.route(ctx); err != nil {
		if !apierrors.IsConflict(err) {
			r.problem("FailedManageSegments", err)
		}
		if refused(err) || errors.Is(err, errTaken) {
			r.wake(r.now.Add(lookAgain))
			err = nil
		}
		return errors.Join(err, r.reportFailure(ctx))
	}
	retry := []error{r.forget(ctx)}
	for _, v := range r.versions {
		r.carryOut(ctx, v)
	}
	retry = append(retry, r.writeBack(ctx), r.report(ctx), r.cleanUp(ctx))
	for _, f := range r.failures() {
		retry = append(retry, f.err)
	}
	return errors.Join(retry...)
}

// read finds the StackSet's Stacks, makes that of its version, and reads what belongs to them.
func (r *round) read(ctx context.Context) error {
	all := &zalando.StackList{}
	if err := r.client.List(ctx, all, client.InNamespace(r.set.Namespace), client.MatchingFields{ownerIndex: string(r.set.UID)}); err != nil {
		return fmt.Errorf("list Stacks: %w", err)
	}
	stacks := all.Items
	made, err := r.makeStack(ctx, stacks)
	if err != nil {
		return err
	}
	if made != nil {
		stacks = append(stacks, *made)
	}
	slices.SortFunc(stacks, func(a, b zalando.Stack) int { return strings.Compare(a.Name, b.Name) })
	for i := range stacks {
		if stacks[i].DeletionTimestamp != nil {
			continue // what belongs to it is going, segments first or last
		}
		v := &version{Source: generate.Source{Options: r.options.Options, StackSet: r.set, Stack: &stacks[i]}}
		if v.live, err = r.objects(ctx, v.Stack); err != nil {
			return err
		}
		if v.missing, err = r.references(ctx, v); err != nil {
			return err
		}
		r.versions = append(r.versions, v)
	}
	return nil
}

// makeStack creates the Stack of the StackSet's version, once: one that is deleted does not come back before another version has been.
func (r *round) makeStack(ctx context.Context, stacks []zalando.Stack) (*zalando.Stack, error) {
	version, name := r.set.Spec.StackTemplate.Spec.Version, generate.StackName(r.set)
	if slices.ContainsFunc(stacks, func(s zalando.Stack) bool { return s.Name == name }) {
		r.version = version
		return nil, nil
	}
	if r.version == version {
		return nil, nil
	}
	const failed = "FailedCreateStack"
	stack, err := generate.Stack(r.set, r.options.Options)
	if err == nil && (r.options.ConfigMaps || r.options.Secrets || r.options.PlatformCredentialsSets) {
		_, _, err = generate.Source{Stack: stack}.References()
	}
	if err != nil {
		r.problem(failed, err)
		return nil, nil
	}
	err = r.client.Create(ctx, stack, client.FieldOwner(target.FieldManager))
	switch {
	case err == nil:
		r.recorder.Eventf(r.set, corev1.EventTypeNormal, "CreatedStack", "Created Stack %s", name)
	case apierrors.IsAlreadyExists(err):
		if err := r.direct.Get(ctx, client.ObjectKeyFromObject(stack), stack); err != nil {
			return nil, fmt.Errorf("read Stack %s: %w", name, err)
		}
		if !ownedBy(stack, r.set.UID) {
			r.problem(failed, fmt.Errorf("stack %s is there already, and was not made for this StackSet", name))
			r.wake(r.now.Add(lookAgain))
			return nil, nil
		}
	case refused(err):
		r.problem(failed, fmt.Errorf("create Stack %s: %w", name, err))
		return nil, nil
	default:
		return nil, fmt.Errorf("create Stack %s: %w", name, err)
	}
	r.version = version
	return stack, nil
}

// forever is in seconds; what is longer means the same, and a Duration cannot hold all of it.
const forever = 100 * 365 * 24 * 60 * 60

// decide asks who gets which share of the traffic, how many pods, and who goes.
func (r *round) decide() {
	set := stacktraffic.StackSet{MinReadyPercent: r.set.Spec.MinReadyPercent}
	var err error
	if set.Prescale, err = prescale.FromAnnotations(r.set.Annotations); err != nil {
		r.problem("InvalidAnnotation", err)
	}
	for _, t := range r.set.Spec.Traffic {
		set.Weights = append(set.Weights, stacktraffic.Weight{Stack: t.StackName, Weight: t.Weight})
	}
	if ttl := r.set.Spec.StackLifecycle.ScaledownTTLSeconds; ttl != nil {
		set.ScaledownTTL = max(time.Nanosecond, time.Duration(min(*ttl, forever))*time.Second) // 0 is meant, and not the default
	}
	if limit := r.set.Spec.StackLifecycle.Limit; limit != nil {
		set.Limit = int(*limit)
	}
	actual := map[string]float64{}
	for _, t := range r.set.Status.Traffic {
		actual[t.ServiceName] = t.Weight
	}
	// A Stack keeps its ways in when the StackSet loses its own.
	set.HasIngress = slices.ContainsFunc(r.versions, func(v *version) bool { return v.HasIngress() })
	for _, v := range r.versions {
		v.facts = r.facts(v, set.HasIngress)
		v.facts.Actual = actual[v.Stack.Name]
		set.Stacks = append(set.Stacks, v.facts)
	}
	r.decision = stacktraffic.Decide(set, r.now)
	for i, v := range r.versions {
		v.outcome = r.decision.Stacks[i]
	}
	for _, p := range r.decision.Problems {
		r.problem("InvalidTraffic", errors.New("spec.traffic: "+p))
	}
	r.wake(r.decision.Next)
	r.before = map[string]int{}
	for _, v := range r.versions {
		r.before[v.Stack.Name] = int(v.facts.Actual)
	}
}

// hold persists what is newly held for traffic to come, or no longer held.
func (r *round) hold(ctx context.Context) error {
	for _, v := range r.versions {
		if !v.outcome.Prescaling.Changed {
			continue
		}
		status := v.Stack.Status
		status.Prescaling = v.outcome.Prescaling.State.Status()
		if err := r.writeStackStatus(ctx, v, status); err != nil {
			return err
		}
		for _, name := range r.decision.Expired {
			if name == v.Stack.Name {
				r.recorder.Event(v.Stack, corev1.EventTypeWarning, "PrescalingDeadlineExceeded", bounded(v.outcome.Prescaling.Reason))
				r.recorder.Eventf(r.set, corev1.EventTypeWarning, "PrescalingDeadlineExceeded", "Stack %s: %s", name, v.outcome.Prescaling.Reason)
			}
		}
	}
	return nil
}

// writeBack puts the weights that count into the spec, as upstream does.
func (r *round) writeBack(ctx context.Context) error {
	var weights []*zalando.DesiredTraffic
	for _, v := range r.versions { // sorted by name
		if v.outcome.Desired > 0 {
			weights = append(weights, &zalando.DesiredTraffic{StackName: v.Stack.Name, Weight: float64(v.outcome.Desired)})
		}
	}
	if len(weights) == 0 || r.set.Annotations[WriteBackAnnotation] == "false" || slices.EqualFunc(weights, r.set.Spec.Traffic,
		func(a, b *zalando.DesiredTraffic) bool { return *a == *b }) {
		return nil
	}
	next := r.set.DeepCopy()
	next.Spec.Traffic = weights
	// Who has written other weights meanwhile is heard in the next round.
	if err := r.client.Patch(ctx, next, client.MergeFromWithOptions(r.set, client.MergeFromWithOptimisticLock{}), client.FieldOwner(target.FieldManager)); err != nil {
		return client.IgnoreNotFound(fmt.Errorf("write spec.traffic: %w", err))
	}
	r.recorder.Event(r.set, corev1.EventTypeNormal, "UpdatedStackSet", "Updated spec.traffic to the weights that count")
	r.set = next
	return nil
}

// cleanUp deletes the Stacks that are too many.
func (r *round) cleanUp(ctx context.Context) error {
	var errs []error
	for _, v := range r.versions {
		if !v.outcome.Remove {
			continue
		}
		if err := r.remove(ctx, v.Stack); err != nil {
			r.recorder.Eventf(r.set, corev1.EventTypeWarning, "FailedDeleteStack", "%v", err)
			errs = append(errs, err)
			continue
		}
		r.recorder.Eventf(r.set, corev1.EventTypeNormal, "DeletedExcessStack", "Deleted excess stack %s", v.Stack.Name)
	}
	return errors.Join(errs...)
}

// faulty tells that the round failed, or found a mistake. That somebody else was faster is neither.
func (r *round) faulty(err error) bool {
	return err != nil && !apierrors.IsConflict(err) || len(r.problems) > 0 ||
		slices.ContainsFunc(r.failures(), func(f failure) bool { return f.message != "" })
}

func (r *round) problem(reason string, err error) {
	r.problems = append(r.problems, failure{reason: reason, message: err.Error()})
}

// failures are those of all Stacks.
func (r *round) failures() []failure {
	var all []failure
	for _, v := range r.versions {
		all = append(all, v.failures...)
	}
	return all
}

func (r *round) wake(at time.Time) {
	if !at.IsZero() && (r.again.IsZero() || at.Before(r.again)) {
		r.again = at
	}
}

// facts are what is known of a Stack. routed tells that the StackSet has traffic to share out.
func (r *round) facts(v *version, routed bool) stacktraffic.Stack {
	stack := v.Stack
	f := stacktraffic.Stack{
		Name: stack.Name, Created: stack.CreationTimestamp.Time, Desired: stack.Status.DesiredTrafficWeight,
		HasIngress: v.HasIngress(), Forwarded: v.Forwarded(), Replicas: 1, Prescaling: prescale.FromStatus(stack.Status.Prescaling),
	}
	for _, kind := range kinds {
		f.Routed = f.Routed || kind.live(v).Width() > 0
	}
	if stack.Status.NoTrafficSince != nil {
		f.NoTrafficSince = stack.Status.NoTrafficSince.Time
	}
	if n := stack.Spec.Replicas; n != nil {
		f.Replicas = *n
	}
	if a := stack.Spec.Autoscaler; a != nil {
		f.Autoscaler = &prescale.Bounds{Min: 1, Max: a.MaxReplicas}
		if a.MinReplicas != nil {
			f.Autoscaler.Min = *a.MinReplicas
		}
	}
	if d := own(stack, v.live.deployment); d != nil {
		f.Current, f.Updated, f.Ready = 1, d.Status.UpdatedReplicas, d.Status.ReadyReplicas
		if d.Spec.Replicas != nil {
			f.Current = *d.Spec.Replicas
		}
		if f.HasIngress { // a pod takes requests once routers are told of it, which is a moment after it is ready
			f.Ready = min(f.Ready, v.live.endpoints)
		}
	}
	f.Lacks = r.lacks(v, routed)
	return f
}
