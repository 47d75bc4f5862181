package relay

import (
	"time"

	"golang.org/x/sys/unix"
)

// How a stream ends. One of its two ends may be gone long before the other has got all that it left: who is gone
// is told by the kernel's keepalive, or by a reset. Then the other is served to its end as long as it takes
// something now and then, and the place is given back; what the kernel still has to send it sends by itself, as it
// does for a program that has closed a socket.

// cut ends a flow whose destination is gone: what is on its way is nobody's.
func (f *flow) cut(l *loop) {
	f.ended, f.passed = true, true
	f.drop(l)
}

// await gives the stream a time by which something has to have happened, if it has none.
func (l *loop) await(s *stream, within time.Duration) {
	if _, has := l.awaited[s]; !has {
		l.awaited[s] = l.now() + within
	}
}

// expire ends a stream for which nothing has happened in time.
func (s *stream) expire() {
	if s.state != open {
		s.refuse()
		return
	}
	// The kernel tells that there is room again when there is much of it: with a slow reader that can take long.
	left := [2]int{unsent(s.sides[host].fd), unsent(s.sides[pod].fd)}
	if !s.moved && left == s.left {
		s.close(reset)
		return
	}
	s.moved, s.left = false, left
	delete(s.loop.awaited, s)
	s.loop.await(s, s.loop.relay.times.stuck)
}

// finish ends a stream both of whose flows have passed.
func (s *stream) finish() {
	torn := [2]bool{s.isTorn(host), s.isTorn(pod)}
	s.closeEach(func(at, fd int) {
		if torn[1-at] {
			reset(fd)
		} else {
			unix.Close(fd)
		}
	})
}

// isTorn says whether the other end is to see an error: this one broke off before its end, or did not want what came
// afterwards. A reset discards what the kernel has not sent: in the second case that goes first.
func (s *stream) isTorn(at int) bool {
	other := s.sides[1-at].fd
	return s.flows[at].torn || s.flows[1-at].late && s.sides[at].broken && unsent(other) == 0
}

// close ends the stream; how closes a socket.
func (s *stream) close(how func(fd int)) { s.closeEach(func(_, fd int) { how(fd) }) }

func (s *stream) closeEach(how func(at, fd int)) {
	if s.state == closed {
		return
	}
	s.state = closed
	for i := range s.sides {
		s.flows[i].drop(s.loop)
		if fd := s.sides[i].fd; fd >= 0 {
			how(i, fd)
		}
	}
	delete(s.loop.awaited, s)
	s.loop.leave(s.place)
	s.port.open.Add(^uint64(0))
	s.port.crowd.release(s.client)
	s.loop.relay.released()
}

func (s *stream) end(port *Port) {
	if s.port == port {
		s.close(reset)
	}
}
