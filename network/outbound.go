package network

import (
	"net/netip"
	"strconv"
)

// Outbound are the addresses on the way out of a pod that is on no network: the pod's own with their subnets, and the
// helper's; IPv4 first.
type Outbound struct {
	Own       []netip.Prefix `json:"own"`
	Gateways  []netip.Addr   `json:"gateways"`
	Resolvers []netip.Addr   `json:"resolvers"`
}

// NewOutbound lays them out in subnets, as those that every pod has are where it names none: of a family at most one.
func NewOutbound(subnets []netip.Prefix) Outbound {
	o := Outbound{
		Own:       []netip.Prefix{OwnAddress4, OwnAddress6},
		Gateways:  []netip.Addr{Gateway4, Gateway6},
		Resolvers: []netip.Addr{Resolver4, Resolver6},
	}
	for _, subnet := range subnets {
		i, far, bits := 0, uint16(100), 7
		if subnet.Addr().Is6() {
			i, far, bits = 1, 0x100, 9
		}
		if subnet.Addr().BitLen()-subnet.Bits() < bits { // too small for that
			far = 4
		}
		o.Own[i] = netip.PrefixFrom(plus(subnet.Addr(), far), subnet.Bits())
		o.Gateways[i], o.Resolvers[i] = plus(subnet.Addr(), 2), plus(subnet.Addr(), 3)
	}
	return o
}

// plus is an address so many further, in a subnet that has so many.
func plus(ip netip.Addr, n uint16) netip.Addr {
	bytes := ip.AsSlice()
	bytes[len(bytes)-1] += byte(n)
	bytes[len(bytes)-2] += byte(n >> 8)
	ip, _ = netip.AddrFromSlice(bytes)
	return ip
}

// Pasta is the command line of pasta(1), but for the pid of the pod's holder, that gives a pod the way out
// that the helper's own stack would.
func Pasta(o Outbound) []string {
	return []string{"pasta", "--quiet", "--config-net", "--ns-ifname", Tun, "--address", o.Own[0].Addr().String(),
		"--netmask", strconv.Itoa(o.Own[0].Bits()), "--gateway", o.Gateways[0].String(), "--dns-forward", o.Resolvers[0].String(),
		"--no-map-gw", "--tcp-ports", "none", "--udp-ports", "none", "--tcp-ns", "none", "--udp-ns", "none"}
}

// Slirp is the command line of slirp4netns(1) that does so. userns is "" where that is the host's.
func Slirp(o Outbound, netns, userns string) []string {
	command := []string{"slirp4netns", "--configure", "--mtu", "65520", "--disable-host-loopback", "--enable-seccomp", "--netns-type", "path"}
	if o.Own[0] != OwnAddress4 {
		command = append(command, "--cidr", o.Own[0].Masked().String()) // in which it has the same layout
	}
	if userns != "" {
		command = append(command, "--userns-path", userns)
	}
	return append(command, netns, Tun)
}
