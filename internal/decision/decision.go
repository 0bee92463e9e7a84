// Package decision holds the record that every decision leaves behind: what was asked, who answered, each step with its
// number and reason, the result, and when it will be looked at next. Status, events, logs, metrics and the plugin read this
// one record. The package keeps records in memory within bounds; it reads no clock, calls no API and decides nothing.
package decision

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// MaxBytes bounds the JSON form of a record, in status and in memory, MaxCallBytes its Calls beside that, in memory.
const (
	MaxBytes     = 4096
	MaxCallBytes = 16384
)

// Object names what was decided about.
type Object struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
}

func (o Object) String() string {
	if o.Namespace == "" {
		return o.Kind + " " + o.Name
	}
	return o.Kind + " " + o.Namespace + "/" + o.Name
}

// Candidate is one provider's answer and what became of it.
type Candidate struct {
	Provider string `json:"provider"`
	Priority int32  `json:"priority"`
	// Replicas is nil when the provider had no opinion or failed.
	Replicas *int32 `json:"replicas,omitempty"`
	// Source says where the value comes from, for example the name of a HorizontalPortrait.
	Source string `json:"source,omitempty"`
	// Measured is when the oldest of what the value rests on was measured; nil where it does not age.
	Measured *time.Time `json:"measured,omitempty"`
	// Expires is nil when the opinion never expires.
	Expires *time.Time `json:"expires,omitempty"`
	Chosen  bool       `json:"chosen,omitempty"`
	Failed  bool       `json:"failed,omitempty"`
	Reason  string     `json:"reason,omitempty"`
}

// Step is one stage of the way from the candidates to the result.
type Step struct {
	// Stage names the stage, for example merge, clamp or gray.
	Stage string `json:"stage"`
	// Replicas is the count that the stage handed on.
	Replicas int32  `json:"replicas"`
	Reason   string `json:"reason,omitempty"`
}

// Call is one pure decision that a record rests on, as it was taken. scaler/replay takes it again.
type Call struct {
	// Function is the package that decided: merge, bounds, behavior, stability or gray.
	Function string    `json:"function"`
	Now      time.Time `json:"now"`
	// Inputs is everything besides the instant that the decision depends on, Outcome what came out.
	Inputs  json.RawMessage `json:"inputs"`
	Outcome json.RawMessage `json:"outcome"`
}

func (c Call) size() int { return len(c.Function) + len(c.Inputs) + len(c.Outcome) + 80 } // the instant and the names

// Record is one decision.
type Record struct {
	Object Object    `json:"object"`
	Time   time.Time `json:"time"`
	// Trigger says why the decision was taken now, for example "cron boundary" or "ReplicaProfile applied".
	Trigger    string      `json:"trigger,omitempty"`
	Candidates []Candidate `json:"candidates,omitempty"`
	Steps      []Step      `json:"steps,omitempty"`
	// Result is a sentence: what was done, or why nothing was.
	Result string `json:"result"`
	// Next is when the object is looked at again; nil when only an event can change anything.
	Next *time.Time `json:"next,omitempty"`
	// NextCause says what will happen at Next, for example "the stabilization window ends".
	NextCause string `json:"nextCause,omitempty"`
	// Counterfactuals say what would change the result, a sentence each: "scale-down blocked until 12:04:30".
	Counterfactuals []string `json:"counterfactuals,omitempty"`
	// Truncated tells that texts were cut or entries left out to stay within MaxBytes.
	Truncated bool `json:"truncated,omitempty"`
	// Calls are the decisions that it rests on, in the order in which they were taken; nil where they are not known, or more
	// than MaxCallBytes. They are kept in memory only.
	Calls []Call `json:"-"`
}

// String returns the record on one line, for logs and events, without what changes though the decision is the same: Measured and
// the counterfactuals. It is not bounded; call it on a bounded record where that matters.
func (r Record) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s", r.Object, oneLine(r.Result))
	if r.Trigger != "" {
		fmt.Fprintf(&b, " (%s)", oneLine(r.Trigger))
	}
	for _, c := range r.Candidates {
		value := "-"
		if c.Replicas != nil {
			value = fmt.Sprint(*c.Replicas)
		}
		mark := ""
		if c.Chosen {
			mark = "*"
		}
		fmt.Fprintf(&b, "; %s%s@%d=%s", mark, oneLine(c.Provider), c.Priority, value)
		if c.Reason != "" {
			fmt.Fprintf(&b, " %s", oneLine(c.Reason))
		}
	}
	for _, s := range r.Steps {
		fmt.Fprintf(&b, "; %s=%d", oneLine(s.Stage), s.Replicas)
		if s.Reason != "" {
			fmt.Fprintf(&b, " %s", oneLine(s.Reason))
		}
	}
	if r.Next != nil {
		fmt.Fprintf(&b, "; next %s", r.Next.UTC().Format(time.RFC3339))
		if r.NextCause != "" {
			fmt.Fprintf(&b, " %s", oneLine(r.NextCause))
		}
	}
	return b.String()
}

// Bounded returns a copy whose JSON form has at most MaxBytes. Texts are cut first, then the candidates that were not chosen,
// the earlier steps and the last counterfactuals are left out; the result and the chosen candidate stay. The Calls stay together
// or not at all.
func (r Record) Bounded() Record {
	out := r.bounded()
	if r.callSize() <= MaxCallBytes {
		out.Calls = r.Calls
	}
	return out
}

func (r Record) callSize() (n int) {
	for _, c := range r.Calls {
		n += c.size()
	}
	return n
}

func (r Record) bounded() Record {
	for _, limit := range []int{MaxBytes, 512, 256, 128, 64} {
		if short := r.cut(limit, len(r.Candidates)+len(r.Steps)+len(r.Counterfactuals)); short.size() <= MaxBytes {
			return short
		}
	}
	for _, entries := range []int{16, 8, 4, 1} {
		if short := r.cut(64, entries); short.size() <= MaxBytes {
			return short
		}
	}
	return Record{Object: r.Object.cut(64), Time: r.Time, Result: cutText(r.Result, 64), Next: r.Next, Truncated: true}
}

// JSON returns the bounded JSON form.
func (r Record) JSON() []byte {
	out, _ := json.Marshal(r.Bounded()) // cannot fail: strings, numbers and times within the years that JSON knows
	return out
}

func (r Record) size() int {
	out, err := json.Marshal(r)
	if err != nil {
		return MaxBytes + 1
	}
	return len(out)
}

// cut returns a copy with texts of at most limit bytes and at most entries candidates, as many steps and as many
// counterfactuals.
func (r Record) cut(limit, entries int) Record {
	changed := r.Truncated
	text := func(s string) string {
		short := cutText(s, limit)
		changed = changed || short != s
		return short
	}
	out := Record{Object: r.Object.cut(limit), Time: r.Time, Trigger: text(r.Trigger), Result: text(r.Result), Next: r.Next, NextCause: text(r.NextCause)}
	changed = changed || out.Object != r.Object
	spare := entries
	for _, c := range r.Candidates {
		if c.Chosen {
			spare--
		}
	}
	for _, c := range r.Candidates {
		if !c.Chosen {
			if spare <= 0 {
				changed = true
				continue
			}
			spare--
		}
		c.Provider, c.Source, c.Reason = text(c.Provider), text(c.Source), text(c.Reason)
		out.Candidates = append(out.Candidates, c)
	}
	steps := r.Steps
	if len(steps) > entries {
		steps, changed = steps[len(steps)-entries:], true
	}
	for _, s := range steps {
		s.Stage, s.Reason = text(s.Stage), text(s.Reason)
		out.Steps = append(out.Steps, s)
	}
	counterfactuals := r.Counterfactuals
	if len(counterfactuals) > entries {
		counterfactuals, changed = counterfactuals[:entries], true
	}
	for _, c := range counterfactuals {
		out.Counterfactuals = append(out.Counterfactuals, text(c))
	}
	out.Truncated = changed
	return out
}

func (o Object) cut(limit int) Object {
	return Object{Kind: cutText(o.Kind, limit), Namespace: cutText(o.Namespace, limit), Name: cutText(o.Name, limit)}
}

// cutText returns s with at most limit bytes, valid UTF-8, with an ellipsis where something was taken away.
func cutText(s string, limit int) string {
	if len(s) <= limit {
		return strings.ToValidUTF8(s, "?")
	}
	const mark = "..."
	end := max(0, limit-len(mark))
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return strings.ToValidUTF8(s[:end], "?") + mark
}

func oneLine(s string) string {
	return strings.Join(strings.Fields(s), " ")
}
