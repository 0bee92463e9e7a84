package ihpa

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	zalando "github.com/kubetide/kubetide/api/zalando/v1"
	"github.com/kubetide/kubetide/portraits"
	"github.com/kubetide/kubetide/portraits/cron"
	"github.com/kubetide/kubetide/portraits/schedule"
	"github.com/kubetide/kubetide/portraits/static"
	"github.com/kubetide/kubetide/scaler/merge"
)

// candidates asks every provider. What is wrong with one is its own failure and no other's.
func (r *Reconciler) candidates(ctx context.Context, o *kapacity.IntelligentHorizontalPodAutoscaler, kept map[string]keptPortrait, now time.Time) []merge.Candidate {
	out := make([]merge.Candidate, len(o.Spec.PortraitProviders))
	for i, p := range o.Spec.PortraitProviders {
		out[i] = merge.Candidate{Provider: providerID(p), Priority: p.Priority}
		out[i].Opinion = evaluate(func() portraits.Portrait { return r.portrait(ctx, o, p, kept) }, now)
	}
	return out
}

// evaluate turns a panic into a failure: a stored object may hold anything.
func evaluate(portrait func() portraits.Portrait, now time.Time) (o portraits.Opinion) {
	defer func() {
		if p := recover(); p != nil {
			o = portraits.Opinion{Err: fmt.Errorf("panic: %v", p)}
		}
	}()
	return portrait().Evaluate(now)
}

func providerID(p kapacity.HorizontalPortraitProvider) string {
	switch {
	case p.Type == kapacity.ScheduleProvider && p.Schedule != nil:
		return kapacity.ScheduleProviderIDPrefix + p.Schedule.Name
	case p.Type != kapacity.DynamicProvider:
		return string(p.Type)
	}
	if p.Dynamic == nil {
		return strings.TrimSuffix(kapacity.DynamicProviderIDPrefix, "-")
	}
	return kapacity.DynamicProviderIDPrefix + string(p.Dynamic.PortraitType)
}

// failing is a portrait that only ever says what is wrong.
type failing struct{ err error }

func (f failing) Evaluate(time.Time) portraits.Opinion { return portraits.Opinion{Err: f.err} }

func (r *Reconciler) portrait(ctx context.Context, o *kapacity.IntelligentHorizontalPodAutoscaler, p kapacity.HorizontalPortraitProvider, kept map[string]keptPortrait) portraits.Portrait {
	missing := func(field string) portraits.Portrait {
		return failing{fmt.Errorf("type is %s, but %s is missing", p.Type, field)}
	}
	switch p.Type {
	case kapacity.StaticProvider:
		if p.Static == nil {
			return missing("static")
		}
		return static.Portrait(p.Static.Replicas)
	case kapacity.CronProvider:
		if p.Cron == nil {
			return missing("cron")
		}
		return cron.New(p.Cron.Crons)
	case kapacity.DynamicProvider:
		if p.Dynamic == nil {
			return missing("dynamic")
		}
		return dynamic(kept[portraitName(o.Name, p.Dynamic.PortraitType)])
	case kapacity.ScheduleProvider:
		if p.Schedule == nil {
			return missing("schedule")
		}
		spec, err := r.schedule(ctx, o.Namespace, *p.Schedule)
		if err != nil {
			return failing{err}
		}
		return schedule.New(*p.Schedule, spec, r.Schedules)
	}
	return failing{fmt.Errorf("unknown type %q", p.Type)}
}

// schedule reads what the provider names; nil if it does not exist.
func (r *Reconciler) schedule(ctx context.Context, namespace string, p kapacity.ScheduleHorizontalPortraitProvider) (*zalando.ScalingScheduleSpec, error) {
	var err error
	var spec *zalando.ScalingScheduleSpec
	if schedule.Kind(p) == zalando.ClusterScalingScheduleKind {
		s := &zalando.ClusterScalingSchedule{}
		err = r.Client.Get(ctx, client.ObjectKey{Name: p.Name}, s, client.DisableReadYourWritesConsistency)
		spec = &s.Spec
	} else {
		s := &zalando.ScalingSchedule{}
		err = r.Client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: p.Name}, s, client.DisableReadYourWritesConsistency)
		spec = &s.Spec
	}
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("%s %s: %w", schedule.Kind(p), p.Name, err)
	}
	return spec, nil
}

// portraitName is the name of the HorizontalPortrait that a Dynamic provider reads.
func portraitName(ihpa string, t kapacity.PortraitType) string {
	return strings.ToLower(ihpa + "-" + string(t))
}

// dynamic is what the HorizontalPortrait says; who writes it is not asked.
func dynamic(k keptPortrait) portraits.Portrait {
	if k.err != nil {
		return failing{k.err}
	}
	f := found{data: k.hp.Status.PortraitData, name: k.hp.Namespace + "/" + k.hp.Name, failed: generated(k.hp)}
	if c := meta.FindStatusCondition(k.hp.Status.Conditions, kapacity.ConditionSelectorShared); c != nil && c.Status == metav1.ConditionTrue {
		f.warning = c.Message
	}
	return f
}

// found is the portrait in a HorizontalPortrait's status.
type found struct {
	data *kapacity.PortraitData
	name string
	// failed is why it could not be made anew.
	failed error
	// warning is what the user should mend though it was made.
	warning string
}

// Evaluate implements portraits.Portrait. Replicas of 0 are as good as any other number.
func (f found) Evaluate(now time.Time) portraits.Opinion {
	o := f.read(now)
	if f.warning != "" {
		o.Warnings = append(o.Warnings, f.warning)
	}
	if f.failed != nil {
		o.Err = errors.Join(o.Err, fmt.Errorf("HorizontalPortrait %s: %w", f.name, f.failed))
	}
	return o
}

func (f found) read(now time.Time) portraits.Opinion {
	if f.data == nil {
		return portraits.Opinion{Reason: "HorizontalPortrait " + f.name + " has no data yet"}
	}
	var expires time.Time
	if f.data.ExpireTime != nil {
		expires = f.data.ExpireTime.Time
	}
	if !expires.IsZero() && !now.Before(expires) {
		return portraits.Opinion{Reason: fmt.Sprintf("HorizontalPortrait %s expired at %s", f.name, expires.UTC().Format(time.RFC3339))}
	}
	o := f.evaluate(now)
	if !expires.IsZero() && o.HasValue && (o.Expires.IsZero() || expires.Before(o.Expires)) {
		o.Expires = expires
	}
	o.Next = earliest(o.Next, expires)
	if o.Err != nil {
		o.Err = fmt.Errorf("HorizontalPortrait %s: status.portraitData: %w", f.name, o.Err)
	}
	return o
}

func (f found) evaluate(now time.Time) portraits.Opinion {
	missing := portraits.Opinion{Err: fmt.Errorf("type is %q, but its data is missing", f.data.Type)}
	switch f.data.Type {
	case kapacity.StaticPortraitData:
		if f.data.Static == nil {
			return missing
		}
		return static.Portrait(f.data.Static.Replicas).Evaluate(now)
	case kapacity.CronPortraitData:
		if f.data.Cron == nil {
			return missing
		}
		return cron.New(f.data.Cron.Crons).Evaluate(now)
	case kapacity.TimeSeriesPortraitData:
		if f.data.TimeSeries == nil {
			return missing
		}
		return series(f.data.TimeSeries.TimeSeries, now)
	}
	return portraits.Opinion{Err: fmt.Errorf("unknown type %q", f.data.Type)}
}

// series says the last point's number until the next one.
func series(points []kapacity.ReplicaTimeSeriesPoint, now time.Time) portraits.Opinion {
	if !slices.IsSortedFunc(points, func(a, b kapacity.ReplicaTimeSeriesPoint) int { return int(min(1, max(-1, a.Timestamp-b.Timestamp))) }) {
		return portraits.Opinion{Err: errors.New("timeSeries: the points are not ordered by time")}
	}
	var o portraits.Opinion
	for _, p := range points {
		at := time.Unix(p.Timestamp, 0)
		if at.After(now) {
			o.Next = at
			break
		}
		o.HasValue, o.Replicas = true, p.Replicas
		o.Reason = "point at " + at.UTC().Format(time.RFC3339)
	}
	if !o.HasValue {
		o.Reason = "before the first point of the time series"
		return o
	}
	o.Expires = o.Next
	return o
}

// earliest is the earlier of two times, where zero means never.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
