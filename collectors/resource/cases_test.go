package resource

import (
	"context"
	"testing"

	clocktesting "k8s.io/utils/clock/testing"

	"github.com/kubetide/kubetide/collectors"
	"github.com/kubetide/kubetide/internal/sample"
)

// Row 25 of Kapacity's cases: a pod's usage is its containers' together, one container's is its own, and there is no history.
func TestRow25APodsAndAContainersUsage(t *testing.T) {
	c := &cluster{}
	c.pod("db-0", "100m", "1Mi", "500m", "1Mi")
	s := New(c, c, c, clocktesting.NewFakePassiveClock(now))
	for container, milli := range map[string]int64{"": 600, "app": 100, "sidecar": 500} {
		got, err := open(t, s, "cpu", container).Collect(context.Background())
		if err != nil || len(got) != 1 || got[0].Milli != milli || got[0].Pod != "db-0" || got[0].Container != container {
			t.Errorf("container %q: %+v, %v, want %d m", container, got, err, milli)
		}
	}
	// A range is no question that can be asked; only usage now is.
	for _, kind := range []sample.Kind{sample.Pods, sample.Object, sample.External} {
		if q, err := s.Parse(collectors.Request{Kind: kind, Namespace: "shop", Metric: "cpu", Target: target}); err == nil {
			t.Errorf("%s is understood as %+v", kind, q)
		}
	}
}
