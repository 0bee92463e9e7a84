package static

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kubetide/kubetide/collectors"
	"github.com/kubetide/kubetide/internal/sample"
)

func parse(settings sample.Settings) (sample.Query, error) {
	return Source{}.Parse(collectors.Request{Kind: sample.External, Namespace: "shop", Metric: "floor", Interval: time.Minute, Settings: settings})
}

func TestValueIsServedAsWritten(t *testing.T) {
	for text, want := range map[string]int64{"5": 5000, "0": 0, "2.5": 2500, "2500m": 2500, "2k": 2_000_000, "9200000000000000": 9_200_000_000_000_000_000} {
		q, err := parse(sample.Settings{"value": text, "type": "static"})
		if err != nil {
			t.Fatal(err)
		}
		c, err := Source{}.Open(q)
		if err != nil {
			t.Fatal(err)
		}
		points, err := c.Collect(t.Context())
		if diff := cmp.Diff([]sample.Point{{Milli: want}}, points); diff != "" || err != nil {
			t.Errorf("%q: error %v, points (-want +got):\n%s", text, err, diff)
		}
	}
}

func TestOneValueIsOneQuery(t *testing.T) {
	a, errA := parse(sample.Settings{"value": "2500m", "type": "static"})
	b, errB := parse(sample.Settings{"value": "2.5"})
	if errA != nil || errB != nil || a != b {
		t.Errorf("queries differ: %+v (%v) and %+v (%v)", a, errA, b, errB)
	}
}

func TestBadValuesNameTheKey(t *testing.T) {
	for name, tt := range map[string]struct {
		settings sample.Settings
		text     string
	}{
		"missing":   {sample.Settings{"type": "static"}, "is missing"},
		"empty":     {sample.Settings{"value": ""}, "is not a number"},
		"a word":    {sample.Settings{"value": "five"}, `"five" is not a number`},
		"negative":  {sample.Settings{"value": "-1"}, "is negative"},
		"too large": {sample.Settings{"value": "1e30"}, "is not a finite number"},
		"endless":   {sample.Settings{"value": "1e99999999"}, "is not a number"},
		"too long":  {sample.Settings{"value": strings.Repeat("1", 65)}, "is longer than 64"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse(tt.settings)
			var key *collectors.KeyError
			if !errors.As(err, &key) || key.Key != "value" || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("error = %v, want one of key value with %q", err, tt.text)
			}
		})
	}
}
