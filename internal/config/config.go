// Package config holds the server's settings: their names, defaults and bounds, and where their values come from. It reads
// a file, the environment and flags, and touches nothing else. Each setting is a flag; its place in the file and its
// environment variable follow from the flag's name and section, so that there is one list of settings only.
package config

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation"
)

// The modules that --modules can name.
const (
	ModuleAdapter  = "adapter"
	ModuleEngine   = "engine"
	ModuleStep     = "step"
	ModuleStackSet = "stackset"
)

var modules = []string{ModuleAdapter, ModuleEngine, ModuleStep, ModuleStackSet}

// Config is everything that can be set.
type Config struct {
	General    General
	Log        Log
	Serving    Serving
	Admin      Admin
	Webhook    Webhook
	Adapter    Adapter
	Prometheus Prometheus
	Ingress    Ingress
	AWS        AWS
	Sources    Sources
	Outbound   Outbound
	Engine     Engine
	Step       Step
	StackSet   StackSet
	Cluster    Cluster
}

// General says what runs, where, and how it stops.
type General struct {
	Modules    []string
	Namespace  string
	Identity   string
	Kubeconfig string
	// KubeClientQPS and KubeClientBurst bound the requests to the API server, in requests a second.
	KubeClientQPS   float32
	KubeClientBurst int
	// ShutdownDelay is how long a stopping server keeps answering while it says that it is not ready.
	ShutdownDelay time.Duration
	// GracePeriod is how long a whole stop may take, ShutdownDelay included.
	GracePeriod time.Duration
}

// Log says what is logged and how.
type Log struct {
	Level  string
	Format string
}

// Serving is the port of the metrics APIs, and the certificate that it shares with the webhooks.
type Serving struct {
	BindAddress string
	SecurePort  int
	// ServiceNames are the Services in front of this server and of those that it shares the certificate with; the first one names the Secret.
	ServiceNames      []string
	TLSCertFile       string
	TLSPrivateKeyFile string
}

// Admin is the port for probes and own metrics.
type Admin struct {
	Port  int
	Pprof bool
}

// Webhook is the port of the admission webhooks.
type Webhook struct {
	Port int
}

// Adapter is how metrics are collected and served. The names are kube-metrics-adapter's.
type Adapter struct {
	EnableCustomMetricsAPI    bool
	EnableExternalMetricsAPI  bool
	DefaultCollectionInterval time.Duration
	MetricsTTL                time.Duration
	DisregardIncompatibleHPAs bool
	ScalingScheduleWindow     time.Duration
	ScalingScheduleRampSteps  int
	ScalingScheduleTimeZone   string
	HPATolerance              float64
}

// What --validation can say.
const (
	ValidationEnforce = "enforce"
	ValidationWarn    = "warn"
	ValidationOff     = "off"
)

// Engine is how IHPAs are carried out.
type Engine struct {
	ReconcileConcurrency int
	// Validation is what the webhook does about objects with mistakes.
	Validation string
	// AlgorithmJobNamespace holds the jobs of external algorithms; empty means that there are none.
	AlgorithmJobNamespace string
	// What the templates of such jobs leave out.
	AlgorithmJobDefaultServiceAccount    string
	AlgorithmJobDefaultMetricsServerAddr string
	AlgorithmJobDefaultImage             string
}

// Step is how Steps and Pipelines are carried out.
type Step struct {
	// ScaleToZero says that the cluster's HPAs may have minReplicas 0.
	ScaleToZero bool
}

// StackSet is how StackSets are carried out. The names are stackset-controller's.
type StackSet struct {
	ClusterDomains         []string
	SyncIngressAnnotations []string
	ControllerID           string
	// The kinds that Stacks may have besides Ingresses.
	RouteGroups, ConfigMaps, Secrets, PlatformCredentialsSets bool
	// Forward lets Stacks run in another cluster.
	Forward bool
}

// Default returns the settings of a server that was told nothing.
func Default() *Config {
	return &Config{
		General: General{
			Modules: slices.Clone(modules), Namespace: "kubetide-system",
			KubeClientQPS: 100, KubeClientBurst: 200, ShutdownDelay: 10 * time.Second, GracePeriod: 30 * time.Second,
		},
		Log:     Log{Level: "info", Format: "json"},
		Serving: Serving{SecurePort: 6443, ServiceNames: []string{"kubetide"}},
		Admin:   Admin{Port: 8002},
		Webhook: Webhook{Port: 9443},
		Adapter: Adapter{
			EnableCustomMetricsAPI: true, EnableExternalMetricsAPI: true,
			DefaultCollectionInterval: time.Minute, MetricsTTL: 15 * time.Minute,
			ScalingScheduleWindow: 10 * time.Minute, ScalingScheduleRampSteps: 10, ScalingScheduleTimeZone: "Europe/Berlin",
			HPATolerance: 0.1,
		},
		Prometheus: Prometheus{NamespaceLabel: "namespace"},
		Ingress:    Ingress{ExternalRPSMetricName: "skipper_serve_host_duration_seconds_count", ExternalRPSHostLabel: "host"},
		Sources:    Sources{ZMONTokenName: "zmon", NakadiTokenName: "nakadi", CredentialsDir: "/meta/credentials"},
		Outbound:   Outbound{RequestsPerSecond: 500},
		Engine:     Engine{ReconcileConcurrency: 16, Validation: ValidationEnforce},
		Cluster: Cluster{
			Name: "kubetide", JoinTimeout: time.Minute, RejoinInterval: 15 * time.Second, SuspectAfter: 3 * time.Second, SyncTimeout: 10 * time.Second,
			Sharding: ShardingOn, GossipBindAddr: ":8003", StreamBindAddr: ":8004",
		},
	}
}

// Enabled tells whether the module is switched on.
func (c *Config) Enabled(module string) bool { return slices.Contains(c.General.Modules, module) }

// RegisterFlags binds the settings to flags without a prefix; their present values are the defaults.
func (c *General) RegisterFlags(fs *pflag.FlagSet, _ string) {
	fs.StringSliceVar(&c.Modules, "modules", c.Modules,
		"What to run: adapter (collects metrics and serves the metrics APIs), engine (IHPAs, schedules, readiness gates), step (Steps and Pipelines), stackset (StackSets).")
	fs.StringVar(&c.Namespace, "namespace", c.Namespace, "The namespace that the server itself lives in, with its Lease and its certificate's Secret.")
	fs.StringVar(&c.Identity, "identity", c.Identity,
		"The `name` under which this replica asks for the lead. No other may have it; a process that has it again leads again at once. Empty: a random one.")
	fs.StringVar(&c.Kubeconfig, "kubeconfig", c.Kubeconfig, "The kubeconfig `file` to use outside a cluster. Empty: the pod's service account.")
	fs.Float32Var(&c.KubeClientQPS, "kube-client-qps", c.KubeClientQPS, "Requests a second to the API server, on average. Negative: no bound.")
	fs.IntVar(&c.KubeClientBurst, "kube-client-burst", c.KubeClientBurst, "Requests to the API server that may follow each other at once.")
	fs.DurationVar(&c.ShutdownDelay, "shutdown-delay", c.ShutdownDelay, "How long a stopping server still answers while it is no longer ready.")
	fs.DurationVar(&c.GracePeriod, "grace-period", c.GracePeriod, "How long a whole stop may take, the shutdown delay included.")
}

// Validate returns all mistakes at once.
func (c *General) Validate() error {
	var bad mistakes
	if len(c.Modules) == 0 {
		bad.add("modules", "names no module; there are %s", strings.Join(modules, ", "))
	}
	for i, module := range c.Modules {
		if !slices.Contains(modules, module) {
			bad.add("modules", "%q is no module; there are %s", module, strings.Join(modules, ", "))
		} else if slices.Contains(c.Modules[:i], module) {
			bad.add("modules", "names %s twice", module)
		}
	}
	if len(validation.IsDNS1123Label(c.Namespace)) > 0 {
		bad.add("namespace", "%q is no name of a namespace", c.Namespace)
	}
	if len(c.Identity) > 253 {
		bad.add("identity", "is longer than 253 bytes")
	}
	if c.KubeClientQPS == 0 {
		bad.add("kube-client-qps", "must be above 0, or negative for no bound")
	}
	if c.KubeClientBurst < 1 {
		bad.add("kube-client-burst", "must be at least 1, is %d", c.KubeClientBurst)
	}
	if c.ShutdownDelay < 0 {
		bad.add("shutdown-delay", "must not be negative, is %s", c.ShutdownDelay)
	}
	if c.GracePeriod <= c.ShutdownDelay {
		bad.add("grace-period", "must be longer than the shutdown delay of %s, is %s", c.ShutdownDelay, c.GracePeriod)
	}
	return bad.err()
}

// RegisterFlags binds the settings to flags below the prefix.
func (c *Log) RegisterFlags(fs *pflag.FlagSet, prefix string) {
	fs.StringVar(&c.Level, prefix+"level", c.Level, "What is logged: error, info, debug, or a number (2 to 10) for ever more detail.")
	fs.StringVar(&c.Format, prefix+"format", c.Format, "How it is logged: json or console.")
}

// Verbosity is the level as logr counts: 0 for info, above it for more, below it for errors only.
func (c *Log) Verbosity() (int, error) {
	switch c.Level {
	case "error":
		return -2, nil // zap counts warnings as -1
	case "info":
		return 0, nil
	case "debug":
		return 1, nil
	}
	var n int
	if _, err := fmt.Sscanf(c.Level+"\n", "%d\n", &n); err != nil || n < 0 || n > 10 {
		return 0, fmt.Errorf("must be error, info, debug or a number up to 10, is %q", c.Level)
	}
	return n, nil
}

// Validate returns all mistakes at once.
func (c *Log) Validate() error {
	var bad mistakes
	if _, err := c.Verbosity(); err != nil {
		bad.add("log.level", "%v", err)
	}
	if c.Format != "json" && c.Format != "console" {
		bad.add("log.format", "must be json or console, is %q", c.Format)
	}
	return bad.err()
}

// RegisterFlags binds the settings to flags without a prefix: the names are those of all Kubernetes API servers.
func (c *Serving) RegisterFlags(fs *pflag.FlagSet, _ string) {
	fs.StringVar(&c.BindAddress, "bind-address", c.BindAddress, "The IP `address` to listen on, on all ports. Empty: every address.")
	fs.IntVar(&c.SecurePort, "secure-port", c.SecurePort, "The port of the metrics APIs (HTTPS). 0: any free port.")
	fs.StringSliceVar(&c.ServiceNames, "service-name", c.ServiceNames,
		"The `name` of the Service in front of the server; the serving certificate is made out to it. May be repeated, in the same order on all nodes of a cluster: "+
			"they share the certificate, and know each other by the first name.")
	fs.StringVar(&c.TLSCertFile, "tls-cert-file", c.TLSCertFile,
		"The `file` of a serving certificate to use instead of the self-managed one. The CA bundles are then left alone.")
	fs.StringVar(&c.TLSPrivateKeyFile, "tls-private-key-file", c.TLSPrivateKeyFile, "The `file` of the key of --tls-cert-file.")
}

// Validate returns all mistakes at once.
func (c *Serving) Validate() error {
	var bad mistakes
	if c.BindAddress != "" && net.ParseIP(c.BindAddress) == nil {
		bad.add("bind-address", "must be an IP address without a port, is %q", c.BindAddress)
	}
	bad.port("secure-port", c.SecurePort)
	if len(c.ServiceNames) == 0 {
		bad.add("service-name", "names no Service")
	}
	for _, name := range c.ServiceNames {
		if len(validation.IsDNS1035Label(name)) > 0 {
			bad.add("service-name", "%q is no name of a Service", name)
		}
	}
	if (c.TLSCertFile == "") != (c.TLSPrivateKeyFile == "") {
		bad.add("tls-cert-file", "must be set together with --tls-private-key-file")
	}
	return bad.err()
}

// RegisterFlags binds the settings to flags below the prefix.
func (c *Admin) RegisterFlags(fs *pflag.FlagSet, prefix string) {
	fs.IntVar(&c.Port, prefix+"port", c.Port, "The port of /health, /ready and /metrics (HTTP). 0: any free port.")
	fs.BoolVar(&c.Pprof, prefix+"pprof", c.Pprof, "Serve profiles below /debug/pprof on the admin port. They show memory contents.")
}

// Validate returns all mistakes at once.
func (c *Admin) Validate() error {
	var bad mistakes
	bad.port("admin.port", c.Port)
	return bad.err()
}

// RegisterFlags binds the settings to flags below the prefix.
func (c *Webhook) RegisterFlags(fs *pflag.FlagSet, prefix string) {
	fs.IntVar(&c.Port, prefix+"port", c.Port, "The port of the admission webhooks (HTTPS). 0: any free port.")
}

// Validate returns all mistakes at once.
func (c *Webhook) Validate() error {
	var bad mistakes
	bad.port("webhook.port", c.Port)
	return bad.err()
}

// RegisterFlags binds the settings to flags without a prefix, under kube-metrics-adapter's names.
func (c *Adapter) RegisterFlags(fs *pflag.FlagSet, _ string) {
	fs.BoolVar(&c.EnableCustomMetricsAPI, "enable-custom-metrics-api", c.EnableCustomMetricsAPI, "Serve custom.metrics.k8s.io.")
	fs.BoolVar(&c.EnableExternalMetricsAPI, "enable-external-metrics-api", c.EnableExternalMetricsAPI, "Serve external.metrics.k8s.io.")
	fs.DurationVar(&c.DefaultCollectionInterval, "default-collection-interval", c.DefaultCollectionInterval,
		"The interval of metrics that name none of their own.")
	fs.DurationVar(&c.MetricsTTL, "metrics-ttl", c.MetricsTTL,
		"The age from which no value is served, whatever its interval. Most values end sooner, at two intervals and 10s.")
	fs.BoolVar(&c.DisregardIncompatibleHPAs, "disregard-incompatible-hpas", c.DisregardIncompatibleHPAs,
		"Say nothing about metrics that no collector is registered for; they may be another adapter's.")
	fs.DurationVar(&c.ScalingScheduleWindow, "scaling-schedule-default-scaling-window", c.ScalingScheduleWindow,
		"How long a ScalingSchedule ramps up and down where it says nothing itself.")
	fs.IntVar(&c.ScalingScheduleRampSteps, "scaling-schedule-ramp-steps", c.ScalingScheduleRampSteps, "The steps of such a ramp.")
	fs.StringVar(&c.ScalingScheduleTimeZone, "scaling-schedule-default-time-zone", c.ScalingScheduleTimeZone,
		"The IANA time `zone` of schedules that name none.")
	fs.Float64Var(&c.HPATolerance, "horizontal-pod-autoscaler-tolerance", c.HPATolerance,
		"The tolerance that kube-controller-manager's HPA runs with; a schedule's change within it is made by the server.")
}

// Validate returns all mistakes at once.
func (c *Adapter) Validate() error {
	var bad mistakes
	if c.DefaultCollectionInterval < time.Second {
		bad.add("default-collection-interval", "must be at least 1s, is %s", c.DefaultCollectionInterval)
	}
	if c.MetricsTTL < time.Second {
		bad.add("metrics-ttl", "must be at least 1s, is %s", c.MetricsTTL)
	}
	if c.ScalingScheduleWindow < 0 {
		bad.add("scaling-schedule-default-scaling-window", "must not be negative, is %s", c.ScalingScheduleWindow)
	}
	if c.ScalingScheduleRampSteps < 1 {
		bad.add("scaling-schedule-ramp-steps", "must be at least 1, is %d", c.ScalingScheduleRampSteps)
	}
	if _, err := time.LoadLocation(c.ScalingScheduleTimeZone); err != nil || c.ScalingScheduleTimeZone == "Local" {
		bad.add("scaling-schedule-default-time-zone", "%q is no IANA time zone", c.ScalingScheduleTimeZone)
	}
	if !(c.HPATolerance >= 0 && c.HPATolerance < 1) {
		bad.add("horizontal-pod-autoscaler-tolerance", "must be at least 0 and below 1, is %v", c.HPATolerance)
	}
	return bad.err()
}

// RegisterFlags binds the settings to flags without a prefix, under Kapacity's names.
func (c *Engine) RegisterFlags(fs *pflag.FlagSet, _ string) {
	fs.IntVar(&c.ReconcileConcurrency, "reconcile-concurrency", c.ReconcileConcurrency, "How many objects of a kind are worked on at once.")
	fs.StringVar(&c.Validation, "validation", c.Validation,
		"What becomes of IHPAs, HorizontalPortraits and ReplicaProfiles with mistakes: enforce (they are refused), warn (kubectl prints a warning) or off.")
	fs.StringVar(&c.AlgorithmJobNamespace, "algorithm-job-namespace", c.AlgorithmJobNamespace,
		"The namespace for the CronJobs of external algorithms. Who may write HorizontalPortraits or IHPAs may run pods there. Empty: there are none.")
	fs.StringVar(&c.AlgorithmJobDefaultServiceAccount, "algorithm-job-default-service-account", c.AlgorithmJobDefaultServiceAccount,
		"The ServiceAccount of such jobs that name none.")
	fs.StringVar(&c.AlgorithmJobDefaultMetricsServerAddr, "algorithm-job-default-metrics-server-addr", c.AlgorithmJobDefaultMetricsServerAddr,
		"The `address` that such jobs find in METRICS_SERVER_ADDR.")
	fs.StringVar(&c.AlgorithmJobDefaultImage, "algorithm-job-default-image", c.AlgorithmJobDefaultImage,
		"The `image` of the container \"algorithm\" of such jobs that name none.")
}

// Validate returns all mistakes at once.
func (c *Engine) Validate() error {
	var bad mistakes
	if c.ReconcileConcurrency < 1 {
		bad.add("reconcile-concurrency", "must be at least 1, is %d", c.ReconcileConcurrency)
	}
	if c.Validation != ValidationEnforce && c.Validation != ValidationWarn && c.Validation != ValidationOff {
		bad.add("validation", "must be enforce, warn or off, is %q", c.Validation)
	}
	if c.AlgorithmJobNamespace != "" && len(validation.IsDNS1123Label(c.AlgorithmJobNamespace)) > 0 {
		bad.add("algorithm-job-namespace", "%q is no name of a namespace", c.AlgorithmJobNamespace)
	}
	if c.AlgorithmJobDefaultServiceAccount != "" && len(validation.IsDNS1123Subdomain(c.AlgorithmJobDefaultServiceAccount)) > 0 {
		bad.add("algorithm-job-default-service-account", "%q is no name of a ServiceAccount", c.AlgorithmJobDefaultServiceAccount)
	}
	return bad.err()
}

// RegisterFlags binds the settings to flags below the prefix.
func (c *Step) RegisterFlags(fs *pflag.FlagSet, prefix string) {
	fs.BoolVar(&c.ScaleToZero, prefix+"scale-to-zero", c.ScaleToZero,
		"Give HPAs of Steps minReplicas 0 where their Step asks for it and has a metric that can wake it. The cluster needs HPAScaleToZero.")
}

// Validate returns all mistakes at once.
func (*Step) Validate() error { return nil }

// RegisterFlags binds the settings to flags without a prefix, under stackset-controller's names.
func (c *StackSet) RegisterFlags(fs *pflag.FlagSet, _ string) {
	fs.StringSliceVar(&c.ClusterDomains, "cluster-domain", c.ClusterDomains,
		"A `domain` below which each Stack has a host name of its own, if its StackSet has a host there. May be repeated.")
	fs.StringSliceVar(&c.SyncIngressAnnotations, "sync-ingress-annotation", c.SyncIngressAnnotations,
		"The `key` of an annotation that the segments of all Stacks take from their StackSet as it is now. May be repeated.")
	fs.StringVar(&c.ControllerID, "controller-id", c.ControllerID,
		"Which StackSets are carried out: those whose annotation stackset-controller.zalando.org/controller is this. Empty: those without it.")
	fs.BoolVar(&c.RouteGroups, "enable-routegroup-support", c.RouteGroups, "Give Stacks RouteGroups. skipper's CRD must be installed.")
	fs.BoolVar(&c.ConfigMaps, "enable-configmap-support", c.ConfigMaps,
		"Look after the ConfigMaps in a Stack's configurationResources. Needs the ClusterRole kubetide-stackset-configuration.")
	fs.BoolVar(&c.Secrets, "enable-secret-support", c.Secrets,
		"Look after the Secrets in a Stack's configurationResources. Needs the ClusterRole kubetide-stackset-configuration.")
	fs.BoolVar(&c.PlatformCredentialsSets, "enable-pcs-support", c.PlatformCredentialsSets,
		"Make the PlatformCredentialsSets in a Stack's configurationResources. Needs the ClusterRole kubetide-stackset-configuration.")
	fs.BoolVar(&c.Forward, "enable-forward-support", c.Forward,
		"Let new Stacks of StackSets with the annotation zalando.org/forward-backend run in another cluster.")
}

// Validate returns all mistakes at once.
func (c *StackSet) Validate() error {
	var bad mistakes
	for _, domain := range c.ClusterDomains {
		if len(validation.IsDNS1123Subdomain(strings.Trim(domain, "."))) > 0 {
			bad.add("cluster-domain", "%q is no domain", domain)
		}
	}
	for _, key := range c.SyncIngressAnnotations {
		if len(validation.IsQualifiedName(key)) > 0 {
			bad.add("sync-ingress-annotation", "%q is no key of an annotation", key)
		}
	}
	return bad.err()
}

// Validate returns all mistakes at once, in one line.
func (c *Config) Validate() error {
	var bad mistakes
	for _, section := range c.sections() {
		if err := section.settings.Validate(); err != nil {
			bad = append(bad, err.Error())
		}
	}
	if c.Enabled(ModuleAdapter) && !c.Adapter.EnableCustomMetricsAPI && !c.Adapter.EnableExternalMetricsAPI {
		bad.add("modules", "the adapter has nothing to serve: enable one of the metrics APIs, or leave the adapter out")
	}
	needsPrometheus := func(flag string, enabled bool) {
		if enabled && c.Prometheus.Server == "" {
			bad.add(flag, "needs --prometheus-server")
		}
	}
	needsPrometheus("skipper-ingress-metrics", c.Ingress.SkipperIngressMetrics)
	needsPrometheus("skipper-routegroup-metrics", c.Ingress.SkipperRouteGroupMetrics)
	needsPrometheus("external-rps-metrics", c.Ingress.ExternalRPSMetrics)
	if c.Cluster.Joins() && c.Cluster.Sharding == ShardingOn && c.Serving.TLSCertFile != "" && c.Cluster.StreamCAFile == "" {
		bad.add("cluster.stream.ca-file", "must name the CA of --tls-cert-file, which nodes verify each other with; or set --cluster.sharding=off")
	}
	type port struct {
		flag string
		port int
	}
	used := []port{{"secure-port", c.Serving.SecurePort}, {"admin.port", c.Admin.Port}, {"webhook.port", c.Webhook.Port}}
	if c.Cluster.Joins() {
		used = append(used, port{"cluster.gossip.bind-addr", portOf(c.Cluster.GossipBindAddr)}, port{"cluster.stream.bind-addr", portOf(c.Cluster.StreamBindAddr)})
	}
	ports := map[int]string{}
	for _, p := range used {
		if other, taken := ports[p.port]; taken && p.port != 0 {
			bad.add(p.flag, "is %d, as --%s is", p.port, other)
		}
		ports[p.port] = p.flag
	}
	return bad.err()
}

// mistakes are sentences that begin with the flag at fault.
type mistakes []string

func (m *mistakes) add(flag, format string, args ...any) {
	*m = append(*m, "--"+flag+": "+fmt.Sprintf(format, args...))
}

func (m *mistakes) port(flag string, port int) {
	if port < 0 || port > 65535 {
		m.add(flag, "must be between 0 and 65535, is %d", port)
	}
}

func (m mistakes) err() error {
	if len(m) == 0 {
		return nil
	}
	return fmt.Errorf("%s", strings.Join(m, "; "))
}
