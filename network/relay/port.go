package relay

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Port is a published port.
type Port struct {
	relay     *Relay
	target    Target
	kind      int
	listeners []int
	stocks    [2]*stock // of IPv4 and IPv6
	crowd     *crowd
	addresses atomic.Pointer[[]netip.Addr]

	connections, open, refused, bytesIn, bytesOut atomic.Uint64
}

// Counters are what a port has done since it was published. UDP sessions count as connections.
type Counters struct {
	Connections uint64 `json:"connections"`
	Open        uint64 `json:"open"`      // now
	Refused     uint64 `json:"refused"`   // the pod did not take them
	BytesIn     uint64 `json:"bytes_in"`  // to the pod
	BytesOut    uint64 `json:"bytes_out"` // to the clients
}

// Counters returns the port's counters; after Close, the last ones.
func (p *Port) Counters() Counters {
	return Counters{
		Connections: p.connections.Load(), Open: p.open.Load(), Refused: p.refused.Load(),
		BytesIn: p.bytesIn.Load(), BytesOut: p.bytesOut.Load(),
	}
}

// Listeners are the sockets that the port listens on, as long as it is not closed.
func (p *Port) Listeners() []int { return p.listeners }

// Close closes the port's listeners and resets its connections. To close it twice is no error.
func (p *Port) Close() error {
	r := p.relay
	r.mu.Lock()
	ours := r.ports[p]
	delete(r.ports, p)
	r.mu.Unlock()
	if ours {
		p.end()
	}
	return nil
}

// end is Close, once.
func (p *Port) end() {
	for _, l := range p.relay.loops {
		_ = l.do(func() error { l.endPort(p); return nil }) // ErrClosed: it has none any more
	}
	closeAll(p.listeners)
	p.relay.mu.Lock()
	defer p.relay.mu.Unlock()
	p.relay.leave(p)
	for _, s := range p.stocks {
		if s.users--; s.users == 0 {
			delete(p.relay.stocks, s.key)
			s.close()
		}
	}
}

// check says what is wrong with the port.
func (p *Port) check() error {
	switch {
	case p.target.Sockets == nil:
		return errors.New("target: no one to make sockets in the pod")
	case p.target.Port == 0:
		return errors.New("target: port 0 is no port")
	case len(p.listeners) == 0:
		return errors.New("no listening sockets")
	}
	return p.Move(p.target.Addresses)
}

// Move tells of new addresses of the pod's, at most one of each family. Clients that are there stay where they
// are.
func (p *Port) Move(addresses []netip.Addr) error {
	moved := slices.Clone(addresses)
	var four, six int
	for i, a := range moved {
		moved[i] = a.Unmap()
		if moved[i].Is4() {
			four++
		} else if a.Is6() {
			six++
		}
	}
	if four > 1 || six > 1 || four+six == 0 || four+six < len(moved) {
		return fmt.Errorf("target: want one address of a family, have %v", addresses)
	}
	p.addresses.Store(&moved)
	return nil
}

// prepare sets the options of a listener. What is set on a listening TCP socket holds for those accepted.
func (p *Port) prepare(fd int) error {
	var kind, family, protocol int
	for option, value := range map[int]*int{unix.SO_TYPE: &kind, unix.SO_DOMAIN: &family, unix.SO_PROTOCOL: &protocol} {
		n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, option)
		if err != nil {
			return fmt.Errorf("getsockopt of listener %d: %w", fd, err)
		}
		*value = n
	}
	if p.kind != 0 && p.kind != kind || protocol != unix.IPPROTO_TCP && protocol != unix.IPPROTO_UDP {
		return fmt.Errorf("listener %d: protocol %d where all must be TCP, or all UDP", fd, protocol)
	}
	p.kind = kind
	if err := unix.SetNonblock(fd, true); err != nil {
		return fmt.Errorf("fcntl O_NONBLOCK on listener %d: %w", fd, err)
	}
	if kind == unix.SOCK_STREAM {
		if err := p.relay.times.client.set(fd); err != nil {
			return fmt.Errorf("setsockopt SO_KEEPALIVE on listener %d: %w", fd, err)
		}
	}
	for _, o := range listenerOptions {
		if o.kind != kind || o.family != 0 && o.family != family {
			continue
		}
		if err := unix.SetsockoptInt(fd, o.level, o.option, 1); err != nil {
			return fmt.Errorf("setsockopt %s on listener %d: %w", o.name, fd, err)
		}
	}
	return nil
}

var listenerOptions = []struct {
	kind, family  int // 0: any
	level, option int
	name          string
}{
	{unix.SOCK_STREAM, 0, unix.IPPROTO_TCP, unix.TCP_NODELAY, "TCP_NODELAY"},
	{unix.SOCK_STREAM, 0, unix.SOL_SOCKET, unix.SO_OOBINLINE, "SO_OOBINLINE"}, // urgent data keeps its place
	// Replies come from the address that the client wrote to: ip(7), ipv6(7).
	{unix.SOCK_DGRAM, unix.AF_INET, unix.IPPROTO_IP, unix.IP_PKTINFO, "IP_PKTINFO"},
	{unix.SOCK_DGRAM, unix.AF_INET6, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, "IPV6_RECVPKTINFO"},
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}
