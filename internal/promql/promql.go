// Package promql reads the PromQL that tenants write: it finds mistakes before a server is asked, bounds what a query may
// cost, and confines it to the series of one namespace. It uses Prometheus' own parser, does no I/O, and knows no server.
package promql

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"
	"time"
	"unicode"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/strutil"
)

// What one query may cost. The first four bound the parser, the others the server.
const (
	// maxLength is in bytes.
	maxLength = 10 << 10
	maxTokens = 2000
	// maxPattern is the size of all regular expressions when their repetitions are written out: Go's own limit would let one
	// of a kilobyte take tens of megabytes.
	maxPattern = 20_000
	// maxDear is how many parts they may have that take the parser milliseconds each: \p classes and, in patterns that ignore
	// case, what may begin or end a range of all Unicode.
	maxDear = 8

	// maxSelectors is how many times a query may select series.
	maxSelectors = 100
	// maxSpan is the time that one selector looks back over, with the subqueries around it; an offset does not count.
	maxSpan = 35 * 24 * time.Hour
	// maxSteps is how often nested subqueries evaluate a selector; it is Prometheus' own bound for a range of time.
	maxSteps = 11_000
	// maxRead is the number of steps times the selector's range.
	maxRead = 1000 * 24 * time.Hour
	// defaultStep is that of a subquery that names none: the evaluation interval that Prometheus has by default.
	defaultStep = time.Minute
)

const maxMessage = 300

func init() {
	// Whether a server knows these is its own business; without them, queries that it understands would be refused here.
	parser.EnableExperimentalFunctions = true
	parser.EnableExtendedRangeSelectors = true
}

// Query is a query that can be parsed, is not too costly, and gives numbers.
type Query struct {
	text string
	expr parser.Expr
}

// Parse reads a query. Errors say where in the text the fault is, as line:column, if it is in one place.
func Parse(text string) (Query, error) {
	text = strings.TrimSpace(text)
	switch {
	case text == "":
		return Query{}, errors.New("is empty")
	case len(text) > maxLength:
		return Query{}, fmt.Errorf("has %d bytes, more than %d", len(text), maxLength)
	}
	if err := lex(text); err != nil {
		return Query{}, err
	}
	expr, err := parser.ParseExpr(text)
	if err != nil {
		return Query{}, fmt.Errorf("is no PromQL: %s", cut(err.Error()))
	}
	switch t := expr.Type(); t {
	case parser.ValueTypeScalar, parser.ValueTypeVector:
	case parser.ValueTypeMatrix:
		return Query{}, errors.New("gives a range of values for each series, not one; put it into a function such as rate() or avg_over_time()")
	default:
		return Query{}, fmt.Errorf("gives a %s, not a number", t)
	}
	if err := cost(expr); err != nil {
		return Query{}, err
	}
	return Query{text: text, expr: expr}, nil
}

// String is the query as it was written, without the white space around it.
func (q Query) String() string { return q.text }

// lex bounds what the parser will do with the text; the parser finds its mistakes.
func lex(text string) error {
	var item parser.Item
	lexer, size, dear, matches := parser.Lex(text), 0, 0, false
	for tokens := 0; ; tokens++ {
		lexer.NextItem(&item)
		switch {
		case item.Typ == parser.EOF || item.Typ == parser.ERROR:
			return nil
		case tokens >= maxTokens:
			return fmt.Errorf("has more than %d words and signs", maxTokens)
		case item.Typ == parser.COMMENT:
			continue
		case matches && item.Typ == parser.STRING:
			pattern, _ := strutil.Unquote(item.Val) // what cannot be unquoted is the parser's to tell
			if dear += dearParts(pattern); dear > maxDear {
				return fmt.Errorf(`has more than %d classes like \pL, or signs beyond ASCII where case is ignored, in its regular expressions`, maxDear)
			}
			if parsed, err := syntax.Parse(pattern, syntax.Perl|syntax.DotNL); err == nil {
				size += patternSize(parsed)
			}
			if size > maxPattern {
				return fmt.Errorf("has regular expressions that come to more than %d signs when their repetitions are written out", maxPattern)
			}
		}
		matches = item.Typ == parser.EQL_REGEX || item.Typ == parser.NEQ_REGEX
	}
}

var ignoresCase = regexp.MustCompile(`\(\?[a-zA-Z]*i`)

func dearParts(pattern string) int {
	parts := strings.Count(pattern, `\p`) + strings.Count(pattern, `\P`)
	if ignoresCase.MatchString(pattern) {
		parts += strings.Count(pattern, `\x`)
		for _, r := range pattern {
			if r > unicode.MaxASCII {
				parts++
			}
		}
	}
	return parts
}

func patternSize(r *syntax.Regexp) int {
	size := len(r.Rune)
	for _, sub := range r.Sub {
		size += patternSize(sub)
	}
	if r.Op == syntax.OpRepeat {
		size *= max(r.Min, r.Max, 1)
	}
	return size + 1
}

// cost bounds what the server will read.
func cost(expr parser.Expr) error {
	selectors := 0
	return walk(expr, func(node parser.Node, path []parser.Node) error {
		if _, ok := node.(*parser.VectorSelector); !ok {
			return nil
		}
		if selectors++; selectors > maxSelectors {
			return fmt.Errorf("selects series more than %d times", maxSelectors)
		}
		steps, span, window := 1.0, 0.0, 0.0
		for _, outer := range path {
			switch n := outer.(type) {
			case *parser.MatrixSelector:
				window = n.Range.Seconds()
				span += window
			case *parser.SubqueryExpr:
				step := n.Step
				if step == 0 {
					step = defaultStep
				}
				span += n.Range.Seconds()
				steps *= max(1, n.Range.Seconds()/step.Seconds())
			}
		}
		switch {
		case span > maxSpan.Seconds():
			return fmt.Errorf("looks back over more than %s", model.Duration(maxSpan))
		case steps > maxSteps:
			return fmt.Errorf("has subqueries of more than %d steps (range by resolution; nested ones multiply)", maxSteps)
		case steps*window > maxRead.Seconds():
			return fmt.Errorf("reads the same series again and again, more than %s in all: a subquery needs a coarser resolution, or a shorter range in it",
				model.Duration(maxRead))
		}
		return nil
	})
}

// Confined returns the query that sees the series of the namespace only: each selector of it requires the label to be the
// namespace. A selector that asks for something else could never match and is an error.
func (q Query) Confined(label, namespace string) (string, error) {
	expr, err := parser.ParseExpr(q.text) // a tree of its own, because it is changed
	if err != nil {
		return "", err
	}
	own, err := labels.NewMatcher(labels.MatchEqual, label, namespace)
	if err != nil {
		return "", err
	}
	err = walk(expr, func(node parser.Node, _ []parser.Node) error {
		switch n := node.(type) {
		case *parser.Call:
			// It is the one function that reads series which no selector names.
			if n.Func.Name == "info" {
				return errors.New("uses info(), which cannot be kept to one namespace; join with the info metric by * on(...) group_left(...)")
			}
		case *parser.VectorSelector:
			matchers := []*labels.Matcher{own}
			for _, m := range n.LabelMatchers {
				if m.Name != label {
					matchers = append(matchers, m)
				} else if !m.Matches(namespace) {
					return fmt.Errorf("selects %s, but it may read its own namespace %q only", cut(m.String()), namespace)
				}
			}
			n.LabelMatchers = matchers
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	text := expr.String()
	if err := confined(text, own); err != nil {
		return "", err
	}
	return text, nil
}

// confined reads again what will be sent, so that a fault in printing it cannot open the fence.
func confined(text string, own *labels.Matcher) error {
	broken := errors.New("cannot be kept to its own namespace: what Prometheus' parser reads and prints differs; write it in a simpler way")
	expr, err := parser.ParseExpr(text)
	if err != nil {
		return broken
	}
	return walk(expr, func(node parser.Node, _ []parser.Node) error {
		s, ok := node.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		found := false
		for _, m := range s.LabelMatchers {
			if m.Name == own.Name {
				if m.Type != own.Type || m.Value != own.Value {
					return broken
				}
				found = true
			}
		}
		if !found {
			return broken
		}
		return nil
	})
}

// walk calls visit for each node with those above it, until it returns an error.
func walk(expr parser.Expr, visit func(node parser.Node, path []parser.Node) error) error {
	return parser.Walk(visitor(visit), expr, nil)
}

type visitor func(node parser.Node, path []parser.Node) error

// Visit implements parser.Visitor.
func (v visitor) Visit(node parser.Node, path []parser.Node) (parser.Visitor, error) {
	if node == nil {
		return v, nil
	}
	return v, v(node, path)
}

func cut(text string) string {
	if len(text) > maxMessage {
		text = text[:maxMessage] + "..."
	}
	return strings.ToValidUTF8(text, "?")
}
