package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kubetide/kubetide/test/lab"
)

// A tenant's Secret is read only where its namespace allows it, sent only to the host that it names, and shown nowhere.
func TestATenantsSecretIsUsedOnceItsNamespaceAllowsIt(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	password := "password-of-" + ns
	locked, err := cluster.StartPrometheus(t.Context(), lab.PrometheusConfig{Username: "reader", Password: password})
	must(t, err)
	t.Cleanup(locked.Stop)
	for name, host := range map[string]string{"right": strings.TrimPrefix(locked.URL, "http://"), "elsewhere": "prometheus.example.org"} {
		create(t, ns, `
apiVersion: v1
kind: Secret
metadata: {name: %s, annotations: {kubetide.io/host: %q}}
stringData: {username: reader, password: %s}
`, name, host, password)
	}
	annotations, specs := "", ""
	for _, metric := range []string{"none", "right", "elsewhere"} {
		prefix := "\n    metric-config.external." + metric + ".prometheus/"
		annotations += prefix + "query: vector(7)" + prefix + "prometheus-server: " + locked.URL + prefix + "interval: 1s"
		if metric != "none" {
			annotations += prefix + "secret: " + metric
		}
		specs += fmt.Sprintf(`
  - {type: External, external: {metric: {name: %s, selector: {matchLabels: {type: prometheus}}}, target: {type: AverageValue, averageValue: "1"}}}`, metric)
	}
	create(t, ns, `
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: shop
  annotations:%s
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: shop}
  minReplicas: 1
  maxReplicas: 2
  metrics:%s
`, annotations, specs)
	told := func(metric string, cause ...string) {
		t.Helper()
		eventually(t, time.Minute, wantEvent(t, ns, "HorizontalPodAutoscaler", "shop", "MetricCollectionFailed", append(cause, metric)...))
		if value, _, err := external(t.Context(), ns, metric); err == nil {
			t.Errorf("metric %s is %s", metric, value)
		}
	}
	told("none", "status 401")
	told("right", "the Secret "+ns+"/right may not be read", "ClusterRole kubetide-secrets", "RoleBinding", "namespace "+ns)

	create(t, ns, `
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: kubetide-secrets}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: kubetide-secrets}
subjects: [{kind: ServiceAccount, name: kubetide, namespace: kubetide-system}]
`)
	began := time.Now()
	eventually(t, time.Minute, wantExternal(t, ns, "right", "7", time.Time{}))
	t.Logf("the value is served %v after the RoleBinding", time.Since(began).Round(10*time.Millisecond))
	told("elsewhere", "they are for", "prometheus.example.org")

	for _, e := range events(t, ns, "HorizontalPodAutoscaler", "shop", "") {
		if strings.Contains(e.Message, password) {
			t.Errorf("an Event shows the password: %s", e.Message)
		}
	}
	logs, err := filepath.Glob(filepath.Join(cluster.Dir(), "logs", "pods", "kubetide-system_*.log"))
	must(t, err)
	for _, file := range logs {
		text, err := os.ReadFile(file)
		must(t, err)
		if strings.Contains(string(text), password) {
			t.Errorf("%s shows the password", file)
		}
	}
	if len(logs) == 0 {
		t.Error("there are no logs")
	}
}
