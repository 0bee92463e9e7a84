package ihpa

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	crlog "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	"github.com/kubetide/kubetide/internal/decision"
	"github.com/kubetide/kubetide/internal/window"
	"github.com/kubetide/kubetide/scaler/enginetest"
	"github.com/kubetide/kubetide/scaler/horizontalportrait"
	"github.com/kubetide/kubetide/scaler/replicaprofile"
	"github.com/kubetide/kubetide/scaler/wants"
)

// simulation is one run of the engine in a world in which everything goes wrong that can. All chance comes from the seed, so a run can
// be repeated; nothing in it is parallel.
type simulation struct {
	t    testing.TB
	seed uint64
	rng  *rand.Rand
	w    *enginetest.World

	// What a leader has in memory: a cache that may be behind, and for each controller when it looks again and how often it has failed.
	cache    *enginetest.Cache
	leaders  int
	at       [3]time.Time
	failures [3]int
	actors   [3]reconcile.Reconciler
	sources  *sources

	// What goes wrong now.
	refused, lost    float64 // of the writes
	away, stalled    bool
	writesLeft       int // until the leader is killed; negative for never
	dead, healed     bool
	data             int32         // what the generator says
	missing          bool          // it says nothing
	expiry           time.Duration // of what it says; 0 for none
	reactive         bool          // the portrait is made by the engine, from metrics
	breach           bool
	cutting, foreign bool // pods go by gray steps only; somebody else has changed what pods there are since the last rest
	rollingOut       bool

	// What the decision that is being taken saw, for the invariants.
	deciding *kapacity.IntelligentHorizontalPodAutoscaler
	profile  *kapacity.ReplicaProfile
	failing  bool
	pods     map[string]*corev1.Pod   // as they are stored
	current  bool                     // the cache was not behind
	serving  int32                    // the replicas that are not held
	stored   *kapacity.ReplicaProfile // nil if there is none
	scale    *int32                   // of the workload, nil if there is none
	counts   []counted                // what was carried out, oldest first
	rules    string

	steps   int
	trace   []string
	digest  interface{ Sum64() uint64 }
	digests func(string)
	broken  string
}

// counted is a count of pods to serve that was carried out: /scale is what the profile asks for.
type counted struct {
	at       time.Time
	replicas int32
}

const (
	theIHPA     = 0
	theProfile  = 1
	thePortrait = 2
)

// asked are the requests of the actors.
func (s *simulation) asked(actor int) reconcile.Request {
	if actor == thePortrait {
		return reconcile.Request{NamespacedName: types.NamespacedName{Namespace: enginetest.Namespace, Name: "nginx-reactive"}}
	}
	return enginetest.Request
}

func simulate(t testing.TB, seed uint64) *simulation {
	crlog.SetLogger(logr.Discard())
	h := fnv.New64a()
	s := &simulation{pods: map[string]*corev1.Pod{}, t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 1)), sources: &sources{}, writesLeft: -1, digest: h,
		digests: func(line string) { _, _ = h.Write([]byte(line)) }}
	kinds := []string{"a parallel StatefulSet", "an ordered StatefulSet", "a Deployment", "a ReplicaSet"}
	workload := workloads(s.n(0, 8))[kinds[s.rng.IntN(len(kinds))]]
	o := s.ihpa(kindOf(workload))
	s.w = world(t.(*testing.T), workload, o)
	s.w.Restart()
	s.scale = replicasOf(workload)
	s.say("%s with %d to %d replicas, %s", kindOf(workload), o.Spec.MinReplicas, o.Spec.MaxReplicas, brief(o))
	s.w.Watch(s.saw)
	s.w.Fail, s.w.Lose, s.w.FailRead = s.fail, s.lose, s.failRead
	s.sources.say("errors", 0)
	s.lead()
	return s
}

func (s *simulation) n(from, to int32) int32    { return from + s.rng.Int32N(to-from+1) }
func (s *simulation) chance(p float64) bool     { return s.rng.Float64() < p }
func (s *simulation) pick(of ...string) string  { return of[s.rng.IntN(len(of))] }
func (s *simulation) now() time.Time            { return s.w.Clock.Now() }
func (s *simulation) say(f string, args ...any) { s.line(fmt.Sprintf(f, args...)) }

func (s *simulation) line(what string) {
	line := fmt.Sprintf("%5d %s %s", s.steps, s.w.Clock.Now().Format("15:04:05.000"), what)
	s.digests(line)
	s.trace = append(s.trace, line)
}

func brief(o *kapacity.IntelligentHorizontalPodAutoscaler) string {
	var b strings.Builder
	for _, p := range o.Spec.PortraitProviders {
		switch {
		case p.Static != nil:
			fmt.Fprintf(&b, "static %d (%d); ", p.Static.Replicas, p.Priority)
		case p.Cron != nil:
			c := p.Cron.Crons[0]
			fmt.Fprintf(&b, "cron %d from %s to %s (%d); ", c.Replicas, c.Start, c.End, p.Priority)
		default:
			fmt.Fprintf(&b, "dynamic (%d); ", p.Priority)
		}
	}
	for name, d := range map[string]kapacity.ScalingBehavior{"up": o.Spec.Behavior.ScaleUp, "down": o.Spec.Behavior.ScaleDown} {
		if g := d.GrayStrategy; g != nil {
			fmt.Fprintf(&b, "%s %s %d%%/%ds/%ds; ", name, g.GrayState, g.ChangePercent, g.ChangeIntervalSeconds, g.ObservationSeconds)
		}
	}
	parts := strings.Split(b.String(), "; ")
	slices.Sort(parts)
	return strings.TrimPrefix(strings.Join(parts, "; "), "; ") + fmt.Sprintf(", limits %s", limits(o.Spec.Behavior))
}

// limits prints what behavior says of the rate.
func limits(b kapacity.IHPABehavior) string {
	up, down := rulesOf(b)
	return fmt.Sprint(show(up), " ", show(down))
}

func show[T any](p *T) string {
	if p == nil {
		return "none"
	}
	return fmt.Sprintf("%+v", *p)
}

// ihpa draws an autoscaler.
func (s *simulation) ihpa(kind string) *kapacity.IntelligentHorizontalPodAutoscaler {
	o := enginetest.IHPAOf(kind, nil, enginetest.Static(1, s.n(0, 9)))
	o.Spec.MinReplicas = s.n(0, 3)
	o.Spec.MaxReplicas = o.Spec.MinReplicas + s.n(2, 9)
	if s.chance(0.5) {
		o.Spec.PortraitProviders = append(o.Spec.PortraitProviders, s.cron(2))
	}
	switch p := s.rng.Float64(); {
	case p < 0.4:
		s.reactive = true
		o.Spec.PortraitProviders = append(o.Spec.PortraitProviders, s.measured())
	case p < 0.8:
		o.Spec.PortraitProviders = append(o.Spec.PortraitProviders, kapacity.HorizontalPortraitProvider{Type: kapacity.DynamicProvider, Priority: s.n(0, 3),
			Dynamic: &kapacity.DynamicHorizontalPortraitProvider{PortraitSpec: kapacity.PortraitSpec{PortraitType: kapacity.PredictivePortrait, ExternalGeneratorName: "simulation",
				Algorithm: kapacity.PortraitAlgorithm{Type: "simulation"}}}})
		s.data = s.n(0, 9)
		if s.chance(0.4) {
			s.expiry = time.Duration(s.n(30, 600)) * time.Second
		}
	}
	if s.cutting = s.chance(0.6); s.cutting {
		o.Spec.Behavior.ScaleDown.GrayStrategy = enginetest.Cutoff(s.n(20, 100), s.n(1, 20), s.n(0, 30))
		if s.chance(0.2) {
			o.Spec.Behavior.ScaleDown.GrayStrategy.GrayState = kapacity.PodStateStandby
		}
	} else if s.chance(0.3) {
		o.Spec.Behavior.ScaleDown.GrayStrategy = &kapacity.GrayStrategy{GrayState: kapacity.PodStateDeleted, ChangePercent: s.n(20, 100), ChangeIntervalSeconds: s.n(1, 20)}
	}
	if s.chance(0.3) {
		o.Spec.Behavior.ScaleUp.GrayStrategy = &kapacity.GrayStrategy{GrayState: kapacity.PodStateOnline, ChangePercent: s.n(20, 100), ChangeIntervalSeconds: s.n(1, 20)}
	}
	if s.chance(0.6) {
		s.limit(&o.Spec.Behavior.ScaleUp)
		s.limit(&o.Spec.Behavior.ScaleDown)
	}
	if s.chance(0.3) {
		b := kapacity.ScheduledBounds{Name: "night", MaxReplicas: ptr.To(o.Spec.MaxReplicas - 1)}
		b.Start, b.End = s.minutes()
		if s.chance(0.5) {
			b.MinReplicas = ptr.To(o.Spec.MinReplicas + 1)
		}
		o.Spec.ScheduledBounds = []kapacity.ScheduledBounds{b}
	}
	if s.chance(0.3) {
		action := kapacity.PauseAction
		if s.chance(0.5) {
			action = kapacity.RollbackAction
		}
		o.Spec.StabilityCheckers = checked(action, s.n(0, 20)).Spec.StabilityCheckers
	}
	return o
}

// minutes are a window of each hour.
func (s *simulation) minutes() (start, end kapacity.CronExpression) {
	from := s.n(0, 30)
	return kapacity.CronExpression(fmt.Sprintf("%d * * * *", from)), kapacity.CronExpression(fmt.Sprintf("%d * * * *", from+s.n(5, 29)))
}

func (s *simulation) cron(priority int32) kapacity.HorizontalPortraitProvider {
	start, end := s.minutes()
	return enginetest.Cron(priority, s.n(0, 9), string(start), string(end))
}

func (s *simulation) limit(b *kapacity.ScalingBehavior) {
	if s.chance(0.5) {
		b.StabilizationWindowSeconds = ptr.To(s.n(0, 60))
	}
	if s.chance(0.3) {
		b.SelectPolicy = ptr.To([]autoscalingv2.ScalingPolicySelect{autoscalingv2.MaxChangePolicySelect, autoscalingv2.MinChangePolicySelect}[s.rng.IntN(2)])
	}
	for range s.rng.IntN(3) {
		p := kapacity.ScalingPolicy{Type: "Pods", Value: s.n(1, 4), PeriodSeconds: s.n(5, 60)}
		if s.chance(0.3) {
			p.Type, p.Value = "Percent", s.n(10, 200)
		}
		b.Policies = append(b.Policies, p)
	}
}

// lead begins with a new leader: nothing but what is stored is known.
func (s *simulation) lead() {
	s.leaders++
	s.sources.forget()
	s.cache = s.w.Cache()
	c := s.w.Cached(s.cache, s.notice)
	s.dead, s.writesLeft = false, -1
	seen := collected{s.sources, s.w.Clock}
	checks := wants.New[struct{}](seen, s.w.Clock)
	portraits := horizontalportrait.New(c, s.w.Events.Recorder(kapacity.HorizontalPortraitEventComponent), horizontalportrait.Options{Demand: seen, Clock: s.w.Clock})
	s.w.Must(checks.Source().Start(s.w.Context(), wakes{add: func(reconcile.Request) { s.wake(theIHPA, s.now()) }}))
	s.w.Must(portraits.Metrics.Source().Start(s.w.Context(), wakes{add: func(reconcile.Request) { s.wake(thePortrait, s.now()) }}))
	s.actors = [3]reconcile.Reconciler{
		thePortrait: portraits,
		theIHPA: &Reconciler{Client: c, Live: s.w.Live(), Clock: s.w.Clock, Recorder: s.w.Events.Recorder(kapacity.IHPAEventComponent), Decisions: decision.NewLog(0, 0),
			Metrics: checks, Schedules: window.Defaults{Window: 10 * time.Minute, Steps: 10, Zone: time.UTC}},
		theProfile: &replicaprofile.Reconciler{Client: c, Clock: s.w.Clock, Recorder: s.w.Events.Recorder(kapacity.ReplicaProfileEventComponent), Live: s.w.Live(), Parallel: 1},
	}
	s.failures = [3]int{}
	s.at = [3]time.Time{s.now(), s.now()}
	if s.reactive {
		s.at[thePortrait] = s.now()
	}
}

// wake has a controller look at t, if it does not before.
func (s *simulation) wake(actor int, t time.Time) {
	if s.at[actor].IsZero() || t.Before(s.at[actor]) {
		s.at[actor] = t
	}
}

// notice wakes who Setup lets be woken by a change that the cache sees.
func (s *simulation) notice(before, after client.Object) {
	o := after
	if o == nil {
		o = before
	}
	both := before != nil && after != nil
	e := event.UpdateEvent{ObjectOld: before, ObjectNew: after}
	respecified := !both || before.GetGeneration() != after.GetGeneration() || leaving(e)
	switch o.(type) {
	case *kapacity.IntelligentHorizontalPodAutoscaler:
		if respecified {
			s.wake(theIHPA, s.now())
		}
	case *kapacity.ReplicaProfile:
		if !both || profileChanged(e) {
			s.wake(theIHPA, s.now())
		}
		if respecified {
			s.wake(theProfile, s.now())
		}
	case *kapacity.HorizontalPortrait:
		if !both || portraitChanged(e) {
			s.wake(theIHPA, s.now())
		}
		if s.reactive && respecified {
			s.wake(thePortrait, s.now())
		}
	case *appsv1.Deployment, *appsv1.StatefulSet, *appsv1.ReplicaSet:
		if !both {
			s.wake(theIHPA, s.now())
		}
		if s.reactive && o.GetName() == enginetest.Name && after != nil && respecified {
			s.wake(thePortrait, s.now())
		}
		s.wake(theProfile, s.now())
	case *corev1.Pod:
		s.wake(theProfile, s.now())
	}
}

var someError = map[string]func() error{
	"500": func() error { return apierrors.NewInternalError(errors.New("etcdserver: leader changed")) },
	"409": func() error { return apierrors.NewConflict(schema.GroupResource{}, "x", errors.New("modified")) },
	"429": func() error { return apierrors.NewTooManyRequestsError("slow down") },
	"timeout": func() error {
		return apierrors.NewTimeoutError("the request did not end in time", 1)
	},
}

func (s *simulation) fail(what string) error {
	switch {
	case s.dead:
		return context.Canceled
	case s.away:
		return errors.New("connection refused")
	case s.writesLeft == 0:
		s.dead = true
		s.say("  the leader dies before %s", what)
		return context.Canceled
	case s.chance(s.refused):
		kind := s.pick("500", "409", "429", "timeout")
		s.say("  refused with %s: %s", kind, what)
		return someError[kind]()
	}
	if s.writesLeft > 0 {
		s.writesLeft--
	}
	s.say("  %s", what)
	return nil
}

func (s *simulation) lose(what string) error {
	if s.chance(s.lost) {
		s.say("  the answer is lost: %s", what)
		return someError["timeout"]()
	}
	return nil
}

func (s *simulation) failRead() error {
	if s.dead {
		return context.Canceled
	}
	if s.away {
		return errors.New("connection refused")
	}
	return nil
}

// run has one controller look.
func (s *simulation) run(actor int) {
	s.at[actor] = time.Time{}
	for i := range s.counts { // a clock that was set back
		if s.counts[i].at.After(s.now()) {
			s.counts[i].at = s.now()
		}
	}
	s.remember()
	s.say("%s looks", []string{"IHPA", "ReplicaProfile", "HorizontalPortrait"}[actor])
	result, err := s.actors[actor].Reconcile(context.Background(), s.asked(actor))
	s.deciding, s.profile = nil, nil
	switch {
	case s.dead:
		s.say("a new leader begins")
		s.lead()
	case err != nil:
		s.say("  %v", err)
		s.wake(actor, s.now().Add(min(30*time.Second, 50*time.Millisecond<<min(s.failures[actor], 20))))
		s.failures[actor]++
	default:
		s.failures[actor] = 0
		if result.RequeueAfter > 0 {
			s.wake(actor, s.now().Add(result.RequeueAfter))
		}
	}
}

// remember keeps the picture on which the next decision is taken.
func (s *simulation) remember() {
	c := s.w.Cached(s.cache, s.notice)
	behind := s.cache.Behind()
	s.current = !slices.Contains(behind, "Pod")
	s.deciding, s.profile = &kapacity.IntelligentHorizontalPodAutoscaler{}, &kapacity.ReplicaProfile{}
	if c.Get(context.Background(), enginetest.Request.NamespacedName, s.deciding) != nil {
		s.deciding = nil
	}
	if c.Get(context.Background(), enginetest.Request.NamespacedName, s.profile) != nil {
		s.profile = nil
	}
	hp := &kapacity.HorizontalPortrait{}
	s.failing = c.Get(context.Background(), s.portrait(), hp) == nil && generated(hp) != nil
	s.serving = 0
	all := &corev1.PodList{}
	if o := s.target(); s.reactive && c.Get(context.Background(), enginetest.Request.NamespacedName, o) == nil && c.List(context.Background(), all) == nil {
		s.serving = *replicasOf(o)
		for _, p := range all.Items {
			if p.Labels[kapacity.PodStateLabel] != "" {
				s.serving--
			}
		}
	}
}

// portrait names the portrait that there is, if any.
func (s *simulation) portrait() types.NamespacedName {
	name := "nginx-predictive"
	if s.reactive {
		name = s.asked(thePortrait).Name
	}
	return types.NamespacedName{Namespace: enginetest.Namespace, Name: name}
}

// must fails the run, once.
func (s *simulation) must(holds bool, f string, args ...any) {
	if !holds && s.broken == "" {
		s.broken = fmt.Sprintf(f, args...)
		s.line("BROKEN: " + s.broken)
	}
}

// --- what others do

// target returns an empty object of the workload's kind.
func (s *simulation) target() client.Object {
	meta := metav1.ObjectMeta{Namespace: enginetest.Namespace, Name: enginetest.Name}
	switch s.w.IHPA().Spec.ScaleTargetRef.Kind {
	case "StatefulSet":
		return &appsv1.StatefulSet{ObjectMeta: meta}
	case "Deployment":
		return &appsv1.Deployment{ObjectMeta: meta}
	}
	return &appsv1.ReplicaSet{ObjectMeta: meta}
}

func replicasOf(o client.Object) *int32 {
	switch o := o.(type) {
	case *appsv1.StatefulSet:
		return o.Spec.Replicas
	case *appsv1.Deployment:
		return o.Spec.Replicas
	case *appsv1.ReplicaSet:
		return o.Spec.Replicas
	}
	return nil
}

// collect is the garbage collector.
func (s *simulation) collect() {
	s.w.Simulate(func() {
		there := map[types.UID]bool{}
		var owned []client.Object
		for _, l := range []client.ObjectList{&appsv1.StatefulSetList{}, &appsv1.DeploymentList{}, &appsv1.ReplicaSetList{}, &corev1.PodList{}} {
			s.w.Must(s.w.Client.List(s.w.Context(), l))
			s.w.Must(meta.EachListItem(l, func(r runtime.Object) error {
				o := r.(client.Object)
				if c := metav1.GetControllerOf(o); c != nil && !there[c.UID] {
					owned = append(owned, o)
				} else {
					there[o.GetUID()] = true
				}
				return nil
			}))
		}
		for _, o := range owned {
			s.w.Must(client.IgnoreNotFound(s.w.Client.Delete(s.w.Context(), o)))
		}
	})
}

// generate is the generator of the portrait at work, or those who collect metrics.
func (s *simulation) generate() {
	s.sources.collect(s.now())
	hp := &kapacity.HorizontalPortrait{}
	if s.reactive || s.w.Client.Get(s.w.Context(), s.portrait(), hp) != nil || s.missing && s.expiry > 0 {
		return
	}
	before := hp.DeepCopy()
	if s.missing {
		meta.SetStatusCondition(&hp.Status.Conditions, metav1.Condition{Type: kapacity.ConditionPortraitGenerated, Status: metav1.ConditionFalse,
			Reason: kapacity.ReasonFailedGeneratePortrait, Message: "no data"})
	} else {
		meta.SetStatusCondition(&hp.Status.Conditions, metav1.Condition{Type: kapacity.ConditionPortraitGenerated, Status: metav1.ConditionTrue,
			Reason: kapacity.ReasonSucceededGeneratePortrait, Message: kapacity.MessageSucceededGeneratePortrait})
		hp.Status.PortraitData = &kapacity.PortraitData{Type: kapacity.StaticPortraitData, Static: &kapacity.StaticPortrait{Replicas: s.data}}
		if s.expiry > 0 {
			until := metav1.NewTime(s.now().Add(s.expiry).Truncate(time.Second))
			if d := before.Status.PortraitData; d != nil && d.ExpireTime != nil && d.ExpireTime.Sub(s.now()) > s.expiry/2 && !d.ExpireTime.After(until.Time) {
				until = *d.ExpireTime
			}
			hp.Status.PortraitData.ExpireTime = &until
		}
	}
	if !equality.Semantic.DeepEqual(before.Status, hp.Status) {
		s.w.Simulate(func() { s.w.Must(s.w.Client.Status().Update(s.w.Context(), hp)) })
	}
}

// act does one thing that users, the cluster or bad luck do.
func (s *simulation) act() {
	edit := func(what string, change func(o *kapacity.IntelligentHorizontalPodAutoscaler)) {
		s.say("%s", what)
		s.w.Edit(change)
	}
	switch s.rng.IntN(22) {
	case 0, 1:
		n := s.n(0, 12)
		edit(fmt.Sprint("static ", n), func(o *kapacity.IntelligentHorizontalPodAutoscaler) { o.Spec.PortraitProviders[0].Static.Replicas = n })
	case 2, 3, 4:
		s.demand()
		s.generate()
	case 5:
		if s.reactive {
			metric, how := s.pick(measures...), s.pick("answers", "is away", "has no value")
			s.say("%s %s", metric, how)
			s.sources.does(metric, how)
		}
		s.missing = !s.missing
		s.say("data missing: %v", s.missing)
		s.generate()
	case 6:
		low := s.n(0, 3)
		high := low + s.n(1, 9)
		edit(fmt.Sprint("bounds ", low, high), func(o *kapacity.IntelligentHorizontalPodAutoscaler) {
			o.Spec.MinReplicas, o.Spec.MaxReplicas = low, high
		})
	case 7:
		var h *kapacity.Hold
		if s.chance(0.5) {
			h = &kapacity.Hold{Actor: "somebody"}
			if s.chance(0.7) {
				h.Replicas = ptr.To(s.n(0, 9))
			}
			if s.chance(0.7) {
				h.Until = &metav1.Time{Time: s.now().Add(time.Duration(s.n(1, 120)) * time.Second)}
			}
		}
		what := "hold nothing"
		if h != nil {
			what = "hold " + show(h.Replicas)
			if h.Until != nil {
				what += " until " + h.Until.Format(time.TimeOnly)
			}
		}
		edit(what, func(o *kapacity.IntelligentHorizontalPodAutoscaler) { o.Spec.Hold = h })
	case 8:
		paused := s.chance(0.4)
		edit(fmt.Sprint("paused ", paused), func(o *kapacity.IntelligentHorizontalPodAutoscaler) { o.Spec.Paused = paused })
	case 9:
		mode := kapacity.ScaleModeAuto
		if s.chance(0.3) {
			mode = kapacity.ScaleModePreview
		}
		edit("mode "+string(mode), func(o *kapacity.IntelligentHorizontalPodAutoscaler) { o.Spec.ScaleMode = mode })
	case 10:
		s.breach = !s.breach
		s.say("errors: %v", s.breach)
		s.sources.say("errors", map[bool]int64{true: 9_000}[s.breach])
		s.generate()
	case 11:
		s.refused, s.lost = []float64{0, 0.1, 0.5}[s.rng.IntN(3)], []float64{0, 0.1, 0.3}[s.rng.IntN(3)]
		s.say("of the writes %v are refused, of the answers %v lost", s.refused, s.lost)
	case 12:
		s.away = s.chance(0.5)
		s.say("API server away: %v", s.away)
	case 13:
		s.stalled = s.chance(0.5)
		s.cache.Stalled = s.stalled
		s.say("watches dropped: %v", s.stalled)
	case 14:
		s.writesLeft = int(s.n(0, 6))
		s.say("the leader will die after %d writes", s.writesLeft)
	case 15:
		d := []time.Duration{time.Hour, -time.Hour, -time.Second}[s.rng.IntN(3)]
		s.say("the clock jumps by %v", d)
		for i, at := range s.at { // timers do not run by the wall clock
			if !at.IsZero() {
				s.at[i] = at.Add(d)
			}
		}
		s.w.Clock.SetTime(s.now().Add(d))
	case 16:
		s.w.Pending = s.chance(0.4)
		s.foreign = true
		s.say("new pods stay pending: %v", s.w.Pending)
		s.schedule()
	case 17:
		s.w.Full = s.chance(0.4)
		s.say("quota exhausted: %v", s.w.Full)
	case 18:
		if pods := s.w.Pods(); len(pods) > 0 {
			victim := pods[s.rng.IntN(len(pods))]
			s.say("pod %s dies", victim.Name)
			s.foreign = true
			s.w.Simulate(func() { s.w.Must(s.w.Client.Delete(s.w.Context(), &victim)) })
		}
	case 19:
		s.recreate()
	case 20:
		s.rollOut()
	case 21:
		o := s.target()
		if s.chance(0.3) && s.w.Client.Get(s.w.Context(), enginetest.Request.NamespacedName, o) == nil {
			*replicasOf(o) = s.n(0, 9)
			s.foreign = true
			s.say("somebody writes %d replicas", *replicasOf(o))
			s.w.Simulate(func() { s.w.Must(s.w.Client.Update(s.w.Context(), o)) })
		}
	}
}

// schedule gives pods nodes, unless they have to wait for them.
func (s *simulation) schedule() {
	if s.w.Pending {
		return
	}
	for _, p := range s.w.Pods() {
		if p.Spec.NodeName == "" {
			p.Spec.NodeName = "node"
			s.w.Simulate(func() { s.w.Must(s.w.Client.Update(s.w.Context(), &p)) })
		}
	}
}

// recreate deletes the workload, or makes it again under another UID.
func (s *simulation) recreate() {
	o := s.target()
	s.foreign, s.rollingOut = true, false
	if s.w.Client.Get(s.w.Context(), enginetest.Request.NamespacedName, o) == nil {
		s.say("the workload is deleted")
		s.w.Simulate(func() { s.w.Must(s.w.Client.Delete(s.w.Context(), o)) })
		s.collect()
		if s.chance(0.5) {
			return
		}
	}
	n := s.n(0, 9)
	s.say("the workload is made again with %d replicas", n)
	for name, o := range workloads(n) {
		if kindOf(o) == s.w.IHPA().Spec.ScaleTargetRef.Kind && !strings.Contains(name, "ordered") {
			s.w.Simulate(func() { s.w.Must(s.w.Client.Create(s.w.Context(), o)) })
		}
	}
}

// rollOut begins or ends the replacement of a StatefulSet's pods.
func (s *simulation) rollOut() {
	o := &appsv1.StatefulSet{}
	if s.w.Client.Get(s.w.Context(), enginetest.Request.NamespacedName, o) != nil {
		return
	}
	if o.Status.CurrentRevision != o.Status.UpdateRevision {
		o.Status.CurrentRevision = o.Status.UpdateRevision
	} else {
		o.Status.CurrentRevision, o.Status.UpdateRevision = "one", fmt.Sprintf("two-%d", s.steps)
	}
	s.rollingOut, s.foreign = o.Status.CurrentRevision != o.Status.UpdateRevision, true
	s.say("rollout: %v", s.rollingOut)
	s.w.Simulate(func() { s.w.Must(s.w.Client.Status().Update(s.w.Context(), o)) })
}

// --- what must hold

// saw checks each change as it happens.
func (s *simulation) saw(ours bool, before, after client.Object) {
	if p, ok := after.(*corev1.Pod); ok {
		s.pods[p.Name] = p
		if b, ok := before.(*corev1.Pod); ok && ours && online(b) && !online(p) {
			s.cuts(p)
		}
	} else if p, ok := before.(*corev1.Pod); ok {
		delete(s.pods, p.Name)
	}
	switch b := before.(type) {
	case nil:
		if rp, ok := after.(*kapacity.ReplicaProfile); ok && ours {
			s.ordersOnline(nil, rp)
		}
	case *kapacity.HorizontalPortrait:
		if hp, ok := after.(*kapacity.HorizontalPortrait); ok && ours {
			s.portrays(b.Status.PortraitData, hp.Status.PortraitData)
		}
	case *kapacity.ReplicaProfile:
		if rp, ok := after.(*kapacity.ReplicaProfile); ok && ours && b.Generation != rp.Generation && rp.DeletionTimestamp == nil {
			s.ordersOnline(b, rp)
		}
	case *appsv1.Deployment, *appsv1.StatefulSet, *appsv1.ReplicaSet:
		if ours && after != nil {
			s.scales(*replicasOf(before), *replicasOf(after))
		}
	case *corev1.Pod:
		if after == nil && s.cutting && !s.foreign && !s.rollingOut {
			s.must(!enginetest.Ready(b) || b.Labels[kapacity.PodStateLabel] != "", "pod %s is deleted although it was not cut", b.Name)
		}
	}
	is, o := after, after
	if is == nil {
		o = before
	}
	switch o.(type) {
	case *kapacity.ReplicaProfile:
		s.stored, _ = is.(*kapacity.ReplicaProfile)
	case *appsv1.Deployment, *appsv1.StatefulSet, *appsv1.ReplicaSet:
		if metav1.GetControllerOf(o) == nil {
			s.scale = replicasOf(is)
		}
	}
	s.count()
}

// ordersOnline: (a) the online count never moves out of the bounds that the decision saw, (c) nor down while data are missing.
// A rollback turns on what there is.
func (s *simulation) ordersOnline(before, rp *kapacity.ReplicaProfile) {
	was, there := int32(-1), int32(0)
	if before != nil {
		was, there = before.Spec.OnlineReplicas, before.Spec.OnlineReplicas+before.Spec.CutoffReplicas+before.Spec.StandbyReplicas
	}
	s.say("    online %d -> %d, cutoff %d, standby %d", was, rp.Spec.OnlineReplicas, rp.Spec.CutoffReplicas, rp.Spec.StandbyReplicas)
	o, is := s.deciding, rp.Spec.OnlineReplicas
	if o == nil || was < 0 {
		return
	}
	s.paces(o, was, is)
	low, high := boundsAt(o, s.now())
	s.must(is <= high || is <= was || s.breach && is <= there, "online %d -> %d, at most %d", was, is, high)
	s.must(is >= min(low, high) || is >= was, "online %d -> %d, at least %d", was, is, low)
	if top := dynamicPriority(o); s.failing && top >= highest(o, s.now()) && o.Spec.Hold == nil && was <= high {
		s.must(is >= was, "online %d -> %d although data are missing", was, is)
	}
}

func online(p *corev1.Pod) bool {
	return p.Labels[kapacity.PodStateLabel] == "" && p.Status.Phase == corev1.PodRunning
}

// cuts: (d) a pod is cut only while enough others run, as far as the decision could see.
func (s *simulation) cuts(cut *corev1.Pod) {
	if s.profile == nil || !s.current {
		return
	}
	n := int32(0)
	for _, p := range s.pods {
		if online(p) {
			n++
		}
	}
	s.must(n >= s.profile.Spec.OnlineReplicas, "pod %s is cut, %d are left online of %d", cut.Name, n, s.profile.Spec.OnlineReplicas)
}

// scales: /scale only moves towards what the profile asks for.
func (s *simulation) scales(was, is int32) {
	if was == is || s.profile == nil {
		return
	}
	p := s.profile.Spec
	total := p.OnlineReplicas + p.CutoffReplicas + p.StandbyReplicas
	s.say("    /scale %d -> %d for %d", was, is, total)
	s.must(is >= min(was, total) && is <= max(was, total), "/scale %d -> %d, the profile asks for %d", was, is, total)
}

// count notes what the world has come to.
func (s *simulation) count() {
	if s.stored == nil || s.scale == nil {
		return
	}
	is := s.stored.Spec.OnlineReplicas
	if *s.scale == is+s.stored.Spec.CutoffReplicas+s.stored.Spec.StandbyReplicas && (len(s.counts) == 0 || s.counts[len(s.counts)-1].replicas != is) {
		s.counts = append(s.counts, counted{s.now(), is})
	}
}

// paces: (b) never more change in any period than the policies allow, counted from what was carried out when it began.
func (s *simulation) paces(o *kapacity.IntelligentHorizontalPodAutoscaler, was, is int32) {
	if rules := limits(o.Spec.Behavior); rules != s.rules { // what counts has changed
		s.rules, s.counts = rules, []counted{{s.now(), was}}
	}
	now := s.now()
	low, high := boundsAt(o, now)
	low = min(low, high)
	straight := was < low && is <= low || was > high && is >= high
	if was == is || len(s.counts) == 0 || o.Spec.Hold != nil || straight || s.breach && is > was {
		return
	}
	up, down := rulesOf(o.Spec.Behavior)
	rules, sign := up, int64(1)
	if is < was {
		rules, sign = down, -1
	}
	if rules == nil || len(rules.Policies) == 0 {
		return
	}
	allowed := make([]int64, 0, len(rules.Policies))
	for _, p := range rules.Policies {
		start := int64(s.counts[0].replicas)
		for _, c := range s.counts {
			if !c.at.After(now.Add(-p.Period)) {
				start = int64(c.replicas)
			}
		}
		switch {
		case p.Type == "Pods":
			allowed = append(allowed, sign*(start+sign*int64(p.Value)))
		case sign > 0:
			allowed = append(allowed, max(1, int64(math.Ceil(float64(start)*(1+float64(p.Value)/100)))))
		default:
			allowed = append(allowed, -int64(float64(start)*(1-float64(p.Value)/100)))
		}
	}
	best := slices.Max(allowed)
	if rules.SelectPolicy == "Min" {
		best = slices.Min(allowed)
	}
	s.must(sign*int64(is) <= best || sign > 0 && is <= low, "online %d -> %d, the policies allow %d since %v", was, is, sign*best, s.counts)
}

// boundsAt are the bounds of an object by its own words.
func boundsAt(o *kapacity.IntelligentHorizontalPodAutoscaler, now time.Time) (low, high int32) {
	low, high = o.Spec.MinReplicas, o.Spec.MaxReplicas
	for _, b := range o.Spec.ScheduledBounds {
		if within(b.Start, b.End, now) {
			low, high = ptr.Deref(b.MinReplicas, low), ptr.Deref(b.MaxReplicas, high)
		}
	}
	return low, high
}

// within tells whether a window of each hour is open.
func within(start, end kapacity.CronExpression, now time.Time) bool {
	var from, to int
	_, err1 := fmt.Sscanf(string(start), "%d * * * *", &from)
	_, err2 := fmt.Sscanf(string(end), "%d * * * *", &to)
	return err1 == nil && err2 == nil && from <= now.Minute() && now.Minute() < to
}

func dynamicPriority(o *kapacity.IntelligentHorizontalPodAutoscaler) int32 {
	for _, p := range o.Spec.PortraitProviders {
		if p.Dynamic != nil {
			return p.Priority
		}
	}
	return math.MinInt32
}

// highest is the highest priority that has an opinion without asking the generator.
func highest(o *kapacity.IntelligentHorizontalPodAutoscaler, now time.Time) int32 {
	top := int32(math.MinInt32)
	for _, p := range o.Spec.PortraitProviders {
		if p.Static != nil || p.Cron != nil && within(p.Cron.Crons[0].Start, p.Cron.Crons[0].End, now) {
			top = max(top, p.Priority)
		}
	}
	return top
}

// situation is what time alone changes: which windows are open.
func (s *simulation) situation() string {
	o, now := s.w.IHPA(), s.now()
	low, high := boundsAt(o, now)
	situation := fmt.Sprint(s.wanted(), low, high)
	for _, b := range o.Spec.ScheduledBounds {
		situation += fmt.Sprint(within(b.Start, b.End, now))
	}
	for _, p := range o.Spec.PortraitProviders {
		if p.Cron != nil {
			situation += fmt.Sprint(within(p.Cron.Crons[0].Start, p.Cron.Crons[0].End, now))
		}
	}
	return situation
}

// wanted is what the portraits say together, within the bounds.
func (s *simulation) wanted() int32 {
	o, now := s.w.IHPA(), s.now()
	top, replicas := int32(math.MinInt32), int32(0)
	offer := func(priority, n int32) {
		if priority > top || priority == top && n > replicas {
			top, replicas = priority, n
		}
	}
	for _, p := range o.Spec.PortraitProviders {
		switch {
		case p.Static != nil:
			offer(p.Priority, p.Static.Replicas)
		case p.Cron != nil:
			if c := p.Cron.Crons[0]; within(c.Start, c.End, now) {
				offer(p.Priority, c.Replicas)
			}
		default:
			if n, counts := s.said(); counts {
				offer(p.Priority, n)
			}
		}
	}
	low, high := boundsAt(o, now)
	return min(max(replicas, low), high)
}
