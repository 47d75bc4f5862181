package relay

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/network/testns"
)

func TestServiceSeesTheClient(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	w := newWorld(t, 100)
	w.withClient()
	w.serve(":80", whoami)
	port, at := w.publish("tcp", 80)
	for _, c := range []struct{ from, to string }{
		{"far", "10.9.0.1"}, {"far", "fd00:9::1"}, {"host", "127.0.0.1"}, {"host", "::1"}, {"host", "10.9.0.1"},
	} {
		client := w.dial(c.from, "tcp", net.JoinHostPort(c.to, at))
		if saw := w.say(client, "who"); saw != client.LocalAddr().String() {
			t.Errorf("%s to %s: the service saw %s, not %s", c.from, c.to, saw, client.LocalAddr())
		}
	}
	if c := port.Counters(); c.Connections != 5 || c.BytesIn != 15 || c.BytesOut < 50 || c.Refused != 0 {
		t.Errorf("%+v", c)
	}
}

func TestTakenPortLeavesTheAddress(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	w := newWorld(t, 100)
	w.withClient()
	w.serve(":80", whoami)
	w.serve(":4242", echo) // so that the client's port is not to be had
	_, at := w.publish("tcp", 80)
	var c net.Conn
	var err error
	testns.In(t, w.far, func() {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(10, 9, 0, 2), Port: 4242}}
		c, err = d.Dial("tcp", "10.9.0.1:"+at)
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if saw := w.say(c, "who"); !strings.HasPrefix(saw, "10.9.0.2:") || saw == "10.9.0.2:4242" {
		t.Errorf("the service saw %s", saw)
	}
}

func TestServiceElsewhereInThePod(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	w := newWorld(t, 100)
	w.withClient()
	for i, listen := range []string{"127.0.0.1:80", "[::1]:81", "10.88.0.2:82", "[fd00:88::2]:83"} {
		w.serve(listen, whoami)
		_, at := w.publish("tcp", uint16(80+i))
		for _, to := range []string{"10.9.0.1", "fd00:9::1"} {
			if saw := w.say(w.dial("far", "tcp", net.JoinHostPort(to, at)), "who"); saw == "" {
				t.Errorf("%s by way of %s: nothing", listen, to)
			}
		}
	}
}

func TestRefusedIsReset(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	w := newWorld(t, 100)
	port, at := w.publish("tcp", 80)
	if err := w.end(at); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client met: %v", err)
	}
	w.eventually("it is counted", func() bool { return port.Counters() == Counters{Connections: 1, Refused: 1} })
}

func TestHalfClose(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	w := newWorld(t, 100)
	heard := make(chan string, 1)
	w.serve(":80", func(c *net.TCPConn) { // the service ends first, and goes on listening
		_, _ = io.WriteString(c, "bye")
		_ = c.CloseWrite()
		all, _ := io.ReadAll(c)
		heard <- string(all)
	})
	w.serve(":81", whoami) // the client ends first, and goes on listening
	_, at := w.publish("tcp", 80)
	c := w.dial("host", "tcp", "127.0.0.1:"+at)
	if all, err := io.ReadAll(c); string(all) != "bye" || err != nil {
		t.Fatalf("%q, %v", all, err)
	}
	_, _ = io.WriteString(c, "still here")
	c.Close()
	if got := <-heard; got != "still here" {
		t.Errorf("the service heard %q", got)
	}
	_, at = w.publish("tcp", 81)
	if w.say(w.dial("host", "tcp", "127.0.0.1:"+at), "who") == "" {
		t.Error("no answer after the client's end")
	}
}

func TestResetIsPassedOn(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	w := newWorld(t, 100)
	got := make(chan error, 1)
	w.serve(":80", func(c *net.TCPConn) { // resets, after a word
		_, _ = io.WriteString(c, "word")
		_, _ = c.Read(make([]byte, 1))
		_ = c.SetLinger(0)
	})
	w.serve(":81", func(c *net.TCPConn) { // is reset
		_, err := io.ReadAll(c)
		got <- err
	})
	_, at := w.publish("tcp", 80)
	c := w.dial("host", "tcp", "127.0.0.1:"+at)
	_, _ = io.WriteString(c, "x")
	if all, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) || string(all) != "word" {
		t.Errorf("the client read %q, %v", all, err)
	}
	_, at = w.publish("tcp", 81)
	c = w.dial("host", "tcp", "127.0.0.1:"+at)
	_, _ = io.WriteString(c, "x")
	_ = c.(*net.TCPConn).SetLinger(0)
	c.Close()
	if err := <-got; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the service read: %v", err)
	}
}

func TestMuchBothWaysAtOnce(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	w := newWorld(t, 100)
	w.serve(":80", echo)
	port, at := w.publish("tcp", 80)
	much := make([]byte, 10<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(much)
	var all sync.WaitGroup
	for range 3 {
		c := w.dial("host", "tcp", "127.0.0.1:"+at)
		all.Go(func() {
			for rest := much; len(rest) > 0; { // pieces of all sizes: copied and spliced
				n := min(len(rest), 1+rand.IntN(300<<10))
				if _, err := c.Write(rest[:n]); err != nil {
					t.Error(err)
					return
				}
				rest = rest[n:]
			}
			_ = c.(*net.TCPConn).CloseWrite()
		})
		all.Go(func() {
			sum := sha256.New()
			n, err := io.Copy(sum, c)
			if want := sha256.Sum256(much); err != nil || !bytes.Equal(sum.Sum(nil), want[:]) {
				t.Errorf("%d bytes came back, other than sent: %v", n, err)
			}
		})
	}
	all.Wait()
	if c := port.Counters(); c.BytesIn != 3*uint64(len(much)) || c.BytesOut != c.BytesIn {
		t.Errorf("%+v", c)
	}
}

// A client that never reads stops its service, and nobody else. What it leaves unread arrives when it does.
func TestClientThatNeverReads(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	w := newWorld(t, 200)
	const deafs = 8
	much := make([]byte, 64<<20) // more than all buffers between them hold
	var stopped sync.WaitGroup
	w.serve(":80", func(c *net.TCPConn) {
		defer stopped.Done()
		_ = c.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
		n, err := c.Write(much)
		if err == nil {
			t.Errorf("all %d bytes went somewhere", n)
		}
	})
	w.serve(":81", echo)
	_, at := w.publish("tcp", 80)
	stopped.Add(deafs)
	var deaf []net.Conn
	for range deafs {
		deaf = append(deaf, w.dial("host", "tcp", "127.0.0.1:"+at))
	}
	_, at = w.publish("tcp", 81)
	for range 100 {
		if got := w.say(w.dial("host", "tcp", "127.0.0.1:"+at), "others go on"); got != "others go on" {
			t.Fatalf("%q", got)
		}
	}
	stopped.Wait()
	if n, err := io.Copy(io.Discard, deaf[0]); err != nil || n == 0 {
		t.Errorf("what was on its way: %d bytes, %v", n, err)
	}
}

func TestManyIdle(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Max < 5000 {
		t.Fatalf("RLIMIT_NOFILE is %v: a thousand connections need 5000 here", limit.Max)
	}
	limit.Cur = limit.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, 3000)
	w.serve(":80", echo)
	port, at := w.publish("tcp", 80)
	for range 1000 {
		w.dial("host", "tcp", "127.0.0.1:"+at)
	}
	if got := w.say(w.dial("host", "tcp", "127.0.0.1:"+at), "alive"); got != "alive" {
		t.Errorf("%q", got)
	}
	w.eventually("1000 are open", func() bool { return port.Counters().Open == 1000 })
}

func TestManyShort(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	w := newWorld(t, 100)
	w.serve(":80", echo)
	port, at := w.publish("tcp", 80)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 250 {
				c, err := net.Dial("tcp", "127.0.0.1:"+at)
				if err != nil {
					t.Error(err)
					return
				}
				if got := w.say(c, "short"); got != "short" {
					t.Errorf("%q", got)
				}
				c.Close()
			}
		})
	}
	all.Wait()
	w.eventually("all have ended", func() bool { return port.Counters().Open == 0 })
	if c := port.Counters(); c.Connections != 2000 || c.Refused != 0 {
		t.Errorf("%+v", c)
	}
}

func TestNoDescriptorsLeft(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	w := newWorld(t, 100)
	w.relay.times.tick = 50 * time.Millisecond // no loop uses it yet
	w.serve(":80", echo)
	_, at := w.publish("tcp", 80)
	c := w.dial("host", "tcp", "127.0.0.1:"+at)
	if _, err := io.WriteString(c, "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err != nil { // it is all there now
		t.Fatal(err)
	}
	var limit, low syscall.Rlimit
	_ = syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit)
	late, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(late)
	low = syscall.Rlimit{Cur: 3, Max: limit.Max} // whatever is open stays open: getrlimit(2)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	to := netip.MustParseAddrPort("127.0.0.1:" + at)
	if err := unix.Connect(late, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}); err != nil {
		t.Error(err)
	}
	if _, err := unix.Write(late, []byte("late")); err != nil {
		t.Error(err)
	}
	if _, err := io.WriteString(c, "on"); err != nil {
		t.Error(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 2)); err != nil {
		t.Errorf("one that was there before: %v", err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	_ = unix.SetsockoptTimeval(late, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5})
	if n, err := unix.Read(late, make([]byte, 4)); n == 0 || err != nil {
		t.Errorf("one that had to wait: %d, %v", n, err)
	}
}

func TestPortClosesDuringTransfer(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	w := newWorld(t, 100)
	w.serve(":80", echo)
	port, at := w.publish("tcp", 80)
	other, otherAt := w.publish("tcp", 80)
	c := w.dial("host", "tcp", "127.0.0.1:"+at)
	bystander := w.dial("host", "tcp", "127.0.0.1:"+otherAt)
	written := make(chan error, 1)
	go func() {
		for {
			if _, err := c.Write(make([]byte, 1<<20)); err != nil {
				written <- err
				return
			}
		}
	}()
	if _, err := io.CopyN(io.Discard, c, 8<<20); err != nil {
		t.Fatal(err)
	}
	port.Close()
	port.Close()
	_, err := io.Copy(io.Discard, c)
	// The kernel tells of a reset once, to whoever asks first.
	if err = errors.Join(err, <-written); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client met: %v", err)
	}
	if _, err := net.Dial("tcp", "127.0.0.1:"+at); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dial: %v", err)
	}
	if got := w.say(bystander, "on"); got != "on" {
		t.Errorf("%q", got)
	}
	if n := port.Counters().Open + other.Counters().Open; n > 1 {
		t.Errorf("%d are open", n)
	}
}

// makerFunc is a pod's executor that is not well.
type makerFunc struct {
	make func() ([]int, error)
}

func (m *makerFunc) Make(int, int, int) ([]int, error) { return m.make() }

func TestPodThatMakesNoSockets(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	w := newWorld(t, 100)
	w.serve(":80", echo)
	_, at := w.publish("tcp", 80)
	stopped := make(chan bool)
	published := func(make func() ([]int, error)) (string, *Port) {
		fd, at := w.listener("tcp")
		target := Target{Sockets: &makerFunc{make}, Addresses: []netip.Addr{pod4}, Port: 80}
		port, err := w.relay.Publish(Published{[]int{fd}, target})
		if err != nil {
			t.Fatal(err)
		}
		return at, port
	}
	badAt, _ := published(func() ([]int, error) { return nil, unix.EPERM })
	if err := w.end(badAt); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client met: %v", err)
	}
	hungAt, port := published(func() ([]int, error) { <-stopped; return nil, unix.EPIPE })
	hung := w.dial("host", "tcp", "127.0.0.1:"+hungAt)
	w.eventually("one waits", func() bool { return port.Counters().Open == 1 })
	if got := w.say(w.dial("host", "tcp", "127.0.0.1:"+at), "others go on"); got != "others go on" {
		t.Errorf("%q", got)
	}
	port.Close()
	if _, err := hung.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read: %v", err)
	}
	close(stopped)
}

func TestPublishRefuses(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	w := newWorld(t, 1)
	good := Target{Sockets: w.sockets, Addresses: []netip.Addr{pod4}, Port: 80}
	for _, target := range []Target{
		{Addresses: good.Addresses, Port: 80},
		{Sockets: w.sockets, Port: 80},
		{Sockets: w.sockets, Addresses: good.Addresses},
		{Sockets: w.sockets, Addresses: []netip.Addr{pod4, pod4}, Port: 80},
	} {
		fd, _ := w.listener("tcp")
		if _, err := w.relay.Publish(Published{[]int{fd}, target}); err == nil {
			t.Errorf("%+v is taken", target)
		}
	}
	stream, _ := w.listener("tcp")
	datagram, _ := w.listener("udp")
	if _, err := w.relay.Publish(Published{[]int{stream, datagram}, good}); err == nil {
		t.Error("TCP and UDP at once are taken")
	}
	w.relay.Close()
	fd, _ := w.listener("tcp")
	if _, err := w.relay.Publish(Published{[]int{fd}, good}); !errors.Is(err, ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}
