package relay

import (
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// The two sides of a stream, and the flows that begin there.
const (
	host = iota
	pod
)

// stream is a client's TCP connection and its continuation in the pod.
type stream struct {
	loop    *loop
	port    *Port
	client  netip.Addr // whose place it has
	place   int32
	state   state
	queued  bool   // in loop.again
	moved   bool   // something was read or written since expire looked
	left    [2]int // unsent on both sides, then
	sides   [2]side
	flows   [2]flow
	dialler *dialler // while dialling
}

type state uint8

const (
	waiting state = iota // for a socket of the pod's
	dialling
	open
	closed
)

// side is one of the two sockets. Epoll is edge-triggered: it tells of changes, and what holds is kept here.
type side struct {
	fd       int
	watched  bool
	armed    bool // EPOLLOUT is watched for as well
	readable bool
	writable bool
	broken   bool // reset, or timed out: nobody is there any more
	urgent   bool // has been read, or is to come
	// shortReads: to read less than asked for does not mean that there is no more. The end may follow, or what
	// comes after urgent data, where a read stops: tcp(7).
	shortReads bool
}

const (
	watchIn  = unix.EPOLLIN | unix.EPOLLPRI | unix.EPOLLRDHUP | unix.EPOLLET
	watchOut = watchIn | unix.EPOLLOUT
)

// note takes in what epoll says.
func (s *side) note(events uint32) {
	const hangup = unix.EPOLLRDHUP | unix.EPOLLHUP | unix.EPOLLERR
	s.broken = s.broken || events&unix.EPOLLERR != 0
	s.shortReads = s.shortReads || events&(hangup|unix.EPOLLPRI) != 0
	s.readable = s.readable || events&(hangup|unix.EPOLLIN|unix.EPOLLPRI) != 0
	s.writable = s.writable || events&(unix.EPOLLOUT|unix.EPOLLERR|unix.EPOLLHUP) != 0
	s.urgent = s.urgent || events&unix.EPOLLPRI != 0
}

func newStream(l *loop, port *Port, fd int, client netip.AddrPort) *stream {
	s := &stream{loop: l, port: port, client: household(client.Addr()), dialler: &dialler{client: client, routes: port.routes(client.Addr())}}
	s.sides[host] = side{fd: fd, writable: true}
	s.sides[pod] = side{fd: -1, writable: true}
	s.place = l.place(s)
	port.connections.Add(1)
	port.open.Add(1)
	return s
}

// dial connects to the service, by the first route that does not fail at once.
func (s *stream) dial() {
	for {
		s.state = waiting
		fd, ready := s.port.stockOf(s.dialler.family()).take(s.loop, s.supplied)
		if !ready {
			s.loop.await(s, s.loop.relay.times.dial)
			s.watchHost()
			return
		}
		if !s.try(fd) {
			return
		}
	}
}

// supplied goes on with a socket that had to be waited for.
func (s *stream) supplied(fd int, err error) {
	switch {
	case s.state == closed && err == nil:
		unix.Close(fd)
	case s.state == closed:
	case err != nil:
		s.refuse()
	case s.try(fd):
		s.dial()
	}
}

// try connects fd, and says whether the next route is to be tried.
func (s *stream) try(fd int) (again bool) {
	s.sides[pod] = side{fd: fd, writable: true}
	switch errno := s.dialler.connect(s.loop, fd, s.port.target.Port); errno {
	case no:
		s.connected()
		return false
	case unix.EALREADY:
		s.state = dialling
		s.loop.await(s, s.loop.relay.times.dial)
		s.watchHost()
		if s.state == dialling && !s.watch(pod, watchOut) {
			s.refuse()
		}
		return false
	default:
		return s.failed(errno)
	}
}

// failed closes the pod's socket, and says whether the next route is to be tried; else the stream has ended.
func (s *stream) failed(errno syscall.Errno) bool {
	unix.Close(s.sides[pod].fd)
	s.sides[pod].fd = -1
	if s.dialler.next(errno) {
		return true
	}
	s.refuse()
	return false
}

// refuse ends a stream that found no service.
func (s *stream) refuse() {
	s.port.refused.Add(1)
	s.close(reset)
}

func (s *stream) connected() {
	s.state = open
	s.dialler = nil
	delete(s.loop.awaited, s)
	s.watchHost()
	if s.state == open && !s.watch(pod, watchIn) {
		s.close(reset)
	}
	if s.state == open && s.sides[host].readable {
		s.pump()
	}
}

// watchHost begins to watch the client.
func (s *stream) watchHost() {
	if s.state != closed && !s.watch(host, watchIn) {
		s.close(reset)
	}
}

// watch watches a side for events, from now on or besides those it is watched for.
func (s *stream) watch(at int, events uint32) bool {
	side := &s.sides[at]
	op := unix.EPOLL_CTL_ADD
	if side.watched {
		if events != watchOut || side.armed {
			return true
		}
		op = unix.EPOLL_CTL_MOD
	}
	side.watched, side.armed = true, events == watchOut
	return s.loop.control(op, side.fd, s.place, at, events) == nil
}

func (s *stream) ready(at int, events uint32) {
	s.sides[at].note(events)
	switch {
	case s.state == open:
		s.pump()
	case at == host && s.sides[host].broken:
		s.close(reset)
	case at == pod && s.state == dialling:
		s.dialled()
	}
}

// dialled looks how a connect ended.
func (s *stream) dialled() {
	errno, err := unix.GetsockoptInt(s.sides[pod].fd, unix.SOL_SOCKET, unix.SO_ERROR)
	switch {
	case err == nil && errno == 0 && s.sides[pod].writable:
		s.connected()
	case err == nil && errno == 0: // nothing yet
	case s.failed(syscall.Errno(errno)):
		s.dial()
	}
}

// pump moves on what can be moved.
func (s *stream) pump() {
	if s.state != open {
		return
	}
	again := s.flow(host)
	again = s.flow(pod) || again
	if s.sides[host].broken && !s.flows[host].passed { // which may have come out just now
		again = s.flow(host) || again
	}
	for from := range s.flows {
		if s.sides[1-from].broken {
			s.flows[from].cut(s.loop)
		}
	}
	switch {
	case again && !s.queued:
		s.queued = true
		s.loop.again = append(s.loop.again, s)
	case again:
	case s.flows[host].passed && s.flows[pod].passed:
		s.finish()
	case s.sides[host].broken || s.sides[pod].broken:
		s.loop.await(s, s.loop.relay.times.stuck)
	}
}

func (p *Port) stockOf(family int) *stock {
	if family == unix.AF_INET {
		return p.stocks[0]
	}
	return p.stocks[1]
}
