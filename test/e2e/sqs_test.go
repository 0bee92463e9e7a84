package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

const (
	region  = "eu-central-1"
	account = "000000000000" // the SQS server's only one
)

// queue is one on the lab's SQS server, and its producer and consumer.
type queue struct {
	name, url string
	client    *sqs.Client
}

func makeQueue(t *testing.T, name string) *queue {
	t.Helper()
	q := &queue{name: name, client: sqs.New(sqs.Options{
		Region: region, BaseEndpoint: aws.String(queues.URL), Credentials: credentials.NewStaticCredentialsProvider("id", "secret", ""),
	})}
	q.make(t)
	return q
}

func (q *queue) make(t *testing.T) {
	t.Helper()
	made, err := q.client.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: &q.name})
	must(t, err)
	q.url = *made.QueueUrl
}

func (q *queue) remove(t *testing.T) {
	t.Helper()
	_, err := q.client.DeleteQueue(t.Context(), &sqs.DeleteQueueInput{QueueUrl: &q.url})
	must(t, err)
}

// send sends n messages.
func (q *queue) send(t *testing.T, n int) {
	t.Helper()
	for ; n > 0; n -= 10 {
		var batch []types.SendMessageBatchRequestEntry
		for i := range min(n, 10) {
			batch = append(batch, types.SendMessageBatchRequestEntry{Id: aws.String(strconv.Itoa(i)), MessageBody: aws.String("order")})
		}
		_, err := q.client.SendMessageBatch(t.Context(), &sqs.SendMessageBatchInput{QueueUrl: &q.url, Entries: batch})
		must(t, err)
	}
}

// receive takes n messages to work on, and returns what finish needs.
func (q *queue) receive(t *testing.T, n int) (handles []*string) {
	t.Helper()
	for len(handles) < n {
		got, err := q.client.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{
			QueueUrl: &q.url, MaxNumberOfMessages: int32(min(10, n-len(handles))), VisibilityTimeout: 600,
		})
		must(t, err)
		if len(got.Messages) == 0 {
			t.Fatalf("queue %s gave %d of %d messages", q.name, len(handles), n)
		}
		for _, m := range got.Messages {
			handles = append(handles, m.ReceiptHandle)
		}
	}
	return handles
}

// finish deletes messages that were worked on.
func (q *queue) finish(t *testing.T, handles []*string) {
	t.Helper()
	for _, h := range handles {
		_, err := q.client.DeleteMessage(t.Context(), &sqs.DeleteMessageInput{QueueUrl: &q.url, ReceiptHandle: h})
		must(t, err)
	}
}

// queueHPA is an HPA of the Deployment of its name, for one pod by ten messages, which follows at once. The metric has the same name;
// keys are further annotations of it, key: value.
func queueHPA(t *testing.T, ns, name string, keys ...string) {
	t.Helper()
	var annotations strings.Builder
	for _, k := range append(keys, "interval: 1s") {
		fmt.Fprintf(&annotations, "\n    metric-config.external.%s.sqs-queue-length/%s", name, k)
	}
	create(t, ns, `
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: %[1]s
  annotations:%[2]s
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: %[1]s}
  minReplicas: 1
  maxReplicas: 10
  behavior:
    scaleUp: {policies: [{type: Pods, value: 10, periodSeconds: 1}]}
    scaleDown: {stabilizationWindowSeconds: 0}
  metrics:
  - type: External
    external: {metric: {name: %[1]s, selector: {matchLabels: {type: sqs-queue-length}}}, target: {type: AverageValue, averageValue: "10"}}
`, name, annotations.String())
}

// external reads the one value of an External metric, and when it was collected.
func external(ctx context.Context, ns, metric string) (value string, at time.Time, err error) {
	body, err := raw(ctx, externalV1beta1+"/namespaces/"+ns+"/"+metric)
	if err != nil {
		return "", at, err
	}
	var list struct {
		Items []struct {
			Value     string
			Timestamp time.Time
		}
	}
	if err := json.Unmarshal(body, &list); err != nil {
		return "", at, err
	}
	if len(list.Items) != 1 {
		return "", at, fmt.Errorf("metric %s has %d values: %s", metric, len(list.Items), body)
	}
	return list.Items[0].Value, list.Items[0].Timestamp, nil
}

// wantExternal checks for a value that was collected at since or later.
func wantExternal(t *testing.T, ns, metric, want string, since time.Time) func() error {
	return func() error {
		got, at, err := external(t.Context(), ns, metric)
		if err == nil && (got != want || at.Before(since)) {
			err = fmt.Errorf("metric %s is %s at %s, want %s at %s or later", metric, got, at, want, since)
		}
		return err
	}
}

// A queue is filled and drained, and the stock HPA follows. What is being worked on counts where the HPA asks for it, and only there.
func TestTheStockHPAFollowsAQueue(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	q := makeQueue(t, ns)
	apps := []string{"waiting", "unfinished"}
	for _, app := range apps {
		workload(t, ns, "Deployment", app, 1, "")
	}
	queueHPA(t, ns, "waiting", "queue-name: "+q.name, "region: "+region)
	queueHPA(t, ns, "unfinished", fmt.Sprintf("queue-name: %s/%s/%s", queues.URL, account, q.name), "region: "+region, "include: inflight")
	follow := func(what string, began time.Time, want map[string]int32) {
		t.Helper()
		for app, n := range want {
			eventually(t, time.Minute, wantDesired(t, ns, app, n))
			eventually(t, 20*time.Second, wantReplicas(t, ns, "Deployment", app, n))
			t.Logf("%s: %s is scaled to %d after %v", what, app, n, time.Since(began).Round(10*time.Millisecond))
		}
	}
	for _, app := range apps {
		eventually(t, 20*time.Second, wantExternal(t, ns, app, "0", time.Time{}))
	}

	began := time.Now()
	q.send(t, 60)
	follow("60 sent", began, map[string]int32{"waiting": 6, "unfinished": 6})

	began = time.Now()
	taken := q.receive(t, 40)
	received := time.Now()
	follow("40 received", began, map[string]int32{"waiting": 2})
	eventually(t, 20*time.Second, wantExternal(t, ns, "waiting", "20", received))
	eventually(t, 20*time.Second, wantExternal(t, ns, "unfinished", "60", received))
	follow("40 received", began, map[string]int32{"unfinished": 6})

	began = time.Now()
	q.finish(t, taken)
	follow("40 deleted", began, map[string]int32{"unfinished": 2, "waiting": 2})

	began = time.Now()
	q.finish(t, q.receive(t, 20))
	follow("drained", began, map[string]int32{"unfinished": 1, "waiting": 1})
}

// A queue that does not exist is an Event that names it and never a number; the replicas stay until it is there again.
func TestAQueueThatDoesNotExistIsToldAndFoundAgain(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	q := makeQueue(t, ns)
	workload(t, ns, "Deployment", "shop", 1, "")
	queueHPA(t, ns, "shop", fmt.Sprintf("queue-name: %q", "arn:aws:sqs:"+region+":"+account+":"+q.name))
	queueHPA(t, ns, "typo", "queue-name: oders-"+ns, "region: "+region)
	q.send(t, 30)
	eventually(t, time.Minute, wantReplicas(t, ns, "Deployment", "shop", 3))

	q.remove(t)
	began := time.Now()
	eventually(t, 20*time.Second, func() error {
		value, at, err := external(t.Context(), ns, "shop")
		if err == nil {
			return fmt.Errorf("a queue that is gone has the length %s at %s", value, at)
		}
		if !strings.Contains(err.Error(), fmt.Sprintf(`queue \"%s\"`, q.name)) || !strings.Contains(err.Error(), "does not exist") {
			return fmt.Errorf("the queue is not named: %w", err)
		}
		return nil
	})
	near(t, "the end of the value", time.Now(), began, 5*time.Second)
	for name, queue := range map[string]string{"shop": q.name, "typo": "oders-" + ns} {
		eventually(t, 90*time.Second, wantEvent(t, ns, "HorizontalPodAutoscaler", name, "MetricCollectionFailed",
			fmt.Sprintf("queue %q", queue), region, "does not exist"))
	}
	must(t, wantReplicas(t, ns, "Deployment", "shop", 3)())

	q.make(t)
	q.send(t, 50)
	began = time.Now()
	eventually(t, 20*time.Second, wantExternal(t, ns, "shop", "50", time.Time{}))
	near(t, "the length of the new queue", time.Now(), began, 5*time.Second)
	eventually(t, time.Minute, wantReplicas(t, ns, "Deployment", "shop", 5))
}
