package main

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"
)

type schema = apiextensionsv1.JSONSchemaProps

// foreign are the fields of Kubernetes' own types, whose fields are not spelled out: the end of their path, after the kind, and the type.
var foreign = map[string]string{
	"status.conditions[]": "meta/v1 Condition",

	"cronJob.template.metadata": "meta/v1 ObjectMeta",
	"cronJob.template.spec":     "batch/v1 CronJobSpec",

	// Metrics with an operator of Kapacity's beside the fields of MetricSpec.
	"metrics[].containerResource":            "autoscaling/v2 ContainerResourceMetricSource",
	"metrics[].external":                     "autoscaling/v2 ExternalMetricSource",
	"metrics[].object":                       "autoscaling/v2 ObjectMetricSource",
	"metrics[].pods":                         "autoscaling/v2 PodsMetricSource",
	"metrics[].resource":                     "autoscaling/v2 ResourceMetricSource",
	"HorizontalPortrait.spec.metrics[].type": "autoscaling/v2 MetricSourceType",
	"dynamic.metrics[].type":                 "autoscaling/v2 MetricSourceType",
	"metrics.metrics[].type":                 "autoscaling/v2 MetricSourceType",

	"ModelRuntime.spec.metrics[]": "autoscaling/v2 MetricSpec",
	"Step.spec.metrics[]":         "autoscaling/v2 MetricSpec",
	"steps[].spec.metrics[]":      "autoscaling/v2 MetricSpec",
	"ModelRuntime.spec.behavior":  "autoscaling/v2 HorizontalPodAutoscalerBehavior",
	"Step.spec.behavior":          "autoscaling/v2 HorizontalPodAutoscalerBehavior",
	"steps[].spec.behavior":       "autoscaling/v2 HorizontalPodAutoscalerBehavior",
	"autoscaler.behavior":         "autoscaling/v2 HorizontalPodAutoscalerBehavior",

	"spec.affinity":                    "core/v1 Affinity",
	"spec.containers[]":                "core/v1 Container",
	"spec.initContainers[]":            "core/v1 Container",
	"spec.ephemeralContainers[]":       "core/v1 EphemeralContainer",
	"spec.dnsConfig":                   "core/v1 PodDNSConfig",
	"spec.hostAliases[]":               "core/v1 HostAlias",
	"spec.imagePullSecrets[]":          "core/v1 LocalObjectReference",
	"spec.os":                          "core/v1 PodOS",
	"spec.readinessGates[]":            "core/v1 PodReadinessGate",
	"spec.resourceClaims[]":            "core/v1 PodResourceClaim",
	"spec.schedulingGates[]":           "core/v1 PodSchedulingGate",
	"spec.securityContext":             "core/v1 PodSecurityContext",
	"spec.tolerations[]":               "core/v1 Toleration",
	"spec.topologySpreadConstraints[]": "core/v1 TopologySpreadConstraint",
	"spec.volumes[]":                   "core/v1 Volume",

	"configurationResources[].configMapRef": "core/v1 LocalObjectReference",
	"configurationResources[].secretRef":    "core/v1 LocalObjectReference",
	"spec.podTemplate":                      "core/v1 PodTemplateSpec",
	"service.ports[]":                       "core/v1 ServicePort",
	"spec.strategy":                         "apps/v1 DeploymentStrategy",
}

// foreignType returns the key of foreign that the path ends with, or "".
func foreignType(kind, path string) string {
	for end := range foreign {
		if strings.HasSuffix("."+kind+"."+path, "."+end) {
			return end
		}
	}
	return ""
}

// kind is what its CRD says in one version.
type kind struct {
	names                 apiextensionsv1.CustomResourceDefinitionNames
	group, version, scope string
	about, bounds         string
	fields                []field
}

type field struct {
	path, typ, preset, bounds, about string
	required                         bool
	// foreign is the key in the list of that name.
	foreign string
}

func readKinds(root string) ([]kind, error) {
	const pattern = "deploy/crds/*.yaml"
	files, err := filepath.Glob(filepath.Join(root, pattern))
	if err != nil || len(files) == 0 {
		return nil, errors.Join(err, fmt.Errorf("there is no %s: run it in the repository's root", pattern))
	}
	var out []kind
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		var crd apiextensionsv1.CustomResourceDefinition
		if err := yaml.UnmarshalStrict(text, &crd); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		for _, v := range crd.Spec.Versions {
			s := v.Schema.OpenAPIV3Schema
			for _, common := range []string{"apiVersion", "kind", "metadata"} {
				delete(s.Properties, common)
			}
			one := kind{names: crd.Spec.Names, group: crd.Spec.Group, version: v.Name, scope: string(crd.Spec.Scope), about: s.Description, bounds: bounds(s)}
			one.fields = fields(one.names.Kind, "", s)
			out = append(out, one)
		}
	}
	return out, nil
}

// fields returns the fields of the schema, each before those below it, with the prefix before their paths.
func fields(kind, prefix string, in *schema) []field {
	var out []field
	for _, name := range slices.Sorted(maps.Keys(in.Properties)) {
		s := in.Properties[name]
		f := field{path: prefix + name, typ: typeOf(&s), bounds: bounds(&s), about: s.Description, required: slices.Contains(in.Required, name)}
		if s.Default != nil {
			f.preset = value(*s.Default)
		}
		inner := &s
		for mark, of := element(inner); of != nil; mark, of = element(inner) {
			f.path += mark
			inner = of
		}
		if f.foreign = foreignType(kind, f.path); f.foreign != "" {
			f.typ = strings.TrimSuffix(f.typ, typeOf(inner)) + foreign[f.foreign]
			out = append(out, f)
			continue
		}
		if each := bounds(inner); inner != &s && each != "" {
			f.bounds = strings.TrimPrefix(f.bounds+"; each: "+each, "; ")
		}
		out = append(append(out, f), fields(kind, f.path+".", inner)...)
	}
	return out
}

// element returns what a list or a map holds, and how paths mark it.
func element(s *schema) (mark string, of *schema) {
	switch {
	case s.Items != nil:
		return "[]", s.Items.Schema
	case s.AdditionalProperties != nil:
		return "{}", s.AdditionalProperties.Schema
	}
	return "", nil
}

// quantity is how the pattern of Kubernetes' quantities begins.
const quantity = `^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|`

func isQuantity(s *schema) bool { return s.XIntOrString && strings.HasPrefix(s.Pattern, quantity) }

func typeOf(s *schema) string {
	mark, of := element(s)
	switch {
	case mark == "[]":
		return "list of " + typeOf(of)
	case mark == "{}":
		return "map of " + typeOf(of)
	case isQuantity(s):
		return "quantity"
	case s.XIntOrString:
		return "integer or string"
	case s.Format == "date-time":
		return "time"
	case s.Format != "":
		return s.Format
	}
	return s.Type
}

func bounds(s *schema) string {
	var values, out []string
	for _, v := range s.Enum {
		values = append(values, code(strings.Trim(value(v), `"`)))
	}
	out = append(out, strings.Join(values, ", "))
	if !isQuantity(s) {
		out = append(out, between(s.Minimum, s.Maximum, ""), between(s.MinLength, s.MaxLength, "length "))
	}
	out = append(out, between(s.MinItems, s.MaxItems, "items "), between(s.MinProperties, s.MaxProperties, "keys "))
	if s.Pattern != "" && s.Format != "date-time" && !isQuantity(s) {
		out = append(out, "matches "+code(s.Pattern))
	}
	for _, rule := range s.XValidations {
		out = append(out, cmp.Or(prose(rule.Message), code(rule.Rule)))
	}
	if s.XPreserveUnknownFields != nil && *s.XPreserveUnknownFields {
		out = append(out, "takes any field")
	}
	return strings.Join(slices.DeleteFunc(out, func(one string) bool { return one == "" }), "; ")
}

// value returns it as JSON, without the escapes that only HTML needs.
func value(v apiextensionsv1.JSON) string {
	return strings.NewReplacer(`\u003c`, "<", `\u003e`, ">", `\u0026`, "&").Replace(string(v.Raw))
}

func between[N int64 | float64](least, most *N, of string) string {
	number := func(n N) string { return strconv.FormatFloat(float64(n), 'f', -1, 64) }
	switch {
	case least != nil && most != nil:
		return fmt.Sprintf("%s%s to %s", of, number(*least), number(*most))
	case least != nil:
		return fmt.Sprintf("%sat least %s", of, number(*least))
	case most != nil:
		return fmt.Sprintf("%sat most %s", of, number(*most))
	}
	return ""
}

func groupPages(kinds []kind) map[string]string {
	out := map[string]string{}
	for _, k := range kinds {
		name := k.group + ".md"
		if out[name] == "" {
			out[name] = fmt.Sprintf(generated+"# %s\n\nThe fields of each kind. `[]` marks lists, `{}` maps. A field of one of Kubernetes' own types names the type; the\n"+
				"reference of the Kubernetes API has its fields.\n", "the CRDs of api/", k.group)
		}
		out[name] += k.markdown()
	}
	return out
}

func (k kind) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n## %s\n\n%s\n\n`%s/%s`, scope %s, resource `%s`", k.names.Kind, prose(k.about), k.group, k.version, k.scope, k.names.Plural)
	if k.names.ShortNames != nil {
		fmt.Fprintf(&b, ", short `%s`", strings.Join(k.names.ShortNames, "`, `"))
	}
	b.WriteString(".\n\n")
	if k.bounds != "" {
		fmt.Fprintf(&b, "Bounds: %s.\n\n", k.bounds)
	}
	b.WriteString("| field | type | default | bounds | |\n|---|---|---|---|---|\n")
	for _, f := range k.fields {
		limits := f.bounds
		if f.required {
			limits = strings.TrimSuffix("required; "+limits, "; ")
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", f.path, f.typ, code(f.preset), limits, prose(f.about))
	}
	return b.String()
}
