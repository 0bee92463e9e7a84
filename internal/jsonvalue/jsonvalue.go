// Package jsonvalue gets one number out of a JSON document by a JSON path or by an expression over JSON paths, compiled once
// and evaluated many times. Both the document and the expression are foreign: size, depth, time and memory are bounded, and
// whatever is not a finite number is an error, never a value. It does no I/O.
//
// The grammar of expressions is gval's. The paths are our own: those of github.com/PaesslerAG/jsonpath cannot be
// interrupted, and `[0,0,0,0][0,0,0,0]...` grows without end.
package jsonvalue

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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
// one finite number is an error that says what it is instead. The worst document within the bounds, 50,000 tiny objects, takes
// about 40 MiB while it runs, so callers take a Turn each.
func (e *Expression) Evaluate(ctx context.Context, document []byte) (milli int64, err error) {
	defer func() {
		if r := recover(); r != nil {
			milli, err = 0, fmt.Errorf("the expression cannot be evaluated: %v", r)
		}
	}()
	root, err := decode(document)
	if err != nil {
		return 0, err
	}
	r := &run{ctx: ctx, root: root, steps: maxSteps}
	v, err := e.eval(ctx, scope{run: r, current: root})
	if err != nil {
		return 0, err
	}
	if matched, ok := v.(nodes); ok { // a path's; a script has one value
		switch len(matched) {
		case 0:
			v = absent{}
		case 1:
			v = matched[0]
		default:
			v = []any(matched)
		}
	}
	return e.number(r, v)
}

func (e *Expression) number(r *run, v any) (int64, error) {
	switch v := v.(type) {
	case absent:
		return 0, errors.New("unexpected json: expected single numeric or array value, but the path matches nothing")
	case json.Number:
		if i, err := strconv.ParseInt(v.String(), 10, 64); err == nil && i <= math.MaxInt64/1000 && i >= math.MinInt64/1000 {
			return i * 1000, nil // a float64 would lose digits
		}
		f, err := number(v)
		if err != nil {
			return 0, err
		}
		return sample.Milli(f)
	case float64:
		return sample.Milli(v)
	case []any:
		if e.aggregator == "" {
			return 0, fmt.Errorf("no aggregator function has been specified, but there are %d values", len(v))
		}
		if len(v) == 0 {
			return 0, errors.New("no data: the array is empty")
		}
		f, err := aggregate(r, string(e.aggregator), v)
		if err != nil {
			return 0, err
		}
		return sample.Milli(f)
	}
	return 0, fmt.Errorf("unsupported type: the value is %s, not a number", describe(v))
}

// aggregate wants at least one value for all but sum.
func aggregate(r *run, name string, values []any) (float64, error) {
	if len(values) == 0 && name != "sum" {
		return 0, fmt.Errorf("no data: there is no %s of an empty array", name)
	}
	var sum, least, most float64
	for i, v := range values {
		if err := r.spend(1); err != nil {
			return 0, err
		}
		f, err := number(v)
		if err != nil {
			return 0, fmt.Errorf("item %d: %w", i, err)
		}
		if i == 0 {
			least, most = f, f
		}
		sum, least, most = sum+f, min(least, f), max(most, f)
	}
	switch name {
	case "avg":
		return sum / float64(len(values)), nil
	case "min":
		return least, nil
	case "max":
		return most, nil
	}
	return sum, nil
}

func decode(document []byte) (any, error) {
	if len(document) > MaxDocument {
		return nil, fmt.Errorf("the document has %d bytes, the limit is %d", len(document), MaxDocument)
	}
	if err := measure(document); err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(document))
	d.UseNumber()
	var root any
	err := d.Decode(&root)
	if err == nil {
		if _, err = d.Token(); errors.Is(err, io.EOF) {
			return root, nil
		}
		err = errors.New("something follows the first value")
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = errors.New("unexpected end of file")
	}
	return nil, fmt.Errorf("the document is not JSON: %w", err)
}

// measure refuses what would take much more memory decoded than it has bytes. It need not be exact on what is not JSON.
func measure(document []byte) error {
	depth, values, quoted := 0, 1, false
	for i := 0; i < len(document); i++ {
		switch c := document[i]; {
		case quoted:
			if c == '\\' {
				i++
			}
			quoted = c != '"'
		case c == '"':
			quoted = true
		case c == '[' || c == '{':
			values++
			if depth++; depth > MaxDepth {
				return fmt.Errorf("the document is nested deeper than %d levels", MaxDepth)
			}
		case c == ']' || c == '}':
			depth--
		case c == ',':
			values++
		}
	}
	if values > MaxValues {
		return fmt.Errorf("the document has more than %d values", MaxValues)
	}
	return nil
}
