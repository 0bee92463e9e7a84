package reactive

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The oracle is kube-controller-manager's own calculator, built from the lab's module. Instants are milliseconds from now.
type (
	question struct {
		// Kind is utilization, resource, pods, objectValue, objectAverage, externalValue or externalAverage.
		Kind string
		// Resource and Container are those of the first two; Container may be empty.
		Resource, Container string `json:",omitempty"`
		// Asked are the targets, replicas and tolerances that are asked for with these pods and values.
		Asked []asked
		// Init and Delay are the cpu initialization period and the initial readiness delay.
		Init, Delay int64
		// Labeled external metrics have a selector, which their errors print.
		Labeled bool        `json:",omitempty"`
		Pods    []askedPod  `json:",omitempty"`
		Samples []podSample `json:",omitempty"`
		Values  []int64     `json:",omitempty"`
		Error   string      `json:",omitempty"`
	}
	asked struct {
		Target       int64
		Spec, Status int32
		Up, Down     float64
	}
	askedPod struct {
		Name, Phase string
		// Ready is the condition's status if Since is set, else there is no condition.
		Ready          string           `json:",omitempty"`
		Deleting       bool             `json:",omitempty"`
		Since, Started *int64           `json:",omitempty"`
		Containers     []askedContainer `json:",omitempty"`
		// Own and Overhead are the pod's own requests and its overhead; containers request as much cpu as memory.
		Own, Overhead map[string]int64 `json:",omitempty"`
	}
	askedContainer struct {
		Name         string
		Init, Always bool   `json:",omitempty"`
		Request      *int64 `json:",omitempty"`
	}
	podSample struct {
		Pod        string
		Milli      int64
		At, Window int64
	}
	answer struct {
		Replicas, Percent int32
		Usage             int64
		Error             string
	}
)

// variants is how many answers are asked for with the same pods and values: sending these costs more than computing.
const variants = 8

// TestTheControllerAnswersTheSame asks both a million times. It needs no lab, only Go and the modules that the lab is built from.
func TestTheControllerAnswersTheSame(t *testing.T) {
	questions := 1_000_000
	if testing.Short() {
		questions = 20_000
	}
	binary := filepath.Join(t.TempDir(), "oracle")
	build := exec.Command("go", "test", "-c", "-o", binary, "./oracle")
	build.Dir = filepath.Join("..", "..", "test", "lab", "build", "kubernetes")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("the oracle cannot be built: %v\n%s", err, out)
	}
	const workers = 2
	var wait sync.WaitGroup
	var mu sync.Mutex
	seen := map[string]int{}
	for seed := range uint64(workers) {
		wait.Go(func() {
			classes, err := compare(binary, seed, questions/workers)
			mu.Lock()
			defer mu.Unlock()
			for class, n := range classes {
				seen[class] += n
			}
			if err != nil {
				t.Errorf("seed %d: %v", seed, err)
			}
		})
	}
	wait.Wait()
	t.Logf("%d questions: %v", questions, seen)
	// A generator that misses a branch would prove nothing about it.
	for _, class := range []string{"up", "down", "kept", "overflow", "missing", "unready", "superfluous", "from zero", "assumed", "tolerance's bound"} {
		if seen[class] < questions/500 {
			t.Errorf("%d of %d questions are of the class %q: too few", seen[class], questions, class)
		}
	}
	for _, text := range []string{"no metrics returned from resource", "no metrics returned from external", "no pods returned", "did not receive", "missing request", "missing pod-level request", "not found in Pod", "matched known pods", "unable to calculate ready pods", "gone"} {
		if seen["error: "+text] == 0 {
			t.Errorf("no question has the error %q", text)
		}
		delete(seen, "error: "+text)
	}
	for class := range seen {
		if strings.HasPrefix(class, "error: ") {
			t.Errorf("the test does not know the class %q", class)
		}
	}
}

// compare sends questions to an oracle and holds its answers against ours; it stops at the tenth difference.
func compare(binary string, seed uint64, questions int) (map[string]int, error) {
	cmd := exec.Command(binary, "-test.run", "^TestAnswer$")
	cmd.Env = append(os.Environ(), "GOGC=800")
	cmd.Stderr = &bytes.Buffer{}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	sent := make(chan question, 4096) // more than both sides' buffers hold
	stop := make(chan struct{})
	go func() {
		defer close(sent)
		defer stdin.Close()
		out := bufio.NewWriterSize(stdin, 1<<16)
		defer out.Flush()
		r, enc := rand.New(rand.NewPCG(seed, 0)), json.NewEncoder(out)
		for range questions / variants {
			q := ask(r)
			if enc.Encode(q) != nil {
				return // the reader learns why
			}
			select {
			case sent <- q:
			case <-stop:
				return
			}
		}
	}()
	classes, answers, differences := map[string]int{}, json.NewDecoder(bufio.NewReaderSize(stdout, 1<<16)), []error{}
	count := 0
	for q := range sent {
		var theirs []answer
		if err := answers.Decode(&theirs); err != nil {
			differences = append(differences, fmt.Errorf("after %d answers: %w", count, err))
			break
		}
		in := q.inputs()
		for i, theirs := range theirs {
			count++
			q.variant(&in, i)
			p := Propose(in)
			classify(classes, in, p)
			ours := answer{Replicas: p.Replicas, Percent: p.Percent, Usage: p.Usage}
			if p.Err != nil {
				ours = answer{Error: p.Err.Error()}
			}
			if strings.HasPrefix(q.Kind, "object") && q.Error != "" && ours.Error != "" {
				theirs.Error = ours.Error // the controller's text mixes up its arguments: "unable to get metric qps: Service on shop cart/gone"
			}
			if ours == theirs || p.Overflow && runtime.GOARCH != "amd64" {
				continue
			}
			one := q
			one.Asked = q.Asked[i : i+1]
			data, _ := json.Marshal(one)
			differences = append(differences, fmt.Errorf("ours %+v (%s), the controller's %+v, for\n%s", ours, p.Reason, theirs, data))
		}
		if len(differences) >= 10 {
			break
		}
	}
	close(stop)
	if len(differences) > 0 {
		_ = cmd.Process.Kill()
	} else if count != questions {
		differences = append(differences, fmt.Errorf("%d answers to %d questions", count, questions))
	}
	for range sent { // until the writer has ended
	}
	if err := cmd.Wait(); err != nil {
		differences = append(differences, fmt.Errorf("the oracle: %w\n%s", err, cmd.Stderr))
	}
	return classes, errors.Join(differences...)
}

// classify counts what the questions were like.
func classify(classes map[string]int, in Inputs, p Proposal) {
	if p.Err != nil {
		for _, text := range []string{"no metrics returned from resource", "no metrics returned from external", "unable to calculate ready pods", "no pods returned", "did not receive", "missing request", "missing pod-level request", "not found in Pod", "matched known pods", "gone"} {
			if strings.Contains(p.Err.Error(), text) {
				classes["error: "+text]++
				return
			}
		}
		if strings.Contains(p.Err.Error(), "no metrics returned from custom") {
			return
		}
		classes["error: "+p.Err.Error()]++
		return
	}
	for _, c := range [...]struct {
		class string
		is    bool
	}{
		{"up", p.Replicas > in.SpecReplicas},
		{"down", p.Replicas < in.SpecReplicas},
		{"kept", p.Replicas == in.SpecReplicas},
		{"overflow", p.Overflow},
		{"missing", p.Missing > 0},
		{"unready", p.Unready > 0},
		{"superfluous", len(in.Samples) > p.Ready+p.Unready+p.Ignored},
		{"from zero", in.SpecReplicas == 0},
		{"assumed", p.Assumed != p.Ratio},
		{"tolerance's bound", p.Assumed == 1+in.Tolerance.Up || p.Assumed == 1-in.Tolerance.Down},
	} {
		if c.is {
			classes[c.class]++
		}
	}
}

func pick[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

// often returns common most of the time.
func often[T any](r *rand.Rand, percent int, common T, rare ...T) T {
	if r.IntN(100) < percent {
		return common
	}
	return pick(r, rare...)
}

// ask makes a question in which edges are common: ratios on and beside the tolerance's bounds, instants on and beside each other, pods
// that are missing, unready, gone; numbers that are 0, negative, or too large.
func ask(r *rand.Rand) question {
	kinds := []string{"utilization", "utilization", "utilization", "utilization", "resource", "pods", "objectValue", "objectAverage", "externalValue", "externalAverage"}
	q := question{Kind: pick(r, kinds...), Init: often[int64](r, 80, 300_000, 0, 1000), Delay: often[int64](r, 80, 30_000, 0, 1000), Labeled: r.IntN(2) == 0}
	count := r.IntN(7)
	first := askFor(r, q.Kind, count)
	if r.IntN(200) == 0 {
		q.Error = "gone"
	}
	ratio := pick(r, 1, 1+first.Up, 1-first.Down, 3*r.Float64(), 3*r.Float64(), r.Float64(), 0)
	q.Asked = append(q.Asked, first)
	for len(q.Asked) < variants {
		next := askFor(r, q.Kind, count)
		if r.IntN(10) > 0 { // beside a bound of its own tolerance
			shift := pick(r, 1+next.Up, 1-next.Down, 3*r.Float64())
			next.Target = int64(float64(first.Target)*ratio/max(shift, .01)) + pick[int64](r, 0, 0, 1, -1)
			if q.Kind == "utilization" {
				next.Target = int64(int32(max(-1, min(next.Target, math.MaxInt32))))
			}
		}
		q.Asked = append(q.Asked, next)
	}
	switch q.Kind {
	case "utilization", "resource", "pods":
		q.askPods(r, count, ratio*float64(first.Target))
		return q
	}
	for i := range count {
		q.Pods = append(q.Pods, askPod(r, i, q.Init, q.Delay, 30, nil))
	}
	total := ratio * float64(first.Target)
	if strings.HasSuffix(q.Kind, "Average") {
		total *= float64(max(1, first.Status))
	}
	sum := int64(max(math.MinInt64, min(total, math.MaxInt64>>1))) + pick(r, 0, 0, 1, -1, r.Int64N(100))
	q.Values = []int64{often(r, 93, sum, 0, 1, -500, math.MaxInt64, math.MinInt64, r.Int64(), r.Int64()>>r.IntN(63))}
	if strings.HasPrefix(q.Kind, "external") {
		for range r.IntN(3) {
			part := often(r, 90, r.Int64N(max(1, q.Values[0]>>1)+1), -500, math.MaxInt64, math.MinInt64, -r.Int64())
			q.Values[0] -= part
			q.Values = append(q.Values, part)
		}
		if r.IntN(100) == 0 {
			q.Values = nil
		}
	}
	return q
}

func askFor(r *rand.Rand, kind string, pods int) asked {
	a := asked{Up: .1, Down: .1, Spec: often(r, 60, int32(pods), 0, 1, 2, int32(r.IntN(12)), int32(r.IntN(12)), math.MaxInt32)}
	if r.IntN(2) == 0 {
		a.Up, a.Down = pick(r, 0, .01, .05, .5, 2, r.Float64()), pick(r, 0, .01, .05, .5, 1, 2, r.Float64())
	}
	a.Status = often(r, 60, a.Spec, int32(pods), 0, int32(r.IntN(12)))
	if kind == "utilization" {
		a.Target = often(r, 90, pick(r, 30, 50, 80, 100, 150, 300, int64(r.IntN(200))), 0, 1, -5, math.MaxInt32)
	} else {
		a.Target = often(r, 85, pick(r, 1000, 5000, 20000, 1+r.Int64N(1_000_000)), 0, 1, -1000, math.MaxInt64, math.MinInt64, r.Int64())
	}
	return a
}

// askPods adds pods, and samples of about the usage: percent of the request for a utilization.
func (q *question) askPods(r *rand.Rand, count int, usage float64) {
	q.Resource = "cpu"
	if q.Kind != "pods" && r.IntN(4) == 0 {
		q.Resource = "memory"
	}
	if q.Kind == "utilization" {
		q.Container = often(r, 80, "", "c1", "c1", "c1", "side", "none")
	}
	missing, strange := pick(r, 0, 0, 20, 50), pick(r, 0, 20, 50, 100)
	request := often(r, 97, pick(r, 100, 1000, 250, 1+r.Int64N(3000)), 0, -100, math.MaxInt64/4, math.MaxInt64/200)
	same := r.IntN(2) == 0
	for i := range count {
		p := askPod(r, i, q.Init, q.Delay, strange, &request)
		q.Pods = append(q.Pods, p)
		if r.IntN(100) < missing {
			continue
		}
		usage := usage
		if !same {
			usage *= 2 * r.Float64()
		}
		if q.Kind == "utilization" {
			perPod := float64(request) // the pod's containers differ, seldom
			if q.Container == "" {
				perPod *= float64(max(1, len(p.Containers)))
			}
			usage *= perPod / 100
		}
		s := podSample{Pod: p.Name, Window: pick[int64](r, 0, 15_000, 60_000), At: -r.Int64N(120_000)}
		s.Milli = int64(max(math.MinInt64, min(usage, math.MaxInt64>>1))) + pick[int64](r, 0, 0, 0, 1, -1, r.Int64N(30))
		s.Milli = often(r, 99, s.Milli, 0, -1000, math.MaxInt64, math.MaxInt64/50, r.Int64())
		if p.Since != nil && r.IntN(2) == 0 {
			s.At = *p.Since + s.Window + pick[int64](r, 0, 0, -1, 1)
		}
		q.Samples = append(q.Samples, s)
	}
	if r.IntN(15) == 0 {
		q.Samples = append(q.Samples, podSample{Pod: "stranger", Milli: r.Int64N(1_000_000)})
	}
}

func askPod(r *rand.Rand, i int, initial, delay int64, strange int, request *int64) askedPod {
	p := askedPod{Name: fmt.Sprintf("p%d", i), Phase: "Running", Ready: "True"}
	started := -time.Hour.Milliseconds()
	since := started + 5000
	if r.IntN(100) < strange {
		p.Phase = often(r, 70, "Running", "Pending", "Pending", "Failed", "Unknown", "Succeeded")
		p.Ready = pick(r, "True", "False", "False", "Unknown")
		p.Deleting = r.IntN(10) == 0
		started = pick(r, -initial, -initial-1, -initial+1, -r.Int64N(600_000), started)
		since = pick(r, started+delay, started+delay-1, started+delay+1, started+r.Int64N(max(1, -started)))
	}
	p.Started, p.Since = &started, &since
	if strange > 0 && r.IntN(30) == 0 {
		p.Started = nil
	}
	if strange > 0 && r.IntN(30) == 0 {
		p.Since, p.Ready = nil, ""
	}
	if request == nil {
		return p
	}
	p.Containers = []askedContainer{{Name: "c1", Request: request}}
	if r.IntN(3) == 0 {
		p.Containers = append(p.Containers, askedContainer{Name: "side", Init: r.IntN(2) == 0, Always: r.IntN(2) == 0, Request: request})
	}
	if r.IntN(8) == 0 {
		large := *request * 2
		p.Containers = append(p.Containers, askedContainer{Name: "init", Init: true, Always: r.IntN(3) == 0, Request: pick(r, &large, request, nil)})
	}
	if r.IntN(40) == 0 {
		p.Containers[0].Request = nil
	}
	if r.IntN(8) == 0 {
		p.Own = map[string]int64{pick(r, "cpu", "memory", "hugepages-2Mi", "hugepages-2Mi", "ephemeral-storage"): *request}
		if r.IntN(3) == 0 {
			p.Own["cpu"] = *request + r.Int64N(100)
		}
	}
	if r.IntN(10) == 0 {
		p.Overhead = map[string]int64{pick(r, "cpu", "memory"): r.Int64N(100)}
	}
	return p
}

// inputs is what all variants of the question have in common, as Propose is asked.
func (q *question) inputs() Inputs {
	at := func(ms int64) time.Time { return now.Add(time.Duration(ms) * time.Millisecond) }
	in := Inputs{
		Namespace: "shop", Values: q.Values, Now: now,
		CPUInitializationPeriod: time.Duration(q.Init) * time.Millisecond, InitialReadinessDelay: time.Duration(q.Delay) * time.Millisecond,
	}
	if q.Error != "" {
		in.Err = errors.New(q.Error)
	}
	pods := make([]*corev1.Pod, len(q.Pods))
	for i := range q.Pods {
		pods[i] = q.Pods[i].object(at)
	}
	q.variant(&in, 0)
	in.Pods = PodsFor(in.Metric, pods)
	in.Samples = make(map[string]Sample, len(q.Samples))
	for _, s := range q.Samples {
		in.Samples[s.Pod] = Sample{Milli: s.Milli, Time: at(s.At), Window: time.Duration(s.Window) * time.Millisecond}
	}
	return in
}

// variant sets what is asked for.
func (q *question) variant(in *Inputs, i int) {
	a := q.Asked[i]
	in.SpecReplicas, in.StatusReplicas, in.Tolerance = a.Spec, a.Status, Tolerance{Up: a.Up, Down: a.Down}
	switch percent := int32(a.Target); q.Kind {
	case "utilization", "resource":
		target := autoscalingv2.MetricTarget{AverageUtilization: &percent}
		if q.Kind == "resource" {
			target = averageOf(a.Target)
		}
		name := corev1.ResourceName(q.Resource)
		if q.Container == "" {
			in.Metric = autoscalingv2.MetricSpec{Type: "Resource", Resource: &autoscalingv2.ResourceMetricSource{Name: name, Target: target}}
		} else {
			in.Metric = autoscalingv2.MetricSpec{Type: "ContainerResource", ContainerResource: &autoscalingv2.ContainerResourceMetricSource{Name: name, Container: q.Container, Target: target}}
		}
	case "pods":
		in.Metric = perPodQPS(a.Target)
	case "objectValue":
		in.Metric = object(valueOf(a.Target))
	case "objectAverage":
		in.Metric = object(averageOf(a.Target))
	case "externalValue":
		in.Metric = external(valueOf(a.Target))
	case "externalAverage":
		in.Metric = external(averageOf(a.Target))
	}
	if in.Metric.Object != nil {
		in.Metric.Object.DescribedObject = autoscalingv2.CrossVersionObjectReference{Kind: "Service", Name: "cart", APIVersion: "v1"}
	}
	if in.Metric.External != nil && q.Labeled {
		in.Metric.External.Metric.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"queue": "orders"}}
	}
}

func requests(of map[string]int64) corev1.ResourceList {
	list := corev1.ResourceList{}
	for name, milli := range of {
		list[corev1.ResourceName(name)] = *resource.NewMilliQuantity(milli, resource.DecimalSI)
	}
	return list
}

func (p *askedPod) object(at func(int64) time.Time) *corev1.Pod {
	o := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: p.Name}, Status: corev1.PodStatus{Phase: corev1.PodPhase(p.Phase)}}
	if p.Deleting {
		o.DeletionTimestamp = &metav1.Time{Time: now}
	}
	if p.Started != nil {
		o.Status.StartTime = &metav1.Time{Time: at(*p.Started)}
	}
	if p.Since != nil {
		o.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionTrue}, {
			Type: corev1.PodReady, Status: corev1.ConditionStatus(p.Ready), LastTransitionTime: metav1.Time{Time: at(*p.Since)},
		}}
	}
	if p.Own != nil {
		o.Spec.Resources = &corev1.ResourceRequirements{Requests: requests(p.Own)}
	}
	if p.Overhead != nil {
		o.Spec.Overhead = requests(p.Overhead)
	}
	for _, c := range p.Containers {
		container := corev1.Container{Name: c.Name}
		if c.Request != nil {
			container.Resources.Requests = requests(map[string]int64{"cpu": *c.Request, "memory": *c.Request})
		}
		if c.Always {
			always := corev1.ContainerRestartPolicyAlways
			container.RestartPolicy = &always
		}
		if c.Init {
			o.Spec.InitContainers = append(o.Spec.InitContainers, container)
		} else {
			o.Spec.Containers = append(o.Spec.Containers, container)
		}
	}
	return o
}
