// Package static is the portrait that always asks for the same number of replicas.
package static

import (
	"fmt"
	"time"

	"github.com/kubetide/kubetide/portraits"
)

// Portrait asks for a constant number of replicas, 0 included, for ever.
type Portrait int32

// Evaluate implements portraits.Portrait. A negative number, which admission refuses, is a failure.
func (p Portrait) Evaluate(time.Time) portraits.Opinion {
	if p < 0 {
		return portraits.Opinion{Reason: "no usable number", Err: fmt.Errorf("static.replicas: %d is negative", p)}
	}
	return portraits.Opinion{HasValue: true, Replicas: int32(p), Reason: "static"}
}
