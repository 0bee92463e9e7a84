// Package step makes Deployments, Services and HorizontalPodAutoscalers of Steps, and Steps of Pipelines, as Kai documents them. What
// is to be there is decided by pure functions (Generate, Plan, Choose); the controllers read, compare and write. They write nothing
// but these objects, the status of Steps and Pipelines, and Events.
package step

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/utils/ptr"

	kai "github.com/kubetide/kubetide/api/kai/v1alpha1"
)

// progressDeadlineSeconds is Kai's, for Steps without the annotation.
const progressDeadlineSeconds = 60

// Objects are what is made of a Step.
type Objects struct {
	Deployment *appsv1.Deployment
	Service    *corev1.Service
	HPA        *autoscalingv2.HorizontalPodAutoscaler
}

// Options of Generate.
type Options struct {
	// ScaleToZero says that the cluster's HPAs may have minReplicas 0.
	ScaleToZero bool
}

// Problem is something in a spec that cannot work, or works otherwise than written.
type Problem struct {
	Reason, Message string
}

// The reasons of Problems, and of the conditions Invalid and Ready that come of them.
const (
	ReasonNameInvalid       = "NameInvalid"
	ReasonNoContainers      = "NoContainers"
	ReasonMaxBelowMin       = "MaxReplicasBelowMin"
	ReasonMinRaised         = "MinReplicasRaised"
	ReasonContainersIgnored = "ContainersIgnored"
	ReasonAnnotationInvalid = "AnnotationInvalid"
	ReasonDuplicateName     = "DuplicateName"
)

// deploymentName, serviceName and hpaName are the names of what is made of the Step of that name.
func deploymentName(step string) string { return step + "-deployment" }

func serviceName(step string) string { return step + "-service" }

func hpaName(step string) string { return step + "-hpa" }

// Generate returns what is to be there for the step, and what is wrong with it. Without objects, nothing can be made of it. What is
// live counts where it has a say: the replicas and the selector of the Deployment stay as they are. Annotations are those of creation;
// see update for what becomes of them later.
func Generate(step *kai.Step, model *Model, live Objects, opts Options) (Objects, []Problem) {
	if p := nameProblem(step.Name); p != nil {
		return Objects{}, []Problem{*p}
	}
	pods := podSpec(&step.Spec)
	var problems []Problem
	replicas := scaling{min: step.Spec.MinReplicas, max: step.Spec.MaxReplicas, metrics: step.Spec.Metrics, behavior: step.Spec.Behavior}
	if model != nil {
		if len(pods.Containers) > 0 {
			problems = append(problems, Problem{ReasonContainersIgnored,
				fmt.Sprintf("spec.containers: the containers are those of ModelRuntime %s/%s, because spec.model is set", model.Runtime.Namespace, model.Runtime.Name)})
		}
		model.mount(&pods, *step.Spec.Model)
		replicas.inherit(model.Runtime)
	}
	if len(pods.Containers) == 0 {
		return Objects{}, append(problems, Problem{ReasonNoContainers, "spec.containers: there is none, and no spec.model that would bring some"})
	}
	minReplicas, maxReplicas, bad := replicas.bounds(opts)
	problems = append(problems, bad...)
	deadline, err := progressDeadline(step)
	if err != nil {
		problems = append(problems, *err)
	}

	meta := func(name string) metav1.ObjectMeta {
		labels, annotations := inherited(step)
		out := metav1.ObjectMeta{Namespace: step.Namespace, Name: name, Labels: labels, Annotations: annotations,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(step, kai.SchemeGroupVersion.WithKind(kai.StepKind))}}
		recordCopied(&out)
		return out
	}
	templateLabels, templateAnnotations := inherited(step)
	selector := map[string]string{kai.StepUIDLabel: string(step.UID)}
	deployment := &appsv1.Deployment{
		ObjectMeta: meta(deploymentName(step.Name)),
		Spec: appsv1.DeploymentSpec{
			Replicas:                ptr.To(firstReplicas(minReplicas, maxReplicas, live.HPA)),
			Selector:                &metav1.LabelSelector{MatchLabels: selector},
			ProgressDeadlineSeconds: ptr.To(deadline),
			Strategy: appsv1.DeploymentStrategy{Type: appsv1.RollingUpdateDeploymentStrategyType,
				RollingUpdate: &appsv1.RollingUpdateDeployment{MaxUnavailable: ptr.To(intstr.FromInt32(0))}},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: templateLabels, Annotations: templateAnnotations}, Spec: pods},
		},
	}
	if d := live.Deployment; d != nil {
		keep(&deployment.Spec, &d.Spec)
		selector = maps.Clone(deployment.Spec.Selector.MatchLabels)
		maps.Copy(deployment.Spec.Template.Labels, selector) // the pods and the Service keep to the selector
	}
	return Objects{
		Deployment: deployment,
		Service: &corev1.Service{
			ObjectMeta: meta(serviceName(step.Name)),
			Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, Selector: selector, Ports: servicePorts(pods.Containers)},
		},
		HPA: &autoscalingv2.HorizontalPodAutoscaler{
			ObjectMeta: meta(hpaName(step.Name)),
			Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
				ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: deploymentName(step.Name)},
				MinReplicas:    &minReplicas, MaxReplicas: maxReplicas,
				Metrics: append([]autoscalingv2.MetricSpec{}, replicas.metrics...), Behavior: replicas.behaviorOrEmpty(),
			},
		},
	}, problems
}

// nameProblem says what the API server would say of the names that come of it, in words that name the cause.
func nameProblem(step string) *Problem {
	const most = validation.DNS1035LabelMaxLength - len("-service")
	if len(step) > most {
		return &Problem{ReasonNameInvalid, fmt.Sprintf("metadata.name: the name has %d characters; with more than %d the Service %s would have more than %d",
			len(step), most, serviceName("NAME"), validation.DNS1035LabelMaxLength)}
	}
	if bad := validation.IsDNS1035Label(serviceName(step)); len(bad) > 0 {
		return &Problem{ReasonNameInvalid, fmt.Sprintf("metadata.name: %q gives no valid name of a Service: %s", step, strings.Join(bad, "; "))}
	}
	return nil
}

// podSpec turns the spec of a Step into that of its pods, which has the same fields on the wire.
func podSpec(spec *kai.StepSpec) corev1.PodSpec {
	var out corev1.PodSpec
	text, err := json.Marshal(&spec.PodSpec)
	if err == nil {
		err = json.Unmarshal(text, &out)
	}
	if err != nil {
		panic(fmt.Sprintf("a Step's pod spec is no pod spec: %v", err)) // the types were read from JSON
	}
	return out
}

// scaling is what a HorizontalPodAutoscaler is made of.
type scaling struct {
	min      *int32
	max      int32
	metrics  []autoscalingv2.MetricSpec
	behavior *autoscalingv2.HorizontalPodAutoscalerBehavior
}

// inherit takes from the runtime what the Step leaves open.
func (s *scaling) inherit(runtime *kai.ModelRuntime) {
	if s.min == nil {
		s.min = runtime.Spec.MinReplicas
	}
	s.max = cmp.Or(s.max, runtime.Spec.MaxReplicas)
	if len(s.metrics) == 0 {
		s.metrics = runtime.Spec.Metrics
	}
	if s.behavior == nil {
		s.behavior = runtime.Spec.Behavior
	}
}

func (s *scaling) bounds(opts Options) (least, most int32, problems []Problem) {
	asked := ptr.Deref(s.min, 1)
	least = max(asked, 1)
	wakes := slices.ContainsFunc(s.metrics, func(m autoscalingv2.MetricSpec) bool {
		return m.Type == autoscalingv2.ObjectMetricSourceType || m.Type == autoscalingv2.ExternalMetricSourceType
	})
	switch {
	case asked == 0 && opts.ScaleToZero && wakes:
		least = 0
	case asked == 0 && opts.ScaleToZero:
		problems = append(problems, Problem{ReasonMinRaised, "spec.minReplicas: 0 counts as 1: at 0, only a metric of the type Object or External can tell that pods are needed"})
	case asked == 0:
		problems = append(problems, Problem{ReasonMinRaised, "spec.minReplicas: 0 counts as 1: the server runs without --step-scale-to-zero"})
	case asked < 0:
		problems = append(problems, Problem{ReasonMinRaised, fmt.Sprintf("spec.minReplicas: %d counts as 1", asked)})
	}
	most = max(s.max, least, 1)
	if s.max != 0 && s.max < most {
		problems = append(problems, Problem{ReasonMaxBelowMin, fmt.Sprintf("spec.maxReplicas: %d is below minReplicas; %d is used", s.max, most)})
	}
	return least, most, problems
}

// behaviorOrEmpty is never nil: with an empty one, the API server writes down the defaults.
func (s *scaling) behaviorOrEmpty() *autoscalingv2.HorizontalPodAutoscalerBehavior {
	if s.behavior == nil {
		return &autoscalingv2.HorizontalPodAutoscalerBehavior{}
	}
	return s.behavior.DeepCopy()
}

// firstReplicas are those of a Deployment that is not there. If it was deleted beneath its HPA, what that wanted last is still wanted.
func firstReplicas(least, most int32, live *autoscalingv2.HorizontalPodAutoscaler) int32 {
	first := max(least, 1)
	if live != nil {
		first = max(first, min(live.Status.DesiredReplicas, most))
	}
	return first
}

func progressDeadline(step *kai.Step) (int32, *Problem) {
	text, set := step.Annotations[kai.ProgressDeadlineAnnotation]
	if !set {
		return progressDeadlineSeconds, nil
	}
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil || n < 1 {
		return progressDeadlineSeconds, &Problem{ReasonAnnotationInvalid,
			fmt.Sprintf("metadata.annotations[%s]: %q is no number of seconds above 0; %d is used", kai.ProgressDeadlineAnnotation, text, progressDeadlineSeconds)}
	}
	return int32(n), nil
}

// servicePorts are the ports of all containers. A single one stands alone, as Kai documents it; several need names, and keep
// those that they have.
func servicePorts(containers []corev1.Container) []corev1.ServicePort {
	type port struct {
		number   int32
		protocol corev1.Protocol
	}
	var ports []corev1.ServicePort
	seen := map[port]bool{}
	for _, c := range containers {
		for _, p := range c.Ports {
			key := port{p.ContainerPort, cmp.Or(p.Protocol, corev1.ProtocolTCP)}
			if seen[key] {
				continue
			}
			seen[key] = true
			ports = append(ports, corev1.ServicePort{Name: p.Name, Protocol: key.protocol, Port: key.number, TargetPort: intstr.FromInt32(key.number)})
		}
	}
	switch len(ports) {
	case 0:
		return []corev1.ServicePort{{Port: 80}}
	case 1:
		ports[0].Name = ""
		if ports[0].Protocol == corev1.ProtocolTCP {
			ports[0].Protocol = ""
		}
		return ports
	}
	names := map[string]bool{}
	for i, p := range ports {
		// Two containers may use one name for different ports; the made-up name of a port could only be somebody's by malice.
		for p.Name == "" || names[p.Name] {
			made := fmt.Sprintf("port-%d-%s", p.Port, strings.ToLower(string(p.Protocol)))
			for names[made] {
				made += "-2"
			}
			p.Name = made
		}
		names[p.Name] = true
		ports[i] = p
	}
	return ports
}
