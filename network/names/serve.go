package names

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// idle is how long a TCP connection may wait for its next query, or for a pod to take its answer.
const idle = 10 * time.Second

// ServeUDP answers what comes on conn until Close, when it returns nil; it closes conn. What needs no server is
// answered at once, so that a pod's name is found while the servers are silent. conn must be bound to one
// address, for the answers come from it.
func (f *Forwarder) ServeUDP(conn net.PacketConn) error {
	defer conn.Close()
	defer context.AfterFunc(f.closed, func() { conn.Close() })()
	var waiting sync.WaitGroup
	defer waiting.Wait()
	buffer := make([]byte, maxDatagram+1) // one more shows that there was more
	for {
		n, asker, err := conn.ReadFrom(buffer)
		if f.closed.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", conn.LocalAddr(), err)
		}
		r, answer := f.receive(buffer[:n], address(asker), false)
		if r != nil {
			waiting.Go(func() { send(conn, f.forward(f.closed, r), asker) })
			continue
		}
		send(conn, answer, asker)
	}
}

// send may fail: who asks by UDP asks again.
func send(conn net.PacketConn, answer []byte, to net.Addr) {
	if answer != nil {
		conn.WriteTo(answer, to)
	}
}

// ServeTCP answers who connects to listener until Close, when it returns nil; it closes listener.
func (f *Forwarder) ServeTCP(listener net.Listener) error {
	defer listener.Close()
	defer context.AfterFunc(f.closed, func() { listener.Close() })()
	var connected sync.WaitGroup
	defer connected.Wait()
	for {
		conn, err := listener.Accept()
		switch {
		case f.closed.Err() != nil:
			if err == nil {
				conn.Close()
			}
			return nil
		case passing(err):
			select { // the connection stays in the backlog
			case <-time.After(100 * time.Millisecond):
			case <-f.closed.Done():
			}
			continue
		case err != nil:
			return fmt.Errorf("accept %s: %w", listener.Addr(), err)
		}
		from := address(conn.RemoteAddr())
		pod := f.directory.index().byAddr[from]
		if pod == nil || !f.connections.Take(pod.id) {
			conn.Close()
			continue
		}
		connected.Go(func() {
			defer f.connections.Give(pod.id)
			f.converse(conn, from)
		})
	}
}

// passing says whether err is of the machine, and not of the listener: accept(2).
func passing(err error) bool {
	for _, errno := range []unix.Errno{unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// converse answers the queries on one connection, each in its turn.
func (f *Forwarder) converse(socket net.Conn, from netip.Addr) {
	defer socket.Close()
	defer context.AfterFunc(f.closed, func() { socket.Close() })()
	conn := &dns.Conn{Conn: socket}
	buffer := make([]byte, maxDatagram)
	for {
		socket.SetDeadline(time.Now().Add(idle))
		n, err := conn.Read(buffer)
		if err != nil { // too long a query among them
			return
		}
		answer := f.Answer(f.closed, buffer[:n], from, true)
		if answer == nil {
			return
		}
		socket.SetDeadline(time.Now().Add(idle))
		if _, err := conn.Write(answer); err != nil {
			return
		}
	}
}

func address(addr net.Addr) netip.Addr {
	if known, ok := addr.(interface{ AddrPort() netip.AddrPort }); ok { // of UDP and of TCP
		return plain(known.AddrPort().Addr())
	}
	return netip.Addr{}
}
