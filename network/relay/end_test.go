package relay

import (
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/network/testns"
)

// hasten makes the kernel ask, and forget, within seconds what else takes minutes.
func (w *world) hasten() {
	w.Helper()
	w.relay.times.client = keepalive{idle: 1, interval: 1, count: 2} // no loop uses it yet
	w.relay.times.service = w.relay.times.client
	forget := func() {
		if err := os.WriteFile("/proc/sys/net/ipv4/tcp_fin_timeout", []byte("1"), 0); err != nil {
			w.Error(err)
		}
	}
	forget()
	testns.In(w, w.pod, forget)
}

// has says whether a connection in the pod, or on the host, is in one of the states, as proc_net_tcp(5) has them.
func (w *world) has(where string, port string, states ...string) bool {
	w.Helper()
	var text []byte
	read := func() {
		for _, file := range []string{"/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"} {
			more, err := os.ReadFile(file)
			if err != nil {
				w.Error(err)
			}
			text = append(text, more...)
		}
	}
	if where == "pod" {
		testns.In(w, w.pod, read)
	} else {
		read()
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 4 || !strings.HasSuffix(fields[1], port) && !strings.HasSuffix(fields[2], port) {
			continue
		}
		for _, state := range states {
			if fields[3] == state {
				return true
			}
		}
	}
	return false
}

const (
	finWait1  = "04"
	finWait2  = "05"
	closeWait = "08"
)

// A service that has closed is gone when its kernel has forgotten the connection, whatever the client does. One that
// has only said its end goes on listening.
func TestServiceGivesUpASilentClient(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	w := newWorld(t, 100)
	w.hasten()
	heard := make(chan string, 1)
	w.serve(":80", func(*net.TCPConn) {})
	w.serve(":81", func(c *net.TCPConn) {
		_ = c.CloseWrite()
		all, _ := io.ReadAll(c)
		heard <- string(all)
	})
	closes, at := w.publish("tcp", 80)
	ends, endsAt := w.publish("tcp", 81)
	silent, listens := w.dial("host", "tcp", "127.0.0.1:"+at), w.dial("host", "tcp", "127.0.0.1:"+endsAt)
	for _, c := range []net.Conn{silent, listens} {
		if n, err := c.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Fatalf("%d, %v", n, err)
		}
	}
	w.eventually("the silent client's place is free", func() bool { return closes.Counters().Open == 0 })
	if open := ends.Counters().Open; open != 1 {
		t.Fatalf("%d connections to the service that listens", open)
	}
	if _, err := io.WriteString(listens, "still here"); err != nil {
		t.Error(err)
	}
	listens.Close()
	if got := <-heard; got != "still here" {
		t.Errorf("the service heard %q", got)
	}
}

// The same the other way: the client has ended and is gone, and a service does not care.
func TestClientGivesUpASilentService(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	w := newWorld(t, 100)
	w.hasten()
	over := make(chan bool)
	w.serve(":80", func(*net.TCPConn) { <-over })
	defer close(over)
	port, at := w.publish("tcp", 80)
	gone, listens := w.dial("host", "tcp", "127.0.0.1:"+at), w.dial("host", "tcp", "127.0.0.1:"+at)
	_ = listens.(*net.TCPConn).CloseWrite()
	_ = listens.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	w.eventually("both are there", func() bool { return port.Counters().Open == 2 })
	gone.Close()
	w.eventually("its place is free", func() bool { return port.Counters().Open == 1 })
	if n, err := listens.Read(make([]byte, 1)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the other one read %d, %v", n, err)
	}
}

func TestClientThatVanished(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	w := newWorld(t, 100)
	w.withClient()
	w.hasten()
	got := make(chan error, 1)
	w.serve(":80", func(c *net.TCPConn) {
		_, err := io.ReadAll(c)
		got <- err
	})
	port, at := w.publish("tcp", 80)
	w.dial("far", "tcp", "10.9.0.1:"+at)
	w.eventually("it is there", func() bool { return port.Counters().Open == 1 })
	testns.In(w, w.far, func() { testns.Run(w, "ip", "link", "set", "c0", "down") })
	w.eventually("it is gone", func() bool { return port.Counters().Open == 0 })
	if err := <-got; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the service read: %v", err)
	}
}

// What a service has left when it went reaches a client that takes its time.
func TestSlowClientOutlivesItsService(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	w := newWorld(t, 100)
	w.hasten()
	const size = 1 << 20
	w.serve(":80", func(c *net.TCPConn) { _, _ = c.Write(make([]byte, size)) })
	port, at := w.publish("tcp", 80)
	c := w.dialSlow("127.0.0.1:" + at)
	w.eventually("the service is gone", func() bool {
		return port.Counters().Connections == 1 && port.Counters().BytesOut > 0 && !w.has("pod", ":0050", "01", finWait1, finWait2, closeWait)
	})
	if n, err := io.Copy(io.Discard, c); n != size || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	w.eventually("all have ended", func() bool { return port.Counters().Open == 0 })
}

// And what a client has left reaches a service that takes its time.
func TestSlowServiceOutlivesItsClient(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	w := newWorld(t, 100)
	w.hasten()
	const size = 1 << 20
	begin, done := make(chan bool), make(chan error, 1)
	w.serve(":80", func(c *net.TCPConn) {
		_ = c.SetReadBuffer(64 << 10)
		<-begin
		n, err := io.Copy(io.Discard, c)
		if n != size {
			t.Errorf("%d bytes", n)
		}
		done <- err
	})
	port, at := w.publish("tcp", 80)
	c := w.dial("host", "tcp", "127.0.0.1:"+at)
	if _, err := c.Write(make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	c.Close()
	w.eventually("the client is gone", func() bool { return !w.has("host", hexPort(at), "01", finWait1, finWait2, closeWait) })
	close(begin)
	if err := <-done; err != nil {
		t.Errorf("the service read: %v", err)
	}
	w.eventually("all have ended", func() bool { return port.Counters().Open == 0 })
}

// Nobody waits for ever for one who takes nothing.
func TestClientThatTakesNothingFromAServiceThatWent(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	w := newWorld(t, 100)
	w.hasten()
	w.relay.times.stuck, w.relay.times.tick = 100*time.Millisecond, 20*time.Millisecond
	w.serve(":80", func(c *net.TCPConn) {
		_, _ = c.Write(make([]byte, 1<<20))
		_, _ = c.Read(make([]byte, 1)) // all is written
		_ = c.SetLinger(0)
	})
	port, at := w.publish("tcp", 80)
	c := w.dialSlow("127.0.0.1:" + at)
	w.eventually("much is on its way", func() bool { return port.Counters().BytesOut > 100<<10 })
	if _, err := io.WriteString(c, "x"); err != nil {
		t.Fatal(err)
	}
	w.eventually("its place is free", func() bool { return port.Counters().Open == 0 })
}

// A service that takes no connection, and one whose pod makes no socket, are given up.
func TestServiceThatNeverTakes(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	w := newWorld(t, 100)
	w.relay.times.dial, w.relay.times.tick = 300*time.Millisecond, 20*time.Millisecond
	testns.In(w, w.pod, func() {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			err = errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Port: 80}), unix.Listen(fd, 0))
		}
		if err != nil {
			t.Fatal(err)
		}
		w.Cleanup(func() { unix.Close(fd) })
	})
	full, at := w.publish("tcp", 80)
	for range 3 {
		w.dial("host", "tcp", "127.0.0.1:"+at)
	}
	w.eventually("the last is refused", func() bool {
		return full.Counters() == Counters{Connections: 3, Open: 1, Refused: 2} ||
			full.Counters() == Counters{Connections: 3, Open: 2, Refused: 1}
	})

	over := make(chan bool)
	fd, at := w.listener("tcp")
	port, err := w.relay.Publish(Published{[]int{fd}, Target{
		Sockets: &makerFunc{func() ([]int, error) { <-over; return nil, unix.EPIPE }}, Addresses: full.target.Addresses, Port: 80}})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.end(at); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client met: %v", err)
	}
	w.eventually("it is counted", func() bool { return port.Counters() == Counters{Connections: 1, Refused: 1} })
	close(over)
}
