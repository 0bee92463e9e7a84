package jsonvalue

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"

	"github.com/PaesslerAG/jsonpath"
	"github.com/spyzhov/ajson"
	"pgregory.net/rapid"

	"github.com/kubetide/kubetide/internal/sample"
)

type expression struct {
	path, script string // one of them
	aggregator   Aggregator
}

func (e expression) compile() (*Expression, error) {
	if e.path != "" {
		return Path(e.path, e.aggregator)
	}
	return Script(e.script, e.aggregator)
}

func evaluate(e expression, document string) (int64, error) {
	c, err := e.compile()
	if err != nil {
		return 0, err
	}
	return c.Evaluate(context.Background(), []byte(document))
}

func TestValues(t *testing.T) {
	const shop = `{"my-key": 7, "my": 20, "key": 3, "a": 10, "b": 4, "a-1": 99, "99p": 8, "s": "5", "list": [1, 2, 3],
		"obj": {"x": 1, "y": 2}, "one": [{"v": 3, "name": "web"}, {"name": "db"}], "it's": 6, "jobs": []}`
	for name, c := range map[string]struct {
		expression
		document string
		want     int64
	}{
		"a key of the top level":                        {expression{path: `$.value`}, `{"value":3}`, 3000},
		"the average of an array":                       {expression{path: `$.value`, aggregator: "avg"}, `{"value":[3,4,5]}`, 4000},
		"a key with a dot in single quotes":             {expression{path: `$['metric.value']`}, `{"metric.value":5}`, 5000},
		"a bracket behind a dot":                        {expression{path: `$.worker_status.[*].last_status.backlog`, aggregator: "avg"}, `{"worker_status":[{"last_status":{"backlog":3}},{"last_status":{"backlog":7}}]}`, 5000},
		"arithmetic over keys with spaces":              {expression{script: `ceil($['active processes'] / $['total processes'] * 100)`}, `{"active processes":1,"total processes":10}`, 10000},
		"min of several matches":                        {expression{path: `$.list[*]`, aggregator: "min"}, shop, 1000},
		"max of several matches":                        {expression{path: `$.list[*]`, aggregator: "max"}, shop, 3000},
		"sum of several matches":                        {expression{path: `$.list[*]`, aggregator: "sum"}, shop, 6000},
		"one match of a wildcard needs no aggregator":   {expression{path: `$.one[*].v`}, shop, 3000},
		"a number needs no aggregator but may have one": {expression{path: `$.a`, aggregator: "sum"}, shop, 10000},
		"a name with a dash in a path":                  {expression{path: `$.my-key`}, shop, 7000},
		"a name with a dash and a digit in a path":      {expression{path: `$.a-1`}, shop, 99000},
		"a name with a dash in a script":                {expression{script: `$.my-key * 2`}, shop, 14000},
		"a dash before a digit subtracts":               {expression{script: `$.a-1`}, shop, 9000},
		"a dash before a path subtracts":                {expression{script: `$.a-$.b`}, shop, 6000},
		"a dash before a function subtracts":            {expression{script: `$.a-abs($.b)`}, shop, 6000},
		"a dash before a constant subtracts":            {expression{script: `round($.a-pi)`}, shop, 7000},
		"a name that begins with digits":                {expression{path: `$.99p`}, shop, 8000},
		"an index behind a dot":                         {expression{path: `$.list.0`}, shop, 1000},
		"an index from the end":                         {expression{path: `$.list[-1]`}, shop, 3000},
		"an index as text":                              {expression{path: `$.list['1']`}, shop, 2000},
		"the length of an array":                        {expression{path: `$.list.length`}, shop, 3000},
		"the length of an empty array is a fact":        {expression{script: `length($.jobs)`}, shop, 0},
		"the sum of an empty array in a script is 0":    {expression{script: `sum($.jobs)`}, shop, 0},
		"a computed index":                              {expression{path: `$.list[(@.length-1)]`}, shop, 3000},
		"a union of names":                              {expression{path: `$['a','b']`, aggregator: "sum"}, shop, 14000},
		"a range":                                       {expression{path: `$.list[1:]`, aggregator: "sum"}, shop, 5000},
		"a range backwards":                             {expression{script: `first($.list[::-1])`}, shop, 3000},
		"a range with a huge step":                      {expression{path: `$.list[0:9:9223372036854775807]`, aggregator: "sum"}, shop, 1000},
		"all below":                                     {expression{path: `$..v`}, shop, 3000},
		"a name with a dash below":                      {expression{path: `$..my-key`}, shop, 7000},
		"a filter on a number":                          {expression{path: `$.list[?(@ > 1)]`, aggregator: "sum"}, shop, 5000},
		"a filter on a string":                          {expression{path: `$.one[?(@.name == 'web')].v`}, shop, 3000},
		"a filter on a pattern":                         {expression{path: `$.one[?(@.name =~ '^w.b$')].v`}, shop, 3000},
		"a filter on existence":                         {expression{path: `$.one[?(@.v)].v`}, shop, 3000},
		"a filter that compares with what is missing":   {expression{path: `$.one[?(@.v > 2)].v`}, shop, 3000},
		"a filter with and, or, not":                    {expression{path: `$.one[?(!(@.name == 'db') && (@.v == 3 || false))].v`}, shop, 3000},
		"functions of an object's values":               {expression{script: `sum($.obj) + size($.obj)`}, shop, 5000},
		"functions of several arguments":                {expression{script: `max($.a, $.b, 2) + min($.a, $.b)`}, shop, 14000},
		"a function's name in capitals":                 {expression{script: `Ceil(2.1)`}, `{}`, 3000},
		"precedence":                                    {expression{script: `1 + 2 * 3 - -4`}, `{}`, 11000},
		"bits":                                          {expression{script: `(6 & 3) + (6 | 1) + (6 ^ 2) + (1 << 3) + (7 &^ 1)`}, `{}`, 2000 + 7000 + 4000 + 8000 + 6000},
		"slashes are no comment":                        {expression{script: `$.a / 5`}, shop, 2000},
		"a quote in a key":                              {expression{path: `$['it\'s']`}, shop, 6000},
		"the document itself":                           {expression{path: `$`}, `1.5`, 1500},
		"what is finer than a thousandth is cut":        {expression{path: `$`}, `0.0019`, 1},
		"a negative number":                             {expression{path: `$`}, `-2`, -2000},
		"an integer that a float64 would round":         {expression{path: `$`}, `9007199254740993`, 9007199254740993000},
		"a large number elsewhere does not matter":      {expression{path: `$.a`}, `{"a":1,"b":1e999}`, 1000},
		"an identifier beyond 64 bits elsewhere":        {expression{path: `$.a`}, `{"a":1,"id":123456789012345678901234567890}`, 1000},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := evaluate(c.expression, c.document)
			if err != nil || got != c.want {
				t.Errorf("%+v = %d, %v; want %d", c.expression, got, err, c.want)
			}
		})
	}
}

func TestWhatIsNoNumberIsAnError(t *testing.T) {
	for name, c := range map[string]struct {
		expression
		document, want string
	}{
		"no match":                      {expression{path: `$.nope`}, `{}`, "expected single numeric or array value"},
		"no match in a script":          {expression{script: `$.nope`}, `{}`, "expected single numeric or array value"},
		"no match in a sum":             {expression{script: `$.nope + 1`}, `{}`, "the path matches nothing"},
		"no match in a function":        {expression{script: `length($.nope[*])`}, `{"nope":[]}`, "the path matches nothing"},
		"an array without aggregator":   {expression{path: `$.a`}, `{"a":[1,2]}`, "no aggregator function has been specified"},
		"several without aggregator":    {expression{path: `$.a[*]`}, `{"a":[1,2]}`, "no aggregator function has been specified"},
		"avg of nothing":                {expression{path: `$.a`, aggregator: "avg"}, `{"a":[]}`, "no data"},
		"min of nothing":                {expression{path: `$.a`, aggregator: "min"}, `{"a":[]}`, "no data"},
		"max of nothing":                {expression{path: `$.a`, aggregator: "max"}, `{"a":[]}`, "no data"},
		"sum of nothing":                {expression{path: `$.a`, aggregator: "sum"}, `{"a":[]}`, "no data"},
		"avg of nothing in a script":    {expression{script: `avg($.a)`}, `{"a":[]}`, "no data"},
		"a string":                      {expression{path: `$.a`}, `{"a":"5"}`, `unsupported type: the value is the string "5"`},
		"a string in arithmetic":        {expression{script: `$.a * 2`}, `{"a":"5"}`, `"*": unsupported type: the value is the string "5"`},
		"the string NaN":                {expression{path: `$.a`}, `{"a":"NaN"}`, "unsupported type"},
		"a boolean":                     {expression{script: `1 < 2`}, `{}`, "unsupported type: the value is true"},
		"null":                          {expression{path: `$.a`}, `{"a":null}`, "unsupported type: the value is null"},
		"an object":                     {expression{path: `$`}, `{"a":1}`, "unsupported type: the value is an object of 1"},
		"a string in an array":          {expression{path: `$.a`, aggregator: "sum"}, `{"a":[1,"x"]}`, "item 1: unsupported type"},
		"division by zero":              {expression{script: `1 / $.a`}, `{"a":0}`, sample.ErrNotFinite.Error()},
		"zero by zero":                  {expression{script: `$.a / $.a`}, `{"a":0}`, sample.ErrNotFinite.Error()},
		"a part that divides by zero":   {expression{script: `1 / (1 / $.a)`}, `{"a":0}`, sample.ErrNotFinite.Error()},
		"a part that is too large":      {expression{script: `1 / $.a`}, `{"a":1e999}`, sample.ErrNotFinite.Error()},
		"the root of -1":                {expression{script: `sqrt(-1)`}, `{}`, sample.ErrNotFinite.Error()},
		"infinite in an array":          {expression{path: `$`, aggregator: "min"}, `[1,1e999]`, "item 1: " + sample.ErrNotFinite.Error()},
		"too large a float":             {expression{path: `$`}, `1e16`, sample.ErrNotFinite.Error()},
		"too large an integer":          {expression{path: `$`}, `9300000000000000`, sample.ErrNotFinite.Error()},
		"beyond float64":                {expression{path: `$`}, `-1e999`, sample.ErrNotFinite.Error()},
		"NaN is no JSON":                {expression{path: `$`}, `NaN`, "the document is not JSON"},
		"a document cut off":            {expression{path: `$`}, `{`, "unexpected end of file"},
		"an empty document":             {expression{path: `$`}, ``, "unexpected end of file"},
		"two documents":                 {expression{path: `$`}, `1 2`, "something follows the first value"},
		"HTML":                          {expression{path: `$`}, `<html>`, "the document is not JSON"},
		"a document too large":          {expression{path: `$`}, strings.Repeat(" ", MaxDocument) + "1", "the limit is 1048576"},
		"a document too deep":           {expression{path: `$`}, strings.Repeat("[", 500_000), "nested deeper than 100 levels"},
		"a document of too many values": {expression{path: `$`, aggregator: "sum"}, "[" + strings.Repeat("0,", MaxValues) + "0]", "more than 100000 values"},
		"a path with too many matches":  {expression{path: `$[*][0,0,0]`, aggregator: "sum"}, "[" + strings.Repeat("[0],", 40_000) + "0]", "matches more than 100000 values"},
		"a step of 0":                   {expression{path: `$[::0]`}, `[1]`, "cannot be 0"},
		"a range between strings":       {expression{path: `$['a':]`}, `[1]`, "not a whole number"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := evaluate(c.expression, c.document)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%+v = %d, %v; want an error with %q", c.expression, got, err, c.want)
			}
		})
	}
}

func TestWhatCannotBeCompiledIsAnError(t *testing.T) {
	for name, e := range map[string]expression{
		"empty":                           {path: " "},
		"too long":                        {path: "$." + strings.Repeat("a", MaxScript)},
		"not UTF-8":                       {path: "$.\xff"},
		"no $":                            {path: "value"},
		"arithmetic in a path":            {path: "$.a + 1"},
		"a function in a path":            {path: "sum($.a)"},
		"a dot at the end":                {path: "$.a."},
		"three dots":                      {path: "$...a"},
		"an open bracket":                 {path: "$['a'"},
		"an open string":                  {path: "$['a"},
		"an empty bracket":                {path: "$[]"},
		"an empty part":                   {path: "$[1,]"},
		"four parts":                      {path: "$[1:2:3:4]"},
		"a mixed bracket":                 {path: "$[1,2:3]"},
		"an unknown escape":               {path: `$['\q']`},
		"a script without left bracket":   {script: "ceil)("},
		"an unknown function":             {script: "system($.a)"},
		"an unknown name":                 {script: "value + 1"},
		"too many arguments":              {script: "ceil(1, 2)"},
		"no argument":                     {script: "ceil()"},
		"an operator too many":            {script: "1 + * 2"},
		"an open parenthesis":             {script: "(1 + 2"},
		"a second expression":             {script: "1 2"},
		"a pattern from the document":     {path: "$.a[?(@.b =~ $.pattern)]"},
		"a broken pattern":                {path: "$.a[?(@.b =~ '(')]"},
		"a pattern that repeats too much": {path: "$.a[?(@.b =~ '(((x{99}){99}){99}){99}')]"},
		"an open filter":                  {path: "$.a[?(@.b"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := e.compile(); err == nil {
				t.Errorf("%+v is accepted", e)
			} else if len(err.Error()) > 3*MaxScript {
				t.Errorf("the error has %d bytes", len(err.Error()))
			}
		})
	}
	if _, err := ParseAggregator("median"); err == nil {
		t.Error("the aggregator median is accepted")
	}
}

// Each of these would run for ages or fill the memory without a bound.
func TestWorkIsBounded(t *testing.T) {
	flat := "[" + strings.Repeat("1,", MaxValues-3) + "1]"
	deep := strings.Repeat(`[1,`, MaxDepth-1) + flat[:MaxValues] + "1]" + strings.Repeat(`]`, MaxDepth-1)
	text := `{"x":` + flat[:100_001] + `1],"a":"` + strings.Repeat("y", 300_000) + `","b":"` + strings.Repeat("y", 300_000) + `"}`
	for name, c := range map[string]struct {
		expression
		document string
	}{
		"unions that multiply":       {expression{path: "$" + strings.Repeat("[0,0,0,0]", 99), aggregator: "sum"}, strings.Repeat("[", 99) + "1" + strings.Repeat("]", 99)},
		"descents of descents":       {expression{path: "$..*..*..*..*..*..*..*", aggregator: "sum"}, deep},
		"a filter in a filter":       {expression{path: "$[?($[?($[?(@ > 0)])])]", aggregator: "sum"}, flat},
		"a sum for each item":        {expression{path: "$[?(sum($) > 0)]", aggregator: "sum"}, flat},
		"long strings for each item": {expression{path: "$.x[?($.a == $.b)]", aggregator: "sum"}, text},
		"long orders for each item":  {expression{path: "$.x[?($.a <= $.b)]", aggregator: "sum"}, text},
		"a pattern for each item":    {expression{path: "$.x[?($.a =~ '(y{0,30}){0,30}z')]", aggregator: "sum"}, text},
	} {
		t.Run(name, func(t *testing.T) {
			e, err := c.compile()
			if err != nil {
				t.Fatal(err)
			}
			_, err = e.Evaluate(context.Background(), []byte(c.document))
			if err == nil || !strings.Contains(err.Error(), "more values than the limit") && !strings.Contains(err.Error(), "matches more than") {
				t.Errorf("got %v, want an error that names the bound", err)
			}
		})
	}
}

func TestTheWorkEndsWithItsContext(t *testing.T) {
	e, err := Path("$..*..*", "sum")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	document := strings.Repeat(`[1,`, 99) + "1" + strings.Repeat(`]`, 99)
	if _, err := e.Evaluate(ctx, []byte(document)); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}

// drawDocument draws a document without NaN, empty containers at the top, or duplicate keys, as text.
func drawDocument(t *rapid.T, depth int) string {
	number := rapid.Custom(func(t *rapid.T) string {
		return strconv.FormatFloat(float64(rapid.IntRange(-1000, 1_000_000).Draw(t, "n"))/8, 'f', -1, 64)
	})
	if depth == 0 {
		return number.Draw(t, "leaf")
	}
	switch rapid.IntRange(0, 5).Draw(t, "kind") {
	case 0, 1:
		var items []string
		for range rapid.IntRange(0, 4).Draw(t, "items") {
			items = append(items, drawDocument(t, depth-1))
		}
		return "[" + strings.Join(items, ",") + "]"
	case 2, 3:
		var items []string
		for _, k := range rapid.SliceOfNDistinct(rapid.SampledFrom(keys), 0, 4, rapid.ID).Draw(t, "keys") {
			items = append(items, fmt.Sprintf("%q: %s", k, drawDocument(t, depth-1)))
		}
		return "{" + strings.Join(items, ",") + "}"
	case 4:
		return rapid.SampledFrom([]string{`"text"`, `"5"`, `true`, `null`}).Draw(t, "other")
	}
	return number.Draw(t, "number")
}

var keys = []string{"a", "b", "my_key", "my-key", "two words", "dotted.key", "k9"}

func drawPath(t *rapid.T) string {
	path := "$"
	for range rapid.IntRange(0, 4).Draw(t, "length") {
		key := rapid.SampledFrom(keys).Draw(t, "key")
		switch rapid.IntRange(0, 7).Draw(t, "segment") {
		case 0, 1:
			if strings.ContainsAny(key, " .") {
				path += "['" + key + "']"
			} else {
				path += "." + key
			}
		case 2:
			path += `["` + key + `"]`
		case 3:
			path += "[*]"
		case 4:
			path += ".[*]"
		case 5:
			// Not negative: upstream resolves -1 for the first array and takes that index for all others too.
			path += fmt.Sprintf("[%d]", rapid.IntRange(0, 3).Draw(t, "index"))
		case 6:
			path += fmt.Sprintf("[%d:%d]", rapid.IntRange(0, 2).Draw(t, "from"), rapid.IntRange(0, 4).Draw(t, "to"))
		case 7:
			path += "..*"
		}
	}
	return path
}

// upstream is what kube-metrics-adapter makes of a path: adapter.md, 3.1.
func upstream(document, path, aggregator string) (float64, error) {
	root, err := ajson.Unmarshal([]byte(document))
	if err != nil {
		return 0, err
	}
	matched, err := root.JSONPath(path)
	if err != nil {
		return 0, err
	}
	if len(matched) == 1 && matched[0].IsNumeric() {
		return matched[0].GetNumeric()
	}
	if len(matched) == 1 {
		if matched, err = matched[0].GetArray(); err != nil {
			return 0, err
		}
	}
	if len(matched) == 0 {
		return 0, errors.New("no data") // ours: D22
	}
	var sum, least, most float64
	for i, m := range matched {
		f, err := m.GetNumeric()
		if err != nil {
			return 0, err
		}
		if i == 0 {
			least, most = f, f
		}
		sum, least, most = sum+f, math.Min(least, f), math.Max(most, f)
	}
	switch aggregator {
	case "avg":
		return sum / float64(len(matched)), nil
	case "min":
		return least, nil
	case "max":
		return most, nil
	}
	return sum, nil
}

func TestPathsAgreeWithUpstream(t *testing.T) {
	numbers := 0
	rapid.Check(t, func(t *rapid.T) {
		document, path := drawDocument(t, 4), drawPath(t)
		aggregator := rapid.SampledFrom([]string{"avg", "min", "max", "sum"}).Draw(t, "aggregator")
		want, wantErr := upstream(document, path, aggregator)
		got, err := evaluate(expression{path: path, aggregator: Aggregator(aggregator)}, document)
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("%s of %s: %d, %v; upstream: %v, %v", path, document, got, err, want, wantErr)
		}
		if err != nil {
			return
		}
		numbers++
		if wantMilli, _ := sample.Milli(want); got-wantMilli > 1 || wantMilli-got > 1 { // sums in another order
			t.Fatalf("%s of %s: %d, upstream %v", path, document, got, want)
		}
	})
	if numbers == 0 {
		t.Error("no path gave a number")
	}
}

func TestScriptsAgreeWithUpstream(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var draw func(depth int) string
		draw = func(depth int) string {
			if depth == 0 {
				return rapid.SampledFrom([]string{"$.a", "$.b", "$['two words']", "sum($.list)", "avg($.list)", "$.list[0]",
					"$.list.length", "2", "0.5", "length($.list[?(@ > 2)])", "sum($..n)"}).Draw(t, "leaf")
			}
			left, right := draw(depth-1), draw(depth-1)
			switch rapid.IntRange(0, 5).Draw(t, "node") {
			case 0:
				return rapid.SampledFrom([]string{"ceil", "floor", "round", "abs", "trunc", "sqrt"}).Draw(t, "f") + "(" + left + ")"
			case 1:
				return "(" + left + ")"
			}
			return left + rapid.SampledFrom([]string{" + ", " - ", " * ", " / ", "+", "-"}).Draw(t, "op") + right
		}
		script := draw(rapid.IntRange(0, 3).Draw(t, "depth"))
		document := fmt.Sprintf(`{"a": %d, "b": %d, "two words": %d, "list": [%d, 3, 9], "x": [{"n": 1}, {"n": 2}]}`,
			rapid.IntRange(0, 50).Draw(t, "a"), rapid.IntRange(1, 50).Draw(t, "b"), rapid.IntRange(1, 9).Draw(t, "w"), rapid.IntRange(0, 9).Draw(t, "l"))
		root, err := ajson.Unmarshal([]byte(document))
		if err != nil {
			t.Fatal(err)
		}
		got, gotErr := evaluate(expression{script: script}, document)
		node, err := ajson.Eval(root, script)
		if err != nil {
			if gotErr == nil {
				t.Fatalf("%s of %s: %d; upstream: %v", script, document, got, err)
			}
			return
		}
		want, err := node.GetNumeric()
		wantMilli, milliErr := sample.Milli(want)
		if err != nil || milliErr != nil {
			if gotErr == nil {
				t.Fatalf("%s of %s: %d; upstream is no number", script, document, got)
			}
			return
		}
		if gotErr != nil || got-wantMilli > 1 || wantMilli-got > 1 {
			t.Fatalf("%s of %s: %d, %v; upstream %v", script, document, got, gotErr, want)
		}
	})
}

// The forms that need no rewriting mean the same to the library whose dialect the design names.
func TestPathsAgreeWithPaesslerAG(t *testing.T) {
	document := map[string]any{"a": 1.0, "b": map[string]any{"c": []any{1.0, 2.0, 3.0}, "two words": 9.0}}
	for _, path := range []string{`$.a`, `$.b.c[1]`, `$["b"]["two words"]`, `$.b.c[*]`, `$.b.c[1:3]`, `$.b.c[0,2]`, `$..c[0]`, `$.b.c[::-1]`} {
		v, err := jsonpath.Get(path, document)
		if err != nil {
			t.Fatal(err)
		}
		want, ok := v.(float64)
		if items, several := v.([]any); several {
			for _, i := range items {
				want += i.(float64)
			}
		} else if !ok {
			t.Fatalf("%s: %v", path, v)
		}
		got, err := evaluate(expression{path: path, aggregator: "sum"}, `{"a":1,"b":{"c":[1,2,3],"two words":9}}`)
		if err != nil || got != int64(want)*1000 {
			t.Errorf("%s = %d, %v; want %v", path, got, err, want)
		}
	}
}

// FuzzEvaluate holds that no path, script or document panics, and that what cannot be a number never is one.
func FuzzEvaluate(f *testing.F) {
	for _, e := range []string{`$.value`, `$['a b'][0:2:-1]`, `$..*`, `$.a.[*].my-key`, `$[?(@.a =~ '^x' && !(@.b < 2))]`,
		`ceil($['active processes'] / $['total processes'] * 100)`, `sum($..n) - max(1, $.x-y, 'z')`, `$[(@.length-1)]`, `((((1))))`,
		`-$.a**2<<3`, `$.0.1.2`, "`raw`", `$["\u0000"]`, `//`, `$[::]`} {
		for _, d := range []string{`{"value":[1,2,{"n":3}]}`, `[[1],[2,3],"x",null,1e999]`, `{`, `NaN`, `""`} {
			f.Add(e, d)
		}
	}
	f.Fuzz(func(t *testing.T, text, document string) {
		for _, compiled := range []func(string, Aggregator) (*Expression, error){Path, Script} {
			e, err := compiled(text, "sum")
			if err != nil {
				if strings.Contains(err.Error(), "runtime error") {
					t.Fatalf("a panic: %v", err)
				}
				continue
			}
			milli, err := e.Evaluate(context.Background(), []byte(document))
			if err != nil {
				if strings.Contains(err.Error(), "cannot be evaluated") {
					t.Fatalf("a panic: %v", err)
				}
				if milli != 0 {
					t.Fatalf("%d with the error %v", milli, err)
				}
				continue
			}
			if again, err := e.Evaluate(context.Background(), []byte(document)); err != nil || again != milli {
				t.Fatalf("%d, then %d, %v", milli, again, err)
			}
		}
	})
}

func BenchmarkEvaluate(b *testing.B) {
	large := `{"value": 5, "rest": [` + strings.Repeat(`{"name":"x","n":1.5},`, 20_000) + `0]}`
	for name, document := range map[string]string{"small": `{"http_server":{"rps":42.5},"queue":{"length":3}}`, "400KiB": large} {
		b.Run(name, func(b *testing.B) {
			e, err := Path("$..rps", "sum")
			if name != "small" {
				e, err = Path("$.value", "")
			}
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := e.Evaluate(context.Background(), []byte(document)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
