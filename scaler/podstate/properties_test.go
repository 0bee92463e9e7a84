package podstate

import (
	"cmp"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// cluster is a workload with its pods, and its controller's way to remove pods.
type cluster struct {
	w    Workload
	pods []Pod
}

// carryOut writes what a plan says, as the ReplicaProfile controller does.
func (c *cluster) carryOut(p Plan) {
	each := func(pods []Pod, change func(*Pod)) {
		for _, pod := range pods {
			change(&c.pods[slices.IndexFunc(c.pods, func(q Pod) bool { return q.UID == pod.UID })])
		}
	}
	each(p.Online, func(q *Pod) {
		if q.State = Online; q.Gate != GateMissing {
			q.Gate = GateOn
		}
		q.Ready = q.running()
	})
	each(p.Cut, is(Cutoff))
	each(p.Standby, is(Standby))
	each(p.ClearCosts, cost(0))
	each(p.SetCosts, cost(DeletionCost))
	if p.Scale != nil {
		c.w.Replicas = *p.Scale
	}
	if p.Delete != nil {
		c.pods = slices.DeleteFunc(c.pods, func(q Pod) bool { return q.UID == p.Delete.UID })
	}
}

// remove does what the workload's controller does when there are too many pods, and returns whom it removed.
func (c *cluster) remove(t *rapid.T) (removed []Pod) {
	living := func() (n int) {
		for _, p := range c.pods {
			n += rank(!p.Gone)
		}
		return n
	}
	for living() > int(c.w.Replicas) {
		var victim Pod
		for _, p := range c.pods {
			switch {
			case p.Gone:
			case victim.UID == "":
				victim = p
			case c.w.Kind == StatefulSet && p.Ordinal > victim.Ordinal:
				victim = p
			case c.w.Kind == ReplicaSets:
				// Beyond the cost, Kubernetes may choose any.
				order := cmp.Or(started(p, victim), rank(p.Ready)-rank(victim.Ready), cmp.Compare(p.DeletionCost, victim.DeletionCost))
				if order < 0 || order == 0 && rapid.Bool().Draw(t, "chance") {
					victim = p
				}
			}
		}
		removed = append(removed, victim)
		c.pods = slices.DeleteFunc(c.pods, func(q Pod) bool { return q.UID == victim.UID })
	}
	return removed
}

func drawPods(t *rapid.T, owners int) (all []Pod) {
	ordinals := rapid.SliceOfNDistinct(rapid.Int32Range(0, 14), 0, 12, rapid.ID[int32]).Draw(t, "ordinals")
	for _, n := range ordinals {
		p := running(fmt.Sprint("web-", n))
		p.Node = rapid.SampledFrom([]string{"n1", "n2", "n3"}).Draw(t, "node")
		p.Owner = fmt.Sprint("rs-", rapid.IntRange(1, owners).Draw(t, "owner"))
		p.Restarts = rapid.Int32Range(0, 2).Draw(t, "restarts")
		p.ReadySince = zero.Add(time.Duration(rapid.IntRange(0, 3).Draw(t, "ready since")))
		p.DeletionCost = rapid.SampledFrom([]int32{0, 0, 0, -5, 5, DeletionCost}).Draw(t, "cost")
		is(rapid.SampledFrom([]State{Online, Online, Online, Cutoff, Cutoff, Standby}).Draw(t, "state"))(&p)
		switch rapid.IntRange(0, 11).Draw(t, "oddity") {
		case 0:
			pending(&p)
		case 1:
			unready(&p)
		case 2:
			gateless(&p)
		case 3:
			gone(&p)
		case 4:
			p.Gate = rapid.SampledFrom([]Gate{GateUnset, GateOn, GateOff}).Draw(t, "gate")
		}
		all = append(all, p)
	}
	return all
}

func drawWorkload(t *rapid.T) Workload {
	return Workload{Kind: rapid.SampledFrom([]Kind{ReplicaSets, StatefulSet}).Draw(t, "kind"), Replicas: rapid.Int32Range(0, 15).Draw(t, "replicas"),
		OrderedReady: rapid.Bool().Draw(t, "ordered"), Direction: rapid.SampledFrom([]Direction{"", Both, Both, Up, Down, Neither}).Draw(t, "direction"),
		Updating: rapid.SampledFrom([]string{"", "", "", "revision b"}).Draw(t, "updating")}
}

func drawSpec(t *rapid.T) Counts {
	return Counts{rapid.Int32Range(0, 10).Draw(t, "online"), rapid.Int32Range(0, 6).Draw(t, "cutoff"), rapid.SampledFrom([]int32{0, 0, 0, 2}).Draw(t, "standby")}
}

func TestAnyPlanIsSound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w, spec, pods := drawWorkload(t), drawSpec(t), drawPods(t, rapid.IntRange(1, 2).Draw(t, "owners"))
		plan := Decide(w, spec, pods)
		fail := func(format string, args ...any) {
			t.Helper()
			t.Fatalf("%s\n%+v\n%+v\n%+v\nplan %s, %+v", fmt.Sprintf(format, args...), w, spec, pods, show(plan), plan)
		}
		byUID := map[string]Pod{}
		for _, p := range pods {
			byUID[p.UID] = p
		}
		seen := map[string]bool{}
		onlineRunning := int32(0)
		for _, p := range pods {
			onlineRunning += int32(rank(!p.Gone && p.running() && !p.held()))
		}
		goes := map[string]bool{}
		for _, p := range plan.Condemned {
			goes[p.UID] = true
			onlineRunning -= int32(rank(p.running() && !p.held()))
		}
		cutBelow := false
		for _, p := range slices.Concat(plan.Online, plan.Cut, plan.Standby) {
			if seen[p.UID] {
				fail("pod %s is in two lists", p.Name)
			}
			if seen[p.UID] = true; byUID[p.UID] != p || p.Gone {
				fail("pod %s is not one of those given", p.Name)
			}
		}
		for _, p := range slices.Concat(plan.Cut, plan.Standby) {
			if p.Gate == GateMissing {
				fail("pod %s cannot be cut", p.Name)
			}
			if p.running() && !p.held() && !goes[p.UID] {
				cutBelow, onlineRunning = true, onlineRunning-1
			}
		}
		if cutBelow && onlineRunning < plan.Wanted.Online {
			fail("cut until %d are online, %d are wanted", onlineRunning, plan.Wanted.Online)
		}
		if plan.Scale != nil && *plan.Scale < w.Replicas && (w.Direction == Up || w.Direction == Neither) {
			fail("scaled down although that is disabled")
		}
		if plan.Scale != nil && *plan.Scale > w.Replicas && (w.Direction == Down || w.Direction == Neither) {
			fail("scaled up although that is disabled")
		}
		if plan.Scale != nil && *plan.Scale != plan.Wanted.Total() {
			fail("/scale is not the total")
		}
		if plan.Applied && (len(seen) > 0 || plan.Scale != nil || plan.Wait != "") {
			fail("applied with something left to do")
		}
		if plan.Delete != nil && (!goes[plan.Delete.UID] || plan.Delete.Ordinal < w.Replicas) {
			fail("pod %s would be deleted and come back", plan.Delete.Name)
		}
		again := Decide(w, spec, append(slices.Clone(pods[len(pods)/2:]), pods[:len(pods)/2]...))
		if show(again) != show(plan) {
			fail("another order of the pods gives another plan: %s", show(again))
		}
	})
}

func TestPlansComeToRestAndTheCutPodsAreTheDeletedOnes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := &cluster{w: drawWorkload(t), pods: drawPods(t, 1)}
		c.w.Updating = ""
		spec := drawSpec(t)
		var plan Plan
		for i := 0; ; i++ {
			plan = Decide(c.w, spec, c.pods)
			before := cluster{c.w, slices.Clone(c.pods)}
			c.carryOut(plan)
			protected := plan.Scale != nil && *plan.Scale < before.w.Replicas && slices.ContainsFunc(before.pods, func(p Pod) bool { return p.held() && !p.Gone })
			goes := map[string]bool{}
			for _, p := range plan.Condemned {
				goes[p.UID] = true
			}
			var removed []Pod
			if c.w.Kind == ReplicaSets && plan.Wait == "" || c.w.Kind == StatefulSet && !c.w.OrderedReady {
				removed = c.remove(t)
				for _, p := range removed {
					if protected && !goes[p.UID] && c.w.Kind == ReplicaSets {
						t.Fatalf("pod %s is removed, condemned are %v\n%+v\n%+v", p.Name, plan.Condemned, before, show(plan))
					}
				}
			}
			if len(plan.Online)+len(plan.Cut)+len(plan.Standby)+len(plan.SetCosts)+len(plan.ClearCosts)+len(removed) == 0 && plan.Scale == nil && plan.Delete == nil {
				break
			}
			if i > 40 {
				t.Fatalf("never at rest: %s\n%+v", show(plan), c)
			}
		}
		if plan.Wait != "" {
			return
		}
		// What is there is as wanted, as far as there are pods and gates.
		var online, cutoff, standby, oddities int32
		for _, p := range c.pods {
			if p.Gone {
				continue
			}
			switch p.effective() {
			case Online:
				online++
			case Cutoff:
				cutoff++
			case Standby:
				standby++
			}
			oddities += int32(rank(p.Gate == GateMissing || !p.running()))
		}
		if want := plan.Wanted; c.w.Kind == ReplicaSets && oddities == 0 && online+cutoff+standby >= want.Total() && (online < want.Online || cutoff != want.Cutoff || standby != want.Standby) {
			t.Fatalf("at rest with %d/%d/%d, want %+v", online, cutoff, standby, want)
		}
		if plan.Applied && (cutoff < plan.Wanted.Cutoff || standby < plan.Wanted.Standby) {
			t.Fatalf("applied with %d/%d/%d, want %+v", online, cutoff, standby, plan.Wanted)
		}
	})
}

func TestAGrayRunDeletesExactlyThePodsThatWereCut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Int32Range(1, 12).Draw(t, "pods")
		c := &cluster{w: Workload{Kind: rapid.SampledFrom([]Kind{ReplicaSets, StatefulSet}).Draw(t, "kind"), Replicas: n, OrderedReady: rapid.Bool().Draw(t, "ordered")},
			pods: pods(int(n))}
		for i := range c.pods {
			c.pods[i].Node = rapid.SampledFrom([]string{"n1", "n2", "n3"}).Draw(t, "node")
			c.pods[i].Created = zero.Add(time.Duration(rapid.IntRange(0, 3).Draw(t, "created")))
		}
		c.pods = rapid.Permutation(c.pods).Draw(t, "order")
		cut := map[string]bool{}
		step := func(spec Counts) Plan {
			plan := Decide(c.w, spec, c.pods)
			c.carryOut(plan)
			for _, p := range plan.Cut {
				cut[p.UID] = true
			}
			for _, p := range plan.Online {
				delete(cut, p.UID)
			}
			return plan
		}
		online := n
		for online > 0 && rapid.IntRange(0, 3).Draw(t, "more") > 0 {
			online -= rapid.Int32Range(1, online).Draw(t, "less")
			if plan := step(Counts{Online: online, Cutoff: n - online}); len(plan.Condemned) > 0 || !Decide(c.w, Counts{Online: online, Cutoff: n - online}, c.pods).Applied {
				t.Fatalf("cutting to %d: %s", online, show(plan))
			}
			if i := rapid.IntRange(0, int(n)-1).Draw(t, "flaky"); rapid.Bool().Draw(t, "flaps") && !c.pods[i].held() {
				c.pods[i].Ready = !c.pods[i].Ready
			}
		}
		step(Counts{Online: online})
		want := len(cut)
		for i := 0; c.w.OrderedReady && c.w.Kind == StatefulSet && len(c.pods) > int(online); i++ {
			before := len(c.pods)
			if step(Counts{Online: online}); len(c.pods) == before {
				t.Fatalf("a cut pod is never deleted: %+v", c)
			}
		}
		c.remove(t)
		for _, p := range c.pods {
			if cut[p.UID] {
				t.Fatalf("pod %s was cut and stays", p.Name)
			}
		}
		if len(c.pods) != int(n)-want {
			t.Fatalf("%d of %d pods are left, %d were cut", len(c.pods), n, want)
		}
	})
}
