package relay

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// flow is one direction of a stream. What was read and can't be written yet is in rest or in the pipe, at most
// one of both; while there is any, no more is read, so that a client that does not read stops its service.
type flow struct {
	rest   []byte // not written yet
	pipe   pipe
	piped  int  // bytes in the pipe
	bulk   bool // there is a pipe
	full   int8 // how often in a row a read filled the buffer
	urgent bool // rest is a byte of urgent data, tcp(7)
	ended  bool // the source has said all
	torn   bool // no: it was broken off
	passed bool // and the destination knows
	late   bool // something came after the other flow's end
}

const (
	bulkAfter = 2        // full reads: then pages are spliced rather than copied
	quiet     = 32 << 10 // bytes between two pauses: then the pipe is given back
	turn      = 1 << 20  // bytes that a flow moves before others have their turn
)

// flow moves on what comes from one side; again: it has had its turn, and there may be more.
func (s *stream) flow(from int) (again bool) {
	f, src, dst := &s.flows[from], &s.sides[from], &s.sides[1-from]
	moved := 0
	for s.flush(f, 1-from) && !f.passed {
		if f.ended {
			f.passed = true
			f.drop(s.loop)
			if !f.torn && !s.flows[1-from].passed { // else finish says it
				_ = unix.Shutdown(dst.fd, unix.SHUT_WR) // ENOTCONN: it is broken, and will say so
			}
			break
		}
		if moved >= turn && src.readable {
			again = true
			break
		}
		n := 0
		if src.readable {
			n = s.read(f, src, moved > 0)
		}
		if n == 0 && !f.ended {
			if f.bulk && moved < quiet {
				f.drop(s.loop)
			}
			break
		}
		moved += n
		if n > 0 && (!f.bulk || f.urgent) {
			s.write(f, 1-from, s.loop.buffer[:n])
		}
	}
	if moved > 0 {
		s.moved = true
		f.late = f.late || s.flows[1-from].ended
		if from == host {
			s.port.bytesIn.Add(uint64(moved))
		} else {
			s.port.bytesOut.Add(uint64(moved))
		}
	}
	return again
}

// read takes in what there is, into the pipe or the loop's buffer. A read stops at urgent data, and one that begins
// there would take it for data like any other; splice would wait for ever. So it is looked for where there has been
// any, and in a read that goes on.
func (s *stream) read(f *flow, src *side, goesOn bool) int {
	var n int
	var errno syscall.Errno
	if (src.urgent || goesOn) && atMark(src.fd) {
		n, errno = recv(src.fd, s.loop.buffer[:1])
		f.urgent = n == 1
		return s.hasRead(f, src, n, errno)
	}
	if f.full >= bulkAfter && !f.bulk {
		f.pipe, f.bulk = s.loop.pipes.take()
		f.full = 0
	}
	if f.bulk {
		n, errno = splice(src.fd, f.pipe.write, pipeSize)
		f.piped = max(n, 0)
	} else {
		n, errno = recv(src.fd, s.loop.buffer)
	}
	return s.hasRead(f, src, n, errno)
}

// hasRead takes in how a read went, and returns how much there is.
func (s *stream) hasRead(f *flow, src *side, n int, errno syscall.Errno) int {
	switch {
	case errno == no && n == 0:
		f.ended = true
	case errno == unix.EAGAIN:
		src.readable, n = false, 0
	case errno != no:
		f.ended, f.torn, src.broken, n = true, true, true, 0
	case f.bulk, f.urgent:
	case n == len(s.loop.buffer):
		f.full = min(f.full+1, bulkAfter)
	default: // less than asked for is all there is: epoll(7)
		f.full = 0
		src.readable = src.shortReads
	}
	return n
}

// write sends p; what does not go is kept.
func (s *stream) write(f *flow, to int, p []byte) {
	n, errno := send(s.sides[to].fd, p, f.urgent)
	if errno != no {
		if n = 0; !s.stuck(f, to, errno) {
			return
		}
	}
	if n < len(p) {
		f.rest = append([]byte(nil), p[n:]...)
	} else {
		f.urgent = false
	}
}

// flush writes what is kept, and says whether nothing is left.
func (s *stream) flush(f *flow, to int) bool {
	dst := &s.sides[to]
	for len(f.rest) > 0 || f.piped > 0 {
		if !dst.writable {
			return false
		}
		var n int
		var errno syscall.Errno
		if f.piped > 0 {
			n, errno = splice(f.pipe.read, dst.fd, f.piped)
		} else {
			n, errno = send(dst.fd, f.rest, f.urgent)
		}
		switch {
		case errno != no:
			s.stuck(f, to, errno)
			continue
		case f.piped > 0:
			f.piped -= n
		default:
			f.rest = f.rest[n:]
		}
		s.moved = true
	}
	f.rest, f.urgent = nil, false
	return true
}

// stuck takes in that a write failed, and says whether it may be tried again later.
func (s *stream) stuck(f *flow, to int, errno syscall.Errno) bool {
	dst := &s.sides[to]
	if errno == unix.EAGAIN {
		dst.writable = false
		if s.watch(to, watchOut) { // which tells at once if it is writable by now
			return true
		}
	}
	// What it has said before is still to be read. EPIPE: that was all, it had ended before it broke.
	dst.broken, dst.readable, dst.shortReads = true, true, true
	s.flows[to].torn = s.flows[to].torn || errno != unix.EPIPE
	f.cut(s.loop)
	return false
}

// drop forgets what is kept, and gives the pipe back.
func (f *flow) drop(l *loop) {
	if f.bulk {
		l.pipes.give(f.pipe, f.piped == 0)
	}
	f.rest, f.bulk, f.piped, f.urgent = nil, false, 0, false
}
