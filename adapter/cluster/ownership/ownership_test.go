package ownership

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func names(n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("kubetide-%d-%07x", i, i*7919)
	}
	return all
}

// Nodes of different versions must agree, so the order never changes.
func TestRankIsTheSameForEver(t *testing.T) {
	nodes := []string{"a", "b", "c", "kubetide-0-x7f3k2q"}
	tests := map[string][]int{ // by node, in the order above
		"":                     {2, 1, 3, 0},
		"k":                    {2, 1, 0, 3},
		"0123456789abcdef0123": {3, 1, 0, 2},
		"0123456789abcdef0124": {0, 3, 2, 1},
	}
	for key, want := range tests {
		var got []int
		for _, node := range nodes {
			got = append(got, Rank(key, node, nodes))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("ranks of %q (-want +got):\n%s", key, diff)
		}
	}
	if rank := Rank("k", "d", nodes); rank != -1 {
		t.Errorf("a node that is not there has rank %d", rank)
	}
	if owner := Owner("k", nil); owner != "" {
		t.Errorf("%q owns without being there", owner)
	}
}

func TestRanksArePlacesInOneOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.String().Draw(t, "key")
		nodes := rapid.SliceOfNDistinct(rapid.String().Filter(func(s string) bool { return s != "" }), 1, 9, rapid.ID[string]).Draw(t, "nodes")
		shuffled := rapid.Permutation(nodes).Draw(t, "shuffled")
		order := make([]string, len(nodes))
		for _, node := range nodes {
			rank := Rank(key, node, nodes)
			if order[rank] != "" {
				t.Fatalf("%q and %q have rank %d", node, order[rank], rank)
			}
			order[rank] = node
			if other := Rank(key, node, shuffled); other != rank {
				t.Fatalf("the rank of %q is %d, and %d in another order", node, rank, other)
			}
		}
		if owner := Owner(key, shuffled); owner != order[0] {
			t.Fatalf("%q owns, %q has rank 0", owner, order[0])
		}
		gone := rapid.IntRange(0, len(nodes)-1).Draw(t, "gone")
		left := slices.Delete(slices.Clone(order), gone, gone+1)
		for want, node := range left {
			if got := Rank(key, node, left); got != want {
				t.Fatalf("%q went from rank %d to %d when rank %d left", node, want, got, gone)
			}
		}
	})
}

// The bounds are what dice would give.
func TestBalance(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	for _, tt := range []struct {
		nodes, keys int
		most        float64
	}{{3, 100, 1.15}, {3, 1000, 1.05}, {5, 100, 1.28}, {5, 1000, 1.09}, {10, 100, 1.52}, {10, 1000, 1.17}} {
		const rounds = 100
		sum := 0.0
		for range rounds {
			nodes := make([]string, tt.nodes)
			for i := range nodes {
				nodes[i] = fmt.Sprintf("kubetide-%d-%07x", i, random.Uint32()>>4)
			}
			counts, most := map[string]int{}, 0
			for range tt.keys {
				owner := Owner(fmt.Sprintf("%020x", random.Uint64()), nodes)
				counts[owner]++
				most = max(most, counts[owner])
			}
			sum += float64(most) * float64(tt.nodes) / float64(tt.keys)
		}
		t.Logf("%d nodes, %d keys: the fullest has %.3f of the mean", tt.nodes, tt.keys, sum/rounds)
		if sum/rounds > tt.most+0.01 {
			t.Errorf("%d nodes, %d keys: the fullest node has %.3f of the mean, more than %.2f", tt.nodes, tt.keys, sum/rounds, tt.most)
		}
	}
}

// Names that differ in their last characters only, and keys in one, are what FNV alone orders badly.
func TestBalanceOfNamesThatDifferLittle(t *testing.T) {
	counts := map[string]int{}
	for i := range 10_000 {
		counts[Owner(fmt.Sprintf("query-%d", i), []string{"kubetide-0", "kubetide-1", "kubetide-2"})]++
	}
	for node, n := range counts {
		if n < 3000 || n > 3700 {
			t.Errorf("%s owns %d of 10,000", node, n)
		}
	}
}

// A restart gives a node a new ID and the same keys; nodes that cannot be told apart but by the random end share them all the same.
func TestOwnersBeforeAndAfterARestart(t *testing.T) {
	before := []string{"kubetide-0-abcdefg", "kubetide-1-0000000", "kubetide-2-x7f3k2q"}
	after := []string{"kubetide-0-abcdefg", "kubetide-1-9z9z9z9", "kubetide-2-x7f3k2q"}
	alike := []string{"kubetide-aaaaaaa", "kubetide-bbbbbbb", "kubetide-ccccccc"}
	counts := map[string]int{}
	for i := range 10_000 {
		key := fmt.Sprintf("query-%d", i)
		if was, is := Owner(key, before), Owner(key, after); slices.Index(before, was) != slices.Index(after, is) {
			t.Fatalf("%s moved from %s to %s", key, was, is)
		}
		counts[Owner(key, alike)]++
	}
	for _, node := range alike {
		if n := counts[node]; n < 3000 || n > 3700 {
			t.Errorf("%s owns %d of 10,000", node, n)
		}
	}
	for node, want := range map[string]string{"kubetide-0-abcdefg": "kubetide-0", "kubetide-0-abcdefG": "kubetide-0-abcdefG", "-abcdefg": "-abcdefg",
		"kubetide-0": "kubetide-0", "": "", "kubetide-abcdef": "kubetide-abcdef", "kubetide0abcdefg": "kubetide0abcdefg"} {
		if got := place(node); got != want {
			t.Errorf("the place of %q is %q, not %q", node, got, want)
		}
	}
}

func TestSamplesKeepTheLastOfEachNode(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var all Samples
		last := map[string]time.Time{}
		for range rapid.IntRange(0, 40).Draw(t, "samples") {
			node := rapid.SampledFrom(names(12)).Draw(t, "node")
			taken := epoch.Add(time.Duration(rapid.IntRange(0, 100).Draw(t, "taken")) * second)
			all = all.With(Sample{Node: node, Taken: taken})
			last[node] = latest(last[node], taken)
		}
		if len(all) != min(len(last), maxSamples) {
			t.Fatalf("%d samples of %d nodes", len(all), len(last))
		}
		if !slices.IsSortedFunc(all, func(a, b Sample) int { return b.Taken.Compare(a.Taken) }) {
			t.Fatalf("not by age: %v", all)
		}
		for _, s := range all {
			if len(last) <= maxSamples && !s.Taken.Equal(last[s.Node]) {
				t.Fatalf("%s has a sample of %s, its last is of %s", s.Node, s.Taken, last[s.Node])
			}
		}
		newest := time.Time{}
		for _, taken := range last {
			newest = latest(newest, taken)
		}
		if len(all) > 0 && !all[0].Taken.Equal(newest) {
			t.Fatalf("the freshest is of %s, not %s", newest, all[0].Taken)
		}
	})
}

// What each node decides 100 s after it knows the query, with an interval of 10 s. The nodes are named by their ranks.
func TestDecide(t *testing.T) {
	const key = "0123456789abcdef0123"
	byRank := names(4)
	slices.SortFunc(byRank, func(a, b string) int { return Rank(key, a, byRank) - Rank(key, b, byRank) })
	byRank = slices.Clone(byRank)
	now := epoch.Add(100 * second)
	type sample struct {
		rank      int
		age, took float64
	}
	type want struct {
		collect bool
		in      float64 // when to ask again
		reason  Reason
	}
	tests := map[string]struct {
		node    int
		nodes   []int
		samples []sample
		tried   float64 // how long ago; 0 is never
		known   float64
		want    want
	}{
		"a node that is alone collects":                                {0, nil, nil, 0, 0, want{true, 0, IsOwner}},
		"also with a sample of its own of just now":                    {0, []int{0}, []sample{{0, 1, 0}}, 1, 0, want{true, 0, IsOwner}},
		"the owner collects what nobody has":                           {0, []int{0, 1, 2}, nil, 0, 0, want{true, 0, IsOwner}},
		"the owner goes on":                                            {0, []int{0, 1, 2}, []sample{{0, 10, 0}, {1, 12, 0}}, 10, 100, want{true, 0, IsOwner}},
		"a new owner waits for the end of another's interval":          {0, []int{0, 1, 2}, []sample{{1, 4, 0}}, 0, 0, want{false, 5, HandOver}},
		"and begins a little before the other's turn":                  {0, []int{0, 1, 2}, []sample{{1, 9, 0}}, 0, 0, want{true, 0, IsOwner}},
		"it is the same after it owned it before":                      {0, []int{0, 1, 2}, []sample{{1, 4, 0}, {0, 30, 0}}, 30, 100, want{false, 5, HandOver}},
		"the second does not collect what the owner does":              {1, []int{0, 1, 2}, []sample{{0, 3, 0}}, 0, 100, want{false, 12, Owned}},
		"it waits as long as the owner may be late":                    {1, []int{0, 1, 2}, []sample{{0, 14.9, 0}}, 0, 100, want{false, 0.1, Owned}},
		"then it takes over":                                           {1, []int{0, 1, 2}, []sample{{0, 15, 0}}, 0, 100, want{true, 0, TakeOver}},
		"the third waits longer":                                       {2, []int{0, 1, 2}, []sample{{0, 15, 0}}, 0, 100, want{false, 5, Owned}},
		"until it takes over":                                          {2, []int{0, 1, 2}, []sample{{0, 20, 0}}, 0, 100, want{true, 0, TakeOver}},
		"whoever took over goes on":                                    {1, []int{0, 1, 2}, []sample{{1, 10, 0}, {0, 25, 0}}, 10, 100, want{true, 0, Continue}},
		"until the owner is back":                                      {1, []int{0, 1, 2}, []sample{{0, 1, 0}, {1, 10, 0}}, 10, 100, want{false, 14, Owned}},
		"the third leaves it to the second":                            {2, []int{0, 1, 2}, []sample{{2, 10, 0}, {1, 12, 0}}, 10, 100, want{false, 8, Owned}},
		"the second does not leave it to the third":                    {1, []int{0, 1, 2}, []sample{{2, 8, 0}, {1, 10, 0}}, 10, 100, want{true, 0, Continue}},
		"but does not begin beside it either":                          {1, []int{0, 1, 2}, []sample{{2, 8, 0}}, 0, 100, want{false, 7, Patience}},
		"an old owner goes on until the new one has begun":             {1, []int{0, 1, 2}, []sample{{1, 10, 0}}, 10, 100, want{true, 0, Continue}},
		"a node that leaves goes on":                                   {0, []int{1, 2}, []sample{{0, 10, 0}}, 10, 100, want{true, 0, Continue}},
		"until another has begun":                                      {0, []int{1, 2}, []sample{{1, 2, 0}, {0, 10, 0}}, 10, 100, want{false, 18, Owned}},
		"a node that joins leaves it to the others":                    {0, []int{1, 2}, []sample{{1, 2, 0}}, 0, 1, want{false, 18, Owned}},
		"a sample of a node that is gone holds nobody back as owner":   {1, []int{1, 2}, []sample{{0, 9, 0}}, 0, 100, want{true, 0, IsOwner}},
		"but somebody has collected":                                   {2, []int{1, 2}, []sample{{0, 9, 0}}, 0, 100, want{false, 6, Patience}},
		"a query that is new is the owner's":                           {1, []int{0, 1, 2}, nil, 0, 1, want{false, 14, Patience}},
		"unless the owner does nothing":                                {1, []int{0, 1, 2}, nil, 0, 15, want{true, 0, TakeOver}},
		"an attempt that failed is not repeated at once":               {1, []int{0, 1, 2}, []sample{{0, 40, 0}}, 1, 100, want{false, 14, Patience}},
		"it is repeated after a while":                                 {1, []int{0, 1, 2}, []sample{{0, 40, 0}}, 15, 100, want{true, 0, TakeOver}},
		"whoever went on and failed once waits as well":                {1, []int{0, 1, 2}, []sample{{1, 16, 0}, {0, 40, 0}}, 6, 100, want{false, 9, Patience}},
		"the owner repeats an attempt as its scheduler sees fit":       {0, []int{0, 1, 2}, []sample{{0, 40, 0}}, 0.1, 100, want{true, 0, IsOwner}},
		"an owner that fails while another does not is a little ahead": {0, []int{0, 1, 2}, []sample{{1, 4, 0}}, 1, 100, want{false, 5, HandOver}},
		"a source that takes long is not the owner's fault":            {1, []int{0, 1, 2}, []sample{{0, 18, 9}}, 0, 100, want{false, 6, Owned}},
		"until the owner is late all the same":                         {1, []int{0, 1, 2}, []sample{{0, 24, 9}}, 0, 100, want{true, 0, TakeOver}},
		"what was held up on its way does not count as heard of later": {1, []int{0, 1, 2}, []sample{{0, 25, 20}}, 0, 100, want{true, 0, TakeOver}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			ago := func(seconds float64) time.Time { return now.Add(-time.Duration(seconds * float64(second))) }
			in := Inputs{Key: key, Node: byRank[tt.node], Interval: 10 * second, Known: ago(tt.known)}
			if tt.tried > 0 {
				in.Tried = ago(tt.tried)
			}
			for _, rank := range tt.nodes {
				in.Nodes = append(in.Nodes, byRank[rank])
			}
			for _, s := range tt.samples {
				in.Samples = in.Samples.With(Sample{Node: byRank[s.rank], Taken: ago(s.age), Came: ago(s.age - s.took)})
			}
			d := Decide(in, now)
			got := want{collect: d.Collect, reason: d.Reason}
			if !d.Next.IsZero() {
				got.in = d.Next.Sub(now).Seconds()
			}
			if got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

// Whatever a node sees: a decision not to collect names an instant to come, and nobody waits longer than the last in the order may.
func TestADecisionLooksAgainInTime(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := names(6)
		in := Inputs{Key: rapid.String().Draw(t, "key"), Node: rapid.SampledFrom(all).Draw(t, "node"),
			Nodes:    rapid.SliceOfDistinct(rapid.SampledFrom(all), rapid.ID[string]).Draw(t, "nodes"),
			Interval: time.Duration(rapid.IntRange(1, 60).Draw(t, "interval")) * second}
		now := epoch.Add(time.Hour)
		ago := func(name string) time.Time {
			return now.Add(-time.Duration(rapid.IntRange(0, 200).Draw(t, name)) * second)
		}
		in.Known = ago("known")
		if rapid.Bool().Draw(t, "tried before") {
			in.Tried = ago("tried")
		}
		for range rapid.IntRange(0, 6).Draw(t, "samples") {
			in.Samples = in.Samples.With(Sample{Node: rapid.SampledFrom(all).Draw(t, "sampler"), Taken: ago("taken")})
		}
		d := Decide(in, now)
		if d.Collect {
			return
		}
		longest := in.Interval + in.Interval*time.Duration(len(in.Nodes))/2
		if !d.Next.After(now) || d.Next.After(now.Add(longest)) {
			t.Fatalf("%+v: looks again in %s", d, d.Next.Sub(now))
		}
		in.Samples, in.Tried, in.Known = nil, time.Time{}, now.Add(-longest)
		if d := Decide(in, now); !d.Collect {
			t.Fatalf("nobody has a sample, and it waits: %+v", d)
		}
	})
}

func BenchmarkDecide(b *testing.B) {
	nodes := names(5)
	in := Inputs{Key: "0123456789abcdef0123", Node: nodes[1], Nodes: nodes, Interval: 15 * second, Known: epoch}
	for i, node := range nodes {
		in.Samples = in.Samples.With(Sample{Node: node, Taken: epoch.Add(time.Duration(i) * second)})
	}
	for b.Loop() {
		Decide(in, epoch.Add(minute))
	}
}
