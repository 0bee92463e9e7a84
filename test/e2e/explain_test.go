package e2e

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestADecisionIsExplainedToWhoMayView asks as a person does who has the role view in one namespace: with kubectl and the plugin,
// through the API server.
func TestADecisionIsExplainedToWhoMayView(t *testing.T) {
	t.Parallel()
	ns, foreign := newNamespace(t), newNamespace(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	create(t, ns, `
apiVersion: v1
kind: ServiceAccount
metadata: {name: oncall}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: oncall-views}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}
subjects: [{kind: ServiceAccount, name: oncall, namespace: %s}]
`, ns)
	kubeconfig, err := cluster.KubeconfigFor(ctx, ns, "oncall")
	must(t, err)
	binary := plugin(t)
	tide := func(args ...string) (string, error) {
		out, err := exec.CommandContext(ctx, binary, append(args, "--kubeconfig="+kubeconfig)...).CombinedOutput()
		return string(out), err
	}
	kubectl := func(args ...string) (string, error) {
		out, err := cluster.Kubectl(ctx, append(args, "--kubeconfig="+kubeconfig)...)
		if err != nil {
			out += err.Error()
		}
		return out, err
	}
	says := func(ask func(...string) (string, error), args string, fragments ...string) func() error {
		return func() error {
			out, err := ask(strings.Fields(args)...)
			if err != nil {
				return fmt.Errorf("%s: %w\n%s", args, err, out)
			}
			for _, f := range fragments {
				if !strings.Contains(out, f) {
					return fmt.Errorf("%s does not say %q:\n%s", args, f, out)
				}
			}
			return nil
		}
	}

	workload(t, ns, "Deployment", "web", 1, "")
	reactiveIHPA(t, ns, "web", `metric-config.external.tasks.static/value: "30"`, "{}",
		`[{type: External, external: {metric: {name: tasks, selector: {matchLabels: {type: static}}}, target: {type: AverageValue, averageValue: "10"}}}]`)
	eventually(t, time.Minute, wantReplicas(t, ns, "Deployment", "web", 3))

	eventually(t, 30*time.Second, says(tide, "explain ihpa/web -n "+ns, "IntelligentHorizontalPodAutoscaler "+ns+"/web", "3 online", "* Dynamic-Reactive", "HorizontalPortrait web-reactive", "tasks", "static"))
	for _, s := range []func() error{
		says(tide, "explain ihpa web -o json -n "+ns, `"kind": "Decision"`, `"stage": "merge"`),
		says(tide, "history ihpa/web -n "+ns, "first profile: 3 online"),
		says(kubectl, "get decisions -n "+ns, "OBJECT", "RESULT", "AGE", "REASON", "web ", "3 online"),
		says(kubectl, "get decisions.tide.kubetide.io web -o jsonpath={.decision.steps[0].stage} -n "+ns, "merge"),
		says(kubectl, "get samples -n "+ns, "METRIC", "COLLECTOR", "tasks", "static", "30", "Fresh"),
		says(kubectl, "get --raw /apis/tide.kubetide.io/v1alpha1/namespaces/"+ns+"/decisions/web/history?limit=1", `"DecisionHistory"`, "3 online"),
		says(kubectl, "explain decision.decision.counterfactuals", "What would change the result"),
	} {
		if err := s(); err != nil {
			t.Error(err)
		}
	}
	for _, args := range []string{"get decisions -n " + foreign, "get samples -n " + foreign, "get decisions -A"} {
		if out, err := kubectl(strings.Fields(args)...); err == nil || !strings.Contains(out, "orbidden") {
			t.Errorf("%s, without the right: %v\n%s", args, err, out)
		}
	}
	if out, err := tide("explain", "ihpa/web", "-n", foreign); err == nil || !strings.Contains(out, "kubetide-decisions-viewer") {
		t.Errorf("explain without the right: %v\n%s", err, out)
	}
	text, _ := tide("explain", "ihpa/web", "-n", ns)
	t.Logf("kubectl tide explain ihpa/web\n%s", text)
}
