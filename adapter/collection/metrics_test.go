package collection

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/kubetide/kubetide/internal/outbound"
	"github.com/kubetide/kubetide/internal/sample"
)

func TestResultsNameTheKindOfAFailure(t *testing.T) {
	notJSON := json.Unmarshal([]byte("{"), new(int))
	tests := map[string]struct {
		err    error
		points int
		late   bool
		want   string
	}{
		"a value":                              {nil, 1, false, "success"},
		"some pods failed":                     {errors.New("refused"), 2, false, "partial"},
		"the source has no value":              {sample.NoData("no window is open"), 0, false, "no_data"},
		"a panic":                              {&panicError{"fake", "nil map"}, 0, false, "panic"},
		"the address is not allowed":           {fmt.Errorf("asking: %w", &outbound.DeniedError{What: "127.0.0.1"}), 0, false, "denied"},
		"the namespace asked too often":        {&outbound.BudgetError{Namespace: "shop"}, 0, false, "budget"},
		"a budget that is used up, told late":  {&outbound.BudgetError{Namespace: "shop"}, 0, true, "budget"},
		"a status":                             {&outbound.StatusError{Status: 500}, 0, false, "status"},
		"too large":                            {&outbound.TooLargeError{Limit: 1}, 0, false, "too_large"},
		"no such host":                         {&net.DNSError{}, 0, false, "resolve"},
		"nobody listens":                       {&net.OpError{Op: "dial", Err: errors.New("refused")}, 0, false, "connect"},
		"what came is no JSON":                 {fmt.Errorf("the document is not JSON: %w", notJSON), 0, false, "decode"},
		"what came is no finite number":        {sample.ErrNotFinite, 0, false, "decode"},
		"the time was over":                    {errors.New("stopped"), 0, true, "timeout"},
		"a request's own time was over":        {fmt.Errorf("asking: %w", context.DeadlineExceeded), 0, false, "timeout"},
		"what ended with the context was late": {context.Canceled, 0, true, "timeout"},
		"anything else":                        {errors.New("the queue does not exist"), 0, false, "error"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := result(tt.points, tt.err, tt.late); got != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
		})
	}
}

func TestNamespacesBeyondTheLimitAreCountedTogether(t *testing.T) {
	registry := prometheus.NewRegistry()
	m := newMetrics(registry)
	in := func(namespace string) sample.Query {
		return sample.Query{Kind: sample.External, Namespace: namespace, Metric: "m", Collector: "fake", Interval: time.Minute}
	}
	for i := range maxNamespaces {
		m.added(in(fmt.Sprint("ns-", i)))
	}
	m.added(in("late-a"))
	m.added(in("late-b"))
	for _, namespace := range []string{"ns-7", "late-a", "late-b", "late-b"} {
		m.observe(in(namespace), time.Second, 1, nil, false)
	}
	compare := func(want string) {
		t.Helper()
		header := "# HELP kubetide_collections_total Collections that have ended. Labeled by collector, namespace and result: success, partial, no_data, or the kind of the failure.\n# TYPE kubetide_collections_total counter\n"
		if err := testutil.GatherAndCompare(registry, strings.NewReader(header+want), "kubetide_collections_total"); err != nil {
			t.Error(err)
		}
	}
	compare(`kubetide_collections_total{collector="fake",namespace="_other",result="success"} 3
kubetide_collections_total{collector="fake",namespace="ns-7",result="success"} 1
`)

	// A namespace that asks for nothing any more makes room, and its numbers go with it.
	m.removed(in("ns-7"))
	m.added(in("late-b"))
	m.observe(in("late-b"), time.Second, 1, nil, false)
	m.observe(in("ns-7"), time.Second, 1, nil, false) // it was running
	compare(`kubetide_collections_total{collector="fake",namespace="_other",result="success"} 4
kubetide_collections_total{collector="fake",namespace="late-b",result="success"} 1
`)
}

func TestAValueLeavesNoLineInTheLog(t *testing.T) {
	lines := 0
	log := funcr.New(func(prefix, args string) { lines++ }, funcr.Options{})
	b := newBench(t, &source{collect: value}, func(o *Options) { o.Log = log })
	b.want(query("m", time.Minute))
	until(t, "a result", func() bool { return b.count() == 1 })
	if lines > 0 {
		t.Errorf("%d lines", lines)
	}
	b.Log.Info("the counter counts")
	if lines != 1 {
		t.Error("the counter does not count")
	}
}
