package v1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ScalingSchedule is a metric whose value follows windows of time. A HorizontalPodAutoscaler of the same namespace uses
// it through a metric of type Object.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:shortName=sched;schedule,categories=all,scope=Namespaced
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Active",type=boolean,JSONPath=`.status.active`,description="Whether a window or its fade is going on"
// +kubebuilder:printcolumn:name="Window",type=integer,JSONPath=`.spec.scalingWindowDurationMinutes`,priority=1,description="Minutes of fading in and out"
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type ScalingSchedule struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// The windows.
	Spec ScalingScheduleSpec `json:"spec"`
	// Whether a window is going on. Written by the controller.
	// +kubebuilder:default={}
	// +optional
	Status ScalingScheduleStatus `json:"status,omitzero"`
}

// ScalingScheduleList is a list of ScalingSchedules.
//
// +kubebuilder:object:root=true
type ScalingScheduleList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ScalingSchedule `json:"items"`
}

// ClusterScalingSchedule is a metric whose value follows windows of time. A HorizontalPodAutoscaler of any namespace
// uses it through a metric of type Object.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:shortName=css;clustersched;clusterschedule,scope=Cluster
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Active",type=boolean,JSONPath=`.status.active`,description="Whether a window or its fade is going on"
// +kubebuilder:printcolumn:name="Window",type=integer,JSONPath=`.spec.scalingWindowDurationMinutes`,priority=1,description="Minutes of fading in and out"
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type ClusterScalingSchedule struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// The windows.
	Spec ScalingScheduleSpec `json:"spec"`
	// Whether a window is going on. Written by the controller.
	// +kubebuilder:default={}
	// +optional
	Status ScalingScheduleStatus `json:"status,omitzero"`
}

// ClusterScalingScheduleList is a list of ClusterScalingSchedules.
//
// +kubebuilder:object:root=true
type ClusterScalingScheduleList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ClusterScalingSchedule `json:"items"`
}

// ScalingScheduleSpec is the windows of a schedule. Where several are open the highest value counts; where none is, the
// value is 0.
type ScalingScheduleSpec struct {
	// How long the value fades in before each window and out after it, in minutes. 0 means no fading. If it is unset,
	// the default of the cluster counts (10 minutes unless the administrator changed it).
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=52560000
	// +optional
	ScalingWindowDurationMinutes *int64 `json:"scalingWindowDurationMinutes,omitempty"`

	// The windows.
	// +kubebuilder:validation:MaxItems=1000
	// +listType=atomic
	// +kubebuilder:validation:XValidation:rule=`oldSelf.hasValue() && oldSelf.value() == self || self.all(s, !has(s.period) || timestamp('2024-01-01T00:00:00Z').getHours(s.period.timezone) >= 0)`,message="timezone must be the IANA name of a time zone, for example Europe/Berlin, or UTC",optionalOldSelf=true
	Schedules []Schedule `json:"schedules"`
}

// ScheduleType says whether a window comes once or again and again.
//
// +kubebuilder:validation:Enum=OneTime;Repeating
type ScheduleType string

const (
	// OneTimeSchedule is a window that begins at a date.
	OneTimeSchedule ScheduleType = "OneTime"
	// RepeatingSchedule is a window that begins at a time of day on days of the week.
	RepeatingSchedule ScheduleType = "Repeating"
)

// Schedule is one window and its value. The window ends at its end or durationMinutes after its start, whichever is
// later.
//
// +kubebuilder:validation:XValidation:rule=`self.type != 'OneTime' || has(self.date)`,message="date must be set if the type is OneTime",fieldPath=".date"
// +kubebuilder:validation:XValidation:rule=`self.type != 'Repeating' || has(self.period)`,message="period must be set if the type is Repeating",fieldPath=".period"
type Schedule struct {
	// OneTime (needs date) or Repeating (needs period).
	Type ScheduleType `json:"type"`

	// When a Repeating window is open.
	// +optional
	Period *SchedulePeriod `json:"period,omitempty"`

	// When a OneTime window begins, in RFC 3339 form: 2026-12-24T18:00:00+01:00.
	// +optional
	Date *ScheduleDate `json:"date,omitempty"`

	// When a OneTime window ends, in RFC 3339 form.
	// +optional
	EndDate *ScheduleDate `json:"endDate,omitempty"`

	// The least duration of the window, in minutes of elapsed time. The default is 0.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=52560000
	// +optional
	DurationMinutes int `json:"durationMinutes,omitempty"`

	// The value of the metric inside the window.
	Value int64 `json:"value"`
}

// ScheduleDate is a point of time in RFC 3339 form.
//
// +kubebuilder:validation:Format=date-time
// +kubebuilder:validation:MaxLength=64
// +kubebuilder:validation:Pattern=`^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}:\d{2})$`
type ScheduleDate string

// ScheduleDay is a day of the week.
//
// +kubebuilder:validation:Enum=Sun;Mon;Tue;Wed;Thu;Fri;Sat
type ScheduleDay string

// The days of the week.
const (
	SundaySchedule    ScheduleDay = "Sun"
	MondaySchedule    ScheduleDay = "Mon"
	TuesdaySchedule   ScheduleDay = "Tue"
	WednesdaySchedule ScheduleDay = "Wed"
	ThursdaySchedule  ScheduleDay = "Thu"
	FridaySchedule    ScheduleDay = "Fri"
	SaturdaySchedule  ScheduleDay = "Sat"
)

// SchedulePeriod is when a Repeating window is open.
type SchedulePeriod struct {
	// The time of day at which the window begins, in the time zone: HH:MM from 00:00 to 23:59. A time that a change of
	// the clocks leaves out moves forward by the length of the gap; of a time that comes twice the second one counts.
	// +kubebuilder:validation:Pattern=`^([01][0-9]|2[0-3]):[0-5][0-9]$`
	StartTime string `json:"startTime"`

	// The time of day at which the window ends: HH:MM from 00:00 to 23:59. A time before startTime belongs to the next
	// day. Without it the window lasts durationMinutes.
	// +kubebuilder:validation:Pattern=`^([01][0-9]|2[0-3]):[0-5][0-9]$`
	// +optional
	EndTime string `json:"endTime,omitempty"`

	// The days of the week, in the time zone, on which the window begins.
	// +kubebuilder:validation:MaxItems=32
	// +listType=atomic
	Days []ScheduleDay `json:"days"`

	// The IANA name of the time zone, for example Europe/Berlin. An empty string means the default of the cluster.
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule=`!self.contains(':') && self != 'Local'`,message="timezone must be the IANA name of a time zone, for example Europe/Berlin, or UTC"
	Timezone string `json:"timezone"`
}

// ScalingScheduleStatus is the state of a schedule.
type ScalingScheduleStatus struct {
	// Whether a window, or its fading in or out, is going on.
	// +kubebuilder:default=false
	// +optional
	Active bool `json:"active"`
}
