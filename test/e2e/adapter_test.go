package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	customV1beta1   = "/apis/custom.metrics.k8s.io/v1beta1"
	customV1beta2   = "/apis/custom.metrics.k8s.io/v1beta2"
	externalV1beta1 = "/apis/external.metrics.k8s.io/v1beta1"
)

// podJSON is an HPA on the number at $.load of each pod of a Deployment.
func podJSON(t *testing.T, ns, name string, port int, target string, extra string) {
	t.Helper()
	create(t, ns, `
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: %[1]s
  annotations:
    metric-config.pods.load.json-path/json-key: "$.load"
    metric-config.pods.load.json-path/path: /metrics
    metric-config.pods.load.json-path/port: "%[2]d"
    metric-config.pods.load.json-path/interval: 1s
    %[4]s
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: %[1]s}
  minReplicas: 1
  maxReplicas: 10
  behavior: {scaleDown: {stabilizationWindowSeconds: 0}}
  metrics: [{type: Pods, pods: {metric: {name: load}, target: {type: AverageValue, averageValue: "%[3]s"}}}]
`, name, port, target, extra)
}

// raw reads a path of the API as the administrator. An answer other than 200 is an error with the body.
func raw(ctx context.Context, path string) ([]byte, error) {
	caller, err := rest.HTTPClientFor(cluster.Config())
	if err != nil {
		return nil, err
	}
	return get(ctx, caller, cluster.Config().Host+path)
}

// get returns the body of an answer, with an error unless that is 200.
func get(ctx context.Context, caller *http.Client, url string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	response, err := caller.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", response.Status, body)
	}
	return body, err
}

// The stock HPA scales a Deployment from what its pods answer at their own addresses, up and down.
func TestTheStockHPAScalesFromPodJSON(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	var demand atomic.Int64
	demand.Store(20)
	var ready atomic.Int64
	ready.Store(1)
	port := answering(t, func(w http.ResponseWriter, _ *http.Request, _ string) {
		fmt.Fprintf(w, `{"load": %g}`, float64(demand.Load())/float64(ready.Load()))
	})
	workload(t, ns, "Deployment", "shop", 2, "")
	ready.Store(2)
	podJSON(t, ns, "shop", port, "10", "")
	spread := func(want int32) {
		t.Helper()
		eventually(t, 60*time.Second, func() error {
			ready.Store(int64(max(1, len(readyPods(t, ns, "shop")))))
			return wantDesired(t, ns, "shop", want)()
		})
		eventually(t, 20*time.Second, wantReplicas(t, ns, "Deployment", "shop", want))
	}
	spread(2)
	demand.Store(50)
	spread(5)
	demand.Store(10)
	spread(1)
	hpa := getHPA(t, ns, "shop")
	for _, c := range hpa.Status.Conditions {
		if c.Type == "ScalingActive" && c.Status != corev1.ConditionTrue {
			t.Errorf("ScalingActive is %s: %s", c.Status, c.Message)
		}
	}
}

// The stock HPA follows a ScalingSchedule; the value comes when the window opens, not at the next collection.
func TestTheStockHPAFollowsAScalingSchedule(t *testing.T) {
	t.Parallel()
	for kind, scope := range map[string]string{"ScalingSchedule": "namespace", "ClusterScalingSchedule": "cluster"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			ns := newNamespace(t)
			workload(t, ns, "Deployment", "shop", 1, "")
			opens := time.Now().Add(20 * time.Second).Truncate(time.Second)
			name := "sale-" + ns
			create(t, ns, `
apiVersion: zalando.org/v1
kind: %s
metadata: {name: %s}
spec:
  scalingWindowDurationMinutes: 0
  schedules: [{type: OneTime, date: %q, durationMinutes: 30, value: 400}]
`, kind, name, opens.Format(time.RFC3339))
			create(t, ns, `
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: shop}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: shop}
  minReplicas: 1
  maxReplicas: 10
  metrics:
  - type: Object
    object:
      describedObject: {apiVersion: zalando.org/v1, kind: %s, name: %s}
      metric: {name: sale}
      target: {type: AverageValue, averageValue: "100"}
`, kind, name)
			path := fmt.Sprintf("%s/namespaces/%s/%ss.zalando.org/%s/sale", customV1beta2, ns, strings.ToLower(kind), name)
			value := func(want string) func() error {
				return func() error {
					body, err := raw(t.Context(), path)
					if err != nil {
						return err
					}
					if !strings.Contains(string(body), `"value":"`+want+`"`) {
						return fmt.Errorf("%s (%s) answers %s, want %s", path, scope, body, want)
					}
					return nil
				}
			}
			active := func(want bool) func() error {
				return func() error {
					u := &unstructured.Unstructured{}
					u.SetAPIVersion("zalando.org/v1")
					u.SetKind(kind)
					key := client.ObjectKey{Name: name}
					if scope == "namespace" {
						key.Namespace = ns
					}
					if err := api.Get(t.Context(), key, u); err != nil {
						return err
					}
					if got, found, _ := unstructured.NestedBool(u.Object, "status", "active"); !found || got != want {
						return fmt.Errorf("status.active is %v (found: %v), want %v", got, found, want)
					}
					return nil
				}
			}
			eventually(t, 5*time.Second, value("0"))
			eventually(t, 5*time.Second, active(false))
			eventually(t, 30*time.Second, value("400"))
			near(t, "the schedule's value", time.Now(), opens, 3*time.Second)
			eventually(t, 5*time.Second, active(true))
			eventually(t, 30*time.Second, wantDesired(t, ns, "shop", 4))
			eventually(t, 10*time.Second, wantReplicas(t, ns, "Deployment", "shop", 4))
			// Edited, the schedule is over at once.
			u := &unstructured.Unstructured{}
			u.SetAPIVersion("zalando.org/v1")
			u.SetKind(kind)
			u.SetName(name)
			if scope == "namespace" {
				u.SetNamespace(ns)
			}
			must(t, api.Patch(t.Context(), u, client.RawPatch(types.MergePatchType, []byte(`{"spec":{"schedules":[]}}`))))
			eventually(t, 5*time.Second, value("0"))
			eventually(t, 5*time.Second, active(false))
		})
	}
}

// The stock HPA scales a StatefulSet from cpu, which metrics-server serves; Kubetide's APIs do not stand in its way.
func TestTheStockHPAScalesAStatefulSetFromCPU(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	create(t, ns, `
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  replicas: 1
  serviceName: db
  selector: {matchLabels: {app: db}}
  template:
    metadata:
      labels: {app: db}
      annotations: {kwok.x-k8s.io/usage-cpu: 300m, kwok.x-k8s.io/usage-memory: 50Mi}
    spec:
      containers: [{name: main, image: simulated, resources: {requests: {cpu: 400m, memory: 64Mi}}}]
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: db}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: StatefulSet, name: db}
  minReplicas: 1
  maxReplicas: 3
  metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 25}}}]
`)
	// 75 % of the request at a target of 25 %: three pods, and the bound says the same however often it is asked.
	eventually(t, 120*time.Second, wantDesired(t, ns, "db", 3))
	eventually(t, 30*time.Second, wantReplicas(t, ns, "StatefulSet", "db", 3))
}

// A plain HPA follows static and cron portraits as external metrics: the portrait's value is the replica count.
func TestAPlainHPAFollowsStaticAndCronPortraits(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	workload(t, ns, "Deployment", "shop", 1, "")
	create(t, ns, `
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: shop
  annotations:
    metric-config.external.floor.static/value: "2"
    metric-config.external.window.cron/start: "* * * * *"
    metric-config.external.window.cron/end: "0 0 1 1 *"
    metric-config.external.window.cron/value: "9"
    metric-config.external.window.cron/default: "4"
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: shop}
  minReplicas: 1
  maxReplicas: 10
  metrics:
  - {type: External, external: {metric: {name: floor, selector: {matchLabels: {type: static}}}, target: {type: AverageValue, averageValue: "1"}}}
  - {type: External, external: {metric: {name: window, selector: {matchLabels: {type: cron}}}, target: {type: AverageValue, averageValue: "1"}}}
`)
	// A window whose start always comes before its end is never active, so the default counts.
	eventually(t, 30*time.Second, wantDesired(t, ns, "shop", 4))
	eventually(t, 30*time.Second, wantReplicas(t, ns, "Deployment", "shop", 4))
}

// A new HPA has its first value within a second of its creation. Measured, so it runs alone.
func TestANewHPAHasItsFirstValueWithinASecond(t *testing.T) {
	ns := newNamespace(t)
	port := answering(t, func(w http.ResponseWriter, _ *http.Request, _ string) { fmt.Fprint(w, `{"load": 7}`) })
	workload(t, ns, "Deployment", "shop", 3, "")
	began := time.Now()
	podJSON(t, ns, "shop", port, "10", "")
	path := fmt.Sprintf("%s/namespaces/%s/pods/*/load?labelSelector=app%%3Dshop", customV1beta2, ns)
	eventually(t, 10*time.Second, func() error {
		body, err := raw(t.Context(), path)
		if err != nil {
			return err
		}
		if n := strings.Count(string(body), `"value":"7"`); n != 3 {
			return fmt.Errorf("%d of 3 pods have a value: %s", n, body)
		}
		return nil
	})
	near(t, "the first value", time.Now(), began, time.Second)
}

// One broken HPA is told what is wrong, and its neighbors are served as if it were not there.
func TestABrokenHPADoesNotDisturbItsNeighbors(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	port := answering(t, func(w http.ResponseWriter, _ *http.Request, _ string) { fmt.Fprint(w, `{"load": 20}`) })
	workload(t, ns, "Deployment", "good", 2, "")
	workload(t, ns, "Deployment", "bad", 1, "")
	podJSON(t, ns, "bad", port, "10", `metric-config.pods.load.json-path/json-eval: "also"`)
	podJSON(t, ns, "good", port, "10", "")
	eventually(t, 20*time.Second, wantEvent(t, ns, "HorizontalPodAutoscaler", "bad", "CreateNewMetricsCollector", "load", "json-eval"))
	eventually(t, 60*time.Second, wantDesired(t, ns, "good", 4))
	if got := getHPA(t, ns, "bad").Status.DesiredReplicas; got > 1 {
		t.Errorf("the broken HPA wants %d replicas", got)
	}
}

// A source that fails is an Event with the cause and never a number; when it recovers, so does the metric.
func TestAFailingSourceIsToldAndNeverANumber(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	var broken atomic.Bool
	broken.Store(true)
	port := answering(t, func(w http.ResponseWriter, _ *http.Request, _ string) {
		if broken.Load() {
			fmt.Fprint(w, `{"load": "soon"}`)
			return
		}
		fmt.Fprint(w, `{"load": 5}`)
	})
	workload(t, ns, "Deployment", "shop", 2, "")
	podJSON(t, ns, "shop", port, "10", "")
	eventually(t, 20*time.Second, wantEvent(t, ns, "HorizontalPodAutoscaler", "shop", "MetricCollectionFailed", "load", "shop-"))
	path := fmt.Sprintf("%s/namespaces/%s/pods/*/load?labelSelector=app%%3Dshop", customV1beta1, ns)
	if body, err := raw(t.Context(), path); err == nil {
		t.Errorf("a failing source is served as %s", body)
	} else if !strings.Contains(err.Error(), "load") {
		t.Errorf("the error does not name the metric: %v", err)
	}
	broken.Store(false)
	eventually(t, 30*time.Second, func() error {
		_, err := raw(t.Context(), path)
		return err
	})
}

// Nobody reads tenants' data without the right to.
func TestTheMetricsAPIsAskWhoIsCalling(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	for _, name := range []string{"stranger", "reader"} {
		_, err := kube.CoreV1().ServiceAccounts(ns).Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
		must(t, err)
	}
	_, err := kube.RbacV1().Roles(ns).Create(t.Context(), &rbacv1.Role{
		ObjectMeta: metav1.ObjectMeta{Name: "metrics"},
		Rules: []rbacv1.PolicyRule{{
			APIGroups: []string{"custom.metrics.k8s.io", "external.metrics.k8s.io"}, Resources: []string{"*"}, Verbs: []string{"get", "list"},
		}},
	}, metav1.CreateOptions{})
	must(t, err)
	_, err = kube.RbacV1().RoleBindings(ns).Create(t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "metrics"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "metrics"},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: ns, Name: "reader"}},
	}, metav1.CreateOptions{})
	must(t, err)
	for _, group := range []string{"custom.metrics.k8s.io", "external.metrics.k8s.io"} {
		allowed(t, "system:serviceaccount:"+ns+":reader", authorizationv1.ResourceAttributes{Namespace: ns, Verb: "list", Group: group, Resource: "nothing"})
	}

	token := func(name string) string {
		request, err := kube.CoreV1().ServiceAccounts(ns).CreateToken(t.Context(), name, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
		must(t, err)
		return request.Status.Token
	}
	external := externalV1beta1 + "/namespaces/" + ns + "/nothing"
	custom := customV1beta2 + "/namespaces/" + ns + "/pods/*/nothing?labelSelector=app%3Dx"
	for name, tc := range map[string]struct {
		token string
		want  map[string]int
	}{
		"anonymous":          {"", map[string]int{external: http.StatusForbidden, custom: http.StatusForbidden}},
		"a made-up token":    {"nonsense", map[string]int{external: http.StatusUnauthorized, custom: http.StatusUnauthorized}},
		"an account without": {token("stranger"), map[string]int{external: http.StatusForbidden, custom: http.StatusForbidden}},
		// It may ask, and there is no such metric.
		"an account with rights": {token("reader"), map[string]int{external: http.StatusNotFound, custom: http.StatusNotFound}},
	} {
		t.Run(name, func(t *testing.T) {
			config := rest.AnonymousClientConfig(cluster.Config())
			config.BearerToken = tc.token
			caller := kubernetes.NewForConfigOrDie(config)
			for path, want := range tc.want {
				var status int
				caller.CoreV1().RESTClient().Get().RequestURI(path).Do(t.Context()).StatusCode(&status)
				if status != want {
					t.Errorf("through the API server, %s answers %d, want %d", path, status, want)
				}
			}
			// The same at Kubetide's own port, past the aggregator.
			transport, err := rest.TransportFor(&rest.Config{TLSClientConfig: rest.TLSClientConfig{Insecure: true}, BearerToken: tc.token})
			must(t, err)
			for path, want := range tc.want {
				// Without the aggregator's certificate nobody can speak in another's name.
				request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+kubetideAddress(t)+path, nil)
				must(t, err)
				request.Header.Set("X-Remote-User", "system:admin")
				request.Header.Set("X-Remote-Group", "system:masters")
				response, err := transport.RoundTrip(request)
				must(t, err)
				_ = response.Body.Close()
				if response.StatusCode != want {
					t.Errorf("directly, %s answers %d, want %d", path, response.StatusCode, want)
				}
			}
		})
	}
}

// Discovery is small and answers whatever HPAs exist; both versions of the custom metrics API are served, with OpenAPI.
func TestDiscoveryAndOpenAPI(t *testing.T) {
	t.Parallel()
	for _, path := range []string{customV1beta1, customV1beta2, externalV1beta1} {
		body, err := raw(t.Context(), path)
		must(t, err)
		var list metav1.APIResourceList
		must(t, json.Unmarshal(body, &list))
		if len(list.APIResources) > 4 {
			t.Errorf("%s lists %d resources: discovery must not grow with what is asked for", path, len(list.APIResources))
		}
	}
	eventually(t, 90*time.Second, func() error {
		body, err := raw(t.Context(), "/openapi/v3")
		if err != nil {
			return err
		}
		for _, group := range []string{"apis/custom.metrics.k8s.io/v1beta2", "apis/external.metrics.k8s.io/v1beta1"} {
			if !strings.Contains(string(body), group) {
				return fmt.Errorf("/openapi/v3 lacks %s", group)
			}
		}
		return nil
	})
}

// The HPA's tolerance hides that 20 pods are one short of what the schedule asks for; Kubetide closes the gap and says so.
func TestAScheduleIsReachedDespiteTheTolerance(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	workload(t, ns, "Deployment", "shop", 20, "")
	create(t, ns, `
apiVersion: zalando.org/v1
kind: ScalingSchedule
metadata: {name: sale}
spec:
  scalingWindowDurationMinutes: 0
  schedules: [{type: OneTime, date: %q, durationMinutes: 30, value: 210}]
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: shop}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: shop}
  minReplicas: 1
  maxReplicas: 30
  metrics:
  - type: Object
    object:
      describedObject: {apiVersion: zalando.org/v1, kind: ScalingSchedule, name: sale}
      metric: {name: sale}
      target: {type: AverageValue, averageValue: "10"}
`, time.Now().Add(-time.Minute).Format(time.RFC3339))
	eventually(t, 60*time.Second, wantReplicas(t, ns, "Deployment", "shop", 21))
	eventually(t, 10*time.Second, wantEvent(t, ns, "HorizontalPodAutoscaler", "shop", "ScalingAdjusted",
		"Scaling schedule 'ScalingSchedule' adjusted replicas 20 -> 21 based on metric"))
}
