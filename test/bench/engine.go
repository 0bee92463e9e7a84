package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	zalando "github.com/kubetide/kubetide/api/zalando/v1"
	"github.com/kubetide/kubetide/test/lab"
)

// The kinds of IHPAs, by their number modulo ten.
func isStatic(i int) bool    { return i%10 < 5 }               // a number, and a cron window that is far away
func isCommon(i int) bool    { return i%10 == 5 || i%10 == 6 } // a number, and a cron window that opens for all of them at once
func isScheduled(i int) bool { return i%10 == 7 }              // a number, and a ScalingSchedule that is far away
func isExternal(i int) bool  { return i%10 == 8 }              // an external metric
func isPodJSON(i int) bool   { return i%10 == 9 }              // a metric of its pods

func isReactive(i int) bool { return isExternal(i) || isPodJSON(i) }

// engine is the load of many IHPAs. Each is watched from outside, so times include what a watch takes.
type engine struct {
	options
	cluster *lab.Lab
	api     client.WithWatch
	demand  *demand

	mu       sync.Mutex
	replicas map[int]seen      // of the Deployments
	decided  map[int]time.Time // when an IHPA first said that it scales
	pods     int               // ready ones
}

type seen struct {
	replicas int32
	at       time.Time
}

// demand answers /N with the load of IHPA N, and notes when it first answered with one that was raised.
type demand struct {
	server *http.Server
	// share is how many pods share a load.
	share func(i int) int

	mu       sync.Mutex
	loads    map[int]int
	answered map[int]time.Time
}

func startDemand(share func(i int) int) (*demand, error) {
	d := &demand{share: share, loads: map[int]int{}, answered: map[int]time.Time{}}
	d.server = &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i, err := strconv.Atoi(strings.TrimPrefix(r.URL.Path, "/"))
		if err != nil {
			http.NotFound(w, r)
			return
		}
		d.mu.Lock()
		load, raised := d.loads[i]
		if _, before := d.answered[i]; raised && !before {
			d.answered[i] = time.Now()
		}
		d.mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"load":%d}`, max(load, loadOfOne)/d.share(i))
	})}
	listener, err := net.Listen("tcp", ":"+sourcePort)
	if err != nil {
		return nil, err
	}
	go func() {
		if err := d.server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			say("the source ended: %v", err)
		}
	}()
	return d, nil
}

// loadOfOne is the load that one replica takes.
const loadOfOne = 10

// before is how many replicas the i-th workload has until something changes. Those that follow metrics have one to begin with.
func (e *engine) before(i int) int32 {
	if i < e.running || isReactive(i) {
		return 1
	}
	return 0
}

// share is how many pods answer with a part of the load.
func (e *engine) share(i int) int {
	if !isPodJSON(i) {
		return 1
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return max(1, int(e.replicas[i].replicas))
}

func appOf(i int) string { return fmt.Sprintf("app-%d", i) }

func numberOf(name string) int {
	i, err := strconv.Atoi(strings.TrimPrefix(name, "app-"))
	if err != nil {
		return -1
	}
	return i
}

func (e *engine) deployment(i int) *appsv1.Deployment {
	labels := map[string]string{"app": appOf(i)}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespaceOf(i), Name: appOf(i)},
		Spec: appsv1.DeploymentSpec{Replicas: ptr.To(e.before(i)), Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: corev1.PodTemplateSpec{
			ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "simulated"}}},
		}},
	}
}

const scheduleName = "christmas"

func (e *engine) ihpa(i int) *kapacity.IntelligentHorizontalPodAutoscaler {
	o := &kapacity.IntelligentHorizontalPodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespaceOf(i), Name: appOf(i), Annotations: map[string]string{}},
		Spec: kapacity.IntelligentHorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: appOf(i)},
			MinReplicas:    0, MaxReplicas: 10,
		},
	}
	number := kapacity.HorizontalPortraitProvider{Type: kapacity.StaticProvider, Priority: 1, Static: &kapacity.StaticHorizontalPortraitProvider{Replicas: e.before(i)}}
	switch {
	case isStatic(i), isCommon(i):
		o.Spec.PortraitProviders = []kapacity.HorizontalPortraitProvider{number, cronOf("0 0 24 12 *", "0 0 27 12 *")}
	case isScheduled(i):
		o.Spec.PortraitProviders = []kapacity.HorizontalPortraitProvider{number, {
			Type: kapacity.ScheduleProvider, Priority: 2, Schedule: &kapacity.ScheduleHorizontalPortraitProvider{Kind: zalando.ScalingScheduleKind, Name: scheduleName},
		}}
	default:
		var metric autoscalingv2.MetricSpec
		target := autoscalingv2.MetricTarget{Type: autoscalingv2.AverageValueMetricType, AverageValue: resource.NewQuantity(loadOfOne, resource.DecimalSI)}
		prefix := "metric-config.pods.load.json-path/"
		if isExternal(i) {
			prefix = "metric-config.external.load.json-path/"
			o.Annotations[prefix+"endpoint"] = fmt.Sprintf("http://%s:%s/%d", sourceHost, sourcePort, i)
			metric = autoscalingv2.MetricSpec{Type: autoscalingv2.ExternalMetricSourceType, External: &autoscalingv2.ExternalMetricSource{Target: target,
				Metric: autoscalingv2.MetricIdentifier{Name: "load", Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"type": "json-path", "app": appOf(i)}}}}}
		} else {
			o.Annotations[prefix+"path"], o.Annotations[prefix+"port"] = fmt.Sprintf("/%d", i), sourcePort
			metric = autoscalingv2.MetricSpec{Type: autoscalingv2.PodsMetricSourceType, Pods: &autoscalingv2.PodsMetricSource{Target: target, Metric: autoscalingv2.MetricIdentifier{Name: "load"}}}
		}
		o.Annotations[prefix+"json-key"], o.Annotations[prefix+"interval"] = "$.load", e.interval.String()
		o.Spec.PortraitProviders = []kapacity.HorizontalPortraitProvider{{Type: kapacity.DynamicProvider, Priority: 1, Dynamic: &kapacity.DynamicHorizontalPortraitProvider{
			PortraitSpec: kapacity.PortraitSpec{PortraitType: kapacity.ReactivePortrait, Algorithm: kapacity.PortraitAlgorithm{Type: kapacity.KubeHPAAlgorithm}, Metrics: []kapacity.MetricSpec{{MetricSpec: metric}}},
		}}}
	}
	return o
}

func cronOf(start, end string) kapacity.HorizontalPortraitProvider {
	return kapacity.HorizontalPortraitProvider{Type: kapacity.CronProvider, Priority: 2, Cron: &kapacity.CronHorizontalPortraitProvider{Crons: []kapacity.ReplicaCron{
		{Name: "window", TimeZone: "UTC", Start: kapacity.CronExpression(start), End: kapacity.CronExpression(end), Replicas: 2},
	}}}
}

// runEngine is `make performance-engine`.
func runEngine(ctx context.Context, o options, cluster *lab.Lab) (string, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, kapacity.AddToScheme, zalando.AddToScheme} {
		if err := add(scheme); err != nil {
			return "", err
		}
	}
	api, err := client.NewWithWatch(cluster.Config(), client.Options{Scheme: scheme})
	if err != nil {
		return "", err
	}
	e := &engine{options: o, cluster: cluster, api: api, replicas: map[int]seen{}, decided: map[int]time.Time{}}
	if e.demand, err = startDemand(e.share); err != nil {
		return "", err
	}
	defer e.demand.server.Close()
	if err := e.observe(ctx); err != nil {
		return "", err
	}
	// All Deployments are there before Kubetide's part begins.
	if err := e.workloads(ctx); err != nil {
		return "", err
	}
	figures, costs, err := e.stages(ctx, "engine-", []stage{
		{"creation", e.creation}, {"rest", e.rest}, {"changes", e.changes}, {"cron boundary", e.boundary}, {"reaction", e.reaction},
	})
	if err != nil {
		return "", err
	}
	rows, err := e.takeover(ctx)
	if err != nil {
		return "", fmt.Errorf("takeover: %w", err)
	}
	figures = append(figures, rows...)
	var r report
	r.table(fmt.Sprintf("%d IHPAs and %d pods", o.ihpas, e.readyPods()), figures...)
	costs.print(&r)
	return r.String(), nil
}

// observe follows the Deployments, the IHPAs and the pods until ctx ends.
func (e *engine) observe(ctx context.Context) error {
	ready := map[string]bool{}
	for _, follow := range []struct {
		list client.ObjectList
		see  func(watch.Event)
	}{
		{&appsv1.DeploymentList{}, func(event watch.Event) {
			d, ok := event.Object.(*appsv1.Deployment)
			if !ok || numberOf(d.Name) < 0 {
				return
			}
			if was, ok := e.replicas[numberOf(d.Name)]; !ok || was.replicas != *d.Spec.Replicas {
				e.replicas[numberOf(d.Name)] = seen{*d.Spec.Replicas, time.Now()}
			}
		}},
		{&kapacity.IntelligentHorizontalPodAutoscalerList{}, func(event watch.Event) {
			o, ok := event.Object.(*kapacity.IntelligentHorizontalPodAutoscaler)
			if ok && e.decided[numberOf(o.Name)].IsZero() && apimeta.IsStatusConditionTrue(o.Status.Conditions, kapacity.ConditionScalingActive) {
				e.decided[numberOf(o.Name)] = time.Now()
			}
		}},
		{&corev1.PodList{}, func(event watch.Event) {
			if p, ok := event.Object.(*corev1.Pod); ok && p.Labels["app"] != "" {
				key := p.Namespace + "/" + p.Name
				if event.Type != watch.Deleted && slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
					return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
				}) {
					ready[key] = true
				} else {
					delete(ready, key)
				}
				e.pods = len(ready)
			}
		}},
	} {
		if err := e.follow(ctx, follow.list, follow.see); err != nil {
			return err
		}
	}
	return nil
}

// follow shows all that happens to the objects of a kind, with the lock held, until ctx ends.
func (e *engine) follow(ctx context.Context, list client.ObjectList, see func(watch.Event)) error {
	w, err := e.api.Watch(ctx, list)
	if err != nil {
		return err
	}
	go func() {
		for {
			for event := range w.ResultChan() {
				if event.Type == watch.Error {
					say("the watch of %T ends: %v", list, event.Object)
				}
				e.mu.Lock()
				see(event)
				e.mu.Unlock()
			}
			// The API server ends the watch of who is too slow. A new one begins with all that there is.
			for {
				if w, err = e.api.Watch(ctx, list); err == nil {
					break
				}
				if pause(ctx, 100*time.Millisecond) != nil {
					return
				}
			}
		}
	}()
	return nil
}

func (e *engine) readyPods() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.pods
}

// await waits until missing returns 0, which is asked with the lock held.
func (e *engine) await(ctx context.Context, what string, within time.Duration, missing func() int) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	told := time.Now()
	for {
		e.mu.Lock()
		n := missing()
		e.mu.Unlock()
		if n == 0 {
			return nil
		}
		if time.Since(told) > 15*time.Second {
			told = time.Now()
			say("%s: %d to go", what, n)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %d are missing after %s", what, n, within)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// each does something for each number that is wanted, many at a time.
func (e *engine) each(ctx context.Context, wanted func(int) bool, do func(context.Context, int) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(maxInFlight)
	for i := range e.ihpas {
		if wanted(i) {
			group.Go(func() error { return do(ctx, i) })
		}
	}
	return group.Wait()
}

func all(int) bool { return true }

// workloads makes the Deployments, and waits for their pods.
func (e *engine) workloads(ctx context.Context) error {
	began := time.Now()
	for i := range namespaces {
		if err := e.api.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespaceOf(i)}}); err != nil {
			return err
		}
		begin := zalando.ScheduleDate("2099-12-24T00:00:00Z")
		if err := e.api.Create(ctx, &zalando.ScalingSchedule{ObjectMeta: metav1.ObjectMeta{Namespace: namespaceOf(i), Name: scheduleName}, Spec: zalando.ScalingScheduleSpec{
			Schedules: []zalando.Schedule{{Type: zalando.OneTimeSchedule, Date: &begin, DurationMinutes: 60, Value: 5}},
		}}); err != nil {
			return err
		}
	}
	pods := 0
	for i := range e.ihpas {
		pods += int(e.before(i))
	}
	say("creating %d Deployments with %d pods", e.ihpas, pods)
	if err := e.each(ctx, all, func(ctx context.Context, i int) error { return e.api.Create(ctx, e.deployment(i)) }); err != nil {
		return err
	}
	err := e.await(ctx, "ready pods", 5*time.Minute, func() int { return pods - e.pods })
	say("all pods were ready after %s", time.Since(began).Round(time.Second))
	return err
}

func (e *engine) creation(ctx context.Context) ([]row, error) {
	began := time.Now()
	say("creating %d IHPAs", e.ihpas)
	if err := e.each(ctx, all, func(ctx context.Context, i int) error { return e.api.Create(ctx, e.ihpa(i)) }); err != nil {
		return nil, err
	}
	created := time.Now()
	if err := e.await(ctx, "decisions", 5*time.Minute, func() int { return e.ihpas - len(e.decided) }); err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	var last time.Time
	for _, at := range e.decided {
		if at.After(last) {
			last = at
		}
	}
	return []row{
		{"all IHPAs created one after the other", created.Sub(began).Round(100 * time.Millisecond).String()},
		{"from the first creation to the last first decision", last.Sub(began).Round(100 * time.Millisecond).String()},
	}, nil
}

// settle waits until Kubetide asks little of the API server: until the Events of what came before are written.
func (e *engine) settle(ctx context.Context) (time.Duration, error) {
	began := time.Now()
	pod, err := kubetidePod(ctx, e.cluster)
	if err != nil {
		return 0, err
	}
	u := &usage{pod: pod}
	for last := -1.0; ; {
		n, err := u.requests(ctx)
		if err != nil {
			return 0, err
		}
		// Renewals of the Lease, and of watches, go on. What does not end by then is counted as writes at rest.
		if last >= 0 && n-last < 20 || time.Since(began) > 4*time.Minute {
			return time.Since(began), nil
		}
		last = n
		if err := pause(ctx, 5*time.Second); err != nil {
			return 0, err
		}
	}
}

// rest changes nothing, and counts what Kubetide writes and lists all the same.
func (e *engine) rest(ctx context.Context) ([]row, error) {
	began := time.Now()
	if err := pause(ctx, e.options.rest); err != nil {
		return nil, err
	}
	writes, exempt, lists := map[string]int{}, 0, 0
	for request, err := range e.cluster.Audit(began) {
		if err != nil {
			return nil, err
		}
		if !strings.HasPrefix(request.User, "system:serviceaccount:kubetide-system:") {
			continue
		}
		if request.Verb == "list" {
			lists++
		}
		if !request.Writes() {
			continue
		}
		switch request.Resource {
		case "leases", "tokenreviews", "subjectaccessreviews":
			exempt++
		default:
			writes[request.Verb+" "+request.Resource+"/"+request.Subresource+" "+strconv.Itoa(request.Code)]++
		}
	}
	n := 0
	for _, what := range slices.Sorted(maps.Keys(writes)) {
		say("at rest: %d × %s", writes[what], what)
		n += writes[what]
	}
	return []row{
		{fmt.Sprintf("writes at rest, in %s", e.options.rest), fmt.Sprint(n), "0"},
		{"lists at rest", fmt.Sprint(lists), "0"},
		{"besides: renewals of Leases, questions about callers", fmt.Sprint(exempt)},
	}, nil
}

// patch asks for two replicas of a static one.
func (e *engine) patch(ctx context.Context, i int) error {
	changed := e.ihpa(i)
	changed.Spec.PortraitProviders[0].Static.Replicas = 2
	return e.api.Patch(ctx, changed, client.MergeFrom(e.ihpa(i)))
}

// reached are the times at which the wanted ones had two replicas, after the given ones, sorted.
func (e *engine) reached(ctx context.Context, what string, since map[int]time.Time) ([]time.Duration, error) {
	err := e.await(ctx, what, 4*time.Minute, func() (missing int) {
		for i := range since {
			if e.replicas[i].replicas != 2 {
				missing++
			}
		}
		return missing
	})
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	var took []time.Duration
	for i, from := range since {
		took = append(took, e.replicas[i].at.Sub(from))
	}
	slices.Sort(took)
	return took, nil
}

// paced does something for each number that is wanted, some a second, for as long as a load runs, and waits for none of it to be done.
func (e *engine) paced(ctx context.Context, numbers int, wanted func(int) bool, do func(int)) error {
	tick := time.NewTicker(time.Second / time.Duration(e.options.changes))
	defer tick.Stop()
	end := time.Now().Add(e.duration)
	for i := 0; i < numbers && time.Now().Before(end); i++ {
		if !wanted(i) {
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		do(i)
	}
	return nil
}

// write has users write at the pace of paced, and returns when each began to, and how long each took, sorted.
func (e *engine) write(ctx context.Context, numbers int, wanted func(int) bool, do func(context.Context, int) error) (began map[int]time.Time, took []time.Duration, _ error) {
	began = map[int]time.Time{}
	var mu sync.Mutex
	var group errgroup.Group
	err := e.paced(ctx, numbers, wanted, func(i int) {
		group.Go(func() error {
			since := time.Now()
			err := do(ctx, i)
			mu.Lock()
			defer mu.Unlock()
			began[i] = since
			took = append(took, time.Since(since))
			return err
		})
	})
	if err := errors.Join(err, group.Wait()); err != nil {
		return nil, nil, err
	}
	slices.Sort(took)
	return began, took, nil
}

// changes edits static ones, some a second.
func (e *engine) changes(ctx context.Context) ([]row, error) {
	say("changing %d IHPAs a second for %s", e.options.changes, e.duration)
	since, patches, err := e.write(ctx, e.lastStatic(), isStatic, e.patch)
	if err != nil {
		return nil, err
	}
	took, err := e.reached(ctx, "changes", since)
	return []row{
		{fmt.Sprintf("%d changes, %d a second: from the user's write to that of `/scale`", len(since), e.options.changes), percentiles(took), "p99 ≤ 1s"},
		{"of these times: the user's write", percentiles(patches)},
	}, err
}

// lastStatic leaves the last ones for takeover.
func (e *engine) lastStatic() int { return e.ihpas/10*10 - 10 }

// boundary opens one window for a fifth of all.
func (e *engine) boundary(ctx context.Context) ([]row, error) {
	opens := time.Now().Add(30 * time.Second).Truncate(time.Minute).Add(time.Minute)
	window := cronOf(fmt.Sprintf("%d * * * *", opens.Minute()), fmt.Sprintf("%d * * * *", opens.Add(30*time.Minute).Minute()))
	err := e.each(ctx, isCommon, func(ctx context.Context, i int) error {
		changed := e.ihpa(i)
		changed.Spec.PortraitProviders[1] = window
		return e.api.Patch(ctx, changed, client.MergeFrom(e.ihpa(i)))
	})
	if err != nil {
		return nil, err
	}
	if left := time.Until(opens); left < 5*time.Second {
		return nil, fmt.Errorf("the windows were written only %s before they open", left)
	}
	if err := pause(ctx, time.Until(opens)); err != nil {
		return nil, err
	}
	since := map[int]time.Time{}
	for i := range e.ihpas {
		if isCommon(i) {
			since[i] = opens
		}
	}
	took, err := e.reached(ctx, "cron boundary", since)
	return []row{{fmt.Sprintf("a cron window that opens for %d IHPAs at once: until `/scale` is written", len(since)), percentiles(took)}}, err
}

// reaction raises the load of those that follow a metric, some a second; their sources are asked once an interval.
func (e *engine) reaction(ctx context.Context) ([]row, error) {
	say("raising the load of %d IHPAs a second for %s", e.options.changes, e.duration)
	var raised []int
	err := e.paced(ctx, e.ihpas, isReactive, func(i int) {
		e.demand.mu.Lock()
		defer e.demand.mu.Unlock()
		e.demand.loads[i] = 2 * loadOfOne
		raised = append(raised, i)
	})
	if err != nil {
		return nil, err
	}
	var rows []row
	for _, kind := range []struct {
		name string
		is   func(int) bool
	}{{"an external metric", isExternal}, {"a metric of pods", isPodJSON}} {
		wanted := map[int]time.Time{}
		for _, i := range raised {
			if kind.is(i) {
				wanted[i] = time.Time{}
			}
		}
		if _, err := e.reached(ctx, "reaction", wanted); err != nil {
			return nil, err
		}
		e.demand.mu.Lock()
		for i := range wanted {
			wanted[i] = e.demand.answered[i]
		}
		e.demand.mu.Unlock()
		took, err := e.reached(ctx, "reaction", wanted)
		if err != nil {
			return nil, err
		}
		rows = append(rows, row{fmt.Sprintf("the load of %d IHPAs on %s doubles, one after the other: from the source's answer to the write of `/scale`", len(wanted), kind.name), percentiles(took), "p99 ≤ 1s"})
	}
	return rows, nil
}

// takeover ends the leader in two ways, and changes an IHPA at once.
func (e *engine) takeover(ctx context.Context) ([]row, error) {
	say("starting a second replica")
	for _, args := range [][]string{
		{"-n", "kubetide-system", "scale", "statefulset/kubetide", "--replicas=2"},
		{"-n", "kubetide-system", "rollout", "status", "statefulset/kubetide", "--timeout=120s"},
	} {
		if _, err := e.cluster.Kubectl(ctx, args...); err != nil {
			return nil, err
		}
	}
	if err := pause(ctx, 15*time.Second); err != nil { // its caches fill
		return nil, err
	}
	var rows []row
	for n, way := range []struct {
		name   string
		signal syscall.Signal
	}{
		{"the leader's process is killed (-9), and its container starts again", syscall.SIGKILL},
		{"the leader hangs (SIGSTOP), and the other replica takes over", syscall.SIGSTOP},
	} {
		leader, err := e.leader(ctx)
		if err != nil {
			return nil, err
		}
		pods := &corev1.PodList{}
		if err := e.api.List(ctx, pods, client.InNamespace("kubetide-system")); err != nil {
			return nil, err
		}
		for _, p := range pods.Items {
			pid, err := e.cluster.PodPID("kubetide-system", p.Name)
			if err != nil {
				return nil, err
			}
			memory, err := memoryOf(pid)
			if err != nil {
				return nil, err
			}
			role := "the replica that waits"
			if p.Name == leader {
				role = "the leader"
			}
			if n == 0 {
				rows = append(rows, row{"memory of " + role, memory, "≤ 512 MiB"})
			}
		}
		i := e.lastStatic() + n // a static one, nobody has changed it
		began := time.Now()
		if err := e.cluster.KillPod("kubetide-system", leader, way.signal); err != nil {
			return nil, err
		}
		if err := e.patch(ctx, i); err != nil {
			return nil, err
		}
		took, err := e.reached(ctx, way.name, map[int]time.Time{i: began})
		if err != nil {
			return nil, err
		}
		next, err := e.leader(ctx)
		if err != nil {
			return nil, err
		}
		who := "the other replica led"
		if next == leader {
			who = "the same pod led again"
		}
		if way.signal == syscall.SIGSTOP {
			if err := e.cluster.KillPod("kubetide-system", leader, syscall.SIGCONT); err != nil {
				return nil, err
			}
		}
		rows = append(rows, row{way.name + ": until `/scale` of an IHPA changed meanwhile is written", fmt.Sprintf("%s (%s)", took[0].Round(10*time.Millisecond), who), "≤ 10s"})
		say("%s: %s", way.name, rows[len(rows)-1][1])
		if err := pause(ctx, 15*time.Second); err != nil {
			return nil, err
		}
	}
	return rows, nil
}

// leader is the name of the pod that holds the Lease.
func (e *engine) leader(ctx context.Context) (string, error) {
	holder, err := e.cluster.Kubectl(ctx, "-n", "kubetide-system", "get", "lease", kapacity.LeaderElectionID, "-o", "jsonpath={.spec.holderIdentity}")
	pod, _, _ := strings.Cut(holder, "_")
	return pod, err
}

// cost counts what a stage takes.
type cost struct {
	engine *engine
	use    *usage
	sent   float64 // requests of Kubetide
}

type costTable struct {
	header, rows []string
	cells        map[string][]string
}

func (t *costTable) add(name, value string) {
	if _, ok := t.cells[name]; !ok {
		t.rows = append(t.rows, name)
	}
	t.cells[name] = append(t.cells[name], value)
}

func (t *costTable) lines() (out [][]string) {
	for _, name := range t.rows {
		out = append(out, slices.Concat([]string{name}, t.cells[name]))
	}
	return out
}

func (t *costTable) print(r *report) {
	r.columns("What each stage took", slices.Concat([]string{""}, t.header), t.lines())
}

// stage is a part of a load.
type stage struct {
	name string
	run  func(context.Context) ([]row, error)
}

// stages carries out one after the other, and returns their figures and what each took. Before the one at rest, what came before ends.
func (e *engine) stages(ctx context.Context, profiles string, all []stage) (figures []row, costs *costTable, _ error) {
	costs = &costTable{cells: map[string][]string{}}
	for _, stage := range all {
		if stage.name == "rest" {
			took, err := e.settle(ctx)
			if err != nil {
				return nil, nil, err
			}
			figures = append(figures, row{"and from there until the last Event is written", "about " + took.Round(time.Second).String()})
		}
		use, err := e.begin(ctx, profiles+stage.name)
		if err != nil {
			return nil, nil, err
		}
		rows, err := stage.run(ctx)
		for _, r := range rows {
			say("%s: %s", r[0], r[1])
		}
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", stage.name, err)
		}
		if err := use.end(ctx, costs, stage.name); err != nil {
			return nil, nil, err
		}
		figures = append(figures, rows...)
	}
	return figures, costs, nil
}

// begin counts what a stage takes; its profiles are named after it.
func (e *engine) begin(ctx context.Context, stage string) (*cost, error) {
	w := &workload{options: e.options, cluster: e.cluster}
	use, err := w.measure(ctx, strings.ReplaceAll(stage, " ", "-"))
	if err != nil {
		return nil, err
	}
	sent, err := use.requests(ctx)
	return &cost{e, use, sent}, err
}

// requests are those that Kubetide has sent to the API server.
func (u *usage) requests(ctx context.Context) (n float64, err error) {
	metrics, err := u.admin(ctx, "/metrics")
	for line := range strings.Lines(string(metrics)) {
		if strings.HasPrefix(line, "rest_client_requests_total{") {
			fields := strings.Fields(line)
			count, _ := strconv.ParseFloat(fields[len(fields)-1], 64)
			n += count
		}
	}
	return n, err
}

func (c *cost) end(ctx context.Context, t *costTable, stage string) error {
	after, err := c.use.count(ctx)
	if err != nil {
		return err
	}
	took := time.Since(c.use.began)
	sent, err := c.use.requests(ctx)
	if err != nil {
		return err
	}
	<-c.use.profiled
	memory, err := programs()
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	t.header = append(t.header, stage)
	t.add("time", took.Round(time.Second).String())
	others := after.machine - c.use.before.machine
	for _, part := range [][2]string{
		{"kubetide", "Kubetide"}, {"kube-apiserver", "kube-apiserver"}, {"etcd", "etcd"}, {"kube-controller-manager", "kube-controller-manager"},
		{filepath.Base(self), "the load generator and the source"},
	} {
		used := after.programs[part[0]] - c.use.before.programs[part[0]]
		others -= used
		t.add("processor, "+part[1], fmt.Sprintf("%.0f %% of a core", 100*used.Seconds()/took.Seconds()))
		if part[0] == filepath.Base(self) {
			continue
		}
		resident, err := memoryOf(memory[part[0]])
		if err != nil {
			return err
		}
		t.add("memory, "+part[1], resident)
	}
	t.add("processor, everything else on the machine", fmt.Sprintf("%.0f %% of a core", 100*max(0, others).Seconds()/took.Seconds()))
	t.add("Kubetide had work but no processor", fmt.Sprintf("%.0f %% of the time, all its threads added up", 100*(after.waited-c.use.before.waited).Seconds()/took.Seconds()))
	t.add("Kubetide's requests to the API server", fmt.Sprintf("%.0f", sent-c.sent))
	return nil
}

// programs finds a process of each program.
func programs() (map[string]int, error) {
	links, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		return nil, err
	}
	pids := map[string]int{}
	for _, link := range links {
		if file, err := os.Readlink(link); err == nil {
			pids[filepath.Base(file)], _ = strconv.Atoi(filepath.Base(filepath.Dir(link)))
		}
	}
	return pids, nil
}
