package jsonvalue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"regexp"
	"regexp/syntax"
	"strings"
	"text/scanner"

	"github.com/PaesslerAG/gval"
)

// tokens are Go's without comments: two slashes are not one in an expression.
const tokens = scanner.GoTokens &^ (scanner.ScanComments | scanner.SkipComments)

// The languages are set in init, since parsing refers to them.
var pathLanguage, scriptLanguage gval.Language

func init() {
	scriptLanguage = gval.NewLanguage(
		gval.Init(func(ctx context.Context, p *gval.Parser) (gval.Evaluable, error) {
			p.SetMode(tokens)
			return p.ParseExpression(ctx)
		}),
		gval.Parentheses(),
		literals(),
		gval.PrefixExtension('$', func(ctx context.Context, p *gval.Parser) (gval.Evaluable, error) {
			return parsePath(ctx, p, root)
		}),
		gval.PrefixExtension('@', func(ctx context.Context, p *gval.Parser) (gval.Evaluable, error) {
			return parsePath(ctx, p, func(at *item) node { return at.node })
		}),
		gval.PrefixMetaPrefix(scanner.Ident, parseName),
		unary('-', func(v any) (any, error) {
			f, err := number(v)
			return -f, err
		}),
		unary('!', func(v any) (any, error) { return !truth(v), nil }),

		binary("||", 20, func(_ *run, a, b any) (any, error) { return truth(a) || truth(b), nil }),
		binary("&&", 21, func(_ *run, a, b any) (any, error) { return truth(a) && truth(b), nil }),
		binary("==", 40, func(r *run, a, b any) (any, error) { return equal(r, a, b) }),
		binary("!=", 40, func(r *run, a, b any) (any, error) {
			same, err := equal(r, a, b)
			return !same, err
		}),
		binary("<", 40, order(func(c int) bool { return c < 0 })),
		binary("<=", 40, order(func(c int) bool { return c <= 0 })),
		binary(">", 40, order(func(c int) bool { return c > 0 })),
		binary(">=", 40, order(func(c int) bool { return c >= 0 })),
		gval.InfixEvalOperator("=~", match), gval.Precedence("=~", 40),
		binary("|", 60, integers(func(a, b int64) int64 { return a | b })),
		binary("^", 60, integers(func(a, b int64) int64 { return a ^ b })),
		binary("+", 60, floats(func(a, b float64) float64 { return a + b })),
		binary("-", 60, floats(func(a, b float64) float64 { return a - b })),
		binary("*", 90, floats(func(a, b float64) float64 { return a * b })),
		binary("/", 90, floats(func(a, b float64) float64 { return a / b })),
		binary("%", 90, floats(math.Mod)),
		binary("&", 90, integers(func(a, b int64) int64 { return a & b })),
		binary("&^", 90, integers(func(a, b int64) int64 { return a &^ b })),
		binary("<<", 90, integers(func(a, b int64) int64 { return a << min(uint64(b), 63) })),
		binary(">>", 90, integers(func(a, b int64) int64 { return a >> min(uint64(b), 63) })),
		binary("**", 200, floats(math.Pow)),
	)
	pathLanguage = gval.NewLanguage(scriptLanguage,
		gval.Init(func(ctx context.Context, p *gval.Parser) (gval.Evaluable, error) {
			p.SetMode(tokens)
			if p.Scan() != '$' {
				return nil, errors.New("a path begins with $; arithmetic belongs into json-eval")
			}
			eval, err := parsePath(ctx, p, root)
			if err == nil && p.Scan() != scanner.EOF {
				err = p.Expected("the path; arithmetic belongs into json-eval", '.', '[')
			}
			return eval, err
		}))
}

func root(at *item) node { return at.root }

func literals() gval.Language {
	constant := func(read func(p *gval.Parser) (any, error)) func(context.Context, *gval.Parser) (gval.Evaluable, error) {
		return func(_ context.Context, p *gval.Parser) (gval.Evaluable, error) {
			v, err := read(p)
			return p.Const(v), err
		}
	}
	numeral := constant(func(p *gval.Parser) (any, error) { return parseNumber(p.TokenText()) })
	return gval.NewLanguage(
		gval.PrefixExtension(scanner.Int, numeral),
		gval.PrefixExtension(scanner.Float, numeral),
		gval.PrefixExtension(scanner.String, constant(func(p *gval.Parser) (any, error) {
			s, _, err := unquote(p.TokenText())
			return s, err
		})))
}

func unary(symbol rune, f func(v any) (any, error)) gval.Language {
	return gval.PrefixExtension(symbol, func(ctx context.Context, p *gval.Parser) (gval.Evaluable, error) {
		operand, err := p.ParseNextExpression(ctx)
		return func(ctx context.Context, v any) (any, error) {
			if err := runOf(v).spend(1); err != nil {
				return nil, err
			}
			a, err := operand(ctx, v)
			if err != nil {
				return nil, err
			}
			return f(a)
		}, err
	})
}

func binary(name string, precedence uint8, f func(r *run, a, b any) (any, error)) gval.Language {
	return gval.NewLanguage(gval.Precedence(name, precedence),
		gval.InfixEvalOperator(name, func(left, right gval.Evaluable) (gval.Evaluable, error) {
			return func(ctx context.Context, v any) (any, error) {
				if err := runOf(v).spend(1); err != nil {
					return nil, err
				}
				a, err := left(ctx, v)
				if err != nil {
					return nil, err
				}
				b, err := right(ctx, v)
				if err != nil {
					return nil, err
				}
				result, err := f(runOf(v), a, b)
				if err != nil && !runOf(v).stopped() {
					err = fmt.Errorf("%q: %w", name, err)
				}
				return result, err
			}, nil
		}))
}

func floats(f func(a, b float64) float64) func(*run, any, any) (any, error) {
	return func(_ *run, a, b any) (any, error) {
		x, err := number(a)
		if err != nil {
			return nil, err
		}
		y, err := number(b)
		if err != nil {
			return nil, err
		}
		return finite(f(x, y))
	}
}

func integers(f func(a, b int64) int64) func(*run, any, any) (any, error) {
	return func(_ *run, a, b any) (any, error) {
		x, err := integer(a)
		if err != nil {
			return nil, err
		}
		y, err := integer(b)
		return float64(f(x, y)), err
	}
}

func integer(v any) (int64, error) {
	f, err := number(v)
	if err == nil && (f != math.Trunc(f) || math.Abs(f) > 1<<53) {
		err = fmt.Errorf("%v is not a whole number", f)
	}
	return int64(f), err
}

// plainOf returns null and truth values of a document as gval has them, and all else as it is.
func plainOf(v any) any {
	if i, ok := v.(*item); ok {
		switch i.kind() {
		case null:
			return nil
		case no, yes:
			return i.kind() == yes
		}
	}
	return v
}

// stringOf returns a string, one of the document or a computed one.
func stringOf(v any) (literal, bool) {
	switch v := v.(type) {
	case string:
		return plain(v), true
	case *item:
		if v.kind() == text {
			return v.string(), true
		}
	}
	return literal{}, false
}

func equal(r *run, a, b any) (bool, error) {
	if x, err := number(a); err == nil {
		y, err := number(b)
		return err == nil && x == y, nil
	}
	a, b = plainOf(a), plainOf(b)
	switch a.(type) {
	case nil, bool:
		return a == b, nil
	}
	s, ok := stringOf(a)
	t, same := stringOf(b)
	if !ok || !same {
		return false, nil
	}
	c, work := compareStrings(s, t)
	return c == 0, r.spend(work / 64)
}

func order(holds func(c int) bool) func(*run, any, any) (any, error) {
	return func(r *run, a, b any) (any, error) {
		if s, ok := stringOf(a); ok {
			t, ok := stringOf(b)
			if !ok {
				return nil, fmt.Errorf("a string cannot be compared with %s", describe(b))
			}
			c, work := compareStrings(s, t)
			return holds(c), r.spend(work / 64)
		}
		x, err := number(a)
		if err != nil {
			return nil, err
		}
		y, err := number(b)
		if err != nil {
			return nil, err
		}
		return holds(cmp.Compare(x, y)), nil
	}
}

// match is the =~ operator. The pattern is the author's, never the document's; what matching costs is the text's length
// times the program's.
func match(left, right gval.Evaluable) (gval.Evaluable, error) {
	if !right.IsConst() {
		return nil, errors.New("what follows =~ must be a string")
	}
	constant, err := right(context.Background(), nil)
	pattern, ok := constant.(string)
	if err != nil || !ok {
		return nil, errors.New("what follows =~ must be a string")
	}
	compiled, err := regexp.Compile(pattern)
	if err != nil {
		return nil, err
	}
	parsed, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return nil, err
	}
	program, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, v any) (any, error) {
		a, err := left(ctx, v)
		if err != nil {
			return nil, err
		}
		s, ok := stringOf(a)
		if !ok {
			return nil, fmt.Errorf("\"=~\": the value is %s, not a string", describe(a))
		}
		if err := runOf(v).spend(1 + s.length()*len(program.Inst)/8); err != nil {
			return nil, err
		}
		return compiled.MatchReader(&runes{literal: s}), nil
	}, nil
}

var constants = map[string]any{
	"true": true, "false": false, "null": nil,
	"e": math.E, "pi": math.Pi, "phi": math.Phi, "sqrt2": math.Sqrt2, "sqrte": math.SqrtE, "sqrtpi": math.SqrtPi,
	"sqrtphi": math.SqrtPhi, "ln2": math.Ln2, "log2e": math.Log2E, "ln10": math.Ln10, "log10e": math.Log10E,
}

// ofNumber are the functions of one number.
var ofNumber = map[string]func(float64) float64{
	"abs": math.Abs, "acos": math.Acos, "acosh": math.Acosh, "asin": math.Asin, "asinh": math.Asinh, "atan": math.Atan,
	"atanh": math.Atanh, "cbrt": math.Cbrt, "ceil": math.Ceil, "cos": math.Cos, "cosh": math.Cosh, "erf": math.Erf,
	"erfc": math.Erfc, "erfcinv": math.Erfcinv, "erfinv": math.Erfinv, "exp": math.Exp, "exp2": math.Exp2,
	"expm1": math.Expm1, "floor": math.Floor, "gamma": math.Gamma, "j0": math.J0, "j1": math.J1, "log": math.Log,
	"log10": math.Log10, "log1p": math.Log1p, "log2": math.Log2, "logb": math.Logb,
	"pow10": func(f float64) float64 { return math.Pow(10, math.Trunc(f)) }, "round": math.Round,
	"roundtoeven": math.RoundToEven, "sin": math.Sin, "sinh": math.Sinh, "sqrt": math.Sqrt, "tan": math.Tan,
	"tanh": math.Tanh, "trunc": math.Trunc, "y0": math.Y0, "y1": math.Y1,
	"factorial": func(f float64) float64 { return math.Round(math.Gamma(math.Trunc(f) + 1)) },
}

// ofValue are the functions of one value of any type.
var ofValue = map[string]func(v any) (any, error){
	"not": func(v any) (any, error) { return !truth(v), nil },
	"length": func(v any) (any, error) {
		if s, ok := stringOf(v); ok {
			return float64(s.length()), nil
		}
		switch v := v.(type) {
		case *several:
			return float64(v.count), nil
		case *item:
			if v.kind() == array {
				return float64(v.count()), nil
			}
		case absent:
			return nil, errors.New("the path matches nothing")
		}
		return 1.0, nil
	},
	"size": func(v any) (any, error) {
		switch v := v.(type) {
		case *several:
			return float64(v.count), nil
		case *item:
			if v.holds() {
				return float64(v.count()), nil
			}
		case absent:
			return nil, errors.New("the path matches nothing")
		}
		return 0.0, nil
	},
	"first": func(v any) (any, error) {
		return end(v, func(s *several) node { return s.first }, func(n []node) node { return n[0] })
	},
	"last": func(v any) (any, error) {
		return end(v, func(s *several) node { return s.last }, func(n []node) node { return n[len(n)-1] })
	},

	"is_null":    func(v any) (any, error) { return plainOf(v) == nil, nil },
	"is_numeric": func(v any) (any, error) { _, err := number(v); return err == nil, nil },
	"is_float":   func(v any) (any, error) { _, err := number(v); return err == nil, nil },
	"is_int":     func(v any) (any, error) { _, err := integer(v); return err == nil, nil },
	"is_uint":    func(v any) (any, error) { i, err := integer(v); return err == nil && i >= 0, nil },
	"is_string":  func(v any) (any, error) { _, ok := stringOf(v); return ok, nil },
	"is_bool":    func(v any) (any, error) { _, ok := plainOf(v).(bool); return ok, nil },
	"is_array":   func(v any) (any, error) { return isArray(v), nil },
	"is_object":  func(v any) (any, error) { i, ok := v.(*item); return ok && i.kind() == object, nil },
}

func isArray(v any) bool {
	i, ok := v.(*item)
	_, matched := v.(*several)
	return matched || ok && i.kind() == array
}

// end returns the first or the last item of an array.
func end(v any, ofSeveral func(*several) node, ofItems func([]node) node) (any, error) {
	switch v := v.(type) {
	case *several:
		return &item{v.run, ofSeveral(v)}, nil
	case *item:
		if v.kind() == array && v.count() > 0 {
			return &item{v.run, ofItems(v.children(v.node))}, nil
		}
	}
	return nil, fmt.Errorf("the value is %s, not an array with items", describe(v))
}

// parseName reads a constant or a call. Names are case-insensitive, as upstream. There are no variables.
func parseName(ctx context.Context, p *gval.Parser) (string, func() (gval.Evaluable, error), error) {
	word := p.TokenText()
	name := strings.ToLower(word)
	return word, func() (gval.Evaluable, error) {
		if p.Scan() != '(' {
			p.Camouflage("the name", '(')
			if c, ok := constants[name]; ok {
				return p.Const(c), nil
			}
			return nil, fmt.Errorf("%q is neither a constant nor a function; a key of the document is written $.%s or $['%s']", word, word, word)
		}
		var arguments []gval.Evaluable
		for {
			a, err := p.ParseExpression(ctx)
			if err != nil {
				return nil, err
			}
			arguments = append(arguments, a)
			switch p.Scan() {
			case ',':
			case ')':
				return call(name, arguments)
			default:
				return nil, p.Expected("the arguments of "+name, ',', ')')
			}
		}
	}, nil
}

func call(name string, arguments []gval.Evaluable) (gval.Evaluable, error) {
	var f func(r *run, values []any) (any, error)
	several := false
	if g, ok := ofNumber[name]; ok {
		f = func(_ *run, values []any) (any, error) {
			x, err := number(values[0])
			if err != nil {
				return nil, err
			}
			return finite(g(x))
		}
	} else if g, ok := ofValue[name]; ok {
		f = func(_ *run, values []any) (any, error) { return g(values[0]) }
	} else {
		switch name {
		case "avg", "min", "max", "sum":
			several = true
			f = func(r *run, values []any) (any, error) {
				if len(values) == 1 { // else an array among the values is an error
					if t, ok, err := tallyOf(values[0], true); ok || err != nil {
						return t.result(name, err)
					}
				}
				var t tally
				for _, v := range values {
					if err := r.spend(1); err != nil {
						return nil, err
					}
					t.add(number(v))
				}
				return t.result(name, nil)
			}
		default:
			return nil, fmt.Errorf("there is no function %q", name)
		}
	}
	if len(arguments) != 1 && !several {
		return nil, fmt.Errorf("%s takes one argument, not %d", name, len(arguments))
	}
	return func(ctx context.Context, v any) (any, error) {
		r := runOf(v)
		if err := r.spend(1); err != nil {
			return nil, err
		}
		values := make([]any, len(arguments))
		for i, a := range arguments {
			var err error
			if values[i], err = a(ctx, v); err != nil {
				return nil, err
			}
		}
		result, err := f(r, values)
		if err != nil && !r.stopped() {
			err = fmt.Errorf("%s: %w", name, err)
		}
		return result, err
	}, nil
}
