package blocks

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// least is the least that the API server takes of each kind of which pages show parts.
var least = map[string]string{
	"Deployment":  `{apiVersion: apps/v1, spec: {selector: {matchLabels: {app: part}}, template: {metadata: {labels: {app: part}}, spec: {containers: [{name: main, image: part}]}}}}`,
	"StatefulSet": `{apiVersion: apps/v1, spec: {serviceName: part, selector: {matchLabels: {app: part}}, template: {metadata: {labels: {app: part}}, spec: {containers: [{name: main, image: part}]}}}}`,
	"Pod":         `{apiVersion: v1, spec: {containers: [{name: main, image: part}]}}`,
	"Service":     `{apiVersion: v1, spec: {selector: {app: part}, ports: [{port: 80}]}}`,
	"ConfigMap":   `{apiVersion: v1}`,
	"Secret":      `{apiVersion: v1}`,
	"Ingress":     `{apiVersion: networking.k8s.io/v1, spec: {defaultBackend: {service: {name: part, port: {number: 80}}}}}`,

	"HorizontalPodAutoscaler": `{apiVersion: autoscaling/v2, spec: {maxReplicas: 10, scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: part}}}`,
	"IntelligentHorizontalPodAutoscaler": `{apiVersion: autoscaling.kapacitystack.io/v1alpha1, spec: {minReplicas: 1, maxReplicas: 10,
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: part}, portraitProviders: [{type: Static, priority: 1, static: {replicas: 2}}]}}`,
	"HorizontalPortrait": `{apiVersion: autoscaling.kapacitystack.io/v1alpha1, spec: {portraitType: Reactive, algorithm: {type: KubeHPA},
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: part}, metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 60}}}]}}`,
	"ScalingSchedule":        `{apiVersion: zalando.org/v1, spec: {schedules: [{type: OneTime, date: "2026-11-27T18:00:00Z", durationMinutes: 60, value: 100}]}}`,
	"ClusterScalingSchedule": `{apiVersion: zalando.org/v1, spec: {schedules: [{type: OneTime, date: "2026-11-27T18:00:00Z", durationMinutes: 60, value: 100}]}}`,
	"StackSet":               `{apiVersion: zalando.org/v1, spec: {stackLifecycle: {limit: 5}, stackTemplate: {spec: {version: v1, podTemplate: {spec: {containers: [{name: main, image: part, ports: [{containerPort: 80}], resources: {requests: {cpu: 100m}}}]}}}}}}`,
	"Stack":                  `{apiVersion: zalando.org/v1, spec: {podTemplate: {spec: {containers: [{name: main, image: part, ports: [{containerPort: 80}]}]}}}}`,
	"Step":                   `{apiVersion: core.kai.io/v1alpha1, spec: {containers: [{name: main, image: part}]}}`,
	"Pipeline":               `{apiVersion: core.kai.io/v1alpha1, spec: {steps: [{spec: {containers: [{name: main, image: part}]}}]}}`,
}

// Whole is a Part as an object that the API server takes: what it has goes into the least object of its kind. Lists replace lists.
func (b Block) Whole() (string, error) {
	base, ok := least[b.Of]
	if !ok {
		return "", fmt.Errorf("nothing is known of the kind %s; known: %s", b.Of, strings.Join(slices.Sorted(maps.Keys(least)), ", "))
	}
	object, part := map[string]any{}, map[string]any{}
	if err := yaml.Unmarshal([]byte(base), &object); err != nil {
		return "", err
	}
	if err := yaml.UnmarshalStrict([]byte(b.Text), &part); err != nil {
		return "", err
	}
	if part["kind"] != nil || part["apiVersion"] != nil {
		return "", fmt.Errorf("a part has neither kind nor apiVersion")
	}
	object["kind"], object["metadata"] = b.Of, map[string]any{"name": "part"}
	lay(object, part)
	whole, err := yaml.Marshal(object)
	return string(whole), err
}

// lay puts what is in over onto what is in under.
func lay(under, over map[string]any) {
	for key, value := range over {
		below, is := under[key].(map[string]any)
		if above, too := value.(map[string]any); is && too {
			lay(below, above)
			continue
		}
		under[key] = value
	}
}
