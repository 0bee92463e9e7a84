package module

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/go-logr/logr"
	appsv1 "k8s.io/api/apps/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/event"
)

var (
	version = schema.GroupVersion{Group: "example.org", Version: "v1"}
	apple   = version.WithKind("Apple")
	pear    = version.WithKind("Pear")
)

// orchard serves what it is told to, one look after the other.
type orchard struct {
	apimeta.RESTMapper
	looks []func(schema.GroupKind) error
}

func (o *orchard) RESTMapping(kind schema.GroupKind, _ ...string) (*apimeta.RESTMapping, error) {
	err := o.looks[0](kind)
	if err != nil && len(o.looks) > 1 {
		o.looks = o.looks[1:]
	}
	return nil, err
}

func away(schema.GroupKind) error { return errors.New("connection refused") }

func ripe(schema.GroupKind) error { return nil }

func applesOnly(kind schema.GroupKind) error {
	if kind != apple.GroupKind() {
		return &apimeta.NoKindMatchError{GroupKind: kind}
	}
	return nil
}

func TestAModuleStartsOnceItsKindsAreServed(t *testing.T) {
	for name, c := range map[string]struct {
		looks []func(schema.GroupKind) error
		waits []time.Duration
	}{
		"they are":                        {looks: []func(schema.GroupKind) error{ripe}},
		"one is missing at first":         {looks: []func(schema.GroupKind) error{applesOnly, ripe}, waits: []time.Duration{lookForCRDs}},
		"the API server is away at first": {looks: []func(schema.GroupKind) error{away, applesOnly, ripe}, waits: []time.Duration{lookForServer, lookForCRDs}},
	} {
		t.Run(name, func(t *testing.T) {
			clock := clocktesting.NewFakeClock(time.Now())
			started := make(chan struct{})
			broken := errors.New("broken")
			s := &starter{&orchard{looks: c.looks}, []schema.GroupVersionKind{apple, pear}, clock, logr.Discard(), func() error { close(started); return broken }}
			ended := make(chan error, 1)
			go func() { ended <- s.Start(t.Context()) }()
			for _, wait := range c.waits {
				for deadline := time.Now().Add(10 * time.Second); !clock.HasWaiters(); {
					if time.Now().After(deadline) {
						t.Fatal("it does not wait")
					}
				}
				clock.Step(wait - time.Nanosecond)
				if !clock.HasWaiters() {
					t.Fatalf("it waited for less than %s", wait)
				}
				clock.Step(time.Nanosecond)
			}
			select {
			case <-started:
			case <-time.After(10 * time.Second):
				t.Fatal("it has not started")
			}
			if err := <-ended; !errors.Is(err, broken) {
				t.Errorf("it ended with %v, want what the start said", err)
			}
		})
	}
}

func TestAModuleWithoutItsKindsEndsWithTheManager(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s := &starter{&orchard{looks: []func(schema.GroupKind) error{applesOnly}}, []schema.GroupVersionKind{pear}, clocktesting.NewFakeClock(time.Now()), logr.Discard(),
		func() error { t.Error("started"); return nil }}
	if err := s.Start(ctx); err != nil {
		t.Error(err)
	}
}

func TestServed(t *testing.T) {
	for name, c := range map[string]struct {
		look   func(schema.GroupKind) error
		served bool
		err    string
	}{
		"all":           {look: ripe, served: true},
		"one is not":    {look: applesOnly},
		"not to be had": {look: away, err: "look for the CRD of Apple: connection refused"},
	} {
		t.Run(name, func(t *testing.T) {
			served, err := Served(&orchard{looks: []func(schema.GroupKind) error{c.look}}, apple, pear)
			if served != c.served || (err == nil) != (c.err == "") || err != nil && err.Error() != c.err {
				t.Errorf("%v, %v", served, err)
			}
		})
	}
}

func TestWhatSomebodySaysWakes(t *testing.T) {
	replicas := func(old, now *appsv1.Deployment) bool { return old.Status.Replicas != now.Status.Replicas }
	for name, c := range map[string]struct {
		change func(*appsv1.Deployment)
		counts func(old, now *appsv1.Deployment) bool
		wakes  bool
	}{
		"nothing":            {change: func(*appsv1.Deployment) {}, counts: replicas},
		"the spec":           {change: func(d *appsv1.Deployment) { d.Generation++ }, wakes: true},
		"a label":            {change: func(d *appsv1.Deployment) { d.Labels = map[string]string{"a": "b"} }, wakes: true},
		"an annotation":      {change: func(d *appsv1.Deployment) { d.Annotations = map[string]string{"a": "b"} }, wakes: true},
		"an owner":           {change: func(d *appsv1.Deployment) { d.OwnerReferences = []metav1.OwnerReference{{UID: "1"}} }, wakes: true},
		"a deletion":         {change: func(d *appsv1.Deployment) { d.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)} }, wakes: true},
		"a count":            {change: func(d *appsv1.Deployment) { d.Status.ReadyReplicas++ }, counts: replicas},
		"a count of no use":  {change: func(d *appsv1.Deployment) { d.Status.Replicas++ }},
		"a count that is of": {change: func(d *appsv1.Deployment) { d.Status.Replicas++ }, counts: replicas, wakes: true},
	} {
		t.Run(name, func(t *testing.T) {
			old := &appsv1.Deployment{}
			now := old.DeepCopy()
			c.change(now)
			if Changed(c.counts).Update(event.TypedUpdateEvent[*appsv1.Deployment]{ObjectOld: old, ObjectNew: now}) != c.wakes {
				t.Errorf("wakes: %v, want %v", !c.wakes, c.wakes)
			}
		})
	}
}
