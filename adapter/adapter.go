// Package adapter joins the parts of the metrics adapter: what HPAs ask for (discovery), asking the sources
// (collection), the answers (store) and the APIs that serve them (metricsapi). It owns the informers that these parts and
// the collectors read from; the collectors themselves are registered by the caller.
package adapter

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

	"github.com/kubetide/kubetide/adapter/cluster"
	"github.com/kubetide/kubetide/adapter/collection"
	"github.com/kubetide/kubetide/adapter/discovery"
	"github.com/kubetide/kubetide/adapter/metricsapi"
	"github.com/kubetide/kubetide/adapter/store"
	"github.com/kubetide/kubetide/adapter/tideapi"
	"github.com/kubetide/kubetide/collectors"
	"github.com/kubetide/kubetide/internal/sample"
)

const (
	// DefaultInterval is kube-metrics-adapter's interval for metrics that name none.
	DefaultInterval = time.Minute
	// DefaultMaxAge is the greatest age of a value that is served, whatever its interval.
	DefaultMaxAge = 15 * time.Minute
	// DefaultWarmUp is how long readiness waits for the first collections.
	DefaultWarmUp = 15 * time.Second
)

// Options are what an Adapter needs.
type Options struct {
	// Config reaches the API server.
	Config *rest.Config
	// Kubeconfig is the file for delegated authentication and authorization; empty in a cluster.
	Kubeconfig string

	// DefaultInterval, MaxAge and WarmUp are the constants of these names if 0.
	DefaultInterval, MaxAge, WarmUp time.Duration
	// DisregardIncompatibleHPAs says nothing about metrics that may be another adapter's.
	DisregardIncompatibleHPAs bool

	// DisregardHPAs collects only what is asked for by Want.
	DisregardHPAs bool

	// Ingresses and RouteGroups have the objects watched that Routes reads.
	Ingresses, RouteGroups bool

	// CustomMetrics and ExternalMetrics install the API groups of the metrics, Decisions those that the engine took; with none of
	// them there is no server. It serves the samples, too.
	CustomMetrics, ExternalMetrics bool
	Decisions                      *tideapi.Decisions
	// BindAddress (all if nil) and SecurePort are where the APIs listen; Listener is used instead if not nil.
	BindAddress net.IP
	SecurePort  int
	Listener    net.Listener
	// Certificate is the serving certificate; it may change at any time.
	Certificate dynamiccertificates.CertKeyContentProvider
	// Version is shown in the OpenAPI documents.
	Version string

	// Cluster shares the collecting with other servers; nil for one that is alone.
	Cluster *cluster.Cluster

	// AwaitLead has it write no Events until Lead.
	AwaitLead bool
	// Registerer takes the metrics; none if nil.
	Registerer prometheus.Registerer
	Log        logr.Logger
	// Clock is the real one if nil.
	Clock clock.WithDelayedExecution
}

// Adapter is one replica of the metrics adapter.
type Adapter struct {
	options   Options
	registry  *collectors.Registry
	store     *store.Store
	scheduler *collection.Scheduler
	discovery *discovery.Discovery
	server    *metricsapi.Server

	workloads informers.SharedInformerFactory // pods and the kinds with a known scale
	hpas      informers.SharedInformerFactory
	events    record.EventBroadcaster
	pods      *pods
	scales    *scales
	secrets   *secrets
	routes    *routes

	ready atomic.Bool

	mu     sync.Mutex
	demand map[sample.Query]*demand
}

// demand is who wants a query: HPAs, through discovery, others on this server, and others on other ones. An answer is served only
// for HPAs.
type demand struct {
	served         bool
	others, remote int
}

// New opens the port of the metrics APIs and prepares everything; nothing is collected or served before Run.
func New(o Options) (*Adapter, error) {
	o = o.withDefaults()
	// Objects come as protobuf: JSON costs several times the work and garbage.
	compact := rest.CopyConfig(o.Config)
	compact.AcceptContentTypes, compact.ContentType = runtime.ContentTypeProtobuf+","+runtime.ContentTypeJSON, runtime.ContentTypeProtobuf
	client, err := kubernetes.NewForConfig(compact)
	if err != nil {
		return nil, fmt.Errorf("adapter: %w", err)
	}
	httpClient, err := rest.HTTPClientFor(o.Config)
	if err != nil {
		return nil, fmt.Errorf("adapter: %w", err)
	}
	mapper, err := apiutil.NewDynamicRESTMapper(o.Config, httpClient)
	if err != nil {
		return nil, fmt.Errorf("adapter: %w", err)
	}
	getter, err := scaleGetter(o.Config, client, mapper)
	if err != nil {
		return nil, fmt.Errorf("adapter: %w", err)
	}
	a, err := build(o, client, mapper, getter)
	if err != nil || !o.RouteGroups {
		return a, err
	}
	dynamicClient, err := dynamic.NewForConfig(o.Config)
	if err == nil {
		err = a.routes.watchRouteGroups(dynamicClient)
	}
	if err != nil {
		return nil, fmt.Errorf("adapter: %w", err)
	}
	return a, nil
}

func (o Options) withDefaults() Options {
	o.DefaultInterval = cmp.Or(o.DefaultInterval, DefaultInterval)
	o.MaxAge = cmp.Or(o.MaxAge, DefaultMaxAge)
	o.WarmUp = cmp.Or(o.WarmUp, DefaultWarmUp)
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	return o
}

func build(o Options, client kubernetes.Interface, mapper meta.RESTMapper, getter getScale) (*Adapter, error) {
	a := &Adapter{
		options: o, registry: collectors.NewRegistry(), store: store.New(o.Clock, o.MaxAge), demand: map[sample.Query]*demand{},
		workloads: informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTransform(slim)),
		hpas:      informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTransform(slim)),
		events:    record.NewBroadcaster(),
	}
	a.events.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: client.CoreV1().Events("")})
	a.pods = &pods{lister: a.workloads.Core().V1().Pods().Lister()}
	a.scales = newScales(a.workloads.Apps().V1(), mapper, getter, o.Clock)
	a.secrets = newSecrets(client.CoreV1(), o.Clock)
	schedule := collection.Options{
		Registry: a.registry, Scales: a.scales, Insert: a.store.Insert, Clock: o.Clock, Registerer: o.Registerer, Log: o.Log.WithName("collection"),
		Report: a.report,
	}
	if o.Cluster != nil {
		schedule.Insert, schedule.Turn = o.Cluster.Insert, o.Cluster.Turn
	}
	a.scheduler = collection.New(schedule)
	if o.Cluster != nil {
		o.Cluster.Attach(cluster.Adapter{Insert: a.store.Insert, Report: a.report, Answer: a.store.Answer, Reconsider: a.scheduler.Reconsider, Works: a.scheduler.Works, Want: a.wantRemote})
	}
	a.discovery = discovery.New(discovery.Options{
		Registry: a.registry, DefaultInterval: o.DefaultInterval, MaxAge: o.MaxAge, DisregardForeign: o.DisregardIncompatibleHPAs,
		Add: a.serve, Remove: a.unserve, Bar: a.store.Bar, Answer: a.store.Answer, Clock: o.Clock, Registerer: o.Registerer, AwaitLead: o.AwaitLead, Log: o.Log.WithName("discovery"),
		Recorder: a.events.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "kubetide"}),
	})
	a.routes = newRoutes(o, a.Recollect)
	if o.Ingresses {
		if err := a.routes.watchIngresses(client); err != nil {
			return nil, fmt.Errorf("adapter: %w", err)
		}
	}
	if o.Registerer != nil {
		o.Registerer.MustRegister(&sampleMetrics{store: a.store, clock: o.Clock})
	}
	_, err := a.workloads.Core().V1().Pods().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(pod any) { a.podChanged(nil, pod) }, UpdateFunc: a.podChanged, DeleteFunc: a.podGone,
	})
	if err != nil {
		return nil, fmt.Errorf("adapter: %w", err)
	}
	a.hpas.Autoscaling().V2().HorizontalPodAutoscalers().Informer() // the factory starts those that have been asked for
	if o.CustomMetrics || o.ExternalMetrics || o.Decisions != nil {
		tide := tideapi.Group(tideapi.Options{Decisions: o.Decisions, Samples: a.store, Clock: o.Clock})
		values := metricsapi.NewProvider(a.store, mapper, o.Clock, o.Registerer)
		if o.Cluster != nil {
			values.Fetch = o.Cluster.Fetch
		}
		a.server, err = metricsapi.NewServer(metricsapi.ServerOptions{
			Provider: values, Custom: o.CustomMetrics, External: o.ExternalMetrics,
			Kubeconfig: o.Kubeconfig, BindAddress: o.BindAddress, Port: o.SecurePort, Listener: o.Listener,
			Certificate: o.Certificate, Version: o.Version, Ready: a.Ready,
			Groups: []metricsapi.Group{{Info: tide, Definitions: tideapi.Definitions}},
		})
		if err != nil {
			return nil, fmt.Errorf("adapter: %w", err)
		}
	}
	return a, nil
}

// Lead says whether this process writes the Events from now on. One that begins to tells what is wrong at that time.
func (a *Adapter) Lead(leads bool) { a.discovery.Lead(leads) }

// report tells people how a collection ended, here or on another node.
func (a *Adapter) report(r sample.Result) {
	err := r.Err
	if r.Warning != nil {
		err = &collectors.Warning{Err: r.Warning}
	}
	a.discovery.Report(r.Query, len(r.Points), err)
}

// Registry takes the collectors. It must be filled before Run.
func (a *Adapter) Registry() *collectors.Registry { return a.registry }

// Pods lists the cluster's pods from memory.
func (a *Adapter) Pods() collectors.Pods { return a.pods }

// Scales reads the scale of any workload.
func (a *Adapter) Scales() collectors.Scales { return a.scales }

// Secrets reads tenants' Secrets that are meant for Kubetide.
func (a *Adapter) Secrets() collectors.Secrets { return a.secrets }

// Routes reads the Ingresses and RouteGroups that Options had watched.
func (a *Adapter) Routes() collectors.Routes { return a.routes }

// Reader gives the answers, also those that the metrics APIs do not serve.
func (a *Adapter) Reader() sample.Reader { return a.store }

// Recollect collects the queries that match now: something has changed that their answers depend on.
func (a *Adapter) Recollect(match func(sample.Query) bool) { a.scheduler.Recollect(match) }

// Address is where the metrics APIs listen; port 0 if there are none.
func (a *Adapter) Address() net.Addr {
	if a.server == nil {
		return &net.TCPAddr{}
	}
	return a.server.Address()
}

// Ready says whether all HPAs are known and their metrics have been collected once, or were given time enough, and whether
// the metrics APIs can tell who is calling.
func (a *Adapter) Ready() error {
	if !a.ready.Load() {
		return errors.New("the first collections are still running")
	}
	if c := a.options.Cluster; c != nil {
		if err := c.Ready(); err != nil {
			return err
		}
	}
	if a.server != nil {
		return a.server.Ready()
	}
	return nil
}

// Leave has other servers take over the collecting, because this one will stop. It goes on until they do.
func (a *Adapter) Leave() {
	if c := a.options.Cluster; c != nil {
		c.Leave()
	}
}

// Healthy says whether metrics are being collected.
func (a *Adapter) Healthy() error { return a.scheduler.Healthy() }

// Want collects a query for somebody who is no HPA, until release is called.
func (a *Adapter) Want(q sample.Query) (release func()) {
	a.change(q, func(d *demand) { d.others++ })
	return sync.OnceFunc(func() { a.change(q, func(d *demand) { d.others-- }) })
}

// wantRemote collects a query for another server.
func (a *Adapter) wantRemote(q sample.Query) (release func()) {
	a.change(q, func(d *demand) { d.remote++ })
	return sync.OnceFunc(func() { a.change(q, func(d *demand) { d.remote-- }) })
}

func (a *Adapter) serve(q sample.Query)   { a.change(q, func(d *demand) { d.served = true }) }
func (a *Adapter) unserve(q sample.Query) { a.change(q, func(d *demand) { d.served = false }) }

func (a *Adapter) change(q sample.Query, change func(*demand)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	d := a.demand[q]
	if d == nil {
		d = &demand{}
		a.demand[q] = d
	}
	before := *d
	change(d)
	wanted := d.served || d.others+d.remote > 0
	if !wanted {
		delete(a.demand, q)
		a.store.Forget(q)
		a.scheduler.Remove(q)
	} else {
		a.store.Add(q, d.served)
	}
	if c := a.options.Cluster; c != nil {
		c.Wanted(q, wanted)
		if asks := d.others > 0; asks != (before.others > 0) {
			c.Ask(q, asks)
		}
	}
	if wanted {
		a.scheduler.Add(q)
	}
}

// podChanged collects what has no value yet when a pod becomes ready, so that the first value comes with the first pod and
// not on the interval.
func (a *Adapter) podChanged(before, after any) {
	pod, ok := after.(*corev1.Pod)
	if !ok || !ready(pod) {
		return
	}
	if old, ok := before.(*corev1.Pod); ok && old.UID == pod.UID && ready(old) {
		return
	}
	for _, q := range a.store.Waiting(pod.Namespace) {
		if a.scales.maySelect(q.Namespace, q.Target, labels.Set(pod.Labels)) {
			a.scheduler.Collect(q)
		}
	}
}

func ready(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

func (a *Adapter) podGone(obj any) {
	if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = gone.Obj
	}
	if pod, ok := obj.(*corev1.Pod); ok {
		a.store.ForgetPod(pod.Namespace, pod.UID)
	}
}

// Run collects and serves until ctx ends or something cannot go on. Informers of the caller that collectors read from must
// have synced before, or first collections fail that need not.
func (a *Adapter) Run(ctx context.Context) error {
	defer a.events.Shutdown()
	group, ctx := errgroup.WithContext(ctx)
	defer a.workloads.Shutdown()
	defer a.hpas.Shutdown()
	if a.server != nil {
		group.Go(func() error { return a.server.Run(ctx) })
	}
	if c := a.options.Cluster; c != nil {
		group.Go(func() error { return c.Run(ctx) })
	}
	group.Go(func() error { a.scheduler.Run(ctx); return nil })
	group.Go(func() error { a.routes.run(ctx); return nil })
	group.Go(func() error { return a.warmUp(ctx) })
	return group.Wait()
}

// awaitRoutes gives their lists a while. They may be refused, and other metrics do not need them.
func (a *Adapter) awaitRoutes(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, a.options.WarmUp)
	defer cancel()
	a.routes.wait(ctx)
}

// warmUp starts the informers, looks at HPAs once what they need is known, and waits until the adapter is ready.
func (a *Adapter) warmUp(ctx context.Context) error {
	if !a.options.DisregardHPAs {
		a.hpas.Start(ctx.Done())
	}
	a.workloads.Start(ctx.Done())
	a.workloads.WaitForCacheSync(ctx.Done())
	a.awaitRoutes(ctx)
	if !a.options.DisregardHPAs {
		seen, err := a.hpas.Autoscaling().V2().HorizontalPodAutoscalers().Informer().AddEventHandler(a.discovery.Handler())
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("adapter: %w", err)
		}
		if err != nil || !cache.WaitForCacheSync(ctx.Done(), seen.HasSynced) {
			return nil // ctx has ended
		}
	}
	enough, cancel := context.WithTimeout(ctx, a.options.WarmUp)
	defer cancel()
	if err := a.scheduler.Warm(enough); err != nil && ctx.Err() == nil {
		a.options.Log.Info("Becoming ready without all metrics", "cause", err.Error())
	}
	a.ready.Store(true)
	return nil
}
