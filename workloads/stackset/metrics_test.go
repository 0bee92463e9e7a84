package stackset

import (
	"context"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	zalando "github.com/kubetide/kubetide/api/zalando/v1"
)

// The gauges of stackset-controller say what the status says, and go with the StackSet.
func TestStacksAreMeasuredAsUpstreamDoes(t *testing.T) {
	told.reset()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(told)
	compare := func(want string, names ...string) {
		t.Helper()
		if err := testutil.GatherAndCompare(registry, strings.NewReader(want), names...); err != nil {
			t.Error(err)
		}
	}
	w, c := two(t, 100, 0, prescaled, autoscaled(2, 9))
	w.weights(map[string]float64{"shop-v1": 50, "shop-v2": 50})
	w.settle(c, "shop-v2")
	compare(`
# HELP stackset_stack_actual_traffic_weight Percent of the traffic that the Stack has. Labeled by namespace, stack and application.
# TYPE stackset_stack_actual_traffic_weight gauge
stackset_stack_actual_traffic_weight{application="shop",namespace="shop",stack="shop-v1"} 100
stackset_stack_actual_traffic_weight{application="shop",namespace="shop",stack="shop-v2"} 0
# HELP stackset_stack_desired_traffic_weight Percent of the traffic that the Stack is to have. Labeled by namespace, stack and application.
# TYPE stackset_stack_desired_traffic_weight gauge
stackset_stack_desired_traffic_weight{application="shop",namespace="shop",stack="shop-v1"} 50
stackset_stack_desired_traffic_weight{application="shop",namespace="shop",stack="shop-v2"} 50
# HELP stackset_stack_prescaling_active 1 while pods are held for the Stack's traffic. Labeled by namespace, stack and application.
# TYPE stackset_stack_prescaling_active gauge
stackset_stack_prescaling_active{application="shop",namespace="shop",stack="shop-v1"} 0
stackset_stack_prescaling_active{application="shop",namespace="shop",stack="shop-v2"} 1
# HELP stackset_stack_prescaling_replicas Pods that are held for the Stack's traffic. Labeled by namespace, stack and application.
# TYPE stackset_stack_prescaling_replicas gauge
stackset_stack_prescaling_replicas{application="shop",namespace="shop",stack="shop-v1"} 0
stackset_stack_prescaling_replicas{application="shop",namespace="shop",stack="shop-v2"} 2
# HELP stackset_stack_ready 1 if the Stack could take traffic. Labeled by namespace, stack and application.
# TYPE stackset_stack_ready gauge
stackset_stack_ready{application="shop",namespace="shop",stack="shop-v1"} 1
stackset_stack_ready{application="shop",namespace="shop",stack="shop-v2"} 0
# HELP stackset_stackset_stacks Stacks of the StackSet. Labeled by namespace, stackset and application.
# TYPE stackset_stackset_stacks gauge
stackset_stackset_stacks{application="shop",namespace="shop",stackset="shop"} 2
`)
	w.drop("shop", &zalando.StackSet{})
	w.look(c)
	compare("")

	w, c = two(t, 100, 0)
	w.settle(c)
	if n := testutil.CollectAndCount(told); n == 0 {
		t.Error("nothing is told")
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if err := told.Start(ended); err != nil {
		t.Fatal(err)
	}
	compare("") // who leads no more
}

func TestSwitchesAndFaultsAreCounted(t *testing.T) {
	// They are the process's: what counts is by how much they rise.
	rises := func(by float64, counter prometheus.Collector, what string, do func()) {
		t.Helper()
		before := testutil.ToFloat64(counter)
		do()
		if got := testutil.ToFloat64(counter) - before; got != by {
			t.Errorf("%s: it rises by %v, want %v", what, got, by)
		}
	}
	w, c := two(t, 100, 0)
	half := func() {
		w.weights(map[string]float64{"shop-v1": 50, "shop-v2": 50})
		w.settle(c)
	}
	rises(0, faults, "a switch", func() { rises(1, switches, "a switch", half) })
	rises(0, switches, "the same weights again", half)
	w.weights(map[string]float64{"shop-v1": 60, "shop-v2": 40, "shop-v9": 1})
	rises(1, faults, "a weight of an unknown Stack", func() { w.look(c) })
	w.settle(c)

	request := reconcile.Request{NamespacedName: client.ObjectKey{Namespace: ns, Name: "shop"}}
	refuse := func(err error) {
		w.weights(map[string]float64{"shop-v1": 10, "shop-v2": 90})
		w.admit = func(client.Object) error { return err }
		if _, got := c.Reconcile(t.Context(), request); got == nil {
			t.Error("it goes well")
		}
	}
	rises(1, faults, "an API server that is away", func() { refuse(apierrors.NewServiceUnavailable("")) })
	rises(0, faults, "somebody who was faster", func() { refuse(apierrors.NewConflict(schema.GroupResource{}, "", nil)) })
	w.admit = func(client.Object) error { panic("a fault") }
	rises(1, panics, "a panic", func() {
		defer func() {
			if recover() == nil {
				t.Error("nobody else hears of it")
			}
		}()
		_, _ = c.Reconcile(t.Context(), request)
	})
}
