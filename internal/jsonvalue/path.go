package jsonvalue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"text/scanner"

	"github.com/PaesslerAG/gval"

	"github.com/kubetide/kubetide/internal/sample"
)

// run is one evaluation.
type run struct {
	ctx   context.Context
	root  any
	steps int
}

var errTooMuchWork = errors.New("the expression looks at more values than the limit of " + strconv.Itoa(maxSteps))

// spend takes n steps from what is left.
func (r *run) spend(n int) error {
	if r.steps/1024 != (r.steps-n)/1024 && r.ctx.Err() != nil {
		return fmt.Errorf("evaluating the expression: %w", r.ctx.Err())
	}
	if r.steps -= n; r.steps < 0 {
		return errTooMuchWork
	}
	return nil
}

// stopped tells the end of the whole run from an error that concerns one value only.
func (r *run) stopped() bool { return r.steps < 0 || r.ctx.Err() != nil }

// scope is what gval hands to every part of an expression: the run, and what @ stands for.
type scope struct {
	run     *run
	current any
}

// runOf returns the run of a scope. gval folds constants while it parses, without a scope.
func runOf(v any) *run {
	if s, ok := v.(scope); ok {
		return s.run
	}
	return &run{ctx: context.Background(), steps: maxSteps}
}

// nodes is what a path matches.
type nodes []any

// absent stands for a path that matches nothing, inside of a script.
type absent struct{}

// segment is one step of a path: it turns what has been matched so far into what is matched now.
type segment func(ctx context.Context, r *run, in nodes) (nodes, error)

// parsePath reads the path behind a $ or @ and returns an Evaluable of nodes.
func parsePath(ctx context.Context, p *gval.Parser, start func(scope) any) (gval.Evaluable, error) {
	var segments []segment
	for {
		var s segment
		var err error
		switch p.Scan() {
		case '.':
			switch p.Scan() {
			case '.':
				segments = append(segments, descend)
				switch p.Scan() {
				case scanner.Ident:
					s = children(p.Const(p.TokenText()))
				case '*':
					s = star
				case '[':
					s, err = parseBracket(ctx, p)
				default:
					return nil, p.Expected("what follows ..", scanner.Ident, '*', '[')
				}
			case scanner.Ident:
				s = children(p.Const(p.TokenText()))
			case '*':
				s = star
			default:
				return nil, p.Expected("what follows a dot", scanner.Ident, '*', '[')
			}
		case '[':
			s, err = parseBracket(ctx, p)
		default:
			p.Camouflage("JSON path", '.', '[')
			return func(ctx context.Context, v any) (any, error) {
				sc := v.(scope)
				matched := nodes{start(sc)}
				for _, s := range segments {
					var err error
					if matched, err = s(ctx, sc.run, matched); err != nil {
						return nil, err
					}
				}
				return matched, nil
			}, nil
		}
		if err != nil {
			return nil, err
		}
		segments = append(segments, s)
	}
}

func parseBracket(ctx context.Context, p *gval.Parser) (segment, error) {
	switch p.Scan() {
	case '*':
		if p.Scan() != ']' {
			return nil, p.Expected("the bracket", ']')
		}
		return star, nil
	case '?':
		condition, err := p.ParseExpression(ctx)
		if err != nil {
			return nil, err
		}
		if p.Scan() != ']' {
			return nil, p.Expected("the filter", ']')
		}
		return filter(condition), nil
	}
	p.Camouflage("the bracket")
	var parts []gval.Evaluable // an empty part of a range is nil
	separator := ']'
	for expectPart := true; ; {
		switch token := p.Scan(); {
		case token == ',' || token == ':' || token == ']':
			if expectPart {
				parts = append(parts, nil)
			}
			expectPart = true
			if token == ']' {
				return bracket(parts, separator)
			}
			if separator != ']' && separator != token {
				return nil, errors.New("a bracket cannot have both a comma and a colon")
			}
			separator = token
		case expectPart:
			p.Camouflage("the bracket")
			part, err := p.ParseExpression(ctx)
			if err != nil {
				return nil, err
			}
			parts = append(parts, part)
			expectPart = false
		default:
			return nil, p.Expected("the bracket", ',', ':', ']')
		}
	}
}

func bracket(parts []gval.Evaluable, separator rune) (segment, error) {
	if separator != ':' {
		if slices.ContainsFunc(parts, func(e gval.Evaluable) bool { return e == nil }) {
			return nil, errors.New("a bracket has a part with nothing in it")
		}
		return children(parts...), nil
	}
	if len(parts) > 3 {
		return nil, errors.New("a range has at most three parts, [start:end:step]")
	}
	return slice(append(parts, nil, nil)[:3]), nil
}

// add appends v to out within the bounds.
func (r *run) add(out nodes, v any) (nodes, error) {
	if len(out) >= MaxValues {
		return nil, fmt.Errorf("the path matches more than %d values", MaxValues)
	}
	return append(out, v), r.spend(1)
}

// visit calls f for the items of an array, and for the values of an object in the order of their keys, so that equal
// documents give equal sums.
func (r *run) visit(v any, f func(v any) error) error {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			if err := f(e); err != nil {
				return err
			}
		}
	case map[string]any:
		if err := r.spend(len(v)); err != nil {
			return err
		}
		for _, k := range slices.Sorted(maps.Keys(v)) {
			if err := f(v[k]); err != nil {
				return err
			}
		}
	}
	return nil
}

func star(_ context.Context, r *run, in nodes) (out nodes, err error) {
	for _, v := range in {
		if err = r.visit(v, func(v any) error { out, err = r.add(out, v); return err }); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// descend matches each value and all arrays and objects in it. Its recursion ends at MaxDepth.
func descend(_ context.Context, r *run, in nodes) (out nodes, err error) {
	var walk func(v any) error
	walk = func(v any) error {
		switch v.(type) {
		case []any, map[string]any:
			if out, err = r.add(out, v); err != nil {
				return err
			}
			return r.visit(v, walk)
		}
		return r.spend(1)
	}
	for _, v := range in {
		if err := walk(v); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// children matches one child for each key. A key that fits no child matches nothing.
func children(keys ...gval.Evaluable) segment {
	return func(ctx context.Context, r *run, in nodes) (out nodes, err error) {
		for _, v := range in {
			for _, key := range keys {
				if err := r.spend(1); err != nil {
					return nil, err
				}
				k, err := key(ctx, scope{run: r, current: v})
				if err != nil {
					if r.stopped() {
						return nil, err
					}
					continue
				}
				if c, ok := child(v, k); ok {
					if out, err = r.add(out, c); err != nil {
						return nil, err
					}
				}
			}
		}
		return out, nil
	}
}

func child(v, key any) (any, bool) {
	if n, ok := key.(json.Number); ok {
		key, _ = number(n)
	}
	switch v := v.(type) {
	case map[string]any:
		name, ok := key.(string)
		if f, numeric := key.(float64); numeric {
			name, ok = strconv.FormatFloat(f, 'f', -1, 64), true
		}
		if !ok {
			return nil, false
		}
		c, ok := v[name]
		return c, ok
	case []any:
		if key == "length" {
			return float64(len(v)), true
		}
		index, ok := key.(float64)
		if s, text := key.(string); text {
			i, err := strconv.Atoi(s)
			index, ok = float64(i), err == nil
		}
		if index < 0 {
			index += float64(len(v))
		}
		if !ok || index != math.Trunc(index) || index < 0 || index >= float64(len(v)) {
			return nil, false
		}
		return v[int(index)], true
	}
	return nil, false
}

// slice matches the items [start:end:step] of arrays; negative numbers count from the end.
func slice(parts []gval.Evaluable) segment {
	return func(ctx context.Context, r *run, in nodes) (out nodes, err error) {
		for _, v := range in {
			if err := r.spend(1); err != nil {
				return nil, err
			}
			items, ok := v.([]any)
			if !ok {
				continue
			}
			n := len(items)
			part := func(i, absent int) (int, error) {
				if parts[i] == nil {
					return absent, nil
				}
				k, err := parts[i](ctx, scope{run: r, current: v})
				if err != nil {
					return 0, err
				}
				f, err := number(k)
				if err != nil || f != math.Trunc(f) {
					return 0, fmt.Errorf("part %d of the range is %s, not a whole number", i+1, describe(k))
				}
				f = max(float64(-n-1), min(f, float64(n+1))) // further makes no difference, and cannot overflow
				if i < 2 && f < 0 {
					f += float64(n)
				}
				return int(f), nil
			}
			step, err := part(2, 1)
			if err != nil {
				return nil, err
			}
			first, last := 0, n
			if step < 0 {
				first, last = n-1, -1
			}
			start, err := part(0, first)
			if err != nil {
				return nil, err
			}
			end, err := part(1, last)
			if err != nil {
				return nil, err
			}
			switch {
			case step > 0:
				for i := max(start, 0); i < min(end, n) && err == nil; i += step {
					out, err = r.add(out, items[i])
				}
			case step < 0:
				for i := min(start, n-1); i > max(end, -1) && err == nil; i += step {
					out, err = r.add(out, items[i])
				}
			default:
				err = errors.New("the step of a range cannot be 0")
			}
			if err != nil {
				return nil, err
			}
		}
		return out, nil
	}
}

// filter matches the items for which the condition holds. Where it cannot be evaluated, as a compared field is missing, it
// does not hold.
func filter(condition gval.Evaluable) segment {
	return func(ctx context.Context, r *run, in nodes) (out nodes, err error) {
		for _, v := range in {
			err := r.visit(v, func(v any) error {
				if err := r.spend(1); err != nil {
					return err
				}
				holds, err := condition(ctx, scope{run: r, current: v})
				if err != nil {
					if r.stopped() {
						return err
					}
					return nil
				}
				if truth(holds) {
					out, err = r.add(out, v)
				}
				return err
			})
			if err != nil {
				return nil, err
			}
		}
		return out, nil
	}
}

// number is the float64 of a decoded or computed number. One that is too large is an error.
func number(v any) (float64, error) {
	switch v := v.(type) {
	case float64:
		return v, nil
	case json.Number:
		f, err := strconv.ParseFloat(v.String(), 64)
		if errors.Is(err, strconv.ErrRange) {
			err = sample.ErrNotFinite
		}
		return f, err
	case absent:
		return 0, errors.New("the path matches nothing")
	}
	return 0, fmt.Errorf("unsupported type: the value is %s, not a number", describe(v))
}

// finite passes what is a number on. An infinite part must not end as the 0 of 1 / (1 / 0).
func finite(f float64) (any, error) {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return nil, sample.ErrNotFinite
	}
	return f, nil
}

func truth(v any) bool {
	switch v := v.(type) {
	case bool:
		return v
	case string:
		return v != ""
	case []any:
		return len(v) > 0
	case map[string]any:
		return len(v) > 0
	case float64, json.Number:
		f, err := number(v)
		return err == nil && f != 0
	}
	return false
}

// describe names what v is, for errors. It repeats no more than a few characters of a foreign string.
func describe(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case bool:
		return strconv.FormatBool(v)
	case string:
		return "the string " + strconv.Quote(strings.ToValidUTF8(fmt.Sprintf("%.32s", v), "?"))
	case []any:
		return fmt.Sprintf("an array of %d", len(v))
	case map[string]any:
		return fmt.Sprintf("an object of %d", len(v))
	case absent:
		return "missing"
	}
	return fmt.Sprint(v)
}
