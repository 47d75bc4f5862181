package names

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// health remembers which servers say nothing, so that not every query waits for them anew. They are asked last, and
// tried again after a while, by a question of our own.
//
// A pod can make a server look dead, by asking for a name that takes too long to find. So whoever is silent is tried
// at once, by a question that every server answers out of its own head, and is first again a moment later.
type health struct {
	mu   sync.Mutex
	dead map[netip.AddrPort]*silence
	last map[netip.AddrPort]time.Time // when it answered
}

// silence is a server's that did not answer.
type silence struct {
	next   time.Time     // when it is to be tried
	pause  time.Duration // before it is to be tried once more
	trying bool
}

// A server is tried at once, then after pauses that double.
const firstPause, longestPause = time.Second, 30 * time.Second

// mostRemembered bounds how many servers are remembered: pods may have their own, and come and go.
const mostRemembered = 256

// sort puts the silent ones last, and leaves the order as it is else.
func (h *health) sort(servers []netip.AddrPort) []netip.AddrPort {
	h.mu.Lock()
	defer h.mu.Unlock()
	servers = slices.Clone(servers)
	slices.SortStableFunc(servers, func(a, b netip.AddrPort) int {
		switch deadA, deadB := h.dead[a] != nil, h.dead[b] != nil; {
		case deadA == deadB:
			return 0
		case deadA:
			return 1
		}
		return -1
	})
	return servers
}

// answered: the server is there.
func (h *health) answered(server netip.AddrPort) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.dead, server)
	if h.last == nil || len(h.last) >= mostRemembered {
		h.last = map[netip.AddrPort]time.Time{}
	}
	h.last[server] = time.Now()
}

// silent: the server did not answer what it was asked then. That is news unless it has answered somebody meanwhile.
func (h *health) silent(server netip.AddrPort, asked time.Time) (news bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.dead[server] != nil || h.last[server].After(asked) {
		return false
	}
	if h.dead == nil || len(h.dead) >= mostRemembered {
		h.dead = map[netip.AddrPort]*silence{}
	}
	h.dead[server] = &silence{pause: firstPause}
	return true
}

// due says whether a server is to be tried now. If so, tried must follow unless it answers.
func (h *health) due(server netip.AddrPort) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.dead[server]
	if s == nil || s.trying || time.Now().Before(s.next) {
		return false
	}
	s.trying = true
	return true
}

// tried: it said nothing again.
func (h *health) tried(server netip.AddrPort) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if s := h.dead[server]; s != nil {
		s.trying, s.next = false, time.Now().Add(s.pause)
		s.pause = min(2*s.pause, longestPause)
	}
}

// try asks a server that is silent whether it is there, if it is time to. Nobody waits for that.
func (f *Forwarder) try(server netip.AddrPort, timeout time.Duration) {
	if !f.health.due(server) {
		return
	}
	go func() {
		question := dns.Msg{Question: []dns.Question{{Name: ".", Qtype: dns.TypeNS, Qclass: dns.ClassINET}}}
		question.RecursionDesired = true
		if _, err := ask(f.closed, "udp", server, question, timeout); err == nil {
			f.health.answered(server)
			return
		}
		f.health.tried(server)
	}()
}
