// Package sample holds the words that collectors, the store and their readers share: the Query that says what is asked
// for, the Result of collecting it, and the Answer that a reader gets. It does no I/O and knows no collector.
//
// A Query and a Result contain plain values only, so that they can be encoded and sent to another node; ages travel, not
// clock readings.
package sample

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/types"
)

// Kind is the shape of an answer, named as in the HPA's metric types.
type Kind string

const (
	// Pods answers have one point for each pod.
	Pods Kind = "Pods"
	// Object answers have one point, which describes Query.Object.
	Object Kind = "Object"
	// External answers have one point.
	External Kind = "External"
	// Resource answers have one point for each pod; they feed the engine and are not served by the metrics APIs.
	Resource Kind = "Resource"
)

// ObjectRef names an object in the namespace of the query. The version is left out: it does not change what is meant.
type ObjectRef struct {
	Group string `json:"group,omitempty"`
	Kind  string `json:"kind,omitempty"`
	Name  string `json:"name,omitempty"`
}

func (r ObjectRef) String() string {
	if r.Group == "" {
		return r.Kind + "/" + r.Name
	}
	return r.Kind + "." + r.Group + "/" + r.Name
}

// Query is one question to one source, in canonical form: askers with the same question have equal queries and cause one
// collection. It is comparable and can be used as a map key.
type Query struct {
	Kind Kind `json:"kind"`
	// Namespace is that of the asker. A source may be asked only on behalf of one namespace.
	Namespace string `json:"namespace"`
	// Metric is the name under which the metrics APIs serve the answer.
	Metric string `json:"metric"`
	// Selector is the metric's label selector as labels.Selector.String() prints it; empty where there is none.
	Selector string `json:"selector,omitempty"`
	// Object is the described object of an Object metric.
	Object ObjectRef `json:"object,omitzero"`
	// Target is the scaled workload. It is set only where the answer depends on it.
	Target ObjectRef `json:"target,omitzero"`
	// PerReplica says that the source's value is divided by the target's status.replicas. Target is set then.
	PerReplica bool `json:"perReplica,omitempty"`
	// Collector is the name under which the source is registered.
	Collector string `json:"collector"`
	// Settings are the collector's own, as Settings.Encode prints them.
	Settings string `json:"settings,omitempty"`
	// Interval is the time from the start of one collection to the start of the next.
	Interval time.Duration `json:"interval"`
	// Fallback is what is served while the source gives no value; for External and Object only.
	Fallback Fallback `json:"fallback,omitzero"`
}

// ID is the same on every node and after every restart, and differs where the queries differ.
func (q Query) ID() string {
	b, err := json.Marshal(q)
	if err != nil {
		panic(err) // a struct of strings and a number
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:10])
}

// Series is the address under which an answer is served. Queries that differ in collector, settings, interval or
// fallback only compete for one Series, because a request to the metrics APIs does not say which of them it means.
type Series struct {
	Kind      Kind
	Namespace string
	Metric    string
	Selector  string
	// Object is the described object of an Object metric, the target of Pods and Resource metrics, else zero.
	Object ObjectRef
}

// Series returns the address of the query's answer.
func (q Query) Series() Series {
	s := Series{Kind: q.Kind, Namespace: q.Namespace, Metric: q.Metric, Selector: q.Selector}
	switch q.Kind {
	case Object:
		s.Object = q.Object
	case Pods, Resource:
		s.Object = q.Target
	}
	return s
}

func (s Series) String() string {
	out := fmt.Sprintf("%s %s/%s", s.Kind, s.Namespace, s.Metric)
	if s.Selector != "" {
		out += "{" + s.Selector + "}"
	}
	if s.Object != (ObjectRef{}) {
		out += " of " + s.Object.String()
	}
	return out
}

// Settings are a collector's keys and values.
type Settings map[string]string

// Encode prints the settings in one canonical form: a JSON object with sorted keys; empty for no settings.
func (s Settings) Encode() string {
	if len(s) == 0 {
		return ""
	}
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // a map of strings
	}
	return string(b)
}

// DecodeSettings reads what Encode printed.
func DecodeSettings(text string) (Settings, error) {
	if text == "" {
		return nil, nil
	}
	var s Settings
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return nil, fmt.Errorf("settings %q: %w", text, err)
	}
	return s, nil
}

// Point is one value.
type Point struct {
	// Pod and UID name the pod that the value belongs to; empty for Object and External.
	Pod string    `json:"pod,omitempty"`
	UID types.UID `json:"uid,omitempty"`
	// Labels are the pod's labels; nil for Object and External. They must not be changed.
	Labels labels.Set `json:"labels,omitempty"`
	// Milli is the value in thousandths.
	Milli int64 `json:"milli"`
	// Window is the span of time that the value sums up; 0 for an instant.
	Window time.Duration `json:"window,omitempty"`
	// Age is how much older than the start of the collection the source says that the value is; 0 where it says nothing.
	Age time.Duration `json:"age,omitempty"`
	// Container is set for Resource points of a single container.
	Container string `json:"container,omitempty"`
}

// Result is the outcome of one collection.
type Result struct {
	Query Query
	// Taken is the start of the collection, with its monotonic reading. A time given by the source can only make it older.
	Taken  time.Time
	Points []Point
	// Err is why there are no points, or why some pods have none (then Points holds the rest).
	Err error
	// Warning is what people are told beside points that are complete.
	Warning error
}

// State says what a reader may do with an Answer.
type State int

const (
	// Missing means that there is no value, and Answer.Cause says why.
	Missing State = iota
	// Stale means that the last value is older than Answer.MaxAge allows. It is never served as a number.
	Stale
	// Fresh means that Points can be used.
	Fresh
)

func (s State) String() string {
	return [...]string{"Missing", "Stale", "Fresh"}[s]
}

// Answer is what is known about a Query.
type Answer struct {
	State State
	// Points are set if State is Fresh. They are shared and must not be changed.
	Points []Point
	Taken  time.Time
	// MaxAge is the age from which the value counts as stale.
	MaxAge time.Duration
	// Cause is the error of the last collection, or why there has been none.
	Cause error
	// Instead is set while the source has no value and the query has a Fallback. State is Fresh then if Instead.Serves(), and
	// Points are what is served in its place; a fixed value was Taken when it was read.
	Instead *Instead
}

// Reader gives the last known answer from memory.
type Reader interface {
	Answer(q Query) Answer
	// Subscribe calls notify after each change of the query's answer, without holding a lock, until cancel is called.
	// notify must not block; several changes may cause one call.
	Subscribe(q Query, notify func()) (cancel func())
}

// ErrNotFinite reports a value that is not a number, infinite, or too large to be served.
var ErrNotFinite = fmt.Errorf("the value is not a finite number between -9.2e15 and 9.2e15")

// ErrNoData reports that the source was asked, answered, and has no value now (no window is active, the result is empty).
// A reader then sees Missing at once. After any other error the last value stays Fresh until it is too old.
var ErrNoData = errors.New("the source has no value now")

// NoData is an ErrNoData that says why in its own words.
func NoData(format string, args ...any) error { return noData(fmt.Sprintf(format, args...)) }

type noData string

func (e noData) Error() string        { return string(e) }
func (e noData) Is(target error) bool { return target == ErrNoData }

// ExactLabels returns the labels that the selector requires with exactly one value: its matchLabels, and `in` with one value.
func ExactLabels(selector labels.Selector) labels.Set {
	if selector == nil || selector.Empty() {
		return nil
	}
	set := labels.Set{}
	requirements, _ := selector.Requirements()
	for _, r := range requirements {
		switch r.Operator() {
		case selection.Equals, selection.DoubleEquals, selection.In:
			if values := r.ValuesUnsorted(); len(values) == 1 {
				set[r.Key()] = values[0]
			}
		}
	}
	return set
}

// Milli converts a source's number to thousandths, truncating what is finer, as kube-metrics-adapter does. A number that
// cannot be represented is ErrNotFinite, never a value.
func Milli(value float64) (int64, error) {
	milli := value * 1000
	if math.IsNaN(milli) || milli >= math.MaxInt64 || milli <= math.MinInt64 {
		return 0, ErrNotFinite
	}
	return int64(milli), nil
}

// resourceDelay is how old cpu and memory may be when they come: metrics-server hands out its last round, and its rounds take up
// to a minute. What it cannot measure any more it drops itself.
const resourceDelay = 75 * time.Second

// MaxAge is how old an answer to the query may be and still be served: one collection may fail, and the next may take its
// time. limit is the upper bound that the operator set; 0 for none.
func (q Query) MaxAge(limit time.Duration) time.Duration {
	age := 2*q.Interval + 10*time.Second
	if q.Kind == Resource {
		age += resourceDelay
	}
	if limit > 0 {
		return min(age, limit)
	}
	return age
}

// Compare orders queries, for output that must not depend on a map's order.
func Compare(a, b Query) int {
	return cmp.Or(
		cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Metric, b.Metric),
		cmp.Compare(a.Selector, b.Selector), cmp.Compare(a.ID(), b.ID()))
}
