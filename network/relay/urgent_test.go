package relay

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/network/testns"
)

// sendUrgent sends a byte of urgent data.
func sendUrgent(t *testing.T, c *net.TCPConn, b byte) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) { err = unix.Sendto(int(fd), []byte{b}, unix.MSG_OOB, nil) })
	}
	if err != nil {
		t.Error(err)
	}
}

// takeUrgent waits for urgent data, and returns it.
func takeUrgent(t *testing.T, c *net.TCPConn) string {
	t.Helper()
	b := make([]byte, 1)
	raw, err := c.SyscallConn()
	for end := time.Now().Add(10 * time.Second); err == nil; time.Sleep(time.Millisecond) {
		var n int
		failed := raw.Control(func(fd uintptr) { n, _, err = unix.Recvfrom(int(fd), b, unix.MSG_OOB) })
		switch {
		case failed != nil:
			err = failed
		case err == nil:
			return string(b[:n])
		case (err == unix.EINVAL || err == unix.EAGAIN) && time.Now().Before(end):
			err = nil // not yet
		}
	}
	t.Error(err)
	return ""
}

// Urgent data is urgent at the other end, and nothing but that: it is not in the stream, and marks its place.
func TestUrgentData(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	w := newWorld(t, 100)
	talk := func(c *net.TCPConn) {
		_, _ = io.WriteString(c, "abc")
		sendUrgent(t, c, '!')
		_, _ = io.WriteString(c, "def")
		_ = c.CloseWrite()
	}
	listen := func(who string, c *net.TCPConn) {
		urgent := takeUrgent(t, c)
		before := make([]byte, 10)
		n, err := c.Read(before) // it stops at the mark
		if urgent != "!" || string(before[:n]) != "abc" || err != nil {
			t.Errorf("%s: urgent %q, before it %q, %v", who, urgent, before[:n], err)
		}
		if rest, err := io.ReadAll(c); string(rest) != "def" || err != nil {
			t.Errorf("%s: after it %q, %v", who, rest, err)
		}
	}
	for range 50 { // in pieces of all kinds
		done := make(chan bool)
		l := w.serve(":80", func(c *net.TCPConn) {
			defer close(done)
			listen("the service", c)
			talk(c)
		})
		_, at := w.publish("tcp", 80)
		c := w.dial("host", "tcp", "127.0.0.1:"+at).(*net.TCPConn)
		talk(c)
		listen("the client", c)
		<-done
		l.Close()
	}
}

// What comes beside urgent data is whole, however much of it there is.
func TestUrgentDataInBulk(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	w := newWorld(t, 100)
	const size = 3 << 20
	got := make(chan int, 1)
	w.serve(":80", func(c *net.TCPConn) {
		all, err := io.ReadAll(c)
		if err != nil || strings.Contains(string(all), "!") {
			t.Errorf("urgent data in the stream, or %v", err)
		}
		got <- len(all)
	})
	_, at := w.publish("tcp", 80)
	for range 10 {
		c := w.dial("host", "tcp", "127.0.0.1:"+at).(*net.TCPConn)
		for i := range 2 {
			if _, err := c.Write(make([]byte, size)); err != nil {
				t.Fatal(err)
			}
			if i == 0 { // a second byte would have the first taken for data, if nobody has read as far yet
				sendUrgent(t, c, '!')
			}
		}
		_ = c.CloseWrite()
		if n := <-got; n != 2*size {
			t.Errorf("%d bytes, not %d", n, 2*size)
		}
	}
}
