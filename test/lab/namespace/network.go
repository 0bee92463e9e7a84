package namespace

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Network is a network namespace in which one address of PodCIDR is local and no other. A bridge joins it with the lab's namespace
// and with other Networks, without forwarding: what is sent between them keeps its source, so it can be cut off from some addresses.
// Its methods must not be called at the same time.
type Network struct {
	address netip.Addr
	file    *os.File
	cut     []netip.Addr
}

const (
	ownNamespace = "/proc/thread-self/ns/net"
	bridgeName   = "pods"
	linkInside   = "eth0"
	loopback     = 1 // the index of lo in each network namespace
	// The rule for local addresses has priority 0 in a new namespace, and none can come before it.
	cutPriority, localPriority = 10, 100
)

// NewNetwork makes the network of an address.
func NewNetwork(address netip.Addr) (*Network, error) {
	n := &Network{address: address}
	err := elsewhere(func() error { return unix.Unshare(unix.CLONE_NEWNET) }, func() (err error) {
		n.file, err = os.Open(ownNamespace)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("make the network of %s: %w", address, err)
	}
	if err := n.connect(); err != nil {
		return nil, fmt.Errorf("make the network of %s: %w", address, errors.Join(err, n.Close()))
	}
	return n, nil
}

// File stands for the network where a process enters it.
func (n *Network) File() *os.File { return n.file }

// Close gives the address back to the lab's namespace. The network itself ends with the last process in it.
func (n *Network) Close() error {
	defer n.file.Close()
	link, err := netlink.LinkByName(n.linkName())
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err != nil {
		return err
	}
	way, err := n.way()
	if err != nil {
		return err
	}
	if err := netlink.RouteDel(way); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	return netlink.LinkDel(link)
}

// CutOff has all that comes from the addresses, and all that goes to them, get lost; also on connections that exist.
func (n *Network) CutOff(from ...netip.Addr) error {
	return n.within(func() error {
		for _, a := range from {
			if slices.Contains(n.cut, a) {
				continue
			}
			if err := errors.Join(netlink.RuleAdd(lostFrom(a)), netlink.RouteAdd(n.lostTo(a))); err != nil {
				return fmt.Errorf("cut %s off from %s: %w", n.address, a, err)
			}
			n.cut = append(n.cut, a)
		}
		return nil
	})
}

// Heal takes back what CutOff did.
func (n *Network) Heal() error {
	return n.within(func() error {
		for _, a := range n.cut {
			if err := errors.Join(netlink.RuleDel(lostFrom(a)), netlink.RouteDel(n.lostTo(a))); err != nil {
				return fmt.Errorf("join %s with %s again: %w", n.address, a, err)
			}
		}
		n.cut = nil
		return nil
	})
}

func (n *Network) linkName() string { return fmt.Sprintf("pod%x", n.address.AsSlice()) }

// connect makes the link, and the ways to both sides of it.
func (n *Network) connect() error {
	bridge, err := makeBridge()
	if err != nil {
		return fmt.Errorf("make the bridge: %w", err)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MasterIndex = n.linkName(), bridge
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: linkInside, PeerNamespace: netlink.NsFd(n.file.Fd())}); err != nil {
		return fmt.Errorf("make the link: %w", err)
	}
	if _, err := linkUp(attrs.Name); err != nil {
		return err
	}
	way, err := n.way()
	if err != nil {
		return err
	}
	if err := netlink.RouteAdd(way); err != nil {
		return fmt.Errorf("route from the lab: %w", err)
	}
	return n.within(n.setUp)
}

// way is the lab's route to the address. It counts before the one that makes all pods' addresses local, being more specific.
func (n *Network) way() (*netlink.Route, error) {
	bridge, err := netlink.LinkByName(bridgeName)
	if err != nil {
		return nil, err
	}
	return &netlink.Route{
		LinkIndex: bridge.Attrs().Index, Dst: only(n.address), Src: net.ParseIP(HostAddress),
		Scope: netlink.SCOPE_LINK, Table: unix.RT_TABLE_LOCAL,
	}, nil
}

// setUp is what connect does inside.
func (n *Network) setUp() error {
	if _, err := linkUp("lo"); err != nil {
		return err
	}
	link, err := linkUp(linkInside)
	if err != nil {
		return err
	}
	if err := netlink.AddrAdd(link, &netlink.Addr{IPNet: only(n.address)}); err != nil {
		return fmt.Errorf("add the address: %w", err)
	}
	all := &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}
	if err := netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: all, Scope: netlink.SCOPE_LINK}); err != nil {
		return fmt.Errorf("route to the lab: %w", err)
	}
	later, first := netlink.NewRule(), netlink.NewRule()
	later.Priority, later.Table = localPriority, unix.RT_TABLE_LOCAL
	first.Priority, first.Table = 0, unix.RT_TABLE_LOCAL
	if err := errors.Join(netlink.RuleAdd(later), netlink.RuleDel(first)); err != nil {
		return fmt.Errorf("move the rule for local addresses: %w", err)
	}
	return nil
}

// lostFrom is the rule by which what comes from an address is dropped.
func lostFrom(a netip.Addr) *netlink.Rule {
	rule := netlink.NewRule()
	rule.Priority, rule.Src, rule.Type = cutPriority, only(a), unix.RTN_BLACKHOLE
	return rule
}

// lostTo is the route by which what goes to an address is dropped: it returns by loopback, where nobody has that address. With a
// blackhole the sender would see an error at once, as no sender beyond a cut does.
func (n *Network) lostTo(a netip.Addr) *netlink.Route {
	return &netlink.Route{LinkIndex: loopback, Dst: only(a), Src: n.address.AsSlice(), Scope: netlink.SCOPE_LINK}
}

// within runs f in the network.
func (n *Network) within(f func() error) error {
	return elsewhere(func() error { return unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET) }, f)
}

// elsewhere runs f, which must start no goroutine, in the network namespace that enter leads to.
func elsewhere(enter, f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := os.Open(ownNamespace)
	if err != nil {
		return err
	}
	defer home.Close()
	if err := enter(); err != nil {
		return err
	}
	defer func() {
		if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil {
			panic(fmt.Sprintf("return to the lab's network namespace: %v", err))
		}
	}()
	return f()
}

// makeBridge makes the bridge unless it is there, and returns its index.
func makeBridge() (int, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = bridgeName
	attrs.HardwareAddr = net.HardwareAddr{2, 0, 0, 0, 0, 1} // by default it changes with the links, unknown to those who send to it
	if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil && !errors.Is(err, unix.EEXIST) {
		return 0, err
	}
	bridge, err := linkUp(bridgeName)
	if err != nil {
		return 0, err
	}
	return bridge.Attrs().Index, nil
}

func linkUp(name string) (netlink.Link, error) {
	link, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkSetUp(link)
	}
	if err != nil {
		return nil, fmt.Errorf("bring up %s: %w", name, err)
	}
	return link, nil
}

func only(a netip.Addr) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}
}
