package metricsapi

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/metrics/pkg/apis/custom_metrics"
	"k8s.io/metrics/pkg/apis/external_metrics"
)

// appendJSON appends the list as the library's encoder for the version writes it.
func appendJSON(to []byte, list runtime.Object, gv schema.GroupVersion) ([]byte, error) {
	switch list := list.(type) {
	case *external_metrics.ExternalMetricValueList:
		return appendList(to, "ExternalMetricValueList", gv, list.Items, appendExternal)
	case *custom_metrics.MetricValueList:
		if gv.Version == "v1beta1" {
			return appendList(to, "MetricValueList", gv, list.Items, appendCustomV1beta1)
		}
		return appendList(to, "MetricValueList", gv, list.Items, appendCustomV1beta2)
	default:
		return to, fmt.Errorf("%T is no list of values", list)
	}
}

func appendList[T any](to []byte, kind string, gv schema.GroupVersion, items []T, item func([]byte, *T) ([]byte, error)) ([]byte, error) {
	to = append(append(to, `{"kind":"`...), kind...)
	to = append(append(to, `","apiVersion":"`...), gv.Group...)
	to = append(append(append(to, '/'), gv.Version...), `","metadata":{},"items":[`...)
	for i := range items {
		if i > 0 {
			to = append(to, ',')
		}
		var err error
		if to, err = item(to, &items[i]); err != nil {
			return to, err
		}
	}
	return append(to, "]}\n"...), nil
}

func appendExternal(to []byte, v *external_metrics.ExternalMetricValue) ([]byte, error) {
	to = appendString(append(to, `{"metricName":`...), v.MetricName)
	to = append(to, `,"metricLabels":`...)
	if v.MetricLabels == nil {
		to = append(to, "null"...)
	} else {
		var few [8]string // on the stack
		keys := few[:0]
		for key := range v.MetricLabels {
			keys = append(keys, key)
		}
		slices.Sort(keys)
		to = append(to, '{')
		for i, key := range keys {
			if i > 0 {
				to = append(to, ',')
			}
			to = appendString(append(appendString(to, key), ':'), v.MetricLabels[key])
		}
		to = append(to, '}')
	}
	to = appendTime(append(to, `,"timestamp":`...), v.Timestamp)
	to = appendWindow(to, `,"window":`, v.WindowSeconds)
	to = appendQuantity(append(to, `,"value":`...), v.Value)
	return append(to, '}'), nil
}

func appendCustomV1beta1(to []byte, v *custom_metrics.MetricValue) ([]byte, error) {
	to = appendString(append(appendObject(to, v), `,"metricName":`...), v.Metric.Name)
	to = appendTime(append(to, `,"timestamp":`...), v.Timestamp)
	to = appendWindow(to, `,"window":`, v.WindowSeconds)
	to = appendQuantity(append(to, `,"value":`...), v.Value)
	to, err := appendSelector(append(to, `,"selector":`...), v.Metric.Selector)
	return append(to, '}'), err
}

func appendCustomV1beta2(to []byte, v *custom_metrics.MetricValue) ([]byte, error) {
	to = appendString(append(appendObject(to, v), `,"metric":{"name":`...), v.Metric.Name)
	to, err := appendSelector(append(to, `,"selector":`...), v.Metric.Selector)
	to = appendTime(append(to, `},"timestamp":`...), v.Timestamp)
	to = appendWindow(to, `,"windowSeconds":`, v.WindowSeconds)
	to = appendQuantity(append(to, `,"value":`...), v.Value)
	return append(to, '}'), err
}

// appendObject begins the value with its described object, of which Kubetide fills in four fields.
func appendObject(to []byte, v *custom_metrics.MetricValue) []byte {
	to = append(to, `{"describedObject":{`...)
	comma := false
	for _, field := range [...][2]string{
		{`"kind":`, v.DescribedObject.Kind}, {`"namespace":`, v.DescribedObject.Namespace}, {`"name":`, v.DescribedObject.Name}, {`"apiVersion":`, v.DescribedObject.APIVersion},
	} {
		if field[1] == "" {
			continue
		}
		if comma {
			to = append(to, ',')
		}
		to, comma = appendString(append(to, field[0]...), field[1]), true
	}
	return append(to, '}')
}

func appendSelector(to []byte, selector *metav1.LabelSelector) ([]byte, error) {
	text, err := json.Marshal(selector)
	return append(to, text...), err
}

func appendWindow(to []byte, key string, seconds *int64) []byte {
	if seconds == nil {
		return to
	}
	return strconv.AppendInt(append(to, key...), *seconds, 10)
}

func appendTime(to []byte, t metav1.Time) []byte {
	if t.IsZero() {
		return append(to, "null"...)
	}
	return append(t.UTC().AppendFormat(append(to, '"'), time.RFC3339), '"')
}

func appendQuantity(to []byte, q resource.Quantity) []byte {
	var memory [32]byte // on the stack
	number, suffix := q.CanonicalizeBytes(memory[:0])
	return append(append(append(append(to, '"'), number...), suffix...), '"')
}

// appendString leaves it to the library to escape what has to be.
func appendString(to []byte, text string) []byte {
	for i := range len(text) {
		if c := text[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			quoted, _ := json.Marshal(text) // a string always can be
			return append(to, quoted...)
		}
	}
	return append(append(append(to, '"'), text...), '"')
}
