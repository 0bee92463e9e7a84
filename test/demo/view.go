package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// view is what the demo shows at one instant.
type view struct {
	now    time.Time
	step   string
	hpa    hpaView
	ihpa   ihpaView
	events []eventView
}

type hpaView struct {
	ordersSent       int
	perPod, schedule string
	current, desired int32
	ready            int
}

type ihpaView struct {
	window                  string
	provider                string
	desired, online, cutoff int32
	grayPercent             int32
	pods                    []podView
}

type podView struct {
	name, state     string
	ready, endpoint bool
}

type eventView struct {
	at                   time.Time
	object, reason, text string
}

// maxEvents is how many events fit on a screen beside the rest.
const maxEvents = 14

// frame draws the view as lines that fit into so many columns; what does not is cut off.
func frame(v view, columns int) string {
	var b strings.Builder
	line := func(format string, args ...any) {
		text := fmt.Sprintf(format, args...)
		b.WriteString(text[:min(len(text), columns)] + "\n")
	}
	line("Kubetide   %s   %s", v.now.Format("15:04:05"), v.step)
	line("")
	line("(a) HPA shop: scaled by kube-controller-manager from the metrics that Kubetide serves")
	line("    orders sent %3d/s   per pod %s   schedule shop-sale %s", v.hpa.ordersSent, v.hpa.perPod, v.hpa.schedule)
	line("    replicas %d, wanted %d   ready %s", v.hpa.current, v.hpa.desired, strings.Repeat("#", v.hpa.ready))
	line("")
	line("(b) IHPA nginx: cron window %s asks for 5, static for 1; down by gray Cutoff 50 %% / 30 s / 60 s", v.ihpa.window)
	line("    provider %-7s desired %d   online %d   cutoff %d   gray %d %%",
		cmp.Or(v.ihpa.provider, "-"), v.ihpa.desired, v.ihpa.online, v.ihpa.cutoff, v.ihpa.grayPercent)
	line("    %-10s %-8s %-6s %s", "POD", "STATE", "READY", "IN ENDPOINTS")
	for _, p := range v.ihpa.pods {
		line("    %-10s %-8s %-6s %s", p.name, p.state, yes(p.ready), yes(p.endpoint))
	}
	line("")
	line("Events")
	events := slices.Clone(v.events)
	slices.SortStableFunc(events, func(a, b eventView) int { return a.at.Compare(b.at) })
	for _, e := range events[max(0, len(events)-maxEvents):] {
		line("    %s  %-28s %-21s %s", e.at.Local().Format("15:04:05"), e.object, e.reason, e.text)
	}
	return b.String()
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// changes are the lines of the view that are worth printing where no screen can be redrawn: the numbers of both
// workloads and the events that prev did not have.
func changes(prev, v view) []string {
	var out []string
	at := v.now.Format("15:04:05")
	if v.step != prev.step {
		out = append(out, fmt.Sprintf("%s  --- %s", at, v.step))
	}
	if v.hpa.current != prev.hpa.current || v.hpa.desired != prev.hpa.desired || v.hpa.ready != prev.hpa.ready {
		out = append(out, fmt.Sprintf("%s  HPA shop: orders sent %d/s, per pod %s, schedule %s; replicas %d, wanted %d, ready %d",
			at, v.hpa.ordersSent, v.hpa.perPod, v.hpa.schedule, v.hpa.current, v.hpa.desired, v.hpa.ready))
	}
	a, b := prev.ihpa, v.ihpa
	if a.online != b.online || a.cutoff != b.cutoff || a.desired != b.desired || !slices.Equal(a.pods, b.pods) {
		var pods []string
		for _, p := range b.pods {
			mark := p.name + "=" + p.state
			if !p.endpoint {
				mark += "(not in endpoints)"
			}
			pods = append(pods, mark)
		}
		out = append(out, fmt.Sprintf("%s  IHPA nginx: provider %s, desired %d, online %d, cutoff %d; %s",
			at, cmp.Or(b.provider, "-"), b.desired, b.online, b.cutoff, strings.Join(pods, " ")))
	}
	for _, e := range v.events {
		if !slices.Contains(prev.events, e) {
			out = append(out, fmt.Sprintf("%s  event %s %s: %s", at, e.object, e.reason, e.text))
		}
	}
	return out
}
