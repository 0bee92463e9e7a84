package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// What a Stack refers to is awaited, adopted and goes with it; at rest nothing is written.
func TestAStackWaitsForItsConfiguration(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	create(t, ns, `
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: kubetide-stackset-configuration}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: kubetide-stackset-configuration}
subjects: [{kind: ServiceAccount, name: kubetide, namespace: kubetide-system}]
---
apiVersion: zalando.org/v1
kind: StackSet
metadata: {name: shop}
spec:
  stackLifecycle: {limit: 5}
  stackTemplate:
    spec:
      version: v1
      configurationResources: [{configMapRef: {name: shop-v1-settings}}, {secretRef: {name: shop-v1-keys}}, {configMap: {name: inline, data: {a: "1"}}}]
      podTemplate: {spec: {containers: [{name: main, image: simulated, ports: [{containerPort: 80}]}]}}
`)
	eventually(t, 30*time.Second, wantEvent(t, ns, "Stack", "shop-v1", "FailedManageConfigMapRefs", "shop-v1-settings", "does not exist"))
	eventually(t, 10*time.Second, wantEvent(t, ns, "Stack", "shop-v1", "FailedManageSecretRefs", "shop-v1-keys", "does not exist"))
	if out := kubectl(t, ns, "", "get", "deployments", "-o", "name"); strings.Contains(out, "shop") {
		t.Errorf("pods without configuration: %s", out)
	}
	create(t, ns, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: shop-v1-settings}\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: shop-v1-keys}\n")
	s := stacks{t: t, ns: ns}
	eventually(t, 60*time.Second, s.ready("shop-v1"))
	kubectl(t, ns, "", "delete", "stackset", "shop")
	eventually(t, 60*time.Second, func() error {
		for _, o := range []client.Object{&corev1.ConfigMap{}, &corev1.Secret{}} {
			for _, name := range []string{"shop-v1-settings", "shop-v1-keys", "shop-v1-inline"} {
				if api.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: name}, o) == nil {
					return fmt.Errorf("%s is still there", name)
				}
			}
		}
		return nil
	})
}
