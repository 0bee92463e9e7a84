package main

import (
	"context"
	"net"
	"net/netip"
	"net/url"
	"os"
	"time"

	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/kubetide/kubetide/internal/outbound"
)

// addressesAge is how long the API server may have an address that tenants' requests are not kept from.
const addressesAge = time.Minute

// keepAPIServerAddresses keeps the set of the API server's addresses: what the configuration names, the Service's, and the
// endpoints behind it. The first look is over when it returns.
func keepAPIServerAddresses(ctx context.Context, set *outbound.Addresses, restConfig *rest.Config, client kubernetes.Interface, log logr.Logger) (run func() error) {
	look := func() {
		found := apiServerAddresses(ctx, restConfig, client, log)
		if len(found) > 0 {
			set.Set(found)
		}
	}
	look()
	return func() error {
		ticker := time.NewTicker(addressesAge)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-ticker.C:
				look()
			}
		}
	}
}

func apiServerAddresses(ctx context.Context, restConfig *rest.Config, client kubernetes.Interface, log logr.Logger) []netip.Addr {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	hosts := []string{os.Getenv("KUBERNETES_SERVICE_HOST")}
	if u, err := url.Parse(restConfig.Host); err == nil && u.Hostname() != "" {
		hosts = append(hosts, u.Hostname())
	} else if host, _, err := net.SplitHostPort(restConfig.Host); err == nil {
		hosts = append(hosts, host)
	}
	// The environment may name another address than the Service's: some hosters put a name of their own there.
	if service, err := client.CoreV1().Services(metav1.NamespaceDefault).Get(ctx, "kubernetes", metav1.GetOptions{}); err != nil {
		log.Info("The API server's Service can't be read; only its other addresses are kept from HPAs", "cause", err.Error())
	} else {
		hosts = append(hosts, service.Spec.ClusterIPs...)
	}
	slice, err := client.DiscoveryV1().EndpointSlices(metav1.NamespaceDefault).Get(ctx, "kubernetes", metav1.GetOptions{})
	if err != nil {
		log.Info("The API server's endpoints can't be read; only its other addresses are kept from HPAs", "cause", err.Error())
	} else {
		for _, e := range slice.Endpoints {
			hosts = append(hosts, e.Addresses...)
		}
	}
	var out []netip.Addr
	for _, host := range hosts {
		if host == "" {
			continue
		}
		addresses, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		if err != nil {
			log.Info("A name of the API server can't be resolved", "host", host, "cause", err.Error())
		}
		out = append(out, addresses...)
	}
	return out
}
