// Package schedule serves the value of a ScalingSchedule or ClusterScalingSchedule as an Object metric. It reads the objects
// from memory; internal/window knows what they are worth.
package schedule

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	zalando "github.com/kubetide/kubetide/api/zalando/v1"
	"github.com/kubetide/kubetide/collectors"
	"github.com/kubetide/kubetide/internal/sample"
	"github.com/kubetide/kubetide/internal/window"
)

// Name is the name of the source.
const Name = "scaling-schedule"

var (
	// ErrScalingScheduleNotFound says that the ScalingSchedule does not exist. It is a sample.ErrNoData: the value that it had
	// ends with it.
	ErrScalingScheduleNotFound = sample.NoData("the ScalingSchedule does not exist")
	// ErrClusterScalingScheduleNotFound is the same for a ClusterScalingSchedule.
	ErrClusterScalingScheduleNotFound = sample.NoData("the ClusterScalingSchedule does not exist")
	// ErrNotScalingScheduleFound says that the store holds something else in the place of a ScalingSchedule.
	ErrNotScalingScheduleFound = errors.New("the stored object is not a ScalingSchedule")
	// ErrNotClusterScalingScheduleFound says that the store holds something else in the place of a ClusterScalingSchedule.
	ErrNotClusterScalingScheduleFound = errors.New("the stored object is not a ClusterScalingSchedule")
)

// Store looks objects up in memory by "namespace/name", or "name" for cluster-scoped ones. A cache.Store of client-go is one,
// and ReaderStore makes one of a controller-runtime cache.
type Store interface {
	GetByKey(key string) (item any, exists bool, err error)
}

// Source serves Object metrics on schedules. It has no settings; metric names are free.
type Source struct {
	Schedules        Store // of *ScalingSchedule
	ClusterSchedules Store // of *ClusterScalingSchedule
	Defaults         window.Defaults
	Clock            clock.PassiveClock
}

// Register makes the source the one for metrics on both kinds.
func (s Source) Register(r *collectors.Registry) {
	r.Register(sample.Object, s, Name)
	for _, kind := range []string{zalando.ScalingScheduleKind, zalando.ClusterScalingScheduleKind} {
		r.RegisterObjectKind(schema.GroupKind{Group: zalando.SchemeGroupVersion.Group, Kind: kind}, Name)
	}
}

// Keys implements collectors.Source.
func (Source) Keys() []string { return nil }

// Parse implements collectors.Source.
func (Source) Parse(r collectors.Request) (sample.Query, error) {
	group := zalando.SchemeGroupVersion.Group
	if r.Object.Group == group {
		switch r.Object.Kind {
		case zalando.ScalingScheduleKind, zalando.ClusterScalingScheduleKind:
			return r.Query(Name, nil), nil
		}
	}
	return sample.Query{}, fmt.Errorf("described object %s is neither a %s nor a %s of group %s",
		r.Object, zalando.ScalingScheduleKind, zalando.ClusterScalingScheduleKind, group)
}

// Open implements collectors.Source.
func (s Source) Open(q sample.Query) (collectors.Collector, error) {
	c := &collector{source: s, key: q.Object.Name}
	switch q.Object.Kind {
	case zalando.ScalingScheduleKind:
		c.key, c.read = q.Namespace+"/"+q.Object.Name, s.namespaced
	case zalando.ClusterScalingScheduleKind:
		c.read = s.cluster
	default:
		return nil, fmt.Errorf("described object %s is not a schedule", q.Object)
	}
	c.name = q.Object.Kind + " " + c.key
	return c, nil
}

func (s Source) namespaced(key string) (zalando.ScalingScheduleSpec, error) {
	item, exists, err := s.Schedules.GetByKey(key)
	if err != nil || !exists {
		return zalando.ScalingScheduleSpec{}, cmp.Or(err, ErrScalingScheduleNotFound)
	}
	o, ok := item.(*zalando.ScalingSchedule)
	if !ok {
		return zalando.ScalingScheduleSpec{}, fmt.Errorf("%w but a %T", ErrNotScalingScheduleFound, item)
	}
	return o.Spec, nil
}

func (s Source) cluster(key string) (zalando.ScalingScheduleSpec, error) {
	item, exists, err := s.ClusterSchedules.GetByKey(key)
	if err != nil || !exists {
		return zalando.ScalingScheduleSpec{}, cmp.Or(err, ErrClusterScalingScheduleNotFound)
	}
	o, ok := item.(*zalando.ClusterScalingSchedule)
	if !ok {
		return zalando.ScalingScheduleSpec{}, fmt.Errorf("%w but a %T", ErrNotClusterScalingScheduleFound, item)
	}
	return o.Spec, nil
}

type collector struct {
	source Source
	key    string
	name   string // for errors
	read   func(key string) (zalando.ScalingScheduleSpec, error)
}

func (c *collector) schedules() (window.Schedules, error) {
	spec, err := c.read(c.key)
	if err != nil {
		return window.Schedules{}, fmt.Errorf("%s: %w", c.name, err)
	}
	s, err := window.NewSchedules(spec, c.source.Defaults)
	if err != nil {
		return window.Schedules{}, fmt.Errorf("%s: %w", c.name, err)
	}
	return s, nil
}

// Collect implements collectors.Collector.
func (c *collector) Collect(context.Context) ([]sample.Point, error) {
	s, err := c.schedules()
	if err != nil {
		return nil, err
	}
	value := s.Value(c.source.Clock.Now())
	if value > math.MaxInt64/1000 {
		return nil, fmt.Errorf("%s: %w", c.name, sample.ErrNotFinite)
	}
	return []sample.Point{{Milli: value * 1000}}, nil
}

// NextChange implements collectors.Timed. Of an object that cannot be read, nothing is known to change.
func (c *collector) NextChange(now time.Time) time.Time {
	s, err := c.schedules()
	if err != nil {
		return time.Time{}
	}
	return s.Next(now)
}

// Concerns returns whether a query asks for o, a *ScalingSchedule or *ClusterScalingSchedule that has changed.
func Concerns(o client.Object) func(sample.Query) bool {
	kind := zalando.ScalingScheduleKind
	if _, ok := o.(*zalando.ClusterScalingSchedule); ok {
		kind = zalando.ClusterScalingScheduleKind
	}
	return func(q sample.Query) bool {
		return q.Collector == Name && q.Object.Kind == kind && q.Object.Name == o.GetName() &&
			(kind == zalando.ClusterScalingScheduleKind || q.Namespace == o.GetNamespace())
	}
}

// ReaderStore looks up objects of one kind through a reader that answers from memory. newObject returns an empty one.
func ReaderStore(reader client.Reader, newObject func() client.Object) Store {
	return readerStore{reader, newObject}
}

type readerStore struct {
	reader    client.Reader
	newObject func() client.Object
}

func (s readerStore) GetByKey(key string) (any, bool, error) {
	namespace, name, err := cache.SplitMetaNamespaceKey(key)
	if err != nil {
		return nil, false, err
	}
	o := s.newObject()
	if err := s.reader.Get(context.Background(), client.ObjectKey{Namespace: namespace, Name: name}, o); err != nil {
		return nil, false, client.IgnoreNotFound(err)
	}
	return o, true, nil
}
