package stack

import (
	"errors"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/waiter"
)

// up copies from the pod to the host. The data goes from the packet to write(2): ReadTo calls Write under the
// endpoint's lock, which therefore never blocks.
func (c *connection) up() error {
	readable, events := waiter.NewChannelEntry(waiter.ReadableEvents | waiter.EventHUp | waiter.EventErr)
	c.events.EventRegister(&readable)
	defer c.events.EventUnregister(&readable)
	conn, err := c.host.SyscallConn()
	if err != nil {
		return err
	}
	w := hostWriter{urgent: &c.attempt.up}
	var result tcpip.Error
	move := func(fd uintptr) bool {
		w.fd = int(fd)
		for {
			var got tcpip.ReadResult
			got, result = c.pod.Read(&w, tcpip.ReadOptions{})
			c.stack.counters.sent.Add(uint64(got.Count))
			if got.Count > 0 && c.orphan.Load() {
				c.patient()
			}
			switch {
			case w.err == unix.EAGAIN:
				w.err = nil
				return false
			case w.err != nil || result != nil:
				return true
			}
		}
	}
	for {
		if err := conn.Write(move); err != nil {
			return err
		}
		if w.err != nil {
			return w.err
		}
		switch result.(type) {
		case *tcpip.ErrWouldBlock:
			<-events
		case *tcpip.ErrClosedForReceive:
			c.sent.Store(true) // before the host's side can have ended for that, see hostGone
			c.probeAfter(c.stack.limits.interval)
			err := c.host.CloseWrite()
			if errors.Is(err, unix.ENOTCONN) { // the other end has gone already; down learns of it
				return nil
			}
			return err
		default:
			return podError{result}
		}
	}
}

// down copies from the host to the pod, read(2) straight into what will be a packet.
func (c *connection) down() error {
	writable, events := waiter.NewChannelEntry(waiter.WritableEvents | waiter.EventHUp | waiter.EventErr)
	c.events.EventRegister(&writable)
	defer c.events.EventUnregister(&writable)
	conn, err := c.host.SyscallConn()
	if err != nil {
		return err
	}
	if err := inline(conn); err != nil {
		return err
	}
	r := hostReader{urgent: &c.attempt.down}
	var result tcpip.Error
	move := func(fd uintptr) bool {
		r.fd = int(fd)
		for {
			if r.err = r.look(); r.err != nil {
				again := r.err == unix.EAGAIN
				return !again
			}
			c.fit(r.left)
			var n int64
			n, result = c.pod.Write(&r, tcpip.WriteOptions{})
			c.stack.counters.fetched.Add(uint64(n))
			r.urgent.copied(int(n))
			if r.err != nil || result != nil {
				return true
			}
		}
	}
	for {
		if err := conn.Read(move); c.orphan.Load() && errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		} else if err != nil {
			return err
		}
		if r.err == io.EOF {
			c.pod.Shutdown(tcpip.ShutdownWrite)
			return c.hostGone(conn)
		}
		if r.err != nil {
			return r.err
		}
		switch result.(type) {
		case *tcpip.ErrWouldBlock:
			<-events
		case *tcpip.ErrClosedForSend: // the pod had said all, and has gone: podGone sees to it
			return nil
		default:
			return podError{result}
		}
	}
}

// errHostGone says that the host's side is not there any more.
var errHostGone = errors.New("the host's side has gone")

// hostGone waits until up is at its end, too: nil; or until the host's side is gone. Who neither reads nor writes would
// not hear of that, be it a RST or that the kernel's probes are not answered.
func (c *connection) hostGone(conn syscall.RawConn) error {
	for c.fetched.Store(true); !c.sent.Load() && !c.orphan.Load(); {
		err := conn.Read(func(fd uintptr) bool {
			info, err := unix.GetsockoptTCPInfo(int(fd), unix.SOL_TCP, unix.TCP_INFO)
			return err != nil || info.State == unix.BPF_TCP_CLOSE
		})
		if !errors.Is(err, os.ErrDeadlineExceeded) && !c.sent.Load() {
			return errors.Join(errHostGone, err)
		}
	}
	return nil
}

// fit gives the buffer towards the pod a size for what comes in pieces of n bytes. It counts their bytes, but
// each takes 700 more while it waits: a sender of single bytes, and a pod that reads none of them, would
// otherwise make us hold a thousandfold. While the small buffer is full they grow together in the host's socket.
func (c *connection) fit(n int) {
	size := c.attempt.tier.buffer
	if c.pieces++; n >= pieceBuffer {
		c.pieces = 0
	} else if c.pieces > 64 {
		size = pieceBuffer
	}
	c.pod.SocketOptions().SetSendBufferSize(size, false)
}

// podError is why the pod's side of a connection ended.
type podError struct{ cause tcpip.Error }

func (e podError) Error() string { return e.cause.String() }

// hostWriter writes to a non-blocking socket of the host.
type hostWriter struct {
	fd     int
	err    error
	urgent *urgent
}

func (w *hostWriter) Write(data []byte) (int, error) {
	done := 0
	for done < len(data) {
		part, urgent := w.urgent.cut(data[done:])
		n, err := sendOn(w.fd, part, urgent)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			w.err = err
			return done, err
		}
		w.urgent.copied(n)
		done += n
	}
	return done, nil
}

// hostReader reads what look has seen in a non-blocking socket of the host. Its size has to be known before:
// the packet is made for it, and one of 64 kB for each small message would hold too much.
type hostReader struct {
	fd     int
	left   int
	done   int // since look
	err    error
	urgent *urgent
}

// maxRead is what fits one segment of the stack's, which need not be split then.
const maxRead = 64000

// look finds out how much there is to read: io.EOF at the end, EAGAIN if nothing yet.
func (r *hostReader) look() error {
	n, err := unix.IoctlGetInt(r.fd, unix.SIOCINQ)
	if err == nil && n == 0 {
		var one [1]byte
		n, _, err = unix.Recvfrom(r.fd, one[:], unix.MSG_PEEK)
		if err == nil && n == 0 {
			return io.EOF
		}
		if err == nil {
			n, err = unix.IoctlGetInt(r.fd, unix.SIOCINQ) // it came meanwhile
			n = max(n, 1)
		}
	}
	r.left, r.done = min(n, maxRead), 0
	return err
}

// Len implements tcpip.Payloader.
func (r *hostReader) Len() int { return r.left }

// Read has all that Len says: gVisor asks again and again until it has that, whatever the error. A read stops at urgent
// data, so what is urgent is where one begins.
func (r *hostReader) Read(space []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	if len(space) == 0 {
		return 0, nil
	}
	if atMark(r.fd) {
		r.urgent.come(r.done)
	}
	n, err := unix.Read(r.fd, space[:min(len(space), r.left)])
	for err == unix.EAGAIN || err == unix.EINTR { // at urgent data, when a signal was pending: tcp_recvmsg of net/ipv4/tcp.c
		n, err = unix.Read(r.fd, space[:min(len(space), r.left)])
	}
	if err == nil && n == 0 {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		r.err = err
		return 0, err
	}
	r.left -= n
	r.done += n
	return n, nil
}
