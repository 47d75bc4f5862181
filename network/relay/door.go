package relay

import (
	"slices"

	"golang.org/x/sys/unix"
)

// door is a listening TCP socket as one loop sees it.
type door struct {
	loop  *loop
	port  *Port
	fd    int
	place int32
}

// acceptAtOnce bounds what is accepted before other events have their turn.
const acceptAtOnce = 16

// accept opens a door on the loop.
func (l *loop) accept(port *Port, fd int) error {
	d := &door{loop: l, port: port, fd: fd}
	d.place = l.place(d)
	if err := d.open(); err != nil {
		l.leave(d.place)
		return err
	}
	l.doors = append(l.doors, d)
	return nil
}

// open lets clients in. EPOLLEXCLUSIVE (Linux 4.5) wakes one loop for a client, not both.
func (d *door) open() error {
	if d.loop.paused {
		return nil // resume does it
	}
	return d.loop.watch(d.fd, d.place, 0, unix.EPOLLIN|unix.EPOLLEXCLUSIVE)
}

func (d *door) shut() {
	if !d.loop.paused {
		_ = unix.EpollCtl(d.loop.epoll, unix.EPOLL_CTL_DEL, d.fd, nil)
	}
}

func (d *door) end(port *Port) {
	if d.port != port {
		return
	}
	d.shut()
	d.loop.leave(d.place)
	d.loop.doors = slices.DeleteFunc(d.loop.doors, func(other *door) bool { return other == d })
}

func (d *door) ready(int, uint32) {
	l := d.loop
	for range acceptAtOnce {
		if !l.relay.admit() {
			l.pause()
			l.resume() // if one ended meanwhile
			return
		}
		from := &l.packet.address
		fd, errno := accept4(d.fd, from)
		if errno == no {
			newStream(l, d.port, fd, from.get()).dial()
			continue
		}
		l.relay.release()
		switch errno {
		case unix.EAGAIN:
			return
		case unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM:
			l.pause() // until a connection ends, or the next tick
			return
		case unix.EINVAL, unix.EBADF, unix.ENOTSOCK, unix.EOPNOTSUPP:
			d.end(d.port) // it listens no longer: someone shut it down
			return
		}
		// The others are the client's errors: accept(2).
	}
}

// pause stops accepting: clients wait in the backlog.
func (l *loop) pause() {
	if l.paused {
		return
	}
	for _, d := range l.doors {
		d.shut()
	}
	l.paused = true
	l.relay.starved.Store(true)
}

// resume accepts again.
func (l *loop) resume() {
	if !l.paused || l.relay.open.Load() >= l.relay.limit {
		return
	}
	l.paused = false
	for _, d := range slices.Clone(l.doors) {
		if d.open() != nil {
			d.end(d.port)
		}
	}
}
