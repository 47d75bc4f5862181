package names

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// hosts are the names that the host's /etc/hosts has, as hosts(5) describes it. systemd-resolved and dnsmasq answer
// from it as well, so that a name works for all that ask, and no server outside hears of it.
type hosts struct {
	byName    map[string][]netip.Addr
	byPointer map[string]string // the first name of an address, by what a PTR query has for it
}

// parseHosts leaves out what means the host alone: its loopback addresses, which are the pod's own in a pod, and
// those with a scope, which name its interfaces.
func parseHosts(text string) (hosts, error) {
	known := hosts{byName: map[string][]netip.Addr{}, byPointer: map[string]string{}}
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		addr, err := netip.ParseAddr(fields[0])
		if addr = addr.Unmap(); err != nil || addr.IsLoopback() || addr.Zone() != "" {
			continue
		}
		for _, name := range fields[1:] {
			name = dns.CanonicalName(name)
			if !slices.Contains(known.byName[name], addr) {
				known.byName[name] = append(known.byName[name], addr)
			}
		}
		pointer, err := dns.ReverseAddr(addr.String())
		if _, has := known.byPointer[pointer]; err == nil && !has {
			known.byPointer[pointer] = dns.Fqdn(fields[1])
		}
	}
	return known, nil
}

// answer answers a question about a name or an address that the file has. A name of which it has addresses exists
// for questions of every other type as well.
func (h *hosts) answer(r *request) ([]byte, bool) {
	name := dns.CanonicalName(r.msg.Question[0].Name)
	if addrs := h.byName[name]; addrs != nil {
		return r.reply(dns.RcodeSuccess, r.records(addrs)...), true
	}
	if called := h.byPointer[name]; called != "" {
		return r.pointer(called), true
	}
	return nil, false
}
