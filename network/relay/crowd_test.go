package relay

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/podsh/podsh/network/share"
	"github.com/podsh/podsh/network/testns"
)

// answers says whether a client is served: at all, for now, or not.
func (w *world) answers(c net.Conn, within time.Duration) error {
	w.Helper()
	_ = c.SetDeadline(time.Now().Add(within))
	_, err := io.WriteString(c, "x")
	if err == nil {
		_, err = io.ReadFull(c, make([]byte, 1))
	}
	return err
}

// patience is how long what is to come may take: on a busy machine seconds, where nothing is wrong. What is not to come is
// waited for much shorter, at each place.
const patience = 40 * time.Second

// Beyond its limit a pod accepts nobody: clients wait until there is a place.
func TestLimit(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	w := newWorld(t, 2)
	w.serve(":80", echo)
	port, at := w.publish("tcp", 80)
	first, second := w.dialAs("127.0.0.2", "tcp", "127.0.0.1:"+at), w.dialAs("127.0.0.3", "tcp", "127.0.0.1:"+at)
	w.eventually("two are open", func() bool { return port.Counters().Open == 2 })
	third := w.dialAs("127.0.0.4", "tcp", "127.0.0.1:"+at)
	if err := w.answers(third, 100*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("beyond the limit: %v", err)
	}
	first.Close()
	if err := w.answers(third, patience); err != nil {
		t.Errorf("after one has ended: %v", err)
	}
	if err := w.answers(second, patience); err != nil {
		t.Error(err)
	}
}

// One client can't take all places, however hard it tries.
func TestGreedyClient(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	w := newWorld(t, 10)
	w.serve(":80", echo)
	port, at := w.publish("tcp", 80)
	other, otherAt := w.publish("tcp", 80)
	var refused int
	for i := range 20 { // at both ports of the pod
		c, err := w.tryDialAs("127.0.0.2", "tcp", "127.0.0.1:"+[]string{at, otherAt}[i%2])
		if err == nil {
			err = w.answers(c, patience)
		}
		switch {
		case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
			refused++
		case err != nil:
			t.Error(err)
		}
	}
	if open := port.Counters().Open + other.Counters().Open; open != 5 || refused != 15 {
		t.Errorf("%d are open and %d were refused", open, refused)
	}
	for _, client := range []string{"127.0.0.3", "127.0.0.4", "127.0.0.3"} {
		if err := w.answers(w.dialAs(client, "tcp", "127.0.0.1:"+at), patience); err != nil {
			t.Errorf("another client: %v", err)
		}
	}
	w.use("connections", w.sockets, share.Use{Used: 8, Limit: 10, Refused: 15}, share.Use{Used: 8, Limit: 10, Refused: 15})
	port.Close()
	other.Close()
	w.use("connections", w.sockets, share.Use{Limit: 10}, share.Use{Limit: 10, Refused: 15})
}

// use compares how a limit is used.
func (w *world) use(name string, sockets Sockets, pod, all share.Use) {
	w.Helper()
	for _, use := range w.relay.Uses(sockets) {
		if use.Name == name && (use.Pod != pod || use.All != all) {
			w.Errorf("%s: %+v and %+v, not %+v and %+v", name, use.Pod, use.All, pod, all)
		}
	}
}

// One pod can't take all places, however many clients it has.
func TestGreedyPod(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	w := newWorldOf(t, Limits{Connections: 16, Sessions: 1, Shared: true})
	w.serve(":80", echo)
	w.serve(":81", echo)
	neighbour := &struct{ maker }{w.sockets} // in the same place, but another
	port, at := w.publish("tcp", 80)
	_, neighbourAt := w.publishFor(neighbour, "tcp", 81)
	var held []net.Conn
	for i := range 12 {
		held = append(held, w.dialAs(fmt.Sprintf("127.0.1.%d", i+1), "tcp", "127.0.0.1:"+at))
	}
	w.eventually("it has its share", func() bool { return port.Counters().Open == 8 })
	for i := range 4 {
		if err := w.answers(w.dialAs(fmt.Sprintf("127.0.2.%d", i+1), "tcp", "127.0.0.1:"+neighbourAt), patience); err != nil {
			t.Errorf("client %d of the other pod: %v", i, err)
		}
	}
	w.use("connections", neighbour, share.Use{Used: 4, Limit: 4}, share.Use{Used: 12, Limit: 16})
	for _, c := range held[:8] {
		c.Close()
	}
	for _, c := range held[8:] {
		if err := w.answers(c, patience); err != nil {
			t.Errorf("one that had to wait: %v", err)
		}
	}
}

// Sessions of UDP make room for those of the same client, the idlest first.
func TestGreedyClientOfDatagrams(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	w := newWorld(t, 4)
	w.answer(":53")
	port, at := w.publish("udp", 53)
	_, otherAt := w.publish("udp", 53)
	patient := w.dialAs("127.0.0.2", "udp", "127.0.0.1:"+at)
	w.ask(patient, "who")
	a, b := w.dialAs("127.0.0.3", "udp", "127.0.0.1:"+at), w.dialAs("127.0.0.3", "udp", "127.0.0.1:"+at)
	w.ask(a, "who")
	w.ask(b, "who")
	w.ask(a, "who")
	for range 10 { // the first in b's place
		w.ask(w.dialAs("127.0.0.3", "udp", "127.0.0.1:"+at), "who")
		w.ask(a, "who")
		w.ask(patient, "who")
	}
	if got := port.Counters(); got.Connections != 13 || got.Open != 3 {
		t.Errorf("%+v", got)
	}
	greedy := w.dialAs("127.0.0.3", "udp", "127.0.0.1:"+otherAt)
	if _, err := greedy.Write([]byte("who")); err != nil { // its places are all at the other port
		t.Fatal(err)
	}
	w.eventually("it is counted", func() bool { return w.relay.Uses(w.sockets)[1].Pod == share.Use{Used: 3, Limit: 4, Refused: 1} })
}

// Where all is taken somebody who has nothing gets the place of the idlest.
func TestIdlestSessionMakesRoom(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	w := newWorld(t, 2)
	w.answer(":53")
	port, at := w.publish("udp", 53)
	a, b, c := w.dialAs("127.0.0.2", "udp", "127.0.0.1:"+at), w.dialAs("127.0.0.3", "udp", "127.0.0.1:"+at), w.dialAs("127.0.0.4", "udp", "127.0.0.1:"+at)
	w.ask(a, "a")
	w.ask(b, "b")
	w.ask(a, "a")
	w.ask(c, "c") // in b's place
	w.ask(a, "a") // which was not a's
	if got := port.Counters(); got.Connections != 3 || got.Open != 2 {
		t.Errorf("%+v", got)
	}
}

func TestHousehold(t *testing.T) {
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"192.0.2.1", "192.0.2.1", true}, {"192.0.2.1", "192.0.2.2", false},
		{"2001:db8::1", "2001:db8::2", true}, {"2001:db8::1", "2001:db8:0:1::1", false},
		{"fe80::1", "fe80::2", false}, {"fe80::1%lo", "fe80::1", true}, {"::1", "::1", true},
	} {
		if same := household(netip.MustParseAddr(c.a)) == household(netip.MustParseAddr(c.b)); same != c.same {
			t.Errorf("%s and %s: %v", c.a, c.b, same)
		}
	}
}
