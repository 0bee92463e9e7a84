// Package reactive computes how many replicas a metric asks for, bit for bit as kube-controller-manager v1.36.3 does for a
// HorizontalPodAutoscaler, with the documented ways out of it (Options). Everything here is pure: numbers, pods and an instant go in, a
// proposal comes out; where the numbers come from is the caller's affair, and what may be done with the proposal is
// scaler's. docs/hpa-algorithm.md tells the rules to people.
package reactive

import (
	"errors"
	"fmt"
	"math"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// What kube-controller-manager has where nobody set another.
const (
	DefaultTolerance               = 0.1
	DefaultCPUInitializationPeriod = 5 * time.Minute
	DefaultInitialReadinessDelay   = 30 * time.Second
)

// Inputs is everything that one metric's proposal depends on.
type Inputs struct {
	// Metric says what is measured and what its target is. Where it has two targets, the HPA's order decides.
	Metric autoscalingv2.MetricSpec
	// Namespace is named in errors.
	Namespace string
	// SpecReplicas and StatusReplicas are the scale's.
	SpecReplicas, StatusReplicas int32
	// Pods are those that count, each name once: what the scale's selector matches, or fewer, where the user wants only those that belong
	// to the workload. PodsFor makes them.
	Pods []Pod
	// Samples are what Resource, ContainerResource and Pods metrics measured, by the pod's name. A pod without one is missing.
	Samples map[string]Sample
	// Values are an Object metric's one value or an External metric's values, in thousandths.
	Values []int64
	// Err is why there are no samples or values; it precedes them.
	Err error
	// Tolerance says how far the usage may be from the target. The zero value tolerates nothing.
	Tolerance Tolerance
	// CPUInitializationPeriod and InitialReadinessDelay decide which cpu samples are not trusted.
	CPUInitializationPeriod, InitialReadinessDelay time.Duration
	// Now is the instant of the decision.
	Now time.Time
	// Options are the ways out.
	Options Options
}

// Tolerance is how far the ratio of usage to target may be above and below 1 without a change, as a share: 0.1 is ten
// percent. The bounds themselves are tolerated.
type Tolerance struct{ Up, Down float64 }

// Options are the ways out of what the HPA does. The zero value is the HPA.
type Options struct {
	// UnreadyOverload takes spec.replicas as the base while no pod is ready. The HPA multiplies by 0 then and goes to the minimum.
	UnreadyOverload bool
	// HoldOnMissing never proposes less than spec.replicas while the state or the sample of a pod is unknown. The HPA assumes a sample.
	HoldOnMissing bool
	// Saturate gives numbers beyond 32 or 64 bits the nearest that fits, keeps the replicas where the ratio is not a
	// number, proposes nothing below 0, takes a negative sum for what it is, and publishes the sum as the average over no pods. The
	// HPA's results are then those of the processor's conversion: MinInt32 and MinInt64, which its limits turn into the minimum.
	Saturate bool
}

// Sample is what was measured of one pod.
type Sample struct {
	// Milli is the usage in thousandths.
	Milli int64
	// Time is the end of the measurement and Window its length; they matter for cpu.
	Time   time.Time
	Window time.Duration
}

// Proposal is what one metric asks for.
type Proposal struct {
	// Replicas is valid if Err is nil. Without Saturate it may be negative; Desired does not let that through.
	Replicas int32
	// Percent is the utilization that an HPA's status shows; for Utilization targets only.
	Percent int32
	// Usage is the average or, for Value targets, the value that an HPA's status shows, in thousandths.
	Usage int64
	// Ratio is the measured usage to the target; Assumed the same with the values that stand in for missing and unready pods, or Ratio
	// where none do. Both may be infinite or not a number where the target or status.replicas is 0.
	Ratio, Assumed float64
	// Ready, Unready, Missing and Ignored count the pods as the algorithm sorts them; AverageValue targets of Object and
	// External metrics look at none. Unknown ones are counted there too.
	Ready, Unready, Missing, Ignored, Unknown int
	// Reason says in one line how the number came about.
	Reason string
	// Overflow says that without Saturate a conversion left its range: an HPA on another processor may answer differently.
	Overflow bool
	// Err is why the metric proposes nothing, in the HPA's words.
	Err error
}

// Propose computes what the metric asks for.
func Propose(in Inputs) Proposal {
	m := read(in)
	if m.err != nil {
		return Proposal{Ready: m.ready, Unready: m.unready, Missing: m.missing, Ignored: m.ignored, Unknown: m.unknown, Err: m.err}
	}
	return m.propose(m.total)
}

// Current is the usage as an HPA's status shows it.
func (p Proposal) Current(metric autoscalingv2.MetricSpec) autoscalingv2.MetricValueStatus {
	format, name := resource.DecimalSI, ""
	switch {
	case metric.Resource != nil:
		name = string(metric.Resource.Name)
	case metric.ContainerResource != nil:
		name = string(metric.ContainerResource.Name)
	}
	if name == string(corev1.ResourceMemory) {
		format = resource.BinarySI
	}
	usage, percent := resource.NewMilliQuantity(p.Usage, format), p.Percent
	switch g, _ := goalOf(metric); g.kind {
	case utilization:
		return autoscalingv2.MetricValueStatus{AverageUtilization: &percent, AverageValue: usage}
	case value:
		return autoscalingv2.MetricValueStatus{Value: usage}
	default:
		return autoscalingv2.MetricValueStatus{AverageValue: usage}
	}
}

type kind int

const (
	utilization kind = iota // of the pods' requests, in percent
	average                 // of the pods' samples
	value                   // of an object or an external metric
	perPod                  // of an object or an external metric, divided by status.replicas
)

// goal is a metric's target.
type goal struct {
	kind   kind
	target int64 // percent for utilization, else thousandths
	// resource and container are those of Resource and ContainerResource metrics.
	resource  corev1.ResourceName
	container string
}

// goalOf resolves the target. Where a spec has none, or two, it says and does what the HPA's controller says and does.
func goalOf(metric autoscalingv2.MetricSpec) (goal, error) {
	var target autoscalingv2.MetricTarget
	g := goal{}
	switch {
	case metric.Type == autoscalingv2.ResourceMetricSourceType && metric.Resource != nil:
		target, g.resource = metric.Resource.Target, metric.Resource.Name
	case metric.Type == autoscalingv2.ContainerResourceMetricSourceType && metric.ContainerResource != nil:
		c := metric.ContainerResource
		target, g.resource, g.container = c.Target, c.Name, c.Container
	case metric.Type == autoscalingv2.PodsMetricSourceType && metric.Pods != nil:
		if metric.Pods.Target.AverageValue == nil {
			return g, errors.New("invalid pods metric source: no average value target was set")
		}
		g.kind, g.target = average, metric.Pods.Target.AverageValue.MilliValue()
		return g, nil
	case metric.Type == autoscalingv2.ObjectMetricSourceType && metric.Object != nil:
		switch target := metric.Object.Target; {
		case target.Type == autoscalingv2.ValueMetricType && target.Value != nil:
			g.kind, g.target = value, target.Value.MilliValue()
		case target.Type == autoscalingv2.AverageValueMetricType && target.AverageValue != nil:
			g.kind, g.target = perPod, target.AverageValue.MilliValue()
		default:
			return g, errors.New("invalid object metric source: neither a value target nor an average value target was set")
		}
		return g, nil
	case metric.Type == autoscalingv2.ExternalMetricSourceType && metric.External != nil:
		switch target := metric.External.Target; {
		case target.AverageValue != nil:
			g.kind, g.target = perPod, target.AverageValue.MilliValue()
		case target.Value != nil:
			g.kind, g.target = value, target.Value.MilliValue()
		default:
			return g, errors.New("invalid external metric source: neither a value target nor an average value target was set")
		}
		return g, nil
	default:
		return g, fmt.Errorf("unknown metric source type %q", string(metric.Type))
	}
	switch {
	case target.AverageValue != nil:
		g.kind, g.target = average, target.AverageValue.MilliValue()
	case target.AverageUtilization != nil:
		g.kind, g.target = utilization, int64(*target.AverageUtilization)
	default:
		return g, errors.New("invalid resource metric source: neither an average utilization target nor an average value (usage) target was set")
	}
	return g, nil
}

// measurement is a metric with its pods sorted and its samples added up: all that a proposal depends on, the sum apart.
type measurement struct {
	goal
	in  Inputs
	err error
	// terse leaves the reasons out: they cost more than the numbers.
	terse bool

	ready, unready, missing, ignored, unknown int
	// superfluous counts samples of no pod; they count in averages, and not in utilizations.
	superfluous int
	// total is the sum of the samples or values that count at first.
	total int64
	// requests are those of the ready, unready and missing pods; stand is what missing pods are taken to use on the way down.
	requests, unreadyRequests, missingRequests, stand int64
}

// read adds up what was measured.
func read(in Inputs) (m measurement) {
	m.in = in
	if m.goal, m.err = goalOf(in.Metric); m.err != nil {
		return m
	}
	if m.err = in.sourceError(); m.err != nil {
		return m
	}
	switch m.kind {
	case value, perPod:
		m.total = m.sum(in.Values)
		if m.kind == value {
			m.countReady()
		}
	default:
		m.sortPods()
	}
	return m
}

// sourceError says that there is no sample or value, and why.
func (in *Inputs) sourceError() error {
	err := in.Err
	switch metric := in.Metric; metric.Type {
	case autoscalingv2.ObjectMetricSourceType:
		if err == nil && len(in.Values) != 1 {
			err = errors.New("no metrics returned from custom metrics API")
		}
		if err != nil {
			object := metric.Object.DescribedObject
			return fmt.Errorf("unable to get metric %s: %w on %s %s/%s", metric.Object.Metric.Name, err, object.Kind, in.Namespace, object.Name)
		}
	case autoscalingv2.ExternalMetricSourceType:
		if err == nil && len(in.Values) == 0 {
			err = errors.New("no metrics returned from external metrics API")
		}
		if err != nil {
			return fmt.Errorf("unable to get external metric %s/%s/%+v: %w", in.Namespace, metric.External.Metric.Name, metric.External.Metric.Selector, err)
		}
	case autoscalingv2.PodsMetricSourceType:
		if err == nil && len(in.Samples) == 0 {
			err = errors.New("no metrics returned from custom metrics API")
		}
		if err != nil {
			return fmt.Errorf("unable to get metric %s: %w", metric.Pods.Metric.Name, err)
		}
	default:
		if err == nil && len(in.Samples) == 0 {
			err = errors.New("no metrics returned from resource metrics API")
		}
		if err != nil {
			g, _ := goalOf(metric)
			return fmt.Errorf("unable to get metrics for resource %s: %w", g.resource, err)
		}
	}
	return nil
}

// sum adds an external metric's values. The HPA's two ways differ: for a Value target it stops at an overflow, for an AverageValue at
// any negative sum, which it takes for one.
func (m *measurement) sum(values []int64) (sum int64) {
	for _, v := range values {
		switch {
		case m.in.Options.Saturate:
			sum = m.add(sum, v)
			continue
		case m.in.Metric.Type == autoscalingv2.ObjectMetricSourceType:
			return v
		case m.kind == value && v > 0 && sum > math.MaxInt64-v:
			return math.MaxInt64
		}
		if sum += v; m.kind == perPod && sum < 0 {
			return math.MaxInt64
		}
	}
	return sum
}

// countReady counts as the HPA does for Value targets: only pods that run and are ready.
func (m *measurement) countReady() {
	for i := range m.in.Pods {
		p := &m.in.Pods[i]
		switch {
		case p.Phase == corev1.PodRunning && p.Ready == corev1.ConditionTrue:
			m.ready++
		case p.Deleting || p.Phase == corev1.PodFailed:
			m.ignored++
		default:
			m.unready++
			if p.unknown() {
				m.unknown++
			}
		}
	}
}

// sortPods sorts the pods into ready, unready, missing and ignored ones, and adds up what counts of each.
func (m *measurement) sortPods() {
	if len(m.in.Pods) == 0 {
		m.err = errNoPods
		return
	}
	var ofPods int64 // the sum of all samples that belong to pods
	var requestErr error
	known := 0
	fallback := max(100, m.target)
	for i := range m.in.Pods {
		p := &m.in.Pods[i]
		sample, found := m.in.Samples[p.Name]
		if found {
			known++
			ofPods += sample.Milli
		}
		if p.RequestError != "" && requestErr == nil {
			requestErr = errors.New(p.RequestError)
		}
		switch m.in.sort(p, sample, found, m.resource == corev1.ResourceCPU) {
		case isIgnored:
			m.ignored++
			continue
		case isUnready:
			m.unready++
			m.unreadyRequests = m.add(m.unreadyRequests, p.RequestMilli)
		case isMissing:
			m.missing++
			m.missingRequests = m.add(m.missingRequests, p.RequestMilli)
			if m.kind == utilization {
				m.stand = m.add(m.stand, m.mul(p.RequestMilli, fallback)/100)
			} else {
				m.stand = m.add(m.stand, m.target)
			}
		case isReady:
			m.ready++
			m.requests = m.add(m.requests, p.RequestMilli)
			m.total = m.add(m.total, sample.Milli)
		}
		if p.unknown() {
			m.unknown++
		}
	}
	m.superfluous = len(m.in.Samples) - known
	if m.kind == average && m.superfluous > 0 {
		var all int64
		for _, sample := range m.in.Samples {
			all += sample.Milli
		}
		m.total = m.add(m.total, all-ofPods)
	}
	switch {
	case m.ready+m.superfluous == 0:
		m.err = errors.New("did not receive metrics for targeted pods (pods might be unready)")
	case m.kind == utilization && requestErr != nil:
		m.err = requestErr
	case m.kind == utilization && m.requests == 0:
		m.err = errNoMatch
	}
}

var (
	errNoPods  = errors.New("no pods returned by selector while calculating replica count")
	errNoMatch = errors.New("no metrics returned matched known pods")
)

// propose computes the proposal for a sum.
func (m *measurement) propose(total int64) Proposal {
	p := Proposal{Ready: m.ready, Unready: m.unready, Missing: m.missing, Ignored: m.ignored, Unknown: m.unknown}
	switch m.kind {
	case value:
		m.proposeValue(&p, total)
	case perPod:
		m.proposePerPod(&p, total)
	default:
		m.proposePods(&p, total)
	}
	if p.Err == nil && m.in.Options.HoldOnMissing && p.Replicas < m.in.SpecReplicas && m.kind != perPod && m.missing+m.unknown > 0 {
		p.Replicas = m.in.SpecReplicas
		p.Reason += fmt.Sprintf("; kept at %d while %d pods have no data and %d are unknown", m.in.SpecReplicas, m.missing, m.unknown)
	}
	return p
}

// proposePods is for metrics that have a sample of each pod.
func (m *measurement) proposePods(p *Proposal, total int64) {
	requests, entries := m.requests, m.ready+m.superfluous
	p.Ratio, p.Percent, p.Usage = m.measure(total, requests, entries)
	p.Assumed = p.Ratio
	raise := m.unready > 0 && p.Ratio > 1
	if !raise && m.missing == 0 {
		if m.tolerates(p, p.Ratio) {
			return
		}
		m.multiply(p, p.Ratio, m.base(m.ready))
		return
	}
	if m.missing > 0 && (p.Ratio < 1 || p.Ratio > 1) {
		entries += m.missing
		requests = m.add(requests, m.missingRequests)
		if p.Ratio < 1 {
			total = m.add(total, m.stand)
		}
	}
	if raise {
		entries += m.unready
		requests = m.add(requests, m.unreadyRequests)
	}
	if m.kind == utilization && requests == 0 {
		p.Err = errNoMatch
		return
	}
	p.Assumed, _, _ = m.measure(total, requests, entries)
	switch {
	case m.tolerates(p, p.Assumed):
		return
	case p.Ratio < 1 && p.Assumed > 1 || p.Ratio > 1 && p.Assumed < 1:
		m.keep(p, "the pods that are missing or unready would turn the direction")
		return
	}
	m.multiply(p, p.Assumed, entries)
	if p.Assumed < 1 && p.Replicas > m.in.SpecReplicas || p.Assumed > 1 && p.Replicas < m.in.SpecReplicas {
		m.keep(p, "%d pods are measured and would turn the direction", entries)
	}
}

// measure returns the ratio to the target, the utilization in whole percent, and the average. The HPA drops what is behind the point
// of both before it forms the ratio.
func (m *measurement) measure(total, requests int64, entries int) (ratio float64, percent int32, avg int64) {
	if m.kind == average {
		avg = total / int64(entries)
		return float64(avg) / float64(m.target), 0, avg
	}
	if !m.in.Options.Saturate {
		percent = int32(total * 100 / requests) //nolint:gosec // the HPA's, wrapping included
	} else {
		percent = saturatingPercent(total, requests)
	}
	return float64(percent) / float64(m.target), percent, total / int64(max(1, entries-m.superfluous))
}

// proposeValue multiplies the ready pods, whatever they are, by the ratio; from 0 replicas the ratio itself is the count.
func (m *measurement) proposeValue(p *Proposal, total int64) {
	p.Usage = total
	p.Ratio = float64(total) / float64(m.target)
	p.Assumed = p.Ratio
	switch {
	case m.in.SpecReplicas == 0:
		m.multiply(p, p.Ratio, 1)
	case m.tolerates(p, p.Ratio):
	case len(m.in.Pods) == 0:
		p.Err = fmt.Errorf("unable to calculate ready pods: %w", errNoPods)
	default:
		if base := m.base(m.ready); p.Ratio*float64(base) > math.MaxInt32 {
			p.Replicas = math.MaxInt32
			p.Reason = m.text(p, "× %d pods is more than can be counted", base)
		} else {
			m.multiply(p, p.Ratio, base)
		}
	}
}

// proposePerPod divides by the target; the pods, ready or not, only decide whether the change is large enough.
func (m *measurement) proposePerPod(p *Proposal, total int64) {
	external, status := m.in.Metric.Type == autoscalingv2.ExternalMetricSourceType, float64(m.in.StatusReplicas)
	p.Ratio = float64(total) / (float64(m.target) * status)
	p.Assumed = p.Ratio
	switch avg := math.Ceil(float64(total) / status); {
	case external && float64(total) >= math.MaxInt64:
		p.Usage = math.MaxInt64
	case m.in.Options.Saturate && m.in.StatusReplicas == 0:
		p.Usage = total
	case avg >= -(1<<63) && avg < 1<<63:
		p.Usage = int64(avg)
	case m.in.Options.Saturate && avg > 0:
		p.Usage = math.MaxInt64
	default:
		p.Usage, p.Overflow = math.MinInt64, !m.in.Options.Saturate
	}
	switch want := math.Ceil(float64(total) / float64(m.target)); {
	case m.in.Tolerance.within(p.Ratio):
		p.Replicas = m.in.StatusReplicas
		p.Reason = m.text(p, "is within the tolerance %s: %d pods are kept", m.in.Tolerance, p.Replicas)
	case external && want > math.MaxInt32:
		p.Replicas = math.MaxInt32
		p.Reason = "the sum divided by the target is more than can be counted"
	default:
		if m.toInt32(p, want) && !m.terse {
			p.Reason = fmt.Sprintf("%s in all, divided by the target %s: %d pods", milli(total), milli(m.target), p.Replicas)
		}
	}
}

// base is what a ratio is multiplied by.
func (m *measurement) base(ready int) int {
	if ready == 0 && m.in.Options.UnreadyOverload {
		return int(m.in.SpecReplicas)
	}
	return ready
}

func (m *measurement) tolerates(p *Proposal, ratio float64) bool {
	if !m.in.Tolerance.within(ratio) {
		return false
	}
	m.keep(p, "that is within the tolerance %s", m.in.Tolerance)
	return true
}

func (m *measurement) keep(p *Proposal, why string, args ...any) {
	p.Replicas = m.in.SpecReplicas
	p.Reason = m.text(p, "but "+why+": %d is kept", append(args, p.Replicas)...)
}

func (m *measurement) multiply(p *Proposal, ratio float64, pods int) {
	if m.toInt32(p, math.Ceil(ratio*float64(pods))) {
		p.Reason = m.text(p, "× %d pods: %d", pods, p.Replicas)
	}
}

// text begins with the ratio, after the values that stand in where there are any.
func (m *measurement) text(p *Proposal, format string, args ...any) string {
	if m.terse {
		return ""
	}
	usage, target := milli(p.Usage), milli(m.target)
	if m.kind == utilization {
		usage, target = fmt.Sprintf("%d%%", p.Percent), fmt.Sprintf("%d%%", m.target)
	}
	ratio := fmt.Sprintf("%.4g", p.Ratio)
	if p.Assumed != p.Ratio {
		ratio = fmt.Sprintf("%.4g (%.4g with %d missing and %d unready pods)", p.Ratio, p.Assumed, m.missing, m.unready)
	}
	return fmt.Sprintf("%s of the target %s is a ratio of %s, ", usage, target, ratio) + fmt.Sprintf(format, args...)
}

// toInt32 sets the replicas. What Go leaves to the processor is what amd64 does, where nearly all control planes run, so that a recorded
// decision is the same everywhere. It returns false where it has said why itself.
func (m *measurement) toInt32(p *Proposal, f float64) bool {
	switch {
	case m.in.Options.Saturate && math.IsNaN(f):
		m.keep(p, "the count is not a number")
		return false
	case m.in.Options.Saturate:
		p.Replicas = int32(max(0, min(f, math.MaxInt32)))
	case f >= math.MinInt32 && f <= math.MaxInt32:
		p.Replicas = int32(f)
	default:
		p.Replicas, p.Overflow = math.MinInt32, true
		p.Reason = fmt.Sprintf("a count of %g does not fit and becomes %d in an HPA", f, p.Replicas)
		return false
	}
	return true
}

func (t Tolerance) within(ratio float64) bool { return 1-t.Down <= ratio && ratio <= 1+t.Up }

// String prints the tolerated ratios.
func (t Tolerance) String() string { return fmt.Sprintf("%.4g to %.4g", 1-t.Down, 1+t.Up) }

func (m *measurement) add(a, b int64) int64 {
	if s := a + b; !m.in.Options.Saturate || (s > a) == (b > 0) || b == 0 {
		return s
	}
	if b > 0 {
		return math.MaxInt64
	}
	return math.MinInt64
}

func (m *measurement) mul(a, b int64) int64 {
	if m.in.Options.Saturate {
		return saturatingMul(a, b)
	}
	return a * b
}

func saturatingMul(a, b int64) int64 {
	switch p := float64(a) * float64(b); {
	case p >= math.MaxInt64:
		return math.MaxInt64
	case p <= math.MinInt64:
		return math.MinInt64
	default:
		return a * b
	}
}

func saturatingPercent(total, requests int64) int32 {
	percent := total / requests
	if hundred := total * 100; hundred/100 == total {
		percent = hundred / requests
	} else {
		percent = saturatingMul(percent, 100)
	}
	return int32(max(math.MinInt32, min(percent, math.MaxInt32)))
}

// milli prints thousandths.
func milli(v int64) string {
	whole, rest := v/1000, v%1000
	if rest == 0 {
		return fmt.Sprint(whole)
	}
	if v < 0 {
		return fmt.Sprintf("-%d.%03d", -whole, -rest)
	}
	return fmt.Sprintf("%d.%03d", whole, rest)
}
