package stack

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/podsh/podsh/network/testns"
	"golang.org/x/sys/unix"
)

// The laboratory: three network namespaces.
//
//	pod -- tun -- Stack, in the host's -- veth -- another host
//	10.0.2.100                   10.9.0.1      10.9.0.2
//	fd00::100                    fd09::1       fd09::2
type lab struct {
	t          *testing.T
	pod, other *os.File
}

var (
	gateway4, gateway6   = netip.MustParseAddr("10.0.2.2"), netip.MustParseAddr("fd00::2")
	resolver4, resolver6 = netip.MustParseAddr("10.0.2.3"), netip.MustParseAddr("fd00::3")
	podAddr4             = netip.MustParseAddr("10.0.2.100")
)

// families are the addresses of the other host.
var families = []struct{ name, other, host, gateway, resolver string }{
	{"IPv4", "10.9.0.2", "10.9.0.1", "10.0.2.2", "10.0.2.3"},
	{"IPv6", "fd09::2", "fd09::1", "fd00::2", "fd00::3"},
}

// newLab makes the namespaces. The calling test is inside (testns.Inside) and its namespace is the host's.
func newLab(t *testing.T) *lab {
	l := &lab{t: t, pod: testns.NewNetwork(t), other: testns.NewNetwork(t)}
	testns.Run(t, "ip", "link", "set", "lo", "up")
	testns.Run(t, "ip", "link", "add", "h0", "type", "veth", "peer", "name", "c0", "netns", fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), l.other.Fd()))
	l.up(nil, "h0", "10.9.0.1/24", "fd09::1/64")
	l.up(l.other, "c0", "10.9.0.2/24", "fd09::2/64")
	l.up(l.other, "lo")
	l.up(l.pod, "lo")
	return l
}

// up gives a link addresses and brings it up, in the namespace behind where (nil: the host's).
func (l *lab) up(where *os.File, link string, addrs ...string) {
	l.t.Helper()
	do := func() {
		for _, addr := range addrs {
			args := []string{"ip", "addr", "add", addr, "dev", link}
			if strings.Contains(addr, ":") {
				args = append(args, "nodad")
			}
			testns.Run(l.t, args...)
		}
		testns.Run(l.t, "ip", "link", "set", link, "up")
	}
	if where == nil {
		do()
		return
	}
	testns.In(l.t, where, do)
}

// openTun makes, or takes over, the pod's persistent tun device.
func (l *lab) openTun() (tun *os.File) {
	l.t.Helper()
	testns.In(l.t, l.pod, func() {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			l.t.Errorf("open /dev/net/tun: %v; as root: chmod 666 /dev/net/tun", err)
			return
		}
		tun = os.NewFile(uintptr(fd), "tun")
		request, _ := unix.NewIfreq("tun0")
		request.SetUint16(TunFlags)
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
			l.t.Errorf("ioctl TUNSETIFF tun0: %v", err)
		}
		for call, value := range map[uint]int{unix.TUNSETOFFLOAD: TunOffloads, unix.TUNSETPERSIST: 1} {
			if err := unix.IoctlSetInt(fd, call, value); err != nil {
				l.t.Errorf("ioctl %#x of tun0: %v", call, err)
			}
		}
	})
	if l.t.Failed() {
		l.t.FailNow()
	}
	return tun
}

// start starts a Stack on the pod's tun, and gives that its addresses.
func (l *lab) start(config Config) *Stack {
	l.t.Helper()
	return l.startWith(config, newLimits(sizesFor(defaultDescriptors), defaultTimes, config.Shared))
}

func (l *lab) startWith(config Config, limits limits) *Stack {
	l.t.Helper()
	config.Tun = l.openTun()
	config.Gateway = []netip.Addr{gateway4, gateway6}
	config.Resolver = []netip.Addr{resolver4, resolver6}
	s, err := newStack(config, limits)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { s.Close() })
	l.up(l.pod, "tun0", "10.0.2.100/24", "fd00::100/64")
	testns.In(l.t, l.pod, func() {
		testns.Run(l.t, "ip", "route", "add", "default", "via", "10.0.2.2")
		testns.Run(l.t, "ip", "-6", "route", "add", "default", "via", "fd00::2")
	})
	return s
}

// listen opens a TCP listener in the namespace behind where (nil: the host's) and serves each connection.
func (l *lab) listen(where *os.File, addr string, serve func(*net.TCPConn)) {
	l.t.Helper()
	var listener net.Listener
	var err error
	open := func() { listener, err = net.Listen("tcp", addr) }
	if where == nil {
		open()
	} else {
		testns.In(l.t, where, open)
	}
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				serve(conn.(*net.TCPConn))
			}()
		}
	}()
}

// dial connects from the pod.
func (l *lab) dial(network, addr string) (conn net.Conn, err error) {
	testns.In(l.t, l.pod, func() {
		conn, err = net.DialTimeout(network, addr, patience)
	})
	if err == nil {
		l.t.Cleanup(func() { conn.Close() })
		conn.SetDeadline(time.Now().Add(patience))
	}
	return conn, err
}

// hang begins so many connections of the pod's to addr, where nothing answers, and waits for none.
func (l *lab) hang(n int, addr [4]byte) {
	l.t.Helper()
	testns.In(l.t, l.pod, func() {
		for i := range n {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
			if err != nil {
				l.t.Error(err)
				return
			}
			l.t.Cleanup(func() { unix.Close(fd) })
			if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: addr, Port: 1000 + i}); err != unix.EINPROGRESS {
				l.t.Error(err)
			}
		}
	})
}

// echoUDP serves UDP in the namespace behind where (nil: the host's).
func (l *lab) echoUDP(where *os.File, addr string) {
	l.t.Helper()
	var server net.PacketConn
	var err error
	open := func() { server, err = net.ListenPacket("udp", addr) }
	if where == nil {
		open()
	} else {
		testns.In(l.t, where, open)
	}
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { server.Close() })
	go func() {
		buffer := make([]byte, 65536)
		for {
			n, from, err := server.ReadFrom(buffer)
			if err != nil {
				return
			}
			server.WriteTo(buffer[:n], from)
		}
	}()
}

// echo serves TCP: what comes goes back, without splice(2), which keeps pipes.
func echo(conn *net.TCPConn) { io.Copy(struct{ io.Writer }{conn}, conn) }

func join(host string, port int) string { return net.JoinHostPort(host, fmt.Sprint(port)) }
