package v1alpha1

import (
	"fmt"
	"net/url"
	"strconv"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/conversion"
)

// Decision explains what Kubetide decided last about an object, and why. Its name and namespace are the object's.
//
// +kubebuilder:object:root=true
type Decision struct {
	metav1.TypeMeta `json:",inline"`
	// The object's name and namespace. creationTimestamp is when the decision was taken.
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// The kind of the object: IntelligentHorizontalPodAutoscaler.
	ObjectKind string `json:"objectKind"`

	// The last decision.
	Decision Record `json:"decision"`

	// What the metrics of the object's HorizontalPortraits said last, which may be after the decision.
	// +optional
	// +listType=atomic
	Portraits []Portrait `json:"portraits,omitempty"`
}

// DecisionList is a list of Decisions.
//
// +kubebuilder:object:root=true
type DecisionList struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ListMeta `json:"metadata,omitempty"`

	// +listType=atomic
	Items []Decision `json:"items"`
}

// DecisionHistory is the subresource history of a Decision: the last decisions about an object, oldest first.
//
// +kubebuilder:object:root=true
type DecisionHistory struct {
	metav1.TypeMeta `json:",inline"`
	// The object's name and namespace.
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// The kind of the object: IntelligentHorizontalPodAutoscaler.
	ObjectKind string `json:"objectKind"`

	// The decisions, oldest first.
	// +listType=atomic
	Decisions []Record `json:"decisions"`
}

// HistoryOptions are the query parameters of the subresource history.
//
// +kubebuilder:object:root=true
type HistoryOptions struct {
	metav1.TypeMeta `json:",inline"`

	// How many decisions to return, the last ones. Absent or 0: all that are kept.
	// +optional
	Limit int64 `json:"limit,omitempty"`
}

// ConvertURLValues reads query parameters. A limit that is no number, or is negative, is an error.
func ConvertURLValues(in *url.Values, out *HistoryOptions, _ conversion.Scope) error {
	if text := in.Get("limit"); text != "" {
		limit, err := strconv.ParseUint(text, 10, 31)
		if err != nil {
			return fmt.Errorf("limit %q is not a whole number from 0 to 2147483647", text)
		}
		out.Limit = int64(limit)
	}
	return nil
}

// Record is one decision. Its texts are cut so that its JSON form has at most 4 KiB.
type Record struct {
	// When the decision was taken.
	Time metav1.MicroTime `json:"time"`

	// What made the controller look: for example "spec changed", "gray step due".
	// +optional
	Trigger string `json:"trigger,omitempty"`

	// What each portrait provider asked for.
	// +optional
	// +listType=atomic
	Candidates []Candidate `json:"candidates,omitempty"`

	// What each stage made of the number, in order: merge, behavior, clamp, hold, gray.
	// +optional
	// +listType=atomic
	Steps []Step `json:"steps,omitempty"`

	// What came out, in a sentence.
	Result string `json:"result"`

	// When the object is looked at again if nothing happens before. Absent: only an event can change anything.
	// +optional
	Next *metav1.MicroTime `json:"next,omitempty"`

	// What will happen at next.
	// +optional
	NextCause string `json:"nextCause,omitempty"`

	// What would change the result, a sentence each: "scale-down blocked until 12:04:30".
	// +optional
	// +listType=atomic
	Counterfactuals []string `json:"counterfactuals,omitempty"`

	// Whether texts were cut or entries left out to keep the record small.
	// +optional
	Truncated bool `json:"truncated,omitempty"`
}

// Candidate is one portrait provider's answer, and what became of it.
type Candidate struct {
	// The id of the provider: Static, Cron, or Dynamic- and the portrait type.
	Provider string `json:"provider"`

	// The priority of the provider; the highest wins.
	Priority int32 `json:"priority"`

	// The number of replicas. Absent: the provider has no opinion, or failed.
	// +optional
	Replicas *int32 `json:"replicas,omitempty"`

	// Where the value comes from, for example the name of a HorizontalPortrait.
	// +optional
	Source string `json:"source,omitempty"`

	// When what the value rests on was measured. Absent: the value does not age.
	// +optional
	Measured *metav1.MicroTime `json:"measured,omitempty"`

	// When the value ends. Absent: never.
	// +optional
	Expires *metav1.MicroTime `json:"expires,omitempty"`

	// Whether it decides.
	// +optional
	Chosen bool `json:"chosen,omitempty"`

	// Whether the provider failed.
	// +optional
	Failed bool `json:"failed,omitempty"`

	// Why it won, lost, was skipped or failed.
	// +optional
	Reason string `json:"reason,omitempty"`
}

// Step is what one stage made of the number.
type Step struct {
	// The name of the stage.
	Stage string `json:"stage"`

	// The number of replicas after the stage.
	Replicas int32 `json:"replicas"`

	// Why.
	// +optional
	Reason string `json:"reason,omitempty"`
}

// Portrait is the last evaluation of a HorizontalPortrait.
type Portrait struct {
	// The name of the HorizontalPortrait.
	Name string `json:"name"`

	// When it was evaluated.
	Time metav1.MicroTime `json:"time"`

	// The replicas that it asks for. Absent: it asks for nothing.
	// +optional
	Replicas *int32 `json:"replicas,omitempty"`

	// What each metric said.
	// +optional
	// +listType=atomic
	Metrics []PortraitMetric `json:"metrics,omitempty"`

	// A sentence about the whole, for example why there is no number.
	// +optional
	Note string `json:"note,omitempty"`
}

// PortraitMetric is what one metric of a HorizontalPortrait said.
type PortraitMetric struct {
	// The name of the metric.
	Metric string `json:"metric"`

	// The collector that the value comes from, or resource.
	// +optional
	Source string `json:"source,omitempty"`

	// The value. Absent: there is none.
	// +optional
	Value string `json:"value,omitempty"`

	// The target that the value is compared with.
	// +optional
	Target string `json:"target,omitempty"`

	// How old the value was at the portrait's time.
	// +optional
	Age *metav1.Duration `json:"age,omitempty"`

	// Fresh, Stale or Missing.
	// +optional
	State string `json:"state,omitempty"`

	// The replicas that this metric alone asks for. Absent: it says nothing.
	// +optional
	Replicas *int32 `json:"replicas,omitempty"`

	// How it came to that, or why it says nothing.
	// +optional
	Reason string `json:"reason,omitempty"`

	// The value above which more replicas are asked for. Absent: not known.
	// +optional
	ScaleUpAbove string `json:"scaleUpAbove,omitempty"`

	// The value below which fewer replicas are asked for. Absent: not known.
	// +optional
	ScaleDownBelow string `json:"scaleDownBelow,omitempty"`

	// The value above which all replicas that are allowed are asked for. Absent: not known.
	// +optional
	AtMaxAbove string `json:"atMaxAbove,omitempty"`
}

// Sample is what Kubetide knows about one metric that somebody asks for. Its name is made of everything that tells the
// question from others, and is the same on every replica.
//
// +kubebuilder:object:root=true
type Sample struct {
	metav1.TypeMeta `json:",inline"`
	// creationTimestamp is when the last collection began that gave a value.
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// What is asked for.
	Query SampleQuery `json:"query"`

	// Fresh: the value is served. Stale: it is too old and is not served. Missing: there is none.
	State string `json:"state"`

	// How old the value is. Absent: there is none.
	// +optional
	Age *metav1.Duration `json:"age,omitempty"`

	// The age from which a value is stale.
	MaxAge metav1.Duration `json:"maxAge"`

	// The value, or the average over the pods of a metric of type Pods or Resource. Absent unless the state is Fresh.
	// +optional
	Value string `json:"value,omitempty"`

	// How many pods have a value, for metrics of type Pods and Resource.
	// +optional
	Pods *int32 `json:"pods,omitempty"`

	// Why there is no value, or why some pods have none.
	// +optional
	Cause string `json:"cause,omitempty"`

	// What the fallback of the HorizontalPodAutoscaler makes of a lost value: Waiting, Held, Fixed or Over.
	// +optional
	Fallback string `json:"fallback,omitempty"`
}

// SampleList is a list of Samples.
//
// +kubebuilder:object:root=true
type SampleList struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ListMeta `json:"metadata,omitempty"`

	// +listType=atomic
	Items []Sample `json:"items"`
}

// SampleQuery is what is asked for. The collector's settings are not shown: they are for those who may read the asker.
type SampleQuery struct {
	// The type of the metric: Pods, Object, External or Resource.
	Type string `json:"type"`

	// The name of the metric.
	Metric string `json:"metric"`

	// The metric's label selector.
	// +optional
	Selector string `json:"selector,omitempty"`

	// The described object of an Object metric, as Kind/name or Kind.group/name.
	// +optional
	Object string `json:"object,omitempty"`

	// The scaled workload, where the answer depends on it.
	// +optional
	Target string `json:"target,omitempty"`

	// The collector that is asked.
	Collector string `json:"collector"`

	// The time between two collections.
	Interval metav1.Duration `json:"interval"`
}
