package v1alpha1

import (
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// IntelligentHorizontalPodAutoscaler keeps a workload at the replica count that its portrait providers ask for, and
// moves it there in gray steps that cut traffic from pods before deleting them.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:shortName=ihpa,scope=Namespaced
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Target",type=string,JSONPath=`.spec.scaleTargetRef.name`,description="Name of the workload"
// +kubebuilder:printcolumn:name="Min",type=integer,JSONPath=`.spec.minReplicas`,description="Lower bound"
// +kubebuilder:printcolumn:name="Max",type=integer,JSONPath=`.spec.maxReplicas`,description="Upper bound"
// +kubebuilder:printcolumn:name="Desired",type=integer,JSONPath=`.status.desiredReplicas`,description="Where the workload is going, within the bounds"
// +kubebuilder:printcolumn:name="Online",type=integer,JSONPath=`.status.onlineReplicas`,description="Pods that serve"
// +kubebuilder:printcolumn:name="Cutoff",type=integer,JSONPath=`.status.cutoffReplicas`,description="Pods that run without traffic"
// +kubebuilder:printcolumn:name="Provider",type=string,JSONPath=`.status.currentPortraitValue.provider`,description="Who asks for the replicas"
// +kubebuilder:printcolumn:name="Gray",type=integer,JSONPath=`.status.gray.grayPercent`,description="Percent of the gray run that is done"
// +kubebuilder:printcolumn:name="Active",type=string,JSONPath=`.status.conditions[?(@.type=="ScalingActive")].status`,description="Whether it scales"
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="ScalingActive")].reason`,priority=1,description="Why it scales or does not"
// +kubebuilder:printcolumn:name="Healthy",type=string,JSONPath=`.status.conditions[?(@.type=="PortraitsHealthy")].status`,priority=1,description="Whether all providers answer"
// +kubebuilder:printcolumn:name="Limited",type=string,JSONPath=`.status.conditions[?(@.type=="ScalingLimited")].reason`,priority=1,description="Whether a bound changes the wanted number"
// +kubebuilder:printcolumn:name="Mode",type=string,JSONPath=`.spec.scaleMode`,priority=1,description="Auto or Preview"
// +kubebuilder:printcolumn:name="Paused",type=boolean,JSONPath=`.spec.paused`,priority=1,description="Whether scaling is paused"
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type IntelligentHorizontalPodAutoscaler struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// What to scale, who says how far, and how to get there.
	Spec IntelligentHorizontalPodAutoscalerSpec `json:"spec,omitempty"`
	// What was last decided and where the workload stands. Written by the controller.
	Status IntelligentHorizontalPodAutoscalerStatus `json:"status,omitzero"`
}

// IntelligentHorizontalPodAutoscalerList is a list of IntelligentHorizontalPodAutoscalers.
//
// +kubebuilder:object:root=true
type IntelligentHorizontalPodAutoscalerList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []IntelligentHorizontalPodAutoscaler `json:"items"`
}

// IntelligentHorizontalPodAutoscalerSpec says what to scale, who says how far, and how to get there.
//
// +kubebuilder:validation:XValidation:rule=`self.minReplicas <= self.maxReplicas`,message="maxReplicas must not be less than minReplicas",fieldPath=".maxReplicas"
type IntelligentHorizontalPodAutoscalerSpec struct {
	// The workload to scale: any kind with a scale subresource. Cutoff and Standby need a Deployment, a ReplicaSet
	// or a StatefulSet of the group apps.
	// +kubebuilder:validation:XValidation:rule=`self.kind != ""`,message="kind must not be empty",fieldPath=".kind"
	// +kubebuilder:validation:XValidation:rule=`self.name != ""`,message="name must not be empty",fieldPath=".name"
	ScaleTargetRef autoscalingv2.CrossVersionObjectReference `json:"scaleTargetRef"`

	// Stops all scaling while true: pods and replicas stay as they are. The default is false.
	// +optional
	Paused bool `json:"paused,omitempty"`

	// The lower bound of the replica count. 0 is allowed.
	// +kubebuilder:validation:Minimum=0
	MinReplicas int32 `json:"minReplicas"`

	// The upper bound of the replica count; it cannot be less than minReplicas.
	// +kubebuilder:validation:Minimum=0
	MaxReplicas int32 `json:"maxReplicas"`

	// Auto (the default) scales the workload. Preview decides and reports in status, but leaves the workload and its
	// pods alone.
	// +kubebuilder:default=Auto
	// +optional
	ScaleMode ScaleMode `json:"scaleMode,omitempty"`

	// Who says how many replicas there should be. Of the providers that have an opinion the one with the highest
	// priority decides; of equals the one that asks for more replicas. The list may be empty: then nothing is scaled.
	// +kubebuilder:validation:MaxItems=16
	// +listType=atomic
	// +kubebuilder:validation:XValidation:rule=`self.all(p, !has(p.dynamic) || self.exists_one(q, has(q.dynamic) && q.dynamic.portraitType.lowerAscii() == p.dynamic.portraitType.lowerAscii()))`,message="portraitType must be unique across the Dynamic providers, upper and lower case being the same"
	// +kubebuilder:validation:XValidation:rule=`oldSelf.hasValue() && oldSelf.value() == self || self.all(p, !has(p.cron) || p.cron.crons.all(c, (!has(c.timeZone) || timestamp('2024-01-01T00:00:00Z').getHours(c.timeZone) >= 0) && [c.start, c.end].all(e, !e.contains('=') || timestamp('2024-01-01T00:00:00Z').getHours(e.find(r'=\S*').substring(1)) >= 0)))`,message="timeZone and CRON_TZ must be IANA names of time zones, for example Europe/Berlin, or UTC",optionalOldSelf=true
	PortraitProviders []HorizontalPortraitProvider `json:"portraitProviders"`

	// How to move from one replica count to another. Without it every change is made at once.
	// +optional
	Behavior IHPABehavior `json:"behavior,omitzero"`

	// Checks that stop or undo a gray run when the workload does worse than before.
	// +kubebuilder:validation:MaxItems=16
	// +listType=atomic
	// +optional
	StabilityCheckers []StabilityChecker `json:"stabilityCheckers,omitempty"`

	// Bounds that hold in windows of time, in place of minReplicas and maxReplicas. A Kubetide addition.
	// +kubebuilder:validation:MaxItems=32
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:XValidation:rule=`oldSelf.hasValue() && oldSelf.value() == self || self.all(c, (!has(c.timeZone) || timestamp('2024-01-01T00:00:00Z').getHours(c.timeZone) >= 0) && [c.start, c.end].all(e, !e.contains('=') || timestamp('2024-01-01T00:00:00Z').getHours(e.find(r'=\S*').substring(1)) >= 0))`,message="timeZone and CRON_TZ must be IANA names of time zones, for example Europe/Berlin, or UTC",optionalOldSelf=true
	// +optional
	ScheduledBounds []ScheduledBounds `json:"scheduledBounds,omitempty"`

	// Holds the replica count for a while, with who and why. A gray run that is going on ends where the hold says. A
	// Kubetide addition.
	// +optional
	Hold *Hold `json:"hold,omitempty"`
}

// ScaleMode says whether decisions are carried out.
//
// +kubebuilder:validation:Enum=Auto;Preview
type ScaleMode string

const (
	// ScaleModeAuto carries decisions out. It is the default.
	ScaleModeAuto ScaleMode = "Auto"
	// ScaleModePreview only reports them in status.
	ScaleModePreview ScaleMode = "Preview"
)

// HorizontalPortraitProviderType is the type of a portrait provider.
//
// +kubebuilder:validation:Enum=Static;Cron;Dynamic;Schedule
type HorizontalPortraitProviderType string

const (
	// StaticProvider always asks for the same number of replicas.
	StaticProvider HorizontalPortraitProviderType = "Static"
	// CronProvider asks for replicas in windows of time.
	CronProvider HorizontalPortraitProviderType = "Cron"
	// DynamicProvider asks for what a HorizontalPortrait says.
	DynamicProvider HorizontalPortraitProviderType = "Dynamic"
	// ScheduleProvider asks for what a ScalingSchedule or ClusterScalingSchedule says. A Kubetide addition.
	ScheduleProvider HorizontalPortraitProviderType = "Schedule"
)

// HorizontalPortraitProvider is one opinion on how many replicas there should be.
//
// +kubebuilder:validation:XValidation:rule=`has(self.static) == (self.type == 'Static')`,message="static must be set if the type is Static, and only then",fieldPath=".static"
// +kubebuilder:validation:XValidation:rule=`has(self.cron) == (self.type == 'Cron')`,message="cron must be set if the type is Cron, and only then",fieldPath=".cron"
// +kubebuilder:validation:XValidation:rule=`has(self.dynamic) == (self.type == 'Dynamic')`,message="dynamic must be set if the type is Dynamic, and only then",fieldPath=".dynamic"
// +kubebuilder:validation:XValidation:rule=`has(self.schedule) == (self.type == 'Schedule')`,message="schedule must be set if the type is Schedule, and only then",fieldPath=".schedule"
type HorizontalPortraitProvider struct {
	// The type of the provider: Static, Cron, Dynamic or Schedule. The field of the same name holds its settings.
	Type HorizontalPortraitProviderType `json:"type"`

	// The weight of the provider's opinion: the bigger number wins. May be negative.
	Priority int32 `json:"priority"`

	// The settings of a Static provider.
	// +optional
	Static *StaticHorizontalPortraitProvider `json:"static,omitempty"`

	// The settings of a Cron provider.
	// +optional
	Cron *CronHorizontalPortraitProvider `json:"cron,omitempty"`

	// The settings of a Dynamic provider. Its portraitType must be unique among the Dynamic providers, upper and lower
	// case being the same.
	// +optional
	Dynamic *DynamicHorizontalPortraitProvider `json:"dynamic,omitempty"`

	// The settings of a Schedule provider. A Kubetide addition.
	// +optional
	Schedule *ScheduleHorizontalPortraitProvider `json:"schedule,omitempty"`
}

// ScheduleHorizontalPortraitProvider asks for what a schedule says, ramps included, and has no opinion while the schedule is
// not active.
type ScheduleHorizontalPortraitProvider struct {
	// ScalingSchedule (the default), in the namespace of this object, or ClusterScalingSchedule.
	// +kubebuilder:validation:Enum=ScalingSchedule;ClusterScalingSchedule
	// +kubebuilder:default=ScalingSchedule
	// +optional
	Kind string `json:"kind,omitempty"`

	// The name of the schedule.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`

	// How much of the schedule's value one replica takes, as averageValue in a HorizontalPodAutoscaler: the replicas are the
	// value divided by it, rounded up. The default is 1: the value is the replica count.
	// +optional
	// +kubebuilder:validation:XValidation:rule=`type(self) == int ? self > 0 : quantity(self).compareTo(quantity('0')) > 0`,message="averageValue must be above 0"
	AverageValue *resource.Quantity `json:"averageValue,omitempty"`
}

// StaticHorizontalPortraitProvider always asks for the same number of replicas.
type StaticHorizontalPortraitProvider struct {
	// The number of replicas. 0 is valid.
	// +kubebuilder:validation:Minimum=0
	Replicas int32 `json:"replicas"`
}

// CronHorizontalPortraitProvider asks for replicas in windows of time, and has no opinion outside them.
type CronHorizontalPortraitProvider struct {
	// The windows. Where two overlap, the one with more replicas decides.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=100
	// +listType=map
	// +listMapKey=name
	Crons []ReplicaCron `json:"crons"`
}

// DynamicHorizontalPortraitProvider asks for what the HorizontalPortrait says that is kept for it.
type DynamicHorizontalPortraitProvider struct {
	PortraitSpec `json:",inline"`
}

// CronExpression is a time that comes again and again, in the grammar of a standard crontab: five fields (minute,
// hour, day of the month, month, day of the week) of numbers, names (JAN, MON), *, ?, ranges, steps and lists; or
// @yearly, @monthly, @weekly, @daily, @hourly, @every 1h30m. CRON_TZ=Area/City before it overrules the time zone.
//
// +kubebuilder:validation:MaxLength=100
// +kubebuilder:validation:XValidation:rule=`self.matches(r'^((CRON_TZ|TZ)=[^\s=@]+ +)?(@(yearly|annually|monthly|weekly|daily|midnight|hourly)|@every (\d+(\.\d*)?(ns|us|ms|s|m|h))+|\s*[^\s=@]+(\s+[^\s=@]+){4}\s*)$')`,message="must be a cron expression of exactly five fields (minute, hour, day of the month, month, day of the week), or one such as @hourly or @every 1h"
// +kubebuilder:validation:XValidation:rule=`self.contains('@') || self.matches(r'^(\S+=\S+ +)?\s*([*?]|[0-5]?[0-9](-[0-5]?[0-9])?)(/0*[1-9]\d*)?(,([*?]|[0-5]?[0-9](-[0-5]?[0-9])?)(/0*[1-9]\d*)?)*(\s|$)')`,message="field 1 (minute) must be within 0-59, or * or ?, with ranges (1-5), steps (*/2) and lists (1,3)"
// +kubebuilder:validation:XValidation:rule=`self.contains('@') || self.matches(r'^(\S+=\S+ +)?\s*[^\s=@]+\s+([*?]|([01]?[0-9]|2[0-3])(-([01]?[0-9]|2[0-3]))?)(/0*[1-9]\d*)?(,([*?]|([01]?[0-9]|2[0-3])(-([01]?[0-9]|2[0-3]))?)(/0*[1-9]\d*)?)*(\s|$)')`,message="field 2 (hour) must be within 0-23, or * or ?, with ranges (1-5), steps (*/2) and lists (1,3)"
// +kubebuilder:validation:XValidation:rule=`self.contains('@') || self.matches(r'^(\S+=\S+ +)?\s*[^\s=@]+\s+[^\s=@]+\s+([*?]|(0?[1-9]|[12][0-9]|3[01])(-(0?[1-9]|[12][0-9]|3[01]))?)(/0*[1-9]\d*)?(,([*?]|(0?[1-9]|[12][0-9]|3[01])(-(0?[1-9]|[12][0-9]|3[01]))?)(/0*[1-9]\d*)?)*(\s|$)')`,message="field 3 (day of the month) must be within 1-31, or * or ?, with ranges (1-5), steps (*/2) and lists (1,3)"
// +kubebuilder:validation:XValidation:rule=`self.contains('@') || self.matches(r'^(\S+=\S+ +)?\s*[^\s=@]+\s+[^\s=@]+\s+[^\s=@]+\s+([*?]|(0?[1-9]|1[0-2]|(?i:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec))(-(0?[1-9]|1[0-2]|(?i:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)))?)(/0*[1-9]\d*)?(,([*?]|(0?[1-9]|1[0-2]|(?i:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec))(-(0?[1-9]|1[0-2]|(?i:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)))?)(/0*[1-9]\d*)?)*(\s|$)')`,message="field 4 (month) must be within 1-12 or JAN-DEC, or * or ?, with ranges (1-5), steps (*/2) and lists (1,3)"
// +kubebuilder:validation:XValidation:rule=`self.contains('@') || self.matches(r'^(\S+=\S+ +)?\s*[^\s=@]+\s+[^\s=@]+\s+[^\s=@]+\s+[^\s=@]+\s+([*?]|(0?[0-6]|(?i:sun|mon|tue|wed|thu|fri|sat))(-(0?[0-6]|(?i:sun|mon|tue|wed|thu|fri|sat)))?)(/0*[1-9]\d*)?(,([*?]|(0?[0-6]|(?i:sun|mon|tue|wed|thu|fri|sat))(-(0?[0-6]|(?i:sun|mon|tue|wed|thu|fri|sat)))?)(/0*[1-9]\d*)?)*(\s|$)')`,message="field 5 (day of the week) must be within 0-6 or SUN-SAT, or * or ?, with ranges (1-5), steps (*/2) and lists (1,3)"
// +kubebuilder:validation:XValidation:rule=`!self.matches(r'\b(0?(1-0?0|2-0?[0-1]|3-0?[0-2]|4-0?[0-3]|5-0?[0-4]|6-0?[0-5]|7-0?[0-6]|8-0?[0-7]|9-0?[0-8])|1(1-10|2-1[0-1]|3-1[0-2]|4-1[0-3]|5-1[0-4]|6-1[0-5]|7-1[0-6]|8-1[0-7]|9-1[0-8])|2(1-20|2-2[0-1]|3-2[0-2]|4-2[0-3]|5-2[0-4]|6-2[0-5]|7-2[0-6]|8-2[0-7]|9-2[0-8])|3(1-30|2-3[0-1]|3-3[0-2]|4-3[0-3]|5-3[0-4]|6-3[0-5]|7-3[0-6]|8-3[0-7]|9-3[0-8])|4(1-40|2-4[0-1]|3-4[0-2]|4-4[0-3]|5-4[0-4]|6-4[0-5]|7-4[0-6]|8-4[0-7]|9-4[0-8])|5(1-50|2-5[0-1]|3-5[0-2]|4-5[0-3]|5-5[0-4]|6-5[0-5]|7-5[0-6]|8-5[0-7]|9-5[0-8])|[1-5]\d-0?\d|[2-5]\d-1\d|[3-5]\d-2\d|[45]\d-3\d|5\d-4\d)\b')`,message="a range must not begin after its end: for one that goes round the end write two, 22-23,0-6"
// +kubebuilder:validation:XValidation:rule=`!self.matches(r'(?i)\b((feb|0?2)-(jan|0?1)|(mar|0?3)-(jan|feb|0?[1-2])|(apr|0?4)-(jan|feb|mar|0?[1-3])|(may|0?5)-(jan|feb|mar|apr|0?[1-4])|(jun|0?6)-(jan|feb|mar|apr|may|0?[1-5])|(jul|0?7)-(jan|feb|mar|apr|may|jun|0?[1-6])|(aug|0?8)-(jan|feb|mar|apr|may|jun|jul|0?[1-7])|(sep|0?9)-(jan|feb|mar|apr|may|jun|jul|aug|0?[1-8])|(oct|10)-(jan|feb|mar|apr|may|jun|jul|aug|sep|0?[1-9])|(nov|11)-(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|0?[1-9]|10)|(dec|12)-(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|0?[1-9]|1[0-1]))\b')`,message="a range must not begin after its end: for one that goes round the end write two, NOV-DEC,JAN-FEB"
// +kubebuilder:validation:XValidation:rule=`!self.matches(r'(?i)\b((mon|0?1)-(sun|0?0)|(tue|0?2)-(sun|mon|0?[0-1])|(wed|0?3)-(sun|mon|tue|0?[0-2])|(thu|0?4)-(sun|mon|tue|wed|0?[0-3])|(fri|0?5)-(sun|mon|tue|wed|thu|0?[0-4])|(sat|0?6)-(sun|mon|tue|wed|thu|fri|0?[0-5]))\b')`,message="a range must not begin after its end: for one that goes round the end write two, FRI-SAT,SUN-MON"
// +kubebuilder:validation:XValidation:rule=`!self.matches(r'=(Local|\S*:\S*)(\s|$)')`,message="CRON_TZ must be the IANA name of a time zone, for example Europe/Berlin"
type CronExpression string

// ReplicaCron is a window of time that comes again and again, and the replicas wanted in it.
type ReplicaCron struct {
	// The name of the window, unique within its provider.
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`

	// What the window is for. Not interpreted.
	// +optional
	Description string `json:"description,omitempty"`

	// The IANA name of the time zone in which start and end are meant, for example Europe/Berlin. An empty string
	// means UTC, the default.
	// +kubebuilder:default=UTC
	// +kubebuilder:validation:MaxLength=64
	// +optional
	// +kubebuilder:validation:XValidation:rule=`!self.contains(':') && self != 'Local'`,message="timeZone must be the IANA name of a time zone, for example Europe/Berlin, or UTC"
	TimeZone string `json:"timeZone,omitempty"`

	// When the window begins, as a cron expression of five fields. The window is open from a start, inclusive, up to the
	// next end, exclusive, unless another start comes before that end or with it; it may cross midnight.
	Start CronExpression `json:"start"`

	// When the window ends, as a cron expression of five fields. A window that has a start at each of its ends never
	// opens.
	End CronExpression `json:"end"`

	// The number of replicas while the window is open. 0 is valid.
	// +kubebuilder:validation:Minimum=0
	Replicas int32 `json:"replicas"`
}

// IHPABehavior says how to move from one replica count to another.
//
// +kubebuilder:validation:XValidation:rule=`!has(self.scaleUp) || !has(self.scaleUp.grayStrategy) || self.scaleUp.grayStrategy.grayState == 'Online'`,message="grayState must be Online for scaleUp",fieldPath=".scaleUp.grayStrategy.grayState"
// +kubebuilder:validation:XValidation:rule=`!has(self.scaleDown) || !has(self.scaleDown.grayStrategy) || self.scaleDown.grayStrategy.grayState != 'Online'`,message="grayState must be Cutoff, Standby or Deleted for scaleDown",fieldPath=".scaleDown.grayStrategy.grayState"
type IHPABehavior struct {
	// How to add replicas. Without it they are added at once.
	// +optional
	ScaleUp ScalingBehavior `json:"scaleUp,omitzero"`

	// How to remove replicas. Without it they are removed at once.
	// +optional
	ScaleDown ScalingBehavior `json:"scaleDown,omitzero"`

	// How pods are chosen and how their traffic is switched.
	// +optional
	ReplicaProfile ReplicaProfileBehavior `json:"replicaProfile,omitzero"`
}

// ScalingBehavior says how to scale in one direction.
type ScalingBehavior struct {
	// Forbids scaling in this direction. The default is false.
	// +optional
	Disabled bool `json:"disabled,omitempty"`

	// Scales in steps. Without it a change is made at once.
	// +optional
	GrayStrategy *GrayStrategy `json:"grayStrategy,omitempty"`

	// How far back wanted replica counts are looked at before one is followed, in seconds: scaling down follows the highest
	// of them, scaling up the lowest. The default is 0 where neither direction has a window or a policy; else it is that of
	// a HorizontalPodAutoscaler, 300 down and 0 up. A Kubetide addition, with the meaning of autoscaling/v2.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=3600
	// +optional
	StabilizationWindowSeconds *int32 `json:"stabilizationWindowSeconds,omitempty"`

	// Which policy holds where there are several: Max (the default) the one that allows the biggest change, Min the smallest;
	// Disabled forbids this direction. A Kubetide addition, with the meaning of autoscaling/v2.
	// +kubebuilder:validation:Enum=Max;Min;Disabled
	// +optional
	SelectPolicy *autoscalingv2.ScalingPolicySelect `json:"selectPolicy,omitempty"`

	// How much the replica count may change within a time. Without any there is no limit where neither direction has a
	// window or a policy; else it is that of a HorizontalPodAutoscaler: 100 percent in 15 s down; 4 pods or 100 percent in
	// 15 s, whichever is more, up. A Kubetide addition, with the meaning of autoscaling/v2.
	// +kubebuilder:validation:MaxItems=16
	// +listType=atomic
	// +optional
	Policies []ScalingPolicy `json:"policies,omitempty"`

	// How far a metric may be from its target in this direction without a change, as a share: 0.1 is ten percent. It is for
	// Dynamic providers of the algorithm KubeHPA, and stands in for their kubeHPA.tolerance. A Kubetide addition, with the
	// meaning of autoscaling/v2.
	// +optional
	// +kubebuilder:validation:XValidation:rule=`type(self) == int ? self >= 0 : quantity(self).compareTo(quantity('0')) >= 0`,message="tolerance must be a number not below 0"
	Tolerance *resource.Quantity `json:"tolerance,omitempty"`
}

// ScalingPolicy is a limit to how much the replica count may change within a time.
type ScalingPolicy struct {
	// What value counts: Pods, or Percent of the replicas that there were when the period began.
	Type ScalingPolicyType `json:"type"`

	// How much may change within the period.
	// +kubebuilder:validation:Minimum=1
	Value int32 `json:"value"`

	// The period, in seconds.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1800
	PeriodSeconds int32 `json:"periodSeconds"`
}

// ScalingPolicyType says what a ScalingPolicy counts.
//
// +kubebuilder:validation:Enum=Pods;Percent
type ScalingPolicyType string

const (
	// PodsScalingPolicy counts pods.
	PodsScalingPolicy ScalingPolicyType = "Pods"
	// PercentScalingPolicy counts percent of the replicas.
	PercentScalingPolicy ScalingPolicyType = "Percent"
)

// ScheduledBounds are bounds of the replica count that hold in a window of time only.
//
// +kubebuilder:validation:XValidation:rule=`has(self.minReplicas) || has(self.maxReplicas)`,message="minReplicas or maxReplicas must be set"
// +kubebuilder:validation:XValidation:rule=`!has(self.minReplicas) || !has(self.maxReplicas) || self.minReplicas <= self.maxReplicas`,message="maxReplicas must not be less than minReplicas",fieldPath=".maxReplicas"
type ScheduledBounds struct {
	// The name of the window, unique among the scheduledBounds.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`

	// The IANA name of the time zone in which start and end are meant, for example Europe/Berlin. An empty string
	// means UTC, the default.
	// +kubebuilder:default=UTC
	// +kubebuilder:validation:MaxLength=64
	// +optional
	// +kubebuilder:validation:XValidation:rule=`!self.contains(':') && self != 'Local'`,message="timeZone must be the IANA name of a time zone, for example Europe/Berlin, or UTC"
	TimeZone string `json:"timeZone,omitempty"`

	// When the window begins, as a cron expression of five fields, inclusive. Another start before the end takes its place.
	Start CronExpression `json:"start"`

	// When the window ends, as a cron expression of five fields, exclusive.
	End CronExpression `json:"end"`

	// The lower bound while the window is open, in place of spec.minReplicas. Where windows overlap, the highest holds.
	// +kubebuilder:validation:Minimum=0
	// +optional
	MinReplicas *int32 `json:"minReplicas,omitempty"`

	// The upper bound while the window is open, in place of spec.maxReplicas. Where windows overlap, the lowest holds.
	// +kubebuilder:validation:Minimum=0
	// +optional
	MaxReplicas *int32 `json:"maxReplicas,omitempty"`
}

// Hold keeps the workload at one replica count for a while, whatever the providers ask for.
type Hold struct {
	// The replica count to hold, within the bounds. Absent: the one that the workload is going to when the hold begins.
	// +kubebuilder:validation:Minimum=0
	// +optional
	Replicas *int32 `json:"replicas,omitempty"`

	// When the hold lifts itself. Absent: when it is taken away.
	// +optional
	Until *metav1.Time `json:"until,omitempty"`

	// Why. It is shown in status and Events.
	// +kubebuilder:validation:MaxLength=512
	// +optional
	Reason string `json:"reason,omitempty"`

	// Who holds. It is shown in status and Events.
	// +kubebuilder:validation:MaxLength=253
	// +optional
	Actor string `json:"actor,omitempty"`
}

// GrayStrategy scales in steps, with a state for the pods on their way out.
type GrayStrategy struct {
	// The state that pods get at each step. Scaling up: Online. Scaling down: Cutoff or Standby hold the pods until the
	// run and its observation are over; Deleted removes them step by step.
	GrayState PodState `json:"grayState"`

	// The time between two steps, in seconds.
	// +kubebuilder:validation:Minimum=1
	ChangeIntervalSeconds int32 `json:"changeIntervalSeconds"`

	// The share of the whole change that each step adds, in percent, rounded down to whole pods.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	ChangePercent int32 `json:"changePercent"`

	// How long held pods are kept after the last step, in seconds, so that a mistake can be undone fast. The default
	// is 0.
	// +kubebuilder:validation:Minimum=0
	// +optional
	ObservationSeconds int32 `json:"observationSeconds,omitempty"`
}

// StabilityCheckerType is the type of a stability checker.
//
// +kubebuilder:validation:Enum=Metrics;External
type StabilityCheckerType string

const (
	// MetricsStabilityChecker compares metrics with bounds.
	MetricsStabilityChecker StabilityCheckerType = "Metrics"
	// ExternalStabilityChecker asks an external checker.
	ExternalStabilityChecker StabilityCheckerType = "External"
)

// StabilizationAction says what happens when a stability checker finds the workload unstable.
//
// +kubebuilder:validation:Enum=Pause;Rollback
type StabilizationAction string

const (
	// PauseAction stops the gray run where it is.
	PauseAction StabilizationAction = "Pause"
	// RollbackAction turns the held pods Online again.
	RollbackAction StabilizationAction = "Rollback"
)

// StabilityChecker watches the workload during a gray run.
//
// +kubebuilder:validation:XValidation:rule=`has(self.metrics) == (self.type == 'Metrics')`,message="metrics must be set if the type is Metrics, and only then",fieldPath=".metrics"
// +kubebuilder:validation:XValidation:rule=`has(self.external) == (self.type == 'External')`,message="external must be set if the type is External, and only then",fieldPath=".external"
type StabilityChecker struct {
	// The type of the checker: Metrics or External. The field of the same name holds its settings.
	Type StabilityCheckerType `json:"type"`

	// What to do when the workload is unstable: Pause or Rollback.
	StabilizationAction StabilizationAction `json:"stabilizationAction"`

	// How long to wait before the run goes on, in seconds. The default is 0.
	// +kubebuilder:validation:Minimum=0
	// +optional
	CoolDownSeconds int32 `json:"coolDownSeconds,omitempty"`

	// The settings of a Metrics checker.
	// +optional
	Metrics *MetricsStabilityCheckerConfig `json:"metrics,omitempty"`

	// The settings of an External checker.
	// +optional
	External *ExternalStabilityCheckerConfig `json:"external,omitempty"`
}

// MetricsStabilityCheckerConfig compares metrics with bounds.
type MetricsStabilityCheckerConfig struct {
	// The metrics; the workload is unstable as soon as one holds. Each needs an operator.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	// +listType=atomic
	// +kubebuilder:validation:XValidation:rule=`self.all(m, has(m.operator))`,message="each metric of a stability checker needs an operator"
	Metrics []MetricSpec `json:"metrics"`
}

// ExternalStabilityCheckerConfig asks an external checker.
type ExternalStabilityCheckerConfig struct {
	// The name of the checker.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`

	// Settings that are handed to the checker.
	// +kubebuilder:validation:MaxProperties=256
	// +optional
	Config map[string]string `json:"config,omitempty"`
}

// IntelligentHorizontalPodAutoscalerStatus says what was last decided and where the workload stands.
type IntelligentHorizontalPodAutoscalerStatus struct {
	// The generation of the spec that this status is about. A Kubetide addition.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// The value that was current before the current one.
	// +optional
	PreviousPortraitValue *PortraitValue `json:"previousPortraitValue,omitempty"`

	// What the winning provider asks for, before minReplicas and maxReplicas are applied.
	// +optional
	CurrentPortraitValue *PortraitValue `json:"currentPortraitValue,omitempty"`

	// The gray run, or the last one. grayPercent stays at 100 after a run is finished.
	// +optional
	Gray *GrayStatus `json:"gray,omitempty"`

	// What stabilization windows and policies remember. A Kubetide addition.
	// +optional
	Behavior *BehaviorStatus `json:"behavior,omitempty"`

	// The stability checkers that stopped or undid the gray run, and whose cool-down is not over. A Kubetide addition.
	// +kubebuilder:validation:MaxItems=16
	// +listType=map
	// +listMapKey=checker
	// +optional
	Breaches []StabilityBreach `json:"breaches,omitempty"`

	// The state of the autoscaler: ScalingActive, ScalingLimited, GrayProgressing, and Kubetide's additions
	// PortraitsHealthy, GrayStalled, Conflict, Held and Stable.
	// +kubebuilder:validation:MaxItems=32
	// +listType=map
	// +listMapKey=type
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty" patchStrategy:"merge" patchMergeKey:"type"`

	// The workload that was last acted on. Where spec.scaleTargetRef differs from it, that workload's held pods are
	// turned Online before the new one is scaled. A Kubetide addition.
	// +optional
	ScaleTarget *autoscalingv2.CrossVersionObjectReference `json:"scaleTarget,omitempty"`

	// The replica count that the workload has been asked to have, as its scale subresource says. A Kubetide addition.
	// +optional
	Replicas *int32 `json:"replicas,omitempty"`

	// The replica count that the workload is going to: the current portrait value within minReplicas and maxReplicas.
	// A Kubetide addition.
	// +optional
	DesiredReplicas *int32 `json:"desiredReplicas,omitempty"`

	// The replica count that spec.hold keeps. Absent: nothing is held. A Kubetide addition.
	// +optional
	HeldReplicas *int32 `json:"heldReplicas,omitempty"`

	// The number of running pods in the state Online. A Kubetide addition.
	// +optional
	OnlineReplicas *int32 `json:"onlineReplicas,omitempty"`

	// The number of running pods in the state Cutoff. A Kubetide addition.
	// +optional
	CutoffReplicas *int32 `json:"cutoffReplicas,omitempty"`

	// The number of running pods in the state Standby. A Kubetide addition.
	// +optional
	StandbyReplicas *int32 `json:"standbyReplicas,omitempty"`

	// The last decision that changed replicas, the profile or a condition, and how it came about. A Kubetide addition.
	// +optional
	LastDecision *DecisionRecord `json:"lastDecision,omitempty"`
}

// StabilityBreach is a stability checker that found the workload unstable.
type StabilityBreach struct {
	// The place of the checker in spec.stabilityCheckers, from 0.
	// +kubebuilder:validation:Minimum=0
	Checker int32 `json:"checker"`

	// When the breach was first seen.
	Since metav1.MicroTime `json:"since"`

	// What was seen then.
	// +optional
	Message string `json:"message,omitempty"`

	// Since when all is well again, and the cool-down runs. Absent: it is not well yet.
	// +optional
	Clear *metav1.MicroTime `json:"clear,omitempty"`
}

// BehaviorStatus is what stabilization windows and policies remember, so that they go on after a restart.
type BehaviorStatus struct {
	// The wanted replica counts that can hold a scale-down, oldest first.
	// +kubebuilder:validation:MaxItems=32
	// +listType=atomic
	// +optional
	Highest []Recommendation `json:"highest,omitempty"`

	// The wanted replica counts that can hold a scale-up, oldest first.
	// +kubebuilder:validation:MaxItems=32
	// +listType=atomic
	// +optional
	Lowest []Recommendation `json:"lowest,omitempty"`

	// How many replicas were added, oldest first.
	// +kubebuilder:validation:MaxItems=32
	// +listType=atomic
	// +optional
	Ups []ReplicaChange `json:"ups,omitempty"`

	// How many replicas were taken away, oldest first.
	// +kubebuilder:validation:MaxItems=32
	// +listType=atomic
	// +optional
	Downs []ReplicaChange `json:"downs,omitempty"`

	// The count on its way. Absent: what was decided is carried out, or there is no policy.
	// +optional
	Order *ReplicaOrder `json:"order,omitempty"`
}

// ReplicaOrder is a count that was decided and is not carried out yet.
type ReplicaOrder struct {
	// The count to which ups and downs lead.
	// +kubebuilder:validation:Minimum=0
	From int32 `json:"from"`

	// The count that was decided.
	// +kubebuilder:validation:Minimum=0
	To int32 `json:"to"`

	// When it was decided.
	Since metav1.MicroTime `json:"since"`
}

// Recommendation is a replica count that was wanted.
type Recommendation struct {
	// The number of replicas.
	// +kubebuilder:validation:Minimum=0
	Replicas int32 `json:"replicas"`

	// Until when. Absent: it is still wanted.
	// +optional
	Until *metav1.MicroTime `json:"until,omitempty"`
}

// ReplicaChange is a number of replicas that were added or taken away.
type ReplicaChange struct {
	// The number of replicas.
	// +kubebuilder:validation:Minimum=0
	Replicas int32 `json:"replicas"`

	// When; the newest time where several changes were put together.
	Time metav1.MicroTime `json:"time"`

	// The oldest time where several changes were put together.
	// +optional
	First *metav1.MicroTime `json:"first,omitempty"`
}

// PortraitValue is what a provider asks for.
type PortraitValue struct {
	// The id of the provider: Static, Cron, or Dynamic- and the portrait type.
	Provider string `json:"provider"`

	// The number of replicas.
	// +kubebuilder:validation:Minimum=0
	Replicas int32 `json:"replicas"`

	// When the value ends. Absent: never.
	// +optional
	ExpireTime *metav1.Time `json:"expireTime,omitempty"`
}

// GrayStatus is where a gray run stands. All fields but grayPercent and lastUpdateTime are Kubetide additions; a run
// that lacks them was begun by Kapacity.
type GrayStatus struct {
	// How much of the run is done, in percent: the steps taken times changePercent, at most 100.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	GrayPercent int32 `json:"grayPercent"`

	// When grayPercent changed last.
	LastUpdateTime metav1.Time `json:"lastUpdateTime"`

	// The online replica count when the run began.
	// +kubebuilder:validation:Minimum=0
	// +optional
	From int32 `json:"from,omitempty"`

	// The online replica count that the run goes to.
	// +kubebuilder:validation:Minimum=0
	// +optional
	To int32 `json:"to,omitempty"`

	// The number of steps taken.
	// +kubebuilder:validation:Minimum=0
	// +optional
	Steps int32 `json:"steps,omitempty"`

	// When the run began.
	// +optional
	StartedAt *metav1.MicroTime `json:"startedAt,omitempty"`

	// When the last step was applied to the pods.
	// +optional
	LastStepTime *metav1.MicroTime `json:"lastStepTime,omitempty"`

	// When the step was written that is not yet applied. Absent: none is pending.
	// +optional
	PendingSince *metav1.MicroTime `json:"pendingSince,omitempty"`

	// Since when a pending step waits for a pause, a rolling update or instability to end, which does not count as a stall. Absent: it does not.
	// +optional
	FrozenSince *metav1.MicroTime `json:"frozenSince,omitempty"`

	// When the observation began: the last step is applied and no cut pod is ready. Absent: it has not begun.
	// +optional
	ObservedSince *metav1.MicroTime `json:"observedSince,omitempty"`

	// The pods held back from traffic, and since when, so that none is held for ever.
	// +kubebuilder:validation:MaxItems=32
	// +listType=atomic
	// +optional
	Held []HeldBatch `json:"held,omitempty"`

	// The state that the run gives to pods. Absent: no run is going on.
	// +optional
	GrayState PodState `json:"grayState,omitempty"`
}

// HeldBatch is a number of pods that were taken out of traffic together.
type HeldBatch struct {
	// The number of pods that are still held.
	// +kubebuilder:validation:Minimum=0
	Replicas int32 `json:"replicas"`

	// When they were taken out of traffic. Time in which the run was stopped does not count.
	Since metav1.MicroTime `json:"since"`
}

// DecisionRecord says how a decision came about. Its JSON form is at most 4 KiB: longer lists and texts are cut
// before they are written.
type DecisionRecord struct {
	// When the decision was taken.
	Time metav1.MicroTime `json:"time"`

	// What made the controller look: for example "spec changed", "cron boundary", "gray step due".
	// +optional
	Trigger string `json:"trigger,omitempty"`

	// What each provider asked for.
	// +kubebuilder:validation:MaxItems=32
	// +listType=atomic
	// +optional
	Candidates []DecisionCandidate `json:"candidates,omitempty"`

	// What each stage made of the number: merge, clamp, gray, and so on, in order.
	// +kubebuilder:validation:MaxItems=32
	// +listType=atomic
	// +optional
	Steps []DecisionStep `json:"steps,omitempty"`

	// What came out, in one line.
	// +optional
	Result string `json:"result,omitempty"`

	// When the controller looks again if nothing happens before. Absent: it waits for a change.
	// +optional
	Next *metav1.MicroTime `json:"next,omitempty"`

	// What the next look waits for.
	// +optional
	NextCause string `json:"nextCause,omitempty"`

	// What would change the result, a sentence each.
	// +kubebuilder:validation:MaxItems=16
	// +listType=atomic
	// +optional
	Counterfactuals []string `json:"counterfactuals,omitempty"`

	// Whether texts were cut or entries left out to keep the record small.
	// +optional
	Truncated bool `json:"truncated,omitempty"`
}

// DecisionCandidate is what one provider asked for.
type DecisionCandidate struct {
	// The id of the provider.
	Provider string `json:"provider"`

	// The priority of the provider.
	Priority int32 `json:"priority"`

	// The number of replicas. Absent: the provider has no opinion, or failed.
	// +optional
	Replicas *int32 `json:"replicas,omitempty"`

	// When the opinion ends. Absent: never.
	// +optional
	Expires *metav1.MicroTime `json:"expires,omitempty"`

	// Whether it decides.
	// +optional
	Chosen bool `json:"chosen,omitempty"`

	// Whether the provider failed, and so forbids lowering.
	// +optional
	Failed bool `json:"failed,omitempty"`

	// Why it won, lost, was skipped or failed.
	// +optional
	Reason string `json:"reason,omitempty"`
}

// DecisionStep is what one stage made of the number.
type DecisionStep struct {
	// The name of the stage.
	Stage string `json:"stage"`

	// The number of replicas after the stage.
	Replicas int32 `json:"replicas"`

	// Why.
	// +optional
	Reason string `json:"reason,omitempty"`
}
