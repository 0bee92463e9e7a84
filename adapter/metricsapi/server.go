package metricsapi

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"sync"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/authenticatorfactory"
	openapinamer "k8s.io/apiserver/pkg/endpoints/openapi"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/apiserver/pkg/server/healthz"
	genericoptions "k8s.io/apiserver/pkg/server/options"
	"k8s.io/component-base/metrics/legacyregistry"
	openapicommon "k8s.io/kube-openapi/pkg/common"
	"k8s.io/metrics/pkg/apis/custom_metrics"
	"k8s.io/metrics/pkg/apis/external_metrics"
	"k8s.io/utils/clock"
	"sigs.k8s.io/custom-metrics-apiserver/pkg/apiserver"
	"sigs.k8s.io/custom-metrics-apiserver/pkg/apiserver/metrics"
	generatedcore "sigs.k8s.io/custom-metrics-apiserver/pkg/generated/openapi/core"
	generatedcustommetrics "sigs.k8s.io/custom-metrics-apiserver/pkg/generated/openapi/custommetrics"
	generatedexternalmetrics "sigs.k8s.io/custom-metrics-apiserver/pkg/generated/openapi/externalmetrics"
	"sigs.k8s.io/custom-metrics-apiserver/pkg/provider"
)

// ServerOptions are what a Server needs.
type ServerOptions struct {
	Provider *Provider
	// Custom and External install the group; a group that is off answers 404.
	Custom, External bool
	// Kubeconfig is the file for the API server that authenticates and authorizes callers; empty in a cluster.
	Kubeconfig string
	// BindAddress and Port are where to listen. Listener, if not nil, is used instead.
	BindAddress net.IP
	Port        int
	Listener    net.Listener
	// Certificate is the serving certificate; it may change at any time.
	Certificate dynamiccertificates.CertKeyContentProvider
	// Version is shown in the OpenAPI documents.
	Version string
	// Ready is part of /readyz. May be nil.
	Ready func() error
	// Groups are served beside the metrics.
	Groups []Group
}

// Server is the API server of the metrics groups.
type Server struct {
	server  *genericapiserver.GenericAPIServer
	address net.Addr
	// proxies says how a caller's front proxy proves itself; nil without delegated authentication.
	proxies *authenticatorfactory.RequestHeaderConfig
}

var registerFreshness = sync.OnceValue(func() error { return metrics.RegisterMetrics(legacyregistry.Register) })

// NewServer opens the port and asks the API server how callers are to be authenticated. Nothing is served before Run.
func NewServer(o ServerOptions) (*Server, error) {
	config, err := o.config()
	if err != nil {
		return nil, err
	}
	authentication := genericoptions.NewDelegatingAuthenticationOptions()
	authentication.RemoteKubeConfigFile = o.Kubeconfig
	authentication.CacheTTL = remembered
	if err := authentication.ApplyTo(&config.Authentication, config.SecureServing, config.OpenAPIConfig); err != nil {
		return nil, fmt.Errorf("metrics APIs: delegated authentication: %w", err)
	}
	authorization := genericoptions.NewDelegatingAuthorizationOptions()
	authorization.RemoteKubeConfigFile = o.Kubeconfig
	authorization.AllowCacheTTL, authorization.DenyCacheTTL = 0, 0 // see remembering
	if err := authorization.ApplyTo(&config.Authorization); err != nil {
		return nil, fmt.Errorf("metrics APIs: delegated authorization: %w", err)
	}
	config.Authentication.Authenticator = newCallers(config.Authentication.RequestHeaderConfig, config.Authentication.Authenticator)
	config.Authorization.Authorizer = access{newRemembering(config.Authorization.Authorizer, clock.RealClock{})}
	return o.build(config)
}

// config is everything but who may call.
func (o ServerOptions) config() (*genericapiserver.RecommendedConfig, error) {
	if o.Certificate == nil {
		return nil, errors.New("metrics APIs: no serving certificate")
	}
	if err := registerFreshness(); err != nil {
		return nil, fmt.Errorf("metrics APIs: %w", err)
	}
	config := genericapiserver.NewRecommendedConfig(apiserver.Codecs)
	serving := genericoptions.NewSecureServingOptions().WithLoopback()
	serving.BindAddress, serving.BindPort, serving.Listener = o.BindAddress, o.Port, o.Listener
	if serving.BindAddress == nil {
		serving.BindAddress = net.IPv4zero
	}
	serving.ServerCert.GeneratedCert = o.Certificate
	if err := serving.ApplyTo(&config.SecureServing, &config.LoopbackClientConfig); err != nil {
		return nil, fmt.Errorf("metrics APIs: %w", err)
	}
	config.EnableProfiling = false
	definitions := o.definitions()
	namer := openapinamer.NewDefinitionNamer(o.schemes()...)
	config.OpenAPIConfig = genericapiserver.DefaultOpenAPIConfig(definitions, namer)
	config.OpenAPIConfig.Info.Title, config.OpenAPIConfig.Info.Version = "kubetide", o.Version
	config.OpenAPIV3Config = genericapiserver.DefaultOpenAPIV3Config(definitions, namer)
	config.OpenAPIV3Config.Info.Title, config.OpenAPIV3Config.Info.Version = "kubetide", o.Version
	if o.Ready != nil {
		config.AddReadyzChecks(readyCheck(o.Ready))
	}
	return config, nil
}

func (o ServerOptions) definitions() openapicommon.GetOpenAPIDefinitions {
	getters := []openapicommon.GetOpenAPIDefinitions{generatedcore.GetOpenAPIDefinitions}
	if o.Custom {
		getters = append(getters, generatedcustommetrics.GetOpenAPIDefinitions)
	}
	if o.External {
		getters = append(getters, generatedexternalmetrics.GetOpenAPIDefinitions)
	}
	for _, g := range o.Groups {
		// Kubernetes' own types, such as times, come with those of the metrics.
		getters = append(getters, generatedexternalmetrics.GetOpenAPIDefinitions, g.Definitions)
	}
	return func(ref openapicommon.ReferenceCallback) map[string]openapicommon.OpenAPIDefinition {
		all := map[string]openapicommon.OpenAPIDefinition{}
		for _, get := range getters {
			maps.Copy(all, get(ref))
		}
		return all
	}
}

func (o ServerOptions) build(config *genericapiserver.RecommendedConfig) (*Server, error) {
	// A nil *Provider in an interface would not be nil, and the library would install the group all the same.
	var custom provider.CustomMetricsProvider
	if o.Custom {
		custom = o.Provider
	}
	var external provider.ExternalMetricsProvider
	if o.External {
		external = o.Provider
	}
	config.BuildHandlerChainFunc = func(api http.Handler, c *genericapiserver.Config) http.Handler {
		return o.Provider.chain(api, c, o.Custom, o.External)
	}
	completed := (&apiserver.Config{GenericConfig: &config.Config}).Complete(nil)
	server, err := completed.New("kubetide", custom, external)
	if err != nil {
		return nil, fmt.Errorf("metrics APIs: %w", err)
	}
	// The library fills in the older form of discovery only, and a client that asks for the newer one would see no groups.
	advertise := func(group, version, resource, kind string) {
		server.GenericAPIServer.AggregatedDiscoveryGroupManager.AddGroupVersion(group, apidiscoveryv2.APIVersionDiscovery{
			Version: version, Freshness: apidiscoveryv2.DiscoveryFreshnessCurrent,
			Resources: []apidiscoveryv2.APIResourceDiscovery{{
				Resource: resource, SingularResource: resource, Scope: apidiscoveryv2.ScopeNamespace, Verbs: []string{"get"},
				ResponseKind: &metav1.GroupVersionKind{Group: group, Version: version, Kind: kind},
			}},
		})
	}
	if o.Custom {
		advertise(custom_metrics.GroupName, "v1beta1", "custommetrics", "MetricValueList")
		advertise(custom_metrics.GroupName, "v1beta2", "custommetrics", "MetricValueList")
	}
	if o.External {
		advertise(external_metrics.GroupName, "v1beta1", "externalmetrics", "ExternalMetricValueList")
	}
	if err := o.installGroups(server.GenericAPIServer); err != nil {
		return nil, err
	}
	return &Server{server: server.GenericAPIServer, address: config.SecureServing.Listener.Addr(), proxies: config.Authentication.RequestHeaderConfig}, nil
}

// Address is where the server listens.
func (s *Server) Address() net.Addr { return s.address }

// Ready says whether the server can tell who is calling. Until it has read how kube-apiserver proves itself, it takes every
// request that comes through it for anonymous.
func (s *Server) Ready() error {
	if s.proxies == nil {
		return nil
	}
	if len(s.proxies.CAContentProvider.CurrentCABundleContent()) == 0 || len(s.proxies.UsernameHeaders.Value()) == 0 {
		return errors.New("how kube-apiserver proves itself (configmap kube-system/extension-apiserver-authentication) is not read yet")
	}
	return nil
}

// Run serves until ctx ends, and then until the requests that are running have been answered.
func (s *Server) Run(ctx context.Context) error {
	return s.server.PrepareRun().RunWithContext(ctx)
}

func readyCheck(ready func() error) healthz.HealthChecker {
	return healthz.NamedCheck("adapter", func(*http.Request) error { return ready() })
}
