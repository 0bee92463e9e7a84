package validation

import (
	"encoding/json"
	"fmt"
	"math/rand"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/apitesting/fuzzer"
	metafuzzer "k8s.io/apimachinery/pkg/apis/meta/fuzzer"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"sigs.k8s.io/yaml"

	zalando "github.com/kubetide/kubetide/api/zalando/v1"
)

// read makes a StackSet of YAML: what is said of the spec, and of the Stack's, beside what is fine.
func read(t testing.TB, metadata, spec, stack string) *zalando.StackSet {
	t.Helper()
	parse := func(base map[string]any, text string) map[string]any {
		said := map[string]any{}
		if err := yaml.Unmarshal([]byte(text), &said); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		for k, v := range said {
			base[k] = v
		}
		return base
	}
	all := parse(map[string]any{"stackLifecycle": map[string]any{}}, spec)
	all["stackTemplate"] = map[string]any{"spec": parse(map[string]any{"version": "v2", "podTemplate": parse(map[string]any{}, pods("{name: app, image: a, ports: [{containerPort: 8080, name: http}]}"))["podTemplate"]}, stack)}
	if annotations, ok := all["templateAnnotations"]; ok {
		all["stackTemplate"].(map[string]any)["metadata"] = map[string]any{"annotations": annotations}
		delete(all, "templateAnnotations")
	}
	text, err := json.Marshal(map[string]any{"metadata": parse(map[string]any{"namespace": "shop", "name": "cart"}, metadata), "spec": all})
	if err != nil {
		t.Fatal(err)
	}
	set := &zalando.StackSet{}
	if err := yaml.UnmarshalStrict(text, set); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return set
}

func pods(containers string) string { return "podTemplate: {spec: {containers: [" + containers + "]}}" }

func autoscaler(metrics string) string {
	return pods("{name: app, image: a, resources: {requests: {cpu: 100m, memory: 1Mi}}}") + "\nautoscaler: {maxReplicas: 3, metrics: [" + metrics + "]}"
}

var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func ihpa(annotation string) string {
	return fmt.Sprintf("templateAnnotations: {kubetide.io/ihpa: %q}", annotation)
}

const (
	ingress    = "ingress: {hosts: [a.example.org], backendPort: http}"
	routeGroup = "routegroup: {hosts: [a.example.org], backendPort: 8080, routes: [{pathSubtree: /}]}"
	long       = "a-version-that-makes-of-it-more-than-a-service-can-be-called-by"
)

// Each entry is the beginnings of all errors, then of all warnings.
func TestMistakesAreNamedByTheirField(t *testing.T) {
	for name, c := range map[string]struct {
		metadata, spec, stack string
		stacks                []string
		errs, warnings        []string
	}{
		"nothing is wrong": {spec: ingress + "\n" + routeGroup + "\ntraffic: [{stackName: cart-v1, weight: 100}, {stackName: cart-v2, weight: 0}]", stacks: []string{"cart-v1"},
			stack: "autoscaler: {minReplicas: 1, maxReplicas: 3, metrics: [{type: RouteGroup, average: 30}], behavior: {scaleDown: {policies: [{type: Pods, value: 1, periodSeconds: 60}]}}}"},
		"the least that there can be": {},
		"nobody knows the Stacks":     {spec: ingress + "\ntraffic: [{stackName: cart-v1, weight: 1}]"},

		"a negative weight":              {spec: ingress + "\ntraffic: [{stackName: cart-v2, weight: -1}]", errs: []string{`spec.traffic[0].weight: Invalid value: -1: must be from 0 to 100`}},
		"a weight above all":             {spec: ingress + "\ntraffic: [{stackName: cart-v2, weight: 100.5}]", errs: []string{`spec.traffic[0].weight: Invalid value: 100.5: must be from 0 to 100`}},
		"a Stack named twice":            {spec: ingress + "\ntraffic: [{stackName: cart-v2, weight: 1}, {stackName: cart-v2, weight: 2}]", errs: []string{`spec.traffic[1].stackName: Duplicate value: "cart-v2 (of traffic[0]); name it once`}},
		"an unknown Stack":               {spec: ingress + "\ntraffic: [{stackName: cart-v9, weight: 1}]", stacks: []string{"cart-v1"}, warnings: []string{"spec.traffic[0].stackName: there is no Stack cart-v9: its weight does not count; there is cart-v1, cart-v2"}},
		"an entry that says nothing":     {spec: ingress + "\ntraffic: [null]", errs: []string{"spec.traffic[0]: Required value: write stackName and weight"}},
		"weights of nothing":             {spec: "traffic: [{stackName: cart-v2, weight: 1}]", warnings: []string{"spec.traffic: has no effect: without ingress"}},
		"a limit below 1":                {spec: "stackLifecycle: {limit: 0}", errs: []string{"spec.stackLifecycle.limit: Invalid value: 0: must be at least 1"}},
		"a time to live below 0":         {spec: "stackLifecycle: {scaledownTTLSeconds: -1}", warnings: []string{"spec.stackLifecycle.scaledownTTLSeconds: -1 is below 0"}},
		"a share above all pods":         {spec: "minReadyPercent: 101", warnings: []string{"spec.minReadyPercent: 101 counts as 100"}},
		"a share below none":             {spec: "minReadyPercent: -1", warnings: []string{"spec.minReadyPercent: -1 counts as 100"}},
		"a delay that is no duration":    {metadata: "annotations: {alpha.stackset-controller.zalando.org/reset-hpa-min-replicas-delay: ten}", warnings: []string{`metadata.annotations: annotation alpha.stackset-controller.zalando.org/reset-hpa-min-replicas-delay: "ten" is not a duration such as 10m; 10m0s counts`}},
		"a version with dots":            {stack: "version: 1.2.3", errs: []string{`spec.stackTemplate.spec.version: Invalid value: "1.2.3": "cart-1.2.3" would name the Stack and its Service, which takes no dot: write 1-2-3`}},
		"a version that is too long":     {stack: "version: " + long, errs: []string{`spec.stackTemplate.spec.version: Invalid value: "` + long + `": "cart-` + long + `" would name the Stack and its Service, which takes 63 characters; it has 68`}},
		"a name with dots":               {metadata: "name: my.cart", errs: []string{`metadata.name: Invalid value: "my.cart": "my.cart-v2" would name the Stack and its Service, which takes no dot: write my-cart`}},
		"a version that ends in nothing": {stack: "version: v2-", errs: []string{`spec.stackTemplate.spec.version: Invalid value: "v2-": "cart-v2-" would name the Stack and its Service: lower case`}},

		"a host that is none":             {spec: "ingress: {hosts: [A.org, '*.b.org', 'c_d'], backendPort: http}", errs: []string{`spec.ingress.hosts[0]: Invalid value: "A.org": `, `spec.ingress.hosts[2]: Invalid value: "c_d": `}},
		"a path without its root":         {spec: "ingress: {hosts: [a.org], backendPort: http, path: api}", errs: []string{`spec.ingress.path: Invalid value: "api": must begin with /`}},
		"an annotation that is none":      {spec: "ingress: {hosts: [a.org], backendPort: http, metadata: {annotations: {'a b': c}}}", errs: []string{`spec.ingress.metadata.annotations[a b]: Invalid value: "a b": `}},
		"a RouteGroup's host":             {spec: "routegroup: {hosts: ['*.a.org', b.org.], backendPort: 8080, routes: [{}]}", errs: []string{`spec.routegroup.hosts[0]: Invalid value: "*.a.org": `}},
		"a backend with the Stack's name": {spec: "routegroup: {hosts: [a.org], backendPort: 8080, routes: [{}], additionalBackends: [{name: cart-v2, type: shunt}]}", errs: []string{`spec.routegroup.additionalBackends[0].name: Invalid value: "cart-v2": is the Stack's own backend`}},
		"a backend of the Stack's pods":   {spec: "routegroup: {hosts: [a.org], backendPort: 8080, routes: [{}], additionalBackends: [{name: a, type: service, serviceName: cart-v2}]}", errs: []string{`spec.routegroup.additionalBackends[0].serviceName: Invalid value: "cart-v2": is the Stack's own Service`}},
		"a route to nowhere": {spec: "routegroup: {hosts: [a.org], backendPort: 8080, routes: [{backends: [{backendName: b}, {backendName: cart-v2}, {backendName: gone}]}], additionalBackends: [{name: b, type: shunt}]}",
			warnings: []string{`spec.routegroup.routes[0].backends[2].backendName: there is no backend "gone"`}},

		"a number that no port has":              {spec: "ingress: {hosts: [a.org], backendPort: 80}", errs: []string{`spec.ingress.backendPort: Invalid value: "80": no port of the Stack's Service has that number; there is http (8080)`}},
		"a name that no port has":                {spec: "ingress: {hosts: [a.org], backendPort: web}", errs: []string{`spec.ingress.backendPort: Invalid value: "web": no port of the Stack's Service has that name; there is http (8080)`}},
		"a number in quotes":                     {spec: "ingress: {hosts: [a.org], backendPort: '8080'}", errs: []string{`spec.ingress.backendPort: Invalid value: "8080": no port of the Stack's Service has that name; there is http (8080): a number stands without quotes`}},
		"a RouteGroup's port":                    {spec: "routegroup: {hosts: [a.org], backendPort: 80, routes: [{}]}", errs: []string{`spec.routegroup.backendPort: Invalid value: "80": no port of the Stack's Service has that number`}},
		"another controller's port":              {spec: "externalIngress: {backendPort: 80}", errs: []string{`spec.externalIngress.backendPort: Invalid value: "80": `}},
		"Ingress and RouteGroup differ":          {spec: ingress + "\n" + strings.Replace(routeGroup, "8080", "81", 1), errs: []string{`spec.routegroup.backendPort: Invalid value: 81: the Ingress leads to port 8080`}},
		"no port at all":                         {spec: ingress, stack: pods("{name: app, image: a}"), errs: []string{`spec.ingress.backendPort: Invalid value: "http": no port of the Stack's Service has that name; there is none: give a container a port`}},
		"no port and no way in":                  {stack: pods("{name: app, image: a}")},
		"two containers with one port":           {stack: pods("{name: a, image: a, ports: [{containerPort: 80}]}, {name: b, image: a, ports: [{containerPort: 80}]}"), errs: []string{"spec.stackTemplate.spec.podTemplate.spec.containers: Invalid value: 80: a Service has each port once for each protocol, and 80/TCP is here twice"}},
		"one port of two protocols":              {stack: pods("{name: a, image: a, ports: [{containerPort: 80}, {containerPort: 80, protocol: UDP}]}")},
		"ports without names":                    {stack: "service: {ports: [{port: 8080}, {port: 81, targetPort: 8080}]}", errs: []string{"spec.stackTemplate.spec.service.ports[0].name: Required value", "spec.stackTemplate.spec.service.ports[1].name: Required value"}},
		"ports of one name":                      {stack: "service: {ports: [{port: 8080, name: a}, {port: 81, targetPort: 8080, name: a}]}", errs: []string{`spec.stackTemplate.spec.service.ports[1].name: Invalid value: "a": is another port's name, too`}},
		"a port's name that is none":             {stack: "service: {ports: [{port: 8080, name: A_b}]}", errs: []string{`spec.stackTemplate.spec.service.ports[0].name: Invalid value: "A_b": `}},
		"a port out of range":                    {stack: "service: {ports: [{port: 70000, targetPort: 8080}]}", errs: []string{`spec.stackTemplate.spec.service.ports[0].port: Invalid value: "70000": `}},
		"a target that no container has":         {stack: "service: {ports: [{port: 80}]}", warnings: []string{"spec.stackTemplate.spec.service.ports[0].targetPort: no container has the port 80"}},
		"a target's name that no container has":  {stack: pods("{name: app, image: a}") + "\nservice: {ports: [{port: 80, targetPort: web}]}", warnings: []string{"spec.stackTemplate.spec.service.ports[0].targetPort: no container has the port web"}},
		"a target in an image that says nothing": {stack: pods("{name: app, image: a}") + "\nservice: {ports: [{port: 80, targetPort: 9090}]}"},
		"a Service's annotation that is none":    {stack: "service: {metadata: {annotations: {'a b': c}}}", errs: []string{"spec.stackTemplate.spec.service.metadata.annotations[a b]: "}},

		"no container":                   {stack: "podTemplate: {spec: {containers: []}}", errs: []string{"spec.stackTemplate.spec.podTemplate.spec.containers: Required value"}},
		"pods that end":                  {stack: "podTemplate: {spec: {restartPolicy: Never, containers: [{name: a}]}}", errs: []string{`spec.stackTemplate.spec.podTemplate.spec.restartPolicy: Invalid value: "Never": `}},
		"a label that is the selector's": {stack: "podTemplate: {metadata: {labels: {stack-version: mine, stackset: cart}}, spec: {containers: [{name: a}]}}", errs: []string{`spec.stackTemplate.spec.podTemplate.metadata.labels[stack-version]: Invalid value: "mine": the Stack's pods are selected by stack-version=v2`}},
		"replicas below 0":               {stack: "replicas: -1\nminReadySeconds: -1", errs: []string{"spec.stackTemplate.spec.replicas: ", "spec.stackTemplate.spec.minReadySeconds: "}},
		"a RouteGroup's annotation":      {spec: "routegroup: {hosts: [a.org], backendPort: 8080, routes: [{}], metadata: {annotations: {'a b': c}}}", errs: []string{"spec.routegroup.metadata.annotations[a b]: "}},
		"a pod's annotation":             {stack: "podTemplate: {metadata: {annotations: {'a b': c}}, spec: {containers: [{name: a}]}}", errs: []string{"spec.stackTemplate.spec.podTemplate.metadata.annotations[a b]: "}},
		"a Stack's annotation":           {spec: "templateAnnotations: {'a b': c}", errs: []string{"spec.stackTemplate.metadata.annotations[a b]: "}},

		"minReplicas above maxReplicas": {stack: "autoscaler: {minReplicas: 4, maxReplicas: 3, metrics: []}", errs: []string{"spec.stackTemplate.spec.autoscaler.maxReplicas: Invalid value: 3: must not be less than minReplicas, which is 4"}},
		"minReplicas below 0":           {stack: "autoscaler: {minReplicas: -1, maxReplicas: 3, metrics: []}", errs: []string{"spec.stackTemplate.spec.autoscaler.minReplicas: Invalid value: -1: "}},
		"minReplicas of 0":              {stack: "autoscaler: {minReplicas: 0, maxReplicas: 3, metrics: []}", warnings: []string{"spec.stackTemplate.spec.autoscaler.minReplicas: 0 is refused by clusters without the feature gate HPAScaleToZero"}},
		"maxReplicas of 0":              {stack: "autoscaler: {maxReplicas: 0, metrics: []}", errs: []string{"spec.stackTemplate.spec.autoscaler.maxReplicas: Invalid value: 0: must be at least 1"}},
		"cpu of nothing":                {stack: autoscaler("{type: CPU}"), errs: []string{`spec.stackTemplate.spec.autoscaler.metrics[0]: Invalid value: "CPU": autoscaler metric of type CPU: utilization is not specified: write averageUtilization`}},
		"a share of 0":                  {stack: autoscaler("{type: CPU, averageUtilization: 0}"), errs: []string{"spec.stackTemplate.spec.autoscaler.metrics[0].averageUtilization: Invalid value: 0: must be above 0"}},
		"a value of 0":                  {stack: autoscaler("{type: AmazonSQS, average: 0, queue: {name: a, region: b}}"), errs: []string{`spec.stackTemplate.spec.autoscaler.metrics[0].average: Invalid value: "0": must be above 0`}},
		"a queue of nowhere":            {stack: autoscaler("{type: AmazonSQS, average: 30, queue: {name: a, region: ''}}"), errs: []string{`spec.stackTemplate.spec.autoscaler.metrics[0]: Invalid value: "AmazonSQS": autoscaler metric of type AmazonSQS: queue not specified correctly: write average, and queue`}},
		"the second of two":             {stack: autoscaler("{type: CPU, averageUtilization: 80}, {type: PodJSON, average: 1}"), errs: []string{`spec.stackTemplate.spec.autoscaler.metrics[1]: Invalid value: "PodJSON": `}},
		"a metric whose name is none":   {stack: autoscaler("{type: PodJSON, average: 1, endpoint: {name: current_load, port: 80, path: /, key: $.a}}"), errs: []string{`spec.stackTemplate.spec.autoscaler.metrics[0]: Invalid value: "PodJSON": the autoscaler would have the annotation metric-config.pods.current_load.json-path/`}},
		"a metric by its key":           {stack: autoscaler("{type: PodJson, average: 1, endpoint: {port: 80, path: /, key: $.http_server.rps}}")},
		"no schedule":                   {stack: autoscaler("{type: ScalingSchedule, average: 1}"), errs: []string{`spec.stackTemplate.spec.autoscaler.metrics[0]: Invalid value: "ScalingSchedule": autoscaler metric of type ScalingSchedule: missing (Cluster)ScalingSchedule metric definition: write average, and scalingSchedule with name`}},
		"no check":                      {stack: autoscaler("{type: ZMON, average: 1}"), errs: []string{`spec.stackTemplate.spec.autoscaler.metrics[0]: Invalid value: "ZMON": `}},
		"a tag that is none":            {stack: autoscaler("{type: ZMON, average: 1, zmon: {checkID: '1', key: a, tags: {'a b': c}}}"), errs: []string{`spec.stackTemplate.spec.autoscaler.metrics[0]: Invalid value: "ZMON": the autoscaler would have the annotation metric-config.external.zmon-check-0.zmon/tag-a b`}},
		"an unknown type":               {stack: autoscaler("{type: Disk, average: 1}"), errs: []string{`spec.stackTemplate.spec.autoscaler.metrics[0]: Invalid value: "Disk": autoscaler metric of type Disk: metric type Disk not supported`}},
		"a host with a star":            {stack: autoscaler("{type: RequestsPerSecond, average: 1, requestsPerSecond: {hostnames: [a.org, '*.b.org']}}"), errs: []string{`spec.stackTemplate.spec.autoscaler.metrics[0].requestsPerSecond.hostnames[1]: Invalid value: "*.b.org": is no host name`}},
		"requests of no Ingress":        {stack: autoscaler("{type: Ingress, average: 1}, {type: RouteGroup, average: 1}"), warnings: []string{"spec.stackTemplate.spec.autoscaler.metrics[0]: there is no spec.ingress", "spec.stackTemplate.spec.autoscaler.metrics[1]: there is no spec.routegroup"}},
		"a percentage of nothing": {stack: pods("{name: a, image: a, resources: {limits: {cpu: 1}}}, {name: b, image: b}") + "\nautoscaler: {maxReplicas: 3, metrics: [{type: CPU, averageUtilization: 80}, {type: Memory, container: a, averageUtilization: 80}]}",
			warnings: []string{"spec.stackTemplate.spec.autoscaler.metrics[0]: needs podTemplate.spec.containers[1].resources.requests.cpu", "spec.stackTemplate.spec.autoscaler.metrics[1]: needs podTemplate.spec.containers[0].resources.requests.memory"}},
		"a container of nobody": {stack: autoscaler("{type: CPU, averageUtilization: 80, container: web}"), warnings: []string{`spec.stackTemplate.spec.autoscaler.metrics[0].container: the podTemplate has no container "web"`}},
		"a behavior that no HPA can have": {stack: "autoscaler: {maxReplicas: 3, metrics: [], behavior: {scaleUp: {stabilizationWindowSeconds: 3601, selectPolicy: All, tolerance: '-1'}, scaleDown: {policies: [{type: Bytes, value: 0, periodSeconds: 1801}]}}}",
			errs: []string{"spec.stackTemplate.spec.autoscaler.behavior.scaleUp.stabilizationWindowSeconds: ", "spec.stackTemplate.spec.autoscaler.behavior.scaleUp.selectPolicy: Unsupported value", "spec.stackTemplate.spec.autoscaler.behavior.scaleUp.tolerance: ",
				"spec.stackTemplate.spec.autoscaler.behavior.scaleDown.policies[0].type: Unsupported value", "spec.stackTemplate.spec.autoscaler.behavior.scaleDown.policies[0].value: ", "spec.stackTemplate.spec.autoscaler.behavior.scaleDown.policies[0].periodSeconds: "}},

		"names that all versions share": {metadata: "labels: {application: a}", stack: "configurationResources: [{configMapRef: {name: config}}, {secretRef: {name: secret}}, {platformCredentialsSet: {name: p, tokens: {a: {privileges: []}}}}, {configMapRef: {name: cart-v2-config}}]",
			errs: []string{`spec.stackTemplate.spec.configurationResources[0].configMapRef.name: Invalid value: "config": must begin with the Stack's name, cart-v2`, `spec.stackTemplate.spec.configurationResources[1].secretRef.name: `, `spec.stackTemplate.spec.configurationResources[2].platformCredentialsSet.name: `}},
		"credentials of no application": {stack: "configurationResources: [{platformCredentialsSet: {name: cart-v2-p}}]", errs: []string{"spec.stackTemplate.spec.configurationResources[0].platformCredentialsSet.tokens: Required value", "metadata.labels[application]: Required value"}},
		"a ConfigMap of its own":        {stack: "configurationResources: [{configMap: {name: A_b, data: {'a b': c}}}]", errs: []string{`spec.stackTemplate.spec.configurationResources[0].configMap.name: Invalid value: "cart-v2-A_b": `, "spec.stackTemplate.spec.configurationResources[0].configMap.data[a b]: "}},
		"none and several":              {stack: "configurationResources: [{}, {configMapRef: {name: cart-v2-a}, secretRef: {name: cart-v2-b}}]", warnings: []string{"spec.stackTemplate.spec.configurationResources[0]: is empty", "spec.stackTemplate.spec.configurationResources[1]: names 2 resources"}},

		"an IHPA":                        {spec: ihpa("{behavior: {scaleDown: {grayStrategy: {grayState: Cutoff, changePercent: 50, changeIntervalSeconds: 30}}}}"), stack: autoscaler("{type: CPU, averageUtilization: 80}")},
		"an IHPA in another cluster":     {spec: `templateAnnotations: {kubetide.io/ihpa: "{}", zalando.org/forward-backend: fwd}`, stack: autoscaler("{type: CPU, averageUtilization: 80}")},
		"an IHPA of nothing":             {spec: ihpa("{}"), warnings: []string{"spec.stackTemplate.metadata.annotations[kubetide.io/ihpa]: has no effect"}},
		"an IHPA that cannot be read":    {spec: ihpa("{replicas: 3}"), stack: autoscaler("{type: CPU, averageUtilization: 80}"), errs: []string{`spec.stackTemplate.metadata.annotations[kubetide.io/ihpa]: Invalid value: annotation kubetide.io/ihpa: error unmarshaling JSON`}},
		"an IHPA with a mistake":         {spec: ihpa("{scheduledBounds: [{name: never, start: 0 0 31 2 *, end: 0 1 * * *, minReplicas: 2}]}"), stack: autoscaler("{type: CPU, averageUtilization: 80}"), errs: []string{`spec.stackTemplate.metadata.annotations[kubetide.io/ihpa]: Invalid value: the IHPA's spec.scheduledBounds[0].start: Invalid value: "0 0 31 2 *": cron expression never fires`}},
		"an IHPA that is doubtful":       {spec: ihpa("{scheduledBounds: [{name: same, start: 0 1 * * *, end: 0 1 * * *, minReplicas: 2}]}"), stack: autoscaler("{type: CPU, averageUtilization: 80}"), warnings: []string{"spec.stackTemplate.metadata.annotations[kubetide.io/ihpa]: the IHPA's spec.scheduledBounds[0]: never opens"}},
		"a metric before the annotation": {spec: ihpa("{replicas: 3}"), stack: autoscaler("{type: CPU}"), errs: []string{"spec.stackTemplate.spec.autoscaler.metrics[0]: "}},
	} {
		t.Run(name, func(t *testing.T) {
			set := read(t, c.metadata, c.spec, c.stack)
			before := set.DeepCopy()
			errs, warnings := StackSet(set, Around{Now: now, Stacks: c.stacks})
			var said []string
			for _, e := range errs {
				said = append(said, e.Error())
			}
			begin(t, "errors", said, c.errs)
			begin(t, "warnings", warnings, c.warnings)
			if diff := cmp.Diff(before, set); diff != "" {
				t.Errorf("it was changed:\n%s", diff)
			}
		})
	}
}

func begin(t *testing.T, what string, got, want []string) {
	t.Helper()
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(want):
			t.Errorf("%s too many: %s", what, got[i])
		case i >= len(got):
			t.Errorf("%s lack: %s", what, want[i])
		case !strings.HasPrefix(got[i], want[i]):
			t.Errorf("%s: %s, want %s", what, got[i], want[i])
		}
	}
}

func TestErrorsAreBounded(t *testing.T) {
	var hosts []string
	for i := range 500 {
		hosts = append(hosts, fmt.Sprintf("A%d", i))
	}
	errs, _ := StackSet(read(t, "", "ingress: {backendPort: http, hosts: ["+strings.Join(hosts, ", ")+"]}", ""), Around{})
	if len(errs) != maxErrors+1 {
		t.Errorf("%d errors", len(errs))
	}
}

// Nothing that can be stored breaks it.
func TestWhateverIsStored(t *testing.T) {
	scheme := runtime.NewScheme()
	if err := zalando.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	fuzz := fuzzer.FuzzerFor(metafuzzer.Funcs, rand.NewSource(1), serializer.NewCodecFactory(scheme))
	for range 300 {
		set := &zalando.StackSet{}
		fuzz.Fill(set)
		StackSet(set, Around{Now: now, Stacks: []string{"a"}})
	}
}
