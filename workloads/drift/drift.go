// Package drift tells whether a live object is what the API server makes of a wanted one, without asking it. It knows the API
// server's defaults, and nothing of whose objects they are. It is pure but for Settled, which remembers what is no default.
package drift

import (
	"reflect"
	"strings"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"
)

// Covers tells whether the live value is what the API server makes of the wanted one. Both are pointers to structs of one type.
// Everything wanted must be there, and everything else that is there must be a default of the API server: what somebody added is
// drift. A default that is not known here costs one write, after which the server's answer tells (the controllers remember it).
func Covers(live, want any) bool {
	l, err1 := runtime.DefaultUnstructuredConverter.ToUnstructured(live)
	w, err2 := runtime.DefaultUnstructuredConverter.ToUnstructured(want)
	return err1 == nil && err2 == nil && coversMap(l, w)
}

func coversMap(live, want map[string]any) bool {
	for key, wanted := range want {
		have, there := live[key]
		if !there {
			if !empty(wanted) {
				return false
			}
			continue
		}
		if !coversValue(have, wanted) {
			return false
		}
	}
	for key, have := range live {
		if _, wanted := want[key]; !wanted && !empty(have) && !isDefault(live, want, key) {
			return false
		}
	}
	return true
}

func coversValue(live, want any) bool {
	switch w := want.(type) {
	case map[string]any:
		l, ok := live.(map[string]any)
		return ok && coversMap(l, w)
	case []any:
		l, ok := live.([]any)
		if !ok || len(l) != len(w) {
			return false
		}
		for i := range w {
			if !coversValue(l[i], w[i]) {
				return false
			}
		}
		return true
	}
	return reflect.DeepEqual(live, want)
}

// empty is what a field without omitempty says where nothing is said. Numbers and booleans are no such: with a pointer, 0 and false
// were written by somebody.
func empty(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case string:
		return v == ""
	case map[string]any:
		return len(v) == 0
	case []any:
		return len(v) == 0
	}
	return false
}

// defaults are what the API server writes where nothing is said, by the name of the field. No name has different ones at
// different places of a Deployment.
var defaults = map[string][]any{
	"revisionHistoryLimit":          {int64(10)},
	"maxSurge":                      {"25%"},
	"dnsPolicy":                     {"ClusterFirst"},
	"restartPolicy":                 {"Always"},
	"schedulerName":                 {"default-scheduler"},
	"terminationGracePeriodSeconds": {int64(30)},
	"terminationMessagePath":        {"/dev/termination-log"},
	"terminationMessagePolicy":      {"File"},
	"protocol":                      {"TCP"},
	"timeoutSeconds":                {int64(1)},
	"periodSeconds":                 {int64(10)},
	"successThreshold":              {int64(1)},
	"failureThreshold":              {int64(3)},
	"scheme":                        {"HTTP"},
	"path":                          {"/"},
	"apiVersion":                    {"v1"},
	"defaultMode":                   {int64(420)},
	"expirationSeconds":             {int64(3600)},
	"volumeMode":                    {"Filesystem"},
	"procMount":                     {"Default"},
	"iscsiInterface":                {"default"},
	"pool":                          {"rbd"},
	"user":                          {"admin"},
	"keyring":                       {"/etc/ceph/keyring"},
	"cachingMode":                   {"ReadWrite"},
	"kind":                          {"Shared"},
	"storageMode":                   {"ThinProvisioned"},
	"fsType":                        {"ext4", "xfs"},
}

func isDefault(live, want map[string]any, key string) bool {
	switch key {
	case "imagePullPolicy":
		image, _ := live["image"].(string)
		return live[key] == string(PullPolicy(image))
	case "hostPort":
		return live[key] == live["containerPort"]
	case "serviceAccount": // the old name and the new one are kept alike
		return live[key] == want["serviceAccountName"]
	case "serviceAccountName":
		return live[key] == want["serviceAccount"]
	}
	for _, d := range defaults[key] {
		if live[key] == d {
			return true
		}
	}
	return false
}

// PullPolicy is the default for the image.
func PullPolicy(image string) corev1.PullPolicy {
	name, digest, _ := strings.Cut(image, "@")
	if digest != "" {
		return corev1.PullIfNotPresent
	}
	_, tag, _ := strings.Cut(name[strings.LastIndex(name, "/")+1:], ":")
	if tag == "" || tag == "latest" {
		return corev1.PullAlways
	}
	return corev1.PullIfNotPresent
}

// StoredHPA returns what the API server makes of the spec of an HPA.
func StoredHPA(spec *autoscalingv2.HorizontalPodAutoscalerSpec) *autoscalingv2.HorizontalPodAutoscalerSpec {
	out := spec.DeepCopy()
	if len(out.Metrics) == 0 {
		out.Metrics = []autoscalingv2.MetricSpec{{Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{
			Name: corev1.ResourceCPU, Target: autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: ptr.To[int32](80)}}}}
	}
	if b := out.Behavior; b != nil {
		all := autoscalingv2.HPAScalingPolicy{Type: autoscalingv2.PercentScalingPolicy, Value: 100, PeriodSeconds: 15}
		b.ScaleUp = rules(b.ScaleUp, ptr.To[int32](0), []autoscalingv2.HPAScalingPolicy{{Type: autoscalingv2.PodsScalingPolicy, Value: 4, PeriodSeconds: 15}, all})
		b.ScaleDown = rules(b.ScaleDown, nil, []autoscalingv2.HPAScalingPolicy{all})
	}
	return out
}

func rules(given *autoscalingv2.HPAScalingRules, window *int32, policies []autoscalingv2.HPAScalingPolicy) *autoscalingv2.HPAScalingRules {
	if given == nil {
		given = &autoscalingv2.HPAScalingRules{}
	}
	if given.SelectPolicy == nil {
		given.SelectPolicy = ptr.To(autoscalingv2.MaxChangePolicySelect)
	}
	if given.StabilizationWindowSeconds == nil {
		given.StabilizationWindowSeconds = window
	}
	if given.Policies == nil {
		given.Policies = policies
	}
	return given
}

// CoversService looks at what an owner decides of its Service; addresses and families are the cluster's.
func CoversService(live, want *corev1.ServiceSpec) bool {
	decided := func(s *corev1.ServiceSpec) *corev1.ServiceSpec {
		out := &corev1.ServiceSpec{Type: s.Type, Selector: s.Selector, Ports: s.Ports, ExternalName: s.ExternalName, PublishNotReadyAddresses: s.PublishNotReadyAddresses}
		if s.SessionAffinity != corev1.ServiceAffinityNone {
			out.SessionAffinity = s.SessionAffinity
		}
		return out
	}
	if live.PublishNotReadyAddresses || live.ExternalName != "" || len(live.Selector) != len(want.Selector) {
		return false
	}
	return Covers(withTargets(decided(live)), withTargets(decided(want)))
}

// withTargets says what is meant where nothing is said.
func withTargets(s *corev1.ServiceSpec) *corev1.ServiceSpec {
	ports := make([]corev1.ServicePort, len(s.Ports))
	for i, p := range s.Ports {
		if p.TargetPort.IntVal == 0 && p.TargetPort.StrVal == "" {
			p.TargetPort.IntVal = p.Port
		}
		ports[i] = p
	}
	s.Ports = ports
	return s
}
