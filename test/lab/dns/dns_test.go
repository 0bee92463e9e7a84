package dns

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
)

// zoneOf is a zone of these objects.
func zoneOf(t *testing.T, objects ...any) zone {
	t.Helper()
	z := zone{
		services: cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc}),
		slices:   cache.NewIndexer(cache.MetaNamespaceKeyFunc, byService),
	}
	for _, object := range objects {
		into := z.services
		if _, ok := object.(*discoveryv1.EndpointSlice); ok {
			into = z.slices
		}
		if err := into.Add(object); err != nil {
			t.Fatal(err)
		}
	}
	return z
}

func service(name, clusterIP string) *corev1.Service {
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}, Spec: corev1.ServiceSpec{ClusterIP: clusterIP}}
}

func slice(of, name string, endpoints ...discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
	return &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: of}},
		Endpoints:  endpoints,
	}
}

func endpoint(hostname, address string, ready bool) discoveryv1.Endpoint {
	e := discoveryv1.Endpoint{Addresses: []string{address}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}}
	if hostname != "" {
		e.Hostname = &hostname
	}
	return e
}

func TestAnswers(t *testing.T) {
	z := zoneOf(t,
		service("carts", "None"),
		slice("carts", "carts-1", endpoint("cart-0", "10.245.0.1", true), endpoint("cart-1", "10.245.0.2", false)),
		slice("carts", "carts-2", endpoint("cart-0", "10.245.0.1", true), endpoint("cart-2", "10.245.0.3", true), discoveryv1.Endpoint{Addresses: []string{"10.245.0.4"}}),
		slice("carts", "carts-6", endpoint("cart-0", "fd00::1", true)),
		service("web", "10.96.0.7"),
		slice("web", "web-1", endpoint("", "10.245.0.9", true), endpoint("", "10.245.0.8", false)),
		service("empty", "None"),
		slice("empty", "empty-1", endpoint("cart-0", "10.245.0.1", false)),
		service("idle", "10.96.0.8"),
		slice("orphan", "orphan-1", endpoint("cart-0", "10.245.0.1", true)),
	)
	for sentence, c := range map[string]struct {
		name  string
		kind  uint16
		want  []string
		rcode int
		apex  string
	}{
		"a headless Service is its ready endpoints, once each": {
			name: "carts.shop.svc.cluster.local.", want: []string{"10.245.0.1", "10.245.0.3", "10.245.0.4"},
		},
		"and has addresses of both families":         {name: "carts.shop.svc.cluster.local.", kind: dns.TypeAAAA, want: []string{"fd00::1"}},
		"a host name is one endpoint":                {name: "cart-2.carts.shop.svc.cluster.local.", want: []string{"10.245.0.3"}},
		"upper case is the same":                     {name: "Cart-2.CARTS.shop.svc.Cluster.Local.", want: []string{"10.245.0.3"}},
		"a Service with a cluster IP is endpoints":   {name: "web.shop.svc.cluster.local.", want: []string{"10.245.0.9"}},
		"an endpoint that isn't ready has no name":   {name: "cart-1.carts.shop.svc.cluster.local.", rcode: dns.RcodeNameError, apex: "cluster.local."},
		"nor has a host name that nobody has":        {name: "cart-9.carts.shop.svc.cluster.local.", rcode: dns.RcodeNameError, apex: "cluster.local."},
		"nor a headless Service with none ready":     {name: "empty.shop.svc.cluster.local.", rcode: dns.RcodeNameError, apex: "cluster.local."},
		"another with none has a name, no address":   {name: "idle.shop.svc.cluster.local.", apex: "cluster.local."},
		"a name of IPv4 alone has no AAAA":           {name: "cart-2.carts.shop.svc.cluster.local.", kind: dns.TypeAAAA, apex: "cluster.local."},
		"nor records of other kinds":                 {name: "carts.shop.svc.cluster.local.", kind: dns.TypeTXT, apex: "cluster.local."},
		"a Service of another namespace is unknown":  {name: "carts.other.svc.cluster.local.", rcode: dns.RcodeNameError, apex: "cluster.local."},
		"endpoints without their Service are, too":   {name: "orphan.shop.svc.cluster.local.", rcode: dns.RcodeNameError, apex: "cluster.local."},
		"and names of more labels":                   {name: "a.cart-2.carts.shop.svc.cluster.local.", rcode: dns.RcodeNameError, apex: "cluster.local."},
		"and other names of the domain":              {name: "carts.shop.cluster.local.", rcode: dns.RcodeNameError, apex: "cluster.local."},
		"a search list's tries of outside names are": {name: "example.org.shop.svc.cluster.local.", rcode: dns.RcodeNameError, apex: "cluster.local."},
		"outside names are never forwarded":          {name: "example.org.", rcode: dns.RcodeNameError, apex: "."},
		"a namespace is there, without a record":     {name: "shop.svc.cluster.local.", apex: "cluster.local."},
		"so is the domain":                           {name: "cluster.local.", apex: "cluster.local."},
		"a namespace without Services is not":        {name: "other.svc.cluster.local.", rcode: dns.RcodeNameError, apex: "cluster.local."},
	} {
		t.Run(sentence, func(t *testing.T) {
			if c.kind == 0 {
				c.kind = dns.TypeA
			}
			reply := z.reply(new(dns.Msg).SetQuestion(c.name, c.kind))
			if reply.Rcode != c.rcode || !reply.Authoritative {
				t.Errorf("got %s", reply)
			}
			if diff := cmp.Diff(c.want, addresses(t, reply, c.name)); diff != "" {
				t.Error(diff)
			}
			apex := ""
			for _, rr := range reply.Ns {
				if soa := rr.(*dns.SOA); soa.Hdr.Ttl <= 5 && soa.Minttl <= 5 {
					apex = soa.Hdr.Name
				}
			}
			if apex != c.apex {
				t.Errorf("SOA of %q, want %q", apex, c.apex)
			}
		})
	}
}

// addresses returns what a reply answers, sorted.
func addresses(t *testing.T, reply *dns.Msg, name string) []string {
	t.Helper()
	var list []string
	for _, rr := range reply.Answer {
		if h := rr.Header(); h.Name != name || h.Ttl > 5 {
			t.Errorf("record %s", rr)
		}
		switch rr := rr.(type) {
		case *dns.A:
			list = append(list, rr.A.String())
		case *dns.AAAA:
			list = append(list, rr.AAAA.String())
		}
	}
	slices.Sort(list)
	return list
}

func TestALargeAnswerIsCutByUDPAndWholeByTCP(t *testing.T) {
	var endpoints []discoveryv1.Endpoint
	for i := range 250 {
		endpoints = append(endpoints, endpoint("", fmt.Sprintf("10.245.0.%d", i), true))
	}
	s, err := serve("127.0.0.1:0", zoneOf(t, service("many", "None"), slice("many", "many-1", endpoints...)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	address := s.udp.PacketConn.LocalAddr().String()
	for sentence, c := range map[string]struct {
		network     string
		size        uint16
		whole       bool
		least, most int
	}{
		"512 bytes where nothing is said": {network: "udp", least: 20, most: 31},
		"what EDNS allows":                {network: "udp", size: 1232, least: 60, most: 75},
		"whole if EDNS allows it":         {network: "udp", size: 8192, whole: true, least: 250, most: 250},
		"whole by TCP":                    {network: "tcp", whole: true, least: 250, most: 250},
	} {
		t.Run(sentence, func(t *testing.T) {
			request := new(dns.Msg).SetQuestion("many.shop.svc.cluster.local.", dns.TypeA)
			if c.size > 0 {
				request.SetEdns0(c.size, false)
			}
			reply, _, err := (&dns.Client{Net: c.network}).ExchangeContext(t.Context(), request, address)
			if err != nil {
				t.Fatal(err)
			}
			if n := len(reply.Answer); reply.Truncated == c.whole || n < c.least || n > c.most || (reply.IsEdns0() != nil) != (c.size > 0) {
				t.Errorf("%d addresses, truncated %t, EDNS %v", n, reply.Truncated, reply.IsEdns0())
			}
		})
	}
}
