package generate

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/yaml"

	zalando "github.com/kubetide/kubetide/api/zalando/v1"
	"github.com/kubetide/kubetide/internal/traffic"
	"github.com/kubetide/kubetide/scaler/prescale"
)

var update = flag.Bool("update", false, "write the golden files")

// Every object of one Stack is in one golden file; what differs between files is what the case is about.
func TestTheObjectsOfAStack(t *testing.T) {
	for name, row := range map[string]struct {
		set     string // fields of the StackSet's spec
		stack   string // fields of the Stack template's spec
		options Options
		mutate  func(*Source)
		segment traffic.Segment
		weight  int
		held    prescale.State
	}{
		"plain": {segment: traffic.Segment{}},
		"ingress": {
			set:     "ingress: {hosts: [my-app.example.org, alt.name.org, aa.example.com], backendPort: 80, metadata: {annotations: {example.org/a: b, zalando.org/skipper-predicate: 'Method(\"GET\")'}}}",
			stack:   "service: {ports: [{name: ingress, port: 80, targetPort: 8080}], metadata: {annotations: {example.org/s: t}}}",
			options: Options{ClusterDomains: []string{"example.org", "example.com"}},
			segment: traffic.Segment{Lo: 0, Hi: 0.5}, weight: 50},
		"ingress-named-port-and-path": {
			set:     "ingress: {hosts: [my-app.example.org], backendPort: http, path: /api}",
			stack:   "service: {ports: [{name: http, port: 80, targetPort: 8080}]}",
			options: Options{ClusterDomains: []string{"ample.org"}},
			segment: traffic.All, weight: 100},
		"ingress-synced-annotations": {
			set: "ingress: {hosts: [my-app.example.org], backendPort: 8080, metadata: {annotations: {own: kept, changed: old, removed: x, zalando.org/skipper-predicate: 'Old()'}}}",
			options: Options{ClusterDomains: []string{"example.org"},
				SyncAnnotations: []string{"changed", "removed", "added", "never", PredicateAnnotation}},
			mutate: func(s *Source) {
				s.StackSet.Spec.Ingress.Annotations = map[string]string{"own": "other", "changed": "new", "added": "y", PredicateAnnotation: "New()"}
			},
			segment: traffic.Segment{Lo: 0.8, Hi: 1}, weight: 20},
		"routegroup": {
			set: `routegroup: {hosts: [my-app.example.org], backendPort: 80, lbAlgorithm: powerOfRandomNChoices, metadata: {annotations: {a: b}},
    additionalBackends: [{name: shunt, type: shunt}, {name: a-lb, type: lb, endpoints: ["http://10.0.0.1"], algorithm: random}],
    routes: [{pathSubtree: /, methods: [GET], filters: [status(200)], predicates: [Weight(2)]}, {path: /x, backends: [{backendName: shunt, weight: 1}]}]}`,
			stack:   "service: {ports: [{port: 80}]}",
			options: Options{ClusterDomains: []string{"example.org"}},
			segment: traffic.Segment{Lo: 0.2, Hi: 0.45}, weight: 25},
		"forwarded": {
			set: `ingress: {hosts: [my-app.example.org], backendPort: 80}
  routegroup: {hosts: [my-app.example.org], backendPort: 80, additionalBackends: [{name: shunt, type: shunt}], routes: [{pathSubtree: /}, {path: /x, backends: [{backendName: shunt}]}]}`,
			stack:   "service: {ports: [{port: 80}]}, autoscaler: {maxReplicas: 3, metrics: []}",
			options: Options{ClusterDomains: []string{"example.org"}, Forward: true},
			mutate:  func(s *Source) { s.Stack.Annotations[ForwardBackendAnnotation] = "fwd" },
			segment: traffic.All, weight: 100},
		"everything-of-a-pod": {
			stack: `replicas: 7, minReadySeconds: 15, strategy: {type: RollingUpdate, rollingUpdate: {maxUnavailable: 0}},
    autoscaler: {minReplicas: 3, maxReplicas: 10, metrics: [{type: CPU, averageUtilization: 80, container: app}],
      behavior: {scaleUp: {tolerance: 50m}, scaleDown: {stabilizationWindowSeconds: 60, policies: [{type: Pods, value: 1, periodSeconds: 60}]}}},
    configurationResources: [{configMap: {name: inline, data: {a: b}}}, {configMap: {name: my-app-v1-own, data: {c: d}}}, {configMapRef: {name: my-app-v1-c}}, {secretRef: {name: my-app-v1-s}},
      {platformCredentialsSet: {name: my-app-v1-pcs, tokens: {t: {privileges: [read]}}}}]`,
			held: prescale.State{Active: true, Replicas: 5}},
		"external-ingress": {
			set: "externalIngress: {backendPort: port-1}", weight: 100},
	} {
		t.Run(name, func(t *testing.T) {
			s := source(t, row.set, row.stack, row.options)
			if row.mutate != nil {
				row.mutate(&s)
			}
			got := golden(t, s, row.segment, row.weight, row.held)
			file := filepath.Join("testdata", name+".yaml")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// source makes the Stack my-app-v1 of a StackSet, as it is once it was created.
func source(t *testing.T, set, stack string, o Options) Source {
	t.Helper()
	text := `
metadata: {name: my-app, namespace: default, uid: set-uid, labels: {application: my-app}}
spec:
  ` + set + `
  stackLifecycle: {}
  stackTemplate:
    metadata: {annotations: {example.org/stack: "yes"}}
    spec: {version: v1, podTemplate: {metadata: {labels: {app: mine, application: other}, annotations: {pod: a}}, spec: {containers: [
      {name: app, image: nginx, ports: [{containerPort: 8080}]}, {name: side, image: nginx, ports: [{containerPort: 8081, protocol: UDP}]}]}}` + prefixed(stack) + `}
`
	parsed := &zalando.StackSet{}
	if err := yaml.UnmarshalStrict([]byte(text), parsed); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	before := parsed.DeepCopy()
	made, err := Stack(parsed, o)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, parsed); diff != "" {
		t.Errorf("the StackSet was changed:\n%s", diff)
	}
	made.UID, made.Generation = "stack-uid", 1
	return Source{Options: o, StackSet: parsed, Stack: made}
}

func prefixed(text string) string {
	if text == "" {
		return ""
	}
	return ", " + text
}

// golden prints all objects, "none" for those that should not be.
func golden(t *testing.T, s Source, segment traffic.Segment, weight int, held prescale.State) string {
	t.Helper()
	before := s.Stack.DeepCopy()
	var out strings.Builder
	print := func(what string, obj any, absent bool, err error) {
		out.WriteString("--- # " + what + "\n")
		switch {
		case err != nil:
			out.WriteString("# error: " + err.Error() + "\n")
		case absent:
			out.WriteString("# none\n")
		default:
			text, err := yaml.Marshal(obj)
			if err != nil {
				t.Fatal(err)
			}
			out.WriteString(strings.Replace(string(text), "status:\n  loadBalancer: {}\n", "", 1))
		}
	}
	print("Stack", s.Stack, false, nil)
	deployment := s.Deployment(3)
	print("Deployment", deployment, deployment == nil, nil)
	service, err := s.Service(nil)
	print("Service", service, false, err)
	hpa, err := s.Autoscaler(weight, held, false)
	print("HorizontalPodAutoscaler", hpa, hpa == nil, err)
	ingress, ingressSegment := s.Ingress(), s.IngressSegment(segment)
	print("Ingress", ingress, ingress == nil, nil)
	print("Ingress segment", ingressSegment, ingressSegment == nil, nil)
	group, err := s.RouteGroup()
	print("RouteGroup", group, group == nil, err)
	groupSegment, err := s.RouteGroupSegment(segment)
	print("RouteGroup segment", groupSegment, groupSegment == nil, err)
	for _, c := range s.ConfigMaps() {
		print("ConfigMap", c, false, nil)
	}
	credentials, err := s.PlatformCredentialsSets()
	if err != nil {
		t.Error(err)
	}
	for _, c := range credentials {
		print("PlatformCredentialsSet", c, false, nil)
	}
	if diff := cmp.Diff(before, s.Stack); diff != "" {
		t.Errorf("the Stack was changed:\n%s", diff)
	}
	// What is generated is read back as it was meant.
	if ingressSegment != nil {
		if got, found, err := LiveIngress(ingressSegment); got != segment || !found || err != nil {
			t.Errorf("the Ingress' segment is read as %v, %v, %v", got, found, err)
		}
	}
	if groupSegment != nil {
		if got, found, err := LiveRouteGroup(groupSegment); got != segment || !found || err != nil {
			t.Errorf("the RouteGroup's segment is read as %v, %v, %v", got, found, err)
		}
	}
	return out.String()
}

func TestTheStackOfAStackSet(t *testing.T) {
	set := &zalando.StackSet{ObjectMeta: metav1.ObjectMeta{Name: "my-app", Labels: map[string]string{StackSetLabel: "other", StackVersionLabel: "other", "a": "b"},
		Annotations: map[string]string{ForwardBackendAnnotation: ""}}}
	set.Spec.StackTemplate.Spec.Version = "v1"
	stack, err := Stack(set, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{StackSetLabel: "other", StackVersionLabel: "v1", "a": "b"}, stack.Labels); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}
	if len(stack.Annotations) > 0 {
		t.Errorf("annotations %v without the feature", stack.Annotations)
	}
	if stack, _ = Stack(set, Options{Forward: true}); stack.Annotations[ForwardBackendAnnotation] != "fwd" || len(set.Spec.StackTemplate.Annotations) > 0 {
		t.Errorf("annotations %v, the StackSet's %v", stack.Annotations, set.Spec.StackTemplate.Annotations)
	}
	for _, version := range []string{"1.2.3", strings.Repeat("a", 57)} {
		set.Spec.StackTemplate.Spec.Version = version
		if stack, err := Stack(set, Options{}); err == nil || !strings.Contains(err.Error(), "spec.stackTemplate.spec.version") {
			t.Errorf("version %q: %v, %v", version, stack, err)
		}
	}
}

func TestThePortsOfTheService(t *testing.T) {
	for name, row := range map[string]struct {
		set, stack string
		live       []corev1.ServicePort
		want       string
		err        string
	}{
		"numbers are counted over all containers":             {want: "port-0/TCP/8080>8080 port-1/UDP/8081>8081"},
		"a port that matches a number":                        {set: "ingress: {hosts: [a.org], backendPort: 8080}", want: "port-0/TCP/8080>8080 port-1/UDP/8081>8081"},
		"a port that matches a name":                          {set: "ingress: {hosts: [a.org], backendPort: port-1}", want: "port-0/TCP/8080>8080 port-1/UDP/8081>8081"},
		"a number that no port has":                           {set: "ingress: {hosts: [a.org], backendPort: 80}", err: "no service ports matching backendPort '80'"},
		"a name that no port has":                             {set: "ingress: {hosts: [a.org], backendPort: ingress}", err: "no service ports matching backendPort 'ingress'"},
		"a text that looks like a number is a name":           {set: "ingress: {hosts: [a.org], backendPort: '8080'}", err: "no service ports matching backendPort '8080'"},
		"ports that are given":                                {stack: "service: {ports: [{name: ingress, port: 80, targetPort: http}]}", set: "ingress: {hosts: [a.org], backendPort: ingress}", want: "ingress/TCP/80>http"},
		"ports that are given do not match":                   {stack: "service: {ports: [{name: ingress, port: 80}]}", set: "routegroup: {hosts: [a.org], backendPort: 8080, routes: [{}]}", err: "no service ports matching backendPort '8080'"},
		"external ingress counts":                             {set: "externalIngress: {backendPort: 80}", err: "no service ports matching backendPort '80'"},
		"Ingress and RouteGroup mean the same":                {set: "ingress: {hosts: [a.org], backendPort: 8080}\n  routegroup: {hosts: [a.org], backendPort: 8080, routes: [{}]}", want: "port-0/TCP/8080>8080 port-1/UDP/8081>8081"},
		"Ingress and RouteGroup differ":                       {set: "ingress: {hosts: [a.org], backendPort: 80}\n  routegroup: {hosts: [a.org], backendPort: 81, routes: [{}]}", err: "backendPort for Ingress and RouteGroup does not match 80!=81"},
		"a name beside a RouteGroup is looked up":             {set: "ingress: {hosts: [a.org], backendPort: port-0}\n  routegroup: {hosts: [a.org], backendPort: 8080, routes: [{}]}", want: "port-0/TCP/8080>8080 port-1/UDP/8081>8081"},
		"a name beside a RouteGroup means another port":       {set: "ingress: {hosts: [a.org], backendPort: port-1}\n  routegroup: {hosts: [a.org], backendPort: 8080, routes: [{}]}", err: "backendPort for Ingress and RouteGroup does not match port-1!=8080"},
		"a Service that upstream made keeps its ports' names": {live: []corev1.ServicePort{{Name: "port-0-0", Port: 8080, Protocol: "TCP"}, {Name: "port-1-0", Port: 8081, Protocol: "UDP"}}, want: "port-0-0/TCP/8080>8080 port-1-0/UDP/8081>8081"},
		"of another protocol it is another port":              {live: []corev1.ServicePort{{Name: "mine", Port: 8080, Protocol: "UDP"}}, want: "port-0/TCP/8080>8080 port-1/UDP/8081>8081"},
	} {
		t.Run(name, func(t *testing.T) {
			s := source(t, row.set, row.stack, Options{})
			var live *corev1.Service
			if row.live != nil {
				live = &corev1.Service{Spec: corev1.ServiceSpec{Ports: row.live}}
			}
			service, err := s.Service(live)
			if row.err != "" {
				if err == nil || err.Error() != row.err {
					t.Fatalf("%v, want %q", err, row.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, p := range service.Spec.Ports {
				got = append(got, p.Name+"/"+string(p.Protocol)+"/"+intstrOf(p.Port)+">"+p.TargetPort.String())
			}
			if diff := cmp.Diff(row.want, strings.Join(got, " ")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func intstrOf(n int32) string { v := intstr.FromInt32(n); return v.String() }

func TestThePortForTheTraffic(t *testing.T) {
	for name, row := range map[string]struct{ set, want string }{
		"no way in":                         {want: "none"},
		"of an Ingress":                     {set: "ingress: {hosts: [a.org], backendPort: http}", want: "http"},
		"of a RouteGroup":                   {set: "routegroup: {hosts: [a.org], backendPort: 81, routes: [{}]}", want: "81"},
		"of an external":                    {set: "externalIngress: {backendPort: 82}", want: "82"},
		"an Ingress before an external one": {set: "ingress: {hosts: [a.org], backendPort: 80}\n  externalIngress: {backendPort: 82}", want: "80"},
	} {
		s := source(t, row.set, "", Options{})
		for where, s := range map[string]Source{"own": s, "the StackSet's": {StackSet: s.StackSet, Stack: bare(s.Stack)}} {
			port, err := s.BackendPort()
			got := "none"
			if port != nil {
				got = port.String()
			}
			if got != row.want || err != nil || s.HasIngress() != (row.want != "none") {
				t.Errorf("%s, %s: %s, %v", name, where, got, err)
			}
		}
	}
}

func bare(stack *zalando.Stack) *zalando.Stack {
	out := stack.DeepCopy()
	out.Spec.Ingress, out.Spec.RouteGroup, out.Spec.ExternalIngress = nil, nil, nil
	return out
}

func TestHostsOfTheStacksOwn(t *testing.T) {
	for name, row := range map[string]struct{ hosts, domains, want string }{
		"one below each domain":      {"a.example.org b.example.org c.example.com", "example.com example.org", "my-app-v1.example.com my-app-v1.example.org"},
		"no host in a domain":        {"a.example.org", "example.com", ""},
		"whole labels only":          {"fooexample.org", "example.org", ""},
		"a domain below a domain":    {"a.b.example.org", "example.org b.example.org", "my-app-v1.b.example.org my-app-v1.example.org"},
		"the domain itself":          {"example.org", "example.org", "my-app-v1.example.org"},
		"a domain with a dot before": {"a.example.org", ".example.org", "my-app-v1.example.org"},
		"no domains":                 {"a.example.org", "", ""},
		"an empty domain":            {"a.example.org", ".", ""},
	} {
		s := source(t, "", "", Options{ClusterDomains: strings.Fields(row.domains)})
		if got := strings.Join(s.Hosts(strings.Fields(row.hosts)), " "); got != row.want {
			t.Errorf("%s: %q, want %q", name, got, row.want)
		}
	}
}

func TestBackendsThatOverlapWithTheStackAreRefused(t *testing.T) {
	for backend, want := range map[string]string{
		"{name: my-app-v1, type: shunt}":                                        "invalid additionalBackend 'my-app-v1', overlaps with Stack name",
		"{name: other, type: service, serviceName: my-app-v1, servicePort: 80}": "invalid additionalBackend 'other', serviceName 'my-app-v1' overlaps with Stack name",
	} {
		s := source(t, "routegroup: {hosts: [a.org], backendPort: 8080, routes: [{}], additionalBackends: ["+backend+"]}", "", Options{ClusterDomains: []string{"org"}})
		_, one := s.RouteGroup()
		_, two := s.RouteGroupSegment(traffic.All)
		for _, err := range []error{one, two} {
			if err == nil || err.Error() != want {
				t.Errorf("%v, want %q", err, want)
			}
		}
	}
}

func TestARouteGroupWithoutRoutesHasNoSegment(t *testing.T) {
	if _, found, err := LiveRouteGroup(&zalando.RouteGroup{}); found || err != nil {
		t.Errorf("%v, %v", found, err)
	}
}

func TestWhatCannotBeReadIsAnErrorWithTheObjectsName(t *testing.T) {
	s := source(t, "ingress: {hosts: [a.org], backendPort: 8080}\n  routegroup: {hosts: [a.org], backendPort: 8080, routes: [{}]}", "", Options{})
	ingress := s.IngressSegment(traffic.All)
	ingress.Annotations[PredicateAnnotation] = "TrafficSegment(a, b)"
	if _, _, err := LiveIngress(ingress); err == nil || !strings.HasPrefix(err.Error(), "ingress default/my-app-v1-traffic-segment: annotation zalando.org/skipper-predicate:") {
		t.Error(err)
	}
	group, err := s.RouteGroupSegment(traffic.All)
	if err != nil {
		t.Fatal(err)
	}
	group.Spec.Routes[0].Predicates = []string{"TrafficSegment(2, 1)"}
	if _, _, err := LiveRouteGroup(group); err == nil || !strings.HasPrefix(err.Error(), "routegroup default/my-app-v1-traffic-segment: route 0:") {
		t.Error(err)
	}
}

func TestConfigurationThatIsThereIsAdopted(t *testing.T) {
	s := source(t, "", "configurationResources: [{configMapRef: {name: my-app-v1-c}}, {secretRef: {name: my-app-v1-s}}]", Options{})
	configMaps, secrets, err := s.References()
	if diff := cmp.Diff([][]string{{"my-app-v1-c"}, {"my-app-v1-s"}}, [][]string{configMaps, secrets}); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	owned := func(uid types.UID) *corev1.Secret {
		return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "my-app-v1-s", OwnerReferences: []metav1.OwnerReference{{UID: uid}}}}
	}
	free := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "my-app-v1-s", Labels: map[string]string{"application": "own", "x": "y"}, Annotations: map[string]string{"a": "b"}}}
	if adopted, err := s.Adopt("Secret", free); !adopted || err != nil {
		t.Fatalf("%v, %v", adopted, err)
	}
	want := metav1.ObjectMeta{Name: "my-app-v1-s", Labels: map[string]string{"application": "own", "x": "y", "stackset": "my-app", "stack-version": "v1"},
		Annotations:     map[string]string{"a": "b", StackGenerationAnnotation: "1"},
		OwnerReferences: []metav1.OwnerReference{{APIVersion: "zalando.org/v1", Kind: "Stack", Name: "my-app-v1", UID: "stack-uid"}}}
	if diff := cmp.Diff(want, free.ObjectMeta); diff != "" {
		t.Errorf("adopted (-want +got):\n%s", diff)
	}
	if adopted, err := s.Adopt("Secret", free); adopted || err != nil {
		t.Errorf("again: %v, %v", adopted, err)
	}
	if _, err := s.Adopt("Secret", owned("other")); err == nil || err.Error() != "secret already owned by other resource. Secret: my-app-v1-s, Stack: my-app-v1" {
		t.Error(err)
	}
	if _, err := s.Adopt("ConfigMap", owned("other")); err == nil || err.Error() != "ConfigMap already owned by other resource. ConfigMap: my-app-v1-s, Stack: my-app-v1" {
		t.Error(err)
	}
	s = source(t, "", "configurationResources: [{configMapRef: {name: c}}, {secretRef: {name: s}}, {platformCredentialsSet: {name: p, tokens: {}}}]", Options{})
	if _, _, err := s.References(); err == nil || strings.Count(err.Error(), `does not begin with the stack's, "my-app-v1"`) != 3 {
		t.Error(err)
	}
}

func TestCredentialsNeedAnApplicationAndTokens(t *testing.T) {
	s := source(t, "", "configurationResources: [{platformCredentialsSet: {name: my-app-v1-p, tokens: {}}}]", Options{})
	if _, err := s.PlatformCredentialsSets(); err == nil || err.Error() != "platformCredentialsSet has no tokens" {
		t.Error(err)
	}
	delete(s.Stack.Labels, ApplicationLabel)
	if _, err := s.PlatformCredentialsSets(); err == nil || err.Error() != "stack has no label application" {
		t.Error(err)
	}
}
