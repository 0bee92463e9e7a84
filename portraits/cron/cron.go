// Package cron is the portrait that asks for replicas in cron windows. internal/window knows when they are open.
package cron

import (
	"errors"
	"fmt"
	"strings"
	"time"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	"github.com/kubetide/kubetide/internal/window"
	"github.com/kubetide/kubetide/portraits"
)

// Portrait asks for the replicas of the window that is open. Where windows overlap, the one with more replicas counts,
// then the first in the list. A rule that cannot be used is an error of that rule: the portrait counts as failed, and the
// other rules still speak.
type Portrait struct {
	windows []opening
	err     error
}

type opening struct {
	name     string
	replicas int32
	rule     window.Rule
}

// New never fails; what is wrong with a rule is in the opinions' Err.
func New(crons []kapacity.ReplicaCron) *Portrait {
	p := &Portrait{}
	var errs []error
	if len(crons) == 0 {
		errs = append(errs, errors.New("cron.crons: there is no window"))
	}
	seen := map[string]bool{}
	for i, c := range crons {
		rule, err := window.ParseRule(string(c.Start), string(c.End), c.TimeZone)
		switch {
		case err != nil:
		case c.Replicas < 0:
			err = fmt.Errorf("replicas: %d is negative", c.Replicas)
		case seen[c.Name]:
			err = errors.New("name: another window has it")
		default:
			seen[c.Name] = true
			p.windows = append(p.windows, opening{c.Name, c.Replicas, rule})
			continue
		}
		errs = append(errs, fmt.Errorf("cron.crons[%d] %q: %w", i, c.Name, err))
	}
	p.err = errors.Join(errs...)
	return p
}

// Evaluate implements portraits.Portrait.
func (p *Portrait) Evaluate(now time.Time) portraits.Opinion {
	o := portraits.Opinion{Err: p.err}
	var best *opening
	var open []string
	for i := range p.windows {
		w := &p.windows[i]
		if next := w.rule.Next(now); o.Next.IsZero() || next.Before(o.Next) {
			o.Next = next
		}
		active, until := w.rule.Active(now)
		if !active {
			continue
		}
		open = append(open, fmt.Sprintf("%q (%d)", w.name, w.replicas))
		if best == nil || w.replicas > best.replicas {
			best, o.Expires = w, until
		}
	}
	switch {
	case best != nil:
		o.HasValue, o.Replicas = true, best.replicas
		o.Reason = fmt.Sprintf("window %q until %s", best.name, o.Expires.UTC().Format(time.RFC3339))
	case o.Next.IsZero():
		o.Reason = "no usable window"
	default:
		o.Reason = "no window is open until " + o.Next.UTC().Format(time.RFC3339)
	}
	if len(open) > 1 {
		o.Warnings = []string{fmt.Sprintf("found overlapping cron windows %s: the one with more replicas counts", strings.Join(open, " and "))}
	}
	return o
}
