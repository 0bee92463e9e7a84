// Package scheduled serves plain HPAs that follow a ScalingSchedule or ClusterScalingSchedule. Its adjuster closes the gap
// that the HPA's tolerance leaves below a schedule's value, and its other controller keeps status.active of the schedules.
// Decisions are pure and come first; the controllers run on the leader only, are driven by watches and woken at the next edge
// of a schedule. It writes /scale, status.active and Events, and nothing else. internal/window knows what schedules are worth.
package scheduled

import (
	"math/bits"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
)

// Metric is one metric of an HPA on a schedule.
type Metric struct {
	Object autoscalingv2.CrossVersionObjectReference
	// Full is the schedule's value without ramps, Value the one that the HPA sees now.
	Full, Value int64
	// TargetMilli is the average value per replica in thousandths.
	TargetMilli int64
}

// Limits are what bounds an adjustment.
type Limits struct {
	MaxReplicas int32
	// Up and Down are the HPA's tolerances: it leaves the replicas alone while usage / target is from 1 - Down to 1 + Up.
	Up, Down float64
}

// Adjustment is a change to make, and the schedule that asks for it.
type Adjustment struct {
	From, To int32
	Object   autoscalingv2.CrossVersionObjectReference
}

// Adjust returns what to do about current replicas; ok is false for nothing. It only ever scales up, from 1 replica or more,
// to what the schedule with the highest full value asks for, and only where the HPA would not do so itself because the
// difference is within its tolerance. It leaves a count alone that the HPA would take back at once, which can happen on a
// ramp where the HPA tolerates less downwards than upwards.
func Adjust(current int32, metrics []Metric, l Limits) (a Adjustment, ok bool) {
	var wanted Metric
	var replicas int64
	for _, m := range metrics {
		if n := m.replicas(); n > replicas {
			wanted, replicas = m, n
		}
	}
	replicas = min(replicas, int64(l.MaxReplicas))
	if current <= 0 || replicas <= int64(current) {
		return Adjustment{}, false
	}
	if wanted.ratio(wanted.Full, int64(current)) > 1+l.Up || wanted.ratio(wanted.Value, replicas) < 1-l.Down {
		return Adjustment{}, false
	}
	return Adjustment{From: current, To: int32(replicas), Object: wanted.Object}, true
}

// replicas is Full divided by the target, rounded up.
func (m Metric) replicas() int64 {
	if m.Full <= 0 || m.TargetMilli <= 0 {
		return 0
	}
	const most = 1<<63 - 1
	hi, lo := bits.Mul64(uint64(m.Full), 1000)
	if hi >= uint64(m.TargetMilli) {
		return most
	}
	n, rest := bits.Div64(hi, lo, uint64(m.TargetMilli))
	if n >= most {
		return most
	}
	if rest > 0 {
		n++
	}
	return int64(n)
}

// ratio is computed in the HPA's own order of operations, so that both agree on what is within the tolerance.
func (m Metric) ratio(value, replicas int64) float64 {
	return float64(value) * 1000 / (float64(m.TargetMilli) * float64(replicas))
}
