package relay

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/podsh/podsh/network/testns"
)

// answer runs a UDP service in the pod that tells clients how it sees them. It is silent to "quiet".
func (w *world) answer(address string) net.PacketConn {
	w.Helper()
	var c net.PacketConn
	var err error
	testns.In(w, w.pod, func() { c, err = net.ListenPacket("udp", address) })
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { c.Close() })
	go func() {
		buffer := make([]byte, 64<<10)
		for {
			n, from, err := c.ReadFrom(buffer)
			if err != nil {
				return
			}
			if string(buffer[:n]) != "quiet" {
				a := from.(*net.UDPAddr).AddrPort()
				_, _ = c.WriteTo([]byte(netip.AddrPortFrom(a.Addr().Unmap(), a.Port()).String()), from)
			}
		}
	}()
	return c
}

// ask sends a datagram, and returns the reply.
func (w *world) ask(c net.Conn, word string) string {
	w.Helper()
	buffer := make([]byte, 200)
	if _, err := c.Write([]byte(word)); err != nil {
		w.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(patience))
	n, err := c.Read(buffer)
	if err != nil {
		w.Errorf("%v to %v: %v", c.LocalAddr(), c.RemoteAddr(), err)
	}
	return string(buffer[:n])
}

func TestDatagramServiceSeesTheClient(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	w := newWorld(t, 100)
	w.withClient()
	w.answer(":53")
	port, at := w.publish("udp", 53)
	for _, c := range []struct{ from, to string }{
		// 10.9.0.3 is not the address that the host would choose for a reply; a connected client wants that one.
		{"far", "10.9.0.1"}, {"far", "10.9.0.3"}, {"far", "fd00:9::1"}, {"host", "127.0.0.1"}, {"host", "::1"},
	} {
		client := w.dial(c.from, "udp", net.JoinHostPort(c.to, at))
		for range 3 {
			if saw := w.ask(client, "who"); saw != client.LocalAddr().String() {
				t.Errorf("%s to %s: the service saw %q, not %v", c.from, c.to, saw, client.LocalAddr())
			}
		}
	}
	if c := port.Counters(); c.Connections != 5 || c.Open != 5 || c.BytesIn != 45 || c.BytesOut < 100 {
		t.Errorf("%+v", c)
	}
}

func TestDatagramServiceOnLocalhost(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	w := newWorld(t, 100)
	w.withClient()
	w.answer("127.0.0.1:53")
	_, at := w.publish("udp", 53)
	for _, c := range []struct{ from, to string }{{"far", "10.9.0.1"}, {"far", "fd00:9::1"}, {"host", "127.0.0.1"}} {
		if saw := w.ask(w.dial(c.from, "udp", net.JoinHostPort(c.to, at)), "who"); saw == "" {
			t.Errorf("%s to %s: nothing", c.from, c.to)
		}
	}
}

func TestDatagramRefused(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	w := newWorld(t, 100)
	port, at := w.publish("udp", 53)
	c := w.dial("host", "udp", "127.0.0.1:"+at)
	_, _ = c.Write([]byte("anyone?"))
	w.eventually("the session has ended", func() bool {
		c := port.Counters()
		return c.Connections == 1 && c.Refused == 1 && c.Open == 0
	})
	service := w.answer(":53")
	if w.ask(c, "now") == "" {
		t.Error("no answer once there is a service")
	}
	service.Close()
	_, _ = c.Write([]byte("and now?"))
	w.eventually("the session has ended", func() bool { return port.Counters().Open == 0 })
}

func TestSessionsEnd(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	w := newWorld(t, 100)
	w.relay.times = times{unanswered: 3 * time.Second, answered: 4 * time.Second, tick: 20 * time.Millisecond}
	w.answer(":53") // in less than that, on a busy machine too
	port, at := w.publish("udp", 53)
	w.ask(w.dial("host", "udp", "127.0.0.1:"+at), "who")
	answered := time.Now()
	_, _ = w.dial("host", "udp", "127.0.0.1:"+at).Write([]byte("quiet"))
	w.eventually("both are open", func() bool { return port.Counters().Connections == 2 })
	w.eventually("the quiet one has ended", func() bool { return port.Counters().Open <= 1 })
	w.eventually("both have ended", func() bool { return port.Counters().Open == 0 })
	if time.Since(answered) < w.relay.times.answered {
		t.Error("the answered one ended too early")
	}
}
