package horizontalportrait

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	"github.com/kubetide/kubetide/internal/decision"
	"github.com/kubetide/kubetide/internal/sample"
	"github.com/kubetide/kubetide/portraits/reactive"
	"github.com/kubetide/kubetide/scaler/target"
	"github.com/kubetide/kubetide/scaler/wants"
)

const (
	// patience is how long a metric that was only just asked for, or a new portrait's workload, may be missing before that is a
	// failure. Until then the portrait stays what it is.
	patience = 5 * time.Second
	// podPatience is the same for a source that answers, but has no value yet: pods start.
	podPatience = 30 * time.Second
	// minSyncPeriod bounds how often a portrait is looked at without a reason.
	minSyncPeriod = time.Second
	// minPanicPeriod bounds how often means over windows are looked at: they change all the time.
	minPanicPeriod = 250 * time.Millisecond
	// settling is how long after a change of the replicas the load of the pods is taken to be spread anew.
	settling = time.Second
)

// memory is what is remembered of a portrait from look to look.
type memory struct {
	// panic is what the portrait wanted before.
	panic reactive.PanicState
	// turns has one entry for each metric, or none.
	turns []turns
	// spec is the replica count that was seen last, changed when it became that; zero if it never was another.
	spec    *int32
	changed time.Time
	// grew says that it was fewer before.
	grew bool
}

// notice keeps when the replica count changed.
func (m *memory) notice(spec int32, now time.Time) {
	if m.spec != nil && spec != *m.spec {
		m.changed, m.grew = now, spec > *m.spec
	}
	m.spec = &spec
}

// reactive makes a portrait by the algorithm KubeHPA.
func (r *Reconciler) reactive(ctx context.Context, hp *kapacity.HorizontalPortrait) (time.Time, error) {
	w, changed, err := r.Metrics.See(hp, hp.Spec.ScaleTargetRef, func() (out []autoscalingv2.MetricSpec) {
		for _, m := range hp.Spec.Metrics {
			out = append(out, m.MetricSpec)
		}
		return out
	})
	if err != nil {
		return time.Time{}, err
	}
	if changed {
		w.Memory.turns = nil
	}
	news := w.News
	w.News = nil
	for _, warning := range news {
		r.Recorder.Event(hp, corev1.EventTypeWarning, ReasonSettingIgnored, warning)
	}
	in := look{hp: hp, want: w, settings: settingsOf(hp.Spec.Algorithm.KubeHPA), now: r.Clock.Now()}
	for _, a := range w.Asked {
		answer := sample.Answer{Cause: a.Err}
		if a.Err == nil {
			answer = r.Metrics.Answer(a.Query)
		}
		in.answers = append(in.answers, answer)
	}
	if in.crowd, in.err = r.crowd(ctx, hp, in.settings.PodSelection); in.err == nil {
		w.Memory.notice(in.crowd.spec, in.now)
	}
	in.max = r.limit(ctx, hp)
	if len(w.Memory.panic.Steps) == 0 {
		w.Memory.panic = panicOf(hp.Status.Panic)
	}

	v := in.evaluate()
	w.Memory.panic = v.panic
	if r.Details != nil {
		r.Details.Set(hp.Namespace, hp.Name, v.portrait)
	}
	next := in.now.Add(in.settings.SyncPeriod.Duration)
	if !v.next.IsZero() && v.next.Before(next) {
		next = v.next
	}
	switch {
	case v.err == nil:
		o := succeeded(&kapacity.PortraitData{Type: kapacity.StaticPortraitData, Static: &kapacity.StaticPortrait{Replicas: v.replicas}})
		o.panic, o.shared = panicStatus(v.panic), in.crowd.shared
		if v.note != "" {
			o.message, o.warns = o.message+"; "+v.note, v.partial
		}
		return next, r.write(ctx, hp, o)
	case v.pending.After(in.now):
		if v.pending.Before(next) {
			next = v.pending
		}
		return next, nil
	}
	return next, r.write(ctx, hp, failed(kapacity.ReasonFailedGeneratePortrait, v.err.Error()))
}

// settingsOf fills in the API's defaults. Where the settings are there the API has done so, and 0 means 0.
func settingsOf(k *kapacity.KubeHPAPortraitAlgorithm) kapacity.KubeHPAPortraitAlgorithm {
	s := kapacity.KubeHPAPortraitAlgorithm{CPUInitializationPeriod: kapacity.DefaultCPUInitializationPeriod, InitialReadinessDelay: kapacity.DefaultInitialReadinessDelay}
	if k != nil {
		s = *k
	} else {
		s.Tolerance = resource.MustParse(kapacity.DefaultTolerance)
	}
	if s.SyncPeriod.Duration <= 0 {
		s.SyncPeriod = kapacity.DefaultSyncPeriod
	}
	s.SyncPeriod.Duration = max(s.SyncPeriod.Duration, minSyncPeriod)
	return s
}

// crowd is the workload as the algorithm counts it. Pods that gray scaling holds have no traffic: their numbers would pull the
// mean down, so they are left out, of the pods as well as of the replica counts.
type crowd struct {
	spec, status int32
	pods         []*corev1.Pod
	// left says of a pod's sample that it does not count.
	left func(pod string) bool
	// shared names the other workloads whose pods the selector matches; empty if there are none.
	shared string
}

func (r *Reconciler) crowd(ctx context.Context, hp *kapacity.HorizontalPortrait, selection kapacity.PodSelection) (crowd, error) {
	t, err := target.Resolver{Client: r.Client}.Get(ctx, hp.Namespace, hp.Spec.ScaleTargetRef)
	if err != nil {
		return crowd{}, err
	}
	status, err := r.statusReplicas(ctx, t)
	if err != nil {
		return crowd{}, fmt.Errorf("%s: %w", t.Name(), err)
	}
	alive, held := int32(0), int32(0)
	var c crowd
	counted, heldNames := map[string]bool{}, map[string]bool{}
	for i := range t.Pods {
		p := &t.Pods[i]
		lives := p.DeletionTimestamp == nil && p.Status.Phase != corev1.PodFailed && p.Status.Phase != corev1.PodSucceeded
		if lives {
			alive++
		}
		if isHeld(p) {
			heldNames[p.Name] = true
			if lives {
				held++
			}
			continue
		}
		c.pods, counted[p.Name] = append(c.pods, p), true
	}
	c.spec, c.status = online(t.Replicas, alive, held), online(status, alive, held)
	if selection == kapacity.OwnerPodSelection {
		c.left = func(pod string) bool { return !counted[pod] }
		return c, nil
	}
	c.left = func(pod string) bool { return heldNames[pod] }
	if t.Kind == target.Other {
		return c, nil
	}
	all := &corev1.PodList{}
	if err := r.Client.List(ctx, all, client.InNamespace(hp.Namespace), client.MatchingLabelsSelector{Selector: t.Selector},
		client.UnsafeDisableDeepCopy, client.DisableReadYourWritesConsistency); err != nil {
		return crowd{}, fmt.Errorf("%s: %w: %w", t.Name(), target.ErrListPods, err)
	}
	c.shared = r.shared(ctx, t, all.Items)
	c.pods = c.pods[:0]
	for i := range all.Items {
		if p := &all.Items[i]; isHeld(p) {
			heldNames[p.Name] = true
		} else {
			c.pods = append(c.pods, p)
		}
	}
	return c, nil
}

func isHeld(p *corev1.Pod) bool {
	state := kapacity.PodState(p.Labels[kapacity.PodStateLabel])
	return state == kapacity.PodStateCutoff || state == kapacity.PodStateStandby
}

// online is the part of a replica count that is not held. Where the count was lowered and pods have not gone yet, held ones are
// those that go.
func online(replicas, alive, held int32) int32 {
	return max(replicas-held, min(replicas, alive-held))
}

// statusReplicas is status.replicas of /scale.
func (r *Reconciler) statusReplicas(ctx context.Context, t *target.Target) (int32, error) {
	switch o := t.Object.(type) {
	case *appsv1.Deployment:
		return o.Status.Replicas, nil
	case *appsv1.StatefulSet:
		return o.Status.Replicas, nil
	case *appsv1.ReplicaSet:
		return o.Status.Replicas, nil
	}
	scale := &autoscalingv1.Scale{}
	if err := r.Client.SubResource("scale").Get(ctx, t.Object.DeepCopyObject().(client.Object), scale); err != nil {
		return 0, fmt.Errorf("%w: %w", target.ErrScale, err)
	}
	return scale.Status.Replicas, nil
}

// limit is the maxReplicas of the IHPA that the portrait is for; 0 where there is none.
func (r *Reconciler) limit(ctx context.Context, hp *kapacity.HorizontalPortrait) int32 {
	owner := metav1.GetControllerOfNoCopy(hp)
	if owner == nil || owner.Kind != kapacity.IHPAKind {
		return 0
	}
	o := &kapacity.IntelligentHorizontalPodAutoscaler{}
	if r.Client.Get(ctx, types.NamespacedName{Namespace: hp.Namespace, Name: owner.Name}, o, client.UnsafeDisableDeepCopy) != nil {
		return 0
	}
	return o.Spec.MaxReplicas
}

// look is all that a portrait depends on.
type look struct {
	hp       *kapacity.HorizontalPortrait
	want     *wants.Want[memory]
	settings kapacity.KubeHPAPortraitAlgorithm
	// answers has one entry for each metric.
	answers []sample.Answer
	crowd   crowd
	// err is why there is no crowd.
	err error
	max int32
	now time.Time
}

// verdict is what a portrait says.
type verdict struct {
	// replicas is valid if err is nil.
	replicas int32
	// note tells what is odd beside a valid number; partial says that a metric failed.
	note    string
	partial bool
	err     error
	// panic is what is to be remembered of the windows; next is when they alone lead to something else.
	panic reactive.PanicState
	next  time.Time
	// pending is until when err is only a beginning: answers are about to come. Zero if waiting will not help.
	pending  time.Time
	portrait decision.Portrait
}

// evaluate computes the portrait as the HPA does: the largest proposal of all metrics, and a partial failure never lowers.
func (l *look) evaluate() verdict {
	v := verdict{panic: l.want.Memory.panic, portrait: decision.Portrait{Name: l.hp.Name, Time: l.now}}
	l.decide(&v)
	if v.err != nil {
		v.portrait.Note = v.err.Error()
		return v
	}
	v.portrait.Note = v.note
	l.average(&v)
	v.portrait.Replicas = &v.replicas
	return v
}

func (l *look) decide(v *verdict) {
	if l.err != nil {
		v.err = l.err
		if apierrors.IsNotFound(l.err) {
			v.pending = l.want.Since.Add(patience)
		}
		return
	}
	metrics := l.hp.Spec.Metrics
	if len(metrics) == 0 {
		v.err = errors.New("spec.metrics is empty")
		return
	}
	seesDemand := slices.ContainsFunc(metrics, func(m kapacity.MetricSpec) bool { return !ofPods(m.MetricSpec) })
	if l.crowd.spec == 0 && !seesDemand {
		// Without pods there is nothing to measure. The last portrait is as good as any; it may well be asked for again when
		// whoever wants 0 wants it no longer.
		v.replicas, v.note = 1, "the target has no replicas, and only Object and External metrics can see demand without pods"
		if d := l.hp.Status.PortraitData; d != nil && d.Static != nil {
			v.replicas = max(1, d.Static.Replicas)
		}
		return
	}
	var proposals []reactive.Proposal
	var waits []time.Time
	for i, m := range metrics {
		d := l.detail(i)
		if l.crowd.spec == 0 && ofPods(m.MetricSpec) {
			d.Reason = "the target has no replicas, so there is no pod to measure"
		} else {
			p, wait := l.propose(i, &d)
			proposals = append(proposals, p)
			waits = append(waits, wait)
		}
		v.portrait.Details = append(v.portrait.Details, d)
	}
	out := reactive.Desired(proposals, l.crowd.spec)
	v.replicas = out.Replicas
	if !seesDemand {
		v.replicas = max(1, v.replicas) // nothing could bring it back
	}
	waiting := time.Time{} // until the last one may come
	for i, p := range proposals {
		if p.Err == nil {
			continue
		}
		if !waits[i].After(l.now) { // this one has failed, whatever comes of the others
			waiting = time.Time{}
			break
		}
		if waits[i].After(waiting) {
			waiting = waits[i]
		}
	}
	switch {
	case out.Held:
		v.err, v.pending = out.Err, waiting
	case out.Err != nil && waiting.IsZero():
		v.note, v.partial = out.Err.Error(), true
	}
}

// average puts the means over the panic window in the place of the number. What was wanted before anybody remembers is what the
// status says, so that a restart lowers nothing at once.
func (l *look) average(v *verdict) {
	w := l.settings.PanicWindow
	if w == nil {
		v.panic = reactive.PanicState{}
		return
	}
	p := reactive.Panic{StableWindow: time.Duration(w.StableSeconds) * time.Second, WindowPercent: w.WindowPercent, ThresholdPercent: w.ThresholdPercent}
	if p.StableWindow <= 0 {
		p.StableWindow = time.Minute
	}
	p.WindowPercent, p.ThresholdPercent = cmp.Or(p.WindowPercent, 10), cmp.Or(p.ThresholdPercent, 200)
	if d := l.hp.Status.PortraitData; len(v.panic.Steps) == 0 && d != nil && d.Static != nil {
		v.panic.Steps = []reactive.PanicStep{{At: l.now.Add(-p.StableWindow), Replicas: d.Static.Replicas}}
	}
	proposal := v.replicas
	var reason string
	v.panic, v.replicas, reason, v.next = p.Decide(v.panic, proposal, l.crowd.spec, l.now)
	v.portrait.Note = strings.TrimPrefix(fmt.Sprintf("%s; %d now, %d by %s", v.portrait.Note, proposal, v.replicas, reason), "; ")
	if earliest := l.now.Add(minPanicPeriod); !v.next.IsZero() && v.next.Before(earliest) {
		v.next = earliest
	}
}

// propose asks one metric. wait is until when its failure is only a beginning.
func (l *look) propose(i int, d *decision.Detail) (p reactive.Proposal, wait time.Time) {
	spec, a := l.hp.Spec.Metrics[i].MetricSpec, l.answers[i]
	if err := l.want.Asked[i].Err; err != nil {
		d.Reason = err.Error()
		return reactive.Proposal{Err: err}, wait
	}
	if a.State != sample.Fresh {
		if a.Cause == nil {
			a.Cause = errors.New("there is no value")
		}
		if a.State == sample.Missing {
			wait = l.want.SinceOf(l.want.Asked[i].Query).Add(patience)
			if errors.Is(a.Cause, sample.ErrNoData) {
				wait = wait.Add(podPatience - patience)
			}
		}
		d.Reason = a.Cause.Error()
		return reactive.Proposal{Err: fmt.Errorf("%s: %w", d.Metric, a.Cause)}, wait
	}
	in := reactive.Inputs{
		Metric: spec, Namespace: l.hp.Namespace, SpecReplicas: l.crowd.spec, StatusReplicas: l.crowd.status, Now: l.now,
		Tolerance:               tolerance(l.settings),
		CPUInitializationPeriod: l.settings.CPUInitializationPeriod.Duration, InitialReadinessDelay: l.settings.InitialReadinessDelay.Duration,
		Options: reactive.Options{UnreadyOverload: l.settings.ScaleOutWhenAllUnready, HoldOnMissing: l.settings.HoldOnMissingMetrics, Saturate: true},
		Pods:    reactive.PodsFor(spec, l.crowd.pods),
	}
	if ofPods(spec) {
		in.Samples = make(map[string]reactive.Sample, len(a.Points))
		for _, point := range a.Points {
			if !l.crowd.left(point.Pod) {
				// Sources give whole seconds, and the age was taken a moment after the collection began.
				taken := a.Taken.Add(-point.Age).Round(time.Second)
				in.Samples[point.Pod] = reactive.Sample{Milli: point.Milli, Time: taken, Window: point.Window}
			}
		}
	} else {
		for _, point := range a.Points {
			in.Values = append(in.Values, point.Milli)
		}
	}
	p = reactive.Propose(in)
	if p.Err != nil {
		d.Reason = p.Err.Error()
		p.Err = fmt.Errorf("%s: %w", d.Metric, p.Err)
		return p, wait
	}
	if l.unsettled(spec, a, p.Replicas) {
		p.Replicas = l.crowd.spec
		p.Reason += "; measured before the replicas changed, so they change no further that way"
	}
	d.Replicas, d.Reason, d.Value = &p.Replicas, p.Reason, valueOf(p.Current(spec))
	t := l.turns(i, in, p)
	d.ScaleUpAbove, d.ScaleDownBelow, d.AtMaxAbove = t.up, t.down, t.max
	return p, wait
}

// unsettled says that the answer would change the replicas further in the direction of their last change, and was measured
// before that change can have had an effect. What each of many pods had to do, times the few that are left, is less than there
// is to do; a value that is to become smaller with more pods has not yet had the time. Pods that were added are another matter:
// the algorithm takes those without a sample for idle.
func (l *look) unsettled(m autoscalingv2.MetricSpec, a sample.Answer, replicas int32) bool {
	c := l.want.Memory
	down := !c.grew && replicas < l.crowd.spec && !shares(m)
	up := c.grew && replicas > l.crowd.spec && !shares(m) && !ofPods(m)
	if c.changed.IsZero() || !down && !up {
		return false
	}
	began := a.Taken
	for _, p := range a.Points {
		if t := a.Taken.Add(-p.Age - p.Window); t.Before(began) {
			began = t
		}
	}
	return began.Before(c.changed.Add(settling))
}

// shares says whether the target is a share of the whole for each replica: the number of replicas then has no part in the result.
func shares(m autoscalingv2.MetricSpec) bool {
	return m.Object != nil && m.Object.Target.AverageValue != nil || m.External != nil && m.External.Target.AverageValue != nil
}

// turns is where a metric's count turns, in print. To find out costs more than all the rest of an evaluation, so it is looked for
// again only when the pods are others, by their numbers.
type turns struct {
	of            turnsOf
	up, down, max string
}

type turnsOf struct {
	known                                                   bool
	spec, status, max                                       int32
	ready, unready, missing, ignored, unknown, measuredPods int
}

func (l *look) turns(i int, in reactive.Inputs, p reactive.Proposal) turns {
	of := turnsOf{true, in.SpecReplicas, in.StatusReplicas, l.max, p.Ready, p.Unready, p.Missing, p.Ignored, p.Unknown, len(in.Samples)}
	if l.want.Memory.turns == nil {
		l.want.Memory.turns = make([]turns, len(l.want.Asked))
	}
	t := &l.want.Memory.turns[i]
	if t.of == of {
		return *t
	}
	*t = turns{of: of}
	if levels, err := reactive.Thresholds(in, l.max); err == nil {
		t.up, t.down = level(in.Metric, levels.Up, -1), level(in.Metric, levels.Down, 1)
		if l.max > 0 {
			t.max = level(in.Metric, levels.Max, -1)
		}
	}
	return *t
}

// level prints the value beside a threshold: the first that asks for more is above it, the last that asks for fewer below.
func level(m autoscalingv2.MetricSpec, v *int64, beside int64) string {
	if v == nil {
		return ""
	}
	if m.Type == autoscalingv2.ResourceMetricSourceType && m.Resource.Target.AverageValue == nil ||
		m.Type == autoscalingv2.ContainerResourceMetricSourceType && m.ContainerResource.Target.AverageValue == nil {
		return fmt.Sprintf("%d%%", *v+beside)
	}
	format := resource.DecimalSI
	if m.Resource != nil && m.Resource.Name == corev1.ResourceMemory || m.ContainerResource != nil && m.ContainerResource.Name == corev1.ResourceMemory {
		format = resource.BinarySI
	}
	return resource.NewMilliQuantity(*v+beside, format).String()
}

func tolerance(s kapacity.KubeHPAPortraitAlgorithm) reactive.Tolerance {
	both := s.Tolerance.AsApproximateFloat64()
	t := reactive.Tolerance{Up: both, Down: both}
	if s.ScaleUpTolerance != nil {
		t.Up = s.ScaleUpTolerance.AsApproximateFloat64()
	}
	if s.ScaleDownTolerance != nil {
		t.Down = s.ScaleDownTolerance.AsApproximateFloat64()
	}
	return t
}

// ofPods says whether pods are measured, and not something that is there without them.
func ofPods(m autoscalingv2.MetricSpec) bool {
	return m.Type != autoscalingv2.ObjectMetricSourceType && m.Type != autoscalingv2.ExternalMetricSourceType
}

// detail begins what there is to say of a metric.
func (l *look) detail(i int) decision.Detail {
	m, a := l.hp.Spec.Metrics[i].MetricSpec, l.answers[i]
	d := decision.Detail{Metric: label(m), Source: l.want.Asked[i].Query.Collector, Target: targetOf(m), State: a.State.String()}
	if !a.Taken.IsZero() {
		d.Age = max(0, l.now.Sub(a.Taken))
	}
	if a.Instead.Serves() {
		d.State += " (fallback)"
	}
	return d
}

// label names the metric as messages do.
func label(m autoscalingv2.MetricSpec) string {
	switch {
	case m.Resource != nil:
		return string(m.Resource.Name)
	case m.ContainerResource != nil:
		return fmt.Sprintf("%s of container %s", m.ContainerResource.Name, m.ContainerResource.Container)
	case m.Pods != nil:
		return fmt.Sprintf("%s metric %q", m.Type, m.Pods.Metric.Name)
	case m.Object != nil:
		return fmt.Sprintf("%s metric %q of %s/%s", m.Type, m.Object.Metric.Name, m.Object.DescribedObject.Kind, m.Object.DescribedObject.Name)
	case m.External != nil:
		return fmt.Sprintf("%s metric %q", m.Type, m.External.Metric.Name)
	}
	return strings.TrimSpace(string(m.Type) + " metric")
}

func targetOf(m autoscalingv2.MetricSpec) string {
	switch {
	case m.Resource != nil:
		return printTarget(m.Resource.Target)
	case m.ContainerResource != nil:
		return printTarget(m.ContainerResource.Target)
	case m.Pods != nil:
		return printTarget(m.Pods.Target)
	case m.Object != nil:
		return printTarget(m.Object.Target)
	case m.External != nil:
		return printTarget(m.External.Target)
	}
	return ""
}

func printTarget(t autoscalingv2.MetricTarget) string {
	return valueOf(autoscalingv2.MetricValueStatus{AverageUtilization: t.AverageUtilization, AverageValue: t.AverageValue, Value: t.Value})
}

func valueOf(v autoscalingv2.MetricValueStatus) string {
	switch {
	case v.AverageUtilization != nil:
		return fmt.Sprintf("%d%%", *v.AverageUtilization)
	case v.AverageValue != nil:
		return v.AverageValue.String()
	case v.Value != nil:
		return v.Value.String()
	}
	return ""
}
