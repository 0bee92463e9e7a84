package decision

import (
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	tide "github.com/kubetide/kubetide/api/tide/v1alpha1"
)

// API returns the bounded record in the form in which it is served. Object is not part of it.
func (r Record) API() tide.Record {
	r = r.Bounded()
	out := tide.Record{Time: metav1.NewMicroTime(r.Time), Trigger: r.Trigger, Result: r.Result, Next: microTime(r.Next), NextCause: r.NextCause,
		Counterfactuals: r.Counterfactuals, Truncated: r.Truncated}
	for _, c := range r.Candidates {
		out.Candidates = append(out.Candidates, tide.Candidate{Provider: c.Provider, Priority: c.Priority, Replicas: c.Replicas, Source: c.Source,
			Measured: microTime(c.Measured), Expires: microTime(c.Expires), Chosen: c.Chosen, Failed: c.Failed, Reason: c.Reason})
	}
	for _, s := range r.Steps {
		out.Steps = append(out.Steps, tide.Step{Stage: s.Stage, Replicas: s.Replicas, Reason: s.Reason})
	}
	return out
}

// portrait returns the name of the HorizontalPortrait that a provider reads: the object's name, a dash, and the portrait type
// in lower case. Other providers read none.
func (r Record) portrait(provider string) (string, bool) {
	kind, ok := strings.CutPrefix(provider, "Dynamic-")
	return strings.ToLower(r.Object.Name + "-" + kind), ok
}

// API returns the portrait in the form in which it is served.
func (p Portrait) API() tide.Portrait {
	out := tide.Portrait{Name: p.Name, Time: metav1.NewMicroTime(p.Time), Replicas: p.Replicas, Note: p.Note}
	for _, d := range p.Details {
		m := tide.PortraitMetric{Metric: d.Metric, Source: d.Source, Value: d.Value, Target: d.Target, State: d.State, Replicas: d.Replicas, Reason: d.Reason,
			ScaleUpAbove: d.ScaleUpAbove, ScaleDownBelow: d.ScaleDownBelow, AtMaxAbove: d.AtMaxAbove}
		if d.Value != "" {
			m.Age = &metav1.Duration{Duration: d.Age}
		}
		out.Metrics = append(out.Metrics, m)
	}
	return out
}

// measured is when the oldest value was measured that the portrait's number rests on; nil if there is none.
func (p Portrait) measured() *metav1.MicroTime {
	var oldest *metav1.MicroTime
	for _, d := range p.Details {
		if at := p.Time.Add(-d.Age); d.Replicas != nil && (oldest == nil || at.Before(oldest.Time)) {
			oldest = new(metav1.NewMicroTime(at))
		}
	}
	return oldest
}

// Explain puts the last decision and the portraits that it rests on together, and fills in from these what the record does not
// say of its candidates. portraits may be nil.
func Explain(last Record, portraits *Portraits) tide.Decision {
	d := tide.Decision{TypeMeta: metav1.TypeMeta{APIVersion: tide.SchemeGroupVersion.String(), Kind: "Decision"}, ObjectKind: last.Object.Kind, Decision: last.API()}
	d.Namespace, d.Name, d.CreationTimestamp = last.Object.Namespace, last.Object.Name, metav1.NewTime(last.Time.Truncate(time.Second))
	for i := range d.Decision.Candidates {
		c := &d.Decision.Candidates[i]
		name, ok := last.portrait(c.Provider)
		if !ok || portraits == nil {
			continue
		}
		if p, ok := portraits.Get(last.Object.Namespace, name); ok {
			if !slices.ContainsFunc(d.Portraits, func(p tide.Portrait) bool { return p.Name == name }) {
				d.Portraits = append(d.Portraits, p.API())
			}
			if c.Source == "" {
				c.Source = "HorizontalPortrait " + name
			}
			if c.Measured == nil && c.Replicas != nil {
				c.Measured = p.measured()
			}
		}
	}
	return d
}

func microTime(t *time.Time) *metav1.MicroTime {
	if t == nil {
		return nil
	}
	return new(metav1.NewMicroTime(*t))
}
