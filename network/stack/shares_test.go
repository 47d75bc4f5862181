package stack

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/podsh/podsh/network/testns"
	"golang.org/x/sys/unix"
)

// neighbours starts a Stack behind which are two pods, greedy at 10.0.2.100 and modest at 10.0.2.101.
func neighbours(t *testing.T) (*lab, *Stack) {
	l := newLab(t)
	few := sizesFor(defaultDescriptors)
	few.dials, few.connections, few.flows, few.tiers = 8, 16, 8, []int{2, 4}
	owner := func(src netip.Addr) string {
		return map[string]string{"10.0.2.100": "greedy", "10.0.2.101": "modest"}[src.String()]
	}
	s := l.startWith(Config{Owner: owner, Shared: true}, newLimits(few, defaultTimes, true))
	l.up(l.pod, "tun0", "10.0.2.101/24")
	testns.Run(t, "ip", "route", "add", "192.0.2.0/24", "via", "10.9.0.2")
	l.sysctl(l.other, "net.ipv4.ip_forward", "0") // it may come from the machine; so nothing says anything of 192.0.2.0/24
	return l, s
}

// dialFrom connects from one of the pods.
func (l *lab) dialFrom(src, addr string) (conn net.Conn, err error) {
	l.t.Helper()
	testns.In(l.t, l.pod, func() {
		dialer := net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: net.ParseIP(src)}}
		conn, err = dialer.Dial("tcp", addr)
	})
	if err == nil {
		l.t.Cleanup(func() { conn.Close() })
		conn.SetDeadline(time.Now().Add(patience))
	}
	return conn, err
}

// One pod's connections into nowhere don't make another's wait.
func TestDialsAreShared(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	l, s := neighbours(t)
	l.listen(l.other, "10.9.0.2:80", echo)
	l.hang(12, [4]byte{192, 0, 2, 1}) // from 10.0.2.100
	eventually(t, "the greedy one has his share", func() bool { return s.Uses("greedy")[1].Own.Refused > 0 },
		func() any { return s.Uses("greedy") })
	conn, err := l.dialFrom("10.0.2.101", "10.9.0.2:80")
	if err != nil {
		t.Fatal(err)
	}
	exchange(t, conn, "hello")
	use := s.Uses("greedy")[1]
	if use.Name != "dials" || use.Own.Used != 4 || use.All.Limit != 8 || s.Uses("modest")[1].Own.Refused != 0 {
		t.Errorf("%+v", use)
	}
}

// One pod that opens all it may leaves others enough.
func TestConnectionsAreShared(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	l, s := neighbours(t)
	l.listen(l.other, "10.9.0.2:80", echo)
	opened := 0
	for range 16 {
		conn, err := l.dialFrom("10.0.2.100", "10.9.0.2:80")
		if err != nil {
			if !errors.Is(err, unix.ECONNREFUSED) {
				t.Error(err)
			}
			break
		}
		exchange(t, conn, "hello")
		opened++
	}
	if use := s.Uses("greedy")[0]; opened != 8 || use.Own.Used != 8 || use.Own.Refused != 1 || use.All.Limit != 16 {
		t.Errorf("%d opened, %+v", opened, use)
	}
	for range 4 {
		conn, err := l.dialFrom("10.0.2.101", "10.9.0.2:80")
		if err != nil {
			t.Fatal(err)
		}
		exchange(t, conn, "hello")
	}
	if use := s.Uses("modest")[0].Own; use.Used != 4 || use.Refused != 0 {
		t.Errorf("%+v", use)
	}
}

// One pod's flows take the place of its own, not of another's.
func TestFlowsAreShared(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	l, s := neighbours(t)
	l.tell(l.other, "10.9.0.2:70")
	modest := l.packets(l.pod, "10.0.2.101:4000")
	greedy := l.packets(l.pod, "10.0.2.100:4000")
	mine, oldest := ask(t, modest, "10.9.0.2:70"), ask(t, greedy, "10.9.0.2:70")
	for range 40 {
		if ask(t, l.packets(l.pod, "10.0.2.100:0"), "10.9.0.2:70") == "" {
			t.Fatal("a new flow of the greedy one gets nowhere")
		}
	}
	if again := ask(t, modest, "10.9.0.2:70"); again != mine || mine == "" {
		t.Errorf("the modest one is seen as %q, not %q", again, mine)
	}
	if again := ask(t, greedy, "10.9.0.2:70"); again == oldest || again == "" {
		t.Errorf("the greedy one's first flow is still seen as %q", again)
	}
	if use := s.Uses("greedy")[2]; use.Own.Used != 4 || use.Own.Refused == 0 || use.All.Used != 5 {
		t.Errorf("%+v", use)
	}
}

// How much of everything there may be follows from the descriptors, and it fits into them.
func TestSizes(t *testing.T) {
	for _, descriptors := range []int{64, 256, 1024, 5000, 1 << 18} {
		s := sizesFor(descriptors)
		if s.connections+s.flows > descriptors || s.dials < 8 || s.flows < 16 || s.connections < 48 {
			t.Errorf("%d descriptors: %+v", descriptors, s)
		}
	}
	if s := sizesFor(1 << 18); s.connections != mostConnections || s.flows != mostFlows || s.dials != mostDials {
		t.Errorf("%+v", s)
	}
}
