package stack

import (
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
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// flow is who talks to whom by datagrams. A ping's source port is its identifier, and port 0 its destination.
type flow struct {
	ping     bool
	src, dst netip.AddrPort
}

// session is a flow's connected socket of the host's.
type session struct {
	stack   *Stack
	flow    flow
	file    *os.File
	conn    syscall.RawConn
	route   *stack.Route // to the pod, from the flow's destination
	last    atomic.Int64 // when something passed, nanoseconds since the epoch
	replied atomic.Bool

	mu   sync.Mutex
	head [8]byte // how the pod's last datagram began, for an ICMP error about it
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
		src: netip.AddrPortFrom(fromStack(id.RemoteAddress), id.RemotePort),
		dst: netip.AddrPortFrom(fromStack(id.LocalAddress), id.LocalPort),
	}, [8]byte(head), data)
	return true
}

func (s *Stack) handlePing4(id stack.TransportEndpointID, packet *stack.PacketBuffer) bool {
	return s.handlePing(id, packet, byte(header.ICMPv4Echo))
}

func (s *Stack) handlePing6(id stack.TransportEndpointID, packet *stack.PacketBuffer) bool {
	return s.handlePing(id, packet, byte(header.ICMPv6EchoRequest))
}

// handlePing takes an echo request. Those to our own addresses it leaves to gVisor: false says so.
func (s *Stack) handlePing(id stack.TransportEndpointID, packet *stack.PacketBuffer, request byte) bool {
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
		ping: true,
		src:  netip.AddrPortFrom(fromStack(id.RemoteAddress), binary.BigEndian.Uint16(head[4:])),
		dst:  netip.AddrPortFrom(dst, 0),
	}, [8]byte(head), message)
	return true
}

// relay sends data over the session of flow, which it opens if there is none.
func (s *Stack) relay(flow flow, head [8]byte, data []byte) {
	if !flow.ping && s.isResolver(flow.dst) {
		s.answerDNS(flow, data)
		return
	}
	s.mu.Lock()
	session := s.sessions[flow]
	s.mu.Unlock()
	if session == nil {
		dst, err := s.sessionDestination(flow)
		if err != nil {
			s.counters.refused.Add(1)
			s.unreachable(flow, head, prohibited)
			return
		}
		if session = s.open(flow, dst); session == nil {
			s.counters.dropped.Add(1)
			return
		}
	}
	session.send(head, data)
}

// sessionDestination is where on the host's side the flow goes.
func (s *Stack) sessionDestination(flow flow) (netip.AddrPort, error) {
	if flow.ping {
		if !s.reachable(flow.src.Addr(), flow.dst.Addr()) {
			return netip.AddrPort{}, errRefused
		}
		return flow.dst, nil
	}
	destinations, err := s.destinations(flow.src.Addr(), flow.dst)
	if err != nil {
		return netip.AddrPort{}, err
	}
	// connect(2) of a datagram socket doesn't find out whether anybody is there: the loopback of the same kind.
	for _, dst := range destinations {
		if dst.Addr().Is4() == flow.dst.Addr().Is4() {
			return dst, nil
		}
	}
	return netip.AddrPort{}, errRefused
}

// open makes a session, in place of the idlest if there are too many; nil: the host can't.
func (s *Stack) open(flow flow, dst netip.AddrPort) *session {
	file, err := connect(flow.ping, dst)
	if err != nil {
		return nil
	}
	conn, err := file.SyscallConn()
	if err != nil {
		file.Close()
		return nil
	}
	route, failed := s.netns.FindRoute(nic, toStack(flow.dst.Addr()), toStack(flow.src.Addr()), protocolOf(flow.dst.Addr()), false)
	if failed != nil {
		file.Close()
		return nil
	}
	session := &session{stack: s, flow: flow, file: file, conn: conn, route: route}
	session.last.Store(time.Now().UnixNano())
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		file.Close()
		route.Release()
		return nil
	}
	if len(s.sessions) >= s.limits.sessions {
		s.idlest().close()
	}
	if len(s.sessions) == 0 {
		s.sweeper.Reset(s.limits.asked / 8)
	}
	s.sessions[flow] = session
	s.work.Add(1)
	go session.receive()
	return session
}

// connect makes a non-blocking UDP or ping socket (icmp(7), ping_group_range) whose peer is dst.
func connect(ping bool, dst netip.AddrPort) (*os.File, error) {
	family, protocol := unix.AF_INET, 0
	var peer unix.Sockaddr = &unix.SockaddrInet4{Addr: [4]byte(dst.Addr().AsSlice()), Port: int(dst.Port())}
	if ping {
		protocol = unix.IPPROTO_ICMP
	}
	if dst.Addr().Is6() {
		family, peer = unix.AF_INET6, &unix.SockaddrInet6{Addr: dst.Addr().As16(), Port: int(dst.Port())}
		if ping {
			protocol = unix.IPPROTO_ICMPV6
		}
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	if err != nil {
		return nil, err
	}
	if err := unix.Connect(fd, peer); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), "session"), nil
}

// idlest removes the session in which nothing has passed for longest, and returns it. s.mu is held.
func (s *Stack) idlest() *session {
	var idlest *session
	for _, session := range s.sessions {
		if idlest == nil || session.last.Load() < idlest.last.Load() {
			idlest = session
		}
	}
	delete(s.sessions, idlest.flow)
	return idlest
}

// sweep ends the sessions that have been idle for too long.
func (s *Stack) sweep() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now().UnixNano()
	for flow, session := range s.sessions {
		limit := s.limits.asked
		if session.replied.Load() {
			limit = s.limits.replied
		}
		if now-session.last.Load() > int64(limit) {
			delete(s.sessions, flow)
			session.close()
		}
	}
	if len(s.sessions) > 0 {
		s.sweeper.Reset(s.limits.asked / 8)
	}
}

// close lets receive end. Whoever calls it has removed the session from the table.
func (c *session) close() { c.file.Close() }

// send sends one datagram of the pod's. If the socket is full it is lost, as datagrams are.
func (c *session) send(head [8]byte, data []byte) {
	c.last.Store(time.Now().UnixNano())
	c.mu.Lock()
	c.head = head
	c.mu.Unlock()
	var err error
	c.conn.Control(func(fd uintptr) {
		// An error that an earlier datagram met is reported once, in place of sending: udp(7).
		if _, err = unix.Write(int(fd), data); errors.Is(err, unix.ECONNREFUSED) {
			c.stack.unreachable(c.flow, head, nobody)
			_, err = unix.Write(int(fd), data)
		}
	})
	if err != nil {
		c.stack.counters.dropped.Add(1)
		return
	}
	c.stack.counters.sent.Add(uint64(len(data)))
}

// receive brings the replies to the pod, until the session is closed.
func (c *session) receive() {
	defer c.stack.work.Done()
	defer c.route.Release()
	for {
		var err error
		waited := c.conn.Read(func(fd uintptr) bool {
			buffer := datagrams.Get().(*[64 << 10]byte) // held only while there is something to read
			defer datagrams.Put(buffer)
			for {
				var n int
				if n, err = unix.Read(int(fd), buffer[:]); err != nil {
					return !errors.Is(err, unix.EAGAIN)
				}
				c.reply(buffer[:n])
			}
		})
		switch {
		case waited != nil:
			return
		case errors.Is(err, unix.ECONNREFUSED):
			c.mu.Lock()
			head := c.head
			c.mu.Unlock()
			c.stack.unreachable(c.flow, head, nobody)
		case errors.Is(err, unix.EINTR):
		default: // such as EHOSTUNREACH: the datagram is lost, the next may not be
			c.stack.counters.dropped.Add(1)
		}
	}
}

func (c *session) reply(data []byte) {
	ok := true
	switch {
	case !c.flow.ping:
		sendUDP(c.route, c.flow.dst.Port(), c.flow.src.Port(), data)
	default:
		ok = sendEchoReply(c.route, c.flow.src.Port(), data)
	}
	if ok {
		c.last.Store(time.Now().UnixNano())
		c.replied.Store(true)
		c.stack.counters.fetched.Add(uint64(len(data)))
	}
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
