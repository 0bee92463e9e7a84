package main

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/tools/leaderelection/resourcelock"
	clocktesting "k8s.io/utils/clock/testing"
)

// slowLock takes its time for each write.
type slowLock struct {
	clock *clocktesting.FakeClock
	took  time.Duration
	err   error
}

func (l *slowLock) write() error { l.clock.Step(l.took); return l.err }

func (l *slowLock) Get(context.Context) (*resourcelock.LeaderElectionRecord, []byte, error) {
	return nil, nil, nil
}
func (l *slowLock) Create(context.Context, resourcelock.LeaderElectionRecord) error { return l.write() }
func (l *slowLock) Update(context.Context, resourcelock.LeaderElectionRecord) error { return l.write() }
func (l *slowLock) RecordEvent(string)                                              {}
func (l *slowLock) Identity() string                                                { return "me" }
func (l *slowLock) Describe() string                                                { return "" }

// What writes passes from the first renewal on until another may hold the Lease; what reads always does.
func TestOnlyALeaderWrites(t *testing.T) {
	clock := clocktesting.NewFakeClock(time.Now())
	lock := &slowLock{clock: clock, took: time.Second}
	f := &fence{Interface: lock, clock: clock}
	sent := 0
	client := f.around(roundTripper(func(*http.Request) (*http.Response, error) { sent++; return httptest.NewRecorder().Result(), nil }))
	check := func(when string, passes bool) {
		t.Helper()
		for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE"} {
			before := sent
			response, err := client.RoundTrip(httptest.NewRequest(method, "/", strings.NewReader("{}")))
			if err == nil {
				_ = response.Body.Close()
			}
			if want := passes || method == "GET"; (sent > before) != want || (err == nil) != want || !want && !errors.Is(err, errFenced) {
				t.Errorf("%s: %s: %d requests were sent, %v", when, method, sent-before, err)
			}
		}
	}
	mine := resourcelock.LeaderElectionRecord{HolderIdentity: "me"}
	check("before it leads", false)
	_ = f.Create(t.Context(), mine)
	check("elected", true)
	clock.Step(leaseDuration - lock.took - time.Millisecond)
	check("almost too late", true)
	clock.Step(time.Millisecond)
	check("it stood still", false)
	_ = f.Update(t.Context(), mine)
	check("renewed", true)
	lock.err = errors.New("away")
	clock.Step(leaseDuration - lock.took)
	if err := f.Update(t.Context(), mine); err == nil {
		t.Error("an error was kept from the election")
	}
	check("not renewed", false)
	lock.err = nil
	_ = f.Update(t.Context(), mine)
	_ = f.Update(t.Context(), resourcelock.LeaderElectionRecord{})
	check("released", false)
}
