// Package oracle asks kube-controller-manager's own ReplicaCalculator: cases come as JSON lines on stdin, its results go as JSON lines to
// stdout. It stands in this module because the product must not depend on k8s.io/kubernetes, and is a test because only those
// can stop the clock that the calculator reads. portraits/reactive builds it, runs it and compares.
package oracle

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"reflect"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/kubernetes/pkg/controller/podautoscaler"
	"k8s.io/kubernetes/pkg/controller/podautoscaler/metrics"
)

// These mirror the types in portraits/reactive/oracle_test.go, which say what the fields mean.
type (
	question struct {
		Kind, Resource, Container string
		Asked                     []asked
		Init, Delay               int64
		Labeled                   bool
		Pods                      []pod
		Samples                   []sample
		Values                    []int64
		Error                     string
	}
	asked struct {
		Target       int64
		Spec, Status int32
		Up, Down     float64
	}
	pod struct {
		Name, Phase, Ready string
		Deleting           bool
		Since, Started     *int64
		Containers         []container
		Own, Overhead      map[string]int64
	}
	container struct {
		Name         string
		Init, Always bool
		Request      *int64
	}
	sample struct {
		Pod               string
		Milli, At, Window int64
	}
	answer struct {
		Replicas, Percent int32
		Usage             int64
		Error             string
	}
)

const namespace = "shop"

func TestAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, out := json.NewDecoder(bufio.NewReaderSize(os.Stdin, 1<<16)), bufio.NewWriter(os.Stdout)
		defer out.Flush()
		enc := json.NewEncoder(out)
		for {
			var q question
			if err := in.Decode(&q); errors.Is(err, io.EOF) {
				return
			} else if err != nil {
				t.Fatal(err)
			}
			if err := enc.Encode(q.answers(t.Context())); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func (q *question) answers(ctx context.Context) []answer {
	pods := make(lister, len(q.Pods))
	for i := range pods {
		pods[i] = q.Pods[i].object()
	}
	calc := podautoscaler.NewReplicaCalculator(q, pods, time.Duration(q.Init)*time.Millisecond, time.Duration(q.Delay)*time.Millisecond)
	answers := make([]answer, len(q.Asked))
	for i, a := range q.Asked {
		answers[i] = q.answer(ctx, calc, a)
	}
	return answers
}

func (q *question) answer(ctx context.Context, calc *podautoscaler.ReplicaCalculator, asked asked) (a answer) {
	tolerances, all, name := tolerances(asked.Up, asked.Down), labels.Everything(), corev1.ResourceName(q.Resource)
	object := &autoscalingv2.CrossVersionObjectReference{Kind: "Service", Name: "cart", APIVersion: "v1"}
	var selector *metav1.LabelSelector
	if q.Labeled {
		selector = &metav1.LabelSelector{MatchLabels: map[string]string{"queue": "orders"}}
	}
	var err error
	switch q.Kind {
	case "utilization":
		a.Replicas, a.Percent, a.Usage, _, err = calc.GetResourceReplicas(ctx, asked.Spec, int32(asked.Target), name, tolerances, namespace, all, q.Container)
	case "resource":
		a.Replicas, a.Usage, _, err = calc.GetRawResourceReplicas(ctx, asked.Spec, asked.Target, name, tolerances, namespace, all, q.Container)
	case "pods":
		a.Replicas, a.Usage, _, err = calc.GetMetricReplicas(asked.Spec, asked.Target, "qps", tolerances, namespace, all, all)
	case "objectValue":
		a.Replicas, a.Usage, _, err = calc.GetObjectMetricReplicas(asked.Spec, asked.Target, "qps", tolerances, namespace, object, all, all)
	case "objectAverage":
		a.Replicas, a.Usage, _, err = calc.GetObjectPerPodMetricReplicas(asked.Status, asked.Target, "qps", tolerances, namespace, object, all)
	case "externalValue":
		a.Replicas, a.Usage, _, err = calc.GetExternalMetricReplicas(asked.Spec, asked.Target, "qps", tolerances, namespace, selector, all)
	case "externalAverage":
		a.Replicas, a.Usage, _, err = calc.GetExternalPerPodMetricReplicas(asked.Status, asked.Target, "qps", tolerances, namespace, selector)
	default:
		panic("unknown kind " + q.Kind)
	}
	if err != nil {
		return answer{Error: err.Error()}
	}
	return a
}

// tolerances sets the fields that the calculator's package keeps to itself.
func tolerances(up, down float64) (t podautoscaler.Tolerances) {
	for name, v := range map[string]float64{"scaleUp": up, "scaleDown": down} {
		field := reflect.ValueOf(&t).Elem().FieldByName(name)
		reflect.NewAt(field.Type(), unsafe.Pointer(field.UnsafeAddr())).Elem().SetFloat(v)
	}
	return t
}

func at(ms int64) time.Time { return time.Now().Add(time.Duration(ms) * time.Millisecond) }

// The question is its own metrics client, with the real one's words for no metrics.

func (q *question) perPod(none string) (metrics.PodMetricsInfo, time.Time, error) {
	if q.Error != "" {
		return nil, time.Time{}, errors.New(q.Error)
	}
	if len(q.Samples) == 0 {
		return nil, time.Time{}, errors.New(none)
	}
	info := metrics.PodMetricsInfo{}
	for _, s := range q.Samples {
		info[s.Pod] = metrics.PodMetric{Value: s.Milli, Timestamp: at(s.At), Window: time.Duration(s.Window) * time.Millisecond}
	}
	return info, time.Now(), nil
}

func (q *question) GetResourceMetric(context.Context, corev1.ResourceName, string, labels.Selector, string) (metrics.PodMetricsInfo, time.Time, error) {
	return q.perPod("no metrics returned from resource metrics API")
}

func (q *question) GetRawMetric(string, string, labels.Selector, labels.Selector) (metrics.PodMetricsInfo, time.Time, error) {
	return q.perPod("no metrics returned from custom metrics API")
}

func (q *question) GetObjectMetric(string, string, *autoscalingv2.CrossVersionObjectReference, labels.Selector) (int64, time.Time, error) {
	if q.Error != "" {
		return 0, time.Time{}, errors.New(q.Error)
	}
	return q.Values[0], time.Now(), nil
}

func (q *question) GetExternalMetric(string, string, labels.Selector) ([]int64, time.Time, error) {
	if q.Error != "" {
		return nil, time.Time{}, errors.New(q.Error)
	}
	if len(q.Values) == 0 {
		return nil, time.Time{}, errors.New("no metrics returned from external metrics API")
	}
	return q.Values, time.Now(), nil
}

type lister []*corev1.Pod

func (l lister) Pods(string) corelisters.PodNamespaceLister { return l }

func (l lister) List(labels.Selector) ([]*corev1.Pod, error) { return l, nil }

func (l lister) Get(string) (*corev1.Pod, error) {
	return nil, errors.New("the calculator gets no single pod")
}

func requests(of map[string]int64) corev1.ResourceList {
	list := corev1.ResourceList{}
	for name, milli := range of {
		list[corev1.ResourceName(name)] = *resource.NewMilliQuantity(milli, resource.DecimalSI)
	}
	return list
}

func (p *pod) object() *corev1.Pod {
	o := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: p.Name}, Status: corev1.PodStatus{Phase: corev1.PodPhase(p.Phase)}}
	if p.Deleting {
		o.DeletionTimestamp = &metav1.Time{Time: at(0)}
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
