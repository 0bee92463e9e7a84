package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ward answers the lists of a cluster, and keeps none of what is not there from being listed.
func ward(t *testing.T, all bool, change func(answers map[string]answer)) *cluster {
	t.Helper()
	answers := map[string]answer{}
	for resource, kind := range map[string]string{"apis/autoscaling/v2/%shorizontalpodautoscalers": "HorizontalPodAutoscaler",
		"apis/apps/v1/%sdeployments": "Deployment", "apis/apps/v1/%sstatefulsets": "StatefulSet", "apis/apps/v1/%sreplicasets": "ReplicaSet",
		"apis/policy/v1/%spoddisruptionbudgets": "PodDisruptionBudget", "api/v1/%sresourcequotas": "ResourceQuota", "api/v1/%slimitranges": "LimitRange"} {
		path, _, _ := strings.Cut(resource, "/%s")
		version := strings.TrimPrefix(strings.TrimPrefix(path, "apis/"), "api/")
		answers[wardPath(resource, all)] = objects(version, kind)
	}
	change(answers)
	return newCluster(t, answers)
}

func wardPath(resource string, all bool) string {
	if all {
		return "/" + fmt.Sprintf(resource, "")
	}
	return "/" + fmt.Sprintf(resource, "namespaces/shop/")
}

func objects(version, kind string, items ...string) answer {
	raw := []json.RawMessage{}
	for _, item := range items {
		raw = append(raw, json.RawMessage(item))
	}
	return answer{http.StatusOK, map[string]any{"apiVersion": version, "kind": kind + "List", "metadata": map[string]any{"resourceVersion": "1"}, "items": raw}}
}

const (
	hpasPath      = "apis/autoscaling/v2/%shorizontalpodautoscalers"
	wardHPA       = `{"metadata":{"namespace":"shop","name":"cart"},"spec":{"scaleTargetRef":{"apiVersion":"apps/v1","kind":"Deployment","name":"cart"},"minReplicas":2,"maxReplicas":%d,"metrics":[{"type":"Resource","resource":{"name":"cpu","target":{"type":"Utilization","averageUtilization":50}}}]}}`
	wardCart      = `{"metadata":{"namespace":"shop","name":"cart"},"spec":{"selector":{"matchLabels":{"app":"cart"}},"template":{"metadata":{"labels":{"app":"cart"}},"spec":{"containers":[{"name":"app","resources":%s}]}}}}`
	wardRequested = `{"requests":{"cpu":1}}`
)

func TestDoctor(t *testing.T) {
	forbidden := status(403, metav1.StatusReasonForbidden, "", "no")
	holds := func(all bool, hpa, cart string) func(map[string]answer) {
		return func(answers map[string]answer) {
			answers[wardPath(hpasPath, all)] = objects("autoscaling/v2", "HorizontalPodAutoscaler", hpa)
			answers[wardPath("apis/apps/v1/%sdeployments", all)] = objects("apps/v1", "Deployment", cart)
		}
	}
	for name, test := range map[string]struct {
		change func(map[string]answer)
		args   string
		code   int
		out    string
		errs   string
	}{
		"nothing is wrong": {holds(false, fmt.Sprintf(wardHPA, 10), fmt.Sprintf(wardCart, wardRequested)), "doctor", 0, "Nothing was found.\n", ""},
		"an error": {holds(false, fmt.Sprintf(wardHPA, 10), fmt.Sprintf(wardCart, "{}")), "doctor", 1,
			`ERROR    HorizontalPodAutoscaler shop/cart: it cannot compute the utilization: missing request for cpu in container app of Pod cart-*
         set resources.requests in the pod template of Deployment shop/cart, or use a ContainerResource metric of a container that has them
`, "kubectl tide: findings that are errors: 1\n"},
		"a warning alone": {holds(false, fmt.Sprintf(wardHPA, 2), fmt.Sprintf(wardCart, wardRequested)), "doctor", 0,
			"WARNING  HorizontalPodAutoscaler shop/cart: minReplicas and maxReplicas are both 2: it never scales\n         set them apart, or delete it\n", ""},
		"what may not be read is named, and the rest is looked at": {func(answers map[string]answer) {
			holds(false, fmt.Sprintf(wardHPA, 2), fmt.Sprintf(wardCart, wardRequested))(answers)
			answers["/apis/policy/v1/namespaces/shop/poddisruptionbudgets"] = forbidden
			answers["/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.metrics.k8s.io"] = forbidden
		}, "doctor", 0, "WARNING  HorizontalPodAutoscaler shop/cart: minReplicas and maxReplicas are both 2: it never scales\n         set them apart, or delete it\n" +
			"\nNot looked at:\n! you may not get apiservices.apiregistration.k8s.io\n! you may not list poddisruptionbudgets.policy in namespace shop\n", ""},
		"a ReplicaSet of a Deployment is not named besides": {func(answers map[string]answer) {
			const till = `{"metadata":{"namespace":"shop","name":"%s","ownerReferences":[{"uid":"%s","controller":true}]},"spec":{"selector":{"matchLabels":{"app":"till"}},"template":{"metadata":{"labels":{"app":"cart"}}}}}`
			answers[wardPath(hpasPath, false)] = objects("autoscaling/v2", "HorizontalPodAutoscaler", fmt.Sprintf(wardHPA, 10))
			answers[wardPath("apis/apps/v1/%sdeployments", false)] = objects("apps/v1", "Deployment", fmt.Sprintf(wardCart, wardRequested), fmt.Sprintf(till, "till", "operator"))
			answers[wardPath("apis/apps/v1/%sreplicasets", false)] = objects("apps/v1", "ReplicaSet", fmt.Sprintf(till, "till-1", "till"))
		}, "doctor", 1, `ERROR    HorizontalPodAutoscaler shop/cart: the selector of Deployment shop/cart matches the pods of Deployment shop/till as well, and it counts them
         give the pods of each workload a label of their own, and select by it; a selector cannot be changed, only made anew with its workload
`, "kubectl tide: findings that are errors: 1\n"},
		"in all namespaces": {func(answers map[string]answer) {
			holds(true, fmt.Sprintf(wardHPA, 10), fmt.Sprintf(wardCart, wardRequested))(answers)
			answers["/apis/policy/v1/poddisruptionbudgets"] = forbidden
		}, "doctor -A", 0, "Nothing was found.\n\nNot looked at:\n! you may not list poddisruptionbudgets.policy in all namespaces\n", ""},
		"for machines": {func(answers map[string]answer) {
			holds(false, fmt.Sprintf(wardHPA, 2), fmt.Sprintf(wardCart, wardRequested))(answers)
			answers["/apis/policy/v1/namespaces/shop/poddisruptionbudgets"] = forbidden
		}, "doctor -o yaml", 0, `findings:
- check: fixed-bounds
  object:
    kind: HorizontalPodAutoscaler
    name: cart
    namespace: shop
  problem: 'minReplicas and maxReplicas are both 2: it never scales'
  remedy: set them apart, or delete it
  severity: warning
kind: Diagnosis
namespace: shop
unseen:
- message: you may not list poddisruptionbudgets.policy in namespace shop
  namespace: shop
  resource: poddisruptionbudgets.policy
  verb: list
`, ""},
		"for machines, nothing": {func(map[string]answer) {}, "doctor -o json", 0, "{\n  \"kind\": \"Diagnosis\",\n  \"namespace\": \"shop\",\n  \"findings\": [],\n  \"unseen\": []\n}\n", ""},
		"arguments are refused": {func(map[string]answer) {}, "doctor cart", 2, "", "kubectl tide: kubectl tide doctor takes no arguments, only -n and -A; see kubectl tide doctor --help\n"},
		"a bad flag":            {func(map[string]answer) {}, "doctor --everything", 2, "", "kubectl tide: unknown flag: --everything; see kubectl tide doctor --help\n"},
	} {
		t.Run(name, func(t *testing.T) {
			change := func(answers map[string]answer) {
				answers["/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.metrics.k8s.io"] = answer{http.StatusOK, map[string]any{"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
					"metadata": map[string]any{"name": "v1beta1.metrics.k8s.io"}, "status": map[string]any{"conditions": []any{map[string]any{"type": "Available", "status": "True"}}}}}
				test.change(answers)
			}
			code, out, errs := ward(t, slices.Contains(strings.Fields(test.args), "-A"), change).run(time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC), strings.Fields(test.args)...)
			if code != test.code || out != test.out || errs != test.errs {
				t.Errorf("exit code %d, want %d\noutput:\n%s\nwant:\n%s\nerror output:\n%s\nwant:\n%s", code, test.code, out, test.out, errs, test.errs)
			}
		})
	}
}

func TestADoctorWhoMayReadNothing(t *testing.T) {
	forbidden := status(403, metav1.StatusReasonForbidden, "", "no")
	c := ward(t, false, func(answers map[string]answer) {
		for path := range answers {
			answers[path] = forbidden
		}
	})
	code, out, errs := c.run(time.Now(), "doctor")
	if code != exitFailed || errs != "kubectl tide: nothing could be read\n" || !strings.HasPrefix(out, "Not looked at:\n! you may not list deployments.apps in namespace shop\n") {
		t.Errorf("exit code %d\n%s%s", code, out, errs)
	}
}

func TestADoctorWithoutACluster(t *testing.T) {
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	code, out, errs := newCluster(t, nil).run(time.Now(), "doctor", "--server="+gone.URL)
	if code != exitFailed || out != "" || strings.Count(errs, "\n") != 1 || !strings.Contains(errs, "refused") {
		t.Errorf("exit code %d\n%s%s", code, out, errs)
	}
}

func TestLongListsAreReadInPages(t *testing.T) {
	c := ward(t, false, func(map[string]answer) {})
	if code, _, errs := c.run(time.Now(), "doctor"); code != 0 {
		t.Fatal(errs)
	}
	if !slices.Contains(c.asked, "/apis/apps/v1/namespaces/shop/deployments?limit=500") {
		t.Errorf("asked %v", c.asked)
	}
}
