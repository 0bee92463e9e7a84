package outbound

import (
	"fmt"
	"net/netip"
)

// Policy returns an error for an address that must not be connected to. The address is resolved.
type Policy func(netip.AddrPort) error

// denied are the addresses of clouds' metadata services outside of the link-local range, and those that reach this host.
var denied = map[netip.Prefix]string{
	netip.MustParsePrefix("0.0.0.0/8"):          "it reaches this host",
	netip.MustParsePrefix("::/96"):              "it reaches this host",
	netip.MustParsePrefix("100.100.100.200/32"): "it serves cloud metadata",
	netip.MustParsePrefix("168.63.129.16/32"):   "it serves cloud metadata",
	netip.MustParsePrefix("192.0.0.192/32"):     "it serves cloud metadata",
	netip.MustParsePrefix("fd00:ec2::254/128"):  "it serves cloud metadata",
	netip.MustParsePrefix("fd20:ce::254/128"):   "it serves cloud metadata",
	netip.MustParsePrefix("255.255.255.255/32"): "it is a broadcast address",
}

var (
	nat64     = netip.MustParsePrefix("64:ff9b::/96")
	sixToFour = netip.MustParsePrefix("2002::/16")
)

// DenyInternal refuses loopback, link-local (where clouds serve metadata), multicast and unspecified addresses, and the
// known metadata services elsewhere, also in the IPv6 forms that embed an IPv4 address. Pods' addresses are allowed.
func DenyInternal(address netip.AddrPort) error {
	a := address.Addr().WithZone("").Unmap()
	b := a.As16()
	switch { // the embedded address is where such a packet ends
	case nat64.Contains(a):
		a = netip.AddrFrom4([4]byte(b[12:16]))
	case sixToFour.Contains(a):
		a = netip.AddrFrom4([4]byte(b[2:6]))
	}
	why := ""
	switch {
	case a.IsLoopback():
		why = "it is a loopback address"
	case a.IsLinkLocalUnicast():
		why = "it is a link-local address"
	case a.IsMulticast():
		why = "it is a multicast address"
	default:
		for prefix, reason := range denied {
			if prefix.Contains(a) {
				why = reason
			}
		}
	}
	if why != "" {
		return fmt.Errorf("the address %s is refused: %s", address.Addr(), why)
	}
	return nil
}
