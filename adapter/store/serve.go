package store

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/selection"

	"github.com/kubetide/kubetide/internal/sample"
)

// Served is one series that answers a request to the metrics APIs. Its answer is Fresh.
type Served struct {
	// Query is what was asked of the source.
	Query *sample.Query
	// Labels are those that the query's selector requires exactly. They must not be changed.
	Labels labels.Set
	Answer sample.Answer
}

// memo remembers which series may have pods that a selector matches, so that an HPA's request, which is the same every
// time, costs what its result costs.
type memo struct {
	shape  uint64
	n      atomic.Int64
	series sync.Map // of selectors to []*entry; at most maxMemo, and one for each that asks at that moment
}

type selectors struct{ pods, metric string }

// maxMemo bounds what foreign selectors can make a metric remember.
const maxMemo = 4096

// text is selector.String(), without its allocations for the selectors that HPAs have: key=value,...
func text(selector labels.Selector) string { return string(appendText(nil, selector)) }

func appendText(to []byte, selector labels.Selector) []byte {
	if selector == nil {
		return to
	}
	requirements, _ := selector.Requirements()
	begin := len(to)
	for i := range requirements {
		values := requirements[i].ValuesUnsorted() // of one value, the copy is on the stack
		if len(values) != 1 || requirements[i].Operator() != selection.Equals {
			return append(to[:begin], selector.String()...)
		}
		if i > 0 {
			to = append(to, ',')
		}
		to = append(append(append(to, requirements[i].Key()...), '='), values[0]...)
	}
	return to
}

// appendAddress appends what precedes the selector in the address of a series. An address is one piece: to hash and compare
// it touches less memory than a Series does.
func appendAddress(to []byte, kind sample.Kind, namespace, metric string, object sample.ObjectRef) []byte {
	to = appendPart(appendPart(appendPart(to, string(kind)), namespace), metric)
	if kind == sample.External { // describes no object
		return to
	}
	return appendPart(appendPart(appendPart(to, object.Group), object.Kind), object.Name)
}

func appendPart(to []byte, part string) []byte {
	if len(part) < 0x80 {
		return append(append(to, byte(len(part))), part...)
	}
	return append(binary.AppendUvarint(to, uint64(len(part))), part...)
}

func appendSeries(to []byte, s sample.Series) []byte {
	return append(appendAddress(to, s.Kind, s.Namespace, s.Metric, s.Object), s.Selector...)
}

func everything(selector labels.Selector) labels.Selector {
	if selector == nil {
		return labels.Everything()
	}
	return selector
}

// Bar says that somebody asks for the External or Object series in a way that cannot be collected. Until it is allowed again,
// a request with its address is an error and never answered with what others ask for, and no sum goes without it.
func (s *Store) Bar(series sample.Series, barred bool) {
	if barred {
		s.bars.add(s.newEntry(sample.Query{Kind: series.Kind, Namespace: series.Namespace, Metric: series.Metric,
			Selector: series.Selector, Object: series.Object}))
	} else if e, _ := s.bars.exact(appendSeries(nil, series)); e != nil {
		s.bars.remove(e)
	}
}

// barred returns an error if the asked series is barred, or an External series that the selector matches.
func (s *Store) barred(asked sample.Series, selector labels.Selector) error {
	found, _ := s.bars.exact(appendSeries(nil, asked))
	if m := s.bars.metric(asked.Kind, asked.Namespace, asked.Metric); found == nil && m != nil && asked.Kind == sample.External {
		for e := range m.list.all {
			if everything(selector).Matches(e.labels) {
				found = e
				break
			}
		}
	}
	if found == nil {
		return nil
	}
	return fmt.Errorf("%s: the HPA that asks for it does so in a way that cannot be collected; its Events say why", found.query.Series())
}

// External returns the series with exactly the selector, else all whose labels it matches, sorted. Since an HPA adds
// them up, one of them without a fresh value makes the whole an error. The result is shared and must not be changed.
func (s *Store) External(namespace, name string, selector labels.Selector) ([]Served, error) {
	var memory [256]byte // on the stack
	since := s.clock.Since(epoch)
	if e, last := s.served.exact(appendText(appendAddress(memory[:0], sample.External, namespace, name, sample.ObjectRef{}), selector)); e != nil {
		if last.fresh(since) {
			return last.served[:], nil
		}
		a := last.answer(s.clock.Now())
		if a.State != sample.Fresh {
			return nil, fmt.Errorf("external metric %q has no value: %w", name, a.Cause)
		}
		return []Served{{Query: &e.query, Labels: e.labels, Answer: a}}, nil
	}
	series := sample.Series{Kind: sample.External, Namespace: namespace, Metric: name, Selector: text(selector)}
	if err := s.barred(series, selector); err != nil {
		return nil, err
	}
	m := s.served.metric(sample.External, namespace, name)
	if m == nil {
		return nil, fmt.Errorf("no HPA of namespace %s asks for external metric %q", namespace, name)
	}
	var out []Served
	now := s.clock.Now()
	selector = everything(selector)
	for e := range m.list.all {
		if !selector.Matches(e.labels) {
			continue
		}
		a := e.answer(now)
		if a.State != sample.Fresh {
			return nil, fmt.Errorf("external metric %q{%s}, one of those that %q selects, has no value: %w",
				name, e.query.Selector, text(selector), a.Cause)
		}
		out = append(out, Served{Query: &e.query, Labels: e.labels, Answer: a})
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("no HPA of namespace %s asks for external metric %q with labels that match %q", namespace, name, text(selector))
	}
	sortServed(out)
	return out, nil
}

// Object returns the series of one described object: the one with exactly the metric selector, else the only one whose
// labels it matches. object.Name "" stands for any, where the caller knows that there is but one.
func (s *Store) Object(namespace, name string, object sample.ObjectRef, selector labels.Selector) (Served, error) {
	series := sample.Series{Kind: sample.Object, Namespace: namespace, Metric: name, Selector: text(selector), Object: object}
	if m := s.served.metric(sample.Object, namespace, name); m != nil {
		now := s.clock.Now()
		e, last := s.served.exact(appendSeries(nil, series))
		if e == nil {
			if err := s.barred(series, selector); err != nil {
				return Served{}, err
			}
			selector = everything(selector)
			for other := range m.list.all {
				if !sameObject(other.query.Object, object) || !selector.Matches(other.labels) {
					continue
				}
				if e != nil {
					return Served{}, fmt.Errorf("several series of metric %q of %s match %q; ask with the metric selector of one", name, object, text(selector))
				}
				e, last = other, other.last.Load()
			}
		}
		if e != nil {
			a := last.answer(now)
			if a.State != sample.Fresh {
				return Served{}, fmt.Errorf("metric %q of %s has no value: %w", name, object, a.Cause)
			}
			return Served{Query: &e.query, Labels: e.labels, Answer: a}, nil
		}
	}
	return Served{}, fmt.Errorf("no HPA of namespace %s asks for metric %q of %s", namespace, name, object)
}

func sameObject(have, want sample.ObjectRef) bool {
	return have.Group == want.Group && have.Kind == want.Kind && (want.Name == "" || have.Name == want.Name)
}

// Objects returns the series of all described objects of the kind that have a fresh value, sorted.
func (s *Store) Objects(namespace, name string, kind schema.GroupKind, selector labels.Selector) ([]Served, error) {
	var out []Served
	var causes []error
	if m := s.served.metric(sample.Object, namespace, name); m != nil {
		now := s.clock.Now()
		selector = everything(selector)
		for e := range m.list.all {
			if !sameObject(e.query.Object, sample.ObjectRef{Group: kind.Group, Kind: kind.Kind}) || !selector.Matches(e.labels) {
				continue
			}
			if a := e.answer(now); a.State == sample.Fresh {
				out = append(out, Served{Query: &e.query, Labels: e.labels, Answer: a})
			} else {
				causes = append(causes, fmt.Errorf("%s: %w", e.query.Object, a.Cause))
			}
		}
	}
	if len(out) == 0 {
		if len(causes) > 0 {
			return nil, fmt.Errorf("metric %q has no value: %w", name, first(causes))
		}
		return nil, fmt.Errorf("no HPA of namespace %s asks for metric %q of a %s", namespace, name, kind)
	}
	sortServed(out)
	return out, nil
}

// Pods returns the values of the pods that the selector matches, at most one for each pod. Series with exactly the
// metric selector win over those whose labels it matches. Pods without a fresh value are absent; none at all is an error.
func (s *Store) Pods(namespace, name string, pods, selector labels.Selector) ([]Served, error) {
	m := s.served.metric(sample.Pods, namespace, name)
	if m == nil {
		return nil, fmt.Errorf("no HPA of namespace %s asks for metric %q of pods", namespace, name)
	}
	now := s.clock.Now()
	requirements, selectable := everything(pods).Requirements()
	if !selectable {
		return nil, errors.New("a selector that matches nothing was given")
	}
	var out []Served
	var parts []bool // of out: the request selects not all pods of the series
	var causes []error
	for _, e := range m.candidates(requirements, text(pods), selector) {
		last := e.last.Load()
		a := last.answer(now)
		if a.State != sample.Fresh {
			causes = append(causes, fmt.Errorf("pods of %s: %w", e.query.Target, a.Cause))
			continue
		}
		all := len(a.Points)
		if a.Points = filter(a.Points, last.common, requirements); len(a.Points) > 0 {
			out = append(out, Served{Query: &e.query, Labels: e.labels, Answer: a})
			parts = append(parts, len(a.Points) < all)
		}
	}
	if len(out) == 0 {
		if len(causes) > 0 {
			return nil, fmt.Errorf("metric %q has no value: %w", name, first(causes))
		}
		return nil, fmt.Errorf("no pod that %q matches has a value of metric %q", text(pods), name)
	}
	if len(out) > 1 {
		out = onePerPod(out, parts)
	}
	return out, nil
}

// Pod returns the value of one pod.
func (s *Store) Pod(namespace, name, pod string, selector labels.Selector) (Served, error) {
	if m := s.served.metric(sample.Pods, namespace, name); m != nil {
		now := s.clock.Now()
		var found *Served
		for _, e := range m.candidates(nil, "", selector) {
			a := e.answer(now)
			i, ok := slices.BinarySearchFunc(a.Points, pod, func(p sample.Point, name string) int {
				return strings.Compare(p.Pod, name)
			})
			if ok {
				a.Points = a.Points[i : i+1]
				if one := (Served{Query: &e.query, Labels: e.labels, Answer: a}); found == nil || compareServed(one, *found) < 0 {
					found = &one
				}
			}
		}
		if found != nil {
			return *found, nil
		}
	}
	return Served{}, fmt.Errorf("pod %s has no value of metric %q", pod, name)
}

// candidates returns the series that may have pods which meet the requirements.
func (m *metric) candidates(requirements labels.Requirements, pods string, selector labels.Selector) []*entry {
	shape := m.shape.Load()
	key := selectors{pods: pods, metric: text(selector)}
	remembered := m.memo.Load()
	if remembered == nil || remembered.shape != shape {
		remembered = &memo{shape: shape}
		m.memo.Store(remembered)
	}
	if known, ok := remembered.series.Load(key); ok {
		return known.([]*entry)
	}
	var found []*entry
	selector = everything(selector)
	exact := false
	for e := range m.list.all {
		isExact := e.query.Selector == key.metric
		if exact && !isExact || !isExact && !selector.Matches(e.labels) {
			continue
		}
		if impossible(e.last.Load().common, requirements) {
			continue
		}
		if isExact && !exact {
			exact, found = true, nil
		}
		found = append(found, e)
	}
	if remembered.n.Load() < maxMemo {
		if _, known := remembered.series.LoadOrStore(key, found); !known {
			remembered.n.Add(1)
		}
	}
	return found
}

// impossible says that no pod meets the requirements, because all have a label that breaks one of them.
func impossible(common labels.Set, requirements labels.Requirements) bool {
	for i := range requirements {
		if common.Has(requirements[i].Key()) && !requirements[i].Matches(common) {
			return true
		}
	}
	return false
}

// filter returns the points whose labels meet the requirements; points itself where the labels in common decide.
func filter(points []sample.Point, common labels.Set, requirements labels.Requirements) []sample.Point {
	var open labels.Requirements
	for i := range requirements {
		if !common.Has(requirements[i].Key()) {
			open = append(open, requirements[i])
		} else if !requirements[i].Matches(common) {
			return nil
		}
	}
	if len(open) == 0 {
		return points
	}
	kept := make([]int32, 0, 256) // on the stack, so that the copy can have its size from the start
	for i := range points {
		meets := true
		for j := 0; meets && j < len(open); j++ {
			meets = open[j].Matches(points[i].Labels)
		}
		if meets {
			kept = append(kept, int32(i))
		}
	}
	if len(kept) == len(points) {
		return points
	}
	out := make([]sample.Point, len(kept))
	for to, from := range kept {
		out[to] = points[from]
	}
	return out
}

// onePerPod keeps one value of each pod: targets whose selectors overlap would count a pod twice. The series of the target
// that the request is about comes first: the request selects all of its pods, and more of them than of a target within it.
func onePerPod(series []Served, parts []bool) []Served {
	order := make([]int, len(series))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		if parts[a] != parts[b] {
			if parts[b] {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(len(series[b].Answer.Points), len(series[a].Answer.Points)), compareServed(series[a], series[b]))
	})
	seen := map[string]bool{}
	out := make([]Served, 0, len(series))
	for _, i := range order {
		one := series[i]
		one.Answer.Points = slices.DeleteFunc(slices.Clone(one.Answer.Points), func(p sample.Point) bool {
			twice := seen[p.Pod]
			seen[p.Pod] = true
			return twice
		})
		if len(one.Answer.Points) > 0 {
			out = append(out, one)
		}
	}
	sortServed(out)
	return out
}

func sortServed(series []Served) {
	slices.SortFunc(series, compareServed)
}

func compareServed(a, b Served) int {
	x, y := a.Query.Series(), b.Query.Series()
	return cmp.Or(strings.Compare(x.Selector, y.Selector), strings.Compare(x.Object.Group, y.Object.Group),
		strings.Compare(x.Object.Kind, y.Object.Kind), strings.Compare(x.Object.Name, y.Object.Name))
}

// first joins the first causes in a stable order; an answer to a request has to end somewhere.
func first(causes []error) error {
	slices.SortFunc(causes, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	if len(causes) > 3 {
		return fmt.Errorf("%w; and %d more", errors.Join(causes[:3]...), len(causes)-3)
	}
	return errors.Join(causes...)
}
