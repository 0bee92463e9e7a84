package podstate

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
)

// condemned is the state of a pod that goes.
const condemned State = "Deleted"

// Decide returns what to do with pods, which are all pods of the workload's selector, so that spec comes true.
func Decide(w Workload, spec Counts, pods []Pod) Plan {
	d := decider{w: w}
	for _, p := range pods {
		if !p.Gone {
			d.pods = append(d.pods, p)
		} else if p.Terminating {
			d.terminating = append(d.terminating, p)
		}
	}
	d.found()
	d.direct(spec)
	switch w.Kind {
	case StatefulSet:
		slices.SortStableFunc(d.pods, func(a, b Pod) int { return cmp.Or(-cmp.Compare(a.Ordinal, b.Ordinal), cmp.Compare(a.Name, b.Name)) })
		d.byOrdinal()
	case ReplicaSets:
		onNode := map[string]int{}
		for _, p := range d.pods {
			onNode[p.Node]++
		}
		slices.SortStableFunc(d.pods, func(a, b Pod) int { return removal(a, b, onNode) })
		d.byOrder()
	case ScaleOnly:
		d.target = make([]State, len(d.pods))
	}
	d.freeze()
	d.change()
	d.scale()
	d.delete()
	d.judge()
	return d.plan
}

// decider carries one call of Decide. pods are the living ones in the order in which they go, target the state that each should have.
type decider struct {
	w                 Workload
	pods, terminating []Pod
	target            []State
	plan              Plan
}

// effective is the state that counts: without the gate a pod cannot be out of traffic.
func (p Pod) effective() State {
	if p.Gate == GateMissing {
		return Online
	}
	return p.State
}

func (p Pod) held() bool    { return p.effective() != Online }
func (p Pod) running() bool { return p.Phase == "Running" }

func (d *decider) found() {
	for _, p := range d.pods {
		if p.held() && p.Ready {
			d.plan.CutReady++
		}
		if !p.running() {
			continue
		}
		switch p.effective() {
		case Cutoff:
			d.plan.Counts.Cutoff++
		case Standby:
			d.plan.Counts.Standby++
		default:
			d.plan.Counts.Online++
		}
	}
}

// direct limits spec to the allowed direction. /scale itself is the measure: pods that are missing for a moment must not count
// as a wish for fewer.
func (d *decider) direct(spec Counts) {
	n := func(v int32) int32 { return min(1<<29, max(0, v)) }
	spec, replicas := Counts{n(spec.Online), n(spec.Cutoff), n(spec.Standby)}, n(d.w.Replicas)
	if d.w.Direction == Up || d.w.Direction == Neither {
		// Cutting a pod lowers the online count, so only what is cut already can be held.
		var cut, standby int32
		for _, p := range d.pods {
			switch p.effective() {
			case Cutoff:
				cut++
			case Standby:
				standby++
			}
		}
		spec.Cutoff, spec.Standby = min(spec.Cutoff, cut), min(spec.Standby, standby)
		spec.Online = max(spec.Online, replicas-spec.Cutoff-spec.Standby)
	}
	if d.w.Direction == Down || d.w.Direction == Neither {
		spec.Online = min(spec.Online, replicas)
		spec.Cutoff = min(spec.Cutoff, replicas-spec.Online)
		spec.Standby = min(spec.Standby, replicas-spec.Online-spec.Cutoff)
	}
	d.plan.Wanted = spec
}

// byOrdinal gives each ordinal its state. A StatefulSet removes the highest ordinals, and one that is missing for a moment comes
// back, so the ordinal decides and not the number of pods.
func (d *decider) byOrdinal() {
	want := d.plan.Wanted
	d.target = make([]State, len(d.pods))
	for i, p := range d.pods {
		switch index := p.Ordinal - d.w.FirstOrdinal; {
		case p.Ordinal < 0:
			d.target[i] = p.State
		case index >= want.Total() || index < 0:
			d.target[i] = condemned
		case index >= want.Online+want.Cutoff:
			d.target[i] = Standby
		case index >= want.Online:
			d.target[i] = Cutoff
		default:
			d.target[i] = Online
		}
	}
}

// byOrder walks the states Online, Cutoff, Standby, Deleted: a state with too many pods hands those on that would go first, a state
// with too few takes those back that would go last.
func (d *decider) byOrder() {
	want := d.plan.Wanted
	d.target = make([]State, len(d.pods))
	for i, p := range d.pods {
		d.target[i] = p.effective()
	}
	states := []State{Online, Cutoff, Standby, condemned}
	for at, count := range []int32{want.Online, want.Cutoff, want.Standby} {
		have := d.in(states[at])
		for later := at + 1; later < len(states)-1 && len(have) < int(count); later++ {
			from := d.in(states[later])
			slices.Reverse(from)
			from = from[:min(len(from), int(count)-len(have))]
			d.assign(from, states[at])
			have = append(have, from...)
		}
		if excess := len(have) - int(count); excess > 0 {
			if at == 0 && want.Cutoff+want.Standby > 0 {
				// Those that can be cut are cut first.
				slices.SortStableFunc(have, func(a, b int) int { return rank(d.pods[a].Gate == GateMissing) - rank(d.pods[b].Gate == GateMissing) })
			} else if at > 0 {
				// Those that are held already go before those that are only to be cut, unless Kubernetes would not start them first.
				slices.SortStableFunc(have, func(a, b int) int {
					pa, pb := d.pods[a], d.pods[b]
					return cmp.Or(started(pa, pb), rank(!pa.held())-rank(!pb.held()))
				})
			}
			d.assign(have[:excess], states[at+1])
		}
	}
}

// in returns the pods whose target is s, in the order in which they go.
func (d *decider) in(s State) []int {
	var out []int
	for i := range d.pods {
		if d.target[i] == s {
			out = append(out, i)
		}
	}
	return out
}

func (d *decider) assign(pods []int, s State) {
	for _, i := range pods {
		d.target[i] = s
	}
}

// freeze restores cut pods while a rollout goes on: they would hold it up, and each ReplicaSet removes pods for itself.
func (d *decider) freeze() {
	reason := d.w.Updating
	if d.w.Kind == ReplicaSets && reason == "" {
		owners := map[string]bool{}
		for _, p := range d.pods {
			owners[p.Owner] = true
		}
		if len(owners) > 1 {
			reason = fmt.Sprintf("pods of %d ReplicaSets are there", len(owners))
		}
	}
	held := d.plan.Wanted.Cutoff+d.plan.Wanted.Standby > 0
	if d.w.Kind == ReplicaSets {
		held = held || slices.ContainsFunc(d.pods, Pod.held)
	}
	if reason == "" || !held || d.w.Kind == ScaleOnly {
		return
	}
	d.plan.Frozen = reason
	for i := range d.target {
		if d.w.Kind == ReplicaSets || d.target[i] != condemned {
			d.target[i] = Online
		}
	}
}

// change lists the pods that have to change. A running pod is cut only while more running pods are online than wanted; one that
// does not run serves nothing and can be cut at any time.
func (d *decider) change() {
	if d.w.Kind == ScaleOnly {
		return
	}
	spare := -d.plan.Wanted.Online
	survivorsHeld := false
	for i, p := range d.pods {
		if d.target[i] != condemned && p.running() && !p.held() {
			spare++
		}
		survivorsHeld = survivorsHeld || d.target[i] == Cutoff || d.target[i] == Standby
	}
	for i, p := range d.pods {
		target := d.target[i]
		if target == condemned {
			d.plan.Condemned = append(d.plan.Condemned, p)
			switch {
			case p.held():
				target = p.State
			case d.w.Kind == ReplicaSets && survivorsHeld && p.Gate != GateMissing:
				// A ReplicaSet removes unready pods first: one that goes must not be more ready than one that is held.
				target = Cutoff
			default:
				continue
			}
		}
		switch {
		case target == Online:
			if p.State != Online || p.Gate == GateOff {
				d.plan.Online = append(d.plan.Online, p)
			}
		case p.Gate == GateMissing:
			d.plan.NoGate = append(d.plan.NoGate, p)
		case p.State == target && p.Gate == GateOff:
		case d.target[i] != condemned && !p.held() && p.running() && spare <= 0:
		default:
			if d.target[i] != condemned && !p.held() && p.running() {
				spare--
			}
			if target == Cutoff {
				d.plan.Cut = append(d.plan.Cut, p)
			} else {
				d.plan.Standby = append(d.plan.Standby, p)
			}
		}
	}
	slices.Reverse(d.plan.Online)
	// Cutoff pods serve at once, hibernating ones have to be woken.
	slices.SortStableFunc(d.plan.Online, func(a, b Pod) int { return rank(a.State == Standby) - rank(b.State == Standby) })
}

// scale decides whether /scale may follow now.
func (d *decider) scale() {
	total := d.plan.Wanted.Total()
	lower := total < d.w.Replicas
	if d.w.Kind == ReplicaSets {
		d.protect()
		if lower && d.plan.Wait != "" {
			return
		}
		d.plan.Wait = ""
	}
	if total != d.w.Replicas {
		d.plan.Scale = &total
	}
}

// protect sees to it that a ReplicaSet removes the condemned pods and no others, or says why it cannot be sure of that.
func (d *decider) protect() {
	isCondemned := func(i int) bool { return d.target[i] == condemned }
	protected := d.plan.Frozen != ""
	for i, p := range d.pods {
		protected = protected || p.held() || d.target[i] == Cutoff || d.target[i] == Standby
		if !isCondemned(i) && p.DeletionCost == DeletionCost {
			d.plan.ClearCosts = append(d.plan.ClearCosts, p)
		}
	}
	if !protected {
		return
	}
	if d.plan.Frozen != "" {
		d.plan.Wait = d.plan.Frozen
		return
	}
	var goes, stays []Pod
	for i, p := range d.pods {
		if isCondemned(i) {
			p.DeletionCost = DeletionCost
			goes = append(goes, p)
			continue
		}
		if p.DeletionCost == DeletionCost {
			p.DeletionCost = 0 // about to be cleared
		}
		p.Ready = p.Ready && d.target[i] == Online // or about to be cut
		stays = append(stays, p)
	}
	if len(goes) == 0 || len(stays) == 0 {
		return
	}
	decisive := func(a, b Pod) int {
		return cmp.Or(started(a, b), rank(a.Ready)-rank(b.Ready), cmp.Compare(a.DeletionCost, b.DeletionCost))
	}
	if last, first := slices.MaxFunc(goes, decisive), slices.MinFunc(stays, decisive); decisive(last, first) >= 0 {
		d.plan.Wait = fmt.Sprintf("pod %s (%s) would be removed before pod %s (%s)", first.Name, first.condition(), last.Name, last.condition())
		return
	}
	for _, p := range d.plan.Condemned {
		if p.DeletionCost != DeletionCost {
			d.plan.SetCosts = append(d.plan.SetCosts, p)
		}
	}
	// After an outage of the API server kube-controller-manager may learn of the new count before it learns which pods were cut.
	var ready int32
	for _, p := range d.pods {
		if p.Ready {
			ready++
		}
	}
	if d.w.CountedReady > ready {
		d.plan.Wait = fmt.Sprintf("its ReplicaSet still counts %d ready pods, and there are %d", d.w.CountedReady, ready)
	}
}

func (p Pod) condition() string {
	switch {
	case p.Node == "":
		return "unassigned"
	case !p.running():
		return p.Phase
	case !p.Ready:
		return "not ready"
	}
	return "ready"
}

// delete picks the condemned pod that an OrderedReady StatefulSet would not remove, because cut pods hold it up. One at a time, the
// highest ordinal first, as the StatefulSet itself does.
func (d *decider) delete() {
	if d.w.Kind != StatefulSet || !d.w.OrderedReady || d.plan.Scale != nil || !slices.ContainsFunc(d.pods, Pod.held) {
		return
	}
	for _, p := range d.terminating {
		if p.Ordinal-d.w.FirstOrdinal >= d.w.Replicas {
			return
		}
	}
	for i, p := range d.pods {
		if d.target[i] == condemned && p.Ordinal-d.w.FirstOrdinal >= d.w.Replicas {
			d.plan.Delete = &p
			return
		}
	}
}

func (d *decider) judge() {
	want, have := d.plan.Wanted, d.plan.Counts
	var cutoff, standby int32
	for i, p := range d.pods {
		if d.target[i] == Cutoff && p.effective() == Cutoff {
			cutoff++
		} else if d.target[i] == Standby && p.effective() == Standby {
			standby++
		}
	}
	switch {
	case d.plan.Frozen != "":
		d.plan.Reason = "cut pods are restored: " + d.plan.Frozen
	case d.w.Kind == ScaleOnly && want.Cutoff+want.Standby > 0:
		d.plan.Reason = "pods of this kind of workload cannot be cut"
	case len(d.plan.NoGate) > 0:
		d.plan.Reason = fmt.Sprintf("%d pods cannot be cut: pod %s has no readiness gate %s", len(d.plan.NoGate), d.plan.NoGate[0].Name, kapacity.OnlineConditionType)
	case d.plan.Wait != "":
		d.plan.Reason = "the workload is not scaled down yet: " + d.plan.Wait
	case len(d.plan.Online)+len(d.plan.Cut)+len(d.plan.Standby) > 0 || d.plan.Scale != nil:
		d.plan.Reason = "changes are being made"
	case cutoff != want.Cutoff || standby != want.Standby:
		d.plan.Reason = kapacity.MessageStateChangeSkipped
	default:
		d.plan.Applied = true
	}
	online := have.Online == want.Online
	switch d.w.Direction {
	case Up:
		online = have.Online >= want.Online
	case Down:
		online = have.Online <= want.Online
	case Neither:
		online = true
	}
	d.plan.Ensured = d.plan.Scale == nil && d.plan.Wait == "" && d.plan.Frozen == "" && online && have.Cutoff == want.Cutoff && have.Standby == want.Standby
}

// started orders by what Kubernetes looks at first: unassigned pods go before assigned ones, Pending before Unknown before Running.
func started(a, b Pod) int {
	phase := func(p Pod) int { return rank(p.Phase == "Unknown") + 2*rank(p.running()) }
	return cmp.Or(rank(a.Node != "")-rank(b.Node != ""), phase(a)-phase(b))
}

// removal is the order in which a ReplicaSet removes pods (kube-controller-manager's ActivePodsWithRanks): unassigned, not started,
// not ready, lower deletion cost, more neighbours on the node, ready for less time, more restarts, newer. Kubernetes takes times by
// orders of magnitude and breaks ties by chance; here the name decides, so that the same pods always give the same order.
func removal(a, b Pod, onNode map[string]int) int {
	later := func(a, b time.Time) int { return cmp.Or(rank(b.IsZero())-rank(a.IsZero()), -a.Compare(b)) } // unknown is latest
	return cmp.Or(started(a, b), rank(a.Ready)-rank(b.Ready), cmp.Compare(a.DeletionCost, b.DeletionCost),
		-cmp.Compare(onNode[a.Node], onNode[b.Node]), later(a.ReadySince, b.ReadySince), -cmp.Compare(a.Restarts, b.Restarts), later(a.Created, b.Created), cmp.Compare(a.Name, b.Name))
}

func rank(b bool) int {
	if b {
		return 1
	}
	return 0
}

// Restore returns the plan that gives every pod its traffic back and leaves /scale alone: for a target that is no longer managed.
func Restore(pods []Pod) Plan {
	var plan Plan
	for _, p := range pods {
		if !p.Gone && (p.State != Online || p.Gate == GateOff) {
			plan.Online = append(plan.Online, p)
		}
		if !p.Gone && p.DeletionCost == DeletionCost {
			plan.ClearCosts = append(plan.ClearCosts, p)
		}
	}
	return plan
}
