package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	externalmetrics "k8s.io/metrics/pkg/apis/external_metrics/v1beta1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// servers shows three servers of Kubetide, of which the one that collects a metric is killed while it is read.
type servers struct{}

const (
	clusterServers  = 3
	clusterInterval = 5 * time.Second // manifests/cluster.yaml has the same
	clusterReads    = 20              // a second
	// clusterUnready is how long after its death the API server may still pass reads on to a server: until it is seen to be unready.
	clusterUnready = 5 * time.Second
	// clusterOldest is how old a value may be at most, with a server dead.
	clusterOldest = clusterInterval + 7*time.Second
	// clusterDown is how long the server is killed again as soon as it starts again.
	clusterDown = 10 * time.Second
	// clusterAfter is how long reads go on after the first kill, at least.
	clusterAfter = 20 * time.Second
)

func (*servers) about() about {
	return about{
		name: "cluster", title: "one of three servers is killed (-9)", bound: 2 * time.Minute,
		look:  "who collects the metric; the reads go on, and the value does not grow old",
		after: []string{"-n", "kubetide-system", "get", "pods"},
	}
}

func (c *servers) setUp(ctx context.Context, l *lab) error {
	if err := l.apply(ctx, "cluster", "cluster.yaml"); err != nil {
		return err
	}
	if err := l.waitReady(ctx, "cluster", "clock", 1); err != nil {
		return err
	}
	return c.whole(ctx, l)
}

// whole waits until all servers are there, see each other, and answer the metric.
func (*servers) whole(ctx context.Context, l *lab) error {
	return until(ctx, 2*time.Minute, func(ctx context.Context) error {
		ready, err := l.serversReady(ctx)
		if err != nil {
			return err
		}
		if ready != clusterServers {
			return fmt.Errorf("%d of %d servers are ready", ready, clusterServers)
		}
		for i := range clusterServers {
			var nodes []struct{ ID, State string }
			if err := l.admin(ctx, serverName(i), "nodes", &nodes); err != nil {
				return err
			}
			if len(nodes) != clusterServers {
				return fmt.Errorf("%s sees %v", serverName(i), nodes)
			}
			if _, err := l.collector(ctx, serverName(i)); err != nil {
				return err
			}
		}
		_, err = l.readClock(ctx)
		return err
	})
}

func serverName(i int) string { return fmt.Sprintf("kubetide-%d", i) }

func (c *servers) run(ctx context.Context, l *lab, s *screen) (string, error) {
	first, err := l.collector(ctx, serverName(0))
	if err != nil {
		return "", err
	}
	victim, other := "", ""
	for i := range clusterServers {
		if ofServer(first, serverName(i)) {
			victim = serverName(i)
		} else {
			other = serverName(i)
		}
	}
	s.say("three servers; the external metric \"now\" is collected every %s, by %s", clusterInterval, first)

	reading, stop := context.WithCancel(ctx)
	defer stop()
	t := &tally{}
	var reads sync.WaitGroup
	reads.Go(func() {
		pace(reading, func() int { return clusterReads }, 2*clusterReads, func(ctx context.Context) {
			taken, err := l.readClock(ctx)
			if reading.Err() == nil {
				t.add(time.Now(), taken, err)
			}
		})
	})
	s.say("%d reads/s of it through the API server, as the HPA controller reads", clusterReads)
	if err := until(ctx, 20*time.Second, func(context.Context) error {
		s.doing("%s", t)
		if t.count() < 5*clusterReads {
			return errors.New(t.String())
		}
		return nil
	}); err != nil {
		return "", err
	}

	var pod corev1.Pod
	if err := l.client.Get(ctx, client.ObjectKey{Namespace: system, Name: victim}, &pod); err != nil {
		return "", err
	}
	killed := time.Now()
	t.died(killed)
	if err := kill(&pod); err != nil {
		return "", err
	}
	s.say("kill -9 of %s, which collects it, and again for %s as soon as it starts; %s", victim, clusterDown, t)
	down := make(chan int, 1)
	go func() { down <- keepDown(ctx, &pod, killed.Add(clusterDown)) }()

	collectors := []string{first}
	var took time.Duration
	err = until(ctx, 90*time.Second, func(ctx context.Context) error {
		now, err := l.collector(ctx, other)
		if err != nil {
			return err
		}
		since := time.Since(killed)
		select {
		case times := <-down:
			s.say("%s was killed %d times; now it may start", victim, 1+times)
		default:
		}
		if now != collectors[len(collectors)-1] {
			s.say("%s after the kill the value is from %s", seconds(since), now)
			if len(collectors) == 1 {
				took = since
			}
			collectors = append(collectors, now)
		}
		ready, err := l.serversReady(ctx)
		if err != nil {
			return err
		}
		s.doing("%s after the kill: %s; the value is from %s; %d servers ready", seconds(since), t, now, ready)
		switch {
		case len(collectors) == 1:
			return fmt.Errorf("nobody else collects the metric: %s", t)
		case ofServer(collectors[1], victim):
			return fmt.Errorf("while %s was down the value was from %s", victim, collectors[1])
		case since < clusterAfter:
			return fmt.Errorf("%s after the kill", seconds(since))
		case ready != clusterServers:
			return fmt.Errorf("%d of %d servers are ready", ready, clusterServers)
		}
		return nil
	})
	stop()
	reads.Wait()
	if err != nil {
		return "", err
	}
	s.say("three servers are ready again; %s", t)
	if err := t.check(); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s; %s took over after %s", t, collectors[1], seconds(took)), nil
}

// kill ends the process of a pod as kill -9 does.
func kill(pod *corev1.Pod) error {
	pid, err := processOf(string(pod.UID))
	if err != nil {
		return err
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill process %d of %s: %w", pid, pod.Name, err)
	}
	return nil
}

// keepDown kills a pod's process until the end whenever it has started again, and returns how often.
func keepDown(ctx context.Context, pod *corev1.Pod, end time.Time) (times int) {
	for time.Now().Before(end) && spend(ctx, 200*time.Millisecond) == nil {
		if kill(pod) == nil {
			times++
		}
	}
	return times
}

// ofServer tells whether a node ID is of a pod: what follows the pod's name changes with each start.
func ofServer(id, pod string) bool { return len(id) > len(pod) && id[:len(pod)+1] == pod+"-" }

// admin asks the admin port of a server what it sees of the cluster.
func (l *lab) admin(ctx context.Context, pod, what string, into any) error {
	body, err := l.get(ctx, "/api/v1/namespaces/"+system+"/pods/"+pod+":8002/proxy/status/cluster/"+what)
	if err != nil {
		return err
	}
	return json.Unmarshal(body, into)
}

// collector is the node from which the freshest value of the metric is, as a server sees it.
func (l *lab) collector(ctx context.Context, pod string) (string, error) {
	var queries []struct{ Namespace, Metric, Collected string }
	if err := l.admin(ctx, pod, "queries", &queries); err != nil {
		return "", err
	}
	for _, q := range queries {
		if q.Namespace == "cluster" && q.Metric == "now" && q.Collected != "" {
			return q.Collected, nil
		}
	}
	return "", fmt.Errorf("%s has no value of the metric", pod)
}

// readClock reads the metric, whose value is the time at which its source was asked.
func (l *lab) readClock(ctx context.Context) (time.Time, error) {
	body, err := l.get(ctx, "/apis/external.metrics.k8s.io/v1beta1/namespaces/cluster/now?labelSelector=type%3Djson-path")
	if err != nil {
		return time.Time{}, err
	}
	var list externalmetrics.ExternalMetricValueList
	if err := json.Unmarshal(body, &list); err != nil {
		return time.Time{}, err
	}
	if len(list.Items) != 1 {
		return time.Time{}, fmt.Errorf("%d values", len(list.Items))
	}
	return time.UnixMilli(list.Items[0].Value.Value()), nil
}

// tally is what came of reads.
type tally struct {
	mu          sync.Mutex
	death       time.Time // of a server
	reads       int
	early, late int // that failed until clusterUnready after the death, and at any other time
	oldest      time.Duration
	last        error
}

func (t *tally) died(at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.death = at
}

// add counts a read that ended at now, of a value that was taken then.
func (t *tally) add(now, taken time.Time, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.reads++
	switch {
	case err == nil:
		t.oldest = max(t.oldest, now.Sub(taken))
	case !t.death.IsZero() && now.Sub(t.death) <= clusterUnready:
		t.early++
	default:
		t.late++
		t.last = err
	}
}

func (t *tally) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.reads
}

func (t *tally) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	text := fmt.Sprintf("%d reads, failed: %d", t.reads, t.late)
	if !t.death.IsZero() {
		text = fmt.Sprintf("%d reads, failed: %d in the %s after the kill, %d else", t.reads, t.early, seconds(clusterUnready), t.late)
	}
	return text + "; the oldest value " + seconds(t.oldest)
}

// check tells whether all was as it should be.
func (t *tally) check() error {
	switch text := t.String(); {
	case t.late > 0:
		return fmt.Errorf("%s; the last failure: %w", text, t.last)
	case t.oldest > clusterOldest:
		return fmt.Errorf("%s; want at most %s", text, clusterOldest)
	}
	return nil
}
