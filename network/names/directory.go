package names

import (
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/miekg/dns"
)

// directory is the members by name and by address. Readers never wait: a change makes a new index.
type directory struct {
	change  sync.Mutex
	current atomic.Pointer[index]
}

type index struct {
	pods   []*pod // the latest last
	byName map[string][]*pod
	byAddr map[netip.Addr]*pod
	// byPointer has the addresses by the name that a PTR query has for them, RFC 1035 section 3.5
	// and RFC 3596 section 2.5.
	byPointer map[string]netip.Addr
}

// pod is a Member as queries need it. Names are in lower case and end in a dot.
type pod struct {
	id       string
	names    []string
	aliases  map[string][]string // by network
	networks []string            // in order, so that answers are
	addrs    map[string][]netip.Addr
	servers  []netip.AddrPort
	internal bool
	hosts    bool
}

func newPod(member Member) *pod {
	p := &pod{id: member.ID, addrs: map[string][]netip.Addr{}, aliases: map[string][]string{}, internal: member.Internal, hosts: member.Hosts}
	for _, name := range member.Names {
		p.names = append(p.names, dns.CanonicalName(name))
	}
	for network, aliases := range member.Aliases {
		for _, alias := range aliases {
			network := dns.CanonicalName(network)
			p.aliases[network] = append(p.aliases[network], dns.CanonicalName(alias))
		}
	}
	for network, addrs := range member.Networks {
		network = dns.CanonicalName(network) // "" becomes "."
		for _, addr := range addrs {
			p.addrs[network] = append(p.addrs[network], plain(addr))
		}
		if network != "." {
			p.networks = append(p.networks, network)
		}
	}
	slices.Sort(p.networks)
	for _, addr := range member.DNS {
		p.servers = append(p.servers, netip.AddrPortFrom(addr.Unmap(), 53))
	}
	return p
}

// allNames are those that it has on any network, each once.
func (p *pod) allNames() []string {
	all := slices.Clone(p.names)
	for _, aliases := range p.aliases {
		all = append(all, aliases...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// called says whether it is called so on a network, or by that name and the network's.
func (p *pod) called(name, network string) bool {
	short, _ := strings.CutSuffix(name, "."+network)
	for _, as := range []string{name, short + "."} {
		if slices.Contains(p.names, as) || slices.Contains(p.aliases[network], as) {
			return true
		}
	}
	return false
}

// plain is addr as the index has it.
func plain(addr netip.Addr) netip.Addr { return addr.Unmap().WithZone("") }

func (d *directory) index() *index {
	if x := d.current.Load(); x != nil {
		return x
	}
	return &index{}
}

func (d *directory) set(member Member) { d.replace(member.ID, newPod(member)) }

func (d *directory) remove(id string) { d.replace(id, nil) }

func (d *directory) replace(id string, with *pod) {
	d.change.Lock()
	defer d.change.Unlock()
	x := &index{byName: map[string][]*pod{}, byAddr: map[netip.Addr]*pod{}, byPointer: map[string]netip.Addr{}}
	for _, p := range d.index().pods {
		if p.id != id {
			x.pods = append(x.pods, p)
		}
	}
	if with != nil {
		x.pods = append(x.pods, with)
	}
	for _, p := range x.pods {
		for _, name := range p.allNames() {
			x.byName[name] = append(x.byName[name], p)
		}
		for _, addrs := range p.addrs {
			for _, addr := range addrs {
				x.byAddr[addr] = p
				if pointer, err := dns.ReverseAddr(addr.String()); err == nil {
					x.byPointer[pointer] = addr
				}
			}
		}
	}
	d.current.Store(x)
}

// addresses are what name, a pod's or a pod's and a network's, stands for in the eyes of asker. A name of which
// asker sees nothing is not known.
func (x *index) addresses(asker *pod, name string) (addrs []netip.Addr, known bool) {
	for _, network := range asker.networks {
		called := x.byName[name]
		if short, ok := strings.CutSuffix(name, "."+network); ok {
			called = slices.Concat(called, x.byName[short+"."])
		}
		for _, p := range called {
			if !p.called(name, network) {
				continue
			}
			there, on := p.addrs[network]
			known = known || on
			for _, addr := range there {
				if !slices.Contains(addrs, addr) {
					addrs = append(addrs, addr)
				}
			}
		}
	}
	return addrs, known
}

// name is what the address in the PTR name pointer is called in the eyes of asker: POD.NETWORK, which has that
// address; empty if asker sees no such address.
func (x *index) name(asker *pod, pointer string) string {
	addr, ok := x.byPointer[pointer]
	if !ok {
		return ""
	}
	owner := x.byAddr[addr]
	for _, network := range asker.networks {
		if len(owner.names) > 0 && slices.Contains(owner.addrs[network], addr) {
			return owner.names[0] + network
		}
	}
	return ""
}
