package wants

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	clocktesting "k8s.io/utils/clock/testing"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	"github.com/kubetide/kubetide/internal/sample"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var start = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// shelf counts who wants and hears what. A release or cancel that comes twice is a fault.
type shelf struct {
	t  *testing.T
	mu sync.Mutex
	// wanted and told are by the metric's name.
	wanted map[string]int
	told   map[string]map[int]func()
	serial int
	asked  int
	// atOnce has Subscribe call back before it returns, as a store may that has news just then.
	atOnce bool
}

func newShelf(t *testing.T) *shelf {
	s := &shelf{t: t, wanted: map[string]int{}, told: map[string]map[int]func(){}}
	t.Cleanup(func() {
		if left := s.state(); len(left) > 0 {
			t.Errorf("still collected at the end: %v", left)
		}
	})
	return s
}

func (s *shelf) Queries(o metav1.Object, _ autoscalingv2.CrossVersionObjectReference, metrics []autoscalingv2.MetricSpec) []sample.Asked {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	var out []sample.Asked
	for _, m := range metrics {
		a := sample.Asked{Query: sample.Query{Kind: sample.External, Namespace: o.GetNamespace(), Metric: m.External.Metric.Name, Settings: o.GetAnnotations()["metric-config.x"]}}
		switch m.External.Metric.Name {
		case "broken":
			a = sample.Asked{Err: errors.New("no such collector")}
		case "odd":
			a.Warnings = []string{"typo has no effect"}
		}
		out = append(out, a)
	}
	return out
}

func (s *shelf) once(do func()) func() {
	done := false
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if done {
			s.t.Error("released or cancelled twice")
			return
		}
		done = true
		do()
	}
}

func (s *shelf) Want(q sample.Query) func() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wanted[q.Metric]++
	return s.once(func() {
		if s.wanted[q.Metric]--; s.wanted[q.Metric] == 0 {
			delete(s.wanted, q.Metric)
		}
	})
}

func (s *shelf) Subscribe(q sample.Query, notify func()) func() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.serial++
	id := s.serial
	if s.told[q.Metric] == nil {
		s.told[q.Metric] = map[int]func(){}
	}
	s.told[q.Metric][id] = notify
	if s.atOnce {
		notify()
	}
	return s.once(func() {
		if delete(s.told[q.Metric], id); len(s.told[q.Metric]) == 0 {
			delete(s.told, q.Metric)
		}
	})
}

func (s *shelf) Answer(sample.Query) sample.Answer { return sample.Answer{} }

// says tells all who subscribed to the metric.
func (s *shelf) says(metric string) {
	s.mu.Lock()
	told := slices.Collect(maps.Values(s.told[metric]))
	s.mu.Unlock()
	for _, notify := range told {
		notify()
	}
}

// state is how often each metric is wanted and heard.
func (s *shelf) state() map[string][2]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string][2]int{}
	for metric, n := range s.wanted {
		out[metric] = [2]int{n, len(s.told[metric])}
	}
	for metric, subscribers := range s.told {
		out[metric] = [2]int{s.wanted[metric], len(subscribers)}
	}
	return out
}

func object(name string, uid types.UID, generation int64) *kapacity.HorizontalPortrait {
	return &kapacity.HorizontalPortrait{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: uid, Generation: generation}}
}

func request(name string) reconcile.Request {
	return reconcile.Request{NamespacedName: types.NamespacedName{Namespace: "shop", Name: name}}
}

func metrics(names ...string) func() []autoscalingv2.MetricSpec {
	return func() (out []autoscalingv2.MetricSpec) {
		for _, n := range names {
			out = append(out, autoscalingv2.MetricSpec{Type: autoscalingv2.ExternalMetricSourceType, External: &autoscalingv2.ExternalMetricSource{Metric: autoscalingv2.MetricIdentifier{Name: n}}})
		}
		return out
	}
}

type seen struct{ looks int }

// rig is what one controller has: its wants, and a queue that they wake.
type rig struct {
	*Wants[seen]
	t     *testing.T
	shelf *shelf
	clock *clocktesting.FakePassiveClock
	queue workqueue.TypedRateLimitingInterface[reconcile.Request]
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, shelf: newShelf(t), clock: clocktesting.NewFakePassiveClock(start),
		queue: workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[reconcile.Request]())}
	r.Wants = New[seen](r.shelf, r.clock)
	t.Cleanup(r.queue.ShutDown)
	t.Cleanup(r.Close)
	if err := r.Source().Start(t.Context(), r.queue); err != nil {
		t.Fatal(err)
	}
	return r
}

// see looks at the object, and says whether it had changed.
func (r *rig) see(o client.Object, names ...string) (*Want[seen], bool) {
	r.t.Helper()
	want, changed, err := r.See(o, autoscalingv2.CrossVersionObjectReference{}, metrics(names...))
	if err != nil {
		r.t.Fatal(err)
	}
	return want, changed
}

func (r *rig) collects(when string, want map[string][2]int) {
	r.t.Helper()
	if diff := cmp.Diff(want, r.shelf.state()); diff != "" {
		r.t.Errorf("%s: wanted and heard (-want +got):\n%s", when, diff)
	}
}

// woken are the objects in the queue, which is emptied.
func (r *rig) woken() (names []string) {
	for r.queue.Len() > 0 {
		req, _ := r.queue.Get()
		r.queue.Done(req)
		names = append(names, req.Name)
	}
	slices.Sort(names)
	return names
}

func TestWhatIsCollectedIsWhatIsAskedFor(t *testing.T) {
	r := newRig(t)
	r.see(object("cart", "1", 1), "rps", "queue", "queue", "broken")
	r.collects("each once, and what cannot be asked not at all", map[string][2]int{"rps": {1, 1}, "queue": {1, 1}})
	r.see(object("mail", "2", 1), "queue")
	r.collects("each object by itself", map[string][2]int{"rps": {1, 1}, "queue": {2, 2}})
	r.see(object("cart", "1", 2), "queue", "errors")
	r.collects("what is no longer asked for goes", map[string][2]int{"queue": {2, 2}, "errors": {1, 1}})
	r.Drop(request("cart"))
	r.collects("an object that is gone", map[string][2]int{"queue": {1, 1}})
	r.Drop(request("cart"))
	r.Drop(request("nobody"))
	r.collects("a second time", map[string][2]int{"queue": {1, 1}})
	r.see(object("mail", "2", 2))
	r.collects("an object that asks for nothing any more", map[string][2]int{})
}

func TestMetricsAreReadOnlyOnceTheObjectHasChanged(t *testing.T) {
	r := newRig(t)
	o := object("cart", "1", 1)
	first, changed := r.see(o, "rps")
	first.Memory.looks = 7
	if !changed || len(first.Asked) != 1 {
		t.Fatalf("changed %t, %+v", changed, first.Asked)
	}
	for name, c := range map[string]struct {
		change  func(*kapacity.HorizontalPortrait)
		changed bool
	}{
		"nothing":                  {func(*kapacity.HorizontalPortrait) {}, false},
		"status and other fields":  {func(o *kapacity.HorizontalPortrait) { o.ResourceVersion, o.Status.ObservedGeneration = "9", 9 }, false},
		"an annotation of no note": {func(o *kapacity.HorizontalPortrait) { o.Annotations = map[string]string{"team": "shop"} }, false},
	} {
		t.Run(name, func(t *testing.T) {
			again := o.DeepCopy()
			c.change(again)
			asked := r.shelf.asked
			want, changed, err := r.See(again, autoscalingv2.CrossVersionObjectReference{}, func() []autoscalingv2.MetricSpec { t.Error("asked for its metrics"); return nil })
			if err != nil || changed != c.changed || want != first || want.Memory.looks != 7 || r.shelf.asked != asked {
				t.Errorf("changed %t, %+v, %v", changed, want, err)
			}
		})
	}
	o.Annotations = map[string]string{"metric-config.x": "y"}
	if want, changed := r.see(o, "rps"); !changed || want.Asked[0].Query.Settings != "y" || want.Memory.looks != 7 {
		t.Errorf("other settings: changed %t, %+v", changed, want)
	}
	if diff := cmp.Diff(map[string]string{"metric-config.x": "y"}, Settings(o)); diff != "" {
		t.Error(diff)
	}
	o.Generation = 2
	if want, changed := r.see(o, "rps"); !changed || want != first {
		t.Errorf("another spec: changed %t, %+v", changed, want)
	}
}

// An object made anew under a name is another: it remembers nothing, though what both ask for is not collected anew.
func TestAnObjectMadeAnewIsAnother(t *testing.T) {
	r := newRig(t)
	first, _ := r.see(object("cart", "1", 1), "rps", "queue")
	first.Memory.looks = 7
	r.clock.SetTime(start.Add(time.Minute))
	second, changed := r.see(object("cart", "2", 1), "rps")
	if !changed || second == first || second.Memory.looks != 0 || !second.Since.Equal(start.Add(time.Minute)) {
		t.Errorf("changed %t, %+v", changed, second)
	}
	if q := second.Asked[0].Query; !second.SinceOf(q).Equal(start) {
		t.Errorf("asked for since %s", second.SinceOf(q))
	}
	r.collects("its queries", map[string][2]int{"rps": {1, 1}})
}

func TestSinceIsWhenAQueryWasFirstAskedFor(t *testing.T) {
	r := newRig(t)
	want, _ := r.see(object("cart", "1", 1), "rps", "queue")
	rps, queue := want.Asked[0].Query, want.Asked[1].Query
	r.clock.SetTime(start.Add(time.Minute))
	want, _ = r.see(object("cart", "1", 2), "rps")
	if !want.SinceOf(rps).Equal(start) || !want.SinceOf(queue).IsZero() || !want.Since.Equal(start) {
		t.Errorf("rps since %s, queue since %s, seen since %s", want.SinceOf(rps), want.SinceOf(queue), want.Since)
	}
	want, _ = r.see(object("cart", "1", 3), "queue", "rps")
	if got := want.SinceOf(queue); !got.Equal(start.Add(time.Minute)) {
		t.Errorf("one that comes back is new: since %s", got)
	}
}

func TestWarningsAreNewsOnce(t *testing.T) {
	r := newRig(t)
	for i, c := range []struct {
		metrics []string
		news    []string
	}{
		{[]string{"rps"}, nil},
		{[]string{"odd", "odd"}, []string{"typo has no effect"}},
		{[]string{"odd", "rps"}, nil},
		{[]string{"rps"}, nil},
		{[]string{"odd"}, []string{"typo has no effect"}},
	} {
		want, _ := r.see(object("cart", "1", int64(i+1)), c.metrics...)
		if diff := cmp.Diff(c.news, want.News); diff != "" {
			t.Errorf("generation %d: news (-want +got):\n%s", i+1, diff)
		}
	}
}

func TestAnAnswerThatChangesWakesThoseWhoAsked(t *testing.T) {
	r := newRig(t)
	r.see(object("cart", "1", 1), "rps", "queue")
	r.see(object("mail", "2", 1), "queue")
	for _, c := range []struct {
		do    func()
		woken []string
	}{
		{func() { r.shelf.says("rps") }, []string{"cart"}},
		{func() { r.shelf.says("queue") }, []string{"cart", "mail"}},
		{func() { r.shelf.says("rps"); r.shelf.says("queue"); r.shelf.says("queue") }, []string{"cart", "mail"}},
		{func() { r.shelf.says("errors") }, nil},
		{func() { r.Drop(request("cart")); r.shelf.says("queue") }, []string{"mail"}},
		{func() { r.Notify(request("anybody")) }, []string{"anybody"}},
		{func() { r.Close(); r.shelf.says("queue") }, nil},
	} {
		c.do()
		if diff := cmp.Diff(c.woken, r.woken()); diff != "" {
			t.Errorf("woken (-want +got):\n%s", diff)
		}
	}
}

// Before the controller has a queue there is nobody to wake; its first look at each object comes anyway.
func TestAnAnswerBeforeTheControllerStartsIsNoFault(t *testing.T) {
	s := newShelf(t)
	w := New[seen](s, clocktesting.NewFakePassiveClock(start))
	defer w.Close()
	if _, _, err := w.See(object("cart", "1", 1), autoscalingv2.CrossVersionObjectReference{}, metrics("rps")); err != nil {
		t.Fatal(err)
	}
	s.says("rps")
}

// The store calls back while somebody who asks has the lock.
func TestAStoreThatCallsBackAtOnceBlocksNobody(t *testing.T) {
	r := newRig(t)
	r.shelf.atOnce = true
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.see(object("cart", "1", 1), "rps")
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("See waits for itself")
	}
	if diff := cmp.Diff([]string{"cart"}, r.woken()); diff != "" {
		t.Error(diff)
	}
}

func TestNothingIsCollectedAfterTheEnd(t *testing.T) {
	r := newRig(t)
	r.see(object("cart", "1", 1), "rps")
	r.see(object("mail", "2", 1), "queue")
	r.Close()
	r.collects("after the end", map[string][2]int{})
	if _, _, err := r.See(object("cart", "1", 1), autoscalingv2.CrossVersionObjectReference{}, metrics("rps")); !errors.Is(err, ErrClosed) {
		t.Errorf("error %v, want %v", err, ErrClosed)
	}
	r.collects("nor by a look that comes late", map[string][2]int{})
	r.Close()
	r.Drop(request("cart"))
}

// adding is as much of a manager as Run asks for.
type adding struct {
	ctrl.Manager
	added manager.Runnable
}

func (m *adding) Add(r manager.Runnable) error { m.added = r; return nil }

func TestItEndsWithTheManager(t *testing.T) {
	r := newRig(t)
	m := &adding{}
	if err := r.Run(m); err != nil {
		t.Fatal(err)
	}
	if e, ok := m.added.(manager.LeaderElectionRunnable); ok && !e.NeedLeaderElection() {
		t.Error("it ends with the process and not with the lead")
	}
	r.see(object("cart", "1", 1), "rps")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- m.added.Start(ctx) }()
	r.collects("while it runs", map[string][2]int{"rps": {1, 1}})
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	r.collects("after it", map[string][2]int{})
}

// Many controllers' workers, one for each object, beside a store that has news all the time and an end that comes in between.
func TestConcurrentUseLeavesNothingBehind(t *testing.T) {
	r := newRig(t)
	const objects, rounds = 16, 200
	names := []string{"rps", "queue", "errors", "odd", "broken"}
	var workers sync.WaitGroup
	for i := range objects {
		workers.Go(func() {
			name, uid := fmt.Sprint("cart-", i), 0
			for round := range rounds {
				if i == 0 && round == rounds/2 {
					r.Close()
				}
				if round%23 == i {
					r.Drop(request(name))
					uid++
				}
				want, _, err := r.See(object(name, types.UID(fmt.Sprint(i, "/", uid)), int64(round/3)), autoscalingv2.CrossVersionObjectReference{}, metrics(names[round%3:3+round%3]...))
				if errors.Is(err, ErrClosed) {
					return
				}
				if err != nil {
					t.Error(err)
					return
				}
				want.Memory.looks++
			}
		})
	}
	over := make(chan struct{})
	var news sync.WaitGroup
	for _, name := range names[:3] {
		news.Go(func() {
			for {
				select {
				case <-over:
					return
				default:
					r.shelf.says(name)
				}
			}
		})
	}
	workers.Wait()
	close(over)
	news.Wait()
	r.collects("at the end", map[string][2]int{})
}
