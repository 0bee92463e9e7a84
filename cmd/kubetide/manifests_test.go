package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	kai "github.com/kubetide/kubetide/api/kai/v1alpha1"
	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	"github.com/kubetide/kubetide/internal/config"
	"github.com/kubetide/kubetide/scaler/horizontalportrait/job"
	"github.com/kubetide/kubetide/workloads/stackset"
)

const base = "../../deploy/kustomize/base"

// object is what these tests read of any manifest.
type object struct {
	Kind     string `json:"kind"`
	Metadata struct {
		Name, Namespace string
	} `json:"metadata"`
	Rules []struct {
		APIGroups, Resources, ResourceNames, Verbs []string
		Operations                                 []string
	} `json:"rules"`
	RoleRef  struct{ Name string } `json:"roleRef"`
	Webhooks []struct {
		Name, FailurePolicy string
		TimeoutSeconds      int
		ObjectSelector      struct{ MatchLabels map[string]string }
		Rules               []struct{ APIGroups, Operations, Resources []string }
		MatchConditions     []struct{ Expression string }
		ClientConfig        struct {
			Service struct {
				Name, Namespace, Path string
				Port                  int
			}
		}
	} `json:"webhooks"`
	Spec struct {
		InsecureSkipTLSVerify bool
		Service               struct{ Name, Namespace string }
		Ports                 []struct {
			Name, TargetPort string
			Port             int
		}
		Template struct {
			Spec struct {
				TerminationGracePeriodSeconds int
				EnableServiceLinks            *bool
				Containers                    []struct {
					Args  []string
					Ports []struct {
						Name          string
						ContainerPort int
					}
				}
			}
		}
	} `json:"spec"`
}

func manifests(t *testing.T) []object {
	t.Helper()
	files, err := filepath.Glob(base + "/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	var all []object
	for _, file := range files {
		if name := filepath.Base(file); name == "server.yaml" || name == "kustomization.yaml" {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, document := range strings.Split(string(text), "\n---\n") {
			var o object
			if err := yaml.Unmarshal([]byte(document), &o); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			all = append(all, o)
		}
	}
	return all
}

func find(t *testing.T, kind, name string) object {
	t.Helper()
	for _, o := range manifests(t) {
		if o.Kind == kind && o.Metadata.Name == name {
			return o
		}
	}
	t.Fatalf("no %s %s in %s", kind, name, base)
	return object{}
}

func TestNoRightIsAWildcard(t *testing.T) {
	roles := 0
	for _, o := range manifests(t) {
		if o.Kind != "Role" && o.Kind != "ClusterRole" {
			continue
		}
		roles++
		for _, rule := range o.Rules {
			for _, word := range slices.Concat(rule.APIGroups, rule.Resources, rule.ResourceNames, rule.Verbs) {
				if strings.Contains(word, "*") {
					t.Errorf("%s %s has the wildcard %q", o.Kind, o.Metadata.Name, word)
				}
			}
			if slices.Contains(rule.Resources, "secrets") && len(rule.ResourceNames) == 0 && !slices.Equal(rule.Verbs, []string{"create"}) && o.Metadata.Name != tenantSecrets && o.Metadata.Name != stackConfiguration {
				t.Errorf("%s %s may %v any Secret", o.Kind, o.Metadata.Name, rule.Verbs)
			}
		}
	}
	if roles != 14 {
		t.Errorf("%d roles", roles)
	}
}

// tenantSecrets is the role that the people of a namespace bind to let their HPAs name Secrets.
const tenantSecrets = "kubetide-secrets"

// stackConfiguration is the role that they bind to let their Stacks have ConfigMaps and Secrets of their own.
const stackConfiguration = "kubetide-stackset-configuration"

func TestTheRolesThatPeopleBindThemselvesAreNotBound(t *testing.T) {
	role := find(t, "ClusterRole", tenantSecrets)
	if len(role.Rules) != 1 || !slices.Equal(role.Rules[0].Verbs, []string{"get"}) || !slices.Equal(role.Rules[0].Resources, []string{"secrets"}) {
		t.Errorf("it may %v", role.Rules)
	}
	unbound := []string{tenantSecrets, stackConfiguration, job.JobsRole, job.ResultsRole}
	for _, name := range unbound {
		find(t, "ClusterRole", name)
	}
	for _, o := range manifests(t) {
		if slices.Contains(unbound, o.RoleRef.Name) {
			t.Errorf("%s %s binds %s", o.Kind, o.Metadata.Name, o.RoleRef.Name)
		}
	}
}

func TestTheManifestsAndTheServerMeanTheSameObjects(t *testing.T) {
	c := config.Default()
	named := func(role object, resource string) []string {
		for _, rule := range role.Rules {
			if slices.Contains(rule.Resources, resource) && len(rule.ResourceNames) > 0 {
				return rule.ResourceNames
			}
		}
		return nil
	}
	own, adapter, engine := find(t, "Role", "kubetide"), find(t, "ClusterRole", "kubetide-adapter"), find(t, "ClusterRole", "kubetide-engine")
	var services []string
	for _, o := range manifests(t) {
		if o.Kind == "APIService" {
			services = append(services, o.Metadata.Name)
			if o.Spec.InsecureSkipTLSVerify || o.Spec.Service.Name != c.Serving.ServiceNames[0] || o.Spec.Service.Namespace != c.General.Namespace {
				t.Errorf("APIService %s: %+v", o.Metadata.Name, o.Spec)
			}
		}
	}
	slices.Sort(services)
	for what, pair := range map[string][2][]string{
		"the Secret":                     {{certificateSecret(c)}, named(own, "secrets")},
		"the Lease":                      {{kapacity.LeaderElectionID, adapterLease, stackset.LeaderElectionID, kai.LeaderElectionID}, named(own, "leases")},
		"the APIServices whose bundles":  {apiServicesSorted(), named(adapter, "apiservices")},
		"the APIServices there are":      {apiServicesSorted(), services},
		"the engine's APIService":        {{tideAPIService}, named(engine, "apiservices")},
		"the webhooks whose bundles":     {{webhookConfiguration}, named(engine, "mutatingwebhookconfigurations")},
		"the validations whose bundles":  {{webhookConfiguration}, named(engine, "validatingwebhookconfigurations")},
		"the Role's and Service's homes": {{c.General.Namespace, c.General.Namespace}, {own.Metadata.Namespace, find(t, "Service", c.Serving.ServiceNames[0]).Metadata.Namespace}},
	} {
		slices.Sort(pair[1])
		if diff := cmp.Diff(pair[0], pair[1]); diff != "" {
			t.Errorf("%s (-server +manifests):\n%s", what, diff)
		}
	}
	webhook := find(t, "MutatingWebhookConfiguration", webhookConfiguration).Webhooks[0]
	if s := webhook.ClientConfig.Service; webhook.Name != kapacity.PodWebhookName || webhook.FailurePolicy != "Ignore" ||
		webhook.ObjectSelector.MatchLabels[kapacity.InjectReadinessGateLabel] != kapacity.InjectReadinessGateValue ||
		s.Path != kapacity.PodWebhookPath || s.Port != c.Webhook.Port || s.Name != c.Serving.ServiceNames[0] || s.Namespace != c.General.Namespace {
		t.Errorf("webhook %+v", webhook)
	}
	webhook = find(t, "ValidatingWebhookConfiguration", webhookConfiguration).Webhooks[0]
	if s := webhook.ClientConfig.Service; webhook.Name != kapacity.ValidationWebhookName || webhook.FailurePolicy != "Ignore" || webhook.TimeoutSeconds > 2 ||
		s.Path != kapacity.ValidationWebhookPath || s.Port != c.Webhook.Port || s.Name != c.Serving.ServiceNames[0] || s.Namespace != c.General.Namespace ||
		len(webhook.MatchConditions) != 1 || !strings.Contains(webhook.MatchConditions[0].Expression, `"system:serviceaccount:`+own.Metadata.Namespace+`:kubetide"`) {
		t.Errorf("webhook %+v", webhook)
	}
	judged := map[string][]string{}
	for _, rule := range webhook.Rules {
		judged[rule.APIGroups[0]] = slices.Sorted(slices.Values(rule.Resources))
		// Neither status nor deletions: a mistake must not keep an object from being reported on, or from going.
		if !slices.Equal(rule.Operations, []string{"CREATE", "UPDATE"}) || slices.ContainsFunc(rule.Resources, func(r string) bool { return strings.Contains(r, "/") }) ||
			len(rule.APIGroups) != 1 {
			t.Errorf("webhook rule %+v", rule)
		}
	}
	want := map[string][]string{kapacity.SchemeGroupVersion.Group: {"horizontalportraits", "intelligenthorizontalpodautoscalers", "replicaprofiles"}}
	for gk := range (&writer{config: c}).workloads() {
		want[gk.Group] = append(want[gk.Group], strings.ToLower(gk.Kind)+"s")
		slices.Sort(want[gk.Group])
	}
	if diff := cmp.Diff(want, judged); diff != "" {
		t.Errorf("what is judged (-server +manifests):\n%s", diff)
	}
}

// Whoever may view a namespace may view what of Kubetide's is there; what the engine writes for itself is nobody's to edit.
func TestWhoMayViewOrEditANamespaceMaySoWithKubetidesKinds(t *testing.T) {
	files, err := filepath.Glob("../../deploy/crds/*_*.yaml")
	if err != nil || len(files) < 10 {
		t.Fatal(files, err)
	}
	var kinds []string
	for _, file := range files {
		group, plural, _ := strings.Cut(strings.TrimSuffix(filepath.Base(file), ".yaml"), "_")
		kinds = append(kinds, plural+"."+group)
	}
	may := func(role string, verbs ...string) (out []string) {
		for _, rule := range find(t, "ClusterRole", role).Rules {
			if slices.Equal(rule.Verbs, verbs) {
				for _, resource := range rule.Resources {
					out = append(out, resource+"."+rule.APIGroups[0])
				}
			}
		}
		slices.Sort(out)
		return out
	}
	slices.Sort(kinds)
	if diff := cmp.Diff(kinds, may("kubetide-view", "get", "list", "watch")); diff != "" {
		t.Errorf("to view (-CRDs +role):\n%s", diff)
	}
	kinds = slices.DeleteFunc(kinds, func(kind string) bool {
		return strings.HasPrefix(kind, "horizontalportraits.") || strings.HasPrefix(kind, "replicaprofiles.") || strings.HasPrefix(kind, "clusterscalingschedules.")
	})
	if diff := cmp.Diff(kinds, may("kubetide-edit", "create", "update", "patch", "delete", "deletecollection")); diff != "" {
		t.Errorf("to edit (-CRDs +role):\n%s", diff)
	}
}

func apiServicesSorted() []string { return slices.Sorted(slices.Values(apiServices)) }

func TestThePodFitsTheServer(t *testing.T) {
	t.Setenv("POD_NAMESPACE", "kubetide-system")
	t.Setenv("POD_IP", "fd00::1")
	t.Setenv("POD_NAME", "kubetide-0")
	t.Setenv("POD_UID", "1")
	spec := find(t, "StatefulSet", "kubetide").Spec.Template.Spec
	container := spec.Containers[0]
	args := append([]string{"config", "check"}, container.Args[1:]...)
	for i := range args {
		args[i] = strings.Replace(args[i], "/etc/kubetide/", base+"/", 1)
	}
	if out, err := execute(args...); err != nil || !strings.Contains(out, `bind_address: "fd00::1" # file`) {
		t.Errorf("the shipped configuration: %v\n%s", err, out)
	}
	c := config.Default()
	ports := map[string]int{}
	for _, p := range container.Ports {
		ports[p.Name] = p.ContainerPort
	}
	want := map[string]int{"https": c.Serving.SecurePort, "admin": c.Admin.Port, "webhook": c.Webhook.Port, "gossip": 8003, "gossip-udp": 8003, "stream": 8004}
	if diff := cmp.Diff(want, ports); diff != "" {
		t.Errorf("ports (-server +pod):\n%s", diff)
	}
	for _, p := range find(t, "Service", "kubetide").Spec.Ports {
		if ports[p.TargetPort] == 0 {
			t.Errorf("the Service leads to port %q that the pod lacks", p.TargetPort)
		}
	}
	if grace := time.Duration(spec.TerminationGracePeriodSeconds) * time.Second; grace < c.General.GracePeriod+10*time.Second {
		t.Errorf("the kubelet kills after %s, the server may take %s to stop", grace, c.General.GracePeriod)
	}
	if spec.EnableServiceLinks == nil || *spec.EnableServiceLinks {
		t.Error("Services may set KUBETIDE_ variables")
	}
}
