package main

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/go-logr/logr"
	"golang.org/x/sync/errgroup"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	metricsclient "k8s.io/metrics/pkg/client/clientset/versioned"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	ctrlclient "sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/kubetide/kubetide/adapter"
	zalando "github.com/kubetide/kubetide/api/zalando/v1"
	"github.com/kubetide/kubetide/collectors/schedule"
	"github.com/kubetide/kubetide/internal/admin"
	"github.com/kubetide/kubetide/internal/config"
	"github.com/kubetide/kubetide/internal/outbound"
)

// startAdapter returns once the adapter's port is open; it becomes ready later. Where only the engine runs, the adapter serves
// no metrics, and collects what the engine asks for unless a cluster does.
func startAdapter(ctx context.Context, group *errgroup.Group, c *config.Config, restConfig *rest.Config,
	certificate dynamiccertificates.CertKeyContentProvider, w *writer, adminServer *admin.Server, log logr.Logger,
) (*adapter.Adapter, error) {
	restConfig = rest.CopyConfig(restConfig) // clients write to it while they are made
	options := adapter.Options{
		Config: restConfig, Kubeconfig: c.General.Kubeconfig,
		DefaultInterval: c.Adapter.DefaultCollectionInterval, MaxAge: c.Adapter.MetricsTTL,
		DisregardIncompatibleHPAs: c.Adapter.DisregardIncompatibleHPAs,
		Ingresses:                 c.Ingress.SkipperIngressMetrics, RouteGroups: c.Ingress.SkipperRouteGroupMetrics,
		Certificate: certificate, Version: version(), AwaitLead: true, Registerer: metrics.Registry, Log: log,
	}
	if c.Enabled(config.ModuleAdapter) {
		options.CustomMetrics, options.ExternalMetrics = c.Adapter.EnableCustomMetricsAPI, c.Adapter.EnableExternalMetricsAPI
	} else {
		options.DisregardHPAs = true
	}
	var err error
	if options.Decisions, err = w.served(); err != nil {
		return nil, err
	}
	if options.Cluster, err = newCluster(ctx, group, c, certificate, adminServer, log.WithName("cluster")); err != nil {
		return nil, err
	}
	if options.Listener, err = net.Listen("tcp", address(c, c.Serving.SecurePort)); err != nil {
		return nil, fmt.Errorf("metrics APIs: %w", err)
	}
	a, err := adapter.New(options)
	if err != nil {
		return nil, err
	}
	log.Info("Port of the metrics APIs is open", "address", a.Address().String())
	adminServer.AddReady("adapter", a.Ready)
	adminServer.AddLive("collection", a.Healthy)

	schedules, err := cache.New(restConfig, cache.Options{Scheme: newScheme(), DefaultTransform: cache.TransformStripManagedFields()})
	if err != nil {
		return nil, fmt.Errorf("adapter: %w", err)
	}
	podMetrics, err := metricsclient.NewForConfig(restConfig)
	if err != nil {
		return nil, fmt.Errorf("adapter: %w", err)
	}
	defaults, err := scheduleDefaults(c)
	if err != nil {
		return nil, err
	}
	client, err := kubernetes.NewForConfig(restConfig)
	if err != nil {
		return nil, fmt.Errorf("adapter: %w", err)
	}
	var apiServer outbound.Addresses
	group.Go(keepAPIServerAddresses(ctx, &apiServer, restConfig, client, log))
	ways, err := newClients(c, &apiServer, metrics.Registry, log.WithName("outbound"))
	if err != nil {
		return nil, err
	}
	if err := registerSources(a, c, ways, podMetrics); err != nil {
		return nil, fmt.Errorf("adapter: %w", err)
	}
	schedule.Source{
		Schedules:        schedule.ReaderStore(schedules, func() ctrlclient.Object { return &zalando.ScalingSchedule{} }),
		ClusterSchedules: schedule.ReaderStore(schedules, func() ctrlclient.Object { return &zalando.ClusterScalingSchedule{} }),
		Defaults:         defaults, Clock: clock.RealClock{},
	}.Register(a.Registry())

	for _, kind := range []ctrlclient.Object{&zalando.ScalingSchedule{}, &zalando.ClusterScalingSchedule{}} {
		informer, err := schedules.GetInformer(ctx, kind, cache.BlockUntilSynced(false))
		if err != nil {
			return nil, fmt.Errorf("adapter: %w", err)
		}
		changed := func(obj any) {
			if gone, ok := obj.(toolscache.DeletedFinalStateUnknown); ok {
				obj = gone.Obj
			}
			if o, ok := obj.(ctrlclient.Object); ok {
				a.Recollect(schedule.Concerns(o))
			}
		}
		if _, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
			AddFunc: changed, UpdateFunc: func(_, obj any) { changed(obj) }, DeleteFunc: changed,
		}); err != nil {
			return nil, fmt.Errorf("adapter: %w", err)
		}
	}
	group.Go(func() error { return schedules.Start(ctx) })
	group.Go(func() error {
		if !schedules.WaitForCacheSync(ctx) {
			if ctx.Err() == nil {
				return errors.New("adapter: the schedules can't be listed")
			}
			return nil
		}
		return a.Run(ctx)
	})
	return a, nil
}
