// Package event makes the recorders with which the engine's controllers speak. Their texts and components are a contract
// (Kapacity's), so they go through the core/v1 events API: the newer one keeps only the first text of a reason. The
// package knows no controller.
package event

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/controller-runtime/pkg/manager"
)

// correlation lets a gray run say each of its steps. By the defaults the eleventh text of a reason becomes "(combined
// from similar events)", and the twenty-sixth event of an object is dropped.
var correlation = record.CorrelatorOptions{
	BurstSize: 250,     // a run of 100 steps, twice over, in each of the two controllers
	QPS:       1. / 10, // then six a minute
	MaxEvents: 1000,
}

// NewRecorder returns a recorder whose events name component as their source. It stops with the manager.
func NewRecorder(mgr manager.Manager, component string) (record.EventRecorder, error) {
	core, err := kubernetes.NewForConfigAndClient(mgr.GetConfig(), mgr.GetHTTPClient())
	if err != nil {
		return nil, fmt.Errorf("client for events of %s: %w", component, err)
	}
	b := broadcaster(&typedcorev1.EventSinkImpl{Interface: core.CoreV1().Events("")})
	if err := mgr.Add(stopper{b}); err != nil {
		b.Shutdown()
		return nil, fmt.Errorf("events of %s: %w", component, err)
	}
	return b.NewRecorder(mgr.GetScheme(), corev1.EventSource{Component: component}), nil
}

func broadcaster(sink record.EventSink) record.EventBroadcaster {
	b := record.NewBroadcasterWithCorrelatorOptions(correlation)
	b.StartRecordingToSink(sink)
	return b
}

type stopper struct{ broadcaster record.EventBroadcaster }

func (s stopper) Start(ctx context.Context) error {
	<-ctx.Done()
	s.broadcaster.Shutdown()
	return nil
}

// NeedLeaderElection is false so that the broadcaster ends in a process that never led, too.
func (s stopper) NeedLeaderElection() bool { return false }

// maxMessage is the bound of the newer events API, in bytes; the older one has none.
const maxMessage = 1024

// Bounded returns the message as an event, or a condition, may have it.
func Bounded(message string) string {
	if len(message) <= maxMessage {
		return message
	}
	return strings.ToValidUTF8(message[:maxMessage-3], "") + "..."
}
