// Package e2e holds what only a real control plane can tell: Kubetide runs as a pod of the lab, from the manifests that it
// ships with and under their rights, and real controllers and the stock HPA run beside it.
package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	authorizationv1 "k8s.io/api/authorization/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	apiruntime "k8s.io/apimachinery/pkg/runtime"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	zalando "github.com/kubetide/kubetide/api/zalando/v1"
	"github.com/kubetide/kubetide/test/lab"
)

// The one lab of this package, with Kubetide and its sources installed, and its administrator's clients.
var (
	cluster *lab.Lab
	kube    kubernetes.Interface
	api     client.WithWatch

	// metrics is Kubetide's default Prometheus. It scrapes router, and what tests name as targets of the job "shop".
	metrics *lab.Prometheus
	router  *lab.Skipper
	queues  *lab.SQS
)

// stubs is where Kubetide looks for the systems that the lab does not have, and what metrics scrapes besides. A test may listen there.
const stubs = "192.0.2.11:18000"

// clusterDomain is the one below which Stacks have host names of their own.
const clusterDomain = "cluster.example"

func TestMain(m *testing.M) {
	lab.Enter(os.Stderr, "metrics-server", "prometheus", "promtool", "skipper", "sqs", "helm")
	ctrl.SetLogger(logr.Discard())
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e: "+err.Error())
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (int, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	var err error
	if cluster, err = lab.Start(ctx, lab.Options{MetricsServer: true, APIServerArgs: []string{"--feature-gates=HPAScaleToZero=true"}, Progress: os.Stderr}); err != nil {
		return 1, err
	}
	defer cluster.Stop()
	if err := install(ctx); err != nil {
		return 1, err
	}
	scheme := apiruntime.NewScheme()
	for _, add := range []func(*apiruntime.Scheme) error{clientgoscheme.AddToScheme, kapacity.AddToScheme, zalando.AddToScheme} {
		if err := add(scheme); err != nil {
			return 1, err
		}
	}
	kube = kubernetes.NewForConfigOrDie(cluster.Config())
	if api, err = client.NewWithWatch(cluster.Config(), client.Options{Scheme: scheme}); err != nil {
		return 1, err
	}
	code := m.Run()
	if err := Complaints(cluster); err != nil {
		return 1, fmt.Errorf("kubetide: %w", err)
	}
	return code, nil
}

// install starts the sources, and Kubetide with settings for them.
func install(ctx context.Context) (err error) {
	if router, err = cluster.StartSkipper(ctx, lab.SkipperConfig{}); err != nil {
		return err
	}
	if queues, err = cluster.StartSQS(ctx); err != nil {
		return err
	}
	metrics, err = cluster.StartPrometheus(ctx, lab.PrometheusConfig{Jobs: []lab.PrometheusJob{
		{Name: "skipper", Targets: []string{router.MetricsTarget}}, {Name: "shop"}, {Name: "stubs", Targets: []string{stubs}},
	}})
	if err != nil {
		return err
	}
	if err := allowJobs(ctx); err != nil {
		return err
	}
	return Install(ctx, cluster, InstallOptions{
		BuildFlags: []string{"-race"}, Progress: os.Stderr,
		Settings: fmt.Sprintf(`
prometheus: {server: %q, confine_queries: true}
ingress:
  skipper_ingress_metrics: true
  skipper_routegroup_metrics: true
  skipper_backends_annotation: [zalando.org/backend-weights]
  external_rps_metrics: true
aws: {external_metrics: true, sqs_endpoint: %q}
sources:
  influxdb_address: http://%[3]s/influxdb
  influxdb_token: hush
  influxdb_org: shop
  zmon_kariosdb_endpoint: http://%[3]s/kairosdb
  nakadi_endpoint: http://%[3]s/nakadi
  token: hush
engine: {algorithm_job_namespace: %[4]s}
stackset:
  cluster_domain: [%[5]s]
  enable_routegroup_support: true
  enable_configmap_support: true
  enable_secret_support: true
  enable_pcs_support: true
  enable_forward_support: true
step: {scale_to_zero: true}
`, metrics.URL, queues.URL, stubs, jobs, clusterDomain),
		Env: map[string]string{"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"},
	})
}

// newNamespace makes a namespace for the test and removes what may still be scaling in it when the test ends.
func newNamespace(t *testing.T) string {
	t.Helper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "t-"}}
	must(t, api.Create(t.Context(), ns))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if t.Failed() {
			t.Logf("namespace %s at the end:\n%s", ns.Name, describe(ctx, ns.Name))
		}
		if err := api.Delete(ctx, ns); err != nil {
			t.Errorf("delete namespace %s: %v", ns.Name, err)
		}
	})
	return ns.Name
}

// describe shows a namespace as somebody with kubectl would look at it.
func describe(ctx context.Context, ns string) string {
	var out strings.Builder
	for _, args := range [][]string{
		{"get", "ihpa,rp,hpa,deploy,rs,sts,pods,scalingschedules", "-L", "kapacitystack.io/pod-state", "-o", "wide"},
		{"get", "ihpa,rp", "-o", "yaml"},
		{"get", "events", "--sort-by=.metadata.creationTimestamp"},
	} {
		text, err := cluster.Kubectl(ctx, append([]string{"-n", ns}, args...)...)
		fmt.Fprintf(&out, "$ kubectl %s\n%s", strings.Join(args, " "), text)
		if err != nil {
			fmt.Fprintln(&out, err)
		}
	}
	return out.String()
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// create creates the objects of a YAML text in the namespace. format's arguments are as for fmt.Sprintf.
func create(t *testing.T, ns, format string, args ...any) {
	t.Helper()
	must(t, tryCreate(t.Context(), ns, fmt.Sprintf(format, args...)))
}

func tryCreate(ctx context.Context, ns, text string) error {
	decoder := utilyaml.NewYAMLOrJSONDecoder(bytes.NewBufferString(text), 4096)
	for {
		var u unstructured.Unstructured
		if err := decoder.Decode(&u); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("%w in\n%s", err, text)
		}
		if len(u.Object) == 0 {
			continue
		}
		u.SetNamespace(ns)
		if err := api.Create(ctx, &u); err != nil {
			return err
		}
	}
}

// eventually waits until check returns nil, and fails the test with check's last error after the time.
func eventually(t *testing.T, within time.Duration, check func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("not within %v: %v", within, err)
		case <-tick.C:
		}
	}
}

// workload is a Deployment, ReplicaSet or StatefulSet whose pods are played by kwok.
func workload(t *testing.T, ns, kind, name string, replicas int, extra string) {
	t.Helper()
	create(t, ns, `
apiVersion: apps/v1
kind: %[1]s
metadata: {name: %[2]s}
spec:
  replicas: %[3]d
  %[4]s
  selector: {matchLabels: {app: %[2]s}}
  template:
    metadata:
      labels: {app: %[2]s, kapacitystack.io/inject-pod-readiness-gate: "true"}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: main, image: simulated, ports: [{containerPort: 80}], resources: {requests: {cpu: 100m, memory: 64Mi}}}]
---
apiVersion: v1
kind: Service
metadata: {name: %[2]s}
spec: {selector: {app: %[2]s}, ports: [{port: 80}]}
`, kind, name, replicas, extra)
	eventually(t, 60*time.Second, func() error {
		if got := len(readyPods(t, ns, name)); got != replicas {
			return fmt.Errorf("%d of %d pods of %s are ready", got, replicas, name)
		}
		return nil
	})
}

// pods are the pods of the app that are not being deleted, by name.
func pods(t *testing.T, ns, app string) []corev1.Pod {
	t.Helper()
	var list corev1.PodList
	must(t, api.List(t.Context(), &list, client.InNamespace(ns), client.MatchingLabels{"app": app}))
	out := slices.DeleteFunc(list.Items, func(p corev1.Pod) bool { return p.DeletionTimestamp != nil })
	slices.SortFunc(out, func(a, b corev1.Pod) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func isReady(p *corev1.Pod) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

func readyPods(t *testing.T, ns, app string) []corev1.Pod {
	t.Helper()
	return slices.DeleteFunc(pods(t, ns, app), func(p corev1.Pod) bool { return !isReady(&p) })
}

// cutPods are the pods of the app that carry the Cutoff label.
func cutPods(t *testing.T, ns, app string) []corev1.Pod {
	t.Helper()
	return slices.DeleteFunc(pods(t, ns, app), func(p corev1.Pod) bool {
		return p.Labels[kapacity.PodStateLabel] != string(kapacity.PodStateCutoff)
	})
}

// endpoints are the names of the pods that receive the Service's traffic.
func endpoints(t *testing.T, ns, service string) []string {
	t.Helper()
	var list discoveryv1.EndpointSliceList
	must(t, api.List(t.Context(), &list, client.InNamespace(ns), client.MatchingLabels{discoveryv1.LabelServiceName: service}))
	var out []string
	for _, slice := range list.Items {
		for _, e := range slice.Endpoints {
			if e.Conditions.Ready != nil && *e.Conditions.Ready {
				out = append(out, e.TargetRef.Name)
			}
		}
	}
	slices.Sort(out)
	return out
}

// replicas is what the target's /scale asks for.
func replicas(t *testing.T, ns, kind, name string) int32 {
	t.Helper()
	u := &unstructured.Unstructured{}
	u.SetAPIVersion("apps/v1")
	u.SetKind(kind)
	must(t, api.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: name}, u))
	n, _, err := unstructured.NestedInt64(u.Object, "spec", "replicas")
	must(t, err)
	return int32(n)
}

func wantReplicas(t *testing.T, ns, kind, name string, want int32) func() error {
	return func() error {
		if got := replicas(t, ns, kind, name); got != want {
			return fmt.Errorf("%s %s has spec.replicas %d, want %d", kind, name, got, want)
		}
		return nil
	}
}

// allowed waits until the API server lets the user do it: it reads a new binding a moment after it has stored it.
func allowed(t *testing.T, user string, what authorizationv1.ResourceAttributes) {
	t.Helper()
	eventually(t, 10*time.Second, func() error {
		review, err := kube.AuthorizationV1().SubjectAccessReviews().Create(t.Context(), &authorizationv1.SubjectAccessReview{
			Spec: authorizationv1.SubjectAccessReviewSpec{User: user, ResourceAttributes: &what},
		}, metav1.CreateOptions{})
		if err == nil && !review.Status.Allowed {
			err = fmt.Errorf("%s may not %s %s/%s in %s yet", user, what.Verb, what.Group, what.Resource, what.Namespace)
		}
		return err
	})
}

// event is what kubectl describe shows of one.
type event struct{ Type, Reason, Message string }

// events of one object and component, oldest first.
func events(t *testing.T, ns, kind, name, component string) []event {
	t.Helper()
	list, err := kube.CoreV1().Events(ns).List(t.Context(), metav1.ListOptions{})
	must(t, err)
	slices.SortFunc(list.Items, func(a, b corev1.Event) int {
		if c := eventTime(a).Compare(eventTime(b)); c != 0 {
			return c
		}
		return strings.Compare(a.ResourceVersion, b.ResourceVersion)
	})
	var out []event
	for _, e := range list.Items {
		if e.InvolvedObject.Kind == kind && e.InvolvedObject.Name == name &&
			(component == "" || e.Source.Component == component || e.ReportingController == component) {
			out = append(out, event{e.Type, e.Reason, e.Message})
		}
	}
	return out
}

func eventTime(e corev1.Event) time.Time {
	if !e.EventTime.IsZero() {
		return e.EventTime.Time
	}
	return e.FirstTimestamp.Time
}

// wantEvent checks for an event whose message holds all the fragments.
func wantEvent(t *testing.T, ns, kind, name, reason string, fragments ...string) func() error {
	return func() error {
		all := events(t, ns, kind, name, "")
		for _, e := range all {
			if e.Reason == reason && !slices.ContainsFunc(fragments, func(f string) bool { return !strings.Contains(e.Message, f) }) {
				return nil
			}
		}
		return fmt.Errorf("%s %s has no event %s with %q; it has %q", kind, name, reason, fragments, all)
	}
}

func getHPA(t *testing.T, ns, name string) *autoscalingv2.HorizontalPodAutoscaler {
	t.Helper()
	hpa, err := kube.AutoscalingV2().HorizontalPodAutoscalers(ns).Get(t.Context(), name, metav1.GetOptions{})
	must(t, err)
	return hpa
}

func wantDesired(t *testing.T, ns, name string, want int32) func() error {
	return func() error {
		hpa := getHPA(t, ns, name)
		if hpa.Status.DesiredReplicas != want {
			return fmt.Errorf("hpa %s wants %d replicas, want %d; conditions %+v", name, hpa.Status.DesiredReplicas, want, hpa.Status.Conditions)
		}
		return nil
	}
}

// nextPort gives each test's pods a port of their own, since all pods that kwok plays share this machine.
var nextPort atomic.Int32

// answering makes every simulated pod answer at its own address, and returns the port. A request names the pod by the address
// that it came in on.
func answering(t *testing.T, handler func(w http.ResponseWriter, r *http.Request, podIP string)) int {
	t.Helper()
	lab.MustBeInside(t)
	port := 18000 + int(nextPort.Add(1))
	listener, err := net.Listen("tcp", fmt.Sprintf("0.0.0.0:%d", port))
	must(t, err)
	server := &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
		ip, _, _ := net.SplitHostPort(local.String())
		handler(w, r, ip)
	})}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	return port
}
