// Package cron serves a number by cron windows as an External metric, so that a plain HPA can follow a cron portrait. It asks
// nobody; internal/window knows when a window is open.
package cron

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/utils/clock"

	"github.com/kubetide/kubetide/collectors"
	"github.com/kubetide/kubetide/collectors/static"
	"github.com/kubetide/kubetide/internal/sample"
	"github.com/kubetide/kubetide/internal/window"
)

// Name is the `type` label that asks for this source.
const Name = "cron"

const (
	keyStart    = "start"
	keyEnd      = "end"
	keyTimezone = "timezone"
	keyValue    = "value"
	keyDefault  = "default"

	maxWindows = 100
)

// Source serves External metrics by windows: each has `start`, `end` (cron expressions), `value`, and `timezone` (UTC if it is
// left out), with a suffix .1, .2, ... for further windows. A suffixed window without its own timezone has that of the
// first. Where windows overlap, the highest value counts; outside all of them `default`, and without that there is no data.
type Source struct {
	Clock clock.PassiveClock
}

// Keys implements collectors.Source.
func (Source) Keys() []string {
	return []string{keyStart, keyEnd, keyTimezone, keyValue, keyDefault,
		keyStart + ".*", keyEnd + ".*", keyTimezone + ".*", keyValue + ".*"}
}

// Parse implements collectors.Source.
func (Source) Parse(r collectors.Request) (sample.Query, error) {
	p, err := parse(r.Settings)
	if err != nil {
		return sample.Query{}, err
	}
	return r.Query(Name, p.settings), nil
}

// Open implements collectors.Source.
func (s Source) Open(q sample.Query) (collectors.Collector, error) {
	settings, err := sample.DecodeSettings(q.Settings)
	if err != nil {
		return nil, err
	}
	p, err := parse(settings)
	if err != nil {
		return nil, err
	}
	return &collector{p, s.Clock}, nil
}

// plan is the parsed settings and their canonical form.
type plan struct {
	windows  []opening
	fallback *int64 // thousandths; nil: no data
	settings sample.Settings
}

type opening struct {
	rule  window.Rule
	milli int64
}

func parse(in sample.Settings) (plan, error) {
	p := plan{settings: sample.Settings{}}
	suffixes, err := windowSuffixes(in)
	if err != nil {
		return plan{}, err
	}
	for i, suffix := range suffixes {
		for _, key := range []string{keyStart, keyEnd} {
			if in[key+suffix] == "" {
				return plan{}, collectors.BadKey(key+suffix, "is missing")
			}
		}
		value, err := static.ParseValue(in, keyValue+suffix)
		if err != nil {
			return plan{}, err
		}
		zone := cmp.Or(in[keyTimezone+suffix], in[keyTimezone], "UTC")
		rule, err := window.ParseRule(in[keyStart+suffix], in[keyEnd+suffix], zone)
		if bad := (*window.RuleError)(nil); errors.As(err, &bad) {
			return plan{}, &collectors.KeyError{Key: strings.ToLower(bad.Field) + suffix, Err: bad.Err}
		}
		p.windows = append(p.windows, opening{rule, value.MilliValue()})

		out := "" // windows are numbered without gaps, so that the same question has one form
		if i > 0 {
			out = "." + strconv.Itoa(i)
		}
		p.settings[keyStart+out], p.settings[keyEnd+out] = in[keyStart+suffix], in[keyEnd+suffix]
		p.settings[keyTimezone+out], p.settings[keyValue+out] = zone, value.String()
	}
	if _, ok := in[keyDefault]; ok {
		value, err := static.ParseValue(in, keyDefault)
		if err != nil {
			return plan{}, err
		}
		milli := value.MilliValue()
		p.fallback, p.settings[keyDefault] = &milli, value.String()
	}
	return p, nil
}

// windowSuffixes returns the suffixes of the windows that the keys speak of, in the order of their numbers; "" comes first.
func windowSuffixes(in sample.Settings) ([]string, error) {
	numbers := map[int]bool{}
	for key := range in {
		name, number, suffixed := strings.Cut(key, ".")
		switch name {
		case keyStart, keyEnd, keyValue, keyTimezone:
		default:
			continue // a label of the metric's selector
		}
		if !suffixed {
			if name != keyTimezone { // alone it is the zone of the suffixed windows
				numbers[0] = true
			}
			continue
		}
		n, err := strconv.Atoi(number)
		if err != nil || n < 1 || n > maxWindows || strconv.Itoa(n) != number {
			return nil, collectors.BadKey(key, "the suffix is not a number from 1 to %d", maxWindows)
		}
		numbers[n] = true
	}
	if len(numbers) == 0 {
		return nil, collectors.BadKey(keyStart, "is missing")
	}
	var suffixes []string
	for _, n := range slices.Sorted(maps.Keys(numbers)) {
		if n == 0 {
			suffixes = append(suffixes, "")
		} else {
			suffixes = append(suffixes, "."+strconv.Itoa(n))
		}
	}
	return suffixes, nil
}

type collector struct {
	plan
	clock clock.PassiveClock
}

// Collect implements collectors.Collector.
func (c *collector) Collect(context.Context) ([]sample.Point, error) {
	now := c.clock.Now()
	highest := int64(-1)
	for _, w := range c.windows {
		if open, _ := w.rule.Active(now); open {
			highest = max(highest, w.milli)
		}
	}
	if highest < 0 {
		if c.fallback == nil {
			return nil, sample.NoData("no window is open until %s, and there is no default", c.NextChange(now).UTC().Format(time.RFC3339))
		}
		highest = *c.fallback
	}
	return []sample.Point{{Milli: highest}}, nil
}

// NextChange implements collectors.Timed.
func (c *collector) NextChange(now time.Time) time.Time {
	var next time.Time
	for _, w := range c.windows {
		if at := w.rule.Next(now); next.IsZero() || at.Before(next) {
			next = at
		}
	}
	return next
}
