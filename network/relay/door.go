package relay

import (
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// door is a listening TCP socket as one loop sees it.
type door struct {
	loop  *loop
	port  *Port
	fd    int
	place int32
	shut  bool // it is not watched, until there is room
}

// acceptAtOnce bounds what is accepted before other events have their turn.
const acceptAtOnce = 16

// accept opens a door on the loop.
func (l *loop) accept(port *Port, fd int) error {
	d := &door{loop: l, port: port, fd: fd}
	d.place = l.place(d)
	if err := d.watch(); err != nil { // without room it is shut at the first client
		l.leave(d.place)
		return err
	}
	l.doors = append(l.doors, d)
	return nil
}

// watch lets clients in. EPOLLEXCLUSIVE (Linux 4.5) wakes one loop for a client, not both.
func (d *door) watch() error { return d.loop.watch(d.fd, d.place, 0, unix.EPOLLIN|unix.EPOLLEXCLUSIVE) }

func (d *door) end(port *Port) {
	if d.port != port {
		return
	}
	if d.shut {
		d.loop.shut--
	} else {
		_ = unix.EpollCtl(d.loop.epoll, unix.EPOLL_CTL_DEL, d.fd, nil)
	}
	d.loop.leave(d.place)
	d.loop.doors = slices.DeleteFunc(d.loop.doors, func(other *door) bool { return other == d })
}

func (d *door) ready(int, uint32) {
	l := d.loop
	for range acceptAtOnce {
		if !d.port.crowd.hasRoom() {
			d.close()
			l.resume() // if one ended meanwhile
			return
		}
		from := &l.packet.address
		fd, errno := accept4(d.fd, from)
		switch errno {
		case no:
			d.admit(fd, from.get())
		case unix.EAGAIN:
			return
		case unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM:
			d.close() // until a connection ends, or the next tick
			return
		case unix.EINVAL, unix.EBADF, unix.ENOTSOCK, unix.EOPNOTSUPP:
			d.end(d.port) // it listens no longer: someone shut it down
			return
		}
		// The others are the client's errors: accept(2).
	}
}

// admit begins with a client, if it has not its share already.
func (d *door) admit(fd int, client netip.AddrPort) {
	if !d.port.crowd.admit(household(client.Addr())) {
		d.port.crowd.refuse()
		reset(fd)
		return
	}
	newStream(d.loop, d.port, fd, client).dial()
}

// close stops accepting: clients wait in the backlog.
func (d *door) close() {
	if d.shut {
		return
	}
	_ = unix.EpollCtl(d.loop.epoll, unix.EPOLL_CTL_DEL, d.fd, nil)
	d.shut = true
	d.loop.shut++
	d.loop.relay.starved.Store(true)
}

// open accepts again.
func (d *door) open() {
	if !d.shut {
		return
	}
	d.shut = false
	d.loop.shut--
	if d.watch() != nil {
		d.end(d.port)
	}
}

// resume opens the doors of those who have room again.
func (l *loop) resume() {
	if l.shut == 0 {
		return
	}
	for _, d := range slices.Clone(l.doors) {
		if d.shut && d.port.crowd.hasRoom() {
			d.open()
		}
	}
	if l.shut > 0 {
		l.relay.starved.Store(true)
	}
}
