package promtext

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"pgregory.net/rapid"

	"github.com/kubetide/kubetide/internal/jsonvalue"
	"github.com/kubetide/kubetide/internal/sample"
)

const document = `# HELP jobs Jobs by queue, a "quote" and { a brace.
# TYPE jobs gauge
jobs{queue="mail",state="waiting"} 7
jobs{queue="mail",state="running"} 2.5
jobs { state = "waiting" , queue = "push", } 3 1700000000000

	jobs{queue="a \"b\" \\ c\nd"}	1e2
jobs_total 1
# a comment without end {
up 1
temperature -4.25
ratio NaN
limit +Inf
request_seconds_bucket{le="0.5"} 10
request_seconds_bucket{le="+Inf"} 12
request_seconds_sum 3.5
request_seconds_count 12
{"dotted.name", "a.label"="x"} 5
{"quoted"} 6
`

func evaluate(t *testing.T, selector string, aggregator jsonvalue.Aggregator, text string) (int64, error) {
	t.Helper()
	e, err := Parse(selector, aggregator)
	if err != nil {
		t.Fatal(err)
	}
	return e.Evaluate(context.Background(), strings.NewReader(text))
}

func TestEvaluate(t *testing.T) {
	for name, c := range map[string]struct {
		selector   string
		aggregator jsonvalue.Aggregator
		want       int64
		err        string
		noData     bool
	}{
		"a series without labels":                {selector: "up", want: 1000},
		"labels in any order, and white space":   {selector: `jobs{queue="push",state="waiting"}`, want: 3000},
		"part of the labels":                     {selector: `jobs{state="running"}`, want: 2500},
		"escapes in a value":                     {selector: `jobs{queue="a \"b\" \\ c\nd"}`, want: 100_000},
		"an alternative":                         {selector: `jobs{queue=~"push|pull"}`, want: 3000},
		"a pattern is anchored":                  {selector: `jobs{queue=~"pus"}`, noData: true, err: `no series of the metric "jobs" matches`},
		"not equal":                              {selector: `jobs{state!="waiting",queue="mail"}`, want: 2500},
		"a label that is not there is empty":     {selector: `jobs{state=""}`, want: 100_000},
		"a pattern that must not match":          {selector: `jobs{state!~"wait.*|"}`, want: 2500},
		"the name as a matcher":                  {selector: `{__name__="up"}`, want: 1000},
		"a negative value":                       {selector: "temperature", want: -4250},
		"one bucket":                             {selector: `request_seconds_bucket{le="+Inf"}`, want: 12_000},
		"the sum of a histogram":                 {selector: "request_seconds_sum", want: 3500},
		"a name in quotes":                       {selector: `{"dotted.name","a.label"="x"}`, want: 5000},
		"a name in quotes without labels":        {selector: `quoted`, want: 6000},
		"sum":                                    {selector: `jobs{queue=~"mail|push"}`, aggregator: "sum", want: 12_500},
		"avg":                                    {selector: `jobs{queue=~"mail|push"}`, aggregator: "avg", want: 4166},
		"min":                                    {selector: `jobs{queue=~"mail|push"}`, aggregator: "min", want: 2500},
		"max":                                    {selector: `jobs{queue=~"mail|push"}`, aggregator: "max", want: 7000},
		"an aggregator of one":                   {selector: "up", aggregator: "avg", want: 1000},
		"several series without an aggregator":   {selector: "jobs", err: "line 4: a second series matches, and no aggregator function has been specified"},
		"no such metric":                         {selector: "job", noData: true, err: `no series of the metric "job" matches`},
		"a sum of nothing is no data and not 0":  {selector: `jobs{queue="x"}`, aggregator: "sum", noData: true, err: "no series"},
		"NaN is no data":                         {selector: "ratio", noData: true, err: "line 12: a series that matches has the value NaN"},
		"an infinity is no data":                 {selector: "limit", noData: true, err: "the value +Inf"},
		"one NaN spoils the sum, which it is of": {selector: "ratio", aggregator: "sum", noData: true, err: "NaN"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := evaluate(t, c.selector, c.aggregator, document)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) || errors.Is(err, sample.ErrNoData) != c.noData {
					t.Errorf("got %d, %v; want %q, no data: %t", got, err, c.err, c.noData)
				}
				return
			}
			if err != nil || got != c.want {
				t.Errorf("got %d, %v; want %d", got, err, c.want)
			}
		})
	}
}

func TestBadDocuments(t *testing.T) {
	many := "up{"
	for i := range maxLabels + 1 {
		many += fmt.Sprintf("l%d=\"\",", i)
	}
	for name, c := range map[string]struct{ text, err string }{
		"HTML":                             {"<html>\nup 1\n", "line 1 is not in Prometheus' text format: it begins with '<'"},
		"JSON":                             {`{"up": 1}` + "\n", `line 1: after the label "up" there is neither a comma nor a closing brace`},
		"JSON over lines":                  {"{\n\"up\": 1\n}\n", "line 1: its labels have no closing brace"},
		"a line that is cut off":           {"up 12", "the last line has no end"},
		"another line that is cut off":     {"up 12\ndown", "the last line has no end"},
		"a comment that is cut off":        {"up 12\n# TYPE", "the last line has no end"},
		"no value":                         {"up \n", `line 1: the value "" is no number`},
		"a value that is a text":           {"up yes\n", `the value "yes" is no number`},
		"a value with underscores":         {"up 1_0\n", "is no number"},
		"a hexadecimal value":              {"up 0x1p4\n", "is no number"},
		"a value too large":                {"up 1e999\n", "is no number"},
		"a value too large for the HPA":    {"up 1e300\n", sample.ErrNotFinite.Error()},
		"a timestamp that is a text":       {"up 1 now\n", `the timestamp "now" is no number`},
		"more than a timestamp":            {"up 1 2 3\n", "more than a value and a timestamp"},
		"labels without end":               {"up{a=\"b\" 1\n", "neither a comma nor a closing brace"},
		"a quote without end":              {"up{a=\"b} 1\n", "a quote is not closed"},
		"a quote that ends in an escape":   {"up{a=\"b\\\n", "a quote is not closed"},
		"an unknown escape":                {`up{a="\t"} 1` + "\n", `the escape \t, which there is not`},
		"a value without quotes":           {"up{a=b} 1\n", "not in quotes"},
		"a label without a value":          {"up{a} 1\n", `the label "a" has no value`},
		"a label without a name":           {`up{="b"} 1` + "\n", "a label has no name"},
		"a label that is there twice":      {`up{a="1",a="2"} 1` + "\n", `the label "a" is there twice`},
		"two names":                        {`up{"down"} 1` + "\n", `the label "down" has no value`},
		"too many labels":                  {many + "} 1\n", "more than 100 labels"},
		"a wanted line without end":        {"up{a=\"" + strings.Repeat("x", maxLine) + "\"} 1\n", "line 1 is longer than 65536 bytes"},
		"a wanted line without any breaks": {"up " + strings.Repeat(" ", 2*maxLine), "line 1 is longer than 65536 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := evaluate(t, "up", "sum", c.text)
			if err == nil || !strings.Contains(err.Error(), c.err) || errors.Is(err, sample.ErrNoData) {
				t.Errorf("got %d, %v; want the error %q", got, err, c.err)
			}
		})
	}
}

func TestWhatIsNotWantedDoesNotMatter(t *testing.T) {
	for name, text := range map[string]string{
		"a long comment":               "# HELP down " + strings.Repeat("x", 3*maxLine) + "\nup 5\n",
		"a long line of another":       "down{a=\"" + strings.Repeat("x", 3*maxLine) + "\"} 1\nup 5\n",
		"a broken line of another":     "down{a 1\nup 5\n",
		"a metric that begins alike":   "upper 1\nup_time 2\nup 5\n",
		"an exemplar":                  `up 5 # {trace_id="1"} 0.5 1.5` + "\n",
		"an exemplar and a timestamp":  `up 5 1700000000.123 # {trace_id="1"} 0.5` + "\n",
		"what follows OpenMetrics":     "up 5\n# EOF\nup 6\n<\n",
		"an end without a line's end":  "up 5\n# EOF",
		"a line as long as it may be":  "up" + strings.Repeat(" ", maxLine-4) + "5\n",
		"an empty set of labels":       "up{} 5\n",
		"a comma after the last label": `up{a="b",} 5` + "\n",
		"a colon in another name":      ":rule 1\n_x 2\nup 5\n",
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := evaluate(t, "up", "", text); err != nil || got != 5000 {
				t.Errorf("got %d, %v; want 5000", got, err)
			}
		})
	}
}

func TestSelectors(t *testing.T) {
	for selector, want := range map[string]string{
		"":                                 "it is empty",
		" ":                                "it is empty",
		strings.Repeat("x", maxSelector+1): "it is 1025 bytes long, the limit is 1024",
		`{job="a"}`:                        "it must name one metric exactly",
		`{__name__=~"a.*"}`:                "it must name one metric exactly",
		`{__name__!="a",b="c"}`:            "it must name one metric exactly",
		`a{__name__="a"}`:                  "",
		`{}`:                               "it is no PromQL",
		`a{b=}`:                            "it is no PromQL",
		`sum(a)`:                           "it is no selector",
		`a + b`:                            "it is no selector",
		`a offset 5m`:                      "it is no selector",
		`a[5m]`:                            "it gives a range of values",
		`1`:                                "it is no selector",
		`a{b=~"("}`:                        "it is no PromQL",
		`a{b=~"((x{100}){10}){10}"}`:       "it is no PromQL",
		`a{b=~"(?:abcdefghijklmnopqrstuvwxyz){1000}"}`: "regular expressions that come to more than",
		`a{b=~"\\x{61}{99}",c!~"x"}`:                   "ok",
	} {
		e, err := Parse(selector, "")
		switch {
		case want == "ok" || want == "" && err == nil:
			if err != nil || e.name != "a" {
				t.Errorf("%.60q: %v", selector, err)
			}
		case err == nil || !strings.Contains(err.Error(), want):
			t.Errorf("%.60q: got %v, want %q", selector, err, want)
		}
	}
}

func TestTheAgeIsThatOfTheOldestSeries(t *testing.T) {
	now := time.UnixMilli(1_700_000_100_500)
	for text, want := range map[string]time.Duration{
		"up 1\n":               0,
		"up 1 1700000100000\n": 500 * time.Millisecond,
		"up 1 1700000000\n":    100_500 * time.Millisecond, // OpenMetrics
		"up 1 1700000099.25\n": 1250 * time.Millisecond,
		"up 1 1700000200000\n": 0, // from the future
		"up 1 1700000090500\nup 1\nup 1 1700000095500\n": 10 * time.Second,
		"up 1 -1e300\n": maxAge,
	} {
		e, err := Parse("up", "sum")
		if err != nil {
			t.Fatal(err)
		}
		if _, age, err := e.EvaluateAt(context.Background(), strings.NewReader(text), now); err != nil || (age-want).Abs() > time.Millisecond {
			t.Errorf("%q: got %s, %v; want %s", text, age, err, want)
		}
	}
}

func TestAReadersErrorIsTold(t *testing.T) {
	e, err := Parse("up", "")
	if err != nil {
		t.Fatal(err)
	}
	broken := errors.New("connection reset")
	for _, before := range []string{"", "up 1\n", "up 1", "# " + strings.Repeat("x", 2*maxLine)} {
		if _, err := e.Evaluate(context.Background(), io.MultiReader(strings.NewReader(before), iotest.ErrReader(broken))); !errors.Is(err, broken) {
			t.Errorf("after %.10q: %v", before, err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := e.Evaluate(ctx, endless("up 1\n")); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}

// endless repeats a text.
func endless(text string) io.Reader { return &repeated{text: text} }

type repeated struct {
	text string
	at   int
}

func (r *repeated) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		c := copy(p[n:], r.text[r.at:])
		n, r.at = n+c, (r.at+c)%len(r.text)
	}
	return n, nil
}

func TestWorkAndMemoryAreBounded(t *testing.T) {
	e, err := Parse(`up{a=~"(x?){500}x{500}"}`, "sum")
	if err != nil {
		t.Fatal(err)
	}
	line := `up{a="` + strings.Repeat("x", 500) + `"} 1` + "\n"
	if _, err := e.Evaluate(context.Background(), endless(line)); err == nil || !strings.Contains(err.Error(), "patterns are too costly") {
		t.Errorf("got %v", err)
	}

	if e, err = Parse(`up{a!="y\"",b=~"x+|z",c=""}`, "sum"); err != nil {
		t.Fatal(err)
	}
	text := `up{a="y\\",b="xxx"} 1` + "\n" + `{"up",a="z"} 1` + "\n" + `down{a="y\\",b="xxx"} 1` + "\n# comment\n"
	for round := range 2 { // the first one makes the buffer
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		got, err := e.Evaluate(context.Background(), io.LimitReader(endless(text), int64(len(text)*100_000)))
		runtime.ReadMemStats(&after)
		if err != nil || got != 100_000_000 {
			t.Fatalf("got %d, %v", got, err)
		}
		if grown := after.TotalAlloc - before.TotalAlloc; round > 0 && grown > 8<<20 {
			t.Errorf("%d bytes were allocated for %d", grown, len(text)*100_000)
		}
	}
}

// TestProperty holds that documents mean what they mean to Prometheus' own library.
func TestProperty(t *testing.T) {
	names := []string{"up", "up_total", "u", `dotted.name`}
	label := rapid.SampledFrom([]string{"a", "b", "le", "with.dot"})
	value := rapid.SampledFrom([]string{"", "x", "xy", "}", `"`, `\`, "\n", ` {="`, "ü", "# EOF"})
	number := rapid.OneOf(rapid.Map(rapid.Float64Range(-1e9, 1e9), func(f float64) string { return fmt.Sprint(f) }),
		rapid.SampledFrom([]string{"0", "1", "+1", "1e3", ".5", "5."}))
	space := rapid.SampledFrom([]string{"", " ", "\t", "  "})
	escape := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)
	rapid.Check(t, func(t *rapid.T) {
		var text strings.Builder
		write := func(format string, args ...any) { fmt.Fprintf(&text, format, args...) }
		gap := func() string { return space.Draw(t, "space") }
		seen := map[string]bool{}
		for range rapid.IntRange(0, 8).Draw(t, "lines") {
			switch rapid.IntRange(0, 5).Draw(t, "kind") {
			case 0:
				write("%s# %s\n", gap(), escape.Replace(value.Draw(t, "comment")))
				continue
			case 1:
				write("%s\n", gap())
				continue
			}
			name := rapid.SampledFrom(names).Draw(t, "name")
			labels := rapid.MapOfN(label, value, 0, 3).Draw(t, "labels")
			if id := fmt.Sprint(name, labels); seen[id] {
				continue
			} else {
				seen[id] = true
			}
			write("%s", gap())
			var parts []string
			if strings.Contains(name, ".") || rapid.Bool().Draw(t, "inside") {
				parts = append(parts, gap()+`"`+name+`"`+gap())
			} else {
				write("%s%s", name, gap())
			}
			for l, v := range labels {
				if strings.Contains(l, ".") {
					l = `"` + l + `"`
				}
				parts = append(parts, gap()+l+gap()+"="+gap()+`"`+escape.Replace(v)+`"`+gap())
			}
			if len(parts) > 0 {
				comma := ""
				if len(labels) > 0 && rapid.Bool().Draw(t, "comma") {
					comma = "," + gap()
				}
				write("{%s%s}", strings.Join(parts, ","), comma)
			}
			write(" %s", number.Draw(t, "value"))
			if rapid.Bool().Draw(t, "stamped") {
				write(" %s", rapid.SampledFrom([]string{"0", "1700000000000", "-1"}).Draw(t, "stamp"))
			}
			write("\n")
		}
		parser := expfmt.NewTextParser(model.UTF8Validation)
		families, err := parser.TextToMetricFamilies(strings.NewReader(text.String()))
		if err != nil {
			t.Fatalf("the oracle: %v in\n%s", err, text.String())
		}
		wanted, pattern := value.Draw(t, "equal"), rapid.SampledFrom([]string{"x.*", ".+", "", "x|}", `[^x]`}).Draw(t, "pattern")
		want, matched := 0.0, false
		if family := families["up"]; family != nil {
			series, err := expfmt.ExtractSamples(&expfmt.DecodeOptions{}, family)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range series {
				if string(s.Metric["a"]) == wanted && regexp.MustCompile("^(?s:"+pattern+")$").MatchString(string(s.Metric["b"])) {
					want, matched = want+float64(s.Value), true
				}
			}
		}
		e, err := Parse(fmt.Sprintf("up{a=%q,b=~%q}", wanted, pattern), "sum")
		if err != nil {
			t.Fatal(err)
		}
		got, err := e.Evaluate(context.Background(), iotest.OneByteReader(strings.NewReader(text.String())))
		switch {
		case !matched && !errors.Is(err, sample.ErrNoData), matched && (err != nil || math.Abs(float64(got)/1000-want) > 0.001+1e-9*math.Abs(want)):
			t.Errorf("got %d, %v; want %v, %t of\n%s", got, err, want, matched, text.String())
		}
	})
}

// oracle reads a document with Prometheus' library, which panics at some.
func oracle(text string) (families map[string]*dto.MetricFamily, ok bool) {
	defer func() {
		if recover() != nil {
			ok = false
		}
	}()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	return families, err == nil
}

// FuzzEvaluate holds that nothing panics or runs on, and that a document which Prometheus' own library takes has the same sum.
func FuzzEvaluate(f *testing.F) {
	for _, selector := range []string{"jobs", `jobs{queue=~"mail|push",state!="x"}`, `{"dotted.name"}`, "ratio"} {
		f.Add(selector, document)
	}
	f.Add("up", "up{a=\"\\n\",} 1 2 # {} 3\n# EOF")
	f.Fuzz(func(t *testing.T, selector, text string) {
		e, err := Parse(selector, "sum")
		if err != nil {
			return
		}
		got, err := e.Evaluate(context.Background(), strings.NewReader(text))
		if len(e.matchers) > 0 || !strings.HasSuffix(text, "\n") || strings.Contains(text, end) {
			return
		}
		families, ok := oracle(text)
		if !ok || strings.Contains(text, "TYPE") {
			return
		}
		var want float64
		family := families[e.name]
		if family != nil {
			for _, m := range family.Metric {
				want += m.GetUntyped().GetValue()
			}
		}
		switch {
		case family == nil && !errors.Is(err, sample.ErrNoData):
			t.Errorf("got %d, %v; want no data", got, err)
		case family != nil && math.Abs(want) < 1e15 && (err != nil || math.Abs(float64(got)/1000-want) > 0.001+1e-9*math.Abs(want)):
			t.Errorf("got %d, %v; want %v", got, err, want)
		}
	})
}

func BenchmarkEvaluate(b *testing.B) {
	var text strings.Builder
	for i := range 2000 {
		fmt.Fprintf(&text, "# HELP metric_%d Something.\n# TYPE metric_%d gauge\nmetric_%d{path=\"/a\",code=\"200\"} %d\n", i, i, i, i)
	}
	e, err := Parse(`metric_1000{code=~"2.."}`, "")
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(text.Len()))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := e.Evaluate(context.Background(), strings.NewReader(text.String())); err != nil {
			b.Fatal(err)
		}
	}
}
