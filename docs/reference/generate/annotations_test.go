package main

import (
	"go/ast"
	"go/constant"
	"go/types"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kubetide/kubetide/collectors"
	"github.com/kubetide/kubetide/collectors/cron"
	"github.com/kubetide/kubetide/collectors/externalrps"
	"github.com/kubetide/kubetide/collectors/httpjson"
	"github.com/kubetide/kubetide/collectors/influxdb"
	"github.com/kubetide/kubetide/collectors/nakadi"
	"github.com/kubetide/kubetide/collectors/podjson"
	"github.com/kubetide/kubetide/collectors/prometheus"
	"github.com/kubetide/kubetide/collectors/schedule"
	"github.com/kubetide/kubetide/collectors/skipper"
	"github.com/kubetide/kubetide/collectors/sqs"
	"github.com/kubetide/kubetide/collectors/static"
	"github.com/kubetide/kubetide/collectors/zmon"
	"github.com/kubetide/kubetide/internal/sample"
)

func TestTheSettingsOfCollectorsAreThoseInTheCode(t *testing.T) {
	all := map[string]collectors.Source{
		"podjson": &podjson.Source{}, "httpjson": &httpjson.Source{}, "prometheus": &prometheus.Source{}, "influxdb": &influxdb.Source{},
		"sqs": &sqs.Source{}, "skipper": &skipper.Source{}, "externalrps": &externalrps.Source{}, "schedule": schedule.Source{},
		"static": static.Source{}, "cron": cron.Source{}, "zmon": &zmon.Source{}, "nakadi": &nakadi.Source{},
	}
	directories, err := os.ReadDir(filepath.Join(root, "collectors"))
	if err != nil {
		t.Fatal(err)
	}
	var there []string
	for _, d := range directories {
		if d.IsDir() && d.Name() != "resource" { // no annotation asks for it
			there = append(there, d.Name())
		}
	}
	var listed []string
	for _, c := range allCollectors {
		listed = append(listed, c.name)
		if _, err := os.Stat(filepath.Join(root, "docs/collectors", c.page)); err != nil {
			t.Error(err)
		}
		source := all[c.name]
		if source == nil {
			t.Errorf("the test does not know the collector %s", c.name)
			continue
		}
		annotated := map[string]bool{}
		if s, ok := source.(collectors.AnnotationKeys); ok {
			for _, key := range s.AnnotationKeys() {
				annotated[key] = true
			}
		}
		want, got := map[string]bool{}, map[string]bool{}
		for _, key := range source.Keys() {
			want[key] = !annotated[key] && !slices.Contains(c.types, string(sample.Pods))
		}
		for _, s := range c.keys {
			got[s.key] = s.labelled
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: keys, and whether labels set them (-code +listed):\n%s", c.name, diff)
		}
	}
	slices.Sort(listed)
	if diff := cmp.Diff(there, listed); diff != "" {
		t.Errorf("collectors (-packages +listed):\n%s", diff)
	}
}

// registrations finds the calls of Registry.Register: the names of each package's source, by the type of metrics.
func registrations(s *sources) map[string]map[string][]string {
	out := map[string]map[string][]string{}
	for _, c := range s.packages {
		for _, file := range c.syntax {
			ast.Inspect(file, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				if f, ok := c.callee(call).(*types.Func); !ok || f.FullName() != "(*"+module+"collectors.Registry).Register" {
					return true
				}
				t := c.info.TypeOf(call.Args[1])
				if p, ok := t.(*types.Pointer); ok {
					t = p.Elem()
				}
				of := filepath.Base(t.(*types.Named).Obj().Pkg().Path())
				kind, _ := c.text(call.Args[0])
				if out[of] == nil {
					out[of] = map[string][]string{}
				}
				for _, e := range call.Args[2:] {
					name, _ := c.text(e)
					out[of][kind] = append(out[of][kind], name)
				}
				return true
			})
		}
	}
	return out
}

func TestCollectorsHaveTheNamesThatTheyAreRegisteredBy(t *testing.T) {
	found := registrations(theSources(t))
	delete(found, "resource")
	listed := map[string]map[string][]string{}
	for _, c := range allCollectors {
		listed[c.name] = map[string][]string{}
		for _, kind := range c.types {
			listed[c.name][kind] = c.names
			if kind == string(sample.Object) {
				listed[c.name][kind] = c.names[:1] // older names are of External metrics
			}
		}
	}
	if diff := cmp.Diff(found, listed); diff != "" {
		t.Errorf("names by package and type of metrics (-registered +listed):\n%s", diff)
	}
}

// qualified is what keys look like, and prefixes of keys.
var qualified = regexp.MustCompile(`^([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+[a-z]+/([A-Za-z0-9][A-Za-z0-9._-]*)?$`)

// version ends what is the version of an API.
var version = regexp.MustCompile(`/v[0-9]+((alpha|beta)[0-9]+)?$`)

// others look like keys, and are none.
var others = map[string]string{
	"kapacitystack.io/finalizer": "a finalizer",
	"kapacitystack.io/online":    "a readiness gate",
}

// unqualified are constants that are called a label, and are none of Kubernetes.
var unqualified = []string{"internal/traffic.SkipperHostLabel", "adapter/cluster/membership.refusedLabel"}

func TestEachKeyInTheCodeIsListedAndEachListedOneIsInTheCode(t *testing.T) {
	listed := map[string]bool{}
	for _, g := range keyGroups {
		for _, k := range g.keys {
			if listed[k.name] {
				t.Errorf("%s is listed twice", k.name)
			}
			listed[k.name] = true
			if k.on == "" || k.who == "" || k.value+k.means == "" {
				t.Errorf("%s is not explained", k.name)
			}
		}
	}
	found := map[string]string{}
	for _, c := range theSources(t).packages {
		for e := range c.info.Types {
			if value, ok := c.text(e); ok && qualified.MatchString(value) && !version.MatchString(value) && others[value] == "" {
				found[value] = c.path
			}
		}
		for _, name := range c.types.Scope().Names() {
			o, ok := c.types.Scope().Lookup(name).(*types.Const)
			if !ok || o.Val().Kind() != constant.String || !strings.HasSuffix(name, "Label") && !strings.HasSuffix(name, "Annotation") {
				continue
			}
			if !slices.Contains(unqualified, c.path+"."+name) {
				found[constant.StringVal(o.Val())] = c.path
			}
		}
	}
	for key, path := range found {
		if !listed[key] {
			t.Errorf("package %s has the key %s, which is not listed", path, key)
		}
	}
	for key := range listed {
		if found[key] == "" {
			t.Errorf("the key %s is listed, and is nowhere in the code", key)
		}
	}
}

func TestTheCommonSettingsAreThoseInTheCode(t *testing.T) {
	var listed, there []string
	for _, s := range commonSettings {
		listed = append(listed, s.key)
	}
	for _, c := range theSources(t).packages {
		if c.path != "adapter/annotations" {
			continue
		}
		for _, name := range c.types.Scope().Names() {
			if o, ok := c.types.Scope().Lookup(name).(*types.Const); ok && strings.HasPrefix(name, "key") {
				there = append(there, constant.StringVal(o.Val()))
			}
		}
	}
	slices.Sort(listed)
	slices.Sort(there)
	if diff := cmp.Diff(there, listed); diff != "" {
		t.Errorf("settings of all collectors (-code +listed):\n%s", diff)
	}
}
