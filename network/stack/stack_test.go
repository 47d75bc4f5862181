package stack

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/podsh/podsh/network/testns"
	"golang.org/x/sys/unix"
)

// Ten megabytes go out and come back unharmed, and each direction ends by itself.
func TestTCPOut(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	l := newLab(t)
	s := l.start(Config{})
	data := make([]byte, 10<<20)
	rand.New(rand.NewSource(1)).Read(data)
	for _, family := range families {
		// It answers only when it has seen the end: a half-closed connection goes on.
		l.listen(l.other, join(family.other, 80), func(conn *net.TCPConn) {
			got, _ := io.ReadAll(conn)
			sum := sha256.Sum256(got)
			conn.Write(sum[:])
			conn.Write(got)
		})
		conn, err := l.dial("tcp", join(family.other, 80))
		if err != nil {
			t.Fatal(family.name, err)
		}
		if _, err := conn.Write(data); err != nil {
			t.Fatal(family.name, err)
		}
		conn.(*net.TCPConn).CloseWrite()
		answer, err := io.ReadAll(conn)
		sum := sha256.Sum256(data)
		if err != nil || !bytes.Equal(answer, append(sum[:], data...)) {
			t.Errorf("%s: %d bytes came back, not the %d that went out, or others: %v", family.name, len(answer), len(data), err)
		}
	}
	if c := s.Counters(); c.Opened != 2 || c.Sent != 20<<20 || c.Fetched != 20<<20+64 {
		t.Errorf("counters: %+v", c)
	}
}

// A pod that does not read makes the sender wait, in large pieces and in small ones; nothing is lost.
func TestSlowReader(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	l := newLab(t)
	s := l.start(Config{})
	data := make([]byte, 24<<20)
	rand.New(rand.NewSource(2)).Read(data)
	for port, piece := range map[int]int{80: 1 << 20, 81: 700} {
		l.listen(l.other, join("10.9.0.2", port), func(conn *net.TCPConn) {
			for rest := data; len(rest) > 0; rest = rest[min(piece, len(rest)):] {
				if _, err := conn.Write(rest[:min(piece, len(rest))]); err != nil {
					return
				}
			}
		})
		conn, err := l.dial("tcp", join("10.9.0.2", port))
		if err != nil {
			t.Fatal(err)
		}
		before := uint64(1)
		eventually(t, "the sender waits", func() bool {
			now := s.Counters().Fetched
			waits := now == before
			before = now
			return waits
		}, s.seen)
		got, err := io.ReadAll(conn)
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("pieces of %d: %d bytes of %d arrived, or others: %v", piece, len(got), len(data), err)
		}
	}
}

// The addresses that policy never lets anyone reach.
func TestExcluded(t *testing.T) {
	for text, want := range map[string]bool{
		"0.0.0.0": true, "0.1.2.3": true, "127.0.0.1": true, "127.255.0.1": true, "169.254.169.254": true, "224.0.0.1": true,
		"255.255.255.255": true, "::": true, "::1": true, "::10.0.0.1": true, "::ffff:127.0.0.1": true, "::ffff:10.0.0.1": true,
		"fe80::1": true, "ff02::1": true, "fec0::1": true,
		"10.0.0.1": false, "1.1.1.1": false, "192.168.1.1": false, "2606:4700::1111": false, "fd00::1": false, "64:ff9b::101:101": false,
	} {
		if got := excluded(netip.MustParseAddr(text)); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}

// A connection that the destination refuses is refused to the pod, and one that is reset is reset.
func TestTCPRefusedAndReset(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	l := newLab(t)
	l.start(Config{})
	for _, family := range families {
		if _, err := l.dial("tcp", join(family.other, 81)); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("%s: %v, not refused", family.name, err)
		}
		l.listen(l.other, join(family.other, 80), func(conn *net.TCPConn) {
			conn.Read(make([]byte, 1))
			conn.SetLinger(0)
		})
		conn, err := l.dial("tcp", join(family.other, 80))
		if err != nil {
			t.Fatal(family.name, err)
		}
		conn.Write([]byte("x"))
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("%s: %v, not reset", family.name, err)
		}
	}
	if _, err := l.dial("tcp", "192.0.2.1:80"); !errors.Is(err, unix.ENETUNREACH) {
		t.Errorf("without a route on the host: %v", err)
	}
}

// The host is out of reach by any of its addresses, by TCP and UDP.
func TestHostOutOfReach(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	l := newLab(t)
	s := l.start(Config{Blocked: func(src, dst netip.Addr) bool {
		return src == podAddr4 && dst == netip.MustParseAddr("10.9.0.77")
	}})
	testns.Run(t, "ip", "addr", "add", "169.254.169.254/32", "dev", "h0")
	l.listen(nil, ":80", echo)
	l.echoUDP(nil, ":80")
	targets := []string{"10.9.0.1", "fd09::1", "10.0.2.2", "fd00::2", "10.0.2.3", "169.254.169.254", "0.0.0.1", "240.0.0.1", "64:ff9b::10.9.0.1", "64:ff9b::127.0.0.1", "10.9.0.255", "10.9.0.77"}
	for _, target := range targets {
		if _, err := l.dial("tcp", join(target, 80)); err == nil {
			t.Errorf("reached %s by TCP", target)
		}
		conn, err := l.dial("udp", join(target, 80))
		if err != nil {
			continue
		}
		conn.SetDeadline(time.Now().Add(200 * time.Millisecond))
		conn.Write([]byte("x"))
		if n, err := conn.Read(make([]byte, 1)); err == nil {
			t.Errorf("%s answered %d bytes by UDP", target, n)
		}
	}
	if c := s.Counters(); c.Opened != 0 || c.Flows != 0 || c.Refused == 0 {
		t.Errorf("counters: %+v", c)
	}
}

// Services on the host's loopback are reached at the gateway's address, by the ports that were asked for.
func TestHostAccess(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	l := newLab(t)
	l.start(Config{HostAccess: func(_ netip.Addr, port uint16) bool { return port != 81 }})
	l.listen(nil, "127.0.0.1:80", echo)
	l.listen(nil, "127.0.0.1:81", echo)
	l.listen(nil, "[::1]:82", echo)
	l.echoUDP(nil, "127.0.0.1:80")
	l.echoUDP(nil, "[::1]:80")
	for _, family := range families {
		for port, open := range map[int]bool{80: true, 81: false, 82: true, 83: false} {
			conn, err := l.dial("tcp", join(family.gateway, port))
			if (err == nil) != open {
				t.Errorf("%s port %d: %v", family.name, port, err)
			}
			if err == nil {
				exchange(t, conn, "hello")
			}
		}
		conn, err := l.dial("udp", join(family.gateway, 80))
		if err != nil {
			t.Fatal(err)
		}
		exchange(t, conn, "hello")
	}
}

// Services on any address of the host's are reached there, and at the gateway's address, by the ports that were asked for.
func TestHostAccessByItsAddresses(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	l := newLab(t)
	var closed atomic.Bool
	l.start(Config{
		HostAccess: func(_ netip.Addr, port uint16) bool { return !closed.Load() && port != 81 },
		Blocked:    func(_, dst netip.Addr) bool { return dst == netip.MustParseAddr("10.9.0.7") },
	})
	l.up(nil, "h0", "10.9.0.7/24")
	for _, family := range families {
		for port := 80; port <= 81; port++ {
			l.listen(nil, join(family.host, port), echo)
		}
		l.echoUDP(nil, join(family.host, 80))
	}
	l.listen(nil, "10.9.0.7:80", echo)
	for _, family := range families {
		for target, open := range map[string]bool{
			join(family.host, 80): true, join(family.host, 81): false, join(family.host, 82): false,
			join(family.gateway, 80): true, join(family.gateway, 81): false, "10.9.0.7:80": false, "10.9.0.255:80": false,
		} {
			conn, err := l.dial("tcp", target)
			if (err == nil) != open {
				t.Errorf("%s: %v", target, err)
			}
			if err == nil {
				exchange(t, conn, "hello")
			}
		}
		conn, err := l.dial("udp", join(family.host, 80))
		if err != nil {
			t.Fatal(err)
		}
		exchange(t, conn, "hello")
	}
	closed.Store(true)
	for _, family := range families {
		if _, err := l.dial("tcp", join(family.host, 80)); err == nil {
			t.Errorf("%s is reached by who may not", family.host)
		}
	}
}

// exchange sends a message and expects it back.
func exchange(t *testing.T, conn net.Conn, message string) {
	t.Helper()
	if _, err := io.WriteString(conn, message); err != nil {
		t.Error(err)
	}
	got := make([]byte, len(message)+1)
	n, err := io.ReadAtLeast(conn, got, len(message))
	if err != nil || string(got[:n]) != message {
		t.Errorf("%s: %d bytes came back, %d went out: %v", conn.RemoteAddr(), n, len(message), err)
	}
}

// Datagrams come back, large ones in fragments, and a port where nobody is says so.
func TestUDP(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	l := newLab(t)
	s := l.start(Config{})
	for _, family := range families {
		l.echoUDP(l.other, join(family.other, 53))
		conn, err := l.dial("udp", join(family.other, 53))
		if err != nil {
			t.Fatal(err)
		}
		for _, size := range []int{1, 1400, 1473, 9000, 60000} {
			exchange(t, conn, strings.Repeat("x", size))
		}
		dead, err := l.dial("udp", join(family.other, 54))
		if err != nil {
			t.Fatal(err)
		}
		dead.Write([]byte("x"))
		if _, err := dead.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("%s: nobody there: %v", family.name, err)
		}
	}
	if c := s.Counters(); c.Flows != 4 {
		t.Errorf("counters: %+v", c)
	}
}

// There are never more sessions than may be, the idlest goes first, and all end by themselves.
func TestFlowsEnd(t *testing.T) {
	t.Parallel()
	if !testns.Inside(t) {
		return
	}
	l := newLab(t)
	few, soon := sizesFor(defaultDescriptors), defaultTimes
	few.flows, soon.asked, soon.replied = 8, 3*time.Second, 3*time.Second // longer than an answer takes on a busy machine
	s := l.startWith(Config{}, newLimits(few, soon, false))
	l.echoUDP(l.other, "10.9.0.2:53")
	for range 40 {
		conn, err := l.dial("udp", "10.9.0.2:53")
		if err != nil {
			t.Fatal(err)
		}
		exchange(t, conn, "hello")
		if n := s.Counters().Flows; n > 8 {
			t.Fatalf("%d flows", n)
		}
	}
	eventually(t, "the sessions end", func() bool { return s.Counters().Flows == 0 }, s.seen)
}

// eventually waits until a condition holds; if it does not it tells what was seen instead.
func eventually(t *testing.T, what string, condition func() bool, seen ...func() any) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-deadline:
			for _, see := range seen {
				t.Logf("seen at last: %+v", see())
			}
			t.Fatalf("not true within %v: %s", patience, what)
		case <-tick.C:
		}
	}
}

// seen is what a Stack counts, for eventually.
func (s *Stack) seen() any { return s.Counters() }

// The hook answers, by UDP and by TCP, whoever asks at the resolver's address.
func TestDNS(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	l := newLab(t)
	var mu sync.Mutex
	asked := map[string]int{}
	l.start(Config{DNS: func(ctx context.Context, query []byte, from netip.Addr, tcp bool) []byte {
		mu.Lock()
		defer mu.Unlock()
		asked[from.String()]++
		if !tcp {
			return append([]byte("udp "), query...)
		}
		return append([]byte("tcp "), query...)
	}})
	for _, family := range families {
		conn, err := l.dial("udp", join(family.resolver, 53))
		if err != nil {
			t.Fatal(err)
		}
		answer := make([]byte, 64)
		conn.Write([]byte("web?"))
		if n, err := conn.Read(answer); string(answer[:n]) != "udp web?" {
			t.Errorf("%s by UDP: %q %v", family.name, answer[:n], err)
		}
		stream, err := l.dial("tcp", join(family.resolver, 53))
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			stream.Write(append(binary.BigEndian.AppendUint16(nil, 4), "web?"...))
			if _, err := io.ReadFull(stream, answer[:10]); err != nil || string(answer[2:10]) != "tcp web?" || answer[1] != 8 {
				t.Errorf("%s by TCP: %q %v", family.name, answer[:10], err)
			}
		}
		if _, err := l.dial("tcp", join(family.resolver, 54)); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("%s, another port of the resolver: %v", family.name, err)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if asked["10.0.2.100"] != 3 || asked["fd00::100"] != 3 {
		t.Errorf("asked: %v", asked)
	}
}

// A ping is answered by whom it was meant for, and by nobody else.
func TestPing(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	l := newLab(t)
	s := l.start(Config{})
	if err := CanPing(); err == nil || !strings.Contains(err.Error(), "net.ipv4.ping_group_range") {
		t.Errorf("in a new network namespace nobody may ping, but: %v", err)
	}
	ping := func(addr string, answers bool) error {
		patience := []string{"-c", "2", "-i", "0.01", "-W", "0.3"}
		if answers { // until it does
			patience = []string{"-c", "1", "-i", "0.1", "-w", "40"}
		}
		var err error
		testns.In(t, l.pod, func() {
			err = exec.Command("ping", append(patience, "-n", "-s", "1000", addr)...).Run()
		})
		return err
	}
	if err := ping("10.9.0.2", false); err == nil {
		t.Error("answered without a ping socket")
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 0"), 0); err != nil {
		t.Fatal(err)
	}
	if err := CanPing(); err != nil {
		t.Error(err)
	}
	for addr, answers := range map[string]bool{"10.9.0.2": true, "fd09::2": true, "10.0.2.2": true, "fd00::2": true,
		"10.9.0.99": false, "fd09::99": false, "192.0.2.1": false, "10.9.0.1": false, "169.254.1.1": false} {
		if err := ping(addr, answers); (err == nil) != answers {
			t.Errorf("ping %s: %v", addr, err)
		}
	}
	if c := s.Counters(); c.Fetched == 0 {
		t.Errorf("counters: %+v", c)
	}
}

// Connections beyond the limit are refused, and those that have ended make place.
func TestConnectionLimit(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	l := newLab(t)
	few := sizesFor(defaultDescriptors)
	few.connections, few.tiers = 4, []int{2, 1}
	s := l.startWith(Config{}, newLimits(few, defaultTimes, false))
	l.listen(l.other, "10.9.0.2:80", echo)
	for range 2 {
		var open []net.Conn
		for range 4 {
			conn, err := l.dial("tcp", "10.9.0.2:80")
			if err != nil {
				t.Fatal(err)
			}
			exchange(t, conn, strings.Repeat("x", 1000))
			open = append(open, conn)
		}
		if _, err := l.dial("tcp", "10.9.0.2:80"); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("the fifth connection: %v", err)
		}
		for _, conn := range open {
			conn.Close()
		}
		eventually(t, "all are closed", func() bool { return s.Counters().Connections == 0 }, s.seen)
	}
}

// After Close nothing is left but the device, which the next Stack takes over.
func TestCloseAndTakeOver(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	l := newLab(t)
	l.listen(l.other, "10.9.0.2:80", echo)
	l.echoUDP(l.other, "10.9.0.2:80")
	first := l.start(Config{})
	exercise := func() net.Conn {
		conn, err := l.dial("tcp", "10.9.0.2:80")
		if err != nil {
			t.Fatal(err)
		}
		exchange(t, conn, "hello")
		datagram, err := l.dial("udp", "10.9.0.2:80")
		if err != nil {
			t.Fatal(err)
		}
		exchange(t, datagram, "hello")
		datagram.Close()
		return conn
	}
	conn := exercise()
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	<-first.Done()
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("after Close the connection: %v, not reset", err)
	}
	if err := first.Close(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Close again: %v", err)
	}
	conn.Close()
	settled := func() (goroutines, files int) {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return runtime.NumGoroutine(), len(entries)
	}
	var goroutines, files int
	eventually(t, "the echo servers have seen the end", func() bool {
		g, f := settled()
		steady := g == goroutines && f == files
		goroutines, files = g, f
		return steady
	}, func() any { return fmt.Sprintf("%d goroutines, %d files", goroutines, files) })
	for range 3 {
		s, err := New(Config{Tun: l.openTun(), Gateway: []netip.Addr{gateway4}})
		if err != nil {
			t.Fatal(err)
		}
		conn := exercise()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		conn.Close()
	}
	eventually(t, "no goroutine and no file is left", func() bool {
		g, f := settled()
		return g <= goroutines && f <= files
	}, func() any {
		g, f := settled()
		return fmt.Sprintf("%d goroutines, %d files; before %d, %d", g, f, goroutines, files)
	})
}

// When the device is deleted the Stack says so.
func TestDeviceDeleted(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	l := newLab(t)
	s := l.start(Config{})
	testns.In(t, l.pod, func() { testns.Run(t, "ip", "link", "del", "tun0") })
	select {
	case <-s.Done():
	case <-time.After(patience):
		t.Fatal("nobody noticed")
	}
}

// What New is told wrong.
func TestNewRefuses(t *testing.T) {
	open := func() *os.File {
		null, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		return null
	}
	null := open()
	if _, err := New(Config{Tun: null, MTU: 576}); err == nil || !strings.Contains(err.Error(), "MTU 576") {
		t.Errorf("MTU 576: %v", err)
	}
	if _, err := New(Config{Tun: null}); err == nil {
		t.Error("a closed file was taken")
	}
	if _, err := New(Config{Tun: open(), Gateway: make([]netip.Addr, 1)}); err == nil || !strings.Contains(err.Error(), "neither IPv4") {
		t.Errorf("no address: %v", err)
	}
	if _, err := New(Config{Tun: open(), Gateway: []netip.Addr{gateway4, gateway4}}); err == nil || !strings.Contains(err.Error(), "10.0.2.2") {
		t.Errorf("an address twice: %v", err)
	}
}
