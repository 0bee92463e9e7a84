package replicaprofile

import (
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kubetide/kubetide/scaler/enginetest"
)

// Found by the simulation: /scale was not written for as long as the clock had been set back.
func TestAClockThatIsSetBackDoesNotStretchThePace(t *testing.T) {
	var p pace
	key, now := types.NamespacedName{Namespace: "shop", Name: "nginx"}, enginetest.Start
	for range 3 {
		p.wrote(key, 1, now)
	}
	back := now.Add(-time.Hour)
	if wait := p.due(key, 1, back).Sub(back); wait > mostPace {
		t.Errorf("after the clock was set back by an hour, /scale is written in %v, want at most %v", wait, mostPace)
	}
	if wait := p.due(key, 1, back.Add(mostPace)).Sub(back); wait > mostPace {
		t.Errorf("a minute later it still waits: %v", wait)
	}
}
