package sandbox

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/network"
	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/files"
	"github.com/podsh/podsh/sandbox/ids"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/spec"
)

// What a pod's network has beyond localhost is made from outside: by a Maker in the pod's network namespace
// (maker.go), by work in the hub (hub.go), and by the helper that carries the data (helper.go). These are
// steps of the host's side, and they come when the pod itself is done.

// netFacts are what must be known of networks to plan a pod.
type netFacts struct {
	Networks []*network.Network // that the spec names, in its order
	Hub      *pod.Pod           // that holds them; nil: it is not there yet
	OnHost   bool               // they are on the host, not in a namespace of their own
	Unmade   string             // one that no pod is on yet
	IPv6     bool               // the kernel has it
	OnlyIPv6 bool               // none of them has IPv4
}

// resolver is the text of the pod's /etc/resolv.conf.
func (p *creation) resolver() string {
	n, own := &p.pod.Spec.Net, &p.pod.Spec.Net
	kind := p.pod.Namespaces["net"].Kind
	if kind == "pod" {
		if other := p.facts.entered(p.pod.Namespaces["net"].Value); other != nil {
			kind, own = other.Namespaces["net"].Kind, &other.Spec.Net
		}
	}
	host := network.ParseResolvConf(p.facts.Resolver)
	if kind != "new" && len(n.DNS)+len(n.Search)+len(n.Options) == 0 {
		return p.facts.Resolver
	}
	r := resolverOf(own, &p.facts.Net)
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
func (p *creation) hosts(hostname string) string {
	kind := p.pod.Namespaces["net"].Kind
	return network.Hosts(hostname, p.pod.Spec.Net.HostLines(), network.HostLines(p.facts.Hosts, kind == "host" || p.pod.Spec.Net.HostsFile != spec.HostsOfHost))
}

// entered is the other pod that was named so.
func (f *Facts) entered(name string) *pod.Pod {
	for _, e := range f.Enter {
		if e.Pod != nil && (e.Pod.Title() == name || e.Pod.ID == name) {
			return e.Pod
		}
	}
	return nil
}

// resolverOf is how names are looked up in a pod that has the network.
func resolverOf(n *spec.Net, f *netFacts) *network.Resolver {
	r := &network.Resolver{Servers: nameServers(n, f), Search: n.Search, Options: n.Options}
	if n.OnNetworks() {
		r.First = []string{network.Domain} // else a pod's name would first be looked up in the host's domains
	}
	return r
}

// nameServers are whom a pod asks: the helper, where it has one that answers.
func nameServers(n *spec.Net, f *netFacts) []netip.Addr {
	switch {
	case n.OnNetworks():
		return []netip.Addr{resolverFor(f.OnHost, f.OnlyIPv6)}
	case n.WayOut == spec.WayOutStack, n.WayOut != spec.WayOutNone && len(n.DNS) == 0:
		return n.Outbound().Resolvers[:1]
	}
	return n.DNS
}

// enter is the prefix of a command that runs on the pod's network, by hand.
func (p *creation) enter() string {
	if p.pod.Namespaces["user"].Kind == "host" {
		return "nsenter --target $HOLDER --net "
	}
	return "nsenter --target $HOLDER --user --preserve-credentials --net "
}

func (p *creation) enterAll(commands ...string) string {
	for i := range commands {
		commands[i] = p.enter() + commands[i]
	}
	return strings.Join(commands, "\n")
}

// attachNetwork gives the pod's network what was asked for.
func (p *creation) attachNetwork() {
	n := &p.pod.Spec.Net
	if !p.pod.Own("net") || !n.WantsHelper() {
		return
	}
	for i, on := range p.facts.Net.Networks {
		p.explain("attach the pod to network "+on.Name, "veth(4)", p.attachByHand(i, on))
		p.host("attach")
	}
	if n.WayOut != spec.WayOutNone {
		p.explain(p.wayOutWhy(), "ip-tuntap(8)", p.wayOutByHand())
		p.host("way out")
	}
	if len(n.Ports) == 0 {
		p.explain("let the helper of networks know the pod", "unix(7)", "")
		p.host("serve")
		return
	}
	if n.WayOut == spec.WayOutNone && len(n.Networks) == 0 {
		commands := []string{"ip link set lo up", "ip addr add " + p.pod.Spec.Net.Outbound().Own[0].Addr().String() + "/32 dev lo"}
		if p.facts.Net.IPv6 {
			commands = append(commands, "ip addr add "+p.pod.Spec.Net.Outbound().Own[1].Addr().String()+"/128 dev lo")
		}
		p.explain("give the pod an address of its own, beside localhost", "ip-address(8)", p.enterAll(commands...))
		p.host("address")
	}
	p.explain("keep the answers to clients in the pod, where the sockets with their addresses are", "ip-rule(8)", p.repliesByHand())
	p.host("replies")
	p.explain("publish "+fault.Enumerate(portTexts(n.Ports)), "splice(2)", p.publishByHand())
	p.host("publish")
}

func portTexts(ports []network.Port) (texts []string) {
	for _, port := range ports {
		texts = append(texts, port.String())
	}
	return texts
}

func (p *creation) wayOutWhy() string {
	if program := p.pod.Spec.Net.WayOut; program != spec.WayOutStack {
		return "let " + program + " carry what leaves the pod"
	}
	return "let a network stack in the helper carry what leaves the pod, as ordinary connections of yours"
}

// wayOutByHand: by hand slirp4netns does what the helper's own stack does.
func (p *creation) wayOutByHand() string {
	if p.pod.Spec.Net.WayOut == spec.WayOutPasta {
		return strings.Join(append(network.Pasta(p.pod.Spec.Net.Outbound()), "$HOLDER"), " ")
	}
	userns := "/proc/$HOLDER/ns/user"
	if p.pod.Namespaces["user"].Kind == "host" {
		userns = ""
	}
	return strings.Join(network.Slirp(p.pod.Spec.Net.Outbound(), "/proc/$HOLDER/ns/net", userns), " ") + " </dev/null >/dev/null 2>&1 &"
}

func (p *creation) repliesByHand() string {
	mark, table := fmt.Sprintf("%#x", network.ReplyMark), strconv.Itoa(network.ReplyTable)
	commands := []string{"sysctl -q -w net.ipv4.tcp_fwmark_accept=1 net.ipv4.fwmark_reflect=1"}
	families := []struct{ option, source string }{{"-4", p.ownAddressByHand(p.pod.Spec.Net.Outbound().Own[0].Addr())}}
	if p.facts.Net.IPv6 {
		commands[0] += " net.ipv6.fwmark_reflect=1"
	}
	if p.facts.Net.OnlyIPv6 {
		families[0].option = "-6"
	}
	if p.facts.Net.IPv6 && len(p.pod.Spec.Net.Networks) == 0 {
		families = append(families, struct{ option, source string }{"-6", p.ownAddressByHand(p.pod.Spec.Net.Outbound().Own[1].Addr())})
	}
	for _, f := range families {
		commands = append(commands, fmt.Sprintf("ip %s route replace local default dev lo src %s table %s", f.option, f.source, table),
			fmt.Sprintf("ip %s rule add pref %s fwmark %s lookup %[2]s", f.option, table, mark))
		for _, port := range p.pod.Spec.Net.Ports {
			if port.Protocol == "udp" {
				commands = append(commands, fmt.Sprintf("ip %s rule add pref %s ipproto udp sport %d lookup %[2]s", f.option, table, port.PodPort))
			}
		}
	}
	return p.enterAll(commands...)
}

// ownAddressByHand: on a network the address is known only when the pod is there.
func (p *creation) ownAddressByHand(own netip.Addr) string {
	if len(p.pod.Spec.Net.Networks) == 0 {
		return own.String()
	}
	return "$ADDRESS"
}

// publishByHand: socat starts a process for each connection, and the pod sees an address of its own in place
// of the client's; else it is the same.
func (p *creation) publishByHand() string {
	var lines []string
	for _, port := range p.pod.Spec.Net.Ports {
		protocol := strings.ToUpper(port.Protocol)
		bind := ""
		if port.HostIP.IsValid() {
			bind = ",bind=" + port.HostIP.String()
		}
		lines = append(lines, fmt.Sprintf("socat %s-LISTEN:%d%s,fork,reuseaddr EXEC:\"'%ssocat STDIO %s:%s:%d'\" </dev/null >/dev/null 2>&1 &",
			protocol, port.HostPort, bind, p.enter(), protocol, p.ownAddressByHand(p.pod.Spec.Net.Outbound().Own[0].Addr()), port.PodPort))
	}
	return strings.Join(lines, "\n")
}

// attachByHand is what package link does by netlink.
func (p *creation) attachByHand(i int, on *network.Network) string {
	if on.Conflist != nil {
		return fmt.Sprintf("CNI_PATH=/opt/cni/bin NETCONFPATH=. cnitool add %s /proc/$HOLDER/ns/net", on.Name)
	}
	inHub := ""
	if hub := p.facts.Net.Hub; hub != nil && !p.facts.Net.OnHost {
		inHub = fmt.Sprintf("nsenter --target %d --user --preserve-credentials --net ", hub.Holder.PID)
	}
	address := "$ADDRESS"
	if i > 0 {
		address += strconv.Itoa(i)
	}
	gateway, asked := on.Gateway(), p.pod.Spec.Net.Endpoints[on.Name]
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

// readNet looks at the networks that a spec names, and makes the hub where they are, but for a dry run.
// release lets the hub go again; after an error there is nothing to let go.
func (s *Store) readNet(spec *spec.Spec, o Options) (facts netFacts, release func(), err error) {
	facts.IPv6 = files.Exists("/proc/sys/net/ipv6")
	release = func() {}
	facts.OnHost = networksOnHost()
	if facts.Networks, err = s.networksNamed(spec.Net.Networks...); err != nil || !spec.Net.OnNetworks() {
		return facts, release, err
	}
	if o.DryRun {
		facts.Hub, err = s.Hub()
	} else {
		facts.Hub, release, err = s.useHub()
	}
	if err != nil {
		return facts, nil, err
	}
	if err := s.lookAround(&facts, spec, o); err != nil {
		release()
		return facts, nil, err
	}
	return facts, release, nil
}

// lookAround looks at the networks once more, now that none can be removed, and at what they allow.
func (s *Store) lookAround(facts *netFacts, spec *spec.Spec, o Options) (err error) {
	if facts.Networks, err = s.networksNamed(spec.Net.Networks...); err != nil {
		return err
	}
	if facts.Hub != nil {
		facts.OnHost = !facts.Hub.Own("net")
	}
	facts.OnlyIPv6 = onlyIPv6(facts.Networks)
	for _, n := range facts.Networks {
		endpoint := spec.Net.Endpoints[n.Name]
		if err := endpoint.On(n); err != nil {
			return err
		}
		if on, perr := s.podsOn(n.Name); o.DryRun && perr == nil && len(on) == 0 {
			facts.Unmade = n.Name
		}
	}
	if facts.OnHost && spec.Net.HostAccess {
		return fault.New(nil, []string{"--net outbound --host-access, or let the service listen on the network's gateway"},
			"--host-access does not go with root's networks: they are on the host, and no helper stands between")
	}
	return nil
}

// onlyIPv6 says whether a pod that is on these networks has no IPv4.
func onlyIPv6(networks []*network.Network) bool {
	return len(networks) > 0 && !slices.ContainsFunc(networks, func(n *network.Network) bool { return !n.OnlyIPv6() })
}

// enterHub: the user namespace of a pod on networks is a child of the hub's.
func (f *Facts) enterHub() error {
	hub := f.Net.Hub
	if hub == nil || !hub.Own("user") {
		return nil
	}
	pidfd, err := Open(hub)
	if err != nil {
		return err
	}
	// What the hub has is what there is, whatever /etc/subuid says by now.
	f.SubUIDs, f.SubGIDs = ids.RangesOf(hub.UIDMap), ids.RangesOf(hub.GIDMap)
	if hub.OneID && f.NoRanges == "" {
		f.NoRanges = "the hub of networks was made with one"
	}
	f.Enter = append(f.Enter, Entrance{File: pidfd, Flags: unix.CLONE_NEWUSER, What: "the hub that its networks are in", Pod: hub,
		Cmd: fmt.Sprintf("--target %d --user --preserve-credentials", hub.Holder.PID)})
	return nil
}
