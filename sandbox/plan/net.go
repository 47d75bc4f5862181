package plan

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/podsh/podsh/network"
	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/spec"
)

// ResolverFor is whom pods on networks ask for names.
func ResolverFor(onHost, onlyIPv6 bool) netip.Addr {
	switch {
	case onHost && onlyIPv6:
		return network.HostResolver6
	case onHost:
		return network.HostResolver
	case onlyIPv6:
		return network.Resolver6
	}
	return network.Resolver4
}

// What a pod's network has beyond localhost is made from outside: by a Maker in the pod's network namespace
// (package perform), by work in the hub (package sandbox), and by the helper that carries the data (package wire). These are
// steps of the host's side, and they come when the pod itself is done.

// NetFacts are what must be known of networks to plan a pod.
type NetFacts struct {
	Networks []*network.Network // that the spec names, in its order
	Hub      *pod.Pod           // that holds them; nil: it is not there yet
	OnHost   bool               // they are on the host, not in a namespace of their own
	Unmade   string             // one that no pod is on yet
	IPv6     bool               // the kernel has it
	OnlyIPv6 bool               // none of them has IPv4
}

// resolver is the text of the pod's /etc/resolv.conf.
func (p *Creation) resolver() string {
	n, own := &p.Pod.Spec.Net, &p.Pod.Spec.Net
	kind := p.Pod.Namespaces["net"].Kind
	if kind == "pod" {
		if other := p.Facts.Entered(p.Pod.Namespaces["net"].Value); other != nil {
			kind, own = other.Namespaces["net"].Kind, &other.Spec.Net
		}
	}
	host := network.ParseResolvConf(p.Facts.Resolver)
	if kind != "new" && len(n.DNS)+len(n.Search)+len(n.Options) == 0 {
		return p.Facts.Resolver
	}
	r := ResolverOf(own, &p.Facts.Net)
	if n != own {
		r.Search, r.Options = firstGiven(n.Search, r.Search), firstGiven(n.Options, r.Options)
	}
	if n != own || kind != "new" {
		r.Servers = firstGiven(n.DNS, r.Servers)
	}
	if kind == "new" && !own.FollowsHost() {
		host = network.ResolvConf{} // nobody knows the names there
	}
	conf := r.ResolvConf(host)
	if kind != "new" && len(r.Servers) == 0 {
		conf.Servers = host.Servers
	}
	return conf.String()
}

func firstGiven[T any](given, otherwise []T) []T {
	if len(given) > 0 {
		return given
	}
	return otherwise
}

// hosts is the text of the pod's /etc/hosts.
func (p *Creation) hosts(hostname string) string {
	kind := p.Pod.Namespaces["net"].Kind
	return network.Hosts(hostname, p.Pod.Spec.Net.HostLines(), network.HostLines(p.Facts.Hosts, kind == "host" || p.Pod.Spec.Net.HostsFile != spec.HostsOfHost))
}

// Entered is the other pod that was named so.
func (f *Facts) Entered(name string) *pod.Pod {
	for _, e := range f.Enter {
		if e.Pod != nil && (e.Pod.Title() == name || e.Pod.ID == name) {
			return e.Pod
		}
	}
	return nil
}

// ResolverOf is how names are looked up in a pod that has the network.
func ResolverOf(n *spec.Net, f *NetFacts) *network.Resolver {
	r := &network.Resolver{Servers: nameServers(n, f), Search: n.Search, Options: n.Options}
	if n.OnNetworks() {
		r.First = []string{network.Domain} // else a pod's name would first be looked up in the host's domains
	}
	return r
}

// nameServers are whom a pod asks: the helper, where it has one that answers.
func nameServers(n *spec.Net, f *NetFacts) []netip.Addr {
	switch {
	case n.OnNetworks():
		return []netip.Addr{ResolverFor(f.OnHost, f.OnlyIPv6)}
	case n.WayOut == spec.WayOutStack, n.WayOut != spec.WayOutNone && len(n.DNS) == 0:
		return n.Outbound().Resolvers[:1]
	}
	return n.DNS
}

// enter is the prefix of a command that runs on the pod's network, by hand.
func (p *Creation) enter() string {
	if p.Pod.Namespaces["user"].Kind == "host" {
		return "nsenter --target $HOLDER --net "
	}
	return "nsenter --target $HOLDER --user --preserve-credentials --net "
}

func (p *Creation) enterAll(commands ...string) string {
	for i := range commands {
		commands[i] = p.enter() + commands[i]
	}
	return strings.Join(commands, "\n")
}

// attachNetwork gives the pod's network what was asked for.
func (p *Creation) attachNetwork() {
	n := &p.Pod.Spec.Net
	if !p.Pod.Own("net") || !n.WantsHelper() {
		return
	}
	for i, on := range p.Facts.Net.Networks {
		p.Explain("attach the pod to network "+on.Name, "veth(4)", p.attachByHand(i, on))
		p.Host("attach")
	}
	if n.WayOut != spec.WayOutNone {
		p.Explain(p.wayOutWhy(), "ip-tuntap(8)", p.wayOutByHand())
		p.Host("way out")
	}
	if len(n.Ports) == 0 {
		p.Explain("let the helper of networks know the pod", "unix(7)", "")
		p.Host("serve")
		return
	}
	if n.WayOut == spec.WayOutNone && len(n.Networks) == 0 {
		commands := []string{"ip link set lo up", "ip addr add " + p.Pod.Spec.Net.Outbound().Own[0].Addr().String() + "/32 dev lo"}
		if p.Facts.Net.IPv6 {
			commands = append(commands, "ip addr add "+p.Pod.Spec.Net.Outbound().Own[1].Addr().String()+"/128 dev lo")
		}
		p.Explain("give the pod an address of its own, beside localhost", "ip-address(8)", p.enterAll(commands...))
		p.Host("address")
	}
	p.Explain("keep the answers to clients in the pod, where the sockets with their addresses are", "ip-rule(8)", p.repliesByHand())
	p.Host("replies")
	p.Explain("publish "+fault.Enumerate(portTexts(n.Ports)), "splice(2)", p.publishByHand())
	p.Host("publish")
}

func portTexts(ports []network.Port) (texts []string) {
	for _, port := range ports {
		texts = append(texts, port.String())
	}
	return texts
}

func (p *Creation) wayOutWhy() string {
	if program := p.Pod.Spec.Net.WayOut; program != spec.WayOutStack {
		return "let " + program + " carry what leaves the pod"
	}
	return "let a network stack in the helper carry what leaves the pod, as ordinary connections of yours"
}

// wayOutByHand: by hand slirp4netns does what the helper's own stack does.
func (p *Creation) wayOutByHand() string {
	if p.Pod.Spec.Net.WayOut == spec.WayOutPasta {
		return strings.Join(append(network.Pasta(p.Pod.Spec.Net.Outbound()), "$HOLDER"), " ")
	}
	userns := "/proc/$HOLDER/ns/user"
	if p.Pod.Namespaces["user"].Kind == "host" {
		userns = ""
	}
	return strings.Join(network.Slirp(p.Pod.Spec.Net.Outbound(), "/proc/$HOLDER/ns/net", userns), " ") + " </dev/null >/dev/null 2>&1 &"
}

func (p *Creation) repliesByHand() string {
	mark, table := fmt.Sprintf("%#x", network.ReplyMark), strconv.Itoa(network.ReplyTable)
	commands := []string{"sysctl -q -w net.ipv4.tcp_fwmark_accept=1 net.ipv4.fwmark_reflect=1"}
	families := []struct{ option, source string }{{"-4", p.ownAddressByHand(p.Pod.Spec.Net.Outbound().Own[0].Addr())}}
	if p.Facts.Net.IPv6 {
		commands[0] += " net.ipv6.fwmark_reflect=1"
	}
	if p.Facts.Net.OnlyIPv6 {
		families[0].option = "-6"
	}
	if p.Facts.Net.IPv6 && len(p.Pod.Spec.Net.Networks) == 0 {
		families = append(families, struct{ option, source string }{"-6", p.ownAddressByHand(p.Pod.Spec.Net.Outbound().Own[1].Addr())})
	}
	for _, f := range families {
		commands = append(commands, fmt.Sprintf("ip %s route replace local default dev lo src %s table %s", f.option, f.source, table),
			fmt.Sprintf("ip %s rule add pref %s fwmark %s lookup %[2]s", f.option, table, mark))
		for _, port := range p.Pod.Spec.Net.Ports {
			if port.Protocol == "udp" {
				commands = append(commands, fmt.Sprintf("ip %s rule add pref %s ipproto udp sport %d lookup %[2]s", f.option, table, port.PodPort))
			}
		}
	}
	return p.enterAll(commands...)
}

// ownAddressByHand: on a network the address is known only when the pod is there.
func (p *Creation) ownAddressByHand(own netip.Addr) string {
	if len(p.Pod.Spec.Net.Networks) == 0 {
		return own.String()
	}
	return "$ADDRESS"
}

// publishByHand: socat starts a process for each connection, and the pod sees an address of its own in place
// of the client's; else it is the same.
func (p *Creation) publishByHand() string {
	var lines []string
	for _, port := range p.Pod.Spec.Net.Ports {
		protocol := strings.ToUpper(port.Protocol)
		bind := ""
		if port.HostIP.IsValid() {
			bind = ",bind=" + port.HostIP.String()
		}
		lines = append(lines, fmt.Sprintf("socat %s-LISTEN:%d%s,fork,reuseaddr EXEC:\"'%ssocat STDIO %s:%s:%d'\" </dev/null >/dev/null 2>&1 &",
			protocol, port.HostPort, bind, p.enter(), protocol, p.ownAddressByHand(p.Pod.Spec.Net.Outbound().Own[0].Addr()), port.PodPort))
	}
	return strings.Join(lines, "\n")
}

// attachByHand is what package link does by netlink.
func (p *Creation) attachByHand(i int, on *network.Network) string {
	if on.Conflist != nil {
		return fmt.Sprintf("CNI_PATH=/opt/cni/bin NETCONFPATH=. cnitool add %s /proc/$HOLDER/ns/net", on.Name)
	}
	inHub := ""
	if hub := p.Facts.Net.Hub; hub != nil && !p.Facts.Net.OnHost {
		inHub = fmt.Sprintf("nsenter --target %d --user --preserve-credentials --net ", hub.Holder.PID)
	}
	address := "$ADDRESS"
	if i > 0 {
		address += strconv.Itoa(i)
	}
	gateway, asked := on.Gateway(), p.Pod.Spec.Net.Endpoints[on.Name]
	first, why, bits := gateway.Next(), " # one that is free", 0
	for _, subnet := range on.Subnets {
		if subnet.Contains(gateway) {
			bits = subnet.Bits()
		}
	}
	for _, ip := range asked.IPs {
		if ip.Is4() == gateway.Is4() {
			first, why = ip, ""
		}
	}
	link := fmt.Sprintf("%sip link add podsh-$HOLDER-%d type veth peer name eth%[2]d netns $HOLDER", inHub, i)
	master := fmt.Sprintf("%sip link set podsh-$HOLDER-%d master %s up", inHub, i, on.Bridge)
	free := fmt.Sprintf("%s=${%[1]s:-%s}%s", address[1:], first, why)
	var commands []string
	if asked.MAC != "" {
		commands = append(commands, fmt.Sprintf("ip link set eth%d address %s", i, asked.MAC))
	}
	commands = append(commands, fmt.Sprintf("ip addr add %s/%d dev eth%d", address, bits, i), fmt.Sprintf("ip link set eth%d up", i))
	if i == 0 && !on.Internal {
		commands = append(commands, "ip route add default via "+gateway.String())
	}
	return strings.Join([]string{free, link, master, p.enterAll(commands...)}, "\n")
}

// OnlyIPv6 says whether a pod that is on these networks has no IPv4.
func OnlyIPv6(networks []*network.Network) bool {
	return len(networks) > 0 && !slices.ContainsFunc(networks, func(n *network.Network) bool { return !n.OnlyIPv6() })
}
