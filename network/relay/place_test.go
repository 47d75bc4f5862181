package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/network/testns"
)

var (
	pod4 = netip.MustParseAddr("10.88.0.2")
	pod6 = netip.MustParseAddr("fd00:88::2")
)

// world is a host, where the test stands, with a relay; a pod; and a client on another host.
type world struct {
	*testing.T
	pod, far *os.File
	sockets  maker
	relay    *Relay
}

// newWorld makes the pod as it is made for published ports. At the end nothing may be left of the relay.
func newWorld(t *testing.T, limit int) *world {
	return newWorldOf(t, Limits{Connections: limit, Sessions: limit})
}

func newWorldOf(t *testing.T, limits Limits) *world {
	w := &world{T: t, pod: testns.NewNetwork(t), sockets: make(maker)}
	run := func(format string, args ...any) {
		testns.Run(t, "sh", "-ec", fmt.Sprintf(format, args...))
	}
	run("ip link set lo up")
	testns.In(t, w.pod, func() {
		run(`ip link set lo up
			ip addr add 10.88.0.2/32 dev lo
			ip addr add fd00:88::2/128 dev lo nodad
			echo 1 >/proc/sys/net/ipv4/tcp_fwmark_accept
			echo 1 >/proc/sys/net/ipv4/fwmark_reflect # refusals, too, go back to foreign addresses
			echo 1 >/proc/sys/net/ipv6/fwmark_reflect
			for v in -4 -6; do
				ip $v rule add fwmark 0x7064 lookup 28772
				ip $v rule add ipproto udp sport 53 lookup 28772
			done
			ip route add local default dev lo table 28772 src 10.88.0.2
			ip -6 route add local default dev lo table 28772 src fd00:88::2`)
	})
	go w.sockets.serve(w.pod)
	w.sockets <- func() {} // it is there
	t.Cleanup(func() { w.sockets <- nil })

	goroutines, files := runtime.NumGoroutine(), openFiles(t)
	var err error
	if w.relay, err = start(limits, maxLoops); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		w.relay.Close()
		w.eventually("nothing is left", func() bool {
			return runtime.NumGoroutine() <= goroutines && openFiles(t) <= files
		})
	})
	return w
}

// withClient joins a client's host to ours by a link: 10.9.0.1 and fd00:9::1 are ours, .2 and ::2 the client's.
func (w *world) withClient() {
	w.far = testns.NewNetwork(w)
	testns.Run(w, "ip", "link", "add", "h0", "type", "veth", "peer", "name", "c0", "netns",
		fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), w.far.Fd()))
	testns.Run(w, "sh", "-ec", "ip link set h0 up; ip addr add 10.9.0.1/24 dev h0; ip addr add fd00:9::1/64 dev h0 nodad; ip addr add 10.9.0.3/24 dev h0")
	testns.In(w, w.far, func() {
		testns.Run(w, "sh", "-ec", "ip link set c0 up; ip addr add 10.9.0.2/24 dev c0; ip addr add fd00:9::2/64 dev c0 nodad")
	})
}

func (w *world) eventually(what string, is func() bool) {
	w.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			w.Fatalf("not in time: %s (%d goroutines, %d descriptors)", what, runtime.NumGoroutine(), openFiles(w))
		}
	}
}

func openFiles(t testing.TB) int {
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(files)
}

// publish publishes the pod's port on every address of the host, IPv4 and IPv6; it returns the host's port.
func (w *world) publish(network string, port uint16) (*Port, string) {
	w.Helper()
	return w.publishFor(w.sockets, network, port)
}

func (w *world) publishFor(sockets Sockets, network string, port uint16) (*Port, string) {
	w.Helper()
	fd, at := w.listener(network)
	p, err := w.relay.Publish(Published{
		Listeners: []int{fd},
		Target:    Target{Sockets: sockets, Addresses: []netip.Addr{pod4, pod6}, Port: port},
	})
	if err != nil {
		w.Fatal(err)
	}
	return p, at
}

func (w *world) listener(network string) (fd int, port string) {
	w.Helper()
	var file *os.File
	var address net.Addr
	if network == "udp" {
		c, err := net.ListenPacket("udp", ":0")
		if err != nil {
			w.Fatal(err)
		}
		c.Close()
		if c, err = net.ListenPacket("udp", c.LocalAddr().String()); err != nil {
			w.Fatal(err)
		}
		defer c.Close()
		address = c.LocalAddr()
		file, err = c.(*net.UDPConn).File()
		if err != nil {
			w.Fatal(err)
		}
	} else {
		var config net.ListenConfig
		config.SetMultipathTCP(false)
		l, err := config.Listen(context.Background(), "tcp", ":0")
		if err != nil {
			w.Fatal(err)
		}
		defer l.Close()
		address = l.Addr()
		file, err = l.(*net.TCPListener).File()
		if err != nil {
			w.Fatal(err)
		}
	}
	defer file.Close()
	fd, err := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		w.Fatal(err)
	}
	_, port, _ = net.SplitHostPort(address.String())
	return fd, port
}

// serve runs a TCP service in the pod, to the end of the test or until it is closed.
func (w *world) serve(address string, service func(c *net.TCPConn)) net.Listener {
	w.Helper()
	var l net.Listener
	var err error
	testns.In(w, w.pod, func() { l, err = net.Listen("tcp", address) })
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				service(c.(*net.TCPConn))
			}()
		}
	}()
	return l
}

// dial connects, from the far client if from is "far", else from the host.
func (w *world) dial(from, network, address string) net.Conn {
	w.Helper()
	var c net.Conn
	var err error
	dial := func() { c, err = net.DialTimeout(network, address, patience) }
	if from == "far" {
		testns.In(w, w.far, dial)
	} else {
		dial()
	}
	if err != nil {
		w.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(patience))
	w.Cleanup(func() { c.Close() })
	return c
}

// dialAs connects as one of the clients that loopback addresses stand for.
func (w *world) dialAs(client, network, address string) net.Conn {
	w.Helper()
	c, err := w.tryDialAs(client, network, address)
	if err != nil {
		w.Fatal(err)
	}
	return c
}

func (w *world) tryDialAs(client, network, address string) (net.Conn, error) {
	w.Helper()
	d := net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: net.ParseIP(client)}}
	if network == "udp" {
		d.LocalAddr = &net.UDPAddr{IP: net.ParseIP(client)}
	}
	c, err := d.Dial(network, address)
	if err != nil {
		return nil, err
	}
	_ = c.SetDeadline(time.Now().Add(patience))
	w.Cleanup(func() { c.Close() })
	return c, nil
}

// dialSlow connects a client whose kernel takes little before it reads.
func (w *world) dialSlow(address string) net.Conn {
	w.Helper()
	d := net.Dialer{Timeout: patience, Control: func(_, _ string, raw syscall.RawConn) (err error) {
		return errors.Join(raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 4096) }), err)
	}}
	c, err := d.Dial("tcp", address)
	if err != nil {
		w.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(patience))
	w.Cleanup(func() { c.Close() })
	return c
}

// hexPort is a port as proc_net_tcp(5) has it.
func hexPort(port string) string {
	n, _ := strconv.Atoi(port)
	return fmt.Sprintf(":%04X", n)
}

// end returns the error that a client meets who connects and listens.
func (w *world) end(port string) error {
	c, err := net.DialTimeout("tcp", "127.0.0.1:"+port, patience)
	if err != nil {
		return err // it came as fast as that
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	_, err = c.Read(make([]byte, 1))
	return err
}

// say sends a word and returns all that comes back before the end.
func (w *world) say(c net.Conn, word string) string {
	w.Helper()
	if _, err := io.WriteString(c, word); err != nil {
		w.Fatal(err)
	}
	_ = c.(*net.TCPConn).CloseWrite()
	back, err := io.ReadAll(c)
	if err != nil {
		w.Fatal(err)
	}
	return string(back)
}

func echo(c *net.TCPConn) { _, _ = io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c}) }

// whoami tells the client how the service sees it.
func whoami(c *net.TCPConn) {
	_, _ = io.Copy(io.Discard, c)
	fmt.Fprint(c, c.RemoteAddr())
}

// maker is a thread in the pod that makes its sockets, until it gets nothing to do.
type maker chan func()

func (m maker) serve(pod *os.File) {
	runtime.LockOSThread() // never unlocked
	if err := unix.Setns(int(pod.Fd()), unix.CLONE_NEWNET); err != nil {
		panic(err)
	}
	for do := <-m; do != nil; do = <-m {
		do()
	}
}

func (m maker) Make(family, kind, count int) (fds []int, err error) {
	done := make(chan bool)
	m <- func() {
		defer close(done)
		for range count {
			var fd int
			if fd, err = unix.Socket(family, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0); err != nil {
				return
			}
			fds = append(fds, fd)
			transparent := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_TRANSPARENT, 1)
			if family == unix.AF_INET6 {
				transparent = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_TRANSPARENT, 1)
			}
			err = errors.Join(transparent, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, 0x7064))
		}
	}
	<-done
	return fds, err
}
