package membership

import (
	"context"
	"encoding/base64"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/memberlist"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/kubetide/kubetide/adapter/cluster/clustertest"
)

func TestANewIDEachTime(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		id := NewID("kubetide-0-")
		if !regexp.MustCompile(`^kubetide-0-[a-z0-9]{7}$`).MatchString(id) {
			t.Fatalf("NewID = %q", id)
		}
		seen[id] = true
	}
	if len(seen) < 999 {
		t.Errorf("%d different ones of 1000", len(seen))
	}
}

func TestAlone(t *testing.T) {
	m := Alone(Node{ID: "one", State: Joining})
	calls := 0
	cancel := m.Subscribe(func() { calls++ })
	m.SetState(Active)
	m.SetState(Active)
	if want := []Node{{ID: "one", State: Active}}; !slices.Equal(m.Nodes(), want) || m.Local() != want[0] {
		t.Errorf("Nodes = %v", m.Nodes())
	}
	cancel()
	m.SetState(Leaving)
	if calls != 1 {
		t.Errorf("%d calls for one change while subscribed", calls)
	}
}

func TestStatesReachTheOthers(t *testing.T) {
	in(t, func(w *world) {
		nodes := w.cluster(3)
		var calls atomic.Int32
		cancel := nodes[1].Subscribe(func() {
			// A subscriber may use the membership.
			if len(nodes[1].Nodes()) == 3 {
				calls.Add(1)
				nodes[1].SetState(Active)
			}
		})
		nodes[0].SetState(Leaving)
		want := nodes[0].Local()
		if diff := cmp.Diff(Node{
			ID: want.ID, State: Leaving, Collects: true, Stream: "10.0.0.1:8004", Admin: "10.0.0.1:8002", Version: "1.0.0",
		}, want); diff != "" {
			w.Error(diff)
		}
		w.within(time.Second, "new state", func() bool {
			return slices.Contains(nodes[1].Nodes(), want) && slices.Contains(nodes[2].Nodes(), want) && calls.Load() > 0
		})
		for _, n := range nodes {
			if n.count(w.T, "kubetide_cluster_nodes", "leaving") != 1 || n.count(w.T, "kubetide_cluster_nodes", "active") != 2 {
				w.Errorf("the metrics of %s differ from its list", n.ip)
			}
		}
		cancel()
		before := calls.Load()
		nodes[0].SetState(Active)
		w.within(time.Second, "old state", func() bool { return slices.Contains(nodes[1].Nodes(), nodes[0].Local()) })
		if calls.Load() != before {
			w.Error("called after cancel")
		}
	})
}

func TestALeaveTakesLessThanASecondAndIsNoFailure(t *testing.T) {
	for name, leaving := range map[string]bool{"at once": false, "after a lame duck": true} {
		for _, size := range []int{2, 3, 10} {
			t.Run(fmt.Sprint(name, ", ", size, " nodes"), func(t *testing.T) {
				in(t, func(w *world) {
					nodes := w.cluster(size)
					goes := nodes[size-1]
					if leaving {
						goes.SetState(Leaving)
						goes.SetState(Leaving)
						time.Sleep(10 * time.Second)
					}
					delete(w.nodes, goes.ip)
					start := time.Now()
					goes.cancel()
					goes.cancel()
					w.within(time.Second, "view without the node", func() bool { return !w.anybodyKnows(goes) })
					if err := <-goes.ended; err != nil {
						w.Errorf("Run returned %v", err)
					}
					if took := time.Since(start); took > time.Second {
						w.Errorf("Run returned after %s", took)
					}
					for _, n := range w.nodes {
						if n.count(w.T, "kubetide_cluster_leaves_total", wentLeft) != 1 || n.count(w.T, "kubetide_cluster_leaves_total", wentFailed) != 0 {
							w.Errorf("%s counts %v left and %v failed", n.ip, n.count(w.T, "kubetide_cluster_leaves_total", wentLeft),
								n.count(w.T, "kubetide_cluster_leaves_total", wentFailed))
						}
					}
					w.always(10*time.Second, "view without the node", w.oneView)
				})
			})
		}
	}
}

func TestWhatANodeTellsOfItselfIsChecked(t *testing.T) {
	in(t, func(w *world) {
		g := w.start(ip(1))
		for name, meta := range map[string]string{
			"no JSON":                 "garbage",
			"an unknown state":        `{"s":"asleep"}`,
			"a name for an address":   `{"s":"active","st":"evil.example:8004"}`,
			"an address with no port": `{"s":"active","ad":"10.0.0.1"}`,
		} {
			before := g.count(w.T, "kubetide_cluster_refused_total", refusedMeta)
			err := delegate{g.Gossip}.NotifyAlive(&memberlist.Node{Name: "other", Addr: net.IPv4(10, 0, 0, 2), Port: 8003, Meta: []byte(meta)})
			if err == nil || g.count(w.T, "kubetide_cluster_refused_total", refusedMeta) != before+1 {
				w.Errorf("%s: NotifyAlive = %v", name, err)
			}
		}
	})
}

func TestRecordsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r records
		for range maxRecords + 10 {
			r = r.add(NewID(""))
			time.Sleep(time.Millisecond)
		}
		r = r.add("last")
		if len(r) != maxRecords {
			t.Errorf("%d records", len(r))
		}
		time.Sleep(recordsKept - time.Second)
		if _, ok := r.since("last"); !ok {
			t.Errorf("forgotten before %s", recordsKept)
		}
		time.Sleep(time.Second)
		if _, ok := r.since("last"); ok {
			t.Errorf("not forgotten after %s", recordsKept)
		}
		if r = r.add("next"); len(r) != 1 {
			t.Errorf("%d records after the others are too old", len(r))
		}
	})
}

func TestEntriesToJoin(t *testing.T) {
	for entry, want := range map[string]string{
		"kubetide":                 "kubetide 8003",
		"kubetide.ns.svc:9000":     "kubetide.ns.svc 9000",
		"10.0.0.1":                 "10.0.0.1 8003",
		"10.0.0.1:9000":            "10.0.0.1 9000",
		"fd00::1":                  "fd00::1 8003",
		"[fd00::1]":                "fd00::1 8003",
		"[fd00::1]:9000":           "fd00::1 9000",
		"kubetide:":                "error",
		":8003":                    "error",
		"kubetide:gossip":          "error",
		"kubetide:70000":           "error",
		"fd00::1::2":               "error",
		"http://kubetide.ns:8003/": "error",
	} {
		host, port, err := splitEntry(entry, 8003)
		got := "error"
		if err == nil {
			got = strings.Join([]string{host, netip.AddrPortFrom(netip.IPv4Unspecified(), port).String()[len("0.0.0.0:"):]}, " ")
		}
		if got != want {
			t.Errorf("splitEntry(%q) = %s, want %s (%v)", entry, got, want, err)
		}
	}
}

func TestAdvertisedAddress(t *testing.T) {
	for name, tc := range map[string]struct{ given, bound, want string }{
		"given":                     {"10.1.2.3:9000", "", "10.1.2.3:9000"},
		"given without a port":      {"10.1.2.3:0", "0.0.0.0", "10.1.2.3:8003"},
		"given as a template does":  {"[10.0.0.2]:9000", "", "10.0.0.2:9000"},
		"given as IPv6":             {"[fd00::1]:9000", "", "[fd00::1]:9000"},
		"that of the listener":      {"", "127.0.0.1", "127.0.0.1:8003"},
		"that of the IPv6 listener": {"", "::1", "[::1]:8003"},
	} {
		if got, err := advertised(tc.given, tc.bound, 8003); err != nil || got.String() != tc.want {
			t.Errorf("%s: %s, %v, want %s", name, got, err, tc.want)
		}
	}
	for _, bound := range []string{"", "0.0.0.0", "::"} {
		if got, err := advertised("", bound, 8003); err == nil && (got.Addr().IsUnspecified() || got.Addr().IsLoopback()) {
			t.Errorf("bound to %q: nobody else reaches %s", bound, got)
		}
	}
}

func TestOptionsThatCannotWork(t *testing.T) {
	for name, change := range map[string]func(*Options){
		"a label that is too long":      func(o *Options) { o.Cluster = strings.Repeat("x", 256) },
		"no such key file":              func(o *Options) { o.SecretKeyFile = "/nonexistent" },
		"an entry that is no address":   func(o *Options) { o.Join = []string{"a:b:c"} },
		"a stream that is no address":   func(o *Options) { o.Node.Stream = "here" },
		"a stream that is a name":       func(o *Options) { o.Node.Stream = "here:8004" },
		"a version of 500 letters":      func(o *Options) { o.Node.Version = strings.Repeat("x", 500) },
		"a listener without a port":     func(o *Options) { o.Transport, o.BindAddr = nil, "127.0.0.1" },
		"a listener with a named port":  func(o *Options) { o.Transport, o.BindAddr = nil, "127.0.0.1:gossip" },
		"an advertised name, no number": func(o *Options) { o.Transport, o.BindAddr, o.AdvertiseAddr = nil, "127.0.0.1:0", "here:8003" },
	} {
		t.Run(name, func(t *testing.T) {
			defer goleak.VerifyNone(t)
			w := &world{T: t, network: clustertest.New(1)}
			o := w.options(ip(1))
			change(&o)
			if _, err := New(o); err == nil {
				t.Error("New accepts it")
			}
		})
	}
}

func key(letter string) string {
	return base64.StdEncoding.EncodeToString([]byte(strings.Repeat(letter, 32))) + "\n"
}

func TestKeysOfAFile(t *testing.T) {
	for name, tc := range map[string]struct {
		text string
		keys int // 0: an error
	}{
		"one":                           {key("a"), 1},
		"two, and empty lines":          {"\n" + key("a") + "\n" + key("b"), 2},
		"16 bytes":                      {base64.StdEncoding.EncodeToString(make([]byte, 16)), 1},
		"17 bytes":                      {base64.StdEncoding.EncodeToString(make([]byte, 17)), 0},
		"no base64":                     {key("a") + "secret words\n", 0},
		"nothing":                       {"", 0},
		"more than anybody needs":       {strings.Repeat(key("a"), maxKeys+1), 0},
		"more than is read of the file": {strings.Repeat(key("a"), 100), 0},
		"one line without an end":       {strings.Repeat("a", 1<<20), 0},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "keys")
			if err := os.WriteFile(path, []byte(tc.text), 0o600); err != nil {
				t.Fatal(err)
			}
			keys, err := readKeys(path)
			if len(keys) != tc.keys || (err == nil) != (tc.keys > 0) {
				t.Errorf("%d keys, %v", len(keys), err)
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("the error tells the key: %v", err)
			}
		})
	}
}

func TestTheKeyringHoldsWhatTheFileSays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		keys := rapid.SliceOfNDistinct(rapid.SliceOfN(rapid.Byte(), 16, 16), 1, 5, func(k []byte) string { return string(k) })
		pool := keys.Draw(t, "first")
		ring, err := memberlist.NewKeyring(pool, pool[0])
		if err != nil {
			t.Fatal(err)
		}
		handedOut := ring.GetKeys()
		before := slices.Clone(handedOut)
		next := append(keys.Draw(t, "next"), pool[rapid.IntRange(0, len(pool)-1).Draw(t, "kept")])
		next = slices.CompactFunc(next, func(a, b []byte) bool { return string(a) == string(b) })
		if err := setKeys(ring, next); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(next, ring.GetKeys()); diff != "" {
			t.Fatal(diff)
		}
		if diff := cmp.Diff(before, handedOut); diff != "" {
			t.Fatalf("a slice that others read has changed: %s", diff)
		}
	})
}

func TestKeysAreRotatedWithoutARestart(t *testing.T) {
	in(t, func(w *world) {
		path := filepath.Join(w.TempDir(), "keys")
		write := func(keys ...string) {
			if err := os.WriteFile(path, []byte(strings.Join(keys, "")), 0o600); err != nil {
				w.Fatal(err)
			}
			w.always(2*rejoin, "one view", w.oneView)
		}
		write(key("a"))
		w.names.resolve("kubetide", ips(1, 3)...)
		withKeys := func(o *Options) { o.SecretKeyFile = path }
		for _, at := range ips(1, 3) {
			w.start(at, withKeys)
		}
		w.within(rejoin, "one view", w.oneView)
		write(key("a"), key("b"))
		write(key("b"), key("a"))
		write(key("b"))
		for _, n := range w.nodes {
			if got := n.keyring.GetKeys(); len(got) != 1 || got[0][0] != 'b' {
				w.Errorf("%s still has %q", n.ip, got)
			}
			if n.count(w.T, "kubetide_cluster_refused_total", "") != 0 {
				w.Errorf("%s has refused something", n.ip)
			}
		}
		write("no key")
		if got := w.nodes[ip(1)].keyring.GetKeys(); len(got) != 1 {
			w.Errorf("a broken file leaves %d keys", len(got))
		}
	})
}

func TestOnRealSockets(t *testing.T) {
	for name, host := range map[string]string{"IPv4": "127.0.0.1", "IPv6": "::1"} {
		t.Run(name, func(t *testing.T) {
			defer goleak.VerifyNone(t)
			var nodes []*Gossip
			var join []string
			ended := make(chan error, 3)
			for range 4 {
				g, err := New(Options{
					Node: Node{ID: NewID(""), State: Active, Stream: ":8004"}, Cluster: "blue", BindAddr: net.JoinHostPort(host, "0"), Join: slices.Clone(join),
					RejoinInterval: time.Second, SuspectAfter: time.Second, Registerer: prometheus.NewRegistry(), Log: logr.Discard(),
				})
				if err != nil {
					t.Fatal(err)
				}
				if want := net.JoinHostPort(host, "8004"); g.Address().Port() == 0 || g.Local().Stream != want {
					t.Errorf("gossip at %s, stream at %s, want %s", g.Address(), g.Local().Stream, want)
				}
				nodes, join = append(nodes, g), append(join, g.Address().String())
			}
			ctx, cancel := context.WithCancel(t.Context())
			for _, g := range nodes[:2] {
				go func() { ended <- g.Run(ctx) }()
			}
			ctxOfLast, leave := context.WithCancel(t.Context())
			defer leave()
			go func() { ended <- nodes[3].Run(ctxOfLast) }()
			see := func(what string, want int, who []*Gossip) {
				t.Helper()
				for deadline := time.Now().Add(30 * time.Second); ; {
					seen := 0
					for _, g := range who {
						if len(g.Nodes()) == want {
							seen++
						}
					}
					if seen == len(who) {
						return
					}
					if time.Now().After(deadline) {
						t.Fatalf("%s: %v", what, nodes[0].Nodes())
					}
					<-time.After(10 * time.Millisecond)
				}
			}
			see("all join", 4, nodes)
			leave()
			see("one leaves", 3, nodes[:3])
			_ = nodes[2].list.Shutdown() // it has joined nobody itself, and others have found it
			see("one is killed", 2, nodes[:2])
			cancel()
			for range 3 {
				if err := <-ended; err != nil {
					t.Error(err)
				}
			}
		})
	}
}
