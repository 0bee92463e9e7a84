package horizontalportrait

import (
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	"github.com/kubetide/kubetide/portraits/reactive"
)

// panicOf is what the status says that the panic window remembers. Whoever wrote it, it is in order.
func panicOf(s *kapacity.PanicStatus) (out reactive.PanicState) {
	if s == nil {
		return out
	}
	for _, step := range s.Wanted {
		out.Steps = append(out.Steps, reactive.PanicStep{At: step.Since.Time, Replicas: max(0, step.Replicas)})
	}
	slices.SortStableFunc(out.Steps, func(a, b reactive.PanicStep) int { return a.At.Compare(b.At) })
	if len(out.Steps) == 0 || !s.Panicking {
		return out
	}
	out.Panicking, out.Most = true, max(0, s.Replicas)
	if s.Until != nil {
		out.Until = s.Until.Time
	}
	return out
}

// panicStatus is nil where there is no panic window.
func panicStatus(s reactive.PanicState) *kapacity.PanicStatus {
	if len(s.Steps) == 0 {
		return nil
	}
	micro := func(t time.Time) metav1.MicroTime { return metav1.NewMicroTime(t.UTC().Truncate(time.Microsecond)) }
	out := &kapacity.PanicStatus{Panicking: s.Panicking, Replicas: s.Most}
	for _, step := range s.Steps {
		out.Wanted = append(out.Wanted, kapacity.PanicStep{Since: micro(step.At), Replicas: step.Replicas})
	}
	if !s.Until.IsZero() {
		until := micro(s.Until)
		out.Until = &until
	}
	return out
}
