package e2e

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// The plugin tells of an HPA without a target on a real API server: what is collected, to who may view; what the metrics APIs answer, one of
// them from a source that refuses; and what is wrong.
func TestThePluginTellsOfMetricsAndMistakes(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	create(t, ns, `
apiVersion: v1
kind: ServiceAccount
metadata: {name: oncall}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: oncall-views}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}
subjects: [{kind: ServiceAccount, name: oncall, namespace: %[1]s}]
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: web
  annotations:
    metric-config.external.tasks.static/value: "30"
    metric-config.external.lost.json-path/endpoint: http://%[2]s:1/lost
    metric-config.external.lost.json-path/json-key: $.n
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  maxReplicas: 5
  metrics:
  - {type: External, external: {metric: {name: tasks, selector: {matchLabels: {type: static}}}, target: {type: AverageValue, averageValue: "10"}}}
  - {type: External, external: {metric: {name: lost, selector: {matchLabels: {type: json-path}}}, target: {type: Value, value: "1"}}}
  - {type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 80}}}
`, ns, tenantHost)
	viewer, err := cluster.KubeconfigFor(t.Context(), ns, "oncall")
	must(t, err)
	binary := plugin(t)
	says := func(code int, kubeconfig, args string, fragments ...string) {
		t.Helper()
		eventually(t, 60*time.Second, func() error {
			cmd := exec.CommandContext(t.Context(), binary, append(strings.Split(args, " "), "--namespace="+ns, "--kubeconfig="+kubeconfig)...)
			if strings.HasPrefix(args, "__complete") { // its flags come first
				cmd.Args = append([]string{binary, "__complete", "--namespace=" + ns, "--kubeconfig=" + kubeconfig}, strings.Split(args, " ")[1:]...)
			}
			out, _ := cmd.CombinedOutput()
			if got := cmd.ProcessState.ExitCode(); got != code {
				return fmt.Errorf("%s: exit code %d, want %d\n%s", args, got, code, out)
			}
			for _, f := range fragments {
				if !strings.Contains(string(out), f) {
					return fmt.Errorf("%s does not say %q:\n%s", args, f, out)
				}
			}
			return nil
		})
	}
	admin := cluster.KubeconfigPath()
	says(0, viewer, "metrics list hpa/web", "tasks", "static", "Fresh", "lost", "Missing", "refused", "metric cpu is not collected: metrics-server answers it")
	says(0, viewer, "metrics list -o yaml", "kind: SampleList", "metric: lost")
	says(1, viewer, "metrics query hpa/web", "cannot list resource", "of 3 metrics have no answer")
	says(1, admin, "metrics query hpa/web", "tasks   External  10 a pod  -       30", "lost", "metrics-server's", "1 of 3 metrics have no answer")
	says(0, viewer, "__complete metrics query hpa/", "hpa/web\n:4")
	says(0, viewer, "top", "NAME", "HEADROOM", "hpa/web", "Deployment/web")
	says(1, viewer, "doctor", "ERROR    HorizontalPodAutoscaler "+ns+"/web: AbleToScale is False, FailedGetScale", "you may not get apiservices.apiregistration.k8s.io")
	says(1, admin, "doctor -o json", `"kind": "Diagnosis"`, `"check": "conditions"`, `"unseen": []`)
}
