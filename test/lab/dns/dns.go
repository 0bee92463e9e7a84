// Package dns answers for the names of Services as a cluster's DNS does, from what the API server says of Services and
// EndpointSlices. It knows A and AAAA records below svc.cluster.local and forwards nothing: every other name does not exist. It
// differs from CoreDNS in one thing: a Service with a cluster IP is answered, like a headless one, by the addresses of its ready
// endpoints, since nothing leads from cluster IPs to them in the lab.
package dns

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"
)

// Domain is the cluster's domain.
const Domain = "cluster.local"

// ttl is how many seconds an answer may be kept, whether the name exists or not.
const ttl = 1

// Server answers by UDP and TCP at one address.
type Server struct {
	udp, tcp *dns.Server
	serving  errgroup.Group
	cancel   context.CancelFunc
	factory  informers.SharedInformerFactory
}

// Start begins to answer at an address (host:port), and returns when it knows all Services and their endpoints.
func Start(ctx context.Context, config *rest.Config, address string) (*Server, error) {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	factory := informers.NewSharedInformerFactory(client, 0)
	services, endpoints := factory.Core().V1().Services().Informer(), factory.Discovery().V1().EndpointSlices().Informer()
	if err := endpoints.AddIndexers(byService); err != nil {
		return nil, err
	}
	s, err := serve(address, zone{services: services.GetIndexer(), slices: endpoints.GetIndexer()})
	if err != nil {
		return nil, err
	}
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s.cancel, s.factory = cancel, factory
	factory.Start(running.Done())
	if !cache.WaitForCacheSync(ctx.Done(), services.HasSynced, endpoints.HasSynced) {
		s.Stop()
		return nil, fmt.Errorf("learn of Services and EndpointSlices: %w", context.Cause(ctx))
	}
	return s, nil
}

// serve answers from the zone.
func serve(address string, z zone) (*Server, error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	packets, err := net.ListenPacket("udp", listener.Addr().String())
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	s := &Server{
		udp: &dns.Server{PacketConn: packets, Handler: z}, tcp: &dns.Server{Listener: listener, Handler: z},
		cancel: func() {},
	}
	for _, server := range []*dns.Server{s.udp, s.tcp} {
		started := make(chan struct{})
		tell := sync.OnceFunc(func() { close(started) })
		server.NotifyStartedFunc = tell
		s.serving.Go(func() error { defer tell(); return server.ActivateAndServe() })
		<-started // a server that has not started cannot be shut down
	}
	return s, nil
}

// Stop ends the server.
func (s *Server) Stop() {
	s.cancel()
	_ = s.udp.Shutdown()
	_ = s.tcp.Shutdown()
	_ = s.serving.Wait()
	if s.factory != nil {
		s.factory.Shutdown()
	}
}

// zone is what the cluster says.
type zone struct{ services, slices cache.Indexer }

// byService finds the EndpointSlices of a Service by NAMESPACE/NAME.
var byService = cache.Indexers{"service": func(object any) ([]string, error) {
	slice := object.(*discoveryv1.EndpointSlice)
	return []string{slice.Namespace + "/" + slice.Labels[discoveryv1.LabelServiceName]}, nil
}}

// lookup returns the addresses behind a fully qualified name, and whether there is such a name at all.
func (z zone) lookup(name string) (addresses []netip.Addr, exists bool) {
	below, ok := strings.CutSuffix("."+strings.ToLower(name), ".svc."+Domain+".")
	if !ok {
		return nil, dns.IsSubDomain(name, "svc."+Domain+".")
	}
	labels := strings.Split(strings.TrimPrefix(below, "."), ".")
	slices.Reverse(labels) // namespace, Service, host name
	if len(labels) == 1 {
		return nil, labels[0] == "" || z.hasNamespace(labels[0])
	}
	if len(labels) > 3 {
		return nil, false
	}
	key := labels[0] + "/" + labels[1]
	service, ok, _ := z.services.GetByKey(key)
	if !ok {
		return nil, false
	}
	found, _ := z.slices.ByIndex("service", key)
	for _, object := range found {
		for _, endpoint := range object.(*discoveryv1.EndpointSlice).Endpoints {
			// With publishNotReadyAddresses all of them are declared ready.
			if !ptr.Deref(endpoint.Conditions.Ready, true) || len(labels) == 3 && ptr.Deref(endpoint.Hostname, "") != labels[2] {
				continue
			}
			for _, text := range endpoint.Addresses {
				if address, err := netip.ParseAddr(text); err == nil {
					addresses = append(addresses, address)
				}
			}
		}
	}
	// While endpoints move between slices they are in both.
	slices.SortFunc(addresses, netip.Addr.Compare)
	addresses = slices.Compact(addresses)
	headless := service.(*corev1.Service).Spec.ClusterIP == corev1.ClusterIPNone
	return addresses, len(addresses) > 0 || len(labels) == 2 && !headless
}

func (z zone) hasNamespace(name string) bool {
	services, _ := z.services.ByIndex(cache.NamespaceIndex, name)
	return len(services) > 0
}

// reply answers a request. A negative answer carries the SOA record that says how long it may be kept.
func (z zone) reply(request *dns.Msg) *dns.Msg {
	reply := new(dns.Msg).SetReply(request)
	reply.Authoritative = true
	if edns := request.IsEdns0(); edns != nil {
		reply.SetEdns0(edns.UDPSize(), false)
	}
	question := request.Question[0]
	addresses, exists := z.lookup(question.Name)
	// Clients that take the first find another one each time.
	rand.Shuffle(len(addresses), func(i, j int) { addresses[i], addresses[j] = addresses[j], addresses[i] })
	header := dns.RR_Header{Name: question.Name, Rrtype: question.Qtype, Class: dns.ClassINET, Ttl: ttl}
	for _, address := range addresses {
		switch {
		case question.Qtype == dns.TypeA && address.Is4():
			reply.Answer = append(reply.Answer, &dns.A{Hdr: header, A: address.AsSlice()})
		case question.Qtype == dns.TypeAAAA && address.Is6():
			reply.Answer = append(reply.Answer, &dns.AAAA{Hdr: header, AAAA: address.AsSlice()})
		}
	}
	if !exists {
		reply.Rcode = dns.RcodeNameError
	}
	if len(reply.Answer) == 0 {
		apex := "."
		if dns.IsSubDomain(Domain+".", question.Name) {
			apex = Domain + "."
		}
		reply.Ns = []dns.RR{&dns.SOA{
			Hdr: dns.RR_Header{Name: apex, Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: ttl},
			Ns:  "ns.dns." + Domain + ".", Mbox: "hostmaster." + Domain + ".",
			Serial: 1, Refresh: 7200, Retry: 1800, Expire: 86400, Minttl: ttl,
		}}
	}
	return reply
}

// ServeDNS writes the reply; one that is too large for UDP is cut and says so, and the client asks again by TCP.
func (z zone) ServeDNS(w dns.ResponseWriter, request *dns.Msg) {
	reply, size := z.reply(request), dns.MaxMsgSize
	if _, ok := w.RemoteAddr().(*net.UDPAddr); ok {
		size = dns.MinMsgSize
		if edns := request.IsEdns0(); edns != nil {
			size = max(size, int(edns.UDPSize()))
		}
	}
	reply.Truncate(size)
	_ = w.WriteMsg(reply)
}
