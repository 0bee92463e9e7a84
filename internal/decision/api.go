package decision

import (
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

// Portraits returns the names of the HorizontalPortraits that the record's providers read: the object's name, a dash, and
// the portrait type in lower case.
func (r Record) Portraits() []string {
	var out []string
	for _, c := range r.Candidates {
		if kind, ok := strings.CutPrefix(c.Provider, "Dynamic-"); ok {
			out = append(out, strings.ToLower(r.Object.Name+"-"+kind))
		}
	}
	return out
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

// Explain puts the last decision and the portraits that it rests on together. portraits may be nil.
func Explain(last Record, portraits *Portraits) tide.Decision {
	d := tide.Decision{TypeMeta: metav1.TypeMeta{APIVersion: tide.SchemeGroupVersion.String(), Kind: "Decision"}, ObjectKind: last.Object.Kind, Decision: last.API()}
	d.Namespace, d.Name, d.CreationTimestamp = last.Object.Namespace, last.Object.Name, metav1.NewTime(last.Time.Truncate(time.Second))
	for _, name := range last.Portraits() {
		if portraits == nil {
			break
		}
		if p, ok := portraits.Get(last.Object.Namespace, name); ok {
			d.Portraits = append(d.Portraits, p.API())
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
