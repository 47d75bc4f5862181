// Package stack is a pod's way out without root: a network stack of our own (gVisor's) behind a tun device
// of the pod's, which turns what the pod sends into ordinary sockets of the host. It owns the tun device, the
// stack and those sockets, and it decides what is never reachable that way. It refuses to know who made the
// device, what a pod is, and how names are found: its Config says so.
//
//	pod's kernel <-> tun <-> link.go <-> gVisor <-> attempt.go, connection.go <-> TCP socket of the host
//	                                          <-> mapping.go, datagram.go     <-> UDP or ping socket of the host
//	                                          <-> dns.go                      <-> Config.DNS
//
// Nobody but the destination ever answers for it: a connection is accepted when the host's connect(2) has
// succeeded, a ping is answered when a reply has come, and an error that the host's kernel meets is told so that the
// pod's says the same. A pod is hostile, so all that it can make us keep is bounded (limits), of which each pod has a
// share, and policy.go is asked before anything is sent.
package stack

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/log"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
)

// What the maker of a tun device has to set, as tun.rst of the kernel's documentation and linux/if_tun.h have
// it: ioctl(TUNSETIFF) with TunFlags and the device's name, ioctl(TUNSETOFFLOAD) with TunOffloads, and
// ioctl(TUNSETPERSIST) if the device is to outlive its descriptor. The size of the vnet header stays the
// default, 10 bytes, its byte order the machine's.
const (
	TunFlags    = unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR
	TunOffloads = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6
)

// Config says what a Stack stands behind and what it may do.
type Config struct {
	Tun *os.File // made as TunFlags says, up or not; New takes it, the caller must not use it any more
	MTU uint32   // the device's, 1280 to 65535; 0: 1500. With segmentation offloads a larger one gains little

	Gateway  []netip.Addr // our own addresses on the pod's link: they answer pings, and HostAccess applies to them
	Resolver []netip.Addr // port 53 there, UDP and TCP, is answered by DNS; nothing else is

	// DNS answers one query, both as in RFC 1035 without TCP's length. from is the pod that asks, tcp says
	// that an answer may be longer than a datagram. No answer (nil): none is sent. Calls run at the same time;
	// ctx ends after 15 s or with the Stack.
	DNS func(ctx context.Context, query []byte, from netip.Addr, tcp bool) []byte

	// HostAccess says which TCP and UDP ports of the host a source reaches: on the host's loopback and on any address
	// that it has at a Gateway address, and at its own addresses; port 0 is ping. nil: none.
	HostAccess func(src netip.Addr, port uint16) bool

	// Blocked says what else a source may not reach: networks that are internal, other networks; nil: nothing.
	Blocked func(src, dst netip.Addr) bool

	// Owner says which pod a source is; nil: all are the same one. Shared says that there are several, and that no one
	// is to take all there is of anything.
	Owner  func(src netip.Addr) string
	Shared bool

	// Descriptors is how many the Stack may have open; 0: 1024. How much of everything there may be follows from that.
	Descriptors int
}

const nic tcpip.NICID = 1

// Stack is a running network stack. All its methods may be called at any time.
type Stack struct {
	config Config
	limits limits
	netns  *stack.Stack
	link   *link
	routes *netlink.Handle // asks the kernel which addresses are the host's own

	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup

	mu          sync.Mutex
	closed      bool
	attempts    map[stack.TransportEndpointID]*attempt // the latest of each
	connections map[*connection]struct{}
	mappings    map[origin]*mapping
	flowsOf     map[string]*list.List // the mappings of each owner
	sweeper     *time.Timer           // runs while there are mappings

	queries  chan struct{}
	counters counters
}

// New starts a stack on config.Tun, which it closes: the Stack goes on with a descriptor of its own. Its
// goroutines hand each packet on to one another, so with few processors runtime.GOMAXPROCS(1) saves about a
// third of the time that a byte takes.
func New(config Config) (*Stack, error) {
	if config.Descriptors == 0 {
		config.Descriptors = defaultDescriptors
	}
	return newStack(config, newLimits(sizesFor(config.Descriptors), defaultTimes, config.Shared))
}

func newStack(config Config, limits limits) (*Stack, error) {
	if config.MTU == 0 {
		config.MTU = 1500
	}
	for _, addr := range slices.Concat(config.Gateway, config.Resolver) {
		if !addr.IsValid() || addr.Is4In6() {
			config.Tun.Close()
			return nil, fmt.Errorf("address %s of the stack: neither IPv4 nor IPv6", addr)
		}
	}
	link, err := newLink(config.Tun, config.MTU)
	if err != nil {
		return nil, err
	}
	routes, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		link.file.Close()
		return nil, fmt.Errorf("socket of NETLINK_ROUTE: %w", err)
	}
	s := &Stack{
		config: config, limits: limits, link: link, routes: routes,
		attempts: map[stack.TransportEndpointID]*attempt{}, connections: map[*connection]struct{}{},
		mappings: map[origin]*mapping{}, flowsOf: map[string]*list.List{},
		queries: make(chan struct{}, limits.queries),
	}
	link.flagged, link.begun = s.flagged, s.begun
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.sweeper = time.AfterFunc(time.Hour, s.sweep)
	s.sweeper.Stop()
	// A pod must not fill the log of its helper, and nobody reads there what gVisor has to say.
	log.SetTarget(&log.Writer{Next: io.Discard})
	s.netns = stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocolCUBIC, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6},
	})
	if err := s.configure(); err != nil {
		close(s.link.done) // nobody reads
		s.Close()
		return nil, err
	}
	go s.link.read()
	return s, nil
}

// configure sets the stack up to take every packet, whatever its destination, and hand it to us.
func (s *Stack) configure() error {
	for _, t := range s.limits.tiers {
		t.forwarder = tcp.NewForwarder(s.netns, int(t.buffer), math.MaxInt, s.serve) // how many there may be is ours to say
	}
	s.netns.SetTransportProtocolHandler(tcp.ProtocolNumber, s.handleTCP)
	s.netns.SetTransportProtocolHandler(udp.ProtocolNumber, s.handleUDP)
	s.netns.SetTransportProtocolHandler(icmp.ProtocolNumber4, s.handlePing4)
	s.netns.SetTransportProtocolHandler(icmp.ProtocolNumber6, s.handlePing6)
	// The pod is microseconds away, so buffers need not grow; who waits for the other side of the world is the
	// host's socket. For the same reason a lost packet that still wanders about is no concern: RFC 9293 asks
	// for four minutes of TIME-WAIT, which would hold memory for each of many short connections.
	moderate, wait := tcpip.TCPModerateReceiveBufferOption(false), tcpip.TCPTimeWaitTimeoutOption(time.Second)
	sack, answers, retries := tcpip.TCPSACKEnabled(true), tcpip.TCPSynRetriesOption(3), tcpip.TCPMaxRetriesOption(s.limits.retries)
	for _, option := range []tcpip.SettableTransportProtocolOption{&sack, &moderate, &wait, &answers, &retries,
		&tcpip.TCPSendBufferSizeRangeOption{Min: 4 << 10, Default: largeBuffer, Max: largeBuffer},
		&tcpip.TCPReceiveBufferSizeRangeOption{Min: 4 << 10, Default: largeBuffer, Max: largeBuffer},
	} {
		if err := s.netns.SetTransportProtocolOption(tcp.ProtocolNumber, option); err != nil {
			return fmt.Errorf("set %T: %v", option, err)
		}
	}
	if err := s.netns.CreateNIC(nic, s.link); err != nil {
		return fmt.Errorf("create the stack's interface: %v", err)
	}
	s.netns.SetPromiscuousMode(nic, true)
	s.netns.SetSpoofing(nic, true)
	s.netns.SetRouteTable([]tcpip.Route{
		{Destination: header.IPv4EmptySubnet, NIC: nic},
		{Destination: header.IPv6EmptySubnet, NIC: nic},
	})
	for _, addr := range slices.Concat(s.config.Gateway, s.config.Resolver) {
		own := tcpip.ProtocolAddress{Protocol: protocolOf(addr), AddressWithPrefix: toStack(addr).WithPrefix()}
		if err := s.netns.AddProtocolAddress(nic, own, stack.AddressProperties{}); err != nil {
			return fmt.Errorf("add address %s to the stack: %v", addr, err)
		}
	}
	return nil
}

// owner is the pod that a source belongs to.
func (s *Stack) owner(src netip.Addr) string {
	if s.config.Owner == nil {
		return ""
	}
	return s.config.Owner(src)
}

// Forget ends all that a pod has open, which has ended itself.
func (s *Stack) Forget(owner string) {
	var connections []*connection
	s.mu.Lock()
	for _, a := range s.attempts {
		if a.owner == owner {
			a.stop()
		}
	}
	for c := range s.connections {
		if c.attempt.owner == owner {
			connections = append(connections, c)
		}
	}
	for _, m := range s.mappings {
		if m.owner == owner {
			s.end(m)
		}
	}
	s.mu.Unlock()
	for _, c := range connections {
		c.abort()
	}
	s.limits.forget(owner)
}

// enter reports whether the Stack still runs; then the caller's goroutine is waited for by Close until it
// calls s.work.Done.
func (s *Stack) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.work.Add(1)
	}
	return !s.closed
}

// Done is closed when the tun device is gone: it was deleted, or the Stack closed.
func (s *Stack) Done() <-chan struct{} { return s.link.done }

// Close ends all connections and sessions, and closes the tun device. Nothing of the Stack runs after it.
func (s *Stack) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return os.ErrClosed
	}
	s.closed = true
	connections := s.connections
	s.connections = nil
	for _, m := range s.mappings {
		s.end(m)
	}
	s.mu.Unlock()

	s.cancel()
	s.sweeper.Stop()
	for c := range connections {
		c.abort()
	}
	s.netns.Close() // ends handshakes too, and while the link still stands, so that the pod hears of it
	s.work.Wait()
	err := s.link.shut()
	s.netns.Wait()
	s.routes.Close()
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

func toStack(addr netip.Addr) tcpip.Address { return tcpip.AddrFromSlice(addr.AsSlice()) }

func fromStack(addr tcpip.Address) netip.Addr {
	ip, _ := netip.AddrFromSlice(addr.AsSlice())
	return ip
}

func protocolOf(addr netip.Addr) tcpip.NetworkProtocolNumber {
	if addr.Is4() {
		return ipv4.ProtocolNumber
	}
	return ipv6.ProtocolNumber
}
