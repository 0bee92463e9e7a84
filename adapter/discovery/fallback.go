package discovery

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/kubetide/kubetide/internal/sample"
)

// fall is what is known of a metric's fallback.
type fall struct {
	serves  bool
	told    bool      // that it serves
	at      time.Time // when it was last told
	warning warning   // what was told last, until there is a value of the source
}

// fallback looks whether a fallback is served for the series, tells its HPAs when that begins and ends, and looks again
// when it changes by time alone. d.mu is held.
func (d *Discovery) fallback(series sample.Series) {
	if timer := d.looks[series]; timer != nil {
		timer.Stop()
		delete(d.looks, series)
	}
	q, served := d.served[series]
	if !served || q.Fallback == (sample.Fallback{}) {
		return
	}
	answer := d.Answer(q)
	var next time.Time
	switch {
	case answer.Instead != nil:
		next = answer.Instead.Until
	case answer.State == sample.Fresh && len(answer.Points) > 0:
		next = answer.Taken.Add(answer.MaxAge - answer.Points[0].Age + 1) // it is stale from then on
	}
	for _, c := range d.claims[series] {
		o, f := c.object, c.object.falls[series]
		switch {
		case answer.Instead.Serves():
			if f == nil {
				f = &fall{}
				o.falls[series] = f
			}
			if f.serves {
				break
			}
			f.serves = true
			// A source that comes and goes is told of now and then; the metric shows it each time.
			if f.told = f.at.IsZero() || d.Clock.Since(f.at) >= quiet; f.told {
				f.at, f.warning = d.Clock.Now(), warning{ReasonFallback, fallbackText(o, q, answer)}
				d.tell(o, corev1.EventTypeWarning, f.warning.reason, f.warning.text)
			}
		case f != nil && answer.State == sample.Fresh:
			if f.serves && f.told {
				d.tell(o, corev1.EventTypeNormal, ReasonFallbackEnded, fmt.Sprintf("HPA %s: %s metric %q has a value of its source again", o.key, q.Kind, q.Metric))
			}
			f.serves, f.warning = false, warning{}
		case f != nil && f.serves:
			f.serves, f.warning = false, warning{ReasonFallbackEnded, fmt.Sprintf(
				"HPA %s: %s metric %q has no value any more: its last one was held for %s, and there is no fallback-value", o.key, q.Kind, q.Metric, q.Fallback.Hold)}
			d.tell(o, corev1.EventTypeWarning, f.warning.reason, f.warning.text)
		}
	}
	if !next.IsZero() {
		d.looks[series] = d.Clock.AfterFunc(next.Sub(d.Clock.Now()), func() {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.fallback(series)
		})
	}
}

func fallbackText(o *object, q sample.Query, answer sample.Answer) string {
	text := fmt.Sprintf("HPA %s: %s metric %q has had no value since %s; ", o.key, q.Kind, q.Metric, answer.Instead.Since.UTC().Format(time.RFC3339))
	value := resource.NewMilliQuantity(answer.Points[0].Milli, resource.DecimalSI)
	fixed := resource.NewMilliQuantity(q.Fallback.Milli, resource.DecimalSI)
	switch {
	case answer.Instead.Stage == sample.Fixed:
		text += fmt.Sprintf("%s is served until it has one", value)
	case q.Fallback.Fixed:
		text += fmt.Sprintf("its last one, %s, is served until %s, then %s if that is higher", value, answer.Instead.Until.UTC().Format(time.RFC3339), fixed)
	default:
		text += fmt.Sprintf("its last one, %s, is served until %s, then none", value, answer.Instead.Until.UTC().Format(time.RFC3339))
	}
	if answer.Cause != nil {
		text += fmt.Sprintf(" (collector %q): %v", q.Collector, answer.Cause)
	}
	return text
}

// forgetFallback ends the looks at a series whose query has changed, or is not asked for any more. d.mu is held.
func (d *Discovery) forgetFallback(series sample.Series) {
	if timer := d.looks[series]; timer != nil {
		timer.Stop()
		delete(d.looks, series)
	}
	for _, c := range d.claims[series] {
		delete(c.object.falls, series)
	}
}
