// Package crd_test checks the CRDs in deploy/crds as the API server does, without one: it takes them through the
// server's own validation (with the cost limits of rules), and objects through its pruning, defaulting and rules. It
// reads files of this repository and nothing else.
package crd_test

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	crdvalidation "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apiextensions-apiserver/pkg/registry/customresource"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/util/validation/field"
	genericapirequest "k8s.io/apiserver/pkg/endpoints/request"
	"sigs.k8s.io/yaml"

	kaiv1alpha1 "github.com/kubetide/kubetide/api/kai/v1alpha1"
	kapacityv1alpha1 "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	zalandov1 "github.com/kubetide/kubetide/api/zalando/v1"
)

// maxSize is what an annotation may hold, and so what client-side `kubectl apply` can carry.
const maxSize = 262144

// server is what the API server makes of one CRD.
type server struct {
	file       string
	size       int
	crd        *apiextensions.CustomResourceDefinition
	structural *structuralschema.Structural
	validate   func(context.Context, runtime.Object) field.ErrorList
	revalidate func(ctx context.Context, obj, old runtime.Object) field.ErrorList
}

// servers reads the CRDs once, by kind. It must run inside a test: only then does `go test` know that the result depends on
// the files.
var servers = sync.OnceValue(func() map[string]*server {
	out := map[string]*server{}
	if err := load(out); err != nil {
		panic(err)
	}
	return out
})

func load(servers map[string]*server) error {
	files, err := filepath.Glob("../../deploy/crds/*.yaml")
	if err != nil {
		return err
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		var external apiextensionsv1.CustomResourceDefinition
		if err := yaml.UnmarshalStrict(text, &external); err != nil {
			return err
		}
		apiextensionsv1.SetDefaults_CustomResourceDefinitionSpec(&external.Spec)
		s := &server{file: filepath.Base(file), size: len(text), crd: &apiextensions.CustomResourceDefinition{}}
		if err := apiextensionsv1.Convert_v1_CustomResourceDefinition_To_apiextensions_CustomResourceDefinition(&external, s.crd, nil); err != nil {
			return err
		}
		s.crd.Status.StoredVersions = []string{external.Spec.Versions[0].Name}
		props := s.crd.Spec.Validation.OpenAPIV3Schema
		if s.structural, err = structuralschema.NewStructural(props); err != nil {
			return err
		}
		whole, _, err := validation.NewSchemaValidator(props)
		if err != nil {
			return err
		}
		status := props.Properties["status"]
		ofStatus, _, err := validation.NewSchemaValidator(&status)
		if err != nil {
			return err
		}
		gvk := schema.GroupVersionKind{Group: s.crd.Spec.Group, Version: external.Spec.Versions[0].Name, Kind: s.crd.Spec.Names.Kind}
		namespaced := s.crd.Spec.Scope == apiextensions.NamespaceScoped
		strategy := customresource.NewStrategy(nil, namespaced, gvk, whole, ofStatus, s.structural,
			&apiextensions.CustomResourceSubresourceStatus{}, nil, nil)
		s.validate, s.revalidate = strategy.Validate, strategy.ValidateUpdate
		servers[gvk.Kind] = s
	}
	return nil
}

// create does what the API server does with a manifest up to the point where it would be stored. Unlike the server it
// keeps the status, so that one table can hold both, and refuses unknown fields.
func create(t *testing.T, manifest string) (*unstructured.Unstructured, field.ErrorList) {
	t.Helper()
	var content map[string]any
	asJSON, err := yaml.YAMLToJSON([]byte(manifest))
	if err != nil {
		t.Fatalf("the manifest is not YAML: %v\n%s", err, manifest)
	}
	if err := utiljson.Unmarshal(asJSON, &content); err != nil { // integers stay integers
		t.Fatal(err)
	}
	obj := &unstructured.Unstructured{Object: content}
	s := servers()[obj.GetKind()]
	if s == nil {
		t.Fatalf("no CRD for kind %q", obj.GetKind())
	}
	unknown := pruning.PruneWithOptions(obj.Object, s.structural, true, structuralschema.UnknownFieldPathOptions{TrackUnknownFieldPaths: true})
	if len(unknown) > 0 {
		t.Fatalf("fields that the schema lacks: %v", unknown)
	}
	ctx := context.Background()
	if s.crd.Spec.Scope == apiextensions.NamespaceScoped {
		obj.SetNamespace("shop")
		ctx = genericapirequest.WithNamespace(ctx, "shop")
	}
	defaulting.PruneNonNullableNullsWithoutDefaults(obj.Object, s.structural)
	defaulting.Default(obj.Object, s.structural)
	obj.SetGeneration(1)
	return obj, s.validate(ctx, obj)
}

// update does what the API server does when a stored object is replaced.
func update(old, obj *unstructured.Unstructured) field.ErrorList {
	old.SetResourceVersion("1")
	obj.SetResourceVersion("1")
	ctx := genericapirequest.WithNamespace(context.Background(), obj.GetNamespace())
	return servers()[obj.GetKind()].revalidate(ctx, obj, old)
}

func TestTheAPIServerAcceptsEachCRDWithTheCostOfItsRules(t *testing.T) {
	want := map[string][]string{
		"IntelligentHorizontalPodAutoscaler": {"intelligenthorizontalpodautoscalers", "Namespaced", "", "ihpa"},
		"HorizontalPortrait":                 {"horizontalportraits", "Namespaced", "", "hp"},
		"ReplicaProfile":                     {"replicaprofiles", "Namespaced", "", "rp"},
		"ScalingSchedule":                    {"scalingschedules", "Namespaced", "all", "sched", "schedule"},
		"ClusterScalingSchedule":             {"clusterscalingschedules", "Cluster", "", "css", "clustersched", "clusterschedule"},
		"StackSet":                           {"stacksets", "Namespaced", "all"},
		"Stack":                              {"stacks", "Namespaced", "all"},
		"Step":                               {"steps", "Namespaced", ""},
		"Pipeline":                           {"pipelines", "Namespaced", ""},
		"ModelRuntime":                       {"modelruntimes", "Namespaced", ""},
	}
	got := map[string][]string{}
	for kind, s := range servers() {
		got[kind] = append([]string{s.crd.Spec.Names.Plural, string(s.crd.Spec.Scope), strings.Join(s.crd.Spec.Names.Categories, ",")}, s.crd.Spec.Names.ShortNames...)
		for _, err := range crdvalidation.ValidateCustomResourceDefinition(context.Background(), s.crd) {
			t.Errorf("%s: %v", s.file, err)
		}
		if v := s.crd.Spec.Versions; len(v) != 1 || !v[0].Served || !v[0].Storage {
			t.Errorf("%s: versions are %v, want one that is served and stored", s.file, v)
		}
		if sub := s.crd.Spec.Subresources; sub == nil || sub.Status == nil || (sub.Scale != nil) != (kind == "Stack") {
			t.Errorf("%s: want the subresource status, and scale for Stacks only", s.file)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("names of the kinds (-want +got):\n%s", diff)
	}
}

func TestEachCRDIsSmallEnoughForClientSideApply(t *testing.T) {
	for _, s := range servers() {
		if s.size >= maxSize {
			t.Errorf("%s has %d bytes, want fewer than %d", s.file, s.size, maxSize)
		}
	}
}

// stepPath is what is Kubernetes' own of Kai's kinds: all below a field of the pods' spec, or of the autoscaler's.
var stepPath = regexp.MustCompile(`^\.spec\.(steps\[\]\.spec\.)?([a-zA-Z]+)(\[\]|\{\})*\.`)

// ours reports whether a schema below path was written here, and not by Kubernetes.
func ours(path string, stackSets bool) bool {
	for _, foreign := range []string{".podTemplate.", ".strategy.", ".behavior.scale", ".service.ports[].", "Ref.name", ".conditions[]."} {
		if strings.HasPrefix(path, ".spec.") && strings.Contains(path, foreign) && stackSets {
			return false
		}
	}
	for _, foreign := range []string{".metrics[].", ".cronJob.template.", ".matchLabels"} {
		if at := strings.Index(path, foreign); at >= 0 && !stackSets {
			rest := path[at+len(foreign):]
			return foreign == ".metrics[]." && (rest == "name" || rest == "operator")
		}
	}
	return path != ".apiVersion" && path != ".kind" && path != ".metadata"
}

func TestEachFieldOfOursHasADescriptionAndEachListABound(t *testing.T) {
	fields := 0
	var walk func(file, path string, s apiextensions.JSONSchemaProps)
	walk = func(file, path string, s apiextensions.JSONSchemaProps) {
		if m := stepPath.FindStringSubmatch(path); m != nil && m[2] != "model" && m[2] != "steps" && strings.HasPrefix(file, "core.kai.io_") {
			return
		}
		if ours(path, strings.HasPrefix(file, "zalando.org_stack")) {
			fields++
			if s.Description == "" && !strings.HasSuffix(path, "[]") && !strings.HasSuffix(path, "{}") {
				t.Errorf("%s: %s has no description", file, path)
			}
			if s.Type == "array" && s.MaxItems == nil {
				t.Errorf("%s: %s has no maxItems", file, path)
			}
		}
		for name, property := range s.Properties {
			walk(file, path+"."+name, property)
		}
		if s.Items != nil && s.Items.Schema != nil {
			walk(file, path+"[]", *s.Items.Schema)
		}
		if s.AdditionalProperties != nil && s.AdditionalProperties.Schema != nil {
			walk(file, path+"{}", *s.AdditionalProperties.Schema)
		}
	}
	for _, s := range servers() {
		walk(s.file, "", *s.crd.Spec.Validation.OpenAPIV3Schema)
	}
	if fields < 200 {
		t.Errorf("saw %d fields, want all of them: the walk is broken", fields)
	}
}

func newScheme(t *testing.T) *runtime.Scheme {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{kapacityv1alpha1.AddToScheme, zalandov1.AddToScheme, kaiv1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	return scheme
}

// newObject returns an empty object of the Go type of a kind.
func newObject(t *testing.T, kind string) runtime.Object {
	t.Helper()
	scheme := newScheme(t)
	for gvk := range scheme.AllKnownTypes() {
		if gvk.Kind == kind {
			obj, err := scheme.New(gvk)
			if err != nil {
				t.Fatal(err)
			}
			return obj
		}
	}
	t.Fatalf("no Go type for kind %q", kind)
	return nil
}

func TestDocumentedManifestsAreAcceptedAndSurviveTheGoTypes(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) < 10 {
		t.Fatalf("found %d manifests (%v), want at least 10", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			stored, errs := create(t, string(text))
			if len(errs) > 0 {
				t.Fatalf("refused: %v", errs.ToAggregate())
			}
			typed := newObject(t, stored.GetKind())
			if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(stored.Object, typed, true); err != nil {
				t.Fatalf("the Go type does not take it: %v", err)
			}
			content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(typed)
			if err != nil {
				t.Fatal(err)
			}
			again := newObject(t, stored.GetKind())
			if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(content, again, true); err != nil {
				t.Fatal(err)
			}
			if !apiequality.Semantic.DeepEqual(typed, again) {
				t.Errorf("a round trip changed it:\n%v\n%v", typed, again)
			}
			back, err := yaml.Marshal(content)
			if err != nil {
				t.Fatal(err)
			}
			if _, errs := create(t, string(back)); len(errs) > 0 {
				t.Errorf("what the Go type writes is refused: %v", errs.ToAggregate())
			}
		})
	}
}
