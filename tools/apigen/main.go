// Command apigen writes what is generated from the Go types in api/: their deep copies beside them, and the CRDs in
// deploy/crds, one file each. It differs from controller-gen in one point: descriptions of Kubernetes' own types
// (metrics, pod templates) are dropped, since they make the CRDs too large for `kubectl apply`; ours are kept in full.
//
// Run it with `go generate ./api/...`. It works in the parent of its working directory.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-tools/pkg/crd"
	"sigs.k8s.io/controller-tools/pkg/deepcopy"
	"sigs.k8s.io/controller-tools/pkg/genall"
	"sigs.k8s.io/controller-tools/pkg/loader"
	"sigs.k8s.io/controller-tools/pkg/markers"
)

const crdDir = "deploy/crds"

func main() {
	if err := run(); err != nil {
		fmt.Fprintf(os.Stderr, "apigen: %v\n", err)
		os.Exit(1)
	}
}

func run() error {
	if err := os.Chdir(".."); err != nil {
		return err
	}
	if err := os.MkdirAll(crdDir, 0o755); err != nil {
		return err
	}
	var copies, crds genall.Generator = deepcopy.Generator{}, crdGenerator{}
	rt, err := genall.Generators{&copies, &crds}.ForRoots("./api/...")
	if err != nil {
		return fmt.Errorf("load ./api/...: %w", err)
	}
	rt.OutputRules.Default = genall.OutputArtifacts{Config: crdDir}
	if rt.Run() {
		return fmt.Errorf("not all of ./api/... could be generated")
	}
	return nil
}

// crdGenerator is controller-gen's own, which keeps or cuts all descriptions alike, with a step in between.
type crdGenerator struct{}

func (crdGenerator) CheckFilter() loader.NodeFilter { return crd.Generator{}.CheckFilter() }

func (crdGenerator) RegisterMarkers(into *markers.Registry) error {
	return crd.Generator{}.RegisterMarkers(into)
}

func (crdGenerator) Generate(ctx *genall.GenerationContext) error {
	// Dangerous types are floats: the weights of StackSets are JSON numbers.
	p := &crd.Parser{Collector: ctx.Collector, Checker: ctx.Checker, GenerateEmbeddedObjectMeta: true, AllowDangerousTypes: true}
	crd.AddKnownTypes(p)
	for _, root := range ctx.Roots {
		p.NeedPackage(root)
	}
	kinds := crd.FindKubeKinds(p, crd.FindMetav1(ctx.Roots))
	// Kinds without the resource marker are others' CRDs.
	kinds = slices.DeleteFunc(kinds, func(k schema.GroupKind) bool {
		for typ, info := range p.Types {
			if typ.Name == k.Kind && info.Markers.Get("kubebuilder:resource") != nil {
				return false
			}
		}
		return true
	})
	for typ := range p.Types {
		if slices.ContainsFunc(kinds, func(k schema.GroupKind) bool { return k.Kind == typ.Name }) {
			p.NeedSchemaFor(typ)
		}
	}
	// All schemata are there now and none is yet flattened into another: what is dropped here is dropped wherever it
	// is embedded, and the description of the field that embeds it stays.
	for typ, s := range p.Schemata {
		if embedded(typ) {
			crd.EditSchema(&s, stripped{})
			bound(typ.Name, &s)
		} else {
			crd.EditSchema(&s, unwrapped{})
		}
		p.Schemata[typ] = s
	}
	for _, kind := range kinds {
		p.NeedCRDFor(kind, nil)
		out := p.CustomResourceDefinitions[kind]
		crd.FixTopLevelMetadata(out)
		file := fmt.Sprintf("%s_%s.yaml", out.Spec.Group, out.Spec.Names.Plural)
		if err := write(ctx, file, out); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	return nil
}

func write(ctx *genall.GenerationContext, file string, out any) error {
	asJSON, err := json.Marshal(out)
	if err != nil {
		return err
	}
	var obj map[string]any // sorts the keys
	if err := json.Unmarshal(asJSON, &obj); err != nil {
		return err
	}
	delete(obj, "status")
	delete(obj["metadata"].(map[string]any), "creationTimestamp")
	if asJSON, err = json.Marshal(obj); err != nil {
		return err
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(asJSON, &doc); err != nil {
		return err
	}
	layOut(&doc, 0)
	w, err := ctx.Open(nil, file)
	if err != nil {
		return err
	}
	defer w.Close()
	if _, err := fmt.Fprintln(w, "# Generated from api/ by `make generate`: change it there."); err != nil {
		return err
	}
	enc := yaml.NewEncoder(w)
	enc.SetIndent(2)
	enc.CompactSeqIndent()
	if err := enc.Encode(&doc); err != nil {
		return err
	}
	return enc.Close()
}

// layOut puts small mappings and lists on one line, and larger ones where they stand deep. Most of a pod template's
// schema are leaves such as {type: string} thirty levels deep, where indentation would be most of the file.
func layOut(n *yaml.Node, depth int) (size int) {
	size = len(n.Value) + 2
	for _, child := range n.Content {
		size += layOut(child, depth+1)
	}
	line := 80
	if depth > 30 {
		line = 400
	}
	n.Style = 0
	if n.Kind != yaml.DocumentNode && n.Kind != yaml.ScalarNode && size <= line {
		n.Style = yaml.FlowStyle
	}
	return size
}

// embedded reports whether a type is Kubernetes' own and large. Those that readers of `kubectl explain` meet at every
// object keep their few lines.
func embedded(typ crd.TypeIdent) bool {
	path := loader.NonVendorPath(typ.Package.PkgPath)
	return strings.HasPrefix(path, "k8s.io/") && typ.Name != "CrossVersionObjectReference" && typ.Name != "Condition"
}

// bound refuses texts that the API server would store and no client in Go could read: one of them in one object makes
// every list of its kind fail.
func bound(name string, s *apiextensionsv1.JSONSchemaProps) {
	const second = `^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}`
	const zone = `(Z|[+-]\d{2}:\d{2})$`
	switch name {
	case "Time":
		s.Pattern = second + `(\.\d+)?` + zone
	case "MicroTime":
		s.Pattern = second + `\.\d{6}` + zone
	case "Duration", "Quantity":
		// Rules that parse them need a bound for their estimated cost.
		s.MaxLength = new(int64(64))
	}
}

// stripped drops what makes the CRDs too large, and rules, which may compare with an old value and so are not allowed
// below a list. The server checks pod templates itself when one is used.
type stripped struct{}

func (v stripped) Visit(s *apiextensionsv1.JSONSchemaProps) crd.SchemaVisitor {
	if s != nil {
		s.Description = ""
		s.XValidations = nil
	}
	return v
}

// unwrapped joins the lines of a paragraph: kubectl wraps them itself.
type unwrapped struct{}

func (v unwrapped) Visit(s *apiextensionsv1.JSONSchemaProps) crd.SchemaVisitor {
	if s != nil {
		paragraphs := strings.Split(s.Description, "\n\n")
		for i, p := range paragraphs {
			paragraphs[i] = strings.ReplaceAll(p, "\n", " ")
		}
		s.Description = strings.Join(paragraphs, "\n\n")
	}
	return v
}
