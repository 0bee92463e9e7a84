// Package helm_test holds the chart to its values: each is wired, described and checked.
package helm_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"gopkg.in/yaml.v3"

	"github.com/kubetide/kubetide/test/lab/build"
)

const chart = "kubetide"

var helmPath = sync.OnceValues(func() (string, error) {
	binaries, err := build.Binaries(context.Background(), os.Stderr, "helm")
	return binaries["helm"], err
})

func helm(t *testing.T, args ...string) (string, error) {
	t.Helper()
	path, err := helmPath()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	return string(out), errors.Join(err, lines(stderr.String()))
}

func lines(text string) error {
	if text = strings.TrimSpace(text); text != "" {
		return errors.New(text)
	}
	return nil
}

// template renders without the CRDs, which take long.
func template(t *testing.T, values string, args ...string) (string, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "values.yaml")
	if err := os.WriteFile(file, []byte(values), 0o644); err != nil {
		t.Fatal(err)
	}
	return helm(t, append([]string{"template", "tide", chart, "--namespace=ns", "--values=" + file, "--set=crds.install=false"}, args...)...)
}

// change is a value that is not the default, with others that it needs, and what must then stand in the output.
type change struct {
	values string
	want   []string
	gone   []string
}

// Each value of values.yaml stands here, by its path.
var changes = map[string]change{
	"replicas":                           {values: "replicas: 7", want: []string{"  replicas: 7\n"}},
	"modules":                            {values: "modules: [adapter, step]", want: []string{"- adapter\n    - step\n"}, gone: []string{"name: kubetide-engine\n", "kind: MutatingWebhookConfiguration", "name: kubetide-stackset\n", "kubetide-cleanup"}},
	"image.repository":                   {values: "image: {repository: r.example/tide}", want: []string{"image: r.example/tide:0.1.0\n"}},
	"image.tag":                          {values: "image: {tag: v9}", want: []string{"image: kubetide/kubetide:v9\n"}},
	"image.pullPolicy":                   {values: "image: {pullPolicy: Always}", want: []string{"imagePullPolicy: Always\n"}},
	"imagePullSecrets":                   {values: "imagePullSecrets: [{name: registry}]", want: []string{"imagePullSecrets:\n        - name: registry\n"}},
	"config":                             {values: `config: {prometheus: {server: "http://p"}, serving: {bind_address: "::"}}`, want: []string{"server: http://p\n", "bind_address: '::'\n      secure_port: 6443\n"}},
	"extraArgs":                          {values: "extraArgs: [--log.level=debug]", want: []string{"- \"--log.level=debug\"\n"}},
	"extraEnv":                           {values: "extraEnv: [{name: AWS_REGION, value: eu}]", want: []string{"- name: AWS_REGION\n              value: eu\n"}},
	"extraVolumes":                       {values: "extraVolumes: [{name: tokens, secret: {secretName: tokens}}]", want: []string{"secretName: tokens\n"}},
	"extraVolumeMounts":                  {values: "extraVolumeMounts: [{name: tokens, mountPath: /tokens}]", want: []string{"mountPath: /tokens\n"}},
	"ports.https":                        {values: "ports: {https: 7443}", want: []string{"secure_port: 7443\n", "{name: https, containerPort: 7443}"}, gone: []string{"6443"}},
	"ports.admin":                        {values: "ports: {admin: 7002}", want: []string{"admin:\n      port: 7002\n", "{name: admin, containerPort: 7002}", "{name: admin, port: 7002,"}, gone: []string{"8002"}},
	"ports.gossip":                       {values: "ports: {gossip: 7003}", want: []string{"bind_addr: :7003", "{name: gossip-udp, containerPort: 7003, protocol: UDP}", "{name: gossip-udp, port: 7003,"}, gone: []string{"8003"}},
	"ports.stream":                       {values: "ports: {stream: 7004}", want: []string{"bind_addr: :7004", "{name: stream, containerPort: 7004}", "{name: stream, port: 7004,"}, gone: []string{"8004"}},
	"ports.webhook":                      {values: "ports: {webhook: 7943}", want: []string{"webhook:\n      port: 7943\n", "{name: webhook, containerPort: 7943}"}},
	"cluster.enabled":                    {values: "cluster: {enabled: false}", gone: []string{"node_id_prefix", "join:"}},
	"cluster.name":                       {values: "cluster: {name: west}", want: []string{"name: west\n"}},
	"cluster.sharding":                   {values: `cluster: {sharding: "off"}`, want: []string{`sharding: "off"`}},
	"cluster.gossipSecret":               {values: "cluster: {gossipSecret: gossip-keys}", want: []string{"secret_key_file: /etc/kubetide-gossip/keys", "secretName: gossip-keys", "mountPath: /etc/kubetide-gossip"}},
	"engine.separate":                    {values: "engine: {separate: true}", want: []string{"kind: Deployment", "--modules=engine,step,stackset", "service_name:\n      - kubetide\n      - kubetide-engine\n", "join:\n      - kubetide-headless\n      - kubetide-engine-headless\n", "name: kubetide-engine-headless", "serviceAccountName: kubetide-engine", "--modules=adapter\n", `"system:serviceaccount:ns:kubetide-engine"`, "service: {name: kubetide-engine, namespace: ns, port: 9443"}},
	"engine.replicas":                    {values: "engine: {separate: true, replicas: 5}", want: []string{"replicas: 5\n"}},
	"engine.resources":                   {values: "engine: {separate: true, resources: {requests: {cpu: 77m}}}", want: []string{"cpu: 77m\n"}},
	"engine.validation":                  {values: "engine: {validation: warn}", want: []string{"validation: warn\n"}},
	"scaleTargets":                       {values: "scaleTargets: [{apiGroup: argoproj.io, resources: [rollouts]}]", want: []string{"- apiGroups: [argoproj.io]\n    resources: [rollouts/scale]\n    verbs: [get]\n", "- apiGroups: [argoproj.io]\n    resources: [rollouts/scale]\n    verbs: [get, update, patch]\n", "- apiGroups: [argoproj.io]\n    resources: [rollouts]\n    verbs: [get, list, watch]\n"}, gone: []string{"statefulsets/scale"}},
	"metricsAPIs.custom":                 {values: "metricsAPIs: {custom: false}", want: []string{"enable_custom_metrics_api: false"}, gone: []string{"name: v1beta1.custom.metrics.k8s.io", "name: v1beta2.custom.metrics.k8s.io", "/apis/custom.metrics"}},
	"metricsAPIs.external":               {values: "metricsAPIs: {external: false}", want: []string{"enable_external_metrics_api: false"}, gone: []string{"name: v1beta1.external.metrics.k8s.io", "/apis/external.metrics"}},
	"webhooks.enabled":                   {values: "webhooks: {enabled: false}", gone: []string{"kind: MutatingWebhookConfiguration", "kind: ValidatingWebhookConfiguration"}},
	"webhooks.timeoutSeconds":            {values: "webhooks: {timeoutSeconds: 1}", want: []string{"timeoutSeconds: 1\n    objectSelector", "timeoutSeconds: 1\n    rules"}},
	"certificates.source":                {values: "{certificates: {source: cert-manager}, engine: {separate: true}}", want: []string{"tls_cert_file: /etc/kubetide-tls/tls.crt", "ca_file: /etc/kubetide-tls/ca.crt", "secret: {secretName: kubetide-tls}", "{cert-manager.io/inject-ca-from: ns/kubetide}", "kind: Issuer", "- kubetide.ns.svc\n", "- kubetide-engine.ns.svc\n"}, gone: []string{"kubetide-certs", "kubetide-engine-tls"}},
	"certificates.issuerRef":             {values: "certificates: {source: cert-manager, issuerRef: {kind: ClusterIssuer, name: internal}}", want: []string{"kind: ClusterIssuer\n    name: internal\n"}, gone: []string{"kind: Issuer"}},
	"certificates.duration":              {values: "certificates: {source: cert-manager, duration: 100h}", want: []string{"duration: 100h\n"}},
	"certificates.renewBefore":           {values: "certificates: {source: cert-manager, renewBefore: 50h}", want: []string{"renewBefore: 50h\n"}},
	"serviceAccount.create":              {values: "serviceAccount: {create: false}", gone: []string{"kind: ServiceAccount\nmetadata:\n  name: kubetide\n"}},
	"serviceAccount.name":                {values: "serviceAccount: {name: tide}", want: []string{"serviceAccountName: tide\n", "{kind: ServiceAccount, name: tide, namespace: ns}", `"system:serviceaccount:ns:tide"`}, gone: []string{"{kind: ServiceAccount, name: kubetide, "}},
	"serviceAccount.annotations":         {values: "serviceAccount: {annotations: {role: arn}}", want: []string{"annotations:\n    role: arn\n"}},
	"crds.install":                       {gone: []string{"kind: CustomResourceDefinition"}},
	"crds.keep":                          {values: "crds: {keep: false}"},
	"cleanup.enabled":                    {values: "cleanup: {enabled: false}", gone: []string{"kubetide-cleanup"}},
	"shutdownDelaySeconds":               {values: "shutdownDelaySeconds: 11", want: []string{"shutdown_delay: 11s\n"}},
	"gracePeriodSeconds":                 {values: "gracePeriodSeconds: 61", want: []string{"grace_period: 61s\n", "terminationGracePeriodSeconds: 76\n"}},
	"podManagementPolicy":                {values: "podManagementPolicy: Parallel", want: []string{"podManagementPolicy: Parallel\n"}},
	"resources":                          {values: "resources: {requests: {cpu: 88m}}", want: []string{"cpu: 88m\n"}},
	"goMemLimit":                         {values: "goMemLimit: 1GiB", want: []string{"{name: GOMEMLIMIT, value: 1GiB}"}},
	"podAnnotations":                     {values: "podAnnotations: {team: blue}", want: []string{"        team: blue\n"}},
	"podLabels":                          {values: "podLabels: {tier: core}", want: []string{"        tier: core\n"}},
	"priorityClassName":                  {values: "priorityClassName: high", want: []string{"priorityClassName: high\n"}},
	"nodeSelector":                       {values: "nodeSelector: {disk: ssd}", want: []string{"nodeSelector:\n        disk: ssd\n"}},
	"tolerations":                        {values: "tolerations: [{key: core}]", want: []string{"tolerations:\n        - key: core\n"}},
	"affinity":                           {values: "affinity: {nodeAffinity: {}}", want: []string{"affinity:\n        nodeAffinity: {}\n"}},
	"topologySpreadConstraints":          {values: "topologySpreadConstraints: [{maxSkew: 3, topologyKey: rack, whenUnsatisfiable: DoNotSchedule}]", want: []string{"maxSkew: 3\n          topologyKey: rack\n          whenUnsatisfiable: DoNotSchedule\n          labelSelector:\n"}, gone: []string{"kubernetes.io/hostname"}},
	"podDisruptionBudget.enabled":        {values: "podDisruptionBudget: {enabled: false}", gone: []string{"kind: PodDisruptionBudget"}},
	"podDisruptionBudget.maxUnavailable": {values: `podDisruptionBudget: {maxUnavailable: 34%}`, want: []string{"maxUnavailable: 34%\n"}},
	"autoscaling.enabled":                {values: "autoscaling: {enabled: true}", want: []string{"kind: HorizontalPodAutoscaler", "minReplicas: 3", "maxReplicas: 10", "averageUtilization: 70"}, gone: []string{"  replicas: 3\n"}},
	"autoscaling.minReplicas":            {values: "autoscaling: {enabled: true, minReplicas: 4}", want: []string{"minReplicas: 4\n"}},
	"autoscaling.maxReplicas":            {values: "autoscaling: {enabled: true, maxReplicas: 44}", want: []string{"maxReplicas: 44\n"}},
	"autoscaling.targetCPUUtilizationPercentage": {values: "autoscaling: {enabled: true, targetCPUUtilizationPercentage: 55}", want: []string{"averageUtilization: 55}"}},
	"networkPolicy.enabled":                      {values: "networkPolicy: {enabled: true}", want: []string{"kind: NetworkPolicy", "{port: gossip, protocol: TCP}, {port: gossip-udp, protocol: UDP}, {port: stream, protocol: TCP}"}},
	"networkPolicy.metricsFrom":                  {values: "networkPolicy: {enabled: true, metricsFrom: [{namespaceSelector: {matchLabels: {name: monitoring}}}]}", want: []string{"- ports: [{port: admin, protocol: TCP}]\n      from:\n        - namespaceSelector:\n            matchLabels:\n              name: monitoring\n"}},
	"networkPolicy.apiFrom":                      {values: "networkPolicy: {enabled: true, apiFrom: [{ipBlock: {cidr: 10.0.0.0/28}}]}", want: []string{"{port: webhook, protocol: TCP}]\n      from:\n        - ipBlock:\n            cidr: 10.0.0.0/28\n"}},
	"serviceMonitor.enabled":                     {values: "serviceMonitor: {enabled: true}", want: []string{"kind: ServiceMonitor", "{app.kubernetes.io/name: kubetide, kubetide.io/service: headless}"}},
	"serviceMonitor.labels":                      {values: "serviceMonitor: {enabled: true, labels: {release: prometheus}}", want: []string{"    release: prometheus\n"}},
	"serviceMonitor.interval":                    {values: "serviceMonitor: {enabled: true, interval: 17s}", want: []string{"interval: 17s}"}},
	"prometheusRule.enabled":                     {values: "prometheusRule: {enabled: true}", want: []string{"kind: PrometheusRule", "alert: KubetideMetricStale"}},
	"prometheusRule.labels":                      {values: "prometheusRule: {enabled: true, labels: {release: prometheus}}", want: []string{"    release: prometheus\n"}},
	"dashboards.enabled":                         {values: "dashboards: {enabled: true}", want: []string{"name: kubetide-dashboard-workload\n", "  kubetide-workload.json: |\n    {\n", `    grafana_dashboard: "1"`}},
	"dashboards.labels":                          {values: "dashboards: {enabled: true, labels: {dashboards: ours}}", want: []string{"    dashboards: ours\n"}},
	"dashboards.annotations":                     {values: "dashboards: {enabled: true, annotations: {grafana_folder: Scaling}}", want: []string{"    grafana_folder: Scaling\n"}},
	"test.image":                                 {values: "test: {image: tools/kubectl}", want: []string{"image: tools/kubectl\n"}},
}

func TestEachValueIsWired(t *testing.T) {
	t.Parallel()
	values, err := os.ReadFile(chart + "/values.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(paths(t, values), slices.Sorted(maps.Keys(changes))); diff != "" {
		t.Errorf("values (-chart +test):\n%s", diff)
	}
	usual, err := template(t, "")
	if err != nil {
		t.Fatal(err)
	}
	for path, change := range changes {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			out, err := template(t, change.values)
			if err != nil {
				t.Fatal(err)
			}
			for _, text := range change.want {
				if !strings.Contains(out, text) {
					t.Errorf("no %q", text)
				}
				if strings.Contains(usual, text) {
					t.Errorf("%q is there without it", text)
				}
			}
			for _, text := range change.gone {
				if strings.Contains(out, text) {
					t.Errorf("%q is left", text)
				}
			}
			if _, err := objects(out); err != nil {
				t.Error(err)
			}
		})
	}
}

// paths are the values that have a comment, which are those that one sets.
func paths(t *testing.T, values []byte) []string {
	t.Helper()
	var document yaml.Node
	if err := yaml.Unmarshal(values, &document); err != nil {
		t.Fatal(err)
	}
	var all []string
	var walk func(string, *yaml.Node)
	walk = func(prefix string, node *yaml.Node) {
		for i := 0; i+1 < len(node.Content); i += 2 {
			key, value := node.Content[i], node.Content[i+1]
			if key.HeadComment == "" && value.Kind == yaml.MappingNode {
				walk(prefix+key.Value+".", value)
				continue
			}
			all = append(all, prefix+key.Value)
		}
	}
	walk("", document.Content[0])
	slices.Sort(all)
	return all
}

func objects(out string) (all []map[string]any, err error) {
	decoder := yaml.NewDecoder(strings.NewReader(out))
	seen := map[string]bool{}
	for {
		var o map[string]any
		switch err := decoder.Decode(&o); {
		case errors.Is(err, io.EOF):
			return all, nil
		case err != nil:
			return nil, err
		case o == nil:
			continue
		}
		metadata, _ := o["metadata"].(map[string]any)
		id := fmt.Sprint(o["kind"], " ", metadata["namespace"], "/", metadata["name"])
		if seen[id] {
			return nil, fmt.Errorf("%s is there twice", id)
		}
		seen[id] = true
		all = append(all, o)
	}
}

func TestBadValuesAreRefused(t *testing.T) {
	t.Parallel()
	for name, values := range map[string]string{
		"an unknown value":                    "replicaz: 3",
		"an unknown value further down":       "image: {tagg: v1}",
		"a count that is text":                `replicas: "3"`,
		"an unknown module":                   "modules: [adaptor]",
		"every kind may be scaled":            `scaleTargets: [{apiGroup: apps, resources: ["*"]}]`,
		"every group may be scaled":           `scaleTargets: [{apiGroup: "*", resources: [rollouts]}]`,
		"a port that needs a privilege":       "ports: {https: 443}",
		"an argument that is no flag":         "extraArgs: [server]",
		"a separate engine without a module":  "{modules: [adapter], engine: {separate: true}}",
		"a separate engine without adapter":   "{modules: [engine], engine: {separate: true}}",
		"a stop that is over before it began": "{shutdownDelaySeconds: 30, gracePeriodSeconds: 30}",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if out, err := template(t, values); err == nil {
				t.Errorf("rendered %d bytes", len(out))
			}
		})
	}
}

func TestLint(t *testing.T) {
	t.Parallel()
	if out, err := helm(t, "lint", "--strict", chart); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestNoRightIsAWildcard(t *testing.T) {
	t.Parallel()
	for name, values := range map[string]string{"the default": "", "engine apart": "engine: {separate: true}"} {
		out, err := template(t, values)
		if err != nil {
			t.Fatal(err)
		}
		all, err := objects(out)
		if err != nil {
			t.Fatal(err)
		}
		roles := 0
		for _, o := range all {
			if kind := o["kind"]; kind != "Role" && kind != "ClusterRole" {
				continue
			}
			roles++
			if strings.Contains(fmt.Sprint(o["rules"]), "*") {
				t.Errorf("%s: %v has a wildcard: %v", name, o["metadata"], o["rules"])
			}
		}
		if roles < 14 {
			t.Errorf("%s: %d roles", name, roles)
		}
	}
}

// What the chart brings for Grafana and Prometheus is what deploy/grafana and deploy/prometheus hold, to the letter.
func TestDashboardsAndAlertsAreTheSame(t *testing.T) {
	t.Parallel()
	out, err := template(t, "{dashboards: {enabled: true}, prometheusRule: {enabled: true}}")
	if err != nil {
		t.Fatal(err)
	}
	all, err := objects(out)
	if err != nil {
		t.Fatal(err)
	}
	boards, rules := map[string]string{}, any(nil)
	for _, o := range all {
		data, _ := o["data"].(map[string]any)
		for name, text := range data {
			if board, ok := strings.CutPrefix(name, "kubetide-"); ok && strings.HasSuffix(name, ".json") {
				boards[board] = fmt.Sprint(text)
			}
		}
		if o["kind"] == "PrometheusRule" {
			rules = o["spec"]
		}
	}
	sources, err := filepath.Glob("../grafana/*.json")
	if err != nil || len(sources) == 0 {
		t.Fatal(sources, err)
	}
	want := map[string]string{}
	for _, file := range sources {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		want[filepath.Base(file)] = string(text)
	}
	if diff := cmp.Diff(want, boards); diff != "" {
		t.Errorf("dashboards, mended by make generate (-want +got):\n%s", diff)
	}
	text, err := os.ReadFile("../prometheus/rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var alerts any
	if err := yaml.Unmarshal(text, &alerts); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(alerts, rules); diff != "" {
		t.Errorf("alerts, mended by make generate (-want +got):\n%s", diff)
	}
}

func TestTheCRDsStayUnlessToldOtherwise(t *testing.T) {
	t.Parallel()
	source, err := filepath.Glob("../crds/*.yaml")
	if err != nil || len(source) == 0 {
		t.Fatal(source, err)
	}
	for _, file := range source {
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(chart, "files", "crds", filepath.Base(file)))
		if err != nil || !bytes.Equal(want, got) {
			t.Errorf("%s is not the chart's: make generate (%v)", file, err)
		}
	}
	for set, keep := range map[string]int{"crds.keep=true": len(source), "crds.keep=false": 0} {
		out, err := helm(t, "template", "tide", chart, "--set="+set)
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(out, "kind: CustomResourceDefinition\n"); n != len(source) {
			t.Errorf("%d CRDs, want %d", n, len(source))
		}
		if n := strings.Count(out, "helm.sh/resource-policy: keep\n"); n != keep {
			t.Errorf("%s: %d are kept, want %d", set, n, keep)
		}
	}
}

// An APIService that nobody answers would be unavailable for ever.
func TestWorkloadsAloneHaveNoAPIServices(t *testing.T) {
	for modules, want := range map[string]bool{
		"[stackset, step]": false,
		"[engine]":         true,
		"[adapter]":        true,
	} {
		out, err := template(t, "modules: "+modules)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(out, "name: v1alpha1.tide.kubetide.io"); got != want {
			t.Errorf("%s: the APIService is there: %t, want %t", modules, got, want)
		}
	}
}
