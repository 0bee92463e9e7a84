package v1alpha1

import (
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// HorizontalPortrait says what the replica count of a workload should be, now or over time, as an algorithm finds it.
// The Dynamic providers of an IHPA write and read it.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:shortName=hp,scope=Namespaced
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Type",type=string,JSONPath=`.spec.portraitType`,description="Type of the portrait"
// +kubebuilder:printcolumn:name="Target",type=string,JSONPath=`.spec.scaleTargetRef.name`,description="Name of the workload"
// +kubebuilder:printcolumn:name="Algorithm",type=string,JSONPath=`.spec.algorithm.type`,description="Who makes the portrait"
// +kubebuilder:printcolumn:name="Generated",type=string,JSONPath=`.status.conditions[?(@.type=="PortraitGenerated")].status`,description="Whether the last attempt succeeded"
// +kubebuilder:printcolumn:name="Replicas",type=integer,JSONPath=`.status.portraitData.static.replicas`,priority=1,description="Replicas of a static portrait"
// +kubebuilder:printcolumn:name="Panic",type=boolean,JSONPath=`.status.panic.panicking`,priority=1,description="Whether a burst is being answered"
// +kubebuilder:printcolumn:name="Expires",type=string,JSONPath=`.status.portraitData.expireTime`,priority=1,description="When the portrait ends"
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="PortraitGenerated")].reason`,priority=1,description="Why the last attempt succeeded or failed"
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type HorizontalPortrait struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// What to find out, and how.
	Spec HorizontalPortraitSpec `json:"spec,omitempty"`
	// What was found. Written by the controller, or by the external generator that the spec names.
	Status HorizontalPortraitStatus `json:"status,omitzero"`
}

// HorizontalPortraitList is a list of HorizontalPortraits.
//
// +kubebuilder:object:root=true
type HorizontalPortraitList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []HorizontalPortrait `json:"items"`
}

// HorizontalPortraitSpec says what to find out, and how.
type HorizontalPortraitSpec struct {
	// The workload that the portrait is about.
	// +kubebuilder:validation:XValidation:rule=`self.kind != ""`,message="kind must not be empty",fieldPath=".kind"
	// +kubebuilder:validation:XValidation:rule=`self.name != ""`,message="name must not be empty",fieldPath=".name"
	ScaleTargetRef autoscalingv2.CrossVersionObjectReference `json:"scaleTargetRef"`

	PortraitSpec `json:",inline"`
}

// PortraitType is the type of a portrait.
type PortraitType string

const (
	// ReactivePortrait follows what is measured now.
	ReactivePortrait PortraitType = "Reactive"
	// PredictivePortrait follows what is forecast.
	PredictivePortrait PortraitType = "Predictive"
	// BurstPortrait answers sudden rises.
	BurstPortrait PortraitType = "Burst"
)

// PortraitSpec says how a portrait is made.
//
// +kubebuilder:validation:XValidation:rule=`self.algorithm.type != 'KubeHPA' || has(self.externalGeneratorName) && self.externalGeneratorName != "" || has(self.metrics) && size(self.metrics) > 0`,message="metrics must not be empty for the algorithm KubeHPA",fieldPath=".metrics"
// +kubebuilder:validation:XValidation:rule=`self.algorithm.type != 'KubeHPA' || !has(self.metrics) || self.metrics.all(m, !has(m.pods) || has(m.pods.target.averageValue))`,message="a metric of type Pods needs target.averageValue for the algorithm KubeHPA",fieldPath=".metrics"
type PortraitSpec struct {
	// The type of the portrait: Reactive, Predictive, Burst, or a name of an external generator's own. It is part of
	// the HorizontalPortrait's name, in lower case.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:XValidation:rule=`self.matches('^[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?$')`,message="portraitType becomes a part of an object's name: it must consist of letters, digits and -, and begin and end with a letter or digit"
	PortraitType PortraitType `json:"portraitType"`

	// The name of an external generator. When it is set, the built-in ones leave the portrait alone and somebody else
	// writes its status.
	// +kubebuilder:validation:MaxLength=253
	// +optional
	ExternalGeneratorName string `json:"externalGeneratorName,omitempty"`

	// The metrics that the algorithm reads.
	// +kubebuilder:validation:MaxItems=64
	// +listType=atomic
	// +optional
	Metrics []MetricSpec `json:"metrics,omitempty"`

	// The algorithm that makes the portrait, and its settings.
	Algorithm PortraitAlgorithm `json:"algorithm"`
}

// MetricOperator compares a metric with its target.
//
// +kubebuilder:validation:Enum="==";">";"<";">=";"<="
type MetricOperator string

const (
	// MetricOperatorEqual is ==.
	MetricOperatorEqual MetricOperator = "=="
	// MetricOperatorGreater is >.
	MetricOperatorGreater MetricOperator = ">"
	// MetricOperatorLess is <.
	MetricOperatorLess MetricOperator = "<"
	// MetricOperatorGreaterOrEqual is >=.
	MetricOperatorGreaterOrEqual MetricOperator = ">="
	// MetricOperatorLessOrEqual is <=.
	MetricOperatorLessOrEqual MetricOperator = "<="
)

// MetricSpec is a metric as a HorizontalPodAutoscaler has it, with a name and an operator.
//
// +kubebuilder:validation:XValidation:rule=`self.type in ['Resource', 'ContainerResource', 'Pods', 'Object', 'External']`,message="type must be Resource, ContainerResource, Pods, Object or External",fieldPath=".type"
// +kubebuilder:validation:XValidation:rule=`has(self.resource) == (self.type == 'Resource')`,message="resource must be set if the type is Resource, and only then",fieldPath=".resource"
// +kubebuilder:validation:XValidation:rule=`has(self.containerResource) == (self.type == 'ContainerResource')`,message="containerResource must be set if the type is ContainerResource, and only then",fieldPath=".containerResource"
// +kubebuilder:validation:XValidation:rule=`has(self.pods) == (self.type == 'Pods')`,message="pods must be set if the type is Pods, and only then",fieldPath=".pods"
// +kubebuilder:validation:XValidation:rule=`has(self.object) == (self.type == 'Object')`,message="object must be set if the type is Object, and only then",fieldPath=".object"
// +kubebuilder:validation:XValidation:rule=`has(self.external) == (self.type == 'External')`,message="external must be set if the type is External, and only then",fieldPath=".external"
type MetricSpec struct {
	autoscalingv2.MetricSpec `json:",inline"`

	// The name by which an algorithm knows the metric.
	// +kubebuilder:validation:MaxLength=253
	// +optional
	Name string `json:"name,omitempty"`

	// How the metric is compared with its target, where it is a condition: ==, >, <, >= or <=.
	// +optional
	Operator MetricOperator `json:"operator,omitempty"`
}

// PortraitAlgorithmType is the type of an algorithm.
type PortraitAlgorithmType string

const (
	// KubeHPAAlgorithm is the replica algorithm of the HorizontalPodAutoscaler.
	KubeHPAAlgorithm PortraitAlgorithmType = "KubeHPA"
	// ExternalJobAlgorithm is a job that leaves its result behind.
	ExternalJobAlgorithm PortraitAlgorithmType = "ExternalJob"
)

// PortraitAlgorithm is the algorithm that makes a portrait, and its settings.
//
// +kubebuilder:validation:XValidation:rule=`self.type != 'ExternalJob' || has(self.externalJob)`,message="externalJob must be set if the type is ExternalJob",fieldPath=".externalJob"
type PortraitAlgorithm struct {
	// The type of the algorithm: KubeHPA, ExternalJob, or a name of an external generator's own.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Type PortraitAlgorithmType `json:"type"`

	// The settings of the KubeHPA algorithm.
	// +optional
	KubeHPA *KubeHPAPortraitAlgorithm `json:"kubeHPA,omitempty"`

	// The settings of the ExternalJob algorithm.
	// +optional
	ExternalJob *ExternalJobPortraitAlgorithm `json:"externalJob,omitempty"`

	// Settings of an external generator's algorithm, in its own form.
	// +kubebuilder:pruning:PreserveUnknownFields
	// +optional
	Config *runtime.RawExtension `json:"config,omitempty"`
}

// KubeHPAPortraitAlgorithm is the settings of the HorizontalPodAutoscaler's replica algorithm.
type KubeHPAPortraitAlgorithm struct {
	// The time between two looks at the metrics. The default is 15s.
	// +kubebuilder:default="15s"
	// +optional
	// +kubebuilder:validation:XValidation:rule=`self.matches(r'^[-+]?((\d+(\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h))+$') && duration(self) > duration('0s')`,message="syncPeriod must be a duration such as 15s, above 0"
	SyncPeriod metav1.Duration `json:"syncPeriod,omitzero"`

	// How far the measured usage may be from its target without a change, as a share: 0.1 is ten percent, the default.
	// +kubebuilder:default="0.1"
	// +optional
	// +kubebuilder:validation:XValidation:rule=`type(self) == int ? self >= 0 : quantity(self).compareTo(quantity('0')) >= 0`,message="tolerance must be a number not below 0"
	Tolerance resource.Quantity `json:"tolerance"`

	// How long after its start a pod's cpu usage is not trusted while the pod is unready. The default is 5m.
	// +kubebuilder:default="5m"
	// +optional
	// +kubebuilder:validation:XValidation:rule=`self.matches(r'^[-+]?((\d+(\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h))+$') && duration(self) >= duration('0s')`,message="cpuInitializationPeriod must be a duration such as 15s, not below 0"
	CPUInitializationPeriod metav1.Duration `json:"cpuInitializationPeriod"`

	// How long after its start a change of a pod's readiness counts as its first. The default is 30s.
	// +kubebuilder:default="30s"
	// +optional
	// +kubebuilder:validation:XValidation:rule=`self.matches(r'^[-+]?((\d+(\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h))+$') && duration(self) >= duration('0s')`,message="initialReadinessDelay must be a duration such as 15s, not below 0"
	InitialReadinessDelay metav1.Duration `json:"initialReadinessDelay"`

	// The tolerance for scaling up, where it is another than tolerance. A Kubetide addition.
	// +optional
	// +kubebuilder:validation:XValidation:rule=`type(self) == int ? self >= 0 : quantity(self).compareTo(quantity('0')) >= 0`,message="scaleUpTolerance must be a number not below 0"
	ScaleUpTolerance *resource.Quantity `json:"scaleUpTolerance,omitempty"`

	// The tolerance for scaling down, where it is another than tolerance. A Kubetide addition.
	// +optional
	// +kubebuilder:validation:XValidation:rule=`type(self) == int ? self >= 0 : quantity(self).compareTo(quantity('0')) >= 0`,message="scaleDownTolerance must be a number not below 0"
	ScaleDownTolerance *resource.Quantity `json:"scaleDownTolerance,omitempty"`

	// Which pods count: Selector (the default), as for a HorizontalPodAutoscaler, all that the workload's selector matches;
	// Owner only those that belong to the workload, so that a Job with the same labels does not. A Kubetide addition.
	// +optional
	PodSelection PodSelection `json:"podSelection,omitempty"`

	// Scales out also while all pods are unready, from the workload's replica count: a HorizontalPodAutoscaler stays where it
	// is when an overload makes every pod unready. The default is false. A Kubetide addition.
	// +optional
	ScaleOutWhenAllUnready bool `json:"scaleOutWhenAllUnready,omitempty"`

	// Does not scale down while a pod has no metric: a HorizontalPodAutoscaler assumes a value for it. The default is false.
	// A Kubetide addition.
	// +optional
	HoldOnMissingMetrics bool `json:"holdOnMissingMetrics,omitempty"`

	// Answers bursts: the portrait is then the mean over a stable window, until the mean over a short one says that far more
	// is needed. Without it the portrait follows each sample, as a HorizontalPodAutoscaler does. A Kubetide addition.
	// +optional
	PanicWindow *PanicWindow `json:"panicWindow,omitempty"`
}

// PodSelection says which pods count.
//
// +kubebuilder:validation:Enum=Selector;Owner
type PodSelection string

const (
	// SelectorPodSelection counts all pods that the workload's selector matches.
	SelectorPodSelection PodSelection = "Selector"
	// OwnerPodSelection counts the pods that belong to the workload.
	OwnerPodSelection PodSelection = "Owner"
)

// PanicWindow answers bursts as Knative's autoscaler does.
type PanicWindow struct {
	// The stable window, in seconds, over which wanted replica counts are averaged, and for which a panic lasts after its
	// last sign. The default is 60.
	// +kubebuilder:default=60
	// +kubebuilder:validation:Minimum=6
	// +kubebuilder:validation:Maximum=3600
	// +optional
	StableSeconds int32 `json:"stableSeconds,omitempty"`

	// The short window, in percent of the stable one. The default is 10.
	// +kubebuilder:default=10
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	// +optional
	WindowPercent int32 `json:"windowPercent,omitempty"`

	// A panic begins when the mean over the short window is at least this many percent of the current replica count. The
	// default is 200.
	// +kubebuilder:default=200
	// +kubebuilder:validation:Minimum=110
	// +kubebuilder:validation:Maximum=1000
	// +optional
	ThresholdPercent int32 `json:"thresholdPercent,omitempty"`
}

// ExternalJobPortraitAlgorithm is a job that leaves its result behind.
type ExternalJobPortraitAlgorithm struct {
	// The job.
	Job PortraitAlgorithmJob `json:"job"`

	// Where the job leaves its result.
	ResultSource PortraitAlgorithmResultSource `json:"resultSource"`
}

// PortraitAlgorithmJobType is the type of a job.
//
// +kubebuilder:validation:Enum=CronJob
type PortraitAlgorithmJobType string

// CronJobPortraitAlgorithmJob is a CronJob of Kubernetes.
const CronJobPortraitAlgorithmJob PortraitAlgorithmJobType = "CronJob"

// PortraitAlgorithmJob is the job of an external algorithm.
//
// +kubebuilder:validation:XValidation:rule=`self.type != 'CronJob' || has(self.cronJob)`,message="cronJob must be set if the type is CronJob",fieldPath=".cronJob"
type PortraitAlgorithmJob struct {
	// The type of the job: CronJob.
	Type PortraitAlgorithmJobType `json:"type"`

	// The settings of a CronJob.
	// +optional
	CronJob *CronJobPortraitAlgorithmConfig `json:"cronJob,omitempty"`
}

// CronJobPortraitAlgorithmConfig is the settings of a CronJob.
type CronJobPortraitAlgorithmConfig struct {
	// The CronJob that is created in the namespace of the algorithm jobs.
	Template CronJobTemplateSpec `json:"template"`
}

// CronJobTemplateSpec is a CronJob to be created.
type CronJobTemplateSpec struct {
	// Labels and annotations of the CronJob.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// The spec of the CronJob, as in batch/v1. The container named "algorithm" gets the default image and the variables
	// METRICS_SERVER_ADDR, HP_NAMESPACE and HP_NAME.
	Spec batchv1.CronJobSpec `json:"spec"`
}

// PortraitAlgorithmResultSourceType is the type of a result source.
//
// +kubebuilder:validation:Enum=ConfigMap
type PortraitAlgorithmResultSourceType string

// ConfigMapPortraitAlgorithmResultSource is a ConfigMap named after the HorizontalPortrait.
const ConfigMapPortraitAlgorithmResultSource PortraitAlgorithmResultSourceType = "ConfigMap"

// PortraitAlgorithmResultSource is where a job leaves its result.
type PortraitAlgorithmResultSource struct {
	// The type of the source: ConfigMap. It is named after the HorizontalPortrait, with -result behind.
	Type PortraitAlgorithmResultSourceType `json:"type"`

	// The settings of a ConfigMap source. There are none yet.
	// +optional
	ConfigMap *ConfigMapPortraitAlgorithmResultSourceConfig `json:"configMap,omitempty"`
}

// ConfigMapPortraitAlgorithmResultSourceConfig is the settings of a ConfigMap source. There are none yet.
type ConfigMapPortraitAlgorithmResultSourceConfig struct{}

// HorizontalPortraitStatus is what was found.
type HorizontalPortraitStatus struct {
	// The portrait.
	// +optional
	PortraitData *PortraitData `json:"portraitData,omitempty"`

	// The state of the portrait: PortraitGenerated.
	// +kubebuilder:validation:MaxItems=32
	// +listType=map
	// +listMapKey=type
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty" patchStrategy:"merge" patchMergeKey:"type"`

	// The generation of the spec that this status is about. A Kubetide addition.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// What the panic window remembers. Absent: the spec has none. A Kubetide addition.
	// +optional
	Panic *PanicStatus `json:"panic,omitempty"`
}

// PanicStatus is what a panic window remembers, so that a panic goes on after a restart. It is written when something else is
// wanted, not with each sample.
type PanicStatus struct {
	// Whether a panic goes on: the replica count is not lowered meanwhile.
	Panicking bool `json:"panicking"`

	// When the panic ends. Absent: its sign still stands, or there is none.
	// +optional
	Until *metav1.MicroTime `json:"until,omitempty"`

	// The most replicas that were wanted in the panic.
	// +kubebuilder:validation:Minimum=0
	// +optional
	Replicas int32 `json:"replicas,omitempty"`

	// The changes of what was wanted in the stable window, and the last one before it, oldest first.
	// +kubebuilder:validation:MaxItems=32
	// +listType=atomic
	// +optional
	Wanted []PanicStep `json:"wanted,omitempty"`
}

// PanicStep is a replica count that was wanted from a moment on.
type PanicStep struct {
	// Since when.
	Since metav1.MicroTime `json:"since"`

	// The number of replicas.
	// +kubebuilder:validation:Minimum=0
	Replicas int32 `json:"replicas"`
}

// PortraitDataType is the form of a portrait.
//
// +kubebuilder:validation:Enum=Static;Cron;TimeSeries
type PortraitDataType string

const (
	// StaticPortraitData is one number of replicas.
	StaticPortraitData PortraitDataType = "Static"
	// CronPortraitData is numbers of replicas in windows of time that come again.
	CronPortraitData PortraitDataType = "Cron"
	// TimeSeriesPortraitData is numbers of replicas at points of time.
	TimeSeriesPortraitData PortraitDataType = "TimeSeries"
)

// PortraitData is a portrait.
//
// +kubebuilder:validation:XValidation:rule=`has(self.static) == (self.type == 'Static')`,message="static must be set if the type is Static, and only then",fieldPath=".static"
// +kubebuilder:validation:XValidation:rule=`has(self.cron) == (self.type == 'Cron')`,message="cron must be set if the type is Cron, and only then",fieldPath=".cron"
// +kubebuilder:validation:XValidation:rule=`has(self.timeSeries) == (self.type == 'TimeSeries')`,message="timeSeries must be set if the type is TimeSeries, and only then",fieldPath=".timeSeries"
type PortraitData struct {
	// The form of the portrait: Static, Cron or TimeSeries. The field of the same name holds it.
	Type PortraitDataType `json:"type"`

	// A portrait of one number.
	// +optional
	Static *StaticPortrait `json:"static,omitempty"`

	// A portrait of windows.
	// +optional
	Cron *CronPortrait `json:"cron,omitempty"`

	// A portrait of points of time.
	// +optional
	TimeSeries *TimeSeriesPortrait `json:"timeSeries,omitempty"`

	// When the portrait ends. Absent: never.
	// +optional
	ExpireTime *metav1.Time `json:"expireTime,omitempty"`
}

// StaticPortrait is a portrait of one number.
type StaticPortrait struct {
	// The number of replicas.
	// +kubebuilder:validation:Minimum=0
	Replicas int32 `json:"replicas"`
}

// CronPortrait is a portrait of windows of time that come again.
type CronPortrait struct {
	// The windows. Where two overlap, the one with more replicas decides.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=100
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:XValidation:rule=`oldSelf.hasValue() && oldSelf.value() == self || self.all(c, (!has(c.timeZone) || timestamp('2024-01-01T00:00:00Z').getHours(c.timeZone) >= 0) && [c.start, c.end].all(e, !e.contains('=') || timestamp('2024-01-01T00:00:00Z').getHours(e.find(r'=\S*').substring(1)) >= 0))`,message="timeZone and CRON_TZ must be IANA names of time zones, for example Europe/Berlin, or UTC",optionalOldSelf=true
	Crons []ReplicaCron `json:"crons"`
}

// TimeSeriesPortrait is a portrait of points of time.
type TimeSeriesPortrait struct {
	// The points, ordered by time. Each holds until the next one, the last one until the portrait ends.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=10080
	// +listType=atomic
	// +kubebuilder:validation:XValidation:rule=`self.map(p, p.timestamp).isSorted()`,message="the points must be ordered by timestamp"
	TimeSeries []ReplicaTimeSeriesPoint `json:"timeSeries"`
}

// ReplicaTimeSeriesPoint is a number of replicas from a point of time on.
type ReplicaTimeSeriesPoint struct {
	// The time, in seconds since 1970-01-01 00:00 UTC.
	// +kubebuilder:validation:Minimum=0
	Timestamp int64 `json:"timestamp"`

	// The number of replicas.
	// +kubebuilder:validation:Minimum=0
	Replicas int32 `json:"replicas"`
}
