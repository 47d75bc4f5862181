package spec

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/podsh/podsh/network"
	"github.com/podsh/podsh/sandbox/fault"
)

// Endpoint is what a user asked for of a pod's place on a network.
type Endpoint struct {
	IPs     []netip.Addr `json:"ips,omitempty"` // of a family at most one; else those that are free
	MAC     string       `json:"mac,omitempty"`
	Aliases []string     `json:"aliases,omitempty"` // what it is called there, too
}

// endpointKeys are what can be asked for.
var endpointKeys = []string{"ip", "ip6", "mac", "alias"}

const endpointForm = "NETWORK:ip=ADDRESS,mac=ADDRESS,alias=NAME"

// parseNetworks reads NETWORK[:KEY=VALUE[,KEY=VALUE…]][,NETWORK…]: what has no name before it belongs to the network
// before it.
func parseNetworks(text string) (n Net, err error) {
	for part := range strings.SplitSeq(text, ",") {
		name, key := part, ""
		before, value, asked := strings.Cut(part, "=")
		if asked {
			var named bool
			if name, key, named = strings.Cut(before, ":"); !named {
				name, key = "", before
			}
		}
		if name != "" || !asked {
			if slices.Contains(n.Networks, name) {
				return Net{}, fault.New(fault.ErrInvalid, []string{"once is enough"}, "--net %q: network %q is there twice", text, name)
			}
			if !IsName(name) || ReservedNetwork(name) {
				return Net{}, fault.New(fault.ErrInvalid, []string{netForms}, "--net %q: no network can be called %q here", text, name)
			}
			n.Networks = append(n.Networks, name)
		}
		if !asked {
			continue
		}
		if len(n.Networks) == 0 {
			return Net{}, fault.New(fault.ErrInvalid, []string{"--net " + endpointForm}, "--net %q: %s of no network", text, key)
		}
		if err := n.addTo(n.Networks[len(n.Networks)-1], key, value); err != nil {
			return Net{}, err
		}
	}
	return n, nil
}

func (n *Net) addTo(name, key, value string) error {
	if n.Endpoints == nil {
		n.Endpoints = map[string]Endpoint{}
	}
	e := n.Endpoints[name]
	if err := e.Add(key, value); err != nil {
		return fmt.Errorf("--net %s: %w", name, err)
	}
	for other, has := range n.Endpoints {
		if other != name && key == "mac" && has.MAC == e.MAC {
			return fault.New(fault.ErrInvalid, []string{"each interface has its own"}, "mac %s: on networks %q and %q", e.MAC, other, name)
		}
	}
	n.Endpoints[name] = e
	return nil
}

// Add takes in one thing that was asked for: ip, mac or alias.
func (e *Endpoint) Add(key, value string) error {
	hint := []string{endpointForm + "; ip and alias may be there more than once"}
	switch key {
	case "ip", "ip6":
		ip, err := netip.ParseAddr(value)
		if err != nil || ip.Zone() != "" || ip.Is4In6() {
			return fault.New(fault.ErrInvalid, hint, "%s: %q is no address", key, value)
		}
		if slices.ContainsFunc(e.IPs, func(other netip.Addr) bool { return other.Is4() == ip.Is4() }) {
			return fault.New(fault.ErrInvalid, []string{"one of IPv4, one of IPv6"}, "%s %s: there is another of its kind already", key, value)
		}
		e.IPs = append(e.IPs, ip)
	case "mac":
		mac, ok := ParseMAC(value)
		if !ok || mac[0]&1 != 0 || slices.Max(mac) == 0 { // a group's, or none
			return fault.New(fault.ErrInvalid, []string{"six bytes, such as 02:42:ac:11:00:02; the first is even"}, "mac: %q is no hardware address of one interface", value)
		}
		if e.MAC != "" {
			return fault.New(fault.ErrInvalid, []string{"one is enough"}, "mac %s: there is another already", value)
		}
		e.MAC = fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3], mac[4], mac[5])
	case "alias":
		if !isDomain(value) {
			return fault.New(fault.ErrInvalid, []string{"letters, digits, - _ and dots between; 63 at most from dot to dot, 253 in all"}, "alias: %q is no name", value)
		}
		e.Aliases = append(e.Aliases, value)
	default:
		return fault.New(fault.ErrInvalid, []string{fault.DidYouMean(key, endpointKeys, hint[0])}, "no %q of a network", key)
	}
	return nil
}

// ParseMAC reads six bytes in hexadecimal digits, with : or - between them; net.ParseMAC would link all of package net.
func ParseMAC(text string) (mac []byte, ok bool) {
	for _, digits := range strings.FieldsFunc(text, func(r rune) bool { return r == ':' || r == '-' }) {
		b, err := strconv.ParseUint(digits, 16, 8)
		if err != nil || len(digits) != 2 {
			return nil, false
		}
		mac = append(mac, byte(b))
	}
	return mac, len(mac) == 6 && len(text) == len("02:42:ac:11:00:02")
}

// goesWith is the address of IPv4 whose pod has a hardware address by itself, as package link makes it; or none.
func goesWith(hardware string) netip.Addr {
	mac, ok := ParseMAC(hardware)
	if !ok || mac[0] != 0x0a || mac[1] != 0x58 {
		return netip.Addr{}
	}
	return netip.AddrFrom4([4]byte(mac[2:]))
}

// On checks it beside the network that it is for.
func (e *Endpoint) On(n *network.Network) error {
	ip := goesWith(e.MAC)
	if ip.IsValid() && !slices.Contains(e.IPs, ip) && slices.ContainsFunc(n.Subnets, func(s netip.Prefix) bool { return s.Contains(ip) }) {
		return fault.New(nil, []string{fmt.Sprintf("choose another, or ip=%s with it", ip)}, "mac %s is that of whoever has %s on network %q", e.MAC, ip, n.Name)
	}
	for _, ip := range e.IPs {
		if n.Conflist != nil {
			break // its plugins know
		}
		i := slices.IndexFunc(n.Subnets, func(subnet netip.Prefix) bool { return subnet.Contains(ip) })
		if i < 0 {
			return fault.New(nil, []string{"`podsh network inspect " + n.Name + "` shows its subnets"}, "%s is not on network %q, which has %s", ip, n.Name, strings.Trim(fmt.Sprint(n.Subnets), "[]"))
		}
		gateway, last := network.Ends(n.Subnets[i])
		if ip.Compare(gateway) <= 0 || ip.Compare(last) > 0 {
			return fault.New(nil, []string{fmt.Sprintf("from %s to %s", gateway.Next(), last)}, "%s is no address for a pod on network %q", ip, n.Name)
		}
	}
	return nil
}

// parseOutbound reads outbound[:pasta|:slirp4netns][:subnet=CIDR…], the words behind it separated by commas.
func parseOutbound(text, value string) (Net, error) {
	n := Net{WayOut: WayOutStack}
	for word := range strings.SplitSeq(value, ",") {
		subnet, isSubnet := strings.CutPrefix(word, "subnet=")
		switch {
		case word == WayOutPasta || word == WayOutSlirp:
			n.WayOut = word
		case !isSubnet:
			return Net{}, fault.New(fault.ErrInvalid, []string{netForms}, "--net %q is no network", text)
		default:
			prefix, err := netip.ParsePrefix(subnet)
			if err != nil {
				return Net{}, fault.New(fault.ErrInvalid, []string{"--net outbound:subnet=CIDR, such as 10.5.0.0/24"}, "--net outbound: %q is no subnet", subnet)
			}
			n.Subnets = append(n.Subnets, prefix)
		}
	}
	return n, nil
}

// validateSubnets refuses subnets in which a way out has no place.
func (n *Net) validateSubnets() error {
	for i, subnet := range n.Subnets {
		most := 29
		if subnet.Addr().Is6() {
			most = 125
		}
		if n.WayOut == WayOutSlirp {
			most = 25 // it says so itself
		}
		const flag = "--net outbound:subnet="
		switch ip := subnet.Addr(); {
		case ip.Is4In6() || ip.IsUnspecified() || ip.IsLoopback() || ip.IsMulticast() || ip.IsLinkLocalUnicast() || subnet.Bits() < 8:
			return fault.New(fault.ErrInvalid, []string{flag + "10.5.0.0/24"}, "%s%s is not for pods", flag, subnet)
		case subnet.Masked() != subnet:
			return fault.New(fault.ErrInvalid, []string{flag + subnet.Masked().String()}, "%s%s: there are bits behind the mask", flag, subnet)
		case subnet.Bits() > most:
			return fault.New(fault.ErrInvalid, []string{fmt.Sprintf("/%d at most", most)}, "%s%s: the pod, its gateway and its name server find no place there", flag, subnet)
		case ip.Is6() && n.WayOut != WayOutStack:
			return fault.New(fault.ErrInvalid, []string{"leave it out, or take podsh's own: --net outbound:subnet=…"}, "%s%s: %s is told of IPv4 alone", flag, subnet, n.WayOut)
		}
		if slices.ContainsFunc(n.Subnets[:i], func(other netip.Prefix) bool { return other.Addr().Is4() == subnet.Addr().Is4() }) {
			return fault.New(fault.ErrInvalid, []string{"one of IPv4, and perhaps one of IPv6"}, "%s%s: there is another of its kind already", flag, subnet)
		}
	}
	return nil
}

// Outbound are the addresses of a pod's own way out.
func (n *Net) Outbound() network.Outbound { return network.NewOutbound(n.Subnets) }
