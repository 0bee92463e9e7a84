package main

import (
	"testing"
	"time"
)

func TestAsksAreCountedByIntervalsOfEachSource(t *testing.T) {
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(seconds ...float64) (instants []time.Time) {
		for _, s := range seconds {
			instants = append(instants, begin.Add(time.Duration(s*float64(time.Second))))
		}
		return instants
	}
	for name, c := range map[string]struct {
		sources [][]time.Time
		want    asks
	}{
		"each once":                      {[][]time.Time{at(3, 13, 23), at(9, 19, 29)}, asks{total: 4, mean: 1, least: 1, most: 1, once: 1}},
		"a moment early is still once":   {[][]time.Time{at(3, 12.5, 23.5)}, asks{total: 2, mean: 1, least: 1, most: 1, once: 1}},
		"twice in an interval":           {[][]time.Time{at(3, 13, 14, 23)}, asks{total: 3, mean: 1.5, least: 1.5, most: 1.5, once: 0.5}},
		"one left out":                   {[][]time.Time{at(3, 23)}, asks{total: 1, mean: 0.5, least: 0.5, most: 0.5, once: 0.5}},
		"one never asked counts as well": {[][]time.Time{at(3, 13, 23), nil}, asks{total: 2, mean: 0.5, least: 0, most: 1, once: 0.5}},
		"by three servers":               {[][]time.Time{at(1, 4, 8, 11, 14, 18, 21, 24, 28, 31)}, asks{total: 6, mean: 3, least: 3, most: 3, once: 0}},
	} {
		if got := countAsks(c.sources, begin, 10*time.Second, 2); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

func TestTheSplitIsTheFarthestFromAnEqualShare(t *testing.T) {
	for _, c := range []struct {
		parts []float64
		want  float64
	}{{[]float64{10, 10, 10}, 0}, {[]float64{10, 9, 11}, 0.1}, {[]float64{30, 0, 0}, 2}, {[]float64{15, 15, 0}, 1}} {
		if got := split(c.parts); got < c.want-1e-9 || got > c.want+1e-9 {
			t.Errorf("%v: %v, want %v", c.parts, got, c.want)
		}
	}
}

func TestAnswersAreTheSameIfTheirSampleIs(t *testing.T) {
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		b    answer
		want bool
	}{
		"equal":                              {answer{7, at}, true},
		"clocks on two sides of a second":    {answer{7, at.Add(-time.Second)}, true},
		"the value, but of another time":     {answer{7, at.Add(2 * time.Second)}, false},
		"another value of nearly that time":  {answer{8, at}, false},
		"another value of the next interval": {answer{8, at.Add(15 * time.Second)}, false},
	} {
		if got := (answer{7, at}).same(c.b); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
