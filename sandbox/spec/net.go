package spec

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/podsh/podsh/network"
	"github.com/podsh/podsh/sandbox/fault"
)

// Net is what a user asked for of a pod's own network namespace.
type Net struct {
	Down       bool                `json:"down,omitempty"`       // not even loopback
	WayOut     string              `json:"way_out,omitempty"`    // one of the WayOut constants
	Hub        bool                `json:"hub,omitempty"`        // where networks are, though perhaps on none
	Subnets    []netip.Prefix      `json:"subnets,omitempty"`    // of its way out; else the usual ones
	Networks   []string            `json:"networks,omitempty"`   // to be on, by name
	Endpoints  map[string]Endpoint `json:"endpoints,omitempty"`  // what is asked for there, by network
	Ports      []network.Port      `json:"ports,omitempty"`      // to publish
	DNS        []netip.Addr        `json:"dns,omitempty"`        // name servers in place of the host's
	Search     []string            `json:"search,omitempty"`     // domains in place of the host's, resolv.conf(5); network.NoSearch: none
	Options    []string            `json:"options,omitempty"`    // of resolv.conf(5), in place of the host's
	Hosts      []NamedHost         `json:"hosts,omitempty"`      // for /etc/hosts
	HostsFile  string              `json:"hosts_file,omitempty"` // more lines for it: of this file; HostsOfHost, NoHosts, or empty
	HostAccess bool                `json:"host_access,omitempty"`
	HostPorts  []uint16            `json:"host_ports,omitempty"` // that it reaches on the host; none are all
	Sysctls    []Sysctl            `json:"sysctls,omitempty"`    // net.*
}

// How a pod that is on no network gets out.
const (
	WayOutNone  = ""
	WayOutStack = "stack" // gVisor's network stack, in the helper
	WayOutPasta = "pasta"
	WayOutSlirp = "slirp4netns"
)

// What may stand in place of a hosts file.
const (
	HostsOfHost = "host" // the host's own lines
	NoHosts     = "none" // and no answers from them either
)

// NamedHost is a line of /etc/hosts.
type NamedHost struct {
	Name string     `json:"name"`
	IP   netip.Addr `json:"ip"`
}

// Sysctl is a setting of the pod's network namespace.
type Sysctl struct {
	Key   string `json:"key"` // as sysctl(8) writes it: net.core.somaxconn
	Value string `json:"value"`
}

// WantsHelper says whether a spec asks for more than an empty network of its own.
func (n *Net) WantsHelper() bool {
	return n.WayOut != WayOutNone || len(n.Ports) > 0 || n.OnNetworks()
}

// OnNetworks says whether the pod is made where networks can be connected.
func (n *Net) OnNetworks() bool { return n.Hub || len(n.Networks) > 0 }

const netForms = "one of: new, none, host, path:FILE, pod:OTHER, outbound[:pasta|:slirp4netns][:subnet=CIDR], hub, NETWORK[:ip=…,mac=…,alias=…][,NETWORK…]"

// ParseNet reads what --net says.
func ParseNet(text string) (Choice, Net, error) {
	kind, value, has := strings.Cut(text, ":")
	own := Choice{Kind: "new"}
	switch {
	case kind == "path" || kind == "pod" || text == "new" || text == "host":
		choice, err := ParseChoice("net", text)
		return choice, Net{}, err
	case text == "none":
		return own, Net{Down: true}, nil
	case text == "outbound":
		return own, Net{WayOut: WayOutStack}, nil
	case kind == "outbound" && has:
		n, err := parseOutbound(text, strings.ReplaceAll(value, ":subnet=", ",subnet="))
		return own, n, err
	case text == "hub":
		return own, Net{Hub: true}, nil
	}
	n, err := parseNetworks(text)
	if hint := insteadOfNet(kind, value); err != nil && hint != "" {
		err = fault.New(fault.ErrInvalid, []string{hint}, "%v", err)
	}
	return own, n, err
}

// NetWords mean something to --net by themselves.
var NetWords = []string{"new", "none", "host", "outbound", "hub"}

// ForeignNets are what docker and podman take there, and what podsh has for it.
var ForeignNets = map[string]string{
	"bridge":      "--net outbound leads out; `podsh network create bridge` makes a network, where pods find each other by name",
	"container":   "--net pod:OTHER shares the network of a pod; podsh run --pod OTHER IMAGE runs a container in it",
	"ns":          "--net path:FILE",
	"pasta":       "--net outbound:pasta",
	"private":     "--net new",
	"slirp4netns": "--net outbound:slirp4netns",
}

// insteadOfNet is what was probably meant by KIND:VALUE that is nothing to --net, or "".
func insteadOfNet(kind, value string) string {
	if hint := ForeignNets[kind]; hint != "" {
		return hint
	}
	key, _, _ := strings.Cut(value, "=")
	if near := fault.Nearest(kind, []string{"path", "pod", "outbound"}); near != "" && value != "" && !slices.Contains(endpointKeys, key) {
		return fmt.Sprintf("did you mean --net %s:%s?", near, value)
	}
	return ""
}

// ParseEndpoint reads the NETWORK of `podsh network connect`, which may say what is asked for there.
func ParseEndpoint(text string) (name string, e Endpoint, err error) {
	n, err := parseNetworks(text)
	if err == nil && len(n.Networks) != 1 {
		err = fault.New(fault.ErrInvalid, []string{endpointForm}, "%q is not one network", text)
	}
	if err != nil {
		return "", Endpoint{}, err
	}
	return n.Networks[0], n.Endpoints[n.Networks[0]], nil
}

// ReservedNetwork says whether a name means something else to --net.
func ReservedNetwork(name string) bool {
	return slices.Contains(NetWords, name) || slices.Contains([]string{"path", "pod", "default"}, name)
}

// ParseHost reads NAME:IP, as in --add-host.
func ParseHost(text string) (NamedHost, error) {
	name, ip, _ := strings.Cut(text, ":")
	if ip == "host-gateway" { // docker's and podman's word
		return NamedHost{}, fault.New(fault.ErrInvalid, []string{"--net outbound --host-access reaches the host as " + network.HostName}, "--add-host %q is no name and address", text)
	}
	address, err := netip.ParseAddr(strings.Trim(ip, "[]"))
	if err != nil || !IsHostname(name) || address.Zone() != "" {
		return NamedHost{}, fault.New(fault.ErrInvalid, []string{"--add-host NAME:IP, such as db:192.0.2.7"}, "--add-host %q is no name and address", text)
	}
	return NamedHost{name, address}, nil
}

// ParseSysctl reads KEY=VALUE, as in --sysctl. Only settings of a network namespace are a pod's own.
func ParseSysctl(text string) (Sysctl, error) {
	key, value, has := strings.Cut(text, "=")
	path := strings.Trim(key, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-/")
	setting := Sysctl{key, value}
	switch {
	case !has || path != "" || strings.Contains(setting.Path()+key, "..") || strings.Contains(key, "//") || strings.ContainsAny(value, "\x00\n"):
		return Sysctl{}, fault.New(fault.ErrInvalid, []string{"--sysctl net.KEY=VALUE, such as net.core.somaxconn=1024"}, "malformed setting %q", text)
	case !strings.HasPrefix(key, "net."):
		return Sysctl{}, fault.New(fault.ErrInvalid, []string{"--sysctl takes what is a network namespace's own: net.*"}, "--sysctl %s: that setting is not the pod's own", key)
	}
	return setting, nil
}

// Path of the file that holds a setting, below /proc/sys. A dot in the name of an interface is written as a
// slash, sysctl(8).
func (s Sysctl) Path() string {
	return strings.Map(func(r rune) rune {
		switch r {
		case '.':
			return '/'
		case '/':
			return '.'
		}
		return r
	}, s.Key)
}

// ParseHostAccess reads the value of --host-access: all, or ports.
func ParseHostAccess(text string) ([]uint16, error) {
	var ports []uint16
	for part := range strings.SplitSeq(text, ",") {
		port, err := strconv.ParseUint(part, 10, 16)
		if err != nil || port == 0 {
			return nil, fault.New(fault.ErrInvalid, []string{"--host-access alone, or ports: --host-access=5432,6379"}, "%q is no port", part)
		}
		ports = append(ports, uint16(port))
	}
	return ports, nil
}

// validateNet refuses what contradicts itself.
func (s *Spec) validateNet() error {
	n := &s.Net
	kind := s.Choice("net")
	if kind != "" && kind != "new" {
		for flag, given := range map[string]bool{"--publish": len(n.Ports) > 0, "--host-access": n.HostAccess, "--sysctl": len(n.Sysctls) > 0} {
			if given {
				return fault.New(fault.ErrInvalid, []string{"leave out --net, or " + flag}, "%s needs a network namespace of the pod's own, and --net %s is another's", flag, kind)
			}
		}
	}
	if n.Down && len(n.Ports) > 0 {
		return fault.New(fault.ErrInvalid, []string{"leave out --net none"}, "--publish does not go with --net none: nothing in there can be reached")
	}
	if n.HostAccess && n.WayOut != WayOutStack && !n.OnNetworks() {
		return fault.New(fault.ErrInvalid, []string{"--net outbound --host-access"}, "--host-access needs --net outbound or a network")
	}
	for i, p := range n.Ports {
		for _, q := range n.Ports[i+1:] {
			if p.Overlaps(q) {
				return fault.New(fault.ErrInvalid, []string{"each port of the host's leads to one place: --publish " + network.PortForm}, "--publish: %s is there twice", p.Listens())
			}
		}
	}
	return errors.Join(n.validateSubnets(), n.validateNames())
}

// validateNames refuses what no resolv.conf(5) says.
func (n *Net) validateNames() error {
	for _, domain := range n.Search {
		if !isDomain(strings.TrimSuffix(domain, ".")) && domain != network.NoSearch {
			return fault.New(fault.ErrInvalid, []string{"--dns-search DOMAIN, such as example.org; --dns-search . for none"}, "--dns-search %q is no domain", domain)
		}
		if domain == network.NoSearch && len(n.Search) > 1 {
			return fault.New(fault.ErrInvalid, []string{"choose one of them"}, "--dns-search . means no domain, and there are others beside it")
		}
	}
	for _, option := range n.Options {
		name, number, has := strings.Cut(option, ":")
		_, err := strconv.ParseUint(number, 10, 16)
		if name == "" || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || has && err != nil {
			return fault.New(fault.ErrInvalid, []string{"--dns-option OPTION, such as ndots:2, timeout:1 or rotate: resolv.conf(5) has all of them"}, "--dns-option %q is no option of a resolver", option)
		}
	}
	if len(n.DNS) > 3 {
		return fault.New(fault.ErrInvalid, []string{"resolv.conf(5) knows three"}, "--dns: %d name servers are more than three", len(n.DNS))
	}
	return nil
}

// isDomain says whether s is a domain, as RFC 1035 section 2.3.4 bounds it. People do use underscores.
func isDomain(s string) bool {
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") != "" {
			return false
		}
	}
	return len(s) <= 253
}

// FollowsHost says whether names of the host's domains mean something in the pod.
func (n *Net) FollowsHost() bool { return n.WayOut != WayOutNone || n.OnNetworks() }

// AsksHosts says whether names of the host's /etc/hosts are answered: by default, but not where the user named
// whom or what to ask instead.
func (n *Net) AsksHosts() bool {
	return len(n.DNS) == 0 && (n.HostsFile == "" || n.HostsFile == HostsOfHost)
}

// HostLines are the pairs of address and name that are asked for in /etc/hosts.
func (n *Net) HostLines() (entries [][2]string) {
	for _, h := range n.Hosts {
		entries = append(entries, [2]string{h.IP.String(), h.Name})
	}
	return entries
}
