package podstate

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var zero = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// running makes a ready pod that opted in to the gate.
func running(name string, more ...func(*Pod)) Pod {
	p := Pod{Name: name, UID: "uid-" + name, State: Online, Gate: GateOn, Owner: "rs-1", Ordinal: ordinal(name), Node: "n-" + name,
		Phase: "Running", Ready: true, ReadySince: zero, Created: zero}
	for _, m := range more {
		m(&p)
	}
	return p
}

func pods(n int, more ...func(*Pod)) (all []Pod) {
	for i := range n {
		all = append(all, running(fmt.Sprintf("web-%d", i), more...))
	}
	return all
}

func is(s State) func(*Pod) {
	return func(p *Pod) {
		p.State = s
		if s != Online {
			p.Gate, p.Ready, p.ReadySince = GateOff, false, time.Time{}
		}
	}
}

func unready(p *Pod)  { p.Ready, p.ReadySince = false, time.Time{} }
func pending(p *Pod)  { unready(p); p.Phase, p.Node, p.Gate = "Pending", "", GateUnset }
func gateless(p *Pod) { p.Gate = GateMissing }
func gone(p *Pod)     { p.Gone = true }

func cost(c int32) func(*Pod) { return func(p *Pod) { p.DeletionCost = c } }

// with changes some of the pods, by index.
func with(all []Pod, more func(*Pod), index ...int) []Pod {
	all = slices.Clone(all)
	for _, i := range index {
		more(&all[i])
	}
	return all
}

// show prints a plan's lists, leaving out what is empty.
func show(p Plan) string {
	var out []string
	list := func(name string, pods []Pod) {
		var names []string
		for _, p := range pods {
			names = append(names, strings.TrimPrefix(p.Name, "web-"))
		}
		if len(names) > 0 {
			out = append(out, name+" "+strings.Join(names, ","))
		}
	}
	list("online", p.Online)
	list("cut", p.Cut)
	list("standby", p.Standby)
	list("costs", p.SetCosts)
	list("clear", p.ClearCosts)
	if p.Scale != nil {
		out = append(out, fmt.Sprint("scale ", *p.Scale))
	}
	if p.Delete != nil {
		list("delete", []Pod{*p.Delete})
	}
	list("nogate", p.NoGate)
	if p.Wait != "" {
		out = append(out, "wait: "+p.Wait)
	}
	if p.Frozen != "" {
		out = append(out, "frozen: "+p.Frozen)
	}
	if p.Applied {
		out = append(out, "applied")
	}
	return strings.Join(out, "; ")
}

func TestPlans(t *testing.T) {
	sts := Workload{Kind: StatefulSet, Replicas: 5}
	rs := Workload{Kind: ReplicaSets, Replicas: 5}
	at := func(w Workload, replicas int32) Workload { w.Replicas = replicas; return w }
	ordered := func(replicas int32) Workload {
		return Workload{Kind: StatefulSet, Replicas: replicas, OrderedReady: true}
	}
	going := func(w Workload, d Direction, replicas int32) Workload {
		w.Direction, w.Replicas = d, replicas
		return w
	}
	cases := map[string]struct {
		w    Workload
		spec Counts
		pods []Pod
		plan string
	}{
		"row 14: a cut pod is turned on": {Workload{Kind: StatefulSet, Replicas: 3, FirstOrdinal: 1}, Counts{Online: 3},
			[]Pod{running("pod-1"), running("pod-2"), running("pod-3", is(Cutoff))}, "online pod-3"},
		"row 15: one more is cut": {Workload{Kind: StatefulSet, Replicas: 3, FirstOrdinal: 1}, Counts{Online: 1, Cutoff: 2},
			[]Pod{running("pod-1"), running("pod-2"), running("pod-3", is(Cutoff))}, "cut pod-2"},
		"row 16: one is to be deleted": {Workload{Kind: StatefulSet, Replicas: 3, FirstOrdinal: 1}, Counts{Online: 2},
			[]Pod{running("pod-1"), running("pod-2"), running("pod-3", is(Cutoff))}, "scale 2"},
		"a StatefulSet's highest ordinals are cut first, whatever the list's order": {at(sts, 12), Counts{Online: 9, Cutoff: 3},
			slices.Concat(pods(12)[6:], pods(12)[:6]), "cut 11,10,9"},
		"nothing to do":                       {sts, Counts{Online: 5}, pods(5), "applied"},
		"a StatefulSet's cut pods are let go": {sts, Counts{Online: 1}, with(pods(5), is(Cutoff), 1, 2, 3, 4), "scale 1"},
		"more pods are made":                  {sts, Counts{Online: 7}, pods(5), "scale 7"},
		"up: cut pods are turned on, the best first, the others let go": {at(sts, 10), Counts{Online: 8},
			with(pods(10), is(Cutoff), 6, 7, 8, 9), "online 6,7; scale 8"},
		"up in steps: some stay held": {at(sts, 10), Counts{Online: 7, Cutoff: 1}, with(pods(10), is(Cutoff), 6, 7, 8, 9), "online 6; scale 8"},
		"a StatefulSet's missing pod does not shift the others": {sts, Counts{Online: 3, Cutoff: 2},
			slices.Delete(with(pods(5), is(Cutoff), 3, 4), 1, 2), "applied"},
		"a StatefulSet's pod is not cut while too few are online": {sts, Counts{Online: 3, Cutoff: 2},
			slices.Delete(pods(5), 1, 2), "cut 4"},
		"a cut pod that came back uncut is cut again": {sts, Counts{Online: 3, Cutoff: 2}, with(pods(5), is(Cutoff), 3), "cut 4"},
		"a half-made cut is finished":                 {sts, Counts{Online: 4, Cutoff: 1}, with(pods(5), func(p *Pod) { p.State = Cutoff }, 4), "cut 4"},
		"a half-made restore is finished":             {sts, Counts{Online: 5}, with(pods(5), func(p *Pod) { p.Gate = GateOff }, 2), "online 2"},
		"a fresh pod whose condition is not yet set is left to whoever sets it": {sts, Counts{Online: 5},
			with(pods(5), func(p *Pod) { p.Gate = GateUnset }, 2), "applied"},
		"pods that ended do not count":                            {at(sts, 4), Counts{Online: 4}, with(pods(5), gone, 4), "applied"},
		"Standby after Cutoff, the highest furthest":              {sts, Counts{Online: 2, Cutoff: 1, Standby: 2}, pods(5), "cut 2; standby 4,3"},
		"Cutoff becomes Standby":                                  {sts, Counts{Online: 3, Standby: 2}, with(pods(5), is(Cutoff), 3, 4), "standby 4,3"},
		"pods that are not there yet leave the profile unapplied": {at(sts, 6), Counts{Online: 3, Cutoff: 3}, with(pods(5), is(Cutoff), 3, 4), ""},

		"row 18: a state that is left is taken away": {rs, Counts{Online: 5}, with(with(pods(5), is(Cutoff), 1), is(Standby), 2), "online 1,2"},
		"row 19: Cutoff stays Cutoff":                {rs, Counts{Online: 4, Cutoff: 1}, with(pods(5), is(Cutoff), 1), "applied"},
		"row 19: Cutoff becomes Standby":             {rs, Counts{Online: 4, Standby: 1}, with(pods(5), is(Cutoff), 1), "standby 1"},
		"row 20: a StatefulSet's pods 1, 3, 2 go 3, 2, 1": {Workload{Kind: StatefulSet, Replicas: 3, FirstOrdinal: 1}, Counts{Standby: 3},
			[]Pod{running("pod-1"), running("pod-3"), running("pod-2")}, "standby pod-3,pod-2,pod-1"},
		"up: cut pods are woken before hibernating ones": {at(rs, 6), Counts{Online: 4, Standby: 2}, with(with(pods(6), is(Cutoff), 2, 3), is(Standby), 4, 5), "online 3,2"},
		"up: hibernating pods are woken before new ones are made": {at(rs, 6), Counts{Online: 8}, with(with(pods(6), is(Cutoff), 2, 3), is(Standby), 4, 5),
			"online 3,2,5,4; scale 8"},
		"up: what is not needed of the hibernating goes": {at(rs, 6), Counts{Online: 5}, with(with(pods(6), is(Cutoff), 2, 3), is(Standby), 4, 5),
			"online 3,2,5; costs 4; scale 5"},
		"up: a StatefulSet wakes by ordinals":            {at(sts, 6), Counts{Online: 8}, with(with(pods(6), is(Cutoff), 2, 3), is(Standby), 4, 5), "online 2,3,4,5; scale 8"},
		"hibernating pods are let go":                    {at(rs, 6), Counts{Online: 4}, with(pods(6), is(Standby), 1, 2), "costs 1,2; scale 4"},
		"OrderedReady: /scale first":                     {ordered(5), Counts{Online: 2}, with(pods(5), is(Cutoff), 2, 3, 4), "scale 2"},
		"OrderedReady: then the highest cut pod by hand": {ordered(2), Counts{Online: 2}, with(pods(5), is(Cutoff), 2, 3, 4), "delete 4; applied"},
		"OrderedReady: one at a time": {ordered(2), Counts{Online: 2},
			with(with(pods(5), is(Cutoff), 2, 3, 4), func(p *Pod) { p.Gone, p.Terminating = true, true }, 4), "applied"},
		"OrderedReady: a held survivor blocks the StatefulSet too": {ordered(4), Counts{Online: 3, Cutoff: 1},
			with(pods(5), is(Cutoff), 3, 4), "delete 4; applied"},
		"OrderedReady: without cut pods the StatefulSet does it": {ordered(2), Counts{Online: 2}, pods(5), "applied"},
		"Parallel: the StatefulSet does it":                      {at(sts, 2), Counts{Online: 2}, with(pods(5), is(Cutoff), 2, 3, 4), "applied"},
		"a rolling update restores the cut pods": {Workload{Kind: StatefulSet, Replicas: 5, Updating: "revision b"}, Counts{Online: 3, Cutoff: 2},
			with(pods(5), is(Cutoff), 3, 4), "online 3,4; frozen: revision b"},
		"a rolling update without cut pods is nothing to us": {Workload{Kind: StatefulSet, Replicas: 5, Updating: "revision b"}, Counts{Online: 5},
			pods(5), "applied"},
		"a rolling update does not keep cut pods that are to go": {Workload{Kind: StatefulSet, Replicas: 5, Updating: "revision b"}, Counts{Online: 3},
			with(pods(5), is(Cutoff), 3, 4), "scale 3"},

		"a ReplicaSet's least worthy pods are cut": {rs, Counts{Online: 2, Cutoff: 3},
			with(with(with(pods(5), unready, 3), cost(-1), 1), func(p *Pod) { p.Created = zero.Add(time.Hour) }, 0), "cut 3,1,0"},
		"pending pods are cut first, and need not run for it": {rs, Counts{Online: 3, Cutoff: 2}, with(pods(5), pending, 0, 2), "cut 0,2"},
		"a ReplicaSet's cut pods get their cost, then /scale follows": {rs, Counts{Online: 2},
			with(pods(5), is(Cutoff), 0, 2, 3), "costs 0,2,3; scale 2"},
		"costs are set once": {rs, Counts{Online: 2}, with(with(pods(5), is(Cutoff), 0, 2, 3), cost(DeletionCost), 0, 2, 3), "scale 2"},
		"a cost of ours is cleared on a pod that stays": {rs, Counts{Online: 5},
			with(with(pods(5), is(Cutoff), 0), cost(DeletionCost), 0), "online 0; clear 0"},
		"cut pods are let go with woken pods not ready yet": {at(rs, 10), Counts{Online: 8},
			with(with(pods(10), is(Cutoff), 2, 5, 6, 7), func(p *Pod) { p.State, p.Gate = Online, GateOn }, 5, 6), "costs 2,7; scale 8"},
		"a pod that stays but is pending makes it wait": {rs, Counts{Online: 2}, with(with(pods(5), is(Cutoff), 0, 2, 3), pending, 4),
			"wait: pod web-4 (unassigned) would be removed before pod web-0 (not ready)"},
		"a pod that stays but is not ready is protected by the cost": {rs, Counts{Online: 2},
			with(with(pods(5), is(Cutoff), 0, 2, 3), unready, 4), "costs 0,2,3; scale 2"},
		"a cut pod that is ready makes it wait for one that is not": {rs, Counts{Online: 2},
			with(with(with(pods(5), is(Cutoff), 0, 2, 3), func(p *Pod) { p.Ready = true }, 2), unready, 4),
			"wait: pod web-4 (not ready) would be removed before pod web-2 (ready)"},
		"a ReplicaSet that has not seen all cuts would remove others": {Workload{Kind: ReplicaSets, Replicas: 5, CountedReady: 3}, Counts{Online: 2},
			with(pods(5), is(Cutoff), 0, 2, 3), "costs 0,2,3; wait: its ReplicaSet still counts 3 ready pods, and there are 2"},
		"a ReplicaSet that has seen all cuts is scaled down": {Workload{Kind: ReplicaSets, Replicas: 5, CountedReady: 2}, Counts{Online: 2},
			with(pods(5), is(Cutoff), 0, 2, 3), "costs 0,2,3; scale 2"},
		"what a ReplicaSet counts keeps nothing from growing": {Workload{Kind: ReplicaSets, Replicas: 5, CountedReady: 5}, Counts{Online: 6},
			with(pods(5), is(Cutoff), 0), "online 0; scale 6"},
		"pending pods that are cut can go at once": {rs, Counts{Online: 3}, with(with(pods(5), is(Cutoff), 0, 2), func(p *Pod) { p.Node, p.Phase = "", "Pending" }, 0, 2),
			"costs 0,2; scale 3"},
		"B9: fewer pods wanted than /scale has, half of them pending": {at(rs, 10), Counts{Online: 5}, with(pods(10), pending, 5, 6, 7, 8, 9), "scale 5"},
		"without held pods nothing is protected":                      {rs, Counts{Online: 2}, with(pods(5), unready, 4), "scale 2"},
		"to none needs no order":                                      {rs, Counts{}, with(with(pods(5), is(Cutoff), 0, 1, 2, 3), pending, 4), "scale 0"},
		"two ReplicaSets: cut pods are restored until the rollout ends": {rs, Counts{Online: 3, Cutoff: 2},
			with(with(pods(5), is(Cutoff), 0, 1), func(p *Pod) { p.Owner = "rs-2" }, 4), "online 1,0; frozen: pods of 2 ReplicaSets are there"},
		"two ReplicaSets: cut pods that are to go wait": {rs, Counts{Online: 3},
			with(with(pods(5), is(Cutoff), 0, 1), func(p *Pod) { p.Owner = "rs-2" }, 4),
			"online 1,0; wait: pods of 2 ReplicaSets are there; frozen: pods of 2 ReplicaSets are there"},
		"two ReplicaSets without held pods":      {rs, Counts{Online: 3}, with(pods(5), func(p *Pod) { p.Owner = "rs-2" }, 4), "scale 3"},
		"a replaced cut pod: the new one is cut": {rs, Counts{Online: 3, Cutoff: 2}, with(with(pods(5), is(Cutoff), 0), unready, 2), "cut 2"},
		"going while others are cut: what goes is cut too, and must be unready before": {rs, Counts{Online: 2, Cutoff: 2}, pods(5),
			"cut 0,1,2; wait: pod web-1 (not ready) would be removed before pod web-0 (ready)"},
		"held longer goes first": {rs, Counts{Online: 2, Cutoff: 2}, with(pods(5), is(Cutoff), 3, 4), "cut 0; costs 3; scale 4"},

		"what is held goes before what is only unready": {rs, Counts{Online: 2, Cutoff: 2}, with(with(pods(5), is(Cutoff), 3, 4), unready, 0), "cut 0; costs 3; scale 4"},
		"what is pending goes before what is held":      {rs, Counts{Online: 2, Cutoff: 2}, with(with(pods(5), is(Cutoff), 3, 4), pending, 0), "cut 0; costs 0; scale 4"},
		"a stale cost on a pod that stays is cleared before /scale follows": {rs, Counts{Online: 2},
			with(with(with(pods(5), is(Cutoff), 0, 2, 3), unready, 4), cost(DeletionCost), 4), "costs 0,2,3; clear 4; scale 2"},
		"the worthiest cut pod is turned on": {rs, Counts{Online: 3, Cutoff: 2},
			with(with(pods(5), is(Cutoff), 2, 3, 4), func(p *Pod) { p.Created = zero.Add(-time.Hour) }, 3), "online 3"},
		"ordinals below the first are no part of a StatefulSet": {Workload{Kind: StatefulSet, Replicas: 2, FirstOrdinal: 2}, Counts{Online: 2},
			with(pods(4), is(Cutoff), 0, 1), "applied"},

		"a pod without the gate is not cut, others are":   {rs, Counts{Online: 3, Cutoff: 2}, with(pods(5), gateless, 0, 1), "cut 2,3"},
		"too few pods have the gate":                      {rs, Counts{Online: 2, Cutoff: 3}, with(pods(5), gateless, 0, 1, 2), "cut 3,4; nogate 0"},
		"a StatefulSet cannot choose another":             {sts, Counts{Online: 3, Cutoff: 2}, with(pods(5), gateless, 4), "cut 3; nogate 4"},
		"a label on a pod without the gate is taken away": {sts, Counts{Online: 5}, with(pods(5), func(p *Pod) { p.State, p.Gate = Cutoff, GateMissing }, 4), "online 4"},

		"only Deployments, ReplicaSets and StatefulSets can be cut": {Workload{Kind: ScaleOnly, Replicas: 5}, Counts{Online: 3, Cutoff: 2}, pods(5), ""},
		"anything can be scaled":                                    {Workload{Kind: ScaleOnly, Replicas: 5}, Counts{Online: 3}, pods(5), "scale 3"},

		"B10: with down disabled /scale is never lowered":         {going(rs, Up, 10), Counts{Online: 5}, pods(3), "applied"},
		"up only: more is allowed":                                {going(rs, Up, 5), Counts{Online: 7}, pods(5), "scale 7"},
		"up only: none is cut":                                    {going(rs, Up, 5), Counts{Online: 3, Cutoff: 2}, pods(5), "applied"},
		"up only: what is cut stays":                              {going(rs, Up, 5), Counts{Online: 3, Cutoff: 2}, with(pods(5), is(Cutoff), 0, 1), "applied"},
		"down only: less is allowed":                              {going(rs, Down, 5), Counts{Online: 3}, pods(5), "scale 3"},
		"down only: more is not":                                  {going(rs, Down, 5), Counts{Online: 8}, pods(5), "applied"},
		"down only, while cut pods of an earlier shrink still go": {going(ordered(1), Down, 1), Counts{Online: 1}, with(pods(5), is(Cutoff), 1, 2, 3, 4), "delete 4; applied"},
		"neither: everything stays":                               {going(rs, Neither, 5), Counts{Online: 1, Cutoff: 2}, with(pods(5), is(Cutoff), 0), "applied"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			plan := Decide(c.w, c.spec, c.pods)
			if diff := cmp.Diff(c.plan, show(plan)); diff != "" {
				t.Errorf("plan (-want +got):\n%s\nreason: %s", diff, plan.Reason)
			}
			if plan.Applied == (plan.Reason != "") {
				t.Errorf("applied is %v with the reason %q", plan.Applied, plan.Reason)
			}
		})
	}
}

func TestTheOrderOfRemovalIsThatOfReplicaSets(t *testing.T) {
	sameNode := func(p *Pod) { p.Node = "n" }
	alone := running
	order := []Pod{
		alone("unassigned", pending),
		alone("pending", pending, func(p *Pod) { p.Node = "m1" }),
		alone("unknown", func(p *Pod) { p.Phase = "Unknown" }),
		alone("unready, cheap", unready, cost(-9)),
		alone("unready", unready),
		alone("cheap", cost(-1)),
		alone("twin 1", sameNode),
		alone("twin 2", sameNode),
		alone("ready since nobody knows", func(p *Pod) { p.ReadySince = time.Time{} }),
		alone("ready since an hour ago", func(p *Pod) { p.ReadySince = zero.Add(-time.Hour) }),
		alone("restarted", func(p *Pod) { p.ReadySince, p.Restarts = zero.Add(-2*time.Hour), 3 }),
		alone("newer", func(p *Pod) { p.ReadySince = zero.Add(-2 * time.Hour) }),
		alone("older 1", func(p *Pod) { p.ReadySince, p.Created = zero.Add(-2*time.Hour), zero.Add(-time.Hour) }),
		alone("older 2", func(p *Pod) { p.ReadySince, p.Created = zero.Add(-2*time.Hour), zero.Add(-time.Hour) }),
		alone("dear", cost(1)),
	}
	var names []string
	for _, p := range order {
		names = append(names, p.Name)
	}
	shuffled := slices.Clone(order)
	slices.Reverse(shuffled)
	var got []string
	for _, p := range Decide(Workload{Kind: ReplicaSets, Replicas: 15}, Counts{}, shuffled).Condemned {
		got = append(got, p.Name)
	}
	if diff := cmp.Diff(names, got); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
}

func TestRestoreGivesEveryPodItsTrafficBack(t *testing.T) {
	all := with(with(pods(8), is(Cutoff), 1, 2), is(Standby), 3)
	all = with(all, cost(DeletionCost), 2, 5)
	all = with(all, func(p *Pod) { p.Gate = GateOff }, 4)
	all = with(all, func(p *Pod) { p.State, p.Gate = Cutoff, GateMissing }, 6)
	all = with(all, func(p *Pod) { p.State, p.Gone = Cutoff, true }, 7)
	if diff := cmp.Diff("online 1,2,3,4,6; clear 2,5", show(Restore(all))); diff != "" {
		t.Errorf("plan (-want +got):\n%s", diff)
	}
}

func TestCountsAreOfRunningPodsByState(t *testing.T) {
	all := pods(9)
	all = with(all, is(Cutoff), 1, 2)
	all = with(all, is(Standby), 3)
	all = with(all, pending, 4)
	all = with(all, gone, 5)
	all = with(all, func(p *Pod) { p.State, p.Gate = Cutoff, GateMissing }, 6)
	all = with(all, func(p *Pod) { p.Ready = true }, 1)
	plan := Decide(Workload{Kind: ReplicaSets, Replicas: 9}, Counts{Online: 5, Cutoff: 2, Standby: 1}, all)
	if want := (Counts{Online: 4, Cutoff: 2, Standby: 1}); plan.Counts != want || plan.CutReady != 1 {
		t.Errorf("counts %+v and %d ready, want %+v and 1", plan.Counts, plan.CutReady, want)
	}
	if plan.Ensured {
		t.Error("ensured with four of five online")
	}
	if plan = Decide(Workload{Kind: ReplicaSets, Replicas: 7, Direction: Down}, Counts{Online: 4, Cutoff: 2, Standby: 1}, all); !plan.Ensured {
		t.Errorf("not ensured: %+v", plan)
	}
}

// Row 17: a pod without the label is online, as is one that says so.
func TestRow17PodsAreCountedByTheirLabels(t *testing.T) {
	var all []Pod
	for i, state := range []string{"", "Online", "Cutoff", "Standby"} {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("pod-", i)}, Status: corev1.PodStatus{Phase: corev1.PodRunning},
			Spec: corev1.PodSpec{NodeName: "n", ReadinessGates: []corev1.PodReadinessGate{{ConditionType: "kapacitystack.io/online"}}}}
		if state != "" {
			p.Labels = map[string]string{"kapacitystack.io/pod-state": state}
		}
		all = append(all, FromPod(p))
	}
	plan := Decide(Workload{Kind: StatefulSet, Replicas: 4}, Counts{Online: 2, Cutoff: 1, Standby: 1}, all)
	if want := (Counts{Online: 2, Cutoff: 1, Standby: 1}); plan.Counts != want || plan.Counts.Total() != 4 || !plan.Ensured {
		t.Errorf("counts %+v of %d, want %+v; ensured %t", plan.Counts, plan.Counts.Total(), want, plan.Ensured)
	}
}

// Row 21: Kapacity can select the pods that go for no kind, so that its External sorter never works. Here they are known before
// they go wherever the kind's own rule is known, which is wherever pods can be cut; elsewhere it is the kind's business.
func TestRow21ThePodsThatGoAreKnownBefore(t *testing.T) {
	for name, c := range map[string]struct {
		kind Kind
		goes string
		cost bool
	}{
		"a ReplicaSet, or a Deployment, with the cost that makes it so": {ReplicaSets, "web-1", true},
		"a StatefulSet by its ordinals":                                 {StatefulSet, "web-2", false},
		"any other kind":                                                {ScaleOnly, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			all := pods(3)
			if c.goes != "" {
				all = with(all, is(Cutoff), int(ordinal(c.goes)))
			}
			plan := Decide(Workload{Kind: c.kind, Replicas: 3}, Counts{Online: 2}, all)
			var goes, costs string
			for _, p := range plan.Condemned {
				goes += p.Name
			}
			for _, p := range plan.SetCosts {
				costs += p.Name
			}
			if plan.Scale == nil || *plan.Scale != 2 || goes != c.goes || c.cost != (costs == c.goes && costs != "") {
				t.Errorf("%q go, with a cost %q: %+v", goes, costs, plan)
			}
		})
	}
}

func TestFromPod(t *testing.T) {
	now := metav1.NewTime(zero)
	isController := true
	full := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "web-12", UID: "u", Labels: map[string]string{"kapacitystack.io/pod-state": "Cutoff"}, CreationTimestamp: now,
			Annotations:     map[string]string{"controller.kubernetes.io/pod-deletion-cost": "-7"},
			OwnerReferences: []metav1.OwnerReference{{UID: "other"}, {UID: "set", Controller: &isController}}},
		Spec: corev1.PodSpec{NodeName: "n", ReadinessGates: []corev1.PodReadinessGate{{ConditionType: "kapacitystack.io/online"}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning,
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: now},
				{Type: "kapacitystack.io/online", Status: corev1.ConditionFalse}},
			ContainerStatuses: []corev1.ContainerStatus{{RestartCount: 1}, {RestartCount: 3}}},
	}
	want := Pod{Name: "web-12", UID: "u", State: Cutoff, Gate: GateOff, Owner: "set", Ordinal: 12, Node: "n", Phase: "Running", Ready: true,
		ReadySince: zero, Restarts: 3, Created: zero, DeletionCost: -7}
	if diff := cmp.Diff(want, FromPod(full)); diff != "" {
		t.Errorf("full pod (-want +got):\n%s", diff)
	}
	states := map[string]State{"": Online, "Online": Online, "Cutoff": Cutoff, "Standby": Standby, "Whatever": Online}
	for label, state := range states {
		if got := FromPod(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"kapacitystack.io/pod-state": label}}}).State; got != state {
			t.Errorf("label %q is %s, want %s", label, got, state)
		}
	}
	ordinals := map[string]int32{"web-0": 0, "web": -1, "web-a": -1, "7": -1, "web-99999999999": -1, "": -1}
	for name, n := range ordinals {
		if got := FromPod(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}}).Ordinal; got != n {
			t.Errorf("ordinal of %q is %d, want %d", name, got, n)
		}
	}
	for cost, n := range map[string]int32{"5": 5, "x": 0, "99999999999": 0, "": 0} {
		annotations := map[string]string{"controller.kubernetes.io/pod-deletion-cost": cost}
		if got := FromPod(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Annotations: annotations}}).DeletionCost; got != n {
			t.Errorf("cost %q is %d, want %d", cost, got, n)
		}
	}
	for _, phase := range []corev1.PodPhase{corev1.PodSucceeded, corev1.PodFailed} {
		if p := FromPod(&corev1.Pod{Status: corev1.PodStatus{Phase: phase}}); !p.Gone || p.Terminating {
			t.Errorf("%s: %+v", phase, p)
		}
	}
	if p := FromPod(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{DeletionTimestamp: &now}}); !p.Gone || !p.Terminating {
		t.Errorf("being deleted: %+v", p)
	}
}
