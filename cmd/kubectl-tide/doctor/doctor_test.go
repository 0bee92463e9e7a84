package doctor

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	zalando "github.com/kubetide/kubetide/api/zalando/v1"
)

var now = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// hpa scales the Deployment of the name from 2 to 10.
func hpa(name string, change ...func(*autoscalingv2.HorizontalPodAutoscaler)) autoscalingv2.HorizontalPodAutoscaler {
	o := autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}}
	o.Spec.ScaleTargetRef = autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: name}
	o.Spec.MinReplicas, o.Spec.MaxReplicas = ptr.To[int32](2), 10
	for _, c := range change {
		c(&o)
	}
	return o
}

func ihpa(name string, change ...func(*kapacity.IntelligentHorizontalPodAutoscaler)) kapacity.IntelligentHorizontalPodAutoscaler {
	o := kapacity.IntelligentHorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}}
	o.Spec.ScaleTargetRef = autoscalingv2.CrossVersionObjectReference{Kind: "Deployment", Name: name}
	o.Spec.MinReplicas, o.Spec.MaxReplicas = 2, 10
	for _, c := range change {
		c(&o)
	}
	return o
}

// deployment has 3 pods with the label app and one container, app, without resources.
func deployment(name string, change ...func(*Workload)) Workload {
	w := Workload{TypeMeta: metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"}, ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID(name)}}
	w.Spec.Replicas, w.Status.Replicas = ptr.To[int32](3), 3
	w.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": name}}
	w.Spec.Template.Labels = map[string]string{"app": name}
	w.Spec.Template.Spec.Containers = []corev1.Container{{Name: "app"}}
	for _, c := range change {
		c(&w)
	}
	return w
}

func cpu(requests, limits string) func(*Workload) {
	return func(w *Workload) {
		r := &w.Spec.Template.Spec.Containers[0].Resources
		if requests != "" {
			r.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(requests)}
		}
		if limits != "" {
			r.Limits = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(limits)}
		}
	}
}

func container(c corev1.Container) func(*Workload) {
	return func(w *Workload) { w.Spec.Template.Spec.Containers = append(w.Spec.Template.Spec.Containers, c) }
}

func ofCPU(percent int32) autoscalingv2.MetricSpec {
	return autoscalingv2.MetricSpec{Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{Name: corev1.ResourceCPU,
		Target: autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: &percent}}}
}

func follows(m ...autoscalingv2.MetricSpec) func(*autoscalingv2.HorizontalPodAutoscaler) {
	return func(o *autoscalingv2.HorizontalPodAutoscaler) { o.Spec.Metrics = m }
}

func ofContainer(name string) autoscalingv2.MetricSpec {
	return autoscalingv2.MetricSpec{Type: autoscalingv2.ContainerResourceMetricSourceType, ContainerResource: &autoscalingv2.ContainerResourceMetricSource{Name: corev1.ResourceCPU,
		Container: name, Target: autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: ptr.To[int32](50)}}}
}

// dynamic follows cpu by the HPA's maths.
func dynamic(percent int32, change ...func(*kapacity.KubeHPAPortraitAlgorithm)) func(*kapacity.IntelligentHorizontalPodAutoscaler) {
	k := &kapacity.KubeHPAPortraitAlgorithm{Tolerance: resource.MustParse("0.1")}
	for _, c := range change {
		c(k)
	}
	return func(o *kapacity.IntelligentHorizontalPodAutoscaler) {
		o.Spec.PortraitProviders = append(o.Spec.PortraitProviders, kapacity.HorizontalPortraitProvider{Type: kapacity.DynamicProvider, Dynamic: &kapacity.DynamicHorizontalPortraitProvider{
			PortraitSpec: kapacity.PortraitSpec{PortraitType: kapacity.ReactivePortrait, Metrics: []kapacity.MetricSpec{{MetricSpec: ofCPU(percent)}},
				Algorithm: kapacity.PortraitAlgorithm{Type: kapacity.KubeHPAAlgorithm, KubeHPA: k}}}})
	}
}

func crons(w ...kapacity.ReplicaCron) func(*kapacity.IntelligentHorizontalPodAutoscaler) {
	return func(o *kapacity.IntelligentHorizontalPodAutoscaler) {
		o.Spec.PortraitProviders = append(o.Spec.PortraitProviders, kapacity.HorizontalPortraitProvider{Type: kapacity.CronProvider, Cron: &kapacity.CronHorizontalPortraitProvider{Crons: w}})
	}
}

func says(kind, status, reason string) metav1.Condition {
	return metav1.Condition{Type: kind, Status: metav1.ConditionStatus(status), Reason: reason, Message: "so it is"}
}

func hpaSays(kind, status, reason string) func(*autoscalingv2.HorizontalPodAutoscaler) {
	return func(o *autoscalingv2.HorizontalPodAutoscaler) {
		o.Status.Conditions = append(o.Status.Conditions, autoscalingv2.HorizontalPodAutoscalerCondition{Type: autoscalingv2.HorizontalPodAutoscalerConditionType(kind),
			Status: corev1.ConditionStatus(status), Reason: reason, Message: "so it is"})
	}
}

func ihpaSays(c ...metav1.Condition) func(*kapacity.IntelligentHorizontalPodAutoscaler) {
	return func(o *kapacity.IntelligentHorizontalPodAutoscaler) { o.Status.Conditions = c }
}

func service(name, label string, c ...metav1.Condition) *APIService {
	s := &APIService{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app.kubernetes.io/name": label}}}
	s.Status.Conditions = c
	return s
}

func writer(manager string, operation metav1.ManagedFieldsOperationType, subresource string) func(*Workload) {
	return func(w *Workload) {
		w.ManagedFields = append(w.ManagedFields, metav1.ManagedFieldsEntry{Manager: manager, Operation: operation, Subresource: subresource,
			FieldsV1: metav1.NewFieldsV1(`{"f:spec":{"f:replicas":{}}}`)})
	}
}

func lastApplied(text string) func(*Workload) {
	return func(w *Workload) { w.Annotations = map[string]string{corev1.LastAppliedConfigAnnotation: text} }
}

func replicas(n int32) func(*Workload) { return func(w *Workload) { w.Spec.Replicas = &n } }

func schedule(w ...zalando.Schedule) Facts {
	return Facts{Schedules: []zalando.ScalingSchedule{{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "sale"}, Spec: zalando.ScalingScheduleSpec{Schedules: w}}}}
}

func once(date, end string, minutes int) zalando.Schedule {
	s := zalando.Schedule{Type: zalando.OneTimeSchedule, Date: ptr.To(zalando.ScheduleDate(date)), DurationMinutes: minutes, Value: 100}
	if end != "" {
		s.EndDate = ptr.To(zalando.ScheduleDate(end))
	}
	return s
}

func daily(start, end string, minutes int, days ...zalando.ScheduleDay) zalando.Schedule {
	return zalando.Schedule{Type: zalando.RepeatingSchedule, Period: &zalando.SchedulePeriod{StartTime: start, EndTime: end, Days: days}, DurationMinutes: minutes, Value: 100}
}

func budget(minAvailable, maxUnavailable *intstr.IntOrString, app string) policyv1.PodDisruptionBudget {
	return policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "cart"},
		Spec: policyv1.PodDisruptionBudgetSpec{MinAvailable: minAvailable, MaxUnavailable: maxUnavailable, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}}}
}

func number(n int) *intstr.IntOrString     { return ptr.To(intstr.FromInt(n)) }
func percent(s string) *intstr.IntOrString { return ptr.To(intstr.FromString(s)) }

func quota(name corev1.ResourceName, hard, used string) corev1.ResourceQuota {
	return corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "small"},
		Status: corev1.ResourceQuotaStatus{Hard: corev1.ResourceList{name: resource.MustParse(hard)}, Used: corev1.ResourceList{name: resource.MustParse(used)}}}
}

// scaled is a Deployment with its HPA.
func scaled(w Workload, change ...func(*autoscalingv2.HorizontalPodAutoscaler)) Facts {
	return Facts{HPAs: []autoscalingv2.HorizontalPodAutoscaler{hpa(w.Name, change...)}, Workloads: []Workload{w}}
}

func (f Facts) with(change func(*Facts)) Facts {
	change(&f)
	return f
}

func ihpas(o ...kapacity.IntelligentHorizontalPodAutoscaler) Facts { return Facts{IHPAs: o} }

func TestFindings(t *testing.T) {
	defaults := func(namespace string) func(*Facts) {
		return func(f *Facts) {
			l := corev1.LimitRange{ObjectMeta: metav1.ObjectMeta{Namespace: namespace}}
			l.Spec.Limits = []corev1.LimitRangeItem{{Type: corev1.LimitTypeContainer, DefaultRequest: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m")}}}
			f.LimitRanges = []corev1.LimitRange{l}
		}
	}
	custom := autoscalingv2.MetricSpec{Type: autoscalingv2.PodsMetricSourceType}
	available := says("Available", "True", "Passed")
	const beta1, beta2 = "v1beta1.custom.metrics.k8s.io", "v1beta2.custom.metrics.k8s.io"
	always := corev1.ContainerRestartPolicyAlways
	more := func(w *Workload) { w.Spec.Template.Labels["tier"] = "web" }

	for check, cases := range map[string]map[string]struct {
		facts Facts
		want  []string // severity and object, and what the problem has
	}{
		"conditions": {
			"an HPA that works": {scaled(deployment("cart"), hpaSays("AbleToScale", "True", "ReadyForNewScale"), hpaSays("ScalingActive", "True", "ValidMetricFound"), hpaSays("ScalingLimited", "False", "DesiredWithinRange")), nil},
			"an HPA without its metric": {scaled(deployment("cart"), hpaSays("ScalingActive", "False", "FailedGetExternalMetric")),
				[]string{"error HorizontalPodAutoscaler shop/cart: FailedGetExternalMetric: so it is"}},
			"an HPA without its target":     {Facts{HPAs: []autoscalingv2.HorizontalPodAutoscaler{hpa("cart", hpaSays("AbleToScale", "False", "FailedGetScale"))}}, []string{"error HorizontalPodAutoscaler shop/cart: AbleToScale is False"}},
			"an HPA whose target is at 0":   {scaled(deployment("cart"), hpaSays("ScalingActive", "False", "ScalingDisabled")), []string{"warning HorizontalPodAutoscaler shop/cart: ScalingDisabled"}},
			"an HPA at its maximum":         {scaled(deployment("cart"), hpaSays("ScalingLimited", "True", "TooManyReplicas")), []string{"warning HorizontalPodAutoscaler shop/cart: TooManyReplicas"}},
			"an HPA at its minimum":         {scaled(deployment("cart"), hpaSays("ScalingLimited", "True", "TooFewReplicas")), nil},
			"an IHPA that works":            {ihpas(ihpa("cart", ihpaSays(says("ScalingActive", "True", "SucceededAutoscaling"), says("PortraitsHealthy", "True", "ProvidersHealthy"), says("Stable", "True", "Stable"), says("Held", "True", "HoldBegan")))), nil},
			"an IHPA that fails":            {ihpas(ihpa("cart", ihpaSays(says("ScalingActive", "False", "NoValidPortraitValue")))), []string{"error IntelligentHorizontalPodAutoscaler shop/cart: NoValidPortraitValue"}},
			"an IHPA that is paused":        {ihpas(ihpa("cart", ihpaSays(says("ScalingActive", "False", "ScalingPaused")))), []string{"warning IntelligentHorizontalPodAutoscaler shop/cart: ScalingPaused"}},
			"an IHPA whose provider fails":  {ihpas(ihpa("cart", ihpaSays(says("PortraitsHealthy", "False", "ProviderFailed")))), []string{"error IntelligentHorizontalPodAutoscaler shop/cart: ProviderFailed"}},
			"an IHPA whose step is stuck":   {ihpas(ihpa("cart", ihpaSays(says("GrayStalled", "True", "StepNotApplied")))), []string{"error IntelligentHorizontalPodAutoscaler shop/cart: StepNotApplied"}},
			"an IHPA whose run was stopped": {ihpas(ihpa("cart", ihpaSays(says("Stable", "False", "GrayPaused")))), []string{"warning IntelligentHorizontalPodAutoscaler shop/cart: GrayPaused"}},
			"an IHPA that is written over":  {ihpas(ihpa("cart", ihpaSays(says("Conflict", "True", "ReplicasWrittenByOther")))), []string{"warning IntelligentHorizontalPodAutoscaler shop/cart: ReplicasWrittenByOther"}},
			"an IHPA that stands down, told once": {ihpas(ihpa("cart", ihpaSays(says("ScalingActive", "False", "AnotherAutoscaler"), says("Conflict", "True", "AnotherAutoscaler")))),
				[]string{"error IntelligentHorizontalPodAutoscaler shop/cart: ScalingActive is False"}},
		},
		"metrics-api": {
			"none, and nobody asks": {Facts{APIServices: map[string]*APIService{beta1: nil, beta2: nil}}, nil},
			"none, and an HPA asks": {scaled(deployment("cart"), follows(custom)).with(func(f *Facts) { f.APIServices = map[string]*APIService{beta1: nil, beta2: nil} }),
				[]string{"error APIService v1beta1.custom.metrics.k8s.io: nobody serves custom.metrics.k8s.io, which HorizontalPodAutoscaler shop/cart needs"}},
			"one version is enough": {scaled(deployment("cart"), follows(custom)).with(func(f *Facts) {
				f.APIServices = map[string]*APIService{beta1: nil, beta2: service(beta2, "kubetide", available)}
			}), nil},
			"not read":                   {scaled(deployment("cart"), follows(custom)), nil},
			"not available":              {Facts{APIServices: map[string]*APIService{beta1: service(beta1, "kubetide", says("Available", "False", "MissingEndpoints"))}}, []string{"error APIService " + beta1 + ": MissingEndpoints: so it is"}},
			"not seen yet":               {Facts{APIServices: map[string]*APIService{beta1: service(beta1, "kubetide")}}, []string{"error APIService " + beta1 + ": nobody has looked"}},
			"somebody else":              {Facts{APIServices: map[string]*APIService{beta1: service(beta1, "keda", available)}}, []string{"warning APIService " + beta1 + ": somebody else"}},
			"metrics-server is not ours": {Facts{APIServices: map[string]*APIService{"v1beta1.metrics.k8s.io": service("v1beta1.metrics.k8s.io", "", available)}}, nil},
			"metrics-server is missing": {scaled(deployment("cart", cpu("1", "")), follows(ofCPU(50))).with(func(f *Facts) { f.APIServices = map[string]*APIService{"v1beta1.metrics.k8s.io": nil} }),
				[]string{"error APIService v1beta1.metrics.k8s.io: nobody serves metrics.k8s.io"}},
		},
		"missing-request": {
			"requested":                     {scaled(deployment("cart", cpu("1", "")), follows(ofCPU(50))), nil},
			"not requested":                 {scaled(deployment("cart"), follows(ofCPU(50))), []string{"error HorizontalPodAutoscaler shop/cart: missing request for cpu in container app of Pod cart-*"}},
			"in a second container":         {scaled(deployment("cart", cpu("1", ""), container(corev1.Container{Name: "proxy"})), follows(ofCPU(50))), []string{"error HorizontalPodAutoscaler shop/cart: container proxy"}},
			"another container's metric":    {scaled(deployment("cart", cpu("1", ""), container(corev1.Container{Name: "proxy"})), follows(ofContainer("app"))), nil},
			"a container that is not there": {scaled(deployment("cart", cpu("1", "")), follows(ofContainer("web"))), []string{"error HorizontalPodAutoscaler shop/cart: container web not found"}},
			"in a container that starts before the others": {scaled(deployment("cart", cpu("1", ""), func(w *Workload) {
				w.Spec.Template.Spec.InitContainers = []corev1.Container{{Name: "proxy", RestartPolicy: &always}}
			}), follows(ofCPU(50))), []string{"error HorizontalPodAutoscaler shop/cart: container proxy"}},
			"a limit stands in": {scaled(deployment("cart", cpu("", "1")), follows(ofCPU(50))), nil},
			"the pod's own request": {scaled(deployment("cart", func(w *Workload) {
				w.Spec.Template.Spec.Resources = &corev1.ResourceRequirements{Limits: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1")}}
			}), follows(ofCPU(50))), nil},
			"a LimitRange stands in":    {scaled(deployment("cart"), follows(ofCPU(50))).with(defaults("shop")), nil},
			"a LimitRange of elsewhere": {scaled(deployment("cart"), follows(ofCPU(50))).with(defaults("bank")), []string{"error HorizontalPodAutoscaler shop/cart: missing request"}},
			"an average value needs none": {scaled(deployment("cart"), follows(autoscalingv2.MetricSpec{Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{Name: corev1.ResourceCPU,
				Target: autoscalingv2.MetricTarget{Type: autoscalingv2.AverageValueMetricType, AverageValue: ptr.To(resource.MustParse("1"))}}})), nil},
			"of an IHPA": {Facts{IHPAs: []kapacity.IntelligentHorizontalPodAutoscaler{ihpa("cart", dynamic(50))}, Workloads: []Workload{deployment("cart")}}, []string{"error IntelligentHorizontalPodAutoscaler shop/cart: missing request"}},
		},
		"unreachable-target": {
			"limits far above":   {scaled(deployment("cart", cpu("1", "2")), follows(ofCPU(95))), nil},
			"no limits":          {scaled(deployment("cart", cpu("1", "")), follows(ofCPU(95))), nil},
			"limits at requests": {scaled(deployment("cart", cpu("1", "1")), follows(ofCPU(95))), []string{"warning HorizontalPodAutoscaler shop/cart: its target of 95 % never adds a pod: usage ends at the limits, 100 % of the requests, and pods are added above 104.5 %"}},
			"just in reach":      {scaled(deployment("cart", cpu("1", "1")), follows(ofCPU(90))), nil},
			"just out of reach":  {scaled(deployment("cart", cpu("1", "1")), follows(ofCPU(91))), []string{"warning HorizontalPodAutoscaler shop/cart: 91 %"}},
			"a tolerance of 0": {scaled(deployment("cart", cpu("1", "1")), follows(ofCPU(95)), func(o *autoscalingv2.HorizontalPodAutoscaler) {
				o.Spec.Behavior = &autoscalingv2.HorizontalPodAutoscalerBehavior{ScaleUp: &autoscalingv2.HPAScalingRules{Tolerance: ptr.To(resource.MustParse("0"))}}
			}), nil},
			"one without a limit": {scaled(deployment("cart", cpu("1", "1"), container(corev1.Container{Name: "proxy", Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1")}}})), follows(ofCPU(95))), nil},
			"the pod's own limit of another resource": {scaled(deployment("cart", cpu("1", "1"), func(w *Workload) {
				w.Spec.Template.Spec.Resources = &corev1.ResourceRequirements{Limits: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("1Gi")}}
			}, container(corev1.Container{Name: "proxy", Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1")}}})), follows(ofCPU(95))), nil},
			"of an IHPA":                             {Facts{IHPAs: []kapacity.IntelligentHorizontalPodAutoscaler{ihpa("cart", dynamic(95))}, Workloads: []Workload{deployment("cart", cpu("1", "1"))}}, []string{"warning IntelligentHorizontalPodAutoscaler shop/cart: 95 %"}},
			"of an IHPA with a tolerance of its own": {Facts{IHPAs: []kapacity.IntelligentHorizontalPodAutoscaler{ihpa("cart", dynamic(95, func(k *kapacity.KubeHPAPortraitAlgorithm) { k.ScaleUpTolerance = ptr.To(resource.MustParse("0.01")) }))}, Workloads: []Workload{deployment("cart", cpu("1", "1"))}}, nil},
		},
		"two-autoscalers": {
			"one each":                   {Facts{HPAs: []autoscalingv2.HorizontalPodAutoscaler{hpa("cart"), hpa("till")}}, nil},
			"an HPA and an IHPA":         {Facts{HPAs: []autoscalingv2.HorizontalPodAutoscaler{hpa("cart")}, IHPAs: []kapacity.IntelligentHorizontalPodAutoscaler{ihpa("cart")}}, []string{"error Deployment shop/cart: HorizontalPodAutoscaler shop/cart and IntelligentHorizontalPodAutoscaler shop/cart"}},
			"an IHPA that only previews": {Facts{HPAs: []autoscalingv2.HorizontalPodAutoscaler{hpa("cart")}, IHPAs: []kapacity.IntelligentHorizontalPodAutoscaler{ihpa("cart", func(o *kapacity.IntelligentHorizontalPodAutoscaler) { o.Spec.ScaleMode = kapacity.ScaleModePreview })}}, nil},
			"in two namespaces":          {Facts{HPAs: []autoscalingv2.HorizontalPodAutoscaler{hpa("cart"), hpa("cart", func(o *autoscalingv2.HorizontalPodAutoscaler) { o.Namespace = "bank" })}}, nil},
			"of two kinds": {Facts{HPAs: []autoscalingv2.HorizontalPodAutoscaler{hpa("cart"), hpa("cart", func(o *autoscalingv2.HorizontalPodAutoscaler) {
				o.Name, o.Spec.ScaleTargetRef.Kind = "other", "StatefulSet"
			})}}, nil},
		},
		"shared-selector": {
			"apart": {scaled(deployment("cart")).with(func(f *Facts) { f.Workloads = append(f.Workloads, deployment("till")) }), nil},
			"another's pods": {scaled(deployment("cart")).with(func(f *Facts) {
				f.Workloads = append(f.Workloads, deployment("till", func(w *Workload) { w.Spec.Template.Labels["app"] = "cart" }))
			}), []string{"error HorizontalPodAutoscaler shop/cart: the selector of Deployment shop/cart matches the pods of Deployment shop/till"}},
			"the other's selector only": {scaled(deployment("cart", more)).with(func(f *Facts) {
				f.Workloads = append(f.Workloads, deployment("till", func(w *Workload) { w.Spec.Selector.MatchLabels = map[string]string{"tier": "web"} }))
			}), nil},
			"in another namespace": {scaled(deployment("cart")).with(func(f *Facts) {
				f.Workloads = append(f.Workloads, deployment("cart", func(w *Workload) { w.Namespace = "bank" }))
			}), nil},
			"of a workload of its own": {scaled(deployment("cart")).with(func(f *Facts) {
				f.Workloads = append(f.Workloads, deployment("cart-1", func(w *Workload) {
					w.Spec.Template.Labels["app"] = "cart"
					w.OwnerReferences = []metav1.OwnerReference{{UID: "cart"}}
				}))
			}), nil},
			"an IHPA that counts its own": {Facts{IHPAs: []kapacity.IntelligentHorizontalPodAutoscaler{ihpa("cart", dynamic(50, func(k *kapacity.KubeHPAPortraitAlgorithm) { k.PodSelection = kapacity.OwnerPodSelection }))}, Workloads: []Workload{deployment("cart", cpu("1", "")), deployment("till", func(w *Workload) { w.Spec.Template.Labels["app"] = "cart" })}}, nil},
			"an IHPA that counts all":     {Facts{IHPAs: []kapacity.IntelligentHorizontalPodAutoscaler{ihpa("cart", dynamic(50))}, Workloads: []Workload{deployment("cart", cpu("1", "")), deployment("till", func(w *Workload) { w.Spec.Template.Labels["app"] = "cart" })}}, []string{"error IntelligentHorizontalPodAutoscaler shop/cart: Deployment shop/till"}},
		},
		"applied-replicas": {
			"through /scale only":          {scaled(deployment("cart", writer("keda", metav1.ManagedFieldsOperationUpdate, "scale"))), nil},
			"by the autoscalers":           {scaled(deployment("cart", writer("kubetide", metav1.ManagedFieldsOperationUpdate, ""), writer("kube-controller-manager", metav1.ManagedFieldsOperationUpdate, ""))), nil},
			"server-side apply":            {scaled(deployment("cart", writer("kustomize-controller", metav1.ManagedFieldsOperationApply, ""))), []string{`warning Deployment shop/cart: "kustomize-controller" writes spec.replicas, which HorizontalPodAutoscaler shop/cart scales`}},
			"client-side apply":            {scaled(deployment("cart", lastApplied(`{"spec":{"replicas":3}}`))), []string{"warning Deployment shop/cart: a client-side apply"}},
			"client-side apply without it": {scaled(deployment("cart", lastApplied(`{"spec":{}}`), writer("argocd-controller", metav1.ManagedFieldsOperationUpdate, ""))), nil},
			"updates":                      {scaled(deployment("cart", writer("helm", metav1.ManagedFieldsOperationUpdate, ""))), []string{`warning Deployment shop/cart: "helm" writes`}},
			"one replica by default":       {scaled(deployment("cart", replicas(1), writer("helm", metav1.ManagedFieldsOperationUpdate, ""))), nil},
			"a person's edit":              {scaled(deployment("cart", writer("kubectl-edit", metav1.ManagedFieldsOperationUpdate, ""))), nil},
			"nobody scales it":             {Facts{Workloads: []Workload{deployment("cart", writer("helm", metav1.ManagedFieldsOperationApply, ""))}}, nil},
		},
		"fixed-bounds": {
			"apart": {scaled(deployment("cart")), nil},
			"equal": {scaled(deployment("cart"), func(o *autoscalingv2.HorizontalPodAutoscaler) { o.Spec.MaxReplicas = 2 }), []string{"warning HorizontalPodAutoscaler shop/cart: both 2"}},
			"apart in a window": {ihpas(ihpa("cart", func(o *kapacity.IntelligentHorizontalPodAutoscaler) {
				o.Spec.MaxReplicas, o.Spec.ScheduledBounds = 2, []kapacity.ScheduledBounds{{Name: "day", Start: "0 8 * * *", End: "0 20 * * *", MaxReplicas: ptr.To[int32](9)}}
			})), nil},
		},
		"windows": {
			"by day":                  {ihpas(ihpa("cart", crons(kapacity.ReplicaCron{Name: "day", Start: "0 8 * * *", End: "0 20 * * *", Replicas: 5}))), nil},
			"a day that no month has": {ihpas(ihpa("cart", crons(kapacity.ReplicaCron{Name: "day", Start: "0 8 31 2 *", End: "0 20 * * *"}))), []string{"error IntelligentHorizontalPodAutoscaler shop/cart: spec.portraitProviders[0].cron.crons[0]: start: cron expression never fires"}},
			"a leap day":              {ihpas(ihpa("cart", crons(kapacity.ReplicaCron{Name: "day", Start: "0 8 29 2 *", End: "0 20 29 2 *"}))), nil},
			"not readable":            {ihpas(ihpa("cart", crons(kapacity.ReplicaCron{Name: "day", Start: "at eight", End: "0 20 * * *"}))), []string{"error IntelligentHorizontalPodAutoscaler shop/cart: start: invalid cron expression"}},
			"start and end are equal": {ihpas(ihpa("cart", crons(kapacity.ReplicaCron{Name: "day", Start: "0 8 * * *", End: "0 8 * * *"}))), []string{`warning IntelligentHorizontalPodAutoscaler shop/cart: the window from "0 8 * * *" to "0 8 * * *" never opens`}},
			"a start at each end":     {ihpas(ihpa("cart", crons(kapacity.ReplicaCron{Name: "day", Start: "0 * * * *", End: "0 20 * * *"}))), []string{"warning IntelligentHorizontalPodAutoscaler shop/cart: never opens"}},
			"a rare end":              {ihpas(ihpa("cart", crons(kapacity.ReplicaCron{Name: "day", Start: "*/2 * * * *", End: "1 0 1 1 *"}))), nil},
			"weekdays":                {ihpas(ihpa("cart", crons(kapacity.ReplicaCron{Name: "day", Start: "0 8 * * 1-5", End: "0 20 * * 1-5"}))), nil},
			"starts on weekdays, ends each day": {ihpas(ihpa("cart", crons(kapacity.ReplicaCron{Name: "day", Start: "0 8 * * 1-5", End: "0 20 * * *"}))),
				[]string{"warning IntelligentHorizontalPodAutoscaler shop/cart: stays open at its end, 2026-11-27T20:00:00Z, until 2026-11-28T20:00:00Z"}},
			"one window after the other": {ihpas(ihpa("cart", crons(kapacity.ReplicaCron{Name: "day", Start: "0 0 * * 1", End: "0 0 * * 1,2"}))), nil},
			"bounds that never change": {ihpas(ihpa("cart", func(o *kapacity.IntelligentHorizontalPodAutoscaler) {
				o.Spec.ScheduledBounds = []kapacity.ScheduledBounds{{Name: "day", Start: "@daily", End: "@daily"}}
			})), []string{"warning IntelligentHorizontalPodAutoscaler shop/cart: spec.scheduledBounds[0]"}},
		},
		"schedules": {
			"to come":                  {schedule(once("2027-12-24T18:00:00Z", "", 60)), nil},
			"going on":                 {schedule(once("2026-11-23T11:00:00Z", "2026-11-23T13:00:00Z", 0)), nil},
			"over":                     {schedule(once("2025-12-24T18:00:00Z", "", 60)), []string{"warning ScalingSchedule shop/sale: none of its windows comes any more"}},
			"one over, one to come":    {schedule(once("2025-12-24T18:00:00Z", "", 60), once("2026-12-24T18:00:00Z", "", 60)), nil},
			"no length":                {schedule(once("2026-12-24T18:00:00Z", "", 0)), []string{"warning ScalingSchedule shop/sale: spec.schedules[0]: the window ends when it begins"}},
			"an end before the start":  {schedule(once("2026-12-24T18:00:00Z", "2026-12-23T18:00:00Z", 0)), []string{"warning ScalingSchedule shop/sale: the window ends when it begins"}},
			"each day":                 {schedule(daily("08:00", "20:00", 0, zalando.MondaySchedule)), nil},
			"each day, by duration":    {schedule(daily("08:00", "", 60, zalando.MondaySchedule)), nil},
			"each day without length":  {schedule(daily("08:00", "08:00", 0, zalando.MondaySchedule)), []string{"warning ScalingSchedule shop/sale: the window ends when it begins"}},
			"no days":                  {schedule(daily("08:00", "20:00", 0)), []string{"warning ScalingSchedule shop/sale: none of its windows comes"}},
			"not readable":             {schedule(once("tomorrow", "", 60)), []string{"error ScalingSchedule shop/sale: spec.schedules[0].date: invalid schedule date"}},
			"of the cluster, and over": {Facts{ClusterSchedules: []zalando.ClusterScalingSchedule{{ObjectMeta: metav1.ObjectMeta{Name: "sale"}, Spec: zalando.ScalingScheduleSpec{Schedules: []zalando.Schedule{once("2025-12-24T18:00:00Z", "", 60)}}}}}, []string{"warning ClusterScalingSchedule sale: none"}},
		},
		"disruption-budget": {
			"one may go":             {scaled(deployment("cart")).with(func(f *Facts) { f.Budgets = []policyv1.PodDisruptionBudget{budget(nil, number(1), "cart")} }), nil},
			"none may go":            {scaled(deployment("cart")).with(func(f *Facts) { f.Budgets = []policyv1.PodDisruptionBudget{budget(nil, number(0), "cart")} }), []string{"warning PodDisruptionBudget shop/cart: with maxUnavailable 0 no pod of Deployment shop/cart may be evicted while it has 2"}},
			"all have to be there":   {scaled(deployment("cart")).with(func(f *Facts) { f.Budgets = []policyv1.PodDisruptionBudget{budget(percent("100%"), nil, "cart")} }), []string{"warning PodDisruptionBudget shop/cart: minAvailable 100%"}},
			"the fewest have to be":  {scaled(deployment("cart")).with(func(f *Facts) { f.Budgets = []policyv1.PodDisruptionBudget{budget(number(2), nil, "cart")} }), []string{"warning PodDisruptionBudget shop/cart: minAvailable 2"}},
			"fewer have to be there": {scaled(deployment("cart")).with(func(f *Facts) { f.Budgets = []policyv1.PodDisruptionBudget{budget(number(1), nil, "cart")} }), nil},
			"a share that rounds up": {scaled(deployment("cart")).with(func(f *Facts) { f.Budgets = []policyv1.PodDisruptionBudget{budget(percent("60%"), nil, "cart")} }), []string{"warning PodDisruptionBudget shop/cart: minAvailable 60%"}},
			"of other pods":          {scaled(deployment("cart")).with(func(f *Facts) { f.Budgets = []policyv1.PodDisruptionBudget{budget(nil, number(0), "till")} }), nil},
			"nobody scales them":     {Facts{Workloads: []Workload{deployment("cart")}, Budgets: []policyv1.PodDisruptionBudget{budget(nil, number(0), "cart")}}, nil},
		},
		"quota": {
			"room for all":       {scaled(deployment("cart")).with(func(f *Facts) { f.Quotas = []corev1.ResourceQuota{quota("pods", "10", "3")} }), nil},
			"pods":               {scaled(deployment("cart")).with(func(f *Facts) { f.Quotas = []corev1.ResourceQuota{quota("pods", "10", "5")} }), []string{"warning HorizontalPodAutoscaler shop/cart: only 8 of its maxReplicas 10 fit into ResourceQuota small, by its pods"}},
			"more used than is":  {scaled(deployment("cart")).with(func(f *Facts) { f.Quotas = []corev1.ResourceQuota{quota("pods", "1", "5")} }), []string{"warning HorizontalPodAutoscaler shop/cart: only 3"}},
			"cpu":                {scaled(deployment("cart", cpu("500m", ""))).with(func(f *Facts) { f.Quotas = []corev1.ResourceQuota{quota("requests.cpu", "4", "1500m")} }), []string{"warning HorizontalPodAutoscaler shop/cart: only 8 of its maxReplicas 10 fit into ResourceQuota small, by its requests.cpu"}},
			"cpu, exactly":       {scaled(deployment("cart", cpu("500m", ""))).with(func(f *Facts) { f.Quotas = []corev1.ResourceQuota{quota("cpu", "5", "1500m")} }), nil},
			"of other resources": {scaled(deployment("cart", cpu("500m", ""))).with(func(f *Facts) { f.Quotas = []corev1.ResourceQuota{quota("requests.memory", "1", "1")} }), nil},
			"of a scope": {scaled(deployment("cart")).with(func(f *Facts) {
				q := quota("pods", "10", "5")
				q.Spec.Scopes = []corev1.ResourceQuotaScope{corev1.ResourceQuotaScopeBestEffort}
				f.Quotas = []corev1.ResourceQuota{q}
			}), nil},
		},
	} {
		for name, tc := range cases {
			t.Run(check+"/"+name, func(t *testing.T) {
				var got []string
				for _, f := range Examine(tc.facts, now) {
					if f.Check != check {
						t.Errorf("found besides: %+v", f)
						continue
					}
					if f.Remedy == "" {
						t.Errorf("without a remedy: %+v", f)
					}
					line := fmt.Sprintf("%s %s: %s", f.Severity, f.Object, f.Problem)
					if i := len(got); i < len(tc.want) {
						if object, problem, _ := strings.Cut(tc.want[i], ": "); strings.HasPrefix(line, object+": ") && strings.Contains(line, problem) {
							line = tc.want[i]
						}
					}
					got = append(got, line)
				}
				if diff := cmp.Diff(tc.want, got); diff != "" {
					t.Errorf("-want +got:\n%s", diff)
				}
			})
		}
	}
}

func TestWhatAQuotaChargesAPodWith(t *testing.T) {
	always := corev1.ContainerRestartPolicyAlways
	with := func(name, n string) corev1.Container {
		return corev1.Container{Name: name, Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(n)}}}
	}
	restarting := with("proxy", "1")
	restarting.RestartPolicy = &always
	for name, tc := range map[string]struct {
		spec corev1.PodSpec
		want string
	}{
		"its containers together":               {corev1.PodSpec{Containers: []corev1.Container{with("a", "1"), with("b", "2")}}, "3"},
		"an init container that is larger":      {corev1.PodSpec{InitContainers: []corev1.Container{with("i", "5")}, Containers: []corev1.Container{with("a", "1")}}, "5"},
		"with one that restarts before it":      {corev1.PodSpec{InitContainers: []corev1.Container{restarting, with("i", "5")}, Containers: []corev1.Container{with("a", "1")}}, "6"},
		"with one that restarts, all the while": {corev1.PodSpec{InitContainers: []corev1.Container{restarting}, Containers: []corev1.Container{with("a", "1")}}, "2"},
		"its own request":                       {corev1.PodSpec{Resources: ptr.To(with("", "4").Resources), Containers: []corev1.Container{with("a", "1")}}, "4"},
		"its overhead":                          {corev1.PodSpec{Overhead: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1")}, Containers: []corev1.Container{with("a", "1")}}, "2"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := requests(&corev1.Pod{Spec: tc.spec}, corev1.ResourceCPU); got.Cmp(resource.MustParse(tc.want)) != 0 {
				t.Errorf("got %s, want %s", got.String(), tc.want)
			}
		})
	}
}

func TestErrorsComeFirst(t *testing.T) {
	f := Facts{HPAs: []autoscalingv2.HorizontalPodAutoscaler{hpa("a", func(o *autoscalingv2.HorizontalPodAutoscaler) { o.Spec.MaxReplicas = 2 }), hpa("z", hpaSays("ScalingActive", "False", "Failed")), hpa("b", hpaSays("ScalingActive", "False", "Failed"))}}
	var got []string
	for _, f := range Examine(f, now) {
		got = append(got, string(f.Severity)+" "+f.Object.Name)
	}
	if diff := cmp.Diff([]string{"error b", "error z", "warning a"}, got); diff != "" {
		t.Error(diff)
	}
}
