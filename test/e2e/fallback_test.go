package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// The stock HPA holds its replicas while a dead source's last value is served, goes to the fallback's, and back to what the
// source says. The HPA's author sees when it began and when it ended.
func TestTheStockHPAFollowsAFallback(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	var backlog atomic.Int64
	backlog.Store(40)
	port := answering(t, func(w http.ResponseWriter, _ *http.Request, _ string) {
		if backlog.Load() < 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintf(w, `{"backlog": %d}`, backlog.Load())
	})
	workload(t, ns, "Deployment", "consumer", 1, "")
	create(t, ns, `
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: consumer
  annotations:
    metric-config.external.backlog.json-path/endpoint: http://10.244.250.2:%d/
    metric-config.external.backlog.json-path/json-key: $.backlog
    metric-config.external.backlog.json-path/interval: 1s
    metric-config.external.backlog.json-path/fallback-hold: 8s
    metric-config.external.backlog.json-path/fallback-value: "60"
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: consumer}
  minReplicas: 1
  maxReplicas: 10
  behavior: {scaleDown: {stabilizationWindowSeconds: 0}}
  metrics:
    - type: External
      external:
        metric: {name: backlog, selector: {matchLabels: {type: json-path}}}
        target: {type: AverageValue, averageValue: "10"}
`, port)
	eventually(t, 60*time.Second, wantDesired(t, ns, "consumer", 4))

	backlog.Store(-1)
	path := fmt.Sprintf("/apis/external.metrics.k8s.io/v1beta1/namespaces/%s/backlog?labelSelector=type%%3Djson-path", ns)
	var served []string // in the order in which they were
	eventually(t, 60*time.Second, func() error {
		body, err := raw(t.Context(), path)
		must(t, err) // there is a value all the time
		text := "another"
		for _, value := range []string{"40", "60"} {
			if strings.Contains(string(body), fmt.Sprintf(`"value":%q`, value)) {
				text = value
			}
		}
		if len(served) == 0 || served[len(served)-1] != text {
			served = append(served, text)
		}
		if text != "60" {
			return fmt.Errorf("served is %s", body)
		}
		return nil
	})
	if got := strings.Join(served, " "); got != "40 60" {
		t.Errorf("served were %s", got)
	}
	eventually(t, 10*time.Second, wantEvent(t, ns, "HorizontalPodAutoscaler", "consumer", "MetricFallbackStarted", "backlog"))
	eventually(t, 60*time.Second, wantDesired(t, ns, "consumer", 6))

	backlog.Store(20)
	// A source that failed is asked again at the latest after a minute.
	eventually(t, 90*time.Second, wantDesired(t, ns, "consumer", 2))
	eventually(t, 10*time.Second, wantEvent(t, ns, "HorizontalPodAutoscaler", "consumer", "MetricFallbackEnded", "backlog"))
}
