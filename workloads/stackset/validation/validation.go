// Package validation says what is wrong with a StackSet before it is stored, with the field and what to write instead. It is pure; the
// Stacks around come in as facts. A mistake is an error only where neither Kubetide nor Zalando's stackset-controller could make
// anything of the field; what works, but hardly as it was meant, is a warning. What the generated objects would be refused for is found
// by generating them.
package validation

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	zalando "github.com/kubetide/kubetide/api/zalando/v1"
	"github.com/kubetide/kubetide/scaler/prescale"
	"github.com/kubetide/kubetide/workloads/stackset/generate"
	"github.com/kubetide/kubetide/workloads/stackset/traffic"
)

// maxErrors bounds what is said about one object.
const maxErrors = 64

// Around is what the cluster has around the StackSet.
type Around struct {
	Now time.Time
	// Stacks are the names of its Stacks; nil if nobody knows.
	Stacks []string
}

// findings collects what is wrong.
type findings struct {
	set *zalando.StackSet
	// source has the Stack that the StackSet would make now.
	source   generate.Source
	errs     field.ErrorList
	warnings []string
}

func (f *findings) invalid(path *field.Path, value any, format string, args ...any) {
	f.errs = append(f.errs, field.Invalid(path, value, fmt.Sprintf(format, args...)))
}

func (f *findings) required(path *field.Path, then string) {
	f.errs = append(f.errs, field.Required(path, then))
}

func (f *findings) warn(path *field.Path, format string, args ...any) {
	f.warnings = append(f.warnings, path.String()+": "+fmt.Sprintf(format, args...))
}

var (
	spec     = field.NewPath("spec")
	template = spec.Child("stackTemplate", "spec")
)

// StackSet validates the spec, the annotations that are read, and the Stack that would be made.
func StackSet(set *zalando.StackSet, a Around) (field.ErrorList, []string) {
	f := &findings{set: set}
	f.traffic(a)
	f.lifecycle()
	f.waysIn()
	if f.version() {
		f.deployment()
		f.service()
		f.autoscaler(a.Now)
		f.configuration()
	}
	if len(f.errs) > maxErrors {
		f.errs = append(f.errs[:maxErrors], field.TooMany(spec, len(f.errs), maxErrors))
	}
	return f.errs, f.warnings
}

func (f *findings) traffic(a Around) {
	path := spec.Child("traffic")
	current := generate.StackName(f.set)
	known := append(slices.Clone(a.Stacks), current)
	first := map[string]int{}
	for i, w := range f.set.Spec.Traffic {
		at := path.Index(i)
		if w == nil {
			f.required(at, "write stackName and weight")
			continue
		}
		if !(w.Weight >= 0 && w.Weight <= 100) {
			f.invalid(at.Child("weight"), w.Weight, "must be from 0 to 100: it is a share in percent")
		}
		if before, twice := first[w.StackName]; twice {
			f.errs = append(f.errs, field.Duplicate(at.Child("stackName"), fmt.Sprintf("%s (of traffic[%d]); name it once, with its whole weight", w.StackName, before)))
		} else {
			first[w.StackName] = i
		}
		if a.Stacks != nil && !slices.Contains(known, w.StackName) {
			f.warn(at.Child("stackName"), "there is no Stack %s: its weight does not count; there is %s", w.StackName, strings.Join(slices.Compact(slices.Sorted(slices.Values(known))), ", "))
		}
	}
	if len(f.set.Spec.Traffic) > 0 && !f.hasWayIn() {
		f.warn(path, "has no effect: without ingress, routegroup and externalIngress there is no traffic to share out")
	}
}

func (f *findings) hasWayIn() bool {
	s := f.set.Spec
	return s.Ingress != nil || s.RouteGroup != nil || s.ExternalIngress != nil
}

func (f *findings) lifecycle() {
	if ttl := f.set.Spec.StackLifecycle.ScaledownTTLSeconds; ttl != nil && *ttl < 0 {
		f.warn(spec.Child("stackLifecycle", "scaledownTTLSeconds"), "%d is below 0: a Stack keeps its pods for 10 seconds after it lost its traffic", *ttl)
	}
	if limit := f.set.Spec.StackLifecycle.Limit; limit != nil && *limit < 1 {
		f.invalid(spec.Child("stackLifecycle", "limit"), *limit, "must be at least 1; without it, %d Stacks without traffic are kept", traffic.DefaultLimit)
	}
	if percent := f.set.Spec.MinReadyPercent; percent < 0 || percent > 100 {
		f.warn(spec.Child("minReadyPercent"), "%d counts as 100", percent)
	}
	if _, err := prescale.FromAnnotations(f.set.Annotations); err != nil {
		f.warn(field.NewPath("metadata", "annotations"), "%v", err)
	}
}

// waysIn looks at what Ingresses and RouteGroups would be refused for.
func (f *findings) waysIn() {
	if in := f.set.Spec.Ingress; in != nil {
		at := spec.Child("ingress")
		for i, host := range in.Hosts {
			check := validation.IsDNS1123Subdomain
			if strings.HasPrefix(host, "*.") {
				check = validation.IsWildcardDNS1123Subdomain
			}
			f.said(at.Child("hosts").Index(i), host, check(host))
		}
		if in.Path != "" && !strings.HasPrefix(in.Path, "/") {
			f.invalid(at.Child("path"), in.Path, "must begin with /")
		}
		f.annotations(at.Child("metadata", "annotations"), in.Annotations)
	}
	group := f.set.Spec.RouteGroup
	if group == nil {
		return
	}
	at := spec.Child("routegroup")
	for i, host := range group.Hosts {
		f.said(at.Child("hosts").Index(i), host, validation.IsDNS1123Subdomain(strings.TrimSuffix(host, ".")))
	}
	f.annotations(at.Child("metadata", "annotations"), group.Annotations)
	stack := generate.StackName(f.set)
	backends := []string{stack}
	for i, b := range group.AdditionalBackends {
		if b.Name == stack {
			f.invalid(at.Child("additionalBackends").Index(i).Child("name"), b.Name, "is the Stack's own backend: give it another name")
		}
		if b.ServiceName == stack {
			f.invalid(at.Child("additionalBackends").Index(i).Child("serviceName"), b.ServiceName, "is the Stack's own Service, which has a backend: take this one away")
		}
		backends = append(backends, b.Name)
	}
	for i, route := range group.Routes {
		for j, b := range route.Backends {
			if !slices.Contains(backends, b.BackendName) {
				f.warn(at.Child("routes").Index(i).Child("backends").Index(j).Child("backendName"), "there is no backend %q: routers drop the whole RouteGroup; add it to additionalBackends", b.BackendName)
			}
		}
	}
}

func (f *findings) said(path *field.Path, value string, problems []string) {
	if len(problems) > 0 {
		f.invalid(path, value, "%s", strings.Join(problems, "; "))
	}
}

func (f *findings) annotations(path *field.Path, all map[string]string) {
	for _, key := range slices.Sorted(maps.Keys(all)) {
		f.said(path.Key(key), key, validation.IsQualifiedName(strings.ToLower(key)))
	}
}

// version makes the Stack, if its name can be one.
func (f *findings) version() bool {
	version := f.set.Spec.StackTemplate.Spec.Version
	stack, err := generate.Stack(f.set, generate.Options{})
	name := generate.StackName(f.set)
	if err == nil && len(validation.IsDNS1123Label(name)) == 0 {
		f.source = generate.Source{StackSet: f.set, Stack: stack}
		return true
	}
	path, value := template.Child("version"), version
	if strings.Contains(f.set.Name, ".") {
		path, value = field.NewPath("metadata", "name"), f.set.Name
	}
	switch {
	case strings.Contains(name, "."):
		f.invalid(path, value, "%q would name the Stack and its Service, which takes no dot: write %s", name, strings.ReplaceAll(value, ".", "-"))
	case len(name) > validation.DNS1123LabelMaxLength:
		f.invalid(path, value, "%q would name the Stack and its Service, which takes %d characters; it has %d", name, validation.DNS1123LabelMaxLength, len(name))
	default:
		f.invalid(path, value, "%q would name the Stack and its Service: lower case letters, digits and dashes only", name)
	}
	return false
}

// deployment looks at what the Deployment would be refused for.
func (f *findings) deployment() {
	t := f.set.Spec.StackTemplate
	if t.Spec.Replicas != nil && *t.Spec.Replicas < 0 {
		f.invalid(template.Child("replicas"), *t.Spec.Replicas, "must not be below 0")
	}
	if t.Spec.MinReadySeconds < 0 {
		f.invalid(template.Child("minReadySeconds"), t.Spec.MinReadySeconds, "must not be below 0")
	}
	pods := template.Child("podTemplate")
	if len(t.Spec.PodTemplate.Spec.Containers) == 0 {
		f.required(pods.Child("spec", "containers"), "name at least one container")
	}
	if policy := t.Spec.PodTemplate.Spec.RestartPolicy; policy != "" && policy != corev1.RestartPolicyAlways {
		f.invalid(pods.Child("spec", "restartPolicy"), policy, "a Deployment's pods have Always: take this away")
	}
	selector := f.source.Selector()
	for _, key := range slices.Sorted(maps.Keys(selector)) {
		if own, found := t.Spec.PodTemplate.Labels[key]; found && own != selector[key] {
			f.invalid(pods.Child("metadata", "labels").Key(key), own, "the Stack's pods are selected by %s=%s: take this label away", key, selector[key])
		}
	}
	f.annotations(pods.Child("metadata", "annotations"), t.Spec.PodTemplate.Annotations)
	f.annotations(spec.Child("stackTemplate", "metadata", "annotations"), t.Annotations)
}

// service looks at the ports, and whether the traffic's is one of them.
func (f *findings) service() {
	ports := f.ports()
	path := template.Child("service", "ports")
	given := f.set.Spec.StackTemplate.Spec.Service != nil && len(f.set.Spec.StackTemplate.Spec.Service.Ports) > 0
	if !given {
		path = template.Child("podTemplate", "spec", "containers")
	}
	type number struct {
		port     int32
		protocol corev1.Protocol
	}
	numbers, names := map[number]bool{}, map[string]bool{}
	for i, p := range ports {
		at := path
		if given {
			at = path.Index(i)
			f.target(at.Child("targetPort"), p)
		}
		f.said(at.Child("port"), fmt.Sprint(p.Port), validation.IsValidPortNum(int(p.Port)))
		if key := (number{p.Port, p.Protocol}); numbers[key] {
			f.invalid(at, p.Port, "a Service has each port once for each protocol, and %d/%s is here twice: write service.ports", p.Port, p.Protocol)
		} else {
			numbers[key] = true
		}
		switch {
		case p.Name == "" && len(ports) > 1:
			f.required(at.Child("name"), "of several ports each needs a name")
		case p.Name != "" && names[p.Name]:
			f.invalid(at.Child("name"), p.Name, "is another port's name, too")
		case p.Name != "":
			f.said(at.Child("name"), p.Name, validation.IsDNS1123Label(p.Name))
		}
		names[p.Name] = true
	}
	if s := f.set.Spec.StackTemplate.Spec.Service; s != nil {
		f.annotations(template.Child("service", "metadata", "annotations"), s.Annotations)
	}
	f.backendPort(ports)
}

// ports are those that the Service would have if there were no way in.
func (f *findings) ports() []corev1.ServicePort {
	bare := f.source
	bare.StackSet, bare.Stack = nil, f.source.Stack.DeepCopy()
	bare.Stack.Spec.Ingress, bare.Stack.Spec.RouteGroup, bare.Stack.Spec.ExternalIngress = nil, nil, nil
	service, err := bare.Service(nil)
	if err != nil {
		return nil
	}
	return service.Spec.Ports
}

func (f *findings) target(path *field.Path, p corev1.ServicePort) {
	target := p.TargetPort
	if target == (intstr.IntOrString{}) {
		target = intstr.FromInt32(p.Port)
	}
	declared := false
	for _, c := range f.set.Spec.StackTemplate.Spec.PodTemplate.Spec.Containers {
		for _, port := range c.Ports {
			declared = true
			if target.Type == intstr.Int && target.IntVal == port.ContainerPort || target.Type == intstr.String && target.StrVal == port.Name {
				return
			}
		}
	}
	if declared || target.Type == intstr.String {
		f.warn(path, "no container has the port %s: requests to it fail unless one listens there", &target)
	}
}

func (f *findings) backendPort(ports []corev1.ServicePort) {
	in, group, external := f.set.Spec.Ingress, f.set.Spec.RouteGroup, f.set.Spec.ExternalIngress
	check := func(way string, port intstr.IntOrString) (number int32, found bool) {
		for _, p := range ports {
			if port.Type == intstr.Int && p.Port == port.IntVal || port.Type == intstr.String && p.Name == port.StrVal {
				return p.Port, true
			}
		}
		f.invalid(spec.Child(way, "backendPort"), port.String(), "no port of the Stack's Service has that %s; there is %s", word(port), listed(ports, port))
		return 0, false
	}
	var number int32
	found := false
	if in != nil {
		number, found = check("ingress", in.BackendPort)
	}
	if group != nil {
		want := intstr.FromInt32(int32(group.BackendPort))
		switch {
		case found && number != want.IntVal:
			f.invalid(spec.Child("routegroup", "backendPort"), group.BackendPort, "the Ingress leads to port %d: write that here, or another spec.ingress.backendPort", number)
		case in == nil:
			check("routegroup", want)
		}
	}
	if external != nil && in == nil && group == nil {
		check("externalIngress", external.BackendPort)
	}
}

func word(port intstr.IntOrString) string {
	if port.Type == intstr.Int {
		return "number"
	}
	return "name"
}

// listed are the ports as a backendPort can name them.
func listed(ports []corev1.ServicePort, port intstr.IntOrString) string {
	var out []string
	for _, p := range ports {
		text := fmt.Sprint(p.Port)
		if p.Name != "" {
			text = fmt.Sprintf("%s (%d)", p.Name, p.Port)
		}
		if port.Type == intstr.String && port.StrVal == fmt.Sprint(p.Port) {
			return fmt.Sprintf("%s: a number stands without quotes", text)
		}
		out = append(out, text)
	}
	if len(out) == 0 {
		return "none: give a container a port, or write service.ports"
	}
	return strings.Join(out, ", ")
}

// configuration looks at what the Stack brings along.
func (f *findings) configuration() {
	stack := f.source.Stack
	for i, r := range stack.Spec.ConfigurationResources {
		at := template.Child("configurationResources").Index(i)
		set := 0
		reference := func(way, name string) {
			set++
			if !strings.HasPrefix(name, stack.Name) {
				f.invalid(at.Child(way, "name"), name, "must begin with the Stack's name, %s: it goes when the Stack goes", stack.Name)
			}
		}
		if r.ConfigMap != nil {
			set++
			for _, c := range (generate.Source{Stack: withResource(stack, r)}).ConfigMaps() {
				f.said(at.Child("configMap", "name"), c.Name, validation.IsDNS1123Subdomain(c.Name))
			}
			for _, key := range slices.Sorted(maps.Keys(r.ConfigMap.Data)) {
				f.said(at.Child("configMap", "data").Key(key), key, validation.IsConfigMapKey(key))
			}
		}
		if r.ConfigMapRef != nil {
			reference("configMapRef", r.ConfigMapRef.Name)
		}
		if r.SecretRef != nil {
			reference("secretRef", r.SecretRef.Name)
		}
		if r.PlatformCredentialsSet != nil {
			reference("platformCredentialsSet", r.PlatformCredentialsSet.Name)
			if len(r.PlatformCredentialsSet.Tokens) == 0 {
				f.required(at.Child("platformCredentialsSet", "tokens"), "name at least one token")
			}
			if _, found := stack.Labels[generate.ApplicationLabel]; !found {
				f.required(field.NewPath("metadata", "labels").Key(generate.ApplicationLabel), "credentials are an application's: label the StackSet with its name")
			}
		}
		switch {
		case set == 0:
			f.warn(at, "is empty: name a configMap, configMapRef, secretRef or platformCredentialsSet, or take it away")
		case set > 1:
			f.warn(at, "names %d resources: write an entry for each", set)
		}
	}
}

func withResource(stack *zalando.Stack, r zalando.ConfigurationResourcesSpec) *zalando.Stack {
	out := stack.DeepCopy()
	out.Spec.ConfigurationResources = []zalando.ConfigurationResourcesSpec{r}
	return out
}
