package network

import (
	"encoding/json"
	"net/netip"
	"strconv"
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

// Gateway is the address of IPv4 that a network's pods go out by: the first of its subnet.
func (n *Network) Gateway() netip.Addr {
	for _, subnet := range n.Subnets {
		if subnet.Addr().Is4() {
			return subnet.Masked().Addr().Next()
		}
	}
	return netip.Addr{}
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
	CNIResult     json.RawMessage `json:"cni_result,omitempty"`
}

// Addresses that are the same in every pod: only the pod sees them. The first is its own, where it is on no
// network; the others are the helper's. IPv4 ones are those that slirp4netns and QEMU use.
var (
	OwnAddress4 = netip.MustParsePrefix("10.0.2.100/24")
	OwnAddress6 = netip.MustParsePrefix("fd70:6f64:7368::100/64")
	Gateway4    = netip.MustParseAddr("10.0.2.2")
	Gateway6    = netip.MustParseAddr("fd70:6f64:7368::2")
	Resolver4   = netip.MustParseAddr("10.0.2.3")
	Resolver6   = netip.MustParseAddr("fd70:6f64:7368::3")
)

// HostResolver is whom pods ask on networks that are on the host: an address that the host's loopback interface
// has while there are such pods. It is link-local, so that it is nobody else's.
var HostResolver = netip.MustParseAddr("169.254.20.53")

// Tun is the interface that a way out leads over.
const Tun = "tun0"

// HostName is what the host is called in a pod that may reach it.
const HostName = "host.containers.internal"

// Domain is where pods on networks look names up first: those of each other (package names has it as well).
const Domain = "dns.podsh"

// Pasta is the command line of pasta(1), but for the pid of the pod's holder, that gives a pod the way out
// that the helper's own stack would.
func Pasta() []string {
	return []string{"pasta", "--quiet", "--config-net", "--ns-ifname", Tun, "--address", OwnAddress4.Addr().String(),
		"--netmask", strconv.Itoa(OwnAddress4.Bits()), "--gateway", Gateway4.String(), "--dns-forward", Resolver4.String(),
		"--no-map-gw", "--tcp-ports", "none", "--udp-ports", "none", "--tcp-ns", "none", "--udp-ns", "none"}
}

// Slirp is the command line of slirp4netns(1) that does so. userns is "" where that is the host's.
func Slirp(netns, userns string) []string {
	command := []string{"slirp4netns", "--configure", "--mtu", "65520", "--disable-host-loopback", "--enable-seccomp", "--netns-type", "path"}
	if userns != "" {
		command = append(command, "--userns-path", userns)
	}
	return append(command, netns, Tun)
}
