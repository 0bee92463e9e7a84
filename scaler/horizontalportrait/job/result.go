package job

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
)

// Bounds of a result. The points are as many as a HorizontalPortrait may hold: one a minute for a week.
const (
	maxPoints = 10080
	maxBytes  = 1 << 20
	// endOfTime is the year 10000, beyond which no time can be written; a timestamp in milliseconds is far behind it.
	endOfTime = 253402300800
)

// Parse reads the result that a job left. An error names the key that cannot be read.
func Parse(result *corev1.ConfigMap) (*kapacity.PortraitData, error) {
	value := func(key string) (string, error) {
		text, ok := result.Data[key]
		if !ok {
			return "", fmt.Errorf("key %q is missing", key)
		}
		return text, nil
	}
	kind, err := value(kapacity.ResultKeyType)
	if err != nil {
		return nil, err
	}
	if kind != string(kapacity.TimeSeriesPortraitData) {
		return nil, fmt.Errorf("key %q: %s is no type that can be read; there is %s", kapacity.ResultKeyType, quote(kind), kapacity.TimeSeriesPortraitData)
	}
	text, err := value(kapacity.ResultKeyExpireTime)
	if err != nil {
		return nil, err
	}
	expires, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return nil, fmt.Errorf("key %q: %s is no time such as 2026-11-22T12:05:00Z", kapacity.ResultKeyExpireTime, quote(text))
	}
	if text, err = value(kapacity.ResultKeyTimeSeries); err != nil {
		return nil, err
	}
	points, err := parseSeries(text)
	if err != nil {
		return nil, fmt.Errorf("key %q: %w", kapacity.ResultKeyTimeSeries, err)
	}
	// It is stored in whole seconds: a fraction would differ from what is stored for ever.
	return &kapacity.PortraitData{Type: kapacity.TimeSeriesPortraitData, ExpireTime: &metav1.Time{Time: expires.UTC().Truncate(time.Second)},
		TimeSeries: &kapacity.TimeSeriesPortrait{TimeSeries: points}}, nil
}

// parseSeries reads an object from Unix seconds to replicas, in the order of time. It reads token by token, so that a second point
// of the same time is seen and a long series ends at its bound.
func parseSeries(text string) ([]kapacity.ReplicaTimeSeriesPoint, error) {
	if len(text) > maxBytes {
		return nil, fmt.Errorf("is longer than %d bytes", maxBytes)
	}
	decoder := json.NewDecoder(bytes.NewReader([]byte(text)))
	decoder.UseNumber()
	malformed := func(err error) error {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("is no JSON object from times to replicas: %w", err)
	}
	begin, err := decoder.Token()
	if err != nil {
		return nil, malformed(err)
	}
	if begin != json.Delim('{') {
		return nil, malformed(fmt.Errorf("begins with %v", begin))
	}
	var points []kapacity.ReplicaTimeSeriesPoint
	for decoder.More() {
		token, err := decoder.Token()
		if err != nil {
			return nil, malformed(err)
		}
		key, _ := token.(string) // what begins an entry of an object is a string
		if token, err = decoder.Token(); err != nil {
			return nil, malformed(err)
		}
		number, ok := token.(json.Number)
		if !ok {
			return nil, fmt.Errorf("the value of %s is no number", quote(key))
		}
		at, ok := whole(key)
		if !ok || at >= endOfTime {
			return nil, fmt.Errorf("the time %s is no number of whole seconds since 1970 before the year 10000", quote(key))
		}
		replicas, ok := whole(number.String())
		if !ok || replicas > math.MaxInt32 {
			return nil, fmt.Errorf("the value of %s, %s, is no number of replicas", quote(key), quote(number.String()))
		}
		if len(points) == maxPoints {
			return nil, fmt.Errorf("has more than %d points", maxPoints)
		}
		points = append(points, kapacity.ReplicaTimeSeriesPoint{Timestamp: at, Replicas: int32(replicas)})
	}
	if _, err := decoder.Token(); err != nil {
		return nil, malformed(err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, malformed(errors.New("something follows the object"))
	}
	if len(points) == 0 {
		return nil, errors.New("has no points")
	}
	slices.SortFunc(points, func(a, b kapacity.ReplicaTimeSeriesPoint) int { return cmp.Compare(a.Timestamp, b.Timestamp) })
	for i := range points[1:] {
		if at := points[i].Timestamp; at == points[i+1].Timestamp {
			return nil, fmt.Errorf("has two points for the time %d", at)
		}
	}
	return points, nil
}

// whole reads a number of at least 0 that is whole, however it is written: Kapacity's algorithm writes 1695290760 as
// 1695290760.0 since its version 0.2.0.
func whole(text string) (int64, bool) {
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return n, n >= 0
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || f != math.Trunc(f) || f < 0 || f > 1<<53 { // also what is no number at all
		return 0, false
	}
	return int64(f), true
}

// quote shows what a job wrote, which may be long.
func quote(text string) string {
	if len(text) > 64 {
		return strconv.Quote(text[:64]) + "..."
	}
	return strconv.Quote(text)
}
