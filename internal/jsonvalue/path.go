package jsonvalue

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"text/scanner"
	"unicode/utf8"

	"github.com/PaesslerAG/gval"

	"github.com/kubetide/kubetide/internal/sample"
)

// run is one evaluation.
type run struct {
	*document
	ctx   context.Context
	root  node
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

// item is a value of the document. gval hands one to every part of an expression: what @ stands for.
type item struct {
	*run
	node
}

func (i *item) string() literal { return i.literal(i.place()) }

// runOf returns the run of an item. gval folds constants while it parses, without one.
func runOf(v any) *run {
	if i, ok := v.(*item); ok {
		return i.run
	}
	return &run{ctx: context.Background(), steps: maxSteps}
}

// absent stands for a path that matches nothing, inside of a script.
type absent struct{}

// several are the values of a path that matches more than one. They are not held: what anybody may ask of them is known.
type several struct {
	run         *run
	first, last node
	tally
}

// emit takes a value that matches.
type emit func(n node) error

// segment is one step of a path.
type segment struct {
	// match hands on what matches below n.
	match func(ctx context.Context, r *run, n node, to emit) error
	// key is the one child's that can match; nil for other steps.
	key any
}

// path is a compiled JSON path. Its values come in the order of the document, those of an object in the order of their keys, so
// that equal documents give equal sums.
type path struct {
	start    func(*item) node
	segments []segment
	single   bool // each step has one key
}

// match walks the path.
func (p path) match(ctx context.Context, at *item, to emit) error {
	for _, s := range slices.Backward(p.segments) {
		next := to
		to = func(n node) error { return s.match(ctx, at.run, n, next) }
	}
	return to(p.start(at))
}

// value makes one value of what the path matches, as upstream does: several are an array.
func (p path) value(ctx context.Context, v any) (any, error) {
	at := v.(*item)
	if p.single {
		return p.follow(at)
	}
	found := several{run: at.run}
	err := p.match(ctx, at, func(n node) error {
		if found.count == 0 {
			found.first = n
		}
		found.last = n
		if found.take(at.run, n); found.count > MaxValues {
			return fmt.Errorf("the path matches more than %d values", MaxValues)
		}
		return nil
	})
	switch {
	case err != nil:
		return nil, err
	case found.count == 0:
		return absent{}, nil
	case found.count == 1:
		return &item{at.run, found.first}, nil
	}
	return &found, nil
}

// follow is value for a path that can match one value only.
func (p path) follow(at *item) (any, error) {
	if len(p.segments) == 0 && p.start(at) == at.node {
		return at, nil
	}
	n := p.start(at)
	for _, s := range p.segments {
		c, ok, err := at.child(n, s.key)
		if err == nil {
			err = at.spend(2)
		}
		switch {
		case err != nil:
			return nil, err
		case !ok:
			return absent{}, nil
		}
		n = c
	}
	return &item{at.run, n}, nil
}

// parsePath reads the path behind a $ or @, which stands for start.
func parsePath(ctx context.Context, p *gval.Parser, start func(*item) node) (gval.Evaluable, error) {
	var segments []segment
	for {
		var s segment
		var err error
		switch p.Scan() {
		case '.':
			switch p.Scan() {
			case '.':
				segments = append(segments, segment{match: descend})
				switch p.Scan() {
				case scanner.Ident:
					s = children(p.Const(p.TokenText()))
				case '*':
					s = segment{match: star}
				case '[':
					s, err = parseBracket(ctx, p)
				default:
					return nil, p.Expected("what follows ..", scanner.Ident, '*', '[')
				}
			case scanner.Ident:
				s = children(p.Const(p.TokenText()))
			case '*':
				s = segment{match: star}
			default:
				return nil, p.Expected("what follows a dot", scanner.Ident, '*', '[')
			}
		case '[':
			s, err = parseBracket(ctx, p)
		default:
			p.Camouflage("JSON path", '.', '[')
			single := !slices.ContainsFunc(segments, func(s segment) bool { return s.key == nil })
			return path{start, segments, single}.value, nil
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
			return segment{}, p.Expected("the bracket", ']')
		}
		return segment{match: star}, nil
	case '?':
		condition, err := p.ParseExpression(ctx)
		if err != nil {
			return segment{}, err
		}
		if p.Scan() != ']' {
			return segment{}, p.Expected("the filter", ']')
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
				return segment{}, errors.New("a bracket cannot have both a comma and a colon")
			}
			separator = token
		case expectPart:
			p.Camouflage("the bracket")
			part, err := p.ParseExpression(ctx)
			if err != nil {
				return segment{}, err
			}
			parts = append(parts, part)
			expectPart = false
		default:
			return segment{}, p.Expected("the bracket", ',', ':', ']')
		}
	}
}

func bracket(parts []gval.Evaluable, separator rune) (segment, error) {
	if separator != ':' {
		if slices.ContainsFunc(parts, func(e gval.Evaluable) bool { return e == nil }) {
			return segment{}, errors.New("a bracket has a part with nothing in it")
		}
		return children(parts...), nil
	}
	if len(parts) > 3 {
		return segment{}, errors.New("a range has at most three parts, [start:end:step]")
	}
	return slice(append(parts, nil, nil)[:3]), nil
}

// pass hands n on at its price.
func (r *run) pass(n node, to emit) error {
	if err := r.spend(1); err != nil {
		return err
	}
	return to(n)
}

func star(_ context.Context, r *run, n node, to emit) error {
	for _, c := range r.children(n) {
		if err := r.pass(c, to); err != nil {
			return err
		}
	}
	return nil
}

// descend matches the value and all arrays and objects in it. Its recursion ends at MaxDepth.
func descend(ctx context.Context, r *run, n node, to emit) error {
	if !n.holds() {
		return r.spend(1)
	}
	if err := r.pass(n, to); err != nil {
		return err
	}
	for _, c := range r.children(n) {
		if err := descend(ctx, r, c, to); err != nil {
			return err
		}
	}
	return nil
}

// children matches one child for each key. A key that fits no child matches nothing.
func children(keys ...gval.Evaluable) segment {
	constants := make([]any, len(keys))
	for i, key := range keys {
		if key.IsConst() {
			constants[i], _ = key(context.Background(), nil)
		}
	}
	s := segment{}
	if len(keys) == 1 {
		s.key = constants[0]
	}
	s.match = func(ctx context.Context, r *run, n node, to emit) error {
		for i, key := range keys {
			if err := r.spend(1); err != nil {
				return err
			}
			k := constants[i]
			if k == nil {
				var err error
				if k, err = key(ctx, &item{r, n}); err != nil {
					if r.stopped() {
						return err
					}
					continue
				}
			}
			c, ok, err := r.child(n, k)
			if err != nil {
				return err
			}
			if ok {
				if err := r.pass(c, to); err != nil {
					return err
				}
			}
		}
		return nil
	}
	return s
}

func (r *run) child(n node, key any) (c node, ok bool, err error) {
	name, named := key.(string)
	index, numeric := key.(float64)
	if i, ok := key.(*item); ok {
		switch i.kind() {
		case text:
			name, named = i.string().start(MaxDocument), true
			err = r.spend(len(name) / 64)
		case numeral, size:
			index, err = number(i)
			numeric = err == nil
			err = nil
		}
	}
	switch n.kind() {
	case object:
		if numeric {
			name, named = strconv.FormatFloat(index, 'f', -1, 64), true
		}
		if named {
			c, ok = r.member(n, name)
		}
	case array:
		if name == "length" {
			return sizeOf(n), true, err
		}
		if named {
			i, err := strconv.Atoi(name)
			index, numeric = float64(i), err == nil
		}
		count := float64(n.count())
		if index < 0 {
			index += count
		}
		if numeric && index == math.Trunc(index) && index >= 0 && index < count {
			c, ok = r.children(n)[int(index)], true
		}
	}
	return c, ok, err
}

// slice matches the items [start:end:step] of arrays; negative numbers count from the end.
func slice(parts []gval.Evaluable) segment {
	return segment{match: func(ctx context.Context, r *run, at node, to emit) error {
		if err := r.spend(1); err != nil || at.kind() != array {
			return err
		}
		items := r.children(at)
		n := len(items)
		part := func(i, absent int) (int, error) {
			if parts[i] == nil {
				return absent, nil
			}
			k, err := parts[i](ctx, &item{r, at})
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
			return err
		}
		first, last := 0, n
		if step < 0 {
			first, last = n-1, -1
		}
		start, err := part(0, first)
		if err != nil {
			return err
		}
		end, err := part(1, last)
		if err != nil {
			return err
		}
		switch {
		case step > 0:
			for i := max(start, 0); i < min(end, n) && err == nil; i += step {
				err = r.pass(items[i], to)
			}
		case step < 0:
			for i := min(start, n-1); i > max(end, -1) && err == nil; i += step {
				err = r.pass(items[i], to)
			}
		default:
			err = errors.New("the step of a range cannot be 0")
		}
		return err
	}}
}

// filter matches the items for which the condition holds. Where it cannot be evaluated, as a compared field is missing, it
// does not hold.
func filter(condition gval.Evaluable) segment {
	return segment{match: func(ctx context.Context, r *run, n node, to emit) error {
		at := &item{run: r} // used again: nothing of a condition outlives it
		for _, c := range r.children(n) {
			if err := r.spend(1); err != nil {
				return err
			}
			at.node = c
			holds, err := condition(ctx, at)
			switch {
			case err != nil && r.stopped():
				return err
			case err == nil && truth(holds):
				err = r.pass(c, to)
				if err != nil {
					return err
				}
			}
		}
		return nil
	}}
}

// maxNumeral is how long a number may be in bytes, if somebody looks at it.
const maxNumeral = 1024

// number is the float64 of a number of the document or a computed one. One that is too large is an error.
func number(v any) (float64, error) {
	switch v := v.(type) {
	case float64:
		return v, nil
	case *item:
		return v.number(v.node)
	case absent:
		return 0, errors.New("the path matches nothing")
	}
	return 0, &noNumber{value: v}
}

func (r *run) number(n node) (float64, error) {
	switch n.kind() {
	case size:
		return float64(n.count()), nil
	case numeral:
		written := r.numeral(n)
		if len(written) > maxNumeral {
			return 0, fmt.Errorf("a number of %d characters is longer than the limit of %d", len(written), maxNumeral)
		}
		return parseNumber(string(written))
	}
	return 0, &noNumber{value: &item{r, n}}
}

// noNumber is the error of a value that is none. Most are never shown, so it gets its text when it is asked for, or when the
// document is about to end.
type noNumber struct {
	value any
	text  string
}

func (e *noNumber) Error() string {
	if e.text == "" {
		e.text = "unsupported type: the value is " + describe(e.value) + ", not a number"
		e.value = nil
	}
	return e.text
}

func parseNumber(written string) (float64, error) {
	f, err := strconv.ParseFloat(written, 64)
	if errors.Is(err, strconv.ErrRange) {
		err = sample.ErrNotFinite
	}
	return f, err
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
	case *several:
		return true
	case *item:
		switch v.kind() {
		case yes:
			return true
		case text:
			s := v.string()
			return len(s.next()) > 0
		case array, object:
			return v.count() > 0
		case numeral, size:
			f, err := number(v)
			return err == nil && f != 0
		}
	case float64:
		return v != 0
	}
	return false
}

// describe names what v is, for errors. It repeats no more than a few characters of a foreign string.
func describe(v any) string {
	const most = 32
	switch v := v.(type) {
	case nil:
		return "null"
	case bool:
		return strconv.FormatBool(v)
	case string:
		return "the string " + strconv.Quote(strings.ToValidUTF8(fmt.Sprintf("%.*s", most, v), "?"))
	case *several:
		return fmt.Sprintf("an array of %d", v.count)
	case absent:
		return "missing"
	case *item:
		switch v.kind() {
		case null:
			return "null"
		case no, yes:
			return strconv.FormatBool(v.kind() == yes)
		case text:
			return describe(v.string().start(most * utf8.UTFMax))
		case array:
			return fmt.Sprintf("an array of %d", v.count())
		case object:
			return fmt.Sprintf("an object of %d", v.count())
		case numeral:
			return fmt.Sprintf("%.*s", most, v.numeral(v.node))
		case size:
			return strconv.Itoa(v.count())
		}
	}
	return fmt.Sprint(v)
}
