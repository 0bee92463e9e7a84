package static

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kubetide/kubetide/portraits"
)

func TestItAsksForTheSameForEver(t *testing.T) {
	for _, replicas := range []int32{0, 1, 3} {
		got := Portrait(replicas).Evaluate(time.Now())
		want := portraits.Opinion{HasValue: true, Replicas: replicas, Reason: "static"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("opinion (-want +got):\n%s", diff)
		}
	}
}

func TestANegativeNumberIsAFailure(t *testing.T) {
	if o := Portrait(-1).Evaluate(time.Now()); o.HasValue || o.Err == nil {
		t.Errorf("opinion %+v, want a failure", o)
	}
}
