package schedule

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/cache"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	zalando "github.com/kubetide/kubetide/api/zalando/v1"
	"github.com/kubetide/kubetide/collectors"
	"github.com/kubetide/kubetide/internal/sample"
	"github.com/kubetide/kubetide/internal/window"
)

var t0 = time.Date(2009, 11, 10, 22, 0, 0, 0, time.UTC)

func once(value int64) zalando.ScalingScheduleSpec {
	date := zalando.ScheduleDate(t0.Format(time.RFC3339))
	return zalando.ScalingScheduleSpec{Schedules: []zalando.Schedule{{Type: zalando.OneTimeSchedule, Date: &date, DurationMinutes: 15, Value: value}}}
}

func namespaced(name string, spec zalando.ScalingScheduleSpec) *zalando.ScalingSchedule {
	return &zalando.ScalingSchedule{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}, Spec: spec}
}

func cluster(name string, spec zalando.ScalingScheduleSpec) *zalando.ClusterScalingSchedule {
	return &zalando.ClusterScalingSchedule{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec}
}

func store(t *testing.T, items ...any) Store {
	s := cache.NewStore(cache.MetaNamespaceKeyFunc)
	for _, item := range items {
		if err := s.Add(item); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

type brokenStore struct{}

func (brokenStore) GetByKey(string) (any, bool, error) { return nil, false, errors.New("no cache") }

func request(kind, name string) collectors.Request {
	return collectors.Request{Kind: sample.Object, Namespace: "shop", Metric: "anything", Interval: time.Minute,
		Object:   sample.ObjectRef{Group: "zalando.org", Kind: kind, Name: name},
		Settings: sample.Settings{"a-label": "of the selector"}}
}

func open(t *testing.T, s Source, r collectors.Request) collectors.Collector {
	t.Helper()
	q, err := s.Parse(r)
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.Open(q)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestCollectGivesTheValueOrTheCause(t *testing.T) {
	s := Source{
		Defaults: window.Defaults{Window: time.Minute, Steps: 10, Zone: time.UTC},
		Clock:    clocktesting.NewFakePassiveClock(t0.Add(5 * time.Minute)),
		Schedules: store(t, namespaced("sale", once(100)), namespaced("huge", once(math.MaxInt64)),
			namespaced("bad", zalando.ScalingScheduleSpec{Schedules: []zalando.Schedule{{Type: zalando.OneTimeSchedule}}}),
			cluster("shop/odd", once(1))),
		ClusterSchedules: store(t, cluster("everywhere", once(70)), cluster("empty", zalando.ScalingScheduleSpec{}),
			&zalando.ScalingSchedule{ObjectMeta: metav1.ObjectMeta{Name: "odd"}}),
	}
	broken := s
	broken.Schedules, broken.ClusterSchedules = brokenStore{}, brokenStore{}
	tests := map[string]struct {
		source     Source
		kind, name string
		milli      int64
		err        error
		text       string
	}{
		"a namespaced schedule":           {s, "ScalingSchedule", "sale", 100_000, nil, ""},
		"a cluster-wide schedule":         {s, "ClusterScalingSchedule", "everywhere", 70_000, nil, ""},
		"no window is 0":                  {s, "ClusterScalingSchedule", "empty", 0, nil, ""},
		"35 no such schedule":             {s, "ScalingSchedule", "everywhere", 0, ErrScalingScheduleNotFound, "ScalingSchedule shop/everywhere: "},
		"35 no such cluster schedule":     {s, "ClusterScalingSchedule", "sale", 0, ErrClusterScalingScheduleNotFound, "ClusterScalingSchedule sale: "},
		"36 not a schedule":               {s, "ScalingSchedule", "odd", 0, ErrNotScalingScheduleFound, "*v1.ClusterScalingSchedule"},
		"36 not a cluster schedule":       {s, "ClusterScalingSchedule", "odd", 0, ErrNotClusterScalingScheduleFound, "*v1.ScalingSchedule"},
		"a schedule without its date":     {s, "ScalingSchedule", "bad", 0, window.ErrInvalidScheduleDate, "ScalingSchedule shop/bad: spec.schedules[0].date: "},
		"more than the metrics API takes": {s, "ScalingSchedule", "huge", 0, sample.ErrNotFinite, "ScalingSchedule shop/huge: "},
		"a store that fails":              {broken, "ScalingSchedule", "sale", 0, nil, "no cache"},
		"a cluster store that fails":      {broken, "ClusterScalingSchedule", "sale", 0, nil, "no cache"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			points, err := open(t, tt.source, request(tt.kind, tt.name)).Collect(t.Context())
			if tt.text == "" && tt.err == nil {
				if diff := cmp.Diff([]sample.Point{{Milli: tt.milli}}, points); diff != "" || err != nil {
					t.Errorf("error %v, points (-want +got):\n%s", err, diff)
				}
				return
			}
			if points != nil || err == nil || tt.err != nil && !errors.Is(err, tt.err) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("points %v, error %v, want %v with %q", points, err, tt.err, tt.text)
			}
		})
	}
}

func TestNextChangeIsThatOfTheSchedule(t *testing.T) {
	s := Source{
		Defaults:  window.Defaults{Window: time.Minute, Steps: 10, Zone: time.UTC},
		Clock:     clocktesting.NewFakePassiveClock(t0),
		Schedules: store(t, namespaced("sale", once(100))),
	}
	next := open(t, s, request("ScalingSchedule", "sale")).(collectors.Timed).NextChange(t0.Add(-time.Hour))
	if want := t0.Add(-54 * time.Second); !next.Equal(want) {
		t.Errorf("next change at %v, want %v", next, want)
	}
	if next := open(t, s, request("ScalingSchedule", "gone")).(collectors.Timed).NextChange(t0); !next.IsZero() {
		t.Errorf("a missing schedule changes at %v, want never", next)
	}
}

func TestParseAsksOneQuestionOnce(t *testing.T) {
	a, b := request("ScalingSchedule", "sale"), request("ScalingSchedule", "sale")
	b.Target = sample.ObjectRef{Group: "apps", Kind: "Deployment", Name: "another"}
	b.Settings = nil
	qa, errA := Source{}.Parse(a)
	qb, errB := Source{}.Parse(b)
	if errA != nil || errB != nil || qa != qb {
		t.Errorf("queries differ: %+v (%v) and %+v (%v)", qa, errA, qb, errB)
	}
	for name, r := range map[string]collectors.Request{
		"another group": {Object: sample.ObjectRef{Group: "example.org", Kind: "ScalingSchedule", Name: "sale"}},
		"another kind":  {Object: sample.ObjectRef{Group: "zalando.org", Kind: "StackSet", Name: "sale"}},
	} {
		if _, err := (Source{}).Parse(r); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

func TestRegisterServesBothKinds(t *testing.T) {
	r := collectors.NewRegistry()
	Source{}.Register(r)
	for _, kind := range []string{"ScalingSchedule", "ClusterScalingSchedule"} {
		name, ok := r.ForObjectKind(schema.GroupKind{Group: "zalando.org", Kind: kind})
		if _, err := r.Named(sample.Object, name); !ok || err != nil {
			t.Errorf("%s has no source: %v", kind, err)
		}
	}
}

func TestReaderStoreReadsThroughAClient(t *testing.T) {
	scheme := runtime.NewScheme()
	if err := zalando.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	c := fake.NewClientBuilder().WithScheme(scheme).WithObjects(namespaced("sale", once(100)), cluster("everywhere", once(70))).Build()
	s := Source{
		Schedules:        ReaderStore(c, func() client.Object { return &zalando.ScalingSchedule{} }),
		ClusterSchedules: ReaderStore(c, func() client.Object { return &zalando.ClusterScalingSchedule{} }),
		Defaults:         window.Defaults{Window: time.Minute, Steps: 10, Zone: time.UTC},
		Clock:            clocktesting.NewFakePassiveClock(t0),
	}
	for kind, names := range map[string][2]string{"ScalingSchedule": {"sale", "everywhere"}, "ClusterScalingSchedule": {"everywhere", "sale"}} {
		if points, err := open(t, s, request(kind, names[0])).Collect(t.Context()); err != nil || points[0].Milli == 0 {
			t.Errorf("%s: %v, %v", kind, points, err)
		}
		_, err := open(t, s, request(kind, names[1])).Collect(t.Context())
		if !errors.Is(err, ErrScalingScheduleNotFound) && !errors.Is(err, ErrClusterScalingScheduleNotFound) || !errors.Is(err, sample.ErrNoData) {
			t.Errorf("%s: %v, want not found", kind, err)
		}
	}
}

func TestAChangedObjectConcernsItsOwnQueries(t *testing.T) {
	query := func(namespace, kind, name string) sample.Query {
		r := request(kind, name)
		r.Namespace = namespace
		q, err := Source{}.Parse(r)
		if err != nil {
			t.Fatal(err)
		}
		return q
	}
	foreign := query("shop", "ScalingSchedule", "sale")
	foreign.Collector = "another"
	for name, tt := range map[string]struct {
		object client.Object
		query  sample.Query
		want   bool
	}{
		"its own":                     {namespaced("sale", once(1)), query("shop", "ScalingSchedule", "sale"), true},
		"another namespace":           {namespaced("sale", once(1)), query("elsewhere", "ScalingSchedule", "sale"), false},
		"another name":                {namespaced("sale", once(1)), query("shop", "ScalingSchedule", "other"), false},
		"another kind":                {namespaced("sale", once(1)), query("shop", "ClusterScalingSchedule", "sale"), false},
		"another source":              {namespaced("sale", once(1)), foreign, false},
		"cluster-wide, any namespace": {cluster("sale", once(1)), query("elsewhere", "ClusterScalingSchedule", "sale"), true},
		"cluster-wide, another kind":  {cluster("sale", once(1)), query("shop", "ScalingSchedule", "sale"), false},
	} {
		if got := Concerns(tt.object)(tt.query); got != tt.want {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
}
