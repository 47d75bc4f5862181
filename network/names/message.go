package names

import (
	"net/netip"
	"strings"

	"github.com/miekg/dns"
)

// maxDatagram bounds, in bytes, every query and every answer by UDP, whatever size a pod says it takes: where
// RFC 6891 section 6.2.5 starts from.
const maxDatagram = 4096

// request is a pod's query.
type request struct {
	msg   dns.Msg
	from  netip.Addr
	tcp   bool
	limit int // bytes that the answer may have
	asker *pod
}

// receive takes in a message of a pod. It returns the answer if that needs no server, or nil if it deserves
// none; else a request that forward must be called with.
func (f *Forwarder) receive(query []byte, from netip.Addr, tcp bool) (*request, []byte) {
	r := &request{from: plain(from), tcp: tcp, limit: dns.MinMsgSize}
	if len(query) < 12 { // not even a header
		return nil, nil
	}
	err := r.msg.Unpack(query[:min(len(query), maxDatagram)])
	if r.msg.Response { // answered, two forwarders would talk to each other for ever
		return nil, nil
	}
	rcode := r.check()
	if err != nil || len(query) > maxDatagram {
		rcode = dns.RcodeFormatError
	}
	if r.msg.Opcode != dns.OpcodeQuery { // its sections may mean anything
		rcode = dns.RcodeNotImplemented
	}
	if rcode != dns.RcodeSuccess {
		return nil, r.reply(rcode)
	}
	x := f.directory.index()
	if r.asker = x.byAddr[r.from]; r.asker == nil {
		return nil, r.reply(dns.RcodeRefused)
	}
	if answer, ok := f.answer(x, r); ok {
		return nil, answer
	}
	switch {
	case r.asker.internal:
		return nil, r.reply(dns.RcodeNameError)
	case !f.queries.Take(r.asker.id):
		return nil, r.reply(dns.RcodeServerFailure)
	}
	return r, nil
}

// check sees to it that the query is one plain question, and takes in what the asker says of itself.
func (r *request) check() int {
	var opts int
	for _, record := range r.msg.Extra {
		if opt, ok := record.(*dns.OPT); ok {
			opts++
			opt.SetUDPSize(min(opt.UDPSize(), maxDatagram))
			r.limit = max(r.limit, int(opt.UDPSize()))
		}
	}
	if r.tcp {
		r.limit = dns.MaxMsgSize
	}
	switch {
	case len(r.msg.Question) != 1, len(r.msg.Answer) > 0, len(r.msg.Extra) > 2:
		return dns.RcodeFormatError // RFC 9619; the two are OPT and TSIG or SIG(0)
	case opts > 1:
		return dns.RcodeFormatError // RFC 6891 section 6.1.1
	case opts == 1 && r.msg.IsEdns0().Version() != 0:
		return dns.RcodeBadVers // RFC 6891 section 6.1.3
	}
	switch q := r.msg.Question[0]; {
	case q.Qtype == dns.TypeAXFR, q.Qtype == dns.TypeIXFR:
		return dns.RcodeNotImplemented // answered by many messages
	case len(r.msg.Ns) > 0:
		return dns.RcodeFormatError
	case q.Qclass != dns.ClassINET && q.Qclass != dns.ClassANY:
		return dns.RcodeRefused // CHAOS is for looking into the host's servers
	}
	return dns.RcodeSuccess
}

// answer answers what the forwarder knows by itself: pods, their addresses, the host, and the names that this has.
func (f *Forwarder) answer(x *index, r *request) ([]byte, bool) {
	name := dns.CanonicalName(r.msg.Question[0].Name)
	if name == HostName+"." || name == DockerHostName+"." {
		addrs := f.hostAddresses(r.from)
		if len(addrs) == 0 {
			return r.reply(dns.RcodeNameError), true
		}
		return r.reply(dns.RcodeSuccess, r.records(addrs)...), true
	}
	short, below := strings.CutSuffix(name, "."+Domain+".")
	if below {
		name = short + "."
	}
	if addrs, known := x.addresses(r.asker, name); known {
		return r.reply(dns.RcodeSuccess, r.records(addrs)...), true
	}
	if called := x.name(r.asker, name); called != "" {
		return r.pointer(called), true
	}
	if below {
		return r.reply(dns.RcodeNameError), true
	}
	if r.asker.hosts {
		known, _ := f.hosts.read() // beside an error, what it had: a name that is missing is asked of the servers
		return known.answer(r)
	}
	return nil, false
}

// pointer answers a question about an address that is called so.
func (r *request) pointer(called string) []byte {
	if !r.wants(dns.TypePTR) {
		return r.reply(dns.RcodeSuccess)
	}
	return r.reply(dns.RcodeSuccess, &dns.PTR{Hdr: r.header(dns.TypePTR), Ptr: called})
}

// records are the A and AAAA records of addrs that the question is after: maybe none, for a name that has none
// of a type exists all the same, RFC 2308 section 2.2.
func (r *request) records(addrs []netip.Addr) []dns.RR {
	var records []dns.RR
	for _, addr := range addrs {
		switch addr = plain(addr); {
		case addr.Is4() && r.wants(dns.TypeA):
			records = append(records, &dns.A{Hdr: r.header(dns.TypeA), A: addr.AsSlice()})
		case addr.Is6() && r.wants(dns.TypeAAAA):
			records = append(records, &dns.AAAA{Hdr: r.header(dns.TypeAAAA), AAAA: addr.AsSlice()})
		}
	}
	return records
}

func (r *request) wants(kind uint16) bool {
	asked := r.msg.Question[0].Qtype
	return asked == kind || asked == dns.TypeANY
}

func (r *request) header(kind uint16) dns.RR_Header {
	// The name as it was asked: some resolvers compare the case of its letters.
	return dns.RR_Header{Name: r.msg.Question[0].Name, Rrtype: kind, Class: dns.ClassINET, Ttl: ttl}
}

// reply is the forwarder's own answer.
func (r *request) reply(rcode int, records ...dns.RR) []byte {
	m := new(dns.Msg).SetRcode(&r.msg, rcode)
	m.RecursionAvailable = true
	m.Authoritative = len(records) > 0
	m.Answer = records
	if opt := r.msg.IsEdns0(); opt != nil {
		m.SetEdns0(maxDatagram, opt.Do())
	}
	return pack(m, r.limit)
}

// pack makes a message of at most limit bytes. One that had to be cut says so, and the asker comes back by TCP.
func pack(m *dns.Msg, limit int) []byte {
	m.Truncate(limit)
	raw, err := m.Pack()
	if err == nil && len(raw) <= limit {
		return raw
	}
	// A signed answer must not be cut, and is left out; a record that can't be packed never can.
	if err != nil {
		m.Rcode = dns.RcodeServerFailure
	}
	m.Truncated = err == nil
	opt := m.IsEdns0()
	m.Answer, m.Ns, m.Extra = nil, nil, nil
	if opt != nil {
		m.Extra = []dns.RR{opt}
	}
	if raw, err = m.Pack(); err != nil || len(raw) > limit {
		return nil
	}
	return raw
}
