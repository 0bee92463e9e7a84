package discovery

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubetide/kubetide/internal/sample"
)

// failing is an HPA whose metric m has a fallback.
func failing(hold, value string) *autoscalingv2.HorizontalPodAutoscaler {
	h := hpa("cart", time.Hour, "m=1")
	for key, v := range map[string]string{"hold": hold, "value": value} {
		if v != "" {
			h.Annotations["metric-config.external.m.static/fallback-"+key] = v
		}
	}
	return h
}

func (b *bench) set(a sample.Answer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.answer = a
}

// wait returns the next Event, which a timer causes.
func (b *bench) wait(t *testing.T) string {
	t.Helper()
	select {
	case e := <-b.recorder.Events:
		return e
	case <-time.After(20 * time.Second):
		t.Fatal("waited in vain for an event")
		return ""
	}
}

// fallbackEvents are those that are there and about fallbacks.
func (b *bench) fallbackEvents() []string {
	return slices.DeleteFunc(b.events(), func(e string) bool { return !strings.Contains(e, "MetricFallback") })
}

func number(milli int64) []sample.Point { return []sample.Point{{Milli: milli}} }

func TestAFallbackIsToldWhenItBeginsAndWhenItEnds(t *testing.T) {
	registry := prometheus.NewRegistry()
	b := newBench(func(o *Options) { o.Registerer = registry })
	h := failing("10m", "50")
	b.handler.OnAdd(h, true)
	q, boom := b.query(), errors.New("connection refused")
	if q.Fallback != (sample.Fallback{Hold: 10 * time.Minute, Fixed: true, Milli: 50_000}) {
		t.Fatalf("fallback %+v", q.Fallback)
	}
	metrics := func(want string) {
		t.Helper()
		if err := testutil.GatherAndCompare(registry, strings.NewReader(want), "kubetide_metric_fallback"); err != nil {
			t.Error(err)
		}
	}

	maxAge := 130 * time.Second
	b.set(sample.Answer{State: sample.Fresh, Points: number(12_000), Taken: start, MaxAge: maxAge})
	b.Report(q, 1, nil)
	b.Report(q, 0, boom)
	if got := b.fallbackEvents(); len(got) > 0 {
		t.Errorf("told while the value is fresh: %q", got)
	}
	metrics("")

	// The value becomes stale by time alone.
	lost := start.Add(maxAge)
	held := sample.Answer{State: sample.Fresh, Points: number(12_000), Taken: start, MaxAge: maxAge, Cause: boom,
		Instead: &sample.Instead{Stage: sample.Held, Since: lost, Until: lost.Add(10 * time.Minute)}}
	b.set(held)
	b.clock.Step(maxAge + 1)
	want := `Warning MetricFallbackStarted HPA shop/cart: External metric "m" has had no value since 2026-11-22T12:02:10Z; ` +
		`its last one, 12, is served until 2026-11-22T12:12:10Z, then 50 if that is higher (collector "static"): connection refused`
	if got := b.wait(t); got != want {
		t.Errorf("told  %s\nwant  %s", got, want)
	}
	metrics(`# HELP kubetide_metric_fallback 1 for a metric whose fallback is served; absent while all is well. Labeled by namespace, hpa and metric.
# TYPE kubetide_metric_fallback gauge
kubetide_metric_fallback{hpa="cart",metric="m",namespace="shop"} 1
`)
	b.Report(q, 0, boom)

	fixed := sample.Answer{State: sample.Fresh, Points: number(50_000), Taken: start, MaxAge: maxAge, Cause: boom, Instead: &sample.Instead{Stage: sample.Fixed, Since: lost}}
	b.set(fixed)
	b.clock.Step(10 * time.Minute)
	b.Report(q, 0, boom)
	if got := b.fallbackEvents(); len(got) > 0 {
		t.Errorf("the next stage was told: %q", got)
	}

	b.set(sample.Answer{State: sample.Fresh, Points: number(13_000), Taken: b.clock.Now(), MaxAge: maxAge})
	b.Report(q, 1, nil)
	if got := b.fallbackEvents(); len(got) != 1 || got[0] != `Normal MetricFallbackEnded HPA shop/cart: External metric "m" has a value of its source again` {
		t.Errorf("the end was told as %q", got)
	}
	metrics("")

	// A source that comes and goes does not fill the namespace with Events, but the metric shows it.
	b.set(held)
	b.Report(q, 0, boom)
	if got := b.fallbackEvents(); len(got) != 1 {
		t.Errorf("ten minutes later: %q", got)
	}
	for range 5 {
		b.set(sample.Answer{State: sample.Fresh, Points: number(13_000), Taken: b.clock.Now(), MaxAge: maxAge})
		b.Report(q, 1, nil)
		b.set(held)
		b.Report(q, 0, boom)
	}
	if got := b.fallbackEvents(); len(got) != 1 { // the end of the one that was told
		t.Errorf("a source that flaps: %q", got)
	}

	b.handler.OnDelete(h)
	metrics("")
	if n := len(b.looks); n != 0 || b.clock.HasWaiters() {
		t.Errorf("%d looks, waiting %t, for a series that nobody asks for", n, b.clock.HasWaiters())
	}
}

func TestAHoldThatIsOverIsTold(t *testing.T) {
	b := newBench(nil)
	b.handler.OnAdd(failing("10m", ""), true)
	q, boom := b.query(), errors.New("connection refused")
	until := start.Add(10 * time.Minute)
	b.set(sample.Answer{State: sample.Fresh, Points: number(12_000), Taken: start, MaxAge: time.Minute, Cause: boom,
		Instead: &sample.Instead{Stage: sample.Held, Since: start, Until: until}})
	b.Report(q, 0, boom)
	if got := b.fallbackEvents(); len(got) != 1 || !strings.Contains(got[0], "its last one, 12, is served until 2026-11-22T12:10:00Z, then none") {
		t.Errorf("the beginning was told as %q", got)
	}
	b.set(sample.Answer{State: sample.Stale, Cause: boom, Instead: &sample.Instead{Stage: sample.Over, Since: start}})
	b.clock.Step(10 * time.Minute)
	want := `Warning MetricFallbackEnded HPA shop/cart: External metric "m" has no value any more: its last one was held for 10m0s, and there is no fallback-value`
	if got := b.wait(t); got != want {
		t.Errorf("told  %s\nwant  %s", got, want)
	}
}

func TestAMetricThatNeverHadAValueFallsBackWhenItsHoldIsOver(t *testing.T) {
	b := newBench(nil)
	b.handler.OnAdd(failing("10m", "50"), true)
	q, boom := b.query(), errors.New("connection refused")
	b.set(sample.Answer{State: sample.Missing, Cause: boom, Instead: &sample.Instead{Stage: sample.Waiting, Since: start, Until: start.Add(10 * time.Minute)}})
	b.Report(q, 0, boom)
	if got := b.fallbackEvents(); len(got) != 0 {
		t.Errorf("told while there is no value: %q", got)
	}
	b.set(sample.Answer{State: sample.Fresh, Points: number(50_000), Cause: boom, Instead: &sample.Instead{Stage: sample.Fixed, Since: start}})
	b.clock.Step(10 * time.Minute)
	if got := b.wait(t); !strings.Contains(got, "MetricFallbackStarted") || !strings.Contains(got, "; 50 is served until it has one") {
		t.Errorf("told %s", got)
	}
}

func TestEachHPAIsToldOfTheFallbackOfItsOwnQuestion(t *testing.T) {
	b := newBench(nil)
	first := failing("", "50")
	b.handler.OnAdd(first, true)
	boom := errors.New("connection refused")
	b.set(sample.Answer{State: sample.Fresh, Points: number(50_000), Cause: boom, Instead: &sample.Instead{Stage: sample.Fixed, Since: start}})
	b.Report(b.query(), 0, boom)
	twin := failing("", "50")
	twin.Name, twin.UID = "twin", "twin"
	b.handler.OnAdd(twin, false)
	b.Report(b.query(), 0, boom)
	b.Report(b.query(), 0, boom)
	got := b.fallbackEvents()
	if len(got) != 2 || !strings.Contains(got[0], "HPA shop/cart") || !strings.Contains(got[1], "HPA shop/twin") {
		t.Errorf("told %q", got)
	}

	// Of two settings the older HPA's is served; the younger learns that, and the fallback is none of the other's question.
	other := failing("", "60")
	other.Name, other.UID, other.CreationTimestamp.Time = "young", "young", start
	b.handler.OnAdd(other, false)
	if got := b.events(); len(got) != 1 || !strings.Contains(got[0], "MetricConflict HPA shop/young") {
		t.Errorf("told %q", got)
	}
	b.handler.OnDelete(first)
	b.handler.OnDelete(twin)
	if q := b.query(); q.Fallback.Milli != 60_000 {
		t.Errorf("served %+v", q.Fallback)
	}
	for _, o := range b.objects {
		for series, f := range o.falls {
			t.Errorf("%s is said to have a fallback: %+v", series, f)
		}
	}
}

func TestTheFamiliesOfSingleMetricsAreBounded(t *testing.T) {
	registry := prometheus.NewRegistry()
	b := newBench(func(o *Options) { o.Registerer = registry })
	long := strings.Repeat("m", 300)
	for i := range maxNamed + 5 {
		h := hpa(fmt.Sprintf("hpa-%04d", i), time.Hour, long+"=") // without the value it needs
		h.UID = types.UID(h.Name)
		b.handler.OnAdd(h, true)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			if f.GetName() == "kubetide_hpa_metrics" {
				found[m.Label[0].GetValue()] = m.GetGauge().GetValue()
			} else if f.GetName() == "kubetide_metric_failing" {
				found["named"]++
				for _, l := range m.Label {
					if len(l.GetValue()) > maxLabel {
						t.Fatalf("label %s has %d bytes", l.GetName(), len(l.GetValue()))
					}
				}
			}
		}
	}
	if found["failing"] != maxNamed+5 || found["named"] != maxNamed || found["fallback"] != 0 {
		t.Errorf("found %v", found)
	}
}

// Who leads after it tells of no fallback that came to nothing and then was no longer needed.
func TestAFallbackThatIsOverIsNotToldByANewLeader(t *testing.T) {
	b := newBench(func(o *Options) { o.AwaitLead = true })
	b.handler.OnAdd(failing("10m", ""), true)
	q, boom, maxAge := b.query(), errors.New("connection refused"), 130*time.Second
	lost := start.Add(maxAge)
	held := sample.Answer{State: sample.Fresh, Points: number(12_000), Taken: start, MaxAge: maxAge, Cause: boom,
		Instead: &sample.Instead{Stage: sample.Held, Since: lost, Until: lost.Add(10 * time.Minute)}}
	missing := sample.Answer{State: sample.Missing, MaxAge: maxAge, Cause: boom}
	fresh := sample.Answer{State: sample.Fresh, Points: number(13_000), Taken: lost, MaxAge: maxAge}
	told := func(answers ...sample.Answer) []string {
		b.Lead(false)
		for _, a := range answers {
			b.set(a)
			b.Report(q, 0, boom)
		}
		b.Lead(true)
		return b.fallbackEvents()
	}
	if got := told(held); len(got) != 1 || !strings.Contains(got[0], ReasonFallback+" ") {
		t.Errorf("while the last value is held: %q", got)
	}
	if got := told(missing); len(got) != 1 || !strings.Contains(got[0], ReasonFallbackEnded+" ") {
		t.Errorf("when it is not held any more: %q", got)
	}
	if got := told(fresh); len(got) > 0 {
		t.Errorf("when there is a value: %q", got)
	}
}
