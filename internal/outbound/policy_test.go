package outbound

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

func TestPolicy(t *testing.T) {
	apiServer := &Addresses{}
	allow, err := ParsePrefixes([]string{"127.0.0.8", "169.254.20.0/24", "64:ff9b::/96"})
	if err != nil {
		t.Fatal(err)
	}
	apiServer.Set([]netip.Addr{netip.MustParseAddr("10.96.0.1"), netip.MustParseAddr("::ffff:10.0.0.2")})
	p := NewPolicy(allow, apiServer)
	for address, want := range map[string]string{
		"10.244.0.7": "", "192.168.1.1": "", "172.16.0.1": "", "100.64.0.1": "", "93.184.216.34": "", "2001:db8::1": "", "fd12::7": "", "64:ff9b::5db8:d822": "",
		"127.0.0.1": "a loopback address; --outbound-allow=127.0.0.1/32 allows it", "127.8.8.8": "loopback", "::1": "loopback address; --outbound-allow=::1/128",
		"::ffff:127.0.0.1": "loopback", "::ffff:0:127.0.0.1": "loopback", "64:ff9b::7f00:1": "loopback", "2002:7f00:1::": "loopback",
		"169.254.169.254": "link-local", "::ffff:169.254.169.254": "link-local", "fe80::1%eth0": "link-local", "2002:a9fe:a9fe::1": "link-local",
		"64:ff9b::a9fe:a9fe": "link-local address; --outbound-allow=169.254.169.254/32",
		"0.0.0.0":            "reaches this host", "0.1.2.3": "reaches this host", "::": "reaches this host", "::7f00:1": "reaches this host",
		"224.0.0.1": "multicast", "ff02::1": "multicast", "255.255.255.255": "broadcast",
		"100.100.100.200": "metadata", "168.63.129.16": "metadata", "192.0.0.192": "metadata", "fd00:ec2::254": "metadata", "fd20:ce::254": "metadata", "fd00:ec2::23": "metadata", "fd00:c1::a9fe:a9fe": "metadata",
		"2001:0:a9fe:a9fe::1": "tunnel", "64:ff9b:1::a9fe:a9fe": "translated",
		"10.96.0.1": "an address of the API server; --outbound-allow=10.96.0.1/32 allows it", "10.0.0.2": "API server", "64:ff9b::a60:1": "API server",
		"127.0.0.8": "", "::ffff:127.0.0.8": "", "169.254.20.10": "", // as the operator says
	} {
		err := p(netip.AddrPortFrom(netip.MustParseAddr(address), 80))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want) || Kind(err) != "denied") {
			t.Errorf("%s: got %v, want an error with %q", address, err, want)
		}
	}
	apiServer.Set(nil)
	if err := p(netip.MustParseAddrPort("10.96.0.1:443")); err != nil {
		t.Errorf("an address that the API server had: %v", err)
	}
}

func TestListsThatCannotBeRead(t *testing.T) {
	for text, parse := range map[string]func([]string) error{
		"":               func(s []string) error { _, err := ParsePrefixes(s); return err },
		"10.0.0.0/33":    func(s []string) error { _, err := ParsePrefixes(s); return err },
		"::ffff:1.2.3.4": func(s []string) error { _, err := ParsePrefixes(s); return err },
		"fe80::1%eth0":   func(s []string) error { _, err := ParsePrefixes(s); return err },
		"*":              func(s []string) error { _, err := ParseHosts(s); return err },
		"a*.org":         func(s []string) error { _, err := ParseHosts(s); return err },
		"*.10.0.0.7":     func(s []string) error { _, err := ParseHosts(s); return err },
		"a.org:80":       func(s []string) error { _, err := ParseHosts(s); return err },
		"http://a.org":   func(s []string) error { _, err := ParseHosts(s); return err },
		"127.1":          func(s []string) error { _, err := ParseHosts(s); return err },
		"0":              func(s []string) error { _, err := ParsePorts(s); return err },
		"65536":          func(s []string) error { _, err := ParsePorts(s); return err },
		"90-80":          func(s []string) error { _, err := ParsePorts(s); return err },
		"80-":            func(s []string) error { _, err := ParsePorts(s); return err },
	} {
		if err := parse([]string{text}); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%q", text)) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// unasked is a resolver that fails the test.
func unasked(t *testing.T) *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		t.Error("a name was resolved")
		return nil, errors.New("no")
	}}
}

func TestWhatAURLMayNot(t *testing.T) {
	hosts, err := ParseHosts([]string{"Metrics.example.org", "*.shop.svc", "10.0.0.7", "fd00::7", "example.net."})
	if err != nil {
		t.Fatal(err)
	}
	ports, err := ParsePorts([]string{"80", "443", "8000-8999"})
	if err != nil {
		t.Fatal(err)
	}
	open, listed := client(t, Options{Resolver: unasked(t)}), client(t, Options{Resolver: unasked(t), Hosts: hosts, Ports: ports})
	for text, want := range map[string]string{
		"file:///etc/passwd": `the scheme "file" is refused`, "gopher://a.org": "scheme", "//a.org": "scheme", "http:a.org": "the host",
		"http://":                                     "the host",
		"http://127.0.0.1/":                           "the address 127.0.0.1 is refused: it is a loopback address",
		"http://[::1]:80/":                            "the address ::1 is refused",
		"http://[::ffff:7f00:1]":                      "is refused: it is a loopback address",
		"http://[fe80::1%25eth0]":                     "an address with a zone",
		"http://0/":                                   "ends in a number",
		"http://127.1/":                               "ends in a number",
		"http://2130706433/":                          "ends in a number",
		"http://0x7f000001/":                          "ends in a number",
		"http://0x7f.0.0.0x1/":                        "ends in a number",
		"http://0177.0.0.01/":                         "ends in a number",
		"http://127.0.0.1./":                          "loopback",
		"http://127.0.0.0x/":                          "ends in a number",
		"http://169.254.169.254/":                     "link-local",
		"http://①②⑦.⓪.⓪.①/":                           "ASCII",
		"http://127。0。0。1/":                           "ASCII",
		"http://a..org/":                              "labels",
		"http://" + strings.Repeat("a.", 130) + "org": "longer than 253",
		"http://a.org:0/":                             `the port "0" is refused`,
		"http://a.org:65536/":                         "port",
		"http://user:secret@a.org/":                   "a user name or password in a URL is refused: everybody can read it there; a Secret or a file may hold it",
	} {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		_, err = open.Get(context.Background(), Request{URL: u})
		if Kind(err) != "denied" || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret@") {
			t.Errorf("%s: got %v, want an error with %q", text, err, want)
		}
		if again := open.Check(u); again == nil || again.Error() != err.Error() {
			t.Errorf("%s: Check says %v", text, again)
		}
	}
	for text, want := range map[string]string{
		"http://metrics.example.org/": "", "https://METRICS.example.org.:8443/": "", "http://api.shop.svc:8000": "", "http://a.b.shop.svc:8999": "", "http://10.0.0.7": "",
		"http://[fd00:0::7]": "", "http://example.net": "",
		"http://shop.svc":                     `the host "shop.svc" is refused: it is not among the hosts that may be asked; --outbound-hosts names them`,
		"http://badshop.svc":                  "host",
		"http://10.0.0.8":                     "host",
		"http://example.net:22":               "the port 22 is refused: it is not among the ports that may be asked; --outbound-ports names them",
		"http://metrics.example.org.evil.org": "host",
	} {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if err := listed.Check(u); want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: got %v, want an error with %q", text, err, want)
		}
	}
	pod := serve(t, func(http.ResponseWriter, *http.Request, <-chan struct{}) {})
	c := client(t, Options{Policy: Anywhere, Hosts: hosts, Ports: Ports{{1, 1}}})
	if _, err := c.Get(context.Background(), Request{URL: pod, Pod: true}); err != nil {
		t.Errorf("a pod's own port: %v", err)
	}
}

// names is a DNS server on loopback. Each question for an IPv4 address takes the next of the answers, the last for ever.
func names(t *testing.T, answers ...[]netip.Addr) *net.Resolver {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { _ = conn.Close(); <-done })
	go func() {
		defer close(done)
		buffer := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buffer)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(buffer[:n]) != nil {
				continue
			}
			m.Response, m.Additionals = true, nil
			q := m.Questions[0]
			if q.Type == dnsmessage.TypeA {
				for _, a := range answers[0] {
					m.Answers = append(m.Answers, dnsmessage.Resource{
						Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class}, Body: &dnsmessage.AResource{A: a.As4()},
					})
				}
				if len(answers) > 1 {
					answers = answers[1:]
				}
			}
			packet, err := m.Pack()
			if err != nil {
				continue
			}
			_, _ = conn.WriteTo(packet, from)
		}
	}()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
}

func TestANameThatIsBoundAnewLeadsNowhereElse(t *testing.T) {
	good, evil := netip.MustParseAddr("127.0.91.1"), netip.MustParseAddr("127.0.91.2")
	policy := func(a netip.AddrPort) error {
		if a.Addr() != good {
			return &DeniedError{What: "the address " + a.Addr().String(), Why: "the test says so"}
		}
		return nil
	}
	var asked atomic.Int32
	l, err := net.Listen("tcp", good.String()+":0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	inside, err := net.Listen("tcp", net.JoinHostPort(evil.String(), port))
	if err != nil {
		t.Fatal(err)
	}
	for l, h := range map[net.Listener]http.HandlerFunc{
		l:      func(http.ResponseWriter, *http.Request) {},
		inside: func(http.ResponseWriter, *http.Request) { asked.Add(1) },
	} {
		s := &httptest.Server{Listener: l, Config: &http.Server{Handler: h}}
		s.Start()
		t.Cleanup(s.Close)
	}
	u := &url.URL{Scheme: "http", Host: "rebind.example.org.:" + port}
	for name, c := range map[string]struct {
		answers [][]netip.Addr
		want    []string // kinds
	}{
		"the second answer is inside":      {[][]netip.Addr{{good}, {evil}}, []string{"ok", "denied"}},
		"the first answer is inside":       {[][]netip.Addr{{evil}, {good}}, []string{"denied", "ok"}},
		"one of two addresses is inside":   {[][]netip.Addr{{evil, good}}, []string{"ok", "ok"}},
		"the other of the two is inside":   {[][]netip.Addr{{good, evil}}, []string{"ok", "ok"}},
		"all addresses are inside":         {[][]netip.Addr{{evil, evil}}, []string{"denied", "denied"}},
		"there is no address for the name": {[][]netip.Addr{{}}, []string{"resolve", "resolve"}},
	} {
		t.Run(name, func(t *testing.T) {
			asked.Store(0)
			c := c
			client := client(t, Options{Policy: policy, Resolver: names(t, c.answers...)})
			var got []string
			for range c.want {
				_, err := client.Get(context.Background(), Request{URL: u})
				got = append(got, Kind(err))
				client.Close() // so that the name is resolved again
			}
			if !slices.Equal(got, c.want) || asked.Load() != 0 {
				t.Errorf("got %v, want %v; the inside was asked %d times", got, c.want, asked.Load())
			}
		})
	}
}

// FuzzCheck holds that a URL which is let through names a host that every resolver takes for the same name or address.
func FuzzCheck(f *testing.F) {
	for _, s := range []string{"http://a.org:80/x?y#z", "http://127.1", "https://[::1]:443", "http://①", "http://a@b:c@d", "http://a%2eb", "http:\\\\a"} {
		f.Add(s, "*.a.org")
	}
	f.Fuzz(func(t *testing.T, text, host string) {
		if hosts, err := ParseHosts([]string{host}); err == nil && !hosts.allow(strings.Replace(hosts[0], "*", "x", 1)) {
			t.Errorf("%q does not allow itself", host)
		}
		_, _ = ParsePrefixes([]string{host})
		_, _ = ParsePorts([]string{host})
		u, err := url.Parse(text)
		if err != nil {
			return
		}
		e, err := endpointOf(u)
		if err != nil {
			if Kind(err) != "denied" {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		if !strings.EqualFold(strings.TrimSuffix(u.Hostname(), "."), e.host) && !e.address.IsValid() {
			t.Errorf("%q leads to %q, not to %q", text, u.Hostname(), e.host)
		}
		if a, err := netip.ParseAddr(e.host); (err == nil) != e.address.IsValid() || err == nil && a != e.address.Unmap() {
			t.Errorf("%q: %q is an address, or is none", text, e.host)
		}
		if strings.ContainsFunc(e.host, func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune("/@?#%\\", r) }) {
			t.Errorf("%q: the host is %q", text, e.host)
		}
	})
}
