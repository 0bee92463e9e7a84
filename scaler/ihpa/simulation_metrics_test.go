package ihpa

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	"github.com/kubetide/kubetide/internal/sample"
	"github.com/kubetide/kubetide/scaler/enginetest"
)

// measures are the metrics that the reactive portrait of a simulation is made from; each replica takes 10 of either.
var measures = []string{"queue", "orders"}

// maxAge is how long a value counts after its source has gone.
const maxAge = time.Minute

// sources are those of all metrics, and what the leader has collected from them.
type sources struct {
	all []*metric
}

type metric struct {
	name  string
	milli int64
	how   string // "answers", "is away" or "has no value"

	// What the leader knows.
	wanted int
	told   []*func()
	answer sample.Answer
	state  sample.State // that was told
}

func (s *sources) of(name string) *metric {
	for _, m := range s.all {
		if m.name == name {
			return m
		}
	}
	m := &metric{name: name, how: "answers"}
	s.all = append(s.all, m)
	return m
}

func (s *sources) say(name string, milli int64) { s.of(name).milli = milli }
func (s *sources) does(name, how string)        { s.of(name).how = how }

// forget begins with a new leader, who has collected nothing.
func (s *sources) forget() {
	for _, m := range s.all {
		m.wanted, m.told, m.answer, m.state = 0, nil, sample.Answer{}, sample.Missing
	}
}

// collect asks all sources, and tells those who asked of what is new.
func (s *sources) collect(now time.Time) {
	for _, m := range s.all {
		if m.wanted == 0 {
			continue
		}
		before := m.answer
		switch m.how {
		case "answers":
			m.answer = sample.Answer{State: sample.Fresh, Taken: now, Points: []sample.Point{{Milli: m.milli}}}
		case "has no value":
			m.answer = sample.Answer{Cause: sample.ErrNoData}
		default: // what was known grows old
			m.answer.Cause = errors.New("connection refused")
		}
		state := m.at(now).State
		if state != m.state || state == sample.Fresh && !slices.EqualFunc(before.Points, m.answer.Points, func(a, b sample.Point) bool { return a.Milli == b.Milli }) {
			m.state = state
			for _, notify := range slices.Clone(m.told) {
				(*notify)()
			}
		}
	}
}

func (m *metric) at(now time.Time) sample.Answer {
	a := m.answer
	if a.MaxAge = maxAge; a.State == sample.Fresh && now.Sub(a.Taken) > maxAge {
		a.State, a.Points = sample.Stale, nil
	}
	if a.State == sample.Missing && a.Cause == nil {
		a.Cause = errors.New("it has not been collected yet")
	}
	return a
}

// collected is what the leader reads.
type collected struct {
	*sources
	clock clock.PassiveClock
}

func (c collected) Answer(q sample.Query) sample.Answer { return c.of(q.Metric).at(c.clock.Now()) }

func (c collected) Queries(o metav1.Object, _ autoscalingv2.CrossVersionObjectReference, metrics []autoscalingv2.MetricSpec) []sample.Asked {
	out := make([]sample.Asked, len(metrics))
	for i, m := range metrics {
		out[i].Query = sample.Query{Kind: sample.External, Namespace: o.GetNamespace(), Metric: m.External.Metric.Name}
	}
	return out
}

func (c collected) Want(q sample.Query) (release func()) {
	m := c.of(q.Metric)
	m.wanted++
	return func() { m.wanted-- }
}

func (c collected) Subscribe(q sample.Query, notify func()) (cancel func()) {
	m, own := c.of(q.Metric), &notify
	m.told = append(m.told, own)
	return func() { m.told = slices.DeleteFunc(m.told, func(n *func()) bool { return n == own }) }
}

// wakes is the queue of a controller, as far as its metrics know it.
type wakes struct {
	workqueue.TypedRateLimitingInterface[reconcile.Request]
	add func(reconcile.Request)
}

func (w wakes) Add(r reconcile.Request) { w.add(r) }

// measured draws a reactive portrait that takes the metrics to the digit.
func (s *simulation) measured() kapacity.HorizontalPortraitProvider {
	spec := kapacity.PortraitSpec{PortraitType: kapacity.ReactivePortrait, Algorithm: kapacity.PortraitAlgorithm{Type: kapacity.KubeHPAAlgorithm,
		KubeHPA: &kapacity.KubeHPAPortraitAlgorithm{SyncPeriod: metav1.Duration{Duration: time.Duration(s.n(60, 600)) * time.Second}, Tolerance: resource.MustParse("0")}}}
	for _, name := range measures {
		spec.Metrics = append(spec.Metrics, kapacity.MetricSpec{MetricSpec: autoscalingv2.MetricSpec{Type: autoscalingv2.ExternalMetricSourceType,
			External: &autoscalingv2.ExternalMetricSource{Metric: autoscalingv2.MetricIdentifier{Name: name},
				Target: autoscalingv2.MetricTarget{Type: autoscalingv2.AverageValueMetricType, AverageValue: ptr.To(resource.MustParse("10"))}}}})
		s.sources.say(name, 0)
	}
	s.demanded()
	return kapacity.HorizontalPortraitProvider{Type: kapacity.DynamicProvider, Priority: s.n(0, 3), Dynamic: &kapacity.DynamicHorizontalPortraitProvider{PortraitSpec: spec}}
}

// demand changes what is wanted by whoever makes the portrait.
func (s *simulation) demand() { s.say("demand for %s", s.demanded()) }

func (s *simulation) demanded() string {
	if !s.reactive {
		s.data = s.n(0, 12)
		return fmt.Sprint(s.data)
	}
	name, n := s.pick(measures...), int64(s.n(0, 12))
	s.sources.say(name, max(0, 10_000*n-int64(s.n(0, 9_999))))
	s.data = 0
	for _, name := range measures {
		s.data = max(s.data, replicasFor(s.sources.of(name).milli))
	}
	return fmt.Sprintf("%d by %s, %d in all", n, name, s.data)
}

func replicasFor(milli int64) int32 { return int32((milli + 9_999) / 10_000) }

// portrayed tells whether the portrait says what the metrics say.
func (s *simulation) portrayed() bool {
	hp := &kapacity.HorizontalPortrait{}
	return s.w.Client.Get(s.w.Context(), s.portrait(), hp) == nil && generated(hp) == nil && hp.Status.PortraitData != nil && hp.Status.PortraitData.Static.Replicas == s.data
}

// follow: (f) without faults the portrait follows the metrics at once, and not when somebody looks anyway. One that goes is told of,
// and nothing is scaled down until it is back.
func (s *simulation) follow() {
	follows := func() {
		s.settle()
		s.must(s.portrayed(), "the portrait does not follow the metrics to %d", s.data)
	}
	for actor := range s.actors { // time may have changed why the count stays
		s.wake(actor, s.now())
	}
	s.settle()
	s.lead() // memory goes by a clock that nobody sets; the one here was set for everything
	writes := len(s.w.Writes)
	s.settle()
	s.must(len(s.w.Writes) == writes, "written by a new leader at rest: %v", s.w.Writes[writes:])
	s.w.Clock.SetTime(s.now().Add(maxAge))
	s.demand()
	follows()
	s.refused = 1
	s.demand()
	s.settle()
	s.refused = 0
	for range 5 { // it is tried again soon
		s.next(2 * time.Second)
		s.settle()
	}
	follows()
	for _, name := range measures {
		s.sources.say(name, 0)
	}
	s.data = 0
	s.say("no demand")
	follows()
	gone := s.pick(measures...)
	if s.sources.does(gone, "has no value"); s.chance(0.5) {
		s.sources.does(gone, "is away")
		s.w.Clock.SetTime(s.now().Add(maxAge + time.Second))
	}
	s.say("%s %s", gone, s.sources.of(gone).how)
	s.settle()
	hp := &kapacity.HorizontalPortrait{}
	s.w.Must(s.w.Client.Get(s.w.Context(), s.portrait(), hp))
	s.must(generated(hp) != nil || s.serves() == 0, "nobody is told that %s is gone", gone)
	for range 5 {
		s.next(time.Minute)
		s.settle()
	}
	s.sources.does(gone, "answers")
	s.demand()
	follows()
}

// lapse: (g) somebody looks when what the generator said expires.
func (s *simulation) lapse() {
	s.expiry = 90 * time.Second
	s.generate()
	s.settle()
	s.missing = true
	for counts := true; counts && s.broken == ""; {
		s.next(10 * time.Second)
		if _, counts = s.said(); !counts {
			s.must(s.due(theIHPA), "the portrait has expired, and nobody looks")
		}
		s.settle()
	}
	if v := s.w.IHPA().Status.CurrentPortraitValue; v != nil {
		s.must(!strings.HasPrefix(v.Provider, string(kapacity.DynamicProvider)), "%s counts although it has expired", v.Provider)
	}
}

// serves is how many replicas there are that are not held.
func (s *simulation) serves() int32 {
	o, held := s.target(), int32(0)
	s.w.Must(s.w.Client.Get(s.w.Context(), enginetest.Request.NamespacedName, o))
	for _, p := range s.w.Pods() {
		if p.Labels[kapacity.PodStateLabel] != "" {
			held++
		}
	}
	return *replicasOf(o) - held
}

// portrays: a portrait is what the metrics say that the leader has, and asks for fewer replicas than there are only if it has them all.
func (s *simulation) portrays(before, after *kapacity.PortraitData) {
	if after == nil || before != nil && before.Static.Replicas == after.Static.Replicas {
		return
	}
	most, all := int32(-1), true
	for _, name := range measures {
		a := s.sources.of(name).at(s.now())
		if a.State != sample.Fresh {
			all = false
			continue
		}
		most = max(most, replicasFor(a.Points[0].Milli))
	}
	is := after.Static.Replicas
	s.say("    portrait of %d", is)
	s.must(is == most, "the portrait says %d, the metrics %d", is, most)
	s.must(all || is >= s.serving, "the portrait says %d of %d although a metric is missing", is, s.serving)
}

// said is what the portrait says, once everybody has said what they had to say, and whether it counts.
func (s *simulation) said() (replicas int32, counts bool) {
	if dynamicPriority(s.w.IHPA()) == math.MinInt32 {
		return 0, false
	}
	if s.expiry == 0 {
		return s.data, true
	}
	hp := &kapacity.HorizontalPortrait{}
	if s.w.Client.Get(s.w.Context(), s.portrait(), hp) != nil || hp.Status.PortraitData == nil {
		return 0, false
	}
	return hp.Status.PortraitData.Static.Replicas, s.now().Before(hp.Status.PortraitData.ExpireTime.Time)
}
