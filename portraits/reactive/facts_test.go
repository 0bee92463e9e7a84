package reactive

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// The metrics of the facts. Two containers request one core each, and use what the fact says each.
func cpu(percent int32) autoscalingv2.MetricSpec {
	return autoscalingv2.MetricSpec{Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{
		Name: corev1.ResourceCPU, Target: autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: &percent},
	}}
}

func containerCPU(percent int32) autoscalingv2.MetricSpec {
	return autoscalingv2.MetricSpec{
		Type: autoscalingv2.ContainerResourceMetricSourceType,
		ContainerResource: &autoscalingv2.ContainerResourceMetricSource{
			Name: corev1.ResourceCPU, Container: "container2",
			Target: autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: &percent},
		},
	}
}

func raw(name corev1.ResourceName, target int64) autoscalingv2.MetricSpec {
	return autoscalingv2.MetricSpec{Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{
		Name: name, Target: averageOf(target),
	}}
}

func averageOf(target int64) autoscalingv2.MetricTarget {
	return autoscalingv2.MetricTarget{Type: autoscalingv2.AverageValueMetricType, AverageValue: resource.NewMilliQuantity(target, resource.DecimalSI)}
}

func valueOf(target int64) autoscalingv2.MetricTarget {
	return autoscalingv2.MetricTarget{Type: autoscalingv2.ValueMetricType, Value: resource.NewMilliQuantity(target, resource.DecimalSI)}
}

func perPodQPS(target int64) autoscalingv2.MetricSpec {
	return autoscalingv2.MetricSpec{Type: autoscalingv2.PodsMetricSourceType, Pods: &autoscalingv2.PodsMetricSource{
		Metric: autoscalingv2.MetricIdentifier{Name: "qps"}, Target: averageOf(target),
	}}
}

func object(target autoscalingv2.MetricTarget) autoscalingv2.MetricSpec {
	return autoscalingv2.MetricSpec{Type: autoscalingv2.ObjectMetricSourceType, Object: &autoscalingv2.ObjectMetricSource{
		DescribedObject: autoscalingv2.CrossVersionObjectReference{Kind: "Deployment", APIVersion: "apps/v1", Name: "some-deployment"},
		Metric:          autoscalingv2.MetricIdentifier{Name: "qps"}, Target: target,
	}}
}

func external(target autoscalingv2.MetricTarget) autoscalingv2.MetricSpec {
	return autoscalingv2.MetricSpec{Type: autoscalingv2.ExternalMetricSourceType, External: &autoscalingv2.ExternalMetricSource{
		Metric: autoscalingv2.MetricIdentifier{Name: "qps"}, Target: target,
	}}
}

// The states a pod of a fact may be in.
const (
	ready       = iota
	unready     // never was ready
	hot         // inside the initialization period, measured before it was ready
	hotUnready  // both
	pending     //
	failed      //
	deleting    //
	lostReady   // was ready, is not any more
	unscheduled = pending
)

func podAt(i, state int, request int64) *corev1.Pod {
	always := corev1.ResourceList{corev1.ResourceCPU: *resource.NewMilliQuantity(request, resource.DecimalSI)}
	if request == 0 {
		always = nil
	}
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("pod-%d", i)},
		Spec: corev1.PodSpec{Containers: []corev1.Container{
			{Name: "container1", Resources: corev1.ResourceRequirements{Requests: always}},
			{Name: "container2", Resources: corev1.ResourceRequirements{Requests: always}},
		}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning},
	}
	started, since, is := now.Add(-time.Hour), now.Add(-time.Hour), corev1.ConditionTrue
	switch state {
	case unready:
		is = corev1.ConditionFalse
	case hot:
		started, since = now.Add(-time.Minute), now.Add(-30*time.Second)
	case hotUnready:
		started, since, is = now.Add(-time.Minute), now.Add(-30*time.Second), corev1.ConditionFalse
	case pending:
		p.Status.Phase, is = corev1.PodPending, corev1.ConditionFalse
	case failed:
		p.Status.Phase, is = corev1.PodFailed, corev1.ConditionFalse
	case deleting:
		p.DeletionTimestamp = &metav1.Time{Time: now}
	case lostReady:
		since, is = now.Add(-time.Minute), corev1.ConditionFalse
	}
	p.Status.StartTime = &metav1.Time{Time: started}
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: is, LastTransitionTime: metav1.Time{Time: since}}}
	return p
}

// fact is one row of the reference.
type fact struct {
	metric       autoscalingv2.MetricSpec
	spec, status int32 // status: the number of pods if 0
	pods         []int // states; spec ready ones if nil
	requests     []int64
	samples      []int64 // of each container of pod-0, pod-1, ...; milli
	values       []int64
	tolerance    *Tolerance

	replicas int32
	percent  int32
	usage    int64 // not compared if 0
	err      string
}

func (f fact) inputs() Inputs {
	states := f.pods
	if states == nil {
		states = make([]int, f.spec)
	}
	var pods []*corev1.Pod
	for i, state := range states {
		request := int64(1000)
		if i < len(f.requests) {
			request = f.requests[i]
		}
		pods = append(pods, podAt(i, state, request))
	}
	in := Inputs{
		Metric: f.metric, Namespace: "shop", SpecReplicas: f.spec, StatusReplicas: f.status, Values: f.values,
		Pods: PodsFor(f.metric, pods), Samples: map[string]Sample{}, Tolerance: Tolerance{Up: DefaultTolerance, Down: DefaultTolerance},
		CPUInitializationPeriod: DefaultCPUInitializationPeriod, InitialReadinessDelay: DefaultInitialReadinessDelay, Now: now,
	}
	if f.status == 0 {
		in.StatusReplicas = int32(len(states))
	}
	if f.tolerance != nil {
		in.Tolerance = *f.tolerance
	}
	for i, s := range f.samples {
		if f.metric.Resource != nil {
			s *= 2 // both containers
		}
		in.Samples[fmt.Sprintf("pod-%d", i)] = Sample{Milli: s, Time: now, Window: time.Minute}
	}
	return in
}

var up, down = func(f float64) *Tolerance { return &Tolerance{Up: f, Down: DefaultTolerance} }, func(f float64) *Tolerance {
	return &Tolerance{Up: DefaultTolerance, Down: f}
}

var facts = map[string]fact{
	"1: usage above the target scales up":                             {metric: cpu(30), spec: 3, samples: []int64{300, 500, 700}, replicas: 5, percent: 50, usage: 1000},
	"2: an unready pod counts as 0 on the way up":                     {metric: cpu(30), spec: 3, pods: []int{unready, ready, ready}, samples: []int64{300, 500, 700}, replicas: 4, percent: 60},
	"3: enough unready pods keep the count":                           {metric: cpu(30), spec: 3, pods: []int{ready, unready, unready}, samples: []int64{400, 500, 700}, replicas: 3, percent: 40},
	"4a: a hot pod counts as an unready one":                          {metric: cpu(30), spec: 3, pods: []int{hot, ready, ready}, samples: []int64{300, 500, 700}, replicas: 4, percent: 60},
	"4b: hot and unready pods keep the count":                         {metric: cpu(30), spec: 3, pods: []int{ready, hotUnready, hotUnready}, samples: []int64{400, 500, 700}, replicas: 3, percent: 40},
	"5: failed pods do not count":                                     {metric: cpu(30), spec: 2, pods: []int{ready, ready, failed, failed}, samples: []int64{500, 700}, replicas: 4, percent: 60},
	"5: nor do deleted ones":                                          {metric: cpu(30), spec: 2, pods: []int{ready, ready, deleting, deleting}, samples: []int64{500, 700}, replicas: 4, percent: 60},
	"5: not even with their samples":                                  {metric: cpu(30), spec: 2, pods: []int{ready, ready, deleting, failed}, samples: []int64{500, 700, 9000, 9000}, replicas: 4, percent: 60},
	"6: a container counts for itself":                                {metric: containerCPU(30), spec: 3, samples: []int64{300, 500, 700}, replicas: 5, percent: 50, usage: 500},
	"7: usage below the target scales down":                           {metric: cpu(50), spec: 5, samples: []int64{100, 300, 500, 250, 250}, replicas: 3, percent: 28, usage: 560},
	"8a: unready pods are left out on the way down":                   {metric: cpu(50), spec: 5, pods: []int{ready, ready, ready, unready, unready}, samples: []int64{100, 300, 500, 250, 250}, replicas: 2, percent: 30},
	"8b: pending pods are left out on the way down":                   {metric: cpu(50), spec: 5, pods: []int{ready, pending, pending, pending, pending}, samples: []int64{100}, replicas: 1, percent: 10},
	"9: within the tolerance the count is kept":                       {metric: cpu(100), spec: 3, requests: []int64{900, 1000, 1100}, samples: []int64{1010, 1030, 1020}, replicas: 3, percent: 102, usage: 2040},
	"10a: no tolerance upwards":                                       {metric: cpu(100), spec: 3, requests: []int64{900, 1000, 1100}, samples: []int64{1010, 1010, 1010}, tolerance: up(0), replicas: 4, percent: 101},
	"10b: a tolerance of 200 % upwards":                               {metric: cpu(100), spec: 3, requests: []int64{900, 1000, 1100}, samples: []int64{1900, 1900, 1900}, tolerance: up(2), replicas: 3, percent: 190},
	"10c: upwards and downwards differ":                               {metric: cpu(100), spec: 3, requests: []int64{900, 1000, 1100}, samples: []int64{1090, 1090, 1090}, tolerance: &Tolerance{Up: .08, Down: 2}, replicas: 4, percent: 109},
	"10d: a tolerance of 36 % downwards":                              {metric: cpu(100), spec: 3, requests: []int64{900, 1000, 1100}, samples: []int64{650, 650, 650}, tolerance: down(.36), replicas: 3, percent: 65},
	"10e: a tolerance of 34 % downwards":                              {metric: cpu(100), spec: 3, requests: []int64{900, 1000, 1100}, samples: []int64{650, 650, 650}, tolerance: down(.34), replicas: 2, percent: 65},
	"11: samples of no pod do not count for the utilization":          {metric: cpu(100), spec: 4, samples: []int64{4000, 9500, 3000, 7000, 3200, 2000}, replicas: 24, percent: 587, usage: 11750},
	"12: missing pods count as 100 % on the way down":                 {metric: cpu(100), spec: 4, samples: []int64{400, 95}, replicas: 3, percent: 24, usage: 495},
	"13: a missing pod alone changes nothing":                         {metric: cpu(100), spec: 2, samples: []int64{1000}, replicas: 2, percent: 100},
	"13: nor if it would turn the direction":                          {metric: cpu(100), spec: 2, samples: []int64{1900}, replicas: 2, percent: 190},
	"13: nor on the way down":                                         {metric: cpu(100), spec: 2, samples: []int64{600}, replicas: 2, percent: 60},
	"14: missing and unready pods count as 0 on the way up":           {metric: cpu(50), spec: 3, pods: []int{hotUnready, ready, ready}, samples: []int64{100, 2000}, replicas: 4, percent: 200},
	"15: unready pods are left out, missing ones count as 100 %":      {metric: cpu(50), spec: 4, pods: []int{hotUnready, ready, ready, ready}, samples: []int64{100, 100, 100}, replicas: 3, percent: 10},
	"16: missing pods count as the target if that is above 100 %":     {metric: cpu(300), spec: 4, requests: []int64{1000, 1000, 2000, 2000}, samples: []int64{200, 100, 100}, replicas: 2, percent: 10, usage: 266},
	"17: a surge pod without a sample keeps the count":                {metric: cpu(50), spec: 2, pods: []int{ready, ready, ready}, samples: []int64{100, 100}, replicas: 2, percent: 10},
	"18a: no samples at all":                                          {metric: cpu(50), spec: 2, err: "unable to get metrics for resource cpu: no metrics returned from resource metrics API"},
	"18b: a pod without a request":                                    {metric: cpu(50), spec: 2, requests: []int64{0, 0}, samples: []int64{100, 100}, err: "missing request for cpu in container container1 of Pod pod-0"},
	"18: no pods":                                                     {metric: cpu(50), spec: 2, pods: []int{}, samples: []int64{100}, err: "no pods returned by selector while calculating replica count"},
	"18: nothing but unready pods":                                    {metric: cpu(50), spec: 2, pods: []int{unready, pending}, samples: []int64{100, 100}, err: "did not receive metrics for targeted pods (pods might be unready)"},
	"18: samples of other pods only":                                  {metric: cpu(50), spec: 1, pods: []int{unready}, samples: []int64{100, 100}, err: "no metrics returned matched known pods"},
	"an overloaded pod that lost its readiness counts":                {metric: cpu(50), spec: 2, pods: []int{ready, lostReady}, samples: []int64{1000, 1000}, replicas: 4, percent: 100},
	"19a: the average of the pods' own metric":                        {metric: perPodQPS(15000), spec: 3, samples: []int64{20000, 10000, 30000}, replicas: 4, usage: 20000},
	"19b: readiness does not matter there":                            {metric: perPodQPS(15000), spec: 3, pods: []int{ready, ready, hotUnready}, samples: []int64{50000, 10000, 30000}, replicas: 6, usage: 30000},
	"19c: averages are cut":                                           {metric: perPodQPS(15000), spec: 3, pods: []int{hotUnready, ready, hotUnready}, samples: []int64{50000, 15000, 30000}, replicas: 7, usage: 31666},
	"20a: an object's value":                                          {metric: object(valueOf(15000)), spec: 3, values: []int64{20000}, replicas: 4, usage: 20000},
	"20b: it multiplies the ready pods":                               {metric: object(valueOf(10000)), spec: 3, pods: []int{unready, ready, unready}, values: []int64{50000}, replicas: 5, usage: 50000},
	"21a: an object's value per pod":                                  {metric: object(averageOf(5000)), spec: 3, values: []int64{20000}, replicas: 4, usage: 6667},
	"21b: within the tolerance":                                       {metric: object(averageOf(5000)), spec: 4, values: []int64{20166}, replicas: 4, usage: 5042},
	"21c: above a tolerance of 1 %":                                   {metric: object(averageOf(5000)), spec: 4, values: []int64{20208}, tolerance: up(.01), replicas: 5, usage: 5052},
	"22a: an external metric multiplies the ready pods":               {metric: external(valueOf(4400)), spec: 3, pods: []int{unready, ready, unready}, values: []int64{8600}, replicas: 2, usage: 8600},
	"22b: and scales down":                                            {metric: external(valueOf(14334)), spec: 5, values: []int64{8600}, replicas: 3, usage: 8600},
	"22c: or keeps":                                                   {metric: external(valueOf(8888)), spec: 3, values: []int64{8600}, replicas: 3, usage: 8600},
	"23a: an external metric per pod":                                 {metric: external(averageOf(2150)), spec: 3, values: []int64{8600}, replicas: 4, usage: 2867},
	"23b: and down":                                                   {metric: external(averageOf(2867)), spec: 5, values: []int64{8600}, replicas: 3, usage: 1720},
	"23: several values are added":                                    {metric: external(averageOf(2150)), spec: 3, values: []int64{8000, 500, 100}, replicas: 4, usage: 2867},
	"24: missing pods of a plain metric within the tolerance":         {metric: perPodQPS(20000), spec: 5, samples: []int64{20000, 19000, 21000}, replicas: 5, usage: 20000},
	"24: missing pods of a plain metric count as the target downward": {metric: perPodQPS(20000), spec: 4, samples: []int64{5000, 5000}, replicas: 3, usage: 5000},
	"24: and as 0 upward":                                             {metric: perPodQPS(20000), spec: 4, samples: []int64{60000, 60000}, replicas: 6, usage: 60000},
	"25a: an object's value beyond counting":                          {metric: object(valueOf(1)), spec: 1, values: []int64{math.MaxInt64}, replicas: math.MaxInt32, usage: math.MaxInt64},
	"25a: an external metric per pod beyond counting":                 {metric: external(averageOf(1)), spec: 1, values: []int64{math.MaxInt64}, replicas: math.MaxInt32, usage: math.MaxInt64},
	"25b: a sum is capped":                                            {metric: external(valueOf(math.MaxInt64)), spec: 3, values: []int64{math.MaxInt64, math.MaxInt64}, replicas: 3, usage: math.MaxInt64},
	"25b: per pod too":                                                {metric: external(averageOf(math.MaxInt64)), spec: 1, values: []int64{math.MaxInt64, 1}, replicas: 1, usage: math.MaxInt64},
	"40: a surge at the target keeps the count":                       {metric: perPodQPS(20000), spec: 4, pods: []int{ready, ready, ready, ready, ready}, samples: []int64{20000, 20000, 20000, 20000, 20000}, replicas: 4},
	"memory does not look at readiness":                               {metric: raw(corev1.ResourceMemory, 1000), spec: 2, pods: []int{unready, hotUnready}, samples: []int64{1000, 1000}, replicas: 4, usage: 2000},
	"cpu as an average does":                                          {metric: raw(corev1.ResourceCPU, 1000), spec: 2, pods: []int{ready, unready}, samples: []int64{300, 9000}, replicas: 1, usage: 600},
	"the bounds are tolerated: at the upper":                          {metric: cpu(100), spec: 3, samples: []int64{1100, 1100, 1100}, replicas: 3, percent: 110},
	"the bounds are tolerated: at the lower":                          {metric: cpu(100), spec: 3, samples: []int64{900, 900, 900}, replicas: 3, percent: 90},
	"what is behind the point of a percentage is dropped":             {metric: cpu(100), spec: 3, samples: []int64{1109, 1109, 1109}, replicas: 3, percent: 110},
	"trap 4: per pod of no pods, in an HPA on amd64":                  {metric: external(averageOf(1000)), spec: 0, values: []int64{2500}, replicas: 3, usage: math.MinInt64},
}

func TestFacts(t *testing.T) {
	for name, f := range facts {
		t.Run(name, func(t *testing.T) {
			got := Propose(f.inputs())
			if f.err != "" {
				if got.Err == nil || got.Err.Error() != f.err {
					t.Fatalf("error %v, want %s", got.Err, f.err)
				}
				return
			}
			if got.Err != nil {
				t.Fatal(got.Err)
			}
			if f.usage == 0 {
				f.usage = got.Usage
			}
			type result struct {
				Replicas, Percent int32
				Usage             int64
			}
			if diff := cmp.Diff(result{f.replicas, f.percent, f.usage}, result{got.Replicas, got.Percent, got.Usage}); diff != "" {
				t.Errorf("(-want +got):\n%s%s", diff, got.Reason)
			}
			if got.Reason == "" {
				t.Error("there is no reason")
			}
		})
	}
}

// fromZero is the inputs of an autoscaler that scaled to zero.
func fromZero(v, target int64) Inputs {
	return fact{metric: object(valueOf(target)), spec: 0, pods: []int{}, values: []int64{v}}.inputs()
}

func TestFactsOfTheLoop(t *testing.T) {
	failure := Proposal{Err: errors.New("unable to get metric qps: gone")}
	four, three := Propose(facts["2: an unready pod counts as 0 on the way up"].inputs()), Propose(facts["7: usage below the target scales down"].inputs())
	for name, test := range map[string]struct {
		spec, min, max           int32
		scaledToZero, canSeeZero bool
		proposals                []Proposal
		replicas                 int32
		held                     bool
		err                      string
	}{
		"26c: below the minimum no metric is asked":                    {spec: 2, min: 3, max: 5, replicas: 3},
		"26d: above the maximum no metric is asked":                    {spec: 10, min: 2, max: 5, replicas: 5},
		"27a: 0 replicas stay if a person set them":                    {spec: 0, max: 5, canSeeZero: true, proposals: []Proposal{Propose(fromZero(20000, 15000))}, replicas: 0},
		"27a: and without a metric that sees demand":                   {spec: 0, max: 5, scaledToZero: true, proposals: []Proposal{{Replicas: 3}}, replicas: 0},
		"27b: 0 replicas grow if the autoscaler set them":              {spec: 0, max: 5, scaledToZero: true, canSeeZero: true, proposals: []Proposal{Propose(fromZero(20000, 15000))}, replicas: 2},
		"27c: from 0 there is no tolerance":                            {spec: 0, max: 5, scaledToZero: true, canSeeZero: true, proposals: []Proposal{Propose(fromZero(1000, 1000))}, replicas: 1},
		"27: from 0 no demand stays 0":                                 {spec: 0, max: 5, scaledToZero: true, canSeeZero: true, proposals: []Proposal{Propose(fromZero(0, 1000))}, replicas: 0},
		"27: from 0 per pod":                                           {spec: 0, max: 5, scaledToZero: true, canSeeZero: true, proposals: []Proposal{Propose(fact{metric: external(averageOf(1000)), values: []int64{2500}}.inputs())}, replicas: 3},
		"27: from 0 cpu fails and holds nobody":                        {spec: 0, max: 5, scaledToZero: true, canSeeZero: true, proposals: []Proposal{failure, Propose(fromZero(20000, 15000))}, replicas: 2, err: "invalid metrics (1 invalid out of 2), first error is: unable to get metric qps: gone"},
		"27d: from 0 a minimum that was raised":                        {spec: 0, min: 2, max: 5, scaledToZero: true, proposals: []Proposal{Propose(fromZero(0, 1000))}, replicas: 2},
		"29a: one failed metric does not stop the way up":              {spec: 3, min: 1, max: 9, proposals: []Proposal{four, failure}, replicas: 4, err: "invalid metrics (1 invalid out of 2), first error is: unable to get metric qps: gone"},
		"29b: one failed metric stops the way down":                    {spec: 5, min: 1, max: 9, proposals: []Proposal{three, failure}, replicas: 5, held: true, err: "invalid metrics (1 invalid out of 2), first error is: unable to get metric qps: gone"},
		"29: all failed: kept":                                         {spec: 5, min: 1, max: 9, proposals: []Proposal{failure, failure}, replicas: 5, held: true, err: "invalid metrics (2 invalid out of 2), first error is: unable to get metric qps: gone"},
		"29: one failed, the other at the count there is":              {spec: 4, min: 1, max: 9, proposals: []Proposal{failure, four}, replicas: 4, err: "invalid metrics (1 invalid out of 2), first error is: unable to get metric qps: gone"},
		"the largest wins":                                             {spec: 5, min: 1, max: 9, proposals: []Proposal{three, four}, replicas: 4},
		"an overflow below 0 is 0":                                     {spec: 5, min: 0, max: 9, proposals: []Proposal{{Replicas: math.MinInt32}}, replicas: 0},
		"nothing that is asked for: kept":                              {spec: 5, min: 1, max: 9, replicas: 5, held: true},
		"27: 0 replicas stay though the minimum is above, by a person": {spec: 0, min: 2, max: 5, replicas: 0},
	} {
		t.Run(name, func(t *testing.T) {
			replicas, ask := Gate(test.spec, test.min, test.max, test.scaledToZero, test.canSeeZero)
			out := Outcome{}
			if ask {
				out = Desired(test.proposals, test.spec)
				replicas = max(test.min, min(out.Replicas, test.max))
			}
			if replicas != test.replicas || out.Held != test.held || (out.Err != nil) != (test.err != "") {
				t.Errorf("%d replicas, %+v; want %d, held %t, error %q", replicas, out, test.replicas, test.held, test.err)
			}
			if out.Err != nil && !strings.Contains(out.Err.Error(), test.err) {
				t.Errorf("error %v, want %s", out.Err, test.err)
			}
			if out.Held != (out.Winner < 0) && ask {
				t.Errorf("winner %d", out.Winner)
			}
		})
	}
}
