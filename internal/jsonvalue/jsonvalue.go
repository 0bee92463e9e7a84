// Package jsonvalue gets one number out of a JSON document by a JSON path or by an expression over JSON paths, compiled once
// and evaluated many times. Both the document and the expression are foreign: size, depth, time and memory are bounded, and
// whatever is not a finite number is an error, never a value. It does no I/O.
//
// The grammar of expressions is gval's. The paths are our own: those of github.com/PaesslerAG/jsonpath cannot be
// interrupted, and `[0,0,0,0][0,0,0,0]...` grows without end.
package jsonvalue

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/PaesslerAG/gval"

	"github.com/kubetide/kubetide/internal/sample"
)

// The bounds of a compilation and of an evaluation. Beyond them there is an error.
const (
	// MaxScript is the length of a path or an expression in bytes.
	MaxScript = 1024
	// MaxDocument is the size of a document in bytes.
	MaxDocument = 1 << 20
	// MaxDepth is how deep arrays and objects may be nested in a document.
	MaxDepth = 100
	// MaxValues is how many values a document may hold, and a path may match.
	MaxValues = 100_000

	// maxSteps is how many values one evaluation may look at, which takes about a tenth of a second.
	maxSteps = 1 << 21
)

// Aggregator makes one number of several: avg, min, max or sum. The zero value refuses several.
type Aggregator string

// ParseAggregator checks an aggregator's name. Empty is none.
func ParseAggregator(name string) (Aggregator, error) {
	switch name {
	case "", "avg", "min", "max", "sum":
		return Aggregator(name), nil
	}
	return "", fmt.Errorf("%.40q is not an aggregator; use avg, min, max or sum", name)
}

// Expression is a compiled path or script. It may be used by several goroutines at once.
type Expression struct {
	eval       gval.Evaluable
	aggregator Aggregator
}

// Path compiles a JSON path, what the key json-key holds.
func Path(path string, aggregator Aggregator) (*Expression, error) {
	return compile(path, aggregator, true)
}

// Script compiles an expression over JSON paths, what the key json-eval holds.
func Script(script string, aggregator Aggregator) (*Expression, error) {
	return compile(script, aggregator, false)
}

func compile(text string, aggregator Aggregator, pathOnly bool) (e *Expression, err error) {
	text = strings.TrimSpace(text)
	switch {
	case text == "":
		return nil, errors.New("it is empty")
	case len(text) > MaxScript:
		return nil, fmt.Errorf("it is %d bytes long, the limit is %d", len(text), MaxScript)
	case !utf8.ValidString(text):
		return nil, errors.New("it is not UTF-8")
	}
	defer func() {
		if r := recover(); r != nil { // gval's parser is not ours
			e, err = nil, fmt.Errorf("%q cannot be parsed: %v", text, r)
		}
	}()
	language := scriptLanguage
	if pathOnly {
		language = pathLanguage
	}
	normal, err := normalize(text, pathOnly)
	if err == nil {
		e = &Expression{aggregator: aggregator}
		e.eval, err = language.NewEvaluable(normal)
	}
	if err != nil {
		if inner := errors.Unwrap(err); inner != nil {
			err = inner // gval's own text repeats the whole expression
		}
		return nil, fmt.Errorf("%q cannot be parsed: %w", text, err)
	}
	return e, nil
}

// Evaluate returns the expression's value for the document in thousandths, truncating what is finer. An answer that is not
// one finite number is an error that says what it is instead. Beside the document it takes 800 KiB at most, so callers take a Turn
// each. Nothing of the document is kept.
func (e *Expression) Evaluate(ctx context.Context, document []byte) (milli int64, err error) {
	defer func() {
		if r := recover(); r != nil {
			milli, err = 0, fmt.Errorf("the expression cannot be evaluated: %v", r)
		}
	}()
	d, root, err := read(document)
	if err != nil {
		return 0, err
	}
	defer func() {
		if err != nil {
			_ = err.Error() // which may quote the document
		}
		d.free()
	}()
	r := &run{document: d, ctx: ctx, root: root, steps: maxSteps}
	v, err := e.eval(ctx, &item{r, root})
	if err != nil {
		return 0, err
	}
	return e.number(v)
}

func (e *Expression) number(v any) (int64, error) {
	switch v := v.(type) {
	case absent:
		return 0, errors.New("unexpected json: expected single numeric or array value, but the path matches nothing")
	case float64:
		return sample.Milli(v)
	case *several:
		if e.aggregator == "" {
			return 0, fmt.Errorf("no aggregator function has been specified, but there are %d values", v.count)
		}
	case *item:
		switch v.kind() {
		case numeral, size:
			return milliOf(v)
		case array:
			if e.aggregator == "" {
				return 0, fmt.Errorf("no aggregator function has been specified, but there are %d values", v.count())
			}
			if v.count() == 0 {
				return 0, errors.New("no data: the array is empty")
			}
		}
	}
	t, ok, err := tallyOf(v, false)
	if !ok && err == nil {
		return 0, &noNumber{value: v}
	}
	f, err := t.result(string(e.aggregator), err)
	if err != nil {
		return 0, err
	}
	return sample.Milli(f)
}

func milliOf(v *item) (int64, error) {
	f, err := number(v)
	if err != nil {
		return 0, err
	}
	if v.kind() == numeral {
		if i, err := strconv.ParseInt(string(v.numeral(v.node)), 10, 64); err == nil && i <= math.MaxInt64/1000 && i >= math.MinInt64/1000 {
			return i * 1000, nil // a float64 would lose digits
		}
	}
	return sample.Milli(f)
}

// tally is what can be asked of several numbers. The zero value is of none.
type tally struct {
	count            int
	sum, least, most float64
	err              error // of the first that is none
	failed           int   // which that is
}

func (t *tally) add(f float64, err error) {
	if err != nil && t.err == nil {
		t.err, t.failed = err, t.count
	}
	if t.count == 0 {
		t.least, t.most = f, f
	}
	t.count++
	t.sum, t.least, t.most = t.sum+f, min(t.least, f), max(t.most, f)
}

// take is add for a value of the document. After one that is none it only counts, since errors cost memory.
func (t *tally) take(r *run, n node) {
	if t.err != nil {
		t.count++
		return
	}
	t.add(r.number(n))
}

// tallyOf adds up an array, and an object if that is wanted. ok says whether v is one.
func tallyOf(v any, objects bool) (t tally, ok bool, err error) {
	switch v := v.(type) {
	case *several:
		return v.tally, true, nil
	case *item:
		if v.kind() == array || v.kind() == object && objects {
			children := v.children(v.node)
			for _, n := range children {
				t.take(v.run, n)
			}
			return t, true, v.spend(len(children))
		}
	}
	return t, false, nil
}

// result wants at least one value for all but sum.
func (t tally) result(name string, err error) (float64, error) {
	switch {
	case err != nil:
		return 0, err
	case t.err != nil:
		return 0, fmt.Errorf("item %d: %w", t.failed, t.err)
	case t.count == 0 && name != "sum":
		return 0, fmt.Errorf("no data: there is no %s of an empty array", name)
	case name == "avg":
		return t.sum / float64(t.count), nil
	case name == "min":
		return t.least, nil
	case name == "max":
		return t.most, nil
	}
	return t.sum, nil
}
