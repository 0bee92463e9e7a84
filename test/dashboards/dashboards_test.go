package dashboards

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"sigs.k8s.io/yaml"
)

const root = "../.."

// chosen are values of variables with which expressions can be parsed.
var chosen = map[string]string{"job": "kubetide", "instance": ".+", "namespace": ".*", "collector": ".*", "ihpa": "cart", "application": ".*",
	"__rate_interval": "2m"}

func dashboards(t *testing.T) map[string]Dashboard {
	t.Helper()
	all, err := Dashboards(root)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]Dashboard{}
	for _, d := range all {
		out[d.UID] = d
	}
	if len(out) != 5 || len(all) != 5 {
		t.Errorf("%d dashboards with %d uids, want 5", len(all), len(out))
	}
	return out
}

func rules(t *testing.T) []Rule {
	t.Helper()
	all, err := Rules(root)
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 7 {
		t.Errorf("only %d rules", len(all))
	}
	return all
}

func TestDashboardsKeepTheUsualRules(t *testing.T) {
	for uid, d := range dashboards(t) {
		for _, fault := range faults(d) {
			t.Errorf("%s: %s", uid, fault)
		}
	}
}

// faults are what is not as Grafana's dashboard-linter wants it, and what would not work in another's Grafana.
func faults(d Dashboard) (out []string) {
	wrong := func(is bool, format string, args ...any) {
		if is {
			out = append(out, fmt.Sprintf(format, args...))
		}
	}
	wrong(d.ID != nil, "it has an id of one Grafana")
	wrong(!regexp.MustCompile(`^kubetide-[a-z]{1,30}$`).MatchString(d.UID), "the uid %q", d.UID)
	wrong(d.Title == "" || d.Description == "", "title or description is missing")
	wrong(d.Editable, "it is editable")
	wrong(d.Refresh == "", "it does not refresh")
	wrong(!slices.Contains(d.Tags, "kubetide"), "it lacks the tag kubetide")

	variables := map[string]Variable{}
	for _, v := range d.Templating.List {
		variables[v.Name] = v
		if v.Name == "datasource" {
			wrong(v.Type != "datasource", "the variable datasource is of type %s", v.Type)
			continue
		}
		wrong(v.Type != "query" || v.Label == "", "variable %s: type %q, label %q", v.Name, v.Type, v.Label)
		wrong(v.Datasource.UID != "${datasource}", "variable %s has the data source %s", v.Name, v.Datasource.UID)
		wrong(v.Refresh != 2, "variable %s does not change with the time that is shown", v.Name)
		wrong(v.IncludeAll && v.AllValue == "", "variable %s has no value for all", v.Name)
		expression, err := v.Expression()
		wrong(err != nil, "%v", err)
		if err == nil {
			_, err = parser.ParseExpr(Fill(expression, chosen))
			wrong(err != nil, "variable %s: %v", v.Name, err)
		}
	}
	for _, name := range []string{"datasource", "job", "instance"} {
		_, there := variables[name]
		wrong(!there, "there is no variable %s", name)
	}
	for _, name := range []string{"job", "instance"} {
		v := variables[name]
		wrong(!v.Multi || !v.IncludeAll || v.AllValue != ".+", "variable %s does not have several values, or not .+ for all", name)
	}

	ids, titles := map[int]bool{}, map[string]bool{}
	for i, p := range d.Panels {
		name := fmt.Sprintf("panel %q", p.Title)
		wrong(p.ID == 0 || ids[p.ID], "%s has the id %d, another's or none", name, p.ID)
		wrong(p.Title == "" || titles[p.Title], "%s has the title of another, or none", name)
		ids[p.ID], titles[p.Title] = true, true
		wrong(p.Description == "", "%s has no description", name)
		wrong(p.FieldConfig.Defaults.Unit == "", "%s has no unit", name)
		wrong(p.Datasource.UID != "${datasource}", "%s has the data source %s", name, p.Datasource.UID)
		wrong(len(p.Targets) == 0, "%s asks for nothing", name)
		g := p.GridPos
		wrong(g.W < 1 || g.H < 1 || g.X < 0 || g.X+g.W > 24, "%s stands outside", name)
		for _, q := range d.Panels[:i] {
			o := q.GridPos
			wrong(g.X < o.X+o.W && o.X < g.X+g.W && g.Y < o.Y+o.H && o.Y < g.Y+g.H, "%s covers %q", name, q.Title)
		}
		for _, t := range p.Targets {
			wrong(t.Datasource.UID != "${datasource}", "%s has a target with the data source %s", name, t.Datasource.UID)
			for _, fault := range faultsOf(t.Expr, variables) {
				out = append(out, name+": "+fault)
			}
		}
	}
	return out
}

var counter = regexp.MustCompile(`_(total|bucket|sum|count)$`)

func faultsOf(text string, variables map[string]Variable) (out []string) {
	for _, name := range variable.FindAllString(text, -1) {
		if _, there := variables[name[1:]]; !there && name != "$__rate_interval" {
			out = append(out, "no variable "+name)
		}
	}
	if regexp.MustCompile(`\b(rate|irate)\(\S+\[[^$]`).MatchString(strings.ReplaceAll(text, ", ", ",")) {
		out = append(out, "a rate over another time than $__rate_interval: "+text)
	}
	expr, err := parser.ParseExpr(Fill(text, chosen))
	if err != nil {
		return append(out, err.Error())
	}
	parser.Inspect(expr, func(node parser.Node, path []parser.Node) error {
		selector, ok := node.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		for _, name := range []string{"job", "instance"} {
			if !slices.ContainsFunc(selector.LabelMatchers, func(m *labels.Matcher) bool { return m.Name == name && m.Type == labels.MatchRegexp }) ||
				!strings.Contains(text, name+`=~"$`+name+`"`) {
				out = append(out, fmt.Sprintf("%s is not asked for by %s", selector.Name, name))
			}
		}
		rated := slices.ContainsFunc(path, func(n parser.Node) bool {
			call, ok := n.(*parser.Call)
			return ok && slices.Contains([]string{"rate", "irate", "increase"}, call.Func.Name)
		})
		if counter.MatchString(selector.Name) != rated {
			out = append(out, fmt.Sprintf("%s is a counter without a rate, or has one and is none", selector.Name))
		}
		return nil
	})
	return out
}

// Every fault is found: a dashboard that has none gets one.
func TestTheFaultsOfADashboardAreFound(t *testing.T) {
	for want, spoil := range map[string]func(d *Dashboard){
		"it has an id of one Grafana":               func(d *Dashboard) { d.ID = new(7) },
		`the uid "CamelCase"`:                       func(d *Dashboard) { d.UID = "CamelCase" },
		"it is editable":                            func(d *Dashboard) { d.Editable = true },
		"it does not refresh":                       func(d *Dashboard) { d.Refresh = "" },
		"there is no variable instance":             func(d *Dashboard) { d.Templating.List = d.Templating.List[:2] },
		"variable job does not have several values": func(d *Dashboard) { d.Templating.List[1].Multi = false },
		"variable job has the data source P1":       func(d *Dashboard) { d.Templating.List[1].Datasource.UID = "P1" },
		"does not change with the time":             func(d *Dashboard) { d.Templating.List[2].Refresh = 1 },
		"is no label_values":                        func(d *Dashboard) { d.Templating.List[1].Definition = "up" },
		"has no description":                        func(d *Dashboard) { d.Panels[0].Description = "" },
		"has no unit":                               func(d *Dashboard) { d.Panels[0].FieldConfig.Defaults.Unit = "" },
		"asks for nothing":                          func(d *Dashboard) { d.Panels[0].Targets = nil },
		"has the data source P2":                    func(d *Dashboard) { d.Panels[0].Datasource.UID = "P2" },
		"a target with the data source P3":          func(d *Dashboard) { d.Panels[0].Targets[0].Datasource.UID = "P3" },
		"stands outside":                            func(d *Dashboard) { d.Panels[0].GridPos.X = 23 },
		"covers":                                    func(d *Dashboard) { d.Panels[1].GridPos = d.Panels[0].GridPos },
		"another's or none":                         func(d *Dashboard) { d.Panels[1].ID = d.Panels[0].ID },
		"title of another":                          func(d *Dashboard) { d.Panels[1].Title = d.Panels[0].Title },
		"unclosed left parenthesis":                 func(d *Dashboard) { d.Panels[0].Targets[0].Expr = "max(" },
		"up is not asked for by instance":           func(d *Dashboard) { d.Panels[0].Targets[0].Expr = `up{job=~"$job", instance=~".+"}` },
		"no variable $pod":                          func(d *Dashboard) { d.Panels[0].Targets[0].Expr = `up{job=~"$job", instance=~"$instance", pod="$pod"}` },
		"a rate over another time": func(d *Dashboard) {
			d.Panels[0].Targets[0].Expr = `rate(a_total{job=~"$job", instance=~"$instance"}[5m])`
		},
		"a_total is a counter without a rate": func(d *Dashboard) { d.Panels[0].Targets[0].Expr = `a_total{job=~"$job", instance=~"$instance"}` },
	} {
		t.Run(want, func(t *testing.T) {
			d := dashboards(t)["kubetide-cluster"]
			spoil(&d)
			if found := faults(d); !slices.ContainsFunc(found, func(f string) bool { return strings.Contains(f, want) }) {
				t.Errorf("found %q", found)
			}
		})
	}
}

var documented = regexp.MustCompile("(?m)^\\| `((?:kubetide|stackset)_\\w+)`")

// A panel or an alert on a metric that has another name shows nothing, for ever. Those of libraries are asked for in test/e2e.
func TestOwnMetricsAreThoseOfTheDocumentation(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(root, "docs", "metrics.md"))
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, m := range documented.FindAllStringSubmatch(string(page), -1) {
		known[m[1]] = true
	}
	asked := map[string]string{}
	for uid, d := range dashboards(t) {
		for _, p := range d.Panels {
			for _, q := range p.Targets {
				asked[q.Expr] = uid
			}
		}
		for _, v := range d.Templating.List {
			if v.Type == "query" {
				expression, err := v.Expression()
				if err != nil {
					t.Fatal(err)
				}
				asked[expression] = uid
			}
		}
	}
	for _, r := range rules(t) {
		asked[r.Expr] = r.Alert
	}
	used := 0
	for text, by := range asked {
		expr, err := parser.ParseExpr(Fill(text, chosen))
		if err != nil {
			t.Errorf("%s: %v", by, err)
			continue
		}
		parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
			s, ok := node.(*parser.VectorSelector)
			if !ok || !strings.HasPrefix(s.Name, "kubetide_") && !strings.HasPrefix(s.Name, "stackset_") {
				return nil
			}
			used++
			base := regexp.MustCompile(`_(bucket|count|sum)$`).ReplaceAllString(s.Name, "")
			if !known[s.Name] && !known[base] {
				t.Errorf("%s: docs/metrics.md does not know %s", by, s.Name)
			}
			return nil
		})
	}
	if used < 50 {
		t.Errorf("only %d selectors of own metrics were looked at", used)
	}
}

var usedLabel = regexp.MustCompile(`\$labels\.(\w+)`)

func TestAlertsSayWhatIsWrongAndWhatToDo(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(root, "docs", "alerts.md"))
	if err != nil {
		t.Fatal(err)
	}
	var sections, alerts []string
	for _, m := range regexp.MustCompile(`(?m)^## (\w+)$`).FindAllStringSubmatch(string(page), -1) {
		sections = append(sections, m[1])
	}
	for _, r := range rules(t) {
		alerts = append(alerts, r.Alert)
		if duration, err := model.ParseDuration(r.For); err != nil || time.Duration(duration) < time.Minute {
			t.Errorf("%s: for %q: %v", r.Alert, r.For, err)
		}
		if !slices.Contains([]string{"warning", "critical"}, r.Labels["severity"]) {
			t.Errorf("%s: severity %q", r.Alert, r.Labels["severity"])
		}
		if r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
			t.Errorf("%s: annotations %v", r.Alert, r.Annotations)
		}
		if got := r.Annotations["runbook_url"]; !strings.HasSuffix(got, "/docs/alerts.md#"+strings.ToLower(r.Alert)) {
			t.Errorf("%s: runbook_url %s", r.Alert, got)
		}
		expr, err := parser.ParseExpr(r.Expr)
		if err != nil {
			t.Errorf("%s: %v", r.Alert, err)
			continue
		}
		for _, m := range usedLabel.FindAllStringSubmatch(fmt.Sprint(r.Annotations), -1) {
			parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
				if a, ok := node.(*parser.AggregateExpr); ok && !slices.Contains(a.Grouping, m[1]) {
					t.Errorf("%s: its texts name the label %s, which %s drops", r.Alert, m[1], a)
				}
				return nil
			})
		}
	}
	if diff := cmp.Diff(alerts, sections); diff != "" {
		t.Errorf("sections of docs/alerts.md (-alerts +sections):\n%s", diff)
	}
}

// Each alert is seen to be silent and to fire; that promtool agrees is seen in test/e2e.
func TestEachAlertHasAUnitTest(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(root, "deploy", "prometheus", "rules_test.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var all struct {
		Tests []struct {
			AlertRuleTest []struct {
				Alertname string
				ExpAlerts []any `json:"exp_alerts"`
			} `json:"alert_rule_test"`
		}
	}
	if err := yaml.Unmarshal(data, &all); err != nil {
		t.Fatal(err)
	}
	fires, silent, want := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, one := range all.Tests {
		for _, at := range one.AlertRuleTest {
			if len(at.ExpAlerts) > 0 {
				fires[at.Alertname] = true
			} else {
				silent[at.Alertname] = true
			}
		}
	}
	for _, r := range rules(t) {
		want[r.Alert] = true
	}
	if !maps.Equal(fires, want) || !maps.Equal(silent, want) {
		t.Errorf("tests in which alerts fire: %v, in which they do not: %v, want both for %v", fires, silent, want)
	}
}

func TestSignalsAreWhatAnAlertCompares(t *testing.T) {
	for expression, want := range map[string][]string{
		`a > 1`:                                     {"a"},
		`max by (x) (a) > max by (x) (b)`:           {"max by (x) (a)", "max by (x) (b)"},
		`(a >= 1) and (b - c >= 2)`:                 {"a", "b - c"},
		`absent(a{x="y"})`:                          {`a{x="y"}`},
		`(sum(a) or 0 * sum(b)) / c > 0.5`:          {"(sum(a) or 0 * sum(b)) / c"},
		`histogram_quantile(0.99, rate(a[5m])) > 1`: {"histogram_quantile(0.99, rate(a[5m]))"},
	} {
		got, err := Signals(expression)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", expression, diff)
		}
	}
}
