package stack

import (
	"context"
	"errors"
	"net"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/podsh/podsh/network/testns"
	"golang.org/x/sys/unix"
)

// nowhereRoutes are routes of the host and of another that lead nowhere.
func (l *lab) nowhereRoutes() {
	for _, route := range []string{"unreachable 192.0.2.0/28", "prohibit 192.0.2.16/28", "blackhole 192.0.2.32/28",
		"unreachable fd02:1::/64", "prohibit fd02:2::/64", "198.51.100.0/24 via 10.9.0.2", "fd03::/48 via fd09::2"} {
		testns.Run(l.t, append([]string{"ip", "route", "add"}, strings.Fields(route)...)...)
	}
	l.sysctl(l.other, "net.ipv4.ip_forward", "1")
	l.sysctl(l.other, "net.ipv6.conf.all.forwarding", "1")
	l.sysctl(l.other, "net.ipv4.icmp_ratemask", "0") // a rate of 0 would use up the tokens that ip_error of route.c has
	l.sysctl(l.other, "net.ipv6.icmp.ratelimit", "0")
	testns.In(l.t, l.other, func() {
		for _, route := range []string{"unreachable 198.51.100.0/28", "prohibit 198.51.100.16/28", "blackhole 198.51.100.32/28", "default via 10.9.0.1",
			"unreachable fd03:0:0:1::/64", "prohibit fd03:0:0:2::/64", "default via fd09::1"} {
			testns.Run(l.t, append([]string{"ip", "route", "add"}, strings.Fields(route)...)...)
		}
	})
	testns.Run(l.t, "ping", "-c", "1", "fd09::2") // the first neighbour discovery takes a second
}

// Why a connection or a datagram gets nowhere a pod hears as the host does: of its own routes and of those of others.
// No ICMP message makes EACCES of IPv4's.
func TestErrors(t *testing.T) {
	t.Parallel()
	if !testns.Inside(t) {
		return
	}
	l := newLab(t)
	l.start(Config{})
	l.nowhereRoutes()
	for addr, want := range map[string]struct{ tcp, udp error }{
		"10.9.0.2":      {unix.ECONNREFUSED, unix.ECONNREFUSED},
		"192.0.2.1":     {unix.EHOSTUNREACH, unix.EHOSTUNREACH},
		"192.0.2.17":    {unix.EHOSTUNREACH, unix.EHOSTUNREACH},
		"203.0.113.1":   {unix.ENETUNREACH, unix.ENETUNREACH},
		"198.51.100.1":  {unix.EHOSTUNREACH, nil}, // Linux does not tell a UDP socket what may pass: ip(7), IP_RECVERR
		"198.51.100.17": {unix.EHOSTUNREACH, unix.EHOSTUNREACH},
		"fd09::2":       {unix.ECONNREFUSED, unix.ECONNREFUSED},
		"fd02:1::1":     {unix.EHOSTUNREACH, nil},
		"fd02:2::1":     {unix.EACCES, unix.EACCES},
		"fd04::1":       {unix.ENETUNREACH, nil},
		"fd03:0:0:1::1": {unix.ENETUNREACH, nil},
		"fd03:0:0:2::1": {unix.EACCES, unix.EACCES},
	} {
		if _, err := l.dial("tcp", join(addr, 81)); !errors.Is(err, want.tcp) {
			t.Errorf("TCP to %s: %v, not %v", addr, err, want.tcp)
		}
		conn, err := l.dial("udp", join(addr, 81))
		if err != nil {
			t.Fatal(err)
		}
		limit := 200 * time.Millisecond // for what is not to come
		if want.udp != nil {
			limit = patience
		}
		if err := datagramError(conn, limit); !errors.Is(err, want.udp) {
			t.Errorf("UDP to %s: %v, not %v", addr, err, want.udp)
		}
	}
}

// datagramError sends a datagram and returns what the pod's kernel has to say of it, nil if that is nothing.
func datagramError(conn net.Conn, limit time.Duration) error {
	if _, err := conn.Write([]byte("x")); err != nil {
		return err
	}
	conn.SetReadDeadline(time.Now().Add(limit))
	_, err := conn.Read(make([]byte, 1))
	if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
		return nil
	}
	return err
}

// Who asks for it hears of every error, and from whom it is, with the datagram that met it; whoever sends to others
// from the same socket goes on.
func TestErrorQueue(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	l := newLab(t)
	l.start(Config{})
	l.nowhereRoutes()
	l.tell(l.other, "10.9.0.2:70")
	var conn net.PacketConn
	var err error
	testns.In(t, l.pod, func() {
		listen := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
			return raw.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_RECVERR, 1) })
		}}
		conn, err = listen.ListenPacket(context.Background(), "udp4", "0.0.0.0:4000")
	})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	seen := ask(t, conn, "10.9.0.2:70")
	conn.WriteTo([]byte("lost"), &net.UDPAddr{IP: net.IPv4(198, 51, 100, 1), Port: 9})
	var data, control [512]byte
	var n, controls int
	var peer unix.Sockaddr
	raw, _ := conn.(*net.UDPConn).SyscallConn()
	eventually(t, "the error is there", func() bool {
		raw.Control(func(fd uintptr) {
			n, controls, _, peer, err = unix.Recvmsg(int(fd), data[:], control[:], unix.MSG_ERRQUEUE)
		})
		return err == nil
	}, func() any { return err })
	why, offender, told := parseError(control[:controls])
	if !told || why.v4 != [2]byte{3, 1} || offender.String() != "10.9.0.2" || fromSockaddr(peer).String() != "198.51.100.1:9" || string(data[:n]) != "lost" {
		t.Errorf("%v from %v about %q to %v", why, offender, data[:n], fromSockaddr(peer))
	}
	if again := ask(t, conn, "10.9.0.2:70"); again != seen || seen == "" {
		t.Errorf("afterwards %q, not %q", again, seen)
	}
}

// A ping that gets nowhere says so.
func TestPingErrors(t *testing.T) {
	t.Parallel()
	if !testns.Inside(t) {
		return
	}
	l := newLab(t)
	l.sysctl(nil, "net.ipv4.ping_group_range", "0 0")
	l.start(Config{})
	l.nowhereRoutes()
	for addr, want := range map[string]string{
		"192.0.2.1": "Destination Host Unreachable", "203.0.113.1": "Destination Net Unreachable",
		"198.51.100.1": "From 10.9.0.2 icmp_seq=1 Destination Host Unreachable", "198.51.100.17": "From 10.9.0.2 icmp_seq=1 Packet filtered",
		"fd02:1::1": "Address unreachable", "fd03:0:0:1::1": "From fd09::2 icmp_seq=1 Destination unreachable: No route",
	} {
		var out []byte
		testns.In(t, l.pod, func() { out, _ = exec.Command("ping", "-n", "-c", "1", "-W", "40", addr).CombinedOutput() })
		if !strings.Contains(string(out), want) || !strings.Contains(string(out), "+1 errors") {
			t.Errorf("ping %s: %s", addr, out)
		}
	}
}

// Where nothing answers, the pod's own kernel says so in its own time.
func TestTimedOut(t *testing.T) {
	t.Parallel()
	if !testns.Inside(t) {
		return
	}
	l := newLab(t)
	impatient := defaultTimes
	impatient.dial = 300 * time.Millisecond
	l.startWith(Config{}, newLimits(sizesFor(defaultDescriptors), impatient, false))
	l.nowhereRoutes()
	l.sysctl(l.pod, "net.ipv4.tcp_syn_retries", "1")
	for _, addr := range []string{"198.51.100.33:80", "192.0.2.33:80"} {
		var err error
		testns.In(t, l.pod, func() { _, err = net.DialTimeout("tcp", addr, patience) })
		if !errors.Is(err, unix.ETIMEDOUT) {
			t.Errorf("%s: %v", addr, err)
		}
	}
}
