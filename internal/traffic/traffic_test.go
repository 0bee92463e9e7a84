package traffic

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

func TestASegmentIsFoundInPredicates(t *testing.T) {
	for name, c := range map[string]struct {
		predicates []string
		want       Segment
		none       bool
	}{
		"a StackSet's own":                         {predicates: []string{`TrafficSegment(0.00, 0.80)`}, want: Segment{0, 0.8}},
		"with a user's predicate after it":         {predicates: []string{`TrafficSegment(0.80, 1.00) && Method("GET")`}, want: Segment{0.8, 1}},
		"with a user's predicate before it":        {predicates: []string{`Method("GET") && TrafficSegment(0.80, 1.00)`}, want: Segment{0.8, 1}},
		"of no width":                              {predicates: []string{`TrafficSegment(0.00, 0.00)`}},
		"without spaces":                           {predicates: []string{`TrafficSegment(0,1)`}, want: All},
		"with spaces and lines everywhere":         {predicates: []string{" TrafficSegment\n(\t0.1 ,\r\n 0.2 ) "}, want: Segment{0.1, 0.2}},
		"with numbers that have no leading zero":   {predicates: []string{`TrafficSegment(.25, .5)`}, want: Segment{0.25, 0.5}},
		"with exponents":                           {predicates: []string{`TrafficSegment(1e-1, 5E-1)`}, want: Segment{0.1, 0.5}},
		"with many digits":                         {predicates: []string{`TrafficSegment(0.333333333333, 0.666666666667)`}, want: Segment{0.333333333333, 0.666666666667}},
		"with a sign":                              {predicates: []string{`TrafficSegment(-0, +1)`}, want: All},
		"one of several predicates of a route":     {predicates: []string{`Path("/a")`, `TrafficSegment(0.2, 0.4)`, `Weight(3)`}, want: Segment{0.2, 0.4}},
		"twice in one text: both must hold":        {predicates: []string{`TrafficSegment(0, 0.5) && TrafficSegment(0.25, 1)`}, want: Segment{0.25, 0.5}},
		"twice in two texts: both must hold":       {predicates: []string{`TrafficSegment(0, 0.5)`, `TrafficSegment(0.25, 1)`}, want: Segment{0.25, 0.5}},
		"twice without anything in common":         {predicates: []string{`TrafficSegment(0, 0.25)`, `TrafficSegment(0.5, 1)`}, want: Segment{0.5, 0.5}},
		"nowhere":                                  {predicates: []string{`Method("GET")`}, none: true},
		"in no predicates at all":                  {none: true},
		"only in a string":                         {predicates: []string{`Header("x", "TrafficSegment(0, 0.1)")`}, none: true},
		"only in a string with an escaped quote":   {predicates: []string{`Header("x\"", "\\") && Header("\" TrafficSegment(0, 0.1)")`}, none: true},
		"only in a raw string":                     {predicates: []string{"Header(`TrafficSegment(0, 0.1)`)"}, none: true},
		"only in a regular expression":             {predicates: []string{`Path(/a[/]TrafficSegment(0, 0.1)/) && Path(/\/TrafficSegment(0, 0.1)/)`}, none: true},
		"only in a comment":                        {predicates: []string{"// TrafficSegment(0, 0.1)\nMethod(\"GET\")"}, none: true},
		"after a comment":                          {predicates: []string{"// it's the canary\nTrafficSegment(0, 0.1)"}, want: Segment{0, 0.1}},
		"only as a part of another word":           {predicates: []string{`MyTrafficSegment(7, 8) && TrafficSegment2("a")`}, none: true},
		"after a regular expression that has a //": {predicates: []string{`PathRegexp(/a\//) && TrafficSegment(0, 0.1)`}, want: Segment{0, 0.1}},
	} {
		t.Run(name, func(t *testing.T) {
			got, found, err := Find(c.predicates...)
			if err != nil {
				t.Fatal(err)
			}
			if found == c.none {
				t.Fatalf("found is %v", found)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if got.Lo == 0 && math.Signbit(got.Lo) {
				t.Error("the lower end is -0")
			}
		})
	}
}

func TestASegmentThatCannotBeReadIsAnError(t *testing.T) {
	for predicate, want := range map[string]string{
		`TrafficSegment`:                      "has no arguments",
		`TrafficSegment && Method("GET")`:     "has no arguments",
		`TrafficSegment(`:                     "has no end",
		`TrafficSegment(0, 1`:                 "has no end",
		`TrafficSegment()`:                    "has 1 arguments, not 2",
		`TrafficSegment(0.1)`:                 "has 1 arguments, not 2",
		`TrafficSegment(0, 0.1, 1)`:           "has 3 arguments, not 2",
		`TrafficSegment("0", 1)`:              `argument "\"0\"" of TrafficSegment is not a number from 0 to 1`,
		`TrafficSegment(-0.1, 1)`:             "is not a number from 0 to 1",
		`TrafficSegment(0, 1.01)`:             "is not a number from 0 to 1",
		`TrafficSegment(0, 100)`:              "is not a number from 0 to 1",
		`TrafficSegment(0, 1e999)`:            "is not a number from 0 to 1",
		`TrafficSegment(NaN, 1)`:              "is not a number from 0 to 1",
		`TrafficSegment(0, Inf)`:              "is not a number from 0 to 1",
		`TrafficSegment(0x0p0, 1)`:            "is not a number from 0 to 1",
		`TrafficSegment(0, )`:                 "is not a number from 0 to 1",
		`TrafficSegment(0.8, 0.2)`:            "begins at 0.8, after its end at 0.2",
		`Header("x) && TrafficSegment(0, 1)`:  "has no end",
		`TrafficSegment(0, 1) && Path(/a`:     "has no end",
		`TrafficSegment(0, 1) && Header("a\"`: "has no end",
	} {
		if _, found, err := Find(predicate); err == nil || found || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: found %v, error %v; want %q", predicate, found, err, want)
		}
	}
}

func TestASegmentIsPrintedAsStackSetsHaveIt(t *testing.T) {
	for want, s := range map[string]Segment{
		"TrafficSegment(0.00, 0.50)": {0, 0.5},
		"TrafficSegment(0.80, 1.00)": {0.8, 1},
		"TrafficSegment(0.00, 0.00)": {},
		"TrafficSegment(0.10, 0.30)": {0.1, 0.1 + 0.2},
	} {
		if got := s.String(); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

func TestWhatIsPrintedIsReadAgain(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lo := rapid.IntRange(0, 100).Draw(t, "lo")
		hi := rapid.IntRange(lo, 100).Draw(t, "hi")
		want := Segment{float64(lo) / 100, float64(hi) / 100}
		user := rapid.SampledFrom([]string{"", ` && Method("GET")`, " && Path(/x/)"}).Draw(t, "user")
		got, found, err := Find(want.String() + user)
		if err != nil || !found {
			t.Fatalf("found %v, error %v", found, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(float64(hi-lo)/100, got.Width(), cmpopts.EquateApprox(0, 1e-12)); diff != "" {
			t.Fatalf("width (-want +got):\n%s", diff)
		}
	})
}

func FuzzFind(f *testing.F) {
	for _, seed := range []string{`TrafficSegment(0.00, 0.80) && Method("GET")`, "TrafficSegment", `"\`, "/[/", "`", "//", `TrafficSegment(1e-400,.5)`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, found, err := Find(text, text)
		if err != nil && found {
			t.Errorf("found together with %v", err)
		}
		if !(0 <= s.Lo && s.Lo <= s.Hi && s.Hi <= 1) {
			t.Errorf("%+v", s)
		}
	})
}

func TestTheRateIsAskedForAsKubeMetricsAdapterDoes(t *testing.T) {
	for name, c := range map[string]struct {
		hosts  []string
		weight float64
		want   string
	}{
		"one host":           {[]string{"foo.bar.baz"}, 1, `scalar(sum(rate(m{host=~"foo_bar_baz"}[1m])) * 1.0000)`},
		"two hosts":          {[]string{"foo.bar.baz", "foz.bax.bas"}, 0.42, `scalar(sum(rate(m{host=~"foo_bar_baz|foz_bax_bas"}[1m])) * 0.4200)`},
		"a wildcard":         {[]string{"*.example.org"}, 1, `scalar(sum(rate(m{host=~"[a-zA-Z0-9-]+_example_org"}[1m])) * 1.0000)`},
		"a dash stays":       {[]string{"my-app.example.org"}, 1, `scalar(sum(rate(m{host=~"my-app_example_org"}[1m])) * 1.0000)`},
		"a width's rounding": {[]string{"a"}, Segment{0.9, 1}.Width(), `scalar(sum(rate(m{host=~"a"}[1m])) * 0.1000)`},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := RateQuery("m", "host", c.hosts, c.weight)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestHostsThatAreNoneAreErrors(t *testing.T) {
	many := make([]string, maxHosts+1)
	for i := range many {
		many[i] = fmt.Sprintf("h%d", i)
	}
	for name, c := range map[string]struct {
		hosts []string
		want  string
	}{
		"none":                {nil, "there are no hosts"},
		"an empty one":        {[]string{""}, `"" is not a host name`},
		"a way out of PromQL": {[]string{`a"} or vector(1)`}, "is not a host name"},
		"a pattern":           {[]string{"a|.*"}, "is not a host name"},
		"a port":              {[]string{"a:80"}, "is not a host name"},
		"too many":            {many, "there are 501 hosts, more than 500"},
	} {
		if got, err := RateQuery("m", "host", c.hosts, 1); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %q, error %v; want %q", name, got, err, c.want)
		}
	}
}
