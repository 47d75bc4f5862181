package relay

import (
	"container/list"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// binding is a UDP socket of the host. Its clients have sessions.
type binding struct {
	loop     *loop
	port     *Port
	fd       int
	place    int32
	sessions map[client]*session
	recent   *list.List                // of sessions: the idlest last
	own      map[netip.Addr]*list.List // of each household's
	deaf     chan struct{}             // not nil: it hears nothing; closed when it does
	asked    time.Duration             // when the pod was asked for its ports
}

// client is whom a session is for: who wrote, and to which of the host's addresses.
type client struct {
	from  netip.AddrPort
	local netip.Addr
	scope uint32 // the link, if from is a link-local address
}

// session is a UDP client's socket in the pod, for as long as there is traffic.
type session struct {
	binding *binding
	client  client
	dialler dialler
	fd      int // -1: waiting for one
	place   int32
	name    sockaddr // the client's, as the listener knows it
	source  []byte   // the control message that has replies come from client.local
	first   []byte   // the first datagram, while it may have to be sent again
	replied bool
	closed  bool
	last    time.Duration // of traffic, by loop.now
	recent  *list.Element
	own     *list.Element
	peers   *list.List // those of its client: own is there
}

const datagramsAtOnce = 64 // before other events have their turn

// receive serves a UDP socket on the loop.
func (l *loop) receive(port *Port, fd int) error {
	b := &binding{loop: l, port: port, fd: fd, sessions: map[client]*session{}, recent: list.New(), own: map[netip.Addr]*list.List{}}
	b.place = l.place(b)
	b.wasDeaf()
	if err := l.watch(fd, b.place, 0, unix.EPOLLIN); err != nil {
		l.leave(b.place)
		return err
	}
	l.bindings = append(l.bindings, b)
	return nil
}

func (b *binding) end(port *Port) {
	if b.port != port {
		return
	}
	for _, s := range b.sessions {
		s.close()
	}
	b.hear()
	_ = unix.EpollCtl(b.loop.epoll, unix.EPOLL_CTL_DEL, b.fd, nil)
	b.loop.leave(b.place)
	b.loop.bindings = slices.DeleteFunc(b.loop.bindings, func(other *binding) bool { return other == b })
}

// ready brings clients' datagrams to their sessions.
func (b *binding) ready(int, uint32) {
	p := &b.loop.packet
	now := b.loop.now()
	for range datagramsAtOnce {
		n, errno := p.receive(b.fd, b.loop.buffer)
		if errno == unix.EAGAIN {
			return
		} else if errno != no {
			continue // of an earlier reply, which a client did not want
		}
		who := client{from: p.address.get(), local: p.local()}
		if a := who.from.Addr(); a.Is6() && a.IsLinkLocalUnicast() {
			who.scope = p.address.scope()
		}
		s := b.sessions[who]
		if s == nil {
			if s = b.begin(who); s == nil {
				continue
			}
			s.last = now
			s.first = append([]byte{}, b.loop.buffer[:n]...)
			s.dial()
			continue
		}
		s.touch(now)
		s.forward(b.loop.buffer[:n])
	}
}

// begin makes a session, nil if there is no place for one.
func (b *binding) begin(who client) *session {
	from := household(who.from.Addr())
	if !b.makeRoom(from) {
		b.port.crowd.refuse()
		return nil
	}
	s := &session{
		binding: b, client: who, fd: -1, name: b.loop.packet.address, source: b.loop.packet.source(),
		dialler: dialler{client: who.from, routes: b.port.routes(who.from.Addr())},
	}
	s.place = b.loop.place(s)
	s.recent = b.recent.PushFront(s)
	if b.own[from] == nil {
		b.own[from] = list.New()
	}
	s.peers = b.own[from]
	s.own = s.peers.PushFront(s)
	b.sessions[who] = s
	b.loop.sessions++
	b.port.connections.Add(1)
	b.port.open.Add(1)
	return s
}

// makeRoom takes a place for a client: in the place of its own idlest session, if it has its share; if it has nothing
// anywhere, and all is taken, of the idlest of all.
func (b *binding) makeRoom(from netip.Addr) bool {
	crowd := b.port.crowd
	if crowd.admit(from) {
		return true
	}
	idlest := b.recent
	if own := b.own[from]; own != nil {
		idlest = own
	}
	if idlest.Len() == 0 || idlest == b.recent && crowd.has(from) {
		return false
	}
	idlest.Back().Value.(*session).close()
	return crowd.admit(from)
}

func (s *session) touch(now time.Duration) {
	s.last = now
	s.binding.recent.MoveToFront(s.recent)
	s.peers.MoveToFront(s.own)
}

// dial sends the first datagram by the first route that takes it.
func (s *session) dial() {
	for !s.closed {
		fd, ready := s.binding.port.stockOf(s.dialler.family()).take(s.binding.loop, s.supplied)
		if !ready {
			return
		}
		if !s.try(fd) {
			return
		}
	}
}

// supplied goes on with a socket that had to be waited for.
func (s *session) supplied(fd int, err error) {
	switch {
	case s.closed && err == nil:
		unix.Close(fd)
	case s.closed:
	case err != nil:
		s.refuse()
	case s.try(fd):
		s.dial()
	}
}

// try connects fd, and says whether the next route is to be tried.
func (s *session) try(fd int) (again bool) {
	l, port := s.binding.loop, s.binding.port
	errno := s.dialler.connect(l, fd, port.target.Port)
	if errno == no {
		s.fd = fd
		if l.watch(fd, s.place, 0, unix.EPOLLIN) != nil {
			s.close()
			return false
		}
		if s.first != nil {
			s.transmit(s.first)
		}
		return false
	}
	unix.Close(fd)
	if s.dialler.next(errno) {
		return true
	}
	s.refuse()
	return false
}

// forward sends a datagram on to the service. As any network, it loses what comes too fast.
func (s *session) forward(p []byte) {
	if s.fd < 0 {
		return
	}
	errno := s.transmit(p)
	if errno == unix.ECONNREFUSED { // the datagram before was
		if s.refused(); s.fd < 0 {
			return
		}
		errno = s.transmit(p)
	}
	if errno == no {
		s.first = nil
	}
}

// transmit sends p and counts it.
func (s *session) transmit(p []byte) syscall.Errno {
	n, errno := send(s.fd, p, false)
	if errno == no {
		s.binding.port.bytesIn.Add(uint64(n))
	}
	return errno
}

// refused takes in that no one is there: the first datagram is sent by the next route, and any other ends the
// session.
func (s *session) refused() {
	if s.first == nil {
		s.close()
		s.binding.deafen()
		return
	}
	unix.Close(s.fd)
	s.fd = -1
	if s.dialler.next(unix.ECONNREFUSED) {
		s.dial()
	} else {
		s.refuse()
	}
}

func (s *session) refuse() {
	s.binding.port.refused.Add(1)
	s.close()
	s.binding.deafen()
}

// ready brings the service's replies to the client.
func (s *session) ready(int, uint32) {
	b := s.binding
	for range datagramsAtOnce {
		n, errno := recv(s.fd, b.loop.buffer)
		switch errno {
		case no:
		case unix.EAGAIN:
			return
		case unix.ECONNREFUSED:
			s.refused()
			return
		default:
			s.close()
			return
		}
		s.first, s.replied = nil, true
		s.touch(b.loop.now())
		if b.loop.packet.send(b.fd, &s.name, s.source, b.loop.buffer[:n]) == no {
			b.port.bytesOut.Add(uint64(n))
		}
	}
}

func (s *session) close() {
	if s.closed {
		return
	}
	s.closed = true
	if s.fd >= 0 {
		unix.Close(s.fd)
		s.fd = -1
	}
	b := s.binding
	delete(b.sessions, s.client)
	b.recent.Remove(s.recent)
	from := household(s.client.from.Addr())
	if s.peers.Remove(s.own); s.peers.Len() == 0 {
		delete(b.own, from)
	}
	b.loop.sessions--
	b.loop.leave(s.place)
	b.port.open.Add(^uint64(0))
	b.port.crowd.release(from)
}

func (s *session) end(port *Port) {
	if s.binding.port == port {
		s.close()
	}
}

// sweep ends the sessions that had no traffic for too long.
func (b *binding) sweep(now time.Duration) {
	t := &b.loop.relay.times
	for _, s := range b.sessions {
		idle := now - s.last
		if idle >= t.answered || idle >= t.unanswered && !s.replied {
			s.close()
		} else if idle >= t.tick {
			s.first = nil // a refusal comes at once, or not at all
		}
	}
}
