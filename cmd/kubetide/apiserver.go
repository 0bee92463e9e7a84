package main

import (
	"context"
	"net"
	"net/netip"
	"net/url"
	"os"
	"slices"
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
	look := lookForAPIServer(ctx, set, restConfig, client, log)
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

// lookForAPIServer returns what looks once. What cannot be read keeps the addresses that it had when all could.
func lookForAPIServer(ctx context.Context, set *outbound.Addresses, restConfig *rest.Config, client kubernetes.Interface, log logr.Logger) (look func()) {
	var known []netip.Addr
	return func() {
		found, all := apiServerAddresses(ctx, restConfig, client, log)
		if all {
			known = found
		}
		set.Set(slices.Concat(found, known))
	}
}

// apiServerAddresses returns the addresses that can be read now, and whether these are all.
func apiServerAddresses(ctx context.Context, restConfig *rest.Config, client kubernetes.Interface, log logr.Logger) (out []netip.Addr, all bool) {
	all = true
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
		all = false
		log.Info("The API server's Service can't be read; only its other addresses are kept from HPAs", "cause", err.Error())
	} else {
		hosts = append(hosts, service.Spec.ClusterIPs...)
	}
	slice, err := client.DiscoveryV1().EndpointSlices(metav1.NamespaceDefault).Get(ctx, "kubernetes", metav1.GetOptions{})
	if err != nil {
		all = false
		log.Info("The API server's endpoints can't be read; only its other addresses are kept from HPAs", "cause", err.Error())
	} else {
		for _, e := range slice.Endpoints {
			hosts = append(hosts, e.Addresses...)
		}
	}
	for _, host := range hosts {
		if host == "" {
			continue
		}
		addresses, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		if err != nil {
			all = false
			log.Info("A name of the API server can't be resolved", "host", host, "cause", err.Error())
		}
		out = append(out, addresses...)
	}
	return out, all
}
