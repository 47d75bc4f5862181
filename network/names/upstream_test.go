package names

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/podsh/podsh/network/testns"
	"golang.org/x/sys/unix"
)

// asker is a pod that may ask the servers.
var asker = netip.MustParseAddr("127.0.9.9")

// single is the pod that has it.
var single = Member{ID: "p", Networks: map[string][]netip.Addr{"": {asker}}}

// servers are the kinds of name server that a pod may meet, each on an address of its own.
type servers struct {
	good, silent, failing atomic.Int32 // how often each was asked
}

// start starts them on the loopback interface of the test's namespace.
func (s *servers) start(t *testing.T) {
	t.Helper()
	testns.Run(t, "ip", "link", "set", "lo", "up")
	testns.Run(t, "ip", "address", "add", "fe80::53/64", "dev", "lo", "nodad")
	for _, server := range []struct {
		addr     string
		networks string
		handler  dns.HandlerFunc
	}{
		{"127.0.0.1", "udp tcp", constant("192.0.2.1")},
		{"127.0.0.2", "udp tcp", s.honest},
		{"127.0.0.3", "udp tcp", func(dns.ResponseWriter, *dns.Msg) { s.silent.Add(1) }},
		{"127.0.0.4", "udp tcp", s.fails},
		{"127.0.0.5", "udp", s.forged},
		{"127.0.0.6", "udp", func(w dns.ResponseWriter, q *dns.Msg) { w.WriteMsg(text(q, 800, dns.MinMsgSize)) }},
		{"127.0.0.7", "udp tcp", func(w dns.ResponseWriter, q *dns.Msg) { // as 9.9.9.9 does
			w.WriteMsg(&dns.Msg{MsgHdr: dns.MsgHdr{Id: q.Id, Response: true, Rcode: dns.RcodeRefused}})
		}},
		{"127.0.0.53", "udp tcp", constant("192.0.2.53")},
		{"fe80::53%lo", "udp tcp", constant("192.0.2.80")},
	} {
		for network := range strings.FieldsSeq(server.networks) {
			serve(t, network, net.JoinHostPort(server.addr, "53"), server.handler)
		}
	}
}

func serve(t *testing.T, network, addr string, handler dns.Handler) {
	t.Helper()
	started := make(chan struct{})
	server := &dns.Server{Net: network, Addr: addr, Handler: handler, UDPSize: 4096, NotifyStartedFunc: func() { close(started) }}
	ended := make(chan error, 1)
	go func() { ended <- server.ListenAndServe() }()
	select {
	case <-started:
		t.Cleanup(func() { server.Shutdown() })
	case err := <-ended:
		t.Fatalf("%s %s: %v", network, addr, err)
	}
}

// constant answers everything with one address.
func constant(addr string) dns.HandlerFunc {
	return func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: net.ParseIP(addr)}}
		w.WriteMsg(m)
	}
}

// honest knows a text of N bytes as N.test, and sends what the asker takes; all else is 192.0.2.2.
func (s *servers) honest(w dns.ResponseWriter, q *dns.Msg) {
	s.good.Add(1)
	size, ok := map[string]int{"0.test.": 0, "900.test.": 900, "5000.test.": 5000, "50000.test.": 50000}[q.Question[0].Name]
	if !ok {
		constant("192.0.2.2")(w, q)
		return
	}
	limit := dns.MaxMsgSize
	if _, udp := w.RemoteAddr().(*net.UDPAddr); udp {
		limit = dns.MinMsgSize
		if opt := q.IsEdns0(); opt != nil {
			limit = int(opt.UDPSize())
		}
	}
	w.WriteMsg(text(q, size, limit))
}

// text answers with so many bytes of text, in records of 100, cut to limit.
func text(q *dns.Msg, size, limit int) *dns.Msg {
	m := new(dns.Msg).SetReply(q)
	for ; size > 0; size -= 100 {
		m.Answer = append(m.Answer, &dns.TXT{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeTXT, Class: dns.ClassINET},
			Txt: []string{strings.Repeat("x", 100)}})
	}
	if opt := q.IsEdns0(); opt != nil {
		m.SetEdns0(1232, opt.Do())
	}
	m.Truncate(limit)
	return m
}

func (s *servers) fails(w dns.ResponseWriter, q *dns.Msg) {
	s.failing.Add(1)
	m := new(dns.Msg).SetRcode(q, dns.RcodeServerFailure)
	if q.IsEdns0() != nil {
		m.SetEdns0(1232, false)
		m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeDNSBogus}}
	}
	w.WriteMsg(m)
}

// forged sends what others could have sent before the true answer.
func (s *servers) forged(w dns.ResponseWriter, q *dns.Msg) {
	forge := func(edit func(*dns.Msg)) {
		m := new(dns.Msg).SetReply(q)
		m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: net.IPv4(203, 0, 113, 1)}}
		edit(m)
		w.WriteMsg(m)
	}
	forge(func(m *dns.Msg) { m.Id++ })
	forge(func(m *dns.Msg) {
		m.Question = []dns.Question{{Name: "other.test.", Qtype: dns.TypeA, Qclass: dns.ClassINET}}
	})
	forge(func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeAAAA })
	forge(func(m *dns.Msg) { m.Question = nil })
	forge(func(m *dns.Msg) { m.Response = false })
	w.Write([]byte{0})
	w.Write(nil)
	w.Write(append(binaryID(q.Id), 0x80, 0, 0, 1, 0, 9, 0, 0, 0, 0, 0xc0)) // and what can't be read
	m := new(dns.Msg).SetReply(q)
	m.Question[0].Name = strings.ToUpper(m.Question[0].Name)
	m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: net.IPv4(192, 0, 2, 5)}}
	w.WriteMsg(m)
}

func binaryID(id uint16) []byte { return []byte{byte(id >> 8), byte(id)} }

// resolvConfOf writes a resolv.conf with these servers.
func resolvConfOf(t *testing.T, addrs string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "resolv.conf")
	conf := "options timeout:1\n"
	for addr := range strings.FieldsSeq(addrs) {
		conf += "nameserver " + addr + "\n"
	}
	if err := os.WriteFile(path, []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestServers(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	var s servers
	s.start(t)
	for _, test := range []struct {
		why, servers string
		tcp          bool
		want         string
	}{
		{"one server", "127.0.0.2", false, "192.0.2.2"},
		{"asked by TCP", "127.0.0.2", true, "192.0.2.2"},
		{"the first of two", "127.0.0.53 127.0.0.2", false, "192.0.2.53"},
		{"none named", "", false, "192.0.2.1"},
		{"systemd-resolved's address", "127.0.0.53", false, "192.0.2.53"},
		{"an address with a scope", "fe80::53%lo", false, "192.0.2.80"},
		{"nobody listens", "127.0.0.99", false, "SERVFAIL"},
		{"nobody listens on the first", "127.0.0.99 127.0.0.2", false, "192.0.2.2"},
		{"nobody listens on the first, by TCP", "127.0.0.99 127.0.0.2", true, "192.0.2.2"},
		{"no such interface", "fe80::1%nil0 127.0.0.2", false, "192.0.2.2"},
		{"the first fails", "127.0.0.4 127.0.0.2", false, "192.0.2.2"},
		{"the first refuses with a header", "127.0.0.7 127.0.0.2", false, "192.0.2.2"},
		{"it refuses with a header", "127.0.0.7", false, "REFUSED"},
		{"the only one fails", "127.0.0.4", false, "SERVFAIL"},
		{"the first is silent", "127.0.0.3 127.0.0.2", false, "192.0.2.2"},
		{"forged answers before the true one", "127.0.0.5", false, "192.0.2.5"},
	} {
		f := newForwarder(t, Config{ResolvConf: resolvConfOf(t, test.servers)}, single)
		if got := said(askAs(t, f, asker, question("Name.test", dns.TypeA), test.tcp)); got != test.want {
			t.Errorf("%s: %q, want %q", test.why, got, test.want)
		}
	}
}

func TestOwnServersAndNone(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	var s servers
	s.start(t)
	f := newForwarder(t, Config{ResolvConf: resolvConfOf(t, "127.0.0.4")}, single)
	edns := func(m *dns.Msg) { m.SetEdns0(1232, false) }
	if m := askAs(t, f, asker, question("a.test", dns.TypeA, edns), false); len(m.IsEdns0().Option) != 1 {
		t.Errorf("why the server fails is lost: %v", m)
	}
	if n := s.failing.Load(); n != 1 {
		t.Errorf("who had said that it can't was asked %d times", n)
	}
	own := single
	own.DNS = []netip.Addr{netip.MustParseAddr("127.0.0.2")}
	f.Set(own)
	if got := said(askAs(t, f, asker, question("a.test", dns.TypeA), false)); got != "192.0.2.2" {
		t.Errorf("a pod's own server: %q", got)
	}
	own.Internal = true
	f.Set(own)
	s.good.Store(0)
	if got := said(askAs(t, f, asker, question("a.test", dns.TypeA), false)); got != "NXDOMAIN" || s.good.Load() != 0 {
		t.Errorf("what an internal pod asks left the host: %q", got)
	}
}

func TestSilentServerIsTriedAgain(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	var s servers
	s.start(t)
	f := newForwarder(t, Config{ResolvConf: resolvConfOf(t, "127.0.0.3 127.0.0.4")}, single)
	if got := said(askAs(t, f, asker, question("a.test", dns.TypeA), false)); got != "SERVFAIL" {
		t.Errorf("%q, want SERVFAIL", got)
	}
	if silent, failing := s.silent.Load(), s.failing.Load(); silent != 3 || failing != 1 { // once whether it is there at all
		t.Errorf("asked the silent one %d times, want 3; the failing one %d times, want 1", silent, failing)
	}
}

// TestDeadServerIsRemembered: who waited for it once asks the living one first, until it is there again.
func TestDeadServerIsRemembered(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	var s servers
	s.start(t)
	server, err := net.ListenPacket("udp", "127.0.0.8:53") // silent, until it is served
	if err != nil {
		t.Fatal(err)
	}
	f := newForwarder(t, Config{ResolvConf: resolvConfOf(t, "127.0.0.8 127.0.0.2")}, single)
	ask := func() (string, time.Duration) {
		start := time.Now()
		return said(askAs(t, f, asker, question("a.test", dns.TypeA), false)), time.Since(start)
	}
	if got, took := ask(); got != "192.0.2.2" || took < time.Second {
		t.Fatalf("%q after %v, when the first server is silent for its second", got, took)
	}
	for range 3 { // a busy machine needs some time itself, but not for ever the silent server's second
		eventually(t, "the first server is known to be silent", func() (bool, string) {
			got, took := ask()
			return got == "192.0.2.2" && took < time.Second, fmt.Sprintf("%q after %v", got, took)
		})
	}
	alive := &dns.Server{PacketConn: server, Handler: constant("192.0.2.8")}
	go alive.ActivateAndServe()
	t.Cleanup(func() { alive.Shutdown() })
	slow := 0
	eventually(t, "a server that is there again is asked", func() (bool, string) {
		got, took := ask()
		if slow++; took < time.Second {
			slow = 0
		}
		if slow == 3 {
			t.Fatalf("queries wait, this one %v, for a server that is tried meanwhile", took)
		}
		return got == "192.0.2.8", fmt.Sprintf("%q after %v", got, took)
	})
}

// TestSlowNameIsNoDeadServer: a name that takes its time, which anybody can have, leaves the order of servers alone.
func TestSlowNameIsNoDeadServer(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	var s servers
	s.start(t)
	serve(t, "udp", "127.0.0.9:53", dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		if q.Question[0].Name != "slow.test." {
			constant("192.0.2.9")(w, q)
		}
	}))
	f := newForwarder(t, Config{ResolvConf: resolvConfOf(t, "127.0.0.9 127.0.0.2")}, single)
	if got := said(askAs(t, f, asker, question("slow.test", dns.TypeA), false)); got != "192.0.2.2" {
		t.Fatalf("the slow name: %q", got)
	}
	eventually(t, "the server of a slow name is not taken for dead", func() (bool, string) { // the trial may just be under way
		got := said(askAs(t, f, asker, question("a.test", dns.TypeA), false))
		return got == "192.0.2.9", got
	})
}

func TestSizes(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	var s servers
	s.start(t)
	f := newForwarder(t, Config{ResolvConf: resolvConfOf(t, "127.0.0.2")}, single)
	edns := func(size uint16) func(*dns.Msg) { return func(m *dns.Msg) { m.SetEdns0(size, true) } }
	none := func(*dns.Msg) {}
	for _, test := range []struct {
		why, name string
		edit      func(*dns.Msg)
		tcp       bool
		limit     int
		records   int // -1: some, and truncated
	}{
		{"little", "0.test", none, false, 512, 0},
		{"beyond 512 bytes without EDNS", "900.test", none, false, 512, -1},
		{"beyond 512 bytes with EDNS of that size", "900.test", edns(512), false, 512, -1},
		{"EDNS of a size that can't be", "900.test", edns(0), false, 512, -1},
		{"EDNS with room", "900.test", edns(1232), false, 1232, 9},
		{"beyond all datagrams", "5000.test", edns(65535), false, maxDatagram, -1},
		{"the same by TCP", "5000.test", edns(512), true, 65535, 50},
		{"big", "50000.test", none, true, 65535, 500},
	} {
		q := question(test.name, dns.TypeTXT, test.edit)
		raw, err := q.Pack()
		if err != nil {
			t.Fatal(err)
		}
		raw = f.Answer(context.Background(), raw, asker, test.tcp)
		m := new(dns.Msg)
		if err := m.Unpack(raw); err != nil || len(raw) > test.limit {
			t.Errorf("%s: %d bytes, %v", test.why, len(raw), err)
		}
		if cut := test.records < 0; m.Truncated != cut || cut && len(m.Answer) == 0 || !cut && len(m.Answer) != test.records {
			t.Errorf("%s: %d records, truncated %v", test.why, len(m.Answer), m.Truncated)
		}
		if (q.IsEdns0() == nil) != (m.IsEdns0() == nil) {
			t.Errorf("%s: EDNS was asked for: %v; answered: %v", test.why, q.IsEdns0(), m.IsEdns0())
		}
	}

	// A server that cuts, and has no TCP.
	f = newForwarder(t, Config{ResolvConf: resolvConfOf(t, "127.0.0.6")}, single)
	if m := askAs(t, f, asker, question("a.test", dns.TypeTXT, edns(1232)), false); !m.Truncated || len(m.Answer) == 0 {
		t.Errorf("what there was is lost: %v", m)
	}
}

func TestNewServersAreFound(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	var s servers
	s.start(t)
	path := resolvConfOf(t, "127.0.0.2")
	f := newForwarder(t, Config{ResolvConf: path}, single)
	ask := func() string { return said(askAs(t, f, asker, question("a.test", dns.TypeA), false)) }
	if got := ask(); got != "192.0.2.2" {
		t.Fatal(got)
	}
	if err := os.Rename(resolvConfOf(t, "127.0.0.53"), path); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the other file is read", func() (bool, string) {
		got := ask()
		return got == "192.0.2.53", got
	})
}

// TestNoDescriptor: who can open no more is told so, and no server is taken for dead.
func TestNoDescriptor(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	var s servers
	s.start(t)
	f := newForwarder(t, Config{ResolvConf: resolvConfOf(t, "127.0.0.53 127.0.0.2")}, single)
	askAs(t, f, asker, question("a.test", dns.TypeA), false) // resolv.conf is read
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	few := limit
	few.Cur = 3
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	got := said(askAs(t, f, asker, question("a.test", dns.TypeA), false))
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if got != "SERVFAIL" || f.Starved() == 0 {
		t.Errorf("%q without a descriptor, %d counted", got, f.Starved())
	}
	if got := said(askAs(t, f, asker, question("a.test", dns.TypeA), false)); got != "192.0.2.53" {
		t.Errorf("%q when there are some again", got)
	}
}
