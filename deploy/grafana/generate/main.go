// Command generate writes the dashboards of deploy/grafana from the panels in boards.go. `make generate` runs it.
package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

const dir = "deploy/grafana"

func main() {
	for _, b := range boards {
		if err := write(b); err != nil {
			fmt.Fprintln(os.Stderr, "generate: "+err.Error())
			os.Exit(1)
		}
	}
}

func write(b board) error {
	data, err := b.json()
	if err != nil {
		return fmt.Errorf("%s: %w", b.name, err)
	}
	return os.WriteFile(filepath.Join(dir, b.name+".json"), data, 0o644)
}

func (b board) json() ([]byte, error) {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	err := encoder.Encode(b.model())
	return out.Bytes(), err
}

// board is one dashboard. Its name is that of its file, and with a prefix its uid.
type board struct {
	name, title, about string
	// metric is one that each server which has something to show here has: job and instance are chosen from its series.
	metric string
	more   []variable
	panels []panel
}

// variable is what the user can choose besides. In its metric's selector, as in expressions, the variables before it count.
type variable struct {
	name, label, metric, selector string
	// all is what stands for all values; single is a variable that has one.
	all    string
	single bool
}

// panel is one picture. In expressions $servers stands for the choice of job and instance.
type panel struct {
	kind, title, about, unit string
	queries                  []query
	max                      *float64
}

type query struct{ legend, expr string }

// The kinds of panels.
const (
	number = "stat"
	lines  = "timeseries"
	rows   = "table"
	bands  = "state-timeline"
)

const servers = `job=~"$job", instance=~"$instance"`

type object = map[string]any

var datasource = object{"type": "prometheus", "uid": "${datasource}"}

func (b board) model() object {
	links := []object{{"type": "dashboards", "tags": []string{"kubetide"}, "title": "Kubetide", "asDropdown": true, "includeVars": true, "keepTime": true,
		"icon": "external link", "targetBlank": false, "tooltip": "", "url": ""}}
	return object{
		"id": nil, "uid": "kubetide-" + b.name, "title": "Kubetide / " + b.title, "description": b.about, "tags": []string{"kubetide"},
		"editable": false, "graphTooltip": 1, "schemaVersion": 39, "version": 1, "refresh": "30s", "timezone": "",
		"time": object{"from": "now-1h", "to": "now"}, "annotations": object{"list": []object{}}, "links": links,
		"templating": object{"list": b.variables()}, "panels": b.layout(),
	}
}

func (b board) variables() []object {
	out := []object{{"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "regex": "", "refresh": 1, "hide": 0,
		"multi": false, "includeAll": false, "current": object{}, "options": []object{}}}
	all := append([]variable{
		{name: "job", label: "Job", metric: b.metric, all: ".+"},
		{name: "instance", label: "Instance", metric: b.metric, selector: `job=~"$job"`, all: ".+"},
	}, b.more...)
	for _, v := range all {
		of := v.metric
		if v.selector != "" {
			of += "{" + expand(v.selector) + "}"
		}
		text := fmt.Sprintf("label_values(%s, %s)", of, v.name)
		one := object{"name": v.name, "label": v.label, "type": "query", "datasource": datasource, "definition": text,
			"query": object{"query": text, "refId": v.name}, "refresh": 2, "regex": "", "sort": 1, "hide": 0, "multi": !v.single, "includeAll": !v.single,
			"current": object{}, "options": []object{}}
		if !v.single {
			one["allValue"], one["current"] = cmp.Or(v.all, ".*"), object{"text": []string{"All"}, "value": []string{"$__all"}}
		}
		out = append(out, one)
	}
	return out
}

// layout places the panels from left to right: numbers four to a row, all else two.
func (b board) layout() []object {
	var out []object
	x, y, height := 0, 0, 0
	for i, p := range b.panels {
		w, h := 12, 8
		if p.kind == number {
			w, h = 6, 4
		}
		if x+w > 24 || height != 0 && h != height {
			x, y = 0, y+height
		}
		height = h
		one := p.model()
		one["id"], one["gridPos"] = i+1, object{"x": x, "y": y, "w": w, "h": h}
		out = append(out, one)
		x += w
	}
	return out
}

func (p panel) model() object {
	var targets []object
	for i, q := range p.queries {
		one := object{"refId": string(rune('A' + i)), "datasource": datasource, "expr": expand(q.expr), "legendFormat": cmp.Or(q.legend, p.title),
			"instant": p.kind == number || p.kind == rows, "range": p.kind == lines || p.kind == bands}
		if p.kind == rows {
			one["format"] = "table"
		}
		targets = append(targets, one)
	}
	defaults := object{"unit": p.unit, "noValue": "none"}
	if p.max != nil {
		defaults["max"] = *p.max
	}
	out := object{"type": p.kind, "title": p.title, "description": p.about, "datasource": datasource, "targets": targets}
	switch p.kind {
	case number:
		out["options"] = object{"reduceOptions": object{"calcs": []string{"lastNotNull"}, "fields": "", "values": false}, "colorMode": "none", "graphMode": "none",
			"textMode": "auto"}
	case lines:
		defaults["min"] = 0
		defaults["custom"] = object{"lineWidth": 1, "fillOpacity": 5, "showPoints": "never", "spanNulls": false}
		out["options"] = object{"legend": object{"displayMode": "list", "placement": "bottom", "showLegend": true}, "tooltip": object{"mode": "multi", "sort": "desc"}}
	case bands:
		defaults["mappings"] = []object{{"type": "value", "options": object{"0": object{"text": "False", "index": 0}, "1": object{"text": "True", "index": 1}}}}
		out["options"] = object{"showValue": "auto", "mergeValues": true, "legend": object{"displayMode": "list", "placement": "bottom", "showLegend": true}}
	case rows:
		out["options"] = object{"showHeader": true}
		out["transformations"] = []object{{"id": "organize", "options": object{"excludeByName": object{"Time": true}}}}
	}
	out["fieldConfig"] = object{"defaults": defaults, "overrides": []object{}}
	return out
}

func expand(expr string) string {
	return strings.ReplaceAll(strings.Join(strings.Fields(expr), " "), "$servers", servers)
}
