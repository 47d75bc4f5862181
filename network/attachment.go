package network

import (
	"encoding/json"
	"net/netip"
	"slices"
)

// Network is what `podsh network create` wrote down. The code that carries it out is package link's; here are
// the words, for those who only speak of it.
type Network struct {
	Name     string          `json:"name"`
	Subnets  []netip.Prefix  `json:"subnets"`           // one of IPv4, at most one of IPv6; none where a Conflist decides
	Internal bool            `json:"internal"`          // without a way out
	Bridge   string          `json:"bridge"`            // its interface
	Resolver netip.Addr      `json:"resolver,omitzero"` // whom its pods ask for names, beyond the gateway; none: the gateway
	Conflist json.RawMessage `json:"conflist,omitempty"`
}

// Gateway is the address that a network's pods go out by: the first of its subnet, of IPv4 if it has one.
func (n *Network) Gateway() netip.Addr {
	var gateway netip.Addr
	for _, subnet := range n.Subnets {
		if subnet.Addr().Is4() || !gateway.IsValid() {
			gateway, _ = Ends(subnet)
		}
	}
	return gateway
}

// OnlyIPv6 says whether the network has no IPv4.
func (n *Network) OnlyIPv6() bool {
	return len(n.Subnets) > 0 && !slices.ContainsFunc(n.Subnets, func(subnet netip.Prefix) bool { return subnet.Addr().Is4() })
}

// Ends returns a subnet's gateway, which is its first address, and the last address a pod can have.
func Ends(subnet netip.Prefix) (gateway, last netip.Addr) {
	bytes := subnet.Addr().AsSlice()
	for bit := subnet.Bits(); bit < 8*len(bytes); bit++ {
		bytes[bit/8] |= 0x80 >> (bit % 8)
	}
	last, _ = netip.AddrFromSlice(bytes)
	if last.Is4() {
		last = last.Prev() // the last is for broadcasts
	}
	return subnet.Addr().Next(), last
}

// Attachment is a pod's place on a network.
type Attachment struct {
	Network       string          `json:"network"`
	Interface     string          `json:"interface"` // in the pod
	Addresses     []netip.Prefix  `json:"addresses"`
	Gateways      []netip.Addr    `json:"gateways"`
	MAC           string          `json:"mac"`
	MTU           int             `json:"mtu"`                      // bytes; 0: a plugin did not say
	HostInterface string          `json:"host_interface,omitempty"` // its other end
	Default       bool            `json:"default"`                  // the way out leads over this one
	Aliases       []string        `json:"aliases,omitempty"`        // what it is called there, too
	CNIResult     json.RawMessage `json:"cni_result,omitempty"`
}

// Addresses that are the same in every pod that says nothing of it: only the pod sees them. The first is its own, where
// it is on no network; the others are the helper's. IPv4 ones are those that slirp4netns and QEMU use.
var (
	OwnAddress4 = netip.MustParsePrefix("10.0.2.100/24")
	OwnAddress6 = netip.MustParsePrefix("fd70:6f64:7368::100/64")
	Gateway4    = netip.MustParseAddr("10.0.2.2")
	Gateway6    = netip.MustParseAddr("fd70:6f64:7368::2")
	Resolver4   = netip.MustParseAddr("10.0.2.3")
	Resolver6   = netip.MustParseAddr("fd70:6f64:7368::3")
)

// Whom pods ask on networks that are on the host: addresses that the host's loopback interface has while there are such
// pods. The first is link-local, so that it is nobody else's; the other, for networks without IPv4, is podsh's own.
var (
	HostResolver  = netip.MustParseAddr("169.254.20.53")
	HostResolver6 = netip.MustParseAddr("fd70:6f64:7368:ffff::53")
)

// Tun is the interface that a way out leads over.
const Tun = "tun0"

// HostName is what the host is called in a pod that may reach it.
const HostName = "host.containers.internal"

// Domain is where pods on networks look names up first: those of each other (package names has it as well).
const Domain = "dns.podsh"
