package sample

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
)

func TestWhatIsNoFiniteNumberIsNoValue(t *testing.T) {
	tests := map[string]struct {
		value float64
		milli int64
		err   error
	}{
		"a number":                         {12.5, 12_500, nil},
		"what is finer than thousandths":   {0.0019, 1, nil},
		"below zero":                       {-0.0019, -1, nil},
		"the greatest that can be served":  {9.2e15, 9_200_000_000_000_000_000, nil},
		"one that is too large":            {9.3e15, 0, ErrNotFinite},
		"one that is too far below zero":   {-9.3e15, 0, ErrNotFinite},
		"not a number":                     {math.NaN(), 0, ErrNotFinite},
		"infinity":                         {math.Inf(1), 0, ErrNotFinite},
		"minus infinity":                   {math.Inf(-1), 0, ErrNotFinite},
		"a number whose thousands are not": {math.MaxFloat64, 0, ErrNotFinite},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			milli, err := Milli(tt.value)
			if milli != tt.milli || !errors.Is(err, tt.err) {
				t.Errorf("%d, %v; want %d, %v", milli, err, tt.milli, tt.err)
			}
		})
	}
}

func TestQuantitiesAreReadAsKubernetesDoesButBounded(t *testing.T) {
	for _, text := range []string{"0", "5", "+5", "-5", "2.5", ".5", "5.", "500m", "2k", "1Gi", "1E", "1e3", "1E-3", "1e30", "9223372036854775807"} {
		got, err := ParseQuantity(text)
		want := resource.MustParse(text)
		if err != nil || got.Cmp(want) != 0 {
			t.Errorf("%s: %s, %v", text, got.String(), err)
		}
	}
	for _, text := range []string{"", "five", "1e99999999", "1e-99999999", "1e100", "5 ", "0x5", "1e", "NaN", strings.Repeat("1", 65)} {
		if got, err := ParseQuantity(text); err == nil {
			t.Errorf("%q is read as %s", text, got.String())
		}
	}
}

func TestHowLongAnAnswerIsUsed(t *testing.T) {
	external, cpu := Query{Kind: External, Interval: 15 * time.Second}, Query{Kind: Resource, Interval: 15 * time.Second}
	if got := external.MaxAge(time.Hour); got != 40*time.Second {
		t.Errorf("external: %s", got)
	}
	if got := cpu.MaxAge(time.Hour); got != 115*time.Second {
		t.Errorf("metrics-server's rounds: %s", got)
	}
	if got := cpu.MaxAge(time.Minute); got != time.Minute {
		t.Errorf("the operator's limit: %s", got)
	}
}
