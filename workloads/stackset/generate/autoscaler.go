package generate

import (
	"cmp"
	"crypto/sha1" //nolint:gosec // names, not secrets: upstream's wire contract
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	zalando "github.com/kubetide/kubetide/api/zalando/v1"
	"github.com/kubetide/kubetide/scaler/prescale"
)

// Autoscaler returns the HorizontalPodAutoscaler for a Stack that gets so many percent of the traffic; nil if there should be none, as for
// one that has an IHPA. A mistake in one metric fails all of it.
func (s Source) Autoscaler(weight int, held prescale.State, scaledDown bool) (*autoscalingv2.HorizontalPodAutoscaler, error) {
	if _, other := s.Stack.Annotations[IHPAAnnotation]; other {
		return nil, nil
	}
	return s.hpa(weight, held, scaledDown)
}

func (s Source) hpa(weight int, held prescale.State, scaledDown bool) (*autoscalingv2.HorizontalPodAutoscaler, error) {
	spec := s.Stack.Spec.Autoscaler.DeepCopy()
	if spec == nil || scaledDown || s.Forwarded() {
		return nil, nil
	}
	metrics := Sorted(spec.Metrics)
	names := podMetricNames(metrics)
	annotations := map[string]string{}
	hpa := &autoscalingv2.HorizontalPodAutoscaler{
		TypeMeta: metav1.TypeMeta{APIVersion: "autoscaling/v2", Kind: "HorizontalPodAutoscaler"},
		Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: s.Stack.Name},
			MinReplicas:    held.MinReplicas(spec.MinReplicas, spec.MaxReplicas),
			MaxReplicas:    spec.MaxReplicas,
			Behavior:       spec.Behavior,
		},
	}
	rates := 0
	for i, m := range metrics {
		if m.Type == zalando.RequestsPerSecondMetric {
			rates++
		}
		one, more, err := s.metric(m, i, names[i], rates, weight)
		if err != nil {
			return nil, fmt.Errorf("autoscaler metric of type %s: %w", m.Type, err)
		}
		hpa.Spec.Metrics = append(hpa.Spec.Metrics, one)
		maps.Copy(annotations, more)
	}
	hpa.ObjectMeta = s.meta(s.Stack.Name, annotations)
	return hpa, nil
}

// metric returns the metric of the given place in the sorted list with its annotations. rate counts those of type RequestsPerSecond.
func (s Source) metric(m zalando.AutoscalerMetrics, i int, podName string, rate, weight int) (autoscalingv2.MetricSpec, map[string]string, error) {
	none := autoscalingv2.MetricSpec{}
	perPod := autoscalingv2.MetricTarget{Type: autoscalingv2.AverageValueMetricType, AverageValue: m.Average}
	external := func(name string, labels map[string]string) autoscalingv2.MetricSpec {
		return autoscalingv2.MetricSpec{Type: autoscalingv2.ExternalMetricSourceType, External: &autoscalingv2.ExternalMetricSource{
			Metric: autoscalingv2.MetricIdentifier{Name: name, Selector: &metav1.LabelSelector{MatchLabels: labels}}, Target: perPod}}
	}
	object := func(apiVersion, kind, name string, metric autoscalingv2.MetricIdentifier) autoscalingv2.MetricSpec {
		return autoscalingv2.MetricSpec{Type: autoscalingv2.ObjectMetricSourceType, Object: &autoscalingv2.ObjectMetricSource{
			DescribedObject: autoscalingv2.CrossVersionObjectReference{APIVersion: apiVersion, Kind: kind, Name: name}, Metric: metric, Target: perPod}}
	}
	switch m.Type {
	case zalando.CPUMetric, zalando.MemoryMetric:
		if m.AverageUtilization == nil {
			return none, nil, errors.New("utilization is not specified")
		}
		name := corev1.ResourceCPU
		if m.Type == zalando.MemoryMetric {
			name = corev1.ResourceMemory
		}
		target := autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: m.AverageUtilization}
		if m.Container != "" {
			return autoscalingv2.MetricSpec{Type: autoscalingv2.ContainerResourceMetricSourceType,
				ContainerResource: &autoscalingv2.ContainerResourceMetricSource{Name: name, Container: m.Container, Target: target}}, nil, nil
		}
		return autoscalingv2.MetricSpec{Type: autoscalingv2.ResourceMetricSourceType,
			Resource: &autoscalingv2.ResourceMetricSource{Name: name, Target: target}}, nil, nil
	case zalando.AmazonSQSMetric:
		if m.Average == nil {
			return none, nil, errors.New("average not specified")
		}
		if m.Queue == nil || m.Queue.Name == "" || m.Queue.Region == "" {
			return none, nil, errors.New("queue not specified correctly")
		}
		return external(fmt.Sprintf("sqs-queue-len-%d", i),
			map[string]string{"type": "sqs-queue-length", "queue-name": m.Queue.Name, "region": m.Queue.Region}), nil, nil
	case zalando.PodJSONMetric:
		if m.Average == nil {
			return none, nil, errors.New("average not specified")
		}
		if e := m.Endpoint; e == nil || e.Port == 0 || e.Path == "" || e.Key == "" || podName == "" {
			return none, nil, errors.New("the metrics endpoint is not specified correctly")
		}
		key := "metric-config.pods." + podName + ".json-path/"
		return autoscalingv2.MetricSpec{Type: autoscalingv2.PodsMetricSourceType, Pods: &autoscalingv2.PodsMetricSource{
				Metric: autoscalingv2.MetricIdentifier{Name: podName}, Target: perPod}},
			map[string]string{key + "json-key": m.Endpoint.Key, key + "path": m.Endpoint.Path, key + "port": strconv.Itoa(int(m.Endpoint.Port))}, nil
	case zalando.IngressMetric, zalando.RouteGroupMetric:
		if m.Average == nil {
			return none, nil, errors.New("average value not specified for metric")
		}
		if m.Type == zalando.IngressMetric {
			// The backend's name stands behind a comma: the old form, which needs no selector.
			return object("networking.k8s.io/v1", "Ingress", s.Stack.Name+SegmentSuffix,
				autoscalingv2.MetricIdentifier{Name: "requests-per-second," + s.Stack.Name}), nil, nil
		}
		return object(zalando.SchemeGroupVersion.String(), zalando.RouteGroupKind, s.Stack.Name+SegmentSuffix, autoscalingv2.MetricIdentifier{
			Name: "requests-per-second", Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"backend": s.Stack.Name}}}), nil, nil
	case zalando.RequestsPerSecondMetric:
		if m.Average == nil {
			return none, nil, errors.New("RequestsPerSecond value not specified for metric")
		}
		if m.RequestsPerSecond == nil || len(m.RequestsPerSecond.Hostnames) == 0 {
			return none, nil, errors.New("RequestsPerSecond.hostnames value not specified for metric")
		}
		hosts := strings.Join(m.RequestsPerSecond.Hostnames, ",")
		name := s.Stack.Name + "-rps"
		if rate > 1 { // upstream gives all of them one name, and the last one's hosts
			name += "-" + digest(hosts)[:8]
		}
		key := "metric-config.external." + name + ".requests-per-second/"
		return external(name, map[string]string{"type": "requests-per-second"}),
			map[string]string{key + "hostnames": hosts, key + "weight": strconv.Itoa(weight)}, nil
	case zalando.ZMONMetric:
		if m.ZMON == nil {
			return none, nil, errors.New("missing ZMON metric definition")
		}
		if m.Average == nil {
			return none, nil, errors.New("average not specified")
		}
		name := fmt.Sprintf("zmon-check-%d", i)
		labels := map[string]string{"type": "zmon", "check-id": m.ZMON.CheckID, "duration": cmp.Or(m.ZMON.Duration, "5m"),
			"stack": digest(s.Stack.Namespace + "-" + s.Stack.Name)}
		if len(m.ZMON.Aggregators) > 0 {
			var how []string
			for _, a := range m.ZMON.Aggregators {
				how = append(how, string(a))
			}
			labels["aggregators"] = strings.Join(how, ",")
		}
		key := "metric-config.external." + name + ".zmon/"
		annotations := map[string]string{key + "key": m.ZMON.Key}
		for tag, value := range m.ZMON.Tags {
			annotations[key+"tag-"+tag] = value
		}
		return external(name, labels), annotations, nil
	case zalando.ScalingScheduleMetric, zalando.ClusterScalingScheduleMetric:
		schedule := m.ScalingSchedule
		if m.Type == zalando.ClusterScalingScheduleMetric {
			schedule = m.ClusterScalingSchedule
		}
		switch {
		case schedule == nil:
			return none, nil, errors.New("missing (Cluster)ScalingSchedule metric definition")
		case schedule.Name == "":
			return none, nil, errors.New("missing (Cluster)ScalingSchedule object name")
		case m.Average == nil:
			return none, nil, errors.New("average not specified")
		}
		return object(zalando.SchemeGroupVersion.String(), string(m.Type), schedule.Name, autoscalingv2.MetricIdentifier{Name: schedule.Name}), nil, nil
	}
	return none, nil, fmt.Errorf("metric type %s not supported", m.Type)
}

// Sorted returns copies of the metrics in the order in which the autoscaler has them, whatever that of the spec: names of some hold their
// place.
func Sorted(metrics []zalando.AutoscalerMetrics) []zalando.AutoscalerMetrics {
	out := make([]zalando.AutoscalerMetrics, len(metrics))
	for i := range metrics {
		metrics[i].DeepCopyInto(&out[i])
		if out[i].Type == zalando.PodJsonMetric {
			out[i].Type = zalando.PodJSONMetric
		}
	}
	slices.SortStableFunc(out, func(a, b zalando.AutoscalerMetrics) int {
		return cmp.Or(
			cmp.Compare(a.Type, b.Type),
			absentFirst(a.Average, b.Average, func(x, y *resource.Quantity) int { return x.Cmp(*y) }),
			absentFirst(a.AverageUtilization, b.AverageUtilization, func(x, y *int32) int { return cmp.Compare(*x, *y) }),
			cmp.Compare(a.Container, b.Container),
			absentFirst(a.Queue, b.Queue, func(x, y *zalando.MetricsQueue) int {
				return cmp.Or(cmp.Compare(x.Name, y.Name), cmp.Compare(x.Region, y.Region))
			}),
			absentFirst(a.Endpoint, b.Endpoint, func(x, y *zalando.MetricsEndpoint) int {
				return cmp.Or(cmp.Compare(x.Name, y.Name), cmp.Compare(x.Key, y.Key), cmp.Compare(x.Path, y.Path))
			}),
			absentFirst(a.ZMON, b.ZMON, func(x, y *zalando.MetricsZMON) int { return cmp.Compare(x.CheckID, y.CheckID) }),
			absentFirst(a.RequestsPerSecond, b.RequestsPerSecond, func(x, y *zalando.MetricsRequestsPerSecond) int {
				return cmp.Compare(strings.Join(x.Hostnames, ","), strings.Join(y.Hostnames, ","))
			}),
			absentFirst(a.ClusterScalingSchedule, b.ClusterScalingSchedule, byName),
			absentFirst(a.ScalingSchedule, b.ScalingSchedule, byName),
		)
	})
	return out
}

func byName(a, b *zalando.MetricsScalingSchedule) int { return cmp.Compare(a.Name, b.Name) }

func absentFirst[T any](a, b *T, compare func(a, b *T) int) int {
	switch {
	case a == nil && b == nil:
		return 0
	case a == nil:
		return -1
	case b == nil:
		return 1
	}
	return compare(a, b)
}

var noSlug = regexp.MustCompile(`[^a-z0-9]+`)

// podMetricNames returns the name of each PodJSON metric: the one given, or made from the key. A name that is taken gets -2, -3, ...
func podMetricNames(metrics []zalando.AutoscalerMetrics) []string {
	names := make([]string, len(metrics))
	taken := map[string]bool{}
	for i, m := range metrics {
		if m.Type == zalando.PodJSONMetric && m.Endpoint != nil && m.Endpoint.Name != "" {
			names[i] = m.Endpoint.Name
			taken[names[i]] = true
		}
	}
	for i, m := range metrics {
		if m.Type != zalando.PodJSONMetric || m.Endpoint == nil || names[i] != "" {
			continue
		}
		slug := strings.Trim(noSlug.ReplaceAllString(strings.ToLower(m.Endpoint.Key), "-"), "-")
		name := slug
		for n := 2; slug != "" && taken[name]; n++ {
			name = fmt.Sprintf("%s-%d", slug, n)
		}
		names[i], taken[name] = name, true
	}
	return names
}

func digest(text string) string {
	sum := sha1.Sum([]byte(text)) //nolint:gosec // see above
	return hex.EncodeToString(sum[:])
}
