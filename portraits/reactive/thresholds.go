package reactive

import "sort"

// Levels are the measurements at which a metric's proposal turns, all else staying as it is. Of Object and External metrics they are
// thousandths of the sum, whatever the target; of Utilization targets percent; of other targets of pods thousandths of the
// average. Those that no measurement reaches are nil.
type Levels struct {
	// Up is the least that asks for more than spec.replicas, Down the most that asks for fewer, Max the least that asks for the maximum.
	Up, Down, Max *int64
}

// Thresholds returns where the metric turns, looking from its target upward and downward. Overflows count as with Saturate. The
// error is the proposal's.
func Thresholds(in Inputs, maxReplicas int32) (Levels, error) {
	in.Options.Saturate = true
	m := read(in)
	if m.err != nil {
		return Levels{}, m.err
	}
	m.terse = true
	wants := func(v int64) int32 {
		if p := m.propose(m.sumFor(v)); p.Err == nil {
			return p.Replicas
		}
		return in.SpecReplicas
	}
	// Where pods are multiplied the count may turn again beyond the target: with more pods than spec.replicas, say.
	from, to := max(0, m.target), max(0, m.target)
	switch {
	case m.kind == perPod:
		from, to = 0, m.mul(to, int64(max(in.SpecReplicas, in.StatusReplicas)))
	case in.SpecReplicas == 0:
		from = 0
	}
	levels := Levels{
		Up:  least(from, func(v int64) bool { return wants(v) > in.SpecReplicas }),
		Max: least(from, func(v int64) bool { return wants(v) >= maxReplicas }),
	}
	if fewer := func(v int64) bool { return wants(v) < in.SpecReplicas }; fewer(0) {
		down := int64(sort.Search(int(min(to, furthest)), func(i int) bool { return !fewer(int64(i) + 1) }))
		levels.Down = &down
	}
	return levels, nil
}

// furthest is the largest number that is looked at: float64 holds each one up to it.
const furthest = 1 << 53

// least returns the smallest number not below from that is; all above it are too.
func least(from int64, is func(int64) bool) *int64 {
	if from >= furthest {
		return nil
	}
	width := int64(1)
	for !is(from + width) {
		if width *= 2; from+width > furthest {
			return nil
		}
	}
	v := from + int64(sort.Search(int(width), func(i int) bool { return is(from + int64(i)) }))
	return &v
}

// sumFor is the least sum that shows as v: as its percentage, its average, or itself.
func (m *measurement) sumFor(v int64) int64 {
	switch m.kind {
	case utilization:
		product := m.mul(v, m.requests)
		sum := product / 100
		if sum*100 < product {
			sum++
		}
		return sum
	case average:
		return m.mul(v, int64(m.ready+m.superfluous))
	default:
		return v
	}
}
