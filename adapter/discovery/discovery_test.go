package discovery

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"
	"pgregory.net/rapid"

	"github.com/kubetide/kubetide/collectors"
	"github.com/kubetide/kubetide/internal/sample"
)

var start = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

type source struct{}

func (source) Keys() []string { return []string{"value"} }

func (source) Parse(r collectors.Request) (sample.Query, error) {
	if r.Settings["value"] == "" {
		return sample.Query{}, collectors.BadKey("value", "is missing")
	}
	return r.Query("static", sample.Settings{"value": r.Settings["value"]}), nil
}

func (source) Open(sample.Query) (collectors.Collector, error) { return nil, errors.New("not here") }

// delayed calls what it was given as a real clock does, in a goroutine of its own.
type delayed struct{ *clocktesting.FakeClock }

func (c delayed) AfterFunc(d time.Duration, f func()) clock.Timer {
	return c.FakeClock.AfterFunc(d, func() { go f() })
}

// bench is a Discovery that notes what it asks for and tells.
type bench struct {
	*Discovery
	clock    delayed
	handler  cache.ResourceEventHandler
	recorder *record.FakeRecorder
	wanted   map[sample.Query]int
	changes  []string
	barred   map[sample.Series]bool
	answer   sample.Answer
}

func newBench(change func(*Options)) *bench {
	b := &bench{clock: delayed{clocktesting.NewFakeClock(start)}, recorder: record.NewFakeRecorder(2000), wanted: map[sample.Query]int{}, barred: map[sample.Series]bool{}}
	registry := collectors.NewRegistry()
	registry.Register(sample.External, source{}, "static")
	o := Options{Registry: registry, DefaultInterval: time.Minute, Recorder: b.recorder, Clock: b.clock, Log: logr.Discard(),
		Add: func(q sample.Query) {
			b.wanted[q]++
			b.changes = append(b.changes, "+"+q.Metric+q.Settings)
		},
		Remove: func(q sample.Query) {
			b.wanted[q]--
			b.changes = append(b.changes, "-"+q.Metric+q.Settings)
		},
		Answer: func(sample.Query) sample.Answer { return b.answer },
		Bar: func(s sample.Series, barred bool) {
			if b.barred[s] == barred {
				panic("nothing new")
			}
			b.barred[s] = barred
		}}
	if change != nil {
		change(&o)
	}
	b.Discovery = New(o)
	b.handler = b.Handler()
	return b
}

func (b *bench) events() []string {
	var out []string
	for {
		select {
		case e := <-b.recorder.Events:
			out = append(out, e)
		default:
			return out
		}
	}
}

func (b *bench) query() sample.Query {
	for q, n := range b.wanted {
		if n > 0 {
			return q
		}
	}
	return sample.Query{}
}

// hpa asks for External metrics; each is "name=value" and gets its value by an annotation.
func hpa(name string, age time.Duration, metrics ...string) *autoscalingv2.HorizontalPodAutoscaler {
	h := &autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID(name),
		CreationTimestamp: metav1.NewTime(start.Add(-age)), Annotations: map[string]string{}}}
	for _, m := range metrics {
		metric, value, _ := strings.Cut(m, "=")
		if value != "" {
			h.Annotations["metric-config.external."+metric+".static/value"] = value
		}
		h.Spec.Metrics = append(h.Spec.Metrics, autoscalingv2.MetricSpec{Type: autoscalingv2.ExternalMetricSourceType,
			External: &autoscalingv2.ExternalMetricSource{Metric: autoscalingv2.MetricIdentifier{Name: metric,
				Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"type": "static"}}}}})
	}
	return h
}

func wantEvents(t *testing.T, b *bench, want ...string) {
	t.Helper()
	got := b.events()
	if len(got) != len(want) {
		t.Fatalf("%d events, want %d:\n%s", len(got), len(want), strings.Join(got, "\n"))
	}
	slices.Sort(got)
	for i := range want {
		if !strings.Contains(got[i], want[i]) {
			t.Errorf("event %q does not say %q", got[i], want[i])
		}
	}
}

func wantChanges(t *testing.T, b *bench, want ...string) {
	t.Helper()
	slices.Sort(b.changes)
	if diff := cmp.Diff(want, b.changes); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
	b.changes = nil
}

func TestOnlyWhatChangedIsRebuilt(t *testing.T) {
	b := newBench(nil)
	before := hpa("cart", time.Hour, "a=1", "b=1")
	b.handler.OnAdd(before, true)
	wantChanges(t, b, `+a{"value":"1"}`, `+b{"value":"1"}`)

	status := before.DeepCopy()
	status.Status.CurrentReplicas = 5
	b.handler.OnUpdate(before, status)
	wantChanges(t, b)

	after := hpa("cart", time.Hour, "a=1", "b=2", "c=1")
	b.handler.OnUpdate(status, after)
	wantChanges(t, b, `+b{"value":"2"}`, `+c{"value":"1"}`, `-b{"value":"1"}`)

	b.handler.OnAdd(hpa("twin", time.Minute, "a=1"), false)
	wantChanges(t, b)
	b.handler.OnDelete(cache.DeletedFinalStateUnknown{Key: "shop/cart", Obj: after})
	wantChanges(t, b, `-b{"value":"2"}`, `-c{"value":"1"}`)
	b.handler.OnDelete(hpa("twin", time.Minute, "a=1"))
	wantChanges(t, b, `-a{"value":"1"}`)
	wantEvents(t, b)
	if n := len(b.objects) + len(b.claims) + len(b.served); n != 0 {
		t.Errorf("%d things are remembered of HPAs that are gone", n)
	}
}

func TestTheOlderHPAIsServed(t *testing.T) {
	old, young := hpa("old", time.Hour, "m=1"), hpa("young", time.Minute, "m=2")
	for name, order := range map[string][]*autoscalingv2.HorizontalPodAutoscaler{"seen in order": {old, young}, "seen the other way round": {young, old}} {
		t.Run(name, func(t *testing.T) {
			b := newBench(nil)
			for _, h := range order {
				b.handler.OnAdd(h, true)
			}
			if got := b.query().Settings; got != `{"value":"1"}` {
				t.Errorf("served %s, want the older HPA's", got)
			}
			wantEvents(t, b, `Warning MetricConflict HPA shop/young: metric "m": HPA shop/old, which is older, asks for the same External metric with other settings`)
			b.handler.OnUpdate(young, young.DeepCopy())
			wantEvents(t, b)
			b.handler.OnDelete(old)
			if got := b.query().Settings; got != `{"value":"2"}` {
				t.Errorf("served %s after the older one went", got)
			}
			wantEvents(t, b)
			b.handler.OnAdd(old, false)
			if got := b.query().Settings; got != `{"value":"1"}` {
				t.Errorf("served %s after the older one came back", got)
			}
			wantEvents(t, b, "MetricConflict HPA shop/young")
		})
	}
	t.Run("of one age, the name decides", func(t *testing.T) {
		b := newBench(nil)
		b.handler.OnAdd(hpa("b", time.Hour, "m=2"), true)
		b.handler.OnAdd(hpa("a", time.Hour, "m=1"), true)
		if got := b.query().Settings; got != `{"value":"1"}` {
			t.Errorf("served %s", got)
		}
	})
	t.Run("agreeing ends the conflict", func(t *testing.T) {
		b := newBench(nil)
		b.handler.OnAdd(old, true)
		b.handler.OnAdd(young, true)
		b.handler.OnUpdate(young, hpa("young", time.Minute, "m=1"))
		b.events()
		b.handler.OnUpdate(hpa("young", time.Minute, "m=1"), young)
		wantEvents(t, b, "MetricConflict HPA shop/young")
	})
}

func TestProblemsAreToldOnce(t *testing.T) {
	registry := prometheus.NewRegistry()
	b := newBench(func(o *Options) { o.Registerer = registry })
	bad := hpa("cart", time.Hour, "a=1", "b")
	bad.Annotations["metric-config.external.a.static/valeu"] = "1"
	b.handler.OnAdd(bad, true)
	wantEvents(t, b,
		`Warning CreateNewMetricsCollector HPA shop/cart: metric "b": metric-config.external.b.static/value: is missing`,
		`Warning MetricConfigIgnored HPA shop/cart: metric "a": metric-config.external.a.static/valeu: collector "static" has no setting "valeu"`)
	wantChanges(t, b, `+a{"value":"1"}`)
	failing := func(want string) {
		t.Helper()
		if err := testutil.GatherAndCompare(registry, strings.NewReader(want), "kubetide_metric_failing"); err != nil {
			t.Error(err)
		}
	}
	failing(`
# HELP kubetide_metric_failing 1 for a metric that cannot be read or collected; absent while all is well. Labeled by namespace, hpa and metric.
# TYPE kubetide_metric_failing gauge
kubetide_metric_failing{hpa="cart",metric="b",namespace="shop"} 1
`)
	other := bad.DeepCopy()
	other.Annotations["example.org/x"] = "y"
	b.handler.OnUpdate(bad, other)
	wantEvents(t, b)
	fixed := hpa("cart", time.Hour, "a=1", "b=1")
	b.handler.OnUpdate(other, fixed)
	wantEvents(t, b)
	failing("")
	b.handler.OnUpdate(fixed, bad)
	if n := len(b.events()); n != 2 {
		t.Errorf("%d events after it was broken again, want 2", n)
	}
}

func TestForeignMetricsCanBeDisregarded(t *testing.T) {
	foreign := hpa("keda", time.Hour)
	foreign.Spec.Metrics = []autoscalingv2.MetricSpec{{Type: autoscalingv2.ExternalMetricSourceType,
		External: &autoscalingv2.ExternalMetricSource{Metric: autoscalingv2.MetricIdentifier{Name: "s0-kafka"}}}}
	for disregard, want := range map[bool]int{false: 1, true: 0} {
		b := newBench(func(o *Options) { o.DisregardForeign = disregard })
		b.handler.OnAdd(foreign, true)
		if got := len(b.events()); got != want {
			t.Errorf("disregard %t: %d events, want %d", disregard, got, want)
		}
	}
	typo := hpa("typo", time.Hour, "m=1")
	typo.Spec.Metrics[0].External.Metric.Selector.MatchLabels["type"] = "statik"
	b := newBench(func(o *Options) { o.DisregardForeign = true })
	b.handler.OnAdd(typo, true)
	wantEvents(t, b, `no collector "statik"`)
}

// podsFailed is an error whose text changes while its cause does not.
type podsFailed string

func (e podsFailed) Error() string { return string(e) + ": refused" }
func (podsFailed) Outline() string { return "refused" }

func TestFailuresOfCollection(t *testing.T) {
	refused := errors.New("connection refused")
	type step struct {
		after  time.Duration
		points int
		err    error
		want   string // the start of the one Event
	}
	failed := "Warning MetricCollectionFailed HPA shop/cart: External metric \"m\" "
	several, warned := &collectors.Warning{Err: errors.New("several series")}, "Warning MetricCollectionWarning HPA shop/cart: External metric \"m\" (collector \"static\"): several series"
	recovered := "Normal MetricCollectionRecovered HPA shop/cart: External metric \"m\" is collected again"
	tests := map[string][]step{
		"a value is nothing to tell": {{0, 1, nil, ""}, {time.Minute, 1, nil, ""}},
		"a failure is told once, and its end once": {{0, 0, refused, failed + `cannot be collected (collector "static"): connection refused`},
			{time.Minute, 0, refused, ""}, {24 * time.Hour, 0, refused, ""}, {time.Minute, 1, nil, recovered}, {time.Minute, 1, nil, ""}},
		"another cause is told too": {{0, 0, refused, failed}, {time.Minute, 0, errors.New("no such host"), failed + `cannot be collected (collector "static"): no such host`},
			{time.Minute, 0, refused, ""}},
		"other numbers are no other cause": {{0, 0, errors.New("pod web-6d4f9c-x2k: dial 10.0.0.1:80: timeout"), failed}, {time.Minute, 0, errors.New("pod web-7c5b8f-9qz: dial 10.0.7.77:80: timeout"), ""}},
		"a source that flaps is told of every ten minutes at most": {{0, 0, refused, failed}, {time.Minute, 1, nil, recovered}, {time.Minute, 0, refused, ""}, {time.Minute, 1, nil, ""},
			{10 * time.Minute, 0, refused, failed}, {time.Minute, 1, nil, recovered}},
		"some pods failing for half a minute is told, with how many answered": {{0, 7, errors.New("pod b: refused"), ""}, {29 * time.Second, 7, errors.New("pod b: refused"), ""},
			{time.Second, 7, errors.New("pod b: refused"), failed + "was collected from 7 pods, but not from all"}, {time.Minute, 8, nil, recovered}},
		"pods that start are nothing to tell": {{0, 0, sample.NoData("no ready pods: 1 not running"), ""}, {time.Second, 0, sample.NoData("no ready pods: 1 not Ready"), ""}, {5 * time.Second, 1, nil, ""}},
		"no data for half a minute is told once, whatever its words": {{0, 0, sample.NoData("1 not running"), ""},
			{30 * time.Second, 0, sample.NoData("2 not Ready"), failed + `has no value (collector "static"): 2 not Ready`}, {time.Minute, 0, sample.NoData("1 terminating, 1 not Ready"), ""}, {time.Minute, 1, nil, recovered}},
		"each time without data begins anew":                      {{0, 0, sample.ErrNoData, ""}, {29 * time.Second, 1, nil, ""}, {time.Second, 0, sample.ErrNoData, ""}, {29 * time.Second, 0, sample.ErrNoData, ""}, {time.Second, 0, sample.ErrNoData, failed}},
		"a failure is told at once, also while there are no data": {{0, 0, sample.ErrNoData, ""}, {time.Second, 0, refused, failed}},
		"a warning beside a value is told once, and has no end":   {{0, 1, several, warned}, {time.Minute, 1, several, ""}, {time.Minute, 1, nil, ""}, {time.Hour, 1, several, ""}},
		"a warning ends a failure":                                {{0, 0, refused, failed}, {time.Minute, 1, several, recovered + "\n" + warned}, {time.Minute, 0, refused, ""}},
		"which pods they are is no other cause":                   {{0, 0, podsFailed("pod a"), failed}, {time.Minute, 0, podsFailed("pod b, c"), ""}},
	}
	for name, steps := range tests {
		t.Run(name, func(t *testing.T) {
			b := newBench(nil)
			b.handler.OnAdd(hpa("cart", time.Hour, "m=1"), true)
			for i, s := range steps {
				b.clock.SetTime(b.clock.Now().Add(s.after))
				b.Report(b.query(), s.points, s.err)
				got := strings.Join(b.events(), "\n")
				if (s.want == "") != (got == "") || !strings.HasPrefix(got, s.want) {
					t.Errorf("step %d: event %q, want %q", i, got, s.want)
				}
			}
		})
	}
}

func TestEventlessCases(t *testing.T) {
	b := newBench(nil)
	h := hpa("cart", time.Hour, "m=1")
	b.handler.OnAdd(h, true)
	q := b.query()
	for i := range 100 {
		b.Report(q, 0, fmt.Errorf("cause %s", strings.Repeat("x", i+1)))
	}
	if n := len(b.events()); n != maxCauses {
		t.Errorf("%d events for 100 causes, want %d", n, maxCauses)
	}
	b.handler.OnDelete(h)
	b.Report(q, 0, errors.New("late"))
	wantEvents(t, b)
}

// A metric that goes on failing for an hour, in ever other words, costs one Event.
func TestAnHourOfFailureIsOneEvent(t *testing.T) {
	b := newBench(nil)
	b.handler.OnAdd(hpa("cart", time.Hour, "m=1"), true)
	for i := range 240 {
		b.clock.SetTime(b.clock.Now().Add(15 * time.Second))
		b.Report(b.query(), i%3, fmt.Errorf("%d of 3 pods: %w", 3-i%3, podsFailed(fmt.Sprint("pod ", strings.Repeat("x", i%7)))))
	}
	wantEvents(t, b, "MetricCollectionFailed HPA shop/cart")
}

func TestWhatIsNotAskedForAnyMoreIsNotTold(t *testing.T) {
	b := newBench(func(o *Options) { o.AwaitLead = true })
	before, after := hpa("cart", time.Hour, "m=1"), hpa("cart", time.Hour)
	b.handler.OnAdd(before, true)
	b.Report(b.query(), 0, errors.New("refused"))
	b.handler.OnUpdate(before, after)
	b.Lead(true)
	wantEvents(t, b)
}

func TestWhatCannotBeCollectedIsBarred(t *testing.T) {
	b := newBench(nil)
	series := sample.Series{Kind: sample.External, Namespace: "shop", Metric: "m", Selector: "type=static"}
	want := func(barred bool) {
		t.Helper()
		if b.barred[series] != barred || len(b.barred) != 1 {
			t.Errorf("barred: %v, want %s: %t", b.barred, series, barred)
		}
	}
	bad, other, good := hpa("a", time.Hour, "m"), hpa("b", time.Hour, "m"), hpa("a", time.Hour, "m=1")
	b.handler.OnAdd(bad, true)
	want(true)
	b.handler.OnAdd(other, true)
	b.handler.OnUpdate(bad, good)
	want(true)
	b.handler.OnDelete(other)
	want(false)
	if len(b.Discovery.barred) != 0 {
		t.Errorf("%d series are kept", len(b.Discovery.barred))
	}
}

func TestBothHPAsOfOneQueryAreTold(t *testing.T) {
	b := newBench(nil)
	b.handler.OnAdd(hpa("a", time.Hour, "m=1"), true)
	b.handler.OnAdd(hpa("b", time.Hour, "m=1"), true)
	b.Report(b.query(), 0, errors.New("refused"))
	wantEvents(t, b, "MetricCollectionFailed HPA shop/a", "MetricCollectionFailed HPA shop/b")
}

func TestNothingIsWrittenBeforeTheElection(t *testing.T) {
	b := newBench(func(o *Options) { o.AwaitLead = true })
	b.handler.OnAdd(hpa("a", time.Hour, "m"), true)
	b.handler.OnAdd(hpa("b", time.Hour, "m=1"), true)
	b.handler.OnAdd(hpa("gone", time.Hour, "x"), true)
	b.Report(b.query(), 0, errors.New("refused"))
	b.Report(b.query(), 1, nil)
	b.handler.OnDelete(hpa("gone", time.Hour, "x"))
	wantEvents(t, b)
	b.Lead(true)
	wantEvents(t, b, `CreateNewMetricsCollector HPA shop/a: metric "m"`)
	b.Report(b.query(), 0, errors.New("no such host"))
	wantEvents(t, b, "MetricCollectionFailed HPA shop/b")
	b.Lead(true)
	wantEvents(t, b)
}

func TestOnlyTheLeaderWritesEvents(t *testing.T) {
	b := newBench(nil)
	b.handler.OnAdd(hpa("a", time.Hour, "m=1"), true)
	b.Lead(false)
	b.Report(b.query(), 0, errors.New("refused"))
	b.handler.OnAdd(hpa("b", time.Hour, "m"), true)
	wantEvents(t, b)
	b.Lead(true)
	wantEvents(t, b, "CreateNewMetricsCollector HPA shop/b", "MetricCollectionFailed HPA shop/a")
	b.Lead(false)
	b.Report(b.query(), 1, nil)
	wantEvents(t, b)
}

// What was wrong and has ended before somebody leads is not told, however it ended.
func TestANewLeaderTellsWhatIsWrongNow(t *testing.T) {
	a, mended := hpa("a", 2*time.Hour, "m=1"), hpa("a", 2*time.Hour, "m=2")
	warning := &collectors.Warning{Err: errors.New("it may not be what was meant")}
	tests := map[string]struct {
		happens func(b *bench)
		want    []string
	}{
		"an annotation was mended": {func(b *bench) {
			b.Report(b.query(), 0, errors.New("refused"))
			b.handler.OnUpdate(a, mended)
			b.Report(b.query(), 1, nil)
		}, nil},
		"a conflict ended with the older HPA": {func(b *bench) {
			b.handler.OnAdd(hpa("younger", time.Hour, "m=2"), true)
			b.handler.OnDelete(a)
		}, nil},
		"a conflict ended by agreeing": {func(b *bench) {
			younger := hpa("younger", time.Hour, "m=2")
			b.handler.OnAdd(younger, true)
			b.handler.OnUpdate(younger, hpa("younger", time.Hour, "m=1"))
		}, nil},
		"a conflict is there": {func(b *bench) {
			b.handler.OnAdd(hpa("younger", time.Hour, "m=2"), true)
		}, []string{"MetricConflict HPA shop/younger"}},
		"a value without the warning came": {func(b *bench) {
			b.Report(b.query(), 1, warning)
			b.Report(b.query(), 1, nil)
		}, nil},
		"the warning came back": {func(b *bench) {
			b.Report(b.query(), 1, warning)
			b.Report(b.query(), 1, nil)
			b.Report(b.query(), 1, warning)
		}, []string{"MetricCollectionWarning HPA shop/a"}},
		"a failure ended and another is there": {func(b *bench) {
			b.Report(b.query(), 0, errors.New("refused"))
			b.Report(b.query(), 1, nil)
			b.Report(b.query(), 0, errors.New("no such host"))
		}, []string{"MetricCollectionFailed HPA shop/a: External metric \"m\" cannot be collected (collector \"static\"): no such host"}},
		"a problem was mended": {func(b *bench) {
			bad := hpa("bad", time.Hour, "x")
			b.handler.OnAdd(bad, true)
			b.handler.OnUpdate(bad, hpa("bad", time.Hour, "x=1"))
		}, nil},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			b := newBench(func(o *Options) { o.AwaitLead = true })
			b.handler.OnAdd(a, true)
			tc.happens(b)
			b.Lead(true)
			wantEvents(t, b, tc.want...)
		})
	}
}

// The recorder drops what exceeds its queue, so a new leader tells of many failures at a pace; one that is over by then it leaves out.
func TestANewLeaderTellsOfManyAtAPace(t *testing.T) {
	const hpas = 250
	b := newBench(func(o *Options) { o.AwaitLead = true })
	for i := range hpas {
		b.handler.OnAdd(hpa(fmt.Sprintf("h%03d", i), time.Hour, fmt.Sprintf("m%d=1", i)), true)
	}
	queries := slices.Collect(maps.Keys(b.wanted))
	for _, q := range queries {
		b.Report(q, 0, errors.New("refused"))
	}
	b.Lead(true)
	told := b.events()
	if len(told) != atOnce {
		t.Fatalf("%d Events at once, want %d", len(told), atOnce)
	}
	isTold := func(q sample.Query) bool {
		return slices.ContainsFunc(told, func(e string) bool { return strings.Contains(e, fmt.Sprintf("%q", q.Metric)) })
	}
	over := slices.IndexFunc(queries, func(q sample.Query) bool { return !isTold(q) })
	b.Report(queries[over], 1, nil)
	b.events() // that it is over
	for want := 2 * atOnce; len(told) < hpas-1; want += atOnce {
		deadline := time.After(10 * time.Second)
		for !b.clock.HasWaiters() {
			select {
			case <-deadline:
				t.Fatalf("%d Events were told, and the others are not waited for", len(told))
			case <-time.After(time.Millisecond):
			}
		}
		b.clock.Step(pause)
		for len(told) < min(want, hpas-1) {
			select {
			case e := <-b.recorder.Events:
				told = append(told, e)
			case <-deadline:
				t.Fatalf("%d Events, want %d", len(told), want)
			}
		}
	}
	if more := b.events(); len(more) > 0 || isTold(queries[over]) {
		t.Errorf("told besides: %v; what is over: %t", more, isTold(queries[over]))
	}
}

// Whatever HPAs come, change and go, in any order: each series that is asked for is collected by exactly one query, and
// it is that of its oldest HPA.
func TestServedQueriesDependOnTheHPAsOnly(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := newBench(nil)
		live := map[string]*autoscalingv2.HorizontalPodAutoscaler{}
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			name := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "name")
			before := live[name]
			if before != nil && rapid.IntRange(0, 3).Draw(t, "delete") == 0 {
				b.handler.OnDelete(before)
				delete(live, name)
				continue
			}
			var metrics []string
			for _, m := range []string{"m", "n"} {
				if v := rapid.SampledFrom([]string{"", "=1", "=2"}).Draw(t, m); v != "" {
					metrics = append(metrics, m+v)
				}
			}
			after := hpa(name, time.Duration(rapid.IntRange(1, 3).Draw(t, "age"))*time.Hour, metrics...)
			if before == nil {
				b.handler.OnAdd(after, false)
			} else {
				after.CreationTimestamp = before.CreationTimestamp
				b.handler.OnUpdate(before, after)
			}
			live[name] = after
		}
		want := map[string]string{}
		for _, metric := range []string{"m", "n"} {
			var oldest *autoscalingv2.HorizontalPodAutoscaler
			for _, h := range live {
				if h.Annotations["metric-config.external."+metric+".static/value"] != "" && (oldest == nil ||
					h.CreationTimestamp.Before(&oldest.CreationTimestamp) || h.CreationTimestamp.Equal(&oldest.CreationTimestamp) && h.Name < oldest.Name) {
					oldest = h
				}
			}
			if oldest != nil {
				want[metric] = fmt.Sprintf(`{"value":%q}`, oldest.Annotations["metric-config.external."+metric+".static/value"])
			}
		}
		got := map[string]string{}
		for q, n := range b.wanted {
			if n < 0 || n > 1 || n == 1 && got[q.Metric] != "" {
				t.Fatalf("%s is wanted %d times", q.Metric, n)
			}
			if n == 1 {
				got[q.Metric] = q.Settings
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("collected (-want +got):\n%s", diff)
		}
	})
}
