package names

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// Three pods on two networks, as the tests see them: web is on both, db on one, lone on the other.
var (
	webFront = netip.MustParseAddr("10.1.0.2")
	webBack  = netip.MustParseAddr("10.2.0.2")
	webBack6 = netip.MustParseAddr("fd00:2::2")
	dbBack   = netip.MustParseAddr("10.2.0.3")
	lone     = netip.MustParseAddr("10.1.0.4")
	twin     = netip.MustParseAddr("10.2.0.5")
	outside  = netip.MustParseAddr("10.3.0.6") // on no network with names
)

var members = []Member{
	{ID: "1", Names: []string{"web", "www"}, Internal: true,
		Networks: map[string][]netip.Addr{"front": {webFront}, "Back": {webBack, webBack6}}},
	{ID: "2", Names: []string{"DB"}, Internal: true, Networks: map[string][]netip.Addr{"back": {dbBack}}},
	{ID: "3", Names: []string{"lone"}, Aliases: map[string][]string{"front": {"Solo", "www.solo"}, "back": {"nowhere"}}, Internal: true, Networks: map[string][]netip.Addr{"front": {lone}}},
	{ID: "4", Names: []string{"twin", "www"}, Internal: true, Networks: map[string][]netip.Addr{"back": {twin}}},
	{ID: "5", Names: []string{"outside"}, Internal: true, Networks: map[string][]netip.Addr{"": {outside}}},
}

func newForwarder(t testing.TB, config Config, members ...Member) *Forwarder {
	f := New(config)
	t.Cleanup(f.Close)
	for _, m := range members {
		f.Set(m)
	}
	return f
}

// question is a query for name, changed by edit.
func question(name string, kind uint16, edit ...func(*dns.Msg)) *dns.Msg {
	m := new(dns.Msg).SetQuestion(dns.Fqdn(name), kind)
	for _, e := range edit {
		e(m)
	}
	return m
}

// askAs lets the pod at from ask, and checks what is true of every answer.
func askAs(t testing.TB, f *Forwarder, from netip.Addr, query *dns.Msg, tcp bool) *dns.Msg {
	t.Helper()
	raw, err := query.Pack()
	if err != nil {
		t.Fatal(err)
	}
	answer := new(dns.Msg)
	if err := answer.Unpack(f.Answer(context.Background(), raw, from, tcp)); err != nil {
		t.Fatalf("%s: %v", query.Question[0].Name, err)
	}
	if !answer.Response || answer.Id != query.Id || len(answer.Question) != 1 || answer.Question[0] != query.Question[0] {
		t.Fatalf("not an answer to %v:\n%v", query, answer)
	}
	return answer
}

// said is an answer in short: its rcode, or what its records hold.
func said(m *dns.Msg) string {
	var words []string
	if m.Rcode != dns.RcodeSuccess {
		words = append(words, dns.RcodeToString[m.Rcode])
	}
	for _, record := range m.Answer {
		words = append(words, strings.TrimPrefix(record.String(), record.Header().String()))
	}
	slices.Sort(words)
	return strings.Join(words, " ")
}

func TestMembers(t *testing.T) {
	f := newForwarder(t, Config{HostAddresses: func(from netip.Addr) []netip.Addr {
		if from == lone {
			return []netip.Addr{netip.MustParseAddr("10.1.0.1")}
		}
		return nil
	}}, members...)
	for _, test := range []struct {
		why  string
		from netip.Addr
		name string
		kind uint16
		want string
	}{
		{"on a shared network", lone, "web", dns.TypeA, "10.1.0.2"},
		{"only the shared one's address", dbBack, "web", dns.TypeA, "10.2.0.2"},
		{"in every case", dbBack, "wEB.bacK", dns.TypeA, "10.2.0.2"},
		{"a member's own case", webBack, "db", dns.TypeA, "10.2.0.3"},
		{"IPv6", dbBack, "web", dns.TypeAAAA, "fd00:2::2"},
		{"both", dbBack, "web", dns.TypeANY, "10.2.0.2 fd00:2::2"},
		{"asked by another address of the same pod", webBack6, "lone", dns.TypeA, "10.1.0.4"},
		{"a mapped source", netip.AddrFrom16(lone.As16()), "web", dns.TypeA, "10.1.0.2"},
		{"all networks both are on", webFront, "web", dns.TypeA, "10.1.0.2 10.2.0.2"},
		{"one of them", webFront, "web.front", dns.TypeA, "10.1.0.2"},
		{"a name that two have", dbBack, "www", dns.TypeA, "10.2.0.2 10.2.0.5"},
		{"a name that two have, of which one is seen", lone, "www", dns.TypeA, "10.1.0.2"},
		{"known, but has no IPv6", lone, "web", dns.TypeAAAA, ""},
		{"known, but has no mail", lone, "web", dns.TypeMX, ""},
		{"on no network of the asker's", lone, "db", dns.TypeA, "NXDOMAIN"},
		{"a network the asker isn't on", lone, "web.back", dns.TypeA, "NXDOMAIN"},
		{"a network the pod isn't on", webFront, "lone.back", dns.TypeA, "NXDOMAIN"},
		{"nobody", lone, "nobody", dns.TypeA, "NXDOMAIN"},
		{"an alias", webFront, "solo", dns.TypeA, "10.1.0.4"},
		{"an alias and the network", webFront, "www.SOLO.front", dns.TypeA, "10.1.0.4"},
		{"an alias of a network that it is not on", dbBack, "nowhere", dns.TypeA, "NXDOMAIN"},
		{"an alias where it has none", dbBack, "solo", dns.TypeA, "NXDOMAIN"},
		{"in the domain of pods", lone, "web.DNS.podsh", dns.TypeA, "10.1.0.2"},
		{"in the domain of pods, by network", webFront, "web.back.dns.podsh", dns.TypeA, "10.2.0.2"},
		{"nobody in the domain of pods, and no server is asked", webFront, "nobody.dns.podsh", dns.TypeA, "NXDOMAIN"},
		{"below a pod's name", lone, "x.web", dns.TypeA, "NXDOMAIN"},
		{"a network alone", lone, "front", dns.TypeA, "NXDOMAIN"},
		{"the root", lone, ".", dns.TypeNS, "NXDOMAIN"},
		{"on no network with names", outside, "outside", dns.TypeA, "NXDOMAIN"},
		{"its address", outside, "6.0.3.10.in-addr.arpa", dns.TypePTR, "NXDOMAIN"},
		{"an address", lone, "2.0.1.10.in-addr.arpa", dns.TypePTR, "web.front."},
		{"an IPv6 address", dbBack, "2." + strings.Repeat("0.", 23) + "2.0.0.0.0.0.D.F.ip6.arpa", dns.TypePTR, "web.back."},
		{"an address seen by none", lone, "3.0.2.10.in-addr.arpa", dns.TypePTR, "NXDOMAIN"},
		{"the other address of a pod that is seen", lone, "2.0.2.10.in-addr.arpa", dns.TypePTR, "NXDOMAIN"},
		{"an address that isn't asked for a name", lone, "2.0.1.10.in-addr.arpa", dns.TypeA, ""},
		{"the host", lone, HostName, dns.TypeA, "10.1.0.1"},
		{"the host, as docker calls it", lone, "host.Docker.internal", dns.TypeA, "10.1.0.1"},
		{"the host, which has no IPv6", lone, HostName, dns.TypeAAAA, ""},
		{"the host, not to be reached", dbBack, HostName, dns.TypeA, "NXDOMAIN"},
		{"a stranger", netip.MustParseAddr("10.9.9.9"), "web", dns.TypeA, "REFUSED"},
		{"no address at all", netip.Addr{}, "web", dns.TypeA, "REFUSED"},
	} {
		if got := said(askAs(t, f, test.from, question(test.name, test.kind), false)); got != test.want {
			t.Errorf("%s: %s asks for %s: %q, want %q", test.why, test.from, test.name, got, test.want)
		}
	}
}

func TestMembersChange(t *testing.T) {
	f := newForwarder(t, Config{}, members...)
	expect := func(name, want string) {
		t.Helper()
		if got := said(askAs(t, f, lone, question(name, dns.TypeA), false)); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	expect("web", "10.1.0.2")
	moved := members[0]
	moved.Names, moved.Networks = []string{"site"}, map[string][]netip.Addr{"front": {netip.MustParseAddr("10.1.0.9")}}
	f.Set(moved)
	expect("web", "NXDOMAIN")
	expect("site", "10.1.0.9")
	f.Remove(moved.ID)
	f.Remove(moved.ID)
	expect("site", "NXDOMAIN")
	// Its address is another pod's before the first is known to be gone.
	f.Set(Member{ID: "6", Internal: true, Names: []string{"heir"}, Networks: map[string][]netip.Addr{"back": {lone}}})
	expect("db", "10.2.0.3")
	f.Remove("3")
	expect("db", "10.2.0.3")
}

func TestBadMessages(t *testing.T) {
	f := newForwarder(t, Config{}, members...)
	opt := func(m *dns.Msg) { m.SetEdns0(1232, true) }
	for _, test := range []struct {
		why   string
		query *dns.Msg
		rcode int
	}{
		{"an answer", question("web", dns.TypeA, func(m *dns.Msg) { m.Response = true }), -1},
		{"an update", question("web", dns.TypeA, func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate }), dns.RcodeNotImplemented},
		{"a notify", question("web", dns.TypeA, func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify }), dns.RcodeNotImplemented},
		{"no question", &dns.Msg{MsgHdr: dns.MsgHdr{Id: 7}}, dns.RcodeFormatError},
		{"two questions", question("web", dns.TypeA, func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }), dns.RcodeFormatError},
		{"a zone", question("front", dns.TypeAXFR), dns.RcodeNotImplemented},
		{"another class", question("version.bind", dns.TypeTXT, func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }), dns.RcodeRefused},
		{"two OPT", question("web", dns.TypeA, opt, opt), dns.RcodeFormatError},
		{"EDNS of tomorrow", question("web", dns.TypeA, opt, func(m *dns.Msg) { m.IsEdns0().SetVersion(1) }), dns.RcodeBadVers},
		{"plain EDNS", question("web", dns.TypeA, opt), dns.RcodeSuccess},
	} {
		raw, err := test.query.Pack()
		if err != nil {
			t.Fatal(err)
		}
		answer, rcode := new(dns.Msg), -1
		if raw := f.Answer(context.Background(), raw, lone, false); raw != nil {
			if err := answer.Unpack(raw); err != nil || answer.Id != test.query.Id || !answer.Response {
				t.Fatalf("%s: %v\n%v", test.why, err, answer)
			}
			rcode = answer.Rcode
		}
		if rcode != test.rcode {
			t.Errorf("%s: rcode %d, want %d", test.why, rcode, test.rcode)
		}
		if rcode >= 0 && (answer.IsEdns0() != nil) != (test.query.IsEdns0() != nil) {
			t.Errorf("%s: EDNS for who has none, or none for who has: %v", test.why, answer)
		}
	}
	whole, _ := question("web", dns.TypeA).Pack()
	for length := range whole { // cut anywhere
		answer := f.Answer(context.Background(), whole[:length], lone, true)
		if length < 12 && answer != nil || length >= 12 && (answer == nil || answer[3]&0xf == dns.RcodeSuccess) {
			t.Errorf("the first %d bytes of a query: %v", length, answer)
		}
	}
	if answer := f.Answer(context.Background(), append(whole, make([]byte, maxDatagram)...), lone, true); answer[3]&0xf != dns.RcodeFormatError {
		t.Errorf("a query too long: %v", answer)
	}
}

func TestManyAddressesAreCut(t *testing.T) {
	many := Member{ID: "m", Internal: true, Names: []string{"many"}, Networks: map[string][]netip.Addr{"n": nil}}
	for i := range 250 {
		many.Networks["n"] = append(many.Networks["n"], netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}))
	}
	f := newForwarder(t, Config{}, many)
	from := many.Networks["n"][0]
	cut := askAs(t, f, from, question("many", dns.TypeA), false)
	if cut.Compress = true; !cut.Truncated || len(cut.Answer) == 0 || cut.Len() > dns.MinMsgSize {
		t.Errorf("%d bytes, truncated %v, %d records", cut.Len(), cut.Truncated, len(cut.Answer))
	}
	if whole := askAs(t, f, from, question("many", dns.TypeA), true); whole.Truncated || len(whole.Answer) != 250 {
		t.Errorf("by TCP: truncated %v, %d records", whole.Truncated, len(whole.Answer))
	}
}

func TestUnpackableNameIsServfail(t *testing.T) {
	f := newForwarder(t, Config{}, Member{ID: "x", Internal: true, Names: []string{strings.Repeat("x", 70)},
		Networks: map[string][]netip.Addr{"n": {lone}}})
	if got := said(askAs(t, f, lone, question("4.0.1.10.in-addr.arpa", dns.TypePTR), false)); got != "SERVFAIL" {
		t.Errorf("%q, want SERVFAIL", got)
	}
}

func FuzzAnswer(f *testing.F) {
	forwarder := newForwarder(f, Config{HostAddresses: func(netip.Addr) []netip.Addr { return []netip.Addr{lone} }}, members...)
	for _, m := range []*dns.Msg{question("web", dns.TypeANY), question(HostName, dns.TypeA),
		question("2.0.1.10.in-addr.arpa", dns.TypePTR, func(m *dns.Msg) { m.SetEdns0(600, true) })} {
		raw, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw, false)
		f.Add(raw, true)
	}
	f.Fuzz(func(t *testing.T, query []byte, tcp bool) {
		raw := forwarder.Answer(context.Background(), query, lone, tcp)
		if raw == nil {
			return
		}
		answer := new(dns.Msg)
		if err := answer.Unpack(raw); err != nil {
			t.Fatalf("%x: the answer %x: %v", query, raw, err)
		}
		if !answer.Response || raw[0] != query[0] || raw[1] != query[1] || !tcp && len(raw) > maxDatagram {
			t.Fatalf("%x: %d bytes: %v", query, len(raw), answer)
		}
	})
}

func FuzzAccept(f *testing.F) {
	query := question("a.test", dns.TypeA, func(m *dns.Msg) { m.SetEdns0(1232, true) })
	query.Id = 7
	for _, m := range []*dns.Msg{query, new(dns.Msg).SetRcode(query, dns.RcodeServerFailure)} {
		raw, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	cut, err := text(query, 300, dns.MinMsgSize).Pack()
	if err != nil {
		f.Fatal(err)
	}
	cut[2] |= 2 // says that it is truncated, and is so in the middle of a record
	f.Add(cut[:len(cut)-20])
	f.Fuzz(func(t *testing.T, raw []byte) {
		a := accept(slices.Clone(raw), query)
		if a == nil {
			return
		}
		r := &request{msg: *question("a.test", dns.TypeA), limit: dns.MinMsgSize}
		r.msg.Id = 9
		answer := r.pass(a)
		if answer != nil && (len(answer) > r.limit || answer[0] != 0 || answer[1] != 9) {
			t.Fatalf("%x became %x", raw, answer)
		}
	})
}
