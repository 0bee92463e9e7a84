// Package schedule is the portrait that asks for what a ScalingSchedule or ClusterScalingSchedule is worth, in replicas.
// internal/window knows what that is, as it does for the metric on the same objects. The package reads no objects.
package schedule

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"time"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	zalando "github.com/kubetide/kubetide/api/zalando/v1"
	"github.com/kubetide/kubetide/internal/window"
	"github.com/kubetide/kubetide/portraits"
)

// Portrait asks for the schedule's value divided by the average value, rounded up, ramps included. A value of 0 is no opinion: it says
// that the schedule is not active, or that a ramp has only just begun, and not that nobody is needed.
type Portrait struct {
	name      string
	schedules window.Schedules
	share     uint64 // of the value, for one replica, in thousandths
	err       error
}

// New never fails; what is wrong with the schedule is in the opinions' Err. spec is that of the object that p names, nil if it does not
// exist. Defaults that are not valid panic, as in window.NewSchedules.
func New(p kapacity.ScheduleHorizontalPortraitProvider, spec *zalando.ScalingScheduleSpec, d window.Defaults) *Portrait {
	out := &Portrait{name: fmt.Sprintf("%s %q", Kind(p), p.Name), share: 1000}
	if err := out.read(p, spec, d); err != nil {
		out.err = fmt.Errorf("%s: %w", out.name, err)
	}
	return out
}

// Kind is the kind of the object that p names; ScalingSchedule unless it says otherwise.
func Kind(p kapacity.ScheduleHorizontalPortraitProvider) string {
	if p.Kind == "" {
		return zalando.ScalingScheduleKind
	}
	return p.Kind
}

func (p *Portrait) read(from kapacity.ScheduleHorizontalPortraitProvider, spec *zalando.ScalingScheduleSpec, d window.Defaults) (err error) {
	if kind := Kind(from); kind != zalando.ScalingScheduleKind && kind != zalando.ClusterScalingScheduleKind {
		return fmt.Errorf("kind is neither %s nor %s", zalando.ScalingScheduleKind, zalando.ClusterScalingScheduleKind)
	}
	if q := from.AverageValue; q != nil {
		if q.Sign() <= 0 {
			return fmt.Errorf("averageValue: %s is not above 0", q)
		}
		p.share = uint64(q.MilliValue())
	}
	if spec == nil {
		return errors.New("it does not exist")
	}
	p.schedules, err = window.NewSchedules(*spec, d)
	return err
}

// Evaluate implements portraits.Portrait.
func (p *Portrait) Evaluate(now time.Time) portraits.Opinion {
	if p.err != nil {
		return portraits.Opinion{Err: p.err}
	}
	value := p.schedules.Value(now)
	o := portraits.Opinion{Next: p.schedules.Next(now)}
	until := ""
	// Of a value that lasts, Next is only when to ask again: that must not show, or it would show another time at each look.
	if !o.Next.IsZero() && p.schedules.Value(o.Next) != value {
		o.Expires = o.Next.Add(time.Second - 1).Truncate(time.Second) // status has whole seconds
		until = " until " + o.Next.UTC().Format(time.RFC3339)
	}
	if value == 0 {
		o.Expires = time.Time{}
		o.Reason = p.name + " is worth nothing" + until
		return o
	}
	o.HasValue, o.Replicas = true, p.replicas(uint64(value))
	o.Reason = fmt.Sprintf("%s is worth %d%s", p.name, value, until)
	return o
}

// replicas is the value divided by the share of one replica, rounded up.
func (p *Portrait) replicas(value uint64) int32 {
	hi, lo := bits.Mul64(value, 1000)
	if hi >= p.share { // the quotient has more than 64 bits
		return math.MaxInt32
	}
	n, rest := bits.Div64(hi, lo, p.share)
	if rest > 0 && n < math.MaxInt32 {
		n++
	}
	return int32(min(n, math.MaxInt32))
}
