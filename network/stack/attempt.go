package stack

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// attempt is a pod's connection that is being made, from its SYN until the pod knows how that went. It is known for as
// long as the connection that came of it.
type attempt struct {
	owner   string
	head    [8]byte // how the SYN began, for an ICMP error about it: ports and sequence number, which the pod looks at
	tier    *tier
	settled bool

	up, down urgent // of the connection's two directions

	ctx  context.Context // ends with the attempt, or with the pod
	stop context.CancelFunc
}

// handleTCP takes a segment that belongs to no connection. To what is no SYN gVisor answers: false says so.
func (s *Stack) handleTCP(id stack.TransportEndpointID, packet *stack.PacketBuffer) bool {
	head := header.TCP(packet.TransportHeader().Slice())
	if len(head) < header.TCPMinimumSize || head.Flags()&(header.TCPFlagSyn|header.TCPFlagAck) != header.TCPFlagSyn {
		return false
	}
	if s.attempting(id) { // the pod's kernel is impatient
		return true
	}
	owner := s.owner(fromStack(id.RemoteAddress))
	if !s.limits.dials.Take(owner) {
		return true // it will ask again; by then there may be place
	}
	a := &attempt{owner: owner, head: [8]byte(head), tier: s.limits.tier(owner)}
	a.ctx, a.stop = context.WithCancel(s.ctx)
	a.up.next.Store(head.SequenceNumber() + 1)
	s.mu.Lock()
	s.attempts[id] = a
	s.mu.Unlock()
	if !a.tier.forwarder.HandlePacket(id, packet) {
		s.settled(a)
		s.over(id, a)
		return false
	}
	return true
}

// attempt is the latest attempt of what may be a connection by now.
func (s *Stack) attempt(id stack.TransportEndpointID) *attempt {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.attempts[id]
}

// attempting says whether a connection is being made.
func (s *Stack) attempting(id stack.TransportEndpointID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.attempts[id]
	return a != nil && !a.settled
}

// settled says that a connection is there, or will not be.
func (s *Stack) settled(a *attempt) {
	s.mu.Lock()
	a.settled = true
	s.mu.Unlock()
	a.stop()
	s.limits.dials.Give(a.owner)
}

// over forgets an attempt, unless the pod has begun another from the same port.
func (s *Stack) over(id stack.TransportEndpointID, a *attempt) {
	s.mu.Lock()
	if s.attempts[id] == a {
		delete(s.attempts, id)
	}
	s.mu.Unlock()
	a.tier.limit.Give(a.owner)
}

// serve answers one SYN of a pod: it runs on a goroutine of its own, until nothing of the connection is left.
func (s *Stack) serve(request *tcp.ForwarderRequest) {
	if !s.enter() {
		request.Complete(false)
		return
	}
	defer s.work.Done()
	id := request.ID()
	a := s.attempt(id)
	defer s.over(id, a)
	if !s.limits.connections.Take(a.owner) {
		request.Complete(true)
		s.settled(a)
		return
	}
	defer s.limits.connections.Give(a.owner)
	src := netip.AddrPortFrom(fromStack(id.RemoteAddress), id.RemotePort)
	dst := netip.AddrPortFrom(fromStack(id.LocalAddress), id.LocalPort)
	if s.isResolver(dst) {
		s.serveDNS(request, a)
		return
	}
	host, err := s.dial(a.ctx, src, dst)
	if err != nil {
		s.decline(request, a, flow{src: src, dst: dst, protocol: header.TCPProtocolNumber}, err)
		return
	}
	c := &connection{stack: s, attempt: a, host: host}
	accepted := c.accept(request)
	s.settled(a)
	if accepted {
		c.run()
	}
}

// dial connects to the first of the destinations that takes the connection.
func (s *Stack) dial(ctx context.Context, src, dst netip.AddrPort) (host *net.TCPConn, err error) {
	destinations, err := s.destinations(src.Addr(), dst)
	if err != nil {
		return nil, err
	}
	// An end of connection that the host's side never sends must not hold the connection for ever.
	alive := net.KeepAliveConfig{Enable: true, Idle: s.limits.idle, Interval: s.limits.interval, Count: s.limits.probes}
	dialer := net.Dialer{Timeout: s.limits.dial, KeepAliveConfig: alive}
	for _, dst := range destinations {
		var conn net.Conn
		if conn, err = dialer.DialContext(ctx, "tcp", dst.String()); err == nil {
			return conn.(*net.TCPConn), nil
		}
	}
	return nil, err
}

// decline tells the pod why there is no connection, in the way in which its kernel makes the same error of it. Where
// there was no answer, or none is known, it gets none: it asks again, and in the end says ETIMEDOUT by itself.
func (s *Stack) decline(request *tcp.ForwarderRequest, a *attempt, flow flow, err error) {
	why, told := reasonOf(err)
	refused := errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, errRefused)
	if errors.Is(err, errRefused) {
		s.counters.refused.Add(1)
	} else {
		s.counters.failed.Add(1)
	}
	if told && !refused {
		s.unreachable(flow, a.head[:], why)
	}
	request.Complete(refused)
	s.settled(a)
}

var past = time.Unix(1, 0)
