package relay

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/network/testns"
)

// publishAsked publishes a UDP port of a pod that can be asked which it has.
func (w *world) publishAsked(port uint16) (*Port, string) {
	w.Helper()
	var thread int
	asked := make(chan bool)
	w.sockets <- func() { thread = unix.Gettid(); close(asked) }
	<-asked
	fd, at := w.listener("udp")
	p, err := w.relay.Publish(Published{[]int{fd}, Target{Sockets: w.sockets, Addresses: []netip.Addr{pod4, pod6}, Port: port,
		Bound: func(port uint16) (bool, error) { return UDPBound(fmt.Sprintf("/proc/self/task/%d/net", thread), port) }}})
	if err != nil {
		w.Fatal(err)
	}
	return p, at
}

// refuses says whether a client is told that nobody is there.
func refuses(c net.Conn) bool {
	_, err := c.Write([]byte("anyone?"))
	if err == nil {
		_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		_, err = c.Read(make([]byte, 100))
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}

// Where there is no service clients are told so, as by a port that nobody has; when there is one it is found.
func TestNoServiceOfDatagrams(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	w := newWorld(t, 100)
	w.withClient()
	port, at := w.publishAsked(53)
	for round, c := range []net.Conn{
		w.dial("far", "udp", "10.9.0.1:"+at), w.dial("far", "udp", "[fd00:9::1]:"+at), w.dial("host", "udp", "127.0.0.1:"+at),
	} {
		w.eventually("the client is told", func() bool { return refuses(c) })
		if other, err := net.ListenPacket("udp", ":"+at); err == nil {
			t.Error("somebody else gets the port")
			other.Close()
		}
		service := w.answer(":53")
		w.eventually("the client is answered", func() bool { return !refuses(c) && port.Counters().Open == 1 })
		if w.ask(c, "who") == "" {
			t.Error("no answer")
		}
		service.Close()
		w.eventually("the session has ended", func() bool {
			_, _ = c.Write([]byte("anyone?")) // ECONNREFUSED is as good
			return port.Counters().Open == 0
		})
		if got := port.Counters().Connections; got < uint64(round+1) {
			t.Errorf("%d sessions", got)
		}
	}
	w.eventually("at the end it is deaf", func() bool { return refuses(w.dial("host", "udp", "127.0.0.1:"+at)) })
	port.Close() // and nothing is left
}

// As long as the service knows some client the port hears.
func TestSessionsKeepAPortFromBeingDeaf(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	w := newWorld(t, 100)
	w.withClient()
	service := w.answer(":53")
	port, at := w.publishAsked(53)
	known := w.dial("host", "udp", "127.0.0.1:"+at)
	w.ask(known, "who")
	service.Close()
	stranger := w.dial("far", "udp", "10.9.0.1:"+at)
	if _, err := stranger.Write([]byte("anyone?")); err != nil {
		t.Fatal(err)
	}
	w.eventually("the stranger is refused", func() bool { return port.Counters().Refused == 1 })
	w.answer(":53")
	if w.ask(known, "who") == "" {
		t.Error("no answer to the one it knows")
	}
}

// And it hears again after a while: whoever looks in vain stops looking.
func TestDeafForAWhile(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	w := newWorld(t, 100)
	w.relay.times.look, w.relay.times.deaf = 10*time.Millisecond, 200*time.Millisecond
	port, at := w.publishAsked(53)
	c := w.dial("host", "udp", "127.0.0.1:"+at)
	w.eventually("the client is told", func() bool { return refuses(c) })
	refused := port.Counters().Refused
	w.eventually("the next one is heard", func() bool { refuses(c); return port.Counters().Refused > refused })
}
