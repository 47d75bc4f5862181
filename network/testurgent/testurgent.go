// Package testurgent sends and takes urgent data, tcp(7), in tests of what passes it on.
package testurgent

import (
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Send sends a byte of urgent data.
func Send(t *testing.T, c *net.TCPConn, b byte) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err == nil {
		failed := raw.Write(func(fd uintptr) bool {
			err = unix.Sendto(int(fd), []byte{b}, unix.MSG_OOB, nil)
			return err != unix.EAGAIN
		})
		if failed != nil {
			err = failed
		}
	}
	if err != nil {
		t.Error(err)
	}
}

// Take waits for urgent data, and returns it.
func Take(t *testing.T, c *net.TCPConn) string {
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

// Talk says something before an urgent byte, unless that is nothing, and something after it, which is all.
func Talk(t *testing.T, c *net.TCPConn, before string) {
	t.Helper()
	if before != "" {
		_, _ = io.WriteString(c, before)
	}
	Send(t, c, '!')
	_, _ = io.WriteString(c, "def")
	_ = c.CloseWrite()
}

// Listen hears what Talk says: the urgent byte is urgent, and nothing but that: it is not in the stream, and marks its
// place.
func Listen(t *testing.T, c *net.TCPConn, before, who string) {
	t.Helper()
	urgent := Take(t, c)
	if urgent != "!" {
		t.Errorf("%s: urgent %q", who, urgent)
	}
	if before != "" {
		heard := make([]byte, 10)
		if n, err := c.Read(heard); string(heard[:n]) != before || err != nil { // it stops at the mark
			t.Errorf("%s: before it %q, %v", who, heard[:n], err)
		}
	}
	if rest, err := io.ReadAll(c); string(rest) != "def" || err != nil {
		t.Errorf("%s: after it %q, %v", who, rest, err)
	}
}
