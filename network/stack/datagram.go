package stack

import (
	"errors"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

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
	route, err := m.stack.netns.FindRoute(nic, toStack(from), toStack(m.origin.src.Addr()), protocolOf(from), false)
	if err != nil {
		route = nil
	}
	w.route = route
	return route
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
