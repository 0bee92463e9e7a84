package lab_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/common/model"

	"github.com/kubetide/kubetide/test/lab"
)

// serve answers on an address until the test ends.
func serve(t *testing.T, address string, handler http.HandlerFunc) string {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: handler}
	t.Cleanup(func() { server.Close() })
	go func() { _ = server.Serve(listener) }()
	return listener.Addr().String()
}

// scalar waits until Prometheus answers a query with exactly this one value.
func scalar(t *testing.T, prometheus *lab.Prometheus, query string, want float64) {
	t.Helper()
	eventually(t, fmt.Sprintf("%s is %g", query, want), func() error {
		value, err := prometheus.Query(t.Context(), query)
		if err != nil {
			return err
		}
		if vector, ok := value.(model.Vector); !ok || len(vector) != 1 || float64(vector[0].Value) != want {
			return fmt.Errorf("got %s", value)
		}
		return nil
	})
}

func TestPrometheusScrapesTargetsThatMayChange(t *testing.T) {
	t.Parallel()
	l := start(t)
	exporter := func(depth int) string {
		return serve(t, "127.0.0.1:0", func(out http.ResponseWriter, _ *http.Request) { fmt.Fprintf(out, "depth %d\n", depth) })
	}
	prometheus, err := l.StartPrometheus(t.Context(), lab.PrometheusConfig{Jobs: []lab.PrometheusJob{
		{Name: "queues", Targets: []string{exporter(3), exporter(4)}, Labels: map[string]string{"namespace": "shop"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(prometheus.Stop)
	scalar(t, prometheus, `sum(depth{job="queues",namespace="shop"})`, 7)
	if err := prometheus.SetTargets("queues", exporter(5)); err != nil {
		t.Fatal(err)
	}
	scalar(t, prometheus, `sum(depth)`, 5)
	if err := prometheus.SetTargets("query"); err == nil {
		t.Error("a job that does not exist got targets")
	}
	prometheus.Stop()
	if _, err := get(prometheus.URL + "/-/ready"); err == nil {
		t.Error("it answers after it was stopped")
	}
}

func TestPrometheusLetsInThoseOnlyWhoProveThatTheyMay(t *testing.T) {
	t.Parallel()
	l := start(t)
	prometheus, err := l.StartPrometheus(t.Context(), lab.PrometheusConfig{Username: "reader", Password: "hush", ClientCertificates: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(prometheus.Stop)
	if value, err := prometheus.Query(t.Context(), "vector(1)"); err != nil || !strings.Contains(value.String(), "1") {
		t.Errorf("the lab's own client: %v, %v", value, err)
	}
	pair, err := tls.X509KeyPair(prometheus.ClientCertificate, prometheus.ClientKey)
	if err != nil {
		t.Fatal(err)
	}
	authority := x509.NewCertPool()
	authority.AppendCertsFromPEM(prometheus.CA)
	got := map[string]string{}
	for who, certificates := range map[string][]tls.Certificate{"nobody": nil, "certificate": {pair}} {
		for _, password := range []string{"", "wrong", "hush"} {
			client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: authority, Certificates: certificates}}}
			request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, prometheus.URL+"/api/v1/query?query=1", nil)
			if err != nil {
				t.Fatal(err)
			}
			request.SetBasicAuth("reader", password)
			answer := "refused"
			if response, err := client.Do(request); err == nil {
				response.Body.Close()
				answer = response.Status
			}
			client.CloseIdleConnections()
			got[who+" "+password] = answer
		}
	}
	want := map[string]string{
		"nobody ": "refused", "nobody wrong": "refused", "nobody hush": "refused",
		"certificate ": "401 Unauthorized", "certificate wrong": "401 Unauthorized", "certificate hush": "200 OK",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("answers (-want +got):\n%s", diff)
	}
}

const shop = `
apiVersion: v1
kind: Pod
metadata: {name: VERSION, namespace: NAMESPACE, labels: {version: VERSION}}
spec: {containers: [{name: c, image: nginx, ports: [{containerPort: 8080}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: VERSION, namespace: NAMESPACE}
spec: {selector: {version: VERSION}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
`

const shopRoutes = `
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: shop
  namespace: NAMESPACE
  annotations: {zalando.org/backend-weights: '{"v1": 75, "v2": 25}'}
spec:
  rules:
  - host: a.shop.example
    http:
      paths:
      - {pathType: Prefix, path: /, backend: {service: {name: v1, port: {name: http}}}}
      - {pathType: Prefix, path: /, backend: {service: {name: v2, port: {name: http}}}}
---
apiVersion: zalando.org/v1
kind: RouteGroup
metadata: {name: shop, namespace: NAMESPACE}
spec:
  hosts: [b.shop.example]
  backends: [{name: v2, type: service, serviceName: v2, servicePort: 80}]
  defaultBackends: [{backendName: v2}]
  routes: [{pathSubtree: /}]
`

func TestSkipperSharesRequestsBetweenRealBackendsAndPrometheusCountsThem(t *testing.T) {
	t.Parallel()
	l := start(t)
	namespace := inNamespace(t, l)
	skipper, err := l.StartSkipper(t.Context(), lab.SkipperConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(skipper.Stop)
	prometheus, err := l.StartPrometheus(t.Context(), lab.PrometheusConfig{
		Jobs: []lab.PrometheusJob{{Name: "skipper", Targets: []string{skipper.MetricsTarget}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(prometheus.Stop)

	hits := map[string]*atomic.Int64{"v1": {}, "v2": {}}
	for version, counter := range hits {
		apply(t, l, namespace, strings.ReplaceAll(shop, "VERSION", version))
		pod := readyPod(t, l.Client(), namespace, version, true)
		serve(t, pod.Status.PodIP+":8080", func(http.ResponseWriter, *http.Request) { counter.Add(1) })
	}
	apply(t, l, namespace, shopRoutes)
	ask := func(host string) error {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, skipper.URL, nil)
		if err != nil {
			return err
		}
		request.Host = host
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return err
		}
		_, _ = io.Copy(io.Discard, response.Body)
		response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("%s: %s", host, response.Status)
		}
		return nil
	}
	answered := map[string]float64{}
	for _, host := range []string{"b.shop.example", "a.shop.example"} {
		eventually(t, "skipper routes "+host, func() error { return ask(host) })
		answered[host]++
		for range 199 {
			if err := ask(host); err != nil {
				t.Fatal(err)
			}
			answered[host]++
		}
	}
	// 200 of the RouteGroup's all to v2, and about 50 of the Ingress's 200; the bounds are five standard deviations off.
	if v1, v2 := hits["v1"].Load(), hits["v2"].Load(); v1+v2 != 400 || v1 < 120 || v1 > 180 {
		t.Errorf("v1 got %d, v2 %d requests of 400", v1, v2)
	}
	for host, count := range answered {
		scalar(t, prometheus, fmt.Sprintf(`sum(skipper_serve_host_duration_seconds_count{host="%s",code="200"})`, strings.ReplaceAll(host, ".", "_")), count)
	}
}

func TestTheSQSServerCountsVisibleInFlightAndDelayedMessages(t *testing.T) {
	t.Parallel()
	l := start(t)
	server, err := l.StartSQS(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	client := sqs.New(sqs.Options{
		Region: "eu-central-1", BaseEndpoint: aws.String(server.URL), Credentials: credentials.NewStaticCredentialsProvider("id", "secret", ""),
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	queue, err := client.CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: aws.String("orders")})
	if err != nil {
		t.Fatal(err)
	}
	found, err := client.GetQueueUrl(ctx, &sqs.GetQueueUrlInput{QueueName: aws.String("orders")})
	if err != nil || *found.QueueUrl != *queue.QueueUrl || !strings.HasPrefix(*found.QueueUrl, server.URL+"/") {
		t.Fatalf("the queue's URL is %v, %v", found, err)
	}
	for _, delay := range []int32{0, 0, 0, 900} {
		if _, err := client.SendMessage(ctx, &sqs.SendMessageInput{QueueUrl: queue.QueueUrl, MessageBody: aws.String("x"), DelaySeconds: delay}); err != nil {
			t.Fatal(err)
		}
	}
	received, err := client.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{QueueUrl: queue.QueueUrl, MaxNumberOfMessages: 2, VisibilityTimeout: 600})
	if err != nil || len(received.Messages) != 2 {
		t.Fatalf("received %v, %v", received, err)
	}
	if _, err := client.DeleteMessage(ctx, &sqs.DeleteMessageInput{QueueUrl: queue.QueueUrl, ReceiptHandle: received.Messages[0].ReceiptHandle}); err != nil {
		t.Fatal(err)
	}
	counts, err := client.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{QueueUrl: queue.QueueUrl, AttributeNames: []types.QueueAttributeName{
		types.QueueAttributeNameApproximateNumberOfMessages,
		types.QueueAttributeNameApproximateNumberOfMessagesNotVisible,
		types.QueueAttributeNameApproximateNumberOfMessagesDelayed,
	}})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"ApproximateNumberOfMessages": "1", "ApproximateNumberOfMessagesNotVisible": "1", "ApproximateNumberOfMessagesDelayed": "1",
	}
	if diff := cmp.Diff(want, counts.Attributes); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}
}
