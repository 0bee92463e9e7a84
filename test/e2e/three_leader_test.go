package e2e

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
)

// The leader is killed while a window holds a scale-down, and the next one stalls before the window is over: what was wanted before
// holds for as long as under one leader, and no longer. Each writes only until the next one does, also when the stalled one goes on.
func TestTheNextLeaderKeepsTheWindow(t *testing.T) {
	// The second recommendation outlives the first by more than a takeover, and by less than the kubelet's patience with who stalls.
	const window, between, late = time.Minute, 15 * time.Second, 4 * time.Second
	c, stop := startThree(t, 0)
	defer stop()
	began := time.Now()
	source := &switched{}
	source.set(80)
	workload(t, c.ns, "Deployment", "shop", 8, "")
	reactiveIHPA(t, c.ns, "shop", failing(t, source), fmt.Sprintf("{scaleDown: {stabilizationWindowSeconds: %d}}", int(window.Seconds())),
		`[{type: External, external: {metric: {name: errors, selector: {matchLabels: {type: json-path}}}, target: {type: AverageValue, averageValue: "10"}}}]`)
	workload(t, c.ns, "Deployment", "cart", 1, "")
	staticIHPA(t, c.ns, "Deployment", "cart", 1, "grayState: Deleted, changePercent: 100, changeIntervalSeconds: 1")
	for _, name := range []string{"shop", "cart"} {
		eventually(t, 20*time.Second, conditionIs(t, c.ns, name, kapacity.ConditionScalingActive, metav1.ConditionTrue))
	}
	c.wanted(8)
	run := follow(t, c.ns, "shop")
	five, two := replicasAt(t, c.ns, "Deployment", "shop", 5), replicasAt(t, c.ns, "Deployment", "shop", 2)

	// The load falls twice.
	fall := func(load int, counts ...int32) time.Time {
		source.set(load)
		until := c.wanted(counts...)
		source.mu.Lock()
		defer source.mu.Unlock()
		near(t, fmt.Sprintf("%d is wanted no more", counts[len(counts)-2]), until, source.seen, 3*time.Second)
		return until
	}
	untilEight := fall(50, 8, 5)
	c.spend(time.Until(untilEight.Add(between)))
	untilFive := fall(20, 8, 5, 2)

	first := c.leader()
	run.mark("the leader is killed")
	second := c.takenOver("killed", first, 2, func(pod string) {
		p, err := kube.CoreV1().Pods(system).Get(t.Context(), pod, metav1.GetOptions{})
		must(t, err)
		must(t, cluster.KillPod(system, pod, syscall.SIGKILL))
		must(t, api.Delete(t.Context(), p, client.GracePeriodSeconds(0), client.Preconditions{UID: &p.UID})) // else it may lead again
	})
	run.mark("another leads")
	c.oneView()

	near(t, "the first scale-down", c.when(five, window), untilEight.Add(window), late)
	run.mark("the leader stalls")
	stalled, _, _ := strings.Cut(second, "_")
	before := c.leadsLost(stalled)
	defer func() { _ = cluster.KillPod(system, stalled, syscall.SIGCONT) }()
	third := c.takenOver("stalled", second, 3, func(pod string) { must(t, cluster.KillPod(system, pod, syscall.SIGSTOP)) })
	run.mark("another leads")
	near(t, "the second scale-down", c.when(two, window), untilFive.Add(window), late)

	must(t, cluster.KillPod(system, stalled, syscall.SIGCONT))
	run.mark("the stalled one goes on")
	eventually(t, 20*time.Second, func() error {
		if c.leadsLost(stalled) == before {
			return fmt.Errorf("%s has not seen that it leads no more", stalled)
		}
		return nil
	})
	c.oneView()
	run.wantAsked(t, 8, 5, 2)
	c.wantWriters(began, first, second, third)
}

// wanted waits until the IHPA shop remembers just these counts for its scale-downs, and returns when the last but one of them
// ceased to be wanted.
func (c *three) wanted(counts ...int32) (until time.Time) {
	c.Helper()
	eventually(c.T, 30*time.Second, func() error {
		behavior := getIHPA(c.T, c.ns, "shop").Status.Behavior
		if behavior == nil {
			return fmt.Errorf("the IHPA remembers nothing")
		}
		var have []int32
		for _, r := range behavior.Highest {
			if have = append(have, r.Replicas); r.Until != nil {
				until = r.Until.Time
			}
		}
		if !slices.Equal(have, counts) {
			return fmt.Errorf("the IHPA remembers %v, want %v", have, counts)
		}
		return nil
	})
	return until
}

// leader is who holds the Lease.
func (c *three) leader() string {
	c.Helper()
	lease, err := kube.CoordinationV1().Leases(system).Get(c.Context(), kapacity.LeaderElectionID, metav1.GetOptions{})
	must(c.T, err)
	return ptr.Deref(lease.Spec.HolderIdentity, "")
}

// leadsLost is how often servers of that pod's name said that they no longer lead, and that all that wrote has ended.
func (c *three) leadsLost(pod string) int {
	c.Helper()
	log, err := cluster.Logs(system, pod)
	must(c.T, err)
	return strings.Count(log, "The engine ended and starts again")
}

// takenOver strikes the leader's pod, and returns who leads after it. A change of cart right after that shows when that one acts.
func (c *three) takenOver(how, leader string, replicas int, strike func(pod string)) (next string) {
	c.Helper()
	acts := replicasAt(c.T, c.ns, "Deployment", "cart", int32(replicas))
	pod, _, _ := strings.Cut(leader, "_")
	struck := time.Now()
	strike(pod)
	setStatic(c.T, c.ns, "cart", replicas)
	eventually(c.T, 20*time.Second, func() error {
		if next = c.leader(); next == leader || next == "" {
			return fmt.Errorf("the Lease is held by %q", next)
		}
		return nil
	})
	led, acted := time.Since(struck), c.when(acts, 20*time.Second).Sub(struck)
	c.Logf("%s was %s: %s led after %s, and wrote /scale of what had changed meanwhile after %s", leader, how, next, led.Round(10*time.Millisecond), acted.Round(10*time.Millisecond))
	if acted > 12*time.Second {
		c.Errorf("the next leader acted after %s", acted)
	}
	return next
}

// when waits for the time at which something happened.
func (c *three) when(happened <-chan time.Time, within time.Duration) (at time.Time) {
	c.Helper()
	select {
	case at = <-happened:
	case <-time.After(within):
		c.Fatalf("it has not happened within %s:\n%s", within, describe(c.Context(), c.ns))
	}
	return at
}

// wantWriters checks who wrote in the namespace, one after another, by the names that they have in the Lease. Events may come late.
func (c *three) wantWriters(since time.Time, want ...string) {
	c.Helper()
	var got, lines []string
	refused := map[string]int{}
	for r, err := range cluster.Audit(since) {
		must(c.T, err)
		if r.User != kubetideUser || r.Namespace != c.ns || !r.Writes() || r.Resource == "events" {
			continue
		}
		writer := r.Pod + "_" + r.PodUID
		lines = append(lines, fmt.Sprintf("%s %s: %s %s/%s/%s: %d", r.Time.Format("15:04:05.000"), writer, r.Verb, r.Resource, r.Name, r.Subresource, r.Code))
		if r.Code >= 300 {
			refused[fmt.Sprintf("%s: %s %s/%s: %d", writer, r.Verb, r.Resource, r.Subresource, r.Code)]++
			continue
		}
		got = append(got, writer)
	}
	c.Logf("%d writes were taken; refused were %v", len(got), refused)
	if got = slices.Compact(got); !slices.Equal(got, want) {
		c.Errorf("there wrote, one after another, %q, want %q:\n%s", got, want, strings.Join(lines, "\n"))
	}
}
