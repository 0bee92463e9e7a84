package doctor

import (
	"errors"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/util/validation/field"

	zalando "github.com/kubetide/kubetide/api/zalando/v1"
	"github.com/kubetide/kubetide/internal/window"
)

// ends is how many ends of a window are looked at.
const ends = 64

// windows finds cron windows of IHPAs that cannot be read, never open, or are open longer than it seems.
func windows(c *cluster) (found []Finding) {
	for i := range c.IHPAs {
		o, a := &c.IHPAs[i], c.autoscalers[len(c.HPAs)+i]
		look := func(path *field.Path, start, end, zone string) {
			problem, remedy, err := c.oddity(start, end, zone)
			switch {
			case errors.Is(err, window.ErrNeverFires):
				found = append(found, a.found(Error, fmt.Sprintf("%s: %v", path, err), "name a day that the month has"))
			case err != nil:
				found = append(found, a.found(Error, fmt.Sprintf("%s: %v", path, err), "correct it: until then the window does not count"))
			case problem != "":
				found = append(found, a.found(Warning, fmt.Sprintf("%s: the window from %q to %q %s", path, start, end, problem), remedy))
			}
		}
		spec := field.NewPath("spec")
		for j, p := range o.Spec.PortraitProviders {
			if p.Cron == nil {
				continue
			}
			for k, w := range p.Cron.Crons {
				look(spec.Child("portraitProviders").Index(j).Child("cron", "crons").Index(k), string(w.Start), string(w.End), w.TimeZone)
			}
		}
		for j, w := range o.Spec.ScheduledBounds {
			look(spec.Child("scheduledBounds").Index(j), string(w.Start), string(w.End), w.TimeZone)
		}
	}
	return found
}

// oddity says what is odd about a window, if anything is. A window is open while its next end comes before its next start: so one that has a
// start at each end never opens, and an end that comes after another one, without a start between them, closes it in place of that one.
func (c *cluster) oddity(start, end, zone string) (problem, remedy string, err error) {
	rule, err := window.ParseRule(start, end, zone)
	if err != nil {
		return "", "", err
	}
	onlyStarts, err := window.ParseRule(start, start, zone)
	if err != nil {
		return "", "", err
	}
	onlyEnds, err := window.ParseRule(end, end, zone)
	if err != nil {
		return "", "", err
	}
	opens, at := false, c.now
	for range ends {
		at = onlyEnds.Next(at)
		before := at.Add(-time.Nanosecond)
		if open, _ := rule.Active(before); open {
			opens = true
		}
		if open, until := rule.Active(at); open && !onlyStarts.Next(before).Equal(at) {
			return fmt.Sprintf("stays open at its end, %s, until %s, since it has no start between them", at.UTC().Format(time.RFC3339), until.UTC().Format(time.RFC3339)),
				"let start and end have the same days", nil
		}
	}
	if !opens {
		return "never opens", "let it end at another time than it starts", nil
	}
	return "", "", nil
}

// schedules finds schedules that are over, or whose windows have no length.
func schedules(c *cluster) (found []Finding) {
	for i := range c.Schedules {
		o := &c.Schedules[i]
		found = append(found, c.schedule(Object{zalando.ScalingScheduleKind, o.Namespace, o.Name}, o.Spec)...)
	}
	for i := range c.ClusterSchedules {
		o := &c.ClusterSchedules[i]
		found = append(found, c.schedule(Object{Kind: zalando.ClusterScalingScheduleKind, Name: o.Name}, o.Spec)...)
	}
	return found
}

func (c *cluster) schedule(o Object, spec zalando.ScalingScheduleSpec) (found []Finding) {
	// The defaults of the cluster are not known. They lengthen no window, and move it by hours at most.
	defaults := window.Defaults{Steps: 1, Zone: time.UTC}
	if _, err := window.NewSchedules(spec, defaults); err != nil {
		return []Finding{{Severity: Error, Object: o, Problem: err.Error(), Remedy: "correct the field: until then none of its windows counts"}}
	}
	lasting := zalando.ScalingScheduleSpec{ScalingWindowDurationMinutes: spec.ScalingWindowDurationMinutes}
	for i, w := range spec.Schedules {
		if !instant(w) {
			lasting.Schedules = append(lasting.Schedules, w)
			continue
		}
		found = append(found, Finding{Severity: Warning, Object: o, Problem: fmt.Sprintf("spec.schedules[%d]: the window ends when it begins", i),
			Remedy: "set durationMinutes, or an end after the start"})
	}
	if len(found) > 0 && len(lasting.Schedules) == 0 {
		return found
	}
	if s, err := window.NewSchedules(lasting, defaults); err == nil && s.NextEdge(c.now).IsZero() {
		found = append(found, Finding{Severity: Warning, Object: o, Problem: "none of its windows comes any more: its value stays 0",
			Remedy: "give it a window to come, or delete it with the metrics that use it"})
	}
	return found
}

// instant tells of a valid window that it ends when it begins.
func instant(w zalando.Schedule) bool {
	switch {
	case w.DurationMinutes > 0:
		return false
	case w.Type == zalando.RepeatingSchedule:
		return w.Period.EndTime == "" || w.Period.EndTime == w.Period.StartTime
	case w.EndDate == nil:
		return true
	}
	start, _ := time.Parse(time.RFC3339, string(*w.Date))
	end, _ := time.Parse(time.RFC3339, string(*w.EndDate))
	return !end.After(start)
}
