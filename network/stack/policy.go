package stack

import (
	"errors"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// errRefused is what policy says of a destination.
var errRefused = errors.New("refused")

// never are the destinations that no pod reaches: they mean the host itself or its link, or nobody. Where an
// IPv6 address stands for an IPv4 one, that one is judged (embedded).
var never = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),      // this host, RFC 1122 3.2.1.3; Linux connects 0.0.0.0 to loopback
	netip.MustParsePrefix("127.0.0.0/8"),    // loopback
	netip.MustParsePrefix("169.254.0.0/16"), // link-local, RFC 3927; clouds keep credentials there
	netip.MustParsePrefix("224.0.0.0/4"),    // multicast
	netip.MustParsePrefix("240.0.0.0/4"),    // reserved, and broadcast
	netip.MustParsePrefix("::/96"),          // unspecified, loopback, IPv4-compatible (RFC 4291 2.5.5.1)
	netip.MustParsePrefix("::ffff:0:0/96"),  // IPv4-mapped: Linux sends IPv4 for it
	netip.MustParsePrefix("fe80::/10"),      // link-local
	netip.MustParsePrefix("fec0::/10"),      // site-local, RFC 3879
	netip.MustParsePrefix("ff00::/8"),       // multicast
}

// nat64 is the prefix behind which a translator finds IPv4 addresses, RFC 6052 2.1.
var nat64 = netip.MustParsePrefix("64:ff9b::/96")

// destinations are the addresses of the host's side at which dst is to be sought, in order. errRefused: src
// may not reach it.
func (s *Stack) destinations(src netip.Addr, dst netip.AddrPort) ([]netip.AddrPort, error) {
	means := slices.Contains(s.config.Gateway, dst.Addr())
	switch {
	case !means && s.reachable(src, dst.Addr()):
		return []netip.AddrPort{dst}, nil
	case s.config.HostAccess == nil || !s.config.HostAccess(src, dst.Port()):
		return nil, errRefused
	case means:
		return s.hostsAddresses(dst.Port()), nil
	case s.isHosts(src, dst.Addr()):
		return []netip.AddrPort{dst}, nil
	}
	return nil, errRefused
}

// hostsAddresses are where a service of the host's may listen: on its loopback, or on any address that it has. Those of
// links are left out, which mean something else on each.
func (s *Stack) hostsAddresses(port uint16) []netip.AddrPort {
	addrs := []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}
	own, _ := s.routes.AddrList(nil, netlink.FAMILY_ALL) // without them the loopback is what there is
	for _, address := range own {
		if addr, ok := netip.AddrFromSlice(address.IP); ok && !excluded(addr.Unmap()) {
			addrs = append(addrs, addr.Unmap())
		}
	}
	var destinations []netip.AddrPort
	for _, addr := range addrs {
		destinations = append(destinations, netip.AddrPortFrom(addr, port))
	}
	return destinations
}

// isHosts reports whether dst is an address that the host has, and src may go anywhere at all.
func (s *Stack) isHosts(src, dst netip.Addr) bool {
	if slices.Contains(s.config.Resolver, dst) || excluded(dst) || s.config.Blocked != nil && s.config.Blocked(src, dst) {
		return false
	}
	routes, err := s.routes.RouteGet(dst.AsSlice())
	return err == nil && len(routes) > 0 && !slices.ContainsFunc(routes, func(route netlink.Route) bool { return route.Type != unix.RTN_LOCAL })
}

// reachable reports whether src may reach the host dst, which is not one of ours.
func (s *Stack) reachable(src, dst netip.Addr) bool {
	if slices.Contains(s.config.Gateway, dst) || slices.Contains(s.config.Resolver, dst) || excluded(dst) {
		return false
	}
	candidates := []netip.Addr{dst}
	if nat64.Contains(dst) {
		bytes := dst.As16()
		embedded := netip.AddrFrom4([4]byte(bytes[12:]))
		if excluded(embedded) {
			return false
		}
		candidates = append(candidates, embedded)
	}
	for _, addr := range candidates {
		if s.config.Blocked != nil && s.config.Blocked(src, addr) {
			return false
		}
		if s.hostsOwn(addr) {
			return false
		}
	}
	return true
}

func excluded(addr netip.Addr) bool {
	for _, prefix := range never {
		if prefix.Contains(addr) {
			return true
		}
	}
	return false
}

// nowhere are the errors that a route to an address can be.
var nowhere = []error{unix.ENETUNREACH, unix.EHOSTUNREACH, unix.EACCES, unix.EINVAL}

// hostsOwn asks the kernel whether packets to addr would stay on the host, or go to many: rtnetlink(7),
// RTM_GETROUTE. It is asked each time, since addresses come and go. An address without any route, or with one that
// leads nowhere (EHOSTUNREACH, EACCES and EINVAL are those of unreachable, prohibit and blackhole, ip-route(8)), is not
// the host's; connect(2) will say the same of it.
func (s *Stack) hostsOwn(addr netip.Addr) bool {
	routes, err := s.routes.RouteGet(addr.AsSlice())
	if err != nil {
		return !slices.ContainsFunc(nowhere, func(is error) bool { return errors.Is(err, is) })
	}
	for _, route := range routes {
		if route.Type != unix.RTN_UNICAST {
			return true
		}
	}
	return len(routes) == 0
}
