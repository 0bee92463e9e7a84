package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// chapter is one part of the story. It needs no other: it has a namespace of its own name.
type chapter interface {
	about() about
	// setUp makes what the chapter needs. It prints nothing: another chapter may be on the screen.
	setUp(ctx context.Context, l *lab) error
	// run shows the chapter. It returns its figures, or what of its claim is not true, with what was last seen.
	run(ctx context.Context, l *lab, s *screen) (figures string, err error)
}

// about is what is known of a chapter before it is told.
type about struct {
	name, title string
	look        string        // at what
	bound       time.Duration // of run
	parts       []string      // what it needs of the lab besides the control plane
	after       []string      // arguments of kubectl that show what is left of it
}

// story is all chapters, in their order.
func story() []chapter {
	return []chapter{&schedule{}, &load{}, &gray{}, &stackset{}, &servers{}}
}

// choose returns the named chapters in the story's order; all if none is named.
func choose(all []chapter, names []string) ([]chapter, error) {
	var known []string
	for _, c := range all {
		known = append(known, c.about().name)
	}
	for _, name := range names {
		if !slices.Contains(known, name) {
			return nil, fmt.Errorf("there is no chapter %q; there are: %s", name, strings.Join(known, ", "))
		}
	}
	return slices.DeleteFunc(slices.Clone(all), func(c chapter) bool {
		return len(names) > 0 && !slices.Contains(names, c.about().name)
	}), nil
}

// needs are the parts of the lab that the chapters need.
func needs(chapters []chapter) (parts []string) {
	for _, c := range chapters {
		parts = append(parts, c.about().parts...)
	}
	return parts
}

// result is what came of a chapter.
type result struct {
	name, figures string
	took          time.Duration
	err           error
}

// tell shows the chapters one after another, and sets up each while the one before is shown. It goes on after one that failed.
func tell(ctx context.Context, l *lab, s *screen, chapters []chapter) (results []result) {
	ready := make([]chan error, len(chapters))
	prepare := func(i int) {
		if i < len(chapters) {
			ready[i] = make(chan error, 1)
			go func() { ready[i] <- chapters[i].setUp(ctx, l) }()
		}
	}
	prepare(0)
	for i, c := range chapters {
		a := c.about()
		s.print(fmt.Sprintf("\n==> %s: %s\n    look at: %s\n", a.name, a.title, a.look))
		r := result{name: a.name}
		began := time.Now()
		for _, name := range a.parts {
			s.doing("%s is built from source", name)
			_, _ = l.parts[name].wait(ctx) // setUp tells of its failure
		}
		s.doing("it is set up")
		if r.err = waitFor(ctx, ready[i]); r.err != nil {
			r.err = fmt.Errorf("set up: %w", r.err)
		}
		prepare(i + 1)
		if r.err == nil {
			bounded, cancel := context.WithTimeout(ctx, a.bound)
			r.figures, r.err = c.run(bounded, l, s)
			cancel()
		}
		if r.err == nil {
			_, r.err = l.kubectl(ctx, a.after...) // what people are told to type has to work
		}
		r.took = time.Since(began)
		s.doing("")
		if ctx.Err() != nil {
			return results
		}
		if r.err != nil {
			s.say("FAILED: %v", r.err)
		} else {
			s.say("ok: %s", r.figures)
		}
		results = append(results, r)
	}
	return results
}

func waitFor(ctx context.Context, ready <-chan error) error {
	select {
	case err := <-ready:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// summary is the table at the end.
func summary(results []result) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "CHAPTER\tRESULT\tTIME\tSEEN")
	for _, r := range results {
		verdict, seen := "ok", r.figures
		if r.err != nil {
			verdict = "FAILED"
			seen, _, _ = strings.Cut(r.err.Error(), "\n")
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", r.name, verdict, r.took.Round(time.Second), seen)
	}
	_ = w.Flush()
	return b.String()
}

// until asks until check returns nil. Its error is check's last one.
func until(ctx context.Context, within time.Duration, check func(context.Context) error) error {
	bounded, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	last := errors.New("nothing was seen")
	for {
		err := check(bounded)
		if err == nil {
			return nil
		}
		if bounded.Err() == nil {
			last = err
		}
		select {
		case <-bounded.Done():
			return fmt.Errorf("not within %s: %w", within, last)
		case <-tick.C:
		}
	}
}

// spend lets time pass, of which something is seen.
func spend(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// seconds prints a duration as 2.5 s.
func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }
