package names

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// response is a server's answer.
type response struct {
	raw []byte // as it came; nil if it must not be passed on like that
	msg *dns.Msg
}

// forward asks the servers, one after the other as resolv.conf(5) has it, but those last that said nothing lately; it
// frees what receive took. A server that can't or won't say is passed over; one that said nothing is tried again.
func (f *Forwarder) forward(ctx context.Context, r *request) []byte {
	defer f.queries.Give(r.asker.id)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(f.closed, cancel)()

	settings, _ := f.resolv.read() // the last good reading is better than none
	servers := settings.servers
	if len(r.asker.servers) > 0 {
		servers = r.asker.servers
	}
	for _, server := range servers {
		f.try(server, settings.timeout)
	}
	var refusal *response
	for range settings.attempts {
		var silent []netip.AddrPort
		for _, server := range f.health.sort(servers) {
			a, err := f.exchange(ctx, r, server, settings.timeout)
			switch {
			case ctx.Err() != nil:
				return nil
			case err != nil:
				silent = append(silent, server)
			case passed[a.msg.Rcode]:
				refusal = a
			default:
				return r.pass(a)
			}
		}
		servers = silent
	}
	if refusal != nil { // it may say why, RFC 8914
		return r.pass(refusal)
	}
	return r.reply(dns.RcodeServerFailure)
}

// exchange asks one server, and remembers whether it says anything.
func (f *Forwarder) exchange(ctx context.Context, r *request, server netip.AddrPort, timeout time.Duration) (*response, error) {
	asked := time.Now()
	a, err := r.exchange(ctx, server, timeout)
	switch {
	case err == nil:
		f.health.answered(server)
	case passing(err): // which says nothing of the server
		f.starved.Add(1)
	case ctx.Err() == nil && f.health.silent(server, asked):
		f.try(server, timeout)
	}
	return a, err
}

// passed are the answers after which the next server is asked, as glibc does.
var passed = map[int]bool{dns.RcodeServerFailure: true, dns.RcodeNotImplemented: true, dns.RcodeRefused: true}

// pass makes a server's answer the asker's: untouched but for the id, if there is room for it. RFC 6891 section
// 6.2.6 forbids a forwarder to change what both say about themselves.
func (r *request) pass(a *response) []byte {
	if a.raw != nil && len(a.raw) <= r.limit {
		binary.BigEndian.PutUint16(a.raw, r.msg.Id)
		return a.raw
	}
	a.msg.Id = r.msg.Id
	return pack(a.msg, r.limit)
}

// exchange asks one server, the way the asker came. An answer that did not fit is fetched by TCP, since it may
// fit the asker; if that can't be, the asker gets what there is.
func (r *request) exchange(ctx context.Context, server netip.AddrPort, timeout time.Duration) (*response, error) {
	if r.tcp {
		return ask(ctx, "tcp", server, r.msg, timeout)
	}
	part, err := ask(ctx, "udp", server, r.msg, timeout)
	if err != nil || !part.msg.Truncated {
		return part, err
	}
	whole, err := ask(ctx, "tcp", server, r.msg, timeout)
	if err != nil {
		return part, nil
	}
	return whole, nil
}

// ask sends query to a server, from a port and with an id of its own, and waits for the answer.
func ask(ctx context.Context, network string, server netip.AddrPort, query dns.Msg, timeout time.Duration) (*response, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	query.Id = dns.Id()
	raw, err := query.Pack()
	if err != nil {
		return nil, err
	}
	var dialer net.Dialer
	socket, err := dialer.DialContext(ctx, network, server.String()) // connected: no other address gets through
	if err != nil {
		return nil, err
	}
	defer socket.Close()
	defer context.AfterFunc(ctx, func() { socket.Close() })()
	conn := &dns.Conn{Conn: socket, UDPSize: maxDatagram}
	if _, err := conn.Write(raw); err != nil {
		return nil, err
	}
	for { // what is no answer may be forged: the true one may yet come
		raw, err := conn.ReadMsgHeader(nil)
		if err != nil && err != dns.ErrShortRead {
			return nil, err
		}
		if a := accept(raw, &query); a != nil {
			return a, nil
		}
	}
}

// accept returns what raw says if that answers query, else nil.
func accept(raw []byte, query *dns.Msg) *response {
	a := &response{raw: raw, msg: new(dns.Msg)}
	if err := a.msg.Unpack(raw); err != nil {
		if !a.msg.Truncated {
			return nil
		}
		a.raw = nil
	}
	if a.msg.Id != query.Id || !a.msg.Response || a.msg.Opcode != query.Opcode {
		return nil
	}
	if len(a.msg.Question) == 0 && a.msg.Rcode != dns.RcodeSuccess { // some servers refuse with a header alone
		a.raw, a.msg.Question = nil, query.Question
		return a
	}
	if len(a.msg.Question) != 1 {
		return nil
	}
	got, want := a.msg.Question[0], query.Question[0]
	if got.Qtype != want.Qtype || got.Qclass != want.Qclass || !strings.EqualFold(got.Name, want.Name) {
		return nil
	}
	if got.Name != want.Name { // the asker may be stricter about its letters' case
		a.raw, a.msg.Question = nil, query.Question
	}
	return a
}
