package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"
	"sigs.k8s.io/yaml"

	tide "github.com/kubetide/kubetide/api/tide/v1alpha1"
)

func printJSON(w io.Writer, o any) error {
	out, err := json.MarshalIndent(o, "", "  ")
	if err != nil {
		return err
	}
	_, err = w.Write(append(out, '\n'))
	return err
}

func printYAML(w io.Writer, o any) error {
	out, err := yaml.Marshal(o)
	if err != nil {
		return err
	}
	_, err = w.Write(out)
	return err
}

// printer writes for people, at one instant and in their time zone.
type printer struct {
	out  io.Writer
	now  time.Time
	zone *time.Location
}

func (p plugin) printer() printer { return printer{p.out, p.clock.Now(), p.zone} }

// explain prints one screen.
func (p printer) explain(d *tide.Decision) error {
	r := d.Decision
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s/%s\n\n", printable(d.ObjectKind), d.Namespace, d.Name)
	head := [][]string{{"  Result", r.Result}, {"  Decided", note(p.at(&r.Time), r.Trigger)}}
	if r.Next != nil {
		head = append(head, []string{"  Next", note(p.at(r.Next), r.NextCause)})
	} else {
		head = append(head, []string{"  Next", "when something changes"})
	}
	table(&b, head)

	if len(r.Candidates) > 0 {
		rows := [][]string{{"  PROVIDER", "PRIORITY", "REPLICAS", "AGE", "UNTIL", "REASON"}}
		for _, c := range r.Candidates {
			mark := "  "
			switch {
			case c.Chosen:
				mark = "* "
			case c.Failed:
				mark = "! "
			}
			age := "-"
			if c.Measured != nil {
				age = duration.HumanDuration(p.now.Sub(c.Measured.Time))
			}
			until := "-"
			if c.Expires != nil {
				until = p.clock(c.Expires.Time)
			}
			reason := c.Reason
			if c.Source != "" {
				reason += " [" + c.Source + "]"
			}
			rows = append(rows, []string{mark + c.Provider, fmt.Sprint(c.Priority), count(c.Replicas), age, until, reason})
		}
		fmt.Fprintf(&b, "\nCandidates (* decides, ! failed)\n")
		table(&b, rows)
	}
	if len(r.Steps) > 0 {
		rows := [][]string{{"  STAGE", "REPLICAS", "REASON"}}
		for _, s := range r.Steps {
			rows = append(rows, []string{"  " + s.Stage, fmt.Sprint(s.Replicas), s.Reason})
		}
		fmt.Fprintf(&b, "\nSteps\n")
		table(&b, rows)
	}
	changes := r.Counterfactuals
	for _, portrait := range d.Portraits {
		asked := "nothing"
		if portrait.Replicas != nil {
			asked = count(portrait.Replicas)
		}
		fmt.Fprintf(&b, "\nMetrics of HorizontalPortrait %s, which asks for %s, %s\n", printable(portrait.Name), asked, p.at(&portrait.Time))
		if portrait.Note != "" {
			fmt.Fprintf(&b, "  %s\n", printable(portrait.Note))
		}
		rows := [][]string{{"  METRIC", "SOURCE", "VALUE", "TARGET", "AGE", "STATE", "REPLICAS", "REASON"}}
		for _, m := range portrait.Metrics {
			age := "-"
			if m.Age != nil {
				age = duration.HumanDuration(m.Age.Duration)
			}
			rows = append(rows, []string{"  " + m.Metric, dash(m.Source), dash(m.Value), dash(m.Target), age, dash(m.State), count(m.Replicas), m.Reason})
			changes = append(changes, thresholds(m)...)
		}
		if len(rows) > 1 {
			table(&b, rows)
		}
	}
	if len(changes) > 0 {
		fmt.Fprintf(&b, "\nWhat would change it\n")
		for _, c := range changes {
			fmt.Fprintf(&b, "  - %s\n", printable(c))
		}
	}
	if r.Truncated {
		fmt.Fprintf(&b, "\nThe record was cut to its bound of 4 KiB.\n")
	}
	_, err := io.WriteString(p.out, trim(b.String()))
	return err
}

// thresholds are the values at which a metric alone would ask for something else.
func thresholds(m tide.PortraitMetric) (out []string) {
	for _, t := range []struct{ value, text string }{
		{m.ScaleUpAbove, "next scale-up when %s is above %s"}, {m.ScaleDownBelow, "next scale-down when %s is below %s"}, {m.AtMaxAbove, "at max when %s is above %s"},
	} {
		if t.value != "" {
			out = append(out, fmt.Sprintf(t.text, m.Metric, t.value))
		}
	}
	return out
}

func (p printer) history(h *tide.DecisionHistory) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s/%s\n\n", h.ObjectKind, h.Namespace, h.Name)
	rows := [][]string{{"TIME", "RESULT", "TRIGGER", "STEPS"}}
	for _, r := range h.Decisions {
		var steps []string
		for _, s := range r.Steps {
			steps = append(steps, fmt.Sprintf("%s %d", s.Stage, s.Replicas))
		}
		rows = append(rows, []string{p.at(&r.Time), r.Result, dash(r.Trigger), dash(strings.Join(steps, ", "))})
	}
	table(&b, rows)
	_, err := io.WriteString(p.out, trim(b.String()))
	return err
}

// at prints an instant with its distance: 12:04:30 (in 2m10s).
func (p printer) at(t *metav1.MicroTime) string {
	switch d := t.Sub(p.now).Round(time.Second); {
	case d > 0:
		return fmt.Sprintf("%s (in %s)", p.clock(t.Time), duration.HumanDuration(d))
	default:
		return fmt.Sprintf("%s (%s ago)", p.clock(t.Time), duration.HumanDuration(-d))
	}
}

// clock prints the time of day, with the date if it is not today's.
func (p printer) clock(t time.Time) string {
	t, now := t.In(p.zone), p.now.In(p.zone)
	if t.Format(time.DateOnly) == now.Format(time.DateOnly) {
		return t.Format(time.TimeOnly)
	}
	return t.Format(time.DateTime)
}

func note(text, more string) string {
	if more == "" {
		return text
	}
	return text + ": " + more
}

func count(n *int32) string {
	if n == nil {
		return "-"
	}
	return fmt.Sprint(*n)
}

func dash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

// table aligns the columns.
func table(to *strings.Builder, rows [][]string) {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	for _, cells := range rows {
		for i := range cells {
			cells[i] = printable(cells[i])
		}
		fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
	_ = w.Flush() // to memory
}

// printable keeps what tenants can put into texts from steering the terminal.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsGraphic(r) {
			return ' '
		}
		return r
	}, text)
}

// trim takes spaces from the ends of lines.
func trim(text string) string {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return strings.Join(lines, "\n")
}
