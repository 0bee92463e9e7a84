package main

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"time"

	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/utils/clock"
)

// fence refuses requests that write while another process may hold the Lease. One that stood still for longer than the Lease lasts goes
// on with what it was about to do, and from samples of before, until it sees that it leads no more.
type fence struct {
	resourcelock.Interface
	clock clock.PassiveClock
	// until is when another may take the Lease, at the earliest; nil while this process does not hold it.
	until atomic.Pointer[time.Time]
}

var errFenced = errors.New("the Lease may be another's by now")

// Create implements resourcelock.Interface.
func (f *fence) Create(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	return f.renew(ctx, record, f.Interface.Create)
}

// Update implements resourcelock.Interface.
func (f *fence) Update(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	return f.renew(ctx, record, f.Interface.Update)
}

func (f *fence) renew(ctx context.Context, record resourcelock.LeaderElectionRecord, write func(context.Context, resourcelock.LeaderElectionRecord) error) error {
	until := f.clock.Now().Add(leaseDuration) // others count from when they see it, which is later
	if err := write(ctx, record); err != nil {
		return err
	}
	if record.HolderIdentity == f.Identity() {
		f.until.Store(&until)
	} else { // released
		f.until.Store(nil)
	}
	return nil
}

// around has next send what reads, and while this process leads what writes.
func (f *fence) around(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		if until := f.until.Load(); r.Method != http.MethodGet && (until == nil || !f.clock.Now().Before(*until)) {
			if r.Body != nil {
				r.Body.Close()
			}
			return nil, errFenced
		}
		return next.RoundTrip(r)
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
