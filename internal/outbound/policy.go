package outbound

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
)

// Policy returns an error for an address that must not be connected to. The address is resolved.
type Policy func(netip.AddrPort) error

// Anywhere is the policy for addresses that the operator configured.
func Anywhere(netip.AddrPort) error { return nil }

// DenyInternal is NewPolicy without exceptions and without knowing the API server.
var DenyInternal = NewPolicy(nil, nil)

// denied are the addresses of clouds' metadata services outside of the link-local range, those that reach this host, and
// those that lead where nobody can tell from the address.
var denied = []struct {
	prefix netip.Prefix
	why    string
}{
	{netip.MustParsePrefix("0.0.0.0/8"), "it reaches this host"},
	{netip.MustParsePrefix("::/96"), "it reaches this host"},
	{netip.MustParsePrefix("100.100.100.200/32"), "it serves cloud metadata"},
	{netip.MustParsePrefix("168.63.129.16/32"), "it serves cloud metadata"},
	{netip.MustParsePrefix("192.0.0.192/32"), "it serves cloud metadata"},
	{netip.MustParsePrefix("fd00:ec2::/32"), "it serves cloud metadata"}, // also credentials of pods
	{netip.MustParsePrefix("fd00:c1::a9fe:a9fe/128"), "it serves cloud metadata"},
	{netip.MustParsePrefix("fd20:ce::254/128"), "it serves cloud metadata"},
	{netip.MustParsePrefix("255.255.255.255/32"), "it is a broadcast address"},
	{netip.MustParsePrefix("2001::/32"), "it is a Teredo tunnel"},
	{netip.MustParsePrefix("64:ff9b:1::/48"), "it is translated to another address by local rules"},
}

var (
	nat64     = netip.MustParsePrefix("64:ff9b::/96")
	siit      = netip.MustParsePrefix("::ffff:0:0:0/96")
	sixToFour = netip.MustParsePrefix("2002::/16")
)

// destination is the address where packets to a end: an IPv6 address may carry the IPv4 address that is meant.
func destination(a netip.Addr) netip.Addr {
	a = a.WithZone("").Unmap()
	b := a.As16()
	switch {
	case nat64.Contains(a), siit.Contains(a):
		return netip.AddrFrom4([4]byte(b[12:16]))
	case sixToFour.Contains(a):
		return netip.AddrFrom4([4]byte(b[2:6]))
	}
	return a
}

// Addresses is a set that may change while clients use it. The zero value is empty.
type Addresses struct {
	set atomic.Pointer[map[netip.Addr]bool]
}

// Set replaces the addresses.
func (s *Addresses) Set(addresses []netip.Addr) {
	set := map[netip.Addr]bool{}
	for _, a := range addresses {
		set[destination(a)] = true
	}
	s.set.Store(&set)
}

func (s *Addresses) contains(a netip.Addr) bool {
	if s == nil {
		return false
	}
	set := s.set.Load()
	return set != nil && (*set)[a]
}

// NewPolicy refuses loopback, link-local (where clouds serve metadata), multicast and unspecified addresses, the known
// metadata services elsewhere, and the API server on any port, also in the IPv6 forms that embed an IPv4 address. Prefixes
// in allow are exceptions. Pods' and Services' addresses are allowed. apiServer may be nil.
func NewPolicy(allow []netip.Prefix, apiServer *Addresses) Policy {
	return func(address netip.AddrPort) error {
		a := destination(address.Addr())
		why := ""
		switch {
		case a.IsLoopback():
			why = "it is a loopback address"
		case a.IsLinkLocalUnicast():
			why = "it is a link-local address"
		case a.IsMulticast():
			why = "it is a multicast address"
		case apiServer.contains(a):
			why = "it is an address of the API server"
		default:
			for _, d := range denied {
				if d.prefix.Contains(a) {
					why = d.why
				}
			}
		}
		if why == "" || slices.ContainsFunc(allow, func(p netip.Prefix) bool { return p.Contains(a) }) {
			return nil
		}
		return &DeniedError{
			What: "the address " + address.Addr().String(), Why: why,
			Allow: fmt.Sprintf("--outbound-allow=%s allows it", netip.PrefixFrom(a, a.BitLen())),
		}
	}
}

// ParsePrefixes reads prefixes such as "10.0.0.0/8" or "fd00::/8", and single addresses.
func ParsePrefixes(texts []string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, text := range texts {
		p, err := netip.ParsePrefix(text)
		if a, bad := netip.ParseAddr(text); bad == nil && a.Zone() == "" {
			p, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		if err != nil {
			return nil, fmt.Errorf("%.100q is neither a prefix such as 10.0.0.0/8 nor an address", text)
		}
		if p.Addr().Is4In6() {
			return nil, fmt.Errorf("%.100q: write it as an IPv4 prefix", text)
		}
		out = append(out, p.Masked())
	}
	return out, nil
}

// Hosts are the hosts that tenants may name; empty allows all.
type Hosts []string

// ParseHosts reads host names, addresses, and *.suffix, which stands for all names below the suffix and not for itself.
func ParseHosts(texts []string) (Hosts, error) {
	var out Hosts
	for _, text := range texts {
		name, wild := strings.CutPrefix(text, "*.")
		host, address, err := canonicalHost(name)
		if err == nil && wild && address.IsValid() {
			err = fmt.Errorf("* stands before names only")
		}
		if err != nil {
			return nil, fmt.Errorf("%.100q is no host, such as example.org, *.example.org or 10.0.0.7: %w", text, err)
		}
		if wild {
			host = "*." + host
		}
		out = append(out, host)
	}
	return out, nil
}

func (h Hosts) allow(host string) bool {
	return len(h) == 0 || slices.ContainsFunc(h, func(pattern string) bool {
		if suffix, wild := strings.CutPrefix(pattern, "*"); wild {
			return strings.HasSuffix(host, suffix) && len(host) > len(suffix)
		}
		return host == pattern
	})
}

// Ports are the ranges of ports that tenants may name, first and last included; empty allows all.
type Ports [][2]uint16

// ParsePorts reads ports such as "443" and ranges such as "8000-8999".
func ParsePorts(texts []string) (Ports, error) {
	var out Ports
	for _, text := range texts {
		from, to, ranged := strings.Cut(text, "-")
		if !ranged {
			to = from
		}
		first, err1 := strconv.ParseUint(from, 10, 16)
		last, err2 := strconv.ParseUint(to, 10, 16)
		if err1 != nil || err2 != nil || first == 0 || last < first {
			return nil, fmt.Errorf("%.100q is neither a port from 1 to 65535 nor a range such as 8000-8999", text)
		}
		out = append(out, [2]uint16{uint16(first), uint16(last)})
	}
	return out, nil
}

func (p Ports) allow(port uint16) bool {
	return len(p) == 0 || slices.ContainsFunc(p, func(r [2]uint16) bool { return r[0] <= port && port <= r[1] })
}

// canonicalHost returns the host in lower case, without the dot that may end it, and the address if it is one. The many
// other ways to write an address (0x7f.1, 2130706433, 127.1, full-width digits, ...) are errors: some resolvers know them,
// and lists of names do not.
func canonicalHost(text string) (host string, address netip.Addr, err error) {
	host = strings.ToLower(strings.TrimSuffix(text, "."))
	if a, err := netip.ParseAddr(host); err == nil {
		if a.Zone() != "" {
			return "", a, fmt.Errorf("an address with a zone is of no use elsewhere")
		}
		return a.Unmap().String(), a, nil
	}
	if host == "" {
		return "", address, fmt.Errorf("it is empty")
	}
	if len(host) > 253 {
		return "", address, fmt.Errorf("it is longer than 253 characters")
	}
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return "", address, fmt.Errorf("a name has labels of 1 to 63 ASCII letters, digits, - and _ between its dots")
		}
	}
	last := host[strings.LastIndexByte(host, '.')+1:]
	if hex, ok := strings.CutPrefix(last, "0x"); strings.Trim(last, "0123456789") == "" || ok && strings.Trim(hex, "0123456789abcdef") == "" {
		return "", address, fmt.Errorf("it ends in a number, but it is no address in the usual form")
	}
	return host, address, nil
}

// endpoint is where a URL leads before any name is resolved.
type endpoint struct {
	host    string // canonical
	port    uint16
	address netip.Addr // valid if host is an address
}

func (e endpoint) String() string {
	if e.address.Is6() {
		return fmt.Sprintf("[%s]:%d", e.host, e.port)
	}
	return fmt.Sprintf("%s:%d", e.host, e.port)
}

func endpointOf(u *url.URL) (e endpoint, err error) {
	switch u.Scheme {
	case "http":
		e.port = 80
	case "https":
		e.port = 443
	default:
		return e, &DeniedError{What: fmt.Sprintf("the scheme %.20q", u.Scheme), Why: "it is not http or https"}
	}
	if u.User != nil {
		return e, &DeniedError{What: "a user name or password in a URL", Why: "everybody can read it there", Allow: "a Secret or a file may hold it"}
	}
	if e.host, e.address, err = canonicalHost(u.Hostname()); err != nil {
		return e, &DeniedError{What: fmt.Sprintf("the host %.100q", u.Hostname()), Why: err.Error()}
	}
	if text := u.Port(); text != "" {
		port, err := strconv.ParseUint(text, 10, 16)
		if err != nil || port == 0 {
			return e, &DeniedError{What: fmt.Sprintf("the port %.20q", text), Why: "it is not from 1 to 65535"}
		}
		e.port = uint16(port)
	}
	return e, nil
}
