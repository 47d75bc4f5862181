package stack

import (
	"context"
	"encoding/binary"
	"io"
	"net/netip"
	"slices"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// own reports whether addr is the stack's.
func (s *Stack) own(addr netip.Addr) bool {
	return slices.Contains(s.config.Gateway, addr) || slices.Contains(s.config.Resolver, addr)
}

func (s *Stack) isResolver(dst netip.AddrPort) bool {
	return s.config.DNS != nil && dst.Port() == 53 && slices.Contains(s.config.Resolver, dst.Addr())
}

// ask calls Config.DNS, unless it is busy with too many queries already.
func (s *Stack) ask(query []byte, from netip.Addr, tcp bool) []byte {
	select {
	case s.queries <- struct{}{}:
		defer func() { <-s.queries }()
	default:
		s.counters.dropped.Add(1)
		return nil
	}
	ctx, cancel := context.WithTimeout(s.ctx, s.limits.query)
	defer cancel()
	answer := s.config.DNS(ctx, query, from, tcp)
	if answer != nil {
		s.counters.queries.Add(1)
	}
	return answer
}

// answerDNS answers a query that came in a datagram.
func (s *Stack) answerDNS(flow flow, query []byte) {
	if len(s.queries) == cap(s.queries) || !s.enter() {
		s.counters.dropped.Add(1)
		return
	}
	go func() {
		defer s.work.Done()
		answer := s.ask(query, flow.src.Addr(), false)
		if answer == nil || len(answer) > 65535-48 { // IPv6's header and UDP's
			return
		}
		route, err := s.netns.FindRoute(nic, toStack(flow.dst.Addr()), toStack(flow.src.Addr()), protocolOf(flow.src.Addr()), false)
		if err != nil {
			return
		}
		defer route.Release()
		sendUDP(route, flow.dst.Port(), flow.src.Port(), answer)
	}()
}

// serveDNS answers the queries of one TCP connection, one after the other: RFC 1035 4.2.2.
func (s *Stack) serveDNS(request *tcp.ForwarderRequest, a *attempt) {
	var events waiter.Queue
	id := request.ID()
	endpoint, err := request.CreateEndpoint(&events)
	request.Complete(err != nil)
	s.settled(a)
	if err != nil {
		return
	}
	gone := tcpip.TCPUserTimeoutOption(s.limits.closing) // of a pod that never acknowledges the end
	endpoint.SetSockOpt(&gone)
	from := fromStack(id.RemoteAddress)
	conn := gonet.NewTCPConn(&events, endpoint)
	defer conn.Close()
	stop := context.AfterFunc(s.ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	for s.ctx.Err() == nil {
		conn.SetDeadline(time.Now().Add(s.limits.query))
		var length [2]byte
		if _, err := io.ReadFull(conn, length[:]); err != nil {
			return
		}
		query := make([]byte, binary.BigEndian.Uint16(length[:]))
		if _, err := io.ReadFull(conn, query); err != nil {
			return
		}
		answer := s.ask(query, from, true)
		if answer == nil || len(answer) > 65535 {
			return
		}
		conn.SetDeadline(time.Now().Add(s.limits.query))
		if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...)); err != nil {
			return
		}
	}
}
