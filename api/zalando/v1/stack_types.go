package v1

import (
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Stack is one version of an application: its pods, its autoscaler, its Service, and its share of the traffic. It is made from a
// StackSet.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:categories=all
// +kubebuilder:subresource:status
// +kubebuilder:subresource:scale:specpath=.spec.replicas,statuspath=.status.replicas,selectorpath=.status.labelSelector
// +kubebuilder:printcolumn:name="Desired",type=integer,JSONPath=`.spec.replicas`,description="Number of desired pods"
// +kubebuilder:printcolumn:name="Current",type=integer,JSONPath=`.status.replicas`,description="Number of pods"
// +kubebuilder:printcolumn:name="Up-To-Date",type=integer,JSONPath=`.status.updatedReplicas`,description="Number of pods of the current template"
// +kubebuilder:printcolumn:name="Ready",type=integer,JSONPath=`.status.readyReplicas`,description="Number of ready pods"
// +kubebuilder:printcolumn:name="Traffic",type=number,JSONPath=`.status.actualTrafficWeight`,description="Share of the traffic that it gets"
// +kubebuilder:printcolumn:name="No-Traffic-Since",type=date,JSONPath=`.status.noTrafficSince`,description="Since when it gets no traffic"
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type Stack struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// What should be.
	Spec StackSpecInternal `json:"spec"`
	// What is. Written by the controller.
	// +optional
	Status StackStatus `json:"status,omitzero"`
}

// StackList is a list of Stacks.
//
// +kubebuilder:object:root=true
type StackList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Stack `json:"items"`
}

// StackSpecInternal is a Stack's spec with the StackSet's ways in, as they were when the Stack was made.
type StackSpecInternal struct {
	StackSpec `json:",inline"`

	// How another controller makes traffic come in.
	// +optional
	ExternalIngress *StackSetExternalIngressSpec `json:"externalIngress,omitempty"`

	// How traffic comes in through Ingresses.
	// +optional
	Ingress *StackSetIngressSpec `json:"ingress,omitempty"`

	// How traffic comes in through RouteGroups.
	// +optional
	RouteGroup *StackSetRouteGroupSpec `json:"routegroup,omitempty"`
}

// StackSpec is what a Stack is, besides its version and its ways in.
type StackSpec struct {
	// How many pods there are while there is no autoscaler, and at first. The default is 1.
	// +optional
	Replicas *int32 `json:"replicas,omitempty"`

	// How long a new pod must have been ready to count as available, in seconds.
	// +optional
	MinReadySeconds int32 `json:"minReadySeconds,omitempty"`

	// The Service. Without ports it has one for each port of the containers.
	// +optional
	Service *StackServiceSpec `json:"service,omitempty"`

	// The pods.
	PodTemplate corev1.PodTemplateSpec `json:"podTemplate"`

	// How pods are replaced when the template changes.
	// +optional
	Strategy *appsv1.DeploymentStrategy `json:"strategy,omitempty"`

	// How the number of pods follows metrics.
	// +optional
	Autoscaler *Autoscaler `json:"autoscaler,omitempty"`

	// ConfigMaps, Secrets and credentials that belong to the Stack, and go when it goes. Their names begin with the Stack's.
	// +kubebuilder:validation:MaxItems=1000
	// +listType=atomic
	// +optional
	ConfigurationResources []ConfigurationResourcesSpec `json:"configurationResources,omitempty"`
}

// StackServiceSpec is what the Service is made from.
type StackServiceSpec struct {
	// Metadata of the Service.
	// +optional
	EmbeddedObjectMetaWithAnnotations `json:"metadata,omitzero"`

	// The ports. Without any there is one for each port of the containers.
	// +kubebuilder:validation:MaxItems=1000
	// +listType=atomic
	// +optional
	Ports []corev1.ServicePort `json:"ports,omitempty"`
}

// ConfigurationResourcesSpec is one thing that belongs to the Stack: exactly one of its fields is set.
type ConfigurationResourcesSpec struct {
	// A ConfigMap that is made for the Stack.
	// +optional
	ConfigMap *ConfigMapSpec `json:"configMap,omitempty"`

	// A ConfigMap that is there already.
	// +optional
	ConfigMapRef *corev1.LocalObjectReference `json:"configMapRef,omitempty"`

	// A Secret that is there already.
	// +optional
	SecretRef *corev1.LocalObjectReference `json:"secretRef,omitempty"`

	// Credentials that the platform's operator issues.
	// +optional
	PlatformCredentialsSet *PCS `json:"platformCredentialsSet,omitempty"`
}

// ConfigMapSpec is what a ConfigMap is made from.
type ConfigMapSpec struct {
	// The name. It begins with the Stack's.
	// +optional
	Name string `json:"name,omitempty"`
	// The data.
	// +optional
	Data map[string]string `json:"data,omitempty"`
}

// PCS is what a PlatformCredentialsSet is made from.
type PCS struct {
	// The name. It begins with the Stack's.
	// +optional
	Name string `json:"name,omitempty"`
	// The tokens by their names.
	// +optional
	Tokens map[string]PCSToken `json:"tokens,omitempty"`
}

// PCSToken is a token and what it permits.
type PCSToken struct {
	// What the token permits.
	// +kubebuilder:validation:MaxItems=1000
	// +listType=atomic
	Privileges []string `json:"privileges"`
}

// Autoscaler is how the number of pods follows metrics.
//
// +kubebuilder:validation:XValidation:rule=`!has(self.minReplicas) || self.minReplicas <= self.maxReplicas`,message="maxReplicas must not be less than minReplicas",fieldPath=".maxReplicas"
type Autoscaler struct {
	// The least number of pods. The default is 1.
	// +optional
	MinReplicas *int32 `json:"minReplicas,omitempty"`

	// The greatest number of pods.
	MaxReplicas int32 `json:"maxReplicas"`

	// The metrics. The one that asks for most pods counts.
	// +kubebuilder:validation:MaxItems=100
	// +listType=atomic
	Metrics []AutoscalerMetrics `json:"metrics"`

	// How fast the number may change.
	// +optional
	Behavior *autoscalingv2.HorizontalPodAutoscalerBehavior `json:"behavior,omitempty"`
}

// AutoscalerMetricType names a kind of metric.
//
// +kubebuilder:validation:Enum=CPU;Memory;AmazonSQS;PodJSON;PodJson;Ingress;RouteGroup;ZMON;ScalingSchedule;ClusterScalingSchedule;RequestsPerSecond
type AutoscalerMetricType string

// The kinds of metrics.
const (
	CPUMetric                    AutoscalerMetricType = "CPU"
	MemoryMetric                 AutoscalerMetricType = "Memory"
	AmazonSQSMetric              AutoscalerMetricType = "AmazonSQS"
	PodJSONMetric                AutoscalerMetricType = "PodJSON"
	IngressMetric                AutoscalerMetricType = "Ingress"
	RouteGroupMetric             AutoscalerMetricType = "RouteGroup"
	ZMONMetric                   AutoscalerMetricType = "ZMON"
	ScalingScheduleMetric        AutoscalerMetricType = "ScalingSchedule"
	ClusterScalingScheduleMetric AutoscalerMetricType = "ClusterScalingSchedule"
	RequestsPerSecondMetric      AutoscalerMetricType = "RequestsPerSecond"

	// PodJsonMetric is PodJSON as the user documentation writes it.
	PodJsonMetric AutoscalerMetricType = "PodJson" //nolint:revive // the documented spelling
)

// AutoscalerMetrics is one metric and its target. Which fields are needed depends on the type.
type AutoscalerMetrics struct {
	// The kind of metric.
	Type AutoscalerMetricType `json:"type"`

	// The value for each pod that the autoscaler keeps to. For all types but CPU and Memory.
	// +optional
	Average *resource.Quantity `json:"average,omitempty"`

	// The use of cpu or memory, in percent of the requests, that the autoscaler keeps to. For CPU and Memory.
	// +optional
	AverageUtilization *int32 `json:"averageUtilization,omitempty"`

	// The container whose cpu or memory counts. Without it all do.
	// +optional
	Container string `json:"container,omitempty"`

	// Where pods show a number. For PodJSON.
	// +optional
	Endpoint *MetricsEndpoint `json:"endpoint,omitempty"`

	// The queue whose length counts. For AmazonSQS.
	// +optional
	Queue *MetricsQueue `json:"queue,omitempty"`

	// The check whose value counts. For ZMON.
	// +optional
	ZMON *MetricsZMON `json:"zmon,omitempty"`

	// The schedule whose value counts. For ScalingSchedule.
	// +optional
	ScalingSchedule *MetricsScalingSchedule `json:"scalingSchedule,omitempty"`

	// The schedule whose value counts. For ClusterScalingSchedule.
	// +optional
	ClusterScalingSchedule *MetricsScalingSchedule `json:"clusterScalingSchedule,omitempty"`

	// The hosts whose requests count. For RequestsPerSecond.
	// +optional
	RequestsPerSecond *MetricsRequestsPerSecond `json:"requestsPerSecond,omitempty"`
}

// MetricsEndpoint is where pods show a number.
type MetricsEndpoint struct {
	// The port of the pods.
	Port int32 `json:"port"`
	// The path.
	Path string `json:"path"`
	// The JSON path of the number in the answer.
	Key string `json:"key"`
	// The name of the metric. The default is made from the key.
	// +optional
	Name string `json:"name,omitempty"`
}

// MetricsQueue is a queue of Amazon SQS.
type MetricsQueue struct {
	// The name.
	Name string `json:"name"`
	// The region of AWS.
	Region string `json:"region"`
}

// MetricsZMON is a check of ZMON.
type MetricsZMON struct {
	// The id of the check.
	// +kubebuilder:validation:Pattern=`^[0-9]+$`
	CheckID string `json:"checkID"`
	// The key of the value in the check's results.
	Key string `json:"key"`
	// How far back results count.
	// +kubebuilder:default="5m"
	// +optional
	Duration string `json:"duration,omitempty"`
	// How results are put together.
	// +kubebuilder:validation:MaxItems=100
	// +listType=atomic
	// +optional
	Aggregators []ZMONAggregator `json:"aggregators,omitempty"`
	// Tags that results must have.
	// +optional
	Tags map[string]string `json:"tags,omitempty"`
}

// ZMONAggregator is how results are put together.
//
// +kubebuilder:validation:Enum=avg;dev;count;first;last;max;min;sum;diff
type ZMONAggregator string

// MetricsScalingSchedule names a ScalingSchedule or a ClusterScalingSchedule.
type MetricsScalingSchedule struct {
	// The name.
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`
	Name string `json:"name"`
}

// MetricsRequestsPerSecond is requests to hosts.
type MetricsRequestsPerSecond struct {
	// The host names. The Stack counts its share of their requests.
	// +kubebuilder:validation:MaxItems=1000
	// +listType=atomic
	Hostnames []string `json:"hostnames"`
}

// StackStatus is what is.
type StackStatus struct {
	// The share of the traffic that the Stack gets, in percent.
	// +optional
	ActualTrafficWeight float64 `json:"actualTrafficWeight,omitempty"`
	// The share of the traffic that the Stack should get, in percent.
	// +optional
	DesiredTrafficWeight float64 `json:"desiredTrafficWeight,omitempty"`
	// How many pods there are.
	// +optional
	Replicas int32 `json:"replicas,omitempty"`
	// How many of them are ready.
	// +optional
	ReadyReplicas int32 `json:"readyReplicas,omitempty"`
	// How many of them are of the current template.
	// +optional
	UpdatedReplicas int32 `json:"updatedReplicas,omitempty"`
	// How many pods the Deployment should have.
	// +optional
	DesiredReplicas int32 `json:"desiredReplicas,omitempty"`
	// The pods that are kept ready for traffic to come.
	// +optional
	Prescaling PrescalingStatus `json:"prescalingStatus,omitzero"`
	// Since when the Stack gets no traffic and should get none.
	// +optional
	NoTrafficSince *metav1.Time `json:"noTrafficSince,omitempty"`
	// The selector of the pods, for autoscalers of the Stack.
	// +optional
	LabelSelector string `json:"labelSelector,omitempty"`
	// The generation of the spec that the status is about.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// Ready, Progressing, TrafficSwitched and Degraded.
	// +kubebuilder:validation:MaxItems=32
	// +listType=map
	// +listMapKey=type
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// PrescalingStatus is the number of pods that is held for traffic to come.
type PrescalingStatus struct {
	// Whether the number is held.
	// +optional
	Active bool `json:"active,omitempty"`
	// The number.
	// +optional
	Replicas int32 `json:"replicas,omitempty"`
	// The weight for which it was computed.
	// +optional
	DesiredTrafficWeight float64 `json:"desiredTrafficWeight,omitempty"`
	// When traffic was last increased, or should have been. The number is let go some time after.
	// +optional
	LastTrafficIncrease *metav1.Time `json:"lastTrafficIncrease,omitempty"`
	// Since when the traffic waits for the pods; unset while it does not.
	// +optional
	PendingSince *metav1.Time `json:"pendingSince,omitempty"`
	// Whether the pods were not ready by the deadline. The traffic stays where it is until another weight is asked for.
	// +optional
	DeadlineExceeded bool `json:"deadlineExceeded,omitempty"`
}
