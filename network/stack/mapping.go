package stack

import (
	"container/list"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// flow is who sends to whom. A ping's source port is its identifier, and port 0 its destination.
type flow struct {
	src, dst netip.AddrPort
	protocol tcpip.TransportProtocolNumber
}

func (f flow) ping() bool { return f.protocol != header.UDPProtocolNumber }

// origin is what a mapping is for: a pod's address and port, from which it sends to whomever it likes. Pings are told
// apart by whom they are for as well: the kernel numbers them by socket.
type origin struct {
	src  netip.AddrPort
	ping netip.Addr // invalid: it is UDP
}

func (f flow) origin() origin {
	if f.ping() {
		return origin{f.src, f.dst.Addr()}
	}
	return origin{src: f.src}
}

// mapping is a socket of the host's that sends for an origin, RFC 4787: one, so that all who are sent to see the same
// port (4.1); and each address that was sent to may answer, from whatever port (5).
type mapping struct {
	stack  *Stack
	owner  string
	origin origin
	file   *os.File
	conn   syscall.RawConn

	last    atomic.Int64 // when something passed, nanoseconds since the epoch
	replied atomic.Bool
	place   *list.Element // among the owner's; Stack.mu guards it
	placed  int64         // last, as it was then

	mu    sync.Mutex
	peers map[netip.Addr]*peer // by their addresses on the host's side
}

// peer is an address that was sent to.
type peer struct {
	shown   netip.Addr // as what the pod knows it
	allowed int64      // when policy said so, nanoseconds since the epoch
	last    int64      // when it was sent to
}

// datagrams are buffers that hold any datagram.
var datagrams = sync.Pool{New: func() any { return new([64 << 10]byte) }}

// handleUDP takes a datagram of a pod's.
func (s *Stack) handleUDP(id stack.TransportEndpointID, packet *stack.PacketBuffer) bool {
	head := header.UDP(packet.TransportHeader().Slice())
	size := packet.Data().Size()
	if len(head) != header.UDPMinimumSize || int(head.Length()) < len(head) || int(head.Length()) > len(head)+size {
		s.counters.dropped.Add(1)
		return true
	}
	data := packet.Data().AsRange().Capped(int(head.Length()) - len(head)).ToSlice()
	s.relay(flow{
		src:      netip.AddrPortFrom(fromStack(id.RemoteAddress), id.RemotePort),
		dst:      netip.AddrPortFrom(fromStack(id.LocalAddress), id.LocalPort),
		protocol: header.UDPProtocolNumber,
	}, data)
	return true
}

func (s *Stack) handlePing4(id stack.TransportEndpointID, packet *stack.PacketBuffer) bool {
	return s.handlePing(id, packet, byte(header.ICMPv4Echo), header.ICMPv4ProtocolNumber)
}

func (s *Stack) handlePing6(id stack.TransportEndpointID, packet *stack.PacketBuffer) bool {
	return s.handlePing(id, packet, byte(header.ICMPv6EchoRequest), header.ICMPv6ProtocolNumber)
}

// handlePing takes an echo request. Those to our own addresses it leaves to gVisor: false says so.
func (s *Stack) handlePing(id stack.TransportEndpointID, packet *stack.PacketBuffer, request byte,
	protocol tcpip.TransportProtocolNumber) bool {
	dst := fromStack(id.LocalAddress)
	if s.own(dst) {
		return false
	}
	head := packet.TransportHeader().Slice()
	if len(head) < 8 || head[0] != request {
		return true
	}
	message := append(append(make([]byte, 0, len(head)+packet.Data().Size()), head...), packet.Data().AsRange().ToSlice()...)
	s.relay(flow{
		src:      netip.AddrPortFrom(fromStack(id.RemoteAddress), binary.BigEndian.Uint16(head[4:])),
		dst:      netip.AddrPortFrom(dst, 0),
		protocol: protocol,
	}, message)
	return true
}

// relay sends data, or a message of ICMP's, over the mapping of its origin, which it makes if there is none.
func (s *Stack) relay(flow flow, data []byte) {
	if !flow.ping() && s.isResolver(flow.dst) {
		s.answerDNS(flow, data)
		return
	}
	s.mu.Lock()
	m := s.mappings[flow.origin()]
	s.mu.Unlock()
	var to netip.AddrPort
	var err error
	if m != nil {
		to, err = m.destination(flow.dst)
	} else if to, err = s.destination(flow); err == nil {
		if m, err = s.open(flow, to); m != nil {
			m.allow(flow.dst, to)
		}
	}
	if err == nil {
		err = m.send(flow, to, data)
	}
	if err != nil {
		s.lost(flow, data, err)
	}
}

// lost says why a datagram was not sent, where that can be said.
func (s *Stack) lost(flow flow, data []byte, err error) {
	why, told := reasonOf(err)
	if errors.Is(err, errRefused) {
		s.counters.refused.Add(1)
	} else {
		s.counters.dropped.Add(1)
	}
	if told {
		s.unreachable(flow, quote(flow, data), why.firmly(flow))
	}
}

// destination is where on the host's side a flow goes.
func (s *Stack) destination(flow flow) (netip.AddrPort, error) {
	if flow.ping() {
		_, err := s.destinations(flow.src.Addr(), flow.dst) // port 0: whoever reaches the whole host may ping it
		return flow.dst, err
	}
	destinations, err := s.destinations(flow.src.Addr(), flow.dst)
	if err != nil {
		return netip.AddrPort{}, err
	}
	// A datagram doesn't find out whether anybody is there: the loopback of the same kind.
	for _, dst := range destinations {
		if dst.Addr().Is4() == flow.dst.Addr().Is4() {
			return dst, nil
		}
	}
	return netip.AddrPort{}, errRefused
}

// destination is where on the host's side dst is. Policy is asked for every datagram; what it said of an address other
// than ours is good for a moment, since it asks the kernel.
func (m *mapping) destination(dst netip.AddrPort) (netip.AddrPort, error) {
	now := time.Now().UnixNano()
	m.mu.Lock()
	p := m.peers[dst.Addr()]
	if p != nil && p.shown == dst.Addr() && now-p.allowed < int64(m.stack.limits.verdict) {
		p.last = now
		m.mu.Unlock()
		return dst, nil
	}
	m.mu.Unlock()
	to, err := m.stack.destination(flow{m.origin.src, dst, m.protocol()})
	if err == nil {
		m.allow(dst, to)
	}
	return to, err
}

// protocol is what the mapping carries.
func (m *mapping) protocol() tcpip.TransportProtocolNumber {
	switch ping := m.origin.ping; {
	case !ping.IsValid():
		return header.UDPProtocolNumber
	case ping.Is4():
		return header.ICMPv4ProtocolNumber
	}
	return header.ICMPv6ProtocolNumber
}

// allow notes that dst, which is to on the host's side, is sent to, and may answer.
func (m *mapping) allow(dst, to netip.AddrPort) {
	now := time.Now().UnixNano()
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.peers[to.Addr()]
	if p == nil {
		if len(m.peers) >= m.stack.limits.peers {
			delete(m.peers, m.idlestPeer())
		}
		p = &peer{}
		m.peers[to.Addr()] = p
	}
	*p = peer{shown: dst.Addr(), allowed: now, last: now}
}

// idlestPeer is the address that was sent to the longest ago. m.mu is held.
func (m *mapping) idlestPeer() (idlest netip.Addr) {
	for addr, p := range m.peers {
		if !idlest.IsValid() || p.last < m.peers[idlest].last {
			idlest = addr
		}
	}
	return idlest
}

// shown is as what the pod knows somebody of the host's side who sent it a datagram; false: it has not sent to that
// address. Of the host itself only such ports answer as may be asked.
func (m *mapping) shown(from netip.AddrPort) (netip.AddrPort, bool) {
	m.mu.Lock()
	p := m.peers[from.Addr()]
	var shown netip.AddrPort
	if p != nil {
		shown = netip.AddrPortFrom(p.shown, from.Port())
	}
	m.mu.Unlock()
	if p == nil {
		return shown, false
	}
	if shown.Addr() != from.Addr() {
		_, err := m.stack.destinations(m.origin.src.Addr(), shown)
		return shown, err == nil
	}
	return shown, true
}

// open makes a mapping, in place of its owner's idlest if he has his share already.
func (s *Stack) open(flow flow, to netip.AddrPort) (*mapping, error) {
	file, err := newSocket(flow, to)
	if err != nil {
		return nil, err
	}
	conn, err := file.SyscallConn()
	if err != nil {
		file.Close()
		return nil, err
	}
	m := &mapping{stack: s, owner: s.owner(flow.src.Addr()), origin: flow.origin(), file: file, conn: conn,
		peers: map[netip.Addr]*peer{}}
	m.last.Store(time.Now().UnixNano())
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || !s.takeFlow(m.owner) {
		file.Close()
		return nil, errNoPlace
	}
	if len(s.mappings) == 0 {
		s.sweeper.Reset(s.limits.asked / 8)
	}
	s.mappings[m.origin] = m
	s.keep(m)
	s.work.Add(1)
	go m.receive()
	return m, nil
}

// errNoPlace says that there are too many of something.
var errNoPlace = errors.New("no place")

// newSocket makes a non-blocking UDP socket, or a ping socket for one destination (icmp(7), ping_group_range). It
// keeps the errors that its datagrams meet, with the address of each: ip(7), IP_RECVERR.
func newSocket(flow flow, to netip.AddrPort) (*os.File, error) {
	family, protocol, level, option := unix.AF_INET, 0, unix.SOL_IP, unix.IP_RECVERR
	if to.Addr().Is6() {
		family, level, option = unix.AF_INET6, unix.SOL_IPV6, unix.IPV6_RECVERR
	}
	if flow.ping() {
		protocol = int(flow.protocol)
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	if err != nil {
		return nil, err
	}
	if err = unix.SetsockoptInt(fd, level, option, 1); err == nil && flow.ping() {
		err = unix.Connect(fd, sockaddr(to))
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), "mapping"), nil
}

func sockaddr(addr netip.AddrPort) unix.Sockaddr {
	if addr.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: addr.Addr().As4(), Port: int(addr.Port())}
	}
	return &unix.SockaddrInet6{Addr: addr.Addr().As16(), Port: int(addr.Port())}
}

func fromSockaddr(addr unix.Sockaddr) netip.AddrPort {
	switch addr := addr.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(addr.Addr), uint16(addr.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(addr.Addr).Unmap(), uint16(addr.Port))
	}
	return netip.AddrPort{}
}

// CanPing says whether the caller may make ping sockets. If not, only the stack's own addresses answer pings.
func CanPing() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
	if errors.Is(err, unix.EACCES) {
		return fmt.Errorf("socket of IPPROTO_ICMP: %w: none of our groups is in net.ipv4.ping_group_range", err)
	}
	if err != nil {
		return fmt.Errorf("socket of IPPROTO_ICMP: %w", err)
	}
	return unix.Close(fd)
}
