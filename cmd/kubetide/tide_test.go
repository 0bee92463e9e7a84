package main

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/kubetide/kubetide/internal/decision"
)

func TestWhoLeadsIsReadAtMostOnceASecond(t *testing.T) {
	client := fake.NewClientset(&coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "lease"}, Spec: coordinationv1.LeaseSpec{HolderIdentity: new("one")}})
	var asked atomic.Int32
	var away error
	client.PrependReactor("get", "leases", func(clienttesting.Action) (bool, runtime.Object, error) {
		asked.Add(1)
		return away != nil, nil, away
	})
	now := clocktesting.NewFakePassiveClock(time.Now())
	h := &holder{client: client, namespace: "ns", lease: "lease", clock: now}
	for range 3 {
		if name, err := h.name(t.Context()); name != "one" || err != nil {
			t.Errorf("%q, %v", name, err)
		}
	}
	away = errors.New("the API server is away")
	now.SetTime(now.Now().Add(leaderAge))
	for range 3 {
		if name, err := h.name(t.Context()); name != "" || !errors.Is(err, away) {
			t.Errorf("%q, %v", name, err)
		}
	}
	if asked.Load() != 2 {
		t.Errorf("asked %d times", asked.Load())
	}
	if name, err := (&holder{client: client, namespace: "ns", lease: "none", clock: now}).name(t.Context()); name != "" || !errors.Is(err, away) {
		t.Errorf("%q, %v", name, err)
	}
	away = nil
	if name, err := (&holder{client: client, namespace: "ns", lease: "none", clock: now}).name(t.Context()); name != "" || err != nil {
		t.Errorf("without a Lease: %q, %v", name, err)
	}
}

func TestTheLeadIsMarkedAndItsRecordsEndWithIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []bool
		w := &writer{leadChanged: func(leads bool) { told = append(told, leads) }, decisions: decision.NewLog(0, 0)}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- w.lead(ctx) }()
		synctest.Wait()
		if !w.leads.Load() || !slices.Equal(told, []bool{true}) {
			t.Errorf("leads: %t, told %v", w.leads.Load(), told)
		}
		cancel()
		if err := <-done; err != nil || w.leads.Load() || !slices.Equal(told, []bool{true, false}) {
			t.Errorf("still leads: %t, told %v, %v", w.leads.Load(), told, err)
		}
		w.decisions.Add(decision.Record{Object: decision.Object{Name: "a"}})
		w.forget()
		if left := w.decisions.Objects(); len(left) != 0 {
			t.Errorf("left: %v", left)
		}
	})
}
