package promql

import (
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"pgregory.net/rapid"
)

func TestMistakesAreFoundBeforeAServerIsAsked(t *testing.T) {
	tests := map[string]struct{ query, err string }{
		"a vector":                    {`sum(rate(http_requests_total{job="shop"}[1m])) by (pod)`, ""},
		"a scalar":                    {`scalar(up) * 2`, ""},
		"a number":                    {`42`, ""},
		"white space and comments":    {"\n up # all\n", ""},
		"an experimental function":    {`mad_over_time(up[5m])`, ""},
		"an experimental aggregation": {`limitk(1, up)`, ""},
		"a name in UTF-8":             {`{"http.requests"}`, ""},
		"extended ranges":             {`rate(up[5m] anchored)`, ""},
		"nothing":                     {" ", "is empty"},
		"a mistake, with its place":   {`sum(up`, `is no PromQL: 1:7: parse error: unclosed left parenthesis`},
		"one in another line":         {"sum(\n  rate(up[5x]))", "is no PromQL: 2:"},
		"an unknown function":         {`rat(up[5m])`, `is no PromQL: 1:1: parse error: unknown function with name "rat"`},
		"a range of values":           {`up[5m]`, "gives a range of values for each series, not one; put it into a function"},
		"a text":                      {`"up"`, "gives a string, not a number"},
		"a selector of everything":    {`{job=~".*"}`, "must contain at least one non-empty matcher"},
		"a long query":                {strings.Repeat("1+", 6000) + "1", "has 12001 bytes, more than 10240"},
		"a query of many signs":       {strings.Repeat("((", 2500), "has more than 2000 words and signs"},
		"many selectors":              {strings.Repeat("up+", 100) + "up", "selects series more than 100 times"},
		"as many as are allowed":      {strings.Repeat("up+", 99) + "up", ""},
		"a month":                     {`avg_over_time(up[31d])`, ""},
		"a year":                      {`avg_over_time(up[1y])`, "looks back over more than 5w"},
		"a year in parts":             {`max_over_time(avg_over_time(up[30d])[30d:1d])`, "looks back over more than 5w"},
		"a year ago":                  {`up offset 1y`, ""},
		"a usual subquery":            {`max_over_time(rate(up[5m])[1d:1m])`, ""},
		"a fine subquery":             {`max_over_time(up[7d:10s])`, "subqueries of more than 11000 steps"},
		"nested subqueries":           {`max_over_time(max_over_time(up[1d:1m])[1d:1m])`, "subqueries of more than 11000 steps"},
		"a subquery without a step":   {`max_over_time(up[8d:])`, "subqueries of more than 11000 steps"},
		"much read again and again":   {`max_over_time(rate(up[7d])[7d:1m])`, "reads the same series again and again, more than 1000d in all"},
		"repetitions in a pattern":    {`up{a=~"(x{100}){3}"}`, ""},
		"great ones":                  {`up{a=~"` + strings.Repeat("x{1000}", 21) + `"}`, "come to more than 20000 signs"},
		"great ones, negated":         {"up{a!~`" + strings.Repeat("x{1000}", 21) + "`}", "come to more than 20000 signs"},
		"great ones in many patterns": {strings.Repeat(`up{a=~"x{1000}"}+`, 21) + "1", "come to more than 20000 signs"},
		"many classes":                {`up{a=~"` + strings.Repeat(`\\pL`, 9) + `"}`, `more than 8 classes like \pL`},
		"wide ranges without case":    {`up{a=~"(?si)` + strings.Repeat(`[\\x{80}-\\x{ffff}]`, 5) + `"}`, "signs beyond ASCII where case is ignored"},
		"letters without case":        {`up{a=~"(?i)[a-z]+é[0-9]{3}"}`, ""},
		"the same in a plain text":    {`up{a="` + strings.Repeat(`\\pL`, 33) + `"}`, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			q, err := Parse(tt.query)
			switch {
			case tt.err == "" && err != nil:
				t.Error(err)
			case tt.err == "" && q.String() != strings.TrimSpace(tt.query):
				t.Errorf("it became %s", q)
			case tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)):
				t.Errorf("error %v, want %q", err, tt.err)
			case err != nil && len(err.Error()) > 400:
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
		})
	}
}

func TestConfinement(t *testing.T) {
	tests := map[string]struct{ query, want, err string }{
		"a name":                     {`up`, `up{namespace="shop"}`, ""},
		"a number reads nothing":     {`vector(1) + time()`, `vector(1) + time()`, ""},
		"other labels stay":          {`up{job="a",pod!~"x.*"}`, `up{job="a",namespace="shop",pod!~"x.*"}`, ""},
		"its own namespace":          {`up{namespace="shop"}`, `up{namespace="shop"}`, ""},
		"a pattern that it matches":  {`up{namespace=~"shop|mail"}`, `up{namespace="shop"}`, ""},
		"any but another":            {`up{namespace!="mail"}`, `up{namespace="shop"}`, ""},
		"several on the label":       {`up{namespace=~".+",namespace!="mail"}`, `up{namespace="shop"}`, ""},
		"every name":                 {`count({__name__=~".+"})`, `count({__name__=~".+",namespace="shop"})`, ""},
		"a name in UTF-8":            {`{"http.requests"}`, `{__name__="http.requests",namespace="shop"}`, ""},
		"a range":                    {`rate(up[5m])`, `rate(up{namespace="shop"}[5m])`, ""},
		"offset and @":               {`up offset 5m + up @ 1700000000 + rate(up[5m] @ end() offset -1m)`, `up{namespace="shop"} offset 5m + up{namespace="shop"} @ 1700000000.000 + rate(up{namespace="shop"}[5m] @ end() offset -1m)`, ""},
		"a subquery":                 {`max_over_time(sum(rate(up[1m]))[1h:5m] @ start())`, `max_over_time(sum(rate(up{namespace="shop"}[1m]))[1h:5m] @ start())`, ""},
		"absent":                     {`absent(up) or absent_over_time(up[5m])`, `absent(up{namespace="shop"}) or absent_over_time(up{namespace="shop"}[5m])`, ""},
		"a parameter of a function":  {`topk(scalar(a), b)`, `topk(scalar(a{namespace="shop"}), b{namespace="shop"})`, ""},
		"both sides and parentheses": {`-(a / on (pod) group_left (x) b) unless c`, `-(a{namespace="shop"} / on (pod) group_left (x) b{namespace="shop"}) unless c{namespace="shop"}`, ""},
		// Functions that write labels work on what was read; what is read is decided by the selectors alone.
		"a label that is written afterwards": {`label_replace(up, "namespace", "mail", "", "")`, `label_replace(up{namespace="shop"}, "namespace", "mail", "", "")`, ""},
		"labels that are joined afterwards":  {`label_join(up, "namespace", "", "job")`, `label_join(up{namespace="shop"}, "namespace", "", "job")`, ""},
		"a join on a written label":          {`a * on (namespace) group_left () label_replace(b, "namespace", "mail", "", "")`, `a{namespace="shop"} * on (namespace) group_left () label_replace(b{namespace="shop"}, "namespace", "mail", "", "")`, ""},
		"extended ranges":                    {`rate(up[5m] smoothed)`, `rate(up{namespace="shop"}[5m] smoothed)`, ""},
		"another namespace":                  {`sum(up{namespace="mail"})`, "", `selects namespace="mail", but it may read its own namespace "shop" only`},
		"a pattern of other namespaces":      {`up{namespace=~"mail.*"}`, "", `selects namespace=~"mail.*", but`},
		"any namespace but its own":          {`up{namespace!="shop"}`, "", `selects namespace!="shop", but`},
		"no namespace":                       {`up{namespace=""}`, "", `selects namespace="", but`},
		"one of several that is another":     {`up + on () up{namespace="mail"}`, "", `selects namespace="mail"`},
		"another beside its own":             {`up{namespace="shop",namespace="mail"}`, "", `selects namespace="mail"`},
		"a function that reads by itself":    {`sum(info(up))`, "", "uses info(), which cannot be kept to one namespace"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			q, err := Parse(tt.query)
			if err != nil {
				t.Fatal(err)
			}
			got, err := q.Confined("namespace", "shop")
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("%q, error %v; want %q", got, err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if again, err := q.Confined("namespace", "shop"); err != nil || again != got {
				t.Errorf("the second time: %q, %v", again, err)
			}
			if q.String() != tt.query {
				t.Errorf("the query itself became %s", q)
			}
		})
	}
}

func TestTheLabelMayHaveAnyName(t *testing.T) {
	q, err := Parse(`up{"k8s.namespace"=~".*"}`)
	if err != nil {
		t.Fatal(err)
	}
	got, err := q.Confined("k8s.namespace", `a"b`)
	if err != nil || got != `up{"k8s.namespace"="a\"b"}` {
		t.Errorf("%s, %v", got, err)
	}
}

// What is sent is read again; here is that this would see a hole.
func TestAHoleInTheFenceIsSeen(t *testing.T) {
	own := labels.MustNewMatcher(labels.MatchEqual, "namespace", "shop")
	for text, ok := range map[string]bool{
		`a{namespace="shop"} + b{namespace="shop"}`: true,
		`a{namespace="shop"} + b`:                   false,
		`a{namespace=~"shop"}`:                      false,
		`a{namespace="shop",namespace!="x"}`:        false,
		`a{namespace="mail"}`:                       false,
		`a{`:                                        false,
	} {
		if err := confined(text, own); (err == nil) != ok {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// Whatever a function does, it must read only what its selectors select. A new one needs somebody to look.
func TestAllFunctionsHaveBeenLookedAt(t *testing.T) {
	if n := len(parser.Functions); n != lookedAt {
		t.Errorf("Prometheus' parser has %d functions instead of %d: does a new one read series that no selector names, as info() does? %v",
			n, lookedAt, slices.Sorted(maps.Keys(parser.Functions)))
	}
}

const lookedAt = 82

// drawQuery makes queries of every kind of node.
func drawQuery(t *rapid.T, depth int) string {
	selector := func() string {
		matchers := []string{}
		for range rapid.IntRange(0, 3).Draw(t, "matchers") {
			name := rapid.SampledFrom([]string{"job", "namespace", `"k8s.io/x"`, "pod"}).Draw(t, "label")
			op := rapid.SampledFrom([]string{"=", "!=", "=~", "!~"}).Draw(t, "op")
			value := rapid.SampledFrom([]string{"shop", "mail", ".+", "sh.*", "", "}[5m]", `#`}).Draw(t, "value")
			matchers = append(matchers, fmt.Sprintf("%s%s%q", name, op, value))
		}
		s := rapid.SampledFrom([]string{"up", "a:b", "on", "sum_total"}).Draw(t, "name")
		if rapid.Bool().Draw(t, "nameless") {
			s, matchers = "", append(matchers, rapid.SampledFrom([]string{`__name__=~"a.+"`, `"utf 8"`, `__name__="up"`}).Draw(t, "named"))
		}
		return s + "{" + strings.Join(matchers, ",") + "}"
	}
	modifiers := func() string {
		return rapid.SampledFrom([]string{"", "", " offset 5m", " offset -1h", " @ 1700000000.5", " @ start()", " @ end() offset 1d"}).Draw(t, "modifier")
	}
	if depth == 0 {
		return selector() + modifiers()
	}
	sub := func() string { return drawQuery(t, depth-1) }
	switch rapid.IntRange(0, 9).Draw(t, "node") {
	case 0:
		return "rate(" + selector() + "[" + rapid.SampledFrom([]string{"5m", "1h30m", "90s"}).Draw(t, "range") + "]" + modifiers() + ")"
	case 1:
		return "max_over_time((" + sub() + ")[1h:" + rapid.SampledFrom([]string{"", "5m"}).Draw(t, "step") + "]" + modifiers() + ")"
	case 2:
		return "sum by (pod, \"x y\") (" + sub() + ")"
	case 3:
		return "quantile without (job) (0.5, " + sub() + ")"
	case 4:
		return "(" + sub() + ") / on (pod) group_left (job) (" + sub() + ")"
	case 5:
		return "-(" + sub() + ")"
	case 6:
		return "label_replace(" + sub() + `, "namespace", "mail", "job", "(.*)")`
	case 7:
		return "absent(" + sub() + ") or vector(scalar(" + sub() + "))"
	case 8:
		return "(" + sub() + ") > bool (" + sub() + ")"
	default:
		return "count_values(\"namespace\", " + sub() + ") unless (" + sub() + ")"
	}
}

// After the rewriting every selector asks for the namespace, and the query is otherwise the one that was written.
func TestEverySelectorIsConfined(t *testing.T) {
	refused, done := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		text := drawQuery(t, rapid.IntRange(0, 3).Draw(t, "depth"))
		q, err := Parse(text)
		if err != nil {
			refused++
			return
		}
		got, err := q.Confined("namespace", "shop")
		foreign := slices.ContainsFunc(parser.ExtractSelectors(q.expr), func(ms []*labels.Matcher) bool {
			return slices.ContainsFunc(ms, func(m *labels.Matcher) bool { return m.Name == "namespace" && !m.Matches("shop") })
		})
		if foreign != (err != nil) {
			t.Fatalf("%s: error %v, and it names another namespace: %v", text, err, foreign)
		}
		if err != nil {
			return
		}
		done++
		expr, err := parser.ParseExpr(got)
		if err != nil {
			t.Fatalf("%s became %s: %v", text, got, err)
		}
		before, after := parser.ExtractSelectors(q.expr), parser.ExtractSelectors(expr)
		if len(before) != len(after) {
			t.Fatalf("%s became %s", text, got)
		}
		other := func(ms []*labels.Matcher) (texts []string) {
			for _, m := range ms {
				if m.Name != "namespace" {
					texts = append(texts, m.String())
				}
			}
			slices.Sort(texts)
			return texts
		}
		for i := range after {
			fence := slices.DeleteFunc(slices.Clone(after[i]), func(m *labels.Matcher) bool { return m.Name != "namespace" })
			if len(fence) != 1 || fence[0].String() != `namespace="shop"` {
				t.Fatalf("%s became %s, with the selector %v", text, got, after[i])
			}
			if diff := cmp.Diff(other(before[i]), other(after[i])); diff != "" {
				t.Fatalf("%s became %s:\n%s", text, got, diff)
			}
		}
		again, err := parser.ParseExpr(got)
		if err != nil || again.String() != got {
			t.Fatalf("%s is not stable: %v", got, err)
		}
	})
	if done < 10 || refused > 3*done {
		t.Errorf("%d queries were confined, %d could not be parsed", done, refused)
	}
}

// The dearest texts that are within the bounds must not be dear.
func TestParsingIsCheap(t *testing.T) {
	for name, text := range map[string]string{
		"patterns":    `up{a=~"` + strings.Repeat("x{1000}", 9) + `"}`,
		"classes":     `up{a=~"(?i)` + strings.Repeat(`\\pL`, 8) + `"}`,
		"alternation": `up{a=~"` + strings.Repeat("a|", 5000) + `"}`,
		"parentheses": strings.Repeat("(", 950) + "up" + strings.Repeat(")", 950),
		"a chain":     strings.Repeat("1+", 950) + "1",
		"signs":       strings.Repeat("-", 1950) + "up",
		"labels":      `up{` + strings.Repeat(`a="",`, 450) + `b="c"}`,
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			q, err := Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = q.Confined("namespace", "shop")
			runtime.ReadMemStats(&after)
			if mib := float64(after.TotalAlloc-before.TotalAlloc) / (1 << 20); mib > 64 {
				t.Errorf("%.1f MiB were allocated", mib)
			} else {
				t.Logf("%.1f MiB", mib)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	for _, text := range []string{`sum(rate(up{namespace="shop"}[5m]))`, `{"a.b",x=~"y{3}"} @ 5 offset -1m`, `info(up)`, "up # x\n+1", `a[5m:]`, "\"\\", "{a=~\"(?i)\\\\pL{5}\"}"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		q, err := Parse(text)
		if err != nil {
			return
		}
		got, err := q.Confined("namespace", "shop")
		if err != nil {
			return
		}
		expr, err := parser.ParseExpr(got)
		if err != nil {
			t.Fatalf("%q became %q: %v", text, got, err)
		}
		for _, ms := range parser.ExtractSelectors(expr) {
			if !slices.ContainsFunc(ms, func(m *labels.Matcher) bool { return m.String() == `namespace="shop"` }) {
				t.Fatalf("%q became %q", text, got)
			}
		}
	})
}
