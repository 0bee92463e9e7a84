package kubelet

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

func TestExpand(t *testing.T) {
	env := environment{"A": "1", "B": "$(A)"}
	for name, tc := range map[string]struct{ text, want string }{
		"a variable that is set is replaced":           {"x$(A)y", "x1y"},
		"what it holds is not expanded again":          {"$(B)", "$(A)"},
		"a variable that is not set stays":             {"$(C)", "$(C)"},
		"two dollars are one, and hide a variable":     {"$$(A) $$$(A)", "$(A) $1"},
		"a dollar alone, at the end or unclosed stays": {"$ $A $(A $", "$ $A $(A $"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := env.expand(tc.text); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestResourceField(t *testing.T) {
	c := &corev1.Container{Resources: corev1.ResourceRequirements{
		Limits:   corev1.ResourceList{"cpu": resource.MustParse("1500m"), "memory": resource.MustParse("100Mi")},
		Requests: corev1.ResourceList{"cpu": resource.MustParse("250m")},
	}}
	for name, tc := range map[string]struct{ resource, divisor, want string }{
		"processors are rounded up":           {"limits.cpu", "0", "2"},
		"thousandths of a processor":          {"requests.cpu", "1m", "250"},
		"memory in bytes":                     {"limits.memory", "0", "104857600"},
		"memory in units of the divisor":      {"limits.memory", "1Mi", "100"},
		"a request that is absent is nothing": {"requests.memory", "0", "0"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := resourceField(c, &corev1.ResourceFieldSelector{Resource: tc.resource, Divisor: resource.MustParse(tc.divisor)})
			if err != nil || got != tc.want {
				t.Errorf("got %q, %v, want %q", got, err, tc.want)
			}
		})
	}
}
