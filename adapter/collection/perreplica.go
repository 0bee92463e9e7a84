package collection

import (
	"context"
	"fmt"
	"time"

	"github.com/kubetide/kubetide/collectors"
	"github.com/kubetide/kubetide/internal/sample"
)

// divided is a collector whose value is divided by the replicas that the target has now (status.replicas). No replicas
// make no value: a quotient does not exist, and 0 would be wrong.
type divided struct {
	collectors.Collector
	query  sample.Query
	scales collectors.Scales
}

// perReplica wraps a collector, keeping its own instants if it has any.
func perReplica(c collectors.Collector, q sample.Query, scales collectors.Scales) collectors.Collector {
	d := &divided{Collector: c, query: q, scales: scales}
	if timed, ok := c.(collectors.Timed); ok {
		return &dividedTimed{divided: d, timed: timed}
	}
	return d
}

type dividedTimed struct {
	*divided
	timed collectors.Timed
}

func (d *dividedTimed) NextChange(now time.Time) time.Time { return d.timed.NextChange(now) }

func (d *divided) Collect(ctx context.Context) ([]sample.Point, error) {
	points, warning := d.Collector.Collect(ctx)
	if warning != nil && !collectors.IsWarning(warning) {
		return nil, warning
	}
	scale, err := d.scales.Scale(ctx, d.query.Namespace, d.query.Target)
	if err != nil {
		return nil, fmt.Errorf("per-replica: %w", err)
	}
	if scale.StatusReplicas <= 0 {
		return nil, sample.NoData("per-replica: %s has no replicas to divide by", d.query.Target)
	}
	for i := range points {
		points[i].Milli /= int64(scale.StatusReplicas)
	}
	return points, warning
}
