package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/utils/ptr"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	"github.com/kubetide/kubetide/scaler/bounds"
)

// row is a workload that is scaled, as it is shown.
type row struct {
	// Kind is that of the autoscaler, HPA or IHPA, as are Namespace and Name.
	Kind      string `json:"kind"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Target    string `json:"target"`
	// Demand is how many replicas are asked for before anything limits them; nil if nobody asks.
	Demand *float64 `json:"demand,omitempty"`
	// Current and Desired are replicas as the status has them, and the rest how many pods are in which state.
	Current *int32 `json:"current,omitempty"`
	Desired *int32 `json:"desired,omitempty"`
	Online  *int32 `json:"online,omitempty"`
	Cutoff  *int32 `json:"cutoff,omitempty"`
	Standby *int32 `json:"standby,omitempty"`
	// Min and Max are the bounds that hold now.
	Min int32 `json:"min"`
	Max int32 `json:"max"`
	// HeadroomPercent is what is left of Max, rounded down; nil where that is not known, or Max is 0.
	HeadroomPercent *int32 `json:"headroomPercent,omitempty"`

	// toMax is how long Demand takes to Max as its trend is; nil if that is not in sight.
	toMax *time.Duration
}

func rowOfIHPA(o *kapacity.IntelligentHorizontalPodAutoscaler, now time.Time) row {
	b, s := bounds.Decide(o.Spec.MinReplicas, o.Spec.MaxReplicas, o.Spec.ScheduledBounds, now), o.Status
	r := row{Kind: "IHPA", Namespace: o.Namespace, Name: o.Name, Target: targetOf(o.Spec.ScaleTargetRef), Min: b.Min, Max: b.Max,
		Current: s.Replicas, Desired: s.DesiredReplicas, Online: s.OnlineReplicas, Cutoff: s.CutoffReplicas, Standby: s.StandbyReplicas}
	active := apimeta.FindStatusCondition(s.Conditions, kapacity.ConditionScalingActive)
	if s.CurrentPortraitValue != nil && (active == nil || active.Reason != kapacity.ReasonNoValidPortraitValue) { // else it is one of the past
		r.Demand = new(float64(s.CurrentPortraitValue.Replicas))
	}
	r.HeadroomPercent = headroom(r)
	return r
}

func rowOfHPA(o *autoscalingv2.HorizontalPodAutoscaler) row {
	s := o.Status
	r := row{Kind: "HPA", Namespace: o.Namespace, Name: o.Name, Target: targetOf(o.Spec.ScaleTargetRef), Min: ptr.Deref(o.Spec.MinReplicas, 1), Max: o.Spec.MaxReplicas}
	if len(s.Conditions) > 0 { // else nobody has looked at it yet, and zeros mean nothing
		r.Current = &s.CurrentReplicas
		if s.DesiredReplicas > 0 || s.CurrentReplicas == 0 || r.Min == 0 {
			r.Desired = &s.DesiredReplicas
		}
	}
	for i, m := range s.CurrentMetrics[:min(len(s.CurrentMetrics), len(o.Spec.Metrics))] { // kube-controller-manager keeps the order of the spec
		if asked, ok := demandOf(o.Spec.Metrics[i], m, s.CurrentReplicas); ok && (r.Demand == nil || asked > *r.Demand) {
			r.Demand = &asked
		}
	}
	r.HeadroomPercent = headroom(r)
	return r
}

func targetOf(ref autoscalingv2.CrossVersionObjectReference) string { return ref.Kind + "/" + ref.Name }

// demandOf is how many replicas a metric asks for, without tolerance and rounding. false: the status is not the metric's, or says nothing.
func demandOf(spec autoscalingv2.MetricSpec, status autoscalingv2.MetricStatus, replicas int32) (float64, bool) {
	var target autoscalingv2.MetricTarget
	var current autoscalingv2.MetricValueStatus
	switch {
	case spec.Resource != nil && status.Resource != nil && spec.Resource.Name == status.Resource.Name:
		target, current = spec.Resource.Target, status.Resource.Current
	case spec.ContainerResource != nil && status.ContainerResource != nil && spec.ContainerResource.Name == status.ContainerResource.Name &&
		spec.ContainerResource.Container == status.ContainerResource.Container:
		target, current = spec.ContainerResource.Target, status.ContainerResource.Current
	case spec.Pods != nil && status.Pods != nil && spec.Pods.Metric.Name == status.Pods.Metric.Name:
		target, current = spec.Pods.Target, status.Pods.Current
	case spec.Object != nil && status.Object != nil && spec.Object.Metric.Name == status.Object.Metric.Name:
		target, current = spec.Object.Target, status.Object.Current
	case spec.External != nil && status.External != nil && spec.External.Metric.Name == status.External.Metric.Name:
		target, current = spec.External.Target, status.External.Current
	}
	var is, wanted float64
	switch {
	case target.AverageUtilization != nil && current.AverageUtilization != nil:
		is, wanted = float64(*current.AverageUtilization), float64(*target.AverageUtilization)
	case target.AverageValue != nil && current.AverageValue != nil:
		is, wanted = current.AverageValue.AsApproximateFloat64(), target.AverageValue.AsApproximateFloat64()
	case target.Value != nil && current.Value != nil:
		is, wanted = current.Value.AsApproximateFloat64(), target.Value.AsApproximateFloat64()
		replicas = max(replicas, 1) // as the HPA counts from zero
	}
	if wanted <= 0 || replicas == 0 { // no average is of no pods
		return 0, false
	}
	return max(0, is/wanted*float64(replicas)), true
}

func headroom(r row) *int32 {
	replicas := cmp.Or(r.Desired, r.Current)
	if replicas == nil || r.Max <= 0 {
		return nil
	}
	return new(int32(100 * int64(max(0, r.Max-*replicas)) / int64(r.Max)))
}

// point is a demand that was seen.
type point struct {
	at     time.Time
	demand float64
}

// trend is what was seen of a demand, oldest first.
type trend []point

const (
	// trendPoints is how many points a trend rests on: two minutes by default, in which kube-controller-manager looks eight times.
	trendPoints = 60
	// trendReach is how far ahead a trend says anything.
	trendReach = 24 * time.Hour
)

// with is the trend after one more point.
func (t trend) with(p point) trend {
	t = append(t, p)
	return t[max(0, len(t)-trendPoints):]
}

// rise is the demand's change in a second, by least squares: one odd value at an end does not decide it.
func (t trend) rise() float64 {
	var n, x, y, xx, xy float64
	for _, p := range t {
		seconds := p.at.Sub(t[0].at).Seconds()
		n, x, y, xx, xy = n+1, x+seconds, y+p.demand, xx+seconds*seconds, xy+seconds*p.demand
	}
	if spread := n*xx - x*x; spread > 0 {
		return (n*xy - x*y) / spread
	}
	return 0
}

// toMax is how long the last demand takes to the maximum if it rises on. nil: it falls, stays, or is not there within trendReach.
func (t trend) toMax(most int32) *time.Duration {
	if len(t) == 0 {
		return nil
	}
	missing, rise := float64(most)-t[len(t)-1].demand, t.rise()
	switch {
	case missing <= 0:
		return new(time.Duration(0))
	case rise <= 0 || missing/rise > trendReach.Seconds():
		return nil
	}
	return new(time.Duration(missing / rise * float64(time.Second)))
}

// standings are workloads by what is left to their maximum, least first.
type standings struct {
	Items []row `json:"items"`
	// Notes say what could not be read.
	Notes []string `json:"notes,omitempty"`

	where string
	look  look
}

// look is how standings look as text.
type look struct {
	namespaces, trends, colour bool
	// width and height are those of the screen; 0 is no bound.
	width, height int
}

func (s *standings) sort() {
	left := func(r row) int32 { return ptr.Deref(r.HeadroomPercent, 101) }
	slices.SortFunc(s.Items, func(a, b row) int {
		return cmp.Or(cmp.Compare(left(a), left(b)), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Kind, b.Kind))
	})
}

const (
	red    = "\x1b[31m"
	yellow = "\x1b[33m"
	plain  = "\x1b[0m"
)

// colour is red at the maximum, and yellow where less than a fifth is left.
func (r row) colour() string {
	switch replicas := cmp.Or(r.Desired, r.Current); {
	case r.HeadroomPercent == nil:
		return ""
	case *replicas >= r.Max:
		return red
	case *r.HeadroomPercent < 20:
		return yellow
	}
	return ""
}

// standings prints one screen.
func (p printer) standings(s *standings) error {
	lines := []string{"There are no HPAs and IHPAs to show in " + printable(s.where) + "."}
	if len(s.Items) > 0 {
		lines = s.lines()
	}
	var foot []string
	for _, n := range s.Notes {
		foot = append(foot, "! "+printable(n))
	}
	if len(foot) > 0 {
		foot = slices.Insert(foot, 0, "")
	}
	shown := len(s.Items)
	// The cursor stands below the last line.
	if room := max(2, s.look.height-1-len(foot)); s.look.height > 0 && len(lines) > room {
		shown = room - 2
		lines = append(lines[:room-1], fmt.Sprintf("... and %d more", len(s.Items)-shown))
	}
	var b strings.Builder
	for i, line := range append(lines, foot...) {
		if text := []rune(line); s.look.width > 0 && len(text) > s.look.width {
			line = string(text[:s.look.width])
		}
		line = strings.TrimRight(line, " ")
		if s.look.colour && i > 0 && i <= shown && s.Items[i-1].colour() != "" { // the head is the first line
			line = s.Items[i-1].colour() + line + plain
		}
		b.WriteString(line + "\n")
	}
	_, err := io.WriteString(p.out, b.String())
	return err
}

// lines are the table's, the first being its head.
func (s *standings) lines() []string {
	rows := [][]string{{"NAMESPACE", "NAME", "TARGET", "DEMAND", "REPLICAS", "MIN", "MAX", "HEADROOM", "TO MAX"}}
	for _, r := range s.Items {
		rows = append(rows, []string{r.Namespace, strings.ToLower(r.Kind) + "/" + r.Name, r.Target, r.demand(), r.replicas(), fmt.Sprint(r.Min), fmt.Sprint(r.Max), r.headroom(), r.until()})
	}
	for i := range rows {
		if !s.look.trends {
			rows[i] = rows[i][:len(rows[i])-1]
		}
		if !s.look.namespaces {
			rows[i] = rows[i][1:]
		}
	}
	var b strings.Builder
	table(&b, rows)
	return strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
}

func (r row) demand() string {
	if r.Demand == nil {
		return "-"
	}
	return strings.TrimSuffix(strconv.FormatFloat(*r.Demand, 'f', 1, 64), ".0")
}

// replicas prints where they go, and of which state they are where not all serve: 5 -> 1 (3 online, 2 cutoff).
func (r row) replicas() string {
	text := count(r.Current)
	if r.Desired != nil && (r.Current == nil || *r.Desired != *r.Current) {
		text += " -> " + count(r.Desired)
	}
	if r.Online == nil || r.Current != nil && *r.Online == *r.Current {
		return text
	}
	states := []string{count(r.Online) + " online"}
	if ptr.Deref(r.Cutoff, 0) > 0 {
		states = append(states, count(r.Cutoff)+" cutoff")
	}
	if ptr.Deref(r.Standby, 0) > 0 {
		states = append(states, count(r.Standby)+" standby")
	}
	return text + " (" + strings.Join(states, ", ") + ")"
}

func (r row) headroom() string {
	if r.HeadroomPercent == nil {
		return "-"
	}
	return count(r.HeadroomPercent) + " %"
}

func (r row) until() string {
	switch {
	case r.toMax == nil:
		return "-"
	case *r.toMax == 0:
		return "now"
	}
	return duration.HumanDuration(*r.toMax)
}
