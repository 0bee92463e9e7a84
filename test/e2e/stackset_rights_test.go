package e2e

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// People have the roles view and edit of their namespace, and no other right: with view they see all kinds of Kubetide's, at the terminal as
// well, and change nothing; with edit they change what people write.
func TestWhoMayViewSeesStackSetsAndWhoMayEditChangesThem(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	kubeconfigs := map[string]string{}
	for _, role := range []string{"view", "edit"} {
		create(t, ns, `
apiVersion: v1
kind: ServiceAccount
metadata: {name: may-%[2]s}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: may-%[2]s}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: %[2]s}
subjects: [{kind: ServiceAccount, name: may-%[2]s, namespace: %[1]s}]
`, ns, role)
		kubeconfig, err := cluster.KubeconfigFor(t.Context(), ns, "may-"+role)
		must(t, err)
		kubeconfigs[role] = kubeconfig
	}
	as := func(role, manifest string, args ...string) (string, error) {
		out, err := cluster.KubectlInput(t.Context(), manifest, append([]string{"-n", ns, "--kubeconfig=" + kubeconfigs[role]}, args...)...)
		if err != nil {
			out += err.Error()
		}
		return out, err
	}
	cart := stackSetManifest("cart", routed, "v1", "")
	may := func(role, manifest string, args ...string) {
		t.Helper()
		if out, err := as(role, manifest, args...); err != nil {
			t.Errorf("with %s, kubectl %s: %s", role, strings.Join(args, " "), out)
		}
	}
	mayNot := func(role, manifest string, args ...string) {
		t.Helper()
		if out, err := as(role, manifest, args...); err == nil || !strings.Contains(out, "orbidden") {
			t.Errorf("with %s, kubectl %s: %s", role, strings.Join(args, " "), out)
		}
	}
	mayNot("view", cart, "create", "-f", "-")
	may("edit", cart, "create", "-f", "-")
	eventually(t, 60*time.Second, func() error {
		out, err := exec.CommandContext(t.Context(), plugin(t), "get", "stackset", "cart", "-n", ns, "--kubeconfig="+kubeconfigs["view"]).CombinedOutput()
		if text := string(out); err != nil || !strings.Contains(text, "└─ cart-v1  100 %    100 %   1/1 ready") || strings.Contains(text, "you may not") {
			return fmt.Errorf("%w\n%s", err, out)
		}
		return nil
	})
	const kinds = "stacksets,stacks,steps,pipelines,modelruntimes,ihpa,horizontalportraits,replicaprofiles,scalingschedules"
	may("view", "", "get", kinds)
	may("edit", "", "get", kinds)
	mayNot("view", "", "scale", "stack", "cart-v1", "--replicas=2")
	may("edit", "", "scale", "stack", "cart-v1", "--replicas=2")
	eventually(t, 20*time.Second, wantReplicas(t, ns, "Deployment", "cart-v1", 2))
	mayNot("edit", "apiVersion: autoscaling.kapacitystack.io/v1alpha1\nkind: ReplicaProfile\nmetadata: {name: p}\nspec: {}\n", "create", "--validate=false", "-f", "-")
	mayNot("view", "", "delete", "stackset", "cart")
	may("edit", "", "delete", "stackset", "cart")
}
