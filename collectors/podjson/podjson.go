// Package podjson collects one number from each pod of a workload: a JSON document that the pod serves over HTTP, and a
// path or an expression that finds the number in it; or metrics in Prometheus' text format, and a selector. It reads pods
// from memory, the workload's selector from its /scale, and talks to the pods' own addresses through the bounded client,
// never to anything else.
package podjson

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"github.com/kubetide/kubetide/collectors"
	"github.com/kubetide/kubetide/internal/jsonvalue"
	"github.com/kubetide/kubetide/internal/outbound"
	"github.com/kubetide/kubetide/internal/promtext"
	"github.com/kubetide/kubetide/internal/sample"
)

// Name is the collector part of the annotation keys.
const Name = "json-path"

// How many pods are asked at once. The first bound keeps one large workload from taking all places, the second one tenant,
// the third one the process. Pods that were slow last time have only the places
// of the last two, so that they keep nobody else waiting. Text is read as it comes and takes 64 KiB.
const (
	perCollection = 16
	perNamespace  = 64
	perProcess    = 256

	slowPerNamespace = 16
	slowPerProcess   = 128

	// slowAfter is the time from which an answer counts as slow.
	slowAfter = time.Second
)

const (
	defaultTimeout = 15 * time.Second
	// maxTimeout is the most that request-timeout and connect-timeout may be.
	maxTimeout = time.Minute
	maxURLPart = 2048
)

// Source is the source of `json-path` for Pods metrics.
type Source struct {
	pods   collectors.Pods
	scales collectors.Scales
	client *outbound.Client
	clock  clock.PassiveClock

	process, slow *semaphore.Weighted

	mu         sync.Mutex // protects namespaces
	namespaces map[string]*tenant
}

type tenant struct {
	places, slow *semaphore.Weighted
	users        int
}

// New returns the source. The client's policy must allow the pods' addresses.
func New(pods collectors.Pods, scales collectors.Scales, client *outbound.Client, clock clock.PassiveClock) *Source {
	return &Source{
		pods: pods, scales: scales, client: client, clock: clock,
		process:    semaphore.NewWeighted(perProcess),
		slow:       semaphore.NewWeighted(slowPerProcess),
		namespaces: map[string]*tenant{},
	}
}

// formatText is the one value of the key format besides json, which is the default.
const formatText = "prometheus"

// Keys are the annotation keys of kube-metrics-adapter's pod collector, and those of Prometheus' text format.
func (s *Source) Keys() []string {
	return []string{"format", "metric", "json-key", "json-eval", "path", "port", "scheme", "raw-query", "aggregator", "request-timeout",
		"connect-timeout", "min-pod-ready-age"}
}

// Parse implements collectors.Source.
func (s *Source) Parse(r collectors.Request) (sample.Query, error) {
	if r.Kind != sample.Pods {
		return sample.Query{}, fmt.Errorf("the collector %s serves Pods metrics, not %s", Name, r.Kind)
	}
	_, canonical, err := parse(r.Settings)
	if err != nil {
		return sample.Query{}, err
	}
	q := r.Query(Name, canonical)
	q.Target = r.Target
	return q, nil
}

// Open implements collectors.Source.
func (s *Source) Open(q sample.Query) (collectors.Collector, error) {
	settings, err := sample.DecodeSettings(q.Settings)
	if err != nil {
		return nil, err
	}
	c, _, err := parse(settings)
	if err != nil {
		return nil, err
	}
	return &collector{source: s, query: q, config: c}, nil
}

// config is what the settings mean.
type config struct {
	json           *jsonvalue.Expression
	text           *promtext.Expression // one of the two is nil
	scheme, port   string
	path, query    string
	requestTimeout time.Duration
	connectTimeout time.Duration
	minReadyAge    time.Duration
}

// parse returns the settings' meaning and their canonical form.
func parse(s sample.Settings) (c config, canonical sample.Settings, err error) {
	canonical = sample.Settings{}
	aggregator, err := jsonvalue.ParseAggregator(s["aggregator"])
	if err != nil {
		return c, nil, collectors.BadKey("aggregator", "%w", err)
	}
	path, script, metric := s["json-key"], s["json-eval"], s["metric"]
	switch format := cmp.Or(s["format"], "json"); {
	case format == formatText && path != "":
		return c, nil, collectors.BadKey("json-key", "it cannot be used with format %s", formatText)
	case format == formatText && script != "":
		return c, nil, collectors.BadKey("json-eval", "it cannot be used with format %s", formatText)
	case format == formatText:
		if c.text, err = promtext.Parse(metric, aggregator); err != nil {
			return c, nil, collectors.BadKey("metric", "%w", err)
		}
		canonical["format"], canonical["metric"] = formatText, metric
	case format != "json":
		return c, nil, collectors.BadKey("format", "%.40q is neither json nor %s", format, formatText)
	case metric != "":
		return c, nil, collectors.BadKey("metric", "it can be used with format %s only", formatText)
	case path == "" && script == "":
		return c, nil, collectors.BadKey("json-key", "it or json-eval is required")
	case path != "" && script != "":
		return c, nil, collectors.BadKey("json-eval", "it cannot be used together with json-key")
	case path != "":
		if c.json, err = jsonvalue.Path(path, aggregator); err != nil {
			return c, nil, collectors.BadKey("json-key", "%w", err)
		}
		canonical["json-key"] = path
	default:
		if c.json, err = jsonvalue.Script(script, aggregator); err != nil {
			return c, nil, collectors.BadKey("json-eval", "%w", err)
		}
		canonical["json-eval"] = script
	}
	if aggregator != "" {
		canonical["aggregator"] = string(aggregator)
	}

	if s["port"] == "" {
		return c, nil, collectors.BadKey("port", "it is required: the number of the port on which the pods answer")
	}
	port, err := strconv.ParseUint(s["port"], 10, 16)
	if err != nil || port == 0 {
		return c, nil, collectors.BadKey("port", "%.40q is not a port number from 1 to 65535", s["port"])
	}
	c.port = strconv.FormatUint(port, 10)
	canonical["port"] = c.port

	c.scheme = cmp.Or(s["scheme"], "http")
	if c.scheme != "http" && c.scheme != "https" {
		return c, nil, collectors.BadKey("scheme", "%.40q is neither http nor https", c.scheme)
	}
	canonical["scheme"] = c.scheme

	c.path = "/" + strings.TrimPrefix(s["path"], "/")
	if len(c.path) > maxURLPart {
		return c, nil, collectors.BadKey("path", "it is longer than %d bytes", maxURLPart)
	}
	canonical["path"] = c.path

	if c.query = s["raw-query"]; c.query != "" {
		if len(c.query) > maxURLPart {
			return c, nil, collectors.BadKey("raw-query", "it is longer than %d bytes", maxURLPart)
		}
		if strings.ContainsFunc(c.query, func(r rune) bool { return r <= ' ' || r == '#' || r >= 0x7f }) {
			return c, nil, collectors.BadKey("raw-query", "it must be percent-encoded: no spaces, no #, ASCII only")
		}
		canonical["raw-query"] = c.query
	}

	for _, d := range []struct {
		key                        string
		to                         *time.Duration
		absent, smallest, greatest time.Duration
	}{
		{"request-timeout", &c.requestTimeout, defaultTimeout, time.Millisecond, maxTimeout},
		{"connect-timeout", &c.connectTimeout, defaultTimeout, time.Millisecond, maxTimeout},
		{"min-pod-ready-age", &c.minReadyAge, 0, 0, 24 * time.Hour},
	} {
		*d.to = d.absent
		if text := s[d.key]; text != "" {
			if *d.to, err = time.ParseDuration(text); err != nil {
				return c, nil, collectors.BadKey(d.key, "%.40q is not a duration such as 15s", text)
			}
			if *d.to < d.smallest || *d.to > d.greatest {
				return c, nil, collectors.BadKey(d.key, "%s is not between %s and %s", *d.to, d.smallest, d.greatest)
			}
		}
		canonical[d.key] = d.to.String()
	}
	return c, canonical, nil
}

type collector struct {
	source *Source
	query  sample.Query
	config config

	mu sync.Mutex // protects outcomes
	// outcomes are those of the pods that gave no value last time, or gave it slowly. They are asked last, so that pods which
	// hang take the time of their like and not of the others.
	outcomes map[types.UID]outcome
}

// outcome orders pods for the next time.
type outcome int

const (
	answered outcome = iota
	failed
	slow
)

// Collect asks each pod that can be asked, and returns the points of those that gave a value, in the order of their names.
func (c *collector) Collect(ctx context.Context) ([]sample.Point, error) {
	target := c.query.Target
	scale, err := c.source.scales.Scale(ctx, c.query.Namespace, target) // each time: the selector may have changed
	if err != nil {
		return nil, fmt.Errorf("the pods of %s: %w", target, err)
	}
	all, err := c.source.pods.Pods(c.query.Namespace, scale.Selector)
	if err != nil {
		return nil, fmt.Errorf("the pods of %s: %w", target, err)
	}
	pods, err := c.ready(all, scale.Selector)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	slices.SortFunc(pods, func(a, b *corev1.Pod) int {
		return cmp.Or(cmp.Compare(c.outcomes[a.UID], c.outcomes[b.UID]), strings.Compare(a.Name, b.Name))
	})
	before := c.outcomes
	c.mu.Unlock()

	points := make([]sample.Point, len(pods))
	outcomes := make([]outcome, len(pods))
	failures := make([]error, len(pods))
	var group errgroup.Group
	group.SetLimit(perCollection)
	for i, pod := range pods {
		group.Go(func() error {
			points[i] = sample.Point{Pod: pod.Name, UID: pod.UID, Labels: labels.Set(pod.Labels)}
			outcomes[i], failures[i] = c.ask(ctx, pod, before[pod.UID], &points[i])
			return nil
		})
	}
	_ = group.Wait() // the errors are in failures

	after := map[types.UID]outcome{}
	var out []sample.Point
	for i, pod := range pods {
		if outcomes[i] != answered {
			after[pod.UID] = outcomes[i]
		}
		if failures[i] == nil {
			out = append(out, points[i])
		}
	}
	slices.SortFunc(out, func(a, b sample.Point) int { return strings.Compare(a.Pod, b.Pod) })
	c.mu.Lock()
	c.outcomes = after
	c.mu.Unlock()
	return out, join(pods, failures)
}

// ready returns the pods that can be asked. If there is none, the error says why each was left out; it is sample.ErrNoData,
// since a value of before would be that of pods which the target cannot count on any more.
func (c *collector) ready(all []*corev1.Pod, selector labels.Selector) ([]*corev1.Pod, error) {
	var pods []*corev1.Pod
	reasons := []string{"terminating", "not running", "without an address", "not Ready",
		fmt.Sprintf("Ready for less than %s", c.config.minReadyAge)}
	skipped := make([]int, len(reasons))
	now := c.source.clock.Now()
	for _, pod := range all {
		readySince, ready := readySince(pod)
		switch {
		case pod.DeletionTimestamp != nil:
			skipped[0]++
		case pod.Status.Phase != corev1.PodRunning:
			skipped[1]++
		case pod.Status.PodIP == "":
			skipped[2]++
		case !ready:
			skipped[3]++
		case now.Sub(readySince) < c.config.minReadyAge:
			skipped[4]++
		default:
			pods = append(pods, pod)
		}
	}
	if len(pods) > 0 {
		return pods, nil
	}
	if len(all) == 0 {
		return nil, sample.NoData("no ready pods: none matches the selector %.200q of %s", selector, c.query.Target)
	}
	var why []string
	for i, n := range skipped {
		if n > 0 {
			why = append(why, fmt.Sprintf("%d %s", n, reasons[i]))
		}
	}
	return nil, sample.NoData("no ready pods: of the %d of %s, %s", len(all), c.query.Target, strings.Join(why, ", "))
}

func readySince(pod *corev1.Pod) (time.Time, bool) {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.LastTransitionTime.Time, c.Status == corev1.ConditionTrue
		}
	}
	return time.Time{}, false
}

// ask gets one pod's value. A pod's number of jobs or requests is never below zero: the HPA makes nonsense of a negative
// value, so it is an error and not a value.
func (c *collector) ask(ctx context.Context, pod *corev1.Pod, before outcome, to *sample.Point) (now outcome, err error) {
	s := c.source
	done, err := s.enter(ctx, c.query.Namespace, before == slow)
	if err != nil {
		return max(before, failed), fmt.Errorf("it was not asked in time: %w", err)
	}
	defer done()
	began := s.clock.Now()
	request := outbound.Request{
		Namespace: c.query.Namespace, Collector: Name, Pod: true,
		URL: &url.URL{
			Scheme: c.config.scheme, Host: net.JoinHostPort(pod.Status.PodIP, c.config.port),
			Path: c.config.path, RawQuery: c.config.query,
		},
		Timeout: c.config.requestTimeout, ConnectTimeout: c.config.connectTimeout,
	}
	var took time.Duration
	var failure error // of a complete answer
	if c.config.text != nil {
		request.Header = http.Header{"Accept": {promtext.Accept}}
		err = s.client.Stream(ctx, request, func(body io.Reader) (err error) {
			to.Milli, to.Age, err = c.config.text.EvaluateAt(ctx, body, began)
			return err
		})
		took = s.clock.Since(began)
	} else {
		err = s.client.Read(ctx, request, func(document []byte) error {
			took = s.clock.Since(began)
			to.Milli, failure = c.decode(ctx, document)
			return nil
		})
	}
	timeout := interface{ Timeout() bool }(nil)
	switch {
	case errors.As(err, &timeout) && timeout.Timeout(), took > slowAfter, err != nil && s.clock.Since(began) > slowAfter:
		now = slow
	case err != nil:
		now = failed
	}
	err = cmp.Or(err, failure)
	if err == nil && to.Milli < 0 {
		err = fmt.Errorf("the value %v is negative", float64(to.Milli)/1000)
	}
	if err != nil {
		return max(now, failed), err
	}
	return now, nil
}

func (c *collector) decode(ctx context.Context, document []byte) (milli int64, err error) {
	done, err := jsonvalue.Turn(ctx, c.query.Namespace)
	if err != nil {
		return 0, err
	}
	defer done()
	return c.config.json.Evaluate(ctx, document)
}

// enter waits for a place of the namespace and of the process, of those for slow pods or of the others. done gives it
// back.
func (s *Source) enter(ctx context.Context, namespace string, slow bool) (done func(), err error) {
	s.mu.Lock()
	t := s.namespaces[namespace]
	if t == nil {
		t = &tenant{places: semaphore.NewWeighted(perNamespace), slow: semaphore.NewWeighted(slowPerNamespace)}
		s.namespaces[namespace] = t
	}
	t.users++
	s.mu.Unlock()
	places, process := t.places, s.process
	if slow {
		places, process = t.slow, s.slow
	}
	leave := func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if t.users--; t.users == 0 {
			delete(s.namespaces, namespace)
		}
	}
	if err := places.Acquire(ctx, 1); err != nil {
		leave()
		return nil, err
	}
	if err := process.Acquire(ctx, 1); err != nil {
		places.Release(1)
		leave()
		return nil, err
	}
	return func() {
		process.Release(1)
		places.Release(1)
		leave()
	}, nil
}

// podsError is what the pods that failed have to say. Pods with one cause are told together.
type podsError struct {
	failed, asked int
	causes        []string            // in the order of the pods
	pods          map[string][]string // by cause
}

// join returns nil if no pod failed.
func join(pods []*corev1.Pod, failures []error) error {
	const longest = 250
	e := &podsError{asked: len(pods), pods: map[string][]string{}}
	for i, err := range failures {
		if err == nil {
			continue
		}
		e.failed++
		text := err.Error()
		if op := (*net.OpError)(nil); errors.As(err, &op) { // it names the addresses, which are different for each pod
			text = strings.Replace(text, op.Error(), op.Op+": "+op.Err.Error(), 1)
		}
		text = strings.ToValidUTF8(text, "?")
		if len(text) > longest {
			text = strings.ToValidUTF8(text[:longest], "") + "..."
		}
		if e.pods[text] == nil {
			e.causes = append(e.causes, text)
		}
		e.pods[text] = append(e.pods[text], pods[i].Name)
	}
	if e.failed == 0 {
		return nil
	}
	return e
}

// Error is short enough for an Event.
func (e *podsError) Error() string {
	const most = 3
	var out []string
	for _, cause := range e.causes[:min(most, len(e.causes))] {
		names, more := e.pods[cause], ""
		if len(names) > most {
			names, more = names[:most], fmt.Sprintf(" and %d more", len(names)-most)
		}
		out = append(out, fmt.Sprintf("pod %s%s: %s", strings.Join(names, ", "), more, cause))
	}
	if len(e.causes) > most {
		more := 0
		for _, cause := range e.causes[most:] {
			more += len(e.pods[cause])
		}
		out = append(out, fmt.Sprintf("and %d more", more))
	}
	return fmt.Sprintf("%d of %d pods gave no value: %s", e.failed, e.asked, strings.Join(out, "; "))
}

// Outline implements collectors.Outlined: which pods they are, and how many, is no news.
func (e *podsError) Outline() string {
	return "pods gave no value: " + strings.Join(slices.Sorted(slices.Values(e.causes)), "; ")
}
