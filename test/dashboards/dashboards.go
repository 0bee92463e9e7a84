// Package dashboards reads the dashboards of deploy/grafana and the alerts of deploy/prometheus, and says what they ask a
// Prometheus for. Its tests hold them to what is usual; test/e2e asks a real Prometheus.
package dashboards

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/prometheus/prometheus/promql/parser"
	"sigs.k8s.io/yaml"
)

// Dashboard is what Grafana reads, as far as it matters here.
type Dashboard struct {
	ID                      *int
	UID, Title, Description string
	Tags                    []string
	Editable                bool
	Refresh                 string
	Templating              struct{ List []Variable }
	Panels                  []Panel
}

// Variable is one that the user chooses a value of.
type Variable struct {
	Name, Label, Type    string
	Datasource           Datasource
	Definition, AllValue string
	Multi, IncludeAll    bool
	Refresh              int
}

// Datasource is where something is asked.
type Datasource struct{ Type, UID string }

// Panel is one picture.
type Panel struct {
	ID                       int
	Type, Title, Description string
	Datasource               Datasource
	GridPos                  struct{ X, Y, W, H int }
	FieldConfig              struct{ Defaults struct{ Unit string } }
	Targets                  []Target
}

// Target is one question of a panel.
type Target struct {
	Expr, RefID, LegendFormat string
	Datasource                Datasource
}

// Rule is an alert.
type Rule struct {
	Alert, Expr, For    string
	Labels, Annotations map[string]string
}

// Dashboards reads those of the repository at root.
func Dashboards(root string) ([]Dashboard, error) {
	files, err := filepath.Glob(filepath.Join(root, "deploy", "grafana", "*.json"))
	if err != nil {
		return nil, err
	}
	var out []Dashboard
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		var d Dashboard
		if err := json.Unmarshal(data, &d); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		out = append(out, d)
	}
	return out, nil
}

// Rules reads those of the repository at root.
func Rules(root string) ([]Rule, error) {
	file := RulesFile(root)
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var all struct {
		Groups []struct {
			Name  string
			Rules []Rule
		}
	}
	if err := yaml.UnmarshalStrict(data, &all); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	var out []Rule
	for _, group := range all.Groups {
		out = append(out, group.Rules...)
	}
	return out, nil
}

// RulesFile is where the rules are.
func RulesFile(root string) string { return filepath.Join(root, "deploy", "prometheus", "rules.yaml") }

var labelValues = regexp.MustCompile(`^label_values\((.+), (\w+)\)$`)

// Expression is PromQL that gives the values of a variable that Prometheus is asked for.
func (v Variable) Expression() (string, error) {
	parts := labelValues.FindStringSubmatch(v.Definition)
	if parts == nil {
		return "", fmt.Errorf("variable %s is no label_values(METRIC, LABEL): %s", v.Name, v.Definition)
	}
	return fmt.Sprintf("group by (%s) (%s)", parts[2], parts[1]), nil
}

// Fill puts values in the place of the variables, as Grafana does.
func Fill(expression string, values map[string]string) string {
	return variable.ReplaceAllStringFunc(expression, func(name string) string {
		if value, ok := values[strings.TrimPrefix(name, "$")]; ok {
			return value
		}
		return name
	})
}

var variable = regexp.MustCompile(`\$\w+`)

// Signals are what an alert's expression compares with a threshold or with each other: they give data while nothing is wrong.
func Signals(expression string) ([]string, error) {
	parsed, err := parser.ParseExpr(expression)
	if err != nil {
		return nil, err
	}
	return signals(parsed), nil
}

func signals(e parser.Expr) []string {
	switch e := e.(type) {
	case *parser.ParenExpr:
		return signals(e.Expr)
	case *parser.Call:
		if e.Func.Name == "absent" {
			return signals(e.Args[0])
		}
	case *parser.BinaryExpr:
		if _, threshold := e.RHS.(*parser.NumberLiteral); e.Op.IsComparisonOperator() && threshold {
			return signals(e.LHS)
		}
		if e.Op.IsComparisonOperator() || e.Op == parser.LAND {
			return append(signals(e.LHS), signals(e.RHS)...)
		}
	}
	return []string{e.String()}
}
