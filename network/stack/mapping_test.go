package stack

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/podsh/podsh/network/testns"
)

// tell serves UDP in the namespace behind where: whoever sends is told from which address it seems to come. It returns
// the socket, to send from as well.
func (l *lab) tell(where *os.File, addr string) net.PacketConn {
	l.t.Helper()
	server := l.packets(where, addr)
	go func() {
		buffer := make([]byte, 1)
		for {
			_, from, err := server.ReadFrom(buffer)
			if err != nil {
				return
			}
			server.WriteTo([]byte(from.String()), from)
		}
	}()
	return server
}

// packets opens a UDP socket in the namespace behind where (nil: the host's).
func (l *lab) packets(where *os.File, addr string) (conn net.PacketConn) {
	l.t.Helper()
	var err error
	family := "udp4" // without it Go makes one socket for both
	if strings.HasPrefix(addr, "[") {
		family = "udp6"
	}
	open := func() { conn, err = net.ListenPacket(family, addr) }
	if where == nil {
		open()
	} else {
		testns.In(l.t, where, open)
	}
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { conn.Close() })
	return conn
}

// ask sends a byte from the pod's socket, and returns what comes back.
func ask(t *testing.T, conn net.PacketConn, addr string) string {
	t.Helper()
	if _, err := conn.WriteTo([]byte("?"), net.UDPAddrFromAddrPort(netip.MustParseAddrPort(addr))); err != nil {
		t.Fatal(err)
	}
	return hear(t, conn, patience)
}

// hear returns the next datagram; "": none came.
func hear(t *testing.T, conn net.PacketConn, limit time.Duration) string {
	t.Helper()
	conn.SetReadDeadline(time.Now().Add(limit))
	buffer := make([]byte, 100)
	n, _, err := conn.ReadFrom(buffer)
	if err != nil {
		return ""
	}
	return string(buffer[:n])
}

// Whoever a socket of a pod's sends to sees the same port of the host, and each address that was sent to may answer
// from another port, as TFTP does; nobody else is heard, and the pod's other sockets have other ports.
func TestEndpointIndependent(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	l := newLab(t)
	s := l.start(Config{})
	l.up(l.other, "c0", "10.9.0.3/24", "10.9.0.4/24", "fd09::3/64", "fd09::4/64")
	for _, f := range []struct{ any, other, second, stranger, local string }{
		{"0.0.0.0", "10.9.0.2", "10.9.0.3", "10.9.0.4", "127.0.0.1"}, {"::", "fd09::2", "fd09::3", "fd09::4", "::1"},
	} {
		conn := l.packets(l.pod, join(f.any, 4000))
		first := l.tell(l.other, join(f.other, 70))
		l.tell(l.other, join(f.other, 71))
		l.tell(l.other, join(f.second, 70))
		seen := ask(t, conn, join(f.other, 70))
		for _, addr := range []string{join(f.other, 71), join(f.second, 70), join(f.other, 70)} {
			if again := ask(t, conn, addr); again != seen || seen == "" {
				t.Errorf("%s sees %q, %s saw %q", addr, again, first.LocalAddr(), seen)
			}
		}
		mapped := net.UDPAddrFromAddrPort(netip.MustParseAddrPort(seen))
		l.packets(l.other, join(f.other, 72)).WriteTo([]byte("from another port"), mapped)
		if got := hear(t, conn, patience); got != "from another port" {
			t.Errorf("from another port: %q", got)
		}
		stranger := l.tell(l.other, join(f.stranger, 73))
		stranger.WriteTo([]byte("from a stranger"), mapped)
		l.packets(nil, join(f.local, 0)).WriteTo([]byte("from the host"), &net.UDPAddr{IP: net.ParseIP(f.local), Port: mapped.Port})
		if got := hear(t, conn, 300*time.Millisecond); got != "" {
			t.Errorf("it was not sent to: %q", got)
		}
		if got := ask(t, conn, join(f.stranger, 73)); got != seen {
			t.Errorf("the one who was a stranger sees %q, not %q", got, seen)
		}
		another := l.packets(l.pod, join(f.any, 0))
		if got := ask(t, another, join(f.other, 70)); got == seen || got == "" {
			t.Errorf("another socket of the pod's: %q", got)
		}
	}
	if c := s.Counters(); c.Flows != 4 || c.Dropped == 0 {
		t.Errorf("%+v", c)
	}
}

// A service on the host's loopback that may be reached answers from the ports that may be, and only from these.
func TestHostAnswersFromAnotherPort(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	l := newLab(t)
	l.start(Config{HostAccess: func(_ netip.Addr, port uint16) bool { return port < 72 }})
	l.tell(nil, "127.0.0.1:70")
	conn := l.packets(l.pod, "0.0.0.0:4000")
	seen, err := netip.ParseAddrPort(ask(t, conn, "10.0.2.2:70"))
	if err != nil {
		t.Fatal(err)
	}
	for port, heard := range map[int]string{71: "from 71", 72: ""} {
		l.packets(nil, join("127.0.0.1", port)).WriteTo(fmt.Appendf(nil, "from %d", port), net.UDPAddrFromAddrPort(seen))
		limit := patience
		if heard == "" {
			limit = 300 * time.Millisecond
		}
		if got := hear(t, conn, limit); got != heard {
			t.Errorf("from port %d: %q", port, got)
		}
	}
}

// A pod that sends to very many keeps no more of them than may be, and who was sent to last is heard.
func TestManyPeers(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	l := newLab(t)
	few := sizesFor(defaultDescriptors)
	few.peers = 8
	s := l.startWith(Config{}, newLimits(few, defaultTimes, false))
	testns.Run(t, "ip", "route", "add", "192.0.2.0/24", "via", "10.9.0.2")
	l.sysctl(l.other, "net.ipv4.ip_forward", "0")
	l.tell(l.other, "10.9.0.2:70")
	conn := l.packets(l.pod, "0.0.0.0:4000")
	seen := ask(t, conn, "10.9.0.2:70")
	for i := range 100 {
		conn.WriteTo([]byte("?"), &net.UDPAddr{IP: net.IPv4(192, 0, 2, byte(i)), Port: 9})
	}
	if again := ask(t, conn, "10.9.0.2:70"); again != seen || seen == "" {
		t.Errorf("%q, not %q", again, seen)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.mappings {
		m.mu.Lock()
		if len(m.peers) != 8 {
			t.Errorf("%d peers", len(m.peers))
		}
		m.mu.Unlock()
	}
}
