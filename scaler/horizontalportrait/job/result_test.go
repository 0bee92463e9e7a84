package job

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
)

func result(series string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "test", Name: "test-predictive-result"},
		Data: map[string]string{"type": "TimeSeries", "expireTime": "2023-09-21T12:05:51Z", "timeSeries": series}}
}

func points(pairs ...int64) (out []kapacity.ReplicaTimeSeriesPoint) {
	for i := 0; i < len(pairs); i += 2 {
		out = append(out, kapacity.ReplicaTimeSeriesPoint{Timestamp: pairs[i], Replicas: int32(pairs[i+1])})
	}
	return out
}

func TestResultsAreRead(t *testing.T) {
	three := points(1695290760, 3, 1695290880, 6, 1695291000, 9)
	for name, c := range map[string]struct {
		series string
		want   []kapacity.ReplicaTimeSeriesPoint
	}{
		"row 11: as documented":                 {`{"1695290760":3,"1695290880":6,"1695291000":9}`, three},
		"in any order":                          {`{"1695291000":9,"1695290760":3,"1695290880":6}`, three},
		"B7: keys that became floats":           {`{"1695290760.0":3,"1695290880.0":6,"1695291000.0":9}`, three},
		"B7: both kinds, and powers of ten":     {`{"1695290760":3,"1.69529088e+09":6,"1695291000.0":9}`, three},
		"counts that became floats":             {`{"1695290760":3.0,"1695290880":6e0,"1695291000":9}`, three},
		"no replicas are a number of replicas":  {`{"0":0}`, points(0, 0)},
		"the most of each":                      {fmt.Sprintf(`{"%d":%d}`, endOfTime-1, math.MaxInt32), points(endOfTime-1, math.MaxInt32)},
		"white space and the most points there": {" {\n" + many(maxPoints) + "}\n", nil},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Parse(result(c.series))
			if err != nil {
				t.Fatal(err)
			}
			want := &kapacity.PortraitData{Type: kapacity.TimeSeriesPortraitData, ExpireTime: &metav1.Time{Time: time.Date(2023, 9, 21, 12, 5, 51, 0, time.UTC)},
				TimeSeries: &kapacity.TimeSeriesPortrait{TimeSeries: c.want}}
			if c.want == nil {
				want.TimeSeries = got.TimeSeries
				if n := len(got.TimeSeries.TimeSeries); n != maxPoints {
					t.Errorf("%d points", n)
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func many(n int) string {
	var out []string
	for i := range n {
		out = append(out, fmt.Sprintf(`"%d": %d`, i, i))
	}
	return strings.Join(out, ", ")
}

func TestBadResultsAreNamed(t *testing.T) {
	change := func(key, value string) *corev1.ConfigMap {
		c := result(`{"1":1}`)
		if c.Data[key] = value; value == "" {
			delete(c.Data, key)
		}
		return c
	}
	for name, c := range map[string]struct {
		result *corev1.ConfigMap
		want   string
	}{
		"nothing at all":              {&corev1.ConfigMap{}, `key "type" is missing`},
		"another type":                {change("type", "Cron"), `key "type": "Cron" is no type that can be read; there is TimeSeries`},
		"no expiry":                   {change("expireTime", ""), `key "expireTime" is missing`},
		"an expiry without a zone":    {change("expireTime", "2023-09-21 12:05:51"), `key "expireTime": "2023-09-21 12:05:51" is no time such as`},
		"no series":                   {change("timeSeries", ""), `key "timeSeries" is missing`},
		"no points":                   {result(`{}`), `key "timeSeries": has no points`},
		"a list":                      {result(`[1]`), `is no JSON object from times to replicas: begins with [`},
		"not JSON":                    {result(`x`), `is no JSON object from times to replicas: `},
		"an empty text":               {result(` `), `unexpected EOF`},
		"an end in the middle":        {result(`{"1":1`), `unexpected EOF`},
		"something behind it":         {result(`{"1":1}{}`), `something follows the object`},
		"B7: a key that is no number": {result(`{"1":1,"soon":2}`), `the time "soon" is no number of whole seconds`},
		"B7: half a second":           {result(`{"1.5":1}`), `the time "1.5" is no`},
		"a key before 1970":           {result(`{"-1":1}`), `the time "-1" is no`},
		"milliseconds":                {result(`{"1695290760000":1}`), `the time "1695290760000" is no number of whole seconds since 1970 before the year 10000`},
		"no number as a key":          {result(`{"NaN":1}`), `the time "NaN" is no`},
		"an endless key":              {result(`{"Inf":1}`), `the time "Inf" is no`},
		"a long key":                  {result(`{"` + strings.Repeat("x", 1000) + `":1}`), `xxx"... is no number`},
		"half a replica":              {result(`{"7":1.5}`), `the value of "7", "1.5", is no number of replicas`},
		"fewer than none":             {result(`{"7":-1}`), `the value of "7", "-1", is no number of replicas`},
		"too many":                    {result(`{"7":2147483648}`), `the value of "7", "2147483648", is no number of replicas`},
		"a text":                      {result(`{"7":"3"}`), `the value of "7" is no number`},
		"an object":                   {result(`{"7":{"a":1}}`), `the value of "7" is no number`},
		"nothing":                     {result(`{"7":null}`), `the value of "7" is no number`},
		"a time twice":                {result(`{"7":1,"8":1,"7.0":2}`), `has two points for the time 7`},
		"too many points":             {result("{" + many(maxPoints+1) + "}"), `has more than 10080 points`},
		"too long":                    {result("{" + strings.Repeat(" ", maxBytes) + "}"), `is longer than 1048576 bytes`},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Parse(c.result); err == nil || !strings.Contains(err.Error(), c.want) || len(err.Error()) > 300 {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}

func TestAnExpiryIsKeptAsItIsStored(t *testing.T) {
	r := result(`{"1":1}`)
	r.Data["expireTime"] = "2023-09-21T14:05:51.75+02:00"
	got, err := Parse(r)
	if err != nil || !got.ExpireTime.Time.Equal(time.Date(2023, 9, 21, 12, 5, 51, 0, time.UTC)) {
		t.Errorf("%v, %v", got, err)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{`{"1695290760":3}`, `{"1.0":3,"2e0":4}`, `{"1":{}}`, `[`, `{"1":1}x`, ``} {
		f.Add(s, "TimeSeries", "2023-09-21T12:05:51Z")
	}
	f.Fuzz(func(t *testing.T, series, kind, expires string) {
		r := result(series)
		r.Data["type"], r.Data["expireTime"] = kind, expires
		data, err := Parse(r)
		if err != nil {
			return
		}
		got := data.TimeSeries.TimeSeries
		if len(got) == 0 || len(got) > maxPoints || !slices.IsSortedFunc(got, func(a, b kapacity.ReplicaTimeSeriesPoint) int { return int(max(-1, min(1, a.Timestamp-b.Timestamp))) }) {
			t.Errorf("%d points, sorted or not: %v", len(got), got)
		}
		for _, p := range got {
			if p.Timestamp < 0 || p.Replicas < 0 {
				t.Errorf("%+v", p)
			}
		}
	})
}
