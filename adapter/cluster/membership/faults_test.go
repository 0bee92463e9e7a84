package membership

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kubetide/kubetide/adapter/cluster/clustertest"
)

// The tests' names begin with the rows of the table of failures that the cluster is held to.

func TestF1AKilledNodeIsDetectedIn4s(t *testing.T) {
	for size, kills := range map[int]int{3: 20, 5: 20, 10: 10} {
		t.Run(fmt.Sprint(size, " nodes"), func(t *testing.T) {
			in(t, func(w *world) {
				nodes := w.cluster(size)
				var took []time.Duration
				for range kills {
					i := rand.IntN(size)
					dead := nodes[i]
					w.kill(dead)
					took = append(took, w.within(5*time.Second, "detection", func() bool { return !w.anybodyKnows(dead) }))
					nodes[i] = w.start(dead.ip)
					w.within(5*time.Second, "one view after a restart", w.oneView)
					// Until the library has forgotten the dead node, so that each round begins alike.
					time.Sleep(32*time.Second + rand.N(2*time.Second))
				}
				p50, p95, worst := percentile(took, 50), percentile(took, 95), percentile(took, 100)
				w.Logf("all survivors know after p50 %s, p95 %s, at most %s", p50, p95, worst)
				if p95 > 4*time.Second {
					w.Errorf("p95 of the detection is %s", p95)
				}
			})
		})
	}
}

func TestF5APartitionHeals(t *testing.T) {
	for name, tc := range map[string]struct {
		nodes, left int
		lasts       time.Duration
	}{
		"1 of 3 nodes, while the library remembers":      {3, 1, 20 * time.Second},
		"1 of 3 nodes, while it forgets":                 {3, 1, 31 * time.Second},
		"1 of 3 nodes, for 5 minutes":                    {3, 1, 5 * time.Minute},
		"2 of 5 nodes, for 5 minutes":                    {5, 2, 5 * time.Minute},
		"1 of 3 nodes, for longer than records are kept": {3, 1, 15 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(w *world) {
				w.cluster(tc.nodes)
				w.network.Partition(ips(1, tc.left), ips(tc.left+1, tc.nodes))
				w.within(5*time.Second, "view of each side", func() bool {
					for at, n := range w.nodes {
						want := tc.left
						if !slices.Contains(ips(1, tc.left), at) {
							want = tc.nodes - tc.left
						}
						if len(n.Nodes()) != want {
							return false
						}
					}
					return true
				})
				time.Sleep(tc.lasts)
				w.network.Heal()
				w.Logf("one view %s after the healing", w.within(rejoin+5*time.Second, "one view after the healing", w.oneView))
				w.always(time.Minute, "one view", w.oneView)
			})
		})
	}
}

func TestF7AnAsymmetricPartitionDoesNotFlap(t *testing.T) {
	const lasts = 5 * time.Minute
	for _, size := range []int{2, 3, 5} {
		t.Run(fmt.Sprint(size, " nodes"), func(t *testing.T) {
			in(t, func(w *world) {
				nodes := w.cluster(size)
				changes := func() (sum float64) {
					for _, n := range nodes {
						sum += n.count(w.T, "kubetide_cluster_joins_total", "") + n.count(w.T, "kubetide_cluster_leaves_total", "")
					}
					return sum
				}
				before := changes()
				w.network.Set(nodes[0].ip, nodes[1].ip, clustertest.Link{Cut: true})
				time.Sleep(lasts)
				// Two nodes lose each other, once. Among more, the others vouch for both.
				allowed := 0.0
				if size == 2 {
					allowed = 2
				}
				if got := changes() - before; got > allowed {
					w.Errorf("%v changes in %s\n%s", got, lasts, w.views())
				}
				w.network.Heal()
				w.within(rejoin+5*time.Second, "one view after the healing", w.oneView)
			})
		})
	}
}

func TestF11NodesThatStartAtOnceMakeOneCluster(t *testing.T) {
	for name, script := range map[string]func(*world, []netip.Addr){
		"all addresses are known at once": func(w *world, all []netip.Addr) { w.names.resolve("kubetide", all...) },
		"each node knows only itself at first": func(w *world, all []netip.Addr) {
			time.AfterFunc(5*time.Second, func() { w.names.resolve("kubetide", all...) })
		},
	} {
		for _, size := range []int{3, 5} {
			t.Run(fmt.Sprint(name, ", ", size, " nodes"), func(t *testing.T) {
				in(t, func(w *world) {
					all := ips(1, size)
					for round := range 2 {
						w.names.resolve("kubetide")
						script(w, all)
						for _, at := range all {
							own := fmt.Sprint("own-", at)
							w.names.resolve(own, at)
							w.start(at, func(o *Options) { o.Join = append(o.Join, own) })
						}
						w.Logf("round %d: one view after %s", round, w.within(rejoin+5*time.Second, "one view", w.oneView))
						w.always(time.Minute, "one view", w.oneView)
						for _, n := range slices.Clone(w.all) {
							w.kill(n)
						}
					}
				})
			})
		}
	}
}

func TestF12NamesThatDoNotResolveRightAtFirst(t *testing.T) {
	v6 := []netip.Addr{netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2")}
	for name, tc := range map[string]struct {
		at          []netip.Addr
		join        []string
		wrong       func(*world) // what the names say for a while, in which the nodes are on their own
		right       func(*world)
		atOnce      bool
		onlyLast    bool       // looks for others
		alsoUnknown netip.Addr // nobody answers there
	}{
		"only the node itself": {
			at: ips(1, 2), join: []string{"kubetide"}, onlyLast: true,
			wrong: func(w *world) { w.names.resolve("kubetide", ip(2)) }, right: func(w *world) { w.names.resolve("kubetide", ips(1, 2)...) },
		},
		"no such name": {
			at: ips(1, 2), join: []string{"kubetide"},
			wrong: func(*world) {}, right: func(w *world) { w.names.resolve("kubetide", ips(1, 2)...) },
		},
		"an address of nobody, that answers nothing": {
			at: ips(1, 2), join: []string{"kubetide"}, alsoUnknown: ip(9),
			wrong: func(w *world) { w.names.resolve("kubetide", ip(9)) }, right: func(w *world) { w.names.resolve("kubetide", ip(9), ip(1), ip(2)) },
		},
		"the first name does not exist, the second is right": {
			at: ips(1, 2), join: []string{"nobody", "kubetide"}, atOnce: true,
			right: func(w *world) { w.names.resolve("kubetide", ips(1, 2)...) },
		},
		"the first name hangs, the second is right": {
			at: ips(1, 2), join: []string{"slow", "kubetide"}, atOnce: true,
			right: func(w *world) {
				w.names.hang = map[string]bool{"slow": true}
				w.names.resolve("kubetide", ips(1, 2)...)
			},
		},
		"IPv6 by name": {
			at: v6, join: []string{"kubetide"}, atOnce: true, right: func(w *world) { w.names.resolve("kubetide", v6...) },
		},
		"IPv6 by address":                     {at: v6, join: []string{"fd00::1"}, atOnce: true, right: func(*world) {}},
		"IPv6 by address in brackets":         {at: v6, join: []string{"[fd00::1]"}, atOnce: true, right: func(*world) {}},
		"IPv6 by address and port":            {at: v6, join: []string{"[fd00::1]:8003"}, atOnce: true, right: func(*world) {}},
		"IPv4 by address and port":            {at: ips(1, 2), join: []string{"10.0.0.1:8003"}, atOnce: true, right: func(*world) {}},
		"IPv4 by an address mapped into IPv6": {at: ips(1, 2), join: []string{"::ffff:10.0.0.1"}, atOnce: true, right: func(*world) {}},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(w *world) {
				if tc.alsoUnknown.IsValid() {
					w.network.Partition(tc.at, []netip.Addr{tc.alsoUnknown})
				}
				if tc.atOnce {
					tc.right(w)
				} else {
					tc.wrong(w)
				}
				for _, at := range tc.at {
					w.start(at, func(o *Options) {
						if o.Join = tc.join; tc.onlyLast && at != tc.at[len(tc.at)-1] {
							o.Join = nil
						}
					})
				}
				if !tc.atOnce {
					last := w.nodes[tc.at[len(tc.at)-1]]
					w.always(30*time.Second, "alone", func() bool { return len(last.Nodes()) == 1 })
					tc.right(w)
				}
				w.within(rejoin, "one view", w.oneView)
			})
		})
	}
}

func TestF12TheTimeToJoinIsBounded(t *testing.T) {
	in(t, func(w *world) {
		start := time.Now()
		n := w.start(ip(1), func(o *Options) { o.JoinWithin = time.Minute })
		if err := <-n.ended; !errors.Is(err, ErrNotJoined) {
			w.Errorf("Run returned %v", err)
		}
		if took := time.Since(start); took < time.Minute || took > time.Minute+2*time.Second {
			w.Errorf("Run returned after %s", took)
		}
	})
}

func TestF12ANodeThatHasJoinedMayBeAloneLater(t *testing.T) {
	in(t, func(w *world) {
		w.names.resolve("kubetide", ips(1, 2)...)
		stays := w.start(ip(1), func(o *Options) { o.JoinWithin = time.Minute })
		goes := w.start(ip(2))
		w.within(rejoin, "one view", w.oneView)
		w.kill(goes)
		w.always(2*time.Minute, "running", func() bool { return len(stays.ended) == 0 })
	})
}

func TestF13AnotherClusterAtARecycledAddressIsRefused(t *testing.T) {
	keys := func(t *testing.T, letter string) string {
		path := filepath.Join(t.TempDir(), "keys")
		if err := os.WriteFile(path, []byte(base64.StdEncoding.EncodeToString([]byte(letter+"123456789abcdef"))+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for name, tc := range map[string]struct {
		foreign func(*testing.T, *Options)
		reason  string
	}{
		"another name":         {func(_ *testing.T, o *Options) { o.Cluster = "green" }, refusedLabel},
		"no name":              {func(_ *testing.T, o *Options) { o.Cluster = "" }, refusedLabel},
		"another key":          {func(t *testing.T, o *Options) { o.SecretKeyFile = keys(t, "b") }, refusedKey},
		"no key":               {func(_ *testing.T, o *Options) { o.SecretKeyFile = "" }, refusedKey},
		"another name and key": {func(t *testing.T, o *Options) { o.Cluster, o.SecretKeyFile = "green", keys(t, "b") }, refusedLabel},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(w *world) {
				w.names.resolve("kubetide", ips(1, 3)...)
				own := keys(w.T, "a")
				for _, at := range ips(1, 3) {
					w.start(at, func(o *Options) { o.SecretKeyFile = own })
				}
				w.within(rejoin+5*time.Second, "one view", w.oneView)
				w.kill(w.nodes[ip(3)])
				foreign := w.start(ip(3), func(o *Options) {
					o.SecretKeyFile = own
					tc.foreign(w.T, o)
				})
				delete(w.nodes, ip(3))
				time.Sleep(5 * time.Second) // until the killed node is detected
				w.always(2*time.Minute, "apart", func() bool { return w.oneView() && len(foreign.Nodes()) == 1 })
				refused := 0.0
				for _, n := range w.nodes {
					refused += n.count(w.T, "kubetide_cluster_refused_total", tc.reason)
				}
				if refused == 0 {
					w.Errorf("nothing was refused because of the %s", tc.reason)
				}
			})
		})
	}
}

func TestF13ANodeWithTheSameIDIsRefused(t *testing.T) {
	in(t, func(w *world) {
		nodes := w.cluster(3)
		w.names.resolve("kubetide", ips(1, 4)...)
		taken := nodes[0].Local().ID
		same := w.start(ip(4), func(o *Options) { o.Node.ID = taken })
		delete(w.nodes, ip(4))
		w.always(time.Minute, "one view without the second", func() bool {
			for _, n := range nodes[1:] {
				n.mu.Lock()
				address := n.others[taken].address.Addr()
				n.mu.Unlock()
				if address != ip(1) {
					return false
				}
			}
			return w.oneView() && len(same.Nodes()) == 1
		})
		for _, n := range []*node{nodes[0], nodes[1], same} {
			if n.count(w.T, "kubetide_cluster_refused_total", refusedID) == 0 {
				w.Errorf("%s has not refused anything", n.ip)
			}
		}
	})
}

func TestF14ACrashLoopLeavesNoGhosts(t *testing.T) {
	in(t, func(w *world) {
		nodes := w.cluster(3)
		w.names.resolve("kubetide", ips(1, 4)...)
		const every = 6 * time.Second
		check := func() {
			for _, n := range nodes {
				n.mu.Lock()
				kept := len(n.gone)
				n.mu.Unlock()
				if most := int(recordsKept/every) + 2; kept > most {
					w.Fatalf("%s keeps %d records, more than %d", n.ip, kept, most)
				}
				if list, gauge := len(n.Nodes()), n.count(w.T, "kubetide_cluster_nodes", ""); gauge != float64(list) {
					w.Fatalf("%s lists %d nodes, and its metric says %v", n.ip, list, gauge)
				}
				if list := len(n.Nodes()); list > 5 {
					w.Fatalf("%s lists %d nodes", n.ip, list)
				}
			}
		}
		for range 120 {
			crashing := w.start(ip(4))
			time.Sleep(every)
			w.kill(crashing)
			synctest.Wait()
			check()
		}
		w.within(5*time.Second, "view without the crashing node", w.oneView)
		w.always(20*time.Second, "view without the crashing node", func() bool { check(); return w.oneView() })
	})
}

func TestF14HearsayDoesNotBringBackADeadNode(t *testing.T) {
	in(t, func(w *world) {
		nodes := w.cluster(4)
		dead, gossip := nodes[3], nodes[2]
		w.network.Partition(ips(1, 2), ips(3, 4))
		time.Sleep(time.Minute)
		// One that is as good as dead for the others comes back, and still believes in one that has just died.
		w.network.Heal()
		w.kill(dead)
		gossip.join(context.Background())
		w.within(time.Second, "node that comes back", func() bool { return nodes[0].knows(gossip) && nodes[1].knows(gossip) && gossip.knows(dead) })
		w.always(time.Minute, "view without the dead node", func() bool { return !nodes[0].knows(dead) && !nodes[1].knows(dead) })
		if refused := nodes[0].count(t, "kubetide_cluster_refused_total", refusedGone) + nodes[1].count(t, "kubetide_cluster_refused_total", refusedGone); refused < 2 {
			w.Errorf("%v refused: nobody said that the dead node is alive", refused)
		}
	})
}

func TestF18PacketLossAndDelay(t *testing.T) {
	for name, tc := range map[string]struct {
		link  clustertest.Link
		nodes int
		lasts time.Duration
	}{
		"20 % are lost":                          {clustertest.Link{Loss: .2}, 3, 10 * time.Minute},
		"20 % are lost, among 5 nodes":           {clustertest.Link{Loss: .2}, 5, 3 * time.Minute},
		"all are 500 ms late":                    {clustertest.Link{Delay: 500 * time.Millisecond}, 3, 5 * time.Minute},
		"20 % are lost, the rest is 100 ms late": {clustertest.Link{Loss: .2, Delay: 100 * time.Millisecond}, 3, 5 * time.Minute},
	} {
		t.Run(name+": nobody is taken for dead", func(t *testing.T) {
			in(t, func(w *world) {
				w.cluster(tc.nodes)
				w.network.SetAll(tc.link)
				time.Sleep(tc.lasts)
				for _, n := range w.nodes {
					if lost := n.count(w.T, "kubetide_cluster_leaves_total", ""); lost > 0 {
						w.Errorf("%s took others for dead %v times in %s", n.ip, lost, tc.lasts)
					}
				}
			})
		})
	}
	for _, size := range []int{3, 5} {
		t.Run(fmt.Sprintf("50 %% are lost: %d nodes find each other again in 5 s", size), func(t *testing.T) {
			in(t, func(w *world) {
				w.cluster(size)
				w.network.SetAll(clustertest.Link{Loss: .5})
				apart := time.Time{}
				lost := 0
				w.always(3*time.Minute, "apart for less than 5 s", func() bool {
					if w.oneView() {
						apart = time.Time{}
						return true
					}
					if apart.IsZero() {
						apart = time.Now()
						lost++
					}
					return time.Since(apart) <= 5*time.Second
				})
				w.network.SetAll(clustertest.Link{})
				w.within(5*time.Second, "one view", w.oneView)
				w.Logf("%d times apart in 3 minutes", lost)
			})
		})
	}
}
