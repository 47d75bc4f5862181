package relay

import (
	"io"
	"net"
	"strings"
	"testing"

	"github.com/podsh/podsh/network/testns"
	"github.com/podsh/podsh/network/testurgent"
)

// Urgent data is urgent at the other end, and nothing but that: it is not in the stream, and marks its place.
func TestUrgentData(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	w := newWorld(t, 100)
	for range 50 { // in pieces of all kinds
		done := make(chan bool)
		l := w.serve(":80", func(c *net.TCPConn) {
			defer close(done)
			testurgent.Listen(t, c, "abc", "the service")
			testurgent.Talk(t, c, "abc")
		})
		_, at := w.publish("tcp", 80)
		c := w.dial("host", "tcp", "127.0.0.1:"+at).(*net.TCPConn)
		testurgent.Talk(t, c, "abc")
		testurgent.Listen(t, c, "abc", "the client")
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
				testurgent.Send(t, c, '!')
			}
		}
		_ = c.CloseWrite()
		if n := <-got; n != 2*size {
			t.Errorf("%d bytes, not %d", n, 2*size)
		}
	}
}
