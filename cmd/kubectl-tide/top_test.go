package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
)

func deployment(name string) autoscalingv2.CrossVersionObjectReference {
	return autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: name}
}

// topIHPA is an IHPA from 2 to 10 that has replicas, and goes to demand within them.
func topIHPA(namespace, name string, replicas, demand int32) *kapacity.IntelligentHorizontalPodAutoscaler {
	o := &kapacity.IntelligentHorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	o.Spec.ScaleTargetRef, o.Spec.MinReplicas, o.Spec.MaxReplicas = deployment(name), 2, 10
	o.Status.CurrentPortraitValue = &kapacity.PortraitValue{Provider: "Dynamic-Reactive", Replicas: demand}
	o.Status.Replicas, o.Status.OnlineReplicas, o.Status.DesiredReplicas = &replicas, &replicas, new(min(10, max(2, demand)))
	return o
}

// topHPA is an HPA from 1 to 10 with a target of 50 % cpu that has replicas and uses percent.
func topHPA(namespace, name string, replicas, percent int32) *autoscalingv2.HorizontalPodAutoscaler {
	o := &autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	o.Spec.ScaleTargetRef, o.Spec.MaxReplicas = deployment(name), 10
	o.Spec.Metrics = []autoscalingv2.MetricSpec{cpu(50)}
	o.Status.CurrentMetrics = []autoscalingv2.MetricStatus{cpuIs(percent)}
	o.Status.CurrentReplicas, o.Status.DesiredReplicas = replicas, min(10, (replicas*percent+49)/50)
	o.Status.Conditions = []autoscalingv2.HorizontalPodAutoscalerCondition{{Type: autoscalingv2.ScalingActive, Status: corev1.ConditionTrue}}
	return o
}

func cpu(percent int32) autoscalingv2.MetricSpec {
	return autoscalingv2.MetricSpec{Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{Name: "cpu",
		Target: autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: &percent}}}
}

func cpuIs(percent int32) autoscalingv2.MetricStatus {
	return autoscalingv2.MetricStatus{Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricStatus{Name: "cpu",
		Current: autoscalingv2.MetricValueStatus{AverageUtilization: &percent, AverageValue: new(resource.MustParse("700m"))}}}
}

func TestTheRowOfAnIHPA(t *testing.T) {
	now := time.Date(2026, 11, 22, 19, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		change func(*kapacity.IntelligentHorizontalPodAutoscaler)
		want   string // demand, replicas, min, max, headroom
	}{
		"goes up":              {func(*kapacity.IntelligentHorizontalPodAutoscaler) {}, "7 | 4 -> 7 | 2 | 10 | 30 %"},
		"at rest":              {func(o *kapacity.IntelligentHorizontalPodAutoscaler) { o.Status.DesiredReplicas = new(int32(4)) }, "7 | 4 | 2 | 10 | 60 %"},
		"limited":              {func(o *kapacity.IntelligentHorizontalPodAutoscaler) { *o = *topIHPA("shop", "cart", 10, 25) }, "25 | 10 | 2 | 10 | 0 %"},
		"nobody asks any more": {func(o *kapacity.IntelligentHorizontalPodAutoscaler) { o.Status.Conditions = inactive() }, "- | 4 -> 7 | 2 | 10 | 30 %"},
		"another max now":      {func(o *kapacity.IntelligentHorizontalPodAutoscaler) { o.Spec.ScheduledBounds = evening(3, 14) }, "7 | 4 -> 7 | 3 | 14 | 50 %"},
		"max 0":                {func(o *kapacity.IntelligentHorizontalPodAutoscaler) { o.Spec.MaxReplicas = 0 }, "7 | 4 -> 7 | 2 | 0 | -"},
		"beyond max":           {func(o *kapacity.IntelligentHorizontalPodAutoscaler) { o.Spec.MaxReplicas = 5 }, "7 | 4 -> 7 | 2 | 5 | 0 %"},
		"less than one percent": {func(o *kapacity.IntelligentHorizontalPodAutoscaler) {
			o.Spec.MaxReplicas, o.Status.DesiredReplicas = 1000, new(int32(999))
		}, "7 | 4 -> 999 | 2 | 1000 | 0 %"},
		"a gray run down": {func(o *kapacity.IntelligentHorizontalPodAutoscaler) {
			*o = *topIHPA("shop", "cart", 5, 2)
			o.Status.OnlineReplicas, o.Status.CutoffReplicas, o.Status.StandbyReplicas = new(int32(2)), new(int32(2)), new(int32(1))
		}, "2 | 5 -> 2 (2 online, 2 cutoff, 1 standby) | 2 | 10 | 80 %"},
		"pods that start": {func(o *kapacity.IntelligentHorizontalPodAutoscaler) {
			*o = *topIHPA("shop", "cart", 7, 7)
			o.Status.OnlineReplicas, o.Status.CutoffReplicas = new(int32(4)), new(int32(0))
		}, "7 | 7 (4 online) | 2 | 10 | 30 %"},
		"not looked at yet": {func(o *kapacity.IntelligentHorizontalPodAutoscaler) {
			o.Status = kapacity.IntelligentHorizontalPodAutoscalerStatus{}
		}, "- | - | 2 | 10 | -"},
	} {
		t.Run(name, func(t *testing.T) {
			o := topIHPA("shop", "cart", 4, 7)
			c.change(o)
			r := rowOfIHPA(o, now)
			if r.Kind != "IHPA" || r.Namespace != "shop" || r.Name != "cart" || r.Target != "Deployment/cart" {
				t.Errorf("it is %s %s/%s of %s", r.Kind, r.Namespace, r.Name, r.Target)
			}
			if got := cells(r); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func cells(r row) string {
	return strings.Join([]string{r.demand(), r.replicas(), fmt.Sprint(r.Min), fmt.Sprint(r.Max), r.headroom()}, " | ")
}

func inactive() []metav1.Condition {
	return []metav1.Condition{{Type: kapacity.ConditionScalingActive, Status: metav1.ConditionFalse, Reason: kapacity.ReasonNoValidPortraitValue}}
}

func evening(least, most int32) []kapacity.ScheduledBounds {
	return []kapacity.ScheduledBounds{{Name: "evening", TimeZone: "UTC", Start: "0 18 * * *", End: "0 22 * * *", MinReplicas: &least, MaxReplicas: &most}}
}

func TestTheRowOfAnHPA(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*autoscalingv2.HorizontalPodAutoscaler)
		want   string
	}{
		"goes up": {func(*autoscalingv2.HorizontalPodAutoscaler) {}, "5.6 | 4 -> 6 | 1 | 10 | 40 %"},
		"within tolerance": {func(o *autoscalingv2.HorizontalPodAutoscaler) {
			*o = *topHPA("shop", "cart", 4, 52)
			o.Status.DesiredReplicas = 4
		}, "4.2 | 4 | 1 | 10 | 60 %"},
		"with a minimum": {func(o *autoscalingv2.HorizontalPodAutoscaler) { o.Spec.MinReplicas = new(int32(3)) }, "5.6 | 4 -> 6 | 3 | 10 | 40 %"},
		"the most of its metrics": {func(o *autoscalingv2.HorizontalPodAutoscaler) {
			metrics(o, cpu(50), cpuIs(70), cpu(50), cpuIs(90), cpu(50), cpuIs(10))
		}, "7.2 | 4 -> 6 | 1 | 10 | 40 %"},
		"a metric that failed": {func(o *autoscalingv2.HorizontalPodAutoscaler) {
			metrics(o, cpu(50), autoscalingv2.MetricStatus{}, cpu(50), cpuIs(90))
		}, "7.2 | 4 -> 6 | 1 | 10 | 40 %"},
		"no metric yet": {func(o *autoscalingv2.HorizontalPodAutoscaler) { o.Status.CurrentMetrics = nil }, "- | 4 -> 6 | 1 | 10 | 40 %"},
		"more statuses than metrics": {func(o *autoscalingv2.HorizontalPodAutoscaler) {
			o.Status.CurrentMetrics = append(o.Status.CurrentMetrics, cpuIs(99))
		}, "5.6 | 4 -> 6 | 1 | 10 | 40 %"},
		"no decision yet": {func(o *autoscalingv2.HorizontalPodAutoscaler) { o.Status.DesiredReplicas = 0 }, "5.6 | 4 | 1 | 10 | 60 %"},
		"on its way to zero": {func(o *autoscalingv2.HorizontalPodAutoscaler) {
			o.Status.DesiredReplicas, o.Spec.MinReplicas = 0, new(int32(0))
		}, "5.6 | 4 -> 0 | 0 | 10 | 100 %"},
		"switched off": {func(o *autoscalingv2.HorizontalPodAutoscaler) {
			o.Status.CurrentReplicas, o.Status.DesiredReplicas = 0, 0
		}, "- | 0 | 1 | 10 | 100 %"},
		"not looked at yet": {func(o *autoscalingv2.HorizontalPodAutoscaler) {
			o.Status = autoscalingv2.HorizontalPodAutoscalerStatus{}
		}, "- | - | 1 | 10 | -"},
	} {
		t.Run(name, func(t *testing.T) {
			o := topHPA("shop", "cart", 4, 70)
			c.change(o)
			r := rowOfHPA(o)
			if r.Kind != "HPA" || r.Namespace != "shop" || r.Name != "cart" || r.Target != "Deployment/cart" {
				t.Errorf("it is %s %s/%s of %s", r.Kind, r.Namespace, r.Name, r.Target)
			}
			if got := cells(r); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

// metrics gives the HPA pairs of a metric and its status.
func metrics(o *autoscalingv2.HorizontalPodAutoscaler, pairs ...any) {
	o.Spec.Metrics, o.Status.CurrentMetrics = nil, nil
	for _, p := range pairs {
		switch p := p.(type) {
		case autoscalingv2.MetricSpec:
			o.Spec.Metrics = append(o.Spec.Metrics, p)
		case autoscalingv2.MetricStatus:
			o.Status.CurrentMetrics = append(o.Status.CurrentMetrics, p)
		}
	}
}

func TestWhatAMetricAsksFor(t *testing.T) {
	quantity := func(text string) *resource.Quantity { return new(resource.MustParse(text)) }
	averageTarget := autoscalingv2.MetricTarget{AverageValue: quantity("100")}
	valueTarget := autoscalingv2.MetricTarget{Value: quantity("100")}
	average := autoscalingv2.MetricValueStatus{AverageValue: quantity("150")}
	whole := autoscalingv2.MetricValueStatus{Value: quantity("150")}
	rps := autoscalingv2.MetricIdentifier{Name: "rps"}
	pods := func(is autoscalingv2.MetricValueStatus) autoscalingv2.MetricStatus {
		return autoscalingv2.MetricStatus{Pods: &autoscalingv2.PodsMetricStatus{Metric: rps, Current: is}}
	}
	external := func(name string, is autoscalingv2.MetricValueStatus) autoscalingv2.MetricStatus {
		return autoscalingv2.MetricStatus{External: &autoscalingv2.ExternalMetricStatus{Metric: autoscalingv2.MetricIdentifier{Name: name}, Current: is}}
	}
	externalSpec := func(target autoscalingv2.MetricTarget) autoscalingv2.MetricSpec {
		return autoscalingv2.MetricSpec{External: &autoscalingv2.ExternalMetricSource{Metric: rps, Target: target}}
	}
	container := func(name string) autoscalingv2.MetricStatus {
		return autoscalingv2.MetricStatus{ContainerResource: &autoscalingv2.ContainerResourceMetricStatus{Name: "cpu", Container: name, Current: autoscalingv2.MetricValueStatus{AverageUtilization: new(int32(75))}}}
	}
	web := autoscalingv2.MetricSpec{ContainerResource: &autoscalingv2.ContainerResourceMetricSource{Name: "cpu", Container: "web", Target: autoscalingv2.MetricTarget{AverageUtilization: new(int32(50))}}}
	for name, c := range map[string]struct {
		spec     autoscalingv2.MetricSpec
		status   autoscalingv2.MetricStatus
		replicas int32
		want     *float64
	}{
		"cpu":                           {cpu(50), cpuIs(75), 4, ptr.To(6.0)},
		"cpu of a container":            {web, container("web"), 4, ptr.To(6.0)},
		"cpu of another container":      {web, container("proxy"), 4, nil},
		"an average over pods":          {autoscalingv2.MetricSpec{Pods: &autoscalingv2.PodsMetricSource{Metric: rps, Target: averageTarget}}, pods(average), 4, ptr.To(6.0)},
		"a value of an object":          {autoscalingv2.MetricSpec{Object: &autoscalingv2.ObjectMetricSource{Metric: rps, Target: valueTarget}}, autoscalingv2.MetricStatus{Object: &autoscalingv2.ObjectMetricStatus{Metric: rps, Current: whole}}, 4, ptr.To(6.0)},
		"an external value":             {externalSpec(valueTarget), external("rps", whole), 4, ptr.To(6.0)},
		"an external average":           {externalSpec(averageTarget), external("rps", average), 4, ptr.To(6.0)},
		"another external metric":       {externalSpec(averageTarget), external("queue", average), 4, nil},
		"a value while there is no pod": {externalSpec(valueTarget), external("rps", whole), 0, ptr.To(1.5)},
		"an average over no pod":        {externalSpec(averageTarget), external("rps", average), 0, nil},
		"a target that was changed":     {externalSpec(averageTarget), external("rps", whole), 4, nil},
		"a target of nothing":           {externalSpec(autoscalingv2.MetricTarget{Value: quantity("0")}), external("rps", whole), 4, nil},
		"a value below nothing":         {externalSpec(valueTarget), external("rps", autoscalingv2.MetricValueStatus{Value: quantity("-5")}), 4, ptr.To(0.0)},
		"another type":                  {externalSpec(averageTarget), pods(average), 4, nil},
		"a status of nothing":           {externalSpec(averageTarget), autoscalingv2.MetricStatus{}, 4, nil},
	} {
		t.Run(name, func(t *testing.T) {
			got, ok := demandOf(c.spec, c.status, c.replicas)
			if ok != (c.want != nil) || ok && got != *c.want {
				t.Errorf("got %v, %v", got, ok)
			}
		})
	}
}

func TestWhenTheDemandComesToItsMaximum(t *testing.T) {
	every := func(d time.Duration, demands ...float64) (out trend) {
		for i, v := range demands {
			out = out.with(point{noon.Add(time.Duration(i) * d), v})
		}
		return out
	}
	var long, turned []float64
	for i := range 2 * trendPoints {
		long = append(long, float64(i))
		turned = append(turned, float64(min(i, trendPoints)))
	}
	for name, c := range map[string]struct {
		trend trend
		want  string
	}{
		"nothing seen":                   {nil, "-"},
		"seen once":                      {every(time.Second, 5), "-"},
		"two at once":                    {every(0, 5, 6), "-"},
		"a straight line":                {every(2*time.Second, 4, 5, 6), "28s"},
		"of two points":                  {every(time.Minute, 10, 11), "9m"},
		"an odd value does not decide":   {every(10*time.Second, 4, 5, 6, 9, 8), "100s"},
		"it stays":                       {every(time.Second, 7, 7, 7, 7), "-"},
		"it falls":                       {every(time.Second, 9, 8, 7), "-"},
		"it is there":                    {every(time.Second, 20), "now"},
		"it is beyond, and falls":        {every(time.Second, 25, 24), "now"},
		"what is more than a day off":    {every(time.Hour, 10, 10.1), "-"},
		"what is just less than that":    {every(time.Hour, 10, 10.5), "19h"},
		"what was seen long ago is over": {every(time.Second, turned...), "now"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := (row{toMax: c.trend.toMax(20)}).until(); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
	if got := every(time.Second, long...); len(got) != trendPoints || got[0].demand != trendPoints {
		t.Errorf("%d points are kept, from %v", len(got), got[0])
	}
	if got := every(time.Second, turned...).toMax(1000); got != nil {
		t.Errorf("a rise that ended a whole trend ago leads to the maximum in %v", got)
	}
}

func topTable() *standings {
	gray := topIHPA("shop", "gray", 5, 2)
	gray.Status.OnlineReplicas, gray.Status.CutoffReplicas = new(int32(3)), new(int32(2))
	fresh := rowOfHPA(&autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "fresh"},
		Spec: autoscalingv2.HorizontalPodAutoscalerSpec{ScaleTargetRef: deployment("fresh"), MaxReplicas: 3}})
	s := &standings{Items: []row{fresh, rowOfIHPA(gray, noon), rowOfHPA(topHPA("shop", "web", 4, 70)), rowOfIHPA(topIHPA("shop", "cart", 8, 25), noon),
		rowOfIHPA(topIHPA("bank", "teller", 9, 9), noon), rowOfHPA(topHPA("bank", "vault", 4, 70))}, where: "all namespaces"}
	s.sort()
	s.Items[0].toMax, s.Items[1].toMax = new(time.Duration(0)), new(150*time.Second)
	return s
}

func TestTheTableOfTop(t *testing.T) {
	for name, c := range map[string]struct {
		look  look
		notes []string
		file  string
	}{
		"one namespace":        {look{}, nil, "top.txt"},
		"all, while watching":  {look{namespaces: true, trends: true}, []string{"you may not list\x1b[2J things"}, "top-watched.txt"},
		"colours":              {look{colour: true}, []string{"a note"}, "top-colours.txt"},
		"on a small screen":    {look{colour: true, width: 40, height: 6}, []string{"a note that is longer than the screen is wide"}, "top-small.txt"},
		"on one that fits":     {look{height: 8}, nil, "top.txt"},
		"on one that is a toy": {look{height: 1, width: 10}, nil, "top-toy.txt"},
	} {
		t.Run(name, func(t *testing.T) {
			s := topTable()
			s.look, s.Notes = c.look, c.notes
			var text bytes.Buffer
			if err := (printer{&text, noon, time.UTC}).standings(s); err != nil {
				t.Fatal(err)
			}
			golden(t, "testdata/"+c.file, text.Bytes())
			if h := max(3, c.look.height); c.look.height > 0 && strings.Count(text.String(), "\n") >= h {
				t.Errorf("more than %d lines:\n%s", h, &text)
			}
		})
	}
}

// topCluster is an API server of HPAs and IHPAs. Its fields may be changed through change while it is asked.
type topCluster struct {
	kubeconfig string
	// before, if set, is done before a request is answered.
	before func(context.Context)

	mu sync.Mutex
	// hpas and ihpas are what there is, and codes what lists are answered with instead, by resource.
	hpas  []*autoscalingv2.HorizontalPodAutoscaler
	ihpas []*kapacity.IntelligentHorizontalPodAutoscaler
	codes map[string]int
	asked []string
}

func newTopCluster(t *testing.T) *topCluster {
	t.Helper()
	c := &topCluster{codes: map[string]int{},
		hpas:  []*autoscalingv2.HorizontalPodAutoscaler{topHPA("shop", "web", 4, 70), topHPA("bank", "vault", 4, 90)},
		ihpas: []*kapacity.IntelligentHorizontalPodAutoscaler{topIHPA("shop", "cart", 4, 9)}}
	web := httptest.NewServer(c)
	t.Cleanup(web.Close)
	c.kubeconfig = kubeconfigOf(t, web)
	return c
}

func (c *topCluster) change(do func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	do()
}

func (c *topCluster) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	before := c.before
	c.mu.Unlock()
	if before != nil {
		before(r.Context())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked = append(c.asked, r.Method+" "+r.URL.Path)
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/") // apis, group, version, namespaces, shop, resource
	what, namespace := parts[len(parts)-1], ""
	if len(parts) == 6 {
		namespace = parts[4]
	}
	selected := func(o metav1.Object) bool {
		name, byName := strings.CutPrefix(r.URL.Query().Get("fieldSelector"), "metadata.name=")
		return (namespace == "" || namespace == o.GetNamespace()) && (!byName || name == o.GetName())
	}
	code, items := http.StatusOK, []any{}
	var body any
	switch {
	case c.codes[what] == http.StatusNotFound:
		http.NotFound(w, r)
		return
	case c.codes[what] > 0:
		code = c.codes[what]
		reason := map[int]metav1.StatusReason{403: metav1.StatusReasonForbidden, 500: metav1.StatusReasonInternalError}[code]
		body = status(int32(code), reason, "", "no answer").body
	case what == "horizontalpodautoscalers":
		for _, o := range c.hpas {
			if selected(o) {
				items = append(items, o)
			}
		}
		body = map[string]any{"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscalerList", "items": items}
	case what == "intelligenthorizontalpodautoscalers":
		for _, o := range c.ihpas {
			if selected(o) {
				items = append(items, o)
			}
		}
		body = map[string]any{"apiVersion": kapacity.SchemeGroupVersion.String(), "kind": kapacity.IHPAKind + "List", "items": items}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body) // a reader that is gone sees nothing
}

func (c *topCluster) run(screen bool, args string) (code int, out, errs string) {
	var stdout, stderr bytes.Buffer
	p := plugin{out: &stdout, err: &stderr, screen: screen, clock: clocktesting.NewFakePassiveClock(noon), zone: time.UTC}
	code = p.run(append([]string{"--kubeconfig=" + c.kubeconfig}, strings.Fields(args)...))
	return code, stdout.String(), stderr.String()
}

const (
	listIHPAs = "intelligenthorizontalpodautoscalers"
	listHPAs  = "horizontalpodautoscalers"
)

func TestTop(t *testing.T) {
	t.Setenv("NO_COLOR", "")
	cart, web, vault := "ihpa/cart  Deployment/cart  9", "hpa/web    Deployment/web   5.6", "bank       hpa/vault"
	for name, c := range map[string]struct {
		args   string
		codes  map[string]int
		code   int
		out    []string
		absent []string
		err    string
	}{
		"a namespace, nearest to its maximum first": {args: "top", out: []string{"NAME       TARGET           DEMAND", cart, cart[:5]}, absent: []string{"vault", "TO MAX", "NAMESPACE"}},
		"both kinds":                        {args: "top", out: []string{cart, web}},
		"another namespace":                 {args: "top -n bank", out: []string{"hpa/vault"}, absent: []string{"cart", "web"}},
		"all namespaces":                    {args: "top -A", out: []string{vault, "shop       ihpa/cart"}},
		"an empty namespace":                {args: "top -n empty", out: []string{"There are no HPAs and IHPAs to show in namespace empty."}},
		"one IHPA":                          {args: "top ihpa/cart", out: []string{cart}, absent: []string{"web"}},
		"one HPA":                           {args: "top hpa web", out: []string{"hpa/web"}, absent: []string{"cart"}},
		"one that is not there":             {args: "top ihpa/web", code: 1, err: "there is no ihpa web in namespace shop"},
		"in JSON":                           {args: "top -o json", out: []string{`"kind": "IHPA"`, `"demand": 9`, `"headroomPercent": 10`}, absent: []string{"notes"}},
		"in YAML":                           {args: "top -o yaml", out: []string{"kind: IHPA\n", "demand: 5.6\n"}},
		"an empty list in JSON":             {args: "top -n empty -o json", out: []string{`"items": []`}},
		"who may not list HPAs":             {args: "top", codes: map[string]int{listHPAs: 403}, out: []string{cart, "! you may not list horizontalpodautoscalers.autoscaling in namespace shop"}, absent: []string{"web"}},
		"who may not list IHPAs":            {args: "top -A", codes: map[string]int{listIHPAs: 403}, out: []string{vault, "! you may not list intelligenthorizontalpodautoscalers.autoscaling.kapacitystack.io in all namespaces"}},
		"who may list nothing":              {args: "top", codes: map[string]int{listIHPAs: 403, listHPAs: 403}, code: 1, err: "you may not list intelligenthorizontalpodautoscalers.autoscaling.kapacitystack.io in namespace shop; you may not list horizontalpodautoscalers.autoscaling"},
		"who may not list what is asked":    {args: "top ihpa/cart", codes: map[string]int{listIHPAs: 403}, code: 1, err: "you may not list intelligenthorizontalpodautoscalers"},
		"rights in JSON":                    {args: "top -o json", codes: map[string]int{listHPAs: 403}, out: []string{`"notes": [`, "you may not list"}},
		"a cluster without IHPAs":           {args: "top", codes: map[string]int{listIHPAs: 404}, out: []string{"hpa/web"}, absent: []string{"!"}},
		"an IHPA in a cluster without them": {args: "top ihpa/cart", codes: map[string]int{listIHPAs: 404}, code: 1, err: "the cluster does not serve intelligenthorizontalpodautoscalers.autoscaling.kapacitystack.io"},
		"a list that fails":                 {args: "top", codes: map[string]int{listHPAs: 500}, code: 1, err: "horizontalpodautoscalers.autoscaling can't be listed in namespace shop: no answer"},
		"another type":                      {args: "top deployment/cart", code: 2, err: `knows nothing of the type "deployment"`},
		"one in all namespaces":             {args: "top ihpa/cart -A", code: 2, err: "one object is in one namespace"},
		"JSON while watching":               {args: "top -w -o json", code: 2, err: "--watch shows text, not json"},
		"a hasty interval":                  {args: "top -w --interval 10ms", code: 2, err: "--interval is at least 1s, not 10ms"},
		"a bad format":                      {args: "top -o xml", code: 2, err: "--output is text, json or yaml"},
		"help":                              {args: "top --help", out: []string{"HEADROOM", "kubectl tide top -A --watch"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newTopCluster(t)
			s.codes = c.codes
			code, out, errs := s.run(false, c.args)
			if code != c.code || (errs != "") != (c.err != "") || !strings.Contains(errs, c.err) {
				t.Errorf("code %d, %q", code, errs)
			}
			for _, want := range c.out {
				if !strings.Contains(out, want) {
					t.Errorf("the output lacks %q:\n%s", want, out)
				}
			}
			for _, not := range append(c.absent, "\x1b") {
				if strings.Contains(out, not) {
					t.Errorf("the output has %q:\n%s", not, out)
				}
			}
		})
	}
}

func TestNothingIsAskedOfKindsThatNobodyWants(t *testing.T) {
	s := newTopCluster(t)
	s.run(false, "top hpa/web")
	if want := []string{"GET /apis/autoscaling/v2/namespaces/shop/horizontalpodautoscalers"}; !cmp.Equal(want, s.asked) {
		t.Error(s.asked)
	}
}

func TestColoursAreForTerminals(t *testing.T) {
	for name, c := range map[string]struct {
		screen  bool
		args    string
		noColor string
		want    bool
	}{
		"a terminal":      {true, "top", "", true},
		"a pipe":          {false, "top", "", false},
		"--no-color":      {true, "top --no-color", "", false},
		"NO_COLOR":        {true, "top", "1", false},
		"JSON has no use": {true, "top -o json", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("NO_COLOR", c.noColor)
			_, out, _ := newTopCluster(t).run(c.screen, c.args)
			if got := strings.Contains(out, yellow+"ihpa/cart"); got != c.want {
				t.Errorf("%q", out)
			}
		})
	}
}

// topWatch is a watch with a clock and ticks by hand.
type topWatch struct {
	t     *testing.T
	clock *clocktesting.FakePassiveClock
	ticks chan time.Time
	out   screen
	stop  func()
	end   chan error
}

func watchTop(t *testing.T, c *topCluster, of metered) *topWatch {
	t.Helper()
	r, err := newReader(clientcmd.NewNonInteractiveDeferredLoadingClientConfig(&clientcmd.ClientConfigLoadingRules{ExplicitPath: c.kubeconfig}, nil))
	if err != nil {
		t.Fatal(err)
	}
	w := &topWatch{t: t, clock: clocktesting.NewFakePassiveClock(noon), ticks: make(chan time.Time), out: make(screen, 100), end: make(chan error, 1)}
	s := r.scoreboard(of)
	s.look.trends = true
	ctx, cancel := context.WithCancel(t.Context())
	w.stop = cancel
	t.Cleanup(cancel)
	p := plugin{out: w.out, clock: w.clock, zone: time.UTC}
	go func() { w.end <- p.followTop(ctx, s, w.ticks) }()
	return w
}

func (w *topWatch) tick() {
	w.t.Helper()
	select {
	case w.ticks <- w.clock.Now():
	case <-time.After(10 * time.Second):
		w.t.Fatal("nobody waits for a tick")
	}
}

// after is what is written when the time has passed.
func (w *topWatch) after(d time.Duration) string {
	w.t.Helper()
	w.clock.SetTime(w.clock.Now().Add(d))
	w.tick()
	if gap := w.out.next(w.t); gap != "\n" {
		w.t.Errorf("between two tables stands %q", gap)
	}
	return w.out.next(w.t)
}

func (w *topWatch) ended() error {
	w.t.Helper()
	select {
	case err := <-w.end:
		return err
	case <-time.After(10 * time.Second):
		w.t.Fatal("it does not end")
		return nil
	}
}

func (w *topWatch) has(text string, want ...string) {
	w.t.Helper()
	for _, part := range want {
		if !strings.Contains(text, part) {
			w.t.Errorf("it lacks %q:\n%s", part, text)
		}
	}
}

func TestTopWatchesTheDemandRise(t *testing.T) {
	c := newTopCluster(t)
	c.change(func() { c.ihpas = []*kapacity.IntelligentHorizontalPodAutoscaler{topIHPA("shop", "cart", 2, 2)} })
	w := watchTop(t, c, metered{})
	w.has(w.out.next(t), "ihpa/cart  Deployment/cart  2       2         2    10   80 %      -")
	c.change(func() { c.ihpas[0] = topIHPA("shop", "cart", 2, 4) })
	w.has(w.after(15*time.Second), "ihpa/cart  Deployment/cart  4       2 -> 4    2    10   60 %      45s", "hpa/web    Deployment/web   5.6     4 -> 6    1    10   40 %      -")
	c.change(func() { c.ihpas[0] = topIHPA("shop", "cart", 4, 11) })
	text := w.after(15 * time.Second)
	w.has(text, "11      4 -> 10   2    10   0 %       now")
	if strings.Index(text, "cart") > strings.Index(text, "web") {
		t.Errorf("the nearest to its maximum does not come first:\n%s", text)
	}
	c.change(func() { c.ihpas = nil })
	if text := w.after(15 * time.Second); strings.Contains(text, "cart") {
		t.Errorf("it is gone, and shown:\n%s", text)
	}
	c.change(func() {
		c.ihpas = []*kapacity.IntelligentHorizontalPodAutoscaler{topIHPA("shop", "cart", 4, 5)}
	})
	w.has(w.after(15*time.Second), "5       4 -> 5    2    10   50 %      -") // a new one, of which nothing was seen before
}

func TestTopKeepsTheLastTableWhileNobodyAnswers(t *testing.T) {
	c := newTopCluster(t)
	c.change(func() { c.codes[listIHPAs] = 403 })
	w := watchTop(t, c, metered{})
	w.has(w.out.next(t), "hpa/web", "! you may not list "+listIHPAs)
	w.after(5 * time.Second)
	c.change(func() { c.codes[listIHPAs], c.codes[listHPAs] = 500, 500 })
	w.has(w.after(10*time.Second), "hpa/web", "! intelligenthorizontalpodautoscalers.autoscaling.kapacitystack.io can't be listed in namespace shop: no answer\n",
		"! horizontalpodautoscalers.autoscaling can't be listed in namespace shop: no answer; what is shown of them is 10s old\n")
	w.has(w.after(2*time.Minute), "hpa/web", "what is shown of them is 2m10s old")
	c.change(func() { c.codes[listIHPAs], c.codes[listHPAs] = 0, 403 }) // as an API server that has not read its roles yet
	w.has(w.after(10*time.Second), "ihpa/cart", "hpa/web", "! you may not list horizontalpodautoscalers.autoscaling in namespace shop; what is shown of them is 2m20s old")
	c.change(func() { c.codes[listHPAs] = 0 })
	if text := w.after(10 * time.Second); !strings.Contains(text, "hpa/web") || strings.Contains(text, "!") {
		t.Errorf("all is well, and it says:\n%s", text)
	}
}

func TestTopOfOneEndsWithIt(t *testing.T) {
	c := newTopCluster(t)
	w := watchTop(t, c, metered{ihpas, "cart"})
	w.has(w.out.next(t), "ihpa/cart")
	c.change(func() { c.ihpas = nil })
	w.tick()
	if err := w.ended(); err == nil || err.Error() != "there is no ihpa cart in namespace shop" {
		t.Error(err)
	}
}

func TestTopWaitsForNoAnswerAfterCtrlC(t *testing.T) {
	c, asked := newTopCluster(t), make(chan struct{}, 1)
	c.change(func() {
		c.before = func(request context.Context) {
			asked <- struct{}{}
			<-request.Done()
		}
	})
	w := watchTop(t, c, metered{})
	select {
	case <-asked:
	case <-time.After(10 * time.Second):
		t.Fatal("nobody asks")
	}
	w.stop()
	if err := w.ended(); err != nil || len(w.out) > 0 {
		t.Errorf("%v, and %d writes", err, len(w.out))
	}
}

func TestTopIsRedrawnUntilCtrlC(t *testing.T) {
	t.Setenv("NO_COLOR", "1")
	c := newTopCluster(t)
	out, code := make(screen, 100), make(chan int, 1)
	p := plugin{out: out, err: make(screen, 100), screen: true, clock: clocktesting.NewFakePassiveClock(noon), zone: time.UTC}
	go func() { code <- p.run([]string{"--kubeconfig=" + c.kubeconfig, "top", "--watch", "--interval=1h"}) }()
	if text := out.next(t); text != "\x1b[H\x1b[2J" {
		t.Errorf("before the table stands %q", text)
	}
	if text := out.next(t); !strings.Contains(text, "TO MAX") || !strings.Contains(text, "ihpa/cart") {
		t.Error(text)
	}
	if err := syscall.Kill(syscall.Getpid(), syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if c := exit(t, code); c != 0 || len(out) > 0 {
		t.Errorf("exit code %d, %d more writes", c, len(out))
	}
}
