package discovery

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"

	"github.com/kubetide/kubetide/adapter/annotations"
	"github.com/kubetide/kubetide/collectors"
	"github.com/kubetide/kubetide/internal/sample"
)

// Reasons of the Events on an HPA.
const (
	// ReasonCannotBuild is kube-metrics-adapter's for a metric that cannot be read from the HPA.
	ReasonCannotBuild = "CreateNewMetricsCollector"
	// ReasonConfig is for annotations that change nothing; the metric is collected all the same.
	ReasonConfig = "MetricConfigIgnored"
	// ReasonConflict is for a metric that an older HPA asks for with other settings.
	ReasonConflict = "MetricConflict"
	// ReasonFailed is for a metric that cannot be collected.
	ReasonFailed = "MetricCollectionFailed"
	// ReasonWarned is for a metric whose value is served but may not be what was meant.
	ReasonWarned = "MetricCollectionWarning"
	// ReasonRecovered ends ReasonFailed.
	ReasonRecovered = "MetricCollectionRecovered"
	// ReasonFallback is for a metric whose fallback is served from now on.
	ReasonFallback = "MetricFallbackStarted"
	// ReasonFallbackEnded ends ReasonFallback.
	ReasonFallbackEnded = "MetricFallbackEnded"
)

const (
	// maxCauses is how many different causes are told of a metric that goes on failing.
	maxCauses = 8
	// quiet is the time after which a cause is told again if the metric was well meanwhile.
	quiet = 10 * time.Minute
	// patience is how long a metric may have no data, or lack some pods, before that is told: pods start, roll and restart,
	// and an HPA is often created before its workload. Failures are told at once.
	patience = 30 * time.Second
)

// topic is what has been told about the collection of one metric of one HPA.
type topic struct {
	failing bool
	since   time.Time            // since when something is missing
	failure string               // what was told last of a failure; empty if a recovery was told since
	causes  map[string]time.Time // by their outline, when they were told
	warning string               // of the last value
	warned  map[string]bool      // by their outline, the warnings that were told
}

// warning is an Event about something that is wrong.
type warning struct{ reason, text string }

// warnings is what is wrong with the HPA's metrics now, as far as people are to be told of it.
func (o *object) warnings() (out []warning) {
	for text, fatal := range o.problems {
		out = append(out, warning{reasonOf(fatal), text})
	}
	for _, text := range o.conflicts {
		out = append(out, warning{ReasonConflict, text})
	}
	for _, t := range o.topics {
		if t.failure != "" {
			out = append(out, warning{ReasonFailed, t.failure})
		}
		if t.warning != "" {
			out = append(out, warning{ReasonWarned, t.warning})
		}
	}
	for _, f := range o.falls {
		if f.warning != (warning{}) {
			out = append(out, f.warning)
		}
	}
	return out
}

// tell tells the log and, if this process leads, people. d.mu is held.
func (d *Discovery) tell(o *object, kind, reason, text string) {
	d.Log.Info(text, "reason", reason, "horizontalPodAutoscaler", klog.KRef(o.key.Namespace, o.key.Name))
	if d.leads {
		d.write(o, kind, reason, text)
	}
}

func (d *Discovery) write(o *object, kind, reason, text string) {
	d.Recorder.Event(o.reference(), kind, reason, trim(text))
}

// problems tells what is new among the HPA's problems.
func (d *Discovery) problems(o *object, problems []annotations.Problem) {
	now := map[string]bool{}
	o.fatal = map[string]bool{}
	for _, p := range problems {
		if p.Foreign && d.DisregardForeign {
			continue
		}
		if p.Fatal {
			o.fatal[p.Metric] = true
		}
		text := fmt.Sprintf("HPA %s: %s", o.key, p)
		now[text] = p.Fatal
		if _, told := o.problems[text]; !told {
			d.tell(o, corev1.EventTypeWarning, reasonOf(p.Fatal), text)
		}
	}
	o.problems = now
}

// reasonOf is that of a problem with an HPA's annotations.
func reasonOf(fatal bool) string {
	if fatal {
		return ReasonCannotBuild
	}
	return ReasonConfig
}

// Report is told the outcome of each collection. A cause is told once for each HPA that asks, and its end once.
func (d *Discovery) Report(q sample.Query, points int, err error) {
	series := q.Series()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.served[series] != q {
		return
	}
	d.fallback(series)
	for _, c := range d.claims[series] {
		t := c.object.topics[series]
		warning := points > 0 && collectors.IsWarning(err)
		if err == nil || warning {
			if t != nil {
				d.recovered(c.object, series, t)
				t.warning = ""
			}
			if !warning {
				continue
			}
		}
		if t == nil {
			t = &topic{causes: map[string]time.Time{}, warned: map[string]bool{}}
			c.object.topics[series] = t
		}
		if warning {
			d.warn(c.object, q, t, err)
		} else {
			d.failed(c.object, q, t, points, err)
		}
	}
}

func (d *Discovery) failed(o *object, q sample.Query, t *topic, points int, err error) {
	now := d.Clock.Now()
	t.failing = points == 0
	if t.since.IsZero() {
		t.since = now
	}
	noData := errors.Is(err, sample.ErrNoData)
	if (noData || points > 0) && now.Sub(t.since) < patience {
		return
	}
	if t.failure == "" {
		maps.DeleteFunc(t.causes, func(_ string, at time.Time) bool { return now.Sub(at) >= quiet })
	}
	cause := outline(err)
	if noData {
		cause = "" // which pods are not there yet, and why, is no news
	}
	if _, known := t.causes[cause]; known || len(t.causes) >= maxCauses {
		return
	}
	t.causes[cause] = now
	what := "cannot be collected"
	switch {
	case noData:
		what = "has no value"
	case points > 0:
		what = fmt.Sprintf("was collected from %d pods, but not from all", points)
	}
	t.failure = fmt.Sprintf("HPA %s: %s metric %q %s (collector %q): %v", o.key, q.Kind, q.Metric, what, q.Collector, err)
	d.tell(o, corev1.EventTypeWarning, ReasonFailed, t.failure)
}

// warn tells a warning once for as long as the HPA asks the same.
func (d *Discovery) warn(o *object, q sample.Query, t *topic, err error) {
	t.warning = fmt.Sprintf("HPA %s: %s metric %q (collector %q): %v", o.key, q.Kind, q.Metric, q.Collector, err)
	cause := outline(err)
	if t.warned[cause] || len(t.warned) >= maxCauses {
		return
	}
	t.warned[cause] = true
	d.tell(o, corev1.EventTypeWarning, ReasonWarned, t.warning)
}

func (d *Discovery) recovered(o *object, series sample.Series, t *topic) {
	t.failing, t.since = false, time.Time{}
	if t.failure != "" {
		t.failure = ""
		d.tell(o, corev1.EventTypeNormal, ReasonRecovered, fmt.Sprintf("HPA %s: %s metric %q is collected again", o.key, series.Kind, series.Metric))
	}
}

// outline makes errors equal that differ in numbers, addresses and the like only, so that each cause is told once.
func outline(err error) string {
	text := err.Error()
	if outlined := collectors.Outlined(nil); errors.As(err, &outlined) {
		text = outlined.Outline()
	}
	words := strings.FieldsFunc(text, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) })
	for i, w := range words {
		if strings.ContainsFunc(w, unicode.IsDigit) {
			words[i] = "#"
		}
	}
	words = slices.CompactFunc(words, func(a, b string) bool { return a == "#" && b == "#" })
	if len(words) > 40 {
		words = words[:40]
	}
	return strings.Join(words, " ")
}
