package store

import (
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// A list is a set, also where it begins and ends pieces, and a copy that was given out stays as it was.
func TestListEqualsASet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var l list
		model := map[*entry]struct{}{}
		size := rapid.SampledFrom([]int{0, 1, 40, pieceSize - 1, pieceSize, pieceSize + 20}).Draw(t, "size")
		for range size {
			e := &entry{rest: &rest{position: -1}}
			l.add(e)
			model[e] = struct{}{}
		}
		check := func() []*entry {
			got := slices.Collect(l.all)
			set := map[*entry]struct{}{}
			for _, e := range got {
				set[e] = struct{}{}
			}
			if len(got) != len(model) || l.n != len(model) || !maps.Equal(set, model) {
				t.Fatalf("%d entries, %d of them different, n is %d, want %d", len(got), len(set), l.n, len(model))
			}
			return got
		}
		kept, before := check(), l.pieces()
		for _, i := range rapid.SliceOfN(rapid.IntRange(max(0, size-30), size+10), 0, 60).Draw(t, "changes") {
			if i >= size {
				e := &entry{rest: &rest{position: -1}}
				l.add(e)
				model[e] = struct{}{}
			} else if _, there := model[kept[i]]; l.remove(kept[i]) != there {
				t.Fatalf("entry %d was there: %t", i, there)
			} else {
				delete(model, kept[i])
			}
		}
		check()
		if !slices.Equal(slices.Concat(before...), kept) {
			t.Fatal("a copy changed that was given out")
		}
		for e := range model {
			l.remove(e)
		}
		clear(model)
		check()
		l.add(&entry{rest: &rest{position: -1}})
		if l.n != 1 || len(slices.Collect(l.all)) != 1 {
			t.Fatal("an emptied list takes no entry")
		}
	})
}
