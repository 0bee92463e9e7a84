package main

import (
	"context"
	"errors"
	"fmt"
	stdlog "log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap/zapcore"
	"golang.org/x/sync/errgroup"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/component-base/metrics/legacyregistry"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	"github.com/kubetide/kubetide/internal/admin"
	"github.com/kubetide/kubetide/internal/certs"
	"github.com/kubetide/kubetide/internal/config"
	"github.com/kubetide/kubetide/scaler/gate"
)

// The objects that ship in deploy/.
const (
	webhookConfiguration = "kubetide"
	adapterLease         = "kubetide-adapter"
)

// certificateSecret is one for all servers of a cluster: they prove by its certificate that they belong together.
func certificateSecret(c *config.Config) string { return c.Serving.ServiceNames[0] + "-certs" }

var apiServices = []string{"v1beta1.custom.metrics.k8s.io", "v1beta2.custom.metrics.k8s.io", "v1beta1.external.metrics.k8s.io", tideAPIService}

// serve runs the server until a signal has stopped it, or a part of it fails.
func serve(c *config.Config) error {
	log, err := newLogger(c)
	if err != nil {
		return err
	}
	restConfig, err := clientConfig(c)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, func() {
		stop() // a second signal ends the process at once
		time.AfterFunc(c.General.GracePeriod, func() {
			log.Info("The grace period is over; the server ends in the middle of things")
			os.Exit(1)
		})
	})
	log.Info("Kubetide starts", "version", version(), "modules", c.General.Modules, "apiServer", restConfig.Host)
	err = run(ctx, c, restConfig, log)
	log.Info("Kubetide has stopped")
	return err
}

// run starts the parts in the order in which they need each other: the admin port first, so that probes have an answer; the
// certificate before what serves with it. When ctx ends, the writer stops at once and gives up the lead, and all that answers
// goes on for the shutdown delay, because callers need that long to learn that this replica goes.
func run(ctx context.Context, c *config.Config, restConfig *rest.Config, log logr.Logger) error {
	group, running := errgroup.WithContext(context.WithoutCancel(ctx))
	answering, stopAnswering := context.WithCancel(running)
	defer stopAnswering()
	writing, stopWriting := context.WithCancel(running)
	defer stopWriting()
	defer context.AfterFunc(ctx, stopWriting)()

	started := make(chan struct{})
	adminServer, err := admin.New(admin.Options{
		Address: address(c, c.Admin.Port), Pprof: c.Admin.Pprof,
		Metrics: []prometheus.Gatherer{metrics.Registry, legacyregistry.DefaultGatherer},
	})
	if err != nil {
		return err
	}
	log.Info("Admin port is open", "address", adminServer.Addr().String())
	group.Go(func() error { return adminServer.Run(answering) })
	group.Go(func() error {
		select {
		case <-running.Done():
			return nil
		case <-ctx.Done():
		}
		adminServer.Stopping()
		select {
		case <-started:
			log.Info("Kubetide stops", "answersFor", c.General.ShutdownDelay.String())
			select {
			case <-running.Done():
			case <-time.After(c.General.ShutdownDelay):
			}
		default: // nobody has been sent here yet
		}
		stopAnswering()
		return nil
	})
	adminServer.AddReady("start", func() error {
		select {
		case <-started:
			return nil
		default:
			return errors.New("the server is starting")
		}
	})
	err = func() error {
		certificate, ready, err := startCertificate(answering, group, c, restConfig, log.WithName("certs"))
		if err != nil {
			return err
		}
		select {
		case <-ready:
		case <-writing.Done(): // stopped, or failed, before there was one
			return nil
		}
		w := newWriter(c, restConfig, log.WithName("engine"))
		w.adapter, err = startAdapter(answering, group, c, restConfig, certificate, w, adminServer, log.WithName("adapter"))
		if err != nil {
			return err
		}
		w.leadChanged = w.adapter.Lead
		context.AfterFunc(ctx, w.adapter.Leave)
		if c.Enabled(config.ModuleEngine) { // its validation asks the adapter what metrics mean
			if err := startWebhooks(answering, group, c, certificate, w, log.WithName("webhooks")); err != nil {
				return err
			}
		}
		group.Go(func() error { return w.run(writing) })
		close(started)
		return nil
	}()
	if err != nil {
		// Returned from the group, it ends the parts that run already.
		group.Go(func() error { return err })
	}
	return group.Wait()
}

// startCertificate returns what keeps the certificate, and what is closed once there is one.
func startCertificate(ctx context.Context, group *errgroup.Group, c *config.Config, restConfig *rest.Config, log logr.Logger,
) (dynamiccertificates.CertKeyContentProvider, <-chan struct{}, error) {
	if c.Serving.TLSCertFile != "" {
		files, err := certs.NewFiles(c.Serving.TLSCertFile, c.Serving.TLSPrivateKeyFile)
		if err != nil {
			return nil, nil, err
		}
		group.Go(func() error { return files.Run(ctx) })
		ready := make(chan struct{})
		close(ready)
		return files, ready, nil
	}
	client, err := kubernetes.NewForConfig(restConfig)
	if err != nil {
		return nil, nil, err
	}
	dynamicClient, err := dynamic.NewForConfig(restConfig)
	if err != nil {
		return nil, nil, err
	}
	options := certs.Options{
		Client: client, Dynamic: dynamicClient, Clock: clock.RealClock{}, Log: log,
		Namespace: c.General.Namespace, Secret: certificateSecret(c), Services: c.Serving.ServiceNames,
	}
	options.APIServices = []string{tideAPIService}
	if c.Enabled(config.ModuleAdapter) {
		options.APIServices = apiServices
	}
	if c.Enabled(config.ModuleEngine) {
		options.MutatingWebhooks, options.ValidatingWebhooks = []string{webhookConfiguration}, []string{webhookConfiguration}
	}
	keeper := certs.NewKeeper(options)
	group.Go(func() error { return keeper.Run(ctx) })
	return keeper, keeper.Ready(), nil
}

func startWebhooks(ctx context.Context, group *errgroup.Group, c *config.Config, certificate dynamiccertificates.CertKeyContentProvider, w *writer, log logr.Logger) error {
	pods, err := gate.Handler()
	if err != nil {
		return fmt.Errorf("webhooks: %w", err)
	}
	objects, err := w.validation()
	if err != nil {
		return fmt.Errorf("webhooks: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("POST "+kapacity.PodWebhookPath, pods)
	mux.Handle("POST "+kapacity.ValidationWebhookPath, objects)
	listener, err := net.Listen("tcp", address(c, c.Webhook.Port))
	if err != nil {
		return fmt.Errorf("webhooks: %w", err)
	}
	server := &http.Server{
		Handler: mux, TLSConfig: certs.TLSConfig(certificate), ErrorLog: stdlog.New(lines{log}, "", 0),
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute,
	}
	log.Info("Webhook port is open", "address", listener.Addr().String())
	group.Go(func() error {
		if err := server.ServeTLS(listener, "", ""); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("webhooks: %w", err)
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		finish, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		return server.Shutdown(finish)
	})
	return nil
}

// lines logs what net/http has to say, handshakes that failed mostly.
type lines struct{ log logr.Logger }

func (l lines) Write(text []byte) (int, error) {
	l.log.V(1).Info(strings.TrimSpace(string(text)))
	return len(text), nil
}

func address(c *config.Config, port int) string {
	return net.JoinHostPort(c.Serving.BindAddress, strconv.Itoa(port))
}

func clientConfig(c *config.Config) (*rest.Config, error) {
	var restConfig *rest.Config
	var err error
	if c.General.Kubeconfig != "" {
		restConfig, err = clientcmd.BuildConfigFromFlags("", c.General.Kubeconfig)
	} else {
		restConfig, err = rest.InClusterConfig()
		if errors.Is(err, rest.ErrNotInCluster) {
			err = errors.New("not in a cluster: name a kubeconfig with --kubeconfig")
		}
	}
	if err != nil {
		return nil, err
	}
	restConfig.QPS, restConfig.Burst = c.General.KubeClientQPS, c.General.KubeClientBurst
	restConfig.UserAgent = "kubetide/" + version()
	return restConfig, nil
}

// newLogger makes the one logger of the process, and routes to it what the libraries log.
func newLogger(c *config.Config) (logr.Logger, error) {
	verbosity, err := c.Log.Verbosity()
	if err != nil {
		return logr.Logger{}, err
	}
	encoder := zap.JSONEncoder(func(e *zapcore.EncoderConfig) { e.EncodeTime = zapcore.RFC3339NanoTimeEncoder })
	if c.Log.Format == "console" {
		encoder = zap.ConsoleEncoder(func(e *zapcore.EncoderConfig) { e.EncodeTime = zapcore.RFC3339NanoTimeEncoder })
	}
	log := zap.New(zap.Level(zapcore.Level(-verbosity)), encoder, zap.StacktraceLevel(zapcore.PanicLevel))
	ctrl.SetLogger(log)
	klog.SetLoggerWithOptions(log.WithName("kubernetes"), klog.ContextualLogger(true))
	return log, nil
}
