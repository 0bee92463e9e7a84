// Package doctor finds what makes scaling go wrong in objects as the API server has them. It is pure: who reads the objects, and says what
// could not be read, is its caller. Of what was not read it says nothing.
package doctor

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	zalando "github.com/kubetide/kubetide/api/zalando/v1"
)

// Severity is how bad a finding is.
type Severity string

const (
	// Error is what keeps something from scaling as it is meant to.
	Error Severity = "error"
	// Warning is what may do so, or will one day.
	Warning Severity = "warning"
)

// Finding is one thing that is wrong.
type Finding struct {
	Severity Severity `json:"severity"`
	// Check is the name of the check that found it.
	Check   string `json:"check"`
	Object  Object `json:"object"`
	Problem string `json:"problem"`
	Remedy  string `json:"remedy"`
}

// Object names an object. Namespace is empty for those of the cluster.
type Object struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
}

func (o Object) String() string {
	if o.Namespace == "" {
		return o.Kind + " " + o.Name
	}
	return fmt.Sprintf("%s %s/%s", o.Kind, o.Namespace, o.Name)
}

// Facts are the objects that are looked at.
type Facts struct {
	HPAs             []autoscalingv2.HorizontalPodAutoscaler
	IHPAs            []kapacity.IntelligentHorizontalPodAutoscaler
	Workloads        []Workload
	Budgets          []policyv1.PodDisruptionBudget
	Quotas           []corev1.ResourceQuota
	LimitRanges      []corev1.LimitRange
	Schedules        []zalando.ScalingSchedule
	ClusterSchedules []zalando.ClusterScalingSchedule
	// APIServices are nil under the names of those that are not there. Those that were not read have no entry.
	APIServices map[string]*APIService
}

// Workload is a Deployment, a StatefulSet or a ReplicaSet, which are alike in what matters.
type Workload struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              WorkloadSpec   `json:"spec"`
	Status            WorkloadStatus `json:"status"`
}

// WorkloadSpec is of a Workload.
type WorkloadSpec struct {
	Replicas *int32                 `json:"replicas"`
	Selector *metav1.LabelSelector  `json:"selector"`
	Template corev1.PodTemplateSpec `json:"template"`
}

// WorkloadStatus is of a Workload.
type WorkloadStatus struct {
	// Replicas is how many pods there are.
	Replicas int32 `json:"replicas"`
}

// APIService is what matters of one of apiregistration.k8s.io/v1.
type APIService struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Status            APIServiceStatus `json:"status"`
}

// APIServiceStatus is of an APIService.
type APIServiceStatus struct {
	Conditions []metav1.Condition `json:"conditions"`
}

var checks = []struct {
	name string
	find func(*cluster) []Finding
}{
	{"conditions", conditions},
	{"metrics-api", metricsAPIs},
	{"missing-request", missingRequests},
	{"unreachable-target", unreachableTargets},
	{"two-autoscalers", twoAutoscalers},
	{"shared-selector", sharedSelectors},
	{"applied-replicas", appliedReplicas},
	{"fixed-bounds", fixedBounds},
	{"windows", windows},
	{"schedules", schedules},
	{"disruption-budget", disruptionBudgets},
	{"quota", quotas},
}

// Examine returns what is wrong, errors first, then by object.
func Examine(f Facts, now time.Time) []Finding {
	c := newCluster(f, now)
	found := []Finding{}
	for _, check := range checks {
		for _, finding := range check.find(c) {
			finding.Check = check.name
			found = append(found, finding)
		}
	}
	slices.SortStableFunc(found, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Severity, b.Severity), cmp.Compare(a.Object.Namespace, b.Object.Namespace),
			cmp.Compare(a.Object.Kind, b.Object.Kind), cmp.Compare(a.Object.Name, b.Object.Name))
	})
	return found
}
