package adapter

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/kubetide/kubetide/collectors"
	"github.com/kubetide/kubetide/internal/sample"
)

// podNumbers gives each pod of the target the number in its name; it fails while broken, and hangs while hanging.
type podNumbers struct {
	pods    collectors.Pods
	scales  collectors.Scales
	broken  atomic.Bool
	hanging atomic.Bool
}

func (s *podNumbers) Keys() []string { return nil }

func (s *podNumbers) Parse(r collectors.Request) (sample.Query, error) {
	q := r.Query("numbers", nil)
	q.Target = r.Target
	return q, nil
}

func (s *podNumbers) Open(q sample.Query) (collectors.Collector, error) {
	return podNumbersOf{s, q}, nil
}

type podNumbersOf struct {
	*podNumbers
	query sample.Query
}

func (s podNumbersOf) Collect(ctx context.Context) ([]sample.Point, error) {
	if s.hanging.Load() {
		<-ctx.Done()
	}
	if s.broken.Load() {
		return nil, errors.New("connection refused")
	}
	scale, err := s.scales.Scale(ctx, s.query.Namespace, s.query.Target)
	if err != nil {
		return nil, err
	}
	pods, err := s.pods.Pods(s.query.Namespace, scale.Selector)
	if err != nil {
		return nil, err
	}
	var points []sample.Point
	for _, p := range pods {
		var number int64
		_, _ = fmt.Sscanf(p.Name, "web-%d", &number)
		points = append(points, sample.Point{Pod: p.Name, UID: p.UID, Labels: p.Labels, Milli: number})
	}
	return points, nil
}

func webPod(number int) *corev1.Pod {
	name := fmt.Sprintf("web-%d", number)
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID(name), Labels: map[string]string{"app": "web"}}}
}

func webDeployment() *appsv1.Deployment {
	replicas := int32(3)
	return &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"},
		Spec: appsv1.DeploymentSpec{Replicas: &replicas, Selector: &metav1.LabelSelector{
			MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "app", Operator: metav1.LabelSelectorOpIn, Values: []string{"web"}}}}},
		Status: appsv1.DeploymentStatus{Replicas: 2}}
}

func webHPA() *autoscalingv2.HorizontalPodAutoscaler {
	return &autoscalingv2.HorizontalPodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "hpa", Annotations: map[string]string{"metric-config.pods.n.numbers/interval": "10m"}},
		Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "web"},
			Metrics: []autoscalingv2.MetricSpec{{Type: autoscalingv2.PodsMetricSourceType,
				Pods: &autoscalingv2.PodsMetricSource{Metric: autoscalingv2.MetricIdentifier{Name: "n"}}}},
		}}
}

func until(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !condition(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// start runs an adapter against a fake API server with the source above.
func start(t *testing.T, client *fake.Clientset, change func(*Options), prepare func(*podNumbers)) *Adapter {
	t.Helper()
	ignore := goleak.IgnoreCurrent()
	o := Options{Log: logr.Discard(), WarmUp: 20 * time.Second}
	if change != nil {
		change(&o)
	}
	o = o.withDefaults()
	a, err := build(o, client, meta.NewDefaultRESTMapper(nil), nil)
	if err != nil {
		t.Fatal(err)
	}
	source := &podNumbers{pods: a.Pods(), scales: a.Scales()}
	if prepare != nil {
		prepare(source)
	}
	a.Registry().Register(sample.Pods, source, "numbers")
	a.Registry().Register(sample.External, twelve{source}, "twelve")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		goleak.VerifyNone(t, ignore)
	})
	return a
}

func (a *Adapter) values(t *testing.T) map[string]int64 {
	t.Helper()
	out := map[string]int64{}
	series, err := a.store.Pods("shop", "n", labels.SelectorFromSet(labels.Set{"app": "web"}), nil)
	if err != nil {
		return nil
	}
	for _, s := range series {
		for _, p := range s.Answer.Points {
			out[p.Pod] = p.Milli
		}
	}
	return out
}

func TestFromAnHPAToItsValues(t *testing.T) {
	registry := prometheus.NewRegistry()
	client := fake.NewClientset(webPod(1), webPod(2), webDeployment(), webHPA())
	a := start(t, client, func(o *Options) { o.Registerer = registry }, nil)
	until(t, "the adapter to be ready", func() bool { return a.Ready() == nil })
	if diff := cmp.Diff(map[string]int64{"web-1": 1, "web-2": 2}, a.values(t)); diff != "" {
		t.Errorf("once ready (-want +got):\n%s", diff)
	}
	if err := a.Healthy(); err != nil {
		t.Error(err)
	}
	err := testutil.GatherAndCompare(registry, strings.NewReader(`
# HELP kubetide_series Queries by what is known of them. Labeled by collector and state (Fresh, Fallback, Stale, Missing).
# TYPE kubetide_series gauge
kubetide_series{collector="numbers",state="Fresh"} 1
`), "kubetide_series")
	if err != nil {
		t.Error(err)
	}
	problems, err := testutil.GatherAndLint(registry)
	if err != nil || len(problems) > 0 {
		t.Errorf("metrics: %v, %v", problems, err)
	}

	if err := client.CoreV1().Pods("shop").Delete(t.Context(), "web-1", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	until(t, "the pod's value to go with it", func() bool { return cmp.Equal(map[string]int64{"web-2": 2}, a.values(t)) })

	if _, err := client.CoreV1().Pods("shop").Create(t.Context(), webPod(7), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	until(t, "the new pod's value", func() bool {
		a.Recollect(func(q sample.Query) bool { return q.Metric == "n" })
		return cmp.Equal(map[string]int64{"web-2": 2, "web-7": 7}, a.values(t))
	})

	if err := client.AutoscalingV2().HorizontalPodAutoscalers("shop").Delete(t.Context(), "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	until(t, "the values to go with the HPA", func() bool { return a.values(t) == nil })
	if len(a.demand) != 0 {
		t.Errorf("%d queries are still wanted", len(a.demand))
	}
}

// The HPA is there before its pods: their value comes when the first of them is ready, not on the interval.
func TestTheFirstValueComesWithTheFirstReadyPod(t *testing.T) {
	client := fake.NewClientset(webDeployment(), webHPA())
	a := start(t, client, nil, nil)
	until(t, "it to be collected without a pod", func() bool { return a.Ready() == nil })
	if got := a.values(t); len(got) != 0 {
		t.Fatalf("values %v without a pod", got)
	}
	other := webPod(2)
	other.Labels = map[string]string{"app": "other"}
	pod := webPod(1)
	for _, p := range []*corev1.Pod{other, pod} {
		if _, err := client.CoreV1().Pods("shop").Create(t.Context(), p, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	if _, err := client.CoreV1().Pods("shop").UpdateStatus(t.Context(), pod, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	until(t, "the pod's value", func() bool { return a.values(t)["web-1"] == 1 })
}

func TestAFailureIsAnEventOnTheHPA(t *testing.T) {
	client := fake.NewClientset(webPod(1), webDeployment(), webHPA())
	a := start(t, client, nil, func(s *podNumbers) { s.broken.Store(true) })
	until(t, "the adapter to be ready", func() bool { return a.Ready() == nil })
	until(t, "the Event", func() bool {
		events, err := client.CoreV1().Events("shop").List(t.Context(), metav1.ListOptions{})
		return err == nil && len(events.Items) == 1 && events.Items[0].Reason == "MetricCollectionFailed" &&
			events.Items[0].InvolvedObject.Name == "web" && events.Items[0].InvolvedObject.UID == "hpa" &&
			strings.Contains(events.Items[0].Message, `HPA shop/web: Pods metric "n" cannot be collected (collector "numbers"): connection refused`)
	})
}

// A thousand HPAs, good and bad, that come, change and go leave nothing behind: no query, series, goroutine or label.
func TestAThousandHPAsLeaveNothingBehind(t *testing.T) {
	registry := prometheus.NewRegistry()
	a := start(t, fake.NewClientset(webPod(1), webDeployment()), func(o *Options) { o.Registerer = registry }, nil)
	until(t, "it to be ready", func() bool { return a.Ready() == nil })
	figures := func() map[string]float64 {
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		out := map[string]float64{}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				switch f.GetName() {
				case "kubetide_series", "kubetide_queries", "kubetide_hpas", "kubetide_metric_failing":
					out[f.GetName()] += m.GetGauge().GetValue()
				}
			}
		}
		return out
	}
	goroutines := runtime.NumGoroutine()
	handler := a.discovery.Handler()
	var hpas []*autoscalingv2.HorizontalPodAutoscaler
	for i := range 1000 {
		h := webHPA()
		h.Name, h.UID = fmt.Sprint("web-", i), types.UID(fmt.Sprint(i))
		h.Spec.Metrics[0].Pods.Metric.Name = fmt.Sprint("m", i/2) // two ask the same
		h.Annotations = map[string]string{fmt.Sprintf("metric-config.pods.m%d.numbers/interval", i/2): "10m"}
		if i%10 == 0 {
			h.Spec.ScaleTargetRef.Name = "nobody"
		}
		if i%10 == 1 {
			h.Annotations = map[string]string{fmt.Sprintf("metric-config.pods.m%d.numbers/interval", i/2): "-1s"}
		}
		hpas = append(hpas, h)
		handler.OnAdd(h, false)
	}
	until(t, "all to be asked for, and the bad ones to fail", func() bool {
		f := figures()
		return f["kubetide_hpas"] == 1000 && f["kubetide_queries"] == 500 && f["kubetide_series"] == 500 && f["kubetide_metric_failing"] == 200
	})
	for i, h := range hpas {
		changed := h.DeepCopy()
		changed.Annotations = map[string]string{fmt.Sprintf("metric-config.pods.m%d.numbers/interval", i/2): fmt.Sprintf("%ds", 600+i)}
		handler.OnUpdate(h, changed)
		handler.OnDelete(changed)
	}
	until(t, "nothing to be left", func() bool {
		f := figures()
		return f["kubetide_hpas"]+f["kubetide_queries"]+f["kubetide_series"]+f["kubetide_metric_failing"] == 0 && runtime.NumGoroutine() <= goroutines
	})
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.demand) != 0 {
		t.Errorf("%d demands are left", len(a.demand))
	}
}

func TestReadinessDoesNotWaitForEverForAHangingSource(t *testing.T) {
	a := start(t, fake.NewClientset(webPod(1), webDeployment(), webHPA()), func(o *Options) { o.WarmUp = 10 * time.Millisecond },
		func(s *podNumbers) { s.hanging.Store(true) })
	if err := a.Ready(); err == nil {
		t.Error("ready before anything was seen")
	}
	until(t, "the adapter to be ready", func() bool { return a.Ready() == nil })
}

func TestOthersMayWantWhatHPAsDoNot(t *testing.T) {
	a := start(t, fake.NewClientset(webPod(1), webDeployment()), nil, nil)
	until(t, "the adapter to be ready", func() bool { return a.Ready() == nil })
	q := sample.Query{Kind: sample.Pods, Namespace: "shop", Metric: "n", Collector: "numbers", Interval: time.Hour,
		Target: sample.ObjectRef{Group: "apps", Kind: "Deployment", Name: "web"}}
	first, second := a.Want(q), a.Want(q)
	fresh := func() bool { return a.Reader().Answer(q).State == sample.Fresh }
	until(t, "an answer", fresh)
	if a.values(t) != nil {
		t.Error("the metrics APIs serve what no HPA asks for")
	}
	first()
	first()
	if !fresh() {
		t.Error("forgotten while somebody wants it")
	}
	a.serve(q)
	if a.values(t) == nil {
		t.Error("not served to the HPA that asks too")
	}
	second()
	if !fresh() {
		t.Error("forgotten while an HPA wants it")
	}
	a.serve(q)
	third := a.Want(q)
	a.unserve(q)
	if !fresh() || a.values(t) != nil {
		t.Error("after the HPA went it is to be kept, but not served")
	}
	third()
	if fresh() {
		t.Error("kept though nobody wants it")
	}
}

func TestScales(t *testing.T) {
	statefulSet := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "db"},
		Spec: appsv1.StatefulSetSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "db"}}}, Status: appsv1.StatefulSetStatus{Replicas: 4}}
	everything := webDeployment()
	everything.Name, everything.Spec.Selector = "all", &metav1.LabelSelector{}
	factory := informers.NewSharedInformerFactory(fake.NewClientset(webDeployment(), statefulSet, everything), 0)
	mapper := meta.NewDefaultRESTMapper([]schema.GroupVersion{{Group: "example.org", Version: "v1"}})
	mapper.Add(schema.GroupVersionKind{Group: "example.org", Version: "v1", Kind: "Rollout"}, meta.RESTScopeNamespace)
	clock := clocktesting.NewFakePassiveClock(time.Now())
	reads := 0
	s := newScales(factory.Apps().V1(), mapper, func(ctx context.Context, namespace string, resource schema.GroupResource, name string) (*autoscalingv1.Scale, error) {
		reads++
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if resource.String() != "rollouts.example.org" {
			t.Errorf("read %s", resource)
		}
		scale := &autoscalingv1.Scale{Spec: autoscalingv1.ScaleSpec{Replicas: 5}, Status: autoscalingv1.ScaleStatus{Replicas: int32(reads), Selector: "app=" + name}}
		switch name {
		case "none":
			scale.Status.Selector = ""
		case "odd":
			scale.Status.Selector = "=="
		case "gone":
			return nil, errors.New("not found")
		}
		return scale, nil
	}, clock)
	factory.Start(t.Context().Done())
	factory.WaitForCacheSync(t.Context().Done())
	rollout := func(name string) sample.ObjectRef {
		return sample.ObjectRef{Group: "example.org", Kind: "Rollout", Name: name}
	}
	tests := map[string]struct {
		object   sample.ObjectRef
		selector string
		replicas string
		err      string
	}{
		"a Deployment from memory, with expressions":        {sample.ObjectRef{Group: "apps", Kind: "Deployment", Name: "web"}, "app in (web)", "3/2", ""},
		"a StatefulSet from memory, one replica by default": {sample.ObjectRef{Group: "apps", Kind: "StatefulSet", Name: "db"}, "app=db", "1/4", ""},
		"any other kind by its scale":                       {rollout("canary"), "app=canary", "5/1", ""},
		"a Deployment that is not there":                    {sample.ObjectRef{Group: "apps", Kind: "Deployment", Name: "x"}, "", "", "scale of Deployment.apps/x in namespace shop: deployment.apps \"x\" not found"},
		"a kind that is not there":                          {sample.ObjectRef{Group: "example.org", Kind: "Widget", Name: "x"}, "", "", "no matches for example.org"},
		"an object that is not there":                       {rollout("gone"), "", "", "scale of Rollout.example.org/gone in namespace shop: not found"},
		"a scale without a selector":                        {rollout("none"), "", "", "it has no selector"},
		"a scale with a bad selector":                       {rollout("odd"), "", "", `status.selector "=="`},
		"a Deployment whose selector matches all":           {sample.ObjectRef{Group: "apps", Kind: "Deployment", Name: "all"}, "", "", "it has no selector"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			reads = 0
			got, err := s.Scale(t.Context(), "shop", tt.object)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error %v does not say %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got.Selector.String() != tt.selector || fmt.Sprintf("%d/%d", got.SpecReplicas, got.StatusReplicas) != tt.replicas {
				t.Errorf("%s %d/%d, want %s %s", got.Selector, got.SpecReplicas, got.StatusReplicas, tt.selector, tt.replicas)
			}
		})
	}
	t.Run("a scale is read again after ten seconds only", func(t *testing.T) {
		reads = 0
		for range 5 {
			_, _ = s.Scale(t.Context(), "shop", rollout("cached"))
		}
		if reads != 1 {
			t.Errorf("%d reads, want 1", reads)
		}
		clock.SetTime(clock.Now().Add(scaleAge + time.Second))
		_, _ = s.Scale(t.Context(), "shop", rollout("cached"))
		if reads != 2 {
			t.Errorf("%d reads, want 2", reads)
		}
	})
	t.Run("a workload that could not be read is read again after a second", func(t *testing.T) {
		for i, after := range []time.Duration{0, failedScaleAge, failedScaleAge} {
			reads = 0
			clock.SetTime(clock.Now().Add(after))
			_, _ = s.Scale(t.Context(), "shop", rollout("gone"))
			if want := []int{1, 0, 1}[i]; reads != want {
				t.Errorf("%d reads at the question number %d, want %d", reads, i+1, want)
			}
			clock.SetTime(clock.Now().Add(time.Duration(i) * time.Millisecond))
		}
	})
	t.Run("an asker does not wait longer than its time for another", func(t *testing.T) {
		k := s.entry(target{"shop", rollout("busy")})
		k.turn <- struct{}{}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := s.Scale(ctx, "shop", rollout("busy")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		<-k.turn
	})
	t.Run("an object that is not there has no data", func(t *testing.T) {
		_, err := s.Scale(t.Context(), "shop", sample.ObjectRef{Group: "apps", Kind: "Deployment", Name: "x"})
		if !errors.Is(err, sample.ErrNoData) {
			t.Errorf("%v is not ErrNoData, so the values of pods that are gone would go on", err)
		}
	})
	t.Run("an asker without time leaves nothing behind", func(t *testing.T) {
		expired, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := s.Scale(expired, "shop", rollout("slow")); err == nil {
			t.Error("no error")
		}
		if _, err := s.Scale(t.Context(), "shop", rollout("slow")); err != nil {
			t.Errorf("the next asker got %v", err)
		}
	})
}

func TestSlimKeepsWhatCollectorsNeed(t *testing.T) {
	pod := webPod(1)
	pod.Annotations = map[string]string{"a": "b"}
	pod.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "kubectl"}}
	pod.DeletionTimestamp = &metav1.Time{}
	pod.Spec = corev1.PodSpec{Volumes: []corev1.Volume{{Name: "v"}}, Containers: []corev1.Container{{Name: "c", Image: "i", Ports: []corev1.ContainerPort{{ContainerPort: 80}}}}}
	pod.Status = corev1.PodStatus{PodIP: "10.0.0.1", Phase: corev1.PodRunning, Message: "m", Conditions: []corev1.PodCondition{{Type: corev1.PodReady}}}
	out, err := slim(pod)
	if err != nil {
		t.Fatal(err)
	}
	want := webPod(1)
	want.DeletionTimestamp = &metav1.Time{}
	want.Spec = corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Ports: []corev1.ContainerPort{{ContainerPort: 80}}}}, InitContainers: []corev1.Container{}}
	want.Status = corev1.PodStatus{PodIP: "10.0.0.1", Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady}}}
	if diff := cmp.Diff(want, out); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
