package event

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
)

type sink chan *corev1.Event

func (s sink) Create(e *corev1.Event) (*corev1.Event, error)          { s <- e; return e, nil }
func (s sink) Update(e *corev1.Event) (*corev1.Event, error)          { s <- e; return e, nil }
func (s sink) Patch(e *corev1.Event, _ []byte) (*corev1.Event, error) { s <- e; return e, nil }

// A gray run of a hundred steps says each of them, in order and in its own words.
func TestEachStepOfALongRunIsSaid(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	s := make(sink, 200)
	b := broadcaster(s)
	ctx, stop := context.WithCancel(context.Background())
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		_ = stopper{b}.Start(ctx)
	}()
	recorder := b.NewRecorder(clientgoscheme.Scheme, corev1.EventSource{Component: "ihpa_controller"})
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "cart"}}
	var want, got []string
	for i := range 100 {
		want = append(want, fmt.Sprintf("ihpa_controller Step step %d", i))
		recorder.Eventf(pod, corev1.EventTypeNormal, "Step", "step %d", i)
	}
	deadline := time.After(time.Minute)
	for len(got) < len(want) {
		select {
		case e := <-s:
			got = append(got, e.Source.Component+" "+e.Reason+" "+e.Message)
		case <-deadline:
			t.Fatalf("only %d events came", len(got))
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	stop()
	<-stopped
}

func TestMessagesAreBounded(t *testing.T) {
	if got := Bounded("a few words"); got != "a few words" {
		t.Errorf("changed to %q", got)
	}
	for _, long := range []string{strings.Repeat("a", 5000), strings.Repeat("ä", 2500), "a" + strings.Repeat("ä", 2500)} {
		if got := Bounded(long); len(got) > maxMessage || len(got) < maxMessage-4 || !utf8.ValidString(got) || !strings.HasSuffix(got, "...") {
			t.Errorf("%d bytes: %q", len(got), got)
		}
	}
}
