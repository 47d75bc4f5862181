package stack

import (
	"container/list"
	"encoding/binary"
	"errors"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// takeFlow takes a place for a mapping; an owner who has his share gives his idlest for it. s.mu is held.
func (s *Stack) takeFlow(owner string) bool {
	if s.limits.flows.Take(owner) {
		return true
	}
	idlest := s.idlest(owner)
	if idlest == nil {
		return false
	}
	s.end(idlest)
	return s.limits.flows.Take(owner)
}

// keep puts a mapping to the others of its owner. s.mu is held.
func (s *Stack) keep(m *mapping) {
	of := s.flowsOf[m.owner]
	if of == nil {
		of = list.New()
		s.flowsOf[m.owner] = of
	}
	m.placed = m.last.Load()
	m.place = of.PushBack(m)
}

// idlest is the mapping of an owner in which nothing has passed for longest, or nearly: those in which something has
// since they got their place go to the back first. s.mu is held.
func (s *Stack) idlest(owner string) *mapping {
	of := s.flowsOf[owner]
	if of == nil {
		return nil
	}
	for range of.Len() {
		m := of.Front().Value.(*mapping)
		last := m.last.Load()
		if last == m.placed {
			break
		}
		m.placed = last
		of.MoveToBack(m.place)
	}
	return of.Front().Value.(*mapping)
}

// end ends a mapping. s.mu is held.
func (s *Stack) end(m *mapping) {
	delete(s.mappings, m.origin)
	of := s.flowsOf[m.owner]
	if of.Remove(m.place); of.Len() == 0 {
		delete(s.flowsOf, m.owner)
	}
	s.limits.flows.Give(m.owner)
	m.file.Close() // lets receive end
}

// sweep ends the mappings that have been idle for too long.
func (s *Stack) sweep() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now().UnixNano()
	for _, m := range s.mappings {
		limit := s.limits.asked
		if m.replied.Load() {
			limit = s.limits.replied
		}
		if now-m.last.Load() > int64(limit) {
			s.end(m)
		}
	}
	if len(s.mappings) > 0 {
		s.sweeper.Reset(s.limits.asked / 8)
	}
}

// mostTries bounds how often a datagram is sent anew because of errors that earlier ones met.
const mostTries = 8

// send sends one datagram of the pod's. If the socket is full it is lost, as datagrams are.
func (m *mapping) send(flow flow, to netip.AddrPort, data []byte) (err error) {
	m.last.Store(time.Now().UnixNano())
	var peer unix.Sockaddr // nil: the socket is connected
	if !flow.ping() {
		peer = sockaddr(to)
	}
	closed := m.conn.Control(func(fd uintptr) {
		// An error that an earlier datagram met is reported once, in place of sending: udp(7). The second time in a row
		// that none is found, it is this one's.
		for try, none := 0, 0; try < mostTries && none < 2; try++ {
			if peer == nil {
				_, err = unix.Write(int(fd), data)
			} else {
				err = unix.Sendto(int(fd), data, unix.MSG_NOSIGNAL, peer)
			}
			if err == nil || errors.Is(err, unix.EAGAIN) {
				return
			}
			if m.reportErrors(int(fd)) == 0 {
				none++
			}
		}
	})
	if err = errors.Join(closed, err); err == nil {
		m.stack.counters.sent.Add(uint64(len(data)))
	}
	return err
}

// receive brings the replies to the pod, until the mapping is closed.
func (m *mapping) receive() {
	defer m.stack.work.Done()
	var way wayBack
	defer way.release()
	for {
		var err error
		waited := m.conn.Read(func(fd uintptr) bool {
			buffer := datagrams.Get().(*[64 << 10]byte) // held only while there is something to read
			defer datagrams.Put(buffer)
			for {
				var n int
				var from unix.Sockaddr
				if n, from, err = unix.Recvfrom(int(fd), buffer[:], 0); err != nil {
					m.reportErrors(int(fd))
					return !errors.Is(err, unix.EAGAIN)
				}
				m.reply(&way, fromSockaddr(from), buffer[:n])
			}
		})
		if waited != nil {
			return
		}
	}
}

// wayBack is the route to a pod from the one who was the last to reply.
type wayBack struct {
	from  netip.Addr
	route *stack.Route
}

func (w *wayBack) release() {
	if w.route != nil {
		w.route.Release()
	}
}

// to finds the route from somebody to the pod; nil: there is none.
func (w *wayBack) to(m *mapping, from netip.Addr) *stack.Route {
	if w.route != nil && w.from == from {
		return w.route
	}
	w.release()
	w.from = from
	var err any
	if w.route, err = m.stack.netns.FindRoute(nic, toStack(from), toStack(m.origin.src.Addr()), protocolOf(from), false); err != nil {
		w.route = nil
	}
	return w.route
}

func (m *mapping) reply(way *wayBack, from netip.AddrPort, data []byte) {
	shown, known := from, true
	if m.origin.ping.IsValid() {
		shown = netip.AddrPortFrom(m.origin.ping, 0)
	} else {
		shown, known = m.shown(from)
	}
	if !known { // it was not sent to
		m.stack.counters.dropped.Add(1)
		return
	}
	route := way.to(m, shown.Addr())
	if route == nil {
		return
	}
	if m.origin.ping.IsValid() {
		known = sendEchoReply(route, m.origin.src.Port(), data)
	} else {
		sendUDP(route, shown.Port(), m.origin.src.Port(), data)
	}
	if known {
		m.last.Store(time.Now().UnixNano())
		m.replied.Store(true)
		m.stack.counters.fetched.Add(uint64(len(data)))
	}
}

// reportErrors tells the pod of the errors that the mapping's datagrams met on their way, ip(7): IP_RECVERR, as those
// who met them said it. It returns how many there were.
func (m *mapping) reportErrors(fd int) (n int) {
	var data [mostQuoted]byte
	var control [512]byte
	for {
		size, controls, _, peer, err := unix.Recvmsg(fd, data[:], control[:], unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
		if err != nil {
			return n
		}
		n++
		if why, offender, told := parseError(control[:controls]); told {
			m.report(fromSockaddr(peer), offender, why, data[:size])
		}
	}
}

// report tells the pod of an error that offender found in a datagram to peer.
func (m *mapping) report(peer netip.AddrPort, offender netip.Addr, why reason, data []byte) {
	flow := flow{src: m.origin.src, protocol: m.protocol()}
	if flow.ping() {
		if len(data) < 8 {
			return
		}
		flow.dst = netip.AddrPortFrom(m.origin.ping, 0)
		header.ICMPv4(data).SetIdent(m.origin.src.Port()) // the kernel had put its own; in ICMPv6 it lies in the same place
	} else {
		known := false
		if flow.dst, known = m.shown(peer); !known {
			return
		}
	}
	m.stack.unreachableFrom(offender, flow, quote(flow, data), why)
}

// Where in the control message of an error things are: struct sock_extended_err of linux/errqueue.h, and after it the
// address of who found it.
const (
	errOrigin, errType, errCode = 4, 5, 6
	errOffender                 = 16
	fromICMP, fromICMP6         = 2, 3 // SO_EE_ORIGIN_ICMP, SO_EE_ORIGIN_ICMP6
)

// parseError reads what the kernel says of an error. Only what somebody on the way said is to be told; all else send(2)
// says. That a datagram was too large is the business of the host's kernel, which makes smaller fragments from then on.
func parseError(control []byte) (why reason, offender netip.Addr, told bool) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return reason{}, netip.Addr{}, false
	}
	for _, message := range messages {
		data := message.Data
		if len(data) < errOffender+16 || binary.NativeEndian.Uint32(data) == uint32(unix.EMSGSIZE) {
			continue
		}
		code := [2]byte{data[errType], data[errCode]}
		switch family := binary.NativeEndian.Uint16(data[errOffender:]); {
		case data[errOrigin] == fromICMP && family == unix.AF_INET:
			return reason{v4: code}, netip.AddrFrom4([4]byte(data[errOffender+4:])), true
		case data[errOrigin] == fromICMP6 && family == unix.AF_INET6 && len(data) >= errOffender+28:
			return reason{v6: code}, netip.AddrFrom16([16]byte(data[errOffender+8:])), true
		}
	}
	return reason{}, netip.Addr{}, false
}
