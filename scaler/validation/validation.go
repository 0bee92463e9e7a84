// Package validation says what is wrong with an IntelligentHorizontalPodAutoscaler, a HorizontalPortrait or a ReplicaProfile before
// it is stored: what the rules of the CRDs cannot find out, with the field and what to write instead. It is pure; the objects around come in
// as facts. A mistake is an error only where the controllers could not use the field either; what they can use, but hardly as it was
// meant, is a warning.
package validation

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	zalando "github.com/kubetide/kubetide/api/zalando/v1"
	"github.com/kubetide/kubetide/internal/sample"
	"github.com/kubetide/kubetide/internal/window"
	"github.com/kubetide/kubetide/portraits/schedule"
	"github.com/kubetide/kubetide/scaler/bounds"
)

// Bounds of what one object may cost and of what is said about it. The API server shows 4 KiB of warnings.
const (
	maxErrors     = 64
	maxWarnings   = 15
	maxWarning    = 250
	maxShown      = 100
	maxBoundaries = 2048
)

// Around is what the cluster has around the object.
type Around struct {
	Now time.Time
	// Others are the autoscalers, or profiles, that have the same target and go first, as messages print them.
	Others []string
	// Unknown is why the target's kind cannot be scaled; empty if it can, or nobody knows.
	Unknown string
	// Queries reads the settings of metrics; nil leaves them unread.
	Queries func(o metav1.Object, target autoscalingv2.CrossVersionObjectReference, metrics []autoscalingv2.MetricSpec) []sample.Asked
	// NoJobs says that there is no namespace for the jobs of external algorithms.
	NoJobs bool
}

// findings collects what is wrong, up to a bound.
type findings struct {
	Around
	object   metav1.Object
	errs     field.ErrorList
	warnings []string
	left     int
	// boundaries is how many more boundaries of windows may be looked at.
	boundaries int
}

func (a Around) findings(o metav1.Object) *findings {
	return &findings{Around: a, object: o, boundaries: maxBoundaries}
}

func (f *findings) add(err *field.Error) {
	if len(f.errs) == maxErrors {
		f.left++
		return
	}
	if text, ok := err.BadValue.(string); ok {
		err.BadValue = cut(text, maxShown)
	}
	f.errs = append(f.errs, err)
}

func (f *findings) invalid(path *field.Path, value any, format string, args ...any) {
	f.add(field.Invalid(path, value, fmt.Sprintf(format, args...)))
}

func (f *findings) required(path *field.Path, format string, args ...any) {
	f.add(field.Required(path, fmt.Sprintf(format, args...)))
}

func (f *findings) warn(path *field.Path, format string, args ...any) {
	text := cut(fmt.Sprintf(format, args...), 4*maxWarning)
	if path != nil {
		text = path.String() + ": " + text
	}
	text = cut(text, maxWarning)
	if !slices.Contains(f.warnings, text) {
		f.warnings = append(f.warnings, text)
	}
}

func (f *findings) result() (field.ErrorList, []string) {
	if f.left > 0 {
		f.errs = append(f.errs, field.TooMany(field.NewPath("spec"), maxErrors+f.left, maxErrors))
	}
	return f.errs, bounded(f.warnings)
}

func bounded(warnings []string) []string {
	if n := len(warnings); n > maxWarnings {
		return append(slices.Clone(warnings[:maxWarnings-1]), fmt.Sprintf("and %d more", n-maxWarnings+1))
	}
	return warnings
}

// cut keeps valid UTF-8 of at most so many bytes, without signs that would make a line of their own.
func cut(text string, most int) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most-3], "") + "..."
}

// IHPA validates the spec, and with a.Queries the annotations of its metrics.
func IHPA(o *kapacity.IntelligentHorizontalPodAutoscaler, a Around) (field.ErrorList, []string) {
	f, path := a.findings(o), field.NewPath("spec")
	f.target(path.Child("scaleTargetRef"), o.Spec.ScaleTargetRef)
	f.replicas(path.Child("minReplicas"), o.Spec.MinReplicas)
	f.replicas(path.Child("maxReplicas"), o.Spec.MaxReplicas)
	if o.Spec.MaxReplicas < o.Spec.MinReplicas {
		f.invalid(path.Child("maxReplicas"), o.Spec.MaxReplicas, "must not be less than minReplicas, which is %d", o.Spec.MinReplicas)
	}
	if o.Spec.ScaleMode != kapacity.ScaleModePreview && len(f.Others) > 0 {
		f.warn(nil, "%s scales %s %s, too: this one stands down until it is gone", strings.Join(f.Others, ", "), cut(o.Spec.ScaleTargetRef.Kind, 63), cut(o.Spec.ScaleTargetRef.Name, 63))
	}
	f.providers(path.Child("portraitProviders"), o)
	f.scheduledBounds(path.Child("scheduledBounds"), o)
	f.behavior(path.Child("behavior"), o)
	f.stabilityCheckers(path.Child("stabilityCheckers"), o)
	f.hold(path.Child("hold"), o)
	return f.result()
}

// HorizontalPortrait validates the spec, and with a.Queries the annotations of its metrics.
func HorizontalPortrait(o *kapacity.HorizontalPortrait, a Around) (field.ErrorList, []string) {
	f, path := a.findings(o), field.NewPath("spec")
	f.target(path.Child("scaleTargetRef"), o.Spec.ScaleTargetRef)
	f.portrait(path, o.Spec.ScaleTargetRef, o.Spec.PortraitSpec)
	return f.result()
}

// ReplicaProfile validates the spec.
func ReplicaProfile(o *kapacity.ReplicaProfile, a Around) (field.ErrorList, []string) {
	f, path := a.findings(o), field.NewPath("spec")
	f.target(path.Child("scaleTargetRef"), o.Spec.ScaleTargetRef)
	f.replicas(path.Child("onlineReplicas"), o.Spec.OnlineReplicas)
	f.replicas(path.Child("cutoffReplicas"), o.Spec.CutoffReplicas)
	f.replicas(path.Child("standbyReplicas"), o.Spec.StandbyReplicas)
	if len(f.Others) > 0 {
		f.warn(nil, "%s has %s %s, too: this one waits until it is gone", strings.Join(f.Others, ", "), cut(o.Spec.ScaleTargetRef.Kind, 63), cut(o.Spec.ScaleTargetRef.Name, 63))
	}
	if o.Spec.CutoffReplicas > 0 || o.Spec.StandbyReplicas > 0 {
		f.replicaProfile(path.Child("behavior"), o.Spec.Behavior)
	}
	return f.result()
}

func (f *findings) replicas(path *field.Path, n int32) {
	if n < 0 {
		f.invalid(path, n, "must not be below 0")
	}
}

func (f *findings) target(path *field.Path, ref autoscalingv2.CrossVersionObjectReference) {
	if ref.Kind == "" {
		f.required(path.Child("kind"), "name the kind of the workload, for example Deployment")
	}
	if ref.Name == "" {
		f.required(path.Child("name"), "name the workload")
	} else if len(validation.IsDNS1123Subdomain(ref.Name)) > 0 {
		f.invalid(path.Child("name"), ref.Name, "is no name of an object: lower case letters, digits, - and . only")
	}
	if _, err := schema.ParseGroupVersion(ref.APIVersion); err != nil {
		f.invalid(path.Child("apiVersion"), ref.APIVersion, "must be a group and a version, for example apps/v1")
	}
	if f.Unknown != "" {
		f.warn(path, "%s", f.Unknown)
	}
}

func (f *findings) providers(path *field.Path, o *kapacity.IntelligentHorizontalPodAutoscaler) {
	list := o.Spec.PortraitProviders
	if len(list) == 0 {
		f.warn(path, "is empty: nothing is scaled")
	}
	types := map[string]int{}
	for i, p := range list {
		at := path.Index(i)
		for _, part := range []struct {
			kind kapacity.HorizontalPortraitProviderType
			name string
			set  bool
		}{{kapacity.StaticProvider, "static", p.Static != nil}, {kapacity.CronProvider, "cron", p.Cron != nil},
			{kapacity.DynamicProvider, "dynamic", p.Dynamic != nil}, {kapacity.ScheduleProvider, "schedule", p.Schedule != nil}} {
			switch {
			case p.Type == part.kind && !part.set:
				f.required(at.Child(part.name), "the type is %s: write its settings here", p.Type)
			case p.Type != part.kind && part.set:
				f.add(field.Forbidden(at.Child(part.name), fmt.Sprintf("the type is %s: take this away, or change the type to %s", cut(string(p.Type), maxShown), part.kind)))
			}
		}
		switch {
		case p.Type == kapacity.StaticProvider && p.Static != nil:
			f.static(at.Child("static", "replicas"), p.Static.Replicas, o)
		case p.Type == kapacity.CronProvider && p.Cron != nil:
			f.crons(at.Child("cron", "crons"), p.Cron.Crons)
		case p.Type == kapacity.DynamicProvider && p.Dynamic != nil:
			key := strings.ToLower(string(p.Dynamic.PortraitType))
			if before, taken := types[key]; taken {
				f.add(field.Duplicate(at.Child("dynamic", "portraitType"), cut(string(p.Dynamic.PortraitType), maxShown)+
					fmt.Sprintf(" (of portraitProviders[%d]; upper and lower case are the same)", before)))
			} else {
				types[key] = i
			}
			if name := strings.ToLower(o.Name + "-" + key); o.Name != "" && len(validation.IsDNS1123Subdomain(name)) > 0 {
				f.invalid(at.Child("dynamic", "portraitType"), string(p.Dynamic.PortraitType),
					"the HorizontalPortrait would have the name %q, which is none: letters, digits and - only, 253 characters with the IHPA's name", cut(name, maxShown))
			}
			f.portrait(at.Child("dynamic"), o.Spec.ScaleTargetRef, p.Dynamic.PortraitSpec)
		case p.Type == kapacity.ScheduleProvider && p.Schedule != nil:
			f.schedule(at.Child("schedule"), *p.Schedule)
		case p.Type != kapacity.StaticProvider && p.Type != kapacity.CronProvider && p.Type != kapacity.DynamicProvider && p.Type != kapacity.ScheduleProvider:
			f.add(field.NotSupported(at.Child("type"), kapacity.HorizontalPortraitProviderType(cut(string(p.Type), maxShown)),
				[]kapacity.HorizontalPortraitProviderType{kapacity.StaticProvider, kapacity.CronProvider, kapacity.DynamicProvider, kapacity.ScheduleProvider}))
		}
	}
	f.unheard(path, list)
}

// unheard names the providers that can never count, because a Static one always has an opinion.
func (f *findings) unheard(path *field.Path, list []kapacity.HorizontalPortraitProvider) {
	best := -1
	for i, p := range list {
		if p.Type != kapacity.StaticProvider || p.Static == nil {
			continue
		}
		if best < 0 || p.Priority > list[best].Priority || p.Priority == list[best].Priority && p.Static.Replicas > list[best].Static.Replicas {
			best = i
		}
	}
	if best < 0 {
		return
	}
	for i, p := range list {
		same := p.Priority == list[best].Priority && p.Type == kapacity.StaticProvider
		if i != best && (p.Priority < list[best].Priority || same) {
			f.warn(path.Index(i), "never counts: portraitProviders[%d] is Static, so it always asks for %d replicas, with priority %d against %d",
				best, list[best].Static.Replicas, list[best].Priority, p.Priority)
		}
	}
}

func (f *findings) static(path *field.Path, n int32, o *kapacity.IntelligentHorizontalPodAutoscaler) {
	f.replicas(path, n)
	if n >= 0 && len(o.Spec.ScheduledBounds) == 0 && (n < o.Spec.MinReplicas || n > o.Spec.MaxReplicas) {
		f.warn(path, "%d is outside minReplicas %d and maxReplicas %d: the bound holds", n, o.Spec.MinReplicas, o.Spec.MaxReplicas)
	}
}

func (f *findings) crons(path *field.Path, list []kapacity.ReplicaCron) {
	if len(list) == 0 {
		f.required(path, "write at least one window, or take the provider away")
	}
	seen := map[string]bool{}
	for i, c := range list {
		at := path.Index(i)
		f.name(at.Child("name"), c.Name, seen)
		f.replicas(at.Child("replicas"), c.Replicas)
		f.window(at, string(c.Start), string(c.End), c.TimeZone)
	}
}

func (f *findings) name(path *field.Path, name string, seen map[string]bool) {
	if seen[name] {
		f.add(field.Duplicate(path, cut(name, maxShown)))
	}
	seen[name] = true
}

// window reports each mistake of a window, not the first only, and warns of one that does not open.
func (f *findings) window(path *field.Path, start, end, zone string) {
	rule, err := window.ParseRule(start, end, zone)
	if err == nil {
		f.opens(path, rule, start == end)
		return
	}
	if _, err := window.ParseRule("@daily", "@hourly", zone); err != nil {
		f.windowError(path, zone, err, "")
	}
	const five = "write minute, hour, day of the month, month, day of the week, for example 0 9 * * 1-5"
	if _, err := window.ParseRule(start, "@hourly", ""); err != nil {
		f.windowError(path, start, err, five)
	}
	if _, err := window.ParseRule("@hourly", end, ""); err != nil {
		f.windowError(path, end, err, five)
	}
}

func (f *findings) windowError(path *field.Path, value string, err error, then string) {
	at := path
	var rule *window.RuleError
	if errors.As(err, &rule) {
		at, err = path.Child(rule.Field), rule.Err
	}
	switch {
	case errors.Is(err, window.ErrNeverFires):
		then = "name a day that the month has"
	case errors.Is(err, window.ErrInvalidZone):
		then = "write an IANA name such as Europe/Berlin, or UTC"
	}
	f.invalid(at, value, "%s: %s", cut(err.Error(), 2*maxWarning), then)
}

// opens warns of a window that none of its next boundaries opens.
func (f *findings) opens(path *field.Path, rule window.Rule, same bool) {
	if same {
		f.warn(path, "never opens: start and end are the same")
		return
	}
	const looks = 64
	at := f.Now
	for range looks {
		if f.boundaries--; f.boundaries < 0 {
			return
		}
		if open, _ := rule.Active(at); open {
			return
		}
		at = rule.Next(at)
	}
	f.warn(path, "none of its next %d boundaries opens it: a window is open when its next end comes before its next start", looks)
}

func (f *findings) schedule(path *field.Path, p kapacity.ScheduleHorizontalPortraitProvider) {
	if p.Name == "" {
		f.required(path.Child("name"), "name the schedule")
	}
	if kind := schedule.Kind(p); kind != zalando.ScalingScheduleKind && kind != zalando.ClusterScalingScheduleKind {
		f.add(field.NotSupported(path.Child("kind"), cut(kind, maxShown), []string{zalando.ScalingScheduleKind, zalando.ClusterScalingScheduleKind}))
	}
	f.above(path.Child("averageValue"), p.AverageValue)
}

// above holds a quantity to what the arithmetic in thousandths can use.
func (f *findings) above(path *field.Path, q *resource.Quantity) {
	if q == nil {
		return
	}
	most := resource.NewQuantity(9_200_000_000_000_000, resource.DecimalSI)
	switch {
	case q.Sign() <= 0:
		f.invalid(path, q.String(), "must be above 0")
	case q.Cmp(*resource.NewMilliQuantity(1, resource.DecimalSI)) < 0:
		f.invalid(path, q.String(), "is less than a thousandth, which no sample can tell: ask for a thousand times the value")
	case q.Cmp(*most) > 0:
		f.invalid(path, q.String(), "must not be above %s", most)
	}
}

func (f *findings) scheduledBounds(path *field.Path, o *kapacity.IntelligentHorizontalPodAutoscaler) {
	seen := map[string]bool{}
	var usable []kapacity.ScheduledBounds
	for i, w := range o.Spec.ScheduledBounds {
		at, before := path.Index(i), len(f.errs)+f.left
		if w.Name == "" {
			f.required(at.Child("name"), "name the window: messages call it so")
		}
		f.name(at.Child("name"), w.Name, seen)
		switch {
		case w.MinReplicas == nil && w.MaxReplicas == nil:
			f.required(at.Child("minReplicas"), "set minReplicas, maxReplicas or both, or take the window away")
		case w.MinReplicas != nil && w.MaxReplicas != nil && *w.MinReplicas > *w.MaxReplicas:
			f.invalid(at.Child("maxReplicas"), *w.MaxReplicas, "must not be less than the window's minReplicas, which is %d", *w.MinReplicas)
		}
		if w.MinReplicas != nil {
			f.replicas(at.Child("minReplicas"), *w.MinReplicas)
		}
		if w.MaxReplicas != nil {
			f.replicas(at.Child("maxReplicas"), *w.MaxReplicas)
		}
		f.window(at, string(w.Start), string(w.End), w.TimeZone)
		if len(f.errs)+f.left == before {
			usable = append(usable, w)
		}
	}
	f.contradictions(path, o, usable)
}

// contradictions looks at the next boundaries for lower bounds above the upper ones.
func (f *findings) contradictions(path *field.Path, o *kapacity.IntelligentHorizontalPodAutoscaler, usable []kapacity.ScheduledBounds) {
	at := f.Now
	told := map[string]bool{}
	for range 64 {
		if f.boundaries -= len(usable); f.boundaries < 0 || len(usable) == 0 {
			return
		}
		d := bounds.Decide(o.Spec.MinReplicas, o.Spec.MaxReplicas, usable, at)
		for _, w := range d.Warnings {
			if !told[w] {
				told[w] = true
				f.warn(path, "from %s on %s: raise the one or lower the other", at.UTC().Format(time.RFC3339), w)
			}
		}
		if at = d.Next; at.IsZero() {
			return
		}
	}
}

func (f *findings) hold(path *field.Path, o *kapacity.IntelligentHorizontalPodAutoscaler) {
	h := o.Spec.Hold
	if h == nil {
		return
	}
	if h.Until != nil && !h.Until.After(f.Now) {
		f.warn(path.Child("until"), "%s is over: the hold does nothing", h.Until.UTC().Format(time.RFC3339))
	}
	if h.Replicas == nil {
		return
	}
	f.replicas(path.Child("replicas"), *h.Replicas)
	if n := *h.Replicas; n >= 0 && len(o.Spec.ScheduledBounds) == 0 && (n < o.Spec.MinReplicas || n > o.Spec.MaxReplicas) {
		f.warn(path.Child("replicas"), "%d is outside minReplicas %d and maxReplicas %d: a hold is within the bounds", n, o.Spec.MinReplicas, o.Spec.MaxReplicas)
	}
}

// Warnings are errors as warnings, before the others; as many and as long as the API server shows.
func Warnings(errs field.ErrorList, warnings []string) []string {
	var all []string
	for _, e := range errs {
		all = append(all, cut(e.Error(), maxWarning))
	}
	for _, w := range warnings {
		if w = cut(w, maxWarning); !slices.Contains(all, w) {
			all = append(all, w)
		}
	}
	return bounded(all)
}
