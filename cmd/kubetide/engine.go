package main

import (
	"context"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apimachinery/pkg/util/uuid"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrlconfig "sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/kubetide/kubetide/adapter"
	kai "github.com/kubetide/kubetide/api/kai/v1alpha1"
	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	zalando "github.com/kubetide/kubetide/api/zalando/v1"
	"github.com/kubetide/kubetide/internal/config"
	"github.com/kubetide/kubetide/internal/decision"
	"github.com/kubetide/kubetide/internal/window"
	"github.com/kubetide/kubetide/scaler/gate"
	"github.com/kubetide/kubetide/scaler/horizontalportrait"
	"github.com/kubetide/kubetide/scaler/horizontalportrait/job"
	"github.com/kubetide/kubetide/scaler/ihpa"
	"github.com/kubetide/kubetide/scaler/replicaprofile"
	"github.com/kubetide/kubetide/scaler/scheduled"
	"github.com/kubetide/kubetide/workloads/stackset"
	"github.com/kubetide/kubetide/workloads/stackset/generate"
	"github.com/kubetide/kubetide/workloads/step"
)

// How the lead is held: another replica takes over at most leaseDuration and a retryPeriod after the last renewal.
const (
	leaseDuration = 6 * time.Second
	renewDeadline = 4 * time.Second
	retryPeriod   = time.Second
)

// newScheme is called by each that needs one: a manager writes to its scheme while it is made.
func newScheme() *runtime.Scheme {
	scheme := runtime.NewScheme()
	utilruntime.Must(clientgoscheme.AddToScheme(scheme))
	utilruntime.Must(kapacity.AddToScheme(scheme))
	utilruntime.Must(zalando.AddToScheme(scheme))
	utilruntime.Must(kai.AddToScheme(scheme))
	return scheme
}

// writer is the part of the server that only one replica may be: it holds the Lease while it writes.
type writer struct {
	config    *config.Config
	identity  string
	rest      *rest.Config
	log       logr.Logger
	decisions *decision.Log
	// details are what each metric of a portrait said last.
	details *decision.Portraits
	// adapter has the engine's metrics collected.
	adapter *adapter.Adapter
	// leads is true while this process holds the Lease; leadChanged is told when that begins and ends.
	leads       atomic.Bool
	leadChanged func(leads bool)
	// current is the manager at work; nil while there is none.
	current atomic.Pointer[manager.Manager]
}

func newWriter(c *config.Config, restConfig *rest.Config, log logr.Logger) *writer {
	identity := c.General.Identity
	if identity == "" {
		host, _ := os.Hostname() // only for people who look at the Lease
		identity = host + "_" + string(uuid.NewUUID())
	}
	return &writer{config: c, identity: identity, rest: rest.CopyConfig(restConfig), log: log, decisions: decision.NewLog(0, 0), details: &decision.Portraits{}}
}

// run takes part in the election until ctx ends. A lost lead, after an outage of the API server for example, is no reason to
// end the process: its samples would go with it, and what it collects and answers needs no lead. All that wrote under the
// lead has then lost its context, so it is built anew, which fails as long as the API server is away.
func (w *writer) run(ctx context.Context) error {
	for rebuilt := false; ; rebuilt = true {
		mgr, err := w.manager()
		if err != nil {
			if !rebuilt {
				return err
			}
			w.log.Error(err, "The engine cannot start yet")
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(retryPeriod):
			}
			continue
		}
		began := time.Now()
		w.current.Store(&mgr)
		err = mgr.Start(ctx)
		w.current.Store(nil)
		if ctx.Err() != nil {
			if err != nil {
				w.log.Error(err, "The engine did not stop in order")
			}
			return nil
		}
		w.log.Error(err, "The engine ended and starts again")
		w.forget()
		if time.Since(began) < 10*time.Second {
			select {
			case <-ctx.Done():
			case <-time.After(10 * time.Second):
			}
		}
	}
}

func (w *writer) manager() (manager.Manager, error) {
	// Renewals must not queue behind what the lead is for.
	leaseConfig := rest.CopyConfig(w.rest)
	leaseConfig.QPS, leaseConfig.Burst, leaseConfig.RateLimiter = 10, 20, nil
	lock, err := resourcelock.NewFromKubeconfig(resourcelock.LeasesResourceLock, w.config.General.Namespace, leaseName(w.config),
		resourcelock.ResourceLockConfig{Identity: w.identity}, leaseConfig, renewDeadline)
	if err != nil {
		return nil, fmt.Errorf("engine: %w", err)
	}
	fence := &fence{Interface: lock, clock: clock.RealClock{}}
	restConfig := rest.CopyConfig(w.rest)
	restConfig.Wrap(fence.around)
	mgr, err := ctrl.NewManager(restConfig, ctrl.Options{
		Scheme: newScheme(),
		Logger: w.log,
		Cache: cache.Options{
			DefaultTransform: cache.TransformStripManagedFields(),
			ByObject: map[client.Object]cache.ByObject{
				&corev1.Pod{}:                            {Transform: slimPod},
				&appsv1.Deployment{}:                     {Transform: slimWorkload},
				&appsv1.StatefulSet{}:                    {Transform: slimWorkload},
				&appsv1.ReplicaSet{}:                     {Transform: slimWorkload},
				&autoscalingv2.HorizontalPodAutoscaler{}: {Transform: slimHPA},
			},
			NewInformer: w.informer,
		},
		Metrics:                             metricsserver.Options{BindAddress: "0"},
		HealthProbeBindAddress:              "0",
		PprofBindAddress:                    "0",
		LeaderElection:                      true,
		LeaderElectionID:                    leaseName(w.config), // by which the metric names it
		LeaderElectionResourceLockInterface: fence,
		LeaderElectionReleaseOnCancel:       true,
		LeaseDuration:                       ptr.To(leaseDuration),
		RenewDeadline:                       ptr.To(renewDeadline),
		RetryPeriod:                         ptr.To(retryPeriod),
		GracefulShutdownTimeout:             ptr.To(5 * time.Second),
		Controller: ctrlconfig.Controller{
			SkipNameValidation: ptr.To(true), // a second manager in this process has the same controllers
			EnableWarmup:       ptr.To(true), // a new leader begins with full caches
			RecoverPanic:       ptr.To(true),
		},
	})
	if err != nil {
		return nil, fmt.Errorf("engine: %w", err)
	}
	if w.config.Enabled(config.ModuleEngine) {
		if err := w.setup(mgr); err != nil {
			return nil, fmt.Errorf("engine: %w", err)
		}
	}
	if w.config.Enabled(config.ModuleStep) {
		options := step.SetupOptions{Options: step.Options{ScaleToZero: w.config.Step.ScaleToZero}, Concurrency: w.config.Engine.ReconcileConcurrency}
		if err := step.Setup(mgr, options); err != nil {
			return nil, fmt.Errorf("steps: %w", err)
		}
	}
	if w.config.Enabled(config.ModuleStackSet) {
		if err := stackset.Setup(mgr, stackSetOptions(w.config)); err != nil {
			return nil, fmt.Errorf("stacksets: %w", err)
		}
	}
	return mgr, mgr.Add(manager.RunnableFunc(w.lead))
}

// informer is the adapter's where it watches the same, and else one of the engine's own.
func (w *writer) informer(lw toolscache.ListerWatcher, kind runtime.Object, resync time.Duration, indexers toolscache.Indexers) toolscache.SharedIndexInformer {
	if _, ok := kind.(*autoscalingv2.HorizontalPodAutoscaler); ok && w.config.Enabled(config.ModuleAdapter) {
		return w.adapter.HPAs()
	}
	return toolscache.NewSharedIndexInformer(lw, kind, resync, indexers)
}

// leaseName keeps modules that are installed apart from taking the lead from each other.
func leaseName(c *config.Config) string {
	if c.Enabled(config.ModuleEngine) {
		return kapacity.LeaderElectionID
	}
	if c.Enabled(config.ModuleStep) {
		return kai.LeaderElectionID
	}
	if c.Enabled(config.ModuleStackSet) {
		return stackset.LeaderElectionID
	}
	return adapterLease
}

func stackSetOptions(c *config.Config) stackset.SetupOptions {
	s := c.StackSet
	return stackset.SetupOptions{Concurrency: c.Engine.ReconcileConcurrency, Options: stackset.Options{
		Options:      generate.Options{ClusterDomains: s.ClusterDomains, SyncAnnotations: s.SyncIngressAnnotations, Forward: s.Forward},
		ControllerID: s.ControllerID, RouteGroups: s.RouteGroups, ConfigMaps: s.ConfigMaps, Secrets: s.Secrets, PlatformCredentialsSets: s.PlatformCredentialsSets,
	}}
}

func (w *writer) setup(mgr manager.Manager) error {
	concurrency := w.config.Engine.ReconcileConcurrency
	defaults, err := scheduleDefaults(w.config)
	if err != nil {
		return err
	}
	if err := replicaprofile.Setup(mgr, replicaprofile.Options{Concurrency: concurrency}); err != nil {
		return err
	}
	portraits := horizontalportrait.Options{Demand: w.adapter, Concurrency: concurrency, Details: w.details}
	engine := w.config.Engine
	if err := job.Setup(mgr, job.Options{Namespace: engine.AlgorithmJobNamespace, ServiceAccount: engine.AlgorithmJobDefaultServiceAccount,
		Image: engine.AlgorithmJobDefaultImage, MetricsServerAddr: engine.AlgorithmJobDefaultMetricsServerAddr}, &portraits); err != nil {
		return err
	}
	if err := horizontalportrait.Setup(mgr, portraits); err != nil {
		return err
	}
	if err := ihpa.Setup(mgr, ihpa.Options{Concurrency: concurrency, Demand: w.adapter, Schedules: defaults, Decisions: w.decisions}); err != nil {
		return err
	}
	if err := scheduled.Setup(mgr, scheduled.Options{Defaults: defaults, Tolerance: w.config.Adapter.HPATolerance}); err != nil {
		return err
	}
	return gate.Setup(mgr, gate.Options{})
}

func scheduleDefaults(c *config.Config) (window.Defaults, error) {
	zone, err := time.LoadLocation(c.Adapter.ScalingScheduleTimeZone)
	return window.Defaults{Window: c.Adapter.ScalingScheduleWindow, Steps: c.Adapter.ScalingScheduleRampSteps, Zone: zone}, err
}

// slimPod keeps of a pod in memory what the engine looks at; a cluster has many of them.
func slimPod(obj any) (any, error) {
	if pod, ok := obj.(*corev1.Pod); ok {
		pod.ManagedFields = nil
		pod.Spec = corev1.PodSpec{NodeName: pod.Spec.NodeName, ReadinessGates: pod.Spec.ReadinessGates, Overhead: pod.Spec.Overhead,
			Resources: slimResources(pod.Spec.Resources), Containers: slimContainers(pod.Spec.Containers), InitContainers: slimContainers(pod.Spec.InitContainers)}
		for i := range pod.Status.ContainerStatuses {
			pod.Status.ContainerStatuses[i] = corev1.ContainerStatus{RestartCount: pod.Status.ContainerStatuses[i].RestartCount}
		}
		pod.Status.InitContainerStatuses, pod.Status.EphemeralContainerStatuses = nil, nil
		return pod, nil
	}
	if o, err := apimeta.Accessor(obj); err == nil {
		o.SetManagedFields(nil)
	}
	return obj, nil
}

// slimWorkload drops what a workload's pods are made from: the engine looks at the pods.
func slimWorkload(obj any) (any, error) {
	switch o := obj.(type) {
	case *appsv1.Deployment:
		o.Spec.Template = corev1.PodTemplateSpec{}
	case *appsv1.StatefulSet:
		o.Spec.Template, o.Spec.VolumeClaimTemplates = corev1.PodTemplateSpec{}, nil
	case *appsv1.ReplicaSet:
		o.Spec.Template = corev1.PodTemplateSpec{}
	}
	if o, err := apimeta.Accessor(obj); err == nil {
		o.SetManagedFields(nil)
		o.SetAnnotations(nil)
	}
	return obj, nil
}

// slimHPA drops what may be large and is the adapter's to read.
func slimHPA(obj any) (any, error) {
	if hpa, ok := obj.(*autoscalingv2.HorizontalPodAutoscaler); ok {
		hpa.ManagedFields, hpa.Annotations = nil, nil
	}
	return obj, nil
}

// slimContainers keeps what utilization is a share of.
func slimContainers(containers []corev1.Container) []corev1.Container {
	for i, c := range containers {
		containers[i] = corev1.Container{Name: c.Name, RestartPolicy: c.RestartPolicy, Resources: corev1.ResourceRequirements{Requests: c.Resources.Requests}}
	}
	return containers
}

func slimResources(r *corev1.ResourceRequirements) *corev1.ResourceRequirements {
	if r == nil {
		return nil
	}
	return &corev1.ResourceRequirements{Requests: r.Requests}
}
