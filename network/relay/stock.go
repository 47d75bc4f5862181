package relay

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// stock keeps a few of a pod's sockets ready. To make one is a question to another process, which may be slow
// or stopped: that is asked by a goroutine of the stock's own, never by a loop. The more are taken at a time,
// the more are made at a time.
type stock struct {
	key       stockKey
	keepalive keepalive
	users     int           // under Relay.mu
	empty     chan struct{} // there is something to make

	mu      sync.Mutex
	fds     []int
	waiting []func(fd int, err error)
	batch   int
	closed  bool
}

// stockKey is what makes sockets alike: all ports of a pod share a stock.
type stockKey struct {
	sockets      Sockets
	family, kind int
}

const (
	maxBatch = 32              // sockets made at a time, and kept
	stale    = 5 * time.Second // without a client, they are closed
)

var errNone = errors.New("no socket was made")

func newStock(key stockKey, service keepalive) *stock {
	s := &stock{key: key, keepalive: service, batch: 1, empty: make(chan struct{}, 1)}
	go s.fill()
	return s
}

// take returns a socket if one is ready. Otherwise, once there is one, or an error, loop calls later: then fd
// is later's to close. A closed stock or loop never does.
func (s *stock) take(l *loop, later func(fd int, err error)) (fd int, ready bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.fds)
	if n <= s.batch/2 {
		l.yield = true
		s.nudge()
	}
	if n > 0 {
		fd = s.fds[n-1]
		s.fds = s.fds[:n-1]
		return fd, true
	}
	s.batch = min(2*s.batch, maxBatch)
	s.waiting = append(s.waiting, func(fd int, err error) {
		if !l.post(func() { later(fd, err) }) && err == nil {
			unix.Close(fd)
		}
	})
	return -1, false
}

// fill makes sockets whenever there are few, until the stock is closed.
func (s *stock) fill() {
	idle := time.NewTimer(stale)
	defer idle.Stop()
	for {
		select {
		case _, open := <-s.empty:
			if !open {
				return
			}
			s.make()
			idle.Reset(stale)
		case <-idle.C:
			s.mu.Lock()
			closeAll(s.fds)
			s.fds, s.batch = nil, 1
			s.mu.Unlock()
		}
	}
}

// make makes a batch, and hands it to those who wait first.
func (s *stock) make() {
	s.mu.Lock()
	count := max(s.batch-len(s.fds), min(len(s.waiting), maxBatch))
	s.mu.Unlock()
	if count == 0 {
		return // whoever comes to wait from now on nudges again
	}
	fds, err := s.key.sockets.Make(s.key.family, s.key.kind, count)
	for i := 0; err == nil && i < len(fds); i++ {
		err = s.prepare(fds[i])
	}
	if err == nil && len(fds) == 0 {
		err = errNone
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil || s.closed {
		closeAll(fds)
		fds = nil
	}
	s.fds = append(s.fds, fds...)
	for len(s.waiting) > 0 && (err != nil || len(s.fds) > 0) {
		fd := -1
		if n := len(s.fds); err == nil {
			fd = s.fds[n-1]
			s.fds = s.fds[:n-1]
		}
		s.waiting[0](fd, err)
		s.waiting = s.waiting[1:]
	}
	if len(s.waiting) > 0 && !s.closed {
		s.nudge()
	}
}

// nudge has fill look at the stock.
func (s *stock) nudge() {
	select {
	case s.empty <- struct{}{}:
	default: // it is about to
	}
}

// prepare sets what needs no privilege.
func (s *stock) prepare(fd int) error {
	// The client's port may be one that another of its connections has here, or that lingers in TIME_WAIT;
	// and a service that comes to bind it must not find it taken.
	err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if err == nil && s.key.kind == unix.SOCK_STREAM {
		err = errors.Join(unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1),
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_OOBINLINE, 1), s.keepalive.set(fd))
	}
	if err != nil {
		return fmt.Errorf("setsockopt on a socket of the pod's: %w", err)
	}
	return nil
}

// close frees what is there. Those who wait are gone by then.
func (s *stock) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	close(s.empty)
	closeAll(s.fds)
	s.fds, s.waiting = nil, nil
}
