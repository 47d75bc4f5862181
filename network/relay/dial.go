package relay

import (
	"net/netip"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// route is one way to a service: an address in the pod, and whether it may see the client's.
type route struct {
	to   netip.Addr
	keep bool
}

// routes are the ways to the port's service for a client, best first; each is tried if those before it refuse.
// A service on all addresses is met by the first and sees the client; one on the pod's localhost alone, or of
// the other family alone, is still found.
func (p *Port) routes(client netip.Addr) []route {
	var own, other []route
	for _, a := range *p.addresses.Load() {
		if a.Is4() == client.Is4() {
			// A link-local address means nothing without its link: it can't be taken into the pod.
			keep := !(client.Is6() && client.IsLinkLocalUnicast())
			own = append(own, route{a, keep}, route{loopback(a), false})
		} else {
			other = append(other, route{a, false}, route{loopback(a), false})
		}
	}
	if p.kind == unix.SOCK_DGRAM && client.IsLoopback() && len(own) > 0 {
		// What a UDP service sends to a loopback address comes from there, whatever address was asked.
		own = []route{{own[1].to, true}, {own[0].to, true}}
	}
	return slices.Concat(own, other)
}

func loopback(a netip.Addr) netip.Addr {
	if a.Is4() {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return netip.IPv6Loopback()
}

// dialler is one client's search for its service.
type dialler struct {
	client  netip.AddrPort
	routes  []route
	anyPort bool // the client's own port is taken
}

func (d *dialler) family() int { return familyOf(d.routes[0].to) }

// connect binds and connects a fresh socket for the first route.
func (d *dialler) connect(l *loop, fd int, port uint16) syscall.Errno {
	r := d.routes[0]
	if r.keep {
		errno := syscall.EADDRINUSE
		if !d.anyPort {
			l.packet.address.set(d.client)
			errno = bind(fd, &l.packet.address)
		}
		if errno == unix.EADDRINUSE || errno == unix.EACCES { // EACCES: the pod keeps low ports for root
			// The port is chosen by connect, which may share it between targets: IP_BIND_ADDRESS_NO_PORT in ip(7).
			_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
			l.packet.address.set(netip.AddrPortFrom(d.client.Addr(), 0))
			errno = bind(fd, &l.packet.address)
		}
		if errno != no {
			return errno
		}
	}
	l.packet.address.set(netip.AddrPortFrom(r.to, port))
	errno := connect(fd, &l.packet.address)
	if errno == unix.EINPROGRESS {
		// On a pod's loopback the answer is there already; the second call asks for it and saves a round of epoll.
		errno = connect(fd, &l.packet.address)
	}
	return errno
}

// next takes in that the route failed, and says whether there is anything left to try. Only a refusal leads on:
// what the pod's firewall rejects otherwise is not to be reached by another way.
func (d *dialler) next(errno syscall.Errno) bool {
	switch {
	case errno == unix.EADDRNOTAVAIL && d.routes[0].keep && !d.anyPort:
		d.anyPort = true // the same connection lingers in TIME_WAIT
		return true
	case errno == unix.ECONNREFUSED, errno == unix.EADDRNOTAVAIL, errno == unix.EAFNOSUPPORT:
		d.routes, d.anyPort = d.routes[1:], false
		return len(d.routes) > 0
	}
	return false
}
