package names

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/podsh/podsh/network/testns"
)

// listen starts f on 127.0.0.1:53 of the calling thread's network namespace, and returns what waits for both
// servers to end.
func listen(t *testing.T, f *Forwarder) (ended func()) {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:53")
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:53")
	if err != nil {
		t.Fatal(err)
	}
	var servers sync.WaitGroup
	for _, serve := range []func() error{
		func() error { return f.ServeUDP(conn) },
		func() error { return f.ServeTCP(listener) },
	} {
		servers.Go(func() {
			if err := serve(); err != nil {
				t.Error(err)
			}
		})
	}
	return servers.Wait
}

func TestDig(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	var s servers
	s.start(t)
	web, db := netip.MustParseAddr("127.0.1.1"), netip.MustParseAddr("127.0.1.2")
	f := newForwarder(t, Config{ResolvConf: resolvConfOf(t, "127.0.0.2")},
		Member{ID: "1", Names: []string{"web"}, Networks: map[string][]netip.Addr{"front": {web}}},
		Member{ID: "2", Names: []string{"db"}, Networks: map[string][]netip.Addr{"front": {db}}})
	pod := testns.NewNetwork(t)
	var ended func()
	testns.In(t, pod, func() {
		testns.Run(t, "ip", "link", "set", "lo", "up")
		ended = listen(t, f)
		for _, test := range []struct{ args, want string }{
			{"+short web", "127.0.1.1"},
			{"+short WEB.front.", "127.0.1.1"},
			{"+short +tcp web", "127.0.1.1"},
			{"+short +noedns web", "127.0.1.1"},
			{"+short web AAAA", ""},
			{"+short -x 127.0.1.2", "db.front."},
			{"+short a.test", "192.0.2.2"},
			{"+short +tcp a.test", "192.0.2.2"},
			{"+short +noedns a.test", "192.0.2.2"},
			{"+noall +comments web AAAA", "status: NOERROR"},
			{"+noall +comments host.containers.internal", "status: NXDOMAIN"},
			{"+noall +comments +edns=1 +noednsneg web", "status: BADVERS"},
			{"+noall +comments +opcode=update web", "status: NOTIMP"},
			{"+noall +comments +ignore +bufsize=512 900.test TXT", "qr tc rd"},
			{"+noall +comments +ignore +noedns 900.test TXT", "qr tc rd"},
			{"+noall +comments +bufsize=512 900.test TXT", "Truncated, retrying in TCP mode"},
			{"+noall +comments +bufsize=512 900.test TXT", "ANSWER: 9,"},
			{"+noall +comments +bufsize=1232 900.test TXT", "ANSWER: 9,"},
			{"+noall +comments +bufsize=1232 900.test TXT", "udp: 1232"},
			{"+noall +comments +tcp +keepopen 5000.test TXT 900.test TXT", "ANSWER: 50,"},
		} {
			out := testns.Run(t, append([]string{"dig", "@127.0.0.1", "-b", "127.0.1.2", "+time=2", "+tries=1"},
				strings.Fields(test.args)...)...)
			if short := strings.HasPrefix(test.args, "+short"); short && strings.TrimSpace(out) != test.want ||
				!strings.Contains(out, test.want) {
				t.Errorf("dig %s: %q, want %q", test.args, out, test.want)
			}
		}
	})
	f.Close()
	ended()
}

// exchange sends a query on conn and returns what the answer says.
func exchange(conn net.Conn, name string) (string, error) {
	c := &dns.Conn{Conn: conn}
	if err := c.WriteMsg(question(name, dns.TypeA)); err != nil {
		return "", err
	}
	m, err := c.ReadMsg()
	if err != nil {
		return "", err
	}
	return said(m), nil
}

// patience is how long what is to come may take: on a busy machine seconds, where nothing is wrong.
const patience = 40 * time.Second

// eventually waits until something holds; if it does not it tells what was seen instead.
func eventually(t *testing.T, what string, holds func() (is bool, seen string)) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); ; <-tick.C {
		is, seen := holds()
		if is {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s: %s", patience, what, seen)
		}
	}
}

// dial connects from an address to 127.0.0.1:53.
func dial(t *testing.T, network string, from net.Addr) net.Conn {
	t.Helper()
	dialer := net.Dialer{LocalAddr: from}
	conn, err := dialer.Dial(network, "127.0.0.1:53")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return conn
}

func TestShares(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	before := runtime.NumGoroutine()
	testns.Run(t, "ip", "link", "set", "lo", "up")
	silent, err := net.ListenPacket("udp", "127.0.0.3:53")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	const most = 32
	f := newForwarder(t, Config{ResolvConf: resolvConfOf(t, "127.0.0.3"), Queries: most})
	var pods []net.Conn
	ended := listen(t, f)
	for i := range 4 {
		ip := net.IPv4(127, 0, 1, byte(i))
		f.Set(Member{ID: fmt.Sprint(i), Names: []string{fmt.Sprint("pod", i)},
			Networks: map[string][]netip.Addr{"n": {netip.MustParseAddr(ip.String())}}})
		pods = append(pods, dial(t, "udp", &net.UDPAddr{IP: ip}))
	}
	expect := func(why string, pod net.Conn, name, want string) {
		t.Helper()
		if got, err := exchange(pod, name); err != nil || got != want {
			t.Fatalf("%s: %q, %v; want %q", why, got, err, want)
		}
	}
	fill := func(pod net.Conn, n int) {
		t.Helper()
		for range n { // each is in before the next, as the socket's buffer may be small
			if err := (&dns.Conn{Conn: pod}).WriteMsg(question("a.test", dns.TypeA)); err != nil {
				t.Fatal(err)
			}
			expect("a pod's name, while servers are silent", pod, "pod1", "127.0.1.1")
		}
	}
	fill(pods[0], most/2)
	expect("beyond one pod's share", pods[0], "a.test", "SERVFAIL")
	fill(pods[1], most/4)
	expect("beyond one pod's share of what is left", pods[1], "a.test", "SERVFAIL")
	for i, pod := range pods[2:4] { // however many have all that they get, another finds a place
		fill(pod, most/16)
		if got, _ := f.Queries(fmt.Sprint(i + 2)); got.Used != most/16 || got.Refused != 0 {
			t.Errorf("pod %d has %+v, want %d places", i+2, got, most/16)
		}
	}
	if got, all := f.Queries("0"); got.Used != most/2 || got.Refused != 1 || all.Used != most/2+most/4+most/8 || all.Limit != most {
		t.Errorf("who came first: %+v of %+v", got, all)
	}
	f.Close()
	ended()
	if all := f.queries.All(); all.Used != 0 {
		t.Errorf("left: %+v", all)
	}
	eventually(t, "no goroutine is left", func() (bool, string) {
		n := runtime.NumGoroutine()
		return n <= before, fmt.Sprintf("%d goroutines, %d before", n, before)
	})
}

func TestConnections(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	testns.Run(t, "ip", "link", "set", "lo", "up")
	pod := netip.MustParseAddr("127.0.1.1")
	f := newForwarder(t, Config{}, Member{ID: "1", Internal: true, Names: []string{"web"}, Networks: map[string][]netip.Addr{"n": {pod}}})
	ended := listen(t, f)
	from := &net.TCPAddr{IP: pod.AsSlice()}
	if got, err := exchange(dial(t, "tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 1, 9)}), "web"); err == nil {
		t.Errorf("a stranger was let in: %q", got)
	}
	long := &dns.Conn{Conn: dial(t, "tcp", from)}
	if _, err := long.Write(make([]byte, maxDatagram+1)); err != nil {
		t.Fatal(err)
	}
	if m, err := long.ReadMsg(); err == nil {
		t.Errorf("a query too long was answered: %v", m)
	}
	var held []net.Conn
	for len(held) < maxConnections/2-1 { // the long one's end may not be seen yet
		held = append(held, dial(t, "tcp", from))
		for range 2 { // one after the other
			if got, err := exchange(held[len(held)-1], "web"); err != nil || got != pod.String() {
				t.Fatalf("connection %d: %q, %v", len(held), got, err)
			}
		}
	}
	var err error
	for range 2 { // at least the second is one too many
		held = append(held, dial(t, "tcp", from))
		_, err = exchange(held[len(held)-1], "web")
	}
	if err == nil {
		t.Error("a pod has more connections than its share")
	}
	f.Close()
	ended()
	if m, err := (&dns.Conn{Conn: held[0]}).ReadMsg(); err == nil {
		t.Errorf("a connection outlives the forwarder: %v", m)
	}
	if all := f.connections.All(); all.Used != 0 {
		t.Errorf("left: %+v", all)
	}
}

func TestManyAtOnce(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	var s servers
	s.start(t)
	f := newForwarder(t, Config{ResolvConf: resolvConfOf(t, "127.0.0.2")})
	addrs := make([]netip.Addr, 8)
	for i := range addrs {
		addrs[i] = netip.AddrFrom4([4]byte{127, 0, 1, byte(i)})
		f.Set(Member{ID: fmt.Sprint(i), Names: []string{fmt.Sprint("pod", i)}, Networks: map[string][]netip.Addr{"n": {addrs[i]}}})
	}
	var work sync.WaitGroup
	for i, addr := range addrs {
		work.Go(func() {
			for range 50 {
				next := (i + 1) % 4 // 4 to 7 come and go
				if got := said(askAs(t, f, addrs[i%4], question(fmt.Sprint("pod", next), dns.TypeA), i%2 == 0)); got != addrs[next].String() {
					t.Errorf("pod%d: %q", next, got)
				}
				if got := said(askAs(t, f, addrs[i%4], question("a.test", dns.TypeA), i%2 == 0)); got != "192.0.2.2" {
					t.Errorf("a.test: %q", got)
				}
				if id := fmt.Sprint(i); i >= 4 {
					f.Remove(id)
					f.Set(Member{ID: id, Names: []string{"pod" + id}, Networks: map[string][]netip.Addr{"n": {addr}}})
				}
			}
		})
	}
	work.Wait()
}

func TestAnswerEnds(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	var s servers
	s.start(t)
	f := newForwarder(t, Config{ResolvConf: resolvConfOf(t, "127.0.0.3")}, Member{ID: "1", Networks: map[string][]netip.Addr{"": {asker}}})
	raw, err := question("a.test", dns.TypeA).Pack()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if answer := f.Answer(ctx, raw, asker, false); answer != nil || f.queries.All().Used != 0 {
		t.Errorf("%v, %+v in flight", answer, f.queries.All())
	}
	f.Close()
	if answer := f.Answer(context.Background(), raw, asker, true); answer != nil {
		t.Errorf("after Close: %v", answer)
	}
}
