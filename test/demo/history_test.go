package main

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestNoPodIsDeletedWhileItServes(t *testing.T) {
	began := time.Now()
	serve := func(revision uint64, source string, pods ...string) change {
		return change{revision: revision, at: began.Add(time.Duration(revision) * time.Second), source: source, serving: pods}
	}
	remove := func(revision uint64, pod string) change {
		return change{revision: revision, at: began.Add(time.Duration(revision) * time.Second), deleted: pod}
	}
	for name, test := range map[string]struct {
		changes []change
		gaps    []time.Duration
		err     string
	}{
		"cut, observed, deleted": {
			[]change{serve(1, "s", "a", "b", "c"), serve(5, "s", "a", "b"), serve(9, "s", "a"), remove(20, "c"), remove(21, "b")},
			[]time.Duration{15 * time.Second, 12 * time.Second}, "",
		},
		"deleted while it serves": {
			[]change{serve(1, "s", "a", "b"), remove(5, "b"), serve(6, "s", "a")},
			nil, "deleted while in the endpoints: b",
		},
		"a late watch changes nothing": {
			[]change{serve(1, "s", "a", "b"), remove(8, "b"), serve(5, "s", "a")},
			[]time.Duration{3 * time.Second}, "",
		},
		"nor does the deletion's end": {
			[]change{serve(1, "s", "a", "b"), serve(5, "s", "a"), remove(8, "b"), remove(9, "b")},
			[]time.Duration{3 * time.Second}, "",
		},
		"it may move to another slice": {
			[]change{serve(1, "s", "a", "b"), serve(2, "t", "b"), serve(3, "s", "a"), remove(8, "b")},
			nil, "deleted while in the endpoints: b",
		},
		"a pod that never served": {
			[]change{serve(1, "s", "a"), remove(8, "b")},
			nil, "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			gaps, err := (&history{changes: test.changes}).deletions()
			if (err == nil) != (test.err == "") || err != nil && err.Error() != test.err {
				t.Errorf("the error is %v, want %q", err, test.err)
			}
			if diff := cmp.Diff(test.gaps, gaps); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestThePodsThatAreReadyAtTheSwitch(t *testing.T) {
	ready := func(revision uint64, stack string, n int32) change {
		return change{revision: revision, stack: stack, ready: n}
	}
	share := func(revision uint64, stack string, width float64) change {
		return change{revision: revision, stack: stack, share: true, width: width}
	}
	for name, test := range map[string]struct {
		changes []change
		want    int32
		err     string
	}{
		"first pods, then traffic":    {[]change{ready(1, "new", 1), share(2, "new", 0), ready(3, "new", 4), share(4, "new", 1)}, 4, ""},
		"first traffic, then pods":    {[]change{ready(1, "new", 1), share(3, "new", 1), ready(4, "new", 4)}, 1, ""},
		"the watch of pods is behind": {[]change{ready(1, "new", 1), share(4, "new", 1), ready(3, "new", 4)}, 4, ""},
		"other Stacks do not count":   {[]change{ready(1, "new", 1), share(2, "old", 1), ready(3, "old", 4), share(4, "new", 1)}, 1, ""},
		"only the first share counts": {[]change{ready(1, "new", 1), share(2, "new", 0.5), ready(3, "new", 4), share(4, "new", 1)}, 1, ""},
		"no switch":                   {[]change{ready(1, "new", 4), share(2, "new", 0)}, 0, "no route of new had a share"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := (&history{changes: test.changes}).readyAtSwitch("new")
			if (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
				t.Errorf("the error is %v, want %q", err, test.err)
			}
			if got != test.want {
				t.Errorf("got %d, want %d", got, test.want)
			}
		})
	}
}
