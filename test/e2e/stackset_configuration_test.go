package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	zalando "github.com/kubetide/kubetide/api/zalando/v1"
)

// allowConfiguration lets Stacks of the namespace have configuration of their own.
func allowConfiguration(t *testing.T, ns string) {
	t.Helper()
	create(t, ns, `
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: kubetide-stackset-configuration}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: kubetide-stackset-configuration}
subjects: [{kind: ServiceAccount, name: kubetide, namespace: kubetide-system}]
`)
}

// What a Stack refers to is awaited, adopted and goes with it; at rest nothing is written.
func TestAStackWaitsForItsConfiguration(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	allowConfiguration(t, ns)
	create(t, ns, `
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

// Credentials are asked for before there are pods, once the platform's operator has its CRD there; what the Stack asks for is what is asked for.
func TestAStackAsksForItsCredentials(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	allowConfiguration(t, ns)
	s := stacks{t: t, ns: ns}
	const manifest = `
apiVersion: zalando.org/v1
kind: StackSet
metadata: {name: shop, labels: {application: shop}}
spec:
  stackLifecycle: {limit: 5}
  stackTemplate:
    spec:
      version: v1
      configurationResources: [{platformCredentialsSet: {name: shop-v1-credentials, tokens: {orders: {privileges: [orders.read]}}}}]
      podTemplate: {spec: {containers: [{name: main, image: simulated, ports: [{containerPort: 80}]}]}}
`
	create(t, ns, manifest)
	eventually(t, 30*time.Second, wantEvent(t, ns, "Stack", "shop-v1", "FailedManagePlatformCredentialsSet", "shop-v1-credentials", "no matches for kind"))
	must(t, cluster.Apply(t.Context(), `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: platformcredentialssets.zalando.org}
spec:
  group: zalando.org
  scope: Namespaced
  names: {kind: PlatformCredentialsSet, listKind: PlatformCredentialsSetList, plural: platformcredentialssets, singular: platformcredentialsset}
  versions:
  - {name: v1, served: true, storage: true, subresources: {status: {}}, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}
`))
	eventually(t, 60*time.Second, s.ready("shop-v1"))
	stack := &zalando.Stack{}
	must(t, api.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: "shop-v1"}, stack))
	asks := func(tokens map[string]zalando.PCSToken) func() error {
		return func() error {
			o := &zalando.PlatformCredentialsSet{}
			if err := api.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: "shop-v1-credentials"}, o); err != nil {
				return err
			}
			want := zalando.PlatformCredentialsSpec{Application: "shop", Tokens: tokens, TokenVersion: "v2"}
			if diff := cmp.Diff(want, o.Spec); diff != "" || len(o.OwnerReferences) != 1 || o.OwnerReferences[0].UID != stack.UID {
				return fmt.Errorf("owners %v, spec (-want +got):\n%s", o.OwnerReferences, diff)
			}
			return nil
		}
	}
	must(t, asks(map[string]zalando.PCSToken{"orders": {Privileges: []string{"orders.read"}}})())
	kubectl(t, ns, "", "patch", "stack", "shop-v1", "--type=json", "-p",
		`[{"op":"add","path":"/spec/configurationResources/0/platformCredentialsSet/tokens/stock","value":{"privileges":["stock.write"]}}]`)
	eventually(t, 10*time.Second, asks(map[string]zalando.PCSToken{"orders": {Privileges: []string{"orders.read"}}, "stock": {Privileges: []string{"stock.write"}}}))
	kubectl(t, ns, "", "delete", "platformcredentialsset", "shop-v1-credentials")
	kubectl(t, ns, "", "annotate", "stackset", "shop", "example.org/looked=1") // it is not watched
	eventually(t, 10*time.Second, asks(map[string]zalando.PCSToken{"orders": {Privileges: []string{"orders.read"}}, "stock": {Privileges: []string{"stock.write"}}}))
}
