package store

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	clocktesting "k8s.io/utils/clock/testing"
	"pgregory.net/rapid"

	"github.com/kubetide/kubetide/internal/sample"
)

var start = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func external(metric, selector string) sample.Query {
	return sample.Query{Kind: sample.External, Namespace: "shop", Metric: metric, Selector: selector, Collector: "fake", Interval: 15 * time.Second}
}

func pods(metric, target string) sample.Query {
	return sample.Query{Kind: sample.Pods, Namespace: "shop", Metric: metric, Collector: "fake", Interval: 15 * time.Second,
		Target: sample.ObjectRef{Group: "apps", Kind: "Deployment", Name: target}}
}

func pod(app string, i int) sample.Point {
	name := fmt.Sprintf("%s-%03d", app, i)
	return sample.Point{Pod: name, UID: types.UID("uid-" + name), Labels: labels.Set{"app": app, "ordinal": fmt.Sprint(i)}, Milli: int64(i) * 1000}
}

func parse(t testing.TB, text string) labels.Selector {
	t.Helper()
	selector, err := labels.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return selector
}

func values(series []Served) []int64 {
	var out []int64
	for _, s := range series {
		for _, p := range s.Answer.Points {
			out = append(out, p.Milli)
		}
	}
	return out
}

func wantError(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q does not say %q", err, part)
		}
	}
}

func TestAnswer(t *testing.T) {
	q := external("queue", "")
	value := func(at time.Duration, milli int64) sample.Result {
		return sample.Result{Query: q, Taken: start.Add(at), Points: []sample.Point{{Milli: milli}}}
	}
	failure := func(at time.Duration, err error) sample.Result {
		return sample.Result{Query: q, Taken: start.Add(at), Err: err}
	}
	boom := errors.New("connection refused")
	aged := value(0, 5000)
	aged.Points[0].Age = 35 * time.Second
	tests := map[string]struct {
		results []sample.Result
		after   time.Duration
		state   sample.State
		milli   int64
		cause   string
	}{
		"before the first collection it is missing and says so": {nil, 0, sample.Missing, 0, "not been collected yet"},
		"a value is fresh": {[]sample.Result{value(0, 5000)}, time.Second, sample.Fresh, 5000, ""},
		"a value is fresh up to two intervals and ten seconds":        {[]sample.Result{value(0, 5000)}, 40 * time.Second, sample.Fresh, 5000, ""},
		"a value older than that is stale and no number":              {[]sample.Result{value(0, 5000)}, 40*time.Second + 1, sample.Stale, 0, "the last value is 40s old"},
		"age given by the source counts":                              {[]sample.Result{aged}, 6 * time.Second, sample.Stale, 0, "41s old"},
		"a failure keeps the last value while it is fresh":            {[]sample.Result{value(0, 5000), failure(15*time.Second, boom)}, 20 * time.Second, sample.Fresh, 5000, "connection refused"},
		"a failure does not make the value younger":                   {[]sample.Result{value(0, 5000), failure(30*time.Second, boom)}, 41 * time.Second, sample.Stale, 0, "connection refused"},
		"a failure without a value before is missing":                 {[]sample.Result{failure(0, boom)}, time.Second, sample.Missing, 0, "connection refused"},
		"no data drops the value at once":                             {[]sample.Result{value(0, 5000), failure(15*time.Second, fmt.Errorf("outside: %w", sample.ErrNoData))}, 16 * time.Second, sample.Missing, 0, "no value now"},
		"a newer value wins":                                          {[]sample.Result{value(0, 5000), value(15*time.Second, 6000)}, 16 * time.Second, sample.Fresh, 6000, ""},
		"a collection that began earlier does not replace a newer":    {[]sample.Result{value(15*time.Second, 6000), value(0, 5000)}, 16 * time.Second, sample.Fresh, 6000, ""},
		"two values of an external metric are an error":               {[]sample.Result{{Query: q, Taken: start, Points: []sample.Point{{Milli: 1}, {Milli: 2}}}}, 0, sample.Missing, 0, "2 values instead of 1"},
		"no value without an error is an error":                       {[]sample.Result{{Query: q, Taken: start}}, 0, sample.Missing, 0, "0 values instead of 1"},
		"a value that comes with an error is not used":                {[]sample.Result{{Query: q, Taken: start, Points: []sample.Point{{Milli: 1}}, Err: boom}}, 0, sample.Missing, 0, "connection refused"},
		"a value again after a failure has no cause any more":         {[]sample.Result{failure(0, boom), value(time.Second, 1000)}, 2 * time.Second, sample.Fresh, 1000, ""},
		"a negative value and zero are values like any other in here": {[]sample.Result{value(0, 0)}, time.Second, sample.Fresh, 0, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			clock := clocktesting.NewFakePassiveClock(start)
			s := New(clock, 0)
			s.Add(q, true)
			for _, r := range tt.results {
				s.Insert(r)
			}
			clock.SetTime(start.Add(tt.after))
			a := s.Answer(q)
			if a.State != tt.state {
				t.Fatalf("state %s, want %s (cause %v)", a.State, tt.state, a.Cause)
			}
			if (len(a.Points) > 0) != (tt.state == sample.Fresh) {
				t.Fatalf("%d points in state %s", len(a.Points), a.State)
			}
			if tt.state == sample.Fresh && a.Points[0].Milli != tt.milli {
				t.Errorf("value %d, want %d", a.Points[0].Milli, tt.milli)
			}
			switch {
			case tt.cause == "" && a.Cause != nil:
				t.Errorf("cause %v, want none", a.Cause)
			case tt.cause != "":
				wantError(t, a.Cause, tt.cause)
			}
			if _, err := s.External("shop", "queue", nil); (err == nil) != (tt.state == sample.Fresh) {
				t.Errorf("the API would answer %v in state %s", err, tt.state)
			}
		})
	}
}

func TestPointsOfOneAnswerAgeEachForItself(t *testing.T) {
	clock := clocktesting.NewFakePassiveClock(start)
	s := New(clock, 0)
	q := pods("rps", "web")
	young, old, ancient := pod("web", 1), pod("web", 2), pod("web", 3)
	old.Age, ancient.Age = time.Second, math.MaxInt64
	s.Add(q, true)
	s.Insert(sample.Result{Query: q, Taken: start, Points: []sample.Point{young, old, ancient}})
	for _, step := range []struct {
		after time.Duration
		want  int
	}{{0, 2}, {39 * time.Second, 2}, {39*time.Second + 1, 1}, {40 * time.Second, 1}, {40*time.Second + 1, 0}} {
		clock.SetTime(start.Add(step.after))
		if a := s.Answer(q); len(a.Points) != step.want || (a.State == sample.Fresh) != (step.want > 0) {
			t.Errorf("after %s: %d points, %s; want %d", step.after, len(a.Points), a.State, step.want)
		}
	}
}

func TestMaxAgeIsLimitedByTheOperator(t *testing.T) {
	clock := clocktesting.NewFakePassiveClock(start)
	s := New(clock, 20*time.Second)
	q := external("queue", "")
	s.Add(q, true)
	s.Insert(sample.Result{Query: q, Taken: start, Points: []sample.Point{{Milli: 1}}})
	clock.SetTime(start.Add(21 * time.Second))
	if a := s.Answer(q); a.State != sample.Stale {
		t.Errorf("state %s, want Stale", a.State)
	}
}

func TestExternal(t *testing.T) {
	clock := clocktesting.NewFakePassiveClock(start)
	s := New(clock, 0)
	insert := func(selector string, milli int64) {
		q := external("queue", selector)
		s.Add(q, true)
		s.Insert(sample.Result{Query: q, Taken: clock.Now(), Points: []sample.Point{{Milli: milli}}})
	}
	insert("queue=a,type=sqs", 1000)
	insert("queue=b,type=sqs", 2000)
	insert("team in (x)", 4000)
	hidden := external("queue", "type=hidden")
	s.Add(hidden, false)
	s.Insert(sample.Result{Query: hidden, Taken: start, Points: []sample.Point{{Milli: 99}}})
	waiting := external("queue", "type=waiting")
	s.Add(waiting, true)

	tests := map[string]struct {
		namespace, metric, selector string
		want                        []int64
		err                         string
	}{
		"the exact selector gives one series":                    {"shop", "queue", "queue=a,type=sqs", []int64{1000}, ""},
		"another order of the labels is the same selector":       {"shop", "queue", "type=sqs,queue=b", []int64{2000}, ""},
		"a subset gives all series that it matches":              {"shop", "queue", "type=sqs", []int64{1000, 2000}, ""},
		"an expression is honored":                               {"shop", "queue", "queue in (b,c)", []int64{2000}, ""},
		"in with one value is a label":                           {"shop", "queue", "team=x", []int64{4000}, ""},
		"one series without a value spoils the sum":              {"shop", "queue", "", nil, `"queue"{type=waiting}, one of those that "" selects, has no value: it has not been collected yet`},
		"labels that nobody has are an error":                    {"shop", "queue", "type=kafka", nil, `labels that match "type=kafka"`},
		"a series that is not served is not found":               {"shop", "queue", "type=hidden", nil, `labels that match`},
		"another namespace sees nothing":                         {"bank", "queue", "type=sqs", nil, `no HPA of namespace bank asks for external metric "queue"`},
		"an unknown metric is an error that names it":            {"shop", "stack", "", nil, `"stack"`},
		"the exact series without a value says why there's none": {"shop", "queue", "type=waiting", nil, "has no value: it has not been collected yet"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := s.External(tt.namespace, tt.metric, parse(t, tt.selector))
			if tt.err != "" {
				wantError(t, err, tt.err)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, values(got)); diff != "" {
				t.Errorf("values (-want +got):\n%s", diff)
			}
		})
	}
}

// An HPA whose metric cannot be collected gets no other's value, and nobody a sum without it.
func TestBarredSeries(t *testing.T) {
	s := New(clocktesting.NewFakePassiveClock(start), 0)
	a := external("queue", "queue=a,type=sqs")
	ingress := sample.Query{Kind: sample.Object, Namespace: "shop", Metric: "rps", Selector: "backend=green", Object: sample.ObjectRef{Kind: "Service", Name: "web"}, Interval: time.Minute}
	for _, q := range []sample.Query{a, ingress} {
		s.Add(q, true)
		s.Insert(sample.Result{Query: q, Taken: start, Points: []sample.Point{{Milli: 1000}}})
	}
	sum, exact, object := external("queue", "type=sqs").Series(), external("queue", "queue=b,type=sqs").Series(), ingress.Series()
	object.Selector = ""
	tests := map[string]struct {
		bar    sample.Series
		ask    func() error
		refuse bool
	}{
		"the address itself":                  {sum, func() error { _, err := s.External("shop", "queue", parse(t, "type=sqs")); return err }, true},
		"a sum of which it is a part":         {exact, func() error { _, err := s.External("shop", "queue", parse(t, "type=sqs")); return err }, true},
		"a sum of which it is no part":        {exact, func() error { _, err := s.External("shop", "queue", parse(t, "queue=a")); return err }, false},
		"a series of its own":                 {sum, func() error { _, err := s.External("shop", "queue", parse(t, "queue=a,type=sqs")); return err }, false},
		"an object's":                         {object, func() error { _, err := s.Object("shop", "rps", object.Object, nil); return err }, true},
		"another series of a barred object's": {object, func() error { _, err := s.Object("shop", "rps", object.Object, parse(t, "backend=green")); return err }, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s.Bar(tt.bar, true)
			if err := tt.ask(); (err != nil) != tt.refuse {
				t.Errorf("barred: %v, want an error: %t", err, tt.refuse)
			}
			s.Bar(tt.bar, false)
			if err := tt.ask(); err != nil {
				t.Errorf("allowed again: %v", err)
			}
		})
	}
	if series, metrics := s.bars.size(); series+metrics != 0 {
		t.Error("something is still barred")
	}
}

func TestPods(t *testing.T) {
	clock := clocktesting.NewFakePassiveClock(start)
	s := New(clock, 0)
	insert := func(q sample.Query, err error, points ...sample.Point) {
		s.Add(q, true)
		s.Insert(sample.Result{Query: q, Taken: clock.Now(), Points: points, Err: err})
	}
	insert(pods("rps", "web"), nil, pod("web", 2), pod("web", 1))
	insert(pods("rps", "api"), errors.New("api-003: timeout"), pod("api", 4))
	insert(pods("rps", "down"), errors.New("refused"))
	labelled := pods("rps", "web")
	labelled.Selector = "path=cart"
	insert(labelled, nil, sample.Point{Pod: "web-001", UID: "uid-web-001", Labels: labels.Set{"app": "web", "ordinal": "1"}, Milli: 77})
	insert(pods("load", "one"), nil, pod("both", 1), pod("both", 2))
	insert(pods("load", "two"), nil, pod("both", 2), pod("both", 3))
	canary := func(milli int64) sample.Point {
		return sample.Point{Pod: "shop-9", UID: "uid-shop-9", Labels: labels.Set{"app": "shop", "track": "canary"}, Milli: milli}
	}
	shop := sample.Point{Pod: "shop-1", UID: "uid-shop-1", Labels: labels.Set{"app": "shop", "track": "stable"}, Milli: 1}
	insert(pods("lag", "a-shop"), nil, shop, canary(2))
	insert(pods("lag", "a-canary"), nil, canary(3))
	insert(pods("lag", "all"), nil, shop, canary(4), sample.Point{Pod: "z", UID: "z", Labels: labels.Set{"app": "z"}, Milli: 5})

	tests := map[string]struct {
		metric, pods, selector string
		want                   []int64
		err                    string
	}{
		"the target's selector gives its pods, sorted":                           {"rps", "app=web", "", []int64{1000, 2000}, ""},
		"pods without a value are absent":                                        {"rps", "app=api", "", []int64{4000}, ""},
		"any other selector works by labels":                                     {"rps", "ordinal in (1,4)", "", []int64{4000, 1000}, ""},
		"everything gives all pods":                                              {"rps", "", "", []int64{4000, 1000, 2000}, ""},
		"an exclusion is decided pod by pod":                                     {"rps", "app=web,ordinal!=1", "", []int64{2000}, ""},
		"a label that no pod has is an absence":                                  {"rps", "app=web,!canary", "", []int64{1000, 2000}, ""},
		"the metric selector picks the series":                                   {"rps", "app=web", "path=cart", []int64{77}, ""},
		"an unknown metric selector gives nothing":                               {"rps", "app=web", "path=pay", nil, "no pod that"},
		"a pod of two targets counts once":                                       {"load", "app=both", "", []int64{1000, 2000, 3000}, ""},
		"the values are those of the target that is meant, not of one around it": {"lag", "app=shop,track=canary", "", []int64{3}, ""},
		"nor of one within it":                                                   {"lag", "app=shop", "", []int64{1, 2}, ""},
		"no pod at all is an error with the cause of those without":              {"rps", "app=other", "", nil, "pods of Deployment.apps/down: refused"},
		"an unknown metric is an error":                                          {"errors", "app=web", "", nil, `no HPA of namespace shop asks for metric "errors" of pods`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			for range 2 { // the second answer comes from the memo
				got, err := s.Pods("shop", tt.metric, parse(t, tt.pods), parse(t, tt.selector))
				if tt.err != "" {
					wantError(t, err, tt.err)
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(tt.want, values(got)); diff != "" {
					t.Errorf("values (-want +got):\n%s", diff)
				}
			}
		})
	}
	if got, err := s.Pod("shop", "rps", "web-002", nil); err != nil || got.Answer.Points[0].Milli != 2000 {
		t.Errorf("pod by name: %v, %v", got.Answer.Points, err)
	}
	if _, err := s.Pod("shop", "rps", "web-009", nil); err == nil {
		t.Error("a pod without a value was found")
	}
}

func TestPodsFollowLabelsAndNewSeries(t *testing.T) {
	clock := clocktesting.NewFakePassiveClock(start)
	s := New(clock, 0)
	q := pods("rps", "web")
	s.Add(q, true)
	ask := func() []int64 {
		got, _ := s.Pods("shop", "rps", parse(t, "app=web"), nil)
		return values(got)
	}
	insert := func(points ...sample.Point) {
		s.Insert(sample.Result{Query: q, Taken: clock.Now(), Points: points})
	}
	check := func(what string, want ...int64) {
		t.Helper()
		if diff := cmp.Diff(want, ask()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	check("before the first value")
	insert(pod("other", 1))
	check("pods with other labels")
	insert(pod("web", 1))
	check("relabelled pods", 1000)
	insert(pod("other", 1), pod("web", 2))
	check("mixed pods", 2000)
	second := pods("rps", "more")
	s.Add(second, true)
	s.Insert(sample.Result{Query: second, Taken: clock.Now(), Points: []sample.Point{pod("web", 7)}})
	check("a second series", 7000, 2000) // in the order of the targets' names
	s.Forget(second)
	check("the second series forgotten", 2000)
}

func TestObject(t *testing.T) {
	clock := clocktesting.NewFakePassiveClock(start)
	s := New(clock, 0)
	insert := func(group, kind, name, selector string, milli int64) {
		q := sample.Query{Kind: sample.Object, Namespace: "shop", Metric: "rps", Selector: selector, Interval: time.Minute,
			Object: sample.ObjectRef{Group: group, Kind: kind, Name: name}}
		s.Add(q, true)
		s.Insert(sample.Result{Query: q, Taken: clock.Now(), Points: []sample.Point{{Milli: milli}}})
	}
	insert("networking.k8s.io", "Ingress", "web", "backend=blue", 1)
	insert("networking.k8s.io", "Ingress", "web", "backend=green", 2)
	insert("example.org", "Widget", "w", "", 3)
	insert("example.org", "Widget", "v", "", 4)
	ingress := sample.ObjectRef{Group: "networking.k8s.io", Kind: "Ingress", Name: "web"}
	widget := sample.ObjectRef{Group: "example.org", Kind: "Widget", Name: "w"}
	tests := map[string]struct {
		object   sample.ObjectRef
		selector string
		want     int64
		err      string
	}{
		"any kind is found":                              {widget, "", 3, ""},
		"the metric selector tells two series apart":     {ingress, "backend=green", 2, ""},
		"no selector is ambiguous between two series":    {ingress, "", 0, "several series"},
		"an expression can decide":                       {ingress, "backend!=green", 1, ""},
		"another group of the same kind is another":      {sample.ObjectRef{Group: "other.org", Kind: "Widget", Name: "w"}, "", 0, "no HPA of namespace shop"},
		"an object that nobody describes is an error":    {sample.ObjectRef{Group: "example.org", Kind: "Widget", Name: "x"}, "", 0, "Widget.example.org/x"},
		"a metric selector that matches no series fails": {widget, "a=b", 0, "no HPA of namespace shop"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := s.Object("shop", "rps", tt.object, parse(t, tt.selector))
			if tt.err != "" {
				wantError(t, err, tt.err)
				return
			}
			if err != nil || got.Answer.Points[0].Milli != tt.want {
				t.Errorf("%v, %v; want %d", got.Answer.Points, err, tt.want)
			}
		})
	}
	all, err := s.Objects("shop", "rps", schema.GroupKind{Group: "example.org", Kind: "Widget"}, nil)
	if err != nil || len(all) != 2 {
		t.Errorf("all widgets: %v, %v", values(all), err)
	}
	if _, err := s.Objects("shop", "rps", schema.GroupKind{Kind: "Node"}, nil); err == nil {
		t.Error("nodes were found")
	}
}

func TestForgottenQueriesRefuseResults(t *testing.T) {
	clock := clocktesting.NewFakePassiveClock(start)
	s := New(clock, 0)
	q := external("queue", "")
	r := sample.Result{Query: q, Taken: start, Points: []sample.Point{{Milli: 1}}}
	if s.Insert(r) {
		t.Error("a result was accepted that nobody asks for")
	}
	s.Add(q, true)
	if !s.Insert(r) {
		t.Error("a wanted result was refused")
	}
	s.Forget(q)
	if s.Insert(r) {
		t.Error("a result was accepted after Forget")
	}
	if a := s.Answer(q); a.State != sample.Missing {
		t.Errorf("state %s after Forget", a.State)
	}
	if _, err := s.External("shop", "queue", nil); err == nil {
		t.Error("a forgotten metric is served")
	}
	s.Add(q, true)
	if a := s.Answer(q); a.State != sample.Missing {
		t.Errorf("state %s after adding again: the old value came back", a.State)
	}
	if !s.Insert(r) {
		t.Error("a result was refused after adding again")
	}
	s.Forget(q)
	if series, metrics := s.served.size(); s.queries.size()+series+metrics != 0 {
		t.Errorf("forgotten queries are kept: %d, %d series, %d metrics", s.queries.size(), series, metrics)
	}
}

func TestOnlyOneQueryOfASeriesIsServed(t *testing.T) {
	clock := clocktesting.NewFakePassiveClock(start)
	s := New(clock, 0)
	older, younger := external("queue", ""), external("queue", "")
	younger.Settings = `{"region":"b"}`
	for i, q := range []sample.Query{older, younger} {
		s.Add(q, true)
		s.Insert(sample.Result{Query: q, Taken: start, Points: []sample.Point{{Milli: int64(i)}}})
	}
	if got, err := s.External("shop", "queue", nil); err != nil || len(got) != 1 || got[0].Answer.Points[0].Milli != 1 {
		t.Errorf("%v, %v; want the one that was added last", values(got), err)
	}
	s.Add(older, true)
	s.Forget(younger)
	if got, err := s.External("shop", "queue", nil); err != nil || values(got)[0] != 0 {
		t.Errorf("%v, %v; want the first again", values(got), err)
	}
	if a := s.Answer(older); a.State != sample.Fresh {
		t.Errorf("the engine reads %s", a.State)
	}
}

func TestPodsThatAreGone(t *testing.T) {
	clock := clocktesting.NewFakePassiveClock(start)
	s := New(clock, 0)
	q := pods("rps", "web")
	s.Add(q, true)
	result := func() sample.Result {
		return sample.Result{Query: q, Taken: clock.Now(), Points: []sample.Point{pod("web", 1), pod("web", 2)}}
	}
	s.Insert(result())
	s.ForgetPod("shop", "uid-web-001")
	s.ForgetPod("bank", "uid-web-002")
	if got, err := s.Pods("shop", "rps", parse(t, "app=web"), nil); err != nil || !slices.Equal(values(got), []int64{2000}) {
		t.Errorf("after one pod went: %v, %v", values(got), err)
	}
	clock.SetTime(start.Add(5 * time.Second))
	late := result()
	s.Insert(late)
	if a := s.Answer(q); len(a.Points) != 1 {
		t.Errorf("a collection that was running brought the pod back: %d points", len(a.Points))
	}
	if diff := cmp.Diff(result().Points, late.Points); diff != "" {
		t.Errorf("what goes on to other servers was changed: %s", diff)
	}
	s.ForgetPod("shop", "uid-web-002")
	if a := s.Answer(q); a.State != sample.Missing {
		t.Errorf("state %s after the last pod went", a.State)
	}
	clock.SetTime(start.Add(2 * time.Minute))
	s.ForgetPod("shop", "uid-other")
	if n := len(s.pods.gone); n != 1 {
		t.Errorf("%d pods are remembered, want only the last", n)
	}
}

func TestSubscribersHearEveryChange(t *testing.T) {
	clock := clocktesting.NewFakePassiveClock(start)
	s := New(clock, 0)
	q := pods("rps", "web")
	calls := 0
	cancel := s.Subscribe(q, func() {
		calls++
		s.Answer(q)                 // the lock is not held
		s.Subscribe(q, func() {})() // nor the subscriptions'
	})
	steps := []struct {
		what string
		do   func()
		want int
	}{
		{"added", func() { s.Add(q, false) }, 0},
		{"inserted", func() { s.Insert(sample.Result{Query: q, Taken: start, Points: []sample.Point{pod("web", 1)}}) }, 1},
		{"failed", func() { s.Insert(sample.Result{Query: q, Taken: start, Err: errors.New("x")}) }, 2},
		{"another query", func() { s.Insert(sample.Result{Query: external("a", ""), Taken: start}) }, 2},
		{"an unknown pod went", func() { s.ForgetPod("shop", "uid-else") }, 2},
		{"its pod went", func() { s.ForgetPod("shop", "uid-web-001") }, 3},
		{"forgotten", func() { s.Forget(q) }, 4},
		{"asked for again, the subscription holds", func() {
			s.Add(q, false)
			s.Insert(sample.Result{Query: q, Taken: start, Points: []sample.Point{pod("web", 1)}})
		}, 5},
		{"canceled", func() { cancel(); cancel(); s.Forget(q) }, 5},
	}
	for _, step := range steps {
		step.do()
		if calls != step.want {
			t.Fatalf("%s: notified %d times, want %d", step.what, calls, step.want)
		}
	}
}

// The store answers as a list that is searched from end to end would, whatever happened before.
func TestStoreEqualsANaiveOne(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		clock := clocktesting.NewFakePassiveClock(start)
		s := New(clock, 0)
		naive := map[sample.Query]sample.Result{}
		targets := []string{"a", "b", "c"}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			q := pods("rps", rapid.SampledFrom(targets).Draw(t, "target"))
			switch rapid.IntRange(0, 4).Draw(t, "step") {
			case 0:
				s.Add(q, true)
				if _, ok := naive[q]; !ok {
					naive[q] = sample.Result{}
				}
			case 1:
				s.Forget(q)
				delete(naive, q)
			case 2, 3:
				var points []sample.Point
				for i := range rapid.IntRange(1, 4).Draw(t, "pods") {
					p := pod(rapid.SampledFrom(targets).Draw(t, "app"), i)
					p.Pod = q.Target.Name + p.Pod
					points = append(points, p)
				}
				r := sample.Result{Query: q, Taken: clock.Now(), Points: points}
				s.Insert(sample.Result{Query: q, Taken: clock.Now(), Points: slices.Clone(points)})
				if _, ok := naive[q]; ok {
					naive[q] = r
				}
			case 4:
				clock.SetTime(clock.Now().Add(time.Duration(rapid.IntRange(1, 30).Draw(t, "seconds")) * time.Second))
			}
			selector := labels.SelectorFromSet(labels.Set{"app": rapid.SampledFrom(targets).Draw(t, "ask")})
			if rapid.Bool().Draw(t, "not") {
				ordinal, _ := labels.Parse("ordinal notin (1)")
				r, _ := ordinal.Requirements()
				selector = selector.Add(r...)
			}
			want := map[string]int64{}
			for _, r := range naive {
				if clock.Now().Sub(r.Taken) > 40*time.Second {
					continue
				}
				for _, p := range r.Points {
					if selector.Matches(p.Labels) {
						want[p.Pod] = p.Milli
					}
				}
			}
			got := map[string]int64{}
			series, _ := s.Pods("shop", "rps", selector, nil)
			for _, served := range series {
				for _, p := range served.Answer.Points {
					got[p.Pod] = p.Milli
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("pods of %s (-want +got):\n%s", selector, diff)
			}
		}
	})
}

// Two queries have one key only if they are equal: the store would give one of them the other's values.
func TestKeysTellQueriesApart(t *testing.T) {
	text := rapid.SampledFrom([]string{"", "a", "aa", "\x00", "\x01", "\x01a", strings.Repeat("a", 127), strings.Repeat("a", 128), strings.Repeat("a", 600)})
	fill := func(t *rapid.T, q *sample.Query, field int) {
		fields := leaves(reflect.ValueOf(q).Elem())
		switch f := fields[field%len(fields)]; f.Kind() {
		case reflect.String:
			f.SetString(text.Draw(t, "text"))
		case reflect.Bool:
			f.SetBool(rapid.Bool().Draw(t, "flag"))
		default:
			f.SetInt(rapid.Int64Range(-130, 130).Draw(t, "number"))
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		var q sample.Query
		n := len(leaves(reflect.ValueOf(q)))
		for i := range n {
			fill(t, &q, i)
		}
		q.Kind = rapid.SampledFrom([]sample.Kind{sample.Pods, sample.Object, sample.External, sample.Resource}).Draw(t, "kind")
		other := q
		for _, i := range rapid.SliceOfN(rapid.IntRange(1, n-1), 1, 3).Draw(t, "change") {
			fill(t, &other, i)
		}
		s := New(clocktesting.NewFakePassiveClock(start), 0)
		s.Add(q, true)
		if found := s.entry(&other) != nil; found != (q == other) {
			t.Fatalf("found: %t\n%s", found, cmp.Diff(q, other))
		}
		if s.entry(&q) == nil {
			t.Fatal("the query itself is not found")
		}
	})
}

func leaves(v reflect.Value) []reflect.Value {
	if v.Kind() != reflect.Struct {
		return []reflect.Value{v}
	}
	var all []reflect.Value
	for i := range v.NumField() {
		all = append(all, leaves(v.Field(i))...)
	}
	return all
}

func TestTextIsTheSelectorsOwn(t *testing.T) {
	for _, in := range []string{"", "a=b", "a=b,c=d", "b=1,a=2", "a==b", "a in (b)", "a in (b,c),d=e", "!a", "a", "a!=b", "a=b,a=c", "a=b,a!=c", "a!=c,a=b", "a=", "a>1"} {
		selector := parse(t, in)
		if got, want := text(selector), selector.String(); got != want {
			t.Errorf("%q: text %q, want %q", in, got, want)
		}
	}
	if text(labels.Nothing()) != labels.Nothing().String() {
		t.Error("the text of a selector that matches nothing")
	}
}

func TestReadersAndWritersTogether(t *testing.T) {
	s := New(clocktesting.NewFakePassiveClock(start), 0)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 300 {
				q := pods("rps", fmt.Sprint(i%7))
				s.Add(q, true)
				s.Insert(sample.Result{Query: q, Taken: start, Points: []sample.Point{pod("a", i%5), pod("b", i%3)}})
				cancel := s.Subscribe(q, func() {})
				if got, err := s.Pods("shop", "rps", labels.SelectorFromSet(labels.Set{"app": "a"}), nil); err == nil {
					for _, v := range values(got) {
						if v > 4000 {
							t.Errorf("value %d of another pod", v)
						}
					}
				}
				s.ForgetPod("shop", types.UID(fmt.Sprintf("uid-b-%03d", i%3)))
				cancel()
				if (i+w)%5 == 0 {
					s.Forget(q)
				}
				s.Each(func(sample.Query, sample.Answer) {})
			}
		})
	}
	wg.Wait()
}

func TestForgottenQueriesLeaveNothingBehind(t *testing.T) {
	s := New(clocktesting.NewFakePassiveClock(start), 0)
	var queries []sample.Query
	for i := range 1000 {
		q := sample.Query{Kind: []sample.Kind{sample.External, sample.Pods, sample.Object, sample.Resource}[i%4], Namespace: fmt.Sprint("ns-", i%7),
			Metric: fmt.Sprint("m", i/4), Selector: fmt.Sprintf("n=%d", i), Collector: "fake", Interval: time.Minute}
		queries = append(queries, q)
		s.Add(q, i%3 > 0)
		s.Insert(sample.Result{Query: q, Taken: start, Points: []sample.Point{{Pod: "a", UID: "a", Milli: 1}}})
		cancel := s.Subscribe(q, func() {})
		defer cancel()
		if i%2 == 0 {
			cancel()
		}
	}
	for i, q := range queries {
		if i%5 == 0 {
			s.Add(q, true)
		}
		s.Forget(q)
	}
	series, metrics := s.served.size()
	if entries := s.queries.size(); entries != 500 || series != 0 || metrics != 0 || len(s.pods.entries) != 0 { // 500 are still subscribed to
		t.Errorf("%d entries, want the 500 subscribed ones; %d series, %d metrics, %d namespaces with pods", entries, series, metrics, len(s.pods.entries))
	}
}

func (t *table) size() (n int) {
	for i := range t.shards {
		n += t.shards[i].n
	}
	return n
}

func (x *index) size() (series, metrics int) {
	for range x.metrics.Range {
		metrics++
	}
	return x.series.size(), metrics
}

// Whatever writers are about, and wherever one is held up, readers are answered.
func TestReadersWaitForNoWriter(t *testing.T) {
	s := New(clocktesting.NewFakePassiveClock(start), 0)
	object := sample.Query{Kind: sample.Object, Namespace: "shop", Metric: "hits", Collector: "fake", Interval: time.Minute,
		Object: sample.ObjectRef{Kind: "Service", Name: "front"}}
	for _, q := range []sample.Query{external("queue", "n=1"), external("queue", "n=2"), object} {
		s.Add(q, true)
		s.Insert(sample.Result{Query: q, Taken: start, Points: []sample.Point{{Milli: 1}}})
	}
	s.Add(pods("rps", "a"), true)
	s.Insert(sample.Result{Query: pods("rps", "a"), Taken: start, Points: []sample.Point{pod("a", 1), pod("a", 2)}})
	s.Bar(external("other", "n=1").Series(), true)

	for i := range shards {
		s.queries.shards[i].mu.Lock()
		s.served.series.shards[i].mu.Lock()
		s.bars.series.shards[i].mu.Lock()
	}
	s.served.mu.Lock()
	s.bars.mu.Lock()
	s.pods.mu.Lock()
	for i := range shards {
		for e := range s.queries.shards[i].all {
			e.mu.Lock()
		}
	}
	reads := map[string]func() error{
		"External by its selector": func() error { _, err := s.External("shop", "queue", parse(t, "n=1")); return err },
		"External, several":        func() error { _, err := s.External("shop", "queue", nil); return err },
		"Object":                   func() error { _, err := s.Object("shop", "hits", object.Object, nil); return err },
		"Objects":                  func() error { _, err := s.Objects("shop", "hits", schema.GroupKind{Kind: "Service"}, nil); return err },
		"Pods":                     func() error { _, err := s.Pods("shop", "rps", parse(t, "app=a"), nil); return err },
		"Pod":                      func() error { _, err := s.Pod("shop", "rps", pod("a", 1).Pod, nil); return err },
		"Answer":                   func() error { return s.Answer(external("queue", "n=2")).Cause },
		"Each":                     func() error { s.Each(func(sample.Query, sample.Answer) {}); return nil },
	}
	for name, read := range reads {
		answered := make(chan error, 1)
		go func() { answered <- read() }()
		select {
		case err := <-answered:
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("%s waits for a writer", name)
		}
	}
}
